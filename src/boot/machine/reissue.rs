//! Auth key reissue under boot (boot.md 6): leaves with 0 when the steps are done. Pure.
//!
//! Nothing here has the boot deadline: the wait has a limit of its own.

use std::time::Instant;

use super::{Action, Announcement, Boot, Death, Event, Level, Outcome, Phase};
use crate::node::reissue::{Happened, LEAVING, Next, Reissue};

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
        match event {
            Event::NewKey(outcome) => self.reissue_step(Happened::NewKey(outcome), actions),
            Event::IdentityCleared(outcome) => self.reissue_step(Happened::IdentityCleared(outcome), actions),
            _ => {}
        }
    }

    pub(super) fn reissue_daemon_exited(&mut self, death: &Death, actions: &mut Vec<Action>) {
        self.reissue_step(Happened::DaemonExited(&death.0), actions);
    }

    fn reissue_step(&mut self, happened: Happened<'_>, actions: &mut Vec<Action>) {
        let Phase::Reissuing(reissue) = &mut self.phase else { return };
        match reissue.step(happened) {
            Next::Nothing => {}
            Next::Warn(line) => actions.push(Action::Log(Level::Warn, line)),
            Next::StopDaemon => actions.push(Action::StopDaemon),
            Next::ClearIdentity => actions.push(Action::ClearIdentity),
            Next::Fail(text) => self.fail(text, actions),
            // The next start would find the old identity beside the new key (W13).
            Next::Leave(Err(text)) if self.policy.is_tailpod() => {
                self.fail(format!("the old identity could not be removed: {text}"), actions);
            }
            Next::Leave(outcome) => {
                if let Err(text) = outcome {
                    // Upstream's way: the next start removes the marker, and tries what stays with the new key.
                    actions.push(Action::Log(Level::Warn, format!("Warning: failed to clear reissue request: {text}")));
                }
                actions.push(Action::Log(Level::Info, LEAVING.to_owned()));
                self.stop(Outcome::Reissued, actions);
            }
        }
    }
}
