//! What goes into `Authorization` when no plugin is in play.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::kubeconfig::{self, Entry, User};
use super::rereads::Rereads;
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
    held: Mutex<(Authorization, u64)>,
    /// When it was read again last. Held while that goes on, which is nothing to whoever only asks for what is held.
    read_at: Mutex<Option<Instant>>,
    rereads: Rereads,
}

impl Bearer {
    /// `authorization` of that context.
    pub(super) fn fixed(authorization: Authorization, path: PathBuf, context: Option<String>) -> Self {
        let held = Mutex::new((authorization, 1));
        Self::Fixed(Fixed { path, context, held, read_at: Mutex::default(), rereads: Rereads::default() })
    }

    /// The value, and its generation.
    pub(super) async fn get(&self) -> (Option<Authorization>, u64) {
        match self {
            Self::None => (None, 0),
            Self::Fixed(fixed) => {
                let (authorization, generation) = lock(&fixed.held).clone();
                (Some(authorization), generation)
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

    /// After a 401 that may be about `generation`, or about something else.
    pub(super) fn suspected(&self, generation: u64) {
        // A file is read again soon in any case.
        if let Self::Fixed(fixed) = self {
            fixed.rejected(generation);
        }
    }
}

impl Fixed {
    fn rejected(&self, generation: u64) -> bool {
        let mut read_at = lock(&self.read_at);
        let (held, now) = lock(&self.held).clone();
        if now != generation {
            return true;
        }
        if read_at.is_some_and(|at| at.elapsed() < REREAD_PAUSE) {
            return false;
        }
        *read_at = Some(Instant::now());
        let read = kubeconfig::load(&self.path, self.context.as_deref());
        let what = format_args!("the kubeconfig {}", self.path.display());
        match self.rereads.told(&what, read) {
            Some(Entry { user: User { fixed: Some(fresh), .. }, .. }) if fresh != held => {
                *lock(&self.held) = (fresh, generation + 1);
                true
            }
            _ => false,
        }
    }
}
