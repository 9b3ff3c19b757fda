//! What goes on until somebody ends it: `drops --watch`, `monitor` and `capture`.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    time::{Duration, SystemTime},
};

use serde::Serialize;

use super::{Failure, args::CaptureArgs, output, print};
use crate::{
    control::{
        Client, ClientError, Download,
        api::{Drops, EventLine},
    },
    observe::events::LOST,
};

/// How often counters are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// What was added to a counter.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Added {
    /// When (RFC 3339, UTC).
    at: String,
    /// The zone; None: frames of no zone.
    zone: Option<String>,
    /// Whether it was decided in shadow mode, and not done.
    shadow: bool,
    /// The reason's stable name.
    reason: String,
    /// How many packets since the last look.
    packets: u64,
}

/// A row of counters: its name for people, and what tells it from others.
type Row = (Option<String>, bool, String);

pub(super) async fn drops(
    client: &Client,
    all: bool,
    zone: Option<&str>,
    count: Option<u64>,
    json: bool,
) -> Result<(), Failure> {
    let mut before = rows(&client.drops(all, zone).await?);
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + INTERVAL, INTERVAL);
    for _ in 0..count.unwrap_or(u64::MAX) {
        tokio::select! {
            _ = ticks.tick() => {}
            stopped = tokio::signal::ctrl_c() => return Ok(stopped?),
        }
        let drops = client.drops(all, zone).await?;
        print(added(&before, &drops, json).as_bytes())?;
        before = rows(&drops);
    }
    Ok(())
}

fn rows(drops: &Drops) -> HashMap<Row, u64> {
    let zones = drops.zones.iter();
    zones
        .flat_map(|zone| zone.reasons.iter().map(|r| ((zone.zone.clone(), zone.shadow, r.name.clone()), r.packets)))
        .collect()
}

/// The lines about what was added.
fn added(before: &HashMap<Row, u64>, now: &Drops, json: bool) -> String {
    let at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let mut text = String::new();
    for zone in &now.zones {
        for reason in &zone.reasons {
            let row = (zone.zone.clone(), zone.shadow, reason.name.clone());
            // Fewer than before: the gate's maps are new.
            let packets = reason.packets.saturating_sub(before.get(&row).copied().unwrap_or(0));
            if packets == 0 {
                continue;
            }
            let (zone_name, shadow, name) = row;
            let line = if json {
                let added = Added { at: at.clone(), zone: zone_name, shadow, reason: name, packets };
                serde_json::to_string(&added).expect("strings and numbers have a JSON form")
            } else {
                format!("{at}  {:>9}  {name:<22}  {}", format!("+{packets}"), output::row_name(zone))
            };
            text.push_str(&line);
            text.push('\n');
        }
    }
    text
}

pub(super) async fn monitor(client: &Client, count: Option<u64>, json: bool) -> Result<(), Failure> {
    let mut download = client.events().await?;
    let mut left = count.unwrap_or(u64::MAX);
    let mut buffer = Vec::new();
    while let Some(piece) = next(&mut download).await? {
        buffer.extend(piece);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            print(&if json { line.clone() } else { words(&line)?.into_bytes() })?;
            // What was lost is no event of its own.
            if !is_lost(&line) {
                left -= 1;
            }
            if left == 0 {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn words(line: &[u8]) -> Result<String, Failure> {
    let event: EventLine = serde_json::from_slice(line).map_err(|e| Failure::Input {
        message: format!("portald told an event that can't be read: {e}"),
        remedy: "portalctl and portald may be of different versions: use the same",
    })?;
    Ok(event.to_line())
}

fn is_lost(line: &[u8]) -> bool {
    serde_json::from_slice::<EventLine>(line).is_ok_and(|event| event.event == LOST)
}

pub(super) async fn capture(client: &Client, args: &CaptureArgs) -> Result<(), Failure> {
    let CaptureArgs { client: mac, zone, write, count, seconds } = args;
    let mut download = client.capture(*mac, zone.as_deref(), *count, *seconds).await?;
    // Only when the daemon has agreed: a refusal leaves an earlier file alone.
    let mut out: Box<dyn Write> = if write == Path::new("-") {
        Box::new(io::stdout())
    } else {
        Box::new(create_private(write).map_err(|e| Failure::Input {
            message: format!("cannot write {}: {e}", write.display()),
            remedy: "name a file that you may write and that is nobody else's with --write",
        })?)
    };
    let mut bytes = 0;
    while let Some(piece) = next(&mut download).await? {
        // Whole blocks: what is written is a valid file at any time.
        out.write_all(&piece)?;
        out.flush()?;
        bytes += piece.len();
    }
    if write != Path::new("-") {
        // Where standard error is gone, the file is there all the same.
        let _: io::Result<()> = writeln!(io::stderr(), "{bytes} bytes written to {}", write.display());
    }
    Ok(())
}

/// An empty file that only its owner may read: captures show what clients do. What is no file, such as a pipe, is written to as it is.
fn create_private(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() {
        // Its owner could open it again.
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("it belongs to another user ({}), who could read the capture", metadata.uid()),
            ));
        }
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.set_len(0)?;
    }
    Ok(file)
}

