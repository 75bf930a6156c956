//! The loops of all names: as many as the serve config has names, no more.
//!
//! [`Loops::ensure`] is idempotent and serialised. A name that stays keeps its loop and its counters; one that goes is
//! cancelled at once, with the request that it has open. Dropping the whole ends all of them. Follows upstream's
//! `kube/certs/certs.go` (`CertManager`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex as StdMutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{Mutex, Notify, Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::budget::Ledger;
use super::keep::{Keeper, Shared, Start};
use super::names::{self, Name, NoConfig, Node, TooMany, Warning};
use super::renewed::Ordered;
use super::schedule::Growth;
use super::served::Served;
use super::standing::{Phase, Standing};
use super::world::{Allowed, Role, World};
use crate::localapi::mask::Version;

/// For an order that is under way when everything ends.
const FINISH: Duration = Duration::from_millis(2500);

/// Calls at the same time, where the daemon has a lock for each name (1.102 and newer).
pub const CONCURRENT: usize = 4;

/// How many calls a daemon of this version works on at the same time.
pub fn concurrency(version: Option<&str>) -> usize {
    /// The first with a lock for each name.
    const LOCK_FOR_EACH: Version = Version { major: 1, minor: 102, patch: 0 };
    if version.and_then(Version::parse).is_some_and(|version| version < LOCK_FOR_EACH) { 1 } else { CONCURRENT }
}

/// How the loops behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How delays grow.
    pub growth: Growth,
    /// When the first attempts come.
    pub start: Start,
    /// Calls at the same time: [`CONCURRENT`], or 1 for an older daemon, whose own queue would eat the time limit.
    pub concurrent: usize,
    /// Whether names of the node itself count.
    pub node: Node,
}

