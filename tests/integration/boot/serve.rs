//! What the node serves and advertises: scenarios 47 to 52 of boot.md, 27 to 29 of certs.md (`c…`) and 25 of
//! localapi.md (`l…`), and the weaknesses W3, W4, W26 and W30.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tailpod::sandbox::{Call, Fault};

use crate::support::{Boot, SOON, Scene, free_port, get, running, running_as};

const CLEARED: &str = "serve proxy: unsetting previous config";
const APPLYING: &str = "serve proxy: applying serve config";
const POST: &str = "POST serve-config";
const PATCH: &str = "PATCH prefs";
const FLAG: &str = "TS_EXPERIMENTAL_SERVICE_AUTO_ADVERTISEMENT";

/// What a port with plain HTTP looks like.
fn http(port: u16) -> Value {
    json!({"TCP": {port.to_string(): {"HTTP": true}}})
}

/// A config with these Services, forwarding.
fn services(names: &[&str]) -> Value {
    let entry = |name: &&str| ((*name).to_owned(), json!({"TCP": {"80": {"TCPForward": "localhost:1"}}}));
    json!({"Services": names.iter().map(entry).collect::<serde_json::Map<_, _>>()})
}

/// `RUN` with certificate domains.
fn running_with(cert_domains: &[&str]) -> Value {
    let mut message = running();
    message["InitialStatus"]["CertDomains"] = json!(cert_domains);
    message
}

/// A Pod with a serve config in a file that is there, or not.
struct Stage {
    scene: Scene,
}

impl Stage {
    fn new(scene: Scene, config: Option<&str>) -> Self {
        let file = scene.root().join("etc/serve/config.json");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        let stage = Self { scene: scene.with("TS_SERVE_CONFIG", file) };
        if let Some(text) = config {
            stage.write(text);
        }
        stage
    }

    async fn alone(config: &Value) -> Self {
        Self::new(Scene::new().await, Some(&config.to_string()))
    }

    fn write(&self, text: &str) {
        std::fs::write(self.scene.root().join("etc/serve/config.json"), text).unwrap();
    }

    async fn posts(&self, count: usize, boot: &Boot) {
        let posted = self.scene.daemon().await_count(POST, count, SOON).await;
        posted.unwrap_or_else(|error| panic!("{error}\n{}", boot.text()));
    }

    fn posted(&self) -> Vec<Value> {
        let calls = self.scene.daemon().calls().into_iter().filter(|call| call.what() == POST);
        calls.map(|call| call.json.unwrap_or_default()).collect()
    }

    async fn ready(&self, boot: &Boot) {
        self.scene.notify(running()).await;
        boot.ready().await;
    }
}

/// The lists of advertised Services that were asked for, in order.
fn lists(scene: &Scene) -> Vec<Value> {
    let calls =
        scene.daemon().calls().into_iter().filter_map(|call: Call| call.json.filter(|_| call.endpoint == "prefs"));
    calls.filter_map(|json| json.get("AdvertiseServices").cloned()).collect()
}

/// Waits until the node advertises exactly these.
async fn advertised(scene: &Scene, names: &[&str]) {
    let wanted = json!(names);
    let list = |call: &Call| call.json.as_ref().is_some_and(|json| json["AdvertiseServices"] == wanted);
    scene.daemon().await_call(SOON, list).await.unwrap_or_else(|error| panic!("{names:?}: {error}"));
}

// === Serve config ===

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

// === Services ===

#[tokio::test]
async fn s51_services_are_advertised_once_and_nothing_waits_for_it() {
    let scene = Scene::new().await.with("TAILPOD_WITHDRAW_WAIT", "0s");
    scene.daemon().put_serve_config(services(&["svc:b", "svc:a"]));
    let boot = scene.boot();
    let begin = Instant::now();
    scene.notify(running()).await;
    boot.ready().await;
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    advertised(&scene, &["svc:a", "svc:b"]).await;
    let looks = scene.daemon().count("GET serve-config");
    scene.daemon().notify(running_as("myID", "test-node.test.ts.net.", &["100.64.0.2"]));
    scene.daemon().await_count("GET serve-config", looks + 1, SOON).await.expect("another look");
    assert_eq!(lists(&scene), [json!(["svc:a", "svc:b"])], "once");
    boot.stops().await;
}

#[tokio::test]
async fn s51_unless_that_is_somebody_elses() {
    let scene = Scene::new().await.with(FLAG, "false");
    scene.daemon().put_serve_config(services(&["svc:a"]));
    let boot = scene.boot();
    scene.notify(running()).await;
    boot.ready().await;
    scene.notify(running()).await;
    boot.stops().await;
    assert_eq!(lists(&scene), [Value::Null; 0]);
}

