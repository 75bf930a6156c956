//! Advertised Services: scenarios 51 and 52 of boot.md, 27 to 29 of certs.md, and the weaknesses W3, W4 and W30.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tailpod::sandbox::{Call, Fault};

use super::{FLAG, Stage, advertised, lists, services};
use crate::support::{SOON, Scene, running, running_as};

const PATCH: &str = "PATCH prefs";

#[tokio::test]
async fn s51_cw12_services_are_advertised_once_and_nothing_waits_for_it() {
    let scene = Scene::new().await.with("TAILPOD_WITHDRAW_WAIT", "0s");
    scene.daemon().put_serve_config(services(&["svc:b", "svc:a"]));
    let boot = scene.boot();
    let begin = Instant::now();
    scene.notify(running()).await;
    boot.ready().await;
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    advertised(&scene, &["svc:a", "svc:b"]).await;
    let looks = scene.daemon().count("GET serve-config");
    scene.daemon().notify(running_as("myID", "test-node.test.ts.net.", &["100.64.0.2"]));
    scene.daemon().await_count("GET serve-config", looks + 1, SOON).await.expect("another look");
    assert_eq!(lists(&scene), [json!(["svc:a", "svc:b"])], "once");
    boot.stops().await;
}

#[tokio::test]
async fn s51_unless_that_is_somebody_elses() {
    let scene = Scene::new().await.with(FLAG, "false");
    scene.daemon().put_serve_config(services(&["svc:a"]));
    let boot = scene.boot();
    scene.notify(running()).await;
    boot.ready().await;
    scene.notify(running()).await;
    boot.stops().await;
    assert_eq!(lists(&scene), [Value::Null; 0]);
}

/// Also W30: the node serves nothing any more, so all Services are withdrawn; the sandbox's state is in memory, so there
/// is nothing to remember.
#[tokio::test]
async fn s52_services_are_withdrawn_on_stop() {
    let scene = Scene::new().await.with("TAILPOD_WITHDRAW_WAIT", "300ms");
    let mut boot = scene.boot();
    scene.notify(running()).await;
    boot.ready().await;
    scene.daemon().set_prefs(json!({"AdvertiseServices": ["svc:a"]}));
    let begin = Instant::now();
    boot.signal(Signal::SIGTERM);
    advertised(&scene, &[]).await;
    assert_eq!(scene.daemon().signals(), [""; 0], "peers are given time");
    let ended = boot.ends(0).await;
    assert!(begin.elapsed() >= Duration::from_millis(300), "{:?}", begin.elapsed());
    assert!(ended.says("unadvertising services: [\"svc:a\"]"), "{}", ended.text());
    assert_eq!((lists(&scene), scene.daemon().signals()), (vec![json!([])], vec!["SIGTERM".to_owned()]));
}

/// W3: however many netmaps come, the list is changed once, and what others put there stays.
#[tokio::test]
async fn w03_cw12_a_busy_tailnet_changes_nothing() {
    let stage =
        Stage::new(Scene::new().await.with("TAILPOD_WITHDRAW_WAIT", "0s"), Some(&services(&["svc:a"]).to_string()));
    let boot = stage.scene.boot();
    stage.scene.daemon().await_running(1, SOON).await.expect("tailscaled");
    stage.scene.daemon().set_prefs(json!({"AdvertiseServices": ["svc:hand"]}));
    stage.ready(&boot).await;
    advertised(&stage.scene, &["svc:a", "svc:hand"]).await;
    let begin = Instant::now();
    for number in 0..300 {
        let mut message = running();
        message["SelfChange"]["Addresses"] = json!([format!("100.64.1.{}/32", number % 200)]);
        stage.scene.daemon().notify(message);
    }
    // The loop keeps up: a signal sent now is answered now.
    let ended = boot.stops().await;
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    assert_eq!(lists(&stage.scene)[0], json!(["svc:a", "svc:hand"]));
    assert_eq!(lists(&stage.scene).len(), 2, "one to advertise, one to withdraw: {}", ended.text());
}

/// W4: what comes into the file is advertised without any other event, and what leaves it is withdrawn.
#[tokio::test]
async fn w04_cw12_an_edit_is_advertised_and_what_vanished_is_withdrawn() {
    let stage = Stage::new(
        Scene::new().await.with("TAILPOD_WITHDRAW_WAIT", "0s"),
        Some(&services(&["svc:a", "svc:b"]).to_string()),
    );
    let boot = stage.scene.boot();
    stage.scene.daemon().await_running(1, SOON).await.expect("tailscaled");
    stage.scene.daemon().set_prefs(json!({"AdvertiseServices": ["svc:hand"]}));
    stage.ready(&boot).await;
    advertised(&stage.scene, &["svc:a", "svc:b", "svc:hand"]).await;
    stage.write(&services(&["svc:b", "svc:c"]).to_string());
    advertised(&stage.scene, &["svc:b", "svc:c", "svc:hand"]).await;
    stage.write("{}");
    advertised(&stage.scene, &["svc:hand"]).await;
    boot.stops().await;
}

/// W4: a Service that a run before this one served and that the file no longer names.
#[tokio::test]
async fn w04_leftovers_of_a_run_that_was_killed_are_withdrawn() {
    for name in ["containerboot", "tailpod"] {
        let stage = Stage::new(
            Scene::new().await.with("TAILPOD_WITHDRAW_WAIT", "0s"),
            Some(&services(&["svc:new"]).to_string()),
        );
        stage.scene.daemon().put_serve_config(services(&["svc:old"]));
        let args: &[&str] = if name == "tailpod" { &["boot"] } else { &[] };
        let boot = stage.scene.start(name, args, &[]);
        stage.scene.daemon().await_running(1, SOON).await.expect("tailscaled");
        stage.scene.daemon().set_prefs(json!({"AdvertiseServices": ["svc:hand", "svc:old"]}));
        stage.ready(&boot).await;
        advertised(&stage.scene, &["svc:hand", "svc:new"]).await;
        boot.stops().await;
    }
}

