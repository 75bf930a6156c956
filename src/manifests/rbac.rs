//! Who may do what: Roles, ClusterRoles and their bindings. Pure.

use super::permissions::{Needs, Rule, rules};
use super::pod::{entries, metadata};
use super::yaml::{Yaml, map, stream, words};
use crate::k8s::error::Verb;

/// The API group of all of it.
const API: &str = "rbac.authorization.k8s.io";

/// Somebody who needs a Role.
#[derive(Clone, Debug)]
pub struct Account<'a> {
    /// The namespace, when it is known.
    pub namespace: Option<&'a str>,
    /// The service account.
    pub service_account: &'a str,
    /// What for.
    pub needs: Needs,
}

impl Account<'_> {
    /// The smallest Role and its binding, both under this name.
    pub fn role(&self, name: &str) -> [Yaml; 2] {
        role(name, self.namespace, self.service_account, rules(&self.needs))
    }

    /// The same as text to paste into `kubectl apply -f -`.
    pub fn role_text(&self, name: &str) -> String {
        stream(&self.role(name))
    }
}

/// A Role with these rules and its binding to a service account of the namespace.
pub(super) fn role(name: &str, namespace: Option<&str>, service_account: &str, rules: Vec<Rule>) -> [Yaml; 2] {
    let rule = |rule: Rule| {
        let mut entries = vec![
            ("apiGroups".to_owned(), words([rule.resource.group()])),
            ("resources".to_owned(), words([rule.resource.plural()])),
        ];
        if !rule.names.is_empty() {
            entries.push(("resourceNames".to_owned(), words(rule.names)));
        }
        entries.push(("verbs".to_owned(), words(rule.verbs.into_iter().map(Verb::as_str))));
        Yaml::Map(entries)
    };
    let rules = Yaml::List(rules.into_iter().map(rule).collect());
    bound("Role", metadata(name, namespace), name, rules, subject(service_account, namespace))
}

/// The kind `Role` or `ClusterRole`, and what binds it.
fn bound(kind: &str, metadata: Yaml, name: &str, rules: Yaml, subject: Yaml) -> [Yaml; 2] {
    let version = || Yaml::from(format!("{API}/v1"));
    let role_ref = map([("apiGroup", API.into()), ("kind", kind.into()), ("name", name.into())]);
    [
        map([("apiVersion", version()), ("kind", kind.into()), ("metadata", metadata.clone()), ("rules", rules)]),
        map([
            ("apiVersion", version()),
            ("kind", format!("{kind}Binding").into()),
            ("metadata", metadata),
            ("roleRef", role_ref),
            ("subjects", Yaml::List(vec![subject])),
        ]),
    ]
}

fn subject(service_account: &str, namespace: Option<&str>) -> Yaml {
    let mut subject =
        vec![("kind".to_owned(), Yaml::from("ServiceAccount")), ("name".to_owned(), Yaml::from(service_account))];
    if let Some(namespace) = namespace {
        subject.push(("namespace".to_owned(), namespace.into()));
    }
    Yaml::Map(subject)
}

/// The right to act as anybody who is in no other groups than these, and its binding. Which users cannot be limited in a
/// useful way: their names are those of the tailnet.
pub(super) fn impersonation(name: &str, namespace: &str, service_account: &str, groups: &[String]) -> [Yaml; 2] {
    let rule = |resource: &str, names: &[String]| {
        let mut rule = vec![("apiGroups", words([""])), ("resources", words([resource]))];
        if !names.is_empty() {
            rule.push(("resourceNames", words(names.iter().cloned())));
        }
        rule.push(("verbs", words(["impersonate"])));
        entries(rule)
    };
    let mut rules = vec![rule("users", &[])];
    // A rule without names would be for all of them.
    if !groups.is_empty() {
        rules.push(rule("groups", groups));
    }
    let subject = subject(service_account, Some(namespace));
    bound("ClusterRole", metadata(name, None), name, Yaml::List(rules), subject)
}
