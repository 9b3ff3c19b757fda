//! Directories that nobody but root and portald's own user can change.
//!
//! Whoever can write in a directory can put another one in its place, whatever that one's own mode is. So every part of a path is looked at, those behind
//! symbolic links too.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::{self, DirBuilder, Metadata},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Component, Path, PathBuf},
};

/// How many symbolic links a path may lead through: as many as the kernel follows.
const MOST_LINKS: usize = 40;
/// The bits by which a group or everybody may write.
const WRITABLE: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// Why a directory is not used.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// Another user could change it.
    #[error(
        "{} is not safe to use, as {} {fault} (owner {owner}, mode {mode:04o}): another user could take over what portald keeps there; {remedy}, or set `{key}` \
         to a directory that only root can change", path.display(), part.display()
    )]
    Open {
        /// The whole path.
        path: PathBuf,
        /// The part of it that is at fault.
        part: PathBuf,
        /// What is wrong with it.
        fault: &'static str,
        /// The number of the user whose it is.
        owner: u32,
        /// Its mode.
        mode: u32,
        /// What to do.
        remedy: String,
        /// The key of the configuration that names the path.
        key: &'static str,
    },
    /// The kernel refused.
    #[error("cannot {action} {}: {source}; check `{key}` and the permissions of its directory", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// The key of the configuration that names the path.
        key: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Looks at a directory that a key of the configuration names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Private<'p> {
    path: &'p Path,
    key: &'static str,
}

impl<'p> Private<'p> {
    /// The directory at this absolute path, which this key of the configuration names.
    pub(crate) fn new(path: &'p Path, key: &'static str) -> Self {
        Self { path, key }
    }

    /// Refuses a path any part of which another user can change. What is not there yet is no matter.
    pub(crate) fn check(self) -> Result<(), PathError> {
        self.check_for(rustix::process::geteuid().as_raw())
    }

    /// Makes what is missing of the path, with this mode, and refuses it where another user can change any part.
    pub(crate) fn make(self, mode: u32) -> Result<(), PathError> {
        // Before anything is made below what is not safe.
        self.check()?;
        let missing: Vec<_> = self.path.ancestors().take_while(|part| !part.exists()).collect();
        for part in missing.into_iter().rev() {
            match DirBuilder::new().mode(mode).create(part) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(self.io("create the directory", part)(e));
                }
                _ => {}
            }
        }
        // Another may have been faster.
        self.check()
    }

    fn check_for(self, user: u32) -> Result<(), PathError> {
        let mut left: VecDeque<OsString> = parts(self.path).collect();
        let mut at = PathBuf::from("/");
        let mut links = 0;
        let look = |path: &Path| fs::symlink_metadata(path).map_err(self.io("look at", path));
        self.judge(&at, &look(&at)?, left.is_empty(), user)?;
        while let Some(part) = left.pop_front() {
            if part == ".." {
                at.pop();
                continue;
            }
            let next = at.join(part);
            let metadata = match fs::symlink_metadata(&next) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(e) => return Err(self.io("look at", &next)(e)),
                Ok(metadata) => metadata,
            };
            self.judge(&next, &metadata, left.is_empty(), user)?;
            if !metadata.is_symlink() {
                at = next;
                continue;
            }
            links += 1;
            if links > MOST_LINKS {
                return Err(self.io("follow", &next)(io::Error::other("too many symbolic links")));
            }
            let target = fs::read_link(&next).map_err(self.io("follow", &next))?;
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                left.push_front(part);
            }
        }
        Ok(())
    }

    /// Judges a part of the path: the last may not even be a directory in which all may make files of their own.
    fn judge(self, part: &Path, metadata: &Metadata, last: bool, user: u32) -> Result<(), PathError> {
        let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
        let name = part.display();
        let (fault, remedy) = if owner != 0 && owner != user {
            let remedy = if last {
                format!("look what is in it and remove it (`rm -r {name}`): portald makes it anew as its own")
            } else {
                format!("give it to root (`chown -h root:root {name}`)")
            };
            ("belongs to another user", remedy)
        } else if !metadata.is_symlink() && mode & WRITABLE != 0 && (last || mode & STICKY == 0) {
            ("can be written by others", format!("close it (`chmod go-w {name}`)"))
        } else {
            return Ok(());
        };
        Err(PathError::Open {
            path: self.path.to_owned(),
            part: part.to_owned(),
            fault,
            owner,
            mode,
            remedy,
            key: self.key,
        })
    }

    fn io(self, action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PathError {
        let (path, key) = (path.to_owned(), self.key);
        move |source| PathError::Io { action, path, key, source }
    }
}

