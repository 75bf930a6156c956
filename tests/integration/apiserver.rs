//! The sandbox's API server, driven by a real client over TLS.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use http_body_util::BodyExt as _;
use hyper::Method;
use k8s_openapi::ByteString;
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Secret};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::json;
use tailpod::sandbox::apiserver::access::{Access, Rule, Subject, User};
use tailpod::sandbox::apiserver::{ApiServer, Fault, Options, Scope, Times};
use tailpod::sandbox::tls::Style;

const SOON: Duration = Duration::from_secs(20);

/// A client as `kubectl` would be configured, without hidden retries.
async fn client(api: &ApiServer, token: &str) -> Client {
    let kubeconfig = Kubeconfig::from_yaml(&api.kubeconfig(token, "ts")).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.default_retry = false;
    config.headers.push((hyper::header::USER_AGENT, "tester/1.0".parse().unwrap()));
    Client::try_from(config).unwrap()
}

async fn admin() -> (ApiServer, Client) {
    let api = ApiServer::start().await.unwrap();
    let client = client(&api, api.admin_token()).await;
    (api, client)
}

fn secret(name: &str, key: &str, value: &str) -> Secret {
    serde_json::from_value(json!({"metadata": {"name": name}, "stringData": {key: value}})).unwrap()
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    let ByteString(bytes) = secret.data.as_ref()?.get(key)?;
    Some(String::from_utf8(bytes.clone()).unwrap())
}

/// The code and message of a refusal.
fn refusal<T: std::fmt::Debug>(result: Result<T, kube::Error>) -> (u16, String) {
    match result.unwrap_err() {
        kube::Error::Api(status) => (status.code, status.message),
        other => panic!("not a Status: {other:?}"),
    }
}

fn pairs(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn a_secret_lives_and_dies() {
    let (api, client) = admin().await;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "ts");

    let created = secrets.create(&PostParams::default(), &secret("state", "a", "1")).await.unwrap();
    assert_eq!((text(&created, "a").as_deref(), created.type_.as_deref()), (Some("1"), Some("Opaque")));
    assert!(created.metadata.uid.is_some() && created.metadata.creation_timestamp.is_some());
    assert_eq!(created.metadata.managed_fields.as_ref().unwrap()[0].manager.as_deref(), Some("tester"));
    assert_eq!(api.data("ts", "state"), pairs(&[("a", "1")]));
    assert_eq!(
        refusal(secrets.create(&PostParams::default(), &secret("state", "a", "1")).await),
        (409, "secrets \"state\" already exists".to_owned())
    );

    let mut changed = created.clone();
    changed.data.as_mut().unwrap().insert("b".to_owned(), ByteString(vec![0xff, 0]));
    secrets.replace("state", &PostParams::default(), &changed).await.unwrap();
    assert_eq!(api.bytes("ts", "state")["b"], [0xff, 0]);
    let (code, message) = refusal(secrets.replace("state", &PostParams::default(), &created).await);
    assert_eq!(code, 409);
    assert!(message.starts_with("Operation cannot be fulfilled on secrets \"state\": "), "{message}");

    secrets.create(&PostParams::default(), &secret("other", "a", "1")).await.unwrap();
    let names = |list: kube::core::ObjectList<Secret>| -> Vec<String> {
        list.items.into_iter().filter_map(|secret| secret.metadata.name).collect()
    };
    let everywhere: Api<Secret> = Api::all(client);
    assert_eq!(names(everywhere.list(&ListParams::default()).await.unwrap()), ["other", "state"]);
    assert_eq!(names(secrets.list(&ListParams::default().fields("metadata.name=state")).await.unwrap()), ["state"]);
    let page = secrets.list(&ListParams::default().limit(1)).await.unwrap();
    let token = page.metadata.continue_.clone().unwrap();
    assert_eq!(names(page), ["other"]);
    assert_eq!(names(secrets.list(&ListParams::default().limit(1).continue_token(&token)).await.unwrap()), ["state"]);

    let gone = secrets.delete("state", &DeleteParams::default()).await.unwrap();
    assert_eq!(gone.right().unwrap().details.unwrap().name, "state");
    assert_eq!(refusal(secrets.get("state").await), (404, "secrets \"state\" not found".to_owned()));
    assert_eq!(secrets.get_opt("state").await.unwrap(), None);
    assert!(api.secret("ts", "state").is_none() && api.data("ts", "state").is_empty());
}

