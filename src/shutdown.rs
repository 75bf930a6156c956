//! Stop signals, supervised tasks and process limits.
//!
//! Every background task has a name, an owner and a token that tells it to stop: [`Tasks`] reports each one that
//! ends, however it ends, and stops them newest first. [`Signals`] turns SIGINT and SIGTERM into values, so that
//! the loop that owns the process decides what the first and the second one mean.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{self, SignalKind};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::causes::chain;

/// How long an aborted task may take to let go: it ends at its next await point, which is soon or never.
const ABORT_SETTLES: Duration = Duration::from_millis(100);

/// What a task fails with.
pub type TaskError = Box<dyn Error + Send + Sync>;

/// How a task ended.
#[derive(Debug)]
pub enum Outcome {
    /// It returned `Ok`. For a task that was not told to stop this is a failure too: only the owner knows.
    Finished,
    /// It returned an error.
    Failed(TaskError),
    /// It panicked, with this message.
    Panicked(String),
    /// It did not stop within the grace period and was aborted.
    Aborted,
}

/// A task that ended.
#[derive(Debug)]
pub struct Ended {
    /// The name it was spawned with.
    pub name: Cow<'static, str>,
    /// How it ended.
    pub outcome: Outcome,
}

impl fmt::Display for Ended {
    /// `task health panicked: …`; an error with its causes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {} ", self.name)?;
        match &self.outcome {
            Outcome::Finished => f.write_str("ended"),
            Outcome::Failed(error) => write!(f, "failed: {}", chain(&**error)),
            Outcome::Panicked(message) => write!(f, "panicked: {message}"),
            Outcome::Aborted => f.write_str("did not stop in time and was aborted"),
        }
    }
}

/// Work without a name, whose outcome goes elsewhere. Dropping it aborts it.
#[derive(Debug, Default)]
pub struct Errands(JoinSet<()>);

impl Errands {
    /// Starts `work`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(boxed(work));
    }

    /// How the next one ended; `None` when there is none. Cancel safe.
    pub async fn next_ended(&mut self) -> Option<Result<(), JoinError>> {
        self.0.join_next().await
    }

    /// Forgets those that have ended.
    pub fn forget_ended(&mut self) {
        while self.0.try_join_next().is_some() {}
    }

    /// Tells all to end at their next await point.
    pub fn abort_all(&mut self) {
        self.0.abort_all();
    }
}

