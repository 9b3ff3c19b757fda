//! The decision: from a frame and the tables to a verdict with its reason.
//!
//! It reads top to bottom like the rules: in which zone is the frame, whose is it, is that client logged in ([`member`]), and if it is not, what may a
//! stranger do ([`stranger`]). What a stranger is given is charged to its budget at one place, here.

mod addresses;
mod connection;
mod familiar;
mod icmp;
mod identity;
mod link;
mod member;
mod network;
mod outbound;
mod questions;
mod quoted;
mod stranger;
mod tcp;
#[cfg(test)]
mod tests;

pub use addresses::{Binding, bind, is_bound};
pub use connection::follow;
pub use familiar::{Familiar, familiar};
pub use outbound::{Departure, Outbound, OutboundVerdict, Passage, consider, depart, inquire, outbound};
pub use questions::{Topic, ask, check_asked};

use self::{link::Link, member::Estranged, network::Network, outbound::Inquiry};
use crate::{
    answer::Answer,
    bucket,
    budget::{Budgets, Class},
    event::{Event, EventKind},
    frame::Frame,
    meter::{Direction, Refusal},
    reason::Reason,
    tables::{
        Address, AddressHash, AddressWord, ClientKey, ClientState, ConnectionKey, ConnectionNote, CookieKeys, Counters,
        GardenKey, GateConfig, OwnedAddress, OwnedWord, Question, Service, ServiceKey, Session, Strictness,
        UNZONED_ROW, Zone,
    },
    word::Word,
};

/// What the decision looks up and changes. The kernel's implementation works on maps, the host's on whatever a test puts there.
pub trait Tables {
    /// Whether the decision has its effects: spends budgets, counts, learns. Without, it only says what it would do.
    const LIVE: bool;
    /// What state is made of.
    type Word: Word;

