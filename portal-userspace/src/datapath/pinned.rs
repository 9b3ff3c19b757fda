//! What is pinned, whatever it is: opening it, and pinning it again. aya does either only with what it knows the type of, and lets go of a link that it could
//! not pin.
#![expect(unsafe_code, reason = "neither the standard library nor rustix has bpf(2)")]

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

/// Commands of bpf(2): Linux `include/uapi/linux/bpf.h`, `enum bpf_cmd`.
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;

/// The part of `union bpf_attr` that the two commands have.
#[repr(C, align(8))]
struct ObjectAttributes {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Opens what is pinned there.
pub(super) fn open(pin: &Path) -> io::Result<OwnedFd> {
    let descriptor = command(BPF_OBJ_GET, pin, 0)?;
    let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made it, for nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Pins what is open.
pub(super) fn pin(object: BorrowedFd<'_>, pin: &Path) -> io::Result<()> {
    let descriptor = u32::try_from(object.as_raw_fd()).map_err(io::Error::other)?;
    command(BPF_OBJ_PIN, pin, descriptor).map(drop)
}

fn command(command: libc::c_int, pin: &Path, descriptor: u32) -> io::Result<libc::c_long> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let attributes = ObjectAttributes { pathname: path.as_ptr() as u64, bpf_fd: descriptor, file_flags: 0 };
    // SAFETY: the kernel reads the attributes, of this size, and the path that they name; both live until the call returns.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const attributes, size_of::<ObjectAttributes>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
