//! The API server's JSON, as far as we read and write it. Pure.
//!
//! Decoding is as lenient as Go's: anything may be absent or `null`, unknown members are ignored. Own shapes instead
//! of generated ones keep the binary small and let a Secret with a `null` value be read.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use super::error::{Resource, Verb};
use super::state::{KeyPatch, Owner, StateSecret, Writer};

/// Longest part of a server's text that goes into an error.
const SAID_LIMIT: usize = 300;

#[derive(Deserialize, Default)]
#[serde(default)]
struct SecretDoc {
    #[serde(deserialize_with = "null_default")]
    metadata: Metadata,
    #[serde(deserialize_with = "null_default")]
    data: BTreeMap<String, Option<String>>,
    r#type: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    name: Option<String>,
    resource_version: Option<String>,
    uid: Option<String>,
    creation_timestamp: Option<String>,
    #[serde(deserialize_with = "null_default")]
    labels: BTreeMap<String, Option<String>>,
    #[serde(deserialize_with = "null_default")]
    annotations: BTreeMap<String, Option<String>>,
    deletion_timestamp: Option<String>,
    r#continue: Option<String>,
    #[serde(deserialize_with = "null_default")]
    owner_references: Vec<OwnerDoc>,
    #[serde(deserialize_with = "null_default")]
    managed_fields: Vec<ManagedFields>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct OwnerDoc {
    kind: Option<String>,
    name: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ManagedFields {
    manager: Option<String>,
    operation: Option<String>,
    time: Option<String>,
    #[serde(rename = "fieldsV1", deserialize_with = "null_default")]
    fields: Map<String, Value>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ListDoc {
    #[serde(deserialize_with = "null_default")]
    metadata: Metadata,
    #[serde(deserialize_with = "null_default")]
    items: Vec<SecretDoc>,
}

#[derive(Deserialize)]
struct WatchDoc {
    r#type: String,
    object: Value,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct StatusDoc {
    message: Option<String>,
}

/// What one line of a watch says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum WatchLine {
    /// The object is like this now.
    Present(Box<StateSecret>),
    /// The object is gone; the version after that.
    Absent(Option<String>),
    /// Nothing happened up to this version.
    Bookmark(Option<String>),
    /// The server ends the watch (410 and the like).
    Ended,
}

/// One Secret.
pub(super) fn secret(body: &[u8]) -> Result<StateSecret, String> {
    let doc: SecretDoc = decode(body)?;
    doc.into_state()
}

/// The Secret called `name` out of a list, and the list's version.
pub(super) fn list(body: &[u8], name: &str) -> Result<(Option<StateSecret>, Option<String>), String> {
    let doc: ListDoc = decode(body)?;
    let version = doc.metadata.resource_version;
    let item = doc.items.into_iter().find(|item| item.metadata.name.as_deref() == Some(name));
    Ok((item.map(SecretDoc::into_state).transpose()?, version))
}

/// The Secrets of one answer, and where the next one begins.
pub(super) fn page(body: &[u8]) -> Result<(Vec<StateSecret>, Option<String>), String> {
    let doc: ListDoc = decode(body)?;
    let secrets = doc.items.into_iter().map(SecretDoc::into_state).collect::<Result<_, _>>()?;
    Ok((secrets, doc.metadata.r#continue.filter(|next| !next.is_empty())))
}

/// One line of a watch on one Secret.
pub(super) fn watch_line(line: &[u8]) -> Result<WatchLine, String> {
    let doc: WatchDoc = decode(line)?;
    if !matches!(doc.r#type.as_str(), "ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK") {
        return Ok(WatchLine::Ended);
    }
    let secret: SecretDoc = serde_json::from_value(doc.object).map_err(|error| error.to_string())?;
    Ok(match doc.r#type.as_str() {
        "DELETED" => WatchLine::Absent(secret.metadata.resource_version),
        "BOOKMARK" => WatchLine::Bookmark(secret.metadata.resource_version),
        _ => WatchLine::Present(Box::new(secret.into_state()?)),
    })
}

/// Whether an access review allows.
pub(super) fn allowed(body: &[u8]) -> Result<bool, String> {
    let doc: Value = decode(body)?;
    doc.pointer("/status/allowed").and_then(Value::as_bool).ok_or_else(|| "it has no `status.allowed`".to_owned())
}

/// What an answer that is not a success says, in one safe line; empty when it says nothing for people.
pub(super) fn said(body: &[u8]) -> String {
    let message = serde_json::from_slice::<StatusDoc>(body).ok().and_then(|status| status.message);
    one_line(&message.unwrap_or_default())
}

/// How an undecodable body begins, for an error text.
pub(super) fn head(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(40)]);
    one_line(&text)
}

/// An access review for `verb` on `resource`.
pub(super) fn access_review(namespace: &str, verb: Verb, resource: Resource, name: Option<&str>) -> Value {
    let mut attributes = json!({ "namespace": namespace, "resource": resource.plural(), "verb": verb.as_str() });
    if let Some(name) = name {
        attributes["name"] = name.into();
    }
    if !resource.group().is_empty() {
        attributes["group"] = resource.group().into();
    }
    json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": { "resourceAttributes": attributes },
    })
}

