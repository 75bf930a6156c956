//! Whether every replica serves the certificate that it ought to.
//!
//! [`look`] shakes hands with all of them, [`compare`] says how what they serve stands to what is kept, or without that to
//! the newest of it. No private key is looked at.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::chain::Certificate;
use super::handshake;
use super::names::Name;
use super::replicas::{self, Replica, is_tailnet};
use crate::causes::chain;
use crate::goduration;
use crate::localapi::types::{DnsRecord, Status};
use crate::localapi::{LocalApi, Peers};

/// Handshakes at the same time.
const CONCURRENT: usize = 16;

/// The way to tailnet addresses.
#[derive(Clone, Debug)]
pub enum Way {
    /// The kernel knows it.
    Kernel,
    /// tailscaled connects, because it has no interface of its own.
    Daemon(LocalApi),
}

/// What a tailscaled knows of nodes and names.
#[derive(Clone, Debug)]
pub struct Tailnet {
    status: Status,
    records: Vec<DnsRecord>,
}

/// What one replica serves, or why that is not known.
pub type Answer = Result<Certificate, String>;

/// How what is served stands to what ought to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is the one.
    Same,
    /// It is one from before.
    Old,
    /// It is one that is not kept.
    Other,
    /// It is over.
    Expired,
    /// It is for other names.
    WrongName,
    /// Nobody answered, or not with a certificate.
    Unreachable,
}

/// One replica, compared: the `--json` contract of `certs verify`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Compared {
    /// Where.
    pub address: SocketAddr,
    /// The node or Pod there.
    pub replica: Option<String>,
    /// How it stands.
    pub outcome: Outcome,
    /// Serial number of what is served, in hex.
    pub serial: Option<String>,
    /// Its last moment.
    pub not_after: Option<Timestamp>,
    /// SHA-256 of it in hex.
    pub fingerprint_sha256: Option<String>,
    /// Why nothing is known.
    pub error: Option<String>,
}

/// All replicas of a name, compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// The name.
    pub domain: Name,
    /// Serial number of what ought to be served, in hex; nothing when nobody served anything.
    pub expected_serial: Option<String>,
    /// Whether that was known before, and is not the newest of what is served.
    pub is_known: bool,
    /// By address.
    pub replicas: Vec<Compared>,
}

impl Tailnet {
    /// Asks; nothing when there is no answer within `limit`.
    pub async fn ask(api: &LocalApi, limit: Duration) -> Option<Self> {
        let status = timeout(limit, api.status(Peers::Include)).await.ok()?.ok()?;
        let mut records = status.extra_records.clone();
        if records.is_empty()
            && let Ok(Ok(Some(dns))) = timeout(limit, api.dns_config()).await
        {
            records = dns.extra_records;
        }
        Some(Self { status, records })
    }

    /// Where `name` is served, by what `config` says of ports.
    pub fn replicas(&self, name: &Name, config: Option<&Value>) -> Vec<Replica> {
        replicas::on_tailnet(name, &replicas::ports(config, name), &self.status, &self.records)
    }

    /// The way there.
    pub fn way(&self, api: &LocalApi) -> Way {
        if self.status.tun { Way::Kernel } else { Way::Daemon(api.clone()) }
    }
}

/// Shakes hands with every replica as `name`; none takes longer than `limit`.
pub async fn look(name: &Name, replicas: Vec<Replica>, way: &Way, limit: Duration) -> Vec<(Replica, Answer)> {
    let asked = stream::iter(replicas).map(|replica| async move {
        let answer = served(name, replica.address, way, limit).await;
        (replica, answer)
    });
    asked.buffered(CONCURRENT).collect().await
}

async fn served(name: &Name, address: SocketAddr, way: &Way, limit: Duration) -> Answer {
    if let Way::Daemon(api) = way
        && is_tailnet(address.ip())
    {
        let stream = api.dial(address, limit).await.map_err(|error| chain(&error))?;
        return handshake::served(stream, name, limit).await.map_err(|error| chain(&error));
    }
    let connecting = timeout(limit, TcpStream::connect(address)).await;
    let stream = connecting.map_err(|_| format!("no connection within {}", goduration::format(limit)))?;
    let stream = stream.map_err(|error| format!("no connection: {error}"))?;
    handshake::served(stream, name, limit).await.map_err(|error| chain(&error))
}

