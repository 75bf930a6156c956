//! The shell of the auth key reissue (boot.md 6): which key failed, where the new one appears.

use std::io::ErrorKind;

use tokio_util::sync::CancellationToken;

use super::chain;
use super::context::Context;
use crate::authkey::{self, KeySource, Scope};
use crate::k8s::state;
use crate::settings::{Mode, StateStore};

/// Disconnects from control, sets the marker, waits for a key that differs from the failed one.
pub(super) async fn request_and_wait(context: &Context, stop: &CancellationToken) -> Result<(), String> {
    let Some(secret) = context.secret() else { return Err("there is no state Secret".to_owned()) };
    if let Err(error) = context.api.disconnect_control().await {
        return Err(format!("error disconnecting from control: {}", chain(&error)));
    }
    let (failed, source) = match &context.settings.mode {
        Mode::OneStep(config) => {
            // The key as it was when tailscaled was started: that is the one that failed.
            let failed = config.auth_key.clone().unwrap_or_default();
            (failed, KeySource::config(&config.path))
        }
        Mode::AuthOnce | Mode::AlwaysAuth => {
            let stored = secret.cluster.secret(&secret.name).await.map_err(|error| chain(&error))?;
            let failed = stored.and_then(|stored| stored.auth_key(state::AUTHKEY)).unwrap_or_default();
            let key = state::AUTHKEY.to_owned();
            (failed, KeySource::Secret { cluster: secret.cluster.clone(), name: secret.name.clone(), key })
        }
    };
    authkey::request(&secret.cluster, &secret.name, &failed, state::FIELD_MANAGER)
        .await
        .map_err(|error| format!("failed to set reissue_authkey in Kubernetes Secret: {}", chain(&error)))?;
    authkey::wait(&source, &failed, context.settings.reissue_timeout, stop, &mut |_progress| {})
        .await
        .map(|_new| ())
        .map_err(|error| format!("failed to receive new auth key: {}", chain(&error)))
}

/// Removes the identity and the marker and verifies it.
pub(super) async fn clear(context: &Context) -> Result<(), String> {
    let Some(secret) = context.secret() else { return Ok(()) };
    // From outside the cluster the identity is in a directory and the Secret only mirrors it (boot.md E.5).
    if let StateStore::Dir(dir) = &context.settings.daemon.state {
        let state = dir.join("tailscaled.state");
        match std::fs::remove_file(&state) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(format!("cannot remove `{}`: {error}", state.display()));
            }
            _ => {}
        }
    }
    authkey::clear(&secret.cluster, &secret.name, Scope::Identity, None, state::FIELD_MANAGER)
        .await
        .map(|_cleared| ())
        .map_err(|error| chain(&error))
}