/// Moves `future` off the stack and forgets its type: the runtime's part of a task is compiled once for all of them,
/// and whoever starts many keeps no room for each in its frame. Every page of a frame is resident once it was entered.
#[inline(never)]
fn boxed<T>(future: impl Future<Output = T> + Send + 'static) -> BoxFuture<'static, T> {
    future.boxed()
}

/// A set of named background tasks with one owner. Dropping it aborts them.
#[derive(Debug)]
pub struct Tasks {
    root: CancellationToken,
    set: JoinSet<Result<(), TaskError>>,
    running: Vec<Running>,
}

#[derive(Debug)]
struct Running {
    id: Id,
    name: Cow<'static, str>,
    stop: CancellationToken,
    abort: AbortHandle,
}

impl Tasks {
    /// An empty set. Cancelling `root` tells every task to stop at once, in no order.
    pub fn new(root: CancellationToken) -> Self {
        Self { root, set: JoinSet::new(), running: Vec::new() }
    }

    /// Starts `task`, which is given the token that tells it to stop.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn<F, Fut, E>(&mut self, name: impl Into<Cow<'static, str>>, task: F)
    where
        F: FnOnce(CancellationToken) -> Fut,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<TaskError> + 'static,
    {
        let stop = self.root.child_token();
        let future = task(stop.clone());
        let abort = self.set.spawn(boxed(async move { future.await.map_err(Into::into) }));
        self.running.push(Running { id: abort.id(), name: name.into(), stop, abort });
    }

    /// Starts a task that cannot fail: it ends only when it is told to.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn keep<Fut>(&mut self, name: impl Into<Cow<'static, str>>, task: impl FnOnce(CancellationToken) -> Fut)
    where
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.spawn(name, |stop| {
            let task = task(stop);
            async move {
                task.await;
                Ok::<(), std::convert::Infallible>(())
            }
        });
    }

    /// How many have not been reported as ended.
    pub fn len(&self) -> usize {
        self.running.len()
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// The next task that ends; pends while there is none. Cancel safe: no ending is lost.
    pub async fn next_ended(&mut self) -> Ended {
        match self.set.join_next_with_id().await {
            Some(Ok((id, Ok(())))) => self.ended(id, Outcome::Finished),
            Some(Ok((id, Err(error)))) => self.ended(id, Outcome::Failed(error)),
            Some(Err(error)) => self.ended(error.id(), outcome(error)),
            None => std::future::pending().await,
        }
    }

    /// Tells the tasks to stop, the newest first, each only when the newer ones have stopped or have used up their
    /// share of `grace`; whatever still runs when `grace` is over is aborted.
    ///
    /// Returns those that did not end cleanly, in the order in which that became known.
    pub async fn stop(&mut self, grace: Duration) -> Vec<Ended> {
        let deadline = Instant::now() + grace;
        let mut unclean = Vec::new();
        let order: Vec<_> = self.running.iter().rev().map(|task| (task.id, task.stop.clone())).collect();
        for (told, (id, stop)) in order.iter().enumerate() {
            stop.cancel();
            let left = u32::try_from(order.len() - told).unwrap_or(u32::MAX);
            let share = Instant::now() + deadline.saturating_duration_since(Instant::now()) / left;
            self.settle(share, &mut unclean, |tasks| tasks.running.iter().any(|task| task.id == *id)).await;
        }
        self.settle(deadline, &mut unclean, |tasks| !tasks.is_empty()).await;
        for task in std::mem::take(&mut self.running) {
            task.abort.abort();
            unclean.push(Ended { name: task.name, outcome: Outcome::Aborted });
        }
        let settled = Instant::now() + ABORT_SETTLES;
        while let Ok(Some(_)) = timeout_at(settled, self.set.join_next()).await {}
        unclean
    }

    /// Collects endings until `wanted` is false or `until` has come.
    async fn settle(&mut self, until: Instant, unclean: &mut Vec<Ended>, wanted: impl Fn(&Self) -> bool) {
        while wanted(self) {
            match timeout_at(until, self.next_ended()).await {
                Ok(Ended { outcome: Outcome::Finished, .. }) => {}
                Ok(ended) => unclean.push(ended),
                Err(_) => return,
            }
        }
    }

    fn ended(&mut self, id: Id, outcome: Outcome) -> Ended {
        let position = self.running.iter().position(|task| task.id == id).expect("each task is reported once");
        Ended { name: self.running.remove(position).name, outcome }
    }
}

fn outcome(error: JoinError) -> Outcome {
    match error.try_into_panic() {
        Ok(panic) => Outcome::Panicked(
            panic
                .downcast_ref::<&str>()
                .map(|message| (*message).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "a panic without a message".to_owned()),
        ),
        Err(_) => Outcome::Aborted,
    }
}

/// A signal that asks the process to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT: somebody at a terminal.
    Interrupt,
    /// SIGTERM: the container runtime.
    Terminate,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        })
    }
}

/// The stop signals of this process, as a stream. While it exists, and after, they no longer end the process.
#[derive(Debug)]
pub struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
}

impl Signals {
    /// Takes over SIGINT and SIGTERM.
    pub fn install() -> io::Result<Self> {
        Ok(Self {
            interrupt: unix::signal(SignalKind::interrupt())?,
            terminate: unix::signal(SignalKind::terminate())?,
        })
    }

    /// The next signal. Cancel safe. Signals of one kind that come before the call count as one.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            Some(()) = self.interrupt.recv() => Signal::Interrupt,
            Some(()) = self.terminate.recv() => Signal::Terminate,
            else => std::future::pending().await,
        }
    }
}

/// The soft limit on open files, before and after it was raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFiles {
    /// The soft limit that the process was started with.
    pub before: u64,
    /// The soft limit now, which is the hard limit.
    pub now: u64,
}

