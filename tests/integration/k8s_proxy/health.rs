//! What `k8s-proxy` tells about itself: health, and how long answers take.

use std::net::SocketAddr;

use serde_json::json;
use tailpod::sandbox::Fault;

use super::{ANN, Stage, ask, user};
use crate::support::get;

#[tokio::test]
async fn health_waits_for_an_address_and_the_listener() {
    let stage = Stage::new([]).await;
    stage.scene.daemon().fail("serve-config", Fault::Hang);
    let proxy = stage.start();
    stage.come_up().await;
    proxy.mentioned("Running healthcheck endpoint").await;
    let healthz = get(stage.health, "/healthz").await;
    assert_eq!((healthz.status, healthz.body.as_str()), (503, "api-listener: it is not bound yet\n"));
    assert!(healthz.header("Pod-IPv4").is_none());
    assert_eq!(get(stage.health, "/livez").await.status, 200, "a restart would not help");
    let readyz = get(stage.health, "/readyz").await;
    assert!(readyz.status == 503 && readyz.body.contains("[-]api-listener"), "{readyz:?}");
    drop(proxy);
}

#[tokio::test]
async fn live_and_ready_are_told_and_on_request_the_time_that_answers_take() {
    for flags in [&[][..], &["--server-timing"]] {
        let stage = Stage::new([]).await;
        stage.scene.daemon().set_whois(ANN, user(&json!([])));
        let listen = format!("127.0.0.1:{}", stage.api);
        let proxy = stage.scene.start("k8s-proxy", &[&["--listen", &listen], flags].concat(), &[]);
        stage.come_up().await;
        proxy.mentioned("Setting healthy true").await;
        for path in ["/livez", "/readyz"] {
            let answer = get(stage.health, path).await;
            assert_eq!((answer.status, answer.body.as_str()), (200, "ok"), "{path}");
        }
        let verbose = get(stage.health, "/readyz?verbose").await.body;
        assert!(verbose.contains("[+]api-listener ok\n"), "{verbose}");
        let answer = ask(SocketAddr::from(([127, 0, 0, 1], stage.api)), "/api").await.to_lowercase();
        let is_told = answer.contains("\r\nserver-timing: identity;dur=");
        assert_eq!(is_told, !flags.is_empty(), "{answer}");
    }
}