    /// The zone of frames with these VLAN ids on this interface; 0 stands for no tag, [`ANY_VLAN`] for whatever has no zone of its own.
    fn zone(&self, outer: u16, inner: u16) -> Option<Zone>;
    /// The zone's configuration.
    fn config(&self, zone: Zone) -> Option<&GateConfig>;
    /// The client's session, live or expired, and its state.
    fn member(&self, client: &ClientKey) -> Option<Member<'_, Self::Word>>;
    /// [`Self::member`], which the kernel's verifier is given as a function by itself: 6 ns more, where that does not matter.
    fn member_apart(&self, client: &ClientKey) -> Option<Member<'_, Self::Word>>;
    /// The state of a session, by its slot.
    fn state(&self, slot: u32) -> Option<&ClientState<Self::Word>>;
    /// What a destination is, if strangers may reach it.
    fn service(&self, destination: &ServiceKey) -> Option<Service>;
    /// Whether the walled garden has a prefix that holds this destination, with just this port.
    fn garden(&self, destination: &GardenKey) -> bool;
    /// Whether clients of this client's zone may have this address, by its prefix.
    fn is_own_source(&self, client: &ClientKey, address: Address) -> bool;
    /// Until when a destination that was learned from DNS is in the walled garden: nanoseconds of CLOCK_MONOTONIC.
    fn learned_until(&self, destination: &ServiceKey) -> Option<u64>;
    /// Whether this client's packets from this address need not be looked at, by [`crate::tables::RecentPass`].
    fn rests(&self, client: ClientKey, address: AddressWord, now_ns: u64) -> bool;
    /// Notes that they need not be, if that is so.
    fn rest(&self, client: ClientKey, address: AddressWord, now_ns: u64);
    /// Takes that back.
    fn rouse(&self, client: ClientKey, address: AddressWord);
    /// How clients' addresses become words.
    fn address_hash(&self) -> AddressHash;
    /// Who uses an address.
    fn owner(&self, address: &OwnedAddress) -> Option<ClientKey>;
    /// Who uses the address with this word.
    fn owner_of(&self, zone: Zone, address: AddressWord) -> Option<ClientKey>;
    /// From now on this client uses the address; whether there is room to note it.
    fn own(&self, address: &OwnedAddress, client: ClientKey) -> bool;
    /// From now on nobody uses the address, if this client did.
    fn disown(&self, address: &OwnedWord, client: ClientKey);
    /// What a stranger has spent.
    fn budgets(&self, stranger: &ClientKey) -> Option<&Budgets<Self::Word>>;
    /// Begins to count what a stranger spends; whether nobody had.
    fn open_budgets(&self, stranger: &ClientKey) -> bool;
    /// Who has begun the connection to the portal that has this end, as far as it is noted.
    fn connection(&self, key: &ConnectionKey) -> Option<ConnectionNote>;
    /// Notes that, where nothing is if `anew`; whether it did.
    fn note(&self, key: &ConnectionKey, note: ConnectionNote, anew: bool) -> bool;
    /// The secrets behind the SYN cookies.
    fn cookie_keys(&self) -> Option<&CookieKeys>;
    /// Tells the daemon.
    fn tell(&self, event: &Event);
    /// [`stranger`], which the kernel's verifier is given as a function by itself.
    fn stranger<F: Frame + ?Sized>(&self, frame: &F, config: &GateConfig, case: &mut Case);
    /// [`contradiction`], which the kernel's verifier is given as a function by itself.
    fn contradiction<F: Frame + ?Sized>(&self, frame: &F, case: &Case) -> Option<Reason>;
    /// [`is_related`], which the kernel's verifier is given as a function by itself.
    fn is_related<F: Frame + ?Sized>(&self, frame: &F, config: &GateConfig, case: &Case) -> bool;
    /// [`bind`], which the kernel's verifier is given as a function by itself.
    fn bind(&self, request: &Binding) -> bool;
    /// [`admit`], which the kernel's verifier is given as a function by itself.
    fn admit(&self, request: &Admission) -> Option<Reason>;
    /// [`afford`], which the kernel's verifier is given as a function by itself.
    fn afford(&self, delivery: &Delivery) -> Option<Reason>;
    /// [`follow`], which the kernel's verifier is given as a function by itself.
    fn follow<F: Frame + ?Sized>(&self, frame: &F, config: &GateConfig, case: &mut Case);
    /// When a stranger asked this last: nanoseconds of CLOCK_MONOTONIC.
    fn asked_at(&self, question: &Question) -> Option<u64>;
    /// Notes that it is asked now.
    fn note_question(&self, question: &Question, now_ns: u64);
    /// [`ask`], which the kernel's verifier is given as a function by itself.
    fn ask<F: Frame + ?Sized>(&self, frame: &F, case: &Case);
    /// [`depart`], which the kernel's verifier is given as three functions by themselves.
    fn depart<F: Frame + ?Sized>(&self, frame: &F, config: &GateConfig, passage: Passage, case: &mut Case);
    /// Now, in nanoseconds of CLOCK_MONOTONIC.
    fn now_ns(&self) -> u64;
}

/// A session, and its state.
pub type Member<'a, W> = (&'a Session, &'a ClientState<W>);

/// In place of both VLAN ids: the zone that counts what belongs to no zone, on an interface all of whose zones are in shadow mode. No tag has this
/// id (IEEE 802.1Q-2018 table 9-2).
pub const ANY_VLAN: u16 = 0x0fff;

/// What is to be done with a frame, and why.
// Flat, and filled in every case: of an enum with payloads parts would be left undefined, which the verifier does not let be copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What is to be done.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// What to answer, for [`Action::Answer`]; the numbers of the answer, for a request that may be known.
    pub answer: Answer,
    /// The request, if the gate may answer it by itself.
    pub request: Request,
}

/// Where a request is in its frame, which comes whole in its connection's first segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Where it begins, bytes.
    pub at: u16,
    /// How long it is, bytes: [`crate::tables::KNOWN_REQUEST_MIN`] to [`crate::tables::KNOWN_REQUEST_MAX`]. 0: there is none.
    pub len: u16,
}

