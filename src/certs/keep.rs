//! Keeps one certificate fresh: the loop of one name.
//!
//! Waits until the name is allowed and its certificate could be stored, asks when it is due, and sleeps as
//! [`schedule`](super::schedule) says. Cancel safe: dropping it aborts an order that is under way, and what is known of
//! the name has been saved after each attempt.

mod outcome;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::book::Book;
use super::budget::{Kind, Ledger};
use super::chain::{Certificate, Period};
use super::failure::Failure;
use super::names::Name;
use super::record::Record;
use super::renewed::Ordered;
use super::schedule::{Growth, Schedule, later, start_delay};
use super::standing::{Phase, Standing};
use super::world::{Allowed, Role, World};

/// One attempt: the daemon gives up on an authority earlier.
const ATTEMPT: Duration = Duration::from_secs(30 * 60);
/// Between words about a name that is not allowed.
const REMIND: Duration = Duration::from_secs(60);
/// Between looks at a storage that blocks.
const STORAGE: Duration = Duration::from_secs(30);
/// Longest sleep without a look at the clock, which may have been set.
const NAP: Duration = Duration::from_secs(3600);
/// A process that thinks it is earlier has no clock that a certificate could be judged by.
const SANE: &str = "2020-01-01T00:00:00Z";

/// What the loops of all names share.
pub(super) struct Shared<W> {
    pub(super) world: W,
    pub(super) growth: Growth,
    pub(super) start: Start,
    pub(super) allowed: watch::Receiver<Allowed>,
    pub(super) role: watch::Receiver<Role>,
    /// Calls at the same time.
    pub(super) calls: Semaphore,
    pub(super) ledger: Mutex<Ledger>,
    /// Who wants to hear of what was ordered.
    pub(super) orders: OnceLock<mpsc::UnboundedSender<Ordered>>,
}

impl<W> Shared<W> {
    /// What is noted of `name`.
    pub(super) fn book<'a>(&'a self, name: &'a Name) -> Book<'a, W> {
        Book { world: &self.world, ledger: &self.ledger, name }
    }
}

/// One name's part in it.
pub(super) struct Keeper<W> {
    pub(super) name: Name,
    pub(super) shared: Arc<Shared<W>>,
    /// Ends a wait early.
    pub(super) wake: Arc<Notify>,
    pub(super) standing: watch::Sender<Standing>,
    allowed: watch::Receiver<Allowed>,
    role: watch::Receiver<Role>,
    schedule: Schedule,
    due: Timestamp,
    /// Of the certificate that the daemon last gave.
    known: Option<(String, Period)>,
    had_one: bool,
    was_allowed: bool,
    check_storage: bool,
    /// When people were last told of a failure of each class.
    told: BTreeMap<&'static str, Timestamp>,
}

/// When the first attempts come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// Each name at a time of its own, within half a minute, and no earlier than an earlier process wanted.
    #[default]
    Spread,
    /// At once, except for names that failed in an earlier process, which wait as long as it wanted.
    Now,
}

impl<W: World> Keeper<W> {
    pub(super) fn new(
        name: Name,
        shared: Arc<Shared<W>>,
        wake: Arc<Notify>,
        standing: watch::Sender<Standing>,
    ) -> Self {
        let (allowed, role) = (shared.allowed.clone(), shared.role.clone());
        let schedule = Schedule::new(shared.growth);
        Self {
            name,
            shared,
            wake,
            standing,
            allowed,
            role,
            schedule,
            due: Timestamp::MIN,
            known: None,
            had_one: false,
            was_allowed: false,
            check_storage: true,
            told: BTreeMap::new(),
        }
    }

    /// Never ends. What is rarely under way is boxed: a thousand loops that wait need not have room for it.
    pub(super) async fn keep_fresh(&mut self) {
        Box::pin(self.resume()).await;
        let mut role = self.shared.role.clone();
        loop {
            self.wait_for_role().await;
            // Whoever is not responsible any more stops in the middle: an order is aborted, and what would have come
            // of it is not written.
            tokio::select! {
                biased;
                () = until_lost(&mut role) => {
                    if self.standing.borrow().phase == Phase::Asking {
                        Box::pin(self.shared.book(&self.name).break_off()).await;
                        self.say(Phase::Starting);
                    }
                }
                () = self.turn() => {}
            }
        }
    }

