//! The state Secret before the node starts (api-proxy.md 9.4, step 6).

use std::time::Duration;

use tokio::time::Instant;

use super::FIELD_MANAGER;
use crate::backoff::{self, Backoff};
use crate::causes::chain;
use crate::k8s::state::{self, KeyPatch};
use crate::k8s::{Cluster, Error};
use crate::proxy::config::Config;
use crate::settings::proxy::ProxySettings;

/// How long an API server that cannot be reached is waited for.
const LIMIT: Duration = Duration::from_secs(60);

/// The Secret that tailscaled keeps its state in.
#[derive(Clone, Debug)]
pub(super) struct StateStore {
    /// The cluster, seen from our namespace.
    pub(super) cluster: Cluster,
    /// Its name.
    pub(super) name: String,
    /// Whether the operator reads the device keys in it.
    pub(super) publishes: bool,
    /// Who we are, when the Secret was not there yet to be told: tailscaled makes it.
    pub(super) untold: KeyPatch,
}

/// Finds the Secret that the config names and, under the operator, writes who we are; `None` when the state is
/// elsewhere.
pub(super) async fn prepare(
    settings: &ProxySettings,
    config: &Config,
    cluster: &Cluster,
) -> Result<Option<StateStore>, String> {
    let Some(name) = config.state_secret() else { return Ok(None) };
    let publishes = settings.pod_uid.is_some();
    let mut store = StateStore { cluster: cluster.clone(), name: name.to_owned(), publishes, untold: KeyPatch::new() };
    let Some(uid) = &settings.pod_uid else { return Ok(Some(store)) };
    let deadline = Instant::now() + LIMIT;
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
    loop {
        let error = match reset(&store, uid, settings.capver, config).await {
            Ok(untold) => {
                store.untold = untold;
                return Ok(Some(store));
            }
            Err(error) => error,
        };
        let pause = backoff.next(backoff::jitter());
        if !error.is_transient() || Instant::now() + pause > deadline {
            if let Some(rule) = error.missing_rule() {
                tracing::warn!("the Role lacks:\n{rule}");
            }
            return Err(format!("cannot prepare state Secret {name}: {}", chain(&error)));
        }
        if backoff.failures() == 1 {
            tracing::warn!("cannot prepare state Secret {name}, trying on for {LIMIT:?}: {}", chain(&error));
        }
        tokio::time::sleep(pause).await;
    }
}

/// What remains to be told.
async fn reset(store: &StateStore, uid: &str, capver: u32, config: &Config) -> Result<KeyPatch, Error> {
    let who = KeyPatch::new().set(state::CAPVER, capver.to_string()).set(state::POD_UID, uid);
    // A Secret that does not exist yet is tailscaled's to create.
    let Some(secret) = store.cluster.secret(&store.name).await? else { return Ok(who) };
    let patch = state::without_answered_request(who.clone(), &secret, config.auth_key.as_ref());
    match store.cluster.merge(&store.name, &patch.managed_by(FIELD_MANAGER)).await {
        Ok(()) => Ok(KeyPatch::new()),
        Err(Error::NotFound { .. }) => Ok(who),
        Err(error) => Err(error),
    }
}
