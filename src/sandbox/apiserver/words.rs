//! What the [`Store`](super::store::Store) is asked and answers. Pure.

use std::sync::Arc;

use serde_json::{Value, json};

use super::fields::{Force, Writer};
use super::resources::Resource;

/// Which collection a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collection {
    /// The kind.
    pub resource: &'static Resource,
    /// `None` for all namespaces, and for kinds without.
    pub namespace: Option<String>,
}

/// What a write needs from outside.
#[derive(Clone, Debug)]
pub struct Write {
    /// For `managedFields` and `creationTimestamp`.
    pub writer: Writer,
    /// Bytes nobody can guess: the uid and generated names come from them.
    pub random: [u8; 16],
    /// Whether to keep the result.
    pub keep: Keep,
}

/// Whether a write happens or is only tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// It happens.
    Yes,
    /// `dryRun=All`: the same answer, no effect.
    DryRun,
}

/// The four ways to patch.
#[derive(Clone, Debug, PartialEq)]
pub enum Patch {
    /// `application/json-patch+json`.
    Json(Value),
    /// `application/merge-patch+json`.
    Merge(Value),
    /// `application/strategic-merge-patch+json`.
    Strategic(Value),
    /// `application/apply-patch+yaml`: creates what is not there.
    Apply(Value, Force),
}

impl Patch {
    /// Whether it is an apply without this field.
    pub(super) fn config_lacks(&self, field: &str) -> bool {
        matches!(self, Self::Apply(config, _) if config.get(field).is_none())
    }
}

/// A write's result.
#[derive(Clone, Debug, PartialEq)]
pub enum Written {
    /// There was no such object.
    Created(Arc<Value>),
    /// There was one; it may be the same as before.
    Updated(Arc<Value>),
}

impl Written {
    /// The object as it is now.
    pub fn object(&self) -> &Arc<Value> {
        match self {
            Self::Created(object) | Self::Updated(object) => object,
        }
    }
}

/// What must hold for a deletion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preconditions {
    /// The uid the object must have.
    pub uid: Option<String>,
    /// The resourceVersion the object must have.
    pub resource_version: Option<String>,
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The objects, by namespace and name.
    pub items: Vec<Arc<Value>>,
    /// Where the next page starts; `None` after the last.
    pub next: Option<(String, String)>,
    /// How many are left.
    pub remaining: usize,
}

/// The `List` document of a page.
pub fn list_document(of: &Collection, page: &Page, version: u64, next: Option<String>) -> Value {
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if let Some(token) = next {
        metadata["continue"] = token.into();
        metadata["remainingItemCount"] = page.remaining.into();
    }
    let items: Vec<Value> = page.items.iter().map(|item| Value::clone(item)).collect();
    json!({
        "kind": format!("{}List", of.resource.kind), "apiVersion": of.resource.api_version(), "metadata": metadata,
        "items": items,
    })
}
