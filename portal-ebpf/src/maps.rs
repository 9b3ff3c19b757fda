//! The maps that the programs share with each other and with user space.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, XskMap},
    macros::btf_map,
};
use portal_common::{
    budget::Budgets,
    decide::Case,
    event::{Event, FrameRecord, Lost},
    tables::{
        AddressOwner, Bucket, COUNTER_ROWS, ClientKey, ClientRow, ConnectionKey, ConnectionNote, CookieKeys, Counters,
        GardenKey, GateConfig, KNOWN_REQUEST_WORDS, KNOWN_ROWS, KNOWN_STATUSES, KnownAnswer, MAX_INTERFACES,
        MAX_QUESTIONS, MAX_QUEUES, MAX_ZONES, OwnedWord, Question, RecentPass, ServiceKey, ZONE_ROWS, ZoneRow,
    },
};

use crate::word::KernelWord;

const MMAPABLE: usize = BPF_F_MMAPABLE as usize;
const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

/// Which frames belong to which zone. User space maps it into its memory.
#[btf_map]
pub(crate) static ZONES: Array<ZoneRow, { ZONE_ROWS as usize }, MMAPABLE> = Array::new();

/// The configuration of each zone.
#[btf_map]
pub(crate) static CONFIG: Array<GateConfig, { MAX_ZONES as usize }> = Array::new();

/// Where in the table of clients one is; the first row says how that is computed. User space sets the size, and maps it into its memory.
#[btf_map]
pub(crate) static INDEX: Array<Bucket, 16_384, MMAPABLE> = Array::new();

/// Who is logged in, and what came of it. Never an LRU: a flood of MAC addresses must not evict a guest. User space sets the size, and maps it into its
/// memory: which also puts each row on cache lines of its own.
#[btf_map]
pub(crate) static CLIENTS: Array<ClientRow<KernelWord>, 65_536, MMAPABLE> = Array::new();

/// Whose packets need not be looked at for a while: see `recent.rs`. Not pinned: each gate fills its own. User space sets the
/// size, and maps it into its memory.
#[btf_map]
pub(crate) static RECENT: Array<RecentPass<KernelWord>, 1, MMAPABLE> = Array::new();

/// Who uses which address. User space sets the size. Not allocated beforehand: there is room for all that sessions can hold, and few use it.
#[btf_map]
pub(crate) static OWNERS: HashMap<OwnedWord, AddressOwner, 65_536, NO_PREALLOC> = HashMap::new();

/// What strangers have spent. An LRU: a flood of MAC addresses gives the other strangers back what they have spent, and takes nothing from them.
#[btf_map]
pub(crate) static STRANGERS: LruHashMap<ClientKey, Budgets<KernelWord>, 65_536> = LruHashMap::new();

/// Who has begun which connection to the portal's services. An LRU: a connection that is not noted is of nobody whom the page knows.
#[btf_map]
pub(crate) static CONNECTIONS: LruHashMap<ConnectionKey, ConnectionNote, 32_768> = LruHashMap::new();

/// What strangers have asked, and when. An LRU: a flood of questions displaces the oldest. Not pinned: it holds what is seconds old.
#[btf_map]
pub(crate) static QUESTIONS: LruHashMap<Question, u64, { MAX_QUESTIONS as usize }> = LruHashMap::new();

/// Where a stranger may go.
#[btf_map]
pub(crate) static SERVICES: HashMap<ServiceKey, u32, 4096> = HashMap::new();

/// The walled garden, by prefix.
#[btf_map]
pub(crate) static GARDEN: LpmTrie<GardenKey, u32, 16_384> = LpmTrie::new();

/// Which addresses clients of a zone may have, by prefix: [`portal_common::tables::Source`].
#[btf_map]
pub(crate) static SOURCES: LpmTrie<GardenKey, u32, 1024> = LpmTrie::new();

/// The walled garden, as learned from DNS: until when.
#[btf_map]
pub(crate) static LEARNED: HashMap<ServiceKey, u64, 16_384> = HashMap::new();

/// The secrets behind the SYN cookies.
#[btf_map]
pub(crate) static COOKIE_KEYS: Array<CookieKeys, 1> = Array::new();

/// How often each reason was given.
#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<Counters, { COUNTER_ROWS as usize }> = PerCpuArray::new();

/// The requests that the gate answers by itself; the first row has the secrets of the hash. User space maps it into its memory.
#[btf_map]
pub(crate) static KNOWN: Array<KnownAnswer, { KNOWN_ROWS as usize }, MMAPABLE> = Array::new();

/// How often it did, by the kind of answer.
#[btf_map]
pub(crate) static KNOWN_GIVEN: PerCpuArray<[u64; KNOWN_STATUSES], 1> = PerCpuArray::new();

/// Where a request lies while it is looked for, and a word for a fence: a row for each program.
#[btf_map]
pub(crate) static REQUESTS: PerCpuArray<[u64; KNOWN_REQUEST_WORDS + 1], 2> = PerCpuArray::new();

/// The responder's socket for each receive queue of each interface. The kernel empties a slot when its socket is closed.
#[btf_map]
pub(crate) static XSKS: XskMap<{ (MAX_INTERFACES * MAX_QUEUES) as usize }> = XskMap::new();

/// Whose frames are captured.
#[btf_map]
pub(crate) static CAPTURED: HashMap<ClientKey, u32, 16> = HashMap::new();

/// What the gate tells.
#[btf_map]
pub(crate) static EVENTS: RingBuf<Event, { 256 * 1024 }> = RingBuf::new();

/// The frames that are captured.
#[btf_map]
pub(crate) static CAPTURES: RingBuf<FrameRecord, { 4 * 1024 * 1024 }> = RingBuf::new();

/// The DNS answers that are learned from.
#[btf_map]
pub(crate) static ANSWERS: RingBuf<FrameRecord, { 1024 * 1024 }> = RingBuf::new();

/// Where a frame's case lies while it is decided about: a row for each program.
#[btf_map]
pub(crate) static CASES: PerCpuArray<[u64; size_of::<Case>() / 8], 4> = PerCpuArray::new();

/// The clock as it was read last: the tick, and nanoseconds of CLOCK_MONOTONIC.
#[btf_map]
pub(crate) static CLOCK: PerCpuArray<[u64; 2], 1> = PerCpuArray::new();

/// What found no room in a ring buffer.
#[btf_map]
pub(crate) static LOST: PerCpuArray<Lost, 1> = PerCpuArray::new();
