//! What is done once after a login (P8): settings, `tailscale set`, the Secret's key. Then the steady
//! state. Pure.

use std::collections::VecDeque;
use std::time::Instant;

use super::auth::Prefs;
use super::{Action, Boot, Event, Finish, Level, Mode, Outcome, Phase, Steady, Store};
use crate::localapi::types::State;

impl Boot {
    /// Running: P8 begins.
    pub(super) fn authenticated(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let mut steps = VecDeque::new();
        if !self.node.finished {
            if self.policy.mode == Mode::AuthOnce && !self.policy.is_tailpod() {
                steps.push_back(Finish::Set);
            }
            if self.policy.clear_serve_config {
                steps.push_back(Finish::ClearServeConfig);
            }
            let once = self.policy.mode == Mode::AuthOnce || self.policy.delete_authkey;
            if once && self.policy.store == Store::Writable {
                steps.push_back(Finish::DeleteAuthKey);
            }
            if self.policy.firewall {
                steps.push_back(Finish::OpenFirewall);
            }
        }
        if self.policy.is_tailpod()
            && self.policy.mode != Mode::OneStep
            && let Phase::Authenticating(auth) = &mut self.phase
        {
            // A node that was Running before its state was ever looked at still gets its settings.
            auth.apply_prefs(actions);
            if auth.prefs == Prefs::UnderWay {
                steps.push_front(Finish::Prefs);
            }
        }
        self.next_finish(steps, now, actions);
    }

    fn next_finish(&mut self, steps: VecDeque<Finish>, now: Instant, actions: &mut Vec<Action>) {
        match steps.front() {
            Some(Finish::Prefs) => self.phase = Phase::Finishing(steps),
            Some(Finish::Set) => {
                actions.push(Action::Log(Level::Info, "Running 'tailscale set'".to_owned()));
                actions.push(Action::RunSet);
                self.phase = Phase::Finishing(steps);
            }
            Some(Finish::ClearServeConfig) => {
                actions.push(Action::Log(Level::Info, "serve proxy: unsetting previous config".to_owned()));
                actions.push(Action::ClearServeConfig);
                self.phase = Phase::Finishing(steps);
            }
            Some(Finish::DeleteAuthKey) => {
                actions.push(Action::Log(Level::Info, "Deleting authkey from Kubernetes Secret".to_owned()));
                actions.push(Action::DeleteAuthKey);
                self.phase = Phase::Finishing(steps);
            }
            Some(Finish::OpenFirewall) => {
                actions.push(Action::OpenFirewall);
                self.phase = Phase::Finishing(steps);
            }
            None => {
                self.node.finished = true;
                if self.policy.mode == Mode::OneStep && !self.node.config_watched {
                    self.node.config_watched = true;
                    actions.push(Action::WatchConfig);
                }
                self.phase = Phase::Steady(Steady::default());
                self.pass(now, actions);
                // Running may have been lost while the steps above were done.
                if let Some(state) = self.node.state.filter(|state| *state != State::Running) {
                    self.left_running(state, now, actions);
                }
            }
        }
    }

    pub(super) fn finish_event(&mut self, event: Event, now: Instant, actions: &mut Vec<Action>) {
        let Phase::Finishing(steps) = &mut self.phase else { return };
        match event {
            Event::SetFinished(Err(text)) => {
                self.stop(Outcome::Failed(format!("failed to auth tailscale: tailscale set failed: {text}")), actions);
            }
            Event::ServeConfigCleared(Err(text)) => {
                self.stop(Outcome::Failed(format!("failed to unset serve config: {text}")), actions);
            }
            Event::AuthKeyDeleted(Err(text)) => {
                self.stop(Outcome::Failed(format!("deleting authkey from Kubernetes Secret: {text}")), actions);
            }
            Event::FirewallOpened(Err(text)) => {
                self.stop(Outcome::Failed(format!("error creating new netfilter runner: {text}")), actions);
            }
            Event::FirewallOpened(Ok(()))
            | Event::PrefsApplied(Ok(()))
            | Event::SetFinished(Ok(()))
            | Event::ServeConfigCleared(Ok(()))
            | Event::AuthKeyDeleted(Ok(())) => {
                let mut steps = std::mem::take(steps);
                steps.pop_front();
                self.next_finish(steps, now, actions);
            }
            _ => {}
        }
    }
}
