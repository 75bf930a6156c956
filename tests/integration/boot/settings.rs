//! Settings through the front door: what stops a boot before anything is started, and what does not.

use crate::support::{Ended, Scene, running};

/// Boots with these variables, which must end it with 1 before any child is started.
async fn refused(scene: Scene) -> Ended {
    let ended = scene.boot().ends(1).await;
    assert_eq!(scene.daemon().commands().len(), 0, "a child was started");
    ended
}

async fn refused_with(vars: &[(&str, &str)]) -> Ended {
    refused(Scene::new().await.with_all(vars)).await
}

#[tokio::test]
async fn s23_auth_conflicts() {
    let both = "TS_AUTHKEY cannot be used with TS_CLIENT_ID, TS_CLIENT_SECRET, TS_ID_TOKEN, or TS_AUDIENCE.";
    let cases: [(&[(&str, &str)], &str); 9] = [
        (&[("TS_ID_TOKEN", "t")], "TS_ID_TOKEN is set but TS_CLIENT_ID is not set"),
        (&[("TS_AUDIENCE", "a")], "TS_AUDIENCE is set but TS_CLIENT_ID is not set"),
        (
            &[("TS_CLIENT_ID", "i"), ("TS_ID_TOKEN", "t"), ("TS_CLIENT_SECRET", "s")],
            "TS_ID_TOKEN and TS_CLIENT_SECRET cannot both be set",
        ),
        (
            &[("TS_CLIENT_ID", "i"), ("TS_ID_TOKEN", "t"), ("TS_AUDIENCE", "a")],
            "TS_ID_TOKEN and TS_AUDIENCE cannot both be set",
        ),
        (
            &[("TS_CLIENT_ID", "i"), ("TS_AUDIENCE", "a"), ("TS_CLIENT_SECRET", "s")],
            "TS_AUDIENCE and TS_CLIENT_SECRET cannot both be set",
        ),
        (&[("TS_AUTHKEY", "k"), ("TS_CLIENT_ID", "i")], both),
        (&[("TS_AUTHKEY", "k"), ("TS_CLIENT_SECRET", "s")], both),
        (&[("TS_AUTHKEY", "k"), ("TS_CLIENT_ID", "i"), ("TS_ID_TOKEN", "t")], both),
        (&[("TS_AUTHKEY", "k"), ("TS_CLIENT_ID", "i"), ("TS_AUDIENCE", "a")], both),
    ];
    for (vars, text) in cases {
        let ended = refused_with(vars).await;
        let first = ended.messages().into_iter().find(|message| message.starts_with("invalid configuration"));
        assert_eq!(first, Some(format!("invalid configuration: invalid configuration: {text}").as_str()), "{vars:?}");
    }
}

const VIA_INGRESS: &str = "EXPERIMENTAL_ALLOW_PROXYING_CLUSTER_TRAFFIC_VIA_INGRESS";

