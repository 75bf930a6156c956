//! The objects of the API server: resourceVersions, conflicts, and a bounded history to watch. Pure.
//!
//! One counter numbers every write, as etcd's revision does. A write that changes nothing is no write. What happened
//! since a resourceVersion can be asked for ([`Store::since`]) until the history has forgotten it, which is 410.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use serde_json::Value;

use super::fields;
use super::naming::{adopt_namespace, check_url_name, generate_name, uid};
use super::patch;
use super::resources::Resource;
use super::select::Selector;
use super::status::{FieldProblem, Status};
use super::validate;
pub use super::words::{Collection, Keep, Page, Patch, Preconditions, Write, Written, list_document};

/// Bounds on the history.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// Most changes remembered.
    pub changes: usize,
    /// Most bytes of JSON remembered in them.
    pub bytes: usize,
}

impl Default for Capacity {
    fn default() -> Self {
        Self { changes: 1000, bytes: 16 << 20 }
    }
}

/// What happened to an object, as a watcher sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It appeared.
    Added,
    /// It changed.
    Modified,
    /// It went.
    Deleted,
}

impl Event {
    /// The text in a watch.
    pub fn name(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

type Key = (&'static str, &'static str, String, String);

#[derive(Debug)]
struct Change {
    version: u64,
    key: Key,
    old: Option<Arc<Value>>,
    new: Option<Arc<Value>>,
    bytes: usize,
}

/// All objects of all kinds.
#[derive(Debug)]
pub struct Store {
    objects: BTreeMap<Key, Arc<Value>>,
    version: u64,
    history: VecDeque<Change>,
    history_bytes: usize,
    forgotten: u64,
    capacity: Capacity,
}

impl Store {
    /// An empty store.
    pub fn new(capacity: Capacity) -> Self {
        let (objects, history) = (BTreeMap::new(), VecDeque::new());
        Self { objects, version: 1, history, history_bytes: 0, forgotten: 1, capacity }
    }

    /// The resourceVersion of the last write.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Forgets the history, as compaction does: every watch that is not up to date gets 410.
    pub fn compact(&mut self) {
        self.history.clear();
        self.history_bytes = 0;
        self.forgotten = self.version;
    }

    /// One object.
    ///
    /// # Errors
    /// 404.
    pub fn get(&self, of: &Collection, name: &str) -> Result<Arc<Value>, Status> {
        self.objects
            .get(&key(of, name))
            .cloned()
            .ok_or_else(|| Status::not_found(of.resource.group, of.resource.plural, name))
    }

    /// At most `limit` objects (0 is all), from after `start` (namespace and name).
    pub fn list(&self, of: &Collection, selector: &Selector, start: Option<&(String, String)>, limit: usize) -> Page {
        let (group, plural) = (of.resource.group, of.resource.plural);
        let namespace = of.namespace.clone().unwrap_or_default();
        let first = match start {
            Some((namespace, name)) => Bound::Excluded((group, plural, namespace.clone(), name.clone())),
            None => Bound::Included((group, plural, namespace, String::new())),
        };
        let mut all = self
            .objects
            .range((first, Bound::Unbounded))
            .take_while(|(key, _)| (key.0, key.1) == (group, plural))
            .filter(|(key, _)| of.namespace.as_ref().is_none_or(|namespace| key.2 == *namespace))
            .filter(|(_, object)| selector.matches(object));
        let limit = if limit == 0 { usize::MAX } else { limit };
        let page: Vec<_> = all.by_ref().take(limit).collect();
        let remaining = all.count();
        let last = page.last().map(|(key, _)| (key.2.clone(), key.3.clone()));
        let items = page.into_iter().map(|(_, object)| Arc::clone(object)).collect();
        Page { items, next: last.filter(|_| remaining > 0), remaining }
    }

    /// Creates an object.
    ///
    /// # Errors
    /// 400, 409 and 422 of what it is and how it is called.
    pub fn create(&mut self, of: &Collection, mut object: Value, write: &Write) -> Result<Arc<Value>, Status> {
        let resource = of.resource;
        validate::decode(resource, &mut object).map_err(|why| undecodable(resource, &why))?;
        adopt_namespace(of, &mut object)?;
        if object["metadata"]["resourceVersion"].as_str().is_some_and(|version| !version.is_empty()) {
            return Err(Status::internal("resourceVersion should not be set on objects to be created"));
        }
        generate_name(&mut object, &write.random);
        fields::record_update(None, &mut object, &write.writer);
        self.insert(of, object, write)
    }

    /// Replaces an object.
    ///
    /// # Errors
    /// 404, and 409 when the resourceVersion or uid given is not the current one.
    pub fn update(&mut self, of: &Collection, name: &str, mut object: Value, write: &Write) -> Result<Written, Status> {
        let resource = of.resource;
        validate::decode(resource, &mut object).map_err(|why| undecodable(resource, &why))?;
        adopt_namespace(of, &mut object)?;
        check_url_name(&mut object, name)?;
        let old = match self.get(of, name) {
            Ok(old) => old,
            Err(_) if resource.creates_on_put => {
                fields::record_update(None, &mut object, &write.writer);
                return self.insert(of, object, write).map(Written::Created);
            }
            Err(status) => return Err(status),
        };
        let version = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        if version.is_empty() && !resource.unconditional {
            let problem = FieldProblem {
                field: "metadata.resourceVersion".to_owned(),
                reason: "FieldValueInvalid",
                message: "Invalid value: 0x0: must be specified for an update".to_owned(),
            };
            return Err(Status::invalid(resource.group, resource.plural, name, &[problem]));
        }
        self.replace(of, &old, object, write, Owners::Record)
    }

    /// Patches an object.
    ///
    /// # Errors
    /// 404; 409 when the patch names another resourceVersion or uid, or apply conflicts; 422 when it does not apply or
    /// the result is not valid.
    pub fn patch(&mut self, of: &Collection, name: &str, patch: &Patch, write: &Write) -> Result<Written, Status> {
        let resource = of.resource;
        let old = self.get(of, name);
        let (mut object, owners) = match patch {
            Patch::Apply(config, force) => {
                let mut config = config.clone();
                validate::decode(resource, &mut config).map_err(|why| undecodable(resource, &why))?;
                adopt_namespace(of, &mut config)?;
                check_url_name(&mut config, name)?;
                // Decoding fills in the type; who did not write it shall not own it.
                if resource.kind == "Secret" && patch.config_lacks("type") {
                    config.as_object_mut().map(|config| config.remove("type"));
                }
                let old = old.as_deref().ok();
                (fields::apply(old, &config, &write.writer, *force)?, Owners::Keep)
            }
            Patch::Json(patch) => (patch::json(old.as_deref().map_err(Clone::clone)?, patch)?, Owners::Record),
            Patch::Merge(patch) => (patch::merge(old.as_deref().map_err(Clone::clone)?, patch), Owners::Record),
            Patch::Strategic(patch) => {
                (patch::strategic(old.as_deref().map_err(Clone::clone)?, patch)?, Owners::Record)
            }
        };
        validate::decode(resource, &mut object)
            .map_err(|why| Status::invalid("", "", "", &[FieldProblem::invalid("patch", &"".into(), &why)]))?;
        adopt_namespace(of, &mut object)?;
        check_url_name(&mut object, name)?;
        match old {
            Ok(old) => self.replace(of, &old, object, write, owners),
            Err(_) => self.insert(of, object, write).map(Written::Created),
        }
    }

    /// Deletes an object, or marks it as being deleted while it has finalizers.
    ///
    /// # Errors
    /// 404, and 409 when a precondition does not hold.
    pub fn delete(
        &mut self,
        of: &Collection,
        name: &str,
        only: &Preconditions,
        write: &Write,
    ) -> Result<Arc<Value>, Status> {
        let old = self.get(of, name)?;
        for (field, what, wanted) in
            [("uid", "UID", &only.uid), ("resourceVersion", "ResourceVersion", &only.resource_version)]
        {
            let found = old["metadata"][field].as_str().unwrap_or_default();
            if let Some(wanted) = wanted.as_ref().filter(|wanted| *wanted != found) {
                let why =
                    format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}");
                return Err(Status::conflict(of.resource.group, of.resource.plural, name, &why));
            }
        }
        if has_finalizers(&old) {
            if old["metadata"]["deletionTimestamp"].is_string() {
                return Ok(old);
            }
            let mut marked = Value::clone(&old);
            marked["metadata"]["deletionTimestamp"] = write.writer.now.clone().into();
            marked["metadata"]["deletionGracePeriodSeconds"] = 0.into();
            return Ok(self.commit(key(of, name), Some(old), Some(marked), write.keep));
        }
        Ok(self.commit(key(of, name), Some(old), None, write.keep))
    }

    /// What a watcher of `of` that knows everything up to `version` has missed, in order.
    ///
    /// # Errors
    /// 410 when it is no longer known.
    pub fn since(
        &self,
        of: &Collection,
        selector: &Selector,
        version: u64,
    ) -> Result<Vec<(Event, Arc<Value>)>, Status> {
        if version < self.forgotten {
            return Err(Status::expired(version, self.forgotten));
        }
        let (group, plural) = (of.resource.group, of.resource.plural);
        let first = self.history.partition_point(|change| change.version <= version);
        let changes = self.history.range(first..).filter(|change| {
            (change.key.0, change.key.1) == (group, plural)
                && of.namespace.as_ref().is_none_or(|namespace| change.key.2 == *namespace)
        });
        Ok(changes.filter_map(|change| change.seen_through(selector)).collect())
    }

    /// Stores a new object with the metadata that the server gives.
    fn insert(&mut self, of: &Collection, mut object: Value, write: &Write) -> Result<Arc<Value>, Status> {
        let resource = of.resource;
        validate::decode(resource, &mut object).map_err(|why| undecodable(resource, &why))?;
        object["metadata"]["uid"] = uid(&write.random).into();
        object["metadata"]["creationTimestamp"] = write.writer.now.clone().into();
        validate::check(resource, &object, None)?;
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let key = key(of, &name);
        if self.objects.contains_key(&key) {
            return Err(Status::already_exists(resource.group, resource.plural, &name));
        }
        Ok(self.commit(key, None, Some(object), write.keep))
    }

    /// Stores the successor of `old`.
    fn replace(
        &mut self,
        of: &Collection,
        old: &Arc<Value>,
        mut object: Value,
        write: &Write,
        owners: Owners,
    ) -> Result<Written, Status> {
        let resource = of.resource;
        let name = old["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let text = |object: &Value, field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let (uid, version) = (text(&object, "uid"), text(&object, "resourceVersion"));
        if !uid.is_empty() && uid != text(old, "uid") {
            let found = text(old, "uid");
            let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {found}");
            return Err(Status::conflict(resource.group, resource.plural, &name, &why));
        }
        if !version.is_empty() && version != text(old, "resourceVersion") {
            return Err(Status::modified(resource.group, resource.plural, &name));
        }
        let metadata = object["metadata"].as_object_mut().expect("decode made it an object");
        for field in ["uid", "creationTimestamp", "resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds"]
        {
            match old["metadata"].get(field) {
                Some(value) => drop(metadata.insert(field.to_owned(), value.clone())),
                None => drop(metadata.remove(field)),
            }
        }
        validate::check(resource, &object, Some(old))?;
        if owners == Owners::Record {
            fields::record_update(Some(old), &mut object, &write.writer);
        }
        if object == **old {
            return Ok(Written::Updated(Arc::clone(old)));
        }
        let done = object["metadata"]["deletionTimestamp"].is_string() && !has_finalizers(&object);
        let new = if done { None } else { Some(object) };
        Ok(Written::Updated(self.commit(key(of, &name), Some(Arc::clone(old)), new, write.keep)))
    }

    /// Numbers a change and remembers it. `None` for `new` deletes; the answer is the object's last form.
    fn commit(&mut self, key: Key, old: Option<Arc<Value>>, new: Option<Value>, keep: Keep) -> Arc<Value> {
        let deleted = new.is_none();
        let mut last = new.or_else(|| old.as_deref().cloned()).unwrap_or_default();
        if keep == Keep::DryRun {
            return Arc::new(last);
        }
        self.version += 1;
        last["metadata"]["resourceVersion"] = self.version.to_string().into();
        let last = Arc::new(last);
        if deleted {
            self.objects.remove(&key);
        } else {
            self.objects.insert(key.clone(), Arc::clone(&last));
        }
        let bytes = serde_json::to_vec(&*last).map_or(0, |json| json.len());
        self.history_bytes += bytes;
        // A deletion remembers the last form twice: as what was there, and with the number of the deletion.
        let (old, new) = if deleted { (Some(Arc::clone(&last)), None) } else { (old, Some(Arc::clone(&last))) };
        self.history.push_back(Change { version: self.version, key, old, new, bytes });
        while self.history.len() > self.capacity.changes || self.history_bytes > self.capacity.bytes {
            let Some(oldest) = self.history.pop_front() else { break };
            self.history_bytes -= oldest.bytes;
            self.forgotten = oldest.version;
        }
        last
    }
}

/// Whether a replacement still needs its `managedFields`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owners {
    Record,
    Keep,
}

impl Change {
    /// What a watcher with `selector` sees of it: leaving the selection is a deletion, entering it an addition.
    fn seen_through(&self, selector: &Selector) -> Option<(Event, Arc<Value>)> {
        let before = self.old.as_ref().filter(|old| selector.matches(old));
        let after = self.new.as_ref().filter(|new| selector.matches(new));
        match (before, after) {
            (None, Some(new)) => Some((Event::Added, Arc::clone(new))),
            (Some(_), Some(new)) => Some((Event::Modified, Arc::clone(new))),
            (Some(old), None) => {
                let mut gone = Value::clone(old);
                gone["metadata"]["resourceVersion"] = self.version.to_string().into();
                Some((Event::Deleted, Arc::new(gone)))
            }
            (None, None) => None,
        }
    }
}

fn key(of: &Collection, name: &str) -> Key {
    (of.resource.group, of.resource.plural, of.namespace.clone().unwrap_or_default(), name.to_owned())
}

fn undecodable(resource: &Resource, why: &str) -> Status {
    let (kind, version) = (resource.kind, resource.version);
    Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}"))
}

