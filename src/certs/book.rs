//! What is noted of an order when it has ended, whoever made it: the manager, or somebody by hand.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::budget::{Entry, Kind, Ledger};
use super::chain::Certificate;
use super::failure::{Class, Failure};
use super::names::Name;
use super::record::Record;
use super::schedule::{Freshness, Next, Schedule, later};
use super::world::World;

/// A first certificate that begins within this was ordered by us; authorities date back by an hour.
const NEW: Duration = Duration::from_secs(2 * 3600);

/// The notes about one name.
pub struct Book<'a, W> {
    /// Where they are kept.
    pub world: &'a W,
    /// The orders of late, of all names.
    pub ledger: &'a Mutex<Ledger>,
    /// The name.
    pub name: &'a Name,
}

impl<W: World> Book<'_, W> {
    /// Looks at the orders, or changes what is known of them here.
    pub fn ledger<T>(&self, act: impl FnOnce(&mut Ledger) -> T) -> T {
        act(&mut self.ledger.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether `certificate`, which came where one with the serial number `before` was, has just been ordered, and not
    /// by somebody who has noted that.
    pub fn is_ordered(&self, before: Option<&str>, certificate: &Certificate, now: Timestamp) -> bool {
        let is_new = before.is_none_or(|serial| serial != certificate.serial);
        let is_young = before.is_some() || later(certificate.period.not_before, NEW) > now;
        is_new && is_young && !self.ledger(|ledger| ledger.has(self.name, &certificate.serial))
    }

    /// Notes an order.
    pub async fn enter(&self, kind: Kind, at: Timestamp, serial: Option<&str>) {
        let entry = Entry { name: self.name.to_string(), at, kind, serial: serial.map(str::to_owned) };
        let ledger = self.ledger(|ledger| {
            ledger.add(entry);
            ledger.clone()
        });
        self.world.save_ledger(self.name, &ledger).await;
    }

    /// Notes an order that was broken off, and gives up its claim: whoever is next need not wait until that ends.
    pub async fn break_off(&self) {
        self.enter(Kind::BrokenOff, self.world.now(), None).await;
        self.world.give_up(self.name).await;
    }

    /// Notes that there is a certificate, `ordered` just now or not, and when to look again.
    pub async fn succeeded(
        &self,
        schedule: &mut Schedule,
        certificate: &Certificate,
        ordered: Option<Kind>,
        now: Timestamp,
    ) -> (Freshness, Record) {
        if let Some(kind) = ordered {
            self.enter(kind, now, Some(&certificate.serial)).await;
        }
        let (freshness, next) = schedule.succeeded(certificate.period, now, self.world.chance());
        let record = Record::succeeded(later(now, next.pause()));
        self.world.save(self.name, &record).await;
        (freshness, record)
    }

    /// Notes that there is none, what that has cost, and when to ask again.
    pub async fn failed(&self, schedule: &mut Schedule, failure: &Failure, now: Timestamp) -> (Next, Record) {
        if failure.class == Class::Authority {
            self.enter(Kind::Failed, now, None).await;
        }
        let next = schedule.failed(failure, self.world.chance());
        let record = Record::failed(schedule.failures(), later(now, next.pause()), failure.class, &failure.text);
        self.world.save(self.name, &record).await;
        (next, record)
    }
}
