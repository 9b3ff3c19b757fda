//! A helper on the internet that sends to a guest's station what it has not asked for.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{Lab, wire::Wire};

/// How many datagrams make a stream.
pub const STREAM: usize = 200;

/// How many of a stream of datagrams to this address and port arrive at the guest's interface.
pub fn arriving(lab: &Lab, to: IpAddr, port: u16) -> Result<usize> {
    let at_guest = lab.guest.enter(|| Ok(Wire::open("eth0")?))?;
    lab.internet.enter(|| {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any)?;
        for n in 0..STREAM {
            socket.send_to(&[b'x'; 1000], SocketAddr::new(to, port))?;
            if n == 0 {
                // The gateway resolves the guest's address, and keeps but few datagrams meanwhile.
                thread::sleep(Duration::from_millis(200));
            }
        }
        Ok(())
    })?;
    let mut arrived = 0;
    let until = Instant::now() + Duration::from_millis(500);
    while let Some(seen) = at_guest.next(until)? {
        // Behind Ethernet and IP, the destination port follows the source's.
        let at = if to.is_ipv4() { 36 } else { 56 };
        let is_ip = matches!(seen.frame.get(12..14), Some([0x08, 0x00] | [0x86, 0xdd]));
        if !seen.sent && is_ip && seen.frame.get(at..at + 2) == Some(&port.to_be_bytes()) {
            arrived += 1;
        }
    }
    Ok(arrived)
}
