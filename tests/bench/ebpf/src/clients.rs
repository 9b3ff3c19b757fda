//! The lab's crowd of HTTP clients, at their end of a veth: it answers what the gateway sends in place, and so makes whole exchanges, one after
//! the other in each slot, without user space. [`portal_bench_ebpf::crowd`] says what an exchange is.
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    helpers::{bpf_ktime_get_ns, bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_load_bytes},
    macros::{map, xdp},
    maps::{Array, PerCpuArray},
    programs::XdpContext,
};
use portal_bench_ebpf::crowd::{
    Crowd, Expected, Flow, Head, KINDS, REQUEST_LEN, RESPONSE_WORDS, SYN_OPTION, Seen, Segment, Slot, TIMES, bucket,
    phase,
};
use portal_common::{
    Family,
    checksum::Sum,
    flag::{ACK, FIN, RST, SYN},
};

/// Who the clients are. Of no clients, and so of no frames, before user space has filled it.
#[map]
static CROWD: Array<Crowd> = Array::with_max_entries(1, 0);

/// The requests, by kind.
#[map]
static REQUESTS: Array<[u8; REQUEST_LEN]> = Array::with_max_entries(KINDS as u32, 0);

/// The responses, by kind and family.
#[map]
static EXPECTED: Array<Expected> = Array::with_max_entries(KINDS as u32 * 2, 0);

/// What is in flight. User space says how many slots there are.
#[map]
static SLOTS: Array<Slot> = Array::with_max_entries(1, 0);

#[map]
static SEEN: PerCpuArray<Seen> = PerCpuArray::with_max_entries(1, 0);

/// How long exchanges took.
#[map]
static TOOK: PerCpuArray<u64> = PerCpuArray::with_max_entries(TIMES, 0);

/// The response that is being checked.
#[map]
static RESPONSE: PerCpuArray<[u64; RESPONSE_WORDS]> = PerCpuArray::with_max_entries(1, 0);

/// The last response that was wrong, for people.
#[map]
static WRONG: Array<[u64; RESPONSE_WORDS]> = Array::with_max_entries(1, 0);

/// The shortest frame on a wire, without the check sequence, bytes.
const ETHERNET_MIN: usize = 60;
const LONGEST: usize = RESPONSE_WORDS * 8;

/// Plays the clients.
#[expect(clippy::needless_pass_by_value, reason = "the entry point's signature is aya's")]
#[xdp]
fn crowd(ctx: XdpContext) -> u32 {
    let (Some(crowd), Some(seen)) = (CROWD.get(0), SEEN.get_ptr_mut(0)) else { return xdp_action::XDP_ABORTED };
    // SAFETY: it is this CPU's own, and a program is not interrupted by itself.
    let seen = unsafe { &mut *seen };
    let ctx = ctx.ctx;
    let arrived = match read::<[u8; 14]>(ctx, 0) {
        Some([.., 0x08, 0x00]) => arrived_v4(ctx, crowd),
        Some([.., 0x86, 0xdd]) => arrived_v6(ctx, crowd),
        _ => None,
    };
    let Some(arrived) = arrived else {
        seen.other += 1;
        return xdp_action::XDP_DROP;
    };
    if step(ctx, crowd, seen, &arrived).is_some() { xdp_action::XDP_TX } else { xdp_action::XDP_DROP }
}

/// A TCP segment from the server.
struct Arrived {
    family: Family,
    /// Where what follows the TCP header begins in the frame, bytes.
    payload_at: u32,
    payload_len: u32,
    /// The sum of the pseudo-header and the TCP header: with the payload's it is a right one's.
    sum: Sum,
    /// The client's address, as far as it tells the client.
    client: u32,
    client_mac: [u8; 6],
    tcp: [u8; 20],
}

impl Arrived {
    #[inline(always)]
    const fn word(&self, at: usize) -> u32 {
        u32::from_be_bytes([self.tcp[at], self.tcp[at + 1], self.tcp[at + 2], self.tcp[at + 3]])
    }

    #[inline(always)]
    const fn seq(&self) -> u32 {
        self.word(4)
    }

    #[inline(always)]
    const fn ack(&self) -> u32 {
        self.word(8)
    }

    #[inline(always)]
    const fn flags(&self) -> u8 {
        self.tcp[13]
    }
}

