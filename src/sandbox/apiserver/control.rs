//! The control of an [`ApiServer`]: users, objects, recorded requests, trouble.
//!
//! What it changes, clients see as they would see anybody else's writes. What it cannot do for a reason of the caller's
//! making (an object that is not valid) panics: the callers are tests and demonstrations.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use tokio::sync::watch as channel;
use tokio::time::timeout;

use super::ApiServer;
use super::access::{Access, Subject, User};
use super::fault::{Fault, Scope, Times};
use super::journal::Recorded;
use super::resources::{self, Resource};
use super::select::Selector;
use super::status::Status;
use super::store::{self, Collection, Keep, Preconditions, Write};

/// The field manager of what the control writes.
const MANAGER: &str = "tailpod-sandbox";

/// What was waited for did not happen; says what happened instead.
#[derive(Clone, Debug, thiserror::Error)]
#[error("no {what} within {limit:?}; seen so far:\n{seen}")]
pub struct TimedOut {
    what: String,
    limit: Duration,
    seen: String,
}

// === Users ===

impl ApiServer {
    /// Accepts `token` as `user`; who owned it before does so no longer. Grants nothing.
    pub fn accept_token(&self, token: &str, user: User) {
        self.core.state().users.accept(token, user);
    }

    /// Makes a token for `user` and grants it `access`, in place of what it had.
    pub fn issue_token(&self, user: &User, access: Access) -> String {
        let token = format!("{:032x}", u128::from_be_bytes(self.core.random()));
        self.accept_token(&token, user.clone());
        self.grant(Subject::from(user), access);
        token
    }

    /// Answers `token` with 401 from now on.
    pub fn revoke_token(&self, token: &str) {
        self.core.state().users.revoke(token);
    }

    /// Grants `access`, in place of an earlier grant to the same subject.
    pub fn grant(&self, subject: Subject, access: Access) {
        self.core.state().users.grant(subject, access);
    }
}

// === Objects ===

