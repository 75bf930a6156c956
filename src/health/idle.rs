//! Noticing connections on which nothing happens.
//!
//! [`Watched`] is a connection that notes when bytes move; [`Activity::ended`] resolves once none have for too long
//! while no request is being worked on. Together they bound a client that sends its request, or reads its answer,
//! a byte at a time or not at all.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};

/// When something last happened on a connection.
#[derive(Debug)]
pub(super) struct Activity {
    start: Instant,
    /// Milliseconds after `start`.
    last: AtomicU64,
    requests: AtomicUsize,
}

/// A request is being worked on: silence is ours, not the client's.
#[derive(Debug)]
pub(super) struct Busy(Arc<Activity>);

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), last: AtomicU64::new(0), requests: AtomicUsize::new(0) })
    }

    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.requests.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    /// Resolves when nothing has happened for `limit`.
    pub(super) async fn ended(&self, limit: Duration) {
        loop {
            if self.requests.load(Ordering::Relaxed) > 0 {
                self.note();
            }
            let due = self.start + Duration::from_millis(self.last.load(Ordering::Relaxed)) + limit;
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }

    fn note(&self) {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(elapsed, Ordering::Relaxed);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.note();
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that notes when bytes move.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        self.activity.note();
        Poll::Ready(result)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.stream).poll_write(cx, buf));
        self.activity.note();
        Poll::Ready(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::{advance, timeout};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);
    const LESS: Duration = Duration::from_secs(29);

    #[tokio::test(start_paused = true)]
    async fn bytes_in_either_direction_put_the_end_off() {
        let activity = Activity::new();
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut watched = Watched::new(ours, Arc::clone(&activity));
        advance(LESS).await;
        theirs.write_all(b"x").await.unwrap();
        watched.read_u8().await.unwrap();
        assert!(timeout(LESS, activity.ended(LIMIT)).await.is_err());
        watched.write_all(b"y").await.unwrap();
        let begin = Instant::now();
        activity.ended(LIMIT).await;
        assert_eq!(begin.elapsed().as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn our_own_work_is_not_idleness() {
        let activity = Activity::new();
        let busy = activity.busy();
        assert!(timeout(LIMIT * 10, activity.ended(LIMIT)).await.is_err());
        drop(busy);
        assert!(timeout(LIMIT + Duration::from_secs(1), activity.ended(LIMIT)).await.is_ok());
    }
}
