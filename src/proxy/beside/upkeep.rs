//! Keeps the node as flags and config say, through changes of the config and restarts of the daemon.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::node::Node;
use crate::health::{HealthHandle, Weight};
use crate::localapi::LocalApi;
use crate::maybe::at;
use crate::proxy::Client;
use crate::proxy::apply::{Wanted, apply};
use crate::proxy::config::Config;
use crate::serve::advertise::Ownership;

/// Between tries to bring about what is wanted.
const AGAIN: Duration = Duration::from_secs(5);

/// What is kept, and what of the node's is ours.
#[derive(Debug)]
pub(super) struct Upkeep {
    api: LocalApi,
    backend: Option<SocketAddr>,
    client: Client,
    config: watch::Receiver<Arc<Config>>,
    node: watch::Receiver<Node>,
    health: HealthHandle,
    /// Every Service that we have served or advertised.
    ours: BTreeSet<String>,
    /// How often the bus had been opened when the node was last set up.
    opened: u64,
}

impl Upkeep {
    pub(super) fn new(
        api: LocalApi,
        backend: Option<SocketAddr>,
        client: Client,
        config: watch::Receiver<Arc<Config>>,
        node: watch::Receiver<Node>,
        health: HealthHandle,
    ) -> Self {
        Self { api, backend, client, config, node, health, ours: BTreeSet::new(), opened: 0 }
    }

    /// Every Service that is or was ours.
    pub(super) fn ours(&self) -> &BTreeSet<String> {
        &self.ours
    }

    /// Keeps it for ever. Returns only when the first try fails: then something is wrong with what was asked for.
    pub(super) async fn keep(&mut self) -> String {
        let mut done = false;
        loop {
            // Without a name for itself the node has none for a Service.
            let ready = self.node.wait_for(|node| node.running && node.suffix.is_some()).await;
            let Ok((suffix, opened)) = ready.map(|node| (node.suffix.clone(), node.opened)) else {
                return std::future::pending().await;
            };
            let outcome = self.once(suffix.as_deref(), opened != self.opened).await;
            self.health.report("config", Weight::Degrading, outcome.as_ref().err().cloned());
            let again = match outcome {
                Ok(()) => {
                    self.opened = opened;
                    None
                }
                Err(text) if !done => return text,
                Err(text) => {
                    tracing::warn!("the node was not set up as wanted, trying again in {AGAIN:?}: {text}");
                    Some(AGAIN)
                }
            };
            done = true;
            self.changed(again).await;
        }
    }

    async fn once(&mut self, suffix: Option<&str>, anew: bool) -> Result<(), String> {
        let config = Arc::clone(&self.config.borrow_and_update());
        self.node.mark_unchanged();
        let backend = self.backend.ok_or("nothing is listened on")?;
        if let Some(service) = config.served().filter(|_| self.client != Client::ProxyHeader) {
            return Err(format!("{service} cannot be served without --proxy-protocol"));
        }
        self.ours.extend(config.advertise_services.iter().chain(config.served()).map(ToString::to_string));
        let ownership = Ownership::Services(&self.ours);
        apply(&self.api, &Wanted { config: &config, suffix, backend, ownership, anew }).await
    }

    /// Waits for a reason to look again, no longer than `limit`.
    async fn changed(&mut self, limit: Option<Duration>) {
        tokio::select! {
            () = at(limit.map(|limit| Instant::now() + limit)) => {}
            changed = self.node.changed() => if changed.is_err() {
                std::future::pending::<()>().await;
            },
            // Without a config to follow nothing changes any more.
            () = async {
                if self.config.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            } => {}
        }
    }
}
