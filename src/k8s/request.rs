//! One request to the API server: tries, pauses, time limits, and what its answer means.
//!
//! At most [`TRIES`] tries within the caller's deadline, on what may pass by itself and is safe to repeat, and one more
//! with a fresh token after 401. An answer is bounded in time and size. The HTTP status decides what it means.

use std::error::Error as StdError;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::header::{self, HeaderMap};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::client::legacy::Error as ClientError;
use kube::client::Body;
use serde_json::Value;
use tokio::time::Instant;

use super::connect::ACCEPT;
use super::error::{Cause, Error, Resource, Said, Verb};
use super::upstream::{CredentialError, Credentials, DialError};
use super::{Cluster, wire};
use crate::backoff::{self, Backoff};

/// Tries for one call, the first included.
const TRIES: u32 = 3;
/// One try, from connecting to the last byte.
const TRY_LIMIT: Duration = Duration::from_secs(15);
/// All tries of a call whose caller named no deadline.
const CALL_LIMIT: Duration = Duration::from_secs(50);
/// A longer `Retry-After` is for the caller to decide about.
const PATIENCE: Duration = Duration::from_secs(10);
/// Secrets are at most 1 MiB; base64 and managed fields make that no more than a few.
pub(super) const ANSWER_LIMIT: usize = 8 << 20;
/// Enough for the message of a Status.
const REFUSAL_LIMIT: usize = 64 << 10;

/// When a request may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replay {
    /// Doing it twice is the same as once.
    Safe,
    /// Only when the server cannot have carried it out.
    Unsent,
}

/// A request, ready to be sent as often as needed.
pub(super) struct Call<'a> {
    /// For errors and RBAC.
    pub(super) verb: Verb,
    /// For errors and RBAC.
    pub(super) resource: Resource,
    /// For errors and RBAC.
    pub(super) name: Option<&'a str>,
    /// Path and query.
    pub(super) target: String,
    /// Media type and content.
    pub(super) body: Option<(&'static str, Value)>,
    /// Whether it may be repeated.
    pub(super) replay: Replay,
}

impl Call<'_> {
    fn method(&self) -> Method {
        match self.verb {
            Verb::Get | Verb::List | Verb::Watch => Method::GET,
            Verb::Create => Method::POST,
            Verb::Update => Method::PUT,
            Verb::Patch => Method::PATCH,
            Verb::Delete => Method::DELETE,
        }
    }

    /// An error about an answer that is a success in name only.
    pub(super) fn malformed(&self, reason: String) -> Error {
        let name = self.name.map(|name| format!(" {name}")).unwrap_or_default();
        Error::Malformed { request: format!("{} {}{name}", self.verb, self.resource), reason }
    }
}

