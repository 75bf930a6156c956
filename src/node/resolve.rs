//! From a name of the tailnet to addresses: a peer, a Tailscale Service, or a 4via6 name (boot.md 5.5). Pure.
//!
//! Follows upstream's `cmd/containerboot/main.go` (`resolveTailnetFQDN`) and `util/dnsname`, `net/tsaddr`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::causes::chain;
use crate::fqdn::Fqdn;
use crate::localapi::model::Model;
use crate::prefix::Prefix;

/// Where control puts the MagicDNS names of 4via6 subnet routers.
const VIA_SUFFIXES: [&str; 2] = ["ts.net", "tailscale.net"];
/// The upper half of every 4via6 address.
const VIA_PREFIX: [u16; 4] = [0xfd7a, 0x115c, 0xa1e0, 0x0b1a];
/// `1-1-1-1-via-1`
const SHORTEST_VIA: usize = 13;

/// Why a name leads nowhere at present. Each may be mended by the next message about the netmap.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// Nobody has this name.
    #[error(
        "could not find Tailscale node, service or 4via6 address {0:?}; it either does not exist, or not reachable \
         because of ACLs"
    )]
    Unknown(String),
    /// A 4via6 name that no subnet router stands for.
    #[error("resolved 4via6 address {addr} for {name:?} but no peer advertises a route containing it")]
    NoRoute {
        /// What the name means.
        addr: Ipv6Addr,
        /// The name.
        name: String,
    },
}

/// The addresses behind a name, in the daemon's order; at least one.
///
/// # Errors
/// The name leads nowhere at present.
pub fn resolve(model: &Model, name: &Fqdn) -> Result<Vec<IpAddr>, Unresolved> {
    let unknown = || Unresolved::Unknown(name.without_dot().to_owned());
    if let Some(peer) = model.peers.iter().find(|peer| name.is(&peer.name)) {
        return if peer.addresses.is_empty() { Err(unknown()) } else { Ok(peer.addresses.clone()) };
    }
    let service = service(model, name);
    if !service.is_empty() {
        return Ok(service);
    }
    let addr = via(name).ok_or_else(unknown)?;
    let routed = model.peers.iter().flat_map(|peer| &peer.allowed_ips).any(|prefix| prefix.contains(addr.into()));
    if routed { Ok(vec![addr.into()]) } else { Err(Unresolved::NoRoute { addr, name: name.without_dot().to_owned() }) }
}

/// The same of a name as somebody wrote it, and the reason in words.
///
/// # Errors
/// It is no name, or leads nowhere at present.
pub fn resolve_written(model: &Model, name: &str) -> Result<Vec<IpAddr>, String> {
    let name: Fqdn = name.parse().map_err(|error| chain(&error))?;
    resolve(model, &name).map_err(|error| error.to_string())
}

/// Tailscale Services appear as DNS records whose address some peer is a host for.
fn service(model: &Model, name: &Fqdn) -> Vec<IpAddr> {
    let records = model.extra_records.iter().filter(|record| name.is(&record.name));
    let addresses = records.filter_map(|record| record.value.parse::<IpAddr>().ok());
    let hosted = |addr: &IpAddr| {
        let host = Prefix::host(*addr);
        model.peers.iter().any(|peer| peer.allowed_ips.contains(&host))
    };
    addresses.filter(hosted).collect()
}

/// The address of `10-1-0-5-via-7.tail1234.ts.net`; `None` when the name has another form.
pub fn via(name: &Fqdn) -> Option<Ipv6Addr> {
    let (label, rest) = name.split();
    let in_tailnet =
        |suffix: &str| rest == suffix || rest.strip_suffix(suffix).is_some_and(|above| above.ends_with('.'));
    let is_ours = rest.is_empty() || VIA_SUFFIXES.into_iter().any(in_tailnet);
    if name.without_dot().len() < SHORTEST_VIA || !is_ours {
        return None;
    }
    let (v4, site) = label.split_once("-via-")?;
    let v4: Ipv4Addr = v4.replace('-', ".").parse().ok()?;
    let site = number(site)?;
    let [a, b, c, d] = VIA_PREFIX;
    let [site_high, site_low] = halves(site);
    let [v4_high, v4_low] = halves(v4.into());
    Some(Ipv6Addr::new(a, b, c, d, site_high, site_low, v4_high, v4_low))
}

fn halves(number: u32) -> [u16; 2] {
    let [a, b, c, d] = number.to_be_bytes();
    [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]
}

