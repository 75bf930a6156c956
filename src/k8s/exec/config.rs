//! The `exec` block of a kubeconfig, checked. Pure.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::Serialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::error::CredentialError;
use crate::secret::Secret;

/// The API group of the plugin protocol.
const GROUP: &str = "client.authentication.k8s.io";

/// One plugin, as configured. Two equal ones share their credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::k8s) struct Config {
    /// `client.authentication.k8s.io/v1` or `.../v1beta1`.
    pub(in crate::k8s) api_version: String,
    /// The program, lexically cleaned: absolute, relative to nothing, or a bare name.
    pub(in crate::k8s) command: String,
    /// Its arguments.
    pub(in crate::k8s) args: Vec<String>,
    /// Variables beside our own, in their order. Their values may be what the plugin logs in with.
    pub(in crate::k8s) env: Vec<(String, Secret<Zeroizing<String>>)>,
    /// Whether it may talk to a person.
    pub(in crate::k8s) mode: Mode,
    /// What to say when it is missing.
    pub(in crate::k8s) install_hint: String,
    /// What it is told about the cluster, if it wants to be told.
    pub(in crate::k8s) cluster: Option<ClusterInfo>,
}

/// `spec.cluster` of the request (exec-credential.md 2.1).
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::k8s) struct ClusterInfo {
    pub(in crate::k8s) server: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(in crate::k8s) tls_server_name: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(in crate::k8s) insecure_skip_tls_verify: bool,
    /// Base64.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(in crate::k8s) certificate_authority_data: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(in crate::k8s) proxy_url: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(in crate::k8s) disable_compression: bool,
    /// The cluster's extension of the protocol's name; `null` when there is none.
    pub(in crate::k8s) config: Value,
}

/// `interactiveMode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It gets no standard input.
    Never,
    /// It gets ours if a person sits at it.
    IfAvailable,
    /// It cannot do without a person.
    Always,
}

/// What standard input is good for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stdin {
    /// Whether it is a terminal.
    pub is_terminal: bool,
    /// Whether it is needed for something else, and what (may be empty).
    pub unavailable: Option<String>,
}

/// The block as it is written; every field may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::k8s) struct Written {
    pub(in crate::k8s) api_version: String,
    pub(in crate::k8s) command: String,
    pub(in crate::k8s) args: Vec<String>,
    pub(in crate::k8s) env: Vec<BTreeMap<String, String>>,
    pub(in crate::k8s) mode: Option<Mode>,
    pub(in crate::k8s) install_hint: String,
}

/// clientcmd's complaints about the block of `user`, all of them (`validation.go`).
pub(in crate::k8s) fn problems(written: &Written, user: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let mut wanted = |is_missing: bool, what: &str| {
        if is_missing {
            problems.push(format!("{what} must be specified for {user} to use exec authentication plugin"));
        }
    };
    wanted(written.command.is_empty(), "command");
    wanted(written.api_version.is_empty(), "apiVersion");
    for entry in &written.env {
        wanted(entry.get("name").is_none_or(String::is_empty), "env variable name");
    }
    let has_default = ["v1beta1", "v1alpha1"].iter().any(|version| written.api_version == format!("{GROUP}/{version}"));
    wanted(written.mode.is_none() && !has_default, "interactiveMode");
    problems
}

impl std::fmt::Debug for ClusterInfo {
    /// Without the proxy, whose URL may hold a password, and the extension, which may be anything.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterInfo").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Config {
    /// The block of a kubeconfig in `dir`, once [`problems`] has found none.
    ///
    /// # Errors
    /// The API version is none that we speak.
    pub(in crate::k8s) fn new(written: Written, dir: &Path, cluster: Option<ClusterInfo>) -> Result<Self, String> {
        let version = written.api_version;
        if !["v1", "v1beta1"].iter().any(|known| version == format!("{GROUP}/{known}")) {
            return Err(format!("exec plugin: invalid apiVersion {version:?}"));
        }
        let command = if written.command.contains('/') {
            cleaned(&dir.join(&written.command)).to_string_lossy().into_owned()
        } else {
            written.command
        };
        let mut env = Vec::new();
        for mut entry in written.env {
            let value = Zeroizing::new(entry.remove("value").unwrap_or_default());
            env.push((entry.remove("name").unwrap_or_default(), value.into()));
        }
        Ok(Self {
            api_version: version,
            command,
            args: written.args,
            env,
            mode: written.mode.unwrap_or(Mode::IfAvailable),
            install_hint: shown(&written.install_hint),
            cluster,
        })
    }

    /// Whether a run is interactive with this standard input.
    pub(in crate::k8s) fn is_interactive(&self, stdin: &Stdin) -> Result<bool, CredentialError> {
        let refused = |why: String| Err(CredentialError::NotInteractive(why));
        match (self.mode, stdin.is_terminal, &stdin.unavailable) {
            (Mode::Never, _, _) => Ok(false),
            (Mode::IfAvailable, is_terminal, unavailable) => Ok(is_terminal && unavailable.is_none()),
            (Mode::Always, false, _) => refused("standard input is not a terminal".to_owned()),
            (Mode::Always, true, Some(why)) if why.is_empty() => refused("standard input is unavailable".to_owned()),
            (Mode::Always, true, Some(why)) => refused(format!("standard input is unavailable: {why}")),
            (Mode::Always, true, None) => Ok(true),
        }
    }
}

