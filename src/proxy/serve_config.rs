//! The serve config that leads a Tailscale Service to the proxy (api-proxy.md 9.5). Pure.
//!
//! tailscaled takes TLS on 443 for the Service, ends it, and dials us with a PROXY header in front. What other processes
//! have in the foreground is kept.

use std::net::SocketAddr;

use serde_json::{Map, Value, json};

use super::config::ServiceName;
use crate::serve::advertise::Ownership;

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
                services.retain(|name, _| !ours.contains(name));
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
        let service: ServiceName = "svc:a".parse().unwrap();
        let installed = json!({
            "TCP": {"80": {"HTTP": true}}, "Services": {"svc:old": {"TCP": {"443": {"HTTPS": true}}}},
            "Foreground": {"session": {"TCP": {}}},
        });
        let whole = desired(&installed, Some(&serving(&service)), Ownership::Whole);
        assert!(whole.get("TCP").is_none() && whole["Services"].get("svc:old").is_none());
        assert_eq!(whole["Foreground"], installed["Foreground"]);
        let ours = [service.to_string()].into();
        let shared = desired(&installed, Some(&serving(&service)), Ownership::Services(&ours));
        assert_eq!(shared["TCP"], installed["TCP"]);
        assert!(shared["Services"].get("svc:old").is_some() && shared["Services"].get("svc:a").is_some());
        assert_eq!(desired(&shared, None, Ownership::Services(&ours)), installed, "nothing of ours stays");
        assert_eq!(desired(&installed, None, Ownership::Whole), json!({"Foreground": installed["Foreground"]}));
        assert_eq!(desired(&Value::Null, None, Ownership::Whole), json!({}));
    }
}
