//! Who may do what: users, grants, and the reviews that answer questions about them. Pure.
//!
//! The model is RBAC without its objects: an [`Access`] is granted to a user or a group, and a request is allowed
//! when one of its user's grants allows it and none denies it. Members of `system:masters` may do everything.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::status::Status;

const MASTERS: &str = "system:masters";
const AUTHENTICATED: &str = "system:authenticated";
const UNAUTHENTICATED: &str = "system:unauthenticated";

/// Somebody who makes requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The user name: `system:serviceaccount:<namespace>:<name>` for a ServiceAccount.
    pub name: String,
    /// The groups, as the server completes them.
    pub groups: Vec<String>,
}

impl User {
    /// A user in `groups`, beside the group of all who are known.
    pub fn new(name: impl Into<String>, groups: &[&str]) -> Self {
        let mut groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        groups.push(AUTHENTICATED.to_owned());
        Self { name: name.into(), groups }
    }

    /// A ServiceAccount.
    pub fn service_account(namespace: &str, name: &str) -> Self {
        let all = format!("system:serviceaccounts:{namespace}");
        Self::new(format!("system:serviceaccount:{namespace}:{name}"), &["system:serviceaccounts", &all])
    }

    /// Somebody who may do everything.
    pub fn admin() -> Self {
        Self::new("kubernetes-admin", &[MASTERS])
    }

    /// Somebody without a token.
    pub fn anonymous() -> Self {
        Self { name: "system:anonymous".to_owned(), groups: vec![UNAUTHENTICATED.to_owned()] }
    }

    /// The user as reviews show it.
    pub fn info(&self) -> Value {
        json!({"username": self.name, "groups": self.groups})
    }
}

/// Whom an [`Access`] is granted to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The user of that name.
    User(String),
    /// Everybody in that group.
    Group(String),
}

impl From<&User> for Subject {
    fn from(user: &User) -> Self {
        Self::User(user.name.clone())
    }
}

/// Verbs on resources. An empty list of names or namespaces means all, `*` in the others means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// API groups; empty text is the core group.
    pub groups: Vec<String>,
    /// Plurals, with `/<subresource>` where it matters.
    pub resources: Vec<String>,
    /// Verbs in lower case.
    pub verbs: Vec<String>,
    /// Object names. As in RBAC, a rule with names never allows `create`: the name is not known then.
    pub names: Vec<String>,
    /// Namespaces.
    pub namespaces: Vec<String>,
}

impl Rule {
    /// `verbs` on `resources` of the API group `group`.
    pub fn new(group: &str, resources: &[&str], verbs: &[&str]) -> Self {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Self { groups: vec![group.to_owned()], resources: owned(resources), verbs: owned(verbs), ..Self::default() }
    }

    /// The same for the objects called `name` only.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.names.push(name.to_owned());
        self
    }

    /// The same in `namespace` only.
    #[must_use]
    pub fn within(mut self, namespace: &str) -> Self {
        self.namespaces.push(namespace.to_owned());
        self
    }

    fn matches(&self, asked: &Attributes) -> bool {
        let any = |list: &[String], value: &str| list.iter().any(|entry| entry == "*" || entry == value);
        let listed = |list: &[String], value: &str| list.is_empty() || list.iter().any(|entry| entry == value);
        any(&self.groups, &asked.group)
            && any(&self.resources, &asked.resource)
            && any(&self.verbs, &asked.verb)
            && listed(&self.names, &asked.name)
            && listed(&self.namespaces, &asked.namespace)
    }
}

/// A set of rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    allow: Vec<Rule>,
    deny: Vec<Rule>,
}

impl Access {
    /// Nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// Everything.
    pub fn all() -> Self {
        Self::none().and(Rule::new("*", &["*"], &["*"]))
    }

    /// What boot.md 4.5 asks for: get, update, patch on one Secret, create on Secrets, and Events.
    pub fn of_boot(namespace: &str, secret: &str) -> Self {
        Self::none()
            .and(Rule::new("", &["secrets"], &["get", "update", "patch"]).named(secret).within(namespace))
            .and(Rule::new("", &["secrets"], &["create"]).within(namespace))
            .and(Rule::new("", &["events"], &["get", "create", "patch"]).within(namespace))
    }

    /// Also what `rule` allows.
    #[must_use]
    pub fn and(mut self, rule: Rule) -> Self {
        self.allow.push(rule);
        self
    }

    /// But not what `rule` names, whatever else allows it.
    #[must_use]
    pub fn except(mut self, rule: Rule) -> Self {
        self.deny.push(rule);
        self
    }

    fn allows(&self, asked: &Attributes) -> bool {
        self.allow.iter().any(|rule| rule.matches(asked))
    }

    fn denies(&self, asked: &Attributes) -> bool {
        self.deny.iter().any(|rule| rule.matches(asked))
    }
}

