//! How many certificates may still be had: a ledger against the authority's published limits. Pure.
//!
//! Let's Encrypt's limits are buckets that refill evenly (`letsencrypt.org/docs/rate-limits/`): 50 certificates per
//! registered domain and 5 per exact set of names in 7 days, 300 orders per account in 3 hours, 5 failed validations
//! per name in an hour. A renewal does not count against the registered domain. We cannot see what others used up, so
//! the ledger is a lower bound of what is spent; it refuses what would surely be refused, and keeps the one mistake that
//! takes a week to heal from happening. Nor can we see what becomes of an order that is broken off: tailscaled gives it up
//! with the request, and the key of a certificate that the authority has issued by then is gone (`feature/acme`,
//! `issueACMECert`). It counts as an order, and as no certificate.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::names::Name;
use super::schedule::later;

/// A limit that refills evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// As `--json` and messages spell it.
    pub name: &'static str,
    /// How many at once.
    pub burst: u32,
    /// How long until one comes back.
    pub refill: Duration,
}

/// Certificates for one registered domain: 50 in 7 days.
pub const PER_DOMAIN: Limit =
    Limit { name: "certificates per registered domain", burst: 50, refill: Duration::from_secs(202 * 60) };
/// Certificates for exactly the same names: 5 in 7 days.
pub const PER_NAME: Limit =
    Limit { name: "certificates per exact name", burst: 5, refill: Duration::from_secs(34 * 3600) };
/// Orders of one account: 300 in 3 hours.
pub const ORDERS: Limit = Limit { name: "new orders per account", burst: 300, refill: Duration::from_secs(36) };
/// Failed validations of one name: 5 in an hour.
pub const VALIDATIONS: Limit =
    Limit { name: "failed validations per name", burst: 5, refill: Duration::from_secs(12 * 60) };

/// The longest that an entry matters.
const MEMORY: SignedDuration = SignedDuration::from_hours(8 * 24);
/// More entries than the limits let happen are of no use: the oldest go.
const MOST: usize = 4096;

/// How an order ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The first certificate of a name, as far as we know.
    Issued,
    /// Another one for a name that had one.
    Renewed,
    /// The authority did not issue.
    Failed,
    /// It was broken off: perhaps there is a certificate that nobody has.
    BrokenOff,
}

/// One order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// For which name.
    pub name: String,
    /// When it ended.
    pub at: Timestamp,
    /// How.
    pub kind: Kind,
    /// The serial number of what came of it, where that was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
}

/// What was ordered lately, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ledger(Vec<Entry>);

/// What is left of one limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Left {
    /// The limit.
    pub limit: &'static str,
    /// The domain or name that it is about; nothing for the account.
    pub subject: Option<String>,
    /// How many are left now.
    pub left: u32,
    /// How many there can be.
    pub of: u32,
    /// When there is one more, unless all are left.
    pub next_at: Option<Timestamp>,
}

/// An order that would be refused, and from when on it would not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the budget of {limit} ({subject}) is used up until {until}")]
pub struct Exhausted {
    /// The limit.
    pub limit: &'static str,
    /// The domain or name.
    pub subject: String,
    /// When there is one again.
    pub until: Timestamp,
}

impl Limit {
    /// How far ahead of `now` the bucket's content reaches after these takings, oldest first.
    fn debt(&self, takings: impl Iterator<Item = Timestamp>, now: Timestamp) -> Duration {
        let mut full_at = Timestamp::MIN;
        for at in takings.filter(|at| *at <= now) {
            full_at = later(full_at.max(at), self.refill);
        }
        Duration::try_from(full_at.duration_since(now)).unwrap_or_default()
    }

    fn left(&self, subject: Option<&str>, takings: impl Iterator<Item = Timestamp>, now: Timestamp) -> Left {
        let debt = self.debt(takings, now);
        let used = u32::try_from(debt.as_secs().div_ceil(self.refill.as_secs())).unwrap_or(u32::MAX).min(self.burst);
        let over = debt.saturating_sub(self.refill * used.saturating_sub(1));
        Left {
            limit: self.name,
            subject: subject.map(str::to_owned),
            left: self.burst - used,
            of: self.burst,
            next_at: (used > 0).then(|| later(now, over)),
        }
    }
}

impl Ledger {
    /// Adds an order that ended, and forgets what no limit remembers. A certificate that is there already came of the
    /// same order.
    pub fn add(&mut self, entry: Entry) {
        if entry.serial.is_some()
            && self.0.iter().any(|known| (&known.name, &known.serial) == (&entry.name, &entry.serial))
        {
            return;
        }
        let now = entry.at;
        let at = self.0.partition_point(|known| known.at <= entry.at);
        self.0.insert(at, entry);
        self.0.retain(|known| now.duration_since(known.at) < MEMORY);
        let excess = self.0.len().saturating_sub(MOST);
        self.0.drain(..excess);
    }

