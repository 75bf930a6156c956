//! Waiting for a key that differs from the old one.
//!
//! A file is read when its directory says that it may have changed and in any case every 5 s; a Secret is followed by
//! a watch, and read whenever that has been silent for 5 s. Whatever cannot be read counts as "no key yet". Log lines are
//! contract where upstream has them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::key::key_from_config;
use crate::filewatch::{FileWatch, Unavailable};
use crate::goduration;
use crate::k8s::{Cluster, Error};
use crate::secret::Secret;

/// The safety net under file events and watches; upstream's pace.
const POLL: Duration = Duration::from_secs(5);

/// Reads the auth key out of a config file; `None` for "none" and for "cannot be read".
pub type ReadKey = Arc<dyn Fn(&Path) -> Option<Secret<String>> + Send + Sync>;

/// Where a new key will appear.
#[derive(Clone)]
pub enum KeySource {
    /// A tailscaled config file.
    File {
        /// The file; always the same path, whatever lies behind it.
        path: PathBuf,
        /// How to read it. Called on the waiting task: the file is expected to be small and near.
        read: ReadKey,
    },
    /// A key of a Secret.
    Secret {
        /// The cluster.
        cluster: Cluster,
        /// The Secret's name.
        name: String,
        /// The data key.
        key: String,
    },
    /// Whoever follows the config tells what its key is.
    Told(watch::Receiver<Option<Secret<String>>>),
}

/// A key that is not the old one.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// The key.
    pub key: Secret<String>,
    /// How long it took.
    pub after: Duration,
}

/// What an observer of [`wait`] gets told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Changes will be noticed as they happen.
    Watching,
    /// Changes will be noticed by looking again and again.
    Polling,
    /// Still waiting; said every few seconds and whenever something stirred.
    StillNone {
        /// Since the start.
        elapsed: Duration,
    },
}

/// Why the wait ended without a key.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// Nothing came in time. The text is contract.
    #[error("timeout waiting for auth key reissue after {}", goduration::format(*.after))]
    Timeout {
        /// The limit.
        after: Duration,
    },
    /// We were told to stop.
    #[error("stopped while waiting for auth key reissue")]
    Stopped,
    /// The Secret may not be read.
    #[error("cannot look for a new auth key")]
    Denied(#[source] Error),
}

/// Waits until `source` holds a key that is neither empty nor `old`, up to `limit`. Upstream's
/// `WaitForAuthKeyReissue`, without its clearing. Cancel-safe; `stop` ends it too.
///
/// A key that is there already is found at once. `observer` is told what happens; it must not block.
///
/// # Errors
/// [`WaitError::Timeout`] after `limit`, with upstream's text; [`WaitError::Stopped`] after `stop`;
/// [`WaitError::Denied`] when the Secret may not be read. Everything else that goes wrong counts as "no key yet".
///
/// ```
/// # use std::time::Duration;
/// # use tailpod::authkey::{self, KeySource, WaitError};
/// # use tailpod::secret::Secret;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("cap-95.hujson");
/// std::fs::write(&path, "{\"version\": \"alpha0\", \"AuthKey\": \"tskey-auth-kNEW-x\",}")?;
/// let (source, stop) = (KeySource::config(&path), tokio_util::sync::CancellationToken::new());
///
/// let old = Secret::new("tskey-auth-kOLD-x".to_owned());
/// let new = authkey::wait(&source, &old, Duration::from_secs(60), &stop, &mut |_| {}).await?;
/// assert_eq!(new.key.expose(), "tskey-auth-kNEW-x");
///
/// let error = authkey::wait(&source, &new.key, Duration::ZERO, &stop, &mut |_| {}).await.unwrap_err();
/// assert!(matches!(error, WaitError::Timeout { .. }));
/// # Ok(())
/// # }
/// ```
pub async fn wait(
    source: &KeySource,
    old: &Secret<String>,
    limit: Duration,
    stop: &CancellationToken,
    observer: &mut (dyn FnMut(Progress) + Send),
) -> Result<NewKey, WaitError> {
    let start = Instant::now();
    let found = async {
        match source {
            KeySource::File { path, read } => Ok(in_file(path, read, old, limit, start, observer).await),
            KeySource::Secret { cluster, name, key } => {
                in_secret(cluster, name, key, old, limit, start, observer).await
            }
            KeySource::Told(keys) => Ok(told(keys.clone(), old, limit, start, observer).await),
        }
    };
    let key = tokio::select! {
        biased;
        () = stop.cancelled() => return Err(WaitError::Stopped),
        found = found => found?,
        () = tokio::time::sleep(limit) => return Err(WaitError::Timeout { after: limit }),
    };
    let after = start.elapsed();
    tracing::info!("New auth key received from operator after {}", goduration::format_seconds(after));
    Ok(NewKey { key, after })
}

