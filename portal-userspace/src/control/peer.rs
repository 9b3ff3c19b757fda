//! Who is at the other end of a Unix socket, by the kernel's word.
#![expect(unsafe_code, reason = "the standard library and rustix lack SO_PEERGROUPS")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
};

use super::Group;

/// The process that connected, as it was when it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// The supplementary groups.
    pub(super) groups: Vec<u32>,
}

impl Peer {
    pub(super) fn of<S: AsFd>(socket: &S) -> io::Result<Self> {
        let credentials = rustix::net::sockopt::socket_peercred(socket)?;
        let groups = peer_groups(socket)?;
        Ok(Self { uid: credentials.uid.as_raw(), gid: credentials.gid.as_raw(), groups })
    }
}

/// The peer's supplementary groups: `SO_PEERGROUPS`, Linux 4.13. `/proc/PID/status` would be of whoever has the id by now.
fn peer_groups<S: AsFd>(socket: &S) -> io::Result<Vec<u32>> {
    let fd = socket.as_fd().as_raw_fd();
    let mut groups = vec![0_u32; 64];
    loop {
        let size = u32::try_from(groups.len() * 4).map_err(io::Error::other)?;
        let mut length: libc::socklen_t = size;
        // SAFETY: the buffer and its length in bytes are this frame's, and live until the call returns.
        let result = unsafe {
            libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERGROUPS, groups.as_mut_ptr().cast(), &raw mut length)
        };
        let entries = length as usize / 4;
        if result == 0 {
            groups.truncate(entries);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        // ERANGE says how much is needed; NGROUPS_MAX is 65,536.
        if error.raw_os_error() != Some(libc::ERANGE) || length <= size || entries > 65_536 {
            return Err(error);
        }
        groups.resize(entries, 0);
    }
}

/// Who may use the control API: root, the daemon's own user, and the members of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    pub(super) owner: u32,
    pub(super) group: Option<Group>,
}

impl Access {
    /// Root, this process's user, and the members of this group.
    pub fn new(group: Option<Group>) -> Self {
        Self { owner: rustix::process::geteuid().as_raw(), group }
    }

    pub(super) fn permits(&self, peer: &Peer) -> bool {
        let is_member = |group: &Group| peer.gid == group.gid || peer.groups.contains(&group.gid);
        self.is_owner(peer) || self.group.as_ref().is_some_and(is_member)
    }

    /// Root, or the daemon's own user.
    pub(super) fn is_owner(&self, peer: &Peer) -> bool {
        peer.uid == 0 || peer.uid == self.owner
    }

    /// Who may, in words.
    pub(super) fn in_words(&self) -> String {
        match &self.group {
            Some(group) => format!("use sudo, or join the group `{}`", group.name),
            None => "use sudo, or set `control.group` in portald's configuration".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_the_owner_and_members_may_and_nobody_else() {
        let group = Group { gid: 500, name: "portal".into() };
        let with = Access { owner: 7, group: Some(group) };
        let without = Access { owner: 7, group: None };
        // (uid, gid, supplementary groups, permitted with the group, without)
        let cases: &[(u32, u32, &[u32], bool, bool)] = &[
            (0, 0, &[], true, true),
            (7, 1, &[], true, true),
            (1000, 500, &[], true, false),
            (1000, 1000, &[27, 500], true, false),
            (1000, 1000, &[27], false, false),
            (500, 1000, &[], false, false),
            (1000, 0, &[0], false, false),
        ];
        for (uid, gid, groups, yes, no) in cases {
            let peer = Peer { uid: *uid, gid: *gid, groups: groups.to_vec() };
            assert_eq!((with.permits(&peer), without.permits(&peer)), (*yes, *no), "{peer:?}");
        }
    }
}
