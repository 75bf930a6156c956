//! Services that listen on 443 only are advertised when there is a certificate for them (certs.md 7), and whose the list
//! of advertised Services is.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tailpod::sandbox::Fault;
use tailpod::sandbox::apiserver::access::{Access, Rule, Subject};
use tailpod::settings::Persona;
use tokio::time::{sleep, timeout};

use super::{POST, Stage, advertised, http, lists, running_with, services};
use crate::support::{Boot, NAMESPACE, SECRET, SOON, Scene, free_port, get, running};

const SHOP: &str = "shop.test.ts.net";
const CALL: &str = "GET cert/shop.test.ts.net";
const NOT_YET: &str = "svc:shop is not advertised yet: it listens on 443 only, and has no certificate";
const NOW: &str = "svc:shop is advertised now: there is a certificate for shop.test.ts.net";

/// One Service on 443 alone, one that has plain HTTP besides, and one without TLS.
fn mixed() -> Value {
    let web = |host: &str| json!({format!("{host}.test.ts.net:443"): {"Handlers": {"/": {"Text": "x"}}}});
    let mut config = services(&["svc:db"]);
    config["Services"]["svc:shop"] = json!({"TCP": {"443": {"HTTPS": true}}, "Web": web("shop")});
    config["Services"]["svc:both"] = json!({"TCP": {"443": {"HTTPS": true}, "80": {"HTTP": true}}, "Web": web("both")});
    config
}

/// A replica that only reads certificates, and may read the TLS Secret.
async fn reader() -> Stage {
    let scene = Scene::kube([("authkey", "k")]).await.with_all(&[
        ("TS_EXPERIMENTAL_CERT_SHARE", "true"),
        ("POD_NAME", "ingress-1"),
        ("TAILPOD_WITHDRAW_WAIT", "0s"),
    ]);
    let rules = Access::of_boot(NAMESPACE, SECRET).and(Rule::new("", &["secrets"], &["get"]).named(SHOP));
    scene.api().grant(Subject::from(scene.sandbox.user()), rules);
    Stage::new(scene, Some(&mixed().to_string()))
}

#[tokio::test]
async fn a_service_on_443_alone_waits_for_its_secret() {
    let stage = reader().await;
    let scene = &stage.scene;
    let boot = scene.boot();
    scene.notify(running_with(&[SHOP])).await;
    advertised(scene, &["svc:both", "svc:db"]).await;
    let line = boot.mentioned(NOT_YET).await;
    assert!(line.contains("there is no Secret `shop.test.ts.net`"), "{line}");
    assert!(line.contains("TAILPOD_ADVERTISE_WITHOUT_CERT=true"), "{line}");
    // As the operator makes it; and half of what it needs.
    let data = json!({"tls.crt": "", "tls.key": ""});
    let secret = json!({"metadata": {"name": SHOP}, "type": "kubernetes.io/tls", "data": data});
    scene.api().put("secrets", NAMESPACE, secret);
    scene.api().set_key(NAMESPACE, SHOP, "tls.crt", Some(b"chain"));
    scene.api().forget_requests();
    for _ in 0..2 {
        let looked = scene.api().wait_request(|request| request.path.ends_with(SHOP), SOON).await;
        looked.unwrap_or_else(|error| panic!("{error}"));
        scene.api().forget_requests();
    }
    assert_eq!(lists(scene), [json!(["svc:both", "svc:db"])], "a chain without its key is no certificate");
    scene.api().set_key(NAMESPACE, SHOP, "tls.key", Some(b"key"));
    advertised(scene, &["svc:both", "svc:db", "svc:shop"]).await;
    boot.mentioned(NOW).await;
    // What was let go stays so, and is not looked for any more.
    scene.api().delete_secret(NAMESPACE, SHOP);
    scene.api().forget_requests();
    let mut config = mixed();
    config["Services"]["svc:new"] = services(&["svc:new"])["Services"]["svc:new"].clone();
    stage.write(&config.to_string());
    advertised(scene, &["svc:both", "svc:db", "svc:new", "svc:shop"]).await;
    assert!(!scene.api().requests().iter().any(|request| request.path.ends_with(SHOP)));
    let ended = boot.stops().await;
    let said = |part: &str| ended.lines.iter().filter(|line| line.contains(part)).count();
    assert_eq!((said(NOT_YET), said(NOW)), (1, 1), "each once: {}", ended.text());
}

