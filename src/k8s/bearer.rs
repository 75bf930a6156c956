//! What goes into `Authorization` when no plugin is in play.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::kubeconfig::{self, Entry, User};
use super::token::Authorization;
use super::tokenfile::TokenFile;
use crate::lock::lock;

/// Between looks at a kubeconfig whose fixed credentials are not accepted.
const REREAD_PAUSE: Duration = Duration::from_secs(5);

/// Where `Authorization` comes from.
#[derive(Debug)]
pub(super) enum Bearer {
    /// Nowhere.
    None,
    /// The kubeconfig itself.
    Fixed(Fixed),
    /// A file.
    File(TokenFile),
}

/// A token or password of a kubeconfig, read again when it is not accepted.
#[derive(Debug)]
pub(super) struct Fixed {
    path: PathBuf,
    context: Option<String>,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    authorization: Authorization,
    generation: u64,
    read_at: Option<Instant>,
}

impl Bearer {
    /// `authorization` of that context.
    pub(super) fn fixed(authorization: Authorization, path: PathBuf, context: Option<String>) -> Self {
        let held = Mutex::new(Held { authorization, generation: 1, read_at: None });
        Self::Fixed(Fixed { path, context, held })
    }

    /// The value, and its generation.
    pub(super) async fn get(&self) -> (Option<Authorization>, u64) {
        match self {
            Self::None => (None, 0),
            Self::Fixed(fixed) => {
                let held = lock(&fixed.held);
                (Some(held.authorization.clone()), held.generation)
            }
            Self::File(file) => {
                let (authorization, generation) = file.get().await;
                (Some(authorization), generation)
            }
        }
    }

    /// After a 401 for `generation`. True when there is another value now.
    pub(super) async fn rejected(&self, generation: u64) -> bool {
        match self {
            Self::None => false,
            Self::Fixed(fixed) => fixed.rejected(generation),
            Self::File(file) => file.rejected(generation).await,
        }
    }
}

impl Fixed {
    fn rejected(&self, generation: u64) -> bool {
        let mut held = lock(&self.held);
        if held.generation != generation {
            return true;
        }
        if held.read_at.is_some_and(|at| at.elapsed() < REREAD_PAUSE) {
            return false;
        }
        held.read_at = Some(Instant::now());
        match kubeconfig::load(&self.path, self.context.as_deref()) {
            Ok(Entry { user: User { fixed: Some(fresh), .. }, .. }) if fresh != held.authorization => {
                held.authorization = fresh;
                held.generation += 1;
                true
            }
            Ok(_) => false,
            Err(error) => {
                tracing::debug!(%error, "cannot read the kubeconfig again");
                false
            }
        }
    }
}
