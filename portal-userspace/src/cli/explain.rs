//! `portalctl explain`: from words, text or a file to frames, and what the gate would do with them.

use std::{
    fs::File,
    io::{self, Read},
    net::IpAddr,
    path::Path,
};

use clap::CommandFactory as _;

use super::{
    Failure,
    args::{Cli, ExplainArgs},
    output, print,
};
use crate::{
    control::{
        Client,
        api::{ClientView, ExplainRequest, MOST_FRAMES, ZoneView},
    },
    observe::{
        build::{AnyMac, Surroundings},
        input::{self, InputError},
    },
};

/// A request is kept below this, so that the daemon takes it: hexadecimal digits.
const REQUEST_DIGITS: usize = 4 * 1024 * 1024;
/// How many addresses of a network are looked at to find one that nobody uses.
const ADDRESSES: u32 = 4_096;

pub(super) async fn run(client: &Client, args: &ExplainArgs, json: bool) -> Result<(), Failure> {
    let frames = match (args.mac, &args.file) {
        (Some(mac), _) => vec![build(client, args, mac).await?],
        (None, Some(path)) => from_file(path)?,
        (None, None) if args.hex == ["-"] => from_reader(io::stdin().lock(), "standard input")?,
        (None, None) => input::hex(&args.hex.join(" ")).map_err(usage)?,
    };
    let several = frames.len() > 1;
    let mut number = 0;
    for frames in batches(&frames) {
        let request =
            ExplainRequest { frames: frames.iter().map(|f| input::to_hex(f)).collect(), zone: args.zone.clone() };
        let answer = client.explain(&request).await?;
        for (frame, explanation) in frames.iter().zip(&answer.frames) {
            number += 1;
            let text = if json {
                // A line for each frame: they may be many, and come while more are asked about.
                format!("{}\n", serde_json::to_string(explanation).expect("strings have a JSON form"))
            } else {
                let gap = if number > 1 { "\n" } else { "" };
                format!("{gap}{}", output::explanation(several.then_some(number), frame, explanation))
            };
            print(text.as_bytes())?;
        }
    }
    Ok(())
}

/// As many frames at once as the daemon takes.
fn batches(frames: &[Vec<u8>]) -> Vec<&[Vec<u8>]> {
    let mut batches = Vec::new();
    let mut rest = frames;
    while !rest.is_empty() {
        let mut digits = 0;
        let fits = rest.iter().take(MOST_FRAMES).take_while(|frame| {
            digits += 2 * frame.len();
            digits <= REQUEST_DIGITS
        });
        let (batch, after) = rest.split_at(fits.count().max(1));
        batches.push(batch);
        rest = after;
    }
    batches
}

/// What stands on the command line is no frame.
fn usage(error: InputError) -> Failure {
    Failure::Usage(Cli::command().error(clap::error::ErrorKind::ValueValidation, error))
}

fn from_file(path: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    if path == Path::new("-") {
        return from_reader(io::stdin().lock(), "standard input");
    }
    let name = path.display().to_string();
    let file = File::open(path).map_err(|e| Failure::Input {
        message: format!("cannot open {name}: {e}"),
        remedy: "give a pcap or pcapng file that you may read",
    })?;
    from_reader(file, &name)
}

fn from_reader(reader: impl Read, name: &str) -> Result<Vec<Vec<u8>>, Failure> {
    let refused = |cause: String| Failure::Input {
        message: format!("{name}: {cause}"),
        remedy: "give whole Ethernet frames, as a pcap or pcapng file or in hexadecimal",
    };
    let mut bytes = Vec::new();
    reader.take(input::MAX_INPUT as u64 + 1).read_to_end(&mut bytes).map_err(|e| refused(e.to_string()))?;
    if bytes.len() > input::MAX_INPUT {
        return Err(refused(format!("it has more than {} MiB", input::MAX_INPUT >> 20)));
    }
    input::read(&bytes).map_err(|e| refused(e.to_string()))
}

/// The frame that the flags describe, in the zone that they name or the first.
async fn build(client: &Client, args: &ExplainArgs, mac: AnyMac) -> Result<Vec<u8>, Failure> {
    let zones = client.zones().await?.zones;
    let zone = match &args.zone {
        Some(name) => zones.iter().find(|zone| zone.name == *name),
        None => zones.first(),
    };
    let clients = client.clients().await?.clients;
    let around = surroundings(zone, &clients, mac);
    // The daemon refuses a zone that there is not, and names those that there are.
    let vlan = zone.and_then(|zone| zone.vlan.as_deref()).and_then(|vlan| vlan.parse().ok()).unwrap_or_default();
    let spec = args.frame.spec(mac, &vlan);
    spec.build(&around).map_err(|e| Failure::Usage(Cli::command().error(clap::error::ErrorKind::ValueValidation, e)))
}

