//! The facts about this machine that decide what is missing. Only reads.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::requirements::{
    BPF_CORE, BPF_CORE_DIRECTORY, CARGO, CONFLICTS, LINKED_TOOLCHAIN, LLVM, RUSTC, Sign, UNPACKED, Version, all_tools,
};
use crate::{environment, unpack};

/// What was found.
#[expect(clippy::struct_excessive_bools, reason = "each is an independent fact, and every combination occurs")]
#[derive(Clone, Default)]
pub(crate) struct Machine {
    pub(crate) debian_12: bool,
    pub(crate) root: bool,
    /// Packages of [`all_tools`] whose sign was found.
    pub(crate) tools: BTreeSet<&'static str>,
    /// Installed Debian packages, of those that matter for the compiler, and their versions.
    pub(crate) packages: BTreeMap<String, String>,
    /// The `core` for BPF is where `portal-userspace/build.rs` looks for Debian's.
    pub(crate) bpf_core: bool,
    /// `/usr/bin/cargo` exists.
    pub(crate) cargo_in_usr: bool,
    /// `rustc` on PATH is `/usr/bin/rustc`.
    pub(crate) rustc_in_usr: bool,
    /// rustup's toolchains, if rustup is on PATH.
    pub(crate) rustup: Option<BTreeMap<String, Toolchain>>,
    /// The caller's own choice of a BPF compiler, `$PORTAL_BPF_TOOLCHAIN`.
    pub(crate) chosen_toolchain: Option<String>,
    /// The version of the bpf-linker on PATH; `None` if there is none that starts.
    pub(crate) bpf_linker: Option<Version>,
    /// bpf-linker finds Debian's LLVM beside itself.
    pub(crate) llvm: bool,
    pub(crate) rustfmt: bool,
    pub(crate) clippy: bool,
    pub(crate) cargo_deny: bool,
    /// Packages of [`UNPACKED`] that have been unpacked, or need not be.
    pub(crate) unpacked: BTreeSet<&'static str>,
}

/// A toolchain of rustup's.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub(crate) struct Toolchain {
    /// It is a link to `/usr`.
    pub(crate) is_usr: bool,
    /// It has a cargo.
    pub(crate) cargo: bool,
    /// It has a `core` for BPF, or the source to build one from.
    pub(crate) can_bpf: bool,
}

impl Machine {
    /// Looks around.
    pub(crate) fn look() -> Self {
        let debian_12 = fs::read_to_string("/etc/os-release").is_ok_and(|release| is_debian_12(&release));
        // A tool of the same name that comes first on PATH is another one: what setup would install is not there.
        let find = if debian_12 { portal_tools::installed } else { portal_tools::find };
        Self {
            debian_12,
            root: rustix::process::geteuid().is_root(),
            tools: all_tools().filter(|tool| is_there(tool.sign, find)).map(|tool| tool.package).collect(),
            packages: packages(),
            bpf_core: Path::new(BPF_CORE_DIRECTORY).is_dir(),
            cargo_in_usr: Path::new("/usr/bin/cargo").exists(),
            rustc_in_usr: environment::find("rustc").is_some_and(|rustc| is_in_usr(&rustc)),
            rustup: environment::find("rustup").map(|_| toolchains(&environment::rustup_home().join("toolchains"))),
            chosen_toolchain: env::var("PORTAL_BPF_TOOLCHAIN").ok(),
            bpf_linker: bpf_linker(),
            // `exists` follows the link, so a dangling one counts as missing.
            llvm: environment::cargo_home().join("lib").join(LLVM).exists(),
            rustfmt: beside_cargo("cargo-fmt"),
            clippy: beside_cargo("cargo-clippy"),
            cargo_deny: environment::find("cargo-deny").is_some(),
            unpacked: UNPACKED.iter().filter(|one| unpack::is_there(one)).map(|one| one.package).collect(),
        }
    }
}

fn is_debian_12(release: &str) -> bool {
    let value = |key: &str| {
        release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).map(|value| value.trim_matches('"'))
    };
    value("ID") == Some("debian") && value("VERSION_ID") == Some("12")
}

fn is_in_usr(program: &Path) -> bool {
    // /bin is a link to /usr/bin on a merged system, and PATH may name either.
    program.canonicalize().is_ok_and(|file| file == Path::new("/usr/bin/rustc"))
}

fn is_there(sign: Sign, find: impl Fn(&str) -> Option<PathBuf>) -> bool {
    match sign {
        Sign::Programs(programs) => programs.iter().all(|program| find(program).is_some()),
        Sign::File(file) => Path::new(file).exists(),
        Sign::PythonModule(module) => find("python3").is_some_and(|python| {
            // Debian's first: starting Python takes longer than everything else here together.
            let module_of_debian = Path::new("/usr/lib/python3/dist-packages").join(module).join("__init__.py");
            (python == Path::new("/usr/bin/python3") && module_of_debian.exists())
                || answers(portal_tools::command(python).args(["-c", &format!("import {module}")])).is_some()
        }),
    }
}

/// What a command prints, if it can be started and succeeds.
pub(crate) fn answers(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn packages() -> BTreeMap<String, String> {
    // It fails if it does not know one of the names, and still prints the others.
    portal_tools::command("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status} ${Package} ${Version}\\n"])
        .args([RUSTC, BPF_CORE, CARGO])
        .args(CONFLICTS)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .map(|output| installed(&String::from_utf8_lossy(&output.stdout)))
        .unwrap_or_default()
}

fn installed(listing: &str) -> BTreeMap<String, String> {
    listing
        .lines()
        .filter_map(|line| line.strip_prefix("installed ")?.split_once(' '))
        .map(|(package, version)| (package.to_owned(), version.to_owned()))
        .collect()
}

