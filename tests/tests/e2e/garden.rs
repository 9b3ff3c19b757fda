//! The walled garden in the lab: what the operator adds and removes, and names that are learned from the resolver's answers.

use std::{
    collections::HashMap as Map,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{HashMap, MapData};
use portal_common::tables::ServiceKey;
use portal_lab::{
    Lab, Namespace, Portald, Settings,
    addresses::{GATEWAY_V4, GATEWAY_V6, GUEST_MAC, GUEST_V4, GUEST_V6, NAMED_V4, NAMED_V6, SITE_V4, SITE_V6, SITES},
    clients::{
        dns::{self, Record},
        http::{self, Family},
    },
    portald::{config_text, portalctl, portalctl_json, without_budgets},
};
use portal_userspace::observe::input::to_hex;
use serde_json::Value;

use crate::{
    expect::{a_guest, a_stranger, counted, done},
    turn::lab,
    watch::lease_requests,
};

const RESOLVER: IpAddr = IpAddr::V4(GATEWAY_V4);
const RESOLVER_V6: IpAddr = IpAddr::V6(GATEWAY_V6);
/// How long a connection may take to open or be refused.
const LIMIT: Duration = Duration::from_secs(5);

/// The address of `site<n>.named.example`.
fn named(n: u32, record: Record) -> IpAddr {
    match record {
        Record::A => IpAddr::V4(Ipv4Addr::from(u32::from(NAMED_V4) + n)),
        Record::Aaaa => IpAddr::V6(Ipv6Addr::from(u128::from(NAMED_V6) + u128::from(n))),
    }
}

/// Whether TCP/443 opens; otherwise it must be refused, which is what a stranger's first SYN gets where nothing permits it. In the calling thread's
/// network namespace.
fn opens(to: IpAddr) -> Result<bool> {
    match TcpStream::connect_timeout(&SocketAddr::new(to, 443), LIMIT) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => Ok(false),
        Err(e) => Err(e).with_context(|| format!("neither open nor refused: {to}")),
    }
}

/// A gate whose garden has these names, on 443/tcp alone, and room for a test's questions.
fn start(lab: &Lab, names: &[&str]) -> Result<Portald> {
    let config = without_budgets(&config_text(lab, &Settings::default()));
    let garden = names.iter().map(|name| format!("[[garden]]\nto = \"{name}\"\nports = [\"443/tcp\"]\n"));
    Portald::start_with(lab, &format!("{config}\n{}", garden.collect::<String>()), &[])
}

fn garden(lab: &Lab) -> Result<Value> {
    portalctl_json(lab, &["garden", "list"])
}

/// What the rule for this name or prefix has learned and is open: the addresses, and how many seconds for.
fn learned(lab: &Lab, to: &str) -> Result<Map<IpAddr, u64>> {
    let list = garden(lab)?;
    let rules = list["rules"].as_array().context("no rules")?;
    let rule = rules.iter().find(|rule| rule["to"] == to).with_context(|| format!("no rule for {to}: {list}"))?;
    let rows = rule["learned"].as_array().context("nothing about what was learned")?;
    let row = |row: &Value| {
        let address = row["address"].as_str().context("no address")?.parse()?;
        Ok((address, row["remaining_seconds"].as_u64().context("no time")?))
    };
    rows.iter().map(row).collect()
}

