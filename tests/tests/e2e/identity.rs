//! Who acts on the login page is who sent the frames, whatever ARP and neighbour discovery say.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use etherparse::PacketBuilder;
use portal_lab::{
    Lab, Portald, Settings,
    addresses::{
        GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, GUEST_MAC, GUEST_V4, GUEST_V6, OTHER_MAC, OTHER_V4, OTHER_V6, PORTAL_PORT,
        mac,
    },
    clients::http,
    portald::portalctl_json,
    wire::Wire,
};

use crate::{
    expect::{a_guest, a_stranger, counted, done},
    turn::lab,
};

/// How long the page may take.
const LIMIT: Duration = Duration::from_secs(5);

/// A family's addresses: the gateway's, the attacker's, the victim's.
const FAMILIES: [[IpAddr; 3]; 2] = [
    [IpAddr::V4(GATEWAY_V4), IpAddr::V4(OTHER_V4), IpAddr::V4(GUEST_V4)],
    [IpAddr::V6(GATEWAY_V6), IpAddr::V6(OTHER_V6), IpAddr::V6(GUEST_V6)],
];

/// The attacker says, from its own station, that its address is at this one.
fn says(lab: &Lab, address: IpAddr, station: &str) -> Result<()> {
    let frame = match address {
        IpAddr::V4(v4) => arp_reply(v4, station),
        IpAddr::V6(v6) => advertisement(v6, station),
    };
    lab.other.enter(|| Ok(Wire::open_for_sending("eth0", 64 << 10)?.send(&frame)?))
}

fn arp_reply(address: Ipv4Addr, station: &str) -> Vec<u8> {
    let mut frame = [mac(GATEWAY_MAC), mac(OTHER_MAC)].concat();
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
    for end in [(mac(station), address), (mac(station), address)] {
        frame.extend(end.0);
        frame.extend(end.1.octets());
    }
    frame
}

/// RFC 4861 section 4.4, unsolicited, overriding, with the target's link-layer address.
fn advertisement(address: Ipv6Addr, station: &str) -> Vec<u8> {
    const OVERRIDE: u8 = 0x20;
    let mut message = vec![OVERRIDE, 0, 0, 0];
    message.extend(address.octets());
    message.extend([2, 1]);
    message.extend(mac(station));
    let builder = PacketBuilder::ethernet2(mac(OTHER_MAC), mac(GATEWAY_MAC));
    let mut frame = Vec::new();
    builder
        .ipv6(address.octets(), GATEWAY_V6.octets(), 255)
        .icmpv6_raw(136, 0, [OVERRIDE, 0, 0, 0])
        .write(&mut frame, &message[4..])
        .expect("a Vec takes all");
    frame
}

/// Makes the gateway's kernel believe that the address is there, however a station may have brought that about.
fn believed(lab: &Lab, address: IpAddr, station: &str) -> Result<()> {
    lab.gateway.ip(&format!("neighbour replace {address} lladdr {station} dev guest0 nud reachable")).map(drop)
}

fn form(path: &str, host: SocketAddr) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 10\r\n\r\naccept=yes"
    )
}

fn answer(mut stream: TcpStream) -> Result<String> {
    let mut answer = String::new();
    stream.set_read_timeout(Some(LIMIT))?;
    stream.read_to_string(&mut answer).context("no answer")?;
    Ok(answer)
}

fn is_in(lab: &Lab, client: &str) -> Result<bool> {
    let list = portalctl_json(lab, &["clients", "list"])?;
    let clients = list["clients"].as_array().with_context(|| format!("no clients: {list}"))?;
    Ok(clients.iter().any(|row| row["mac"] == client))
}

#[test]
fn a_stranger_acts_for_itself_alone_whatever_it_says_of_its_address() -> Result<()> {
    for xdp_mode in ["native", "generic"] {
        let lab = lab()?;
        let _portald = Portald::start(&lab, &Settings { xdp_mode, ..Settings::default() })?;
        for [gateway, own, _] in FAMILIES {
            let page = SocketAddr::new(gateway, PORTAL_PORT);
            // Whether the victim is logged in, what the attacker asks for while its address seems to be the victim's, and whether it is logged in then.
            for (victim, path, attacker) in
                [(true, "/logout", false), (true, "/login", true), (true, "/logout", false), (false, "/login", true)]
            {
                let what = || format!("{xdp_mode}, {gateway}, {path}, the victim is logged in: {victim}");
                done(&lab, if victim { &["allow", GUEST_MAC] } else { &["revoke", GUEST_MAC] })?;
                let mut stream = lab.other.connect(gateway, PORTAL_PORT, LIMIT).with_context(what)?;
                says(&lab, own, GUEST_MAC)?;
                believed(&lab, own, GUEST_MAC)?;
                stream.write_all(form(path, page).as_bytes())?;
                // The answer goes to the victim, until the truth is said again and TCP repeats it.
                std::thread::sleep(Duration::from_millis(100));
                says(&lab, own, OTHER_MAC)?;
                believed(&lab, own, OTHER_MAC)?;
                let answer = answer(stream).with_context(what)?;
                ensure!(answer.starts_with("HTTP/1.1 303 "), "{}: {answer}", what());
                ensure!(is_in(&lab, GUEST_MAC)? == victim, "{}: it acted for the victim", what());
                ensure!(is_in(&lab, OTHER_MAC)? == attacker, "{}: it did not act for itself", what());
                if victim { a_guest(&lab.guest) } else { a_stranger(&lab.guest) }.with_context(what)?;
            }
            done(&lab, &["revoke", OTHER_MAC])?;
        }
    }
    Ok(())
}

