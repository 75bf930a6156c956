//! `tailpod doctor`: the environment and the flags become a subject, the findings become lines or JSON.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Serialize;

use super::certs::doctor_findings;
use super::interruptible;
use crate::boot::files::{check_files, needed_files};
use crate::boot::host::{Forwarding, tun_path};
use crate::cli::cluster::ClusterArgs;
use crate::cli::exit::ExitStatus;
use crate::cli::output::{Ink, Output};
use crate::doctor::environment::FileState;
use crate::doctor::finding::{Finding, Level};
use crate::doctor::{Only, Subject, examine, host};
use crate::escape::escape;
use crate::manifests::permissions::Needs;
use crate::settings::{self, CAPVER, KubeAccess, Persona, ProcessEnv, Settings, Tun, Vars, vars};

/// Files that other checks look at more closely.
const ELSEWHERE: [&str; 4] = ["TUN device", "IP forwarding", "service account", "kubeconfig"];
/// What only matters to a boot that is still to come.
const BEFORE_BOOT: [&str; 2] = ["state directory", "directory of the socket"];

/// What to look at.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Find out why a node is not up.\n\n\
        Looks at everything a node depends on: its settings, the way to the API server and what the Role allows there, \
        tailscaled, the kernel, names, memory. Changes nothing, needs no root, works in any Pod, and ends within 20 \
        seconds. Each line has a stable code; each failure has what to paste. Exit code 3 when there are failures.",
    after_long_help = "\
Examples:
  tailpod doctor                                Look at everything
  kubectl exec tailpod-0 -- tailpod doctor      The same, from outside of the Pod
  tailpod doctor --only rbac                    Only what the Role allows
  tailpod doctor --only TP-RBAC-002,daemon      One check and a group
  tailpod doctor --json                         For machines"
)]
pub struct Args {
    /// Only these checks: codes, or groups: env, api, rbac, clock, daemon, host, dns, memory, serve, certs
    #[arg(long, value_name = "CODE|GROUP", value_delimiter = ',')]
    only: Vec<Only>,

    #[command(flatten)]
    cluster: ClusterArgs,
}

/// What `--json` prints.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report<'f> {
    healthy: bool,
    counts: Counts,
    findings: &'f [Finding],
}

#[derive(Serialize)]
struct Counts {
    ok: usize,
    warning: usize,
    failure: usize,
    skipped: usize,
}

/// Looks, and says what was found.
pub async fn run(args: &Args, out: &Output) -> anyhow::Result<ExitStatus> {
    let vars = ProcessEnv::capture();
    let subject = subject(&args.cluster, &vars);
    let as_json = |document: &Report<'_>| if out.is_json() { out.json(document).map(|()| true) } else { Ok(false) };
    let looks = async {
        let findings = examine(&subject, &args.only, Box::pin(doctor_findings(&args.cluster, &vars))).await;
        report(&findings, as_json, out)
    };
    interruptible(Box::pin(looks)).await
}

