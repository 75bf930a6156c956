//! Performs a login: LocalAPI for what it can do, the CLI with a file on memory for the rest (boot.md E.2, E.3).

use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::flags::{self, FlagsOutcome};
use super::keyfile::{KeyFile, KeyFileError};
use super::machine::{LoginError, LoginSource};
use super::prefs::{self, Identity};
use super::tailscale_cli::{self, CliError};
use super::{argv, chain};
use crate::daemon::exit::Exit;
use crate::daemon::program::Program;
use crate::k8s::state;
use crate::localapi::types::StartOptions;
use crate::secret::{Secret, key_id, redact_keys};
use crate::settings::Login;
use crate::settings::login::key_needs_cli;
use crate::telemetry;

/// A key file cannot be larger than this; keys have about 60 characters.
const KEY_FILE_LIMIT: u64 = 16 * 1024;

/// Logs in with `source`. As far as LocalAPI goes, "ok" means that the daemon has the key: whether control takes it
/// shows on the bus.
pub(super) async fn login(context: &Context, source: LoginSource, stop: &CancellationToken) -> Result<(), LoginError> {
    match source {
        LoginSource::File(path) => with_key(context, read_key(&path)?, stop).await,
        LoginSource::Environment => match &context.settings.login {
            Login::AuthKey(key) => with_key(context, key.clone(), stop).await,
            Login::Interactive | Login::Credentials(_) => {
                Err(LoginError::Unavailable("TS_AUTHKEY is not set".to_owned()))
            }
        },
        LoginSource::Secret => with_key(context, secret_key(context).await?, stop).await,
        LoginSource::Credentials => with_cli(context, None, stop).await,
        LoginSource::Human => start(context, None, stop).await,
    }
}

/// A run of the CLI that did not end well.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliFailure {
    /// It ended with this status, after these last words.
    #[error("{exit}")]
    Ended {
        /// The status.
        exit: Exit,
        /// The last 16 KiB of its standard error.
        stderr: String,
    },
    /// We are stopping, or tailscaled died.
    #[error("context canceled")]
    Interrupted,
    /// It could not be started.
    #[error("{0}")]
    NotStarted(String),
}

/// Runs the CLI with our environment; its standard error is passed on without the secrets in it.
pub(super) async fn run_tailscale(
    context: &Context,
    args: Vec<String>,
    stop: &CancellationToken,
) -> Result<(), CliFailure> {
    let program = Program::new("tailscale", context.environment.clone()).args(args);
    let secrets = context.secrets();
    let show = |line: &str| telemetry::pass_on(&redact(line, &secrets));
    let ended = tailscale_cli::run(&context.children, &program, stop.cancelled(), show).await;
    match ended {
        Ok(finished) if finished.exit.success() => Ok(()),
        Ok(finished) => {
            if finished.stderr.contains("requires mentioning all") {
                // W20: the CLI refuses to drop a setting that an earlier start made.
                tracing::warn!(
                    "tailscale refuses because a setting of an earlier start is missing now; name it again in \
                     TS_EXTRA_ARGS, or add --reset there to drop it (`tailpod boot` applies changes by itself)"
                );
            }
            Err(CliFailure::Ended { exit: finished.exit, stderr: redact(&finished.stderr, &secrets) })
        }
        Err(CliError::Interrupted { .. }) => Err(CliFailure::Interrupted),
        Err(CliError::Spawn(error)) => Err(CliFailure::NotStarted(chain(&error))),
    }
}

/// The CLI quotes whole command lines; keys that do not look like keys are known by their value.
fn redact(text: &str, secrets: &[Secret<String>]) -> String {
    let known = |text: String, secret: &Secret<String>| text.replace(secret.expose(), &key_id(secret.expose()));
    redact_keys(&secrets.iter().fold(text.to_owned(), known))
}