/// Compares what was served with what is kept; `wanted` is the serial number that ought to be served, if one is known.
pub fn compare(
    name: &Name,
    wanted: Option<&str>,
    kept: Option<&Certificate>,
    answers: Vec<(Replica, Answer)>,
    now: Timestamp,
) -> Verdict {
    let served = || answers.iter().filter_map(|(_, answer)| answer.as_ref().ok());
    let newest = served().max_by_key(|one| one.period.not_before);
    let serial = wanted.or(newest.map(|one| one.serial.as_str())).map(str::to_owned);
    // Whichever has that number says when it began; what began before it is old.
    let begins = kept.into_iter().chain(served()).find(|one| serial.as_ref() == Some(&one.serial));
    let begins = begins.map(|one| one.period.not_before);
    let compared = answers.into_iter().map(|(replica, answer)| {
        let outcome = match (&answer, begins) {
            (Err(_), _) => Outcome::Unreachable,
            (Ok(served), _) if !served.covers(name) => Outcome::WrongName,
            (Ok(served), _) if now > served.period.not_after => Outcome::Expired,
            (Ok(served), _) if serial.as_ref() == Some(&served.serial) => Outcome::Same,
            (Ok(served), Some(begins)) if served.period.not_before < begins => Outcome::Old,
            (Ok(_), _) => Outcome::Other,
        };
        let (served, error) = match answer {
            Ok(served) => (Some(served), None),
            Err(error) => (None, Some(error)),
        };
        Compared {
            address: replica.address,
            replica: replica.host,
            outcome,
            serial: served.as_ref().map(|served| served.serial.clone()),
            not_after: served.as_ref().map(|served| served.period.not_after),
            fingerprint_sha256: served.map(|served| served.fingerprint),
            error,
        }
    });
    let replicas = compared.collect();
    Verdict { domain: name.clone(), expected_serial: serial, is_known: kept.is_some(), replicas }
}

impl Outcome {
    /// As tables and `--json` spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Old => "old",
            Self::Other => "other",
            Self::Expired => "expired",
            Self::WrongName => "wrong-name",
            Self::Unreachable => "unreachable",
        }
    }
}

impl Verdict {
    /// Whether somebody serves something else.
    pub fn has_mismatch(&self) -> bool {
        self.replicas.iter().any(|one| !matches!(one.outcome, Outcome::Same | Outcome::Unreachable))
    }

    /// Whether somebody did not answer.
    pub fn has_gap(&self) -> bool {
        self.replicas.iter().any(|one| one.outcome == Outcome::Unreachable)
    }
}

#[cfg(test)]
#[cfg(feature = "sandbox")]
mod tests {
    use super::super::chain::tests::made;
    use super::*;

    fn replica(port: u16) -> Replica {
        Replica { address: SocketAddr::from(([127, 0, 0, 1], port)), host: None }
    }

    #[test]
    fn what_is_served_is_compared_with_what_is_known_or_with_the_newest() {
        use Outcome::{Expired, Old, Other, Same, Unreachable, WrongName};

        let name = Name::parse("a.t.ts.net").unwrap();
        let read = |names: &[&str]| Certificate::read(&made(names).0).unwrap();
        let (kept, other) = (read(&["a.t.ts.net"]), read(&["a.t.ts.net"]));
        let mut old = other.clone();
        old.period.not_before = "2025-12-01T00:00:00Z".parse().unwrap();
        let answers = || {
            vec![
                (replica(1), Ok(kept.clone())),
                (replica(2), Ok(old.clone())),
                (replica(3), Ok(other.clone())),
                (replica(4), Ok(read(&["b.t.ts.net"]))),
                (replica(5), Err("no connection".to_owned())),
            ]
        };
        let outcomes = |verdict: &Verdict| verdict.replicas.iter().map(|one| one.outcome).collect::<Vec<_>>();
        let now = "2026-02-01T00:00:00Z".parse().unwrap();
        let verdict = compare(&name, Some(&kept.serial), Some(&kept), answers(), now);
        assert_eq!(outcomes(&verdict), [Same, Old, Other, WrongName, Unreachable]);
        assert!(verdict.has_mismatch() && verdict.has_gap() && verdict.is_known);
        let late = compare(&name, Some(&kept.serial), Some(&kept), answers(), "2026-05-01T00:00:00Z".parse().unwrap());
        assert_eq!(outcomes(&late)[0], Expired);
        let alone =
            compare(&name, None, None, vec![(replica(1), Ok(old.clone())), (replica(2), Ok(kept.clone()))], now);
        assert_eq!(outcomes(&alone), [Old, Same]);
        assert_eq!(alone.expected_serial.as_deref(), Some(kept.serial.as_str()));
        let nobody = compare(&name, None, None, vec![(replica(1), Err("x".to_owned()))], now);
        assert_eq!((nobody.expected_serial, outcomes(&compare(&name, None, None, Vec::new(), now)).len()), (None, 0));
    }
}
