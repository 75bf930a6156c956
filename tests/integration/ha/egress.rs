//! What an egress replica serves and reports.

use serde_json::{Value, json};

use super::{Replica, elements, moved, netmap, service, sources, with_peer};
use crate::support::{SOON, get};

const FOO: &str = "foo.tailnetxyz.ts.net.";

fn foo() -> Value {
    json!({ "default-foo": service("foo.tailnetxyz.ts.net", &[("TCP", 10345, 80)]) })
}

/// Where the operator sees `name` lead.
fn leads(status: &Value, name: &str) -> Value {
    status["services"][name]["tailnetTargetIPs"].clone()
}

#[tokio::test]
async fn ha_01_rules_come_before_the_report() {
    let group = Replica::egress(&foo()).await;
    let boot = group.up(with_peer(FOO, &["100.64.0.2"])).await;
    boot.said(&format!("configuring egress proxy using configuration file at {}", group.files.path().display())).await;
    group.reports(|status| leads(status, "default-foo") == json!(["100.64.0.2"])).await;
    assert_eq!(
        group.status().unwrap(),
        concat!(
            r#"{"podIPv4":"10.42.0.7","podIPv6":"fd42::7","services":{"default-foo":{"#,
            r#""ports":[{"protocol":"TCP","matchPort":10345,"targetPort":80}],"tailnetTargetIPs":["100.64.0.2"],"#,
            r#""tailnetTarget":{"ip":"","fqdn":"foo.tailnetxyz.ts.net"}}}}"#,
        )
    );
    let scripts = group.scripts();
    assert_eq!(scripts.len(), 1);
    assert_eq!(elements(&scripts[0]), ["tcp . 10345 : 100.64.0.2 . 80"]);
    assert_eq!(sources(&scripts[0]), ["100.64.0.1"]);
    assert!(scripts[0].contains("iifname != \"tailscale0\" dnat ip to"), "never from the tailnet: {}", scripts[0]);
    let hook = get(group.port, "/internal-egress-services-preshutdown").await;
    assert_eq!((hook.status, hook.body.as_str()), (200, ""));

    // H18: one call, which is right whether the key is there or not.
    let patch = group.scene.requests("PATCH").into_iter().find(|request| request.body[0]["op"] == "add").unwrap();
    assert_eq!(patch.content_type.as_deref(), Some("application/json-patch+json"));
    assert_eq!(patch.body.as_array().unwrap().len(), 1);
    assert_eq!(patch.body[0]["path"], "/data/egress-services");
    boot.stops().await;
}

