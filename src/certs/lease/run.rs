//! Performs the election: asks, waits, and tells whoever works under the Lease when that is over.
//!
//! Only the monotonic clock counts. A [`Tenure`] ends by its token, and by the clock for a process that slept through
//! the moment in which its token should have been cancelled. A release is written when the work under the Lease has
//! ended; until then, the record stands.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::{Answer, Ask, Change, Elector, Timing};

/// Shortest time for one request, where a tiny lease leaves no more.
const SHORTEST_TRY: Duration = Duration::from_secs(1);
/// For the answer to a request that a stop meets.
const UNDER_WAY: Duration = Duration::from_secs(2);
/// All requests of a release; the record expires by itself.
const RELEASE: Duration = Duration::from_secs(2);
/// Pieces of work at the same time under one tenure.
const MOST_WORK: u32 = 1024;

/// Where the record is.
pub trait Store: Send + Sync + 'static {
    /// Carries out `ask`, or gives up at `deadline`. Dropping it leaves open whether it was carried out.
    fn serve(&self, ask: Ask, deadline: Instant) -> impl Future<Output = Answer> + Send;

    /// The time of day, for people who look at the record.
    fn wall(&self) -> Timestamp;

    /// A number in `0.0..1.0`, to spread what many do.
    fn chance(&self) -> f64;
}

/// This replica's part.
#[derive(Clone, Debug)]
pub enum Role {
    /// It is responsible, for as long as the tenure says.
    Holder(Tenure),
    /// Another one is, or nobody.
    Candidate,
}

/// A time in which this replica is the holder.
#[derive(Clone, Debug)]
pub struct Tenure {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    ended: CancellationToken,
    until: Mutex<Instant>,
    work: Arc<Semaphore>,
}

/// Something that is under way under a tenure; the Lease is not given back before it is dropped.
#[derive(Debug)]
pub struct Work {
    _permit: OwnedSemaphorePermit,
}

/// The election as others see it. Clones see the same.
#[derive(Clone, Debug)]
pub struct Seat {
    role: watch::Receiver<Role>,
    resign: mpsc::Sender<Duration>,
    transitions: Arc<AtomicI64>,
}

/// One replica's part in an election. Dropping it ends a tenure without giving the Lease back.
#[derive(Debug)]
pub struct Election<S> {
    store: S,
    elector: Elector,
    role: watch::Sender<Role>,
    resign: mpsc::Receiver<Duration>,
    transitions: Arc<AtomicI64>,
    /// What is under way, also of earlier tenures.
    work: Arc<Semaphore>,
    /// Who held it when that was last logged.
    told: Option<String>,
}

/// What ended a wait.
enum Woken {
    Stop,
    Resign(Duration),
    Answered(Answer),
    Due,
}

// === impl Role ===

impl Role {
    /// Whether this replica is responsible at this moment.
    pub fn is_holder(&self) -> bool {
        matches!(self, Self::Holder(tenure) if tenure.is_held())
    }
}

// === impl Tenure ===

impl Tenure {
    fn new(until: Instant, work: &Arc<Semaphore>) -> Self {
        let (ended, until) = (CancellationToken::new(), Mutex::new(until));
        Self { inner: Arc::new(Inner { ended, until, work: Arc::clone(work) }) }
    }

    /// Whether it is this very one.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Whether it lasts. To be asked before each step that no two replicas may do.
    pub fn is_held(&self) -> bool {
        !self.inner.ended.is_cancelled() && self.covers()
    }

    /// Whether nobody else can be the holder yet: also true of a tenure that has just been ended, for tidying up.
    pub fn covers(&self) -> bool {
        Instant::now() < self.until()
    }