/// Go's `filepath.Clean`: no `.`, no `..` that can be resolved, no double slashes.
pub(super) fn cleaned(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => match clean.components().next_back() {
                Some(Component::Normal(_)) => drop(clean.pop()),
                Some(Component::RootDir) => {}
                _ => clean.push(part),
            },
            _ => clean.push(part),
        }
    }
    if clean.as_os_str().is_empty() { PathBuf::from(".") } else { clean }
}

/// A hint that cannot do anything to a terminal: escape sequences and control characters are left out.
fn shown(hint: &str) -> String {
    let mut out = String::with_capacity(hint.len());
    let mut chars = hint.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => {
                // CSI sequences end at a letter or one of the signs around it, others after one character.
                if chars.next_if_eq(&'[').is_some() {
                    while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {}
                } else {
                    chars.next();
                }
            }
            '\n' | '\t' => out.push(c),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(version: &str) -> Written {
        Written {
            api_version: format!("{GROUP}/{version}"),
            command: "plugin".to_owned(),
            mode: Some(Mode::Never),
            ..Written::default()
        }
    }

    #[test]
    fn every_problem_is_reported() {
        let env = vec![BTreeMap::from([("value".to_owned(), "x".to_owned())])];
        let bad = Written { env, ..Written::default() };
        let suffix = "must be specified for me to use exec authentication plugin";
        let expected = ["command", "apiVersion", "env variable name", "interactiveMode"];
        assert_eq!(problems(&bad, "me"), expected.map(|what| format!("{what} {suffix}")));
        assert!(problems(&written("v1"), "me").is_empty());
        let without_mode = |version| problems(&Written { mode: None, ..written(version) }, "me").len();
        assert_eq!((without_mode("v1"), without_mode("v1beta1"), without_mode("v1alpha1")), (1, 0, 0));
    }

    #[test]
    fn versions_commands_and_modes() {
        let dir = Path::new("/home/me/.kube");
        for version in ["v1alpha1", "v2", ""] {
            let error = Config::new(written(version), dir, None).unwrap_err();
            assert_eq!(error, format!("exec plugin: invalid apiVersion \"{GROUP}/{version}\""));
        }
        let command = |text: &str| {
            Config::new(Written { command: text.to_owned(), ..written("v1") }, dir, None).map(|config| config.command)
        };
        assert_eq!(command("plugin").as_deref(), Ok("plugin"));
        assert_eq!(command("./bin/../plugin").as_deref(), Ok("/home/me/.kube/plugin"));
        assert_eq!(command("/opt//x/./y").as_deref(), Ok("/opt/x/y"));
        let default = Config::new(Written { mode: None, ..written("v1beta1") }, dir, None).unwrap();
        assert_eq!(default.mode, Mode::IfAvailable);
    }

    #[test]
    fn the_table_of_interactive_modes() {
        let stdin = |is_terminal, why: Option<&str>| Stdin { is_terminal, unavailable: why.map(str::to_owned) };
        let error = |why: &str| Err(format!("exec plugin cannot support interactive mode: standard input is {why}"));
        for (mode, stdin, expected) in [
            (Mode::Never, stdin(true, None), Ok(false)),
            (Mode::IfAvailable, stdin(true, None), Ok(true)),
            (Mode::IfAvailable, stdin(true, Some("")), Ok(false)),
            (Mode::IfAvailable, stdin(false, None), Ok(false)),
            (Mode::Always, stdin(false, Some("x")), error("not a terminal")),
            (Mode::Always, stdin(true, Some("")), error("unavailable")),
            (Mode::Always, stdin(true, Some("it is read")), error("unavailable: it is read")),
            (Mode::Always, stdin(true, None), Ok(true)),
        ] {
            let config = Config::new(Written { mode: Some(mode), ..written("v1") }, Path::new("/"), None).unwrap();
            assert_eq!(
                config.is_interactive(&stdin).map_err(|error| error.to_string()),
                expected,
                "{mode:?} {stdin:?}"
            );
        }
    }

    #[test]
    fn what_a_plugin_logs_in_with_is_not_shown() {
        let entry = [("name", "PASSWORD"), ("value", "hush")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let written = Written { env: vec![BTreeMap::from(entry)], ..written("v1") };
        let cluster = ClusterInfo { proxy_url: "http://u:hush@proxy".to_owned(), ..ClusterInfo::default() };
        let config = Config::new(written, Path::new("/"), Some(cluster)).unwrap();
        assert_eq!(config.env[0].1.expose().as_str(), "hush");
        assert!(!format!("{config:?}").contains("hush"));
    }

    #[test]
    fn paths_are_cleaned_as_go_does() {
        for (path, clean) in [("/a/../../b", "/b"), ("a//b/./c/..", "a/b"), ("../x", "../x"), ("", "."), ("a/..", ".")]
        {
            assert_eq!(cleaned(Path::new(path)), Path::new(clean), "{path}");
        }
    }

    #[test]
    fn hints_cannot_touch_the_terminal() {
        assert_eq!(shown("  get \u{1b}[31mit\u{1b}[0m\u{7}\nhere\u{1b}c "), "get it\nhere");
    }
}
