//! Whose an address is: a session is bound to the addresses its client uses, and nobody else may use them.

use super::Tables;
use crate::{
    event::{Event, EventKind},
    protocol as p,
    reason::Reason,
    tables::{
        Address, AddressWord, Bindings, ClientKey, GateConfig, MAX_BINDINGS, OwnedAddress, OwnedWord, Service,
        ServiceKey, Strictness,
    },
    word::Word,
};

/// How long an address stays with a client that does not use the network, unless the zone is strict: a DHCP server may give it to another
/// client long before the session ends.
const OWNED_WHILE_SEEN_NS: u64 = 300 * 1_000_000_000;

/// Why a client must not use an address.
pub(super) enum Conflict {
    /// It is the gateway's, or a resolver's.
    Gateway,
    /// It is this client's.
    Owned(ClientKey),
}

impl Conflict {
    #[inline(always)]
    pub(super) const fn reason(&self) -> Reason {
        match self {
            Self::Gateway => Reason::GatewayAddress,
            Self::Owned(_) => Reason::SpoofedAddress,
        }
    }

    /// Makes the event one of this conflict.
    #[inline(always)]
    pub(super) const fn fill(&self, event: &mut Event) {
        event.reason = self.reason() as u32;
        match self {
            Self::Gateway => event.kind = EventKind::GatewayAddress as u32,
            Self::Owned(owner) => {
                event.kind = EventKind::SpoofedAddress as u32;
                event.other = *owner;
            }
        }
    }
}

/// Whether an address is one that no client of this network may have (BCP 38, RFC 3704). A link-local address stays on the link.
#[inline(always)]
pub(super) fn is_foreign<T: Tables>(tables: &T, config: &GateConfig, client: &ClientKey, claimed: Address) -> bool {
    const LINK_LOCAL: u64 = 0xfe80 >> 6;
    config.checks_sources()
        && !matches!(config.strictness(), Strictness::Off)
        && claimed != Address::UNSPECIFIED
        && claimed.words()[0] >> 54 != LINK_LOCAL
        && !tables.is_own_source(client, claimed)
}

/// Whether another than this client may use the address at this instant.
#[inline(always)]
pub(super) fn conflict<T: Tables>(
    tables: &T,
    strictness: Strictness,
    client: ClientKey,
    address: &OwnedAddress,
    now_ns: u64,
) -> Option<Conflict> {
    let (zone, claimed) = (address.zone(), address.address());
    if tables.service(&ServiceKey::of_gateway(zone, claimed)).is_some()
        || tables.service(&ServiceKey::new(zone, claimed, p::UDP, p::PORT_DNS)) == Some(Service::Resolver)
    {
        return Some(Conflict::Gateway);
    }
    let owner = tables.owner(address)?;
    (owner != client && holds_on(tables, strictness, owner, now_ns)).then_some(Conflict::Owned(owner))
}

/// Whether a client keeps its addresses: it is logged in, and there.
#[inline(always)]
fn holds_on<T: Tables>(tables: &T, strictness: Strictness, owner: ClientKey, now_ns: u64) -> bool {
    let Some((session, state)) = tables.member_apart(&owner) else { return false };
    if !session.is_live(now_ns) {
        return false;
    }
    let seen = state.last_seen_ns.load();
    if session.is_idle(seen, now_ns) {
        return false;
    }
    let seen = if seen > session.started_ns() { seen } else { session.started_ns() };
    matches!(strictness, Strictness::Strict) || now_ns.saturating_sub(seen) < OWNED_WHILE_SEEN_NS
}

/// Whether the session is bound to the address already.
#[inline(always)]
pub fn is_bound<W: Word>(bindings: &Bindings<W>, address: AddressWord) -> bool {
    let mut i = 0;
    while i < MAX_BINDINGS {
        if bindings.words[i].load() == address.to_word() {
            return true;
        }
        i += 1;
    }
    false
}

/// A client that is logged in uses an address that its session is not bound to.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// The client.
    pub client: ClientKey,
    /// The address.
    pub claimed: Address,
    /// The slot of the session's state.
    pub slot: u32,
    /// The zone's strictness.
    pub strictness: Strictness,
    /// Now, in nanoseconds of CLOCK_MONOTONIC.
    pub now_ns: u64,
}

/// Binds the session to a new address, if nobody else has it; whether it did.
#[inline(always)]
pub fn bind<T: Tables>(tables: &T, request: &Binding) -> bool {
    let Binding { client, claimed, slot, strictness, now_ns } = *request;
    let address = &OwnedAddress::new(client.zone(), claimed);
    let Some(state) = tables.state(slot) else { return false };
    if conflict(tables, strictness, client, address, now_ns).is_some() {
        return false;
    }
    let mut place = MAX_BINDINGS;
    let mut i = 0;
    while i < MAX_BINDINGS {
        if place == MAX_BINDINGS && state.bindings.words[i].load() == 0 {
            place = i;
        }
        i += 1;
    }
    if place == MAX_BINDINGS {
        if matches!(strictness, Strictness::Strict) {
            return false;
        }
        // Any: one that is still in use is bound again with its next packet.
        place = (now_ns >> 20) as usize;
    }
    if T::LIVE {
        if let Some(previous) = tables.owner(address) {
            unbind(tables, &previous, claimed);
        }
        // No room: a client whose address nobody can be kept from is a stranger, sooner than that it goes unprotected.
        if !tables.own(address, client) {
            return false;
        }
        // Masked for the verifier's sake too.
        let bound = &state.bindings.words[place & (MAX_BINDINGS - 1)];
        let displaced = AddressWord::from_word(bound.load());
        if displaced != AddressWord::NONE {
            tables.disown(&OwnedWord::new(address.zone(), displaced), client);
        }
        // Another CPU may have taken the place for another address of this client's: that one is not to be lost. The next packet binds this one.
        if !bound.replace(displaced.to_word(), tables.address_hash().word(claimed).to_word()) {
            return true;
        }
        if displaced != AddressWord::NONE {
            tables.rouse(client, displaced);
        }
        tables.tell(&Event::new(now_ns, EventKind::AddressLearned, client).with_address(address));
    }
    true
}

/// Makes a client that has lost an address to another forget it: if it comes back, it is to be refused the address.
#[inline(always)]
fn unbind<T: Tables>(tables: &T, previous: &ClientKey, address: Address) {
    let Some((_, state)) = tables.member_apart(previous) else { return };
    let lost = tables.address_hash().word(address).to_word();
    let mut i = 0;
    while i < MAX_BINDINGS {
        state.bindings.words[i].replace(lost, AddressWord::NONE.to_word());
        i += 1;
    }
    tables.rouse(*previous, AddressWord::from_word(lost));
}

const _: () = assert!(MAX_BINDINGS.is_power_of_two());