fn has_finalizers(object: &Value) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::fields::{Force, Writer};
    use super::*;

    fn secrets(namespace: Option<&str>) -> Collection {
        Collection { resource: Resource::secrets(), namespace: namespace.map(str::to_owned) }
    }

    fn write(seed: u8) -> Write {
        let writer = Writer { manager: "test".to_owned(), now: "2026-11-21T09:00:00Z".to_owned() };
        Write { writer, random: [seed; 16], keep: Keep::Yes }
    }

    fn named(name: &str, value: &str) -> Value {
        json!({"metadata": {"name": name}, "stringData": {"v": value}})
    }

    fn code<T>(result: Result<T, Status>) -> u16 {
        result.err().map_or(200, |status| status.code)
    }

    #[test]
    fn an_object_gets_its_identity_from_the_server() {
        let mut store = Store::new(Capacity::default());
        let of = secrets(Some("ts"));
        let object = store.create(&of, named("x", "1"), &write(7)).unwrap();
        let metadata = &object["metadata"];
        assert_eq!(metadata["uid"], "07070707-0707-4707-8707-070707070707");
        assert_eq!(metadata["resourceVersion"], "2");
        assert_eq!(metadata["creationTimestamp"], "2026-11-21T09:00:00Z");
        assert_eq!(metadata["namespace"], "ts");
        assert_eq!(metadata["managedFields"][0]["manager"], "test");
        assert_eq!(store.get(&of, "x").unwrap(), object);
        assert_eq!(code(store.create(&of, named("x", "2"), &write(8))), 409);
        assert_eq!(code(store.get(&secrets(Some("other")), "x")), 404);

        let generated = store.create(&of, json!({"metadata": {"generateName": "key-"}}), &write(0)).unwrap();
        assert_eq!(generated["metadata"]["name"], "key-bbbbb");
        assert_eq!(code(store.create(&of, json!({}), &write(1))), 422);
        assert_eq!(code(store.create(&of, json!({"metadata": {"name": "y", "resourceVersion": "1"}}), &write(1))), 500);
        assert_eq!(code(store.create(&of, json!({"metadata": {"name": "y", "namespace": "other"}}), &write(1))), 400);
    }

    #[test]
    fn a_stale_write_is_a_conflict_and_an_empty_one_is_none() {
        let mut store = Store::new(Capacity::default());
        let of = secrets(Some("ts"));
        let first = store.create(&of, named("x", "1"), &write(1)).unwrap();
        let mut second = Value::clone(&first);
        second["stringData"] = json!({"v": "2"});
        let updated = store.update(&of, "x", second.clone(), &write(2)).unwrap();
        assert_eq!(updated.object()["data"]["v"], "Mg==");
        assert_eq!(updated.object()["metadata"]["uid"], first["metadata"]["uid"]);

        let stale = store.update(&of, "x", second, &write(3)).unwrap_err();
        assert_eq!((stale.code, stale.reason), (409, "Conflict"));
        assert!(
            stale.message.starts_with("Operation cannot be fulfilled on secrets \"x\": the object has been modified")
        );

        let version = store.version();
        store.update(&of, "x", named("x", "2"), &write(4)).unwrap();
        assert_eq!(store.version(), version, "the same content is no write");
        store.update(&of, "x", named("x", "3"), &write(4)).unwrap();
        assert_eq!(store.version(), version + 1, "without a resourceVersion the write is unconditional");
        assert_eq!(code(store.update(&of, "gone", named("gone", "3"), &write(4))), 404);
        assert_eq!(code(store.update(&of, "x", named("other", "3"), &write(4))), 400);
    }

    #[test]
    fn patches_honour_preconditions() {
        let mut store = Store::new(Capacity::default());
        let of = secrets(Some("ts"));
        store.create(&of, named("x", "1"), &write(1)).unwrap();
        for (patch, expected) in [
            (Patch::Merge(json!({"metadata": {"resourceVersion": "1"}, "data": {"a": ""}})), 409),
            (Patch::Strategic(json!({"metadata": {"resourceVersion": "1"}, "data": {"a": ""}})), 409),
            (Patch::Strategic(json!({"metadata": {"resourceVersion": "2"}, "data": {"a": ""}})), 200),
            (Patch::Merge(json!({"metadata": {"uid": "other"}})), 409),
            (Patch::Merge(json!({"metadata": {"name": "other"}})), 400),
            (Patch::Merge(json!({"metadata": {"namespace": "other"}})), 400),
            (Patch::Merge(json!({"data": {"a": "not base64"}})), 422),
            (Patch::Strategic(json!({"data": {"a": "not base64"}})), 422),
            (Patch::Json(json!([{"op": "remove", "path": "/data/gone"}])), 422),
            (Patch::Json(json!([{"op": "remove", "path": "/data/a"}])), 200),
            (Patch::Apply(json!({"apiVersion": "v1", "kind": "Secret", "data": {"v": "bXk="}}), Force::No), 409),
            (Patch::Apply(json!({"apiVersion": "v1", "kind": "Secret", "data": {"w": "bXk="}}), Force::No), 200),
        ] {
            assert_eq!(code(store.patch(&of, "x", &patch, &write(2))), expected, "{patch:?}");
        }
        // Upstream sends Go's zero time; it must not reach the object.
        let zero =
            Patch::Strategic(json!({"metadata": {"creationTimestamp": "0001-01-01T00:00:00Z"}, "data": {"v": null}}));
        let patched = store.patch(&of, "x", &zero, &write(2)).unwrap();
        assert_eq!(patched.object()["metadata"]["creationTimestamp"], "2026-11-21T09:00:00Z");
        assert_eq!(patched.object()["data"], json!({"w": "bXk="}));

        assert_eq!(code(store.patch(&of, "gone", &Patch::Merge(json!({})), &write(2))), 404);
        let config = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "new"}});
        let created = store.patch(&of, "new", &Patch::Apply(config, Force::No), &write(9)).unwrap();
        assert!(matches!(created, Written::Created(_)));
        assert_eq!(created.object()["type"], "Opaque");
    }

    #[test]
    fn leases_need_a_resource_version_and_appear_by_put() {
        let mut store = Store::new(Capacity::default());
        let resource = Resource::find("coordination.k8s.io", "v1", "leases").unwrap();
        let of = Collection { resource, namespace: Some("ts".to_owned()) };
        let lease = |holder: &str| json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": holder}});
        assert!(matches!(store.update(&of, "l", lease("a"), &write(1)).unwrap(), Written::Created(_)));
        assert_eq!(code(store.update(&of, "l", lease("b"), &write(1))), 422);
        let mut current = Value::clone(&store.get(&of, "l").unwrap());
        current["spec"]["holderIdentity"] = "b".into();
        assert_eq!(code(store.update(&of, "l", current.clone(), &write(1))), 200);
        assert_eq!(code(store.update(&of, "l", current, &write(1))), 409, "stale, if unchanged");
    }

    #[test]
    fn deleting_waits_for_finalizers_and_honours_preconditions() {
        let mut store = Store::new(Capacity::default());
        let of = secrets(Some("ts"));
        let object = json!({"metadata": {"name": "x", "finalizers": ["ts/f"]}});
        let created = store.create(&of, object, &write(1)).unwrap();
        let other = Preconditions { uid: Some("other".to_owned()), resource_version: None };
        assert_eq!(code(store.delete(&of, "x", &other, &write(1))), 409);
        let other = Preconditions { uid: None, resource_version: Some("99".to_owned()) };
        assert_eq!(code(store.delete(&of, "x", &other, &write(1))), 409);
        let uid = created["metadata"]["uid"].as_str().map(str::to_owned);
        store.delete(&of, "x", &Preconditions { uid, resource_version: None }, &write(1)).unwrap();
        assert_eq!(store.get(&of, "x").unwrap()["metadata"]["deletionTimestamp"], "2026-11-21T09:00:00Z");
        store.patch(&of, "x", &Patch::Merge(json!({"metadata": {"finalizers": null}})), &write(1)).unwrap();
        assert_eq!(code(store.get(&of, "x")), 404);
        assert_eq!(code(store.delete(&of, "x", &Preconditions::default(), &write(1))), 404);
    }

    #[test]
    fn a_dry_run_answers_and_changes_nothing() {
        let mut store = Store::new(Capacity::default());
        let of = secrets(Some("ts"));
        let dry = Write { keep: Keep::DryRun, ..write(1) };
        assert_eq!(store.create(&of, named("x", "1"), &dry).unwrap()["data"]["v"], "MQ==");
        assert_eq!(code(store.get(&of, "x")), 404);
        assert_eq!(store.version(), 1);
    }

    #[test]
    fn lists_come_in_pages() {
        let mut store = Store::new(Capacity::default());
        for (namespace, name) in [("b", "1"), ("a", "2"), ("a", "1"), ("a", "3")] {
            store.create(&secrets(Some(namespace)), named(name, ""), &write(1)).unwrap();
        }
        let all = Selector::default();
        let names = |page: &Page| -> Vec<String> {
            let name =
                |o: &Arc<Value>| format!("{}/{}", o["metadata"]["namespace"], o["metadata"]["name"]).replace('"', "");
            page.items.iter().map(name).collect()
        };
        let everything = store.list(&secrets(None), &all, None, 0);
        assert_eq!(names(&everything), ["a/1", "a/2", "a/3", "b/1"]);
        assert_eq!(names(&store.list(&secrets(Some("a")), &all, None, 0)), ["a/1", "a/2", "a/3"]);
        let first = store.list(&secrets(None), &all, None, 3);
        assert_eq!((names(&first).len(), first.remaining), (3, 1));
        let second = store.list(&secrets(None), &all, first.next.as_ref(), 3);
        assert_eq!((names(&second), second.next), (vec!["b/1".to_owned()], None));
    }

    #[test]
    fn a_watcher_sees_objects_enter_and_leave_its_selection() {
        let mut store = Store::new(Capacity::default());
        let of = secrets(Some("ts"));
        let labelled = |label: &str| json!({"metadata": {"name": "x", "labels": {"app": label}}});
        store.create(&of, labelled("no"), &write(1)).unwrap();
        let start = store.version();
        for label in ["yes", "yes", "no"] {
            let mut object = labelled(label);
            object["stringData"] = json!({"v": store.version().to_string()});
            store.update(&of, "x", object, &write(1)).unwrap();
        }
        let selector = Selector::parse(Resource::secrets(), "", "app=yes").unwrap();
        let seen = store.since(&of, &selector, start).unwrap();
        let kinds: Vec<Event> = seen.iter().map(|(event, _)| *event).collect();
        assert_eq!(kinds, [Event::Added, Event::Modified, Event::Deleted]);
        assert_eq!(seen[2].1["metadata"]["resourceVersion"], store.version().to_string());
    }

    #[test]
    fn history_is_bounded_by_count_and_by_bytes() {
        let of = secrets(Some("ts"));
        for capacity in [Capacity { changes: 3, bytes: usize::MAX }, Capacity { changes: usize::MAX, bytes: 2000 }] {
            let mut store = Store::new(capacity);
            store.create(&of, named("x", "start"), &write(1)).unwrap();
            for n in 0..20 {
                store.update(&of, "x", named("x", &n.to_string()), &write(1)).unwrap();
            }
            let all = Selector::default();
            let status = store.since(&of, &all, 2).unwrap_err();
            assert_eq!((status.code, status.reason), (410, "Expired"));
            assert!(store.history.len() < 10);
            assert_eq!(store.since(&of, &all, store.version() - 1).unwrap().len(), 1);
            store.compact();
            assert_eq!(code(store.since(&of, &all, store.version() - 1)), 410);
            assert_eq!(store.since(&of, &all, store.version()).unwrap(), []);
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(u8, u8),
        Delete(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..4_u8, 0..3_u8).prop_map(|(name, value)| Step::Put(name, value)),
            1 => (0..4_u8).prop_map(Step::Delete),
        ]
    }

    proptest! {
        /// Whoever lists, then replays everything since, knows what is there; and resuming anywhere gives the rest.
        #[test]
        fn resuming_gives_exactly_the_events_since(steps in prop::collection::vec(step(), 1..30), at in 0..30_usize) {
            let mut store = Store::new(Capacity::default());
            let of = secrets(Some("ts"));
            let all = Selector::default();
            let mut versions = vec![store.version()];
            let mut known = BTreeMap::new();
            for (n, step) in steps.iter().enumerate() {
                if n == at.min(steps.len() - 1) {
                    for object in store.list(&of, &all, None, 0).items {
                        known.insert(object["metadata"]["name"].to_string(), object);
                    }
                    versions = vec![store.version()];
                }
                match step {
                    Step::Put(name, value) => {
                        let (name, object) = (format!("n{name}"), named(&format!("n{name}"), &value.to_string()));
                        if store.update(&of, &name, object.clone(), &write(1)).is_err() {
                            store.create(&of, object, &write(1)).unwrap();
                        }
                    }
                    Step::Delete(name) => drop(store.delete(&of, &format!("n{name}"), &Preconditions::default(), &write(1))),
                }
                if store.version() != *versions.last().unwrap() {
                    versions.push(store.version());
                }
            }
            for (skip, version) in versions.iter().enumerate() {
                let events = store.since(&of, &all, *version).unwrap();
                let seen: Vec<String> = events.iter()
                    .map(|(_, object)| object["metadata"]["resourceVersion"].as_str().unwrap().to_owned()).collect();
                let expected: Vec<String> = versions[skip + 1..].iter().map(ToString::to_string).collect();
                prop_assert_eq!(seen, expected);
            }
            for (event, object) in store.since(&of, &all, versions[0]).unwrap() {
                let name = object["metadata"]["name"].to_string();
                let was_known = match event {
                    Event::Deleted => known.remove(&name).is_some(),
                    _ => known.insert(name, object).is_some(),
                };
                prop_assert_eq!(was_known, event != Event::Added);
            }
            let listed = store.list(&of, &all, None, 0).items;
            prop_assert_eq!(known.into_values().collect::<Vec<_>>(), listed);
        }
    }
}
