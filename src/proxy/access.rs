//! Who a peer is, and as whom it acts towards Kubernetes. Pure.
//!
//! Identity comes from whois alone, never from a header. Whatever is unclear about it ends the request: an empty
//! `Impersonate-User` would make kube-apiserver serve the proxy's own identity. api-proxy.md 4 and 5.

use std::borrow::Cow;
use std::collections::BTreeSet;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use super::grants::{Rule, Rules};
use super::refusal::{Reason, Refusal};
use crate::localapi::types::WhoIs;
use crate::short;

/// Kubernetes' header for the user to act as.
pub const IMPERSONATE_USER: HeaderName = HeaderName::from_static("impersonate-user");

/// Kubernetes' header for a group to act in; one for each.
pub const IMPERSONATE_GROUP: HeaderName = HeaderName::from_static("impersonate-group");

/// Who is at the other end of a connection, and what it was granted.
#[derive(Clone, Debug, PartialEq)]
pub struct Peer {
    /// Never changes while the node exists.
    pub stable_id: String,
    /// FQDN without its final dot.
    pub node: String,
    /// Whose node it is.
    pub owner: Owner,
    /// What its grants say.
    pub rules: Rules,
    granted: Result<Impersonation, Refusal>,
}

/// Whose a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A person's.
    User {
        /// `alice@example.com`
        login: String,
    },
    /// Nobody's in person: what runs there acts as these.
    Tags(Vec<String>),
}

/// As whom a request is made: exactly one user, any number of distinct groups, all of them fit for a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impersonation {
    user: Subject,
    groups: Vec<Subject>,
}

/// A user or group: text that is sent as a header value byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Subject {
    text: String,
    value: HeaderValue,
}

impl Peer {
    /// From whois' answer about the node, and the one scoped to the Service when its grants count too.
    pub fn new(node: &WhoIs, service: Option<&WhoIs>) -> Self {
        let answers: Vec<_> = [node].into_iter().chain(service).collect();
        let name = &node.node.name;
        let name = name.strip_suffix('.').unwrap_or(name).to_owned();
        let owner = if node.node.tags.is_empty() {
            Owner::User { login: node.user_profile.login_name.clone() }
        } else {
            Owner::Tags(node.node.tags.clone())
        };
        let rules = Rules::read(&answers);
        let granted = granted(&name, &owner, &rules);
        Self { stable_id: node.node.stable_id.clone(), node: name, owner, rules, granted }
    }

    /// The login or the tags, for a log line.
    pub fn who(&self) -> Cow<'_, str> {
        match &self.owner {
            Owner::User { login } => login.into(),
            Owner::Tags(tags) => tags.join(",").into(),
        }
    }
}

impl Impersonation {
    /// The user.
    pub fn user(&self) -> &str {
        &self.user.text
    }

    /// The groups, in the order they are sent.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = &str> {
        self.groups.iter().map(|group| group.text.as_str())
    }

    /// The headers, in the order they are sent.
    pub fn headers(&self) -> impl Iterator<Item = (HeaderName, &HeaderValue)> {
        let groups = self.groups.iter().map(|group| (IMPERSONATE_GROUP, &group.value));
        std::iter::once((IMPERSONATE_USER, &self.user.value)).chain(groups)
    }
}

/// As whom a peer's request is made. `asked` are the client's headers before [`super::headers::strip_identity`]: only its
/// `Impersonate-Group` count, and only where a rule allows to ask.
pub fn impersonation<'a>(peer: &'a Peer, asked: &HeaderMap) -> Result<Cow<'a, Impersonation>, Refusal> {
    let granted = peer.granted.as_ref().map_err(Clone::clone)?;
    // The legacy capability allows nobody to ask.
    let rules = peer.rules.modern.as_deref().unwrap_or_default();
    if !asked.contains_key(&IMPERSONATE_GROUP) || rules.iter().all(|rule| rule.allow.is_none()) {
        return Ok(Cow::Borrowed(granted));
    }
    let may: BTreeSet<&str> = rules
        .iter()
        .flat_map(|rule| rule.groups.iter().chain(rule.allow.iter().flatten()))
        .map(String::as_str)
        .collect();
    let mut groups: Vec<Subject> = Vec::new();
    for value in asked.get_all(&IMPERSONATE_GROUP) {
        let text = std::str::from_utf8(value.as_bytes()).ok().filter(|text| !text.is_empty() && may.contains(text));
        let Some(text) = text else {
            let group = String::from_utf8_lossy(value.as_bytes());
            let group = short::name(&group);
            return Err(Refusal::new(
                Reason::Group,
                format!(
                    "forbidden: group {group:?} was asked for, but neither impersonate.groups nor impersonate.allow of the \
                     caller's {} names it.",
                    rules_named(rules.len())
                ),
            ));
        };
        add(&mut groups, text)?;
    }
    Ok(Cow::Owned(Impersonation { user: granted.user.clone(), groups }))
}

fn rules_named(count: usize) -> String {
    match count {
        1 => "rule".to_owned(),
        count => format!("{count} rules"),
    }
}

