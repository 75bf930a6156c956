//! The stand-in processes: what `tailscaled` and `tailscale` on the pretend Pod's `PATH` really are.
//!
//! Each owns what only a process can own: a pid, an argument list, an environment, the socket file. What it
//! would decide is decided by the sandbox (see `link.rs`). So a SIGKILL leaves a stale socket file
//! and cuts every connection, as with the real daemon.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::link::{Child, DaemonScript, FromChild, Hello, Link, LinkReceiver, LinkSender, SecretFile, ToChild};
use crate::secret::Secret;

/// Words in a variable's name that make its value a secret.
const SECRET_WORDS: [&str; 6] = ["AUTHKEY", "AUTH_KEY", "SECRET", "TOKEN", "PASSWORD", "CREDENTIAL"];

/// How a stand-in process was started.
#[derive(Debug)]
pub struct Start {
    /// The sandbox's control socket.
    pub link: PathBuf,
    /// The sandbox's LocalAPI socket (used by `tailscaled` only).
    pub backend: PathBuf,
    /// The arguments after the program's name.
    pub args: Vec<OsString>,
    /// The process's environment.
    pub env: Vec<(OsString, OsString)>,
}

impl Start {
    fn child(&self) -> Child {
        let keep = |name: &str| !SECRET_WORDS.iter().any(|word| name.contains(word));
        let env = self.env.iter().map(|(name, value)| {
            let name = name.to_string_lossy().into_owned();
            let value = keep(&name).then(|| value.to_string_lossy().into_owned());
            (name, value)
        });
        Child { args: self.args(), pid: std::process::id(), env: env.collect() }
    }

    fn args(&self) -> Vec<String> {
        self.args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect()
    }
}

// === tailscale ===

/// Plays the `tailscale` CLI; yields its exit code.
pub async fn tailscale(start: Start) -> io::Result<u8> {
    let files = secret_files(&start.args());
    let Link { mut receiver, mut sender } = Link::connect(&start.link).await?;
    sender.send(&Hello::Tailscale(start.child(), files)).await?;
    obey(&mut receiver).await
}

/// Asks the pretend control server for something; yields the exit code.
pub async fn control(link: &Path, words: Vec<String>) -> io::Result<u8> {
    let Link { mut receiver, mut sender } = Link::connect(link).await?;
    sender.send(&Hello::Control(words)).await?;
    obey(&mut receiver).await
}

/// Prints what the sandbox says until it says how to end.
async fn obey(receiver: &mut LinkReceiver) -> io::Result<u8> {
    loop {
        match receiver.next().await? {
            Some(ToChild::Stdout(text)) => print(&mut io::stdout(), &text)?,
            Some(ToChild::Stderr(text)) => print(&mut io::stderr(), &text)?,
            Some(ToChild::Exit(code)) => return Ok(code),
            Some(ToChild::Script(_)) => {}
            None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the sandbox is gone")),
        }
    }
}

/// Reads every `--flag=file:PATH`, as the real CLI does for keys.
fn secret_files(args: &[String]) -> Vec<SecretFile> {
    let named = args.iter().filter_map(|arg| {
        let (flag, value) = arg.split_once('=')?;
        Some((flag, Path::new(value.strip_prefix("file:")?)))
    });
    named
        .map(|(flag, path)| {
            let mode = std::fs::metadata(path).map(|meta| meta.permissions().mode() & 0o7777);
            let content = std::fs::read_to_string(path);
            SecretFile {
                flag: flag.to_owned(),
                path: path.to_owned(),
                mode: mode.ok().filter(|_| content.is_ok()),
                in_memory: statfs(path).is_ok_and(|fs| fs.filesystem_type() == TMPFS_MAGIC),
                content: Secret::new(content.unwrap_or_default().trim().to_owned()),
            }
        })
        .collect()
}

// === tailscaled ===

/// Plays `tailscaled`; yields its exit code.
pub async fn tailscaled(start: Start) -> io::Result<u8> {
    // Registered before anybody knows this process, so that no signal meets the default action.
    let mut signals = Signals { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? };
    let Link { mut receiver, mut sender } = Link::connect(&start.link).await?;
    sender.send(&Hello::Tailscaled(start.child())).await?;
    let script = loop {
        match receiver.next().await? {
            Some(ToChild::Script(script)) => break script,
            Some(ToChild::Stdout(text)) => print(&mut io::stdout(), &text)?,
            Some(ToChild::Stderr(text)) => print(&mut io::stderr(), &text)?,
            Some(ToChild::Exit(code)) => return Ok(code),
            None => return Ok(1),
        }
    };
    for line in &script.stdout {
        print(&mut io::stdout(), &format!("{line}\n"))?;
    }
    for line in &script.stderr {
        print(&mut io::stderr(), &format!("{line}\n"))?;
    }
    if let Some(lifetime) = script.orphans {
        for last in ["exit 3", "kill -40 $(exec sh -c 'echo $PPID')"] {
            sender.send(&FromChild::Orphan(leave_orphan(lifetime, last).await?)).await?;
        }
    }

    let mut wait = pin!(sleep(script.listen_after));
    loop {
        tokio::select! {
            () = &mut wait => break,
            name = signals.next() => if signalled(&mut sender, &script, name).await? { return Ok(0) },
            order = receiver.next() => if let Some(code) = ending(order?.as_ref()) { return Ok(code) },
        }
    }
    if let Some(code) = script.exit_before_listening {
        return Ok(code);
    }

    let socket = socket_of(&start.args());
    let listener = match listen(&socket).await {
        Ok(listener) => listener,
        Err(error) => {
            print(&mut io::stderr(), &format!("safesocket.Listen: {error}\n"))?;
            return Ok(1);
        }
    };
    sender.send(&FromChild::Listening).await?;
    let code = serve(&listener, &start.backend, &script, &mut signals, &mut receiver, &mut sender).await;
    // A file that is gone already was somebody else's to remove.
    let _ = std::fs::remove_file(&socket);
    code
}