#[tokio::test]
async fn patches_come_in_four_types() {
    let (api, client) = admin().await;
    let secrets: Api<Secret> = Api::namespaced(client, "ts");
    api.put_secret("ts", "state", [("keep", "k"), ("authkey", "secret")]);
    let as_boot = PatchParams { field_manager: Some("tailscale-container".to_owned()), ..PatchParams::default() };

    let patch = json!({"data": {"device_id": "bXlJRA==", "empty": "", "absent": null}});
    secrets.patch("state", &as_boot, &Patch::Strategic(patch)).await.unwrap();
    let expected = pairs(&[("authkey", "secret"), ("device_id", "myID"), ("empty", ""), ("keep", "k")]);
    assert_eq!(api.data("ts", "state"), expected);

    let remove: json_patch::Patch = serde_json::from_value(json!([{"op": "remove", "path": "/data/authkey"}])).unwrap();
    let remove = Patch::Json::<()>(remove);
    secrets.patch("state", &PatchParams::default(), &remove).await.unwrap();
    let (code, message) = refusal(secrets.patch("state", &PatchParams::default(), &remove).await);
    assert_eq!((code, message.as_str()), (422, "the server rejected our request due to an error in our request"));

    let patch = json!({"data": {"empty": null, "keep": "Sw=="}});
    secrets.patch("state", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    assert_eq!(api.data("ts", "state"), pairs(&[("device_id", "myID"), ("keep", "K")]));

    for stale in [
        Patch::Merge(json!({"metadata": {"resourceVersion": "1"}, "data": {"x": ""}})),
        Patch::Strategic(json!({"metadata": {"resourceVersion": "1"}, "data": {"x": ""}})),
    ] {
        assert_eq!(refusal(secrets.patch("state", &PatchParams::default(), &stale).await).0, 409);
    }

    let config =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "state"}, "data": {"device_id": "eA=="}});
    let (code, message) = refusal(secrets.patch("state", &PatchParams::apply("other"), &Patch::Apply(&config)).await);
    assert_eq!(code, 409);
    assert!(
        message.starts_with("Apply failed with 1 conflict: conflict with \"tailscale-container\" using v1 at "),
        "{message}"
    );
    secrets.patch("state", &PatchParams::apply("other").force(), &Patch::Apply(&config)).await.unwrap();
    assert_eq!(api.data("ts", "state"), pairs(&[("device_id", "x"), ("keep", "K")]));

    let last = api.requests().into_iter().rfind(|request| request.method == "PATCH").unwrap();
    assert_eq!(last.content_type.as_deref(), Some("application/apply-patch+yaml"));
    assert_eq!((last.query["fieldManager"].as_str(), last.query["force"].as_str()), ("other", "true"));
    assert_eq!((last.body.clone(), last.status, last.user.as_deref()), (config, Some(200), Some("kubernetes-admin")));
}

