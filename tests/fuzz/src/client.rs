//! A client of the gate with its handshake behind it, and the segments it sends.

use etherparse::{PacketBuilder, TcpHeader};
use portal_common::{
    Family,
    cookie::{self, Phase, SLOT_NS},
    frame::MAX_REDIRECTED_LEN,
    siphash::Key,
    tables::CookieKeys,
};
use portal_userspace::responder::segment::Segment;

/// When every run begins: nanoseconds of the clock that cookies are made by.
pub const START_NS: u64 = 5 * SLOT_NS;

const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];

/// VLAN tags: for an untagged network (the second way only says a priority), a tagged and a doubly tagged one, and nobody's.
const TAGS: [&[u8]; 5] =
    [&[], &[0x81, 0, 0xe0, 0], &[0x81, 0, 0, 7], &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 8], &[0x81, 0, 0, 9]];

/// The secrets of every run.
pub fn keys() -> CookieKeys {
    CookieKeys::new(std::array::from_fn(|i| Key([i as u64 + 1, 99])))
}

/// What makes a client.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity {
    /// The last byte of its MAC address and the low byte of its port.
    pub number: u8,
    /// Over IPv6.
    pub ipv6: bool,
    /// To port 443 instead of 80.
    pub tls: bool,
    /// Which of the VLAN tags.
    pub tags: u8,
    /// Its initial sequence number.
    pub isn: u32,
}

/// A client, as one of its connections.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    identity: Identity,
    /// The acknowledgement number of all it sends: our cookie, and the SYN.
    pub ack: u32,
}

/// What varies in a segment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flags {
    /// The end of the stream.
    pub fin: bool,
    /// The end of a write.
    pub psh: bool,
}

impl Client {
    /// Makes the handshake.
    pub fn new(identity: Identity) -> Self {
        let client = Self { identity, ack: 0 };
        let probe = client.raw(0, b"", Flags::default());
        let tuple = Segment::read(&probe).expect("a segment").path.tuple();
        Self { ack: cookie::isn(&keys(), &tuple, identity.isn, START_NS).wrapping_add(1), ..client }
    }

    /// The sequence number of this byte of the client's stream.
    pub fn seq(&self, offset: usize) -> u32 {
        self.identity.isn.wrapping_add(1 + offset as u32)
    }

    /// A segment as the gate redirects it: trimmed.
    pub fn segment(&self, seq: u32, data: &[u8], flags: Flags) -> Vec<u8> {
        let mut frame = self.raw(seq, data, flags);
        frame.truncate(MAX_REDIRECTED_LEN);
        frame
    }

    fn raw(&self, seq: u32, data: &[u8], flags: Flags) -> Vec<u8> {
        let Identity { number, ipv6, tls, tags, isn: _ } = self.identity;
        let mut tcp = TcpHeader::new(0x9c00 | u16::from(number), if tls { 443 } else { 80 }, seq, 1024);
        tcp.acknowledgment_number = self.ack;
        (tcp.ack, tcp.fin, tcp.psh) = (true, flags.fin, flags.psh);
        let mut frame = [OWN_MAC, [2, 0, 0, 0, 1, number]].concat();
        frame.extend_from_slice(TAGS[usize::from(tags) % TAGS.len()]);
        let builder = if ipv6 {
            frame.extend_from_slice(&[0x86, 0xdd]);
            PacketBuilder::ipv6([0x20; 16], [0x21; 16], 64)
        } else {
            frame.extend_from_slice(&[0x08, 0x00]);
            PacketBuilder::ipv4([192, 0, 2, 7], [198, 51, 100, 80], 64)
        };
        builder.tcp_header(tcp).write(&mut frame, data).expect("it fits");
        frame
    }

    /// The IP version.
    pub fn family(&self) -> Family {
        if self.identity.ipv6 { Family::V6 } else { Family::V4 }
    }

    /// Whether a segment at this offset is taken for the first: rightly, or once in 4,096 times wrongly (see [`Phase`]).
    pub fn is_first(&self, offset: usize) -> bool {
        let frame = self.segment(self.seq(offset), b"", Flags::default());
        let tuple = Segment::read(&frame).expect("a segment").path.tuple();
        let phase = cookie::phase(&keys(), &tuple, self.seq(offset), self.ack, START_NS);
        matches!(phase, Some(Phase::Request { first: true }))
    }
}
