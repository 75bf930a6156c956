//! HTTP over tailscaled's Unix socket: requests, deadlines, bounds, and errors as kinds.
//!
//! Every call has a deadline and a bound on its answer, and each way to fail becomes one [`ErrorKind`]. Streams use a
//! client of their own, so that they never occupy or inherit a pooled connection. Cancel safe in that nothing is
//! left behind; a change that was already sent may have been applied. Follows upstream's `client/local/local.go`.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, DATE, ETAG, HeaderMap, HeaderValue, IF_MATCH, RETRY_AFTER};
use reqwest::{Method, Response, redirect};

use super::error::{Error, ErrorKind, MAX_SOCKET_PATH, Right, from_answer, retry_after};
use super::framer::{FrameError, Framer, Limits, Rule};
use super::{Versions, ready};
use crate::lock::lock;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(2);
/// Connections that are kept for the next call. A burst of calls opens more, and leaves no more.
const IDLE: usize = 8;
/// For small answers that the daemon has at hand.
pub(super) const READ: Duration = Duration::from_secs(10);
/// For changes: with a `kube:` store one write may use 30 s of API-server time inside the daemon.
pub(super) const WRITE: Duration = Duration::from_secs(45);
/// Largest answer that is held in memory.
pub(super) const SMALL: usize = 16 << 20;
/// Largest error text that is read.
const ERROR_TEXT: usize = 64 << 10;

/// The host that tailscaled insists on.
const BASE: &str = "http://local-tailscaled.sock/localapi/v0/";

/// One request.
pub(super) struct Call<'a> {
    /// Name for errors.
    pub(super) endpoint: &'static str,
    pub(super) method: Method,
    /// Path below `/localapi/v0/` and query.
    pub(super) target: Cow<'a, str>,
    /// A JSON body.
    pub(super) body: Option<Vec<u8>>,
    pub(super) if_match: Option<&'a str>,
    /// What a 403 means.
    pub(super) right: Right,
    /// Deadline for everything.
    pub(super) total: Duration,
}

impl<'a> Call<'a> {
    /// A `GET` of a small document.
    pub(super) fn get(endpoint: &'static str) -> Self {
        Self {
            endpoint,
            method: Method::GET,
            target: Cow::Borrowed(endpoint),
            body: None,
            if_match: None,
            right: Right::Read,
            total: READ,
        }
    }

    /// A change.
    pub(super) fn change(endpoint: &'static str, method: Method, body: Option<&serde_json::Value>) -> Self {
        let body = body.map(|body| body.to_string().into_bytes());
        Self { method, body, right: Right::Write, total: WRITE, ..Self::get(endpoint) }
    }

    /// The same call with a query.
    pub(super) fn target(self, target: impl Into<Cow<'a, str>>) -> Self {
        Self { target: target.into(), ..self }
    }
}

/// A complete answer of success.
pub(super) struct Answer {
    pub(super) etag: Option<String>,
    pub(super) body: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Transport {
    calls: reqwest::Client,
    streams: reqwest::Client,
    pub(super) socket: PathBuf,
    said: Mutex<Versions>,
    unknown_state: AtomicBool,
}

impl Transport {
    /// Whether an unknown state is news to whoever talks to this daemon: yes, once.
    pub(super) fn is_first_unknown_state(&self) -> bool {
        !self.unknown_state.swap(true, Ordering::Relaxed)
    }

    pub(super) fn new(socket: &Path, capver: u32) -> Self {
        let builder = || {
            let mut headers = HeaderMap::new();
            headers.insert("Tailscale-Cap", HeaderValue::from(capver));
            reqwest::Client::builder()
                .unix_socket(socket)
                .default_headers(headers)
                .no_proxy()
                .redirect(redirect::Policy::none())
                .connect_timeout(CONNECT)
        };
        let build = |builder: reqwest::ClientBuilder| builder.build().expect("without TLS nothing can fail to load");
        Self {
            calls: build(builder().pool_max_idle_per_host(IDLE)),
            unknown_state: AtomicBool::new(false),
            streams: build(builder().pool_max_idle_per_host(0)),
            socket: socket.to_owned(),
            said: Mutex::default(),
        }
    }

