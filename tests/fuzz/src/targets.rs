//! One function for each kind of bytes that strangers send. Each asserts what must hold for any bytes, not only that
//! nothing panics.

use bytes::Bytes;
use hyper::Method;
use hyper::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use tailpod::http1::{
    Chunks, Extensions, Framing, RequestHead, ResponseHead, Scanner, Step, Version, response_framing, write_request,
    write_response,
};
use tailpod::localapi::types::WhoIs;
use tailpod::proxy::access::{Impersonation, Peer, impersonation};
use tailpod::proxy::grants::CAPABILITY;
use tailpod::proxy::headers::{self, says_identity};
use tailpod::proxy::hop::{drop_hop, set_hop, take_hop};
use tailpod::proxy::outgoing::{AsWhom, Judged, Outgoing, Stream, check_outgoing};
use tailpod::proxy::proxy_protocol;
use tailpod::proxy::route::{self, Kind, Query, RequestInfo};
use tailpod::proxy::subprotocol;

/// What is held to whatever bytes come; panics where it does not hold.
pub type Target = fn(&[u8]);

/// All targets, for who runs every one.
pub const ALL: [(&str, Target); 6] = [
    ("route", route),
    ("proxy_protocol", proxy_protocol),
    ("headers", headers),
    ("http1", http1),
    ("answer", answer),
    ("grants", grants),
];

/// A request target: what is sent means what was decided about.
pub fn route(data: &[u8]) {
    let Ok(judged) = route::classify(&Method::GET, data) else {
        assert!(route::kind_of(data).is_err());
        return;
    };
    assert_eq!(route::kind_of(data), Ok(judged.kind));
    assert!(judged.target().len() <= 3 * data.len());
    let sent = route::classify(&Method::GET, judged.target()).unwrap();
    assert_eq!((sent.kind, &sent.info.parts), (judged.kind, &judged.info.parts));
    assert_eq!((&sent.info.namespace, &sent.info.resource), (&judged.info.namespace, &judged.info.resource));
    assert_eq!((&sent.info.verb, &sent.info.name), (&judged.info.verb, &judged.info.name));
    assert_eq!(sent.query, Query::Sound);
    assert_eq!(sent.target(), judged.target(), "sending is not idempotent");
    let is_session = judged.info.is_resource_request
        && judged.info.api_group.is_empty()
        && judged.info.resource == "pods"
        && ["exec", "attach"].contains(&judged.info.subresource.as_str());
    assert_eq!(matches!(judged.kind, Kind::Session(_)), is_session);
    if judged.is_canonical() && judged.derived.is_ok() {
        let cleaned = route::classify(&Method::GET, &clean(data)).unwrap();
        assert_eq!(cleaned.kind, judged.kind, "cleaning leads elsewhere");
        let said = |info: &RequestInfo| {
            (info.namespace.clone(), info.resource.clone(), info.name.clone(), info.subresource.clone())
        };
        assert_eq!(said(&cleaned.info), said(&judged.info), "cleaning leads elsewhere");
    }
    if is_session && judged.is_canonical() {
        let path = data.split(|byte| *byte == b'?').next().unwrap();
        assert!(!path.windows(2).any(|pair| pair == b"//") && !path.ends_with(b"/"));
    }
}

/// A target with its path cleaned as Go's `path.Clean` does, before anything is decoded but the dots.
fn clean(target: &[u8]) -> Vec<u8> {
    let end = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
    let mut kept: Vec<&[u8]> = Vec::new();
    for segment in target[..end].split(|byte| *byte == b'/') {
        let dots = String::from_utf8_lossy(segment).to_lowercase().replace("%2e", ".");
        match dots.as_str() {
            "" | "." => {}
            ".." => drop(kept.pop()),
            _ => kept.push(segment),
        }
    }
    [b"/", &kept.join(&b'/')[..], &target[end..]].concat()
}

/// A PROXY header: any split gives the same, and no more is taken than there is.
pub fn proxy_protocol(data: &[u8]) {
    let whole = proxy_protocol::parse(data);
    if let Ok(Some((header, used))) = whole {
        assert!(used <= data.len() && used <= proxy_protocol::MAX_LEN);
        assert_eq!(header.source.ip().to_canonical(), header.source.ip());
        assert_eq!(proxy_protocol::parse(&data[..used]), whole);
    }
    for at in 0..data.len().min(proxy_protocol::MAX_LEN + 1) {
        let part = proxy_protocol::parse(&data[..at]);
        // Which error it is may depend on how much of a wrong beginning has come.
        let is_same = part == whole || (part.is_err() && whole.is_err());
        assert!(part == Ok(None) || is_same, "{part:?} after {at} bytes, {whole:?} after all");
    }
    assert!(data.len() < proxy_protocol::MAX_LEN || whole != Ok(None), "more is wanted than is accepted");
}

