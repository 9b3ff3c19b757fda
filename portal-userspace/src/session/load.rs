//! Many sessions into the kernel's tables at once: what a restart does with an [`Image`].

use std::time::SystemTime;

use portal_common::tables::{ClientKey, ClientState, Flow, Rate, Session, Zone};

use super::{
    image::{Image, SavedSession, UnixMs},
    store::SessionStore,
};
use crate::{clock, datapath::sessions::InsertError};

const MS_IN_NS: u64 = 1_000_000;

/// The gate's clock and the calendar's, read at the same instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub gate_ns: u64,
    /// The calendar's.
    pub calendar: UnixMs,
}

impl Clocks {
    /// Reads both.
    pub fn now() -> Self {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        Self { gate_ns: clock::now_ns(), calendar: UnixMs(ms) }
    }

    /// The instant by the gate's clock. What was before the machine started is at its zero.
    fn gate(self, instant: UnixMs) -> u64 {
        let ns = |ms: u64| ms.saturating_mul(MS_IN_NS);
        if instant >= self.calendar {
            self.gate_ns.saturating_add(ns(instant.0 - self.calendar.0))
        } else {
            self.gate_ns.saturating_sub(ns(self.calendar.0 - instant.0))
        }
    }
}

/// What became of an image's sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// How many are in the kernel now.
    pub sessions: usize,
    /// How many were over.
    pub over: usize,
    /// How many are of zones that there are no more.
    pub of_no_zone: usize,
}

/// Why nothing was loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There are sessions already, which would be lost, or mixed with those of the image.
    #[error(
        "there are sessions in the kernel already: they are newer than any that was kept, and stay; nothing was loaded"
    )]
    NotEmpty,
    /// There are more sessions than places.
    #[error(
        "{needed} sessions were kept, and there are places for {free}: raise `limits.clients` and restart portald; nothing was loaded"
    )]
    Full {
        /// How many places are needed.
        needed: usize,
        /// How many sessions the table holds.
        free: usize,
    },
    /// One found no place.
    #[error("the session table could not be filled, and is empty again")]
    Table(#[from] InsertError),
}

impl SessionStore {
    /// Writes an image's sessions into the kernel, all or none. `zone` says which zone has a name now.
    ///
    /// When this returns, the gate lets these clients through. For an empty table only. Not for an async task.
    pub fn load(
        &self,
        image: &Image,
        clocks: Clocks,
        zone: impl Fn(&str) -> Option<Zone>,
    ) -> Result<Loaded, LoadError> {
        let _writing = self.lock();
        if !self.table.find(|_, _| true).is_empty() {
            return Err(LoadError::NotEmpty);
        }
        let zones: Vec<(Zone, Option<Zone>)> = image.zones.iter().map(|(old, name)| (*old, zone(name))).collect();
        let zone_of = |old: Zone| zones.iter().find(|(found, _)| *found == old).and_then(|(_, now)| *now);
        let mut loaded = Loaded::default();
        let mut live = Vec::with_capacity(image.sessions.len());
        for saved in &image.sessions {
            match zone_of(saved.client.zone()) {
                None => loaded.of_no_zone += 1,
                Some(_) if is_over(saved, clocks.calendar) => loaded.over += 1,
                Some(zone) => live.push((ClientKey::new(zone, saved.client.mac()), saved)),
            }
        }
        loaded.sessions = live.len();
        let Some(slots) = self.slots.take_many(live.len()) else {
            return Err(LoadError::Full { needed: live.len(), free: self.capacity() as usize });
        };
        for (&(client, saved), &slot) in live.iter().zip(&slots) {
            // The kernel counts without asking: what it counts to must be there before the session.
            self.table.write_state(slot, &state(saved, clocks));
            if let Err(e) = self.table.insert(client, session(saved, slot, clocks)) {
                for (client, _) in &live {
                    self.table.remove(*client);
                }
                for slot in &slots {
                    self.slots.give_back(*slot);
                }
                return Err(e.into());
            }
        }
        Ok(loaded)
    }
}

/// Whether it would let nobody through: by the calendar, as it may have ended while no gate's clock ran.
fn is_over(saved: &SavedSession, now: UnixMs) -> bool {
    let seen = saved.last_seen.unwrap_or_default().max(saved.started);
    let idle = saved.idle_s.is_some_and(|limit| now.0.saturating_sub(seen.0) >= u64::from(limit) * 1000);
    let spent = saved.quota_bytes.is_some_and(|quota| saved.quota_used > quota);
    idle || spent || saved.expires.is_some_and(|expires| expires <= now)
}

fn session(saved: &SavedSession, slot: u32, clocks: Clocks) -> Session {
    let expires = saved.expires.map_or(Session::NEVER, |expires| clocks.gate(expires));
    let (up, down) = (rate(saved.rate_up), rate(saved.rate_down));
    Session::new(clocks.gate(saved.started), expires, slot)
        .with_rates(up, down)
        .with_quota(saved.quota_bytes.unwrap_or(Session::NO_QUOTA))
        .with_idle_s(saved.idle_s.unwrap_or(0))
}

fn state(saved: &SavedSession, clocks: Clocks) -> ClientState<u64> {
    let flow = |(packets, bytes)| Flow { packets, bytes, bucket: 0 };
    ClientState {
        last_seen_ns: saved.last_seen.map_or(0, |seen| clocks.gate(seen)),
        quota_used: saved.quota_used,
        up: flow(saved.up),
        down: flow(saved.down),
        ..ClientState::default()
    }
}

