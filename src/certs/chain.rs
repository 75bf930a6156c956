//! A certificate as the daemon answers it or a Secret holds it: split, read, judged. Pure.

use jiff::Timestamp;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::time::Duration;

use super::names::Name;
use crate::secret::Secret;
use crate::x509;

/// From when to when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// The first moment.
    pub not_before: Timestamp,
    /// The last one.
    pub not_after: Timestamp,
}

/// What a certificate chain says of its first certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// When it is valid.
    pub period: Period,
    /// Serial number in hex.
    pub serial: String,
    /// The issuer's common name, or its organisation.
    pub issuer: String,
    /// The names it is for.
    pub names: Vec<String>,
    /// SHA-256 of the leaf in hex.
    pub fingerprint: String,
    /// Certificates in the chain, the leaf included.
    pub chain_length: usize,
    public_key: Vec<u8>,
}

/// Why a text is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// No PEM certificate in it.
    #[error("there is no PEM certificate in it")]
    NoCertificate,
    /// A block that cannot be read.
    #[error("certificate {0} of the chain cannot be read")]
    Unreadable(usize),
    /// A pair without a place where the key ends and the chain begins.
    #[error("the key and the chain cannot be told apart")]
    NoSplit,
    /// A key among the certificates.
    #[error("there is a private key among the certificates")]
    SecondKey,
    /// No private key, or one of an unknown kind.
    #[error("the private key cannot be read")]
    BadKey,
}

/// A private key and its chain, both as PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The private key.
    pub key: Secret<String>,
    /// The chain, leaf first.
    pub chain: String,
}

impl Period {
    /// What is left of it; nothing when it is over.
    pub fn left(&self, now: Timestamp) -> Duration {
        Duration::try_from(self.not_after.duration_since(now)).unwrap_or_default()
    }

    /// The whole of it.
    pub fn lifetime(&self) -> Duration {
        Duration::try_from(self.not_after.duration_since(self.not_before)).unwrap_or_default()
    }

    /// When two thirds of it are over.
    pub fn renew_at(&self) -> Timestamp {
        super::schedule::later(self.not_before, self.lifetime() * 2 / 3)
    }

    /// Whole days until it is over, rounded down: below zero as soon as it is.
    pub fn days_left(&self, now: Timestamp) -> i64 {
        (self.not_after.as_second() - now.as_second()).div_euclid(86_400)
    }
}

impl Certificate {
    /// Reads a chain of PEM certificates, leaf first.
    pub fn read(pem: &str) -> Result<Self, ChainError> {
        let mut chain = Vec::new();
        for block in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            chain.push(block.map_err(|_| ChainError::Unreadable(chain.len() + 1))?);
        }
        Self::of(&chain)
    }

    /// Reads a chain, leaf first.
    pub fn of<T: AsRef<[u8]>>(chain: &[T]) -> Result<Self, ChainError> {
        let mut leaf = None;
        for (at, der) in chain.iter().enumerate() {
            let facts = x509::facts(der.as_ref()).ok_or(ChainError::Unreadable(at + 1))?;
            leaf.get_or_insert_with(|| (facts, crate::digest::sha256_hex(der.as_ref())));
        }
        let (mut facts, fingerprint) = leaf.ok_or(ChainError::NoCertificate)?;
        // It is kept for as long as it is valid.
        facts.names.shrink_to_fit();
        let moment = |seconds| Timestamp::from_second(seconds).map_err(|_| ChainError::Unreadable(1));
        Ok(Self {
            period: Period {
                not_before: moment(facts.validity.not_before)?,
                not_after: moment(facts.validity.not_after)?,
            },
            serial: facts.serial,
            issuer: facts.issuer,
            names: facts.names,
            fingerprint,
            chain_length: chain.len(),
            public_key: facts.public_key,
        })
    }

    /// Whether it is for this name.
    pub fn covers(&self, name: &Name) -> bool {
        self.names.iter().any(|own| {
            let own = own.to_ascii_lowercase();
            own == name.as_str()
                || own.strip_prefix("*.").is_some_and(|domain| {
                    name.as_str().split_once('.').is_some_and(|(label, rest)| rest == domain && label != "*")
                })
        })
    }

    /// Whether the private key in `pem` is the one that this certificate is for.
    pub fn key_matches(&self, pem: &Secret<String>) -> Result<bool, ChainError> {
        let key = PrivateKeyDer::from_pem_slice(pem.expose().as_bytes()).map_err(|_| ChainError::BadKey)?;
        let key = rustls::crypto::ring::sign::any_supported_type(&key).map_err(|_| ChainError::BadKey)?;
        let public = key.public_key().ok_or(ChainError::BadKey)?;
        Ok(public.as_ref() == self.public_key)
    }
}

