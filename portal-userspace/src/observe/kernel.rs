//! What the kernel tells: events, captured frames, and how many of either found no room.

use std::{mem::offset_of, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use aya::maps::{HashMap, MapData, PerCpuArray, RingBuf};
use portal_common::{
    Reason,
    event::{Event, EventKind, FrameRecord},
    reason::Outcome,
    tables::{Address, ClientKey, Zone},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::broadcast,
};

use super::{
    capture::{CapturedTable, Captures, WallOffset, comment},
    events::EventLine,
    hub::EventHub,
    pcapng::CapturedFrame,
};
use crate::{
    control::api::Lost,
    net::Mac,
    session::{Cause, SessionEvent, SessionStore},
};

/// How often it is looked whether something was lost.
const LOSS_CHECK: Duration = Duration::from_secs(1);
/// How many records are read before other tasks get a turn.
const BATCH: usize = 64;
// `enum xdp_action`, Linux `include/uapi/linux/bpf.h`.
const XDP_PASS: u8 = 2;
const XDP_TX: u8 = 3;
const XDP_REDIRECT: u8 = 4;

/// Tells what the gate tells, until this is dropped. A client that has spent its quota is logged out at once, so that its next request gets it
/// to the login page.
pub async fn tell_events(ring: RingBuf<MapData>, sessions: Arc<SessionStore>, hub: EventHub) -> Result<()> {
    read(ring, |record| {
        let Some(event) = read_event(record) else { return };
        if event.kind == EventKind::QuotaSpent as u32
            && let Err(error) = sessions.end_if_over(event.client)
        {
            tracing::warn!(%error, "a client that has spent its quota stays logged in, without passing anything");
        }
        if !hub.is_unwatched()
            && let Some(line) = event_line(&event, WallOffset::now(), |zone| sessions.zone_name(zone))
        {
            hub.tell(line);
        }
    })
    .await
    .context("cannot read what the gate tells")
}

/// Gives captured frames to whoever captures, until this is dropped.
pub async fn deliver_captures(ring: RingBuf<MapData>, captures: Arc<Captures>) -> Result<()> {
    let wall = WallOffset::now();
    read(ring, |record| {
        if let Some((client, frame)) = read_frame(record, wall) {
            captures.deliver(client, &frame);
        }
    })
    .await
    .context("cannot read captured frames")
}

/// Tells what happens to sessions, until nobody is left who could.
pub async fn tell_sessions(mut sessions: broadcast::Receiver<SessionEvent>, hub: EventHub) -> Result<()> {
    loop {
        match sessions.recv().await {
            Ok(event) => hub.tell(session_line(event)),
            Err(broadcast::error::RecvError::Lagged(count)) => hub.tell(EventLine::lost(count)),
            Err(broadcast::error::RecvError::Closed) => bail!("the sessions have ended by themselves"),
        }
    }
}

/// Tells how many records found no room, once a second while there are such.
pub async fn tell_losses(reader: Arc<LostReader>, hub: EventHub, captures: Arc<Captures>) -> Result<()> {
    let mut before = reader.read()?;
    let mut ticks = tokio::time::interval(LOSS_CHECK);
    loop {
        ticks.tick().await;
        let now = reader.read()?;
        let (events, frames) = (now.events.saturating_sub(before.events), now.captures.saturating_sub(before.captures));
        before = now;
        if events > 0 {
            hub.tell(EventLine::lost(events));
        }
        if frames > 0 {
            captures.lose(frames);
        }
    }
}

/// Gives each record to `handle`.
async fn read(ring: RingBuf<MapData>, mut handle: impl FnMut(&[u8])) -> Result<()> {
    #[expect(deprecated, reason = "its successor is unsafe, and the ring buffer owns the descriptor that it names")]
    let mut ring = AsyncFd::try_with_interest(ring, Interest::READABLE).context("cannot wait for a ring buffer")?;
    loop {
        let mut ready = ring.readable_mut().await.context("cannot wait for a ring buffer")?;
        let mut left = BATCH;
        while left > 0 {
            match ready.get_inner_mut().next() {
                Some(record) => handle(&record),
                None => break,
            }
            left -= 1;
        }
        if left > 0 {
            // Empty. What comes after the last look makes it readable again.
            ready.clear_ready();
        } else {
            drop(ready);
            tokio::task::yield_now().await;
        }
    }
}

fn bytes<const N: usize>(record: &[u8], at: usize) -> Option<[u8; N]> {
    record.get(at..)?.first_chunk().copied()
}

fn client_key(bytes: [u8; 8]) -> ClientKey {
    let [z0, z1, mac @ ..] = bytes;
    ClientKey::new(Zone::new(u16::from_be_bytes([z0, z1])), mac)
}

fn read_event(record: &[u8]) -> Option<Event> {
    Some(Event {
        at_ns: u64::from_ne_bytes(bytes(record, offset_of!(Event, at_ns))?),
        kind: u32::from_ne_bytes(bytes(record, offset_of!(Event, kind))?),
        reason: u32::from_ne_bytes(bytes(record, offset_of!(Event, reason))?),
        client: client_key(bytes(record, offset_of!(Event, client))?),
        other: client_key(bytes(record, offset_of!(Event, other))?),
        address: Address(bytes(record, offset_of!(Event, address))?),
    })
}

/// The event in words; None for one of another version.
fn event_line(event: &Event, wall: WallOffset, zone_name: impl Fn(Zone) -> String) -> Option<EventLine> {
    let Event { at_ns, kind, reason, client, other, address } = event;
    let kind = EventKind::try_from(*kind).ok()?;
    let at = std::time::UNIX_EPOCH + wall.of(*at_ns);
    Some(EventLine {
        zone: Some(zone_name(client.zone())),
        client: Some(Mac::from_table(client.mac())),
        address: (address.0 != [0; 16]).then(|| (*address).into()),
        owner: (*other != ClientKey::NONE).then(|| Mac::from_table(other.mac())),
        reason: Reason::try_from(*reason).ok().map(|reason| reason.name().to_owned()),
        ..EventLine::at(kind.name(), at)
    })
}

fn session_line(event: SessionEvent) -> EventLine {
    let SessionEvent { zone, mac, cause, at } = event;
    EventLine { zone: Some(zone), client: Some(mac), ..EventLine::at(session_event(cause), at) }
}

/// As the event is called among all the others.
const fn session_event(cause: Cause) -> &'static str {
    match cause {
        Cause::Login => "login",
        Cause::Allowed => "allowed",
        Cause::Revoked => "revoked",
        Cause::LoggedOut => "logged_out",
        Cause::Expired => "expired",
        Cause::Idle => "idle",
        // The kernel's event of the frame that was too many is `quota_spent`.
        Cause::Quota => "quota",
        Cause::Evicted => "evicted",
    }
}

