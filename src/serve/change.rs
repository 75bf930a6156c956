//! From the config that the daemon has to the one that is wanted. Pure.
//!
//! Configs are compared by what they mean. The daemon refuses to change what kind of handler a port has in one step
//! (`want to serve "https", but port 443 is already serving "tcp"`), so there is a step between. What other processes
//! have in the foreground is carried over.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::go::{member, object};

/// What somebody else has bound to a session of theirs.
const FOREGROUND: &str = "Foreground";

/// Whether two configs say the same: empty members count as absent.
pub fn is_same(one: &Value, other: &Value) -> bool {
    normal(one) == normal(other)
}

/// `desired` with the foreground of `installed`, unless it has one of its own.
pub fn carried_over(installed: &Value, desired: &Value) -> Value {
    let mut config = desired.clone();
    if let (Value::Object(members), Some(foreground)) = (&mut config, member(installed, FOREGROUND))
        && !members.contains_key(FOREGROUND)
    {
        members.insert(FOREGROUND.to_owned(), foreground.clone());
    }
    config
}

/// `desired` without the ports that have a handler of another kind in `installed`, and without the Services that change
/// between TUN mode and handlers; `None` when there is nothing of that kind.
pub fn between(installed: &Value, desired: &Value) -> Option<Value> {
    let mut config = desired.clone();
    let mut differs = strip(installed, &mut config);
    if let Some(Value::Object(services)) = config.get_mut("Services") {
        let gone: Vec<_> = object(member(installed, "Services"))
            .filter(|(name, old)| services.get(*name).is_some_and(|new| is_tun(old) != is_tun(new)))
            .map(|(name, _)| name.to_owned())
            .collect();
        for name in &gone {
            services.remove(name);
        }
        differs |= !gone.is_empty();
        for (name, old) in object(member(installed, "Services")) {
            if let Some(new) = services.get_mut(name) {
                differs |= strip(old, new);
            }
        }
    }
    differs.then_some(config)
}

fn is_tun(service: &Value) -> bool {
    member(service, "Tun") == Some(&Value::Bool(true))
}

/// Removes conflicting ports from `new`, and what is served on them; whether there were any.
fn strip(old: &Value, new: &mut Value) -> bool {
    let conflicting: BTreeSet<String> = object(member(old, "TCP"))
        .filter(|(port, handler)| {
            let wanted = member(new, "TCP").and_then(|tcp| tcp.get(*port));
            wanted.is_some_and(|wanted| kind(wanted) != kind(handler))
        })
        .map(|(port, _)| port.to_owned())
        .collect();
    if conflicting.is_empty() {
        return false;
    }
    if let Some(Value::Object(tcp)) = new.get_mut("TCP") {
        tcp.retain(|port, _| !conflicting.contains(port));
    }
    for map in ["Web", "AllowFunnel"] {
        if let Some(Value::Object(web)) = new.get_mut(map) {
            web.retain(|key, _| key.rsplit_once(':').is_none_or(|(_, port)| !conflicting.contains(port)));
        }
    }
    true
}

/// What kind of handler it is, as the daemon tells them apart.
fn kind(handler: &Value) -> &'static str {
    if member(handler, "HTTPS") == Some(&Value::Bool(true)) {
        "https"
    } else if member(handler, "HTTP") == Some(&Value::Bool(true)) {
        "http"
    } else if member(handler, "TCPForward").is_some() {
        "tcp"
    } else {
        "nothing"
    }
}

/// Members whose own members are named by whoever writes the config: an entry that says nothing is still one.
const MAPS: [&str; 6] = ["TCP", "Web", "Services", "AllowFunnel", FOREGROUND, "Handlers"];

/// Without members that are null, false, zero or empty, which is how the daemon writes them; `None` when nothing is left.
fn normal(value: &Value) -> Option<Value> {
    let left = |members: Map<_, _>| (!members.is_empty()).then_some(Value::Object(members));
    match value {
        Value::Null | Value::Bool(false) => None,
        Value::Object(members) => left(
            members
                .iter()
                .filter_map(|(name, value)| match value {
                    Value::Object(entries) if MAPS.contains(&name.as_str()) => {
                        let entry = |(key, value): (&String, _)| (key.clone(), normal(value).unwrap_or_default());
                        Some((name.clone(), left(entries.iter().map(entry).collect())?))
                    }
                    _ => Some((name.clone(), normal(value)?)),
                })
                .collect(),
        ),
        Value::Array(list) => (!list.is_empty()).then(|| value.clone()),
        Value::String(text) => (!text.is_empty()).then(|| value.clone()),
        Value::Number(number) => (number.as_f64() != Some(0.0)).then(|| value.clone()),
        Value::Bool(true) => Some(value.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn empty_members_make_no_difference() {
        assert!(is_same(&json!({}), &json!({"Services": {}, "TCP": null})));
        assert!(is_same(&json!({"a": {"b": false, "c": 0, "d": ""}}), &Value::Null));
        assert!(!is_same(&json!({}), &json!({"TCP": {"443": {"HTTPS": true}}})));
        let of = |host: &str| json!({"Web": {host: {"Handlers": {}}}});
        assert!(!is_same(&of("a:443"), &of("b:443")) && is_same(&of("a:443"), &json!({"Web": {"a:443": null}})));
    }

    #[test]
    fn the_foreground_is_carried_over() {
        let installed = json!({"TCP": {"80": {}}, "Foreground": {"s1": {"TCP": {}}}});
        assert_eq!(carried_over(&installed, &json!({})), json!({"Foreground": {"s1": {"TCP": {}}}}));
        let own = json!({"Foreground": {}});
        assert_eq!(carried_over(&installed, &own), own);
        assert_eq!(carried_over(&Value::Null, &json!({})), json!({}));
    }

    #[test]
    fn a_port_of_another_kind_goes_first() {
        let tcp = json!({"TCPForward": "h:1"});
        let installed = json!({"TCP": {"443": tcp, "80": {"HTTP": true}}, "Services": {
            "svc:a": {"TCP": {"443": tcp}}, "svc:b": {"Tun": true}, "svc:c": {"TCP": {"443": tcp}}}});
        let desired = json!({
            "TCP": {"443": {"HTTPS": true}, "80": {"HTTP": true}},
            "Web": {"n.ts.net:443": {}, "n.ts.net:80": {}},
            "Services": {
                "svc:a": {"TCP": {"443": {"HTTPS": true}}, "Web": {"a.ts.net:443": {}}},
                "svc:b": {"TCP": {"1": tcp}},
                "svc:c": {"TCP": {"443": {"TCPForward": "other:1"}}}},
        });
        assert_eq!(
            between(&installed, &desired).unwrap(),
            json!({
                "TCP": {"80": {"HTTP": true}},
                "Web": {"n.ts.net:80": {}},
                "Services": {"svc:a": {"TCP": {}, "Web": {}}, "svc:c": {"TCP": {"443": {"TCPForward": "other:1"}}}},
            })
        );
        assert_eq!(between(&desired, &desired), None);
        assert_eq!(between(&Value::Null, &desired), None);
    }
}
