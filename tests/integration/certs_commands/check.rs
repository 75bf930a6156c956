//! `certs check`: each finding in a world in which it is the case.

use serde_json::{Value, json};
use tailpod::sandbox::apiserver::access::Rule;

use super::{Ran, certs, fresh, grant, node, put_tls, services, shared};
use crate::support::{NAMESPACE, SECRET, Scene};

const NAME: &str = "shop.t.ts.net";

/// Level, sentence and remedy of a check's first finding.
async fn finding(scene: &Scene, code: &str) -> (String, String, String) {
    let report = certs(scene, &["check", "--json"]).await;
    let report = report.json();
    let found = report["findings"].as_array().unwrap().iter().find(|finding| finding["code"] == code).cloned();
    let found = found.unwrap_or_else(|| panic!("no {code} in {report}"));
    let text = |member: &str| found[member].as_str().unwrap_or_default().to_owned();
    (text("level"), text("sentence"), text("remedy"))
}

#[track_caller]
fn is((level, sentence, remedy): (String, String, String), expected: &str, part: &str, paste: &str) {
    assert!(level == expected && sentence.contains(part) && remedy.contains(paste), "{level}: {sentence}\n{remedy}");
}

fn secrets(verbs: &[&str]) -> Rule {
    Rule::new("", &["secrets"], verbs)
}

#[tokio::test]
async fn a_node_that_shares_well_has_nothing_to_mend() {
    let scene = shared(node(&services(&[NAME]), &[NAME]).await, "ts-0");
    grant(&scene, [secrets(&["get", "list", "patch"])]);
    put_tls(&scene, NAME, NAME, Some(&fresh(NAME)), &Value::Null);
    let ran: Ran = certs(&scene, &["check"]).await.ends(0);
    ran.shows("ok       TP-CERTS-003   the tailnet allows every name that is wanted\n")
        .shows("ok       TP-CERTS-004   certificates are shared, and `ts-0` issues them\n")
        .shows("ok       TP-CERTS-005   all 1 TLS Secrets are there\n")
        .shows("ok       TP-CERTS-006   the Role allows what storing needs\n")
        .shows("ok       TP-CERTS-011   all 1 certificates are good\n")
        .shows("ok       TP-CLOCK-001   ")
        .shows("ok       TP-DAEMON-001  ");
    ran.says(" 0 failures, ");
}

#[tokio::test]
async fn what_the_tailnet_does_not_allow_is_a_failure() {
    let scene = node(&services(&[NAME]), &["shpo.t.ts.net"]).await;
    is(
        finding(&scene, "TP-CERTS-003").await,
        "failure",
        "does not allow a certificate for shop.t.ts.net",
        "`shpo.t.ts.net`?",
    );
    scene.daemon().set_dns(Value::Null, Value::Null);
    is(finding(&scene, "TP-CERTS-002").await, "failure", "HTTPS is not enabled", "admin/dns");
    certs(&scene, &["check"]).await.ends(3);
}

#[tokio::test]
async fn sharing_that_cannot_work_is_a_failure() {
    let scene = node(&services(&[NAME]), &[NAME]).await.with("TS_EXPERIMENTAL_CERT_SHARE", "true");
    is(finding(&scene, "TP-CERTS-004").await, "failure", "nobody issues", "fieldPath: metadata.name");
    let scene = scene.with("POD_NAME", "ts-0");
    scene.daemon().set_version("1.80.3-t0");
    is(finding(&scene, "TP-CERTS-004").await, "failure", "cannot share", "FROM tailscale");
    is(finding(&scene, "TP-CERTS-010").await, "warning", "renews nothing by itself", "1.102");
}

#[tokio::test]
async fn w18_that_tailscaled_renews_by_itself_is_said() {
    let scene = node(&services(&[NAME]), &[NAME]).await;
    for (version, level, part) in [
        ("1.104.1", "ok", "renews hourly by itself, whatever the schedule here says"),
        ("1.100.0", "warning", "renews hourly by itself, whatever the schedule here says"),
        ("1.98.2", "warning", "it renews nothing by itself"),
    ] {
        scene.daemon().set_version(version);
        is(finding(&scene, "TP-CERTS-010").await, level, part, "");
    }
}

