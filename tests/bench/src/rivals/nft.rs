//! nftables: sets at the interface's ingress, in prerouting before connection tracking, and in forward.

use std::{fmt::Write as _, fs, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use portal_lab::process::run;

use super::{Proof, Rival};
use crate::{
    frames::{self, FIRST_CLIENT},
    yard::Yard,
};

/// A set of addresses at the interface's ingress.
pub const INGRESS: Rival = Rival {
    name: "nftables, ingress set",
    set_up: |yard, _, clients| addresses(yard, include_str!("../../rivals/nft-ingress.nft"), "netdev", clients),
    proof: Proof::BeforeIp,
};

/// A set of addresses in prerouting.
pub const RAW: Rival = Rival {
    name: "nftables, prerouting raw set",
    set_up: |yard, _, clients| addresses(yard, include_str!("../../rivals/nft-raw.nft"), "ip", clients),
    proof: Proof::InIp,
};

/// A set of addresses in forward.
pub const FORWARD: Rival = Rival {
    name: "nftables, forward set",
    set_up: |yard, _, clients| addresses(yard, include_str!("../../rivals/nft-forward.nft"), "ip", clients),
    proof: Proof::InIp,
};

/// A set of MAC addresses and addresses in forward, with a timeout and counters.
pub const MAC_IP: Rival = Rival {
    name: "nftables, forward MAC.IP set, timeout, counter",
    set_up: |yard, _, clients| pairs(yard, "counter", clients),
    proof: Proof::InIp,
};

/// The same without counters.
pub const MAC_IP_UNCOUNTED: Rival = Rival {
    name: "nftables, forward MAC.IP set, timeout",
    set_up: |yard, _, clients| pairs(yard, "", clients),
    proof: Proof::InIp,
};

fn pairs(yard: &Yard, counter: &str, clients: u32) -> Result<()> {
    let rules = include_str!("../../rivals/nft-mac-ip.nft").replace("COUNTER", counter);
    let element = |number: u32| {
        let mac = frames::mac(number).map(|byte| format!("{byte:02x}")).join(":");
        format!("{mac} . {} timeout 8h", frames::v4(number))
    };
    load(yard, &rules, "ip", clients, element)
}

fn addresses(yard: &Yard, rules: &str, family: &str, clients: u32) -> Result<()> {
    load(yard, rules, family, clients, |number| frames::v4(number).to_string())
}

fn load(yard: &Yard, rules: &str, family: &str, clients: u32, element: impl Fn(u32) -> String) -> Result<()> {
    /// Elements in a command.
    const AT_ONCE: usize = 50_000;
    let mut text = rules.replace("CLIENTS", &clients.to_string());
    let numbers: Vec<u32> = (FIRST_CLIENT..FIRST_CLIENT + clients).collect();
    for some in numbers.chunks(AT_ONCE) {
        let elements: Vec<String> = some.iter().map(|number| element(*number)).collect();
        writeln!(text, "add element {family} rival clients {{ {} }}", elements.join(", "))?;
    }
    let path = yard.directory().join("rules.nft");
    fs::write(&path, text)?;
    nft(yard, &path)
}

fn nft(yard: &Yard, rules: &Path) -> Result<()> {
    /// A million elements with timeouts take ten seconds.
    const LIMIT: Duration = Duration::from_mins(2);
    let mut command = yard.gateway().service("nft");
    run(command.arg("-f").arg(rules), LIMIT)?.success().context("nft refuses the rival's rules")?;
    Ok(())
}
