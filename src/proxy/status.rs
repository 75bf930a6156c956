//! A refusal as the client gets it: a Kubernetes `Status`, or a line of text. Pure.
//!
//! Codes, reasons and leading words follow api-proxy.md 6.5. kubectl and the client libraries print the message of a
//! `Status`, also when it answers a WebSocket handshake; a client that accepts no JSON, or asks for discovery, gets
//! upstream's plain text.

use bytes::Bytes;
use hyper::header::{ACCEPT, HeaderMap, HeaderValue};
use hyper::{Method, StatusCode};
use serde::Serialize;

use super::refusal::Refusal;

/// What a refusal is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A Kubernetes `Status`.
    Status,
    /// A line of text.
    Text,
}

/// An answer that the proxy itself gives, always sent with `X-Content-Type-Options: nosniff`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The code.
    pub status: StatusCode,
    /// `Content-Type`
    pub content_type: HeaderValue,
    /// The body; empty for `HEAD`, whose `Content-Length` is then [`Answer::length`].
    pub body: Bytes,
    /// The length of the body a `GET` would have got.
    pub length: usize,
}

/// `metav1.Status`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    kind: &'static str,
    api_version: &'static str,
    metadata: Metadata,
    #[serde(rename = "status")]
    outcome: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'static str,
    code: u16,
}

/// `metav1.ListMeta`, empty.
#[derive(Serialize)]
struct Metadata {}

impl Form {
    /// For a request with these headers.
    pub fn asked_for(headers: &HeaderMap) -> Self {
        if admits_json(headers) && !is_discovery(headers) { Self::Status } else { Self::Text }
    }
}

/// The answer to a request with this method, in this form.
pub fn answer(refusal: &Refusal, method: &Method, form: Form) -> Answer {
    let status = refusal.status();
    let (content_type, body) = match form {
        Form::Status => (HeaderValue::from_static("application/json"), json(status, &refusal.message)),
        Form::Text => {
            (HeaderValue::from_static("text/plain; charset=utf-8"), Bytes::from(format!("{}\n", refusal.message)))
        }
    };
    let length = body.len();
    let body = if method == Method::HEAD { Bytes::new() } else { body };
    Answer { status, content_type, body, length }
}

/// A `Status` document with a final newline.
fn json(status: StatusCode, message: &str) -> Bytes {
    let document = Status {
        kind: "Status",
        api_version: "v1",
        metadata: Metadata {},
        outcome: "Failure",
        message,
        reason: reason(status),
        code: status.as_u16(),
    };
    let mut body = serde_json::to_vec(&document).unwrap_or_default();
    body.push(b'\n');
    body.into()
}

/// `metav1.StatusReason`; clients branch on it, so nothing is invented for codes that have none.
fn reason(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "BadRequest",
        403 => "Forbidden",
        429 => "TooManyRequests",
        500 | 502 => "InternalError",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "",
    }
}

/// Whether the answer is read by client-go's discovery, which shows the text of a refusal and never decodes a `Status`:
/// kubectl would print `unknown`.
fn is_discovery(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.any(|value| value.contains("g=apidiscovery.k8s.io"))
}

/// Whether `Accept` admits `application/json` (RFC 9110 12.5.1); a missing header admits everything.
///
/// Parameters other than `q` are ignored: kubectl asks for `application/json;as=Table;…`, and reads a `Status` all the
/// same.
fn admits_json(headers: &HeaderMap) -> bool {
    if !headers.contains_key(ACCEPT) {
        return true;
    }
    // The most specific range that matches decides; of equally specific ones the kindest.
    let mut best: Option<(usize, bool)> = None;
    let ranges = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    for range in ranges {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let known = ["*/*", "application/*", "application/json"];
        let Some(specificity) = known.iter().position(|known| media.eq_ignore_ascii_case(known)) else { continue };
        let refused = parts.any(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            name.trim().eq_ignore_ascii_case("q") && value.trim().parse().is_ok_and(|q: f32| q <= 0.0)
        });
        best = best.max(Some((specificity, !refused)));
    }
    best.is_some_and(|(_, admitted)| admitted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::refusal::Reason;

    fn accept(values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (ACCEPT, HeaderValue::from_static(value))).collect()
    }

    fn answer(refusal: &Refusal, method: &Method, asked: &HeaderMap) -> Answer {
        super::answer(refusal, method, Form::asked_for(asked))
    }

    #[test]
    fn json_is_what_a_kubernetes_client_reads() {
        let refusal = Refusal::new(Reason::NoRecorder, "forbidden: \"x\"");
        let got = answer(&refusal, &Method::GET, &HeaderMap::new());
        assert_eq!(got.status, StatusCode::FORBIDDEN);
        assert_eq!(got.content_type, "application/json");
        assert_eq!(
            got.body,
            "{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"status\":\"Failure\",\
             \"message\":\"forbidden: \\\"x\\\"\",\"reason\":\"Forbidden\",\"code\":403}\n"
        );
        assert_eq!(got.length, got.body.len());
    }

    #[test]
    fn text_ends_in_one_newline() {
        let got = answer(&Refusal::identity(), &Method::GET, &accept(&["text/plain"]));
        assert_eq!(got.content_type, "text/plain; charset=utf-8");
        assert_eq!(got.body, "failed to authenticate caller\n");
    }

    #[test]
    fn discovery_is_told_in_text() {
        let kubectl = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        let got = answer(&Refusal::identity(), &Method::GET, &accept(&[kubectl]));
        assert_eq!(got.content_type, "text/plain; charset=utf-8");
    }

    #[test]
    fn head_has_the_length_and_no_body() {
        let got = answer(&Refusal::identity(), &Method::HEAD, &accept(&["text/plain"]));
        assert_eq!((got.body.len(), got.length), (0, 30));
    }

    #[test]
    fn reasons_follow_the_code() {
        for (reason, code, word) in [
            (Reason::Path, 400, "BadRequest"),
            (Reason::Group, 403, "Forbidden"),
            (Reason::Grants, 500, "InternalError"),
            (Reason::Upstream, 502, "InternalError"),
            (Reason::TooLarge, 431, ""),
        ] {
            let got = answer(&Refusal::new(reason, "m"), &Method::GET, &HeaderMap::new());
            let document: serde_json::Value = serde_json::from_slice(&got.body).unwrap();
            assert_eq!(document["code"], code);
            assert_eq!(document.get("reason").and_then(|reason| reason.as_str()).unwrap_or_default(), word);
        }
    }

    #[test]
    fn accept_is_read_as_http_says() {
        for (values, expected) in [
            (&[][..], true),
            (&["*/*"], true),
            (&["application/json"], true),
            (&["Application/JSON; q=0.1"], true),
            (&["application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io"], true),
            (&["text/html,application/xhtml+xml,*/*;q=0.8"], true),
            (&["text/plain"], false),
            (&[""], false),
            (&["application/vnd.kubernetes.protobuf"], false),
            (&["application/vnd.kubernetes.protobuf, */*"], true),
            (&["application/json;q=0, */*"], false),
            (&["*/*;q=0"], false),
            (&["application/*;q=0, */*"], false),
            (&["text/plain", "application/json"], true),
        ] {
            assert_eq!(admits_json(&accept(values)), expected, "{values:?}");
        }
    }
}
