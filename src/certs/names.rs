//! Which names need a certificate, and which texts are names. Pure.
//!
//! Names come from the Services of a serve config: hosts of `Web` entries on port 443 and `TerminateTLS` of any port.
//! A key that cannot be read costs its own name only. Follows upstream's `kube/certs/certs.go` (`EnsureCertLoops`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize as _;
use serde_json::Value;

use super::served::{Entry, Served};
use crate::localapi::mask::Version;
use crate::serve::document::split_host_port;
use crate::spelling::distance;

/// The first tailscaled that refreshes what it serves each hour.
const FIRST_TO_REFRESH: Version = Version { major: 1, minor: 100, patch: 0 };

/// Most names that one config may have.
pub const MOST: usize = 1000;

/// A DNS name that a certificate can be had for: lower case, without a trailing dot, possibly a wildcard.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct Name(String);

/// Why a text is not a [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no name for a certificate: {reason}")]
pub struct BadName {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// The names of one serve config.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Each name, and who uses it: `svc:…`, or nothing for the node itself.
    pub names: BTreeMap<Name, BTreeSet<String>>,
    /// What was skipped or is strange, each with its Service and key.
    pub warnings: Vec<Warning>,
}

/// Something about one entry of a serve config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The Service, or nothing for the node itself.
    pub service: Option<String>,
    /// What is wrong.
    pub reason: String,
    /// Whether a name is not managed because of it.
    pub is_loss: bool,
}

/// Whether the names of the node itself count, beside those of its Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// Services only, as upstream does.
    Leave,
    /// The node's own `Web` and `TCP` too, in the foreground or not; daemons before 1.100 do not refresh those by
    /// themselves.
    Include,
}

/// There is no config at all; an empty one would be fine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no serve config")]
pub struct NoConfig;

/// More names than [`MOST`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the serve config has {0} names for certificates, and at most {MOST} are possible")]
pub struct TooMany(pub usize);

impl Node {
    /// Whether they count beside a tailscaled of this version: if somebody says so, and if nobody else refreshes them.
    pub fn beside(version: Option<&str>, is_asked_for: bool) -> Self {
        let is_older = version.and_then(Version::parse).is_some_and(|version| version < FIRST_TO_REFRESH);
        if is_asked_for || is_older { Self::Include } else { Self::Leave }
    }
}