#[test]
fn what_the_operator_adds_is_open_until_it_is_removed() -> Result<()> {
    let lab = lab()?;
    let _portald = Portald::start(&lab, &Settings::default())?;
    let (v4, v6) = (format!("{}/26", Ipv4Addr::new(198, 51, 100, 64)), format!("{SITE_V6}"));
    a_stranger(&lab.guest)?;
    for to in [&v4, &v6] {
        done(&lab, &["garden", "add", to, "--port", "80/tcp"])?;
    }
    a_guest(&lab.guest)?;
    // That port of that protocol, and no other.
    lab.guest.enter(|| {
        for site in SITES {
            ensure!(!opens(site)?, "{site}: another port is open");
        }
        Ok(())
    })?;
    let site = SITE_V4.to_string();
    let udp =
        portalctl_json(&lab, &["explain", "--mac", GUEST_MAC, "--proto", "udp", "--dst", &site, "--dport", "80"])?;
    assert_eq!(udp["reason"], "udp_refused");
    for family in Family::ALL {
        let beside = match family {
            Family::V4 => "http://198.51.100.129/",
            Family::V6 => "http://[2001:db8:2:1::1]/",
        };
        assert_eq!(http::get(&lab.guest, family, beside)?.status, 511, "{beside} is not in the prefix");
    }
    ensure!(counted(&lab, Some("guest"), false, "garden")? > 0);

    let list = garden(&lab)?;
    let rules: Vec<_> =
        list["rules"].as_array().context("no rules")?.iter().map(|r| (&r["to"], &r["ports"][0])).collect();
    ensure!(rules.iter().any(|(to, port)| **to == v4 && **port == "80/tcp"), "{list}");
    ensure!(portalctl(&lab, &["garden", "list"])?.success()?.contains(&v6));

    for to in [&v4, &v6] {
        done(&lab, &["garden", "remove", to])?;
    }
    a_stranger(&lab.guest)?;
    assert_eq!(garden(&lab)?["rules"], Value::Array(Vec::new()));
    let again = portalctl(&lab, &["garden", "remove", &v4])?;
    ensure!(again.code == Some(1) && again.stderr.contains(&v4), "{again:?}");
    Ok(())
}

/// RFC 2131 section 4.3.6, RFC 3315 section 18.1.3 (the server unicast option).
#[test]
fn a_lease_is_renewed_with_a_server_beyond_the_gateway_if_the_garden_has_it() -> Result<()> {
    let lab = lab()?;
    let mut portald = Portald::start(&lab, &Settings::default())?;
    let renewals =
        [(IpAddr::V4(GUEST_V4), SITE_V4.into(), 68, 67), (IpAddr::V6(GUEST_V6), IpAddr::V6(SITE_V6), 546, 547)];
    let requests = lease_requests(GUEST_MAC);
    let request = |server: IpAddr| &requests[usize::from(server.is_ipv6())];
    let explained = |(client, server, from, to): (IpAddr, IpAddr, u16, u16)| {
        let payload = to_hex(request(server));
        let [client, server, from, to] = [client.to_string(), server.to_string(), from.to_string(), to.to_string()];
        let flags = ["--src", &client, "--dst", &server, "--sport", &from, "--dport", &to, "--payload-hex", &payload];
        portalctl_json(&lab, &[&["explain", "--mac", GUEST_MAC, "--proto", "udp"], &flags[..]].concat())
    };
    for renewal in renewals {
        assert_eq!(explained(renewal)?["reason"], "udp_refused", "{renewal:?}");
    }
    portald.stop(LIMIT)?;
    let garden =
        renewals.map(|(_, server, _, port)| format!("[[garden]]\nto = \"{server}\"\nports = [\"{port}/udp\"]\n"));
    let config = config_text(&lab, &Settings::default());
    let _portald = Portald::start_with(&lab, &format!("{config}\n{}", garden.concat()), &[])?;
    for renewal in renewals {
        assert_eq!(explained(renewal)?["reason"], "garden", "{renewal:?}");
        let (client, server, from, to) = renewal;
        // And with real packets, there and back.
        let bind = |at: &Namespace, address, port| {
            at.enter(|| {
                let socket = UdpSocket::bind(SocketAddr::new(address, port))?;
                socket.set_read_timeout(Some(LIMIT))?;
                Ok(socket)
            })
        };
        let (server_socket, client_socket) = (bind(&lab.internet, server, to)?, bind(&lab.guest, client, from)?);
        client_socket.send_to(request(server), SocketAddr::new(server, to))?;
        let mut buffer = [0; 512];
        let (length, peer) = server_socket.recv_from(&mut buffer).with_context(|| format!("{renewal:?}"))?;
        assert_eq!((&buffer[..length], peer), (&request(server)[..], SocketAddr::new(client, from)));
        server_socket.send_to(b"ack", peer)?;
        assert_eq!(client_socket.recv(&mut buffer).with_context(|| format!("{renewal:?}"))?, 3);
    }
    Ok(())
}