#[inline(always)]
fn arrived_v4(ctx: *mut xdp_md, crowd: &Crowd) -> Option<Arrived> {
    let Head { ethernet, network, tcp } = read::<Head<20>>(ctx, 0)?;
    let [ver, _, l0, l1, .., d0, d1, d2, d3] = network;
    let length = u32::from(u16::from_be_bytes([l0, l1]));
    let source = [network[12], network[13], network[14], network[15]];
    if ver != 0x45 || network[9] != 6 || source != crowd.server_v4 {
        return None;
    }
    let client = u32::from_be_bytes([d0, d1, d2, d3]).wrapping_sub(u32::from_be_bytes(crowd.client_v4));
    let pseudo = Sum::new().array(&source).array(&[d0, d1, d2, d3]);
    arrived(ctx, Family::V4, &ethernet, length.checked_sub(20)?, 34, tcp, pseudo, client)
}

#[inline(always)]
fn arrived_v6(ctx: *mut xdp_md, crowd: &Crowd) -> Option<Arrived> {
    let Head { ethernet, network, tcp } = read::<Head<40>>(ctx, 0)?;
    let length = u32::from(u16::from_be_bytes([network[4], network[5]]));
    let [.., c0, c1, c2, c3] = network;
    let [.., b0, b1, b2, b3] = crowd.client_v6;
    let mut foreign = u8::from(network[0] != 0x60) | u8::from(network[6] != 6);
    let mut i = 0;
    while i < 16 {
        foreign |= network[8 + i] ^ crowd.server_v6[i];
        i += 1;
    }
    let mut i = 0;
    while i < 12 {
        foreign |= network[24 + i] ^ crowd.client_v6[i];
        i += 1;
    }
    if foreign != 0 {
        return None;
    }
    let client = u32::from_be_bytes([c0, c1, c2, c3]).wrapping_sub(u32::from_be_bytes([b0, b1, b2, b3]));
    let mut addresses = [0; 32];
    let mut i = 0;
    while i < 32 {
        addresses[i] = network[8 + i];
        i += 1;
    }
    arrived(ctx, Family::V6, &ethernet, length, 54, tcp, Sum::new().array(&addresses), client)
}

#[expect(clippy::too_many_arguments, reason = "inlined, it is the end of two functions that differ in what they pass")]
#[inline(always)]
fn arrived(
    ctx: *mut xdp_md,
    family: Family,
    ethernet: &[u8; 14],
    length: u32,
    tcp_at: u32,
    tcp: [u8; 20],
    pseudo: Sum,
    client: u32,
) -> Option<Arrived> {
    let header_len = u32::from(tcp[12] >> 4) * 4;
    let payload_len = length.checked_sub(header_len)?;
    let mut sum = pseudo.word(6).word(length as u16).array(&tcp);
    let options_at = tcp_at + 20;
    match header_len {
        20 => {}
        // The one option that either server sends.
        24 => sum = sum.array(&read::<[u8; 4]>(ctx, options_at as usize)?),
        _ => return None,
    }
    let [m0, m1, m2, m3, m4, m5, ..] = *ethernet;
    let client_mac = [m0, m1, m2, m3, m4, m5];
    Some(Arrived { family, payload_at: tcp_at + header_len, payload_len, sum, client, client_mac, tcp })
}

