//! The world of a node by itself: its daemon, the system clock, and one file for what has to be remembered.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::budget::Ledger;
use super::names::Name;
use super::record::Record;
use super::world::{Blocked, World};
use crate::backoff::jitter;
use crate::localapi::{Error, LocalApi};

/// The file's name in the state directory.
pub const FILE: &str = "tailpod-certs.json";

/// What is remembered between processes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// By name.
    pub names: BTreeMap<String, Record>,
    /// The orders of late.
    pub ledger: Ledger,
}

/// The daemon, the clock and the file.
#[derive(Debug)]
pub struct LocalWorld {
    api: LocalApi,
    file: Option<PathBuf>,
    memory: Mutex<Memory>,
    /// Whether saving has failed before: said once.
    complained: Mutex<bool>,
}

impl Memory {
    /// Reads the file; a missing one holds nothing.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn read(file: &Path) -> io::Result<Self> {
        match std::fs::read(file) {
            Ok(text) => serde_json::from_slice(&text).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Replaces the file as a whole; nobody else may read it.
    fn write(&self, file: &Path) -> io::Result<()> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let new = file.with_extension("json.new");
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut writer = io::BufWriter::new(options.open(&new)?);
        serde_json::to_writer_pretty(&mut writer, self)?;
        writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        std::fs::rename(&new, file)
    }
}

impl LocalWorld {
    /// With the memory in `file`, or only as long as the process lives.
    pub fn new(api: LocalApi, file: Option<PathBuf>) -> Self {
        let memory = file.as_deref().map(Memory::read).transpose().unwrap_or_else(|error| {
            tracing::warn!(%error, "what was known of certificates cannot be read, starting over");
            None
        });
        Self { api, file, memory: Mutex::new(memory.unwrap_or_default()), complained: Mutex::new(false) }
    }

    fn change(&self, change: impl FnOnce(&mut Memory)) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut memory);
        let Some(file) = &self.file else { return };
        if let Err(error) = memory.write(file) {
            let mut complained = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
            if !std::mem::replace(&mut *complained, true) {
                tracing::warn!(file = %file.display(), %error, "what is known of certificates cannot be kept");
            }
        }
    }

    fn remembered<T>(&self, look: impl FnOnce(&Memory) -> T) -> T {
        look(&self.memory.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl World for LocalWorld {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn chance(&self) -> f64 {
        jitter()
    }

    async fn certificate(&self, name: &Name, min_validity: Duration, limit: Duration) -> Result<String, Error> {
        self.api.certificate(name.as_str(), min_validity, limit).await
    }

    async fn check_storage(&self, _: &Name) -> Result<(), Blocked> {
        // The daemon keeps them itself.
        Ok(())
    }

    async fn load(&self, name: &Name) -> (Record, Ledger) {
        let record = |memory: &Memory| memory.names.get(name.as_str()).cloned().unwrap_or_default();
        self.remembered(|memory| (record(memory), memory.ledger.of(name)))
    }

    async fn save(&self, name: &Name, record: &Record) {
        self.change(|memory| {
            memory.names.insert(name.to_string(), record.clone());
        });
    }

    async fn load_ledger(&self) -> Ledger {
        self.remembered(|memory| memory.ledger.clone())
    }

    async fn save_ledger(&self, _: &Name, ledger: &Ledger) {
        self.change(|memory| memory.ledger.merge(ledger.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn memory_survives_the_process_and_is_ours_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE);
        let name = Name::parse("a.tail1.ts.net").unwrap();
        let record = Record::succeeded("2026-01-02T00:00:00Z".parse().unwrap());
        let world = || LocalWorld::new(LocalApi::new(Path::new("/nowhere")), Some(file.clone()));
        assert_eq!(world().load(&name).await.0, Record::default());
        world().save(&name, &record).await;
        assert_eq!(world().load(&name).await.0, record);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&file, "{").unwrap();
        assert_eq!(world().load(&name).await.0, Record::default(), "a torn file is not the end");
    }
}
