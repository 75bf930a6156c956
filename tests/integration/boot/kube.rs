//! The state Secret: permissions, what is adopted, what is reset, what is written and in which order.

use serde_json::json;
use tailpod::sandbox::apiserver::{Fault, Scope};

use crate::support::{CAP, Data, NAMESPACE, READY, SECRET, SOON, Scene, needs_login, node, running};

const KUBE: &str = "--state=kube:tailscale --statedir=/tmp --tun=userspace-networking";

fn data<const N: usize>(pairs: [(&str, &str); N]) -> Data {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn cap() -> String {
    CAP.to_string()
}

#[tokio::test]
async fn s24_kube_storage() {
    let scene = Scene::kube([("authkey", "k")]).await.with("POD_UID", "u");
    let boot = scene.boot();
    scene.ran(&[scene.d(KUBE), scene.u("--accept-dns=false --authkey=k")]).await;
    assert_eq!(scene.data(), data([("authkey", "k"), ("tailscale_capver", &cap()), ("pod_uid", "u")]));
    scene.notify(running()).await;
    boot.ready().await;
    let after = data([
        ("authkey", "k"),
        ("tailscale_capver", &cap()),
        ("pod_uid", "u"),
        ("device_id", "myID"),
        ("device_fqdn", "test-node.test.ts.net."),
        ("device_ips", r#"["100.64.0.1"]"#),
    ]);
    assert_eq!(scene.data(), after);
    boot.stops().await;
    assert_eq!(scene.data(), after);
}

#[tokio::test]
async fn s25_kube_without_patch() {
    let scene = Scene::kube([("foo", "bar")]).await.with("TS_AUTHKEY", "k").denied(&["patch"]);
    let boot = scene.boot();
    scene.notify(running()).await;
    boot.ready().await;
    scene.ran(&[scene.d(KUBE), scene.u("--accept-dns=false --authkey=k")]).await;
    boot.stops().await;
    assert_eq!(scene.requests("PATCH").len(), 0);
    assert_eq!(scene.data(), data([("foo", "bar")]));
}

#[tokio::test]
async fn s26_kube_key_without_patch() {
    let scene = Scene::kube([("authkey", "k")]).await.denied(&["patch"]);
    let ended = scene.boot().ends(1).await;
    assert_eq!(
        ended.last(),
        "error setting up for running on Kubernetes: authkey found in TS_KUBE_SECRET, but the pod doesn't have patch \
         permissions on the Secret to manage the authkey."
    );
    assert_eq!(scene.daemon().commands().len(), 0);
    assert_eq!(scene.data(), data([("authkey", "k")]));
}

#[tokio::test]
async fn s27_kube_missing_verbs() {
    let scene = Scene::kube([("authkey", "k")]).await.denied(&["get", "update"]);
    let ended = scene.boot().ends(1).await;
    assert!(
        ended.mentions(
            "error setting up for running on Kubernetes: some Kubernetes permissions are missing, please check your \
             RBAC configuration: "
        ),
        "{}",
        ended.text()
    );
    for verb in ["get", "update"] {
        assert!(ended.mentions(&format!("missing {verb} permission on secret \"tailscale\"")), "{}", ended.text());
    }
    // The rule to paste.
    for part in ["the Role lacks:", r#"verbs: ["get", "update"]"#, r#"resourceNames: ["tailscale"]"#] {
        assert!(ended.mentions(part), "{part}: {}", ended.text());
    }
    assert_eq!(scene.daemon().commands().len(), 0);
}

#[tokio::test]
async fn s28_kube_secret_missing() {
    let scene = Scene::kube_without_secret().await.with("TS_AUTHKEY", "k");
    let boot = scene.boot();
    scene.ran(&[scene.d(KUBE), scene.u("--accept-dns=false --authkey=k")]).await;
    assert_eq!(scene.requests("PATCH").len(), 0, "no reset patch");
    // The daemon makes its Secret before it is Running.
    scene.api().put_secret(
        NAMESPACE,
        SECRET,
        [("_machinekey", "m"), ("_profiles", "{}"), ("_current-profile", "profile-a"), ("profile-a", "{}")],
    );
    scene.notify(running()).await;
    boot.ready().await;
    boot.stops().await;

    let scene = Scene::kube_without_secret().await.with("TS_AUTHKEY", "k").denied(&["create"]);
    let ended = scene.boot().ends(1).await;
    for part in ["tailscale does not exist", "TS_KUBE_SECRET", "RBAC"] {
        assert!(ended.last().contains(part), "{}", ended.text());
    }
    for part in ["create Secret tailscale, or extend the Role by:", r#"verbs: ["create"]"#] {
        assert!(ended.mentions(part), "{part}: {}", ended.text());
    }
    assert_eq!(scene.daemon().commands().len(), 0);
}

#[tokio::test]
async fn s28_without_any_key_the_login_is_interactive() {
    let scene = Scene::kube_without_secret().await;
    let boot = scene.boot();
    boot.said("TS_AUTHKEY not provided and state Secret does not exist, login will be interactive if needed.").await;
    scene.ran(&[scene.d(KUBE), scene.u("--accept-dns=false")]).await;
    boot.stops().await;
}

#[tokio::test]
async fn s30_kube_auth_once() {
    let scene = Scene::kube([("authkey", "k")]).await.with("TS_AUTH_ONCE", "true");
    let boot = scene.boot();
    scene.notify(needs_login()).await;
    scene.ran(&[scene.d(KUBE), scene.u("--accept-dns=false --authkey=k")]).await;
    scene.notify(running()).await;
    boot.ready().await;
    scene.ran(&[scene.d(KUBE), scene.u("--accept-dns=false --authkey=k"), scene.t("--accept-dns=false")]).await;
    boot.said("Deleting authkey from Kubernetes Secret").await;
    let stored = scene.data();
    assert_eq!(stored.get("authkey"), None);
    assert_eq!(stored.get("device_id").map(String::as_str), Some("myID"));
    let removal = scene
        .requests("PATCH")
        .into_iter()
        .find(|request| request.content_type.as_deref() == Some("application/json-patch+json"))
        .expect("a JSON patch");
    assert_eq!(removal.body, json!([{"op": "remove", "path": "/data/authkey"}]));
    assert_eq!(removal.query.get("fieldManager"), None);
    boot.stops().await;
}

/// `422` means that the key was not there.
#[tokio::test]
async fn s30_kube_auth_once_without_a_key_to_delete() {
    let scene = Scene::kube([("foo", "bar")]).await.with_all(&[("TS_AUTH_ONCE", "true"), ("TS_AUTHKEY", "k")]);
    let boot = scene.boot();
    scene.notify(running()).await;
    boot.ready().await;
    let removal = scene
        .requests("PATCH")
        .into_iter()
        .find(|request| request.content_type.as_deref() == Some("application/json-patch+json"))
        .expect("a JSON patch");
    assert_eq!(removal.status, Some(422));
    boot.stops().await;
}

#[tokio::test]
async fn s31_device_changes() {
    let scene = Scene::kube([("authkey", "k")]).await;
    let boot = scene.boot();
    scene.notify(running()).await;
    boot.ready().await;
    let before = scene.requests("PATCH").len();
    for _ in 0..3 {
        scene.notify(json!({"SelfChange": node("myID", "test-node.test.ts.net.", &["100.64.0.1"])})).await;
    }
    scene.notify(json!({"SelfChange": node("newID", "new-name.test.ts.net.", &["100.64.0.1"])})).await;
    let stored = scene.stored(|data| data.get("device_fqdn").is_some_and(|fqdn| fqdn == "new-name.test.ts.net.")).await;
    assert_eq!((stored["device_id"].as_str(), stored["device_ips"].as_str()), ("newID", r#"["100.64.0.1"]"#));
    let patches: Vec<_> = scene.requests("PATCH").into_iter().skip(before).collect();
    assert_eq!(patches.len(), 2, "one for the id, one for the endpoints: {patches:?}");
    boot.stops().await;
}

/// What of scenario 32 there is without a firewall: the id first, then the endpoints, then the milestone.
#[tokio::test]
async fn s32_write_order() {
    let scene = Scene::kube([("authkey", "k")]).await;
    let boot = scene.boot();
    scene.ran(&[scene.d(KUBE), scene.u("--accept-dns=false --authkey=k")]).await;
    let reset = scene.requests("PATCH").len();
    scene
        .api()
        .fail(Scope::method(hyper::Method::PATCH).path("secrets"), Fault::Delay(std::time::Duration::from_millis(300)));
    scene.notify(running()).await;
    scene.stored(|data| data.contains_key("device_id")).await;
    assert_eq!(boot.count(READY), 0, "not before the Secret is written");
    boot.ready().await;
    let keys: Vec<Vec<String>> = scene
        .requests("PATCH")
        .iter()
        .skip(reset)
        .map(|request| request.body["data"].as_object().expect("data").keys().cloned().collect())
        .collect();
    assert_eq!(keys, [vec!["device_id"], vec!["device_fqdn", "device_ips"]]);
    for request in &scene.requests("PATCH") {
        assert_eq!(request.query.get("fieldManager").map(String::as_str), Some("tailscale-container"));
        assert_eq!(request.content_type.as_deref(), Some("application/strategic-merge-patch+json"));
    }
    boot.stops().await;
}

/// A right that is taken away while the node is up: the line names what could not be stored, not what comes first.
#[tokio::test]
async fn a_right_taken_away_is_told_for_the_right_key() {
    for (id, address, what) in [
        ("newID", "100.64.0.1", "storing device ID in Kubernetes Secret: "),
        ("myID", "100.64.0.2", "storing device IPs and FQDN in Kubernetes Secret: "),
    ] {
        let scene = Scene::kube([("authkey", "k")]).await;
        let mut boot = scene.boot();
        scene.notify(running()).await;
        boot.ready().await;
        let before = scene.data();
        scene.deny(&["patch"]);
        scene.notify(json!({"SelfChange": node(id, "test-node.test.ts.net.", &[address])})).await;
        let ended = boot.ends(1).await;
        assert!(ended.last().starts_with(what), "{what:?} in\n{}", ended.text());
        assert!(ended.mentions("the Role lacks:"), "{}", ended.text());
        assert_eq!(scene.data(), before);
        assert_eq!(scene.daemon().signals(), ["SIGTERM"], "and it is stopped in order");
    }
}

#[tokio::test]
async fn s62_token_rotation() {
    let scene = Scene::kube([("authkey", "k")]).await;
    let boot = scene.boot();
    scene.notify(running()).await;
    boot.ready().await;
    let token = scene.sandbox.pod().service_account().join("token");
    let old = std::fs::read_to_string(&token).expect("a token");
    scene.api().accept_token("rotated", scene.sandbox.user().clone());
    scene.api().revoke_token(&old);
    scene.api().forget_requests();
    std::fs::write(&token, "rotated\n").expect("a token");
    scene.notify(json!({"SelfChange": node("newID", "test-node.test.ts.net.", &["100.64.0.1"])})).await;
    scene.stored(|data| data["device_id"] == "newID").await;
    let patches = scene.requests("PATCH");
    let statuses: Vec<_> = patches.iter().map(|request| request.status).collect();
    assert_eq!(statuses, [Some(401), Some(200)], "the same write, once more");
    assert_eq!(patches[0].body, patches[1].body);
    boot.stops().await;
}

/// Where the API server is, as `--print-settings` shows it: outside of a test root only the exact text counts.
#[tokio::test]
async fn s63_api_url() {
    let scene = Scene::new().await;
    for (flag, host, url) in [
        ("true", "10.0.0.1", "https://10.0.0.1:6443"),
        ("1", "10.0.0.1", "https://kubernetes.default.svc"),
        ("", "10.0.0.1", "https://kubernetes.default.svc"),
        ("true", "fd00::1", "https://[fd00::1]:6443"),
    ] {
        let vars = [
            ("TS_TEST_ONLY_ROOT", ""),
            ("KUBERNETES_SERVICE_HOST", host),
            ("KUBERNETES_SERVICE_PORT_HTTPS", "6443"),
            ("TS_KUBERNETES_READ_API_SERVER_ADDRESS_FROM_ENV", flag),
        ];
        let ended = scene.start("tailpod", &["boot", "--print-settings", "--json"], &vars).ends(0).await;
        let json = ended.lines.iter().find(|line| line.starts_with('{')).expect("JSON");
        let settings: serde_json::Value = serde_json::from_str(json).expect("JSON");
        assert_eq!(settings["kubernetes"]["access"]["url"], url, "{flag:?} {host}");
    }
    // And the address of the environment is the one that is used.
    let scene = Scene::kube([("authkey", "k")]).await.with("TS_KUBERNETES_READ_API_SERVER_ADDRESS_FROM_ENV", "true");
    let boot = scene.boot();
    scene.daemon().await_commands(2, SOON).await.expect("the cluster was reached");
    boot.stops().await;
}
