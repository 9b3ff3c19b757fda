//! Sessions as bytes, for whoever keeps them over a restart: compact, versioned, and checked.
//!
//! ```text
//! header    magic (8) · version (2) · length of a record (2) · number of zones (2) · 0 (2) · number of records (8) · checksum (4)
//! zones     for each: number (2) · length of its name (1) · name · and one checksum (4) behind them all
//! blocks    up to 4,096 records each · checksum (4)
//! ```
//!
//! Numbers are little-endian. A checksum is CRC-32 of what it stands behind, begun with the number of its part, so that parts cannot be exchanged. Times are
//! of the calendar's clock, in milliseconds since 1970: the gate's clock starts anew with the machine. Nothing here depends on how the kernel's maps
//! lie in memory.
//!
//! It fails closed: an image with any damage is refused as a whole, before the first session is believed. Damage only: who can write the file can
//! log anybody in.

use std::ops::Range;

use portal_common::tables::{ClientKey, MAX_ZONES, Zone};

use crate::net::Mac;

/// Neither text nor UTF-8, as PNG's is: what treats it as text breaks it at its first bytes.
const MAGIC: [u8; 8] = *b"\x89Portal\n";
const VERSION: u16 = 1;
const HEADER_LEN: usize = 28;
const RECORD_LEN: usize = 104;
const CHECKSUM_LEN: usize = 4;
/// So many records are checked at once: half a processor's cache.
const BLOCK: usize = 4096;
/// In place of an instant or of a number: none.
const NONE: u64 = u64::MAX;

/// An instant: milliseconds since 1970 of the calendar's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixMs(pub u64);

/// A client's session, with what it has carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedSession {
    /// The client: its zone's number is the image's, and means what the image's zones say.
    pub client: ClientKey,
    /// When it began.
    pub started: UnixMs,
    /// When it ends; None: never.
    pub expires: Option<UnixMs>,
    /// When the client was last seen; None: not yet.
    pub last_seen: Option<UnixMs>,
    /// How many bytes it may carry.
    pub quota_bytes: Option<u64>,
    /// How many of them it has.
    pub quota_used: u64,
    /// After how many seconds of silence it ends; None: never.
    pub idle_s: Option<u32>,
    /// How fast the client may send, bits per second.
    pub rate_up: Option<u64>,
    /// How fast it may be sent to.
    pub rate_down: Option<u64>,
    /// Packets and bytes that the client sent.
    pub up: (u64, u64),
    /// Packets and bytes that it received.
    pub down: (u64, u64),
}

/// What an image holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Which zone each number stands for.
    pub zones: Vec<(Zone, String)>,
    /// The sessions, in the order of their clients.
    pub sessions: Vec<SavedSession>,
}

/// Why an image is refused: as a whole, whatever is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// It begins with something else.
    #[error("this is no image of Portal's sessions: it begins with other bytes; give the file that portald wrote")]
    Magic,
    /// Another version wrote it.
    #[error(
        "the image is of version {found}, and this portald reads version {VERSION}: start the portald that wrote it, or delete it; guests then log in again"
    )]
    Version {
        /// Its version.
        found: u16,
    },
    /// Its end is missing, or there is more behind it.
    #[error(
        "the image has {found} bytes where it should have {wanted}: it was not written to its end, or something was added; restore a copy, or delete it; guests then log in again"
    )]
    Length {
        /// How many bytes there are.
        found: usize,
        /// How many there should be; at least, where that is all that can be told.
        wanted: usize,
    },
    /// Bytes have changed.
    #[error(
        "{part} of the image is damaged: its checksum is wrong; restore a copy, or delete it; guests then log in again"
    )]
    Checksum {
        /// What is damaged.
        part: Part,
    },
    /// It is whole, but says what cannot be.
    #[error(
        "{part} of the image is wrong: {fault}; this is an error of the portald that wrote it: report it, and delete the image; guests then log in again"
    )]
    Content {
        /// What is wrong.
        part: Part,
        /// What it says.
        fault: &'static str,
    },
}

