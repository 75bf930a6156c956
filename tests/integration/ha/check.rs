//! `tailpod boot --check` of a replica: what it would install for the config as it is, said and not done.

use serde_json::{Value, json};

use super::{Replica, elements, mappings, service};

/// The plan, and the code that it ends with.
async fn plan(group: &Replica, code: i32) -> Value {
    let ended = group.scene.start("tailpod", &["--json", "boot", "--check"], &[]).ends(code).await;
    serde_json::from_str(&ended.text()).unwrap_or_else(|error| panic!("{error}: {}", ended.text()))
}

#[tokio::test]
async fn check_shows_the_rules_of_an_egress_group() {
    let config = json!({ "web": service("web.test.ts.net", &[("TCP", 10345, 80)]), "odd": 7 });
    let group = Replica::egress(&config).await;
    let shown = plan(&group, 0).await;
    assert_eq!(
        elements(shown["rules"].as_str().unwrap()),
        [
            "tcp . 10345 : <IPv4 of web.test.ts.net> . 80".to_owned(),
            "tcp . 10345 : <IPv6 of web.test.ts.net> . 80".to_owned()
        ]
    );
    let warnings = shown["warnings"].to_string();
    assert!(warnings.contains(r#"egress service \"odd\" is left out: it is not an object"#), "{warnings}");
    assert_eq!(group.scripts().len(), 0, "nothing is done");

    group.publish(&[("egress-services", "{")]);
    let problems = plan(&group, 1).await["problems"].to_string();
    assert!(problems.contains("egress-services` is no config: it is not a JSON object of Services"), "{problems}");
}

#[tokio::test]
async fn check_shows_the_rules_of_an_ingress_group() {
    let group = Replica::ingress(&json!({ "svc:web": mappings(("100.100.1.1", "10.43.7.9"), ("", "")) })).await;
    let shown = plan(&group, 0).await;
    assert_eq!(elements(shown["rules"].as_str().unwrap()), ["100.100.1.1 : 10.43.7.9"]);
    group.publish(&[("ingress-config.json", "{}")]);
    let shown = plan(&group, 0).await;
    assert_eq!(shown["rules"], Value::Null);
    assert!(shown["warnings"].to_string().contains("ingress services: there are none in "), "{shown}");
}
