//! From the facts about a machine to what is to be done there. Pure: nothing here looks or acts.

use crate::machine::{Machine, Toolchain};
use crate::requirements::{
    BENCH_TOOLS, BPF_CORE, BPF_LINKER, CARGO, CARGO_DENY, CLIPPY, CONFLICTS, LINKED_TOOLCHAIN, LLVM, RUSTC, RUSTFMT,
    TOOLS, UNPACKED, Unpacked, Version, Wanted, oldest_rust,
};

/// What is to be done, in this order, or why it cannot be.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Steps that this program takes. Empty if there are problems.
    pub(crate) steps: Vec<Step>,
    /// What a person has to do.
    pub(crate) problems: Vec<Problem>,
}

/// One thing that this program does by itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Install these Debian packages in one go.
    Packages(Vec<Package>),
    /// `rustup toolchain link`: makes Debian's compiler one that rustup can run.
    LinkToolchain,
    /// `cargo install bpf-linker`.
    BpfLinker,
    /// Put a link to Debian's LLVM where bpf-linker looks for it.
    LinkLlvm,
    /// `rustup component add`.
    Components(Vec<&'static str>),
    /// `cargo install cargo-deny`.
    CargoDeny,
    /// Download a Debian package and unpack it below `target/kernels`.
    Unpack(Unpacked),
}

/// A Debian package and what it is for.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(crate) struct Package {
    pub(crate) name: &'static str,
    pub(crate) why: &'static str,
}

/// Something that is missing and that this program leaves to a person.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) what: String,
    pub(crate) remedy: String,
}

impl Plan {
    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.problems.is_empty()
    }
}

/// Decides what `machine` lacks.
pub(crate) fn plan(machine: &Machine, wanted: Wanted) -> Plan {
    if machine.debian_12 && machine.root { debian_as_root(machine, wanted) } else { elsewhere(machine, wanted) }
}

fn debian_as_root(machine: &Machine, wanted: Wanted) -> Plan {
    let mut plan = Plan::default();
    let mut packages = missing_tools(machine, wanted);
    let mut later = Vec::new();

    if let Some(name) = &machine.chosen_toolchain {
        plan.problems.extend(chosen_toolchain(machine, name));
    } else {
        if !compiler_is_installed(machine) {
            let conflicts: Vec<_> =
                CONFLICTS.iter().copied().filter(|name| machine.packages.contains_key(*name)).collect();
            if conflicts.is_empty() {
                packages.push(Package { name: RUSTC, why: "is the BPF compiler" });
                packages.push(Package { name: BPF_CORE, why: "is that compiler's `core` for BPF" });
                // Its version is tied to the compiler's: apt must be told to bring both to the same.
                if machine.packages.contains_key(CARGO) {
                    packages.push(Package { name: CARGO, why: "goes with the BPF compiler, version by version" });
                }
            } else {
                let names = conflicts.join(" ");
                plan.problems.push(Problem {
                    what: format!("the BPF compiler ({RUSTC}) conflicts with the installed {names}"),
                    remedy: format!(
                        "apt-get remove {names}; or use rustup's: \
                         rustup toolchain install nightly --component rust-src, and set PORTAL_BPF_TOOLCHAIN=nightly"
                    ),
                });
            }
        }
        match &machine.rustup {
            Some(toolchains) => {
                if !machine.cargo_in_usr && !Toolchain::can_lend_cargo(toolchains) {
                    packages.push(Package { name: CARGO, why: "builds for BPF, as rustup has none to lend" });
                }
                if !Toolchain::is_linked(toolchains) {
                    later.push(Step::LinkToolchain);
                }
            }
            // aya-build then takes the compiler in use. Before the packages come there may be none in /usr/bin.
            None if machine.packages.contains_key(RUSTC) && !machine.rustc_in_usr => plan.problems.push(Problem {
                what: "the rustc on PATH is neither rustup's nor Debian's, and has no `core` for BPF".into(),
                remedy: "put /usr/bin first in PATH, or install rustup".into(),
            }),
            None => {}
        }
        if !machine.llvm {
            later.push(Step::LinkLlvm);
        }
    }
    if machine.bpf_linker.is_none_or(|version| version < BPF_LINKER) {
        later.insert(0, Step::BpfLinker);
    }
    if wanted.lints {
        let lacking = lacking_lints(machine);
        if machine.rustup.is_some() {
            if !lacking.is_empty() {
                later.push(Step::Components(lacking.iter().map(|lint| lint.component).collect()));
            }
        } else {
            packages.extend(lacking.iter().map(|lint| Package { name: lint.package, why: lint.why }));
        }
    }
    if wanted.deny && !machine.cargo_deny {
        later.push(Step::CargoDeny);
    }
    if wanted.kernels {
        later.extend(not_unpacked(machine).map(Step::Unpack));
    }

    if plan.problems.is_empty() {
        if !packages.is_empty() {
            plan.steps.push(Step::Packages(packages));
        }
        plan.steps.extend(later);
    }
    plan
}

