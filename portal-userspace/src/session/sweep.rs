//! Tidying up, for as long as the daemon runs.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use super::SessionStore;
use crate::net::serve::stopped;

/// How often sessions that are over are removed. They let nothing through before that either: the gate looks itself.
const SWEEP_EVERY: Duration = Duration::from_mins(1);
/// How many sweeps there are to a search for addresses that nobody is bound to any more.
const SWEEPS_TO_ADDRESSES: u32 = 10;

/// Removes sessions that are over once a minute until the daemon stops.
pub async fn sweep_regularly(sessions: Arc<SessionStore>, stop: watch::Receiver<bool>) {
    let mut ticks = interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stop = std::pin::pin!(stopped(stop));
    let mut sweeps = 0u32;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = &mut stop => return,
        }
        let store = Arc::clone(&sessions);
        let addresses = sweeps.is_multiple_of(SWEEPS_TO_ADDRESSES);
        sweeps = sweeps.wrapping_add(1);
        let swept = tokio::task::spawn_blocking(move || {
            let removed = store.sweep()?;
            let released = if addresses { store.release_stale_addresses()? } else { 0 };
            Ok::<_, super::SessionError>((removed, released))
        });
        match swept.await {
            Ok(Ok((0, 0))) => {}
            Ok(Ok((removed, released))) => {
                tracing::debug!(removed, released, "sessions that are over, and addresses of nobody, removed");
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot remove sessions that are over; they let nothing through, but take places");
            }
            Err(error) => tracing::error!(%error, "removing sessions that are over panicked"),
        }
    }
}
