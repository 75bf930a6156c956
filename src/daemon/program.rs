//! What to start as a child: a program, its arguments and its whole environment.
//!
//! Nothing here reads our own environment: a child gets exactly the variables it is given, and the program is looked
//! up in the `PATH` among those. Arguments may hold secrets (upstream's contract), so they never show in `Debug`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::unistd::{AccessFlags, access};
use tokio::process::Command;

/// Where to look when the given environment has no `PATH`: what container runtimes set by default.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An environment: names to values.
pub type Environment = BTreeMap<OsString, OsString>;

/// A program to start.
#[derive(Clone)]
pub struct Program {
    /// A bare name, looked up in the `PATH` of `env`, or a path.
    pub name: OsString,
    /// The arguments after the program's own name.
    pub args: Vec<OsString>,
    /// Everything the child sees.
    pub env: Environment,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{} arguments, {} variables]", self.name.display(), self.args.len(), self.env.len())
    }
}

/// Why a child was not started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// No such executable.
    #[error("`{program}` not found as an executable file in PATH ({path})")]
    NotFound {
        /// The name that was looked up.
        program: String,
        /// Where.
        path: String,
    },
    /// The kernel refused to start it.
    #[error("cannot start `{program}`")]
    Refused {
        /// The file that was to be run.
        program: String,
        /// Why not.
        source: io::Error,
    },
}

impl Program {
    /// A program without arguments.
    pub fn new(name: impl Into<OsString>, env: Environment) -> Self {
        Self { name: name.into(), args: Vec::new(), env }
    }

    /// The same with these arguments added.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// The file that will run.
    pub fn resolve(&self) -> Result<PathBuf, SpawnError> {
        let path = self.env.get(OsStr::new("PATH")).map_or(OsStr::new(DEFAULT_PATH), OsString::as_os_str);
        find(&self.name, path).ok_or_else(|| SpawnError::NotFound {
            program: self.name.display().to_string(),
            path: path.display().to_string(),
        })
    }

    /// A command with this program, its name as `argv[0]`, its environment and nothing to read on stdin.
    pub(crate) fn command(&self) -> Result<Command, SpawnError> {
        let mut command = Command::new(self.resolve()?);
        command.arg0(&self.name).args(&self.args).env_clear().envs(&self.env).stdin(Stdio::null());
        Ok(command)
    }

    pub(crate) fn refused(&self, source: io::Error) -> SpawnError {
        SpawnError::Refused { program: self.name.display().to_string(), source }
    }
}

/// A child's environment: `inherited` without the names in `dropped`, then with `added`.
pub fn child_environment(inherited: &Environment, dropped: &[&str], added: &[(&str, &str)]) -> Environment {
    let mut env = inherited.clone();
    env.retain(|name, _| !dropped.iter().any(|dropped| name == dropped));
    env.extend(added.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))));
    env
}

/// Looks `name` up as execvp would, but never in the working directory: relative entries are skipped.
fn find(name: &OsStr, path: &OsStr) -> Option<PathBuf> {
    if name.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(name)).filter(|file| is_executable(file));
    }
    std::env::split_paths(path).filter(|dir| dir.is_absolute()).map(|dir| dir.join(name)).find(|f| is_executable(f))
}

fn is_executable(file: &Path) -> bool {
    file.is_file() && access(file, AccessFlags::X_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn a_childs_environment_loses_and_gains_names() {
        let inherited = env(&[("A", "1"), ("TS_AUTHKEY", "tskey"), ("B", "2")]);
        let child = child_environment(&inherited, &["TS_AUTHKEY", "ABSENT"], &[("B", "3"), ("C", "4")]);
        assert_eq!(child, env(&[("A", "1"), ("B", "3"), ("C", "4")]));
    }

    #[test]
    fn lookup_takes_the_first_executable_file_of_an_absolute_entry() {
        let dir = tempfile::tempdir().unwrap();
        for (place, mode) in [("plain", 0o644), ("good", 0o755), ("later", 0o755)] {
            fs::create_dir(dir.path().join(place)).unwrap();
            fs::write(dir.path().join(place).join("tool"), "").unwrap();
            fs::set_permissions(dir.path().join(place).join("tool"), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::create_dir_all(dir.path().join("dir/tool")).unwrap();
        let root = dir.path().display();
        let path = format!("::bin:{root}/absent:{root}/dir:{root}/plain:{root}/good:{root}/later");
        assert_eq!(find(OsStr::new("tool"), OsStr::new(&path)), Some(dir.path().join("good/tool")));
        let plain = dir.path().join("plain/tool");
        assert_eq!(find(plain.as_os_str(), OsStr::new(&path)), None);
    }

    #[test]
    fn what_was_not_found_is_said_with_the_places() {
        let error = Program::new("tailscaled", env(&[("PATH", "/nowhere:/neither")])).resolve().unwrap_err();
        assert_eq!(error.to_string(), "`tailscaled` not found as an executable file in PATH (/nowhere:/neither)");
        assert_eq!(Program::new("sh", env(&[])).resolve().unwrap().file_name(), Some(OsStr::new("sh")));
    }

    #[test]
    fn arguments_never_show() {
        let program = Program::new("tailscale", env(&[("K", "hush")])).args(["up", "--authkey=hush"]);
        assert_eq!(format!("{program:?}"), "tailscale [2 arguments, 1 variables]");
    }
}
