//! Events on our Pod: best effort, in the shape that upstream's state store uses.
//!
//! One Event per Pod and reason; a repeated one only counts up. Follows `kube/kubeclient/client.go` (`Event`).

use serde_json::{Value, json};

use super::error::{Error, Resource, Verb};
use super::request::{Call, Replay};
use super::{Cluster, JSON, JSON_PATCH, encoded};

/// The Pod an Event is about. It is in the cluster's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRef {
    /// `POD_NAME`
    pub name: String,
    /// `POD_UID`
    pub uid: String,
}

/// How urgent an Event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// For information.
    Normal,
    /// Somebody should look.
    Warning,
}

/// Something worth showing in `kubectl describe pod`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodEvent {
    /// How urgent.
    pub kind: EventKind,
    /// One CamelCase word that machines match on.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}

impl EventKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

impl Cluster {
    /// Records `event` on `pod`, or counts the one that is there up.
    ///
    /// # Errors
    /// Any; the caller logs it at most, an Event is never worth more.
    pub async fn emit_event(&self, pod: &PodRef, event: &PodEvent) -> Result<(), Error> {
        let name = event_name(pod, event);
        let events = format!("/api/v1/namespaces/{}/events", encoded(self.namespace()));
        let one = format!("{events}/{}", encoded(&name));
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let call = |verb, target: &str, body| Call {
            verb,
            resource: Resource::Events,
            name: Some(name.as_str()),
            target: target.to_owned(),
            body,
            replay: if verb == Verb::Get { Replay::Safe } else { Replay::Unsent },
        };
        let existing = match self.call(&call(Verb::Get, &one, None)).await {
            Ok(body) => Some(count(&body)),
            Err(Error::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        let write = if let Some(count) = existing {
            call(Verb::Patch, &one, Some((JSON_PATCH, repeated(count, &now))))
        } else {
            let body = first(self.namespace(), self.inner.component, pod, event, &now);
            call(Verb::Create, &events, Some((JSON, body)))
        };
        self.call(&write).await?;
        Ok(())
    }
}

fn event_name(pod: &PodRef, event: &PodEvent) -> String {
    format!("{}.{}.{}", pod.name, pod.uid, event.reason.to_lowercase())
}

fn count(event: &[u8]) -> i64 {
    let event: Value = serde_json::from_slice(event).unwrap_or_default();
    event.get("count").and_then(Value::as_i64).unwrap_or(0)
}

fn repeated(count: i64, now: &str) -> Value {
    json!([
        { "op": "replace", "path": "/count", "value": count.saturating_add(1) },
        { "op": "replace", "path": "/lastTimestamp", "value": now },
    ])
}

fn first(namespace: &str, component: &str, pod: &PodRef, event: &PodEvent, now: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": { "name": event_name(pod, event), "namespace": namespace },
        "type": event.kind.as_str(),
        "reason": event.reason,
        "message": event.message,
        "source": { "component": component },
        "involvedObject": {
            "apiVersion": "v1", "kind": "Pod", "name": pod.name, "namespace": namespace, "uid": pod.uid,
        },
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_the_shape_of_upstreams() {
        let pod = PodRef { name: "ts-0".to_owned(), uid: "u1".to_owned() };
        let event = PodEvent { kind: EventKind::Warning, reason: "AuthKeyExpired".to_owned(), message: "m".to_owned() };
        let made = first("ns", "boot", &pod, &event, "2026-01-01T00:00:00Z");
        assert_eq!(made["metadata"]["name"], "ts-0.u1.authkeyexpired");
        assert_eq!(made["source"], json!({"component": "boot"}));
        assert_eq!(
            made["involvedObject"],
            json!({"apiVersion": "v1", "kind": "Pod", "name": "ts-0", "namespace": "ns", "uid": "u1"})
        );
        assert_eq!((&made["type"], &made["count"]), (&json!("Warning"), &json!(1)));
        assert_eq!(made["firstTimestamp"], made["lastTimestamp"]);
    }

    #[test]
    fn a_repeated_event_counts_up() {
        assert_eq!(count(br#"{"count":4}"#), 4);
        assert_eq!(count(b"{}"), 0);
        assert_eq!(repeated(4, "t")[0], json!({"op": "replace", "path": "/count", "value": 5}));
    }
}
