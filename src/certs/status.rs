//! How a certificate stands, in one word. Pure.
//!
//! The first rule that matches decides. Exit codes of `certs list` follow from it.

use std::time::Duration;

use jiff::Timestamp;

use super::chain::{Certificate, ChainError};
use super::names::Name;

/// How it stands, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It cannot be read, is for another name, or the key is another one's.
    Invalid,
    /// There is none.
    Missing,
    /// It is over.
    Expired,
    /// It has not begun.
    NotYetValid,
    /// It will be over within days.
    Critical,
    /// Two thirds of it are over.
    RenewalDue,
    /// It is good, and the tailnet will not let it be renewed.
    NotAllowed,
    /// It is good.
    Ok,
}

/// What is known of one name's certificate.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The certificate, or why it cannot be read; `None` when there is no data.
    pub certificate: Option<&'a Result<Certificate, ChainError>>,
    /// Whether the key beside it is its own; `None` when it cannot be seen.
    pub key_matches: Option<bool>,
    /// Whether the tailnet allows the name; `None` when that cannot be asked.
    pub allowed: Option<bool>,
}

impl Status {
    /// Judges what is known. Less than `critical` is critical.
    pub fn of(name: &Name, known: &Known<'_>, critical: Duration, now: Timestamp) -> Self {
        let certificate = match known.certificate {
            None => return Self::Missing,
            Some(Err(_)) => return Self::Invalid,
            Some(Ok(certificate)) => certificate,
        };
        let period = certificate.period;
        if !certificate.covers(name) || known.key_matches == Some(false) {
            Self::Invalid
        } else if now > period.not_after {
            Self::Expired
        } else if now < period.not_before {
            Self::NotYetValid
        } else if period.left(now) < critical {
            Self::Critical
        } else if now > period.renew_at() {
            Self::RenewalDue
        } else if known.allowed == Some(false) {
            Self::NotAllowed
        } else {
            Self::Ok
        }
    }

    /// Whether nobody has to do anything.
    pub fn is_fine(self) -> bool {
        matches!(self, Self::Ok | Self::RenewalDue)
    }

    /// Whether a server can use it right now.
    pub fn is_valid(self) -> bool {
        matches!(self, Self::Ok | Self::RenewalDue | Self::Critical | Self::NotAllowed)
    }

    /// As tables and `--json` spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Missing => "missing",
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::Critical => "critical",
            Self::RenewalDue => "renewal-due",
            Self::NotAllowed => "not-allowed",
            Self::Ok => "ok",
        }
    }
}

#[cfg(test)]
#[cfg(feature = "sandbox")]
mod tests {
    use super::super::chain::tests::made;
    use super::*;

    #[test]
    fn the_first_rule_that_matches_decides() {
        let name = Name::parse("a.tail1.ts.net").unwrap();
        let other = Name::parse("b.tail1.ts.net").unwrap();
        let good = Certificate::read(&made(&["a.tail1.ts.net"]).0);
        let broken = Err(ChainError::NoCertificate);
        let week = Duration::from_secs(7 * 86_400);
        for (certificate, key_matches, allowed, name, now, status) in [
            (None, None, Some(false), &name, "2026-02-01T00:00:00Z", Status::Missing),
            (Some(&broken), None, None, &name, "2026-02-01T00:00:00Z", Status::Invalid),
            (Some(&good), None, None, &other, "2026-02-01T00:00:00Z", Status::Invalid),
            (Some(&good), Some(false), None, &name, "2026-02-01T00:00:00Z", Status::Invalid),
            (Some(&good), Some(true), Some(false), &name, "2026-04-01T01:00:00Z", Status::Expired),
            (Some(&good), None, None, &name, "2025-12-31T00:00:00Z", Status::NotYetValid),
            (Some(&good), None, Some(false), &name, "2026-03-26T00:00:00Z", Status::Critical),
            (Some(&good), None, Some(false), &name, "2026-03-10T00:00:00Z", Status::RenewalDue),
            (Some(&good), None, Some(false), &name, "2026-02-01T00:00:00Z", Status::NotAllowed),
            (Some(&good), Some(true), Some(true), &name, "2026-02-01T00:00:00Z", Status::Ok),
            (Some(&good), None, None, &name, "2026-02-01T00:00:00Z", Status::Ok),
        ] {
            let known = Known { certificate, key_matches, allowed };
            assert_eq!(Status::of(name, &known, week, now.parse().unwrap()), status, "{now}");
        }
    }
}
