//! A hash table by MAC address in a program at tc ingress: the way of spotfilter and uspot.

use aya::programs::TcAttachType;

use super::{Proof, Rival};
use crate::frames::FIRST_CLIENT;

/// The program `filter` in `ebpf/src/rivals.rs`.
pub const HASH: Rival = Rival {
    name: "BPF hash at tc ingress (as spotfilter)",
    set_up: |yard, injector, clients| {
        injector.fill_hash(FIRST_CLIENT, clients)?;
        yard.attach(injector, "filter", "guest0", TcAttachType::Ingress)
    },
    proof: Proof::Counted,
};
