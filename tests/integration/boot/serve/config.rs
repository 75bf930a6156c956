//! The serve config: scenarios 47 to 50 of boot.md and 25 of localapi.md, and the weakness W26.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tailpod::sandbox::{Call, Fault};

use super::{FLAG, POST, Stage, advertised, http, running_with, services};
use crate::support::{SOON, Scene, free_port, get, running};

const CLEARED: &str = "serve proxy: unsetting previous config";
const APPLYING: &str = "serve proxy: applying serve config";

#[tokio::test]
async fn s47_serve_without_kubernetes() {
    let stage = Stage::alone(&http(80)).await;
    stage.scene.daemon().put_serve_config(http(9));
    let boot = stage.scene.boot();
    stage.ready(&boot).await;
    stage.posts(2, &boot).await;
    assert_eq!(stage.posted(), [json!({}), http(80)]);
    boot.said(APPLYING).await;
    assert_eq!(boot.count(CLEARED), 1);
    boot.stops().await;
    assert_eq!(stage.posted().len(), 2, "once");
}

#[tokio::test]
async fn s47_a_config_that_cannot_be_cleared_ends_containerboot() {
    let stage = Stage::alone(&http(80)).await;
    stage.scene.daemon().fail("serve-config", Fault::Status(500, r#"{"error":"updating config: no"}"#.to_owned()));
    let mut boot = stage.scene.boot();
    stage.scene.notify(running()).await;
    let ended = boot.ends(1).await;
    assert!(ended.last().starts_with("failed to unset serve config: "), "{}", ended.text());
}

#[tokio::test]
async fn s48_https_is_held_back_while_the_tailnet_has_none() {
    let stage = Stage::new(Scene::kube([("authkey", "k")]).await, Some(&http(80).to_string()));
    let boot = stage.scene.boot();
    stage.ready(&boot).await;
    stage.scene.stored(|data| data.get("https_endpoint").is_some_and(|value| value == "no-https")).await;
    stage.write(r#"{"TCP": {"443": {"HTTPS": true}}}"#);
    let line = boot.mentioned("HTTPS is not enabled for this tailnet").await;
    assert!(line.contains("hint") || line.contains("enable HTTPS certificates"), "{line}");
    assert_eq!(stage.posted(), [json!({}), http(80)]);
    // certs.md 3.2, 2: no edit is needed when it is enabled later.
    stage.scene.notify(running_with(&["n.ts.net"])).await;
    stage.posts(3, &boot).await;
    stage.scene.stored(|data| data.get("https_endpoint").is_some_and(|value| value == "n.ts.net")).await;
    boot.stops().await;
}

#[tokio::test]
async fn s49_the_certificate_domain_is_filled_in() {
    let text = r#"{"TCP": {"443": {"HTTPS": true}},
        "Web": {"${TS_CERT_DOMAIN}:443": {"Handlers": {"/": {"Text": "${TS_CERT_DOMAIN}"}}}}}"#;
    let stage = Stage::new(Scene::kube([("authkey", "k")]).await, Some(text));
    let boot = stage.scene.boot();
    // What `dns-config` answers comes from the same status.
    stage.scene.notify(running_with(&["n.ts.net", "z.ts.net"])).await;
    boot.ready().await;
    stage.posts(2, &boot).await;
    let handler = |name: &str| json!({"Handlers": {"/": {"Text": name}}});
    assert_eq!(stage.posted()[1]["Web"], json!({"n.ts.net:443": handler("n.ts.net")}));
    stage.scene.stored(|data| data.get("https_endpoint").is_some_and(|value| value == "n.ts.net")).await;
    stage.scene.daemon().set_dns(json!(["m.ts.net"]), Value::Null);
    stage.scene.daemon().notify(json!({"SelfChange": running()["SelfChange"]}));
    stage.posts(3, &boot).await;
    assert_eq!(stage.posted()[2]["Web"], json!({"m.ts.net:443": handler("m.ts.net")}));
    stage.scene.stored(|data| data.get("https_endpoint").is_some_and(|value| value == "m.ts.net")).await;
    boot.stops().await;
}

#[tokio::test]
async fn s50_an_odd_file_is_spoken_of_and_the_old_config_stays() {
    let stage = Stage::new(Scene::new().await, None);
    let mut boot = stage.scene.boot();
    stage.ready(&boot).await;
    let file = stage.scene.root().join("etc/serve/config.json");
    let skipping = format!("serve proxy: no serve config at {file:?}, skipping");
    boot.said(&skipping).await;
    stage.write("");
    boot.said("serve proxy: serve config file is empty, skipping").await;
    boot.said_times(&skipping, 2).await;
    stage.write(&http(80).to_string());
    stage.posts(2, &boot).await;
    stage.write("{\n  \"TCP\": {\"80\": {\"HTTP\": tru");
    let line = boot.mentioned("the serve config is not valid").await;
    assert!(line.contains("line 2, column 26") && line.contains("the last good config stays"), "{line}");
    boot.lives();
    assert_eq!(stage.scene.daemon().serve_config(), http(80));
    stage.write(&http(81).to_string());
    stage.posts(3, &boot).await;
    boot.stops().await;
}

/// As the kubelet mounts a ConfigMap: a new version is a link that is swapped.
#[tokio::test]
async fn s50_a_swapped_config_map_is_seen() {
    let scene = Scene::new().await;
    let volume = scene.sandbox.pod().volume("etc/serve");
    volume.set(&[("config.json", &http(80).to_string())]).unwrap();
    let scene = scene.with("TS_SERVE_CONFIG", volume.path().join("config.json"));
    let boot = scene.boot();
    scene.notify(running()).await;
    scene.daemon().await_count(POST, 2, SOON).await.unwrap_or_else(|error| panic!("{error}\n{}", boot.text()));
    for port in [81, 82] {
        volume.set(&[("config.json", &http(port).to_string())]).unwrap();
        let swapped = |call: &Call| call.json == Some(http(port));
        scene.daemon().await_call(SOON, swapped).await.unwrap_or_else(|error| panic!("{error}\n{}", boot.text()));
    }
    boot.stops().await;
}

#[tokio::test]
async fn s50_strict_tailpod_ends_with_a_broken_file() {
    let stage = Stage::new(Scene::new().await.with("TAILPOD_STRICT", "true"), Some("{"));
    let mut boot = stage.scene.tailpod();
    stage.scene.notify(running()).await;
    let ended = boot.ends(1).await;
    assert!(ended.last().starts_with("serve proxy: the serve config is not valid: line 1, column"), "{}", ended.text());
    assert_eq!(stage.scene.daemon().signals(), ["SIGTERM"]);
}

#[tokio::test]
async fn an_inline_config_is_the_variable_itself() {
    let scene = Scene::new().await.with("TS_SERVE_CONFIG", http(80).to_string());
    let boot = scene.tailpod();
    scene.notify(running()).await;
    scene.daemon().await_count(POST, 1, SOON).await.unwrap_or_else(|error| panic!("{error}\n{}", boot.text()));
    assert_eq!(scene.daemon().serve_config(), http(80));
    boot.ready().await;
    boot.stops().await;
}

/// Nobody can edit a variable while boot runs, so a bad one is an error at start.
#[tokio::test]
async fn a_bad_inline_config_ends_the_start() {
    for name in ["containerboot", "tailpod"] {
        let scene = Scene::new().await.with("TS_SERVE_CONFIG", "{\"TCP\":\n 7}");
        let args: &[&str] = if name == "tailpod" { &["boot"] } else { &[] };
        let ended = scene.start(name, args, &[]).ends(1).await;
        let line =
            "invalid configuration: TS_SERVE_CONFIG: line 2, column 2: an object was expected, and this is a number";
        assert_eq!(ended.last(), line);
        assert_eq!(scene.daemon().commands().len(), 0);
    }
}

#[tokio::test]
async fn check_reads_the_serve_config() {
    let stage = Stage::new(Scene::new().await, None);
    let check = |vars: &'static [(&str, &str)]| stage.scene.start("tailpod", &["boot", "--check"], vars);
    let ended = check(&[]).ends(1).await;
    assert!(ended.mentions("missing: nothing is served until it is there"), "{}", ended.text());
    stage.write("{\"TCP\": {\"http\": {}}}");
    let ended = check(&[]).ends(1).await;
    assert!(ended.mentions("line 1, column 10: `http` is no port from 1 to 65535"), "{}", ended.text());
    stage.write(&http(80).to_string());
    let ended = check(&[]).ends(0).await;
    assert!(ended.mentions("serve-config: what TS_SERVE_CONFIG says"), "{}", ended.text());
    let waits = "prefs: advertise those on 443 alone";
    assert!(ended.mentions(waits), "{}", ended.text());
    assert!(!check(&[("TAILPOD_ADVERTISE_WITHOUT_CERT", "true")]).ends(0).await.mentions(waits));
    let ended = check(&[("TS_SERVE_CONFIG", "{")]).ends(1).await;
    assert!(ended.mentions("TS_SERVE_CONFIG: line 1, column"), "{}", ended.text());
}

#[tokio::test]
async fn the_format_for_services_serves_and_advertises() {
    let text = r#"{"version": "0.0.1", "services": {
        "svc:web": {"endpoints": {"tcp:80": "http://localhost:8080"}},
        "svc:db": {"endpoints": {"tcp:5432": "tcp://localhost:15432"}, "advertised": false}}}"#;
    let stage = Stage::new(Scene::new().await.with("TAILPOD_WITHDRAW_WAIT", "0s"), Some(text));
    let boot = stage.scene.boot();
    stage.ready(&boot).await;
    advertised(&stage.scene, &["svc:web"]).await;
    let served = stage.scene.daemon().serve_config();
    assert_eq!(served["Services"]["svc:db"]["TCP"]["5432"]["TCPForward"], "localhost:15432");
    let web = json!({"web.test.ts.net:80": {"Handlers": {"/": {"Proxy": "http://localhost:8080"}}}});
    assert_eq!(served["Services"]["svc:web"]["Web"], web);
    boot.stops().await;
}

