//! The parts of the decision that the verifier checks apart, each once: global functions (Linux 5.6). Inlined, or as functions that are checked
//! with every state they are called in, they would be checked again for every kind of frame.
//!
//! Such a function takes five registers and returns one.
#![expect(unsafe_code, reason = "an exported symbol is what makes a function global")]

use core::ptr;

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use portal_common::{
    Reason,
    budget::Class,
    decide::{
        Admission, Binding, Delivery, Passage, Tables as _, Topic, admit, afford, ask, bind, check_asked, consider,
        contradiction, follow, inquire, is_related, stranger,
    },
    tables::{Address, AddressWord, ClientKey, Strictness},
};

use crate::{
    packet::{Buffer, Packet},
    recent::rest,
    tables::{Kernel, Program, case, is_own_source, look_up},
};

/// No lookup below needs the interface: the zone is known by now.
const ANY_INTERFACE: u32 = 0;

const LIVE: u64 = 1 << 63;
const ESTRANGED: u64 = 1 << 62;
const NO_CLASS: u64 = 0xff;
const NO_TOPIC: u32 = 0;
const DNS: u32 = 1;
const NTP: u32 = 2;

/// The place of the client's row.
#[inline(always)]
pub(crate) fn call_find(client: ClientKey) -> Option<u32> {
    match portal_find(client.to_word()) {
        0 => None,
        number => Some((number - 1) as u32),
    }
}

/// [`is_own_source`], across registers.
#[inline(always)]
pub(crate) fn call_source(client: ClientKey, address: Address) -> bool {
    let [high, low] = address.words();
    portal_source(client.to_word(), high, low) != 0
}

/// [`is_related`], of the frame of this context.
#[inline(always)]
pub(crate) fn call_related(live: bool, ctx: *mut xdp_md) -> bool {
    portal_related(ctx, u64::from(live)) != 0
}

/// [`rest`], across registers.
#[inline(always)]
pub(crate) fn call_rest(client: ClientKey, address: AddressWord, now_ns: u64) {
    portal_rest(client.to_word(), address.to_word(), now_ns);
}

/// [`stranger`], of the frame of this context.
#[inline(always)]
pub(crate) fn call_stranger(live: bool, ctx: *mut xdp_md) {
    portal_stranger(ctx, u64::from(live));
}

/// [`contradiction`], of the frame of this context.
#[inline(always)]
pub(crate) fn call_contradiction(live: bool, ctx: *mut xdp_md) -> Option<Reason> {
    match portal_contradiction(ctx, u64::from(live)) {
        0 => None,
        reason => Some(Reason::of_contradiction(reason)),
    }
}

/// [`follow`], of the frame of this context.
#[inline(always)]
pub(crate) fn call_follow(live: bool, ctx: *mut xdp_md) {
    portal_follow(ctx, u64::from(live));
}

/// [`ask`], of the frame of this context.
#[inline(always)]
pub(crate) fn call_ask(ctx: *mut xdp_md) {
    portal_ask(ctx);
}

/// [`depart`], of the frame of this context.
#[inline(always)]
pub(crate) fn call_depart(live: bool, skb: *mut __sk_buff, passage: Passage) {
    let rest = passage.to_word() | if live { LIVE } else { 0 };
    if portal_consider(skb, rest) != 0 {
        let topic = portal_inquire(rest);
        if topic != NO_TOPIC {
            portal_asked(skb, rest, topic.into());
        }
    }
}

/// [`admit`], across registers.
#[inline(always)]
pub(crate) fn call_admit(live: bool, request: &Admission) -> Option<Reason> {
    let Admission { client, claimed, class, bytes, estranged, now_ns } = *request;
    let class = match class {
        Some(class) => class as u64,
        None => NO_CLASS,
    };
    let rest = u64::from(bytes) << 8 | class | if estranged { ESTRANGED } else { 0 };
    let [high, low] = claimed.words();
    let admit = if live { portal_admit } else { portal_admit_dry };
    match admit(client.to_word(), high, low, rest, now_ns) {
        0 => None,
        refused => Some(Reason::of_admission(refused)),
    }
}

