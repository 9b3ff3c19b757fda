//! A stranger that sends as much as it can: bare SYNs and DNS queries by a packet socket, requests on real handshakes by wrk.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::{
    addresses::{GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, OTHER_MAC, OTHER_V4, OTHER_V6, SITE_V4, SITE_V6, mac},
    lab::Lab,
    process::{Service, wait_for},
    wire::Wire,
};

/// The CPU that the flood is made on.
pub const FLOOD_CPU: usize = 0;
/// How long a flood lasts at most, whatever happens.
const LONGEST: Duration = Duration::from_secs(40);
/// Different frames of a kind; then they come again.
const DIFFERENT: u32 = 8192;
/// Memory of the frames on their way. A veth's ring holds 256 frames and is emptied by the CPU that fills it: a generator that
/// fills it to the brim would make others' frames wait for it, and lose them, whatever the gate does.
const ON_ITS_WAY: i32 = 64 << 10;
/// Frames in a system call.
const BATCH: usize = 64;

/// What a flood is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// SYNs to port 80, from any port, over both IP versions.
    Syns,
    /// DNS queries to the gateway's resolver for names that were never asked for, over both IP versions.
    Dns,
    /// A DHCP server's messages, which a gate drops at first sight: what is lost in their flood, the lab loses by itself.
    Junk,
    /// Requests on port 80, each on a connection of its own.
    Requests,
}

/// A flood from the second guest's addresses. It ends when it is dropped.
#[derive(Debug)]
pub struct Flood {
    wrk: Option<Service>,
    stop: Arc<AtomicBool>,
    sender: Option<JoinHandle<Result<()>>>,
}

impl Flood {
    /// Starts to flood, and waits until it arrives.
    pub fn start(lab: &Lab, kinds: &[Kind]) -> Result<Self> {
        let before = frames(lab)?;
        let stop = Arc::new(AtomicBool::new(false));
        let bare: Vec<_> = (0..DIFFERENT).flat_map(|n| kinds.iter().filter_map(move |kind| frame(*kind, n))).collect();
        let mut flood = Self { wrk: None, stop: Arc::clone(&stop), sender: None };
        if !bare.is_empty() {
            // On the wire itself: a macvlan above it would cost the generator half of its pace.
            let wire = lab.guest.enter(|| Ok(Wire::open_for_sending("eth0", ON_ITS_WAY)?))?;
            wire.bypass_queueing()?;
            flood.sender = Some(thread::spawn(move || send(&wire, &bare, &stop)));
        }
        if kinds.contains(&Kind::Requests) {
            let mut command = lab.other.service_on(FLOOD_CPU, "wrk");
            command.args(["--threads", "1", "--connections", "64", "--timeout", "1s", "-H", "Connection: close"]);
            command.args(["--duration", &format!("{}s", LONGEST.as_secs()), &format!("http://{SITE_V4}/")]);
            flood.wrk = Some(Service::start("wrk", &mut command, &lab.directory().join("flood.log"))?);
        }
        wait_for("the flood", Duration::from_secs(30), || (frames(lab).ok()? > before + 1000).then_some(()))?;
        flood.is_going_on()?;
        Ok(flood)
    }

    /// It must not have ended by itself.
    pub fn is_going_on(&mut self) -> Result<()> {
        if let Some(sender) = self.sender.take_if(|sender| sender.is_finished()) {
            sender.join().map_err(|_| anyhow!("the flood's sender panicked"))?.context("the flood ended")?;
            return Err(anyhow!("the flood ended after {LONGEST:?}"));
        }
        let Some(wrk) = &mut self.wrk else { return Ok(()) };
        let ended = wrk.ended()?;
        ensure!(ended.is_none(), "the flood ended: {ended:?}: {}", wrk.log());
        Ok(())
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(Err(e)) = self.sender.take().and_then(|sender| sender.join().ok()) {
            eprintln!("flood: {e:#}");
        }
    }
}

/// Sends the frames over and over.
fn send(wire: &Wire, frames: &[Vec<u8>], stop: &AtomicBool) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(FLOOD_CPU);
    // Of this thread alone.
    sched_setaffinity(None, &cpus)?;
    let end = Instant::now() + LONGEST;
    for batch in frames.chunks(BATCH).cycle() {
        if stop.load(Ordering::Relaxed) || Instant::now() > end {
            break;
        }
        match wire.send_many(batch) {
            Ok(_) => {}
            // The queue at the other end is full: that is what a flood does.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOBUFS | libc::EAGAIN)) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// The n-th of a kind, over both IP versions by turns.
fn frame(kind: Kind, n: u32) -> Option<Vec<u8>> {
    let is_v4 = n.is_multiple_of(2);
    let (client, site, resolver): (IpAddr, IpAddr, IpAddr) = if is_v4 {
        (OTHER_V4.into(), SITE_V4.into(), GATEWAY_V4.into())
    } else {
        (OTHER_V6.into(), SITE_V6.into(), GATEWAY_V6.into())
    };
    let to = match kind {
        Kind::Dns => resolver,
        Kind::Syns | Kind::Junk => site,
        Kind::Requests => return None,
    };
    let port = 1024 + (n * 7 % 60_000) as u16;
    // The junk from ever another address, so that it is spread over the queues as the others are.
    let step = if kind == Kind::Junk { ip(beside(client, n), to) } else { ip(client, to) };
    let mut bytes = Vec::new();
    match kind {
        Kind::Dns => {
            let name = format!("{n:08x}");
            let mut query = vec![(n >> 8) as u8, n as u8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 8];
            query.extend(name.as_bytes());
            // The A record of a name below `flood.example`, class IN.
            query.extend(b"\x05flood\x07example\0\0\x01\0\x01");
            step.udp(port, 53).write(&mut bytes, &query).expect("a Vec takes all");
        }
        Kind::Junk if is_v4 => step.udp(67, 68).write(&mut bytes, &[0; 60]).expect("a Vec takes all"),
        Kind::Junk => step.udp(547, 546).write(&mut bytes, &[0; 60]).expect("a Vec takes all"),
        Kind::Syns | Kind::Requests => {
            let step = step.tcp(port, 80, n.wrapping_mul(0x9e37_79b9), 64_240).syn();
            step.write(&mut bytes, &[]).expect("a Vec takes all");
        }
    }
    Some(bytes)
}

/// Another address of the same network.
fn beside(address: IpAddr, n: u32) -> IpAddr {
    match address {
        IpAddr::V4(v4) => Ipv4Addr::from(u32::from(v4) & !0xff | (100 + n % 100)).into(),
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) & !0xffff | u128::from(0x1000 + n % 1000)).into(),
    }
}

/// Ethernet and IP, from the flooding client to the gateway.
fn ip(from: IpAddr, to: IpAddr) -> PacketBuilderStep<IpHeaders> {
    let step = PacketBuilder::ethernet2(mac(OTHER_MAC), mac(GATEWAY_MAC));
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => step.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => step.ipv6(from.octets(), to.octets(), 64),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => unreachable!("of one IP version"),
    }
}

/// Frames that have arrived at the guests' end of the gateway.
pub fn frames(lab: &Lab) -> Result<u64> {
    let text = lab.gateway.ip("-j -s link show dev guest0")?;
    let json: serde_json::Value = serde_json::from_str(&text)?;
    json[0]["stats64"]["rx"]["packets"].as_u64().with_context(|| format!("no counter in {text}"))
}
