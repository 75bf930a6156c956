//! Scenarios 14 to 18: what becomes of connections when a plugin brings another client certificate.

use std::time::{Duration, Instant};

use tailpod::k8s::upstream::Tracked;

use super::*;

/// Ten idle connections, five watches, two upgraded streams.
async fn seventeen(upstream: &Upstream) -> Vec<Tracked> {
    let mut open = Vec::new();
    for path in std::iter::repeat_n("/api", 10).chain(std::iter::repeat_n("/watch", 5)).chain(["/exec"; 2]) {
        let (connection, answer) = send(upstream, path).await.unwrap();
        assert!(answer.contains(if path == "/exec" { " 101 " } else { " 200 " }), "{answer}");
        open.push(connection);
    }
    open
}

/// Makes the plugin run again.
async fn reject(upstream: &Upstream) -> bool {
    let used = upstream.credentials().await.unwrap();
    upstream.rejected(&used).await
}

#[tokio::test]
async fn scenario_14_another_certificate_closes_every_connection_of_the_old_one() {
    let scene = Scene::new().await;
    let (x, y) = (scene.server.authority.sign("x", None), scene.server.authority.sign("y", None));
    scene.answer_pair(&x);
    let upstream = scene.upstream().await;
    let mut open = seventeen(&upstream).await;
    scene.answer_pair(&y);
    let begun = Instant::now();
    assert!(reject(&upstream).await);
    scene.server.until("all closed", |seen| seen.iter().all(|seen| seen.is_closed)).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    for connection in &mut open {
        assert!(connection.is_cancelled() && connection.is_retired());
        assert!(connection.read(&mut [0; 1024]).await.is_err());
        assert!(connection.write_all(b"x").await.is_err());
    }
    assert_eq!(status(&upstream, "/api").await, Ok(200));
    let seen = scene.server.seen();
    assert!(seen[..17].iter().all(|seen| seen.client.as_ref() == Some(&x.der)));
    assert_eq!(seen[17].client, Some(y.der));
    assert_eq!(scene.runs().len(), 2);
}

#[tokio::test]
async fn scenario_14_a_stream_that_is_waited_on_ends_at_once() {
    let scene = Scene::new().await;
    scene.answer_pair(&scene.server.authority.sign("x", None));
    let upstream = scene.upstream().await;
    let (mut stream, _) = send(&upstream, "/exec").await.unwrap();
    scene.answer(&json!({"token": "only"}));
    let mut buffer = [0; 8];
    let (read, changed) = tokio::join!(stream.read(&mut buffer), reject(&upstream));
    let error = read.unwrap_err();
    assert!(changed && error.to_string().contains("the client certificate was replaced"), "{error}");
    // A certificate that comes back is another one than none.
    let (mut bare, _) = send(&upstream, "/watch").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!is_closed(&mut bare).await);
}

#[tokio::test]
async fn scenario_15_another_token_closes_nothing() {
    let scene = Scene::new().await;
    let x = scene.server.authority.sign("x", None);
    let status = |token: &str| json!({"token": token, "clientCertificateData": x.chain, "clientKeyData": x.key});
    scene.answer(&status("a"));
    let upstream = scene.upstream().await;
    let mut open = seventeen(&upstream).await;
    scene.answer(&status("b"));
    assert!(reject(&upstream).await);
    let (_, answer) = send(&upstream, "/api").await.unwrap();
    assert!(answer.contains(" 200 "));
    let heads = scene.server.heads();
    assert!(heads[0].contains("Bearer a\r\n") && heads[17].contains("Bearer b\r\n"), "a token and a certificate, both");
    assert!(scene.server.seen().iter().take(17).all(|seen| !seen.is_closed && seen.client.as_ref() == Some(&x.der)));
    for connection in &mut open[..2] {
        assert!(!is_closed(connection).await);
    }
}

