//! Scenarios 8 to 13, 19 to 21 and 26: when a plugin runs, for whom, and what ends it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tailpod::k8s::Cluster;
use tailpod::k8s::upstream::CredentialError;
use tokio::task::JoinSet;

use super::*;

#[tokio::test]
async fn scenario_08_five_hundred_first_requests_are_one_run() {
    let scene = Scene::new().await;
    scene.answer(&json!({"token": "t"}));
    scene.script("sleep 0.1\ncat \"$dir/answer\"");
    let (one, another) = (scene.upstream().await, scene.upstream().await);
    let mut asking = JoinSet::new();
    for index in 0..500 {
        let upstream = if index % 2 == 0 { one.clone() } else { another.clone() };
        asking.spawn(async move { token(&upstream).await });
    }
    for got in asking.join_all().await {
        assert_eq!(got.as_deref(), Ok("Bearer t"));
    }
    assert_eq!(scene.runs().len(), 1, "also for two clients of one configuration");
}

#[tokio::test]
async fn scenario_09_a_failing_plugin_is_not_run_for_everybody() {
    let scene = Scene::new().await;
    scene.answer(&json!({"token": "t"}));
    let until = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 2;
    scene.script(&format!("[ $(date +%s) -ge {until} ] || exit 7\ncat \"$dir/answer\""));
    let upstream = scene.upstream().await;
    let mut asking = JoinSet::new();
    for _ in 0..500 {
        let upstream = upstream.clone();
        asking.spawn(async move {
            let mut failures = 0;
            while let Err(error) = token(&upstream).await {
                assert_eq!(error, "exec: executable /bin/sh failed with exit code 7");
                failures += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            failures
        });
    }
    assert!(asking.join_all().await.into_iter().all(|failures| failures > 0));
    assert!((2..=4).contains(&scene.runs().len()), "{}", scene.runs().len());
}

/// Prints a token that is good for six seconds; from the second run on one for a second, once the gate is open.
pub(super) const GATED: &str = r#"
n=$(wc -l < "$dir/runs")
life=${life:-6}
[ "$n" -eq 1 ] || { life=1; while [ ! -e "$dir/gate" ]; do sleep 0.02; done; }
printf '{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{"token":"t%s","expirationTimestamp":"%s"}}' \
  "$n" "$(date -u -d "+$life seconds" +%Y-%m-%dT%H:%M:%S.%NZ)"
"#;

#[tokio::test]
async fn scenario_10_a_token_is_refreshed_before_it_ends_and_nobody_waits() {
    let scene = Scene::new().await;
    scene.script(GATED);
    let upstream = scene.upstream().await;
    let begun = Instant::now();
    while scene.runs().len() < 2 {
        assert!(token(&upstream).await.unwrap().ends_with("t1"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for _ in 0..20 {
        assert!(token(&upstream).await.unwrap().ends_with("t1"), "the refresh has not ended");
    }
    std::fs::write(scene.path("gate"), "").unwrap();
    while token(&upstream).await.unwrap().ends_with("t1") {
        assert!(begun.elapsed() < Duration::from_secs(6), "the first has ended");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn scenario_11_many_401s_are_one_run() {
    let scene = Scene::new().await;
    scene.answer(&json!({"token": "a"}));
    let upstream = scene.upstream().await;
    let used = upstream.credentials().await.unwrap();
    scene.answer(&json!({"token": "b"}));
    scene.server.accept(&["b"]);
    let mut asking = JoinSet::new();
    for _ in 0..100 {
        let (upstream, used) = (upstream.clone(), used.clone());
        asking.spawn(async move {
            let (_, answer) = send(&upstream, "/api").await.unwrap();
            if answer.contains("401") { upstream.rejected(&used).await } else { true }
        });
    }
    assert!(asking.join_all().await.into_iter().all(|is_new| is_new));
    assert_eq!(scene.runs().len(), 2);
    assert_eq!(status(&upstream, "/api").await, Ok(200));
}

#[tokio::test]
async fn scenario_12_a_401_is_not_the_users_affair_when_there_are_new_credentials() {
    let scene = Scene::new().await;
    scene.script("n=$(wc -l < \"$dir/runs\")\nsed s/NUMBER/$n/ \"$dir/answer\"");
    scene.answer(&json!({"token": "tNUMBER"}));
    scene.server.accept(&["t2"]);
    let path = scene.kubeconfig(&scene.cluster(), &json!({"exec": scene.exec()}));
    let cluster = Cluster::connect(&KubeAccess::Kubeconfig { path, context: None }, "test").await.unwrap();
    assert!(cluster.secret("s").await.unwrap().is_some());
    assert_eq!(scene.runs().len(), 2);
    let tokens: Vec<_> = scene.server.heads().iter().map(|head| head.contains("Bearer t2")).collect();
    assert_eq!(tokens, [false, true]);
}

#[tokio::test]
async fn scenario_13_a_flood_of_401s_does_not_drive_the_plugin() {
    // Over a minute and every moment of it: `schedule/tests.rs`, `many_401s_are_one_run_and_a_flood_one_in_five_seconds`.
    let scene = Scene::new().await;
    scene.answer(&json!({"token": "stale"}));
    scene.server.accept(&[]);
    let upstream = scene.upstream().await;
    for _ in 0..50 {
        let used = upstream.credentials().await.unwrap();
        assert_eq!(status(&upstream, "/api").await, Ok(401));
        assert!(!upstream.rejected(&used).await);
    }
    assert_eq!(scene.runs().len(), 2, "the first run and one that was forced");
}

#[tokio::test]
async fn scenario_19_a_broken_answer_does_not_revive_the_old_credentials() {
    let scene = Scene::new().await;
    let in_a_day = "2100-01-01T00:00:00Z";
    let (ours, other) = (scene.server.authority.sign("a", None), scene.server.authority.sign("b", None));
    let broken =
        json!({"clientCertificateData": ours.chain, "clientKeyData": other.key, "expirationTimestamp": in_a_day});
    scene.answer(&broken);
    scene.script(&format!("[ -e \"$dir/second\" ] && exec cat \"$dir/answer\"\n: > \"$dir/second\"\nlife=2\n{GATED}"));
    let upstream = scene.upstream().await;
    let begun = Instant::now();
    assert_eq!(token(&upstream).await.as_deref(), Ok("Bearer t1"));
    let ended = loop {
        match token(&upstream).await {
            Ok(held) => assert_eq!(held, "Bearer t1"),
            Err(error) => break error,
        }
        assert!(begun.elapsed() < Duration::from_secs(4), "the old credentials have been revived");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(ended, "failed parsing client key/certificate: tls: private key does not match public key");
    assert!(begun.elapsed() > Duration::from_millis(1800), "in use until their end: {:?}", begun.elapsed());
}

#[tokio::test]
async fn scenario_20_a_plugin_that_hangs_is_killed_with_its_children() {
    let scene = Scene::new().await;
    scene.script("sleep 1000 &\necho $! > \"$dir/child\"\nwait");
    let path = scene.kubeconfig(&scene.cluster(), &json!({"exec": scene.exec()}));
    let mut surroundings = surroundings();
    surroundings.exec.time_limit = Duration::from_millis(300);
    let upstream = open(&path, &surroundings).await.unwrap();
    let begun = Instant::now();
    let error = upstream.credentials().await.unwrap_err();
    assert!(matches!(error, CredentialError::TimedOut { .. }), "{error}");
    assert_eq!(error.to_string(), "exec: executable /bin/sh did not finish within 300ms");
    assert!(begun.elapsed() < Duration::from_secs(2));
    let child = std::fs::read_to_string(scene.path("child")).unwrap();
    let gone = || {
        // A zombie is gone, too: whoever adopted it has not looked yet.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    };
    for _ in 0..100 {
        if gone() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(gone(), "the plugin's child lives on");
    assert_eq!(upstream.credentials().await.unwrap_err(), error, "backing off");
    assert_eq!(scene.runs().len(), 1);
    scene.answer(&json!({"token": "t"}));
    scene.script("cat \"$dir/answer\"");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(token(&upstream).await.as_deref(), Ok("Bearer t"));
}

#[tokio::test]
async fn scenario_21_a_plugin_that_never_stops_talking_is_killed() {
    let scene = Scene::new().await;
    scene.script("head -c 104857600 /dev/zero && : > \"$dir/finished\"");
    let upstream = scene.upstream().await;
    let error = token(&upstream).await.unwrap_err();
    assert_eq!(error, "exec: executable /bin/sh printed more than 1048576 bytes");
    assert!(!scene.path("finished").exists());
}

#[tokio::test]
async fn scenario_26_the_end_of_the_certificate_counts() {
    let scene = Scene::new().await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (first, second) = (scene.server.authority.sign("x", Some(now + 3)), scene.server.authority.sign("y", None));
    let status = |pair: &Pair| json!({"clientCertificateData": pair.chain, "clientKeyData": pair.key, "expirationTimestamp": "2100-01-01T00:00:00Z"});
    scene.answer(&status(&first));
    let upstream = scene.upstream().await;
    let (_watch, _) = send(&upstream, "/watch").await.unwrap();
    assert_eq!(scene.server.seen()[0].client, Some(first.der));
    scene.answer(&status(&second));
    scene.server.until("the first connection closed", |seen| seen[0].is_closed).await;
    assert!(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() < now + 3, "before its end");
    assert_eq!(super::status(&upstream, "/api").await, Ok(200));
    assert_eq!(scene.server.seen()[1].client, Some(second.der));
    assert_eq!(scene.runs().len(), 2);
}
