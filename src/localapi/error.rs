//! What can go wrong with one LocalAPI call: kinds that callers branch on, messages, and remedies. Pure.
//!
//! Every row of the conditions that tailscaled and its socket can show is a kind of its own; nothing is told apart by
//! message text outside this file. Follows upstream's `client/local/local.go` and `ipn/localapi/localapi.go`.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// One LocalAPI call that failed.
///
/// Its message holds the endpoint and the [kind](ErrorKind); the cause below, where there is one, is its source.
#[derive(Debug)]
pub struct Error {
    /// `status`, `prefs`, …: the path below `/localapi/v0/`.
    pub endpoint: &'static str,
    /// What happened.
    pub kind: ErrorKind,
    /// The daemon's long version, if it ever answered.
    pub server_version: Option<Box<str>>,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ErrorKind {
    /// There is no socket, or a file that a dead daemon left behind.
    #[error("tailscaled is not running: {}", no_daemon(.socket, *.stale))]
    DaemonNotRunning {
        /// Where it was looked for.
        socket: PathBuf,
        /// The file exists, and nobody listens.
        stale: bool,
        /// The connect error.
        source: io::Error,
    },
    /// The daemon's queue of new connections is full.
    #[error("tailscaled does not accept more connections right now")]
    Busy,
    /// This process may not open the socket.
    #[error("not permitted to open tailscaled's socket: {0}")]
    SocketPermission(Box<SocketPermission>),
    /// The path cannot be the path of a Unix socket.
    #[error("{} cannot be a socket path: it has {length} bytes, and {MAX_SOCKET_PATH} are possible", .socket.display())]
    SocketPathTooLong {
        /// The path.
        socket: PathBuf,
        /// Its length in bytes.
        length: usize,
    },
    /// Any other failure to connect.
    #[error("cannot connect to {}", .socket.display())]
    Connect {
        /// The path.
        socket: PathBuf,
        /// The connect error.
        source: io::Error,
    },
    /// 401: the daemon does not know who we are, or the change needs an administrator.
    #[error("tailscaled does not accept our identity: {0}")]
    IdentityRejected(String),
    /// 403: a right is missing.
    #[error("access denied: {message} (the {right} is missing)")]
    AccessDenied {
        /// The daemon's text.
        message: String,
        /// Which one.
        right: Right,
    },
    /// 403 because of the `Host`, `Referer` or `Origin` header.
    #[error("tailscaled refused the request's headers: invalid localapi request")]
    BadHostHeader,
    /// 404 on a path that newer daemons have.
    #[error("this tailscaled does not have the endpoint")]
    Unsupported,
    /// 404 of a lookup: the daemon knows nobody by that address or id.
    #[error("{0}")]
    NoMatch(String),
    /// 405, or 400 `want POST`.
    #[error("tailscaled expected another method ({0})")]
    ProtocolError(String),
    /// 412: somebody else changed the serve config.
    #[error("the serve config was changed by someone else (etag mismatch)")]
    EtagMismatch,
    /// 429
    #[error("rate limited: {message}")]
    RateLimited {
        /// When to come back, as far as the daemon said.
        retry_after: Option<Duration>,
        /// The daemon's text.
        message: String,
    },
    /// 501: a build without that feature.
    #[error("this build of tailscaled leaves the feature out: {0}")]
    FeatureOmitted(String),
    /// 503 `no netmap`, or a serve config that came before the first netmap.
    #[error("tailscaled has no netmap yet")]
    NoNetmapYet,
    /// Any other status that was not expected.
    #[error("{code}: {message}")]
    Status {
        /// The HTTP status code.
        code: u16,
        /// The daemon's text.
        message: String,
    },
    /// `reload-config` answered with nothing: the daemon could not read or did not accept the file.
    #[error("the config was not reloaded; tailscaled's log has the reason")]
    ReloadFailed,
    /// The connection broke: the daemon restarted or crashed.
    #[error("the connection to tailscaled broke before its answer was complete")]
    Disconnected {
        /// The transport's error, if it had one.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// No complete answer in time.
    #[error("no answer from tailscaled within {}", seconds(*.0))]
    Timeout(Duration),
    /// The answer was given up, unread, at this many bytes.
    #[error("tailscaled's answer is larger than {} MiB", .0 >> 20)]
    TooLarge(usize),
    /// The answer is not the document it should be.
    #[error("tailscaled's answer is not what was expected")]
    Malformed {
        /// Where and why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Bytes in a Unix socket's path on Linux, without the closing zero.
pub(super) const MAX_SOCKET_PATH: usize = 107;

/// Why the socket cannot be opened, as far as the file system shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketPermission {
    /// The socket.
    pub socket: PathBuf,
    /// Owner, group and mode of the socket; `None` when even that cannot be read.
    pub file: Option<Owner>,
    /// The first directory on the way that may not be searched.
    pub blocked_by: Option<(PathBuf, Owner)>,
    /// Our effective user id.
    pub uid: u32,
    /// Our effective group id.
    pub gid: u32,
}

/// Owner, group and permission bits of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// The lower twelve bits of the mode.
    pub mode: u32,
}

/// What the daemon lets a caller do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Everyone who can connect has it on Linux.
    Read,
    /// Changing prefs, serve config, login.
    Write,
    /// Certificates only.
    Certificate,
}

// === impl Error ===

impl Error {
    /// Whether the same call may succeed a little later without anyone doing anything.
    pub fn is_retryable(&self) -> bool {
        match self.kind {
            ErrorKind::DaemonNotRunning { .. }
            | ErrorKind::Busy
            | ErrorKind::EtagMismatch
            | ErrorKind::RateLimited { .. }
            | ErrorKind::NoNetmapYet
            | ErrorKind::Disconnected { .. }
            | ErrorKind::Timeout(_) => true,
            ErrorKind::Status { code, .. } => code >= 500,
            ErrorKind::SocketPermission(_)
            | ErrorKind::SocketPathTooLong { .. }
            | ErrorKind::Connect { .. }
            | ErrorKind::IdentityRejected(_)
            | ErrorKind::AccessDenied { .. }
            | ErrorKind::BadHostHeader
            | ErrorKind::Unsupported
            | ErrorKind::NoMatch(_)
            | ErrorKind::ProtocolError(_)
            | ErrorKind::FeatureOmitted(_)
            | ErrorKind::ReloadFailed
            | ErrorKind::TooLarge(_)
            | ErrorKind::Malformed { .. } => false,
        }
    }

