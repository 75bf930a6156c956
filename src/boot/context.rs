//! What the tasks of one boot share.

use super::forward::wanted::Plan;
use super::prepare::{Prepared, StateSecret};
use super::reload;
use crate::daemon::program::Environment;
use crate::daemon::reaper::Children;
use crate::localapi::LocalApi;
use crate::secret::Secret;
use crate::settings::{Credentials, Login, Mode, Settings};

/// Everything the tasks of one boot share.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) settings: Settings,
    /// What of them is forwarded.
    pub(super) plan: Plan,
    pub(super) environment: Environment,
    pub(super) children: Children,
    pub(super) prepared: Prepared,
    pub(super) api: LocalApi,
    pub(super) baseline: reload::Baseline,
}

impl Context {
    pub(super) fn secret(&self) -> Option<&StateSecret> {
        self.prepared.secret.as_ref()
    }

    /// Every secret that a child may have been given, for keeping them out of its words.
    pub(super) fn secrets(&self) -> Vec<Secret<String>> {
        let given = match &self.settings.login {
            Login::AuthKey(key) => Some(key),
            Login::Credentials(Credentials::OAuth { secret, .. }) => Some(secret),
            Login::Credentials(Credentials::IdToken { token, .. }) => Some(token),
            Login::Credentials(Credentials::Ambient { .. } | Credentials::Audience { .. }) | Login::Interactive => None,
        };
        // A path is no secret, and an empty text would be found everywhere.
        let is_secret = |secret: &&Secret<String>| !secret.expose().is_empty() && !secret.expose().starts_with("file:");
        given.into_iter().chain(&self.prepared.adopted_key).filter(is_secret).cloned().collect()
    }
}

/// Whether a config file configures the node; its path.
pub(super) fn config_path(settings: &Settings) -> Option<&std::path::Path> {
    match &settings.mode {
        Mode::OneStep(config) => Some(&config.path),
        Mode::AuthOnce | Mode::AlwaysAuth => None,
    }
}
