//! Answering a request that the responder has answered before: by comparing its bytes with those that the daemon has written into a table.
//!
//! A function of its own, as those of [`crate::apart`] are. It is one copy of the request into this CPU's memory, its hash, one comparison, and one copy of the
//! response into the frame: a whole exchange takes 1.5 µs of the gateway's CPU so, and 2.8 µs by way of the responder.
#![expect(
    unsafe_code,
    reason = "rows are shared with user space, and an exported symbol is what makes a function global"
)]

use aya_ebpf::{
    bindings::xdp_md,
    helpers::generated::{bpf_xdp_load_bytes, bpf_xdp_store_bytes},
};
use portal_common::{
    answer::Response,
    checksum::Sum,
    cookie::{RESPONSE_MAX, RESPONSE_MIN},
    decide::Case,
    multilinear::absorb,
    tables::{KNOWN_REQUEST_MAX, KNOWN_REQUEST_WORDS, KNOWN_STATUSES, KnownAnswer, KnownPlace, asked, is_known},
    word::Word as _,
};

use crate::{
    maps::{KNOWN, KNOWN_GIVEN, REQUESTS},
    packet::Packet,
    tables::{Program, case},
    word::{KernelWord, opaque},
};

/// What became of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The frame is the answer.
    Answered,
    /// The frame is as it was: the responder sees to it.
    Unknown,
    /// The frame is neither.
    Failed,
}

const ANSWERED: u32 = 1;
const FAILED: u32 = 2;
/// How exactly it is known when a row was used: each use would be a write to a line that all CPUs read.
const USED_TO_NS: u64 = 1_000_000_000;

/// How many words are hashed or compared at once: each look whether that is all is verified in both its ways.
const CHUNK: usize = 4;

const _: () = assert!(KNOWN_REQUEST_MAX.is_power_of_two() && KNOWN_STATUSES.is_power_of_two());
/// Bounds where the network header starts: at least the longest Ethernet header, 22 bytes.
const NETWORK_AT_MASK: usize = 0x1f;
/// A bound that the verifier can see: the least mask that a response's length fits.
const RESPONSE_MASK: u32 = RESPONSE_MAX.next_power_of_two() as u32 - 1;
const _: () = assert!((RESPONSE_MASK as usize) < size_of::<KnownAnswer>());

