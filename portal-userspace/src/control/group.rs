//! Unix groups by name and by number, from whatever sources the machine has (NSS).
#![expect(unsafe_code, reason = "the C library's lookup is the only one that asks every source of groups")]

use std::{ffi::CStr, io, ptr};

use crate::config::GroupName;

/// A Unix group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its number.
    pub gid: u32,
    /// Its name.
    pub name: String,
}

impl Group {
    /// The group with this name, if there is one.
    pub fn by_name(name: &GroupName) -> io::Result<Option<Self>> {
        let name = std::ffi::CString::new(name.as_str())?;
        lookup(|group, buffer, found| {
            // SAFETY: all pointers are to live values of this frame and the caller's; the length is the buffer's.
            unsafe { libc::getgrnam_r(name.as_ptr(), group, buffer.as_mut_ptr().cast(), buffer.len(), found) }
        })
    }

    /// The group with this number, if there is one.
    pub fn by_gid(gid: u32) -> io::Result<Option<Self>> {
        lookup(|group, buffer, found| {
            // SAFETY: as above.
            unsafe { libc::getgrgid_r(gid, group, buffer.as_mut_ptr().cast(), buffer.len(), found) }
        })
    }
}

fn lookup(
    call: impl Fn(*mut libc::group, &mut [u8], *mut *mut libc::group) -> libc::c_int,
) -> io::Result<Option<Group>> {
    let mut buffer = vec![0_u8; 1024];
    loop {
        // SAFETY: a `group` is pointers and integers, for which zero is a value; the call fills it.
        let mut group: libc::group = unsafe { std::mem::zeroed() };
        let mut found = ptr::null_mut();
        match call(&raw mut group, &mut buffer, &raw mut found) {
            0 if found.is_null() => return Ok(None),
            0 => {
                // SAFETY: on success the name points to a NUL-terminated string in `buffer`, which still lives.
                let name = unsafe { CStr::from_ptr(group.gr_name) }.to_string_lossy().into_owned();
                return Ok(Some(Group { gid: group.gr_gid, name }));
            }
            // A group with many members; the bound keeps a broken source from taking all memory.
            libc::ERANGE if buffer.len() < 1 << 24 => buffer.resize(buffer.len() * 2, 0),
            // Sources say "no such group" in these ways too (getgrnam(3)).
            libc::ENOENT | libc::ESRCH => return Ok(None),
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_name_and_number_or_not() {
        let name = |n: &str| GroupName::try_from(n.to_owned()).unwrap();
        let root = Group { gid: 0, name: "root".into() };
        assert_eq!(Group::by_name(&name("root")).unwrap(), Some(root.clone()));
        assert_eq!(Group::by_gid(0).unwrap(), Some(root));
        assert_eq!(Group::by_name(&name("no-such-group")).unwrap(), None);
        assert_eq!(Group::by_gid(4_000_000_000).unwrap(), None);
    }
}
