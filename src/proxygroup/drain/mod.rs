//! The hook that holds up the end of an egress replica until the cluster leads nobody to it any more (ha-services.md 5
//! and 8.9).
//!
//! The kubelet calls it before it sends SIGTERM. It asks the health endpoint of every Service often enough to hear every
//! replica; when none of the answers is this Pod's, the Service is drained. The rules stay meanwhile, so whoever is still
//! led here is served.

mod ask;

use std::future::Future;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, WeakShared, join_all};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

pub use self::ask::{Endpoint, Heard, Look, ask};
use super::egress::config::{self, Config};
use super::plan::PodIps;
use crate::causes::chain;
use crate::lock::lock;
use crate::netfilter::ruleset::Family;

/// What the contract says where there is nothing to wait for.
const SAFE: &str = "safe to terminate";
/// Between the rounds of health checks of one Service.
const TICK: Duration = Duration::from_secs(1);
/// After the last Service: only this node's view of the cluster was looked at.
const SETTLE: Duration = Duration::from_secs(10);
/// A drain that takes longer is given up: what it waits for will not come.
const LONGEST: Duration = Duration::from_secs(300);
/// Rounds in a row without anybody to answer, until that is believed.
const SILENT_ROUNDS: u32 = 3;
/// Health checks of all Services at the same time: each may hold a thread that waits for DNS.
const AT_ONCE: usize = 64;
/// Health checks in a round when nobody ever said how many: three for each of two replicas, the operator's default.
const PINGS: u64 = 6;

/// The answer: a body, or what went wrong.
pub type Answer = Result<&'static str, String>;

/// One health check.
pub trait Ask: Send + Sync + 'static {
    /// Who answers at `endpoint`.
    fn ask(&self, endpoint: &Endpoint, look: Look) -> impl Future<Output = Heard> + Send;
}

/// Through the cluster, as clients do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cluster;

impl Ask for Cluster {
    async fn ask(&self, endpoint: &Endpoint, look: Look) -> Heard {
        ask(endpoint, look).await
    }
}

/// The hook.
#[derive(Debug)]
pub struct Hook<A = Cluster> {
    dir: PathBuf,
    pod: PodIps,
    asking: A,
    at_once: Semaphore,
    started: AtomicBool,
    /// The last number of health checks that was one.
    pings: AtomicU64,
    draining: watch::Sender<bool>,
    /// The drain under way; gone when nobody waits for it any more.
    flight: Mutex<Option<WeakShared<BoxFuture<'static, Answer>>>>,
}

impl Hook {
    /// For the config in `dir`, in this Pod.
    pub fn new(dir: PathBuf, pod: PodIps) -> Arc<Self> {
        Self::asking(dir, pod, Cluster)
    }
}

impl<A: Ask> Hook<A> {
    /// The same with another way to ask.
    pub fn asking(dir: PathBuf, pod: PodIps, asking: A) -> Arc<Self> {
        Arc::new(Self {
            dir,
            pod,
            asking,
            at_once: Semaphore::new(AT_ONCE),
            started: AtomicBool::new(false),
            pings: AtomicU64::new(0),
            draining: watch::Sender::new(false),
            flight: Mutex::default(),
        })
    }

    /// The group is being served from now on; before, there is nothing to drain.
    pub async fn start(&self) {
        // What is wrong with it is told to whoever drains.
        let _ = self.pings().await;
        self.started.store(true, Ordering::Relaxed);
    }

