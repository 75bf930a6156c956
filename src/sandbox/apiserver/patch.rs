//! The three patch types that change a document by a document: JSON patch, merge patch, strategic merge. Pure.
//!
//! Each follows what kube-apiserver does rather than what its standard says. JSON patch is RFC 6902 with the
//! leniency of upstream's `json-patch.v4`: `replace` of an absent object key adds it. The fourth type,
//! server-side apply, needs to know who owns what and lives in [`super::fields`].

use serde_json::{Map, Value};

use super::status::Status;

/// Most operations one JSON patch may have (`maxJSONPatchOperations` in upstream's `handlers/patch.go`).
const MAX_OPERATIONS: usize = 10_000;

/// Lists that strategic merge merges by a key instead of replacing (`patchMergeKey` in upstream's types).
const MERGE_KEYS: &[(&str, &str)] = &[
    ("conditions", "type"),
    ("containers", "name"),
    ("env", "name"),
    ("ephemeralContainers", "name"),
    ("imagePullSecrets", "name"),
    ("initContainers", "name"),
    ("ownerReferences", "uid"),
    ("ports", "containerPort"),
    ("secrets", "name"),
    ("volumeMounts", "mountPath"),
    ("volumes", "name"),
];

/// Lists of plain values that strategic merge treats as sets.
const MERGE_SETS: &[&str] = &["finalizers"];

/// The key by which entries of the list `field` are told apart; `None` for a list that is one value.
pub fn merge_key(field: &str) -> Option<&'static str> {
    MERGE_KEYS.iter().find(|(name, _)| *name == field).map(|(_, key)| *key)
}

/// Whether the list `field` is a set of plain values.
pub fn is_set(field: &str) -> bool {
    MERGE_SETS.contains(&field)
}

// === JSON patch ===

/// Applies a JSON patch.
///
/// # Errors
/// 400 for something that is not a patch, 413 for too many operations, 422 for one that does not apply.
pub fn json(document: &Value, patch: &Value) -> Result<Value, Status> {
    let operations = patch.as_array().ok_or_else(|| Status::bad_request("json patch is not a list of operations"))?;
    if operations.len() > MAX_OPERATIONS {
        return Err(Status::too_many_operations(MAX_OPERATIONS, operations.len()));
    }
    let mut document = document.clone();
    for operation in operations {
        operate(&mut document, operation).ok_or_else(Status::unprocessable)?;
    }
    Ok(document)
}

/// One operation; `None` when it does not apply.
fn operate(document: &mut Value, operation: &Value) -> Option<()> {
    let text = |field: &str| operation.get(field).and_then(Value::as_str);
    let path = text("path")?;
    match text("op")? {
        "add" => add(document, path, operation.get("value")?.clone()),
        "remove" => remove(document, path).map(drop),
        "replace" => replace(document, path, operation.get("value")?.clone()),
        "move" => {
            let value = remove(document, text("from")?)?;
            add(document, path, value)
        }
        "copy" => {
            let value = get(document, text("from")?)?.clone();
            add(document, path, value)
        }
        "test" => {
            let expected = operation.get("value").unwrap_or(&Value::Null);
            let found = get(document, path).unwrap_or(&Value::Null);
            (parent(document, path).is_some() && found == expected).then_some(())
        }
        _ => None,
    }
}

fn get<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    document.pointer(path)
}

fn parent<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    let (parent, _) = path.rsplit_once('/')?;
    document.pointer(parent).filter(|value| value.is_object() || value.is_array())
}

/// The container that holds `path`, and the last step, unescaped.
fn container<'a>(document: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    let (parent, last) = path.rsplit_once('/')?;
    Some((document.pointer_mut(parent)?, last.replace("~1", "/").replace("~0", "~")))
}

fn add(document: &mut Value, path: &str, value: Value) -> Option<()> {
    match container(document, path)? {
        (Value::Object(map), key) => {
            map.insert(key, value);
        }
        (Value::Array(list), index) if index == "-" => list.push(value),
        (Value::Array(list), index) => {
            let index = index.parse().ok().filter(|index| *index <= list.len())?;
            list.insert(index, value);
        }
        _ => return None,
    }
    Some(())
}

