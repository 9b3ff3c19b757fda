//! A frame that the kernel's egress program holds until it has been learned from: the ring's record, and the frame as it goes
//! on the wire.

use std::mem::offset_of;

use portal_common::{
    event::{FrameRecord, RECORDED_BYTES},
    tables::Zone,
};

/// The longest frame that a record holds, without a tag that lies beside it, bytes.
pub const FRAME_MAX: usize = RECORDED_BYTES;
/// The record's head: a [`FrameRecord`] without its bytes, in host byte order.
const HEAD: usize = FrameRecord::HEAD_BYTES;
/// The longest record, bytes.
pub const RECORD_MAX: usize = HEAD + FRAME_MAX;
/// A VLAN tag's length (IEEE 802.1Q clause 9.3), and where it goes: behind the two MAC addresses.
const TAG: usize = 4;
const MAC_ADDRESSES: usize = 12;
const CUSTOMER_TAG: u16 = 0x8100;
const SERVICE_TAG: u16 = 0x88a8;

/// A held frame, put together in memory that is used again for the next.
#[derive(Debug)]
pub struct Held {
    bytes: [u8; FRAME_MAX + TAG],
    length: usize,
    zone: Zone,
    ifindex: u32,
}

impl Default for Held {
    fn default() -> Self {
        Self { bytes: [0; _], length: 0, zone: Zone::FIRST, ifindex: 0 }
    }
}

impl Held {
    /// Takes a record's frame; false if the record holds no whole Ethernet frame.
    pub fn take(&mut self, record: &[u8]) -> bool {
        let Some((head, bytes)) = record.split_first_chunk::<HEAD>() else { return false };
        let half = |at: usize| u16::from_ne_bytes([head[at], head[at + 1]]);
        let word = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let len = word(offset_of!(FrameRecord, len));
        let Some(frame) = bytes.get(..len as usize) else { return false };
        if word(offset_of!(FrameRecord, frame_len)) != len {
            return false;
        }
        if frame.len() < MAC_ADDRESSES + 2 || frame.len() > FRAME_MAX {
            return false;
        }
        self.zone = Zone::new(half(offset_of!(FrameRecord, zone)));
        self.ifindex = word(offset_of!(FrameRecord, ifindex));
        // The kernel keeps the outer tag beside the frame; a raw socket takes it within the frame.
        let tag = match half(offset_of!(FrameRecord, vlan_protocol)) {
            0 => None,
            SERVICE_TAG => Some(SERVICE_TAG),
            _ => Some(CUSTOMER_TAG),
        };
        let (addresses, rest) = frame.split_at(MAC_ADDRESSES);
        self.bytes[..MAC_ADDRESSES].copy_from_slice(addresses);
        let mut at = MAC_ADDRESSES;
        if let Some(tag) = tag {
            self.bytes[at..at + 2].copy_from_slice(&tag.to_be_bytes());
            self.bytes[at + 2..at + TAG].copy_from_slice(&half(offset_of!(FrameRecord, vlan_tci)).to_be_bytes());
            at += TAG;
        }
        self.bytes[at..at + rest.len()].copy_from_slice(rest);
        self.length = at + rest.len();
        true
    }

    /// The zone of the stranger that the frame goes to.
    pub const fn zone(&self) -> Zone {
        self.zone
    }

    /// The interface that it leaves by.
    pub const fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// The frame with its tags, without FCS.
    pub fn frame(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    pub(super) fn frame_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.length]
    }
}

#[cfg(test)]
pub(super) fn record(zone: u16, ifindex: u32, vlan: Option<(u16, u16)>, frame: &[u8]) -> Vec<u8> {
    let (protocol, tci) = vlan.unwrap_or_default();
    let len = (frame.len() as u32).to_ne_bytes();
    let mut record = vec![0; HEAD];
    let mut put = |at: usize, bytes: &[u8]| record[at..at + bytes.len()].copy_from_slice(bytes);
    put(offset_of!(FrameRecord, ifindex), &ifindex.to_ne_bytes());
    put(offset_of!(FrameRecord, frame_len), &len);
    put(offset_of!(FrameRecord, len), &len);
    put(offset_of!(FrameRecord, zone), &zone.to_ne_bytes());
    put(offset_of!(FrameRecord, vlan_tci), &tci.to_ne_bytes());
    put(offset_of!(FrameRecord, vlan_protocol), &protocol.to_ne_bytes());
    record.extend(frame);
    record.resize(RECORD_MAX, 0xee);
    record
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_tag_beside_the_frame_is_put_into_it() {
        let frame: Vec<u8> = (0..60).collect();
        let tagged = |tag: &[u8]| [&frame[..12], tag, &frame[12..]].concat();
        let table = [
            ("none", None, frame.clone()),
            ("a customer's", Some((0x8100, 7)), tagged(&[0x81, 0, 0, 7])),
            ("a customer's with its priority", Some((1, 0xe007)), tagged(&[0x81, 0, 0xe0, 7])),
            ("a provider's", Some((0x88a8, 0x0fff)), tagged(&[0x88, 0xa8, 0x0f, 0xff])),
        ];
        let mut held = Held::default();
        for (sentence, tag, expected) in table {
            assert!(held.take(&record(3, 9, tag, &frame)), "{sentence}");
            assert_eq!((held.frame(), held.zone().number(), held.ifindex()), (&expected[..], 3, 9), "{sentence}");
        }
        assert!(held.take(&record(0, 1, Some((1, 1)), &[7; FRAME_MAX])), "the longest frame");
        assert_eq!(held.frame().len(), FRAME_MAX + TAG);
    }

    #[test]
    fn records_without_a_whole_frame_are_refused() {
        let whole = record(0, 1, None, &[7; 60]);
        let too_long = record(0, 1, None, &[7; FRAME_MAX + 1]);
        let table: [(&str, &[u8]); 5] = [
            ("nothing", &[]),
            ("part of the head", &whole[..HEAD - 1]),
            ("a frame that breaks off", &whole[..HEAD + 59]),
            ("a frame without a type", &record(0, 1, None, &[7; 13])),
            ("a frame too long", &too_long),
        ];
        for (sentence, record) in table {
            assert!(!Held::default().take(record), "{sentence}");
        }
        assert!(Held::default().take(&whole[..HEAD + 60]), "the ring may hold just the frame");
    }

    proptest! {
        #[test]
        fn no_record_panics(record in proptest::collection::vec(any::<u8>(), 0..RECORD_MAX + 10)) {
            Held::default().take(&record);
        }
    }
}
