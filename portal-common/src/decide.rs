//! The decision: from a frame and the tables to a verdict with its reason.
//!
//! It reads top to bottom like the rules: whose frame is it, then layer by layer what a stranger may do. Whatever no rule permits is dropped.

use crate::{
    answer::{Answer, ICMPV4_ANSWER_LEN, ICMPV6_ANSWER_LEN, Kind, TCP_LEN_WITH_MSS},
    checksum::Sum,
    cookie::{self, FourTuple, Phase},
    family::Family,
    frame::Frame,
    protocol::{self as p, TcpFlags, icmpv6},
    reason::Reason,
    tables::{Address, ClientKey, CookieKeys, GateConfig, Service, ServiceKey, Session},
};

/// What the decision looks up. The kernel's implementation reads maps, the host's reads whatever a test puts there.
pub trait Tables {
    /// The gate's configuration.
    fn config(&self) -> Option<GateConfig>;
    /// The client's session, live or expired.
    fn session(&self, client: &ClientKey) -> Option<Session>;
    /// What a destination is, if strangers may reach it.
    fn service(&self, destination: &ServiceKey) -> Option<Service>;
    /// The secrets behind the SYN cookies.
    fn cookie_keys(&self) -> Option<&CookieKeys>;
    /// Now, in nanoseconds of CLOCK_MONOTONIC.
    fn now_ns(&self) -> u64;
}

/// What is to be done with a frame, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Give it to the kernel.
    Pass(Reason),
    /// Write this answer into it and send it back.
    Answer(Reason, Answer),
    /// Give it to the responder.
    Redirect(Reason),
    /// Give it to nobody.
    Drop(Reason),
}

impl Decision {
    /// Why.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Pass(reason) | Self::Answer(reason, _) | Self::Redirect(reason) | Self::Drop(reason) => *reason,
        }
    }
}

use Decision::{Drop, Pass, Redirect};

/// Decides about a frame that a guest sent.
#[inline(always)]
pub fn decide<F: Frame + ?Sized, T: Tables>(frame: &F, tables: &T) -> Decision {
    // Fail closed: an array slot that user space has not filled is all zero.
    let Some(config) = tables.config().filter(GateConfig::is_ready) else {
        return Drop(Reason::ConfigMissing);
    };
    let link = match Link::parse(frame) {
        Ok(link) => link,
        Err(reason) => return Drop(reason),
    };
    if let Some(session) = tables.session(&ClientKey::new(config.zone(), link.source))
        && session.is_live(tables.now_ns())
    {
        return Pass(Reason::Authorized);
    }
    match link.ether_type {
        p::ETHER_IPV4 => ipv4(frame, tables, frame.forget(link.end), &config),
        p::ETHER_IPV6 => ipv6(frame, tables, frame.forget(link.end), &config),
        p::ETHER_ARP => Pass(Reason::Arp),
        p::ETHER_EAPOL => Pass(Reason::Eapol),
        _ => Drop(Reason::EtherType),
    }
}

/// The Ethernet header and its VLAN tags.
struct Link {
    source: [u8; 6],
    /// Of what the tags enclose.
    ether_type: u16,
    /// Where the network header starts.
    end: usize,
}

impl Link {
    #[inline(always)]
    fn parse<F: Frame + ?Sized>(frame: &F) -> Result<Self, Reason> {
        const ETHERNET_LEN: usize = 14;
        const TAG_LEN: usize = 4;
        let h: [u8; ETHERNET_LEN] = frame.read(0).ok_or(Reason::FrameTruncated)?;
        let mut link = Self {
            source: [h[6], h[7], h[8], h[9], h[10], h[11]],
            ether_type: u16::from_be_bytes([h[12], h[13]]),
            end: ETHERNET_LEN,
        };
        // IEEE 802.3 section 3.2.3: the group bit has no meaning in a source address.
        if link.source[0] & 1 != 0 || link.source == [0; 6] {
            return Err(Reason::SourceMac);
        }
        if is_tag(link.ether_type) {
            link.skip_tag(frame.read(link.end).ok_or(Reason::FrameTruncated)?);
            if is_tag(link.ether_type) {
                link.skip_tag(frame.read(link.end).ok_or(Reason::FrameTruncated)?);
                if is_tag(link.ether_type) {
                    return Err(Reason::VlanTags);
                }
            }
        }
        debug_assert!(link.end <= ETHERNET_LEN + 2 * TAG_LEN);
        Ok(link)
    }

