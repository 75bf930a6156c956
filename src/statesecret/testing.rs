//! What tests of this folder share.

use super::FullName;
use super::inspect::Known;
use crate::k8s::pods::PodSummary;
use crate::k8s::state::StateSecret;

/// `_profiles` of a real tailscaled 1.102.5.
pub(crate) const PROFILES: &str = r#"{"d0e7":{"ID":"d0e7","Name":"user-1@example.net","NetworkProfile":{"MagicDNSName":"lab.ts.net","DomainName":"example.net","DisplayName":""},"Key":"profile-d0e7","UserProfile":{"ID":1,"LoginName":"user-1@example.net","DisplayName":"User 1","ProfilePicURL":""},"NodeID":"nTEST1","LocalUserID":"","ControlURL":"https://control.example.net","Created":"2026-11-21T10:12:30.287678733Z"}}"#;

/// The profile of the same, shortened.
pub(crate) const PREFS: &str = r#"{"ControlURL": "https://control.example.net", "RouteAll": false, "WantRunning": true,
    "NetfilterMode": 2, "Config": {"PrivateNodeKey": "privkey:18b2", "OldPrivateNodeKey": "privkey:0000",
    "UserProfile": {"ID": 1, "LoginName": "user-1@example.net"}, "NetworkLockKey": "nlpriv:3c53", "NodeID": "nTEST1"}}"#;

/// A Secret with this data.
pub(crate) fn secret(pairs: &[(&str, &str)]) -> StateSecret {
    let data = pairs.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect();
    StateSecret { data, ..StateSecret::default() }
}

/// A Secret of a node that is well, with more data.
pub(crate) fn healthy(more: &[(&str, &str)]) -> StateSecret {
    let well = [
        ("_current-profile", "profile-d0e7"),
        ("_machinekey", "privkey:b0fe"),
        ("_profiles", PROFILES),
        ("profile-d0e7", PREFS),
    ];
    secret(&[&well[..], more].concat())
}

/// Noon, and nothing else.
pub(crate) fn known() -> Known {
    let now = "2026-11-21T12:00:00Z".parse().expect("a time");
    Known { now, pods: None, daemon_version: None, node: None }
}

/// Where it is.
pub(crate) fn at() -> FullName {
    FullName { namespace: "ns".to_owned(), name: "ts-0".to_owned() }
}

/// A Pod that uses the Secret.
pub(crate) fn pod(name: &str, uid: &str) -> PodSummary {
    PodSummary {
        name: name.to_owned(),
        uid: uid.to_owned(),
        phase: "Running".to_owned(),
        is_stopping: false,
        state_secrets: vec!["ts-0".to_owned()],
    }
}