/// Takes the exchange one step further; whether there is something to send.
#[inline(always)]
fn step(ctx: *mut xdp_md, crowd: &Crowd, seen: &mut Seen, arrived: &Arrived) -> Option<()> {
    let number = Crowd::slot_of(arrived.ack());
    let Some(slot) = SLOTS.get_ptr_mut(number) else {
        seen.foreign += 1;
        return None;
    };
    // SAFETY: one frame of an exchange is in flight at a time, so that one CPU at a time has its slot. User space only writes to one that is stuck.
    let slot = unsafe { &mut *slot };
    let flow = crowd.flow(number, slot.round);
    let [p0, p1, q0, q1, ..] = arrived.tcp;
    let (from, to) = (u16::from_be_bytes([p0, p1]), u16::from_be_bytes([q0, q1]));
    let mine = from == 80
        && to == flow.port
        && arrived.client == flow.client
        && arrived.client_mac == Crowd::mac(flow.client)
        && arrived.family as u32 == flow.family as u32;
    let progress = arrived.ack().wrapping_sub(flow.isn);
    if !mine || progress > ASKED + 1 {
        seen.foreign += 1;
        return None;
    }
    if arrived.flags() & RST != 0 {
        seen.resets += 1;
        return begin_next(ctx, crowd, seen, slot, number);
    }
    let verifies = crowd.verifies_checksums != 0;
    if verifies && arrived.payload_len == 0 && arrived.sum.checksum() != 0 {
        seen.wrong_checksum += 1;
        return None;
    }
    let (seq, next) = (arrived.seq(), slot.server_next);
    let has_fin = arrived.flags() & FIN != 0;
    let empty = arrived.payload_len == 0;
    match (slot.phase, arrived.flags() & (SYN | ACK), progress) {
        (phase::OPENING, HANDSHAKE, 1) if empty && !has_fin => {
            seen.handshakes += 1;
            slot.phase = phase::ASKED;
            slot.server_next = seq.wrapping_add(1);
            slot.moves = slot.moves.wrapping_add(1);
            let request = REQUESTS.get(flow.kind)?;
            let sum = Sum::new().array(request);
            let segment =
                Segment { seq: flow.isn.wrapping_add(1), ack: Some(slot.server_next), fin: false, request: Some(sum) };
            send(ctx, crowd, seen, &flow, &segment, Some(request))
        }
        (phase::ASKED, ACK, ASKED) if empty && !has_fin && seq == next => {
            seen.acknowledgements += 1;
            None
        }
        (phase::ASKED, ACK, ASKED) if !empty && seq == next => {
            if !is_right(ctx, crowd, seen, &flow, arrived) {
                return begin_next(ctx, crowd, seen, slot, number);
            }
            if let Some(count) = seen.responses.get_mut(flow.kind as usize) {
                *count += 1;
            }
            // SAFETY: it only reads a clock.
            let took = unsafe { bpf_ktime_get_ns() }.wrapping_sub(slot.began_ns);
            if let Some(count) = TOOK.get_ptr_mut(bucket(took)) {
                // SAFETY: it is this CPU's own.
                unsafe { *count += 1 };
            }
            slot.server_next = next.wrapping_add(arrived.payload_len);
            slot.moves = slot.moves.wrapping_add(1);
            if !has_fin {
                slot.phase = phase::ANSWERED;
                return None;
            }
            close(ctx, crowd, seen, slot, &flow)
        }
        (phase::ANSWERED, ACK, ASKED) if empty && has_fin && seq == next => close(ctx, crowd, seen, slot, &flow),
        (phase::CLOSING, ACK, CLOSED) if empty && !has_fin && seq == next => {
            seen.completed += 1;
            begin_next(ctx, crowd, seen, slot, number)
        }
        _ => {
            seen.unexpected += 1;
            None
        }
    }
}

const HANDSHAKE: u8 = SYN | ACK;
/// How far the server has acknowledged when it has the request.
const ASKED: u32 = 1 + REQUEST_LEN as u32;
const CLOSED: u32 = ASKED + 1;

/// Sends the FIN that acknowledges the server's.
#[inline(always)]
fn close(ctx: *mut xdp_md, crowd: &Crowd, seen: &mut Seen, slot: &mut Slot, flow: &Flow) -> Option<()> {
    slot.phase = phase::CLOSING;
    slot.server_next = slot.server_next.wrapping_add(1);
    slot.moves = slot.moves.wrapping_add(1);
    let segment = Segment { seq: flow.isn.wrapping_add(ASKED), ack: Some(slot.server_next), fin: true, request: None };
    send(ctx, crowd, seen, flow, &segment, None)
}

/// Makes the frame the SYN of the slot's next exchange.
#[inline(always)]
fn begin_next(ctx: *mut xdp_md, crowd: &Crowd, seen: &mut Seen, slot: &mut Slot, number: u32) -> Option<()> {
    slot.moves = slot.moves.wrapping_add(1);
    slot.round = slot.round.wrapping_add(1);
    if slot.round >= crowd.rounds {
        slot.phase = phase::DONE;
        return None;
    }
    slot.phase = phase::OPENING;
    // SAFETY: it only reads a clock.
    slot.began_ns = unsafe { bpf_ktime_get_ns() };
    let flow = crowd.flow(number, slot.round);
    seen.opened += 1;
    let segment = Segment { seq: flow.isn, ack: None, fin: false, request: None };
    send(ctx, crowd, seen, &flow, &segment, None)
}

