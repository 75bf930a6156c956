//! What the operator wants of an ingress group (ha-services.md 6.1). Pure.
//!
//! Types follow `kube/ingressservices/ingressservices.go`.

use std::net::IpAddr;

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::super::entries::{self, Entry};
use super::super::plan::Kind;

/// The file as it was read; by name, `svc:<host>`.
pub type Config = entries::Config<Service>;

/// Where the addresses of one Tailscale Service lead. Written back as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Service {
    /// `IPv4Mapping`
    #[serde(rename = "IPv4Mapping", skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Mapping>,
    /// `IPv6Mapping`
    #[serde(rename = "IPv6Mapping", skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Mapping>,
}

/// An address on the tailnet and the one it leads to. The operator leaves one empty when the cluster's Service has a
/// family that the tailnet's does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Mapping {
    /// On the tailnet.
    #[serde(rename = "TailscaleServiceIP", serialize_with = "or_empty")]
    pub service: Option<IpAddr>,
    /// In the cluster.
    #[serde(rename = "ClusterIP", serialize_with = "or_empty")]
    pub cluster: Option<IpAddr>,
}

#[expect(clippy::ref_option, reason = "serde hands it over so")]
fn or_empty<S: Serializer>(ip: &Option<IpAddr>, serializer: S) -> Result<S::Ok, S::Error> {
    match ip {
        Some(ip) => serializer.collect_str(ip),
        None => serializer.serialize_str(""),
    }
}

impl Entry for Service {
    const KIND: Kind = Kind::Ingress;

    fn read(_: &str, entry: &Value, _: &mut Vec<String>) -> Result<Self, String> {
        if !entry.is_object() {
            return Err("it is not an object".to_owned());
        }
        let mapping = |member| match entry.get(member) {
            None | Some(Value::Null) => Ok(None),
            Some(mapping) => Mapping::read(mapping, member).map(Some),
        };
        Ok(Self { ipv4: mapping("IPv4Mapping")?, ipv6: mapping("IPv6Mapping")? })
    }
}

impl Service {
    /// Both mappings, as far as they are there.
    pub fn mappings(&self) -> impl Iterator<Item = Mapping> {
        self.ipv4.into_iter().chain(self.ipv6)
    }
}

impl Mapping {
    fn read(mapping: &Value, of: &str) -> Result<Self, String> {
        let address = |member: &str| match mapping.get(member) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) => {
                text.parse().map(Some).map_err(|_| format!("{of}.{member} is {text:?}, not an IP address"))
            }
            Some(_) => Err(format!("{of}.{member} is not a string")),
        };
        Ok(Self { service: address("TailscaleServiceIP")?, cluster: address("ClusterIP")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_written_back() {
        let text = concat!(
            r#"{"svc:db":{"IPv4Mapping":{"TailscaleServiceIP":"100.100.1.2","ClusterIP":"10.43.7.8"}},"#,
            r#""svc:odd":{"IPv6Mapping":{"TailscaleServiceIP":"","ClusterIP":"fd43::80"}},"#,
            r#""svc:web":{"IPv4Mapping":{"TailscaleServiceIP":"100.100.1.1","ClusterIP":"10.43.7.9"},"#,
            r#""IPv6Mapping":{"TailscaleServiceIP":"fd7a:115c:a1e0::aa01","ClusterIP":"fd43::79"}}}"#,
        );
        let config = Config::parse(text.as_bytes()).unwrap().unwrap();
        assert_eq!(serde_json::to_string(&config.services).unwrap(), text);
        assert_eq!(config.problems, Vec::<String>::new());
    }

    #[test]
    fn what_the_operator_could_not_read_back_is_left_out() {
        let text = r#"{"svc:a":{"IPv4Mapping":{"TailscaleServiceIP":"100.100.1","ClusterIP":"10.43.7.9"}},
                       "svc:b":[],"svc:c":{"IPv4Mapping":{"TailscaleServiceIP":7}}, "svc:d":{"x":1}}"#;
        let config = Config::parse(text.as_bytes()).unwrap().unwrap();
        assert_eq!(config.services.keys().collect::<Vec<_>>(), ["svc:d"]);
        assert_eq!(
            config.problems,
            [
                r#"ingress service "svc:a" is left out: IPv4Mapping.TailscaleServiceIP is "100.100.1", not an IP address"#,
                r#"ingress service "svc:b" is left out: it is not an object"#,
                r#"ingress service "svc:c" is left out: IPv4Mapping.TailscaleServiceIP is not a string"#,
            ]
        );
        assert_eq!(Config::parse(b"").unwrap(), None);
        assert!(Config::parse(b"{").is_err());
    }
}
