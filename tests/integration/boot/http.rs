//! Local HTTP: health, metrics, debug, and the addresses they listen on.

use tailpod::sandbox::Fault;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{READY, Scene, free_port, get, http, node, running};

async fn health(addr: &str) -> Scene {
    Scene::new().await.with_all(&[
        ("TS_ENABLE_HEALTH_CHECK", "true"),
        ("TS_LOCAL_ADDR_PORT", addr),
        ("POD_IPS", "10.0.0.1,fd00::1"),
    ])
}

#[tokio::test]
async fn s43_health() {
    let port = free_port();
    let scene = health(&format!("[::]:{port}")).await;
    let boot = scene.boot();
    boot.said(&format!("Running healthcheck endpoint at [::]:{port}/healthz")).await;
    let answer = get(port, "/healthz").await;
    assert_eq!((answer.status, answer.body.as_str()), (503, "node currently has no tailscale IPs\n"));
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!((answer.header("pod-ipv4"), answer.header("pod-ipv6")), (None, None));

    scene.notify(running()).await;
    boot.ready().await;
    let said = boot.messages();
    let at = |text: &str| said.iter().position(|message| message == text).unwrap_or_else(|| panic!("{text}: {said:?}"));
    assert!(at("Setting healthy true") < at(READY), "the flag comes before the milestone");
    let answer = get(port, "/healthz").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok"));
    assert_eq!((answer.header("pod-ipv4"), answer.header("pod-ipv6")), (Some("10.0.0.1"), Some("fd00::1")));
    assert_eq!(http(port, "HEAD", "/healthz", "").await.status, 200);
    let answer = http(port, "POST", "/healthz", "Content-Length: 0\r\n").await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("get, head")));
    assert_eq!(get(port, "/metrics").await.status, 404);

    scene.notify(running()).await;
    scene.notify(serde_json::json!({"SelfChange": node("myID", "test-node.test.ts.net.", &[])})).await;
    boot.said("Setting healthy false").await;
    assert_eq!(get(port, "/healthz").await.status, 503);
    let ended = boot.stops().await;
    let flips: Vec<_> = ended.messages().into_iter().filter(|message| message.contains("healthy")).collect();
    assert_eq!(flips, ["Setting healthy true", "Setting healthy false"], "each flip once");
    assert!(ended.says(&format!("HTTP server at [::]:{port} closed")), "{}", ended.text());
}

#[tokio::test]
async fn s44_metrics() {
    let port = free_port();
    let scene = Scene::new()
        .await
        .with_all(&[("TS_ENABLE_METRICS", "true"), ("TS_LOCAL_ADDR_PORT", &format!("127.0.0.1:{port}"))]);
    let boot = scene.boot();
    boot.said(&format!("Running metrics endpoint at 127.0.0.1:{port}/metrics")).await;
    let answer = get(port, "/metrics").await;
    assert_eq!(answer.status, 200, "before Running too");
    assert!(answer.body.contains("tailscaled_"), "{}", answer.body);
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{}", answer.head);
    assert!(answer.header("tailscale-version").is_some(), "the daemon's headers: {}", answer.head);
    assert_eq!(get(port, "/healthz").await.status, 404);
    let answer = get(port, "/debug/x").await;
    assert_eq!((answer.status, answer.body.trim_end()), (404, "debug endpoint not configured"));
    assert_eq!(http(port, "POST", "/metrics", "Content-Length: 0\r\n").await.status, 405);
    scene.notify(running()).await;
    boot.ready().await;
    assert!(!boot.text().contains("healthy"), "nobody asks: {}", boot.text());
    assert_eq!(get(port, "/metrics").await.status, 200);
    scene.daemon().fail_next("usermetrics", Fault::Close);
    let answer = get(port, "/metrics").await;
    assert!(answer.body.starts_with("failed to proxy request: "), "{answer:?}");
    assert_eq!(answer.status, 500);
    boot.stops().await;
}

