//! `boot` where a Lease says who orders certificates (certs.md 9.3): tailscaled only reads, is restarted to order when
//! there is something to order and the Lease is ours, and is restarted to read before anything else when it is lost.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tailpod::sandbox::apiserver::access::{Access, Rule, Subject};
use tailpod::sandbox::{Fault, Program};
use tokio::time::{sleep, timeout};

use crate::support::{Boot, NAMESPACE, SECRET, SOON, Scene, running};

const SHOP: &str = "shop.tail1.ts.net";
const CALL: &str = "GET cert/shop.tail1.ts.net";

fn grant(scene: &Scene, lease_verbs: &[&str]) {
    let access = Access::of_boot(NAMESPACE, SECRET)
        .and(Rule::new("", &["secrets"], &["get", "list", "patch"]))
        .and(Rule::new("", &["events"], &["get", "create", "patch"]))
        .and(Rule::new("coordination.k8s.io", &["leases"], lease_verbs));
    scene.api().grant(Subject::from(scene.sandbox.user()), access);
}

/// Replica `ordinal` of a group whose only name has a Secret without a certificate.
async fn replica(ordinal: u32, lease_verbs: &[&str]) -> Scene {
    let scene = Scene::kube([("authkey", "k")]).await;
    grant(&scene, lease_verbs);
    let labels = json!({
        "tailscale.com/managed": "true", "tailscale.com/secret-type": "certs", "tailscale.com/proxy-group": "ingress",
    });
    let data = json!({"tls.crt": "", "tls.key": ""});
    let secret = json!({"metadata": {"name": SHOP, "labels": labels}, "type": "kubernetes.io/tls", "data": data});
    scene.api().put("secrets", NAMESPACE, secret);
    let served = json!({"Services": {"svc:shop": {
        "TCP": {"443": {"HTTPS": true}}, "Web": {format!("{SHOP}:443"): {"Handlers": {}}}}}});
    scene.with_all(&[
        ("TS_EXPERIMENTAL_CERT_SHARE", "true"),
        ("TAILPOD_CERT_WRITER", "lease"),
        ("TAILPOD_CERT_LEASE_DURATION", "3s"),
        ("TAILPOD_WITHDRAW_WAIT", "100ms"),
        ("POD_NAME", &format!("ingress-{ordinal}")),
        ("POD_UID", "u"),
        ("TS_SERVE_CONFIG", &served.to_string()),
    ])
}

fn up() -> Value {
    let mut message = running();
    message["InitialStatus"]["CertDomains"] = json!([SHOP]);
    message
}

/// How each tailscaled so far was started.
fn modes(scene: &Scene) -> Vec<String> {
    let commands = scene.daemon().commands().into_iter().filter(|command| command.program == Program::Tailscaled);
    commands.filter_map(|command| command.env.get("TS_CERT_SHARE_MODE").cloned().flatten()).collect()
}

/// Waits for the `starts`th tailscaled and brings its node up.
async fn comes_up(scene: &Scene, boot: &Boot, starts: usize) {
    let started = scene.daemon().await_running(starts, SOON).await;
    started.unwrap_or_else(|error| panic!("{error}\n{}", boot.text()));
    scene.notify(up()).await;
}