fn remove(document: &mut Value, path: &str) -> Option<Value> {
    match container(document, path)? {
        (Value::Object(map), key) => map.remove(&key),
        (Value::Array(list), index) => {
            let index = index.parse().ok().filter(|index| *index < list.len())?;
            Some(list.remove(index))
        }
        _ => None,
    }
}

fn replace(document: &mut Value, path: &str, value: Value) -> Option<()> {
    if path.is_empty() {
        *document = value;
        return Some(());
    }
    match container(document, path)? {
        (Value::Object(map), key) => {
            map.insert(key, value);
        }
        (Value::Array(list), index) => *list.get_mut(index.parse::<usize>().ok()?)? = value,
        _ => return None,
    }
    Some(())
}

// === Merge patch ===

/// Applies a JSON merge patch (RFC 7386): `null` deletes, maps merge, everything else replaces.
pub fn merge(document: &Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut merged = document.as_object().cloned().unwrap_or_default();
    for (key, value) in patch {
        if value.is_null() {
            merged.remove(key);
        } else {
            let old = merged.get(key).unwrap_or(&Value::Null);
            let new = merge(old, value);
            merged.insert(key.clone(), new);
        }
    }
    Value::Object(merged)
}

// === Strategic merge patch ===

/// Applies a strategic merge patch, with the directives `$patch`, `$retainKeys`, `$setElementOrder/…` (accepted,
/// order is kept as it is) and `$deleteFromPrimitiveList/…`.
///
/// # Errors
/// 400 for an unknown directive, or a list entry without its merge key.
pub fn strategic(document: &Value, patch: &Value) -> Result<Value, Status> {
    let (Value::Object(patch), document) = (patch, document.as_object()) else {
        return Err(Status::bad_request("strategic merge patch is not an object"));
    };
    Ok(Value::Object(strategic_map(document.cloned().unwrap_or_default(), patch)?))
}

fn strategic_map(mut merged: Map<String, Value>, patch: &Map<String, Value>) -> Result<Map<String, Value>, Status> {
    match patch.get("$patch").map(Value::as_str) {
        None | Some(Some("merge")) => {}
        Some(Some("replace")) => {
            return Ok(patch.iter().filter(|(key, _)| *key != "$patch").map(|(k, v)| (k.clone(), v.clone())).collect());
        }
        Some(Some("delete")) => return Ok(Map::new()),
        Some(other) => {
            let other = other.unwrap_or_default();
            return Err(Status::bad_request(format!("Unknown patch type found: {other}")));
        }
    }
    if let Some(Value::Array(keep)) = patch.get("$retainKeys") {
        merged.retain(|key, _| keep.iter().any(|kept| kept == key));
    }
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = value.as_array().map_or(&[][..], Vec::as_slice);
            if let Some(Value::Array(list)) = merged.get_mut(list) {
                list.retain(|entry| !gone.contains(entry));
            }
            continue;
        }
        if key.starts_with('$') {
            continue;
        }
        let new = match value {
            Value::Null => {
                merged.remove(key);
                continue;
            }
            Value::Object(patch) => {
                let old = match merged.remove(key) {
                    Some(Value::Object(old)) => old,
                    _ => Map::new(),
                };
                Value::Object(strategic_map(old, patch)?)
            }
            Value::Array(patch) => {
                let old = match merged.remove(key) {
                    Some(Value::Array(old)) => old,
                    _ => Vec::new(),
                };
                Value::Array(strategic_list(key, old, patch)?)
            }
            plain => plain.clone(),
        };
        merged.insert(key.clone(), new);
    }
    Ok(merged)
}