#[tokio::test]
async fn unless_nobody_is_to_wait_for_it() {
    let stage = reader().await;
    let boot = stage.scene.boot_with(&[("TAILPOD_ADVERTISE_WITHOUT_CERT", "true")]);
    stage.scene.notify(running_with(&[SHOP])).await;
    advertised(&stage.scene, &["svc:both", "svc:db", "svc:shop"]).await;
    assert_eq!(lists(&stage.scene).len(), 1);
    let ended = boot.stops().await;
    assert!(!ended.mentions("not advertised yet"), "{}", ended.text());
}

/// Where certificates are not shared nobody else orders them: tailscaled would for a client, and none ever comes.
#[tokio::test]
async fn a_tailscaled_that_keeps_its_certificates_is_asked_for_the_one_that_is_missing() {
    let port = free_port();
    let scene = Scene::new().await.with_all(&[
        ("TAILPOD_WITHDRAW_WAIT", "0s"),
        ("TS_LOCAL_ADDR_PORT", &format!("127.0.0.1:{port}")),
        ("TS_ENABLE_METRICS", "true"),
        ("TS_ENABLE_HEALTH_CHECK", "true"),
    ]);
    let stage = Stage::new(scene, Some(&mixed().to_string()));
    let (scene, daemon) = (&stage.scene, stage.scene.daemon());
    let boot = scene.tailpod();
    let shown = async |count: usize| {
        let is = async {
            loop {
                let (metrics, ready) = (get(port, "/metrics").await.body, get(port, "/readyz?verbose").await);
                let line = ready.body.lines().find(|line| line.starts_with("[+]services-held-back ok: svc:shop"));
                let told = line.is_some_and(|line| line.contains("waits for its certificate since 20"));
                if metrics.contains(&format!("tailpod_services_held_back {count}\n")) && told == (count > 0) {
                    return ready.status;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(SOON, is).await.unwrap_or_else(|_| panic!("{count} are not told of\n{}", boot.text()))
    };
    scene.notify(running_with(&["n.test.ts.net"])).await;
    advertised(scene, &["svc:both", "svc:db"]).await;
    let line = boot.mentioned(NOT_YET).await;
    assert!(line.contains("shop.test.ts.net: the tailnet does not allow the name"), "{line}");
    assert_eq!(daemon.count(CALL), 0);
    assert_eq!(shown(1).await, 200, "a Service that waits makes no Pod unready");
    daemon.set_dns(json!(["n.test.ts.net", SHOP]), Value::Null);
    daemon.notify(json!({"SelfChange": running()["SelfChange"]}));
    advertised(scene, &["svc:both", "svc:db", "svc:shop"]).await;
    boot.mentioned(NOW).await;
    shown(0).await;
    // What has left the file waits for nothing any more.
    let mut config = mixed();
    config["Services"]["svc:shop"]["Web"] = json!({"new.test.ts.net:443": {"Handlers": {"/": {"Text": "x"}}}});
    stage.write(&config.to_string());
    shown(1).await;
    stage.write("{}");
    shown(0).await;
    boot.stops().await;
    assert_eq!((daemon.count(CALL), daemon.count("GET cert/both.test.ts.net")), (1, 0), "what is missing, once");
    // The next run finds what tailscaled has, and nothing is held back.
    stage.write(&mixed().to_string());
    let boot = scene.tailpod();
    daemon.await_running(1, SOON).await.expect("tailscaled");
    scene.notify(running_with(&["n.test.ts.net", SHOP])).await;
    boot.ready().await;
    daemon.await_count(CALL, 2, SOON).await.expect("it is asked");
    let ended = boot.stops().await;
    assert!(!ended.mentions("not advertised yet"), "{}", ended.text());
}

/// A Service on 443 alone, whose certificate tailscaled is being asked for.
async fn ordering(scene: Scene, persona: Persona) -> (Stage, Boot) {
    let stage = Stage::new(scene.with("TAILPOD_WITHDRAW_WAIT", "0s"), Some(&mixed().to_string()));
    let (scene, daemon) = (&stage.scene, stage.scene.daemon());
    daemon.fail(&format!("cert/{SHOP}"), Fault::Hold);
    daemon.set_dns(json!([SHOP]), Value::Null);
    let boot = match persona {
        Persona::Containerboot => scene.boot(),
        Persona::Tailpod => scene.tailpod(),
    };
    scene.notify(running_with(&[SHOP])).await;
    boot.ready().await;
    daemon.await_count(CALL, 1, SOON).await.unwrap_or_else(|error| panic!("{error}\n{}", boot.text()));
    (stage, boot)
}

#[tokio::test]
async fn an_order_that_is_about_to_end_may_before_tailscaled_is_stopped() {
    for persona in [Persona::Containerboot, Persona::Tailpod] {
        let (stage, mut boot) = ordering(Scene::new().await, persona).await;
        boot.signal(Signal::SIGTERM);
        sleep(Duration::from_millis(800)).await;
        assert_eq!(stage.scene.daemon().signals(), [""; 0], "while it orders\n{}", boot.text());
        stage.scene.daemon().heal();
        let ended = boot.end_within(Duration::from_secs(2)).await;
        assert_eq!(ended.code, Some(0), "{}", ended.text());
        assert!(ended.mentions("there is a certificate"), "{}", ended.text());
    }
}

#[tokio::test]
async fn an_order_that_does_not_end_is_broken_off_and_noted() {
    for (signals, (least, most)) in [(1, (2.4, 6.0)), (2, (0.0, 2.0))] {
        let scene = Scene::new().await;
        let dir = scene.root().join("kept");
        std::fs::create_dir_all(&dir).unwrap();
        let (stage, mut boot) = ordering(scene.with("TS_STATE_DIR", &dir), Persona::Tailpod).await;
        let began = Instant::now();
        for _ in 0..signals {
            boot.signal(Signal::SIGTERM);
            sleep(Duration::from_millis(600)).await;
        }
        let ended = boot.end().await;
        assert_eq!(ended.code, Some(0));
        assert!(!ended.mentions("ERROR") && !ended.mentions("class="), "cw04: it is no failure\n{}", ended.text());
        let took = began.elapsed().as_secs_f64();
        assert!(least < took && took < most, "{signals}: {took}");
        let kept = std::fs::read_to_string(dir.join("tailpod-certs.json")).unwrap();
        assert!(kept.contains("\"broken-off\""), "{kept}");
        drop(stage);
    }
}

#[tokio::test]
async fn all_services_can_be_ours() {
    let scene = Scene::new().await.with_all(&[
        ("TS_STATE_DIR", "/x"),
        ("TAILPOD_WITHDRAW_WAIT", "0s"),
        ("TAILPOD_OWN_ALL_SERVICES", "true"),
    ]);
    let stage = Stage::new(scene, Some(&services(&["svc:ours"]).to_string()));
    let boot = stage.scene.boot();
    stage.scene.daemon().await_running(1, SOON).await.expect("tailscaled");
    stage.scene.daemon().set_prefs(json!({"AdvertiseServices": ["svc:hand"]}));
    stage.ready(&boot).await;
    advertised(&stage.scene, &["svc:ours"]).await;
    stage.write("{}");
    advertised(&stage.scene, &[]).await;
    boot.stops().await;
    assert_eq!(lists(&stage.scene), [json!(["svc:ours"]), json!([])], "nothing is put back");
}

/// certs.md 3.2, 9: `containerboot` may keep what it finds, as `tailpod boot` does.
#[tokio::test]
async fn w26_containerboot_can_keep_what_it_finds_too() {
    let stage = Stage::alone(&http(80)).await;
    stage.scene.daemon().put_serve_config(http(80));
    let boot = stage.scene.boot_with(&[("TAILPOD_KEEP_SERVE_CONFIG", "true")]);
    stage.ready(&boot).await;
    stage.write(&http(81).to_string());
    stage.posts(1, &boot).await;
    assert_eq!(stage.posted(), [http(81)]);
    let ended = boot.stops().await;
    assert!(!ended.mentions("unsetting previous config"), "{}", ended.text());
    assert_eq!(stage.scene.daemon().count(POST), 1);
}
