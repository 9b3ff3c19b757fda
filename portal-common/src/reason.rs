//! Why the gate did what it did.
//!
//! A reason's name and number are stable and never reused: the number indexes the counters, the name is the metric's label,
//! what `portalctl drops` prints and what a test asserts.

use crate::budget::Class;

/// What the gate did with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The kernel gets the frame, unchanged.
    Passed,
    /// The gate wrote an answer into the frame and sent it back.
    Answered,
    /// The responder gets the frame through its AF_XDP socket.
    Redirected,
    /// Nobody gets the frame.
    Dropped,
}

impl Outcome {
    /// The stable lower-case name, as JSON and metrics carry it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Answered => "answered",
            Self::Redirected => "redirected",
            Self::Dropped => "dropped",
        }
    }
}

macro_rules! class {
    () => {
        None
    };
    ($class:ident) => {
        Some(Class::$class)
    };
}

macro_rules! reasons {
    ($($number:literal $variant:ident $outcome:ident $(($class:ident))? $name:literal $text:literal;)+) => {
        /// Why the gate did what it did with a frame.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Reason {
            $(#[doc = $text] $variant = $number,)+
        }

        impl Reason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The stable name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The rule, in a sentence for the operator.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// What a stranger's frame spends from.
            // Not an exhaustive match: what comes behind one the compiler takes for unreachable, and leaves out; but the numbers have gaps, and the
            // kernel's verifier, which knows nothing of what is read from a map, would go there.
            #[inline(always)]
            pub const fn class(self) -> Option<Class> {
                $(if matches!(self, Self::$variant) { return class!($($class)?); })+
                None
            }

            /// What happens to a frame for this reason.
            pub const fn outcome(self) -> Outcome {
                match self { $(Self::$variant => Outcome::$outcome,)+ }
            }
        }

        impl TryFrom<u32> for Reason {
            type Error = UnknownReason;

            fn try_from(number: u32) -> Result<Self, UnknownReason> {
                match number { $($number => Ok(Self::$variant),)+ _ => Err(UnknownReason(number)) }
            }
        }
    };
}

impl Reason {
    /// The reason of this number among those for which [`crate::decide::admit`] refuses. A number of no such reason is the missing configuration's.
    #[inline(always)]
    pub const fn of_admission(number: u32) -> Self {
        const REASONS: [Reason; 8] = [
            Reason::SpoofedAddress,
            Reason::GatewayAddress,
            Reason::BudgetRequests,
            Reason::BudgetDnsQueries,
            Reason::BudgetDnsBytes,
            Reason::BudgetLink,
            Reason::BudgetReplies,
            Reason::BudgetServices,
        ];
        Self::among(&REASONS, number)
    }

    /// The reason of this number among those of [`crate::decide::contradiction`]. A number of no such reason is the missing configuration's.
    #[inline(always)]
    pub const fn of_contradiction(number: u32) -> Self {
        const REASONS: [Reason; 11] = [
            Reason::FrameTruncated,
            Reason::Ipv4Malformed,
            Reason::Ipv6Malformed,
            Reason::ArpMalformed,
            Reason::RouterAdvertisement,
            Reason::DhcpServer,
            Reason::ArpIdentity,
            Reason::NeighborIdentity,
            Reason::DhcpIdentity,
            Reason::HiddenDiscovery,
            Reason::ExtensionChain,
        ];
        Self::among(&REASONS, number)
    }

    // Not `try_from`, which in the kernel compares with every number there is.
    #[inline(always)]
    const fn among(reasons: &[Self], number: u32) -> Self {
        let mut i = 0;
        while i < reasons.len() {
            if reasons[i] as u32 == number {
                return reasons[i];
            }
            i += 1;
        }
        Self::ConfigMissing
    }
}

/// A number that no reason has: it comes from a program of another version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownReason(pub u32);

