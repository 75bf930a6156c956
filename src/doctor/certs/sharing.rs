//! Whether what replicas share can be found, stored and renewed. Pure.

use std::collections::BTreeMap;

use super::super::finding::{CERTS_LEASE, CERTS_RIGHTS, CERTS_SECRETS, CERTS_SHARING, Code, Finding};
use super::Facts;
use crate::certs::names::Name;
use crate::k8s::error::{Resource, RoleRule, Verb};
use crate::localapi::mask::Version;
use crate::settings::{CertShare, CertWriter, NoShare, group_of};

/// How replicas share certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sharing {
    /// `TS_EXPERIMENTAL_CERT_SHARE`
    pub is_on: bool,
    /// `POD_NAME`
    pub pod: Option<String>,
    /// Whether tailscaled keeps its state in a Secret; nothing when the settings cannot be read.
    pub in_secret: Option<bool>,
    /// `TAILPOD_CERT_WRITER`
    pub writer: Option<String>,
}

impl Sharing {
    /// How the one is chosen that issues; nothing when the variable is misspelled.
    pub fn choice(&self) -> Option<CertWriter> {
        CertWriter::of(self.writer.as_deref())
    }
}

/// A name's TLS Secret, as far as sharing depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretFacts {
    /// `type`
    pub kind: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it is being deleted.
    pub is_stopping: bool,
}

/// A right, and whether we have it; nothing when it could not be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    /// The verb.
    pub verb: Verb,
    /// On what.
    pub resource: Resource,
    /// On which object.
    pub name: Option<String>,
    /// Whether we have it.
    pub is_allowed: Option<bool>,
}

/// The first release that shares certificates.
const SHARES: (u32, u32) = (1, 82);

pub(super) fn mode(sharing: &Sharing, version: Option<Version>) -> Finding {
    if !sharing.is_on {
        return CERTS_SHARING.ok("certificates are not shared: tailscaled keeps its own");
    }
    if version.is_some_and(|version| (version.major, version.minor) < SHARES) {
        let sentence =
            "TS_EXPERIMENTAL_CERT_SHARE is set, and this tailscaled cannot share: 1.82 is the first that can";
        return CERTS_SHARING.failure(sentence, "FROM tailscale/tailscale:stable");
    }
    if sharing.in_secret == Some(false) {
        let sentence = "TS_EXPERIMENTAL_CERT_SHARE is set, and tailscaled's state is not in a Secret";
        return CERTS_SHARING.failure(sentence, "env:\n  - name: TS_KUBE_SECRET\n    value: $(POD_NAME)");
    }
    let Some(writer) = sharing.choice() else {
        let sentence = format!("TAILPOD_CERT_WRITER is `{}`", sharing.writer.as_deref().unwrap_or_default());
        return CERTS_SHARING.failure(sentence, format!("set it to one of {}", CertWriter::ALL.join(", ")));
    };
    let pod = sharing.pod.as_deref().unwrap_or_default();
    match CertShare::of(sharing.pod.as_deref(), writer) {
        Err(NoShare::NoName) => CERTS_SHARING.failure(
            "TS_EXPERIMENTAL_CERT_SHARE is set without POD_NAME: every replica only reads, and nobody issues",
            "env:\n  - name: POD_NAME\n    valueFrom: {fieldRef: {fieldPath: metadata.name}}",
        ),
        Err(NoShare::NoOrdinal) => CERTS_SHARING
            .warning(format!("`{pod}` has no ordinal: no Pod of a StatefulSet, so nobody may be the one that issues"))
            .remedy("run the replicas as a StatefulSet, or set TAILPOD_CERT_WRITER=lease"),
        Ok(CertShare::Elected) => CERTS_SHARING.ok("certificates are shared; the holder of the Lease issues"),
        Ok(CertShare::Writes) => CERTS_SHARING.ok(format!("certificates are shared, and `{pod}` issues them")),
        Ok(CertShare::Reads) if writer == CertWriter::Off => {
            CERTS_SHARING.ok("certificates are shared, and no replica issues them: TAILPOD_CERT_WRITER is `off`")
        }
        Ok(CertShare::Reads) => {
            let group = group_of(pod).unwrap_or(pod);
            CERTS_SHARING.ok(format!("certificates are shared; `{pod}` reads what `{group}-0` issues"))
        }
    }
}