fn elsewhere(machine: &Machine, wanted: Wanted) -> Plan {
    let mut problems = Vec::new();
    let mut problem = |what: String, remedy: String| problems.push(Problem { what, remedy });

    if let Some(name) = &machine.chosen_toolchain {
        if let Some(Problem { what, remedy }) = chosen_toolchain(machine, name) {
            problem(what, remedy);
        }
    } else if machine.bpf_core {
        match &machine.rustup {
            Some(toolchains) if !Toolchain::is_linked(toolchains) => problem(
                format!("rustup does not know the BPF compiler in /usr as `{LINKED_TOOLCHAIN}`"),
                format!("rustup toolchain link {LINKED_TOOLCHAIN} /usr"),
            ),
            None if !machine.rustc_in_usr => problem(
                "the rustc on PATH has no `core` for BPF; the one in /usr/bin has".into(),
                "put /usr/bin first in PATH".into(),
            ),
            Some(_) | None => {}
        }
        if !machine.llvm {
            problem(
                format!("{LLVM}, which bpf-linker opens, is not in cargo's lib directory"),
                format!("mkdir -p ~/.cargo/lib && ln -s /usr/lib/*-linux-gnu*/{LLVM} ~/.cargo/lib/"),
            );
        }
    } else if !machine
        .rustup
        .as_ref()
        .and_then(|toolchains| Toolchain::named(toolchains, "nightly"))
        .is_some_and(|nightly| nightly.can_bpf)
    {
        let install = "rustup toolchain install nightly --profile minimal --component rust-src";
        problem(
            "a compiler for BPF: rustup's nightly with rust-src".into(),
            if machine.rustup.is_some() { install.into() } else { format!("install rustup, then: {install}") },
        );
    }
    match machine.bpf_linker {
        None => problem("bpf-linker on PATH, which links the BPF program".into(), install("bpf-linker", BPF_LINKER)),
        Some(version) if version < BPF_LINKER => problem(
            format!("bpf-linker {BPF_LINKER} or newer; the one on PATH is {version}"),
            install("bpf-linker", BPF_LINKER),
        ),
        Some(_) => {}
    }
    let missing = missing_tools(machine, wanted);
    if !missing.is_empty() {
        let what = missing.iter().map(|package| format!("{} {}", package.name, package.why)).collect::<Vec<_>>();
        let names = missing.iter().map(|package| package.name).collect::<Vec<_>>();
        problem(
            format!("tools: {} (Debian's names)", what.join("; ")),
            format!("on Debian: apt-get install --no-install-recommends {}", names.join(" ")),
        );
    }
    if wanted.lints {
        for lint in lacking_lints(machine) {
            problem(lint.component.into(), format!("rustup component add {}", lint.component));
        }
    }
    if wanted.deny && !machine.cargo_deny {
        problem("cargo-deny".into(), install("cargo-deny", CARGO_DENY));
    }
    if wanted.kernels {
        let missing = not_unpacked(machine).map(|one| one.package).collect::<Vec<_>>();
        if !missing.is_empty() {
            problem(
                format!("Debian 12's packages {}, unpacked below target/kernels", missing.join(" ")),
                "run it once as root on Debian 12, whose archive has them".into(),
            );
        }
    }
    Plan { steps: Vec::new(), problems }
}

fn install(name: &str, version: Version) -> String {
    format!("cargo install {name} --version {version} --locked")
}

