//! Prefs as they are against prefs as they should be. Pure.
//!
//! For a node that has an identity only what was asked for is compared; a new node, and `--reset`, also get the
//! CLI's defaults (boot.md E.3). Sets are compared without order, and Go's `null` is the empty value.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::flags::{DesiredPrefs, ExitNode, SIMPLE, exit_routes};
pub use crate::localapi::prefs::{Change, masked};
use crate::localapi::types::Prefs;
use crate::prefix::Prefix;

/// Whether the node has logged in before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Never: the CLI's defaults apply.
    Fresh,
    /// It has: what was not asked for is left alone.
    Known,
}

/// What has to change. Empty when the node is as it should be.
pub fn drift(current: &Prefs, desired: &DesiredPrefs, identity: Identity) -> Vec<Change> {
    wanted(current, desired, identity)
        .into_iter()
        .filter_map(|(member, new)| {
            let old = current.0.get(&member).cloned().unwrap_or(Value::Null);
            (!is_same(&member, &old, &new)).then_some(Change { member, old, new })
        })
        .collect()
}

/// `current` with the changes made: complete prefs for `POST start`, which replaces all of them.
pub fn applied(current: &Prefs, changes: &[Change]) -> Prefs {
    let mut prefs = current.clone();
    for change in changes {
        prefs.0.insert(change.member.clone(), change.new.clone());
    }
    prefs
}

/// Whether a change takes effect only with a new login: other tags, or another control server.
pub fn needs_login(changes: &[Change]) -> bool {
    changes.iter().any(|change| matches!(change.member.as_str(), "AdvertiseTags" | "ControlURL"))
}

/// Every member that is asked for, with its value.
fn wanted(current: &Prefs, desired: &DesiredPrefs, identity: Identity) -> Map<String, Value> {
    let complete = identity == Identity::Fresh || desired.reset;
    let mut wanted = Map::new();
    wanted.insert("WantRunning".to_owned(), Value::Bool(true));
    if complete {
        wanted.extend(SIMPLE.iter().map(|simple| (simple.member.to_owned(), simple.default_value())));
    }
    wanted.extend(desired.given.iter().map(|(member, value)| ((*member).to_owned(), value.clone())));
    if let Some(routes) = routes(current, desired, complete) {
        wanted.insert("AdvertiseRoutes".to_owned(), json!(routes));
    }
    match &desired.exit_node {
        None if !complete => {}
        None | Some(ExitNode::None) => exit_node(&mut wanted, "", ""),
        Some(ExitNode::Ip(ip)) => exit_node(&mut wanted, &ip.to_string(), ""),
        // The daemon fills in the node it chose; that is not drift.
        Some(ExitNode::Auto(expression)) if current.0.get("AutoExitNode") == Some(&json!(expression)) => {}
        Some(ExitNode::Auto(expression)) => exit_node(&mut wanted, "", expression),
    }
    wanted
}

fn exit_node(wanted: &mut Map<String, Value>, ip: &str, auto: &str) {
    wanted.insert("ExitNodeID".to_owned(), json!(""));
    wanted.insert("ExitNodeIP".to_owned(), json!(ip));
    wanted.insert("AutoExitNode".to_owned(), json!(auto));
}

/// The complete list of routes, sorted as Tailscale sorts; `None` when nobody asked for any.
///
/// As with `tailscale set`, asking for one of routes and exit node leaves the other as it is.
fn routes(current: &Prefs, desired: &DesiredPrefs, complete: bool) -> Option<Vec<Prefix>> {
    if desired.routes.is_none() && desired.advertise_exit_node.is_none() && !complete {
        return None;
    }
    let listed = current.0.get("AdvertiseRoutes").and_then(Value::as_array).into_iter().flatten();
    let now: Vec<Prefix> = listed.filter_map(|route| route.as_str()?.parse().ok()).collect();
    let is_exit_node = exit_routes().iter().all(|route| now.contains(route));
    let mut routes: BTreeSet<(u8, Prefix)> = BTreeSet::new();
    let mut add = |list: &[Prefix]| routes.extend(list.iter().map(|route| (route.len(), *route)));
    match &desired.routes {
        Some(given) => add(given),
        None if complete => {}
        None => add(&now.iter().copied().filter(|route| !route.is_empty()).collect::<Vec<_>>()),
    }
    if desired.advertise_exit_node.unwrap_or(is_exit_node && !complete) {
        add(&exit_routes());
    }
    Some(routes.into_iter().map(|(_, route)| route).collect())
}

