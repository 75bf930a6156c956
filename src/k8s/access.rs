//! What we are allowed to do with the state Secret, asked before anything depends on it.
//!
//! An answer is yes, no, or not known; "not known" never becomes a yes or a no here, and one failed question does not
//! spoil the others. Follows upstream's `kube/kubeclient/client.go` (`CheckSecretPermissions`) in order and wording.

use std::sync::Arc;

use super::Cluster;
use super::error::{Error, Resource, RoleRule, Verb};

/// What an access review said.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Yes.
    Allowed,
    /// No.
    Denied,
    /// The question failed.
    Unknown(Arc<Error>),
}

impl Answer {
    /// A definite yes.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed)
    }

    /// A definite no.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Denied)
    }
}

/// The answers for one Secret.
#[derive(Clone, Debug)]
pub struct Permissions {
    /// The Secret's name.
    pub secret: String,
    /// `get`
    pub get: Answer,
    /// `update`
    pub update: Answer,
    /// `patch`; without it nothing is written (kube-store mode is off).
    pub patch: Answer,
    /// `create`; needed only while the Secret does not exist.
    pub create: Answer,
}

impl Permissions {
    /// Asks about `get`, `update`, `patch` and `create`, in the contract's order. Once the API server cannot be reached, the rest is not asked: each
    /// question would only wait as long again.
    pub async fn probe(cluster: &Cluster, secret: &str) -> Self {
        let mut unreachable = None;
        let get = ask(cluster, secret, Verb::Get, &mut unreachable).await;
        let update = ask(cluster, secret, Verb::Update, &mut unreachable).await;
        let patch = ask(cluster, secret, Verb::Patch, &mut unreachable).await;
        let create = ask(cluster, secret, Verb::Create, &mut unreachable).await;
        Self { secret: secret.to_owned(), get, update, patch, create }
    }

    /// The answers in the contract's order.
    pub fn answers(&self) -> [(Verb, &Answer); 4] {
        [(Verb::Get, &self.get), (Verb::Update, &self.update), (Verb::Patch, &self.patch), (Verb::Create, &self.create)]
    }

    /// One line of the contract for each denied verb that boot cannot do without (`get`, `update`).
    pub fn missing(&self) -> Vec<String> {
        [(Verb::Get, &self.get), (Verb::Update, &self.update)]
            .into_iter()
            .filter(|(_, answer)| answer.is_denied())
            .map(|(verb, _)| format!("missing {verb} permission on secret {}", go_quoted(&self.secret)))
            .collect()
    }

    /// One line of the contract for each question that failed, with its error.
    pub fn failures(&self) -> impl Iterator<Item = (String, &Arc<Error>)> {
        self.answers().into_iter().filter_map(|(verb, answer)| match answer {
            Answer::Unknown(error) => {
                Some((format!("error checking {verb} permission on secret {}", self.secret), error))
            }
            Answer::Allowed | Answer::Denied => None,
        })
    }

    /// The first question that failed because the API server could not be reached.
    pub fn unreachable(&self) -> Option<&Arc<Error>> {
        self.failures().map(|(_, error)| error).find(|error| error.is_unreachable())
    }

    /// Whether the Secret may be written to.
    pub fn can_patch(&self) -> bool {
        self.patch.is_allowed()
    }

    /// Whether a missing Secret may be created.
    pub fn can_create(&self) -> bool {
        self.create.is_allowed()
    }

    /// The Role rules that would turn each denied verb into an allowed one.
    pub fn missing_rules(&self) -> Vec<RoleRule> {
        let denied = |verb: &Verb| self.answers().iter().any(|(asked, answer)| asked == verb && answer.is_denied());
        let named: Vec<_> = [Verb::Get, Verb::Update, Verb::Patch].into_iter().filter(denied).collect();
        let mut rules = Vec::new();
        if !named.is_empty() {
            rules.push(RoleRule::new(Resource::Secrets, Some(&self.secret), named));
        }
        if self.create.is_denied() {
            rules.push(RoleRule::new(Resource::Secrets, None, [Verb::Create]));
        }
        rules
    }
}

async fn ask(cluster: &Cluster, secret: &str, verb: Verb, unreachable: &mut Option<Arc<Error>>) -> Answer {
    if let Some(error) = unreachable {
        return Answer::Unknown(Arc::clone(error));
    }
    match cluster.may(verb, Resource::Secrets, Some(secret)).await {
        Ok(true) => Answer::Allowed,
        Ok(false) => Answer::Denied,
        Err(error) => {
            let error = Arc::new(error);
            if error.is_unreachable() {
                *unreachable = Some(Arc::clone(&error));
            }
            Answer::Unknown(error)
        }
    }
}

/// As Go's `%q` prints a name that Kubernetes accepts.
fn go_quoted(name: &str) -> String {
    format!("{name:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::k8s::error::{Cause, Said};

    fn permissions(get: Answer, update: Answer, patch: Answer, create: Answer) -> Permissions {
        Permissions { secret: "ts".to_owned(), get, update, patch, create }
    }

    fn unknown(error: Error) -> Answer {
        Answer::Unknown(Arc::new(error))
    }

    #[test]
    fn denied_verbs_are_named_as_the_contract_wants_and_come_with_rules() {
        use Answer::{Allowed, Denied};
        let denied = permissions(Denied, Denied, Allowed, Denied);
        assert_eq!(
            denied.missing(),
            ["missing get permission on secret \"ts\"", "missing update permission on secret \"ts\""]
        );
        let rules: Vec<_> = denied.missing_rules().iter().map(ToString::to_string).collect();
        assert_eq!(
            rules,
            [
                "- apiGroups: [\"\"]\n  resources: [\"secrets\"]\n  resourceNames: [\"ts\"]\n  verbs: [\"get\", \"update\"]",
                "- apiGroups: [\"\"]\n  resources: [\"secrets\"]\n  verbs: [\"create\"]",
            ]
        );
        assert!(permissions(Allowed, Allowed, Denied, Denied).missing().is_empty(), "patch and create are optional");
    }

    #[test]
    fn a_failed_create_question_leaves_the_patch_answer_alone() {
        use Answer::Allowed;
        let error = Error::Server { code: 500, source: Said::default() };
        let some = permissions(Allowed, Allowed, Allowed, unknown(error));
        assert!(some.can_patch());
        assert!(!some.can_create());
        assert!(some.unreachable().is_none());
        let lines: Vec<_> = some.failures().map(|(line, _)| line).collect();
        assert_eq!(lines, ["error checking create permission on secret ts"]);
    }

    #[test]
    fn unreachable_is_neither_allowed_nor_denied() {
        let error = Arc::new(Error::Unreachable { server: String::new(), cause: Cause::Broken(String::new()) });
        let answer = || Answer::Unknown(Arc::clone(&error));
        let none = permissions(answer(), answer(), answer(), answer());
        assert!(none.unreachable().is_some());
        assert!(none.missing().is_empty() && none.missing_rules().is_empty());
        assert!(!none.can_patch());
    }
}
