//! Through which proxy the API server is reached, if any. Pure.
//!
//! A kubeconfig's `proxy-url` holds for its cluster whatever the environment says. Otherwise `HTTPS_PROXY`, `HTTP_PROXY`
//! and `NO_PROXY` decide as they do for Go programs (`golang.org/x/net/http/httpproxy`): loopback is never proxied.

use std::fmt;
use std::net::IpAddr;

use zeroize::Zeroizing;

use super::base::split_authority;
use super::token::Authorization;
use crate::prefix::Prefix;
use crate::secret::Secret;

/// A proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyUrl {
    /// How it is spoken to.
    pub(super) kind: Kind,
    /// Name or address, without brackets.
    pub(super) host: String,
    /// Its port.
    pub(super) port: u16,
    /// Name and password, as the URL has them, percent-decoded.
    pub(super) user: Option<(String, Secret<Zeroizing<String>>)>,
}

/// The protocol of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `CONNECT`.
    Http,
    /// `CONNECT` inside TLS.
    Https,
    /// SOCKS5; names are resolved by the proxy.
    Socks5,
}

/// The proxies that the environment names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnvProxies {
    https: Option<ProxyUrl>,
    http: Option<ProxyUrl>,
    except: Vec<Exception>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Exception {
    Everything,
    Within(Prefix),
    /// A domain: with `exactly`, only names below it.
    Domain {
        name: String,
        below_only: bool,
        port: Option<u16>,
    },
    Address {
        ip: IpAddr,
        port: Option<u16>,
    },
}