#[tokio::test]
async fn s44_metrics_with_a_debug_address() {
    let (port, debug) = (free_port(), TcpListener::bind("127.0.0.1:0").await.expect("a listener"));
    let address = debug.local_addr().expect("an address").to_string();
    let scene = Scene::new().await.with_all(&[
        ("TS_ENABLE_METRICS", "true"),
        ("TS_LOCAL_ADDR_PORT", &format!("127.0.0.1:{port}")),
        ("TS_DEBUG_ADDR_PORT", &address),
    ]);
    let boot = scene.boot();
    boot.said(&format!("Running metrics endpoint at 127.0.0.1:{port}/metrics")).await;
    let serve = async {
        let (mut stream, _) = debug.accept().await.expect("a connection");
        let mut request = vec![0; 4096];
        let read = stream.read(&mut request).await.expect("a request");
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Debug: yes\r\n\r\npprof").await.expect("sent");
        String::from_utf8_lossy(&request[..read]).into_owned()
    };
    let (answer, request) = tokio::join!(get(port, "/debug/pprof/heap?debug=1&gc=2"), serve);
    assert_eq!((answer.status, answer.body.as_str()), (200, "pprof"));
    assert_eq!(answer.header("x-debug"), Some("yes"));
    assert!(request.starts_with("GET /debug/pprof/heap?debug=1&gc=2 HTTP/1.1\r\n"), "{request}");
    boot.stops().await;
}

#[tokio::test]
async fn s45_deprecated_health() {
    let (metrics, deprecated) = (free_port(), free_port());
    let scene = Scene::new().await.with_all(&[
        ("TS_HEALTHCHECK_ADDR_PORT", &format!("[::]:{deprecated}")),
        ("TS_ENABLE_METRICS", "true"),
        ("TS_LOCAL_ADDR_PORT", &format!("[::]:{metrics}")),
    ]);
    let boot = scene.boot();
    boot.said(
        "[warning] TS_HEALTHCHECK_ADDR_PORT is deprecated and will be removed in 1.82.0. Please use \
         TS_ENABLE_HEALTH_CHECK and optionally TS_LOCAL_ADDR_PORT instead.",
    )
    .await;
    scene.notify(running()).await;
    boot.ready().await;
    let mut ports = boot.listening_ports();
    ports.sort_unstable();
    let mut expected = [metrics, deprecated];
    expected.sort_unstable();
    assert_eq!(ports, expected);
    assert_eq!((get(deprecated, "/healthz").await.status, get(deprecated, "/metrics").await.status), (200, 404));
    assert_eq!((get(metrics, "/healthz").await.status, get(metrics, "/metrics").await.status), (404, 200));
    boot.stops().await;

    let before = scene.daemon().commands().len();
    let ended = scene.boot_with(&[("TS_ENABLE_HEALTH_CHECK", "true")]).ends(1).await;
    assert!(
        ended.says(
            "invalid configuration: invalid configuration: TS_HEALTHCHECK_ADDR_PORT is deprecated and will be removed \
             in 1.82.0, use TS_ENABLE_HEALTH_CHECK and optionally TS_LOCAL_ADDR_PORT"
        ),
        "{}",
        ended.text()
    );
    assert_eq!(scene.daemon().commands().len(), before);
}

#[tokio::test]
async fn s46_ipv6_repair() {
    // The address of the table is nobody's here, so that it was repaired shows in the bind error.
    let scene = Scene::new().await.with_all(&[
        ("POD_IPS", "fd7a:115c:a1e0::6c34:352"),
        ("TS_LOCAL_ADDR_PORT", "fd7a:115c:a1e0::6c34:352:9002"),
        ("TS_ENABLE_METRICS", "true"),
    ]);
    let ended = scene.boot().ends(1).await;
    let line = "failed to listen on addr \"[fd7a:115c:a1e0::6c34:352]:9002\": ";
    assert!(ended.last().starts_with(line), "{}", ended.text());

    let port = free_port();
    let scene = scene.with("POD_IPS", "::1").with("TS_LOCAL_ADDR_PORT", format!("::1:{port}"));
    let boot = scene.boot();
    boot.said(&format!("Running metrics endpoint at [::1]:{port}/metrics")).await;
    boot.stops().await;

    let before = scene.daemon().commands().len();
    let ended = scene.boot_with(&[("TS_LOCAL_ADDR_PORT", "localhost:9002")]).ends(1).await;
    assert!(
        ended.mentions("invalid configuration: error parsing TS_LOCAL_ADDR_PORT value \"localhost:9002\": "),
        "{}",
        ended.text()
    );
    assert_eq!(scene.daemon().commands().len(), before);
}