#[test]
fn a_learned_destination_is_open_for_the_first_syn_after_its_answer() -> Result<()> {
    /// How many names are asked for, over each IP version.
    const NAMES: u32 = 60;
    let lab = lab()?;
    let _portald = start(&lab, &["*.named.example", "alias.garden.example", "exact.example"])?;
    lab.guest.enter(|| {
        for n in 1..=NAMES {
            let name = format!("site{n}.named.example");
            // Each family's record, by way of each family's resolver in turn.
            for (record, resolver) in
                Record::ALL.into_iter().zip([RESOLVER, RESOLVER_V6].into_iter().cycle().skip(n as usize % 2))
            {
                let address = named(n, record);
                ensure!(!opens(address)?, "{address} is open before anybody has asked for {name}");
                ensure!(dns::ask(resolver, &name, record)? == [address], "{name}");
                ensure!(opens(address)?, "the first SYN to {address} was refused, behind the answer for {name}");
            }
        }
        Ok(())
    })?;
    let open = learned(&lab, "*.named.example")?;
    assert_eq!(open.len(), 2 * NAMES as usize);
    // The time to live is 2 s: what is open is so for the shortest time (60 s) and the grace (30 s).
    ensure!(open.values().all(|seconds| (30..=90).contains(seconds)), "{open:?}");
    // Port 80 is not in the rule.
    let response = http::get(&lab.guest, Family::V4, &format!("http://{}/", named(1, Record::A)))?;
    assert_eq!(response.status, 511, "{}", response.summary());
    let counters = &garden(&lab)?["counters"];
    assert_eq!(counters["learned"], 2 * u64::from(NAMES), "{counters}");
    assert_eq!(counters["not_relayed"], 0, "{counters}");
    Ok(())
}

#[test]
fn names_match_exactly_or_below_and_through_aliases() -> Result<()> {
    let lab = lab()?;
    let _portald = start(&lab, &["site3.named.example", "*.wild.example", "alias.garden.example"])?;
    let (site, [first, third, fourth]) = (IpAddr::V4(SITE_V4), [1, 3, 4].map(|n| named(n, Record::A)));
    lab.guest.enter(|| {
        for (sentence, name, address, open) in [
            ("another name", "site4.named.example", fourth, false),
            ("a name below it", "www.site3.named.example", site, false),
            ("the name", "site3.named.example", third, true),
            ("the wildcard's own domain", "wild.example", site, false),
            ("a name that ends alike", "a.notwild.example", site, false),
            ("a name below, in capitals", "A.b.Wild.Example", site, true),
            ("the end of a chain, by itself", "site1.named.example", first, false),
            ("an alias of an alias", "alias.garden.example", first, true),
        ] {
            ensure!(dns::ask(RESOLVER, name, Record::A)?.contains(&address), "{sentence}");
            ensure!(opens(address)? == open, "{sentence}: {address} is {}", if open { "closed" } else { "open" });
        }
        Ok(())
    })?;
    assert_eq!(learned(&lab, "alias.garden.example")?.into_keys().collect::<Vec<_>>(), [first]);
    Ok(())
}