/// What somebody wants to do with a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// In lower case.
    pub verb: String,
    /// Empty for the core group.
    pub group: String,
    /// The plural, with `/<subresource>`.
    pub resource: String,
    /// Empty for all namespaces and for resources without.
    pub namespace: String,
    /// Empty for collections.
    pub name: String,
}

impl Attributes {
    fn from_review(attributes: &Value) -> Self {
        let text = |field: &str| attributes[field].as_str().unwrap_or_default().to_owned();
        let resource = match text("subresource") {
            sub if sub.is_empty() => text("resource"),
            sub => format!("{}/{sub}", text("resource")),
        };
        Self { verb: text("verb"), group: text("group"), resource, namespace: text("namespace"), name: text("name") }
    }

    /// The 403 for `user`.
    pub fn forbidden(&self, user: &User) -> Status {
        let place = match self.namespace.as_str() {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace {namespace:?}"),
        };
        let (user, verb, resource, group) = (&user.name, &self.verb, &self.resource, &self.group);
        let what = format!("User {user:?} cannot {verb} resource {resource:?} in API group {group:?} {place}");
        let plural = self.resource.split('/').next().unwrap_or_default();
        Status::forbidden(&self.group, plural, &self.name, &what)
    }
}

/// Tokens, and what their owners may do.
#[derive(Clone, Debug, Default)]
pub struct Users {
    tokens: BTreeMap<String, User>,
    grants: BTreeMap<Subject, Access>,
}

impl Users {
    /// Accepts `token` as `user`.
    pub fn accept(&mut self, token: &str, user: User) {
        self.tokens.insert(token.to_owned(), user);
    }

    /// Accepts `token` no longer.
    pub fn revoke(&mut self, token: &str) {
        self.tokens.remove(token);
    }

    /// Grants `access`, in place of an earlier grant to the same subject.
    pub fn grant(&mut self, subject: Subject, access: Access) {
        self.grants.insert(subject, access);
    }

    /// Whose token that is.
    pub fn owner(&self, token: &str) -> Option<&User> {
        self.tokens.get(token)
    }

    /// Whether `user` may do what is asked.
    pub fn allows(&self, user: &User, asked: &Attributes) -> bool {
        if user.groups.iter().any(|group| group == MASTERS) {
            return true;
        }
        let grants = || self.grants(user);
        grants().any(|access| access.allows(asked)) && !grants().any(|access| access.denies(asked))
    }

