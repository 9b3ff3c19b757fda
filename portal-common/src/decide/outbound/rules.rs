//! What may be sent to a station that has no session, or to all of them, rule by rule. Whatever no rule permits is dropped.
//!
//! In three steps, as the BPF stack has no room for all at once: [`consider`] reads the frame, [`inquire`] asks the tables about what was read, and
//! [`check_asked`](super::super::check_asked) whether it was asked for.

use super::{
    super::{
        Action, Case, Decision, Tables,
        network::{Kind, Network},
        questions::{self, Topic},
        quoted::{self, Quoted},
        stranger::permitted,
    },
    Passage, is_gateways, is_ip,
};
use crate::{
    family::Family,
    frame::Frame,
    protocol::{self as p, icmp, icmpv6},
    reason::Reason,
    tables::{ClientKey, GateConfig},
};

/// Everything that the rules are asked with.
struct Asker<'a, F: ?Sized, T> {
    frame: &'a F,
    tables: &'a T,
    config: &'a GateConfig,
    passage: Passage,
    client: ClientKey,
    network: &'a Network,
    inquiry: &'a mut Inquiry,
}

/// What is to be asked of the tables: whether this server may be heard of, and if only about what was asked, whether it was.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Inquiry {
    /// The IP protocol number; 0 where nothing is to be asked.
    protocol: u8,
    /// Where its header starts.
    pub(in super::super) at: u8,
    /// What the station has sent, and an error quotes; else what it is sent.
    pub(in super::super) is_quoted: bool,
    server_port: u16,
    pub(in super::super) client_port: u16,
    pub(in super::super) server: [u64; 2],
}

impl Inquiry {
    pub(in super::super) const NONE: Self =
        Self { protocol: 0, at: 0, is_quoted: false, server_port: 0, client_port: 0, server: [0; 2] };
}

/// What the rules say, before the tables and the station's budget are asked; whether the tables must be.
#[inline(always)]
pub fn consider<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    config: &GateConfig,
    passage: Passage,
    case: &mut Case,
) -> bool {
    let Case { network, inquiry, client, decision, .. } = case;
    network.parse(frame, passage.ether_type, frame.forget(passage.at.into()));
    inquiry.protocol = 0;
    if let Some(fault) = network.fault {
        *decision = Decision::drop(fault);
        return false;
    }
    let kind = network.kind;
    let mut asker = Asker { frame, tables, config, passage, client: *client, network, inquiry };
    let said = match kind {
        Kind::Arp => Ok(Reason::Arp),
        Kind::Eapol => Ok(Reason::Eapol),
        // Spanning tree, link aggregation, discovery: the gateway's own, and never forwarded by a router.
        Kind::Length | Kind::Other if passage.to_group && !passage.forwarded => Ok(Reason::LinkGroup),
        Kind::Length | Kind::Other => Err(Reason::ToStranger),
        Kind::V4 | Kind::V6 if passage.forwarded && asker.is_from_gateway() => Err(Reason::GatewayForged),
        Kind::V4 => asker.ipv4(),
        Kind::V6 => asker.ipv6(),
    };
    *decision = match said {
        Ok(reason) => Decision::pass(reason),
        Err(Reason::ToStranger) if passage.to_group => Decision::drop(Reason::ToGroup),
        Err(reason) => Decision::drop(reason),
    };
    inquiry.protocol != 0
}

/// Asks the tables what [`consider`] has left open, where it has dropped the frame for the time being. What it says passes only if it was asked for.
#[inline(always)]
pub fn inquire<T: Tables>(tables: &T, config: &GateConfig, passage: Passage, case: &mut Case) -> Option<Topic> {
    let Inquiry { protocol, is_quoted, server_port, server, .. } = case.inquiry;
    let reason = permitted(tables, config, case.client.zone(), server, protocol, server_port)?;
    // What the daemon sends on was asked when it was held; and of its own errors the gateway knows best.
    let trusted = if is_quoted { !passage.forwarded } else { passage.relayed };
    let topic = if trusted { None } else { questions::topic(reason) };
    let reason = if is_quoted { Reason::IcmpRelated } else { reason };
    case.decision = Decision::pass(reason);
    // Names of the walled garden are learned from what is held; once the daemon has, it sends it on.
    if matches!(reason, Reason::Dns) && config.has_names() && !passage.relayed {
        case.decision.action = Action::Redirect;
    }
    topic
}

