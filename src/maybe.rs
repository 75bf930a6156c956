//! Waiting for what need not be there: for ever, then. All of it is cancel safe.

use std::future::pending;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Returns at `instant`; never without one.
pub async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => pending().await,
    }
}

/// What comes next through `channel`; nothing ever without one.
pub async fn receive<T>(channel: Option<&mut mpsc::Receiver<T>>) -> Option<T> {
    match channel {
        Some(channel) => channel.recv().await,
        None => pending().await,
    }
}
