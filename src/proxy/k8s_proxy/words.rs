//! What tailscaled says, as lines of our log: at debug, as upstream logs the node that it embeds (`cmd/k8s-proxy`).
//!
//! Where debug is not logged its last lines are kept: whoever reads why it died needs them.

use std::collections::VecDeque;

use tokio::io::AsyncReadExt as _;
use tokio::process::ChildStderr;
use tokio_util::sync::CancellationToken;
use tracing::Level;

use crate::daemon::lines::Lines;
use crate::secret::redact_keys;

/// Lines that tell why it died: Go's own last words, and what led to them.
const LAST: usize = 8;

/// The name of its lines in the log.
const LOGGER: &str = "tailscaled";

/// Reads on whatever happens, to the end. With an end that comes before `leaving` the last lines are warnings.
pub(super) async fn relay(mut stderr: ChildStderr, leaving: CancellationToken) {
    let (mut lines, mut last) = (Lines::default(), VecDeque::new());
    let mut on_line = |line: &str| {
        if tracing::enabled!(Level::DEBUG) {
            tracing::debug!(logger = LOGGER, "{}", redact_keys(line));
            return;
        }
        if last.len() == LAST {
            last.pop_front();
        }
        last.push_back(line.to_owned());
    };
    let mut chunk = [0; 4096];
    while let Ok(length @ 1..) = stderr.read(&mut chunk).await {
        lines.push(&chunk[..length], &mut on_line);
    }
    lines.finish(&mut on_line);
    if !leaving.is_cancelled() {
        for line in last {
            tracing::warn!(logger = LOGGER, "{}", redact_keys(&line));
        }
    }
}
