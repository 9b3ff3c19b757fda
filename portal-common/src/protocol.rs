//! Protocol numbers that the decision compares with, and that no crate names as plain integers.

use network_types::{eth::EtherType, ip::IpProto};

// `EtherType` holds its values in network order.
const fn ether_type(e: EtherType) -> u16 {
    u16::from_be(e as u16)
}

pub(crate) const ETHER_IPV4: u16 = ether_type(EtherType::Ipv4);
pub(crate) const ETHER_IPV6: u16 = ether_type(EtherType::Ipv6);
pub(crate) const ETHER_ARP: u16 = ether_type(EtherType::Arp);
pub(crate) const ETHER_VLAN: u16 = ether_type(EtherType::Ieee8021q);
pub(crate) const ETHER_SERVICE_VLAN: u16 = ether_type(EtherType::Ieee8021ad);
/// IEEE 802.1X-2020 section 11.1.4.
pub(crate) const ETHER_EAPOL: u16 = 0x888e;

pub(crate) const ICMP: u8 = IpProto::Icmp as u8;
pub(crate) const IGMP: u8 = IpProto::Igmp as u8;
pub(crate) const TCP: u8 = IpProto::Tcp as u8;
pub(crate) const UDP: u8 = IpProto::Udp as u8;
pub(crate) const ICMPV6: u8 = IpProto::Ipv6Icmp as u8;
pub(crate) const HOP_BY_HOP: u8 = IpProto::HopOpt as u8;
pub(crate) const ROUTING: u8 = IpProto::Ipv6Route as u8;
pub(crate) const FRAGMENT: u8 = IpProto::Ipv6Frag as u8;
pub(crate) const ESP: u8 = IpProto::Esp as u8;
pub(crate) const AUTHENTICATION: u8 = IpProto::Ah as u8;
pub(crate) const DESTINATION_OPTIONS: u8 = IpProto::Ipv6Opts as u8;
pub(crate) const MOBILITY: u8 = IpProto::MobilityHeader as u8;
pub(crate) const HIP: u8 = IpProto::Hip as u8;
pub(crate) const IPV4: u8 = IpProto::Ipv4 as u8;
pub(crate) const IPV6: u8 = IpProto::Ipv6 as u8;
pub(crate) const GRE: u8 = IpProto::Gre as u8;
pub(crate) const ETHERIP: u8 = IpProto::Etherip as u8;
pub(crate) const L2TP: u8 = IpProto::L2tp as u8;
pub(crate) const SHIM6: u8 = IpProto::Shim6 as u8;

pub(crate) const PORT_DNS: u16 = 53;
pub(crate) const PORT_HTTP: u16 = 80;
pub(crate) const PORT_HTTPS: u16 = 443;
pub(crate) const PORT_DHCP_SERVER: u16 = 67;
pub(crate) const PORT_DHCP_CLIENT: u16 = 68;
pub(crate) const PORT_DHCPV6_CLIENT: u16 = 546;
pub(crate) const PORT_DHCPV6_SERVER: u16 = 547;

/// ICMP types: RFC 792.
pub(crate) mod icmp {
    pub(crate) const ECHO_REPLY: u8 = 0;
    pub(crate) const DESTINATION_UNREACHABLE: u8 = 3;
    pub(crate) const ECHO_REQUEST: u8 = 8;
    pub(crate) const TIME_EXCEEDED: u8 = 11;
    pub(crate) const PARAMETER_PROBLEM: u8 = 12;

    /// What no guest may send, as [`crate::frame::Frame::byte`] gives it: RFC 792, RFC 1256.
    pub(crate) const REDIRECT_BYTE: u16 = 5;
    pub(crate) const ROUTER_ADVERTISEMENT_BYTE: u16 = 9;
}

/// ICMPv6 types: RFC 4443 section 2.1, RFC 4861 section 4, RFC 2710 section 3, RFC 3810 section 5.2.
pub(crate) mod icmpv6 {
    pub(crate) const DESTINATION_UNREACHABLE: u8 = 1;
    pub(crate) const PACKET_TOO_BIG: u8 = 2;
    pub(crate) const TIME_EXCEEDED: u8 = 3;
    pub(crate) const PARAMETER_PROBLEM: u8 = 4;
    pub(crate) const ECHO_REQUEST: u8 = 128;
    pub(crate) const ECHO_REPLY: u8 = 129;
    pub(crate) const LISTENER_QUERY: u8 = 130;
    pub(crate) const LISTENER_REPORT_V1: u8 = 131;
    pub(crate) const LISTENER_DONE: u8 = 132;
    pub(crate) const ROUTER_SOLICITATION: u8 = 133;
    pub(crate) const ROUTER_ADVERTISEMENT: u8 = 134;
    pub(crate) const NEIGHBOR_SOLICITATION: u8 = 135;
    pub(crate) const NEIGHBOR_ADVERTISEMENT: u8 = 136;
    pub(crate) const REDIRECT: u8 = 137;
    pub(crate) const LISTENER_REPORT_V2: u8 = 143;

    /// As [`crate::frame::Frame::byte`] gives them.
    pub(crate) const ROUTER_SOLICITATION_BYTE: u16 = ROUTER_SOLICITATION as u16;
    pub(crate) const ROUTER_ADVERTISEMENT_BYTE: u16 = ROUTER_ADVERTISEMENT as u16;
    pub(crate) const NEIGHBOR_SOLICITATION_BYTE: u16 = NEIGHBOR_SOLICITATION as u16;
    pub(crate) const NEIGHBOR_ADVERTISEMENT_BYTE: u16 = NEIGHBOR_ADVERTISEMENT as u16;
    pub(crate) const REDIRECT_BYTE: u16 = REDIRECT as u16;
}

/// Whether an IPv6 header of this number stands between the IPv6 header and what the packet carries (RFC 8200 section 4, IANA's list of extension headers).
#[inline(always)]
pub(crate) const fn extends_v6(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS | AUTHENTICATION | MOBILITY | HIP | SHIM6)
}

/// A header's flags: some of [`crate::flag`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TcpFlags(pub(crate) u8);

impl TcpFlags {
    #[inline(always)]
    pub(crate) const fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }
}
