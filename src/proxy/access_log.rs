//! One line for each request: who, as whom, what, and how it ended.
//!
//! Never a query string, never a header: commands and tokens may be in them. Answered requests are told at debug,
//! refusals and what passed unrecorded at info and above (api-proxy.md 10.5).

use std::borrow::Cow;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper::header::HeaderValue;
use hyper::{Method, StatusCode};
use tokio::time::Instant;

use super::access::{Impersonation, Peer};
use super::metrics::Metrics;
use super::policy::Warning;
use super::refusal::Refusal;
use super::route::{RequestInfo, Route};
use crate::causes::chain;
use crate::http1::RequestHead;
use crate::short;

/// A request as the log tells it.
pub(super) struct Entry {
    client: SocketAddr,
    method: Method,
    begun: Instant,
    identified: Option<Instant>,
    answered: Option<Instant>,
    peer: Option<Arc<Peer>>,
    /// User and groups, only where somebody reads them.
    as_whom: Option<String>,
    info: Option<Arc<RequestInfo>>,
    status: Option<StatusCode>,
    moved: (u64, u64),
    problem: Option<String>,
    state: State,
}

/// What has become of an [`Entry`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Its duration is counted; the line is still to be written.
    Counted,
    Told,
}

/// How a request ended.
#[derive(Clone, Copy)]
pub(super) enum Outcome<'a> {
    /// The API server's answer was passed on.
    Answered,
    /// An answer of ours.
    Refused(&'a Refusal),
    /// No complete answer.
    Aborted,
}

impl Entry {
    pub(super) fn begin(client: SocketAddr, head: &RequestHead) -> Self {
        Self {
            client,
            method: head.method.clone(),
            begun: Instant::now(),
            identified: None,
            answered: None,
            peer: None,
            as_whom: None,
            info: None,
            status: None,
            moved: (0, 0),
            problem: None,
            state: State::Open,
        }
    }

    pub(super) fn identified(&mut self, peer: &Arc<Peer>) {
        self.identified = Some(Instant::now());
        self.peer = Some(Arc::clone(peer));
    }

    pub(super) fn judged(&mut self, route: &Route) {
        self.info = Some(Arc::clone(&route.info));
    }

    pub(super) fn prepared(&mut self, as_whom: Option<&Impersonation>) {
        if tracing::enabled!(tracing::Level::DEBUG) {
            self.as_whom = as_whom.map(|as_whom| {
                let groups: Vec<_> = as_whom.groups().collect();
                short::message(&format!("{} [{}]", short::name(as_whom.user()), groups.join(" "))).into_owned()
            });
        }
    }

    pub(super) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
        self.answered = Some(Instant::now());
    }

    /// It will take as long as it takes: keeps of what was asked for no more than the line tells.
    pub(super) fn shorten(&mut self) {
        let Some(info) = self.info.as_mut().map(Arc::make_mut) else { return };
        let RequestInfo { path, verb, namespace, resource, subresource, name, .. } = std::mem::take(info);
        let [path, namespace, resource, subresource, name] = [path, namespace, resource, subresource, name]
            .map(|text| if let Cow::Owned(short) = short::name(&text) { short } else { text });
        *info = RequestInfo { path, verb, namespace, resource, subresource, name, ..RequestInfo::default() };
    }

    /// So many bytes of the request's body and of the answer's have been passed on so far.
    pub(super) fn moved(&mut self, received: u64, sent: u64) {
        self.moved = (received, sent);
    }

    /// Something went wrong, whatever the client is told.
    pub(super) fn failed(&mut self, error: &dyn Error) {
        self.problem = Some(short::message(&chain(error)).into_owned());
    }

    /// It passes although somebody wanted it recorded.
    pub(super) fn warned(&self, warning: Warning) {
        let (node, who) = self.who();
        let (verb, resource, namespace, name) = self.what();
        tracing::warn!(node, who, verb, resource, namespace, name, reason = warning.label(), "passes unrecorded");
    }

    /// The value of `Server-Timing` so far: who asks, and the API server's part.
    pub(super) fn timing(&self) -> HeaderValue {
        let identified = self.identified.unwrap_or(self.begun);
        let answered = self.answered.unwrap_or(identified);
        let text = format!(
            "identity;dur={:.3}, upstream;dur={:.3}",
            identified.duration_since(self.begun).as_secs_f64() * 1e3,
            answered.duration_since(identified).as_secs_f64() * 1e3
        );
        HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
    }

    /// The connection is no longer HTTP: this is when the request was answered. Its line waits for the stream's end.
    pub(super) fn switched(&mut self, metrics: &Metrics) {
        metrics.took(self.verb(), self.begun.elapsed());
        self.state = State::Counted;
    }

    /// Counts the request and writes the line.
    pub(super) fn end(mut self, metrics: &Metrics, outcome: Outcome<'_>) {
        if self.state == State::Open {
            metrics.took(self.verb(), self.begun.elapsed());
        }
        self.state = State::Told;
        match outcome {
            Outcome::Refused(refusal) => {
                metrics.refused(refusal.reason);
                self.refused(refusal);
            }
            Outcome::Aborted => self.broke_off(),
            Outcome::Answered => self.tell(),
        }
    }

    fn broke_off(&self) {
        if let Some(problem) = &self.problem {
            let (node, who) = self.who();
            tracing::info!(client = %self.client, node, who, "a request broke off: {problem}");
        }
        self.tell();
    }

    fn tell(&self) {
        if tracing::enabled!(tracing::Level::DEBUG) {
            let (node, who) = self.who();
            let (verb, resource, namespace, name) = self.what();
            tracing::debug!(
                client = %self.client,
                node,
                who,
                as_whom = self.as_whom.as_deref().unwrap_or_default(),
                method = &*short::name(self.method.as_str()),
                verb,
                resource,
                namespace,
                name,
                status = self.status.map_or(0, |status| status.as_u16()),
                sent = self.moved.1,
                received = self.moved.0,
                seconds = self.begun.elapsed().as_secs_f64(),
                "request"
            );
        }
    }

    fn refused(&self, refusal: &Refusal) {
        let (node, who) = self.who();
        let (verb, resource, namespace, name) = self.what();
        let status = refusal.status().as_u16();
        let problem = self.problem.as_deref().unwrap_or(&refusal.message);
        let reason = refusal.reason.label();
        let client = self.client;
        if refusal.status().is_server_error() {
            tracing::warn!(%client, node, who, verb, resource, namespace, name, status, reason, "refused: {problem}");
        } else {
            tracing::info!(%client, node, who, verb, resource, namespace, name, status, reason, "refused: {problem}");
        }
    }

    fn who(&self) -> (String, String) {
        let Some(peer) = &self.peer else { return Default::default() };
        (short::name(&peer.node).into_owned(), short::name(&peer.who()).into_owned())
    }

    fn verb(&self) -> &str {
        self.info.as_ref().map_or("", |info| &info.verb)
    }

    /// Verb, resource with subresource, namespace and name.
    fn what(&self) -> (String, String, String, String) {
        let Some(info) = &self.info else { return Default::default() };
        let short = |text: &str| short::name(text).into_owned();
        let resource = match (info.resource.as_str(), info.subresource.as_str()) {
            ("", _) => short(&info.path),
            (resource, "") => short(resource),
            (resource, subresource) => short(&format!("{resource}/{subresource}")),
        };
        (short(&info.verb), resource, short(&info.namespace), short(&info.name))
    }
}

impl Drop for Entry {
    /// Whatever is still going on when the proxy stops has its line too.
    fn drop(&mut self) {
        if self.state != State::Told {
            self.broke_off();
        }
    }
}
