//! The client and the auth key library against the pretend cluster: real semantics, real RBAC.

use std::time::Duration;

use serde_json::json;
use tailpod::authkey::{self, KeySource, Progress, Scope};
use tailpod::k8s::access::Permissions;
use tailpod::k8s::event::{EventKind, PodEvent, PodRef};
use tailpod::k8s::publisher::{Outcome, SecretTarget, Slot, publisher};
use tailpod::k8s::state::{self, FIELD_MANAGER};
use tailpod::k8s::{Cluster, Error, KeyPatch, Removal};
use tailpod::sandbox::apiserver::ApiServer;
use tailpod::sandbox::apiserver::access::{Access, Rule, User};
use tailpod::secret::Secret;
use tailpod::settings::KubeAccess;
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_secs(20);

struct Pod {
    api: ApiServer,
    cluster: Cluster,
    _account: tempfile::TempDir,
}

/// A Pod in namespace `ns` whose service account has `access`.
async fn pod(access: Access) -> Pod {
    let api = ApiServer::start().await.expect("an API server");
    let token = api.issue_token(&User::service_account("ns", "proxy"), access);
    let account = tempfile::tempdir().expect("a directory");
    api.write_service_account(account.path(), "ns", &token).expect("a service account");
    let access = KubeAccess::InCluster { service_account: account.path().to_owned(), url: api.url() };
    let cluster = Cluster::connect(&access, "test").await.expect("a client");
    Pod { api, cluster, _account: account }
}

fn of_boot() -> Access {
    Access::of_boot("ns", "s")
}

#[tokio::test]
async fn keys_are_set_deleted_and_kept_as_the_patches_say() {
    let pod = pod(of_boot()).await;
    assert_eq!(pod.cluster.secret("s").await.expect("an answer"), None);
    let error = pod.cluster.merge("s", &state::device_id_patch("n1")).await.expect_err("no Secret");
    assert!(matches!(error, Error::NotFound { .. }), "{error:?}");

    pod.cluster.create_secret("s", &KeyPatch::new().set("foo", "bar").set("authkey", "k")).await.expect("created");
    let error = pod.cluster.create_secret("s", &KeyPatch::new()).await.expect_err("there is one");
    assert!(matches!(error, Error::Conflict { .. }), "{error:?}");

    let before = pod.cluster.secret("s").await.expect("an answer").expect("a Secret");
    pod.cluster.merge("s", &state::reset_patch(148, Some("u"), &before, None)).await.expect("the reset");
    pod.cluster.merge("s", &state::device_endpoints_patch("n.", &[])).await.expect("the device");
    assert_eq!(pod.cluster.remove_key("s", "authkey").await.expect("a removal"), Removal::Removed);
    assert_eq!(pod.cluster.remove_key("s", "authkey").await.expect("a removal"), Removal::WasAbsent);
    let data = pod.api.data("ns", "s");
    let shown: Vec<_> = data.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(shown, ["device_fqdn=n.", "device_ips=null", "foo=bar", "pod_uid=u", "tailscale_capver=148"]);

    let stale = state::device_id_patch("n1").only_if(before.resource_version);
    let error = pod.cluster.merge("s", &stale).await.expect_err("another version");
    assert!(matches!(error, Error::Conflict { .. }), "{error:?}");
    let after = pod.cluster.secret("s").await.expect("an answer").expect("a Secret");
    let ours = after.writers.iter().find(|writer| writer.manager == FIELD_MANAGER).expect("our writes");
    assert!(ours.keys.iter().any(|key| key == "device_fqdn"), "{ours:?}");
}

#[tokio::test]
async fn rbac_is_seen_as_it_is_and_the_missing_rule_is_the_remedy() {
    let no_patch = of_boot().except(Rule::new("", &["secrets"], &["patch"]).within("ns"));
    let pod = pod(no_patch).await;
    pod.api.put_secret("ns", "s", [("authkey", "k")]);
    let permissions = Permissions::probe(&pod.cluster, "s").await;
    assert!(permissions.get.is_allowed() && permissions.patch.is_denied() && permissions.can_create());
    assert_eq!(permissions.missing_rules().len(), 1);
    let error = pod.cluster.merge("s", &state::device_id_patch("n1")).await.expect_err("denied");
    assert_eq!(error.missing_rule().map(|rule| rule.to_string()), Some(permissions.missing_rules()[0].to_string()));
}

#[tokio::test]
async fn events_are_accepted_and_counted() {
    let pod = pod(of_boot().and(Rule::new("", &["events"], &["get", "create", "patch"]).within("ns"))).await;
    let about = PodRef { name: "ts-0".to_owned(), uid: "u1".to_owned() };
    let event = PodEvent { kind: EventKind::Warning, reason: "LoginFailed".to_owned(), message: "m".to_owned() };
    for _ in 0..3 {
        pod.cluster.emit_event(&about, &event).await.expect("an Event");
    }
    let events = pod.api.objects("events", "ns");
    assert_eq!(events.len(), 1);
    assert_eq!((&events[0]["count"], &events[0]["reason"]), (&3.into(), &"LoginFailed".into()));
}