/// The next piece; None at the end, or when the operator has had enough.
async fn next(download: &mut Download) -> Result<Option<axum::body::Bytes>, ClientError> {
    tokio::select! {
        piece = download.next() => piece,
        // Where the signal can't be caught it ends portalctl by itself.
        Ok(()) = tokio::signal::ctrl_c() => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use portal_common::Reason;

    use super::*;
    use crate::control::api::{ReasonCount, ZoneDrops};

    fn drops(guests: u64, shadow: u64, none: u64) -> Drops {
        let zone = |zone: Option<&str>, shadow, packets| ZoneDrops {
            zone: zone.map(String::from),
            shadow,
            reasons: vec![ReasonCount::new((Reason::Fragment, packets))],
        };
        Drops {
            reasons: Vec::new(),
            zones: vec![
                zone(Some("guests"), false, guests),
                zone(Some("guests"), true, shadow),
                zone(None, false, none),
            ],
        }
    }

    #[test]
    fn what_was_added_is_told_by_zone_and_nothing_else() {
        let before = rows(&drops(5, 1, 9));
        let text = added(&before, &drops(7, 1, 10), false);
        let lines: Vec<&str> = text.lines().map(|line| line.split_once("Z  ").unwrap().1.trim_start()).collect();
        assert_eq!(lines, ["+2  fragment                zone guests", "+1  fragment                frames of no zone"]);
        let text = added(&before, &drops(5, 3, 9), true);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (json["zone"].as_str(), json["shadow"].as_bool(), json["packets"].as_u64()),
            (Some("guests"), Some(true), Some(2))
        );
        assert_eq!(added(&before, &drops(5, 1, 9), false), "", "nothing");
        assert_eq!(added(&before, &drops(1, 0, 0), false), "", "new maps");
    }
    #[test]
    fn a_captures_file_is_for_its_owner_alone_and_never_anothers() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for (name, owner) in [("open", None), ("strangers", Some(64_000))] {
            std::fs::write(at(name), "earlier").unwrap();
            std::fs::set_permissions(at(name), Permissions::from_mode(0o644)).unwrap();
            std::os::unix::fs::chown(at(name), owner, None).unwrap();
        }
        for name in ["new", "open"] {
            create_private(&at(name)).unwrap();
            let metadata = std::fs::metadata(at(name)).unwrap();
            assert_eq!((metadata.mode() & 0o7777, metadata.len()), (0o600, 0), "{name}");
        }
        let text = create_private(&at("strangers")).unwrap_err().to_string();
        assert!(text.contains("another user (64000)"), "{text}");
        assert_eq!(std::fs::read(at("strangers")).unwrap(), b"earlier", "left alone");
        let mode = std::fs::metadata("/dev/null").unwrap().mode();
        create_private(Path::new("/dev/null")).unwrap();
        assert_eq!(std::fs::metadata("/dev/null").unwrap().mode(), mode, "no file");
    }
}
