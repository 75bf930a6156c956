//! Scenarios 14 to 18 and 26 through the front door: what a peer's watches and sessions have to do with the proxy's
//! client certificate.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustls::HandshakeKind::{Full, Resumed};
use tokio::net::TcpStream;

use super::door::{Door, EXEC, WATCH, asked_at_once};
use super::*;

/// A user that the plugin presents with this certificate and token.
fn both(scene: &Scene, pair: &Pair, token: &str) {
    scene.answer(&json!({"token": token, "clientCertificateData": pair.chain, "clientKeyData": pair.key}));
}

/// Ten idle connections, five watches, two sessions.
async fn seventeen(scene: &Scene, door: Door) -> (Door, Vec<TcpStream>) {
    let mut open = Vec::new();
    for path in [WATCH; 5].into_iter().chain([EXEC; 2]) {
        let (stream, first) = door.start(path).await;
        assert!(first.contains(if path == EXEC { " 101 " } else { " 200 " }), "{first}");
        open.push(stream);
    }
    let (door, statuses) = asked_at_once(door, 10, "GET /slow").await;
    assert_eq!(statuses, [200; 10]);
    assert_eq!(scene.server.seen().len(), 17);
    (door, open)
}

/// What is left to read until the end; `None` while there is none.
async fn ended(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_millis(300), stream.read_to_end(&mut rest)).await;
    read.is_ok().then_some(rest)
}

#[tokio::test]
async fn scenario_14_another_certificate_closes_what_peers_have_open() {
    let scene = Scene::new().await;
    let (x, y) = (scene.server.authority.sign("x", None), scene.server.authority.sign("y", None));
    both(&scene, &x, "a");
    let (door, mut open) = seventeen(&scene, Door::with_plugin(&scene).await).await;
    both(&scene, &y, "b");
    scene.server.accept(&["b"]);
    let begun = Instant::now();
    // Two requests of one client: each thread of the proxy has connections of its own.
    let (mut client, first) = door.start("/api").await;
    assert!(first.starts_with("HTTP/1.1 200 "), "{first}");
    scene.server.until("all closed", |seen| seen[..17].iter().all(|seen| seen.is_closed)).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    for stream in &mut open {
        let rest = ended(stream).await.expect("the peer is told");
        assert!(!rest.ends_with(b"0\r\n\r\n"), "a stream that was cut off does not look complete");
    }
    client.write_all(b"GET /api HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut second = String::new();
    client.read_to_string(&mut second).await.unwrap();
    assert!(second.contains("HTTP/1.1 200 "), "{second}");
    let seen = scene.server.seen();
    assert!(seen[..17].iter().all(|seen| seen.client.as_ref() == Some(&x.der)));
    assert!(seen.len() == 18 && seen[17].client == Some(y.der), "a new connection, which is used again");
    assert_eq!((seen[17].kind, scene.runs().len()), (Some(Full), 2));
}

#[tokio::test]
async fn scenario_15_and_16_another_token_with_the_same_certificate_closes_nothing() {
    let scene = Scene::new().await;
    let x = scene.server.authority.sign("x", None);
    both(&scene, &x, "a");
    let (door, mut open) = seventeen(&scene, Door::with_plugin(&scene).await).await;
    both(&scene, &x, "b");
    scene.server.accept(&["b"]);
    assert_eq!((door.get().await, scene.runs().len()), (200, 2));
    for stream in &mut open {
        assert_eq!(ended(stream).await, None);
    }
    open[6].write_all(b"still there").await.unwrap();
    let mut echo = [0; 11];
    open[6].read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"still there");
    let seen = scene.server.seen();
    // The answer 401 itself was not read to its end, so that connection is not kept.
    assert!(seen.iter().filter(|seen| seen.is_closed).all(|seen| seen.heads.len() == 2), "{seen:#?}");
    assert_eq!(seen.iter().filter(|seen| seen.is_closed).count(), 1);
}

#[tokio::test]
async fn with_a_grace_sessions_live_a_little_longer() {
    let scene = Scene::new().await;
    let (x, y) = (scene.server.authority.sign("x", None), scene.server.authority.sign("y", None));
    both(&scene, &x, "a");
    let path = scene.kubeconfig(&scene.cluster(), &json!({"exec": scene.exec()}));
    let door = Door::open_with(&path, &[], &[("TAILPOD_EXEC_ROTATION_GRACE", "1s")]).await;
    let (mut session, _) = door.start(EXEC).await;
    both(&scene, &y, "b");
    scene.server.accept(&["b"]);
    assert_eq!(door.get().await, 200);
    session.write_all(b"x").await.unwrap();
    assert_eq!(session.read_u8().await.unwrap(), b'x');
    scene.server.until("the session's end", |seen| seen[0].is_closed).await;
    assert!(ended(&mut session).await.is_some());
}

#[tokio::test]
async fn scenario_17_a_handshake_that_rotation_overtakes_carries_no_request() {
    let scene = Scene::new().await;
    let (x, y) = (scene.server.authority.sign("x", None), scene.server.authority.sign("y", None));
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_millis(1600);
    let status =
        json!({"clientCertificateData": x.chain, "clientKeyData": x.key, "expirationTimestamp": soon.to_string()});
    scene.answer(&status);
    let door = Door::with_plugin(&scene).await;
    scene.server.hold(true);
    let rotation = async {
        scene.server.until("a connection that waits", |seen| !seen.is_empty()).await;
        scene.answer_pair(&y);
        scene.server.until("the end of the first", |seen| seen[0].is_closed || seen.len() > 1).await;
        scene.server.hold(false);
    };
    let (status, ()) = tokio::join!(door.get(), rotation);
    let seen = scene.server.seen();
    assert_eq!((status, seen[0].heads.len(), seen[1].heads.len()), (200, 0, 1), "{seen:#?}");
    assert_eq!(seen[1].client, Some(y.der));
}

