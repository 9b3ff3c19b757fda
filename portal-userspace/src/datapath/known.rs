//! The requests that the gate answers by itself: written here, after the responder has answered them.
//!
//! A row that the gate reads while it is written is told by its version, which is odd meanwhile and another afterwards.
//!
//! No old answer outlives the policy it was made by. All changes of the table happen under one lock. A change of policies clears the table and puts the new
//! policies in force within it ([`KnownAnswers::change`]); who installs an answer says by which policies it was made, and within the lock it is looked
//! whether they are still those in force. So a worker that answers by policies it took before the change installs either before the table is cleared, or nothing.

use std::{
    mem::offset_of,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicU64,
            Ordering::{Relaxed, Release},
            fence,
        },
    },
};

use anyhow::{Context as _, Result};
use aya::maps::{Array, MapData, PerCpuArray};
use portal_common::{
    Family,
    checksum::Sum,
    tables::{KNOWN_ROWS, KNOWN_SEEDS, KNOWN_STATUSES, KnownAnswer, Zone, is_known},
};

use super::{mapped::Mapped, secrets::random_key};

const WORD: usize = size_of::<AtomicU64>();
const VERSION: usize = offset_of!(KnownAnswer, version) / WORD;
const USED: usize = offset_of!(KnownAnswer, used_ns) / WORD;

/// The kernel's table of known answers, and how often each kind was given.
pub struct KnownAnswers {
    rows: Mutex<Rows>,
    given: Option<PerCpuArray<MapData, [u64; KNOWN_STATUSES]>>,
    seeds: Box<[u64; KNOWN_SEEDS]>,
}

struct Rows(Mapped<KnownAnswer>);

/// A request that the responder has answered.
#[derive(Clone, Copy, Debug)]
pub struct Learned<'a> {
    /// The client's network.
    pub zone: Zone,
    /// Over which family it came.
    pub family: Family,
    /// All of it.
    pub request: &'a [u8],
    /// The whole response.
    pub response: &'a [u8],
    /// The sum of its bytes.
    pub sum: Sum,
    /// The number of its kind, under which it is counted: below [`KNOWN_STATUSES`].
    pub status: u8,
}

/// What became of an answer that was to be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installed {
    /// The gate gives it from now on.
    Now,
    /// The gate gave it already.
    Before,
    /// It is too short or too long, or made by policies that are in force no more.
    No,
}

impl KnownAnswers {
    /// A table of its own, that no program reads.
    pub fn create() -> Result<Self> {
        Self::over(Mapped::create(KNOWN_ROWS)?, None)
    }

    /// The table in these maps, which nobody has filled.
    pub fn new(map: &Array<MapData, KnownAnswer>, given: PerCpuArray<MapData, [u64; KNOWN_STATUSES]>) -> Result<Self> {
        Self::over(Mapped::new(map)?, Some(given))
    }

    fn over(rows: Mapped<KnownAnswer>, given: Option<PerCpuArray<MapData, [u64; KNOWN_STATUSES]>>) -> Result<Self> {
        let mut seeds = Box::new([0; KNOWN_SEEDS]);
        for pair in seeds.as_chunks_mut::<2>().0 {
            *pair = random_key()?.0;
        }
        rows.write(0, &KnownAnswer::of_seeds(&seeds));
        Ok(Self { rows: Mutex::new(Rows(rows)), given, seeds })
    }

    /// Makes the gate give this answer, if `is_in_force` says within the lock that the policies it was made by still are. It takes the place of
    /// the one that was used least lately, of two.
    pub fn install(&self, learned: &Learned<'_>, is_in_force: impl FnOnce() -> bool) -> Installed {
        let Learned { zone, family, request, response, sum, status } = *learned;
        let Some(row) = KnownAnswer::new(&self.seeds, (zone, family), request, (response, sum, status)) else {
            return Installed::No;
        };
        let rows = self.lock();
        if !is_in_force() {
            return Installed::No;
        }
        let places = row.place().rows;
        if let Some(own) =
            places.iter().find(|place| rows.is_known(**place) && rows.0.read(**place).is_of_the_request_of(&row))
        {
            let KnownAnswer { response, answer, .. } = rows.0.read(*own);
            if (response, answer) == (row.response, row.answer) {
                return Installed::Before;
            }
            rows.write(*own, &row);
            return Installed::Now;
        }
        let free = places.iter().find(|place| !rows.is_known(**place));
        let used = |place: &u32| rows.0.words(*place)[USED].load(Relaxed);
        let oldest = if used(&places[0]) <= used(&places[1]) { places[0] } else { places[1] };
        rows.write(*free.unwrap_or(&oldest), &row);
        Installed::Now
    }

