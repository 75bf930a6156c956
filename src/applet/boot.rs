//! `tailpod boot`, also called as `containerboot` and `run.sh`.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use tokio::time::timeout;

use super::healthcheck;
use crate::boot::files::{check_files, needed_files};
use crate::boot::login_failure::Class;
use crate::boot::plan::{Plan, inline_problem};
use crate::boot::{self, Outcome, termination};
use crate::cli::exit::ExitStatus;
use crate::cli::later::Later;
use crate::cli::output::Output;
use crate::cli::program::Invocation;
use crate::proxygroup::once;
use crate::settings::{self, Note, NoteLevel, Persona, Problems, ProcessEnv, Settings, Vars, capver};
use crate::shutdown::{self, Signals};

/// `tailscaled --version` needs milliseconds.
const VERSION_LIMIT: Duration = Duration::from_secs(5);

/// What `boot` takes besides the environment.
#[derive(Debug, Default, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    long_about = "Bring a node up and keep it up.\n\n\
        Starts tailscaled, logs in, keeps the node's state in a Secret or a directory, answers health checks, and \
        stops tailscaled in order when it is stopped. Everything is set by environment variables, the same ones that \
        containerboot reads. Called as `containerboot` or `run.sh` it keeps to containerboot's contract and takes no \
        arguments.",
    after_long_help = "\
Examples:
  tailpod boot                        Run as a container's entry point
  tailpod boot --check                Check the environment and show what would be done
  tailpod boot --print-settings       Show what the environment means, without its secrets
  tailpod boot healthcheck --ready    Exec probe for images without a shell"
)]
pub struct Args {
    /// Check the environment and every file it names, show the plan, and start nothing
    #[arg(long)]
    check: bool,

    /// Print what the environment means as JSON, without secrets, and start nothing
    #[arg(long, conflicts_with = "check")]
    print_settings: bool,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Ask the boot in this container whether it is healthy (exec probe)
    Healthcheck(Later<healthcheck::Args>),
}

impl Args {
    /// Whether this is the run that a container is there for, with upstream's log format.
    pub fn is_the_long_run(&self) -> bool {
        !self.check && !self.print_settings && self.command.is_none()
    }
}

/// Runs it. As `containerboot`, arguments that were set aside are warned about once.
pub async fn run(args: Args, invocation: &Invocation, out: &Output) -> anyhow::Result<ExitStatus> {
    let vars = ProcessEnv::capture();
    if let Some(Command::Healthcheck(Later(args))) = args.command {
        return healthcheck::run(&args, out).await;
    }
    if invocation.ignored > 0 {
        // Their text stays out of the log: somebody may have put a key there.
        tracing::warn!(
            "[warning] arguments are ignored ({} given): everything is set by environment variables",
            invocation.ignored
        );
    }
    let persona = invocation.persona;
    let mut signals = Signals::install().context("cannot watch for signals")?;
    let settings = settings::read_with(&vars, persona, wanted_capver(&vars, persona).await);
    let settings = match settings {
        Ok(settings) => settings,
        Err(problems) if args.check || args.print_settings => return Ok(complain(&problems, out)),
        Err(problems) => return Ok(refuse(&problems, persona)),
    };
    if args.check {
        return check(&settings, &vars, out);
    }
    if args.print_settings {
        show_notes(&settings.notes, out);
        out.json(&settings.redacted_json())?;
        return Ok(ExitStatus::Done);
    }
    log_notes(&settings.notes, persona);
    if let Some(problem) = inline_problem(&settings) {
        tracing::error!("invalid configuration: {problem}");
        return Ok(ExitStatus::Failed);
    }
    raise_open_files_limit();
    let termination_log = settings.termination_log.clone().filter(|_| persona == Persona::Tailpod);
    let outcome = boot::run(settings, &vars.into_variables(), &mut signals).await;
    Ok(conclude(&outcome, termination_log.as_deref()))
}

/// As `tailpod boot` in one-step mode the daemon is asked which config file it can read (W28); as `containerboot` no
/// command may run that upstream does not run.
async fn wanted_capver(vars: &ProcessEnv, persona: Persona) -> Option<u32> {
    if persona == Persona::Containerboot || !settings::depends_on_the_daemon(vars) {
        return None;
    }
    daemon_capver().await
}

