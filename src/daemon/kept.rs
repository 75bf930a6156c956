//! The one tailscaled that a loop keeps at a time, if there is one: waited for, told to stop, killed when it does not.

use std::time::Duration;

use tokio::time::Instant;

use super::exit::Exit;
use super::tailscaled::Tailscaled;
use crate::maybe::at;

/// How long it may take to exit when it is told to.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// A tailscaled, or none.
#[derive(Debug, Default)]
pub struct Kept {
    daemon: Option<Tailscaled>,
    kill_at: Option<Instant>,
}

impl Kept {
    /// Keeps one that was just started.
    pub fn keep(&mut self, daemon: Tailscaled) {
        *self = Self { daemon: Some(daemon), kill_at: None };
    }

    /// Whether there is one.
    pub fn is_some(&self) -> bool {
        self.daemon.is_some()
    }

    /// Leaves it to the caller.
    pub fn take(&mut self) -> Option<Tailscaled> {
        self.kill_at = None;
        self.daemon.take()
    }

    /// Tells it to stop; its group is killed when it has not by the limit, as long as somebody waits in
    /// [`exited`](Self::exited). False when there is none.
    pub fn stop(&mut self) -> bool {
        let Some(daemon) = &self.daemon else { return false };
        tracing::info!("Sending SIGTERM to tailscaled");
        if let Err(error) = daemon.terminate() {
            tracing::warn!("error shutting tailscaled down: {error}");
        }
        self.kill_at = Some(Instant::now() + STOP_LIMIT);
        true
    }

    /// Its end, after which there is none; pends while there is none. Cancel safe.
    pub async fn exited(&mut self) -> Exit {
        loop {
            let Some(daemon) = &mut self.daemon else { return std::future::pending().await };
            tokio::select! {
                biased;
                exit = daemon.exited() => {
                    *self = Self::default();
                    return exit;
                }
                () = at(self.kill_at) => {
                    self.kill_at = None;
                    if let Err(error) = daemon.kill_group() {
                        tracing::warn!("error killing tailscaled: {error}");
                    }
                }
            }
        }
    }
}
