//! The files that settings name, and whether they will do.
//!
//! [`needed_files`] is pure; [`check_files`] looks at each of them and changes nothing.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};
use serde::Serialize;

use super::host::{Forwarding, tun_path};
use super::plan::uses_cli;
use crate::secret::Secret;
use crate::serve::document::Document;
use crate::serve::follow::Source;
use crate::settings::login::LoginParts;
use crate::settings::{KubeAccess, Mode, Settings, StateStore, Tun};

/// A file the settings depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileNeed {
    /// Where.
    pub path: PathBuf,
    /// What for.
    pub purpose: &'static str,
    /// What must be possible.
    pub need: Need,
}

/// What must be possible with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// It is a file that can be read.
    Readable,
    /// It is a directory that can be written, or can be made.
    WritableDir,
    /// It exists, or can be made where it belongs.
    Device,
    /// It contains `1`, or can be written.
    Sysctl,
    /// It is a program on `PATH`.
    Program,
    /// It is a serve config.
    ServeConfig,
}

/// A [`FileNeed`] and how it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileCheck {
    /// Where.
    pub path: String,
    /// What for.
    pub purpose: &'static str,
    /// What is wrong; `None` when it will do.
    pub problem: Option<String>,
}

/// The files these settings depend on. Pure.
pub fn needed_files(settings: &Settings) -> Vec<FileNeed> {
    let mut needs = Vec::new();
    let mut add = |path: PathBuf, purpose, need| needs.push(FileNeed { path, purpose, need });
    add("tailscaled".into(), "the daemon", Need::Program);
    if uses_cli(settings) {
        add("tailscale".into(), "the CLI", Need::Program);
    }
    let mut config_key = None;
    if let Mode::OneStep(file) = &settings.mode {
        add(file.path.clone(), "tailscaled config file", Need::Readable);
        config_key.clone_from(&file.auth_key);
    }
    let parts = LoginParts::from(&settings.login);
    for (value, purpose) in [
        (config_key, "auth key of the config file"),
        (parts.auth_key, "auth key"),
        (parts.client_secret, "client secret"),
        (parts.id_token, "ID token"),
    ] {
        let path = value.as_ref().and_then(|value: &Secret<String>| value.expose().strip_prefix("file:"));
        if let Some(path) = path {
            add(path.into(), purpose, Need::Readable);
        }
    }
    match &settings.daemon.state {
        StateStore::Secret { dir, .. } | StateStore::Dir(dir) => add(dir.clone(), "state directory", Need::WritableDir),
        StateStore::Memory => {}
    }
    let socket_dir = settings.daemon.socket.parent().filter(|dir| !dir.as_os_str().is_empty());
    add(socket_dir.unwrap_or(Path::new(".")).to_owned(), "directory of the socket", Need::WritableDir);
    if let Some(Source::File(path)) = settings.serve_config.as_deref().map(Source::parse) {
        add(path, "serve config", Need::ServeConfig);
    }
    if settings.daemon.tun == Tun::Kernel {
        add(tun_path(&settings.root), "TUN device", Need::Device);
        let forwarding = Forwarding::wanted(&settings.forward, &settings.node.routes).unwrap_or_default();
        for path in forwarding.sysctls(&settings.root) {
            add(path, "IP forwarding", Need::Sysctl);
        }
    }
    if settings.kube.secret.is_some() {
        match &settings.kube.access {
            KubeAccess::InCluster { service_account, .. } => {
                for file in ["namespace", "ca.crt", "token"] {
                    add(service_account.join(file), "service account", Need::Readable);
                }
            }
            KubeAccess::Kubeconfig { path, .. } => add(path.clone(), "kubeconfig", Need::Readable),
        }
    }
    needs
}

/// Looks at each file. Writes nothing. `search_path` is the value of `PATH`.
pub fn check_files(needs: Vec<FileNeed>, search_path: Option<&str>) -> Vec<FileCheck> {
    let check = |need: FileNeed| FileCheck {
        problem: check_file(&need, search_path).err(),
        path: need.path.display().to_string(),
        purpose: need.purpose,
    };
    needs.into_iter().map(check).collect()
}