/// Hands every connection to the sandbox until told to end.
async fn serve(
    listener: &UnixListener,
    backend: &Path,
    script: &DaemonScript,
    signals: &mut Signals,
    receiver: &mut LinkReceiver,
    sender: &mut LinkSender,
) -> io::Result<u8> {
    let mut connections = JoinSet::new();
    let mut end = pin!(async {
        match script.exit_after_listening {
            Some((after, code)) => {
                sleep(after).await;
                code
            }
            None => std::future::pending().await,
        }
    });
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                connections.spawn(splice(accepted?.0, backend.to_owned()));
            }
            Some(_) = connections.join_next() => {}
            code = &mut end => return Ok(code),
            name = signals.next() => if signalled(sender, script, name).await? { return Ok(0) },
            order = receiver.next() => if let Some(code) = ending(order?.as_ref()) { return Ok(code) },
        }
    }
}

/// Whether a message of the sandbox, or its silence, ends the daemon.
fn ending(order: Option<&ToChild>) -> Option<u8> {
    match order {
        Some(ToChild::Exit(code)) => Some(*code),
        Some(_) => None,
        None => Some(0),
    }
}

/// Reports a signal; `true` when the daemon ends for it.
async fn signalled(sender: &mut LinkSender, script: &DaemonScript, name: &str) -> io::Result<bool> {
    sender.send(&FromChild::Signal(name.to_owned())).await?;
    if script.ignore_sigterm {
        return Ok(false);
    }
    sleep(script.sigterm_takes).await;
    Ok(true)
}

async fn splice(mut client: UnixStream, backend: PathBuf) {
    if let Ok(mut backend) = UnixStream::connect(&backend).await {
        // Either side going away ends both, as with one process.
        let _ = tokio::io::copy_bidirectional(&mut client, &mut backend).await;
    }
}

/// The `--socket` argument in any of the spellings Go's flag package takes.
fn socket_of(args: &[String]) -> PathBuf {
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.trim_start_matches('-').split_once('=') {
            Some(("socket", path)) => return path.into(),
            None if matches!(arg.as_str(), "-socket" | "--socket") => {
                return args.next().map(PathBuf::from).unwrap_or_default();
            }
            _ => {}
        }
    }
    PathBuf::from("/var/run/tailscale/tailscaled.sock")
}

/// Listens as tailscaled does: a file that nobody listens at is replaced, mode 0666, parents made.
async fn listen(socket: &Path) -> io::Result<UnixListener> {
    if UnixStream::connect(socket).await.is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, format!("{}: address already in use", socket.display())));
    }
    // What cannot be removed makes the bind fail, which says why.
    let _ = std::fs::remove_file(socket);
    if let Some(parent) = socket.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    }
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Starts a grandchild whose parent ends at once, and yields its pid. `last` is what it does in the end.
async fn leave_orphan(lifetime: Duration, last: &str) -> io::Result<u32> {
    let script = format!("(sleep {}; {last}) </dev/null >/dev/null 2>&1 & echo $!", lifetime.as_secs_f64());
    let output = tokio::process::Command::new("/bin/sh").args(["-c", &script]).stdin(Stdio::null()).output().await?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().map_err(|_| io::Error::other(format!("no orphan was left: {output:?}")))
}

struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}

/// The stand-in is the process: its streams are its own, and nothing else happens while it prints.
fn print(to: &mut impl io::Write, text: &str) -> io::Result<()> {
    to.write_all(text.as_bytes())?;
    to.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_secret_variables_are_not_kept() {
        let env = [("TS_AUTHKEY", "k"), ("TS_CLIENT_SECRET", "s"), ("TS_CERT_SHARE_MODE", "ro")];
        let start = Start {
            link: PathBuf::new(),
            backend: PathBuf::new(),
            args: Vec::new(),
            env: env.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        };
        let kept = start.child().env;
        assert_eq!(kept["TS_AUTHKEY"], None);
        assert_eq!(kept["TS_CLIENT_SECRET"], None);
        assert_eq!(kept["TS_CERT_SHARE_MODE"].as_deref(), Some("ro"));
    }

    #[test]
    fn the_socket_argument_is_found_in_every_spelling() {
        for (args, expected) in [
            (&["--socket=/a"][..], "/a"),
            (&["--tun=x", "-socket", "/b"], "/b"),
            (&["--socket", "/c"], "/c"),
            (&["--state=mem:"], "/var/run/tailscale/tailscaled.sock"),
        ] {
            let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
            assert_eq!(socket_of(&args), Path::new(expected));
        }
    }
}
