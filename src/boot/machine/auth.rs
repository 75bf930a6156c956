//! From a listening daemon to Running (P7). Pure.
//!
//! As `containerboot` the table of boot.md 1.3: `tailscale up` at most once, then wait. As `tailpod boot` the
//! identity comes first: a node whose state holds a login is brought up without a key, and only `NeedsLogin` makes
//! us try the key sources in their order, each failure classified (localapi.md 9.1).

use std::collections::VecDeque;
use std::time::Instant;

use super::super::login_failure::{self, Class};
use super::verdict::STALE_WARNING;
use super::{Action, Boot, BusUpdate, Event, Level, LoginError, LoginHealth, LoginSource};
use super::{Mode, Persona, Phase, Policy};
use crate::localapi::types::{State, Warning};

/// The data of the phase.
#[derive(Debug)]
pub struct Authenticating {
    /// For everything up to Running.
    deadline: Instant,
    /// What is being done to log in.
    pub(super) login: Login,
    /// Sources not tried yet (tailpod).
    sources: VecDeque<LoginSource>,
    /// The last source that really held something, and how many did.
    pub(super) tried: Option<LoginSource>,
    pub(super) attempts: u32,
    /// How far the comparison of prefs with the settings is (tailpod).
    pub(super) prefs: Prefs,
    /// The state that was logged last, so that nothing repeats.
    logged: Option<State>,
    /// The login-state warning that stands.
    pub(super) warning: Option<Warning>,
    /// Since when the login has looked broken (one-step), and when to look again.
    pub(super) suspect: Option<Suspect>,
    /// Whether a human is being waited for; moves the deadline (W19).
    human_since: Option<Instant>,
}

/// How far the login is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// Nothing was done: the daemon's own state decides.
    Untouched,
    /// A command or a submission is under way.
    UnderWay(LoginSource),
    /// The daemon has what it needs; it is up to control now. Since when.
    Submitted(LoginSource, Instant),
}

/// Prefs of a node that is already logged in are compared once (boot.md E.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prefs {
    Untouched,
    UnderWay,
    Done,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Suspect {
    pub(super) since: Instant,
    pub(super) look_again: Option<Instant>,
}

impl Authenticating {
    pub(super) fn new(deadline: Instant, policy: &Policy) -> Self {
        Self {
            deadline,
            login: Login::Untouched,
            sources: policy.login_sources.iter().cloned().collect(),
            tried: None,
            attempts: 0,
            prefs: Prefs::Untouched,
            logged: None,
            warning: None,
            suspect: None,
            human_since: None,
        }
    }

    /// What is done before any state is known.
    pub(super) fn begin(&mut self, policy: &Policy, _now: Instant, actions: &mut Vec<Action>) {
        if policy.persona == Persona::Containerboot && policy.mode == Mode::AlwaysAuth {
            self.run_up(actions);
        }
    }

    /// A login carries the settings with it, so only an untouched node needs the comparison.
    pub(super) fn apply_prefs(&mut self, actions: &mut Vec<Action>) {
        if self.prefs == Prefs::Untouched && self.login == Login::Untouched {
            self.prefs = Prefs::UnderWay;
            actions.push(Action::ApplyPrefs);
        }
    }

    fn run_up(&mut self, actions: &mut Vec<Action>) {
        self.login = Login::UnderWay(LoginSource::Environment);
        actions.push(Action::Log(Level::Info, "Running 'tailscale up'".to_owned()));
        actions.push(Action::RunUp);
    }

    pub(super) fn next_deadline(&self, policy: &Policy) -> Instant {
        let look_again = self.suspect.and_then(|suspect| suspect.look_again);
        let stale = match &self.login {
            Login::Submitted(_, since) if self.refusal_stands() => Some(*since + STALE_WARNING),
            _ => None,
        };
        look_again.into_iter().chain(stale).chain([self.overall(policy)]).min().unwrap_or(self.deadline)
    }