/// Makes the frame of this context, with the request of this CPU's case, the answer to it, if that is known.
#[inline(always)]
pub(crate) fn answer_known(live: bool, ctx: *mut xdp_md) -> Outcome {
    match portal_known(ctx, u64::from(live)) {
        ANSWERED => Outcome::Answered,
        FAILED => Outcome::Failed,
        _ => Outcome::Unknown,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn portal_known(ctx: *mut xdp_md, live: u64) -> u32 {
    let program = if live == 0 { Program::Explain } else { Program::Gate };
    let Some(case) = case(program) else { return 0 };
    let Some((row, version, memory)) = find(ctx, case, program) else { return 0 };
    // Masked, as Linux 6.1 forgets what a comparison has told it of a word that then comes back from the stack.
    let (family, network_at) = (case.decision.answer.family, case.decision.answer.network_at & NETWORK_AT_MASK);
    let (seq, ack) = (case.decision.answer.seq, case.decision.answer.ack);
    // SAFETY: words of a row of the table; so below. What is read is believed only if the version is still the same in the end.
    let (answer, sum) =
        unsafe { ((&raw const (*row).answer).read_volatile(), (&raw const (*row).sum).read_volatile()) };
    let len = answer as u32;
    if len < RESPONSE_MIN as u32 || len > RESPONSE_MAX as u32 {
        return 0;
    }
    let response = Response { family, network_at, seq, ack, len: len as usize, sum: Sum::from_raw(sum) };
    let mut packet = Packet::over(ctx);
    if !packet.resize(response.frame_len()) {
        return 0;
    }
    // No more than is known already: see `record::write`.
    let len = (opaque(len).wrapping_sub(1) & RESPONSE_MASK) + 1;
    // SAFETY: the row has so many bytes from its start on; the kernel checks that the frame has room for them.
    let written = response.write_headers(&mut packet).is_some()
        && unsafe { bpf_xdp_store_bytes(ctx, response.payload_at() as u32, row.cast(), len) == 0 };
    fence(memory);
    // SAFETY: as above.
    if !written || unsafe { (&raw const (*row).version).read_volatile() } != version {
        return FAILED;
    }
    if live != 0 {
        count((answer >> 32) as usize);
        // SAFETY: an aligned word that only the gate writes; two CPUs that do so at once write much the same.
        unsafe {
            let used_ns = &raw mut (*row).used_ns;
            if case.now_ns().wrapping_sub(used_ns.read_volatile()) > USED_TO_NS {
                used_ns.write_volatile(case.now_ns());
            }
        }
    }
    ANSWERED
}

/// The row with the case's request, its version, and this CPU's memory.
#[inline(always)]
fn find(ctx: *mut xdp_md, case: &Case, program: Program) -> Option<(*mut KnownAnswer, u64, *mut u64)> {
    let memory = REQUESTS.get_ptr_mut(program as u32)?.cast::<u64>();
    let request = case.decision.request;
    // No more than was decided; but it is read from a map.
    let len = (opaque(u32::from(request.len)).wrapping_sub(1) & (KNOWN_REQUEST_MAX as u32 - 1)) + 1;
    let chunks = len.div_ceil(CHUNK as u32 * 8);
    // SAFETY: this CPU's own, with room for the longest request; the last chunk is zero behind the request, as in a row.
    unsafe {
        let last = memory.add(((chunks as usize - 1) * CHUNK) & (KNOWN_REQUEST_WORDS - CHUNK));
        let mut i = 0;
        while i < CHUNK {
            last.add(i).write_volatile(0);
            i += 1;
        }
        if bpf_xdp_load_bytes(ctx, u32::from(request.at), memory.cast(), len) != 0 {
            return None;
        }
    }
    let seeds = KNOWN.get_ptr(0)?.cast::<u64>();
    let asked = asked(case.client().zone(), case.decision.answer.family, len as usize);
    // SAFETY: the first row has two words for each that is hashed, which user space has written before the program was attached.
    let seed = |i: usize| unsafe { [seeds.add(2 * i).read(), seeds.add(2 * i + 1).read()] };
    let mut hash = absorb(0, asked, seed(0));
    // SAFETY: the request's words, as far as they were loaded.
    for_each_word(chunks, |i| hash = absorb(hash, unsafe { memory.add(i).read() }, seed(i + 1)));
    let place = KnownPlace::of(hash);
    let (one, other) = (KNOWN.get_ptr_mut(place.rows[0])?, KNOWN.get_ptr_mut(place.rows[1])?);
    // SAFETY: as above.
    let row = if unsafe { (&raw const (*one).hash).read_volatile() } == hash { one } else { other };
    // SAFETY: as above.
    let version = unsafe { (&raw const (*row).version).read_volatile() };
    if !is_known(version) {
        return None;
    }
    fence(memory);
    // SAFETY: as above.
    let mut differs = unsafe { (&raw const (*row).hash).read_volatile() ^ hash }
        // SAFETY: as above.
        | unsafe { (&raw const (*row).asked).read_volatile() ^ asked };
    for_each_word(chunks, |i| {
        // SAFETY: as above.
        differs |= unsafe { (&raw const (*row).request).cast::<u64>().add(i).read_volatile() ^ memory.add(i).read() };
    });
    // As many words as the length says, which is compared too.
    if differs == 0 { Some((row, version, memory)) } else { None }
}

/// Does this with each word of the first chunks, by its number.
#[inline(always)]
fn for_each_word(chunks: u32, mut f: impl FnMut(usize)) {
    let mut chunk = 0;
    while chunk < KNOWN_REQUEST_WORDS / CHUNK {
        // Opaque, or the two bounds become one that Linux 6.1 cannot see.
        if chunk as u32 >= opaque(chunks) {
            break;
        }
        let mut i = chunk * CHUNK;
        while i < (chunk + 1) * CHUNK {
            f(i);
            i += 1;
        }
        chunk += 1;
    }
}

/// Keeps what is read before it apart from what is read after it: BPF has no fence before Linux 6.15, but an atomic instruction that gives back a value is one
/// (Linux `Documentation/bpf/standardization/instruction-set.rst`, and the kernel's own `atomic_fetch_add`). On a word of this CPU's own.
#[inline(always)]
fn fence(memory: *mut u64) {
    // SAFETY: the word behind the request, which is for this alone.
    let word = unsafe { KernelWord::from_ptr(memory.add(KNOWN_REQUEST_WORDS)) };
    word.add(1);
}

#[inline(always)]
fn count(status: usize) {
    if let Some(given) = KNOWN_GIVEN.get_ptr_mut(0) {
        let slot = opaque(status as u32) as usize & (KNOWN_STATUSES - 1);
        // SAFETY: the slot is within the array, and this CPU's copy has no other writer.
        unsafe { (*given)[slot] += 1 };
    }
}
