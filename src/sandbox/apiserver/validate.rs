//! What the API server accepts: decoding into a kind, and the kind's own rules. Pure.
//!
//! Only rules that a client of ours could break are here; texts are those of upstream's
//! `pkg/apis/core/validation/validation.go`. [`decode`] answers "is this such an object at all" (400), [`check`]
//! answers "is it a good one" (422).

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value, json};

use super::resources::Resource;
use super::status::{FieldProblem, Status};

/// Most bytes in the values of one Secret or ConfigMap (`MaxSecretSize`).
pub const MAX_SECRET: usize = 1 << 20;

/// Go's `base64.StdEncoding`: padded, canonical or not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
    '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

const DATA_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name', \
     or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

/// Brings `object` into the one form it is stored in: kind and version filled in, `stringData` folded into `data`,
/// base64 canonical, empty maps left out.
///
/// # Errors
/// The reason why it is not such an object, without a status: it is 400 for a body, 422 for a patch.
pub fn decode(resource: &Resource, object: &mut Value) -> Result<(), String> {
    let Value::Object(map) = object else { return Err(format!("not a {} object", resource.kind)) };
    for (field, expected) in [("kind", resource.kind.to_owned()), ("apiVersion", resource.api_version())] {
        match map.get(field) {
            None | Some(Value::Null) => {}
            Some(given) if *given == *expected => {}
            Some(given) => {
                return Err(format!(
                    "the {field} in the data ({given}) does not match the expected {field} ({expected})"
                ));
            }
        }
        map.insert(field.to_owned(), expected.into());
    }
    let metadata = map.entry("metadata").or_insert_with(|| json!({}));
    let Value::Object(metadata) = metadata else { return Err("metadata is not an object".to_owned()) };
    metadata.retain(|_, value| !value.is_null());
    for field in ["labels", "annotations"] {
        string_map(metadata, field, "metadata.")?;
    }
    metadata.retain(|_, value| !is_empty(value));

    match resource.kind {
        "Secret" => decode_secret(map)?,
        "ConfigMap" => string_map(map, "data", "")?,
        "Event" => times(
            map,
            "",
            &[("firstTimestamp", Time::Plain), ("lastTimestamp", Time::Plain), ("eventTime", Time::Micro)],
        )?,
        "Lease" => {
            if let Some(Value::Object(spec)) = map.get("spec") {
                times(spec, "spec.", &[("acquireTime", Time::Micro), ("renewTime", Time::Micro)])?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn decode_secret(map: &mut Map<String, Value>) -> Result<(), String> {
    // A typed server forgets what a Secret does not have.
    map.retain(|key, value| {
        !value.is_null()
            && matches!(key.as_str(), "apiVersion" | "kind" | "metadata" | "data" | "stringData" | "type" | "immutable")
    });
    string_map(map, "stringData", "")?;
    let strings = map.remove("stringData").and_then(|strings| strings.as_object().cloned()).unwrap_or_default();
    let mut data = match map.remove("data") {
        None => Map::new(),
        Some(Value::Object(data)) => data,
        Some(_) => return Err("cannot unmarshal data into a map of base64 texts".to_owned()),
    };
    for (key, value) in &mut data {
        let bytes = match value {
            Value::Null => Vec::new(),
            Value::String(text) => {
                let text = text.replace(['\r', '\n'], "");
                BASE64.decode(text).map_err(|_| format!("illegal base64 data in data[{key}]"))?
            }
            _ => return Err(format!("data[{key}] is not a base64 text")),
        };
        *value = BASE64.encode(bytes).into();
    }
    for (key, value) in strings {
        data.insert(key, BASE64.encode(value.as_str().unwrap_or_default()).into());
    }
    if !data.is_empty() {
        map.insert("data".to_owned(), data.into());
    }
    if map.get("type").is_none_or(|kind| kind == "") {
        map.insert("type".to_owned(), "Opaque".into());
    }
    Ok(())
}

fn string_map(map: &mut Map<String, Value>, field: &str, prefix: &str) -> Result<(), String> {
    match map.get_mut(field) {
        None => {}
        Some(Value::Object(entries)) => {
            for (key, value) in entries.iter_mut() {
                match value {
                    Value::String(_) => {}
                    Value::Null => *value = "".into(),
                    _ => return Err(format!("{prefix}{field}[{key}] is not a text")),
                }
            }
            if entries.is_empty() {
                map.remove(field);
            }
        }
        Some(Value::Null) => drop(map.remove(field)),
        Some(_) => return Err(format!("{prefix}{field} is not a map of texts")),
    }
    Ok(())
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Time {
    /// Go's `metav1.Time`: any fraction.
    Plain,
    /// Go's `metav1.MicroTime`: exactly six digits, or it does not parse.
    Micro,
}

fn times(map: &Map<String, Value>, prefix: &str, fields: &[(&str, Time)]) -> Result<(), String> {
    for (field, kind) in fields {
        let text = match map.get(*field) {
            None | Some(Value::Null) => continue,
            Some(Value::String(text)) => text,
            Some(_) => return Err(format!("{prefix}{field} is not a time")),
        };
        let digits = text.split_once('.').map_or(0, |(_, rest)| rest.bytes().take_while(u8::is_ascii_digit).count());
        if text.parse::<jiff::Timestamp>().is_err() || !text.contains('T') {
            return Err(format!("{prefix}{field}: cannot parse {text:?} as RFC 3339"));
        }
        if *kind == Time::Micro && digits != 6 {
            return Err(format!(
                "{prefix}{field}: parsing time {text:?} as \"2006-01-02T15:04:05.000000Z07:00\": not microseconds"
            ));
        }
    }
    Ok(())
}

/// Checks a decoded object; `old` is what it replaces.
///
/// # Errors
/// 422 with every problem.
pub fn check(resource: &Resource, object: &Value, old: Option<&Value>) -> Result<(), Status> {
    let mut problems = Vec::new();
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    check_name(name, &mut problems);
    match resource.kind {
        "Secret" | "ConfigMap" => {
            check_data(resource, object, &mut problems);
            if let Some(old) = old {
                check_data_change(resource, object, old, &mut problems);
            }
        }
        "Event" => {
            let (event, about) = (&object["metadata"]["namespace"], &object["involvedObject"]["namespace"]);
            if event != about && !(about.as_str().unwrap_or_default().is_empty() && event == "default") {
                let why = "does not match event.namespace";
                problems.push(FieldProblem::invalid(
                    "involvedObject.namespace",
                    &about.as_str().unwrap_or_default().into(),
                    why,
                ));
            }
        }
        "Lease" => {
            let spec = &object["spec"];
            for (field, least, why) in [
                ("leaseDurationSeconds", 1, "must be greater than 0"),
                ("leaseTransitions", 0, "must be greater than or equal to 0"),
            ] {
                if spec[field].as_i64().is_some_and(|value| value < least) {
                    problems.push(FieldProblem::invalid(format!("spec.{field}"), &spec[field], why));
                }
            }
        }
        _ => {}
    }
    if problems.is_empty() { Ok(()) } else { Err(Status::invalid(resource.group, resource.kind, name, &problems)) }
}

fn check_name(name: &str, problems: &mut Vec<FieldProblem>) {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let label = |label: &str| {
        label.starts_with(alphanumeric)
            && label.ends_with(alphanumeric)
            && label.chars().all(|c| alphanumeric(c) || c == '-')
    };
    if name.is_empty() {
        problems.push(FieldProblem::required("metadata.name", "name or generateName is required"));
    } else if name.len() > 253 {
        problems.push(FieldProblem::invalid("metadata.name", &name.into(), "must be no more than 253 bytes"));
    } else if !name.split('.').all(label) {
        problems.push(FieldProblem::invalid("metadata.name", &name.into(), SUBDOMAIN));
    }
}

fn check_data(resource: &Resource, object: &Value, problems: &mut Vec<FieldProblem>) {
    let mut size = 0;
    for field in ["data", "binaryData"] {
        for (key, value) in object[field].as_object().into_iter().flatten() {
            let text = value.as_str().unwrap_or_default();
            let is_base64 = resource.kind == "Secret" || field == "binaryData";
            size += if is_base64 { BASE64.decode(text).map_or(0, |bytes| bytes.len()) } else { text.len() };
            let at = format!("{field}[{key}]");
            if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)) {
                problems.push(FieldProblem::invalid(at, &key.as_str().into(), DATA_KEY));
            } else if key.len() > 253 {
                problems.push(FieldProblem::invalid(at, &key.as_str().into(), "must be no more than 253 bytes"));
            } else if key == "." || key.starts_with("..") {
                let why = if key == "." { "must not be '.'" } else { "must not start with '..'" };
                problems.push(FieldProblem::invalid(at, &key.as_str().into(), why));
            }
        }
    }
    if size > MAX_SECRET {
        problems.push(FieldProblem::too_long("data", MAX_SECRET));
    }
    if resource.kind == "Secret" && object["type"] == "kubernetes.io/tls" {
        for key in ["tls.crt", "tls.key"] {
            if object["data"].get(key).is_none() {
                problems.push(FieldProblem::required(format!("data[{key}]"), ""));
            }
        }
    }
}

fn check_data_change(resource: &Resource, object: &Value, old: &Value, problems: &mut Vec<FieldProblem>) {
    if resource.kind == "Secret" && object["type"] != old["type"] {
        problems.push(FieldProblem::invalid("type", &object["type"], "field is immutable"));
    }
    if old["immutable"] == true {
        for field in ["immutable", "data", "binaryData"] {
            if object[field] != old[field] {
                problems.push(FieldProblem::forbidden(field, "field is immutable when `immutable` is set"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "called with `json!`")]
    fn secret(fields: Value) -> Value {
        let mut object = json!({"metadata": {"name": "x"}});
        object.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        object
    }

    #[test]
    fn secrets_are_stored_in_one_form() {
        for (given, expected) in [
            (json!({}), json!({"type": "Opaque"})),
            (json!({"data": {}}), json!({"type": "Opaque"})),
            (json!({"data": {"a": null}}), json!({"type": "Opaque", "data": {"a": ""}})),
            (
                json!({"data": {"a": "YQ=="}, "stringData": {"b": "b"}}),
                json!({"type": "Opaque", "data": {"a": "YQ==", "b": "Yg=="}}),
            ),
            (json!({"data": {"a": "YQ\n=="}, "junk": 1}), json!({"type": "Opaque", "data": {"a": "YQ=="}})),
            (json!({"type": "t", "stringData": {"a": ""}}), json!({"type": "t", "data": {"a": ""}})),
        ] {
            let mut object = secret(given.clone());
            decode(Resource::secrets(), &mut object).unwrap();
            let mut expected = secret(expected);
            expected["kind"] = "Secret".into();
            expected["apiVersion"] = "v1".into();
            assert_eq!(object, expected, "{given}");
        }
    }

    #[test]
    fn what_is_no_secret_is_not_decoded() {
        for bad in [
            json!({"data": {"a": "not base64"}}),
            json!({"data": {"a": "YQ"}}),
            json!({"data": {"a": 1}}),
            json!({"data": []}),
            json!({"stringData": {"a": 1}}),
            json!({"kind": "ConfigMap"}),
            json!({"apiVersion": "v2"}),
            json!({"metadata": {"name": "x", "labels": {"a": 1}}}),
            json!({"metadata": []}),
        ] {
            assert!(decode(Resource::secrets(), &mut secret(bad.clone())).is_err(), "{bad}");
        }
        assert!(decode(Resource::secrets(), &mut json!([])).is_err());
    }

    #[test]
    fn secret_rules() {
        let big = BASE64.encode(vec![0; MAX_SECRET]);
        for (given, field) in [
            (json!({}), None),
            (json!({"data": {"a": big}}), None),
            (json!({"data": {"a": big, "b": "YQ=="}}), Some("data")),
            (json!({"data": {"a b": ""}}), Some("data[a b]")),
            (json!({"data": {"..": ""}}), Some("data[..]")),
            (json!({"data": {"..data": ""}}), Some("data[..data]")),
            (json!({"data": {"a.b_c-D": ""}}), None),
            (json!({"metadata": {"name": "UPPER"}}), Some("metadata.name")),
            (json!({"metadata": {"name": "-a"}}), Some("metadata.name")),
            (json!({"metadata": {"name": "a..b"}}), Some("metadata.name")),
            (json!({"metadata": {"name": "a.b-c.9"}}), None),
            (json!({"metadata": {"name": "a".repeat(254)}}), Some("metadata.name")),
            (json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}), Some("data[tls.key]")),
        ] {
            let mut object = secret(given);
            decode(Resource::secrets(), &mut object).unwrap();
            let found = check(Resource::secrets(), &object, None).err();
            assert_eq!(found.as_ref().map(|status| status.code), field.map(|_| 422));
            assert_eq!(found.as_ref().and_then(|status| status.details["causes"][0]["field"].as_str()), field);
        }
    }

    #[test]
    fn some_changes_are_refused() {
        let old = json!({"metadata": {"name": "x"}, "type": "Opaque", "immutable": true, "data": {"a": "YQ=="}});
        for (change, field) in [
            (json!({}), None),
            (json!({"type": "other"}), Some("type")),
            (json!({"immutable": false}), Some("immutable")),
            (json!({"data": {"a": "Yg=="}}), Some("data")),
        ] {
            let mut new = old.clone();
            new.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            let found = check(Resource::secrets(), &new, Some(&old)).err();
            assert_eq!(found.as_ref().and_then(|status| status.details["causes"][0]["field"].as_str()), field);
        }
    }

    #[test]
    fn times_are_read_as_go_reads_them() {
        let lease = Resource::find("coordination.k8s.io", "v1", "leases").unwrap();
        for (time, good) in [
            ("2026-11-21T09:00:00.000000Z", true),
            ("2026-11-21T09:00:00.123456+01:00", true),
            ("2026-11-21T09:00:00Z", false),
            ("2026-11-21T09:00:00.123Z", false),
            ("2026-11-21T09:00:00.123456789Z", false),
            ("yesterday", false),
        ] {
            let mut object = json!({"metadata": {"name": "x"}, "spec": {"renewTime": time}});
            assert_eq!(decode(lease, &mut object).is_ok(), good, "{time}");
        }
        let event = Resource::find("", "v1", "events").unwrap();
        for (time, good) in [("2026-11-21T09:00:00Z", true), ("2026-11-21T09:00:00.5Z", true), ("2026-11-21", false)] {
            let mut object = json!({"metadata": {"name": "x"}, "firstTimestamp": time});
            assert_eq!(decode(event, &mut object).is_ok(), good, "{time}");
        }
    }

    #[test]
    fn events_belong_to_the_namespace_of_their_object() {
        let event = Resource::find("", "v1", "events").unwrap();
        for (namespace, about, good) in [
            ("ts", json!({"namespace": "ts"}), true),
            ("ts", json!({}), false),
            ("ts", json!({"namespace": "other"}), false),
            ("default", json!({}), true),
        ] {
            let object = json!({"metadata": {"name": "x", "namespace": namespace}, "involvedObject": about});
            assert_eq!(check(event, &object, None).is_ok(), good, "{object}");
        }
    }

    #[test]
    fn leases_have_positive_durations() {
        let lease = Resource::find("coordination.k8s.io", "v1", "leases").unwrap();
        for (spec, good) in [
            (json!({"leaseDurationSeconds": 15, "leaseTransitions": 0, "holderIdentity": "a"}), true),
            (json!({"leaseDurationSeconds": 0}), false),
            (json!({"leaseTransitions": -1}), false),
            // How a leader that leaves gives the Lease back.
            (json!({"holderIdentity": ""}), true),
        ] {
            let object = json!({"metadata": {"name": "x"}, "spec": spec});
            assert_eq!(check(lease, &object, None).is_ok(), good, "{object}");
        }
    }
}