fn read_key(path: &Path) -> Result<Secret<String>, LoginError> {
    let unavailable = |why: String| LoginError::Unavailable(format!("no auth key in `{}`: {why}", path.display()));
    let size = std::fs::metadata(path).map_err(|error| unavailable(error.to_string()))?.len();
    if size > KEY_FILE_LIMIT {
        return Err(unavailable(format!("it has {size} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| unavailable(error.to_string()))?;
    match text.trim() {
        "" => Err(unavailable("it is empty".to_owned())),
        key => Ok(Secret::new(key.to_owned())),
    }
}

async fn secret_key(context: &Context) -> Result<Secret<String>, LoginError> {
    let unavailable = |why: String| LoginError::Unavailable(format!("no auth key in the state Secret: {why}"));
    let Some(secret) = context.secret() else { return Err(unavailable("there is no Secret".to_owned())) };
    let stored = secret.cluster.secret(&secret.name).await.map_err(|error| unavailable(error.to_string()))?;
    let stored = stored.ok_or_else(|| unavailable(format!("Secret {} does not exist", secret.name)))?;
    match stored.auth_key(state::AUTHKEY) {
        Some(key) => Ok(key),
        None => Err(unavailable(format!("Secret {} has no key `{}`", secret.name, state::AUTHKEY))),
    }
}

async fn with_key(context: &Context, key: Secret<String>, stop: &CancellationToken) -> Result<(), LoginError> {
    if key_needs_cli(key.expose()) {
        with_cli(context, Some(&key), stop).await
    } else {
        start(context, Some(key), stop).await
    }
}

/// `start` with the settings as prefs and, when there is one, the key in its body.
async fn start(context: &Context, key: Option<Secret<String>>, stop: &CancellationToken) -> Result<(), LoginError> {
    let desired = match flags::desired_prefs(&context.settings) {
        Ok(FlagsOutcome::Prefs(desired)) => desired,
        Ok(FlagsOutcome::NeedsCli { flag }) => {
            tracing::info!("TS_EXTRA_ARGS has {flag}, which only the tailscale command knows; using it");
            return with_cli(context, key.as_ref(), stop).await;
        }
        Err(error) => return Err(LoginError::Refused(error.to_string())),
    };
    for note in &desired.notes {
        tracing::info!("{note}");
    }
    let refused = |error: crate::localapi::Error| LoginError::Refused(chain(&error));
    let login = async {
        let current = context.api.prefs().await.map_err(refused)?;
        let changes = prefs::drift(&current, &desired, Identity::Fresh);
        let update_prefs = Some(prefs::applied(&current, &changes));
        context.api.start(&StartOptions { update_prefs, auth_key: key }).await.map_err(refused)?;
        context.api.login_interactive().await.map_err(refused)
    };
    tokio::select! {
        outcome = login => outcome,
        () = stop.cancelled() => Err(LoginError::Interrupted),
    }
}

/// `tailscale up`, every secret as `file:<path>` on memory.
async fn with_cli(context: &Context, key: Option<&Secret<String>>, stop: &CancellationToken) -> Result<(), LoginError> {
    // Removed when they go out of scope, whatever ends the command.
    let mut files = Vec::new();
    let command = argv::up(&context.settings, key).with_files(|secret| {
        let file = KeyFile::write(secret)?;
        let path = file.path().to_owned();
        files.push(file);
        Ok(path)
    });
    let command = command.map_err(|error: KeyFileError| LoginError::Refused(chain(&error)))?;
    match run_tailscale(context, command, stop).await {
        Ok(()) => Ok(()),
        Err(CliFailure::Interrupted) => Err(LoginError::Interrupted),
        Err(CliFailure::Ended { exit, stderr }) => {
            let last = stderr.lines().map(str::trim).rfind(|line| !line.is_empty());
            Err(LoginError::Refused(last.map_or_else(|| exit.to_string(), ToOwned::to_owned)))
        }
        Err(CliFailure::NotStarted(text)) => Err(LoginError::Refused(text)),
    }
}
