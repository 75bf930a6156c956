//! The flags of `tailscale up` that `tailpod boot` knows, and what their values become (boot.md E.3). Pure.

use serde_json::{Value, json};

/// A flag that becomes one member of prefs.
pub(in crate::boot) struct Simple {
    pub(super) flag: &'static str,
    pub(in crate::boot) member: &'static str,
    /// The CLI's default, as text.
    default: &'static str,
    pub(super) is_bool: bool,
    pub(super) value: fn(&str) -> Result<Value, String>,
}

impl Simple {
    /// The member's value when the flag is not given to a new node.
    pub(in crate::boot) fn default_value(&self) -> Value {
        (self.value)(self.default).unwrap_or(Value::Null)
    }
}

/// Every flag that is one member (boot.md E.3).
pub(in crate::boot) static SIMPLE: [Simple; 14] = [
    text("login-server", "ControlURL", "https://controlplane.tailscale.com", plain),
    boolean("accept-routes", "RouteAll", "false", straight),
    boolean("accept-dns", "CorpDNS", "true", straight),
    boolean("exit-node-allow-lan-access", "ExitNodeAllowLANAccess", "false", straight),
    boolean("shields-up", "ShieldsUp", "false", straight),
    boolean("ssh", "RunSSH", "false", straight),
    text("advertise-tags", "AdvertiseTags", "", tags),
    text("hostname", "Hostname", "", hostname),
    boolean("advertise-connector", "AppConnector", "false", connector),
    boolean("report-posture", "PostureChecking", "false", straight),
    text("operator", "OperatorUser", "", plain),
    boolean("snat-subnet-routes", "NoSNAT", "true", inverted),
    boolean("stateful-filtering", "NoStatefulFiltering", "false", inverted),
    text("netfilter-mode", "NetfilterMode", "on", netfilter),
];

const fn text(
    flag: &'static str,
    member: &'static str,
    default: &'static str,
    value: fn(&str) -> Result<Value, String>,
) -> Simple {
    Simple { flag, member, default, is_bool: false, value }
}

const fn boolean(
    flag: &'static str,
    member: &'static str,
    default: &'static str,
    value: fn(&str) -> Result<Value, String>,
) -> Simple {
    Simple { flag, member, default, is_bool: true, value }
}

/// The other flags that are known, and whether they are booleans.
pub(super) const OTHERS: [(&str, bool); 17] = [
    ("exit-node", false),
    ("advertise-routes", false),
    ("advertise-exit-node", true),
    ("reset", true),
    ("force-reauth", true),
    ("timeout", false),
    ("qr", true),
    ("qr-format", false),
    ("json", true),
    ("accept-risk", false),
    ("host-routes", true),
    ("auth-key", false),
    ("authkey", false),
    ("client-id", false),
    ("client-secret", false),
    ("id-token", false),
    ("audience", false),
];

#[expect(clippy::unnecessary_wraps, reason = "one signature for every flag")]
fn plain(text: &str) -> Result<Value, String> {
    Ok(json!(text))
}

#[expect(clippy::unnecessary_wraps, reason = "one signature for every flag")]
fn straight(text: &str) -> Result<Value, String> {
    Ok(json!(text == "true"))
}

#[expect(clippy::unnecessary_wraps, reason = "one signature for every flag")]
fn inverted(text: &str) -> Result<Value, String> {
    Ok(json!(text != "true"))
}

#[expect(clippy::unnecessary_wraps, reason = "one signature for every flag")]
fn connector(text: &str) -> Result<Value, String> {
    Ok(json!({ "Advertise": text == "true" }))
}

/// `tag:` is added to tags without a colon.
fn tags(text: &str) -> Result<Value, String> {
    let mut tags = Vec::new();
    for tag in text.split(',').filter(|_| !text.is_empty()) {
        let tag = if tag.contains(':') { tag.to_owned() } else { format!("tag:{tag}") };
        let name = tag.strip_prefix("tag:").unwrap_or_default();
        let fits = name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !fits {
            return Err(format!("{tag:?} is not a tag: `tag:`, a letter, then letters, digits and dashes"));
        }
        tags.push(tag);
    }
    Ok(json!(tags))
}

/// Empty, or DNS labels.
pub(super) fn hostname(text: &str) -> Result<Value, String> {
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        bytes.len() <= 63
            && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    if text.is_empty() || (name.len() <= 253 && name.split('.').all(is_label)) {
        return Ok(json!(text));
    }
    Err(format!("{text:?} is not a host name: labels of letters, digits and dashes, at most 63 characters each"))
}

fn netfilter(text: &str) -> Result<Value, String> {
    match text {
        "on" => Ok(json!(2)),
        "nodivert" => Ok(json!(1)),
        "off" => Ok(json!(0)),
        _ => Err(format!("{text:?} is not one of on, nodivert and off")),
    }
}
