//! Auth key reissue: ask for a new key, wait for it, clear what belonged to the old one.
//!
//! A node that cannot log in puts the key that failed into its state Secret ([`request`]). An operator, or a person,
//! answers with a new key in the node's config or in the Secret ([`wait()`] sees it). Then the marker goes, with the
//! identity that was registered under the old key ([`clear`]), and the next start registers a new node. Follows
//! upstream's `kube/authkey/authkey.go`; the marker is an intent log, so each step can be repeated after a crash.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use tailpod::{authkey::{self, KeySource, Scope}, k8s::{Cluster, state}, secret::Secret};
//! # async fn example(cluster: Cluster) -> Result<(), Box<dyn std::error::Error>> {
//! # let stop = tokio_util::sync::CancellationToken::new();
//! let failed = Secret::new("tskey-auth-kOLD-x".to_owned());
//! authkey::request(&cluster, "ts-0", &failed, state::FIELD_MANAGER).await?;
//! let source = KeySource::Secret { cluster: cluster.clone(), name: "ts-0".into(), key: state::AUTHKEY.into() };
//! let new = authkey::wait(&source, &failed, Duration::from_secs(600), &stop, &mut |_| {}).await?;
//! // The daemon must not run any more: it would write its identity back.
//! authkey::clear(&cluster, "ts-0", Scope::Identity, None, state::FIELD_MANAGER).await?;
//! # drop(new); Ok(())
//! # }
//! ```

mod key;
mod wait;

use std::time::Duration;

pub use self::key::{NotOneKey, key_from_config, key_from_text};
pub use self::wait::{KeySource, NewKey, Progress, ReadKey, WaitError, wait};
use crate::backoff::{self, Backoff};
use crate::k8s::state::{self, KeyPatch, StateSecret};
use crate::k8s::{Cluster, Error};
use crate::secret::Secret;

/// Tries to get the keys out and see them gone. With the pauses between them, about half a minute.
const CLEAR_TRIES: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// What [`clear`] removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Only the request for a new key.
    Marker,
    /// The request, the device keys, and tailscaled's identity with the current profile.
    Identity,
}

impl Scope {
    /// The keys that go, given what the Secret holds.
    pub fn keys(self, secret: &StateSecret) -> Vec<String> {
        match self {
            Self::Marker => vec![state::REISSUE_AUTHKEY.to_owned()],
            Self::Identity => state::identity_keys_to_clear(secret),
        }
    }

    /// The patch that removes them, as `manager` writes it.
    pub fn patch(self, secret: &StateSecret, manager: &str) -> KeyPatch {
        let patch = KeyPatch::new().managed_by(manager.to_owned());
        self.keys(secret).iter().fold(patch, |patch, key| patch.delete(key))
    }

    /// What is left of them.
    pub fn left(self, secret: &StateSecret) -> Vec<String> {
        let mut keys = self.keys(secret);
        keys.retain(|key| secret.data.contains_key(key));
        keys
    }
}

/// What [`clear`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cleared {
    /// Keys that were there and are gone.
    pub keys: Vec<String>,
}