/// A part of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The header.
    Header,
    /// The table of zones.
    Zones,
    /// A block of records, from 1.
    Block(usize),
    /// A record, from 1.
    Record(usize),
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header => f.write_str("the header"),
            Self::Zones => f.write_str("the table of zones"),
            Self::Block(number) => write!(f, "block {number}"),
            Self::Record(number) => write!(f, "record {number}"),
        }
    }
}

impl Part {
    /// The checksum of this part's bytes.
    fn checksum(self, bytes: &[u8]) -> [u8; CHECKSUM_LEN] {
        let number = match self {
            Self::Header => 0u64,
            Self::Zones => 1,
            Self::Block(number) | Self::Record(number) => 1 + number as u64,
        };
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&number.to_le_bytes());
        hasher.update(bytes);
        hasher.finalize().to_le_bytes()
    }
}

impl Image {
    /// The image as bytes. Sorts the sessions by client.
    ///
    /// # Panics
    ///
    /// Where a client is there twice, a session is of a zone that is not among the zones, or a zone's name is longer than 255 bytes.
    pub fn encode(mut self) -> Vec<u8> {
        self.sessions.sort_unstable_by_key(|session| session.client);
        assert!(self.sessions.windows(2).all(|two| two[0].client < two[1].client), "a client has one session");
        let zones: ZoneSet = self.zones.iter().map(|(zone, _)| *zone).collect();
        assert!(
            self.sessions.iter().all(|session| zones.has(session.client.zone())),
            "a session is of one of the zones"
        );
        let blocks = self.sessions.len().div_ceil(BLOCK);
        let mut bytes = Vec::with_capacity(
            HEADER_LEN + self.sessions.len() * RECORD_LEN + (blocks + 1) * CHECKSUM_LEN + self.zones.len() * 32,
        );
        bytes.extend(MAGIC);
        for number in [VERSION, RECORD_LEN as u16, self.zones.len() as u16, 0] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend((self.sessions.len() as u64).to_le_bytes());
        seal(&mut bytes, 0, Part::Header);
        let at = bytes.len();
        for (zone, name) in &self.zones {
            let length = u8::try_from(name.len()).expect("a zone's name is short");
            bytes.extend(zone.number().to_le_bytes());
            bytes.push(length);
            bytes.extend(name.as_bytes());
        }
        seal(&mut bytes, at, Part::Zones);
        for (number, block) in (1..).zip(self.sessions.chunks(BLOCK)) {
            let at = bytes.len();
            for session in block {
                bytes.extend(session.record());
            }
            seal(&mut bytes, at, Part::Block(number));
        }
        bytes
    }

    /// The image that these bytes are, if all of them are right.
    pub fn decode(bytes: &[u8]) -> Result<Self, ImageError> {
        let (mut rest, header) = (bytes, Header::read(bytes)?);
        take(&mut rest, HEADER_LEN, bytes.len())?;
        let zones = read_zones(&mut rest, header.zones, bytes.len())?;
        let blocks = header.records.div_ceil(BLOCK);
        let wanted = header.records.checked_mul(RECORD_LEN).and_then(|n| n.checked_add(blocks * CHECKSUM_LEN));
        if wanted != Some(rest.len()) {
            let wanted = wanted.unwrap_or(usize::MAX).saturating_add(bytes.len() - rest.len());
            return Err(ImageError::Length { found: bytes.len(), wanted });
        }
        let known: ZoneSet = zones.iter().map(|(zone, _)| *zone).collect();
        let mut sessions = Vec::with_capacity(header.records);
        let mut last = ClientKey::NONE;
        for (number, block) in (1..).zip(rest.chunks(BLOCK * RECORD_LEN + CHECKSUM_LEN)) {
            let records = open(block, Part::Block(number))?;
            for record in records.as_chunks::<RECORD_LEN>().0 {
                let part = Part::Record(sessions.len() + 1);
                let session =
                    SavedSession::read(record, &known).map_err(|fault| ImageError::Content { part, fault })?;
                if !sessions.is_empty() && session.client <= last {
                    return Err(ImageError::Content { part, fault: "its client is there twice, or out of order" });
                }
                last = session.client;
                sessions.push(session);
            }
        }
        Ok(Self { zones, sessions })
    }
}

