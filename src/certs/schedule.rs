//! When to ask for a certificate again. Pure: time and chance are arguments.
//!
//! [`Schedule`] is what one name has been through; each attempt's result makes the [`Next`] step of it. Failures of
//! the authority follow upstream's table (`kube/certs/certs.go`: 1, 10, 100 minutes, then daily) or the older doubling;
//! what the authority has not seen does not count. A success is not believed before the certificate says so: one that
//! is due and came back unchanged is polled, and after two days asked for in a way that shows the real error.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::chain::Period;
use super::failure::{Class, Failure};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// Between attempts while all is well.
pub const DAILY: Duration = Duration::from_secs(86_400);
/// A hint is believed from here to here.
const HINT: (Duration, Duration) = (MINUTE, Duration::from_secs(7 * 86_400));
/// What the daemon does not let us do is asked for again after this.
const RECHECK: Duration = Duration::from_secs(600);
/// An authority that issued in vain is left alone for this long.
const AFTER_LOSS: Duration = HOUR;
/// A renewal that has been pending this long is forced.
const PATIENCE: Duration = Duration::from_secs(48 * 3600);
/// Rate limits in a row from which on a short hint does not shorten the schedule.
const STUBBORN: u32 = 3;
/// Starts of many names spread over this.
const SPREAD: Duration = Duration::from_secs(30);

/// How delays grow with failures in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Growth {
    /// 1 min, 10 min, 100 min, then 24 h.
    #[default]
    Steps,
    /// 1 min, doubling, at most 24 h; everything that fails counts.
    Exponential,
}

impl Growth {
    /// The delay after so many failures in a row.
    pub fn delay(self, failures: u32) -> Duration {
        let n = failures.max(1) - 1;
        match self {
            Self::Steps => match n {
                0 => MINUTE,
                1 => 10 * MINUTE,
                2 => 100 * MINUTE,
                _ => DAILY,
            },
            // Saturates: upstream's older shift overflowed at 29 failures, and then never paused again.
            Self::Exponential => MINUTE.saturating_mul(1_u32.checked_shl(n.min(31)).unwrap_or(u32::MAX)).min(DAILY),
        }
    }

    fn counts(self, class: Class) -> bool {
        match (self, class) {
            (_, Class::NotAllowed | Class::NotWriter | Class::Rights) => false,
            (Self::Steps, Class::Transient) => false,
            (Self::Exponential, Class::Transient) => true,
            (_, Class::RateLimited | Class::Storage | Class::Authority) => true,
        }
    }
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Next {
    /// Ask again after this long.
    After(Duration),
    /// Wait until the tailnet allows the name.
    WaitForName,
    /// Do nothing until this replica becomes a writer.
    WaitForRole,
    /// Look at the storage, and ask again no sooner than after this long.
    WaitForStorage(Duration),
}

impl Next {
    /// How long to leave the authority alone, whatever else is waited for.
    pub fn pause(self) -> Duration {
        match self {
            Self::After(wait) | Self::WaitForStorage(wait) => wait,
            Self::WaitForName | Self::WaitForRole => MINUTE,
        }
    }
}

/// How an attempt ended, for whoever leaves renewals to the daemon and looks at no certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// There is a certificate.
    Issued,
    /// The authority said when to come back.
    RateLimited {
        /// As long as it said, if it did.
        retry_after: Option<Duration>,
    },
    /// It never reached the authority: no daemon, no netmap, a time limit.
    Trouble,
    /// The authority, or control, refused.
    Refused,
}

/// How a success looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Not due.
    Fresh,
    /// Due, and the daemon gave the old one: a renewal runs in the background or fails there.
    Pending,
}

/// One name's history, as far as it decides anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    growth: Growth,
    failures: u32,
    limited_in_a_row: u32,
    /// Since when the certificate has been due and came back unchanged, and how often.
    pending: Option<(Timestamp, u32)>,
}

impl Schedule {
    /// That of a name which was never asked for.
    pub fn new(growth: Growth) -> Self {
        Self { growth, ..Self::default() }
    }

