//! What the answers to access reviews mean for these settings. Pure.

use super::finding::{Code, Finding, Level, find};
use crate::k8s::error::Resource;
use crate::manifests::Account;
use crate::manifests::permissions::{Needs, Object, Permission, Weight};

/// What the API server said about one right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reviewed {
    /// Yes.
    Allowed,
    /// No.
    Denied,
    /// The question failed, with its reason.
    Unknown(String),
}

/// What the remedies need to know.
#[derive(Clone, Debug)]
pub(super) struct Who<'a> {
    /// The namespace of the Secret.
    pub(super) namespace: &'a str,
    /// Namespace and name of our service account; `None` when we are something else, or nobody knows.
    pub(super) service_account: Option<(&'a str, &'a str)>,
    /// What the settings need.
    pub(super) needs: &'a Needs,
}

impl Who<'_> {
    /// Role and binding with everything the settings need, to paste as they are. A Role of its own name: what others
    /// allow stays allowed.
    pub(super) fn role(&self) -> String {
        let secret = self.needs.secrets.first().map_or("state", String::as_str);
        let (home, name) = self.service_account.unwrap_or((self.namespace, "SERVICE-ACCOUNT-OF-THE-POD"));
        let account = Account { namespace: Some(self.namespace), service_account: name, needs: self.needs.clone() };
        let mut text = account.role_text(&format!("tailpod-{secret}"));
        if home != self.namespace {
            // The binding is in the Secret's namespace, the service account is not.
            let (ours, theirs) = (format!("namespace: {}\n", self.namespace), format!("namespace: {home}\n"));
            if let Some(at) = text.rfind(&ours) {
                text.replace_range(at..at + ours.len(), &theirs);
            }
        }
        format!("kubectl apply -f - <<'EOF'\n{text}EOF")
    }
}

/// Judges one right. `exists` says whether the Secret is there, as far as that is known.
pub(super) fn judge(permission: &Permission, reviewed: &Reviewed, exists: Option<bool>, who: &Who<'_>) -> Finding {
    let code =
        find(permission.code).unwrap_or(Code { code: permission.code, group: super::finding::Group::Rbac, about: "" });
    let what = what(permission, who.needs);
    match reviewed {
        Reviewed::Allowed => code.ok(format!("may {} {what}", permission.verb)),
        Reviewed::Unknown(reason) => {
            code.warning(format!("it is not known whether we may {} {what}: {reason}", permission.verb)).remedy(
                "the API server did not answer the question; run `tailpod doctor` again, then look at the API server",
            )
        }
        Reviewed::Denied => {
            let level = match (permission.weight, exists) {
                (Weight::Needed, _) | (Weight::NeededOnce, Some(false)) => Level::Failure,
                // What exists need not be made.
                (Weight::NeededOnce, Some(true)) => {
                    return code.ok(format!("may not {} {what}, and need not: the Secret exists", permission.verb));
                }
                (Weight::NeededOnce, None) | (Weight::Wanted, _) => Level::Warning,
            };
            let sentence = format!("may not {} {what}: {}", permission.verb, permission.without.replace('`', ""));
            code.finding(level, sentence).remedy(who.role())
        }
    }
}

/// Judges a dry run of boot's patch. `Ok(false)` means that there is no Secret to patch.
pub(super) fn judge_dry_run(outcome: &Result<bool, String>, who: &Who<'_>) -> Finding {
    let code = super::finding::RBAC_DRY_RUN;
    match outcome {
        Ok(true) => code.ok("a change of the state Secret would be accepted"),
        Ok(false) => code.skipped("there is no Secret yet that could be changed"),
        Err(reason) => code.failure(
            format!("a change of the state Secret would be refused: {reason}"),
            format!("# unless an admission webhook or policy refuses it, the Role is what lacks:\n{}", who.role()),
        ),
    }
}

fn what(permission: &Permission, needs: &Needs) -> String {
    match (permission.object, permission.resource) {
        (Object::State, _) => format!("Secret `{}`", needs.secrets.join("`, `")),
        (Object::Any, Resource::Events) => "Events".to_owned(),
        (Object::Any, _) => "Secrets".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifests::permissions::PERMISSIONS;

    #[test]
    fn a_denial_weighs_what_the_table_says() {
        let needs = Needs { secrets: vec!["ts".to_owned()], one_step: false, pod: true };
        let who = Who { namespace: "ns", service_account: Some(("ns", "proxy")), needs: &needs };
        let level = |at: usize, exists| judge(&PERMISSIONS[at], &Reviewed::Denied, exists, &who).level;
        for (at, exists, expected) in [
            (0, None, Level::Failure),
            (1, Some(true), Level::Failure),
            (2, Some(true), Level::Warning),
            (3, Some(true), Level::Ok),
            (3, Some(false), Level::Failure),
            (3, None, Level::Warning),
            (4, None, Level::Warning),
            (5, None, Level::Warning),
            (7, None, Level::Warning),
        ] {
            assert_eq!(level(at, exists), expected, "{:?}", PERMISSIONS[at]);
        }
        for permission in PERMISSIONS {
            assert_eq!(judge(permission, &Reviewed::Allowed, None, &who).level, Level::Ok);
            let unknown = judge(permission, &Reviewed::Unknown("no answer".to_owned()), None, &who);
            assert_eq!(unknown.level, Level::Warning, "not known is neither yes nor no");
        }
    }

    #[test]
    fn the_role_binds_the_account_that_we_are() {
        let needs = Needs { secrets: vec!["ts".to_owned()], one_step: true, pod: false };
        let role = |account| Who { namespace: "ns", service_account: account, needs: &needs }.role();
        let text = role(Some(("ns", "proxy")));
        assert!(text.contains("resourceNames: [\"ts\"]\n    verbs: [\"get\", \"update\", \"patch\"]"), "{text}");
        assert!(text.contains("    name: proxy\n    namespace: ns\n"), "{text}");
        assert!(!text.contains("events"), "{text}");
        let text = role(Some(("elsewhere", "proxy")));
        assert!(text.contains("    name: proxy\n    namespace: elsewhere\n"), "{text}");
        assert_eq!(text.matches("namespace: ns\n").count(), 2, "{text}");
        assert!(role(None).contains("SERVICE-ACCOUNT-OF-THE-POD"));
    }
}