impl ApiServer {
    /// One Secret; `None` when there is none.
    pub fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.core.state().store.get(&secrets(namespace), name).ok()
    }

    /// The data of a Secret as text (not UTF-8 shows as U+FFFD); empty when there is no such Secret.
    pub fn data(&self, namespace: &str, name: &str) -> BTreeMap<String, String> {
        let text = |(key, bytes): (String, Vec<u8>)| (key, String::from_utf8_lossy(&bytes).into_owned());
        self.bytes(namespace, name).into_iter().map(text).collect()
    }

    /// The data of a Secret; empty when there is no such Secret.
    pub fn bytes(&self, namespace: &str, name: &str) -> BTreeMap<String, Vec<u8>> {
        self.secret(namespace, name).map(|secret| data(&secret)).unwrap_or_default()
    }

    /// Creates a Secret, or replaces all data of one.
    ///
    /// # Panics
    /// When kube-apiserver would not accept it.
    pub fn put_secret<K: Into<String>, V: AsRef<[u8]>>(
        &self,
        namespace: &str,
        name: &str,
        data: impl IntoIterator<Item = (K, V)>,
    ) {
        let data: serde_json::Map<String, Value> =
            data.into_iter().map(|(key, value)| (key.into(), BASE64.encode(value).into())).collect();
        let object = json!({"metadata": {"name": name}, "data": data});
        self.put("secrets", namespace, object);
    }

    /// Sets one key of a Secret that exists, or removes it.
    ///
    /// # Panics
    /// When kube-apiserver would not accept it.
    pub fn set_key(&self, namespace: &str, name: &str, key: &str, value: Option<&[u8]>) {
        let patch = store::Patch::Merge(json!({"data": {key: value.map(|value| BASE64.encode(value))}}));
        let (of, write) = (secrets(namespace), self.write());
        let result = self.core.change(|store| store.patch(&of, name, &patch, &write));
        accepted(result.map(drop));
    }

    /// Deletes a Secret; `false` when there was none.
    pub fn delete_secret(&self, namespace: &str, name: &str) -> bool {
        let (of, write) = (secrets(namespace), self.write());
        self.core.change(|store| store.delete(&of, name, &Preconditions::default(), &write)).is_ok()
    }

    /// One object of any kind; `None` when there is none, or no such kind.
    pub fn object(&self, plural: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.core.state().store.get(&collection(plural, Some(namespace))?, name).ok()
    }

    /// All objects of a kind in a namespace, by name.
    pub fn objects(&self, plural: &str, namespace: &str) -> Vec<Arc<Value>> {
        let Some(of) = collection(plural, Some(namespace)) else { return Vec::new() };
        self.core.state().store.list(&of, &Selector::default(), None, 0).items
    }

    /// Creates an object of any kind, or replaces it.
    ///
    /// # Panics
    /// When kube-apiserver would not accept it.
    pub fn put(&self, plural: &str, namespace: &str, mut object: Value) {
        let of = collection(plural, Some(namespace)).unwrap_or_else(|| panic!("no resource is called {plural:?}"));
        let write = self.write();
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let result = self.core.change(|store| {
            let Ok(old) = store.get(&of, &name) else { return store.create(&of, object, &write).map(drop) };
            object["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
            store.update(&of, &name, object, &write).map(drop)
        });
        accepted(result);
    }

    /// The resourceVersion of the last write.
    pub fn version(&self) -> u64 {
        self.core.state().store.version()
    }

    /// Forgets the history: a watch that resumes from before gets 410.
    pub fn compact(&self) {
        self.core.state().store.compact();
    }

    /// Cuts off every running watch.
    pub fn break_watches(&self) {
        self.core.breaks.send_modify(|count| *count += 1);
    }

    /// Waits until a Secret's data (empty while there is none) satisfies `wanted`, and returns it.
    ///
    /// # Errors
    /// After `limit`, with the keys there are and the size of each value.
    pub async fn wait_secret(
        &self,
        namespace: &str,
        name: &str,
        wanted: impl Fn(&BTreeMap<String, String>) -> bool,
        limit: Duration,
    ) -> Result<BTreeMap<String, String>, TimedOut> {
        let check = || Some(self.data(namespace, name)).filter(|data| wanted(data));
        let what = format!("such data in Secret {namespace}/{name}");
        let seen = || {
            let sizes = self.bytes(namespace, name).into_iter().map(|(key, value)| (key, value.len()));
            sizes.fold(String::new(), |seen, (key, size)| format!("{seen}  {key}: {size} bytes\n"))
        };
        self.wait(&self.core.version, check, what, limit, seen).await
    }

    fn write(&self) -> Write {
        self.core.write(MANAGER.to_owned(), Keep::Yes)
    }

    /// Waits until `check` finds something, looking again whenever `changes` says so.
    async fn wait<T>(
        &self,
        changes: &channel::Sender<u64>,
        check: impl Fn() -> Option<T>,
        what: String,
        limit: Duration,
        seen: impl Fn() -> String,
    ) -> Result<T, TimedOut> {
        let mut changes = changes.subscribe();
        let found = timeout(limit, async {
            loop {
                changes.mark_unchanged();
                if let Some(found) = check() {
                    return found;
                }
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        });
        found.await.map_err(|_| TimedOut { what, limit, seen: seen() })
    }
}

fn secrets(namespace: &str) -> Collection {
    Collection { resource: Resource::secrets(), namespace: Some(namespace.to_owned()) }
}

fn collection(plural: &str, namespace: Option<&str>) -> Option<Collection> {
    let resource = resources::RESOURCES.iter().find(|resource| resource.plural == plural)?;
    Some(Collection { resource, namespace: namespace.filter(|_| resource.namespaced).map(str::to_owned) })
}

fn data(secret: &Value) -> BTreeMap<String, Vec<u8>> {
    let entries = secret["data"].as_object().into_iter().flatten();
    entries
        .map(|(key, value)| (key.clone(), BASE64.decode(value.as_str().unwrap_or_default()).unwrap_or_default()))
        .collect()
}

#[track_caller]
fn accepted(result: Result<(), Status>) {
    if let Err(status) = result {
        panic!("the API server does not accept that: {}", status.message);
    }
}

// === Requests and trouble ===

impl ApiServer {
    /// The requests so far, oldest first.
    pub fn requests(&self) -> Vec<Arc<Recorded>> {
        self.core.state().journal.all()
    }

    /// Forgets the requests so far; numbers go on.
    pub fn forget_requests(&self) {
        self.core.state().journal.clear();
    }

    /// Waits for a request that satisfies `wanted`, among those that are remembered or still to come.
    ///
    /// # Errors
    /// After `limit`, with all that were remembered.
    pub async fn wait_request(
        &self,
        wanted: impl Fn(&Recorded) -> bool,
        limit: Duration,
    ) -> Result<Arc<Recorded>, TimedOut> {
        let check = || self.requests().into_iter().find(|request| wanted(request));
        let seen = || self.requests().iter().fold(String::new(), |seen, request| format!("{seen}  {request}\n"));
        self.wait(&self.core.asked, check, "such request".to_owned(), limit, seen).await
    }

    /// Makes trouble for the next request in `scope`.
    pub fn fail(&self, scope: Scope, fault: Fault) {
        self.fail_times(scope, fault, Times::Only(1));
    }

    /// Makes trouble for several requests in `scope`.
    pub fn fail_times(&self, scope: Scope, fault: Fault, times: Times) {
        self.core.state().faults.push(scope, fault, times);
    }

    /// Ends all trouble.
    pub fn heal(&self) {
        self.core.state().faults.clear();
    }
}