impl<F: Frame + ?Sized, T: Tables> Asker<'_, F, T> {
    #[inline(always)]
    fn is_from_gateway(&self) -> bool {
        is_ip(self.network.kind) && is_gateways(self.tables, self.config, self.client, self.network.source())
    }

    #[inline(always)]
    fn ipv4(&mut self) -> Result<Reason, Reason> {
        let network = self.network;
        // More fragments follow, or this is not the first (RFC 791 section 3.1).
        if network.fragment & 0x3fff != 0 {
            return Err(Reason::ToStranger);
        }
        if network.protocol == p::IGMP {
            return self.igmp();
        }
        if network.header_len() != Family::V4.header_len() {
            return Err(Reason::ToStranger);
        }
        self.packet()
    }

    #[inline(always)]
    fn ipv6(&mut self) -> Result<Reason, Reason> {
        if self.network.protocol == p::HOP_BY_HOP { self.listener_query() } else { self.packet() }
    }

    #[inline(always)]
    fn packet(&mut self) -> Result<Reason, Reason> {
        let network = self.network;
        let is_v6 = matches!(network.kind, Kind::V6);
        if network.protocol == p::UDP {
            return self.udp();
        }
        if is_v6 && network.protocol == p::ICMPV6 {
            return self.icmpv6();
        }
        if self.passage.to_group {
            return self.of_the_link();
        }
        match network.protocol {
            p::TCP => self.tcp(),
            p::ICMP if !is_v6 => self.icmp(),
            _ => Err(Reason::ToStranger),
        }
    }

    /// The gateway's own, to a group within the link: multicast DNS, listener reports, router redundancy. Nobody beyond can have it sent.
    #[inline(always)]
    fn of_the_link(&self) -> Result<Reason, Reason> {
        let [high, low] = self.network.destination();
        let within = match self.network.family() {
            Family::V4 => low as u32 >> 8 == 0x00e0_0000,
            Family::V6 => high >> 48 == 0xff02,
        };
        if within && !self.passage.forwarded { Ok(Reason::LinkGroup) } else { Err(Reason::ToStranger) }
    }

    /// A membership query (RFC 3376 section 4.1): to a group within the link, which it does not leave.
    #[inline(always)]
    fn igmp(&self) -> Result<Reason, Reason> {
        const QUERY: u16 = 0x11;
        let network = self.network;
        let kind = self.frame.byte(network.at() + network.header_len());
        let to_group = network.destination()[1] as u32 >> 28 == 0xe;
        if kind == QUERY && network.hop_limit == 1 && to_group {
            return Ok(Reason::MulticastListener);
        }
        if self.passage.to_group { self.of_the_link() } else { Err(Reason::ToStranger) }
    }

    /// A multicast listener query, behind a router alert (RFC 2710 section 3, RFC 3810 section 5.1), from the link.
    #[inline(always)]
    fn listener_query(&self) -> Result<Reason, Reason> {
        const MIN_LEN: usize = 8;
        let network = self.network;
        let Some([next, units, _, _, _, _, _, _, kind]) = self.frame.read::<{ MIN_LEN + 1 }>(network.payload_at())
        else {
            return Err(Reason::ToStranger);
        };
        let from_link = network.source()[0] >> 54 == 0xfe80 >> 6;
        if next == p::ICMPV6 && units == 0 && kind == icmpv6::LISTENER_QUERY && network.hop_limit == 1 && from_link {
            return Ok(Reason::MulticastListener);
        }
        if self.passage.to_group { self.of_the_link() } else { Err(Reason::ToStranger) }
    }

    #[inline(always)]
    fn udp(&mut self) -> Result<Reason, Reason> {
        const LEN: usize = 8;
        let network = self.network;
        let at = network.payload_at();
        let Some(h) = self.frame.read::<LEN>(at).filter(|_| network.payload_len() >= LEN) else {
            return Err(Reason::ToStranger);
        };
        let source_port = u16::from_be_bytes([h[0], h[1]]);
        let destination_port = u16::from_be_bytes([h[2], h[3]]);
        if self.is_dhcp(source_port, destination_port) {
            return Ok(Reason::Dhcp);
        }
        if self.passage.to_group {
            return self.of_the_link();
        }
        self.ask_about(p::UDP, (source_port, destination_port), at);
        Err(Reason::ToStranger)
    }

    /// What the sender of this packet is, the tables know.
    #[inline(always)]
    fn ask_about(&mut self, protocol: u8, (server_port, client_port): (u16, u16), at: usize) {
        let server = self.network.source();
        *self.inquiry = Inquiry { protocol, at: at as u8, is_quoted: false, server_port, client_port, server };
    }

    /// Whether it is a DHCP server's, and did not cross a router: the gateway's own, or with addresses that stay on the link.
    #[inline(always)]
    fn is_dhcp(&self, source_port: u16, destination_port: u16) -> bool {
        let network = self.network;
        let (ports, on_link) = match network.family() {
            Family::V4 => ((p::PORT_DHCP_SERVER, p::PORT_DHCP_CLIENT), network.destination()[1] as u32 == u32::MAX),
            Family::V6 => ((p::PORT_DHCPV6_SERVER, p::PORT_DHCPV6_CLIENT), network.source()[0] >> 54 == 0xfe80 >> 6),
        };
        (source_port, destination_port) == ports && (on_link || !self.passage.forwarded)
    }

    #[inline(always)]
    fn tcp(&mut self) -> Result<Reason, Reason> {
        const LEN: usize = 20;
        let network = self.network;
        let at = network.payload_at();
        let Some([s0, s1, d0, d1]) = self.frame.read::<4>(at).filter(|_| network.payload_len() >= LEN) else {
            return Err(Reason::ToStranger);
        };
        self.ask_about(p::TCP, (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])), at);
        Err(Reason::ToStranger)
    }

    #[inline(always)]
    fn icmp(&mut self) -> Result<Reason, Reason> {
        const ERROR_LEN: usize = 8;
        let network = self.network;
        let at = network.payload_at();
        let Some([kind, _]) = self.frame.read::<2>(at) else { return Err(Reason::ToStranger) };
        match kind {
            icmp::ECHO_REQUEST | icmp::ECHO_REPLY => self.echo(),
            icmp::DESTINATION_UNREACHABLE | icmp::TIME_EXCEEDED | icmp::PARAMETER_PROBLEM => {
                self.related(quoted::v4(self.frame, at + ERROR_LEN))
            }
            _ => Err(Reason::ToStranger),
        }
    }

    /// RFC 4861 sections 6.1, 7.1 and 8.1: what has lost a hop is not from this link.
    #[inline(always)]
    fn icmpv6(&mut self) -> Result<Reason, Reason> {
        const ON_LINK_HOP_LIMIT: u8 = 255;
        const ERROR_LEN: usize = 8;
        let network = self.network;
        let at = network.payload_at();
        let Some([kind, code]) = self.frame.read::<2>(at) else { return Err(Reason::ToStranger) };
        let discovery = matches!(
            kind,
            icmpv6::ROUTER_ADVERTISEMENT
                | icmpv6::NEIGHBOR_SOLICITATION
                | icmpv6::NEIGHBOR_ADVERTISEMENT
                | icmpv6::REDIRECT
        );
        if discovery && code == 0 && network.hop_limit == ON_LINK_HOP_LIMIT {
            return Ok(Reason::NeighborDiscovery);
        }
        if self.passage.to_group {
            return self.of_the_link();
        }
        match kind {
            icmpv6::ECHO_REQUEST | icmpv6::ECHO_REPLY => self.echo(),
            icmpv6::DESTINATION_UNREACHABLE
            | icmpv6::PACKET_TOO_BIG
            | icmpv6::TIME_EXCEEDED
            | icmpv6::PARAMETER_PROBLEM => self.related(quoted::v6(self.frame, at + ERROR_LEN)),
            _ => Err(Reason::ToStranger),
        }
    }

    #[inline(always)]
    fn echo(&self) -> Result<Reason, Reason> {
        // Forwarded ones from the gateway's address are gone by now.
        if self.is_from_gateway() { Ok(Reason::GatewayEcho) } else { Err(Reason::ToStranger) }
    }

    /// An error about what this station has sent, if it may have been sent: to a destination that is permitted; and where only what was asked is answered,
    /// an outstanding question.
    #[inline(always)]
    fn related(&mut self, quoted: Option<Quoted>) -> Result<Reason, Reason> {
        let Some(quoted) = quoted else { return Err(Reason::IcmpUnrelated) };
        if quoted.source != self.network.destination() || !matches!(quoted.protocol, p::TCP | p::UDP) {
            return Err(Reason::IcmpUnrelated);
        }
        let Some([s0, s1, d0, d1]) = self.frame.read::<4>(quoted.at) else { return Err(Reason::IcmpUnrelated) };
        *self.inquiry = Inquiry {
            protocol: quoted.protocol,
            at: quoted.at as u8,
            is_quoted: true,
            server_port: u16::from_be_bytes([d0, d1]),
            client_port: u16::from_be_bytes([s0, s1]),
            server: quoted.destination,
        };
        Err(Reason::IcmpUnrelated)
    }
}
