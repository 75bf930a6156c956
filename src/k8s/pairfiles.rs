//! A static client certificate, from a kubeconfig or from files that somebody else replaces.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use zeroize::Zeroizing;

use super::connections::{Connections, Depth};
use super::keypair::KeyPair;
use super::rereads::Rereads;
use crate::lock::lock;
use crate::secret::Secret;

/// A PEM text.
#[derive(Clone, Debug)]
pub(super) enum Pem {
    /// In the kubeconfig itself.
    Data(Secret<Zeroizing<Vec<u8>>>),
    /// In a file.
    File(PathBuf),
}

/// A client certificate and the connections that were made with it.
#[derive(Debug)]
pub(super) struct PairFiles {
    chain: Pem,
    key: Pem,
    /// With the generation of its connections.
    held: Mutex<(Arc<KeyPair>, u64)>,
    connections: Connections,
    rereads: Rereads,
}

impl Pem {
    fn read(&self) -> io::Result<Zeroizing<Vec<u8>>> {
        match self {
            Self::Data(data) => Ok(data.expose().clone()),
            Self::File(path) => std::fs::read(path)
                .map(Zeroizing::new)
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
        }
    }

    fn path(&self) -> Option<&PathBuf> {
        match self {
            Self::File(path) => Some(path),
            Self::Data(_) => None,
        }
    }
}

fn read(chain: &Pem, key: &Pem) -> io::Result<KeyPair> {
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    KeyPair::from_pem(&chain.read()?, &key.read()?).map_err(invalid)
}

impl PairFiles {
    /// Reads both.
    pub(super) fn open(chain: Pem, key: Pem) -> io::Result<Self> {
        let held = Mutex::new((Arc::new(read(&chain, &key)?), 0));
        Ok(Self { chain, key, held, connections: Connections::default(), rereads: Rereads::default() })
    }

    /// The pair that was read last, and its generation.
    pub(super) fn held(&self) -> (Arc<KeyPair>, u64) {
        lock(&self.held).clone()
    }

    /// The connections that are closed when the pair changes.
    pub(super) fn connections(&self) -> &Connections {
        &self.connections
    }

    /// The files that it comes from.
    pub(super) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.chain, &self.key].into_iter().filter_map(Pem::path)
    }

    /// Reads the files again. A pair that has changed closes every connection of the old one; one that does not fit,
    /// as in the middle of a replacement, changes nothing.
    pub(super) fn reload(&self) {
        // Before reading: what was read last is then what was there last.
        let mut held = lock(&self.held);
        let read = read(&self.chain, &self.key);
        let Some(fresh) = self.rereads.told(&"the client certificate", read) else { return };
        if *held.0 != fresh {
            *held = (Arc::new(fresh), held.1 + 1);
            let closed = self.connections.retire(held.1, Depth::All);
            tracing::info!(closed, "the client certificate changed, closing its connections");
        }
    }
}

#[cfg(test)]
#[cfg(feature = "sandbox")]
mod tests {
    use std::time::Duration;

    use super::*;

    fn made() -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["me".to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn files_that_do_not_fit_are_told_of_once_and_change_nothing() {
        let (log, _guard) = crate::telemetry::testing::captured();
        let dir = tempfile::tempdir().unwrap();
        let (chain, key) = (dir.path().join("crt"), dir.path().join("key"));
        let (old, new) = (made(), made());
        let write = |pair: &(String, String)| {
            std::fs::write(&chain, &pair.0).unwrap();
            std::fs::write(&key, &pair.1).unwrap();
        };
        write(&old);
        let pair = PairFiles::open(Pem::File(chain.clone()), Pem::File(key.clone())).unwrap();
        std::fs::write(&chain, &new.0).unwrap();
        pair.reload();
        pair.reload();
        assert_eq!(pair.held().1, 0);
        write(&new);
        pair.reload();
        assert_eq!(pair.held().1, 1);
        let lines = log.take();
        assert!(lines[0].starts_with("warning: cannot read the client certificate, going on"), "{lines:?}");
        assert!(lines[1].starts_with("debug: "), "{lines:?}");
        assert_eq!(lines[2], "the client certificate can be read again");
    }

    #[test]
    fn of_two_looks_the_later_one_counts() {
        let dir = tempfile::tempdir().unwrap();
        let (chain, key) = (dir.path().join("crt"), dir.path().join("key"));
        let (old, new) = (made(), made());
        std::fs::write(&chain, &old.0).unwrap();
        std::fs::write(&key, &old.1).unwrap();
        let pair = PairFiles::open(Pem::File(chain.clone()), Pem::File(key.clone())).unwrap();
        // A look that has the old chain and waits for its key, while both are replaced.
        std::fs::remove_file(&key).unwrap();
        nix::unistd::mkfifo(&key, nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| pair.reload());
            let mut writer = std::fs::OpenOptions::new().write(true).open(&key).unwrap();
            for (path, text) in [(&chain, &new.0), (&key, &new.1)] {
                std::fs::write(dir.path().join("new"), text).unwrap();
                std::fs::rename(dir.path().join("new"), path).unwrap();
            }
            scope.spawn(|| pair.reload());
            std::thread::sleep(Duration::from_millis(50));
            std::io::Write::write_all(&mut writer, old.1.as_bytes()).unwrap();
        });
        let (held, generation) = pair.held();
        let wanted = KeyPair::from_pem(new.0.as_bytes(), new.1.as_bytes()).unwrap();
        assert!(*held == wanted && generation == 1, "the older look has won: {generation}");
    }
}
