//! When the API server, the firewall or the config is in trouble: errors are states, and the last good one stays.

use std::time::Instant;

use hyper::Method;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tailpod::sandbox::apiserver::{Fault, Scope, Times};

use super::{Replica, elements, netmap, service};
use crate::support::{SOON, get};

fn config(port: u16) -> Value {
    json!({ "a": service("100.64.0.9", &[("TCP", port, 1)]) })
}

fn own() -> Value {
    netmap(&["100.64.0.1"], &[])
}

fn serves(port: u16) -> impl Fn(&Value) -> bool {
    move |status| status["services"]["a"]["ports"][0]["matchPort"] == port
}

/// H6; the half minute is on a paused clock.
#[tokio::test]
async fn ha_12_an_api_server_in_trouble_delays_the_report_alone() {
    let group = Replica::egress(&config(10001)).await;
    let mut boot = group.up(own()).await;
    group.reports(serves(10001)).await;
    let api = group.scene.api();
    api.fail_times(Scope::method(Method::PATCH), Fault::status(500, "InternalError", "etcd"), Times::Always);
    group.configure(&config(10002));
    assert_eq!(elements(&group.applied(2).await), ["tcp . 10002 : 100.64.0.9 . 1"]);
    boot.mentioned("cannot write the state Secret, trying on").await;
    boot.lives();
    group.configure(&config(10003));
    group.applied(3).await;
    api.heal();
    group.reports(serves(10003)).await;
    boot.stops().await;
}

/// Conflicts and throttling are no other trouble.
#[tokio::test]
async fn ha_12_a_conflict_and_a_full_queue_are_survived() {
    let group = Replica::egress(&config(10001)).await;
    let boot = group.up(own()).await;
    group.reports(serves(10001)).await;
    let api = group.scene.api();
    api.fail(Scope::method(Method::PATCH), Fault::status(409, "Conflict", "the object has been modified"));
    api.fail(Scope::method(Method::PATCH), Fault::too_many_requests(1));
    api.fail(Scope::method(Method::PATCH), Fault::LoseAnswer);
    group.configure(&config(10002));
    group.reports(serves(10002)).await;
    boot.stops().await;
}

