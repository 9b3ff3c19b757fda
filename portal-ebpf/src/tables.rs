//! What the decision looks up and changes, in the maps.
#![expect(unsafe_code, reason = "map values are shared with the other CPUs and with user space")]

use core::{mem::MaybeUninit, ptr};

use aya_ebpf::{
    bindings::{__sk_buff, BPF_ANY, BPF_NOEXIST, xdp_md},
    btf_maps::lpm_trie::Key,
    helpers::generated::{bpf_jiffies64, bpf_ktime_get_coarse_ns},
};
use portal_common::{
    Reason, bucket,
    budget::{Budgets, Limit},
    decide::{Admission, Binding, Case, Delivery, Member, Passage, Tables},
    event::{Event, Lost},
    frame::Frame,
    reason::REASON_SLOTS,
    tables::{
        Address, AddressHash, AddressOwner, AddressWord, Attachment, ClientKey, ClientRow, ClientState, ConnectionKey,
        ConnectionNote, CookieKeys, GardenKey, GateConfig, OwnedAddress, OwnedWord, Question, Service, ServiceKey,
        SessionIndex, Source, ZONE_PROBES, ZONE_ROWS, Zone,
    },
};

use crate::apart;
use crate::maps::{
    CASES, CLIENTS, CLOCK, CONFIG, CONNECTIONS, COOKIE_KEYS, COUNTERS, EVENTS, GARDEN, INDEX, LEARNED, LOST, OWNERS,
    QUESTIONS, SERVICES, SOURCES, STRANGERS, ZONES,
};
use crate::recent;
use crate::word::KernelWord;

/// The tables as the kernel holds them, for frames that cross this interface. Without `LIVE` nothing in them is changed.
pub(crate) struct Kernel<const LIVE: bool> {
    pub(crate) ifindex: u32,
    /// The frame's context; null where no frame arrives.
    pub(crate) ctx: *mut xdp_md,
    /// The frame's context; null where no frame departs.
    pub(crate) skb: *mut __sk_buff,
}

impl<const LIVE: bool> Kernel<LIVE> {
    /// For a frame that arrives.
    #[inline(always)]
    pub(crate) const fn arriving(ifindex: u32, ctx: *mut xdp_md) -> Self {
        Self { ifindex, ctx, skb: ptr::null_mut() }
    }

    /// For a frame that departs.
    #[inline(always)]
    pub(crate) const fn departing(ifindex: u32, skb: *mut __sk_buff) -> Self {
        Self { ifindex, ctx: ptr::null_mut(), skb }
    }
}

/// Whose case it is.
#[derive(Clone, Copy)]
pub(crate) enum Program {
    Gate = 0,
    Explain = 1,
    Meter = 2,
    ExplainOut = 3,
}

/// What a row holds when the gate is loaded, with the one part written that a row of zeros lacks: there is no reason 0. It is never used: to make it,
/// the compiler checks that it is a case.
const _: Case = {
    let mut row = MaybeUninit::<Case>::zeroed();
    // SAFETY: the row is this constant's own, and the compiler looks at what comes of it.
    unsafe {
        begin(row.as_mut_ptr());
        row.assume_init()
    }
};

/// Makes a row a case: one that held zeros, or a case already.
///
/// # Safety
/// The row can be written.
#[inline(always)]
const unsafe fn begin(row: *mut Case) {
    // SAFETY: as the caller says. No reference is made before there is a case.
    unsafe { (&raw mut (*row).decision.reason).write(Reason::ConfigMissing) };
}

/// The case for a frame that this CPU begins to decide about.
#[inline(always)]
pub(crate) fn new_case<'a>(of: Program) -> Option<&'a mut Case> {
    let row = CASES.get_ptr_mut(of as u32)?;
    // SAFETY: as for `case`, and now it is one.
    unsafe {
        begin(row.cast());
        Some(&mut *row.cast())
    }
}

/// The case of the frame that this CPU decides about, after [`new_case`].
#[inline(always)]
pub(crate) fn case<'a>(of: Program) -> Option<&'a mut Case> {
    let row = CASES.get_ptr_mut(of as u32)?;
    // SAFETY: the row has the case's size and is aligned like it, and the program has begun it. It is this CPU's own, and one frame is done with before
    // the next: no program is interrupted by another run of itself.
    Some(unsafe { &mut *row.cast() })
}

