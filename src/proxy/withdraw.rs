//! The first step of the way out: withdraw the Services and go on serving while peers fail over (api-proxy.md 9.9).

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::apply;
use super::serve_config::Ownership;
use crate::causes::chain;
use crate::localapi::LocalApi;
use crate::shutdown::Signals;

/// How long the withdrawal itself may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Withdraws what is ours; if there was any, waits until `wait` is over or a signal comes. Never fails: what could not
/// be done is logged.
pub(super) async fn fail_over(api: &LocalApi, ownership: Ownership<'_>, wait: Duration, signals: &mut Signals) {
    let until = Instant::now() + wait;
    let withdrawn = tokio::select! {
        biased;
        _ = signals.next() => return,
        withdrawn = timeout(LIMIT.min(wait), apply::withdraw(api, ownership)) => withdrawn,
    };
    match withdrawn {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) => return,
        Ok(Err(error)) => {
            tracing::warn!("Error ensuring services are not advertised: {}", chain(&error));
            return;
        }
        Err(_) => {
            tracing::warn!("Error ensuring services are not advertised: no answer in time");
            return;
        }
    }
    tracing::info!("serving on for {wait:?} while peers fail over");
    tokio::select! {
        () = tokio::time::sleep_until(until) => {}
        signal = signals.next() => tracing::info!("second signal ({signal}): not waiting any longer"),
    }
}
