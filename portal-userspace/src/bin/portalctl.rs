//! `portalctl`, the control CLI.

use std::process::ExitCode;

fn main() -> ExitCode {
    portal_userspace::cli::run(std::env::args_os())
}
