//! Heads: finding their end, and parsing them strictly. Pure.
//!
//! Lines end in CR LF and nothing else; no line is folded; a name is a token right before its colon; a request has one
//! `Host`, and an absolute target that agrees with it (RFC 9112, and api-proxy.md 10.1 where that is stricter).

use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};

use super::framing::request_framing;
use super::{LARGEST_HEAD, LONGEST_METHOD, MOST_FIELDS, MOST_FIELDS_OF_A_NAME, RequestHead, ResponseHead, Version};

/// What is wrong with a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHead {
    /// More bytes than [`LARGEST_HEAD`].
    #[error("the header block is larger than {} KiB", LARGEST_HEAD >> 10)]
    TooLarge,
    /// More fields than [`MOST_FIELDS`], or than [`MOST_FIELDS_OF_A_NAME`] of one name.
    #[error("too many header fields")]
    TooManyFields,
    /// HTTP/2 without asking first.
    #[error("HTTP/2 is not spoken here")]
    Http2,
    /// It is not HTTP at all: another protocol, or an empty line where the first line should be.
    #[error("this is not HTTP/1.1")]
    NotHttp,
    /// A line feed without its carriage return, or the other way round.
    #[error("a line does not end in CR LF")]
    LineEnd,
    /// The first line has not its three parts, or one that no method is.
    #[error("malformed first line")]
    FirstLine,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    #[error("unsupported protocol version")]
    Version,
    /// `CONNECT` asks for a tunnel to anywhere; `TRACE` for the request as it arrives, with the proxy's credentials.
    #[error("CONNECT and TRACE are not served here")]
    Method,
    /// Not a path, or with bytes that no path has.
    #[error("malformed request target")]
    Target,
    /// A target that names another host than `Host`.
    #[error("the request target and Host name different hosts")]
    Authority,
    /// A line that continues the one before.
    #[error("folded header line")]
    Folded,
    /// A field whose name is no token right before its colon.
    #[error("malformed header name")]
    Name,
    /// A field whose value has bytes that none may have.
    #[error("malformed header value")]
    Value,
    /// None, several, or one that is no host.
    #[error("missing, repeated or malformed Host")]
    Host,
    /// A body framed in two ways, or in one that is not known here.
    #[error("ambiguous or unknown body framing")]
    Framing,
}

/// Finds the end of a head while its bytes arrive, looking at each byte once.
#[derive(Clone, Debug, Default)]
pub struct Scanner {
    seen: usize,
    line: usize,
}

// === impl BadHead ===

impl BadHead {
    /// Whether a client that sent it would read an answer as one.
    pub fn is_answered(self) -> bool {
        self != Self::Http2
    }
}

// === impl Scanner ===

impl Scanner {
    /// The length of the head at the beginning of `bytes`, its empty line included; `None` when more is needed. Each
    /// call is given the bytes of the one before and what came since.
    pub fn end(&mut self, bytes: &[u8]) -> Result<Option<usize>, BadHead> {
        if let Some(&first) = bytes.first()
            && self.seen == 0
            && !is_token(first)
        {
            return Err(BadHead::NotHttp);
        }
        let within = bytes.len().min(LARGEST_HEAD);
        while let Some(offset) = bytes[self.seen..within].iter().position(|&byte| byte == b'\n') {
            let feed = self.seen + offset;
            if feed == self.line || bytes[feed - 1] != b'\r' {
                return Err(BadHead::LineEnd);
            }
            self.seen = feed + 1;
            if feed - self.line == 1 {
                return Ok(Some(self.seen));
            }
            self.line = self.seen;
        }
        self.seen = within;
        if bytes.len() >= LARGEST_HEAD { Err(BadHead::TooLarge) } else { Ok(None) }
    }
}

// === impl RequestHead ===

impl RequestHead {
    /// Parses a whole head, its empty line included.
    pub fn parse(head: &Bytes) -> Result<Self, BadHead> {
        let (line, rest) = first_line(head)?;
        let line = &head[..line];
        let mut parts = line.split(|&byte| byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(BadHead::FirstLine);
        };
        let at = method.len() + 1..method.len() + 1 + target.len();
        let version = match version {
            b"HTTP/1.1" => Version::Http11,
            b"HTTP/1.0" => Version::Http10,
            b"HTTP/2.0" if method == b"PRI" => return Err(BadHead::Http2),
            other if is_version(other) => return Err(BadHead::Version),
            _ => return Err(BadHead::FirstLine),
        };
        if method.len() > LONGEST_METHOD {
            return Err(BadHead::FirstLine);
        }
        let method = Method::from_bytes(method).map_err(|_| BadHead::FirstLine)?;
        if method == Method::CONNECT || method == Method::TRACE {
            return Err(BadHead::Method);
        }
        let headers = fields(head, rest)?;
        let host = host(version, &headers)?;
        let target = origin_form(head.slice(at), host)?;
        let framing = request_framing(version, &headers)?;
        Ok(Self { method, target, version, headers, framing })
    }

    /// Whether the client means to send more requests on this connection.
    pub fn keeps_alive(&self) -> bool {
        keeps_alive(self.version, &self.headers)
    }
}

// === impl ResponseHead ===

