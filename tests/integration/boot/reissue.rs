//! Auth key reissue: a config file's key has failed, a new one is asked for through the Secret, and the old identity
//! goes.

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tailpod::authkey::{self, KeySource, WaitError};
use tailpod::sandbox::{Fault, Volume};
use tailpod::secret::Secret;
use tailpod::settings::conffile;
use tokio_util::sync::CancellationToken;

use super::onestep::config;
use crate::support::{Boot, CAP, SOON, Scene, login_warning, needs_login, running};

const SUCCESS: &str = "Successfully received new auth key, restarting to apply configuration";
const WAITING: &str = "Waiting for operator to provide new auth key (max wait: 10m0s)";

/// A Pod with a registered node whose config has the key `old`.
async fn registered() -> (Scene, Volume) {
    let scene = Scene::kube([
        ("_machinekey", "m"),
        ("_current-profile", "profile-abc1"),
        ("_profiles", "{}"),
        ("profile-abc1", "p"),
        ("_serve_abc1", "s"),
        ("device_id", "oldID"),
        ("device_fqdn", "old.test.ts.net."),
        ("device_ips", "[]"),
        ("foo", "bar"),
    ])
    .await;
    scene.with_config(&[("cap-95.hujson", config("old"))].each_ref().map(|(name, text)| (*name, text.as_str())))
}

fn renew(files: &Volume, key: &str) {
    files.set(&[("cap-95.hujson", config(key))]).expect("a file");
}

/// Everything from the request on.
async fn is_reissued(scene: &Scene, mut boot: Boot, renew: impl FnOnce()) {
    let stored = scene.stored(|data| data.contains_key("reissue_authkey")).await;
    assert_eq!(stored["reissue_authkey"], "old");
    assert_eq!(stored["_machinekey"], "m", "the identity stays until there is a new key");
    assert_eq!(scene.daemon().count("POST disconnect-control"), 1);
    boot.said("Requesting a new auth key from operator").await;
    boot.said(WAITING).await;
    renew();
    boot.mentioned("New auth key received from operator after ").await;
    let ended = boot.ends(0).await;
    assert_eq!(ended.last(), SUCCESS);
    let left = scene.data();
    let keys: Vec<_> = left.keys().map(String::as_str).collect();
    assert_eq!(keys, ["_serve_abc1", "foo", "tailscale_capver"]);
    scene.daemon().await_stopped(SOON).await.expect("stopped");
}

