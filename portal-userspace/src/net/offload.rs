//! What an interface's driver does to frames before XDP sees them, and what it can do for XDP.
#![expect(unsafe_code, reason = "ethtool's questions are asked by ioctl")]

use std::io;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use xdp::nic::{NicIndex, XdpAct};

/// `ETHTOOL_GFLAGS` and `ETH_FLAG_RXVLAN`, Linux `include/uapi/linux/ethtool.h`.
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETH_FLAG_RXVLAN: u32 = 1 << 8;

/// Whether the driver takes VLAN tags off received frames, so that XDP does not see them; false where it does not tell.
pub(super) fn strips_vlan_tags(name: &str) -> bool {
    flags(name).is_ok_and(|flags| flags & ETH_FLAG_RXVLAN != 0)
}

/// Whether the driver hands XDP frames that lie in several buffers (`NETDEV_XDP_ACT_RX_SG`, Linux 6.3); false where it does not tell.
pub(super) fn takes_frames_in_parts(index: u32) -> bool {
    NicIndex::new(index).query_capabilities().is_ok_and(|nic| nic.xdp_features.0 & XdpAct::RxSg as u64 != 0)
}

fn flags(name: &str) -> io::Result<u32> {
    #[repr(C)]
    struct Value {
        command: u32,
        data: u32,
    }
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut value = Value { command: ETHTOOL_GFLAGS, data: 0 };
    // SAFETY: all zero is a value of this struct of integers and pointers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the kernel writes one `struct ethtool_value`, which outlives the call; the name ends with the zero bytes it began with.
    let answer = unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&socket), libc::SIOCETHTOOL, &raw mut request) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(value.data) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::{in_namespace, ip};

    #[test]
    fn a_veth_tells_what_ethtool_set() {
        in_namespace(|| async {
            ip("link add guest type veth peer name other");
            assert!(strips_vlan_tags("guest"), "a veth does so unless told otherwise");
            let set = portal_tools::command("ethtool").args(["-K", "guest", "rxvlan", "off"]).output();
            assert!(set.expect("ethtool is installed").status.success());
            assert!(!strips_vlan_tags("guest"));
            assert!(strips_vlan_tags("other"));
            assert!(!strips_vlan_tags("none"));
            let index = crate::net::Interface::by_name("guest").await.unwrap().index;
            assert!(takes_frames_in_parts(index), "a veth does since Linux 5.18");
            assert!(!takes_frames_in_parts(1), "the loopback interface has no XDP in its driver");
        });
    }
}
