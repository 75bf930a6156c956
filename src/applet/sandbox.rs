//! `tailpod sandbox`: a pretend Pod on this machine.
//!
//! Without a command it plays the guided tour; with one it runs that command as if it were in a Pod, and ends as
//! the command ends. The hidden roles are what the sandbox starts itself as.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::exit::ExitStatus;
use crate::cli::output::{Ink, Output};
use crate::cli::program::NAME;
use crate::cli::report::Advise;
use crate::cli::table::{Column, Table};
use crate::sandbox::mountns::{self, Refused};
use crate::sandbox::standin::{self, Start};
use crate::sandbox::tour::{self, Row, Step};
use crate::sandbox::{Daemons, KeyOptions, Manner, Mode, Sandbox, SandboxOptions, control};

/// Text width of the tour.
const WIDTH: usize = 88;

/// The command could not be started, as shells say it.
const NOT_STARTED: u8 = 127;

/// What to play.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    long_about = "Play a Pod on this machine: a pretend Kubernetes API, tailscaled, control server and operator, all on \
        loopback and gone afterwards.\n\n\
        Without a command: a guided tour in which a node boots, loses its key, asks for another and comes back. With a \
        command: the command believes itself in a Pod whose state Secret `tailscale` holds a good auth key. Commands \
        that are not ours need a private mount namespace, so root or user namespaces.",
    after_long_help = "\
Examples:
  tailpod sandbox                               Watch a node live, lose its key and come back
  tailpod sandbox --json                        The same, one JSON object a step
  tailpod sandbox -- containerboot              Run a node until Ctrl-C
  tailpod sandbox -- sh                         Look around in a Pod; `tailpod sandbox control` changes the tailnet
  tailpod sandbox --with-tailscaled -- containerboot
                                                The same with the real daemon on PATH"
)]
pub struct Args {
    /// Use the real tailscaled and tailscale on PATH instead of the stand-ins
    #[arg(long, requires = "command")]
    with_tailscaled: bool,

    /// The control server the real tailscaled logs in at
    #[arg(long, value_name = "URL", requires = "with_tailscaled")]
    login_server: Option<String>,

    /// The command to run in the Pod
    #[arg(last = true, value_name = "COMMAND", value_hint = clap::ValueHint::CommandWithArguments)]
    command: Vec<OsString>,

    #[command(subcommand)]
    role: Option<Role>,
}

