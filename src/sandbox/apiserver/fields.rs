//! Who owns which field: `managedFields`, and server-side apply, which decides by them. Pure.
//!
//! Follows `structured-merge-diff` as far as the kinds here need it: maps and structures are owned field by field,
//! the lists that [`super::patch`] merges are owned entry by entry, every other list is one value. A field is a
//! path of `fieldsV1` keys: `f:data`, then `f:token`.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::patch::{is_set, merge_key};
use super::status::Status;

/// One field, as the `fieldsV1` keys that lead to it.
type Field = Vec<String>;

/// The key by which a container owns itself rather than what is in it.
const ITSELF: &str = ".";

/// Fields that belong to nobody: identity, and what the server writes.
const UNOWNED: &[&str] = &[
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "managedFields",
    "name",
    "namespace",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Maps with keys of the user's choice; structures do not own themselves.
const MAPS: &[&str] = &["annotations", "binaryData", "data", "labels", "stringData"];

/// Who writes, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    /// The field manager: `fieldManager` of the request, or the start of its user agent.
    pub manager: String,
    /// RFC 3339, whole seconds.
    pub now: String,
}

/// Whether server-side apply may take fields from their owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// No: a conflict is refused.
    No,
    /// Yes.
    Yes,
}

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    manager: String,
    operation: String,
    api_version: String,
    time: String,
    fields: BTreeSet<Field>,
}

impl Entry {
    fn is(&self, manager: &str, operation: &str) -> bool {
        self.manager == manager && self.operation == operation
    }

    /// How a conflict names it.
    fn describe(&self) -> String {
        if self.operation == "Update" {
            format!("{:?} using {} at {}", self.manager, self.api_version, self.time)
        } else {
            format!("{:?}", self.manager)
        }
    }
}

/// Gives `new` the `managedFields` it has after `writer` changed it from `old` by anything but apply.
pub fn record_update(old: Option<&Value>, new: &mut Value, writer: &Writer) {
    let before = old.map(owned_fields).unwrap_or_default();
    let after = owned_fields(new);
    let changed: BTreeSet<Field> = after
        .iter()
        .filter(|field| !before.contains(*field) || old.and_then(|old| get(old, field)) != get(new, field))
        .cloned()
        .collect();
    let gone: BTreeSet<Field> = before.difference(&after).cloned().collect();

    let mut entries = old.map(read).unwrap_or_default();
    for entry in &mut entries {
        let own = entry.is(&writer.manager, "Update");
        entry.fields.retain(|field| !gone.contains(field) && (own || !changed.contains(field)));
    }
    if !changed.is_empty() {
        let api_version = new["apiVersion"].as_str().unwrap_or_default().to_owned();
        let at = entries.iter().position(|entry| entry.is(&writer.manager, "Update")).unwrap_or_else(|| {
            entries.push(Entry {
                manager: writer.manager.clone(),
                operation: "Update".to_owned(),
                api_version,
                time: String::new(),
                fields: BTreeSet::new(),
            });
            entries.len() - 1
        });
        entries[at].time.clone_from(&writer.now);
        entries[at].fields.extend(changed);
    }
    write(new, entries);
}

/// Applies `config` (server-side apply) to `old`; the result carries the new `managedFields`.
///
/// # Errors
/// 409 when another manager owns a field that would change, unless forced.
pub fn apply(old: Option<&Value>, config: &Value, writer: &Writer, force: Force) -> Result<Value, Status> {
    let mut wanted = owned_fields(config);
    // Whoever applies owns what is in a map, not the map; of a merged list it owns the entries.
    wanted.retain(|field| !matches!(field.as_slice(), [.., of, last] if last == ITSELF && of.starts_with("f:")));
    let mut entries = old.map(read).unwrap_or_default();
    let position = entries.iter().position(|entry| entry.is(&writer.manager, "Apply"));
    let previous = position.map(|at| entries.remove(at));

    let mut conflicts = Vec::new();
    for entry in &mut entries {
        let lost: Vec<Field> = entry
            .fields
            .intersection(&wanted)
            .filter(|field| old.and_then(|old| get(old, field)) != get(config, field))
            .cloned()
            .collect();
        for field in lost {
            entry.fields.remove(&field);
            conflicts.push((entry.describe(), render(&field)));
        }
    }
    if !conflicts.is_empty() && force == Force::No {
        return Err(refuse(conflicts));
    }

    let mut new = old.cloned().unwrap_or_else(|| json!({}));
    let dropped = previous.as_ref().map(|entry| entry.fields.difference(&wanted)).into_iter().flatten();
    for field in dropped.filter(|field| !entries.iter().any(|entry| entry.fields.contains(*field))) {
        remove(&mut new, field);
    }
    overlay("", &mut new, config);

    let unchanged = previous.as_ref().is_some_and(|entry| entry.fields == wanted) && old == Some(&new);
    let time = previous.filter(|_| unchanged).map_or_else(|| writer.now.clone(), |entry| entry.time);
    let api_version = config["apiVersion"].as_str().unwrap_or_default().to_owned();
    let (manager, operation) = (writer.manager.clone(), "Apply".to_owned());
    let entry = Entry { manager, operation, api_version, time, fields: wanted };
    entries.insert(position.unwrap_or(0), entry);
    write(&mut new, entries);
    Ok(new)
}

