//! A running boot: watched line by line, signalled, waited for.
//!
//! A wait that takes longer than [`SOON`], or that can no longer end because the process has, fails with everything the
//! process said.

use std::fmt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{READY, SOON};

/// A running, or ended, boot.
pub(crate) struct Boot {
    child: Child,
    pid: u32,
    log: watch::Receiver<Log>,
    _readers: JoinSet<()>,
}

/// What the process and its children said, in the order of arrival.
#[derive(Debug, Default)]
struct Log {
    lines: Vec<String>,
    /// Streams that may say more.
    open: usize,
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

/// How a process ended, and all it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) lines: Vec<String>,
}

impl Ended {
    /// The messages of boot, without their prefix.
    pub(crate) fn messages(&self) -> Vec<&str> {
        self.lines.iter().filter_map(|line| message(line)).collect()
    }

    /// The last message of boot.
    pub(crate) fn last(&self) -> &str {
        self.messages().last().copied().unwrap_or_default()
    }

    /// Whether some line contains this.
    pub(crate) fn mentions(&self, part: &str) -> bool {
        self.lines.iter().any(|line| line.contains(part))
    }

    /// Whether a message is exactly this.
    pub(crate) fn says(&self, text: &str) -> bool {
        self.messages().contains(&text)
    }

    /// All of it as one text.
    pub(crate) fn text(&self) -> String {
        self.lines.join("\n")
    }
}

/// The message of a line of boot, `boot: YYYY/MM/DD HH:MM:SS <message>`.
pub(crate) fn message(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("boot: ")?;
    let (stamp, message) = rest.split_at_checked(20)?;
    let shape = |(at, byte): (usize, u8)| match at {
        4 | 7 => byte == b'/',
        10 | 19 => byte == b' ',
        13 | 16 => byte == b':',
        _ => byte.is_ascii_digit(),
    };
    stamp.bytes().enumerate().all(shape).then_some(message)
}

impl Boot {
    /// Starts a command and listens to it.
    pub(crate) fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("a process");
        let (log, receiver) = watch::channel(Log { lines: Vec::new(), open: 2 });
        let mut readers = JoinSet::new();
        readers.spawn(collect(child.stdout.take().expect("a pipe"), log.clone()));
        readers.spawn(collect(child.stderr.take().expect("a pipe"), log));
        let pid = child.id().expect("a process id");
        Self { child, pid, log: receiver, _readers: readers }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// The messages so far.
    pub(crate) fn messages(&self) -> Vec<String> {
        self.log.borrow().lines.iter().filter_map(|line| message(line)).map(str::to_owned).collect()
    }

    /// How many messages so far are exactly this.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.messages().iter().filter(|message| *message == text).count()
    }

    /// All lines so far as one text, those of children included.
    pub(crate) fn text(&self) -> String {
        self.log.borrow().lines.join("\n")
    }

    /// Waits for a message that is exactly this.
    pub(crate) async fn said(&self, text: &str) {
        self.wait_line(&format!("message {text:?}"), |line| message(line) == Some(text)).await;
    }

    /// Waits until a message that is exactly this was said so many times.
    pub(crate) async fn said_times(&self, text: &str, times: usize) {
        let count = |log: &Log| log.lines.iter().filter(|line| message(line) == Some(text)).count();
        self.wait(&format!("message {text:?} {times} times"), |log| (count(log) >= times).then_some(())).await;
    }

    /// Waits for a line that contains this.
    pub(crate) async fn mentioned(&self, part: &str) -> String {
        self.wait_line(&format!("line with {part:?}"), |line| line.contains(part)).await
    }

    /// Waits for the startup-complete line.
    pub(crate) async fn ready(&self) {
        self.said(READY).await;
    }

    async fn wait_line(&self, what: &str, is: impl Fn(&str) -> bool) -> String {
        self.wait(what, |log| log.lines.iter().find(|line| is(line)).cloned()).await
    }

    async fn wait<T>(&self, what: &str, check: impl Fn(&Log) -> Option<T>) -> T {
        let mut log = self.log.clone();
        let seen = timeout(SOON, log.wait_for(|log| log.open == 0 || check(log).is_some())).await;
        let in_time = seen.is_ok();
        drop(seen);
        let log = &*self.log.borrow();
        match check(log) {
            Some(found) => found,
            None if in_time => panic!("it ended without {what}; it said\n{log}"),
            None => panic!("no {what} within {SOON:?}; it said\n{log}"),
        }
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid).expect("a pid"));
        kill(pid, signal).unwrap_or_else(|error| panic!("{signal}: {error}; it said\n{}", &*self.log.borrow()));
    }

    /// Waits for its end.
    pub(crate) async fn end(&mut self) -> Ended {
        self.end_within(SOON).await
    }

    /// Waits for its end, no longer than this.
    pub(crate) async fn end_within(&mut self, limit: Duration) -> Ended {
        let Ok(status) = timeout(limit, self.child.wait()).await else {
            panic!("no end within {limit:?}; it said\n{}", &*self.log.borrow());
        };
        // A child that outlives it keeps the streams open; what boot itself said has been read by then.
        let mut log = self.log.clone();
        let _ = timeout(Duration::from_secs(5), log.wait_for(|log| log.open == 0)).await;
        let lines = self.log.borrow().lines.clone();
        Ended { code: status.expect("a status").code(), lines }
    }

    /// Waits for its end and asserts the exit code.
    pub(crate) async fn ends(&mut self, code: i32) -> Ended {
        let ended = self.end().await;
        assert_eq!(ended.code, Some(code), "it said\n{}", ended.text());
        ended
    }

    /// Asserts that it still runs.
    pub(crate) fn lives(&mut self) {
        let status = self.child.try_wait().expect("a status");
        assert_eq!(status, None, "it said\n{}", &*self.log.borrow());
    }

    /// The end of every scenario that does not end by itself: it is alive, and a SIGTERM ends it with 0.
    pub(crate) async fn stops(mut self) -> Ended {
        self.lives();
        self.signal(Signal::SIGTERM);
        self.ends(0).await
    }

    /// The TCP ports that the process itself listens on.
    pub(crate) fn listening_ports(&self) -> Vec<u16> {
        let proc = PathBuf::from(format!("/proc/{}", self.pid));
        let links = std::fs::read_dir(proc.join("fd")).expect("open files");
        let sockets: Vec<String> = links
            .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
            .collect();
        let mut ports = Vec::new();
        for table in ["net/tcp", "net/tcp6"] {
            let table = std::fs::read_to_string(proc.join(table)).unwrap_or_default();
            for line in table.lines().skip(1) {
                let fields: Vec<&str> = line.split_whitespace().collect();
                // local address, state (0A is LISTEN), inode
                if let (Some(local), Some(&"0A"), Some(inode)) = (fields.get(1), fields.get(3), fields.get(9))
                    && sockets.iter().any(|socket| socket == inode)
                {
                    let port = local.rsplit(':').next().and_then(|hex| u16::from_str_radix(hex, 16).ok());
                    ports.push(port.expect("a port"));
                }
            }
        }
        ports
    }
}

async fn collect(stream: impl AsyncRead + Unpin, log: watch::Sender<Log>) {
    let mut lines = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        match lines.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {
                let line = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
                log.send_modify(|log| log.lines.push(line));
            }
        }
    }
    log.send_modify(|log| log.open -= 1);
}

/// Whether a process runs; one that has ended and only waits to be collected does not.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| !rest.starts_with('Z')))
}
