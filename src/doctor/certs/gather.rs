//! Gathers the facts that [`judge`](super::judge()) judges. Asks and changes nothing.
//!
//! tailscaled's certificate endpoint is not asked: that may order a certificate.

use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt as _};
use jiff::Timestamp;

use super::{Facts, Right, SecretFacts, Sharing};
use crate::certs::names::Name;
use crate::certs::places::{Places, Seen};
use crate::k8s::{Cluster, Error, Resource, StateSecret, Verb};
use crate::localapi::mask::Version;
use crate::settings::{CertWriter, group_of};

/// Questions at the same time.
const CONCURRENT: usize = 16;
/// Names whose rights are asked about one by one; beyond these, one stands for all.
const ASKED: usize = 20;

/// What is known before anything is asked.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// The share mode.
    pub sharing: Sharing,
    /// Whether the daemon's config file is locked; nothing without one.
    pub locked: Option<bool>,
    /// Why the serve config cannot be used, if it cannot, and what to do.
    pub config: Option<(String, String)>,
}

/// Asks the cluster what else has to be known.
pub async fn gather(
    given: Given,
    places: &Places,
    seen: &Seen,
    critical: std::time::Duration,
    now: Timestamp,
) -> Facts {
    let mut facts = Facts {
        wanted: seen.found.wanted.clone(),
        config: given.config,
        allowed: seen.found.allowed.clone(),
        version: version(places),
        locked: given.locked,
        rows: seen.found.rows(critical, now),
        left: seen.ledger.left(seen.found.wanted.names.keys(), now),
        troubles: seen
            .troubles
            .iter()
            .map(|trouble| format!("cannot read {}: {}", trouble.place, trouble.error))
            .collect(),
        sharing: given.sharing,
        ..Facts::default()
    };
    let Some(cluster) = places.cluster.as_ref().filter(|_| facts.sharing.is_on) else { return facts };
    let names: Vec<Name> = facts.wanted.names.keys().cloned().collect();
    let (secrets, rights) = tokio::join!(secrets(cluster, &names), rights(cluster, &names));
    (facts.secrets, facts.rights) = (secrets, rights);
    if facts.sharing.choice() == Some(CertWriter::Lease) {
        facts.lease = lease(cluster, facts.sharing.pod.as_deref()).await;
    }
    facts
}

fn version(places: &Places) -> Option<Version> {
    places.api.as_ref()?.versions().version.as_deref().and_then(Version::parse)
}

/// Each name's Secret, those that cannot be read left out; nothing when that is all of them.
async fn secrets(cluster: &Cluster, names: &[Name]) -> Option<BTreeMap<Name, Option<SecretFacts>>> {
    let asked = stream::iter(names).map(|name| async move {
        let secret = if name.is_wildcard() { None } else { secret(cluster, name).await.ok()? };
        let facts = secret.map(|secret| SecretFacts {
            kind: secret.kind,
            labels: secret.labels,
            is_stopping: secret.is_stopping,
        });
        Some((name.clone(), facts))
    });
    let read: Vec<Option<_>> = asked.buffered(CONCURRENT).collect().await;
    let known: BTreeMap<_, _> = read.into_iter().flatten().collect();
    (!known.is_empty() || names.is_empty()).then_some(known)
}

/// A replica may list Secrets, and get those that the operator has made for it.
async fn secret(cluster: &Cluster, name: &Name) -> Result<Option<StateSecret>, Error> {
    match cluster.secret(name.as_str()).await {
        Err(Error::Denied { .. }) => cluster.listed_secret(name.as_str()).await,
        result => result,
    }
}

async fn rights(cluster: &Cluster, names: &[Name]) -> Vec<Right> {
    let asked = names.iter().filter(|name| !name.is_wildcard()).take(ASKED);
    let wanted =
        asked.flat_map(|name| [Verb::Get, Verb::Patch].map(|verb| (verb, Resource::Secrets, Some(name.to_string()))));
    ask(cluster, wanted.collect()).await
}

async fn lease(cluster: &Cluster, pod: Option<&str>) -> Vec<Right> {
    let name = pod.and_then(group_of).map(|group| format!("tailpod-certs-{group}"));
    let wanted = [
        (Verb::Get, Resource::Leases, name.clone()),
        // A Lease that does not exist has no name that RBAC could match.
        (Verb::Create, Resource::Leases, None),
        (Verb::Update, Resource::Leases, name),
    ];
    ask(cluster, wanted.into()).await
}

async fn ask(cluster: &Cluster, wanted: Vec<(Verb, Resource, Option<String>)>) -> Vec<Right> {
    let asked = stream::iter(wanted).map(|(verb, resource, name)| async move {
        let is_allowed = cluster.may(verb, resource, name.as_deref()).await.ok();
        Right { verb, resource, name, is_allowed }
    });
    asked.buffered(CONCURRENT).collect().await
}
