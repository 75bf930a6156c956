//! The line between the stand-in processes and the sandbox that plays their parts.
//!
//! `tailscaled` and `tailscale` in the pretend Pod are tiny processes that own what only a process can own (a
//! pid, an argument list, an environment, the socket file); everything they would decide is decided by the
//! sandbox at the other end of one Unix socket. Messages are JSON, one a line. A stand-in that loses its line
//! ends, so none outlives its sandbox.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::secret::Secret;

/// The first message of a stand-in: who it is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Hello {
    /// `tailscaled` was started.
    Tailscaled(Child),
    /// `tailscale` was started.
    Tailscale(Child, Vec<SecretFile>),
    /// A person wants something of the pretend control server.
    Control(Vec<String>),
}

/// How a stand-in was started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Child {
    pub(crate) args: Vec<String>,
    pub(crate) pid: u32,
    /// `None`: present, value not kept.
    pub(crate) env: BTreeMap<String, Option<String>>,
}

/// A file that a `file:` argument of `tailscale` named, as the process saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretFile {
    /// The flag, such as `--authkey`.
    pub flag: String,
    /// The path after `file:`.
    pub path: PathBuf,
    /// Permission bits; `None` when the file could not be read.
    pub mode: Option<u32>,
    /// Whether it was on a memory file system (tmpfs, or a memfd).
    pub in_memory: bool,
    /// What was in it.
    #[serde(with = "in_the_clear")]
    pub content: Secret<String>,
}

/// The line is private to the sandbox; a pretend key may travel on it.
mod in_the_clear {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::secret::Secret;

    pub(super) fn serialize<S: Serializer>(secret: &Secret<String>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(secret.expose())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Secret<String>, D::Error> {
        String::deserialize(from).map(Secret::new)
    }
}

/// What the sandbox tells a stand-in.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToChild {
    /// How `tailscaled` shall behave; its first answer.
    Script(DaemonScript),
    /// Print on stdout.
    Stdout(String),
    /// Print on stderr.
    Stderr(String),
    /// End with this code.
    Exit(u8),
}

/// What a stand-in tells the sandbox after its hello.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromChild {
    /// `--socket` accepts connections.
    Listening,
    /// A signal arrived.
    Signal(String),
    /// A grandchild was left behind.
    Orphan(u32),
}

/// How the `tailscaled` stand-in behaves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DaemonScript {
    /// Lines to print on stdout at the start.
    pub stdout: Vec<String>,
    /// Lines to print on stderr at the start.
    pub stderr: Vec<String>,
    /// How long it takes until the socket is there.
    pub listen_after: Duration,
    /// End with this code instead of listening.
    pub exit_before_listening: Option<u8>,
    /// End with this code so long after the socket is there.
    pub exit_after_listening: Option<(Duration, u8)>,
    /// Do not end on SIGTERM.
    pub ignore_sigterm: bool,
    /// How long it takes to end on SIGTERM.
    pub sigterm_takes: Duration,
    /// Leave grandchildren behind, one that ends by itself and one that a real-time signal ends, which live this long
    /// and are then zombies until somebody reaps them.
    pub orphans: Option<Duration>,
}

/// One end of the line.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) receiver: LinkReceiver,
    pub(crate) sender: LinkSender,
}

/// The receiving half.
#[derive(Debug)]
pub(crate) struct LinkReceiver(Lines<BufReader<OwnedReadHalf>>);

/// The sending half.
#[derive(Debug)]
pub(crate) struct LinkSender(OwnedWriteHalf);

impl Link {
    /// Connects to the sandbox.
    pub(crate) async fn connect(path: &Path) -> io::Result<Self> {
        Ok(Self::new(UnixStream::connect(path).await?))
    }

    /// Speaks over an accepted connection.
    pub(crate) fn new(stream: UnixStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self { receiver: LinkReceiver(BufReader::new(reader).lines()), sender: LinkSender(writer) }
    }
}

impl LinkReceiver {
    /// The next message; `None` when the other side is gone. Cancel safe.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        match self.0.next_line().await? {
            Some(line) => Ok(Some(serde_json::from_str(&line)?)),
            None => Ok(None),
        }
    }
}

impl LinkSender {
    /// Sends one message.
    pub(crate) async fn send<T: Serialize>(&mut self, message: &T) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.0.write_all(&line).await
    }
}
