//! Keeps the node advertising the Services that it serves: a task of its own, which changes the list only when it has
//! to and remembers what in it is ours.
//!
//! Upstream (`cmd/containerboot/services.go`) asks, patches and sleeps 20 s in its main loop for each netmap (W3), and
//! never withdraws what has left the file (W4).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::advertise::{Ownership, advertise};
use super::document::{NodeFacts, service_names};
use super::follow::Standing;
use crate::backoff::{Backoff, jitter};
use crate::causes;
use crate::localapi::{Error, LocalApi};

/// Between tries of what the daemon did not take.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Between looks at what the daemon serves, however many netmaps come.
const PAUSE: Duration = Duration::from_secs(1);

/// Where the names come from.
#[derive(Debug)]
pub enum Names {
    /// From the serve config that is followed.
    Followed(watch::Receiver<Standing>),
    /// From whatever the daemon serves: nobody tells when that changes, so it is looked up with each netmap, which is
    /// what is counted here.
    Daemon(watch::Receiver<u64>),
}

/// What of the node's list is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// What we have put there, or a run before us.
    Own,
    /// All of it: what others advertise is withdrawn.
    All,
}

/// Knows which Services are not to be advertised yet.
pub trait Gate: Send {
    /// Of the Services of `config`, those that are held back for now.
    fn held_back(&mut self, config: &Value) -> impl Future<Output = BTreeSet<String>> + Send;

    /// Returns when that may be others; never while there is nothing to wait for. Cancel safe.
    fn may_differ(&mut self) -> impl Future<Output = ()> + Send;
}

/// Without one, all are.
impl<G: Gate> Gate for Option<G> {
    async fn held_back(&mut self, config: &Value) -> BTreeSet<String> {
        match self {
            Some(gate) => gate.held_back(config).await,
            None => BTreeSet::new(),
        }
    }

    async fn may_differ(&mut self) {
        match self {
            Some(gate) => gate.may_differ().await,
            None => std::future::pending().await,
        }
    }
}

/// The loop and what it works with.
#[derive(Debug)]
pub struct Advertiser<G> {
    /// The daemon.
    pub api: LocalApi,
    /// Where the names come from.
    pub names: Names,
    /// The node that advertises.
    pub node: watch::Receiver<NodeFacts>,
    /// Which run of the daemon it is: another one may have forgotten what the last one was told.
    pub daemon: watch::Receiver<u64>,
    /// Every Service that is or was ours.
    pub ours: watch::Sender<BTreeSet<String>>,
    /// Whether nothing of ours is to be advertised for now.
    pub hold: watch::Receiver<bool>,
    /// What is not to be advertised yet.
    pub gate: G,
    /// What of the list is ours.
    pub claim: Claim,
    /// What keeps the list from being as it should be.
    pub problem: watch::Sender<Option<String>>,
}

impl<G: Gate> Advertiser<G> {
    /// For a daemon that somebody else keeps, whose runs are counted by `daemon`, and a serve config that is followed.
    pub fn beside(
        api: LocalApi,
        standing: watch::Receiver<Standing>,
        node: watch::Receiver<NodeFacts>,
        daemon: watch::Receiver<u64>,
        gate: G,
        claim: Claim,
    ) -> Self {
        Self {
            api,
            names: Names::Followed(standing),
            node,
            daemon,
            ours: watch::Sender::new(BTreeSet::new()),
            // Nobody withdraws them for a while.
            hold: watch::Sender::new(false).subscribe(),
            gate,
            claim,
            problem: watch::Sender::new(None),
        }
    }

    /// Advertises until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(self.keep()).await;
    }

    async fn keep(&mut self) {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            let known = self.node.borrow_and_update().known;
            self.daemon.mark_unchanged();
            let outcome = if known { self.once().await } else { Ok(()) };
            let again = match outcome {
                Ok(()) => {
                    backoff.reset();
                    self.problem.send_if_modified(|problem| problem.take().is_some());
                    None
                }
                Err(error) => {
                    self.trouble(&error);
                    Some(Instant::now() + backoff.next(jitter()))
                }
            };
            self.changed(again).await;
        }
    }

    async fn once(&mut self) -> Result<(), Error> {
        let (config, unready) = match &mut self.names {
            Names::Followed(standing) => {
                let standing = standing.borrow_and_update();
                let Some(good) = &standing.good else { return Ok(()) };
                self.ours.send_modify(|ours| ours.extend(standing.replaced.iter().cloned()));
                (Arc::clone(&good.config), Arc::clone(&standing.unadvertised))
            }
            Names::Daemon(netmaps) => {
                netmaps.mark_unchanged();
                (Arc::new(self.api.serve_config().await?.document), Arc::default())
            }
        };
        let mut wanted: BTreeSet<String> = service_names(&config).into_iter().collect();
        wanted.retain(|name| !unready.contains(name));
        let held_back = self.gate.held_back(&config).await;
        wanted.retain(|name| !held_back.contains(name));
        self.ours.send_modify(|ours| ours.extend(wanted.iter().cloned()));
        let wanted = if *self.hold.borrow_and_update() { BTreeSet::new() } else { wanted };
        let ours = self.ours.borrow().clone();
        let ownership = match self.claim {
            Claim::Own => Ownership::Services(&ours),
            Claim::All => Ownership::Whole,
        };
        advertise(&self.api, &wanted, ownership).await.map(drop)
    }

    /// Waits for a reason to look again, no later than `again`.
    async fn changed(&mut self, again: Option<Instant>) {
        let names = async {
            let ended = match &mut self.names {
                Names::Followed(standing) => standing.changed().await.is_err(),
                Names::Daemon(netmaps) => {
                    sleep(PAUSE).await;
                    netmaps.changed().await.is_err()
                }
            };
            if ended {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = names => {}
            Ok(()) = self.node.changed() => {}
            Ok(()) = self.daemon.changed() => {}
            Ok(()) = self.hold.changed() => {}
            () = self.gate.may_differ() => {}
            () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {}
        }
    }

    /// Reports a problem, and logs it when it is another than before.
    fn trouble(&self, error: &Error) {
        let text = causes::chain(error);
        let is_news = self.problem.send_if_modified(|problem| {
            let is_news = problem.as_ref() != Some(&text);
            *problem = Some(text.clone());
            is_news
        });
        if is_news {
            let hint = if text.contains("locked") { "; its config file needs \"Locked\": false" } else { "" };
            tracing::warn!("the node's Services are not advertised as they should be, trying on: {text}{hint}");
        }
    }
}
