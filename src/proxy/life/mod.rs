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
mod up;

use std::time::{Duration, Instant};

use crate::daemon::restart::{Deaths, Verdict, WINDOW};
use crate::localapi::types::State;
use crate::node::{BusUpdate, Device, News};

pub use crate::node::reissue::Reissue;
pub use login::LoggingIn;
pub use up::Up;

/// From tailscaled's start until it accepts connections.
const START_LIMIT: Duration = Duration::from_secs(60);

/// From having the settings until Running with an address (upstream's `tsnet.Up` in `cmd/k8s-proxy`).
const LOGIN_LIMIT: Duration = Duration::from_secs(30);

/// Between tries to hand the settings to a daemon that does not answer.
const SUBMIT_AGAIN: Duration = Duration::from_secs(1);

/// How long a refusal must stand before it is believed: tailscaled takes it back when its next try works.
const CONFIRM: Duration = Duration::from_secs(2);

/// How long a bus that cannot be opened is tolerated.
const BUS_LIMIT: Duration = Duration::from_secs(60);

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
            Phase::Up(up) => up.next_deadline(),
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

    fn tick(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if let Some((since, reason)) = &self.known.bus_lost
            && now >= *since + BUS_LIMIT
            && !matches!(self.phase, Phase::Reissuing(_))
        {
            let text = format!("tailscaled cannot be followed for {}s: {reason}", BUS_LIMIT.as_secs());
            return self.fail(text, actions);
        }
        match &self.phase {
            Phase::Starting { deadline } if now >= *deadline => {
                self.fail("timed out waiting for tailscaled socket".to_owned(), actions);
            }
            Phase::LoggingIn(_) => self.login_tick(now, actions),
            Phase::Restarting { at } if now >= *at => {
                self.phase = Phase::Starting { deadline: now + START_LIMIT };
                actions.push(Action::SpawnDaemon);
            }
            Phase::Up(_) => self.up_tick(now, actions),
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
