//! The world of replicas that share certificates: each name's TLS Secret is where its certificate is stored and where
//! what has to be remembered of it is noted.
//!
//! tailscaled writes the data, we write annotations, so neither meets the other. A name that two replicas may want at
//! once is claimed before it is ordered, by an annotation that is written only over the version that was read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::budget::Ledger;
use super::names::Name;
use super::places::{CERTIFICATE, selector};
use super::record::{ISSUING, LEDGER, Record};
use super::schedule::later;
use super::storage;
use super::world::{Blocked, News, Taken, World};
use crate::backoff::jitter;
use crate::causes::chain;
use crate::k8s::{Cluster, Error as ClusterError, EventKind, PodEvent, Resource, StateSecret, Verb};
use crate::localapi::{Error, LocalApi};

/// A claim counts for this long: an attempt, and five minutes.
const CLAIM: Duration = Duration::from_secs(35 * 60);
/// Whoever came too late looks again after this.
const LATE: Duration = Duration::from_secs(5);

/// The daemon, the clock, and the Secrets.
#[derive(Debug)]
pub struct ClusterWorld {
    /// The daemon.
    pub api: LocalApi,
    /// The cluster, seen from the namespace of the Secrets.
    pub cluster: Cluster,
    /// The group whose Secrets they are; of all groups without one.
    pub group: Option<String>,
    /// As whom names are claimed, where several replicas may want them.
    pub claimant: Option<String>,
    /// What became of the claims of this process.
    pub finished: Finished,
}

/// Claims whose order has ended, as they were written, whether or not the Secret says so already.
///
/// What else stands on a Secret counts, by whomever: an order that was broken off may have brought a certificate that
/// tailscaled could not keep, or may bring it yet.
#[derive(Debug, Default)]
pub struct Finished(Mutex<BTreeMap<Name, (String, bool)>>);

impl Finished {
    fn change<T>(&self, act: impl FnOnce(&mut BTreeMap<Name, (String, bool)>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// `claim` is about to be written. Its order has ended unless it [`stands`](Claiming::stands).
    fn begin<'f>(&'f self, name: &'f Name, claim: String) -> Claiming<'f> {
        self.change(|claims| claims.insert(name.clone(), (claim, false)));
        Claiming { finished: self, name, stands: false }
    }

    fn ended(&self, name: &Name) {
        self.change(|claims| {
            if let Some((_, is_ended)) = claims.get_mut(name) {
                *is_ended = true;
            }
        });
    }

    fn has(&self, name: &Name, claim: Option<&String>) -> bool {
        self.change(|claims| claims.get(name).is_some_and(|(ours, is_ended)| *is_ended && Some(ours) == claim))
    }
}

/// A claim that is being written. Whether or not it gets there, nothing is ordered under one that was given up on.
struct Claiming<'f> {
    finished: &'f Finished,
    name: &'f Name,
    stands: bool,
}

impl Claiming<'_> {
    fn stands(mut self) {
        self.stands = true;
    }
}

impl Drop for Claiming<'_> {
    fn drop(&mut self) {
        if !self.stands {
            self.finished.ended(self.name);
        }
    }
}

impl ClusterWorld {
    async fn secret(&self, name: &Name) -> Result<Option<StateSecret>, ClusterError> {
        if name.is_wildcard() { Ok(None) } else { self.cluster.secret(name.as_str()).await }
    }

    async fn annotate(&self, name: &Name, annotations: &BTreeMap<&str, Option<String>>) {
        if let Err(error) = self.cluster.annotate_secret(name.as_str(), annotations, None).await {
            tracing::warn!(domain = %name, error = chain(&error), "what is known of the certificate cannot be kept");
        }
    }
}

/// The orders that are noted on a name's Secret.
fn noted(secret: &StateSecret) -> Option<Ledger> {
    serde_json::from_str(secret.annotations.get(LEDGER)?).ok()
}

/// Who claims a name, and until when that counts.
fn claim_of(secret: &StateSecret) -> Option<Taken> {
    claim_in(secret, ISSUING, CLAIM)
}

/// `<holder>@<time>` in an annotation, and until when that counts.
pub(super) fn claim_in(secret: &StateSecret, annotation: &str, lasts: Duration) -> Option<Taken> {
    let (holder, at) = secret.annotations.get(annotation)?.rsplit_once('@')?;
    Some(Taken { holder: holder.to_owned(), until: later(at.parse().ok()?, lasts) })
}

impl World for ClusterWorld {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn chance(&self) -> f64 {
        jitter()
    }

    async fn certificate(&self, name: &Name, min_validity: Duration, limit: Duration) -> Result<String, Error> {
        self.api.certificate(name.as_str(), min_validity, limit).await
    }

    async fn check_storage(&self, name: &Name) -> Result<(), Blocked> {
        let unknown = |error: ClusterError| Blocked(format!("Secret `{name}` cannot be looked at: {}", chain(&error)));
        let secret = self.secret(name).await.map_err(unknown)?;
        storage::check(name, secret.as_ref())?;
        let may = self.cluster.may(Verb::Patch, Resource::Secrets, Some(name.as_str())).await.map_err(unknown)?;
        if may { Ok(()) } else { Err(Blocked(format!("the Role does not allow to patch Secret `{name}`"))) }
    }

