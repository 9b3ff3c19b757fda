//! The Unix socket of the control API: made with its owner and mode before anybody can connect.

use std::{
    ffi::OsString,
    fs::{self, Permissions},
    io,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixSocket};

use super::Group;
use crate::{
    config::GroupName,
    private::{PathError, Private},
};

/// How many may wait to be let in, if the kernel's `net.core.somaxconn` allows so many.
const BACKLOG: u32 = 4096;

/// Why the control socket can't be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A daemon answers there.
    #[error(
        "another portald is running: it answers on {}; stop it first, or give this one its own `paths.socket` \
         and `paths.pins`", .0.display()
    )]
    InUse(PathBuf),
    /// Something else has the name.
    #[error("{} exists and is not a socket; remove it, or choose another `paths.socket`", .0.display())]
    NotASocket(PathBuf),
    /// `control.group` names no group.
    #[error("there is no Unix group `{0}`; create it (`groupadd --system {0}`), or correct `control.group`")]
    NoSuchGroup(GroupName),
    /// Another user could put a socket of its own there.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The kernel refused.
    #[error("cannot {action} {}: {source}; check `paths.socket` and the permissions of its directory", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// The listening socket; its file is removed when this is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl ControlSocket {
    /// The group that this name of the configuration means.
    pub fn group(name: Option<&GroupName>) -> Result<Option<Group>, SocketError> {
        let Some(name) = name else { return Ok(None) };
        let group = Group::by_name(name).map_err(|source| SocketError::Io {
            action: "look up the group of",
            path: PathBuf::from(name.as_str()),
            source,
        })?;
        group.map(Some).ok_or_else(|| SocketError::NoSuchGroup(name.clone()))
    }

    /// Listens at this path, for root and this group. What a dead daemon left there is replaced.
    pub fn bind(path: &Path, group: Option<&Group>) -> Result<Self, SocketError> {
        let io = |action, at: &Path| {
            let path = at.to_owned();
            move |source| SocketError::Io { action, path, source }
        };
        if let Some(directory) = path.parent() {
            make_directory(directory, group)?;
        }
        match fs::symlink_metadata(path) {
            Ok(metadata) if !metadata.file_type().is_socket() => return Err(SocketError::NotASocket(path.to_owned())),
            // Only a socket that nobody listens on refuses.
            Ok(_) => match UnixStream::connect(path) {
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(io("tell whether a daemon listens on", path)(e)),
                Ok(_) => return Err(SocketError::InUse(path.to_owned())),
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(io("look at", path)(e)),
        }
        // Made under another name and then moved, so that at its own name it has its mode and owner from the first moment.
        let mut new = OsString::from(path);
        new.push(format!(".{}", std::process::id()));
        let new = PathBuf::from(new);
        match fs::remove_file(&new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io("remove", &new)(e)),
            _ => {}
        }
        let listener = listen(&new).map_err(io("make the socket", &new))?;
        let prepared = (|| {
            if let Some(group) = group {
                chown(&new, None, Some(group.gid)).map_err(io("give the group", &new))?;
            }
            let mode = if group.is_some() { 0o660 } else { 0o600 };
            fs::set_permissions(&new, Permissions::from_mode(mode)).map_err(io("set the mode of", &new))?;
            let inode = fs::symlink_metadata(&new).map_err(io("look at", &new))?.ino();
            fs::rename(&new, path).map_err(io("put in place", path))?;
            Ok(inode)
        })();
        match prepared {
            Ok(inode) => Ok(Self { listener, path: path.to_owned(), inode }),
            Err(e) => {
                // The first error is the one to tell.
                let _: io::Result<()> = fs::remove_file(&new);
                Err(e)
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Listens, with room for many who connect at once.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    socket.listen(BACKLOG)
}

/// Makes the socket's directory, for root and for a group that may pass through it, or takes the one that is there if no other user can write in it.
fn make_directory(directory: &Path, group: Option<&Group>) -> Result<(), SocketError> {
    let missing: Vec<_> = directory.ancestors().take_while(|part| !part.exists()).collect();
    Private::new(directory, "paths.socket").make(0o700)?;
    let Some(group) = group else { return Ok(()) };
    for made in missing {
        let io = |action| move |source| SocketError::Io { action, path: made.to_owned(), source };
        chown(made, None, Some(group.gid)).map_err(io("give the group"))?;
        fs::set_permissions(made, Permissions::from_mode(0o710)).map_err(io("set the mode of"))?;
    }
    Ok(())
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // Another daemon may have taken the name over.
        if fs::symlink_metadata(&self.path).is_ok_and(|m| m.ino() == self.inode)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove the control socket");
        }
    }
}
