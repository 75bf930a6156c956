//! What enforcement refuses, and that nothing of it reaches the API server.

use serde_json::json;

use super::world::{World, get};
use crate::support;

fn spdy(path: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nContent-Length: 0\r\n\r\n")
}

fn websocket(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n")
}

#[tokio::test]
async fn row_10_enforced_without_recorders_nothing_passes() {
    let world = World::start(&[]).await;
    world.grant(&json!([{"enforceRecorder": true}]));
    world.get("/api/v1/pods").await.is_status(403, "forbidden: api request");
    world.ask(&spdy("/api/v1/namespaces/n/pods/p/exec")).await.is_status(403, "forbidden: 'kubectl exec' session");
    world.nothing_upstream();
    let ended = world.stops().await;
    assert!(ended.mentions("no-recorder"), "{}", ended.text());
}

#[tokio::test]
async fn row_11_odd_spellings_are_no_way_out_of_recording() {
    let world = World::start(&[]).await;
    world.grant(&json!([{"enforceRecorder": true, "recorderAddrs": ["100.64.0.3:80"]}]));
    for path in
        ["/api/v1/namespaces/n/pods/p/exec/", "/api/v1/namespaces/n/pods/p%2Fexec", "//api/v1/namespaces/n/pods/p/exec"]
    {
        let answer = world.ask(&spdy(path)).await;
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
    }
    let plain = world.ask(&spdy("/api/v1/namespaces/n/pods/p/exec?command=ls")).await;
    plain.is_status(403, "forbidden: 'kubectl exec' session must be recorded");
    world.nothing_upstream();
}

#[tokio::test]
async fn row_12_commands_on_nodes_are_refused() {
    let world = World::start(&[]).await;
    world.grant(&json!([{"enforceRecorder": true, "recorderAddrs": ["100.64.0.3:80"]}]));
    for request in [
        websocket("GET", "/api/v1/nodes/n/proxy/exec/ns/p/c?command=id"),
        spdy("/api/v1/nodes/n/proxy/run/ns/p/c?cmd=id"),
    ] {
        world.ask(&request).await.is_status(403, "forbidden: commands run through nodes/proxy");
    }
    world.nothing_upstream();
}

#[tokio::test]
async fn row_13_the_spelling_of_the_protocol_is_no_way_out_of_recording() {
    let port = support::free_port();
    let world = World::start(&["--local-addr", &format!("127.0.0.1:{port}")]).await;
    world.grant(&json!([{"recorderAddrs": ["100.64.0.3:80"]}]));
    // Fail open, and there is no recorder yet: it passes, with a warning that says so.
    world.upstream.say("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(world.ask(&websocket("POST", "/api/v1/namespaces/n/pods/p/exec")).await.status, 400);
    let other =
        "GET /api/v1/namespaces/n/pods/p/exec HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n";
    world.ask(other).await.is_status(403, "forbidden: 'kubectl exec' session must be recorded");
    assert_eq!(world.upstream.seen().len(), 1);
    let metrics = support::get(port, "/metrics").await.body;
    for line in [
        "tailpod_proxy_unrecorded_sessions_total{reason=\"session\"} 1",
        "tailpod_proxy_refused_total{reason=\"upgrade\"} 1",
        "k8s_auth_proxy_session_recordings_attempted 1",
        "k8s_auth_proxy_requests_proxied 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    let ended = world.stops().await;
    assert!(ended.mentions("passes unrecorded"), "{}", ended.text());
}

#[tokio::test]
async fn streams_that_cannot_be_recorded_pass_unless_they_are_denied() {
    let rules = json!([{"enforceRecorder": true, "recorderAddrs": ["100.64.0.3:80"]}]);
    let forward = spdy("/api/v1/namespaces/n/pods/p/portforward");
    let world = World::start(&[]).await;
    world.grant(&rules);
    assert_eq!(world.ask(&forward).await.status, 200);
    let world = World::start(&["--deny-unrecorded-streams"]).await;
    world.grant(&rules);
    world.ask(&forward).await.is_status(403, "forbidden: this request");
    assert_eq!(world.ask(&get("/api/v1/pods")).await.status, 200);
    assert_eq!(world.upstream.seen().len(), 1);
}
