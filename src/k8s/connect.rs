//! From a way to reach the API server to a kube client on our own connector.
//!
//! kube's part is its request buffering; where the server is, who we are and how a connection is made is
//! [`Upstream`]'s. HTTP/1.1 only.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper::Uri;
use hyper::header::{self, HeaderValue};
use hyper::rt::ReadBufCursor;
use hyper_util::client::legacy::connect::{Connected, Connection as Connects};
use hyper_util::client::legacy::{Builder, Client};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kube::client::middleware::BaseUriLayer;
use tower::{BoxError, Layer as _, Service, ServiceExt as _};

use super::egress::EnvProxies;
use super::error::Error;
use super::upstream::{DialError, Surroundings, Tracked, Upstream, Whose};
use crate::settings::access::KubeAccess;

/// TCP and TLS together; the API server is near.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Writes come rarely; a connection kept longer only costs memory on both sides.
const IDLE_LIMIT: Duration = Duration::from_secs(20);

/// A client with what belongs to it.
pub(super) struct Connection {
    /// kube's client on our connector. Adds no credentials.
    pub(super) client: kube::Client,
    /// Where Secrets are.
    pub(super) namespace: String,
    /// Who we are.
    pub(super) upstream: Upstream,
}

/// Builds the client for `access`.
pub(super) async fn connect(access: &KubeAccess, surroundings: &Surroundings) -> Result<Connection, Error> {
    let (upstream, namespace) = match access {
        KubeAccess::InCluster { service_account, .. } => {
            // First, since its absence tells that this is no Pod.
            let namespace = pod_namespace(service_account).await?;
            // Upstream's client for the Pod's own Secret knows no proxies (`kube/kubeclient`).
            let direct = Surroundings { proxies: EnvProxies::default(), ..surroundings.clone() };
            (Upstream::open_in(access, Whose::Ours, &direct).await?, namespace)
        }
        KubeAccess::Kubeconfig { .. } => {
            let upstream = Upstream::open_in(access, Whose::Ours, surroundings).await?;
            let namespace = upstream.namespace().unwrap_or("default").to_owned();
            (upstream, namespace)
        }
    };
    let base = format!("{}{}", upstream.base(), upstream.base().prefix());
    let base: Uri = base.parse().map_err(|error| setup(format!("{base:?} is not the URL of an API server"), error))?;
    let http = Builder::new(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_LIMIT)
        .pool_max_idle_per_host(2)
        .build::<_, kube::client::Body>(Connector(upstream.clone()));
    let http: Client<_, _> = http;
    let service = BaseUriLayer::new(base).layer(http.map_err(BoxError::from));
    let client = kube::Client::new(service, namespace.clone());
    Ok(Connection { client, namespace, upstream })
}

/// The namespace of the Pod, from its service account.
async fn pod_namespace(dir: &Path) -> Result<String, Error> {
    let path = dir.join("namespace");
    let namespace = match tokio::fs::read_to_string(&path).await {
        Ok(text) => text.trim().to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound && tokio::fs::metadata(dir).await.is_err() => {
            return Err(Error::NoServiceAccount { dir: dir.to_owned() });
        }
        Err(error) => return Err(setup(format!("cannot read {}", path.display()), error)),
    };
    if namespace.is_empty() {
        return Err(setup(format!("{} is empty", path.display()), io::Error::from(io::ErrorKind::InvalidData)));
    }
    Ok(namespace)
}

// === The connector ===

/// Dials the one server there is, whatever the URI says.
#[derive(Clone)]
struct Connector(Upstream);

/// A connection as hyper wants it.
struct Io(TokioIo<Tracked>);

impl Service<Uri> for Connector {
    type Response = Io;
    type Error = DialError;
    type Future = BoxFuture<'static, Result<Io, DialError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let upstream = self.0.clone();
        Box::pin(async move {
            // A plugin may take its time; the server may not.
            upstream.credentials().await.map_err(DialError::Credentials)?;
            let dialled = tokio::time::timeout(CONNECT_LIMIT, upstream.dial(CONNECT_LIMIT)).await;
            Ok(Io(TokioIo::new(dialled.map_err(|_| DialError::TimedOut(CONNECT_LIMIT))??)))
        })
    }
}

impl Connects for Io {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl hyper::rt::Write for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
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
        let error = pod_namespace(&missing).await.unwrap_err();
        assert!(matches!(error, Error::NoServiceAccount { .. }), "{error:?}");
        let error = pod_namespace(dir.path()).await.unwrap_err();
        assert!(error.to_string().contains("namespace"), "{error}");
    }
}
