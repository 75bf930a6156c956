//! Passing a local request on, to tailscaled's metrics or to its debug server.
//!
//! Only an allowed list of headers goes in, since LocalAPI refuses what looks like a browser and since nobody's
//! credentials belong there; everything but hop-by-hop headers comes out. Every wait has a limit.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::timeout;

use super::routes::{Answer, plain, stream, with_headers};
use crate::causes::chain;

/// The largest request body that is passed on. Scrapes have none; pprof's symbol lookups have a few kilobytes.
const LARGEST_BODY: usize = 1 << 20;

/// How long a client may take to send its body.
const BODY_LIMIT: Duration = Duration::from_secs(10);

/// How long tailscaled may take for its metrics (localapi.md 1.1, small reads).
const METRICS_LIMIT: Duration = Duration::from_secs(10);

/// How long the debug server may take to begin its answer: a CPU profile of some minutes.
const DEBUG_LIMIT: Duration = Duration::from_secs(300);

/// How long connecting to the debug server may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// The request headers that are passed on.
const PASSED_IN: [HeaderName; 9] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::CONTENT_TYPE,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::RANGE,
    header::USER_AGENT,
    header::CACHE_CONTROL,
    HeaderName::from_static("x-prometheus-scrape-timeout-seconds"),
];

/// Response headers that belong to one connection only (RFC 9110 7.6.1), and the one that hyper works out itself.
const NOT_PASSED_OUT: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::DATE,
];

type BoxError = Box<dyn Error + Send + Sync>;

/// Asks tailscaled for its metrics: takes a sanitised request (its URI's host is for the source to choose, its path
/// does not matter) and gives the answer as it came, whatever its status.
pub type MetricsSource =
    Arc<dyn Fn(Request<Bytes>) -> BoxFuture<'static, Result<Response<Bytes>, BoxError>> + Send + Sync>;

/// Makes a [`MetricsSource`] from an async function.
pub fn metrics_source<F, Fut, E>(source: F) -> MetricsSource
where
    F: Fn(Request<Bytes>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Response<Bytes>, E>> + Send + 'static,
    E: Into<BoxError>,
{
    Arc::new(move |request| {
        let answer = source(request);
        Box::pin(async move { answer.await.map_err(Into::into) })
    })
}

/// The answer of `/metrics`.
pub(super) async fn metrics(source: &MetricsSource, request: Request<Incoming>) -> Answer {
    let is_head = request.method() == Method::HEAD;
    let inner = match inner_request(request, "/localapi/v0/usermetrics").await {
        Ok(inner) => inner,
        Err(answer) => return *answer,
    };
    let response = match timeout(METRICS_LIMIT, source(inner)).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return failed(&*error),
        Err(_) => return failed(&*BoxError::from("tailscaled did not answer in time")),
    };
    let (parts, body) = response.into_parts();
    // Daemons before 1.78: not the scraper's lack of rights, so it shall not look like one.
    if parts.status == StatusCode::FORBIDDEN {
        let reason = String::from_utf8_lossy(&body);
        return plain(StatusCode::BAD_GATEWAY, &format!("tailscaled refuses to give metrics: {}\n", reason.trim()));
    }
    let mut headers = outgoing(parts.headers);
    if !is_head {
        headers.remove(header::CONTENT_LENGTH);
    }
    with_headers(parts.status, headers, body)
}

/// A client for the debug server.
#[derive(Clone, Debug)]
pub(super) struct Debug {
    addr: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Debug {
    pub(super) fn new(addr: SocketAddr) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_LIMIT));
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Self { addr: reachable(addr), client }
    }

    /// The answer of `/debug/…`: the debug server's own, with path and query as they came.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let uri = format!("http://{}{path}", self.addr);
        let inner = match inner_request(request, &uri).await {
            Ok(inner) => inner,
            Err(answer) => return *answer,
        };
        match timeout(DEBUG_LIMIT, self.client.request(inner.map(Full::new))).await {
            Ok(Ok(response)) => {
                let (parts, body) = response.into_parts();
                stream(parts.status, outgoing(parts.headers), body)
            }
            Ok(Err(error)) => failed(&error),
            Err(_) => failed(&*BoxError::from("the debug server did not answer in time")),
        }
    }
}

/// Where to connect to reach a listener: on this host when it listens everywhere.
pub(crate) fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

async fn inner_request(request: Request<Incoming>, uri: &str) -> Result<Request<Bytes>, Box<Answer>> {
    let construct = |error: &dyn Error| {
        let text = format!("failed to construct request: {}\n", chain(error));
        Box::new(plain(StatusCode::INTERNAL_SERVER_ERROR, &text))
    };
    let uri: Uri = uri.parse().map_err(|error| construct(&error))?;
    let (parts, body) = request.into_parts();
    let body = match timeout(BODY_LIMIT, Limited::new(body, LARGEST_BODY).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            return Err(Box::new(plain(StatusCode::PAYLOAD_TOO_LARGE, "request body too large\n")));
        }
        Ok(Err(error)) => return Err(construct(&*error)),
        Err(_) => return Err(Box::new(plain(StatusCode::REQUEST_TIMEOUT, "request body did not arrive in time\n"))),
    };
    let mut inner = Request::new(body);
    *inner.method_mut() = parts.method;
    *inner.uri_mut() = uri;
    for name in PASSED_IN {
        for value in parts.headers.get_all(&name) {
            inner.headers_mut().append(name.clone(), value.clone());
        }
    }
    Ok(inner)
}

fn outgoing(mut headers: HeaderMap) -> HeaderMap {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&NOT_PASSED_OUT) {
        headers.remove(name);
    }
    headers
}

fn failed(error: &(dyn Error + 'static)) -> Answer {
    plain(StatusCode::INTERNAL_SERVER_ERROR, &format!("failed to proxy request: {}\n", chain(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hop_by_hop_headers_stay_behind() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-type", "text/plain"),
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("tailscale-version", "1.98.2"),
        ] {
            headers.insert(HeaderName::from_static(name), value.parse().unwrap());
        }
        let left = outgoing(headers);
        let mut names: Vec<_> = left.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-type", "tailscale-version"]);
    }

    #[test]
    fn a_listener_everywhere_is_reached_here() {
        for (listens, reached) in [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:2", "[::1]:2"),
            ("10.0.0.1:3", "10.0.0.1:3"),
            ("[fd00::1]:4", "[fd00::1]:4"),
        ] {
            assert_eq!(reachable(listens.parse().unwrap()).to_string(), reached);
        }
    }
}
