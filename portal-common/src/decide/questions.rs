//! What strangers ask of servers that anybody could answer for: a datagram from port 53 is an answer only to whoever has asked just this, a moment ago
//! (RFC 5452 sections 4 and 9.1).

use super::{Action, Case, Tables, network::Network};
use crate::{
    frame::{Frame, NO_BYTE},
    protocol as p,
    reason::Reason,
    tables::{ANSWERED_WITHIN_NS, Address, AddressWord, Asked, ClientKey, Question},
};

/// UDP's header, bytes.
const UDP_LEN: usize = 8;
/// The DNS header, bytes (RFC 1035 section 4.1.1).
const DNS_LEN: usize = 12;
/// As much of a name as is compared, bytes: each costs the verifier 200 instructions more.
const NAME_MOST: usize = 64;

/// A datagram between a client and a server, with the roles that its ports and addresses have.
#[derive(Clone, Copy, Debug)]
pub struct Datagram {
    /// The client's address.
    pub client: AddressWord,
    /// The server's.
    pub server: AddressWord,
    /// The client's port.
    pub port: u16,
    /// Where UDP's header begins.
    pub at: u8,
    /// What it is about.
    pub topic: Topic,
    /// Whether the server has sent it.
    pub answer: bool,
}

impl Datagram {
    const ANSWER: u64 = 1 << 32;
    const NTP: u64 = 1 << 33;

    /// Without the addresses, in one word.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        let topic = match self.topic {
            Topic::Dns => 0,
            Topic::Ntp => Self::NTP,
        };
        self.port as u64 | (self.at as u64) << 16 | if self.answer { Self::ANSWER } else { 0 } | topic
    }

    /// What [`Datagram::to_word`] gave, with these addresses.
    #[inline(always)]
    pub const fn from_word(word: u64, client: AddressWord, server: AddressWord) -> Self {
        Self {
            client,
            server,
            port: word as u16,
            at: (word >> 16) as u8,
            topic: if word & Self::NTP == 0 { Topic::Dns } else { Topic::Ntp },
            answer: word & Self::ANSWER != 0,
        }
    }
}

/// What a datagram asks or answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// A name.
    Dns,
    /// The time.
    Ntp,
}

/// Notes what a stranger's datagram asks that passes to a server.
#[inline(always)]
pub fn ask<F: Frame + ?Sized, T: Tables>(frame: &F, tables: &T, case: &Case) {
    let network: &Network = &case.network;
    let topic = match case.decision.reason {
        Reason::Dns => Topic::Dns,
        Reason::Ntp => Topic::Ntp,
        _ => return,
    };
    let at = network.payload_at();
    let Some(port) = frame.read::<2>(at) else { return };
    let hash = tables.address_hash();
    let word = |address| hash.word(Address::from_words(address));
    let datagram = Datagram {
        client: word(network.source()),
        server: word(network.destination()),
        port: u16::from_be_bytes(port),
        at: at as u8,
        topic,
        answer: false,
    };
    if let Some(question) = question(frame, case.client, &datagram) {
        tables.note_question(&question, case.now_ns);
    }
}

/// Whether the case's frame is one whose question is to be noted.
#[inline(always)]
pub(super) fn asks(case: &Case) -> bool {
    matches!(case.decision.action, Action::Pass) && matches!(case.decision.reason, Reason::Dns | Reason::Ntp)
}

/// Whether this client has asked this, and may still be answered.
#[inline(always)]
pub fn is_asked<F: Frame + ?Sized, T: Tables>(frame: &F, tables: &T, datagram: &Datagram, client: ClientKey) -> bool {
    let Some(question) = question(frame, client, datagram) else { return false };
    let now_ns = tables.now_ns();
    // Another CPU's clock may be ahead by a tick.
    tables.asked_at(&question).is_some_and(|at| now_ns.saturating_sub(at) < ANSWERED_WITHIN_NS)
}

/// The question in a datagram; none where it has not just one.
#[inline(always)]
fn question<F: Frame + ?Sized>(frame: &F, client: ClientKey, datagram: &Datagram) -> Option<Question> {
    let asked = match datagram.topic {
        Topic::Ntp => Asked::TIME,
        Topic::Dns => name(frame, usize::from(datagram.at) + UDP_LEN, datagram.answer)?,
    };
    Some(Question::new(client, datagram.client, datagram.server, datagram.port, asked))
}

/// What a DNS message asks, or what it says that it answers.
#[inline(always)]
fn name<F: Frame + ?Sized>(frame: &F, at: usize, answer: bool) -> Option<Asked> {
    const RESPONSE: u8 = 0x80;
    let h = frame.read::<DNS_LEN>(at)?;
    if (h[2] & RESPONSE != 0) != answer || [h[4], h[5]] != [0, 1] {
        return None;
    }
    Some(Asked::name(u16::from_be_bytes([h[0], h[1]]), hash(frame, at + DNS_LEN)?))
}

/// FNV-1a of the question: its name, whose letters have no case (RFC 4343), its type and its class. Not a secret one: who asks knows its own question, and
/// nobody else can tell what it was.
#[inline(always)]
fn hash<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<u32> {
    const PRIME: u32 = 0x0100_0193;
    const LABEL_MOST: u16 = 63;
    let mut hash = 0x811c_9dc5u32;
    let mut left = 0;
    let mut i = 0;
    while i < NAME_MOST {
        let byte = frame.byte(at + i);
        if byte == NO_BYTE {
            return None;
        }
        i += 1;
        let mut byte = u32::from(byte);
        if left == 0 {
            if byte == 0 {
                let [kind @ .., c0, c1] = frame.read::<4>(at + i)?;
                let rest = u32::from_be_bytes([kind[0], kind[1], c0, c1]);
                return Some((hash ^ rest).wrapping_mul(PRIME));
            }
            if byte > u32::from(LABEL_MOST) {
                return None;
            }
            left = byte;
        } else {
            left -= 1;
            if byte.wrapping_sub(u32::from(b'A')) < 26 {
                byte |= 0x20;
            }
        }
        hash = (hash ^ byte).wrapping_mul(PRIME);
    }
    Some(hash)
}

/// Whether a service's answers over UDP must have been asked for, and about what.
#[inline(always)]
pub(super) const fn topic(service: Reason) -> Option<Topic> {
    match service {
        Reason::Dns => Some(Topic::Dns),
        Reason::Ntp => Some(Topic::Ntp),
        _ => None,
    }
}

const _: () = assert!(p::PORT_DNS == 53 && 14 + 2 * 4 + 40 + UDP_LEN + DNS_LEN + NAME_MOST + 4 <= 0xff);