/// A proxy's URL that is none. Never quotes it: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the URL of a proxy: {0}")]
pub struct BadProxy(&'static str);

impl ProxyUrl {
    /// Parses a URL; without a scheme it is `http`.
    pub fn parse(text: &str) -> Result<Self, BadProxy> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let (kind, port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (Kind::Http, 80),
            "https" => (Kind::Https, 443),
            "socks5" | "socks5h" => (Kind::Socks5, 1080),
            _ => return Err(BadProxy("the scheme is none of http, https and socks5")),
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (user, address) = match authority.rsplit_once('@') {
            Some((user, address)) => (Some(user), address),
            None => (None, authority),
        };
        let (host, named) = split_authority(address).ok_or(BadProxy("there is no host and port"))?;
        let user = user.map(|user| {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            (percent_decoded(name).to_string(), Secret::new(percent_decoded(password)))
        });
        Ok(Self { kind, host: host.to_owned(), port: named.unwrap_or(port), user })
    }

    /// The value of `Proxy-Authorization`.
    pub(super) fn basic(&self) -> Option<Authorization> {
        let (name, password) = self.user.as_ref()?;
        // Base64 is what every header can carry.
        Authorization::basic(name, password.expose()).ok()
    }
}

impl fmt::Display for ProxyUrl {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.kind {
            Kind::Http => "http",
            Kind::Https => "https",
            Kind::Socks5 => "socks5",
        };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

impl EnvProxies {
    /// Takes the variables from `get`, in upper case before lower case.
    ///
    /// # Errors
    /// The variable that does not hold a proxy.
    pub fn from_vars(get: &dyn Fn(&str) -> Option<String>) -> Result<Self, (&'static str, BadProxy)> {
        let value = |upper, lower| get(upper).or_else(|| get(lower)).filter(|text| !text.trim().is_empty());
        let proxy = |upper: &'static str, lower: &'static str| {
            value(upper, lower).map(|text| ProxyUrl::parse(text.trim())).transpose().map_err(|error| (upper, error))
        };
        let except = value("NO_PROXY", "no_proxy").unwrap_or_default();
        Ok(Self {
            https: proxy("HTTPS_PROXY", "https_proxy")?,
            http: proxy("HTTP_PROXY", "http_proxy")?,
            except: except.split(',').filter_map(|part| exception(part.trim())).collect(),
        })
    }

    /// The proxy towards `host`, a name or an address without brackets.
    pub fn towards(&self, tls: bool, host: &str, port: u16) -> Option<&ProxyUrl> {
        let proxy = if tls { self.https.as_ref() } else { self.http.as_ref() }?;
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let ip: Option<IpAddr> = host.parse().ok();
        let is_loopback = host == "localhost" || ip.is_some_and(|ip| ip.is_loopback());
        let is_excepted = is_loopback || self.except.iter().any(|exception| exception.covers(&host, ip, port));
        (!is_excepted).then_some(proxy)
    }
}

impl Exception {
    fn covers(&self, host: &str, ip: Option<IpAddr>, to: u16) -> bool {
        match self {
            Self::Everything => true,
            Self::Within(prefix) => ip.is_some_and(|ip| prefix.contains(ip)),
            Self::Address { ip: excepted, port } => ip == Some(*excepted) && port.is_none_or(|port| port == to),
            Self::Domain { name, below_only, port } => {
                let below = host.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'));
                (below || (!below_only && host == name)) && port.is_none_or(|port| port == to)
            }
        }
    }
}

/// One part of `NO_PROXY`; `None` for what nobody can match.
fn exception(part: &str) -> Option<Exception> {
    let part = part.to_ascii_lowercase();
    if part.is_empty() {
        return None;
    }
    if part == "*" {
        return Some(Exception::Everything);
    }
    if part.contains('/') {
        return part.parse().ok().map(Exception::Within);
    }
    if let Ok(ip) = part.parse() {
        return Some(Exception::Address { ip, port: None });
    }
    let part = part.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(&part);
    let (host, port) = split_authority(part)?;
    if let Ok(ip) = host.parse() {
        return Some(Exception::Address { ip, port });
    }
    let (name, below_only) = host.strip_prefix('.').map_or((host, false), |name| (name, true));
    Some(Exception::Domain { name: name.to_owned(), below_only, port })
}

fn percent_decoded(text: &str) -> Zeroizing<String> {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Zeroizing::new(Vec::with_capacity(bytes.len()));
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if let (b'%', Some(high), Some(low)) = (byte, digit(at + 1), digit(at + 2)) {
            out.push(u8::try_from(high * 16 + low).unwrap_or(byte));
            at += 3;
        } else {
            out.push(byte);
            at += 1;
        }
    }
    Zeroizing::new(String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_read_and_shown_without_their_password() {
        for (text, expected) in [
            ("http://proxy:3128", Ok("http://proxy:3128")),
            ("proxy:3128/", Ok("http://proxy:3128")),
            ("https://u:p%40ss@proxy", Ok("https://proxy:443")),
            ("socks5h://[::1]:9", Ok("socks5://[::1]:9")),
            ("ftp://x", Err(BadProxy("the scheme is none of http, https and socks5"))),
            ("http://", Err(BadProxy("there is no host and port"))),
            ("http://h:port", Err(BadProxy("there is no host and port"))),
        ] {
            assert_eq!(ProxyUrl::parse(text).map(|proxy| proxy.to_string()), expected.map(str::to_owned), "{text}");
        }
        let proxy = ProxyUrl::parse("https://u:p%40ss@proxy").unwrap();
        assert_eq!(proxy.basic().unwrap().header(), "Basic dTpwQHNz");
        assert!(!format!("{proxy:?}").contains("p@ss"));
    }

    #[test]
    fn the_environment_decides_as_for_go_programs() {
        let vars = |name: &str| {
            let value = match name {
                "HTTPS_PROXY" => "http://secure:1",
                "http_proxy" => "http://plain:2",
                "NO_PROXY" => "10.0.0.0/8, 192.168.1.1, .svc, example.com,*.wild.org,api.test:6443,,bad/net",
                _ => return None,
            };
            Some(value.to_owned())
        };
        let proxies = EnvProxies::from_vars(&vars).unwrap();
        let shown = |tls, host, port| proxies.towards(tls, host, port).map(ToString::to_string);
        let (secure, plain) = (Some("http://secure:1".to_owned()), Some("http://plain:2".to_owned()));
        assert_eq!(shown(true, "elsewhere.org", 443), secure);
        assert_eq!(shown(false, "elsewhere.org", 80), plain);
        for (host, port, expected) in [
            ("localhost", 443, None),
            ("127.0.0.9", 443, None),
            ("::1", 443, None),
            ("10.1.2.3", 443, None),
            ("11.1.2.3", 443, secure.clone()),
            ("192.168.1.1", 443, None),
            ("kubernetes.default.svc", 443, None),
            ("svc", 443, secure.clone()),
            ("EXAMPLE.com.", 443, None),
            ("a.example.com", 443, None),
            ("notexample.com", 443, secure.clone()),
            ("a.wild.org", 443, None),
            ("api.test", 6443, None),
            ("api.test", 443, secure),
        ] {
            assert_eq!(shown(true, host, port), expected, "{host}:{port}");
        }
        let all = EnvProxies::from_vars(&|name| match name {
            "HTTPS_PROXY" => Some("p".to_owned()),
            "NO_PROXY" => Some("*".to_owned()),
            _ => None,
        });
        assert_eq!(all.unwrap().towards(true, "x", 1), None);
        let bad = EnvProxies::from_vars(&|name| (name == "https_proxy").then(|| "ftp://x".to_owned()));
        assert_eq!(bad.unwrap_err().0, "HTTPS_PROXY");
    }
}
