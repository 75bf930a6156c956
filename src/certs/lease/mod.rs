//! Which replica is responsible for certificates: leader election over a Lease, as a pure step. Pure.
//!
//! [`Elector`] is asked when to wake ([`Elector::wake_at`]), what to request then ([`Elector::ask`]), and is told the
//! answer. It follows client-go's `tools/leaderelection`: clocks of two machines are never compared; a candidate takes
//! over when the record has not changed for the lease's duration by its own clock, and a holder gives up earlier than
//! that when it cannot renew. A renewal counts from when it was sent: whoever sees it, sees it later. [`run`] performs
//! the step, [`stored`] is where the record is.
//!
//! A Lease that somebody deletes is made again by its holder, or after its duration by whoever has seen it before; only
//! a replica that starts in just that moment cannot know that there was one.

pub mod document;
pub mod run;
pub mod stored;

use std::time::{Duration, Instant};

use jiff::Timestamp;

/// All times of an election, as fractions of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long a record is respected: 60 s.
    pub duration: Duration,
    /// Between renewals: 10 s.
    pub renew: Duration,
    /// Without a renewal, the holder gives up: 40 s.
    pub give_up: Duration,
    /// Between looks of a candidate, 20 % more or less: 15 s.
    pub look: Duration,
    /// Of a candidate's first attempt, for each ordinal; also between retries of what failed: 2 s.
    pub step: Duration,
}

/// `spec` of a Lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// `holderIdentity`; empty when released.
    pub holder: String,
    /// `leaseDurationSeconds`
    pub duration: Duration,
    /// `acquireTime`; for people only.
    pub acquired: Option<Timestamp>,
    /// `renewTime`; for people only.
    pub renewed: Option<Timestamp>,
    /// `leaseTransitions`
    pub transitions: i64,
    /// `metadata.resourceVersion`
    pub version: String,
}

/// What to ask the API server for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The record.
    Read,
    /// To create it; its version is empty.
    Create(Record),
    /// To replace the version that it names.
    Update(Record),
}

/// What the API server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 404
    Absent,
    /// The record, read.
    Found(Record),
    /// The record, as it was written.
    Written(Record),
    /// 409: somebody else wrote before.
    Conflict,
    /// Anything else; whether it was carried out is open.
    Failed,
}

/// What an answer, or the time, changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// We are the holder now.
    Acquired,
    /// We are not any more.
    Lost,
}

/// One replica's part in the election.
#[derive(Clone, Debug)]
pub struct Elector {
    me: String,
    timing: Timing,
    role: Role,
    /// The record as it was last seen, and since when it has looked like that to us.
    seen: Option<(Record, Instant)>,
    /// No attempt before this, by ordinal or by decision.
    not_before: Instant,
    wake: Instant,
    /// What is to be asked next.
    next: Next,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Candidate,
    /// Since the last renewal was sent.
    Holder {
        renewed: Instant,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Read,
    Create,
    Write,
}

impl Timing {
    /// The usual fractions of `duration`; 60 s in production.
    pub fn of(duration: Duration) -> Self {
        Self { duration, renew: duration / 6, give_up: duration * 2 / 3, look: duration / 4, step: duration / 30 }
    }
}

impl Elector {
    /// A candidate: `me` is `<pod name>_<pod uid>`. The lowest ordinal goes first.
    pub fn new(me: String, ordinal: u32, timing: Timing, now: Instant) -> Self {
        // Ordinals of large sets must not wait longer than for a takeover.
        let delay = (timing.step * ordinal.min(30)).min(timing.duration);
        Self { me, timing, role: Role::Candidate, seen: None, not_before: now + delay, wake: now, next: Next::Read }
    }

    /// Whether we are the holder, as far as is known at `now`.
    pub fn holds(&self, now: Instant) -> bool {
        self.gives_up_at().is_some_and(|end| now < end)
    }

    /// When the holder gives up unless it renews before; nothing for a candidate.
    pub fn gives_up_at(&self) -> Option<Instant> {
        match self.role {
            Role::Holder { renewed } => Some(renewed + self.timing.give_up),
            Role::Candidate => None,
        }
    }

    /// When to call [`ask`](Self::ask), or [`expire`](Self::expire), next.
    pub fn wake_at(&self) -> Instant {
        self.gives_up_at().map_or(self.wake, |end| end.min(self.wake))
    }

    /// All times of it.
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// The record as it was last seen.
    pub fn seen(&self) -> Option<&Record> {
        self.seen.as_ref().map(|(record, _)| record)
    }

    /// A holder that could not renew in time is one no more.
    pub fn expire(&mut self, now: Instant) -> Change {
        match self.gives_up_at() {
            Some(end) if now >= end => self.lose(now),
            _ => Change::None,
        }
    }

    /// What to request now; nothing before [`wake_at`](Self::wake_at).
    pub fn ask(&mut self, now: Instant, wall: Timestamp) -> Option<Ask> {
        if now < self.wake {
            return None;
        }
        Some(match (self.next, &self.seen) {
            (Next::Create, _) => Ask::Create(self.record(None, wall)),
            (Next::Write, Some((seen, _))) => Ask::Update(self.record(Some(seen), wall)),
            (Next::Write, None) | (Next::Read, _) => Ask::Read,
        })
    }

