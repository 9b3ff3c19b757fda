//! What a DNS answer says: the question, the aliases that lead on from it, and the addresses at their end.
//!
//! An answer is read in place, without an allocation: it is held up until it has been read. Only the answer section counts.
//! What a guest learns otherwise is not learned here, so that the guest can't reach it: answers over TCP, in fragments, or
//! over TLS; address hints in HTTPS records (RFC 9460 section 7.3), which only save a question that browsers ask anyway.

use std::net::IpAddr;

use domain::{
    base::{Message, ParsedName, Rtype, ToName as _, iana::Class, iana::Opcode, iana::Rcode, name::ToLabelIter as _},
    rdata::{A, Aaaa, Cname},
};

use super::name::AskedName;

/// The most names on a chain of aliases, the question's included: BIND and Unbound follow 11.
const LONGEST_CHAIN: usize = 16;
/// The most records read in an answer section: a frame has room for about a hundred.
const MOST_RECORDS: u16 = 128;

/// Why nothing can be learned from a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It breaks off, a name in it points forward, or a record has another length than its type.
    #[error("it is malformed")]
    Malformed,
    /// It is a question, or no ordinary query's answer.
    #[error("it is not an answer to a query")]
    NotAnAnswer,
    /// The resolver has no answer: the code is not NOERROR.
    #[error("the resolver reports an error")]
    Failed,
    /// It has been cut: the client asks again over TCP (RFC 2181 section 9).
    #[error("it is truncated")]
    Truncated,
    /// It has no question, or several.
    #[error("it has not exactly one question")]
    Questions,
    /// The question is not for addresses.
    #[error("it was not asked for addresses")]
    OtherType,
    /// Aliases lead to aliases without an end, or there are too many records.
    #[error("its chain of aliases is endless, or it has too many records")]
    Endless,
}

type Name<'a> = ParsedName<&'a [u8]>;

/// One name on the way from the question to the addresses.
#[derive(Clone, Copy)]
struct Link<'a> {
    name: Name<'a>,
    /// The shortest time to live of the aliases from here to the end, seconds.
    ttl: u32,
}

/// An answer that can be learned from.
pub struct Answer<'a> {
    message: &'a Message<[u8]>,
    chain: [Link<'a>; LONGEST_CHAIN],
    length: usize,
}

