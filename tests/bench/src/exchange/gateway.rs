//! A gateway under load: Portal's, as its operator would run it.

use std::{collections::BTreeMap, net::Ipv4Addr, net::Ipv6Addr};

use anyhow::{Context as _, Result};
use portal_bench_ebpf::crowd::Crowd;
use portal_lab::{
    Lab, Portald, Settings,
    addresses::{SITE_V4, SITE_V6},
    portald::{config_text, portalctl_json, without_budgets},
};
use portal_userspace::responder::answers::{Answers, Choice, Family, Status};

use super::{
    cpu::{Cpus, Threads},
    generator::{Plan, Question, Response},
    wire::{Wire, addresses},
};

/// What a stranger asks for: a page at an ordinary host.
pub const PAGE: (&str, &str) = ("/", "www.example.com");
/// And a probe that every portal must redirect.
pub const PROBE: (&str, &str) = ("/generate_204", "clients3.google.com");
/// Where the requests go: to a site of the lab's internet, which is never asked.
pub const SERVER: (Ipv4Addr, Ipv6Addr) = (SITE_V4, SITE_V6);

/// portald on the gateway, with its end of the wire to guard.
pub struct Gateway {
    portald: Portald,
}

impl Gateway {
    /// Starts portald on the wire, with the budgets for strangers of its default configuration or without.
    pub fn start(lab: &Lab, wire: &Wire, budgets: bool) -> Result<Self> {
        let settings = Settings { interface: wire.gateway.clone(), ..Settings::default() };
        let [v4, v6] = urls(wire);
        let config = config_text(lab, &settings)
            .replace("[portal]\n", &format!("[portal]\nurl_v4 = \"{v4}\"\nurl_v6 = \"{v6}\"\n"));
        let config = if budgets { config } else { without_budgets(&config) };
        let mut portald = Portald::start_with(lab, &config, &[]).context("portald does not start")?;
        portald.prints_log = false;
        Ok(Self { portald })
    }

    /// The daemon.
    pub fn portald(&mut self) -> &mut Portald {
        &mut self.portald
    }

    /// Puts the daemon's threads on the gateway's CPU.
    pub fn pin(&self, cpus: Cpus) -> Result<Threads> {
        let threads = Threads::of_process(self.portald.pid())?;
        threads.pin(cpus.gateway)?;
        Ok(threads)
    }

    /// How often each reason was given so far.
    pub fn counters(lab: &Lab) -> Result<BTreeMap<String, u64>> {
        let drops = portalctl_json(lab, &["drops", "--all"])?;
        let rows = drops["reasons"].as_array().context("portalctl drops names no reasons")?;
        let pair = |row: &serde_json::Value| Some((row["name"].as_str()?.to_owned(), row["packets"].as_u64()?));
        rows.iter().map(|row| pair(row).with_context(|| format!("not a counter: {row}"))).collect()
    }
}

fn urls(wire: &Wire) -> [String; 2] {
    [
        format!("http://{}:8080/", addresses::gateway_v4(wire.number)),
        format!("http://[{}]:8080/", addresses::gateway_v6(wire.number)),
    ]
}

/// What clients ask Portal on this wire, and what it must answer by its configuration.
pub fn questions(wire: &Wire) -> Result<[Question; 2]> {
    let [v4, v6] = urls(wire);
    let answers = Answers::new(&v4, &v6)?;
    let question = |(target, host), status| {
        let response = |family| Response::exact(answers.pick(Choice { status, head: false }, family).bytes());
        Question { target, host, responses: [response(Family::V4), response(Family::V6)] }
    };
    Ok([question(PAGE, Status::AuthenticationRequired), question(PROBE, Status::Redirect)])
}

/// A crowd that asks these questions, of both families by turns, every eighth for a probe.
pub fn plan(questions: [Question; 2], clients: u32, in_flight: u32) -> Plan {
    Plan {
        clients,
        in_flight,
        families: Crowd::V4 | Crowd::V6,
        probe_every: 8,
        verifies_checksums: true,
        server: SERVER,
        questions,
    }
}
