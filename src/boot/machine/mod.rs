//! The life of a node as a pure state machine: event in, actions out, time as an argument.
//!
//! [`Boot::step`] performs no I/O. The shell ([`super::run`]) performs the [`Action`]s and reports their outcome
//! as [`Event`]s; it also asks [`Boot::deadline`] when to send the next [`Event::Tick`]. Each phase of the table in
//! boot.md 1.2 is a [`Phase`] that holds exactly the data it needs, and each phase's reactions are a file of
//! their own. Follows upstream's `cmd/containerboot/main.go`; where tailpod departs from it, [`Policy`] says so.

mod auth;
mod reissue;
mod restart;
mod steady;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use auth::{Authenticating, Login};
pub use reissue::Reissue;
pub use steady::Steady;

use super::login_failure::{Class, LoginFailure};
use crate::daemon::restart::Deaths;
use crate::localapi::types::State;
use crate::node::update::News;
pub use crate::node::update::{BusUpdate, Device, LoginHealth};
use crate::secret::redact_keys;
use crate::settings::{Persona, RestartDaemon};

/// How long tailpod tolerates a state other than Running, or a bus that cannot be opened, before it gives up.
pub const EXCURSION_LIMIT: Duration = Duration::from_secs(30);

/// Upstream's limit for a bus that cannot be opened (boot.md, Appendix D).
pub const BUS_LIMIT: Duration = Duration::from_secs(60);

/// What of the settings decides the course of a boot.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Whose contract applies.
    pub persona: Persona,
    /// What configures the node.
    pub mode: Mode,
    /// What may be done with the state Secret.
    pub store: Store,
    /// Where tailpod finds something to log in with, in the order to try. Empty: a human logs in.
    pub login_sources: Vec<LoginSource>,
    /// tailpod: log in even when the state holds a login (`--force-reauth`).
    pub force_login: bool,
    /// From the end of host preparation to Running.
    pub boot_timeout: Duration,
    /// tailpod: how long a human may take.
    pub login_timeout: Duration,
    /// What an uninvited death of tailscaled leads to.
    pub restart: RestartDaemon,
    /// Delete the Secret's `authkey` after the first success.
    pub delete_authkey: bool,
    /// The control server, when it is not the default one: for messages.
    pub control_url: Option<String>,
    /// The tags asked for: for messages.
    pub tags: Vec<String>,
    /// Ask tailscaled to tune UDP GRO forwarding.
    pub tune_gro: bool,
    /// Link the default socket path to ours.
    pub link_socket: bool,
}

impl Policy {
    fn is_tailpod(&self) -> bool {
        self.persona == Persona::Tailpod
    }
}

/// [`crate::settings::Mode`] without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A config file configures the node.
    OneStep,
    /// Log in only when needed.
    AuthOnce,
    /// Log in on every start.
    AlwaysAuth,
}

/// What may be done with the state Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// There is none.
    None,
    /// There is one and it cannot be patched.
    ReadOnly,
    /// "kube-store mode" of boot.md: patches are allowed.
    Writable,
}

/// Something tailpod can log in with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginSource {
    /// `TS_AUTHKEY=file:<path>`, re-read at every attempt.
    File(PathBuf),
    /// A literal `TS_AUTHKEY` (or an OAuth or ARN text in it).
    Environment,
    /// Client id, client secret, ID token or audience.
    Credentials,
    /// Key `authkey` of the state Secret.
    Secret,
    /// Nothing: control hands out a URL for a human.
    Human,
}

impl fmt::Display for LoginSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "the auth key in `{}`", path.display()),
            Self::Environment => f.write_str("the auth key in TS_AUTHKEY"),
            Self::Credentials => f.write_str("the client credentials"),
            Self::Secret => f.write_str("the auth key in the state Secret"),
            Self::Human => f.write_str("a login in the browser"),
        }
    }
}

/// How a child ended, as the message shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death(pub String);

/// Why a try to log in did not even start, or failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginError {
    /// The source holds nothing (no file, no such Secret key): try the next one.
    Unavailable(String),
    /// It was tried and refused; the daemon's or the CLI's words.
    Refused(String),
    /// The deadline or a stop ended it.
    Interrupted,
}