/// [`afford`], across registers.
#[inline(always)]
pub(crate) fn call_afford(live: bool, delivery: &Delivery) -> Option<Reason> {
    let Delivery { client, class, bytes, now_ns } = *delivery;
    let rest = u64::from(bytes) << 8 | class as u64;
    let afford = if live { portal_afford } else { portal_afford_dry };
    match afford(client.to_word(), rest, now_ns) {
        0 => None,
        refused => Some(Reason::of_admission(refused)),
    }
}

/// [`bind`], across registers.
#[inline(always)]
pub(crate) fn call_bind(live: bool, request: &Binding) -> bool {
    let Binding { client, claimed, slot, strictness, now_ns } = *request;
    let rest = u64::from(slot) << 8 | strictness as u64;
    let [high, low] = claimed.words();
    let bind = if live { portal_bind } else { portal_bind_dry };
    bind(client.to_word(), high, low, rest, now_ns) != 0
}

/// The number of the client's row, counted from 1; 0 where there is none.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn portal_find(client: u64) -> u64 {
    look_up(ClientKey::from_word(client)).map_or(0, |(slot, _)| u64::from(slot) + 1)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn portal_source(client: u64, high: u64, low: u64) -> u32 {
    u32::from(is_own_source(ClientKey::from_word(client).zone(), Address::from_words([high, low])))
}

/// 1 where it is, else 0.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn portal_related(ctx: *mut xdp_md, live: u64) -> u32 {
    let Some(case) = case(if live == 0 { Program::Explain } else { Program::Gate }) else { return 0 };
    let tables = Kernel::<false>::arriving(ANY_INTERFACE, ctx);
    let Some(config) = tables.config(case.client().zone()) else { return 0 };
    u32::from(is_related(&Packet::over(ctx), &tables, config, case))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn portal_rest(client: u64, address: u64, now_ns: u64) -> u32 {
    rest(ClientKey::from_word(client), AddressWord::from_word(address), now_ns);
    0
}

/// 0, or 1 where there is no case: that cannot be.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn portal_stranger(ctx: *mut xdp_md, live: u64) -> u32 {
    let Some(case) = case(if live == 0 { Program::Explain } else { Program::Gate }) else { return 1 };
    // No rule of a stranger's depends on whether it is live.
    let tables = Kernel::<false>::arriving(ANY_INTERFACE, ctx);
    let Some(config) = tables.config(case.client().zone()) else { return 1 };
    stranger(&Packet::over(ctx), &tables, config, case);
    0
}

/// 0, or the number of the reason; where there is no case, which cannot be, the missing configuration's.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn portal_contradiction(ctx: *mut xdp_md, live: u64) -> u32 {
    let Some(case) = case(if live == 0 { Program::Explain } else { Program::Gate }) else {
        return Reason::ConfigMissing as u32;
    };
    let tables = Kernel::<false>::arriving(ANY_INTERFACE, ctx);
    match contradiction(&Packet::over(ctx), &tables, case) {
        Some(reason) => reason as u32,
        None => 0,
    }
}

/// As [`portal_stranger`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn portal_follow(ctx: *mut xdp_md, live: u64) -> u32 {
    let Some(case) = case(if live == 0 { Program::Explain } else { Program::Gate }) else { return 1 };
    let (dry, wet) = (Kernel::<false>::arriving(ANY_INTERFACE, ctx), Kernel::<true>::arriving(ANY_INTERFACE, ctx));
    let Some(config) = dry.config(case.client().zone()) else { return 1 };
    if live == 0 {
        follow(&Packet::over(ctx), &dry, config, case);
    } else {
        follow(&Packet::over(ctx), &wet, config, case);
    }
    0
}

/// 0, or 1 where there is no case: that cannot be.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn portal_ask(ctx: *mut xdp_md) -> u32 {
    let Some(case) = case(Program::Gate) else { return 1 };
    ask(&Packet::over(ctx), &Kernel::<true>::arriving(ANY_INTERFACE, ctx), case);
    0
}

/// 1 where the tables are to be asked, else 0.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn portal_consider(skb: *mut __sk_buff, rest: u64) -> u32 {
    let Some(case) = case(if rest & LIVE == 0 { Program::ExplainOut } else { Program::Meter }) else { return 0 };
    // No rule depends on whether it is live.
    let tables = Kernel::<false>::departing(ANY_INTERFACE, skb);
    let Some(config) = tables.config(case.client().zone()) else { return 0 };
    u32::from(consider(&Buffer::over(skb), &tables, config, Passage::from_word(rest), case))
}

