//! The URL of an API server, taken apart. Pure.

use std::fmt;

/// Where the API server is: scheme, host, port, and a path that goes in front of every request's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    tls: bool,
    host: String,
    port: u16,
    /// Whether the URL named a port.
    has_port: bool,
    prefix: String,
}

/// Why a text is not the URL of an API server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBase {
    /// No `http://` or `https://` in front.
    #[error("it must begin with https:// or http://")]
    Scheme,
    /// Nothing that could be connected to.
    #[error("it names no host, or a port that is none")]
    Host,
    /// A query or fragment, or characters that no URL has.
    #[error("it may have a path, but no query, no fragment and no user")]
    Rest,
}

impl Base {
    /// Parses `https://host[:port][/path]`.
    pub fn parse(url: &str) -> Result<Self, BadBase> {
        let url = url.trim();
        let (scheme, rest) = url.split_once("://").ok_or(BadBase::Scheme)?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err(BadBase::Scheme),
        };
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&byte));
        if authority.contains('@') || !plain(rest) {
            return Err(BadBase::Rest);
        }
        let (host, port) = split_authority(authority).ok_or(BadBase::Host)?;
        let default = if tls { 443 } else { 80 };
        Ok(Self {
            tls,
            host: host.to_owned(),
            port: port.unwrap_or(default),
            has_port: port.is_some(),
            prefix: path.trim_end_matches('/').to_owned(),
        })
    }

    /// Whether it is spoken to through TLS. Credentials are used only then.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Name or address; an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port as `Host` and URLs have them, the port only where the URL had one.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.has_port { format!("{host}:{}", self.port) } else { host }
    }

    /// What goes in front of every path: empty, or `/k8s/clusters/c-1`, without a slash at its end.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The path and query that are asked for when a client asks for `path_and_query`.
    pub fn target(&self, path_and_query: &str) -> String {
        format!("{}{path_and_query}", self.prefix)
    }
}

impl fmt::Display for Base {
    /// Scheme, host and port.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

/// `host`, `host:port`, `[::1]` or `[::1]:port`; the host without brackets.
pub(super) fn split_authority(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(inner) => {
            let (host, rest) = inner.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, rest)
        }
        None => text.find(':').map_or((text, ""), |at| text.split_at(at)),
    };
    let port = match rest.strip_prefix(':') {
        // `https://host:/` is a URL: the default port.
        Some("") | None if rest.len() <= 1 => None,
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(port.parse().ok().filter(|port| *port > 0)?)
        }
        _ => return None,
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:%".contains(&byte);
    (!host.is_empty() && host.bytes().all(is_name)).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        for (url, shown, host, port, prefix) in [
            ("https://10.0.0.1:6443", "https://10.0.0.1:6443", "10.0.0.1", 6443, ""),
            ("https://api.example/", "https://api.example", "api.example", 443, ""),
            ("HTTP://h/k8s/clusters/c-1/", "http://h", "h", 80, "/k8s/clusters/c-1"),
            ("https://[fd00::1]:443", "https://[fd00::1]:443", "fd00::1", 443, ""),
            ("https://[::1]/x", "https://[::1]", "::1", 443, "/x"),
            ("https://h:/", "https://h", "h", 443, ""),
        ] {
            let base = Base::parse(url).unwrap();
            assert_eq!(
                (base.to_string().as_str(), base.host(), base.port(), base.prefix()),
                (shown, host, port, prefix)
            );
        }
        assert_eq!(Base::parse("https://h/k8s/").unwrap().target("/api?x=1"), "/k8s/api?x=1");
    }

    #[test]
    fn what_is_no_url_of_a_server_is_refused() {
        for (url, error) in [
            ("", BadBase::Scheme),
            ("localhost:8080", BadBase::Scheme),
            ("ftp://h", BadBase::Scheme),
            ("https://", BadBase::Host),
            ("https:///path", BadBase::Host),
            ("https://h:99999", BadBase::Host),
            ("https://h:0", BadBase::Host),
            ("https://[::1", BadBase::Host),
            ("https://[h]:1", BadBase::Host),
            ("https://user:hush@h", BadBase::Rest),
            ("https://h/a?b", BadBase::Rest),
            ("https://h/a b", BadBase::Rest),
        ] {
            assert_eq!(Base::parse(url), Err(error), "{url}");
        }
    }
}