    /// Takes the answer to a request that was sent at `sent`. `chance` in `0.0..1.0`.
    pub fn answered(&mut self, answer: Answer, sent: Instant, now: Instant, chance: f64) -> Change {
        match answer {
            Answer::Absent => {
                // Somebody deleted it. Its holder does not know before it renews, and until then counts on it.
                if let Some((seen, _)) = self.seen.take()
                    && !seen.holder.is_empty()
                    && seen.holder != self.me
                {
                    self.not_before = self.not_before.max(now + self.respected(&seen));
                }
                self.attempt(Next::Create, now);
                self.expire(now)
            }
            Answer::Found(record) => self.found(record, now, chance),
            Answer::Written(record) => {
                let was = self.role;
                self.seen = Some((record, now));
                if now >= sent + self.timing.give_up {
                    // Too late to count on: what we hold by it is over.
                    let change = self.lose_if_holder(now);
                    (self.next, self.wake) = (Next::Read, now);
                    return change;
                }
                self.role = Role::Holder { renewed: sent };
                (self.next, self.wake) = (Next::Write, sent + self.timing.renew);
                if was == Role::Candidate { Change::Acquired } else { Change::None }
            }
            // A conflict may be our own write whose answer got lost: look before giving anything up. Not at once: what
            // only ever conflicts must not be a busy loop.
            Answer::Conflict => {
                (self.next, self.wake) = (Next::Read, now + self.timing.step);
                self.expire(now)
            }
            Answer::Failed => {
                self.wake = now + self.timing.step;
                if self.role == Role::Candidate {
                    self.next = Next::Read;
                }
                self.expire(now)
            }
        }
    }

    /// The write that gives the lease back, if we hold it. From here on we do not compete for `pause`.
    pub fn release(&mut self, now: Instant, wall: Timestamp, pause: Duration) -> Option<Ask> {
        let held = matches!(self.role, Role::Holder { .. });
        let record = self.seen.as_ref().filter(|_| held).map(|(seen, _)| freed(seen, wall));
        self.role = Role::Candidate;
        self.not_before = now + pause;
        (self.next, self.wake) = (Next::Read, now + self.timing.look);
        record.map(Ask::Update)
    }

    /// What to ask after `answer` to a request of a release; nothing when it is done, or not ours to do.
    pub fn release_again(&self, answer: Answer, wall: Timestamp) -> Option<Ask> {
        match answer {
            // A renewal whose answer we did not wait for.
            Answer::Conflict | Answer::Failed => Some(Ask::Read),
            Answer::Found(record) if record.holder == self.me => Some(Ask::Update(freed(&record, wall))),
            Answer::Found(_) | Answer::Absent | Answer::Written(_) => None,
        }
    }

    fn found(&mut self, record: Record, now: Instant, chance: f64) -> Change {
        let since = match &self.seen {
            Some((seen, since)) if seen.version == record.version => *since,
            _ => now,
        };
        let mine = record.holder == self.me;
        let respected = self.respected(&record);
        let free = record.holder.is_empty();
        self.seen = Some((record, since));
        if mine && matches!(self.role, Role::Holder { .. }) {
            // Our write arrived although we were not told. Only an answer renews.
            self.attempt(Next::Write, now);
            return self.expire(now);
        }
        let change = self.lose_if_holder(now);
        // What carries our name without our knowing is of a process before us in this very Pod.
        let takeover = if mine || free { now } else { since + respected };
        if now >= takeover.max(self.not_before) {
            self.attempt(Next::Write, now);
        } else {
            let look = self.timing.look.mul_f64(0.8 + 0.4 * chance.clamp(0.0, 1.0));
            (self.next, self.wake) = (Next::Read, (now + look).min(takeover.max(self.not_before)));
        }
        change
    }

    /// Goes on with `next` as soon as it may.
    fn attempt(&mut self, next: Next, now: Instant) {
        (self.next, self.wake) = if now >= self.not_before { (next, now) } else { (Next::Read, self.not_before) };
    }

    /// How long a record that does not change is respected: its own duration, if its holder's is longer than ours.
    fn respected(&self, record: &Record) -> Duration {
        record.duration.max(self.timing.duration)
    }

    fn lose_if_holder(&mut self, now: Instant) -> Change {
        if self.role == Role::Candidate { Change::None } else { self.lose(now) }
    }

    fn lose(&mut self, now: Instant) -> Change {
        self.role = Role::Candidate;
        (self.next, self.wake) = (Next::Read, now);
        Change::Lost
    }

    /// The record with us as the holder, in place of `seen`.
    fn record(&self, seen: Option<&Record>, wall: Timestamp) -> Record {
        let before = seen.cloned().unwrap_or_default();
        let holds_on = before.holder == self.me;
        Record {
            holder: self.me.clone(),
            duration: self.timing.duration,
            acquired: if holds_on { before.acquired } else { Some(wall) },
            renewed: Some(wall),
            transitions: if holds_on || seen.is_none() { before.transitions } else { before.transitions + 1 },
            version: before.version,
        }
    }
}

/// `record` without a holder, for anybody to take at once.
fn freed(record: &Record, wall: Timestamp) -> Record {
    Record { holder: String::new(), duration: Duration::from_secs(1), renewed: Some(wall), ..record.clone() }
}

#[cfg(test)]
pub(super) mod tests;
