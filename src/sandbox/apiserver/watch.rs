//! A running watch: a stream of events that ends with its time limit, or breaks when told to.
//!
//! Each event is flushed as it happens. Nothing is lost between the state a watch starts from and the changes that
//! follow, because both are read from the store under one lock. A watcher that falls behind the store's history gets
//! an `ERROR` event with a 410 `Status`, then the end, as from kube-apiserver's watch cache.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::Core;
use super::select::Selector;
use super::store::Collection;

/// How long a watch lasts when the client does not say; kube-apiserver picks 30 to 60 minutes.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// With all there is, each as `ADDED`.
    State,
    /// The same, closed by a bookmark that says so (`sendInitialEvents`).
    StateThenBookmark,
    /// With what happened after that resourceVersion.
    After(u64),
}

pub(super) struct Watch {
    core: Arc<Core>,
    of: Collection,
    selector: Selector,
    start: Option<Start>,
    position: u64,
    ready: VecDeque<Bytes>,
    ends: Instant,
    bookmark: Option<Instant>,
    ended: bool,
    changes: watch::Receiver<u64>,
    breaks: watch::Receiver<u64>,
}

impl Watch {
    /// `seconds` until it ends.
    pub(super) fn new(
        core: Arc<Core>,
        of: Collection,
        selector: Selector,
        start: Start,
        seconds: Option<u64>,
        bookmarks: bool,
    ) -> Self {
        let (changes, breaks) = (core.version.subscribe(), core.breaks.subscribe());
        let now = Instant::now();
        let bookmark = bookmarks.then(|| now + core.bookmarks);
        let (ends, ready) = (now + seconds.map_or(LIMIT, Duration::from_secs), VecDeque::new());
        let (start, position, ended) = (Some(start), 0, false);
        Self { core, of, selector, start, position, ready, ends, bookmark, ended, changes, breaks }
    }

    /// The events, one JSON document a line.
    pub(super) fn events(self: Box<Self>) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        futures_util::stream::unfold(self, |mut watch| async move { watch.next().await.map(|item| (item, watch)) })
    }

    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(Ok(line));
            }
            if self.ended {
                return None;
            }
            self.core.running().await;
            self.changes.mark_unchanged();
            self.gather();
            if !self.ready.is_empty() {
                continue;
            }
            let bookmark = self.bookmark.unwrap_or(self.ends);
            tokio::select! {
                biased;
                _ = self.breaks.changed() => return Some(Err(io::ErrorKind::ConnectionAborted.into())),
                _ = self.changes.changed() => {}
                () = sleep_until(self.ends) => return None,
                () = sleep_until(bookmark), if self.bookmark.is_some() => {
                    self.bookmark = Some(Instant::now() + self.core.bookmarks);
                    self.push_bookmark(&json!({}));
                }
            }
        }
    }

    /// Moves what has happened into `ready`.
    fn gather(&mut self) {
        let core = Arc::clone(&self.core);
        let state = core.state();
        let start = self.start.take();
        match start {
            Some(Start::After(version)) => self.position = version,
            Some(Start::State | Start::StateThenBookmark) => {
                for object in state.store.list(&self.of, &self.selector, None, 0).items {
                    self.push("ADDED", &object);
                }
                self.position = state.store.version();
            }
            None => {}
        }
        if start == Some(Start::StateThenBookmark) {
            self.push_bookmark(&json!({"k8s.io/initial-events-end": "true"}));
        }
        match state.store.since(&self.of, &self.selector, self.position) {
            Ok(events) => {
                for (event, object) in events {
                    self.push(event.name(), &object);
                }
                self.position = self.position.max(state.store.version());
            }
            Err(status) => {
                self.push("ERROR", &status.body());
                self.ended = true;
            }
        }
    }

    fn push(&mut self, kind: &str, object: &Value) {
        let mut line = json!({"type": kind, "object": object}).to_string().into_bytes();
        line.push(b'\n');
        self.ready.push_back(line.into());
    }

    fn push_bookmark(&mut self, annotations: &Value) {
        let mut metadata = json!({"resourceVersion": self.position.to_string()});
        if annotations.as_object().is_some_and(|map| !map.is_empty()) {
            metadata["annotations"] = annotations.clone();
        }
        let resource = self.of.resource;
        self.push(
            "BOOKMARK",
            &json!({"kind": resource.kind, "apiVersion": resource.api_version(), "metadata": metadata}),
        );
    }
}
