//! Who is kept out, as people read it.

use crate::control::api::{BarCause, BarView, BlockList, Blocked, Revoked};

use super::output::{print, spoken, table};

/// What keeps a client out, in a word.
pub(super) const fn why(cause: BarCause) -> &'static str {
    match cause {
        BarCause::Quota => "quota",
        BarCause::Day => "quota of the day",
        BarCause::Revoked => "revoked",
        BarCause::Blocked => "blocked",
    }
}

pub(super) fn list(list: &BlockList) -> String {
    if list.blocks.is_empty() {
        return "Nobody is kept out.\n".into();
    }
    let mut rows = table();
    // The only zone needs no name.
    let zones = list.blocks.iter().any(|bar| bar.zone != list.blocks[0].zone);
    let zone = zones.then_some("ZONE");
    rows.set_header(["CLIENT"].into_iter().chain(zone).chain(["WHY", "LEFT", "UNTIL", "REASON"]));
    for bar in &list.blocks {
        let mut row = vec![bar.mac.to_string()];
        row.extend(zones.then(|| bar.zone.clone()));
        row.extend([
            why(bar.cause).to_owned(),
            bar.remaining_seconds.map_or_else(|| "forever".into(), spoken),
            bar.until.clone().unwrap_or_else(|| "-".into()),
            bar.reason.clone().map_or_else(|| "-".into(), String::from),
        ]);
        rows.add_row(row);
    }
    print(rows, &[])
}

pub(super) fn blocked(Blocked { block, ended_session }: &Blocked) -> String {
    let ended = if *ended_session { "Its session has ended.\n" } else { "" };
    format!("{} is blocked {}.\n{ended}", block.mac, until(block))
}

pub(super) fn revoked(Revoked { mac, bar, .. }: &Revoked) -> String {
    match bar {
        None => format!("{mac} is logged out.\n"),
        Some(bar) => format!("{mac} is logged out, and kept out {}.\n", until(bar)),
    }
}

fn until(bar: &BarView) -> String {
    match (&bar.until, bar.remaining_seconds) {
        (Some(until), Some(seconds)) => format!("for {}, until {until}", spoken(seconds)),
        (Some(until), None) => format!("until {until}"),
        (None, _) => "until it is unblocked".into(),
    }
}