impl<'a> Answer<'a> {
    /// Reads a DNS message.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Unusable> {
        let message = Message::from_slice(bytes).map_err(|_| Unusable::Malformed)?;
        let header = message.header();
        if !header.qr() || header.opcode() != Opcode::QUERY {
            return Err(Unusable::NotAnAnswer);
        }
        if header.tc() {
            return Err(Unusable::Truncated);
        }
        if header.rcode() != Rcode::NOERROR {
            return Err(Unusable::Failed);
        }
        if message.header_counts().qdcount() != 1 {
            return Err(Unusable::Questions);
        }
        let question = message.sole_question().map_err(|_| Unusable::Malformed)?;
        if question.qclass() != Class::IN || !matches!(question.qtype(), Rtype::A | Rtype::AAAA | Rtype::ANY) {
            return Err(Unusable::OtherType);
        }
        if message.header_counts().ancount() > MOST_RECORDS {
            return Err(Unusable::Endless);
        }
        check(message)?;
        let mut answer = Self { message, chain: [Link { name: question.into_qname(), ttl: u32::MAX }; _], length: 1 };
        while let Some((target, ttl)) = answer.alias_of(answer.last().name) {
            *answer.chain.get_mut(answer.length).ok_or(Unusable::Endless)? = Link { name: target, ttl: u32::MAX };
            for link in &mut answer.chain[..answer.length] {
                link.ttl = link.ttl.min(ttl);
            }
            answer.length += 1;
        }
        Ok(answer)
    }

    /// The names from the question's to the last alias's, at most this many, each with the shortest time to live, in seconds, of
    /// the aliases from there on; without an alias, the longest there is.
    pub fn names(&self, most: usize) -> impl DoubleEndedIterator<Item = (AskedName, u32)> {
        let links = self.chain[..self.length.min(most)].iter();
        links.filter_map(|link| Some((asked(&link.name)?, link.ttl)))
    }

    /// The addresses of the last name, each with the time to live of its record in seconds.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, u32)> {
        let last = self.last().name;
        // `check` has read every record: none fails here.
        self.message.answer().into_iter().flatten().flatten().filter_map(move |record| {
            if record.class() != Class::IN || !record.owner().name_eq(&last) {
                return None;
            }
            let ttl = seconds(record.ttl().as_secs());
            let address = match record.rtype() {
                Rtype::A => IpAddr::V4(record.to_record::<A>().ok()??.data().addr()),
                Rtype::AAAA => IpAddr::V6(record.to_record::<Aaaa>().ok()??.data().addr()),
                _ => return None,
            };
            Some((address, ttl))
        })
    }

    fn last(&self) -> Link<'a> {
        self.chain[self.length - 1]
    }

    /// What a name is an alias of, and the alias's time to live.
    fn alias_of(&self, name: Name<'a>) -> Option<(Name<'a>, u32)> {
        self.message.answer().into_iter().flatten().flatten().find_map(|record| {
            if record.class() != Class::IN || record.rtype() != Rtype::CNAME || !record.owner().name_eq(&name) {
                return None;
            }
            let ttl = seconds(record.ttl().as_secs());
            Some((record.into_record::<Cname<Name<'a>>>().ok()??.into_data().into_cname(), ttl))
        })
    }
}

/// Reads every record of the answer section once.
fn check(message: &Message<[u8]>) -> Result<(), Unusable> {
    let malformed = |_| Unusable::Malformed;
    for record in message.answer().map_err(malformed)? {
        let record = record.map_err(malformed)?;
        if record.class() != Class::IN {
            continue;
        }
        match record.rtype() {
            Rtype::A => record.to_record::<A>().map(drop),
            Rtype::AAAA => record.to_record::<Aaaa>().map(drop),
            Rtype::CNAME => record.to_record::<Cname<_>>().map(drop),
            _ => Ok(()),
        }
        .map_err(malformed)?;
    }
    Ok(())
}

fn asked(name: &Name<'_>) -> Option<AskedName> {
    AskedName::new(name.iter_labels().filter(|label| !label.is_root()).map(domain::base::name::Label::as_slice))
}

/// A time to live with its highest bit set is zero (RFC 2181 section 8).
const fn seconds(ttl: u32) -> u32 {
    if ttl > i32::MAX.cast_unsigned() { 0 } else { ttl }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A message from the fixtures, by what was asked.
    pub(in crate::garden) fn fixture(name: &str) -> Vec<u8> {
        let line =
            include_str!("fixtures/dnsmasq.txt").lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let digits = line.unwrap_or_else(|| panic!("no fixture {name}")).as_bytes();
        digits.chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    /// What a message says: `name ttl > name ttl : address ttl, ...`.
    fn said(bytes: &[u8]) -> Result<String, Unusable> {
        let answer = Answer::parse(bytes)?;
        let ttl = |ttl| if ttl == u32::MAX { String::new() } else { format!(" {ttl}") };
        let names: Vec<_> = answer.names(usize::MAX).map(|(name, t)| format!("{}{}", name.as_str(), ttl(t))).collect();
        let addresses: Vec<_> = answer.addresses().map(|(address, ttl)| format!("{address} {ttl}")).collect();
        Ok(format!("{} : {}", names.join(" > "), addresses.join(", ")))
    }

    #[test]
    fn what_dnsmasq_says() {
        let v6 = "2001:db8::7 300";
        let table = [
            ("pay-a", Ok("pay.example : 203.0.113.7 300".to_owned())),
            ("pay-aaaa", Ok(format!("pay.example : {v6}"))),
            ("pay-case-edns", Ok("pay.example : 203.0.113.7 300".into())),
            ("pay-any", Ok(format!("pay.example : 203.0.113.7 300, {v6}"))),
            ("www-a", Ok("www.pay.example 45 > pay.example : 203.0.113.7 300".into())),
            ("shop-a", Ok("shop.example 45 > www.pay.example 45 > pay.example : 203.0.113.7 300".into())),
            (
                "alias-aaaa",
                Ok(format!("alias.other.example 45 > shop.example 45 > www.pay.example 45 > pay.example : {v6}")),
            ),
            ("dangling-a", Ok("dangling.example 120 > nowhere.example : ".into())),
            ("multi-a", Ok("multi.example : 198.51.100.3 120, 198.51.100.2 120, 198.51.100.1 120".into())),
            ("nothing-a", Ok("nothing.example : 0.0.0.0 120".into())),
            ("nothing-aaaa", Ok("nothing.example : :: 120".into())),
            ("private-a", Ok("private.example : 192.168.1.9 120".into())),
            ("blocked-a", Err(Unusable::Failed)),
            ("refused-a", Err(Unusable::Failed)),
            ("many-truncated", Err(Unusable::Truncated)),
            ("many-edns", Err(Unusable::Truncated)),
            ("text", Err(Unusable::OtherType)),
            ("pay-https", Err(Unusable::OtherType)),
        ];
        for (name, expected) in table {
            assert_eq!(said(&fixture(name)), expected, "{name}");
        }
        let fixtures = include_str!("fixtures/dnsmasq.txt").lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(fixtures, 18, "every fixture has its row");
    }

    fn wire(name: &str) -> Vec<u8> {
        let labels = name.split('.').filter(|label| !label.is_empty());
        let labels = labels.flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat());
        labels.chain([0]).collect()
    }

    /// A record of the answer section: its owner, type, time to live and data.
    pub(in crate::garden) type Row<'a> = (&'a str, u16, u32, &'a [u8]);

    /// An answer to a question for an IPv4 address.
    pub(in crate::garden) fn message(question: &str, rows: &[Row<'_>]) -> Vec<u8> {
        let mut bytes = vec![0x12, 0x34, 0x81, 0x80, 0, 1, 0, rows.len() as u8, 0, 0, 0, 0];
        bytes.extend([wire(question), vec![0, 1, 0, 1]].concat());
        for (owner, rtype, ttl, data) in rows {
            bytes.extend(wire(owner));
            bytes.extend(rtype.to_be_bytes());
            bytes.extend([0, 1]);
            bytes.extend(ttl.to_be_bytes());
            bytes.extend((data.len() as u16).to_be_bytes());
            bytes.extend(*data);
        }
        bytes
    }

    type Sentence<'a> = (&'a str, Vec<Row<'a>>, Result<&'a str, Unusable>);

    const ADDRESS: &[u8] = &[203, 0, 113, 7];

    #[test]
    fn what_a_hostile_resolver_may_say() {
        let (a, b, c) = (wire("a.example"), wire("b.example"), wire("c.example"));
        let link = |i: usize| (format!("n{i}.example"), wire(&format!("n{}.example", i + 1)));
        let chain = |n: usize| {
            let links: Vec<_> = (0..n).map(link).collect();
            let mut rows: Vec<Row<'_>> = links.iter().map(|(owner, target)| (&owner[..], 5, 60, &target[..])).collect();
            let end = format!("n{n}.example");
            rows.push((&end, 1, 60, ADDRESS));
            said(&message("n0.example", &rows)).map(|text| text.split(" : ").nth(1).unwrap().to_owned())
        };
        assert_eq!(chain(15), Ok("203.0.113.7 60".into()), "the longest chain");
        assert_eq!(chain(16), Err(Unusable::Endless), "one longer");
        let many: Vec<Row<'_>> = vec![("a.example", 1, 60, ADDRESS); 129];
        let table: [Sentence<'_>; 12] = [
            ("an alias of itself", vec![("a.example", 5, 60, &a)], Err(Unusable::Endless)),
            ("a loop", vec![("a.example", 5, 60, &b), ("b.example", 5, 60, &a)], Err(Unusable::Endless)),
            (
                "in no order",
                vec![("c.example", 1, 9, ADDRESS), ("b.example", 5, 60, &c), ("a.example", 5, 30, &b)],
                Ok("a.example 30 > b.example 60 > c.example : 203.0.113.7 9"),
            ),
            ("another name's address", vec![("b.example", 1, 60, ADDRESS)], Ok("a.example : ")),
            (
                "an address beside an alias",
                vec![("a.example", 1, 60, ADDRESS), ("a.example", 5, 60, &b)],
                Ok("a.example 60 > b.example : "),
            ),
            ("in capitals", vec![("A.Example", 1, 60, ADDRESS)], Ok("a.example : 203.0.113.7 60")),
            ("a negative time to live", vec![("a.example", 1, 1 << 31, ADDRESS)], Ok("a.example : 203.0.113.7 0")),
            ("an address of 3 bytes", vec![("a.example", 1, 60, &[203, 0, 113])], Err(Unusable::Malformed)),
            ("an address of 5 bytes", vec![("a.example", 1, 60, &[203, 0, 113, 7, 8])], Err(Unusable::Malformed)),
            ("an alias of a label of 192 bytes", vec![("a.example", 5, 60, &[192])], Err(Unusable::Malformed)),
            ("an alias that points to itself", vec![("a.example", 5, 60, &[192, 48])], Err(Unusable::Malformed)),
            ("too many records", many, Err(Unusable::Endless)),
        ];
        for (sentence, rows, expected) in table {
            assert_eq!(said(&message("a.example", &rows)), expected.map(str::to_owned), "{sentence}");
        }
    }

    #[test]
    fn every_header_that_is_not_an_answers() {
        let good = fixture("pay-a");
        let table: [(&str, usize, u8, Unusable); 6] = [
            ("a question", 2, 0x05, Unusable::NotAnAnswer),
            ("a notification", 2, 0xa5, Unusable::NotAnAnswer),
            ("truncated", 2, 0x87, Unusable::Truncated),
            ("no such name", 3, 0x83, Unusable::Failed),
            ("no question", 5, 0, Unusable::Questions),
            ("two questions", 5, 2, Unusable::Questions),
        ];
        for (sentence, at, byte, expected) in table {
            let mut bytes = good.clone();
            bytes[at] = byte;
            assert_eq!(said(&bytes), Err(expected), "{sentence}");
        }
        for length in 0..good.len() {
            assert_eq!(said(&good[..length]), Err(Unusable::Malformed), "{length} bytes of it");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = said(&bytes);
        }

        #[test]
        fn no_damage_to_an_answer_panics(
            which in prop::sample::select(vec!["alias-aaaa", "shop-a", "multi-a", "pay-any"]),
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = fixture(which);
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let _ = said(&bytes);
            let _ = said(&bytes[..cut.index(bytes.len())]);
        }

        #[test]
        fn the_time_to_live_is_the_shortest_from_each_name_on(ttls in proptest::collection::vec(0u32..i32::MAX as u32, 1..10)) {
            let links: Vec<_> = (0..ttls.len()).map(|i| (format!("n{i}.example"), wire(&format!("n{}.example", i + 1)))).collect();
            let rows: Vec<Row<'_>> =
                links.iter().zip(&ttls).rev().map(|((owner, target), ttl)| (&owner[..], 5, *ttl, &target[..])).collect();
            let bytes = message("n0.example", &rows);
            let answer = Answer::parse(&bytes).unwrap();
            for (i, (name, ttl)) in answer.names(usize::MAX).enumerate() {
                let at = format!("n{i}.example");
                prop_assert_eq!(name.as_str(), at);
                prop_assert_eq!(ttl, ttls[i..].iter().min().copied().unwrap_or(u32::MAX));
            }
        }
    }
}