/// The kernel's key is a length of four bytes, then the data, which the BPF stack holds only where eight bytes are aligned.
#[repr(C, align(8))]
struct Aligned {
    padding: u32,
    key: Key<GardenKey>,
}

impl Aligned {
    /// Of which all bits count.
    #[inline(always)]
    fn whole(key: GardenKey) -> Self {
        let aligned = Self { padding: 0, key: Key::new(GardenKey::ALL_BITS, key) };
        let _ = aligned.padding;
        aligned
    }
}

/// Whether clients of this zone may have this address.
#[inline(always)]
pub(crate) fn is_own_source(zone: Zone, address: Address) -> bool {
    // SAFETY: one aligned word.
    SOURCES
        .get(&Aligned::whole(GardenKey::of_source(zone, address)).key)
        .is_some_and(|&source| source == Source::Own as u32)
}

/// How many events a CPU may tell in a second, and at once: enough to see what is going on.
const EVENTS_PER_SECOND: u64 = 1000;
const EVENTS_AT_ONCE: u64 = 1000;

/// A stranger that has spent nothing.
static NEW_STRANGER: Budgets<u64> = Budgets { buckets: [0; 6], told_ns: 0, connections: 0 };

impl<const L: bool> Tables for Kernel<L> {
    const LIVE: bool = L;
    type Word = KernelWord;

    #[inline(always)]
    fn zone(&self, outer: u16, inner: u16) -> Option<Zone> {
        let attachment = Attachment::new(self.ifindex, outer, inner);
        let mut row = attachment.row();
        let mut probe = 0;
        while probe < ZONE_PROBES {
            if let Some(zone) = ZONES.get(row)?.zone_of(attachment) {
                return Some(zone);
            }
            row = (row + 1) & (ZONE_ROWS - 1);
            probe += 1;
        }
        None
    }

    #[inline(always)]
    fn config(&self, zone: Zone) -> Option<&GateConfig> {
        CONFIG.get(u32::from(zone.number()))
    }

