//! The verdict table, row by row: in the kernel, as it is explained, and on the host.

use portal_common::{
    Reason,
    decide::{Action, Outbound},
};
use portal_lab::verdicts::{outbound_rows, rows, rows_without_responder, setting::Setting};

use crate::{
    bench::{Bench, LOOPBACK},
    reply::check_reply,
};

#[test]
fn the_verdict_table_holds_in_the_kernel_and_on_the_host() {
    let mut bench = Bench::new(&Setting::standard(LOOPBACK));
    let mut wrong = Vec::new();
    for row in rows() {
        let run = bench.run(|cookies| row.frame.to_bytes(cookies));
        let sentence = row.sentence;
        let (action, reason, frame) = &run.explained;
        if (*action, *reason) != (row.action, row.reason) {
            wrong.push(format!(
                "{sentence}: expected {:?} {:?}, explained {action:?} {reason:?}",
                row.action, row.reason
            ));
        }
        if let Err(complaint) = run.agreement() {
            wrong.push(format!("{sentence}: {complaint}"));
        }
        if run.done.is_shadow() && (run.done.action != Action::Pass || run.done.frame != run.cause) {
            wrong.push(format!("{sentence}: shadow mode changed something"));
        }
        if let Err(complaint) = check_reply(row.reply, &run.cause, *action, frame) {
            wrong.push(format!("{sentence}: {complaint}; {frame:02x?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    bench.demand_equal_states();
}

#[test]
fn the_rows_without_a_responder_hold() {
    let mut bench = Bench::without_responder(&Setting::standard(LOOPBACK));
    for row in rows_without_responder() {
        let run = bench.run(|cookies| row.frame.to_bytes(cookies));
        assert_eq!((run.done.action, run.done.reason), (row.action, row.reason), "{}", row.sentence);
        assert_eq!(run.agreement(), Ok(()), "{}", row.sentence);
    }
}

#[test]
fn the_rows_of_departing_frames_hold_in_the_kernel_and_on_the_host() {
    let mut bench = Bench::without_responder(&Setting::standard(LOOPBACK));
    let mut wrong = Vec::new();
    for row in outbound_rows() {
        if let Some(asked) = &row.asked {
            let run = bench.run(|cookies| asked.to_bytes(cookies));
            assert_eq!(run.done.action, Action::Pass, "{}: what was asked", row.sentence);
        }
        let frame = row.frame.to_bytes(&bench.cookies());
        let departed = bench.depart(&frame, row.relayed, row.forwarded);
        if departed.decided != row.decision {
            wrong.push(format!("{}: expected {:?}, decided {:?}", row.sentence, row.decision, departed.decided));
        }
        if let Err(complaint) = departed.agreement() {
            wrong.push(format!("{}: {complaint}", row.sentence));
        }
        let held = bench.maps.answers.next().is_some();
        if held != (departed.decided == Outbound::Hold) {
            wrong.push(format!("{}: what is held goes to the daemon, and nothing else", row.sentence));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    bench.demand_equal_states();
}

#[test]
fn every_reason_has_a_row() {
    // The kernel's refusal, which no frame brings about; what depends on what was asked before: see `known`; and what on how many were begun: see `connections`.
    let elsewhere = [Reason::AnswerFailed, Reason::HttpAnswered, Reason::BudgetConnections];
    let inbound = rows().into_iter().chain(rows_without_responder()).map(|row| row.reason);
    let outbound = outbound_rows().into_iter().filter_map(|row| match row.decision {
        Outbound::Drop(reason) | Outbound::Pass(reason) => Some(reason),
        Outbound::Hold => Some(Reason::AnswerHeld),
        Outbound::Metered => None,
    });
    let all: Vec<Reason> = inbound.chain(outbound).chain(elsewhere).collect();
    for reason in Reason::ALL {
        assert!(all.contains(reason), "{reason:?} has no row");
    }
}

#[test]
fn explaining_changes_nothing() {
    let mut bench = Bench::new(&Setting::standard(LOOPBACK));
    // Strangers and addresses that are known already, and others that are not.
    for row in rows().iter().step_by(7) {
        bench.run(|cookies| row.frame.to_bytes(cookies));
    }
    let before = bench.state();
    for row in rows() {
        let frame = row.frame.to_bytes(&bench.cookies());
        bench.explain(&frame);
        // From a station that nobody has seen yet.
        bench.explain(&[&frame[..6], &[2, 0, 0, 7, 7, 7], &frame[12..]].concat());
    }
    assert!(before == bench.state(), "something has changed");
    let row = &rows()[0];
    bench.run(|cookies| row.frame.to_bytes(cookies));
    assert!(before != bench.state(), "the gate changes something, or this test sees nothing");
}
