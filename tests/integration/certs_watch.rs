//! `certs watch`: scenarios 25 and 26 of certs.md 13 (`c…`), weaknesses of 12 (`w…`), and what the command says.

use std::path::PathBuf;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tailpod::sandbox::Call;

use crate::support::{Boot, SOON, Scene, running};

const POST: &str = "POST serve-config";

/// A tailscaled that somebody else keeps, and a file beside it.
struct Stage {
    scene: Scene,
    file: PathBuf,
}

impl Stage {
    async fn new(text: &str) -> Self {
        let scene = Scene::new().await;
        let file = scene.root().join("serve.json");
        std::fs::write(&file, text).unwrap();
        Self { scene, file }
    }

    fn watch(&self, flags: &[&str]) -> Boot {
        self.watch_with(flags, &[])
    }

    fn watch_with(&self, flags: &[&str], vars: &[(&str, &str)]) -> Boot {
        let file = self.file.to_str().unwrap();
        let socket = self.scene.sandbox.pod().backend();
        let args = ["certs", "watch", "--serve-config", file, "--socket", socket.to_str().unwrap()];
        self.scene.start("tailpod", &[&args, flags].concat(), vars)
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.file, text).unwrap();
    }

    /// Running, with these certificate domains.
    fn node(&self, cert_domains: &[&str]) {
        let mut message = running();
        message["InitialStatus"]["CertDomains"] = json!(cert_domains);
        self.scene.daemon().notify(message);
    }

    /// Waits until the node advertises exactly these.
    async fn advertises(&self, names: &[&str]) {
        let list = |call: &Call| call.json.as_ref().is_some_and(|json| json["AdvertiseServices"] == json!(names));
        self.scene.daemon().await_call(SOON, list).await.unwrap_or_else(|error| panic!("{names:?}: {error}"));
    }

    async fn posts(&self, count: usize) {
        self.scene.daemon().await_count(POST, count, SOON).await.unwrap_or_else(|error| panic!("{error}"));
    }
}

fn http(port: u16) -> Value {
    json!({"TCP": {port.to_string(): {"HTTP": true}}})
}

/// One Service on 443, and nothing else.
fn shop(host: &str) -> String {
    json!({"Services": {"svc:shop": {"TCP": {"443": {"HTTPS": true}},
        "Web": {format!("{host}:443"): {"Handlers": {"/": {"Proxy": "http://localhost:1"}}}}}}})
    .to_string()
}

#[tokio::test]
async fn c25_a_bad_edit_keeps_the_last_good_config() {
    let stage = Stage::new(&http(80).to_string()).await;
    stage.node(&[]);
    let mut watch = stage.watch(&["--apply"]);
    watch.mentioned("applied; certificates are kept for no names").await;
    assert_eq!(stage.scene.daemon().serve_config(), http(80));
    stage.write("{\"TCP\":\n  {\"80\": {\"HTTP\": tru");
    let line = watch.mentioned("not applied: the serve config is not valid").await;
    assert!(line.contains("line 2, column 19"), "{line}");
    assert_eq!(stage.scene.daemon().serve_config(), http(80));
    stage.write(&http(81).to_string());
    stage.posts(2).await;
    assert_eq!(stage.scene.daemon().serve_config(), http(81));
    watch.signal(Signal::SIGINT);
    watch.ends(0).await;
}

#[tokio::test]
async fn c26_https_is_applied_once_when_the_tailnet_has_it() {
    let stage = Stage::new(
        r#"{"TCP": {"443": {"HTTPS": true}}, "Web": {"${TS_CERT_DOMAIN}:443": {"Handlers": {"/": {"Text": "x"}}}}}"#,
    )
    .await;
    stage.node(&[]);
    let watch = stage.watch(&["--apply", "--json"]);
    let held = watch.mentioned("\"event\":\"held\",\"reason\":\"the serve config is held back: it names").await;
    assert!(held.contains("HTTPS is not enabled for this tailnet"), "{held}");
    assert_eq!(stage.scene.daemon().count(POST), 0);
    stage.node(&["n.ts.net"]);
    let good = watch.mentioned("\"event\":\"config\"").await;
    assert_eq!(
        serde_json::from_str::<Value>(&good).unwrap(),
        json!({"event": "config", "applied": true, "certDomain": "n.ts.net", "names": []})
    );
    assert!(stage.scene.daemon().serve_config()["Web"]["n.ts.net:443"].is_object());
    watch.stops().await;
    assert_eq!(stage.scene.daemon().count(POST), 1);
}

#[tokio::test]
async fn a_daemon_that_was_restarted_and_has_forgotten_it_is_told_again() {
    let stage = Stage::new(&http(80).to_string()).await;
    stage.node(&[]);
    let watch = stage.watch(&["--apply"]);
    watch.mentioned("applied; certificates are kept for no names").await;
    stage.scene.daemon().put_serve_config(Value::Null);
    stage.scene.daemon().close_watches();
    stage.posts(2).await;
    assert_eq!(stage.scene.daemon().serve_config(), http(80));
    watch.stops().await;
}