fn announce(limit: Duration) {
    tracing::info!("Waiting for operator to provide new auth key (max wait: {})", goduration::format(limit));
}

fn is_new(key: &Secret<String>, old: &Secret<String>) -> bool {
    !key.expose().is_empty() && key != old
}

async fn in_file(
    path: &Path,
    read: &ReadKey,
    old: &Secret<String>,
    limit: Duration,
    start: Instant,
    observer: &mut (dyn FnMut(Progress) + Send),
) -> Secret<String> {
    let mut watch = FileWatch::new(path);
    match watch.unavailable() {
        None => tracing::info!("auth key reissue: watching for config changes via fsnotify"),
        Some(Unavailable::Instance(error)) => {
            tracing::info!("auth key reissue: fsnotify unavailable, using polling: {error}");
        }
        Some(Unavailable::Directory { source, .. }) => {
            tracing::info!("auth key reissue: fsnotify watch failed, using polling: {source}");
        }
    }
    observer(if watch.unavailable().is_none() { Progress::Watching } else { Progress::Polling });
    announce(limit);
    loop {
        // Looking comes after watching began: a change in between is seen by one of them.
        if let Some(key) = read(path).filter(|key| is_new(key, old)) {
            return key;
        }
        watch.changed(POLL).await;
        let elapsed = start.elapsed();
        if watch.unavailable().is_some() {
            tracing::info!("Waiting for new auth key from operator ({} elapsed)", goduration::format_seconds(elapsed));
            watch = FileWatch::new(path);
        }
        observer(Progress::StillNone { elapsed });
    }
}

async fn in_secret(
    cluster: &Cluster,
    name: &str,
    key: &str,
    old: &Secret<String>,
    limit: Duration,
    start: Instant,
    observer: &mut (dyn FnMut(Progress) + Send),
) -> Result<Secret<String>, WaitError> {
    tracing::info!("auth key reissue: watching key {key} of Secret {name}");
    observer(Progress::Watching);
    announce(limit);
    // One timer for everything: each wake-up costs more than what is done then.
    let mut watch = cluster.watch_secret(name).checked_every(POLL);
    let mut next = start + POLL;
    let mut polling = false;
    loop {
        let seen = watch.turn().await.map_err(WaitError::Denied)?;
        if let Some(key) = seen.flatten().and_then(|secret| secret.auth_key(key)).filter(|key| is_new(key, old)) {
            return Ok(key);
        }
        if next <= Instant::now() {
            while next <= Instant::now() {
                next += POLL;
            }
            if watch.is_polling() && !std::mem::replace(&mut polling, true) {
                observer(Progress::Polling);
            }
            observer(Progress::StillNone { elapsed: start.elapsed() });
        }
    }
}

async fn told(
    mut keys: watch::Receiver<Option<Secret<String>>>,
    old: &Secret<String>,
    limit: Duration,
    start: Instant,
    observer: &mut (dyn FnMut(Progress) + Send),
) -> Secret<String> {
    observer(Progress::Watching);
    announce(limit);
    let mut poll = tokio::time::interval_at(start + POLL, POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let key = keys.borrow_and_update().clone();
        if let Some(key) = key.filter(|key| is_new(key, old)) {
            return key;
        }
        tokio::select! {
            // Nobody tells any more; only the limit is left.
            changed = keys.changed() => if changed.is_err() { std::future::pending::<()>().await },
            _ = poll.tick() => observer(Progress::StillNone { elapsed: start.elapsed() }),
        }
    }
}

