//! What strangers ask of servers that anybody could answer for: a datagram from port 53 is an answer only to whoever has asked just this, a moment ago
//! (RFC 5452 sections 4 and 9.1).

use super::{Action, Case, Decision, Tables, network::Network, outbound::Inquiry};
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
struct Datagram {
    /// The client's address.
    client: AddressWord,
    /// The server's.
    server: AddressWord,
    /// The client's port.
    port: u16,
    /// Where UDP's header begins.
    at: u8,
    /// What it is about.
    topic: Topic,
    /// Whether the server has sent it.
    answer: bool,
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

/// Drops an answer, or an error about a question, that [`super::inquire`] has let pass if it was asked for, where this client has not asked this or may not be
/// answered any more.
#[inline(always)]
pub fn check_asked<F: Frame + ?Sized, T: Tables>(frame: &F, tables: &T, topic: Topic, case: &mut Case) {
    let Inquiry { at, is_quoted, client_port, server, .. } = case.inquiry;
    let hash = tables.address_hash();
    let word = |address| hash.word(Address::from_words(address));
    let datagram = Datagram {
        // An error goes to who has sent what it quotes.
        client: word(case.network.destination()),
        server: word(server),
        port: client_port,
        at,
        topic,
        answer: !is_quoted,
    };
    let now_ns = case.now_ns;
    // Another CPU's clock may be ahead by a tick.
    let asked = question(frame, case.client, &datagram)
        .and_then(|question| tables.asked_at(&question))
        .is_some_and(|at| now_ns.saturating_sub(at) < ANSWERED_WITHIN_NS);
    if !asked {
        case.decision = Decision::drop(if is_quoted { Reason::IcmpUnrelated } else { Reason::DnsUnasked });
    }
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
    const LABEL_MOST: u32 = 63;
    let mut hash = 0x811c_9dc5u32;
    let mut left = 0u32;
    let mut i = 0;
    while i < NAME_MOST {
        let byte = frame.byte(at + i);
        if byte == NO_BYTE {
            return None;
        }
        i += 1;
        let byte = u32::from(byte);
        let starts = is_zero(left);
        if starts & is_zero(byte) != 0 {
            let [kind @ .., c0, c1] = frame.read::<4>(at + i)?;
            let rest = u32::from_be_bytes([kind[0], kind[1], c0, c1]);
            return Some((hash ^ rest).wrapping_mul(PRIME));
        }
        if starts & byte > LABEL_MOST {
            return None;
        }
        left = (starts & byte) | (!starts & left.wrapping_sub(1));
        let byte = byte | case_bit(byte);
        hash = (hash ^ byte).wrapping_mul(PRIME);
    }
    Some(hash)
}

/// All bits where a byte is zero, else none. In arithmetic, here and below: of a branch the verifier walks both ways, for each byte of a name.
#[inline(always)]
const fn is_zero(byte: u32) -> u32 {
    ((byte + 0xff) >> 8).wrapping_sub(1)
}

/// The bit that a capital letter lacks, and is small with; none for any other byte.
#[inline(always)]
const fn case_bit(byte: u32) -> u32 {
    let (from_a, after_z) = (byte + (0x100 - b'A' as u32), byte + (0xff - b'Z' as u32));
    (from_a & !after_z & 0x100) >> 3
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_says_of_every_byte_what_a_comparison_would() {
        for byte in 0..=u8::MAX {
            let word = u32::from(byte);
            assert_eq!(is_zero(word), if byte == 0 { u32::MAX } else { 0 }, "{byte}");
            assert_eq!(word | case_bit(word), u32::from(byte.to_ascii_lowercase()), "{byte}");
        }
    }

    #[test]
    fn a_question_is_the_same_whatever_the_case_of_its_letters() {
        let of = |question: &[u8]| hash(question, 0);
        let asked = of(b"\x07example\x03org\x00\x00\x01\x00\x01");
        assert!(asked.is_some());
        let rows: &[(&str, &[u8], bool)] = &[
            ("in capitals", b"\x07EXAMPLE\x03oRG\x00\x00\x01\x00\x01", true),
            ("of another type", b"\x07example\x03org\x00\x00\x1c\x00\x01", false),
            ("of another name", b"\x07exampla\x03org\x00\x00\x01\x00\x01", false),
            ("with other labels", b"\x06exampl\x04eorg\x00\x00\x01\x00\x01", false),
        ];
        for (sentence, question, same) in rows {
            assert_eq!(of(question) == asked, *same, "{sentence}");
        }
        let refused: &[(&str, &[u8])] = &[
            ("a pointer", b"\x07example\xc0\x0c\x00\x01\x00\x01"),
            ("a name that ends with the frame", b"\x07example\x03or"),
            ("no type", b"\x07example\x03org\x00"),
        ];
        for (sentence, question) in refused {
            assert_eq!(of(question), None, "{sentence}");
        }
    }
}