impl Name {
    /// Normalises: one trailing dot goes, ASCII letters become lower case.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let bad = |reason| Err(BadName { text: text.to_owned(), reason });
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let bare = name.strip_prefix("*.").unwrap_or(&name);
        if name.is_empty() {
            return bad("it is empty");
        }
        if name.len() > 253 {
            return bad("it is longer than 253 characters");
        }
        if !bare.contains('.') {
            return bad("it has no dot");
        }
        for label in bare.split('.') {
            if label.is_empty() {
                return bad("it has an empty label");
            }
            if label.len() > 63 {
                return bad("a label is longer than 63 characters");
            }
            if !label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
                return bad("it has a character that is neither letter, digit nor hyphen");
            }
            if label.starts_with('-') || label.ends_with('-') {
                return bad("a label begins or ends with a hyphen");
            }
        }
        Ok(Self(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it stands for all names of one domain; such a name cannot be the name of a Secret.
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with("*.")
    }

    /// The value of label `tailscale.com/domain`: the name, cut to what a label can hold.
    pub fn label(&self) -> String {
        /// Of a label's value.
        const LONGEST: usize = 63;
        if self.0.len() <= LONGEST {
            return self.0.clone();
        }
        format!("{}-{}", &self.0[..54], &crate::digest::sha256_hex(self.0.as_bytes())[..8])
    }

    /// The domain under which certificate authorities count: one label below a public suffix. Tailscale's own suffixes
    /// are on the public list, so each tailnet counts for itself; of others the last two labels are taken.
    pub fn registered_domain(&self) -> &str {
        let bare = self.0.strip_prefix("*.").unwrap_or(&self.0);
        let labels = bare.split('.').count();
        let below = |suffix: usize| {
            let skip = labels.saturating_sub(suffix + 1);
            let mut rest = bare;
            for _ in 0..skip {
                rest = rest.split_once('.').map_or(rest, |(_, rest)| rest);
            }
            rest
        };
        // `*.c.ts.net` before `ts.net`, as on the list.
        if bare.ends_with(".c.ts.net") {
            below(4)
        } else if bare.ends_with(".beta.tailscale.net") {
            below(3)
        } else if bare.ends_with(".ts.net") {
            below(2)
        } else {
            below(1)
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.service {
            Some(service) => write!(f, "{service}: {}", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

/// The names that `config` needs. `null` is not a config; `{}` is one, without names.
///
/// # Errors
/// [`NoConfig`] for `null` and everything that is not an object.
pub fn wanted(config: &Value, node: Node) -> Result<Wanted, NoConfig> {
    if !config.is_object() {
        return Err(NoConfig);
    }
    // Reading leniently never fails.
    Ok(wanted_of(&Served::deserialize(config).unwrap_or_default(), node))
}

/// The names that what is served needs.
pub fn wanted_of(served: &Served, node: Node) -> Wanted {
    let mut wanted = Wanted::default();
    for (service, entry) in &served.services {
        wanted.take(Some(service), entry);
    }
    if node == Node::Include {
        wanted.take(None, &served.own);
        served.foreground.iter().for_each(|entry| wanted.take(None, entry));
    }
    wanted
}

impl Wanted {
    /// The same, or an error when there are too many.
    pub fn bounded(self) -> Result<Self, TooMany> {
        if self.names.len() > MOST { Err(TooMany(self.names.len())) } else { Ok(self) }
    }

    fn take(&mut self, service: Option<&str>, entry: &Entry) {
        for key in &entry.web {
            match split_host_port(key) {
                Ok((host, "443")) => self.add(service, host, &format!("Web key `{key}`")),
                Ok(_) => {}
                Err(reason) => self.warn(service, format!("Web key `{key}`: {reason}"), true),
            }
        }
        for (port, handler) in &entry.terminates {
            if !handler.forwards {
                let reason = "TerminateTLS without TCPForward has no effect";
                self.warn(service, format!("TCP port {port}: {reason}"), false);
            }
            self.add(service, &handler.name, &format!("TerminateTLS of TCP port {port}"));
        }
    }

    fn add(&mut self, service: Option<&str>, host: &str, place: &str) {
        match Name::parse(host) {
            Ok(name) => {
                self.names.entry(name).or_default().extend(service.map(str::to_owned));
            }
            Err(error) => self.warn(service, format!("{place}: {error}"), true),
        }
    }

    fn warn(&mut self, service: Option<&str>, reason: String, is_loss: bool) {
        self.warnings.push(Warning { service: service.map(str::to_owned), reason, is_loss });
    }
}

/// Of `allowed`, the name that is most like `name`, if one is.
pub fn nearest<'a>(name: &str, allowed: &'a [String]) -> Option<&'a str> {
    let scored = allowed.iter().map(|other| (distance(name, other), other.as_str()));
    scored.min().filter(|(edits, _)| *edits <= name.len().div_ceil(3)).map(|(_, other)| other)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn names(config: &Value) -> Vec<String> {
        wanted(config, Node::Leave).unwrap().names.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn names_come_from_services_on_443_and_from_terminated_tls() {
        let config = json!({
            "TCP": {"443": {"HTTPS": true}},
            "Web": {"node.tail1.ts.net:443": null},
            "Foreground": {"x": {"Web": {"front.tail1.ts.net:443": null}}},
            "Services": {
                "svc:shop": {
                    "TCP": {"443": {"HTTPS": true}, "80": null},
                    "Web": {"Shop.tail1.ts.net.:443": {"Handlers": null}, "shop.tail1.ts.net:80": null, "x.y:8443": null},
                },
                "svc:kube": {"tcp": {"8443": {"TCPForward": "localhost:80", "terminatetls": "kube.tail1.ts.net"}}},
                "svc:none": null,
            },
        });
        assert_eq!(names(&config), ["kube.tail1.ts.net", "shop.tail1.ts.net"]);
        let with_node = wanted(&config, Node::Include).unwrap();
        for own in ["node.tail1.ts.net", "front.tail1.ts.net"] {
            assert!(with_node.names[&Name::parse(own).unwrap()].is_empty(), "{own}");
        }
        assert_eq!(with_node.names.len(), 4);
    }

    #[test]
    fn w09_names_of_the_node_count_where_its_daemon_leaves_them() {
        for (version, is_asked_for, node) in [
            (Some("1.98.2"), false, Node::Include),
            (Some("1.100.0"), false, Node::Leave),
            (Some("1.104.1-t1-g2"), true, Node::Include),
            (None, false, Node::Leave),
            (None, true, Node::Include),
        ] {
            assert_eq!(Node::beside(version, is_asked_for), node, "{version:?} {is_asked_for}");
        }
    }

    #[test]
    fn no_config_is_an_error_and_an_empty_one_has_no_names() {
        assert_eq!(wanted(&Value::Null, Node::Leave), Err(NoConfig));
        assert_eq!(wanted(&json!({}), Node::Leave), Ok(Wanted::default()));
        assert_eq!(wanted(&json!({"Services": null}), Node::Leave), Ok(Wanted::default()));
    }

    #[test]
    fn a_bad_key_costs_only_itself() {
        let config = json!({"Services": {"svc:a": {"Web": {
            "foo": null, "a.b.ts.net:443": null, "c.d.ts.net:443": null, "e.f.ts.net:https": null,
            "fd7a::1:443": null, "spa ce.b:443": null}}}});
        let found = wanted(&config, Node::Leave).unwrap();
        assert_eq!(found.names.len(), 2);
        let said: Vec<_> = found.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "svc:a: Web key `e.f.ts.net:https`: the port is not a number from 0 to 65535",
                "svc:a: Web key `fd7a::1:443`: an address with colons belongs in brackets",
                "svc:a: Web key `foo`: the port is missing",
                "svc:a: Web key `spa ce.b:443`: `spa ce.b` is no name for a certificate: it has a character that is \
                 neither letter, digit nor hyphen",
            ]
        );
        assert!(found.warnings.iter().all(|warning| warning.is_loss));
    }

    #[test]
    fn terminate_tls_without_a_target_is_managed_and_strange() {
        let config = json!({"Services": {"svc:a": {"TCP": {"443": {"TerminateTLS": "a.b.ts.net"}}}}});
        let found = wanted(&config, Node::Leave).unwrap();
        assert_eq!(found.names.len(), 1);
        assert_eq!(found.warnings[0].to_string(), "svc:a: TCP port 443: TerminateTLS without TCPForward has no effect");
        assert!(!found.warnings[0].is_loss);
    }

    #[test]
    fn names_are_checked_before_anybody_is_asked_for_them() {
        for good in ["a.b", "A.b.", "*.x.ts.net", "xn--bcher-kva.example", "_acme.x.y"] {
            assert!(Name::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "a",
            "a..b",
            "a/b.c",
            "a:b.c",
            "a b.c",
            "bücher.example",
            "-a.b",
            "a-.b",
            "*.b",
            "a.*.b",
            "../x.y",
        ] {
            assert!(Name::parse(bad).is_err(), "{bad}");
        }
        assert!(Name::parse(&format!("{}.b", "a".repeat(64))).is_err());
    }

    #[test]
    fn a_long_name_fits_into_a_label() {
        let name = Name::parse(&format!("{}.tail1234.ts.net", "a".repeat(54))).unwrap();
        assert_eq!(name.as_str().len(), 70);
        let label = name.label();
        let digest = crate::digest::sha256_hex(name.as_str().as_bytes());
        assert_eq!(label, format!("{}-{}", "a".repeat(54), &digest[..8]));
        assert_eq!(Name::parse("a.b").unwrap().label(), "a.b");
    }

    #[test]
    fn authorities_count_by_tailnet() {
        for (name, domain) in [
            ("shop.tail1.ts.net", "tail1.ts.net"),
            ("tail1.ts.net", "tail1.ts.net"),
            ("*.x.tail1.ts.net", "tail1.ts.net"),
            ("a.b.c.ts.net", "a.b.c.ts.net"),
            ("www.shop.example.com", "example.com"),
            ("example.com", "example.com"),
        ] {
            assert_eq!(Name::parse(name).unwrap().registered_domain(), domain, "{name}");
        }
    }

    #[test]
    fn a_mistyped_name_has_a_neighbour() {
        let allowed = ["shop.tail1.ts.net".to_owned(), "kube.tail1.ts.net".to_owned()];
        assert_eq!(nearest("shpo.tail1.ts.net", &allowed), Some("shop.tail1.ts.net"));
        assert_eq!(nearest("x.y", &allowed), None);
    }

    #[test]
    fn too_many_names_are_refused_with_the_limit() {
        let web: serde_json::Map<_, _> = (0..=MOST).map(|n| (format!("n{n}.t.ts.net:443"), Value::Null)).collect();
        let found = wanted(&json!({"Services": {"svc:a": {"Web": web}}}), Node::Leave).unwrap();
        assert_eq!(
            found.bounded().unwrap_err().to_string(),
            "the serve config has 1001 names for certificates, and at most 1000 are possible"
        );
    }
}
