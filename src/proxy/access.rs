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

/// Kubernetes' header for the user to act as.
pub const IMPERSONATE_USER: HeaderName = HeaderName::from_static("impersonate-user");

/// Kubernetes' header for a group to act in; one for each.
pub const IMPERSONATE_GROUP: HeaderName = HeaderName::from_static("impersonate-group");

/// Who is at the other end of a connection, and what it was granted.
#[derive(Clone, Debug)]
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

/// Whether a login that Kubernetes would take for a ServiceAccount may be impersonated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceAccounts {
    /// No.
    #[default]
    Refuse,
    /// Yes, by configuration.
    Allow,
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
    pub fn new(node: &WhoIs, service: Option<&WhoIs>, service_accounts: ServiceAccounts) -> Self {
        let answers: Vec<_> = [node].into_iter().chain(service).collect();
        let name = &node.node.name;
        let name = name.strip_suffix('.').unwrap_or(name).to_owned();
        let owner = if node.node.tags.is_empty() {
            Owner::User { login: node.user_profile.login_name.clone() }
        } else {
            Owner::Tags(node.node.tags.clone())
        };
        let rules = Rules::read(&answers);
        let granted = granted(&name, &owner, &rules, service_accounts);
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
fn granted(
    node: &str,
    owner: &Owner,
    rules: &Rules,
    service_accounts: ServiceAccounts,
) -> Result<Impersonation, Refusal> {
    let (_, rules) = rules
        .for_impersonation()
        .map_err(|bad| Refusal::new(Reason::Grants, format!("cannot use the caller's grants: {bad}")))?;
    let user = match owner {
        Owner::User { login } if login.is_empty() => return Err(refused("the node has no tags and no user")),
        Owner::User { login } => login,
        Owner::Tags(_) if node.is_empty() => return Err(refused("the tagged node has no name")),
        Owner::Tags(_) => node,
    };
    if user.starts_with("system:serviceaccount:") && service_accounts == ServiceAccounts::Refuse {
        return Err(refused(&format!("the user {user:?} would be a ServiceAccount")));
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
    let value = value.ok_or_else(|| refused(&format!("{text:?} does not fit in a header")))?;
    Ok(Subject { text: text.to_owned(), value })
}

/// What HTTP trims around a value.
const BLANK: [char; 2] = [' ', '\t'];

fn refused(why: &str) -> Refusal {
    Refusal::new(Reason::Impersonation, format!("cannot impersonate the caller: {why}"))
}