/// Header lines, `name: value`: whatever a client sends, what leaves is the caller's identity and nothing else.
pub fn headers(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers.insert(HOST, HeaderValue::from_static("proxy"));
    let peer = ann();
    let Ok(hop) = take_hop(&mut headers) else { return };
    let Ok(as_whom) = impersonation(&peer, &headers) else { return };
    headers::strip_forwarding(&mut headers);
    headers::strip_identity(&mut headers);
    subprotocol::strip_token(&mut headers);
    assert!(!headers.keys().any(|name| says_identity(name.as_str())));
    assert!(!headers.keys().any(|name| folded(name).starts_with("impersonate-")));
    let kept: Vec<_> = headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();

    let ours = HeaderValue::from_static("Bearer ours");
    set_hop(&mut headers, &hop);
    headers::impersonate(&mut headers, &as_whom);
    headers::authorize(&mut headers, Some(ours.clone()));
    // Framing is written by who writes the body.
    headers.remove(CONTENT_LENGTH);
    let mut written = Vec::new();
    write_request(&mut written, &Method::GET, b"/api/v1/pods", &headers);
    // What a strict reader at the other end gets is what was meant.
    let read = RequestHead::parse(&Bytes::from(written)).unwrap();
    let request = Outgoing { target: &read.target, prefix: b"", headers: &read.headers };
    let as_caller = AsWhom::Caller { impersonation: &as_whom, authorization: Some(&ours) };
    check_outgoing(&request, as_caller, Judged { kind: Kind::Other, stream: Stream::MayPass }).unwrap();
    assert_eq!(as_whom.user(), "ann");
    assert!(as_whom.groups().all(|group| ["view", "edit"].contains(&group)));
    for (name, value) in kept.iter().filter(|(name, _)| *name != CONTENT_LENGTH) {
        assert!(read.headers.get_all(name).iter().any(|found| found == value), "{name} was lost");
    }
    // A peer without leave to ask gets what it has, whatever it asks.
    let groups = groups_of(&impersonation(&bob(), &headers).unwrap());
    assert_eq!(groups, ["view"]);
}

/// A head and what follows it: any split finds the same end, and what is parsed survives being written again.
pub fn http1(data: &[u8]) {
    let whole = Scanner::default().end(data);
    let mut scanner = Scanner::default();
    let step = 1 + usize::from(data.first().copied().unwrap_or_default() % 7);
    let mut in_parts = Ok(None);
    for at in (0..data.len()).step_by(step).chain([data.len()]) {
        in_parts = scanner.end(&data[..at]);
        if !matches!(in_parts, Ok(None)) {
            break;
        }
    }
    assert_eq!(in_parts, whole);
    let Ok(Some(end)) = whole else { return };
    let Ok(head) = RequestHead::parse(&Bytes::copy_from_slice(&data[..end])) else { return };
    assert!(has_plain_lines(&data[..end]));
    assert!(!is_framed_twice(&head.headers));
    assert!(head.target.starts_with(b"/"));
    assert!(!head.target.iter().any(|byte| *byte <= b' ' || *byte == 0x7f));
    let mut written = Vec::new();
    write_request(&mut written, &head.method, &head.target, &head.headers);
    // HTTP/1.0 needs no Host, 1.1 does, and 1.1 is what is written.
    if head.headers.contains_key(HOST) {
        let again = RequestHead::parse(&Bytes::from(written)).unwrap();
        assert_eq!((&again.method, &again.target), (&head.method, &head.target));
        assert_eq!(again.headers, head.headers);
        assert_eq!(again.framing, head.framing);
    }
    chunks(&data[end..]);
}

/// The head of an answer, and what follows it: what could be read in two ways is refused, and what is parsed survives
/// being written again.
pub fn answer(data: &[u8]) {
    let Ok(Some(end)) = Scanner::default().end(data) else { return };
    let Ok(head) = ResponseHead::parse(&Bytes::copy_from_slice(&data[..end])) else { return };
    assert!(has_plain_lines(&data[..end]));
    let framing = response_framing(&Method::GET, &head);
    assert!(framing.is_err() || !is_framed_twice(&head.headers));
    assert!(framing.is_err() || head.version == Version::Http11 || !head.headers.contains_key(TRANSFER_ENCODING));
    // A method decides whether there is a body, never whether the head is sound.
    assert_eq!(response_framing(&Method::HEAD, &head), framing.map(|_| Framing::None));
    let mut written = Vec::new();
    write_response(&mut written, head.status, &head.reason, &head.headers);
    let again = ResponseHead::parse(&Bytes::from(written)).unwrap();
    assert_eq!((again.status, &again.reason, &again.headers), (head.status, &head.reason, &head.headers));
    if head.version == Version::Http11 {
        assert_eq!(response_framing(&Method::GET, &again), framing);
    }
    let mut passed = head.headers;
    drop_hop(&mut passed);
    let hop = ["connection", "keep-alive", "transfer-encoding", "upgrade", "trailer", "proxy-authenticate"];
    assert!(hop.iter().all(|name| !passed.contains_key(*name)));
    chunks(&data[end..]);
}