/// The body of a strategic merge patch.
pub(super) fn merge_patch(namespace: &str, name: &str, patch: &KeyPatch) -> Value {
    let data: Map<String, Value> = patch
        .changes()
        .map(|(key, value)| (key.to_owned(), value.map_or(Value::Null, |value| BASE64.encode(value).into())))
        .collect();
    let mut metadata = json!({ "name": name, "namespace": namespace });
    if let Some(version) = patch.resource_version() {
        metadata["resourceVersion"] = version.into();
    }
    json!({ "metadata": metadata, "data": data })
}

/// The same as a JSON patch. Deletions in `patch` have no meaning here and are left out.
pub(super) fn add_patch(patch: &KeyPatch) -> Value {
    let added = |(key, value): (&str, Option<&[u8]>)| {
        Some(json!({ "op": "add", "path": data_pointer(key), "value": BASE64.encode(value?) }))
    };
    patch.changes().filter_map(added).collect()
}

/// A new Secret. Deletions in `patch` have no meaning here and are left out.
pub(super) fn new_secret(namespace: &str, name: &str, patch: &KeyPatch) -> Value {
    let data: Map<String, Value> =
        patch.changes().filter_map(|(key, value)| Some((key.to_owned(), BASE64.encode(value?).into()))).collect();
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name, "namespace": namespace }, "data": data })
}

/// The path of `key` in a JSON patch (RFC 6901 escapes).
pub(super) fn data_pointer(key: &str) -> String {
    format!("/data/{}", key.replace('~', "~0").replace('/', "~1"))
}

impl StateSecret {
    /// The Secret that `document` describes: JSON as the API server sends it.
    ///
    /// # Errors
    /// What is wrong with it, without its content.
    pub fn from_document(document: &[u8]) -> Result<Self, String> {
        secret(document)
    }
}

impl SecretDoc {
    fn into_state(self) -> Result<StateSecret, String> {
        let mut data = BTreeMap::new();
        for (key, value) in self.data {
            // Go encodes a nil value as `null`; a reader sees an empty one.
            let value =
                BASE64.decode(value.unwrap_or_default()).map_err(|_| format!("the value of {key:?} is not base64"))?;
            data.insert(key, value);
        }
        let metadata = self.metadata;
        let texts = |texts: BTreeMap<String, Option<String>>| {
            texts.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect()
        };
        Ok(StateSecret {
            name: metadata.name,
            data,
            resource_version: metadata.resource_version,
            uid: metadata.uid,
            created: metadata.creation_timestamp,
            kind: self.r#type,
            labels: texts(metadata.labels),
            annotations: texts(metadata.annotations),
            is_stopping: metadata.deletion_timestamp.is_some(),
            owners: metadata
                .owner_references
                .into_iter()
                .map(|owner| Owner { kind: owner.kind.unwrap_or_default(), name: owner.name.unwrap_or_default() })
                .collect(),
            writers: metadata.managed_fields.into_iter().map(ManagedFields::into_writer).collect(),
        })
    }
}