/// What happened in the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// tailscaled accepts connections.
    Listening,
    /// tailscaled could not be started, or the wait for its socket failed.
    NotStarted(String),
    /// tailscaled has exited.
    DaemonExited(Death),
    /// A bus message.
    Bus(BusUpdate),
    /// The bus ended or cannot be opened; it is being re-opened.
    BusLost(String),
    /// The bus is open.
    BusOpened,
    /// `tailscale up` ended (containerboot).
    UpFinished(Result<(), String>),
    /// `tailscale set` ended (containerboot).
    SetFinished(Result<(), String>),
    /// A login was handed to the daemon, or could not be (tailpod).
    LoginSubmitted(Result<(), LoginError>),
    /// Prefs were compared and changed (tailpod).
    PrefsApplied(Result<(), String>),
    /// The Secret's `authkey` was deleted.
    AuthKeyDeleted(Result<(), String>),
    /// The device keys of the last [`Action::Publish`] are in the Secret.
    Published,
    /// They are not, and will be retried.
    PublishDelayed,
    /// They never will be: permission is missing.
    PublishDenied(String),
    /// The reissue request is in the Secret and a new key arrived, or not.
    NewKey(Result<(), String>),
    /// The identity keys are gone from the Secret, or not.
    IdentityCleared(Result<(), String>),
    /// A side task failed in a way that ends the boot.
    SideFailed(String),
    /// SIGTERM or SIGINT.
    Signal,
    /// [`Boot::deadline`] has passed.
    Tick,
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

/// What the shell shall do. Actions are performed in order; none blocks the loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Log one line.
    Log(Level, String),
    /// Start the local HTTP listeners (once per process).
    ServeHttp,
    /// LocalAPI `set-udp-gro-forwarding`.
    TuneGro,
    /// Link the default socket path.
    LinkSocket,
    /// Open the bus, replacing an open one.
    WatchBus,
    /// Run `tailscale up`.
    RunUp,
    /// Run `tailscale set`.
    RunSet,
    /// Log in with this (tailpod).
    Login(LoginSource),
    /// Compare prefs with the settings and change what differs (tailpod).
    ApplyPrefs,
    /// Delete `authkey` from the Secret.
    DeleteAuthKey,
    /// Write these device keys, id first (boot.md 5.4).
    Publish(Device),
    /// Watch the config file and have the daemon reload it.
    WatchConfig,
    /// Disconnect from control, set the reissue marker, wait for a new key.
    RequestReissue,
    /// Stop tailscaled; its end is then expected.
    StopDaemon,
    /// Remove the identity from the Secret and verify.
    ClearIdentity,
    /// Start tailscaled again.
    SpawnDaemon,
    /// Tell the cluster (best effort).
    Announce(Announcement),
    /// Leave: the orderly shutdown, then this outcome.
    Stop(Outcome),
}

/// A Kubernetes Event on the Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// UpperCamelCase reason.
    pub reason: &'static str,
    /// One sentence for a person.
    pub message: String,
}

/// Severity of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Part of the story.
    Info,
    /// Needs attention.
    Warn,
}

/// How a boot ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Stopped because asked: exit 0.
    Requested,
    /// A new auth key arrived and a restart will use it: exit 0.
    Reissued,
    /// The operation failed: exit 1.
    Failed(String),
    /// The login failed in a known way: the class's own exit code (tailpod).
    LoginFailed(LoginFailure),
}

/// A boot under way.
#[derive(Debug)]
pub struct Boot {
    policy: Policy,
    phase: Phase,
    node: Known,
}

/// Where in its life a node is.
#[derive(Debug)]
pub enum Phase {
    /// tailscaled has been started and does not listen yet.
    Starting {
        /// For everything up to Running.
        deadline: Instant,
    },
    /// It listens; the node is not Running yet.
    Authenticating(Authenticating),
    /// Running; what is done once after a login is under way, first step in front.
    Finishing(VecDeque<Finish>),
    /// Up and kept up.
    Steady(Steady),
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

/// One of the things done after a login (P8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The comparison of prefs has to be answered (tailpod).
    Prefs,
    /// `tailscale set`
    Set,
    /// Delete the Secret's `authkey`.
    DeleteAuthKey,
}

/// What is known across phases.
#[derive(Debug, Default)]
struct Known {
    state: Option<State>,
    device: Option<Device>,
    /// Since when there has been no bus, and why.
    bus_lost: Option<(Instant, String)>,
    /// What is or is being written to the Secret.
    published: Option<Device>,
    /// A write of the device keys was answered.
    settled: bool,
    /// tailscaled was disconnected from control: it writes nothing that a stop could cut in half.
    disconnected: bool,
    complete: bool,
    served: bool,
    config_watched: bool,
    finished: bool,
    deaths: Deaths,
    last_url: Option<String>,
    last_error: Option<String>,
    last_login_error: Option<String>,
}

