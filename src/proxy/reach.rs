//! On the way to the API server: who asks, and with which credentials and over which connection it is passed on.

use std::sync::Arc;

use super::access::Peer;
use super::access_log::Entry;
use super::connection::Connection;
use super::ended::{Ended, upstream_failed};
use super::identity::Unknown;
use super::pool::{Link, Repeatable};
use super::refusal::{Reason, Refusal};
use super::serve::Shared;
use crate::k8s::upstream::{Credentials, DialError};

/// Who asks, as of now.
pub(super) async fn caller(
    connection: &mut Connection,
    shared: &Shared,
    entry: &mut Entry,
) -> Result<Arc<Peer>, Refusal> {
    connection.caller.peer(&shared.identities).await.map_err(|error| {
        entry.failed(&error);
        match error {
            Unknown::TooMany { .. } => Refusal::new(Reason::TooMany, error.to_string()),
            _ => Refusal::identity(),
        }
    })
}

/// What it takes to send a request.
pub(super) struct Reached {
    pub(super) credentials: Credentials,
    pub(super) link: Link,
}

/// What a request needs to be sent: credentials, and a connection, one that waits or else a new one.
pub(super) async fn reach(
    connection: &mut Connection,
    shared: &Shared,
    repeatable: Repeatable,
    may_wait: bool,
    entry: &mut Entry,
) -> Result<Reached, Ended> {
    let credentials = connection.unless_gone(shared.pool.upstream().credentials()).await.ok_or(Ended::Aborted)?;
    let credentials = credentials.map_err(|error| {
        entry.failed(&error);
        no_credentials()
    })?;
    if may_wait && let Some(link) = shared.pool.take(repeatable) {
        return Ok(Reached { credentials, link });
    }
    let dialled = connection.unless_gone(shared.pool.dial()).await.ok_or(Ended::Aborted)?;
    let link = dialled.map_err(|error| {
        entry.failed(&error);
        if matches!(error, DialError::Credentials(_)) {
            return no_credentials();
        }
        upstream_failed(Refusal::new(Reason::Upstream, format!("cannot reach the API server: {error}")), shared)
    })?;
    Ok(Reached { credentials, link })
}

/// The same for a request that is already written for `peer`, who must still be the one who asks.
pub(super) async fn reach_again(
    connection: &mut Connection,
    shared: &Shared,
    repeatable: Repeatable,
    may_wait: bool,
    peer: &Peer,
    entry: &mut Entry,
) -> Result<Reached, Ended> {
    let reached = reach(connection, shared, repeatable, may_wait, entry).await?;
    if *caller(connection, shared, entry).await? == *peer {
        return Ok(reached);
    }
    let message = "what you are granted changed while the API server was being reached; ask again";
    Err(Refusal::new(Reason::Stale, message).into())
}

/// For the peer, whom it does not concern how the proxy gets its credentials.
fn no_credentials() -> Refusal {
    Refusal::new(Reason::Credentials, "cannot obtain credentials for the Kubernetes API")
}
