//! `tailpod certs issue` and `certs run` on a node whose tailscaled keeps certificates by itself.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tailpod::localapi::LocalApi;
use tailpod::sandbox::Fault;
use tokio::process::Command;
use tokio::time::timeout;

use super::{CAA, CALL, SHOP, services};
use crate::support::{Boot, SOON, Scene};

/// A node whose tailscaled keeps certificates by itself, and what `tailpod certs …` does there.
struct Alone {
    scene: Scene,
}

struct Ran {
    code: Option<i32>,
    text: String,
}

impl Alone {
    async fn new(allowed: &[&str]) -> Self {
        let scene = Scene::new().await;
        let socket = scene.sandbox.pod().backend();
        let api = LocalApi::new(&socket);
        api.post_serve_config(&services(&[SHOP]), None).await.unwrap();
        scene.daemon().notify(json!({"State": 6, "SelfChange": {
            "ID": 1, "StableID": "n1", "Name": "ts-0.tail1.ts.net.", "Addresses": ["100.64.0.1/32"]}}));
        scene.daemon().set_dns(json!(allowed), Value::Null);
        let state = scene.root().join("kept");
        std::fs::create_dir_all(&state).unwrap();
        Self { scene: scene.with("TS_SOCKET", socket).with("TS_STATE_DIR", state) }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tailpod"));
        command.arg("certs").args(args).env_clear().envs(self.scene.env()).kill_on_drop(true);
        command
    }

    async fn run(&self, args: &[&str]) -> Ran {
        let output = timeout(SOON, self.command(args).output()).await.unwrap_or_else(|_| panic!("{args:?}: no end"));
        let output = output.unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!text.contains("PRIVATE KEY"), "{text}");
        Ran { code: output.status.code(), text }
    }

    /// What is remembered for the next process.
    fn kept(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.scene.root().join("kept/tailpod-certs.json")).unwrap()).unwrap()
    }

    fn asked(&self) -> usize {
        self.scene.daemon().count(CALL)
    }
}

impl Ran {
    #[track_caller]
    fn ends(self, code: i32, part: &str) -> Self {
        assert!(self.code == Some(code) && self.text.contains(part), "{:?} and {part:?}:\n{}", self.code, self.text);
        self
    }
}

#[tokio::test]
async fn run_once_asks_for_what_is_served_and_says_how_it_stands() {
    let alone = Alone::new(&[SHOP]).await;
    alone.run(&["run"]).await.ends(0, "shop.tail1.ts.net  ok");
    assert_eq!(alone.asked(), 1);
    // What is there already is no order: it counts once, however often somebody looks.
    let limits = || async { alone.run(&["budget", "--json"]).await.text };
    let before = limits().await;
    alone.run(&["run"]).await.ends(0, "shop.tail1.ts.net  ok");
    alone.run(&["issue", SHOP]).await.ends(0, "unchanged");
    assert_eq!(limits().await.matches("\"serial\"").count(), 1, "{before}");
    assert_eq!(alone.scene.daemon().certificates_issued(), 1);
    // A name that failed waits in the next run too; one that did not is looked at again.
    alone.scene.daemon().fail(&format!("cert/{SHOP}"), Fault::Status(500, CAA.to_owned()));
    alone.run(&["run", "--once"]).await.ends(1, "caa");
    alone.scene.daemon().heal();
    alone.run(&["run", "--once"]).await.ends(1, "asked again at");
    assert_eq!(alone.asked(), 4);
    let limits = alone.run(&["budget"]).await.ends(0, "");
    assert!(limits.text.contains("shop.tail1.ts.net") || limits.text.contains("tail1.ts.net"), "{}", limits.text);
}

#[tokio::test]
async fn run_once_waits_for_the_tailnet_only_so_long() {
    let alone = Alone::new(&["other.tail1.ts.net"]).await;
    alone.run(&["run", "--wait-allowed", "1s"]).await.ends(1, "the tailnet does not allow the name");
    assert_eq!(alone.asked(), 0);
}

#[tokio::test]
async fn run_forever_ends_in_order_when_it_is_stopped() {
    let alone = Alone::new(&[SHOP]).await;
    let mut boot = Boot::spawn(alone.command(&["run", "--forever", "--domain", SHOP]));
    alone.scene.daemon().await_call(SOON, |call| call.endpoint == "cert-domains").await.unwrap();
    boot.signal(Signal::SIGHUP);
    boot.mentioned("as SIGHUP asks").await;
    boot.signal(Signal::SIGTERM);
    let ended = boot.end_within(Duration::from_secs(5)).await;
    assert_eq!(ended.code, Some(0), "{}", ended.text());
}

