//! A new auth key: which one failed, where the next one appears, what goes with the old one (api-proxy.md 9.6).

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::FIELD_MANAGER;
use super::shell::Context;
use super::store::StateStore;
use crate::authkey::{self, KeySource, Scope};
use crate::causes::chain;
use crate::localapi::LocalApi;
use crate::secret::Secret;

/// The key of the config in force.
pub(super) type Keys = watch::Receiver<Option<Secret<String>>>;

/// Disconnects from control, sets the marker, waits for a key that differs from `failed`.
pub(super) async fn request_and_wait(
    context: &Context,
    store: &StateStore,
    api: &LocalApi,
    failed: Option<Secret<String>>,
    keys: Keys,
    stop: &CancellationToken,
) -> Result<(), String> {
    let failed = failed.unwrap_or_default();
    if let Err(error) = api.disconnect_control().await {
        return Err(format!("error disconnecting from control: {}", chain(&error)));
    }
    authkey::request(&store.cluster, &store.name, &failed, FIELD_MANAGER)
        .await
        .map_err(|error| format!("failed to set reissue_authkey in Kubernetes Secret: {}", chain(&error)))?;
    authkey::wait(&KeySource::Told(keys), &failed, context.settings.reissue_timeout, stop, &mut |_progress| {})
        .await
        .map(|_new| ())
        .map_err(|error| format!("failed to receive new auth key: {}", chain(&error)))
}

/// Removes the identity and the marker, and verifies it.
pub(super) async fn clear(store: &StateStore) -> Result<(), String> {
    authkey::clear(&store.cluster, &store.name, Scope::Identity, None, FIELD_MANAGER)
        .await
        .map(|_cleared| ())
        .map_err(|error| chain(&error))
}
