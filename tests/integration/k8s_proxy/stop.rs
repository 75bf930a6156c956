//! The way out: withdraw, serve on, drain, stop the child, exit 0.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;
use tailpod::sandbox::Fault;
use tailpod::sandbox::apiserver::access::{Access, Rule, Subject};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{ANN, Stage, messages, proxy_header, user};
use crate::support::{NAMESPACE, SECRET, SOON, get};

#[tokio::test]
async fn services_are_withdrawn_and_served_on_for_a_while() {
    let stage = Stage::new([]).await;
    let mut proxy = stage.start_with(&[("TAILPOD_WITHDRAW_WAIT", "400ms")]);
    stage.come_up().await;
    proxy.mentioned("Setting healthy true").await;
    stage.prefs(|prefs| prefs["AdvertiseServices"] == json!(["svc:prod-api"])).await;
    let begin = Instant::now();
    proxy.signal(Signal::SIGTERM);
    stage.prefs(|prefs| prefs["AdvertiseServices"] == json!([])).await;
    assert_eq!(get(stage.health, "/healthz").await.status, 200, "it serves on");
    assert!(stage.scene.daemon().running());
    let ended = proxy.ends(0).await;
    assert!(begin.elapsed() >= Duration::from_millis(400), "{:?}", begin.elapsed());
    let said = messages(&ended.text());
    let at =
        |line: &str| said.iter().position(|said| said.starts_with(line)).unwrap_or_else(|| panic!("{line}: {said:#?}"));
    assert!(at("unadvertising services: [\"svc:prod-api\"]") < at("serving on for 400ms while peers fail over"));
    assert!(at("serving on for") < at("Sending SIGTERM to tailscaled"));
    assert!(at("tailscaled exited") < at("HTTP server at"));
    stage.scene.daemon().await_stopped(SOON).await.unwrap();
}

#[tokio::test]
async fn five_deaths_of_tailscaled_are_enough() {
    let stage = Stage::new([]).await;
    let mut proxy = stage.start();
    let daemon = stage.scene.daemon();
    for death in 1..=5 {
        let up = daemon.await_running(death, SOON).await;
        up.unwrap_or_else(|error| panic!("{error}\n{}", proxy.text()));
        stage.come_up().await;
        if death == 1 {
            proxy.mentioned("Setting healthy true").await;
        }
        proxy.lives();
        daemon.kill(Signal::SIGKILL);
        daemon.await_stopped(SOON).await.expect("killed");
    }
    let ended = proxy.ends(1).await;
    let said = messages(&ended.text());
    let last = said.last().map(String::as_str).unwrap_or_default();
    assert!(last.starts_with("tailscaled exited 5 times within 300s, last: signal: killed"), "{said:#?}");
    assert_eq!(daemon.starts(), 5);
}

#[tokio::test]
async fn a_second_signal_ends_the_wait() {
    let stage = Stage::new([]).await;
    let mut proxy = stage.start_with(&[("TAILPOD_WITHDRAW_WAIT", "1h")]);
    stage.come_up().await;
    stage.prefs(|prefs| prefs["AdvertiseServices"] == json!(["svc:prod-api"])).await;
    proxy.signal(Signal::SIGTERM);
    proxy.mentioned("serving on for").await;
    proxy.signal(Signal::SIGTERM);
    let ended = proxy.ends(0).await;
    assert!(ended.mentions("second signal (SIGTERM): not waiting any longer"), "{}", ended.text());
}

#[tokio::test]
async fn without_services_nothing_is_waited_for() {
    let stage = Stage::new([]).await;
    stage.configure(&json!({"advertiseServices": [], "apiServerProxy": {"enabled": false}}));
    let mut proxy = stage.start_with(&[("TAILPOD_WITHDRAW_WAIT", "1h")]);
    stage.come_up().await;
    proxy.mentioned("Setting healthy true").await;
    proxy.signal(Signal::SIGINT);
    let ended = proxy.ends(0).await;
    assert!(!ended.mentions("serving on for"), "{}", ended.text());
}

#[tokio::test]
async fn a_daemon_that_does_not_answer_does_not_hold_up_the_stop() {
    let stage = Stage::new([]).await;
    let mut proxy = stage.start_with(&[("TAILPOD_WITHDRAW_WAIT", "200ms")]);
    stage.come_up().await;
    stage.prefs(|prefs| prefs["AdvertiseServices"] == json!(["svc:prod-api"])).await;
    stage.scene.daemon().fail("prefs", Fault::Hang);
    proxy.signal(Signal::SIGTERM);
    let ended = proxy.ends(0).await;
    assert!(ended.mentions("Error ensuring services are not advertised: no answer in time"), "{}", ended.text());
}

#[tokio::test]
async fn a_signal_before_anything_is_there_ends_it_at_once() {
    let stage = Stage::new([]).await;
    stage.write("");
    let proxy = stage.start();
    proxy.mentioned("waiting for its content").await;
    proxy.stops().await;
    stage.configure(&json!({}));
    let proxy = stage.start();
    proxy.mentioned("logging in").await;
    proxy.stops().await;
    stage.scene.daemon().await_stopped(SOON).await.unwrap();
}

#[tokio::test]
async fn each_further_signal_ends_the_wait_under_way() {
    let stage = Stage::new([]).await;
    let mut proxy = stage.start_with(&[("TAILPOD_WITHDRAW_WAIT", "1h")]);
    stage.come_up().await;
    proxy.mentioned("Setting healthy true").await;
    stage.prefs(|prefs| prefs["AdvertiseServices"] == json!(["svc:prod-api"])).await;
    let access = Access::of_boot(NAMESPACE, SECRET).and(Rule::new("", &["users"], &["impersonate"]));
    stage.scene.api().grant(Subject::from(stage.scene.sandbox.user()), access);
    let access = Access::default().and(Rule::new("", &["secrets"], &["list", "watch"]));
    stage.scene.api().grant(Subject::User("ann@example.com".to_owned()), access);
    stage.scene.daemon().set_whois(ANN, user(&json!([])));
    let mut watch = TcpStream::connect(("127.0.0.1", stage.api)).await.unwrap();
    let request = "GET /api/v1/namespaces/default/secrets?watch=1 HTTP/1.1\r\nHost: proxy\r\n\r\n";
    watch.write_all(&[&proxy_header(ANN)[..], request.as_bytes()].concat()).await.unwrap();
    let mut head = [0; 12];
    watch.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");

    proxy.signal(Signal::SIGTERM);
    proxy.mentioned("serving on for").await;
    // Peers may still come: a new watch is an hour's work, and nobody has been sent away.
    proxy.signal(Signal::SIGTERM);
    proxy.mentioned("second signal (SIGTERM): not waiting any longer").await;
    let begin = Instant::now();
    proxy.signal(Signal::SIGTERM);
    let ended = proxy.ends(0).await;
    assert!(ended.mentions("SIGTERM: closing what is still open"), "{}", ended.text());
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    let mut rest = Vec::new();
    let _ = watch.read_to_end(&mut rest).await;
    assert!(!rest.ends_with(b"0\r\n\r\n"), "a watch that was cut must not look complete");
}
