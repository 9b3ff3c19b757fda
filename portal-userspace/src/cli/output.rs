//! Answers as people read them, in 80 columns.

use std::{fmt::Write as _, time::Duration};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets::NOTHING};

use super::blocks;
use crate::{
    config::{BitRate, QuotaPer},
    control::api::{ClientList, ClientView, Drops, Explanation, GardenList, ReasonCount, Status, ZoneDrops, ZoneList},
    garden::view,
    observe::{decode, input},
    session::LimitsView,
};

/// As wide as a terminal is by tradition: the answer looks the same in a terminal, a pipe and a mail.
const WIDTH: u16 = 80;

pub(super) fn table() -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
    table
}

/// The table's lines without the spaces at their beginning and end.
pub(super) fn print(mut table: Table, right: &[usize]) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
        if right.contains(&column.index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text = String::new();
    for line in table.lines() {
        writeln!(text, "{}", line.trim_end()).expect("writing to a String does not fail");
    }
    text
}

pub(super) fn status(status: &Status) -> String {
    let Status { version, pid, uptime_seconds, gate, zones, clients, packets, lost, responder } = status;
    let mut table = table();
    let mut row = |name: &str, value: String| {
        table.add_row([name.to_owned(), value]);
    };
    row("portald", format!("{version}, process {pid}, up {}", spoken(*uptime_seconds)));
    row(
        "gate",
        format!(
            "{} (index {}), XDP {}, {} receive queue{}, program {}",
            gate.interface,
            gate.interface_index,
            gate.xdp_mode,
            gate.queues,
            if gate.queues == 1 { "" } else { "s" },
            gate.program_id
        ),
    );
    // One needs no name.
    if zones.len() > 1 {
        row("zones", zones.join(", "));
    }
    row("clients", format!("{} online, room for {}", clients.online, clients.capacity));
    row(
        "packets",
        format!(
            "{} passed, {} answered, {} redirected, {} dropped",
            packets.passed, packets.answered, packets.redirected, packets.dropped
        ),
    );
    // Nothing lost is nothing to tell.
    let losses = [
        (lost.events, "events"),
        (lost.captures, "captured packets"),
        (lost.answers, "DNS answers"),
        (lost.watchers, "events on the way to a slow watcher"),
    ];
    let losses: Vec<_> = losses.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    if !losses.is_empty() {
        row("lost", losses.join("\n"));
    }
    if gate.url_v4 == gate.url_v6 {
        row("login page", gate.url_v4.clone());
    } else {
        row("login page", format!("{}\n{}", gate.url_v4, gate.url_v6));
    }
    row("listening", gate.listeners.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    // What did not happen is for JSON.
    let happened: Vec<_> = responder.iter().filter(|(_, n)| **n > 0).map(|(name, n)| format!("{n} {name}")).collect();
    if !happened.is_empty() {
        row("responder", happened.join("\n"));
    }
    print(table, &[])
}

pub(super) fn clients(list: &ClientList) -> String {
    if list.clients.is_empty() {
        return "No client is logged in.\n".into();
    }
    let mut table = table();
    // The only zone needs no name.
    let zones = list.clients.iter().any(|view| view.zone != list.clients[0].zone);
    let zone = zones.then_some("ZONE");
    table.set_header(["CLIENT"].into_iter().chain(zone).chain(["ONLINE", "LEFT", "SEEN", "UP", "DOWN"]));
    // A line for each, so that the addresses fit beneath.
    table.set_content_arrangement(ContentArrangement::Disabled);
    for view in &list.clients {
        let mut row = vec![view.mac.to_string()];
        row.extend(zones.then(|| view.zone.clone()));
        row.extend([spoken(view.online_seconds), left(view), seen(view), bytes(view.up.bytes), bytes(view.down.bytes)]);
        table.add_row(row);
    }
    let shift = usize::from(zones);
    let rows = print(table, &[4 + shift, 5 + shift]);
    let mut lines = rows.lines();
    let mut text = format!("{}\n", lines.next().unwrap_or_default());
    for (line, view) in lines.zip(&list.clients) {
        writeln!(text, "{line}").expect("writing to a String does not fail");
        for address in &view.addresses {
            writeln!(text, "  {address}").expect("writing to a String does not fail");
        }
    }
    text
}

pub(super) fn client(view: &ClientView) -> String {
    let mut table = table();
    table.add_row(["client", view.mac.to_string().as_str()]);
    table.add_row(["online", &format!("{}, since {}", spoken(view.online_seconds), view.started_at)]);
    let until = view.expires_at.as_ref().map_or_else(|| left(view), |t| format!("{}, until {t}", left(view)));
    table.add_row(["left", until.as_str()]);
    if !view.zone.is_empty() {
        table.add_row(["zone", view.zone.as_str()]);
    }
    table.add_row(["last seen", seen(view).as_str()]);
    for (name, flow) in [("sent", view.up), ("received", view.down)] {
        table.add_row([name, format!("{} in {} packets", bytes(flow.bytes), flow.packets).as_str()]);
    }
    let LimitsView {
        rate_up_bits_per_second,
        rate_down_bits_per_second,
        quota_bytes,
        quota_remaining_bytes,
        quota_per,
        quota_day_remaining_seconds,
        idle_timeout_seconds,
    } = view.limits;
    let rate = |rate: Option<u64>| {
        rate.map(|rate| BitRate::new(rate).map_or_else(|_| format!("{rate}bit"), |r| r.to_string()))
    };
    let quota = quota_bytes.map(|quota| {
        let left = quota_remaining_bytes.unwrap_or_default();
        format!("{}, {} left", bytes(quota), bytes(left))
    });
    let of = quota_per.map(|per| match (per, quota_day_remaining_seconds) {
        (QuotaPer::Day, Some(seconds)) => format!("day, which ends in {}", spoken(seconds)),
        (per, _) => per.to_string(),
    });
    let limits = [
        ("rate up", rate(rate_up_bits_per_second)),
        ("rate down", rate(rate_down_bits_per_second)),
        ("quota", quota),
        ("quota per", of),
        ("idle timeout", idle_timeout_seconds.map(|seconds| spoken(seconds.into()))),
    ];
    for (name, limit) in limits {
        if let Some(limit) = limit {
            table.add_row([name, limit.as_str()]);
        }
    }
    table.add_row(["addresses", addresses(view).as_str()]);
    print(table, &[])
}

pub(super) fn allowed(view: &ClientView) -> String {
    let mut text = match &view.expires_at {
        Some(until) => format!("{} is let through for {}, until {until}.\n", view.mac, left(view)),
        None => format!("{} is let through until it is revoked or the gateway restarts.\n", view.mac),
    };
    if let Some(bar) = &view.lifted_bar {
        writeln!(text, "It was kept out ({}), and is no longer.", blocks::why(bar.cause))
            .expect("writing to a String does not fail");
    }
    text
}

pub(super) fn drops(drops: &Drops) -> String {
    // What did not happen would bury what did; JSON has every reason.
    let counted: Vec<_> = drops.zones.iter().filter(|zone| zone.reasons.iter().any(|r| r.packets > 0)).collect();
    match counted[..] {
        [] => reasons(&drops.reasons).unwrap_or_else(|| "No packet was counted.\n".into()),
        // The only zone needs no name.
        [zone] if drops.zones.len() <= 3 && zone.zone.is_some() && !zone.shadow => {
            reasons(&zone.reasons).unwrap_or_default()
        }
        _ => counted
            .iter()
            .map(|zone| format!("{}:\n{}", row_name(zone), reasons(&zone.reasons).unwrap_or_default()))
            .collect::<Vec<_>>()
            .join("\n"),
    }
}

/// What a row of counters is of.
pub(super) fn row_name(zone: &ZoneDrops) -> String {
    match (&zone.zone, zone.shadow) {
        (None, _) => "frames of no zone".into(),
        (Some(name), false) => format!("zone {name}"),
        (Some(name), true) => format!("zone {name}, shadow mode (decided, but not done)"),
    }
}

/// A table of what happened; None if nothing did.
fn reasons(reasons: &[ReasonCount]) -> Option<String> {
    let happened: Vec<_> = reasons.iter().filter(|reason| reason.packets > 0).collect();
    if happened.is_empty() {
        return None;
    }
    let mut table = table();
    let outcomes = reasons.iter().any(|r| r.outcome != "dropped");
    if outcomes {
        table.set_header(["REASON", "OUTCOME", "PACKETS", "RULE"]);
    } else {
        table.set_header(["REASON", "PACKETS", "RULE"]);
    }
    for reason in happened {
        let packets = reason.packets.to_string();
        if outcomes {
            table.add_row([&reason.name, &reason.outcome, &packets, &reason.text]);
        } else {
            table.add_row([&reason.name, &packets, &reason.text]);
        }
    }
    Some(print(table, if outcomes { &[2] } else { &[1] }))
}

/// A frame and what the gate would do with it.
pub(super) fn explanation(number: Option<usize>, frame: &[u8], explanation: &Explanation) -> String {
    let Explanation { verdict, reason, rule, reply_hex } = explanation;
    let mut text = String::new();
    let mut part = |name: &str, lines: Vec<String>| {
        for (at, line) in lines.iter().enumerate() {
            let name = if at == 0 { name } else { "" };
            writeln!(text, "{name:<9} {line}").expect("writing to a String does not fail");
        }
    };
    part(&number.map_or_else(|| "frame".to_owned(), |n| format!("frame {n}")), decode::lines(frame));
    part("verdict", vec![verdict.clone()]);
    part("reason", vec![reason.clone()]);
    part("rule", vec![rule.clone()]);
    if let Some(reply) = reply_hex.as_deref().map(input::bytes) {
        part("reply", reply.map_or_else(|e| vec![e.to_string()], |reply| decode::lines(&reply)));
    }
    text
}

pub(super) fn zones(list: &ZoneList) -> String {
    let mut table = table();
    table.set_header(["ZONE", "INTERFACE", "VLAN", "STATE", "443", "SPOOFING", "LOGIN PAGE"]);
    for zone in &list.zones {
        let state = match (zone.attached, zone.shadow) {
            (false, _) => "not guarded",
            (true, false) => "guarded",
            (true, true) => "shadow: OPEN",
        };
        let url = zone.url_v4.iter().chain(zone.url_v6.iter().filter(|url| Some(*url) != zone.url_v4.as_ref()));
        table.add_row([
            zone.name.clone(),
            zone.interface.clone(),
            zone.vlan.clone().unwrap_or_else(|| "-".into()),
            state.to_owned(),
            zone.https.clone(),
            zone.anti_spoofing.clone(),
            url.cloned().collect::<Vec<_>>().join("\n"),
        ]);
    }
    print(table, &[])
}

pub(super) fn garden(list: &GardenList) -> String {
    let rows = view::rows(list);
    if rows.is_empty() {
        return "Strangers may reach nothing beside the login page.\n".into();
    }
    let mut rules = table();
    rules.set_header(view::HEADER);
    rules.add_rows(rows);
    let mut text = print(rules, &[]);
    let counters = view::counter_rows(list);
    if !counters.is_empty() {
        let mut counts = table();
        counts.add_rows(counters);
        text.push('\n');
        text.push_str(&print(counts, &[1]));
    }
    text
}

/// Since when the client is silent.
fn seen(view: &ClientView) -> String {
    match view.last_seen_seconds {
        None => "never".into(),
        // The gate notes it once a second.
        Some(0 | 1) => "now".into(),
        Some(seconds) => format!("{} ago", spoken(seconds)),
    }
}

/// A number of bytes in its largest decimal unit, with three digits.
fn bytes(bytes: u64) -> String {
    const UNITS: [(&str, u64); 5] =
        [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000), ("B", 1)];
    let (unit, size) = UNITS.into_iter().find(|(_, size)| bytes >= *size).unwrap_or(("B", 1));
    let (whole, tenth) = (bytes / size, bytes % size * 10 / size);
    if size == 1 || whole >= 100 { format!("{whole} {unit}") } else { format!("{whole}.{tenth} {unit}") }
}

fn left(view: &ClientView) -> String {
    view.remaining_seconds.map_or_else(|| "forever".into(), spoken)
}

fn addresses(view: &ClientView) -> String {
    if view.addresses.is_empty() {
        return "-".into();
    }
    view.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// A number of seconds in its two largest units, as `1h 59m`.
pub(super) fn spoken(seconds: u64) -> String {
    let text = humantime::format_duration(Duration::from_secs(seconds)).to_string();
    // A minute is exact enough for what lasts hours.
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}
