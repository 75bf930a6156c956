//! A Lease as the API server has it. Pure.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Record;

/// The object for `record`: a new one, without a `resourceVersion`, so that it can be created.
pub fn create(namespace: &str, name: &str, record: &Record) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"namespace": namespace, "name": name},
        "spec": spec(record),
    })
}

/// `object`, the version that `record` is to replace, with `record` in it: labels, owners and members that we do not
/// know stay.
pub fn replace(object: &Value, record: &Record) -> Value {
    let mut object = object.clone();
    object["metadata"]["resourceVersion"] = record.version.as_str().into();
    if !object["spec"].is_object() {
        object["spec"] = json!({});
    }
    if let Value::Object(spec) = spec(record) {
        for (member, value) in spec {
            object["spec"][member] = value;
        }
    }
    object
}

fn spec(record: &Record) -> Value {
    // Below a second would be zero, which the API server refuses.
    let seconds = record.duration.as_secs_f64().ceil().max(1.0);
    #[expect(clippy::cast_possible_truncation, reason = "a Lease lasts seconds to minutes")]
    let seconds = seconds as i32;
    json!({
        "holderIdentity": record.holder,
        "leaseDurationSeconds": seconds,
        "acquireTime": record.acquired.map(micro_time),
        "renewTime": record.renewed.map(micro_time),
        "leaseTransitions": record.transitions,
    })
}

/// Reads an object; `None` when it is no Lease.
pub fn read(object: &Value) -> Option<Record> {
    let version = object.get("metadata")?.get("resourceVersion")?.as_str()?.to_owned();
    let spec = object.get("spec").unwrap_or(&Value::Null);
    let time = |name: &str| spec.get(name).and_then(Value::as_str).and_then(|text| text.parse().ok());
    let seconds = spec.get("leaseDurationSeconds").and_then(Value::as_u64).unwrap_or_default();
    Some(Record {
        holder: spec.get("holderIdentity").and_then(Value::as_str).unwrap_or_default().to_owned(),
        duration: Duration::from_secs(seconds),
        acquired: time("acquireTime"),
        renewed: time("renewTime"),
        transitions: spec.get("leaseTransitions").and_then(Value::as_i64).unwrap_or_default(),
        version,
    })
}

/// Kubernetes' MicroTime: exactly six digits, or the API server refuses it.
fn micro_time(time: Timestamp) -> String {
    format!("{time:.6}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_the_api_server() {
        let time: Timestamp = "2026-01-01T00:00:00.5Z".parse().unwrap();
        let record = Record {
            holder: "pg-0_uid".to_owned(),
            duration: Duration::from_secs(60),
            acquired: Some(time),
            renewed: Some(time),
            transitions: 3,
            version: "17".to_owned(),
        };
        let new = create("ns", "x", &Record { duration: Duration::from_millis(1), ..record.clone() });
        assert!(new["metadata"].get("resourceVersion").is_none());
        assert_eq!(new["spec"]["leaseDurationSeconds"], 1);
        let labelled = json!({"metadata": {"labels": {"a": "b"}, "resourceVersion": "9"}, "spec": {"strategy": "x"}});
        let object = replace(&labelled, &record);
        assert_eq!(object["spec"]["renewTime"], "2026-01-01T00:00:00.500000Z");
        assert_eq!((&object["metadata"]["labels"]["a"], &object["spec"]["strategy"]), (&json!("b"), &json!("x")));
        assert_eq!(read(&object), Some(record.clone()));
        assert_eq!(read(&replace(&json!({"metadata": {}, "spec": null}), &record)), Some(record));
        assert_eq!(read(&json!({"metadata": {}})), None);
        let empty = read(&json!({"metadata": {"resourceVersion": "1"}})).unwrap();
        assert!(empty.holder.is_empty() && empty.duration.is_zero());
    }
}
