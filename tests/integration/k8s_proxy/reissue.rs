//! A key that does not work any more: asked for again through the state Secret.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;

use super::{KEY, NEW_KEY, Stage, messages};
use crate::support::{Boot, login_warning, needs_login};

/// A registered node.
async fn registered() -> Stage {
    Stage::new([
        ("_machinekey", "m"),
        ("_current-profile", "profile-abc1"),
        ("_profiles", "{}"),
        ("profile-abc1", "p"),
        ("device_id", "oldID"),
        ("device_fqdn", "old.test.ts.net."),
        ("device_ips", "[]"),
        ("foo", "bar"),
    ])
    .await
}

/// Everything from the request to the end.
async fn is_reissued(stage: &Stage, mut proxy: Boot) {
    stage.called("POST", "disconnect-control").await;
    proxy.mentioned("Waiting for operator to provide new auth key (max wait: 10m0s)").await;
    // The same key again is no answer.
    stage.configure(&json!({"hostname": "other"}));
    stage.configure(&json!({"authKey": NEW_KEY}));
    let ended = proxy.ends(0).await;
    let said = messages(&ended.text());
    assert!(said.iter().any(|line| line == "Successfully received new auth key, restarting to apply configuration"));
    assert!(!ended.mentions("hush"), "{}", ended.text());
    let left = stage.scene.data();
    let keys: Vec<_> = left.keys().map(String::as_str).collect();
    assert_eq!(keys, ["foo", "pod_uid", "tailscale_capver"]);
}

#[tokio::test]
async fn s21_a_refused_key_is_reissued() {
    let stage = registered().await;
    let proxy = stage.start();
    stage.scene.notify(login_warning("invalid key: API key kOLD not valid")).await;
    proxy.mentioned("Auth key failed to authenticate (invalid key: API key kOLD not valid)").await;
    let stored = stage.scene.stored(|data| data.contains_key("reissue_authkey")).await;
    assert_eq!(stored["reissue_authkey"], KEY);
    assert_eq!(stored["_machinekey"], "m", "the identity stays until there is a new key");
    is_reissued(&stage, proxy).await;
}

/// What the operator is told to replace is what was tried, not what came meanwhile and may be good.
#[tokio::test]
async fn the_key_that_failed_is_named_when_the_config_has_another_by_then() {
    let stage = registered().await;
    let mut proxy = stage.start();
    assert_eq!(stage.called("POST", "start").await.json.unwrap()["AuthKey"], KEY);
    stage.configure(&json!({"authKey": NEW_KEY}));
    proxy.mentioned("config reloaded").await;
    stage.scene.notify(login_warning("invalid key: API key kOLD not valid")).await;
    let ended = proxy.ends(0).await;
    assert!(ended.mentions("Successfully received new auth key"), "{}", ended.text());
    let patches = stage.scene.requests("PATCH");
    let markers: Vec<_> =
        patches.iter().filter_map(|request| request.body["data"]["reissue_authkey"].as_str()).collect();
    assert_eq!(markers, [BASE64.encode(KEY)]);
}

#[tokio::test]
async fn s21_a_node_that_is_up_and_needs_a_login_is_reissued() {
    let stage = registered().await;
    let proxy = stage.up().await;
    stage.scene.stored(|data| data["device_id"] == "myID").await;
    stage.scene.daemon().notify(needs_login());
    proxy.mentioned("Auth key missing or invalid (NeedsLogin state)").await;
    is_reissued(&stage, proxy).await;
}

#[tokio::test]
async fn a_marker_stays_while_the_config_has_the_same_key() {
    let stage = Stage::new([("reissue_authkey", KEY)]).await;
    let proxy = stage.start();
    stage.scene.stored(|data| data.contains_key("pod_uid")).await;
    assert_eq!(stage.scene.data()["reissue_authkey"], KEY);
    drop(proxy);
}

#[tokio::test]
async fn without_a_state_secret_a_refused_key_ends_it() {
    let stage = Stage::new([]).await;
    stage.configure(&json!({"state": "mem:"}));
    let mut proxy = stage.start();
    stage.scene.notify(login_warning("invalid key: API key kOLD not valid")).await;
    let ended = proxy.ends(1).await;
    let said = messages(&ended.text());
    assert_eq!(said.last().unwrap(), "failed to start the node: invalid key: API key kOLD not valid");
    assert!(stage.scene.data().is_empty());
}

#[tokio::test]
async fn a_stop_while_waiting_for_a_key_is_a_stop() {
    let stage = registered().await;
    let proxy = stage.start();
    stage.scene.notify(login_warning("key expired")).await;
    proxy.mentioned("Waiting for operator to provide new auth key").await;
    proxy.stops().await;
    assert_eq!(stage.scene.data()["reissue_authkey"], KEY);
    assert_eq!(stage.scene.data()["_machinekey"], "m");
}

#[tokio::test]
async fn a_key_that_never_comes_ends_it() {
    let stage = registered().await;
    let mut proxy = stage.start_with(&[("TAILPOD_REISSUE_TIMEOUT", "100ms")]);
    stage.scene.notify(login_warning("key expired")).await;
    let ended = proxy.ends(1).await;
    let said = messages(&ended.text());
    assert!(said.last().unwrap().starts_with("failed to get a reissued authkey: "), "{said:#?}");
    assert_eq!(stage.scene.data()["_machinekey"], "m", "the identity stays");
}
