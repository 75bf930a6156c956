//! Brings a serve config to the daemon: conditional on what is there, in two steps where one is refused.
//!
//! Others change the config too, so each change names the version that it was made from, and is made again from the
//! newer one when it comes too late. Cancel safe: the daemon has the old config, the one between, or the new one.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::change::{between, carried_over, is_same};
use crate::backoff::{Backoff, jitter};
use crate::localapi::{Error, ErrorKind, LocalApi};

/// Changes that may come too late in a row.
const TRIES: u32 = 5;
/// Between tries while the daemon has no netmap.
const NETMAP: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// What it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Nothing: the daemon has it.
    Unchanged,
    /// A change, or two.
    Changed,
}

/// Makes `desired` the daemon's config. Waits at most `patience` for its netmap, without which it takes none.
///
/// # Errors
/// [`ErrorKind::EtagMismatch`] when others were faster five times in a row.
pub async fn apply(api: &LocalApi, desired: &Value, patience: Duration) -> Result<Applied, Error> {
    let deadline = Instant::now() + patience;
    let mut backoff = Backoff::new(NETMAP.0, NETMAP.1);
    let mut late = 0;
    let mut stepped = false;
    loop {
        let installed = api.serve_config().await?;
        let wanted = carried_over(&installed.document, desired);
        if is_same(&installed.document, &wanted) {
            return Ok(if stepped { Applied::Changed } else { Applied::Unchanged });
        }
        let error = match api.post_serve_config(&wanted, installed.etag.as_deref()).await {
            Ok(()) => return Ok(Applied::Changed),
            Err(error) => error,
        };
        match &error.kind {
            ErrorKind::EtagMismatch => {
                late += 1;
                if late >= TRIES {
                    return Err(error);
                }
            }
            ErrorKind::NoNetmapYet => {
                let pause = backoff.next(jitter());
                if Instant::now() + pause >= deadline {
                    return Err(error);
                }
                tokio::time::sleep(pause).await;
            }
            ErrorKind::Status { message, .. } if message.contains("want to serve") && !stepped => {
                let Some(step) = between(&installed.document, &wanted) else { return Err(error) };
                stepped = true;
                match api.post_serve_config(&step, installed.etag.as_deref()).await {
                    Ok(()) | Err(Error { kind: ErrorKind::EtagMismatch, .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            _ => return Err(error),
        }
    }
}

/// Takes everything away except what others have in the foreground, whatever is there: after a restart the daemon
/// assigns the addresses of Services anew only for a config that is set again.
pub async fn clear(api: &LocalApi) -> Result<(), Error> {
    let installed = api.serve_config().await?;
    let empty = carried_over(&installed.document, &json!({}));
    match api.post_serve_config(&empty, None).await {
        // Before the first netmap there is nothing to take away.
        Err(Error { kind: ErrorKind::NoNetmapYet, .. }) if is_same(&installed.document, &empty) => Ok(()),
        result => result,
    }
}
