//! Which path gets which answer (boot.md 8).
//!
//! Statuses, bodies and headers of `/healthz`, `/metrics` and `/debug/` are contract. `/livez` and `/readyz` follow
//! the Kubernetes API server's own: a bare `ok`, and one line per check when asked or when something fails.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::watch;
use tokio::time::Instant;

use super::Snapshot;
use super::relay::{self, Debug, MetricsSource};

const POD_IPV4: HeaderName = HeaderName::from_static("pod-ipv4");
const POD_IPV6: HeaderName = HeaderName::from_static("pod-ipv6");

/// An answer: a text of ours, or somebody else's stream.
pub(super) type Answer = Response<Either<Full<Bytes>, Incoming>>;

/// Where an egress group's Pod is drained (ha-services.md 5).
const PRESHUTDOWN: &str = "/internal-egress-services-preshutdown";

/// What the kubelet calls before it ends the container: the body of a success, or what went wrong.
pub type Hook = Arc<dyn Fn() -> BoxFuture<'static, Result<&'static str, String>> + Send + Sync>;

/// What one listener serves.
#[derive(Default)]
pub struct Routes {
    health: Option<HealthRoutes>,
    metrics: Option<Metrics>,
    preshutdown: Option<Hook>,
}

/// The health endpoints.
#[derive(Clone, Debug)]
pub struct HealthRoutes {
    /// The state of the node.
    pub snapshot: watch::Receiver<Snapshot>,
    /// The Pod's IPv4 address, told to callers that drain it.
    pub pod_ipv4: Option<IpAddr>,
    /// The Pod's IPv6 address.
    pub pod_ipv6: Option<IpAddr>,
    /// Whether `/livez` and `/readyz` are served beside `/healthz`; the deprecated listener has only that.
    pub probes: bool,
}

/// The metrics endpoints.
#[derive(Clone)]
pub struct MetricsRoutes {
    /// Where `/metrics` comes from.
    pub source: MetricsSource,
    /// Where `/debug/` goes, when the daemon has a debug server.
    pub debug: Option<SocketAddr>,
}

struct Metrics {
    source: MetricsSource,
    debug: Option<Debug>,
}

impl std::fmt::Debug for Routes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hook = self.preshutdown.is_some();
        f.debug_struct("Routes")
            .field("health", &self.health)
            .field("metrics", &self.metrics)
            .field("preshutdown", &hook)
            .finish()
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").field("debug", &self.debug).finish_non_exhaustive()
    }
}

impl Routes {
    /// Serves these; everything else is 404.
    pub fn new(health: Option<HealthRoutes>, metrics: Option<MetricsRoutes>) -> Self {
        let metrics = metrics.map(|routes| Metrics { source: routes.source, debug: routes.debug.map(Debug::new) });
        Self { health, metrics, preshutdown: None }
    }

    /// The same, and the hook of an egress group.
    #[must_use]
    pub fn with_preshutdown(mut self, hook: Hook) -> Self {
        self.preshutdown = Some(hook);
        self
    }

    /// The lines to log when a listener for these opens at `addr`.
    pub(super) fn announcements(&self, addr: &str) -> Vec<String> {
        let metrics = self.metrics.iter().map(|_| format!("Running metrics endpoint at {addr}/metrics"));
        let health = self.health.iter().map(|_| format!("Running healthcheck endpoint at {addr}/healthz"));
        let hook = self.preshutdown.iter().map(|_| format!("Running egress preshutdown hook at {addr}{PRESHUTDOWN}"));
        metrics.chain(health).chain(hook).collect()
    }