#[tokio::test]
async fn bad_objects_are_refused() {
    let (_api, client) = admin().await;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "ts");
    let create = async |object: Secret| refusal(secrets.create(&PostParams::default(), &object).await);
    assert_eq!(create(secret("Upper", "a", "")).await.0, 422);
    assert_eq!(create(secret("x", "a b", "")).await.0, 422);
    let (code, message) = create(secret("x", "big", &"a".repeat((1 << 20) + 1))).await;
    assert_eq!(
        (code, message.as_str()),
        (422, "Secret \"x\" is invalid: data: Too long: may not be more than 1048576 bytes")
    );
    let (code, message) = create(secret("x", "huge", &"a".repeat(3 << 20))).await;
    assert_eq!((code, message.as_str()), (413, "Request entity too large: limit is 3145728"));

    let send = async |method: &str, path: &str, kind: &str, body: &str| {
        let request = hyper::Request::builder().method(method).uri(path).header("content-type", kind);
        refusal(client.request_text(request.body(body.as_bytes().to_vec()).unwrap()).await)
    };
    let path = "/api/v1/namespaces/ts/secrets";
    let json = "application/json";
    let not_base64 = r#"{"metadata": {"name": "x"}, "data": {"a": "?"}}"#;
    assert_eq!(send("POST", path, json, not_base64).await.0, 400);
    assert_eq!(send("POST", path, json, "{").await.0, 400);
    assert_eq!(send("POST", path, "application/yaml", "a: b").await.0, 415);
    assert_eq!(send("PATCH", &format!("{path}/x"), json, "{}").await.0, 415);
    assert_eq!(send("PATCH", &format!("{path}/x"), "application/apply-patch+yaml", "{}").await.0, 422);
    assert_eq!(send("PATCH", path, json, "{}").await.0, 405);
    assert_eq!(send("POST", "/api/v1/secrets", json, "{}").await.0, 405);
    assert_eq!(send("GET", "/apis/nobody/v1/things", json, "").await.0, 404);
    assert_eq!(send("GET", "/api/v1/namespaces/ts/secrets?fieldSelector=data", json, "").await.0, 400);
    assert_eq!(send("GET", "/api/v1/namespaces/ts/secrets?resourceVersion=999999", json, "").await.0, 504);
}

/// The names and kinds of the next events.
async fn next(stream: &mut (impl futures_util::Stream<Item = kube::Result<WatchEvent<Secret>>> + Unpin)) -> String {
    let name = |secret: Secret| secret.metadata.name.unwrap_or_default();
    match tokio::time::timeout(SOON, stream.next()).await.expect("an event in time") {
        None => "the end".to_owned(),
        Some(Err(error)) => format!("broken: {}", matches!(error, kube::Error::ReadEvents(_))),
        Some(Ok(WatchEvent::Added(secret))) => format!("added {}", name(secret)),
        Some(Ok(WatchEvent::Modified(secret))) => format!("modified {}", name(secret)),
        Some(Ok(WatchEvent::Deleted(secret))) => format!("deleted {}", name(secret)),
        Some(Ok(WatchEvent::Bookmark(mark))) => format!("bookmark {:?}", mark.metadata.annotations.len()),
        Some(Ok(WatchEvent::Error(status))) => format!("error {} {}", status.code, status.reason),
    }
}

#[tokio::test]
async fn watches_resume_end_and_break() {
    let options = Options { bookmarks: Duration::from_millis(50), ..Options::default() };
    let api = ApiServer::start_with(options).await.unwrap();
    let client = client(&api, api.admin_token()).await;
    let secrets: Api<Secret> = Api::namespaced(client, "ts");
    api.put_secret("ts", "one", [("a", "1")]);
    let after_one = api.version().to_string();
    api.put_secret("ts", "two", [("a", "1")]);
    let quiet = WatchParams { bookmarks: false, ..WatchParams::default() };

    // From the beginning: the state, then every change as it happens.
    let mut all = secrets.watch(&quiet, "0").await.unwrap().boxed();
    assert_eq!(next(&mut all).await, "added one");
    assert_eq!(next(&mut all).await, "added two");
    api.set_key("ts", "one", "b", Some(b"2"));
    assert_eq!(next(&mut all).await, "modified one");
    api.put_secret("elsewhere", "three", [("a", "1")]);
    api.delete_secret("ts", "one");
    assert_eq!(next(&mut all).await, "deleted one");

    // From a resourceVersion: exactly what came after it.
    let mut resumed = secrets.watch(&quiet, &after_one).await.unwrap().boxed();
    for expected in ["added two", "modified one", "deleted one"] {
        assert_eq!(next(&mut resumed).await, expected);
    }
    let mut selected = secrets.watch(&quiet.clone().fields("metadata.name=two"), &after_one).await.unwrap().boxed();
    assert_eq!(next(&mut selected).await, "added two");

    // Bookmarks only for those who ask.
    let mut marked = secrets.watch(&WatchParams::default(), &api.version().to_string()).await.unwrap().boxed();
    assert_eq!(next(&mut marked).await, "bookmark 0");
    let initial = WatchParams::default().initial_events();
    let mut initial = secrets.watch(&initial, "0").await.unwrap().boxed();
    assert_eq!(next(&mut initial).await, "added two");
    assert_eq!(next(&mut initial).await, "bookmark 1");

    // The end by time, by compaction, by force.
    let mut short = secrets.watch(&quiet.clone().timeout(1), &api.version().to_string()).await.unwrap().boxed();
    assert_eq!(next(&mut short).await, "the end");
    api.compact();
    let mut expired = secrets.watch(&quiet, &after_one).await.unwrap().boxed();
    assert_eq!(next(&mut expired).await, "error 410 Expired");
    assert_eq!(next(&mut expired).await, "the end");
    api.break_watches();
    // This client takes a broken watch for an ended one.
    assert_eq!(next(&mut all).await, "the end");
}