    #[inline(always)]
    fn skip_tag(&mut self, tag: [u8; 4]) {
        self.ether_type = u16::from_be_bytes([tag[2], tag[3]]);
        self.end += tag.len();
    }
}

#[inline(always)]
const fn is_tag(ether_type: u16) -> bool {
    ether_type == p::ETHER_VLAN || ether_type == p::ETHER_SERVICE_VLAN
}

/// What the transport rules need to know of the network header.
struct Network {
    family: Family,
    /// Where the network header starts.
    at: usize,
    /// How many bytes follow the network header, by its own account.
    payload_len: usize,
    source: Address,
    destination: Address,
}

impl Network {
    #[inline(always)]
    const fn payload_at(&self) -> usize {
        self.at + self.family.header_len()
    }
}

#[inline(always)]
fn ipv4<F: Frame + ?Sized, T: Tables>(frame: &F, tables: &T, at: usize, config: &GateConfig) -> Decision {
    const LEN: usize = Family::V4.header_len();
    let Some(h) = frame.read::<LEN>(at) else {
        return Drop(Reason::FrameTruncated);
    };
    let total_len = usize::from(u16::from_be_bytes([h[2], h[3]]));
    let header_len = usize::from(h[0] & 0x0f) * 4;
    // The header's own checksum is always complete, unlike TCP's and UDP's, which a local sender leaves to the NIC.
    if h[0] >> 4 != 4 || header_len < LEN || total_len < header_len || at + total_len > frame.len() {
        return Drop(Reason::Ipv4Malformed);
    }
    if header_len != LEN {
        return Drop(Reason::Ipv4Options);
    }
    if Sum::new().array(&h).checksum() != 0 {
        return Drop(Reason::Ipv4Malformed);
    }
    // More fragments follow, or this is not the first (RFC 791 section 3.1).
    if u16::from_be_bytes([h[6], h[7]]) & 0x3fff != 0 {
        return Drop(Reason::Fragment);
    }
    let source = [h[12], h[13], h[14], h[15]];
    let destination = [h[16], h[17], h[18], h[19]];
    let network = Network {
        family: Family::V4,
        at,
        payload_len: total_len - LEN,
        source: Address::v4(source),
        destination: Address::v4(destination),
    };
    match h[9] {
        p::TCP => tcp(frame, tables, &network, config),
        p::UDP => udp(frame, tables, &network, config),
        p::ICMP => Drop(Reason::Icmp),
        _ => Drop(Reason::Protocol),
    }
}

#[inline(always)]
fn ipv6<F: Frame + ?Sized, T: Tables>(frame: &F, tables: &T, at: usize, config: &GateConfig) -> Decision {
    const LEN: usize = Family::V6.header_len();
    let Some(h) = frame.read::<LEN>(at) else {
        return Drop(Reason::FrameTruncated);
    };
    let payload_len = usize::from(u16::from_be_bytes([h[4], h[5]]));
    if h[0] >> 4 != 6 || at + LEN + payload_len > frame.len() {
        return Drop(Reason::Ipv6Malformed);
    }
    let (_, addresses) = h.split_at(8);
    let (mut source, mut destination) = ([0; 16], [0; 16]);
    source.copy_from_slice(&addresses[..16]);
    destination.copy_from_slice(&addresses[16..]);
    let network = Network {
        family: Family::V6,
        at,
        payload_len,
        source: Address::v6(source),
        destination: Address::v6(destination),
    };
    let hop_limit = h[7];
    match h[6] {
        p::TCP => tcp(frame, tables, &network, config),
        p::UDP => udp(frame, tables, &network, config),
        p::ICMPV6 => icmpv6_message(frame, tables, &network, hop_limit),
        p::HOP_BY_HOP => hop_by_hop(frame, &network, hop_limit),
        p::FRAGMENT => Drop(Reason::Fragment),
        p::ROUTING | p::DESTINATION_OPTIONS | p::AUTHENTICATION | p::ESP | p::MOBILITY | p::HIP | p::SHIM6 => {
            Drop(Reason::Ipv6Extension)
        }
        _ => Drop(Reason::Protocol),
    }
}

