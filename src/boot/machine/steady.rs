//! The steady state (P9, P10): publish the device, complete the startup, notice when Running is lost. Pure.

use std::time::Instant;

use super::super::login_failure::Class;
use super::{Action, Authenticating, Boot, BusUpdate, Device, EXCURSION_LIMIT, Level, Mode, Outcome, Phase, Store};
use crate::localapi::types::State;

/// The data of the phase.
#[derive(Debug, Default)]
pub struct Steady {
    /// Since when the daemon has not been Running (tailpod tolerates that for a while, W11).
    away_since: Option<Instant>,
}

impl Steady {
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.away_since.map(|since| since + EXCURSION_LIMIT)
    }
}

impl Boot {
    pub(super) fn steady_bus(&mut self, update: &BusUpdate, now: Instant, actions: &mut Vec<Action>) {
        match update.state {
            Some(State::Running) => self.back(actions),
            // A newer daemon's (localapi.md 5): not known to be bad.
            Some(State::Unknown) => {}
            Some(state) => self.left_running(state, now, actions),
            None => {}
        }
        if update.netmap && matches!(self.phase, Phase::Steady(_)) {
            self.pass(now, actions);
        }
    }

    /// One pass of boot.md 5.4, in its order.
    pub(super) fn pass(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let Some(device) = self.node.device.clone() else { return };
        if self.forwards() {
            return self.forwarding_pass(device, now, actions);
        }
        self.publish(device, actions);
        self.serve(actions);
        self.settle(actions);
    }

    pub(super) fn serve(&mut self, actions: &mut Vec<Action>) {
        if self.policy.serve && !std::mem::replace(&mut self.node.serving, true) {
            actions.push(Action::Serve);
        }
    }

    /// Writes what others find the node by.
    pub(super) fn publish(&mut self, device: Device, actions: &mut Vec<Action>) {
        let writable = self.policy.store == Store::Writable;
        if self.node.published.as_ref() != Some(&device) {
            self.node.published = Some(device.clone());
            if writable {
                actions.push(Action::Publish(device));
            }
        }
    }

    /// With what others find the node by, or with its being written, the startup is complete.
    pub(super) fn settle(&mut self, actions: &mut Vec<Action>) {
        if self.policy.store == Store::Writable {
            // The answer may have come while Running was lost.
            if self.node.settled {
                self.complete(actions);
            }
        } else {
            self.complete(actions);
        }
    }

    /// The first write of the device keys was answered; a write that must be repeated does not hold up a node that
    /// nobody is routed to yet.
    pub(super) fn publish_settled(&mut self, actions: &mut Vec<Action>) {
        self.node.settled = true;
        if matches!(self.phase, Phase::Steady(_)) {
            self.complete(actions);
        }
    }

    fn complete(&mut self, actions: &mut Vec<Action>) {
        if !self.node.complete {
            self.node.complete = true;
            actions.push(Action::Log(Level::Info, "Startup complete, waiting for shutdown signal".to_owned()));
            if self.policy.group {
                actions.push(Action::ServeGroup);
            }
        }
    }

    fn back(&mut self, actions: &mut Vec<Action>) {
        if let Phase::Steady(steady) = &mut self.phase
            && steady.away_since.take().is_some()
        {
            actions.push(Action::Log(Level::Info, "tailscaled is Running again".to_owned()));
        }
    }

    pub(super) fn left_running(&mut self, state: State, now: Instant, actions: &mut Vec<Action>) {
        let text = format!("tailscaled left running state (now in state \"{state}\"), exiting");
        if !self.policy.is_tailpod() {
            return self.stop(Outcome::Failed(text), actions);
        }
        if state == State::NeedsLogin {
            let line = "tailscaled needs a login again".to_owned();
            actions.push(Action::Log(Level::Warn, line));
            let can_login = !self.policy.login_sources.is_empty() || self.policy.mode == Mode::OneStep;
            if can_login {
                // A fresh deadline: this login belongs to its own phase, not to the first boot.
                let mut auth = Authenticating::new(now + self.policy.boot_timeout, &self.policy);
                auth.begin(&self.policy, now, actions);
                self.phase = Phase::Authenticating(auth);
                let again = BusUpdate { state: Some(state), ..BusUpdate::default() };
                return self.auth_bus(&again, now, actions);
            }
        }
        let Phase::Steady(steady) = &mut self.phase else { return };
        if steady.away_since.is_none() {
            steady.away_since = Some(now);
            let limit = EXCURSION_LIMIT.as_secs();
            let line = format!(
                "tailscaled left running state (now in state \"{state}\"), waiting up to {limit}s for its return"
            );
            actions.push(Action::Log(Level::Warn, line));
        }
    }

    pub(super) fn steady_tick(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let Phase::Steady(steady) = &self.phase else { return };
        if steady.away_since.is_none_or(|since| now < since + EXCURSION_LIMIT) {
            return;
        }
        let state = self.node.state.unwrap_or(State::Unknown);
        let expired = self.node.device.as_ref().is_some_and(|device| device.key_expired);
        match state {
            State::NeedsLogin if expired => self.login_failed(Class::NodeKeyExpired, "", actions),
            State::NeedsLogin => self.login_failed(Class::LoginNeeded, "", actions),
            State::NeedsMachineAuth => self.login_failed(Class::ApprovalPending, "", actions),
            state => {
                let text = format!("tailscaled left running state (now in state \"{state}\"), exiting");
                self.stop(Outcome::Failed(text), actions);
            }
        }
    }
}