#[tokio::test]
async fn a_watch_that_breaks_is_not_one_that_ends() {
    let api = ApiServer::start().await.unwrap();
    api.put_secret("ts", "state", [("a", "1")]);
    let client = plain(&api);
    let watch = async |seconds: u32| {
        let uri = format!("{}/api/v1/namespaces/ts/secrets?watch=true&timeoutSeconds={seconds}", api.url());
        let request = hyper::Request::get(uri).header("authorization", format!("Bearer {}", api.admin_token()));
        let mut body =
            client.request(request.body(http_body_util::Full::default()).unwrap()).await.unwrap().into_body();
        assert!(body.frame().await.unwrap().unwrap().data_ref().unwrap().starts_with(b"{"));
        body
    };
    assert!(watch(1).await.frame().await.is_none(), "the last chunk ends it");
    let mut broken = watch(600).await;
    api.break_watches();
    assert!(broken.frame().await.unwrap().is_err(), "no last chunk comes");
}

#[tokio::test]
async fn tokens_come_and_go_and_grants_hold() {
    let api = ApiServer::start().await.unwrap();
    api.put_secret("ts", "state", [("a", "1")]);
    let pod = User::service_account("ts", "proxy");
    let token = api.issue_token(&pod, Access::of_boot("ts", "state"));
    let client = client(&api, &token).await;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "ts");
    secrets.get("state").await.unwrap();

    let who = "User \"system:serviceaccount:ts:proxy\" cannot";
    assert_eq!(
        refusal(secrets.get("other").await),
        (
            403,
            format!(
                "secrets \"other\" is forbidden: {who} get resource \"secrets\" in API group \"\" in the namespace \"ts\""
            )
        )
    );
    assert_eq!(
        refusal(secrets.list(&ListParams::default()).await),
        (
            403,
            format!("secrets is forbidden: {who} list resource \"secrets\" in API group \"\" in the namespace \"ts\"")
        )
    );
    // A named grant covers a list or watch that selects that name only.
    api.grant(Subject::from(&pod), Access::none().and(Rule::new("", &["secrets"], &["list"]).named("state")));
    assert_eq!(secrets.list(&ListParams::default().fields("metadata.name=state")).await.unwrap().items.len(), 1);
    assert_eq!(refusal(secrets.list(&ListParams::default()).await).0, 403);

    api.grant(Subject::from(&pod), Access::all().except(Rule::new("", &["secrets"], &["patch"])));
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    for (verb, allowed) in [("get", true), ("patch", false)] {
        let attributes = json!({"namespace": "ts", "verb": verb, "resource": "secrets", "name": "state"});
        let review = serde_json::from_value(json!({"spec": {"resourceAttributes": attributes}})).unwrap();
        let review = reviews.create(&PostParams::default(), &review).await.unwrap();
        assert_eq!(review.status.unwrap().allowed, allowed, "{verb}");
    }
    let patch = Patch::Merge(json!({"data": {}}));
    assert_eq!(refusal(secrets.patch("state", &PatchParams::default(), &patch).await).0, 403);

    api.revoke_token(&token);
    assert_eq!(refusal(secrets.get("state").await), (401, "Unauthorized".to_owned()));
    assert_eq!(api.requests().last().unwrap().user, None);
    api.accept_token(&token, pod);
    secrets.get("state").await.unwrap();
}

