//! A network prefix such as `100.64.0.1/32`, as Go's `netip.Prefix` prints and parses it. Pure.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An address and a prefix length. The address keeps its host bits: `10.0.0.1/8` stays that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    addr: IpAddr,
    len: u8,
}

/// Why a text is not a network prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// There is no `/`.
    #[error("not a network prefix; expected `<address>/<length>`")]
    NoLength,
    /// What stands before the `/` is not an IP address.
    #[error("not a network prefix; {0:?} is not an IP address")]
    Address(String),
    /// What stands after the `/` is not a plain decimal number, or too large for the family.
    #[error("not a network prefix; the length must be at most {max}")]
    Length {
        /// 32 or 128.
        max: u8,
    },
}

impl Prefix {
    /// The prefix that holds exactly this address.
    pub fn host(addr: IpAddr) -> Self {
        Self { addr, len: if addr.is_ipv4() { 32 } else { 128 } }
    }

    /// The address as written, host bits included.
    pub fn addr(&self) -> IpAddr {
        self.addr
    }

    /// The prefix length in bits.
    pub fn len(&self) -> u8 {
        self.len
    }

    /// Whether the prefix is a default route (`0.0.0.0/0`, `::/0`).
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the address is one of the prefix's; never across families.
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.addr.is_ipv4() == addr.is_ipv4() && Self { addr, len: self.len }.masked() == self.masked()
    }

    /// The same prefix with its host bits cleared.
    #[must_use]
    pub fn masked(self) -> Self {
        let addr = match self.addr {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.len)).unwrap_or(0);
                IpAddr::V4((u32::from(v4) & mask).into())
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.len)).unwrap_or(0);
                IpAddr::V6((u128::from(v6) & mask).into())
            }
        };
        Self { addr, len: self.len }
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (addr, len) = text.rsplit_once('/').ok_or(PrefixError::NoLength)?;
        let addr: IpAddr = addr.parse().map_err(|_| PrefixError::Address(addr.to_owned()))?;
        let max = if addr.is_ipv4() { 32 } else { 128 };
        let plain = !len.is_empty() && len.bytes().all(|b| b.is_ascii_digit()) && (len == "0" || !len.starts_with('0'));
        match len.parse::<u8>() {
            Ok(len) if plain && len <= max => Ok(Self { addr, len }),
            _ => Err(PrefixError::Length { max }),
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl Serialize for Prefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_prints_what_go_does() {
        for text in ["100.64.0.1/32", "10.0.0.1/8", "::/0", "fd7a:115c:a1e0::1/128"] {
            assert_eq!(text.parse::<Prefix>().map(|p| p.to_string()).as_deref(), Ok(text));
        }
        for bad in ["", "nonsense", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/08", "10.0.0.0/+8", "::/129", "x/8"] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad} must not parse");
        }
    }

    #[test]
    fn masking_clears_host_bits_only() {
        let masked = |text: &str| text.parse::<Prefix>().map(|p| p.masked().to_string());
        assert_eq!(masked("10.1.2.3/8").as_deref(), Ok("10.0.0.0/8"));
        assert_eq!(masked("10.1.2.3/0").as_deref(), Ok("0.0.0.0/0"));
        assert_eq!(masked("fd7a::1/64").as_deref(), Ok("fd7a::/64"));
        assert_eq!(masked("fd7a::1/128").as_deref(), Ok("fd7a::1/128"));
    }
}
