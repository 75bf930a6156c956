//! TLS of the proxy itself: which certificate a client gets, and keeping it fresh (api-proxy.md 2.1).
//!
//! With tailscaled's certificates the client chooses by SNI among the node's own names, a name without a dot stands for
//! the first that begins with it, and who names none gets the first. Each is held in memory and renewed ahead, so
//! that only the first handshake for a name waits for tailscaled. HTTP/1.1 is all that is offered.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{Acceptor, ResolvesServerCertUsingSni};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::Tls;
use crate::k8s::x509;
use crate::localapi::types::Status;
use crate::localapi::{LocalApi, Peers};

/// A certificate is asked for again at least so often; tailscaled has it at hand unless it has to be renewed.
const REFRESH: Duration = Duration::from_secs(3600);
/// Between looks for what is due, and for changed names.
const LOOK: Duration = Duration::from_secs(60);
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

/// Certificates of the node's names.
#[derive(Debug)]
pub(super) struct Names {
    localapi: LocalApi,
    domains: Mutex<Vec<String>>,
    held: Mutex<HashMap<String, Held>>,
    /// By name: handshakes for the same one wait for the first one's answer, and for no other's, which may be a
    /// certificate authority away.
    asking: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    refusing: Arc<ServerConfig>,
}

#[derive(Clone, Debug)]
struct Held {
    config: Arc<ServerConfig>,
    asked: Instant,
    /// Seconds since 1970.
    not_before: i64,
    not_after: i64,
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
        let domains = domains(status);
        match tls {
            Tls::Off => Ok(Self::Off),
            Tls::Files { certificate, key } => Files::open(certificate, key).map(Self::Files),
            Tls::Tailscale if domains.is_empty() => Err(BadCertificate::NoDomain),
            Tls::Tailscale => {
                let nobody =
                    base(|builder| Ok(builder.with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new()))));
                Ok(Self::Tailscale(Box::new(Names {
                    localapi: localapi.clone(),
                    domains: Mutex::new(domains),
                    held: Mutex::default(),
                    asking: Mutex::default(),
                    refusing: Arc::new(nobody.map_err(BadCertificate::Pair)?),
                })))
            }
        }
    }

    /// Keeps what is held fresh until `stop`.
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

// === impl Names ===

impl Names {
    /// What answers a client that names `sni`; one that refuses it in words when it is none of ours.
    async fn config(&self, sni: Option<&str>) -> Arc<ServerConfig> {
        let name = choose(&lock(&self.domains), sni);
        let Some(name) = name else {
            tracing::info!(sni = sni.unwrap_or_default(), "refused a TLS handshake for a name that is not this node's");
            return Arc::clone(&self.refusing);
        };
        let held = |names: &Self| lock(&names.held).get(&name).map(|held| Arc::clone(&held.config));
        if let Some(config) = held(self) {
            return config;
        }
        let asking = Arc::clone(lock(&self.asking).entry(name.clone()).or_default());
        let _first = asking.lock().await;
        if let Some(config) = held(self) {
            return config;
        }
        self.fetch(&name).await.unwrap_or_else(|error| {
            tracing::warn!("{}", chain(&error));
            Arc::clone(&self.refusing)
        })
    }

    async fn fetch(&self, name: &str) -> Result<Arc<ServerConfig>, BadCertificate> {
        let asked = Instant::now();
        let pair = self.localapi.certificate_pair(name).await;
        let pair = pair.map_err(|error| BadCertificate::Daemon(name.to_owned(), error))?;
        let (config, leaf) = config(pair.expose(), pair.expose())?;
        let config = Arc::new(config);
        let valid = x509::validity(&leaf);
        let (not_before, not_after) = valid.map_or((0, i64::MAX), |valid| (valid.not_before, valid.not_after));
        let held = Held { config: Arc::clone(&config), asked, not_before, not_after };
        lock(&self.held).insert(name.to_owned(), held);
        Ok(config)
    }