struct Header {
    zones: usize,
    records: usize,
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Self, ImageError> {
        if !bytes.starts_with(&MAGIC[..MAGIC.len().min(bytes.len())]) || bytes.is_empty() {
            return Err(ImageError::Magic);
        }
        let Some(header) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(ImageError::Length { found: bytes.len(), wanted: HEADER_LEN });
        };
        // Before its checksum: another version's may lie elsewhere.
        let found = number16(header, 8..10);
        if found != VERSION {
            return Err(ImageError::Version { found });
        }
        let header = open(header, Part::Header)?;
        let wrong = |fault| ImageError::Content { part: Part::Header, fault };
        if number16(header, 10..12) as usize != RECORD_LEN || number16(header, 14..16) != 0 {
            return Err(wrong("its records have another length"));
        }
        let zones = number16(header, 12..14) as usize;
        if zones > MAX_ZONES as usize {
            return Err(wrong("it has more zones than there can be"));
        }
        let records = usize::try_from(number64(header, 16)).map_err(|_| wrong("it has more records than memory"))?;
        Ok(Self { zones, records })
    }
}

fn read_zones(rest: &mut &[u8], count: usize, found: usize) -> Result<Vec<(Zone, String)>, ImageError> {
    let whole = *rest;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let [n0, n1, length] = *take(rest, 3, found)?.first_chunk().expect("three were taken");
        let name = take(rest, usize::from(length), found)?;
        entries.push((u16::from_le_bytes([n0, n1]), name));
    }
    take(rest, CHECKSUM_LEN, found)?;
    // Lengths are believed as far as they lead to a checksum, and no further.
    open(&whole[..whole.len() - rest.len()], Part::Zones)?;
    let wrong = |fault| ImageError::Content { part: Part::Zones, fault };
    let mut zones: Vec<(Zone, String)> = Vec::with_capacity(count);
    for (number, name) in entries {
        if u32::from(number) >= MAX_ZONES || zones.iter().any(|(zone, _)| zone.number() == number) {
            return Err(wrong("a zone's number is too large, or there twice"));
        }
        let name = std::str::from_utf8(name).map_err(|_| wrong("a zone's name is no text"))?;
        zones.push((Zone::new(number), name.to_owned()));
    }
    Ok(zones)
}

/// Takes so many bytes off the front.
fn take<'a>(rest: &mut &'a [u8], count: usize, found: usize) -> Result<&'a [u8], ImageError> {
    let Some((taken, left)) = rest.split_at_checked(count) else {
        return Err(ImageError::Length { found, wanted: found + count - rest.len() });
    };
    *rest = left;
    Ok(taken)
}

/// Appends the checksum of what is there from `at` on.
fn seal(bytes: &mut Vec<u8>, at: usize, part: Part) {
    let checksum = part.checksum(&bytes[at..]);
    bytes.extend(checksum);
}

/// What a part holds, if its checksum is right.
fn open(sealed: &[u8], part: Part) -> Result<&[u8], ImageError> {
    let Some((content, checksum)) = sealed.split_last_chunk::<CHECKSUM_LEN>() else {
        return Err(ImageError::Checksum { part });
    };
    if part.checksum(content) == *checksum { Ok(content) } else { Err(ImageError::Checksum { part }) }
}

