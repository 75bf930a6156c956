//! What the proxy counts, in Prometheus text (api-proxy.md 11).

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use super::policy::{Attempt, Decision, Warning};
use super::refusal::Reason;
use crate::k8s::exec;

/// Upper bounds of the duration histogram, in microseconds. Watches end in the last one.
const BOUNDS: [u64; 12] =
    [500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 10_000_000, 60_000_000];

/// Kubernetes' verbs. Anything else is counted as `other`, so that no client can make up labels.
const VERBS: [&str; 14] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "proxy",
    "head",
    "post",
    "put",
    "options",
    "other",
];

/// The counters. Shared; every method may be called from anywhere.
#[derive(Debug, Default)]
pub struct Metrics {
    proxied: AtomicU64,
    events: AtomicU64,
    sessions: AtomicU64,
    uploaded: AtomicU64,
    upstream_errors: AtomicU64,
    active_sessions: AtomicI64,
    connections: AtomicI64,
    refused: [AtomicU64; Reason::ALL.len()],
    unrecorded: [AtomicU64; Warning::ALL.len()],
    durations: [Histogram; VERBS.len()],
}

#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

/// Counts as long as it lives.
#[derive(Debug)]
pub(super) struct Open<'a>(&'a AtomicI64);

impl Metrics {
    /// A request is forwarded.
    pub(super) fn proxied(&self) {
        add(&self.proxied, 1);
    }

    /// Recordings were attempted.
    pub(super) fn attempted(&self, decision: &Decision) {
        add(&self.events, u64::from(decision.event == Attempt::Made));
        add(&self.sessions, u64::from(decision.session == Attempt::Made));
    }

    /// A request was not forwarded.
    pub(super) fn refused(&self, reason: Reason) {
        if let Some(at) = Reason::ALL.iter().position(|known| *known == reason) {
            add(&self.refused[at], 1);
        }
    }

    /// Something passed unrecorded.
    pub(super) fn unrecorded(&self, warning: Warning) {
        if let Some(at) = Warning::ALL.iter().position(|known| *known == warning) {
            add(&self.unrecorded[at], 1);
        }
    }

    /// The API server was not reached, or did not answer properly.
    pub(super) fn upstream_failed(&self) {
        add(&self.upstream_errors, 1);
    }

    /// A stream was upgraded; it ends when the value is dropped.
    pub(super) fn session(&self) -> Open<'_> {
        Open::of(&self.active_sessions)
    }

    /// A client connected; it leaves when the value is dropped.
    pub(super) fn connection(&self) -> Open<'_> {
        Open::of(&self.connections)
    }

    /// A request of this verb took so long.
    pub(super) fn took(&self, verb: &str, took: Duration) {
        let at = VERBS.iter().position(|known| *known == verb).unwrap_or(VERBS.len() - 1);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.iter().position(|bound| micros <= *bound).unwrap_or(BOUNDS.len());
        add(&self.durations[at].buckets[bucket], 1);
        add(&self.durations[at].micros, micros);
    }

    /// All of it as Prometheus text.
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(8 << 10);
        for (name, counter, help) in [
            ("k8s_auth_proxy_requests_proxied", &self.proxied, "Requests forwarded to the API server."),
            (
                "k8s_auth_proxy_api_request_event_recording_attempted",
                &self.events,
                "Requests whose recording as an event was attempted.",
            ),
            ("k8s_auth_proxy_session_recordings_attempted", &self.sessions, "Sessions whose recording was attempted."),
            (
                "k8s_auth_proxy_session_recordings_uploaded",
                &self.uploaded,
                "Recordings whose upload ended without error.",
            ),
            (
                "tailpod_proxy_upstream_errors_total",
                &self.upstream_errors,
                "Requests for which the API server was not reached or did not answer properly.",
            ),
        ] {
            family(&mut text, name, "counter", help);
            line(&mut text, name, "", counter.load(Ordering::Relaxed));
        }
        for (name, gauge, help) in [
            ("tailpod_proxy_active_sessions", &self.active_sessions, "Upgraded streams that are open."),
            ("tailpod_proxy_connections", &self.connections, "Client connections that are open."),
        ] {
            family(&mut text, name, "gauge", help);
            line(&mut text, name, "", gauge.load(Ordering::Relaxed));
        }
        family(&mut text, "tailpod_proxy_refused_total", "counter", "Requests that were not forwarded.");
        for (reason, counter) in Reason::ALL.iter().zip(&self.refused) {
            let labels = format!("{{reason=\"{}\"}}", reason.label());
            line(&mut text, "tailpod_proxy_refused_total", &labels, counter.load(Ordering::Relaxed));
        }
        let unrecorded = "tailpod_proxy_unrecorded_sessions_total";
        family(&mut text, unrecorded, "counter", "Requests that passed although a recorder was asked for.");
        for (warning, counter) in Warning::ALL.iter().zip(&self.unrecorded) {
            let labels = format!("{{reason=\"{}\"}}", warning.label());
            line(&mut text, unrecorded, &labels, counter.load(Ordering::Relaxed));
        }
        let duration = "tailpod_proxy_request_duration_seconds";
        family(&mut text, duration, "histogram", "From a request's head to the end of its answer.");
        for (verb, histogram) in VERBS.iter().zip(&self.durations) {
            histogram.render(&mut text, duration, verb);
        }
        text.push_str(&exec::metrics::snapshot().render());
        text
    }
}

impl Histogram {
    fn render(&self, text: &mut String, name: &str, verb: &str) {
        let mut total = 0;
        let counts: Vec<_> = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        if counts.iter().all(|count| *count == 0) {
            return;
        }
        let bounds = BOUNDS.iter().map(|bound| seconds(*bound)).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(counts) {
            total += count;
            line(text, &format!("{name}_bucket"), &format!("{{verb=\"{verb}\",le=\"{bound}\"}}"), total);
        }
        let labels = format!("{{verb=\"{verb}\"}}");
        line(text, &format!("{name}_sum"), &labels, seconds(self.micros.load(Ordering::Relaxed)));
        line(text, &format!("{name}_count"), &labels, total);
    }
}

impl<'a> Open<'a> {
    fn of(gauge: &'a AtomicI64) -> Self {
        gauge.fetch_add(1, Ordering::Relaxed);
        Self(gauge)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

/// Microseconds as a decimal fraction of seconds, exactly.
fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

// Writing to a `String` cannot fail.
fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

fn line(text: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ = writeln!(text, "{name}{labels} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_counted_by_verb_up_to_each_bound() {
        let metrics = Metrics::default();
        for micros in [500, 501, 60_000_000, 60_000_001] {
            metrics.took("list", Duration::from_micros(micros));
        }
        metrics.took("made-up", Duration::from_secs(3600));
        let text = metrics.render();
        let name = "tailpod_proxy_request_duration_seconds";
        let bucket = |verb: &str, bound: &str, count: u64| {
            let line = format!("{name}_bucket{{verb=\"{verb}\",le=\"{bound}\"}} {count}");
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        };
        for (bound, count) in [("0.0005", 1), ("0.001", 2), ("0.25", 2), ("1", 2), ("10", 2), ("60", 3), ("+Inf", 4)] {
            bucket("list", bound, count);
        }
        bucket("other", "60", 0);
        bucket("other", "+Inf", 1);
        for line in ["_sum{verb=\"list\"} 120.001002", "_count{verb=\"list\"} 4", "_sum{verb=\"other\"} 3600"] {
            assert!(text.contains(&format!("{name}{line}\n")), "{line} is not in\n{text}");
        }
        assert!(!text.contains("made-up") && !text.contains("verb=\"get\""), "{text}");
    }
}
