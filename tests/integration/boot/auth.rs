//! When `tailscale up` and `tailscale set` run.

use tailpod::sandbox::CliScript;

use crate::support::{SOON, Scene, needs_login, running, state};

const MEMORY: &str = "--state=mem: --statedir=/tmp --tun=userspace-networking";

async fn auth_once() -> Scene {
    Scene::new().await.with_all(&[("TS_AUTHKEY", "k"), ("TS_AUTH_ONCE", "true")])
}

#[tokio::test]
async fn s15_auth_once_fresh() {
    let scene = auth_once().await;
    let boot = scene.boot();
    scene.daemon().await_watchers(1, SOON).await.expect("a watch");
    scene.ran(&[scene.d(MEMORY)]).await;
    scene.notify(needs_login()).await;
    let up = scene.u("--accept-dns=false --authkey=k");
    scene.ran(&[scene.d(MEMORY), up.clone()]).await;
    boot.said("Running 'tailscale up'").await;
    scene.notify(running()).await;
    boot.ready().await;
    boot.said("Running 'tailscale set'").await;
    scene.ran(&[scene.d(MEMORY), up, scene.t("--accept-dns=false")]).await;
    boot.stops().await;
}

#[tokio::test]
async fn s16_auth_once_logged_in() {
    let scene = auth_once().await;
    let boot = scene.boot();
    scene.notify(running()).await;
    boot.ready().await;
    scene.ran(&[scene.d(MEMORY), scene.t("--accept-dns=false")]).await;
    boot.stops().await;
    assert_eq!(scene.daemon().commands().len(), 2, "never `up`");
}

#[tokio::test]
async fn s17_repeated_needs_login() {
    let scene = auth_once().await;
    // Held until the second message has been sent: it arrives while `up` runs.
    let boot = scene.boot();
    scene.notify(needs_login()).await;
    scene.daemon().await_commands(2, SOON).await.expect("one up");
    scene.notify(needs_login()).await;
    scene.notify(state(5)).await;
    boot.said("tailscaled in state \"Starting\", waiting").await;
    scene.notify(needs_login()).await;
    scene.notify(running()).await;
    boot.ready().await;
    scene.ran(&[scene.d(MEMORY), scene.u("--accept-dns=false --authkey=k"), scene.t("--accept-dns=false")]).await;
    boot.stops().await;
    assert_eq!(scene.daemon().commands().len(), 3);
}

#[tokio::test]
async fn s19_accept_dns_bare_and_auth_once() {
    let scene = Scene::new().await.with_all(&[
        ("TS_AUTH_ONCE", "true"),
        ("TS_ACCEPT_DNS", "false"),
        ("TS_EXTRA_ARGS", "--accept-dns"),
    ]);
    let boot = scene.boot();
    scene.notify(needs_login()).await;
    scene.daemon().await_commands(2, SOON).await.expect("up");
    scene.notify(running()).await;
    boot.ready().await;
    scene.ran(&[scene.d(MEMORY), scene.u("--accept-dns=true"), scene.t("--accept-dns=true")]).await;
    boot.stops().await;
}

/// The states of boot.md 1.3 that only mean waiting, each with its line, once.
#[tokio::test]
async fn waiting_states_are_told_once() {
    let scene = auth_once().await;
    let boot = scene.boot();
    let tell = "machine authorization required, please visit the admin panel";
    for (number, line) in [
        (0, "tailscaled in state \"NoState\", waiting"),
        (1, "tailscaled in state \"InUseOtherUser\", waiting"),
        (4, "tailscaled in state \"Stopped\", waiting"),
        (5, "tailscaled in state \"Starting\", waiting"),
        (3, tell),
    ] {
        scene.notify(state(number)).await;
        scene.notify(state(number)).await;
        boot.said(line).await;
    }
    scene.notify(running()).await;
    boot.ready().await;
    assert_eq!(boot.count(tell), 1);
    boot.stops().await;
}

/// boot.md 1.4: a failing CLI ends it with upstream's doubled words.
#[tokio::test]
async fn a_failing_cli_ends_it() {
    let scene = Scene::new().await.with("TS_AUTHKEY", "k");
    scene.daemon().cli("up", CliScript { stderr: "no\n".to_owned(), exit: 3, ..CliScript::default() });
    let ended = scene.boot().ends(1).await;
    assert_eq!(ended.last(), "failed to auth tailscale: failed to auth tailscale: tailscale up failed: exit status 3");
    scene.daemon().await_stopped(SOON).await.expect("the daemon is stopped");

    let scene = auth_once().await;
    scene.daemon().cli("set", CliScript { exit: 1, ..CliScript::default() });
    let mut boot = scene.boot();
    scene.notify(running()).await;
    let ended = boot.ends(1).await;
    assert_eq!(ended.last(), "failed to auth tailscale: tailscale set failed: exit status 1");
}
