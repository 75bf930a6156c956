//! Events on our Pod, or on a Secret: best effort, in the shape that upstream's state store uses.
//!
//! One Event per object and reason; a repeated one counts up and tells the newest message. Follows `kube/kubeclient/client.go` (`Event`).

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

/// The object that an Event is about.
struct Involved<'a> {
    kind: &'static str,
    name: &'a str,
    uid: &'a str,
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
        self.emit(&Involved { kind: "Pod", name: &pod.name, uid: &pod.uid }, event).await
    }

    /// The same on the Secret `name`.
    ///
    /// # Errors
    /// As [`Self::emit_event`].
    pub async fn emit_secret_event(&self, name: &str, uid: &str, event: &PodEvent) -> Result<(), Error> {
        self.emit(&Involved { kind: "Secret", name, uid }, event).await
    }

    async fn emit(&self, object: &Involved<'_>, event: &PodEvent) -> Result<(), Error> {
        let name = event_name(object, event);
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
            call(Verb::Patch, &one, Some((JSON_PATCH, repeated(count, &now, &event.message))))
        } else {
            let body = first(self.namespace(), self.inner.component, object, event, &now);
            call(Verb::Create, &events, Some((JSON, body)))
        };
        self.call(&write).await?;
        Ok(())
    }
}

fn event_name(object: &Involved<'_>, event: &PodEvent) -> String {
    format!("{}.{}.{}", object.name, object.uid, event.reason.to_lowercase())
}

fn count(event: &[u8]) -> i64 {
    let event: Value = serde_json::from_slice(event).unwrap_or_default();
    event.get("count").and_then(Value::as_i64).unwrap_or(0)
}

fn repeated(count: i64, now: &str, message: &str) -> Value {
    json!([
        { "op": "replace", "path": "/count", "value": count.saturating_add(1) },
        { "op": "replace", "path": "/lastTimestamp", "value": now },
        { "op": "replace", "path": "/message", "value": message },
    ])
}

fn first(namespace: &str, component: &str, object: &Involved<'_>, event: &PodEvent, now: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": { "name": event_name(object, event), "namespace": namespace },
        "type": event.kind.as_str(),
        "reason": event.reason,
        "message": event.message,
        "source": { "component": component },
        "involvedObject": {
            "apiVersion": "v1", "kind": object.kind, "name": object.name, "namespace": namespace, "uid": object.uid,
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
        let pod = Involved { kind: "Pod", name: "ts-0", uid: "u1" };
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
        assert_eq!(repeated(4, "t", "m")[0], json!({"op": "replace", "path": "/count", "value": 5}));
    }
}
