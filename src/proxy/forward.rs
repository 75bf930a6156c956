//! What is sent for a request: judged, stripped, written afresh, and looked at once more.
//!
//! The order is the security property (api-proxy.md 7.2): connection headers go first, then everything with which a client
//! could say who it is, and only then is added whom the request acts as.

use std::borrow::Cow;

use hyper::Method;
use hyper::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING};

use super::access::{Impersonation, Peer, impersonation};
use super::headers::{
    Hop, Trailers, Upgrade, authorize, impersonate, set_hop, strip_forwarding, strip_identity, take_hop,
};
use super::outgoing::{AsWhom, Invariant, Judged, Outgoing, Stream, check_outgoing};
use super::policy::{Decision, OnFailure, decide, policy};
use super::refusal::{Reason, Refusal};
use super::route::{Route, classify, has_dots};
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

/// What a request asks for, and what becomes of it.
#[derive(Debug)]
pub(super) struct Judgement {
    pub(super) route: Route,
    pub(super) hop: Hop,
    pub(super) decision: Decision,
    /// Whether a stream that can be recorded may leave unrecorded.
    pub(super) stream: Stream,
}

/// Judges what a request asks for. The peer's grants decide whether it is recorded; nothing in the request does.
pub(super) fn judge(head: &mut RequestHead, peer: &Peer, streams: UnrecordedStreams) -> Result<Judgement, Refusal> {
    let route = classify(&head.method, &head.target)
        .map_err(|error| Refusal::new(Reason::Path, format!("cannot read the path: {error}")))?;
    let mut hop = take_hop(&mut head.headers)?;
    if head.version == Version::Http10 {
        // HTTP/1.0 can neither switch nor read chunks.
        hop = Hop { upgrade: Upgrade::No, trailers: Trailers::Unknown };
    }
    if hop.upgrade.token().is_some() && head.framing != Framing::None {
        let message = "a request that switches protocols has no body";
        return Err(Refusal::new(Reason::Request, message));
    }
    let policy = policy(peer)?;
    let decision = decide(&policy, &route, &hop.upgrade, streams);
    let stream = match policy.on_failure {
        OnFailure::Open => Stream::MayPass,
        OnFailure::Closed => Stream::MustNotLeave,
    };
    Ok(Judgement { route, hop, decision, stream })
}

/// Makes what is sent out of what came. The headers of `head` are those that [`judge`] left.
pub(super) fn prepare<'p>(
    head: RequestHead,
    judgement: Judgement,
    peer: &'p Peer,
    mode: Mode,
    base: &Base,
) -> Result<Prepared<'p>, Refusal> {
    let RequestHead { method, mut headers, framing, .. } = head;
    let Judgement { route, hop, stream, .. } = judgement;
    let as_whom = match mode {
        Mode::Auth => Some(impersonation(peer, &headers)?),
        Mode::NoAuth => None,
    };
    strip_forwarding(&mut headers);
    if let Some(as_whom) = &as_whom {
        strip_identity(&mut headers);
        impersonate(&mut headers, as_whom);
    }
    frame(&mut headers, &method, framing);
    set_hop(&mut headers, &hop);
    if !headers.contains_key(HOST) {
        let host = HeaderValue::from_str(&base.authority());
        headers.insert(HOST, host.map_err(|_| Refusal::new(Reason::Request, "the request names no host"))?);
    }
    if !base.prefix().is_empty() && has_dots(route.target()) {
        // What stands before the API server may clean paths, and then the request leaves the prefix with our credentials.
        return Err(Refusal::new(Reason::Path, "the path has a `.` or `..` segment"));
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

    /// Whether it may be sent again when it is not known whether it arrived.
    pub(super) fn is_safe(&self) -> bool {
        self.framing == Framing::None
            && self.hop.upgrade.token().is_none()
            && matches!(self.method, Method::GET | Method::HEAD | Method::OPTIONS)
    }
}

fn invariant(broken: &Invariant) -> Refusal {
    tracing::error!("{broken}; nothing was sent");
    Refusal::new(Reason::Invariant, "the proxy will not send this request: it would break its own rules")
}
