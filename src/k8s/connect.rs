//! From a way to reach the API server to a kube client: files, tokens, TLS, time limits.
//!
//! kube's own connector trusts no certificate that is its own root and needs a CA bundle in the image, so the
//! connector below it is ours; its middleware, its buffering and its kubeconfig loader are kube's. No proxy variable
//! is honoured. HTTP/1.1 only.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper::Uri;
use hyper::header::{self, HeaderValue};
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::client::legacy::{Builder, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::middleware::BaseUriLayer;
use kube::client::{Body, ConfigExt as _};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::time::Instant;
use tower::{BoxError, Layer as _, Service, ServiceExt as _};

use super::error::Error;
use super::tls::{self, Bundle};
use crate::settings::access::KubeAccess;

/// TCP and TLS together; the API server is near.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Writes come rarely; a connection kept longer only costs memory on both sides.
const IDLE_LIMIT: Duration = Duration::from_secs(20);
/// kubelet replaces a token long before it expires; a minute is what client-go uses.
const TOKEN_AGE: Duration = Duration::from_secs(60);

/// A client with what belongs to it.
pub(super) struct Connection {
    /// kube's client on our connector. Adds credentials itself unless there is a `token`.
    pub(super) client: kube::Client,
    /// Where Secrets are.
    pub(super) namespace: String,
    /// Scheme, host and port, for errors.
    pub(super) server: String,
    /// The service account's token.
    pub(super) token: Option<TokenFile>,
}

/// Builds the client for `access`.
pub(super) async fn connect(access: &KubeAccess) -> Result<Connection, Error> {
    match access {
        KubeAccess::InCluster { service_account, url } => in_cluster(service_account, url).await,
        KubeAccess::Kubeconfig { path, context } => kubeconfig(path.clone(), context.clone()).await,
    }
}

// === In a Pod ===

async fn in_cluster(dir: &Path, url: &str) -> Result<Connection, Error> {
    let read = async |name: &str| {
        let path = dir.join(name);
        tokio::fs::read_to_string(&path).await.map_err(|error| setup(format!("cannot read {}", path.display()), error))
    };
    let namespace = match tokio::fs::read_to_string(dir.join("namespace")).await {
        Ok(text) => text.trim().to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound && tokio::fs::metadata(dir).await.is_err() => {
            return Err(Error::NoServiceAccount { dir: dir.to_owned() });
        }
        Err(_) => read("namespace").await?.trim().to_owned(),
    };
    if namespace.is_empty() {
        return Err(setup(
            format!("{} is empty", dir.join("namespace").display()),
            io::Error::from(io::ErrorKind::InvalidData),
        ));
    }
    let token = TokenFile::open(dir.join("token")).await?;
    let ca = dir.join("ca.crt");
    let tls = tls::client_config(Bundle::File(ca.clone()))
        .map_err(|error| setup(format!("cannot use the cluster's CA bundle {}", ca.display()), error))?;
    let base: Uri = url.parse().map_err(|error| setup(format!("{url:?} is not the URL of an API server"), error))?;
    let service = BaseUriLayer::new(base.clone()).layer(http_client(tls, None).map_err(BoxError::from));
    let client = kube::Client::new(service, namespace.clone());
    Ok(Connection { client, namespace, server: server_of(&base), token: Some(token) })
}

// === From outside ===

async fn kubeconfig(path: PathBuf, context: Option<String>) -> Result<Connection, Error> {
    let shown = path.display().to_string();
    let refused = |error: kube::config::KubeconfigError| setup(format!("cannot use the kubeconfig {shown}"), error);
    let config = merged(&path).map_err(refused)?;
    let proxied = config.clusters.iter().any(|cluster| {
        cluster.cluster.as_ref().and_then(|cluster| cluster.proxy_url.as_deref()).is_some_and(|url| !url.is_empty())
    });
    let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
    let config = Config::from_custom_kubeconfig(config, &options).await.map_err(refused)?;
    if proxied && config.proxy_url.is_some() {
        return Err(setup(
            format!("cannot use the kubeconfig {shown}"),
            io::Error::new(io::ErrorKind::Unsupported, "`proxy-url` is not supported"),
        ));
    }
    // Credential plugins are processes that kube runs and waits for on this thread.
    let built = tokio::task::spawn_blocking(move || from_config(config)).await;
    let joined =
        built.map_err(|error| setup("reading the credentials of the kubeconfig was interrupted".to_owned(), error))?;
    joined.map_err(|error| setup(format!("cannot use the kubeconfig {shown}"), error))
}

/// One file, or the files of a list as `KUBECONFIG` has it; of a list, those that do not exist are passed over.
fn merged(path: &Path) -> Result<Kubeconfig, kube::config::KubeconfigError> {
    let files: Vec<_> = std::env::split_paths(path).filter(|file| file.exists()).collect();
    if path.exists() || files.is_empty() {
        return Kubeconfig::read_from(path);
    }
    files.iter().try_fold(Kubeconfig::default(), |merged, file| merged.merge(Kubeconfig::read_from(file)?))
}

fn from_config(mut config: Config) -> Result<Connection, BoxError> {
    let roots = config.root_cert.take();
    if roots.is_some() || config.accept_invalid_certs {
        // Any value keeps kube from looking for the image's CA bundle; our verifier takes over below.
        config.root_cert = Some(Vec::new());
    }
    let mut tls = config.rustls_client_config()?;
    if let Some(roots) = roots.filter(|_| !config.accept_invalid_certs) {
        tls::trust(&mut tls, Bundle::Fixed(roots.into_iter().map(CertificateDer::from).collect()))?;
    }
    let server_name = config.tls_server_name.clone().map(ServerName::try_from).transpose()?;
    let http = http_client(tls, server_name).map_err(BoxError::from);
    let base = config.base_uri_layer().layer(http);
    let headers = config.extra_headers_layer()?;
    let namespace = config.default_namespace.clone();
    let client = match config.auth_layer()? {
        Some(auth) => kube::Client::new(headers.layer(auth.layer(base)).map_err(BoxError::from), namespace.clone()),
        None => kube::Client::new(headers.layer(base), namespace.clone()),
    };
    Ok(Connection { client, namespace, server: server_of(&config.cluster_url), token: None })
}

// === The connector ===

type Https = TimedConnector<hyper_rustls::HttpsConnector<HttpConnector<MarkedResolver>>>;

fn http_client(tls: ClientConfig, server_name: Option<ServerName<'static>>) -> Client<Https, Body> {
    let mut tcp = HttpConnector::new_with_resolver(MarkedResolver(GaiResolver::new()));
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let mut builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    if let Some(name) = server_name {
        builder = builder.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    let connector = TimedConnector(builder.enable_http1().wrap_connector(tcp));
    Builder::new(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_LIMIT)
        .pool_max_idle_per_host(2)
        .build(connector)
}

/// Limits the time for TCP and TLS together.
#[derive(Clone)]
struct TimedConnector<C>(C);

impl<C> Service<Uri> for TimedConnector<C>
where
    C: Service<Uri, Error = BoxError>,
    C::Future: Send + 'static,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<C::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async move {
            tokio::time::timeout(CONNECT_LIMIT, connecting)
                .await
                .unwrap_or_else(|_| Err(Box::new(ConnectTimedOut { after: CONNECT_LIMIT })))
        })
    }
}

