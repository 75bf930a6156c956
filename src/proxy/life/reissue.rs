//! A new auth key under the proxy (api-proxy.md 9.6): leaves with 0 when the steps are done. Pure.

use super::{Action, Event, Level, Life, Outcome, Phase};
use crate::node::reissue::{Happened, LEAVING, Next, Reissue};

impl Life {
    pub(super) fn reissue(&mut self, line: &str, actions: &mut Vec<Action>) {
        actions.push(Action::Log(Level::Warn, line.to_owned()));
        actions.push(Action::RequestReissue);
        self.known.disconnected = true;
        self.phase = Phase::Reissuing(Reissue::Awaiting);
    }

    pub(super) fn reissue_event(&mut self, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::NewKey(outcome) => self.reissue_step(Happened::NewKey(outcome), actions),
            Event::IdentityCleared(outcome) => self.reissue_step(Happened::IdentityCleared(outcome), actions),
            _ => {}
        }
    }

    pub(super) fn reissue_daemon_exited(&mut self, how: &str, actions: &mut Vec<Action>) {
        self.reissue_step(Happened::DaemonExited(how), actions);
    }

    fn reissue_step(&mut self, happened: Happened<'_>, actions: &mut Vec<Action>) {
        let Phase::Reissuing(reissue) = &mut self.phase else { return };
        match reissue.step(happened) {
            Next::Nothing => {}
            Next::Warn(line) => actions.push(Action::Log(Level::Warn, line)),
            Next::StopDaemon => actions.push(Action::StopDaemon),
            Next::ClearIdentity => actions.push(Action::ClearIdentity),
            Next::Fail(text) => self.fail(text, actions),
            Next::Leave(outcome) => {
                if let Err(text) = outcome {
                    // Under the operator (with POD_UID) the next start removes the marker, else it stays for whoever reads
                    // it; an identity that stays is tried, and gets the new key when it does not work.
                    actions.push(Action::Log(Level::Warn, format!("failed to clear reissue request: {text}")));
                }
                actions.push(Action::Log(Level::Info, LEAVING.to_owned()));
                self.stop(Outcome::Reissued, actions);
            }
        }
    }
}
