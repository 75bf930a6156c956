//! The manager as `boot` runs it: which replica asks, what the others serve, and what ends it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tailpod::certs::stale;
use tokio::time::timeout;

use super::{CALL, SHOP, annotation, put_tls, replica, services, world};
use crate::certs_commands::fresh;
use crate::support::{NAMESPACE, SOON, Scene, free_port, get, running};

const RELOADING: &str = "tailpod.dev/cert-reloading";

fn mode_of(scene: &Scene) -> Option<String> {
    scene.daemon().commands().first()?.env.get("TS_CERT_SHARE_MODE").cloned().flatten()
}

#[tokio::test]
async fn the_first_replica_gets_certificates_and_says_so_in_numbers() {
    let port = free_port();
    let scene = replica().await;
    put_tls(&scene, &json!({}));
    let scene = scene.with_all(&[
        ("TS_EXPERIMENTAL_CERT_SHARE", "true"),
        ("POD_NAME", "ingress-0"),
        ("TS_SERVE_CONFIG", &services(&[SHOP]).to_string()),
        ("TS_LOCAL_ADDR_PORT", &format!("127.0.0.1:{port}")),
        ("TS_ENABLE_METRICS", "true"),
        ("TAILPOD_WITHDRAW_WAIT", "100ms"),
    ]);
    let boot = scene.tailpod();
    let mut message = running();
    message["InitialStatus"]["CertDomains"] = json!([SHOP]);
    scene.notify(message).await;
    boot.ready().await;
    assert_eq!(mode_of(&scene).as_deref(), Some("rw"));
    // Names of one process begin within half a minute of each other.
    scene
        .daemon()
        .await_count(CALL, 1, Duration::from_secs(45))
        .await
        .unwrap_or_else(|e| panic!("{e}\n{}", boot.text()));
    boot.mentioned("there is a certificate").await;
    let counted = async {
        loop {
            let metrics = get(port, "/metrics").await.body;
            if metrics.contains("result=\"ok\"") {
                return metrics;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let metrics = timeout(SOON, counted).await.expect("the attempt is counted");
    assert!(metrics.contains("tailpod_cert_loops 1\n") && metrics.contains("tailpod_cert_is_writer 1\n"), "{metrics}");
    let ends = "tailpod_cert_not_after_seconds{domain=\"shop.tail1.ts.net\"} ";
    let ends = metrics.lines().find_map(|line| line.strip_prefix(ends)?.parse::<i64>().ok()).expect("its end");
    let days = (ends - Timestamp::now().as_second()) / 86_400;
    assert!((88..=90).contains(&days), "{metrics}");
    assert!(metrics.contains("tailpod_cert_attempts_total{domain=\"shop.tail1.ts.net\",result=\"ok\"} 1"), "{metrics}");
    boot.stops().await;
}

#[tokio::test]
async fn c06_a_name_that_is_not_managed_ends_a_strict_boot() {
    let scene = replica().await;
    let mut config = services(&[SHOP]);
    config["Services"]["svc:bad"] = json!({"Web": {"foo": {"Handlers": {}}}});
    let scene = scene.with_all(&[
        ("TS_EXPERIMENTAL_CERT_SHARE", "true"),
        ("POD_NAME", "ingress-0"),
        ("TS_SERVE_CONFIG", &config.to_string()),
        ("TAILPOD_STRICT", "true"),
        ("TAILPOD_WITHDRAW_WAIT", "100ms"),
    ]);
    let mut boot = scene.tailpod();
    let mut message = running();
    message["InitialStatus"]["CertDomains"] = json!([SHOP]);
    scene.notify(message).await;
    let ended = boot.ends(1).await;
    assert!(ended.mentions("svc:bad: Web key `foo`"), "{}", ended.text());
}

/// A group whose Secret has a newer certificate than the tailscaled that only reads.
async fn behind() -> Scene {
    let scene = replica().await;
    put_tls(&scene, &json!({}));
    let newer = fresh(SHOP);
    scene.api().set_key(NAMESPACE, SHOP, "tls.crt", Some(newer.chain_pem.as_bytes()));
    scene.api().set_key(NAMESPACE, SHOP, "tls.key", Some(newer.key_pem.as_bytes()));
    scene.daemon().set_certificates_read_only(true);
    let now = Timestamp::now();
    let hours = SignedDuration::from_hours;
    scene.daemon().set_certificate_period(SHOP, now - hours(89 * 24), now + hours(10));
    scene
}

#[tokio::test]
async fn w14_a_reader_that_serves_an_old_certificate_is_started_anew() {
    let scene = behind().await.with_all(&[
        ("TS_EXPERIMENTAL_CERT_SHARE", "true"),
        ("POD_NAME", "ingress-1"),
        ("TS_SERVE_CONFIG", &services(&[SHOP]).to_string()),
        ("TAILPOD_CERT_RELOAD", "true"),
        ("TAILPOD_WITHDRAW_WAIT", "100ms"),
    ]);
    let boot = scene.tailpod();
    let mut message = running();
    message["InitialStatus"]["CertDomains"] = json!([SHOP]);
    scene.notify(message.clone()).await;
    boot.mentioned("tailscaled is started anew").await;
    assert!(annotation(&scene, RELOADING).unwrap().starts_with("ingress-1@"), "while it is its turn");
    scene.daemon().await_running(2, SOON).await.unwrap_or_else(|error| panic!("{error}\n{}", boot.text()));
    scene.notify(message).await;
    let over = async {
        while annotation(&scene, RELOADING).is_some()
            || scene.daemon().prefs()["AdvertiseServices"] != json!(["svc:shop"])
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, over).await.unwrap_or_else(|_| panic!("the turn does not end\n{}", boot.text()));
    boot.stops().await;
}

#[tokio::test]
async fn w14_readers_take_turns_and_what_is_good_is_left_alone() {
    let scene = behind().await;
    let world = world(&scene, None).await;
    let turn = stale::take_turn(&world, "ingress-1").await.unwrap().expect("a turn");
    assert!(stale::take_turn(&world, "ingress-2").await.unwrap().is_none(), "one at a time");
    stale::end_turn(&world, turn).await;
    assert!(stale::take_turn(&world, "ingress-2").await.unwrap().is_some());
    let before = format!("ingress-3@{:.0}", Timestamp::now() - SignedDuration::from_mins(11));
    put_tls(&scene, &json!({ RELOADING: before }));
    assert!(stale::take_turn(&world, "ingress-1").await.unwrap().is_none(), "there is nothing newer");
    scene.api().set_key(NAMESPACE, SHOP, "tls.crt", Some(fresh(SHOP).chain_pem.as_bytes()));
    assert!(stale::take_turn(&world, "ingress-1").await.unwrap().is_some(), "whoever died has had its turn");
}

#[tokio::test]
async fn other_replicas_only_read_and_a_replica_without_a_name_is_refused() {
    for (pod, writer) in [("ingress-1", "ordinal"), ("ingress-0", "off")] {
        let scene =
            replica().await.with_all(&[("TS_EXPERIMENTAL_CERT_SHARE", "true"), ("TAILPOD_CERT_WRITER", writer)]);
        let boot = scene.boot_with(&[("POD_NAME", pod)]);
        scene.notify(running()).await;
        boot.ready().await;
        assert_eq!(mode_of(&scene).as_deref(), Some("ro"), "{pod} {writer}");
        boot.stops().await;
    }
    // w01: upstream's replicas are all readers then, and nobody gets certificates.
    for pod in ["", "ingress"] {
        let scene = replica().await.with_all(&[("TS_EXPERIMENTAL_CERT_SHARE", "true"), ("POD_NAME", pod)]);
        let ended = scene.boot().ends(1).await;
        assert!(ended.mentions("no replica would get certificates"), "{}", ended.text());
    }
}