    /// Completes when it is over.
    pub fn ended(&self) -> WaitForCancellationFuture<'_> {
        self.inner.ended.cancelled()
    }

    /// Begins something under it; nothing when it is over.
    pub fn work(&self) -> Option<Work> {
        let permit = Arc::clone(&self.inner.work).try_acquire_owned().ok()?;
        self.is_held().then_some(Work { _permit: permit })
    }

    /// Until when it covers what is done, as far as is known; renewals move it.
    pub fn until(&self) -> Instant {
        *self.inner.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn extend(&self, until: Instant) {
        *self.inner.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

// === impl Seat ===

impl Seat {
    /// This replica's part, followed.
    pub fn role(&self) -> watch::Receiver<Role> {
        self.role.clone()
    }

    /// Whether this replica is responsible at this moment.
    pub fn is_holder(&self) -> bool {
        self.role.borrow().is_holder()
    }

    /// The tenure, while this replica is responsible.
    pub fn tenure(&self) -> Option<Tenure> {
        match &*self.role.borrow() {
            Role::Holder(tenure) if tenure.is_held() => Some(tenure.clone()),
            _ => None,
        }
    }

    /// `leaseTransitions` as it was last seen.
    pub fn transitions(&self) -> i64 {
        self.transitions.load(Ordering::Relaxed)
    }

    /// Gives the Lease back, and does not compete for `pause`, so that another replica tries.
    pub fn resign(&self, pause: Duration) {
        // Full means that it has been said already.
        let _ = self.resign.try_send(pause);
    }
}

// === impl Election ===

impl<S: Store> Election<S> {
    /// A candidate: `me` is `<pod name>_<pod uid>`.
    pub fn new(store: S, me: String, ordinal: u32, timing: Timing) -> (Self, Seat) {
        let (role, part) = watch::channel(Role::Candidate);
        let (resign, resigned) = mpsc::channel(1);
        let transitions = Arc::new(AtomicI64::new(0));
        let seat = Seat { role: part, resign, transitions: Arc::clone(&transitions) };
        let elector = Elector::new(me, ordinal, timing, Instant::now().into_std());
        let work = Arc::new(Semaphore::new(MOST_WORK as usize));
        (Self { store, elector, role, resign: resigned, transitions, work, told: None }, seat)
    }

    /// Takes part until `stop`, then gives the Lease back if it has it.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let sent = Instant::now();
            let change = self.elector.expire(sent.into_std());
            self.apply(change);
            match self.next(sent, &stop).await {
                Woken::Due => {}
                Woken::Answered(answer) => self.take(answer, sent),
                Woken::Resign(pause) => {
                    tracing::warn!(?pause, "giving the Lease of certificates back, so that another replica tries");
                    self.release(pause).await;
                }
                Woken::Stop => return self.release(Duration::ZERO).await,
            }
        }
    }

    /// Asks what is to be asked at `sent`, or waits until something is.
    async fn next(&mut self, sent: Instant, stop: &CancellationToken) -> Woken {
        let Some(ask) = self.elector.ask(sent.into_std(), self.store.wall()) else {
            return tokio::select! {
                biased;
                () = stop.cancelled() => Woken::Stop,
                Some(pause) = self.resign.recv() => Woken::Resign(pause),
                () = sleep_until(self.elector.wake_at().into()) => Woken::Due,
            };
        };
        let deadline = self.deadline(sent);
        let asking = timeout_at(deadline, self.store.serve(ask, deadline));
        tokio::pin!(asking);
        let woken = tokio::select! {
            biased;
            answer = &mut asking => return Woken::Answered(answer.unwrap_or(Answer::Failed)),
            () = stop.cancelled() => Woken::Stop,
            Some(pause) = self.resign.recv() => Woken::Resign(pause),
        };
        end(&self.role);
        // A write under way may just have made us the holder, and then there is something to give back.
        let answer = timeout_at(Instant::now() + UNDER_WAY, asking).await;
        let answer = answer.ok().and_then(Result::ok).unwrap_or(Answer::Failed);
        self.elector.answered(answer, sent.into_std(), Instant::now().into_std(), self.store.chance());
        woken
    }

    fn take(&mut self, answer: Answer, sent: Instant) {
        let (now, chance) = (Instant::now().into_std(), self.store.chance());
        let change = self.elector.answered(answer, sent.into_std(), now, chance);
        self.apply(change);
    }

    /// When a request that is sent now has to be answered.
    fn deadline(&self, sent: Instant) -> Instant {
        let limit = sent + self.elector.timing().renew.max(SHORTEST_TRY);
        self.elector.gives_up_at().map_or(limit, |end| limit.min(end.into()))
    }

    fn apply(&mut self, change: Change) {
        if let Some(record) = self.elector.seen() {
            self.transitions.store(record.transitions, Ordering::Relaxed);
        }
        let until = self.elector.gives_up_at().map(Instant::from);
        match (change, until) {
            (Change::Acquired, Some(until)) => {
                tracing::info!("this replica holds the Lease: it is responsible for certificates");
                self.told = None;
                end(&self.role);
                self.role.send_replace(Role::Holder(Tenure::new(until, &self.work)));
            }
            (Change::Lost, _) => {
                tracing::warn!("this replica has lost the Lease: it is not responsible for certificates any more");
                end(&self.role);
            }
            (_, Some(until)) => {
                if let Role::Holder(tenure) = &*self.role.borrow() {
                    tenure.extend(until);
                }
            }
            (_, None) => self.tell_holder(),
        }
    }

    /// Says once who is responsible.
    fn tell_holder(&mut self) {
        let holder = self.elector.seen().map(|record| record.holder.as_str()).filter(|holder| !holder.is_empty());
        if holder.is_some() && holder != self.told.as_deref() {
            tracing::info!(holder, "another replica holds the Lease of certificates");
            self.told = holder.map(str::to_owned);
        }
    }

    /// Waits for the work under tenures that have ended, and gives the Lease back for anybody to take at once.
    async fn release(&mut self, pause: Duration) {
        end(&self.role);
        if let Some(until) = self.elector.gives_up_at()
            && timeout_at(until.into(), self.work.acquire_many(MOST_WORK)).await.is_err()
        {
            // What still runs is covered by the record until that expires.
            tracing::warn!("work under the Lease of certificates did not end in time, so it is left to expire");
            self.elector.release(Instant::now().into_std(), self.store.wall(), pause);
            return;
        }
        let deadline = Instant::now() + RELEASE;
        let mut ask = self.elector.release(Instant::now().into_std(), self.store.wall(), pause);
        while let Some(next) = ask {
            let answer = timeout_at(deadline, self.store.serve(next, deadline)).await.unwrap_or(Answer::Failed);
            if answer == Answer::Failed {
                if Instant::now() + self.elector.timing().step >= deadline {
                    return;
                }
                tokio::time::sleep(self.elector.timing().step).await;
            }
            ask = self.elector.release_again(answer, self.store.wall());
        }
    }
}

impl<S> Drop for Election<S> {
    fn drop(&mut self) {
        end(&self.role);
    }
}

/// Ends the tenure, if there is one.
fn end(role: &watch::Sender<Role>) {
    if let Role::Holder(tenure) = role.send_replace(Role::Candidate) {
        tenure.inner.ended.cancel();
    }
}

#[cfg(test)]
mod tests;
