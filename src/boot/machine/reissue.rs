//! Auth key reissue (boot.md 6): ask, wait, stop tailscaled, remove the identity, leave with 0. Pure.
//!
//! Nothing here has the boot deadline: the wait has a limit of its own. tailscaled is stopped before its identity is
//! removed, so that it cannot write it back (W13).

use std::time::Instant;

use super::{Action, Announcement, Boot, Death, Event, Level, Outcome, Phase};

/// How far the reissue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reissue {
    /// The marker is being set, then the new key awaited.
    Awaiting,
    /// The key is there; tailscaled is being stopped.
    Stopping,
    /// The identity is being removed.
    Clearing,
}

impl Boot {
    pub(super) fn reissue(&mut self, line: String, _now: Instant, actions: &mut Vec<Action>) {
        let message = "the auth key was refused; a new one has been requested".to_owned();
        actions.push(Action::Log(Level::Info, line));
        actions.push(Action::RequestReissue);
        if self.policy.is_tailpod() {
            actions.push(Action::Announce(Announcement { reason: "AuthKeyReissueRequested", message }));
        }
        self.node.disconnected = true;
        self.phase = Phase::Reissuing(Reissue::Awaiting);
    }

    pub(super) fn reissue_event(&mut self, event: Event, actions: &mut Vec<Action>) {
        let Phase::Reissuing(step) = self.phase else { return };
        match (step, event) {
            (Reissue::Awaiting, Event::NewKey(Ok(()))) => {
                self.phase = Phase::Reissuing(Reissue::Stopping);
                actions.push(Action::StopDaemon);
            }
            (Reissue::Awaiting, Event::NewKey(Err(text))) => {
                self.fail(format!("failed to get a reissued authkey: {text}"), actions);
            }
            (Reissue::Clearing, Event::IdentityCleared(outcome)) => {
                if let Err(text) = outcome {
                    if self.policy.is_tailpod() {
                        // The next start would find the old identity beside the new key (W13).
                        return self.fail(format!("the old identity could not be removed: {text}"), actions);
                    }
                    // Upstream's way: the next start removes the marker, and tries what stays with the new key.
                    actions.push(Action::Log(Level::Warn, format!("Warning: failed to clear reissue request: {text}")));
                }
                let line = "Successfully received new auth key, restarting to apply configuration".to_owned();
                actions.push(Action::Log(Level::Info, line));
                self.stop(Outcome::Reissued, actions);
            }
            _ => {}
        }
    }

    /// tailscaled ended during a reissue. Before the key is there that changes nothing: the daemon was disconnected
    /// from control and only the key is awaited.
    pub(super) fn reissue_daemon_exited(&mut self, death: &Death, actions: &mut Vec<Action>) {
        let Phase::Reissuing(step) = &mut self.phase else { return };
        match step {
            Reissue::Awaiting => {
                let line = format!("tailscaled exited while waiting for a new auth key: {}", death.0);
                actions.push(Action::Log(Level::Warn, line));
            }
            Reissue::Stopping => {
                *step = Reissue::Clearing;
                actions.push(Action::ClearIdentity);
            }
            Reissue::Clearing => {}
        }
    }
}
