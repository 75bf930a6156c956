//! What boot may have to do with the Kubernetes API, verb by verb: the one table of it. Pure.
//!
//! `tailpod doctor` asks the API server about each line that the settings need, `tailpod generate manifests` writes
//! the Role from the same lines, and the README shows them.

use std::fmt::Write as _;

use crate::k8s::error::{Resource, Verb};
use crate::settings::{Mode, Settings};

/// One right, and what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission {
    /// The code under which `doctor` reports it.
    pub code: &'static str,
    /// The verb.
    pub verb: Verb,
    /// On what.
    pub resource: Resource,
    /// On which of them.
    pub object: Object,
    /// When it is used at all.
    pub when: When,
    /// What a refusal means.
    pub weight: Weight,
    /// What does not work without it.
    pub without: &'static str,
}

/// On which objects of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// The state Secret.
    State,
    /// The collection: RBAC cannot restrict it by name, or names are not known before.
    Any,
}

/// When a right is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// With a state Secret.
    Secret,
    /// With a state Secret from which a new auth key may come: every mode but one-step.
    KeyInSecret,
    /// When `POD_NAME` and `POD_UID` say what an Event is about.
    Pod,
}

/// What a refusal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Boot does not start.
    Needed,
    /// Boot does not start, unless the Secret exists already.
    NeededOnce,
    /// Boot starts and does less.
    Wanted,
}

/// What the settings say about the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The state Secrets, one for each Pod that shares the Role; empty for none.
    pub secrets: Vec<String>,
    /// Whether a config file alone configures the node.
    pub one_step: bool,
    /// Whether the Pod's name and UID are known.
    pub pod: bool,
}

/// The table, in the order in which boot asks.
pub const PERMISSIONS: &[Permission] = &[
    Permission {
        code: "TP-RBAC-001",
        verb: Verb::Get,
        resource: Resource::Secrets,
        object: Object::State,
        when: When::Secret,
        weight: Weight::Needed,
        without: "boot refuses to start: tailscaled could not read its identity",
    },
    Permission {
        code: "TP-RBAC-002",
        verb: Verb::Update,
        resource: Resource::Secrets,
        object: Object::State,
        when: When::Secret,
        weight: Weight::Needed,
        without: "boot refuses to start: tailscaled could not keep its identity",
    },
    Permission {
        code: "TP-RBAC-003",
        verb: Verb::Patch,
        resource: Resource::Secrets,
        object: Object::State,
        when: When::Secret,
        weight: Weight::Wanted,
        without: "no device keys, no auth key from the Secret, no reissue",
    },
    Permission {
        code: "TP-RBAC-004",
        verb: Verb::Create,
        resource: Resource::Secrets,
        object: Object::Any,
        when: When::Secret,
        weight: Weight::NeededOnce,
        without: "the Secret must exist already",
    },
    // A watch begins with a list, which RBAC allows by name when it asks for that name only.
    Permission {
        code: "TP-RBAC-005",
        verb: Verb::List,
        resource: Resource::Secrets,
        object: Object::State,
        when: When::KeyInSecret,
        weight: Weight::Wanted,
        without: "`tailpod boot` polls for a reissued key instead",
    },
    Permission {
        code: "TP-RBAC-006",
        verb: Verb::Watch,
        resource: Resource::Secrets,
        object: Object::State,
        when: When::KeyInSecret,
        weight: Weight::Wanted,
        without: "`tailpod boot` polls for a reissued key instead",
    },
    Permission {
        code: "TP-RBAC-007",
        verb: Verb::Get,
        resource: Resource::Events,
        object: Object::Any,
        when: When::Pod,
        weight: Weight::Wanted,
        without: "login failures are in the log only",
    },
    Permission {
        code: "TP-RBAC-008",
        verb: Verb::Create,
        resource: Resource::Events,
        object: Object::Any,
        when: When::Pod,
        weight: Weight::Wanted,
        without: "login failures are in the log only",
    },
    Permission {
        code: "TP-RBAC-009",
        verb: Verb::Patch,
        resource: Resource::Events,
        object: Object::Any,
        when: When::Pod,
        weight: Weight::Wanted,
        without: "a login failure that repeats is not counted",
    },
];

