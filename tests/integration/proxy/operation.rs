//! Starting, being looked at, and stopping.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::Instant;

use super::upstream::Step;
use super::world::{ANN, Client, TOKEN, World, get};
use crate::support::{self, Boot, SOON};

fn say(text: &str) -> Step {
    Step::Say(text.as_bytes().to_vec())
}

#[tokio::test]
async fn flags_that_exclude_each_other_are_wrong_usage() {
    for flags in [
        &["--tls", "files"][..],
        &["--tls", "off", "--tls-cert", "x", "--tls-key", "y"],
        &["--service-grants"],
        &["--mode", "other"],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tailpod"));
        let output = command.arg("proxy").args(flags).env_clear().output().await.unwrap();
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test]
async fn where_callers_could_not_be_told_apart_nothing_is_served() {
    let (sandbox, upstream) = World::parts().await;
    let kubeconfig = sandbox.pod().write("etc/upstream", upstream.kubeconfig("", TOKEN)).unwrap();
    let start = |flags: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tailpod"));
        command.args(["proxy", "--kubeconfig"]).arg(&kubeconfig).arg("--socket").arg(sandbox.pod().backend());
        command.args(flags).env_clear().envs(sandbox.env()).kill_on_drop(true);
        Boot::spawn(command)
    };
    let ended = start(&["--proxy-protocol", "--listen", "0.0.0.0:0"]).ends(1).await;
    assert!(ended.mentions("will not listen on 0.0.0.0:0"), "{}", ended.text());
    sandbox.daemon().set_version("1.90.9-tabc");
    let ended = start(&["--proxy-protocol", "--listen", "127.0.0.1:0"]).ends(1).await;
    assert!(ended.mentions("the PROXY protocol needs 1.92.0 or newer"), "{}", ended.text());
}

