//! TLS of the proxy itself: whose certificates it has, those of two files, and how connections begin (api-proxy.md 2.1).
//! HTTP/1.1 is all that is offered.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::Acceptor;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::Tls;
use super::names::Names;
use crate::causes::chain;
use crate::localapi::LocalApi;
use crate::localapi::types::Status;
use crate::lock::lock;

/// Between looks at certificate files.
const STAT: Duration = Duration::from_secs(1);

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadCertificate {
    /// tailscaled has none for us.
    #[error("tailscaled gives no certificate for {0}")]
    Daemon(String, #[source] crate::localapi::Error),
    /// A file cannot be read.
    #[error("cannot read {}", .0.display())]
    File(PathBuf, #[source] io::Error),
    /// No PEM with a certificate and a key in it.
    #[error("there is no certificate or no key")]
    Pem(#[source] rustls::pki_types::pem::Error),
    /// The key does not belong to the certificate, or is of an unknown kind.
    #[error("certificate and key cannot be used together")]
    Pair(#[source] rustls::Error),
    /// The node has no name for which there are certificates.
    #[error("this node has no certificate domain; HTTPS has to be enabled for the tailnet")]
    NoDomain,
}

/// How connections begin.
#[derive(Debug)]
pub(super) enum Certificates {
    /// Without TLS.
    Off,
    /// With those of the node's names.
    Tailscale(Box<Names>),
    /// With the one of two files.
    Files(Files),
}

/// The certificate of two files.
#[derive(Debug)]
pub(super) struct Files {
    certificate: PathBuf,
    key: PathBuf,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    stamps: [Option<Stamp>; 2],
    looked: Instant,
}

/// What tells one state of a file from another.
type Stamp = (u64, i64, i64, u64);

impl Certificates {
    /// What `tls` asks for, on the node of this `status`.
    pub(super) fn open(tls: &Tls, localapi: &LocalApi, status: &Status) -> Result<Self, BadCertificate> {
        match tls {
            Tls::Off => Ok(Self::Off),
            Tls::Files { certificate, key } => Files::open(certificate, key).map(Self::Files),
            Tls::Tailscale => Names::open(localapi, status).map(|names| Self::Tailscale(Box::new(names))),
        }
    }

    /// Gets certificates and keeps them fresh until `stop`.
    pub(super) async fn keep_fresh(&self, stop: CancellationToken) -> Result<(), Infallible> {
        match self {
            Self::Tailscale(names) => {
                stop.run_until_cancelled(names.keep_fresh()).await;
            }
            Self::Off | Self::Files(_) => stop.cancelled().await,
        }
        Ok(())
    }

    /// The server's side of a handshake.
    pub(super) async fn accept(&self, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let start = LazyConfigAcceptor::new(Acceptor::default(), tcp).await?;
        let config = match self {
            Self::Tailscale(names) => names.config(start.client_hello().server_name()).await,
            Self::Files(files) => files.config(),
            Self::Off => return Err(io::ErrorKind::Unsupported.into()),
        };
        start.into_stream(config).await
    }
}

// === impl Files ===

impl Files {
    fn open(certificate: &Path, key: &Path) -> Result<Self, BadCertificate> {
        let stamps = [stamp(certificate), stamp(key)];
        let config = Arc::new(of_files(certificate, key)?);
        let current = Mutex::new(Current { config, stamps, looked: Instant::now() });
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), current })
    }

    /// What answers now. Files that changed are read again; those that cannot be used change nothing.
    fn config(&self) -> Arc<ServerConfig> {
        let mut current = lock(&self.current);
        if current.looked.elapsed() >= STAT {
            current.looked = Instant::now();
            let stamps = [stamp(&self.certificate), stamp(&self.key)];
            if stamps != current.stamps {
                match of_files(&self.certificate, &self.key) {
                    Ok(config) => {
                        tracing::info!(path = %self.certificate.display(), "read the certificate again");
                        (current.config, current.stamps) = (Arc::new(config), stamps);
                    }
                    Err(error) => {
                        // Certificate and key are rarely replaced in one step: the next look may find both.
                        tracing::warn!("keeping the last certificate: {}", chain(&error));
                    }
                }
            }
        }
        Arc::clone(&current.config)
    }
}

fn of_files(certificate: &Path, key: &Path) -> Result<ServerConfig, BadCertificate> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| BadCertificate::File(path.to_owned(), error));
    config(&read(certificate)?, &read(key)?).map(|(config, _)| config)
}

fn stamp(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()))
}

// === configurations ===

/// A configuration with the chain and the key of these PEM texts, and the leaf.
pub(super) fn config(chain: &[u8], key: &[u8]) -> Result<(ServerConfig, CertificateDer<'static>), BadCertificate> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(BadCertificate::Pem)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(BadCertificate::Pem)?;
    let leaf = chain.first().cloned().ok_or(BadCertificate::Pem(rustls::pki_types::pem::Error::NoItemsFound))?;
    let config = base(|builder| builder.with_single_cert(chain, key)).map_err(BadCertificate::Pair)?;
    Ok((config, leaf))
}

pub(super) type Builder = rustls::ConfigBuilder<ServerConfig, rustls::server::WantsServerCert>;

pub(super) fn base(
    finish: impl FnOnce(Builder) -> Result<ServerConfig, rustls::Error>,
) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = finish(builder.with_no_client_auth())?;
    // With HTTP/2 kubectl could not exec.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Resumed without memory here, one ticket for each handshake.
    config.ticketer = rustls::crypto::ring::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    Ok(config)
}
