//! When a plugin runs, and who gets what it answered. Pure.
//!
//! One run at a time. Credentials and their end are replaced together or not at all. They are refreshed ahead of
//! their end, whether or not somebody uses them, and stay in use until that end whatever becomes of the refresh. A
//! failure is remembered for a second, doubling to half a minute, so that whoever comes meanwhile gets it without
//! another run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::keypair::KeyPair;
use super::super::token::Authorization;
use super::error::CredentialError;
use crate::backoff::Backoff;

/// How long credentials are used that were expired when they arrived: whoever asked for them has several uses for them,
/// and there is at most one run in this time.
const STILLBORN_LIFE: Duration = Duration::from_secs(1);
/// Between a run and the refresh of what it has brought, however short that lives.
const LEAST_PAUSE: Duration = Duration::from_secs(1);
/// Between runs that a 401 asks for: whoever provokes them cannot drive the plugin.
const FORCED_PAUSE: Duration = Duration::from_secs(5);
/// The margin before the end: a tenth of the lifetime within these bounds.
const LEAST_MARGIN: Duration = Duration::from_secs(60);
const MOST_MARGIN: Duration = Duration::from_secs(300);

/// What a run has brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::k8s) struct Material {
    /// For `Authorization`.
    pub(in crate::k8s) token: Option<Authorization>,
    /// For the TLS handshake.
    pub(in crate::k8s) identity: Option<KeyPair>,
    /// Changes with the token or the certificate.
    pub(in crate::k8s) generation: u64,
    /// Changes with the certificate.
    pub(in crate::k8s) certificate: u64,
}

/// The state of one configuration's credentials.
#[derive(Debug)]
pub(super) struct Schedule {
    held: Option<Held>,
    failure: Option<Failure>,
    backoff: Backoff,
    /// The number of the last run that was started.
    run: u64,
    running: bool,
    forced: Option<Instant>,
}

#[derive(Debug)]
struct Held {
    material: Arc<Material>,
    /// The run that brought or confirmed them.
    run: u64,
    expires: Option<Instant>,
    refresh: Option<Instant>,
}

#[derive(Debug)]
struct Failure {
    error: CredentialError,
    run: u64,
    until: Instant,
}

/// What somebody who needs credentials does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Uses these; with `refresh`, also starts a run that nobody waits for.
    Have { material: Arc<Material>, refresh: bool },
    /// Gives up.
    Failed(CredentialError),
    /// Waits for the end of this run; with `start`, starts it first.
    Wait { run: u64, start: bool },
}

/// What somebody does whose credentials were answered with 401.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::k8s) enum Rejected {
    /// There are other credentials already.
    Newer,
    /// Nothing: it was tried just now.
    TooSoon,
    /// Waits for the end of this run; with `start`, starts it first.
    Wait { run: u64, start: bool },
}

/// How long credentials last, from when they arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lasting {
    /// Until somebody rejects them.
    ForEver,
    /// That long.
    For(Duration),
    /// They had expired before.
    Over,
}

/// What has changed with a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Changed {
    /// The credentials now.
    pub(super) material: Arc<Material>,
    /// Whether another certificate, or none, has taken the place of the one before; connections have to be closed.
    pub(super) is_other_certificate: bool,
    /// The certificate before.
    pub(super) before: Option<KeyPair>,
    /// Whether this run ended a series of failures.
    pub(super) recovered: bool,
}

