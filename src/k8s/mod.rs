//! Our narrow use of the Kubernetes API: Secrets, Leases, access reviews, Events, which Pods live.
//!
//! [`Cluster`] is cheap to clone and safe to share. Every call is bounded in time, retries what may pass by itself,
//! and fails with an [`Error`] that tells "denied" from "unreachable". Dropping a call cancels it; whether the server
//! had carried it out by then is open.

pub mod access;
mod base;
mod bearer;
mod connect;
mod connections;
pub mod diagnose;
mod dial;
pub mod egress;
pub mod endpoints;
pub mod error;
pub mod event;
pub mod exec;
mod interactive_mode;
mod keypair;
mod kubeconfig;
mod labelled;
mod lease;
mod pairfiles;
pub mod pods;
pub mod publisher;
mod race;
mod request;
mod rereads;
pub mod state;
mod surroundings;
mod tls;
mod token;
mod tokenfile;
mod tracked;
pub mod upstream;
pub mod watch;
mod wire;

use std::fmt;
use std::sync::Arc;

use hyper::header::HeaderValue;
use serde_json::json;
use tokio::time::Instant;

pub use self::error::{Cause, Error, Resource, RoleRule, Said, Verb};
pub use self::event::{EventKind, PodEvent, PodRef};
use self::request::{Call, Replay};
use self::state::Form;
pub use self::state::{KeyPatch, StateSecret};
use self::upstream::{Surroundings, Upstream};
use crate::secret::Secret;
use crate::settings::access::KubeAccess;

/// The API server as one namespace of it looks to us.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
    namespace: Arc<str>,
    deadline: Option<Instant>,
}

struct Inner {
    client: kube::Client,
    upstream: Upstream,
    server: String,
    component: &'static str,
    user_agent: HeaderValue,
}

/// Whether there was something to remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It is gone now.
    Removed,
    /// It was not there.
    WasAbsent,
}

impl Cluster {
    /// Prepares a client for `access`; reads its files, sends nothing yet. `component` names us in `User-Agent` and
    /// as the source of Events.
    ///
    /// # Errors
    /// [`Error::NoServiceAccount`] outside a Pod, else [`Error::Setup`]. A credential plugin of a kubeconfig
    /// runs with the first request.
    pub async fn connect(access: &KubeAccess, component: &'static str) -> Result<Self, Error> {
        Self::connect_in(access, component, &upstream::here()?).await
    }

    /// The same for a daemon, whose plugins have nobody to talk to.
    ///
    /// # Errors
    /// As [`Self::connect`]; also for a plugin that needs a person.
    pub async fn connect_unattended(access: &KubeAccess, component: &'static str) -> Result<Self, Error> {
        Self::connect_in(access, component, &upstream::here()?.unattended()).await
    }

    async fn connect_in(
        access: &KubeAccess,
        component: &'static str,
        surroundings: &Surroundings,
    ) -> Result<Self, Error> {
        let connection = connect::connect(access, surroundings).await?;
        let inner = Inner {
            client: connection.client,
            server: connection.upstream.base().to_string(),
            upstream: connection.upstream,
            component,
            user_agent: connect::user_agent(component),
        };
        Ok(Self { inner: Arc::new(inner), namespace: connection.namespace.into(), deadline: None })
    }

    /// Gets what the next request would carry, a credential plugin's run included; sends nothing.
    ///
    /// # Errors
    /// There are no credentials; every request would fail the same way.
    pub async fn ready(&self) -> Result<(), Error> {
        self.credentials().await.map(drop)
    }

