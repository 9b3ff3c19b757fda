//! `portald`, the daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    portal_userspace::daemon::main()
}
