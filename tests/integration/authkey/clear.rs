//! Clearing what belonged to the old key.

use std::time::Duration;

use serde_json::{Value, json};
use tailpod::sandbox::apiserver::access::{Access, Rule, Subject};
use tailpod::sandbox::apiserver::{Fault, Scope, Times};

use super::{DEAD, USED, command, finish, is_golden, patches, run, scene};
use crate::support::{NAMESPACE, SECRET};

#[tokio::test]
async fn clearing_takes_the_identity_with_its_profile_and_nothing_else() {
    let scene = scene(&USED).await;
    let ran = run(&scene, &["clear", "--dry-run", "--json"]).await.ends(0);
    is_golden("clear-dry-run", &ran.stdout, &scene);
    let ran = run(&scene, &["clear", "--dry-run"]).await.ends(0);
    let patch: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(patch["data"]["profile-a"], Value::Null);
    assert_eq!(
        patch["metadata"]["resourceVersion"],
        scene.api().secret(NAMESPACE, SECRET).unwrap()["metadata"]["resourceVersion"]
    );
    assert_eq!(patches(&scene), 0);

    let ran = run(&scene, &["clear", "--yes"]).await.ends(0);
    ran.says("Secret `default/tailscale` will lose\nKEY               BYTES  WHAT IT IS\nreissue_authkey      21  the request");
    assert!(
        ran.stdout.starts_with("Secret `default/tailscale`: removed reissue_authkey, device_id, "),
        "{}",
        ran.stdout
    );
    let kept: Vec<_> = scene.data().into_iter().collect();
    assert_eq!(kept, [("authkey".to_owned(), DEAD.to_owned()), ("foreign".to_owned(), "kept".to_owned())]);

    let ran = run(&scene, &["clear", "--yes", "--json"]).await.ends(0);
    is_golden("clear-nothing", &ran.stdout, &scene);
    assert_eq!(patches(&scene), 1);
}

#[tokio::test]
async fn only_the_marker_goes_when_that_is_wanted() {
    let scene = scene(&USED).await;
    let ran = run(&scene, &["clear", "--marker-only", "--yes", "--json"]).await.ends(0);
    is_golden("clear-marker", &ran.stdout, &scene);
    let data = scene.data();
    assert_eq!(data.len(), USED.len() - 1);
    assert!(!data.contains_key("reissue_authkey"));
}

#[tokio::test]
async fn nobody_is_asked_who_is_not_at_a_terminal() {
    let scene = scene(&USED).await;
    let ran = run(&scene, &["clear"]).await.ends(2);
    ran.says("hint: `--yes` goes on without asking");
    assert_eq!(patches(&scene), 0);
}

#[tokio::test]
async fn a_secret_that_was_changed_in_between_stays_as_it_is() {
    let scene = scene(&USED).await;
    let changed = Fault::status(409, "Conflict", "the object has been modified");
    scene.api().fail_times(Scope::method(hyper::Method::PATCH), changed, Times::Only(1));
    let ran = run(&scene, &["clear", "--yes"]).await.ends(1);
    ran.says("error: the Secret was changed by someone else; nothing was removed\nhint: look again");
    assert_eq!(scene.data().len(), USED.len());
    assert_eq!(patches(&scene), 1);
}

#[tokio::test]
async fn an_answer_that_is_lost_is_no_failure() {
    let scene = scene(&USED).await;
    scene.api().fail(Scope::method(hyper::Method::PATCH), Fault::LoseAnswer);
    run(&scene, &["clear", "--yes"]).await.ends(0);
    assert_eq!(scene.data().len(), 2);
    assert_eq!(patches(&scene), 1);
}

#[tokio::test]
async fn who_writes_the_identity_back_is_not_fought() {
    let scene = scene(&USED).await;
    // Carried out at once, answered later: time enough for somebody to write.
    scene.api().fail(Scope::method(hyper::Method::PATCH), Fault::Delay(Duration::from_millis(500)));
    let child = command(&scene, &["clear", "--yes"]).spawn().unwrap();
    scene.stored(|data| !data.contains_key("_machinekey")).await;
    scene.put_keys(&[("_machinekey", "privkey:hush")]);
    let ran = finish(child).await.ends(1);
    ran.says("error: someone writes _machinekey back; is tailscaled still running?\nhint: stop the Pod");
    assert_eq!(scene.data()["_machinekey"], "privkey:hush");
}

#[tokio::test]
async fn a_pod_that_lives_is_warned_about() {
    let scene = scene(&USED).await;
    let pod = |phase: &str| json!({"metadata": {"name": "ts-0"}, "status": {"phase": phase}});
    scene.api().put("pods", NAMESPACE, pod("Running"));
    let uid = scene.api().object("pods", NAMESPACE, "ts-0").unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    scene.put_keys(&[("pod_uid", &uid)]);
    let dry = ["clear", "--dry-run"];
    run(&scene, &dry).await.ends(0).says("still lives is not known: listing Pods is not allowed");
    let listing = Access::of_boot(NAMESPACE, SECRET).and(Rule::new("", &["pods"], &["list"]));
    scene.api().grant(Subject::from(scene.sandbox.user()), listing);
    run(&scene, &dry).await.ends(0).says("warning: Pod `ts-0` holds the Secret and lives: tailscaled in it may write");
    scene.api().put("pods", NAMESPACE, pod("Succeeded"));
    let ran = run(&scene, &dry).await.ends(0);
    assert!(!ran.stderr.contains("warning") && !ran.stderr.contains("Pod"), "{}", ran.stderr);
    let ran = run(&scene.with("POD_UID", uid), &dry).await.ends(0);
    ran.says("warning: this Pod holds the Secret");
}
