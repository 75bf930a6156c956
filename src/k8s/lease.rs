//! Leases, as documents: whoever holds an election reads and writes them.

use serde_json::Value;

use super::error::{Error, Resource, Verb};
use super::request::{Call, Replay};
use super::{Cluster, JSON, encoded, wire};

impl Cluster {
    /// The Lease `name`; `None` when there is none.
    pub async fn lease(&self, name: &str) -> Result<Option<Value>, Error> {
        let get = self.on_lease(Verb::Get, Some(name), None);
        match self.call(&get).await {
            Ok(body) => wire::decode(&body).map(Some).map_err(|reason| get.malformed(reason)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a new one; the Lease as it is then.
    ///
    /// # Errors
    /// [`Error::Conflict`] when there is one of that name.
    pub async fn create_lease(&self, lease: &Value) -> Result<Value, Error> {
        let create = self.on_lease(Verb::Create, None, Some(lease));
        let body = self.call(&create).await?;
        wire::decode(&body).map_err(|reason| create.malformed(reason))
    }

    /// Replaces the version that `lease` names; the Lease as it is then.
    ///
    /// # Errors
    /// [`Error::Conflict`] when it is not the present one.
    pub async fn update_lease(&self, name: &str, lease: &Value) -> Result<Value, Error> {
        let update = self.on_lease(Verb::Update, Some(name), Some(lease));
        let body = self.call(&update).await?;
        wire::decode(&body).map_err(|reason| update.malformed(reason))
    }

    fn on_lease<'a>(&self, verb: Verb, name: Option<&'a str>, body: Option<&Value>) -> Call<'a> {
        let leases = format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", encoded(self.namespace()));
        Call {
            verb,
            resource: Resource::Leases,
            name,
            target: name.map_or_else(|| leases.clone(), |name| format!("{leases}/{}", encoded(name))),
            body: body.map(|lease| (JSON, lease.clone())),
            // A write names its version: repeated, it would meet its own success as a conflict.
            replay: if verb == Verb::Get { Replay::Safe } else { Replay::Unsent },
        }
    }
}
