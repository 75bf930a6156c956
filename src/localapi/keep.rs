//! Which members of tailscaled's large documents are kept. Pure.
//!
//! Exactly the members that `types.rs` decodes: what is dropped here would be ignored there, only later and after it
//! had been held in memory.

use super::Peers;
use super::framer::{Limits, Rule};

/// Bounds of a document. A full netmap of a very large tailnet is tens of MiB; what is kept of a peer is 250 bytes.
pub(super) fn limits(peers: Peers) -> Limits {
    let kept = match peers {
        Peers::Include => 64 << 20,
        Peers::Omit => 16 << 20,
    };
    Limits { object: 256 << 20, kept }
}

/// The rule for messages of the bus.
pub(super) fn notify(peers: Peers) -> &'static Rule {
    match peers {
        Peers::Include => &NOTIFY_WITH_PEERS,
        Peers::Omit => &NOTIFY,
    }
}

/// The rule for `GET status`.
pub(super) fn status(peers: Peers) -> &'static Rule {
    match peers {
        Peers::Include => &STATUS_WITH_PEERS,
        Peers::Omit => &STATUS,
    }
}

const PEER_STATUS: Rule = Rule::Members(&[
    ("ID", Rule::Keep),
    ("NodeID", Rule::Keep),
    ("DNSName", Rule::Keep),
    ("TailscaleIPs", Rule::Keep),
    ("AllowedIPs", Rule::Keep),
    ("Online", Rule::Keep),
    ("Expired", Rule::Keep),
    ("KeyExpiry", Rule::Keep),
]);

const NODE: Rule = Rule::Members(&[
    ("ID", Rule::Keep),
    ("StableID", Rule::Keep),
    ("Name", Rule::Keep),
    ("Addresses", Rule::Keep),
    ("AllowedIPs", Rule::Keep),
    ("KeyExpiry", Rule::Keep),
    ("Expired", Rule::Keep),
    ("Tags", Rule::Keep),
]);

/// A peer's expiry and tags interest nobody, and there may be thousands.
const PEER: Rule = Rule::Members(&[
    ("ID", Rule::Keep),
    ("StableID", Rule::Keep),
    ("Name", Rule::Keep),
    ("Addresses", Rule::Keep),
    ("AllowedIPs", Rule::Keep),
]);

const DNS: Rule = Rule::Members(&[("CertDomains", Rule::Keep), ("ExtraRecords", Rule::Keep)]);

macro_rules! status {
    ($($peers:expr)?) => {
        Rule::Members(&[
            ("Version", Rule::Keep),
            ("TUN", Rule::Keep),
            ("BackendState", Rule::Keep),
            ("HaveNodeKey", Rule::Keep),
            ("AuthURL", Rule::Keep),
            ("Self", PEER_STATUS),
            ("Health", Rule::Keep),
            ("CertDomains", Rule::Keep),
            ("ExtraRecords", Rule::Keep),
            $(("Peer", $peers),)?
        ])
    };
}

macro_rules! notify {
    ($status:expr $(, $($member:literal: $rule:expr),+)?) => {
        Rule::Members(&[
            ("Version", Rule::Keep),
            ("ErrMessage", Rule::Keep),
            ("State", Rule::Keep),
            ("Prefs", Rule::Keep),
            ("SelfChange", NODE),
            ("InitialStatus", $status),
            ("BrowseToURL", Rule::Keep),
            ("Health", HEALTH),
            $($(($member, $rule),)+)?
        ])
    };
}

const HEALTH: Rule =
    Rule::Members(&[("Warnings", Rule::Each(&Rule::Members(&[("Text", Rule::Keep), ("Args", Rule::Keep)])))]);

