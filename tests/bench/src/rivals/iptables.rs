//! iptables and an ipset.

use std::{fmt::Write as _, fs, time::Duration};

use anyhow::{Context as _, Result};
use portal_lab::process::run;

use super::{Proof, Rival};
use crate::{
    frames::{self, FIRST_CLIENT},
    yard::Yard,
};

/// A set of addresses in the table `raw`.
pub const RAW: Rival = Rival { name: "iptables raw and ipset", set_up, proof: Proof::InIp };

fn set_up(yard: &Yard, _: &mut crate::inject::Injector, clients: u32) -> Result<()> {
    const LIMIT: Duration = Duration::from_mins(2);
    let mut text = include_str!("../../rivals/clients.ipset")
        .replace("HASHSIZE", &clients.next_power_of_two().to_string())
        .replace("CLIENTS", &clients.to_string());
    for number in FIRST_CLIENT..FIRST_CLIENT + clients {
        writeln!(text, "add clients {}", frames::v4(number))?;
    }
    let (set, rules) = (yard.directory().join("clients.ipset"), yard.directory().join("iptables.rules"));
    fs::write(&set, text)?;
    fs::write(&rules, include_str!("../../rivals/iptables.rules"))?;
    let mut ipset = yard.gateway().service("ipset");
    run(ipset.arg("restore").arg("-file").arg(&set), LIMIT)?.success().context("ipset refuses the clients")?;
    let mut iptables = yard.gateway().service("iptables-restore");
    run(iptables.arg(&rules), LIMIT)?.success().context("iptables refuses the rule")?;
    Ok(())
}
