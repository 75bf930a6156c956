//! The replica whose tailscaled only reads certificates: started anew where it would serve an old one for up to a day
//! (certs.md 12, weakness 14), if `TAILPOD_CERT_RELOAD` asks for it.
//!
//! One replica at a time. As for a promotion, peers fail over to the others first.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::machine::Event;
use crate::causes::chain;
use crate::certs::cluster::ClusterWorld;
use crate::certs::promotion::Mode;
use crate::certs::stale::{Turn, end_turn, take_turn};

/// Between looks: what ends within a day is seen in time.
const LOOK: Duration = Duration::from_secs(15 * 60);
/// For tailscaled to go down and to come up.
const RESTART: Duration = Duration::from_secs(120);

/// What it works with.
pub(super) struct Reader {
    pub(super) world: ClusterWorld,
    /// As whom turns are taken.
    pub(super) pod: String,
    /// How the tailscaled was started that is up; nothing while none is.
    pub(super) running: watch::Receiver<Option<Mode>>,
    /// Whether our Services are withdrawn meanwhile.
    pub(super) hold: watch::Sender<bool>,
    pub(super) events: mpsc::Sender<Event>,
    /// How long peers are given to fail over.
    pub(super) patience: Duration,
}

impl Reader {
    /// Never ends.
    pub(super) async fn run(mut self) {
        loop {
            // One that orders would order when it is asked what it has.
            if self.running.wait_for(|running| *running == Some(Mode::Reads)).await.is_err() {
                return std::future::pending().await;
            }
            // Whoever is to order is about to be restarted anyway.
            if *self.hold.borrow() {
                sleep(LOOK).await;
                continue;
            }
            match take_turn(&self.world, &self.pod).await {
                Ok(Some(turn)) => self.restart(turn).await,
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(error = chain(&error), "it is not known whether old certificates are served");
                }
            }
            sleep(LOOK).await;
        }
    }

    async fn restart(&mut self, turn: Turn) {
        tracing::info!(
            domain = %turn.name,
            "the certificate that is served ends within a day and there is a newer one: tailscaled is started anew"
        );
        self.hold.send_replace(true);
        sleep(self.patience).await;
        // The receiver lives as long as the boot.
        let _ = self.events.send(Event::Replace).await;
        let renewed = async {
            // The sender lives as long as the boot, too.
            let _ = self.running.wait_for(Option::is_none).await;
            let _ = self.running.wait_for(Option::is_some).await;
        };
        if timeout(RESTART, renewed).await.is_err() {
            tracing::warn!("tailscaled is not up again in time");
        }
        self.hold.send_replace(false);
        end_turn(&self.world, turn).await;
    }
}