/// Why a config changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnsureError {
    /// There is none.
    #[error(transparent)]
    NoConfig(#[from] NoConfig),
    /// It has too many names.
    #[error(transparent)]
    TooMany(#[from] TooMany),
}

/// All loops, and what they share.
pub struct Loops<W> {
    shared: Arc<Shared<W>>,
    node: Node,
    stop: CancellationToken,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    live: BTreeMap<Name, Live>,
    /// Those of loops that are ending, so that their successors begin after them.
    gates: BTreeMap<Name, Weak<Mutex<()>>>,
    tasks: JoinSet<Option<()>>,
}

struct Live {
    task: AbortHandle,
    /// Held by its loop until that has ended.
    gate: Arc<Mutex<()>>,
    wake: Arc<Notify>,
    standing: watch::Receiver<Standing>,
}

impl<W: World> Loops<W> {
    /// None yet. They all end when `stop` is cancelled.
    pub async fn new(
        world: W,
        options: Options,
        allowed: watch::Receiver<Allowed>,
        role: watch::Receiver<Role>,
        stop: CancellationToken,
    ) -> Self {
        let ledger = world.load_ledger().await;
        let calls = Semaphore::new(options.concurrent.max(1));
        let Options { growth, start, .. } = options;
        let ledger = StdMutex::new(ledger);
        let shared = Shared { world, growth, start, allowed, role, calls, ledger, orders: OnceLock::new() };
        Self { shared: Arc::new(shared), node: options.node, stop, inner: Mutex::default() }
    }

    /// Makes the loops those of `config`; what it warns of is skipped.
    ///
    /// # Errors
    /// Nothing changes then.
    pub async fn ensure(&self, config: &Value) -> Result<Vec<Warning>, EnsureError> {
        let wanted = names::wanted(config, self.node)?.bounded()?;
        self.keep(wanted.names.into_keys()).await;
        Ok(wanted.warnings)
    }

    /// Makes the loops those of what is served, which goes first: the loops can use its room.
    ///
    /// # Errors
    /// Nothing changes then.
    pub async fn ensure_served(&self, served: Served) -> Result<Vec<Warning>, EnsureError> {
        let wanted = names::wanted_of(&served, self.node).bounded()?;
        drop(served);
        self.keep(wanted.names.into_keys()).await;
        Ok(wanted.warnings)
    }

    /// Makes the loops those of `wanted`.
    pub async fn keep(&self, wanted: impl IntoIterator<Item = Name>) {
        let mut inner = self.inner.lock().await;
        while let Some(ended) = inner.tasks.try_join_next() {
            if let Err(error) = ended
                && error.is_panic()
            {
                tracing::error!(%error, "the loop of a certificate ended");
            }
        }
        let mut before = std::mem::take(&mut inner.live);
        for name in wanted {
            let live = match before.remove(&name) {
                Some(live) => live,
                None if inner.live.contains_key(&name) => continue,
                None => self.start(&mut inner, &name),
            };
            inner.live.insert(name, live);
        }
        for (name, gone) in before {
            gone.task.abort();
            inner.gates.insert(name.clone(), Arc::downgrade(&gone.gate));
            self.break_off(&name, &gone).await;
        }
        inner.gates.retain(|_, gate| gate.strong_count() > 0);
    }

    fn start(&self, inner: &mut Inner, name: &Name) -> Live {
        let gate = inner.gates.get(name).and_then(Weak::upgrade).unwrap_or_default();
        let entered = Arc::clone(&gate);
        let wake = Arc::new(Notify::new());
        let (sender, standing) = watch::channel(Standing::default());
        let mut keeper = Keeper::new(name.clone(), Arc::clone(&self.shared), Arc::clone(&wake), sender);
        let work = Box::pin(async move {
            let _alone = entered.lock().await;
            keeper.keep_fresh().await;
        });
        // Boxed: what it is wrapped in has room for it three times.
        let task = inner.tasks.spawn(self.stop.clone().run_until_cancelled_owned(work));
        Live { task, gate, wake, standing }
    }

    /// Begins nothing any more.
    pub fn close(&self) {
        self.shared.calls.close();
    }

    /// Begins nothing any more, and lets what is being asked for come to its end for a moment: an order that is broken
    /// off is one more order, and perhaps a certificate that nobody gets. Returns at once if nothing is.
    pub async fn finish(&self) {
        self.close();
        let asking: Vec<_> = self.inner.lock().await.live.values().map(|live| live.standing.clone()).collect();
        let ends = async {
            for mut standing in asking {
                // A loop that has ended asks for nothing.
                let _ = standing.wait_for(|standing| standing.phase != Phase::Asking).await;
            }
        };
        // Whoever stops says what was broken off.
        let _ = timeout(FINISH, ends).await;
    }

    /// Ends all loops, and gives up what they had claimed.
    pub async fn stop(&self) {
        self.stop.cancel();
        let mut inner = self.inner.lock().await;
        while inner.tasks.join_next().await.is_some() {}
        for (name, live) in std::mem::take(&mut inner.live) {
            self.break_off(&name, &live).await;
        }
    }

    /// Notes what a loop was ended in the middle of.
    async fn break_off(&self, name: &Name, ended: &Live) {
        if ended.standing.borrow().phase == Phase::Asking {
            let _ended = ended.gate.lock().await;
            self.shared.book(name).break_off().await;
        }
    }

    /// How many there are.
    pub async fn live(&self) -> usize {
        self.inner.lock().await.live.len()
    }

    /// How each name stands.
    pub async fn standings(&self) -> Vec<(Name, Standing)> {
        let inner = self.inner.lock().await;
        inner.live.iter().map(|(name, live)| (name.clone(), live.standing.borrow().clone())).collect()
    }

    /// The names that stand so.
    pub async fn which(&self, so: impl Fn(&Standing) -> bool) -> BTreeSet<Name> {
        let inner = self.inner.lock().await;
        inner.live.iter().filter(|(_, live)| so(&live.standing.borrow())).map(|(name, _)| name.clone()).collect()
    }

    /// How each name stands, for whoever cannot wait; nothing while they are being changed.
    pub fn glance(&self) -> Option<Vec<(Name, Standing)>> {
        let inner = self.inner.try_lock().ok()?;
        Some(inner.live.iter().map(|(name, live)| (name.clone(), live.standing.borrow().clone())).collect())
    }

    /// Follows one name.
    pub async fn standing(&self, name: &Name) -> Option<watch::Receiver<Standing>> {
        self.inner.lock().await.live.get(name).map(|live| live.standing.clone())
    }

    /// Ends all waits: everything is looked at now. Counters stay.
    pub async fn wake_all(&self) {
        for live in self.inner.lock().await.live.values() {
            live.wake.notify_one();
        }
    }

    /// Ends the wait of one name.
    pub async fn wake(&self, name: &Name) {
        if let Some(live) = self.inner.lock().await.live.get(name) {
            live.wake.notify_one();
        }
    }

    /// What is ordered from now on, for one who asks first.
    pub fn orders(&self) -> mpsc::UnboundedReceiver<Ordered> {
        let (sender, orders) = mpsc::unbounded_channel();
        // The second who asks hears of nothing.
        let _ = self.shared.orders.set(sender);
        orders
    }

    /// What they work in.
    pub fn world(&self) -> &W {
        &self.shared.world
    }

    /// The orders of late.
    pub fn ledger(&self) -> Ledger {
        self.shared.ledger.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<W> std::fmt::Debug for Loops<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loops").field("node", &self.node).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(feature = "sandbox")]
mod tests;