/// RFC 4861 sections 6.1 and 7.1: a message that crossed a router has lost a hop, and is not from this link. Nor may one leave the link:
/// only a hop limit would stop it.
#[inline(always)]
fn icmpv6_message<F: Frame + ?Sized, T: Tables>(frame: &F, tables: &T, network: &Network, hop_limit: u8) -> Decision {
    const ON_LINK_HOP_LIMIT: u8 = 255;
    const SOLICITATION_LEN: usize = 8;
    const NEIGHBOR_LEN: usize = 24;
    let Some([kind, code]) = frame.read::<2>(network.payload_at()).filter(|_| network.payload_len >= 2) else {
        return Drop(Reason::Ipv6Malformed);
    };
    let least = match kind {
        icmpv6::ROUTER_SOLICITATION => SOLICITATION_LEN,
        icmpv6::NEIGHBOR_SOLICITATION | icmpv6::NEIGHBOR_ADVERTISEMENT => NEIGHBOR_LEN,
        icmpv6::ROUTER_ADVERTISEMENT | icmpv6::REDIRECT => return Drop(Reason::RouterAdvertisement),
        _ => return Drop(Reason::Icmp),
    };
    if hop_limit == ON_LINK_HOP_LIMIT && code == 0 && network.payload_len >= least && stays_on_link(tables, network) {
        Pass(Reason::NeighborDiscovery)
    } else {
        Drop(Reason::Icmp)
    }
}

/// Whether nobody beyond the gateway can be reached so: link-local (RFC 4291 sections 2.5.6 and 2.7, RFC 919), or the gateway itself.
/// What passes on trust must not become a tunnel.
#[inline(always)]
fn stays_on_link<T: Tables>(tables: &T, network: &Network) -> bool {
    let [high, low] = network.destination.words();
    let link_local = match network.family {
        Family::V4 => low as u32 == u32::MAX,
        Family::V6 => high >> 48 == 0xff02 || high >> 54 == 0xfe80 >> 6,
    };
    link_local || tables.service(&ServiceKey::of_gateway(network.destination)) == Some(Service::Gateway)
}

/// The one extension header that a stranger needs: the router alert in front of a multicast listener report (RFC 3810 section 5, RFC 2711).
#[inline(always)]
fn hop_by_hop<F: Frame + ?Sized>(frame: &F, network: &Network, hop_limit: u8) -> Decision {
    const MIN_LEN: usize = 8;
    let Some([next, units, _, _, _, _, _, _, kind]) =
        frame.read::<{ MIN_LEN + 1 }>(network.payload_at()).filter(|_| network.payload_len > MIN_LEN)
    else {
        return Drop(Reason::Ipv6Malformed);
    };
    let to_group = network.destination.words()[0] >> 56 == 0xff;
    let is_report = matches!(kind, icmpv6::LISTENER_REPORT_V1 | icmpv6::LISTENER_DONE | icmpv6::LISTENER_REPORT_V2);
    if next == p::ICMPV6 && units == 0 && is_report && to_group && hop_limit == 1 {
        Pass(Reason::MulticastListener)
    } else {
        Drop(Reason::Ipv6Extension)
    }
}

#[inline(always)]
fn udp<F: Frame + ?Sized, T: Tables>(frame: &F, tables: &T, network: &Network, config: &GateConfig) -> Decision {
    const LEN: usize = 8;
    let Some(h) = frame.read::<LEN>(network.payload_at()).filter(|_| network.payload_len >= LEN) else {
        return Drop(Reason::UdpMalformed);
    };
    let source_port = u16::from_be_bytes([h[0], h[1]]);
    let destination_port = u16::from_be_bytes([h[2], h[3]]);
    let udp_len = usize::from(u16::from_be_bytes([h[4], h[5]]));
    if udp_len < LEN || udp_len > network.payload_len {
        return Drop(Reason::UdpMalformed);
    }
    // DHCP comes before the addresses are judged: a client without an address sends from 0.0.0.0 to everybody.
    let (dhcp_client, dhcp_server) = match network.family {
        Family::V4 => (p::PORT_DHCP_CLIENT, p::PORT_DHCP_SERVER),
        Family::V6 => (p::PORT_DHCPV6_CLIENT, p::PORT_DHCPV6_SERVER),
    };
    if source_port == dhcp_client && destination_port == dhcp_server && stays_on_link(tables, network) {
        return Pass(Reason::Dhcp);
    }
    if source_port == dhcp_server {
        return Drop(Reason::DhcpServer);
    }
    if let Err(reason) = check_addresses(network) {
        return Drop(reason);
    }
    if let Some(permitted) = permitted(tables, network, p::UDP, destination_port) {
        return Pass(permitted);
    }
    if !is_for(config, frame) {
        return Drop(Reason::DestinationMac);
    }
    let answer_len = match network.family {
        Family::V4 => ICMPV4_ANSWER_LEN,
        Family::V6 => ICMPV6_ANSWER_LEN,
    };
    if network.family.header_len() + network.payload_len < answer_len {
        return Drop(Reason::AnswerTooLarge);
    }
    let (reason, kind) = if destination_port == p::PORT_HTTPS {
        (Reason::QuicRefused, Kind::PortUnreachable)
    } else {
        (Reason::UdpRefused, Kind::Prohibited)
    };
    answer(reason, network, (kind, 0, 0))
}

