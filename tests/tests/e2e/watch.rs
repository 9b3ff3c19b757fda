//! Watching on the internet's side what of the clients gets there, and trying to get there by every kind of packet.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use portal_lab::{
    Lab, Namespace,
    addresses::{GUEST_V4, GUEST_V6, OTHER_V4, OTHER_V6, SITES, mac},
    process::{Service, wait_for},
};
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket, sockopt};

/// A tcpdump in the internet.
pub(crate) struct Watch {
    sniffer: Service,
}

/// A client, as it is known in the internet.
pub(crate) type Addresses = [IpAddr; 2];

/// The first guest.
pub(crate) const GUEST: Addresses = [IpAddr::V4(GUEST_V4), IpAddr::V6(GUEST_V6)];
/// The second guest.
pub(crate) const OTHER: Addresses = [IpAddr::V4(OTHER_V4), IpAddr::V6(OTHER_V6)];

/// What `knock` sends, as tcpdump shows it.
const KNOCKS: [&str; 16] = [
    "IP .80: Flags [S]",
    "IP .443: Flags [S]",
    "IP .22: Flags [S]",
    "IP .9999: UDP",
    "IP .443: UDP",
    "IP .67: BOOTP/DHCP",
    "IP  ICMP echo request",
    "IP6 .80: Flags [S]",
    "IP6 .443: Flags [S]",
    "IP6 .22: Flags [S]",
    "IP6 .9999: UDP",
    "IP6 .443: UDP",
    "IP6 .547: dhcp6",
    "IP6  ICMP6, echo request",
    "IP6  ICMP6, neighbor solicitation",
    "IP6  ICMP6, router solicitation",
];

impl Watch {
    /// Starts to watch.
    pub(crate) fn start(lab: &Lab) -> Result<Self> {
        let sources = GUEST.iter().chain(&OTHER).map(|address| format!("src host {address}")).collect::<Vec<_>>();
        let sniffer = Service::start(
            "tcpdump",
            lab.internet
                .service("tcpdump")
                .args(["-Z", "root", "--immediate-mode", "-l", "-n", "-i", "eth0"])
                .arg(sources.join(" or ")),
            &lab.directory().join("watch.log"),
        )?;
        wait_for("tcpdump's start", Duration::from_secs(10), || sniffer.log().contains("listening on").then_some(()))?;
        Ok(Self { sniffer })
    }

    /// The client's packets so far.
    fn packets(&self, client: Addresses) -> Vec<String> {
        let starts = client.map(|a| [format!(" {a}."), format!(" {a} >")]);
        let log = self.sniffer.log();
        let lines = log.lines().filter(|line| {
            let source = line.split_once('>').map_or("", |(source, _)| &line[..=source.len()]);
            starts.iter().flatten().any(|start| source.contains(start))
        });
        lines.map(str::to_owned).collect()
    }

    /// Nothing of the stranger has arrived, though all that it sends arrives from the guest.
    pub(crate) fn sees_only_the_guest(
        &self,
        stranger: Addresses,
        guest: &Namespace,
        addresses: Addresses,
    ) -> Result<()> {
        knock(guest)?;
        for knock in KNOCKS {
            let (version, rest) = knock.split_once(' ').context("a version and the rest")?;
            let version = format!(" {version} ");
            let arrived = || {
                let packets = self.packets(addresses);
                packets.iter().any(|line| line.contains(&version) && line.contains(rest)).then_some(())
            };
            wait_for(&format!("the guest's `{knock}` in the internet"), Duration::from_secs(30), arrived)
                .with_context(|| self.sniffer.log())?;
        }
        let packets = self.packets(stranger);
        ensure!(packets.is_empty(), "the stranger's packets were in the internet:\n{}", packets.join("\n"));
        Ok(())
    }
}

/// Sends one packet or more of every kind to the web server, by its addresses. Whether anything answers is no matter.
pub(crate) fn knock(from: &Namespace) -> Result<()> {
    // As "eth0@if5 UP 00:00:5e:00:53:10 <...>".
    let link = from.ip("-br link show eth0")?;
    let own = link.split_whitespace().nth(2).context("no MAC address")?;
    let [bootp, dhcpv6] = lease_requests(own);
    from.enter(|| {
        for site in SITES {
            for port in [80, 443, 22] {
                // Refused or lost, or not: the watch tells.
                let _ = TcpStream::connect_timeout(&SocketAddr::new(site, port), Duration::from_millis(500));
            }
            for port in [9999, 443] {
                datagram(SocketAddr::new(site, port), 0, &[b'x'; 200])?;
            }
        }
        let [v4, v6] = SITES;
        // Looks like DHCP, but goes to a host in the internet.
        datagram(SocketAddr::new(v4, 67), 68, &bootp)?;
        datagram(SocketAddr::new(v6, 547), 546, &dhcpv6)?;
        // An echo request, with its checksum.
        icmp(v4, &[8, 0, 0xf7, 0xfd, 0, 1, 0, 1])?;
        icmp(v6, &[128, 0, 0, 0, 0, 1, 0, 1])?;
        // Solicitations, as neighbours send them: the hop limit is 255.
        let mut neighbour = vec![135, 0, 0, 0, 0, 0, 0, 0];
        neighbour.extend(Ipv6Addr::LOCALHOST.octets());
        icmp(v6, &neighbour)?;
        icmp(v6, &[133, 0, 0, 0, 0, 0, 0, 0])
    })
}

/// A BOOTP request for this client (RFC 951), as the gate lets nobody ask for another; and a DHCPv6 solicitation for an address, with an identifier without
/// a MAC address (RFC 8415). Both are longer than what would refuse them, which is never larger than what it answers.
pub(crate) fn lease_requests(client: &str) -> [Vec<u8>; 2] {
    let mut bootp = vec![0; 300];
    bootp[..4].copy_from_slice(&[1, 1, 6, 0]);
    bootp[28..34].copy_from_slice(&mac(client));
    let mut dhcpv6 = vec![1, 0x12, 0x34, 0x56, 0, 1, 0, 4, 0, 3, 0, 1];
    // An IA_NA with an IA Address, of zeros: any.
    dhcpv6.extend([0, 3, 0, 40]);
    dhcpv6.extend([0; 12]);
    dhcpv6.extend([0, 5, 0, 24]);
    dhcpv6.extend([0; 24]);
    [bootp, dhcpv6]
}

fn datagram(to: SocketAddr, from_port: u16, bytes: &[u8]) -> Result<()> {
    let any = if to.is_ipv4() { "0.0.0.0" } else { "::" };
    let socket = UdpSocket::bind((any.parse::<IpAddr>()?, from_port))?;
    socket.send_to(bytes, to)?;
    Ok(())
}

/// Sends an ICMP message; the kernel writes the checksum of ICMPv6 (RFC 3542 section 3.1).
fn icmp(to: IpAddr, message: &[u8]) -> Result<()> {
    let (family, protocol) = match to {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let socket = socket(family, SocketType::RAW, Some(protocol))?;
    if to.is_ipv6() {
        sockopt::set_ipv6_unicast_hops(&socket, Some(255))?;
    }
    sendto(&socket, message, SendFlags::empty(), &SocketAddr::new(to, 0))?;
    Ok(())
}