#[tokio::test]
async fn health_and_metrics_are_served_beside() {
    let port = support::free_port();
    let world = World::start(&["--local-addr", &format!("127.0.0.1:{port}")]).await;
    world.get("/api/v1/pods").await;
    world.ask("GET /a%zz HTTP/1.1\r\nHost: h\r\n\r\n").await;
    for path in ["/healthz", "/livez", "/readyz"] {
        let answer = support::get(port, path).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok"), "{path}");
    }
    let metrics = support::get(port, "/metrics").await.body;
    for line in [
        "k8s_auth_proxy_requests_proxied 1",
        "tailpod_proxy_refused_total{reason=\"path\"} 1",
        "tailpod_proxy_request_duration_seconds_count{verb=\"list\"} 1",
        "tailpod_proxy_active_sessions 0",
        "tailpod_proxy_upstream_errors_total 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn everything_that_happens_is_counted_once() {
    let port = support::free_port();
    let world = World::start(&["--local-addr", &format!("127.0.0.1:{port}")]).await;
    let counted = async |line: &str| {
        let begun = Instant::now();
        // The stream's end takes a moment to be noticed.
        while !support::get(port, "/metrics").await.body.lines().any(|found| found == line) {
            assert!(begun.elapsed() < SOON, "{line} is not in\n{}", support::get(port, "/metrics").await.body);
        }
    };
    let exec = "/api/v1/namespaces/n/pods/p/exec";
    let upgrade = format!(
        "POST {exec} HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nContent-Length: 0\r\n\r\n"
    );
    // A session, while it lasts.
    let switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n";
    world.upstream.script([say(switching), Step::Echo]);
    let mut session = world.client().await;
    session.send(&upgrade).await;
    session.head().await;
    counted("tailpod_proxy_active_sessions 1").await;
    counted("tailpod_proxy_connections 1").await;
    counted("tailpod_proxy_request_duration_seconds_count{verb=\"create\"} 1").await;
    drop(session);
    counted("tailpod_proxy_active_sessions 0").await;
    counted("tailpod_proxy_connections 0").await;
    // A protocol that nobody has asked for.
    world.upstream.script([say(switching)]);
    assert_eq!(world.get("/api").await.status, 502);
    counted("tailpod_proxy_upstream_errors_total 1").await;
    // A recorder that may fail: the session passes, its recording was attempted, and that it passed is counted.
    world.grant(&json!([{"recorderAddrs": ["100.64.0.3:80"]}]));
    world.ask(&upgrade).await;
    counted("k8s_auth_proxy_session_recordings_attempted 1").await;
    counted("k8s_auth_proxy_api_request_event_recording_attempted 0").await;
    // One that must not.
    world.grant(&json!([{"enforceRecorder": true, "recorderAddrs": ["100.64.0.3:80"]}]));
    assert_eq!(world.ask(&upgrade).await.status, 403);
    counted("k8s_auth_proxy_session_recordings_attempted 2").await;
    counted("k8s_auth_proxy_session_recordings_uploaded 0").await;
    world.daemon().set_whois(ANN, json!({"Node": {}}));
    assert_eq!(world.get("/api").await.status, 500);
    counted("k8s_auth_proxy_requests_proxied 3").await;
    let metrics = support::get(port, "/metrics").await.body;
    let total = |name: &str| -> u64 {
        let lines = metrics.lines().filter_map(|line| line.strip_prefix(name)?.rsplit(' ').next()?.parse::<u64>().ok());
        lines.sum()
    };
    assert_eq!(total("tailpod_proxy_refused_total{"), 3, "{metrics}");
    assert_eq!(total("tailpod_proxy_unrecorded_sessions_total{"), 1, "{metrics}");
    // No client makes up labels.
    assert!(!metrics.contains("100.64") && !metrics.contains("ann@"), "{metrics}");
}

#[tokio::test]
async fn timing_is_told_on_request_and_traces_pass() {
    let world = World::start(&["--server-timing"]).await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let answer = world.ask(&format!("GET /api HTTP/1.1\r\nHost: h\r\nTraceparent: {trace}\r\n\r\n")).await;
    let timing = answer.header("server-timing").unwrap();
    assert!(timing.starts_with("identity;dur=") && timing.contains("upstream;dur="), "{timing}");
    assert_eq!(world.upstream.request(0).await.all("traceparent"), [trace]);
    // Nobody else learns how long it takes to find out who somebody is.
    let world = World::start(&[]).await;
    let answer = world.get("/api").await;
    assert_eq!((answer.status, answer.header("server-timing")), (200, None));
}

#[tokio::test]
async fn a_request_in_flight_is_finished_before_the_end() {
    let mut world = World::start(&[]).await;
    world.upstream.script([Step::Await, say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")]);
    let mut client = world.client().await;
    client.send(get("/api")).await;
    world.upstream.request(0).await;
    let mut idle = world.client().await;
    idle.send(get("/api")).await;
    idle.answer().await;
    world.proxy.signal(Signal::SIGTERM);
    assert_eq!(idle.rest().await, b"", "who asks for nothing is let go at once");
    world.upstream.go_on();
    let answer = client.answer().await;
    assert_eq!((answer.text().as_str(), answer.header("connection")), ("ok", Some("close")));
    assert_eq!(client.rest().await, b"");
    world.proxy.ends(0).await;
}

#[tokio::test]
async fn whoever_has_not_asked_for_anything_holds_up_no_stop() {
    let mut world = World::start(&[]).await;
    let mut silent = Client::new(TcpStream::connect(world.addr).await.unwrap());
    let mut named = world.client().await;
    // Accepted after both.
    assert_eq!(world.get("/api").await.status, 200);
    let begun = Instant::now();
    world.proxy.signal(Signal::SIGTERM);
    assert_eq!((silent.rest().await, named.rest().await), (vec![], vec![]));
    world.proxy.ends(0).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn watches_and_sessions_are_closed_after_ten_seconds_and_the_end_is_a_good_one() {
    let mut world = World::start(&[]).await;
    world.upstream.script([say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), Step::Drain]);
    let mut watching = world.client().await;
    watching.send(get("/api/v1/pods?watch=1")).await;
    watching.head().await;
    world.upstream.script([
        say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
        Step::Echo,
    ]);
    let mut session = world.client().await;
    session.send("GET /api HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    session.head().await;
    let begun = Instant::now();
    world.proxy.signal(Signal::SIGTERM);
    assert_eq!((watching.rest().await, session.rest().await), (vec![], vec![]));
    let took = begun.elapsed();
    assert!((9..14).contains(&took.as_secs()), "{took:?}");
    world.proxy.end_within(Duration::from_secs(5)).await;
    world.upstream.wait("ends", |seen| seen.iter().all(|seen| seen.is_gone)).await;
}
