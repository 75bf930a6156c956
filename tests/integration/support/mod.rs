//! What the tests add to the sandbox: a scene to boot in, the boots in it, messages and requests to send.
//!
//! Every wait is for an event, and none is longer than [`SOON`].

mod boot;
mod bus;
mod http;
mod scene;

use std::collections::BTreeMap;
use std::time::Duration;

pub(crate) use boot::*;
pub(crate) use bus::*;
pub(crate) use http::*;
pub(crate) use scene::*;

/// Longest wait for something that takes milliseconds on an idle machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The line everybody waits for.
pub(crate) const READY: &str = "Startup complete, waiting for shutdown signal";

/// The Pod's namespace.
pub(crate) const NAMESPACE: &str = "default";

/// The state Secret.
pub(crate) const SECRET: &str = "tailscale";

/// What boot writes as `tailscale_capver`.
pub(crate) const CAP: u32 = tailpod::settings::CAPVER;

/// The data of a Secret as text.
pub(crate) type Data = BTreeMap<String, String>;

/// Where the machine forbids what a test needs, it says so; the real-parts run proves the same as root.
#[expect(clippy::print_stderr, reason = "a skipped test is never silent")]
pub(crate) fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}