impl ManagedFields {
    fn into_writer(self) -> Writer {
        let keys = match self.fields.get("f:data").and_then(Value::as_object) {
            None => Vec::new(),
            Some(data) if data.is_empty() => vec!["*".to_owned()],
            // `.` stands for the map itself.
            Some(data) => data.keys().filter_map(|key| key.strip_prefix("f:")).map(str::to_owned).collect(),
        };
        Writer {
            manager: self.manager.unwrap_or_default(),
            operation: self.operation.unwrap_or_default(),
            time: self.time,
            keys,
        }
    }
}

pub(super) fn decode<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
        None => "it is empty".to_owned(),
        Some(b'{') if error.is_eof() => "it is cut off".to_owned(),
        // serde_json's text shows where, never the value: a Secret's content must not get into a log.
        Some(b'{') => {
            format!("it is not the JSON that was expected (line {}, column {})", error.line(), error.column())
        }
        Some(_) => format!("it is not JSON; it begins with {:?}", head(body)),
    })
}

/// Checks the answer to a write, which is the object, or nothing at all; its end is not needed. Anything else comes
/// from somebody in between, and nothing was written.
pub(super) fn written(body: &[u8]) -> Result<(), String> {
    match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
        None | Some(b'{') => Ok(()),
        Some(_) => Err(format!("it is not JSON; it begins with {:?}", head(body))),
    }
}

fn one_line(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SAID_LIMIT).collect();
    line.trim().to_owned()
}