    async fn keep_fresh(&self) {
        let first = lock(&self.domains).first().cloned();
        // Ahead of the first client.
        self.config(first.as_deref()).await;
        loop {
            tokio::time::sleep(LOOK).await;
            match self.localapi.status(Peers::Omit).await {
                Ok(status) if !status.cert_domains.is_empty() => *lock(&self.domains) = domains(&status),
                // tailscaled restarts, or the netmap is not there yet: the names stay.
                Ok(_) | Err(_) => {}
            }
            let domains = lock(&self.domains).clone();
            lock(&self.held).retain(|name, _| domains.contains(name));
            lock(&self.asking).retain(|name, _| domains.contains(name));
            let due: Vec<String> = {
                let now = unix_now();
                let held = lock(&self.held);
                held.iter().filter(|(_, held)| held.is_due(now)).map(|(name, _)| name.clone()).collect()
            };
            for name in due {
                if let Err(error) = self.fetch(&name).await {
                    tracing::warn!("keeping the certificate of {name}: {}", chain(&error));
                }
            }
        }
    }
}

impl Held {
    fn is_due(&self, now: i64) -> bool {
        let lifetime = self.not_after.saturating_sub(self.not_before);
        self.asked.elapsed() >= REFRESH || self.not_after.saturating_sub(now) < lifetime / 3
    }
}

/// The names for which there are certificates, the node's own before those of the Services it hosts: control lists them
/// as it likes, and tailscaled orders one certificate at a time, that of a Service perhaps in vain.
fn domains(status: &Status) -> Vec<String> {
    let own = status.self_.as_ref().map(|node| node.dns_name.trim_end_matches('.')).unwrap_or_default();
    let mut domains = status.cert_domains.clone();
    domains.sort_by_key(|domain| !domain.eq_ignore_ascii_case(own));
    domains
}

/// The node's name that a client means.
fn choose(domains: &[String], sni: Option<&str>) -> Option<String> {
    let chosen = match sni {
        None => domains.first(),
        Some(sni) if !sni.contains('.') => domains
            .iter()
            .find(|domain| domain.split_once('.').is_some_and(|(first, _)| first.eq_ignore_ascii_case(sni))),
        Some(sni) => domains.iter().find(|domain| domain.eq_ignore_ascii_case(sni)),
    };
    chosen.cloned()
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
fn config(chain: &[u8], key: &[u8]) -> Result<(ServerConfig, CertificateDer<'static>), BadCertificate> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(BadCertificate::Pem)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(BadCertificate::Pem)?;
    let leaf = chain.first().cloned().ok_or(BadCertificate::Pem(rustls::pki_types::pem::Error::NoItemsFound))?;
    let config = base(|builder| builder.with_single_cert(chain, key)).map_err(BadCertificate::Pair)?;
    Ok((config, leaf))
}

type Builder = rustls::ConfigBuilder<ServerConfig, rustls::server::WantsServerCert>;

fn base(finish: impl FnOnce(Builder) -> Result<ServerConfig, rustls::Error>) -> Result<ServerConfig, rustls::Error> {
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unix_now() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_own_name_comes_first() {
        let own = crate::localapi::types::PeerStatus { dns_name: "Pod.tail.ts.net.".to_owned(), ..Default::default() };
        let cert_domains = ["kube.tail.ts.net", "b.tail.ts.net", "pod.tail.ts.net"].map(ToOwned::to_owned).to_vec();
        let status = Status { self_: Some(own), cert_domains, ..Status::default() };
        assert_eq!(domains(&status), ["pod.tail.ts.net", "kube.tail.ts.net", "b.tail.ts.net"]);
    }

    #[test]
    fn a_name_is_chosen_among_the_nodes_own() {
        let domains = ["a.tail.ts.net".to_owned(), "ab.tail.ts.net".to_owned()];
        for (sni, expected) in [
            (None, Some("a.tail.ts.net")),
            (Some("a"), Some("a.tail.ts.net")),
            (Some("AB"), Some("ab.tail.ts.net")),
            (Some("b"), None),
            (Some("Ab.Tail.ts.net"), Some("ab.tail.ts.net")),
            (Some("c.tail.ts.net"), None),
            (Some("a.tail.ts.net.evil"), None),
            (Some("../prefs"), None),
            (Some(""), None),
        ] {
            assert_eq!(choose(&domains, sni).as_deref(), expected, "{sni:?}");
        }
        assert_eq!(choose(&[], None), None);
    }
}