    async fn load(&self, name: &Name) -> (Record, Ledger) {
        match self.secret(name).await {
            Ok(Some(secret)) => {
                let record = Record::of(|annotation| secret.annotations.get(annotation).map(String::as_str));
                (record, noted(&secret).unwrap_or_default())
            }
            Ok(None) => Default::default(),
            Err(error) => {
                tracing::warn!(domain = %name, error = chain(&error), "what was known of the certificate cannot be read");
                Default::default()
            }
        }
    }

    async fn save(&self, name: &Name, record: &Record) {
        let mut annotations = record.annotations();
        if self.claimant.is_some() {
            self.finished.ended(name);
            annotations.insert(ISSUING, None);
        }
        self.annotate(name, &annotations).await;
    }

    async fn load_ledger(&self) -> Ledger {
        let mut ledger = Ledger::default();
        match self.cluster.secrets_with(&selector(self.group.as_deref())).await {
            Ok(secrets) => secrets.iter().filter_map(noted).for_each(|noted| ledger.merge(noted)),
            Err(error) => tracing::warn!(error = chain(&error), "earlier orders are not known"),
        }
        ledger
    }

    async fn save_ledger(&self, name: &Name, ledger: &Ledger) {
        let Ok(text) = serde_json::to_string(&ledger.of(name)) else { return };
        self.annotate(name, &BTreeMap::from([(LEDGER, Some(text))])).await;
    }

    async fn claim(&self, name: &Name) -> Result<Option<Timestamp>, Taken> {
        let Some(claimant) = &self.claimant else { return Ok(None) };
        let now = self.now();
        let late = |holder: String| Taken { holder, until: later(now, LATE) };
        let secret = match self.secret(name).await {
            Ok(Some(secret)) => secret,
            Ok(None) => return Err(late("nobody, for its Secret went away,".to_owned())),
            Err(error) => return Err(late(format!("perhaps somebody ({})", chain(&error)))),
        };
        let mut broken_off = None;
        if let Some(taken) = claim_of(&secret)
            && !self.finished.has(name, secret.annotations.get(ISSUING))
        {
            if now < taken.until {
                return Err(taken);
            }
            broken_off = taken.until.checked_sub(CLAIM).ok();
        }
        let text = format!("{claimant}@{now:.0}");
        let claiming = self.finished.begin(name, text.clone());
        let claim = BTreeMap::from([(ISSUING, Some(text))]);
        let version = secret.resource_version.as_deref();
        let written = self.cluster.annotate_secret(name.as_str(), &claim, version).await;
        written.map_err(|error| late(format!("perhaps somebody ({})", chain(&error))))?;
        claiming.stands();
        Ok(broken_off)
    }

    async fn give_up(&self, name: &Name) {
        let Some(claimant) = &self.claimant else { return };
        self.finished.ended(name);
        let Ok(Some(secret)) = self.secret(name).await else { return };
        if claim_of(&secret).is_some_and(|taken| taken.holder == *claimant) {
            let none = BTreeMap::from([(ISSUING, None)]);
            // Somebody else's newer claim stays: the version is the one that was read.
            let _ = self.cluster.annotate_secret(name.as_str(), &none, secret.resource_version.as_deref()).await;
        }
    }

    async fn emptied(&self, names: &BTreeSet<Name>) -> Vec<Name> {
        let Ok(secrets) = self.cluster.secrets_with(&selector(self.group.as_deref())).await else { return Vec::new() };
        let is_full = |secret: &StateSecret| secret.data.get(CERTIFICATE).is_some_and(|chain| !chain.is_empty());
        let full: BTreeSet<_> =
            secrets.iter().filter(|secret| is_full(secret)).filter_map(|s| s.name.as_deref()).collect();
        names.iter().filter(|name| !full.contains(name.as_str())).cloned().collect()
    }

    async fn tell(&self, name: &Name, news: News) {
        let Ok(Some(secret)) = self.secret(name).await else { return };
        let Some(uid) = &secret.uid else { return };
        let kind = if news.is_bad { EventKind::Warning } else { EventKind::Normal };
        let event = PodEvent { kind, reason: news.reason.to_owned(), message: news.message };
        if let Err(error) = self.cluster.emit_secret_event(name.as_str(), uid, &event).await {
            tracing::debug!(domain = %name, error = chain(&error), "an Event was not recorded");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_names_its_holder_and_ends_by_itself() {
        let annotated = |text: &str| StateSecret {
            annotations: [(ISSUING.to_owned(), text.to_owned())].into(),
            ..StateSecret::default()
        };
        let taken = claim_of(&annotated("pg-0_uid@2026-01-01T00:00:00Z")).unwrap();
        assert_eq!((taken.holder.as_str(), taken.until.to_string().as_str()), ("pg-0_uid", "2026-01-01T00:35:00Z"));
        assert_eq!((claim_of(&annotated("nonsense")), claim_of(&StateSecret::default())), (None, None));
    }
}
