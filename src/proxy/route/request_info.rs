//! What kube-apiserver makes of a request before it authorises it. Pure.
//!
//! Follows `k8s.io/apiserver`, `pkg/endpoints/request/requestinfo.go`; recording.md 9. tests/real compares the two on a
//! hundred thousand requests.

use hyper::Method;
use serde::Serialize;

use super::{query, selector};

/// A request as Kubernetes sees it (`request.RequestInfo`).
///
/// Bytes that are not UTF-8 are replaced: nothing that Kubernetes names has any, and decisions compare with ASCII only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestInfo {
    /// Whether the path names a resource.
    pub is_resource_request: bool,
    /// The decoded path.
    pub path: String,
    /// `get`, `list`, `watch`, `create`, …; the lower-cased method for other paths.
    pub verb: String,
    /// `api` or `apis`.
    pub api_prefix: String,
    /// Empty for the core group.
    pub api_group: String,
    /// `v1`
    pub api_version: String,
    /// Empty for what has none.
    pub namespace: String,
    /// `pods`
    pub resource: String,
    /// `exec`
    pub subresource: String,
    /// The object's name.
    pub name: String,
    /// What the path says from the resource on.
    pub parts: Vec<String>,
    /// As asked for, unparsed.
    pub field_selector: String,
    /// As asked for, unparsed.
    pub label_selector: String,
}

/// The path said `proxy` or `watch` and nothing after it: kube-apiserver answers such a request with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the path ends in `proxy` or `watch`, so it names no resource")]
pub struct NoResource;

/// The parts of a path, still borrowed: what a decision needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape<'a> {
    pub(super) prefix: &'a [u8],
    pub(super) group: &'a [u8],
    pub(super) version: &'a [u8],
    pub(super) namespace: &'a [u8],
    /// `proxy` or `watch`, when the path begins with it.
    pub(super) verb: Option<&'a [u8]>,
    /// From the resource on.
    pub(super) parts: &'a [&'a [u8]],
    /// How many tokens stand before [`Shape::parts`].
    pub(super) skipped: usize,
}

/// How far the path of a request could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading<'a> {
    /// It names no resource; the prefix, if it is one of Kubernetes'.
    Other(&'a [u8]),
    /// It should, but ends too early.
    Unfinished(Shape<'a>),
    /// It names one.
    Resource(Shape<'a>),
}

impl<'a> Shape<'a> {
    pub(super) fn resource(&self) -> &'a [u8] {
        self.parts.first().copied().unwrap_or_default()
    }

    pub(super) fn name(&self) -> &'a [u8] {
        self.parts.get(1).copied().unwrap_or_default()
    }

    /// The old form `/api/v1/proxy/…` has no subresource: what follows the name is the backend's.
    pub(super) fn subresource(&self) -> &'a [u8] {
        if self.verb == Some(b"proxy") {
            return b"";
        }
        self.parts.get(2).copied().unwrap_or_default()
    }
}

/// Reads the tokens of a decoded path.
pub(super) fn read<'a>(tokens: &'a [&'a [u8]]) -> Reading<'a> {
    let prefix = match tokens.first() {
        Some(first) if tokens.len() >= 3 && matches!(*first, b"api" | b"apis") => *first,
        _ => return Reading::Other(b""),
    };
    let mut at = 1;
    let mut group: &[u8] = b"";
    if prefix == b"apis" {
        if tokens.len() < 4 {
            return Reading::Other(prefix);
        }
        group = tokens[1];
        at = 2;
    }
    let version = tokens[at];
    at += 1;
    let mut shape = Shape { prefix, group, version, namespace: b"", verb: None, parts: &[], skipped: at };
    if matches!(tokens[at], b"proxy" | b"watch") {
        if tokens.len() < at + 2 {
            return Reading::Unfinished(shape);
        }
        shape.verb = Some(tokens[at]);
        at += 1;
    }
    if tokens[at] == b"namespaces" && tokens.len() > at + 1 {
        shape.namespace = tokens[at + 1];
        if tokens.get(at + 2).is_some_and(|next| !matches!(*next, b"status" | b"finalize")) {
            at += 2;
        }
    }
    shape.parts = &tokens[at..];
    shape.skipped = at;
    Reading::Resource(shape)
}

/// The whole of it, as far as it can be known.
pub(super) fn request_info(method: &Method, decoded: &[u8], reading: Reading<'_>, query: &[u8]) -> RequestInfo {
    let mut info = RequestInfo { path: text(decoded), ..RequestInfo::default() };
    let shape = match reading {
        Reading::Other(prefix) => {
            info.api_prefix = text(prefix);
            info.verb = text(method.as_str().as_bytes()).to_lowercase();
            return info;
        }
        Reading::Unfinished(shape) => {
            info.verb = text(method.as_str().as_bytes()).to_lowercase();
            shape
        }
        Reading::Resource(shape) => {
            info.verb = shape.verb.map_or_else(|| verb(method).to_owned(), text);
            shape
        }
    };
    info.is_resource_request = true;
    info.api_prefix = text(shape.prefix);
    info.api_group = text(shape.group);
    info.api_version = text(shape.version);
    if matches!(reading, Reading::Unfinished(_)) {
        return info;
    }
    info.namespace = text(shape.namespace);
    info.resource = text(shape.resource());
    info.name = text(shape.name());
    info.subresource = text(shape.subresource());
    info.parts = shape.parts.iter().map(|part| text(part)).collect();
    if info.name.is_empty() && info.verb == "get" {
        let options = selector::list_options(query);
        if options.is_watch { "watch" } else { "list" }.clone_into(&mut info.verb);
        info.name = options.name.unwrap_or_default();
    }
    if info.name.is_empty() && info.verb == "delete" {
        "deletecollection".clone_into(&mut info.verb);
    }
    if shape.verb.is_none() && matches!(info.verb.as_str(), "list" | "watch" | "deletecollection") {
        let first = |name| query::first(query, name).map(|value| text(&value)).unwrap_or_default();
        info.field_selector = first("fieldSelector");
        info.label_selector = first("labelSelector");
    }
    info
}

/// The verb of a method on a resource, before names and watches are looked at.
fn verb(method: &Method) -> &'static str {
    match method.as_str() {
        "POST" => "create",
        "GET" | "HEAD" => "get",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
