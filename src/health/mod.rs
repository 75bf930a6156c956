//! What the local HTTP endpoints say about the node: `/healthz`, `/livez`, `/readyz`, and `/metrics` beside them.
//!
//! The loop that runs the node keeps a [`Snapshot`] up to date through a [`HealthHandle`]; the servers of
//! [`server`] only read the latest one. `/healthz` keeps upstream's meaning (the node has a tailnet IP) and also
//! fails when a vital check does; `/readyz` tells every check with its reason; `/livez` fails only when the loop
//! itself has stopped moving.

mod get;
mod idle;
mod relay;
mod routes;
pub mod server;

use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

pub(crate) use get::get;
pub(crate) use relay::reachable;
pub use relay::{MetricsSource, metrics_source};
pub use routes::{HealthRoutes, Hook, MetricsRoutes, Routes};
pub use server::{BindError, Limits, Server};

/// A loop that has not moved for this long hangs: its longest single step is bounded at half of it.
pub const STALLED: Duration = Duration::from_secs(60);

/// The contract's words for a node without addresses.
const NO_ADDRESSES: &str = "node currently has no tailscale IPs";

/// What a failing [`Check`] means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// The node cannot serve: `/healthz` and `/readyz` fail.
    Vital,
    /// Something is not as it shall be: `/readyz` fails.
    Degrading,
    /// Nothing fails: `/readyz?verbose` has a line about it for as long as there is something to say.
    Notable,
}

/// One thing that can be wrong, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// As shown by `/readyz?verbose`; lower case with hyphens.
    pub name: &'static str,
    /// What its failing means.
    pub weight: Weight,
    /// Why it fails, in words; `None` is good.
    pub problem: Option<String>,
}

/// The state of the node at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Whether the node has a tailnet IP.
    pub addresses: bool,
    /// The addresses that `/healthz` tells in its headers instead of the Pod's; the first of each family.
    pub told: Vec<IpAddr>,
    /// Everything else, in the order in which it was first reported.
    pub checks: Vec<Check>,
    /// When the loop last showed that it moves.
    pub heartbeat: Instant,
}

impl Snapshot {
    fn new() -> Self {
        Self { addresses: false, told: Vec::new(), checks: Vec::new(), heartbeat: Instant::now() }
    }

    /// Sets the outcome of one check, adding it if it is new.
    pub fn report(&mut self, name: &'static str, weight: Weight, problem: Option<String>) {
        match self.checks.iter_mut().find(|check| check.name == name) {
            Some(check) => (check.weight, check.problem) = (weight, problem),
            None => self.checks.push(Check { name, weight, problem }),
        }
    }

    /// Why `/healthz` fails; `None` when it does not.
    pub fn unhealthy(&self) -> Option<String> {
        if !self.addresses {
            return Some(NO_ADDRESSES.to_owned());
        }
        self.checks.iter().filter(|check| check.weight == Weight::Vital).find_map(|check| {
            let problem = check.problem.as_ref()?;
            Some(format!("{}: {problem}", check.name))
        })
    }

    /// Why `/livez` fails; `None` when it does not.
    pub fn stalled(&self, now: Instant) -> Option<String> {
        let silence = now.saturating_duration_since(self.heartbeat);
        (silence > STALLED).then(|| format!("the boot loop has not moved for {} s", silence.as_secs()))
    }

    /// What is worth a line although nothing fails.
    pub fn notes(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let notes = self.checks.iter().filter(|check| check.weight == Weight::Notable);
        notes.filter_map(|check| Some((check.name, check.problem.as_deref()?)))
    }

    /// Every check that `/readyz` covers, with the reason why it fails.
    pub fn readiness(&self, now: Instant) -> Vec<(&'static str, Option<String>)> {
        let addresses = (!self.addresses).then(|| NO_ADDRESSES.to_owned());
        let mut checks = vec![("boot-loop", self.stalled(now)), ("tailnet-ip", addresses)];
        let failing = self.checks.iter().filter(|check| check.weight != Weight::Notable);
        checks.extend(failing.map(|check| (check.name, check.problem.clone())));
        checks
    }
}

/// The writing end: held by whoever knows how the node is.
#[derive(Clone, Debug)]
pub struct HealthHandle {
    sender: watch::Sender<Snapshot>,
    announce: bool,
}

impl HealthHandle {
    /// A node that is not healthy yet. Every flip of `/healthz` is logged as `Setting healthy <bool>`.
    pub fn new() -> Self {
        Self { sender: watch::Sender::new(Snapshot::new()), announce: true }
    }

    /// The same without the log lines, for a process that serves no health endpoint.
    pub fn silent() -> Self {
        Self { announce: false, ..Self::new() }
    }

    /// The reading end, for a server.
    pub fn subscribe(&self) -> watch::Receiver<Snapshot> {
        self.sender.subscribe()
    }

    /// Changes the state. Also counts as a [`beat`](Self::beat).
    pub fn set(&self, change: impl FnOnce(&mut Snapshot)) {
        let mut flip = None;
        self.sender.send_modify(|snapshot| {
            let before = snapshot.unhealthy().is_none();
            change(snapshot);
            snapshot.heartbeat = Instant::now();
            let after = snapshot.unhealthy().is_none();
            flip = (before != after).then_some(after);
        });
        if let Some(healthy) = flip
            && self.announce
        {
            tracing::info!("Setting healthy {healthy}");
        }
    }

    /// Sets one check; see [`Snapshot::report`].
    pub fn report(&self, name: &'static str, weight: Weight, problem: Option<String>) {
        self.set(|snapshot| snapshot.report(name, weight, problem));
    }

    /// Shows that the loop moves. Call it more often than every [`STALLED`].
    pub fn beat(&self) {
        self.sender.send_if_modified(|snapshot| {
            snapshot.heartbeat = Instant::now();
            false
        });
    }
}

impl Default for HealthHandle {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_follows_addresses_and_vital_checks() {
        let handle = HealthHandle::new();
        let reader = handle.subscribe();
        let unhealthy = || reader.borrow().unhealthy();
        assert_eq!(unhealthy().as_deref(), Some("node currently has no tailscale IPs"));
        handle.set(|snapshot| snapshot.addresses = true);
        assert_eq!(unhealthy(), None);
        handle.report("secret-writes", Weight::Degrading, Some("the API server is unreachable".to_owned()));
        assert_eq!(unhealthy(), None);
        handle.report("bus", Weight::Vital, Some("tailscaled ended the stream".to_owned()));
        assert_eq!(unhealthy().as_deref(), Some("bus: tailscaled ended the stream"));
        handle.report("bus", Weight::Vital, None);
        assert_eq!(unhealthy(), None);
        handle.set(|snapshot| snapshot.addresses = false);
        assert!(unhealthy().is_some());
        let readiness = reader.borrow().readiness(Instant::now());
        let names: Vec<_> = readiness.iter().map(|(name, problem)| (*name, problem.is_some())).collect();
        assert_eq!(names, [("boot-loop", false), ("tailnet-ip", true), ("secret-writes", true), ("bus", false)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_stands_still_is_noticed() {
        let handle = HealthHandle::silent();
        let reader = handle.subscribe();
        tokio::time::advance(STALLED).await;
        assert_eq!(reader.borrow().stalled(Instant::now()), None);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(reader.borrow().stalled(Instant::now()).as_deref(), Some("the boot loop has not moved for 62 s"));
        handle.beat();
        assert_eq!(reader.borrow().stalled(Instant::now()), None);
        assert!(!reader.has_changed().unwrap(), "a heartbeat is not news");
    }
}
