//! Whether every replica serves what was renewed: looked at by itself after each order, not only when somebody asks.
//!
//! A replica that only reads may serve the old certificate for up to a day (upstream's readers load anew once in 24 h),
//! and nobody would know. A difference is a line, an Event on the TLS Secret and a number, until it is gone.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::chain::Certificate;
use super::names::Name;
use super::verify::{Outcome, Tailnet, Verdict, compare, look};
use super::world::{News, World};
use crate::localapi::LocalApi;

/// Between looks at replicas that do not serve it yet; what still differs after them is told.
const AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];
/// Between looks at replicas that were told of.
const REMIND: Duration = Duration::from_secs(3600);
/// For one handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A certificate that was ordered, and for which name.
pub type Ordered = (Name, Certificate);

/// Looks at replicas, and remembers which of them serve something else.
#[derive(Debug)]
pub struct Renewed {
    api: LocalApi,
    /// Replicas that serve something else, by name.
    differing: Mutex<BTreeMap<Name, usize>>,
}

impl Renewed {
    /// With what this tailscaled knows of replicas.
    pub fn new(api: LocalApi) -> Self {
        Self { api, differing: Mutex::default() }
    }

    /// Looks at the replicas of what was ordered, for as long as something is.
    pub async fn watch<W: World>(&self, world: &W, mut orders: mpsc::UnboundedReceiver<Ordered>) {
        let mut differs: BTreeMap<Name, Certificate> = BTreeMap::new();
        let mut remind = Instant::now() + REMIND;
        loop {
            tokio::select! {
                ordered = orders.recv() => {
                    let Some((name, certificate)) = ordered else { return };
                    differs.remove(&name);
                    if !self.check(world, &name, &certificate).await {
                        differs.insert(name, certificate);
                    }
                }
                () = sleep_until(remind), if !differs.is_empty() => {
                    remind = Instant::now() + REMIND;
                    for (name, certificate) in std::mem::take(&mut differs) {
                        if !self.check(world, &name, &certificate).await {
                            differs.insert(name, certificate);
                        }
                    }
                }
            }
        }
    }

    /// Whether no replica of `name` serves another certificate than `ordered`; says so if one does.
    pub async fn check<W: World>(&self, world: &W, name: &Name, ordered: &Certificate) -> bool {
        let mut pauses = AGAIN.iter();
        let verdict = loop {
            let verdict = self.look(world, name, ordered).await;
            match pauses.next() {
                Some(pause) if verdict.as_ref().is_some_and(Verdict::has_mismatch) => sleep(*pause).await,
                _ => break verdict,
            }
        };
        // Where nobody knows of a replica there is none that differs.
        let Some(verdict) = verdict else { return true };
        let others = verdict.replicas.iter().filter(|one| !matches!(one.outcome, Outcome::Same | Outcome::Unreachable));
        let others: Vec<_> = others
            .map(|one| {
                let replica = one.replica.as_deref().map(|replica| format!(" ({replica})")).unwrap_or_default();
                let serial = one.serial.as_deref().unwrap_or("nothing");
                format!("{}{replica} serves {serial}: {}", one.address, one.outcome.as_str())
            })
            .collect();
        let before = self.remember(name, others.len());
        if others.is_empty() {
            let answered = verdict.replicas.iter().filter(|one| one.outcome == Outcome::Same).count();
            if before.is_some() || answered > 0 {
                tracing::info!(
                    domain = %name, serial = ordered.serial, replicas = answered,
                    "every replica that answers serves the certificate"
                );
            }
            return true;
        }
        let others = others.join(", ");
        tracing::warn!(
            domain = %name, serial = ordered.serial, others,
            "not every replica serves the new certificate; one that only reads looks again within a day, or when its \
             tailscaled is started anew"
        );
        let message = format!("{} was ordered, and {others}", ordered.serial);
        world.tell(name, News { is_bad: true, reason: "CertMismatch", message }).await;
        false
    }

    async fn look<W: World>(&self, world: &W, name: &Name, ordered: &Certificate) -> Option<Verdict> {
        if name.is_wildcard() {
            return None;
        }
        let tailnet = Tailnet::ask(&self.api, HANDSHAKE).await?;
        let config = self.api.serve_config().await.ok().map(|config| config.document);
        let replicas = tailnet.replicas(name, config.as_ref());
        if replicas.is_empty() {
            tracing::debug!(domain = %name, "it is not known where it is served");
            return None;
        }
        let answers = look(name, replicas, &tailnet.way(&self.api), HANDSHAKE).await;
        Some(compare(name, Some(&ordered.serial), Some(ordered), answers, world.now()))
    }

    /// How many differed before, if any did.
    fn remember(&self, name: &Name, differing: usize) -> Option<usize> {
        let mut known = self.differing.lock().unwrap_or_else(PoisonError::into_inner);
        if differing == 0 { known.remove(name) } else { known.insert(name.clone(), differing) }
    }

    /// What a scrape is told.
    pub fn metrics(&self) -> String {
        let known = self.differing.lock().unwrap_or_else(PoisonError::into_inner);
        let family = "tailpod_cert_mismatches";
        let mut text = format!(
            "# HELP {family} Replicas that serve another certificate than the one that was ordered.\n# TYPE {family} gauge\n"
        );
        for (name, count) in &*known {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{family}{{domain=\"{name}\"}} {count}");
        }
        text
    }
}
