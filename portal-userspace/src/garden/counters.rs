//! What the garden counts. The names are stable: they are metrics' labels and JSON keys.

use std::collections::BTreeMap;

macro_rules! counts {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Something that is counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Count {
            $($(#[$doc])* $variant,)*
        }

        impl Count {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

counts! {
    /// A DNS message from a permitted resolver was looked at.
    Answers = "answers",
    /// A name in it is the garden's, and it has addresses or could have had.
    Matched = "matched",
    /// No name in it is the garden's.
    Unmatched = "unmatched",
    /// The message came from another address than a resolver's.
    NotFromResolver = "not_from_resolver",
    /// The message is malformed.
    Malformed = "malformed",
    /// The message is not an answer to a query.
    NotAnAnswer = "not_an_answer",
    /// The resolver reports an error, "no such name" included.
    Failed = "failed",
    /// The message is truncated.
    Truncated = "truncated",
    /// The message has not exactly one question.
    Questions = "questions",
    /// The question was not for addresses.
    OtherType = "other_type",
    /// The chain of aliases is endless, or there are too many records.
    Endless = "endless",
    /// An address was opened on a port.
    Learned = "learned",
    /// An address was already open on a port, and stays open longer.
    Refreshed = "refreshed",
    /// An address stays open because a guest uses it.
    Extended = "extended",
    /// The time of an address has passed.
    Expired = "expired",
    /// An address was closed with its rule.
    Removed = "removed",
    /// What an earlier daemon had opened, and the rules still permit.
    Adopted = "adopted",
    /// What an earlier daemon had opened, and the rules don't permit any more, or whose time has passed.
    NotAdopted = "not_adopted",
    /// Not learned: an unspecified address.
    RefusedUnspecified = "refused_unspecified",
    /// Not learned: a loopback address.
    RefusedLoopback = "refused_loopback",
    /// Not learned: a multicast address.
    RefusedMulticast = "refused_multicast",
    /// Not learned: a broadcast or reserved address.
    RefusedBroadcast = "refused_broadcast",
    /// Not learned: a link-local address.
    RefusedLinkLocal = "refused_link_local",
    /// Not learned: an address of the gateway's own.
    RefusedOwn = "refused_own",
    /// Not learned: a private address.
    RefusedPrivate = "refused_private",
    /// Not learned: an IPv4 address in an IPv6 record.
    RefusedMapped = "refused_mapped",
    /// Not learned: the answer has more addresses than are taken from one.
    RefusedAnswerFull = "refused_answer_full",
    /// Not learned: the rule has opened as much as it may.
    RefusedRuleFull = "refused_rule_full",
    /// Not learned: the table is full.
    RefusedTableFull = "refused_table_full",
    /// Not learned: the kernel's table refused it.
    RefusedByKernel = "refused_by_kernel",
    /// The kernel's table did not give an address up; this is tried again.
    NotRemoved = "not_removed",
    /// A held frame was sent on.
    Relayed = "relayed",
    /// A held frame could not be sent on: the guest asks again.
    NotRelayed = "not_relayed",
    /// A record of the ring held no whole frame.
    BadRecord = "bad_record",
    /// A held frame was no DNS message over UDP, and was sent on as it was.
    NotDns = "not_dns",
    /// A held frame had a wrong UDP checksum: it was sent on as it was, and not learned from.
    BadChecksum = "bad_checksum",
    /// A UDP checksum that the sender had left to the NIC was completed.
    Completed = "completed",
}

/// How often each thing has happened since the daemon started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters([u64; Count::ALL.len()]);

impl Default for Counters {
    fn default() -> Self {
        Self([0; _])
    }
}

impl Counters {
    /// Counts it once.
    pub const fn add(&mut self, count: Count) {
        self.0[count as usize] += 1;
    }

    /// How often it has happened.
    pub const fn get(&self, count: Count) -> u64 {
        self.0[count as usize]
    }

    /// All of them by name.
    pub fn by_name(&self) -> BTreeMap<String, u64> {
        Count::ALL.iter().map(|count| (count.name().to_owned(), self.get(*count))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_name_and_a_place_of_its_own() {
        let mut counters = Counters::default();
        assert_eq!(counters.by_name().len(), Count::ALL.len());
        for (i, count) in Count::ALL.iter().enumerate() {
            assert_eq!(*count as usize, i);
            counters.add(*count);
        }
        assert!(counters.by_name().values().all(|n| *n == 1));
    }
}
