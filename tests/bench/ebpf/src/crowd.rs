//! The lab's crowd: thousands of HTTP clients that one program in the kernel plays, to load a gateway with whole exchanges.
//!
//! An exchange has six frames: SYN, SYN-ACK, ACK with the request, the response with FIN, FIN with ACK, and the last ACK. (A server that sends its FIN
//! by itself makes one more.) A number tells everything about an exchange: who the client is, its ports, its sequence number, and what it asks
//! for. What is in flight lies in a slot, which each frame names: the client's initial sequence number has it in its upper half, so that every
//! acknowledgement number brings it back.
//!
//! It is shared because user space begins what the kernel goes on with.

use core::{mem::size_of, num::NonZeroU64};

use portal_common::{Family, checksum::Sum, cookie::RESPONSE_MAX, flag};

const TCP: u8 = 6;
const PORT_HTTP: u16 = 80;

/// The length of every request, bytes: one length makes frames of one length, which are written without a loop.
pub const REQUEST_LEN: usize = 96;
/// How many kinds of requests there are: a page, and a probe.
pub const KINDS: usize = 2;
/// The longest response that can be compared, in words of 8 bytes.
pub const RESPONSE_WORDS: usize = RESPONSE_MAX.div_ceil(8);
/// The most exchanges in flight at once.
pub const MAX_SLOTS: u32 = 1 << 16;

/// The option of a SYN: maximum segment size 1,460 (RFC 9293 section 3.2).
const MSS_OPTION: [u8; 4] = [2, 4, 0x05, 0xb4];
/// Clients are spread over their range by a prime, so that neighbours in time are none by address.
const SPREAD: u64 = 2_654_435_761;
/// Ports below are others'.
const FIRST_PORT: u64 = 1024;
const PORTS: NonZeroU64 = NonZeroU64::new(65_536 - FIRST_PORT).expect("there are ports left");
/// The slot is above these bits of the initial sequence number.
const SLOT_SHIFT: u32 = 16;
/// Below the slot, and above what an exchange adds (the request and two flags), is how often the slot was used.
const ROUND_SHIFT: u32 = 11;
const ROUND_MASK: u32 = (1 << (SLOT_SHIFT - ROUND_SHIFT)) - 1;
const _: () = assert!(REQUEST_LEN + 2 < 1 << ROUND_SHIFT);

/// Who the clients are, and what they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Crowd {
    /// The first client's IPv6 address; the others' differ in the last 32 bits.
    pub client_v6: [u8; 16],
    /// The server's IPv6 address.
    pub server_v6: [u8; 16],
    /// The first client's IPv4 address; the others' follow.
    pub client_v4: [u8; 4],
    /// The server's IPv4 address.
    pub server_v4: [u8; 4],
    /// The gateway's MAC address.
    pub gateway: [u8; 6],
    /// Which families: [`Crowd::V4`], [`Crowd::V6`], or both by turns.
    pub families: u8,
    /// Whether the checksums of what arrives are verified: a kernel leaves them to the interface, which a veth is not.
    pub verifies_checksums: u8,
    /// The first client's number.
    pub first_client: u32,
    /// How many clients there are.
    pub clients: u32,
    /// How many exchanges are in flight.
    pub slots: u32,
    /// How many exchanges each slot makes.
    pub rounds: u32,
    /// Every so many exchanges of a family are probes; 0 for none.
    pub probe_every: u32,
    /// Flags that the requests have beside ACK and PSH: with [`Crowd::CWR`] the responder answers each of them, and the gate none by itself.
    pub request_flags: u32,
}

const _: () = assert!(size_of::<Crowd>() == 72);

/// What a slot is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Slot {
    /// When its exchange began, nanoseconds of CLOCK_MONOTONIC.
    pub began_ns: u64,
    /// How many exchanges it has made.
    pub round: u32,
    /// How far this one is: [`phase`].
    pub phase: u32,
    /// The server's next sequence number.
    pub server_next: u32,
    /// How many steps it has made: what does not move is stuck.
    pub moves: u32,
}

/// How far an exchange is.
pub mod phase {
    /// Nothing has begun.
    pub const IDLE: u32 = 0;
    /// The SYN is sent.
    pub const OPENING: u32 = 1;
    /// The request is sent.
    pub const ASKED: u32 = 2;
    /// The response is there, the server's FIN is not.
    pub const ANSWERED: u32 = 3;
    /// The FIN is sent.
    pub const CLOSING: u32 = 4;
    /// The slot has made all its exchanges.
    pub const DONE: u32 = 5;
}

/// What a response must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Expected {
    /// The sum of its bytes, for the checksum.
    pub sum: u64,
    /// Its length, bytes.
    pub length: u32,
    /// Zero.
    pub padding: u32,
    /// Its words, each with the bits of it that count: a server may write the time.
    pub words: [[u64; 2]; RESPONSE_WORDS],
}

