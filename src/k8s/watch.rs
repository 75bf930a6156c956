//! One Secret, followed.
//!
//! [`SecretWatch::next`] yields the Secret as it is first, then each time it has changed. A watch that ends, expires
//! (410), breaks or goes silent is opened again after a new list; where `list` or `watch` is not allowed, the Secret
//! is read every few seconds instead. Idle, it costs one connection. A watch that died without a word goes unnoticed
//! for minutes; whoever cannot wait that long has it checked ([`SecretWatch::checked_every`]). Every wait in it is
//! cancel-safe.

use std::collections::VecDeque;
use std::time::Duration;

use http_body_util::BodyExt as _;
use kube::client::Body;
use tokio::time::Instant;

use super::error::{Error, Resource, Verb};
use super::request::{ANSWER_LIMIT, Call, Replay};
use super::state::StateSecret;
use super::wire::{self, WatchLine};
use super::{Cluster, encoded};
use crate::backoff::{self, Backoff};

/// How often the Secret is read where watching is not allowed; upstream polls at this pace.
const POLL: Duration = Duration::from_secs(5);
/// The server ends a watch after this time; below what load balancers call idle for ever.
const WATCH_TIME: Duration = Duration::from_secs(240);
/// A watch still open this long after the server should have ended it is dead.
const SILENCE_LIMIT: Duration = Duration::from_secs(270);
/// Until the head of a watch's answer.
const OPEN_LIMIT: Duration = Duration::from_secs(15);
/// Between lists, so that watches that end at once do not become a busy loop.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A watch that lasted this long is a working one, however it ended.
const LONG_ENOUGH: Duration = Duration::from_millis(500);

/// What the Secret is like now; `None` when it does not exist.
pub type Seen = Option<StateSecret>;

/// Follows one Secret; see [`Cluster::watch_secret`].
#[derive(Debug)]
pub struct SecretWatch {
    cluster: Cluster,
    name: String,
    phase: Phase,
    not_before: Instant,
    backoff: Backoff,
    last: Last,
    complained: bool,
    check: Option<Check>,
}

/// The Secret is read although a watch is open, in case the watch is not what it seems.
#[derive(Clone, Copy, Debug)]
struct Check {
    every: Duration,
    next: Instant,
}

/// What was yielded last.
#[derive(Debug, PartialEq, Eq)]
enum Last {
    Nothing,
    Absent,
    Version(String),
    /// The server names no versions: each look is taken for a change.
    Unversioned,
}

#[derive(Debug)]
enum Phase {
    /// The next step reads the Secret through a list.
    List,
    /// The next step opens a watch from this version.
    Open(String),
    /// Lines are coming in.
    Stream(Box<Lines>),
    /// Watching is not allowed.
    Poll,
}

#[derive(Debug)]
struct Lines {
    body: Body,
    buffer: Vec<u8>,
    ready: VecDeque<Vec<u8>>,
    opened: Instant,
}

impl SecretWatch {
    pub(super) fn new(cluster: Cluster, name: String) -> Self {
        // A deadline of the caller's ends its waiting, not the connection under it.
        let cluster = Cluster { deadline: None, ..cluster };
        Self {
            cluster,
            name,
            phase: Phase::List,
            not_before: Instant::now(),
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
            last: Last::Nothing,
            complained: false,
            check: None,
        }
    }

    /// Reads the Secret whenever the watch has said nothing for this long. A proxy or a node that vanished leaves a watch that never
    /// ends and never speaks again; this is what notices a change all the same.
    #[must_use]
    pub fn checked_every(mut self, every: Duration) -> Self {
        self.check = Some(Check { every, next: Instant::now() + every });
        self
    }

    /// Whether changes arrive only by reading again and again.
    pub fn is_polling(&self) -> bool {
        matches!(self.phase, Phase::Poll)
    }

