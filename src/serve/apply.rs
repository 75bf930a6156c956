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

/// Makes the daemon's config what `desired` makes of the one that is installed; asked again for each that is found.
/// Waits at most `patience` for the daemon's netmap, without which it takes none.
///
/// # Errors
/// [`ErrorKind::EtagMismatch`] when others were faster five times in a row.
pub async fn apply(
    api: &LocalApi,
    mut desired: impl FnMut(&Value) -> Value,
    patience: Duration,
) -> Result<Applied, Error> {
    let deadline = Instant::now() + patience;
    let mut backoff = Backoff::new(NETMAP.0, NETMAP.1);
    let mut late = 0;
    let mut stepped = false;
    loop {
        let error = match once(api, &mut desired, &mut stepped).await {
            Ok(Some(applied)) => return Ok(applied),
            Ok(None) => continue,
            Err(error) => error,
        };
        match error.kind {
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
            _ => return Err(error),
        }
    }
}

/// One try; nothing where a step on the way was taken.
async fn once(
    api: &LocalApi,
    desired: &mut impl FnMut(&Value) -> Value,
    stepped: &mut bool,
) -> Result<Option<Applied>, Error> {
    let installed = api.serve_config().await?;
    let wanted = desired(&installed.document);
    if is_same(&installed.document, &wanted) {
        return Ok(Some(if *stepped { Applied::Changed } else { Applied::Unchanged }));
    }
    let etag = installed.etag.as_deref();
    let error = match api.post_serve_config(&wanted, etag).await {
        Ok(()) => return Ok(Some(Applied::Changed)),
        Err(error) => error,
    };
    match &error.kind {
        ErrorKind::Status { message, .. } if message.contains("want to serve") && !*stepped => {
            let Some(step) = between(&installed.document, &wanted) else { return Err(error) };
            api.post_serve_config(&step, etag).await?;
            *stepped = true;
            Ok(None)
        }
        _ => Err(error),
    }
}

/// Takes everything away except what others have in the foreground, whatever is there: after a restart the daemon
/// assigns the addresses of Services anew only for a config that is set again. What was there.
pub async fn clear(api: &LocalApi) -> Result<Value, Error> {
    let installed = api.serve_config().await?.document;
    let empty = carried_over(&installed, &json!({}));
    match api.post_serve_config(&empty, None).await {
        // Before the first netmap there is nothing to take away.
        Err(Error { kind: ErrorKind::NoNetmapYet, .. }) if is_same(&installed, &empty) => Ok(installed),
        result => result.map(|()| installed),
    }
}
