//! Running the `tailscale` CLI to its end, or to ours.
//!
//! The CLI stays in our process group. Its stdout is ours; its stderr passes through us line by line, because its
//! words are classified, show a login URL while it still waits, and may quote the key it was given. When the
//! caller's reason to give up comes first, the CLI is killed and that reason is the error, never "signal: killed".
//! One CLI at a time is the caller's duty.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use crate::daemon::exit::{Exit, Usage};
use crate::daemon::lines::Lines;
use crate::daemon::program::{Program, SpawnError};
use crate::daemon::reaper::Children;

/// How much of stderr is kept.
const KEPT: usize = 16 * 1024;

/// How long a process that outlives the CLI may hold on to its stderr before we stop listening.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// How long after a failed CLI the caller's reason still counts as the cause: a Ctrl-C at the terminal reaches the
/// CLI, which is in our process group, and us in no particular order.
const SAME_MOMENT: Duration = Duration::from_millis(50);

/// How long the kernel may take to end a killed CLI (it may be in an uninterruptible call) before we go on.
const KILL_SETTLES: Duration = Duration::from_secs(1);

/// A CLI run that came to its end.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How it ended; not necessarily well.
    pub exit: Exit,
    /// The last 16 KiB of what it wrote to stderr.
    pub stderr: String,
}

/// Why there is no end to report.
#[derive(Debug, thiserror::Error)]
pub enum CliError<R: fmt::Debug> {
    /// It could not be started.
    #[error(transparent)]
    Spawn(SpawnError),
    /// The caller's reason came first; the CLI was killed.
    #[error("interrupted")]
    Interrupted {
        /// What `interrupted` gave.
        reason: R,
        /// The last 16 KiB of what it wrote to stderr.
        stderr: String,
    },
}

/// Runs `program` until it ends or `interrupted` does.
///
/// `on_line` gets each line of its stderr as it comes, without its end. Dropping the future kills the CLI.
pub async fn run<R: fmt::Debug>(
    children: &Children,
    program: &Program,
    interrupted: impl Future<Output = R>,
    on_line: impl FnMut(&str),
) -> Result<Finished, CliError<R>> {
    let mut command = program.command().map_err(CliError::Spawn)?;
    command.stderr(Stdio::piped()).kill_on_drop(true);
    let before = Usage::now();
    let (mut child, registered) =
        children.spawn(&mut command).map_err(|source| CliError::Spawn(program.refused(source)))?;
    let stderr = child.stderr.take().ok_or_else(|| io::Error::other("no pipe for its stderr"));
    let stderr = stderr.map_err(|source| CliError::Spawn(program.refused(source)))?;

    let mut kept = Tail::default();
    let ended = {
        let mut pump = pin!(pump(stderr, &mut kept, on_line));
        let mut interrupted = pin!(interrupted);
        let mut listening = true;
        loop {
            tokio::select! {
                status = child.wait() => {
                    if listening {
                        let _ = timeout(LAST_WORDS, &mut pump).await;
                    }
                    let exit = status.map_or_else(|_| Exit::lost(), |status| Exit::new(status, &before));
                    if !exit.success()
                        && let Ok(reason) = timeout(SAME_MOMENT, &mut interrupted).await
                    {
                        break Err(reason);
                    }
                    break Ok(exit);
                }
                reason = &mut interrupted => break Err(reason),
                () = &mut pump, if listening => listening = false,
            }
        }
    };
    let ended = match ended {
        Ok(exit) => Ok(Finished { exit, stderr: kept.into_text() }),
        Err(reason) => {
            if let Err(error) = child.start_kill() {
                tracing::warn!(%error, "the tailscale CLI could not be killed");
            }
            let _ = timeout(KILL_SETTLES, child.wait()).await;
            Err(CliError::Interrupted { reason, stderr: kept.into_text() })
        }
    };
    drop(registered);
    ended
}

/// Moves stderr along until its end.
async fn pump(mut stderr: impl AsyncRead + Unpin, kept: &mut Tail, mut on_line: impl FnMut(&str)) {
    let mut lines = Lines::default();
    let mut chunk = [0; 4096];
    while let Ok(length @ 1..) = stderr.read(&mut chunk).await {
        let bytes = &chunk[..length];
        kept.push(bytes);
        lines.push(bytes, &mut on_line);
    }
    lines.finish(&mut on_line);
}

