//! What is written down of all clients: bounded, and with a copy in the kernel that outlives the daemon.
//!
//! Only who has been logged in has a row, and only while it says something. Where there is no room, the row goes that would end first: who can invent
//! MAC addresses gains nothing by that, as each of them has a quota of its own.

use std::collections::{BTreeSet, HashMap};

use anyhow::Result;
use portal_common::tables::{ClientKey, Zone};

use super::usage::UsageRow;
use crate::datapath::usage::UsageMap;

/// The rows of all clients.
pub(super) struct Ledger {
    rows: HashMap<ClientKey, UsageRow>,
    /// When each of them ends.
    ends: BTreeSet<(u64, ClientKey)>,
    capacity: usize,
    kernel: Option<UsageMap>,
}

impl Ledger {
    /// An empty one for so many clients, that ends with the daemon.
    pub(super) fn new(capacity: u32) -> Self {
        Self { rows: HashMap::new(), ends: BTreeSet::new(), capacity: capacity as usize, kernel: None }
    }

    /// One over the kernel's copy: what is in it goes on.
    pub(super) fn over(capacity: u32, kernel: UsageMap, now_ns: u64) -> Result<Self> {
        let mut ledger = Self::new(capacity);
        let found = kernel.rows()?;
        ledger.kernel = Some(kernel);
        for (client, words) in found {
            ledger.set(client, UsageRow::from_words(words), now_ns);
        }
        Ok(ledger)
    }

    /// The client's row.
    pub(super) fn get(&self, client: ClientKey) -> Option<UsageRow> {
        self.rows.get(&client).copied()
    }

    /// Every row.
    pub(super) fn iter(&self) -> impl Iterator<Item = (ClientKey, UsageRow)> {
        self.rows.iter().map(|(client, row)| (*client, *row))
    }

    /// Writes the client's row; one that says nothing is removed.
    pub(super) fn set(&mut self, client: ClientKey, row: UsageRow, now_ns: u64) {
        if row.ends_ns() <= now_ns {
            self.remove(client);
            return;
        }
        match self.rows.insert(client, row) {
            Some(before) => {
                self.ends.remove(&(before.ends_ns(), client));
            }
            None if self.rows.len() > self.capacity => {
                if let Some((_, first)) = self.ends.first().copied() {
                    self.remove(first);
                }
            }
            None => {}
        }
        self.ends.insert((row.ends_ns(), client));
        if let Some(kernel) = &mut self.kernel
            && let Err(e) = kernel.insert(client, row.to_words())
        {
            tracing::warn!(error = format!("{e:#}"), "what a client has used is forgotten when portald ends");
        }
    }

    /// Removes the client's row; whether there was one.
    pub(super) fn remove(&mut self, client: ClientKey) -> bool {
        let Some(row) = self.rows.remove(&client) else { return false };
        self.ends.remove(&(row.ends_ns(), client));
        if let Some(kernel) = &mut self.kernel
            && let Err(e) = kernel.remove(client)
        {
            tracing::warn!(error = format!("{e:#}"), "what a client has used is known again when portald starts");
        }
        true
    }

    /// Removes the rows that say nothing any more.
    pub(super) fn expire(&mut self, now_ns: u64) {
        while let Some((ends, client)) = self.ends.first().copied()
            && ends <= now_ns
        {
            self.remove(client);
        }
    }

    /// Removes the rows of zones that are no more.
    pub(super) fn remove_zones(&mut self, zones: &[Zone]) {
        let gone: Vec<_> = self.rows.keys().copied().filter(|client| zones.contains(&client.zone())).collect();
        for client in gone {
            self.remove(client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(zone: u16, last: u8) -> ClientKey {
        ClientKey::new(Zone::new(zone), [2, 0, 0, 0, 0, last])
    }

    fn row(ends: u64) -> UsageRow {
        UsageRow { barred_until_ns: ends, ..UsageRow::beginning(0) }
    }

    fn known(ledger: &Ledger) -> Vec<ClientKey> {
        let mut known: Vec<_> = ledger.iter().map(|(client, _)| client).collect();
        known.sort_unstable();
        assert_eq!(known.len(), ledger.ends.len());
        known
    }

    #[test]
    fn it_is_bounded_and_what_would_end_first_goes_first() {
        let mut ledger = Ledger::new(3);
        for (last, ends) in [(1, 50), (2, 20), (3, 30)] {
            ledger.set(client(0, last), row(ends), 10);
        }
        ledger.set(client(0, 4), row(40), 10);
        assert_eq!(known(&ledger), [1, 3, 4].map(|last| client(0, last)));
        ledger.set(client(0, 3), row(60), 10);
        ledger.set(client(1, 5), row(70), 10);
        assert_eq!(known(&ledger), [client(0, 1), client(0, 3), client(1, 5)], "it was renewed");
        ledger.set(client(0, 6), row(10), 10);
        assert_eq!(ledger.get(client(0, 6)), None, "it says nothing");
        ledger.expire(50);
        assert_eq!(known(&ledger), [client(0, 3), client(1, 5)]);
        ledger.remove_zones(&[Zone::new(1)]);
        assert_eq!(known(&ledger), [client(0, 3)]);
        assert!(ledger.remove(client(0, 3)) && !ledger.remove(client(0, 3)));
    }

    #[test]
    fn the_next_daemon_finds_it_in_the_kernel() {
        let mut ledger = Ledger::over(2, UsageMap::create(2).expect("a BPF map needs root"), 0).unwrap();
        for (last, ends) in [(1, 20), (2, 30), (3, 40)] {
            ledger.set(client(0, last), row(ends), 10);
        }
        ledger.set(client(0, 3), row(50), 10);
        let next = Ledger::over(2, ledger.kernel.take().unwrap(), 30).unwrap();
        assert_eq!(known(&next), [client(0, 3)], "what is over is not found");
        assert_eq!(next.get(client(0, 3)), Some(row(50)));
    }
}
