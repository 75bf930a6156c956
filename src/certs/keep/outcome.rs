//! What follows from an answer: what is noted of it, who is told, and when to ask again.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::super::budget::{Entry, Kind};
use super::super::chain::Certificate;
use super::super::failure::{Class, Failure};
use super::super::record::Record;
use super::super::schedule::{Freshness, Next, later};
use super::super::standing::{AttemptResult, Phase};
use super::super::world::{News, World};
use super::Keeper;

/// Between Events about failures of one class.
const TOLD_AGAIN: Duration = Duration::from_secs(3600);
/// A first certificate that begins within this was ordered by us; authorities date back by an hour.
const NEW: Duration = Duration::from_secs(2 * 3600);

impl<W: World> Keeper<W> {
    pub(super) async fn succeeded(&mut self, certificate: Certificate, now: Timestamp) {
        let shared = Arc::clone(&self.shared);
        let before = self.known.replace((certificate.serial.clone(), certificate.period));
        let is_new = before.as_ref().is_none_or(|(serial, _)| *serial != certificate.serial);
        let begins = certificate.period.not_before;
        let ordered = is_new && (before.is_some() || later(begins, NEW) > now);
        if ordered {
            let kind = if self.had_one { Kind::Renewed } else { Kind::Issued };
            self.enter(kind, now).await;
        }
        if is_new {
            tracing::info!(
                domain = %self.name, serial = certificate.serial, issuer = certificate.issuer,
                not_after = %certificate.period.not_after, renewed = before.is_some(), "there is a certificate"
            );
        }
        if ordered {
            let reason = if self.had_one { "CertRenewed" } else { "CertIssued" };
            let message = format!(
                "certificate {} of {}, until {}",
                certificate.serial, certificate.issuer, certificate.period.not_after
            );
            shared.world.tell(&self.name, News { is_bad: false, reason, message }).await;
            if let Some(orders) = shared.orders.get() {
                // Who does not listen any more does not want to know.
                let _ = orders.send((self.name.clone(), certificate.clone()));
            }
        }
        self.had_one = true;
        let (freshness, next) = self.schedule.succeeded(certificate.period, now, shared.world.chance());
        self.due = later(now, next.pause());
        let record = Record::succeeded(self.due);
        shared.world.save(&self.name, &record).await;
        let phase = match freshness {
            Freshness::Fresh => Phase::Waiting(self.due),
            Freshness::Pending => Phase::RenewalPending(self.due),
        };
        let result = if ordered { AttemptResult::OK } else { AttemptResult::UNCHANGED };
        self.standing.send_modify(|standing| {
            standing.results.add(result);
            (standing.phase, standing.certificate, standing.record) = (phase, Some(certificate), record);
        });
    }

    pub(super) async fn failed(&mut self, failure: &Failure, now: Timestamp) {
        let shared = Arc::clone(&self.shared);
        if failure.class == Class::Authority {
            self.enter(Kind::Failed, now).await;
        }
        let next = self.schedule.failed(failure, shared.world.chance());
        self.check_storage |= matches!(next, Next::WaitForStorage(_));
        let wait = next.pause();
        self.due = later(now, wait);
        tracing::warn!(
            domain = %self.name, failures = self.schedule.failures(), class = failure.class.as_str(),
            error = failure.text, delay = crate::goduration::format_seconds(wait), "no certificate"
        );
        let record = Record::failed(self.schedule.failures(), self.due, failure.class, &failure.text);
        shared.world.save(&self.name, &record).await;
        let phase = if next == Next::WaitForName { Phase::NotAllowed } else { Phase::Waiting(self.due) };
        self.standing.send_modify(|standing| {
            standing.results.add(failure.class.into());
            (standing.phase, standing.record) = (phase, record);
        });
        self.tell_failure(failure, now).await;
        if next == Next::WaitForRole {
            self.say(Phase::NotWriter);
            // The daemon knows better than we do; it takes a change to try again.
            let _ = self.role.changed().await;
        }
    }

    /// At most once an hour for each class: what a person reads must not be what one has to search.
    async fn tell_failure(&mut self, failure: &Failure, now: Timestamp) {
        let class = failure.class.as_str();
        if self.told.get(class).is_some_and(|at| later(*at, TOLD_AGAIN) > now) || failure.class == Class::Transient {
            return;
        }
        self.told.insert(class, now);
        let message = format!("{class}: {}", failure.text);
        self.shared.world.tell(&self.name, News { is_bad: true, reason: "CertFailed", message }).await;
    }

    async fn enter(&self, kind: Kind, at: Timestamp) {
        let entry = Entry { name: self.name.to_string(), at, kind };
        let ledger = self.ledger(|ledger| {
            ledger.add(entry);
            ledger.clone()
        });
        self.shared.world.save_ledger(&self.name, &ledger).await;
    }
}
