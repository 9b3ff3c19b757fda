//! What Portal needs of a machine, as data.

/// What the caller asked for beside what every build and test needs.
#[derive(Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a thing that may be wanted or not")]
pub(crate) struct Wanted {
    /// rustfmt and clippy.
    pub(crate) lints: bool,
    /// cargo-deny.
    pub(crate) deny: bool,
    /// [`UNPACKED`].
    pub(crate) kernels: bool,
    /// [`BENCH_TOOLS`].
    pub(crate) bench: bool,
}

/// One Debian package and the sign that what it brings is there.
///
/// The sign is looked for where the lab starts it from ([`portal_tools`]): on Debian 12 where the package installs it, elsewhere
/// also on PATH.
#[derive(Clone, Copy)]
pub(crate) struct Tool {
    pub(crate) package: &'static str,
    pub(crate) why: &'static str,
    pub(crate) sign: Sign,
    /// systemd units that the package enables and that must not run on a developer's machine because of us.
    pub(crate) services: &'static [&'static str],
}

/// How a tool is recognised. Nothing here starts a process where a look at the file system will do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sign {
    /// All of these programs are there.
    Programs(&'static [&'static str]),
    /// This file exists.
    File(&'static str),
    /// The system's Python can import this module.
    PythonModule(&'static str),
}

const fn tool(package: &'static str, why: &'static str, sign: Sign) -> Tool {
    Tool { package, why, sign, services: &[] }
}

const fn with_services(services: &'static [&'static str], tool: Tool) -> Tool {
    Tool { services, ..tool }
}

/// What the build and the lab use, beside the BPF toolchain.
pub(crate) const TOOLS: &[Tool] = &[
    tool("gcc", "links what Rust compiles", Sign::Programs(&["cc"])),
    tool("libc6-dev", "links what Rust compiles", Sign::File("/usr/include/stdlib.h")),
    tool("iproute2", "makes the lab's namespaces and links", Sign::Programs(&["ip", "tc", "ss"])),
    tool("util-linux", "enters the lab's namespaces", Sign::Programs(&["unshare", "nsenter"])),
    tool("procps", "shows the lab's processes", Sign::Programs(&["ps", "pgrep"])),
    tool("ethtool", "switches the lab's offloads", Sign::Programs(&["ethtool"])),
    tool("tcpdump", "shows the lab's packets", Sign::Programs(&["tcpdump"])),
    tool("dnsmasq-base", "is the lab's DNS and DHCP server", Sign::Programs(&["dnsmasq"])),
    with_services(
        &["nginx.service"],
        tool("nginx-light", "is the real site in the lab's internet", Sign::Programs(&["nginx"])),
    ),
    tool("openssl", "makes the real site's certificate", Sign::Programs(&["openssl"])),
    tool("curl", "is a guest in the tests", Sign::Programs(&["curl"])),
    tool("wget", "is a guest in the tests", Sign::Programs(&["wget"])),
    tool("python3-requests", "is a guest in the tests", Sign::PythonModule("requests")),
    tool("chromium", "is a guest in the tests", Sign::Programs(&["chromium"])),
    with_services(
        &["NetworkManager.service", "NetworkManager-dispatcher.service", "NetworkManager-wait-online.service"],
        tool("network-manager", "is a guest in the tests", Sign::Programs(&["NetworkManager", "nmcli"])),
    ),
    tool("dbus", "is what NetworkManager talks through", Sign::Programs(&["dbus-daemon"])),
    tool("iputils-ping", "is how a guest in the tests makes itself heard", Sign::Programs(&["ping"])),
    tool("netbase", "tells wrk which port http is", Sign::File("/etc/services")),
    tool("wrk", "sends the load tests' requests", Sign::Programs(&["wrk"])),
    tool("chromium-driver", "steers the guest's browser in the tests", Sign::Programs(&["chromedriver"])),
    tool("tshark", "reads in the tests what portalctl has captured", Sign::Programs(&["tshark"])),
    with_services(
        &["iperf3.service"],
        tool("iperf3", "measures a guest's throughput in the tests", Sign::Programs(&["iperf3"])),
    ),
    with_services(
        &["iodined.service"],
        tool(
            "iodine",
            "is the DNS tunnel that the tests hold the budgets against",
            Sign::Programs(&["iodine", "iodined"]),
        ),
    ),
    with_services(
        &["nftables.service"],
        tool(
            "nftables",
            "translates addresses in a guest's router, and is a rival of the benchmark",
            Sign::Programs(&["nft"]),
        ),
    ),
];

/// What only `cargo xtask bench` uses, beside [`TOOLS`].
pub(crate) const BENCH_TOOLS: &[Tool] = &[
    tool("iptables", "is the rival of older portals", Sign::Programs(&["iptables"])),
    tool("ipset", "holds that rival's clients", Sign::Programs(&["ipset"])),
    with_services(
        &["opennds.service"],
        tool("opennds", "is the portal whose logins are held against Portal's", Sign::Programs(&["opennds", "ndsctl"])),
    ),
    tool("netsniff-ng", "has trafgen, which floods", Sign::Programs(&["trafgen"])),
];