/// Whether every line ends in CR LF, and nothing else does.
fn has_plain_lines(head: &[u8]) -> bool {
    let mut lines = head.split_inclusive(|byte| *byte == b'\n');
    lines.all(|line| line.strip_suffix(b"\r\n").is_some_and(|text| !text.contains(&b'\r')))
}

/// Whether two readers might find two ends of a body.
fn is_framed_twice(headers: &HeaderMap) -> bool {
    let lengths: Vec<_> = headers.get_all(CONTENT_LENGTH).iter().collect();
    lengths.windows(2).any(|pair| pair[0] != pair[1])
        || headers.get_all(TRANSFER_ENCODING).iter().count() + lengths.len().min(1) > 1
}

/// A chunked body: any split gives the same data and the same end.
fn chunks(data: &[u8]) {
    let all = body(data, data.len().max(1));
    for step in [1, 2, 3] {
        assert_eq!(body(data, step), all, "in pieces of {step}");
    }
}

/// The data and where the body ends, read in pieces; `None` when it is broken or goes on.
fn body(data: &[u8], step: usize) -> (Vec<u8>, Option<usize>) {
    let mut chunks = Chunks::new(Extensions::Refuse);
    let mut read = Vec::new();
    for start in (0..data.len()).step_by(step) {
        let mut at = start;
        let end = (start + step).min(data.len());
        while at < end {
            match chunks.next(&data[at..end]) {
                Ok(Step::Data { skip, length }) => {
                    read.extend_from_slice(&data[at + skip..at + skip + length]);
                    at += skip + length;
                }
                Ok(Step::More) => at = end,
                Ok(Step::End { skip, .. }) => return (read, Some(at + skip)),
                Err(_) => return (read, None),
            }
        }
    }
    (read, None)
}

/// A whois answer's rules, as JSON: whatever they say, who is impersonated fits in a header and is nobody's own choice.
pub fn grants(data: &[u8]) {
    let Ok(rules) = serde_json::from_slice::<serde_json::Value>(data) else { return };
    let document = serde_json::json!({
        "Node": {"Name": "l.ts.net."}, "UserProfile": {"LoginName": "ann"}, "CapMap": {CAPABILITY: rules},
    });
    let Ok(whois) = serde_json::from_value::<WhoIs>(document) else { return };
    let peer = Peer::new(&whois, None);
    assert_eq!(peer.rules.modern.is_err(), tailpod::proxy::policy::policy(&peer).is_err());
    let Ok(as_whom) = impersonation(&peer, &HeaderMap::new()) else { return };
    assert!(peer.rules.modern.is_ok());
    assert_eq!(as_whom.user(), "ann");
    let groups: Vec<_> = as_whom.groups().collect();
    for (at, group) in groups.iter().enumerate() {
        assert!(!group.is_empty() && !groups[..at].contains(group));
        assert!(!group.contains(['\r', '\n', '\0']) && group.trim_matches([' ', '\t']) == *group);
    }
    assert_eq!(as_whom.headers().count(), 1 + groups.len());
}

fn groups_of(as_whom: &Impersonation) -> Vec<String> {
    as_whom.groups().map(ToOwned::to_owned).collect()
}

fn folded(name: &HeaderName) -> String {
    name.as_str().replace('_', "-")
}

/// May ask for `edit`.
fn ann() -> Peer {
    peer(&serde_json::json!([{"impersonate": {"groups": ["view"], "allow": ["edit"]}}]))
}

/// May ask for nothing.
fn bob() -> Peer {
    peer(&serde_json::json!([{"impersonate": {"groups": ["view"]}}]))
}

fn peer(rules: &serde_json::Value) -> Peer {
    let document = serde_json::json!({
        "Node": {"Name": "l.ts.net."}, "UserProfile": {"LoginName": "ann"}, "CapMap": {CAPABILITY: rules},
    });
    Peer::new(&serde_json::from_value(document).unwrap(), None)
}