    /// Whether the daemon gave an HTTP answer, of whatever kind: it is alive.
    pub fn is_answer(&self) -> bool {
        !matches!(
            self.kind,
            ErrorKind::DaemonNotRunning { .. }
                | ErrorKind::Busy
                | ErrorKind::SocketPermission(_)
                | ErrorKind::SocketPathTooLong { .. }
                | ErrorKind::Connect { .. }
                | ErrorKind::Disconnected { .. }
                | ErrorKind::Timeout(_)
        )
    }

    /// What the reader can do about it.
    pub fn hint(&self) -> Option<String> {
        let version = self.server_version.as_deref().unwrap_or("an unknown version");
        Some(match &self.kind {
            ErrorKind::DaemonNotRunning { .. } => {
                "is tailscaled running, and is TS_SOCKET (its --socket) this path?".to_owned()
            }
            ErrorKind::SocketPermission(_) => {
                "run as uid 0 or as the owner, or open the directories on the way to the socket for this uid".to_owned()
            }
            ErrorKind::SocketPathTooLong { .. } => "choose a shorter TS_SOCKET".to_owned(),
            ErrorKind::IdentityRejected(_) => {
                "serving a path or a unix: target needs uid 0, or an operator who may run tailscale with sudo"
                    .to_owned()
            }
            ErrorKind::AccessDenied { right, .. } => access_hint(*right),
            ErrorKind::BadHostHeader => {
                "this is no permission problem: something between tailpod and tailscaled changes the headers".to_owned()
            }
            ErrorKind::Unsupported => format!("the daemon is {version}; a newer tailscaled has {}", self.endpoint),
            ErrorKind::ProtocolError(_) => format!("tailpod and tailscaled ({version}) disagree; report it").to_owned(),
            ErrorKind::FeatureOmitted(_) => "use the official tailscaled, which has all features".to_owned(),
            ErrorKind::NoNetmapYet => "wait until the node is logged in".to_owned(),
            ErrorKind::ReloadFailed => "the config file was unreadable or not valid for this tailscaled".to_owned(),
            ErrorKind::Disconnected { .. } => "tailscaled restarted or crashed; its log has the reason".to_owned(),
            ErrorKind::Timeout(_) => {
                "tailscaled accepts connections but hangs; a state store that cannot be reached does that".to_owned()
            }
            ErrorKind::TooLarge(_) | ErrorKind::Malformed { .. } => {
                format!("is that really tailscaled at the socket? It says it is {version}")
            }
            ErrorKind::Busy
            | ErrorKind::Connect { .. }
            | ErrorKind::EtagMismatch
            | ErrorKind::NoMatch(_)
            | ErrorKind::RateLimited { .. }
            | ErrorKind::Status { .. } => return None,
        })
    }
}

fn access_hint(right: Right) -> String {
    let certificate = match right {
        Right::Certificate => "",
        Right::Read | Right::Write => " (certificates only)",
    };
    format!(
        "run as uid 0 or as tailscaled's own uid, or name this uid in the pref OperatorUser, or in TS_PERMIT_CERT_UID \
         of tailscaled's environment{certificate}; in another user namespace uid 0 may arrive as 65534, without rights"
    )
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.endpoint, self.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // The kind is part of our own message; the chain goes on below it.
        std::error::Error::source(&self.kind)
    }
}