/// The capability version of the tailscaled on `PATH`, if it says one that we know.
pub(super) async fn daemon_capver() -> Option<u32> {
    capver::of_release(&daemon_version().await?)
}

/// The version of the tailscaled on `PATH`, if there is one that says it in time.
pub(super) async fn daemon_version() -> Option<String> {
    let mut command = tokio::process::Command::new("tailscaled");
    let asked = command.arg("--version").stdin(Stdio::null()).kill_on_drop(true).output();
    let answer = timeout(VERSION_LIMIT, asked).await.ok()?.ok()?;
    let text = String::from_utf8_lossy(&answer.stdout);
    text.lines().next().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty())
}

fn check(settings: &Settings, vars: &ProcessEnv, out: &Output) -> anyhow::Result<ExitStatus> {
    let search_path = vars.get("PATH").ok().flatten();
    let files = check_files(needed_files(settings), search_path.as_deref());
    let plan = Plan::new(settings, files, &once::read(&settings.forward));
    if out.is_json() {
        out.json(&plan)?;
    } else {
        out.data(&plan)?;
    }
    Ok(if plan.is_good() { ExitStatus::Done } else { ExitStatus::Failed })
}

/// Bad settings, said at the terminal: every problem, then what to do.
fn complain(problems: &Problems, out: &Output) -> ExitStatus {
    show_notes(problems.notes(), out);
    for line in problems.lines() {
        out.error(line);
    }
    for hint in problems.hints() {
        out.hint(hint);
    }
    // As upstream: boot ends with 1 on bad settings.
    ExitStatus::Failed
}

fn show_notes(notes: &[Note], out: &Output) {
    for Note { level, text } in notes {
        match level {
            NoteLevel::Info => out.note(text),
            // The log's contract has some warnings labelled in their text; here the label is ours.
            NoteLevel::Warning => out.warning(text.strip_prefix("[warning] ").unwrap_or(text)),
        }
    }
}

/// Bad settings: every problem as a log line, the one upstream would have stopped at first.
fn refuse(problems: &Problems, persona: Persona) -> ExitStatus {
    log_notes(problems.notes(), persona);
    for line in problems.lines() {
        tracing::error!("{line}");
    }
    for hint in problems.hints() {
        tracing::info!("hint: {hint}");
    }
    ExitStatus::Failed
}

/// The last line, the termination message, the exit code.
fn conclude(outcome: &Outcome, termination_log: Option<&Path>) -> ExitStatus {
    let (status, message) = match outcome {
        Outcome::Requested | Outcome::Reissued => return ExitStatus::Done,
        Outcome::Failed(text) => (ExitStatus::Failed, text.clone()),
        Outcome::LoginFailed(failure) => {
            let status = match failure.class {
                Class::KeyInvalid => ExitStatus::KeyUnknown,
                Class::KeySpent => ExitStatus::KeyExpired,
                Class::TagsNotPermitted => ExitStatus::TagsNotPermitted,
                Class::NodeKeyExpired => ExitStatus::NodeKeyExpired,
                Class::ApprovalPending => ExitStatus::ApprovalPending,
                Class::LoginNeeded => ExitStatus::LoginNeeded,
                Class::ControlUnreachable => ExitStatus::ControlUnreachable,
                Class::Unknown => ExitStatus::Failed,
            };
            (status, format!("{failure}; {}", failure.next_step()))
        }
    };
    tracing::error!("{message}");
    if let Some(path) = termination_log
        && let Err(error) = termination::write(path, &message)
    {
        tracing::debug!("the termination message was not written: {error}");
    }
    status
}

fn log_notes(notes: &[Note], persona: Persona) {
    for note in notes {
        match note.level {
            NoteLevel::Info => tracing::info!("{}", note.line(persona)),
            NoteLevel::Warning => tracing::warn!("{}", note.line(persona)),
        }
    }
}

/// tailscaled holds a connection per peer and inherits the limit (boot.md E.8).
fn raise_open_files_limit() {
    match shutdown::raise_open_files_limit() {
        Ok(limit) if limit.before != limit.now => {
            tracing::info!("raised the limit on open files from {} to {}", limit.before, limit.now);
        }
        Ok(_) => {}
        Err(error) => tracing::warn!("cannot raise the limit on open files: {error}"),
    }
}
