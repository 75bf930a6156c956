//! What is wrong with a node, its Pod and its way to the cluster: small checks, each with a code and a remedy.
//!
//! [`examine`] works in any Pod, permitted or not, as any user, and changes nothing. Every check has a deadline and
//! the whole ends within [`LIMIT`], whatever hangs: a check that was not reached is reported as skipped, with the
//! reason. The order of findings is the order of [`finding::all`].

pub mod certs;
mod cluster;
mod daemon;
mod dns;
pub mod environment;
pub mod finding;
pub mod host;
mod memory;
mod rbac;
mod rules;
mod token;

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::timeout;

use self::environment::FileState;
use self::finding::{Code, Finding, Group, Level};
use crate::manifests::permissions::{Needs, required_permissions};
use crate::settings::{KubeAccess, Problems, Settings};

/// The whole of it.
pub const LIMIT: Duration = Duration::from_secs(18);

/// A name lookup.
const LOOKUP_LIMIT: Duration = Duration::from_secs(3);

/// What is examined.
#[derive(Debug)]
pub struct Subject {
    /// The environment's meaning, or what is wrong with it.
    pub settings: Result<Settings, Problems>,
    /// How the API server is reached; `None` when no way leads there.
    pub access: Option<KubeAccess>,
    /// The namespace, if not that of the Pod or of the context.
    pub namespace: Option<String>,
    /// What these settings need of the API server.
    pub needs: Needs,
    /// tailscaled's socket.
    pub socket: PathBuf,
    /// The capability version that boot works with.
    pub capver: u32,
    /// `POD_UID`
    pub pod_uid: Option<String>,
    /// The files that the settings name, those of the host left out.
    pub files: Vec<FileState>,
    /// What is wanted of the host; `None` in userspace mode.
    pub host: Option<host::Wanted>,
    /// The control server that the settings name.
    pub control: Option<String>,
}

/// Which checks are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Only {
    /// A group.
    Group(Group),
    /// One check.
    Code(&'static str),
}

impl std::str::FromStr for Only {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(group) = Group::ALL.into_iter().find(|group| group.name().eq_ignore_ascii_case(text)) {
            return Ok(Self::Group(group));
        }
        if let Some(code) = finding::all().into_iter().find(|code| code.code.eq_ignore_ascii_case(text)) {
            return Ok(Self::Code(code.code));
        }
        let groups = Group::ALL.map(Group::name).join(", ");
        Err(format!("no such check: a code like TP-RBAC-002, or one of {groups}"))
    }
}

impl Only {
    /// Whether this check is meant.
    pub fn matches(&self, code: &Code) -> bool {
        match self {
            Self::Group(group) => code.group == *group,
            Self::Code(wanted) => code.code == *wanted,
        }
    }
}

/// Examines; nothing in `only` means everything. `certs` finds what is about certificates, if that is wanted.
pub async fn examine(subject: &Subject, only: &[Only], certs: impl Future<Output = Vec<Finding>>) -> Vec<Finding> {
    let wanted = |code: &Code| only.is_empty() || only.iter().any(|only| only.matches(code));
    let any = |groups: &[Group]| finding::all().iter().any(|code| groups.contains(&code.group) && wanted(code));
    let cluster = async {
        if !any(&[Group::Api, Group::Rbac, Group::Clock]) {
            return Vec::new();
        }
        timeout(LIMIT, cluster::check(subject)).await.unwrap_or_default()
    };
    let daemon = async {
        if !any(&[Group::Daemon, Group::Serve, Group::Dns]) {
            return Vec::new();
        }
        let (mut found, learned) = daemon::check(subject).await;
        let control = learned.control.as_deref().or(subject.control.as_deref()).unwrap_or(dns::CONTROL);
        if any(&[Group::Dns]) {
            found.extend(dns::check(control, learned.runs, LOOKUP_LIMIT).await);
        }
        found
    };
    let daemon = async { timeout(LIMIT, daemon).await.unwrap_or_default() };
    let certs =
        async { if any(&[Group::Certs]) { timeout(LIMIT, certs).await.unwrap_or_default() } else { Vec::new() } };
    let host = async { if any(&[Group::Host]) { Box::pin(host::check(subject)).await } else { Vec::new() } };
    let (cluster, daemon, certs, host) = tokio::join!(cluster, daemon, certs, host);
    let mut found = environment::judge(subject.settings.as_ref(), &subject.files);
    found.extend(cluster);
    found.extend(daemon);
    found.extend(certs);
    found.extend(host);
    found.extend(memory::check());
    complete(&found, &finding::all(), &skipped(subject))
        .into_iter()
        .filter(|finding| wanted(&code_of(finding)))
        .collect()
}

