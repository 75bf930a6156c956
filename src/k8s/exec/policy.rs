//! What may run as a plugin, and which file that is. Pure.
//!
//! A name is resolved once, here; what was judged is exactly what runs.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::config::cleaned;
use super::error::CredentialError;

/// client-go's plugin policy (`clientcmd/api`, `PluginPolicy`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Whatever a kubeconfig names.
    #[default]
    AllowAll,
    /// Nothing.
    DenyAll,
    /// Names, and paths as `filepath.Clean` leaves them.
    Allowlist(Vec<String>),
}

/// A policy that cannot be meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPolicy {
    /// Not one of the three.
    #[error("a plugin policy is one of AllowAll, DenyAll and Allowlist")]
    Unknown,
    /// Only `Allowlist` has a list.
    #[error("a list of plugins goes with the policy Allowlist only")]
    List,
    /// `Allowlist` without one.
    #[error("the policy Allowlist needs a list of plugins")]
    NoList,
    /// An entry that is nothing.
    #[error("the list of plugins has an empty entry")]
    Empty,
    /// An entry that could never match.
    #[error("the list of plugins has {0:?}, which is the same as {1:?}: write that")]
    Unclean(String, String),
}

impl Policy {
    /// From the two settings; `list` is separated by commas.
    pub fn parse(policy: &str, list: Option<&str>) -> Result<Self, BadPolicy> {
        match (policy, list) {
            ("" | "AllowAll", None) => Ok(Self::AllowAll),
            ("DenyAll", None) => Ok(Self::DenyAll),
            ("" | "AllowAll" | "DenyAll", Some(_)) => Err(BadPolicy::List),
            ("Allowlist", None | Some("")) => Err(BadPolicy::NoList),
            ("Allowlist", Some(list)) => {
                let entry = |text: &str| {
                    let clean = cleaned(Path::new(text)).to_string_lossy().into_owned();
                    match text {
                        "" => Err(BadPolicy::Empty),
                        text if text != clean => Err(BadPolicy::Unclean(text.to_owned(), clean)),
                        text => Ok(text.to_owned()),
                    }
                };
                list.split(',').map(str::trim).map(entry).collect::<Result<_, _>>().map(Self::Allowlist)
            }
            _ => Err(BadPolicy::Unknown),
        }
    }

    /// Which file `command` is, if it may run. `path` is `PATH`, `is_program` tells whether there is a file that could
    /// be run.
    ///
    /// # Errors
    /// [`CredentialError::Denied`], or [`CredentialError::NotFound`] without a hint.
    pub(super) fn program(
        &self,
        command: &str,
        path: &OsStr,
        is_program: &dyn Fn(&Path) -> bool,
    ) -> Result<PathBuf, CredentialError> {
        if *self == Self::DenyAll {
            return Err(CredentialError::Denied(format!("plugin {command:?} not allowed: policy set to \"DenyAll\"")));
        }
        let found = resolve(command, path, is_program);
        let missing = || CredentialError::NotFound { command: command.to_owned(), hint: None };
        let Self::Allowlist(entries) = self else { return found.ok_or_else(missing) };
        let resolved = found.as_deref().map_or_else(|| command.into(), Path::to_string_lossy);
        let base = |text: &str| Path::new(text).file_name().map(OsStr::to_owned);
        let is_listed = entries.iter().any(|entry| {
            entry == command
                || **entry == *resolved
                || (base(entry) == base(&resolved) && found.is_some() && resolve(entry, path, is_program) == found)
        });
        if !is_listed {
            let why = format!("plugin path {resolved:?} is not permitted by the credential plugin allowlist");
            return Err(CredentialError::Denied(why));
        }
        found.ok_or_else(missing)
    }
}

