//! Networks that come and go at run time, beside one whose clients are in the middle of something.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use etherparse::PacketBuilder;
use portal_lab::{
    Lab, Namespace, Portald, Settings,
    addresses::{
        GATEWAY_MAC, GUEST_INTERFACE, GUEST_MAC, GUEST_V4, OTHER_V4, OTHER_V6, SECOND_INTERFACE, SITE_V4, SITES,
        VISITOR_V4, VISITOR_V6, mac,
    },
    portald::{config_path, config_text},
    wire::Wire,
};

use crate::{
    expect::{a_guest, a_stranger, counted, done},
    turn::lab,
};

/// Where the internet sends back what it gets.
const ECHO: u16 = 9999;
/// How long an echo may take, on a busy machine: it is lost then.
const LIMIT: Duration = Duration::from_secs(5);
/// How often networks come and go.
const ROUNDS: u64 = 4;

/// What has arrived in the internet: from whom, and the number in it.
type Arrived = Mutex<Vec<(IpAddr, u64)>>;

/// Sends back what comes from the guest, and notes what comes from anybody, until it is told to stop.
fn echo(socket: &UdpSocket, arrived: &Arrived, stop: &AtomicBool) -> Result<()> {
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    while !stop.load(Ordering::Relaxed) {
        let mut bytes = [0; 8];
        let Ok((_, from)) = socket.recv_from(&mut bytes) else { continue };
        let address = from.ip().to_canonical();
        arrived.lock().map_err(|_| anyhow!("poisoned"))?.push((address, u64::from_be_bytes(bytes)));
        if address == IpAddr::V4(GUEST_V4) {
            socket.send_to(&bytes, from)?;
        }
    }
    Ok(())
}

/// Asks for one echo after another; how many came. One that does not come is an error.
fn ask(guest: &Namespace, stop: &AtomicBool) -> Result<u64> {
    guest.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect((SITE_V4, ECHO))?;
        socket.set_read_timeout(Some(LIMIT))?;
        let mut number = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            socket.send(&number.to_be_bytes())?;
            let mut bytes = [0; 8];
            let length = socket.recv(&mut bytes).with_context(|| format!("echo {number} was lost"))?;
            ensure!(length == 8 && u64::from_be_bytes(bytes) == number, "echo {number} came as {bytes:02x?}");
            number += 1;
            thread::sleep(Duration::from_micros(200));
        }
        Ok(number)
    })
}