/// The end of a stream of bytes.
#[derive(Default)]
struct Tail(Vec<u8>);

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        if self.0.len() > 2 * KEPT {
            self.trim();
        }
    }

    fn trim(&mut self) {
        let excess = self.0.len().saturating_sub(KEPT);
        self.0.drain(..excess);
    }

    fn into_text(mut self) -> String {
        self.trim();
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::*;
    use crate::daemon::exit::Cause;

    fn shell(script: &str) -> Program {
        let env = [("PATH".into(), "/usr/bin:/bin".into())].into();
        Program::new("sh", env).args(["-c", script])
    }

    async fn finish(script: &str) -> Finished {
        let never = std::future::pending::<()>();
        run(&Children::new(), &shell(script), never, |_| ()).await.unwrap()
    }

    #[tokio::test]
    async fn stderr_is_handed_on_and_kept() {
        let mut lines = Vec::new();
        let script = "printf 'To authenticate, visit:\\n\\n\\thttps://login.test/a\\r\\nhalf' >&2; exit 6";
        let finished = run(&Children::new(), &shell(script), std::future::pending::<()>(), |line| {
            lines.push(line.to_owned());
        })
        .await
        .unwrap();
        assert_eq!(finished.exit.cause, Cause::Code(6));
        assert_eq!(finished.exit.to_string(), "exit status 6");
        assert_eq!(finished.stderr, "To authenticate, visit:\n\n\thttps://login.test/a\r\nhalf");
        assert_eq!(lines, ["To authenticate, visit:", "\thttps://login.test/a", "half"]);
    }

    #[tokio::test]
    async fn lines_are_seen_while_it_runs_and_the_reason_to_stop_wins() {
        let (sender, mut lines) = mpsc::unbounded_channel();
        let script = "echo $$ >&2; exec sleep 60";
        let begin = Instant::now();
        let error = run(&Children::new(), &shell(script), async { lines.recv().await.unwrap() }, |line| {
            sender.send(line.to_owned()).unwrap();
        })
        .await
        .unwrap_err();
        let CliError::Interrupted { reason: pid, stderr } = error else { panic!("{error:?}") };
        assert_eq!(stderr, format!("{pid}\n"));
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "it was not killed");
        assert!(begin.elapsed() < Duration::from_secs(5));
    }

    #[tokio::test]
    async fn a_reason_that_comes_with_the_failure_is_its_cause() {
        let said = tokio::sync::Notify::new();
        let interrupted = async {
            said.notified().await;
            tokio::time::sleep(SAME_MOMENT / 2).await;
        };
        let (children, program) = (Children::new(), shell("echo bye >&2; exit 1"));
        let ended = run(&children, &program, interrupted, |_| said.notify_one()).await;
        assert!(matches!(ended, Err(CliError::Interrupted { reason: (), .. })), "{ended:?}");
    }

    #[tokio::test]
    async fn a_helper_that_keeps_stderr_open_does_not_hold_us_up() {
        let begin = Instant::now();
        let run = finish("sleep 5 & exit 0");
        assert!(run.await.exit.success());
        assert!(begin.elapsed() < Duration::from_secs(2));
    }

    #[tokio::test]
    async fn closing_stderr_early_is_not_the_end() {
        let script = "exec 2>&-; sleep 0.02; exit 2";
        let run = finish(script);
        assert_eq!(run.await.exit.cause, Cause::Code(2));
    }

    #[tokio::test]
    async fn stdin_is_empty() {
        let script = "read x && exit 1; echo words >&2; echo words >&2; exit 0";
        let run = finish(script);
        let finished = run.await;
        assert!(finished.exit.success());
        assert_eq!(finished.stderr, "words\nwords\n");
    }

    #[tokio::test]
    async fn what_cannot_be_started_is_said() {
        let program = Program::new("tailscale", [("PATH".into(), "/nowhere".into())].into());
        let error = run(&Children::new(), &program, std::future::pending::<()>(), |_| ()).await;
        let text = error.unwrap_err().to_string();
        assert_eq!(text, "`tailscale` not found as an executable file in PATH (/nowhere)");
    }

    #[test]
    fn only_the_end_is_kept() {
        let mut tail = Tail::default();
        for _ in 0..100 {
            tail.push(&[b'x'; 1000]);
        }
        tail.push(b"the end");
        let text = tail.into_text();
        assert_eq!(text.len(), KEPT);
        assert!(text.ends_with("xthe end"));
    }

    #[test]
    fn an_endless_line_is_handed_out_in_parts() {
        let (mut lines, mut seen) = (Lines::default(), Vec::new());
        lines.push(&vec![b'y'; 2 * KEPT + 5], &mut |line: &str| seen.push(line.len()));
        lines.finish(&mut |line: &str| seen.push(line.len()));
        assert_eq!(seen, [KEPT, KEPT, 5]);
    }
}