#[tokio::test]
async fn a_dead_key_is_replaced_from_request_to_cleared_identity() {
    let may_watch = Rule::new("", &["secrets"], &["list", "watch"]).within("ns");
    for access in [of_boot().and(may_watch), of_boot()] {
        let pod = pod(access).await;
        let identity =
            [("_machinekey", "m"), ("_current-profile", "profile-a"), ("profile-a", "p"), ("_profiles", "{}")];
        pod.api.put_secret("ns", "s", identity);
        pod.api.set_key("ns", "s", "authkey", Some(b"old"));
        pod.api.set_key("ns", "s", "foo", Some(b"bar"));

        let failed = Secret::new("old".to_owned());
        authkey::request(&pod.cluster, "s", &failed, FIELD_MANAGER).await.expect("a request");
        assert_eq!(pod.api.data("ns", "s")["reissue_authkey"], "old");

        let source =
            KeySource::Secret { cluster: pod.cluster.clone(), name: "s".to_owned(), key: state::AUTHKEY.to_owned() };
        let stop = CancellationToken::new();
        let mut operator = |progress| {
            if matches!(progress, Progress::Watching) {
                pod.api.set_key("ns", "s", "authkey", Some(b"new"));
            }
        };
        let new = authkey::wait(&source, &failed, SOON, &stop, &mut operator).await.expect("a key");
        assert_eq!(new.key.expose(), "new");

        authkey::clear(&pod.cluster, "s", Scope::Identity, None, FIELD_MANAGER).await.expect("cleared");
        let left: Vec<_> = pod.api.data("ns", "s").into_keys().collect();
        assert_eq!(left, ["authkey", "foo"]);
    }
}

#[tokio::test]
async fn a_watch_follows_through_breaks_and_a_compacted_history() {
    let pod = pod(of_boot().and(Rule::new("", &["secrets"], &["list", "watch"]).within("ns"))).await;
    let mut watch = pod.cluster.watch_secret("s");
    let mut next = async || tokio::time::timeout(SOON, watch.next()).await.expect("in time").expect("a look");
    assert_eq!(next().await, None);
    pod.api.put_secret("ns", "s", [("k", "1")]);
    assert_eq!(next().await.expect("a Secret").text("k"), Some("1"));
    pod.api.break_watches();
    pod.api.set_key("ns", "s", "k", Some(b"2"));
    pod.api.compact();
    assert_eq!(next().await.expect("a Secret").text("k"), Some("2"));
    pod.api.delete_secret("ns", "s");
    assert_eq!(next().await, None);
}

#[tokio::test]
async fn a_writer_loses_nothing_while_the_api_server_is_away() {
    let pod = pod(of_boot()).await;
    pod.api.put_secret("ns", "s", [("foo", "bar")]);
    let target = SecretTarget { cluster: pod.cluster.clone(), secret: "s".to_owned() };
    let (publish, writer, mut outcomes) = publisher(target);
    let stop = CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(writer.run(stop.clone()));

    publish.device_id("n1");
    let mut next = async || tokio::time::timeout(SOON, outcomes.recv()).await.expect("in time").expect("an outcome");
    assert!(matches!(next().await, Outcome::Written(Slot::DeviceId)));
    pod.api.stop().await.expect("stopped");
    publish.device_id("n2");
    publish.device_endpoints("n2.ts.net.", &["100.64.0.1".parse().expect("an address")]);
    assert!(matches!(next().await, Outcome::Delayed(Slot::DeviceId, Error::Unreachable { .. })));
    publish.device_id("n3");
    pod.api.start_again().await.expect("started again");
    assert!(matches!(next().await, Outcome::Written(Slot::DeviceId)));
    assert!(matches!(next().await, Outcome::Written(Slot::DeviceEndpoints)));
    let data = pod.api.data("ns", "s");
    assert_eq!((data["device_id"].as_str(), data["device_ips"].as_str()), ("n3", "[\"100.64.0.1\"]"));

    stop.cancel();
    assert!(matches!(tasks.join_next().await, Some(Ok(Ok(())))));
}

#[tokio::test]
async fn leases_are_made_replaced_by_version_and_denied_with_their_rule() {
    let leases = |verbs: &[&str]| Rule::new("coordination.k8s.io", &["leases"], verbs).within("ns");
    let pod = pod(Access::default().and(leases(&["get", "create", "update"]))).await;
    assert_eq!(pod.cluster.lease("l").await.expect("an answer"), None);
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"namespace": "ns", "name": "l"}, "spec": {"holderIdentity": "a"},
    });
    let made = pod.cluster.create_lease(&lease).await.expect("a Lease");
    let error = pod.cluster.create_lease(&lease).await.expect_err("there is one");
    assert!(matches!(error, Error::Conflict { .. }), "{error:?}");
    let replaced = pod.cluster.update_lease("l", &made).await.expect("an update of the present version");
    assert_eq!(pod.cluster.lease("l").await.expect("an answer"), Some(replaced));
    let mut other = made.clone();
    other["spec"]["holderIdentity"] = "b".into();
    pod.cluster.update_lease("l", &other).await.expect("nothing had changed, so it is still that version");
    let error = pod.cluster.update_lease("l", &made).await.expect_err("an older version");
    assert!(matches!(error, Error::Conflict { .. }), "{error:?}");

    let reader = self::pod(Access::default().and(leases(&["get"]))).await;
    let error = reader.cluster.create_lease(&lease).await.expect_err("denied");
    let rule = error.missing_rule().map(|rule| rule.to_string());
    assert_eq!(
        rule.as_deref(),
        Some("- apiGroups: [\"coordination.k8s.io\"]\n  resources: [\"leases\"]\n  verbs: [\"create\"]")
    );
}
