//! What a 401 of the API server means for a peer of `tailpod proxy`: scenarios 11 to 13 through the front door.

use std::time::{Duration, Instant};

use super::door::{Door, EXEC, asked_at_once};
use super::runs::GATED;
use super::*;
use crate::support::{free_port, get};

/// A plugin whose answer has the number of the run for NUMBER.
fn numbered(scene: &Scene) {
    scene.script("n=$(wc -l < \"$dir/runs\")\nsed s/NUMBER/$n/ \"$dir/answer\"");
    scene.answer(&json!({"token": "tNUMBER"}));
}

/// The API server takes the second token only.
async fn refused_at_first() -> (Scene, Door) {
    let scene = Scene::new().await;
    numbered(&scene);
    scene.server.accept(&["t2"]);
    let door = Door::with_plugin(&scene).await;
    (scene, door)
}

#[tokio::test]
async fn scenario_11_and_12_a_401_is_not_the_peers_affair() {
    let scene = Scene::new().await;
    numbered(&scene);
    let door = Door::with_plugin(&scene).await;
    assert_eq!(door.get().await, 200);
    scene.server.accept(&["t2"]);
    let (door, statuses) = asked_at_once(door, 100, "GET /api").await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert_eq!(scene.runs().len(), 2, "100 times 401 are one run");
    drop(door);

    let (scene, door) = refused_at_first().await;
    let answer = door.ask("POST /api/v1/namespaces/ns/configmaps", "Content-Length: 4\r\n\r\nbody").await;
    assert_eq!(answer.status, 200);
    let sent: Vec<_> = scene.server.heads().into_iter().filter(|head| head.starts_with("POST ")).collect();
    assert!(sent.len() == 2 && sent.iter().all(|head| head.ends_with("\r\n\r\nbody")), "all of it, twice: {sent:?}");
    assert_eq!(sent.iter().filter(|head| head.contains("Bearer t2\r\n")).count(), 1);
}

#[tokio::test]
async fn what_cannot_be_repeated_is_answered_with_503_and_then_works() {
    let (scene, door) = refused_at_first().await;
    let (_, first) = door.start(EXEC).await;
    assert!(first.starts_with("HTTP/1.1 503 ") && first.contains("\r\nretry-after: 1\r\n"), "{first}");
    let (_, again) = door.start(EXEC).await;
    assert!(again.starts_with("HTTP/1.1 101 "), "{again}");
    assert_eq!(scene.runs().len(), 2);
    drop(door);

    let large = format!("Content-Length: 65537\r\n\r\n{}", "x".repeat(65537));
    for body in [large.as_str(), "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"] {
        let (scene, door) = refused_at_first().await;
        let answer = door.ask("POST /api/v1/namespaces/ns/configmaps", body).await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
        assert_eq!(door.ask("POST /api/v1/namespaces/ns/configmaps", body).await.status, 200);
        assert_eq!(scene.runs().len(), 2);
    }
}

#[tokio::test]
async fn scenario_13_a_peer_that_provokes_401s_does_not_drive_the_plugin() {
    let scene = Scene::new().await;
    scene.answer(&json!({"token": "stale"}));
    scene.server.accept(&[]);
    let door = Door::with_plugin(&scene).await;
    let begun = Instant::now();
    for _ in 0..50 {
        let answer = door.ask("GET /api", "").await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    }
    let most = 2 + usize::try_from(begun.elapsed().as_secs() / 5).unwrap();
    assert!(scene.runs().len() <= most, "{} in {:?}", scene.runs().len(), begun.elapsed());
}

#[tokio::test]
async fn nobody_waits_for_a_renewal_when_the_client_is_gone() {
    let scene = Scene::new().await;
    scene.script(&format!("life=3600\n{GATED}"));
    let port = free_port();
    let path = scene.kubeconfig(&scene.cluster(), &json!({"exec": scene.exec()}));
    let door = Door::open_with(&path, &["--local-addr", &format!("127.0.0.1:{port}")], &[]).await;
    assert_eq!(door.get().await, 200);
    scene.server.accept(&["t2"]);
    let client = door.begin("/api").await;
    let begun = Instant::now();
    let until = async |what: &str, is_so: &dyn Fn(&str) -> bool| {
        while !is_so(&get(port, "/metrics").await.body) {
            assert!(begun.elapsed() < SOON, "{what}");
        }
    };
    until("the renewal", &|_| scene.runs().len() == 2).await;
    drop(client);
    let is_left = |metrics: &str| metrics.lines().any(|line| line == "tailpod_proxy_connections 0");
    until("the connection's end", &is_left).await;
    // The plugin looks for it.
    std::fs::write(scene.path("gate"), "").unwrap();
    while door.get().await != 200 {
        assert!(begun.elapsed() < SOON, "the renewal was given up");
    }
    assert!(
        scene.server.heads().iter().any(|head| head.contains("Bearer t2\r\n")),
        "it went on for whoever comes next"
    );
}

/// What a Service answers is passed on, but it may have been the API server about our token.
#[tokio::test]
async fn a_401_from_behind_the_api_server_is_passed_on_and_looked_into() {
    let service = "GET /api/v1/namespaces/ns/services/s/proxy/";
    for user in ["plugin", "kubeconfig"] {
        let scene = Scene::new().await;
        numbered(&scene);
        let user = if user == "plugin" { json!({"exec": scene.exec()}) } else { json!({"token": "t1"}) };
        let door = Door::open(&scene, &user).await;
        assert_eq!(door.ask(service, "").await.status, 200);
        scene.server.accept(&["t2"]);
        scene.kubeconfig(&scene.cluster(), &json!({"token": "t2"}));
        assert_eq!(door.ask(service, "").await.status, 401);
        let begun = Instant::now();
        while door.ask(service, "").await.status != 200 {
            assert!(begun.elapsed() < Duration::from_secs(4), "the token is never renewed");
        }
        // And whoever provokes them does not drive the plugin.
        scene.server.accept(&[]);
        for _ in 0..20 {
            assert_eq!(door.ask(service, "").await.status, 401);
        }
        assert!(scene.runs().len() <= 3, "{}", scene.runs().len());
    }
}

#[tokio::test]
async fn a_token_of_the_kubeconfig_is_read_again_when_it_is_not_accepted() {
    let scene = Scene::new().await;
    let door = Door::open(&scene, &json!({"token": "one"})).await;
    assert_eq!(door.get().await, 200);
    scene.server.accept(&["two"]);
    scene.kubeconfig(&scene.cluster(), &json!({"token": "two"}));
    assert_eq!(door.get().await, 200);
    let heads = scene.server.heads();
    assert!(heads[2].contains("Bearer two\r\n") && heads.len() == 3, "{heads:?}");
}