impl KeySource {
    /// A tailscaled config file, read as [`key_from_config`] does.
    pub fn config(path: impl Into<PathBuf>) -> Self {
        Self::File { path: path.into(), read: Arc::new(key_from_config) }
    }
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, .. } => f.debug_struct("File").field("path", path).finish_non_exhaustive(),
            Self::Secret { cluster, name, key } => {
                f.debug_struct("Secret").field("cluster", cluster).field("name", name).field("key", key).finish()
            }
            Self::Told(_) => f.write_str("Told"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn key(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    fn plain_text(path: PathBuf) -> KeySource {
        let read: ReadKey = Arc::new(|path| std::fs::read_to_string(path).ok().map(Secret::new));
        KeySource::File { path, read }
    }

    const LIMIT: Duration = Duration::from_secs(600);

    #[tokio::test(start_paused = true)]
    async fn a_key_that_is_there_already_is_found_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        std::fs::write(&path, "new").unwrap();
        let stop = CancellationToken::new();
        let new = wait(&plain_text(path), &key("old"), LIMIT, &stop, &mut |_| {}).await.unwrap();
        assert_eq!((new.key, new.after), (key("new"), Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn the_old_key_an_empty_one_and_an_unreadable_file_keep_it_waiting_until_the_limit() {
        for content in [Some("old"), Some(""), None] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("config");
            if let Some(content) = content {
                std::fs::write(&path, content).unwrap();
            }
            let stop = CancellationToken::new();
            let start = Instant::now();
            let error = wait(&plain_text(path), &key("old"), LIMIT, &stop, &mut |_| {}).await.unwrap_err();
            assert_eq!(error.to_string(), "timeout waiting for auth key reissue after 10m0s");
            assert_eq!(start.elapsed(), LIMIT);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_events_the_poll_notices_within_five_seconds() {
        let dir = tempfile::tempdir().unwrap();
        // The directory does not exist yet, so there is nothing to watch.
        let path = dir.path().join("later").join("config");
        let stop = CancellationToken::new();
        let seen = Mutex::new(Vec::new());
        let mut observer = |progress: Progress| {
            let round = matches!(progress, Progress::StillNone { .. });
            seen.lock().unwrap().push(progress);
            if round && seen.lock().unwrap().iter().filter(|p| matches!(p, Progress::StillNone { .. })).count() == 2 {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, "new").unwrap();
            }
        };
        let new = wait(&plain_text(path.clone()), &key("old"), LIMIT, &stop, &mut observer).await.unwrap();
        assert_eq!(new.after, Duration::from_secs(10));
        let seen = seen.into_inner().unwrap();
        assert_eq!(seen[0], Progress::Polling);
    }

    #[tokio::test]
    async fn an_event_is_noticed_long_before_the_poll() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cap-1.hujson");
        std::fs::write(&path, "old").unwrap();
        let stop = CancellationToken::new();
        let mut observer = |progress| {
            if progress == Progress::Watching {
                // As kubelet does: a new directory, then the link is swapped.
                std::fs::write(&path, "new").unwrap();
                std::fs::write(dir.path().join("..data"), "").unwrap();
            }
        };
        let new = wait(&plain_text(path.clone()), &key("old"), LIMIT, &stop, &mut observer).await.unwrap();
        assert!(new.after < POLL, "{:?}", new.after);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_is_told_is_found_and_the_old_one_is_not() {
        let (tell, keys) = watch::channel(Some(key("old")));
        let stop = CancellationToken::new();
        let source = KeySource::Told(keys);
        let old = key("old");
        let mut observer = |progress| {
            if matches!(progress, Progress::StillNone { .. }) {
                tell.send_replace(Some(key("new")));
            }
        };
        let new = wait(&source, &old, LIMIT, &stop, &mut observer).await.unwrap();
        assert_eq!((new.key, new.after), (key("new"), POLL));
    }

    #[tokio::test(start_paused = true)]
    async fn stopping_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        let stop = CancellationToken::new();
        let source = plain_text(dir.path().join("config"));
        let mut observer = {
            let stop = stop.clone();
            move |progress| {
                if matches!(progress, Progress::StillNone { .. }) {
                    stop.cancel();
                }
            }
        };
        let error = wait(&source, &key("old"), LIMIT, &stop, &mut observer).await.unwrap_err();
        assert!(matches!(error, WaitError::Stopped));
    }
}
