//! What a failed attempt at a certificate means, and so what to do next. Pure.
//!
//! The one place where texts of tailscaled's certificate endpoint are read: 1.102 and newer have statuses for some of
//! it, older daemons answer 500 to everything. Follows upstream's `feature/acme` and `ipn/localapi/cert.go`.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

use crate::localapi::{Error, ErrorKind};

/// Kinds of failure, each with its own delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// The daemon is away, restarts or has no netmap: nothing that a certificate authority has seen.
    Transient,
    /// The authority wants us to wait.
    RateLimited,
    /// The tailnet does not let this node have the name, or not yet.
    NotAllowed,
    /// This replica only reads certificates.
    NotWriter,
    /// tailscaled does not let this process ask.
    Rights,
    /// The authority issued and the result could not be stored: it is lost.
    Storage,
    /// Anything else that the authority, control or the daemon said.
    Authority,
}

/// A failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind.
    pub class: Class,
    /// When to come back, as far as anybody said.
    pub hint: Option<Duration>,
    /// The text, without what a log must not have.
    pub text: String,
}

/// A hint in an authority's text is believed from here
const SOONEST: i64 = 60;
/// to here, in seconds.
const LATEST: i64 = 7 * 86_400;

/// What waited this long for an answer waited for the authority.
const AN_ORDER: Duration = Duration::from_secs(60);

/// The prefix of Let's Encrypt's own hint.
const RETRY_AFTER: &str = "retry after ";

impl Class {
    /// As metrics, annotations and `--json` spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::RateLimited => "rate-limited",
            Self::NotAllowed => "not-allowed",
            Self::NotWriter => "not-writer",
            Self::Rights => "rights",
            Self::Storage => "storage",
            Self::Authority => "authority",
        }
    }

    /// The class that is spelled so.
    pub fn from_name(name: &str) -> Option<Self> {
        const ALL: [Class; 7] = [
            Class::Transient,
            Class::RateLimited,
            Class::NotAllowed,
            Class::NotWriter,
            Class::Rights,
            Class::Storage,
            Class::Authority,
        ];
        ALL.into_iter().find(|class| class.as_str() == name)
    }
}

impl Failure {
    /// Reads an error of the certificate endpoint.
    pub fn of(error: &Error, now: Timestamp) -> Self {
        let text = error.kind.to_string();
        let (class, hint) = match &error.kind {
            ErrorKind::DaemonNotRunning { .. }
            | ErrorKind::Busy
            | ErrorKind::Connect { .. }
            | ErrorKind::Disconnected { .. }
            | ErrorKind::NoNetmapYet => (Class::Transient, None),
            // tailscaled waits for a rate limit to be over by itself, without an answer, and each call is a new order.
            ErrorKind::Timeout(limit) if *limit >= AN_ORDER => (Class::Authority, None),
            ErrorKind::Timeout(_) => (Class::Transient, None),
            ErrorKind::RateLimited { retry_after, message } => {
                (Class::RateLimited, retry_after.or_else(|| hint_in(message, now)))
            }
            ErrorKind::AccessDenied { .. } | ErrorKind::IdentityRejected(_) | ErrorKind::SocketPermission(_) => {
                (Class::Rights, None)
            }
            ErrorKind::Status { message, .. } => of_text(message, now),
            ErrorKind::SocketPathTooLong { .. }
            | ErrorKind::BadHostHeader
            | ErrorKind::Unsupported
            | ErrorKind::NoMatch(_)
            | ErrorKind::ProtocolError(_)
            | ErrorKind::EtagMismatch
            | ErrorKind::FeatureOmitted(_)
            | ErrorKind::ReloadFailed
            | ErrorKind::TooLarge(_)
            | ErrorKind::Malformed { .. } => (Class::Authority, None),
        };
        Self { class, hint, text }
    }

    /// An answer of 200 that is no certificate.
    pub fn unexpected(reason: &dyn std::error::Error) -> Self {
        Self { class: Class::Authority, hint: None, text: format!("unexpected answer: {reason}") }
    }
}

/// A 500's text; from 1.102 on some rate limits still arrive as one.
fn of_text(message: &str, now: Timestamp) -> (Class, Option<Duration>) {
    let has = |part: &str| message.contains(part);
    // Before anything else: this text may stand inside of any other.
    if message.to_ascii_lowercase().contains(":ratelimited") {
        return (Class::RateLimited, hint_in(message, now));
    }
    let stored_badly = message.starts_with("error writing TLS cert and key")
        || has("error getting Secret")
        || has("error patching Secret");
    if stored_badly {
        return (Class::Storage, None);
    }
    if has("read-only mode") {
        return (Class::NotWriter, None);
    }
    let not_allowed = message.starts_with("invalid domain")
        || has("does not support getting TLS certs")
        || has("wildcard certificates are not enabled")
        || (has("invalid domain") && has("must be one of"));
    if not_allowed {
        return (Class::NotAllowed, None);
    }
    if has("no netmap available") || message == "no backend" {
        return (Class::Transient, None);
    }
    (Class::Authority, None)
}

