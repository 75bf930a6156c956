//! The head of an answer of the API server, as the client gets it. Pure.

use hyper::header::{CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use hyper::{Method, StatusCode};

use super::hop::{Upgrade, drop_hop, set_hop, take_hop};
use super::lane::Sink;
use super::refusal::{Reason, Refusal};
use super::reply::After;
use super::status::Form;
use crate::http1::{Framing, RequestHead, ResponseHead, Version, response_framing, write_response};

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// The client's side of a request, as long as no answer has begun.
pub(super) struct Client {
    pub(super) method: Method,
    /// Of an answer of ours. Not what it follows from: that would keep the whole head for as long as the answer takes.
    pub(super) form: Form,
    pub(super) version: Version,
    /// What follows the head may be no request: a body, or the first bytes of another protocol.
    pub(super) has_more: bool,
    pub(super) keeps_alive: bool,
}

/// The head of a 101 for the client, if it switches to what the client asked for.
pub(super) fn switched(mut answer: ResponseHead, asked: &Upgrade) -> Result<Vec<u8>, Refusal> {
    let bad = |why: &str| Refusal::new(Reason::Upstream, format!("the API server switched protocols, but {why}"));
    let hop = take_hop(&mut answer.headers).map_err(|_| bad("to more than one"))?;
    if asked.token().is_none() || hop.upgrade != *asked {
        return Err(bad("not to the one that was asked for"));
    }
    set_hop(&mut answer.headers, &hop);
    answer.headers.remove(CONTENT_LENGTH);
    let mut bytes = Vec::with_capacity(256);
    write_response(&mut bytes, answer.status, &answer.reason, &answer.headers);
    Ok(bytes)
}

/// The head for the client, how the body arrives and leaves, and what follows it.
pub(super) fn answer_head(
    mut answer: ResponseHead,
    client: &Client,
    may_keep: bool,
    timing: Option<HeaderValue>,
) -> Result<(Vec<u8>, Framing, Sink, After), Refusal> {
    let bad = |why: String| Refusal::new(Reason::Upstream, format!("the API server's answer is malformed: {why}"));
    let framing = response_framing(&client.method, &answer).map_err(|error| bad(error.to_string()))?;
    drop_hop(&mut answer.headers);
    let headers = &mut answer.headers;
    let declared = headers.remove(CONTENT_LENGTH);
    let is_http11 = client.version == Version::Http11;
    // A body of the request that nobody read stands before the next request.
    let mut after = if client.keeps_alive && may_keep { After::KeepAlive } else { After::Close };
    let sink = match framing {
        Framing::Length(length) => {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            Sink::Plain
        }
        Framing::None => {
            if let Some(length) = declared.filter(|_| answer.status != StatusCode::NO_CONTENT) {
                headers.insert(CONTENT_LENGTH, length);
            }
            Sink::Plain
        }
        Framing::Chunked | Framing::UntilClose if is_http11 => {
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            Sink::Chunked
        }
        Framing::Chunked | Framing::UntilClose => {
            after = After::Close;
            Sink::Plain
        }
    };
    if after == After::Close {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(timing) = timing {
        headers.append(SERVER_TIMING, timing);
    }
    let mut bytes = Vec::with_capacity(512);
    write_response(&mut bytes, answer.status, &answer.reason, headers);
    Ok((bytes, framing, sink, after))
}

impl Client {
    pub(super) fn of(head: &RequestHead) -> Self {
        Self {
            method: head.method.clone(),
            form: Form::asked_for(&head.headers),
            version: head.version,
            has_more: head.framing != Framing::None || head.headers.contains_key(UPGRADE),
            keeps_alive: head.version == Version::Http11 && head.keeps_alive(),
        }
    }
}
