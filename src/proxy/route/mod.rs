//! What a request is about: the one classifier, which sees what kube-apiserver sees. Pure.
//!
//! Routing, authorisation and recording all follow from the decoded list of tokens that kube-apiserver derives
//! ([`RequestInfo`]), never from the raw bytes: a trailing or escaped slash is no way around a recorder. Which routes can
//! be recorded, and what enforcement does with the others, is one table, [`ROUTES`]. api-proxy.md 10.3 and 17.2.

mod path;
mod query;
mod request_info;
mod selector;

use std::borrow::Cow;
use std::sync::Arc;

use hyper::Method;

use self::path::Rest;
use self::request_info::{Reading, Shape};

pub use self::path::BadPath;
pub use self::request_info::{NoResource, RequestInfo};

/// What kind of request it is, as far as recording is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A terminal session in a Pod; can be recorded.
    Session(Session),
    /// Runs a command on a node, past kube-apiserver's own exec; cannot be recorded.
    NodeCommand,
    /// Carries a stream, or a command, that cannot be recorded: what it is called.
    Unrecordable(&'static str),
    /// Everything else.
    Other,
}

/// Which terminal session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Session {
    /// `kubectl exec`
    Exec,
    /// `kubectl attach`
    Attach,
}

impl Session {
    /// As in `kubectl …` and in a cast's `SessionType`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Attach => "attach",
        }
    }
}

/// One line of the table of routes.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Of the core group.
    pub resource: &'static str,
    /// Its subresource.
    pub subresource: &'static str,
    /// Which first words of the path behind the subresource count, in any letter case; none means all.
    pub words: &'static [&'static str],
    /// What it is.
    pub kind: Kind,
}

/// The routes that matter to recording; the first line that matches counts.
pub const ROUTES: &[Line] = &[
    Line { resource: "pods", subresource: "exec", words: &[], kind: Kind::Session(Session::Exec) },
    Line { resource: "pods", subresource: "attach", words: &[], kind: Kind::Session(Session::Attach) },
    Line { resource: "nodes", subresource: "proxy", words: NODE_COMMANDS, kind: Kind::NodeCommand },
    Line { resource: "pods", subresource: "portforward", words: &[], kind: Kind::Unrecordable("port-forward") },
    Line { resource: "pods", subresource: "proxy", words: &[], kind: Kind::Unrecordable("proxy to a Pod") },
    Line { resource: "services", subresource: "proxy", words: &[], kind: Kind::Unrecordable("proxy to a Service") },
    Line {
        resource: "pods",
        subresource: "ephemeralcontainers",
        words: &[],
        kind: Kind::Unrecordable("ephemeral container"),
    },
];

/// What the kubelet runs commands under (`pkg/kubelet/server/server.go`).
const NODE_COMMANDS: &[&str] = &["exec", "attach", "run", "cri", "portForward"];

/// A request target, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What kube-apiserver makes of it; what it knows before it fails, if it will.
    pub info: Arc<RequestInfo>,
    /// Whether kube-apiserver will find no resource in a path that should have one.
    pub derived: Result<(), NoResource>,
    /// What kind of request it is.
    pub kind: Kind,
    /// How the part of the path that decides is written.
    pub writing: Writing,
    /// How the query is written.
    pub query: Query,
    target: Vec<u8>,
}

/// How a path is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// So that everybody reads the same.
    Canonical,
    /// With an empty or dot segment, an escaped slash or letter, a trailing slash, or so that whoever cleans the path
    /// finds another one.
    Odd,
}

/// How a query is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query {
    /// So that everybody reads the same.
    Sound,
    /// With `;` or a broken escape.
    Broken,
}

impl Route {
    /// The target to send: the canonical path on routes that can be recorded, the client's own bytes elsewhere.
    pub fn target(&self) -> &[u8] {
        &self.target
    }

    /// Whether the path is written so that everybody reads the same, as far as it decides anything.
    pub fn is_canonical(&self) -> bool {
        self.writing == Writing::Canonical
    }
}

