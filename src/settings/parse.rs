//! `&str` to value, one small function each. Pure.
//!
//! Follows Go's `strconv.ParseBool` and `netip.ParseAddrPort`, error texts included, because those texts appear in
//! lines that others match on.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

pub use super::duration::{DurationError, GoDuration, duration};

/// The spellings of a boolean, and what they mean.
pub const BOOLEANS: [(&str, bool); 12] = [
    ("1", true),
    ("t", true),
    ("T", true),
    ("TRUE", true),
    ("true", true),
    ("True", true),
    ("0", false),
    ("f", false),
    ("F", false),
    ("FALSE", false),
    ("false", false),
    ("False", false),
];

/// A boolean in one of [`BOOLEANS`]; nothing is trimmed.
pub fn boolean(text: &str) -> Option<bool> {
    BOOLEANS.iter().find(|(spelling, _)| *spelling == text).map(|(_, value)| *value)
}

/// Why a text is not an IP address; Go's `netip.ParseAddr` in short.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ParseAddr({0:?}): unable to parse IP")]
pub struct IpError(String);

/// An IP address. A zone is accepted on IPv6 and dropped.
pub fn ip(text: &str) -> Result<IpAddr, IpError> {
    zoned_ip(text).map(|(addr, _)| addr)
}

/// An IP address and its zone.
fn zoned_ip(text: &str) -> Result<(IpAddr, Option<&str>), IpError> {
    let error = || IpError(text.to_owned());
    match text.split_once('%') {
        None => text.parse().map(|addr| (addr, None)).map_err(|_| error()),
        Some((_, "")) => Err(error()),
        Some((addr, zone)) => addr.parse::<Ipv6Addr>().map(|addr| (addr.into(), Some(zone))).map_err(|_| error()),
    }
}

/// Why a text is not an IP address and port; Go's texts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddrPortError {
    /// There is no colon.
    #[error("not an ip:port")]
    NoColon,
    /// Nothing before the port.
    #[error("no IP")]
    NoIp,
    /// Nothing after the last colon.
    #[error("no port")]
    NoPort,
    /// `[` without `]`.
    #[error("missing ]")]
    NoBracket,
    /// The port is not a number up to 65535.
    #[error("invalid port {port:?} parsing {text:?}")]
    Port {
        /// The port.
        port: String,
        /// The whole text.
        text: String,
    },
    /// The address is none.
    #[error(transparent)]
    Ip(#[from] IpError),
    /// `[1.2.3.4]:80`
    #[error("invalid ip:port {0:?}, square brackets can only be used with IPv6 addresses")]
    BracketedIpv4(String),
    /// `fe80::1:80`
    #[error("invalid ip:port {0:?}, IPv6 addresses must be surrounded by square brackets")]
    BareIpv6(String),
}

/// An IP literal and a port. A numeric IPv6 zone becomes the scope id; a named one is accepted and dropped, so
/// that binding to it says which address it could not use.
pub fn addr_port(text: &str) -> Result<SocketAddr, AddrPortError> {
    let (ip, port) = text.rsplit_once(':').ok_or(AddrPortError::NoColon)?;
    if ip.is_empty() {
        return Err(AddrPortError::NoIp);
    }
    if port.is_empty() {
        return Err(AddrPortError::NoPort);
    }
    let (ip, bracketed) = match ip.strip_prefix('[') {
        Some(inner) => (inner.strip_suffix(']').ok_or(AddrPortError::NoBracket)?, true),
        None => (ip, false),
    };
    let plain = port.bytes().all(|b| b.is_ascii_digit());
    let port: u16 = port
        .parse()
        .ok()
        .filter(|_| plain)
        .ok_or_else(|| AddrPortError::Port { port: port.to_owned(), text: text.to_owned() })?;
    match zoned_ip(ip)? {
        (IpAddr::V4(_), _) if bracketed => Err(AddrPortError::BracketedIpv4(text.to_owned())),
        (IpAddr::V6(_), _) if !bracketed => Err(AddrPortError::BareIpv6(text.to_owned())),
        (IpAddr::V4(v4), _) => Ok((v4, port).into()),
        (IpAddr::V6(v6), zone) => {
            let scope = zone.and_then(|zone| zone.parse().ok()).unwrap_or(0);
            Ok(SocketAddrV6::new(v6, port, 0, scope).into())
        }
    }
}

/// Words between white space, without any quoting.
pub fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// A quote or a backslash that has no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} at the end of the text is not closed")]
pub struct UnclosedQuote(&'static str);

/// Words as a POSIX shell splits them: `'…'`, `"…"` and `\`; no expansion of any kind.
pub fn shell_words(text: &str) -> Result<Vec<String>, UnclosedQuote> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => words.extend(word.take()),
            '\\' => word.get_or_insert_default().push(chars.next().ok_or(UnclosedQuote("a backslash"))?),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or(UnclosedQuote("a single quote"))? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or(UnclosedQuote("a double quote"))? {
                        '"' => break,
                        '\\' => match chars.next().ok_or(UnclosedQuote("a double quote"))? {
                            c @ ('"' | '\\' | '$' | '`') => word.push(c),
                            c => word.extend(['\\', c]),
                        },
                        c => word.push(c),
                    }
                }
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn booleans_are_these_spellings_and_no_others() {
        for (text, value) in BOOLEANS {
            assert_eq!(boolean(text), Some(value));
        }
        for text in ["", "yes", "on", " true", "tRUE", "2", "true "] {
            assert_eq!(boolean(text), None, "{text:?}");
        }
    }

    #[test]
    fn addresses_and_ports() {
        for text in ["1.2.3.4:80", "[::]:9002", "[fe80::1%3]:80", "[::ffff:1.2.3.4]:1"] {
            assert_eq!(addr_port(text).map(|addr| addr.to_string()).as_deref(), Ok(text), "{text}");
        }
        assert!(addr_port("[fe80::1%eth0]:80").is_ok());
        for (text, reason) in [
            ("9002", "not an ip:port"),
            (":9002", "no IP"),
            ("1.2.3.4:", "no port"),
            ("[::1:80", "missing ]"),
            ("1.2.3.4:65536", r#"invalid port "65536" parsing "1.2.3.4:65536""#),
            ("1.2.3.4:+80", r#"invalid port "+80" parsing "1.2.3.4:+80""#),
            ("localhost:9002", r#"ParseAddr("localhost"): unable to parse IP"#),
            ("[1.2.3.4]:80", r#"invalid ip:port "[1.2.3.4]:80", square brackets can only be used with IPv6 addresses"#),
            ("::1:80", r#"invalid ip:port "::1:80", IPv6 addresses must be surrounded by square brackets"#),
            ("[fe80::1%]:80", r#"ParseAddr("fe80::1%"): unable to parse IP"#),
        ] {
            assert_eq!(addr_port(text).expect_err(text).to_string(), reason);
        }
    }

    #[test]
    fn shell_words_know_quotes() {
        for (text, expected) in [
            ("", &[][..]),
            ("  --a  --b=c ", &["--a", "--b=c"]),
            (r#"--a='x y' --b="p \"q\" \n""#, &["--a=x y", r#"--b=p "q" \n"#]),
            (r"a\ b ''", &["a b", ""]),
            ("'a'\"b\"c", &["abc"]),
        ] {
            assert_eq!(shell_words(text).expect(text), expected, "{text}");
        }
        for text in ["'a", "\"a", "a\\", "\"a\\"] {
            assert!(shell_words(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn quoted_words_come_back(list in proptest::collection::vec("[ -&(-~]{0,8}", 0..5)) {
            let text = list.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(shell_words(&text), Ok(list));
        }
    }
}
