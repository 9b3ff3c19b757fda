//! `cargo xtask`: everything a person types to work on Portal.

mod apt;
mod child;
mod environment;
mod kernels;
mod machine;
mod plan;
mod requirements;
mod setup;
mod tasks;
mod unpack;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::child::Interrupts;
use crate::requirements::Wanted;
use crate::setup::Voice;

/// Set up, build, show and test Portal.
///
/// On Debian 12 as root every command first installs what is missing; elsewhere it says what to install.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what is missing: the BPF compiler, bpf-linker, the lab's tools
    Setup {
        /// Also install rustfmt and clippy, which only `.ci/run` needs
        #[arg(long)]
        lints: bool,
        /// Also install cargo-deny, which checks licences and advisories (some minutes to compile)
        #[arg(long)]
        with_deny: bool,
    },
    /// Build everything; arguments go to `cargo build`
    Build(Rest),
    /// Show the whole path on this machine: 511, login, the real site (needs root); arguments go to the demonstration
    Demo(Rest),
    /// Work with the lab of network namespaces (needs root); arguments go to the lab
    Lab(Rest),
    /// Measure Portal beside its rivals (needs root, some minutes; `--quick`, `--json FILE`, `--only METRIC`, `--plots`)
    Bench(Rest),
    /// Run all tests (needs root); arguments, such as a filter, go to `cargo test`
    Test(TestArguments),
}

#[derive(clap::Args)]
#[command(disable_help_flag = true)]
struct TestArguments {
    /// Instead, run the gate's tests on other kernels, in an emulator (some minutes): see docs/kernels.md
    #[arg(long, conflicts_with = "rest")]
    kernels: bool,
    /// Write the results into docs/kernels.md
    #[arg(long, requires = "kernels")]
    record: bool,
    #[command(flatten)]
    rest: Rest,
}

/// What is handed on, word by word, `--help` and the first `--` included.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
struct Rest {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    rest: Vec<OsString>,
}

impl Rest {
    /// The words as they were typed. clap's own list lacks a leading `--`, which means something to cargo.
    fn words(self) -> Vec<OsString> {
        let typed: Vec<_> = std::env::args_os().skip(2).collect();
        if typed.first().is_some_and(|word| word == "--") { typed } else { self.rest }
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    // From here on Ctrl-C ends what runs, not this process, which has an installation to leave whole.
    let interrupts = Interrupts::catch()?;
    let setup = |wanted, voice| setup::run(wanted, voice, &interrupts);
    let before = || setup(Wanted::default(), Voice::OnlyChanges);
    match arguments.command {
        Command::Setup { lints, with_deny } => {
            setup(Wanted { lints, deny: with_deny, ..Wanted::default() }, Voice::Full)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Build(rest) => {
            before()?;
            tasks::build(&rest.words(), &interrupts)
        }
        Command::Demo(rest) => {
            tasks::demand_root("demo")?;
            before()?;
            let arguments: Vec<_> = std::iter::once("demo".into()).chain(rest.words()).collect();
            tasks::lab(&arguments, &interrupts)
        }
        Command::Lab(rest) => {
            tasks::demand_root("lab")?;
            before()?;
            tasks::lab(&rest.words(), &interrupts)
        }
        Command::Bench(rest) => {
            tasks::demand_root("bench")?;
            setup(Wanted { bench: true, ..Wanted::default() }, Voice::OnlyChanges)?;
            tasks::bench(&rest.words(), &interrupts)
        }
        Command::Test(TestArguments { kernels: true, record, .. }) => {
            setup(Wanted { kernels: true, ..Wanted::default() }, Voice::OnlyChanges)?;
            kernels::test(record, &interrupts)
        }
        Command::Test(TestArguments { rest, .. }) => {
            tasks::demand_root("test")?;
            before()?;
            tasks::test(&rest.words(), &interrupts)
        }
    }
}