/// Also W30: the node serves nothing any more, so all Services are withdrawn; the sandbox's state is in memory, so there
/// is nothing to remember.
#[tokio::test]
async fn s52_services_are_withdrawn_on_stop() {
    let scene = Scene::new().await.with("TAILPOD_WITHDRAW_WAIT", "300ms");
    let mut boot = scene.boot();
    scene.notify(running()).await;
    boot.ready().await;
    scene.daemon().set_prefs(json!({"AdvertiseServices": ["svc:a"]}));
    let begin = Instant::now();
    boot.signal(Signal::SIGTERM);
    advertised(&scene, &[]).await;
    assert_eq!(scene.daemon().signals(), [""; 0], "peers are given time");
    let ended = boot.ends(0).await;
    assert!(begin.elapsed() >= Duration::from_millis(300), "{:?}", begin.elapsed());
    assert!(ended.says("unadvertising services: [\"svc:a\"]"), "{}", ended.text());
    assert_eq!((lists(&scene), scene.daemon().signals()), (vec![json!([])], vec!["SIGTERM".to_owned()]));
}

/// W3: however many netmaps come, the list is changed once, and what others put there stays.
#[tokio::test]
async fn w03_a_busy_tailnet_changes_nothing() {
    let stage =
        Stage::new(Scene::new().await.with("TAILPOD_WITHDRAW_WAIT", "0s"), Some(&services(&["svc:a"]).to_string()));
    let boot = stage.scene.boot();
    stage.scene.daemon().await_running(1, SOON).await.expect("tailscaled");
    stage.scene.daemon().set_prefs(json!({"AdvertiseServices": ["svc:hand"]}));
    stage.ready(&boot).await;
    advertised(&stage.scene, &["svc:a", "svc:hand"]).await;
    let begin = Instant::now();
    for number in 0..300 {
        let mut message = running();
        message["SelfChange"]["Addresses"] = json!([format!("100.64.1.{}/32", number % 200)]);
        stage.scene.daemon().notify(message);
    }
    // The loop keeps up: a signal sent now is answered now.
    let ended = boot.stops().await;
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    assert_eq!(lists(&stage.scene)[0], json!(["svc:a", "svc:hand"]));
    assert_eq!(lists(&stage.scene).len(), 2, "one to advertise, one to withdraw: {}", ended.text());
}

/// W4: what comes into the file is advertised without any other event, and what leaves it is withdrawn.
#[tokio::test]
async fn w04_an_edit_is_advertised_and_what_vanished_is_withdrawn() {
    let stage = Stage::new(
        Scene::new().await.with("TAILPOD_WITHDRAW_WAIT", "0s"),
        Some(&services(&["svc:a", "svc:b"]).to_string()),
    );
    let boot = stage.scene.boot();
    stage.scene.daemon().await_running(1, SOON).await.expect("tailscaled");
    stage.scene.daemon().set_prefs(json!({"AdvertiseServices": ["svc:hand"]}));
    stage.ready(&boot).await;
    advertised(&stage.scene, &["svc:a", "svc:b", "svc:hand"]).await;
    stage.write(&services(&["svc:b", "svc:c"]).to_string());
    advertised(&stage.scene, &["svc:b", "svc:c", "svc:hand"]).await;
    stage.write("{}");
    advertised(&stage.scene, &["svc:hand"]).await;
    boot.stops().await;
}

/// W4: a Service that a run before this one served and that the file no longer names.
#[tokio::test]
async fn w04_leftovers_of_a_run_that_was_killed_are_withdrawn() {
    for name in ["containerboot", "tailpod"] {
        let stage = Stage::new(
            Scene::new().await.with("TAILPOD_WITHDRAW_WAIT", "0s"),
            Some(&services(&["svc:new"]).to_string()),
        );
        stage.scene.daemon().put_serve_config(services(&["svc:old"]));
        let args: &[&str] = if name == "tailpod" { &["boot"] } else { &[] };
        let boot = stage.scene.start(name, args, &[]);
        stage.scene.daemon().await_running(1, SOON).await.expect("tailscaled");
        stage.scene.daemon().set_prefs(json!({"AdvertiseServices": ["svc:hand", "svc:old"]}));
        stage.ready(&boot).await;
        advertised(&stage.scene, &["svc:hand", "svc:new"]).await;
        boot.stops().await;
    }
}

