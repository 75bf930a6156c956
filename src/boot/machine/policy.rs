//! What decides the course of a boot before it has begun. Pure.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::settings::{Persona, RestartDaemon};

/// What of the settings decides the course of a boot.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Whose contract applies.
    pub persona: Persona,
    /// What configures the node.
    pub mode: Mode,
    /// What may be done with the state Secret.
    pub store: Store,
    /// Where tailpod finds something to log in with, in the order to try. Empty: a human logs in.
    pub login_sources: Vec<LoginSource>,
    /// tailpod: log in even when the state holds a login (`--force-reauth`).
    pub force_login: bool,
    /// From the end of host preparation to Running; for tailpod at most `--timeout`.
    pub boot_timeout: Duration,
    /// tailpod: how long a human may take (`--timeout`, else `TAILPOD_LOGIN_TIMEOUT`).
    pub login_timeout: Duration,
    /// What an uninvited death of tailscaled leads to.
    pub restart: RestartDaemon,
    /// Delete the Secret's `authkey` after the first success.
    pub delete_authkey: bool,
    /// Take away what a former run served before anything new is.
    pub clear_serve_config: bool,
    /// There is something to serve, or to look for and advertise.
    pub serve: bool,
    /// There are Services of an HA group to serve once the startup is complete.
    pub group: bool,
    /// Packets are forwarded, for us or for a group.
    pub firewall: bool,
    /// Nobody may be sent to the node before its own packet rules are in force.
    pub forwards: bool,
    /// The control server, when it is not the default one: for messages.
    pub control_url: Option<String>,
    /// The tags asked for: for messages.
    pub tags: Vec<String>,
    /// Ask tailscaled to tune UDP GRO forwarding.
    pub tune_gro: bool,
    /// Link the default socket path to ours.
    pub link_socket: bool,
}

impl Policy {
    pub(super) fn is_tailpod(&self) -> bool {
        self.persona == Persona::Tailpod
    }
}

/// [`crate::settings::Mode`] without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A config file configures the node.
    OneStep,
    /// Log in only when needed.
    AuthOnce,
    /// Log in on every start.
    AlwaysAuth,
}

/// What may be done with the state Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// There is none.
    None,
    /// There is one and it cannot be patched.
    ReadOnly,
    /// "kube-store mode" of boot.md: patches are allowed.
    Writable,
}

/// Something tailpod can log in with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginSource {
    /// `TS_AUTHKEY=file:<path>`, re-read at every attempt.
    File(PathBuf),
    /// A literal `TS_AUTHKEY` (or an OAuth or ARN text in it).
    Environment,
    /// Client id, client secret, ID token or audience.
    Credentials,
    /// Key `authkey` of the state Secret.
    Secret,
    /// Nothing: control hands out a URL for a human.
    Human,
}

impl fmt::Display for LoginSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "the auth key in `{}`", path.display()),
            Self::Environment => f.write_str("the auth key in TS_AUTHKEY"),
            Self::Credentials => f.write_str("the client credentials"),
            Self::Secret => f.write_str("the auth key in the state Secret"),
            Self::Human => f.write_str("a login in the browser"),
        }
    }
}