fn missing_tools(machine: &Machine, wanted: Wanted) -> Vec<Package> {
    let bench = if wanted.bench { BENCH_TOOLS } else { &[] };
    TOOLS
        .iter()
        .chain(bench)
        .filter(|tool| !machine.tools.contains(tool.package))
        .map(|tool| Package { name: tool.package, why: tool.why })
        .collect()
}

fn not_unpacked(machine: &Machine) -> impl Iterator<Item = Unpacked> {
    UNPACKED.into_iter().filter(|one| !machine.unpacked.contains(one.package))
}

/// Whether Debian's compiler and its `core` are there, of one version, and new enough.
fn compiler_is_installed(machine: &Machine) -> bool {
    match (machine.packages.get(RUSTC), machine.packages.get(BPF_CORE)) {
        (Some(rustc), Some(core)) => {
            rustc == core && Version::parse(rustc).is_some_and(|version| version >= oldest_rust()) && machine.bpf_core
        }
        _ => false,
    }
}

fn chosen_toolchain(machine: &Machine, name: &str) -> Option<Problem> {
    let toolchain = machine.rustup.as_ref().and_then(|toolchains| Toolchain::named(toolchains, name));
    match toolchain {
        Some(toolchain) if toolchain.can_bpf => None,
        Some(_) => Some(Problem {
            what: format!("PORTAL_BPF_TOOLCHAIN={name}: that toolchain has no source of `core` to build for BPF"),
            remedy: format!("rustup component add rust-src --toolchain {name}, or unset PORTAL_BPF_TOOLCHAIN"),
        }),
        None => Some(Problem {
            what: format!("PORTAL_BPF_TOOLCHAIN={name}: rustup has no such toolchain"),
            remedy: format!("rustup toolchain install {name} --component rust-src, or unset PORTAL_BPF_TOOLCHAIN"),
        }),
    }
}

struct Lint {
    component: &'static str,
    package: &'static str,
    why: &'static str,
}