    /// Whether the standing warning speaks of a bad key, be it this one or the one before.
    fn refusal_stands(&self) -> bool {
        let text = self.warning.as_ref().and_then(|warning| warning.args.get("error"));
        text.is_some_and(|text| login_failure::classify(text).needs_new_key())
    }

    fn overall(&self, policy: &Policy) -> Instant {
        match self.human_since {
            Some(since) if policy.is_tailpod() => (since + policy.login_timeout).max(self.deadline),
            _ => self.deadline,
        }
    }
}

impl Boot {
    pub(super) fn auth_bus(&mut self, update: &BusUpdate, now: Instant, actions: &mut Vec<Action>) {
        if update.browse_url.is_some() {
            self.waiting_for_human(now);
        }
        let Phase::Authenticating(auth) = &mut self.phase else { return };
        let mut said = update.error.clone();
        match &update.login_health {
            Some(LoginHealth::Failing(warning)) => {
                said = said.or_else(|| warning.args.get("error").cloned());
                auth.warning = Some(warning.clone());
            }
            Some(LoginHealth::Fine) => auth.warning = None,
            None => {}
        }
        if said.is_some() {
            self.node.last_login_error.clone_from(&said);
        }
        if update.state.is_some() && !matches!(auth.login, Login::UnderWay(_)) {
            self.evaluate(now, actions);
        }
        self.weigh(said.as_deref(), now, actions);
    }

    /// Acts upon the state known now (boot.md 1.3).
    fn evaluate(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let Some(state) = self.node.state else { return };
        let Phase::Authenticating(auth) = &mut self.phase else { return };
        let news = auth.logged != Some(state);
        auth.logged = Some(state);
        match state {
            State::Running => return self.authenticated(now, actions),
            State::NeedsLogin => return self.needs_login(now, actions),
            State::NeedsMachineAuth => {
                if news {
                    let text = "machine authorization required, please visit the admin panel".to_owned();
                    actions.push(Action::Log(Level::Info, text));
                }
                self.waiting_for_human(now);
            }
            State::InUseOtherUser if self.policy.is_tailpod() => {
                let why =
                    self.node.last_login_error.clone().unwrap_or_else(|| "another user owns tailscaled".to_owned());
                return self.fail(format!("tailscaled is in use: {why}"), actions);
            }
            _ if news => {
                actions.push(Action::Log(Level::Info, format!("tailscaled in state \"{state}\", waiting")));
            }
            _ => {}
        }
        if state != State::NoState && state != State::Unknown {
            self.identity_first(now, actions);
        }
    }

    /// tailpod, not one-step: the state holds a login; prefs are compared once, beside the daemon's own start.
    fn identity_first(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if !self.policy.is_tailpod() || self.policy.mode == Mode::OneStep {
            return;
        }
        let Phase::Authenticating(auth) = &mut self.phase else { return };
        if auth.login != Login::Untouched {
            return;
        }
        if self.policy.force_login && !self.node.finished {
            return self.try_next_source(now, actions);
        }
        auth.apply_prefs(actions);
    }

    fn needs_login(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let Phase::Authenticating(auth) = &mut self.phase else { return };
        match (self.policy.mode, self.policy.persona) {
            // Weighed below, together with the warning.
            (Mode::OneStep, _) => {}
            (Mode::AuthOnce, Persona::Containerboot) if auth.login == Login::Untouched => auth.run_up(actions),
            (_, Persona::Containerboot) => {}
            (_, Persona::Tailpod) if auth.login == Login::Untouched => self.try_next_source(now, actions),
            (_, Persona::Tailpod) => {}
        }
    }

    pub(super) fn try_next_source(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let Phase::Authenticating(auth) = &mut self.phase else { return };
        auth.warning = None;
        let source = auth.sources.pop_front();
        let source = match (source, &auth.tried) {
            (Some(source), _) => source,
            // No source held anything: as upstream, a human logs in.
            (None, None) => LoginSource::Human,
            (None, Some(_)) => return self.out_of_keys(now, actions),
        };
        if !matches!(source, LoginSource::Human) {
            actions.push(Action::Log(Level::Info, format!("logging in with {source}")));
        }
        auth.login = Login::UnderWay(source.clone());
        actions.push(Action::Login(source));
    }