    /// The Secret as it is, once it differs from what was yielded before. Waits for as long as that takes, also
    /// through an outage of the API server.
    ///
    /// # Errors
    /// Only [`Error::Denied`] for `get`: the Secret may not be read at all. The caller may call again.
    pub async fn next(&mut self) -> Result<Seen, Error> {
        loop {
            if let Some(seen) = self.turn().await? {
                return Ok(seen);
            }
        }
    }

    /// The same for who has something to do in between: ends after one wait, with the Secret if that brought anything
    /// new. Where it is read again and again, that is after each reading.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn turn(&mut self) -> Result<Option<Seen>, Error> {
        match self.step().await {
            Ok(Some(seen)) => {
                let now = version_of(&seen);
                let is_new = self.last != now || now == Last::Unversioned;
                self.last = now;
                Ok(is_new.then_some(seen))
            }
            Ok(None) => Ok(None),
            Err(error) if matches!(error, Error::Denied { verb: Verb::Get, .. }) => {
                self.not_before = Instant::now() + POLL;
                Err(error)
            }
            Err(error) => {
                self.complain(&error);
                Ok(None)
            }
        }
    }

    /// One wait; what it saw, if it saw the Secret. Cancelled in the middle, it starts the same wait again.
    async fn step(&mut self) -> Result<Option<Seen>, Error> {
        match &mut self.phase {
            Phase::List => {
                tokio::time::sleep_until(self.not_before).await;
                let list = self.collection(Verb::List, "");
                let listed = self.cluster.call(&list).await;
                self.not_before = Instant::now() + self.backoff.next(backoff::jitter());
                match listed {
                    Ok(body) => {
                        let (seen, version) = wire::list(&body, &self.name).map_err(|reason| list.malformed(reason))?;
                        self.recovered();
                        self.phase = version.map_or(Phase::Poll, Phase::Open);
                        Ok(Some(seen))
                    }
                    Err(Error::Denied { .. }) => {
                        self.poll_instead(Verb::List);
                        Ok(None)
                    }
                    Err(error) => Err(error),
                }
            }
            Phase::Open(version) => {
                let seconds = WATCH_TIME.as_secs();
                let query = format!(
                    "&watch=1&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={}",
                    encoded(version)
                );
                let watch = self.collection(Verb::Watch, &query);
                let opened = tokio::time::timeout(OPEN_LIMIT, self.cluster.open(&watch)).await;
                // Whatever went wrong, a new list is the way back.
                self.phase = Phase::List;
                match opened {
                    Ok(Ok(response)) => {
                        // What was due meanwhile the list has just answered.
                        self.check = self.check.map(Check::later);
                        self.phase = Phase::Stream(Box::new(Lines::new(response.into_body())));
                        Ok(None)
                    }
                    Ok(Err(Error::Denied { .. })) => {
                        self.poll_instead(Verb::Watch);
                        Ok(None)
                    }
                    Ok(Err(error)) => Err(error),
                    Err(_) => Ok(None),
                }
            }
            Phase::Stream(lines) => {
                let line = tokio::select! {
                    biased;
                    line = lines.next() => line,
                    read = checked(&self.cluster, &self.name, self.check) => {
                        return Ok(self.judge_check(read));
                    }
                };
                if let Some(check) = &mut self.check {
                    check.next = Instant::now() + check.every;
                }
                let Some(line) = line else {
                    // It worked for a while: the next one may follow soon.
                    if lines.opened.elapsed() >= LONG_ENOUGH {
                        self.backoff.reset();
                    }
                    self.phase = Phase::List;
                    return Ok(None);
                };
                match wire::watch_line(&line) {
                    Ok(WatchLine::Present(secret)) => Ok(Some(Some(*secret))),
                    Ok(WatchLine::Absent(_)) => Ok(Some(None)),
                    Ok(WatchLine::Bookmark(_)) => Ok(None),
                    Ok(WatchLine::Ended) => {
                        self.phase = Phase::List;
                        Ok(None)
                    }
                    Err(reason) => {
                        self.phase = Phase::List;
                        Err(self.collection(Verb::Watch, "").malformed(reason))
                    }
                }
            }
            Phase::Poll => {
                tokio::time::sleep_until(self.not_before).await;
                let seen = self.cluster.secret(&self.name).await;
                self.check = self.check.map(Check::later);
                self.not_before = self.check.map_or_else(|| Instant::now() + POLL, |check| check.next);
                let seen = seen?;
                self.recovered();
                Ok(Some(seen))
            }
        }
    }

    /// What a check read. A Secret that the watch should have told about ends the watch.
    fn judge_check(&mut self, read: Result<Seen, Error>) -> Option<Seen> {
        self.check = self.check.map(Check::later);
        let seen = match read {
            Ok(seen) => seen,
            Err(error) => {
                tracing::debug!(secret = self.name, %error, "cannot check what the watch says");
                return None;
            }
        };
        if version_of(&seen) != self.last {
            self.phase = Phase::List;
        }
        Some(seen)
    }

    fn collection<'a>(&self, verb: Verb, query: &str) -> Call<'a> {
        Call {
            verb,
            resource: Resource::Secrets,
            name: None,
            target: format!(
                "{}?fieldSelector=metadata.name%3D{}{query}",
                self.cluster.secrets_path(),
                encoded(&self.name)
            ),
            body: None,
            replay: Replay::Safe,
        }
    }

    fn poll_instead(&mut self, verb: Verb) {
        tracing::debug!(secret = self.name, %verb, "not allowed, reading the Secret every {POLL:?} instead");
        self.not_before = Instant::now();
        self.phase = Phase::Poll;
    }

    fn complain(&mut self, error: &Error) {
        if self.complained {
            tracing::debug!(secret = self.name, %error, "still cannot follow the Secret");
        } else {
            self.complained = true;
            tracing::warn!(secret = self.name, %error, "cannot follow the Secret, trying on");
        }
    }

    fn recovered(&mut self) {
        if std::mem::take(&mut self.complained) {
            self.backoff.reset();
            tracing::info!(secret = self.name, "the Secret can be followed again");
        }
    }
}

