//! What packet rules speak of: tables, devices, protocols, ports and addresses of a family. Pure.

use std::fmt::{self, Debug, Display};
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One of our tables. Each belongs to one task, so tasks need no lock between them (netfilter.md 8, rule 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// The node's own target: ingress, egress, cluster traffic via ingress (M1 to M5).
    L3,
    /// Egress Services of an HA group (M6).
    Egress,
    /// Ingress Services of an HA group (M7).
    Ingress,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::L3, Self::Egress, Self::Ingress];

    /// The table's name in families `ip` and `ip6`.
    pub fn name(self) -> &'static str {
        match self {
            Self::L3 => "tailpod_l3",
            Self::Egress => "tailpod_egress",
            Self::Ingress => "tailpod_ingress",
        }
    }

    /// What its chains are called in iptables, after `TAILPOD-` (netfilter.md 11).
    pub fn short(self) -> &'static str {
        match self {
            Self::L3 => "L3",
            Self::Egress => "EG",
            Self::Ingress => "IN",
        }
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name of a network interface, as the kernel takes it and every rule language can quote it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Interface(String);

impl Interface {
    /// What tailscaled calls its TUN device unless told otherwise.
    pub const DEFAULT: &'static str = "tailscale0";

    /// `None` when the kernel or a rule language could not take it: 1 to 15 bytes of `[A-Za-z0-9_.-]`.
    pub fn new(name: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let fits = (1..=15).contains(&name.len()) && name.bytes().all(plain);
        (fits && name != "." && name != "..").then(|| Self(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Interface {
    fn default() -> Self {
        Self(Self::DEFAULT.to_owned())
    }
}

impl Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// 6
    Tcp,
    /// 17
    Udp,
}

impl Protocol {
    /// As `/etc/protocols`, nft and iptables spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// The number in an IP header.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A protocol and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// The protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

/// An address family: what is called differently in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// `ip`
    V4,
    /// `ip6`
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub fn of(addr: IpAddr) -> Self {
        if addr.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// As nft spells it, also as a match: `ip daddr`, `ip6 daddr`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }

    /// `AF_INET`, `AF_INET6`: the same numbers as netfilter's own.
    pub fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    /// As a sentence names it.
    pub fn title(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

impl Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An IP address of one family.
pub trait Address: Copy + Ord + Hash + Display + Debug + Into<IpAddr> + Send + Sync + 'static {
    /// Which.
    const FAMILY: Family;

    /// The address as it stands in a packet.
    fn bytes(&self) -> Vec<u8>;

    /// The address in a packet; `None` when it is not as long as one.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

impl Address for Ipv4Addr {
    const FAMILY: Family = Family::V4;

    fn bytes(&self) -> Vec<u8> {
        self.octets().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        <[u8; 4]>::try_from(bytes).ok().map(Self::from)
    }
}

impl Address for Ipv6Addr {
    const FAMILY: Family = Family::V6;

    fn bytes(&self) -> Vec<u8> {
        self.octets().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        <[u8; 16]>::try_from(bytes).ok().map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_named_so_that_no_rule_language_breaks() {
        assert_eq!(Interface::new("tailscale0").as_ref().map(Interface::as_str), Some("tailscale0"));
        for refused in ["", "a-name-of-16-byte", "a b", "a\"b", "a\nb", "a*", ".", "..", "a/b"] {
            assert_eq!(Interface::new(refused), None, "{refused:?}");
        }
    }
}