impl Cluster {
    /// Sends `call` until it is answered or not worth another try; the body of a success.
    pub(super) async fn call(&self, call: &Call<'_>) -> Result<Bytes, Error> {
        // The server's time begins when there are credentials: a plugin has limits of its own.
        let mut credentials = self.credentials().await?;
        let deadline = self.deadline.unwrap_or_else(|| Instant::now() + CALL_LIMIT);
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(2));
        let mut renewed = false;
        loop {
            let limit = TRY_LIMIT.min(deadline.saturating_duration_since(Instant::now()));
            let answer = tokio::time::timeout(limit, self.attempt(call, &credentials)).await;
            let error = match answer.unwrap_or_else(|_| Err(self.unreachable(Cause::Timeout(limit)))) {
                Ok(body) => return Ok(body),
                Err(error) => error,
            };
            if matches!(error, Error::Unauthorized { .. }) && !renewed {
                renewed = true;
                self.inner.upstream.rejected(&credentials).await;
                credentials = self.credentials().await?;
                continue;
            }
            let pause = backoff.next(backoff::jitter());
            let Some(pause) = pause_before_retry(&error, call.replay, backoff.failures(), pause) else {
                return Err(error);
            };
            if Instant::now() + pause >= deadline {
                return Err(error);
            }
            tracing::debug!(error = %error, delay = ?pause, attempt = backoff.failures(), "asking the API server again");
            tokio::time::sleep(pause).await;
            credentials = self.credentials().await?;
        }
    }

    /// What to send next, within the caller's deadline.
    pub(super) async fn credentials(&self) -> Result<Credentials, Error> {
        let getting = self.inner.upstream.credentials();
        let got = match self.deadline {
            None => getting.await,
            Some(deadline) => tokio::time::timeout_at(deadline, getting).await.unwrap_or_else(|_| {
                Err(CredentialError::Unusable("the credential plugin takes longer than there is time".to_owned()))
            }),
        };
        got.map_err(no_credentials)
    }

    /// The same for a write, whose answer is not needed beyond that it is one.
    pub(super) async fn write(&self, call: &Call<'_>) -> Result<(), Error> {
        let body = self.call(call).await?;
        wire::written(&body).map_err(|reason| call.malformed(reason))
    }

    async fn attempt(&self, call: &Call<'_>, credentials: &Credentials) -> Result<Bytes, Error> {
        let response = self.open_with(call, credentials).await?;
        match Limited::new(response.into_body(), ANSWER_LIMIT).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => {
                Err(call.malformed(format!("it is larger than {} MiB", ANSWER_LIMIT >> 20)))
            }
            Err(error) => Err(self.unreachable(Cause::Broken(innermost(&*error)))),
        }
    }

    /// Sends `call` once; the head of the answer, of whatever status. Has no time limit of its own.
    pub(super) async fn send(&self, call: &Call<'_>) -> Result<Response<Body>, Error> {
        let credentials = self.credentials().await?;
        self.send_with(call, &credentials).await
    }

    async fn send_with(&self, call: &Call<'_>, credentials: &Credentials) -> Result<Response<Body>, Error> {
        let mut request = Request::builder()
            .method(call.method())
            .uri(&call.target)
            .header(ACCEPT.0, ACCEPT.1)
            .header(header::USER_AGENT, &self.inner.user_agent);
        if let Some(authorization) = credentials.authorization() {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        for (name, value) in self.inner.upstream.impersonation() {
            request = request.header(name, value);
        }
        let body = match &call.body {
            Some((media_type, body)) => {
                request = request.header(header::CONTENT_TYPE, *media_type);
                Body::from(body.to_string().into_bytes())
            }
            None => Body::empty(),
        };
        let request = request.body(body).map_err(|error| Error::Setup {
            what: format!("cannot ask the API server for {:?}", call.target),
            source: Box::new(error),
        })?;
        self.inner.client.send(request).await.map_err(|error| self.no_answer(&error))
    }

    /// Sends `call` once; the head of a success, its body unread. Has no time limit of its own.
    pub(super) async fn open(&self, call: &Call<'_>) -> Result<Response<Body>, Error> {
        let credentials = self.credentials().await?;
        self.open_with(call, &credentials).await
    }

    async fn open_with(&self, call: &Call<'_>, credentials: &Credentials) -> Result<Response<Body>, Error> {
        let response = self.send_with(call, credentials).await?;
        // A success is 200 or 201: 202 and 204 promise no result.
        if matches!(response.status(), StatusCode::OK | StatusCode::CREATED) {
            return Ok(response);
        }
        let (head, body) = response.into_parts();
        // What a refusal says is worth a look, not a wait.
        let said = match tokio::time::timeout(Duration::from_secs(2), Limited::new(body, REFUSAL_LIMIT).collect()).await
        {
            Ok(Ok(body)) => wire::said(&body.to_bytes()),
            _ => String::new(),
        };
        Err(refusal(call, head.status, &head.headers, Said(said)))
    }

    pub(super) fn unreachable(&self, cause: Cause) -> Error {
        Error::Unreachable { server: self.inner.server.clone(), cause }
    }

    fn no_answer(&self, error: &kube::Error) -> Error {
        if let Some(DialError::Credentials(error)) = find::<DialError>(error) {
            return no_credentials(error.clone());
        }
        self.unreachable(cause_of(error))
    }
}

/// How long to wait before the same request is sent again; `None` when that is of no use or not safe.
/// `tries` have been made so far, `pause` is what the back-off suggests.
fn pause_before_retry(error: &Error, replay: Replay, tries: u32, pause: Duration) -> Option<Duration> {
    if tries >= TRIES {
        return None;
    }
    match (error, replay) {
        (Error::Throttled { retry_after }, _) => Some(retry_after.unwrap_or(pause)).filter(|wait| *wait <= PATIENCE),
        // A handshake that fails for lack of trust fails again.
        (Error::Unreachable { cause: Cause::Tls(_), .. }, _) => None,
        (Error::Unreachable { cause: Cause::Resolve(_) | Cause::Connect(_), .. }, _)
        | (Error::Unreachable { .. } | Error::Conflict { .. } | Error::Server { .. }, Replay::Safe) => Some(pause),
        _ => None,
    }
}