/// W30: what was advertised by hand is withdrawn too while the node is away, and remembered for its return: put back when
/// control no longer hears of it.
#[tokio::test]
async fn w30_services_advertised_by_hand_survive_a_restart() {
    let scene = Scene::new().await.with_all(&[("TS_STATE_DIR", "/x"), ("TAILPOD_WITHDRAW_WAIT", "100ms")]);
    let stage = Stage::new(scene, Some(&services(&["svc:ours"]).to_string()));
    let boot = stage.scene.boot();
    stage.scene.daemon().await_running(1, SOON).await.expect("tailscaled");
    stage.scene.daemon().set_prefs(json!({"AdvertiseServices": ["svc:hand"]}));
    stage.ready(&boot).await;
    advertised(&stage.scene, &["svc:hand", "svc:ours"]).await;
    boot.stops().await;
    let calls: Vec<String> = stage.scene.daemon().calls().iter().map(Call::what).collect();
    let last: Vec<_> = calls.iter().map(String::as_str).filter(|call| call.starts_with('P')).collect();
    assert_eq!(last[last.len() - 3..], [PATCH, "POST disconnect-control", PATCH]);
    assert_eq!(lists(&stage.scene)[1..], [json!([]), json!(["svc:hand"])]);
}

#[tokio::test]
async fn c27_two_services_are_withdrawn_before_the_daemon_ends() {
    let stage = Stage::new(Scene::new().await, Some(&services(&["svc:a", "svc:b"]).to_string()));
    let mut boot = stage.scene.boot_with(&[("TAILPOD_WITHDRAW_WAIT", "1s")]);
    stage.ready(&boot).await;
    advertised(&stage.scene, &["svc:a", "svc:b"]).await;
    boot.signal(Signal::SIGTERM);
    boot.mentioned("serving on for 1s while peers fail over").await;
    assert_eq!(stage.scene.daemon().prefs()["AdvertiseServices"], json!([]));
    let begin = Instant::now();
    stage.scene.daemon().await_signals(1, SOON).await.expect("SIGTERM");
    assert!(begin.elapsed() > Duration::from_millis(700), "{:?}", begin.elapsed());
    let ended = boot.ends(0).await;
    assert!(ended.says("unadvertising services: [\"svc:a\", \"svc:b\"]"), "{}", ended.text());
}

/// The default wait is upstream's, and cannot be longer: with the daemon's own end it stays below Kubernetes' 30 s.
#[tokio::test]
async fn c27_the_wait_is_20_seconds_at_most_and_a_second_signal_ends_it() {
    for vars in [&[][..], &[("TAILPOD_WITHDRAW_WAIT", "1h")]] {
        let stage = Stage::new(Scene::new().await, Some(&services(&["svc:a"]).to_string()));
        let mut boot = stage.scene.boot_with(vars);
        stage.ready(&boot).await;
        advertised(&stage.scene, &["svc:a"]).await;
        boot.signal(Signal::SIGTERM);
        boot.mentioned("serving on for 20s while peers fail over").await;
        boot.signal(Signal::SIGTERM);
        let ended = boot.ends(0).await;
        assert!(ended.mentions("second signal (SIGTERM): not waiting any longer"), "{}", ended.text());
    }
}

#[tokio::test]
async fn c28_nothing_advertised_nothing_waited_for() {
    let scene = Scene::new().await;
    let boot = scene.boot();
    scene.notify(running()).await;
    boot.ready().await;
    let begin = Instant::now();
    let ended = boot.stops().await;
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    assert!(!ended.mentions("serving on for") && lists(&scene).is_empty(), "{}", ended.text());
}

#[tokio::test]
async fn c29_a_config_file_that_advertises_is_not_interfered_with() {
    let file =
        json!({"version": "alpha0", "AuthKey": "k", "Locked": false, "AdvertiseServices": ["svc:x"]}).to_string();
    for (vars, wanted) in [(&[][..], vec![]), (&[(FLAG, "true")], vec![json!(["svc:a"])])] {
        let scene = Scene::kube([("authkey", "k")]).await.with("TAILPOD_WITHDRAW_WAIT", "0s");
        let (scene, _volume) = scene.with_config(&[("cap-95.hujson", &file)]);
        let stage = Stage::new(scene, Some(&services(&["svc:a"]).to_string()));
        let mut boot = stage.scene.boot_with(vars);
        stage.ready(&boot).await;
        stage.posts(2, &boot).await;
        if !wanted.is_empty() {
            advertised(&stage.scene, &["svc:a"]).await;
        }
        boot.lives();
        assert_eq!(lists(&stage.scene), wanted);
        boot.stops().await;
    }
}

/// A daemon that refuses is asked again, and says so once.
#[tokio::test]
async fn a_list_that_cannot_be_changed_is_tried_again() {
    let stage =
        Stage::new(Scene::new().await.with("TAILPOD_WITHDRAW_WAIT", "0s"), Some(&services(&["svc:a"]).to_string()));
    let boot = stage.scene.boot();
    stage.scene.daemon().await_running(1, SOON).await.expect("tailscaled");
    stage.scene.daemon().fail_next("prefs", Fault::Status(500, "state store is full\n".to_owned()));
    stage.ready(&boot).await;
    boot.mentioned("the node's Services are not advertised as they should be, trying on: ").await;
    advertised(&stage.scene, &["svc:a"]).await;
    boot.stops().await;
}