impl Request {
    const NONE: Self = Self { at: 0, len: 0 };
}

/// What is to be done with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Give it to the kernel.
    Pass,
    /// Write the answer into it and send it back.
    Answer,
    /// Give it to the responder.
    Redirect,
    /// Give it to nobody.
    Drop,
}

impl Decision {
    #[inline(always)]
    const fn pass(reason: Reason) -> Self {
        Self { action: Action::Pass, reason, answer: Answer::NONE, request: Request::NONE }
    }

    #[inline(always)]
    const fn redirect(reason: Reason) -> Self {
        Self { action: Action::Redirect, reason, answer: Answer::NONE, request: Request::NONE }
    }

    #[inline(always)]
    const fn drop(reason: Reason) -> Self {
        Self { action: Action::Drop, reason, answer: Answer::NONE, request: Request::NONE }
    }
}

/// Where a frame belongs: in which zone, and to whom.
// The decision itself is not part of it: two ways to leave a decision unfilled are one too many for the verifier.
pub struct Place<'a> {
    /// The zone's configuration.
    pub config: &'a GateConfig,
    /// Whose frame it is.
    pub client: ClientKey,
    link: Link,
}

impl Place<'_> {
    /// The row of the counters.
    #[inline(always)]
    pub const fn row(&self) -> u32 {
        Counters::row(self.client.zone(), self.config.is_shadow())
    }
}

/// Where a frame that a guest sent belongs; or else the row of the counters and the reason why it belongs nowhere and is dropped.
#[inline(always)]
pub fn locate<'a, F: Frame + ?Sized, T: Tables>(frame: &F, tables: &'a T) -> Result<Place<'a>, (u32, Reason)> {
    let mut link = Link::parse(frame);
    let zone = if let Some(zone) = tables.zone(link.outer, link.inner) {
        zone
    } else {
        let fault = link.fault.unwrap_or(Reason::NoZone);
        link.fault = Some(fault);
        tables.zone(ANY_VLAN, ANY_VLAN).ok_or((UNZONED_ROW, fault))?
    };
    // Fail closed: in a slot that user space has not filled, which is all zero, nothing passes.
    match tables.config(zone) {
        Some(config) if config.is_ready() => Ok(Place { config, client: ClientKey::new(zone, link.source), link }),
        _ => Err((Counters::row(zone, false), Reason::ConfigMissing)),
    }
}

/// A frame, read as far as everybody's are, and what was decided about it.
///
/// In the kernel it lies in a map: the BPF stack has no room for it. What is read from there is unknown to the verifier, which therefore checks the
/// rules once, and not for every way in which a frame can be read.
#[derive(Debug)]
pub struct Case {
    network: Network,
    inquiry: Inquiry,
    client: ClientKey,
    now_ns: u64,
    /// What was decided.
    pub decision: Decision,
}

impl Case {
    /// Whose frame it is.
    #[inline(always)]
    pub const fn client(&self) -> ClientKey {
        self.client
    }

    /// When the frame was decided about, nanoseconds of CLOCK_MONOTONIC.
    #[inline(always)]
    pub const fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// A case that nothing is known of.
    pub const EMPTY: Self = Self {
        network: Network::EMPTY,
        inquiry: Inquiry::NONE,
        client: ClientKey::NONE,
        now_ns: 0,
        decision: Decision::drop(Reason::ConfigMissing),
    };
}