/// The rate that says so of itself: [`Rate`] rounds, and must not be rounded down again at every restart.
fn rate(bits_per_second: Option<u64>) -> Rate {
    let Some(bits) = bits_per_second else { return Rate::UNLIMITED };
    let says_so = |rate: &Rate| rate.to_bits_per_second() == Some(bits);
    let [near, below] = [bits, bits - 1].map(Rate::bits_per_second);
    [near, below].into_iter().find(says_so).unwrap_or(near)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Clocks = Clocks { gate_ns: 3_600_000_000_000, calendar: UnixMs(1_700_000_000_000) };

    fn saved(last: u8) -> SavedSession {
        SavedSession {
            client: ClientKey::new(Zone::new(5), [2, 0, 0, 0, 0, last]),
            started: UnixMs(NOW.calendar.0 - 60_000),
            expires: Some(UnixMs(NOW.calendar.0 + 120_000)),
            last_seen: Some(UnixMs(NOW.calendar.0 - 1_000)),
            quota_bytes: None,
            quota_used: 0,
            idle_s: None,
            rate_up: None,
            rate_down: None,
            up: (0, 0),
            down: (0, 0),
        }
    }

    fn image(sessions: Vec<SavedSession>) -> Image {
        Image { zones: vec![(Zone::new(5), "guest".to_owned())], sessions }
    }

    fn store(capacity: u32) -> SessionStore {
        SessionStore::create(capacity).expect("a BPF map needs root")
    }

    /// The zone has another number than it had.
    fn here(name: &str) -> Option<Zone> {
        (name == "guest").then_some(Zone::new(2))
    }

    #[test]
    fn what_was_kept_is_in_the_kernel_by_its_clock() {
        let store = store(8);
        let whole = SavedSession {
            quota_bytes: Some(1000),
            quota_used: 500,
            idle_s: Some(60),
            rate_up: Some(10_000_000),
            up: (3, 300),
            down: (4, 400),
            ..saved(1)
        };
        let loaded = store.load(&image(vec![whole, saved(2)]), NOW, here).unwrap();
        assert_eq!(loaded, Loaded { sessions: 2, over: 0, of_no_zone: 0 });
        let client = |last| ClientKey::new(Zone::new(2), [2, 0, 0, 0, 0, last]);
        let entry = store.read(client(1)).unwrap();
        let s = |seconds: u64| seconds * 1_000_000_000;
        assert_eq!((entry.session.started_ns(), entry.session.expires_ns()), (s(3540), s(3720)));
        assert_eq!((entry.session.quota_bytes(), entry.session.idle_s()), (1000, 60));
        assert_eq!(entry.session.rate_up().to_bits_per_second(), Some(10_000_000));
        assert_eq!((entry.state.last_seen_ns, entry.state.quota_used), (s(3599), 500));
        assert_eq!((entry.state.up.bytes, entry.state.down.packets), (300, 4));
        let other = store.read(client(2)).unwrap();
        assert_ne!(entry.session.slot(), other.session.slot());
        assert_eq!(other.state.quota_used, 0);
        assert_eq!(store.slots.take_many(7), None, "two places are taken");
    }

    #[test]
    fn what_is_over_or_of_no_zone_stays_out() {
        let second = UnixMs(NOW.calendar.0 - 1_000);
        let table = [
            ("it has ended", SavedSession { expires: Some(NOW.calendar), ..saved(1) }, true),
            ("it ends in a millisecond", SavedSession { expires: Some(UnixMs(NOW.calendar.0 + 1)), ..saved(1) }, false),
            ("it never ends", SavedSession { expires: None, ..saved(1) }, false),
            ("idle", SavedSession { idle_s: Some(1), ..saved(1) }, true),
            ("not quite idle", SavedSession { idle_s: Some(2), ..saved(1) }, false),
            (
                "never seen, just begun",
                SavedSession { idle_s: Some(2), last_seen: None, started: second, ..saved(1) },
                false,
            ),
            ("quota spent", SavedSession { quota_bytes: Some(9), quota_used: 10, ..saved(1) }, true),
            ("quota used up", SavedSession { quota_bytes: Some(9), quota_used: 9, ..saved(1) }, false),
        ];
        for (sentence, session, over) in table {
            let loaded = store(1).load(&image(vec![session]), NOW, here).unwrap();
            assert_eq!((loaded.sessions, loaded.over), (usize::from(!over), usize::from(over)), "{sentence}");
        }
        let elsewhere = store(1).load(&image(vec![saved(1)]), NOW, |_| None).unwrap();
        assert_eq!(elsewhere, Loaded { sessions: 0, over: 0, of_no_zone: 1 });
    }

    #[test]
    fn all_are_loaded_or_none() {
        let small = store(2);
        let three = image(vec![saved(1), saved(2), saved(3)]);
        let error = small.load(&three, NOW, here).unwrap_err();
        assert!(matches!(error, LoadError::Full { needed: 3, free: 2 }), "{error}");
        assert_eq!(small.table.find(|_, _| true).len(), 0);
        small.load(&image(vec![saved(1)]), NOW, here).unwrap();
        assert!(matches!(small.load(&image(vec![saved(2)]), NOW, here), Err(LoadError::NotEmpty)));
    }

    #[test]
    fn a_rate_survives_any_number_of_restarts() {
        for bits in (0..4000).map(|i| 2_000 + i * i * 6_007) {
            let first = Rate::bits_per_second(bits);
            assert_eq!(rate(first.to_bits_per_second()), first, "{bits}");
        }
        assert_eq!(rate(None), Rate::UNLIMITED);
    }

    #[test]
    fn what_was_before_the_machine_started_is_at_zero() {
        let hour = 3_600_000;
        assert_eq!(NOW.gate(UnixMs(NOW.calendar.0 - 2 * hour)), 0);
        assert_eq!(NOW.gate(UnixMs(u64::MAX - 1)), u64::MAX, "and what is too far away never comes");
    }
}