#[tokio::test]
async fn scenario_16_the_same_certificate_again_closes_nothing() {
    let scene = Scene::new().await;
    scene.answer_pair(&scene.server.authority.sign("x", None));
    let upstream = scene.upstream().await;
    let open = seventeen(&upstream).await;
    assert!(!reject(&upstream).await, "there is nothing new to try with");
    assert_eq!(scene.runs().len(), 2);
    assert_eq!(status(&upstream, "/api").await, Ok(200));
    assert!(open.iter().all(|connection| !connection.is_cancelled()));
    assert!(scene.server.seen().iter().take(17).all(|seen| !seen.is_closed));
}

#[tokio::test]
async fn scenario_17_a_handshake_that_rotation_overtakes_is_not_used() {
    let scene = Scene::new().await;
    let (x, y) = (scene.server.authority.sign("x", None), scene.server.authority.sign("y", None));
    scene.answer_pair(&x);
    let upstream = scene.upstream().await;
    upstream.credentials().await.unwrap();
    scene.server.hold(true);
    let rotation = async {
        scene.server.until("a connection that waits", |seen| !seen.is_empty()).await;
        scene.answer_pair(&y);
        assert!(reject(&upstream).await);
        scene.server.hold(false);
    };
    let (sent, ()) = tokio::join!(send(&upstream, "/api"), rotation);
    let (connection, answer) = sent.unwrap();
    assert!(answer.contains(" 200 ") && !connection.is_retired() && connection.generation() == 1);
    let seen = scene.server.seen();
    assert_eq!((seen.len(), seen[0].heads.len(), seen[1].heads.len()), (2, 0, 1), "nothing was sent on the first");
    assert_eq!(seen[1].client, Some(y.der));
}

#[tokio::test]
async fn scenario_18_tls_sessions_are_not_resumed_with_another_certificate() {
    use rustls::HandshakeKind::{Full, Resumed};
    let scene = Scene::new().await;
    let (x, y) = (scene.server.authority.sign("x", None), scene.server.authority.sign("y", None));
    scene.answer_pair(&x);
    let upstream = scene.upstream().await;
    for _ in 0..2 {
        // The answer comes behind the server's tickets.
        assert_eq!(status(&upstream, "/api").await, Ok(200));
    }
    scene.answer_pair(&y);
    assert!(reject(&upstream).await);
    for _ in 0..2 {
        assert_eq!(status(&upstream, "/api").await, Ok(200));
    }
    let seen: Vec<_> = scene.server.seen().into_iter().map(|seen| (seen.kind.unwrap(), seen.client.unwrap())).collect();
    assert_eq!(seen, [(Full, x.der.clone()), (Resumed, x.der), (Full, y.der.clone()), (Resumed, y.der)]);
}

#[tokio::test]
async fn with_a_grace_idle_connections_go_at_once_and_busy_ones_after_it() {
    let scene = Scene::new().await;
    scene.answer_pair(&scene.server.authority.sign("x", None));
    let path = scene.kubeconfig(&scene.cluster(), &json!({"exec": scene.exec()}));
    let mut surroundings = surroundings();
    surroundings.exec.rotation_grace = Duration::from_millis(400);
    let upstream = open(&path, &surroundings).await.unwrap();
    let (idle, _) = send(&upstream, "/api").await.unwrap();
    let (mut busy, _) = send(&upstream, "/exec").await.unwrap();
    assert!(idle.set_idle(true));
    scene.answer_pair(&scene.server.authority.sign("y", None));
    assert!(reject(&upstream).await);
    scene.server.until("the idle one closed", |seen| seen[0].is_closed).await;
    assert!(idle.is_cancelled() && busy.is_retired() && !busy.is_cancelled());
    busy.write_all(b"still").await.unwrap();
    let mut echo = [0; 5];
    busy.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"still");
    assert!(!busy.set_idle(true), "not to be kept");
    assert!(busy.read(&mut echo).await.is_err(), "after the grace");
}
