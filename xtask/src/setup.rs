//! `cargo xtask setup`: looks, says what it does, does it, and looks again.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::child::{Interrupts, named};
use crate::machine::Machine;
use crate::plan::{Plan, Problem, Step, plan};
use crate::requirements::{BPF_LINKER, CARGO_DENY, LINKED_TOOLCHAIN, LLVM, Version, Wanted, all_tools};
use crate::{apt, environment, unpack};

/// How much is said.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Voice {
    /// The result in any case.
    Full,
    /// Nothing when nothing is missing: the caller wants something else and setup only comes first.
    OnlyChanges,
}

/// Installs what `wanted` needs and the machine lacks.
pub(crate) fn run(wanted: Wanted, voice: Voice, interrupts: &Interrupts) -> Result<()> {
    let mut found = plan(&Machine::look(), wanted);
    let changes = !found.is_empty();
    if !found.steps.is_empty() {
        // Two at once would undo each other's hold on services. The second waits here and then finds nothing to do.
        let _lock = lock()?;
        found = plan(&Machine::look(), wanted);
        for step in &found.steps {
            interrupts.check()?;
            take(step, interrupts)?;
        }
        interrupts.check()?;
        found = plan(&Machine::look(), wanted);
    }
    refuse(&found)?;
    if voice == Voice::Full || changes {
        println!("setup: {}", if changes { "done" } else { "nothing is missing, nothing was installed" });
        advise_on_path();
    }
    Ok(())
}

fn lock() -> Result<File> {
    let path = "/run/portal-setup.lock";
    let file = File::create(path).with_context(|| format!("cannot create {path}"))?;
    file.lock().with_context(|| format!("cannot lock {path}"))?;
    Ok(file)
}

/// Fails, naming everything that is still missing and its remedy.
fn refuse(plan: &Plan) -> Result<()> {
    if !plan.steps.is_empty() {
        bail!("still missing after its installation: {:?}", plan.steps);
    }
    if plan.problems.is_empty() {
        return Ok(());
    }
    for Problem { what, remedy } in &plan.problems {
        eprintln!("setup: missing: {what}\n       remedy: {remedy}");
    }
    bail!("setup is not complete; on Debian 12, as root, it installs what is missing by itself")
}

fn take(step: &Step, interrupts: &Interrupts) -> Result<()> {
    match step {
        Step::Packages(packages) => {
            for package in packages {
                println!("setup: installs Debian's {}: it {}", package.name, package.why);
            }
            let names: Vec<_> = packages.iter().map(|package| package.name).collect();
            let services: Vec<_> = all_tools()
                .filter(|tool| names.contains(&tool.package))
                .flat_map(|tool| tool.services)
                .copied()
                .collect();
            if !services.is_empty() {
                println!(
                    "setup: does not start, now or at boot: {} (they serve inside the lab only; \
                     `systemctl enable` makes one yours)",
                    services.join(", ")
                );
            }
            apt::install(&names, &services, interrupts)
        }
        Step::LinkToolchain => {
            println!(
                "setup: links /usr as rustup's toolchain `{LINKED_TOOLCHAIN}`: aya-build asks rustup for a compiler"
            );
            run_quietly(
                environment::command("rustup").args(["toolchain", "link", LINKED_TOOLCHAIN, "/usr"]),
                interrupts,
            )
        }
        Step::BpfLinker => {
            println!("setup: compiles bpf-linker {BPF_LINKER}: it links the BPF program (two minutes on two cores)");
            cargo_install("bpf-linker", BPF_LINKER, interrupts)
        }
        Step::LinkLlvm => {
            let link = environment::cargo_home().join("lib").join(LLVM);
            println!("setup: links {}: bpf-linker opens LLVM there", link.display());
            link_llvm(&link)
        }
        Step::Components(components) => {
            println!("setup: adds to rustup's toolchain: {} (the checks of .ci/run)", components.join(", "));
            run_quietly(environment::command("rustup").args(["component", "add"]).args(components), interrupts)
        }
        Step::CargoDeny => {
            println!("setup: compiles cargo-deny {CARGO_DENY}: it checks licences and advisories (some minutes)");
            cargo_install("cargo-deny", CARGO_DENY, interrupts)
        }
        Step::Unpack(one) => {
            let directory = unpack::directory(one);
            println!(
                "setup: unpacks Debian's {} into {}, without installing it: it {}",
                one.package,
                directory.display(),
                one.why
            );
            unpack::unpack(one, interrupts)
        }
    }
}

fn cargo_install(name: &str, version: Version, interrupts: &Interrupts) -> Result<()> {
    let home = environment::cargo_home();
    fs::create_dir_all(&home).with_context(|| format!("cannot create {}", home.display()))?;
    run_quietly(
        environment::cargo()
            .args(["install", "--quiet", "--locked", "--force", name, "--version", &version.to_string(), "--root"])
            .arg(&home)
            // This workspace's own settings are not for foreign code.
            .current_dir(&home)
            .env_remove("RUSTC_BOOTSTRAP")
            .env_remove("CARGO_TARGET_DIR"),
        interrupts,
    )
}

/// Finds Debian's library, in the directory of whatever architecture this is, and links it.
fn link_llvm(link: &PathBuf) -> Result<()> {
    let library = fs::read_dir("/usr/lib")
        .context("cannot read /usr/lib")?
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().contains("-linux-gnu"))
        .map(|entry| entry.path().join(LLVM))
        .find(|library| library.exists())
        .with_context(|| {
            format!(
                "{LLVM} is in no /usr/lib/*-linux-gnu, though it came with the BPF compiler until now; \
                 if `apt-cache depends rustc-web` names another LLVM, bpf-linker's version in xtask must follow it"
            )
        })?;
    let directory = link.parent().expect("the link is in cargo's lib directory");
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    if link.is_symlink() {
        fs::remove_file(link).with_context(|| format!("cannot remove the dangling link {}", link.display()))?;
    }
    std::os::unix::fs::symlink(&library, link).with_context(|| format!("cannot create {}", link.display()))
}

fn run_quietly(command: &mut Command, interrupts: &Interrupts) -> Result<()> {
    let status = interrupts.run(command.stdin(Stdio::null()).stdout(Stdio::null()))?;
    interrupts.check()?;
    if !status.success() {
        bail!("{} failed: {status}; what it said is above", named(command));
    }
    Ok(())
}

/// `cargo xtask` completes PATH for its children; who types `cargo build` needs it in the shell.
fn advise_on_path() {
    if !environment::path_reaches_cargo_home() {
        println!(
            "setup: for a plain `cargo build`, put bpf-linker on PATH: export PATH=\"$PATH:{}\"",
            environment::cargo_home().join("bin").display()
        );
    }
}
