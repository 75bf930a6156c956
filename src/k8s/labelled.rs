//! The Secrets that have certain labels, with everything that is known of them; and their annotations.

use std::collections::BTreeMap;

use serde_json::json;

use super::error::{Error, Resource, Verb};
use super::request::{Call, Replay};
use super::state::StateSecret;
use super::{Cluster, encoded, wire};

/// Certificates, their keys and who wrote them are some 20 KiB each, and an answer has at most 8 MiB.
const PAGE: u32 = 100;
const MERGE: &str = "application/merge-patch+json";

impl Cluster {
    /// All Secrets of the namespace that `selector` selects (`key=value,...`), by name.
    ///
    /// # Errors
    /// [`Error::Denied`] for `list` on Secrets where the Role does not allow it.
    pub async fn secrets_with(&self, selector: &str) -> Result<Vec<StateSecret>, Error> {
        let mut secrets = Vec::new();
        let mut from = String::new();
        loop {
            let selector = encoded(selector);
            let list = Call {
                verb: Verb::List,
                resource: Resource::Secrets,
                name: None,
                target: format!("{}?labelSelector={selector}&limit={PAGE}{from}", self.secrets_path()),
                body: None,
                replay: Replay::Safe,
            };
            let body = self.call(&list).await?;
            let (page, next) = wire::page(&body).map_err(|reason| list.malformed(reason))?;
            secrets.extend(page);
            match next {
                Some(next) => from = format!("&continue={}", encoded(&next)),
                None => return Ok(secrets),
            }
        }
    }

    /// The Secret `name` by way of a list, which Roles of replicas allow where they do not allow to get it; `None` when
    /// there is none.
    ///
    /// # Errors
    /// [`Error::Denied`] for `list` on Secrets where the Role does not allow it.
    pub async fn listed_secret(&self, name: &str) -> Result<Option<StateSecret>, Error> {
        let list = Call {
            verb: Verb::List,
            resource: Resource::Secrets,
            name: Some(name),
            target: format!("{}?fieldSelector={}", self.secrets_path(), encoded(&format!("metadata.name={name}"))),
            body: None,
            replay: Replay::Safe,
        };
        let body = self.call(&list).await?;
        let (secret, _) = wire::list(&body, name).map_err(|reason| list.malformed(reason))?;
        Ok(secret)
    }

    /// Sets annotations of the Secret `name`; `None` removes one. With a `version`, only if that is the present one.
    ///
    /// # Errors
    /// [`Error::Conflict`] when it is not.
    pub async fn annotate_secret(
        &self,
        name: &str,
        annotations: &BTreeMap<&str, Option<String>>,
        version: Option<&str>,
    ) -> Result<(), Error> {
        let mut metadata = json!({ "annotations": annotations });
        if let Some(version) = version {
            metadata["resourceVersion"] = version.into();
        }
        let replay = if version.is_some() { Replay::Unsent } else { Replay::Safe };
        let body = json!({ "metadata": metadata });
        self.write(&self.on_secret(Verb::Patch, name, "?fieldManager=tailpod", Some((MERGE, body)), replay)).await
    }
}