/// The certificates in a text as PEM, and nothing else that may stand there: keys least of all.
pub fn certificates_only(pem: &str) -> String {
    use base64::Engine as _;
    use std::fmt::Write as _;
    let mut text = String::new();
    for der in CertificateDer::pem_slice_iter(pem.as_bytes()).flatten() {
        let encoded = base64::engine::general_purpose::STANDARD.encode(&der);
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        for line in encoded.as_bytes().chunks(64) {
            // Base64 is ASCII, and writing to a String cannot fail.
            let _ = writeln!(text, "{}", String::from_utf8_lossy(line));
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

/// Splits the answer to `type=pair`, in which the private key comes first.
///
/// # Errors
/// [`ChainError::NoSplit`] when no block ends on one line and another begins on the next; [`ChainError::SecondKey`]
/// when the second part has a key.
pub fn split_pair(answer: &Secret<String>) -> Result<Pair, ChainError> {
    let text = answer.expose();
    let end = text.find("--\n--").ok_or(ChainError::NoSplit)? + "--\n".len();
    let (key, chain) = text.split_at(end);
    if chain.contains("PRIVATE KEY") {
        return Err(ChainError::SecondKey);
    }
    if !key.contains("PRIVATE KEY") {
        return Err(ChainError::NoSplit);
    }
    Ok(Pair { key: Secret::new(key.to_owned()), chain: chain.to_owned() })
}

#[cfg(test)]
#[cfg(feature = "sandbox")]
pub(super) mod tests {
    use super::*;

    /// A self-signed certificate for `names` and its key, valid from 2026-01-01 to 2026-04-01.
    pub(in crate::certs) fn made(names: &[&str]) -> (String, Secret<String>) {
        let mut params =
            rcgen::CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 4, 1);
        params.distinguished_name.push(rcgen::DnType::CommonName, "E7");
        let key = rcgen::KeyPair::generate().unwrap();
        (
            params.self_signed(&key).unwrap().pem().replace("\r\n", "\n"),
            Secret::new(key.serialize_pem().replace("\r\n", "\n")),
        )
    }

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    #[test]
    fn a_pair_is_split_behind_its_key() {
        let (chain, key) = made(&["a.tail1.ts.net"]);
        let answer = Secret::new(format!("{}{chain}{chain}", key.expose()));
        let pair = split_pair(&answer).unwrap();
        assert_eq!((pair.key.expose(), pair.chain.as_str()), (key.expose(), format!("{chain}{chain}").as_str()));
        let twice = Secret::new(format!("{}{chain}{}", key.expose(), key.expose()));
        assert_eq!(split_pair(&twice).unwrap_err(), ChainError::SecondKey);
        for odd in [key.expose().as_str(), "", "-----BEGIN", &format!("{chain}{chain}")] {
            assert_eq!(split_pair(&Secret::new(odd.to_owned())).unwrap_err(), ChainError::NoSplit);
        }
    }

    #[test]
    fn facts_are_those_of_the_leaf() {
        let (leaf, key) = made(&["a.tail1.ts.net", "*.b.tail1.ts.net"]);
        let (other, other_key) = made(&["ca"]);
        let read = Certificate::read(&format!("{leaf}{other}")).unwrap();
        assert_eq!((read.chain_length, read.issuer.as_str()), (2, "E7"));
        assert_eq!(read.period.not_after.to_string(), "2026-04-01T00:00:00Z");
        assert_eq!(read.key_matches(&key), Ok(true));
        assert_eq!(read.key_matches(&other_key), Ok(false));
        assert_eq!(read.key_matches(&Secret::new("x".to_owned())), Err(ChainError::BadKey));
        assert!(read.covers(&name("A.tail1.ts.net.")) && read.covers(&name("x.b.tail1.ts.net")));
        assert!(!read.covers(&name("x.y.b.tail1.ts.net")) && !read.covers(&name("b.tail1.ts.net")));
        assert_eq!(Certificate::read("hello"), Err(ChainError::NoCertificate));
        assert!(Certificate::read("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").is_err());
    }

    #[test]
    fn only_certificates_are_shown() {
        let (chain, key) = made(&["a.tail1.ts.net"]);
        assert_eq!(certificates_only(&format!("{}\nhello\n{chain}{chain}", key.expose())), format!("{chain}{chain}"));
        assert_eq!(certificates_only("hello"), "");
    }

    #[test]
    fn days_are_rounded_down_and_renewal_is_due_after_two_thirds() {
        let period = Certificate::read(&made(&["a.b"]).0).unwrap().period;
        let days = |now: &str| period.days_left(now.parse().unwrap());
        assert_eq!(days("2026-03-31T23:59:59Z"), 0);
        assert_eq!(days("2026-03-30T23:59:59Z"), 1);
        assert_eq!(days("2026-04-01T01:00:00Z"), -1);
        assert_eq!(period.renew_at().to_string(), "2026-03-02T00:00:00Z");
    }
}
