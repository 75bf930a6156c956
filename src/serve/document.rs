//! A serve config as a person wrote it: read strictly, with line and column in every complaint. Pure.
//!
//! Two formats are read: the daemon's own (`ipn/serve.go`) and the documented one for Services (`"version": "0.0.1"`,
//! `ipn/conffile/serveconf.go`). Names of members are Go's: any case, brought to the daemon's spelling here; members that
//! nobody knows stay. What comes out is a [`Document`] that [resolves](Document::resolve) to what the daemon is sent.

use serde_json::{Value, json};

use super::go::{member, object};
use super::reading::Reader;
pub use super::reading::split_host_port;
use super::services::{self, Service};
use crate::hujson;
use crate::located::{self, Place};

/// Largest file, in bytes.
pub const LARGEST: usize = 4 << 20;

/// Most Services, and most hosts of one `Web`.
pub const MOST: usize = 1000;

/// What the node's certificate domain is filled in for.
pub const PLACEHOLDER: &str = "${TS_CERT_DOMAIN}";

/// A serve config that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    content: Content,
    /// What is strange in it, each with its place.
    pub warnings: Vec<String>,
}

/// What stands in it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    Raw(Value),
    Services(Vec<Service>),
}

/// Why a text is no serve config.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Too large to be one.
    #[error("it has {0} bytes, and at most {LARGEST} are possible")]
    TooLarge(usize),
    /// Wrong at one place.
    #[error("{place}: {reason}")]
    At {
        /// Where.
        place: Place,
        /// What is wrong.
        reason: String,
    },
}

/// What of the node a document may depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Whether the rest is known: there is a netmap.
    pub known: bool,
    /// The first of the node's certificate domains in control's order; nothing while the tailnet has no HTTPS.
    pub cert_domain: Option<String>,
    /// The tailnet's MagicDNS suffix, such as `tail1234.ts.net`.
    pub suffix: Option<String>,
}

/// Why a document cannot be sent yet. It will be when the node's facts change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Held {
    /// Nothing is known of the node.
    #[error("the node has no netmap yet")]
    NoNetmap,
    /// The placeholder has no value.
    #[error("it names ${{TS_CERT_DOMAIN}}, and HTTPS is not enabled for this tailnet")]
    NoCertDomain,
    /// It serves HTTPS, and the tailnet has none.
    #[error("it serves HTTPS, and HTTPS is not enabled for this tailnet")]
    NoHttps,
    /// Services have no names without the suffix.
    #[error("it names Services, and the tailnet's MagicDNS suffix is not known")]
    NoSuffix,
}

impl Held {
    /// What a person can do about it.
    pub fn hint(self) -> Option<&'static str> {
        match self {
            Self::NoNetmap => None,
            Self::NoCertDomain | Self::NoHttps => {
                Some("enable HTTPS certificates on the DNS page of the admin console (https://tailscale.com/s/https)")
            }
            Self::NoSuffix => Some("enable MagicDNS on the DNS page of the admin console"),
        }
    }
}

/// What stands wrong, at a byte offset.
pub(super) type Fault = (usize, String);

impl Document {
    /// Reads `text`. An empty text is for the caller to recognise; `null` is an empty config.
    pub fn parse(text: &str) -> Result<Self, DocumentError> {
        if text.len() > LARGEST {
            return Err(DocumentError::TooLarge(text.len()));
        }
        let at = |(offset, reason): Fault| DocumentError::At { place: Place::of(text, offset), reason };
        let syntax = |error: hujson::SyntaxError| at((error.offset, error.reason));
        let plain = hujson::standardize(text).map_err(syntax)?;
        // What HuJSON has and JSON has not is what is different now.
        if let Some(offset) = text.bytes().zip(plain.bytes()).position(|(was, is)| was != is) {
            let reason = match text.as_bytes()[offset] {
                b',' => "a comma before the closing bracket is not allowed here",
                _ => "comments are not allowed here",
            };
            return Err(at((offset, reason.to_owned())));
        }
        let root = located::parse(text).map_err(syntax)?;
        let mut reader = Reader { text, warnings: Vec::new() };
        let content = reader.document(&root).map_err(at)?;
        Ok(Self { content, warnings: reader.warnings })
    }

