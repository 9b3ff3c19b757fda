//! A DNS tunnel through the permitted resolver: without a login it must not be worth having.

use std::{
    io::{Read, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use portal_lab::{
    Lab, Portald, Settings,
    addresses::GUEST_MAC,
    clients::{
        iodine::{SERVER, Tunnel},
        iperf::Direction,
    },
};

use crate::{expect::done, turn::lab_alone};

/// What a tunnel must stay below before login, in bits per second (the figure).
const LIMIT: u64 = 8000;
/// How long that is measured, each way.
const BEFORE_LOGIN: Duration = Duration::from_secs(20);
/// How long it is measured with a login, which shows that the tunnel is one.
const WITH_LOGIN: Duration = Duration::from_secs(3);

#[test]
fn a_dns_tunnel_carries_next_to_nothing_without_a_login() -> Result<()> {
    let lab = lab_alone()?;
    let _portald = Portald::start(&lab, &Settings::default())?;
    // Set up with a login, so that what is measured without one is not a handshake.
    done(&lab, &["allow", GUEST_MAC])?;
    let tunnel = Tunnel::start(&lab, &lab.guest)?;
    let mut rates = Vec::new();
    for direction in Direction::ALL {
        done(&lab, &["allow", GUEST_MAC])?;
        let connection = Connection::open(&lab, direction)?;
        let with = connection.rate(WITH_LOGIN)?;
        ensure!(with > 10 * LIMIT, "{direction:?}: even with a login it carries only {with} bit/s: {}", tunnel.log());
        done(&lab, &["revoke", GUEST_MAC])?;
        // What was on its way or waits in a buffer is from before.
        connection.rate(Duration::from_secs(1))?;
        let without = connection.rate(BEFORE_LOGIN)?;
        println!("tunnel: iodine carries {with} bit/s {direction:?} with a login, {without} bit/s without");
        rates.push(without);
    }
    ensure!(rates.iter().all(|rate| *rate < LIMIT), "without a login a DNS tunnel carries {rates:?} bit/s");
    Ok(())
}

/// A TCP connection through the tunnel: one end sends all it can, the other counts.
struct Connection {
    receiver: TcpStream,
}

impl Connection {
    fn open(lab: &Lab, direction: Direction) -> Result<Self> {
        let server = IpAddr::V4(SERVER.parse::<Ipv4Addr>()?);
        let listener = lab.internet.enter(|| Ok(TcpListener::bind((server, 0))?))?;
        let to: SocketAddr = listener.local_addr()?;
        let client = lab.guest.connect(to.ip(), to.port(), Duration::from_secs(10)).context("no connection")?;
        let (server, _) = listener.accept()?;
        let (mut sender, receiver) = match direction {
            Direction::Up => (client, server),
            Direction::Down => (server, client),
        };
        thread::spawn(move || {
            // What cannot be compressed, as iodine compresses. It ends with the connection.
            let bytes: Vec<u8> = (0..65_536_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
            while sender.write_all(&bytes).is_ok() {}
        });
        Ok(Self { receiver })
    }

    /// Bits per second that arrive in this time.
    fn rate(&self, time: Duration) -> Result<u64> {
        let (start, mut arrived, mut buffer) = (Instant::now(), 0_u64, vec![0; 65_536]);
        while let Some(left) = time.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
            self.receiver.set_read_timeout(Some(left))?;
            match (&self.receiver).read(&mut buffer) {
                Ok(0) => return Err(anyhow!("the connection ended")),
                Ok(length) => arrived += length as u64,
                // It has timed out, or died of it: both are what should happen.
                Err(_) => break,
            }
        }
        Ok(arrived * 8000 / time.as_millis() as u64)
    }
}