#[tokio::test]
async fn admins_impersonate_and_nobody_else() {
    let (api, client) = admin().await;
    api.grant(Subject::Group("viewers".to_owned()), Access::none().and(Rule::new("", &["secrets"], &["list"])));
    let who = async |client: &Client, group: &str| {
        let request = hyper::Request::get("/api/v1/namespaces/ts/secrets")
            .header("impersonate-user", "alice@example.com")
            .header("impersonate-group", group);
        client.request_text(request.body(Vec::new()).unwrap()).await
    };
    who(&client, "viewers").await.unwrap();
    assert_eq!(api.requests().last().unwrap().user.as_deref(), Some("alice@example.com"));
    assert!(refusal(who(&client, "others").await).1.contains("User \"alice@example.com\" cannot list"));
    let nobody = self::client(&api, &api.issue_token(&User::new("nobody", &[]), Access::none())).await;
    assert!(refusal(who(&nobody, "viewers").await).1.contains("User \"nobody\" cannot impersonate resource \"users\""));
}

#[tokio::test]
async fn events_and_leases_follow_their_rules() {
    let (api, client) = admin().await;
    let events: Api<Event> = Api::namespaced(client.clone(), "ts");
    let event = |namespace: &str| -> Event {
        serde_json::from_value(json!({
            "metadata": {"name": "pod.uid.reason"}, "involvedObject": {"kind": "Pod", "name": "pod", "namespace": namespace},
            "reason": "Reason", "type": "Normal", "count": 1, "firstTimestamp": "2026-11-21T09:00:00Z",
        }))
        .unwrap()
    };
    assert_eq!(refusal(events.create(&PostParams::default(), &event("other")).await).0, 422);
    events.create(&PostParams::default(), &event("ts")).await.unwrap();
    let count: json_patch::Patch =
        serde_json::from_value(json!([{"op": "replace", "path": "/count", "value": 2}])).unwrap();
    events.patch("pod.uid.reason", &PatchParams::default(), &Patch::Json::<()>(count)).await.unwrap();
    assert_eq!(api.object("events", "ts", "pod.uid.reason").unwrap()["count"], 2);
    assert_eq!(api.objects("events", "ts").len(), 1);

    let leases: Api<Lease> = Api::namespaced(client, "ts");
    let lease: Lease = serde_json::from_value(json!({
        "metadata": {"name": "leader"},
        "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15, "renewTime": "2026-11-21T09:00:00.000000Z"},
    }))
    .unwrap();
    let mine = leases.create(&PostParams::default(), &lease).await.unwrap();
    let mut theirs = mine.clone();
    theirs.spec.as_mut().unwrap().holder_identity = Some("b".to_owned());
    leases.replace("leader", &PostParams::default(), &theirs).await.unwrap();
    assert_eq!(refusal(leases.replace("leader", &PostParams::default(), &mine).await).0, 409);
}

#[tokio::test]
async fn discovery_leads_to_what_is_served() {
    let (api, client) = admin().await;
    assert_eq!(client.apiserver_version().await.unwrap().major, "1");
    assert_eq!(client.list_core_api_versions().await.unwrap().versions, ["v1"]);
    let groups = client.list_api_groups().await.unwrap().groups;
    for group in groups {
        let resources = client.list_api_group_resources(&group.versions[0].group_version).await.unwrap();
        assert!(!resources.resources.is_empty(), "{}", group.name);
    }
    let core = client.list_core_api_resources("v1").await.unwrap();
    assert!(core.resources.iter().any(|resource| resource.name == "secrets"));

    // Every namespace is there, as `kubectl` wants to know after a 404.
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
    assert_eq!(namespaces.get("ts").await.unwrap().metadata.name.as_deref(), Some("ts"));

    // Without a token: health and version, nothing else.
    let nobody = plain(&api);
    for (path, code) in
        [("/healthz", 200), ("/readyz", 200), ("/livez", 200), ("/version", 200), ("/api", 403), ("/x", 403)]
    {
        let answer = nobody.get(format!("{}{path}", api.url()).parse().unwrap()).await.unwrap();
        assert_eq!(answer.status(), code, "{path}");
    }
}

