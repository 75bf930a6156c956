//! The pretend certificate authority, as tailscaled's certificate endpoint shows it.
//!
//! The order of decisions and the texts are the real ones (`feature/acme`); certificates are real too, signed by
//! themselves. What is due is answered as it is and renewed behind the caller's back, as the real daemon does.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

use super::Daemon;

/// Let's Encrypt's.
const LIFETIME: Duration = Duration::from_secs(90 * 86_400);

/// What was issued, and how.
#[derive(Debug, Default)]
pub(crate) struct Certificates {
    kept: BTreeMap<String, Kept>,
    /// Key and certificate by name, as PEM, of names that are no business of the authority's.
    pub(crate) given: BTreeMap<String, String>,
    /// The daemon only reads what others have issued.
    pub(crate) read_only: bool,
    pub(crate) lifetime: Option<Duration>,
    /// Renewals behind the caller's back do not work.
    pub(crate) background_fails: bool,
    /// How many were issued.
    pub(crate) issued: usize,
}

/// A key and its certificate.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) key: String,
    pub(crate) chain: String,
    period: (i64, i64),
}

impl Certificates {
    /// What the endpoint answers, or its error text.
    pub(crate) fn ask(
        &mut self,
        name: &str,
        allowed: Option<&[String]>,
        min_validity: Duration,
        now: Timestamp,
    ) -> Result<Kept, String> {
        let Some(allowed) = allowed else { return Err("no netmap available".to_owned()) };
        if !name.contains('.') || name.contains("..") || name.contains(['/', ':', '\\']) {
            return Err("invalid domain".to_owned());
        }
        if allowed.is_empty() {
            return Err("your Tailscale account does not support getting TLS certs".to_owned());
        }
        if !allowed.iter().any(|known| known == name) {
            return Err(format!("invalid domain {name:?}; must be one of {allowed:?}"));
        }
        let now = now.as_second();
        let valid = self.kept.get(name).filter(|kept| (kept.period.0..=kept.period.1).contains(&now)).cloned();
        if self.read_only {
            return valid.ok_or_else(|| format!("cert for {name:?} is not available: cert share in read-only mode"));
        }
        let Some(kept) = valid else { return self.issue(name, now) };
        let (not_before, not_after) = kept.period;
        let left = Duration::from_secs((not_after - now).unsigned_abs());
        if left < min_validity {
            return self.issue(name, now);
        }
        let is_due = now > not_before + (not_after - not_before) * 2 / 3;
        if is_due && !self.background_fails {
            self.issue(name, now)?;
        }
        Ok(kept)
    }

    /// Issues one that begins at `now`.
    fn issue(&mut self, name: &str, now: i64) -> Result<Kept, String> {
        let lifetime = i64::try_from(self.lifetime.unwrap_or(LIFETIME).as_secs()).map_err(|error| error.to_string())?;
        self.put(name, now, now + lifetime)
    }

    /// Makes a certificate for that period and keeps it.
    pub(crate) fn put(&mut self, name: &str, not_before: i64, not_after: i64) -> Result<Kept, String> {
        let at = |second: i64| date_time_ymd(1970, 1, 1) + Duration::from_secs(second.unsigned_abs());
        let made = || {
            let mut params = CertificateParams::new(vec![name.to_owned()])?;
            (params.not_before, params.not_after) = (at(not_before), at(not_after));
            params.distinguished_name.push(DnType::CommonName, "sandbox authority");
            let key = KeyPair::generate()?;
            Ok::<_, rcgen::Error>((params.self_signed(&key)?.pem(), key.serialize_pem()))
        };
        let (chain, key) = made().map_err(|error| error.to_string())?;
        let unix = |text: String| text.replace("\r\n", "\n");
        let kept = Kept { key: unix(key), chain: unix(chain), period: (not_before, not_after) };
        self.kept.insert(name.to_owned(), kept.clone());
        self.issued += 1;
        Ok(kept)
    }
}

impl Daemon {
    /// What `cert/<name>` answers, whatever it is asked for: key and certificate as PEM.
    pub fn set_certificate(&self, name: &str, pair: &str) {
        self.change(|inner| drop(inner.certificates.given.insert(name.to_owned(), pair.to_owned())));
    }

    /// Makes the daemon have a certificate for `name` that is valid from and until then.
    ///
    /// # Panics
    /// When `name` cannot be in a certificate.
    pub fn set_certificate_period(&self, name: &str, not_before: Timestamp, not_after: Timestamp) {
        let put = self.change(|inner| inner.certificates.put(name, not_before.as_second(), not_after.as_second()));
        put.expect("a name that fits into a certificate");
    }

    /// Makes the daemon have a certificate for `name` that was issued then.
    pub(crate) fn put_certificate(&self, name: &str, issued: Timestamp) -> Result<(), String> {
        self.change(|inner| inner.certificates.issue(name, issued.as_second())).map(drop)
    }

    /// How long certificates live that are issued from now on.
    pub fn set_certificate_lifetime(&self, lifetime: Duration) {
        self.change(|inner| inner.certificates.lifetime = Some(lifetime));
    }

    /// Whether certificates are only read (`TS_CERT_SHARE_MODE=ro`).
    pub fn set_certificates_read_only(&self, read_only: bool) {
        self.change(|inner| inner.certificates.read_only = read_only);
    }

    /// Whether renewals behind the caller's back fail, which nobody is told.
    pub fn fail_background_renewals(&self, fail: bool) {
        self.change(|inner| inner.certificates.background_fails = fail);
    }

    /// How many certificates there were so far.
    pub fn certificates_issued(&self) -> usize {
        self.lock().certificates.issued
    }
}