impl Check {
    /// The next one that has not passed, counted from the last: whoever counts the same way is woken together with it.
    fn later(mut self) -> Self {
        let now = Instant::now();
        while self.next <= now {
            self.next += self.every;
        }
        self
    }
}

fn version_of(seen: &Seen) -> Last {
    match seen {
        None => Last::Absent,
        Some(secret) => secret.resource_version.clone().map_or(Last::Unversioned, Last::Version),
    }
}

/// The Secret, read when that is due; never without a check. A reading that takes longer than the next is away is given
/// up, so that it does not stand in the way of what the watch says.
async fn checked(cluster: &Cluster, name: &str, check: Option<Check>) -> Result<Seen, Error> {
    let Some(Check { every, next }) = check else { return std::future::pending().await };
    tokio::time::sleep_until(next).await;
    cluster.until(next + every).secret(name).await
}

impl Lines {
    fn new(body: Body) -> Self {
        Self { body, buffer: Vec::new(), ready: VecDeque::new(), opened: Instant::now() }
    }

    /// The next whole line; `None` when there will be no more.
    async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            let frame = tokio::time::timeout_at(self.opened + SILENCE_LIMIT, self.body.frame()).await.ok()??;
            let Ok(data) = frame.ok()?.into_data() else { continue };
            self.buffer.extend_from_slice(&data);
            while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(end + 1);
                let line = std::mem::replace(&mut self.buffer, rest);
                if !line.trim_ascii().is_empty() {
                    self.ready.push_back(line);
                }
            }
            if self.buffer.len() > ANSWER_LIMIT {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_cut_wherever_the_frames_end() {
        let body = Body::from(b"{\"a\":1}\n\n{\"b\":2}\n{\"cut".to_vec());
        let mut lines = Lines::new(body);
        assert_eq!(lines.next().await.as_deref(), Some(&b"{\"a\":1}\n"[..]));
        assert_eq!(lines.next().await.as_deref(), Some(&b"{\"b\":2}\n"[..]));
        assert_eq!(lines.next().await, None, "half a line is no line");
    }
}
