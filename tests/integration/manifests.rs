//! `tailpod generate manifests` through the front door: golden files, one for each kind of node.
//!
//! `UPDATE_GOLDEN=1 cargo test` writes them.

use std::path::Path;
use std::process::Command;

/// Exit code and both streams.
fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tailpod"))
        .env_clear()
        .args(["generate", "manifests", "boot"])
        .args(args)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Every variant of the golden directory: its name and its options.
const VARIANTS: &[(&str, &[&str])] = &[
    ("auth-once", &[]),
    ("always-auth", &["--mode", "always-auth", "--namespace", "tailscale", "--name", "egress"]),
    ("one-step", &["--mode", "one-step", "--routes", "10.0.0.0/8"]),
    ("replicas", &["--replicas", "3", "--routes", "10.0.0.0/8,fd00::/8"]),
    ("kernel", &["--kernel", "--routes", "10.0.0.0/8,fd00::/8", "--secret", "state"]),
    ("kernel-one-step", &["--kernel", "--mode", "one-step", "--routes", "10.0.0.0/8"]),
    ("sidecar", &["--sidecar", "--image", "registry.example/tailpod:1.2.3"]),
    ("sidecar-kernel", &["--sidecar", "--kernel"]),
];

#[test]
fn each_variant_is_what_its_golden_file_shows() {
    let update = std::env::vars_os().any(|(name, value)| name == "UPDATE_GOLDEN" && value == "1");
    for (name, options) in VARIANTS {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/manifests/{name}.yaml"));
        let (code, text, complaint) = run(options);
        assert_eq!((code, complaint.as_str()), (Some(0), ""), "{name}");
        assert_eq!(run(options).1, text, "{name}: the same options give the same text");
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
    for (options, part) in [
        (&["--replicas", "2", "--secret", "state"][..], "2 Pods cannot share the state Secret `state`"),
        (&["--replicas", "0"], "--replicas"),
        (&["--sidecar", "--replicas", "2"], "cannot be used with"),
        (&["--name", "Bad_Name"], "--name"),
        (&["--name", "a.b"], "no dot"),
        (&["--routes", "10.0.0.0/33"], "--routes"),
        (&["--mode", "twice"], "--mode"),
    ] {
        let (code, text, complaint) = run(options);
        assert_eq!((code, text.as_str()), (Some(2), ""), "{options:?}");
        assert!(complaint.contains(part), "{options:?}: {complaint}");
    }
}