    /// Waits until it is due and possible, and asks once.
    async fn turn(&mut self) {
        self.wait_for_name().await;
        if self.wait_until_due().await {
            Box::pin(self.order()).await;
        }
    }

    /// Asks once it is possible.
    async fn order(&mut self) {
        if self.check_storage {
            self.wait_for_storage().await;
        }
        if !self.has_sane_clock() || !self.is_affordable() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let Ok(_permit) = shared.calls.acquire().await else {
            // Nothing is begun any more.
            return std::future::pending().await;
        };
        // From here on there may be a claim to give up.
        self.say(Phase::Asking);
        match shared.world.claim(&self.name).await {
            Ok(None) => {}
            Ok(Some(at)) => shared.book(&self.name).enter(Kind::BrokenOff, at, None).await,
            Err(taken) => {
                tracing::info!(domain = %self.name, %taken, "no certificate is asked for yet");
                self.due = taken.until;
                return self.say(Phase::Taken(taken.until));
            }
        }
        self.attempt().await;
    }

    /// Goes on where an earlier process stopped.
    async fn resume(&mut self) {
        let record = self.recall().await;
        let now = self.shared.world.now();
        let first = match self.shared.start {
            Start::Spread => later(now, start_delay(self.shared.world.chance())),
            Start::Now => now,
        };
        let wanted = within_a_week(&record, now).filter(|_| self.shared.start == Start::Spread || record.failures > 0);
        self.due = wanted.map_or(first, |at| at.max(first));
    }

    /// Goes on where another replica stopped: what is well is looked at now, and what failed waits as long as that one
    /// wanted. A role that changes hands often must not cost an attempt each time.
    async fn take_over(&mut self) {
        let record = self.recall().await;
        let now = self.shared.world.now();
        let wanted = within_a_week(&record, now).filter(|_| record.failures > 0);
        self.due = wanted.unwrap_or_else(|| self.due.min(now));
    }

    /// What is known of the name, whoever has noted it.
    async fn recall(&mut self) -> Record {
        let (record, orders) = self.shared.world.load(&self.name).await;
        self.shared.book(&self.name).ledger(|ledger| ledger.merge(orders));
        if record.failures != self.schedule.failures() {
            self.schedule = Schedule::resumed(self.shared.growth, record.failures);
        }
        self.had_one |= record.failures == 0 && record.next_attempt.is_some();
        self.standing.send_modify(|standing| standing.record = record.clone());
        record
    }

    async fn wait_for_role(&mut self) {
        while *self.role.borrow_and_update() == Role::Reader {
            self.say(Phase::NotWriter);
            // The sender lives as long as the loops.
            let _ = self.role.wait_for(|role| *role == Role::Writer).await;
            Box::pin(self.take_over()).await;
            self.say(Phase::Starting);
        }
    }

    async fn wait_for_name(&mut self) {
        let begun = Instant::now();
        let mut waited = false;
        let mut remind = begun + REMIND;
        while !self.allowed.borrow_and_update().lets(&self.name) {
            waited = true;
            self.say(Phase::NotAllowed);
            tokio::select! {
                Ok(()) = self.allowed.changed() => {}
                () = sleep_until(remind) => {
                    remind += REMIND;
                    let elapsed = crate::goduration::format_seconds(begun.elapsed());
                    tracing::info!(
                        domain = %self.name, elapsed, allowed = self.allowed.borrow().shown(),
                        "waiting until the tailnet allows a certificate for this name: HTTPS has to be enabled, and a \
                         Service approved"
                    );
                }
            }
        }
        if waited {
            self.say(Phase::Starting);
        }
        if waited && self.was_allowed {
            // It went away and came back: the wait of before was for something else. At the start it was not known, and
            // the wait is that of an earlier process.
            self.due = self.due.min(self.shared.world.now());
        }
        self.was_allowed = true;
    }

