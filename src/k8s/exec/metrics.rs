//! What plugins have done since this process began, for whoever renders metrics.
//!
//! Process-wide, like the authenticators themselves: two users of one plugin are one plugin. The four of client-go
//! (`tools/metrics`), under our names.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::authenticator;
use super::error::CredentialError;
use crate::lock::lock;

static CALLS: Mutex<BTreeMap<(i32, &'static str), u64>> = Mutex::new(BTreeMap::new());
static ALLOWED: AtomicU64 = AtomicU64::new(0);
static DENIED: AtomicU64 = AtomicU64::new(0);
static AGES: [AtomicU64; AGE_BOUNDS.len()] = [const { AtomicU64::new(0) }; AGE_BOUNDS.len()];
static AGE_COUNT: AtomicU64 = AtomicU64::new(0);
static AGE_SUM: AtomicU64 = AtomicU64::new(0);

/// client-go's bounds for the age of a certificate when it is replaced, in seconds.
const AGE_BOUNDS: [u64; 11] =
    [600, 1_800, 3_600, 14_400, 86_400, 604_800, 2_592_000, 7_776_000, 15_552_000, 31_104_000, 124_416_000];

/// One moment of all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Runs by exit code and reason.
    pub calls: BTreeMap<(i32, &'static str), u64>,
    /// Runs that the policy allowed.
    pub allowed: u64,
    /// Runs that the policy forbade.
    pub denied: u64,
    /// Seconds since 1970 at which the first of the held client certificates expires.
    pub earliest_expiry: Option<i64>,
    /// How many certificates were at most so old, in seconds, when they were replaced; cumulative.
    pub ages: Vec<(u64, u64)>,
    /// How many were replaced.
    pub age_count: u64,
    /// Their ages together, in seconds.
    pub age_sum: u64,
}

/// A plugin that was allowed to run has ended, or could not begin. What it said is another matter.
pub(super) fn called(result: Result<(), &CredentialError>) {
    let key = match result {
        Ok(()) => (0, "no_error"),
        Err(CredentialError::Failed { code, .. }) => (*code, "plugin_execution_error"),
        Err(CredentialError::NotFound { .. }) => (1, "plugin_not_found_error"),
        Err(_) => (1, "client_internal_error"),
    };
    *lock(&CALLS).entry(key).or_default() += 1;
}

pub(super) fn judged(is_allowed: bool) {
    if is_allowed { &ALLOWED } else { &DENIED }.fetch_add(1, Ordering::Relaxed);
}

/// A certificate that was `age` seconds old has been replaced.
pub(super) fn rotated(age: u64) {
    for (bound, count) in AGE_BOUNDS.iter().zip(&AGES) {
        if age <= *bound {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
    AGE_SUM.fetch_add(age, Ordering::Relaxed);
    AGE_COUNT.fetch_add(1, Ordering::Relaxed);
}

/// All of them, now.
pub fn snapshot() -> Snapshot {
    Snapshot {
        calls: lock(&CALLS).clone(),
        allowed: ALLOWED.load(Ordering::Relaxed),
        denied: DENIED.load(Ordering::Relaxed),
        earliest_expiry: authenticator::earliest_expiry(),
        ages: AGE_BOUNDS.iter().zip(&AGES).map(|(bound, count)| (*bound, count.load(Ordering::Relaxed))).collect(),
        age_count: AGE_COUNT.load(Ordering::Relaxed),
        age_sum: AGE_SUM.load(Ordering::Relaxed),
    }
}

impl Snapshot {
    /// In the text format of Prometheus. Nothing at all while no plugin is in use.
    ///
    /// # Panics
    /// Never: writing to a `String` does not fail.
    pub fn render(&self) -> String {
        let mut text = String::new();
        if self.calls.is_empty() && self.allowed + self.denied == 0 {
            return text;
        }
        let mut line = |line: std::fmt::Arguments<'_>| writeln!(text, "{line}").expect("writing to a String");
        line(format_args!("# HELP tailpod_exec_plugin_calls_total Runs of exec credential plugins."));
        line(format_args!("# TYPE tailpod_exec_plugin_calls_total counter"));
        for ((code, status), count) in &self.calls {
            line(format_args!("tailpod_exec_plugin_calls_total{{code=\"{code}\",call_status=\"{status}\"}} {count}"));
        }
        line(format_args!("# HELP tailpod_exec_plugin_policy_decisions_total Decisions whether a plugin may run."));
        line(format_args!("# TYPE tailpod_exec_plugin_policy_decisions_total counter"));
        for (decision, count) in [("allowed", self.allowed), ("denied", self.denied)] {
            line(format_args!("tailpod_exec_plugin_policy_decisions_total{{decision=\"{decision}\"}} {count}"));
        }
        if let Some(at) = self.earliest_expiry {
            let name = "tailpod_exec_plugin_certificate_expiry_timestamp_seconds";
            line(format_args!("# HELP {name} When the first client certificate from a plugin expires."));
            line(format_args!("# TYPE {name} gauge"));
            line(format_args!("{name} {at}"));
        }
        if self.age_count > 0 {
            let name = "tailpod_exec_plugin_certificate_rotation_age_seconds";
            line(format_args!("# HELP {name} Age of client certificates from plugins when they were replaced."));
            line(format_args!("# TYPE {name} histogram"));
            for (bound, count) in &self.ages {
                line(format_args!("{name}_bucket{{le=\"{bound}\"}} {count}"));
            }
            line(format_args!("{name}_bucket{{le=\"+Inf\"}} {}", self.age_count));
            line(format_args!("{name}_sum {}", self.age_sum));
            line(format_args!("{name}_count {}", self.age_count));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_prometheus() {
        let snapshot = Snapshot {
            calls: BTreeMap::from([((0, "no_error"), 2), ((3, "plugin_execution_error"), 1)]),
            allowed: 3,
            denied: 0,
            earliest_expiry: Some(1_800_000_000),
            ages: vec![(600, 0), (1_800, 1)],
            age_count: 1,
            age_sum: 1_000,
        };
        let text = snapshot.render();
        let samples: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            samples,
            [
                "tailpod_exec_plugin_calls_total{code=\"0\",call_status=\"no_error\"} 2",
                "tailpod_exec_plugin_calls_total{code=\"3\",call_status=\"plugin_execution_error\"} 1",
                "tailpod_exec_plugin_policy_decisions_total{decision=\"allowed\"} 3",
                "tailpod_exec_plugin_policy_decisions_total{decision=\"denied\"} 0",
                "tailpod_exec_plugin_certificate_expiry_timestamp_seconds 1800000000",
                "tailpod_exec_plugin_certificate_rotation_age_seconds_bucket{le=\"600\"} 0",
                "tailpod_exec_plugin_certificate_rotation_age_seconds_bucket{le=\"1800\"} 1",
                "tailpod_exec_plugin_certificate_rotation_age_seconds_bucket{le=\"+Inf\"} 1",
                "tailpod_exec_plugin_certificate_rotation_age_seconds_sum 1000",
                "tailpod_exec_plugin_certificate_rotation_age_seconds_count 1",
            ]
        );
        assert_eq!(Snapshot::default().render(), "");
    }
}