fn number16(bytes: &[u8], at: Range<usize>) -> u16 {
    bytes[at].try_into().map(u16::from_le_bytes).expect("a range of two bytes")
}

fn number64(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].try_into().map(u64::from_le_bytes).expect("a range of eight bytes")
}

/// Zones by their numbers.
#[derive(Default)]
struct ZoneSet(u64);

const _: () = assert!(MAX_ZONES <= u64::BITS);

impl ZoneSet {
    fn has(&self, zone: Zone) -> bool {
        u32::from(zone.number()) < MAX_ZONES && self.0 >> zone.number() & 1 == 1
    }
}

impl FromIterator<Zone> for ZoneSet {
    fn from_iter<I: IntoIterator<Item = Zone>>(zones: I) -> Self {
        Self(zones.into_iter().fold(0, |set, zone| set | 1 << zone.number()))
    }
}

impl SavedSession {
    /// In this order: zone (2), MAC address (6), then eleven words of 8, idle (4), 0 (4).
    fn record(&self) -> [u8; RECORD_LEN] {
        let Self { client, started, expires, last_seen, quota_bytes, quota_used, idle_s, rate_up, rate_down, up, down } =
            *self;
        let instant = |instant: Option<UnixMs>| instant.map_or(NONE, |UnixMs(ms)| ms);
        let mut record = [0; RECORD_LEN];
        record[..2].copy_from_slice(&client.zone().number().to_le_bytes());
        record[2..8].copy_from_slice(&client.mac());
        let words = [
            started.0,
            instant(expires),
            instant(last_seen),
            quota_bytes.unwrap_or(NONE),
            quota_used,
            rate_up.unwrap_or(NONE),
            rate_down.unwrap_or(NONE),
            up.0,
            up.1,
            down.0,
            down.1,
        ];
        for (place, word) in record[8..].as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *place = word.to_le_bytes();
        }
        record[96..100].copy_from_slice(&idle_s.unwrap_or(0).to_le_bytes());
        record
    }

    fn read(record: &[u8; RECORD_LEN], zones: &ZoneSet) -> Result<Self, &'static str> {
        let zone = number16(record, 0..2);
        if u32::from(zone) >= MAX_ZONES || !zones.has(Zone::new(zone)) {
            return Err("it is of a zone that the image does not name");
        }
        let [_, _, m0, m1, m2, m3, m4, m5, rest @ ..] = record;
        let mac = Mac::new([*m0, *m1, *m2, *m3, *m4, *m5]).map_err(|_| "its MAC address is no station's")?;
        let [words @ .., last] = rest.as_chunks::<8>().0 else { return Err("it is too short") };
        let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
        let mut word = || words.next().unwrap_or(NONE);
        let some = |word: u64| (word != NONE).then_some(word);
        let (started, expires, last_seen) = (word(), some(word()), some(word()));
        let (quota_bytes, quota_used) = (some(word()), word());
        let (rate_up, rate_down) = (some(word()), some(word()));
        let (up, down) = ((word(), word()), (word(), word()));
        let [i0, i1, i2, i3, 0, 0, 0, 0] = *last else { return Err("its last bytes are not zero") };
        let idle_s = u32::from_le_bytes([i0, i1, i2, i3]);
        if started == NONE || expires.is_some_and(|expires| expires < started) {
            return Err("it ends before it begins");
        }
        if rate_up == Some(0) || rate_down == Some(0) {
            return Err("its rate is zero");
        }
        Ok(Self {
            client: ClientKey::new(Zone::new(zone), mac.bytes()),
            started: UnixMs(started),
            expires: expires.map(UnixMs),
            last_seen: last_seen.map(UnixMs),
            quota_bytes,
            quota_used,
            idle_s: (idle_s != 0).then_some(idle_s),
            rate_up,
            rate_down,
            up,
            down,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn session() -> impl Strategy<Value = SavedSession> {
        let client = (0u16..3, any::<[u8; 5]>())
            .prop_map(|(zone, [a, b, c, d, e])| ClientKey::new(Zone::new(zone), [2, a, b, c, d, e]));
        let word = || prop_oneof![0..10u64, 0..NONE];
        let times = (word(), proptest::option::of(word()), proptest::option::of(word()));
        let limits = (
            proptest::option::of(word()),
            word(),
            proptest::option::of(1..=u32::MAX),
            proptest::option::of(1..NONE),
            proptest::option::of(1..NONE),
        );
        (client, times, limits, (word(), word()), (word(), word())).prop_map(|(client, times, limits, up, down)| {
            let (started, length, last_seen) = times;
            let (quota_bytes, quota_used, idle_s, rate_up, rate_down) = limits;
            SavedSession {
                client,
                started: UnixMs(started),
                expires: length.map(|length| UnixMs(started.saturating_add(length).min(NONE - 1))),
                last_seen: last_seen.map(UnixMs),
                quota_bytes,
                quota_used,
                idle_s,
                rate_up,
                rate_down,
                up,
                down,
            }
        })
    }

    fn image() -> impl Strategy<Value = Image> {
        proptest::collection::vec(session(), 0..40).prop_map(|mut sessions| {
            sessions.sort_unstable_by_key(|session| session.client);
            sessions.dedup_by_key(|session| session.client);
            Image { zones: zones(), sessions }
        })
    }

    fn zones() -> Vec<(Zone, String)> {
        [(0, "guest"), (1, "Café"), (2, "")].map(|(zone, name)| (Zone::new(zone), name.to_owned())).to_vec()
    }

    /// So many sessions, over several blocks.
    fn many(count: u32) -> Image {
        let one = |i: u32| {
            let [a, b, c, d] = i.to_be_bytes();
            SavedSession {
                client: ClientKey::new(Zone::FIRST, [2, 0, a, b, c, d]),
                started: UnixMs(1_700_000_000_000 + u64::from(i)),
                expires: (!i.is_multiple_of(3)).then_some(UnixMs(1_700_000_100_000 + u64::from(i))),
                last_seen: None,
                quota_bytes: Some(u64::from(i)),
                quota_used: 7,
                idle_s: Some(60),
                rate_up: None,
                rate_down: Some(10_000_000),
                up: (1, 2),
                down: (3, 4),
            }
        };
        Image { zones: zones(), sessions: (0..count).map(one).collect() }
    }

    #[test]
    fn what_was_written_is_read_whatever_the_number() {
        for count in [0, 1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5] {
            let image = many(count as u32);
            assert_eq!(Image::decode(&image.clone().encode()), Ok(image), "{count} sessions");
        }
    }

    #[test]
    fn whatever_is_wrong_is_named_with_its_remedy() {
        let good = many(BLOCK as u32 + 10).encode();
        let zones_at = HEADER_LEN;
        let blocks_at = good.len() - (BLOCK + 10) * RECORD_LEN - 2 * CHECKSUM_LEN;
        let flip = |at: usize| {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            bytes
        };
        let version = [&good[..8], &[9, 0], &good[10..]].concat();
        let mut exchanged = good[..blocks_at].to_vec();
        let full = BLOCK * RECORD_LEN + CHECKSUM_LEN;
        exchanged.extend(&good[blocks_at + full..]);
        exchanged.extend(&good[blocks_at..blocks_at + full]);
        for (sentence, bytes, words) in [
            ("nothing", vec![], "begins with other bytes"),
            ("something else", b"#!/bin/sh\n".to_vec(), "begins with other bytes"),
            ("line ends changed", [&b"\x89Portal\r"[..], &good[8..]].concat(), "begins with other bytes"),
            ("another version", version, "version 9"),
            ("a header cut off", good[..20].to_vec(), "has 20 bytes"),
            ("a header changed", flip(17), "the header of the image is damaged"),
            ("a zone's name changed", flip(zones_at + 4), "the table of zones of the image is damaged"),
            ("the zones cut off", good[..zones_at + 2].to_vec(), "not written to its end"),
            ("a record changed", flip(blocks_at + 500), "block 1 of the image is damaged"),
            ("a later record changed", flip(blocks_at + full + 300), "block 2 of the image is damaged"),
            ("a checksum changed", flip(good.len() - 1), "block 2 of the image is damaged"),
            ("the end cut off", good[..good.len() - 1].to_vec(), "not written to its end"),
            ("more behind it", [&good[..], &[0]].concat(), "something was added"),
            ("blocks exchanged", exchanged, "block 1 of the image is damaged"),
        ] {
            let error = Image::decode(&bytes).expect_err(sentence).to_string();
            assert!(error.contains(words), "{sentence}: {error}");
            assert!(["delete it", "delete the image", "give the file"].iter().any(|w| error.contains(w)), "{error}");
        }
    }

    /// Whole by its checksums, but wrong: as an error in `encode` would make it.
    #[test]
    fn what_cannot_be_is_refused_though_its_checksum_is_right() {
        let with = |at: usize, bytes: &[u8]| {
            let mut image = many(2).encode();
            let records = image.len() - CHECKSUM_LEN - 2 * RECORD_LEN;
            image[records + at..records + at + bytes.len()].copy_from_slice(bytes);
            image.truncate(image.len() - CHECKSUM_LEN);
            seal(&mut image, records, Part::Block(1));
            image
        };
        for (sentence, bytes, words) in [
            ("a zone without a name", with(0, &[9, 0]), "record 1 of the image is wrong: it is of a zone"),
            ("a zone that cannot be", with(0, &[0xff, 0xff]), "it is of a zone"),
            ("a group's address", with(2, &[1]), "no station's"),
            ("the zero address", with(2, &[0; 6]), "no station's"),
            ("an end before its beginning", with(RECORD_LEN + 16, &[0; 8]), "record 2 of the image is wrong: it ends"),
            ("no beginning", with(8, &[0xff; 8]), "it ends before it begins"),
            ("a rate of zero", with(8 + 5 * 8, &[0; 8]), "its rate is zero"),
            ("bytes behind its end", with(103, &[1]), "last bytes"),
            ("a client twice", with(RECORD_LEN + 2, &[2, 0, 0, 0, 0, 0]), "twice, or out of order"),
            ("clients out of order", with(2, &[4]), "record 2 of the image is wrong: its client is there twice"),
        ] {
            let error = Image::decode(&bytes).expect_err(sentence).to_string();
            assert!(error.contains(words), "{sentence}: {error}");
        }
    }

    proptest! {
        #[test]
        fn every_image_survives(image in image()) {
            prop_assert_eq!(Image::decode(&image.clone().encode()), Ok(image));
        }

        #[test]
        fn any_changed_byte_is_noticed(image in image(), at in any::<prop::sample::Index>(), change in 1..=255u8) {
            let mut bytes = image.encode();
            let at = at.index(bytes.len());
            bytes[at] ^= change;
            prop_assert!(Image::decode(&bytes).is_err());
        }

        #[test]
        fn any_cut_is_noticed(image in image(), at in any::<prop::sample::Index>()) {
            let bytes = image.encode();
            prop_assert!(Image::decode(&bytes[..at.index(bytes.len())]).is_err());
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..400), whole_header: bool) {
            let bytes = if whole_header {
                // Of every number of zones and records, with a checksum that is right.
                let mut image = Image::default().encode()[..HEADER_LEN - CHECKSUM_LEN].to_vec();
                let changed = bytes.len().min(12);
                image[12..12 + changed].copy_from_slice(&bytes[..changed]);
                seal(&mut image, 0, Part::Header);
                [image, bytes].concat()
            } else {
                bytes
            };
            let _ = Image::decode(&bytes);
        }
    }
}