#[tokio::test]
async fn s33_stale_keys_are_reset() {
    let stale = [
        ("reissue_authkey", "old"),
        ("https_endpoint", "x"),
        ("egress-services", "x"),
        ("ingress-config.json", "x"),
        ("device_id", "x"),
        ("foo", "bar"),
    ];
    for (key, kept) in [(Some("new"), false), (Some("old"), true), (None, true)] {
        let text = key.map_or(r#"{"version": "alpha0"}"#.to_owned(), config);
        let (scene, _config) = Scene::kube(stale).await.with_config(&[("cap-95.hujson", &text)]);
        let boot = scene.boot();
        scene.daemon().await_commands(1, SOON).await.expect("tailscaled");
        let mut expected = vec![("device_id", "x"), ("foo", "bar")];
        if kept {
            expected.push(("reissue_authkey", "old"));
        }
        let cap = CAP.to_string();
        expected.push(("tailscale_capver", &cap));
        let stored = scene.data();
        let stored: Vec<_> = stored.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(stored, expected, "the config's key is {key:?}");
        scene.notify(running()).await;
        boot.ready().await;
        boot.stops().await;
    }
}

#[tokio::test]
async fn s38_reissue_on_needs_login() {
    let (scene, files) = registered().await;
    let boot = scene.boot();
    scene.notify(needs_login()).await;
    boot.said(
        "Auth key missing or invalid (NeedsLogin state), disconnecting from control and requesting new key from operator",
    )
    .await;
    boot.said("auth key reissue: watching for config changes via fsnotify").await;
    is_reissued(&scene, boot, || renew(&files, "new")).await;
}

#[tokio::test]
async fn s39_reissue_on_login_state_warning() {
    let (scene, files) = registered().await;
    let boot = scene.boot();
    scene.notify(login_warning("")).await;
    boot.said(
        "Auth key failed to authenticate (may be expired or single-use), disconnecting from control and requesting new \
         key from operator",
    )
    .await;
    is_reissued(&scene, boot, || renew(&files, "new")).await;
}

/// The file is a link to somewhere else: nothing happens in the directory that is watched.
#[tokio::test]
async fn s40_reissue_by_polling() {
    let (scene, files) = registered().await;
    let elsewhere = scene.sandbox.pod().write("elsewhere/config", config("old")).expect("a file");
    let link = files.path().join("cap-95.hujson");
    std::fs::remove_file(&link).expect("removed");
    std::os::unix::fs::symlink(&elsewhere, &link).expect("a link");
    let boot = scene.boot();
    scene.notify(needs_login()).await;
    is_reissued(&scene, boot, || std::fs::write(&elsewhere, config("new")).expect("a file")).await;
}

#[tokio::test]
async fn s41_reissue_timeout() {
    let (scene, _files) = registered().await;
    let before = scene.data();
    let mut boot = scene.boot_with(&[("TAILPOD_REISSUE_TIMEOUT", "1s")]);
    scene.notify(needs_login()).await;
    let ended = boot.ends(1).await;
    assert_eq!(
        ended.last(),
        "failed to get a reissued authkey: failed to receive new auth key: timeout waiting for auth key reissue after 1s"
    );
    let after = scene.data();
    assert_eq!(after["reissue_authkey"], "old", "the operator still has to act");
    for (key, value) in before {
        assert_eq!(after.get(&key), Some(&value), "{key}");
    }
}

/// The ten minutes themselves, in a moment.
#[tokio::test(start_paused = true)]
async fn s41_reissue_timeout_of_ten_minutes() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("cap-95.hujson");
    std::fs::write(&path, config("old")).expect("a file");
    let source = KeySource::File { path, read: Arc::new(conffile::auth_key_from) };
    let (old, stop) = (Secret::new("old".to_owned()), CancellationToken::new());
    let before = tokio::time::Instant::now();
    let error = authkey::wait(&source, &old, Duration::from_secs(600), &stop, &mut |_| {}).await.expect_err("no key");
    assert!(matches!(error, WaitError::Timeout { .. }));
    assert_eq!(error.to_string(), "timeout waiting for auth key reissue after 10m0s");
    assert_eq!(before.elapsed().as_secs(), 600);
}

#[tokio::test]
async fn s41_stop_during_the_wait() {
    let (scene, _files) = registered().await;
    let boot = scene.boot();
    scene.notify(needs_login()).await;
    boot.said(WAITING).await;
    let ended = boot.stops().await;
    assert!(!ended.mentions("timeout waiting"), "{}", ended.text());
    assert_eq!(scene.data()["_machinekey"], "m");
    assert_eq!(scene.data()["reissue_authkey"], "old");
}

/// boot.md 6.1: without the disconnect the operator's deletion of the device would meet a node that registers again.
#[tokio::test]
async fn reissue_ends_when_control_cannot_be_left() {
    let (scene, _files) = registered().await;
    scene.daemon().fail("disconnect-control", Fault::Status(500, "no\n".to_owned()));
    let mut boot = scene.boot();
    scene.notify(needs_login()).await;
    let ended = boot.ends(1).await;
    assert!(
        ended.last().starts_with("failed to get a reissued authkey: error disconnecting from control: "),
        "{}",
        ended.text()
    );
    assert_eq!(scene.data().get("reissue_authkey"), None);
}

/// The next start has the new key, no identity and no marker.
#[tokio::test]
async fn the_start_after_a_reissue_is_a_fresh_node() {
    let (scene, files) = registered().await;
    let boot = scene.boot();
    scene.notify(needs_login()).await;
    is_reissued(&scene, boot, || renew(&files, "new")).await;
    scene.daemon().forget_last_message();
    let boot = scene.boot();
    scene.notify(running()).await;
    boot.ready().await;
    let stored = scene.data();
    assert_eq!(stored["device_id"], "myID");
    assert_eq!(stored.get("reissue_authkey"), None);
    boot.stops().await;
}

/// A signal while the identity is being cleared does not leave half of it.
#[tokio::test]
async fn s41_a_second_signal_does_not_matter() {
    let (scene, _files) = registered().await;
    let mut boot = scene.boot();
    scene.notify(needs_login()).await;
    boot.said(WAITING).await;
    boot.signal(Signal::SIGTERM);
    boot.signal(Signal::SIGINT);
    boot.ends(0).await;
    assert_ne!(scene.requests("PATCH").last().expect("a patch").body, Value::Null);
}
