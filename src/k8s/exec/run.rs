//! One run of a plugin: a process with limits.
//!
//! It gets our environment, what the kubeconfig adds, and the request; no standard input unless it may talk to a
//! person; our standard error always, so that "open this page" is seen. Its answer and its time are limited. A run that
//! is dropped, takes too long or says too much is killed with everything it has started in its process group. An
//! interactive one stays in our group, since the terminal belongs to that, and has no time limit.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStdout, Command};
use zeroize::Zeroizing;

use super::config::Config;
use super::error::CredentialError;
use super::request;

/// The longest answer. A certificate chain is a few kilobytes.
pub(super) const ANSWER_LIMIT: usize = 1 << 20;
/// How long a plugin's own children may hold its standard output after it has ended.
const LINGER: Duration = Duration::from_millis(500);

/// One run, ready to start.
pub(super) struct Run<'a> {
    pub(super) config: &'a Config,
    /// What the policy has resolved the command to.
    pub(super) program: PathBuf,
    pub(super) interactive: bool,
    pub(super) time_limit: Duration,
    pub(super) withheld: &'a [OsString],
}

/// Kills the group unless it is told that the plugin has ended by itself.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // Fails when nothing is left of it.
            let _ = killpg(leader, Signal::SIGKILL);
        }
    }
}

impl Run<'_> {
    /// Runs it to its end; what it printed.
    pub(super) async fn stdout(self) -> Result<Zeroizing<Vec<u8>>, CredentialError> {
        let name = || self.config.command.clone();
        let mut child = self.command().spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
                CredentialError::NotFound { command: name(), hint: None }
            }
            _ => CredentialError::Start(error.to_string()),
        })?;
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let mut group = Group(leader.filter(|_| !self.interactive));
        let Some(mut stdout) = child.stdout.take() else {
            return Err(CredentialError::Start("there is no standard output".to_owned()));
        };
        // Room for all of it at once: growing would leave copies behind.
        let mut answer = Zeroizing::new(Vec::with_capacity(ANSWER_LIMIT + 1));
        let ended = ended(&mut child, &mut stdout, &mut answer);
        let limit = if self.interactive { Duration::MAX } else { self.time_limit };
        let status = match tokio::time::timeout(limit, ended).await {
            Err(_) => return Err(CredentialError::TimedOut { command: name(), after: limit }),
            Ok(Err(error)) => return Err(CredentialError::Start(error.to_string())),
            Ok(Ok(None)) => return Err(CredentialError::TooLong { command: name(), limit: ANSWER_LIMIT }),
            Ok(Ok(Some(status))) => status,
        };
        if status.success() {
            // A helper that it left behind on purpose lives on.
            group.0 = None;
            return Ok(answer);
        }
        let code = status.code().unwrap_or(-1);
        tracing::debug!(command = self.config.command, code, signal = status.signal(), "the plugin failed");
        Err(CredentialError::Failed { command: name(), code })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.config.args);
        for name in self.withheld {
            command.env_remove(name);
        }
        for (name, value) in &self.config.env {
            command.env(name, value.expose().as_str());
        }
        command.env(request::VARIABLE, request::request(self.config, self.interactive));
        command.stdin(if self.interactive { Stdio::inherit() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
        if !self.interactive {
            command.process_group(0);
        }
        command
    }
}

/// Reads until the plugin has ended and its output too; `None` when that is too long.
async fn ended(
    child: &mut Child,
    stdout: &mut ChildStdout,
    answer: &mut Vec<u8>,
) -> io::Result<Option<std::process::ExitStatus>> {
    let mut status = None;
    let mut open = true;
    let linger = tokio::time::sleep(Duration::MAX);
    tokio::pin!(linger);
    while open || status.is_none() {
        let mut room = (&mut *stdout).take(u64::try_from(ANSWER_LIMIT + 1 - answer.len()).unwrap_or(0));
        tokio::select! {
            biased;
            read = room.read_buf(answer), if open => {
                open = read? > 0;
                if answer.len() > ANSWER_LIMIT {
                    return Ok(None);
                }
            }
            ended = child.wait(), if status.is_none() => {
                status = Some(ended?);
                linger.as_mut().reset(tokio::time::Instant::now() + LINGER);
            }
            () = &mut linger, if status.is_some() => open = false,
        }
    }
    Ok(status)
}

/// Whether there is a file that could be run.
pub(super) fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}
