//! A network namespace, and the ways into it.

use std::{
    ffi::OsStr,
    fs::File,
    net::{IpAddr, SocketAddr, TcpStream},
    os::fd::AsFd as _,
    path::PathBuf,
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::{sh, succeed, wait_for};

/// A network namespace that `ip netns` has made.
#[derive(Debug, Clone)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes the namespace, with its loopback up.
    pub(crate) fn create(name: &str) -> Result<Self> {
        sh(&format!("ip netns add {name}"))?;
        let namespace = Self { name: name.to_owned() };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// The name that `ip netns` knows.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that is the namespace.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Runs `ip -n NAME ARGUMENTS`.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        sh(&format!("ip -n {} {arguments}", self.name))
    }

    /// A command for a service: only its network is the namespace's, so that it sees the machine's /sys and bpffs, which
    /// `ip netns exec` would hide. It dies with the thread that starts it.
    pub fn service(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = dies_with_its_starter();
        command.arg(portal_tools::program("nsenter")).arg(format!("--net={}", self.path().display()));
        command.arg(portal_tools::program(program));
        command
    }

    /// A command for a service that runs on one CPU only, and on no other (taskset(1)).
    pub fn service_on(&self, cpu: usize, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.service("taskset");
        command.args(["--cpu-list", &cpu.to_string()]).arg(portal_tools::program(program));
        command
    }

    /// A command for a client: `ip netns exec`, so that it also has the namespace's own resolv.conf. It dies with the thread
    /// that starts it.
    pub fn client(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = dies_with_its_starter();
        command
            .arg(portal_tools::program("ip"))
            .args(["netns", "exec", &self.name])
            .arg(portal_tools::program(program));
        command
    }

    /// A client whose processes are all gone when the first of them is: it has a process namespace of its own.
    pub fn client_tree(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.client("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.arg(portal_tools::program(program));
        command
    }

    /// Writes a setting of the namespace's network, as `net/ipv4/ip_forward`.
    pub fn set(&self, setting: &str, value: &str) -> Result<()> {
        succeed(self.service("sh").args(["-c", &format!("echo {value} > /proc/sys/{setting}")]))?;
        Ok(())
    }

    /// Calls the function in a thread that is in the namespace. Sockets that it opens stay there.
    pub fn enter<T: Send>(&self, function: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let file = File::open(self.path()).with_context(|| format!("no namespace {}", self.name))?;
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .context("cannot enter the namespace")?;
                function()
            });
            inside.join().map_err(|panic| match panic.downcast::<String>() {
                Ok(text) => anyhow!("panicked in the namespace: {text}"),
                Err(_) => anyhow!("panicked in the namespace"),
            })?
        })
    }

    /// Opens a TCP connection from the namespace.
    pub fn connect(&self, to: IpAddr, port: u16, limit: Duration) -> Result<TcpStream> {
        self.enter(|| {
            let stream = TcpStream::connect_timeout(&SocketAddr::new(to, port), limit)?;
            stream.set_nodelay(true)?;
            Ok(stream)
        })
    }

    /// Waits until something listens on the TCP port, without a connection to it.
    pub(crate) fn wait_for_listener(&self, port: &str) -> Result<()> {
        let filter = format!("sport = :{port}");
        let listens = || {
            let shown = succeed(self.service("ss").args(["-H", "-tln", &filter])).ok()?;
            (!shown.trim().is_empty()).then_some(())
        };
        wait_for(&format!("a listener on port {port}"), Duration::from_mins(1), listens)
    }

    /// Waits until something listens there.
    pub(crate) fn wait_for_port(&self, to: IpAddr, port: u16) -> Result<()> {
        let limit = Duration::from_mins(1);
        wait_for(&format!("a listener on {to} port {port}"), limit, || self.connect(to, port, limit).ok())?;
        Ok(())
    }
}

fn dies_with_its_starter() -> Command {
    let mut command = portal_tools::command("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]);
    command
}
