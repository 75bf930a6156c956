//! The Kubernetes client against an API server that misbehaves: every fault is one clear error, nothing hangs,
//! and what may be repeated is.

mod clearing;
mod election;
mod sandbox;
pub(crate) mod scripted;
mod watching;

use std::error::Error as _;
use std::time::Duration;

use serde_json::json;
use tailpod::k8s::access::Permissions;
use tailpod::k8s::event::{EventKind, PodEvent, PodRef};
use tailpod::k8s::{Cause, Cluster, Error, KeyPatch, Removal, Resource, Verb};
use tailpod::sandbox::http::Hangup;
use tailpod::settings::KubeAccess;
use tokio::time::Instant;

use scripted::{Answer, ApiServer};

fn patch() -> KeyPatch {
    KeyPatch::new().set("k", "v").delete("gone")
}

/// The error with its causes, as one line.
fn shown(error: &Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line = format!("{line}: {cause}");
        source = cause.source();
    }
    line
}

// === What is sent ===

#[tokio::test]
async fn a_server_that_is_its_own_root_is_asked_with_our_token() {
    let server = ApiServer::start([Answer::secret("7", &[("authkey", "k")])]).await;
    let cluster = server.cluster().await;
    assert_eq!(cluster.namespace(), "ns");
    let secret = cluster.secret("s").await.expect("an answer").expect("a Secret");
    assert_eq!(secret.text("authkey"), Some("k"));
    let asked = &server.asked()[0];
    assert_eq!(asked.line, "GET /api/v1/namespaces/ns/secrets/s");
    assert_eq!(asked.header("authorization"), "Bearer token-1");
    assert_eq!(asked.header("accept"), "application/json");
    assert_eq!(asked.header("user-agent"), format!("tailpod/{} (test)", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn writes_have_the_contracts_form_and_an_empty_answer_is_success() {
    let server = ApiServer::start([
        Answer::text(""),
        Answer::text(""),
        Answer::status(422),
        Answer::Text(201, None, String::new()),
    ])
    .await;
    let cluster = server.cluster().await;
    cluster.merge("s", &patch()).await.expect("a merge");
    assert_eq!(cluster.remove_key("s", "authkey").await.expect("a removal"), Removal::Removed);
    assert_eq!(cluster.remove_key("s", "authkey").await.expect("a removal"), Removal::WasAbsent);
    cluster.create_secret("s", &KeyPatch::new().set("k", "v").managed_by("me")).await.expect("a creation");

    let asked = server.asked();
    assert_eq!(asked[0].line, "PATCH /api/v1/namespaces/ns/secrets/s?fieldManager=tailscale-container");
    assert_eq!(asked[0].header("content-type"), "application/strategic-merge-patch+json");
    assert_eq!(
        asked[0].body,
        json!({"metadata": {"name": "s", "namespace": "ns"}, "data": {"k": "dg==", "gone": null}})
    );
    assert_eq!(asked[1].line, "PATCH /api/v1/namespaces/ns/secrets/s");
    assert_eq!(asked[1].header("content-type"), "application/json-patch+json");
    assert_eq!(asked[1].body, json!([{"op": "remove", "path": "/data/authkey"}]));
    assert_eq!(asked[3].line, "POST /api/v1/namespaces/ns/secrets?fieldManager=me");
    assert_eq!(asked.len(), 4, "nothing was repeated");
}

#[tokio::test]
async fn an_event_is_created_once_and_then_counted() {
    let server = ApiServer::start([Answer::status(404), Answer::Text(201, None, String::new())]).await;
    let cluster = server.cluster().await;
    let pod = PodRef { name: "ts-0".to_owned(), uid: "u".to_owned() };
    let event = PodEvent { kind: EventKind::Warning, reason: "LoginFailed".to_owned(), message: "m".to_owned() };
    cluster.emit_event(&pod, &event).await.expect("an event");
    server.then([Answer::json(&json!({"count": 3})), Answer::text("")]);
    cluster.emit_event(&pod, &event).await.expect("an event");
    let asked = server.asked();
    assert_eq!(asked[1].line, "POST /api/v1/namespaces/ns/events");
    assert_eq!(asked[1].body["source"]["component"], "test");
    assert_eq!(asked[3].line, "PATCH /api/v1/namespaces/ns/events/ts-0.u.loginfailed");
    assert_eq!(asked[3].body[0], json!({"op": "replace", "path": "/count", "value": 4}));
}

#[tokio::test(start_paused = true)]
async fn permissions_are_asked_in_order_and_one_failure_spoils_no_other() {
    let mut answers = vec![Answer::allowed(true), Answer::allowed(false), Answer::allowed(true)];
    answers.extend((0..3).map(|_| Answer::status(500)));
    let server = ApiServer::start(answers).await;
    let permissions = Permissions::probe(&server.cluster().await, "s").await;
    assert!(permissions.get.is_allowed() && permissions.update.is_denied() && permissions.can_patch());
    assert!(!permissions.can_create() && !permissions.create.is_denied());
    assert_eq!(permissions.missing(), ["missing update permission on secret \"s\""]);
    let verbs: Vec<_> =
        server.asked().iter().map(|asked| asked.body["spec"]["resourceAttributes"]["verb"].clone()).collect();
    assert_eq!(verbs, ["get", "update", "patch", "create", "create", "create"]);
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_server_is_not_a_denial_and_is_asked_once() {
    let mut server = ApiServer::start([]).await;
    server.gone();
    let cluster = server.cluster().await;
    let permissions = Permissions::probe(&cluster, "s").await;
    assert!(permissions.unreachable().is_some());
    assert_eq!(permissions.failures().count(), 4);
    assert!(permissions.missing().is_empty());
    let error = cluster.secret("s").await.expect_err("nobody is there");
    assert!(matches!(&error, Error::Unreachable { cause: Cause::Connect(_), .. }), "{error:?}");
    assert!(error.to_string().contains(&server.addr.to_string()), "{error}");
}

// === Credentials ===

#[tokio::test]
async fn after_401_the_same_request_goes_out_once_more_with_the_token_of_now() {
    let server = ApiServer::start([Answer::status(401), Answer::text("")]).await;
    let cluster = server.cluster().await;
    std::fs::write(server.account().join("token"), "token-2").expect("a token");
    cluster.merge("s", &patch()).await.expect("a merge");
    let asked = server.asked();
    assert_eq!(
        (asked[0].header("authorization"), asked[1].header("authorization")),
        ("Bearer token-1", "Bearer token-2")
    );
    assert_eq!(asked[0].body, asked[1].body);

    server.then([Answer::status(401), Answer::status(401)]);
    let error = cluster.merge("s", &patch()).await.expect_err("not accepted");
    assert_eq!(shown(&error), "the API server does not accept our credentials: status 401");
    assert_eq!(server.asked().len(), 4);
}

#[tokio::test]
async fn a_kubeconfig_brings_its_own_trust_token_and_namespace() {
    use base64::Engine as _;
    let server = ApiServer::start([Answer::secret("1", &[]), Answer::status(401), Answer::secret("2", &[])]).await;
    let ca = base64::engine::general_purpose::STANDARD.encode(&server.ca);
    let config = |token: &str| {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "a",
            "clusters": [{"name": "c", "cluster": {"server": format!("https://{}/prefix", server.addr), "certificate-authority-data": ca}}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "a", "context": {"cluster": "c", "user": "u"}},
                         {"name": "b", "context": {"cluster": "c", "user": "u", "namespace": "other"}}],
        })
    };
    let path = server.account().join("kubeconfig");
    std::fs::write(&path, config("from-outside").to_string()).expect("a kubeconfig");
    let access = KubeAccess::Kubeconfig { path: path.clone(), context: Some("b".to_owned()) };
    let cluster = Cluster::connect(&access, "test").await.expect("a client");
    cluster.secret("s").await.expect("an answer");
    std::fs::write(&path, config("renewed").to_string()).expect("a kubeconfig");
    cluster.secret("s").await.expect("an answer after renewal");
    let asked = server.asked();
    assert_eq!(asked[0].line, "GET /prefix/api/v1/namespaces/other/secrets/s");
    let tokens: Vec<_> = asked.iter().map(|asked| asked.header("authorization")).collect();
    assert_eq!(tokens, ["Bearer from-outside", "Bearer from-outside", "Bearer renewed"]);

    let access = KubeAccess::Kubeconfig { path, context: Some("none".to_owned()) };
    let error = Cluster::connect(&access, "test").await.expect_err("no such context");
    assert!(matches!(error, Error::Setup { .. }), "{error:?}");
}

#[tokio::test]
async fn a_certificate_nobody_vouches_for_is_refused_at_once() {
    let (server, other) = (ApiServer::start([]).await, ApiServer::start([]).await);
    std::fs::write(server.account().join("ca.crt"), &other.ca).expect("another root");
    let error = server.cluster().await.secret("s").await.expect_err("no trust");
    assert!(matches!(&error, Error::Unreachable { cause: Cause::Tls(_), .. }), "{error:?}");
    assert!(server.asked().is_empty());
}

// === What is answered ===

#[tokio::test]
async fn the_status_decides_whatever_the_body_is() {
    let html = |code| Answer::Text(code, Some(("content-type", "text/html")), "<html>\n<h1>no</h1>".to_owned());
    let server = ApiServer::start([html(404), html(403), Answer::status(403), html(422)]).await;
    let cluster = server.cluster().await;
    assert_eq!(cluster.secret("s").await.expect("an answer"), None);

    let error = cluster.merge("s", &patch()).await.expect_err("denied");
    assert_eq!(shown(&error), "not allowed to patch Secret `s`: no reason given");
    let error = cluster.may(Verb::Get, Resource::Secrets, Some("s")).await.expect_err("denied");
    assert_eq!(shown(&error), "not allowed to create SelfSubjectAccessReviews: status 403");
    let error = cluster.merge("s", &patch()).await.expect_err("invalid");
    assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
    assert_eq!(server.asked().len(), 4, "none of these is worth a second try");
}

#[tokio::test]
async fn answers_that_are_a_success_in_name_only_are_one_clear_line() {
    let large = format!(r#"{{"data":{{"k":"{}"}}}}"#, "x".repeat(9 << 20));
    let server = ApiServer::start([
        Answer::text("<!DOCTYPE html>\n<html>login here</html>"),
        Answer::text(""),
        Answer::text(r#"{"data":{"k":"aGk"#),
        Answer::text(&large),
    ])
    .await;
    let cluster = server.cluster().await;
    for line in [
        "the API server's answer to get secrets s cannot be used: it is not JSON; it begins with \"<!DOCTYPE html> <html>login here</html>\"",
        "the API server's answer to get secrets s cannot be used: it is empty",
        "the API server's answer to get secrets s cannot be used: it is cut off",
        "the API server's answer to get secrets s cannot be used: it is larger than 8 MiB",
    ] {
        let error = cluster.secret("s").await.expect_err(line);
        assert_eq!(shown(&error), line);
        assert!(matches!(error, Error::Malformed { .. }));
    }
    assert_eq!(server.asked().len(), 4);
}

// === Trying again ===

#[tokio::test(start_paused = true)]
async fn breaks_conflicts_and_server_errors_pass_unnoticed_twice() {
    let server = ApiServer::start([]).await;
    let cluster = server.cluster().await;
    let faults: [fn() -> Answer; 6] = [
        || Answer::Hangup(Hangup::Reset),
        || Answer::Hangup(Hangup::Close),
        || Answer::CutOff("{\"metadata\":"),
        || Answer::status(409),
        || Answer::status(500),
        || Answer::with(429, "retry-after", "0"),
    ];
    for fault in faults {
        let before = server.asked().len();
        server.then([fault(), fault(), Answer::text("{}")]);
        cluster.merge("s", &patch()).await.unwrap_or_else(|error| panic!("{:?}: {error}", fault()));
        assert_eq!(server.asked().len() - before, 3, "{:?}", fault());
    }
    server.then((0..3).map(|_| Answer::status(503)));
    let error = cluster.merge("s", &patch()).await.expect_err("three times is enough");
    assert_eq!(shown(&error), "the API server failed with status 503: status 503");
    server.then((0..3).map(|_| Answer::Hangup(Hangup::Reset)));
    let error = cluster.merge("s", &patch()).await.expect_err("three times is enough");
    assert!(matches!(&error, Error::Unreachable { cause: Cause::Broken(_), .. }), "{error:?}");
    assert!(!shown(&error).contains('\n'));
}

#[tokio::test]
async fn what_might_be_done_twice_is_not_sent_again() {
    let server = ApiServer::start([]).await;
    let cluster = server.cluster().await;
    let faults: [fn() -> Answer; 3] = [|| Answer::status(409), || Answer::status(500), || Answer::CutOff("{")];
    for fault in faults {
        let before = server.asked().len();
        server.then([fault(), fault()]);
        let conditional = patch().only_if(Some("7".to_owned()));
        cluster.merge("s", &conditional).await.expect_err("the version may be gone");
        cluster.create_secret("s", &patch()).await.expect_err("it may exist");
        assert_eq!(server.asked().len() - before, 2, "{:?}", fault());
    }
    assert_eq!(server.asked()[0].body["metadata"]["resourceVersion"], "7");
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_honoured_and_a_long_one_is_the_callers_to_wait_for() {
    let server = ApiServer::start([Answer::with(429, "retry-after", "7"), Answer::text("{}")]).await;
    let cluster = server.cluster().await;
    cluster.merge("s", &patch()).await.expect("a merge");
    let asked = server.asked();
    assert!(asked[1].at - asked[0].at >= Duration::from_secs(7));

    server.then([Answer::with(429, "retry-after", "120")]);
    let error = cluster.merge("s", &patch()).await.expect_err("too long");
    assert!(matches!(error, Error::Throttled { retry_after: Some(wait) } if wait == Duration::from_secs(120)));
}

#[tokio::test]
async fn a_server_that_hangs_is_given_up_at_the_deadline() {
    let server = ApiServer::start([Answer::Hang]).await;
    let cluster = server.cluster().await;
    let start = Instant::now();
    let error = cluster.until(start + Duration::from_millis(300)).secret("s").await.expect_err("no answer");
    assert!(matches!(&error, Error::Unreachable { cause: Cause::Timeout(_), .. }), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn without_a_deadline_each_try_has_its_own_limit() {
    let server = ApiServer::start([Answer::Hang, Answer::Hang, Answer::Hang]).await;
    let cluster = server.cluster().await;
    let start = Instant::now();
    let error = cluster.secret("s").await.expect_err("no answer");
    assert!(error.to_string().ends_with("no answer within 15s"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn a_port_that_accepts_and_says_nothing_is_no_connection() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let server = ApiServer::start([]).await;
    let url = format!("https://{}", listener.local_addr().expect("an address"));
    let access = KubeAccess::InCluster { service_account: server.account().to_owned(), url };
    let cluster = Cluster::connect(&access, "test").await.expect("a client");
    let error = cluster.secret("s").await.expect_err("no handshake");
    assert!(error.to_string().ends_with("no connection (no answer within 5s)"), "{error}");
}
