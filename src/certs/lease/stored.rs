//! The record of an election as a Lease in the cluster.
//!
//! What others put on the object stays on it. A failure is said once, and when it has passed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;

use super::run::Store;
use super::{Answer, Ask, Record, document};
use crate::backoff::jitter;
use crate::causes::chain;
use crate::k8s::{Cluster, Error, Resource, RoleRule, Verb};

/// A Lease by name, in the Pod's namespace.
#[derive(Debug)]
pub struct StoredLease {
    cluster: Cluster,
    name: String,
    /// As it was last read or written: what an update replaces.
    object: Mutex<Option<Value>>,
    failing: AtomicBool,
}

impl StoredLease {
    /// `tailpod-certs-<group>`.
    pub fn of_group(cluster: Cluster, group: &str) -> Self {
        let name = format!("tailpod-certs-{group}");
        Self { cluster, name, object: Mutex::new(None), failing: AtomicBool::new(false) }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The rules that are missing from the Pod's Role; none when it may take part. Rights that cannot be asked about are
    /// taken to be there: the election will tell.
    pub async fn missing_rules(&self) -> Vec<RoleRule> {
        let named = Some(self.name.as_str());
        let mut missing = Vec::new();
        for (verb, name) in [(Verb::Get, named), (Verb::Create, None), (Verb::Update, named)] {
            if let Ok(false) = self.cluster.may(verb, Resource::Leases, name).await {
                missing.push(RoleRule::new(Resource::Leases, name, [verb]));
            }
        }
        missing
    }

    async fn attempt(&self, ask: &Ask, deadline: Instant) -> Result<Answer, Error> {
        let cluster = self.cluster.until(deadline);
        match ask {
            Ask::Read => {
                Ok(cluster.lease(&self.name).await?.map_or(Answer::Absent, |lease| self.read(lease, Answer::Found)))
            }
            Ask::Create(record) => {
                let lease = document::create(cluster.namespace(), &self.name, record);
                Ok(self.read(cluster.create_lease(&lease).await?, Answer::Written))
            }
            Ask::Update(record) => {
                let known = self.object().clone().unwrap_or(Value::Null);
                let lease = document::replace(&known, record);
                match cluster.update_lease(&self.name, &lease).await {
                    Ok(lease) => Ok(self.read(lease, Answer::Written)),
                    Err(Error::NotFound { .. }) => Ok(Answer::Absent),
                    Err(error) => Err(error),
                }
            }
        }
    }

    /// Keeps the object for the next update; what is no Lease counts as not answered.
    fn read(&self, lease: Value, answer: impl FnOnce(Record) -> Answer) -> Answer {
        let read = document::read(&lease).map_or(Answer::Failed, answer);
        *self.object() = Some(lease);
        read
    }

    fn object(&self) -> std::sync::MutexGuard<'_, Option<Value>> {
        self.object.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for StoredLease {
    async fn serve(&self, ask: Ask, deadline: Instant) -> Answer {
        let answer = match self.attempt(&ask, deadline).await {
            Err(Error::Conflict { .. }) => Ok(Answer::Conflict),
            other => other,
        };
        let lease = self.name.as_str();
        match answer {
            Ok(answer) => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!(lease, "the Lease of certificates can be used again");
                }
                answer
            }
            Err(error) => {
                if self.failing.swap(true, Ordering::Relaxed) {
                    tracing::debug!(lease, error = chain(&error), "the Lease of certificates still cannot be used");
                } else {
                    let rule = error.missing_rule().map(|rule| rule.to_string());
                    tracing::warn!(lease, error = chain(&error), rule, "the Lease of certificates cannot be used");
                }
                Answer::Failed
            }
        }
    }

    fn wall(&self) -> Timestamp {
        Timestamp::now()
    }

    fn chance(&self) -> f64 {
        jitter()
    }
}