/// What the zone is like, and which addresses this client would send from.
fn surroundings(zone: Option<&ZoneView>, clients: &[ClientView], mac: AnyMac) -> Surroundings {
    let networks: Vec<(IpAddr, u32)> =
        zone.map(|zone| zone.addresses.iter().filter_map(|text| network(text)).collect()).unwrap_or_default();
    let own = |v6: bool| {
        let client = clients.iter().find(|client| client.mac.bytes() == mac.0);
        client.and_then(|client| client.addresses.iter().copied().find(|address| address.is_ipv6() == v6))
    };
    let unused = |v6: bool| {
        let (gateway, prefix) = networks.iter().copied().find(|(a, _)| a.is_ipv6() == v6 && !is_link_local(*a))?;
        let taken = |address: IpAddr| {
            networks.iter().any(|(a, _)| *a == address) || clients.iter().any(|c| c.addresses.contains(&address))
        };
        hosts_from_the_end(gateway, prefix).find(|address| !taken(*address))
    };
    let of = |v6: bool| own(v6).or_else(|| unused(v6));
    Surroundings {
        gateway_mac: zone.map_or([2, 0, 0, 0, 0, 1], |zone| zone.gateway_mac.bytes()),
        mac: mac.0,
        host_v4: if let Some(IpAddr::V4(address)) = of(false) { Some(address) } else { None },
        host_v6: if let Some(IpAddr::V6(address)) = of(true) { Some(address) } else { None },
        gateway_v4: networks.iter().find_map(|(a, _)| if let IpAddr::V4(a) = a { Some(*a) } else { None }),
    }
}

fn network(text: &str) -> Option<(IpAddr, u32)> {
    let (address, prefix) = text.split_once('/')?;
    Some((address.parse().ok()?, prefix.parse().ok()?))
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// The network's addresses, the highest first; neither its broadcast address nor the network's own.
fn hosts_from_the_end(gateway: IpAddr, prefix: u32) -> impl Iterator<Item = IpAddr> {
    let (bits, number): (u32, u128) = match gateway {
        IpAddr::V4(address) => (32, u32::from(address).into()),
        IpAddr::V6(address) => (128, address.into()),
    };
    let host_bits = bits.saturating_sub(prefix);
    let hosts = 1_u128.checked_shl(host_bits).map_or(u128::MAX, |size| size - 1);
    let highest = number | hosts;
    (1..=u128::from(ADDRESSES)).take_while(move |n| *n < hosts).map(move |n| match gateway {
        IpAddr::V4(_) => IpAddr::V4(u32::try_from(highest - n).expect("it began as 32 bits").into()),
        IpAddr::V6(_) => IpAddr::V6((highest - n).into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Mac;

    fn zone() -> ZoneView {
        ZoneView {
            name: "guests".into(),
            number: 0,
            interface: "eth1".into(),
            interface_index: 3,
            vlan: None,
            gateway_mac: Mac::new([2, 0, 0, 0, 0, 7]).unwrap(),
            addresses: ["fe80::1/64", "192.0.2.254/24", "2001:db8::1/64"].map(String::from).into(),
            https: "reset".into(),
            anti_spoofing: "learn".into(),
            shadow: false,
            url_v4: String::new(),
            url_v6: String::new(),
        }
    }

    fn client(last: u8, addresses: &[&str]) -> ClientView {
        ClientView {
            mac: Mac::new([2, 0, 0, 0, 1, last]).unwrap(),
            started_at: String::new(),
            expires_at: None,
            online_seconds: 0,
            remaining_seconds: None,
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn a_client_sends_from_its_own_address_and_a_stranger_from_one_that_nobody_uses() {
        let clients = [client(1, &["192.0.2.253"]), client(2, &["2001:db8::9", "192.0.2.252"])];
        let table = [
            ("a stranger", 9, Some("192.0.2.251"), Some("2001:db8::ffff:ffff:ffff:fffe")),
            ("a client with one address", 1, Some("192.0.2.253"), Some("2001:db8::ffff:ffff:ffff:fffe")),
            ("a client with both", 2, Some("192.0.2.252"), Some("2001:db8::9")),
        ];
        for (sentence, last, v4, v6) in table {
            let around = surroundings(Some(&zone()), &clients, AnyMac([2, 0, 0, 0, 1, last]));
            assert_eq!(around.gateway_mac, [2, 0, 0, 0, 0, 7], "{sentence}");
            assert_eq!(around.host_v4, v4.map(|a| a.parse().unwrap()), "{sentence}");
            assert_eq!(around.host_v6, v6.map(|a| a.parse().unwrap()), "{sentence}");
            assert_eq!(around.gateway_v4, Some([192, 0, 2, 254].into()), "{sentence}");
        }
        let without = surroundings(None, &clients, AnyMac([2, 0, 0, 0, 1, 9]));
        assert_eq!((without.host_v4, without.host_v6, without.gateway_v4), (None, None, None));
    }

    #[test]
    fn small_networks_have_few_hosts_and_large_ones_do_not_overflow() {
        let hosts = |gateway: &str, prefix| -> Vec<String> {
            hosts_from_the_end(gateway.parse().unwrap(), prefix).take(3).map(|a| a.to_string()).collect()
        };
        assert_eq!(hosts("192.0.2.1", 30), ["192.0.2.2", "192.0.2.1"]);
        assert!(hosts("192.0.2.1", 32).is_empty() && hosts("192.0.2.1", 31).is_empty());
        assert_eq!(hosts("2001:db8::1", 0)[0], "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe");
        assert_eq!(hosts("0.0.0.0", 0)[0], "255.255.255.254");
    }

    #[test]
    fn frames_are_asked_about_in_batches_that_the_daemon_takes() {
        let lengths = |frames: &[Vec<u8>]| batches(frames).iter().map(|b| b.len()).collect::<Vec<_>>();
        assert_eq!(lengths(&vec![vec![0; 60]; 2 * MOST_FRAMES + 1]), [MOST_FRAMES, MOST_FRAMES, 1]);
        let jumbo = vec![vec![0; 9_000]; 300];
        assert!(batches(&jumbo).iter().all(|b| b.iter().map(|f| 2 * f.len()).sum::<usize>() <= REQUEST_DIGITS));
        assert_eq!(lengths(&jumbo).iter().sum::<usize>(), 300);
        assert!(lengths(&[]).is_empty());
    }
}