/// Whether a response is the expected one in every byte that counts.
#[inline(always)]
fn is_right(ctx: *mut xdp_md, crowd: &Crowd, seen: &mut Seen, flow: &Flow, arrived: &Arrived) -> bool {
    let expected = EXPECTED.get(flow.kind * 2 + flow.family as u32);
    let (Some(expected), Some(response)) = (expected, RESPONSE.get_ptr_mut(0)) else { return false };
    // SAFETY: it is this CPU's own.
    let response = unsafe { &mut *response };
    let length = arrived.payload_len;
    if length == 0 || length as usize > LONGEST {
        seen.wrong_bytes += 1;
        return false;
    }
    // SAFETY: there is room for so many bytes.
    let loaded = unsafe { bpf_xdp_load_bytes(ctx, arrived.payload_at, response.as_mut_ptr().cast(), length) } == 0;
    let mut wrong = u64::from(!loaded) | u64::from(length != expected.length);
    // What is behind the response in its last word does not count, by the mask; nor do words behind that.
    for (word, [value, mask]) in response.iter().zip(&expected.words) {
        wrong |= (word ^ value) & mask;
    }
    if wrong != 0 {
        seen.wrong_bytes += 1;
        if let Some(sample) = WRONG.get_ptr_mut(0) {
            // SAFETY: it is for people: two CPUs could mix theirs.
            unsafe { *sample = *response };
        }
        return false;
    }
    let sum = arrived.sum.sum(Sum::from_raw(expected.sum));
    if crowd.verifies_checksums != 0 && sum.checksum() != 0 {
        seen.wrong_checksum += 1;
        return false;
    }
    true
}

/// Writes a segment over the frame; whether that could be done.
#[inline(always)]
fn send(
    ctx: *mut xdp_md,
    crowd: &Crowd,
    seen: &mut Seen,
    flow: &Flow,
    segment: &Segment,
    request: Option<&[u8; REQUEST_LEN]>,
) -> Option<()> {
    let done = match flow.family {
        Family::V4 => resize(ctx, 54 + segment.rest_len()).and_then(|()| write(ctx, 0, crowd.head_v4(flow, segment))),
        Family::V6 => resize(ctx, 74 + segment.rest_len()).and_then(|()| write(ctx, 0, crowd.head_v6(flow, segment))),
    };
    let rest_at = if matches!(flow.family, Family::V4) { 54 } else { 74 };
    let done = done.and_then(|()| match (request, segment.ack) {
        (Some(request), _) => write(ctx, rest_at, *request),
        (None, None) => write(ctx, rest_at, SYN_OPTION),
        (None, Some(_)) => Some(()),
    });
    if done.is_none() {
        seen.unsent += 1;
    }
    done
}

/// Makes the frame this long, and no shorter than Ethernet's frames are.
#[inline(always)]
fn resize(ctx: *mut xdp_md, length: usize) -> Option<()> {
    let length = if length < ETHERNET_MIN { ETHERNET_MIN } else { length };
    // SAFETY: the context is the one the kernel called us with.
    let now = unsafe { ((*ctx).data_end - (*ctx).data) as usize };
    #[expect(clippy::cast_possible_wrap, reason = "a frame's length is far below 2^31")]
    let more = length as i32 - now as i32;
    // A veth's small frames that came from the stack have no room behind them, but before them they do. There is less of that, and a frame that goes to and
    // fro would use it up.
    // SAFETY: as above; no address within the frame outlives an access.
    let resized =
        more == 0 || unsafe { bpf_xdp_adjust_tail(ctx, more) == 0 || more > 0 && bpf_xdp_adjust_head(ctx, -more) == 0 };
    resized.then_some(())
}

/// The address of so many bytes of the frame, if they are in it.
#[inline(always)]
fn address<T>(ctx: *mut xdp_md, at: usize) -> Option<*mut T> {
    // SAFETY: the context is the one the kernel called us with.
    let (data, end) =
        unsafe { ((&raw const (*ctx).data).read_volatile(), (&raw const (*ctx).data_end).read_volatile()) };
    let address = (data as usize as *mut u8).wrapping_add(at);
    if address.wrapping_add(size_of::<T>()) > end as usize as *mut u8 { None } else { Some(address.cast()) }
}

#[inline(always)]
fn read<T: Copy>(ctx: *mut xdp_md, at: usize) -> Option<T> {
    // SAFETY: it is within the frame; only arrays of bytes are read.
    address::<T>(ctx, at).map(|address| unsafe { address.read_unaligned() })
}

#[inline(always)]
fn write<T>(ctx: *mut xdp_md, at: usize, value: T) -> Option<()> {
    // SAFETY: as above.
    address::<T>(ctx, at).map(|address| unsafe { address.write_unaligned(value) })
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// The kernel reads the licence from a section of this name: `bpf_ktime_get_ns` is for GPL programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
