//! What more than one test expects.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use portal_lab::{
    Lab, Namespace,
    addresses::SITES,
    clients::http::{self, Family},
    lab::SITE_PAGE,
    portald::{portalctl, portalctl_json},
    process::sh,
};
use serde_json::Value;

/// A site that guests ask for.
pub(crate) const SITE: &str = "http://www.example.com/";
/// A request as a client sends it.
pub(crate) const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n";

/// The client gets the 511 for the site, over both IP versions.
pub(crate) fn a_stranger(client: &Namespace) -> Result<()> {
    for family in Family::ALL {
        let response = http::get(client, family, SITE)?;
        ensure!(response.status == 511, "{family:?}: a stranger got {}", response.summary());
    }
    Ok(())
}

/// The client gets the site itself, over both IP versions.
pub(crate) fn a_guest(client: &Namespace) -> Result<()> {
    for family in Family::ALL {
        let response = http::get(client, family, SITE)?;
        ensure!(response.status == 200 && response.body == SITE_PAGE, "{family:?}: a guest got {}", response.summary());
    }
    Ok(())
}

/// Nothing answers the client's request, for as long as a second, over either IP version.
pub(crate) fn nothing_gets_through(client: &Namespace) -> Result<()> {
    for family in Family::ALL {
        let output = http::curl(client, &[family.option(), "--max-time", "1", SITE])?;
        ensure!(output.code != Some(0), "{family:?}: something answered: {}", output.stdout);
    }
    Ok(())
}

/// The site itself is out of the client's reach, over either IP version: nothing answers for as long as a second, or the gate does, which of a dead portald knows
/// some answers.
pub(crate) fn the_site_is_out_of_reach(client: &Namespace) -> Result<()> {
    for family in Family::ALL {
        let output = http::curl(client, &[family.option(), "--max-time", "1", "--write-out", "%{http_code}", SITE])?;
        let status = output.stdout.get(output.stdout.len().saturating_sub(3)..).unwrap_or_default();
        ensure!(output.code != Some(0) || status == "511", "{family:?}: something answered: {}", output.stdout);
    }
    Ok(())
}

/// portalctl does this.
pub(crate) fn done(lab: &Lab, arguments: &[&str]) -> Result<()> {
    portalctl(lab, arguments)?.success().with_context(|| format!("portalctl {}", arguments.join(" ")))?;
    Ok(())
}

/// How often this reason was given in the zone of this name (None: to frames of no zone), or in shadow mode would have been.
pub(crate) fn counted(lab: &Lab, zone: Option<&str>, shadow: bool, reason: &str) -> Result<u64> {
    let drops = portalctl_json(lab, &["drops", "--all"])?;
    let zones = drops["zones"].as_array().with_context(|| format!("no zones: {drops}"))?;
    let row = zones.iter().find(|row| row["zone"].as_str() == zone && row["shadow"] == shadow);
    let reasons = row.and_then(|row| row["reasons"].as_array()).with_context(|| format!("no such row: {drops}"))?;
    let count = reasons.iter().find(|row| row["name"] == reason).and_then(|row| row["packets"].as_u64());
    count.with_context(|| format!("no {reason}: {drops}"))
}

/// A connection to the web server's port 80, for each IP version.
pub(crate) fn connections(client: &Namespace) -> Result<Vec<(IpAddr, TcpStream)>> {
    let connect = |site| client.connect(site, 80, Duration::from_secs(5)).map(|stream| (site, stream));
    SITES.into_iter().map(connect).collect::<Result<_>>().context("no handshake on port 80")
}

/// What comes on the connection until it ends.
pub(crate) fn read_to_end(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.read_to_end(&mut bytes).with_context(|| format!("after {} bytes", bytes.len()))?;
    Ok(bytes)
}

/// The 511's bytes, checked to be a whole response; the link in it differs between the IP versions.
pub(crate) fn the_511(lab: &Lab, site: IpAddr) -> Result<Vec<u8>> {
    let mut stream = lab.guest.connect(site, 80, Duration::from_secs(5))?;
    stream.write_all(REQUEST)?;
    let bytes = read_to_end(&mut stream)?;
    let text = std::str::from_utf8(&bytes)?;
    let (head, body) = text.split_once("\r\n\r\n").context("no end of the header")?;
    ensure!(head.starts_with("HTTP/1.1 511 "), "{head}");
    let length = format!("content-length: {}", body.len());
    ensure!(head.to_lowercase().lines().any(|line| line == length), "no {length} in {head}");
    ensure!(bytes.len() < 1200, "{} bytes", bytes.len());
    Ok(bytes)
}

/// The id of the XDP program on the guest interface.
pub(crate) fn program(lab: &Lab) -> Result<u64> {
    let json: Value = serde_json::from_str(&sh(&format!("ip -n {} -j link show dev guest0", lab.gateway.name()))?)?;
    json[0]["xdp"]["prog"]["id"].as_u64().with_context(|| format!("no program: {json}"))
}

/// What is pinned in the directory or below, if it is there.
pub(crate) fn pins(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if directory.exists() {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() { found.extend(pins(&path)?) } else { found.push(path) }
        }
    }
    Ok(found)
}
