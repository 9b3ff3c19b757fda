//! openNDS from Debian, on a lab's gateway: what a login costs there. `rivals/opennds.conf` and `rivals/opennds.sh` are what it runs, and say what it
//! needs beside its package.

use std::{
    fs,
    net::Ipv4Addr,
    process::Command,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use portal_lab::{
    Lab,
    addresses::{GUEST_INTERFACE, GUEST_MAC, GUEST_V4, SITE_V4},
    clients::http::curl,
    process::{Service, wait_for},
};

const CONFIGURATION: &str = include_str!("../../rivals/opennds.conf");
const SCRIPT: &str = include_str!("../../rivals/opennds.sh");
/// It makes its rules one by one.
const START_LIMIT: Duration = Duration::from_secs(40);

/// How many clients can be logged in beside the one that is measured.
const MOST_OTHERS: u8 = 100;

/// The lab's guest's address, and those of the others.
fn address(n: u8) -> Ipv4Addr {
    // Behind the lab's own guests.
    Ipv4Addr::from(u32::from(GUEST_V4) + if n == 0 { 0 } else { 90 + u32::from(n) })
}

/// A running openNDS.
pub struct OpenNds {
    service: Service,
}

impl OpenNds {
    /// Starts it on the gateway's guest network. An error says what its log says.
    pub fn start(lab: &Lab) -> Result<Self> {
        let directory = lab.directory();
        let [configuration, script, leases, log] =
            ["opennds.conf", "opennds.sh", "opennds.leases", "opennds.log"].map(|name| directory.join(name));
        fs::write(&configuration, CONFIGURATION.replace("@interface@", GUEST_INTERFACE))?;
        fs::write(&script, SCRIPT)?;
        let end = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs() + 36_000;
        let lease = |address: Ipv4Addr| format!("{end} {GUEST_MAC} {address} guest *\n");
        fs::write(&leases, (0..=MOST_OTHERS).map(|n| lease(address(n))).collect::<String>())?;
        let mut command = lab.gateway.service("unshare");
        command.args(["--mount", "sh"]).arg(&script).arg(&configuration).arg(&leases);
        let mut service = Service::start("openNDS", &mut command, &log)?;
        let running = wait_for("openNDS's start", START_LIMIT, || {
            let ended = service.ended().ok().flatten().is_some();
            (ended || service.log().contains("openNDS is now running")).then_some(!ended)
        });
        let last = |log: String| {
            log.lines().rev().take(8).map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join(" | ")
        };
        match running {
            Ok(true) => Ok(Self { service }),
            Ok(false) => Err(anyhow::anyhow!("it ended; its log, backwards: {}", last(service.log()))),
            Err(e) => Err(e.context(format!("its log, backwards: {}", last(service.log())))),
        }
    }

    /// Logs so many other clients in, at most 100: one MAC address with an address for each, which are as many clients to openNDS.
    pub fn fill(&self, lab: &Lab, others: u8) -> Result<()> {
        ensure!(others <= MOST_OTHERS, "there are leases for {MOST_OTHERS} clients");
        for n in 1..=others {
            let address = address(n).to_string();
            lab.guest.ip(&format!("addr add {address}/24 dev eth0"))?;
            Self::probe(lab, &address, "307")?;
            let mut auth = self.inside("ndsctl");
            auth.args(["auth", &address]);
            timed(auth).with_context(|| format!("ndsctl auth {address}"))?;
        }
        Ok(())
    }

    /// Asks for a page from an address of the guest's.
    fn probe(lab: &Lab, from: &str, status: &str) -> Result<()> {
        let url = format!("http://{SITE_V4}/");
        let probe = curl(&lab.guest, &["--interface", from, "-o", "/dev/null", "-w", "%{http_code}", &url])?;
        ensure!(
            probe.stdout == status,
            "{from} gets {:?} through openNDS, not {status}: {}",
            probe.stdout,
            probe.stderr
        );
        Ok(())
    }

    /// Logs the lab's guest in as many times as this, each time anew, and gives back how long each `ndsctl auth` took, without what it costs to enter the
    /// namespaces. Before each it has to be told of the client by a probe.
    pub fn log_in(&self, lab: &Lab, times: usize) -> Result<Vec<Duration>> {
        let guest = GUEST_V4.to_string();
        let entering: Result<Vec<_>> = (0..20).map(|_| timed(self.inside("true"))).collect();
        let mut entering = entering?;
        entering.sort_unstable();
        let entering = entering[entering.len() / 2];
        let mut took = Vec::new();
        for _ in 0..times {
            Self::probe(lab, &guest, "307")?;
            let mut auth = self.inside("ndsctl");
            auth.args(["auth", &guest]);
            took.push(timed(auth).context("ndsctl auth")?.saturating_sub(entering));
            Self::probe(lab, &guest, "200")?;
            let mut deauth = self.inside("ndsctl");
            deauth.args(["deauth", &guest]);
            timed(deauth).context("ndsctl deauth")?;
        }
        Ok(took)
    }

    /// A command where openNDS is.
    fn inside(&self, program: &str) -> Command {
        let mut command = portal_tools::command("nsenter");
        command.args(["--net", "--mount", "--target", &self.service.pid().to_string(), program]);
        command
    }
}

/// How long a command takes, from its start to its successful end.
pub fn timed(mut command: Command) -> Result<Duration> {
    let start = Instant::now();
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    let took = start.elapsed();
    ensure!(
        output.status.success(),
        "{command:?}: {}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout).trim(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(took)
}