#[test]
fn a_learned_destination_closes_with_its_time_and_opens_with_the_next_answer() -> Result<()> {
    let lab = lab()?;
    let mut portald = start(&lab, &["*.named.example"])?;
    let (name, address) = ("site9.named.example", named(9, Record::A));
    let ask = || dns::ask(RESOLVER, name, Record::A);
    lab.guest.enter(|| {
        ask()?;
        ensure!(opens(address)?);
        Ok(())
    })?;
    // Its time is over: the gate compares the clock with what the daemon wrote there, which a test need not wait for.
    // Below the one directory that is named by the layout's version.
    let version = std::fs::read_dir(lab.bpffs().join("portal"))?.next().context("nothing is pinned")??;
    let pin = version.path().join("LEARNED");
    let map = MapData::from_pin(&pin).with_context(|| pin.display().to_string())?;
    let mut map: HashMap<_, ServiceKey, u64> = HashMap::try_from(aya::maps::Map::HashMap(map))?;
    let rows = map.iter().collect::<Result<Vec<_>, _>>()?;
    let [(key, _)] = rows[..] else { bail!("not one row: {rows:?}") };
    assert_eq!((IpAddr::from(key.address()), key.port()), (address, 443));
    map.insert(key, 1, 0)?;
    lab.guest.enter(|| {
        ensure!(!opens(address)?, "its time is over");
        // The daemon's clock ticks: an answer at the instant of the last one would change nothing in the row, as far as it knows.
        thread::sleep(Duration::from_millis(50));
        ask()?;
        ensure!(opens(address)?, "asked for again");
        Ok(())
    })?;

    // While portald is dead: what is open stays so for its time, and nothing is learned, as no answer comes.
    portald.kill9()?;
    lab.guest.enter(|| {
        ensure!(opens(address)?, "portald is dead");
        let other = dns::ask_within(RESOLVER, "site10.named.example", Record::A, Duration::from_millis(500));
        ensure!(other.is_err(), "an answer without portald");
        ensure!(!opens(named(10, Record::A))?);
        Ok(())
    })?;
    portald.restart(&lab)?;
    ensure!(garden(&lab)?["earlier"].as_array().is_some_and(|rows| rows.len() == 1), "it is not taken over");
    lab.guest.enter(|| {
        ensure!(opens(address)?, "the next daemon");
        dns::ask(RESOLVER, "site10.named.example", Record::A)?;
        ensure!(opens(named(10, Record::A))?);
        Ok(())
    })
}

#[test]
fn nothing_is_learned_over_tcp_nor_from_half_an_answer() -> Result<()> {
    let lab = lab()?;
    // The second resolver is this test's own.
    let config = without_budgets(&config_text(&lab, &Settings::default()));
    let config = format!(
        "{config}\n[dns]\nresolvers = [\"{RESOLVER}\", \"{RESOLVER_V6}\", \"{SITE_V4}\"]\n\
         [[garden]]\nto = \"*.named.example\"\nports = [\"443/tcp\"]\n"
    );
    let _portald = Portald::start_with(&lab, &config, &[])?;
    lab.guest.enter(|| {
        for (n, resolver) in [(20, RESOLVER), (21, RESOLVER_V6)] {
            for record in Record::ALL {
                let address = named(n, record);
                ensure!(dns::ask_over_tcp(resolver, &format!("site{n}.named.example"), record)? == [address]);
                ensure!(!opens(address)?, "{address} was learned over TCP");
            }
        }
        Ok(())
    })?;
    let counters = &garden(&lab)?["counters"];
    assert_eq!((&counters["answers"], &counters["learned"]), (&Value::from(0), &Value::from(0)), "{counters}");

    let answers = half_answers(&lab.internet)?;
    let (resolver, address) = (IpAddr::V4(SITE_V4), named(22, Record::A));
    lab.guest.enter(|| {
        let ask = || dns::ask(resolver, "site22.named.example", Record::A);
        ensure!(ask()? == [address], "half an answer reaches the guest all the same");
        ensure!(!opens(address)?, "half an answer was learned");
        ensure!(ask()? == [address]);
        ensure!(opens(address)?, "a whole one");
        Ok(())
    })?;
    answers.join().map_err(|_| anyhow::anyhow!("the resolver panicked"))??;
    let counters = &garden(&lab)?["counters"];
    assert_eq!((&counters["truncated"], &counters["learned"]), (&Value::from(1), &Value::from(1)), "{counters}");
    Ok(())
}

/// A resolver at the web server's address, which answers one query cut short, and the next whole.
fn half_answers(internet: &Namespace) -> Result<thread::JoinHandle<Result<()>>> {
    let socket = internet.enter(|| Ok(UdpSocket::bind((SITE_V4, 53))?))?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    let IpAddr::V4(address) = named(22, Record::A) else { bail!("an IPv4 record has an IPv4 address") };
    Ok(thread::spawn(move || {
        for truncated in [true, false] {
            let mut query = [0; 512];
            let (length, from) = socket.recv_from(&mut query)?;
            socket.send_to(&dns::answer(&query[..length], address, truncated)?, from)?;
        }
        Ok(())
    }))
}
