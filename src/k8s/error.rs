//! What can go wrong between us and the API server, sorted by what a caller does about it. Pure.
//!
//! The HTTP status decides which variant it is, never the text of an answer; what the server said comes along as the
//! source. "Denied" and "unreachable" are different variants because they have different remedies.

use std::fmt;
use std::time::Duration;

/// A request that failed, after the tries it was worth.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no service account to read: we are probably not in a Pod.
    #[error("no Kubernetes service account at {}; TS_KUBE_SECRET only works inside a Pod that mounts one", dir.display())]
    NoServiceAccount {
        /// The directory that is missing.
        dir: std::path::PathBuf,
    },
    /// What is needed to speak to the cluster is there but cannot be used.
    #[error("{what}")]
    Setup {
        /// What was being read or built.
        what: String,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// 403: RBAC does not allow it; see [`Error::missing_rule`].
    #[error("not allowed to {verb} {}", target(*.resource, .name.as_deref()))]
    Denied {
        /// The verb RBAC knows.
        verb: Verb,
        /// The resource.
        resource: Resource,
        /// The object, unless the request was about the collection.
        name: Option<String>,
        /// What the server said.
        source: Said,
    },
    /// 401, also with a fresh token.
    #[error("the API server does not accept our credentials")]
    Unauthorized {
        /// What the server said.
        source: Said,
    },
    /// 404.
    #[error("{} does not exist", target(*.resource, .name.as_deref()))]
    NotFound {
        /// The resource.
        resource: Resource,
        /// The object.
        name: Option<String>,
    },
    /// 409: it was changed by someone else, or exists already.
    #[error("{} was changed by someone else", target(*.resource, .name.as_deref()))]
    Conflict {
        /// The resource.
        resource: Resource,
        /// The object.
        name: Option<String>,
        /// What the server said.
        source: Said,
    },
    /// 422: the server understood the request and refuses what it would do.
    #[error("the API server refuses the change to {}", target(*.resource, .name.as_deref()))]
    Invalid {
        /// The resource.
        resource: Resource,
        /// The object.
        name: Option<String>,
        /// What the server said.
        source: Said,
    },
    /// 429, and waiting longer than the deadline or our own limit would be needed.
    #[error("the API server is too busy")]
    Throttled {
        /// How long it asked us to wait.
        retry_after: Option<Duration>,
    },
    /// No complete answer: name, connection, TLS, time limit or a connection that broke off.
    #[error("cannot reach the API server at {server}: {cause}")]
    Unreachable {
        /// Scheme, host and port.
        server: String,
        /// What was in the way.
        cause: Cause,
    },
    /// 5xx.
    #[error("the API server failed with status {code}")]
    Server {
        /// The HTTP status.
        code: u16,
        /// What the server said.
        source: Said,
    },
    /// An HTTP status that has no meaning here (a redirect, 400, 413, …).
    #[error("the API server answered with status {code}")]
    Unexpected {
        /// The HTTP status.
        code: u16,
        /// What the server said.
        source: Said,
    },
    /// A success whose body is not what the API promises: HTML, cut off, too large.
    #[error("the API server's answer to {request} cannot be used: {reason}")]
    Malformed {
        /// Verb and object.
        request: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Why the API server could not be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The host name did not resolve.
    Resolve(String),
    /// No TCP connection.
    Connect(String),
    /// No trust or no agreement in the TLS handshake.
    Tls(String),
    /// No answer within this time.
    Timeout(Duration),
    /// The connection ended before the answer did.
    Broken(String),
}

/// What the API server said beside the HTTP status; the source of the error that carries it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said(pub String);

/// A verb as RBAC spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// Read one object.
    Get,
    /// Read a collection.
    List,
    /// Follow changes.
    Watch,
    /// Make a new object.
    Create,
    /// Replace an object.
    Update,
    /// Change parts of an object.
    Patch,
    /// Remove an object.
    Delete,
}

/// A resource that we touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// Secrets of the core group.
    Secrets,
    /// Events of the core group.
    Events,
    /// Pods of the core group.
    Pods,
    /// Where the Pods behind a Service listen.
    EndpointSlices,
    /// Leases: who is responsible.
    Leases,
    /// Questions about our own rights.
    SelfSubjectAccessReviews,
    /// The question who we are.
    SelfSubjectReviews,
}

/// One rule of a Role; prints as the YAML lines to paste below `rules:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleRule {
    /// The resource.
    pub resource: Resource,
    /// The one object it is about; left out for `create`, which RBAC cannot restrict by name.
    pub name: Option<String>,
    /// The verbs.
    pub verbs: Vec<Verb>,
}

// === impl Error ===

impl Error {
    /// Whether the same request may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Throttled { .. } | Self::Server { .. })
    }

    /// Whether no complete answer was had, as opposed to an answer we do not like.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// What to do about credentials that cannot be had.
    pub fn credential_hint(&self) -> Option<&str> {
        match self {
            Self::Setup { source, .. } => source.downcast_ref::<super::exec::CredentialError>()?.hint(),
            _ => None,
        }
    }

    /// The Role rule that would have allowed the request.
    pub fn missing_rule(&self) -> Option<RoleRule> {
        match self {
            Self::Denied { verb, resource, name, .. } => Some(RoleRule::new(*resource, name.as_deref(), [*verb])),
            _ => None,
        }
    }
}

