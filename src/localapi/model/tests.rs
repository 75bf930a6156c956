//! The reducer against streams of all three generations of daemons.

use super::*;
use crate::localapi::{Peers as Keep, framer::Framer, keep};

const OLD: &str = include_str!("../../../tests/fixtures/ipn/1.76.ndjson");
const BOTH: &str = include_str!("../../../tests/fixtures/ipn/1.98.ndjson");
const DELTAS: &str = include_str!("../../../tests/fixtures/ipn/1.102.ndjson");

/// Plays a stream as the watch does: through the framer, with or without peers.
fn play(stream: &str, peers: Keep) -> (Model, Vec<Update>) {
    let mut framer = Framer::new(keep::notify(peers), keep::limits(peers));
    framer.push(stream.as_bytes());
    let mut model = Model::default();
    let mut updates = Vec::new();
    while let Some(frame) = framer.next().unwrap() {
        updates.push(model.apply(serde_json::from_slice(&frame).unwrap()));
    }
    (model, updates)
}

fn notify(text: &str) -> Notify {
    serde_json::from_str(text).unwrap()
}

/// What differs between the streams and does not belong to the node.
fn node_only(model: Model) -> Model {
    Model { version: String::new(), health: None, ..model }
}

#[test]
fn scenario_8_unknown_fields_and_states_are_tolerated() {
    let mut model = Model::default();
    let first = model.apply(notify(r#"{"State":42,"Brand":{"new":[{}]},"InitialStatus":{"BackendState":"Running"}}"#));
    assert_eq!((first.state, first.unknown_state.as_deref()), (Some(State::Unknown), Some("42")));
    let again = model.apply(notify(r#"{"State":43}"#));
    assert_eq!((again.state, again.unknown_state), (Some(State::Unknown), None), "a warning once");
    let by_name = Model::default().apply(notify(r#"{"InitialStatus":{"BackendState":"Dozing"}}"#));
    assert_eq!(by_name.unknown_state.as_deref(), Some("Dozing"));
}

#[test]
fn scenario_9_a_stream_of_netmaps_alone_reaches_running() {
    let (model, updates) = play(OLD, Keep::Include);
    let states: Vec<_> = updates.iter().filter_map(|update| update.state).collect();
    assert_eq!(states, [State::NeedsLogin, State::Starting, State::Running]);
    let device = model.self_device.clone().unwrap();
    assert_eq!((device.stable_id.as_str(), device.name.as_str()), ("nSELF1CNTRL", "pod-0.tail1234.ts.net."));
    let ips: Vec<_> = device.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(ips, ["100.64.0.10", "fd7a:115c:a1e0::a"]);
    assert_eq!(model.cert_domains, ["pod-0.tail1234.ts.net"]);
    assert_eq!(model.peers.len(), 2);
    let failed = updates[0].health.as_ref().unwrap();
    assert_eq!(failed.warnings["login-state"].args["error"], "invalid key");
    assert!(model.health.unwrap().warnings.is_empty());
    assert_eq!(updates[1].browse_url.as_deref(), Some("https://login.tailscale.com/a/0123456789ab"));
    assert_eq!(model.browse_url, None, "the login is over");
}

#[test]
fn scenario_10_netmap_and_self_change_in_one_message_are_one_change() {
    let (_, updates) = play(BOTH, Keep::Include);
    let changes: Vec<_> = updates.iter().map(|update| (update.self_changed, update.peers_changed)).collect();
    assert_eq!(changes, [(false, false), (true, true), (false, false), (false, true), (false, true)]);
    assert!(updates.iter().all(|update| !update.wants_dns_refresh), "the netmap has DNS already");
}

#[test]
fn scenario_11_all_generations_end_in_the_same_model() {
    let expected = node_only(play(OLD, Keep::Include).0);
    assert_eq!(node_only(play(BOTH, Keep::Include).0), expected);
    let (model, updates) = play(DELTAS, Keep::Include);
    assert_eq!(node_only(model), expected);
    assert!(updates[0].resynced && updates[0].netmap_relevant);
    assert!(updates[1].wants_dns_refresh && !updates[1].self_changed && !updates[1].is_news());
    assert!(!updates[2].netmap_relevant);
    assert!(updates[3].peers_changed && updates[4].peers_changed);
}

#[test]
fn without_peers_the_same_model_but_for_them() {
    for stream in [OLD, BOTH, DELTAS] {
        let with = Model { peers: Arc::default(), ..play(stream, Keep::Include).0 };
        let (without, updates) = play(stream, Keep::Omit);
        assert_eq!(without, with);
        assert!(updates.iter().all(|update| !update.peers_changed));
    }
}

#[test]
fn a_self_without_id_is_no_node_and_a_snapshot_replaces_everything() {
    let mut model = play(DELTAS, Keep::Include).0;
    let logged_out = r#"{"State":2,"InitialStatus":{"BackendState":"NeedsLogin","AuthURL":"https://login/x",
        "Self":{"ID":"","HostName":"pod-0"},"CertDomains":null,"Peer":null}}"#;
    let update = model.apply(notify(logged_out));
    assert!(update.self_changed && update.dns_changed && update.peers_changed);
    assert_eq!((&model.self_device, model.cert_domains.len(), model.peers.len()), (&None, 0, 0));
    assert_eq!(update.browse_url.as_deref(), Some("https://login/x"));
}

#[test]
fn state_is_preferred_over_the_snapshots() {
    let both = notify(r#"{"State":6,"InitialStatus":{"BackendState":"Starting"}}"#);
    assert_eq!(Model::default().apply(both).state, Some(State::Running));
    let snapshot = notify(r#"{"InitialStatus":{"BackendState":"Starting"}}"#);
    assert_eq!(Model::default().apply(snapshot).state, Some(State::Starting));
    assert_eq!(Model::default().apply(notify(r#"{"InitialStatus":{"BackendState":""}}"#)).state, None);
}

#[test]
fn peers_without_a_number_are_known_by_name_until_a_full_node_comes() {
    let mut model = Model::default();
    model.apply(notify(
        r#"{"InitialStatus":{"Peer":{"nodekey:1":{"ID":"n1","DNSName":"a.ts.net.","TailscaleIPs":["100.64.0.1"]}}}}"#,
    ));
    assert_eq!(model.peers.len(), 1);
    let update = model.apply(notify(r#"{"PeersChanged":[{"ID":7,"Name":"a.ts.net.","Addresses":["100.64.0.1/32"]}]}"#));
    assert!(update.peers_changed);
    assert_eq!(model.peers.len(), 1);
    let same = model.apply(notify(r#"{"PeersChanged":[{"ID":7,"Name":"a.ts.net.","Addresses":["100.64.0.1/32"]}]}"#));
    assert!(!same.peers_changed && same.netmap_relevant && !same.is_news());
    assert!(model.apply(notify(r#"{"PeersChanged":[{"ID":0,"Name":""}],"PeersRemoved":[8]}"#)).netmap_relevant);
    assert!(model.apply(notify(r#"{"PeersRemoved":[7]}"#)).peers_changed);
    assert!(model.peers.is_empty());
}

#[test]
fn an_unset_allowed_ips_means_the_own_addresses() {
    let mut model = Model::default();
    model.apply(notify(r#"{"PeersChanged":[{"ID":7,"Name":"a.","Addresses":["100.64.0.1/32"]}]}"#));
    let peer = model.peers.iter().next().unwrap();
    assert_eq!(peer.allowed_ips, ["100.64.0.1/32".parse().unwrap()]);
}

#[test]
fn a_status_without_a_self_says_nothing_about_dns() {
    let mut model = play(DELTAS, Keep::Include).0;
    let before = model.clone();
    let update = model.apply_status(Status::default());
    assert!(!update.is_news());
    assert_eq!(model, before);
    let moved = Status { backend_state: "NeedsLogin".to_owned(), ..Status::default() };
    assert_eq!(model.apply_status(moved).state, Some(State::NeedsLogin));
}

#[test]
fn dns_is_news_only_when_it_differs() {
    let mut model = play(DELTAS, Keep::Include).0;
    let same = DnsConfig { cert_domains: model.cert_domains.clone(), extra_records: model.extra_records.clone() };
    assert!(!model.apply_dns(same).is_news());
    let update = model.apply_dns(DnsConfig::default());
    assert!(update.dns_changed && update.netmap_relevant);
}

#[test]
fn merged_updates_keep_the_latest_values_and_all_flags() {
    let mut sum = Update { self_changed: true, state: Some(State::Starting), ..Update::default() };
    sum.merge(Update { dns_changed: true, ..Update::default() });
    sum.merge(Update { state: Some(State::Running), browse_url: Some("u".into()), ..Update::default() });
    let url = Some("u".to_owned());
    let expected = Update {
        self_changed: true,
        dns_changed: true,
        state: Some(State::Running),
        browse_url: url,
        ..Update::default()
    };
    assert_eq!(sum, expected);
}
