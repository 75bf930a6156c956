//! Keeps one table as its owner wants it.
//!
//! The owner says what it wants and goes on; this task applies the newest wish, tries again when it is refused, and
//! reads the table back once a minute, since others may flush what is not theirs (netfilter.md 8, rules 6 and 9). The
//! first wish is always applied: the namespace may carry a table of the container before.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::firewall::Firewall;
use super::ruleset::{Ruleset, Table};
use crate::backoff::{Backoff, jitter};
use crate::maybe::at;

/// Between two looks at what the kernel has.
const READ_BACK: Duration = Duration::from_secs(60);
/// Between attempts: first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// How a table stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// What is in force; `None` before the first application.
    pub applied: Option<Arc<Ruleset>>,
    /// Why the newest wish is not, as it was said last.
    pub problem: Option<String>,
    /// How many transactions went through.
    pub applications: u64,
    /// How many did not.
    pub refusals: u64,
    /// How often the table was found changed by others.
    pub repairs: u64,
}

/// The owner's end.
#[derive(Clone, Debug)]
pub struct Handle {
    wish: watch::Sender<Option<Arc<Ruleset>>>,
    standing: watch::Receiver<Standing>,
}

/// The task's end.
#[derive(Debug)]
pub struct Keeper {
    firewall: Firewall,
    table: Table,
    wish: watch::Receiver<Option<Arc<Ruleset>>>,
    standing: watch::Sender<Standing>,
}

/// The two ends for one table.
pub fn keeper(firewall: Firewall, table: Table) -> (Handle, Keeper) {
    let (wish, wished) = watch::channel(None);
    let (standing, stands) = watch::channel(Standing::default());
    (Handle { wish, standing: stands }, Keeper { firewall, table, wish: wished, standing })
}

impl Handle {
    /// Says what is wanted from now on.
    pub fn want(&self, ruleset: Arc<Ruleset>) {
        self.wish.send_if_modified(|wish| {
            let differs = wish.as_ref() != Some(&ruleset);
            *wish = Some(ruleset);
            differs
        });
    }

    /// How the table stands, from now on.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// Says what is wanted, and waits until it is in force.
    ///
    /// # Errors
    ///
    /// The kernel's words, when an attempt was refused; the keeper goes on trying.
    pub async fn put(&self, ruleset: Arc<Ruleset>) -> Result<(), String> {
        let mut standing = self.standing.clone();
        let refusals = standing.borrow_and_update().refusals;
        self.want(Arc::clone(&ruleset));
        let settled = standing.wait_for(|now| now.applied.as_ref() == Some(&ruleset) || now.refusals > refusals).await;
        match settled.as_deref() {
            Ok(now) if now.applied.as_ref() == Some(&ruleset) => Ok(()),
            Ok(now) => Err(now.problem.clone().unwrap_or_else(|| "the rules were refused".to_owned())),
            Err(_) => Err("the rules are not kept any more".to_owned()),
        }
    }
}

impl Keeper {
    /// Keeps the table until stopped, and leaves it as it is.
    pub async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(self.keep()).await;
    }

    async fn keep(&mut self) {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let mut next = None;
        loop {
            let until = next;
            tokio::select! {
                changed = self.wish.changed() => {
                    if changed.is_err() {
                        return std::future::pending().await;
                    }
                }
                () = at(until) => {}
            }
            let Some(wish) = self.wish.borrow_and_update().clone() else { continue };
            let pause = if self.bring(&wish).await {
                backoff = Backoff::new(RETRY.0, RETRY.1);
                READ_BACK
            } else {
                backoff.next(jitter())
            };
            next = Some(Instant::now() + pause);
        }
    }

    /// Brings the table to `wish`; whether it is there.
    async fn bring(&self, wish: &Arc<Ruleset>) -> bool {
        let applied = self.standing.borrow().applied.clone();
        let mut repairs = false;
        if applied.as_ref() == Some(wish) {
            match self.firewall.holds(wish).await {
                Ok(true) => return true,
                Ok(false) => {
                    repairs = true;
                    tracing::warn!("{}: somebody changed the rules, putting them back", self.table);
                }
                Err(error) => {
                    tracing::debug!("{}: the rules cannot be read back: {error}", self.table);
                    return true;
                }
            }
        }
        let before = applied.as_deref().filter(|_| !repairs);
        match self.firewall.apply(before, wish).await {
            Ok(()) => {
                self.standing.send_modify(|now| {
                    if now.problem.take().is_some() {
                        tracing::info!("{}: the rules are in force again", self.table);
                    }
                    now.applied = Some(Arc::clone(wish));
                    now.applications += 1;
                    now.repairs += u64::from(repairs);
                });
                match self.firewall.free_flows(before, wish).await {
                    Ok(0) => {}
                    Ok(freed) => tracing::info!("{}: {freed} UDP flows go where the rules say now", self.table),
                    Err(error) => tracing::warn!("{}: UDP flows may be stuck on old rules: {error}", self.table),
                }
                true
            }
            Err(error) => {
                let text = error.to_string();
                self.standing.send_modify(|now| {
                    if now.problem.as_ref() != Some(&text) {
                        tracing::error!("{}: {text}; what was in force stays", self.table);
                    }
                    now.problem = Some(text);
                    now.refusals += 1;
                });
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::Ipv4Addr;

    use tokio::task::JoinSet;

    use super::*;
    use crate::netfilter::ruleset::Interface;

    fn towards(last: u8) -> Arc<Ruleset> {
        let mut ruleset = Ruleset::empty(Table::L3, Interface::default());
        ruleset.v4_mut().ingress(Ipv4Addr::new(100, 64, 0, 1), &[Ipv4Addr::new(10, 0, 0, last)].into(), "ingress-ip");
        Arc::new(ruleset)
    }

    #[tokio::test(start_paused = true)]
    async fn refused_rules_are_tried_again_and_the_newest_wish_wins() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("netfilter");
        fs::create_dir(&dir).unwrap();
        let (handle, keeper) = keeper(Firewall::fake(root.path(), true), Table::L3);
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(keeper.run(stop.clone()));
        handle.put(towards(1)).await.unwrap();
        fs::write(dir.join("refuse"), "no such device\n").unwrap();
        let refused = handle.put(towards(2)).await.unwrap_err();
        assert_eq!(refused, "the kernel refused the rules: no such device");
        let mut standing = handle.standing();
        assert_eq!(standing.borrow().applied, Some(towards(1)), "what was in force stays");
        handle.want(towards(3));
        standing.wait_for(|now| now.refusals > 4).await.unwrap();
        fs::remove_file(dir.join("refuse")).unwrap();
        standing.wait_for(|now| now.applied == Some(towards(3))).await.unwrap();
        assert_eq!(standing.borrow().problem, None);
        assert_eq!(standing.borrow().applications, 2);
        stop.cancel();
        task.join_all().await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_others_flush_is_back_within_a_minute() {
        let root = tempfile::tempdir().unwrap();
        let firewall = Firewall::fake(root.path(), true);
        let (handle, keeper) = keeper(firewall.clone(), Table::L3);
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(keeper.run(stop.clone()));
        handle.put(towards(1)).await.unwrap();
        firewall.remove(Table::L3).await.unwrap();
        let flushed = Instant::now();
        let mut standing = handle.standing();
        standing.wait_for(|now| now.repairs == 1).await.unwrap();
        assert!(flushed.elapsed() <= READ_BACK, "{:?}", flushed.elapsed());
        assert!(firewall.holds(&towards(1)).await.unwrap());
        stop.cancel();
        task.join_all().await;
    }
}
