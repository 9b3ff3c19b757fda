//! The lab from the command line. `cargo xtask demo` and `cargo xtask lab` start it.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use portal_lab::{Lab, demo::Demo, wait_for_signal};

/// A gateway, its guests and an internet in network namespaces. Needs root; removes everything it made, also after Ctrl-C.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Show step by step what a guest sees, in one table. Exits with 0 only if each step came as expected.
    Demo {
        /// Leave the lab and portald up until Ctrl-C, and print how to enter.
        #[arg(long)]
        keep: bool,
    },
    /// Leave a lab up until Ctrl-C, without portald.
    Up,
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().action {
        Action::Demo { keep } => {
            let demo = Demo::run()?;
            println!("{}", demo.table());
            if keep {
                println!("{}Ctrl-C removes the lab.", demo.how_to_enter()?);
                wait_for_signal(i32::from(!demo.passed()));
            }
            Ok(if demo.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Action::Up => {
            let lab = Lab::new()?;
            println!("{}Ctrl-C removes the lab.", lab.how_to_enter());
            wait_for_signal(0);
        }
    }
}
