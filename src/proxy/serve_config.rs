//! The serve config that leads a Tailscale Service to the proxy (api-proxy.md 9.5). Pure.
//!
//! tailscaled takes TLS on 443 for the Service, ends it, and dials us with a PROXY header in front. Documents are
//! compared without their empty members, and what other processes have in the foreground is kept.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::{Map, Value, json};

use super::config::ServiceName;

/// The port on which a Service is served.
const PORT: &str = "443";

/// The port that needs no naming: where upstream listens.
const BACKEND: &str = "localhost:80";

/// A Service and where it leads.
#[derive(Clone, Copy, Debug)]
pub struct Serving<'a> {
    /// The Service.
    pub service: &'a ServiceName,
    /// The tailnet's MagicDNS suffix, such as `tail1234.ts.net`.
    pub suffix: &'a str,
    /// Where the proxy listens.
    pub backend: SocketAddr,
}

/// Whose the installed document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership<'a> {
    /// Ours alone: the daemon is our child.
    Whole,
    /// Only the entries of these Services in it: others use the daemon too.
    Services(&'a BTreeSet<ServiceName>),
}

impl Serving<'_> {
    /// The name that peers call, which the certificate is for.
    pub fn domain(&self) -> String {
        format!("{}.{}", self.service.label(), self.suffix)
    }

    fn handler(&self) -> Value {
        let backend = if self.backend.port() == 80 && self.backend.ip().is_loopback() {
            BACKEND.to_owned()
        } else {
            self.backend.to_string()
        };
        json!({"TCP": {PORT: {"TCPForward": backend, "TerminateTLS": self.domain(), "ProxyProtocol": 2}}})
    }
}

/// The document that shall be installed in place of `installed`.
pub fn desired(installed: &Value, serving: Option<&Serving<'_>>, ownership: Ownership<'_>) -> Value {
    let mut document = match (ownership, installed) {
        (Ownership::Services(ours), Value::Object(members)) => {
            let mut members = members.clone();
            if let Some(Value::Object(services)) = members.get_mut("Services") {
                services.retain(|name, _| ours.iter().all(|ours| ours.as_str() != name));
            }
            members
        }
        (Ownership::Whole, Value::Object(members)) => {
            // Cutting off a foreground session would surprise whoever started it.
            members.iter().filter(|(name, _)| *name == "Foreground").map(|(k, v)| (k.clone(), v.clone())).collect()
        }
        _ => Map::new(),
    };
    if let Some(serving) = serving {
        let services = document.entry("Services").or_insert_with(|| json!({}));
        if !services.is_object() {
            *services = json!({});
        }
        services[serving.service.as_str()] = serving.handler();
    }
    Value::Object(document)
}

/// Whether two documents say the same: empty members count as absent.
pub fn is_same(one: &Value, other: &Value) -> bool {
    normal(one) == normal(other)
}

/// Whether `installed` has handlers that must go before `desired` can come: tailscaled refuses to change what kind of
/// handler a port has in one step.
pub fn needs_clearing(installed: &Value, desired: &Value) -> bool {
    let ports = |document: &Value| {
        let services = document.get("Services").and_then(Value::as_object).cloned().unwrap_or_default();
        services
            .into_iter()
            .filter_map(|(name, service)| Some((name, normal(service.get("TCP")?)?)))
            .collect::<Vec<_>>()
    };
    let wanted = ports(desired);
    ports(installed).iter().any(|(name, tcp)| wanted.iter().any(|(other, new)| name == other && tcp != new))
}

/// Without members that are null, false, zero, or empty; `None` when nothing is left.
fn normal(value: &Value) -> Option<Value> {
    match value {
        Value::Null | Value::Bool(false) => None,
        Value::Object(members) => {
            let left: Map<_, _> = members.iter().filter_map(|(k, v)| Some((k.clone(), normal(v)?))).collect();
            (!left.is_empty()).then_some(Value::Object(left))
        }
        Value::Array(list) => (!list.is_empty()).then(|| value.clone()),
        Value::String(text) => (!text.is_empty()).then(|| value.clone()),
        Value::Number(number) => (number.as_u64() != Some(0)).then(|| value.clone()),
        Value::Bool(true) => Some(value.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serving(service: &ServiceName) -> Serving<'_> {
        Serving { service, suffix: "tail1234.ts.net", backend: "127.0.0.1:80".parse().unwrap() }
    }

    #[test]
    fn the_document_is_upstreams() {
        let service = "svc:prod-api".parse().unwrap();
        let document = desired(&json!({}), Some(&serving(&service)), Ownership::Whole);
        assert_eq!(
            document.to_string(),
            r#"{"Services":{"svc:prod-api":{"TCP":{"443":{"ProxyProtocol":2,"TCPForward":"localhost:80","TerminateTLS":"prod-api.tail1234.ts.net"}}}}}"#
        );
        let elsewhere = Serving { backend: "127.0.0.1:8080".parse().unwrap(), ..serving(&service) };
        let document = desired(&json!({}), Some(&elsewhere), Ownership::Whole);
        assert_eq!(document["Services"]["svc:prod-api"]["TCP"]["443"]["TCPForward"], "127.0.0.1:8080");
    }

    #[test]
    fn what_was_there_goes_unless_it_is_somebody_elses() {
        let service = "svc:a".parse().unwrap();
        let installed = json!({
            "TCP": {"80": {"HTTP": true}}, "Services": {"svc:old": {"TCP": {"443": {"HTTPS": true}}}},
            "Foreground": {"session": {"TCP": {}}},
        });
        let whole = desired(&installed, Some(&serving(&service)), Ownership::Whole);
        assert!(whole.get("TCP").is_none() && whole["Services"].get("svc:old").is_none());
        assert_eq!(whole["Foreground"], installed["Foreground"]);
        let ours = [service.clone()].into();
        let shared = desired(&installed, Some(&serving(&service)), Ownership::Services(&ours));
        assert_eq!(shared["TCP"], installed["TCP"]);
        assert!(shared["Services"].get("svc:old").is_some() && shared["Services"].get("svc:a").is_some());
        assert_eq!(desired(&shared, None, Ownership::Services(&ours)), installed, "nothing of ours stays");
        assert_eq!(desired(&installed, None, Ownership::Whole), json!({"Foreground": installed["Foreground"]}));
        assert_eq!(desired(&Value::Null, None, Ownership::Whole), json!({}));
    }

    #[test]
    fn empty_members_make_no_difference() {
        assert!(is_same(&json!({}), &json!({"Services": {}, "TCP": null})));
        assert!(is_same(&json!({"a": {"b": false, "c": 0, "d": ""}}), &Value::Null));
        assert!(!is_same(&json!({}), &json!({"TCP": {"443": {"HTTPS": true}}})));
    }

    #[test]
    fn a_port_of_another_kind_has_to_go_first() {
        let service = "svc:a".parse().unwrap();
        let new = desired(&json!({}), Some(&serving(&service)), Ownership::Whole);
        assert!(needs_clearing(&json!({"Services": {"svc:a": {"TCP": {"443": {"HTTPS": true}}}}}), &new));
        assert!(!needs_clearing(&json!({"Services": {"svc:b": {"TCP": {"443": {"HTTPS": true}}}}}), &new));
        assert!(!needs_clearing(&new, &new));
        assert!(!needs_clearing(&json!({}), &new));
    }
}