pub(super) fn secrets(facts: &Facts) -> Vec<Finding> {
    let Some(secrets) = &facts.secrets else {
        return vec![CERTS_SECRETS.skipped("certificates are not shared, or their Secrets could not be read")];
    };
    let mut found = Vec::new();
    for (name, secret) in secrets {
        if name.is_wildcard() {
            let remedy = "serve the names one by one: a wildcard is no name of a Secret";
            found.push(CERTS_SECRETS.failure(format!("{name} cannot be shared"), remedy));
            continue;
        }
        let Some(secret) = secret else {
            let sentence = format!("Secret `{name}` does not exist: what is issued for it could not be stored");
            found.push(CERTS_SECRETS.failure(sentence, manifest(name, &facts.sharing)));
            continue;
        };
        let wrong = wrong_with(name, secret, &facts.sharing);
        if !wrong.is_empty() {
            let sentence = format!("Secret `{name}`: {}", wrong.join("; "));
            found.push(CERTS_SECRETS.warning(sentence).remedy(manifest(name, &facts.sharing)));
        }
    }
    if found.is_empty() {
        found.push(match secrets.len() {
            0 => CERTS_SECRETS.skipped("no name is shared"),
            count => CERTS_SECRETS.ok(format!("all {count} TLS Secrets are there")),
        });
    }
    found
}

fn wrong_with(name: &Name, secret: &SecretFacts, sharing: &Sharing) -> Vec<String> {
    let mut wrong = Vec::new();
    if secret.is_stopping {
        wrong.push("it is being deleted".to_owned());
    }
    if secret.kind.as_deref() != Some("kubernetes.io/tls") {
        wrong.push(format!("its type is `{}`", secret.kind.as_deref().unwrap_or("Opaque")));
    }
    for (label, value) in labels(name, sharing) {
        match secret.labels.get(label) {
            Some(found) if *found == value => {}
            Some(found) => wrong.push(format!("label `{label}` is `{found}`")),
            None => wrong.push(format!("label `{label}` is missing")),
        }
    }
    wrong
}

/// The labels by which replicas find it.
fn labels(name: &Name, sharing: &Sharing) -> Vec<(&'static str, String)> {
    let mut labels = vec![
        ("tailscale.com/managed", "true".to_owned()),
        ("tailscale.com/secret-type", "certs".to_owned()),
        ("tailscale.com/domain", name.label()),
    ];
    if let Some(group) = sharing.pod.as_deref().and_then(group_of) {
        labels.insert(2, ("tailscale.com/proxy-group", group.to_owned()));
    }
    labels
}

fn manifest(name: &Name, sharing: &Sharing) -> String {
    let lines: Vec<_> =
        labels(name, sharing).iter().map(|(label, value)| format!("    {label}: \"{value}\"\n")).collect();
    let labels = lines.concat();
    format!(
        "kubectl apply -f - <<'EOF'\napiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata:\n  name: {name}\n  \
         labels:\n{labels}data: {{tls.crt: \"\", tls.key: \"\"}}\nEOF"
    )
}

pub(super) fn rights(facts: &Facts) -> Finding {
    if facts.rights.is_empty() {
        return CERTS_RIGHTS.skipped("certificates are not shared");
    }
    lacking(CERTS_RIGHTS, &facts.rights, "what is issued could not be stored", "the Role allows what storing needs")
}

pub(super) fn lease(facts: &Facts) -> Finding {
    if facts.lease.is_empty() {
        return CERTS_LEASE.skipped("no Lease decides who issues");
    }
    lacking(CERTS_LEASE, &facts.lease, "the first replica issues instead", "the Role allows what the Lease needs")
}

fn lacking(code: &Code, rights: &[Right], without: &str, fine: &str) -> Finding {
    let denied: Vec<_> = rights.iter().filter(|right| right.is_allowed == Some(false)).collect();
    if denied.is_empty() {
        let unknown = rights.iter().any(|right| right.is_allowed.is_none());
        return if unknown { code.skipped("the API server could not be asked") } else { code.ok(fine) };
    }
    let what = |right: &Right| match &right.name {
        Some(name) => format!("{} {} `{name}`", right.verb, right.resource),
        None => format!("{} {}", right.verb, right.resource),
    };
    let all = denied.iter().map(|right| what(right)).collect::<Vec<_>>().join(", ");
    let mut rules: Vec<RoleRule> = Vec::new();
    for right in denied {
        let rule = RoleRule::new(right.resource, right.name.as_deref(), [right.verb]);
        match rules.iter_mut().find(|known| known.resource == rule.resource && known.name == rule.name) {
            Some(known) => known.verbs.extend(rule.verbs),
            None => rules.push(rule),
        }
    }
    let rules = rules.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    code.failure(format!("the Role does not allow {all}: {without}"), rules)
}

#[cfg(test)]
mod tests {
    use super::super::super::finding::Level;
    use super::*;

    fn pod(name: Option<&str>) -> Sharing {
        Sharing { is_on: true, pod: name.map(str::to_owned), in_secret: Some(true), writer: None }
    }