#[tokio::test]
async fn secrets_and_rights_that_lack_come_with_what_to_paste() {
    let names = [NAME, "*.t.ts.net"];
    let config = json!({"Services": {"svc:shop": {"Web": {format!("{NAME}:443"): {}, "*.t.ts.net:443": {}}}}});
    let scene = shared(node(&config, &names).await, "ts-0");
    grant(&scene, [secrets(&["get", "list"])]);
    let report = certs(&scene, &["check"]).await.ends(3);
    report
        .shows("failure  TP-CERTS-005   *.t.ts.net cannot be shared\n")
        .shows("failure  TP-CERTS-005   Secret `shop.t.ts.net` does not exist: ")
        .shows("             tailscale.com/proxy-group: \"ts\"\n")
        .shows("failure  TP-CERTS-006   the Role does not allow patch secrets `shop.t.ts.net`: ")
        .shows("             resourceNames: [\"shop.t.ts.net\"]\n");
    scene.api().put_secret(NAMESPACE, NAME, [("tls.crt", ""), ("tls.key", "")]);
    certs(&scene, &["check"]).await.shows("its type is `Opaque`; label `tailscale.com/managed` is missing");
}

#[tokio::test]
async fn the_rights_of_a_real_group_are_enough_to_see_what_lacks() {
    let names = ["bare.t.ts.net", NAME];
    let scene = shared(node(&services(&names), &names).await, "ts-0");
    grant(&scene, [secrets(&["list"]), secrets(&["get", "patch"]).named(NAME)]);
    put_tls(&scene, NAME, NAME, Some(&fresh(NAME)), &Value::Null);
    is(
        finding(&scene, "TP-CERTS-005").await,
        "failure",
        "Secret `bare.t.ts.net` does not exist",
        "name: bare.t.ts.net",
    );
    is(
        finding(&scene, "TP-CERTS-006").await,
        "failure",
        "get secrets `bare.t.ts.net`, patch secrets",
        "\"get\", \"patch\"",
    );
}

#[tokio::test]
async fn a_lease_needs_its_rights() {
    let scene = shared(node(&services(&[NAME]), &[NAME]).await, "ts-1").with("TAILPOD_CERT_WRITER", "lease");
    is(finding(&scene, "TP-CERTS-007").await, "failure", "create leases", "apiGroups: [\"coordination.k8s.io\"]");
    let leases = Rule::new("coordination.k8s.io", &["leases"], &["get", "create", "update"]);
    grant(&scene, [leases]);
    is(finding(&scene, "TP-CERTS-007").await, "ok", "what the Lease needs", "");
}

#[tokio::test]
async fn an_account_that_is_another_one_is_a_warning() {
    let scene = shared(node(&services(&[NAME]), &[NAME]).await, "ts-0")
        .with("TS_ACME_ACCOUNT_SECRET_NAME", "accounts")
        .with("TS_ACME_ACCOUNT_FIELD", "t.acme-account.key.pem");
    grant(&scene, [secrets(&["get", "list", "patch"])]);
    put_tls(&scene, NAME, NAME, Some(&fresh(NAME)), &Value::Null);
    scene.api().put_secret(NAMESPACE, "accounts", [("t.acme-account.key.pem", "an account's key")]);
    let digest = |text: &str| -> Vec<u8> {
        let hex = super::sha256(text);
        (0..32).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
    };
    scene.api().set_key(NAMESPACE, NAME, "acme-account-fingerprint", Some(&digest("an account's key")));
    is(finding(&scene, "TP-CERTS-008").await, "ok", "the present ACME account", "");
    scene.api().set_key(NAMESPACE, NAME, "acme-account-fingerprint", Some(&digest("another one's key")));
    is(
        finding(&scene, "TP-CERTS-008").await,
        "warning",
        "another ACME account than the present one: shop",
        "count as new",
    );
    certs(&scene, &["show", NAME]).await.shows("Account:      not the present one\n");
}

#[tokio::test]
async fn a_locked_config_file_is_a_warning() {
    let (scene, _volume) = node(&json!({}), &[])
        .await
        .with("TS_KUBE_SECRET", SECRET)
        .with_config(&[("cap-95.hujson", r#"{"version": "alpha0"}"#)]);
    is(finding(&scene, "TP-CERTS-009").await, "warning", "config file is locked", "\"Locked\": false");
}

#[tokio::test]
async fn certificates_that_are_missing_or_over_are_failures() {
    let scene = node(&services(&[NAME]), &[NAME]).await;
    is(
        finding(&scene, "TP-CERTS-011").await,
        "failure",
        "shop.t.ts.net has no certificate",
        "tailpod certs show shop.t.ts.net",
    );
    // `doctor` says the same under the same code.
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tailpod"));
    let args = ["doctor", "--only", "certs"];
    let output = command.args(args).env_clear().envs(scene.env()).kill_on_drop(true).output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("failure  TP-CERTS-011   shop.t.ts.net has no certificate\n"), "{text}");
    assert_eq!((output.status.code(), text.lines().filter(|line| line.contains("  TP-CERTS-")).count()), (Some(3), 12));
}
