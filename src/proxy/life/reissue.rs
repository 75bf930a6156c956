//! A new auth key (api-proxy.md 9.6): ask, wait, stop tailscaled, remove the identity, leave with 0. Pure.
//!
//! tailscaled is stopped before its identity is removed, so that it cannot write it back.

use super::{Action, Event, Level, Life, Outcome, Phase};

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reissue {
    /// The marker is being set, then the new key awaited.
    Awaiting,
    /// The key is there; tailscaled is being stopped.
    Stopping,
    /// The identity is being removed.
    Clearing,
}

impl Life {
    pub(super) fn reissue(&mut self, line: &str, actions: &mut Vec<Action>) {
        actions.push(Action::Log(Level::Warn, line.to_owned()));
        actions.push(Action::RequestReissue);
        self.known.disconnected = true;
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
                    // The next start removes the marker; an identity that stays is tried with the new key.
                    actions.push(Action::Log(Level::Warn, format!("failed to clear reissue request: {text}")));
                }
                let line = "Successfully received new auth key, restarting to apply configuration".to_owned();
                actions.push(Action::Log(Level::Info, line));
                self.stop(Outcome::Reissued, actions);
            }
            _ => {}
        }
    }

    pub(super) fn reissue_daemon_exited(&mut self, how: &str, actions: &mut Vec<Action>) {
        let Phase::Reissuing(step) = &mut self.phase else { return };
        match step {
            Reissue::Awaiting => {
                let line = format!("tailscaled exited while waiting for a new auth key: {how}");
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
