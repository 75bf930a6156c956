//! How a request ends before its answer does: what the client gets to know, and what is counted.

use super::access_log::Entry;
use super::exchange::Failure;
use super::refusal::{Reason, Refusal};
use super::serve::Shared;

/// What the client gets to know about a request that ended early.
pub(super) enum Ended {
    /// An answer of ours.
    Refused(Refusal),
    /// Nothing more: it is gone, or something is missing that it must notice.
    Aborted,
}

impl From<Refusal> for Ended {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Without `takes_answer` the client is in the middle of another one.
pub(super) fn gave_up(failure: Failure, takes_answer: bool, shared: &Shared, entry: &mut Entry) -> Ended {
    entry.failed(&failure);
    let refusal = match failure {
        Failure::ClientGone | Failure::ClientStuck(_) => return Ended::Aborted,
        Failure::BadBody(error) => Refusal::new(Reason::Request, error.to_string()),
        Failure::NoAnswer(_) | Failure::BadAnswer(_) | Failure::Truncated(_) => {
            upstream_failed(Refusal::new(Reason::Upstream, failure.to_string()), shared)
        }
    };
    if takes_answer { refusal.into() } else { Ended::Aborted }
}

pub(super) fn upstream_failed(refusal: Refusal, shared: &Shared) -> Refusal {
    shared.metrics.upstream_failed();
    refusal
}