impl ResponseHead {
    /// Parses a whole head, its empty line included.
    pub fn parse(head: &Bytes) -> Result<Self, BadHead> {
        let (end, rest) = first_line(head)?;
        let line = &head[..end];
        let version = match line.get(..9) {
            Some(b"HTTP/1.1 ") => Version::Http11,
            Some(b"HTTP/1.0 ") => Version::Http10,
            _ => return Err(BadHead::Version),
        };
        let status = line.get(9..12).filter(|digits| digits.iter().all(u8::is_ascii_digit));
        let status = status.and_then(|digits| StatusCode::from_bytes(digits).ok()).ok_or(BadHead::FirstLine)?;
        let reason = match line.get(12) {
            None => Bytes::new(),
            Some(b' ') => head.slice(13..end),
            Some(_) => return Err(BadHead::FirstLine),
        };
        if reason.iter().any(|&byte| !is_text(byte)) {
            return Err(BadHead::FirstLine);
        }
        Ok(Self { version, status, reason, headers: fields(head, rest)? })
    }

    /// Whether the server means to serve more requests on this connection.
    pub fn keeps_alive(&self) -> bool {
        keeps_alive(self.version, &self.headers)
    }
}

/// The end of the first line's text, and where the next one begins.
fn first_line(head: &[u8]) -> Result<(usize, usize), BadHead> {
    let feed = head.iter().position(|&byte| byte == b'\n').ok_or(BadHead::LineEnd)?;
    match feed {
        0 => Err(BadHead::LineEnd),
        1 => Err(BadHead::NotHttp),
        _ if head[feed - 1] != b'\r' => Err(BadHead::LineEnd),
        _ => Ok((feed - 1, feed + 1)),
    }
}

/// The fields from `at` to the empty line.
pub(super) fn fields(head: &Bytes, mut at: usize) -> Result<HeaderMap, BadHead> {
    let mut headers = HeaderMap::with_capacity(16);
    let (mut count, mut repeated) = (0, 0);
    loop {
        let rest = &head[at..];
        let feed = rest.iter().position(|&byte| byte == b'\n').ok_or(BadHead::LineEnd)?;
        let line = rest[..feed].strip_suffix(b"\r").ok_or(BadHead::LineEnd)?;
        if line.is_empty() {
            return if at + 2 == head.len() { Ok(headers) } else { Err(BadHead::LineEnd) };
        }
        if matches!(line[0], b' ' | b'\t') {
            return Err(BadHead::Folded);
        }
        let colon = line.iter().position(|&byte| byte == b':').ok_or(BadHead::Name)?;
        let name = HeaderName::from_bytes(&line[..colon]).map_err(|_| BadHead::Name)?;
        let value = trim_start(&line[colon + 1..]);
        let begin = at + (line.len() - value.len());
        let value = trim_end(value);
        let bad = |_| if value.contains(&b'\r') { BadHead::LineEnd } else { BadHead::Value };
        let value = HeaderValue::from_maybe_shared(head.slice(begin..begin + value.len())).map_err(bad)?;
        count += 1;
        if count > MOST_FIELDS {
            return Err(BadHead::TooManyFields);
        }
        if headers.append(&name, value) {
            repeated += 1;
            // Counting one name is slow; fewer repetitions than that cannot be too many.
            if repeated >= MOST_FIELDS_OF_A_NAME && headers.get_all(&name).iter().count() > MOST_FIELDS_OF_A_NAME {
                return Err(BadHead::TooManyFields);
            }
        }
        at += feed + 1;
    }
}

/// Only what RFC 9110 5.6.3 calls white space: a carriage return is none.
fn trim_start(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    value
}

fn trim_end(mut value: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// The one `Host` of a request; HTTP/1.0 needs none.
fn host(version: Version, headers: &HeaderMap) -> Result<Option<&HeaderValue>, BadHead> {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if version == Version::Http10 => Ok(None),
        (Some(host), None) if !host.is_empty() && host.as_bytes().iter().all(|&byte| is_host(byte)) => Ok(Some(host)),
        _ => Err(BadHead::Host),
    }
}

/// Path and query of a target.
fn origin_form(target: Bytes, host: Option<&HeaderValue>) -> Result<Bytes, BadHead> {
    if target.iter().any(|&byte| !byte.is_ascii_graphic() || byte == b'#') {
        return Err(BadHead::Target);
    }
    if target.first() == Some(&b'/') {
        return Ok(target);
    }
    let scheme = ["http://", "https://"].iter().map(|scheme| scheme.len()).zip(["http://", "https://"]);
    let authority = scheme
        .filter(|(length, scheme)| {
            target.get(..*length).is_some_and(|start| start.eq_ignore_ascii_case(scheme.as_bytes()))
        })
        .map(|(length, _)| length)
        .next()
        .ok_or(BadHead::Target)?;
    let end = target[authority..].iter().position(|byte| matches!(byte, b'/' | b'?'));
    let end = end.map_or(target.len(), |end| authority + end);
    if host.is_none_or(|host| !host.as_bytes().eq_ignore_ascii_case(&target[authority..end])) {
        return Err(BadHead::Authority);
    }
    match target.get(end) {
        Some(b'/') => Ok(target.slice(end..)),
        _ => Ok([b"/", &target[end..]].concat().into()),
    }
}

fn keeps_alive(version: Version, headers: &HeaderMap) -> bool {
    let mut keep = version == Version::Http11;
    for value in headers.get_all(header::CONNECTION) {
        for token in value.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            if token.eq_ignore_ascii_case(b"close") {
                return false;
            }
            keep |= token.eq_ignore_ascii_case(b"keep-alive");
        }
    }
    keep
}

fn is_version(text: &[u8]) -> bool {
    matches!(text, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// RFC 9110 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 9110 5.5, with tab.
fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | 0x20..=0x7e | 0x80..=0xff)
}

/// A host name, an address or a port; no user, no path, no list.
fn is_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:[]%".contains(&byte)
}
