use clap::CommandFactory as _;

use super::*;

#[test]
fn the_words_fit_together() {
    Cli::command().debug_assert();
}

#[test]
fn a_manual_page_and_completions_name_every_command() {
    let page = String::from_utf8(man(&[]).unwrap()).unwrap();
    for command in [
        "status",
        "clients",
        "allow",
        "revoke",
        "block",
        "unblock",
        "blocks",
        "drops",
        "zones",
        "garden",
        "explain",
        "monitor",
        "capture",
        "completions",
        "man",
    ] {
        assert!(page.contains(command), "{command}");
    }
    let page = String::from_utf8(man(&["allow".into()]).unwrap()).unwrap();
    assert!(page.contains("MAC address") && page.contains(".TH portalctl"), "{page}");
}

#[test]
fn what_is_printed_fits_80_columns() {
    use portal_common::Reason;

    use crate::control::api::{Drops, ReasonCount};

    let counters: Vec<(Reason, u64)> = Reason::ALL.iter().map(|r| (*r, 18_446_744_073_709)).collect();
    let text =
        output::drops(&Drops { reasons: counters.into_iter().map(ReasonCount::new).collect(), zones: Vec::new() });
    let width = text.lines().map(|l| l.chars().count()).max().unwrap();
    assert!(width <= 80, "{width}:\n{text}");
    for reason in Reason::ALL {
        assert!(text.lines().any(|l| l.starts_with(reason.name())), "{}\n{text}", reason.name());
    }
}