    /// That of a name whose failures in a row were counted by an earlier process.
    pub fn resumed(growth: Growth, failures: u32) -> Self {
        Self { failures, ..Self::new(growth) }
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Since when a due certificate has come back unchanged.
    pub fn pending_since(&self) -> Option<Timestamp> {
        self.pending.map(|(since, _)| since)
    }

    /// A success with a certificate of this period; `chance` in `0.0..1.0` spreads what many names do.
    pub fn succeeded(&mut self, period: Period, now: Timestamp, chance: f64) -> (Freshness, Next) {
        (self.failures, self.limited_in_a_row) = (0, 0);
        let left = period.left(now);
        if now <= period.renew_at() {
            self.pending = None;
            let interval = (left / 8).clamp(HOUR, DAILY);
            // Ten per cent either way.
            return (Freshness::Fresh, Next::After(interval.mul_f64(0.9 + 0.2 * chance.clamp(0.0, 1.0))));
        }
        let (since, polls) = self.pending.unwrap_or((now, 0));
        self.pending = Some((since, polls.saturating_add(1)));
        let wait = match polls {
            0 => 10 * MINUTE,
            1 => HOUR,
            _ => 6 * HOUR,
        };
        (Freshness::Pending, Next::After(wait))
    }

    /// How long to wait after an attempt, by the table alone: daily while all is well.
    pub fn after(&mut self, attempt: Attempt) -> Duration {
        let (class, hint) = match attempt {
            Attempt::Issued => {
                (self.failures, self.limited_in_a_row) = (0, 0);
                return DAILY;
            }
            Attempt::RateLimited { retry_after } => (Class::RateLimited, retry_after),
            Attempt::Trouble => (Class::Transient, None),
            Attempt::Refused => (Class::Authority, None),
        };
        self.failed(&Failure { class, hint, text: String::new() }, 0.0).pause()
    }

    /// The `min_validity` of the next attempt: above zero when a renewal has to be forced, so that its error is seen.
    /// Never more than 0.9 of the lifetime, for then every call would renew.
    pub fn min_validity(&self, period: Option<Period>, now: Timestamp) -> Duration {
        let (Some(period), Some((since, _))) = (period, self.pending) else { return Duration::ZERO };
        let left = period.left(now);
        let waited = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        if waited >= PATIENCE || left < period.lifetime() / 6 {
            (left + HOUR).min(period.lifetime().mul_f64(0.9))
        } else {
            Duration::ZERO
        }
    }

    /// A failure.
    pub fn failed(&mut self, failure: &Failure, chance: f64) -> Next {
        let class = failure.class;
        if self.growth.counts(class) {
            self.failures = self.failures.saturating_add(1);
        }
        self.limited_in_a_row = if class == Class::RateLimited { self.limited_in_a_row.saturating_add(1) } else { 0 };
        let step = self.growth.delay(self.failures);
        match class {
            Class::NotAllowed => Next::WaitForName,
            Class::NotWriter => Next::WaitForRole,
            Class::Rights => Next::After(RECHECK),
            Class::Storage => Next::WaitForStorage(step.max(AFTER_LOSS)),
            Class::Transient if !self.growth.counts(class) => Next::After(MINUTE),
            Class::Transient | Class::Authority => Next::After(step),
            Class::RateLimited => {
                let Some(hint) = failure.hint else { return Next::After(step) };
                // Up to five per cent late, never early.
                let hint = hint.clamp(HINT.0, HINT.1).mul_f64(1.0 + 0.05 * chance.clamp(0.0, 1.0));
                Next::After(if self.limited_in_a_row >= STUBBORN { hint.max(step) } else { hint })
            }
        }
    }
}

/// How long a name waits before its very first attempt.
pub fn start_delay(chance: f64) -> Duration {
    SPREAD.mul_f64(chance.clamp(0.0, 1.0))
}

/// Why a `min_validity` would do harm.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMinValidity {
    /// More than 0.9 of the present certificate's lifetime.
    #[error(
        "{0} is more than 0.9 of the certificate's lifetime ({1}): every call would renew it, until the certificate \
         authority's limits are used up"
    )]
    AboveLifetime(String, String),
    /// More than 60 days, and there is no certificate yet.
    #[error(
        "{0} is more than 60 days: of a certificate with a shorter life every call would renew it, until the \
         certificate authority's limits are used up"
    )]
    AboveSixtyDays(String),
}

/// Checks a `min_validity` that a person asks for against the present certificate.
pub fn check_min_validity(wanted: Duration, present: Option<Period>) -> Result<(), BadMinValidity> {
    let said = crate::goduration::format_seconds;
    match present {
        Some(period) if wanted > period.lifetime().mul_f64(0.9) => {
            Err(BadMinValidity::AboveLifetime(said(wanted), said(period.lifetime())))
        }
        None if wanted > 60 * DAILY => Err(BadMinValidity::AboveSixtyDays(said(wanted))),
        _ => Ok(()),
    }
}

