//! The manager of a node that is up: loops for the names that its serve config has, woken when something happened.
//!
//! Upstream's is fed by its watcher of the serve config (`cmd/containerboot/serve.go`); ours asks the daemon what it
//! serves, so that it does not matter who configured it.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::loops::{EnsureError, Loops};
use super::names::{Name, Warning};
use super::standing::{Phase, Standing};
use super::world::World;
use crate::causes::chain;
use crate::localapi::LocalApi;
use crate::serve::follow::Standing as Followed;

/// Between looks at the daemon's serve config, and at what is stored.
const LOOK: Duration = Duration::from_secs(60);

/// Where the names come from.
#[derive(Debug)]
pub enum Names {
    /// Somebody has named them.
    These(BTreeSet<Name>),
    /// The daemon's serve config, looked at again when this changes.
    Served(watch::Receiver<u64>),
    /// A serve config that is followed, whether or not the daemon gets it.
    Followed(watch::Receiver<Followed>),
}

/// Keeps the loops those that there should be, until `stop`. They go on: whoever stops decides how long.
pub async fn manage<W: World>(loops: &Loops<W>, api: &LocalApi, names: Names, stop: &CancellationToken) {
    let work = async { tokio::join!(follow(loops, api, names), watch_storage(loops)) };
    stop.run_until_cancelled(work).await;
}

async fn follow<W: World>(loops: &Loops<W>, api: &LocalApi, names: Names) {
    let mut warned: Vec<Warning> = Vec::new();
    let mut changes = match names {
        Names::These(names) => {
            loops.keep(names).await;
            return std::future::pending().await;
        }
        Names::Served(changes) => changes,
        Names::Followed(mut standing) => loop {
            let good = standing.borrow_and_update().good.clone();
            if let Some(good) = good {
                say(loops.ensure(&good.config).await, &mut warned);
            }
            if standing.changed().await.is_err() {
                return std::future::pending().await;
            }
        },
    };
    let mut etag = None;
    loop {
        changes.mark_unchanged();
        match api.serve_config_unlike(etag.as_deref()).await {
            Ok(Some(config)) => {
                etag = config.etag;
                say(loops.ensure_served(config.document).await, &mut warned);
            }
            Ok(None) => {}
            // The loops of before go on: a daemon that restarts serves the same afterwards.
            Err(error) => tracing::debug!(error = chain(&error), "the serve config is not known"),
        }
        let look = sleep(LOOK);
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { sleep(LOOK).await },
            () = look => {}
        }
    }
}

/// Warnings are said once.
fn say(ensured: Result<Vec<Warning>, EnsureError>, warned: &mut Vec<Warning>) {
    match ensured {
        Ok(warnings) if warnings == *warned => {}
        Ok(warnings) => {
            for warning in &warnings {
                tracing::warn!("serve config: {warning}");
            }
            *warned = warnings;
        }
        Err(error) => tracing::warn!("the serve config's certificates stay as they are: {error}"),
    }
}

/// A certificate that somebody took away is ordered again, without waiting for the day to end.
async fn watch_storage<W: World>(loops: &Loops<W>) {
    loop {
        sleep(LOOK).await;
        let has = |standing: &Standing| standing.certificate.is_some() && standing.record.failures == 0;
        let stored: BTreeSet<Name> = loops.which(has).await;
        if stored.is_empty() {
            continue;
        }
        for name in loops.world().emptied(&stored).await {
            tracing::info!(domain = %name, "the stored certificate is gone");
            loops.wake(&name).await;
        }
    }
}

/// Waits until every name has been asked for once, or it is known why not; for one that is not allowed at most
/// `patience`.
pub async fn settled<W: World>(loops: &Loops<W>, patience: Duration) -> Vec<(Name, Standing)> {
    let deadline = Instant::now() + patience;
    let mut settled = Vec::new();
    for (name, _) in loops.standings().await {
        let Some(mut standing) = loops.standing(&name).await else { continue };
        loop {
            let now = standing.borrow_and_update().clone();
            let waits = match now.phase {
                Phase::Starting | Phase::Asking => true,
                Phase::NotAllowed => now.attempts == 0 && Instant::now() < deadline,
                _ => false,
            };
            if !waits {
                settled.push((name, now));
                break;
            }
            tokio::select! {
                changed = standing.changed() => if changed.is_err() {
                    settled.push((name, now));
                    break;
                },
                () = sleep_until(deadline), if now.phase == Phase::NotAllowed => {}
            }
        }
    }
    settled
}