#[tokio::test]
async fn ha_13_a_config_that_is_none_leaves_the_last_good_one() {
    let group = Replica::egress(&config(10001)).await;
    let boot = group.run(group.scene.tailpod(), own()).await;
    group.reports(serves(10001)).await;
    group.publish(&[("egress-services", "{\n  \"a\": {\n")]);
    let line = boot.mentioned("is no config, what was in force stays").await;
    assert!(line.contains("egress-services") && line.contains("line 3"), "{line}");
    let ready = get(group.port, "/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("[-]egress-services failed: "), "{}", ready.body);
    assert_eq!(get(group.port, "/healthz").await.status, 200, "it serves");
    let event = group.scene.api().wait_request(|asked| asked.body["reason"] == "EgressConfigInvalid", SOON).await;
    assert!(event.unwrap().body["message"].as_str().unwrap().contains("line 3"));
    group.publish(&[("egress-services", "{\n  \"a\": {\n"), ("hep-pings", "3")]);
    group.configure(&config(10002));
    group.reports(serves(10002)).await;
    assert_eq!(get(group.port, "/readyz").await.status, 200);
    assert_eq!(boot.text().matches("is no config, what was in force stays").count(), 1);
    assert_eq!(group.scripts().len(), 2, "the broken one changed nothing");
    boot.stops().await;
}

#[tokio::test]
async fn ha_13_a_config_that_is_none_at_the_start_leaves_the_table_alone() {
    let group = Replica::egress(&json!({})).await;
    group.publish(&[("egress-services", "[1]")]);
    let mut boot = group.up(own()).await;
    boot.mentioned("is no config, what was in force stays").await;
    assert_eq!(group.scripts().len(), 0, "what another container left goes on serving");
    boot.lives();
    group.configure(&config(10001));
    group.reports(serves(10001)).await;
    boot.stops().await;
}

/// W2: whatever hangs there, the loop goes on, and so do signals.
#[tokio::test]
async fn w2_nothing_of_a_group_blocks_the_boot() {
    let group = Replica::egress(&config(10001)).await;
    let boot = group.run(group.scene.tailpod(), own()).await;
    group.reports(serves(10001)).await;
    group.refuse("Operation not permitted");
    group.scene.api().stall();
    group.configure(&config(10002));
    boot.mentioned("the kernel refused the rules: Operation not permitted").await;
    for _ in 0..300 {
        group.scene.daemon().notify(netmap(&["100.64.0.1"], &[("p.test.ts.net.", &["100.64.0.2"], &[])]));
        group.scene.daemon().notify(own());
    }
    group.scene.daemon().notify(json!({ "SelfChange": { "ID": 1, "StableID": "myID", "Name": "n.ts.net." } }));
    boot.said("Setting healthy false").await;
    assert_eq!(get(group.port, "/livez").await.status, 200);
    let ready = get(group.port, "/readyz").await.body;
    assert!(ready.contains("[-]egress-services failed: the kernel refused the rules"), "{ready}");
    group.scene.api().resume();
    let (mut boot, before) = (boot, Instant::now());
    boot.signal(Signal::SIGTERM);
    boot.ends(0).await;
    assert!(before.elapsed() < SOON);
    assert!(group.status().unwrap().contains("10001"), "what is not in force is not reported");
}

#[tokio::test]
async fn refused_rules_are_tried_again_and_reported_when_they_are_in_force() {
    let group = Replica::egress(&config(10001)).await;
    group.refuse("No such file or directory");
    let mut boot = group.up(own()).await;
    boot.mentioned("the kernel refused the rules: No such file or directory").await;
    assert_eq!(group.writes(), 0);
    boot.lives();
    group.refuse("");
    group.reports(serves(10001)).await;
    boot.mentioned("the rules are in force again").await;
    boot.stops().await;
}

#[tokio::test]
async fn rules_that_are_refused_from_the_beginning_end_the_boot() {
    let ends = async |group: Replica, kind: &str| {
        group.refuse("Operation not permitted");
        let group = group.with("TS_BOOT_TIMEOUT", "4s");
        let ended = group.up(own()).await.ends(1).await;
        let wanted = format!("{kind} proxy failed: the kernel refused the rules: Operation not permitted");
        assert_eq!(ended.last(), wanted, "{}", ended.text());
    };
    let (egress, ingress) = (Replica::egress(&config(10001)).await, Replica::ingress(&json!({})).await);
    tokio::join!(ends(egress, "egress"), ends(ingress, "ingress"));
}

#[tokio::test]
async fn metrics_tell_how_a_group_stands() {
    let mut both = config(10001);
    both["lost"] = service("lost.test.ts.net", &[("TCP", 10002, 2)]);
    let group = Replica::egress(&both).await.with("TS_ENABLE_METRICS", "true");
    let boot = group.run(group.scene.tailpod(), own()).await;
    group.reports(serves(10001)).await;
    let metrics = get(group.port, "/metrics").await.body;
    for line in [
        "tailpod_group_services{group=\"egress\"} 2",
        "tailpod_group_services_unresolved{group=\"egress\"} 1",
        "tailpod_group_rules{group=\"egress\"} 1",
        "tailpod_group_config_valid{group=\"egress\"} 1",
        "tailpod_group_rules_in_force{group=\"egress\"} 1",
        "tailpod_group_draining 0",
    ] {
        assert!(metrics.lines().any(|other| other == line), "{line}: {metrics}");
    }
    boot.stops().await;

    // As containerboot, tailscaled's own and nothing else.
    let boot = group.up(own()).await;
    assert!(!get(group.port, "/metrics").await.body.contains("tailpod_group"));
    boot.stops().await;
}

#[tokio::test]
async fn a_secret_that_may_not_be_written_is_told_and_the_rest_goes_on() {
    let group = Replica::egress(&config(10001)).await.with("TS_AUTHKEY", "k");
    group.scene.deny(&["patch"]);
    let boot = group.up(own()).await;
    boot.mentioned("the operator will not see what this Pod serves").await;
    assert_eq!(elements(&group.applied(1).await), ["tcp . 10001 : 100.64.0.9 . 1"]);
    boot.stops().await;
}
