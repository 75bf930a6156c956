//! Tells the cluster about the node, as an Event on its Pod.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::context::Context;
use super::machine::Announcement;
use crate::k8s::event::{EventKind, PodEvent, PodRef};

/// Best effort: an Event that the API server does not take within this time is not worth a later exit.
const LIMIT: Duration = Duration::from_secs(5);

/// Writes the Event if there is a Pod to write about, and a cluster.
pub(super) async fn announce(context: Arc<Context>, announcement: Announcement) {
    let Some(secret) = context.secret() else { return };
    let pod = &context.settings.pod;
    let (Some(name), Some(uid)) = (&pod.name, &pod.uid) else { return };
    let pod = PodRef { name: name.clone(), uid: uid.clone() };
    let reason = announcement.reason.to_owned();
    let event = PodEvent { kind: EventKind::Warning, reason, message: announcement.message };
    match timeout(LIMIT, secret.cluster.emit_event(&pod, &event)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("the Event {} was not written: {error}", announcement.reason),
        Err(_) => tracing::debug!("the Event {} was not written in time", announcement.reason),
    }
}