/// Decides about a frame that a guest sent, from where it belongs. What is decided is in the case.
#[inline(always)]
pub fn decide<F: Frame + ?Sized, T: Tables>(frame: &F, tables: &T, place: &Place<'_>, case: &mut Case) {
    let Place { config, client, link } = place;
    if let Some(fault) = link.fault {
        case.decision = Decision::drop(fault);
        return;
    }
    read(frame, tables, *client, link, case);
    let mut estranged = None;
    if let Some(member) = tables.member_apart(client)
        && member.0.is_live(case.now_ns)
    {
        // Apart from the member's own rules: the two have not room on the BPF stack together.
        if contradicts(frame, tables, case) {
            return;
        }
        match member::decide(tables, config, member, case) {
            Ok(()) => {
                // In shadow mode it passes in any case.
                if case.decision.action == Action::Pass || config.is_shadow() {
                    tables.follow(frame, config, case);
                }
                return;
            }
            Err(Estranged::Foreign) => {
                case.decision = Decision::drop(Reason::ForeignSource);
                return;
            }
            Err(why) => estranged = Some(why),
        }
    }
    // Of a member it has been asked.
    if estranged.is_none() && contradicts_as_stranger(frame, tables, case) {
        return;
    }
    give(frame, tables, config, estranged, case);
}

/// As [`decide`], of a client that has no session.
#[inline(always)]
pub fn decide_stranger<F: Frame + ?Sized, T: Tables>(frame: &F, tables: &T, place: &Place<'_>, case: &mut Case) {
    let Place { config, client, link } = place;
    read(frame, tables, *client, link, case);
    if contradicts_as_stranger(frame, tables, case) {
        return;
    }
    give(frame, tables, config, None, case);
}

/// Whether a frame contradicts its source, for which it is dropped.
#[inline(always)]
fn contradicts<F: Frame + ?Sized, T: Tables>(frame: &F, tables: &T, case: &mut Case) -> bool {
    if identity::is_said(frame, &case.network)
        && let Some(reason) = tables.contradiction(frame, case)
    {
        case.decision = Decision::drop(reason);
        return true;
    }
    false
}

/// As [`contradicts`]. Of what extension headers lead to, a stranger is given nothing but listener reports, and so they need not be read.
#[inline(always)]
fn contradicts_as_stranger<F: Frame + ?Sized, T: Tables>(frame: &F, tables: &T, case: &mut Case) -> bool {
    !identity::is_extended(&case.network) && contradicts(frame, tables, case)
}

/// Reads the frame as far as everybody's are.
#[inline(always)]
fn read<F: Frame + ?Sized, T: Tables>(frame: &F, tables: &T, client: ClientKey, link: &Link, case: &mut Case) {
    case.client = client;
    case.now_ns = tables.now_ns();
    case.network.parse(frame, link.ether_type, frame.forget(link.end));
}

/// Gives a stranger what the rules permit and its budget allows.
#[inline(always)]
fn give<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    config: &GateConfig,
    estranged: Option<Estranged>,
    case: &mut Case,
) {
    tables.stranger(frame, config, case);
    if case.decision.reason == Reason::IcmpError && !tables.is_related(frame, config, case) {
        case.decision = Decision::drop(Reason::Icmp);
    }
    // What is dropped spends from nothing, and of most floods nothing more is asked.
    if estranged.is_none() && case.decision.action == Action::Drop {
        return;
    }
    let permitted = case.decision.reason;
    let class = permitted.class();
    if class.is_none() && estranged.is_none() {
        return;
    }
    let asks = T::LIVE && questions::asks(case);
    let request = Admission {
        client: case.client,
        claimed: case.network.claimed(),
        class,
        bytes: case.network.frame_len(),
        estranged: estranged == Some(Estranged::Address),
        now_ns: case.now_ns,
    };
    if let Some(refused) = tables.admit(&request) {
        case.decision = Decision::drop(refused);
    } else if addresses::is_foreign(tables, config, &request.client, request.claimed) {
        // After the budget, so that a flood costs no look at it.
        case.decision = Decision::drop(Reason::ForeignSource);
    } else if asks {
        tables.ask(frame, case);
    }
    // In shadow mode it passes all the same, and the login page is to know its client.
    if case.decision.action == Action::Drop && !config.is_shadow() {
        return;
    }
    // Behind the budget: who has none does not get into the table of connections.
    if permitted == Reason::PortalService {
        tables.follow(frame, config, case);
    }
}

