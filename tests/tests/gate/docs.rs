//! `docs/verdicts.md`, made of the verdict table.

use std::{fmt::Write as _, fs, path::PathBuf};

use portal_common::{
    Reason,
    decide::{Action, Outbound},
    reason::Outcome,
};
use portal_lab::verdicts::{Reply, Row, outbound_rows, rows, rows_without_responder, setting};

const COMMAND: &str = "PORTAL_WRITE_DOCS=1 cargo test -p portal-tests --test gate docs";

#[test]
fn the_page_of_verdicts_is_what_the_table_says() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/verdicts.md");
    let page = page();
    if std::env::var_os("PORTAL_WRITE_DOCS").is_some() {
        fs::write(&path, page).expect("the page is writable");
        return;
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == page, "docs/verdicts.md is not what the verdict table says; write it with `{COMMAND}`");
}

/// A row of the page.
struct Line {
    sentence: String,
    frame: String,
    verdict: &'static str,
    reason: Reason,
    reply: String,
}

fn page() -> String {
    let mut page = String::from("# What the gate does with which frame\n\n");
    writeln!(
        page,
        "<!-- Made of tests/src/verdicts/rows.rs by `{COMMAND}`. Do not edit. -->\n\n\
         Each row is run in the kernel, on the host and over a wire by `cargo test -p portal-tests --test gate`. Frames go to the gateway's MAC \
         address and come from a guest, unless they say otherwise. A *stranger* has no session.\n\n\
         The zones: untagged frames (TCP/443 is reset, addresses are learned); VLAN 10 (TCP/443 gets an alert; a walled garden, time, strict \
         addresses); VLAN 20 (shadow mode: everything passes, the verdict is only counted); VLAN 30 (TCP/443 is dropped, addresses are not \
         looked at); VLAN 20 within VLAN 100; VLAN 60 (every budget is spent); VLAN 70 (not configured). Nobody has a budget elsewhere, so that \
         the rows do not depend on each other."
    )
    .expect("a string takes everything");
    let inbound: Vec<Line> = rows().iter().chain(&rows_without_responder()).map(line).collect();
    let groups = [
        (Outcome::Passed, "Passed"),
        (Outcome::Answered, "Answered by the gate"),
        (Outcome::Redirected, "Given to the responder"),
        (Outcome::Dropped, "Dropped"),
    ];
    for (outcome, heading) in groups {
        write!(page, "\n## {heading}\n").expect("a string takes everything");
        for reason in Reason::ALL.iter().filter(|reason| reason.outcome() == outcome) {
            section(&mut page, *reason, inbound.iter().filter(|line| line.reason == *reason));
        }
    }
    page += "\n## Frames that go to guests\n\nA guest's frames are counted. To a stranger goes only what it needs; the reasons of what passes are not \
         counted. Frames have come in by another interface, unless they are the gateway's own.\n\n";
    page += "| what | frame | whose | verdict | reason |\n|---|---|---|---|---|\n";
    for row in outbound_rows() {
        let (verdict, reason) = match row.decision {
            Outbound::Pass(reason) => ("passed", reason),
            Outbound::Metered => ("passed and counted", Reason::Authorized),
            Outbound::Drop(reason) => ("dropped", reason),
            Outbound::Hold => ("given to the daemon", Reason::AnswerHeld),
        };
        let whose = if row.forwarded { "forwarded" } else { "the gateway's own" };
        let reason = reason.name();
        let frame = row.frame.describe();
        let verdict = if in_shadow(&row.frame.tags) { "passed, counted as dropped" } else { verdict };
        writeln!(page, "| {} | {frame} | {whose} | {verdict} | `{reason}` |", row.sentence)
            .expect("a string takes everything");
    }
    page
}

fn section<'a>(page: &mut String, reason: Reason, lines: impl Iterator<Item = &'a Line>) {
    let mut lines = lines.peekable();
    // What the table's frames don't bring about by themselves; the meter's reasons are below.
    let elsewhere = matches!(reason, Reason::HttpAnswered | Reason::AnswerFailed);
    if lines.peek().is_none() && !elsewhere {
        return;
    }
    write!(page, "\n### `{}`\n\n{}\n", reason.name(), reason.text()).expect("a string takes everything");
    if lines.peek().is_none() {
        page.push_str("\nNo frame brings it about by itself: see `tests/tests/gate/known.rs`.\n");
        return;
    }
    page.push_str("\n| what | frame | verdict | reply |\n|---|---|---|---|\n");
    for Line { sentence, frame, verdict, reply, .. } in lines {
        writeln!(page, "| {sentence} | {frame} | {verdict} | {reply} |").expect("a string takes everything");
    }
}

fn line(row: &Row) -> Line {
    let verdict = match row.action {
        _ if in_shadow(&row.frame.tags) => "passed (shadow)",
        Action::Pass => "passed",
        Action::Answer => "answered",
        Action::Redirect => "redirected",
        Action::Drop => "dropped",
    };
    Line {
        sentence: row.sentence.to_owned(),
        frame: row.frame.describe(),
        verdict,
        reason: row.reason,
        reply: describe(row.reply),
    }
}

fn in_shadow(tags: &[(u16, u16)]) -> bool {
    matches!(tags, [(_, tag)] if tag & 0xfff == setting::SHADOW_VLAN)
}

fn describe(reply: Reply) -> String {
    match reply {
        Reply::None => String::new(),
        Reply::Tcp { flags, words, acknowledges } => {
            const NAMES: [&str; 5] = ["FIN", "SYN", "RST", "PSH", "ACK"];
            let flags = NAMES.iter().enumerate().filter(|(bit, _)| flags & 1 << bit != 0).map(|(_, name)| *name);
            let mut text = format!("TCP {}", flags.collect::<Vec<_>>().join(" "));
            if words > 5 {
                text += ", MSS 1220";
            }
            if let Some(bytes) = acknowledges {
                write!(text, ", acknowledges {bytes}").expect("a string takes everything");
            }
            text
        }
        Reply::Icmp(kind, code) => format!("ICMP{} {kind}/{code}", if kind == 1 { "v6" } else { "" }),
    }
}