fn strategic_list(field: &str, mut merged: Vec<Value>, patch: &[Value]) -> Result<Vec<Value>, Status> {
    if is_set(field) {
        for value in patch {
            if !merged.contains(value) {
                merged.push(value.clone());
            }
        }
        return Ok(merged);
    }
    let Some(merge_key) = merge_key(field) else { return Ok(patch.to_vec()) };
    let directive = |entry: &Value| entry.get("$patch").and_then(Value::as_str).map(str::to_owned);
    if patch.iter().any(|entry| directive(entry).as_deref() == Some("replace")) {
        return Ok(patch.iter().filter(|entry| directive(entry).is_none()).cloned().collect());
    }
    for entry in patch {
        let (Value::Object(fields), Some(id)) = (entry, entry.get(merge_key)) else {
            return Err(Status::bad_request(format!("map does not contain declared merge key: {merge_key}")));
        };
        let at = merged.iter().position(|old| old.get(merge_key) == Some(id));
        if directive(entry).as_deref() == Some("delete") {
            merged.retain(|old| old.get(merge_key) != Some(id));
            continue;
        }
        match at.map(|at| &mut merged[at]) {
            Some(old) => *old = Value::Object(strategic_map(old.as_object().cloned().unwrap_or_default(), fields)?),
            None => merged.push(Value::Object(strategic_map(Map::new(), fields)?)),
        }
    }
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn json_patches() {
        let document = json!({"data": {"a": "1", "x/y": "2"}, "list": [1, 2]});
        for (patch, expected) in [
            (json!([]), Ok(document.clone())),
            (
                json!([{"op": "add", "path": "/data/b", "value": "3"}]),
                Ok(json!({"data": {"a": "1", "b": "3", "x/y": "2"}, "list": [1, 2]})),
            ),
            (json!([{"op": "remove", "path": "/data/x~1y"}]), Ok(json!({"data": {"a": "1"}, "list": [1, 2]}))),
            // Upstream's library is lenient about an absent key in a map, not about an absent map or index.
            (
                json!([{"op": "replace", "path": "/data/new", "value": "3"}]),
                Ok(json!({"data": {"a": "1", "new": "3", "x/y": "2"}, "list": [1, 2]})),
            ),
            (json!([{"op": "replace", "path": "/gone/new", "value": "3"}]), Err(422)),
            (json!([{"op": "replace", "path": "/list/2", "value": 3}]), Err(422)),
            (json!([{"op": "remove", "path": "/data/gone"}]), Err(422)),
            (json!([{"op": "remove", "path": "/gone/gone"}]), Err(422)),
            (json!([{"op": "add", "path": "/gone/a", "value": 1}]), Err(422)),
            (json!([{"op": "add", "path": "/list/3", "value": 1}]), Err(422)),
            (json!([{"op": "test", "path": "/data/a", "value": "1"}]), Ok(document.clone())),
            (json!([{"op": "test", "path": "/data/a", "value": "2"}]), Err(422)),
            (json!([{"op": "test", "path": "/data/gone", "value": null}]), Ok(document.clone())),
            (json!([{"op": "test", "path": "/gone/gone", "value": null}]), Err(422)),
            (
                json!([{"op": "move", "from": "/data/a", "path": "/data/c"}, {"op": "copy", "from": "/data/c", "path": "/list/-"}]),
                Ok(json!({"data": {"c": "1", "x/y": "2"}, "list": [1, 2, "1"]})),
            ),
            (
                json!([{"op": "add", "path": "/list/0", "value": 0}]),
                Ok(json!({"data": {"a": "1", "x/y": "2"}, "list": [0, 1, 2]})),
            ),
            (json!([{"op": "bogus", "path": "/data"}]), Err(422)),
            (json!({"op": "add"}), Err(400)),
            (Value::Array(vec![json!({}); MAX_OPERATIONS + 1]), Err(413)),
        ] {
            assert_eq!(json(&document, &patch).map_err(|status| status.code), expected, "{patch}");
        }
    }

    #[test]
    fn merge_patches() {
        // The table of RFC 7386, appendix A.
        for (document, patch, expected) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            assert_eq!(merge(&document, &patch), expected, "{document} + {patch}");
        }
    }

    #[test]
    fn strategic_patches() {
        let secret = json!({
            "metadata": {"name": "x", "finalizers": ["a"], "ownerReferences": [{"uid": "1", "name": "one"}]},
            "data": {"keep": "a", "gone": "b"},
        });
        for (patch, pointer, expected) in [
            (json!({"data": {"gone": null, "new": "", "absent": null}}), "/data", json!({"keep": "a", "new": ""})),
            (json!({"data": {"$patch": "replace", "only": "a"}}), "/data", json!({"only": "a"})),
            (json!({"data": {"$retainKeys": ["keep"]}}), "/data", json!({"keep": "a"})),
            (json!({"data": null}), "/data", Value::Null),
            (json!({"metadata": {"finalizers": ["a", "b"]}}), "/metadata/finalizers", json!(["a", "b"])),
            (json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}), "/metadata/finalizers", json!([])),
            (
                json!({"metadata": {
                    "$setElementOrder/ownerReferences": [{"uid": "2"}],
                    "ownerReferences": [{"uid": "2", "name": "two"}, {"uid": "1", "name": "uno"}],
                }}),
                "/metadata/ownerReferences",
                json!([{"uid": "1", "name": "uno"}, {"uid": "2", "name": "two"}]),
            ),
            (
                json!({"metadata": {"ownerReferences": [{"$patch": "delete", "uid": "1"}]}}),
                "/metadata/ownerReferences",
                json!([]),
            ),
            (
                json!({"metadata": {"ownerReferences": [{"$patch": "replace"}, {"uid": "3"}]}}),
                "/metadata/ownerReferences",
                json!([{"uid": "3"}]),
            ),
        ] {
            let merged = strategic(&secret, &patch).unwrap();
            assert_eq!(merged.pointer(pointer).unwrap_or(&Value::Null), &expected, "{patch}");
            assert_eq!(merged["metadata"]["name"], "x", "{patch}");
        }
        for bad in [
            json!([]),
            json!({"data": {"$patch": "explode"}}),
            json!({"metadata": {"ownerReferences": [{"name": "no uid"}]}}),
        ] {
            assert_eq!(strategic(&secret, &bad).unwrap_err().code, 400, "{bad}");
        }
    }

    fn document() -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), "[ab]{0,2}".prop_map(Value::from)];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[abc]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// The merge patch that turns `from` into `to`, for documents without nulls.
    fn difference(from: &Value, to: &Value) -> Value {
        let (Value::Object(old), Value::Object(new)) = (from, to) else { return to.clone() };
        let mut patch = Map::new();
        for key in old.keys().filter(|key| !new.contains_key(*key)) {
            patch.insert(key.clone(), Value::Null);
        }
        for (key, value) in new {
            match old.get(key) {
                Some(same) if same == value => {}
                Some(old) if old.is_object() => drop(patch.insert(key.clone(), difference(old, value))),
                _ => drop(patch.insert(key.clone(), value.clone())),
            }
        }
        Value::Object(patch)
    }

    fn without_nulls(value: Value) -> Value {
        match value {
            Value::Object(map) => Value::Object(
                map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect(),
            ),
            Value::Array(list) => {
                list.into_iter().filter(|v| !v.is_null()).map(without_nulls).collect::<Vec<_>>().into()
            }
            other => other,
        }
    }

    proptest! {
        #[test]
        fn merging_twice_is_merging_once(document in document(), patch in document()) {
            let once = merge(&document, &patch);
            prop_assert_eq!(merge(&once, &patch), once);
        }

        #[test]
        fn strategic_merging_twice_is_merging_once(document in document(), patch in document()) {
            if let Ok(once) = strategic(&document, &patch) {
                prop_assert_eq!(strategic(&once, &patch).unwrap(), once);
            }
        }

        #[test]
        fn a_difference_merged_gives_the_target(from in document(), to in document()) {
            let (from, to) = (without_nulls(from), without_nulls(to));
            prop_assert_eq!(merge(&from, &difference(&from, &to)), to);
        }

        #[test]
        fn what_a_json_patch_adds_it_can_remove(document in document(), key in "[a-f]", value in document()) {
            let path = format!("/{key}");
            let add = json!([{"op": "add", "path": path, "value": value}]);
            match json(&document, &add) {
                Ok(added) => {
                    prop_assert_eq!(added.pointer(&path), Some(&value));
                    let removed = json(&added, &json!([{"op": "remove", "path": path}])).unwrap();
                    let mut expected = document;
                    expected.as_object_mut().unwrap().remove(&key);
                    prop_assert_eq!(removed, expected);
                }
                Err(status) => prop_assert!(!document.is_object() && status.code == 422),
            }
        }
    }
}
