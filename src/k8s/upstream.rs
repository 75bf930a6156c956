//! The API server as a place to send requests to: where it is, who we are to it, new connections.
//!
//! One for the kube client and one for the proxy, of the same make: in a Pod the service account, elsewhere a context
//! of a kubeconfig. Credentials are used only where the URL is https. Each connection belongs to the client
//! certificate it was opened with, and is closed when that is replaced. TLS sessions are never resumed across
//! certificates.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tower::BoxError;

pub use super::base::{BadBase, Base};
use super::bearer::Bearer;
use super::connections::Connections;
pub use super::dial::DialError;
use super::dial::Dialer;
use super::egress::Kind;
use super::error::Error;
pub use super::exec::CredentialError;
use super::exec::{Authenticator, Mode};
use super::kubeconfig::{self, Entry, Trust, User};
use super::pairfiles::PairFiles;
pub use super::surroundings::Surroundings;
use super::tls::{self, Bundle, Trusts};
use super::token::Authorization;
use super::tokenfile::TokenFile;
pub use super::tracked::Tracked;
use crate::filewatch::FileWatch;
use crate::lock::lock;
use crate::settings::access::KubeAccess;
use crate::shutdown::Errands;

/// How often files with a client certificate are looked at, beside what inotify tells.
const FILES_POLL: Duration = Duration::from_secs(60);
/// Dials for one connection, when the certificate changes in the middle of them.
const DIALS: usize = 3;

/// The API server as a place to send requests to. Cheap to clone.
#[derive(Clone)]
pub struct Upstream {
    inner: Arc<Inner>,
}

/// Whose credentials an [`Upstream`] has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Those that the access leads to.
    Ours,
    /// None at all; trust, server name and proxy are kept.
    Nobodys,
}

/// What a request is sent with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    authorization: Option<Authorization>,
    generation: u64,
}

struct Inner {
    dialer: Dialer,
    /// For https.
    trusts: Option<Trusts>,
    source: Source,
    /// What was dialled with last.
    tls: Mutex<Option<Prepared>>,
    namespace: Option<String>,
    impersonate: Vec<(HeaderName, HeaderValue)>,
    /// Ends with the rest.
    _errands: Errands,
}

/// A TLS configuration, which holds for one client certificate and one state of trust.
struct Prepared {
    generation: u64,
    trust: u64,
    tls: Arc<ClientConfig>,
}

/// Where credentials come from.
enum Source {
    /// From files and texts; each may be there or not.
    Static {
        bearer: Bearer,
        pair: Option<Arc<PairFiles>>,
        connections: Connections,
    },
    Plugin(Arc<Authenticator>),
}

// === impl Credentials ===

impl Credentials {
    /// The value of `Authorization`, marked as sensitive.
    pub fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref().map(Authorization::header)
    }

    /// Differs between credentials that differ.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

// === impl Upstream ===

impl Upstream {
    /// Reads what `access` names, for a daemon; sends nothing and runs no plugin yet. What the environment says is
    /// taken from this process, its proxies as `rest.InClusterConfig` does in a Pod too.
    ///
    /// # Errors
    /// [`Error::Setup`]: something is missing or cannot be used, as a plugin that needs a person.
    pub async fn open(access: &KubeAccess, whose: Whose) -> Result<Self, Error> {
        Self::open_in(access, whose, &here()?.unattended()).await
    }

    /// The same in `surroundings`.
    ///
    /// # Errors
    /// As [`Self::open`]; a plugin that needs a person is one only where nobody can be.
    pub async fn open_in(access: &KubeAccess, whose: Whose, surroundings: &Surroundings) -> Result<Self, Error> {
        match access {
            KubeAccess::InCluster { service_account, url } => {
                Self::in_cluster(service_account, url, whose, surroundings).await
            }
            KubeAccess::Kubeconfig { path, context } => {
                let refused = |error: BoxError| setup(format!("cannot use the kubeconfig {}", path.display()), error);
                let entry = kubeconfig::load(path, context.as_deref()).map_err(|error| refused(error.into()))?;
                Self::of_entry(entry, (path.clone(), context.clone()), whose, surroundings).await.map_err(refused)
            }
        }
    }

