//! The reducer against streams of all three generations of daemons.

use super::*;
use crate::localapi::{Peers as Keep, framer::Framer, keep};

/// The recorded releases, oldest first.
const RELEASES: [&str; 5] = ["1.76.6", "1.86.5", "1.92.5", "1.98.10", "1.102.5"];
const OLDEST: &str = RELEASES[0];
const BOTH: &str = RELEASES[3];
const DELTAS: &str = RELEASES[4];

/// A recording of tests/fixtures/ipn; empty if the release has none of that name.
fn recorded(release: &str, name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/ipn");
    std::fs::read_to_string(format!("{folder}/{release}/{name}")).unwrap_or_default()
}

/// What a watcher that wants peers was sent. Releases without deltas send the same to all.
fn with_peers(release: &str, session: &str) -> String {
    let peers = recorded(release, &format!("{session}.peers.ndjson"));
    if peers.is_empty() { recorded(release, &format!("{session}.ndjson")) } else { peers }
}

/// The model at the end of a session, after the DNS refresh that deltas call for.
fn end_of(release: &str, session: &str) -> Model {
    let (mut model, updates) = play(&with_peers(release, session), Keep::Include);
    if updates.iter().any(|update| update.wants_dns_refresh) {
        model.apply_dns(serde_json::from_str(&recorded(release, "dns-config.json")).unwrap());
    }
    model
}

/// States as they follow each other.
fn course(updates: &[Update]) -> Vec<State> {
    let mut states: Vec<_> = updates.iter().filter_map(|update| update.state).collect();
    states.dedup();
    states
}

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
    let (model, updates) = play(&with_peers(OLDEST, "login"), Keep::Include);
    let round = [State::NeedsLogin, State::Starting, State::Running];
    let interrupted = [State::Stopped, State::Starting, State::Running];
    assert_eq!(course(&updates), [round, interrupted, round].concat());
    let device = model.self_device.clone().unwrap();
    assert_eq!((device.stable_id.as_str(), device.name.as_str()), ("TESTCTRL00000001", "pod-1.lab.ts.net."));
    let ips: Vec<_> = device.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(ips, ["100.64.0.1", "fd7a:115c:a1e0:ab12:4843:cd96:6240:1"]);
    assert_eq!((device.expired, device.key_expiry), (false, None));
    assert_eq!(model.cert_domains, ["pod-0.lab.ts.net"]);
    assert_eq!(model.peers.len(), 2);
}

/// What `boot` tells a dead key by, in every release.
#[test]
fn a_refused_key_is_told_and_its_end_too() {
    for release in RELEASES {
        let (model, updates) = play(&recorded(release, "login.ndjson"), Keep::Omit);
        let refused = updates.iter().position(|update| {
            let warning = update.health.as_ref().and_then(|health| health.warnings.get("login-state"));
            warning.is_some_and(|warning| warning.args["error"] == "invalid key: API key dead not valid")
        });
        let running = updates.iter().position(|update| update.state == Some(State::Running));
        assert!(refused.unwrap() < running.unwrap(), "{release}");
        assert!(!model.health.unwrap().warnings.contains_key("login-state"), "{release}");
    }
}

/// The node key's expiry is a state first; the node itself is seen as expired where the daemon still shows it.
#[test]
fn an_expired_node_key_needs_a_login() {
    for release in RELEASES {
        let (mut model, mut states) = (Model::default(), Vec::new());
        for line in with_peers(release, "login").lines() {
            let update = model.apply(notify(line));
            if update.state == Some(State::NeedsLogin) {
                states.push(model.self_device.as_ref().map(|device| device.expired || device.key_expiry.is_some()));
            }
        }
        assert_eq!((states.first(), states.last()), (Some(&None), Some(&Some(true))), "{release}");
    }
}

#[test]
fn scenario_10_netmap_and_self_change_in_one_message_are_one_change() {
    let (_, updates) = play(&with_peers(BOTH, "login"), Keep::Include);
    assert!(updates.iter().all(|update| !update.wants_dns_refresh), "the netmap has DNS already");
    let (_, known) = play(&with_peers(BOTH, "known"), Keep::Include);
    let changes: Vec<_> = known.iter().filter(|update| update.self_changed).collect();
    assert_eq!(changes.len(), 1, "repeated netmaps are none");
}

#[test]
fn scenario_11_all_generations_end_in_the_same_model() {
    for session in ["login", "known"] {
        let expected = node_only(end_of(OLDEST, session));
        for release in RELEASES {
            assert_eq!(node_only(end_of(release, session)), expected, "{release} {session}");
        }
    }
    assert_eq!((end_of(OLDEST, "login").peers.len(), end_of(OLDEST, "known").peers.len()), (2, 1));
    let (_, updates) = play(&with_peers(DELTAS, "known"), Keep::Include);
    assert!(updates[0].resynced && updates[0].netmap_relevant);
    assert!(updates[0].self_changed && updates[1..].iter().all(|update| !update.self_changed), "it had it all");
    let (_, updates) = play(&with_peers(DELTAS, "login"), Keep::Include);
    assert!(updates.iter().any(|update| update.wants_dns_refresh));
}

#[test]
fn without_peers_the_same_model_but_for_them() {
    for (release, session) in RELEASES.iter().flat_map(|release| [(release, "login"), (release, "known")]) {
        let with = Model { peers: Arc::default(), ..play(&with_peers(release, session), Keep::Include).0 };
        let (without, updates) = play(&recorded(release, &format!("{session}.ndjson")), Keep::Omit);
        assert_eq!(node_only(without), node_only(with), "{release} {session}");
        assert!(updates.iter().all(|update| !update.peers_changed), "{release} {session}");
    }
}

#[test]
fn a_login_url_is_gone_when_the_login_is_over() {
    let mut model = Model::default();
    let update = model.apply(notify(r#"{"State":2,"BrowseToURL":"https://login.tailscale.com/a/0123456789ab"}"#));
    assert_eq!(update.browse_url.as_deref(), Some("https://login.tailscale.com/a/0123456789ab"));
    assert_eq!(model.browse_url, update.browse_url);
    model.apply(notify(r#"{"State":5}"#));
    assert_eq!(model.browse_url, None);
}

#[test]
fn a_self_without_id_is_no_node_and_a_snapshot_replaces_everything() {
    let mut model = play(&with_peers(DELTAS, "known"), Keep::Include).0;
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
    let mut model = play(&with_peers(DELTAS, "known"), Keep::Include).0;
    let before = model.clone();
    let update = model.apply_status(Status::default());
    assert!(!update.is_news());
    assert_eq!(model, before);
    let moved = Status { backend_state: "NeedsLogin".to_owned(), ..Status::default() };
    assert_eq!(model.apply_status(moved).state, Some(State::NeedsLogin));
}

#[test]
fn dns_is_news_only_when_it_differs() {
    let mut model = play(&with_peers(DELTAS, "known"), Keep::Include).0;
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
