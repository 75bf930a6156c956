//! Which headers pass, which do not, and which are ours. Pure.
//!
//! The order is a security property (api-proxy.md 7.2): hop-by-hop headers, and those that `Connection` names, go first;
//! then what a client must not say; only then is added whom the request acts as. Names in a [`HeaderMap`] are lower case.

use hyper::header::{
    AUTHORIZATION, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};

use super::access::Impersonation;
use super::refusal::{Reason, Refusal};
use crate::short;

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

/// Most options of one message's `Connection` headers; clients send two or three, and each may name a header to look for.
const MOST_OPTIONS: usize = 100;

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
    /// One that is never switched to, as it was written but [short](short::name); `h2c`, say.
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
            Self::Other(short::name(token).into_owned())
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

/// Takes everything out of a request, or of an answer that switches protocols, that belongs to this connection only.
///
/// Nothing is put back: see [`set_hop`]. More than one protocol to switch to is refused, because the two sides might
/// choose differently; so are more options than [`MOST_OPTIONS`].
pub fn take_hop(headers: &mut HeaderMap) -> Result<Hop, Refusal> {
    let said = Said::by(headers);
    let hop = said.hop()?;
    said.listed.remove_from(headers);
    Ok(hop)
}

/// The same with an answer that switches to nothing. It may offer what it likes: nobody takes it.
pub fn drop_hop(headers: &mut HeaderMap) {
    Said::by(headers).listed.remove_from(headers);
}

/// What the headers of [`HOP_BY_HOP`] say.
#[derive(Default)]
struct Said<'h> {
    listed: Listed,
    options: usize,
    wants_upgrade: bool,
    /// The first two: one too many.
    upgrades: [Option<&'h [u8]>; 2],
    takes_trailers: bool,
}

/// What has to go.
#[derive(Default)]
struct Listed {
    /// Which headers of [`HOP_BY_HOP`] there are.
    present: [bool; HOP_BY_HOP.len()],
    /// The values of `Connection`, which name others.
    connection: Vec<HeaderValue>,
}

impl Listed {
    fn remove_from(self, headers: &mut HeaderMap) {
        for option in self.connection.iter().flat_map(list) {
            // `Connection: host` would leave a request that nobody can route.
            if let Ok(name) = std::str::from_utf8(option)
                && !name.eq_ignore_ascii_case(HOST.as_str())
            {
                headers.remove(name);
            }
        }
        for (name, is_there) in HOP_BY_HOP.iter().zip(self.present) {
            if is_there {
                headers.remove(name);
            }
        }
    }
}

