//! What is known of every name's certificate, put together from the places that have a part of it. Pure.
//!
//! A [`Row`] is the `--json` contract of `certs list` and `certs show`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::chain::{Certificate, ChainError};
use super::names::{Name, Wanted};
use super::record::Record;
use super::status::{Known, Status};
use crate::secret::Secret;

/// Who uses a name that is the node's own.
pub const NODE: &str = "node";

/// Where a certificate is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", content = "name", rename_all = "kebab-case")]
pub enum Source {
    /// A TLS Secret of its own.
    Secret(String),
    /// A key of the state Secret.
    StateSecret(String),
    /// A file of tailscaled.
    File(PathBuf),
}

/// What one place has of one name.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The place.
    pub source: Source,
    /// The chain; nothing when the place is empty.
    pub certificate: Option<Result<Certificate, ChainError>>,
    /// The chain as it is kept.
    pub pem: String,
    /// Whether the key beside it is its own; nothing when it cannot be seen.
    pub key_matches: Option<bool>,
    /// Digest of the account that it was issued to, in hex.
    pub account: Option<String>,
    /// What was noted there of attempts.
    pub record: Option<Record>,
}

/// Everything that was found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// What the serve config asks for.
    pub wanted: Wanted,
    /// What the tailnet allows; nothing when it could not be asked.
    pub allowed: Option<BTreeSet<String>>,
    /// What is kept, the best place of each name only.
    pub kept: BTreeMap<Name, Kept>,
    /// What was noted of attempts beside the certificates.
    pub records: BTreeMap<String, Record>,
    /// Digest of the present account, in hex.
    pub account: Option<String>,
}

/// One name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// The name.
    pub domain: Name,
    /// Services that use it, or `node`.
    pub used_by: Vec<String>,
    /// Where its certificate is kept.
    pub source: Option<Source>,
    /// The issuer's common name, or its organisation.
    pub issuer: Option<String>,
    /// First moment.
    pub not_before: Option<Timestamp>,
    /// Last moment.
    pub not_after: Option<Timestamp>,
    /// Whole days until then, rounded down; below zero afterwards.
    pub days: Option<i64>,
    /// How it stands.
    pub status: Status,
    /// Why it is invalid.
    pub problem: Option<String>,
    /// When a certificate is asked for again.
    pub next_attempt: Option<Timestamp>,
    /// Serial number in hex.
    pub serial: Option<String>,
    /// SHA-256 of the certificate in hex.
    pub fingerprint_sha256: Option<String>,
    /// The names it is for.
    pub sans: Vec<String>,
    /// Whether the key beside it is its own.
    pub key_matches: Option<bool>,
    /// Whether the tailnet allows the name.
    pub allowed: Option<bool>,
    /// Failed attempts in a row.
    pub failures: u32,
    /// The last one's text.
    pub last_error: Option<String>,
    /// Certificates in the chain, its own included.
    pub chain_length: Option<usize>,
    /// Whether it was issued to the present account; nothing when either is not known.
    pub account_matches: Option<bool>,
}

impl Kept {
    /// Reads a place. An empty chain is none.
    pub fn read(source: Source, pem: &str, key: Option<&Secret<String>>) -> Self {
        let certificate = (!pem.trim().is_empty()).then(|| Certificate::read(pem));
        let key_matches = match (&certificate, key) {
            // A key that cannot be read is not the certificate's.
            (Some(Ok(certificate)), Some(key)) => Some(certificate.key_matches(key).unwrap_or(false)),
            _ => None,
        };
        Self { source, certificate, pem: pem.to_owned(), key_matches, account: None, record: None }
    }

    fn has_certificate(&self) -> bool {
        self.certificate.is_some()
    }
}

impl Found {
    /// Takes over what another place has, unless a better one has a certificate; places come the best first. What an
    /// empty place says of attempts stays.
    pub fn keep(&mut self, name: Name, kept: Kept) {
        match self.kept.get_mut(&name) {
            None => drop(self.kept.insert(name, kept)),
            Some(before) if !before.has_certificate() && kept.has_certificate() => {
                let record = before.record.take();
                *before = Kept { record: kept.record.clone().or(record), ..kept };
            }
            Some(_) => {}
        }
    }

    /// All names: wanted, allowed, kept.
    pub fn names(&self) -> BTreeSet<Name> {
        let mut names: BTreeSet<Name> = self.wanted.names.keys().chain(self.kept.keys()).cloned().collect();
        names.extend(self.allowed.iter().flatten().filter_map(|name| Name::parse(name).ok()));
        names
    }

    /// All rows, by name.
    pub fn rows(&self, critical: Duration, now: Timestamp) -> Vec<Row> {
        self.names().into_iter().map(|name| self.row(name, critical, now)).collect()
    }