    #[test]
    fn a_mode_that_lets_nobody_issue_is_a_failure() {
        let version = |minor| Some(Version { major: 1, minor, patch: 0 });
        let by = |writer: &str| Sharing { writer: Some(writer.to_owned()), ..pod(Some("ts-1")) };
        for (sharing, minor, level, part) in [
            (Sharing::default(), 102, Level::Ok, "not shared"),
            (pod(None), 102, Level::Failure, "nobody issues"),
            (pod(Some("ts-0")), 102, Level::Ok, "`ts-0` issues"),
            (pod(Some("ts-12")), 102, Level::Ok, "what `ts-0` issues"),
            (by("lease"), 102, Level::Ok, "holder of the Lease"),
            (by("ordinal"), 102, Level::Ok, "what `ts-0` issues"),
            (by("off"), 102, Level::Ok, "no replica issues"),
            (by("Lease"), 102, Level::Failure, "TAILPOD_CERT_WRITER is `Lease`"),
            (Sharing { pod: None, ..by("lease") }, 102, Level::Failure, "nobody issues"),
            (pod(Some("ts-5d9f-x2")), 102, Level::Warning, "no ordinal"),
            (pod(Some("ts-0")), 80, Level::Failure, "cannot share"),
            (Sharing { in_secret: Some(false), ..pod(Some("ts-0")) }, 102, Level::Failure, "not in a Secret"),
        ] {
            let finding = mode(&sharing, version(minor));
            assert!(finding.level == level && finding.sentence.contains(part), "{sharing:?}: {finding:?}");
        }
    }

    fn secrets_of(facts: &Facts) -> (Level, String, String) {
        let found = secrets(facts);
        assert_eq!(found.len(), 1, "{found:?}");
        (found[0].level, found[0].sentence.clone(), found[0].remedy.clone().unwrap_or_default())
    }

    #[test]
    fn a_secret_that_replicas_would_not_find_says_why() {
        let name = Name::parse("a.t.ts.net").unwrap();
        let right = |sharing: &Sharing| SecretFacts {
            kind: Some("kubernetes.io/tls".to_owned()),
            labels: labels(&name, sharing).into_iter().map(|(label, value)| (label.to_owned(), value)).collect(),
            is_stopping: false,
        };
        let sharing = pod(Some("ts-1"));
        let judged = |name: &Name, secret: Option<SecretFacts>| {
            let secrets = Some([(name.clone(), secret)].into());
            secrets_of(&Facts { sharing: pod(Some("ts-1")), secrets, ..Facts::default() })
        };
        assert_eq!(judged(&name, Some(right(&sharing))).0, Level::Ok);
        let (level, sentence, remedy) = judged(&name, None);
        assert!(level == Level::Failure && sentence.contains("does not exist"), "{sentence}");
        assert!(remedy.contains("tailscale.com/proxy-group: \"ts\"\n"), "{remedy}");
        let mut wrong = right(&sharing);
        wrong.labels.insert("tailscale.com/proxy-group".to_owned(), "other".to_owned());
        (wrong.kind, wrong.is_stopping) = (None, true);
        let (level, sentence, _) = judged(&name, Some(wrong));
        assert_eq!(level, Level::Warning);
        assert_eq!(
            sentence,
            "Secret `a.t.ts.net`: it is being deleted; its type is `Opaque`; label `tailscale.com/proxy-group` is `other`"
        );
        let wildcard = Name::parse("*.a.t.ts.net").unwrap();
        assert_eq!(judged(&wildcard, None).0, Level::Failure);
    }

    #[test]
    fn rights_that_lack_come_as_rules() {
        let right = |verb, name: &str, is_allowed| Right {
            verb,
            resource: Resource::Secrets,
            name: Some(name.to_owned()),
            is_allowed,
        };
        let judged = |rights: Vec<Right>| super::rights(&Facts { rights, ..Facts::default() });
        assert_eq!(judged(Vec::new()).level, Level::Skipped);
        assert_eq!(judged(vec![right(Verb::Get, "a", Some(true))]).level, Level::Ok);
        assert_eq!(judged(vec![right(Verb::Get, "a", None)]).level, Level::Skipped);
        let lacks = judged(vec![right(Verb::Get, "a", Some(false)), right(Verb::Patch, "a", Some(false))]);
        assert_eq!(
            (lacks.level, lacks.sentence.as_str()),
            (
                Level::Failure,
                "the Role does not allow get secrets `a`, patch secrets `a`: what is issued could not be stored"
            )
        );
        assert_eq!(
            lacks.remedy.as_deref(),
            Some(
                "- apiGroups: [\"\"]\n  resources: [\"secrets\"]\n  resourceNames: [\"a\"]\n  verbs: [\"get\", \"patch\"]"
            )
        );
    }
}