    async fn in_cluster(dir: &Path, url: &str, whose: Whose, surroundings: &Surroundings) -> Result<Self, Error> {
        let base =
            Base::parse(url).map_err(|error| setup(format!("{url:?} is not the URL of an API server"), error))?;
        let ca = dir.join("ca.crt");
        let trusts = Trusts::only(Bundle::File(ca.clone()))
            .map_err(|error| setup(format!("cannot use the cluster's CA bundle {}", ca.display()), error))?;
        let bearer = match whose {
            Whose::Nobodys => Bearer::None,
            Whose::Ours => {
                let path = dir.join("token");
                let refused = |error| setup(format!("cannot use the token in {}", path.display()), error);
                Bearer::File(TokenFile::open(path.clone(), None).await.map_err(refused)?)
            }
        };
        let dialer = dialer(base, None, None, surroundings)
            .map_err(|error| setup("cannot reach the API server".to_owned(), error))?;
        let source = Source::Static { bearer, pair: None, connections: Connections::default() };
        Ok(Self::new(dialer, Some(trusts), source, None, Vec::new()))
    }

    async fn of_entry(
        entry: Entry,
        from: (PathBuf, Option<String>),
        whose: Whose,
        surroundings: &Surroundings,
    ) -> Result<Self, BoxError> {
        let trusts = if entry.base.is_tls() { Some(trusts(entry.trust, surroundings)?) } else { None };
        // Nothing secret leaves over plain text.
        let user = if whose == Whose::Ours && entry.base.is_tls() { entry.user } else { User::default() };
        let dialer = dialer(entry.base, entry.server_name, entry.proxy, surroundings)?;
        let source = if let Some(config) = user.exec {
            if config.mode == Mode::Always && surroundings.exec.stdin.unavailable.is_some() {
                config.is_interactive(&surroundings.exec.stdin)?;
            }
            Source::Plugin(Authenticator::shared(config, surroundings.exec.clone()))
        } else {
            let bearer = match (user.token_file, user.fixed) {
                (Some(path), fixed) => {
                    let shown = path.display().to_string();
                    let opened = TokenFile::open(path, fixed).await;
                    Bearer::File(opened.map_err(|error| format!("cannot use the token in {shown}: {error}"))?)
                }
                (None, Some(authorization)) => Bearer::fixed(authorization, from.0, from.1),
                (None, None) => Bearer::None,
            };
            let pair = user.pair.map(|(chain, key)| PairFiles::open(chain, key).map(Arc::new)).transpose()?;
            let connections = pair.as_ref().map(|pair| pair.connections().clone()).unwrap_or_default();
            Source::Static { bearer, pair, connections }
        };
        Ok(Self::new(dialer, trusts, source, entry.namespace, user.impersonate))
    }

    fn new(
        dialer: Dialer,
        trusts: Option<Trusts>,
        source: Source,
        namespace: Option<String>,
        impersonate: Vec<(HeaderName, HeaderValue)>,
    ) -> Self {
        let mut errands = Errands::default();
        if let Source::Static { pair: Some(pair), .. } = &source
            && let Some(file) = pair.files().next()
        {
            errands.spawn(keep_fresh(Arc::clone(pair), file.clone()));
        }
        let tls = Mutex::default();
        Self { inner: Arc::new(Inner { dialer, trusts, source, tls, namespace, impersonate, _errands: errands }) }
    }

    /// The configured URL.
    pub fn base(&self) -> &Base {
        &self.inner.dialer.base
    }

    /// The namespace of the context.
    pub(super) fn namespace(&self) -> Option<&str> {
        self.inner.namespace.as_deref()
    }

    /// `as` and its like of the kubeconfig: for our own requests, never for a peer's.
    pub(super) fn impersonation(&self) -> &[(HeaderName, HeaderValue)] {
        &self.inner.impersonate
    }

    /// What the next request is sent with. May run a plugin, which many callers share; cancel-safe.
    ///
    /// # Errors
    /// There are no credentials; nothing may be sent.
    pub async fn credentials(&self) -> Result<Credentials, CredentialError> {
        let (authorization, generation) = match &self.inner.source {
            Source::Plugin(plugin) => {
                let material = plugin.get().await?;
                (material.token.clone(), material.generation)
            }
            Source::Static { bearer, .. } => bearer.get().await,
        };
        Ok(Credentials { authorization, generation })
    }

    /// After the API server said 401 to a request that was made with `used`: gets others if that is worth a try now.
    /// True when there are others.
    pub async fn rejected(&self, used: &Credentials) -> bool {
        match &self.inner.source {
            Source::Plugin(plugin) => plugin.rejected(used.generation).await,
            Source::Static { bearer, .. } => bearer.rejected(used.generation).await,
        }
    }

