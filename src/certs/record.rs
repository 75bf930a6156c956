//! What a restarted process must still know of a name: its failures and when the next attempt is due. Pure.
//!
//! Kept in annotations of the TLS Secret, or in one file outside of Kubernetes. What cannot be read counts as nothing.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::failure::Class;

/// Failures in a row.
pub const FAILURES: &str = "tailpod.dev/cert-failures";
/// When the next attempt is due, RFC 3339.
pub const NEXT_ATTEMPT: &str = "tailpod.dev/cert-next-attempt";
/// `<class>: <text>` of the last failure.
pub const LAST_ERROR: &str = "tailpod.dev/cert-last-error";
/// `<holder>@<time>`: somebody is issuing.
pub const ISSUING: &str = "tailpod.dev/cert-issuing";
/// `<holder>@<time>`: somebody restarts to read newer certificates.
pub const RELOADING: &str = "tailpod.dev/cert-reloading";
/// The orders of late for the name, as a JSON array.
pub const LEDGER: &str = "tailpod.dev/cert-ledger";

/// Longest error text that is kept, in characters.
const LONGEST: usize = 256;

/// What is kept of one name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    /// Failures in a row.
    pub failures: u32,
    /// When the next attempt is due.
    pub next_attempt: Option<Timestamp>,
    /// The class of the last failure.
    pub last_error_class: Option<Class>,
    /// Its text, at most 256 characters.
    pub last_error: Option<String>,
}

impl Record {
    /// After a failure.
    pub fn failed(failures: u32, next_attempt: Timestamp, class: Class, text: &str) -> Self {
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect();
        Self { failures, next_attempt: Some(next_attempt), last_error_class: Some(class), last_error: Some(text) }
    }

    /// After a success.
    pub fn succeeded(next_attempt: Timestamp) -> Self {
        Self { next_attempt: Some(next_attempt), ..Self::default() }
    }

    /// As annotations; `None` removes one.
    pub fn annotations(&self) -> BTreeMap<&'static str, Option<String>> {
        let error = self
            .last_error_class
            .map(|class| format!("{}: {}", class.as_str(), self.last_error.as_deref().unwrap_or_default()));
        BTreeMap::from([
            (FAILURES, (self.failures > 0).then(|| self.failures.to_string())),
            (NEXT_ATTEMPT, self.next_attempt.map(|at| format!("{at:.0}"))),
            (LAST_ERROR, error),
        ])
    }

    /// From annotations.
    pub fn of<'a>(annotation: impl Fn(&str) -> Option<&'a str>) -> Self {
        let error = annotation(LAST_ERROR).and_then(|text| text.split_once(": "));
        let class = error.and_then(|(class, _)| Class::from_name(class));
        Self {
            failures: annotation(FAILURES).and_then(|text| text.parse().ok()).unwrap_or_default(),
            next_attempt: annotation(NEXT_ATTEMPT).and_then(|text| text.parse().ok()),
            last_error_class: class,
            last_error: class.and(error).map(|(_, text)| text.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_are_read_as_they_are_written() {
        let at: Timestamp = "2026-01-01T00:00:00.75Z".parse().unwrap();
        let record = Record::failed(3, at, Class::RateLimited, &format!("too\nmany: {}", "x".repeat(300)));
        let annotations = record.annotations();
        let read = Record::of(|name| annotations.get(name).and_then(Option::as_deref));
        assert_eq!(read.next_attempt.unwrap().to_string(), "2026-01-01T00:00:00Z");
        assert_eq!(read, Record { next_attempt: read.next_attempt, ..record });
        assert_eq!(read.last_error.unwrap().chars().count(), 256);
        let fine = Record::succeeded(at).annotations();
        assert_eq!((&fine[FAILURES], &fine[LAST_ERROR]), (&None, &None), "a success clears what a failure left");
        assert_eq!(Record::of(|_| Some("nonsense")), Record::default());
    }
}