type Plain = hyper_util::client::legacy::Client<
    hyper_rustls::HttpsConnector<hyper_util::client::legacy::connect::HttpConnector>,
    http_body_util::Full<bytes::Bytes>,
>;

/// A client without a token, and without anything between it and the connection.
fn plain(api: &ApiServer) -> Plain {
    use rustls::pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(api.ca_pem().as_bytes()).unwrap()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().build();
    hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build(connector)
}

#[tokio::test]
async fn every_fault_does_what_it_says() {
    let (api, client) = admin().await;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "ts");
    let patches = Scope::method(Method::PATCH).path("/secrets/state");
    // The same patch through a client that shows what came back, and whether it was carried out.
    let attempt = async |fault: Fault| {
        api.put_secret("ts", "state", [("n", "0")]);
        api.fail(patches.clone(), fault);
        let body = json!({"data": {"n": "MQ=="}}).to_string().into_bytes();
        let request = hyper::Request::patch("/api/v1/namespaces/ts/secrets/state")
            .header("content-type", "application/merge-patch+json")
            .body(kube::client::Body::from(body))
            .unwrap();
        let seen = match tokio::time::timeout(Duration::from_millis(300), client.send(request)).await {
            Err(_) => "hangs".to_owned(),
            Ok(Err(_)) => "no answer".to_owned(),
            Ok(Ok(answer)) => {
                let code = answer.status().as_u16();
                let retry = answer.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
                let body = answer.into_body().collect_bytes().await;
                let body = body.map(|body| match body.as_ref() {
                    [] => "empty",
                    [b'<', ..] => "html",
                    bytes if serde_json::from_slice::<serde_json::Value>(bytes).is_ok() => "json",
                    _ => "garbage",
                });
                format!("{code} {} {}", body.unwrap_or("broken"), retry.unwrap_or_default())
            }
        };
        (seen.trim().to_owned(), api.data("ts", "state")["n"] == "1")
    };
    for (fault, seen, done) in [
        (Fault::status(500, "InternalError", "oh"), "500 json", false),
        (Fault::too_many_requests(7), "429 json 7", false),
        (Fault::html(502), "502 html", false),
        (Fault::Hang, "hangs", false),
        (Fault::Close, "no answer", false),
        (Fault::Reset, "no answer", false),
        (Fault::LoseAnswer, "no answer", true),
        (Fault::CutOff, "200 broken", true),
        (Fault::Truncate, "200 garbage", true),
        (Fault::EmptyBody, "200 empty", true),
        (Fault::Delay(Duration::from_millis(1)), "200 json", true),
    ] {
        assert_eq!(attempt(fault.clone()).await, (seen.to_owned(), done), "{fault:?}");
    }
    // Other requests are not affected; "always" lasts until it is healed.
    api.fail_times(patches, Fault::Reset, Times::Always);
    secrets.get("state").await.unwrap();
    let patch = Patch::Merge(json!({"data": {}}));
    for _ in 0..3 {
        assert!(secrets.patch("state", &PatchParams::default(), &patch).await.is_err());
    }
    api.heal();
    secrets.patch("state", &PatchParams::default(), &patch).await.unwrap();
}

#[tokio::test]
async fn an_outage_ends_on_the_same_port_with_everything_kept() {
    let (api, client) = admin().await;
    let secrets: Api<Secret> = Api::namespaced(client, "ts");
    api.put_secret("ts", "state", [("a", "1")]);
    let mut running = secrets.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    assert_eq!(next(&mut running).await, "added state");
    for _ in 0..3 {
        api.stop().await.unwrap();
        api.stop().await.unwrap();
        assert!(secrets.get("state").await.is_err());
        let refused = tokio::net::TcpStream::connect(api.addr()).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        api.start_again().await.unwrap();
        api.start_again().await.unwrap();
        assert_eq!(text(&secrets.get("state").await.unwrap(), "a").as_deref(), Some("1"));
    }
    assert_eq!(next(&mut running).await, "the end");
}

