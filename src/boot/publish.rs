//! What is written to the state Secret once the node is up: the device keys, and the end of its auth key.

use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::chain;
use super::context::Context;
use super::machine::Event;
use super::shell::OPERATION_LIMIT;
use crate::k8s::publisher::{self, SecretTarget, Slot};

/// Writes the device keys and tells the loop how that goes.
pub(super) async fn keep_published(
    writer: publisher::Writer<SecretTarget>,
    mut outcomes: mpsc::Receiver<publisher::Outcome>,
    events: mpsc::Sender<Event>,
    stop: CancellationToken,
) {
    let mut writing = std::pin::pin!(writer.run(stop));
    let mut denied = None;
    loop {
        let event = tokio::select! {
            biased;
            Some(outcome) = outcomes.recv() => match outcome {
                publisher::Outcome::Written(Slot::DeviceId) => Event::IdWritten,
                publisher::Outcome::Written(Slot::DeviceEndpoints) => Event::Published,
                publisher::Outcome::Written(_) => continue,
                publisher::Outcome::Delayed(Slot::DeviceId, _) => Event::IdDelayed,
                publisher::Outcome::Delayed(..) => Event::PublishDelayed,
                publisher::Outcome::Denied(slot) => {
                    denied = Some(slot);
                    continue;
                }
            },
            ended = &mut writing => match ended {
                Ok(()) => return,
                Err(error) => {
                    if let Some(rule) = error.missing_rule() {
                        tracing::warn!("the Role lacks:\n{rule}");
                    }
                    // Told in the same breath as the end.
                    while let Ok(outcome) = outcomes.try_recv() {
                        if let publisher::Outcome::Denied(slot) = outcome {
                            denied = Some(slot);
                        }
                    }
                    let what = match denied {
                        Some(Slot::DeviceEndpoints) => "storing device IPs and FQDN in Kubernetes Secret",
                        Some(Slot::HttpsEndpoint) => "storing the HTTPS endpoint in Kubernetes Secret",
                        Some(Slot::EgressServices) => "storing the status of egress services in Kubernetes Secret",
                        Some(Slot::IngressConfig) => "storing the status of ingress services in Kubernetes Secret",
                        Some(Slot::DeviceId) | None => "storing device ID in Kubernetes Secret",
                    };
                    let _ = events.send(Event::PublishDenied(format!("{what}: {}", chain(&error)))).await;
                    return;
                }
            },
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

/// Removes the Secret's `authkey`; one that is not there is fine.
pub(super) async fn delete_auth_key(context: &Context) -> Result<(), String> {
    let Some(secret) = context.secret() else { return Ok(()) };
    let removal = secret.cluster.remove_key(&secret.name, crate::k8s::state::AUTHKEY);
    match timeout(OPERATION_LIMIT, removal).await {
        Ok(Ok(_removed_or_absent)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("context deadline exceeded".to_owned()),
    }
}
