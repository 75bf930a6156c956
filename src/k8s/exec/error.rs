//! Why there are no credentials, in client-go's words. Pure.

use std::time::Duration;

/// Why there are no credentials. Cheap to clone: everybody who waited for the same run gets the same error.
///
/// The texts are client-go's and name the plugin. They are for our log and our own user, never for a peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// The policy forbids the plugin.
    #[error("{0}")]
    Denied(String),
    /// There is nobody whom an interactive plugin could talk to.
    #[error("exec plugin cannot support interactive mode: {0}")]
    NotInteractive(String),
    /// There is no such program, or it is none.
    #[error("exec: executable {command} not found")]
    NotFound {
        /// As configured.
        command: String,
        /// How to get it; left out when it was said often enough.
        hint: Option<String>,
    },
    /// It said itself that it failed.
    #[error("exec: executable {command} failed with exit code {code}")]
    Failed {
        /// As configured.
        command: String,
        /// The exit code; -1 for a signal.
        code: i32,
    },
    /// It took too long and was killed.
    #[error("exec: executable {command} did not finish within {}", crate::goduration::format(*.after))]
    TimedOut {
        /// As configured.
        command: String,
        /// The limit.
        after: Duration,
    },
    /// It said too much and was killed.
    #[error("exec: executable {command} printed more than {limit} bytes")]
    TooLong {
        /// As configured.
        command: String,
        /// The limit.
        limit: usize,
    },
    /// It could not be started for another reason.
    #[error("exec: {0}")]
    Start(String),
    /// Its answer cannot be used.
    #[error("{0}")]
    Answer(String),
    /// A token, or a file with one, cannot be used.
    #[error("{0}")]
    Unusable(String),
}

impl CredentialError {
    /// What to do about it, if that is worth saying now.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::NotFound { hint, .. } => hint.as_deref(),
            _ => None,
        }
    }
}
