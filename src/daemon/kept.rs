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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::exit::Cause;
    use crate::daemon::program::{Environment, Program};
    use crate::daemon::reaper::Children;

    /// On a paused clock, which goes on once everybody waits.
    #[tokio::test(start_paused = true)]
    async fn one_that_is_deaf_is_killed_at_the_limit_and_then_there_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let ready = dir.path().join("ready");
        let path = [("PATH", "/usr/bin:/bin"), ("READY", ready.to_str().unwrap())];
        let environment: Environment = path.map(|(name, value)| (name.into(), value.into())).into_iter().collect();
        let deaf = Program::new("/bin/sh", environment).args(["-c", "trap '' TERM; echo >$READY; exec sleep 60"]);
        let mut kept = Kept::default();
        assert!(!kept.stop(), "there is none");
        kept.keep(Tailscaled::spawn(&Children::new(), &deaf).unwrap());
        while !ready.exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(kept.stop() && kept.is_some());
        let told = Instant::now();
        // Whoever stops waiting and begins again changes nothing.
        assert!(tokio::time::timeout(STOP_LIMIT / 2, kept.exited()).await.is_err());
        assert_eq!(kept.exited().await.cause, Cause::Signal(9));
        assert_eq!(told.elapsed(), STOP_LIMIT);
        assert!(!kept.is_some());
    }
}