#[tokio::test]
async fn a_stalled_server_answers_later() {
    let (api, client) = admin().await;
    let secrets: Api<Secret> = Api::namespaced(client, "ts");
    api.put_secret("ts", "state", [("a", "1")]);
    api.stall();
    let mut waiting = std::pin::pin!(secrets.get("state"));
    tokio::time::timeout(Duration::from_millis(100), waiting.as_mut()).await.unwrap_err();
    assert_eq!(api.requests(), []);
    api.resume();
    waiting.await.unwrap();
    assert_eq!(api.requests().len(), 1);
}

#[tokio::test]
async fn tests_can_wait_for_requests_and_for_data() {
    let (api, client) = admin().await;
    let secrets: Api<Secret> = Api::namespaced(client, "ts");
    let wait = api.wait_secret("ts", "state", |data| data.get("a").is_some_and(|a| a == "1"), SOON);
    let request = api.wait_request(|request| request.method == "POST", SOON);
    let object = secret("state", "a", "1");
    let post = PostParams::default();
    let (data, request, _) = tokio::join!(wait, request, secrets.create(&post, &object));
    assert_eq!(data.unwrap(), pairs(&[("a", "1")]));
    let request = request.unwrap();
    assert_eq!((request.path.as_str(), request.status), ("/api/v1/namespaces/ts/secrets", Some(201)));
    assert_eq!(request.agent.as_deref(), Some("tester/1.0"));

    let soon = Duration::from_millis(10);
    let error = api.wait_request(|request| request.method == "PUT", soon).await.unwrap_err().to_string();
    assert!(error.contains("POST /api/v1/namespaces/ts/secrets -> 201"), "{error}");
    let error = api.wait_secret("ts", "state", BTreeMap::is_empty, soon).await.unwrap_err().to_string();
    assert!(error.contains("a: 1 bytes"), "{error}");
    api.forget_requests();
    assert_eq!(api.requests(), []);
}

#[tokio::test]
async fn a_self_rooted_certificate_is_refused_by_plain_rustls() {
    let options = Options { style: Style::SelfRooted, ..Options::default() };
    let api = ApiServer::start_with(options).await.unwrap();
    let error = plain(&api).get(format!("{}/healthz", api.url()).parse().unwrap()).await.unwrap_err();
    assert!(format!("{error:?}").contains("CaUsedAsEndEntity"), "{error:?}");
}

#[tokio::test]
async fn it_stops_with_its_last_handle() {
    let api = ApiServer::start().await.unwrap();
    let addr = api.addr();
    let clone = api.clone();
    drop(api);
    tokio::net::TcpStream::connect(addr).await.unwrap();
    drop(clone);
    let refused = async {
        while tokio::net::TcpStream::connect(addr).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, refused).await.unwrap();
}

#[tokio::test]
async fn a_service_account_directory_is_what_a_pod_has() {
    let api = ApiServer::start().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("serviceaccount");
    api.write_service_account(&dir, "ts", "t0ken").unwrap();
    let read = |file: &str| std::fs::read_to_string(dir.join(file)).unwrap();
    assert_eq!(
        (read("namespace"), read("token"), read("ca.crt")),
        ("ts".into(), "t0ken".into(), api.ca_pem().to_owned())
    );
}

#[tokio::test]
async fn many_writers_never_lose_a_write() {
    let (api, client) = admin().await;
    api.put_secret("ts", "state", [("a", "1")]);
    let writes = futures_util::stream::iter(0..40).map(|n| {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), "ts");
        async move {
            let patch = json!({"data": {format!("k{n}"): ""}});
            secrets.patch("state", &PatchParams::default(), &Patch::Strategic(patch)).await
        }
    });
    writes.buffer_unordered(8).try_collect::<Vec<_>>().await.unwrap();
    assert_eq!(api.data("ts", "state").len(), 41);
}
