//! A Lease as the API server has it. Pure.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Record;

/// The object for `record`: without a `resourceVersion` when it has none, so that it can be created.
pub fn write(namespace: &str, name: &str, record: &Record) -> Value {
    let mut metadata = json!({"namespace": namespace, "name": name});
    if !record.version.is_empty() {
        metadata["resourceVersion"] = record.version.as_str().into();
    }
    // Below a second would be zero, which the API server refuses.
    let seconds = record.duration.as_secs_f64().ceil().max(1.0);
    #[expect(clippy::cast_possible_truncation, reason = "a Lease lasts seconds to minutes")]
    let seconds = seconds as i32;
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": metadata,
        "spec": {
            "holderIdentity": record.holder,
            "leaseDurationSeconds": seconds,
            "acquireTime": record.acquired.map(micro_time),
            "renewTime": record.renewed.map(micro_time),
            "leaseTransitions": record.transitions,
        },
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
        let object = write("ns", "tailpod-certs-pg", &record);
        assert_eq!(object["spec"]["renewTime"], "2026-01-01T00:00:00.500000Z");
        assert_eq!(read(&object), Some(record.clone()));
        let new = write("ns", "x", &Record { version: String::new(), duration: Duration::from_millis(1), ..record });
        assert!(new["metadata"].get("resourceVersion").is_none());
        assert_eq!(new["spec"]["leaseDurationSeconds"], 1);
        assert_eq!(read(&json!({"metadata": {}})), None);
        let empty = read(&json!({"metadata": {"resourceVersion": "1"}})).unwrap();
        assert!(empty.holder.is_empty() && empty.duration.is_zero());
    }
}