/// What a status that is not a success means.
fn refusal(call: &Call<'_>, status: StatusCode, headers: &HeaderMap, source: Said) -> Error {
    let (resource, name) = (call.resource, call.name.map(str::to_owned));
    match status.as_u16() {
        401 => Error::Unauthorized { source },
        403 => Error::Denied { verb: call.verb, resource, name, source },
        404 => Error::NotFound { resource, name },
        409 => Error::Conflict { resource, name, source },
        422 => Error::Invalid { resource, name, source },
        429 => Error::Throttled { retry_after: retry_after(headers) },
        // An API server that starts or is overloaded says when to come back.
        503 if headers.contains_key(header::RETRY_AFTER) => Error::Throttled { retry_after: retry_after(headers) },
        code @ 500.. => Error::Server { code, source },
        code => Error::Unexpected { code, source },
    }
}

/// Only the form in seconds, which is the one that API servers send.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Nothing was sent, because there is nothing to send it with.
fn no_credentials(source: CredentialError) -> Error {
    Error::Setup { what: "getting credentials".to_owned(), source: Box::new(source) }
}

fn cause_of(error: &(dyn StdError + 'static)) -> Cause {
    match find::<DialError>(error) {
        Some(DialError::Resolve(why)) => return Cause::Resolve(why.clone()),
        Some(DialError::Tls(why)) => return Cause::Tls(why.clone()),
        Some(error) => return Cause::Connect(error.to_string()),
        None => {}
    }
    if let Some(tls) = find::<rustls::Error>(error) {
        return Cause::Tls(tls.to_string());
    }
    if find::<ClientError>(error).is_some_and(ClientError::is_connect) {
        return Cause::Connect(innermost(error));
    }
    Cause::Broken(innermost(error))
}

/// The errors of a chain, those included that `io::Error` wraps without calling them its source.
fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| cause_below(*error))
}

fn cause_below<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}

fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    chain(error).find_map(|error| error.downcast_ref::<T>())
}

fn innermost(error: &(dyn StdError + 'static)) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> Call<'static> {
        Call {
            verb: Verb::Patch,
            resource: Resource::Secrets,
            name: Some("s"),
            target: "/".to_owned(),
            body: None,
            replay: Replay::Safe,
        }
    }

    fn answered(code: u16, retry_after: Option<&'static str>) -> Error {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert(header::RETRY_AFTER, header::HeaderValue::from_static(value));
        }
        refusal(&call(), StatusCode::from_u16(code).unwrap(), &headers, Said::default())
    }

    fn unreachable(cause: Cause) -> Error {
        Error::Unreachable { server: String::new(), cause }
    }

    #[test]
    fn the_status_decides_the_variant() {
        assert!(matches!(answered(401, None), Error::Unauthorized { .. }));
        assert!(matches!(answered(403, None), Error::Denied { verb: Verb::Patch, resource: Resource::Secrets, .. }));
        assert!(matches!(answered(404, None), Error::NotFound { .. }));
        assert!(matches!(answered(409, None), Error::Conflict { .. }));
        assert!(matches!(answered(422, None), Error::Invalid { .. }));
        assert!(matches!(answered(503, None), Error::Server { code: 503, .. }));
        assert!(matches!(answered(302, None), Error::Unexpected { code: 302, .. }));
        let three = Some(Duration::from_secs(3));
        assert!(matches!(answered(429, Some("3")), Error::Throttled { retry_after } if retry_after == three));
        assert!(matches!(answered(503, Some("3")), Error::Throttled { retry_after } if retry_after == three));
        assert!(matches!(answered(429, Some("Wed, 21 Oct 2026")), Error::Throttled { retry_after: None }));
    }

    #[test]
    fn only_what_is_safe_and_useful_is_tried_again() {
        let pause = Duration::from_millis(200);
        let next = |error: &Error, replay| pause_before_retry(error, replay, 1, pause);
        let broken = || unreachable(Cause::Broken(String::new()));
        let refused = || unreachable(Cause::Connect(String::new()));
        for (error, safe, unsent) in [
            (refused(), Some(pause), Some(pause)),
            (unreachable(Cause::Resolve(String::new())), Some(pause), Some(pause)),
            (broken(), Some(pause), None),
            (unreachable(Cause::Timeout(pause)), Some(pause), None),
            (unreachable(Cause::Tls(String::new())), None, None),
            (answered(409, None), Some(pause), None),
            (answered(500, None), Some(pause), None),
            (answered(429, None), Some(pause), Some(pause)),
            (answered(429, Some("7")), Some(Duration::from_secs(7)), Some(Duration::from_secs(7))),
            (answered(429, Some("60")), None, None),
            (answered(401, None), None, None),
            (answered(403, None), None, None),
            (answered(404, None), None, None),
            (answered(422, None), None, None),
        ] {
            assert_eq!((next(&error, Replay::Safe), next(&error, Replay::Unsent)), (safe, unsent), "{error:?}");
        }
        assert_eq!(pause_before_retry(&broken(), Replay::Safe, TRIES, pause), None);
    }
}