impl Schedule {
    pub(super) fn new() -> Self {
        Self {
            held: None,
            failure: None,
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(30)),
            run: 0,
            running: false,
            forced: None,
        }
    }

    /// For somebody who has waited for the end of run `waited`, if for any.
    pub(super) fn look(&self, now: Instant, waited: Option<u64>) -> Look {
        let backs_off = self.failure.as_ref().is_some_and(|failure| now < failure.until);
        if let Some(held) = &self.held
            && (held.is_fresh(now) || waited.is_some_and(|run| held.run >= run))
        {
            let refresh = held.refresh.is_some_and(|at| at <= now) && !self.running && !backs_off;
            return Look::Have { material: Arc::clone(&held.material), refresh };
        }
        if self.running {
            return Look::Wait { run: self.run, start: false };
        }
        if let Some(failure) = &self.failure
            && (backs_off || waited.is_some_and(|run| failure.run >= run))
        {
            return Look::Failed(failure.error.clone());
        }
        Look::Wait { run: self.run + 1, start: true }
    }

    /// After a 401 for `generation`.
    pub(super) fn rejected(&mut self, now: Instant, generation: u64) -> Rejected {
        if self.is_newer(generation) {
            return Rejected::Newer;
        }
        if self.running {
            return Rejected::Wait { run: self.run, start: false };
        }
        let too_soon = self.forced.is_some_and(|at| now < at + FORCED_PAUSE);
        let backs_off = self.failure.as_ref().is_some_and(|failure| now < failure.until);
        if too_soon || backs_off {
            return Rejected::TooSoon;
        }
        self.forced = Some(now);
        Rejected::Wait { run: self.run + 1, start: true }
    }

    /// Whether there are other credentials than those of `generation`.
    pub(super) fn is_newer(&self, generation: u64) -> bool {
        self.held.as_ref().is_some_and(|held| held.material.generation != generation)
    }

    /// Whether the credentials that run `run` brought are due for a refresh. What has ended is left to whoever asks for
    /// it, unless its refresh has not been tried: it lived too shortly for that.
    pub(super) fn is_due(&self, now: Instant, run: u64) -> bool {
        let backs_off = self.failure.as_ref().is_some_and(|failure| now < failure.until);
        !self.running
            && !backs_off
            && self.held.as_ref().is_some_and(|held| {
                held.run == run && (held.is_fresh(now) || self.run == run) && held.refresh.is_some_and(|at| at <= now)
            })
    }

    /// A run begins. Its number.
    pub(super) fn start(&mut self) -> u64 {
        self.run += 1;
        self.running = true;
        self.run
    }

    /// The run has brought these credentials.
    pub(super) fn succeeded(
        &mut self,
        now: Instant,
        token: Option<Authorization>,
        identity: Option<KeyPair>,
        lasting: Lasting,
    ) -> Changed {
        let before = self.held.take().map(|held| held.material);
        let (generation, certificate) = match &before {
            None => (1, 0),
            Some(old) => (
                old.generation + u64::from(old.token != token || old.identity != identity),
                old.certificate + u64::from(old.identity != identity),
            ),
        };
        let is_other_certificate = certificate != before.as_ref().map_or(0, |old| old.certificate);
        let before = before.and_then(|old| old.identity.clone());
        let material = Arc::new(Material { token, identity, generation, certificate });
        let lifetime = match lasting {
            Lasting::ForEver => None,
            Lasting::For(lifetime) => Some(lifetime),
            Lasting::Over => Some(STILLBORN_LIFE),
        };
        // Nobody wants more of what is born dead.
        let refresh = lifetime.filter(|_| lasting != Lasting::Over);
        let refresh = refresh.map(|lifetime| lifetime.saturating_sub(margin(lifetime)).max(LEAST_PAUSE));
        self.held = Some(Held {
            material: Arc::clone(&material),
            run: self.run,
            // What ends in thousands of years does not end.
            expires: lifetime.and_then(|lifetime| now.checked_add(lifetime)),
            refresh: refresh.and_then(|pause| now.checked_add(pause)),
        });
        self.running = false;
        self.backoff.reset();
        Changed { material, is_other_certificate, before, recovered: self.failure.take().is_some() }
    }

    /// The run has failed. True for the first of a series.
    pub(super) fn failed(&mut self, now: Instant, error: CredentialError) -> bool {
        let pause = self.backoff.next(0.0);
        self.running = false;
        self.failure.replace(Failure { error, run: self.run, until: now + pause }).is_none()
    }

    /// When the held credentials want to be refreshed, and the run that brought them.
    pub(super) fn next_refresh(&self) -> Option<(Instant, u64)> {
        let held = self.held.as_ref()?;
        let at = held.refresh?;
        Some((self.failure.as_ref().map_or(at, |failure| at.max(failure.until)), held.run))
    }

    /// The leaf's last second, if a certificate is held.
    pub(super) fn not_after(&self) -> Option<i64> {
        Some(self.held.as_ref()?.material.identity.as_ref()?.validity().not_after)
    }
}

impl Held {
    fn is_fresh(&self, now: Instant) -> bool {
        self.expires.is_none_or(|at| now <= at)
    }
}

/// How long before its end a thing that lives for `lifetime` is refreshed; never more than half of it.
fn margin(lifetime: Duration) -> Duration {
    (lifetime / 10).clamp(LEAST_MARGIN, MOST_MARGIN).min(lifetime / 2)
}

#[cfg(test)]
mod tests;
