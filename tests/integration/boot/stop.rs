//! The ways out: signals, deadlines, a state that is lost, a daemon that dies.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tailpod::sandbox::{CliScript, DaemonScript};

use crate::support::{Ended, SOON, Scene, free_port, get, running, state};

/// Asserts that these messages are there in this order.
fn in_order(ended: &Ended, messages: &[&str]) {
    let mut rest = ended.messages().into_iter();
    for message in messages {
        assert!(rest.any(|said| said == *message), "{message:?} is missing, or out of order, in\n{}", ended.text());
    }
}

#[tokio::test]
async fn s54_stop_while_state_is_half_written() {
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let scene = Scene::kube([("authkey", "k")])
        .await
        .with_all(&[("TS_ENABLE_HEALTH_CHECK", "true"), ("TS_LOCAL_ADDR_PORT", &address)]);
    let mut boot = scene.boot();
    scene.notify(running()).await;
    boot.ready().await;
    scene.put_keys(&[("_machinekey", "m"), ("_profiles", "{}"), ("profile-x", "p")]);
    boot.signal(Signal::SIGTERM);
    boot.said("Waiting for tailscaled to finish writing state to Secret \"tailscale\"").await;
    assert_eq!(scene.daemon().signals(), [""; 0], "not while the state is half written");
    // boot.md 9.2: the node still works, so traffic is not taken away from it before its end.
    assert_eq!(get(port, "/healthz").await.status, 200);
    assert_eq!(get(port, "/livez").await.status, 200);
    let ready = get(port, "/readyz").await;
    assert_eq!((ready.status, ready.body.contains("the node is being stopped")), (503, true), "{}", ready.body);
    scene.put_keys(&[("_current-profile", "profile-x")]);
    let ended = boot.ends(0).await;
    let closed = format!("HTTP server at {address} closed");
    in_order(
        &ended,
        &[
            "Checking for consistent state",
            "Waiting for tailscaled to finish writing state to Secret \"tailscale\"",
            "Sending SIGTERM to tailscaled",
            "tailscaled exited",
        ],
    );
    assert!(ended.says(&closed), "{}", ended.text());
    assert!(!ended.says("Setting healthy false"), "{}", ended.text());
    assert_eq!(scene.daemon().signals(), ["SIGTERM"]);
}

#[tokio::test]
async fn s55_stop_after_ready() {
    for (scene, signal) in [
        (Scene::new().await, Signal::SIGTERM),
        (Scene::new().await, Signal::SIGINT),
        (Scene::kube([("authkey", "k")]).await, Signal::SIGTERM),
    ] {
        let mut boot = scene.boot();
        scene.notify(running()).await;
        boot.ready().await;
        boot.signal(signal);
        let ended = boot.ends(0).await;
        in_order(&ended, &["Sending SIGTERM to tailscaled", "tailscaled exited"]);
        assert_eq!(scene.daemon().signals(), ["SIGTERM"], "exactly one, whatever we got");
        assert!(!scene.sandbox.pod().socket().exists(), "it was waited for");
    }
}

#[tokio::test]
async fn s56_left_running() {
    let scene = Scene::new().await;
    let mut boot = scene.boot();
    scene.notify(running()).await;
    boot.ready().await;
    scene.notify(state(4)).await;
    let ended = boot.ends(1).await;
    assert_eq!(ended.messages().iter().filter(|message| message.contains("left running state")).count(), 1);
    assert!(ended.says("tailscaled left running state (now in state \"Stopped\"), exiting"), "{}", ended.text());
    assert_eq!(scene.daemon().signals(), ["SIGTERM"]);
}

