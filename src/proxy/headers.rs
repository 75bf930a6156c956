//! Which headers pass, which do not, and which are ours. Pure.
//!
//! The order is a security property (api-proxy.md 7.2): hop-by-hop headers, and those that `Connection` names, go first;
//! then what a client must not say; only then is added whom the request acts as. Names in a [`HeaderMap`] are lower case.

use hyper::header::{
    AUTHORIZATION, CONNECTION, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

use super::access::Impersonation;
use super::refusal::{Reason, Refusal};

/// Headers that belong to one connection (RFC 9110 7.6.1).
static HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Headers about the way a request took, as the client says; not trusted, so not passed on.
static FORWARDING: [HeaderName; 4] = [
    FORWARDED,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
];

/// Names that say who asks, besides those that begin with `impersonate-` or `x-remote-extra-`.
const IDENTITY: [&str; 5] = ["authorization", "proxy-authorization", "x-remote-user", "x-remote-uid", "x-remote-group"];

/// What a message said about its connection, taken out of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Which protocol it wants to switch to.
    pub upgrade: Upgrade,
    /// Whether the other side takes trailers.
    pub trailers: Trailers,
}

/// Which protocol a request wants to switch to, or an answer does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// None.
    No,
    /// `SPDY/3.1`
    Spdy,
    /// `websocket`
    WebSocket,
    /// One that is never switched to, as it was written; `h2c`, say.
    Other(String),
}

/// Whether trailers are taken (`TE: trailers`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trailers {
    /// Yes.
    Taken,
    /// Not said.
    Unknown,
}

impl Upgrade {
    /// From one token, in any letter case.
    pub fn from_token(token: &str) -> Self {
        if token.eq_ignore_ascii_case("spdy/3.1") {
            Self::Spdy
        } else if token.eq_ignore_ascii_case("websocket") {
            Self::WebSocket
        } else {
            Self::Other(token.to_owned())
        }
    }

    /// The header value that asks for it; none for what is never asked for.
    pub fn token(&self) -> Option<HeaderValue> {
        match self {
            Self::Spdy => Some(HeaderValue::from_static("SPDY/3.1")),
            Self::WebSocket => Some(HeaderValue::from_static("websocket")),
            Self::No | Self::Other(_) => None,
        }
    }
}

/// Takes everything out that belongs to this connection only, in requests and answers alike.
///
/// Nothing is put back: see [`set_hop`]. More than one protocol to switch to is refused, because the two sides might
/// choose differently.
pub fn take_hop(headers: &mut HeaderMap) -> Result<Hop, Refusal> {
    let is_upgrade = tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"));
    let upgrades: Vec<&str> = tokens(headers, &UPGRADE).filter(|token| !token.is_empty()).collect();
    let upgrade = match (is_upgrade, upgrades.as_slice()) {
        (_, [one, other, ..]) => {
            let message = format!("the request would switch to {one:?} or to {other:?}; expected one `Upgrade` value");
            return Err(Refusal::new(Reason::Request, message));
        }
        (true, [one]) => Upgrade::from_token(one),
        _ => Upgrade::No,
    };
    let takes = tokens(headers, &TE)
        .any(|token| token.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case("trailers")));
    let trailers = if takes { Trailers::Taken } else { Trailers::Unknown };
    let named: Vec<HeaderName> = tokens(headers, &CONNECTION).filter_map(|token| token.parse().ok()).collect();
    // `Connection: host` would leave a request that nobody can route.
    for name in named.iter().filter(|name| **name != HOST).chain(HOP_BY_HOP.iter()) {
        headers.remove(name);
    }
    Ok(Hop { upgrade, trailers })
}

/// Says the same about the connection to the other side.
pub fn set_hop(headers: &mut HeaderMap, hop: &Hop) {
    if hop.trailers == Trailers::Taken {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Some(token) = hop.upgrade.token() {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, token);
    }
}

/// The comma separated elements of all values of a header; what is not text is skipped.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(',')).map(str::trim)
}

/// Removes what the client says about the way its request took.
pub fn strip_forwarding(headers: &mut HeaderMap) {
    for name in &FORWARDING {
        headers.remove(name);
    }
}

/// Removes everything with which a client could say who it is.
pub fn strip_identity(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers.keys().filter(|name| says_identity(name.as_str())).cloned().collect();
    for name in &named {
        headers.remove(name);
    }
}

/// Whether a lower-case header name says who asks. `_` counts as `-`: what stands between here and kube-apiserver may
/// fold the two.
pub fn says_identity(name: &str) -> bool {
    begins(name, "impersonate-")
        || begins(name, "x-remote-extra-")
        || IDENTITY.iter().any(|known| is_folded(name, known))
}

/// Whether a name is another one, its underscores taken for hyphens.
fn is_folded(name: &str, known: &str) -> bool {
    name.len() == known.len() && begins(name, known)
}

/// Whether a name begins so, its underscores taken for hyphens.
fn begins(name: &str, prefix: &str) -> bool {
    let folded = name.bytes().map(|byte| if byte == b'_' { b'-' } else { byte });
    name.len() >= prefix.len() && folded.zip(prefix.bytes()).all(|(byte, expected)| byte == expected)
}

/// Whether a trailer with this lower-case name passes: it may not say who asks, nor how a message is framed or routed.
pub fn is_trailer(name: &str) -> bool {
    const NEVER: [&str; 3] = ["host", "content-length", "content-encoding"];
    let about_the_way = HOP_BY_HOP.iter().chain(FORWARDING.iter()).map(HeaderName::as_str);
    !says_identity(name) && !NEVER.into_iter().chain(about_the_way).any(|never| is_folded(name, never))
}

/// Says whom the request acts as. Everything that the client said about it must be gone already.
pub fn impersonate(headers: &mut HeaderMap, as_whom: &Impersonation) {
    for (name, value) in as_whom.headers() {
        headers.append(name, value.clone());
    }
}

/// Says with which credentials the proxy itself comes.
pub fn authorize(headers: &mut HeaderMap, authorization: Option<HeaderValue>) {
    if let Some(mut value) = authorization {
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
}