/// What must have been asked for.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn portal_inquire(rest: u64) -> u32 {
    let Some(case) = case(if rest & LIVE == 0 { Program::ExplainOut } else { Program::Meter }) else { return NO_TOPIC };
    let tables = Kernel::<false>::departing(ANY_INTERFACE, ptr::null_mut());
    let Some(config) = tables.config(case.client().zone()) else { return NO_TOPIC };
    match inquire(&tables, config, Passage::from_word(rest), case) {
        None => NO_TOPIC,
        Some(Topic::Dns) => DNS,
        Some(Topic::Ntp) => NTP,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn portal_asked(skb: *mut __sk_buff, rest: u64, topic: u64) -> u32 {
    let Some(case) = case(if rest & LIVE == 0 { Program::ExplainOut } else { Program::Meter }) else { return 0 };
    let tables = Kernel::<false>::departing(ANY_INTERFACE, skb);
    let topic = if topic == u64::from(NTP) { Topic::Ntp } else { Topic::Dns };
    check_asked(&Buffer::read(skb), &tables, topic, case);
    0
}

// Two functions, as below: each program has only the one that it calls, and the verifier walks no more.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn portal_admit(client: u64, high: u64, low: u64, rest: u64, now_ns: u64) -> u32 {
    admit_across::<true>(client, [high, low], rest, now_ns)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn portal_admit_dry(client: u64, high: u64, low: u64, rest: u64, now_ns: u64) -> u32 {
    admit_across::<false>(client, [high, low], rest, now_ns)
}

#[inline(always)]
fn admit_across<const L: bool>(client: u64, claimed: [u64; 2], rest: u64, now_ns: u64) -> u32 {
    let request = Admission {
        client: ClientKey::from_word(client),
        claimed: Address::from_words(claimed),
        class: Class::from_number((rest & 0xff) as u32),
        bytes: (rest >> 8) as u32,
        estranged: rest & ESTRANGED != 0,
        now_ns,
    };
    match admit(&Kernel::<L>::arriving(ANY_INTERFACE, ptr::null_mut()), &request) {
        Some(reason) => reason as u32,
        None => 0,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn portal_afford(client: u64, rest: u64, now_ns: u64) -> u32 {
    afford_across::<true>(client, rest, now_ns)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn portal_afford_dry(client: u64, rest: u64, now_ns: u64) -> u32 {
    afford_across::<false>(client, rest, now_ns)
}

/// Where there is no class, which cannot be, the number of the missing configuration.
#[inline(always)]
fn afford_across<const L: bool>(client: u64, rest: u64, now_ns: u64) -> u32 {
    let Some(class) = Class::from_number((rest & 0xff) as u32) else { return Reason::ConfigMissing as u32 };
    let delivery = Delivery { client: ClientKey::from_word(client), class, bytes: (rest >> 8) as u32, now_ns };
    match afford(&Kernel::<L>::arriving(ANY_INTERFACE, ptr::null_mut()), &delivery) {
        Some(reason) => reason as u32,
        None => 0,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn portal_bind(client: u64, high: u64, low: u64, rest: u64, now_ns: u64) -> u32 {
    bind_across::<true>(client, [high, low], rest, now_ns)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn portal_bind_dry(client: u64, high: u64, low: u64, rest: u64, now_ns: u64) -> u32 {
    bind_across::<false>(client, [high, low], rest, now_ns)
}

#[inline(always)]
fn bind_across<const L: bool>(client: u64, claimed: [u64; 2], rest: u64, now_ns: u64) -> u32 {
    let request = Binding {
        client: ClientKey::from_word(client),
        claimed: Address::from_words(claimed),
        slot: (rest >> 8) as u32,
        strictness: if rest & 0xff == Strictness::Learn as u64 { Strictness::Learn } else { Strictness::Strict },
        now_ns,
    };
    u32::from(bind(&Kernel::<L>::arriving(ANY_INTERFACE, ptr::null_mut()), &request))
}