pub(super) fn null_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_answered_with_the_object_or_with_nothing() {
        for body in ["", "\n", "{}", "{\"metadata\":"] {
            assert_eq!(written(body.as_bytes()), Ok(()), "{body}");
        }
        let error = written(b"<html>log in</html>").expect_err("somebody in between");
        assert_eq!(error, "it is not JSON; it begins with \"<html>log in</html>\"");
    }

    #[test]
    fn a_secret_is_read_with_everything_that_may_be_missing() {
        assert_eq!(secret(b"{}"), Ok(StateSecret::default()));
        assert_eq!(secret(br#"{"metadata":null,"data":null}"#), Ok(StateSecret::default()));
        let read = secret(
            br#"{"kind":"Secret","metadata":{"name":"s","resourceVersion":"7","uid":"u","managedFields":[
              {"manager":"tailscale-container","operation":"Update","time":"2026-01-01T00:00:00Z",
               "fieldsV1":{"f:data":{".":{},"f:device_id":{}}}},
              {"manager":"argo","operation":"Apply","fieldsV1":{"f:data":{}}},
              {"manager":"labels","operation":"Update","fieldsV1":{"f:metadata":{}}}]},
              "data":{"a":"aGk=","b":"","c":null,"bin":"//4="}}"#,
        )
        .unwrap();
        assert_eq!(read.text("a"), Some("hi"));
        assert_eq!((read.text("b"), read.text("c"), read.text("bin")), (Some(""), Some(""), None));
        assert_eq!(read.resource_version.as_deref(), Some("7"));
        let writers: Vec<_> = read.writers.iter().map(|w| (w.manager.as_str(), w.keys.join(","))).collect();
        assert_eq!(
            writers,
            [("tailscale-container", "device_id".to_owned()), ("argo", "*".to_owned()), ("labels", String::new())]
        );
    }

    #[test]
    fn what_is_not_a_secret_says_why_without_showing_values() {
        for (body, reason) in [
            (&b""[..], "it is empty"),
            (b"  ", "it is empty"),
            (b"<html>\n<body>", "it is not JSON; it begins with \"<html> <body>\""),
            (br#"{"data":{"k":"aGk"#, "it is cut off"),
            (br#"{"data":{"k":"tskey-hush!"}}"#, "the value of \"k\" is not base64"),
            (br#"{"data":{"k":17}}"#, "it is not the JSON that was expected (line 1, column 15)"),
        ] {
            assert_eq!(secret(body).unwrap_err(), reason);
        }
    }

    #[test]
    fn patches_delete_with_null_and_store_empty_values() {
        let patch = KeyPatch::new().set("b", "").delete("gone").set("a", "hi");
        assert_eq!(
            merge_patch("ns", "s", &patch).to_string(),
            r#"{"data":{"a":"aGk=","b":"","gone":null},"metadata":{"name":"s","namespace":"ns"}}"#
        );
        let patch = KeyPatch::new().delete("x").only_if(Some("9".to_owned()));
        assert_eq!(
            merge_patch("ns", "s", &patch).to_string(),
            r#"{"data":{"x":null},"metadata":{"name":"s","namespace":"ns","resourceVersion":"9"}}"#
        );
        assert_eq!(data_pointer("authkey"), "/data/authkey");
        assert_eq!(data_pointer("a/b~c"), "/data/a~1b~0c");
    }

    #[test]
    fn access_reviews_have_the_shape_of_the_contract() {
        assert_eq!(
            access_review("ns", Verb::Get, Resource::Secrets, Some("s")),
            json!({"apiVersion":"authorization.k8s.io/v1","kind":"SelfSubjectAccessReview",
                   "spec":{"resourceAttributes":{"name":"s","namespace":"ns","resource":"secrets","verb":"get"}}})
        );
        assert!(access_review("ns", Verb::Get, Resource::Events, None)["spec"]["resourceAttributes"]["name"].is_null());
        assert_eq!(allowed(br#"{"status":{"allowed":true}}"#), Ok(true));
        assert_eq!(allowed(br#"{"status":{"allowed":false}}"#), Ok(false));
        assert!(allowed(b"{}").is_err());
    }

    #[test]
    fn watch_lines_are_told_apart() {
        let line =
            |kind: &str| format!(r#"{{"type":"{kind}","object":{{"metadata":{{"name":"s","resourceVersion":"3"}}}}}}"#);
        let version = Some("3".to_owned());
        assert_eq!(watch_line(line("DELETED").as_bytes()), Ok(WatchLine::Absent(version.clone())));
        assert_eq!(watch_line(line("BOOKMARK").as_bytes()), Ok(WatchLine::Bookmark(version.clone())));
        assert!(
            matches!(watch_line(line("MODIFIED").as_bytes()), Ok(WatchLine::Present(s)) if s.resource_version == version)
        );
        let gone = br#"{"type":"ERROR","object":{"kind":"Status","code":410}}"#;
        assert_eq!(watch_line(gone), Ok(WatchLine::Ended));
        assert!(watch_line(b"{").is_err());
    }

    #[test]
    fn a_list_is_searched_by_name() {
        let body = br#"{"metadata":{"resourceVersion":"5"},"items":[{"metadata":{"name":"other"}},{"metadata":{"name":"s"}}]}"#;
        let found = StateSecret { name: Some("s".to_owned()), ..StateSecret::default() };
        assert_eq!(list(body, "s"), Ok((Some(found), Some("5".to_owned()))));
        assert_eq!(
            list(br#"{"metadata":{"resourceVersion":"5"},"items":null}"#, "s"),
            Ok((None, Some("5".to_owned())))
        );
    }

    #[test]
    fn server_texts_become_one_safe_line() {
        assert_eq!(said(br#"{"kind":"Status","message":"no\n\u001b[31mway"}"#), "no  [31mway");
        assert_eq!(said(b"<html>secret backend page</html>"), "");
        assert_eq!(said(format!(r#"{{"message":"{}"}}"#, "x".repeat(5000)).as_bytes()).len(), SAID_LIMIT);
    }
}
