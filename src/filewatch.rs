//! Notices that a file may have changed: inotify on its directory, and a slow poll as a safety net.
//!
//! The directory is watched, not the file: the kubelet publishes a new version by renaming the `..data` link beside it,
//! editors by renaming over it, plain bind mounts by writing in place. A wake-up is only a hint; the caller
//! compares content. Where inotify cannot be had, the poll alone remains.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use inotify::{EventStream, Inotify, WatchMask};

/// A watch on the directory of one file.
pub struct FileWatch {
    events: Result<EventStream<[u8; 1024]>, Unavailable>,
}

/// Why there are no events.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// No inotify instance could be made.
    #[error("cannot create an inotify instance")]
    Instance(#[source] io::Error),
    /// The directory cannot be watched.
    #[error("cannot watch `{}`", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl FileWatch {
    /// Watches the directory of `file`. Never fails: see [`unavailable`](Self::unavailable).
    pub fn new(file: &Path) -> Self {
        Self { events: open(file) }
    }

    /// Why only the poll is left, when that is so.
    pub fn unavailable(&self) -> Option<&Unavailable> {
        self.events.as_ref().err()
    }

    /// Returns when something happened in the directory, or after `poll`. Events that came together wake once.
    /// Cancel-safe.
    pub async fn changed(&mut self, poll: Duration) {
        let Ok(events) = &mut self.events else { return tokio::time::sleep(poll).await };
        match tokio::time::timeout(poll, events.next()).await {
            // The stream never ends by itself; should it, the poll must not become a busy loop.
            Ok(None) => tokio::time::sleep(poll).await,
            Ok(Some(_event)) => while futures_util::FutureExt::now_or_never(events.next()).flatten().is_some() {},
            Err(_elapsed) => {}
        }
    }
}

impl std::fmt::Debug for FileWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileWatch").field("unavailable", &self.unavailable()).finish()
    }
}

fn open(file: &Path) -> Result<EventStream<[u8; 1024]>, Unavailable> {
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let inotify = Inotify::init().map_err(Unavailable::Instance)?;
    let mask = WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::CLOSE_WRITE | WatchMask::MODIFY | WatchMask::DELETE;
    let unwatchable = |source| Unavailable::Directory { path: directory.to_owned(), source };
    inotify.watches().add(directory, mask).map_err(unwatchable)?;
    inotify.into_event_stream([0; 1024]).map_err(Unavailable::Instance)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn sees_plain_rewrites_and_link_swaps() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        std::fs::write(&file, "a").unwrap();
        let mut watch = FileWatch::new(&file);
        assert!(watch.unavailable().is_none());
        std::fs::write(&file, "b").unwrap();
        watch.changed(NEVER).await;
        std::os::unix::fs::symlink("somewhere", dir.path().join("..tmp")).unwrap();
        std::fs::rename(dir.path().join("..tmp"), dir.path().join("..data")).unwrap();
        watch.changed(NEVER).await;
    }

    #[tokio::test(start_paused = true)]
    async fn falls_back_to_the_poll() {
        let mut watch = FileWatch::new(Path::new("/does/not/exist/config"));
        assert!(watch.unavailable().is_some());
        let started = tokio::time::Instant::now();
        watch.changed(Duration::from_secs(5)).await;
        assert_eq!(started.elapsed(), Duration::from_secs(5));
    }
}
