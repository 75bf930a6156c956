//! The life of the node under `k8s-proxy` as a pure state machine: event in, actions out, time as an argument. Pure.
//!
//! [`Life::step`] performs no I/O; the shell performs the [`Action`]s and reports how they went
//! as further [`Event`]s, and asks [`Life::deadline`] when to send the next [`Event::Tick`]. The course is that of
//! api-proxy.md 9.4: tailscaled, login within 30 s, what follows a login, and then staying up; 9.6 when the auth key
//! does not work any more.

mod login;
mod reissue;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use crate::boot::login_failure::is_transport_trouble;
use crate::daemon::restart::{Deaths, Verdict, WINDOW};
use crate::localapi::types::State;
use crate::node::{BusUpdate, Device, LoginHealth, News};

pub use crate::node::reissue::Reissue;
pub use login::LoggingIn;

/// From tailscaled's start until it accepts connections.
const START_LIMIT: Duration = Duration::from_secs(60);

/// From having the settings until Running with an address (upstream's `tsnet.Up` in `cmd/k8s-proxy`).
const LOGIN_LIMIT: Duration = Duration::from_secs(30);

/// Between tries to hand the settings to a daemon that does not answer.
const SUBMIT_AGAIN: Duration = Duration::from_secs(1);

/// How long a refusal must stand before it is believed: tailscaled takes it back when its next try works.
const CONFIRM: Duration = Duration::from_secs(2);

/// The same for a node that is up: it works on for now, and a new key means a new device.
const CONFIRM_WHEN_UP: Duration = Duration::from_secs(15);

/// How long a state other than Running is tolerated.
const EXCURSION_LIMIT: Duration = Duration::from_secs(30);

/// How long a bus that cannot be opened is tolerated.
const BUS_LIMIT: Duration = Duration::from_secs(60);

/// Between tries to bring about what a config says.
const APPLY_AGAIN: Duration = Duration::from_secs(5);

/// What decides the course.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// tailscaled keeps its state in a Secret: somebody may put a new key there, in answer to a request.
    pub state_secret: bool,
    /// The device keys are kept in it.
    pub publishes: bool,
}

/// What happened in the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// tailscaled accepts connections.
    Listening,
    /// It could not be started, or the wait for its socket failed.
    NotStarted(String),
    /// It has exited; how.
    DaemonExited(String),
    /// The bus is open.
    BusOpened,
    /// The bus ended or cannot be opened; it is being opened again.
    BusLost(String),
    /// A bus message.
    Bus(BusUpdate),
    /// The settings were handed to the daemon, or could not be; and whether the auth key, or the request for a login,
    /// went with them.
    LoginSubmitted(Result<bool, NotSubmitted>),
    /// The config has changed in something that is brought about while running.
    ConfigChanged,
    /// What the config says was brought about, or not.
    Applied(Result<(), String>),
    /// The API is served, or cannot be.
    Serving(Result<(), String>),
    /// A new auth key arrived, or not.
    NewKey(Result<(), String>),
    /// The identity is gone from the Secret, or not.
    IdentityCleared(Result<(), String>),
    /// A task failed in a way that ends the process.
    SideFailed(String),
    /// SIGTERM or SIGINT.
    Signal,
    /// [`Life::deadline`] has passed.
    Tick,
}

/// Why the settings were not handed to the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotSubmitted {
    /// The auth key is of a kind that cannot be used here: another one helps.
    Key(String),
    /// The daemon says no to what the config says: nothing helps but another config.
    Refused(String),
    /// The daemon did not answer. Its store of a state Secret can take its time to open, and until then it is silent.
    Silent(String),
}

/// What the shell shall do, in order; none of it blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Log one line.
    Log(Level, String),
    /// Start tailscaled.
    SpawnDaemon,
    /// Open the bus, replacing an open one.
    WatchBus,
    /// Hand the settings to the daemon; the auth key too when it has no identity, or when `renew`.
    Login {
        /// The identity that it has does not work.
        renew: bool,
    },
    /// Serve health and metrics (once per process).
    ServeHttp,
    /// Bring about what the config says: preferences, serve config, advertised Services.
    Apply {
        /// This has not worked yet since the node came up: what it knew before goes first.
        anew: bool,
    },
    /// Serve the API (once per process).
    ServeApi,
    /// Keep these device keys in the Secret.
    Publish(Device),
    /// Disconnect from control, write the marker, wait for a new key.
    RequestReissue,
    /// Stop tailscaled; its end is then expected.
    StopDaemon,
    /// Remove the identity from the Secret.
    ClearIdentity,
    /// Leave: the orderly shutdown, then this outcome.
    Stop(Outcome),
}

/// Severity of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Part of the story.
    Info,
    /// Needs attention.
    Warn,
}

