//! The lab from the command line.

use anyhow::Result;
use clap::{Parser, Subcommand};
use portal_lab::Lab;

/// A gateway, its guests and an internet in network namespaces.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Leave a lab up until Ctrl-C.
    Up,
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Action::Up => {
            let lab = Lab::new()?;
            print!("{}", lab.how_to_enter());
            println!("Ctrl-C removes it.");
            loop {
                std::thread::park();
            }
        }
    }
}
