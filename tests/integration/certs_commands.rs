//! The commands of `tailpod certs` that look: lists, checks, budgets, handshakes, through the front door.
//!
//! Scenarios are those of certs.md 13 (`c…`), under their own numbers.

mod check;
mod renewed;
mod verify;

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use serde_json::{Value, json};
use tailpod::localapi::LocalApi;
use tailpod::sandbox::apiserver::access::{Access, Rule, Subject};
use tailpod::sandbox::tls::{Pair, issue_between};
use tokio::process::Command;
use tokio::time::timeout;

use crate::generated::golden;
use crate::support::{NAMESPACE, SECRET, SOON, Scene};

const DAY: i64 = 86_400;

// === Runs ===

pub(super) struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ran {
    #[track_caller]
    fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    fn shows(&self, part: &str) -> &Self {
        assert!(self.stdout.contains(part), "{part:?} is not in\n{}", self.stdout);
        self
    }

    #[track_caller]
    fn says(&self, part: &str) -> &Self {
        assert!(self.stderr.contains(part), "{part:?} is not in\n{}", self.stderr);
        self
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("{}\n{}", self.stdout, self.stderr))
    }

    /// The words of the row that begins with `name`.
    #[track_caller]
    fn row(&self, name: &str) -> Vec<String> {
        let line = self.stdout.lines().find(|line| line.split(' ').next() == Some(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in\n{}", self.stdout));
        line.split("  ").map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }
}

/// `tailpod certs …`; no private key is ever in what it says, and no certificate was asked for.
async fn certs(scene: &Scene, args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tailpod"));
    command.arg("certs").args(args).env_clear().envs(scene.env()).kill_on_drop(true);
    let output = timeout(SOON, command.output()).await.unwrap_or_else(|_| panic!("{args:?}: no end")).unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let ran = Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) };
    assert!(!ran.stdout.contains("PRIVATE KEY") && !ran.stderr.contains("PRIVATE KEY"), "{}", ran.stdout);
    let asked: Vec<_> =
        scene.daemon().calls().into_iter().map(|call| call.endpoint).filter(|one| one.starts_with("cert/")).collect();
    assert!(asked.is_empty(), "asking for a certificate may order one: {asked:?}");
    ran
}

// === Worlds ===

/// A certificate for `names` and its key, from so many seconds ago until in so many.
fn made(names: &[&str], from: i64, until: i64) -> Pair {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let at = |second: i64| Duration::from_secs(u64::try_from(now + second).unwrap());
    issue_between(names, at(-from), at(until)).unwrap()
}

/// One in the middle of its first two thirds.
pub(crate) fn fresh(name: &str) -> Pair {
    made(&[name], 30 * DAY, 60 * DAY + 60)
}

/// A node called `ts-0.t.ts.net` in a Pod, whose tailscaled runs and serves `config`, and which may have `allowed`.
async fn node(config: &Value, allowed: &[&str]) -> Scene {
    let scene = Scene::kube([]).await;
    serve(&scene, config).await;
    scene.daemon().notify(json!({"State": 6, "SelfChange": {
        "ID": 1, "StableID": "n1", "Name": "ts-0.t.ts.net.", "Addresses": ["100.64.0.1/32"]}}));
    scene.daemon().set_dns(json!(allowed), Value::Null);
    let socket = scene.sandbox.pod().backend();
    scene.with("TS_SOCKET", socket).with("TS_KUBE_SECRET", SECRET)
}

async fn serve(scene: &Scene, config: &Value) {
    LocalApi::new(&scene.sandbox.pod().backend()).post_serve_config(config, None).await.unwrap();
}

/// A Service for each name.
fn services(names: &[&str]) -> Value {
    let service = |name: &&str| {
        let label = name.split('.').next().unwrap();
        (format!("svc:{label}"), json!({"Web": {format!("{name}:443"): {"Handlers": {}}}}))
    };
    json!({"Services": names.iter().map(service).collect::<serde_json::Map<_, _>>()})
}

