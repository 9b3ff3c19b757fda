//! What an operator would otherwise use, set up at its best. The configurations are files in `rivals/`.

pub mod iptables;
pub mod nft;
pub mod nginx;
pub mod opennds;
pub mod tc;

use anyhow::Result;

use crate::{inject::Injector, yard::Yard};

/// How a rival's drop is proved, beside that nothing reaches the sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// IP never sees the packet.
    BeforeIp,
    /// IP has received every packet.
    InIp,
    /// The program has counted every packet.
    Counted,
}

/// One rival that lets clients through and drops everybody else's packets.
#[derive(Clone, Copy, Debug)]
pub struct Rival {
    /// Who it is.
    pub name: &'static str,
    /// Sets it up on the gateway, for so many clients.
    pub set_up: fn(&Yard, &mut Injector, u32) -> Result<()>,
    /// How its drop is proved.
    pub proof: Proof,
}
