//! The replica that orders certificates, where a Lease says which: tailscaled is restarted to order, and to read again.
//!
//! [`Promotion`] decides; this performs it. What takes tailscaled down and up is the machine's, which is only told; how
//! the next one is started stands in `mode` from the moment of the decision, so that a tailscaled that dies by itself
//! comes back as it should.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::machine;
use crate::causes::chain;
use crate::certs::cluster::ClusterWorld;
use crate::certs::failure::Class;
use crate::certs::loops::Loops;
use crate::certs::office::{Fenced, Office};
use crate::certs::promotion::{Action, Event, Mode, Promotion};
use crate::certs::work;
use crate::certs::world::{Allowed, Role};
use crate::maybe::at;

/// What the promotion works with.
pub(super) struct Writer {
    pub(super) promotion: Promotion,
    pub(super) office: Office,
    pub(super) loops: Arc<Loops<Fenced<ClusterWorld>>>,
    pub(super) allowed: watch::Receiver<Allowed>,
    /// Whether the loops ask.
    pub(super) open: watch::Sender<Role>,
    /// How tailscaled is started next.
    pub(super) mode: watch::Sender<Mode>,
    /// How the one was started that is up; nothing while none is.
    pub(super) running: watch::Receiver<Option<Mode>>,
    /// Whether our Services are withdrawn meanwhile.
    pub(super) hold: watch::Sender<bool>,
    pub(super) events: mpsc::Sender<machine::Event>,
    /// How long peers are given to fail over.
    pub(super) patience: Duration,
    /// Between looks for something to order.
    pub(super) look: Duration,
}

impl Writer {
    /// Never ends.
    pub(super) async fn run(mut self) {
        let mut role = self.office.role();
        role.mark_changed();
        let mut running = self.running.clone();
        running.mark_changed();
        let mut look = Instant::now();
        let mut withdrawn = None;
        let mut holds = false;
        loop {
            let wake = self.promotion.wake_at().map(Instant::from_std);
            let event = tokio::select! {
                // A loss comes before everything else.
                biased;
                Ok(()) = role.changed() => {
                    let now = *role.borrow_and_update();
                    if holds && now == Role::Writer {
                        // Lost and won again before anybody looked: what was begun has ended all the same.
                        role.mark_changed();
                        holds = false;
                        Event::Lost
                    } else {
                        holds = now == Role::Writer;
                        look = Instant::now();
                        if holds { Event::Gained } else { Event::Lost }
                    }
                }
                Ok(()) = running.changed() => match *running.borrow_and_update() {
                    Some(mode) => Event::Running(mode),
                    None => continue,
                },
                () = at(withdrawn) => {
                    withdrawn = None;
                    Event::Withdrawn
                }
                () = at(wake) => Event::Tick,
                event = self.work(look), if self.office.is_writer() => {
                    look = Instant::now() + self.look;
                    let Some(event) = event else { continue };
                    event
                }
            };
            for action in self.promotion.step(event, Instant::now().into_std()) {
                tracing::debug!(?event, ?action, "promotion");
                if action == Action::Withdraw {
                    withdrawn = Some(Instant::now() + self.patience);
                }
                self.perform(action).await;
            }
        }
    }

    /// At `look`, whether there is something to order; nothing when that cannot be known.
    async fn work(&self, look: Instant) -> Option<Event> {
        sleep_until(look).await;
        let lost = |record: &crate::certs::record::Record| record.last_error_class == Some(Class::Storage);
        let asks = *self.open.borrow() == Role::Writer;
        if asks && !self.loops.which(|standing| standing.attempts > 0 && lost(&standing.record)).await.is_empty() {
            return Some(Event::NotStored);
        }
        let names = self.loops.which(|_| true).await;
        let allowed = self.allowed.borrow().clone();
        match work::due(self.loops.world().inside(), &names, &allowed).await {
            Ok(due) => {
                if !due.is_empty() && !asks {
                    tracing::info!(names = due.len(), "there are certificates to order");
                }
                Some(Event::Work(!due.is_empty()))
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "it is not known which certificates are to be ordered");
                None
            }
        }
    }

    async fn perform(&mut self, action: Action) {
        match action {
            Action::Withdraw => drop(self.hold.send_replace(true)),
            Action::Advertise => drop(self.hold.send_replace(false)),
            Action::Open => drop(self.open.send_replace(Role::Writer)),
            Action::Close => drop(self.open.send_replace(Role::Reader)),
            Action::Restart(mode) => {
                let what = match mode {
                    Mode::Orders => "tailscaled is restarted to order certificates",
                    Mode::Reads => "tailscaled is restarted to only read certificates",
                };
                tracing::info!("{what}");
                self.mode.send_replace(mode);
                // The receiver lives as long as the boot.
                let _ = self.events.send(machine::Event::Replace).await;
            }
            Action::Resign(pause) => {
                if let Some(seat) = self.office.seat() {
                    seat.resign(pause);
                }
            }
        }
    }
}
