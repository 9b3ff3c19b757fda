//! The lab from the command line. `cargo xtask demo` and `cargo xtask lab` start it.

use anyhow::Result;
use clap::{Parser, Subcommand};
use portal_lab::{Lab, announce_and_wait_for_signal, demo::Demo, exit, remove_on_signal};

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

fn main() -> ! {
    let action = Arguments::parse().action;
    remove_on_signal();
    // An error after a signal is that signal's doing, and then not told: `exit` gives way.
    let (code, error) = match run(&action) {
        Ok(code) => (code, None),
        Err(error) => (1, Some(format!("Error: {error:?}"))),
    };
    exit(code, error.as_deref())
}

fn run(action: &Action) -> Result<i32> {
    match action {
        Action::Demo { keep } => {
            let demo = Demo::run()?;
            let code = i32::from(!demo.passed());
            if *keep {
                let text = format!("{}\n{}Ctrl-C removes the lab.", demo.table(), demo.how_to_enter()?);
                announce_and_wait_for_signal(&text, code);
            }
            println!("{}", demo.table());
            Ok(code)
        }
        Action::Up => {
            let lab = Lab::new()?;
            announce_and_wait_for_signal(&format!("{}Ctrl-C removes the lab.", lab.how_to_enter()), 0);
        }
    }
}
