//! The program on tour: a running `containerboot`, listened to and waited for.

use std::process::ExitStatus;

use nix::sys::signal::Signal;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Child;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{LIMIT, TourError};

/// A running `containerboot` and what it says.
pub(super) struct Boot {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
    said: Vec<String>,
    _readers: JoinSet<()>,
}

impl Boot {
    pub(super) fn of(mut child: Child) -> Self {
        let (sender, lines) = mpsc::unbounded_channel();
        let mut readers = JoinSet::new();
        if let Some(stdout) = child.stdout.take() {
            readers.spawn(read(stdout, sender.clone()));
        }
        if let Some(stderr) = child.stderr.take() {
            readers.spawn(read(stderr, sender));
        }
        Self { child, lines, said: Vec::new(), _readers: readers }
    }

    /// Waits for a line with this fragment and yields it without its time.
    pub(super) async fn says(&mut self, fragment: &str) -> Result<String, TourError> {
        let heard = async {
            while let Some(line) = self.lines.recv().await {
                self.said.push(line.clone());
                if line.contains(fragment) {
                    return Some(line);
                }
            }
            None
        };
        let heard = timeout(LIMIT, heard).await.ok().flatten();
        heard.map(|line| untimed(&line)).ok_or_else(|| self.missing(&format!("it never said \"{fragment}\"")))
    }

    /// Waits for its end with this code.
    pub(super) async fn ends(&mut self, code: i32) -> Result<(), TourError> {
        let status: Option<ExitStatus> = timeout(LIMIT, self.child.wait()).await.ok().and_then(Result::ok);
        while let Ok(line) = self.lines.try_recv() {
            self.said.push(line);
        }
        match status {
            Some(status) if status.code() == Some(code) => Ok(()),
            Some(status) => Err(self.missing(&format!("it ended with {status} instead of {code}"))),
            None => Err(self.missing("it did not end")),
        }
    }

    /// Asks it to stop, as the kubelet does.
    pub(super) fn stop(&self) -> Result<(), TourError> {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        let sent =
            pid.is_some_and(|pid| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM).is_ok());
        if sent { Ok(()) } else { Err(self.missing("it was gone before it was asked to stop")) }
    }

    pub(super) fn missing(&self, missing: &str) -> TourError {
        let last = &self.said[self.said.len().saturating_sub(12)..];
        TourError::Missing { missing: missing.to_owned(), said: last.join("\n") }
    }
}

async fn read(stream: impl AsyncRead + Unpin, to: mpsc::UnboundedSender<String>) {
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if to.send(line).is_err() {
            return;
        }
    }
}

/// A log line without prefix and time: `boot: 2026/01/02 03:04:05 text`.
pub(super) fn untimed(line: &str) -> String {
    let line = line.strip_prefix("boot: ").unwrap_or(line);
    let is_time = |word: &&str| word.chars().all(|c| c.is_ascii_digit() || "/:.".contains(c));
    let skipped: usize = line.split_inclusive(' ').take_while(|word| is_time(&word.trim_end())).map(str::len).sum();
    line[skipped..].to_owned()
}