/// `… retry after 2026-08-23 10:00:00 UTC …`: an authority's words, which may change, so only a plausible time counts.
fn hint_in(message: &str, now: Timestamp) -> Option<Duration> {
    let (_, after) = message.split_once(RETRY_AFTER)?;
    let text = after.get(.."YYYY-MM-DD HH:MM:SS".len())?;
    let moment: DateTime = text.parse().ok()?;
    let at = Offset::UTC.to_timestamp(moment).ok()?;
    let ahead = at.as_second() - now.as_second();
    (SOONEST..=LATEST).contains(&ahead).then(|| Duration::from_secs(ahead.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    const NOW: &str = "2026-08-23T09:00:00Z";

    fn of(kind: ErrorKind) -> (Class, Option<u64>) {
        let failure = Failure::of(&Error { endpoint: "cert", kind, server_version: None }, NOW.parse().unwrap());
        (failure.class, failure.hint.map(|hint| hint.as_secs()))
    }

    fn status(message: &str) -> (Class, Option<u64>) {
        of(ErrorKind::Status { code: 500, message: message.to_owned() })
    }

    #[test]
    fn texts_of_the_daemon_become_classes() {
        for (text, class) in [
            ("no netmap available", Class::Transient),
            ("no backend", Class::Transient),
            ("invalid domain", Class::NotAllowed),
            ("invalid domain \"x\"; must be one of [\"a.ts.net\"]", Class::NotAllowed),
            ("your Tailscale account does not support getting TLS certs", Class::NotAllowed),
            ("wildcard certificates are not enabled for this node", Class::NotAllowed),
            ("cert is in read-only mode", Class::NotWriter),
            ("error writing TLS cert and key to Secret \"x\"", Class::Storage),
            ("acme: error getting Secret \"a.ts.net\": 404", Class::Storage),
            ("x: error patching Secret \"a.ts.net\": 403", Class::Storage),
            ("400 urn:ietf:params:acme:error:badNonce: JWS has an invalid anti-replay nonce", Class::Authority),
            ("unexpected EOF", Class::Authority),
        ] {
            assert_eq!(status(text), (class, None), "{text}");
        }
    }

    #[test]
    fn the_connection_is_not_the_authority() {
        let away = |stale| ErrorKind::DaemonNotRunning {
            socket: "/s".into(),
            stale,
            source: io::ErrorKind::ConnectionRefused.into(),
        };
        for kind in [
            away(true),
            away(false),
            ErrorKind::Busy,
            ErrorKind::Disconnected { source: None },
            ErrorKind::Timeout(Duration::from_secs(5)),
            ErrorKind::Connect { socket: "/s".into(), source: io::ErrorKind::HostUnreachable.into() },
            ErrorKind::NoNetmapYet,
        ] {
            assert_eq!(of(kind).0, Class::Transient);
        }
        assert_eq!(of(ErrorKind::Timeout(Duration::from_secs(1800))).0, Class::Authority, "an order, and no end");
        let right = crate::localapi::Right::Certificate;
        assert_eq!(of(ErrorKind::AccessDenied { message: String::new(), right }).0, Class::Rights);
    }

    #[test]
    fn a_rate_limit_is_known_by_status_and_by_text() {
        let limited = |after: Option<u64>, message: &str| ErrorKind::RateLimited {
            retry_after: after.map(Duration::from_secs),
            message: message.to_owned(),
        };
        assert_eq!(of(limited(Some(1020), "")), (Class::RateLimited, Some(1020)));
        assert_eq!(of(limited(None, "slow down")), (Class::RateLimited, None));
        let text = |at: &str| {
            format!(
                "CreateOrder: 429 urn:ietf:params:acme:error:rateLimited: too many certificates, retry after {at}: see"
            )
        };
        assert_eq!(status(&text("2026-08-23 10:00:00 UTC")), (Class::RateLimited, Some(3600)));
        for odd in ["2026-08-23 09:00:30 UTC", "2026-08-23 08:00:00 UTC", "2026-09-23 10:00:00 UTC", "tomorrow", "…"]
        {
            assert_eq!(status(&text(odd)), (Class::RateLimited, None), "{odd}");
        }
        assert_eq!(status("finalize: URN:IETF:PARAMS:ACME:ERROR:RATELIMITED").0, Class::RateLimited);
    }

    #[test]
    fn classes_are_read_as_they_are_written() {
        for class in [
            Class::Transient,
            Class::RateLimited,
            Class::NotAllowed,
            Class::NotWriter,
            Class::Rights,
            Class::Storage,
            Class::Authority,
        ] {
            assert_eq!(Class::from_name(class.as_str()), Some(class));
        }
        assert_eq!(Class::from_name("x"), None);
    }
}