    /// Whether it is due; false when the name or the role went away before.
    async fn wait_until_due(&mut self) -> bool {
        loop {
            let left = Duration::try_from(self.due.duration_since(self.shared.world.now())).unwrap_or_default();
            if left.is_zero() {
                return true;
            }
            if self.standing.borrow().phase == Phase::Starting {
                self.say(Phase::Waiting(self.due));
            }
            tokio::select! {
                biased;
                Ok(()) = self.role.changed() => return false,
                Ok(()) = self.allowed.changed() => {
                    if !self.allowed.borrow_and_update().lets(&self.name) {
                        return false;
                    }
                }
                () = self.wake.notified() => {
                    self.due = self.shared.world.now();
                    // Whatever happened may have been to the storage.
                    self.check_storage = true;
                }
                () = sleep(left.min(NAP)) => {}
            }
        }
    }

    async fn wait_for_storage(&mut self) {
        let mut said = None;
        while let Err(blocked) = self.shared.world.check_storage(&self.name).await {
            if said.as_ref() != Some(&blocked) {
                tracing::warn!(
                    domain = %self.name, reason = %blocked,
                    "a certificate could not be stored, so none is asked for"
                );
                self.say(Phase::Blocked(blocked.0.clone()));
                said = Some(blocked);
            }
            tokio::select! {
                () = self.wake.notified() => {}
                () = sleep(STORAGE) => {}
            }
        }
        self.check_storage = false;
    }

    /// Whether certificates could be judged; else it is due when somebody may have set the clock.
    fn has_sane_clock(&mut self) -> bool {
        let now = self.shared.world.now();
        let is_sane = SANE.parse().is_ok_and(|sane: Timestamp| now >= sane);
        if !is_sane {
            tracing::error!(domain = %self.name, %now, "the clock is wrong, so no certificate is asked for");
            self.due = later(now, REMIND);
        }
        is_sane
    }

    /// Whether the authority's limits leave room; else it is due when they do.
    fn is_affordable(&mut self) -> bool {
        let now = self.shared.world.now();
        let kind = if self.had_one { Kind::Renewed } else { Kind::Issued };
        let checked = self.shared.book(&self.name).ledger(|ledger| ledger.check(&self.name, kind, now));
        let Err(exhausted) = checked else { return true };
        tracing::warn!(domain = %self.name, %exhausted, "no certificate is asked for yet");
        self.due = exhausted.until;
        self.say(Phase::OverBudget(exhausted.until));
        false
    }

    async fn attempt(&mut self) {
        let shared = Arc::clone(&self.shared);
        let now = shared.world.now();
        self.standing.send_modify(|standing| standing.attempts += 1);
        let min_validity = self.schedule.min_validity(self.known.as_ref().map(|(_, period)| *period), now);
        let answer = shared.world.certificate(&self.name, min_validity, ATTEMPT).await;
        let now = shared.world.now();
        let result = match answer {
            Ok(chain) => Certificate::read(&chain).map_err(|error| Failure::unexpected(&error)),
            Err(error) => Err(Failure::of(&error, now)),
        };
        match result {
            Ok(certificate) => self.succeeded(certificate, now).await,
            Err(failure) => self.failed(&failure, now).await,
        }
    }

    fn say(&self, phase: Phase) {
        self.standing.send_if_modified(|standing| {
            let differs = standing.phase != phase;
            standing.phase = phase;
            differs
        });
    }
}

/// When the next attempt was wanted. No delay is longer than a week: what lies further ahead is of a clock that was wrong.
fn within_a_week(record: &Record, now: Timestamp) -> Option<Timestamp> {
    let week = later(now, Duration::from_secs(8 * 86_400));
    record.next_attempt.filter(|at| *at < week)
}

/// Until it is lost, also when it has come back before anybody looked. Never, when nobody can change it any more.
async fn until_lost(role: &mut watch::Receiver<Role>) {
    if *role.borrow_and_update() == Role::Writer && role.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
