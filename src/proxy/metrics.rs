//! What the proxy counts, in Prometheus text (api-proxy.md 11).

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// The counters. Shared; every method may be called from anywhere.
#[derive(Debug, Default)]
pub struct Metrics {
    proxied: AtomicU64,
}

impl Metrics {
    /// All of it as Prometheus text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let proxied = self.proxied.load(Ordering::Relaxed);
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "# TYPE k8s_auth_proxy_requests_proxied counter");
        let _ = writeln!(text, "k8s_auth_proxy_requests_proxied {proxied}");
        text
    }
}
