//! Whether anything changed on the tailnet: one watcher of the IPN bus for the whole process, one number for all readers.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::backoff::{Backoff, jitter};
use crate::localapi::types;
use crate::localapi::{LocalApi, Mask, Peers};

/// A number that grows whenever the netmap may have changed. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Netmap(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    generation: AtomicU64,
    /// For the one who waits: the node itself may have changed.
    node: Notify,
}

impl Netmap {
    /// The number now. What was learnt before it was read may be out of date as soon as it differs.
    pub(super) fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    /// Waits until the node itself may have changed since the last time. For one task only.
    pub(super) async fn node_changed(&self) {
        self.0.node.notified().await;
    }

    fn changed(&self) {
        self.0.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Follows the bus until `stop`.
    pub(super) async fn follow(self, localapi: LocalApi, stop: CancellationToken) -> Result<(), Infallible> {
        stop.run_until_cancelled(self.watch(localapi)).await;
        Ok(())
    }

    async fn watch(self, localapi: LocalApi) {
        let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(5));
        loop {
            let mask = Mask::changes(localapi.versions().generation());
            if let Ok(mut watch) = localapi.watch_keeping(mask, Peers::Include).await {
                if backoff.failures() > 0 {
                    tracing::info!("the IPN bus is open again");
                }
                backoff.reset();
                self.changed();
                self.0.node.notify_one();
                while let Ok(Some(message)) = watch.next().await {
                    if concerns_peers(&message) {
                        self.changed();
                    }
                    if concerns_node(&message) {
                        self.0.node.notify_one();
                    }
                }
            }
            // Nobody tells us any more: nothing that was known counts.
            self.changed();
            if backoff.failures() == 0 {
                tracing::warn!("the IPN bus is closed; identities are asked for again");
            }
            tokio::time::sleep(backoff.next(jitter())).await;
        }
    }
}

/// Whether a message may change who a peer is or what it was granted.
fn concerns_peers(message: &types::Notify) -> bool {
    concerns_node(message)
        || !message.peers_changed.is_empty()
        || !message.peers_removed.is_empty()
        || message.peer_changed_patch.is_some()
        || message.peer_changes.is_some()
        || message.user_profiles.is_some()
}

/// Whether it may change this node.
fn concerns_node(message: &types::Notify) -> bool {
    message.self_change.is_some() || message.net_map.is_some() || message.state.is_some()
}
