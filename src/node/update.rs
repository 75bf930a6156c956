//! What of a bus message decides something. Pure.

use std::net::IpAddr;

use crate::localapi::types::{State, Warning};

/// The node as the tailnet knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Stable node id.
    pub id: String,
    /// FQDN with trailing dot.
    pub fqdn: String,
    /// Own addresses in node order.
    pub addresses: Vec<IpAddr>,
    /// Whether the node key's expiry has passed.
    pub key_expired: bool,
}

/// What the health part of a bus message says about logging in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginHealth {
    /// No warning.
    Fine,
    /// The last attempt failed; `args.error` has control's words when known.
    Failing(Warning),
}

/// One bus message, reduced to what decides something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BusUpdate {
    /// The backend state, when the message carries one.
    pub state: Option<State>,
    /// The self node as known after the message.
    pub device: Option<Device>,
    /// Whether the message concerns the netmap (boot.md 5.3).
    pub netmap: bool,
    /// A login URL.
    pub browse_url: Option<String>,
    /// The daemon's error text.
    pub error: Option<String>,
    /// Health, when the message carries it.
    pub login_health: Option<LoginHealth>,
    /// The names that certificates can be had for, as known after the message.
    pub cert_domains: Vec<String>,
}

/// What the bus has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// It is open.
    Opened,
    /// A message.
    Update(BusUpdate),
    /// It ended or cannot be opened, and why; it is being opened again.
    Lost(String),
}

impl Device {
    /// The tailnet's MagicDNS suffix: what follows the node's own label, without the trailing dot.
    pub fn magic_dns_suffix(&self) -> Option<&str> {
        let (_, suffix) = self.fqdn.split_once('.')?;
        Some(suffix.trim_end_matches('.')).filter(|suffix| !suffix.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suffix_is_what_follows_the_nodes_label() {
        let suffix = |fqdn: &str| {
            let device = Device { id: String::new(), fqdn: fqdn.to_owned(), addresses: Vec::new(), key_expired: false };
            device.magic_dns_suffix().map(str::to_owned)
        };
        assert_eq!(suffix("apis-0.tail1234.ts.net.").as_deref(), Some("tail1234.ts.net"));
        assert_eq!(suffix("node.example.com").as_deref(), Some("example.com"));
        assert_eq!(suffix("node."), None);
        assert_eq!(suffix(""), None);
    }
}