/// Raises the soft limit on open files to the hard one, for this process and the children to come. Go programs do
/// the same at start.
pub fn raise_open_files_limit() -> io::Result<OpenFiles> {
    let (before, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if before < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(OpenFiles { before, now: hard })
}

/// How many files this process may have open at the same time.
pub fn open_files_limit() -> io::Result<u64> {
    getrlimit(Resource::RLIMIT_NOFILE).map(|(soft, _)| soft).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use nix::sys::signal::{Signal as NixSignal, raise};

    use super::*;

    fn tasks() -> Tasks {
        Tasks::new(CancellationToken::new())
    }

    #[tokio::test]
    async fn every_way_of_ending_is_reported_by_name() {
        let mut tasks = tasks();
        tasks.spawn("done", |_| async { Ok::<_, io::Error>(()) });
        tasks.spawn("broken", |_| async { Err(io::Error::other("disk on fire")) });
        tasks.spawn("buggy", |_| async {
            assert!(std::hint::black_box(false), "index {}", 7);
            Ok::<_, io::Error>(())
        });
        let mut ended = Vec::new();
        for _ in 0..3 {
            ended.push(tasks.next_ended().await.to_string());
        }
        ended.sort();
        assert_eq!(ended, ["task broken failed: disk on fire", "task buggy panicked: index 7", "task done ended"]);
        assert!(tasks.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_no_task_pends() {
        let mut tasks = tasks();
        assert!(tokio::time::timeout(Duration::from_secs(3600), tasks.next_ended()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn stops_newest_first_and_one_at_a_time() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = tasks();
        for name in ["first", "second", "third"] {
            let order = Arc::clone(&order);
            tasks.spawn(name, |stop| async move {
                stop.cancelled().await;
                order.lock().unwrap().push(format!("{name} told"));
                tokio::time::sleep(Duration::from_millis(10)).await;
                order.lock().unwrap().push(format!("{name} done"));
                Ok::<_, io::Error>(())
            });
        }
        assert!(tasks.stop(Duration::from_secs(5)).await.is_empty());
        assert_eq!(
            *order.lock().unwrap(),
            ["third told", "third done", "second told", "second done", "first told", "first done"]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_deaf_task_is_named_and_does_not_starve_the_others() {
        let mut tasks = tasks();
        tasks.spawn("slow", |stop| async move {
            stop.cancelled().await;
            tokio::time::sleep(Duration::from_secs(4)).await;
            Ok::<_, io::Error>(())
        });
        tasks.spawn("sour", |stop| async move {
            stop.cancelled().await;
            Err(io::Error::other("could not flush"))
        });
        tasks.spawn("deaf", |_| std::future::pending::<Result<(), io::Error>>());
        let begin = Instant::now();
        let unclean: Vec<_> = tasks.stop(Duration::from_secs(9)).await.iter().map(ToString::to_string).collect();
        assert_eq!(unclean, ["task sour failed: could not flush", "task deaf did not stop in time and was aborted"]);
        assert_eq!(begin.elapsed().as_secs(), 9);
    }

    #[tokio::test]
    async fn cancelling_the_root_stops_all() {
        let root = CancellationToken::new();
        let mut tasks = Tasks::new(root.clone());
        for name in ["a", "b"] {
            tasks.spawn(name, |stop| async move {
                stop.cancelled().await;
                Ok::<_, io::Error>(())
            });
        }
        root.cancel();
        tasks.next_ended().await;
        tasks.next_ended().await;
        assert!(tasks.is_empty());
    }

    #[tokio::test]
    async fn signals_become_values() {
        let mut signals = Signals::install().unwrap();
        raise(NixSignal::SIGTERM).unwrap();
        assert_eq!(signals.next().await, Signal::Terminate);
        raise(NixSignal::SIGINT).unwrap();
        assert_eq!(signals.next().await.to_string(), "SIGINT");
        assert!(tokio::time::timeout(Duration::from_millis(1), signals.next()).await.is_err());
    }

    #[test]
    fn the_open_files_limit_ends_at_the_hard_one() {
        let raised = raise_open_files_limit().unwrap();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!((raised.now, soft), (hard, hard));
        assert!(raised.before <= raised.now);
        assert_eq!(raise_open_files_limit().unwrap(), OpenFiles { before: hard, now: hard });
    }
}