fn check_file(need: &FileNeed, search_path: Option<&str>) -> Result<(), String> {
    let path = need.path.as_path();
    let text = |error: io::Error| error.to_string();
    match need.need {
        Need::ServeConfig => match fs::read_to_string(path) {
            Ok(text) if text.is_empty() => Err("empty: nothing is served until there is something in it".to_owned()),
            Ok(text) => Document::parse(&text).map(drop).map_err(|error| error.to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err("missing: nothing is served until it is there".to_owned())
            }
            Err(error) => Err(text(error)),
        },
        Need::Readable => {
            // Not opened unless it is a file: opening a pipe would wait for a writer.
            if !fs::metadata(path).map_err(text)?.is_file() {
                return Err("not a regular file".to_owned());
            }
            File::open(path).map(drop).map_err(text)
        }
        Need::WritableDir => match fs::metadata(path) {
            Ok(meta) if !meta.is_dir() => Err("not a directory".to_owned()),
            Ok(_) => allowed(path, AccessFlags::W_OK | AccessFlags::X_OK),
            Err(error) if error.kind() == io::ErrorKind::NotFound => can_make(path),
            Err(error) => Err(text(error)),
        },
        Need::Device => match fs::metadata(path) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => can_make(path),
            Err(error) => Err(text(error)),
        },
        Need::Sysctl => match fs::read(path) {
            Ok(content) if content.trim_ascii() == b"1" => Ok(()),
            Ok(_) => {
                allowed(path, AccessFlags::W_OK).map_err(|error| format!("off, and cannot be switched on: {error}"))
            }
            Err(error) => Err(text(error)),
        },
        Need::Program => {
            let mut dirs = search_path.unwrap_or_default().split(':').filter(|dir| !dir.is_empty());
            let is_program = |dir: &str| {
                let file = Path::new(dir).join(path);
                file.is_file() && access(&file, AccessFlags::X_OK).is_ok()
            };
            if dirs.any(is_program) { Ok(()) } else { Err("not found on PATH".to_owned()) }
        }
    }
}

/// Whether the nearest ancestor that exists can be written.
fn can_make(path: &Path) -> Result<(), String> {
    match path.ancestors().skip(1).find(|ancestor| ancestor.exists()) {
        Some(ancestor) => allowed(ancestor, AccessFlags::W_OK | AccessFlags::X_OK)
            .map_err(|error| format!("missing, and cannot be made in {}: {error}", ancestor.display())),
        None => Err("missing".to_owned()),
    }
}

fn allowed(path: &Path, flags: AccessFlags) -> Result<(), String> {
    access(path, flags).map_err(|errno| errno.desc().to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::settings::{self, Persona};

    #[test]
    fn files_are_looked_at() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        fs::write(path("key"), "k").expect("a file");
        fs::write(path("on"), "1\n").expect("a file");
        fs::write(path("tailscaled"), "#!/bin/sh\n").expect("a file");
        fs::set_permissions(path("tailscaled"), fs::Permissions::from_mode(0o755)).expect("a mode");
        let search_path = format!("/nonexistent:{}", dir.path().display());
        for (name, need, problem) in [
            ("key", Need::Readable, None),
            ("gone", Need::Readable, Some("No such file or directory (os error 2)")),
            ("", Need::Readable, Some("not a regular file")),
            ("", Need::WritableDir, None),
            ("a/b/c", Need::WritableDir, None),
            ("key", Need::WritableDir, Some("not a directory")),
            ("dev/net/tun", Need::Device, None),
            ("on", Need::Sysctl, None),
            ("gone", Need::Sysctl, Some("No such file or directory (os error 2)")),
        ] {
            let path = if name.is_empty() { dir.path().to_owned() } else { path(name) };
            let checks = check_files(vec![FileNeed { path, purpose: "x", need }], None);
            assert_eq!(checks[0].problem.as_deref(), problem, "{name} {need:?}");
        }
        let program = |name: &str| {
            let need = FileNeed { path: name.into(), purpose: "x", need: Need::Program };
            check_files(vec![need], Some(&search_path)).remove(0).problem
        };
        assert_eq!(program("tailscaled"), None);
        assert_eq!(program("key").as_deref(), Some("not found on PATH"), "not executable");
        assert_eq!(program("gone").as_deref(), Some("not found on PATH"));
    }

    #[test]
    fn settings_name_their_files() {
        let vars = BTreeMap::from([
            ("TS_AUTHKEY", "file:/run/key"),
            ("TS_USERSPACE", "false"),
            ("TS_ROUTES", "10.0.0.0/8"),
            ("TS_STATE_DIR", "/var/lib/ts"),
            ("KUBERNETES_SERVICE_HOST", "h"),
            ("TS_TEST_ONLY_ROOT", "/r"),
        ]);
        let settings = settings::read(&vars, Persona::Containerboot).expect("good settings");
        let needs = needed_files(&settings);
        let names: Vec<_> = needs.iter().map(|need| need.path.display().to_string()).collect();
        assert_eq!(
            names,
            [
                "tailscaled",
                "tailscale",
                "/run/key",
                "/var/lib/ts",
                "/tmp",
                "/r/dev/net/tun",
                "/r/proc/sys/net/ipv4/ip_forward",
                "/r/var/run/secrets/kubernetes.io/serviceaccount/namespace",
                "/r/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
                "/r/var/run/secrets/kubernetes.io/serviceaccount/token",
            ]
        );
    }
}