/// Addresses that are none end it before anything is started (W18).
#[tokio::test]
async fn w18_a_bad_address_starts_nothing() {
    for name in ["TS_DEST_IP", "TS_TAILNET_TARGET_IP"] {
        let scene = Scene::kube([("authkey", "k")]).await.with_all(&[("TS_USERSPACE", "false"), (name, "1.2.3")]);
        let ended = scene.start("containerboot", &[], &[]).ends(1).await;
        assert!(ended.text().contains("Failed to enable IP forwarding: invalid "), "{}", ended.text());
        let ended = scene.start("tailpod", &["boot"], &[]).ends(1).await;
        let line = format!(r#"invalid configuration: {name}="1.2.3": not an IP address"#);
        assert!(ended.says(&line), "{}", ended.text());
        assert_eq!(scene.daemon().commands().len(), 0);
        assert_eq!(scene.data().get("tailscale_capver"), None, "nothing was written");
    }
}

/// boot.md E.6: whatever operators and harnesses set besides is accepted.
#[tokio::test]
async fn e6_all_other_variables_are_accepted() {
    let known = tailpod::settings::vars::VARS.iter().map(|var| var.name);
    let set = |name: &str| match name {
        // These must be what they are for a boot to work at all.
        "TS_TEST_ONLY_ROOT" | "TS_SOCKET" | "TAILPOD_TERMINATION_LOG" | "TS_TEST_FAKE_NETFILTER" => None,
        // Outside of Kubernetes, without a config file, with one way to log in, and with health checks on the main address.
        "TS_KUBE_SECRET" | "KUBERNETES_SERVICE_HOST" | "TS_EXPERIMENTAL_VERSIONED_CONFIG_DIR" => None,
        "TS_CLIENT_ID" | "TS_CLIENT_SECRET" | "TS_ID_TOKEN" | "TS_AUDIENCE" | "TS_HEALTHCHECK_ADDR_PORT" => None,
        "TS_EXPERIMENTAL_CERT_SHARE" | VIA_INGRESS => Some("false"),
        // L3 proxying needs the kernel's stack or a Pod.
        "TS_DEST_IP" | "TS_EXPERIMENTAL_DEST_DNS_NAME" | "TS_TAILNET_TARGET_IP" | "TS_TAILNET_TARGET_FQDN" => Some(""),
        "TS_EGRESS_PROXIES_CONFIG_PATH" | "TS_INGRESS_PROXIES_CONFIG_PATH" => Some(""),
        "TAILPOD_EGRESS_EXEMPTIONS" => Some("none"),
        "TS_EXPERIMENTAL_ENABLE_FORWARDING_OPTIMIZATIONS" | "TS_USERSPACE" => Some("true"),
        "TS_ROUTES" => Some("10.0.0.0/8"),
        "POD_IPS" => Some("10.0.0.9"),
        "TS_LOCAL_ADDR_PORT" | "TS_DEBUG_ADDR_PORT" => Some("127.0.0.1:9"),
        "TAILPOD_CAPVER" => Some("148"),
        "TAILPOD_RESTART_DAEMON" => Some("never"),
        "TAILPOD_ARGS_QUOTING" => Some("shell"),
        "TAILPOD_CERT_WRITER" => Some("off"),
        "TAILPOD_CERT_LEASE_DURATION" => Some("1m"),
        "TAILPOD_WITHDRAW_WAIT" => Some("1s"),
        name if name.ends_with("_TIMEOUT") => Some("1m"),
        name if name.starts_with("TS_ENABLE_") => Some("false"),
        _ => Some("false"),
    };
    let mut scene = Scene::new().await;
    for name in known {
        if let Some(value) = set(name) {
            let value = if name == "TS_EXPERIMENTAL_ENABLE_FORWARDING_OPTIMIZATIONS" { "false" } else { value };
            scene = scene.with(name, value);
        }
    }
    for (name, value) in [
        ("TS_INTERNAL_APP", "k8s-operator-proxygroup-egress"),
        ("TS_DEBUG_ACME_FORCE_RENEWAL", "true"),
        ("TS_DEBUG_FIREWALL_MODE", "auto"),
        ("TS_SOMETHING_NEW", "1"),
        ("PORT", "41641"),
    ] {
        scene = scene.with(name, value);
    }
    let boot = scene.boot();
    scene.notify(running()).await;
    boot.ready().await;
    let daemon = scene.daemon().commands().remove(0);
    assert!(daemon.env.contains_key("TS_SOMETHING_NEW"), "names we do not know are inherited");
    boot.stops().await;
}

/// Every problem in one run, and the first line is the one upstream would have stopped at.
#[tokio::test]
async fn all_problems_are_told_at_once() {
    let ended = refused_with(&[("TS_BOOT_TIMEOUT", "90"), ("TS_ID_TOKEN", "t"), ("TS_DEST_IP", "1.2.3.4")]).await;
    let lines: Vec<_> =
        ended.messages().into_iter().filter(|message| message.starts_with("invalid configuration")).collect();
    assert_eq!(
        lines[..2],
        [
            "invalid configuration: invalid configuration: TS_DEST_IP is not supported with TS_USERSPACE",
            "invalid configuration: invalid configuration: TS_ID_TOKEN is set but TS_CLIENT_ID is not set",
        ]
    );
    assert!(lines[2].contains("TS_BOOT_TIMEOUT"), "{lines:?}");
}