/// What the sandbox starts itself as.
#[derive(Debug, clap::Subcommand)]
enum Role {
    /// Ask the pretend control server of the Pod around this command for something
    #[command(after_long_help = CONTROL_HELP)]
    Control {
        /// What to ask for
        #[arg(required = true, value_name = "WORD")]
        words: Vec<String>,
    },
    /// Play the tailscaled process
    #[command(hide = true)]
    Tailscaled(StandIn),
    /// Play the tailscale process
    #[command(hide = true)]
    Tailscale(StandIn),
    /// Become a command as a Pod's first process is
    #[command(hide = true)]
    InPod {
        /// The Pod's directory, to be laid over the machine's in a mount namespace
        #[arg(long)]
        root: Option<PathBuf>,
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

const CONTROL_HELP: &str = "\
Examples:
  tailpod sandbox control key reusable      Make an auth key that is good for many logins
  tailpod sandbox control devices           List who is in the tailnet
  tailpod sandbox control expire sandbox    End a node's key

It knows:
  key [reusable] [expired] [tag:NAME…]
  revoke KEY, expire-key KEY
  devices, peer NAME, expire DEVICE, delete DEVICE, approve DEVICE
  approval on|off
  service LABEL…, certificate DAYS NAME…
  visit URL";

#[derive(Debug, clap::Args)]
struct StandIn {
    /// The sandbox's control socket
    #[arg(long)]
    link: PathBuf,
    /// The sandbox's LocalAPI socket
    #[arg(long)]
    backend: PathBuf,
    #[arg(last = true)]
    args: Vec<OsString>,
}

impl StandIn {
    fn start(self) -> Start {
        Start { link: self.link, backend: self.backend, args: self.args, env: std::env::vars_os().collect() }
    }
}

/// Plays.
pub async fn run(args: Args, out: &Output) -> anyhow::Result<ExitStatus> {
    match args.role {
        Some(Role::Tailscaled(args)) => {
            let code = standin::tailscaled(args.start()).await.context("the tailscaled stand-in failed")?;
            Ok(ExitStatus::Child(code))
        }
        Some(Role::Tailscale(args)) => {
            let code = standin::tailscale(args.start()).await.context("the tailscale stand-in failed")?;
            Ok(ExitStatus::Child(code))
        }
        Some(Role::InPod { root, command }) => Err(in_pod(root.as_deref(), &command)),
        Some(Role::Control { words }) => ask_control(words).await,
        None if args.command.is_empty() => show_tour(out).await,
        None => run_command(&args, out).await,
    }
}

// === The tour ===

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Comparison<'a> {
    state_secret: &'a [Row],
}

async fn show_tour(out: &Output) -> anyhow::Result<ExitStatus> {
    let options = SandboxOptions::new(this_binary()?);
    let mut shown = Ok(());
    let mut tell = |step: &Step| {
        if shown.is_ok() {
            shown = show_step(step, out);
        }
    };
    let rows = tokio::select! {
        rows = tour::play(options, &mut tell) => rows?,
        signal = ended() => return signal,
    };
    shown?;
    if out.is_json() {
        out.json(&Comparison { state_secret: &rows })?;
        return Ok(ExitStatus::Done);
    }
    let mut table = Table::new(&[Column::Text("key"), Column::Text("before"), Column::Text("after")]);
    for Row { key, before, after } in &rows {
        table.row([key, before.as_deref().unwrap_or("-"), after.as_deref().unwrap_or("-")]);
    }
    out.raw(&format!(
        "\n{}\n",
        out.ink(Ink::Bold, "The state Secret, before the key died and after the node came back")
    ))?;
    out.data(table.render())?;
    out.raw("\n")?;
    out.hint("`tailpod sandbox -- sh` lets you look around in such a Pod");
    Ok(ExitStatus::Done)
}

fn show_step(step: &Step, out: &Output) -> anyhow::Result<()> {
    if out.is_json() {
        return out.json(step);
    }
    let gap = if step.number > 1 { "\n" } else { "" };
    let heading = out.ink(Ink::Bold, &format!("{}. {}", step.number, step.title));
    let mut text = format!("{gap}{heading}  ({} ms)\n", step.milliseconds);
    // Writing to a String cannot fail.
    for line in wrap(step.story, WIDTH - 3) {
        let _ = writeln!(text, "   {line}");
    }
    let _ = writeln!(text, "   {}", out.ink(Ink::Cyan, &format!("$ {}", step.command)));
    let width = step.facts.iter().map(|fact| fact.name.len()).max().unwrap_or_default();
    for fact in &step.facts {
        let _ = writeln!(text, "   {:width$}  {}", fact.name, out.ink(Ink::Green, &fact.value));
    }
    out.raw(&text)
}

/// Words of `text` in lines of at most `width` characters.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is a first line");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// Completes when somebody ends us; what is running is then dropped, and cleans up.
async fn ended() -> anyhow::Result<ExitStatus> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for signals")?;
    tokio::select! {
        _ = terminate.recv() => Ok(ExitStatus::Child(143)),
        pressed = tokio::signal::ctrl_c() => pressed.map(|()| ExitStatus::Interrupted).context("cannot watch for signals"),
    }
}

// === A command in the Pod ===