    #[inline(always)]
    fn member(&self, client: &ClientKey) -> Option<Member<'_, KernelWord>> {
        let (_, row) = find(*client)?;
        Some((&row.session, &row.state))
    }

    #[inline(always)]
    fn member_apart(&self, client: &ClientKey) -> Option<Member<'_, KernelWord>> {
        let row = CLIENTS.get(apart::call_find(*client)?)?;
        // It may have become another's.
        if row.client == *client { Some((&row.session, &row.state)) } else { None }
    }

    #[inline(always)]
    fn state(&self, slot: u32) -> Option<&ClientState<KernelWord>> {
        CLIENTS.get(slot).map(|row| &row.state)
    }

    #[inline(always)]
    fn rests(&self, client: ClientKey, address: AddressWord, now_ns: u64) -> bool {
        recent::rests(client, address, now_ns)
    }

    #[inline(always)]
    fn rest(&self, client: ClientKey, address: AddressWord, now_ns: u64) {
        if L && recent::is_kept() {
            apart::call_rest(client, address, now_ns);
        }
    }

    #[inline(always)]
    fn rouse(&self, client: ClientKey, address: AddressWord) {
        if L {
            recent::rouse(client, address);
        }
    }

    #[inline(always)]
    fn address_hash(&self) -> AddressHash {
        // Without an index nobody is logged in, and no address is looked for.
        INDEX.get(0).map_or(AddressHash::new(0), |header| SessionIndex::from_bucket(header).address_hash())
    }

    #[inline(always)]
    fn service(&self, destination: &ServiceKey) -> Option<Service> {
        // SAFETY: one aligned word.
        let number = *unsafe { SERVICES.get(destination) }?;
        Service::try_from(number).ok()
    }

    #[inline(always)]
    fn garden(&self, destination: &GardenKey) -> bool {
        GARDEN.get(&Aligned::whole(*destination).key).is_some()
    }

    #[inline(always)]
    fn is_own_source(&self, client: &ClientKey, address: Address) -> bool {
        apart::call_source(*client, address)
    }

    #[inline(always)]
    fn learned_until(&self, destination: &ServiceKey) -> Option<u64> {
        // SAFETY: one aligned word.
        unsafe { LEARNED.get(destination) }.copied()
    }

    #[inline(always)]
    fn owner(&self, address: &OwnedAddress) -> Option<ClientKey> {
        // SAFETY: only the first word is read, which is aligned. A row that is replaced meanwhile is another one.
        unsafe { OWNERS.get(address.row(&self.address_hash())) }.map(|owner| owner.client)
    }

    #[inline(always)]
    fn owner_of(&self, zone: Zone, address: AddressWord) -> Option<ClientKey> {
        // SAFETY: as above.
        unsafe { OWNERS.get(OwnedWord::new(zone, address)) }.map(|owner| owner.client)
    }

    #[inline(always)]
    fn own(&self, address: &OwnedAddress, client: ClientKey) -> bool {
        let owner = AddressOwner { client, address: address.address() };
        OWNERS.insert(address.row(&self.address_hash()), owner, 0).is_ok()
    }

    #[inline(always)]
    fn disown(&self, address: &OwnedWord, client: ClientKey) {
        // SAFETY: as above.
        if unsafe { OWNERS.get(address) }.is_some_and(|owner| owner.client == client) {
            // It may be gone already.
            let _: Result<(), i32> = OWNERS.remove(address);
        }
    }

    #[inline(always)]
    fn budgets(&self, stranger: &ClientKey) -> Option<&Budgets<KernelWord>> {
        // SAFETY: its words are atomic. A row that is evicted meanwhile is another's in the worst case, who gets a packet more or less.
        unsafe { STRANGERS.get(stranger) }
    }

    #[inline(always)]
    fn open_budgets(&self, stranger: &ClientKey) -> bool {
        // SAFETY: the same bytes; words are atomic only where they are shared.
        let empty: &Budgets<KernelWord> = unsafe { &*(&raw const NEW_STRANGER).cast() };
        // Another CPU may have been faster: then it is not new.
        STRANGERS.insert(stranger, empty, u64::from(BPF_NOEXIST)).is_ok()
    }

    #[inline(always)]
    fn connection(&self, key: &ConnectionKey) -> Option<ConnectionNote> {
        // SAFETY: two aligned words. A row that is evicted meanwhile is no note any more, whichever it becomes.
        unsafe { CONNECTIONS.get(key) }.copied()
    }

    #[inline(always)]
    fn note(&self, key: &ConnectionKey, note: ConnectionNote, anew: bool) -> bool {
        let flags = if anew { BPF_NOEXIST } else { BPF_ANY };
        L && CONNECTIONS.insert(key, note, u64::from(flags)).is_ok()
    }

    #[inline(always)]
    fn cookie_keys(&self) -> Option<&CookieKeys> {
        COOKIE_KEYS.get(0)
    }

    #[inline(always)]
    fn tell(&self, event: &Event) {
        if L {
            tell(event);
        }
    }

    #[inline(always)]
    fn stranger<F: Frame + ?Sized>(&self, _frame: &F, _config: &GateConfig, _case: &mut Case) {
        apart::call_stranger(L, self.ctx);
    }

    #[inline(always)]
    fn contradiction<F: Frame + ?Sized>(&self, _frame: &F, _case: &Case) -> Option<Reason> {
        apart::call_contradiction(L, self.ctx)
    }

    #[inline(always)]
    fn is_related<F: Frame + ?Sized>(&self, _frame: &F, _config: &GateConfig, _case: &Case) -> bool {
        apart::call_related(L, self.ctx)
    }

    #[inline(always)]
    fn bind(&self, request: &Binding) -> bool {
        apart::call_bind(L, request)
    }

    #[inline(always)]
    fn admit(&self, request: &Admission) -> Option<Reason> {
        apart::call_admit(L, request)
    }

    #[inline(always)]
    fn afford(&self, delivery: &Delivery) -> Option<Reason> {
        apart::call_afford(L, delivery)
    }

    #[inline(always)]
    fn follow<F: Frame + ?Sized>(&self, _frame: &F, _config: &GateConfig, _case: &mut Case) {
        apart::call_follow(L, self.ctx);
    }

    #[inline(always)]
    fn asked_at(&self, question: &Question) -> Option<u64> {
        // SAFETY: one aligned word.
        unsafe { QUESTIONS.get(question) }.copied()
    }

    #[inline(always)]
    fn note_question(&self, question: &Question, now_ns: u64) {
        if L {
            // No room: that the answer does not pass is all that comes of it, and the client asks again.
            let _: Result<(), i32> = QUESTIONS.insert(question, now_ns, 0);
        }
    }

    #[inline(always)]
    fn ask<F: Frame + ?Sized>(&self, _frame: &F, _case: &Case) {
        if L {
            apart::call_ask(self.ctx);
        }
    }

    #[inline(always)]
    fn depart<F: Frame + ?Sized>(&self, _frame: &F, _config: &GateConfig, passage: Passage, _case: &mut Case) {
        apart::call_depart(L, self.skb, passage);
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        // The coarse clock changes with the tick, and costs a call; the tick's number costs none: the kernel inlines its helper. 14 ns and 1 ns.
        // SAFETY: helpers without arguments.
        let tick = unsafe { bpf_jiffies64() };
        let Some(clock) = CLOCK.get_ptr_mut(0) else {
            // SAFETY: as above.
            return unsafe { bpf_ktime_get_coarse_ns() };
        };
        // SAFETY: this CPU's own.
        let [read_at, now_ns] = unsafe { &mut *clock };
        if *read_at != tick {
            // SAFETY: as above.
            let now = unsafe { bpf_ktime_get_coarse_ns() };
            // The kernel counts the tick a moment before it moves the clock: until then the clock is asked again.
            if *now_ns != now {
                *now_ns = now;
                *read_at = tick;
            }
        }
        *now_ns
    }
}