/// ``Secret `ts-0` `` or `Secrets`.
fn target(resource: Resource, name: Option<&str>) -> String {
    match name {
        Some(name) => format!("{} `{name}`", resource.kind()),
        None => format!("{}s", resource.kind()),
    }
}

// === impl Cause ===

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve(why) => write!(f, "its name does not resolve ({why})"),
            Self::Connect(why) => write!(f, "no connection ({why})"),
            Self::Tls(why) => write!(f, "no TLS ({why})"),
            Self::Timeout(after) => write!(f, "no answer within {}", crate::goduration::format(*after)),
            Self::Broken(why) => write!(f, "the connection broke off ({why})"),
        }
    }
}

// === impl Said ===

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "no reason given" } else { &self.0 })
    }
}

impl std::error::Error for Said {}

// === impl Verb ===

impl Verb {
    /// As RBAC and log lines spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Resource ===

impl Resource {
    /// The plural in paths and rules.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Secrets => "secrets",
            Self::Events => "events",
            Self::Pods => "pods",
            Self::EndpointSlices => "endpointslices",
            Self::Leases => "leases",
            Self::SelfSubjectAccessReviews => "selfsubjectaccessreviews",
            Self::SelfSubjectReviews => "selfsubjectreviews",
        }
    }

    /// The API group, empty for the core group.
    pub fn group(self) -> &'static str {
        match self {
            Self::Secrets | Self::Events | Self::Pods => "",
            Self::EndpointSlices => "discovery.k8s.io",
            Self::Leases => "coordination.k8s.io",
            Self::SelfSubjectAccessReviews => "authorization.k8s.io",
            Self::SelfSubjectReviews => "authentication.k8s.io",
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::Secrets => "Secret",
            Self::Events => "Event",
            Self::Pods => "Pod",
            Self::EndpointSlices => "EndpointSlice",
            Self::Leases => "Lease",
            Self::SelfSubjectAccessReviews => "SelfSubjectAccessReview",
            Self::SelfSubjectReviews => "SelfSubjectReview",
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.plural())
    }
}

// === impl RoleRule ===

impl RoleRule {
    /// A rule for `verbs` on one object, or on the collection.
    pub fn new(resource: Resource, name: Option<&str>, verbs: impl IntoIterator<Item = Verb>) -> Self {
        let verbs: Vec<_> = verbs.into_iter().collect();
        // RBAC cannot match the name of an object that does not exist yet.
        let name = name.filter(|_| !verbs.contains(&Verb::Create)).map(str::to_owned);
        Self { resource, name, verbs }
    }
}

impl fmt::Display for RoleRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "- apiGroups: [\"{}\"]", self.resource.group())?;
        writeln!(f, "  resources: [\"{}\"]", self.resource.plural())?;
        if let Some(name) = &self.name {
            writeln!(f, "  resourceNames: [\"{name}\"]")?;
        }
        let verbs: Vec<_> = self.verbs.iter().map(|verb| format!("\"{verb}\"")).collect();
        write!(f, "  verbs: [{}]", verbs.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied(verb: Verb, name: Option<&str>) -> Error {
        Error::Denied { verb, resource: Resource::Secrets, name: name.map(str::to_owned), source: Said::default() }
    }

    #[test]
    fn a_denial_names_verb_and_object_and_the_rule_that_is_missing() {
        let error = denied(Verb::Patch, Some("ts-0"));
        assert_eq!(error.to_string(), "not allowed to patch Secret `ts-0`");
        assert_eq!(
            error.missing_rule().map(|rule| rule.to_string()).as_deref(),
            Some("- apiGroups: [\"\"]\n  resources: [\"secrets\"]\n  resourceNames: [\"ts-0\"]\n  verbs: [\"patch\"]")
        );
        assert!(!error.is_transient());
    }

    #[test]
    fn create_is_never_restricted_by_name() {
        let rule = denied(Verb::Create, Some("ts-0")).missing_rule().map(|rule| rule.to_string());
        assert_eq!(rule.as_deref(), Some("- apiGroups: [\"\"]\n  resources: [\"secrets\"]\n  verbs: [\"create\"]"));
    }

    #[test]
    fn only_what_may_pass_by_itself_is_transient() {
        let broken = Cause::Broken("reset".to_owned());
        assert!(Error::Unreachable { server: "https://x".to_owned(), cause: broken }.is_transient());
        assert!(Error::Throttled { retry_after: None }.is_transient());
        assert!(Error::Server { code: 503, source: Said::default() }.is_transient());
        assert!(!Error::Unauthorized { source: Said::default() }.is_transient());
        assert!(!Error::Malformed { request: String::new(), reason: String::new() }.is_transient());
    }

    #[test]
    fn unreachable_is_one_line_without_a_source() {
        let error = Error::Unreachable {
            server: "https://10.0.0.1:443".to_owned(),
            cause: Cause::Timeout(Duration::from_secs(15)),
        };
        assert_eq!(error.to_string(), "cannot reach the API server at https://10.0.0.1:443: no answer within 15s");
        assert!(std::error::Error::source(&error).is_none());
    }
}