/// W26: as `tailpod boot` nothing is cut that goes on being served, and what is there already is left alone.
#[tokio::test]
async fn w26_a_restart_changes_only_what_differs() {
    let stage = Stage::alone(&http(80)).await;
    stage.scene.daemon().put_serve_config(http(80));
    let boot = stage.scene.tailpod();
    stage.ready(&boot).await;
    boot.said(APPLYING).await;
    stage.write(&http(81).to_string());
    stage.posts(1, &boot).await;
    assert_eq!(stage.posted(), [http(81)]);
    boot.stops().await;
}

/// certs.md 3.2, 9: a daemon that has just started gives addresses only to Services that are set.
#[tokio::test]
async fn services_of_a_former_run_are_set_again() {
    let config = services(&["svc:a"]);
    let stage = Stage::new(Scene::new().await.with(FLAG, "false"), Some(&config.to_string()));
    stage.scene.daemon().put_serve_config(config.clone());
    let boot = stage.scene.tailpod();
    stage.ready(&boot).await;
    stage.posts(2, &boot).await;
    assert_eq!(stage.posted(), [json!({}), config.clone()]);
    // A daemon that is restarted in place is another one.
    stage.scene.daemon().kill(Signal::SIGKILL);
    stage.scene.daemon().await_running(2, SOON).await.expect("restarted");
    stage.scene.notify(running()).await;
    stage.posts(4, &boot).await;
    assert_eq!(stage.posted()[2..], [json!({}), config]);
    boot.stops().await;
}

