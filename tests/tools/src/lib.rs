//! Where the programs are that the lab, the tests, the benchmark and `cargo xtask` start.
//!
//! A program is called by the path at which its Debian package installs it, whatever comes first in PATH: a `python3` of pyenv's
//! lacks the modules that setup has installed, and an `nginx` or a `curl` of somebody's own may be another program altogether.
//! Scripts that are started find the same programs, because their PATH begins with the same directories.

use std::{
    env,
    ffi::{OsStr, OsString},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

/// Where a package of the system's installs programs (Filesystem Hierarchy Standard 3.0; hier(7)). `/usr/local` is not among them:
/// no package installs there.
pub const SYSTEM: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// The program as a package of the system's has installed it.
pub fn installed(program: &str) -> Option<PathBuf> {
    first(SYSTEM.iter().map(PathBuf::from), program)
}

/// The program where a package has installed it, or else, on a system that keeps them elsewhere, the first on PATH.
pub fn find(program: &str) -> Option<PathBuf> {
    installed(program).or_else(|| first(env::split_paths(&env::var_os("PATH").unwrap_or_default()), program))
}

/// What to start for this name: a path is left as it is. What is nowhere keeps its name, which the error then says.
pub fn program(name: impl AsRef<OsStr>) -> PathBuf {
    let name = Path::new(name.as_ref());
    let bare = name.to_str().filter(|text| !text.contains('/'));
    bare.and_then(find).unwrap_or_else(|| name.to_owned())
}

/// A command that starts the program, and whose own children find the system's programs first.
#[expect(clippy::disallowed_methods, reason = "this is the one place that knows the paths")]
pub fn command(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program(name));
    command.env("PATH", path());
    command
}

/// PATH for children: the directories of packages, then what else the caller's has.
pub fn path() -> OsString {
    behind_the_systems(&env::var_os("PATH").unwrap_or_default())
}

fn behind_the_systems(path: &OsStr) -> OsString {
    let mut entries = SYSTEM.map(PathBuf::from).to_vec();
    for entry in env::split_paths(path) {
        if !entry.as_os_str().is_empty() && !entries.contains(&entry) {
            entries.push(entry);
        }
    }
    // Only an entry with a colon in it cannot be joined, and none that was split has one.
    env::join_paths(entries).unwrap_or_else(|_| path.to_owned())
}

/// The first executable file of this name in these directories.
fn first(directories: impl Iterator<Item = PathBuf>, program: &str) -> Option<PathBuf> {
    directories
        .map(|directory| directory.join(program))
        .find(|file| file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0))
}

#[cfg(test)]
mod tests {
    use std::{fs, io};

    use super::*;

    #[test]
    fn a_packages_program_comes_first_and_what_else_path_has_behind_it() {
        let system = SYSTEM.join(":");
        for (sentence, path, behind) in [
            ("nothing", "", ""),
            ("what hides the system's", "/home/x/.pyenv/shims:/usr/bin", ":/home/x/.pyenv/shims"),
            ("the system's own in another order", "/bin:/sbin:/usr/bin:/usr/sbin", ""),
            ("an empty entry, which would be the working directory", "/a::/b", ":/a:/b"),
        ] {
            let expected = format!("{system}{behind}");
            assert_eq!(behind_the_systems(OsStr::new(path)), OsStr::new(&expected), "{sentence}");
        }
    }

    #[test]
    fn a_name_becomes_a_path_and_a_path_stays() {
        let shell = program("sh");
        assert!(shell == Path::new("/usr/bin/sh") || shell == Path::new("/bin/sh"), "{}", shell.display());
        for name in ["/opt/own/curl", "./curl", "no-such-program-anywhere"] {
            assert_eq!(program(name), Path::new(name));
        }
    }

    #[test]
    fn only_an_executable_file_is_a_program() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        let tool = directory.path().join("tool");
        let found = || first([directory.path().to_owned()].into_iter(), "tool");
        assert_eq!(found(), None, "nothing is there");
        fs::write(&tool, "#!/bin/sh\n")?;
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o644))?;
        assert_eq!(found(), None, "it cannot be executed");
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755))?;
        assert_eq!(found(), Some(tool.clone()));
        fs::remove_file(&tool)?;
        fs::create_dir(&tool)?;
        assert_eq!(found(), None, "a directory");
        Ok(())
    }
}