fn read_frame(record: &[u8], wall: WallOffset) -> Option<(ClientKey, CapturedFrame)> {
    let word = |at| bytes(record, at).map(u32::from_ne_bytes);
    let half = |at| bytes(record, at).map(u16::from_ne_bytes);
    let byte = |at: usize| record.get(at).copied();
    let len = word(offset_of!(FrameRecord, len))? as usize;
    let frame = record.get(FrameRecord::HEAD_BYTES..)?.get(..len)?;
    let flags = byte(offset_of!(FrameRecord, flags))?;
    let (outbound, shadow) = (flags & FrameRecord::OUTBOUND != 0, flags & FrameRecord::SHADOW != 0);
    let (to, from): ([u8; 6], [u8; 6]) = (bytes(frame, 0)?, bytes(frame, 6)?);
    let verdict = match byte(offset_of!(FrameRecord, action))? {
        XDP_PASS => Outcome::Passed,
        XDP_TX => Outcome::Answered,
        XDP_REDIRECT => Outcome::Redirected,
        _ => Outcome::Dropped,
    };
    let reason = Reason::try_from(word(offset_of!(FrameRecord, reason))?).ok();
    let zone = Zone::new(half(offset_of!(FrameRecord, zone))?);
    let tag_type = half(offset_of!(FrameRecord, vlan_protocol))?;
    let tci = half(offset_of!(FrameRecord, vlan_tci))?;
    let captured = CapturedFrame {
        at: wall.of(u64::from_ne_bytes(bytes(record, offset_of!(FrameRecord, at_ns))?)),
        ifindex: word(offset_of!(FrameRecord, ifindex))?,
        bytes: frame.to_vec(),
        whole_len: word(offset_of!(FrameRecord, frame_len))?,
        tag: (tag_type != 0).then_some((tag_type, tci)),
        outbound,
        comment: comment(verdict, reason, shadow),
    };
    Some((ClientKey::new(zone, if outbound { to } else { from }), captured))
}

