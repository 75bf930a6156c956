//! Messages of the IPN bus, as boot.md 12 abbreviates them.

use serde_json::{Value, json};

/// `RUN` of boot.md 12: Running, with a self node and the same as an initial status.
pub(crate) fn running() -> Value {
    running_as("myID", "test-node.test.ts.net.", &["100.64.0.1"])
}

/// `RUN` of another node.
pub(crate) fn running_as(id: &str, name: &str, addresses: &[&str]) -> Value {
    json!({
        "State": 6,
        "SelfChange": node(id, name, addresses),
        "InitialStatus": {
            "BackendState": "Running",
            "Self": {"ID": id, "NodeID": 1, "DNSName": name, "TailscaleIPs": addresses},
        },
    })
}

/// A node as `SelfChange` shows it.
pub(crate) fn node(id: &str, name: &str, addresses: &[&str]) -> Value {
    let prefixes: Vec<String> =
        addresses.iter().map(|ip| format!("{ip}/{}", if ip.contains(':') { 128 } else { 32 })).collect();
    json!({"ID": 1, "StableID": id, "Name": name, "Addresses": prefixes})
}

/// A message with this state and nothing else.
pub(crate) fn state(number: u8) -> Value {
    json!({"State": number})
}

/// `NL` of boot.md 12.
pub(crate) fn needs_login() -> Value {
    state(2)
}

/// A `login-state` warning; the reason is left out when empty.
pub(crate) fn login_warning(error: &str) -> Value {
    let args = if error.is_empty() { Value::Null } else { json!({"error": error}) };
    json!({"Health": {"Warnings": {"login-state": {
        "WarnableCode": "login-state", "Severity": "medium", "Title": "Logged out", "Text": "not logged in", "Args": args,
    }}}})
}

/// Health without warnings.
pub(crate) fn healthy() -> Value {
    json!({"Health": {"Warnings": null}})
}