// === impl SocketPermission, Owner, Right ===

impl fmt::Display for SocketPermission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.socket.display())?;
        if let Some(file) = self.file {
            write!(f, " is {file}")?;
        }
        if let Some((directory, owner)) = &self.blocked_by {
            write!(f, "; {} is {owner} and may not be searched", directory.display())?;
        }
        write!(f, "; we are uid {} gid {}", self.uid, self.gid)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mode {:04o} of uid {} gid {}", self.mode, self.uid, self.gid)
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read right",
            Self::Write => "write right",
            Self::Certificate => "certificate right",
        })
    }
}

fn no_daemon(socket: &std::path::Path, stale: bool) -> String {
    if stale {
        format!("{} exists but nobody listens", socket.display())
    } else {
        format!("there is no {}", socket.display())
    }
}

fn seconds(limit: Duration) -> String {
    format!("{} s", limit.as_secs_f64())
}

// === answers to errors ===

/// What an HTTP answer other than success says. `right` is the one that the call needs.
pub(super) fn from_answer(code: u16, retry_after: Option<Duration>, body: &[u8], right: Right) -> ErrorKind {
    let message = message(code, body);
    match code {
        401 => ErrorKind::IdentityRejected(message),
        403 if message == "invalid localapi request" => ErrorKind::BadHostHeader,
        403 => ErrorKind::AccessDenied { message, right },
        404 if message.starts_with("no match") || message.starts_with("no peer") || message.starts_with("no user") => {
            ErrorKind::NoMatch(message)
        }
        404 => ErrorKind::Unsupported,
        400 if message.starts_with("want ") => ErrorKind::ProtocolError(message),
        405 => ErrorKind::ProtocolError(message),
        412 => ErrorKind::EtagMismatch,
        429 => ErrorKind::RateLimited { retry_after, message },
        501 => ErrorKind::FeatureOmitted(message),
        503 if message == "no netmap" => ErrorKind::NoNetmapYet,
        500 if message.contains("netMap is nil") => ErrorKind::NoNetmapYet,
        _ => ErrorKind::Status { code, message },
    }
}

/// A `Retry-After` header: seconds, or an HTTP date, which counts from the answer's own `Date` so that no clock of ours
/// takes part. What is negative, past or cannot be read is no hint.
pub(super) fn retry_after(text: &str, date: Option<&str>) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date_of = |text: &str| jiff::fmt::rfc2822::parse(text.trim()).ok().map(|date| date.timestamp().as_second());
    let ahead = date_of(text)?.checked_sub(date_of(date?)?)?;
    u64::try_from(ahead).ok().filter(|ahead| *ahead > 0).map(Duration::from_secs)
}

/// The text of an error answer: a JSON member `error` in any spelling, else the body, else the status.
pub(super) fn message(code: u16, body: &[u8]) -> String {
    /// Longest text that is passed on; an HTML page of a wrong server must not fill the log.
    const LONGEST: usize = 500;
    if let Ok(serde_json::Value::Object(object)) = serde_json::from_slice(body) {
        let said = object.iter().find(|(name, value)| {
            name.eq_ignore_ascii_case("error") && value.as_str().is_some_and(|text| !text.is_empty())
        });
        if let Some((_, serde_json::Value::String(text))) = said {
            return one_line(text, LONGEST);
        }
    }
    let text = one_line(&String::from_utf8_lossy(body), LONGEST);
    if !text.is_empty() {
        return text;
    }
    match code {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        412 => "Precondition Failed",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "no reason given",
    }
    .to_owned()
}

