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
    net::Mac,
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
    if args.mac.is_none() && args.frame.is_given() {
        let message = "a frame is built from flags with --mac, and then neither given in hexadecimal nor in a file\n";
        return Err(Failure::Usage(Cli::command().error(clap::error::ErrorKind::ArgumentConflict, message)));
    }
    let frames = match (args.mac, &args.file) {
        (Some(mac), _) => vec![build(client, args, mac).await?],
        (None, Some(path)) => from_file(path)?,
        (None, None) if args.hex == ["-"] => from_reader(io::stdin().lock(), "standard input")?,
        (None, None) => input::hex(&args.hex.join(" ")).map_err(usage)?,
    };
    let several = frames.len() > 1;
    let mut number = 0;
    for frames in batches(&frames) {
        let request = ExplainRequest {
            frames: frames.iter().map(|f| input::to_hex(f)).collect(),
            zone: args.zone.clone(),
            direction: args.direction,
            own: args.own,
        };
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
    let clients = client.clients(args.zone.as_deref()).await?.clients;
    let around = surroundings(zone, &clients, mac);
    // The daemon refuses a zone that there is not, and names those that there are.
    let vlan = zone.and_then(|zone| zone.vlan.as_deref()).and_then(|vlan| vlan.parse().ok()).unwrap_or_default();
    let spec = args.frame.spec(mac, &vlan);
    spec.build(&around).map_err(|e| Failure::Usage(Cli::command().error(clap::error::ErrorKind::ValueValidation, e)))
}

/// What the zone is like, and which addresses this client would send from.
fn surroundings(zone: Option<&ZoneView>, clients: &[ClientView], mac: AnyMac) -> Surroundings {
    let gateways: &[IpAddr] = zone.map_or(&[], |zone| &zone.gateway_addresses);
    let own = |v6: bool| {
        let client = clients.iter().find(|client| client.mac.bytes() == mac.0);
        let addresses = client.into_iter().flat_map(|client| client.bound_addresses.iter().chain(&client.addresses));
        addresses.copied().find(|address| address.is_ipv6() == v6)
    };
    let unused = |v6: bool| {
        let gateway = gateways.iter().copied().find(|address| address.is_ipv6() == v6)?;
        let taken = |address: IpAddr| {
            let used =
                |client: &ClientView| client.addresses.contains(&address) || client.bound_addresses.contains(&address);
            gateways.contains(&address) || clients.iter().any(used)
        };
        hosts_from_the_end(gateway).find(|address| !taken(*address))
    };
    let of = |v6: bool| own(v6).or_else(|| unused(v6));
    Surroundings {
        gateway_mac: zone.and_then(|zone| zone.gateway_mac).map_or([2, 0, 0, 0, 0, 1], Mac::bytes),
        mac: mac.0,
        host_v4: if let Some(IpAddr::V4(address)) = of(false) { Some(address) } else { None },
        host_v6: if let Some(IpAddr::V6(address)) = of(true) { Some(address) } else { None },
        gateway_v4: gateways.iter().find_map(|a| if let IpAddr::V4(a) = a { Some(*a) } else { None }),
    }
}

/// The addresses beside the gateway's, the highest first: those of its /24, or of its /64, which is what most guest networks have. Another network's
/// only has other addresses beside these.
fn hosts_from_the_end(gateway: IpAddr) -> impl Iterator<Item = IpAddr> {
    (1..=ADDRESSES).map_while(move |n| match gateway {
        IpAddr::V4(address) => {
            let highest = u32::from(address) | 0xff;
            (n < 0xff).then(|| IpAddr::V4((highest - n).into()))
        }
        IpAddr::V6(address) => {
            let highest = u128::from(address) | u128::from(u64::MAX);
            Some(IpAddr::V6((highest - u128::from(n)).into()))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> ZoneView {
        serde_json::from_value(serde_json::json!({
            "name": "guests", "attached": true, "interface": "eth1", "gateway_mac": "02:00:00:00:00:07", "xdp_mode": "native",
            "gateway_addresses": ["192.0.2.254", "2001:db8::1"], "shadow": false, "https": "reset", "anti_spoofing": "learn", "listeners": []
        }))
        .unwrap()
    }

    fn client(last: u8, bound: &[&str], addresses: &[&str]) -> ClientView {
        serde_json::from_value(serde_json::json!({
            "mac": format!("02:00:00:00:01:{last:02x}"), "started_at": "", "expires_at": null, "online_seconds": 0, "remaining_seconds": null,
            "bound_addresses": bound, "addresses": addresses
        }))
        .unwrap()
    }

    #[test]
    fn a_client_sends_from_its_own_address_and_a_stranger_from_one_that_nobody_uses() {
        let clients = [client(1, &[], &["192.0.2.253"]), client(2, &["2001:db8::9"], &["192.0.2.252"])];
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
    fn frames_are_asked_about_in_batches_that_the_daemon_takes() {
        let lengths = |frames: &[Vec<u8>]| batches(frames).iter().map(|b| b.len()).collect::<Vec<_>>();
        assert_eq!(lengths(&vec![vec![0; 60]; 2 * MOST_FRAMES + 1]), [MOST_FRAMES, MOST_FRAMES, 1]);
        let jumbo = vec![vec![0; 9_000]; 300];
        assert!(batches(&jumbo).iter().all(|b| b.iter().map(|f| 2 * f.len()).sum::<usize>() <= REQUEST_DIGITS));
        assert_eq!(lengths(&jumbo).iter().sum::<usize>(), 300);
        assert!(lengths(&[]).is_empty());
    }
}
