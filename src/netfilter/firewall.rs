//! The packet filter of this network namespace, whichever way it is programmed.

use std::path::Path;
use std::sync::Arc;

use super::fake::Fake;
use super::ruleset::{Ruleset, Table};

/// A firewall that was found to work. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Firewall {
    backend: Backend,
    ipv6: bool,
}

#[derive(Clone, Debug)]
enum Backend {
    Fake(Arc<Fake>),
}

/// Why a table is not as desired. What it held before, it still holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The kernel, or the program that speaks with it, said no; its words.
    #[error("the kernel refused the rules: {0}")]
    Refused(String),
}

impl Firewall {
    /// The one in memory; `root` is `TS_TEST_ONLY_ROOT`, `ipv6` what `TS_TEST_FAKE_NETFILTER_6` says.
    pub fn fake(root: &Path, ipv6: bool) -> Self {
        Self { backend: Backend::Fake(Arc::new(Fake::new(root))), ipv6 }
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
    #[expect(clippy::unused_async, reason = "a kernel is waited for, memory is not")]
    pub async fn apply(&self, before: Option<&Ruleset>, desired: &Ruleset) -> Result<(), ApplyError> {
        let _ = before;
        match &self.backend {
            Backend::Fake(fake) => fake.apply(desired),
        }
    }

    /// Whether the table holds exactly what was applied.
    ///
    /// # Errors
    ///
    /// It could not be read.
    #[expect(clippy::unused_async, reason = "a kernel is waited for, memory is not")]
    pub async fn holds(&self, applied: &Ruleset) -> Result<bool, ApplyError> {
        match &self.backend {
            Backend::Fake(fake) => Ok(fake.holds(applied)),
        }
    }

    /// Removes a table; one that is not there is fine.
    ///
    /// # Errors
    ///
    /// It could not be removed.
    #[expect(clippy::unused_async, reason = "a kernel is waited for, memory is not")]
    pub async fn remove(&self, table: Table) -> Result<(), ApplyError> {
        match &self.backend {
            Backend::Fake(fake) => fake.remove(table),
        }
    }
}