/// Whether an ICMP error of a stranger is about what it may be sent.
#[inline(always)]
pub fn is_related<F: Frame + ?Sized, T: Tables>(frame: &F, tables: &T, config: &GateConfig, case: &Case) -> bool {
    icmp::is_related(frame, tables, config, case.client.zone(), &case.network)
}

/// Why a frame contradicts its source; nothing where it does not.
#[inline(always)]
pub fn contradiction<F: Frame + ?Sized, T: Tables>(frame: &F, tables: &T, case: &Case) -> Option<Reason> {
    identity::check(frame, tables, &case.network, case.client, case.now_ns)
}

/// What the rules say about a stranger's frame, before its budget is asked.
#[inline(always)]
pub fn stranger<F: Frame + ?Sized, T: Tables>(frame: &F, tables: &T, config: &GateConfig, case: &mut Case) {
    case.decision = stranger::decide(frame, tables, config, case.client.zone(), &case.network);
}

/// The reason why a session's limits refuse a frame. A spent quota is told, once.
#[inline(always)]
fn refusal<T: Tables>(tables: &T, refusal: Refusal, direction: Direction, client: ClientKey, now_ns: u64) -> Reason {
    if matches!(refusal, Refusal::Quota { first: true }) {
        tell_spent(tables, client, now_ns);
    }
    refusal.reason(direction)
}

// A function of its own in the kernel too: the event is an eighth of the BPF stack, of which Linux 6.1 adds up what all callers have.
#[inline(never)]
fn tell_spent<T: Tables>(tables: &T, client: ClientKey, now_ns: u64) {
    tables.tell(&Event::new(now_ns, EventKind::QuotaSpent, client).with_reason(Reason::QuotaSpent));
}

/// How often a stranger's trouble is told.
const TOLD_EVERY_NS: u64 = 10 * 1_000_000_000;

/// A stranger's frame that the rules permit, or that comes from a client that is logged in but is treated as a stranger.
#[derive(Clone, Copy, Debug)]
pub struct Admission {
    /// Whose frame it is.
    pub client: ClientKey,
    /// The address that the client says is its own; unspecified where it says none.
    pub claimed: Address,
    /// What it spends from.
    pub class: Option<Class>,
    /// How long it is, bytes.
    pub bytes: u32,
    /// The client is logged in, but uses an address that cannot become its own.
    pub estranged: bool,
    /// Now, in nanoseconds of CLOCK_MONOTONIC.
    pub now_ns: u64,
}

/// Why a stranger is not given what the rules permit: it has spent its budget, or uses another's address.
// The budget first: a flood, which is over it, costs one lookup here and not four.
#[inline(always)]
pub fn admit<T: Tables>(tables: &T, request: &Admission) -> Option<Reason> {
    let Admission { client, claimed, class, bytes, estranged, now_ns } = *request;
    let Some(config) = tables.config(client.zone()) else { return Some(Reason::ConfigMissing) };
    // One variable for all events: the BPF stack has no room for several.
    let mut event = Event::new(now_ns, EventKind::Stranger, client);
    let mut budgets = tables.budgets(&client);
    if T::LIVE && budgets.is_none() {
        if tables.open_budgets(&client) {
            tables.tell(&event);
        }
        budgets = tables.budgets(&client);
    }
    event.address = claimed;
    event.kind = EventKind::BudgetSpent as u32;
    let spend = || class.and_then(|class| spent::<T>(budgets, config, class, u64::from(bytes), now_ns));
    // But of a guest that uses another's address that is to be said, not what it spends as a stranger.
    let mut refused = if estranged { None } else { spend() };
    let mut trouble = refused.is_some();
    let strictness = config.strictness();
    if refused.is_none() && !matches!(strictness, Strictness::Off) && claimed != Address::UNSPECIFIED {
        let address = OwnedAddress::new(client.zone(), claimed);
        if let Some(conflict) = addresses::conflict(tables, strictness, client, &address, now_ns) {
            trouble = true;
            refused = Some(conflict.reason());
            conflict.fill(&mut event);
        } else if estranged {
            trouble = true;
            event.kind = EventKind::TooManyAddresses as u32;
            refused = spend();
        }
    }
    if trouble && T::LIVE && budgets.is_none_or(|budgets| may_tell(budgets, now_ns)) {
        if let Some(reason) = refused {
            event.reason = reason as u32;
        }
        tables.tell(&event);
    }
    refused
}