    pub(super) fn auth_event(&mut self, event: Event, now: Instant, actions: &mut Vec<Action>) {
        let Phase::Authenticating(auth) = &mut self.phase else { return };
        match event {
            Event::UpFinished(Ok(())) => {
                auth.login = Login::Submitted(LoginSource::Environment, now);
                // `tailscale up` with a key restarts the daemon's backend: a Running that was seen before is no news
                // of after, and one that comes late would look like a lost one. As upstream, look afresh.
                self.node.state = None;
                actions.push(Action::WatchBus);
            }
            Event::UpFinished(Err(text)) => {
                self.fail(
                    format!("failed to auth tailscale: failed to auth tailscale: tailscale up failed: {text}"),
                    actions,
                );
            }
            Event::LoginSubmitted(Ok(())) => {
                if let Login::UnderWay(source) = &auth.login {
                    let source = source.clone();
                    if source == LoginSource::Human {
                        self.waiting_for_human(now);
                    }
                    let Phase::Authenticating(auth) = &mut self.phase else { return };
                    if source != LoginSource::Human {
                        auth.tried = Some(source.clone());
                        auth.attempts += 1;
                    }
                    auth.login = Login::Submitted(source, now);
                    self.evaluate(now, actions);
                }
            }
            Event::LoginSubmitted(Err(LoginError::Unavailable(why))) => {
                actions.push(Action::Log(Level::Info, why));
                self.try_next_source(now, actions);
            }
            Event::LoginSubmitted(Err(LoginError::Refused(text))) => {
                if let Login::UnderWay(source) = &auth.login {
                    let source = source.clone();
                    auth.tried = Some(source.clone());
                    auth.attempts += 1;
                    self.refused(&source, &text, now, actions);
                }
            }
            Event::LoginSubmitted(Err(LoginError::Interrupted)) => {}
            Event::PrefsApplied(Ok(())) => auth.prefs = Prefs::Done,
            _ => {}
        }
    }

    pub(super) fn auth_tick(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.weigh(None, now, actions);
        let Phase::Authenticating(auth) = &self.phase else { return };
        if now < auth.overall(&self.policy) {
            return;
        }
        let under_way = matches!(auth.login, Login::UnderWay(_));
        if !self.policy.is_tailpod() {
            let text = if under_way {
                "failed to auth tailscale: failed to auth tailscale: tailscale up failed: context deadline exceeded"
            } else {
                "reading tailscaled IPN bus: context deadline exceeded"
            };
            return self.fail(text.to_owned(), actions);
        }
        let error = self.node.last_login_error.clone();
        match (self.node.state, error) {
            (Some(State::NeedsMachineAuth), _) => {
                self.login_failed(Class::ApprovalPending, "the device waits for approval", actions);
            }
            (Some(State::NeedsLogin), error) if self.node.device.as_ref().is_some_and(|d| d.key_expired) => {
                self.login_failed(Class::NodeKeyExpired, &error.unwrap_or_default(), actions);
            }
            (_, Some(error)) => self.login_failed(login_failure::classify(&error), &error, actions),
            (_, None) if self.node.last_url.is_some() => {
                let url = self.node.last_url.clone().unwrap_or_default();
                self.login_failed(Class::LoginNeeded, &url, actions);
            }
            (state, None) => {
                let state = state.map_or("unknown".to_owned(), |state| format!("{state}"));
                let limit = self.policy.boot_timeout.as_secs();
                self.fail(
                    format!(
                        "the node was not Running within {limit}s (tailscaled's state is {state}); see its log above"
                    ),
                    actions,
                );
            }
        }
    }

    fn waiting_for_human(&mut self, now: Instant) {
        if let Phase::Authenticating(auth) = &mut self.phase {
            auth.human_since.get_or_insert(now);
        }
    }
}