    /// Whether the certificate of `name` with this serial number is noted.
    pub fn has(&self, name: &Name, serial: &str) -> bool {
        self.0.iter().any(|entry| entry.name == name.as_str() && entry.serial.as_deref() == Some(serial))
    }

    /// Takes over what somebody else has written down too.
    pub fn merge(&mut self, other: Self) {
        for entry in other.0 {
            if !self.0.contains(&entry) {
                self.add(entry);
            }
        }
    }

    /// Those for `name`, as many as an annotation has room for.
    #[must_use]
    pub fn of(&self, name: &Name) -> Self {
        /// An annotation has at most 256 KiB, with all others; an entry some 90 bytes.
        const ROOM: usize = 500;
        let own: Vec<_> = self.0.iter().filter(|entry| entry.name == name.as_str()).cloned().collect();
        Self(own[own.len().saturating_sub(ROOM)..].to_vec())
    }

    /// The orders, oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.0
    }

    /// Whether an order for `name` would be within all limits.
    ///
    /// # Errors
    /// The limit that lets it happen last.
    pub fn check(&self, name: &Name, kind: Kind, now: Timestamp) -> Result<(), Exhausted> {
        let mut worst: Option<Exhausted> = None;
        for left in self.limits_of(name, kind, now) {
            if let Left { left: 0, next_at: Some(until), limit, subject, .. } = left
                && worst.as_ref().is_none_or(|worst| worst.until < until)
            {
                worst = Some(Exhausted { limit, subject: subject.unwrap_or_else(|| "the account".to_owned()), until });
            }
        }
        worst.map_or(Ok(()), Err)
    }

    fn limits_of(&self, name: &Name, kind: Kind, now: Timestamp) -> Vec<Left> {
        let mut limits =
            vec![self.of_account(now), self.of_name(name.as_str(), now), self.of_validations(name.as_str(), now)];
        if kind != Kind::Renewed {
            limits.push(self.of_domain(name.registered_domain(), now));
        }
        limits
    }

    /// What is left of every limit that these names touch; names beyond them that were ordered lately are added.
    pub fn left<'n>(&self, names: impl IntoIterator<Item = &'n Name>, now: Timestamp) -> Vec<Left> {
        let mut all: BTreeSet<Name> = names.into_iter().cloned().collect();
        all.extend(self.0.iter().filter_map(|entry| Name::parse(&entry.name).ok()));
        let domains: BTreeSet<&str> = all.iter().map(Name::registered_domain).collect();
        let mut left = vec![self.of_account(now)];
        left.extend(domains.iter().map(|domain| self.of_domain(domain, now)));
        left.extend(all.iter().map(|name| self.of_name(name.as_str(), now)));
        left.extend(all.iter().map(|name| self.of_validations(name.as_str(), now)).filter(|left| left.left < left.of));
        left
    }

    fn of_account(&self, now: Timestamp) -> Left {
        ORDERS.left(None, self.0.iter().map(|entry| entry.at), now)
    }

    fn of_domain(&self, domain: &str, now: Timestamp) -> Left {
        let counts = |entry: &&Entry| {
            entry.kind == Kind::Issued && Name::parse(&entry.name).is_ok_and(|name| name.registered_domain() == domain)
        };
        PER_DOMAIN.left(Some(domain), self.0.iter().filter(counts).map(|entry| entry.at), now)
    }

    fn of_name(&self, name: &str, now: Timestamp) -> Left {
        let counts = |entry: &&Entry| matches!(entry.kind, Kind::Issued | Kind::Renewed) && entry.name == name;
        PER_NAME.left(Some(name), self.0.iter().filter(counts).map(|entry| entry.at), now)
    }

    fn of_validations(&self, name: &str, now: Timestamp) -> Left {
        let counts = |entry: &&Entry| entry.kind == Kind::Failed && entry.name == name;
        VALIDATIONS.left(Some(name), self.0.iter().filter(counts).map(|entry| entry.at), now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    fn entry(name: &str, at: Timestamp, kind: Kind) -> Entry {
        Entry { name: name.to_owned(), at, kind, serial: None }
    }

    const START: &str = "2026-01-01T00:00:00Z";

    #[test]
    fn five_of_a_name_and_then_one_every_34_hours() {
        let mut ledger = Ledger::default();
        let shop = name("shop.tail1.ts.net");
        for _ in 0..5 {
            assert_eq!(ledger.check(&shop, Kind::Renewed, at(START)), Ok(()));
            ledger.add(entry("shop.tail1.ts.net", at(START), Kind::Renewed));
        }
        let refused = ledger.check(&shop, Kind::Renewed, at(START)).unwrap_err();
        assert_eq!(refused.until, at("2026-01-02T10:00:00Z"));
        assert_eq!(
            refused.to_string(),
            "the budget of certificates per exact name (shop.tail1.ts.net) is used up until 2026-01-02T10:00:00Z"
        );
        assert_eq!(ledger.check(&shop, Kind::Renewed, refused.until), Ok(()));
        assert_eq!(ledger.check(&name("other.tail1.ts.net"), Kind::Issued, at(START)), Ok(()));
    }

    #[test]
    fn fifty_of_a_domain_and_renewals_beside() {
        let mut ledger = Ledger::default();
        for n in 0..50 {
            ledger.add(entry(&format!("n{n}.tail1.ts.net"), at(START), Kind::Issued));
        }
        let new = name("new.tail1.ts.net");
        let refused = ledger.check(&new, Kind::Issued, at(START)).unwrap_err();
        assert_eq!((refused.subject.as_str(), refused.until), ("tail1.ts.net", at("2026-01-01T03:22:00Z")));
        assert_eq!(ledger.check(&name("n1.tail1.ts.net"), Kind::Renewed, at(START)), Ok(()));
        assert_eq!(ledger.check(&name("new.tail2.ts.net"), Kind::Issued, at(START)), Ok(()), "another tailnet");
    }

    #[test]
    fn failures_count_for_an_hour() {
        let mut ledger = Ledger::default();
        for _ in 0..5 {
            ledger.add(entry("a.tail1.ts.net", at(START), Kind::Failed));
        }
        let refused = ledger.check(&name("a.tail1.ts.net"), Kind::Issued, at(START)).unwrap_err();
        assert_eq!(refused.until, at("2026-01-01T00:12:00Z"));
        assert_eq!(ledger.of_name("a.tail1.ts.net", at(START)).left, 5, "what was not issued is not counted as issued");
    }

    #[test]
    fn what_is_left_is_shown_for_names_wanted_and_names_ordered() {
        let mut ledger = Ledger::default();
        ledger.add(entry("a.tail1.ts.net", at(START), Kind::Issued));
        ledger.add(entry("a.tail1.ts.net", at("2026-01-01T12:00:00Z"), Kind::Renewed));
        let left = ledger.left(&[name("b.tail1.ts.net")], at("2026-01-01T12:00:00Z"));
        let shown: Vec<_> = left.iter().map(|left| (left.subject.as_deref(), left.left, left.of)).collect();
        assert_eq!(
            shown,
            [
                (None, 299, 300),
                (Some("tail1.ts.net"), 50, 50),
                (Some("a.tail1.ts.net"), 3, 5),
                (Some("b.tail1.ts.net"), 5, 5)
            ]
        );
        assert_eq!(left[2].next_at, Some(at("2026-01-02T10:00:00Z")));
    }

    #[test]
    fn a_certificate_is_counted_once_and_what_was_broken_off_as_an_order_only() {
        let mut ledger = Ledger::default();
        let shop = name("shop.tail1.ts.net");
        let of = |serial: &str, at: Timestamp| Entry {
            serial: Some(serial.to_owned()),
            ..entry("shop.tail1.ts.net", at, Kind::Renewed)
        };
        ledger.add(of("1", at(START)));
        ledger.add(of("1", at("2026-01-01T01:00:00Z")));
        assert!(ledger.has(&shop, "1") && !ledger.has(&shop, "2") && !ledger.has(&name("b.tail1.ts.net"), "1"));
        ledger.add(of("2", at("2026-01-01T01:00:00Z")));
        ledger.add(entry("shop.tail1.ts.net", at("2026-01-01T01:00:00Z"), Kind::BrokenOff));
        let now = at("2026-01-01T01:00:00Z");
        assert_eq!((ledger.of_name("shop.tail1.ts.net", now).left, ledger.of_account(now).left), (3, 298));
        assert_eq!(ledger.of_validations("shop.tail1.ts.net", now).left, 5);
        let text = serde_json::to_string(&ledger).unwrap();
        assert!(text.contains(r#""kind":"broken-off"}"#) && text.contains(r#""serial":"2""#), "{text}");
    }

    #[test]
    fn the_ledger_forgets_and_merges() {
        let mut ledger = Ledger::default();
        ledger.add(entry("a.b", at(START), Kind::Issued));
        let copy = ledger.clone();
        ledger.merge(copy);
        assert_eq!(ledger.entries().len(), 1);
        ledger.add(entry("a.b", at("2026-02-01T00:00:00Z"), Kind::Renewed));
        assert_eq!(ledger.entries().len(), 1, "a month later only the last one is left");
        let text = serde_json::to_string(&ledger).unwrap();
        assert_eq!(text, r#"[{"name":"a.b","at":"2026-02-01T00:00:00Z","kind":"renewed"}]"#);
        assert_eq!(serde_json::from_str::<Ledger>(&text).unwrap(), ledger);
    }
}
