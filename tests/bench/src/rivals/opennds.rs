//! openNDS from Debian, on a lab's gateway: what a login costs there. `rivals/opennds.conf` and `rivals/opennds.sh` are what it runs, and say what it
//! needs beside its package.

use std::{
    fs,
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
        fs::write(&leases, format!("{end} {GUEST_MAC} {GUEST_V4} guest *\n"))?;
        let mut command = lab.gateway.service("unshare");
        command.args(["--mount", "sh"]).arg(&script).arg(&configuration).arg(&leases);
        let mut service = Service::start("openNDS", &mut command, &log)?;
        let running = wait_for("openNDS's start", START_LIMIT, || {
            let ended = service.ended().ok().flatten().is_some();
            (ended || service.log().contains("openNDS is now running")).then_some(!ended)
        });
        let last = |log: String| log.lines().rev().take(8).map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join(" | ");
        match running {
            Ok(true) => Ok(Self { service }),
            Ok(false) => Err(anyhow::anyhow!("it ended; its log, backwards: {}", last(service.log()))),
            Err(e) => Err(e.context(format!("its log, backwards: {}", last(service.log())))),
        }
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
            let probe = curl(&lab.guest, &["-o", "/dev/null", "-w", "%{http_code}", &format!("http://{SITE_V4}/")])?;
            ensure!(probe.stdout == "307", "openNDS answers a stranger with {:?}: {}", probe.stdout, probe.stderr);
            let mut auth = self.inside("ndsctl");
            auth.args(["auth", &guest]);
            took.push(timed(auth).context("ndsctl auth")?.saturating_sub(entering));
            let page = curl(&lab.guest, &["-o", "/dev/null", "-w", "%{http_code}", &format!("http://{SITE_V4}/")])?;
            ensure!(page.stdout == "200", "the client that openNDS let in gets {:?}", page.stdout);
            let mut deauth = self.inside("ndsctl");
            deauth.args(["deauth", &guest]);
            timed(deauth).context("ndsctl deauth")?;
        }
        Ok(took)
    }

    /// A command where openNDS is.
    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
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