/// Whether two values of a member mean the same.
fn is_same(member: &str, old: &Value, new: &Value) -> bool {
    match (old, new) {
        (Value::Array(old), Value::Array(new)) => set(old) == set(new),
        (Value::Null, Value::Array(new)) => new.is_empty(),
        (Value::Null, Value::String(new)) => new.is_empty(),
        (Value::String(old), Value::String(new)) if member == "ControlURL" => login_server(old) == login_server(new),
        (Value::Object(_) | Value::Null, Value::Object(new)) => {
            let is_same = |(name, new): (&String, &Value)| {
                old.get(name).unwrap_or(&Value::Null) == new || (old.get(name).is_none() && *new == Value::Bool(false))
            };
            new.iter().all(is_same)
        }
        (old, new) => old == new,
    }
}

fn set(list: &[Value]) -> BTreeSet<&str> {
    list.iter().filter_map(Value::as_str).collect()
}

/// The names of Tailscale's own control server are one, and so is none.
fn login_server(url: &str) -> &str {
    match url {
        "" | "https://login.tailscale.com" | "https://controlplane.tailscale.com" => {
            "https://controlplane.tailscale.com"
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::boot::flags::{FlagsOutcome, desired_prefs};
    use crate::settings::{self, Persona};

    fn desired(pairs: &[(&str, &str)]) -> DesiredPrefs {
        let vars: BTreeMap<&str, &str> = pairs.iter().copied().collect();
        let settings = settings::read(&vars, Persona::Tailpod).unwrap_or_else(|problems| panic!("{problems}"));
        match desired_prefs(&settings) {
            Ok(FlagsOutcome::Prefs(prefs)) => *prefs,
            other => panic!("{pairs:?}: {other:?}"),
        }
    }

    fn prefs(value: Value) -> Prefs {
        match value {
            Value::Object(map) => Prefs(map),
            other => panic!("{other}"),
        }
    }

    /// A node of `tailscale up --accept-dns=false`.
    fn node() -> Prefs {
        prefs(json!({
            "ControlURL": "https://controlplane.tailscale.com", "RouteAll": false, "CorpDNS": false,
            "ExitNodeID": "", "ExitNodeIP": "", "ExitNodeAllowLANAccess": false, "RunSSH": false, "ShieldsUp": false,
            "WantRunning": true, "LoggedOut": false, "Hostname": "", "AdvertiseTags": null, "AdvertiseRoutes": null,
            "NoSNAT": false, "NoStatefulFiltering": true, "NetfilterMode": 2, "PostureChecking": false,
            "AppConnector": { "Advertise": false }, "AdvertiseServices": ["svc:a"], "Config": { "NodeID": "n1" },
        }))
    }

    fn with(members: Value) -> Prefs {
        let mut prefs = node();
        prefs.0.extend(self::prefs(members).0);
        prefs
    }

    fn changes(current: &Prefs, pairs: &[(&str, &str)], identity: Identity) -> Vec<String> {
        drift(current, &desired(pairs), identity).iter().map(Change::to_string).collect()
    }

    #[test]
    fn a_node_as_it_should_be_has_no_drift() {
        for (current, pairs) in [
            (node(), &[][..]),
            (node(), &[("TS_ROUTES", "")]),
            (node(), &[("TS_EXTRA_ARGS", "--reset")]),
            (node(), &[("TS_EXTRA_ARGS", "--login-server=https://login.tailscale.com --advertise-tags= --operator=")]),
            (with(json!({ "AdvertiseRoutes": ["::/64", "10.0.0.0/8"] })), &[("TS_ROUTES", "10.0.0.0/8,::/64")]),
            (with(json!({ "AdvertiseTags": ["tag:b", "tag:a"] })), &[("TS_EXTRA_ARGS", "--advertise-tags=a,b")]),
            (with(json!({ "AutoExitNode": "any", "ExitNodeID": "n7" })), &[("TS_EXTRA_ARGS", "--exit-node=auto:any")]),
            // Nobody asked about any of these.
            (
                with(json!({ "RunSSH": true, "Hostname": "x", "AdvertiseRoutes": ["10.0.0.0/8"], "NetfilterMode": 0 })),
                &[],
            ),
        ] {
            assert_eq!(changes(&current, pairs, Identity::Known), [""; 0], "{pairs:?}");
        }
        assert_eq!(changes(&node(), &[], Identity::Fresh), [""; 0], "and these are the CLI's defaults");
    }

    #[test]
    fn w20_a_changed_option_is_a_change_and_not_a_refusal() {
        let current = with(json!({ "Hostname": "old", "AdvertiseRoutes": ["10.0.0.0/8"], "RunSSH": true }));
        assert_eq!(
            changes(
                &current,
                &[("TS_HOSTNAME", "new"), ("TS_ROUTES", "10.1.0.0/16"), ("TS_ACCEPT_DNS", "true")],
                Identity::Known
            ),
            [
                r#"AdvertiseRoutes: ["10.0.0.0/8"] -> ["10.1.0.0/16"]"#,
                "CorpDNS: false -> true",
                r#"Hostname: "old" -> "new""#,
            ]
        );
        // A dropped option is left alone, unless everything is reset.
        assert_eq!(changes(&current, &[], Identity::Known), [""; 0]);
        assert_eq!(
            changes(&current, &[("TS_EXTRA_ARGS", "--reset")], Identity::Known),
            [r#"AdvertiseRoutes: ["10.0.0.0/8"] -> []"#, r#"Hostname: "old" -> """#, "RunSSH: true -> false"]
        );
    }

    #[test]
    fn a_new_node_gets_the_defaults() {
        let changes =
            drift(&prefs(json!({ "WantRunning": false })), &desired(&[("TS_EXTRA_ARGS", "--ssh")]), Identity::Fresh);
        let new: BTreeMap<_, _> = changes.iter().map(|change| (change.member.as_str(), change.new.clone())).collect();
        for (member, value) in [
            ("WantRunning", json!(true)),
            ("RunSSH", json!(true)),
            ("CorpDNS", json!(false)),
            ("NetfilterMode", json!(2)),
            ("NoStatefulFiltering", json!(true)),
            ("NoSNAT", json!(false)),
        ] {
            assert_eq!(new.get(member), Some(&value), "{member}");
        }
        assert_eq!(new.get("OperatorUser"), None, "missing is empty");
    }

    #[test]
    fn routes_and_exit_node_leave_each_other_alone() {
        let exit = with(json!({ "AdvertiseRoutes": ["0.0.0.0/0", "::/0", "10.0.0.0/8"] }));
        assert_eq!(
            changes(&exit, &[("TS_ROUTES", "10.1.0.0/16,fd00::/64")], Identity::Known),
            [r#"AdvertiseRoutes: ["0.0.0.0/0","::/0","10.0.0.0/8"] -> ["0.0.0.0/0","::/0","10.1.0.0/16","fd00::/64"]"#]
        );
        assert_eq!(
            changes(&exit, &[("TS_EXTRA_ARGS", "--advertise-exit-node=false")], Identity::Known),
            [r#"AdvertiseRoutes: ["0.0.0.0/0","::/0","10.0.0.0/8"] -> ["10.0.0.0/8"]"#]
        );
        assert_eq!(
            changes(&node(), &[("TS_EXTRA_ARGS", "--advertise-exit-node")], Identity::Known),
            [r#"AdvertiseRoutes: null -> ["0.0.0.0/0","::/0"]"#]
        );
        assert_eq!(
            changes(&exit, &[("TS_ROUTES", ""), ("TS_EXTRA_ARGS", "--advertise-exit-node=false")], Identity::Known),
            [r#"AdvertiseRoutes: ["0.0.0.0/0","::/0","10.0.0.0/8"] -> []"#]
        );
    }

    #[test]
    fn another_exit_node_replaces_the_old_one() {
        let current = with(json!({ "ExitNodeID": "n7" }));
        assert_eq!(
            changes(&current, &[("TS_EXTRA_ARGS", "--exit-node=100.64.0.9")], Identity::Known),
            [r#"ExitNodeID: "n7" -> """#, r#"ExitNodeIP: "" -> "100.64.0.9""#]
        );
        assert_eq!(
            changes(&current, &[("TS_EXTRA_ARGS", "--exit-node=")], Identity::Known),
            [r#"ExitNodeID: "n7" -> """#]
        );
        assert_eq!(
            changes(&current, &[("TS_EXTRA_ARGS", "--exit-node=auto:any")], Identity::Known),
            [r#"AutoExitNode: null -> "any""#, r#"ExitNodeID: "n7" -> """#]
        );
    }

    #[test]
    fn masked_has_only_what_changed_and_applied_keeps_the_rest() {
        let current = node();
        let changes = drift(&current, &desired(&[("TS_HOSTNAME", "h")]), Identity::Known);
        assert_eq!(masked(&changes), prefs(json!({ "Hostname": "h", "HostnameSet": true })));
        let applied = applied(&current, &changes);
        assert_eq!(applied.0.get("Config"), current.0.get("Config"));
        assert!(
            drift(&applied, &desired(&[("TS_HOSTNAME", "h")]), Identity::Known).is_empty(),
            "applied is as desired"
        );
        assert!(!needs_login(&changes));
        let tags = drift(&current, &desired(&[("TS_EXTRA_ARGS", "--advertise-tags=k8s")]), Identity::Known);
        assert!(needs_login(&tags));
    }
}
