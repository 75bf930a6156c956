//! What a state Secret says of the Services that its node proxies. Pure.

use serde::Serialize;
use serde_json::Value;

/// The status of a proxy for several services.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Proxied {
    /// Addresses of the Pod that it was written for.
    pub pod_ips: Vec<String>,
    /// The services.
    pub services: Vec<Service>,
}

/// One service of a proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Where it leads: a tailnet name or address, or addresses in the cluster.
    pub target: String,
    /// Its ports (egress).
    pub ports: usize,
}

/// `egress-services`, upstream's `kube/egressservices` (`Status`).
pub(super) fn egress(status: &[u8]) -> Proxied {
    let status = document(status);
    let services = status["services"].as_object().into_iter().flatten().map(|(name, service)| {
        let target = &service["tailnetTarget"];
        let named = ["fqdn", "ip"].into_iter().find_map(|kind| target[kind].as_str().filter(|text| !text.is_empty()));
        Service {
            name: name.clone(),
            target: named.unwrap_or_default().to_owned(),
            ports: service["ports"].as_array().map_or(0, Vec::len),
        }
    });
    Proxied { services: services.collect(), pod_ips: pod_ips(&status) }
}

/// `ingress-config.json`, upstream's `kube/ingressservices` (`Status`).
pub(super) fn ingress(status: &[u8]) -> Proxied {
    let status = document(status);
    let services = status["configs"].as_object().into_iter().flatten().map(|(name, config)| {
        let mappings =
            ["IPv4Mapping", "IPv6Mapping"].into_iter().filter_map(|family| config[family]["ClusterIP"].as_str());
        let target: Vec<_> = mappings.filter(|ip| !ip.is_empty()).collect();
        Service { name: name.clone(), target: target.join(", "), ports: 0 }
    });
    Proxied { services: services.collect(), pod_ips: pod_ips(&status) }
}

fn pod_ips(status: &Value) -> Vec<String> {
    let ips = ["podIPv4", "podIPv6"].into_iter().filter_map(|family| status[family].as_str());
    ips.filter(|ip| !ip.is_empty()).map(str::to_owned).collect()
}

fn document(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap_or_default()
}