static STATUS: Rule = status!();
static STATUS_WITH_PEERS: Rule = status!(Rule::Each(&PEER_STATUS));
static NOTIFY: Rule = notify!(status!(), "NetMap": Rule::Members(&[("SelfNode", NODE), ("DNS", DNS)]));
static NOTIFY_WITH_PEERS: Rule = notify!(
    status!(Rule::Each(&PEER_STATUS)),
    "NetMap": Rule::Members(&[("SelfNode", NODE), ("DNS", DNS), ("Peers", PEER)]),
    "PeersChanged": PEER,
    "PeersRemoved": Rule::Keep,
    // Presence is all that matters.
    "PeerChangedPatch": Rule::Each(&Rule::Skip),
    "PeerChanges": Rule::Each(&Rule::Skip),
    "UserProfiles": Rule::Each(&Rule::Skip)
);

#[cfg(test)]
mod tests {
    use super::super::framer::Framer;
    use super::super::types::Notify;
    use super::*;

    /// Every member that the types know, so that a new one cannot be forgotten here.
    const FULL: &str = r#"{"Version":"1.102.0","ErrMessage":"e","State":6,"Prefs":{"Hostname":"h"},
        "SelfChange":{"ID":1,"StableID":"n1","Name":"a.ts.net.","Addresses":["100.64.0.1/32"],"AllowedIPs":["10.0.0.0/8"],
          "KeyExpiry":"2030-01-01T00:00:00Z","Expired":true,"Tags":["tag:x"],"CapMap":{"c":null}},
        "InitialStatus":{"Version":"1.102.0","TUN":true,"BackendState":"Running","HaveNodeKey":true,"AuthURL":"u",
          "Self":{"ID":"n1","NodeID":1,"DNSName":"a.ts.net.","TailscaleIPs":["100.64.0.1"],"AllowedIPs":["100.64.0.1/32"],
            "Online":true,"Expired":true,"KeyExpiry":"2030-01-01T00:00:00Z","HostName":"a"},
          "Health":["text"],"CertDomains":["a.ts.net"],"ExtraRecords":[{"Name":"s","Type":"A","Value":"100.64.0.9"}],
          "Peer":{"nodekey:1":{"ID":"n2","NodeID":2,"DNSName":"b.ts.net.","TailscaleIPs":["100.64.0.2"],"OS":"linux"}},
          "User":{"1":{"LoginName":"x"}}},
        "NetMap":{"SelfNode":{"ID":1,"Name":"a.ts.net."},"Peers":[{"ID":2,"Name":"b.ts.net.","Hostinfo":{}}],
          "DNS":{"CertDomains":["a.ts.net"],"ExtraRecords":[],"Resolvers":[]},"PacketFilter":[{}]},
        "PeersChanged":[{"ID":3,"Name":"c.ts.net."}],"PeersRemoved":[4],"PeerChangedPatch":[{"NodeID":2}],
        "PeerChanges":[{"NodeID":2}],"UserProfiles":{"7":{"LoginName":"x"}},
        "BrowseToURL":"https://x","Health":{"Warnings":{"login-state":{"Text":"t","Args":{"error":"x"},"Title":"y"}}}}"#;

    fn through(rule: &'static Rule) -> Notify {
        let mut framer = Framer::new(rule, limits(Peers::Include));
        framer.push(FULL.as_bytes());
        serde_json::from_slice(&framer.next().unwrap().unwrap()).unwrap()
    }

    #[test]
    fn with_peers_nothing_that_the_types_know_is_lost() {
        let whole: Notify = serde_json::from_str(FULL).unwrap();
        assert_eq!(format!("{:?}", through(notify(Peers::Include))), format!("{whole:?}"));
    }

    #[test]
    fn without_peers_only_they_are_lost() {
        let mut whole: Notify = serde_json::from_str(FULL).unwrap();
        whole.initial_status.as_mut().unwrap().peer.clear();
        whole.net_map.as_mut().unwrap().peers.clear();
        whole.peers_changed.clear();
        whole.peers_removed.clear();
        whole.peer_changed_patch = None;
        whole.peer_changes = None;
        whole.user_profiles = None;
        assert_eq!(format!("{:?}", through(notify(Peers::Omit))), format!("{whole:?}"));
    }
}