/// Tells the gate whether anybody in a zone is captured.
type Switch = Box<dyn Fn(Zone, bool) -> Result<()> + Send>;

/// The kernel's table of captured clients, which is only looked at in zones where there are such.
pub struct CapturedClients {
    map: HashMap<MapData, ClientKey, u32>,
    switch: Switch,
    clients: Vec<ClientKey>,
}

impl CapturedClients {
    /// The table in this map; `switch` tells the gate whether to look at it for the frames of a zone.
    pub fn new(
        map: HashMap<MapData, ClientKey, u32>,
        switch: impl Fn(Zone, bool) -> Result<()> + Send + 'static,
    ) -> Self {
        Self { map, switch: Box::new(switch), clients: Vec::new() }
    }

    fn is_captured_from(&self, zone: Zone) -> bool {
        self.clients.iter().any(|client| client.zone() == zone)
    }
}

impl CapturedTable for CapturedClients {
    fn insert(&mut self, client: ClientKey) -> Result<()> {
        self.map.insert(client, 1, 0).context("cannot add to the table of captured clients")?;
        if !self.is_captured_from(client.zone())
            && let Err(error) = (self.switch)(client.zone(), true)
        {
            // The first error is the one to tell.
            let _: Result<(), _> = self.map.remove(&client);
            return Err(error);
        }
        self.clients.push(client);
        Ok(())
    }

    fn remove(&mut self, client: ClientKey) -> Result<()> {
        self.clients.retain(|other| *other != client);
        self.map.remove(&client).context("cannot remove from the table of captured clients")?;
        if self.is_captured_from(client.zone()) { Ok(()) } else { (self.switch)(client.zone(), false) }
    }
}

/// Reads how many records found no room in the kernel's ring buffers.
pub struct LostReader(PerCpuArray<MapData, portal_common::event::Lost>);

impl LostReader {
    /// The counters in this map.
    pub fn new(map: PerCpuArray<MapData, portal_common::event::Lost>) -> Self {
        Self(map)
    }

    /// Since the gate was loaded, summed over the CPUs.
    pub fn read(&self) -> Result<Lost> {
        let per_cpu = self.0.get(&0, 0).context("cannot read how much was lost")?;
        Ok(per_cpu.iter().fold(Lost::default(), |sum, cpu| Lost {
            events: sum.events + cpu.events,
            captures: sum.captures + cpu.captures,
            answers: sum.answers + cpu.answers,
            ..sum
        }))
    }
}

#[cfg(test)]
mod tests {
    use portal_common::tables::OwnedAddress;

    use super::*;

    /// The record as the kernel writes it.
    fn event_record(event: &Event) -> Vec<u8> {
        let mut record = vec![0; size_of::<Event>()];
        let mut put = |at: usize, bytes: &[u8]| record[at..at + bytes.len()].copy_from_slice(bytes);
        let key = |key: ClientKey| [&key.zone().number().to_be_bytes()[..], &key.mac()].concat();
        put(offset_of!(Event, at_ns), &event.at_ns.to_ne_bytes());
        put(offset_of!(Event, kind), &event.kind.to_ne_bytes());
        put(offset_of!(Event, reason), &event.reason.to_ne_bytes());
        put(offset_of!(Event, client), &key(event.client));
        put(offset_of!(Event, other), &key(event.other));
        put(offset_of!(Event, address), &event.address.0);
        record
    }