// 0 stays free, so that a zeroed word is never a reason. Beside the outcome stands the budget that a stranger's frame spends from. The
// number means nothing beyond being stable: `outcome` tells what happens.
reasons! {
    1 Authorized Passed "authorized" "The client has a session that has not expired.";
    2 Arp Passed(Link) "arp" "ARP: a client must resolve the gateway's address.";
    3 Eapol Passed(Link) "eapol" "EAPOL: 802.1X authenticates below the portal.";
    4 NeighborDiscovery Passed(Link) "neighbor_discovery" "ICMPv6 router or neighbour solicitation, or neighbour advertisement (RFC 4861).";
    5 MulticastListener Passed(Link) "multicast_listener" "Multicast listener report (RFC 3810, RFC 2710): without it no neighbour discovery on snooping switches.";
    6 Dhcp Passed(Link) "dhcp" "A DHCP client's message.";
    7 Dns Passed(DnsQueries) "dns" "DNS over UDP to a permitted resolver.";
    8 PortalService Passed(Services) "portal_service" "One of the portal's own addresses and ports.";
    9 DnsTcp Passed(DnsBytes) "dns_tcp" "DNS over TCP to a permitted resolver.";
    10 Ntp Passed(Services) "ntp" "NTP to a permitted time server.";
    11 Garden Passed(Services) "garden" "A destination in the walled garden, by its prefix.";
    12 GardenName Passed(Services) "garden_name" "A destination in the walled garden, by a name that DNS has answered for.";
    13 IcmpError Passed(Services) "icmp_error" "An ICMP error about what a permitted service has sent to this station (RFC 1191, RFC 8201, RFC 4890).";
    14 Echo Passed(Link) "echo" "A ping of the gateway, or a reply to one of the gateway's.";
    15 Igmp Passed(Link) "igmp" "A membership report (RFC 2236, RFC 3376): without it no multicast on snooping switches.";

    16 HttpHandshake Answered(Replies) "http_handshake" "SYN to TCP/80: answered with a SYN cookie (RFC 4987).";
    17 HttpAcknowledged Answered(Replies) "http_acknowledged" "A segment after our answer on TCP/80: acknowledged.";
    18 HttpForeign Answered(Replies) "http_foreign" "A TCP/80 segment of a connection that is not ours, as after an expired session: reset.";
    19 TcpRefused Answered(Replies) "tcp_refused" "TCP to anything not permitted before login: reset (RFC 9293 section 3.5.2).";
    20 UdpRefused Answered(Replies) "udp_refused" "UDP to anything not permitted before login: ICMP administratively prohibited (RFC 1812, RFC 4443).";
    21 QuicRefused Answered(Replies) "quic_refused" "UDP/443: ICMP port unreachable, so that a browser falls back to TCP at once.";
    22 HttpsRefused Answered(Replies) "https_refused" "TCP/443 before login, by the policy `reset`: reset.";
    23 TlsHandshake Answered(Replies) "tls_handshake" "SYN to TCP/443, by the policy `alert`: answered with a SYN cookie.";
    24 TlsAcknowledged Answered(Replies) "tls_acknowledged" "A segment after our alert on TCP/443: acknowledged.";
    25 TlsForeign Answered(Replies) "tls_foreign" "A TCP/443 segment of a connection that is not ours, as after an expired session: reset.";

    26 HttpAnswered Answered(Requests) "http_answered" "A request on TCP/80 that the responder has answered before, byte for byte: given the same answer.";

    27 EchoRefused Answered(Replies) "echo_refused" "A ping of anything but the gateway before login: ICMP administratively prohibited (RFC 1812, RFC 4443).";

    28 HttpRequest Redirected(Requests) "http_request" "Data or a FIN on a TCP/80 connection of ours, before our answer: the responder sees to it.";
    29 TlsHello Redirected(Requests) "tls_hello" "Data or a FIN on a TCP/443 connection of ours, before our alert: the responder sees to it.";

    32 ConfigMissing Dropped "config_missing" "The zone has no configuration: nothing passes (fail closed).";
    33 FrameTruncated Dropped "frame_truncated" "The frame ends inside a header.";
    34 SourceMac Dropped "source_mac" "The source MAC is a group address or zero.";
    35 VlanTags Dropped "vlan_tags" "More than two VLAN tags.";
    36 EtherType Dropped "ether_type" "Neither ARP, EAPOL, IPv4 nor IPv6.";
    37 Ipv4Malformed Dropped "ipv4_malformed" "An IPv4 header that contradicts itself or the frame.";
    38 Ipv4Options Dropped "ipv4_options" "IPv4 options from a client that has not logged in.";
    39 Ipv6Malformed Dropped "ipv6_malformed" "An IPv6 header, or one that extends it, that contradicts itself or the frame.";
    40 Ipv6Extension Dropped "ipv6_extension" "IPv6 extension headers from a client that has not logged in.";
    41 Fragment Dropped "fragment" "A fragment from a client that has not logged in.";
    42 SourceAddress Dropped "source_address" "A source address no host may use: multicast, loopback, unspecified, or the destination's own.";
    43 DestinationAddress Dropped "destination_address" "A multicast, broadcast, loopback or unspecified destination that no rule permits.";
    44 DestinationMac Dropped "destination_mac" "Addressed to another station, or to a group: never answered.";
    45 Protocol Dropped "protocol" "An IP protocol that no rule permits.";
    46 Icmp Dropped "icmp" "An ICMP message that no rule permits.";
    47 RouterAdvertisement Dropped "router_advertisement" "A router advertisement or redirect from a guest, of ICMP or ICMPv6.";
    48 DhcpServer Dropped "dhcp_server" "A DHCP server's message from a guest, by its source port or by its destination port.";
    49 TcpMalformed Dropped "tcp_malformed" "A TCP header that contradicts itself or the packet, or flags that no connection has.";
    50 UdpMalformed Dropped "udp_malformed" "A UDP header that contradicts the packet.";
    51 TcpReset Dropped "tcp_reset" "A reset: never answered (RFC 9293 section 3.5.2).";
    52 HttpAckOnly Dropped "http_ack_only" "An acknowledgement without data on a TCP/80 connection of ours: nothing to do.";
    53 AnswerTooLarge Dropped "answer_too_large" "The ICMP answer would be larger than the packet it answers.";
    54 ResponderAbsent Dropped "responder_absent" "No responder is attached to this receive queue: portald is not running.";
    55 AnswerFailed Dropped "answer_failed" "The kernel refused to resize the frame for the answer, or the answer was replaced while it was written: the client asks again.";
    56 NoZone Dropped "no_zone" "The frame belongs to no zone: its VLAN is not configured on this interface (fail closed).";
    57 SourceRoute Dropped "source_route" "A source route: IPv4 LSRR or SSRR, or an IPv6 routing header (RFC 7126, RFC 5095).";
    58 Tunnel Dropped "tunnel" "A tunnel from a client that has not logged in.";
    59 ExtensionChain Dropped "extension_chain" "A chain of IPv6 extension headers that is longer than the gate reads.";
    60 SpoofedAddress Dropped "spoofed_address" "An address that belongs to another client.";
    61 GatewayAddress Dropped "gateway_address" "The gateway's own address, or a resolver's, used by a guest.";
    62 RateUp Dropped "rate_up" "The client sends faster than its limit.";
    63 RateDown Dropped "rate_down" "The client is sent more than its limit.";
    64 QuotaSpent Dropped "quota_spent" "The client has used up its quota.";
    65 BudgetRequests Dropped "budget_requests" "The stranger has spent its budget of requests.";
    66 BudgetDnsQueries Dropped "budget_dns_queries" "The stranger has spent its budget of DNS queries.";
    67 BudgetDnsBytes Dropped "budget_dns_bytes" "The stranger has spent its budget of DNS bytes.";
    68 BudgetLink Dropped "budget_link" "The stranger has spent its budget of ARP, neighbour discovery, DHCP and EAPOL.";
    69 BudgetReplies Dropped "budget_replies" "The stranger has spent its budget of answers from the gate.";
    70 BudgetServices Dropped "budget_services" "The stranger has spent its budget of bytes to the login page and the walled garden.";
    71 TlsAckOnly Dropped "tls_ack_only" "An acknowledgement without data on a TCP/443 connection of ours: nothing to do.";
    72 HttpsDropped Dropped "https_dropped" "TCP/443 before login, by the policy `drop`.";
    73 LengthField Dropped "length_field" "An IEEE 802.3 frame with a length where the EtherType should be.";
    74 AnswerHeld Dropped "dns_answer_held" "A DNS answer that names of the walled garden could be learned from, but the daemon has fallen behind: the client asks again.";
    75 ArpMalformed Dropped "arp_malformed" "An ARP packet that is not one of IPv4 over Ethernet.";
    76 ArpIdentity Dropped "arp_identity" "ARP whose sender's hardware address is not the frame's source (RFC 826).";
    77 NeighborIdentity Dropped "neighbor_identity" "Neighbour discovery with a link-layer address that is not the frame's source, or that cannot be read to its end (RFC 4861 section 4.6.1).";
    78 DhcpIdentity Dropped "dhcp_identity" "A DHCP client's message for another station, from a relay, or that cannot be read to its end (RFC 7039).";
    79 HiddenDiscovery Dropped "hidden_discovery" "Neighbour discovery or DHCPv6 behind extension headers or in fragments (RFC 6980, RFC 7113).";
    80 ForeignSource Dropped "foreign_source" "A source address that is not of this network (BCP 38, RFC 2827).";

    86 ToStranger Dropped "to_stranger" "Sent to a station without a session, and no rule permits it.";
    87 DnsUnasked Dropped "dns_unasked" "A DNS or NTP answer to a question that this client did not ask.";
    88 ToGroup Dropped "to_group" "Sent to a group of stations, and not what the link itself needs.";
    89 IcmpUnrelated Dropped "icmp_unrelated" "An ICMP error about no packet that this station may have sent before it logged in.";
    90 ToAnother Dropped "to_another" "Sent to a client's station, but for an address that is not this client's.";
    91 GatewayForged Dropped "gateway_forged" "From one of the gateway's own addresses, but forwarded: the gateway did not send it.";
    92 LinkGroup Passed "link_group" "The gateway's own, to a group that no router forwards to (RFC 4291 section 2.7, RFC 5771 section 4).";
    93 IcmpRelated Passed "icmp_related" "An ICMP error about a packet that this station may have sent before it logged in.";
    94 GatewayEcho Passed "gateway_echo" "An echo request or reply from one of the gateway's own addresses.";

    100 ConnectionOfAnother Dropped "connection_of_another" "A segment of a connection to the portal that another station began.";
    101 ConnectionHidden Dropped "connection_hidden" "What may be a segment of a connection to the portal, but in fragments or behind IPv6 extension headers.";
    102 BudgetConnections Dropped "budget_connections" "More connections to the portal than one client may begin.";
}

/// Room for reasons in a counter block: a power of two, so that an index can be masked.
pub const REASON_SLOTS: usize = 128;

const _: () = {
    let mut i = 0;
    while i < Reason::ALL.len() {
        assert!((Reason::ALL[i] as usize) < REASON_SLOTS);
        i += 1;
    }
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_numbers_round_trip() {
        for (i, a) in Reason::ALL.iter().enumerate() {
            assert_eq!(Reason::try_from(*a as u32), Ok(*a));
            for b in &Reason::ALL[i + 1..] {
                assert_ne!(a.name(), b.name());
                assert_ne!(*a as u32, *b as u32);
            }
        }
        assert_eq!(Reason::try_from(0), Err(UnknownReason(0)));
    }

    #[test]
    fn what_is_dropped_spends_from_nothing() {
        for reason in Reason::ALL.iter().filter(|reason| reason.outcome() == Outcome::Dropped) {
            assert_eq!(reason.class(), None, "{reason:?}");
        }
    }
}
