//! `tailpod generate manifests` through the front door: golden files, one for each kind of node.
//!
//! `UPDATE_GOLDEN=1 cargo test` writes them.

use std::path::Path;
use std::process::Command;

/// Exit code and both streams.
fn run(of: &str, args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tailpod"))
        .env_clear()
        .args(["generate", "manifests", of])
        .args(args)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Every variant of the golden directory: its name, what it is for, and its options.
const VARIANTS: &[(&str, &str, &[&str])] = &[
    ("auth-once", "boot", &[]),
    ("always-auth", "boot", &["--mode", "always-auth", "--namespace", "tailscale", "--name", "egress"]),
    ("one-step", "boot", &["--mode", "one-step", "--routes", "10.0.0.0/8"]),
    ("replicas", "boot", &["--replicas", "3", "--routes", "10.0.0.0/8,fd00::/8"]),
    ("kernel", "boot", &["--kernel", "--routes", "10.0.0.0/8,fd00::/8", "--secret", "state"]),
    ("kernel-one-step", "boot", &["--kernel", "--mode", "one-step", "--routes", "10.0.0.0/8"]),
    ("sidecar", "boot", &["--sidecar", "--image", "registry.example/tailpod:1.2.3"]),
    ("sidecar-kernel", "boot", &["--sidecar", "--kernel"]),
    ("proxy-tls", "proxy", &[]),
    ("proxy-tls-noauth", "proxy", &["--mode", "noauth", "-n", "kube", "--replicas", "2", "--src", "group:eng,tag:ci"]),
    (
        "proxy-serve",
        "proxy",
        &[
            "--listener=serve",
            "--tailnet=tail1234.ts.net",
            "--service=svc:prod-api",
            "--replicas=2",
            "--groups=readers,system:masters",
        ],
    ),
    ("proxy-serve-noauth", "proxy", &["--listener", "serve", "--tailnet", "tail1234.ts.net", "--mode", "noauth"]),
];

#[test]
fn each_variant_is_what_its_golden_file_shows() {
    let update = std::env::vars_os().any(|(name, value)| name == "UPDATE_GOLDEN" && value == "1");
    for (name, of, options) in VARIANTS {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/manifests/{name}.yaml"));
        let (code, text, complaint) = run(of, options);
        assert_eq!((code, complaint.as_str()), (Some(0), ""), "{name}");
        assert_eq!(run(of, options).1, text, "{name}: the same options give the same text");
        if update {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(text, golden, "{name}: `UPDATE_GOLDEN=1 cargo test` writes it");
    }
}

#[test]
fn options_that_make_no_sense_end_with_2() {
    for (of, options, part) in [
        ("boot", &["--replicas", "2", "--secret", "state"][..], "2 Pods cannot share the state Secret `state`"),
        ("boot", &["--replicas", "0"], "--replicas"),
        ("boot", &["--sidecar", "--replicas", "2"], "cannot be used with"),
        ("boot", &["--name", "Bad_Name"], "--name"),
        ("boot", &["--name", "a.b"], "no dot"),
        ("boot", &["--routes", "10.0.0.0/33"], "--routes"),
        ("boot", &["--mode", "twice"], "--mode"),
        ("proxy", &["--listener", "serve"], "--tailnet <DOMAIN>"),
        ("proxy", &["--tailnet", "tail1234.ts.net"], "hint: add `--listener serve`"),
        ("proxy", &["--service", "svc:api"], "hint: add `--listener serve`"),
        ("proxy", &["--listener=serve", "--tailnet=t.ts.net", "--service=api"], "it begins with `svc:`"),
        ("proxy", &["--groups", "a b"], "--groups"),
        ("proxy", &["--groups", ""], "--groups"),
        ("proxy", &["--tag", "k8s"], "it begins with `tag:`"),
        ("proxy", &["--namespace", "a.b"], "--namespace"),
    ] {
        let (code, text, complaint) = run(of, options);
        assert_eq!((code, text.as_str()), (Some(2), ""), "{options:?}");
        assert!(complaint.contains(part), "{options:?}: {complaint}");
    }
}

#[test]
fn the_policy_alone_is_json_and_the_same_as_in_the_comment() {
    for (_, of, options) in VARIANTS.iter().filter(|(_, of, _)| *of == "proxy") {
        let (code, policy, complaint) = run(of, &[options, &["--policy"][..]].concat());
        assert_eq!((code, complaint.as_str()), (Some(0), ""), "{options:?}");
        serde_json::from_str::<serde_json::Value>(&policy).unwrap_or_else(|error| panic!("{error}: {policy}"));
        let all = run(of, options).1;
        let comment: Vec<_> = all.lines().filter_map(|line| line.strip_prefix("#   ")).collect();
        assert_eq!(comment, policy.lines().collect::<Vec<_>>(), "{options:?}");
    }
}