    /// Forgets every answer, and puts others in force within the same lock: what was learned by the old ones can't be installed any more.
    pub fn change<T>(&self, put_in_force: impl FnOnce() -> T) -> T {
        let rows = self.lock();
        for place in 1..KNOWN_ROWS {
            rows.write(place, &KnownAnswer::NONE);
        }
        put_in_force()
    }

    /// How many answers the gate gives by itself.
    pub fn len(&self) -> usize {
        let rows = self.lock();
        (1..KNOWN_ROWS).filter(|place| rows.is_known(*place)).count()
    }

    /// Whether it gives none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How often the gate has given each kind of answer.
    pub fn given(&self) -> Result<[u64; KNOWN_STATUSES]> {
        let mut sum = [0; KNOWN_STATUSES];
        if let Some(given) = &self.given {
            for one in given.get(&0, 0).context("cannot read how often the gate has answered by itself")?.iter() {
                sum.iter_mut().zip(one).for_each(|(sum, n)| *sum += n);
            }
        }
        Ok(sum)
    }

    /// Makes a request nobody's, as it is while its row is written: for tests. Whether there was one.
    pub fn begin_rewriting(&self, zone: Zone, family: Family, request: &[u8]) -> bool {
        let rows = self.lock();
        let response = [0; portal_common::cookie::RESPONSE_MIN];
        let Some(row) = KnownAnswer::new(&self.seeds, (zone, family), request, (&response, Sum::new(), 0)) else {
            return false;
        };
        let own = |place: &u32| rows.is_known(*place) && rows.0.read(*place).is_of_the_request_of(&row);
        row.place().rows.into_iter().find(own).map(|place| rows.begin(place)).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Rows> {
        // What a panic leaves half-written has an odd version: it is nobody's.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rows {
    fn is_known(&self, place: u32) -> bool {
        is_known(self.0.words(place)[VERSION].load(Relaxed))
    }

    /// Makes a row nobody's; the version that it then has.
    fn begin(&self, place: u32) -> u64 {
        let version = &self.0.words(place)[VERSION];
        let odd = version.load(Relaxed) | 1;
        version.store(odd, Relaxed);
        // Nothing of the new row is seen before this.
        fence(Release);
        odd
    }

    /// Writes a row; without an answer in it, it stays nobody's.
    fn write(&self, place: u32, row: &KnownAnswer) {
        let odd = self.begin(place);
        let mut written = *row;
        written.version = odd;
        self.0.write(place, &written);
        if row.asked != 0 {
            self.0.words(place)[VERSION].store(odd.wrapping_add(1), Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    };

    use portal_common::cookie::RESPONSE_MIN;

    use super::*;

    fn learned<'a>(request: &'a [u8], response: &'a [u8]) -> Learned<'a> {
        Learned {
            zone: Zone::new(3),
            family: Family::V4,
            request,
            response,
            sum: Sum::new().bytes(response),
            status: 6,
        }
    }

    fn found(table: &KnownAnswers, request: &[u8]) -> Option<KnownAnswer> {
        let response = [0; RESPONSE_MIN];
        let wanted =
            KnownAnswer::new(&table.seeds, (Zone::new(3), Family::V4), request, (&response, Sum::new(), 0)).unwrap();
        let rows = table.lock();
        let own = |place: &u32| rows.is_known(*place) && rows.0.read(*place).is_of_the_request_of(&wanted);
        wanted.place().rows.into_iter().find(own).map(|place| rows.0.read(place))
    }

    #[test]
    fn an_answer_is_there_until_the_policies_change() {
        let table = KnownAnswers::create().unwrap();
        let (request, response, other) = (b"GET / HTTP/1.1\r\n\r\n", [b'r'; 200], [b's'; 300]);
        assert_eq!(table.install(&learned(request, &response), || false), Installed::No, "of other policies");
        assert!(table.is_empty());
        assert_eq!(table.install(&learned(request, &response), || true), Installed::Now);
        assert_eq!(table.install(&learned(request, &response), || true), Installed::Before);
        let row = found(&table, request).unwrap();
        assert_eq!((row.answer, row.response[0].to_ne_bytes()), ((6 << 32) + 200, [b'r'; 8]));
        assert_eq!(table.install(&learned(request, &other), || true), Installed::Now, "another answer");
        assert_eq!(found(&table, request).unwrap().answer, (6 << 32) + 300);
        assert_eq!(table.len(), 1);
        assert_eq!(table.install(&learned(&request[..15], &other), || true), Installed::No, "too short");
        table.change(|| ());
        assert!(found(&table, request).is_none() && table.is_empty());
        assert_eq!(table.install(&learned(request, &response), || true), Installed::Now);
        assert!(table.begin_rewriting(Zone::new(3), Family::V4, request));
        assert!(table.is_empty());
    }

    #[test]
    fn what_was_used_least_lately_gives_way() {
        // Where two that are in use meet, one has to go: about one in six of them does, at random none would be left.
        const IN_USE: u32 = 6;
        let table = KnownAnswers::create().unwrap();
        let request = |n: u32| format!("GET /{n} HTTP/1.1\r\n\r\n").into_bytes();
        let response = [b'r'; 200];
        for n in 0..1500 {
            assert_eq!(table.install(&learned(&request(n), &response), || true), Installed::Now);
            // The first are used all the time.
            for often in 0..IN_USE {
                if let Some(row) = found(&table, &request(often)) {
                    let rows = table.lock();
                    let place = row.place().rows.into_iter().find(|place| rows.0.read(*place) == row).unwrap();
                    rows.0.words(place)[USED].store(u64::from(n) + 1, Relaxed);
                }
            }
        }
        let left = (0..IN_USE).filter(|often| found(&table, &request(*often)).is_some()).count();
        assert!(left >= 2, "{left} of the {IN_USE} that are in use are left");
        assert!(table.len() > 200);
    }

    /// A worker that has taken its policies before they are changed installs either before the change, which clears the table, or not at all.
    #[test]
    fn no_answer_of_old_policies_outlives_them_whoever_is_faster() {
        let table = Arc::new(KnownAnswers::create().unwrap());
        let (in_force, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let workers: Vec<_> = (0..2u32)
            .map(|worker| {
                let (table, in_force, done) = (Arc::clone(&table), Arc::clone(&in_force), Arc::clone(&done));
                std::thread::spawn(move || {
                    let (mut installed, mut refused, mut n) = (0, 0, 0u32);
                    while !done.load(Relaxed) {
                        // As a batch of frames is answered: the policies are taken, and then used for a while.
                        let mine = in_force.load(Relaxed);
                        let response = [&mine.to_ne_bytes()[..], &[b'r'; 200]].concat();
                        for _ in 0..8 {
                            n = n.wrapping_add(1);
                            let request = format!("GET /{worker}/{} HTTP/1.1\r\n\r\n", n % 64);
                            match table
                                .install(&learned(request.as_bytes(), &response), || in_force.load(Relaxed) == mine)
                            {
                                Installed::No => refused += 1,
                                Installed::Now | Installed::Before => installed += 1,
                            }
                        }
                    }
                    (installed, refused)
                })
            })
            .collect();
        let mut seen = 0;
        for policy in 1..3000u64 {
            table.change(|| in_force.store(policy, Relaxed));
            for place in 1..KNOWN_ROWS {
                let rows = table.lock();
                if rows.is_known(place) {
                    assert_eq!(rows.0.read(place).response[0], policy);
                    seen += 1;
                }
            }
        }
        done.store(true, Relaxed);
        let (installed, refused) =
            workers.into_iter().map(|worker| worker.join().unwrap()).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        assert!(installed > 0 && refused > 0 && seen > 0, "{installed} installed, {refused} refused, {seen} seen");
    }
}
