//! The `--json` contract of `tailpod authkey`: one object per line, one line per change of state.
//!
//! Names and meanings are never changed, members are only added; golden files hold them. Keys are ids.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::cli::cluster::Target;
use crate::cli::output::Output;
use crate::secret::{Secret, key_id};

/// Something that happened.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum Event<'a> {
    /// The request is in the Secret now.
    Requested { namespace: &'a str, secret: &'a str, failed_key: Option<String>, field_manager: &'a str },
    /// It was there before.
    AlreadyRequested { namespace: &'a str, secret: &'a str, failed_key: Option<String> },
    /// Waiting, and told of changes.
    Watching { place: &'a Place, old_key: Option<String>, timeout_seconds: f64 },
    /// Waiting, and looking every few seconds.
    Polling { place: &'a Place, old_key: Option<String>, timeout_seconds: f64 },
    /// The wait is over.
    NewKey { key: String, after_seconds: f64 },
    /// The wait is over, and there is none.
    TimedOut { after_seconds: f64 },
    /// What `--dry-run` would have sent.
    WouldClear { namespace: &'a str, secret: &'a str, keys: &'a [String], patch: Value },
    /// These are gone.
    Cleared { namespace: &'a str, secret: &'a str, keys: &'a [String] },
    /// There was nothing to remove.
    NothingToClear { namespace: &'a str, secret: &'a str },
    /// A signal came first.
    Interrupted { by: &'a str },
}

/// Where a new key will appear.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum Place {
    /// A config file.
    Config { path: String },
    /// A key of a Secret.
    Secret { namespace: String, name: String, key: String },
}

#[derive(Serialize)]
struct Stamped<'a> {
    time: String,
    #[serde(flatten)]
    event: &'a Event<'a>,
}

/// Writes `event` where results are JSON; where they are for people, its place has other words.
pub(super) fn say(out: &Output, event: &Event<'_>) -> anyhow::Result<()> {
    if !out.is_json() {
        return Ok(());
    }
    let now = Timestamp::now();
    let time = now.round(jiff::Unit::Millisecond).unwrap_or(now).to_string();
    out.json_line(&Stamped { time, event })
}

/// The namespace and the name of `target`.
pub(super) fn names(target: &Target) -> (&str, &str) {
    (target.cluster.namespace(), &target.name)
}

/// The id of a key; `None` for the empty text that stands for "there was none".
pub(super) fn id(key: &Secret<String>) -> Option<String> {
    Some(key.expose()).filter(|key| !key.is_empty()).map(|key| key_id(key))
}

/// The same in words.
pub(super) fn named(key: &Secret<String>) -> String {
    id(key).unwrap_or_else(|| "no key".to_owned())
}