/// Whether the client may be in the table of clients, says its filter, if it is worth asking.
#[inline(always)]
pub(crate) fn may_be_there(client: ClientKey) -> bool {
    let Some(index) = INDEX.get(0).map(SessionIndex::from_bucket) else { return false };
    if !index.is_filtered() {
        return true;
    }
    let place = index.place(client);
    INDEX.get(place.filter.0).is_some_and(|row| row.may_have(&place))
}

/// The client's row, and which it is.
#[inline(always)]
pub(crate) fn find(client: ClientKey) -> Option<(u32, &'static ClientRow<KernelWord>)> {
    if may_be_there(client) { look_up(client) } else { None }
}

/// As [`find`], without asking the filter first: fewer words on the BPF stack.
#[inline(always)]
pub(crate) fn look_up(client: ClientKey) -> Option<(u32, &'static ClientRow<KernelWord>)> {
    let place = SessionIndex::from_bucket(INDEX.get(0)?).place(client);
    let first = INDEX.get(place.buckets[0])?;
    if let Some(slot) = first.slot_of(&place) {
        let row = CLIENTS.get(slot)?;
        if row.client == client {
            return Some((slot, row));
        }
    }
    if first.sent_away() == 0 {
        return None;
    }
    let slot = INDEX.get(place.buckets[1])?.slot_of(&place)?;
    let row = CLIENTS.get(slot)?;
    if row.client == client { Some((slot, row)) } else { None }
}

// A function of its own: it is seldom called, and from many places.
#[inline(never)]
fn tell(event: &Event) {
    const LIMIT: Limit = Limit::new(EVENTS_PER_SECOND, EVENTS_AT_ONCE);
    let Some(lost) = lost() else { return };
    // SAFETY: this CPU's own; atomic only in type.
    let bucket = unsafe { KernelWord::from_ptr(&raw mut (*lost).bucket) };
    if !bucket::spend(bucket, event.at_ns, LIMIT.cost_ns(1), LIMIT.burst_ns()) || EVENTS.output(event, 0).is_err() {
        // SAFETY: as above.
        unsafe { (*lost).events += 1 };
    }
}

/// This CPU's counts of what was lost.
#[inline(always)]
pub(crate) fn lost() -> Option<*mut Lost> {
    LOST.get_ptr_mut(0)
}

/// Counts a reason, by its number, on this CPU.
#[inline(always)]
pub(crate) fn count(row: u32, reason: usize) {
    if let Some(counters) = COUNTERS.get_ptr_mut(row) {
        let slot = reason & (REASON_SLOTS - 1);
        // SAFETY: the slot is within the array, and this CPU's copy has no other writer: the program is not preempted by another of ours.
        unsafe { (*counters).packets[slot] += 1 };
    }
}
