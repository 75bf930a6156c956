//! The last look at a request before its bytes leave. Pure.
//!
//! Everything here has been decided before, elsewhere; this looks at what will really be written and at nothing else, so
//! that a mistake anywhere in between ends the request instead of the audit trail. api-proxy.md 5.3, 10.3.7, 10.4.

use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE,
};

use super::access::{IMPERSONATE_GROUP, IMPERSONATE_USER, Impersonation};
use super::headers::says_identity;
use super::hop::Upgrade;
use super::route::{self, Kind};
use super::subprotocol::token_header;

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
    #[error("a request with the identity header `{}` was about to be sent", crate::short::name(.0.as_str()))]
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
    if !request.prefix.is_empty() && route::has_dots(target) {
        return Err(Invariant::Target);
    }
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
    let other = headers.keys().find(|name| says_identity(name.as_str()) && !ours.contains(name));
    match other.or_else(|| token_header(headers)) {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::localapi::types::WhoIs;
    use crate::proxy::access::{Peer, impersonation};
    use crate::proxy::route::Session;

    const PODS: &[u8] = b"/api/v1/pods";
    const EXEC: &[u8] = b"/api/v1/namespaces/n/pods/p/exec?command=sh";

    fn ann() -> Impersonation {
        let whois: WhoIs = serde_json::from_value(json!({
            "Node": {"Name": "l.ts.net."}, "UserProfile": {"LoginName": "ann"},
            "CapMap": {"tailscale.com/cap/kubernetes": [{"impersonate": {"groups": ["g1", "g2"]}}]},
        }))
        .unwrap();
        let peer = Peer::new(&whois, None);
        impersonation(&peer, &HeaderMap::new()).unwrap().into_owned()
    }

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect()
    }

    fn check(lines: &[(&str, &str)]) -> Result<(), Invariant> {
        let ours = HeaderValue::from_static("Bearer ours");
        let (headers, ann) = (headers(lines), ann());
        let as_whom = AsWhom::Caller { impersonation: &ann, authorization: Some(&ours) };
        let request = Outgoing { target: PODS, prefix: b"", headers: &headers };
        check_outgoing(&request, as_whom, Judged { kind: Kind::Other, stream: Stream::MayPass })
    }

    const GOOD: [(&str, &str); 5] = [
        ("host", "h"),
        ("impersonate-user", "ann"),
        ("impersonate-group", "g1"),
        ("impersonate-group", "g2"),
        ("authorization", "Bearer ours"),
    ];

    fn with(more: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
        GOOD.iter().chain(more).copied().collect()
    }

    fn without(name: &str) -> Vec<(&'static str, &'static str)> {
        GOOD.iter().filter(|(known, _)| *known != name).copied().collect()
    }

    #[test]
    fn what_was_decided_may_leave() {
        assert_eq!(check(&GOOD), Ok(()));
        let more = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1"), ("te", "trailers"), ("content-length", "0")];
        assert_eq!(check(&with(&more)), Ok(()));
    }

    #[test]
    fn nothing_else_may() {
        let other = |name: &'static str| Err(Invariant::Identity(HeaderName::from_static(name)));
        for (lines, expected) in [
            (without("impersonate-user"), Err(Invariant::User)),
            (with(&[("impersonate-user", "root")]), Err(Invariant::User)),
            (with(&[("impersonate-user", "ann")]), Err(Invariant::User)),
            ([without("impersonate-user"), vec![("impersonate-user", "")]].concat(), Err(Invariant::User)),
            ([without("impersonate-user"), vec![("impersonate-user", "root")]].concat(), Err(Invariant::User)),
            (without("impersonate-group"), Err(Invariant::Groups)),
            (with(&[("impersonate-group", "system:masters")]), Err(Invariant::Groups)),
            (without("authorization"), Err(Invariant::Authorization)),
            (with(&[("authorization", "Bearer ours")]), Err(Invariant::Authorization)),
            (
                [without("authorization"), vec![("authorization", "Bearer evil")]].concat(),
                Err(Invariant::Authorization),
            ),
            (with(&[("impersonate-uid", "0")]), other("impersonate-uid")),
            (with(&[("impersonate-extra-x", "0")]), other("impersonate-extra-x")),
            (with(&[("impersonate_user", "root")]), other("impersonate_user")),
            (with(&[("x-remote-user", "root")]), other("x-remote-user")),
            (with(&[("proxy-authorization", "x")]), other("proxy-authorization")),
            (
                with(&[("sec-websocket-protocol", "v5, base64url.bearer.authorization.k8s.io.dG9r")]),
                other("sec-websocket-protocol"),
            ),
            (with(&[("host", "other")]), Err(Invariant::Host)),
            (without("host"), Err(Invariant::Host)),
            (with(&[("connection", "impersonate-user")]), Err(Invariant::Connection)),
            (with(&[("connection", "Upgrade"), ("upgrade", "h2c")]), Err(Invariant::Connection)),
            (with(&[("connection", "Upgrade")]), Err(Invariant::Connection)),
            (with(&[("upgrade", "websocket")]), Err(Invariant::Connection)),
            (with(&[("content-length", "1"), ("transfer-encoding", "chunked")]), Err(Invariant::Framing)),
            (with(&[("content-length", "1"), ("content-length", "1")]), Err(Invariant::Framing)),
        ] {
            assert_eq!(check(&lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_client_certificate_leaves_no_room_for_a_token() {
        let ann = ann();
        let as_whom = AsWhom::Caller { impersonation: &ann, authorization: None };
        let judged = Judged { kind: Kind::Other, stream: Stream::MayPass };
        let of = |lines: &[(&str, &str)]| {
            let headers = headers(lines);
            check_outgoing(&Outgoing { target: PODS, prefix: b"", headers: &headers }, as_whom, judged)
        };
        assert_eq!(of(&GOOD), Err(Invariant::Authorization));
        assert_eq!(of(&without("authorization")), Ok(()));
    }

    #[test]
    fn without_authentication_the_client_speaks_for_itself() {
        let headers = headers(&[("host", "h"), ("authorization", "Bearer mine"), ("impersonate-user", "x")]);
        let request = Outgoing { target: PODS, prefix: b"", headers: &headers };
        let judged = Judged { kind: Kind::Other, stream: Stream::MayPass };
        assert_eq!(check_outgoing(&request, AsWhom::ClientsOwn, judged), Ok(()));
    }

    #[test]
    fn the_bytes_that_leave_are_classified_again() {
        let exec = Kind::Session(Session::Exec);
        for (target, prefix, kind, stream, expected) in [
            (EXEC, &b""[..], exec, Stream::MayPass, Ok(())),
            (EXEC, b"", exec, Stream::IsRecorded, Ok(())),
            (EXEC, b"", exec, Stream::MustNotLeave, Err(Invariant::Unrecorded)),
            (EXEC, b"", Kind::Other, Stream::MustNotLeave, Err(Invariant::Unrecorded)),
            (EXEC, b"", Kind::Other, Stream::MayPass, Err(Invariant::Kind)),
            (b"/api/v1/namespaces/n/pods/p%2Fexec/", b"", Kind::Other, Stream::MayPass, Err(Invariant::Kind)),
            (PODS, b"", exec, Stream::IsRecorded, Err(Invariant::Kind)),
            (PODS, b"", Kind::Other, Stream::MustNotLeave, Ok(())),
            (b"/k8s/clusters/c-1/api/v1/pods", b"/k8s/clusters/c-1", Kind::Other, Stream::MayPass, Ok(())),
            (b"/k8s/api/v1/namespaces/n/pods/p/exec", b"/k8s", exec, Stream::MustNotLeave, Err(Invariant::Unrecorded)),
            (b"/k8s/../v3/tokens", b"/k8s", Kind::Other, Stream::MayPass, Err(Invariant::Target)),
            (b"/k8s/%2e%2e%2fv3", b"/k8s", Kind::Other, Stream::MayPass, Err(Invariant::Target)),
            (b"/a/../api", b"", Kind::Other, Stream::MayPass, Ok(())),
            (b"/other/api", b"/k8s", Kind::Other, Stream::MayPass, Err(Invariant::Target)),
            (b"/k8sapi", b"/k8s", Kind::Other, Stream::MayPass, Err(Invariant::Target)),
            (b"/a b", b"", Kind::Other, Stream::MayPass, Err(Invariant::Target)),
        ] {
            let headers = headers(&[("host", "h")]);
            let request = Outgoing { target, prefix, headers: &headers };
            let got = check_outgoing(&request, AsWhom::ClientsOwn, Judged { kind, stream });
            assert_eq!(got, expected, "{}", String::from_utf8_lossy(target));
        }
    }
}