/// What the crowd has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Seen {
    /// SYNs that were sent by the program; the first ones are sent by user space.
    pub opened: u64,
    /// SYN-ACKs that were right.
    pub handshakes: u64,
    /// Responses that were right, byte for byte, by kind.
    pub responses: [u64; KINDS],
    /// Exchanges that have come to their end, whole.
    pub completed: u64,
    /// Responses with a byte that is wrong, or of the wrong length.
    pub wrong_bytes: u64,
    /// Frames with a wrong checksum.
    pub wrong_checksum: u64,
    /// Resets.
    pub resets: u64,
    /// Segments of an exchange that do not belong where it is: flags, or a sequence number.
    pub unexpected: u64,
    /// Frames of no exchange in flight: of one that was given up, or addressed to somebody else.
    pub foreign: u64,
    /// Frames that are not TCP.
    pub other: u64,
    /// Frames that could not be sent in their place.
    pub unsent: u64,
    /// Bare acknowledgements of the request, which a kernel may send before the response.
    pub acknowledgements: u64,
}

/// How long exchanges took, from the SYN to the checked response: buckets of an eighth of a power of two of nanoseconds.
pub const TIMES: u32 = 8 * 64;

/// The bucket of a duration.
#[inline(always)]
pub const fn bucket(ns: u64) -> u32 {
    let ns = if ns < 8 { 8 } else { ns };
    let exponent = ns.ilog2();
    exponent * 8 + (ns >> (exponent - 3)) as u32 % 8
}

/// The shortest duration of a bucket, nanoseconds.
pub const fn bucket_start(bucket: u32) -> u64 {
    let (exponent, eighth) = (bucket / 8, (bucket % 8) as u64);
    if exponent < 3 { 0 } else { (8 + eighth) << (exponent - 3) }
}

/// An exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The client's number.
    pub client: u32,
    /// The client's port.
    pub port: u16,
    /// IPv4 or IPv6.
    pub family: Family,
    /// What is asked for: 0 a page, 1 a probe.
    pub kind: u32,
    /// The client's initial sequence number.
    pub isn: u32,
}

/// Ethernet, IP and TCP: `N` is the length of the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Head<const N: usize> {
    /// Ethernet.
    pub ethernet: [u8; 14],
    /// IP.
    pub network: [u8; N],
    /// TCP, without options.
    pub tcp: [u8; 20],
}

const _: () = assert!(size_of::<Head<20>>() == 54 && size_of::<Head<40>>() == 74);

/// A segment to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The sequence number.
    pub seq: u32,
    /// The acknowledgement number; none makes it a SYN, with its option.
    pub ack: Option<u32>,
    /// Whether it has a FIN.
    pub fin: bool,
    /// The sum of the request that it carries; None for no request.
    pub request: Option<Sum>,
}

impl Segment {
    const fn header_words(&self) -> u8 {
        if self.ack.is_some() { 5 } else { 6 }
    }

    const fn flags(&self) -> u8 {
        let ack = if self.ack.is_some() { flag::ACK } else { flag::SYN };
        let push = if self.request.is_some() { flag::PSH } else { 0 };
        let fin = if self.fin { flag::FIN } else { 0 };
        ack | push | fin
    }

    /// How much follows the 20 bytes of the TCP header: the option of a SYN, or the request.
    pub const fn rest_len(&self) -> usize {
        if self.request.is_some() {
            REQUEST_LEN
        } else if self.ack.is_some() {
            0
        } else {
            MSS_OPTION.len()
        }
    }
}

impl Crowd {
    /// In [`Crowd::families`]: IPv4.
    pub const V4: u8 = 1;
    /// In [`Crowd::request_flags`]: congestion window reduced (RFC 3168 section 6.1.2), which any segment with data may say.
    pub const CWR: u32 = 0x80;
    /// In [`Crowd::families`]: IPv6.
    pub const V6: u8 = 2;

    /// What a slot's exchange is about.
    #[inline(always)]
    pub fn flow(&self, slot: u32, round: u32) -> Flow {
        let number = u64::from(round) * u64::from(self.slots) + u64::from(slot);
        let clients = NonZeroU64::new(u64::from(self.clients)).unwrap_or(NonZeroU64::MIN);
        let is_v6 = match self.families & (Self::V4 | Self::V6) {
            Self::V4 => false,
            Self::V6 => true,
            _ => number & 1 == 1,
        };
        let is_probe = NonZeroU64::new(u64::from(self.probe_every)).is_some_and(|every| (number >> 1) % every == 0);
        Flow {
            client: self.first_client.wrapping_add((number.wrapping_mul(SPREAD) % clients) as u32),
            // The same client comes again after all the others, with its next port.
            port: (FIRST_PORT + (number / clients) % PORTS) as u16,
            family: if is_v6 { Family::V6 } else { Family::V4 },
            kind: u32::from(is_probe),
            isn: slot << SLOT_SHIFT | (round & ROUND_MASK) << ROUND_SHIFT,
        }
    }

