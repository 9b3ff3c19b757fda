//! TCP from a stranger: the stateless exchanges on the ports that are intercepted, and resets.

use super::{Action, Decision, Request, Tables, network::Network, stranger::answer};
use crate::{
    answer::{Kind, TCP_LEN_WITH_MSS},
    cookie::{self, FourTuple, Phase},
    flag,
    protocol::{self as p, TcpFlags},
    reason::Reason,
    tables::{Address, GateConfig, HttpsPolicy, KNOWN_REQUEST_MAX, KNOWN_REQUEST_MIN},
};

/// What a segment gets that no rule permits.
#[inline(always)]
pub(super) fn refuse<T: Tables>(tables: &T, config: &GateConfig, network: &Network, segment: &Segment) -> Decision {
    match segment.destination_port {
        p::PORT_HTTP => exchange(tables, network, segment),
        p::PORT_HTTPS => match config.https() {
            HttpsPolicy::Reset => answer(Reason::HttpsRefused, network, segment.reset()),
            HttpsPolicy::Alert => exchange(tables, network, segment),
            HttpsPolicy::Drop => Decision::drop(Reason::HttpsDropped),
        },
        _ => answer(Reason::TcpRefused, network, segment.reset()),
    }
}

/// The stateless exchange with a stranger: on TCP/80 towards a 511, on TCP/443 towards an alert.
#[inline(always)]
fn exchange<T: Tables>(tables: &T, network: &Network, segment: &Segment) -> Decision {
    let Some(keys) = tables.cookie_keys() else {
        return Decision::drop(Reason::ConfigMissing);
    };
    let tls = segment.destination_port == p::PORT_HTTPS;
    let either = |https, http| if tls { https } else { http };
    let foreign = either(Reason::TlsForeign, Reason::HttpForeign);
    let tuple = FourTuple {
        source: Address::from_words(network.source()),
        destination: Address::from_words(network.destination()),
        source_port: segment.source_port,
        destination_port: segment.destination_port,
    };
    if !segment.flags.has(flag::ACK) {
        if segment.flags.has(flag::SYN) {
            let isn = cookie::isn(keys, &tuple, segment.seq, tables.now_ns());
            return answer(either(Reason::TlsHandshake, Reason::HttpHandshake), network, segment.syn_ack(isn));
        }
        return answer(foreign, network, segment.reset());
    }
    let phase = if segment.flags.has(flag::SYN) {
        None
    } else {
        cookie::phase(keys, &tuple, segment.seq, segment.ack, tables.now_ns())
    };
    let fin = segment.flags.has(flag::FIN);
    match phase {
        None => answer(foreign, network, segment.reset()),
        // A FIN without data too: whether the answer to a request is on its way before it, only the responder knows.
        Some(Phase::Request { first: true }) if !tls && segment.may_be_known() => Decision {
            request: Request { at: (network.payload_at() + segment.header_len) as u16, len: segment.data_len as u16 },
            action: Action::Redirect,
            // The numbers are those of the responder's answer too.
            ..answer(Reason::HttpRequest, network, segment.acknowledgement())
        },
        Some(Phase::Request { .. }) if segment.data_len > 0 || fin => {
            Decision::redirect(either(Reason::TlsHello, Reason::HttpRequest))
        }
        Some(Phase::Answered) if segment.data_len > 0 || fin => {
            answer(either(Reason::TlsAcknowledged, Reason::HttpAcknowledged), network, segment.acknowledgement())
        }
        Some(Phase::Request { .. } | Phase::Answered) => {
            Decision::drop(either(Reason::TlsAckOnly, Reason::HttpAckOnly))
        }
    }
}

/// A TCP segment's header.
pub(super) struct Segment {
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: TcpFlags,
    pub(super) header_len: usize,
    pub(super) data_len: usize,
}

impl Segment {
    /// The sequence number after this segment: SYN and FIN take one each (RFC 9293 section 3.4).
    #[inline(always)]
    pub(super) const fn end(&self) -> u32 {
        self.seq
            .wrapping_add(self.data_len as u32)
            .wrapping_add(self.flags.has(flag::SYN) as u32)
            .wrapping_add(self.flags.has(flag::FIN) as u32)
    }

    /// Whether the responder would answer it, if it is a request, without remembering anything: it is not cut short, and nothing follows.
    /// Without PSH more is under way, and the responder must know that the answer is given.
    #[inline(always)]
    const fn may_be_known(&self) -> bool {
        self.flags.0 == flag::PSH | flag::ACK
            && self.data_len >= KNOWN_REQUEST_MIN
            && self.data_len <= KNOWN_REQUEST_MAX
    }

    #[inline(always)]
    pub(super) const fn syn_ack(&self, isn: u32) -> TcpAnswer {
        // An answer is never larger than what it answers: a SYN without options gets none.
        let kind = if self.header_len >= TCP_LEN_WITH_MSS { Kind::SynAckWithMss } else { Kind::SynAck };
        // Data on a SYN is not kept (RFC 9293 section 3.4 allows it): the client sends it again.
        (kind, isn, self.seq.wrapping_add(1))
    }

    #[inline(always)]
    pub(super) const fn acknowledgement(&self) -> TcpAnswer {
        (Kind::Ack, self.ack, self.end())
    }

    /// RFC 9293 section 3.5.2, group 1.
    #[inline(always)]
    pub(super) const fn reset(&self) -> TcpAnswer {
        if self.flags.has(flag::ACK) { (Kind::Reset, self.ack, 0) } else { (Kind::ResetAck, 0, self.end()) }
    }
}

/// What to answer, with which sequence and acknowledgement numbers.
pub(super) type TcpAnswer = (Kind, u32, u32);