fn lacking_lints(machine: &Machine) -> Vec<Lint> {
    let rustfmt = Lint { component: "rustfmt", package: RUSTFMT, why: "checks the format" };
    let clippy = Lint { component: "clippy", package: CLIPPY, why: "is the linter" };
    [(machine.rustfmt, rustfmt), (machine.clippy, clippy)]
        .into_iter()
        .filter_map(|(there, lint)| (!there).then_some(lint))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::requirements::all_tools;

    const STABLE: &str = "stable-x86_64-unknown-linux-gnu";
    const NIGHTLY: &str = "nightly-x86_64-unknown-linux-gnu";
    const NOW: &str = "1.96.0+dfsg1-1~deb12u2";
    const OLD: &str = "1.85.0+dfsg3-1~deb12u3";

    /// Debian 12, root, rustup with stable, everything installed.
    fn complete() -> Machine {
        let with_cargo = Toolchain { cargo: true, ..Toolchain::default() };
        let usr = Toolchain { is_usr: true, can_bpf: true, ..Toolchain::default() };
        Machine {
            debian_12: true,
            root: true,
            tools: all_tools().map(|tool| tool.package).collect(),
            packages: packages(&[(RUSTC, NOW), (BPF_CORE, NOW)]),
            bpf_core: true,
            cargo_in_usr: false,
            rustc_in_usr: false,
            rustup: Some(BTreeMap::from([(STABLE.into(), with_cargo), (LINKED_TOOLCHAIN.into(), usr)])),
            chosen_toolchain: None,
            bpf_linker: Some(BPF_LINKER),
            llvm: true,
            rustfmt: true,
            clippy: true,
            cargo_deny: true,
            unpacked: UNPACKED.iter().map(|one| one.package).collect(),
        }
    }

    /// Debian 12, root, Debian's cargo and no rustup, everything installed.
    fn complete_without_rustup() -> Machine {
        Machine {
            packages: packages(&[(RUSTC, NOW), (BPF_CORE, NOW), (CARGO, NOW)]),
            cargo_in_usr: true,
            rustc_in_usr: true,
            rustup: None,
            ..complete()
        }
    }

    /// Not Debian: rustup's nightly with its source.
    fn another_system() -> Machine {
        let nightly = Toolchain { cargo: true, can_bpf: true, is_usr: false };
        Machine {
            debian_12: false,
            packages: BTreeMap::new(),
            bpf_core: false,
            llvm: false,
            rustup: Some(BTreeMap::from([(NIGHTLY.into(), nightly)])),
            ..complete()
        }
    }

    fn packages(list: &[(&str, &str)]) -> BTreeMap<String, String> {
        list.iter().map(|(name, version)| ((*name).into(), (*version).into())).collect()
    }

    const ALL: Wanted = Wanted { lints: true, deny: true, kernels: true, bench: true };

    fn change(machine: Machine, change: impl FnOnce(&mut Machine)) -> Machine {
        let mut machine = machine;
        change(&mut machine);
        machine
    }

    /// The steps in short: package names, or the step's name.
    fn short(plan: &Plan) -> String {
        let steps = plan.steps.iter().map(|step| match step {
            Step::Packages(packages) => packages.iter().map(|package| package.name).collect::<Vec<_>>().join(" "),
            Step::Unpack(one) => format!("Unpack({})", one.package),
            other => format!("{other:?}"),
        });
        steps.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn where_nothing_is_missing_nothing_is_done() {
        for (sentence, machine) in [
            ("Debian with rustup", complete()),
            ("Debian without rustup", complete_without_rustup()),
            ("Debian, not root", change(complete(), |machine| machine.root = false)),
            ("another system", another_system()),
            (
                "an own choice of toolchain needs neither Debian's compiler nor its LLVM",
                change(another_system(), |machine| {
                    machine.debian_12 = true;
                    machine.chosen_toolchain = Some("nightly".into());
                }),
            ),
            ("a newer bpf-linker", change(complete(), |machine| machine.bpf_linker = Some(Version(0, 11, 0)))),
        ] {
            assert_eq!(plan(&machine, ALL), Plan::default(), "{sentence}");
        }
    }

    #[test]
    fn on_debian_as_root_exactly_what_is_missing_is_installed() {
        for (sentence, machine, expected) in [
            ("one tool", change(complete(), |machine| _ = machine.tools.remove("wrk")), "wrk"),
            (
                "a fresh machine with rustup's stable",
                change(complete(), |machine| {
                    machine.packages.clear();
                    machine.bpf_core = false;
                    machine.bpf_linker = None;
                    machine.llvm = false;
                    machine.rustup.as_mut().expect("rustup").remove(LINKED_TOOLCHAIN);
                }),
                "rustc-web libstd-rust-web-dev-bpf, BpfLinker, LinkToolchain, LinkLlvm",
            ),
            (
                "a fresh machine with Debian's cargo",
                change(complete_without_rustup(), |machine| {
                    machine.packages.remove(BPF_CORE);
                    machine.bpf_core = false;
                    machine.bpf_linker = None;
                    machine.llvm = false;
                }),
                "rustc-web libstd-rust-web-dev-bpf cargo-web, BpfLinker, LinkLlvm",
            ),
            (
                "an older compiler than its core: both, and the cargo tied to them",
                change(complete_without_rustup(), |machine| _ = machine.packages.insert(RUSTC.into(), OLD.into())),
                "rustc-web libstd-rust-web-dev-bpf cargo-web",
            ),
            (
                "compiler and core of one version, but too old",
                change(complete(), |machine| machine.packages = packages(&[(RUSTC, OLD), (BPF_CORE, OLD)])),
                "rustc-web libstd-rust-web-dev-bpf",
            ),
            (
                "rustup has only a numbered toolchain, whose cargo it does not lend",
                change(complete(), |machine| {
                    let toolchains = machine.rustup.as_mut().expect("rustup");
                    let stable = toolchains.remove(STABLE).expect("stable");
                    toolchains.insert("1.95.0-x86_64-unknown-linux-gnu".into(), stable);
                }),
                "cargo-web",
            ),
            (
                "the linked name means something else",
                change(complete(), |machine| {
                    let toolchains = machine.rustup.as_mut().expect("rustup");
                    toolchains.get_mut(LINKED_TOOLCHAIN).expect("linked").is_usr = false;
                }),
                "LinkToolchain",
            ),
            (
                "an old bpf-linker",
                change(complete(), |machine| machine.bpf_linker = Some(Version(0, 9, 15))),
                "BpfLinker",
            ),
            ("no LLVM for it", change(complete(), |machine| machine.llvm = false), "LinkLlvm"),
            (
                "no lints, with rustup",
                change(complete(), |machine| (machine.rustfmt, machine.clippy) = (false, false)),
                "Components([\"rustfmt\", \"clippy\"])",
            ),
            (
                "no lints, without rustup",
                change(complete_without_rustup(), |machine| (machine.rustfmt, machine.clippy) = (false, false)),
                "rustfmt-web rust-web-clippy",
            ),
            ("no cargo-deny", change(complete(), |machine| machine.cargo_deny = false), "CargoDeny"),
            (
                "one kernel is not there",
                change(complete(), |machine| _ = machine.unpacked.remove("linux-image-6.12-cloud-amd64")),
                "Unpack(linux-image-6.12-cloud-amd64)",
            ),
        ] {
            let plan = plan(&machine, ALL);
            assert_eq!(plan.problems, [], "{sentence}");
            assert_eq!(short(&plan), expected, "{sentence}");
        }
    }

    #[test]
    fn what_was_not_asked_for_is_not_installed() {
        let machine = change(complete(), |machine| {
            (machine.rustfmt, machine.clippy, machine.cargo_deny) = (false, false, false);
            machine.unpacked.clear();
            machine.tools = TOOLS.iter().map(|tool| tool.package).collect();
        });
        assert!(plan(&machine, Wanted::default()).is_empty());
    }

    #[test]
    fn what_a_person_must_do_is_named_and_nothing_is_installed_before() {
        for (sentence, machine, expected) in [
            (
                "Debian's other compiler is installed",
                change(complete(), |machine| {
                    machine.packages = packages(&[("rustc", "1.63.0"), ("libstd-rust-dev", "1.63.0")]);
                    machine.tools.clear();
                }),
                "apt-get remove rustc libstd-rust-dev;",
            ),
            (
                "no rustup, and another rustc before Debian's",
                change(complete_without_rustup(), |machine| machine.rustc_in_usr = false),
                "put /usr/bin first in PATH",
            ),
            (
                "the chosen toolchain is not there",
                change(complete(), |machine| machine.chosen_toolchain = Some("beta".into())),
                "rustup toolchain install beta --component rust-src",
            ),
            (
                "the chosen toolchain has no source",
                change(complete(), |machine| machine.chosen_toolchain = Some("stable".into())),
                "rustup component add rust-src --toolchain stable",
            ),
            (
                "another system without nightly",
                change(another_system(), |machine| machine.rustup = Some(BTreeMap::new())),
                "rustup toolchain install nightly",
            ),
            (
                "another system without rustup",
                change(another_system(), |machine| machine.rustup = None),
                "install rustup, then: rustup toolchain install nightly",
            ),
            (
                "another system without bpf-linker",
                change(another_system(), |machine| machine.bpf_linker = None),
                "cargo install bpf-linker --version 0.10.3 --locked",
            ),
            (
                "another system with an old bpf-linker",
                change(another_system(), |machine| machine.bpf_linker = Some(Version(0, 9, 15))),
                "cargo install bpf-linker --version 0.10.3 --locked",
            ),
            (
                "another system without tools",
                change(another_system(), |machine| machine.tools.clear()),
                "apt-get install --no-install-recommends gcc libc6-dev iproute2",
            ),
            (
                "another system without the kernels",
                change(another_system(), |machine| machine.unpacked.clear()),
                "as root on Debian 12",
            ),
            (
                "Debian, not root, compiler not linked",
                change(complete(), |machine| {
                    machine.root = false;
                    machine.rustup.as_mut().expect("rustup").remove(LINKED_TOOLCHAIN);
                }),
                "rustup toolchain link portal-bpf /usr",
            ),
            (
                "Debian, not root, no LLVM",
                change(complete(), |machine| (machine.root, machine.llvm) = (false, false)),
                "mkdir -p ~/.cargo/lib && ln -s",
            ),
        ] {
            let plan = plan(&machine, ALL);
            assert_eq!(plan.steps, [], "{sentence}");
            assert_eq!(plan.problems.len(), 1, "{sentence}: {:?}", plan.problems);
            assert!(plan.problems[0].remedy.contains(expected), "{sentence}: {:?}", plan.problems);
        }
    }
}
