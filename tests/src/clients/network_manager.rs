//! `NetworkManager` in the guest, with a system bus of its own: it thinks that the namespace is the machine.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};

use crate::{
    lab::Lab,
    process::{Service, run, wait_for},
};

/// Runs in the mount namespace that `ip netns exec` has made: read-only /sys and an empty /run, so that neither udev nor the machine's
/// own bus is seen, then the bus (the end of the lab ends it), then `NetworkManager` in the foreground.
const START: &str = r#"
set -e
mount -o remount,bind,ro /sys
# The lab's directory is in the /run that this hides; the working directory still leads to it.
mount -t tmpfs tmpfs /run
mkdir -p /run/lab /run/NetworkManager
mount --no-canonicalize --bind . /run/lab
mount --bind /run/lab/state /var/lib/NetworkManager
dbus-daemon --system --fork --nopidfile --address="unix:path=/run/lab/bus"
export DBUS_SYSTEM_BUS_ADDRESS=unix:path=/run/lab/bus
exec NetworkManager --debug --config=/run/lab/NetworkManager.conf --config-dir=/run/lab/none --system-config-dir=/run/lab/none
"#;

/// A running `NetworkManager`.
#[derive(Debug)]
pub struct NetworkManager {
    service: Service,
    bus: String,
}

impl NetworkManager {
    /// Starts it in the guest; it takes `eth0` over, gets its address by DHCP and probes where Debian's does.
    pub fn start(lab: &Lab) -> Result<Self> {
        let directory: PathBuf = lab.directory().join("nm");
        fs::create_dir(&directory)?;
        for sub in ["none", "state", "connections"] {
            fs::create_dir(directory.join(sub))?;
        }
        let connections = directory.join("connections");
        fs::write(
            directory.join("NetworkManager.conf"),
            "[main]\nplugins=keyfile\nno-auto-default=*\ndhcp=internal\ndns=none\nauth-polkit=false\n\
             [keyfile]\npath=/run/lab/connections\n\
             [device]\nmatch-device=interface-name:eth0\nmanaged=1\n\
             [connectivity]\nuri=http://network-test.debian.org/nm\ninterval=300\n",
        )?;
        let profile = connections.join("guest.nmconnection");
        fs::write(
            &profile,
            "[connection]\nid=guest\nuuid=6a9c4b3e-5f0e-4c39-8f0e-0d5e3f5f2a10\ntype=ethernet\ninterface-name=eth0\n\
             [ipv4]\nmethod=auto\n[ipv6]\nmethod=link-local\n",
        )?;
        fs::set_permissions(&profile, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        let mut command = lab.guest.client("sh");
        command.args(["-c", START]).current_dir(&directory);
        let service = Service::start("NetworkManager", &mut command, &lab.directory().join("nm.log"))?;
        let mut manager = Self { service, bus: format!("unix:path={}/bus", directory.display()) };
        let connected = wait_for("NetworkManager's connection", Duration::from_secs(30), || {
            manager.service.ended().ok().flatten().map(|_| false).or_else(|| {
                let state = manager.nmcli(lab, &["-t", "-f", "STATE", "general"]).ok()?;
                state.starts_with("connected").then_some(true)
            })
        });
        ensure!(connected.with_context(|| manager.service.log())?, "NetworkManager ended: {}", manager.service.log());
        Ok(manager)
    }

    /// What `nmcli networking connectivity check` says.
    pub fn connectivity(&self, lab: &Lab) -> Result<String> {
        Ok(self.nmcli(lab, &["networking", "connectivity", "check"])?.trim().to_owned())
    }

    /// What it has printed.
    pub fn log(&self) -> String {
        self.service.log()
    }

    fn nmcli(&self, lab: &Lab, arguments: &[&str]) -> Result<String> {
        let mut command = lab.guest.client("nmcli");
        run(command.args(arguments).env("DBUS_SYSTEM_BUS_ADDRESS", &self.bus), Duration::from_secs(20))?.success()
    }
}