#[tokio::test]
async fn a_bad_serve_config_is_in_health_and_metrics() {
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let scene = Scene::new().await.with_all(&[
        ("TS_ENABLE_HEALTH_CHECK", "true"),
        ("TS_ENABLE_METRICS", "true"),
        ("TS_LOCAL_ADDR_PORT", &address),
    ]);
    let stage = Stage::new(scene, Some(&http(80).to_string()));
    let boot = stage.scene.tailpod();
    stage.ready(&boot).await;
    stage.posts(1, &boot).await;
    stage.write("[");
    boot.mentioned("the serve config is not valid").await;
    let ready = get(port, "/readyz").await;
    assert!(ready.status == 503 && ready.body.contains("serve-config"), "{ready:?}");
    assert_eq!(get(port, "/healthz").await.status, 200);
    let metrics = get(port, "/metrics").await.body;
    for line in ["tailscaled_health_messages", "{result=\"applied\"} 1", "{result=\"failed\"} 1"] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    stage.write(&http(80).to_string());
    let mended = async {
        while get(port, "/readyz").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, mended).await.expect("it recovers");
    boot.stops().await;
}

#[tokio::test]
async fn a_destination_excludes_a_serve_config() {
    let scene = Scene::new().await.with_all(&[
        ("TS_SERVE_CONFIG", "/x"),
        ("TS_DEST_IP", "10.0.0.1"),
        ("TS_USERSPACE", "false"),
    ]);
    let ended = scene.tailpod().ends(1).await;
    assert!(ended.mentions("TS_SERVE_CONFIG and TS_DEST_IP cannot both be set"), "{}", ended.text());
}

#[tokio::test]
async fn l25_a_locked_config_file_is_an_error_at_start() {
    let locked = json!({"version": "alpha0", "AuthKey": "k"}).to_string();
    let (scene, volume) = Scene::new().await.with_config(&[("cap-95.hujson", &locked)]);
    let stage = Stage::new(scene, Some(&services(&["svc:a"]).to_string()));
    let ended = stage.scene.boot().ends(1).await;
    assert!(ended.mentions("the tailscaled config file is locked"), "{}", ended.text());
    assert!(ended.mentions("\"Locked\": false"), "{}", ended.text());
    assert_eq!(stage.scene.daemon().commands().len(), 0);
    let open = json!({"version": "alpha0", "AuthKey": "k", "Locked": false}).to_string();
    volume.set(&[("cap-95.hujson", &open)]).unwrap();
    let boot = stage.scene.boot_with(&[("TAILPOD_WITHDRAW_WAIT", "0s")]);
    stage.ready(&boot).await;
    advertised(&stage.scene, &["svc:a"]).await;
    boot.stops().await;
}
