//! Whether somebody listens at the socket: one look, or a wait until it is so.
//!
//! A file is not enough: a dead daemon leaves one behind. A successful connect is readiness; nothing is sent. Whoever
//! starts the daemon itself knows more, and waits in `daemon::socket`.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{AccessFlags, access, getegid, geteuid};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::client::connect_kind;
use super::error::{ErrorKind, Owner, SocketPermission};
use crate::backoff::{Backoff, jitter};

/// Between looks: first, and at most.
const LOOKS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// Connects once.
pub(super) async fn probe(socket: &Path, limit: Duration) -> Result<(), ErrorKind> {
    match timeout(limit, UnixStream::connect(socket)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(connect_kind(socket, error)),
        Err(_) => Err(ErrorKind::Timeout(limit)),
    }
}

/// Connects as soon as somebody listens, at most until `limit` has passed.
///
/// # Errors
/// At once when the socket may not be opened; otherwise, at the deadline, the last connect's.
pub(super) async fn connect_within(socket: &Path, limit: Duration) -> Result<(), ErrorKind> {
    let deadline = Instant::now() + limit;
    let mut backoff = Backoff::new(LOOKS.0, LOOKS.1);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let error = match probe(socket, left).await {
            Ok(()) => return Ok(()),
            Err(kind @ (ErrorKind::DaemonNotRunning { .. } | ErrorKind::Busy)) => kind,
            Err(kind) => return Err(kind),
        };
        let next = Instant::now() + backoff.next(jitter());
        if Instant::now() >= deadline {
            return Err(error);
        }
        sleep_until(next.min(deadline)).await;
    }
}

/// What the file system shows of a socket that may not be opened.
pub(super) fn permission(socket: &Path) -> SocketPermission {
    let owner = |path: &Path| {
        std::fs::metadata(path).ok().map(|meta| Owner { uid: meta.uid(), gid: meta.gid(), mode: meta.mode() & 0o7777 })
    };
    let mut directories: Vec<&Path> = socket.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()).collect();
    directories.reverse();
    let blocked_by = directories
        .into_iter()
        .find(|directory| access(*directory, AccessFlags::X_OK).is_err())
        .and_then(|directory| Some((PathBuf::from(directory), owner(directory)?)));
    SocketPermission {
        socket: socket.to_owned(),
        file: owner(socket),
        blocked_by,
        uid: geteuid().as_raw(),
        gid: getegid().as_raw(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn no_file_a_stale_file_and_a_listener_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("tailscaled.sock");
        let limit = Duration::from_secs(5);
        let missing = probe(&socket, limit).await;
        assert!(matches!(missing, Err(ErrorKind::DaemonNotRunning { stale: false, .. })), "{missing:?}");
        drop(UnixListener::bind(&socket).unwrap());
        let stale = probe(&socket, limit).await.unwrap_err();
        assert!(matches!(stale, ErrorKind::DaemonNotRunning { stale: true, .. }));
        assert!(stale.to_string().ends_with("tailscaled.sock exists but nobody listens"), "{stale}");
        std::fs::remove_file(&socket).unwrap();
        let _listener = UnixListener::bind(&socket).unwrap();
        assert!(probe(&socket, limit).await.is_ok());
    }

    #[tokio::test]
    async fn the_wait_ends_when_the_socket_appears() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let appear = async {
            // Long enough for the first look to have failed.
            tokio::time::sleep(Duration::from_millis(20)).await;
            UnixListener::bind(&socket).unwrap()
        };
        let (result, _listener) = tokio::join!(connect_within(&socket, Duration::from_secs(30)), appear);
        assert!(result.is_ok(), "{result:?}");
    }

    #[tokio::test]
    async fn the_wait_ends_at_the_deadline_with_the_last_reason() {
        let dir = tempfile::tempdir().unwrap();
        let result = connect_within(&dir.path().join("no/dir/s"), Duration::from_millis(30)).await;
        assert!(matches!(result, Err(ErrorKind::DaemonNotRunning { stale: false, .. })), "{result:?}");
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_is_named_as_such() {
        let long = PathBuf::from(format!("/tmp/{}", "x".repeat(200)));
        let result = connect_within(&long, Duration::from_secs(30)).await;
        assert!(matches!(result, Err(ErrorKind::SocketPathTooLong { length: 205, .. })), "{result:?}");
    }

    #[test]
    fn scenario_5_a_refused_socket_is_shown_with_owner_mode_and_own_user() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("tailscaled.sock");
        let _listener = UnixListener::bind(&socket).unwrap();
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600)).unwrap();
        let kind = connect_kind(&socket, std::io::ErrorKind::PermissionDenied.into());
        let ErrorKind::SocketPermission(seen) = &kind else { panic!("{kind:?}") };
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        assert_eq!(seen.file, Some(Owner { uid, gid, mode: 0o600 }));
        assert_eq!((seen.blocked_by.as_ref(), seen.uid, seen.gid), (None, uid, gid));
        let text = kind.to_string();
        assert!(text.contains("tailscaled.sock is mode 0600 of uid") && text.contains("; we are uid"), "{text}");
    }
}