    /// Whether a drain is under way.
    pub fn draining(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    /// Answers one call: when there is nothing to drain any more. Whoever calls meanwhile waits for the same drain; it
    /// ends with the last of its callers.
    pub async fn answer(self: Arc<Self>) -> Answer {
        if !self.started.load(Ordering::Relaxed) {
            return Ok(SAFE);
        }
        let drain = {
            let mut flight = lock(&self.flight);
            let under_way = flight.as_ref().and_then(WeakShared::upgrade).filter(|drain| drain.peek().is_none());
            under_way.unwrap_or_else(|| {
                let hook = Arc::clone(&self);
                let drain = async move { hook.drain().await }.boxed().shared();
                *flight = drain.downgrade();
                drain
            })
        };
        drain.await
    }

    async fn drain(&self) -> Answer {
        let config = self.config().await.map_err(|why| format!("error retrieving egress services configs: {why}"))?;
        let Some(config) = config else { return Ok(SAFE) };
        let pings = self.pings().await.map_err(|why| {
            format!("error determining the number of times health check endpoint should be pinged: {why}")
        })?;
        let mut lanes = Vec::new();
        for (name, service) in &config.services {
            let Some(url) = &service.health else {
                tracing::info!("egress service {name:?} has no health check endpoint, so it is not waited for");
                continue;
            };
            let Some(endpoint) = Endpoint::parse(url) else {
                tracing::warn!("egress service {name:?} is not waited for: {url:?} is no plain HTTP URL");
                continue;
            };
            lanes.extend(self.looks().map(|look| (name.as_str(), endpoint.clone(), look)));
        }
        if lanes.is_empty() {
            return Ok("");
        }
        let _draining = Raised::new(&self.draining);
        tracing::info!("waiting until no egress service leads to this Pod any more");
        let rounds = lanes.iter().map(|(name, endpoint, look)| self.until_drained(name, endpoint, *look, pings));
        if timeout(LONGEST, join_all(rounds)).await.is_ok() {
            tracing::info!(
                "no egress service leads to this Pod any more; the rest of the cluster has {SETTLE:?} to see"
            );
            sleep(SETTLE).await;
        } else {
            tracing::warn!("egress services still lead to this Pod after {LONGEST:?}, which is long enough");
        }
        Ok("")
    }

    /// Whom to look for: each family of its own where the Pod has both.
    fn looks(&self) -> impl Iterator<Item = Look> {
        let looks = match (self.pod.ipv4, self.pod.ipv6) {
            (Some(v4), Some(v6)) => [(v4, Some(Family::V4)), (v6, Some(Family::V6))].map(Some),
            (Some(ip), None) | (None, Some(ip)) => [Some((ip, None)), None],
            (None, None) => [None, None],
        };
        looks.into_iter().flatten().map(|(ours, within): (IpAddr, _)| Look { ours, within })
    }

    async fn until_drained(&self, name: &str, endpoint: &Endpoint, look: Look, pings: u64) {
        let mut silent = 0;
        let mut told = None;
        loop {
            let heard = self.round(endpoint, look, pings).await;
            silent = if heard == Heard::Nobody { silent + 1 } else { 0 };
            match &heard {
                Heard::Other => break,
                Heard::Nobody if silent >= SILENT_ROUNDS => break,
                Heard::Ours | Heard::Nobody => {}
                Heard::Unknown(why) => {
                    if told.as_ref() != Some(why) {
                        tracing::warn!("egress service {name:?}: no telling whether it leads to this Pod: {why}");
                        told = Some(why.clone());
                    }
                }
            }
            sleep(TICK).await;
        }
        let nobody = if silent > 0 { ": nobody answers" } else { "" };
        tracing::info!("egress service {name:?} does not lead to {} any more{nobody}", look.ours);
    }

    /// As many health checks as it takes to hear every replica, or until one of them says it.
    async fn round(&self, endpoint: &Endpoint, look: Look, pings: u64) -> Heard {
        let mut heard = Heard::Other;
        for _ in 0..pings {
            let turn = self.at_once.acquire().await;
            let answer = self.asking.ask(endpoint, look).await;
            drop(turn);
            match answer {
                Heard::Other => {}
                Heard::Nobody => heard = Heard::Nobody,
                decided => return decided,
            }
        }
        heard
    }

    async fn config(&self) -> Result<Option<Config>, String> {
        let content = read(&self.dir.join(config::SERVICES_FILE)).await?;
        Config::parse(&content).map_err(|error| chain(&error))
    }

    async fn pings(&self) -> Result<u64, String> {
        let content = read(&self.dir.join(config::PINGS_FILE)).await?;
        let text = String::from_utf8_lossy(&content);
        match config::pings(&text).map_err(|error| format!("{:?}: {error}", text.trim()))? {
            0 => {
                if text.contains('-') {
                    tracing::warn!("{} is below zero: {:?}", config::PINGS_FILE, text.trim());
                }
                Ok(match self.pings.load(Ordering::Relaxed) {
                    0 => PINGS,
                    known => known,
                })
            }
            pings => {
                self.pings.store(pings, Ordering::Relaxed);
                Ok(pings)
            }
        }
    }
}

/// What a file holds; one that is not there holds nothing.
async fn read(path: &Path) -> Result<Vec<u8>, String> {
    match tokio::fs::read(path).await {
        Ok(content) => Ok(content),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.to_string()),
    }
}

/// A flag that is up for as long as this lives: callers may go at any moment.
struct Raised<'a>(&'a watch::Sender<bool>);

impl<'a> Raised<'a> {
    fn new(flag: &'a watch::Sender<bool>) -> Self {
        flag.send_replace(true);
        Self(flag)
    }
}

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

#[cfg(test)]
mod tests;