#[inline(always)]
fn tcp<F: Frame + ?Sized, T: Tables>(frame: &F, tables: &T, network: &Network, config: &GateConfig) -> Decision {
    const LEN: usize = 20;
    let Some(h) = frame.read::<LEN>(network.payload_at()).filter(|_| network.payload_len >= LEN) else {
        return Drop(Reason::TcpMalformed);
    };
    let header_len = usize::from(h[12] >> 4) * 4;
    let flags = TcpFlags(h[13]);
    // A SYN opens a connection and a FIN closes one: no segment does both.
    if header_len < LEN || header_len > network.payload_len || (flags.has(TcpFlags::SYN) && flags.has(TcpFlags::FIN)) {
        return Drop(Reason::TcpMalformed);
    }
    if let Err(reason) = check_addresses(network) {
        return Drop(reason);
    }
    let segment = Segment {
        source_port: u16::from_be_bytes([h[0], h[1]]),
        destination_port: u16::from_be_bytes([h[2], h[3]]),
        seq: u32::from_be_bytes([h[4], h[5], h[6], h[7]]),
        ack: u32::from_be_bytes([h[8], h[9], h[10], h[11]]),
        flags,
        header_len,
        data_len: network.payload_len - header_len,
    };
    if let Some(permitted) = permitted(tables, network, p::TCP, segment.destination_port) {
        return Pass(permitted);
    }
    if flags.has(TcpFlags::RST) {
        return Drop(Reason::TcpReset);
    }
    if !is_for(config, frame) {
        return Drop(Reason::DestinationMac);
    }
    if segment.destination_port == p::PORT_HTTP {
        http(tables, network, &segment)
    } else {
        answer(Reason::TcpRefused, network, segment.reset())
    }
}

/// The stateless exchange with a stranger on TCP/80.
#[inline(always)]
fn http<T: Tables>(tables: &T, network: &Network, segment: &Segment) -> Decision {
    let Some(keys) = tables.cookie_keys() else {
        return Drop(Reason::ConfigMissing);
    };
    let tuple = FourTuple {
        source: network.source,
        destination: network.destination,
        source_port: segment.source_port,
        destination_port: segment.destination_port,
    };
    if !segment.flags.has(TcpFlags::ACK) {
        if segment.flags.has(TcpFlags::SYN) {
            let isn = cookie::isn(keys, &tuple, segment.seq, tables.now_ns());
            return answer(Reason::HttpHandshake, network, segment.syn_ack(isn));
        }
        return answer(Reason::HttpForeign, network, segment.reset());
    }
    let phase = if segment.flags.has(TcpFlags::SYN) {
        None
    } else {
        cookie::phase(keys, &tuple, segment.seq, segment.ack, tables.now_ns())
    };
    let fin = segment.flags.has(TcpFlags::FIN);
    match phase {
        None => answer(Reason::HttpForeign, network, segment.reset()),
        // A FIN without data too: whether the answer to a request is on its way before it, only the responder knows.
        Some(Phase::Request { .. }) if segment.data_len > 0 || fin => Redirect(Reason::HttpRequest),
        Some(Phase::Answered) if segment.data_len > 0 || fin => {
            answer(Reason::HttpAcknowledged, network, segment.acknowledgement())
        }
        Some(Phase::Request { .. } | Phase::Answered) => Drop(Reason::HttpAckOnly),
    }
}

/// A TCP segment's header.
struct Segment {
    source_port: u16,
    destination_port: u16,
    seq: u32,
    ack: u32,
    flags: TcpFlags,
    header_len: usize,
    data_len: usize,
}

impl Segment {
    /// The sequence number after this segment: SYN and FIN take one each (RFC 9293 section 3.4).
    #[inline(always)]
    const fn end(&self) -> u32 {
        self.seq
            .wrapping_add(self.data_len as u32)
            .wrapping_add(self.flags.has(TcpFlags::SYN) as u32)
            .wrapping_add(self.flags.has(TcpFlags::FIN) as u32)
    }