    /// Answers one request.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path();
        if let Some(health) = &self.health {
            let answer: Option<fn(&HealthRoutes, &str) -> Answer> = match path {
                "/healthz" => Some(|health, _| health.healthz()),
                "/livez" if health.probes => Some(|health, _| health.livez()),
                "/readyz" if health.probes => Some(HealthRoutes::readyz),
                _ => None,
            };
            if let Some(answer) = answer {
                return if is_read(&request) {
                    answer(health, request.uri().query().unwrap_or_default())
                } else {
                    not_allowed()
                };
            }
        }
        if let Some(hook) = self.preshutdown.as_ref().filter(|_| path == PRESHUTDOWN) {
            return if is_read(&request) { preshutdown(hook).await } else { not_allowed() };
        }
        match &self.metrics {
            Some(metrics) if path == "/metrics" && is_read(&request) => relay::metrics(&metrics.source, request).await,
            Some(_) if path == "/metrics" => not_allowed(),
            Some(metrics) if path.starts_with("/debug/") && !path.split('/').any(|part| part == "..") => {
                match &metrics.debug {
                    Some(debug) => debug.answer(request).await,
                    None => plain(StatusCode::NOT_FOUND, "debug endpoint not configured\n"),
                }
            }
            _ => plain(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }
}

impl HealthRoutes {
    fn healthz(&self) -> Answer {
        let snapshot = self.snapshot.borrow();
        if let Some(reason) = snapshot.unhealthy() {
            return plain(StatusCode::SERVICE_UNAVAILABLE, &format!("{reason}\n"));
        }
        let told = |family: fn(&IpAddr) -> bool| snapshot.told.iter().copied().find(family);
        let ipv4 = told(IpAddr::is_ipv4).or(self.pod_ipv4);
        let ipv6 = told(IpAddr::is_ipv6).or(self.pod_ipv6);
        let mut answer = plain(StatusCode::OK, "ok");
        for (name, ip) in [(POD_IPV4, ipv4), (POD_IPV6, ipv6)] {
            if let Some(ip) = ip {
                let value = HeaderValue::from_str(&ip.to_string()).expect("an address is a valid header value");
                answer.headers_mut().insert(name, value);
            }
        }
        answer
    }

    fn livez(&self) -> Answer {
        match self.snapshot.borrow().stalled(Instant::now()) {
            Some(reason) => plain(StatusCode::SERVICE_UNAVAILABLE, &format!("{reason}\n")),
            None => plain(StatusCode::OK, "ok"),
        }
    }

    fn readyz(&self, query: &str) -> Answer {
        let snapshot = self.snapshot.borrow();
        let checks = snapshot.readiness(Instant::now());
        let ready = checks.iter().all(|(_, problem)| problem.is_none());
        let verbose = query.split('&').any(|part| part == "verbose" || part.starts_with("verbose="));
        if ready && !verbose {
            return plain(StatusCode::OK, "ok");
        }
        let mut text = String::new();
        for (name, problem) in checks {
            match problem {
                None => text.extend(["[+]", name, " ok\n"]),
                Some(problem) => text.extend(["[-]", name, " failed: ", &problem, "\n"]),
            }
        }
        for (name, note) in snapshot.notes() {
            text.extend(["[+]", name, " ok: ", note, "\n"]);
        }
        if ready {
            plain(StatusCode::OK, &(text + "readyz check passed\n"))
        } else {
            plain(StatusCode::SERVICE_UNAVAILABLE, &(text + "readyz check failed\n"))
        }
    }
}

async fn preshutdown(hook: &Hook) -> Answer {
    match hook().await {
        Ok(body) => plain(StatusCode::OK, body),
        Err(text) => plain(StatusCode::INTERNAL_SERVER_ERROR, &format!("{text}\n")),
    }
}

fn is_read(request: &Request<Incoming>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD)
}

fn not_allowed() -> Answer {
    let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    answer
}

/// A text, with the headers that Go's `http.Error` gives to errors.
pub(super) fn plain(status: StatusCode, text: &str) -> Answer {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if !status.is_success() {
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
    with_headers(status, headers, Bytes::copy_from_slice(text.as_bytes()))
}

pub(super) fn with_headers(status: StatusCode, headers: HeaderMap, body: Bytes) -> Answer {
    let mut answer = Response::new(Either::Left(Full::new(body)));
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    answer
}

pub(super) fn stream(status: StatusCode, headers: HeaderMap, body: Incoming) -> Answer {
    let mut answer = Response::new(Either::Right(body));
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    answer
}
