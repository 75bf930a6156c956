//! What follows from an answer: what is noted of it, who is told, and when to ask again.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::super::budget::Kind;
use super::super::chain::Certificate;
use super::super::failure::{Class, Failure};
use super::super::schedule::{Freshness, Next, later};
use super::super::standing::{AttemptResult, Phase};
use super::super::world::{News, World};
use super::Keeper;

/// Between Events about failures of one class.
const TOLD_AGAIN: Duration = Duration::from_secs(3600);

impl<W: World> Keeper<W> {
    pub(super) async fn succeeded(&mut self, certificate: Certificate, now: Timestamp) {
        let shared = Arc::clone(&self.shared);
        let book = shared.book(&self.name);
        let before = self.known.replace((certificate.serial.clone(), certificate.period));
        let before = before.as_ref().map(|(serial, _)| serial.as_str());
        let kind = if self.had_one { Kind::Renewed } else { Kind::Issued };
        let ordered = book.is_ordered(before, &certificate, now).then_some(kind);
        if before != Some(certificate.serial.as_str()) {
            tracing::info!(
                domain = %self.name, serial = certificate.serial, issuer = certificate.issuer,
                not_after = %certificate.period.not_after, renewed = before.is_some(), "there is a certificate"
            );
        }
        let (freshness, record) = book.succeeded(&mut self.schedule, &certificate, ordered, now).await;
        self.due = record.next_attempt.unwrap_or(now);
        if ordered.is_some() {
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
        let phase = match freshness {
            Freshness::Fresh => Phase::Waiting(self.due),
            Freshness::Pending => Phase::RenewalPending(self.due),
        };
        let result = if ordered.is_some() { AttemptResult::OK } else { AttemptResult::UNCHANGED };
        self.standing.send_modify(|standing| {
            standing.results.add(result);
            (standing.phase, standing.certificate, standing.record) = (phase, Some(certificate), record);
        });
    }

    pub(super) async fn failed(&mut self, failure: &Failure, now: Timestamp) {
        let shared = Arc::clone(&self.shared);
        let (next, record) = shared.book(&self.name).failed(&mut self.schedule, failure, now).await;
        self.check_storage |= matches!(next, Next::WaitForStorage(_));
        let wait = next.pause();
        self.due = later(now, wait);
        tracing::warn!(
            domain = %self.name, failures = self.schedule.failures(), class = failure.class.as_str(),
            error = failure.text, delay = crate::goduration::format_seconds(wait), "no certificate"
        );
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
}
