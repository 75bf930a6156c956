//! tailscaled's LocalAPI socket: the place made ready, the moment it answers, the link for bare CLI calls.
//!
//! A path that exists proves nothing, since a dead daemon leaves its socket behind. So [`prepare`] removes a stale
//! one before the daemon starts, and [`ready`] waits until a connection is accepted, woken by the kernel when the
//! directory changes, and gives up at once when the daemon dies.

use std::fs::{self, DirBuilder};
use std::future::Future;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use inotify::{EventStream, Inotify, WatchMask};
use nix::unistd::{AccessFlags, access, getuid};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, sleep_until};

use super::exit::Exit;
use crate::backoff::Backoff;

/// Where the CLI looks when it is not told (upstream's `paths.DefaultTailscaledSocket`).
pub const DEFAULT_SOCKET: &str = "/var/run/tailscale/tailscaled.sock";

/// The longest path that fits `sockaddr_un` with its terminating zero.
const LONGEST: usize = 107;

/// Why a socket cannot be at the configured place.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The kernel has no room for the path.
    #[error("socket path `{}` is {length} bytes long; the kernel allows {LONGEST}", path.display())]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
    },
    /// The directory is missing and cannot be made, or nothing can be created in it.
    #[error("cannot create a socket in directory `{}` as user {user}", dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// Our user id.
        user: u32,
        /// Why not.
        source: io::Error,
    },
    /// Something else is there, and it is not ours to remove.
    #[error("`{}` exists and is {kind}, not a socket", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// Somebody answers there already.
    #[error("another process listens on socket `{}`; is a tailscaled already running?", path.display())]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// A socket that we may neither use nor remove.
    #[error("socket `{}` belongs to user {owner}, and we are user {user}", path.display())]
    Foreign {
        /// The path.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Our user id.
        user: u32,
        /// What was refused.
        source: io::Error,
    },
    /// What is there could not be found out, or a socket of our own could not be removed.
    #[error("cannot make way for socket `{}`", path.display())]
    Blocked {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// What [`prepare`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// The socket of a daemon that is gone; removed.
    StaleSocket,
    /// A link; removed, which does no harm to what it led to.
    Link,
}

/// Makes `path` free for a socket: its directory exists and can be written, nothing is at the path.
///
/// Removes only symbolic links and sockets on which nobody listens.
///
/// # Panics
/// Outside a tokio runtime.
pub fn prepare(path: &Path) -> Result<Found, PrepareError> {
    let length = path.as_os_str().as_bytes().len();
    if length > LONGEST {
        return Err(PrepareError::TooLong { path: path.to_owned(), length });
    }
    let user = getuid().as_raw();
    let dir = directory(path);
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(dir)
        .and_then(|()| access(dir, AccessFlags::W_OK | AccessFlags::X_OK).map_err(io::Error::from))
        .map_err(|source| PrepareError::Directory { dir: dir.to_owned(), user, source })?;

    let blocked = |source| PrepareError::Blocked { path: path.to_owned(), source };
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        found => found.map_err(blocked)?,
    };
    let found = if metadata.is_symlink() {
        Found::Link
    } else if metadata.file_type().is_socket() {
        Found::StaleSocket
    } else {
        return Err(PrepareError::NotASocket { path: path.to_owned(), kind: kind(&metadata) });
    };
    let owner = metadata.uid();
    let refused = |source| refusal(path, owner, user, source);
    if found == Found::StaleSocket {
        // Connecting to a Unix socket succeeds or fails at once; only its confirmation would have to be awaited.
        match UnixStream::connect(path).now_or_never() {
            None | Some(Ok(_)) => return Err(PrepareError::InUse { path: path.to_owned() }),
            Some(Err(error)) => match error.kind() {
                // Its queue is full: somebody listens, if slowly.
                io::ErrorKind::WouldBlock => return Err(PrepareError::InUse { path: path.to_owned() }),
                io::ErrorKind::ConnectionRefused => {}
                io::ErrorKind::NotFound => return Ok(Found::Nothing),
                _ => return Err(refused(error)),
            },
        }
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(refused(error)),
        _ => Ok(found),
    }
}

