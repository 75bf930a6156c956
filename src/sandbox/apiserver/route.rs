//! Paths and queries of requests. Pure.

use std::collections::BTreeMap;

use super::resources::{REVIEWS, Resource};
use super::store::Collection;

/// Query parameters; the last of several with one name counts.
pub type Query = BTreeMap<String, String>;

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// `/healthz`, `/livez`, `/readyz`.
    Probe,
    /// `/version`.
    Version,
    /// `/api`.
    CoreVersions,
    /// `/apis`.
    Groups,
    /// `/apis/<group>`.
    Group(String),
    /// `/api/<version>`, `/apis/<group>/<version>`.
    Resources {
        /// Empty for the core group.
        group: String,
        /// `v1`.
        version: String,
    },
    /// `/openapi/v3`.
    OpenApiIndex,
    /// `/openapi/v3/<path>`.
    OpenApi(String),
    /// A question about users.
    Review {
        /// The group it is in.
        group: &'static str,
        /// Its name in paths.
        plural: &'static str,
        /// Its kind.
        kind: &'static str,
    },
    /// One object, or all of a collection.
    Objects {
        /// Where.
        of: Collection,
        /// Which, if one.
        name: Option<String>,
    },
}

impl Route {
    /// Reads a path; `None` for one that leads nowhere.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let steps: Vec<String> = path.split('/').skip(1).map(|step| decode(step, Plus::Keep)).collect();
        let mut steps: Vec<&str> = steps.iter().map(String::as_str).collect();
        if steps.last() == Some(&"") {
            steps.pop();
        }
        match steps.as_slice() {
            ["healthz" | "livez" | "readyz", ..] => Some(Self::Probe),
            ["version"] => Some(Self::Version),
            ["api"] => Some(Self::CoreVersions),
            ["apis"] => Some(Self::Groups),
            ["apis", group] => Some(Self::Group((*group).to_owned())),
            ["openapi", "v3"] => Some(Self::OpenApiIndex),
            ["openapi", "v3", rest @ ..] => Some(Self::OpenApi(rest.join("/"))),
            ["api", version, rest @ ..] => Self::in_version("", version, rest),
            ["apis", group, version, rest @ ..] => Self::in_version(group, version, rest),
            _ => None,
        }
    }

    fn in_version(group: &str, version: &str, rest: &[&str]) -> Option<Self> {
        let objects = |plural: &str, namespace: Option<&str>, name: Option<&str>| {
            let resource = Resource::find(group, version, plural)?;
            // A path without a namespace means all of them, and then no single object.
            let sensible =
                if resource.namespaced { namespace.is_some() || name.is_none() } else { namespace.is_none() };
            let of = Collection { resource, namespace: namespace.map(str::to_owned) };
            sensible.then(|| Self::Objects { of, name: name.map(str::to_owned) })
        };
        match *rest {
            [] => super::resources::exists(group, version)
                .then(|| Self::Resources { group: group.to_owned(), version: version.to_owned() }),
            ["namespaces", namespace, plural] => objects(plural, Some(namespace), None),
            ["namespaces", namespace, plural, name] => objects(plural, Some(namespace), Some(name)),
            [plural] => review(group, version, plural).or_else(|| objects(plural, None, None)),
            [plural, name] => objects(plural, None, Some(name)),
            _ => None,
        }
    }
}

fn review(group: &str, version: &str, plural: &str) -> Option<Route> {
    let (group, kinds) = REVIEWS.iter().find(|(name, _)| *name == group && version == "v1")?;
    let (plural, kind) = kinds.iter().find(|(name, _)| *name == plural)?;
    Some(Route::Review { group, plural, kind })
}

/// Reads a query string. Empty parameters, as in `?&a=b`, are skipped.
pub(super) fn query(text: &str) -> Query {
    text.split('&')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            (decode(key, Plus::Space), decode(value, Plus::Space))
        })
        .collect()
}

/// What `+` stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plus {
    Keep,
    Space,
}

fn decode(text: &str, plus: Plus) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let decoded = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| first == b'%');
        let (byte, left) = match decoded {
            Some(byte) => (byte, &after[2..]),
            None if first == b'+' && plus == Plus::Space => (b' ', after),
            None => (first, after),
        };
        bytes.push(byte);
        rest = left;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_objects() {
        for (path, expected) in [
            ("/api/v1/namespaces/ts/secrets/x", Some(("secrets", Some("ts"), Some("x")))),
            ("/api/v1/namespaces/ts/secrets", Some(("secrets", Some("ts"), None))),
            ("/api/v1/secrets", Some(("secrets", None, None))),
            ("/api/v1/namespaces/ts/secrets/a%2Eb", Some(("secrets", Some("ts"), Some("a.b")))),
            ("/apis/coordination.k8s.io/v1/namespaces/ts/leases/l", Some(("leases", Some("ts"), Some("l")))),
            ("/api/v1/namespaces", Some(("namespaces", None, None))),
            ("/api/v1/namespaces/ts", Some(("namespaces", None, Some("ts")))),
            ("/api/v1/secrets/x", None),
            ("/api/v1/namespaces/ts/namespaces/x", None),
            ("/api/v1/namespaces/ts/unknown/x", None),
            ("/api/v1/namespaces/ts/pods/x/exec", None),
            ("/apis/apps/v2/namespaces/ts/statefulsets", None),
            ("/", None),
            ("", None),
        ] {
            let found = Route::parse(path).map(|route| match route {
                Route::Objects { of, name } => (of.resource.plural, of.namespace, name),
                other => panic!("{path}: {other:?}"),
            });
            let expected = expected.map(|(plural, ns, name): (_, Option<&str>, Option<&str>)| {
                (plural, ns.map(str::to_owned), name.map(str::to_owned))
            });
            assert_eq!(found, expected, "{path}");
        }
    }

    #[test]
    fn other_paths() {
        let text = str::to_owned;
        for (path, expected) in [
            ("/readyz/ping", Some(Route::Probe)),
            ("/version/", Some(Route::Version)),
            ("/api", Some(Route::CoreVersions)),
            ("/api/v1", Some(Route::Resources { group: text(""), version: text("v1") })),
            ("/apis/apps/v1", Some(Route::Resources { group: text("apps"), version: text("v1") })),
            ("/apis/apps", Some(Route::Group(text("apps")))),
            ("/apis/nobody/v1", None),
            ("/openapi/v3/apis/apps/v1", Some(Route::OpenApi(text("apis/apps/v1")))),
            (
                "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
                Some(Route::Review {
                    group: "authorization.k8s.io",
                    plural: "selfsubjectaccessreviews",
                    kind: "SelfSubjectAccessReview",
                }),
            ),
        ] {
            assert_eq!(Route::parse(path), expected, "{path}");
        }
    }

    #[test]
    fn queries_are_parsed_as_clients_write_them() {
        let parsed = query("?&fieldManager=a+b%2Fc&empty=&flag&x=100%".trim_start_matches('?'));
        let expected = [("fieldManager", "a b/c"), ("empty", ""), ("flag", ""), ("x", "100%")];
        assert_eq!(parsed, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    }
}