/// No connection within the limit.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {}", crate::goduration::format(*.after))]
pub(super) struct ConnectTimedOut {
    after: Duration,
}

/// The name did not resolve.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unresolved(String);

/// The system resolver, whose failures can be told from those of connecting.
#[derive(Clone)]
struct MarkedResolver(GaiResolver);

impl Service<Name> for MarkedResolver {
    type Response = <GaiResolver as Service<Name>>::Response;
    type Error = Unresolved;
    type Future = BoxFuture<'static, Result<Self::Response, Unresolved>>;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Unresolved>> {
        self.0.poll_ready(cx).map_err(|error| Unresolved(error.to_string()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let resolving = self.0.call(name);
        Box::pin(async move { resolving.await.map_err(|error| Unresolved(error.to_string())) })
    }
}

// === The token ===

/// The service account's token, at most [`TOKEN_AGE`] old.
pub(super) struct TokenFile {
    path: PathBuf,
    held: Mutex<(HeaderValue, Instant)>,
}

impl TokenFile {
    async fn open(path: PathBuf) -> Result<Self, Error> {
        let header = Self::read(&path)
            .await
            .map_err(|error| setup(format!("cannot use the token in {}", path.display()), error))?;
        Ok(Self { path, held: Mutex::new((header, Instant::now())) })
    }

