//! From tailscaled's socket to Running with an address, within 30 s of its having the settings. Pure.
//!
//! A refused login cuts the wait short, once it has stood for a moment. What only says that control cannot be reached
//! never counts as a refusal: asking for a new key deletes the old device. When nothing was said at all, a key is to
//! blame only if one was handed over and tailscaled still needs a login (api-proxy.md 9.4.7).

use std::time::Instant;

use super::{Action, CONFIRM, LOGIN_LIMIT, Level, Life, NotSubmitted, Phase, START_LIMIT, SUBMIT_AGAIN};
use crate::boot::login_failure::is_transport_trouble;
use crate::localapi::types::{State, Warning};
use crate::node::{BusUpdate, LoginHealth};
use crate::secret::redact_keys;

/// The data of the phase.
#[derive(Debug)]
pub struct LoggingIn {
    deadline: Instant,
    /// Since when a refusal stands, and its text.
    refused: Option<(Instant, String)>,
    /// What made a try fail that was no refusal.
    trouble: Option<String>,
    /// What was handed to the daemon.
    submitted: Submitted,
    /// Whether the login that is being handed over is to replace an identity.
    renew: bool,
    /// When to try again to hand it over, and why that did not work.
    again_at: Option<Instant>,
    silent: Option<String>,
}

/// What the daemon has been given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Submitted {
    /// It is being given something.
    UnderWay,
    /// The settings alone: it has an identity.
    Settings,
    /// The auth key, or the request for a login, too. Never twice: a key may be good for one use.
    Key,
}

impl LoggingIn {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            deadline: now + START_LIMIT,
            refused: None,
            trouble: None,
            submitted: Submitted::UnderWay,
            renew: false,
            again_at: None,
            silent: None,
        }
    }

    /// For an identity that does not work any more.
    pub(super) fn renewing(now: Instant) -> Self {
        Self { renew: true, ..Self::new(now) }
    }

    pub(super) fn next_deadline(&self) -> Instant {
        let refused = self.refused.as_ref().map(|(since, _)| *since + CONFIRM);
        refused.into_iter().chain(self.again_at).fold(self.deadline, Instant::min)
    }
}

/// Control's words, without any key in them.
pub(super) fn text_of(warning: &Warning) -> String {
    let text = warning.args.get("error").filter(|text| !text.is_empty()).unwrap_or(&warning.text);
    redact_keys(text)
}

impl Life {
    pub(super) fn login_bus(&mut self, update: &BusUpdate, now: Instant, actions: &mut Vec<Action>) {
        let has_address = self.known.device.as_ref().is_some_and(|device| !device.addresses.is_empty());
        if self.known.state == Some(State::Running) && has_address {
            return self.come_up(actions);
        }
        let Phase::LoggingIn(login) = &mut self.phase else { return };
        match &update.login_health {
            Some(LoginHealth::Fine) => login.refused = None,
            Some(LoginHealth::Failing(warning)) => {
                let text = text_of(warning);
                if is_transport_trouble(&text) {
                    login.refused = None;
                    if login.trouble.as_ref() != Some(&text) {
                        actions.push(Action::Log(Level::Warn, format!("the login has not worked yet: {text}")));
                        login.trouble = Some(text);
                    }
                } else {
                    let since = login.refused.as_ref().map_or(now, |(since, _)| *since);
                    login.refused = Some((since, text));
                }
            }
            None => {}
        }
        if update.state == Some(State::NeedsMachineAuth) {
            let line = "machine authorization required, please visit the admin panel".to_owned();
            actions.push(Action::Log(Level::Warn, line));
        }
        self.renew_login(actions);
    }

    pub(super) fn login_submitted(&mut self, keyed: bool, now: Instant, actions: &mut Vec<Action>) {
        if let Phase::LoggingIn(login) = &mut self.phase {
            login.submitted = if keyed { Submitted::Key } else { Submitted::Settings };
            login.deadline = now + LOGIN_LIMIT;
            self.renew_login(actions);
        }
    }

    pub(super) fn login_not_submitted(&mut self, why: NotSubmitted, now: Instant, actions: &mut Vec<Action>) {
        let Phase::LoggingIn(login) = &mut self.phase else { return };
        match why {
            NotSubmitted::Key(text) => self.login_failed(&text, actions),
            NotSubmitted::Refused(text) => self.fail(format!("failed to start the node: {text}"), actions),
            NotSubmitted::Silent(text) => {
                login.again_at = Some(now + SUBMIT_AGAIN);
                if login.silent.as_ref() != Some(&text) {
                    let line = format!("tailscaled has not taken the settings yet: {text}");
                    actions.push(Action::Log(Level::Warn, line));
                    login.silent = Some(text);
                }
            }
        }
    }

    /// An identity that control does not want any more shows as this state and nothing else.
    fn renew_login(&mut self, actions: &mut Vec<Action>) {
        if let Phase::LoggingIn(login) = &mut self.phase
            && self.known.state == Some(State::NeedsLogin)
            && login.submitted == Submitted::Settings
        {
            (login.submitted, login.renew) = (Submitted::UnderWay, true);
            actions.push(Action::Login { renew: true });
        }
    }

    pub(super) fn login_tick(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let Phase::LoggingIn(login) = &mut self.phase else { return };
        if let Some((since, text)) = &login.refused
            && now >= *since + CONFIRM
        {
            let text = text.clone();
            return self.login_failed(&text, actions);
        }
        if now < login.deadline {
            if login.again_at.take_if(|at| now >= *at).is_some() {
                actions.push(Action::Login { renew: login.renew });
            }
            return;
        }
        if login.submitted == Submitted::UnderWay {
            // It has not seen the key, so another one is no help.
            let text = login.silent.take().unwrap_or_else(|| "tailscaled did not answer".to_owned());
            return self.fail(format!("failed to start the node: {text}"), actions);
        }
        let state = self.known.state.map_or("unknown".to_owned(), |state| state.to_string());
        let limit = LOGIN_LIMIT.as_secs();
        if let Some((_, text)) = &login.refused {
            let text = text.clone();
            return self.login_failed(&text, actions);
        }
        let text = format!("the node was not Running with an address within {limit}s (tailscaled's state is {state})");
        let text = login.trouble.clone().unwrap_or(text);
        if login.submitted == Submitted::Key && self.known.state == Some(State::NeedsLogin) {
            return self.login_failed(&text, actions);
        }
        // An identity that waits for a control server which says nothing, or a login that has worked.
        self.fail(format!("failed to start the node: {text}; no login was refused, so no key is to blame"), actions);
    }

    /// No login: a new key may help when it is one that failed and somebody can be asked for another.
    pub(super) fn login_failed(&mut self, text: &str, actions: &mut Vec<Action>) {
        if !matches!(self.phase, Phase::LoggingIn(_)) {
            return;
        }
        let other_key_helps = !is_transport_trouble(text) && self.known.state != Some(State::NeedsMachineAuth);
        if self.policy.state_secret && other_key_helps {
            let line = format!(
                "Auth key failed to authenticate ({text}), disconnecting from control and requesting new key from \
                 operator"
            );
            return self.reissue(&line, actions);
        }
        self.fail(format!("failed to start the node: {text}"), actions);
    }
}
