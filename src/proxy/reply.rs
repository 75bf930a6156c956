//! Answers that the proxy itself gives, as bytes. Pure.

use hyper::Method;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};

use super::refusal::{Reason, Refusal};
use super::status::{self, Form};
use crate::http1::write_response;

/// Whether the connection carries another request after this answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// It does.
    KeepAlive,
    /// It is closed.
    Close,
}

/// The answer to a request with this method that is not forwarded, in this form.
pub(super) fn refusal(refusal: &Refusal, method: &Method, form: Form, after: After) -> Vec<u8> {
    let answer = status::answer(refusal, method, form);
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(CONTENT_TYPE, answer.content_type);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(answer.length));
    if matches!(refusal.reason, Reason::Stale | Reason::TooMany) {
        headers.insert(RETRY_AFTER, HeaderValue::from(1));
    }
    if after == After::Close {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let mut bytes = Vec::with_capacity(512 + answer.body.len());
    let reason = answer.status.canonical_reason().unwrap_or_default();
    write_response(&mut bytes, answer.status, reason.as_bytes(), &headers);
    bytes.extend_from_slice(&answer.body);
    bytes
}
