//! What `boot` would do with these settings, without doing any of it.
//!
//! Pure: children with redacted arguments, LocalAPI steps, Secret keys and listeners follow from the settings; the
//! files were checked before, by [`check_files`](super::files::check_files).

use std::fmt::{self, Write as _};
use std::path::PathBuf;

use serde::Serialize;

use super::argv;
use super::files::FileCheck;
use super::flags::{FlagsOutcome, desired_prefs};
use super::forward::preview::{self, Preview};
use super::forward::wanted;
use super::policy::clears_serve_config;
use crate::proxygroup::once::ConfigFile;
use crate::serve::document::Document;
use crate::serve::follow::Source;
use crate::settings::{KubeAccess, Login, Mode, NoteLevel, Persona, Settings, StateStore, redact_args};

/// The whole plan. Displays as text; serializes as the JSON that `--json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// `containerboot` or `tailpod`.
    pub persona: &'static str,
    /// `one-step`, `auth-once` or `always-auth`.
    pub mode: &'static str,
    /// Programs that are started, in order.
    pub children: Vec<Child>,
    /// What is done through LocalAPI instead of a program.
    #[serde(rename = "localAPI")]
    pub local_api: Vec<Step>,
    /// The state Secret, when there is one.
    pub secret: Option<SecretPlan>,
    /// Addresses that are listened on.
    pub listeners: Vec<Listener>,
    /// All packet rules, those of HA groups from their configs as they are, as nft would be told; what is not known yet
    /// is words in angle brackets.
    pub rules: Option<String>,
    /// Files the settings name, and whether they will do.
    pub files: Vec<FileCheck>,
    /// What was noticed while reading the settings and the configs of groups.
    pub warnings: Vec<String>,
    /// What will fail.
    pub problems: Vec<String>,
}

/// A program with its arguments, secrets redacted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Child {
    /// As looked up on `PATH`.
    pub program: &'static str,
    /// Its arguments.
    pub args: Vec<String>,
    /// When it is started.
    pub when: String,
}

/// Something that is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What.
    pub what: String,
    /// When.
    pub when: String,
}

/// What happens to the state Secret. Boot's own writes need `patch` permission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretPlan {
    /// Its name.
    pub name: String,
    /// Keys that boot writes.
    pub writes: Vec<&'static str>,
    /// Keys that boot removes.
    pub removes: Vec<&'static str>,
    /// Keys that tailscaled writes by itself.
    pub tailscaled_writes: Vec<&'static str>,
}

/// An address that is listened on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listener {
    /// An address or a socket path.
    pub address: String,
    /// What is served there.
    pub serves: String,
    /// Which process listens.
    pub process: &'static str,
}

impl Plan {
    /// The plan for these settings, with the files already [checked](super::files::check_files) and the configs of the
    /// groups already [read](crate::proxygroup::once::read).
    pub fn new(settings: &Settings, files: Vec<FileCheck>, groups: &[ConfigFile]) -> Self {
        let mut problems: Vec<String> = Vec::new();
        let (mut children, mut local_api) = (Vec::new(), Vec::new());
        children.push(Child {
            program: "tailscaled",
            args: redact_args(&argv::tailscaled(settings)),
            when: "at start".to_owned(),
        });
        match settings.persona {
            Persona::Containerboot => children.extend(cli_children(settings)),
            Persona::Tailpod => match login_steps(settings) {
                Ok((child, steps)) => {
                    children.extend(child);
                    local_api.extend(steps);
                }
                Err(problem) => problems.push(problem),
            },
        }
        local_api.extend(serving_steps(settings));
        let preview = match wanted::Plan::of(settings) {
            Ok(plan) => preview::preview(&plan, groups),
            Err(problem) => Preview { problems: vec![problem], ..Preview::default() },
        };
        problems.extend(preview.problems);
        problems.extend(inline_problem(settings));
        let failed = files.iter().filter_map(|file| Some(format!("{}: {}", file.path, file.problem.as_ref()?)));
        problems.extend(failed);
        let noted = settings.notes.iter().filter(|note| note.level == NoteLevel::Warning);
        Self {
            persona: match settings.persona {
                Persona::Containerboot => "containerboot",
                Persona::Tailpod => "tailpod",
            },
            mode: match settings.mode {
                Mode::OneStep(_) => "one-step",
                Mode::AuthOnce => "auth-once",
                Mode::AlwaysAuth => "always-auth",
            },
            children,
            local_api,
            secret: secret(settings),
            listeners: listeners(settings),
            rules: preview.rules,
            files,
            warnings: noted.map(|note| note.text.clone()).chain(preview.warnings).collect(),
            problems,
        }
    }