    /// What the daemon is sent.
    ///
    /// # Errors
    /// What has to be known or enabled first.
    pub fn resolve(&self, facts: &NodeFacts) -> Result<Value, Held> {
        if !facts.known {
            return Err(Held::NoNetmap);
        }
        let config = self.filled_in(facts)?;
        if facts.cert_domain.is_none() && needs_https(&config) {
            return Err(Held::NoHttps);
        }
        Ok(config)
    }

    /// What the daemon would be sent, whether or not the tailnet lets it be served.
    ///
    /// # Errors
    /// What it names and nobody knows.
    pub fn filled_in(&self, facts: &NodeFacts) -> Result<Value, Held> {
        Ok(match &self.content {
            Content::Services(services) if services.is_empty() => json!({}),
            Content::Services(services) => services::config(services, facts.suffix.as_deref().ok_or(Held::NoSuffix)?),
            Content::Raw(tree) => match &facts.cert_domain {
                Some(domain) => filled(tree, domain),
                None if has_placeholder(tree) => return Err(Held::NoCertDomain),
                None => tree.clone(),
            },
        })
    }

    /// The Services that it says are not ready to be advertised (`"advertised": false`).
    pub fn unadvertised(&self) -> Vec<&str> {
        match &self.content {
            Content::Raw(_) => Vec::new(),
            Content::Services(services) => {
                services.iter().filter(|service| !service.advertised).map(|service| service.name.as_str()).collect()
            }
        }
    }
}

/// Whether a config serves something that needs a certificate: of the node or of a Service.
pub fn needs_https(config: &Value) -> bool {
    let of = |entry: &Value| {
        let tcp = object(member(entry, "TCP")).any(|(_, handler)| ends_tls(handler));
        tcp || object(member(entry, "Web")).any(|(key, _)| key.rsplit_once(':').is_some_and(|(_, port)| port == "443"))
    };
    of(config) || object(member(config, "Services")).any(|(_, service)| of(service))
}

/// Whether TLS ends at the port of that handler, so that it needs a certificate.
pub fn ends_tls(handler: &Value) -> bool {
    let name = member(handler, "TerminateTLS").and_then(Value::as_str);
    member(handler, "HTTPS") == Some(&Value::Bool(true)) || name.is_some_and(|name| !name.is_empty())
}

/// The Services of a config, sorted.
pub fn service_names(config: &Value) -> Vec<String> {
    let mut names: Vec<_> = object(member(config, "Services")).map(|(name, _)| name.to_owned()).collect();
    names.sort();
    names
}