/// How it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Stopped because asked: exit 0.
    Requested,
    /// A new auth key arrived and a restart will use it: exit 0.
    Reissued,
    /// It failed: exit 1.
    Failed(String),
}

/// A node under way.
#[derive(Debug)]
pub struct Life {
    policy: Policy,
    phase: Phase,
    known: Known,
}

/// Where in its life the node is.
#[derive(Debug)]
pub enum Phase {
    /// tailscaled has been started and does not listen yet.
    Starting {
        /// Until when it must.
        deadline: Instant,
    },
    /// It listens; the node is not Running yet.
    LoggingIn(LoggingIn),
    /// Up and kept up.
    Up(Up),
    /// A new auth key has been asked for.
    Reissuing(Reissue),
    /// tailscaled died uninvited and will be started again.
    Restarting {
        /// When.
        at: Instant,
    },
    /// The outcome is decided.
    Stopping,
}

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

/// What is known across phases.
#[derive(Debug, Default)]
struct Known {
    state: Option<State>,
    device: Option<Device>,
    bus_lost: Option<(Instant, String)>,
    published: Option<Device>,
    deaths: Deaths,
    http: bool,
    applied: bool,
    serving: bool,
    served: bool,
    disconnected: bool,
    last_url: Option<String>,
}

/// What probes ask about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// The node's addresses, while it is up.
    pub addresses: Vec<std::net::IpAddr>,
    /// The daemon's state, as a problem when it is not Running.
    pub state: Option<String>,
    /// The bus, as a problem when it is lost.
    pub bus: Option<String>,
    /// The API listener, as a problem while it is not bound.
    pub listener: Option<String>,
    /// The config, as a problem while it is not brought about.
    pub config: Option<String>,
}

impl Life {
    /// A node whose tailscaled is about to be started.
    pub fn new(policy: Policy, now: Instant) -> Self {
        Self { policy, phase: Phase::Starting { deadline: now + START_LIMIT }, known: Known::default() }
    }

    /// Takes one event and says what to do.
    pub fn step(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        if matches!(self.phase, Phase::Stopping) {
            return actions;
        }
        match event {
            Event::Signal => self.stop(Outcome::Requested, &mut actions),
            Event::SideFailed(text) | Event::NotStarted(text) => self.fail(text, &mut actions),
            Event::DaemonExited(how) => self.daemon_exited(&how, now, &mut actions),
            Event::BusLost(reason) => {
                let since = self.known.bus_lost.as_ref().map_or(now, |(since, _)| *since);
                self.known.bus_lost = Some((since, reason));
            }
            Event::BusOpened => self.known.bus_lost = None,
            Event::Bus(update) => self.bus(&update, now, &mut actions),
            Event::Listening => self.listening(now, &mut actions),
            Event::LoginSubmitted(Ok(keyed)) => self.login_submitted(keyed, now, &mut actions),
            Event::LoginSubmitted(Err(why)) => self.login_not_submitted(why, now, &mut actions),
            Event::ConfigChanged => self.apply(&mut actions),
            Event::Applied(outcome) => self.config_applied(outcome, now, &mut actions),
            Event::Serving(Ok(())) => self.known.served = true,
            Event::Serving(Err(text)) => self.fail(text, &mut actions),
            Event::NewKey(_) | Event::IdentityCleared(_) => self.reissue_event(event, &mut actions),
            Event::Tick => self.tick(now, &mut actions),
        }
        actions
    }