    /// Whether nothing is known that will fail.
    pub fn is_good(&self) -> bool {
        self.problems.is_empty()
    }
}

/// The CLI's runs of boot.md 1.1.
fn cli_children(settings: &Settings) -> Vec<Child> {
    let up =
        |when: &str| Child { program: "tailscale", args: argv::up(settings, None).redacted(), when: when.to_owned() };
    match settings.mode {
        Mode::OneStep(_) => Vec::new(),
        Mode::AlwaysAuth => vec![up("on every start")],
        Mode::AuthOnce => vec![
            up(NEEDS_LOGIN),
            Child {
                program: "tailscale",
                args: redact_args(&argv::set(settings)),
                when: "when the node is running".to_owned(),
            },
        ],
    }
}

/// What is wrong with a serve config that is the variable itself: no edit will mend it while boot runs.
pub fn inline_problem(settings: &Settings) -> Option<String> {
    let Source::Inline(text) = Source::parse(settings.serve_config.as_deref()?) else { return None };
    Document::parse(&text).err().map(|error| format!("TS_SERVE_CONFIG: {error}"))
}

/// What is served and advertised (boot.md 7.2, 7.4).
fn serving_steps(settings: &Settings) -> Vec<Step> {
    let step = |what: &str, when: &str| Step { what: what.to_owned(), when: when.to_owned() };
    let mut steps = Vec::new();
    if settings.serve_config.is_some() {
        if clears_serve_config(settings) {
            steps.push(step("serve-config: take away what a former run served", "when the node is running"));
        }
        steps.push(step("serve-config: what TS_SERVE_CONFIG says", "when it or the node's certificate domain changes"));
        if settings.advertising.is_automatic {
            steps.push(step("prefs: advertise its Services, withdraw what left it", "when they change"));
            if !settings.advertising.without_certificate {
                steps.push(step("prefs: advertise those on 443 alone", "when there is a certificate"));
            }
        }
    }
    steps
}

const NEEDS_LOGIN: &str = "when the daemon reports NeedsLogin";

/// Whether the settings need the CLI.
pub(super) fn uses_cli(settings: &Settings) -> bool {
    match settings.persona {
        Persona::Containerboot => !cli_children(settings).is_empty(),
        Persona::Tailpod => login_steps(settings).is_ok_and(|(child, _)| child.is_some()),
    }
}

/// How `tailpod boot` logs in and applies prefs (boot.md E.2, E.3).
fn login_steps(settings: &Settings) -> Result<(Option<Child>, Vec<Step>), String> {
    if matches!(settings.mode, Mode::OneStep(_)) {
        return Ok((None, Vec::new()));
    }
    let cli = |why: &str| {
        // The real path is not known before the file is written.
        let args = argv::up(settings, None).with_files(|_| Ok::<_, fmt::Error>(PathBuf::from("<memory>")));
        let args = redact_args(&args.unwrap_or_default());
        Child { program: "tailscale", args, when: format!("{NEEDS_LOGIN} ({why})") }
    };
    let step = |what: &str, when: &str| Step { what: what.to_owned(), when: when.to_owned() };
    let desired = match desired_prefs(settings).map_err(|error| error.to_string())? {
        FlagsOutcome::NeedsCli { flag } => return Ok((Some(cli(&format!("only the CLI knows {flag}"))), Vec::new())),
        FlagsOutcome::Prefs(desired) => desired,
    };
    let mut steps = vec![step("prefs: apply what differs", "on every start")];
    if desired.login.needs_cli() {
        return Ok((Some(cli("only the CLI can use this credential")), steps));
    }
    steps.push(match &desired.login {
        Login::AuthKey(_) => step("start: log in with the auth key", NEEDS_LOGIN),
        Login::Interactive | Login::Credentials(_) if settings.kube.secret.is_some() => {
            step("start: log in with the Secret's authkey, else interactively", NEEDS_LOGIN)
        }
        Login::Interactive | Login::Credentials(_) => step("login-interactive: wait for a human", NEEDS_LOGIN),
    });
    Ok((None, steps))
}

