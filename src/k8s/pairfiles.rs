//! A static client certificate, from a kubeconfig or from files that somebody else replaces.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use zeroize::Zeroizing;

use super::connections::{Connections, Depth};
use super::keypair::KeyPair;
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
        Ok(Self { chain, key, held, connections: Connections::default() })
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
        let fresh = match read(&self.chain, &self.key) {
            Ok(fresh) => fresh,
            Err(error) => {
                tracing::debug!(%error, "cannot read the client certificate again, keeping the last one");
                return;
            }
        };
        let mut held = lock(&self.held);
        if *held.0 != fresh {
            *held = (Arc::new(fresh), held.1 + 1);
            let closed = self.connections.retire(held.1, Depth::All);
            tracing::info!(closed, "the client certificate changed, closing its connections");
        }
    }
}