/// Go's `exec.LookPath`: a name with a slash is a path; others are looked for in `PATH`, never in a relative part of it.
fn resolve(command: &str, path: &OsStr, is_program: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
    if command.contains('/') {
        return Some(PathBuf::from(command)).filter(|path| is_program(path));
    }
    if command.is_empty() {
        return None;
    }
    let directories = path.as_bytes().split(|byte| *byte == b':').map(|part| Path::new(OsStr::from_bytes(part)));
    let found = directories.map(|directory| directory.join(command)).find(|path| is_program(path));
    // A program of the directory we happen to be in is nobody's choice.
    found.filter(|path| path.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_and_lists_must_fit_together() {
        let parse = |policy, list| Policy::parse(policy, list);
        assert_eq!(parse("", None), Ok(Policy::AllowAll));
        assert_eq!(parse("DenyAll", None), Ok(Policy::DenyAll));
        let list = ["aws", "/opt/x"].map(str::to_owned).to_vec();
        assert_eq!(parse("Allowlist", Some("aws, /opt/x")), Ok(Policy::Allowlist(list)));
        for (policy, list, error) in [
            ("DenyAll", Some("x"), BadPolicy::List),
            ("AllowAll", Some("x"), BadPolicy::List),
            ("", Some(""), BadPolicy::List),
            ("Allowlist", None, BadPolicy::NoList),
            ("Allowlist", Some(""), BadPolicy::NoList),
            ("Allowlist", Some("a,,b"), BadPolicy::Empty),
            ("Allowlist", Some("/a/../b"), BadPolicy::Unclean("/a/../b".to_owned(), "/b".to_owned())),
            ("Sometimes", None, BadPolicy::Unknown),
        ] {
            assert_eq!(parse(policy, list), Err(error), "{policy} {list:?}");
        }
    }

    #[test]
    fn what_is_judged_is_what_runs() {
        let files = ["/evil/plugin", "/good/plugin", "/good/other", "./plugin", "plugin"];
        let is_program = |path: &Path| files.iter().any(|file| Path::new(file) == path);
        let run = |policy: &str, list: Option<&str>, command: &str, path: &str| {
            let policy = Policy::parse(policy, list).unwrap();
            let program = policy.program(command, OsStr::new(path), &is_program);
            program.map(|path| path.to_string_lossy().into_owned()).map_err(|error| error.to_string())
        };
        let only = |list, command, path| run("Allowlist", Some(list), command, path);
        let ok = |path: &str| Ok(path.to_owned());
        let refused =
            |path: &str| Err(format!("plugin path {path:?} is not permitted by the credential plugin allowlist"));

        assert_eq!(run("", None, "plugin", "/evil:/good"), ok("/evil/plugin"));
        assert_eq!(run("", None, "plugin", "/good:/evil"), ok("/good/plugin"));
        assert_eq!(run("", None, "plugin", ".:/good"), Err("exec: executable plugin not found".to_owned()));
        assert_eq!(run("", None, "gone", "/good"), Err("exec: executable gone not found".to_owned()));
        let denied = "plugin \"plugin\" not allowed: policy set to \"DenyAll\"";
        assert_eq!(run("DenyAll", None, "plugin", "/good"), Err(denied.to_owned()));

        // The bare name allows whatever it resolves to; a path allows that file and no other.
        assert_eq!(only("plugin", "plugin", "/evil:/good"), ok("/evil/plugin"));
        assert_eq!(only("/good/plugin", "plugin", "/good:/evil"), ok("/good/plugin"));
        assert_eq!(only("/good/plugin", "plugin", "/evil:/good"), refused("/evil/plugin"));
        assert_eq!(only("plugin", "/good/plugin", "/good"), ok("/good/plugin"), "the entry resolves to it");
        assert_eq!(only("plugin", "/good/plugin", "/evil:/good"), refused("/good/plugin"));
        assert_eq!(only("other", "plugin", "/good"), refused("/good/plugin"));
        assert_eq!(only("gone", "gone", "/good"), Err("exec: executable gone not found".to_owned()));
        assert_eq!(only("plugin", "gone", "/good"), refused("gone"));
    }
}