/// Sends numbered datagrams, over both IP versions, that `sent` counts before each.
fn knock(client: &Namespace, sent: &AtomicU64, stop: &AtomicBool) -> Result<()> {
    client.enter(|| {
        let sockets = ["0.0.0.0:0", "[::]:0"].map(UdpSocket::bind);
        while !stop.load(Ordering::Relaxed) {
            for (socket, site) in sockets.iter().zip(SITES) {
                let number = sent.fetch_add(1, Ordering::SeqCst);
                let socket = socket.as_ref().map_err(|e| anyhow!("no socket: {e}"))?;
                // An ICMP error for the one before is no matter.
                let _: std::io::Result<_> = socket.send_to(&number.to_be_bytes(), SocketAddr::new(site, ECHO));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    })
}

/// A frame of the guest's in the VLAN of the third network, of which nothing is permitted to a stranger.
fn tagged() -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(mac(GUEST_MAC), mac(GATEWAY_MAC))
        .single_vlan(etherparse::VlanId::try_new(10).expect("it is one"))
        .ipv4(GUEST_V4.octets(), SITE_V4.octets(), 64);
    let mut frame = Vec::new();
    builder.icmpv4_raw(13, 0, [0, 1, 0, 1]).write(&mut frame, &[0; 40]).expect("a Vec takes all");
    frame
}

#[test]
fn networks_come_and_go_without_a_word_lost_in_another() -> Result<()> {
    let mut lab = lab()?;
    let visitor = lab.add_second_network()?;
    let config = config_text(&lab, &Settings::default());
    let _portald = Portald::start_with(&lab, &config, &[])?;
    done(&lab, &["allow", GUEST_MAC])?;
    a_guest(&lab.guest)?;
    // The third shares the first one's interface. Its gateway's interface is not looked at here.
    std::fs::write(
        config_path(&lab),
        format!(
            "{config}\n[[zone]]\nname = \"second\"\ninterface = \"{SECOND_INTERFACE}\"\n\
             [[zone]]\nname = \"third\"\ninterface = \"{GUEST_INTERFACE}\"\nvlan = 10\ngateway = \"wan0\"\n"
        ),
    )?;

    let socket = lab.internet.enter(|| Ok(UdpSocket::bind(("::", ECHO))?))?;
    // Who sends back stops last.
    let (arrived, stop, stop_echo) = (Arrived::default(), AtomicBool::new(false), AtomicBool::new(false));
    let (sent, visits) = (AtomicU64::new(0), AtomicU64::new(0));
    let (lab, visitor) = (&*lab, &visitor);
    let (echoes, changes) = thread::scope(|scope| {
        let server = scope.spawn(|| echo(&socket, &arrived, &stop_echo));
        let asking = scope.spawn(|| ask(&lab.guest, &stop));
        let knocking = [(&lab.other, &sent), (visitor, &visits)];
        let knocking = knocking.map(|(client, count)| scope.spawn(|| knock(client, count, &stop)));
        let changes = come_and_go(lab, visitor, &visits, &arrived);
        stop.store(true, Ordering::Relaxed);
        let joined = |result: thread::Result<Result<()>>| result.map_err(|_| anyhow!("a thread panicked"))?;
        let echoes = asking.join().map_err(|_| anyhow!("the asking thread panicked"))?;
        stop_echo.store(true, Ordering::Relaxed);
        joined(server.join())?;
        knocking.into_iter().try_for_each(|thread| joined(thread.join()))?;
        anyhow::Ok((echoes, changes))
    })?;
    changes?;
    let echoes = echoes?;
    let arrived = arrived.lock().map_err(|_| anyhow!("poisoned"))?;
    let from = |address: IpAddr| arrived.iter().filter(|(from, _)| *from == address).count() as u64;
    println!("attach: {echoes} echoes, {} knocks of a stranger", sent.load(Ordering::Relaxed));
    ensure!(echoes > 0 && from(IpAddr::V4(GUEST_V4)) == echoes, "{echoes} echoes");
    ensure!(sent.load(Ordering::Relaxed) > 0);
    for stranger in [IpAddr::V4(OTHER_V4), IpAddr::V6(OTHER_V6)] {
        assert_eq!(from(stranger), 0, "a stranger of the first network was let through");
    }
    Ok(())
}

/// The second and the third network come and go. From the moment at which portalctl says that the second is guarded, nothing of its visitor's arrives.
fn come_and_go(lab: &Lab, visitor: &Namespace, visits: &AtomicU64, arrived: &Arrived) -> Result<()> {
    let latest = || -> Result<Option<u64>> {
        let arrived = arrived.lock().map_err(|_| anyhow!("poisoned"))?;
        let visits = arrived.iter().filter(|(from, _)| [IpAddr::V4(VISITOR_V4), IpAddr::V6(VISITOR_V6)].contains(from));
        Ok(visits.map(|(_, number)| *number).max())
    };
    let until_knocks_pass = |number: u64| {
        let deadline = Instant::now() + LIMIT;
        while latest()?.is_none_or(|last| last < number) {
            ensure!(Instant::now() < deadline, "without a gate the visitor's packets do not arrive");
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    };
    let guest = lab.guest.enter(|| Ok(Wire::open_for_sending("eth0", 64 << 10)?))?;
    for round in 1..=ROUNDS {
        // Nobody guards it: it is open.
        until_knocks_pass(visits.load(Ordering::SeqCst))?;
        done(lab, &["zones", "attach", "second"])?;
        // What has a higher number was sent afterwards.
        let attached = visits.load(Ordering::SeqCst);
        let dropped = counted(lab, None, false, "no_zone")?;
        guest.send(&tagged())?;
        let deadline = Instant::now() + LIMIT;
        while counted(lab, None, false, "no_zone")? == dropped {
            ensure!(Instant::now() < deadline, "a frame in a VLAN of no network was not dropped");
        }
        done(lab, &["zones", "attach", "third"])?;
        guest.send(&tagged())?;
        let deadline = Instant::now() + LIMIT;
        while counted(lab, Some("third"), false, "icmp")? < round {
            ensure!(Instant::now() < deadline, "the first frame in the third network was not dropped");
        }
        assert_eq!(counted(lab, None, false, "no_zone")?, dropped + 1);
        a_stranger(visitor)?;
        a_guest(&lab.guest)?;
        if let Some(number) = latest()?.filter(|number| *number >= attached) {
            anyhow::bail!("knock {number} of the visitor's arrived, and {attached} was the first behind the gate");
        }
        done(lab, &["zones", "detach", "third"])?;
        done(lab, &["zones", "detach", "second", "--open"])?;
    }
    until_knocks_pass(visits.load(Ordering::SeqCst))
}