    /// The same cluster, whose calls give up at `deadline`.
    #[must_use]
    pub fn until(&self, deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..self.clone() }
    }

    /// The same cluster, seen from another namespace.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Self {
        Self { namespace: namespace.into(), ..self.clone() }
    }

    /// The namespace all names are in.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Scheme, host and port of the API server.
    pub fn server(&self) -> &str {
        &self.inner.server
    }

    /// Whether we may do `verb` on `resource`, on the object `name` or on any.
    ///
    /// # Errors
    /// The question failed; that is not a no.
    pub async fn may(&self, verb: Verb, resource: Resource, name: Option<&str>) -> Result<bool, Error> {
        let review = Call {
            verb: Verb::Create,
            resource: Resource::SelfSubjectAccessReviews,
            name: None,
            target: "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews".to_owned(),
            body: Some((JSON, wire::access_review(self.namespace(), verb, resource, name))),
            replay: Replay::Safe,
        };
        let body = self.call(&review).await?;
        wire::allowed(&body).map_err(|reason| review.malformed(reason))
    }

    /// The Secret `name`; `None` when there is none.
    pub async fn secret(&self, name: &str) -> Result<Option<StateSecret>, Error> {
        Ok(self.secret_document(name).await?.map(|(secret, _)| secret))
    }

    /// The Secret `name` and the document it was read from, which restores it; `None` when there is none.
    pub async fn secret_document(&self, name: &str) -> Result<Option<(StateSecret, Secret<Vec<u8>>)>, Error> {
        let get = self.on_secret(Verb::Get, name, "", None, Replay::Safe);
        match self.call(&get).await {
            Ok(body) => {
                let secret = wire::secret(&body).map_err(|reason| get.malformed(reason))?;
                Ok(Some((secret, Secret::new(body.to_vec()))))
            }
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Changes the keys that `patch` names and no others. Any success counts, whatever its
    /// body.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the patch has a precondition that no longer holds; [`Error::NotFound`] when there is
    /// no such Secret.
    pub async fn merge(&self, name: &str, patch: &KeyPatch) -> Result<(), Error> {
        if patch.form() == Form::Add {
            let body = (JSON_PATCH, wire::add_patch(patch));
            return self.write(&self.on_secret(Verb::Patch, name, "", Some(body), Replay::Safe)).await;
        }
        let body = self.merge_body(name, patch);
        let query = format!("?fieldManager={}", encoded(patch.manager()));
        // With a precondition a repeated patch would meet its own first success as a conflict.
        let replay = if patch.resource_version().is_some() { Replay::Unsent } else { Replay::Safe };
        self.write(&self.on_secret(Verb::Patch, name, &query, Some((STRATEGIC_MERGE, body)), replay)).await
    }

    /// The body that [`merge`](Self::merge) sends for `patch`: what `kubectl patch --type strategic` takes.
    pub fn merge_body(&self, name: &str, patch: &KeyPatch) -> serde_json::Value {
        wire::merge_patch(self.namespace(), name, patch)
    }

    /// Removes one key (JSON patch). An answer of 422 means that it was not there.
    pub async fn remove_key(&self, name: &str, key: &str) -> Result<Removal, Error> {
        let body = json!([{ "op": "remove", "path": wire::data_pointer(key) }]);
        match self.write(&self.on_secret(Verb::Patch, name, "", Some((JSON_PATCH, body)), Replay::Safe)).await {
            Ok(()) => Ok(Removal::Removed),
            Err(Error::Invalid { .. }) => Ok(Removal::WasAbsent),
            Err(error) => Err(error),
        }
    }

    /// Creates the Secret with the keys that `content` sets.
    ///
    /// # Errors
    /// [`Error::Conflict`] when it exists.
    pub async fn create_secret(&self, name: &str, content: &KeyPatch) -> Result<(), Error> {
        let create = Call {
            verb: Verb::Create,
            resource: Resource::Secrets,
            name: Some(name),
            target: format!("{}?fieldManager={}", self.secrets_path(), encoded(content.manager())),
            body: Some((JSON, wire::new_secret(self.namespace(), name, content))),
            replay: Replay::Unsent,
        };
        self.write(&create).await
    }

    /// Follows the Secret `name` from now on.
    pub fn watch_secret(&self, name: &str) -> watch::SecretWatch {
        watch::SecretWatch::new(self.clone(), name.to_owned())
    }

    fn secrets_path(&self) -> String {
        format!("/api/v1/namespaces/{}/secrets", encoded(self.namespace()))
    }

    fn on_secret<'a>(
        &self,
        verb: Verb,
        name: &'a str,
        query: &str,
        body: Option<(&'static str, serde_json::Value)>,
        replay: Replay,
    ) -> Call<'a> {
        let target = format!("{}/{}{query}", self.secrets_path(), encoded(name));
        Call { verb, resource: Resource::Secrets, name: Some(name), target, body, replay }
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("server", &self.inner.server)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

const JSON: &str = "application/json";
const JSON_PATCH: &str = "application/json-patch+json";
const STRATEGIC_MERGE: &str = "application/strategic-merge-patch+json";

/// One path segment or query value; names that Kubernetes accepts come out as they are.
fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a `String` cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_segment() {
        assert_eq!(encoded("ts-0.a_b"), "ts-0.a_b");
        assert_eq!(encoded("../x?y=1#z"), "..%2Fx%3Fy%3D1%23z");
    }
}
