//! What the operator reads of an egress replica: Secret key `egress-services` (ha-services.md 2.3). Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use super::super::plan::PodIps;
use super::config::{Ports, TailnetTarget};

/// The report. Members stand in the order of upstream's types, so equal reports are equal bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    #[serde(rename = "podIPv4")]
    pod_ipv4: String,
    #[serde(rename = "podIPv6", skip_serializing_if = "Option::is_none")]
    pod_ipv6: Option<IpAddr>,
    /// `null` when there is none.
    services: Option<BTreeMap<String, Served>>,
}

/// What of one Service is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Served {
    /// The ports that lead there; the operator compares them with the config's.
    pub ports: Ports,
    /// Where they lead; `null` when that is nowhere for now.
    #[serde(rename = "tailnetTargetIPs")]
    pub addresses: Option<Vec<IpAddr>>,
    /// The target as the config has it.
    #[serde(rename = "tailnetTarget")]
    pub target: TailnetTarget,
}

impl Status {
    /// The report of this Pod.
    pub fn new(pod: PodIps, services: BTreeMap<String, Served>) -> Self {
        Self {
            pod_ipv4: pod.ipv4.map(|ip| ip.to_string()).unwrap_or_default(),
            pod_ipv6: pod.ipv6,
            services: (!services.is_empty()).then_some(services),
        }
    }

    /// Every Service in it.
    pub fn services(&self) -> impl Iterator<Item = (&String, &Served)> {
        self.services.iter().flatten()
    }

    /// One Service in it.
    pub fn service(&self, name: &str) -> Option<&Served> {
        self.services.as_ref()?.get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::PortMap;
    use super::*;

    fn pod(ipv4: Option<&str>, ipv6: Option<&str>) -> PodIps {
        PodIps { ipv4: ipv4.map(|ip| ip.parse().unwrap()), ipv6: ipv6.map(|ip| ip.parse().unwrap()) }
    }

    fn json(status: &Status) -> String {
        serde_json::to_string(status).unwrap()
    }

    #[test]
    fn the_bytes_of_the_contract() {
        let ports = Box::new([PortMap { protocol: "TCP".to_owned(), match_port: 10345, target_port: 80 }]);
        let target = TailnetTarget { ip: String::new(), fqdn: "web.example.ts.net".to_owned() };
        let addresses = Some(["100.99.1.2", "fd7a:115c:a1e0::1:2"].map(|ip| ip.parse().unwrap()).to_vec());
        let served = Served { ports, addresses, target };
        let status =
            Status::new(pod(Some("10.42.0.7"), Some("fd42::7")), [("default-web".to_owned(), served.clone())].into());
        assert_eq!(
            json(&status),
            concat!(
                r#"{"podIPv4":"10.42.0.7","podIPv6":"fd42::7","services":{"default-web":{"#,
                r#""ports":[{"protocol":"TCP","matchPort":10345,"targetPort":80}],"#,
                r#""tailnetTargetIPs":["100.99.1.2","fd7a:115c:a1e0::1:2"],"#,
                r#""tailnetTarget":{"ip":"","fqdn":"web.example.ts.net"}}}}"#,
            )
        );
        let none = Served { ports: Box::default(), addresses: None, ..served };
        assert_eq!(
            json(&Status::new(pod(None, None), [("a".to_owned(), none)].into())),
            concat!(
                r#"{"podIPv4":"","services":{"a":{"ports":[],"tailnetTargetIPs":null,"#,
                r#""tailnetTarget":{"ip":"","fqdn":"web.example.ts.net"}}}}"#,
            )
        );
        assert_eq!(
            json(&Status::new(pod(None, Some("fd42::7")), BTreeMap::new())),
            r#"{"podIPv4":"","podIPv6":"fd42::7","services":null}"#
        );
    }
}