/// W30: what was advertised by hand is withdrawn too while the node is away, and remembered for its return: put back when
/// control no longer hears of it.
#[tokio::test]
async fn w30_services_advertised_by_hand_survive_a_restart() {
    let scene = Scene::new().await.with_all(&[("TS_STATE_DIR", "/x"), ("TAILPOD_WITHDRAW_WAIT", "100ms")]);
    let stage = Stage::new(scene, Some(&services(&["svc:ours"]).to_string()));
    let boot = stage.scene.boot();
    stage.scene.daemon().await_running(1, SOON).await.expect("tailscaled");
    stage.scene.daemon().set_prefs(json!({"AdvertiseServices": ["svc:hand"]}));
    stage.ready(&boot).await;
    advertised(&stage.scene, &["svc:hand", "svc:ours"]).await;
    boot.stops().await;
    let calls: Vec<String> = stage.scene.daemon().calls().iter().map(Call::what).collect();
    let last: Vec<_> = calls.iter().map(String::as_str).filter(|call| call.starts_with('P')).collect();
    assert_eq!(last[last.len() - 3..], [PATCH, "POST disconnect-control", PATCH]);
    assert_eq!(lists(&stage.scene)[1..], [json!([]), json!(["svc:hand"])]);
}

#[tokio::test]
async fn c27_two_services_are_withdrawn_before_the_daemon_ends() {
    let stage = Stage::new(Scene::new().await, Some(&services(&["svc:a", "svc:b"]).to_string()));
    let mut boot = stage.scene.boot_with(&[("TAILPOD_WITHDRAW_WAIT", "1s")]);
    stage.ready(&boot).await;
    advertised(&stage.scene, &["svc:a", "svc:b"]).await;
    boot.signal(Signal::SIGTERM);
    boot.mentioned("serving on for 1s while peers fail over").await;
    assert_eq!(stage.scene.daemon().prefs()["AdvertiseServices"], json!([]));
    let begin = Instant::now();
    stage.scene.daemon().await_signals(1, SOON).await.expect("SIGTERM");
    assert!(begin.elapsed() > Duration::from_millis(700), "{:?}", begin.elapsed());
    let ended = boot.ends(0).await;
    assert!(ended.says("unadvertising services: [\"svc:a\", \"svc:b\"]"), "{}", ended.text());
}

/// The default wait is upstream's, and cannot be longer: with the daemon's own end it stays below Kubernetes' 30 s.
#[tokio::test]
async fn c27_the_wait_is_20_seconds_at_most_and_a_second_signal_ends_it() {
    for vars in [&[][..], &[("TAILPOD_WITHDRAW_WAIT", "1h")]] {
        let stage = Stage::new(Scene::new().await, Some(&services(&["svc:a"]).to_string()));
        let mut boot = stage.scene.boot_with(vars);
        stage.ready(&boot).await;
        advertised(&stage.scene, &["svc:a"]).await;
        boot.signal(Signal::SIGTERM);
        boot.mentioned("serving on for 20s while peers fail over").await;
        boot.signal(Signal::SIGTERM);
        let ended = boot.ends(0).await;
        assert!(ended.mentions("second signal (SIGTERM): not waiting any longer"), "{}", ended.text());
    }
}

#[tokio::test]
async fn c28_nothing_advertised_nothing_waited_for() {
    let scene = Scene::new().await;
    let boot = scene.boot();
    scene.notify(running()).await;
    boot.ready().await;
    let begin = Instant::now();
    let ended = boot.stops().await;
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    assert!(!ended.mentions("serving on for") && lists(&scene).is_empty(), "{}", ended.text());
}

#[tokio::test]
async fn c29_a_config_file_that_advertises_is_not_interfered_with() {
    let file =
        json!({"version": "alpha0", "AuthKey": "k", "Locked": false, "AdvertiseServices": ["svc:x"]}).to_string();
    for (vars, wanted) in [(&[][..], vec![]), (&[(FLAG, "true")], vec![json!(["svc:a"])])] {
        let scene = Scene::kube([("authkey", "k")]).await.with("TAILPOD_WITHDRAW_WAIT", "0s");
        let (scene, _volume) = scene.with_config(&[("cap-95.hujson", &file)]);
        let stage = Stage::new(scene, Some(&services(&["svc:a"]).to_string()));
        let mut boot = stage.scene.boot_with(vars);
        stage.ready(&boot).await;
        stage.posts(2, &boot).await;
        if !wanted.is_empty() {
            advertised(&stage.scene, &["svc:a"]).await;
        }
        boot.lives();
        assert_eq!(lists(&stage.scene), wanted);
        boot.stops().await;
    }
}

/// A daemon that refuses is asked again, and says so once.
#[tokio::test]
async fn a_list_that_cannot_be_changed_is_tried_again() {
    let stage =
        Stage::new(Scene::new().await.with("TAILPOD_WITHDRAW_WAIT", "0s"), Some(&services(&["svc:a"]).to_string()));
    let boot = stage.scene.boot();
    stage.scene.daemon().await_running(1, SOON).await.expect("tailscaled");
    stage.scene.daemon().fail_next("prefs", Fault::Status(500, "state store is full\n".to_owned()));
    stage.ready(&boot).await;
    boot.mentioned("the node's Services are not advertised as they should be, trying on: ").await;
    advertised(&stage.scene, &["svc:a"]).await;
    boot.stops().await;
}