    /// One of them; of a name that nobody knows, one that says so.
    pub fn row(&self, domain: Name, critical: Duration, now: Timestamp) -> Row {
        let kept = self.kept.get(&domain);
        let certificate = kept.and_then(|kept| kept.certificate.as_ref());
        let allowed = self.allowed.as_ref().map(|allowed| allowed.contains(domain.as_str()));
        let key_matches = kept.and_then(|kept| kept.key_matches);
        let status = Status::of(&domain, &Known { certificate, key_matches, allowed }, critical, now);
        let good = certificate.and_then(|certificate| certificate.as_ref().ok());
        let problem = match certificate {
            Some(Err(error)) => Some(error.to_string()),
            _ if status != Status::Invalid => None,
            _ if key_matches == Some(false) => Some("the key beside it is another one's".to_owned()),
            _ => Some("it is for other names".to_owned()),
        };
        let record = kept.and_then(|kept| kept.record.as_ref()).or(self.records.get(domain.as_str()));
        let account = kept.and_then(|kept| kept.account.as_ref()).zip(self.account.as_ref());
        Row {
            used_by: self.users(&domain),
            source: kept.filter(|kept| kept.has_certificate()).map(|kept| kept.source.clone()),
            issuer: good.map(|good| good.issuer.clone()),
            not_before: good.map(|good| good.period.not_before),
            not_after: good.map(|good| good.period.not_after),
            days: good.map(|good| good.period.days_left(now)),
            status,
            problem,
            next_attempt: record.and_then(|record| record.next_attempt),
            serial: good.map(|good| good.serial.clone()),
            fingerprint_sha256: good.map(|good| good.fingerprint.clone()),
            sans: good.map(|good| good.names.clone()).unwrap_or_default(),
            key_matches,
            allowed,
            failures: record.map_or(0, |record| record.failures),
            last_error: record.and_then(|record| record.last_error.clone()),
            chain_length: good.map(|good| good.chain_length),
            account_matches: account.map(|(issued, present)| issued == present),
            domain,
        }
    }

    fn users(&self, name: &Name) -> Vec<String> {
        match self.wanted.names.get(name) {
            None => Vec::new(),
            Some(services) if services.is_empty() => vec![NODE.to_owned()],
            Some(services) => services.iter().cloned().collect(),
        }
    }
}

#[cfg(test)]
#[cfg(feature = "sandbox")]
mod tests {
    use super::super::chain::tests::made;
    use super::super::failure::Class;
    use super::*;

    const WEEK: Duration = Duration::from_secs(7 * 86_400);

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    fn now() -> Timestamp {
        "2026-02-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn the_first_place_with_a_certificate_counts_and_what_was_noted_stays() {
        let (chain, key) = made(&["a.t.ts.net"]);
        let record = Record::failed(2, now(), Class::Authority, "no");
        let empty = Kept { record: Some(record), ..Kept::read(Source::Secret("n/a.t.ts.net".into()), " ", None) };
        let full = Kept::read(Source::StateSecret("n/s".into()), &chain, Some(&key));
        let late = Kept::read(Source::File("/c/a.t.ts.net.crt".into()), "x", None);
        let mut found = Found::default();
        for kept in [empty, full, late] {
            found.keep(name("a.t.ts.net"), kept);
        }
        let row = found.row(name("a.t.ts.net"), WEEK, now());
        assert_eq!(row.source, Some(Source::StateSecret("n/s".into())));
        assert_eq!((row.status, row.failures, row.days), (Status::Ok, 2, Some(59)));
        assert_eq!((row.key_matches, row.allowed, row.account_matches), (Some(true), None, None));
        assert_eq!(row.last_error.as_deref(), Some("no"));
    }

    #[test]
    fn every_name_that_anybody_knows_has_a_row() {
        let (chain, _) = made(&["a.t.ts.net"]);
        let mut found = Found { allowed: Some(["b.t.ts.net".to_owned()].into()), ..Found::default() };
        found.wanted.names.insert(name("c.t.ts.net"), ["svc:c".to_owned()].into());
        found.wanted.names.insert(name("node.t.ts.net"), BTreeSet::new());
        found.keep(name("a.t.ts.net"), Kept::read(Source::Secret("n/a.t.ts.net".into()), &chain, None));
        let rows = found.rows(WEEK, now());
        let shown: Vec<_> = rows
            .iter()
            .map(|row| format!("{} {} {} {:?}", row.domain, row.used_by.join(","), row.status.as_str(), row.allowed))
            .collect();
        assert_eq!(
            shown,
            [
                "a.t.ts.net  not-allowed Some(false)",
                "b.t.ts.net  missing Some(true)",
                "c.t.ts.net svc:c missing Some(false)",
                "node.t.ts.net node missing Some(false)",
            ]
        );
    }

    #[test]
    fn an_invalid_one_says_why() {
        let (chain, _) = made(&["a.t.ts.net"]);
        let (_, other) = made(&["a.t.ts.net"]);
        let mut found = Found { account: Some("aa".to_owned()), ..Found::default() };
        let source = || Source::Secret("n/x".into());
        found.keep(name("a.t.ts.net"), Kept::read(source(), &chain, Some(&other)));
        found.keep(name("b.t.ts.net"), Kept { account: Some("bb".into()), ..Kept::read(source(), &chain, None) });
        found.keep(name("c.t.ts.net"), Kept::read(source(), "garbage", None));
        let problems: Vec<_> =
            found.rows(WEEK, now()).into_iter().map(|row| (row.status, row.problem.unwrap())).collect();
        assert_eq!(
            problems,
            [
                (Status::Invalid, "the key beside it is another one's".to_owned()),
                (Status::Invalid, "it is for other names".to_owned()),
                (Status::Invalid, "there is no PEM certificate in it".to_owned()),
            ]
        );
        assert_eq!(found.row(name("b.t.ts.net"), WEEK, now()).account_matches, Some(false));
    }
}