    /// The slot that a server's acknowledgement number tells.
    #[inline(always)]
    pub const fn slot_of(ack: u32) -> u32 {
        ack >> SLOT_SHIFT
    }

    /// A client's MAC address: locally administered (IEEE 802).
    #[inline(always)]
    pub const fn mac(client: u32) -> [u8; 6] {
        let [a, b, c, d] = client.to_be_bytes();
        [2, 0, a, b, c, d]
    }

    /// A client's IPv4 address.
    #[inline(always)]
    pub const fn address_v4(&self, client: u32) -> [u8; 4] {
        u32::from_be_bytes(self.client_v4).wrapping_add(client).to_be_bytes()
    }

    /// A client's IPv6 address.
    #[inline(always)]
    pub const fn address_v6(&self, client: u32) -> [u8; 16] {
        (u128::from_be_bytes(self.client_v6) + client as u128).to_be_bytes()
    }

    /// The headers of a segment over IPv4.
    #[inline(always)]
    pub fn head_v4(&self, flow: &Flow, segment: &Segment) -> Head<20> {
        let (source, destination) = (self.address_v4(flow.client), self.server_v4);
        let length = (20 + 20 + segment.rest_len()) as u16;
        let [l0, l1] = length.to_be_bytes();
        let ([s0, s1, s2, s3], [d0, d1, d2, d3]) = (source, destination);
        let mut network = [0x45, 0, l0, l1, 0, 0, 0x40, 0, 64, TCP, 0, 0, s0, s1, s2, s3, d0, d1, d2, d3];
        [network[10], network[11]] = Sum::new().array(&network).checksum().to_be_bytes();
        let pseudo = Sum::new().array(&source).array(&destination);
        Head { ethernet: self.ethernet(flow, 0x0800), network, tcp: self.tcp(flow, segment, pseudo) }
    }

    /// The headers of a segment over IPv6.
    #[inline(always)]
    pub fn head_v6(&self, flow: &Flow, segment: &Segment) -> Head<40> {
        let (source, destination) = (self.address_v6(flow.client), self.server_v6);
        let [l0, l1] = ((20 + segment.rest_len()) as u16).to_be_bytes();
        let mut network = [0; 40];
        [network[0], network[4], network[5], network[6], network[7]] = [0x60, l0, l1, TCP, 64];
        let mut i = 0;
        while i < 16 {
            network[8 + i] = source[i];
            network[24 + i] = destination[i];
            i += 1;
        }
        let pseudo = Sum::new().array(&source).array(&destination);
        Head { ethernet: self.ethernet(flow, 0x86dd), network, tcp: self.tcp(flow, segment, pseudo) }
    }

    #[inline(always)]
    const fn ethernet(&self, flow: &Flow, ether_type: u16) -> [u8; 14] {
        let ([g0, g1, g2, g3, g4, g5], [c0, c1, c2, c3, c4, c5]) = (self.gateway, Self::mac(flow.client));
        let [t0, t1] = ether_type.to_be_bytes();
        [g0, g1, g2, g3, g4, g5, c0, c1, c2, c3, c4, c5, t0, t1]
    }

    #[inline(always)]
    fn tcp(&self, flow: &Flow, segment: &Segment, pseudo: Sum) -> [u8; 20] {
        let ([p0, p1], [q0, q1]) = (flow.port.to_be_bytes(), PORT_HTTP.to_be_bytes());
        let ([s0, s1, s2, s3], [a0, a1, a2, a3]) = (segment.seq.to_be_bytes(), segment.ack.unwrap_or(0).to_be_bytes());
        let (words, flags) = (
            segment.header_words() << 4,
            segment.flags() | if segment.request.is_some() { self.request_flags as u8 } else { 0 },
        );
        let mut tcp = [p0, p1, q0, q1, s0, s1, s2, s3, a0, a1, a2, a3, words, flags, 0xff, 0xff, 0, 0, 0, 0];
        let sum = pseudo.word(u16::from(TCP)).word((20 + segment.rest_len()) as u16).array(&tcp);
        let sum = match (segment.request, segment.ack) {
            (Some(request), _) => sum.sum(request),
            (None, None) => sum.array(&MSS_OPTION),
            (None, Some(_)) => sum,
        };
        [tcp[16], tcp[17]] = sum.checksum().to_be_bytes();
        tcp
    }
}