/// Whose fault it is that a socket can be neither used nor removed.
fn refusal(path: &Path, owner: u32, user: u32, source: io::Error) -> PrepareError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::PermissionDenied if owner != user => PrepareError::Foreign { path, owner, user, source },
        _ => PrepareError::Blocked { path, source },
    }
}

fn kind(metadata: &fs::Metadata) -> &'static str {
    let kind = metadata.file_type();
    match () {
        () if kind.is_dir() => "a directory",
        () if kind.is_file() => "a regular file",
        () if kind.is_fifo() => "a pipe",
        () => "a device",
    }
}

/// Why no connection was accepted.
#[derive(Debug, thiserror::Error)]
pub enum ReadyError {
    /// The daemon ended first.
    #[error("tailscaled ended before its socket answered: {0}")]
    Exited(Exit),
    /// The deadline came first. The text is contract.
    #[error("timed out waiting for tailscaled socket")]
    TimedOut,
    /// Waiting longer will not help. The text is contract.
    #[error("error waiting for tailscaled socket")]
    Connect(#[source] io::Error),
}

/// The watch that is not needed any more. The kernel ends one only after every other processor has taken notice, which
/// keeps whoever closes it for up to 15 ms on a busy machine: to be dropped when nobody waits.
#[must_use]
pub struct Watched {
    events: Option<Events>,
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched").field("events", &self.events.is_some()).finish()
    }
}

/// Waits until something accepts connections at `path`.
///
/// `exited` is the daemon's end; `deadline` that of the phase. Cancel safe.
pub async fn ready(path: &Path, exited: impl Future<Output = Exit>, deadline: Instant) -> Result<Watched, ReadyError> {
    let mut events = watch(directory(path))
        .inspect_err(|error| tracing::debug!(%error, "cannot watch the socket's directory; polling"))
        .ok();
    // With a watch the poll only covers file systems that report nothing.
    let mut absent = match events {
        Some(_) => Backoff::new(Duration::from_millis(50), Duration::from_secs(1)),
        None => Backoff::new(Duration::from_millis(5), Duration::from_millis(100)),
    };
    // The file is there, so listening is a matter of microseconds, or of a daemon under a debugger.
    let mut refused = Backoff::new(Duration::from_millis(1), Duration::from_millis(50));
    let mut exited = pin!(exited);
    loop {
        let pause = match UnixStream::connect(path).await {
            Ok(_) => return Ok(Watched { events }),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound => absent.next(0.0),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::WouldBlock => refused.next(0.0),
                _ => return Err(ReadyError::Connect(error)),
            },
        };
        tokio::select! {
            biased;
            exit = &mut exited => return Err(ReadyError::Exited(exit)),
            () = sleep_until(deadline) => return Err(ReadyError::TimedOut),
            () = sleep(pause) => {}
            () = changed(&mut events) => {}
        }
    }
}

type Events = EventStream<[u8; 1024]>;

fn watch(dir: &Path) -> io::Result<Events> {
    let inotify = Inotify::init()?;
    inotify.watches().add(dir, WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::ATTRIB)?;
    inotify.into_event_stream([0; 1024])
}

async fn changed(events: &mut Option<Events>) {
    if let Some(stream) = events {
        if let Some(Ok(_)) = stream.next().await {
            return;
        }
        *events = None;
    }
    std::future::pending::<()>().await;
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What became of the link at the default place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// The socket is at the default place.
    NotNeeded,
    /// It led to the socket already.
    Kept,
    /// Made, or pointed to the socket anew.
    Made,
}

/// The link could not be made. Never fatal.
#[derive(Debug, thiserror::Error)]
#[error("failed to symlink socket")]
pub struct LinkError {
    target: PathBuf,
    source: io::Error,
}

impl LinkError {
    /// The two lines to log; the first is contract.
    pub fn warning(&self) -> String {
        format!(
            "[warning] failed to symlink socket: {}\n\tuse `tailscale --socket={}` to reach this node's tailscaled",
            self.source,
            self.target.display()
        )
    }
}

