//! What the `tailscale` CLI does in automatic mode: `up`, `set`, `down`, `logout`, `status`, `version`.
//!
//! Follows upstream's `cmd/tailscale/cli/up.go` as far as boot uses it.

use serde_json::{Map, Value, json};

use super::daemon::{CliScript, Daemon};
use super::record::Command;
use crate::secret::Secret;

/// How a command goes on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It ends.
    Done(CliScript),
    /// It prints this and waits until the node is up.
    Waits(String),
}

/// Runs a command against the automatic node.
pub(crate) fn run(daemon: &Daemon, command: &Command) -> Progress {
    let Some(verb) = command.verb() else { return failed(2, "USAGE\n  tailscale [flags] <subcommand>\n") };
    if verb == "version" {
        return Progress::Done(CliScript { stdout: version(daemon, command), ..CliScript::default() });
    }
    if !daemon.running() {
        return failed(1, "failed to connect to local tailscaled; it doesn't appear to be running\n");
    }
    match verb {
        "up" | "login" => up(daemon, command),
        "set" => match daemon.patch_prefs(&prefs_of(command)) {
            Ok(_) => Progress::Done(CliScript::default()),
            Err(error) => failed(1, &format!("{error}\n")),
        },
        "down" => {
            let down = json!({"WantRunning": false, "WantRunningSet": true});
            match daemon.patch_prefs(down.as_object().unwrap_or(&Map::new())) {
                Ok(_) => Progress::Done(CliScript::default()),
                Err(error) => failed(1, &format!("{error}\n")),
            }
        }
        "logout" => {
            daemon.logout();
            Progress::Done(CliScript::default())
        }
        "status" => {
            let status = daemon.lock().status(true);
            let text = serde_json::to_string_pretty(&status).unwrap_or_default();
            Progress::Done(CliScript { stdout: text + "\n", ..CliScript::default() })
        }
        other => failed(1, &format!("tailscale {other}: the sandbox does not play this command\n")),
    }
}

fn up(daemon: &Daemon, command: &Command) -> Progress {
    let mut masked = prefs_of(command);
    masked.insert("WantRunning".to_owned(), true.into());
    masked.insert("WantRunningSet".to_owned(), true.into());
    if let Err(error) = daemon.patch_prefs(&masked) {
        return failed(1, &format!("{error}\n"));
    }
    let options = json!({"AuthKey": key_of(command).map(|key| key.expose().clone())});
    daemon.start_backend(options.as_object().unwrap_or(&Map::new()));
    daemon.login_interactive();
    let inner = daemon.lock();
    if let Some(error) = inner.node.login_error() {
        return failed(1, &format!("backend error: {error}\n"));
    }
    match inner.node.login_url() {
        Some(url) => Progress::Waits(format!("\nTo authenticate, visit:\n\n\t{url}\n\n")),
        None if inner.view.state_name() == "NeedsMachineAuth" => Progress::Waits(
            "\nTo approve your machine, visit (as admin):\n\n\thttps://login.tailscale.com/admin\n\n".to_owned(),
        ),
        None => Progress::Done(CliScript::default()),
    }
}

/// The key that `--authkey` or `--client-secret` give, read from a file if they say so.
fn key_of(command: &Command) -> Option<Secret<String>> {
    let names = ["authkey", "auth-key", "client-secret"];
    names.iter().find_map(|name| {
        let value = command.flag(name).filter(|value| !value.is_empty())?;
        let file = command.secret_files.iter().find(|file| file.flag.trim_start_matches('-') == *name);
        Some(file.map_or_else(|| Secret::new(value.to_owned()), |file| file.content.clone()))
    })
}

/// The flags that are prefs, as a masked patch.
fn prefs_of(command: &Command) -> Map<String, Value> {
    let mut masked = Map::new();
    for (flag, member, kind) in [
        ("accept-dns", "CorpDNS", Kind::Bool),
        ("accept-routes", "RouteAll", Kind::Bool),
        ("shields-up", "ShieldsUp", Kind::Bool),
        ("ssh", "RunSSH", Kind::Bool),
        ("hostname", "Hostname", Kind::Text),
        ("login-server", "ControlURL", Kind::Text),
        ("advertise-routes", "AdvertiseRoutes", Kind::List),
        ("advertise-tags", "AdvertiseTags", Kind::List),
    ] {
        let bare = || command.args.iter().any(|arg| arg.trim_start_matches('-') == flag).then_some("true");
        let Some(value) = command.flag(flag).or_else(bare) else { continue };
        let value = match kind {
            Kind::Bool => (value == "true").into(),
            Kind::Text => value.into(),
            Kind::List if value.is_empty() => Value::Null,
            Kind::List => value.split(',').collect(),
        };
        masked.insert(member.to_owned(), value);
        masked.insert(format!("{member}Set"), true.into());
    }
    masked
}

enum Kind {
    Bool,
    Text,
    List,
}

fn version(daemon: &Daemon, command: &Command) -> String {
    let inner = daemon.lock();
    let version = inner.version();
    if command.args.iter().any(|arg| arg.trim_start_matches('-').starts_with("json")) {
        let json = json!({
            "majorMinorPatch": version.short(),
            "short": version.short(),
            "long": version.long,
            "cap": version.capability(),
        });
        return format!("{json}\n");
    }
    format!("{}\n  long version: {}\n", version.short(), version.long)
}

fn failed(exit: u8, stderr: &str) -> Progress {
    Progress::Done(CliScript { stderr: stderr.to_owned(), exit, ..CliScript::default() })
}
