//! Where a name is served, as the daemon's status and the cluster show it. Pure.
//!
//! A node's own name is served at its addresses. A Service has addresses of its own, and each leads to the replica that
//! control has made its host at the time; a replica that asks for them itself reaches itself.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use super::names::Name;
use crate::k8s::endpoints::Endpoint;
use crate::localapi::types::{DnsRecord, PeerStatus, Status};
use crate::serve::go::{member, object};

/// Where HTTPS is.
pub const HTTPS: u16 = 443;

/// One place where a name is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Where.
    pub address: SocketAddr,
    /// The node or Pod there, as far as that is known.
    pub host: Option<String>,
}

/// The ports on which a serve config ends TLS for `name`; 443 if it does not say.
pub fn ports(config: Option<&Value>, name: &Name) -> Vec<u16> {
    let Some(config) = config else { return vec![HTTPS] };
    let services = object(member(config, "Services")).map(|(_, service)| service);
    let mut ports = Vec::new();
    for entry in services.chain([config]) {
        for (port, handler) in object(member(entry, "TCP")) {
            let ends = member(handler, "TerminateTLS").and_then(Value::as_str);
            if ends.is_some_and(|ends| Name::parse(ends).as_ref() == Ok(name)) {
                ports.extend(port.parse::<u16>().ok());
            }
        }
        for (key, _) in object(member(entry, "Web")) {
            let (host, port) = key.rsplit_once(':').unwrap_or((key, ""));
            if Name::parse(host).as_ref() == Ok(name) && port == "443" {
                ports.push(HTTPS);
            }
        }
    }
    ports.sort_unstable();
    ports.dedup();
    if ports.is_empty() { vec![HTTPS] } else { ports }
}

/// Where the tailnet serves `name`: at the node of that name, or at the addresses of the Service.
pub fn on_tailnet(name: &Name, ports: &[u16], status: &Status, records: &[DnsRecord]) -> Vec<Replica> {
    let mut found = Vec::new();
    let mut add = |ip: IpAddr, host: Option<String>| {
        found.extend(ports.iter().map(|port| Replica { address: SocketAddr::new(ip, *port), host: host.clone() }));
    };
    let nodes = || status.self_.iter().chain(status.peer.values());
    for node in nodes().filter(|node| is(name, &node.dns_name)) {
        node.tailscale_ips.iter().for_each(|ip| add(*ip, Some(short(node))));
    }
    for record in records.iter().filter(|record| is(name, &record.name)) {
        if !matches!(record.kind.as_str(), "" | "A" | "AAAA") {
            continue;
        }
        let Ok(ip) = record.value.parse::<IpAddr>() else { continue };
        let whole = |node: &&PeerStatus| node.allowed_ips.iter().any(|prefix| prefix.to_string() == host_prefix(ip));
        add(ip, nodes().find(whole).map(short));
    }
    found.sort_by_key(|replica| replica.address);
    found.dedup_by_key(|replica| replica.address);
    found
}

/// Where a Kubernetes Service leads to.
pub fn in_cluster(endpoints: Vec<Endpoint>) -> Vec<Replica> {
    endpoints.into_iter().map(|endpoint| Replica { address: endpoint.address, host: endpoint.pod }).collect()
}

/// Whether an address is one that only the tailnet knows: `100.64.0.0/10` and `fd7a:115c:a1e0::/48`.
pub fn is_tailnet(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 0x40,
        IpAddr::V6(ip) => ip.segments()[..3] == [0xfd7a, 0x115c, 0xa1e0],
    }
}

fn is(name: &Name, text: &str) -> bool {
    text.strip_suffix('.').unwrap_or(text).eq_ignore_ascii_case(name.as_str())
}

fn short(node: &PeerStatus) -> String {
    node.dns_name.split('.').next().unwrap_or_default().to_owned()
}

fn host_prefix(ip: IpAddr) -> String {
    format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    fn shown(replicas: &[Replica]) -> Vec<String> {
        replicas.iter().map(|one| format!("{} {}", one.address, one.host.as_deref().unwrap_or("-"))).collect()
    }

    #[test]
    fn a_node_is_at_its_addresses_and_a_service_at_its_own() {
        let status: Status = serde_json::from_value(json!({
            "Self": {"ID": "n1", "DNSName": "ts-0.t.ts.net.", "TailscaleIPs": ["100.64.0.1", "fd7a:115c:a1e0::1"],
                "AllowedIPs": ["100.64.0.1/32"]},
            "Peer": {"k": {"ID": "n2", "DNSName": "ts-1.t.ts.net.", "TailscaleIPs": ["100.64.0.2"],
                "AllowedIPs": ["100.64.0.2/32", "100.100.0.9/32"]}},
        }))
        .unwrap();
        let records: Vec<DnsRecord> = serde_json::from_value(json!([
            {"Name": "shop.t.ts.net.", "Value": "100.100.0.9"},
            {"Name": "shop.t.ts.net", "Type": "AAAA", "Value": "fd7a:115c:a1e0::9"},
            {"Name": "shop.t.ts.net", "Type": "TXT", "Value": "x"},
            {"Name": "other.t.ts.net", "Value": "100.100.0.8"},
        ]))
        .unwrap();
        let on = |domain: &str, ports: &[u16]| shown(&on_tailnet(&name(domain), ports, &status, &records));
        assert_eq!(on("ts-0.t.ts.net", &[443]), ["100.64.0.1:443 ts-0", "[fd7a:115c:a1e0::1]:443 ts-0"]);
        assert_eq!(on("ts-1.t.ts.net", &[443, 8443]), ["100.64.0.2:443 ts-1", "100.64.0.2:8443 ts-1"]);
        assert_eq!(on("shop.t.ts.net", &[443]), ["100.100.0.9:443 ts-1", "[fd7a:115c:a1e0::9]:443 -"]);
        assert!(on("gone.t.ts.net", &[443]).is_empty());
    }

    #[test]
    fn the_ports_are_those_that_end_tls_for_the_name() {
        let config = json!({
            "Web": {"node.t.ts.net:443": null, "node.t.ts.net:8443": null},
            "Services": {
                "svc:a": {"Web": {"a.t.ts.net:443": null}, "TCP": {"8443": {"TerminateTLS": "a.t.ts.net", "TCPForward": "x:1"}}},
                "svc:b": {"TCP": {"9000": {"TerminateTLS": "b.t.ts.net"}, "80": null}},
            },
        });
        let of = |domain: &str| ports(Some(&config), &name(domain));
        assert_eq!(of("a.t.ts.net"), [443, 8443]);
        assert_eq!(of("b.t.ts.net"), [9000]);
        assert_eq!(of("node.t.ts.net"), [443]);
        assert_eq!(of("c.t.ts.net"), [443]);
        assert_eq!(ports(None, &name("c.t.ts.net")), [443]);
    }

    #[test]
    fn tailnet_addresses_are_told_from_others() {
        for (ip, is) in [
            ("100.64.0.1", true),
            ("100.127.255.255", true),
            ("100.128.0.1", false),
            ("10.0.0.1", false),
            ("fd7a:115c:a1e0::1", true),
            ("fd7a:115c:a1e1::1", false),
        ] {
            assert_eq!(is_tailnet(ip.parse().unwrap()), is, "{ip}");
        }
    }
}