#[tokio::test]
async fn scenario_18_sessions_are_resumed_with_one_certificate_only() {
    let scene = Scene::new().await;
    let (x, y) = (scene.server.authority.sign("x", None), scene.server.authority.sign("y", None));
    both(&scene, &x, "a");
    let door = Door::with_plugin(&scene).await;
    // Each takes a connection for itself; the answer comes behind the server's tickets.
    let mut open = vec![door.start(WATCH).await, door.start(WATCH).await];
    both(&scene, &y, "b");
    scene.server.accept(&["b"]);
    assert_eq!(door.get().await, 200);
    open.push(door.start(WATCH).await);
    open.push(door.start(WATCH).await);
    assert!(open.iter().all(|(_, first)| first.contains(" 200 ")));
    let seen = scene.server.seen().into_iter().filter(|seen| !seen.heads.is_empty());
    let seen: Vec<_> = seen.map(|seen| (seen.kind.unwrap(), seen.client.unwrap())).collect();
    let (x, y) = (x.der, y.der);
    // The third is the request that was answered with 401 first.
    let expected = [(Full, x.clone()), (Resumed, x.clone()), (Resumed, x), (Full, y.clone()), (Resumed, y)];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn scenario_26_a_watch_moves_on_before_the_certificate_ends() {
    let scene = Scene::new().await;
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let end = now() + 3;
    let (x, y) = (scene.server.authority.sign("x", Some(end)), scene.server.authority.sign("y", None));
    let status = |pair: &Pair| json!({"clientCertificateData": pair.chain, "clientKeyData": pair.key, "expirationTimestamp": "2100-01-01T00:00:00Z"});
    scene.answer(&status(&x));
    let door = Door::with_plugin(&scene).await;
    let (mut watch, _) = door.start(WATCH).await;
    scene.answer(&status(&y));
    scene.server.until("the watch closed", |seen| seen[0].is_closed).await;
    assert!(now() < end && ended(&mut watch).await.is_some());
    assert_eq!((door.get().await, scene.runs().len()), (200, 2));
    assert_eq!(scene.server.seen()[1].client, Some(y.der));
}

#[tokio::test]
async fn what_plugins_do_is_counted() {
    let scene = Scene::new().await;
    let end = 4_102_444_800;
    let (x, y) = (scene.server.authority.sign("x", None), scene.server.authority.sign("y", Some(end)));
    both(&scene, &x, "a");
    scene.script("[ ! -e \"$dir/fail\" ] || exit 7\ncat \"$dir/answer\"");
    let path = scene.kubeconfig(&scene.cluster(), &json!({"exec": scene.exec()}));
    let open = async |env: &[(&str, &str)]| {
        let port = crate::support::free_port();
        (Door::open_with(&path, &["--local-addr", &format!("127.0.0.1:{port}")], env).await, port)
    };
    let scrape = async |port| {
        let text = crate::support::get(port, "/metrics").await.body;
        text.lines().filter(|line| line.starts_with("tailpod_exec_plugin_")).map(str::to_owned).collect::<Vec<_>>()
    };
    let (door, port) = open(&[]).await;
    assert_eq!(scrape(port).await, [""; 0], "no plugin, no metrics");
    assert_eq!(door.get().await, 200);
    both(&scene, &y, "b");
    scene.server.accept(&["b"]);
    assert_eq!(door.get().await, 200);
    let counted = scrape(port).await;
    for expected in [
        "calls_total{code=\"0\",call_status=\"no_error\"} 2",
        "policy_decisions_total{decision=\"allowed\"} 2",
        "policy_decisions_total{decision=\"denied\"} 0",
        &format!("certificate_expiry_timestamp_seconds {end}"),
        "certificate_rotation_age_seconds_count 1",
    ] {
        assert!(counted.contains(&format!("tailpod_exec_plugin_{expected}")), "{expected}: {counted:#?}");
    }
    drop(door);

    // As client-go counts: what the program ended with, whatever it said, and no call where there was none.
    std::fs::write(scene.path("fail"), "").unwrap();
    let (failed, ended) = ("code=\"7\",call_status=\"plugin_execution_error\"", "code=\"0\",call_status=\"no_error\"");
    for (policy, calls, denied) in [("AllowAll", &[failed][..], 0), ("AllowAll", &[ended], 0), ("DenyAll", &[], 1)] {
        let (door, port) = open(&[("TAILPOD_EXEC_POLICY", policy)]).await;
        assert_eq!(door.get().await, 502);
        let counted = scrape(port).await;
        let decided = format!("tailpod_exec_plugin_policy_decisions_total{{decision=\"denied\"}} {denied}");
        assert!(counted.contains(&decided), "{counted:#?}");
        let called: Vec<_> = counted.iter().filter(|line| line.contains("calls_total")).cloned().collect();
        let expected: Vec<_> = calls.iter().map(|of| format!("tailpod_exec_plugin_calls_total{{{of}}} 1")).collect();
        assert_eq!(called, expected);
        scene.script("echo no answer");
    }
}