/// Writes a TLS Secret as the operator and tailscaled do.
fn put_tls(scene: &Scene, name: &str, domain_label: &str, pair: Option<&Pair>, annotations: &Value) {
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let (chain, key) =
        pair.map_or((String::new(), String::new()), |pair| (encode(&pair.chain_pem), encode(&pair.key_pem)));
    let labels = json!({
        "tailscale.com/managed": "true", "tailscale.com/secret-type": "certs",
        "tailscale.com/proxy-group": "ts", "tailscale.com/domain": domain_label,
    });
    scene.api().put(
        "secrets",
        NAMESPACE,
        json!({
            "metadata": {"name": name, "labels": labels, "annotations": annotations},
            "type": "kubernetes.io/tls", "data": {"tls.crt": chain, "tls.key": key},
        }),
    );
}

/// Lets the Pod's service account do more.
fn grant(scene: &Scene, rules: impl IntoIterator<Item = Rule>) {
    let access = rules.into_iter().fold(Access::of_boot(NAMESPACE, SECRET), Access::and);
    scene.api().grant(Subject::from(scene.sandbox.user()), access);
}

fn may_read_secrets(scene: &Scene) {
    grant(scene, [Rule::new("", &["secrets"], &["get", "list"])]);
}

/// Makes the node one of a group that shares certificates.
fn shared(scene: Scene, pod: &str) -> Scene {
    scene.with("TS_EXPERIMENTAL_CERT_SHARE", "true").with("POD_NAME", pod)
}

// === list ===

#[tokio::test]
async fn c20_a_missing_certificate_is_listed_and_not_asked_for() {
    let scene = node(&services(&["shop.t.ts.net"]), &["shop.t.ts.net", "ts-0.t.ts.net"]).await;
    let ran = certs(&scene, &["list"]).await.ends(0);
    assert_eq!(ran.row("shop.t.ts.net"), ["shop.t.ts.net", "svc:shop", "none", "-", "-", "-", "missing", "-"]);
    assert_eq!(ran.row("ts-0.t.ts.net")[6], "missing");
    assert_eq!(ran.stderr, "");
    certs(&scene, &["list", "--exit-code"]).await.ends(3);
    for command in [&["show", "shop.t.ts.net"][..], &["check"], &["budget"]] {
        certs(&scene, command).await;
    }
    assert!(scene.daemon().count("GET cert-domains") > 0, "it was asked what it allows");
}

#[tokio::test]
async fn c21_one_that_ended_an_hour_ago_is_expired_and_ends_with_3() {
    let scene = node(&services(&["shop.t.ts.net"]), &["shop.t.ts.net"]).await;
    let pair = made(&["shop.t.ts.net"], 90 * DAY, -3600);
    scene.put_keys(&[("shop.t.ts.net.crt", &pair.chain_pem), ("shop.t.ts.net.key", &pair.key_pem)]);
    let ran = certs(&scene, &["list", "--exit-code"]).await.ends(3);
    let row = ran.row("shop.t.ts.net");
    assert_eq!((row[2].as_str(), row[5].as_str(), row[6].as_str()), ("state-key", "-1", "expired"));
    ran.shows("DOMAIN         USED-BY   SOURCE     ISSUER                     NOT-AFTER             DAYS  STATUS   NEXT-ATTEMPT\n");
}

#[tokio::test]
async fn c30_a_long_name_is_found_by_its_label() {
    let name = format!("{}.tail1234.ts.net", "a".repeat(54));
    assert_eq!(name.len(), 70);
    let label = format!("{}-{}", "a".repeat(54), &sha256(&name)[..8]);
    let scene = shared(node(&services(&[&name]), &[&name]).await, "ts-1");
    grant(&scene, [Rule::new("", &["secrets"], &["get", "list", "patch"])]);
    put_tls(&scene, &name, &label, Some(&fresh(&name)), &Value::Null);
    let ran = certs(&scene, &["list", "--exit-code"]).await.ends(0);
    assert_eq!(ran.row(&name)[6], "ok");
    certs(&scene, &["check"]).await.ends(0).shows("all 1 TLS Secrets are there");
    put_tls(&scene, &name, &"a".repeat(63), Some(&fresh(&name)), &Value::Null);
    certs(&scene, &["check"]).await.ends(0).shows("label `tailscale.com/domain` is `aaa").shows(&label);
}

