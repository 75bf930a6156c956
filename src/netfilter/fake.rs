//! The firewall of `TS_TEST_FAKE_NETFILTER`: remembers what it is told.
//!
//! Harnesses of upstream depend on the variable (netfilter.md 7). Whoever wants to see the rules makes a directory
//! `netfilter` below `TS_TEST_ONLY_ROOT`: every application writes its script there as `<table>.<n>`, and what stands in
//! a file `refuse` is what the kernel would answer.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::firewall::ApplyError;
use super::ruleset::{Ruleset, Table};
use super::script;
use crate::lock::lock;

/// Tables in memory.
#[derive(Debug)]
pub(super) struct Fake {
    installed: Mutex<BTreeMap<Table, (u64, Option<Ruleset>)>>,
    seen_at: PathBuf,
}

impl Fake {
    /// No tables. `root` is `TS_TEST_ONLY_ROOT`.
    pub(super) fn new(root: &Path) -> Self {
        Self { installed: Mutex::default(), seen_at: root.join("netfilter") }
    }

    /// Replaces a table.
    pub(super) fn apply(&self, desired: &Ruleset) -> Result<(), ApplyError> {
        self.set(desired.table(), Some(desired.clone()))
    }

    /// Removes a table.
    pub(super) fn remove(&self, table: Table) -> Result<(), ApplyError> {
        self.set(table, None)
    }

    /// Whether the table holds just this.
    pub(super) fn holds(&self, desired: &Ruleset) -> bool {
        let installed = lock(&self.installed);
        installed.get(&desired.table()).is_some_and(|(_, held)| held.as_ref() == Some(desired))
    }

    fn set(&self, table: Table, ruleset: Option<Ruleset>) -> Result<(), ApplyError> {
        if let Ok(refusal) = fs::read_to_string(self.seen_at.join("refuse")) {
            return Err(ApplyError::Refused(refusal.trim().to_owned()));
        }
        let mut installed = lock(&self.installed);
        let (count, held) = installed.entry(table).or_default();
        *count += 1;
        if self.seen_at.is_dir() {
            let script = ruleset.as_ref().map(script::render).unwrap_or_default();
            let (hidden, seen) = (self.seen_at.join(".new"), self.seen_at.join(format!("{table}.{count}")));
            let shown = fs::write(&hidden, script).and_then(|()| fs::rename(&hidden, seen));
            shown.map_err(|error| ApplyError::Refused(error.to_string()))?;
        }
        *held = ruleset;
        Ok(())
    }
}