/// As whom, by what was granted alone.
fn granted(node: &str, owner: &Owner, rules: &Rules) -> Result<Impersonation, Refusal> {
    let (_, rules) = rules
        .for_impersonation()
        .map_err(|bad| Refusal::new(Reason::Grants, format!("cannot use the caller's grants: {bad}")))?;
    let user = match owner {
        Owner::User { login } if login.is_empty() => return Err(refused("the node has no tags and no user")),
        Owner::User { login } => login,
        Owner::Tags(_) if node.is_empty() => return Err(refused("the tagged node has no name")),
        Owner::Tags(_) => node,
    };
    if user.starts_with("system:serviceaccount:") {
        return Err(refused(&format!("the user {:?} would be a ServiceAccount", short::name(user))));
    }
    let user = subject(user)?;
    let mut groups = Vec::new();
    for group in rules.iter().flat_map(|rule: &Rule| &rule.groups) {
        add(&mut groups, group)?;
    }
    if let (Owner::Tags(tags), true) = (owner, groups.is_empty()) {
        for tag in tags {
            add(&mut groups, tag)?;
        }
    }
    Ok(Impersonation { user, groups })
}

/// Adds a group unless it is empty or there already.
fn add(groups: &mut Vec<Subject>, text: &str) -> Result<(), Refusal> {
    if !text.is_empty() && groups.iter().all(|group| group.text != text) {
        groups.push(subject(text)?);
    }
    Ok(())
}

/// Checks that a user or group arrives as what it is: blanks around a value get lost on the way, so ` admins` would
/// become another group.
fn subject(text: &str) -> Result<Subject, Refusal> {
    let value =
        HeaderValue::from_bytes(text.as_bytes()).ok().filter(|_| !text.starts_with(BLANK) && !text.ends_with(BLANK));
    let value = value.ok_or_else(|| refused(&format!("{:?} does not fit in a header", short::name(text))))?;
    Ok(Subject { text: text.to_owned(), value })
}

/// What HTTP trims around a value.
const BLANK: [char; 2] = [' ', '\t'];

