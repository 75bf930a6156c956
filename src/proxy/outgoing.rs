//! The last look at a request before its bytes leave. Pure.
//!
//! Everything here has been decided before, elsewhere; this looks at what will really be written and at nothing else, so
//! that a mistake anywhere in between ends the request instead of the audit trail. api-proxy.md 5.3, 10.3.7, 10.4.

use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE,
};

use super::access::{IMPERSONATE_GROUP, IMPERSONATE_USER, Impersonation};
use super::headers::{Upgrade, says_identity};
use super::route::{self, Kind};

/// What is about to be written.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// The request target, the configured URL's own path in front of it included.
    pub target: &'a [u8],
    /// The path of the configured URL, without a trailing slash; empty for most.
    pub prefix: &'a [u8],
    /// All headers, those about framing included.
    pub headers: &'a HeaderMap,
}

/// As whom it may be written.
#[derive(Clone, Copy, Debug)]
pub enum AsWhom<'a> {
    /// Mode `auth`: the caller, with these credentials of the proxy's own.
    Caller {
        /// The one user and the groups.
        impersonation: &'a Impersonation,
        /// None when a client certificate speaks for the proxy.
        authorization: Option<&'a HeaderValue>,
    },
    /// Mode `noauth`: whoever the client says it is.
    ClientsOwn,
}

/// What was decided about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The kind of request that was decided about.
    pub kind: Kind,
    /// Whether a stream that can be recorded may leave.
    pub stream: Stream,
}

/// Whether a stream that can be recorded may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// The policy wants no recorder, or accepts that there is none.
    MayPass,
    /// A recorder waits for it.
    IsRecorded,
    /// There must be a recorder, and none was attached.
    MustNotLeave,
}

/// What is wrong with a request that was about to leave: a defect of this program, never of the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invariant {
    /// The user is missing, not the caller's, or there are several.
    #[error("a request without exactly the caller as `Impersonate-User` was about to be sent")]
    User,
    /// The groups are not the caller's.
    #[error("a request with other groups than the caller's was about to be sent")]
    Groups,
    /// `Authorization` is not the proxy's own.
    #[error("a request with credentials other than the proxy's own was about to be sent")]
    Authorization,
    /// Another header says who asks.
    #[error("a request with the identity header `{0}` was about to be sent")]
    Identity(HeaderName),
    /// `Connection` or `Upgrade` say something that nobody decided.
    #[error("a request with undecided connection options was about to be sent")]
    Connection,
    /// Not exactly one `Host`.
    #[error("a request without exactly one `Host` was about to be sent")]
    Host,
    /// The body's end is said twice.
    #[error("a request with ambiguous framing was about to be sent")]
    Framing,
    /// The target is not below the configured URL, or cannot be read.
    #[error("a request with an unreadable target was about to be sent")]
    Target,
    /// Another request was decided about.
    #[error("a request was about to be sent that is not the one that was decided about")]
    Kind,
    /// It must be recorded and is not.
    #[error("a session that must be recorded was about to be sent without a recorder")]
    Unrecorded,
}

/// Checks a request at the last point before it is written. On an error nothing may be sent.
pub fn check_outgoing(request: &Outgoing<'_>, as_whom: AsWhom<'_>, judged: Judged) -> Result<(), Invariant> {
    let headers = request.headers;
    if headers.get_all(HOST).iter().count() != 1 {
        return Err(Invariant::Host);
    }
    let lengths = headers.get_all(CONTENT_LENGTH).iter().count();
    if lengths > 1 || (lengths == 1 && headers.contains_key(TRANSFER_ENCODING)) {
        return Err(Invariant::Framing);
    }
    check_connection(headers)?;
    if let AsWhom::Caller { impersonation, authorization } = as_whom {
        check_identity(headers, impersonation, authorization)?;
    }
    let target = request.target.strip_prefix(request.prefix).ok_or(Invariant::Target)?;
    let kind = route::kind_of(target).map_err(|_| Invariant::Target)?;
    if matches!(kind, Kind::Session(_)) && judged.stream == Stream::MustNotLeave {
        return Err(Invariant::Unrecorded);
    }
    if kind != judged.kind {
        return Err(Invariant::Kind);
    }
    Ok(())
}

fn check_identity(
    headers: &HeaderMap,
    as_whom: &Impersonation,
    authorization: Option<&HeaderValue>,
) -> Result<(), Invariant> {
    let mut users = headers.get_all(&IMPERSONATE_USER).iter();
    if users.next().is_none_or(|user| user.is_empty() || user.as_bytes() != as_whom.user().as_bytes())
        || users.next().is_some()
    {
        return Err(Invariant::User);
    }
    let groups = headers.get_all(&IMPERSONATE_GROUP).iter().map(HeaderValue::as_bytes);
    if !groups.eq(as_whom.groups().map(str::as_bytes)) {
        return Err(Invariant::Groups);
    }
    if !headers.get_all(AUTHORIZATION).iter().eq(authorization) {
        return Err(Invariant::Authorization);
    }
    let ours = [IMPERSONATE_USER, IMPERSONATE_GROUP, AUTHORIZATION];
    match headers.keys().find(|name| says_identity(name.as_str()) && !ours.contains(name)) {
        Some(other) => Err(Invariant::Identity(other.clone())),
        None => Ok(()),
    }
}

/// Only an upgrade to one of the two known protocols may be asked for.
fn check_connection(headers: &HeaderMap) -> Result<(), Invariant> {
    let all = |name: HeaderName| headers.get_all(name).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>();
    match (all(CONNECTION).as_slice(), all(UPGRADE).as_slice()) {
        ([], []) => Ok(()),
        ([connection], [upgrade]) if connection.eq_ignore_ascii_case(b"upgrade") => {
            let upgrade = Upgrade::from_token(std::str::from_utf8(upgrade).unwrap_or_default());
            if upgrade.token().is_some() { Ok(()) } else { Err(Invariant::Connection) }
        }
        _ => Err(Invariant::Connection),
    }
}