/// Makes the default socket path (below `root`) a link to `target`, so that `tailscale` works in a shell in the
/// container. An older link is replaced; anything else there is left alone and is an error.
pub fn link_default_socket(root: &Path, target: &Path) -> Result<Link, LinkError> {
    let link = root.join(DEFAULT_SOCKET.trim_start_matches('/'));
    if target == Path::new(DEFAULT_SOCKET) || target == link {
        return Ok(Link::NotNeeded);
    }
    point(&link, target).map_err(|source| LinkError { target: target.to_owned(), source })
}

fn point(link: &Path, target: &Path) -> io::Result<Link> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory(link))?;
    match fs::symlink_metadata(link) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        Ok(metadata) if metadata.is_symlink() => {
            if fs::read_link(link)? == target {
                return Ok(Link::Kept);
            }
        }
        Ok(metadata) => {
            // The same file by another name: /var/run is usually a link to /run.
            let same = fs::metadata(target).is_ok_and(|t| (t.dev(), t.ino()) == (metadata.dev(), metadata.ino()));
            return if same { Ok(Link::NotNeeded) } else { Err(io::ErrorKind::AlreadyExists.into()) };
        }
    }
    // Made beside and moved over, so that there is no moment without a link.
    let fresh = link.with_extension(format!("sock.{}", std::process::id()));
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::os::unix::fs::symlink(target, &fresh)?;
    fs::rename(&fresh, link).inspect_err(|_| drop(fs::remove_file(&fresh)))?;
    Ok(Link::Made)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;
    use crate::daemon::exit::Cause;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[tokio::test]
    async fn only_what_is_dead_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made/for/it/tailscaled.sock");
        assert_eq!(prepare(&path).unwrap(), Found::Nothing);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o755);

        let listener = UnixListener::bind(&path).unwrap();
        let error = prepare(&path).unwrap_err();
        assert!(error.to_string().contains("is a tailscaled already running?"), "{error}");
        drop(listener);
        assert!(path.exists());
        assert_eq!(prepare(&path).unwrap(), Found::StaleSocket);
        assert!(!path.exists());

        let elsewhere = dir.path().join("elsewhere.sock");
        let living = UnixListener::bind(&elsewhere).unwrap();
        symlink(&elsewhere, &path).unwrap();
        assert_eq!(prepare(&path).unwrap(), Found::Link);
        assert!(elsewhere.exists() && !path.exists());
        drop(living);

        fs::write(&path, "precious").unwrap();
        let error = prepare(&path).unwrap_err();
        assert_eq!(error.to_string(), format!("`{}` exists and is a regular file, not a socket", path.display()));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(prepare(&path).unwrap_err().to_string().contains("is a directory"));
        fs::remove_dir(&path).unwrap();

        let _datagrams = UnixDatagram::bind(&path).unwrap();
        let error = prepare(&path).unwrap_err();
        assert!(matches!(error, PrepareError::Blocked { .. }), "{error}");
        assert!(path.exists());
    }

    #[tokio::test]
    async fn impossible_places_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut long = dir.path().to_owned();
        while long.as_os_str().len() <= LONGEST {
            long.push("0123456789");
        }
        let error = prepare(&long).unwrap_err().to_string();
        assert!(
            error.ends_with(&format!("is {} bytes long; the kernel allows 107", long.as_os_str().len())),
            "{error}"
        );
        assert!(!dir.path().join("0123456789").exists());

        fs::write(dir.path().join("file"), "").unwrap();
        let error = prepare(&dir.path().join("file/s.sock")).unwrap_err();
        assert!(error.to_string().starts_with("cannot create a socket in directory `"), "{error}");
        assert!(std::error::Error::source(&error).is_some());
        // Nobody, not even root, can create files here.
        let error = prepare(Path::new("/proc/self/s.sock")).unwrap_err();
        assert!(matches!(error, PrepareError::Directory { .. } | PrepareError::Blocked { .. }), "{error}");
    }

    #[test]
    fn another_users_socket_is_told_apart_from_our_own() {
        let path = Path::new("/tmp/tailscaled.sock");
        let cases = [
            (
                1000,
                io::ErrorKind::PermissionDenied,
                "socket `/tmp/tailscaled.sock` belongs to user 1000, and we are user 0",
            ),
            (0, io::ErrorKind::PermissionDenied, "cannot make way for socket `/tmp/tailscaled.sock`"),
            (1000, io::ErrorKind::ReadOnlyFilesystem, "cannot make way for socket `/tmp/tailscaled.sock`"),
        ];
        for (owner, kind, text) in cases {
            assert_eq!(refusal(path, owner, 0, kind.into()).to_string(), text);
        }
    }

    #[tokio::test]
    async fn a_socket_that_appears_is_found_without_polling_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let late = async {
            sleep(Duration::from_millis(170)).await;
            (Instant::now(), UnixListener::bind(&path).unwrap())
        };
        let wait = async {
            drop(ready(&path, std::future::pending(), soon()).await.unwrap());
            Instant::now()
        };
        let ((bound, _listener), seen) = tokio::join!(late, wait);
        // The poll alone looks after 50, 150 and 350 ms.
        assert!(seen - bound < Duration::from_millis(150), "noticed after {:?}", seen - bound);
    }

    #[tokio::test]
    async fn a_stale_file_is_not_readiness() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        drop(UnixListener::bind(&path).unwrap());
        let deadline = Instant::now() + Duration::from_millis(60);
        let error = ready(&path, std::future::pending(), deadline).await.unwrap_err();
        assert_eq!(error.to_string(), "timed out waiting for tailscaled socket");
    }

    #[tokio::test]
    async fn death_ends_the_wait_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let exit = Exit { cause: Cause::Code(3), core: false, peak: None, oom_kill: false };
        let exited = async {
            sleep(Duration::from_millis(5)).await;
            exit
        };
        let begin = Instant::now();
        let error = ready(&dir.path().join("s.sock"), exited, soon()).await.unwrap_err();
        assert_eq!(error.to_string(), "tailscaled ended before its socket answered: exit status 3");
        assert!(begin.elapsed() < Duration::from_secs(1));
    }

    #[tokio::test]
    async fn an_error_that_will_not_pass_ends_the_wait() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let _datagrams = UnixDatagram::bind(&path).unwrap();
        let error = ready(&path, std::future::pending(), soon()).await.unwrap_err();
        assert_eq!(error.to_string(), "error waiting for tailscaled socket");
    }

    #[test]
    fn the_default_place_leads_to_the_socket() {
        let root = tempfile::tempdir().unwrap();
        let link = root.path().join("var/run/tailscale/tailscaled.sock");
        let target = Path::new("/tmp/tailscaled.sock");
        assert_eq!(link_default_socket(root.path(), Path::new(DEFAULT_SOCKET)).unwrap(), Link::NotNeeded);
        assert_eq!(link_default_socket(root.path(), &link).unwrap(), Link::NotNeeded);
        assert!(!root.path().join("var").exists());

        assert_eq!(link_default_socket(root.path(), target).unwrap(), Link::Made);
        assert_eq!(fs::metadata(link.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(link_default_socket(root.path(), target).unwrap(), Link::Kept);
        assert_eq!(link_default_socket(root.path(), Path::new("/elsewhere")).unwrap(), Link::Made);
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("/elsewhere"));
        assert_eq!(fs::read_dir(link.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_not_a_link_stays_and_is_warned_about() {
        let root = tempfile::tempdir().unwrap();
        let link = root.path().join("var/run/tailscale/tailscaled.sock");
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        fs::write(&link, "x").unwrap();
        let error = link_default_socket(root.path(), Path::new("/tmp/t.sock")).unwrap_err();
        let text = error.warning();
        let (first, hint) = text.split_once('\n').unwrap();
        assert!(first.starts_with("[warning] failed to symlink socket: "), "{first}");
        assert!(hint.contains("tailscale --socket=/tmp/t.sock"), "{hint}");
        assert_eq!(fs::read_to_string(&link).unwrap(), "x");

        symlink("var", root.path().join("other")).unwrap();
        let same = root.path().join("other/run/tailscale/tailscaled.sock");
        assert_eq!(link_default_socket(root.path(), &same).unwrap(), Link::NotNeeded);
    }
}