/// What a stranger is to be sent, for which it pays.
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    /// To whom it goes.
    pub client: ClientKey,
    /// What it is paid from.
    pub class: Class,
    /// How long it is, bytes.
    pub bytes: u32,
    /// Now, in nanoseconds of CLOCK_MONOTONIC.
    pub now_ns: u64,
}

/// Why a stranger is not sent what the rules permit: it has spent its budget.
// [`admit`] by itself looks up who has the stranger's address: with that, Linux 6.1 finds more on the BPF stack than there is, below what departs.
#[inline(always)]
pub fn afford<T: Tables>(tables: &T, delivery: &Delivery) -> Option<Reason> {
    let Delivery { client, class, bytes, now_ns } = *delivery;
    let claimed = Address::UNSPECIFIED;
    admit(tables, &Admission { client, claimed, class: Some(class), bytes, estranged: false, now_ns })
}

/// Why the stranger's budgets do not allow this; nothing where they do.
#[inline(always)]
fn spent<T: Tables>(
    budgets: Option<&Budgets<T::Word>>,
    config: &GateConfig,
    class: Class,
    bytes: u64,
    now_ns: u64,
) -> Option<Reason> {
    let Some(budgets) = budgets else {
        // No row: the kernel has no room, and fails closed; or a stranger that was not seen yet, where nothing may be changed. It has spent nothing.
        return if T::LIVE { Some(class.exhausted()) } else { forbidden(config, class, bytes) };
    };
    // A query is counted in both ways.
    spend::<T>(budgets, config, class, bytes, now_ns).or_else(|| {
        if matches!(class, Class::DnsQueries) {
            spend::<T>(budgets, config, Class::DnsBytes, bytes, now_ns)
        } else {
            None
        }
    })
}

/// Why this is too much even for who has spent nothing; nothing where it is not.
#[inline(always)]
fn forbidden(config: &GateConfig, class: Class, bytes: u64) -> Option<Reason> {
    let too_much = |class: Class| config.limits()[class as usize].forbids(class.units(bytes));
    if too_much(class) {
        return Some(class.exhausted());
    }
    (matches!(class, Class::DnsQueries) && too_much(Class::DnsBytes)).then_some(Reason::BudgetDnsBytes)
}

/// Why the budget does not allow this; nothing where it does.
#[inline(always)]
fn spend<T: Tables>(
    budgets: &Budgets<T::Word>,
    config: &GateConfig,
    class: Class,
    bytes: u64,
    now_ns: u64,
) -> Option<Reason> {
    let (bucket, limit) = (&budgets.buckets[class as usize], &config.limits()[class as usize]);
    let cost = limit.cost_ns(class.units(bytes));
    let enough = !limit.is_limited()
        || if T::LIVE {
            bucket::spend(bucket, now_ns, cost, limit.burst_ns())
        } else {
            bucket::has(bucket, now_ns, cost, limit.burst_ns())
        };
    (!enough).then_some(class.exhausted())
}

/// Whether this stranger's trouble may be told again.
#[inline(always)]
fn may_tell<W: Word>(budgets: &Budgets<W>, now_ns: u64) -> bool {
    let told = budgets.told_ns.load();
    let due = told == 0 || now_ns.saturating_sub(told) > TOLD_EVERY_NS;
    due && budgets.told_ns.replace(told, now_ns)
}
