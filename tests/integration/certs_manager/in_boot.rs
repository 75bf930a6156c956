//! The manager as `boot` runs it: which replica asks, what the others serve, and what ends it.

use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;

use super::{CALL, SHOP, put_tls, replica, services};
use crate::support::{SOON, Scene, free_port, get, running};

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
    assert!(metrics.contains("tailpod_cert_attempts_total{domain=\"shop.tail1.ts.net\",result=\"ok\"} 1"), "{metrics}");
    boot.stops().await;
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
