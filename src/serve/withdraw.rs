//! The first step of a node's way out: withdraw its Services and go on while peers fail over.
//!
//! Control takes up to 15 s to elect another primary, and peers a little longer to hear of it
//! (`kube/services/services.go`; api-proxy.md 9.9).

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::advertise::{self, Ownership};
use crate::causes::chain;
use crate::localapi::LocalApi;
use crate::shutdown::Signals;

/// How long the withdrawal itself may take, and how long it may take even if nothing is waited for afterwards.
const LIMITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// How it went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailOver {
    /// What was advertised until then, if anything of it was withdrawn.
    pub advertised: BTreeSet<String>,
    /// A signal ended the wait.
    pub interrupted: bool,
}

/// Withdraws what is ours; if there was any, waits until `wait` is over or a signal comes. Never fails: what could not
/// be done is logged.
pub async fn fail_over(api: &LocalApi, ownership: Ownership<'_>, wait: Duration, signals: &mut Signals) -> FailOver {
    let until = Instant::now() + wait;
    let limit = wait.clamp(LIMITS.0, LIMITS.1);
    let mut over = FailOver::default();
    let withdrawn = tokio::select! {
        biased;
        _ = signals.next() => return FailOver { interrupted: true, ..over },
        withdrawn = timeout(limit, advertise::withdraw(api, ownership)) => withdrawn,
    };
    match withdrawn {
        Ok(Ok(Some(advertised))) => over.advertised = advertised,
        Ok(Ok(None)) => return over,
        Ok(Err(error)) => {
            tracing::warn!("Error ensuring services are not advertised: {}", chain(&error));
            return over;
        }
        Err(_) => {
            tracing::warn!("Error ensuring services are not advertised: no answer in time");
            return over;
        }
    }
    tracing::info!("serving on for {wait:?} while peers fail over");
    tokio::select! {
        () = tokio::time::sleep_until(until) => {}
        signal = signals.next() => {
            tracing::info!("second signal ({signal}): not waiting any longer");
            over.interrupted = true;
        }
    }
    over
}
