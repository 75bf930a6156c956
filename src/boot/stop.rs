//! The one way out (P11), for every phase and reason.
//!
//! Stop accepting work, withdraw Services, wait for a consistent state Secret, SIGTERM to tailscaled, wait, SIGKILL to
//! its group, close HTTP. A second signal skips the waiting. One budget bounds it all: Kubernetes allows 30 s by default.

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::prepare::StateSecret;
use super::shell::Shell;
use crate::backoff;
use crate::k8s::state;
use crate::shutdown::Signals;

/// Everything before the SIGTERM, as upstream.
const BUDGET: Duration = Duration::from_secs(25);

/// What tailscaled itself may take after the SIGTERM; with [`BUDGET`] it stays below Kubernetes' 30 s.
const DAEMON_GRACE: Duration = Duration::from_secs(4);

/// For the tasks to end, so that none of them advertises what is being withdrawn.
const TASKS_GRACE: Duration = Duration::from_millis(500);

/// For claims of orders that were broken off to be taken back.
const CLAIMS_GRACE: Duration = Duration::from_millis(500);

/// What tailscaled may take after a second signal.
const IMPATIENT_GRACE: Duration = Duration::from_secs(1);

/// What requests in flight may take.
const HTTP_GRACE: Duration = Duration::from_secs(3);

/// How long the last Event may hold up the exit.
const ANNOUNCE_GRACE: Duration = Duration::from_secs(3);

/// Shuts down in order. Never fails: what could not be done is logged.
///
/// Packet rules go only with a stop that was asked for: what ends otherwise is started again, and traffic goes on
/// meanwhile.
pub(super) async fn shut_down(mut shell: Shell, signals: &mut Signals, requested: bool) {
    let started = Instant::now();
    // An order that is under way goes on, by itself, until peers have failed over.
    shell.certs.close();
    shell.root.cancel();
    shell.errands.abort_all();
    for unclean in shell.tasks.stop(TASKS_GRACE).await {
        tracing::debug!("{unclean}");
    }
    let mut impatient = false;
    if shell.daemon.is_some() && shell.boot.has_listened() {
        impatient = shell.serving.withdraw(&shell.context, signals).await;
        if !impatient {
            tokio::select! {
                () = shell.certs.finish() => {}
                _ = signals.next() => impatient = true,
            }
        }
    }
    break_off(&shell).await;
    if shell.daemon.is_some() {
        let writes = shell.boot.may_write_state();
        if let Some(secret) = shell.context.secret().filter(|secret| secret.writable && writes && !impatient) {
            tracing::info!("Checking for consistent state");
            tokio::select! {
                outcome = consistent(secret, started + BUDGET) => {
                    if let Err(text) = outcome {
                        tracing::warn!("Error waiting for consistent state on shutdown: {text}");
                    }
                }
                _ = signals.next() => impatient = true,
            }
        }
        stop_daemon(&mut shell, signals, started, impatient).await;
    }
    if requested {
        shell.packets.remove(&shell.context.settings).await;
    }
    // Nobody else orders while this replica's tailscaled still could.
    shell.certs.give_back().await;
    let announced = async { while shell.announcements.next_ended().await.is_some() {} };
    if timeout(ANNOUNCE_GRACE, announced).await.is_err() {
        tracing::debug!("an Event was not written in time");
    }
    for unclean in shell.http.stop(HTTP_GRACE).await {
        tracing::debug!("{unclean}");
    }
}

/// Ends the orders that are still under way, and takes their claims back.
async fn break_off(shell: &Shell) {
    if timeout(CLAIMS_GRACE, shell.certs.stop()).await.is_err() {
        tracing::debug!("what was claimed for certificates is left to expire");
    }
}

async fn stop_daemon(shell: &mut Shell, signals: &mut Signals, started: Instant, impatient: bool) {
    let Some(mut daemon) = shell.daemon.take() else { return };
    tracing::info!("Sending SIGTERM to tailscaled");
    let grace = async {
        if !impatient {
            // A consistent state found early leaves its time to tailscaled.
            tokio::select! {
                () = tokio::time::sleep_until(started + BUDGET + DAEMON_GRACE) => return,
                _ = signals.next() => tracing::info!("second signal: tailscaled has {IMPATIENT_GRACE:?} left"),
            }
        }
        tokio::time::sleep(IMPATIENT_GRACE).await;
    };
    match daemon.stop(grace).await {
        Ok(Some(exit)) if exit.success() => tracing::info!("tailscaled exited"),
        Ok(Some(exit)) => {
            tracing::debug!("tailscaled ended with {exit}");
            tracing::info!("tailscaled exited");
        }
        Ok(None) => tracing::warn!("tailscaled does not let itself be killed, leaving it to the kernel"),
        Err(error) => tracing::error!("error shutting tailscaled down: {error}"),
    }
}

/// Polls the Secret until tailscaled's state in it is all there or all absent (boot.md 9.3).
async fn consistent(secret: &StateSecret, deadline: Instant) -> Result<(), String> {
    let mut told = false;
    for attempt in 1_u32.. {
        match timeout_at(deadline, secret.cluster.secret(&secret.name)).await {
            // Time is up, or there is no Secret: nothing to wait for.
            Err(_) | Ok(Ok(None)) => return Ok(()),
            Ok(Ok(Some(stored))) if state::is_consistent(&stored) => return Ok(()),
            Ok(Ok(Some(_))) => {}
            Ok(Err(error)) => return Err(error.to_string()),
        }
        if !told {
            told = true;
            tracing::info!("Waiting for tailscaled to finish writing state to Secret \"{}\"", secret.name);
        }
        let pause =
            Duration::from_millis(10).saturating_mul(attempt.saturating_mul(attempt)).min(Duration::from_secs(2));
        let pause = pause.mul_f64(0.5 + backoff::jitter());
        if Instant::now() + pause >= deadline {
            tokio::time::sleep_until(deadline).await;
            return Err("context deadline exceeded".to_owned());
        }
        tokio::time::sleep(pause).await;
    }
    Ok(())
}
