//! Exec credential plugins: a kubeconfig's `users[].user.exec` as credentials for the Kubernetes API.
//!
//! What is decided is pure: the [configuration](config), the [request] that a plugin gets, its
//! [answer], the [policy] about what may run, and [when](schedule) it runs. The [run](mod@run) is one
//! process with limits. The [`Authenticator`] holds the credentials of one configuration for everybody in this
//! process: one run at a time, refreshed ahead of expiry, failures shared for a while.

mod answer;
mod authenticator;
mod config;
mod error;
pub mod metrics;
pub mod policy;
mod request;
mod run;
mod schedule;

use std::ffi::OsString;
use std::time::Duration;

pub(super) use self::authenticator::Authenticator;
pub(super) use self::config::{ClusterInfo, Config, Written, problems};
pub use self::config::{Mode, Stdin};
pub use self::error::CredentialError;
use self::policy::Policy;

/// What this program, and not the kubeconfig, says about plugins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What may run.
    pub policy: Policy,
    /// How long a run may take that nobody talks to.
    pub time_limit: Duration,
    /// Variables of our environment that plugins do not get.
    pub withheld: Vec<OsString>,
    /// How long busy connections live on after their client certificate was replaced.
    pub rotation_grace: Duration,
    /// Whether a plugin could talk to a person.
    pub stdin: Stdin,
    /// `PATH`: where plugins without a slash in their name are looked for.
    pub path: OsString,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            time_limit: Duration::from_secs(60),
            withheld: Vec::new(),
            rotation_grace: Duration::ZERO,
            stdin: Stdin::default(),
            path: OsString::new(),
        }
    }
}
