//! Clearing the old identity, and waiting for a new key in a Secret.

use std::time::Duration;

use serde_json::Value;
use tailpod::authkey::{self, ClearError, KeySource, Scope, WaitError};
use tailpod::k8s::Error;
use tailpod::k8s::state::{self, FIELD_MANAGER};
use tailpod::secret::Secret;
use tokio_util::sync::CancellationToken;

use super::scripted::{Answer, ApiServer};

const OLD: [(&str, &str); 5] = [
    ("reissue_authkey", "old"),
    ("_machinekey", "m"),
    ("_current-profile", "profile-a"),
    ("profile-a", "p"),
    ("foo", "bar"),
];
const KEPT: [(&str, &str); 1] = [("foo", "bar")];

#[tokio::test]
async fn a_request_is_one_merge_of_the_failed_key() {
    let server = ApiServer::start([Answer::text("")]).await;
    let failed = Secret::new("old".to_owned());
    authkey::request(&server.cluster().await, "s", &failed, FIELD_MANAGER).await.expect("a request");
    assert_eq!(server.asked()[0].body["data"], serde_json::json!({"reissue_authkey": "b2xk"}));
}

#[tokio::test]
async fn the_identity_goes_with_the_profile_it_names_and_is_seen_gone() {
    let server = ApiServer::start([Answer::secret("4", &OLD), Answer::text(""), Answer::secret("5", &KEPT)]).await;
    let cleared =
        authkey::clear(&server.cluster().await, "s", Scope::Identity, None, FIELD_MANAGER).await.expect("gone");
    assert_eq!(cleared.keys, ["reissue_authkey", "_machinekey", "_current-profile", "profile-a"]);
    let patch = &server.asked()[1].body;
    assert_eq!(patch["metadata"]["resourceVersion"], "4");
    let data = patch["data"].as_object().expect("data");
    assert!(data.values().all(Value::is_null));
    let keys: Vec<_> = data.keys().map(String::as_str).collect();
    let wanted = "_current-profile _machinekey _profiles device_fqdn device_id device_ips profile-a reissue_authkey";
    assert_eq!(keys.join(" "), wanted);
}

#[tokio::test(start_paused = true)]
async fn what_is_written_back_or_changed_meanwhile_is_removed_again() {
    let server = ApiServer::start([
        Answer::secret("4", &OLD),
        Answer::status(409),
        Answer::secret("5", &OLD),
        Answer::text(""),
        Answer::secret("7", &[("_machinekey", "m"), ("foo", "bar")]),
        Answer::secret("7", &[("_machinekey", "m"), ("foo", "bar")]),
        Answer::Hangup(tailpod::sandbox::http::Hangup::Reset),
        Answer::secret("7", &[("_machinekey", "m"), ("foo", "bar")]),
        Answer::text(""),
        Answer::secret("8", &KEPT),
    ])
    .await;
    authkey::clear(&server.cluster().await, "s", Scope::Identity, None, FIELD_MANAGER).await.expect("gone at last");
    assert_eq!(server.asked().len(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_does_not_stop_is_named() {
    let rounds = (0..10).flat_map(|_| [Answer::secret("4", &OLD), Answer::text(""), Answer::secret("5", &OLD)]);
    let server = ApiServer::start(rounds).await;
    let error =
        authkey::clear(&server.cluster().await, "s", Scope::Marker, None, FIELD_MANAGER).await.expect_err("back");
    assert!(matches!(&error, ClearError::WrittenBack { keys } if keys == &["reissue_authkey"]), "{error:?}");
}

#[tokio::test]
async fn a_version_that_was_named_is_never_passed_over() {
    let server = ApiServer::start([Answer::secret("9", &OLD), Answer::status(409)]).await;
    let cluster = server.cluster().await;
    let error = authkey::clear(&cluster, "s", Scope::Identity, Some("4"), FIELD_MANAGER).await.expect_err("changed");
    assert!(matches!(error, ClearError::Changed), "{error:?}");
    assert_eq!(server.asked()[1].body["metadata"]["resourceVersion"], "4");
}

#[tokio::test]
async fn a_denial_ends_clearing_and_a_missing_secret_is_clear() {
    let server = ApiServer::start([Answer::secret("4", &OLD), Answer::status(403), Answer::status(404)]).await;
    let cluster = server.cluster().await;
    let error = authkey::clear(&cluster, "s", Scope::Identity, None, FIELD_MANAGER).await.expect_err("denied");
    assert!(matches!(error, ClearError::Cluster(Error::Denied { .. })), "{error:?}");
    let cleared = authkey::clear(&cluster, "s", Scope::Identity, None, FIELD_MANAGER).await.expect("nothing there");
    assert!(cleared.keys.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_new_key_in_the_secret_is_seen_where_watching_is_not_allowed() {
    let server = ApiServer::start([
        Answer::status(403),
        Answer::secret("1", &[("authkey", "old")]),
        Answer::Hangup(tailpod::sandbox::http::Hangup::Reset),
        Answer::status(404),
        Answer::secret("2", &[("authkey", "")]),
        Answer::secret("3", &[("authkey", "new")]),
    ])
    .await;
    let source =
        KeySource::Secret { cluster: server.cluster().await, name: "s".to_owned(), key: state::AUTHKEY.to_owned() };
    let (old, stop) = (Secret::new("old".to_owned()), CancellationToken::new());
    let limit = Duration::from_secs(600);
    let new = authkey::wait(&source, &old, limit, &stop, &mut |_| {}).await.expect("a key");
    assert_eq!(new.key.expose(), "new");
    assert!((15..=20).contains(&new.after.as_secs()), "{:?}", new.after);

    server.then([Answer::status(403), Answer::status(403)]);
    let error = authkey::wait(&source, &old, limit, &stop, &mut |_| {}).await.expect_err("may not read");
    assert!(matches!(error, WaitError::Denied(Error::Denied { .. })), "{error:?}");
}