fn refuse(conflicts: Vec<(String, String)>) -> Status {
    let message = if let [(owner, field)] = conflicts.as_slice() {
        format!("Apply failed with 1 conflict: conflict with {owner}: {field}")
    } else {
        let mut lines = Vec::new();
        let owners: BTreeSet<&String> = conflicts.iter().map(|(owner, _)| owner).collect();
        for owner in owners {
            lines.push(format!("conflicts with {owner}:"));
            lines.extend(conflicts.iter().filter(|(o, _)| o == owner).map(|(_, field)| format!("- {field}")));
        }
        format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
    };
    let causes: Vec<(String, String)> =
        conflicts.into_iter().map(|(owner, field)| (field, format!("conflict with {owner}"))).collect();
    Status::apply_conflict(message, &causes)
}

// === Reading and writing managedFields ===

fn read(object: &Value) -> Vec<Entry> {
    let entries = object["metadata"]["managedFields"].as_array().map_or(&[][..], Vec::as_slice);
    entries
        .iter()
        .map(|entry| {
            let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
            let mut fields = BTreeSet::new();
            collect_keys(&entry["fieldsV1"], &mut Vec::new(), &mut fields);
            let (manager, operation) = (text("manager"), text("operation"));
            Entry { manager, operation, api_version: text("apiVersion"), time: text("time"), fields }
        })
        .collect()
}

fn collect_keys(keys: &Value, path: &mut Field, fields: &mut BTreeSet<Field>) {
    match keys.as_object() {
        Some(map) if !map.is_empty() => {
            for (key, below) in map {
                path.push(key.clone());
                collect_keys(below, path, fields);
                path.pop();
            }
        }
        _ if path.is_empty() => {}
        _ => {
            fields.insert(path.clone());
        }
    }
}

fn write(object: &mut Value, entries: Vec<Entry>) {
    let entries: Vec<Value> = entries
        .into_iter()
        .filter(|entry| !entry.fields.is_empty())
        .map(|entry| {
            let mut keys = json!({});
            for field in &entry.fields {
                let mut at = &mut keys;
                for step in field {
                    at = &mut at[step];
                    if at.is_null() {
                        *at = json!({});
                    }
                }
            }
            json!({
                "manager": entry.manager, "operation": entry.operation, "apiVersion": entry.api_version,
                "time": entry.time, "fieldsType": "FieldsV1", "fieldsV1": keys,
            })
        })
        .collect();
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    object["metadata"]["managedFields"] = entries.into();
}

// === Fields of a document ===

/// Every field of `object` that somebody can own.
fn owned_fields(object: &Value) -> BTreeSet<Field> {
    let mut fields = BTreeSet::new();
    for (key, value) in object.as_object().into_iter().flatten() {
        match key.as_str() {
            "apiVersion" | "kind" => {}
            "metadata" => {
                let metadata = value.as_object().into_iter().flatten();
                for (key, value) in metadata.filter(|(key, _)| !UNOWNED.contains(&key.as_str())) {
                    collect(key, value, &vec!["f:metadata".to_owned(), format!("f:{key}")], &mut fields);
                }
            }
            _ => collect(key, value, &vec![format!("f:{key}")], &mut fields),
        }
    }
    fields
}

fn collect(name: &str, value: &Value, path: &Field, fields: &mut BTreeSet<Field>) {
    let step = |path: &Field, step: String| path.iter().cloned().chain([step]).collect::<Field>();
    match value {
        Value::Object(map) if !map.is_empty() => {
            if MAPS.contains(&name) {
                fields.insert(step(path, ITSELF.to_owned()));
            }
            for (key, value) in map {
                collect(key, value, &step(path, format!("f:{key}")), fields);
            }
        }
        Value::Array(list) if merge_key(name).is_some() && !list.is_empty() => {
            for entry in list {
                let path = step(path, entry_step(name, entry));
                fields.insert(step(&path, ITSELF.to_owned()));
                collect("", entry, &path, fields);
            }
        }
        Value::Array(list) if is_set(name) && !list.is_empty() => {
            fields.extend(list.iter().map(|entry| step(path, format!("v:{entry}"))));
        }
        _ => {
            fields.insert(path.clone());
        }
    }
}