fn has_placeholder(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains(PLACEHOLDER),
        Value::Array(list) => list.iter().any(has_placeholder),
        Value::Object(members) => {
            members.iter().any(|(name, value)| name.contains(PLACEHOLDER) || has_placeholder(value))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// With the placeholder replaced in strings and names of members, never in what is neither.
fn filled(value: &Value, domain: &str) -> Value {
    match value {
        Value::String(text) => text.replace(PLACEHOLDER, domain).into(),
        Value::Array(list) => list.iter().map(|value| filled(value, domain)).collect(),
        Value::Object(members) => {
            let members = members.iter().map(|(k, v)| (k.replace(PLACEHOLDER, domain), filled(v, domain)));
            Value::Object(members.collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(cert_domain: Option<&str>) -> NodeFacts {
        NodeFacts { known: true, cert_domain: cert_domain.map(str::to_owned), suffix: Some("tail1.ts.net".to_owned()) }
    }

    fn resolved(text: &str, cert_domain: Option<&str>) -> Result<Value, Held> {
        Document::parse(text).unwrap().resolve(&facts(cert_domain))
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, error) in [
            ("", "line 1, column 1: unexpected end"),
            ("[]", "line 1, column 1: a serve config is an object, and this is a list"),
            ("{\n  // no\n}", "line 2, column 3: comments are not allowed here"),
            ("{\"TCP\": {},\n}", "line 1, column 11: a comma before the closing bracket is not allowed here"),
            ("{} x", "line 1, column 4: unexpected 'x' after the value"),
            ("{\"TCP\": 7}", "line 1, column 9: an object was expected, and this is a number"),
            ("{\"TCP\": {\"http\": {}}}", "line 1, column 10: `http` is no port from 1 to 65535"),
            ("{\"TCP\": {\"443\": {\"HTTPS\": 1}}}", "line 1, column 27: a boolean was expected, and this is a number"),
            ("{\"Services\":\n {\"shop\": {}}}", "line 2, column 3: `shop` is no Service: it has to begin with `svc:`"),
            (
                "{\"Services\": {\"svc:a\": {\"tun\": true, \"TCP\": {\"1\": null}}}}",
                "line 1, column 24: a Service in TUN mode cannot have TCP or Web handlers",
            ),
        ] {
            assert_eq!(Document::parse(text).unwrap_err().to_string(), error, "{text}");
        }
        assert!(Document::parse(&" ".repeat(LARGEST + 1)).unwrap_err().to_string().contains("at most 4194304"));
    }

    #[test]
    fn names_are_gos_and_strangers_stay() {
        let text = r#"{"tcp": {"443": {"https": true, "New": [1, {"x": null}]}}, "etag": "kept", "Web": null}"#;
        let document = Document::parse(text).unwrap();
        assert_eq!(
            document.resolve(&facts(Some("n.ts.net"))).unwrap(),
            json!({"TCP": {"443": {"HTTPS": true, "New": [1, {"x": null}]}}, "etag": "kept", "Web": null})
        );
        assert_eq!(resolved("null", None).unwrap(), json!({}));
    }

    #[test]
    fn strange_things_are_warned_of() {
        let text = "{\"TCP\": {\"80\": {}},\n \"tcp\": {\"443\": {\"TerminateTLS\": \"a.b\"}}, \"Web\": {\"foo\": {}}}";
        assert_eq!(
            Document::parse(text).unwrap().warnings,
            [
                "line 2, column 17: TerminateTLS without TCPForward has no effect",
                "line 2, column 2: `TCP` is there twice; the last one counts",
                "line 2, column 51: `foo`: the port is missing",
            ]
        );
    }

    #[test]
    fn the_placeholder_is_filled_in_strings_and_names_only() {
        let text = r#"{"Web": {"${TS_CERT_DOMAIN}:443": {"Handlers": {"/": {"Text": "at ${TS_CERT_DOMAIN}"}}}}}"#;
        let filled = resolved(text, Some("n.ts.net")).unwrap();
        assert_eq!(filled, json!({"Web": {"n.ts.net:443": {"Handlers": {"/": {"Text": "at n.ts.net"}}}}}));
        // A value that would break out of a string of text cannot break out of a tree.
        let odd = resolved(r#"{"TCP": {"1": {"TCPForward": "${TS_CERT_DOMAIN}"}}}"#, Some("\", \"x\": \"")).unwrap();
        assert_eq!(odd["TCP"]["1"], json!({"TCPForward": "\", \"x\": \""}));
        assert_eq!(resolved(text, None), Err(Held::NoCertDomain));
        assert_eq!(Document::parse(text).unwrap().resolve(&NodeFacts::default()), Err(Held::NoNetmap));
    }

    #[test]
    fn https_is_held_back_wherever_it_is_served() {
        for (text, needs) in [
            (r#"{"TCP": {"80": {"HTTP": true}}}"#, false),
            (r#"{"TCP": {"443": {"HTTPS": true}}}"#, true),
            (r#"{"Services": {"svc:a": {"TCP": {"8443": {"HTTPS": true}}}}}"#, true),
            (r#"{"Services": {"svc:a": {"Web": {"a.b:443": {}}}}}"#, true),
            (r#"{"Services": {"svc:a": {"TCP": {"443": {"TCPForward": "x:1", "TerminateTLS": "a.b"}}}}}"#, true),
            (r#"{"Services": {"svc:a": {"TCP": {"443": {"TCPForward": "x:1"}}}}}"#, false),
            (r#"{"Web": {"a.b:80": {}}}"#, false),
        ] {
            let expected = if needs { Some(Held::NoHttps) } else { None };
            assert_eq!(resolved(text, None).err(), expected, "{text}");
            assert!(resolved(text, Some("n.ts.net")).is_ok());
        }
    }
}
