//! A node that is up: its device keys published, what its config says brought about, and kept Running. Pure.

use std::time::{Duration, Instant};

use super::{Action, Level, Life, LoggingIn, Phase, login};
use crate::boot::login_failure::is_transport_trouble;
use crate::localapi::types::State;
use crate::node::{BusUpdate, LoginHealth};

/// How long a refusal must stand before it is believed: the node works on for now, and a new key means a new device.
const CONFIRM_WHEN_UP: Duration = Duration::from_secs(15);

/// How long a state other than Running is tolerated.
const EXCURSION_LIMIT: Duration = Duration::from_secs(30);

/// Between tries to bring about what a config says.
const APPLY_AGAIN: Duration = Duration::from_secs(5);

/// The data of the phase.
#[derive(Debug, Default)]
pub struct Up {
    /// Since when the daemon has not been Running.
    away_since: Option<Instant>,
    /// Since when a refused login stands, and its text.
    refused: Option<(Instant, String)>,
    /// When to try again to bring about the config.
    apply_at: Option<Instant>,
    /// The config was brought about since the node came up.
    applied: bool,
    /// The config is being brought about.
    applying: bool,
    /// It has changed meanwhile.
    apply_again: bool,
}

impl Up {
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let away = self.away_since.map(|since| since + EXCURSION_LIMIT);
        let refused = self.refused.as_ref().map(|(since, _)| *since + CONFIRM_WHEN_UP);
        away.into_iter().chain(refused).chain(self.apply_at).min()
    }
}

impl Life {
    /// Running with an address: what follows, each time.
    pub(super) fn come_up(&mut self, actions: &mut Vec<Action>) {
        self.phase = Phase::Up(Up::default());
        self.publish(actions);
        if !std::mem::replace(&mut self.known.http, true) {
            actions.push(Action::ServeHttp);
        }
        self.apply(actions);
    }

    fn publish(&mut self, actions: &mut Vec<Action>) {
        if let Some(device) = &self.known.device
            && self.policy.publishes
            && self.known.published.as_ref() != Some(device)
        {
            self.known.published = Some(device.clone());
            actions.push(Action::Publish(device.clone()));
        }
    }

    pub(super) fn apply(&mut self, actions: &mut Vec<Action>) {
        // Before the node is up there is nothing to change: coming up applies what the config says then.
        let Phase::Up(up) = &mut self.phase else { return };
        if up.applying {
            up.apply_again = true;
        } else {
            (up.applying, up.apply_at) = (true, None);
            actions.push(Action::Apply { anew: !up.applied });
        }
    }

    pub(super) fn config_applied(&mut self, outcome: Result<(), String>, now: Instant, actions: &mut Vec<Action>) {
        let Phase::Up(up) = &mut self.phase else { return };
        up.applying = false;
        let again = std::mem::take(&mut up.apply_again);
        match outcome {
            Ok(()) => {
                (self.known.applied, up.applied) = (true, true);
                if !std::mem::replace(&mut self.known.serving, true) {
                    actions.push(Action::ServeApi);
                }
            }
            Err(text) if !self.known.applied => return self.fail(text, actions),
            Err(text) => {
                up.apply_at = Some(now + APPLY_AGAIN);
                let line = format!("the config was not brought about, trying again in {APPLY_AGAIN:?}: {text}");
                actions.push(Action::Log(Level::Warn, line));
            }
        }
        if again {
            self.apply(actions);
        }
    }

    pub(super) fn up_bus(&mut self, update: &BusUpdate, now: Instant, actions: &mut Vec<Action>) {
        let Phase::Up(up) = &mut self.phase else { return };
        match update.state {
            Some(State::Running) if up.away_since.take().is_some() => {
                actions.push(Action::Log(Level::Info, "tailscaled is Running again".to_owned()));
            }
            Some(State::Running) => {}
            Some(State::NeedsLogin) => return self.needs_login_again(now, actions),
            Some(state) if up.away_since.is_none() => {
                up.away_since = Some(now);
                let limit = EXCURSION_LIMIT.as_secs();
                let line = format!("tailscaled left Running (now {state}), waiting up to {limit}s for its return");
                actions.push(Action::Log(Level::Warn, line));
            }
            _ => {}
        }
        match &update.login_health {
            Some(LoginHealth::Fine) => up.refused = None,
            Some(LoginHealth::Failing(warning)) => {
                let text = login::text_of(warning);
                if is_transport_trouble(&text) {
                    up.refused = None;
                } else {
                    let since = up.refused.as_ref().map_or(now, |(since, _)| *since);
                    up.refused = Some((since, text));
                }
            }
            None => {}
        }
        self.publish(actions);
    }

    fn needs_login_again(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.policy.state_secret {
            let line = "Auth key missing or invalid (NeedsLogin state), disconnecting from control and requesting new \
                        key from operator";
            return self.reissue(line, actions);
        }
        actions.push(Action::Log(Level::Warn, "tailscaled needs a login again".to_owned()));
        self.phase = Phase::LoggingIn(LoggingIn::renewing(now));
        actions.push(Action::Login { renew: true });
    }

    pub(super) fn up_tick(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let Phase::Up(up) = &mut self.phase else { return };
        if up.away_since.is_some_and(|since| now >= since + EXCURSION_LIMIT) {
            let state = self.known.state.unwrap_or(State::Unknown);
            return self.fail(format!("tailscaled left Running (now {state}) and did not return"), actions);
        }
        if let Some((since, text)) = &up.refused
            && now >= *since + CONFIRM_WHEN_UP
        {
            let line = format!("Auth key failed to authenticate ({text})");
            up.refused = None;
            if self.policy.state_secret {
                return self.reissue(
                    &format!("{line}, disconnecting from control and requesting new key from operator"),
                    actions,
                );
            }
            actions.push(Action::Log(Level::Warn, line));
            return;
        }
        if up.apply_at.is_some_and(|at| now >= at) {
            self.apply(actions);
        }
    }
}
