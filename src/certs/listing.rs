//! What is known of every name's certificate, put together from the places that have a part of it. Pure.
//!
//! A [`Row`] is the `--json` contract of `certs list` and `certs show`.

use std::collections::{BTreeMap, BTreeSet};
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The TLS Secret of that name.
    Secret,
    /// Keys of the state Secret.
    StateKey,
    /// Files of the daemon.
    File,
    /// Nowhere.
    #[default]
    None,
}

/// What there is of one name.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// Where.
    pub source: Source,
    /// The chain as it is stored, in PEM.
    pub chain: Option<String>,
    /// What it says; nothing when there is no data.
    pub certificate: Option<Result<Certificate, ChainError>>,
    /// Whether the key beside it is its own; nothing when it cannot be seen.
    pub key_matches: Option<bool>,
    /// SHA-256, in hex, of the key of the account that ordered it.
    pub account: Option<String>,
    /// What is remembered of attempts.
    pub record: Record,
}

impl Source {
    /// As tables and `--json` spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::StateKey => "state-key",
            Self::File => "file",
            Self::None => "none",
        }
    }
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
    pub source: Source,
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
    /// What a chain and a key in PEM are worth. Empty ones are none.
    pub fn of_pem(source: Source, chain: &[u8], key: Option<&[u8]>) -> Self {
        if chain.is_empty() {
            return Self { source, ..Self::default() };
        }
        let chain = String::from_utf8_lossy(chain).into_owned();
        let certificate = Certificate::read(&chain);
        let key = key.filter(|key| !key.is_empty()).map(|key| Secret::new(String::from_utf8_lossy(key).into_owned()));
        let key_matches = match (&certificate, key) {
            (Ok(certificate), Some(key)) => Some(certificate.key_matches(&key).unwrap_or(false)),
            _ => None,
        };
        Self { source, chain: Some(chain), certificate: Some(certificate), key_matches, ..Self::default() }
    }
}

impl Found {
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
        let noted = kept.map(|kept| &kept.record).filter(|record| **record != Record::default());
        let record = noted.or(self.records.get(domain.as_str()));
        let account = kept.and_then(|kept| kept.account.as_ref()).zip(self.account.as_ref());
        Row {
            used_by: self.users(&domain),
            source: kept.filter(|_| certificate.is_some()).map(|kept| kept.source).unwrap_or_default(),
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

    fn kept(chain: &str, key: Option<&Secret<String>>) -> Kept {
        Kept::of_pem(Source::Secret, chain.as_bytes(), key.map(|key| key.expose().as_bytes()))
    }

    #[test]
    fn what_was_noted_comes_from_the_secret_or_else_from_the_file() {
        let (chain, key) = made(&["a.t.ts.net"]);
        let record = Record::failed(2, now(), Class::Authority, "no");
        let mut found = Found::default();
        found.records.insert("b.t.ts.net".to_owned(), Record { failures: 3, ..record.clone() });
        found.kept.insert(name("a.t.ts.net"), Kept { record, ..kept(&chain, Some(&key)) });
        found.kept.insert(name("b.t.ts.net"), kept("", None));
        let row = found.row(name("a.t.ts.net"), WEEK, now());
        assert_eq!((row.source, row.status, row.failures, row.days), (Source::Secret, Status::Ok, 2, Some(59)));
        assert_eq!((row.key_matches, row.allowed, row.account_matches), (Some(true), None, None));
        assert_eq!(row.last_error.as_deref(), Some("no"));
        let empty = found.row(name("b.t.ts.net"), WEEK, now());
        assert_eq!((empty.source, empty.status, empty.failures), (Source::None, Status::Missing, 3));
    }

    #[test]
    fn every_name_that_anybody_knows_has_a_row() {
        let (chain, _) = made(&["a.t.ts.net"]);
        let mut found = Found { allowed: Some(["b.t.ts.net".to_owned()].into()), ..Found::default() };
        found.wanted.names.insert(name("c.t.ts.net"), ["svc:c".to_owned()].into());
        found.wanted.names.insert(name("node.t.ts.net"), BTreeSet::new());
        found.kept.insert(name("a.t.ts.net"), kept(&chain, None));
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
        found.kept.insert(name("a.t.ts.net"), kept(&chain, Some(&other)));
        found.kept.insert(name("b.t.ts.net"), Kept { account: Some("bb".into()), ..kept(&chain, None) });
        found.kept.insert(name("c.t.ts.net"), kept("garbage", None));
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
