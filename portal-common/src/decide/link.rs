//! The Ethernet header and its VLAN tags.

use crate::{frame::Frame, protocol as p, reason::Reason};

const ETHERNET_LEN: usize = 14;
/// The VLAN id in a tag's control information; above it are the priority and the drop eligible indicator.
const VLAN_ID: u16 = 0x0fff;

/// What the Ethernet header says.
// Laid out so that whatever the compiler writes at once is aligned, as the BPF stack demands.
#[repr(C, align(8))]
pub(super) struct Link {
    pub(super) source: [u8; 6],
    /// Of what the tags enclose.
    pub(super) ether_type: u16,
    /// Where the network header starts.
    pub(super) end: usize,
    /// VLAN ids, 0 where there is no tag.
    pub(super) outer: u16,
    pub(super) inner: u16,
    /// Why the frame goes nowhere.
    pub(super) fault: Option<Reason>,
}

impl Link {
    /// Of a frame with one tag at most, and without fault.
    #[inline(always)]
    pub(super) const fn plain(source: [u8; 6], ether_type: u16, end: usize, vlan: u16) -> Self {
        Self { source, ether_type, end, outer: vlan, inner: 0, fault: None }
    }

    #[inline(always)]
    pub(super) fn parse<F: Frame + ?Sized>(frame: &F) -> Self {
        let mut link = Self { source: [0; 6], ether_type: 0, end: ETHERNET_LEN, outer: 0, inner: 0, fault: None };
        let Some(h) = frame.read::<ETHERNET_LEN>(0) else {
            link.fault = Some(Reason::FrameTruncated);
            return link;
        };
        link.source = [h[6], h[7], h[8], h[9], h[10], h[11]];
        link.ether_type = u16::from_be_bytes([h[12], h[13]]);
        // IEEE 802.3 section 3.2.3: the group bit has no meaning in a source address.
        if link.source[0] & 1 != 0 || link.source == [0; 6] {
            link.fault = Some(Reason::SourceMac);
        }
        if is_tag(link.ether_type) {
            link.outer = link.skip_tag(frame);
            if is_tag(link.ether_type) {
                link.inner = link.skip_tag(frame);
                if is_tag(link.ether_type) {
                    link.fault = Some(Reason::VlanTags);
                }
                // A priority tag outside of a VLAN's is no VLAN: what counts is the one id there is.
                if link.outer == 0 {
                    link.outer = link.inner;
                    link.inner = 0;
                }
            }
        }
        link
    }

    /// The tag's VLAN id.
    #[inline(always)]
    fn skip_tag<F: Frame + ?Sized>(&mut self, frame: &F) -> u16 {
        let Some(tag) = frame.read::<4>(self.end) else {
            self.fault = Some(Reason::FrameTruncated);
            self.ether_type = 0;
            return 0;
        };
        self.ether_type = u16::from_be_bytes([tag[2], tag[3]]);
        self.end += tag.len();
        u16::from_be_bytes([tag[0], tag[1]]) & VLAN_ID
    }
}

#[inline(always)]
const fn is_tag(ether_type: u16) -> bool {
    ether_type == p::ETHER_VLAN || ether_type == p::ETHER_SERVICE_VLAN
}
