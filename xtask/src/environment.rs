//! The environment that every child gets: where cargo and the tools are.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where Debian keeps what only root was meant to run. `su` without `-` leaves them out of PATH.
const ADMINISTRATOR: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// cargo's home: `$CARGO_HOME`, or `~/.cargo`.
pub(crate) fn cargo_home() -> PathBuf {
    env::var_os("CARGO_HOME").filter(|home| !home.is_empty()).map_or_else(|| home().join(".cargo"), PathBuf::from)
}

/// rustup's home: `$RUSTUP_HOME`, or `~/.rustup`.
pub(crate) fn rustup_home() -> PathBuf {
    env::var_os("RUSTUP_HOME").filter(|home| !home.is_empty()).map_or_else(|| home().join(".rustup"), PathBuf::from)
}

/// cargo's target directory, in which this program is: wherever the caller's settings have put it.
pub(crate) fn target() -> PathBuf {
    let own = env::current_exe().ok();
    own.as_deref().and_then(|program| program.ancestors().nth(2)).unwrap_or(Path::new("target")).to_owned()
}

fn home() -> PathBuf {
    env::home_dir().unwrap_or_else(|| PathBuf::from("/"))
}

/// Whether the caller's own PATH reaches what `cargo install` installs.
pub(crate) fn path_reaches_cargo_home() -> bool {
    let bin = cargo_home().join("bin");
    env::split_paths(&env::var_os("PATH").unwrap_or_default()).any(|entry| entry == bin)
}

/// PATH for the children.
///
/// What is added comes last, so that it hides nothing of the caller's. bpf-linker needs its own directory in it twice
/// over: rustc looks for it there, and it looks for libLLVM in `../lib` of every entry.
pub(crate) fn path() -> OsString {
    complete(&env::var_os("PATH").unwrap_or_default(), &cargo_home())
}

fn complete(path: &OsStr, cargo_home: &Path) -> OsString {
    let mut entries: Vec<PathBuf> = env::split_paths(path).filter(|entry| !entry.as_os_str().is_empty()).collect();
    for entry in std::iter::once(cargo_home.join("bin")).chain(ADMINISTRATOR.map(PathBuf::from)) {
        if !entries.contains(&entry) {
            entries.push(entry);
        }
    }
    // Only an entry with a colon in it cannot be joined; what the caller has is then better than nothing.
    env::join_paths(entries).unwrap_or_else(|_| path.to_owned())
}

/// The first executable file of this name on the children's PATH.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    env::split_paths(&path())
        .map(|entry| entry.join(program))
        .find(|file| file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0))
}

/// A command in the children's environment, found on PATH in the caller's order: for what the caller has installed or built, as
/// rustup and cargo. What a package of the system's installs is started by [`portal_tools::command`].
#[expect(clippy::disallowed_methods, reason = "which rustup and which cargo is the caller's choice")]
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", path());
    command
}

/// The cargo that started this program.
pub(crate) fn cargo() -> Command {
    let mut command = command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // .cargo/config.toml sets it for build scripts; it would silence this one too.
    command.env_remove("CARGO_TERM_QUIET");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_from_path_is_added_behind_what_is_there() {
        for (sentence, path, expected) in [
            ("an empty PATH", "", "/h/bin:/usr/local/sbin:/usr/sbin:/sbin"),
            ("nothing of it", "/usr/bin", "/usr/bin:/h/bin:/usr/local/sbin:/usr/sbin:/sbin"),
            ("all of it", "/sbin:/h/bin:/usr/sbin:/usr/local/sbin", "/sbin:/h/bin:/usr/sbin:/usr/local/sbin"),
            ("an empty entry is no directory", "/a::/b", "/a:/b:/h/bin:/usr/local/sbin:/usr/sbin:/sbin"),
        ] {
            assert_eq!(complete(OsStr::new(path), Path::new("/h")), expected, "{sentence}");
        }
    }
}