fn toolchains(directory: &Path) -> BTreeMap<String, Toolchain> {
    let Ok(entries) = fs::read_dir(directory) else { return BTreeMap::new() };
    entries
        .flatten()
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .map(|(name, path)| {
            let has = |file: &str| path.join(file).exists();
            let toolchain = Toolchain {
                is_usr: path.canonicalize().is_ok_and(|target| target == Path::new("/usr")),
                cargo: has("bin/cargo"),
                can_bpf: has("lib/rustlib/bpfel-unknown-none") || has("lib/rustlib/src/rust/library/core"),
            };
            (name, toolchain)
        })
        .collect()
}

impl Toolchain {
    /// Finds the toolchain that rustup means by `name`: that name, or that channel for some host.
    pub(crate) fn named<'a>(toolchains: &'a BTreeMap<String, Self>, name: &str) -> Option<&'a Self> {
        toolchains.get(name).or_else(|| {
            toolchains.iter().find_map(|(full, toolchain)| {
                let host = full.strip_prefix(name)?.strip_prefix('-')?;
                // `nightly` is not `nightly-2026-01-31-x86_64-unknown-linux-gnu`.
                (!host.starts_with(|letter: char| letter.is_ascii_digit())).then_some(toolchain)
            })
        })
    }

    /// Whether rustup finds a cargo for a linked toolchain that has none. It tries these three, in this order.
    pub(crate) fn can_lend_cargo(toolchains: &BTreeMap<String, Self>) -> bool {
        ["nightly", "beta", "stable"]
            .iter()
            .any(|channel| Self::named(toolchains, channel).is_some_and(|toolchain| toolchain.cargo))
    }

    /// Whether [`LINKED_TOOLCHAIN`] is what it should be.
    pub(crate) fn is_linked(toolchains: &BTreeMap<String, Self>) -> bool {
        toolchains.get(LINKED_TOOLCHAIN).is_some_and(|toolchain| toolchain.is_usr)
    }
}

fn bpf_linker() -> Option<Version> {
    let printed = answers(environment::command(environment::find("bpf-linker")?).arg("--version"))?;
    Version::parse(printed.trim().strip_prefix("bpf-linker ")?)
}

/// Whether the toolchain in use has this program. rustup's stand-ins on PATH are there even when it has not.
fn beside_cargo(program: &str) -> bool {
    match env::var_os("CARGO") {
        Some(cargo) => Path::new(&cargo).with_file_name(program).exists(),
        None => environment::find(program).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_12_is_recognised_and_nothing_else() {
        for (sentence, release, expected) in [
            ("Debian 12", "PRETTY_NAME=\"Debian\"\nVERSION_ID=\"12\"\nID=debian\n", true),
            ("Debian 13", "VERSION_ID=\"13\"\nID=debian\n", false),
            ("another with the same number", "VERSION_ID=\"12\"\nID=other\nID_LIKE=debian\n", false),
            ("testing, which has no number", "ID=debian\n", false),
        ] {
            assert_eq!(is_debian_12(release), expected, "{sentence}");
        }
    }

    #[test]
    fn a_tool_is_there_only_where_the_lab_starts_it_from() {
        let python = |stand_in| move |program: &str| portal_tools::installed(stand_in).filter(|_| program == "python3");
        let requests = Sign::PythonModule("requests");
        for (sentence, found, expected) in [
            ("a program that is not found, whatever PATH has", is_there(Sign::Programs(&["sh"]), |_| None), false),
            ("one of two", is_there(Sign::Programs(&["sh", "no"]), |name| (name == "sh").then(PathBuf::new)), false),
            ("both", is_there(Sign::Programs(&["sh", "yes"]), |_| Some(PathBuf::new())), true),
            // Debian's own module may well be installed: it is of no use to another Python.
            ("a Python without the module", is_there(requests, python("false")), false),
            ("a Python with it", is_there(requests, python("true")), true),
            ("no Python", is_there(requests, |_| None), false),
        ] {
            assert_eq!(found, expected, "{sentence}");
        }
    }

    #[test]
    fn a_removed_package_is_not_installed() {
        let listing = "installed rustc-web 1.96.0+dfsg1-1\nconfig-files rustc 1.63.0\nnot-installed rustup \n";
        assert_eq!(installed(listing), BTreeMap::from([("rustc-web".into(), "1.96.0+dfsg1-1".into())]));
    }

    #[test]
    fn a_channel_is_found_whatever_the_host_and_a_dated_one_is_another() {
        let with_cargo = Toolchain { cargo: true, ..Toolchain::default() };
        for (name, expected) in [
            ("nightly-x86_64-unknown-linux-gnu", true),
            ("stable-aarch64-unknown-linux-gnu", true),
            ("nightly-2026-01-31-x86_64-unknown-linux-gnu", false),
            ("1.95.0-x86_64-unknown-linux-gnu", false),
        ] {
            let toolchains = BTreeMap::from([(name.to_owned(), with_cargo)]);
            assert_eq!(Toolchain::can_lend_cargo(&toolchains), expected, "{name}");
        }
    }

    #[test]
    fn toolchains_are_read_from_rustups_directory() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let nightly = directory.path().join("nightly-x86_64-unknown-linux-gnu");
        fs::create_dir_all(nightly.join("lib/rustlib/src/rust/library/core")).expect("a directory");
        fs::create_dir_all(nightly.join("bin/cargo")).expect("a directory");
        std::os::unix::fs::symlink("/usr", directory.path().join(LINKED_TOOLCHAIN)).expect("a link");
        let found = toolchains(directory.path());
        assert_eq!(Toolchain::named(&found, "nightly"), Some(&Toolchain { is_usr: false, cargo: true, can_bpf: true }));
        assert!(Toolchain::is_linked(&found));
    }
}
