//! What portald does beside serving.

use std::{sync::PoisonError, time::Duration};

use portal_common::cookie;
use tokio::sync::watch;
use tracing::warn;

use crate::{
    clock,
    datapath::secrets::Secrets,
    responder::{SharedKeys, Snapshot, answers::Status},
};

/// How far from a slot's edges its successor's secret is renewed: the clock that picks the slot is coarse.
const CLEAR_OF_SLOT: Duration = Duration::from_secs(1);

/// Renews the secret of the next cookie slot once in every slot.
pub(super) async fn renew_secrets(mut secrets: Secrets, shared: SharedKeys, mut stopped: watch::Receiver<bool>) {
    let now = clock::now_ns();
    // A start at the very end of a slot: by the time the new secret is stored its slot may have begun, and cookies with it.
    let mut wait = if to_next_slot(now) < CLEAR_OF_SLOT { to_next_slot(now) + CLEAR_OF_SLOT } else { Duration::ZERO };
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stopped.wait_for(|stop| *stop) => return,
        }
        let now = clock::now_ns();
        if let Err(e) = secrets.renew(now) {
            // The old secret goes on working; only its age suffers.
            warn!(error = format!("{e:#}"), "cannot renew the cookies' secret");
        }
        *shared.write().unwrap_or_else(PoisonError::into_inner) = secrets.keys();
        wait = to_next_slot(now) + CLEAR_OF_SLOT;
    }
}

fn to_next_slot(now_ns: u64) -> Duration {
    Duration::from_nanos(cookie::SLOT_NS - now_ns % cookie::SLOT_NS)
}

pub(super) fn responder_counters(total: &Snapshot) -> Vec<(&'static str, u64)> {
    let answered = Status::ALL.iter().zip(total.answered).map(|(status, count)| (status.counter_name(), count));
    answered
        .chain([
            ("closed", total.closed),
            ("acknowledged", total.acknowledged),
            ("ignored", total.ignored),
            ("orphans", total.orphans),
            ("orphans_answered", total.orphans_answered),
            ("over_budget", total.over_budget),
            ("evictions", total.evictions),
            ("abandoned", total.abandoned),
            ("tx_retries", total.tx_retries),
        ])
        .collect()
}