/// What probes ask about (see [`crate::health`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// The node has an address: upstream's `/healthz`.
    pub addresses: bool,
    /// The daemon's state, as a problem when it is not Running.
    pub state: Option<String>,
    /// The bus, as a problem when it is lost.
    pub bus: Option<String>,
    /// Startup, as a problem while it is not complete.
    pub startup: Option<String>,
}

impl Boot {
    /// A boot whose tailscaled is about to be started. `now` starts the boot deadline unless `deadline` was
    /// already fixed by the preparation before.
    pub fn new(policy: Policy, deadline: Instant) -> Self {
        Self { policy, phase: Phase::Starting { deadline }, node: Known::default() }
    }

    /// Takes one event and says what to do. Every pair of phase and event is handled or visibly ignored.
    pub fn step(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        if matches!(self.phase, Phase::Stopping) {
            return actions;
        }
        match event {
            Event::Signal => self.stop(Outcome::Requested, &mut actions),
            Event::SideFailed(text) => self.fail(text, &mut actions),
            Event::DaemonExited(death) => self.daemon_exited(&death, now, &mut actions),
            Event::BusLost(reason) => self.node.bus_lost = Some((self.bus_lost_since(now), reason)),
            Event::BusOpened => self.node.bus_lost = None,
            Event::Bus(update) => self.bus(update, now, &mut actions),
            Event::Published | Event::PublishDelayed => self.publish_settled(&mut actions),
            Event::PublishDenied(text) => self.fail(text, &mut actions),
            Event::PrefsApplied(Err(text)) => self.fail(format!("applying the settings: {text}"), &mut actions),
            Event::Tick => self.tick(now, &mut actions),
            event => self.in_phase(event, now, &mut actions),
        }
        actions
    }