    pub(super) fn versions(&self) -> Versions {
        lock(&self.said).clone()
    }

    pub(super) fn error(&self, endpoint: &'static str, kind: ErrorKind) -> Error {
        Error { endpoint, kind, server_version: self.versions().version.map(String::into_boxed_str) }
    }

    /// Performs a call whose answer is kept as it is, up to `limit` bytes.
    pub(super) fn call(&self, call: Call<'_>, limit: usize) -> impl Future<Output = Result<Answer, Error>> {
        self.call_with(&self.calls, call, limit)
    }

    /// The same over a connection of its own, which ends with the call: for one that the daemon works on for minutes
    /// and gives up when the connection does.
    pub(super) fn call_alone(&self, call: Call<'_>, limit: usize) -> impl Future<Output = Result<Answer, Error>> {
        self.call_with(&self.streams, call, limit)
    }

    async fn call_with(&self, client: &reqwest::Client, call: Call<'_>, limit: usize) -> Result<Answer, Error> {
        let (endpoint, total) = (call.endpoint, call.total);
        let whole = async {
            let response = self.respond(client, call).await?;
            let etag = response.headers().get(ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
            let body = read(response, limit).await?;
            Ok(Answer { etag, body })
        };
        self.within(endpoint, total, whole).await
    }

    /// Performs a call whose answer is one JSON object, of which only what `rule` says is kept.
    pub(super) async fn call_object(
        &self,
        call: Call<'_>,
        rule: &'static Rule,
        limits: Limits,
    ) -> Result<Vec<u8>, Error> {
        let (endpoint, total) = (call.endpoint, call.total);
        let whole = async {
            let mut response = self.respond(&self.calls, call).await?;
            let mut framer = Framer::new(rule, limits);
            loop {
                if let Some(object) = framer.next().map_err(frame_kind)? {
                    return Ok(object);
                }
                match next_chunk(&mut response).await? {
                    Some(bytes) => framer.push(&bytes),
                    None => return Err(ErrorKind::Disconnected { source: None }),
                }
            }
        };
        self.within(endpoint, total, whole).await
    }

    /// Opens an answer that ends when the caller drops it; only the wait for its headers is limited.
    pub(super) async fn stream(&self, call: Call<'_>) -> Result<Response, Error> {
        let (endpoint, total) = (call.endpoint, call.total);
        self.within(endpoint, total, self.respond(&self.streams, call)).await
    }

    /// Sends a request as it is and returns whatever the daemon answers.
    pub(super) async fn pass(
        &self,
        endpoint: &'static str,
        method: Method,
        target: &str,
        headers: HeaderMap,
    ) -> Result<Response, Error> {
        let request = self.streams.request(method, format!("{BASE}{target}")).headers(headers);
        let sent = async { request.send().await.map_err(|error| self.unsent(error)) };
        let response = self.within(endpoint, READ, sent).await?;
        self.note(&response);
        Ok(response)
    }

    async fn within<T>(
        &self,
        endpoint: &'static str,
        total: Duration,
        work: impl Future<Output = Result<T, ErrorKind>>,
    ) -> Result<T, Error> {
        let result = tokio::time::timeout(total, work).await.unwrap_or(Err(ErrorKind::Timeout(total)));
        result.map_err(|kind| self.error(endpoint, kind))
    }

    /// Sends `call` and returns its answer if it is one of success.
    async fn respond(&self, client: &reqwest::Client, call: Call<'_>) -> Result<Response, ErrorKind> {
        let mut request = client.request(call.method, format!("{BASE}{}", call.target));
        if let Some(body) = call.body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        if let Some(etag) = call.if_match.filter(|etag| !etag.is_empty()) {
            request = request.header(IF_MATCH, etag);
        }
        let response = request.send().await.map_err(|error| self.unsent(error))?;
        self.note(&response);
        if response.status().is_success() {
            return Ok(response);
        }
        let code = response.status().as_u16();
        let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let retry_after = text(RETRY_AFTER).and_then(|after| retry_after(after, text(DATE)));
        let body = read_start(response).await;
        Err(from_answer(code, retry_after, &body, call.right))
    }

    /// Remembers what the daemon says of itself.
    fn note(&self, response: &Response) {
        let text = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let (version, capability) = (text("Tailscale-Version"), text("Tailscale-Cap").and_then(|cap| cap.parse().ok()));
        if version.is_none() && capability.is_none() {
            return;
        }
        let mut said = lock(&self.said);
        if said.version.as_deref() != version || said.capability != capability {
            *said = Versions { version: version.map(str::to_owned), capability };
        }
    }

    /// The kind of a request that got no answer.
    fn unsent(&self, error: reqwest::Error) -> ErrorKind {
        if error.is_timeout() {
            return ErrorKind::Timeout(CONNECT);
        }
        if error.is_connect() {
            let kind = cause::<io::Error>(&error).map(|cause| (cause.kind(), cause.raw_os_error()));
            let source = match kind {
                Some((_, Some(code))) => io::Error::from_raw_os_error(code),
                Some((kind, None)) => kind.into(),
                None => io::Error::other(error.without_url()),
            };
            return connect_kind(&self.socket, source);
        }
        broken(error)
    }
}

/// The kind of a failed connect.
pub(super) fn connect_kind(socket: &Path, source: io::Error) -> ErrorKind {
    let length = socket.as_os_str().len();
    match source.kind() {
        _ if length > MAX_SOCKET_PATH => ErrorKind::SocketPathTooLong { socket: socket.to_owned(), length },
        io::ErrorKind::NotFound => ErrorKind::DaemonNotRunning { socket: socket.to_owned(), stale: false, source },
        io::ErrorKind::ConnectionRefused => {
            ErrorKind::DaemonNotRunning { socket: socket.to_owned(), stale: true, source }
        }
        io::ErrorKind::PermissionDenied => ErrorKind::SocketPermission(Box::new(ready::permission(socket))),
        io::ErrorKind::WouldBlock => ErrorKind::Busy,
        _ => ErrorKind::Connect { socket: socket.to_owned(), source },
    }
}

/// The kind of an exchange that broke after connecting.
fn broken(error: reqwest::Error) -> ErrorKind {
    let error = error.without_url();
    if cause::<hyper::Error>(&error).is_some_and(hyper::Error::is_parse) {
        return ErrorKind::Malformed { source: error.into() };
    }
    ErrorKind::Disconnected { source: Some(error.into()) }
}

pub(super) fn frame_kind(error: FrameError) -> ErrorKind {
    match error {
        FrameError::TooLarge { limit } => ErrorKind::TooLarge(limit),
        FrameError::Syntax { .. } => ErrorKind::Malformed { source: error.into() },
    }
}

/// The first cause of that type below `error`.
fn cause<E: std::error::Error + 'static>(error: &reqwest::Error) -> Option<&E> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// The whole body, if it has at most `limit` bytes.
async fn read(mut response: Response, limit: usize) -> Result<Vec<u8>, ErrorKind> {
    if response.content_length().is_some_and(|length| length > limit as u64) {
        return Err(ErrorKind::TooLarge(limit));
    }
    let mut body = Vec::new();
    while let Some(bytes) = next_chunk(&mut response).await? {
        if body.len() + bytes.len() > limit {
            return Err(ErrorKind::TooLarge(limit));
        }
        body.extend_from_slice(&bytes);
    }
    Ok(body)
}

/// As much of an error's text as is of use.
pub(super) async fn read_start(mut response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(bytes)) = next_chunk(&mut response).await {
        body.extend_from_slice(&bytes[..bytes.len().min(ERROR_TEXT - body.len())]);
        if body.len() >= ERROR_TEXT {
            break;
        }
    }
    body
}

pub(super) async fn next_chunk(response: &mut Response) -> Result<Option<Bytes>, ErrorKind> {
    response.chunk().await.map_err(broken)
}