/// The names in a path, with `..`.
fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::*;

    const STRANGER: u32 = 64_000;

    /// A directory of this owner and mode.
    fn directory(path: &Path, owner: u32, mode: u32) {
        fs::create_dir(path).unwrap();
        chown(path, Some(owner), None).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_another_user_can_change_is_refused_in_every_part() {
        let top = tempfile::tempdir().unwrap();
        let at = |name: &str| top.path().join(name);
        for (name, owner, mode) in [
            ("own", 0, 0o755),
            ("own/closed", 0, 0o700),
            ("own/group", 0, 0o770),
            ("own/strangers", STRANGER, 0o700),
            ("sticky", 0, 0o1777),
            ("sticky/own", 0, 0o700),
            ("sticky/strangers", STRANGER, 0o755),
            ("all", 0, 0o777),
            ("all/own", 0, 0o700),
            ("strangers", STRANGER, 0o755),
            ("strangers/own", 0, 0o700),
        ] {
            directory(&at(name), owner, mode);
        }
        symlink(at("own/closed"), at("own/link")).unwrap();
        symlink("../all/own", at("own/out")).unwrap();
        symlink(at("own/closed"), at("sticky/link")).unwrap();
        symlink("loop", at("own/loop")).unwrap();
        std::os::unix::fs::lchown(at("sticky/link"), Some(STRANGER), None).unwrap();
        // The sentence, the path, the part at fault, and what is said.
        let table = [
            ("root's own", "own/closed", "", ""),
            ("not there yet", "own/new/newer", "", ""),
            ("root's own where all may make something", "sticky/own", "", ""),
            ("not there yet where all may make something", "sticky/new", "", ""),
            ("a link of root's to root's own", "own/link", "", ""),
            ("up and down", "own/closed/../closed", "", ""),
            ("where all may make something", "sticky", "sticky", "chmod go-w"),
            ("a group may write", "own/group", "own/group", "chmod go-w"),
            ("another's", "own/strangers", "own/strangers", "rm -r"),
            ("another's where all may make something", "sticky/strangers", "sticky/strangers", "rm -r"),
            ("in what all may write", "all/own", "all", "chmod go-w"),
            ("in what is another's", "strangers/own", "strangers", "chown -h root:root"),
            ("a link of another's", "sticky/link", "sticky/link", "rm -r"),
            ("a link to below what all may write", "own/out", "all", "chmod go-w"),
            ("a link to itself", "own/loop", "own/loop", "symbolic links"),
        ];
        for (sentence, path, part, remedy) in table {
            let path = at(path);
            let found = Private::new(&path, "paths.pins").check();
            if part.is_empty() {
                assert!(found.is_ok(), "{sentence}: {found:?}");
                continue;
            }
            let text = found.expect_err(sentence).to_string();
            for expected in [&*at(part).to_string_lossy(), remedy, "paths.pins"] {
                assert!(text.contains(expected), "{sentence}: no «{expected}» in: {text}");
            }
        }
        let text = Private::new(&at("own/strangers"), "paths.pins").check().unwrap_err().to_string();
        assert!(text.contains("owner 64000, mode 0700"), "{text}");
        assert!(Private::new(&at("own/strangers"), "paths.pins").check_for(STRANGER).is_ok(), "portald's own user");
    }

    #[test]
    fn what_is_made_has_its_mode_and_nothing_is_made_below_what_is_not_safe() {
        let top = tempfile::tempdir().unwrap();
        directory(&top.path().join("all"), 0, 0o777);
        let (good, bad) = (top.path().join("one/two"), top.path().join("all/one/two"));
        Private::new(&good, "paths.socket").make(0o700).unwrap();
        for made in [&*good, good.parent().unwrap()] {
            assert_eq!(fs::metadata(made).unwrap().mode() & 0o777, 0o700);
        }
        Private::new(&bad, "paths.socket").make(0o700).unwrap_err();
        assert!(!bad.parent().unwrap().exists());
    }
}