async fn advertises(scene: &Scene, boot: &Boot, services: &Value) {
    let is = async {
        loop {
            let list = scene.daemon().prefs()["AdvertiseServices"].clone();
            if list == *services || (*services == json!([]) && list.is_null()) {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let seen = timeout(SOON, is).await;
    assert!(seen.is_ok(), "{services} is not {}\n{}", scene.daemon().prefs()["AdvertiseServices"], boot.text());
}

#[tokio::test]
async fn c18_the_holder_orders_when_there_is_something_to_and_reads_as_soon_as_the_lease_is_lost() {
    let scene = replica(1, &["get", "create", "update"]).await;
    // For a Service that is held back there is nothing to withdraw.
    let boot = scene.tailpod_with(&[("TAILPOD_ADVERTISE_WITHOUT_CERT", "true")]);
    scene.notify(up()).await;
    boot.ready().await;
    assert_eq!(modes(&scene)[0], "ro");
    boot.mentioned("tailscaled is restarted to order certificates").await;
    advertises(&scene, &boot, &json!([])).await;
    comes_up(&scene, &boot, 2).await;
    scene.daemon().await_count(CALL, 1, SOON).await.unwrap_or_else(|error| panic!("{error}\n{}", boot.text()));
    boot.mentioned("there is a certificate").await;
    assert_eq!(modes(&scene), ["ro", "rw"]);
    assert_eq!(scene.daemon().certificates_issued(), 1);

    grant(&scene, &["get"]);
    boot.mentioned("tailscaled is restarted to only read certificates").await;
    comes_up(&scene, &boot, 3).await;
    assert_eq!(modes(&scene), ["ro", "rw", "ro"]);
    advertises(&scene, &boot, &json!(["svc:shop"])).await;
    boot.stops().await;
}

#[tokio::test]
async fn a_sticky_holder_orders_from_the_start_and_gives_the_lease_back_in_the_end() {
    let scene = replica(1, &["get", "create", "update"]).await;
    scene.api().delete_secret(NAMESPACE, SHOP);
    let scene = scene.with("TAILPOD_STICKY_WRITER", "true");
    let boot = scene.tailpod();
    scene.notify(up()).await;
    boot.ready().await;
    boot.mentioned("tailscaled is restarted to order certificates").await;
    comes_up(&scene, &boot, 2).await;
    assert_eq!(modes(&scene), ["ro", "rw"]);
    let holder = || scene.api().objects("leases", NAMESPACE)[0]["spec"]["holderIdentity"].clone();
    assert_eq!(holder(), "ingress-1_u");
    boot.stops().await;
    assert_eq!(holder(), "");
}

#[tokio::test]
async fn a_holder_that_is_stopped_lets_its_order_end_and_gives_the_lease_back_then() {
    let scene = replica(1, &["get", "create", "update"]).await.with("TAILPOD_STICKY_WRITER", "true");
    let mut boot = scene.tailpod();
    scene.notify(up()).await;
    boot.mentioned("tailscaled is restarted to order certificates").await;
    scene.daemon().fail(&format!("cert/{SHOP}"), Fault::Hold);
    comes_up(&scene, &boot, 2).await;
    scene.daemon().await_count(CALL, 1, SOON).await.unwrap_or_else(|error| panic!("{error}\n{}", boot.text()));
    let holder = || scene.api().objects("leases", NAMESPACE)[0]["spec"]["holderIdentity"].clone();
    boot.signal(Signal::SIGTERM);
    sleep(Duration::from_millis(1200)).await;
    assert_eq!(holder(), "ingress-1_u", "while it orders");
    scene.daemon().heal();
    let ended = boot.end().await;
    assert!(ended.code == Some(0) && ended.mentions("there is a certificate"), "{}", ended.text());
    let annotations = scene.api().secret(NAMESPACE, SHOP).unwrap()["metadata"]["annotations"].clone();
    assert!(annotations["tailpod.dev/cert-ledger"].as_str().is_some_and(|orders| orders.contains("issued")));
    assert!(annotations["tailpod.dev/cert-issuing"].is_null(), "{annotations}");
    assert_eq!(holder(), "");
}

#[tokio::test]
async fn c19_without_rights_for_a_lease_the_ordinal_decides() {
    let scene = replica(0, &["get"]).await;
    let boot = scene.tailpod();
    scene.notify(up()).await;
    boot.ready().await;
    boot.mentioned("not allowed to use a Lease").await;
    comes_up(&scene, &boot, 2).await;
    assert_eq!(modes(&scene), ["ro", "rw"]);
    boot.stops().await;
}