    #[test]
    fn events_have_what_they_are_about() {
        let zone = Zone::new(3);
        let [client, owner] = [1, 2].map(|n| ClientKey::new(zone, [2, 0, 0, 0, 0, n]));
        let address = OwnedAddress::new(zone, Address::v4([192, 0, 2, 7]));
        let wall = WallOffset::now();
        let line = |event: Event| {
            assert_eq!(read_event(&event_record(&event)), Some(event), "as it was written");
            event_line(&event, wall, |zone| format!("z{}", zone.number()))
        };
        let spoof = Event::new(0, EventKind::SpoofedAddress, client)
            .with_address(&address)
            .with_other(owner)
            .with_reason(Reason::SpoofedAddress);
        let spoof = line(spoof).unwrap();
        assert_eq!((spoof.event.as_str(), spoof.zone.as_deref()), ("spoofed_address", Some("z3")));
        assert_eq!(spoof.client.unwrap().to_string(), "02:00:00:00:00:01");
        assert_eq!(spoof.owner.unwrap().to_string(), "02:00:00:00:00:02");
        assert_eq!((spoof.address, spoof.reason.as_deref()), (Some([192, 0, 2, 7].into()), Some("spoofed_address")));
        let plain = line(Event::new(0, EventKind::Stranger, client)).unwrap();
        assert_eq!((plain.address, plain.owner, plain.reason), (None, None, None));
        assert_eq!(line(Event { kind: 999, ..Event::new(0, EventKind::Stranger, client) }), None);
        assert!(read_event(&[0; 47]).is_none());
    }

    fn frame_record(len: u32, flags: u8, action: u8, reason: Option<Reason>) -> Vec<u8> {
        let mut record = vec![0; size_of::<FrameRecord>()];
        let mut put = |at: usize, bytes: &[u8]| record[at..at + bytes.len()].copy_from_slice(bytes);
        put(offset_of!(FrameRecord, at_ns), &1_000_000_u64.to_ne_bytes());
        put(offset_of!(FrameRecord, ifindex), &7_u32.to_ne_bytes());
        put(offset_of!(FrameRecord, frame_len), &1_600_u32.to_ne_bytes());
        put(offset_of!(FrameRecord, len), &len.to_ne_bytes());
        put(offset_of!(FrameRecord, reason), &reason.map_or(0, |reason| reason as u32).to_ne_bytes());
        put(offset_of!(FrameRecord, zone), &3_u16.to_ne_bytes());
        put(offset_of!(FrameRecord, vlan_tci), &0x2064_u16.to_ne_bytes());
        put(offset_of!(FrameRecord, vlan_protocol), &0x88a8_u16.to_ne_bytes());
        put(offset_of!(FrameRecord, action), &[action]);
        put(offset_of!(FrameRecord, flags), &[flags]);
        put(offset_of!(FrameRecord, bytes), &[1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]);
        record
    }

    #[test]
    fn frames_are_of_the_client_that_sent_them_or_is_sent_them() {
        let wall = WallOffset::now();
        let table = [
            (0, XDP_TX, Some(Reason::TcpRefused), [2; 6], "answered: tcp_refused: "),
            (FrameRecord::OUTBOUND, 1, Some(Reason::RateDown), [1; 6], "dropped: rate_down: "),
            (FrameRecord::OUTBOUND, XDP_PASS, None, [1; 6], "passed"),
            (
                FrameRecord::SHADOW,
                XDP_REDIRECT,
                Some(Reason::HttpRequest),
                [2; 6],
                "passed in shadow mode, otherwise redirected",
            ),
        ];
        for (flags, action, reason, mac, said) in table {
            let (client, frame) = read_frame(&frame_record(60, flags, action, reason), wall).expect(said);
            assert_eq!((client.zone().number(), client.mac()), (3, mac), "{said}");
            assert!(frame.comment.starts_with(said), "{}", frame.comment);
            assert_eq!((frame.bytes.len(), frame.whole_len, frame.ifindex), (60, 1_600, 7), "{said}");
            assert_eq!((frame.tag, frame.at), (Some((0x88a8, 0x2064)), wall.of(1_000_000)), "{said}");
        }
        assert!(read_frame(&frame_record(5_000, 0, XDP_PASS, None), wall).is_none(), "longer than the record");
        assert!(read_frame(&[0; 20], wall).is_none());
    }
}
