//! Every row of boot.md 2.5, in upstream's order.

use super::*;

#[test]
fn rule_0_the_addresses_of_the_pod() {
    for (ips, line) in [
        (
            "10.0.0.1,::1,10.0.0.2",
            "invalid configuration: POD_IPs can contain at most 2 IPs, got 3 ([10.0.0.1 ::1 10.0.0.2])",
        ),
        ("", r#"invalid configuration: error parsing IP address : ParseAddr(""): unable to parse IP"#),
        (
            "10.0.0.1, ::1",
            r#"invalid configuration: error parsing IP address  ::1: ParseAddr(" ::1"): unable to parse IP"#,
        ),
    ] {
        assert_eq!(lines(&[("POD_IPS", ips)], Persona::Containerboot), [line]);
    }
    let pod = ok(&[("POD_IPS", "fd00::2,fd00:0::3")], Persona::Containerboot).pod;
    assert_eq!((pod.ipv4, pod.ipv6), (None, "fd00::3".parse().ok()), "the later of one family wins");
    let pod = ok(&[("POD_IPS", "10.0.0.1,fd00::1")], Persona::Containerboot).pod;
    assert_eq!((pod.ipv4, pod.ipv6), ("10.0.0.1".parse().ok(), "fd00::1".parse().ok()));
}

#[test]
fn rule_1_the_config_directory_vanished() {
    let vars = env(&[]);
    let mut read = Reader::new(&vars, Persona::Containerboot);
    let file = rules::config_file(&mut read, Path::new("/nonexistent/cap-95.hujson"), 148).map(|_| ());
    let problems = read.finish(|_| file).expect_err("there is no such directory");
    assert_eq!(
        problems.lines(),
        ["invalid configuration: invalid configuration: error validating whether directory with tailscaled config \
          file /nonexistent/ exists: No such file or directory (os error 2)"]
    );
}

#[test]
fn rule_2_the_config_file_is_a_dangling_link() {
    let dir = tempfile::tempdir().expect("a directory");
    std::os::unix::fs::symlink("..data/gone", dir.path().join("cap-95.hujson")).expect("a link");
    let dir_text = dir.path().display().to_string();
    assert_eq!(
        rule(&[(CONFIG_DIR, &dir_text)]),
        format!(
            "error validating whether tailscaled config directory \"{dir_text}/\" contains tailscaled config for \
             current capability version \"cap-95.hujson\": No such file or directory (os error 2). If this is a \
             Tailscale Kubernetes operator proxy, please ensure that the version of the operator is not older than \
             the version of the proxy"
        )
    );
}

#[test]
fn rule_3_the_config_file_does_not_load() {
    for (content, reason) in [
        ("{}", r#": no "version" field defined"#),
        (r#"{"version":"alpha0","What":1}"#, r#": unknown field "What""#),
        (r#"{"version":"alpha0""#, " HuJSON/JSON: line 1, column 20: unexpected end"),
        ("", ": it is empty"),
    ] {
        let dir = config_dir("cap-95.hujson", content);
        let dir = dir.path().display().to_string();
        assert_eq!(
            rule(&[(CONFIG_DIR, &dir)]),
            format!(
                "error validating tailscaled configfile contents: error parsing config file {dir}/cap-95.hujson{reason}"
            )
        );
    }
}

#[test]
fn rules_4_to_9_and_11_to_27() {
    for (pairs, text) in [
        (&[("TS_DEST_IP", "1.2.3.4")][..], "TS_DEST_IP is not supported with TS_USERSPACE"),
        (&[("TS_EXPERIMENTAL_DEST_DNS_NAME", "h")], "TS_EXPERIMENTAL_DEST_DNS_NAME is not supported with TS_USERSPACE"),
        (
            &[KERNEL, ("TS_DEST_IP", "1.2.3.4"), ("TS_EXPERIMENTAL_DEST_DNS_NAME", "h")],
            "TS_EXPERIMENTAL_DEST_DNS_NAME and TS_DEST_IP cannot both be set",
        ),
        (&[("TS_TAILNET_TARGET_IP", "100.64.0.1")], "TS_TAILNET_TARGET_IP is not supported with TS_USERSPACE"),
        (&[("TS_TAILNET_TARGET_FQDN", "a.b.ts.net")], "TS_TAILNET_TARGET_FQDN is not supported with TS_USERSPACE"),
        (
            &[KERNEL, ("TS_TAILNET_TARGET_IP", "100.64.0.1"), ("TS_TAILNET_TARGET_FQDN", "a.b.ts.net")],
            "Both TS_TAILNET_TARGET_IP and TS_TAILNET_FQDN cannot be set",
        ),
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
        (
            &[("TS_AUTHKEY", "k"), ("TS_CLIENT_ID", "i")],
            "TS_AUTHKEY cannot be used with TS_CLIENT_ID, TS_CLIENT_SECRET, TS_ID_TOKEN, or TS_AUDIENCE.",
        ),
        (
            &[("TS_AUTH_KEY", "k"), ("TS_CLIENT_SECRET", "s")],
            "TS_AUTHKEY cannot be used with TS_CLIENT_ID, TS_CLIENT_SECRET, TS_ID_TOKEN, or TS_AUDIENCE.",
        ),
        (
            &[(VIA_INGRESS, "true"), ("TS_SERVE_CONFIG", "/x"), ("POD_IP", "10.0.0.9")],
            "EXPERIMENTAL_ALLOW_PROXYING_CLUSTER_TRAFFIC_VIA_INGRESS is not supported in userspace mode",
        ),
        (
            &[KERNEL, (VIA_INGRESS, "true"), ("POD_IP", "10.0.0.9")],
            "EXPERIMENTAL_ALLOW_PROXYING_CLUSTER_TRAFFIC_VIA_INGRESS is set but this is not a cluster ingress proxy",
        ),
        (
            &[KERNEL, (VIA_INGRESS, "true"), ("TS_SERVE_CONFIG", "/x")],
            "EXPERIMENTAL_ALLOW_PROXYING_CLUSTER_TRAFFIC_VIA_INGRESS is set but POD_IP is not set",
        ),
        (
            &[("TS_EXPERIMENTAL_ENABLE_FORWARDING_OPTIMIZATIONS", "1")],
            "TS_EXPERIMENTAL_ENABLE_FORWARDING_OPTIMIZATIONS is not supported in userspace mode",
        ),
        (&[("TS_HEALTHCHECK_ADDR_PORT", ":9002")], r#"error parsing TS_HEALTHCHECK_ADDR_PORT value ":9002": no IP"#),
        (
            &[("TS_ENABLE_METRICS", "true"), ("TS_LOCAL_ADDR_PORT", "localhost:9002")],
            r#"error parsing TS_LOCAL_ADDR_PORT value "localhost:9002": ParseAddr("localhost"): unable to parse IP"#,
        ),
        (
            &[("TS_ENABLE_HEALTH_CHECK", "true"), ("TS_LOCAL_ADDR_PORT", "9002")],
            r#"error parsing TS_LOCAL_ADDR_PORT value "9002": not an ip:port"#,
        ),
        (
            &[("TS_DEBUG_ADDR_PORT", "x:1")],
            r#"error parsing TS_DEBUG_ADDR_PORT value "x:1": ParseAddr("x"): unable to parse IP"#,
        ),
        (
            &[("TS_ENABLE_HEALTH_CHECK", "true"), ("TS_HEALTHCHECK_ADDR_PORT", "[::]:9003")],
            "TS_HEALTHCHECK_ADDR_PORT is deprecated and will be removed in 1.82.0, use TS_ENABLE_HEALTH_CHECK and \
             optionally TS_LOCAL_ADDR_PORT",
        ),
        (
            &[("TS_EGRESS_PROXIES_CONFIG_PATH", "/etc/proxies")],
            "TS_EGRESS_PROXIES_CONFIG_PATH is only supported for Tailscale running on Kubernetes",
        ),
        (
            &[("KUBERNETES_SERVICE_HOST", "h"), ("TS_KUBE_SECRET", ""), ("TS_INGRESS_PROXIES_CONFIG_PATH", "/x")],
            "TS_INGRESS_PROXIES_CONFIG_PATH is only supported for Tailscale running on Kubernetes",
        ),
        (
            &[("TS_BOOT_TIMEOUT", "90")],
            r#"error parsing TS_BOOT_TIMEOUT value "90": time: missing unit in duration "90""#,
        ),
    ] {
        assert_eq!(rule(pairs), text, "{pairs:?}");
    }
}

#[test]
fn rule_10_a_config_file_stands_alone() {
    let dir = config_dir("cap-95.hujson", GOOD);
    let dir = dir.path().display().to_string();
    let config = (CONFIG_DIR, dir.as_str());
    for pair in [
        ("TS_HOSTNAME", "h"),
        ("TS_EXTRA_ARGS", "--ssh"),
        ("TS_EXTRA_ARGS", " "),
        ("TS_EXTRA_ARGS", "--accept-dns"),
        ("TS_AUTHKEY", "k"),
        ("TS_ROUTES", ""),
        ("TS_ACCEPT_DNS", "false"),
        ("TS_CLIENT_ID", "i"),
        ("TS_CLIENT_SECRET", "s"),
        ("TS_ID_TOKEN", "t"),
        ("TS_AUDIENCE", "a"),
    ] {
        assert_eq!(rule(&[config, pair]), NO_CONFLICTS, "{pair:?}");
    }
    for pair in [("TS_EXTRA_ARGS", "--accept-dns=false"), ("TS_ACCEPT_DNS", "perhaps"), ("TS_AUTH_ONCE", "true")] {
        let settings = ok(&[config, pair], Persona::Containerboot);
        assert!(matches!(settings.mode, Mode::OneStep(_)), "{pair:?}");
    }
}

#[test]
fn all_problems_are_reported_in_upstreams_order() {
    let pairs = [
        ("POD_IPS", "x"),
        ("TS_DEST_IP", "nonsense"),
        ("TS_TAILNET_TARGET_IP", "100.64.0.1"),
        ("TS_TAILNET_TARGET_FQDN", "a"),
        ("TS_ID_TOKEN", "t"),
        ("TS_ROUTES", "10.0.0.0/33"),
        ("TS_BOOT_TIMEOUT", "1d"),
        ("TAILPOD_LOGIN_TIMEOUT", "soon"),
    ];
    assert_eq!(
        lines(&pairs, Persona::Tailpod),
        [
            r#"error parsing IP address x: ParseAddr("x"): unable to parse IP"#,
            "TS_DEST_IP is not supported with TS_USERSPACE",
            "TS_TAILNET_TARGET_IP is not supported with TS_USERSPACE",
            "TS_TAILNET_TARGET_FQDN is not supported with TS_USERSPACE",
            "TS_TAILNET_TARGET_IP and TS_TAILNET_TARGET_FQDN cannot both be set",
            "TS_ID_TOKEN is set but TS_CLIENT_ID is not set",
            r#"error parsing TS_BOOT_TIMEOUT value "1d": time: unknown unit "d" in duration "1d""#,
            r#"TS_ROUTES="10.0.0.0/33": not a network prefix; the length must be at most 32"#,
            r#"TS_DEST_IP="nonsense": not an IP address"#,
            r#"TAILPOD_LOGIN_TIMEOUT="soon": time: invalid duration "soon""#,
        ]
        .map(|text| format!("invalid configuration: {text}"))
    );
    let containerboot = lines(&pairs, Persona::Containerboot);
    assert_eq!(
        containerboot[1],
        "invalid configuration: invalid configuration: TS_DEST_IP is not supported with TS_USERSPACE"
    );
    assert!(!containerboot.iter().any(|line| line.contains("TS_ROUTES")), "scenario 8: that is host preparation's");
}

#[test]
fn the_directory_is_named_before_anything_else() {
    let dir = config_dir("cap-9999.hujson", GOOD);
    let text = dir.path().display().to_string();
    let missing = ChooseError::NoneFits { dir: dir.path().to_owned(), capver: CAPVER }.to_string();
    assert_eq!(lines(&[(CONFIG_DIR, &text), ("POD_IPS", "x")], Persona::Containerboot)[0], missing);
    assert_eq!(
        missing,
        format!("no tailscaled config file found in \"{text}\" for current capability version {CAPVER}")
    );
    let line = lines(&[(CONFIG_DIR, "/nonexistent/x")], Persona::Containerboot).remove(0);
    assert!(line.starts_with(r#"error reading tailscaled config directory "/nonexistent/x": "#), "{line}");
    let settings = ok(&[(CONFIG_DIR, &text), ("TAILPOD_CAPVER", "10000")], Persona::Containerboot);
    assert_eq!(
        settings.notes[0].text,
        format!("Using tailscaled config file \"{text}/cap-9999.hujson\" to match current capability version 10000")
    );
    assert!(settings.capver_is_explicit);
}