/// One rule of a Role, with all the names it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The resource.
    pub resource: Resource,
    /// The objects; empty for all.
    pub names: Vec<String>,
    /// The verbs, in the order of the table.
    pub verbs: Vec<Verb>,
}

// === impl Needs ===

impl Needs {
    /// What these settings need.
    pub fn of(settings: &Settings) -> Self {
        Self {
            secrets: settings.kube.secret.iter().cloned().collect(),
            one_step: matches!(settings.mode, Mode::OneStep(_)),
            pod: settings.pod.name.is_some() && settings.pod.uid.is_some(),
        }
    }

    /// Whether the API server is needed for anything.
    pub fn is_empty(&self) -> bool {
        required_permissions(self).is_empty()
    }
}

/// The lines of the table that these settings need, in its order.
pub fn required_permissions(needs: &Needs) -> Vec<&'static Permission> {
    let uses_secret = !needs.secrets.is_empty();
    let applies = |permission: &&Permission| match permission.when {
        When::Secret => uses_secret,
        When::KeyInSecret => uses_secret && !needs.one_step,
        // Without a Secret boot has no client that could write Events.
        When::Pod => uses_secret && needs.pod,
    };
    PERMISSIONS.iter().filter(applies).collect()
}

/// The smallest Role for these settings.
pub fn rules(needs: &Needs) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for permission in required_permissions(needs) {
        let names = match permission.object {
            Object::State => needs.secrets.clone(),
            Object::Any => Vec::new(),
        };
        match rules.iter_mut().find(|rule| rule.resource == permission.resource && rule.names == names) {
            Some(rule) => rule.verbs.push(permission.verb),
            None => rules.push(Rule { resource: permission.resource, names, verbs: vec![permission.verb] }),
        }
    }
    rules
}

/// The table for the README.
pub fn markdown_table() -> String {
    let mut table = String::from("| Resource | Verb | When | Without it |\n| --- | --- | --- | --- |\n");
    for Permission { verb, resource, object, when, without, .. } in PERMISSIONS {
        let resource = match (object, resource) {
            (Object::State, _) => "the state Secret",
            (Object::Any, Resource::Events) => "Events",
            (Object::Any, _) => "Secrets",
        };
        let when = match when {
            When::Secret => "there is a state Secret",
            When::KeyInSecret => "there is one, and no config file",
            When::Pod => "there is one, and `POD_NAME` and `POD_UID` are set",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(table, "| {resource} | `{verb}` | {when} | {without} |");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(secrets: &[&str], one_step: bool, pod: bool) -> Needs {
        Needs { secrets: secrets.iter().map(|&name| name.to_owned()).collect(), one_step, pod }
    }

    fn shown(needs: &Needs) -> Vec<String> {
        let rule = |rule: &Rule| {
            let verbs = rule.verbs.iter().map(|verb| verb.as_str()).collect::<Vec<_>>().join(",");
            format!("{} {} {verbs}", rule.resource, rule.names.join("+"))
        };
        rules(needs).iter().map(rule).collect()
    }

    #[test]
    fn the_role_is_the_smallest_that_will_do() {
        for (needs, expected) in [
            (needs(&[], false, true), vec![]),
            (needs(&["a"], true, false), vec!["secrets a get,update,patch", "secrets  create"]),
            (needs(&["a"], false, false), vec!["secrets a get,update,patch,list,watch", "secrets  create"]),
            (
                needs(&["a-0", "a-1"], false, true),
                vec!["secrets a-0+a-1 get,update,patch,list,watch", "secrets  create", "events  get,create,patch"],
            ),
        ] {
            assert_eq!(shown(&needs), expected, "{needs:?}");
        }
    }

    #[test]
    fn a_right_to_create_is_never_bound_to_a_name() {
        for permission in PERMISSIONS {
            assert!(permission.verb != Verb::Create || permission.object == Object::Any, "{permission:?}");
        }
    }
}
