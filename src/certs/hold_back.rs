//! Holds Services back from being advertised until there is a certificate for them (certs.md 7).
//!
//! What is [awaited](super::awaited) is looked for where certificates are kept. A Service that was let go stays so,
//! whatever becomes of its certificate, until its names change.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::allowed::set;
use super::awaited::awaited;
use super::local::LocalWorld;
use super::loops::Loops;
use super::manager;
use super::names::Name;
use super::places::{CERTIFICATE, PRIVATE_KEY};
use super::standing::Phase;
use crate::backoff::{Backoff, jitter};
use crate::causes::chain;
use crate::k8s::{Cluster, StateSecret};
use crate::serve::advertiser::Gate;

/// Between looks. An order takes some ten seconds, and nobody is served meanwhile.
const AGAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// Services that are looked at at the same time.
const ABREAST: usize = 16;
/// For tailscaled to give what it has.
const AT_ONCE: Duration = Duration::from_secs(1);
/// For one look at all of them: others are to be advertised meanwhile.
const LOOK: Duration = Duration::from_secs(5);

/// Where certificates can be seen.
#[derive(Debug)]
pub enum Sight {
    /// In TLS Secrets that are called like the name: somebody else orders them.
    Secrets(Cluster),
    /// With loops that somebody else keeps for all names.
    Kept(Arc<Loops<LocalWorld>>),
    /// With loops that ask for what is held back, and for nothing else. tailscaled orders when the first client comes,
    /// which never happens to a Service that nobody knows; one since 1.100 also once an hour.
    Asked(Arc<Loops<LocalWorld>>),
}

/// Services that are held back, and since when.
pub type HeldBack = BTreeMap<String, Timestamp>;

/// What became of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// It is not advertised yet.
    HeldBack {
        /// `svc:…`
        service: String,
        /// Where its certificate is not.
        reason: String,
    },
    /// It was held back, and is advertised now.
    LetGo {
        /// `svc:…`
        service: String,
        /// The name that there is a certificate for.
        domain: Name,
    },
}

/// The gate, and what it remembers.
pub struct HoldBack {
    sight: Sight,
    say: Box<dyn FnMut(News) + Send>,
    held: watch::Sender<HeldBack>,
    /// With the names that they had.
    let_go: BTreeMap<String, BTreeSet<Name>>,
    backoff: Backoff,
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HeldBack { service, reason } => {
                write!(f, "{service} is not advertised yet: it listens on 443 only, and has no certificate ({reason})")
            }
            Self::LetGo { service, domain } => {
                write!(f, "{service} is advertised now: there is a certificate for {domain}")
            }
        }
    }
}

impl fmt::Debug for HoldBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HoldBack").field("sight", &self.sight).field("held", &self.held).finish_non_exhaustive()
    }
}

impl HoldBack {
    /// With nothing held back yet; `say` hears once of each Service that is, and once when it is not any more. `held` is
    /// kept up to date for whoever looks.
    pub fn new(sight: Sight, held: watch::Sender<HeldBack>, say: impl FnMut(News) + Send + 'static) -> Self {
        Self { sight, say: Box::new(say), held, let_go: BTreeMap::new(), backoff: Backoff::new(AGAIN.0, AGAIN.1) }
    }
}

impl Gate for HoldBack {
    async fn held_back(&mut self, config: &Value) -> BTreeSet<String> {
        let awaited = awaited(config);
        self.let_go.retain(|service, names| awaited.get(service) == Some(names));
        let until = Instant::now() + LOOK;
        let before = self.held.borrow().clone();
        if let Sight::Asked(loops) = &self.sight {
            let waiting = awaited.iter().filter(|(service, _)| !self.let_go.contains_key(*service));
            loops.keep(waiting.flat_map(|(_, names)| names.iter().cloned())).await;
            if awaited.keys().any(|service| !self.let_go.contains_key(service) && !before.contains_key(service)) {
                // What tailscaled has, it gives at once; what it has not is an order, which nobody waits for here.
                let _ = timeout(AT_ONCE, manager::settled(loops, Duration::ZERO)).await;
            }
        }
        let sight = &self.sight;
        let waiting = awaited.into_iter().filter(|(service, _)| !self.let_go.contains_key(service));
        let looks = waiting.map(|(service, names)| async move {
            let looked = timeout_at(until, sight.find(&names)).await;
            (service, names, looked.unwrap_or_else(|_| Err("it takes too long to look for one".to_owned())))
        });
        let looked: Vec<_> = stream::iter(looks).buffered(ABREAST).collect().await;
        let mut held = HeldBack::new();
        for (service, names, found) in looked {
            let since = before.get(&service).copied();
            match found {
                Ok(domain) => {
                    if since.is_some() {
                        (self.say)(News::LetGo { service: service.clone(), domain });
                    }
                    self.let_go.insert(service, names);
                }
                Err(reason) => {
                    if since.is_none() {
                        (self.say)(News::HeldBack { service: service.clone(), reason });
                    }
                    held.insert(service, since.unwrap_or_else(Timestamp::now));
                }
            }
        }
        if held != before {
            self.backoff.reset();
        }
        let names = held.keys().cloned().collect();
        set(&self.held, held);
        names
    }

    async fn may_differ(&mut self) {
        if self.held.borrow().is_empty() {
            std::future::pending::<()>().await;
        }
        sleep(self.backoff.next(jitter())).await;
    }
}

impl Sight {
    /// The first of `names` that there is a certificate for; else where there is none.
    async fn find(&self, names: &BTreeSet<Name>) -> Result<Name, String> {
        let mut reasons = Vec::new();
        for name in names {
            match self.look(name).await {
                Ok(()) => return Ok(name.clone()),
                Err(reason) => reasons.push(reason),
            }
        }
        Err(reasons.join(", "))
    }

    async fn look(&self, name: &Name) -> Result<(), String> {
        match self {
            Self::Secrets(cluster) => in_secret(cluster, name).await,
            Self::Kept(loops) | Self::Asked(loops) => {
                let standing = loops.standing(name).await.map(|standing| standing.borrow().clone()).unwrap_or_default();
                if standing.certificate.is_some() {
                    return Ok(());
                }
                if matches!(standing.phase, Phase::Waiting(_))
                    && standing.attempts + u64::from(standing.record.failures) == 0
                {
                    // Somebody waits for it: its first turn comes at once.
                    loops.wake(name).await;
                }
                let why = standing.record.last_error.unwrap_or_else(|| standing.phase.shown());
                Err(format!("{name}: {why}"))
            }
        }
    }
}

/// For people; nothing when none is.
pub fn shown(held: &HeldBack) -> Option<String> {
    let each = held.iter().map(|(service, since)| format!("{service} waits for its certificate since {since:.0}"));
    (!held.is_empty()).then(|| each.collect::<Vec<_>>().join(", "))
}

/// As the operator looks for it: with something in both.
async fn in_secret(cluster: &Cluster, name: &Name) -> Result<(), String> {
    let has = |stored: &StateSecret| {
        [CERTIFICATE, PRIVATE_KEY].iter().all(|key| stored.data.get(*key).is_some_and(|value| !value.is_empty()))
    };
    match cluster.secret(name.as_str()).await {
        Ok(Some(stored)) if has(&stored) => Ok(()),
        Ok(Some(_)) => Err(format!("Secret `{name}` is empty")),
        Ok(None) => Err(format!("there is no Secret `{name}`")),
        Err(error) => Err(format!("Secret `{name}` cannot be looked at: {}", chain(&error))),
    }
}
