//! What only a diagnosis asks the API server: whether it is there, what time it has, who it takes us for, whether a
//! change would be accepted.
//!
//! Nothing here changes anything.

use std::time::Duration;

use hyper::header;
use serde::Deserialize;
use serde_json::json;

use super::error::{Cause, Error, Resource, Verb};
use super::request::{Call, Replay};
use super::state::KeyPatch;
use super::{Cluster, JSON, STRATEGIC_MERGE, encoded, wire};

/// Names that one page of a list has room for; completion needs no more.
const NAMES: u32 = 200;

/// The first answer of an API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// HTTP status; even a refusal proves that it is there.
    pub status: u16,
    /// The `Date` header.
    pub date: Option<String>,
}

/// Who the API server takes us for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// `system:serviceaccount:<namespace>:<name>` for a service account.
    pub username: String,
    /// Its groups.
    pub groups: Vec<String>,
}

impl Identity {
    /// Namespace and name of the service account, when it is one.
    pub fn service_account(&self) -> Option<(&str, &str)> {
        self.username.strip_prefix("system:serviceaccount:")?.split_once(':')
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ReviewDoc {
    #[serde(deserialize_with = "wire::null_default")]
    status: ReviewStatus,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ReviewStatus {
    #[serde(deserialize_with = "wire::null_default")]
    user_info: UserInfo,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct UserInfo {
    #[serde(deserialize_with = "wire::null_default")]
    username: String,
    #[serde(deserialize_with = "wire::null_default")]
    groups: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NamesDoc {
    #[serde(deserialize_with = "wire::null_default")]
    items: Vec<NamedDoc>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NamedDoc {
    #[serde(deserialize_with = "wire::null_default")]
    metadata: NameDoc,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NameDoc {
    #[serde(deserialize_with = "wire::null_default")]
    name: String,
}

impl Cluster {
    /// Connects, and takes any answer at all: one try of at most `limit`.
    ///
    /// # Errors
    /// [`Error::Unreachable`] with what was in the way.
    pub async fn greet(&self, limit: Duration) -> Result<Greeting, Error> {
        let call = Call {
            verb: Verb::Get,
            resource: Resource::SelfSubjectReviews,
            name: None,
            target: "/version".to_owned(),
            body: None,
            replay: Replay::Unsent,
        };
        let answer = tokio::time::timeout(limit, self.send(&call)).await;
        let response = answer.unwrap_or_else(|_| Err(self.unreachable(Cause::Timeout(limit))))?;
        let date = response.headers().get(header::DATE).and_then(|date| date.to_str().ok()).map(str::to_owned);
        Ok(Greeting { status: response.status().as_u16(), date })
    }

    /// Who the API server takes us for.
    ///
    /// # Errors
    /// [`Error::NotFound`] before Kubernetes 1.28; [`Error::Unauthorized`] when it does not know us.
    pub async fn whoami(&self) -> Result<Identity, Error> {
        let review = Call {
            verb: Verb::Create,
            resource: Resource::SelfSubjectReviews,
            name: None,
            target: "/apis/authentication.k8s.io/v1/selfsubjectreviews".to_owned(),
            body: Some((JSON, json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" }))),
            replay: Replay::Safe,
        };
        let body = self.call(&review).await?;
        let doc: ReviewDoc = wire::decode(&body).map_err(|reason| review.malformed(reason))?;
        let UserInfo { username, groups } = doc.status.user_info;
        Ok(Identity { username, groups })
    }

    /// [`merge`](Self::merge) as far as it goes without effect: access, validation and admission (`dryRun=All`).
    ///
    /// # Errors
    /// As `merge`.
    pub async fn rehearse_merge(&self, name: &str, patch: &KeyPatch) -> Result<(), Error> {
        let query = format!("?fieldManager={}&dryRun=All", encoded(patch.manager()));
        let body = Some((STRATEGIC_MERGE, self.merge_body(name, patch)));
        self.call(&self.on_secret(Verb::Patch, name, &query, body, Replay::Safe)).await?;
        Ok(())
    }

    /// The names of the namespace's Secrets, as many as one page holds.
    ///
    /// # Errors
    /// [`Error::Denied`] for `list` on Secrets where the Role does not allow it.
    pub async fn secret_names(&self) -> Result<Vec<String>, Error> {
        let list = Call {
            verb: Verb::List,
            resource: Resource::Secrets,
            name: None,
            target: format!("{}?limit={NAMES}", self.secrets_path()),
            body: None,
            replay: Replay::Safe,
        };
        let body = self.call(&list).await?;
        let doc: NamesDoc = wire::decode(&body).map_err(|reason| list.malformed(reason))?;
        Ok(doc.items.into_iter().map(|item| item.metadata.name).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_account_is_told_from_other_users() {
        let account = |username: &str| {
            let identity = Identity { username: username.to_owned(), groups: Vec::new() };
            identity.service_account().map(|(namespace, name)| format!("{namespace}/{name}"))
        };
        assert_eq!(account("system:serviceaccount:ns:proxy").as_deref(), Some("ns/proxy"));
        assert_eq!(account("alice@example.com"), None);
        assert_eq!(account("system:anonymous"), None);
    }
}
