//! The node that somebody else keeps: what its bus says, for the upkeep and for probes.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::health::{HealthHandle, Weight};
use crate::localapi::types::State;
use crate::localapi::{LocalApi, Peers};
use crate::node::{self, BusUpdate, Device, News};

/// How often a node without news shows that it is followed; below a third of [`crate::health::STALLED`].
const HEARTBEAT: Duration = Duration::from_secs(15);

/// What the upkeep needs to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// The tailnet's MagicDNS suffix.
    pub(super) suffix: Option<String>,
    /// Whether it is Running.
    pub(super) running: bool,
    /// How often the bus was opened: another daemon may have forgotten what this one was told.
    pub(super) opened: u64,
}

impl Node {
    /// The node as it is now, so that the first probe finds the truth.
    pub(super) async fn first(api: &LocalApi, health: &HealthHandle) -> Self {
        let mut node = Self::default();
        if let Ok(status) = api.status(Peers::Omit).await {
            let state = State::from_name(&status.backend_state);
            let addresses = status.self_.map(|node| node.tailscale_ips).unwrap_or_default();
            node.running = state == Some(State::Running);
            health.set(|snapshot| {
                snapshot.addresses = !addresses.is_empty();
                snapshot.told = addresses;
                snapshot.report("tailscaled", Weight::Vital, problem(state));
            });
        }
        node
    }

    /// Takes what a bus message says.
    fn take(&mut self, update: &BusUpdate) {
        if let Some(state) = update.state {
            self.running = state == State::Running;
        }
        if let Some(device) = &update.device {
            self.suffix = device.magic_dns_suffix().map(str::to_owned);
        }
    }
}

/// Follows the bus until stopped.
pub(super) async fn follow(
    api: LocalApi,
    health: HealthHandle,
    node: watch::Sender<Node>,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    let (events, mut news) = mpsc::channel(16);
    let following = node::bus::follow::<News>(api, None, events, stop.clone());
    let taking = async {
        loop {
            tokio::select! {
                told = news.recv() => match told {
                    Some(told) => take(told, &health, &node),
                    None => return,
                },
                () = tokio::time::sleep(HEARTBEAT) => health.beat(),
            }
        }
    };
    tokio::join!(following, taking);
    Ok(())
}

fn take(news: News, health: &HealthHandle, node: &watch::Sender<Node>) {
    match news {
        News::Opened => {
            health.report("bus", Weight::Vital, None);
            node.send_modify(|node| node.opened += 1);
        }
        News::Lost(reason) => {
            tracing::warn!("tailscaled cannot be followed: {reason}");
            health.report("bus", Weight::Vital, Some(reason));
            node.send_modify(|node| node.running = false);
        }
        News::Update(update) => {
            health.set(|snapshot| {
                if let Some(Device { addresses, .. }) = &update.device {
                    snapshot.addresses = !addresses.is_empty();
                    snapshot.told.clone_from(addresses);
                }
                if update.state.is_some() {
                    snapshot.report("tailscaled", Weight::Vital, problem(update.state));
                }
            });
            node.send_if_modified(|node| {
                let before = node.clone();
                node.take(&update);
                *node != before
            });
        }
    }
}

fn problem(state: Option<State>) -> Option<String> {
    match state {
        Some(State::Running) => None,
        Some(state) => Some(format!("its state is {state}")),
        None => Some("its state is not known".to_owned()),
    }
}
