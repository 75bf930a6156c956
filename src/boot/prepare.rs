//! The state Secret before tailscaled starts (P2): permissions, auth key adoption, stale keys.
//!
//! Follows upstream's `cmd/containerboot/kube.go` (`setupKube`, `resetState`); boot.md 4.3 to 4.5.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::machine::Store;
use crate::backoff::{self, Backoff};
use crate::k8s::access::Permissions;
use crate::k8s::state::KeyPatch;
use crate::k8s::{self, Cluster, Error, Resource, RoleRule, Verb, state};
use crate::secret::Secret;
use crate::settings::{KubeAccess, Login, Mode, Settings};

/// How long an API server that has just come back may deny what it will allow: its authorizer starts empty.
const SETTLES: Duration = Duration::from_secs(10);

/// How requests name us to the API server.
const COMPONENT: &str = "tailpod-boot";

/// What is known about the state Secret.
#[derive(Clone, Debug)]
pub struct StateSecret {
    /// The cluster it is in.
    pub cluster: Cluster,
    /// Its name.
    pub name: String,
    /// Whether it may be patched: "kube-store mode".
    pub writable: bool,
}

/// The outcome of the preparation.
#[derive(Debug, Default)]
pub struct Prepared {
    /// The state Secret, when there is one.
    pub secret: Option<StateSecret>,
    /// The Secret's `authkey`, when it is to be used.
    pub adopted_key: Option<Secret<String>>,
}

impl Prepared {
    /// What may be done with the Secret.
    pub fn store(&self) -> Store {
        match &self.secret {
            None => Store::None,
            Some(secret) if secret.writable => Store::Writable,
            Some(_) => Store::ReadOnly,
        }
    }
}

/// Why the preparation failed; each is upstream's fatal line up to the cause.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// No service account files, no kubeconfig.
    #[error("error initializing kube client: error creating kube client")]
    Client(#[source] Error),
    /// `get` or `update` is denied; one line per verb.
    #[error(
        "error setting up for running on Kubernetes: some Kubernetes permissions are missing, please check your RBAC \
         configuration: {missing}"
    )]
    MissingPermissions {
        /// `missing get permission on secret "x"`, one per line.
        missing: String,
        /// The Role that would mend it.
        rules: Vec<RoleRule>,
    },
    /// The Secret could not be read.
    #[error("error setting up for running on Kubernetes: getting Tailscale state Secret {name}")]
    Read {
        /// The Secret.
        name: String,
        /// Why.
        source: Error,
    },
    /// There is none and it may not be created.
    #[error(
        "error setting up for running on Kubernetes: Tailscale state Secret {name} does not exist and we don't have \
         permissions to create it. If you intend to store tailscale state elsewhere than a Kubernetes Secret, you can \
         explicitly set TS_KUBE_SECRET env var to an empty string. Else ensure that RBAC is set up that allows the service \
         account associated with this installation to create Secrets."
    )]
    Absent {
        /// The Secret.
        name: String,
    },
    /// There is a key in the Secret that could never be managed.
    #[error(
        "error setting up for running on Kubernetes: authkey found in TS_KUBE_SECRET, but the pod doesn't have patch \
         permissions on the Secret to manage the authkey."
    )]
    UnmanagedKey,
    /// The Secret could not be created from outside the cluster.
    #[error("error setting up for running on Kubernetes: creating Tailscale state Secret {name}")]
    Create {
        /// The Secret.
        name: String,
        /// Why.
        source: Error,
    },
    /// The boot deadline passed before the API server answered.
    #[error("error setting up for running on Kubernetes: context deadline exceeded")]
    TimedOut,
    /// Stale keys could not be removed.
    #[error("error clearing previous state from Secret: failed to patch state Secret {name}")]
    Reset {
        /// The Secret.
        name: String,
        /// Why.
        source: Error,
    },
}

impl PrepareError {
    /// What to do about it, when there is more to say than the message does.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::MissingPermissions { rules, .. } => {
                let rules: Vec<_> = rules.iter().map(ToString::to_string).collect();
                Some(format!("the Role lacks:\n{}", rules.join("\n")))
            }
            Self::Read { source, .. }
            | Self::Create { source, .. }
            | Self::Reset { source, .. }
            | Self::Client(source) => source.missing_rule().map(|rule| format!("the Role lacks:\n{rule}")),
            Self::Absent { name } => {
                let rule = RoleRule::new(Resource::Secrets, None, [Verb::Create]);
                Some(format!("create Secret {name}, or extend the Role by:\n{rule}"))
            }
            Self::UnmanagedKey | Self::TimedOut => None,
        }
    }

    fn is_transient(&self) -> bool {
        match self {
            Self::Read { source, .. } | Self::Create { source, .. } | Self::Reset { source, .. } => {
                source.is_transient()
            }
            Self::Client(_) | Self::MissingPermissions { .. } => false,
            Self::Absent { .. } | Self::UnmanagedKey | Self::TimedOut => false,
        }
    }
}