/// Says what was found: as a document, unless `write` says that there is none to be.
pub(super) fn report(
    findings: &[Finding],
    write: impl FnOnce(&Report<'_>) -> anyhow::Result<bool>,
    out: &Output,
) -> anyhow::Result<ExitStatus> {
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let counts = Counts {
        ok: count(Level::Ok),
        warning: count(Level::Warning),
        failure: count(Level::Failure),
        skipped: count(Level::Skipped),
    };
    let healthy = counts.failure == 0;
    let Counts { ok, warning, failure, skipped } = counts;
    if !write(&Report { healthy, counts, findings })? {
        out.raw(&text(findings, out))?;
        out.note(format_args!("{ok} ok, {warning} warnings, {failure} failures, {skipped} skipped"));
    }
    Ok(if healthy { ExitStatus::Done } else { ExitStatus::No })
}

/// What is examined, as the environment and the flags name it.
pub(super) fn subject(cluster: &ClusterArgs, vars: &dyn Vars) -> Subject {
    let value = |var: &vars::Var| vars.get(var.name).ok().flatten().filter(|value| !value.is_empty());
    let settings = settings::read(vars, Persona::Tailpod);
    let secret = match &cluster.secret {
        Some(secret) => Some(secret.name.clone()),
        None => match &settings {
            Ok(settings) => settings.kube.secret.clone(),
            Err(_) => default_secret(vars),
        },
    };
    let needs = Needs {
        secrets: secret.into_iter().collect(),
        one_step: settings::is_one_step(vars),
        pod: value(vars::POD_NAME).is_some() && value(vars::POD_UID).is_some(),
    };
    // A service account that is not mounted is a finding, not the lack of a way, where boot would use it.
    let in_pod = value(vars::KUBERNETES_SERVICE_HOST).is_some() && !needs.secrets.is_empty();
    let access = cluster.access(vars).ok().or_else(|| in_pod.then(|| settings::in_cluster(vars)));
    let secret_namespace = cluster.secret.as_ref().and_then(|secret| secret.namespace.clone());
    let socket = match &settings {
        Ok(settings) => settings.daemon.socket.clone(),
        Err(_) => PathBuf::from(value(vars::TS_SOCKET).unwrap_or_else(|| vars::TS_SOCKET.default.to_owned())),
    };
    let search_path = vars.get("PATH").ok().flatten();
    let settings_ref = settings.as_ref().ok();
    Subject {
        access,
        namespace: secret_namespace.or_else(|| cluster.namespace.clone()),
        needs,
        capver: settings_ref.map_or(CAPVER, |settings| settings.capver),
        pod_uid: value(vars::POD_UID),
        files: settings_ref.map(|settings| files(settings, search_path.as_deref())).unwrap_or_default(),
        host: settings_ref.filter(|settings| settings.daemon.tun == Tun::Kernel).map(|settings| {
            let forwarding = Forwarding::wanted(&settings.forward, &settings.node.routes).unwrap_or_default();
            host::Wanted {
                tun: tun_path(&settings.root),
                sysctls: forwarding.sysctls(&settings.root),
                firewall: value(vars::TS_DEBUG_FIREWALL_MODE),
                search_path: search_path.clone(),
                root: settings.root.clone(),
            }
        }),
        control: settings_ref.and_then(|settings| login_server(&settings.node.extra_args)),
        socket,
        settings,
    }
}

/// The Secret that boot would use, of an environment whose other problems keep it from being read.
pub(super) fn default_secret(vars: &dyn Vars) -> Option<String> {
    let set = |var: &vars::Var| vars.get(var.name).ok().flatten();
    let in_kubernetes = set(vars::KUBERNETES_SERVICE_HOST).is_some_and(|host| !host.is_empty());
    let default = in_kubernetes.then(|| vars::TS_KUBE_SECRET.default.to_owned());
    set(vars::TS_KUBE_SECRET).or(default).filter(|name| !name.is_empty())
}

fn files(settings: &Settings, search_path: Option<&str>) -> Vec<FileState> {
    let has_booted = settings.daemon.socket.exists();
    let in_cluster = matches!(settings.kube.access, KubeAccess::InCluster { .. });
    let checks = check_files(needed_files(settings), search_path).into_iter();
    let matters = |purpose: &str| {
        !(ELSEWHERE.contains(&purpose) && (in_cluster || purpose != "kubeconfig"))
            && !(has_booted && BEFORE_BOOT.contains(&purpose))
    };
    checks
        .filter(|check| matters(check.purpose))
        .map(|check| FileState { path: check.path, purpose: check.purpose, problem: check.problem })
        .collect()
}

/// The value of `--login-server` among the flags of `tailscale up`.
fn login_server(args: &[String]) -> Option<String> {
    let mut words = args.iter();
    while let Some(word) = words.next() {
        let flag = word.trim_start_matches('-');
        if flag == "login-server" {
            return words.next().cloned();
        }
        if let Some(value) = flag.strip_prefix("login-server=") {
            return Some(value.to_owned());
        }
    }
    None
}

/// One line for each finding, and below it what to do. A remedy that was shown already is referred to.
fn text(findings: &[Finding], out: &Output) -> String {
    let mut text = String::new();
    let mut shown: Vec<(&str, &str)> = Vec::new();
    for Finding { code, level, sentence, remedy, .. } in findings {
        let word = format!("{:<7}", level.word());
        let word = match level {
            Level::Ok => out.ink(Ink::Green, &word),
            Level::Warning => out.ink(Ink::Yellow, &word),
            Level::Failure => out.ink(Ink::Red, &word),
            Level::Skipped => word,
        };
        // Sentences hold what servers and files say.
        let sentence = escape(&sentence.replace('\n', " ")).into_owned();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{word}  {code:<13}  {sentence}");
        let Some(remedy) = remedy else { continue };
        if let Some((first, _)) = shown.iter().find(|(_, before)| before == remedy) {
            let _ = writeln!(text, "         {} as for {first}", out.ink(Ink::Cyan, "remedy:"));
            continue;
        }
        shown.push((code, remedy));
        let _ = writeln!(text, "         {}", out.ink(Ink::Cyan, "remedy:"));
        for line in remedy.lines() {
            let _ = writeln!(text, "           {}", escape(line));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::{Color, Style, Surroundings, Talk};
    use crate::doctor::finding::{API_NAME, API_TCP, API_TLS};

    #[test]
    fn a_remedy_is_shown_once_and_nothing_escapes() {
        let out = Output::new(Color::Never, Style::Text, Talk::Normal, Surroundings::default());
        let findings = [
            API_NAME.ok("fine"),
            API_TCP.failure("bad \u{1b}[31m\nname", "a:\n  b"),
            API_TLS.warning("worse").remedy("a:\n  b"),
        ];
        let expected = "ok       TP-API-002     fine\n\
                        failure  TP-API-003     bad \\u{1b}[31m name\n         remedy:\n           a:\n             b\n\
                        warning  TP-API-004     worse\n         remedy: as for TP-API-003\n";
        assert_eq!(text(&findings, &out), expected);
    }

    #[test]
    fn the_secret_is_the_one_that_boot_would_use() {
        let found = |env: &[(&str, &str)]| {
            default_secret(&env.iter().copied().collect::<std::collections::BTreeMap<&str, &str>>())
        };
        let host = ("KUBERNETES_SERVICE_HOST", "10.0.0.1");
        assert_eq!(found(&[host]).as_deref(), Some("tailscale"));
        assert_eq!(found(&[host, ("TS_KUBE_SECRET", "ts-0")]).as_deref(), Some("ts-0"));
        assert_eq!(found(&[host, ("TS_KUBE_SECRET", "")]), None);
        assert_eq!(found(&[]), None);
    }

    #[test]
    fn the_login_server_is_found_in_both_spellings() {
        let found = |args: &[&str]| login_server(&args.iter().map(|&arg| arg.to_owned()).collect::<Vec<_>>());
        assert_eq!(found(&["--ssh", "--login-server=https://a"]).as_deref(), Some("https://a"));
        assert_eq!(found(&["-login-server", "https://b"]).as_deref(), Some("https://b"));
        assert_eq!(found(&["--ssh"]), None);
    }
}
