//! What is sent for a request: judged, stripped, written afresh, and looked at once more.
//!
//! The order is the security property (api-proxy.md 7.2): connection headers go first, then everything with which a client
//! could say who it is, and only then is added whom the request acts as.

use std::borrow::Cow;

use hyper::Method;
use hyper::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING};

use super::access::{Impersonation, Peer, impersonation};
use super::headers::{authorize, impersonate, strip_forwarding, strip_identity};
use super::hop::{Hop, Trailers, Upgrade, set_hop, take_hop};
use super::outgoing::{AsWhom, Invariant, Judged, Outgoing, Stream, check_outgoing};
use super::policy::{Decision, OnFailure, decide, policy};
use super::pool::Repeatable;
use super::refusal::{Reason, Refusal};
use super::route::{Route, classify, has_dots};
use super::subprotocol::strip_token;
use super::{Mode, UnrecordedStreams};
use crate::http1::{Framing, RequestHead, Version, write_request};
use crate::k8s::upstream::Base;

/// A request that may be forwarded, with everything but the proxy's own credentials.
#[derive(Debug)]
pub(super) struct Prepared<'p> {
    pub(super) method: Method,
    /// With the configured URL's path in front.
    pub(super) target: Vec<u8>,
    /// What is sent.
    pub(super) headers: HeaderMap,
    pub(super) route: Route,
    pub(super) hop: Hop,
    /// In mode `auth`.
    pub(super) as_whom: Option<Cow<'p, Impersonation>>,
    pub(super) framing: Framing,
    stream: Stream,
}

/// What a request asks for, whoever asks.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) route: Route,
    pub(super) hop: Hop,
}

impl Asked {
    /// Whether it may be sent again when it is not known whether it arrived.
    pub(super) fn repeatable(&self, head: &RequestHead) -> Repeatable {
        let is_safe = head.framing == Framing::None
            && self.hop.upgrade.token().is_none()
            && matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS);
        if is_safe { Repeatable::Yes } else { Repeatable::No }
    }
}

/// What becomes of a request because of who asks.
#[derive(Debug)]
pub(super) struct Judgement<'p> {
    pub(super) decision: Decision,
    /// In mode `auth`.
    as_whom: Option<Cow<'p, Impersonation>>,
    /// Whether a stream that can be recorded may leave unrecorded.
    stream: Stream,
}

/// Reads what a request asks for, and takes the headers away that are about its connection.
pub(super) fn read(head: &mut RequestHead, base: &Base) -> Result<Asked, Refusal> {
    let route = classify(&head.method, &head.target)
        .map_err(|error| Refusal::new(Reason::Path, format!("cannot read the path: {error}")))?;
    if !base.prefix().is_empty() && has_dots(route.target()) {
        // What stands before the API server may clean paths, and then the request leaves the prefix with our credentials.
        return Err(Refusal::new(Reason::Path, "the path has a `.` or `..` segment"));
    }
    let mut hop = take_hop(&mut head.headers)?;
    if head.version == Version::Http10 {
        // HTTP/1.0 can neither switch nor read chunks.
        hop = Hop { upgrade: Upgrade::No, trailers: Trailers::Unknown };
    }
    if hop.upgrade.token().is_some() && head.framing != Framing::None {
        let message = "a request that switches protocols has no body";
        return Err(Refusal::new(Reason::Request, message));
    }
    Ok(Asked { route, hop })
}

/// Judges a request by the peer's grants. They decide whether it is recorded; nothing in the request does. `headers` are
/// those that [`read`] left.
pub(super) fn judge<'p>(
    asked: &Asked,
    headers: &HeaderMap,
    peer: &'p Peer,
    mode: Mode,
    streams: UnrecordedStreams,
) -> Result<Judgement<'p>, Refusal> {
    let policy = policy(peer)?;
    let decision = decide(&policy, &asked.route, &asked.hop.upgrade, streams);
    let as_whom = match mode {
        Mode::Auth => Some(impersonation(peer, headers)?),
        Mode::NoAuth => None,
    };
    let stream = match policy.on_failure {
        OnFailure::Open => Stream::MayPass,
        OnFailure::Closed => Stream::MustNotLeave,
    };
    Ok(Judgement { decision, as_whom, stream })
}

/// Makes what is sent out of what came. The headers of `head` are those that [`read`] left.
pub(super) fn prepare<'p>(
    head: RequestHead,
    asked: Asked,
    judgement: Judgement<'p>,
    base: &Base,
) -> Result<Prepared<'p>, Refusal> {
    let RequestHead { method, mut headers, framing, .. } = head;
    let Asked { route, hop } = asked;
    let Judgement { as_whom, stream, .. } = judgement;
    strip_forwarding(&mut headers);
    if let Some(as_whom) = &as_whom {
        strip_identity(&mut headers);
        strip_token(&mut headers);
        impersonate(&mut headers, as_whom);
    }
    frame(&mut headers, &method, framing);
    set_hop(&mut headers, &hop);
    if !headers.contains_key(HOST) {
        let host = HeaderValue::from_str(&base.authority());
        headers.insert(HOST, host.map_err(|_| Refusal::new(Reason::Request, "the request names no host"))?);
    }
    let target = [base.prefix().as_bytes(), route.target()].concat();
    Ok(Prepared { method, target, headers, route, hop, as_whom, framing, stream })
}

/// Says how the body ends, in the one way that was understood.
fn frame(headers: &mut HeaderMap, method: &Method, framing: Framing) {
    let had_length = headers.remove(CONTENT_LENGTH).is_some();
    match framing {
        Framing::Length(length) => drop(headers.insert(CONTENT_LENGTH, HeaderValue::from(length))),
        Framing::Chunked => drop(headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))),
        // Servers expect a length where a body could be.
        Framing::None | Framing::UntilClose => {
            if had_length || matches!(*method, Method::POST | Method::PUT | Method::PATCH) {
                headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
            }
        }
    }
}

impl Prepared<'_> {
    /// The bytes of the head, with the proxy's own credentials, unless they break an invariant.
    pub(super) fn head(&mut self, base: &Base, authorization: Option<&HeaderValue>) -> Result<Vec<u8>, Refusal> {
        let as_whom = if let Some(as_whom) = &self.as_whom {
            authorize(&mut self.headers, authorization.cloned());
            AsWhom::Caller { impersonation: as_whom, authorization }
        } else {
            AsWhom::ClientsOwn
        };
        let outgoing = Outgoing { target: &self.target, prefix: base.prefix().as_bytes(), headers: &self.headers };
        let judged = Judged { kind: self.route.kind, stream: self.stream };
        check_outgoing(&outgoing, as_whom, judged).map_err(|broken| invariant(&broken))?;
        let mut bytes = Vec::with_capacity(1024);
        write_request(&mut bytes, &self.method, &self.target, &self.headers);
        Ok(bytes)
    }
}

fn invariant(broken: &Invariant) -> Refusal {
    tracing::error!("{broken}; nothing was sent");
    Refusal::new(Reason::Invariant, "the proxy will not send this request: it would break its own rules")
}
