//! From a listening daemon to Running (P7).
//!
//! As `containerboot` the table of boot.md 1.3: `tailscale up` at most once, then wait. As `tailpod boot` the
//! identity comes first: a node whose state holds a login is brought up without a key, and only `NeedsLogin` makes
//! us try the key sources in their order, each failure classified (localapi.md 9.1).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::super::login_failure::{self, Class, Decision};
use super::{Action, Boot, BusUpdate, Event, Finish, Level, LoginError, LoginHealth, LoginSource};
use super::{Mode, Outcome, Persona, Phase, Policy, Steady, Store};
use crate::localapi::types::{State, Warning};
use crate::secret::redact_keys;

/// After a second key was handed over, a message about the first one may still be on its way...
const IN_FLIGHT: Duration = Duration::from_millis(300);

/// ...and a warning that says the same of both is not repeated; if it still stands by then it is about the second. So
/// is one that came while the key was being handed over.
const STALE_WARNING: Duration = Duration::from_secs(5);

/// The data of the phase.
#[derive(Debug)]
pub struct Authenticating {
    /// For everything up to Running.
    deadline: Instant,
    /// What is being done to log in.
    login: Login,
    /// Sources not tried yet (tailpod).
    sources: VecDeque<LoginSource>,
    /// The last source that really held something, and how many did.
    tried: Option<LoginSource>,
    attempts: u32,
    /// How far the comparison of prefs with the settings is (tailpod).
    prefs: Prefs,
    /// The state that was logged last, so that nothing repeats.
    logged: Option<State>,
    /// The login-state warning that stands.
    warning: Option<Warning>,
    /// Since when the login has looked broken (one-step), and when to look again.
    suspect: Option<Suspect>,
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
enum Prefs {
    Untouched,
    UnderWay,
    Done,
}

#[derive(Clone, Copy, Debug)]
struct Suspect {
    since: Instant,
    look_again: Option<Instant>,
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
    fn apply_prefs(&mut self, actions: &mut Vec<Action>) {
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

    fn try_next_source(&mut self, now: Instant, actions: &mut Vec<Action>) {
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

    /// Every key was tried and refused.
    fn out_of_keys(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let Phase::Authenticating(auth) = &mut self.phase else { return };
        let from_secret = auth.tried == Some(LoginSource::Secret);
        if from_secret && self.policy.store == Store::Writable {
            return self.reissue(
                "the auth key in the state Secret was refused, asking for a new one there".to_owned(),
                now,
                actions,
            );
        }
        let text = self.node.last_login_error.clone().unwrap_or_default();
        let class = login_failure::classify(&text);
        self.login_failed(class, &text, actions);
    }

    /// Decides whether the login has failed for good. `said` is what the daemon said just now.
    fn weigh(&mut self, said: Option<&str>, now: Instant, actions: &mut Vec<Action>) {
        match (self.policy.mode, self.policy.persona) {
            (Mode::OneStep, _) => self.weigh_reissue(now, actions),
            (_, Persona::Tailpod) => self.weigh_key(said, now, actions),
            (_, Persona::Containerboot) => {}
        }
    }

    /// One-step: has the key of the config file failed?
    fn weigh_reissue(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let state = self.node.state;
        let Phase::Authenticating(auth) = &mut self.phase else { return };
        let since = auth.suspect.map_or(now, |suspect| suspect.since);
        let warning = auth.warning.as_ref();
        let decision =
            login_failure::reissue_decision(self.policy.persona, state, warning, since, now, login_failure::GRACE);
        auth.suspect = match decision {
            Decision::Withdrawn => None,
            Decision::Wait(more) => Some(Suspect { since, look_again: Some(now + more) }),
            // A key is never asked for while the way to control is in trouble: the old device would be deleted for
            // nothing. The boot deadline ends the wait.
            Decision::ProbeControl => Some(Suspect { since, look_again: None }),
            Decision::Reissue => return self.one_step_login_lost(state == Some(State::NeedsLogin), now, actions),
        };
    }

    /// tailpod with keys: the daemon's answer to the key it was handed.
    fn weigh_key(&mut self, said: Option<&str>, now: Instant, actions: &mut Vec<Action>) {
        let Phase::Authenticating(auth) = &self.phase else { return };
        let Login::Submitted(source, since) = &auth.login else { return };
        let stands = auth.warning.as_ref().and_then(|warning| warning.args.get("error"));
        let text = match said {
            Some(text) if auth.attempts <= 1 || now >= *since + IN_FLIGHT => text.to_owned(),
            None if now < *since + STALE_WARNING => return,
            None => stands.cloned().unwrap_or_default(),
            Some(_in_flight) => return,
        };
        let class = login_failure::classify(&text);
        let source = source.clone();
        if class.needs_new_key() {
            self.refused(&source, &text, now, actions);
        }
    }

    fn refused(&mut self, source: &LoginSource, text: &str, now: Instant, actions: &mut Vec<Action>) {
        self.node.last_login_error = Some(text.to_owned());
        let class = login_failure::classify(text);
        let line = format!("{source} was refused: {}", redact_keys(text));
        actions.push(Action::Log(Level::Warn, line));
        if class.needs_new_key() {
            self.try_next_source(now, actions);
        } else {
            self.login_failed(class, text, actions);
        }
    }

    fn one_step_login_lost(&mut self, needs_login: bool, now: Instant, actions: &mut Vec<Action>) {
        if self.policy.store != Store::Writable {
            // Upstream acts on the warning only in kube-store mode.
            if !needs_login {
                return;
            }
            let text = "invalid state: tailscaled daemon started with a config file, but tailscale is not logged in: \
                        ensure you pass a valid auth key in the config file";
            if self.policy.is_tailpod()
                && let Some(why) = self.node.last_login_error.clone()
            {
                return self.login_failed(login_failure::classify(&why), &why, actions);
            }
            return self.fail(text.to_owned(), actions);
        }
        let line = if needs_login {
            "Auth key missing or invalid (NeedsLogin state), disconnecting from control and requesting new key from \
             operator"
        } else {
            "Auth key failed to authenticate (may be expired or single-use), disconnecting from control and \
             requesting new key from operator"
        };
        self.reissue(line.to_owned(), now, actions);
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

    /// Running: P8 begins.
    fn authenticated(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let mut steps = VecDeque::new();
        if !self.node.finished {
            if self.policy.mode == Mode::AuthOnce && !self.policy.is_tailpod() {
                steps.push_back(Finish::Set);
            }
            let once = self.policy.mode == Mode::AuthOnce || self.policy.delete_authkey;
            if once && self.policy.store == Store::Writable {
                steps.push_back(Finish::DeleteAuthKey);
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
            Some(Finish::DeleteAuthKey) => {
                actions.push(Action::Log(Level::Info, "Deleting authkey from Kubernetes Secret".to_owned()));
                actions.push(Action::DeleteAuthKey);
                self.phase = Phase::Finishing(steps);
            }
            None => {
                self.node.finished = true;
                if self.policy.mode == Mode::OneStep && !self.node.config_watched {
                    self.node.config_watched = true;
                    actions.push(Action::WatchConfig);
                }
                self.phase = Phase::Steady(Steady::default());
                self.pass(actions);
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
            Event::AuthKeyDeleted(Err(text)) => {
                self.stop(Outcome::Failed(format!("deleting authkey from Kubernetes Secret: {text}")), actions);
            }
            Event::PrefsApplied(Ok(())) | Event::SetFinished(Ok(())) | Event::AuthKeyDeleted(Ok(())) => {
                let mut steps = std::mem::take(steps);
                steps.pop_front();
                self.next_finish(steps, now, actions);
            }
            _ => {}
        }
    }
}