#[tokio::test]
async fn without_apply_only_certificates_are_kept() {
    let stage = Stage::new(&shop("${TS_CERT_DOMAIN}")).await;
    stage.node(&["shop.test.ts.net"]);
    let watch = stage.watch(&["--cert-domain", "shop.test.ts.net"]);
    watch.mentioned("read; certificates are kept for shop.test.ts.net").await;
    stage.write("{}");
    watch.mentioned("certificates are kept for no names").await;
    watch.stops().await;
    assert_eq!(stage.scene.daemon().count(POST), 0);
}

#[tokio::test]
async fn c06_strict_ends_with_the_first_bad_file_or_key_and_bad_names_are_usage() {
    let stage = Stage::new("[]").await;
    stage.node(&[]);
    let ended = stage.watch(&["--apply", "--strict"]).ends(1).await;
    assert!(ended.mentions("a serve config is an object, and this is a list"), "{}", ended.text());
    stage.write(r#"{"Services": {"svc:a": {"Web": {"foo": {"Handlers": {}}}}}}"#);
    let ended = stage.watch(&["--strict"]).ends(1).await;
    assert!(ended.mentions("foo"), "{}", ended.text());
    let ended = stage.watch(&["--cert-domain", "no dots"]).ends(2).await;
    assert!(ended.mentions("is no name for a certificate"), "{}", ended.text());
}

/// Upstream's manager knows Services only, and its daemons before 1.100 renew nothing by themselves.
#[tokio::test]
async fn w09_names_of_the_node_and_of_the_foreground_are_kept() {
    let https = json!({"443": {"HTTPS": true}});
    let front = json!({"s1": {"TCP": https, "Web": {"front.test.ts.net:443": {"Handlers": {}}}}});
    let config = json!({"TCP": https, "Web": {"n.test.ts.net:443": {"Handlers": {}}}, "Foreground": front});
    for (version, flags, kept) in [
        ("1.98.2", &[][..], "front.test.ts.net, n.test.ts.net"),
        ("1.102.5", &["--include-node"], "front.test.ts.net, n.test.ts.net"),
        ("1.102.5", &[], "no names"),
    ] {
        let stage = Stage::new(&config.to_string()).await;
        stage.scene.daemon().set_version(version);
        stage.node(&["n.test.ts.net", "front.test.ts.net"]);
        let watch = stage.watch(flags);
        watch.mentioned(&format!("read; certificates are kept for {kept}")).await;
        watch.stops().await;
    }
}

#[tokio::test]
async fn a_service_on_443_alone_is_advertised_with_its_certificate() {
    let stage = Stage::new(&shop("shop.test.ts.net")).await;
    stage.node(&["n.test.ts.net"]);
    let kept = stage.scene.root().join("kept");
    std::fs::create_dir_all(&kept).unwrap();
    let flags = ["--apply", "--state-dir", kept.to_str().unwrap()];
    let watch = stage.watch(&flags);
    watch.mentioned("applied; certificates are kept for shop.test.ts.net").await;
    watch.mentioned("svc:shop: not advertised before there is a certificate: shop.test.ts.net").await;
    assert_eq!(stage.scene.daemon().count("PATCH prefs"), 0);
    stage.node(&["n.test.ts.net", "shop.test.ts.net"]);
    watch.mentioned("svc:shop: advertised, with a certificate for shop.test.ts.net").await;
    stage.advertises(&["svc:shop"]).await;
    stage.write("{}");
    stage.advertises(&[]).await;
    watch.stops().await;
    assert_eq!(stage.scene.daemon().count("PATCH prefs"), 2);
    // The next look at a certificate that is good may be a day away; the Service does not wait for that.
    stage.write(&shop("shop.test.ts.net"));
    let watch = stage.watch(&flags);
    watch.mentioned("svc:shop: advertised, with a certificate for shop.test.ts.net").await;
    stage.scene.daemon().await_count("PATCH prefs", 3, SOON).await.unwrap_or_else(|error| panic!("{error}"));
    watch.stops().await;
    assert_eq!(stage.scene.daemon().prefs()["AdvertiseServices"], json!(["svc:shop"]));
}

#[tokio::test]
async fn who_waits_for_no_certificate_says_so_and_may_claim_all_services() {
    let stage = Stage::new(&shop("shop.test.ts.net")).await;
    stage.node(&["n.test.ts.net"]);
    stage.scene.daemon().set_prefs(json!({"AdvertiseServices": ["svc:hand"]}));
    let watch = stage.watch(&["--apply", "--advertise-without-cert"]);
    stage.advertises(&["svc:hand", "svc:shop"]).await;
    watch.stops().await;
    let watch = stage.watch(&["--apply", "--advertise-without-cert", "--own-all-services"]);
    stage.advertises(&["svc:shop"]).await;
    // The daemon goes on serving it.
    watch.stops().await;
    assert_eq!(stage.scene.daemon().prefs()["AdvertiseServices"], json!(["svc:shop"]));
    // Somebody else says which.
    stage.scene.daemon().set_prefs(json!({"AdvertiseServices": []}));
    let watch = stage.watch_with(&["--apply"], &[("TS_EXPERIMENTAL_SERVICE_AUTO_ADVERTISEMENT", "false")]);
    watch.mentioned("applied; certificates are kept for shop.test.ts.net").await;
    watch.stops().await;
    assert_eq!(stage.scene.daemon().prefs()["AdvertiseServices"], json!([]));
}