/// `now` and `wait` later.
pub fn later(now: Timestamp, wait: Duration) -> Timestamp {
    SignedDuration::try_from(wait).ok().and_then(|wait| now.checked_add(wait).ok()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn failure(class: Class, hint: Option<u64>) -> Failure {
        Failure { class, hint: hint.map(Duration::from_secs), text: String::new() }
    }

    fn minutes(next: Next) -> u64 {
        match next {
            Next::After(wait) | Next::WaitForStorage(wait) => wait.as_secs() / 60,
            other => panic!("{other:?}"),
        }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// A certificate of `days` that was issued on the first of January.
    fn period(days: i64) -> Period {
        let not_before = at("2026-01-01T00:00:00Z");
        Period { not_before, not_after: not_before + SignedDuration::from_hours(24 * days) }
    }

    fn day(period: Period, day: i64) -> Timestamp {
        period.not_before + SignedDuration::from_hours(24 * day)
    }

    #[test]
    fn the_reference_table_of_failures() {
        for (class, hint, before, after, wait) in [
            (Class::Transient, None, 3, 3, 1),
            (Class::RateLimited, Some(1020), 0, 1, 17),
            (Class::RateLimited, None, 0, 1, 1),
            (Class::Authority, None, 0, 1, 1),
            (Class::Authority, None, 1, 2, 10),
            (Class::Authority, None, 2, 3, 100),
            (Class::Authority, None, 7, 8, 1440),
            (Class::Storage, None, 0, 1, 60),
            (Class::Storage, None, 3, 4, 1440),
            (Class::Rights, None, 2, 2, 10),
        ] {
            let mut schedule = Schedule::resumed(Growth::Steps, before);
            let next = schedule.failed(&failure(class, hint), 0.0);
            assert_eq!((schedule.failures(), minutes(next)), (after, wait), "{class:?} {before}");
        }
        let mut schedule = Schedule::resumed(Growth::Steps, 5);
        let (_, next) = schedule.succeeded(period(365), day(period(365), 1), 0.5);
        assert_eq!((schedule.failures(), minutes(next)), (0, 1440));
    }

    #[test]
    fn the_table_alone() {
        let mut schedule = Schedule::default();
        let refused: Vec<_> = (0..5).map(|_| schedule.after(Attempt::Refused).as_secs() / 60).collect();
        assert_eq!(refused, [1, 10, 100, 1440, 1440]);
        assert_eq!(schedule.after(Attempt::Issued), DAILY);
        schedule.after(Attempt::Refused);
        assert_eq!(schedule.after(Attempt::Trouble), MINUTE);
        let hint = Duration::from_secs(1020);
        assert_eq!(schedule.after(Attempt::RateLimited { retry_after: Some(hint) }), hint);
        assert_eq!(schedule.after(Attempt::RateLimited { retry_after: None }), 100 * MINUTE, "it counted");
    }

    #[test]
    fn the_two_waits_that_are_no_delays() {
        let mut schedule = Schedule::resumed(Growth::Steps, 2);
        assert_eq!(schedule.failed(&failure(Class::NotAllowed, None), 0.0), Next::WaitForName);
        assert_eq!(schedule.failed(&failure(Class::NotWriter, None), 0.0), Next::WaitForRole);
        assert_eq!(schedule.failures(), 2);
    }

    #[test]
    fn a_daemon_that_is_away_does_not_escalate_what_the_authority_says() {
        let mut schedule = Schedule::new(Growth::Steps);
        let mut waits = Vec::new();
        for class in [[Class::Transient; 3].as_slice(), &[Class::Authority; 5]].concat() {
            waits.push(minutes(schedule.failed(&failure(class, None), 0.0)));
        }
        assert_eq!(waits, [1, 1, 1, 1, 10, 100, 1440, 1440]);
    }

    #[test]
    fn doubling_is_capped_and_never_shrinks() {
        let mut schedule = Schedule::new(Growth::Exponential);
        let classes = [Class::Transient; 3].into_iter().chain([Class::Authority; 37]);
        let waits: Vec<_> = classes.map(|class| minutes(schedule.failed(&failure(class, None), 0.0))).collect();
        assert_eq!(waits[..12], [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1440]);
        assert!(waits[12..].iter().all(|wait| *wait == 1440) && waits.len() == 40);
        assert_eq!(Growth::Exponential.delay(u32::MAX), DAILY);
    }

    #[test]
    fn a_hint_is_followed_a_little_late_and_never_early() {
        let wait = |hint, chance| match Schedule::default().failed(&failure(Class::RateLimited, Some(hint)), chance) {
            Next::After(wait) => wait.as_secs(),
            other => panic!("{other:?}"),
        };
        assert_eq!((wait(1020, 0.0), wait(1020, 1.0)), (1020, 1071));
        assert_eq!(wait(1, 0.0), 60);
        assert_eq!(wait(365 * 86_400, 0.0), 7 * 86_400);
    }

    #[test]
    fn short_hints_lose_their_say_after_the_third_in_a_row() {
        let mut schedule = Schedule::new(Growth::Steps);
        let mut limited = |hint| minutes(schedule.failed(&failure(Class::RateLimited, Some(hint)), 0.0));
        assert_eq!([limited(60), limited(60), limited(60), limited(60)], [1, 1, 100, 1440]);
    }

    #[test]
    fn a_fresh_certificate_is_looked_at_by_what_it_has_left() {
        for (life, age, hours) in [(365, 1, 24), (90, 1, 24), (6, 1, 15), (6, 3, 9), (1, 0, 3)] {
            let life = period(life);
            let (freshness, next) = Schedule::default().succeeded(life, day(life, age), 0.5);
            assert_eq!((freshness, minutes(next) / 60), (Freshness::Fresh, hours));
        }
        let spread = |chance| minutes(Schedule::default().succeeded(period(90), day(period(90), 1), chance).1);
        assert_eq!((spread(0.0), spread(1.0)), (1296, 1584));
    }

    #[test]
    fn a_due_certificate_is_polled_then_forced() {
        let life = period(90);
        let mut schedule = Schedule::new(Growth::Steps);
        let mut now = day(life, 70);
        let mut waits = Vec::new();
        while schedule.min_validity(Some(life), now).is_zero() {
            let (freshness, Next::After(wait)) = schedule.succeeded(life, now, 0.5) else { panic!("a delay") };
            assert_eq!(freshness, Freshness::Pending);
            waits.push(wait.as_secs() / 60);
            now = later(now, wait);
        }
        assert_eq!(waits[..4], [10, 60, 360, 360]);
        let pending = now.duration_since(day(life, 70)).as_hours();
        assert!((48..55).contains(&pending), "forced after {pending} h");
        let forced = schedule.min_validity(Some(life), now);
        assert_eq!(forced, life.left(now) + HOUR, "a moment more than it has");
        // The renewed one ends it.
        let new = Period { not_before: now, not_after: later(now, life.lifetime()) };
        assert_eq!(schedule.succeeded(new, now, 0.5).0, Freshness::Fresh);
        assert!(schedule.pending_since().is_none() && schedule.min_validity(Some(new), now).is_zero());
    }

    #[test]
    fn what_is_almost_over_is_forced_at_once() {
        let life = period(90);
        let mut schedule = Schedule::new(Growth::Steps);
        let now = day(life, 80);
        assert!(schedule.min_validity(Some(life), now).is_zero(), "the first call is an ordinary one");
        schedule.succeeded(life, now, 0.5);
        assert_eq!(schedule.min_validity(Some(life), now), life.left(now) + HOUR);
    }

    #[test]
    fn a_min_validity_that_renews_on_every_call_is_refused() {
        let ninety = Some(period(90));
        assert!(check_min_validity(90 * DAILY, ninety).unwrap_err().to_string().contains("every call would renew it"));
        assert!(check_min_validity(81 * DAILY, ninety).is_ok());
        assert!(check_min_validity(61 * DAILY, None).is_err() && check_min_validity(60 * DAILY, None).is_ok());
    }

    fn classes() -> impl Strategy<Value = Class> {
        prop_oneof![
            Just(Class::Transient),
            Just(Class::RateLimited),
            Just(Class::Storage),
            Just(Class::Authority),
            Just(Class::Rights)
        ]
    }

    proptest! {
        #[test]
        fn no_history_leads_to_a_hot_loop(
            failures in proptest::collection::vec((classes(), proptest::option::of(0_u64..10_000_000)), 1..80),
            exponential in any::<bool>(), chance in 0.0..1.0_f64,
        ) {
            let mut schedule = Schedule::new(if exponential { Growth::Exponential } else { Growth::Steps });
            for (class, hint) in failures {
                let (Next::After(wait) | Next::WaitForStorage(wait)) = schedule.failed(&failure(class, hint), chance)
                else { panic!("a delay") };
                prop_assert!(wait >= MINUTE && wait <= Duration::from_secs(7 * 86_400 * 106 / 100));
            }
        }

        #[test]
        fn forcing_never_asks_for_more_than_a_new_certificate_has(life in 1_i64..400, age in 0_i64..500, waited in 0_i64..100) {
            let life = period(life);
            let now = day(life, age);
            let schedule = Schedule { pending: Some((now - SignedDuration::from_hours(waited), 3)), ..Schedule::default() };
            prop_assert!(schedule.min_validity(Some(life), now) <= life.lifetime().mul_f64(0.9));
        }
    }
}
