//! Services that are of no use before there is a certificate for them. Pure.
//!
//! One that listens on 443 alone, and ends TLS there, can only refuse; advertised all the same, it takes clients away
//! from replicas that have the certificate. Whoever serves something else besides is of use at once. It is the operator's
//! rule (`cmd/k8s-operator/ingress-for-pg.go`).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::names::{self, Name, Node};
use crate::serve::document::ends_tls;
use crate::serve::go::{member, object};

/// Such Services of `config`, each with its names: a certificate for one of them is enough.
///
/// Wildcards do not count, for no certificate that replicas share can be for one, and a Service without any name waits
/// for nothing.
pub fn awaited(config: &Value) -> BTreeMap<String, BTreeSet<Name>> {
    let wanted = names::wanted(config, Node::Leave).unwrap_or_default();
    let mut awaited: BTreeMap<String, BTreeSet<Name>> = object(member(config, "Services"))
        .filter(|(_, service)| serves_https_only(service))
        .map(|(service, _)| (service.to_owned(), BTreeSet::new()))
        .collect();
    for (name, services) in wanted.names.iter().filter(|(name, _)| !name.is_wildcard()) {
        for service in services {
            if let Some(names) = awaited.get_mut(service) {
                names.insert(name.clone());
            }
        }
    }
    awaited.retain(|_, names| !names.is_empty());
    awaited
}

fn serves_https_only(service: &Value) -> bool {
    let mut handlers = object(member(service, "TCP")).filter(|(_, handler)| !handler.is_null()).peekable();
    handlers.peek().is_some() && handlers.all(|(port, handler)| port == "443" && ends_tls(handler))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_could_do_nothing_else_waits() {
        let web = |port: u16| json!({format!("a.t.ts.net:{port}"): {"Handlers": {}}});
        let https = json!({"HTTPS": true});
        for (service, waits) in [
            (json!({"TCP": {"443": https}, "Web": web(443)}), true),
            (json!({"tcp": {"443": {"https": true}}, "web": web(443)}), true),
            (json!({"TCP": {"443": {"TCPForward": "h:1", "TerminateTLS": "A.t.ts.net."}}}), true),
            (json!({"TCP": {"443": https, "80": null}, "Web": web(443)}), true),
            (json!({"TCP": {"443": https, "80": {"HTTP": true}}, "Web": web(443)}), false),
            (json!({"TCP": {"443": https, "5432": {"TCPForward": "h:1"}}, "Web": web(443)}), false),
            (json!({"TCP": {"443": {"TCPForward": "h:1"}}}), false),
            (json!({"TCP": {"8443": https}, "Web": web(8443)}), false),
            (json!({"TCP": {"443": https}}), false),
            (json!({"TCP": {"443": https}, "Web": {"*.t.ts.net:443": null}}), false),
            (json!({"Tun": true}), false),
            (json!({"Web": web(443)}), false),
            (json!(null), false),
        ] {
            let names = awaited(&json!({"Services": {"svc:a": service.clone()}}));
            let expected = waits.then(|| ("svc:a".to_owned(), BTreeSet::from([Name::parse("a.t.ts.net").unwrap()])));
            assert_eq!(names, expected.into_iter().collect(), "{service}");
        }
        assert!(awaited(&json!(null)).is_empty());
        let own = json!({"TCP": {"443": https}, "Web": web(443), "Services": null});
        assert!(awaited(&own).is_empty(), "the node itself is not advertised");
    }
}