/// Everything that may be installed.
pub(crate) fn all_tools() -> impl Iterator<Item = &'static Tool> {
    TOOLS.iter().chain(BENCH_TOOLS)
}

/// A Debian package whose files are unpacked below `target/kernels`, and which is not installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unpacked {
    pub(crate) package: &'static str,
    pub(crate) why: &'static str,
    /// Its directory below `target/kernels`.
    pub(crate) directory: &'static str,
    /// Which packages are unpacked.
    pub(crate) what: What,
}

/// Which packages are unpacked, where one is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// The named one.
    Itself,
    /// The one that it depends on by exact version: the newest kernel of a series.
    Kernel,
    /// It and what it depends on and the machine lacks; nothing where this program is installed already.
    Program(&'static str),
}

/// The emulator.
pub(crate) const EMULATOR: Unpacked = Unpacked {
    package: "qemu-system-x86",
    why: "boots other kernels, in a processor that is software",
    directory: "qemu",
    what: What::Program("qemu-system-x86_64"),
};
/// The tools of the machine in software.
pub(crate) const BUSYBOX: Unpacked = Unpacked {
    package: "busybox-static",
    why: "is the shell and `insmod` in there",
    directory: "busybox",
    what: What::Itself,
};
/// The kernels that are booted. Those for clouds are the same source as the others, with fewer drivers to carry about.
pub(crate) const KERNELS: [Unpacked; 2] = [
    Unpacked {
        package: "linux-image-cloud-amd64",
        why: "is Debian 12's own kernel, Linux 6.1",
        directory: "linux-6.1",
        what: What::Kernel,
    },
    Unpacked {
        package: "linux-image-6.12-cloud-amd64",
        why: "is Linux 6.12",
        directory: "linux-6.12",
        what: What::Kernel,
    },
];
/// What `cargo xtask test --kernels` needs beside everything else.
pub(crate) const UNPACKED: [Unpacked; 4] = [EMULATOR, BUSYBOX, KERNELS[0], KERNELS[1]];

/// Debian's compiler for BPF.
pub(crate) const RUSTC: &str = "rustc-web";
/// The `core` that goes with it, of exactly its version.
pub(crate) const BPF_CORE: &str = "libstd-rust-web-dev-bpf";
/// Debian's cargo, of exactly its version.
pub(crate) const CARGO: &str = "cargo-web";
/// Debian's formatter, for a machine without rustup.
pub(crate) const RUSTFMT: &str = "rustfmt-web";
/// Debian's linter, for a machine without rustup.
pub(crate) const CLIPPY: &str = "rust-web-clippy";

/// What [`RUSTC`] and its libraries conflict with. apt would remove these; the owner of the machine decides that.
pub(crate) const CONFLICTS: &[&str] = &["rustc", "rustc-mozilla", "rustup", "libstd-rust-dev", "libstd-rust-dev-bpf"];

/// The name under which rustup knows [`RUSTC`]. `portal-userspace/build.rs` uses it.
pub(crate) const LINKED_TOOLCHAIN: &str = "portal-bpf";
/// Where [`BPF_CORE`] is.
pub(crate) const BPF_CORE_DIRECTORY: &str = "/usr/lib/rustlib/bpfel-unknown-none";

/// The bpf-linker that is installed, and the oldest that is accepted: it reads the bitcode of LLVM 22, which Rust 1.95
/// and 1.96 write.
pub(crate) const BPF_LINKER: Version = Version(0, 10, 3);
/// The library that this bpf-linker opens when it runs.
pub(crate) const LLVM: &str = "libLLVM.so.22.1";
/// The cargo-deny that is installed.
pub(crate) const CARGO_DENY: Version = Version(0, 20, 2);

/// Three numbers, as `1.96.0` in Debian's `1.96.0+dfsg1-1~deb12u2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u32, pub(crate) u32, pub(crate) u32);

impl Version {
    /// Reads the leading numbers; the third may be missing. `None` if there are not two.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
        let mut numbers = text[..digits].split('.').map(str::parse);
        let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        Some(Self(major, minor, numbers.next().and_then(Result::ok).unwrap_or(0)))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// The oldest Rust that builds this workspace.
pub(crate) fn oldest_rust() -> Version {
    Version::parse(env!("CARGO_PKG_RUST_VERSION")).expect("the manifest's rust-version is two or three numbers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_programs_and_dpkg_print() {
        for (text, expected) in [
            ("0.10.3", Some(Version(0, 10, 3))),
            ("1.96.0+dfsg1-1~deb12u2", Some(Version(1, 96, 0))),
            ("1.95", Some(Version(1, 95, 0))),
            ("1:6.1-1", None),
            ("", None),
            ("nightly", None),
        ] {
            assert_eq!(Version::parse(text), expected, "{text}");
        }
        assert!(Version(0, 9, 15) < BPF_LINKER && Version(0, 11, 0) > BPF_LINKER);
    }

    #[test]
    fn no_package_is_listed_twice() {
        let mut names: Vec<_> = all_tools().map(|tool| tool.package).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TOOLS.len() + BENCH_TOOLS.len());
    }
}
