//! The acceptance scenarios of localapi.md 14 that go through the boot binary, under their own numbers.
//!
//! | Scenario | Test |
//! |---|---|
//! | 2, 5, 6, 7, 12 (the loop), 13, 14, 16 | `localapi::…`, against the client |
//! | 4 | `localapi::a_request_has_the_one_host_that_tailscaled_accepts` |
//! | 15 | `serve::…`, against the applier |
//! | 18, 19, 24, 25 | come with Services and the API-server proxy |

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tailpod::sandbox::{DaemonScript, Fault};

use crate::support::{Data, READY, SOON, Scene, free_port, healthy, http, login_warning, needs_login, running, state};

#[tokio::test]
async fn s01_a_daemon_that_listens_late() {
    let scene = Scene::new().await;
    scene.daemon().script(DaemonScript { listen_after: Duration::from_secs(3), ..DaemonScript::default() });
    let boot = scene.boot();
    scene.daemon().await_running(1, SOON).await.expect("listening");
    let listening = Instant::now();
    scene.daemon().await_watchers(1, SOON).await.expect("a watch");
    assert!(listening.elapsed() < Duration::from_secs(1), "{:?}", listening.elapsed());
    scene.notify(running()).await;
    boot.ready().await;
    let ended = boot.stops().await;
    assert!(!ended.text().to_lowercase().contains("error"), "{}", ended.text());
    assert!(!ended.mentions("refused"), "{}", ended.text());
}

#[tokio::test]
async fn s03_a_daemon_that_ends_before_it_listens() {
    let scene = Scene::new().await;
    scene.daemon().script(DaemonScript { exit_before_listening: Some(1), ..DaemonScript::default() });
    let mut boot = scene.boot();
    scene.daemon().await_commands(1, SOON).await.expect("tailscaled");
    scene.daemon().await_stopped(SOON).await.expect("its end");
    let dead = Instant::now();
    let ended = boot.ends(1).await;
    // 200 ms, and what a busy machine adds.
    assert!(dead.elapsed() < Duration::from_secs(1), "{:?}", dead.elapsed());
    assert!(ended.last().ends_with("exit status 1"), "{}", ended.text());
}

#[tokio::test]
async fn s08_a_state_that_is_not_known_yet() {
    let scene = Scene::new().await;
    let boot = scene.boot();
    for _ in 0..3 {
        scene.notify(json!({"State": 42, "Brand": {"new": [{}]}})).await;
    }
    scene.notify(running()).await;
    boot.ready().await;
    // In the steady state as well.
    scene.notify(json!({"State": 43, "SomethingElse": null})).await;
    scene.notify(running()).await;
    scene.notify(json!({"BrowseToURL": "https://login.example/seen"})).await;
    boot.said("To authenticate, visit: https://login.example/seen").await;
    let ended = boot.stops().await;
    assert_eq!(ended.text().matches("a state this version does not know").count(), 1, "{}", ended.text());
}

/// The mask bit for an initial netmap, and for an initial status.
const NETMAP: u64 = 1 << 3;
const STATUS: u64 = 1 << 14;

/// The releases of tests/fixtures/ipn, and the bit of the mask that belongs to their generation.
const RECORDED: [(&str, u64); 5] =
    [("1.76.6", NETMAP), ("1.86.5", NETMAP), ("1.92.5", NETMAP), ("1.98.10", NETMAP), ("1.102.5", STATUS)];

/// Boots as `program` with a daemon that sends what a real one of this release has sent; yields what is stored at the
/// end, and the bodies of the writes that took.
async fn play(program: &str, release: &str, mask: u64, session: &str) -> (Data, Vec<Value>) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/ipn");
    let stream = std::fs::read_to_string(format!("{folder}/{release}/{session}.ndjson")).expect("a recording");
    let messages: Vec<Value> = stream.lines().map(|line| serde_json::from_str(line).expect("a message")).collect();
    // One step: no login in between, after which boot looks at the bus afresh.
    let config = json!({"version": "alpha0", "AuthKey": "k"}).to_string();
    let (scene, _config) = Scene::kube([("foo", "bar")]).await.with_config(&[("cap-95.hujson", &config)]);
    scene.daemon().set_version(messages[0]["Version"].as_str().expect("a version"));
    let boot = scene.start(program, if program == "tailpod" { &["boot"] } else { &[] }, &[]);
    // The first stream shows the release; the one with the mask for it is followed.
    let right = |call: &tailpod::sandbox::Call| call.endpoint == "watch-ipn-bus" && call.mask() & mask != 0;
    scene.daemon().await_call(SOON, right).await.expect("the right mask");
    let before = scene.requests("PATCH").len();
    for message in messages {
        scene.notify(message).await;
    }
    boot.ready().await;
    scene.stored(|data| data.get("device_fqdn").is_some_and(|name| name == "pod-1.lab.ts.net.")).await;
    boot.stops().await;
    let mut data = scene.data();
    data.retain(|key, _| key.starts_with("device_"));
    let writes = scene.requests("PATCH").into_iter().skip(before).map(|request| request.body.clone()).collect();
    (data, writes)
}