/// What follows the headers of a SYN.
pub const SYN_OPTION: [u8; 4] = MSS_OPTION;

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;

    fn crowd(families: u8) -> Crowd {
        Crowd {
            client_v6: [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
            server_v6: [0x20, 1, 0xd, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80],
            client_v4: [10, 1, 255, 250],
            server_v4: [198, 51, 100, 80],
            gateway: [0, 0, 0x5e, 0, 0x53, 1],
            families,
            verifies_checksums: 1,
            first_client: 0,
            clients: 1000,
            slots: 64,
            rounds: 100,
            probe_every: 8,
            request_flags: 0,
        }
    }

    fn frame(crowd: &Crowd, flow: &Flow, segment: &Segment, rest: &[u8]) -> Vec<u8> {
        assert_eq!(rest.len(), segment.rest_len());
        match flow.family {
            Family::V4 => {
                let Head { ethernet, network, tcp } = crowd.head_v4(flow, segment);
                [&ethernet[..], &network, &tcp, rest].concat()
            }
            Family::V6 => {
                let Head { ethernet, network, tcp } = crowd.head_v6(flow, segment);
                [&ethernet[..], &network, &tcp, rest].concat()
            }
        }
    }

    #[test]
    fn every_segment_is_one_that_others_read() {
        let request = [b'x'; REQUEST_LEN];
        let sum = Sum::new().bytes(&request);
        let table: [(&str, Segment, &[u8]); 3] = [
            ("a SYN", Segment { seq: 7, ack: None, fin: false, request: None }, &SYN_OPTION),
            ("a request", Segment { seq: 8, ack: Some(1 << 31), fin: false, request: Some(sum) }, &request),
            ("a FIN", Segment { seq: 104, ack: Some(9), fin: true, request: None }, &[]),
        ];
        for (sentence, segment, rest) in table {
            for (slot, round) in [(0, 0), (63, 99), (5, 17), (2, 3)] {
                for families in [Crowd::V4, Crowd::V6] {
                    let crowd = crowd(families);
                    let flow = crowd.flow(slot, round);
                    let bytes = frame(&crowd, &flow, &segment, rest);
                    let read = SlicedPacket::from_ethernet(&bytes).unwrap();
                    let Some(TransportSlice::Tcp(tcp)) = read.transport else { panic!("{sentence}: no TCP") };
                    let checksum = match read.net.unwrap() {
                        NetSlice::Ipv4(ip) => {
                            let header = ip.header().to_header();
                            assert_eq!(header.header_checksum, header.calc_header_checksum(), "{sentence}");
                            assert_eq!(header.source, crowd.address_v4(flow.client));
                            tcp.calc_checksum_ipv4(header.source, header.destination).unwrap()
                        }
                        NetSlice::Ipv6(ip) => {
                            assert_eq!(ip.header().source(), crowd.address_v6(flow.client));
                            tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination()).unwrap()
                        }
                        NetSlice::Arp(_) => panic!("{sentence}: ARP"),
                    };
                    assert_eq!(tcp.checksum(), checksum, "{sentence}");
                    assert_eq!((tcp.syn(), tcp.fin()), (segment.ack.is_none(), segment.fin), "{sentence}");
                    assert_eq!(tcp.payload().len(), if segment.request.is_some() { REQUEST_LEN } else { 0 });
                }
            }
        }
    }

    #[test]
    fn no_two_exchanges_are_the_same_connection_and_each_brings_its_slot_back() {
        let crowd = crowd(Crowd::V4 | Crowd::V6);
        let mut seen = std::collections::HashSet::new();
        let (mut probes, mut clients) = (0, std::collections::HashSet::new());
        for round in 0..crowd.rounds {
            for slot in 0..crowd.slots {
                let flow = crowd.flow(slot, round);
                assert!(seen.insert((flow.client, flow.port, flow.family as u8)), "{flow:?}");
                assert_eq!(Crowd::slot_of(flow.isn.wrapping_add(2 + REQUEST_LEN as u32)), slot);
                probes += flow.kind;
                clients.insert(flow.client);
            }
        }
        assert_eq!(probes, 6400 / 8);
        assert_eq!(clients.len(), 1000, "each client has its turn");
    }

    #[test]
    fn a_bucket_holds_what_is_between_its_start_and_the_next() {
        for ns in (0..64).map(|bit| 1u64 << bit).flat_map(|ns| [ns, ns + ns / 3, ns.saturating_mul(2) - 1]) {
            let bucket = bucket(ns);
            assert!(bucket < TIMES);
            assert!(bucket_start(bucket) <= ns.max(8) && ns < bucket_start(bucket + 1).max(9) || ns > 1 << 63, "{ns}");
        }
    }
}
