//! `NetworkManager` in the guest, with a system bus of its own: it thinks that the namespace is the machine.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};

use crate::{
    lab::Lab,
    process::{Service, run, wait_for},
};

/// Runs in a mount and process namespace of its own: read-only /sys and an empty /run, so that neither udev nor the machine's
/// own bus is seen, then the bus, then `NetworkManager` in the foreground.
const START: &str = r#"
set -e
mount -t sysfs -o ro sysfs /sys
mount -t tmpfs tmpfs /run
mkdir -p /run/dbus /run/NetworkManager
mount --bind "$1/state" /var/lib/NetworkManager
dbus-daemon --system --fork --nopidfile
exec NetworkManager --debug --config "$1/NetworkManager.conf" --config-dir "$1/none" --system-config-dir "$1/none"
"#;

/// A running `NetworkManager`.
#[derive(Debug)]
pub struct NetworkManager {
    service: Service,
    guest: String,
}

impl NetworkManager {
    /// Starts it in the guest; it takes `eth0` over, gets its address by DHCP and probes where Debian's does.
    pub fn start(lab: &Lab) -> Result<Self> {
        let directory: PathBuf = lab.directory().join("nm");
        for sub in ["none", "state", "connections"] {
            fs::create_dir_all(directory.join(sub))?;
        }
        let connections = directory.join("connections");
        fs::write(
            directory.join("NetworkManager.conf"),
            format!(
                "[main]\nplugins=keyfile\nno-auto-default=*\ndhcp=internal\ndns=none\nauth-polkit=false\n\
                 [keyfile]\npath={}\n\
                 [device]\nmatch-device=interface-name:eth0\nmanaged=1\n\
                 [connectivity]\nuri=http://network-test.debian.org/nm\ninterval=300\n",
                connections.display()
            ),
        )?;
        let profile = connections.join("guest.nmconnection");
        fs::write(
            &profile,
            "[connection]\nid=guest\nuuid=6a9c4b3e-5f0e-4c39-8f0e-0d5e3f5f2a10\ntype=ethernet\ninterface-name=eth0\n\
             [ipv4]\nmethod=auto\n[ipv6]\nmethod=link-local\n",
        )?;
        fs::set_permissions(&profile, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        let mut command = lab.guest.client_tree("sh");
        command.args(["-c", START, "sh"]).arg(&directory);
        let service = Service::start("NetworkManager", &mut command, &lab.directory().join("nm.log"))?;
        let mut manager = Self { service, guest: lab.guest.name().to_owned() };
        let connected = wait_for("NetworkManager's connection", Duration::from_secs(30), || {
            manager.service.ended().ok().flatten().map(|_| false).or_else(|| {
                let state = manager.nmcli(lab, &["-t", "-f", "STATE", "general"]).ok()?;
                state.starts_with("connected").then_some(true)
            })
        });
        connected.with_context(|| manager.service.log())?;
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
        // The bus is in the mount namespace of the process below the one that was started.
        let below = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.service.pid()))?;
        let pid =
            below.split_whitespace().next().with_context(|| format!("NetworkManager in {} is gone", self.guest))?;
        let mut command = lab.guest.service("nsenter");
        command.args(["--mount", "--pid", "--target", pid, "nmcli"]).args(arguments);
        run(&mut command, Duration::from_secs(20))?.success()
    }
}
