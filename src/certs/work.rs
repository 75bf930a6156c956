//! Whether there is something to order: what makes it worth to restart a tailscaled that only reads (certs.md 9.3).
//!
//! tailscaled is not asked, for one that reads knows nothing of what is due: the Secrets say it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::chain::Certificate;
use super::cluster::ClusterWorld;
use super::names::Name;
use super::places::{CERTIFICATE, selector};
use super::record::Record;
use super::storage;
use super::world::{Allowed, World as _};
use crate::k8s::{Error, StateSecret};

/// Of `names`, those whose certificate is missing, over or due, that the tailnet allows and the cluster could store, and
/// whose next attempt has come.
///
/// # Errors
/// The Secrets cannot be read.
pub async fn due(world: &ClusterWorld, names: &BTreeSet<Name>, allowed: &Allowed) -> Result<Vec<Name>, Error> {
    let secrets = world.cluster.secrets_with(&selector(world.group.as_deref())).await?;
    let by_name: BTreeMap<&str, &StateSecret> =
        secrets.iter().filter_map(|secret| Some((secret.name.as_deref()?, secret))).collect();
    let now = world.now();
    let is_due = |name: &&Name| allowed.lets(name) && is_due(name, by_name.get(name.as_str()).copied(), now);
    Ok(names.iter().filter(is_due).cloned().collect())
}

fn is_due(name: &Name, secret: Option<&StateSecret>, now: Timestamp) -> bool {
    let (Some(secret), Ok(())) = (secret, storage::check(name, secret)) else { return false };
    let record = Record::of(|annotation| secret.annotations.get(annotation).map(String::as_str));
    let has_come = record.next_attempt.is_none_or(|at| at <= now);
    let chain = secret.data.get(CERTIFICATE).and_then(|chain| std::str::from_utf8(chain).ok());
    match chain.map(Certificate::read) {
        Some(Ok(kept)) if kept.covers(name) && now <= kept.period.not_after => has_come && now > kept.period.renew_at(),
        // A success that is gone has nothing to wait for.
        _ => has_come || record.failures == 0,
    }
}

#[cfg(test)]
#[cfg(feature = "sandbox")]
mod tests {
    use super::super::chain::tests::made;
    use super::super::record::{FAILURES, NEXT_ATTEMPT};
    use super::*;

    fn secret(chain: &str, annotations: &[(&str, &str)]) -> StateSecret {
        StateSecret {
            name: Some("a.t.ts.net".to_owned()),
            kind: Some("kubernetes.io/tls".to_owned()),
            data: [(CERTIFICATE.to_owned(), chain.as_bytes().to_vec()), ("tls.key".to_owned(), Vec::new())].into(),
            annotations: annotations.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect(),
            ..StateSecret::default()
        }
    }

    #[test]
    fn what_is_missing_over_or_due_is_work_once_its_time_has_come() {
        let name = Name::parse("a.t.ts.net").unwrap();
        let chain = made(&["a.t.ts.net"]).0;
        let period = Certificate::read(&chain).unwrap().period;
        let early = period.not_before;
        let late = period.renew_at() + jiff::SignedDuration::from_secs(1);
        let over = period.not_after + jiff::SignedDuration::from_secs(1);
        let soon = (over + jiff::SignedDuration::from_hours(1)).to_string();
        let waits = [(NEXT_ATTEMPT, soon.as_str())];
        let failed = [(NEXT_ATTEMPT, soon.as_str()), (FAILURES, "2")];
        assert!(!is_due(&name, None, early), "there is no place for it");
        assert!(is_due(&name, Some(&secret("", &[])), early), "missing");
        assert!(is_due(&name, Some(&secret("", &waits)), early), "taken away");
        assert!(!is_due(&name, Some(&secret("", &failed)), early), "it failed, and waits");
        assert!(!is_due(&name, Some(&secret(&chain, &[])), early), "fresh");
        assert!(is_due(&name, Some(&secret(&chain, &[])), late), "due");
        assert!(!is_due(&name, Some(&secret(&chain, &waits)), late), "and looked at lately");
        assert!(is_due(&name, Some(&secret(&chain, &[])), over), "over");
        let other = made(&["b.t.ts.net"]).0;
        assert!(is_due(&name, Some(&secret(&other, &[])), early), "somebody else's");
    }
}