fn is_the_node(data: &Data, release: &str) {
    assert_eq!(data["device_id"], "TESTCTRL00000001", "{release}");
    assert_eq!(data["device_fqdn"], "pod-1.lab.ts.net.", "{release}");
    assert_eq!(data["device_ips"], r#"["100.64.0.1","fd7a:115c:a1e0:ab12:4843:cd96:6240:1"]"#, "{release}");
}

/// A node that is known: up, and nothing is written twice.
#[tokio::test]
async fn s09_s10_s11_recorded_streams_of_three_generations() {
    for (release, mask) in RECORDED {
        for program in ["containerboot", "tailpod"] {
            let (data, writes) = play(program, release, mask, "known").await;
            is_the_node(&data, release);
            assert_eq!(writes.len(), 2, "{release}: the id once, the endpoints once: {writes:?}");
        }
    }
}

/// A whole life: a refused key, a good one, another name, down and up, an expired key, a new login. `containerboot`
/// ends when Running is left, so only the other persona sees all of it.
#[tokio::test]
async fn s09_s10_s11_recorded_lives_of_three_generations() {
    for (release, mask) in RECORDED {
        let (data, writes) = play("tailpod", release, mask, "login").await;
        is_the_node(&data, release);
        let ids = writes.iter().filter(|body| body["data"].get("device_id").is_some()).count();
        assert_eq!(ids, 1, "{release}: {writes:?}");
        assert!(writes.windows(2).all(|pair| pair[0] != pair[1]), "{release}: {writes:?}");
    }
}

#[tokio::test]
async fn s12_a_watcher_that_fell_behind() {
    let scene = Scene::kube([("authkey", "k")]).await;
    let boot = scene.boot();
    scene.notify(running()).await;
    boot.ready().await;
    let opened = scene.daemon().count("GET watch-ipn-bus");
    scene.daemon().notify(json!({"ErrMessage": "IPN bus consumer fell behind; closing watch"}));
    // What a new watcher is told first is not that.
    scene.daemon().notify(running());
    scene.daemon().close_watches();
    scene.daemon().await_count("GET watch-ipn-bus", opened + 1, SOON).await.expect("another watch");
    boot.stops().await;
}

/// The reload itself fails; the reason is found here, and the node goes on.
#[tokio::test]
async fn s17_an_empty_answer_to_a_reload() {
    let config = |key: &str| json!({"version": "alpha0", "AuthKey": key}).to_string();
    let (scene, files) = Scene::new().await.with_config(&[("cap-95.hujson", &config("old"))]);
    let boot = scene.boot();
    scene.notify(running()).await;
    boot.ready().await;
    scene.daemon().fail_next("reload-config", Fault::Status(200, String::new()));
    files.set(&[("cap-95.hujson", config("new"))]).expect("a file");
    boot.mentioned("tailscaled config watch: keeping the config in force").await;
    boot.said("tailscaled config watch: config was reloaded").await;
    assert_eq!(scene.daemon().count("POST reload-config"), 2, "tried again");
    // An invalid file is never handed to the daemon, whose answer would not say why.
    files.set(&[("cap-95.hujson", r#"{"version": "beta"}"#)]).expect("a file");
    boot.mentioned("beta").await;
    assert_eq!(scene.daemon().count("POST reload-config"), 2);
    boot.stops().await;
}

async fn one_step() -> Scene {
    let config = json!({"version": "alpha0", "AuthKey": "old"}).to_string();
    let (scene, _files) =
        Scene::kube([("_machinekey", "m"), ("_profiles", "{}"), ("_current-profile", "profile-a"), ("profile-a", "p")])
            .await
            .with_config(&[("cap-95.hujson", &config)]);
    scene
}

/// The forty seconds are in `machine::tests::trouble_on_the_way_to_control_is_not_a_dead_key`.
#[tokio::test]
async fn s20_trouble_on_the_way_to_control() {
    let scene = one_step().await;
    let boot = scene.boot();
    scene.notify(state(5)).await;
    scene.notify(login_warning("fetch control key: lookup controlplane.tailscale.com: no such host")).await;
    scene.notify(healthy()).await;
    scene.notify(running()).await;
    boot.ready().await;
    boot.stops().await;
    assert_eq!(scene.data().get("reissue_authkey"), None);
    assert_eq!(scene.daemon().count("POST disconnect-control"), 0);
}

#[tokio::test]
async fn s21_a_key_that_is_refused() {
    let scene = one_step().await;
    let boot = scene.boot();
    scene.notify(needs_login()).await;
    for _ in 0..3 {
        scene.notify(login_warning("invalid key: API key kA not valid")).await;
        scene.notify(needs_login()).await;
    }
    let stored = scene.stored(|data| data.contains_key("reissue_authkey")).await;
    assert_eq!(stored["reissue_authkey"], "old");
    boot.mentioned("Waiting for operator to provide new auth key").await;
    scene.notify(needs_login()).await;
    let ended = boot.stops().await;
    assert_eq!(scene.daemon().count("POST disconnect-control"), 1, "once");
    assert_eq!(ended.text().matches("Requesting a new auth key from operator").count(), 1);
    assert!(!ended.says(READY));
}

#[tokio::test]
async fn s22_s23_metrics_of_an_old_daemon_and_of_a_browser() {
    let port = free_port();
    let scene = Scene::new()
        .await
        .with_all(&[("TS_ENABLE_METRICS", "true"), ("TS_LOCAL_ADDR_PORT", &format!("127.0.0.1:{port}"))]);
    let boot = scene.boot();
    scene.notify(running()).await;
    boot.ready().await;
    let answer = http(port, "GET", "/metrics", "Referer: http://evil.example/\r\nCookie: a=b\r\nX-Kept: yes\r\n").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let call = scene.daemon().await_call(SOON, |call| call.endpoint == "usermetrics").await.expect("a call");
    assert_eq!((call.header("referer"), call.header("cookie")), (None, None));
    assert_eq!(call.header("host"), Some("local-tailscaled.sock"));

    scene.daemon().fail_next("usermetrics", Fault::Status(403, "usermetrics debug flag not enabled\n".to_owned()));
    let answer = http(port, "GET", "/metrics", "").await;
    assert!((500..600).contains(&answer.status), "{answer:?}");
    assert!(answer.body.contains("usermetrics debug flag not enabled"), "{answer:?}");
    boot.stops().await;
}
