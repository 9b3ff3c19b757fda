//! The gate's maps, and what the decision looks up in them.
#![expect(unsafe_code, reason = "map values are shared with the other CPUs and with user space")]

use aya_ebpf::{
    btf_maps::{Array, HashMap, PerCpuArray, XskMap},
    helpers::generated::bpf_ktime_get_coarse_ns,
    macros::btf_map,
};
use portal_common::{
    decide::Tables,
    reason::REASON_SLOTS,
    tables::{ClientKey, CookieKeys, Counters, GateConfig, MAX_QUEUES, Service, ServiceKey, Session},
};

/// Who is logged in. Never an LRU: a flood of MAC addresses must not evict a guest. User space sets the size.
#[btf_map]
static SESSIONS: HashMap<ClientKey, Session, 65_536> = HashMap::new();

/// Where a stranger may go.
#[btf_map]
static SERVICES: HashMap<ServiceKey, u32, 256> = HashMap::new();

/// The configuration of the guarded interface.
#[btf_map]
static CONFIG: Array<GateConfig, 1> = Array::new();

/// The secrets behind the SYN cookies.
#[btf_map]
static COOKIE_KEYS: Array<CookieKeys, 1> = Array::new();

/// How often each reason was given.
#[btf_map]
static COUNTERS: PerCpuArray<Counters, 1> = PerCpuArray::new();

/// The responder's socket for each receive queue. The kernel empties a slot when its socket is closed.
#[btf_map]
static XSKS: XskMap<{ MAX_QUEUES as usize }> = XskMap::new();

/// The tables as the kernel holds them.
pub(crate) struct Kernel;

impl Tables for Kernel {
    #[inline(always)]
    fn config(&self) -> Option<GateConfig> {
        CONFIG.get(0).copied()
    }

    #[inline(always)]
    fn session(&self, client: &ClientKey) -> Option<Session> {
        // SAFETY: a session is replaced as a whole by user space; a torn read of its two words can at worst pair the old start
        // with the new expiry, and the gate reads the expiry alone.
        unsafe { SESSIONS.get(client) }.copied()
    }

    #[inline(always)]
    fn service(&self, destination: &ServiceKey) -> Option<Service> {
        // SAFETY: one aligned word.
        let number = *unsafe { SERVICES.get(destination) }?;
        Service::try_from(number).ok()
    }

    #[inline(always)]
    fn cookie_keys(&self) -> Option<&CookieKeys> {
        COOKIE_KEYS.get(0)
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_ktime_get_coarse_ns() }
    }
}

/// Counts a reason, by its number, on this CPU.
#[inline(always)]
pub(crate) fn count(reason: usize) {
    if let Some(counters) = COUNTERS.get_ptr_mut(0) {
        let slot = reason & (REASON_SLOTS - 1);
        // SAFETY: the slot is within the array, and this CPU's copy has no other writer: an XDP program is not preempted.
        unsafe { (*counters).packets[slot] += 1 };
    }
}

/// The action that hands the packet to the responder's socket of this queue, unless there is none.
#[inline(always)]
pub(crate) fn redirect_to_responder(queue: u32) -> Result<u32, ()> {
    XSKS.redirect(queue, 0).map_err(|_| ())
}