fn sha256(text: &str) -> String {
    use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
    use std::fmt::Write as _;
    let suite = TLS13_AES_128_GCM_SHA256.tls13().unwrap();
    suite.common.hash_provider.hash(text.as_bytes()).as_ref().iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

#[tokio::test]
async fn every_status_is_told_and_the_document_is_the_contract() {
    let names = ["due", "critical", "early", "other", "foreign", "broken", "good", "empty"]
        .map(|name| format!("{name}.t.ts.net"));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let allowed: Vec<&str> = names.iter().copied().filter(|name| *name != "foreign.t.ts.net").collect();
    let scene = shared(node(&services(&names), &allowed).await, "ts-0");
    may_read_secrets(&scene);
    let put = |name: &str, pair: Option<&Pair>| put_tls(&scene, name, name, pair, &Value::Null);
    put("due.t.ts.net", Some(&made(&["due.t.ts.net"], 70 * DAY, 20 * DAY + 60)));
    put("critical.t.ts.net", Some(&made(&["critical.t.ts.net"], 84 * DAY, 6 * DAY + 60)));
    put("early.t.ts.net", Some(&made(&["early.t.ts.net"], -DAY, 90 * DAY + 60)));
    put("other.t.ts.net", Some(&fresh("else.t.ts.net")));
    put("foreign.t.ts.net", Some(&fresh("foreign.t.ts.net")));
    let (one, two) = (fresh("broken.t.ts.net"), fresh("broken.t.ts.net"));
    put("broken.t.ts.net", Some(&Pair { key_pem: two.key_pem, ..one }));
    let noted = json!({
        "tailpod.dev/cert-failures": "2", "tailpod.dev/cert-next-attempt": "2026-08-23T10:00:00Z",
        "tailpod.dev/cert-last-error": "authority: 500 badNonce",
    });
    put_tls(&scene, "good.t.ts.net", "good.t.ts.net", Some(&fresh("good.t.ts.net")), &noted);
    put("empty.t.ts.net", None);

    let ran = certs(&scene, &["list", "--exit-code"]).await.ends(3);
    for (name, status) in [
        ("due", "renewal-due"),
        ("critical", "critical"),
        ("early", "not-yet-valid"),
        ("other", "invalid"),
        ("foreign", "not-allowed"),
        ("broken", "invalid"),
        ("good", "ok"),
        ("empty", "missing"),
    ] {
        assert_eq!(ran.row(&format!("{name}.t.ts.net"))[6], status, "{name}");
    }
    assert_eq!(ran.row("good.t.ts.net")[7], "2026-08-23T10:00:00Z");
    let document = certs(&scene, &["list", "--json"]).await.ends(0).json();
    is_golden("list", document.clone());
    assert_eq!(certs(&scene, &["list", "--output", "json"]).await.json(), document);
    certs(&scene, &["list", "-o", "yaml"]).await.ends(0).shows("certificates:\n  - allowed: true\n");
    certs(&scene, &["list", "-o", "yaml", "--json"]).await.ends(2).says("ask for different things");
    let later = certs(&scene, &["list", "--crit-days", "61"]).await;
    assert_eq!(later.row("good.t.ts.net")[6], "critical");
}

/// A document as the golden file shows it: what differs from run to run has its name instead.
#[track_caller]
fn is_golden(name: &str, mut document: Value) {
    fn unstable(value: &mut Value) {
        match value {
            Value::Object(members) => {
                for (key, value) in members {
                    if ["serial", "fingerprintSha256", "notBefore", "notAfter"].contains(&key.as_str())
                        && !value.is_null()
                    {
                        *value = format!("<{key}>").into();
                    } else {
                        unstable(value);
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(unstable),
            _ => {}
        }
    }
    unstable(&mut document);
    let text = serde_json::to_string_pretty(&document).unwrap() + "\n";
    let path = format!("tests/golden/certs/{name}.json");
    assert_eq!(golden(Path::new(&path), text.as_bytes()), None, "{text}");
}

#[tokio::test]
async fn what_cannot_be_read_is_named_and_the_rest_is_listed() {
    let scene = shared(node(&services(&["shop.t.ts.net"]), &["shop.t.ts.net"]).await, "ts-1");
    let ran = certs(&scene, &["list", "--exit-code"]).await.ends(1);
    assert_eq!(ran.row("shop.t.ts.net")[6], "missing");
    ran.says("cannot read the TLS Secrets of namespace `default`").says("resources: [\"secrets\"]\n");
    let document = certs(&scene, &["list", "--json"]).await.ends(0).json();
    assert_eq!(document["unreadable"].as_array().unwrap().len(), 1);

    // A certificate that is known to be over is worse than a place that is not known.
    let pair = made(&["old.t.ts.net"], 90 * DAY, -DAY);
    scene.put_keys(&[("old.t.ts.net.crt", &pair.chain_pem)]);
    certs(&scene, &["list", "--exit-code"]).await.ends(3);

    // The group's Role allows each name by itself, and no list.
    grant(&scene, [Rule::new("", &["secrets"], &["get"]).named("shop.t.ts.net")]);
    scene.api().set_key(NAMESPACE, SECRET, "old.t.ts.net.crt", None);
    put_tls(&scene, "shop.t.ts.net", "shop.t.ts.net", Some(&fresh("shop.t.ts.net")), &Value::Null);
    let ran = certs(&scene, &["list", "--exit-code"]).await.ends(0);
    assert_eq!((ran.row("shop.t.ts.net")[2].as_str(), ran.stderr.as_str()), ("secret", ""));
}

#[tokio::test]
async fn a_tailscaled_that_is_not_there_or_knows_half_is_named_once() {
    let scene = node(&services(&["shop.t.ts.net"]), &[]).await;
    scene.daemon().fail("cert-domains", tailpod::sandbox::Fault::Status(500, "no netmap available\n".to_owned()));
    let ran = certs(&scene, &["list", "--exit-code"]).await.ends(1);
    ran.says("cannot read the names that the tailnet allows: ");
    assert_eq!(ran.row("shop.t.ts.net")[6], "missing", "its serve config is read all the same");
    let gone = certs(&scene, &["list", "--exit-code", "--socket", "/nonexistent/tailscaled.sock"]).await.ends(1);
    gone.says("cannot read tailscaled: ");
    assert_eq!(gone.stderr.matches("warning:").count(), 1, "{}", gone.stderr);
}

#[tokio::test]
async fn without_sharing_and_without_rights_nothing_is_missing() {
    let scene = node(&json!({}), &[]).await;
    let ran = certs(&scene, &["list", "--exit-code"]).await.ends(0);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", "no name needs a certificate, and there are none\n"));
}

#[tokio::test]
async fn files_are_read_where_tailscaled_keeps_them() {
    let pod = node(&json!({"Web": {"ts-0.t.ts.net:443": {"Handlers": {}}}}), &["ts-0.t.ts.net"]).await;
    let dir = pod.root().join("state");
    let scene = pod.with("TS_STATE_DIR", &dir).with("KUBERNETES_SERVICE_HOST", "");
    std::fs::create_dir_all(dir.join("certs")).unwrap();
    for name in ["ts-0.t.ts.net", "wildcard_.x.t.ts.net"] {
        let pair = fresh(&name.replace("wildcard_", "*"));
        std::fs::write(dir.join(format!("certs/{name}.crt")), &pair.chain_pem).unwrap();
        std::fs::write(dir.join(format!("certs/{name}.key")), &pair.key_pem).unwrap();
    }
    let memory = r#"{"names":{"ts-0.t.ts.net":{"failures":1,"nextAttempt":"2026-08-23T10:00:00Z"}},"ledger":[]}"#;
    std::fs::write(dir.join("tailpod-certs.json"), memory).unwrap();
    let ran = certs(&scene, &["list"]).await.ends(0);
    let row = ran.row("ts-0.t.ts.net");
    assert_eq!((row[1].as_str(), row[2].as_str(), row[6].as_str()), ("node", "file", "ok"));
    assert_eq!(row[7], "2026-08-23T10:00:00Z");
    assert_eq!(ran.row("*.x.t.ts.net")[6], "not-allowed");
    let none = certs(&scene, &["list", "--cert-dir", "/nonexistent", "--exit-code"]).await.ends(1);
    none.says("cannot read directory `/nonexistent`");
}

// === show ===

#[tokio::test]
async fn one_is_shown_with_everything_but_its_key() {
    let scene = shared(node(&services(&["shop.t.ts.net"]), &["shop.t.ts.net"]).await, "ts-0");
    may_read_secrets(&scene);
    let pair = fresh("shop.t.ts.net");
    // Whatever else stands in the chain's place: only certificates come out.
    let chain_pem = format!("{}{}", pair.key_pem, pair.chain_pem);
    let odd = Pair { chain_pem, ..pair.clone() };
    put_tls(&scene, "shop.t.ts.net", "shop.t.ts.net", Some(&odd), &Value::Null);
    let ran = certs(&scene, &["show", "Shop.t.ts.net.", "--pem"]).await.ends(0);
    ran.shows("Domain:       shop.t.ts.net\n")
        .shows("Status:       ok\n")
        .shows("Used by:      svc:shop\n")
        .shows("Allowed:      yes\n")
        .shows("Issuer:       tailpod sandbox authority\n")
        .shows("(60 days left)\n")
        .shows("Key:          matches\n")
        .shows(&pair.chain_pem.replace("\r\n", "\n"));
    let document = certs(&scene, &["show", "shop.t.ts.net", "--json"]).await.ends(0).json();
    assert_eq!((&document["status"], &document["pem"]), (&json!("ok"), &Value::Null));
    assert_eq!(document["sans"], json!(["shop.t.ts.net"]));
    certs(&scene, &["show", "shpo.t.ts.net"]).await.ends(3).says("is it `shop.t.ts.net`?");
}

#[tokio::test]
async fn what_is_no_name_is_refused_before_anybody_is_asked() {
    let scene = node(&json!({}), &[]).await;
    for bad in ["node", "a/b.c", "a:b.c", "a..b", "a b.c", "bücher.example", "../x.y", ""] {
        for command in ["show", "verify"] {
            let before = scene.daemon().calls().len();
            certs(&scene, &[command, bad]).await.ends(2).says("error: ");
            assert_eq!(scene.daemon().calls().len(), before, "{bad}");
        }
    }
}

// === Serve configs from files ===

/// A list by a file with this text.
async fn of_file(scene: &Scene, text: &str, args: &[&str]) -> Ran {
    let path = scene.root().join("serve.json");
    std::fs::write(&path, text).unwrap();
    certs(scene, &[args, &["--serve-config", path.to_str().unwrap()]].concat()).await
}

#[tokio::test]
async fn a_bad_key_costs_only_itself_and_fails_the_check() {
    let scene = node(&json!({}), &["a.t.ts.net", "b.t.ts.net"]).await;
    let text = json!({"Services": {"svc:a": {
        "Web": {"foo": {}, "a.t.ts.net:443": {}, "c.t.ts.net:https": {}, "fd7a::1:443": {}},
        "TCP": {"8443": {"TerminateTLS": "b.t.ts.net"}}}}});
    let ran = of_file(&scene, &text.to_string(), &["list"]).await.ends(0);
    ran.says("column 134: `foo`: the port is missing\n").says("`c.t.ts.net:https`: the port is not a number");
    assert_eq!(ran.stderr.matches("`foo`").count(), 1, "said once: {}", ran.stderr);
    assert_eq!(ran.row("a.t.ts.net")[1], "svc:a");
    let check = of_file(&scene, &text.to_string(), &["check"]).await.ends(3);
    check.shows("failure  TP-CERTS-001   svc:a: Web key `foo`: the port is missing\n");
    let good = json!({"Services": {"svc:a": {"Web": {"a.t.ts.net:443": {}}, "TCP": {"8443": {"TerminateTLS": "b.t.ts.net"}}}}});
    let ran = of_file(&scene, &good.to_string(), &["list"]).await.ends(0);
    ran.says("TerminateTLS without TCPForward has no effect");
    assert_eq!(ran.row("b.t.ts.net")[1], "svc:a", "it is managed all the same");

    // tailscaled has what nobody can read: others are listed, and the check fails.
    let config =
        json!({"Services": {"svc:a": {"Web": {"foo": null, "a.t.ts.net:443": null, "b.t.ts.net:https": null}}}});
    let scene = node(&config, &["a.t.ts.net"]).await;
    let ran = certs(&scene, &["list"]).await.ends(0);
    ran.says("svc:a: Web key `foo`: the port is missing").says("svc:a: Web key `b.t.ts.net:https`: ");
    assert_eq!(ran.row("a.t.ts.net")[1], "svc:a");
    certs(&scene, &["check"]).await.ends(3).shows("failure  TP-CERTS-001   svc:a: Web key `foo`: the port is missing");
}

#[tokio::test]
async fn a_file_that_is_no_serve_config_is_refused_with_the_reason() {
    let scene = node(&json!({}), &["a.t.ts.net"]).await;
    let many: serde_json::Map<String, Value> = (0..=1000).map(|n| (format!("n{n}.t.ts.net:443"), json!({}))).collect();
    let many = json!({"Services": {"svc:a": {"Web": many}}}).to_string();
    let large = format!("{{\"x\":\"{}\"}}", "x".repeat(4 << 20));
    for (text, why) in [
        ("{\"Services\": {\"web\": {}}}", "svc:"),
        ("{\"Services\": {\"svc:a\": {\"Tun\": true, \"TCP\": {\"80\": {\"HTTP\": true}}}}}", "TUN mode"),
        ("{} // mine\n", "line 1, column 4: comments are not allowed here"),
        ("{} x", "line 1, column 4"),
        (&many, "there are 1001 entries, and at most 1000 are possible"),
        (&large, "at most 4194304 are possible"),
    ] {
        let ran = of_file(&scene, text, &["list"]).await.ends(2);
        ran.says("is no serve config: ").says(why);
        let check = of_file(&scene, text, &["check"]).await.ends(3);
        check.shows("failure  TP-CERTS-001   ").shows(why);
    }
    certs(&scene, &["list", "--serve-config", "/nonexistent"]).await.ends(1).says("cannot read `/nonexistent`");
}

#[tokio::test]
async fn a_file_may_be_empty_double_or_wait_for_its_name() {
    let scene = node(&services(&["b.t.ts.net"]), &["a.t.ts.net"]).await;
    let ran = of_file(&scene, "null", &["list"]).await.ends(0);
    assert!(!ran.stdout.contains("b.t.ts.net"), "the file is in place of what is served: {}", ran.stdout);
    let twice = r#"{"Services": {"svc:a": {"Web": {"x.t.ts.net:443": {}}, "Web": {"a.t.ts.net:443": {}}}}}"#;
    let ran = of_file(&scene, twice, &["list"]).await.ends(0);
    ran.says("`Web` is there twice; the last one counts");
    assert_eq!(ran.row("a.t.ts.net")[1], "svc:a");

    let placeholder = r#"{"Web": {"${TS_CERT_DOMAIN}:443": {"Handlers": {}}}}"#;
    assert_eq!(of_file(&scene, placeholder, &["list"]).await.ends(0).row("a.t.ts.net")[1], "node");
    scene.daemon().set_dns(Value::Null, Value::Null);
    let why = "it names ${TS_CERT_DOMAIN}, and HTTPS is not enabled for this tailnet";
    of_file(&scene, placeholder, &["list"]).await.ends(0).says(why);
    of_file(&scene, placeholder, &["check"]).await.ends(3).shows(why);
    let plain = services(&["a.t.ts.net"]).to_string();
    let ran = of_file(&scene, &plain, &["list"]).await.ends(0);
    ran.says("it serves HTTPS, and HTTPS is not enabled for this tailnet");
    assert_eq!(ran.row("a.t.ts.net")[6], "missing");
}

// === budget ===

#[tokio::test]
async fn what_is_left_of_the_limits_is_counted_from_what_was_ordered() {
    let pod = node(&services(&["shop.t.ts.net", "blog.t.ts.net"]), &[]).await;
    let dir = pod.root().join("state");
    let scene = pod.with("TS_STATE_DIR", &dir);
    std::fs::create_dir_all(&dir).unwrap();
    let empty = certs(&scene, &["budget", "--exit-code"]).await.ends(0);
    empty.says("no order is noted");
    assert_eq!(empty.row("new")[1..], ["-", "300", "300", "-"]);

    let now = jiff::Timestamp::now();
    let entry = |name: &str, kind: &str, ago: i64| json!({"name": name, "at": (now - jiff::SignedDuration::from_secs(ago)).to_string(), "kind": kind});
    let mut ledger: Vec<_> = (1..=5).rev().map(|ago| entry("shop.t.ts.net", "renewed", ago)).collect();
    ledger.push(entry("blog.t.ts.net", "issued", 0));
    let memory = json!({"names": {}, "ledger": ledger}).to_string();
    std::fs::write(dir.join("tailpod-certs.json"), memory).unwrap();
    let ran = certs(&scene, &["budget", "--exit-code", "--domain", "new.t.ts.net"]).await.ends(3);
    let left = |subject: &str, of: &str| {
        let line = ran.stdout.lines().find(|line| line.contains(&format!("  {subject}  ")) && line.contains(of));
        let line = line.unwrap_or_else(|| panic!("no {subject} in\n{}", ran.stdout));
        line.split("  ").map(str::trim).filter(|word| !word.is_empty()).nth(2).unwrap().to_owned()
    };
    assert_eq!(left("shop.t.ts.net", "exact name"), "0");
    assert_eq!(left("blog.t.ts.net", "exact name"), "4");
    assert_eq!(left("new.t.ts.net", "exact name"), "5");
    assert_eq!(left("t.ts.net", "registered domain"), "49", "renewals do not count");
    let document = certs(&scene, &["budget", "--json"]).await.ends(0).json();
    let account =
        document["limits"].as_array().unwrap().iter().find(|limit| limit["subject"].is_null()).unwrap().clone();
    assert_eq!((&account["left"], document["orders"].as_array().unwrap().len()), (&json!(294), 6));
    certs(&scene, &["check"]).await.shows("used up: certificates per exact name of shop.t.ts.net until ");

    // Where certificates are shared, the orders of each name are noted at its Secret.
    grant(&scene, [Rule::new("", &["secrets"], &["get", "list"])]);
    let orders = json!({"tailpod.dev/cert-ledger": json!([entry("shared.t.ts.net", "issued", 9)]).to_string()});
    put_tls(&scene, "shared.t.ts.net", "shared.t.ts.net", None, &orders);
    certs(&scene, &["budget"]).await.shows("exact name         shared.t.ts.net     4    5  ");
    std::fs::write(dir.join("tailpod-certs.json"), "{").unwrap();
    certs(&scene, &["budget", "--exit-code"]).await.ends(1).says("cannot read file");
}