/// The keys of boot.md 4.5.
fn secret(settings: &Settings) -> Option<SecretPlan> {
    let name = settings.kube.secret.clone()?;
    let one_step = matches!(settings.mode, Mode::OneStep(_));
    let outside = matches!(settings.kube.access, KubeAccess::Kubeconfig { .. });
    let (mut writes, mut removes) = (Vec::new(), Vec::new());
    if settings.kube.in_kubernetes || outside {
        writes.push("tailscale_capver");
        writes.extend(settings.pod.uid.is_some().then_some("pod_uid"));
        writes.extend(["device_id", "device_fqdn", "device_ips"]);
        writes.extend(settings.serve_config.is_some().then_some("https_endpoint"));
        // tailpod asks for a new key in the Secret as well when the one that is there is refused.
        let asks = one_step || settings.persona == Persona::Tailpod;
        writes.extend(asks.then_some("reissue_authkey"));
        removes.extend(["https_endpoint", "egress-services", "ingress-config.json"]);
        let deletes = matches!(settings.mode, Mode::AuthOnce) || settings.delete_authkey;
        removes.extend(deletes.then_some("authkey"));
    }
    let tailscaled_writes = match settings.daemon.state {
        StateStore::Secret { .. } => vec!["_machinekey", "_current-profile", "_profiles", "profile-<id>"],
        StateStore::Dir(_) | StateStore::Memory => Vec::new(),
    };
    Some(SecretPlan { name, writes, removes, tailscaled_writes })
}

fn listeners(settings: &Settings) -> Vec<Listener> {
    let mut listeners = Vec::new();
    let mut add = |address: String, serves: &str, process| {
        listeners.push(Listener { address, serves: serves.to_owned(), process });
    };
    add(settings.daemon.socket.display().to_string(), "LocalAPI", "tailscaled");
    for (address, serves) in [
        (&settings.daemon.socks5_server, "SOCKS5 proxy"),
        (&settings.daemon.outbound_http_proxy_listen, "HTTP proxy"),
        (&settings.daemon.debug_addr, "debug"),
    ] {
        if let Some(address) = address {
            add(address.clone(), serves, "tailscaled");
        }
    }
    if let Some(main) = &settings.local.main {
        let parts =
            [(main.metrics, "metrics"), (main.health, "health checks"), (main.egress, "the hook before a shutdown")];
        let serves: Vec<_> = parts.into_iter().filter_map(|(serves, what)| serves.then_some(what)).collect();
        add(main.addr.text.clone(), &serves.join(" and "), "boot");
    }
    if let Some(addr) = &settings.local.deprecated_health {
        add(addr.text.clone(), "health check (deprecated)", "boot");
    }
    listeners
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "boot as {}, {}", self.persona, self.mode)?;
        section(f, "CHILDREN", &self.children, |child| (command(child), child.when.clone()))?;
        section(f, "LOCALAPI", &self.local_api, |step| (step.what.clone(), step.when.clone()))?;
        if let Some(secret) = &self.secret {
            let keys = [
                ("boot writes", &secret.writes),
                ("boot removes", &secret.removes),
                ("tailscaled writes", &secret.tailscaled_writes),
            ];
            let keys: Vec<_> = keys.into_iter().filter(|(_, keys)| !keys.is_empty()).collect();
            section(f, &format!("SECRET {}", secret.name), &keys, |(who, keys)| (keys.join(" "), (*who).to_owned()))?;
        }
        section(f, "LISTENERS", &self.listeners, |l| (l.address.clone(), format!("{}, by {}", l.serves, l.process)))?;
        let rules: Vec<&str> = self.rules.iter().flat_map(|rules| rules.lines()).collect();
        section(f, "PACKET RULES", &rules, |line| ((*line).to_owned(), String::new()))?;
        section(f, "FILES", &self.files, |file| {
            let state = file.problem.as_deref().unwrap_or("ok");
            (file.path.clone(), format!("{}: {state}", file.purpose))
        })?;
        section(f, "WARNINGS", &self.warnings, |text| (text.clone(), String::new()))?;
        section(f, "PROBLEMS", &self.problems, |text| (text.clone(), String::new()))
    }
}

/// A heading, then each item with its remark beneath.
fn section<T>(
    f: &mut fmt::Formatter<'_>,
    heading: &str,
    items: &[T],
    line: impl Fn(&T) -> (String, String),
) -> fmt::Result {
    if items.is_empty() {
        return Ok(());
    }
    writeln!(f, "\n{heading}")?;
    for (text, remark) in items.iter().map(line) {
        writeln!(f, "  {text}")?;
        if !remark.is_empty() {
            writeln!(f, "      {remark}")?;
        }
    }
    Ok(())
}

/// The command as it could be pasted into a shell.
fn command(child: &Child) -> String {
    let mut text = child.program.to_owned();
    for arg in &child.args {
        let is_plain = !arg.is_empty() && arg.chars().all(|c| c.is_alphanumeric() || "-_=./:,@+%[]".contains(c));
        let arg = if is_plain { arg.clone() } else { format!("'{}'", arg.replace('\'', r"'\''")) };
        write!(text, " {arg}").expect("writing to a String");
    }
    text
}

#[cfg(test)]
mod tests;