fn code_of(finding: &Finding) -> Code {
    Code { code: finding.code, group: finding.group, about: "" }
}

/// Why checks may have been left out that nothing failed before.
fn skipped(subject: &Subject) -> Vec<(&'static str, &'static str)> {
    let required: Vec<_> = required_permissions(&subject.needs).iter().map(|permission| permission.code).collect();
    let without_way = subject.access.is_none();
    let reason = |code: &Code| match code.group {
        Group::Api | Group::Rbac | Group::Clock if without_way => {
            Some("no way leads to a cluster: no service account, no kubeconfig")
        }
        Group::Rbac => cluster::without_secret(&subject.needs).or_else(|| {
            (code.code != finding::RBAC_DRY_RUN.code && !required.contains(&code.code))
                .then_some("these settings do not need it")
        }),
        Group::Env if subject.settings.is_err() => Some("the settings cannot be read"),
        _ => None,
    };
    finding::all().iter().filter_map(|code| Some((code.code, reason(code)?))).collect()
}

/// Puts findings in order and adds one for each check that found nothing: skipped, because of a reason that is known,
/// or because of the failure before it. Pure.
fn complete(found: &[Finding], codes: &[Code], reasons: &[(&str, &str)]) -> Vec<Finding> {
    let mut complete: Vec<Finding> = Vec::new();
    for code in codes {
        let mut own: Vec<_> = found.iter().filter(|finding| finding.code == code.code).cloned().collect();
        if own.is_empty() {
            let known =
                reasons.iter().find(|(reasoned, _)| *reasoned == code.code).map(|(_, reason)| (*reason).to_owned());
            // What failed last lies in the way: of the same group, or of the one that leads to it.
            let leads_here = |group: Group| {
                group == code.group
                    || matches!(
                        (group, code.group),
                        (Group::Api, Group::Rbac | Group::Clock) | (Group::Daemon, Group::Serve)
                    )
            };
            let cause = complete
                .iter()
                .rev()
                .find(|finding| finding.level == Level::Failure && leads_here(finding.group))
                .map(|finding| format!("not reached because of {}", finding.code));
            own.push(code.skipped(known.or(cause).unwrap_or_else(|| "no answer in time".to_owned())));
        }
        complete.append(&mut own);
    }
    complete
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::{API_NAME, API_TCP};

    #[test]
    fn every_check_is_reported_and_says_why_it_was_not_reached() {
        let found = vec![API_TCP.failure("no", "x"), API_NAME.ok("yes")];
        let all = complete(&found, &finding::all(), &[("TP-RBAC-005", "these settings do not need it")]);
        assert_eq!(all.len(), finding::all().len());
        let of = |code: &str| all.iter().find(|finding| finding.code == code).unwrap();
        assert_eq!(of("TP-API-002").level, Level::Ok);
        assert_eq!(of("TP-API-004").sentence, "not reached because of TP-API-003");
        assert_eq!(of("TP-RBAC-001").sentence, "not reached because of TP-API-003");
        assert_eq!(of("TP-RBAC-005").sentence, "these settings do not need it");
        assert_eq!(of("TP-DAEMON-003").sentence, "no answer in time");
        assert!(all.windows(2).all(|pair| pair[0].group <= pair[1].group));
    }

    #[test]
    fn checks_are_chosen_by_group_and_by_code() {
        assert_eq!("rbac".parse(), Ok(Only::Group(Group::Rbac)));
        assert_eq!("tp-rbac-002".parse(), Ok(Only::Code("TP-RBAC-002")));
        assert!("TP-RBAC-999".parse::<Only>().unwrap_err().contains("env, api, rbac, clock"));
        let code = finding::find("TP-RBAC-002").unwrap();
        assert!(Only::Group(Group::Rbac).matches(&code) && !Only::Code("TP-RBAC-001").matches(&code));
    }
}
