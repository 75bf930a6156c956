//! Connections to the API server that wait for the next request.
//!
//! The one that was used last is used next, so that under little load the others grow old and go. Whether one is still
//! alive is looked at when it is taken, so a request meets a dead one only in the moment in which it dies.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Waker};
use std::thread::{self, ThreadId};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;

use super::buffers::Inbox;
use crate::k8s::upstream::{DialError, Tracked, Upstream};
use crate::lock::lock;

/// Connections that wait at the same time.
const MOST: usize = 32;
/// How long one waits.
const LONGEST: Duration = Duration::from_secs(90);
/// How long the one for a request that cannot be repeated may have waited: kube-apiserver closes after 90 s too, and
/// both may decide at the same moment.
const FRESH: Duration = Duration::from_secs(60);
/// Name and TCP of a new one (api-proxy.md 7.1).
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
/// Between looks for those that have waited too long.
const SWEEP: Duration = Duration::from_secs(10);

/// A connection to the API server.
#[derive(Debug)]
pub(super) struct Link {
    /// The connection itself.
    pub(super) stream: Tracked,
    /// What was read from it and not used yet.
    pub(super) inbox: Inbox,
    /// Whether it has carried a request before.
    pub(super) used: bool,
    since: Instant,
    /// The thread that it wakes.
    thread: ThreadId,
}

/// Whether a request may be sent a second time when its connection turns out to be dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeatable {
    /// It has no effect and no body.
    Yes,
    /// It might be carried out twice.
    No,
}

/// The connections that wait, and the way to more.
#[derive(Debug)]
pub(super) struct Pool {
    upstream: Upstream,
    waiting: Mutex<Vec<Link>>,
}

impl Pool {
    pub(super) fn new(upstream: Upstream) -> Self {
        Self { upstream, waiting: Mutex::default() }
    }

    /// The API server.
    pub(super) fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// A connection of this thread that waits, if there is one for such a request.
    pub(super) fn take(&self, repeatable: Repeatable) -> Option<Link> {
        let oldest = if repeatable == Repeatable::Yes { LONGEST } else { FRESH };
        let here = thread::current().id();
        loop {
            let mut link = {
                let mut waiting = lock(&self.waiting);
                // The last one is the youngest: when it is too old, all are.
                let last = waiting.iter().rposition(|link| link.thread == here)?;
                if waiting[last].since.elapsed() >= oldest {
                    return None;
                }
                waiting.remove(last)
            };
            if link.stream.set_idle(false) && link.is_alive() {
                return Some(link);
            }
        }
    }

    /// A new connection.
    pub(super) async fn dial(&self) -> Result<Link, DialError> {
        let stream = self.upstream.dial(CONNECT_LIMIT).await?;
        Ok(Link { stream, inbox: Inbox::default(), used: false, since: Instant::now(), thread: thread::current().id() })
    }

    /// Keeps a connection whose last answer is complete.
    pub(super) fn give_back(&self, mut link: Link) {
        // Bytes that nobody asked for would answer the next request.
        if !link.inbox.is_empty() || !link.stream.set_idle(true) {
            return;
        }
        (link.used, link.since) = (true, Instant::now());
        let mut waiting = lock(&self.waiting);
        if waiting.len() < MOST {
            waiting.push(link);
        }
    }

    /// Closes what has waited too long, or has ended meanwhile, until `stop`.
    pub(super) async fn keep_clean(&self, stop: CancellationToken) -> Result<(), Infallible> {
        let mut ticks = interval(SWEEP);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let mut waiting = lock(&self.waiting);
            waiting.retain_mut(|link| link.since.elapsed() < LONGEST && link.is_alive());
        }
        lock(&self.waiting).clear();
        Ok(())
    }
}

impl Link {
    /// Whether the other side has neither ended nor said anything unasked.
    fn is_alive(&mut self) -> bool {
        let mut byte = [0];
        let mut room = ReadBuf::new(&mut byte);
        let mut cx = Context::from_waker(Waker::noop());
        !self.stream.is_retired() && Pin::new(&mut self.stream).poll_read(&mut cx, &mut room).is_pending()
    }
}
