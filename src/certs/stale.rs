//! Whether a tailscaled that only reads still serves what is about to end although the group has a newer certificate.
//!
//! Upstream's readers load all Secrets anew once in 24 h and keep an expired certificate until then
//! (`ipn/store/kubestore`). Nothing but a restart makes them look earlier; replicas take turns at that, by an annotation
//! on the group's first Secret.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::chain::Certificate;
use super::cluster::{ClusterWorld, claim_in};
use super::failure::{Class, Failure};
use super::names::Name;
use super::places::{CERTIFICATE, selector};
use super::record::RELOADING;
use super::world::World as _;
use crate::causes::chain;
use crate::k8s::{Error, StateSecret};

/// With more than this left, the daily look comes in time.
const A_DAY: Duration = Duration::from_secs(86_400);
/// A turn counts for this long: a withdrawal, a restart, and some minutes.
const TURN: Duration = Duration::from_secs(10 * 60);
/// For tailscaled to say what it has in memory.
const ANSWER: Duration = Duration::from_secs(10);

/// The right to restart, as one replica has it at a time.
#[derive(Debug)]
pub struct Turn {
    /// Whose certificate is old.
    pub name: Name,
    /// The Secret with the annotation.
    secret: Name,
}

/// A turn for `who`, where its tailscaled, which must be one that only reads, serves an old certificate; nothing while
/// another replica has its turn.
///
/// # Errors
/// The Secrets cannot be read or written.
pub async fn take_turn(world: &ClusterWorld, who: &str) -> Result<Option<Turn>, Error> {
    let secrets = world.cluster.secrets_with(&selector(world.group.as_deref())).await?;
    let Some((first, place)) = secrets.iter().find_map(|secret| Some((name_of(secret)?, secret))) else {
        return Ok(None);
    };
    let now = world.now();
    if claim_in(place, RELOADING, TURN).is_some_and(|turn| now < turn.until && turn.holder != who) {
        return Ok(None);
    }
    let Some(name) = stale(world, &secrets, now).await else { return Ok(None) };
    let turn = BTreeMap::from([(RELOADING, Some(format!("{who}@{now:.0}")))]);
    match world.cluster.annotate_secret(first.as_str(), &turn, place.resource_version.as_deref()).await {
        Ok(()) => Ok(Some(Turn { name, secret: first })),
        // Somebody else was faster.
        Err(Error::Conflict { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Lets the next replica have its turn.
pub async fn end_turn(world: &ClusterWorld, turn: Turn) {
    let none = BTreeMap::from([(RELOADING, None)]);
    if let Err(error) = world.cluster.annotate_secret(turn.secret.as_str(), &none, None).await {
        tracing::debug!(secret = %turn.secret, error = chain(&error), "the turn is left to expire");
    }
}

/// The first name of which tailscaled serves something old.
async fn stale(world: &ClusterWorld, secrets: &[StateSecret], now: Timestamp) -> Option<Name> {
    for secret in secrets {
        let Some(name) = name_of(secret) else { continue };
        let kept = secret.data.get(CERTIFICATE).and_then(|chain| std::str::from_utf8(chain).ok());
        let Some(Ok(kept)) = kept.map(Certificate::read) else { continue };
        let served = match world.api.certificate(name.as_str(), Duration::ZERO, ANSWER).await {
            Ok(chain) => Certificate::read(&chain).ok(),
            // It has none that is valid, or one that has expired.
            Err(error) if Failure::of(&error, now).class == Class::NotWriter => None,
            Err(error) => {
                tracing::debug!(domain = %name, error = chain(&error), "it is not known what is served");
                continue;
            }
        };
        if is_stale(&name, served.as_ref(), &kept, now) {
            return Some(name);
        }
    }
    None
}

fn name_of(secret: &StateSecret) -> Option<Name> {
    Name::parse(secret.name.as_deref()?).ok()
}

/// Whether `served` ends soon, or has ended, and `kept` does not.
fn is_stale(name: &Name, served: Option<&Certificate>, kept: &Certificate, now: Timestamp) -> bool {
    let period = kept.period;
    let is_good = kept.covers(name) && period.not_before <= now && now <= period.not_after;
    let is_older = |served: &Certificate| served.period.left(now) < A_DAY && served.period.not_after < period.not_after;
    is_good && served.is_none_or(is_older)
}

#[cfg(test)]
#[cfg(feature = "sandbox")]
mod tests {
    use super::super::chain::Period;
    use super::super::chain::tests::made;
    use super::super::schedule::later;
    use super::*;

    #[test]
    fn w14_what_ends_within_a_day_is_old_where_there_is_something_newer() {
        let name = Name::parse("a.t.ts.net").unwrap();
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let hours = |count: u64| Duration::from_secs(count * 3600);
        let of = |domain: &str, left: u64| {
            let mut certificate = Certificate::read(&made(&[domain]).0).unwrap();
            certificate.period = Period { not_before: now, not_after: later(now, hours(left)) };
            certificate
        };
        let (new, old, over) = (of("a.t.ts.net", 2000), of("a.t.ts.net", 23), of("a.t.ts.net", 0));
        assert!(is_stale(&name, Some(&old), &new, now));
        assert!(!is_stale(&name, Some(&of("a.t.ts.net", 25)), &new, now), "the daily look comes in time");
        assert!(!is_stale(&name, Some(&old), &old, now), "there is nothing newer");
        assert!(is_stale(&name, Some(&over), &new, now) && is_stale(&name, None, &new, now), "it has ended");
        assert!(!is_stale(&name, None, &over, later(now, hours(1))), "so has the other one");
        assert!(!is_stale(&name, Some(&old), &of("b.t.ts.net", 2000), now), "which is of somebody else");
    }
}