/// `k:{"uid":"1"}` for an entry of the merged list `name`.
fn entry_step(name: &str, entry: &Value) -> String {
    let mut id = Map::new();
    if let Some(key) = merge_key(name) {
        id.insert(key.to_owned(), entry[key].clone());
    }
    format!("k:{}", Value::Object(id))
}

/// The index of the list entry that `step` (`k:…` or `v:…`) names.
fn find_entry(list: &[Value], step: &str) -> Option<usize> {
    let (kind, text) = step.split_at_checked(2)?;
    let id: Value = serde_json::from_str(text).ok()?;
    list.iter().position(|entry| match kind {
        "k:" => id.as_object().is_some_and(|id| id.iter().all(|(key, value)| &entry[key] == value)),
        _ => *entry == id,
    })
}

/// The value of a field; a container's own existence is `true`.
fn get(object: &Value, field: &[String]) -> Option<Value> {
    let Some((step, rest)) = field.split_first() else { return Some(object.clone()) };
    if step == ITSELF {
        return Some(true.into());
    }
    match (object, step.strip_prefix("f:")) {
        (Value::Object(map), Some(key)) => get(map.get(key)?, rest),
        (Value::Array(list), None) => get(&list[find_entry(list, step)?], rest),
        _ => None,
    }
}

/// Removes a field and every container it leaves empty.
fn remove(object: &mut Value, field: &[String]) {
    let Some((step, rest)) = field.split_first() else { return };
    let is_empty = |value: &Value| match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    };
    match (object, step.strip_prefix("f:")) {
        (Value::Object(map), Some(key)) => {
            if let Some(below) = map.get_mut(key) {
                remove(below, rest);
                if rest.is_empty() || is_empty(below) {
                    map.remove(key);
                }
            }
        }
        (Value::Array(list), None) => {
            if let Some(at) = find_entry(list, step) {
                if rest.is_empty() || rest[0] == ITSELF {
                    list.remove(at);
                } else {
                    remove(&mut list[at], rest);
                }
            }
        }
        _ => {}
    }
}

/// Lays `config` over `object`: what it names is set, everything else stays.
fn overlay(name: &str, object: &mut Value, config: &Value) {
    match (object, config) {
        (Value::Object(map), Value::Object(config)) => {
            for (key, value) in config.iter().filter(|(_, value)| !value.is_null()) {
                match map.get_mut(key) {
                    Some(old) => overlay(key, old, value),
                    None => drop(map.insert(key.clone(), value.clone())),
                }
            }
        }
        (Value::Array(list), Value::Array(config)) if merge_key(name).is_some() => {
            for entry in config {
                match find_entry(list, &entry_step(name, entry)) {
                    Some(at) => overlay("", &mut list[at], entry),
                    None => list.push(entry.clone()),
                }
            }
        }
        (Value::Array(list), Value::Array(config)) if is_set(name) => {
            for entry in config {
                if !list.contains(entry) {
                    list.push(entry.clone());
                }
            }
        }
        (object, config) => *object = config.clone(),
    }
}

