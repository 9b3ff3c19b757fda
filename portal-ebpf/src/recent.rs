//! The accelerator: packets of clients that are not metered, and that need not be looked at for a while.
#![expect(unsafe_code, reason = "rows are shared with the other CPUs and with user space, which sets the mask")]

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use portal_common::{
    decide::is_bound,
    tables::{AddressWord, ClientKey, Seal, SealKeys, recent_row, rests_until},
    word::Word,
};

use crate::{
    maps::{CLIENTS, RECENT},
    tables::{look_up, may_be_there},
    word::KernelWord,
};

/// Which bits of an address tell its row; 0 where nothing is kept. User space sets it before the program is loaded: to the verifier it is a constant, and what
/// it rules out is not part of the program.
#[unsafe(no_mangle)]
static RECENT_MASK: u32 = 0;

/// The secrets of the seals. User space sets them before the program is loaded: a gate's seals are its own, as its table is.
#[unsafe(no_mangle)]
static RECENT_KEYS: SealKeys = SealKeys([[0; 2]; 2]);

#[inline(always)]
fn keys() -> SealKeys {
    // SAFETY: as in `mask`.
    unsafe { (&raw const RECENT_KEYS).read_volatile() }
}

#[inline(always)]
fn mask() -> u32 {
    // SAFETY: it lies in read-only memory. Volatile, as the compiler must not know what user space is to set.
    unsafe { (&raw const RECENT_MASK).read_volatile() }
}

#[inline(always)]
fn row(client: ClientKey, address: AddressWord) -> Option<&'static KernelWord> {
    let mask = mask();
    if mask == 0 { None } else { RECENT.get(recent_row(client, address, mask)).map(|row| &row.seal) }
}

/// Whether there is an accelerator.
#[inline(always)]
pub(crate) fn is_kept() -> bool {
    mask() != 0
}

/// Whether the client's packets from this address need not be looked at.
#[inline(always)]
pub(crate) fn rests(client: ClientKey, address: AddressWord, now_ns: u64) -> bool {
    // The filter first: a stranger is not to wait for a row that is in no cache. To be asked twice costs him 5 to 13 ns.
    let Some(row) = row(client, address).filter(|_| may_be_there(client)) else { return false };
    Seal::from_word(Word::load(row)).holds(&keys(), client, address, now_ns)
}

/// Notes that the client's packets from this address need not be looked at for a while.
///
/// This CPU claims the row first; then it looks at the session, whether all is still so; then the seal takes the claim's place, if that still stands. Whoever changes
/// the session changes it first, and then empties the row. As there is a fence between the two in both ways, either this CPU sees the change, or its claim is gone: so
/// from the moment the row is empty no seal of the old session comes into it, however long a CPU is held up here. An atomic addition that gives back what was there
/// is a fence.
#[inline(always)]
pub(crate) fn rest(client: ClientKey, address: AddressWord, now_ns: u64) {
    let Some((slot, _)) = look_up(client) else { return };
    let (Some(row), Some(member)) = (row(client, address), CLIENTS.get_ptr(slot)) else { return };
    // SAFETY: within the table. Volatile: it is to be read twice.
    let session = || unsafe { (&raw const (*member).session).read_volatile() };
    let until = rests_until(&session(), now_ns);
    let seal = Seal::new(&keys(), client, address, until);
    if !seal.holds(&keys(), client, address, now_ns) {
        return;
    }
    // It holds for nobody: its hash is zero.
    // SAFETY: a helper without arguments.
    let claim = u64::from(unsafe { bpf_get_smp_processor_id() }) + 1;
    Word::store(row, claim);
    row.add(0);
    // SAFETY: as above.
    let there = unsafe { (&raw const (*member).client).read_volatile() } == client;
    // SAFETY: as above; words that several CPUs change.
    let state = unsafe { &(*member).state };
    if there && rests_until(&session(), now_ns) == until && is_bound(&state.bindings, address) {
        row.replace(claim, seal.to_word());
    }
}

/// Takes that back, after what has been changed before. If the row is another's by now, that one's next packet is looked at, and notes it again.
#[inline(always)]
pub(crate) fn rouse(client: ClientKey, address: AddressWord) {
    let Some(row) = row(client, address) else { return };
    // A fence: see `rest`.
    row.add(0);
    Word::store(row, Seal::NONE);
}