/// Classifies a request target in origin form.
pub fn classify(method: &Method, target: &[u8]) -> Result<Route, BadPath> {
    let (raw, query) = path::split_target(target);
    let decoded = path::decode(raw)?;
    let tokens = path::tokens(&decoded);
    let reading = request_info::read(&tokens);
    let (kind, deciding, rest) = kind(&tokens, reading);
    let is_canonical = path::is_canonical(raw, &tokens, deciding, rest);
    let writing = if is_canonical { Writing::Canonical } else { Writing::Odd };
    let sent: Cow<'_, [u8]> =
        if matches!(kind, Kind::Session(_)) { path::encode(&tokens).into() } else { Cow::Borrowed(raw) };
    let mut target = sent.into_owned();
    if let Some(query) = query {
        target.push(b'?');
        target.extend_from_slice(&query::clean(query));
    }
    let query = query.unwrap_or_default();
    Ok(Route {
        info: Arc::new(request_info::request_info(method, &decoded, reading, query)),
        derived: if matches!(reading, Reading::Unfinished(_)) { Err(NoResource) } else { Ok(()) },
        kind,
        writing,
        query: if query::is_sound(query) { Query::Sound } else { Query::Broken },
        target,
    })
}

/// What kind of request a target is, from its bytes alone: for the last look before they are sent.
pub fn kind_of(target: &[u8]) -> Result<Kind, BadPath> {
    let decoded = path::decode(path::split_target(target).0)?;
    let tokens = path::tokens(&decoded);
    Ok(kind(&tokens, request_info::read(&tokens)).0)
}

/// Whether what cleans the path of a target would find `.` or `..` in it.
pub fn has_dots(target: &[u8]) -> bool {
    path::decode(path::split_target(target).0).is_ok_and(|decoded| path::has_dots(&decoded))
}

/// The kind, how many tokens decided it, and what may follow them.
fn kind(tokens: &[&[u8]], reading: Reading<'_>) -> (Kind, usize, Rest) {
    // Clients ask for `/api/`, `/apis/apps/v1/` and `/version/` as well as without the slash; it decides nothing there.
    let Reading::Resource(shape) = reading else { return (Kind::Other, tokens.len(), Rest::Slash) };
    // The old `/api/v1/proxy/nodes/n/…` is one token shorter; nobody serves it today.
    let is_old = shape.verb == Some(b"proxy");
    let deciding = shape.skipped + if is_old { 2 } else { 3 };
    if !shape.group.is_empty() {
        return (Kind::Other, deciding, Rest::Closed);
    }
    let subresource: &[u8] = if is_old { b"proxy" } else { shape.subresource() };
    let matches = |line: &&Line| {
        line.resource.as_bytes() == shape.resource()
            && line.subresource.as_bytes() == subresource
            && (line.words.is_empty() || runs(line.words, behind(&shape, is_old)))
    };
    let kind = ROUTES.iter().find(matches).map_or(Kind::Other, |line| line.kind);
    match (shape.resource(), subresource) {
        // One word more decides, and the kubelet cleans what it gets: all of it must be plain.
        (b"nodes", b"proxy") => (kind, tokens.len(), Rest::Slash),
        // Only as long as nobody who cleans the path is led to another subresource, or to another object.
        (_, b"proxy") => (kind, deciding, Rest::Open),
        // Nothing that is served has anything there, so whoever cleans a path shall find nothing to clean.
        _ => (kind, tokens.len(), Rest::Closed),
    }
}

/// What stands behind the subresource.
fn behind<'a>(shape: &Shape<'a>, is_old: bool) -> &'a [&'a [u8]] {
    shape.parts.get(if is_old { 2 } else { 3 }..).unwrap_or_default()
}

/// Whether a path begins with one of these words, as it is or after somebody has cleaned it.
fn runs(words: &[&str], path: &[&[u8]]) -> bool {
    let is_word = |token: &[u8]| words.iter().any(|word| token.eq_ignore_ascii_case(word.as_bytes()));
    let mut cleaned: Vec<&[u8]> = Vec::new();
    for token in path {
        match *token {
            b"" | b"." => {}
            b".." => drop(cleaned.pop()),
            token => cleaned.push(token),
        }
    }
    path.first().is_some_and(|token| is_word(token)) || cleaned.first().is_some_and(|token| is_word(token))
}

#[cfg(test)]
mod tests;
