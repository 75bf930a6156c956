//! The packet filter of this network namespace, whichever way it is programmed.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::conntrack;
use super::drift::Drift;
use super::fake::Fake;
use super::iptables::Iptables;
use super::netlink::{LIMIT, NetlinkError};
use super::nft::Nft;
use super::probe::{self, Found, Mode, OpenError};
use super::ruleset::{Ruleset, Table};

/// A firewall that was found to work. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Firewall {
    backend: Backend,
    ipv6: bool,
    turns: bool,
}

/// A way to program it.
#[derive(Clone, Debug)]
pub(super) enum Backend {
    Fake(Arc<Fake>),
    Nft(Nft),
    Iptables(Iptables),
}

/// Why a table is not as desired. What it held before, it still holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The kernel, or the program that speaks with it, said no; its words.
    #[error("the kernel refused the rules: {0}")]
    Refused(String),
    /// The kernel could not be asked.
    #[error("the kernel cannot be asked for its rules: {0}")]
    Unreachable(String),
}

impl From<NetlinkError> for ApplyError {
    fn from(error: NetlinkError) -> Self {
        Self::Unreachable(error.to_string())
    }
}

impl Firewall {
    /// The one in memory; `root` is `TS_TEST_ONLY_ROOT`, `ipv6` what `TS_TEST_FAKE_NETFILTER_6` says.
    pub fn fake(root: &Path, ipv6: bool) -> Self {
        Self { backend: Backend::Fake(Arc::new(Fake::new(root))), ipv6, turns: true }
    }

    /// Finds one that works. `mode` is what `TS_DEBUG_FIREWALL_MODE` says, `root` what `TS_TEST_ONLY_ROOT` does.
    /// Nothing is changed by looking; what was found, and why, is one line of the log.
    ///
    /// # Errors
    ///
    /// None works, or not the one that was asked for.
    pub async fn open(mode: &str, root: &Path) -> Result<Self, OpenError> {
        let mode = Mode::parse(mode).unwrap_or_else(|| {
            tracing::warn!("TS_DEBUG_FIREWALL_MODE is neither nftables, iptables nor auto: {mode:?} is read as auto");
            Mode::Auto
        });
        let found = probe::choose(mode, root).await?;
        tracing::info!("firewall: {found}");
        if !found.turns {
            tracing::warn!("the kernel cannot deal flows out in turn: of several backends, one will take all");
        }
        Ok(Self::found(found))
    }

    /// One that was found to work.
    pub fn found(found: Found) -> Self {
        Self { ipv6: found.ipv6.is_ok(), turns: found.turns, backend: found.backend }
    }

    /// Whether IPv6 can be translated. Without it, the IPv6 part of a ruleset is left out.
    pub fn ipv6(&self) -> bool {
        self.ipv6
    }

    /// Brings a table to what is desired, in one transaction. `before` is what this process knows to be in it: with it,
    /// only the difference is sent; without, everything is replaced.
    ///
    /// # Errors
    ///
    /// The transaction was refused; nothing of it took effect.
    pub async fn apply(&self, before: Option<&Ruleset>, desired: &Ruleset) -> Result<(), ApplyError> {
        let (before, desired) = (before.map(|before| self.possible(before)), self.possible(desired));
        match &self.backend {
            Backend::Fake(fake) => fake.apply(&desired),
            Backend::Nft(nft) => nft.apply(before.as_deref(), &desired).await,
            Backend::Iptables(iptables) => iptables.apply(&desired).await,
        }
    }

    /// Frees UDP flows that are stuck on what `before` said and `after` does not say any more; how many. For after an
    /// application.
    ///
    /// # Errors
    ///
    /// The kernel's table of flows cannot be read or changed; flows stay stuck until they pause.
    pub async fn free_flows(&self, before: Option<&Ruleset>, after: &Ruleset) -> Result<usize, ApplyError> {
        if matches!(self.backend, Backend::Fake(_)) || !conntrack::is_due(before, after) {
            return Ok(0);
        }
        let (before, after) = (before.cloned(), after.clone());
        blocking(move || Ok(conntrack::repair(before.as_ref(), &after)?)).await
    }

    /// Whether the table holds exactly what was applied.
    ///
    /// # Errors
    ///
    /// It could not be read.
    pub async fn holds(&self, applied: &Ruleset) -> Result<bool, ApplyError> {
        let applied = self.possible(applied);
        match &self.backend {
            Backend::Fake(fake) => Ok(fake.holds(&applied)),
            Backend::Nft(nft) => nft.holds(&applied).await,
            Backend::Iptables(iptables) => iptables.holds(&applied).await,
        }
    }

    /// What a table holds, and how that differs from what is desired of it; `None` when nothing is.
    ///
    /// # Errors
    ///
    /// It could not be read.
    pub async fn compare(&self, table: Table, desired: Option<&Ruleset>) -> Result<Drift, ApplyError> {
        let desired = desired.map(|desired| self.possible(desired));
        match &self.backend {
            Backend::Fake(_) => Err(ApplyError::Unreachable("it is in the memory of another process".to_owned())),
            Backend::Nft(nft) => nft.compare(table, desired.as_deref()).await,
            Backend::Iptables(iptables) => iptables.compare(table, desired.as_deref()).await,
        }
    }

    /// Removes a table; one that is not there is fine.
    ///
    /// # Errors
    ///
    /// It could not be removed.
    pub async fn remove(&self, table: Table) -> Result<(), ApplyError> {
        match &self.backend {
            Backend::Fake(fake) => fake.remove(table),
            Backend::Nft(nft) => nft.remove(table).await,
            Backend::Iptables(iptables) => iptables.remove(table).await,
        }
    }

    /// What of a ruleset this firewall can do.
    fn possible<'r>(&self, ruleset: &'r Ruleset) -> Cow<'r, Ruleset> {
        if self.turns { Cow::Borrowed(ruleset) } else { Cow::Owned(ruleset.without_turns()) }
    }
}

/// Runs what waits for the kernel where nobody else waits.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApplyError> + Send + 'static,
) -> Result<T, ApplyError> {
    let done = timeout(LIMIT, spawn_blocking(work)).await;
    done.map_err(|_| ApplyError::Unreachable(format!("no answer within {} s", LIMIT.as_secs())))?
        .unwrap_or_else(|error| Err(ApplyError::Unreachable(error.to_string())))
}