#[tokio::test]
async fn ha_02_rules_follow_the_peer_in_one_transaction() {
    let group = Replica::egress(&foo()).await;
    let boot = group.up(with_peer(FOO, &["100.64.0.2"])).await;
    group.reports(|status| leads(status, "default-foo") == json!(["100.64.0.2"])).await;
    group.scene.notify(moved(2, FOO, &["100.64.0.3"])).await;
    group.reports(|status| leads(status, "default-foo") == json!(["100.64.0.3"])).await;
    let scripts = group.scripts();
    let seen: Vec<_> = scripts.iter().map(|script| elements(script)).collect();
    assert_eq!(seen, [["tcp . 10345 : 100.64.0.2 . 80"], ["tcp . 10345 : 100.64.0.3 . 80"]], "never none, never two");
    assert!(scripts.iter().all(|script| sources(script) == ["100.64.0.1"]));
    boot.mentioned(r#"egress service "default-foo": 100.64.0.2 -> 100.64.0.3, TCP 10345 to 80"#).await;
    boot.stops().await;
}

/// H1, H16.
#[tokio::test]
async fn ha_03_a_target_that_appears_later_is_noticed() {
    let group = Replica::egress(&foo()).await;
    let boot = group.run(group.scene.tailpod(), netmap(&["100.64.0.1"], &[])).await;
    let status = group.reports(|status| leads(status, "default-foo").is_null()).await;
    assert_eq!(status["services"]["default-foo"]["ports"][0]["matchPort"], 10345, "reported all the same");
    assert_eq!(group.rules(), Vec::<String>::new());
    boot.mentioned("egress service \"default-foo\": its target is not there: could not find").await;
    let event = group.scene.api().wait_request(|asked| asked.body["reason"] == "EgressServiceNotServed", SOON);
    assert!(event.await.unwrap().body["message"].as_str().unwrap().contains("foo.tailnetxyz.ts.net"));
    group.scene.notify(moved(2, FOO, &["100.64.0.2"])).await;
    group.reports(|status| leads(status, "default-foo") == json!(["100.64.0.2"])).await;
    assert_eq!(group.rules(), ["tcp . 10345 : 100.64.0.2 . 80"]);
    boot.stops().await;
}

/// H3.
#[tokio::test]
async fn ha_04_a_tailscale_service_is_followed() {
    let group = Replica::egress(&json!({ "default-svc": service("svc.test.ts.net", &[("UDP", 10053, 53)]) })).await;
    let netmap = |addr: &str| {
        let mut netmap =
            netmap(&["100.64.0.1"], &[("host.test.ts.net.", &["100.64.0.2"], &["100.99.1.1/32", "100.99.1.2/32"])]);
        netmap["InitialStatus"]["ExtraRecords"] = json!([{ "Name": "svc.test.ts.net.", "Value": addr }]);
        netmap
    };
    let boot = group.up(netmap("100.99.1.1")).await;
    group.reports(|status| leads(status, "default-svc") == json!(["100.99.1.1"])).await;
    group.scene.notify(netmap("100.99.1.2")).await;
    group.reports(|status| leads(status, "default-svc") == json!(["100.99.1.2"])).await;
    assert_eq!(group.rules(), ["udp . 10053 : 100.99.1.2 . 53"]);
    boot.stops().await;
}

/// H2, H12.
#[tokio::test]
async fn ha_05_the_source_follows_the_node() {
    let group = Replica::egress(&json!({ "a": service("100.64.0.9", &[("TCP", 10001, 1)]) })).await;
    let boot = group.up(netmap(&["100.64.0.1"], &[])).await;
    group.reports(|status| leads(status, "a") == json!(["100.64.0.9"])).await;
    for (nth, own) in [(2, "100.64.0.77"), (3, "100.64.0.1")] {
        group.scene.notify(netmap(&[own], &[])).await;
        let script = group.applied(nth).await;
        assert_eq!(sources(&script), [own], "exactly one");
        assert_eq!(elements(&script), ["tcp . 10001 : 100.64.0.9 . 1"]);
    }
    assert_eq!(group.writes(), 1, "nothing that the operator could see");
    boot.stops().await;
}

/// H11.
#[tokio::test]
async fn ha_06_one_update_is_one_application_and_one_patch() {
    let group = Replica::egress(&json!({ "a": service("100.64.0.9", &[("TCP", 10001, 1), ("TCP", 10002, 2)]) })).await;
    let boot = group.up(netmap(&["100.64.0.1"], &[])).await;
    group.reports(|status| leads(status, "a") == json!(["100.64.0.9"])).await;
    let reads = group.scene.requests("GET").len();
    group.configure(&json!({ "a": service("100.64.0.9", &[("UDP", 10003, 3), ("TCP", 10002, 2)]) }));
    let status = group.reports(|status| status["services"]["a"]["ports"][1]["matchPort"] == 10003).await;
    assert_eq!(status["services"]["a"]["ports"].as_array().unwrap().len(), 2);
    assert_eq!(group.rules(), ["tcp . 10002 : 100.64.0.9 . 2", "udp . 10003 : 100.64.0.9 . 3"]);
    assert_eq!((group.scripts().len(), group.writes()), (2, 2), "one for the start, one for the change");
    assert_eq!(group.scene.requests("GET").len(), reads, "nothing is read");
    boot.stops().await;
}

#[tokio::test]
async fn ha_07_a_removed_service_is_gone_and_the_others_are_not_touched() {
    let (a, b) = (service("100.64.0.8", &[("TCP", 10001, 1)]), service("100.64.0.9", &[("TCP", 10002, 2)]));
    let group = Replica::egress(&json!({ "a": a, "b": b })).await;
    let boot = group.up(netmap(&["100.64.0.1"], &[])).await;
    group.reports(|status| leads(status, "b") == json!(["100.64.0.9"])).await;
    group.configure(&json!({ "b": b }));
    group.reports(|status| status["services"].get("a").is_none()).await;
    let seen: Vec<_> = group.scripts().iter().map(|script| elements(script)).collect();
    assert_eq!(
        seen,
        [vec!["tcp . 10001 : 100.64.0.8 . 1", "tcp . 10002 : 100.64.0.9 . 2"], vec!["tcp . 10002 : 100.64.0.9 . 2"]]
    );
    boot.mentioned(r#"egress service "a": gone"#).await;
    boot.stops().await;
}

/// H7.
#[tokio::test]
async fn ha_08_nothing_left_is_written_once() {
    let a = service("100.64.0.8", &[("TCP", 10001, 1)]);
    let group = Replica::egress(&json!({ "a": a })).await;
    let boot = group.up(netmap(&["100.64.0.1"], &[])).await;
    group.reports(|status| leads(status, "a") == json!(["100.64.0.8"])).await;
    group.configure(&json!({}));
    group.reports(|status| status["services"].is_null()).await;
    assert_eq!(group.status().unwrap(), r#"{"podIPv4":"10.42.0.7","podIPv6":"fd42::7","services":null}"#);
    assert_eq!((group.rules(), group.writes()), (Vec::new(), 2));
    group.publish(&[("hep-pings", "6")]);
    group.publish(&[("egress-services", ""), ("hep-pings", "9")]);
    group.configure(&json!({ "a": a }));
    group.reports(|status| leads(status, "a") == json!(["100.64.0.8"])).await;
    assert_eq!((group.scripts().len(), group.writes()), (3, 3), "absent, empty and `{{}}` are one");
    boot.stops().await;
}

#[tokio::test]
async fn ha_08_a_group_without_services_reports_nothing_and_clears_the_table() {
    let group = Replica::egress(&json!({})).await;
    let boot = group.up(netmap(&["100.64.0.1"], &[])).await;
    let script = group.applied(1).await;
    assert!(script.contains("flush table ip tailpod_egress") && !script.contains("add rule"), "{script}");
    group.configure(&json!({ "a": service("100.64.0.8", &[]) }));
    group.reports(|status| leads(status, "a") == json!(["100.64.0.8"])).await;
    assert_eq!(group.writes(), 1);
    boot.stops().await;
}

#[tokio::test]
async fn ha_09_10_the_status_of_another_pod_is_worth_nothing() {
    let group = Replica::egress(&foo()).await;
    let other = json!({ "podIPv4": "10.42.9.9", "podIPv6": "fd42::9", "services": {
        "default-foo": {
            "ports": [{ "protocol": "TCP", "matchPort": 10345, "targetPort": 80 }],
            "tailnetTargetIPs": ["100.64.0.2"], "tailnetTarget": { "ip": "", "fqdn": "foo.tailnetxyz.ts.net" },
        },
        "default-gone": { "ports": [], "tailnetTargetIPs": null, "tailnetTarget": { "ip": "100.64.0.4", "fqdn": "" } },
    }});
    group.scene.put_keys(&[("egress-services", &other.to_string()), ("foreign", "kept")]);
    let boot = group.up(with_peer(FOO, &["100.64.0.2"])).await;
    let status = group.reports(|status| status["podIPv4"] == "10.42.0.7").await;
    assert_eq!(status["services"].as_object().unwrap().keys().collect::<Vec<_>>(), ["default-foo"]);
    assert_eq!(group.rules(), ["tcp . 10345 : 100.64.0.2 . 80"], "nothing is taken for installed");
    assert_eq!(group.scene.data()["foreign"], "kept");
    boot.stops().await;
}

/// H4.
#[tokio::test]
async fn ha_11_a_restart_leaves_only_what_is_still_wanted() {
    let (a, b) = (service("100.64.0.8", &[("TCP", 10001, 1)]), service("100.64.0.9", &[("TCP", 10002, 2)]));
    let group = Replica::egress(&json!({ "a": a, "b": b })).await;
    let boot = group.up(netmap(&["100.64.0.1"], &[])).await;
    group.reports(|status| leads(status, "b") == json!(["100.64.0.9"])).await;
    boot.stops().await;
    for nth in 1..=group.scripts().len() {
        std::fs::remove_file(group.script(nth)).unwrap();
    }
    group.configure(&json!({ "b": b }));
    group.scene.daemon().forget_last_message();
    let boot = group.scene.boot();
    // Until the node's own addresses are known, what another container left goes on serving.
    group.scene.daemon().await_watchers(1, SOON).await.unwrap();
    assert_eq!(group.scripts().len(), 0);
    group.scene.notify(netmap(&["100.64.0.1"], &[])).await;
    boot.ready().await;
    let script = group.applied(1).await;
    assert!(script.contains("flush table ip tailpod_egress"), "{script}");
    assert!(script.contains("flush map ip tailpod_egress ports"), "{script}");
    assert_eq!(elements(&script), ["tcp . 10002 : 100.64.0.9 . 2"]);
    boot.stops().await;
}

#[tokio::test]
async fn ha_14_ipv6_that_cannot_be_translated_is_left_out() {
    let config = json!({
        "six": service("fd7a:115c:a1e0::9", &[("TCP", 10001, 1)]),
        "four": service("100.64.0.9", &[("TCP", 10002, 2)]),
    });
    let group = Replica::egress(&config).await.with("TS_TEST_FAKE_NETFILTER_6", "false");
    let boot = group.up(with_peer(FOO, &["100.64.0.2"])).await;
    let status = group.reports(|status| leads(status, "four") == json!(["100.64.0.9"])).await;
    assert_eq!(status["services"]["six"]["tailnetTargetIPs"], Value::Null);
    assert_eq!(status["services"]["six"]["ports"][0]["matchPort"], 10001);
    assert_eq!(group.rules(), ["tcp . 10002 : 100.64.0.9 . 2"]);
    boot.mentioned("fd7a:115c:a1e0::9 is IPv6, which this host cannot translate").await;
    boot.stops().await;
}

#[tokio::test]
async fn ha_26_pod_ips_that_are_none_end_the_start() {
    let group = Replica::egress(&json!({})).await;
    for (ips, named) in [("10.0.0.1,10.0.0.2,fd00::1", "10.0.0.1 10.0.0.2 fd00::1"), ("10.0.0.1,garbage", "garbage")] {
        let ended = group.scene.boot_with(&[("POD_IPS", ips)]).ends(1).await;
        assert!(ended.last().contains(named), "{}", ended.text());
    }
    assert_eq!(group.scene.daemon().commands().len(), 0);
}

#[tokio::test]
async fn ha_27_a_thousand_ports_are_one_application_and_one_patch() {
    let mut config = json!({});
    for nth in 0..50_u16 {
        let ports: Vec<_> = (0..20).map(|port| ("TCP", 10_000 + nth * 20 + port, port + 1)).collect();
        config[format!("s{nth}")] = service(&format!("100.64.1.{nth}"), &ports);
    }
    let group = Replica::egress(&config).await;
    let boot = group.up(netmap(&["100.64.0.1"], &[])).await;
    let ready = std::time::Instant::now();
    let status = group.reports(|status| status["services"].as_object().is_some_and(|all| all.len() == 50)).await;
    assert!(
        ready.elapsed().as_secs() < 5,
        "{:?}, where one second is the limit on a machine of its own",
        ready.elapsed()
    );
    assert!(status["services"].as_object().unwrap().values().all(|one| one["ports"].as_array().unwrap().len() == 20));
    assert_eq!((group.rules().len(), group.scripts().len(), group.writes()), (1000, 1, 1));
    boot.stops().await;
}

#[tokio::test]
async fn ha_28_odd_names_are_names() {
    let long = "x".repeat(127);
    let odd = "a.b_c\"; flush ruleset\n#";
    let config = json!({
        "a.b_c": service("100.64.0.7", &[("TCP", 10001, 1)]),
        &long: service("100.64.0.8", &[("TCP", 10002, 2)]),
        odd: service("100.64.0.9", &[("TCP", 10003, 3)]),
    });
    let group = Replica::egress(&config).await;
    let boot = group.up(netmap(&["100.64.0.1"], &[])).await;
    let status = group.reports(|status| leads(status, "a.b_c") == json!(["100.64.0.7"])).await;
    assert_eq!((leads(&status, &long), leads(&status, odd)), (json!(["100.64.0.8"]), json!(["100.64.0.9"])));
    assert_eq!(group.rules().len(), 3);
    let script = group.scripts().remove(0);
    let comments: Vec<_> = script.lines().filter_map(|line| line.split('"').nth(1)).collect();
    assert!(comments.contains(&"a.b_c:TCP:10001 -> TCP:1"), "{comments:?}");
    assert!(comments.iter().all(|comment| comment.len() <= 128), "{comments:?}");
    assert!(!script.contains("flush ruleset\n") && !script.contains("; flush"), "{script}");
    boot.stops().await;
}

/// boot.md 12, scenario 53.
#[tokio::test]
async fn s53_egress_group() {
    let group = Replica::egress(&json!({})).await;
    group.publish(&[
        ("egress-services", &json!({ "foo": service("foo.tailnetxyz.ts.net", &[("TCP", 10345, 80)]) }).to_string()),
        ("hep-pings", "4"),
    ]);
    let boot = group.scene.boot();
    let hook = format!("[::]:{}/internal-egress-services-preshutdown", group.port);
    boot.said(&format!("Running egress preshutdown hook at {hook}")).await;
    let early = get(group.port, "/internal-egress-services-preshutdown").await;
    assert_eq!((early.status, early.body.as_str()), (200, "safe to terminate"));
    let boot = group.run(boot, with_peer("foo.tailnetxyz.ts.net.", &["100.64.0.2"])).await;
    group.reports(|status| leads(status, "foo") == json!(["100.64.0.2"])).await;
    group.scene.notify(moved(2, "foo.tailnetxyz.ts.net.", &["100.64.0.3"])).await;
    group.reports(|status| leads(status, "foo") == json!(["100.64.0.3"])).await;
    boot.stops().await;
    assert_eq!(group.status().map(|text| text.contains("100.64.0.3")), Some(true), "a stop takes nothing back");

    let outside = crate::support::Scene::new().await.with("TS_EGRESS_PROXIES_CONFIG_PATH", "/etc/proxies");
    let ended = outside.boot().ends(1).await;
    assert!(
        ended.last().contains("TS_EGRESS_PROXIES_CONFIG_PATH is only supported for Tailscale running on Kubernetes")
    );
}
