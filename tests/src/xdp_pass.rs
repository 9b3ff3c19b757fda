//! The XDP program at the clients' end of the wire.
//!
//! A veth takes what its peer sends by `XDP_TX` only while it has an XDP program of its own: `veth_xdp_flush` looks for one
//! (drivers/net/veth.c, Linux 6.18), and polling by GRO is not enough (tried: nothing arrives).
#![expect(
    unsafe_code,
    reason = "two instructions are loaded by bpf(2), for which neither a compiler nor an object file is worth it"
)]

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
/// `r0 = XDP_PASS; exit`.
const PROGRAM: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 2, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];

/// The head of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
struct ProgramLoad {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

/// The head of `union bpf_attr` for `BPF_LINK_CREATE`.
#[repr(C)]
struct LinkCreate {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

/// Attaches a program that passes everything to the interface, in native mode. It is detached when the link is dropped.
pub(crate) fn attach(interface: &str) -> Result<OwnedFd> {
    let license = c"GPL";
    let load = ProgramLoad {
        program_type: BPF_PROG_TYPE_XDP,
        instruction_count: 2,
        instructions: PROGRAM.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
    };
    let program = bpf(BPF_PROG_LOAD, &load).context("cannot load an XDP program")?;
    let index = rustix::net::netdevice::name_to_index(
        rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?,
        interface,
    )
    .with_context(|| format!("no interface {interface}"))?;
    let link = LinkCreate {
        program: u32::try_from(program.as_raw_fd()).expect("a descriptor is never negative"),
        interface: index,
        attach_type: BPF_XDP,
        flags: XDP_FLAGS_DRV_MODE,
    };
    bpf(BPF_LINK_CREATE, &link).with_context(|| format!("cannot attach an XDP program to {interface}"))
}

/// Calls bpf(2) with a command that makes a descriptor.
fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: `T` is one of the two structs above, laid out as the kernel's and alive for the call, and so is what they point to;
    // the kernel reads no more than the size says.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both commands return a new descriptor, which is nobody else's. Descriptors fit in an i32.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}