/// `text` on one line without control characters, at most `longest` characters.
fn one_line(text: &str, longest: usize) -> String {
    let mut line: String =
        text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(longest + 1).collect();
    if line.chars().count() > longest {
        line = line.chars().take(longest).collect();
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(code: u16, body: &str) -> ErrorKind {
        from_answer(code, None, body.as_bytes(), Right::Write)
    }

    #[test]
    fn bodies_are_read_in_their_three_shapes() {
        for (code, body, expected) in [
            (500, r#"{"error":"updating config: port"}"#, "updating config: port"),
            (400, r#"{"Error":"config file is locked"}"#, "config file is locked"),
            (500, r#"{"error":"","Error":"second"}"#, "second"),
            (500, "no controlclient\n", "no controlclient"),
            (500, r#"{"other":1}"#, r#"{"other":1}"#),
            (502, "", "Bad Gateway"),
            (500, "two\nlines", "two lines"),
        ] {
            assert_eq!(message(code, body.as_bytes()), expected, "{code} {body}");
        }
        assert_eq!(message(500, "x".repeat(10_000).as_bytes()).chars().count(), 501);
    }

    #[test]
    fn statuses_become_kinds() {
        assert!(matches!(kind(401, "peer unknown"), ErrorKind::IdentityRejected(text) if text == "peer unknown"));
        assert!(matches!(
            kind(403, "prefs write access denied\n"),
            ErrorKind::AccessDenied { right: Right::Write, .. }
        ));
        assert!(matches!(kind(403, "invalid localapi request\n"), ErrorKind::BadHostHeader));
        assert!(matches!(kind(404, "404 page not found\n"), ErrorKind::Unsupported));
        assert!(matches!(kind(404, "no match for IP:port\n"), ErrorKind::NoMatch(_)));
        assert!(matches!(kind(405, "use POST"), ErrorKind::ProtocolError(_)));
        assert!(matches!(kind(400, "want POST\n"), ErrorKind::ProtocolError(_)));
        assert!(matches!(kind(400, "bad mask\n"), ErrorKind::Status { code: 400, .. }));
        assert!(matches!(kind(412, "etag mismatch"), ErrorKind::EtagMismatch));
        assert!(matches!(kind(501, "omitted"), ErrorKind::FeatureOmitted(_)));
        assert!(matches!(kind(503, "no netmap\n"), ErrorKind::NoNetmapYet));
        assert!(matches!(kind(503, "backend not ready"), ErrorKind::Status { code: 503, .. }));
        let early = r#"{"error":"updating config: netMap is nil"}"#;
        assert!(matches!(kind(500, early), ErrorKind::NoNetmapYet));
        let limited = from_answer(429, Some(Duration::from_secs(7)), b"slow down", Right::Certificate);
        assert!(
            matches!(limited, ErrorKind::RateLimited { retry_after: Some(after), .. } if after == Duration::from_secs(7))
        );
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_after_the_answers() {
        const DATE: Option<&str> = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        for (text, date, seconds) in [
            ("7", None, Some(7)),
            (" 1020 ", DATE, Some(1020)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", DATE, Some(60)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", DATE, None),
            ("Sun, 06 Nov 1994 08:00:00 GMT", DATE, None),
            ("Sun, 06 Nov 1994 08:50:37 GMT", None, None),
            ("-7", DATE, None),
            ("soon", DATE, None),
        ] {
            assert_eq!(retry_after(text, date).map(|after| after.as_secs()), seconds, "{text}");
        }
    }

    #[test]
    fn messages_say_what_is_missing() {
        let error = |kind| Error { endpoint: "prefs", kind, server_version: Some("1.98.2-tabc".into()) };
        let denied = error(kind(403, "prefs write access denied"));
        assert_eq!(denied.to_string(), "prefs: access denied: prefs write access denied (the write right is missing)");
        let hint = denied.hint().unwrap();
        for way in ["uid 0", "OperatorUser", "TS_PERMIT_CERT_UID", "65534"] {
            assert!(hint.contains(way), "{hint} must name {way}");
        }
        let blocked = error(ErrorKind::SocketPermission(Box::new(SocketPermission {
            socket: "/run/x.sock".into(),
            file: Some(Owner { uid: 0, gid: 5, mode: 0o600 }),
            blocked_by: None,
            uid: 1000,
            gid: 1001,
        })));
        assert_eq!(
            blocked.to_string(),
            "prefs: not permitted to open tailscaled's socket: /run/x.sock is mode 0600 of uid 0 gid 5; \
             we are uid 1000 gid 1001"
        );
        let old = error(ErrorKind::Unsupported);
        assert!(old.hint().unwrap().contains("1.98.2-tabc"));
        assert!(!old.is_retryable() && old.is_answer());
    }
}
