//! Changes of prefs, and the body that asks the daemon for them. Pure.

use std::fmt;

use serde_json::{Map, Value};

use super::types::Prefs;

/// One member that is not as it should be. Displays as `Hostname: "a" -> "b"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The member of prefs.
    pub member: String,
    /// What it is.
    pub old: Value,
    /// What it should be.
    pub new: Value,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.member, self.old, self.new)
    }
}

/// The changes as the body of `PATCH prefs`: each member and its `…Set` flag, nothing else.
pub fn masked(changes: &[Change]) -> Prefs {
    let mut members = Map::new();
    for change in changes {
        members.insert(change.member.clone(), change.new.clone());
        members.insert(format!("{}Set", change.member), Value::Bool(true));
    }
    Prefs(members)
}
