//! What the environment says, and whether the files are there that it names. Pure.

use super::finding::{ENV_FILES, ENV_SETTINGS, ENV_STATE, ENV_USERSPACE, ENV_WARNINGS, Finding};
use crate::settings::{Mode, NoteLevel, Problems, Settings, StateStore, Tun};

/// For problems whose line says it all.
pub(super) const LOOK_AT_THE_SETTINGS: &str = "tailpod boot --check  # in the same environment, says when it is right";

/// A file that the settings name, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileState {
    /// Where.
    pub path: String,
    /// What for.
    pub purpose: &'static str,
    /// What is wrong; `None` when it will do.
    pub problem: Option<String>,
}

/// Judges settings that can be read, and those that cannot.
pub fn judge(settings: Result<&Settings, &Problems>, files: &[FileState]) -> Vec<Finding> {
    let notes = match settings {
        Ok(settings) => settings.notes.as_slice(),
        Err(problems) => problems.notes(),
    };
    let warnings: Vec<_> = notes.iter().filter(|note| note.level == NoteLevel::Warning).collect();
    let warnings = if warnings.is_empty() {
        vec![ENV_WARNINGS.ok("every variable is spelled right and has an effect")]
    } else {
        warnings.iter().map(|note| ENV_WARNINGS.warning(note.text.trim_start_matches("[warning] "))).collect()
    };
    let mut findings = Vec::new();
    match settings {
        Err(problems) => {
            let shown = problems.lines().into_iter().zip(problems.iter());
            findings.extend(
                shown.map(|(line, problem)| {
                    ENV_SETTINGS.failure(line, problem.remedy().unwrap_or(LOOK_AT_THE_SETTINGS))
                }),
            );
            findings.extend(warnings);
        }
        Ok(settings) => {
            let mode = match settings.mode {
                Mode::OneStep(_) => "one-step: a config file alone configures the node",
                Mode::AuthOnce => "auth-once: log in only when the node is not logged in yet",
                Mode::AlwaysAuth => "always-auth: log in on every start",
            };
            findings.push(ENV_SETTINGS.ok(format!("the settings can be read; mode {mode}")));
            findings.extend(warnings);
            findings.extend(judge_files(files));
            findings.push(judge_state(&settings.daemon.state));
            findings.push(judge_userspace(settings));
        }
    }
    findings
}

fn judge_files(files: &[FileState]) -> Vec<Finding> {
    let bad = files.iter().filter_map(|file| file.problem.as_ref().map(|problem| (file, problem)));
    let findings: Vec<_> = bad
        .map(|(FileState { path, purpose, .. }, problem)| {
            let remedy = match *purpose {
                "the daemon" | "the CLI" => {
                    "FROM tailscale/tailscale:stable\nCOPY tailpod /usr/local/bin/tailpod\n# or put it on PATH".to_owned()
                }
                "service account" => "spec:\n  automountServiceAccountToken: true".to_owned(),
                "state directory" | "directory of the socket" => format!(
                    "volumeMounts:\n  - name: writable\n    mountPath: {path}\nvolumes:\n  - name: writable\n    emptyDir: {{}}"
                ),
                _ => format!("# mount what belongs there, readable for this user:\nvolumeMounts:\n  - name: files\n    mountPath: {path}"),
            };
            ENV_FILES.failure(format!("{purpose} `{path}`: {problem}"), remedy)
        })
        .collect();
    if findings.is_empty() {
        vec![ENV_FILES.ok(format!("all {} files that the settings name are there", files.len()))]
    } else {
        findings
    }
}

fn judge_state(state: &StateStore) -> Finding {
    match state {
        StateStore::Secret { name, .. } => ENV_STATE.ok(format!("the identity is kept in Secret `{name}`")),
        StateStore::Dir(dir) => ENV_STATE.ok(format!("the identity is kept in {}", dir.display())),
        StateStore::Memory => ENV_STATE
            .warning("the identity is kept in memory: every start is a new node, and needs a key that still works")
            .remedy("env:\n  - name: TS_KUBE_SECRET\n    value: tailscale\n# or a directory on a volume:\n  - name: TS_STATE_DIR\n    value: /var/lib/tailscale"),
    }
}

fn judge_userspace(settings: &Settings) -> Finding {
    let daemon = &settings.daemon;
    match (daemon.tun, daemon.socks5_server.as_ref().or(daemon.outbound_http_proxy_listen.as_ref())) {
        (Tun::Kernel, _) => {
            ENV_USERSPACE.ok("the kernel's network stack leads every program in the Pod to the tailnet")
        }
        (Tun::Userspace, Some(proxy)) => {
            ENV_USERSPACE.ok(format!("userspace networking: programs reach the tailnet through the proxy at {proxy}"))
        }
        // Right for a node that only serves, so it is no warning.
        (Tun::Userspace, None) => ENV_USERSPACE.ok(
            "userspace networking without a proxy: the tailnet reaches this Pod, its programs do not reach the tailnet",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::doctor::finding::Level;
    use crate::settings::{Persona, read};

    fn judged(env: &[(&str, &str)], files: &[FileState]) -> Vec<(&'static str, Level, String)> {
        let vars: BTreeMap<&str, &str> = env.iter().copied().collect();
        let settings = read(&vars, Persona::Tailpod);
        let findings = judge(settings.as_ref(), files);
        findings.into_iter().map(|finding| (finding.code, finding.level, finding.sentence)).collect()
    }

    #[test]
    fn all_problems_are_findings() {
        let findings = judged(&[("TS_DEST_IP", "x"), ("TS_ENABLE_METRICS", "flase"), ("TS_STATE_DIR", "/s")], &[]);
        let level = |code| findings.iter().filter(|found| found.0 == code).map(|found| found.1).max();
        assert_eq!(level("TP-ENV-001"), Some(Level::Failure), "{findings:?}");
        assert_eq!(level("TP-ENV-002"), Some(Level::Warning), "{findings:?}");
    }

    #[test]
    fn files_state_and_the_way_in_are_judged() {
        let missing = FileState { path: "tailscaled".into(), purpose: "the daemon", problem: Some("not found".into()) };
        let findings = judged(&[], &[missing]);
        let levels: Vec<_> = findings.iter().map(|found| (found.0, found.1)).collect();
        let expected = [
            ("TP-ENV-001", Level::Ok),
            ("TP-ENV-002", Level::Ok),
            ("TP-ENV-003", Level::Failure),
            ("TP-ENV-004", Level::Warning),
            ("TP-ENV-005", Level::Ok),
        ];
        assert_eq!(levels, expected, "{findings:?}");
    }
}