    #[inline(always)]
    const fn syn_ack(&self, isn: u32) -> TcpAnswer {
        // An answer is never larger than what it answers: a SYN without options gets none.
        let kind = if self.header_len >= TCP_LEN_WITH_MSS { Kind::SynAckWithMss } else { Kind::SynAck };
        // Data on a SYN is not kept (RFC 9293 section 3.4 allows it): the client sends it again.
        (kind, isn, self.seq.wrapping_add(1))
    }

    #[inline(always)]
    const fn acknowledgement(&self) -> TcpAnswer {
        (Kind::Ack, self.ack, self.end())
    }

    /// RFC 9293 section 3.5.2, group 1.
    #[inline(always)]
    const fn reset(&self) -> TcpAnswer {
        if self.flags.has(TcpFlags::ACK) { (Kind::Reset, self.ack, 0) } else { (Kind::ResetAck, 0, self.end()) }
    }
}

/// What to answer, with which sequence and acknowledgement numbers.
type TcpAnswer = (Kind, u32, u32);

/// Judged only where it matters: a flag that is carried along would double what the kernel has to verify.
#[inline(always)]
fn check_addresses(network: &Network) -> Result<(), Reason> {
    let (source, destination) = (network.source.words(), network.destination.words());
    if !is_unicast(network.family, source) || source == destination {
        Err(Reason::SourceAddress)
    } else if !is_unicast(network.family, destination) {
        Err(Reason::DestinationAddress)
    } else {
        Ok(())
    }
}

#[inline(always)]
const fn is_unicast(family: Family, [high, low]: [u64; 2]) -> bool {
    match family {
        // Neither "this network", loopback, multicast, reserved nor broadcast (RFC 1122 section 3.2.1.3, RFC 1112).
        Family::V4 => {
            let first = (low >> 24) as u8;
            first != 0 && first != 127 && first < 224
        }
        // Neither multicast, nor ::/96, which holds the unspecified, loopback and IPv4-compatible addresses (RFC 4291 section 2.5.5.1),
        // nor mapped: on the wire that would meet the IPv4 entries of the tables.
        Family::V6 => high >> 56 != 0xff && !(high == 0 && (low >> 32 == 0 || low >> 32 == 0xffff)),
    }
}

/// Whether the frame is addressed to the gateway, so that the gate may answer it.
#[inline(always)]
fn is_for<F: Frame + ?Sized>(config: &GateConfig, frame: &F) -> bool {
    frame.read::<6>(0) == Some(config.gateway_mac())
}

#[inline(always)]
fn permitted<T: Tables>(tables: &T, network: &Network, protocol: u8, port: u16) -> Option<Reason> {
    match tables.service(&ServiceKey::new(network.destination, protocol, port))? {
        Service::Resolver => Some(Reason::Dns),
        Service::Portal => Some(Reason::PortalService),
        // Under its own key alone.
        Service::Gateway => None,
    }
}

#[inline(always)]
const fn answer(reason: Reason, network: &Network, (kind, seq, ack): TcpAnswer) -> Decision {
    Decision::Answer(reason, Answer { kind, family: network.family, network_at: network.at, seq, ack })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::Zone;

    /// Everybody is logged in, and everything is a service: what still is dropped is dropped for the configuration.
    struct Open(Option<GateConfig>);

    impl Tables for Open {
        fn config(&self) -> Option<GateConfig> {
            self.0
        }
        fn session(&self, _: &ClientKey) -> Option<Session> {
            Some(Session::new(0, Session::NEVER))
        }
        fn service(&self, _: &ServiceKey) -> Option<Service> {
            Some(Service::Portal)
        }
        fn cookie_keys(&self) -> Option<&CookieKeys> {
            None
        }
        fn now_ns(&self) -> u64 {
            1
        }
    }

    #[test]
    fn nothing_passes_a_gate_without_configuration() {
        let mut frame = [0u8; 60];
        frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 1, 1, 8, 6]);
        let unreadable = Open(None);
        let unfilled = Open(Some(GateConfig::UNFILLED));
        let filled = Open(Some(GateConfig::new(Zone::FIRST, [2, 0, 0, 0, 0, 1])));
        assert_eq!(decide(&frame[..], &unreadable), Drop(Reason::ConfigMissing));
        assert_eq!(decide(&frame[..], &unfilled), Drop(Reason::ConfigMissing));
        assert_eq!(decide(&frame[..], &filled), Pass(Reason::Authorized));
    }
}