/// Why the keys of the old identity are still there, or may be.
#[derive(Debug, thiserror::Error)]
pub enum ClearError {
    /// The Secret does not have the version that the caller wanted to change.
    #[error("the Secret was changed by someone else; nothing was removed")]
    Changed,
    /// The keys come back as often as they are removed.
    #[error("someone writes {} back; is tailscaled still running?", .keys.join(", "))]
    WrittenBack {
        /// What was there at the last look.
        keys: Vec<String>,
    },
    /// The cluster did not let us.
    #[error("cannot clear the state Secret")]
    Cluster(#[source] Error),
}

/// Asks for a new auth key in place of `failed`, which may be empty: writes it into the marker of the Secret as
/// `manager`. Upstream's `SetReissueAuthKey`. Asking twice is the same as once.
///
/// # Errors
/// [`Error::NotFound`] when there is no such Secret, [`Error::Denied`] when the Role does not allow `patch`; the
/// others say that the cluster is in trouble, after the tries that it was worth.
///
/// ```no_run
/// # use tailpod::{authkey, k8s::{Cluster, Error, state}};
/// # async fn example(cluster: Cluster) -> Result<(), Error> {
/// let failed = authkey::key_from_config("/etc/tsconfig/cap-95.hujson".as_ref()).unwrap_or_default();
/// authkey::request(&cluster, "ts-0", &failed, state::FIELD_MANAGER).await
/// # }
/// ```
pub async fn request(cluster: &Cluster, secret: &str, failed: &Secret<String>, manager: &str) -> Result<(), Error> {
    tracing::info!("Requesting a new auth key from operator");
    cluster.merge(secret, &state::reissue_patch(failed).managed_by(manager.to_owned())).await
}

/// Removes the keys of `scope` and reads back that they are gone. Upstream's `ClearReissueAuthKey`, which does neither
/// of the two things that make it safe: naming a version, and looking again.
///
/// With `version`, only the Secret of that version is changed, once: whoever was shown it decided about nothing else.
/// Without, each try names the version it has just read, so that a writer in between is never overwritten and its
/// profile is not left behind; it goes on with back-off, for about half a minute, while somebody writes the keys back
/// or the cluster has trouble. A Secret that does not exist holds nothing to clear. tailscaled must have ended before:
/// a running one writes its identity back.
///
/// # Errors
/// See [`ClearError`]. Cancelled or failed in between, it can be called again.
///
/// ```no_run
/// # use tailpod::{authkey::{self, ClearError, Scope}, k8s::{Cluster, state}};
/// # async fn example(cluster: Cluster) -> Result<(), ClearError> {
/// let cleared = authkey::clear(&cluster, "ts-0", Scope::Identity, None, state::FIELD_MANAGER).await?;
/// assert!(!cleared.keys.contains(&"authkey".to_owned()), "the key itself stays");
/// # Ok(())
/// # }
/// ```
pub async fn clear(
    cluster: &Cluster,
    secret: &str,
    scope: Scope,
    version: Option<&str>,
    manager: &str,
) -> Result<Cleared, ClearError> {
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    let mut cleared = Cleared { keys: Vec::new() };
    loop {
        let error = match clear_once(cluster, secret, scope, version, manager, &mut cleared).await {
            Ok(left) if left.is_empty() => return Ok(cleared),
            // What the caller saw is removed; what came back is something that nobody has decided about.
            Ok(left) if version.is_some() => return Err(ClearError::WrittenBack { keys: left }),
            Ok(left) => ClearError::WrittenBack { keys: left },
            Err(Error::Conflict { .. }) if version.is_some() => return Err(ClearError::Changed),
            Err(error) if error.is_transient() || matches!(error, Error::Conflict { .. }) => ClearError::Cluster(error),
            Err(error) => return Err(ClearError::Cluster(error)),
        };
        let pause = backoff.next(backoff::jitter());
        if backoff.failures() >= CLEAR_TRIES {
            return Err(error);
        }
        tracing::debug!(secret, %error, delay = ?pause, attempt = backoff.failures(), "clearing the state Secret again");
        tokio::time::sleep(pause).await;
    }
}

/// Reads, removes, reads back; the keys that are still, or again, there.
async fn clear_once(
    cluster: &Cluster,
    name: &str,
    scope: Scope,
    version: Option<&str>,
    manager: &str,
    cleared: &mut Cleared,
) -> Result<Vec<String>, Error> {
    let Some(before) = cluster.secret(name).await? else { return Ok(Vec::new()) };
    let keys = scope.keys(&before);
    if version.is_some() && scope.left(&before).is_empty() {
        // Another version, but the aim is reached: very likely by a try of ours whose answer was lost.
        return Ok(Vec::new());
    }
    let condition = version.map(str::to_owned).or_else(|| before.resource_version.clone());
    match cluster.merge(name, &scope.patch(&before, manager).only_if(condition)).await {
        Ok(()) => {}
        Err(Error::NotFound { .. }) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    }
    for key in keys.iter().filter(|key| before.data.contains_key(*key)) {
        if !cleared.keys.contains(key) {
            cleared.keys.push(key.clone());
        }
    }
    let Some(after) = cluster.secret(name).await? else { return Ok(Vec::new()) };
    let mut left = scope.left(&after);
    left.extend(keys.into_iter().filter(|key| after.data.contains_key(key)));
    left.sort_unstable();
    left.dedup();
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_name_what_goes_and_what_is_left() {
        let data = [("reissue_authkey", "k"), ("_current-profile", "profile-a"), ("profile-a", "p"), ("foo", "bar")];
        let data = data.map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec())).into();
        let secret = StateSecret { data, ..StateSecret::default() };
        assert_eq!(Scope::Marker.keys(&secret), ["reissue_authkey"]);
        assert_eq!(Scope::Identity.left(&secret), ["reissue_authkey", "_current-profile", "profile-a"]);
        assert!(Scope::Identity.left(&StateSecret::default()).is_empty());
        let patch = Scope::Identity.patch(&secret, "me");
        assert_eq!(patch.manager(), "me");
        assert!(patch.changes().all(|(_, value)| value.is_none()));
        assert_eq!(patch.changes().count(), 8);
    }
}