#[tokio::test]
async fn s57_boot_timeout() {
    let scene = Scene::new().await.with("TS_BOOT_TIMEOUT", "2s");
    let start = Instant::now();
    let mut boot = scene.boot();
    scene.notify(state(5)).await;
    boot.said("tailscaled in state \"Starting\", waiting").await;
    let ended = boot.ends(1).await;
    assert!(start.elapsed() >= Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(ended.last(), "reading tailscaled IPN bus: context deadline exceeded");
    assert_eq!(scene.daemon().signals(), ["SIGTERM"]);

    let ended = scene.boot_with(&[("TS_BOOT_TIMEOUT", "90")]).ends(1).await;
    assert!(ended.mentions("error parsing TS_BOOT_TIMEOUT value \"90\": "), "{}", ended.text());
    assert_eq!(scene.daemon().starts(), 1, "no second daemon");

    let ended = scene.start("tailpod", &["boot", "--print-settings"], &[("TS_BOOT_TIMEOUT", "")]).ends(0).await;
    assert!(ended.mentions("\"bootTimeout\":\"1m0s\""), "{}", ended.text());
}

#[tokio::test]
async fn s57_boot_timeout_while_up_waits_for_a_human() {
    let scene = Scene::new().await.with("TS_BOOT_TIMEOUT", "1s");
    scene.daemon().cli("up", CliScript { block: true, ..CliScript::default() });
    let ended = scene.boot().ends(1).await;
    assert_eq!(
        ended.last(),
        "failed to auth tailscale: failed to auth tailscale: tailscale up failed: context deadline exceeded"
    );
    assert_eq!(scene.daemon().signals(), ["SIGTERM"]);
    scene.daemon().await_cli_ended(SOON).await.expect("`tailscale up` was ended too");
}

#[tokio::test]
async fn s57_boot_timeout_without_a_socket() {
    let scene = Scene::new().await.with("TS_BOOT_TIMEOUT", "1s");
    scene.daemon().script(DaemonScript { listen_after: Duration::from_secs(3600), ..DaemonScript::default() });
    let ended = scene.boot().ends(1).await;
    assert_eq!(ended.last(), "failed to bring up tailscale: timed out waiting for tailscaled socket");
    assert_eq!(scene.daemon().signals(), ["SIGTERM"], "what was started is stopped");
}

#[tokio::test]
async fn s58_daemon_dies_before_its_socket() {
    let scene = Scene::new().await;
    scene.daemon().script(DaemonScript {
        exit_before_listening: Some(3),
        stderr: vec!["flag provided but not defined: -what".to_owned()],
        ..DaemonScript::default()
    });
    let start = Instant::now();
    let ended = scene.boot().ends(1).await;
    assert!(ended.last().starts_with("failed to bring up tailscale: "), "{}", ended.text());
    assert!(ended.last().contains("exit status 3"), "{}", ended.text());
    assert!(ended.mentions("flag provided but not defined: -what"), "its own words are passed on");
    assert!(start.elapsed() < Duration::from_secs(30), "not at the boot timeout");
}

#[tokio::test]
async fn s58_daemon_dies_after_ready() {
    let scene = Scene::new().await;
    let mut boot = scene.boot();
    scene.notify(running()).await;
    boot.ready().await;
    scene.daemon().exit(3);
    let ended = boot.ends(1).await;
    assert!(ended.last().contains("tailscaled exited: exit status 3"), "{}", ended.text());
    assert_eq!(scene.daemon().starts(), 1, "containerboot does not restart it");
}

#[tokio::test]
async fn s58_orphans_are_reaped() {
    let scene = Scene::new().await;
    scene.daemon().script(DaemonScript { orphans: Some(Duration::from_millis(200)), ..DaemonScript::default() });
    let boot = scene.first_process("containerboot");
    scene.notify(running()).await;
    boot.ready().await;
    let orphans = scene.daemon().orphans();
    assert_eq!(orphans.len(), 2);
    // They end after 200 ms and are then zombies of ours until they are collected.
    let gone = async {
        while orphans.iter().any(|orphan| Path::new(&format!("/proc/{orphan}")).exists()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, gone).await.expect("the orphans are collected");
    // And nobody else's status was taken.
    let ended = boot.stops().await;
    in_order(&ended, &["Sending SIGTERM to tailscaled", "tailscaled exited"]);
}
