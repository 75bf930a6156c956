//! Which headers pass, which do not, and which are ours. Pure.
//!
//! The order is a security property (api-proxy.md 7.2): hop-by-hop headers, and those that `Connection` names, go first
//! ([`super::hop`]); then what a client must not say; only then is added whom the request acts as. Names in a
//! [`HeaderMap`] are lower case.

use hyper::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use super::access::Impersonation;
use super::hop::HOP_BY_HOP;

/// Names that say who asks, besides those that begin with `impersonate-` or `x-remote-extra-`.
const IDENTITY: [&str; 5] = ["authorization", "proxy-authorization", "x-remote-user", "x-remote-uid", "x-remote-group"];

/// Removes what the client says about the way its request took: not trusted, and kube-apiserver writes it into its audit
/// log.
pub fn strip_forwarding(headers: &mut HeaderMap) {
    strip(headers, says_the_way);
}

/// Whether a lower-case header name says which way a request took; read as [`says_identity`] reads names.
fn says_the_way(name: &str) -> bool {
    begins(name, "x-forwarded-") || is_folded(name, "x-real-ip") || is_folded(name, "forwarded")
}

/// Removes everything with which a client could say who it is.
pub fn strip_identity(headers: &mut HeaderMap) {
    strip(headers, says_identity);
}

/// Removes every header whose lower-case name is one of these.
fn strip(headers: &mut HeaderMap, is_one: fn(&str) -> bool) {
    let named: Vec<HeaderName> = headers.keys().filter(|name| is_one(name.as_str())).cloned().collect();
    for name in &named {
        headers.remove(name);
    }
}

/// Whether a lower-case header name says who asks. `_` counts as `-`: what stands between here and kube-apiserver may
/// fold the two.
pub fn says_identity(name: &str) -> bool {
    begins(name, "impersonate-")
        || begins(name, "x-remote-extra-")
        || IDENTITY.iter().any(|known| is_folded(name, known))
}

/// Whether a name is another one, its underscores taken for hyphens.
pub(super) fn is_folded(name: &str, known: &str) -> bool {
    name.len() == known.len() && begins(name, known)
}

/// Whether a name begins so, its underscores taken for hyphens.
fn begins(name: &str, prefix: &str) -> bool {
    let folded = name.bytes().map(|byte| if byte == b'_' { b'-' } else { byte });
    name.len() >= prefix.len() && folded.zip(prefix.bytes()).all(|(byte, expected)| byte == expected)
}

/// Whether a trailer with this lower-case name passes: it may not say who asks, nor how a message is framed or routed.
pub fn is_trailer(name: &str) -> bool {
    const NEVER: [&str; 3] = ["host", "content-length", "content-encoding"];
    let of_the_hop = HOP_BY_HOP.iter().map(HeaderName::as_str);
    let never = NEVER.into_iter().chain(of_the_hop).any(|never| is_folded(name, never));
    !never && !says_identity(name) && !says_the_way(name)
}

/// Says whom the request acts as. Everything that the client said about it must be gone already.
pub fn impersonate(headers: &mut HeaderMap, as_whom: &Impersonation) {
    for (name, value) in as_whom.headers() {
        headers.append(name, value.clone());
    }
}

/// Says with which credentials the proxy itself comes.
pub fn authorize(headers: &mut HeaderMap, authorization: Option<HeaderValue>) {
    if let Some(mut value) = authorization {
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::hop::tests::{map, names};
    use super::*;

    #[test]
    fn nothing_that_says_who_asks_survives() {
        let identity = [
            "Authorization",
            "IMPERSONATE-USER",
            "impersonate-GROUP",
            "Impersonate-Uid",
            "impersonate-EXTRA-x",
            "Impersonate-Extra-example.com%2fscopes",
            "Impersonate-",
            "Impersonate-New-Thing",
            "Impersonate_User",
            "impersonate_group",
            "Impersonate_Extra-x",
            "X-Remote-User",
            "x_remote_user",
            "X-Remote-Uid",
            "X-Remote-Group",
            "X-Remote_Group",
            "X-Remote-Extra-Foo",
            "x_remote_extra_foo",
            "Proxy-Authorization",
            "proxy_authorization",
        ];
        let others = [
            "X-Remote",
            "Impersonate",
            "X-Impersonate-User",
            "Authorization-X",
            "X-Remote-Users",
            "Kubectl-Command",
            "Audit-Id",
            "Accept",
        ];
        for name in identity {
            assert!(says_identity(&name.to_lowercase()), "{name}");
            assert!(!is_trailer(&name.to_lowercase()), "{name}");
        }
        for name in others {
            assert!(!says_identity(&name.to_lowercase()), "{name}");
        }
        let lines: Vec<_> = identity.iter().chain(&others).flat_map(|name| [(*name, "a"), (*name, "b")]).collect();
        let mut headers = map(&lines);
        strip_identity(&mut headers);
        assert_eq!(headers.len(), 2 * others.len());
        assert!(others.iter().all(|name| headers.contains_key(*name)));
    }

    #[test]
    fn what_is_said_about_the_way_is_dropped() {
        let mut headers = map(&[
            ("Forwarded", "for=1.2.3.4"),
            ("X-Forwarded-For", "1.2.3.4"),
            ("X-Forwarded-Host", "h"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Port", "443"),
            ("X_Forwarded_For", "100.64.0.1"),
            ("X-Real-Ip", "100.64.0.1"),
            ("X-Really", "stays"),
        ]);
        strip_forwarding(&mut headers);
        assert_eq!(names(&headers), ["x-really"]);
    }

    #[test]
    fn trailers_pass_unless_they_frame_or_identify() {
        for name in ["grpc-status", "x-checksum", "audit-id"] {
            assert!(is_trailer(name), "{name}");
        }
        for name in [
            "transfer-encoding",
            "content-length",
            "content_length",
            "host",
            "connection",
            "te",
            "x-forwarded-for",
            "upgrade",
        ] {
            assert!(!is_trailer(name), "{name}");
        }
    }

    #[test]
    fn our_credentials_never_show_in_a_debug_text() {
        let mut headers = HeaderMap::new();
        authorize(&mut headers, Some(HeaderValue::from_static("Bearer abc")));
        assert!(!format!("{headers:?}").contains("abc"));
        authorize(&mut headers, None);
        assert_eq!(headers.get(AUTHORIZATION).unwrap(), "Bearer abc");
    }

    proptest! {
        /// However a name is written, stripping it is decided by the folded name alone.
        #[test]
        fn any_spelling_of_a_protected_name_goes(
            known in prop::sample::select(vec!["impersonate-user", "impersonate-group", "impersonate-extra-a", "authorization", "x-remote-group"]),
            flips in proptest::collection::vec(any::<(bool, bool)>(), 24),
        ) {
            let spelled: String = known.chars().zip(flips).map(|(char, (upper, fold))| match char {
                '-' if fold => '_',
                char if upper => char.to_ascii_uppercase(),
                char => char,
            }).collect();
            let mut headers = map(&[(&spelled, "x"), ("accept", "y")]);
            strip_identity(&mut headers);
            prop_assert_eq!(names(&headers), vec!["accept"]);
        }
    }
}
