//! Why a request is not forwarded: one value that the client's answer, the log line and the counter all come from.
//! Pure.
//!
//! Codes and leading words are those of api-proxy.md 6.5; what follows the leading words says which rule asked for the
//! refusal, because the person who reads it did not write the policy file.

use std::fmt;

use hyper::StatusCode;

use crate::short;

/// What kind of refusal it is: the label of `tailpod_proxy_refused_total{reason}` and the source of the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// tailscaled does not know the peer, or could not be asked.
    Identity,
    /// The grants of the caller cannot be read.
    Grants,
    /// The caller cannot be turned into a Kubernetes user.
    Impersonation,
    /// The caller asked for a group that it was not granted.
    Group,
    /// Recording is enforced and there is no recorder.
    NoRecorder,
    /// Recording is enforced and the request could not be recorded.
    Unrecorded,
    /// The session would switch to a protocol that cannot be recorded.
    Upgrade,
    /// Recording is enforced and the route runs commands on a node.
    NodeCommand,
    /// Recording is enforced, and streams that cannot be recorded are denied.
    Stream,
    /// The path is written in a way that two readers can understand differently.
    Path,
    /// The query of a recordable request is broken.
    Query,
    /// The head or the framing of the request breaks the rules of HTTP/1.1.
    Request,
    /// The head is too large.
    TooLarge,
    /// The peer has as many connections as it may have.
    TooMany,
    /// The API server could not be reached or did not answer properly.
    Upstream,
    /// The upstream credentials could not be had.
    Credentials,
    /// The API server no longer accepts the upstream credentials; a 401 would send the caller to log in anew.
    Stale,
    /// What was about to be sent breaks an invariant; a defect of this program.
    Invariant,
}

impl Reason {
    /// Every reason, for counters that start at zero.
    pub const ALL: [Self; 18] = [
        Self::Identity,
        Self::Grants,
        Self::Impersonation,
        Self::Group,
        Self::NoRecorder,
        Self::Unrecorded,
        Self::Upgrade,
        Self::NodeCommand,
        Self::Stream,
        Self::Path,
        Self::Query,
        Self::Request,
        Self::TooLarge,
        Self::TooMany,
        Self::Upstream,
        Self::Credentials,
        Self::Stale,
        Self::Invariant,
    ];

    /// The value of the `reason` label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Grants => "grants",
            Self::Impersonation => "impersonation",
            Self::Group => "group",
            Self::NoRecorder => "no-recorder",
            Self::Unrecorded => "unrecorded",
            Self::Upgrade => "upgrade",
            Self::NodeCommand => "node-command",
            Self::Stream => "stream",
            Self::Path => "path",
            Self::Query => "query",
            Self::Request => "request",
            Self::TooLarge => "too-large",
            Self::TooMany => "too-many",
            Self::Upstream => "upstream",
            Self::Credentials => "credentials",
            Self::Stale => "stale-credentials",
            Self::Invariant => "invariant",
        }
    }

    /// The code of the answer.
    pub fn status(self) -> StatusCode {
        match self {
            // 401 would be more apt, but kubectl answers it by asking for a password.
            Self::Identity | Self::Grants | Self::Impersonation | Self::Invariant => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Group | Self::NoRecorder | Self::Upgrade | Self::NodeCommand | Self::Stream => StatusCode::FORBIDDEN,
            Self::Unrecorded | Self::Upstream | Self::Credentials => StatusCode::BAD_GATEWAY,
            Self::Stale => StatusCode::SERVICE_UNAVAILABLE,
            Self::Path | Self::Query | Self::Request => StatusCode::BAD_REQUEST,
            // client-go waits and asks again.
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::TooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        }
    }
}

/// A request that is not forwarded, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What kind of refusal.
    pub reason: Reason,
    /// For the client and the log; one line, no credential in it.
    pub message: String,
}

impl Refusal {
    /// With this text, in which names of other people are [short](short::name) already.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { reason, message: short::message(&message).into_owned() }
    }

    /// The one answer to every failure to find out who asks.
    pub fn identity() -> Self {
        Self::new(Reason::Identity, "failed to authenticate caller")
    }

    /// The code of the answer.
    pub fn status(&self) -> StatusCode {
        self.reason.status()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn labels_are_distinct_and_complete() {
        let labels: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.label()).collect();
        assert_eq!(labels.len(), Reason::ALL.len());
        assert!(Reason::ALL.iter().all(|reason| reason.status().as_u16() >= 400));
    }
}
