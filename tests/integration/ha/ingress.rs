//! What an ingress replica serves and reports.

use serde_json::{Value, json};

use super::{Replica, elements, mappings, netmap};

const NONE: (&str, &str) = ("", "");

fn web() -> Value {
    mappings(("100.100.1.1", "10.43.7.9"), ("fd7a:115c:a1e0::aa01", "fd43::79"))
}

fn db(cluster: &str) -> Value {
    mappings(("100.100.1.2", cluster), NONE)
}

fn own() -> Value {
    netmap(&["100.64.0.1", "fd7a:115c:a1e0::1"], &[])
}

#[tokio::test]
async fn ha_20_each_mapping_is_a_rule_and_the_report_is_the_config() {
    let config = json!({ "svc:web": web(), "svc:db": db("10.43.7.8") });
    let group = Replica::ingress(&config).await;
    let boot = group.up(own()).await;
    let file = group.files.path().join("ingress-config.json");
    boot.said(&format!("configuring ingress proxy using configuration file at {}", file.display())).await;
    let status = group.reports(|status| status["configs"].is_object()).await;
    assert_eq!(status, json!({ "configs": config, "podIPv4": "10.42.0.7", "podIPv6": "fd42::7" }));
    let scripts = group.scripts();
    assert_eq!(scripts.len(), 1);
    assert_eq!(
        elements(&scripts[0]),
        ["100.100.1.1 : 10.43.7.9", "100.100.1.2 : 10.43.7.8", "fd7a:115c:a1e0::aa01 : fd43::79"]
    );
    assert!(!scripts[0].contains("snat"), "the source is tailscaled's to translate: {}", scripts[0]);
    boot.stops().await;
}

/// H9: that no packet is lost is for the real firewall to show; here, that one transaction does it.
#[tokio::test]
async fn ha_21_another_cluster_ip_is_one_replacement() {
    let group = Replica::ingress(&json!({ "svc:web": web(), "svc:db": db("10.43.7.8") })).await;
    let boot = group.up(own()).await;
    group.reports(|status| status["configs"].is_object()).await;
    let config = json!({ "svc:web": web(), "svc:db": db("10.43.9.9") });
    group.configure(&config);
    group.reports(|status| status["configs"] == config).await;
    let seen: Vec<_> = group.scripts().iter().map(|script| elements(script)).collect();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|rules| rules.len() == 3), "no Service is ever without its rule: {seen:?}");
    assert_eq!(seen[1][1], "100.100.1.2 : 10.43.9.9");
    boot.mentioned(r#"ingress service "svc:db": 100.100.1.2 to 10.43.7.8 -> 100.100.1.2 to 10.43.9.9"#).await;
    boot.stops().await;
}

/// H8.
#[tokio::test]
async fn ha_22_half_a_service_is_served_and_all_of_it_reported() {
    let config = json!({ "svc:web": mappings(("100.100.1.1", "10.43.7.9"), ("", "fd43::79")) });
    let group = Replica::ingress(&config).await;
    let boot = group.up(own()).await;
    let status = group.reports(|status| status["configs"].is_object()).await;
    assert_eq!(status["configs"], config);
    assert_eq!(group.rules(), ["100.100.1.1 : 10.43.7.9"]);
    let odd = r#"ingress service "svc:web": nothing to fd43::79 cannot be served"#;
    boot.mentioned(odd).await;
    // Another look at the same is no reason to say it again.
    let both = json!({ "svc:web": config["svc:web"], "svc:db": db("10.43.7.8") });
    group.configure(&both);
    group.reports(|status| status["configs"] == both).await;
    assert_eq!(boot.text().matches(odd).count(), 1);
    boot.stops().await;
}

/// H20; the end of the linger is on a paused clock.
#[tokio::test]
async fn ha_23_a_removed_service_is_unreported_at_once_and_served_a_little_longer() {
    let group = Replica::ingress(&json!({ "svc:web": web(), "svc:db": db("10.43.7.8") })).await;
    let boot = group.up(own()).await;
    group.reports(|status| status["configs"].is_object()).await;
    group.configure(&json!({ "svc:web": web() }));
    let status = group.reports(|status| status["configs"].get("svc:db").is_none()).await;
    assert_eq!(status["configs"], json!({ "svc:web": web() }));
    assert_eq!(group.rules().len(), 3, "clients are still routed here");
    group.configure(&json!({}));
    group.reports(|status| status.get("configs").is_none()).await;
    assert_eq!(group.status().unwrap(), r#"{"podIPv4":"10.42.0.7","podIPv6":"fd42::7"}"#);
    assert_eq!((group.rules().len(), group.scripts().len()), (3, 1));
    boot.stops().await;
}

#[tokio::test]
async fn ha_24_other_files_of_the_directory_are_not_ours() {
    let config = json!({ "svc:web": web() });
    let group = Replica::ingress(&config).await;
    let boot = group.up(own()).await;
    group.reports(|status| status["configs"].is_object()).await;
    for serve in ["{}", r#"{"TCP":{}}"#] {
        group.publish(&[("ingress-config.json", &config.to_string()), ("serve-config.json", serve)]);
    }
    let both = json!({ "svc:web": web(), "svc:db": db("10.43.7.8") });
    group.publish(&[("ingress-config.json", &both.to_string()), ("serve-config.json", "{}")]);
    group.reports(|status| status["configs"] == both).await;
    assert_eq!((group.scripts().len(), group.writes()), (2, 2), "one for the start, one for what changed");
    boot.stops().await;
}

#[tokio::test]
async fn ha_20_without_ipv6_the_rest_is_served() {
    let config = json!({ "svc:web": web() });
    let group = Replica::ingress(&config).await.with("TS_TEST_FAKE_NETFILTER_6", "false");
    let boot = group.up(own()).await;
    let status = group.reports(|status| status["configs"].is_object()).await;
    assert_eq!(status["configs"], config);
    assert_eq!(group.rules(), ["100.100.1.1 : 10.43.7.9"]);
    boot.mentioned("fd7a:115c:a1e0::aa01 is IPv6, which this host cannot translate").await;
    boot.stops().await;
}
