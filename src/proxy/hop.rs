//! What belongs to one connection (RFC 9110 7.6.1): taken out of a message, understood, and said anew to the other side.
//! Pure.

use hyper::header::{
    CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};

use super::refusal::{Reason, Refusal};
use crate::short;

/// Headers that belong to one connection (RFC 9110 7.6.1).
pub(super) static HOP_BY_HOP: [HeaderName; 9] = [
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

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in crate::proxy) fn map(lines: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
        };
        lines.iter().map(pair).collect()
    }

    pub(in crate::proxy) fn names(headers: &HeaderMap) -> Vec<&str> {
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

    proptest! {
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