/// The members of a list, empty ones too. One that is not text takes none of the others with it.
fn list(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

impl<'h> Said<'h> {
    fn by(headers: &'h HeaderMap) -> Self {
        let mut said = Self::default();
        // One look at each header instead of a search for each of ours: this runs twice for each request, and most of
        // them say nothing.
        for (name, value) in headers {
            if let Some(place) = HOP_BY_HOP.iter().position(|ours| ours == name) {
                said.listed.present[place] = true;
                said.hear(name, value);
            }
        }
        said
    }

    fn hop(&self) -> Result<Hop, Refusal> {
        if self.options > MOST_OPTIONS {
            let message = format!("the request has more than {MOST_OPTIONS} `Connection` options");
            return Err(Refusal::new(Reason::Request, message));
        }
        let upgrade = match (self.wants_upgrade, self.upgrades) {
            (_, [Some(one), Some(other)]) => {
                let [one, other] = [one, other].map(String::from_utf8_lossy);
                let [one, other] = [short::name(&one), short::name(&other)];
                let message =
                    format!("the request would switch to {one:?} or to {other:?}; expected one `Upgrade` value");
                return Err(Refusal::new(Reason::Request, message));
            }
            (true, [Some(one), None]) => Upgrade::from_token(&String::from_utf8_lossy(one)),
            _ => Upgrade::No,
        };
        let trailers = if self.takes_trailers { Trailers::Taken } else { Trailers::Unknown };
        Ok(Hop { upgrade, trailers })
    }

    /// Takes in one of them.
    fn hear(&mut self, name: &HeaderName, value: &'h HeaderValue) {
        let mut tokens = list(value);
        if *name == CONNECTION {
            for token in tokens {
                self.options += 1;
                self.wants_upgrade |= token.eq_ignore_ascii_case(b"upgrade");
            }
            self.listed.connection.push(value.clone());
        } else if *name == UPGRADE {
            for place in self.upgrades.iter_mut().filter(|place| place.is_none()) {
                *place = tokens.find(|token| !token.is_empty());
            }
        } else if *name == TE {
            let mut names = tokens.filter_map(|token| token.split(|&byte| byte == b';').next());
            self.takes_trailers |= names.any(|name| name.trim_ascii().eq_ignore_ascii_case(b"trailers"));
        }
    }
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

/// Removes what the client says about the way its request took: not trusted, and kube-apiserver writes it into its audit
/// log.
pub fn strip_forwarding(headers: &mut HeaderMap) {
    strip(headers, says_the_way);
}

/// Whether a lower-case header name says which way a request took; read as [`says_identity`] reads names.
fn says_the_way(name: &str) -> bool {
    begins(name, "x-forwarded-") || is_folded(name, "x-real-ip") || is_folded(name, "forwarded")
}

/// Removes everything with which a client could say who it is.
pub fn strip_identity(headers: &mut HeaderMap) {
    strip(headers, says_identity);
}

/// Removes every header whose lower-case name is one of these.
fn strip(headers: &mut HeaderMap, is_one: fn(&str) -> bool) {
    let named: Vec<HeaderName> = headers.keys().filter(|name| is_one(name.as_str())).cloned().collect();
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
pub(super) fn is_folded(name: &str, known: &str) -> bool {
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
    let of_the_hop = HOP_BY_HOP.iter().map(HeaderName::as_str);
    let never = NEVER.into_iter().chain(of_the_hop).any(|never| is_folded(name, never));
    !never && !says_identity(name) && !says_the_way(name)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
        };
        lines.iter().map(pair).collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn hop_by_hop_goes_with_what_it_names() {
        let mut headers = map(&[
            ("Host", "h"),
            ("Connection", "keep-alive, X-Mine ,Impersonate-User"),
            ("Connection", "\"quoted\", host, close,,"),
            ("X-Mine", "1"),
            ("x-mine", "2"),
            ("Impersonate-User", "root"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Connection", "close"),
            ("Proxy-Authorization", "Basic x"),
            ("Proxy-Authenticate", "Basic"),
            ("TE", "gzip;q=0.5, Trailers"),
            ("Trailer", "X"),
            ("Transfer-Encoding", "chunked"),
            ("Upgrade", "h2c"),
            ("X-Other", "stays"),
        ]);
        let hop = take_hop(&mut headers).unwrap();
        assert_eq!(names(&headers), ["host", "x-other"]);
        assert_eq!(hop, Hop { upgrade: Upgrade::No, trailers: Trailers::Taken });
        set_hop(&mut headers, &hop);
        assert_eq!(headers.get(TE).unwrap(), "trailers");
        assert!(!headers.contains_key(UPGRADE) && !headers.contains_key(CONNECTION));
    }

    #[test]
    fn what_a_request_wants_to_switch_to() {
        let other = |token: &str| Ok(Upgrade::Other(token.to_owned()));
        for (lines, expected) in [
            (&[("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1")][..], Ok(Upgrade::Spdy)),
            (&[("Connection", "keep-alive, uPGRADE"), ("Upgrade", "spdy/3.1")], Ok(Upgrade::Spdy)),
            (&[("Connection", "x"), ("Connection", "upgrade"), ("Upgrade", "WebSocket")], Ok(Upgrade::WebSocket)),
            (&[("Connection", "upgrade"), ("Upgrade", "h2c")], other("h2c")),
            (&[("Connection", "upgrade"), ("Upgrade", "SPDY/3.1 ")], Ok(Upgrade::Spdy)),
            (&[("Connection", "upgrade"), ("Upgrade", "SPDY/3")], other("SPDY/3")),
            (&[("Connection", "upgrade"), ("Upgrade", "websocket/13")], other("websocket/13")),
            (&[("Connection", "upgrade"), ("Upgrade", "")], Ok(Upgrade::No)),
            (&[("Connection", "upgrade")], Ok(Upgrade::No)),
            (&[("Upgrade", "websocket")], Ok(Upgrade::No)),
            (&[("Connection", "upgraded"), ("Upgrade", "websocket")], Ok(Upgrade::No)),
            (&[("Connection", "upgrade"), ("Upgrade", "websocket, SPDY/3.1")], Err(())),
            (&[("Connection", "upgrade"), ("Upgrade", "websocket"), ("Upgrade", "SPDY/3.1")], Err(())),
            (&[("Connection", "upgrade"), ("Upgrade", "websocket, websocket")], Err(())),
            (&[("Connection", "upgrade"), ("Upgrade", "websocket, h2c")], Err(())),
            (&[("Upgrade", "foo, bar")], Err(())),
        ] {
            let got = take_hop(&mut map(lines)).map(|hop| hop.upgrade).map_err(|refusal| {
                assert_eq!(refusal.status(), 400);
            });
            assert_eq!(got, expected, "{lines:?}");
        }
    }

    #[test]
    fn only_two_protocols_are_ever_asked_for() {
        for (upgrade, expected) in [
            (Upgrade::Spdy, Some("SPDY/3.1")),
            (Upgrade::WebSocket, Some("websocket")),
            (Upgrade::Other("h2c".to_owned()), None),
            (Upgrade::No, None),
        ] {
            let mut headers = HeaderMap::new();
            set_hop(&mut headers, &Hop { upgrade, trailers: Trailers::Unknown });
            assert_eq!(headers.get(UPGRADE).map(|value| value.to_str().unwrap()), expected);
            assert_eq!(headers.get(CONNECTION).map(|value| value.to_str().unwrap()), expected.map(|_| "Upgrade"));
            assert!(!headers.contains_key(TE));
        }
    }

    #[test]
    fn nothing_that_says_who_asks_survives() {
        let identity = [
            "Authorization",
            "IMPERSONATE-USER",
            "impersonate-GROUP",
            "Impersonate-Uid",
            "impersonate-EXTRA-x",
            "Impersonate-Extra-example.com%2fscopes",
            "Impersonate-",
            "Impersonate-New-Thing",
            "Impersonate_User",
            "impersonate_group",
            "Impersonate_Extra-x",
            "X-Remote-User",
            "x_remote_user",
            "X-Remote-Uid",
            "X-Remote-Group",
            "X-Remote_Group",
            "X-Remote-Extra-Foo",
            "x_remote_extra_foo",
            "Proxy-Authorization",
            "proxy_authorization",
        ];
        let others = [
            "X-Remote",
            "Impersonate",
            "X-Impersonate-User",
            "Authorization-X",
            "X-Remote-Users",
            "Kubectl-Command",
            "Audit-Id",
            "Accept",
        ];
        for name in identity {
            assert!(says_identity(&name.to_lowercase()), "{name}");
            assert!(!is_trailer(&name.to_lowercase()), "{name}");
        }
        for name in others {
            assert!(!says_identity(&name.to_lowercase()), "{name}");
        }
        let lines: Vec<_> = identity.iter().chain(&others).flat_map(|name| [(*name, "a"), (*name, "b")]).collect();
        let mut headers = map(&lines);
        strip_identity(&mut headers);
        assert_eq!(headers.len(), 2 * others.len());
        assert!(others.iter().all(|name| headers.contains_key(*name)));
    }

    #[test]
    fn what_is_said_about_the_way_is_dropped() {
        let mut headers = map(&[
            ("Forwarded", "for=1.2.3.4"),
            ("X-Forwarded-For", "1.2.3.4"),
            ("X-Forwarded-Host", "h"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Port", "443"),
            ("X_Forwarded_For", "100.64.0.1"),
            ("X-Real-Ip", "100.64.0.1"),
            ("X-Really", "stays"),
        ]);
        strip_forwarding(&mut headers);
        assert_eq!(names(&headers), ["x-really"]);
    }

    #[test]
    fn trailers_pass_unless_they_frame_or_identify() {
        for name in ["grpc-status", "x-checksum", "audit-id"] {
            assert!(is_trailer(name), "{name}");
        }
        for name in [
            "transfer-encoding",
            "content-length",
            "content_length",
            "host",
            "connection",
            "te",
            "x-forwarded-for",
            "upgrade",
        ] {
            assert!(!is_trailer(name), "{name}");
        }
    }

    #[test]
    fn our_credentials_never_show_in_a_debug_text() {
        let mut headers = HeaderMap::new();
        authorize(&mut headers, Some(HeaderValue::from_static("Bearer abc")));
        assert!(!format!("{headers:?}").contains("abc"));
        authorize(&mut headers, None);
        assert_eq!(headers.get(AUTHORIZATION).unwrap(), "Bearer abc");
    }

    proptest! {
        /// However a name is written, stripping it is decided by the folded name alone.
        #[test]
        fn any_spelling_of_a_protected_name_goes(
            known in prop::sample::select(vec!["impersonate-user", "impersonate-group", "impersonate-extra-a", "authorization", "x-remote-group"]),
            flips in proptest::collection::vec(any::<(bool, bool)>(), 24),
        ) {
            let spelled: String = known.chars().zip(flips).map(|(char, (upper, fold))| match char {
                '-' if fold => '_',
                char if upper => char.to_ascii_uppercase(),
                char => char,
            }).collect();
            let mut headers = map(&[(&spelled, "x"), ("accept", "y")]);
            strip_identity(&mut headers);
            prop_assert_eq!(names(&headers), vec!["accept"]);
        }

        /// After removal nothing hop-by-hop is left, whatever `Connection` says.
        #[test]
        fn taking_is_complete(connection in "[a-zA-Z, -]{0,40}", upgrade in "[a-z/0-9.]{0,10}") {
            let mut headers = map(&[("connection", &connection), ("upgrade", &upgrade), ("te", "x"), ("a", "1"), ("bb", "2")]);
            if take_hop(&mut headers).is_ok() {
                prop_assert!(HOP_BY_HOP.iter().all(|name| !headers.contains_key(name)));
                let named = connection.split(',').map(str::trim);
                prop_assert!(named.into_iter().all(|name| !headers.contains_key(name.to_lowercase())));
            }
        }
    }
}