    fn grants(&self, user: &User) -> impl Iterator<Item = &Access> {
        let groups = user.groups.iter().cloned().map(Subject::Group);
        groups
            .chain([Subject::from(user)])
            .filter_map(|subject| self.grants.get(&subject))
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// Answers one of the review documents; `kind` as in its path. The answer is the document with its `status`.
    ///
    /// # Errors
    /// 422 when the question is incomplete.
    pub fn review(&self, user: &User, kind: &str, document: &Value) -> Result<Value, Status> {
        let spec = &document["spec"];
        let status = match kind {
            "SelfSubjectAccessReview" => self.access_review(user, kind, spec)?,
            "SubjectAccessReview" => {
                let groups = spec["groups"].as_array().map_or(&[][..], Vec::as_slice);
                let groups = groups.iter().filter_map(Value::as_str).map(str::to_owned).collect();
                let name = spec["user"].as_str().unwrap_or_default().to_owned();
                self.access_review(&User { name, groups }, kind, spec)?
            }
            "SelfSubjectRulesReview" => self.rules(user, spec["namespace"].as_str().unwrap_or_default()),
            "TokenReview" => match spec["token"].as_str().and_then(|token| self.owner(token)) {
                Some(owner) => json!({"authenticated": true, "user": owner.info()}),
                None => json!({"authenticated": false, "error": "invalid bearer token"}),
            },
            _ => json!({"userInfo": user.info()}),
        };
        let mut answer = document.clone();
        if !answer["metadata"].is_object() {
            answer["metadata"] = json!({});
        }
        answer["status"] = status;
        Ok(answer)
    }

    fn access_review(&self, user: &User, kind: &str, spec: &Value) -> Result<Value, Status> {
        let (resource, other) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
        if resource.is_object() == other.is_object() {
            let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            let problem = super::status::FieldProblem::invalid("spec.resourceAttributes", &Value::Null, why);
            return Err(Status::invalid("authorization.k8s.io", kind, "", &[problem]));
        }
        let allowed = if resource.is_object() {
            self.allows(user, &Attributes::from_review(resource))
        } else {
            let path = other["path"].as_str().unwrap_or_default();
            is_readable(path) || user.groups.iter().any(|group| group == MASTERS)
        };
        Ok(json!({ "allowed": allowed }))
    }

    fn rules(&self, user: &User, namespace: &str) -> Value {
        let everything = Access::all();
        let mut grants: Vec<&Access> = self.grants(user).collect();
        if user.groups.iter().any(|group| group == MASTERS) {
            grants.push(&everything);
        }
        let rules: Vec<Value> = grants
            .into_iter()
            .flat_map(|access| &access.allow)
            .filter(|rule| rule.namespaces.is_empty() || rule.namespaces.iter().any(|n| n == namespace))
            .map(|rule| {
                let mut shown = json!({"verbs": rule.verbs, "apiGroups": rule.groups, "resources": rule.resources});
                if !rule.names.is_empty() {
                    shown["resourceNames"] = json!(rule.names);
                }
                shown
            })
            .collect();
        json!({"resourceRules": rules, "nonResourceRules": [], "incomplete": false})
    }
}

/// Whether everybody with a token may read `path`, if it is not an object's: health, version and discovery.
fn is_readable(path: &str) -> bool {
    ["/healthz", "/livez", "/readyz", "/version", "/api", "/apis", "/openapi"]
        .iter()
        .any(|prefix| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(verb: &str, resource: &str, namespace: &str, name: &str) -> Attributes {
        let [verb, resource, namespace, name] = [verb, resource, namespace, name].map(str::to_owned);
        Attributes { verb, group: String::new(), resource, namespace, name }
    }

    #[test]
    fn grants_add_up_and_denials_win() {
        let pod = User::service_account("ts", "proxy");
        let mut users = Users::default();
        users.grant(Subject::from(&pod), Access::of_boot("ts", "state"));
        for (asked, expected) in [
            (asks("get", "secrets", "ts", "state"), true),
            (asks("get", "secrets", "ts", "other"), false),
            (asks("get", "secrets", "elsewhere", "state"), false),
            (asks("create", "secrets", "ts", ""), true),
            (asks("list", "secrets", "ts", ""), false),
            (asks("patch", "events", "ts", "e"), true),
            (asks("get", "pods", "ts", "p"), false),
        ] {
            assert_eq!(users.allows(&pod, &asked), expected, "{asked:?}");
        }
        users.grant(
            Subject::Group("system:serviceaccounts:ts".to_owned()),
            Access::none().and(Rule::new("", &["pods"], &["*"])).except(Rule::new("", &["secrets"], &["patch"])),
        );
        assert!(users.allows(&pod, &asks("get", "pods", "ts", "p")));
        assert!(!users.allows(&pod, &asks("patch", "secrets", "ts", "state")));
        assert!(users.allows(&User::admin(), &asks("patch", "secrets", "ts", "state")));
        assert!(!users.allows(&User::anonymous(), &asks("get", "pods", "ts", "p")));
    }

    #[test]
    fn refusals_read_like_the_real_servers() {
        let user = User::service_account("ts", "proxy");
        for (asked, expected) in [
            (
                asks("get", "secrets", "ts", "x"),
                r#"secrets "x" is forbidden: User "system:serviceaccount:ts:proxy" cannot get resource "secrets" in API group "" in the namespace "ts""#,
            ),
            (
                asks("list", "secrets", "", ""),
                r#"secrets is forbidden: User "system:serviceaccount:ts:proxy" cannot list resource "secrets" in API group "" at the cluster scope"#,
            ),
        ] {
            let status = asked.forbidden(&user);
            assert_eq!((status.code, status.message.as_str()), (403, expected));
        }
    }

    #[test]
    fn reviews() {
        let pod = User::service_account("ts", "proxy");
        let mut users = Users::default();
        users.accept("t", pod.clone());
        users.grant(Subject::from(&pod), Access::of_boot("ts", "state"));
        let ask = |verb: &str| {
            let attributes = json!({"namespace": "ts", "verb": verb, "resource": "secrets", "name": "state"});
            json!({"kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": attributes}})
        };
        for (verb, allowed) in [("get", true), ("update", true), ("patch", true), ("create", true), ("list", false)] {
            let answer = users.review(&pod, "SelfSubjectAccessReview", &ask(verb)).unwrap();
            assert_eq!(answer["status"]["allowed"], allowed, "{verb}");
            assert_eq!(answer["spec"], ask(verb)["spec"]);
        }
        let nothing = users.review(&pod, "SelfSubjectAccessReview", &json!({"spec": {}}));
        assert_eq!(nothing.unwrap_err().code, 422);

        let mut other = ask("get");
        other["spec"]["user"] = "nobody".into();
        assert_eq!(users.review(&pod, "SubjectAccessReview", &other).unwrap()["status"]["allowed"], false);
        let rules = users.review(&pod, "SelfSubjectRulesReview", &json!({"spec": {"namespace": "ts"}})).unwrap();
        assert_eq!(rules["status"]["resourceRules"][0]["resourceNames"], json!(["state"]));
        let token = users.review(&pod, "TokenReview", &json!({"spec": {"token": "t"}})).unwrap();
        assert_eq!(token["status"]["user"]["username"], "system:serviceaccount:ts:proxy");
        let me = users.review(&pod, "SelfSubjectReview", &json!({})).unwrap();
        assert_eq!(me["status"]["userInfo"]["username"], "system:serviceaccount:ts:proxy");
    }
}