/// Does P2 within `deadline`. An API server that cannot be reached is waited for (W14); every step can be repeated.
pub async fn prepare(settings: &Settings, deadline: Instant) -> Result<Prepared, PrepareError> {
    let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(5));
    let mut last = None;
    let mut answers_since = None;
    loop {
        let error = match timeout_at(deadline, attempt(settings, deadline)).await {
            Ok(Ok(prepared)) => return Ok(prepared),
            Ok(Err(error)) => error,
            Err(_elapsed) => return Err(last.unwrap_or(PrepareError::TimedOut)),
        };
        let now = Instant::now();
        let unsettled = last.is_some() && now < *answers_since.get_or_insert(now) + SETTLES;
        let pause = backoff.next(backoff::jitter());
        match (error.is_transient(), unsettled) {
            (true, _) => answers_since = None,
            (false, true) => {}
            (false, false) => return Err(error),
        }
        if now + pause >= deadline {
            return Err(error);
        }
        if last.is_none() {
            tracing::warn!("{}; trying on until the boot deadline", super::chain(&error));
        }
        last = Some(error);
        tokio::time::sleep(pause).await;
    }
}

/// Reads and at most one patch; nothing is written when it fails.
async fn attempt(settings: &Settings, deadline: Instant) -> Result<Prepared, PrepareError> {
    let Some(name) = settings.kube.secret.clone() else { return Ok(Prepared::default()) };
    let connected =
        Cluster::connect_unattended(&settings.kube.access, COMPONENT).await.map_err(PrepareError::Client)?;
    // Inside one call too, so that the last error is told and not hidden by the deadline.
    let cluster = connected.until(deadline);
    let mut permissions = probe(&cluster, &name).await?;
    let read = |source| PrepareError::Read { name: name.clone(), source };
    let mut stored = cluster.secret(&name).await.map_err(read)?;
    if permissions.unreachable().is_some() {
        // The API server is there again: what it could not be asked before decides whether state is written.
        permissions = probe(&cluster, &name).await?;
    }
    if stored.is_none() {
        if !permissions.can_create() {
            return Err(PrepareError::Absent { name });
        }
        // Inside the cluster tailscaled creates its own Secret; from outside nobody else would.
        if matches!(settings.kube.access, KubeAccess::Kubeconfig { .. }) {
            let created = cluster.create_secret(&name, &KeyPatch::new()).await;
            created.map_err(|source| PrepareError::Create { name: name.clone(), source })?;
            stored = cluster.secret(&name).await.map_err(read)?;
        }
    }
    let writable = permissions.can_patch();
    let adopted_key = adopt_key(settings, stored.as_ref(), writable)?;
    if writable && let Some(stored) = &stored {
        let config_key = match &settings.mode {
            Mode::OneStep(config) => config.auth_key.as_ref(),
            Mode::AuthOnce | Mode::AlwaysAuth => None,
        };
        let patch = state::reset_patch(settings.capver, settings.pod.uid.as_deref(), stored, config_key);
        cluster.merge(&name, &patch).await.map_err(|source| PrepareError::Reset { name: name.clone(), source })?;
    }
    // What comes after the preparation has deadlines of its own.
    Ok(Prepared { secret: Some(StateSecret { cluster: connected, name, writable }), adopted_key })
}

async fn probe(cluster: &Cluster, name: &str) -> Result<Permissions, PrepareError> {
    let permissions = Permissions::probe(cluster, name).await;
    if permissions.unreachable().is_none() {
        for (what, error) in permissions.failures() {
            tracing::warn!("{what}: {}", super::chain(&**error));
        }
    }
    let missing = permissions.missing();
    if missing.is_empty() {
        return Ok(permissions);
    }
    Err(PrepareError::MissingPermissions { missing: missing.join("\n"), rules: permissions.missing_rules() })
}

fn adopt_key(
    settings: &Settings,
    stored: Option<&k8s::StateSecret>,
    may_patch: bool,
) -> Result<Option<Secret<String>>, PrepareError> {
    if !matches!(settings.login, Login::Interactive) || matches!(settings.mode, Mode::OneStep(_)) {
        return Ok(None);
    }
    let Some(stored) = stored else {
        tracing::info!("TS_AUTHKEY not provided and state Secret does not exist, login will be interactive if needed.");
        return Ok(None);
    };
    match stored.text(state::AUTHKEY).filter(|key| !key.is_empty()) {
        Some(_) if !may_patch => Err(PrepareError::UnmanagedKey),
        Some(_) => Ok(stored.auth_key(state::AUTHKEY)),
        None => {
            tracing::info!(
                "No authkey found in state Secret and TS_AUTHKEY not provided, login will be interactive if needed."
            );
            Ok(None)
        }
    }
}