    /// The value of `Authorization`.
    pub(super) async fn header(&self) -> HeaderValue {
        let (header, read_at) = self.held();
        if read_at.elapsed() < TOKEN_AGE { header } else { self.reload().await }
    }

    /// Reads the file now; a file that cannot be read leaves the last token in use.
    pub(super) async fn reload(&self) -> HeaderValue {
        match Self::read(&self.path).await {
            Ok(header) => {
                *self.held.lock().unwrap_or_else(PoisonError::into_inner) = (header.clone(), Instant::now());
                header
            }
            Err(error) => {
                tracing::debug!(path = %self.path.display(), %error, "cannot read the token again, keeping the last one");
                self.held().0
            }
        }
    }

    fn held(&self) -> (HeaderValue, Instant) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn read(path: &Path) -> io::Result<HeaderValue> {
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let token = tokio::fs::read_to_string(path).await?;
        let token = token.trim();
        if token.is_empty() {
            return Err(invalid("it is empty"));
        }
        let mut header = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| invalid("it holds characters that no token has"))?;
        header.set_sensitive(true);
        Ok(header)
    }
}

/// The value of `User-Agent`: who of us is asking, for audit logs.
pub(super) fn user_agent(component: &str) -> HeaderValue {
    HeaderValue::try_from(format!("tailpod/{} ({component})", env!("CARGO_PKG_VERSION")))
        .unwrap_or(HeaderValue::from_static("tailpod"))
}

/// Headers that every request of ours carries.
pub(super) const ACCEPT: (header::HeaderName, HeaderValue) =
    (header::ACCEPT, HeaderValue::from_static("application/json"));

fn server_of(uri: &Uri) -> String {
    match (uri.scheme_str(), uri.authority()) {
        // An authority may carry user information, which is nobody's business.
        (Some(scheme), Some(authority)) => {
            let host = authority.as_str().rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}")
        }
        _ => uri.to_string(),
    }
}

fn setup(what: String, source: impl Into<BoxError>) -> Error {
    Error::Setup { what, source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn outside_a_pod_the_error_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("serviceaccount");
        let error = in_cluster(&missing, "https://kubernetes.default.svc").await.err().unwrap();
        assert!(matches!(error, Error::NoServiceAccount { .. }), "{error:?}");
        let error = in_cluster(dir.path(), "https://kubernetes.default.svc").await.err().unwrap();
        assert!(error.to_string().contains("namespace"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_trimmed_read_again_and_kept_when_the_file_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "one\n").unwrap();
        let token = TokenFile::open(path.clone()).await.unwrap();
        assert_eq!(token.header().await, "Bearer one");

        std::fs::write(&path, "two").unwrap();
        assert_eq!(token.header().await, "Bearer one", "young enough");
        tokio::time::advance(TOKEN_AGE).await;
        assert_eq!(token.header().await, "Bearer two");

        std::fs::write(&path, "three").unwrap();
        assert_eq!(token.reload().await, "Bearer three", "asked for");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(token.reload().await, "Bearer three", "the last one that could be read");
        assert!(token.header().await.is_sensitive());
    }

    #[tokio::test]
    async fn an_empty_or_garbled_token_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        for bad in [" \n", "a\nb"] {
            std::fs::write(&path, bad).unwrap();
            assert!(TokenFile::open(path.clone()).await.is_err(), "{bad:?}");
        }
    }

    #[test]
    fn servers_are_shown_without_user_information() {
        assert_eq!(server_of(&"https://user:hush@[::1]:6443/k8s".parse().unwrap()), "https://[::1]:6443");
    }
}