fn refused(why: &str) -> Refusal {
    Refusal::new(Reason::Impersonation, format!("cannot impersonate the caller: {why}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::proxy::grants::{CAPABILITY, LEGACY};

    fn user(login: &str, capabilities: Value) -> WhoIs {
        let mut document =
            json!({"Node": {"Name": "laptop.ts.net.", "StableID": "n1"}, "UserProfile": {"LoginName": login}});
        document["CapMap"] = capabilities;
        serde_json::from_value(document).unwrap()
    }

    fn tagged(name: &str, capabilities: Value) -> WhoIs {
        let mut document = json!({"Node": {"Name": name, "Tags": ["tag:a", "tag:b", "tag:a"]},
                                  "UserProfile": {"LoginName": "tagged-devices"}});
        document["CapMap"] = capabilities;
        serde_json::from_value(document).unwrap()
    }

    fn groups(rules: &[&[&str]]) -> Value {
        let rules: Vec<_> = rules.iter().map(|groups| json!({"impersonate": {"groups": groups}})).collect();
        json!({CAPABILITY: rules})
    }

    /// `user | group, group`, or the refusal.
    fn whom(whois: &WhoIs) -> String {
        asking(whois, &[])
    }

    fn asking(whois: &WhoIs, asked: &[&str]) -> String {
        let asked = asked.iter().map(|group| (IMPERSONATE_GROUP, HeaderValue::from_str(group).unwrap())).collect();
        let peer = Peer::new(whois, None);
        match impersonation(&peer, &asked) {
            Ok(whom) => format!("{} | {}", whom.user(), whom.groups().collect::<Vec<_>>().join(", ")),
            Err(refusal) => format!("{} {}", refusal.status().as_u16(), refusal.message),
        }
    }

    /// The table of api-proxy.md 5.2.
    #[test]
    fn users_tags_and_groups() {
        let recording = json!({CAPABILITY: [{"recorder": ["tag:r"], "enforceRecorder": true}]});
        for (whois, expected) in [
            (user("ann@example.com", json!({})), "ann@example.com | "),
            (user("ann@example.com", groups(&[&["g1", "g2"], &["g1", "g3"]])), "ann@example.com | g1, g2, g3"),
            (user("ann@example.com", groups(&[&["g1", "g2", "g1"]])), "ann@example.com | g1, g2"),
            (user("ann@example.com", groups(&[&["G1", "", "g1"]])), "ann@example.com | G1, g1"),
            (user("ann@example.com", groups(&[&["system:masters"]])), "ann@example.com | system:masters"),
            (user("zoë@example.com", groups(&[&["größe"]])), "zoë@example.com | größe"),
            (tagged("n.ts.net.", json!({})), "n.ts.net | tag:a, tag:b"),
            (tagged("n.ts.net", json!({})), "n.ts.net | tag:a, tag:b"),
            (tagged("n.ts.net..", json!({})), "n.ts.net. | tag:a, tag:b"),
            (tagged("n.ts.net.", groups(&[&["g1"]])), "n.ts.net | g1"),
            (tagged("n.ts.net.", groups(&[&[""]])), "n.ts.net | tag:a, tag:b"),
            (tagged("n.ts.net.", recording), "n.ts.net | tag:a, tag:b"),
        ] {
            assert_eq!(whom(&whois), expected);
        }
    }

    #[test]
    fn the_legacy_capability_gives_groups_when_it_is_alone() {
        let old = json!([{"impersonate": {"groups": ["old"]}, "enforceRecorder": true}]);
        assert_eq!(whom(&user("ann", json!({LEGACY: old}))), "ann | old");
        assert_eq!(whom(&user("ann", json!({LEGACY: old, CAPABILITY: [{}]}))), "ann | ");
    }

    #[test]
    fn whatever_is_unclear_ends_the_request() {
        for (whois, expected) in [
            (
                user("ann", json!({CAPABILITY: ["x"]})),
                "500 cannot use the caller's grants: rule 1 of the grant for tailscale.com/cap/kubernetes cannot be read: the rule is a string; expected an object",
            ),
            (
                user("ann", json!({LEGACY: [[]]})),
                "500 cannot use the caller's grants: rule 1 of the grant for https://tailscale.com/cap/kubernetes cannot be read: the rule is an array; expected an object",
            ),
            (user("", json!({})), "500 cannot impersonate the caller: the node has no tags and no user"),
            (tagged("", json!({})), "500 cannot impersonate the caller: the tagged node has no name"),
            (tagged(".", json!({})), "500 cannot impersonate the caller: the tagged node has no name"),
            (
                user("a\r\nImpersonate-Group: system:masters", json!({})),
                "500 cannot impersonate the caller: \"a\\r\\nImpersonate-Group: system:masters\" does not fit in a header",
            ),
            (user("a\0", json!({})), "500 cannot impersonate the caller: \"a\\0\" does not fit in a header"),
            (user(" ", json!({})), "500 cannot impersonate the caller: \" \" does not fit in a header"),
            (user("ann", groups(&[&["g\n"]])), "500 cannot impersonate the caller: \"g\\n\" does not fit in a header"),
            (
                user("ann", groups(&[&[" system:masters"]])),
                "500 cannot impersonate the caller: \" system:masters\" does not fit in a header",
            ),
            (
                user("ann", groups(&[&["g\u{7f}"]])),
                "500 cannot impersonate the caller: \"g\\u{7f}\" does not fit in a header",
            ),
            (
                user("system:serviceaccount:kube-system:x", json!({})),
                "500 cannot impersonate the caller: the user \"system:serviceaccount:kube-system:x\" would be a ServiceAccount",
            ),
        ] {
            assert_eq!(whom(&whois), expected);
        }
    }

    /// `impersonate.allow`, api-proxy.md 5.1.
    #[test]
    fn a_client_gets_what_it_asks_for_and_may_have() {
        let may = user(
            "ann",
            json!({CAPABILITY: [{"impersonate": {"groups": ["view"]}}, {"impersonate": {"allow": ["edit", "admin"]}}]}),
        );
        for (asked, expected) in [
            (&[][..], "ann | view"),
            (&["edit"], "ann | edit"),
            (&["admin", "view", "admin"], "ann | admin, view"),
            (&["view"], "ann | view"),
        ] {
            assert_eq!(asking(&may, asked), expected);
        }
        let forbidden = "403 forbidden: group \"root\" was asked for, but neither impersonate.groups nor \
                         impersonate.allow of the caller's 2 rules names it.";
        assert_eq!(asking(&may, &["edit", "root"]), forbidden);
        assert_eq!(asking(&may, &["root"]), forbidden);
        for asked in ["", "edit,admin", "Edit"] {
            assert!(asking(&may, &[asked]).starts_with("403 forbidden: group"), "{asked}");
        }
    }

    #[test]
    fn without_leave_to_ask_asking_changes_nothing() {
        assert_eq!(asking(&user("ann", groups(&[&["view"]])), &["system:masters"]), "ann | view");
        let old = json!({LEGACY: [{"impersonate": {"groups": ["old"], "allow": ["x"]}}]});
        assert_eq!(asking(&user("ann", old), &["x"]), "ann | old");
    }

    /// An empty list is leave to ask for what one has anyway, in part.
    #[test]
    fn leave_to_ask_for_nothing_more() {
        let may = tagged("n.ts.net.", json!({CAPABILITY: [{"impersonate": {"groups": ["a", "b"], "allow": []}}]}));
        assert_eq!(asking(&may, &["b"]), "n.ts.net | b");
        assert!(asking(&may, &["tag:a"]).starts_with("403 "));
    }

    #[test]
    fn grants_for_the_service_follow_those_for_the_node() {
        let node = user("ann", groups(&[&["node"]]));
        let service = user("somebody else", groups(&[&["service", "node"]]));
        let peer = Peer::new(&node, Some(&service));
        let whom = impersonation(&peer, &HeaderMap::new()).unwrap();
        assert_eq!((whom.user(), whom.groups().collect::<Vec<_>>()), ("ann", vec!["node", "service"]));
    }
}
