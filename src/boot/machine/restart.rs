//! An uninvited death of tailscaled (boot.md E.4): restart in place with back-off, or leave with its status; and its
//! replacement by one that is started otherwise. Pure.

use std::time::Instant;

use super::{Action, Announcement, Boot, Death, Level, Phase};
use crate::daemon::restart::{Verdict, WINDOW};
use crate::settings::RestartDaemon;

impl Boot {
    pub(super) fn daemon_exited(&mut self, death: &Death, now: Instant, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Reissuing(_) => return self.reissue_daemon_exited(death, actions),
            _ if std::mem::take(&mut self.node.replacing) => {
                (self.node.bus_lost, self.node.state) = (None, None);
                return self.restart(now, actions);
            }
            Phase::Starting { .. } if self.node.deaths.is_empty() && !self.node.complete => {
                // It never listened: a bad flag or unusable state, which no restart mends.
                let text =
                    format!("failed to bring up tailscale: tailscaled exited before its socket was ready: {}", death.0);
                return self.fail(text, actions);
            }
            _ => {}
        }
        self.node.bus_lost = None;
        self.node.state = None;
        if self.policy.restart == RestartDaemon::Never {
            return self.fail(format!("tailscaled exited: {}", death.0), actions);
        }
        let delay = match self.node.deaths.record(now) {
            Verdict::RestartIn(delay) => delay,
            Verdict::GiveUp { deaths } => {
                let text = format!("tailscaled exited {deaths} times within {}s, last: {}", WINDOW.as_secs(), death.0);
                return self.fail(text, actions);
            }
        };
        let line = format!("tailscaled exited: {}; restarting it in {delay:?}", death.0);
        actions.push(Action::Log(Level::Warn, line.clone()));
        actions.push(Action::Announce(Announcement { reason: "TailscaledRestarted", message: line }));
        self.phase = Phase::Restarting { at: now + delay };
    }

    /// Takes tailscaled down, to be followed by one that is started otherwise; where the next one is on its way, it is
    /// that already.
    pub(super) fn replace_daemon(&mut self, actions: &mut Vec<Action>) {
        let is_up = !matches!(self.phase, Phase::Reissuing(_) | Phase::Restarting { .. } | Phase::Stopping);
        if is_up && !std::mem::replace(&mut self.node.replacing, true) {
            actions.push(Action::StopDaemon);
        }
    }

    pub(super) fn restart(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.phase = Phase::Starting { deadline: now + self.policy.boot_timeout };
        actions.push(Action::SpawnDaemon);
    }
}