    /// When the next [`Event::Tick`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        let phase = match &self.phase {
            Phase::Starting { deadline } => Some(*deadline),
            Phase::Authenticating(auth) => Some(auth.next_deadline(&self.policy)),
            Phase::Steady(steady) => steady.next_deadline(),
            Phase::Restarting { at } => Some(*at),
            Phase::Finishing(_) | Phase::Reissuing(_) | Phase::Stopping => None,
        };
        let bus = self.node.bus_lost.as_ref().map(|(since, _)| *since + BUS_LIMIT);
        let bus = if matches!(self.phase, Phase::Stopping | Phase::Reissuing(_)) { None } else { bus };
        phase.into_iter().chain(bus).min()
    }

    /// Whether a stop has to wait until tailscaled's state in the Secret is whole (boot.md 9.3).
    pub fn may_write_state(&self) -> bool {
        !self.node.disconnected
    }

    /// What probes shall be told.
    pub fn readiness(&self) -> Readiness {
        // While it is being stopped the node still works, and `/healthz` says so as upstream's does.
        let stopping = matches!(self.phase, Phase::Stopping);
        let steady = stopping || matches!(self.phase, Phase::Steady(_) | Phase::Finishing(_));
        let running = steady && self.node.state == Some(State::Running);
        let startup = match (stopping, self.node.complete) {
            (true, _) => Some("the node is being stopped"),
            (false, false) => Some("startup is not complete"),
            (false, true) => None,
        };
        let state = self.node.state.map_or_else(|| "not known yet".to_owned(), |state| format!("is {state}"));
        Readiness {
            addresses: self.node.complete_enough()
                && self.node.device.as_ref().is_some_and(|d| !d.addresses.is_empty()),
            state: (!running).then(|| format!("tailscaled's state {state}")),
            bus: self.node.bus_lost.as_ref().map(|(_, reason)| format!("the IPN bus is lost: {reason}")),
            startup: startup.map(ToOwned::to_owned),
        }
    }

    fn in_phase(&mut self, event: Event, now: Instant, actions: &mut Vec<Action>) {
        match (&mut self.phase, event) {
            (Phase::Starting { deadline }, Event::Listening) => {
                let deadline = *deadline;
                self.listening(deadline, now, actions);
            }
            (Phase::Starting { .. }, Event::NotStarted(text)) => {
                self.fail(format!("failed to bring up tailscale: {text}"), actions);
            }
            (Phase::Authenticating(_), event) => self.auth_event(event, now, actions),
            (Phase::Finishing(_), event) => self.finish_event(event, now, actions),
            (Phase::Reissuing(_), event) => self.reissue_event(event, actions),
            // Late outcomes of an earlier phase: a login submitted before the daemon died, prefs applied after
            // the node was already Running. Their effect shows on the bus.
            (_, _late) => {}
        }
    }

    fn bus(&mut self, mut update: BusUpdate, now: Instant, actions: &mut Vec<Action>) {
        self.node.bus_lost = None;
        // While a login fails the daemon repeats its reason with every try.
        if let Some(text) = update.error.as_ref().filter(|text| self.node.last_error.as_ref() != Some(text)) {
            let line = format!("tailscaled: {}", redact_keys(text));
            actions.push(Action::Log(Level::Warn, line));
            self.node.last_error = Some(text.clone());
        }
        if let Some(device) = update.device.take() {
            self.node.device = Some(device);
        }
        if let Some(state) = update.state {
            self.node.state = Some(state);
        }
        if let Some(url) = update.browse_url.clone().filter(|url| self.node.last_url.as_ref() != Some(url)) {
            actions.push(Action::Log(Level::Info, format!("To authenticate, visit: {url}")));
            self.node.last_url = Some(url);
        }
        match self.phase {
            Phase::Authenticating(_) => self.auth_bus(&update, now, actions),
            Phase::Steady(_) => self.steady_bus(&update, now, actions),
            Phase::Finishing(_) | Phase::Starting { .. } | Phase::Reissuing(_) | Phase::Restarting { .. } => {}
            Phase::Stopping => {}
        }
    }

    fn tick(&mut self, now: Instant, actions: &mut Vec<Action>) {
        match &self.phase {
            Phase::Starting { deadline } if now >= *deadline => {
                self.fail("failed to bring up tailscale: timed out waiting for tailscaled socket".to_owned(), actions);
            }
            Phase::Authenticating(_) => self.auth_tick(now, actions),
            Phase::Steady(_) => self.steady_tick(now, actions),
            Phase::Restarting { at } if now >= *at => self.restart(now, actions),
            _ => {}
        }
        if let Some((since, reason)) = &self.node.bus_lost
            && now >= *since + BUS_LIMIT
            && !matches!(self.phase, Phase::Stopping | Phase::Reissuing(_) | Phase::Restarting { .. })
        {
            let text = format!("reading tailscaled IPN bus: {reason}");
            self.fail(text, actions);
        }
    }

    fn listening(&mut self, deadline: Instant, now: Instant, actions: &mut Vec<Action>) {
        if !self.node.served {
            self.node.served = true;
            actions.push(Action::ServeHttp);
            if self.policy.tune_gro {
                actions.push(Action::TuneGro);
            }
        }
        actions.push(Action::WatchBus);
        if self.policy.link_socket {
            actions.push(Action::LinkSocket);
        }
        let mut auth = Authenticating::new(deadline, &self.policy);
        auth.begin(&self.policy, now, actions);
        self.phase = Phase::Authenticating(auth);
    }

    fn bus_lost_since(&self, now: Instant) -> Instant {
        self.node.bus_lost.as_ref().map_or(now, |(since, _)| *since)
    }

    fn fail(&mut self, text: String, actions: &mut Vec<Action>) {
        self.stop(Outcome::Failed(text), actions);
    }

    fn login_failed(&mut self, class: Class, text: &str, actions: &mut Vec<Action>) {
        let failed = LoginFailure {
            class,
            url: self.node.last_url.clone(),
            control: self.policy.control_url.clone(),
            tags: self.policy.tags.clone(),
            ..LoginFailure::from_text(&redact_keys(text), None)
        };
        actions.push(Action::Announce(Announcement { reason: class.event_reason(), message: failed.to_string() }));
        self.stop(Outcome::LoginFailed(failed), actions);
    }

    fn stop(&mut self, outcome: Outcome, actions: &mut Vec<Action>) {
        self.phase = Phase::Stopping;
        actions.push(Action::Stop(outcome));
    }
}

impl Known {
    /// Upstream flips its health flag in the first pass with a self node, before the milestone line.
    fn complete_enough(&self) -> bool {
        self.complete || self.published.is_some()
    }
}
