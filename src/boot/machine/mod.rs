//! The life of a node as a pure state machine: event in, actions out, time as an argument. Pure.
//!
//! [`Boot::step`] performs no I/O. The shell ([`super::run`]) performs the [`Action`]s and reports their outcome
//! as [`Event`]s; it also asks [`Boot::deadline`] when to send the next [`Event::Tick`]. Each phase of the table in
//! boot.md 1.2 is a [`Phase`] that holds exactly the data it needs, and each phase's reactions are a file of
//! their own. Follows upstream's `cmd/containerboot/main.go`; where tailpod departs from it, [`Policy`] says so.

mod auth;
mod event;
mod finish;
mod forward;
mod policy;
mod reissue;
mod restart;
mod steady;
#[cfg(test)]
mod tests;
mod verdict;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub use crate::node::reissue::Reissue;
pub use auth::{Authenticating, Login};
pub use event::{Action, Announcement, Death, Event, Level, LoginError, Outcome};
pub use forward::Forwarding;
pub use policy::{LoginSource, Mode, Policy, Store};
pub use steady::Steady;

use super::login_failure::{Class, LoginFailure};
use crate::daemon::restart::Deaths;
use crate::localapi::types::State;
pub use crate::node::update::{BusUpdate, Device, LoginHealth};
use crate::secret::redact_keys;
use crate::settings::Persona;

/// How long tailpod tolerates a state other than Running, or a bus that cannot be opened, before it gives up.
pub const EXCURSION_LIMIT: Duration = Duration::from_secs(30);

/// Upstream's limit for a bus that cannot be opened (boot.md, Appendix D).
pub const BUS_LIMIT: Duration = Duration::from_secs(60);

/// A boot under way.
#[derive(Debug)]
pub struct Boot {
    policy: Policy,
    phase: Phase,
    node: Known,
    /// The first boot's, for everything up to the first rules.
    deadline: Instant,
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
    /// Take away what a former run served.
    ClearServeConfig,
    /// Delete the Secret's `authkey`.
    DeleteAuthKey,
    /// Find out how packets can be filtered.
    OpenFirewall,
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
    /// How packets are forwarded.
    rules: forward::Rules,
    /// tailscaled was disconnected from control: it writes nothing that a stop could cut in half.
    disconnected: bool,
    complete: bool,
    served: bool,
    config_watched: bool,
    serving: bool,
    finished: bool,
    deaths: Deaths,
    /// tailscaled was told to end, and another one shall follow it.
    replacing: bool,
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
    /// The packet rules, as a problem while they are not what they shall be.
    pub rules: Option<String>,
}

impl Boot {
    /// A boot whose tailscaled is about to be started. `now` starts the boot deadline unless `deadline` was
    /// already fixed by the preparation before.
    pub fn new(policy: Policy, deadline: Instant) -> Self {
        Self { policy, phase: Phase::Starting { deadline }, node: Known::default(), deadline }
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
            Event::Replace => self.replace_daemon(&mut actions),
            Event::DaemonExited(death) => self.daemon_exited(&death, now, &mut actions),
            Event::BusLost(reason) => self.node.bus_lost = Some((self.bus_lost_since(now), reason)),
            Event::BusOpened => self.node.bus_lost = None,
            Event::Bus(update) => self.bus(update, now, &mut actions),
            Event::Published | Event::PublishDelayed => self.publish_settled(&mut actions),
            // Nobody waits for the id alone where nothing is forwarded, and what waits behind it is as late.
            Event::IdDelayed if !self.forwards() => self.publish_settled(&mut actions),
            Event::IdWritten | Event::IdDelayed => self.id_settled(now, &mut actions),
            Event::Forwarding(news) => self.forwarding(news, now, &mut actions),
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
        phase.into_iter().chain(bus).chain(self.rules_deadline()).min()
    }

    /// Whether a stop has to wait until tailscaled's state in the Secret is whole (boot.md 9.3).
    pub fn may_write_state(&self) -> bool {
        !self.node.disconnected
    }

    /// Whether tailscaled has been listening.
    pub fn has_listened(&self) -> bool {
        self.node.served
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
            rules: self.node.rules.problem.clone(),
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
            Phase::Steady(_) => {
                self.steady_tick(now, actions);
                self.rules_tick(now, actions);
            }
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
        self.complete || self.published.is_some() || self.rules.answered
    }
}