/// As Go's `strconv.ParseUint` with base 0 reads a number that has a prefix.
fn number(text: &str) -> Option<u32> {
    let (digits, radix) = match text.get(..2) {
        Some("0x") => (&text[2..], 16),
        Some("0o") => (&text[2..], 8),
        Some("0b") => (&text[2..], 2),
        _ if text.len() > 1 && text.starts_with('0') => (&text[1..], 8),
        _ => (text, 10),
    };
    // `from_str_radix` lets a sign pass.
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_alphanumeric());
    u32::from_str_radix(digits, radix).ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn model() -> Model {
        let mut model = Model::default();
        let status = json!({
            "BackendState": "Running",
            "ExtraRecords": [
                { "Name": "svc.tail.ts.net.", "Value": "100.99.10.20" },
                { "Name": "svc.tail.ts.net", "Value": "fd7a::20" },
                { "Name": "lost.tail.ts.net.", "Value": "100.99.10.99" },
                { "Name": "odd.tail.ts.net.", "Type": "TXT", "Value": "hello" },
                { "Name": "db.tail.ts.net.", "Value": "100.99.10.20" },
            ],
            "Peer": {
                "nodekey:1": {
                    "ID": "n1", "NodeID": 1, "DNSName": "Db.tail.ts.net.", "TailscaleIPs": ["100.64.0.9", "fd7a::9"],
                    "AllowedIPs": ["100.64.0.9/32", "fd7a::9/128"],
                },
                "nodekey:2": {
                    "ID": "n2", "NodeID": 2, "DNSName": "router.tail.ts.net.", "TailscaleIPs": ["100.64.0.8"],
                    "AllowedIPs": ["100.64.0.8/32", "100.99.10.20/32", "fd7a::20/128", "100.99.0.0/16",
                                   "fd7a:115c:a1e0:b1a:0:7:a01:0/112"],
                },
                "nodekey:3": { "ID": "n3", "NodeID": 3, "DNSName": "new.tail.ts.net.", "TailscaleIPs": [] },
            },
        });
        model.apply(serde_json::from_value(json!({ "InitialStatus": status })).unwrap());
        model
    }

    #[test]
    fn peers_then_services_then_4via6() {
        let model = model();
        for (name, expected) in [
            ("db.tail.ts.net", &["100.64.0.9", "fd7a::9"][..]),
            ("DB.tail.ts.net.", &["100.64.0.9", "fd7a::9"]),
            ("svc.tail.ts.net", &["100.99.10.20", "fd7a::20"]),
            ("10-1-0-5-via-7.tail.ts.net", &["fd7a:115c:a1e0:b1a:0:7:a01:5"]),
            ("10-1-0-5-via-0x7", &["fd7a:115c:a1e0:b1a:0:7:a01:5"]),
        ] {
            let found =
                resolve(&model, &name.parse().unwrap()).map(|list| list.iter().map(IpAddr::to_string).collect());
            assert_eq!(found, Ok(expected.iter().map(|ip| (*ip).to_owned()).collect::<Vec<_>>()), "{name}");
        }
        for name in ["db", "new.tail.ts.net", "odd.tail.ts.net", "lost.tail.ts.net", "10-1-0-5-via-7.example.com"] {
            let error = resolve(&model, &name.parse().unwrap()).unwrap_err().to_string();
            let text = format!(
                "could not find Tailscale node, service or 4via6 address \"{name}\"; it either does not exist, or not \
                 reachable because of ACLs"
            );
            assert_eq!(error, text);
        }
        assert_eq!(
            resolve(&model, &"10-2-0-5-via-8.tail.ts.net".parse().unwrap()).unwrap_err().to_string(),
            "resolved 4via6 address fd7a:115c:a1e0:b1a:0:8:a02:5 for \"10-2-0-5-via-8.tail.ts.net\" but no peer \
             advertises a route containing it"
        );
    }

    #[test]
    fn a_4via6_name_is_an_address_and_a_site() {
        for (name, addr) in [
            ("10-1-0-5-via-4294967295.a.ts.net", Some("fd7a:115c:a1e0:b1a:ffff:ffff:a01:5")),
            ("1-1-1-1-via-1", Some("fd7a:115c:a1e0:b1a:0:1:101:101")),
            ("1-1-1-1-via-0b11.ts.net", Some("fd7a:115c:a1e0:b1a:0:3:101:101")),
            ("1-1-1-1-via-0o17.x.tailscale.net", Some("fd7a:115c:a1e0:b1a:0:f:101:101")),
            ("1-1-1-1-via-4294967296.ts.net", None),
            ("1-1-1-via-1.tail.ts.net", None),
            ("1-1-1-256-via-1.ts.net", None),
            ("1-1-1-1-via-.ts.net", None),
            ("1-1-1-1-via-+1.ts.net", None),
            ("1-1-1-1-via-1.notts.net", None),
        ] {
            assert_eq!(via(&name.parse().unwrap()).map(|addr| addr.to_string()).as_deref(), addr, "{name}");
        }
    }
}
