//! The one way out (api-proxy.md 9.9).
//!
//! Withdraw the Services and go on serving while peers fail over; let requests in flight finish and close what is left;
//! stop tailscaled; close health last. Each further signal ends the wait that is under way.

use std::time::Duration;

use tokio::time::timeout;

use super::shell::{LAST_WORDS, Shell};
use crate::serve::advertise::Ownership;
use crate::serve::withdraw::fail_over;
use crate::shutdown::Signals;

/// A little more than the proxy gives its requests, so that it can close the rest itself.
const PROXY_GRACE: Duration = Duration::from_secs(12);

/// For tailscaled to carry to the peers that their connections are closed; it drops what it has not sent yet, and on a
/// busy machine half a second was not enough once: a client that is not told waits for ever.
const FAREWELL: Duration = Duration::from_secs(1);

/// What tailscaled may take after SIGTERM.
const DAEMON_GRACE: Duration = Duration::from_secs(5);

/// What requests for health in flight may take.
const HTTP_GRACE: Duration = Duration::from_secs(10);

/// Shuts down in order. Never fails: what could not be done is logged.
pub(super) async fn shut_down(mut shell: Shell, signals: &mut Signals) {
    if shell.daemon.is_some() && shell.life.is_connected() {
        fail_over(&shell.api, Ownership::Whole, shell.context.settings.withdraw_wait, signals).await;
    }
    tokio::select! {
        unclean = shell.proxy.stop(PROXY_GRACE) => for task in unclean {
            tracing::debug!("{task}");
        },
        // Whoever asks again means it.
        signal = signals.next() => tracing::info!("{signal}: closing what is still open"),
    }
    shell.root.cancel();
    shell.errands.abort_all();
    stop_daemon(&mut shell, signals).await;
    for unclean in shell.http.stop(HTTP_GRACE).await {
        tracing::debug!("{unclean}");
    }
}

async fn stop_daemon(shell: &mut Shell, signals: &mut Signals) {
    let Some(mut daemon) = shell.daemon.take() else { return };
    tokio::select! {
        () = tokio::time::sleep(FAREWELL) => {}
        _ = signals.next() => {}
    }
    tracing::info!("Sending SIGTERM to tailscaled");
    let grace = async {
        tokio::select! {
            () = tokio::time::sleep(DAEMON_GRACE) => {}
            _ = signals.next() => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    };
    let ended = daemon.stop(grace).await;
    let _ = timeout(LAST_WORDS, shell.words.next_ended()).await;
    match ended {
        Ok(Some(exit)) => {
            tracing::debug!("tailscaled ended with {exit}");
            tracing::info!("tailscaled exited");
        }
        Ok(None) => tracing::warn!("tailscaled does not let itself be killed, leaving it to the kernel"),
        Err(error) => tracing::error!("error shutting tailscaled down: {error}"),
    }
}
