//! Files that are read again while what they held is in use: the log tells of the first look that fails and of the
//! first that succeeds after it, not of each.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the last look failed.
#[derive(Debug, Default)]
pub(super) struct Rereads {
    failing: AtomicBool,
}

impl Rereads {
    /// What was read of `what`; `None` when that cannot be used, and what is held stays in use.
    pub(super) fn told<T, E: Display>(&self, what: &dyn Display, read: Result<T, E>) -> Option<T> {
        match read {
            Ok(read) => {
                self.succeeded(what);
                Some(read)
            }
            Err(error) => {
                self.failed(what, &error);
                None
            }
        }
    }

    /// A look has failed.
    pub(super) fn failed(&self, what: &dyn Display, error: &dyn Display) {
        if self.failing.swap(true, Ordering::Relaxed) {
            tracing::debug!(%error, "cannot read {what}, going on with what is held");
        } else {
            tracing::warn!(%error, "cannot read {what}, going on with what is held");
        }
    }

    fn succeeded(&self, what: &dyn Display) {
        if self.failing.swap(false, Ordering::Relaxed) {
            tracing::info!("{what} can be read again");
        }
    }
}