    /// After a 401 that may be about `used`, or about something else: others are got if that is worth a try now, and
    /// nobody waits for them.
    pub fn suspected(&self, used: &Credentials) {
        match &self.inner.source {
            Source::Plugin(plugin) => drop(plugin.suspected(used.generation)),
            Source::Static { bearer, .. } => bearer.suspected(used.generation),
        }
    }

    /// A new connection with the client certificate of now, in TLS with ALPN `http/1.1` if the URL is https. The
    /// certificate may be replaced at any time; the connection is cancelled then. Has limits for each phase, a plugin's
    /// run included; `limit` is that of name and TCP, for all addresses together.
    pub async fn dial(&self, limit: Duration) -> Result<Tracked, DialError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let (connections, generation, tls) = self.certificate().await?;
            let dialled = self.inner.dialer.dial(limit, tls, connections, generation).await;
            if connections.generation() == generation || tries == DIALS {
                return dialled;
            }
            tracing::debug!("the client certificate changed during a handshake, connecting again");
        }
    }

    /// The certificate generation of now, as TLS configuration.
    async fn certificate(&self) -> Result<(&Connections, u64, Option<Arc<ClientConfig>>), DialError> {
        let (connections, generation, pair) = match &self.inner.source {
            Source::Plugin(plugin) => {
                let material = plugin.get().await.map_err(DialError::Credentials)?;
                (plugin.connections(), material.certificate, material.identity.clone().map(Arc::new))
            }
            Source::Static { pair: Some(pair), connections, .. } => {
                pair.reload();
                let (held, generation) = pair.held();
                (connections, generation, Some(held))
            }
            Source::Static { pair: None, connections, .. } => (connections, 0, None),
        };
        let Some(trusts) = &self.inner.trusts else { return Ok((connections, generation, None)) };
        let trust = trusts.version();
        let mut held = lock(&self.inner.tls);
        if let Some(held) = held.as_ref().filter(|held| (held.generation, held.trust) == (generation, trust)) {
            return Ok((connections, generation, Some(Arc::clone(&held.tls))));
        }
        let made = tls::client_config(trusts, pair.map(|pair| pair.certified()));
        let made = Arc::new(made.map_err(|error| DialError::Tls(error.to_string()))?);
        *held = Some(Prepared { generation, trust, tls: Arc::clone(&made) });
        Ok((connections, generation, Some(made)))
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("base", self.base()).finish_non_exhaustive()
    }
}

/// The surroundings of this process.
pub(super) fn here() -> Result<Surroundings, Error> {
    Surroundings::of_process().map_err(|error| setup("the environment cannot be used".to_owned(), error))
}

/// Notices a replaced client certificate while nobody dials.
async fn keep_fresh(pair: Arc<PairFiles>, file: PathBuf) {
    let mut watch = FileWatch::new(&file);
    loop {
        watch.changed(FILES_POLL).await;
        pair.reload();
    }
}

fn dialer(
    base: Base,
    server_name: Option<String>,
    proxy: Option<super::egress::ProxyUrl>,
    surroundings: &Surroundings,
) -> Result<Dialer, BoxError> {
    let proxy = proxy.or_else(|| surroundings.proxies.towards(base.is_tls(), base.host(), base.port()).cloned());
    let proxy_tls = match &proxy {
        Some(proxy) if proxy.kind == Kind::Https => {
            let trusts = Trusts::only(Bundle::system(surroundings.ca_bundle.clone())?)?;
            Some(Arc::new(tls::client_config(&trusts, None)?))
        }
        _ => None,
    };
    let server_name = base
        .is_tls()
        .then(|| ServerName::try_from(server_name.unwrap_or_else(|| base.host().to_owned())))
        .transpose()
        .map_err(|_| "the server's name is none that a certificate could have")?;
    Ok(Dialer { base, server_name, proxy, proxy_tls })
}

fn trusts(trust: Trust, surroundings: &Surroundings) -> io::Result<Trusts> {
    match trust {
        Trust::Anyone => Ok(Trusts::Anyone),
        Trust::System => Trusts::only(Bundle::system(surroundings.ca_bundle.clone())?),
        Trust::File(path) => Trusts::only(Bundle::File(path)),
        Trust::Data(pem) => {
            let roots = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(io::Error::other)?;
            Trusts::only(Bundle::Fixed(roots))
        }
    }
}

fn setup(what: String, source: impl Into<BoxError>) -> Error {
    Error::Setup { what, source: source.into() }
}