#[test]
fn nobody_goes_on_with_a_connection_that_another_began() -> Result<()> {
    let lab = lab()?;
    let _portald = Portald::start(&lab, &Settings::default())?;
    let count = || counted(&lab, Some("guest"), false, "connection_of_another");
    for [gateway, _, victims] in FAMILIES {
        let mut stream = lab.guest.connect(gateway, PORTAL_PORT, LIMIT)?;
        let port = stream.local_addr()?.port();
        // The attacker has heard all of it; but it is another station.
        let segment = |flags: u8| {
            let builder = PacketBuilder::ethernet2(mac(OTHER_MAC), mac(GATEWAY_MAC));
            let builder = match (victims, gateway) {
                (IpAddr::V4(from), IpAddr::V4(to)) => builder.ipv4(from.octets(), to.octets(), 64),
                (IpAddr::V6(from), IpAddr::V6(to)) => builder.ipv6(from.octets(), to.octets(), 64),
                _ => unreachable!("they are of one family"),
            };
            let builder = builder.tcp(port, PORTAL_PORT, 1, 64_000);
            let builder = if flags & 0x02 != 0 { builder.syn() } else { builder.ack(1) };
            let builder = if flags & 0x04 != 0 { builder.rst() } else { builder };
            let mut frame = Vec::new();
            builder.write(&mut frame, &[]).expect("a Vec takes all");
            frame
        };
        for flags in [0x10, 0x02, 0x04] {
            let before = count()?;
            let frame = segment(flags);
            lab.other.enter(|| Ok(Wire::open_for_sending("eth0", 64 << 10)?.send(&frame)?))?;
            std::thread::sleep(Duration::from_millis(50));
            ensure!(count()? == before + 1, "{gateway}, flags {flags:#x}: not dropped as connection_of_another");
        }
        stream.write_all(form("/login", SocketAddr::new(gateway, PORTAL_PORT)).as_bytes())?;
        let answer = answer(stream)?;
        ensure!(answer.starts_with("HTTP/1.1 303 "), "{gateway}: {answer}");
        ensure!(is_in(&lab, GUEST_MAC)? && !is_in(&lab, OTHER_MAC)?, "{gateway}");
        done(&lab, &["revoke", GUEST_MAC])?;
    }
    Ok(())
}

#[test]
fn who_did_not_come_through_the_gate_is_no_device_that_the_page_knows() -> Result<()> {
    let lab = lab()?;
    let _portald = Portald::start(&lab, &Settings::default())?;
    for [gateway, ..] in FAMILIES {
        let page = SocketAddr::new(gateway, PORTAL_PORT);
        for (sentence, client) in [("the gateway itself", &lab.gateway), ("from the internet", &lab.internet)] {
            for path in ["", "login", "logout"] {
                let url = format!("http://{page}/{path}");
                let form: &[&str] = if path.is_empty() { &[] } else { &["--data", "accept=yes"] };
                let response = http::request(client, &[form, &[url.as_str()]].concat())
                    .with_context(|| format!("{sentence}, {url}"))?;
                ensure!(
                    response.status == 403 && response.body.contains("could not find your device"),
                    "{sentence}, {url}: {}",
                    response.summary()
                );
            }
        }
        ensure!(!is_in(&lab, GUEST_MAC)? && !is_in(&lab, OTHER_MAC)?);
    }
    Ok(())
}

#[test]
fn in_shadow_mode_the_page_knows_its_client() -> Result<()> {
    let lab = lab()?;
    let config = portal_lab::portald::config_text(&lab, &Settings::default());
    let config = config.replace("[portal]\n", "shadow = true\n\n[portal]\n");
    let _portald = Portald::start_with(&lab, &config, &[])?;
    for [gateway, ..] in FAMILIES {
        http::log_in(&lab.guest, &format!("http://{}/", SocketAddr::new(gateway, PORTAL_PORT)))?;
        ensure!(is_in(&lab, GUEST_MAC)?, "{gateway}");
        done(&lab, &["revoke", GUEST_MAC])?;
    }
    Ok(())
}