    /// When the next [`Event::Tick`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        let phase = match &self.phase {
            Phase::Starting { deadline } => Some(*deadline),
            Phase::LoggingIn(login) => Some(login.next_deadline()),
            Phase::Up(up) => {
                let away = up.away_since.map(|since| since + EXCURSION_LIMIT);
                let refused = up.refused.as_ref().map(|(since, _)| *since + CONFIRM_WHEN_UP);
                away.into_iter().chain(refused).chain(up.apply_at).min()
            }
            Phase::Restarting { at } => Some(*at),
            Phase::Reissuing(_) | Phase::Stopping => None,
        };
        let lost = self.known.bus_lost.as_ref().map(|(since, _)| *since + BUS_LIMIT);
        let lost = lost.filter(|_| !matches!(self.phase, Phase::Stopping | Phase::Reissuing(_)));
        phase.into_iter().chain(lost).min()
    }

    /// What probes shall be told.
    pub fn readiness(&self) -> Readiness {
        let up = matches!(self.phase, Phase::Up(_) | Phase::Stopping);
        let state = self.known.state.map_or_else(|| "not known yet".to_owned(), |state| format!("is {state}"));
        let running = up && self.known.state == Some(State::Running);
        let addresses = self.known.device.as_ref().filter(|_| up).map(|device| device.addresses.clone());
        Readiness {
            addresses: addresses.unwrap_or_default(),
            state: (!running).then(|| format!("tailscaled's state {state}")),
            bus: self.known.bus_lost.as_ref().map(|(_, reason)| reason.clone()),
            listener: (!self.known.served).then(|| "it is not bound yet".to_owned()),
            config: (!self.known.applied).then(|| "it has not been brought about".to_owned()),
        }
    }

    /// Whether tailscaled still talks to control: a stop then withdraws its Services first.
    pub fn is_connected(&self) -> bool {
        !self.known.disconnected
    }

    // === Events of every phase ===

    fn listening(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Starting { .. }) {
            self.phase = Phase::LoggingIn(LoggingIn::new(now));
            self.known.state = None;
            actions.extend([Action::WatchBus, Action::Login { renew: false }]);
        }
    }

    fn bus(&mut self, update: &BusUpdate, now: Instant, actions: &mut Vec<Action>) {
        if let Some(state) = update.state {
            self.known.state = Some(state);
        }
        if update.device.is_some() {
            self.known.device.clone_from(&update.device);
        }
        if let Some(url) = update.browse_url.as_ref().filter(|url| self.known.last_url.as_ref() != Some(url)) {
            self.known.last_url = Some(url.clone());
            actions.push(Action::Log(Level::Info, format!("To authenticate, visit: {url}")));
        }
        if let Some(error) = update.error.as_ref().filter(|text| !text.is_empty()) {
            let error = crate::secret::redact_keys(error);
            actions.push(Action::Log(Level::Warn, format!("tailscaled says: {error}")));
        }
        match &self.phase {
            Phase::LoggingIn(_) => self.login_bus(update, now, actions),
            Phase::Up(_) => self.up_bus(update, now, actions),
            _ => {}
        }
    }

    /// Running with an address: what follows, each time.
    fn come_up(&mut self, actions: &mut Vec<Action>) {
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

    fn apply(&mut self, actions: &mut Vec<Action>) {
        // Before the node is up there is nothing to change: coming up applies what the config says then.
        let Phase::Up(up) = &mut self.phase else { return };
        if up.applying {
            up.apply_again = true;
        } else {
            (up.applying, up.apply_at) = (true, None);
            actions.push(Action::Apply { anew: !up.applied });
        }
    }

    fn config_applied(&mut self, outcome: Result<(), String>, now: Instant, actions: &mut Vec<Action>) {
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

    fn up_bus(&mut self, update: &BusUpdate, now: Instant, actions: &mut Vec<Action>) {
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

    fn tick(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if let Some((since, reason)) = &self.known.bus_lost
            && now >= *since + BUS_LIMIT
            && !matches!(self.phase, Phase::Reissuing(_))
        {
            let text = format!("tailscaled cannot be followed for {}s: {reason}", BUS_LIMIT.as_secs());
            return self.fail(text, actions);
        }
        match &mut self.phase {
            Phase::Starting { deadline } if now >= *deadline => {
                self.fail("timed out waiting for tailscaled socket".to_owned(), actions);
            }
            Phase::LoggingIn(_) => self.login_tick(now, actions),
            Phase::Restarting { at } if now >= *at => {
                self.phase = Phase::Starting { deadline: now + START_LIMIT };
                actions.push(Action::SpawnDaemon);
            }
            Phase::Up(up) => {
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
            _ => {}
        }
    }

    fn daemon_exited(&mut self, how: &str, now: Instant, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Reissuing(_) => return self.reissue_daemon_exited(how, actions),
            Phase::Starting { .. } if self.known.deaths.is_empty() => {
                // It never listened: a bad flag or unusable state, which no restart mends.
                return self.fail(format!("tailscaled exited before its socket was ready: {how}"), actions);
            }
            _ => {}
        }
        self.known.bus_lost = None;
        self.known.state = None;
        match self.known.deaths.record(now) {
            Verdict::RestartIn(delay) => {
                let line = format!("tailscaled exited: {how}; restarting it in {delay:?}");
                actions.push(Action::Log(Level::Warn, line));
                self.phase = Phase::Restarting { at: now + delay };
            }
            Verdict::GiveUp { deaths } => {
                let window = WINDOW.as_secs();
                self.fail(format!("tailscaled exited {deaths} times within {window}s, last: {how}"), actions);
            }
        }
    }

    fn stop(&mut self, outcome: Outcome, actions: &mut Vec<Action>) {
        self.phase = Phase::Stopping;
        actions.push(Action::Stop(outcome));
    }

    fn fail(&mut self, text: String, actions: &mut Vec<Action>) {
        self.stop(Outcome::Failed(text), actions);
    }
}

impl From<News> for Event {
    fn from(news: News) -> Self {
        match news {
            News::Opened => Self::BusOpened,
            News::Update(update) => Self::Bus(update),
            News::Lost(reason) => Self::BusLost(reason),
        }
    }
}