async fn run_command(args: &Args, out: &Output) -> anyhow::Result<ExitStatus> {
    let environment: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    let variable = |name: &str| environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let path = variable("PATH").unwrap_or_default();
    let daemons = if args.with_tailscaled { Daemons::Real } else { Daemons::StandIns };
    if daemons == Daemons::Real {
        for program in ["tailscaled", "tailscale"] {
            let found = std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
            if !found {
                let error = anyhow!("there is no `{program}` on PATH");
                return Err(error
                    .hint("leave out `--with-tailscaled` to use the stand-in")
                    .exit_with(ExitStatus::Usage));
            }
        }
    }
    let mut options = SandboxOptions { mode: Mode::Automatic, path, daemons, ..SandboxOptions::new(this_binary()?) };
    if let Some(name) = variable("TS_KUBE_SECRET").filter(|name| !name.is_empty()) {
        options.secret = name.to_string_lossy().into_owned();
    }
    let sandbox = Sandbox::start(options).await.context("cannot start the sandbox")?;
    let key = (daemons == Daemons::StandIns).then(|| {
        let options = KeyOptions { reusable: true, ..KeyOptions::default() };
        ("authkey", sandbox.daemon().tailnet(|tailnet| tailnet.issue(options)).expose().clone())
    });
    sandbox.api().put_secret(sandbox.namespace(), sandbox.secret(), key);

    let program = args.command.first().map(OsString::as_os_str).unwrap_or_default();
    let manner = sandbox.manner(program);
    let mut command = tokio::process::Command::new(sandbox.binary());
    command.arg0(NAME).args(["sandbox", "in-pod"]);
    if manner == Manner::Namespace {
        command.arg("--root").arg(sandbox.pod().root());
    }
    command.arg("--").args(&args.command);
    let given: Vec<&OsString> = environment.iter().map(|(name, _)| name).collect();
    command.envs(sandbox.env_for(manner));
    // What a Pod's manifest would set, the caller may set otherwise.
    command.envs(sandbox.pod_env().into_iter().filter(|(name, _)| !given.contains(&name)));
    if let Some(url) = &args.login_server {
        let mut extra = variable("TS_EXTRA_ARGS").unwrap_or_default();
        extra.push(" --login-server=");
        extra.push(url);
        command.env("TS_EXTRA_ARGS", OsStr::new(extra.to_string_lossy().trim()));
    }
    out.note(format!("Pod in {}, API server at {}", sandbox.pod().root().display(), sandbox.api().url()));
    let mut child = command.spawn().with_context(|| format!("cannot start `{}`", program.display()))?;

    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for signals")?;
    loop {
        let forwarded = tokio::select! {
            status = child.wait() => return Ok(ExitStatus::from_child(status.context("cannot wait for the command")?)),
            _ = terminate.recv() => Signal::SIGTERM,
            _ = interrupt.recv() => Signal::SIGINT,
        };
        if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
            // A command that is gone already is what its wait will say.
            let _ = kill(Pid::from_raw(pid), forwarded);
        }
    }
}

/// Becomes the command; yields only why that failed.
fn in_pod(root: Option<&Path>, command: &[OsString]) -> anyhow::Error {
    let Some((program, args)) = command.split_first() else { return anyhow!("a command is missing") };
    // Orphans of a Pod end up at its first process.
    if let Err(errno) = set_child_subreaper(true) {
        return anyhow::Error::new(errno).context(format!("cannot make `{}` a sub-reaper", program.display()));
    }
    if let Some(Err(refused)) = root.map(mountns::enter) {
        let forbidden = matches!(refused, Refused::Forbidden(_));
        let error = anyhow::Error::new(refused);
        let error = error.context(format!("cannot let `{}` believe itself in a Pod", program.display()));
        return if forbidden {
            error.hint("run as root, or allow unprivileged user namespaces; our own programs need neither")
        } else {
            error
        };
    }
    let error = std::process::Command::new(program).args(args).exec();
    anyhow::Error::new(error)
        .context(format!("cannot run `{}`", program.display()))
        .exit_with(ExitStatus::Child(NOT_STARTED))
}

async fn ask_control(words: Vec<String>) -> anyhow::Result<ExitStatus> {
    let link = std::env::vars_os().find_map(|(name, value)| (name == control::LINK_VARIABLE).then_some(value));
    let link = link.ok_or_else(|| {
        let error = anyhow!("not in a sandbox: `{}` is not set", control::LINK_VARIABLE);
        error.hint("run it inside of `tailpod sandbox -- COMMAND`").exit_with(ExitStatus::Usage)
    })?;
    let code = standin::control(Path::new(&link), words).await.context("cannot reach the sandbox")?;
    Ok(ExitStatus::Child(code))
}

fn this_binary() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("cannot find this program's own file")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stories_are_wrapped_between_words() {
        assert_eq!(wrap("a node boots and  stays", 10), ["a node", "boots and", "stays"]);
        assert_eq!(wrap("unbreakable", 3), ["unbreakable"]);
    }
}