#[tokio::test]
async fn c15_c22_issue_checks_before_it_orders() {
    let alone = Alone::new(&[SHOP]).await;
    let refused = alone.run(&["issue", SHOP, "--min-validity", "2160h"]).await;
    refused.ends(2, "every call would renew");
    alone.run(&["issue", "shpo.tail1.ts.net"]).await.ends(1, "is it `shop.tail1.ts.net`?");
    alone.run(&["issue", "no dots"]).await.ends(2, "");
    alone.run(&["issue", SHOP, "--dry-run"]).await.ends(0, "nothing speaks against an order");
    assert_eq!(alone.asked(), 0);
    alone.scene.daemon().fail(&format!("cert/{SHOP}"), Fault::Status(500, CAA.to_owned()));
    alone.run(&["run"]).await.ends(1, "caa");
    alone.scene.daemon().heal();
    alone.run(&["issue", SHOP]).await.ends(1, "`--force` asks all the same");
    assert_eq!(alone.asked(), 1);
    alone.run(&["issue", SHOP, "--force"]).await.ends(0, "issued");
    assert_eq!(alone.asked(), 2);
}

#[tokio::test]
async fn what_fails_by_hand_is_known_to_the_manager_and_so_is_what_mends_it() {
    let alone = Alone::new(&[SHOP]).await;
    alone.scene.daemon().fail(&format!("cert/{SHOP}"), Fault::Status(500, CAA.to_owned()));
    alone.run(&["issue", SHOP]).await.ends(1, "caa");
    let kept = alone.kept();
    let record = &kept["names"][SHOP];
    assert_eq!((&record["failures"], &record["lastErrorClass"]), (&json!(1), &json!("authority")), "{kept}");
    assert!(kept["ledger"].to_string().contains("\"failed\""), "{kept}");
    alone.run(&["issue", SHOP]).await.ends(1, "1 attempts have failed");
    alone.run(&["run"]).await.ends(1, "asked again at");
    assert_eq!(alone.asked(), 1);
    alone.run(&["issue", SHOP, "--force"]).await.ends(1, "caa");
    assert_eq!(alone.kept()["names"][SHOP]["failures"], 2, "the second failure in a row");
    alone.scene.daemon().heal();
    alone.run(&["issue", SHOP, "--force"]).await.ends(0, "issued");
    assert_eq!(alone.kept()["names"][SHOP]["failures"], 0);
    alone.run(&["run"]).await.ends(0, "shop.tail1.ts.net  ok");
}

#[tokio::test]
async fn while_it_waits_issue_says_what_tailscaled_says() {
    let alone = Alone::new(&[SHOP]).await;
    alone.scene.daemon().fail(&format!("cert/{SHOP}"), Fault::Hang);
    let mut issue = Boot::spawn(alone.command(&["issue", SHOP]));
    alone.scene.daemon().await_count(CALL, 1, SOON).await.unwrap();
    let pending = |names: &str| {
        let text = format!("Fetching TLS certificate via ACME for: {names}");
        let warning = json!({"Text": text, "Args": {"domains": names}});
        alone.scene.daemon().notify(json!({"Health": {"Warnings": {"tls-cert-pending": warning}}}));
    };
    pending("other.tail1.ts.net");
    pending(&format!("other.tail1.ts.net, {SHOP}"));
    let line = issue.mentioned("tailscaled: Fetching TLS certificate via ACME for: ").await;
    assert!(line.contains(SHOP), "not what it does for others: {line}");
    issue.signal(Signal::SIGINT);
    issue.ends(130).await;
    let orders = alone.kept()["ledger"].to_string();
    assert!(orders.contains("broken-off"), "what came of it nobody knows: {orders}");
}

#[tokio::test]
async fn c23_c24_issue_on_a_reader_is_refused_and_keys_go_to_their_file_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let alone = Alone::new(&[SHOP]).await;
    alone.scene.daemon().set_certificates_read_only(true);
    alone.run(&["issue", SHOP]).await.ends(1, "not the writer");
    alone.scene.daemon().set_certificates_read_only(false);
    let (key, cert) = (alone.scene.root().join("key.pem"), alone.scene.root().join("cert.pem"));
    let files = ["--write-key", key.to_str().unwrap(), "--write-cert", cert.to_str().unwrap()];
    alone.run(&[&["issue", SHOP][..], &files].concat()).await.ends(0, "issued");
    let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap();
    assert!(read(&key).contains("PRIVATE KEY") && !read(&key).contains("CERTIFICATE"));
    assert!(read(&cert).contains("CERTIFICATE") && !read(&cert).contains("PRIVATE KEY"));
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
}