/// A field as conflicts show it: `.data.token`.
fn render(field: &[String]) -> String {
    let steps = field.iter().map(|step| match step.split_at_checked(2) {
        Some(("f:", name)) => format!(".{name}"),
        Some(("v:", value)) => format!("[={value}]"),
        Some(("k:", id)) => {
            let id: Map<String, Value> = serde_json::from_str(id).unwrap_or_default();
            let keys: Vec<String> = id.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("[{}]", keys.join(","))
        }
        _ => String::new(),
    });
    steps.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(manager: &str) -> Writer {
        Writer { manager: manager.to_owned(), now: "2026-11-21T09:00:00Z".to_owned() }
    }

    #[expect(clippy::needless_pass_by_value, reason = "called with `json!`")]
    fn secret(data: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}, "data": data, "type": "Opaque"})
    }

    fn owners(object: &Value) -> Vec<(String, String, Value)> {
        let entries = object["metadata"]["managedFields"].as_array().unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        entries.iter().map(|e| (text(&e["manager"]), text(&e["operation"]), e["fieldsV1"].clone())).collect()
    }

    fn owner(manager: &str, operation: &str, fields: Value) -> (String, String, Value) {
        (manager.to_owned(), operation.to_owned(), fields)
    }

    #[test]
    fn a_write_takes_what_it_changes_and_nothing_else() {
        let mut first = secret(json!({"a": "1", "b": "2"}));
        record_update(None, &mut first, &writer("one"));
        assert_eq!(
            owners(&first),
            [owner("one", "Update", json!({"f:data": {".": {}, "f:a": {}, "f:b": {}}, "f:type": {}}))]
        );
        let mut second = secret(json!({"a": "changed", "c": "3"}));
        record_update(Some(&first), &mut second, &writer("two"));
        assert_eq!(
            owners(&second),
            [
                owner("one", "Update", json!({"f:data": {".": {}}, "f:type": {}})),
                owner("two", "Update", json!({"f:data": {"f:a": {}, "f:c": {}}})),
            ]
        );
        let mut same = secret(json!({"a": "changed", "c": "3"}));
        record_update(Some(&second), &mut same, &writer("three"));
        assert_eq!(owners(&same), owners(&second));
    }

    #[test]
    fn apply_sets_shares_and_removes() {
        let first = apply(None, &secret(json!({"a": "1", "b": "2"})), &writer("one"), Force::No).unwrap();
        assert_eq!(owners(&first), [owner("one", "Apply", json!({"f:data": {"f:a": {}, "f:b": {}}, "f:type": {}}))]);

        let shared = apply(Some(&first), &secret(json!({"b": "2"})), &writer("two"), Force::No).unwrap();
        assert_eq!(shared["data"], json!({"a": "1", "b": "2"}));
        assert_eq!(owners(&shared).len(), 2);

        // `one` gives up both: `a` was its alone and goes, `b` is still wanted by `two`.
        let config = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}, "type": "Opaque"});
        let fewer = apply(Some(&shared), &config, &writer("one"), Force::No).unwrap();
        assert_eq!(fewer["data"], json!({"b": "2"}));
        let again = apply(Some(&fewer), &config, &Writer { now: "later".into(), ..writer("one") }, Force::No).unwrap();
        assert_eq!(again, fewer, "applying the same again changes nothing");
    }

    #[test]
    fn apply_conflicts_until_forced() {
        let mut live = secret(json!({"a": "1", "b": "2"}));
        record_update(None, &mut live, &writer("owner"));
        let config = secret(json!({"a": "mine", "b": "2"}));
        let status = apply(Some(&live), &config, &writer("other"), Force::No).unwrap_err();
        assert_eq!(status.code, 409);
        assert_eq!(
            status.message,
            "Apply failed with 1 conflict: conflict with \"owner\" using v1 at 2026-11-21T09:00:00Z: .data.a"
        );
        assert_eq!(status.details["causes"][0]["reason"], "FieldManagerConflict");
        assert_eq!(status.details["causes"][0]["field"], ".data.a");

        let forced = apply(Some(&live), &config, &writer("other"), Force::Yes).unwrap();
        assert_eq!(forced["data"], json!({"a": "mine", "b": "2"}));
        assert!(owners(&forced).contains(&owner(
            "owner",
            "Update",
            json!({"f:data": {".": {}, "f:b": {}}, "f:type": {}})
        )));

        let both = apply(Some(&live), &secret(json!({"a": "x", "b": "y"})), &writer("other"), Force::No).unwrap_err();
        assert_eq!(
            both.message,
            "Apply failed with 2 conflicts: conflicts with \"owner\" using v1 at 2026-11-21T09:00:00Z:\n- .data.a\n- .data.b"
        );
    }

    #[test]
    fn merged_lists_are_owned_entry_by_entry() {
        let with = |uid: &str, name: &str| {
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x",
                "finalizers": [format!("f/{uid}")], "ownerReferences": [{"uid": uid, "name": name}]}})
        };
        let first = apply(None, &with("1", "one"), &writer("one"), Force::No).unwrap();
        let second = apply(Some(&first), &with("2", "two"), &writer("two"), Force::No).unwrap();
        assert_eq!(second["metadata"]["ownerReferences"].as_array().unwrap().len(), 2);
        assert_eq!(second["metadata"]["finalizers"], json!(["f/1", "f/2"]));
        let status = apply(Some(&second), &with("1", "uno"), &writer("two"), Force::No).unwrap_err();
        assert!(status.message.ends_with(".metadata.ownerReferences[uid=\"1\"].name"), "{}", status.message);
        let config = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}});
        let gone = apply(Some(&second), &config, &writer("one"), Force::No).unwrap();
        assert_eq!(gone["metadata"]["ownerReferences"], json!([{"uid": "2", "name": "two"}]));
        assert_eq!(gone["metadata"]["finalizers"], json!(["f/2"]));
    }
}
