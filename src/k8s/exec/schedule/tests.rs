//! Who waits, who gets what, and when a plugin runs again.

use super::*;

fn token(text: &str) -> Option<Authorization> {
    Authorization::bearer(text).ok()
}

const SECOND: Duration = Duration::from_secs(1);

/// A schedule whose first run has brought `text` for `lifetime`.
fn held(now: Instant, text: &str, lasting: Lasting) -> Schedule {
    let mut schedule = Schedule::new();
    assert_eq!(schedule.look(now, None), Look::Wait { run: 1, start: true });
    assert_eq!(schedule.start(), 1);
    schedule.succeeded(now, token(text), None, lasting);
    schedule
}

fn error() -> CredentialError {
    CredentialError::Start("no".to_owned())
}

fn has(look: &Look, generation: u64, wanted: bool) -> bool {
    matches!(look, Look::Have { material, refresh } if material.generation == generation && *refresh == wanted)
}

#[test]
fn one_run_for_everybody_who_comes_meanwhile() {
    let now = Instant::now();
    let mut schedule = Schedule::new();
    assert_eq!(schedule.look(now, None), Look::Wait { run: 1, start: true });
    schedule.start();
    for _ in 0..3 {
        assert_eq!(schedule.look(now, None), Look::Wait { run: 1, start: false });
    }
    schedule.succeeded(now, token("a"), None, Lasting::ForEver);
    assert!(has(&schedule.look(now + 3600 * SECOND, Some(1)), 1, false));
}

#[test]
fn a_failure_is_shared_for_a_second_that_doubles() {
    let now = Instant::now();
    let mut schedule = Schedule::new();
    schedule.start();
    assert!(schedule.failed(now, error()));
    assert_eq!(schedule.look(now + SECOND / 2, None), Look::Failed(error()));
    let late = now + 10 * SECOND;
    assert_eq!(schedule.look(late, Some(1)), Look::Failed(error()), "who waited for it gets it however late");
    assert_eq!(schedule.look(late, None), Look::Wait { run: 2, start: true });
    schedule.start();
    assert!(!schedule.failed(late, error()));
    assert_eq!(schedule.look(late + SECOND * 3 / 2, None), Look::Failed(error()));
    assert_eq!(schedule.look(late + 2 * SECOND, None), Look::Wait { run: 3, start: true });
    for _ in 0..9 {
        schedule.start();
        schedule.failed(late, error());
    }
    assert_eq!(schedule.look(late + 29 * SECOND, None), Look::Failed(error()));
    assert!(matches!(schedule.look(late + 30 * SECOND, None), Look::Wait { start: true, .. }));
    schedule.start();
    assert!(schedule.succeeded(late, token("a"), None, Lasting::ForEver).recovered);
}

#[test]
fn the_margin_is_a_tenth_within_bounds_and_never_more_than_half() {
    for (lifetime, expected) in [(30, 15), (100, 50), (120, 60), (600, 60), (1200, 120), (3600, 300), (86400, 300)] {
        assert_eq!(margin(Duration::from_secs(lifetime)), Duration::from_secs(expected), "{lifetime}");
    }
}

#[test]
fn a_refresh_ahead_lets_nobody_wait_and_a_failed_one_changes_nothing() {
    let now = Instant::now();
    let mut schedule = held(now, "a", Lasting::For(600 * SECOND));
    assert!(has(&schedule.look(now + 538 * SECOND, None), 1, false));
    let (almost, due) = (now + 539 * SECOND, now + 540 * SECOND);
    assert!(schedule.is_due(due, 1) && !schedule.is_due(due, 2) && !schedule.is_due(almost, 1));
    assert!(has(&schedule.look(due, None), 1, true));
    schedule.start();
    assert!(has(&schedule.look(due, None), 1, false), "one is under way");
    schedule.failed(due, error());
    assert!(has(&schedule.look(due, None), 1, false), "backing off");
    assert!(has(&schedule.look(due + SECOND, None), 1, true));
    assert!(has(&schedule.look(now + 600 * SECOND, None), 1, true), "expiry is strict");
    assert_eq!(schedule.look(now + 601 * SECOND, None), Look::Wait { run: 3, start: true });
}

#[test]
fn what_nobody_uses_is_refreshed_too() {
    let now = Instant::now();
    let mut schedule = held(now, "a", Lasting::For(600 * SECOND));
    assert_eq!(schedule.next_refresh(), Some((now + 540 * SECOND, 1)));
    assert!(schedule.is_due(now + 540 * SECOND, 1));
    schedule.start();
    schedule.failed(now + 540 * SECOND, error());
    assert_eq!(schedule.next_refresh(), Some((now + 541 * SECOND, 1)), "tried again");
    assert!(schedule.is_due(now + 541 * SECOND, 1));
    assert!(!schedule.is_due(now + 601 * SECOND, 1), "what has ended is for those who ask for it");
}

/// As of a plugin that keeps its answer itself until that ends.
#[test]
fn what_lives_shortly_is_refreshed_once_a_second() {
    let now = Instant::now();
    let mut schedule = held(now, "a", Lasting::For(SECOND / 10));
    assert_eq!(schedule.next_refresh(), Some((now + SECOND, 1)));
    assert!(schedule.is_due(now + SECOND, 1), "it has ended, and nobody has tried");
    schedule.start();
    schedule.failed(now + SECOND, error());
    assert!(!schedule.is_due(now + 3 * SECOND, 1));
}

#[test]
fn what_is_expired_on_arrival_serves_for_a_second() {
    let now = Instant::now();
    let schedule = held(now, "a", Lasting::Over);
    for (waited, at) in [(Some(1), now), (None, now), (None, now + SECOND)] {
        assert!(has(&schedule.look(at, waited), 1, false), "{waited:?}");
    }
    assert_eq!(schedule.look(now + SECOND + SECOND / 1000, None), Look::Wait { run: 2, start: true });
    assert_eq!(schedule.next_refresh(), None);
}

#[test]
fn many_401s_are_one_run_and_a_flood_one_in_five_seconds() {
    let now = Instant::now();
    let mut schedule = held(now, "a", Lasting::ForEver);
    assert_eq!(schedule.rejected(now, 1), Rejected::Wait { run: 2, start: true });
    schedule.start();
    assert_eq!(schedule.rejected(now, 1), Rejected::Wait { run: 2, start: false });
    schedule.succeeded(now, token("b"), None, Lasting::ForEver);
    assert_eq!(schedule.rejected(now, 1), Rejected::Newer);
    assert_eq!(schedule.rejected(now + 4 * SECOND, 2), Rejected::TooSoon);
    assert_eq!(schedule.rejected(now + 5 * SECOND, 2), Rejected::Wait { run: 3, start: true });
    let mut runs = 0;
    let mut schedule = held(now, "a", Lasting::ForEver);
    for tick in 0..600 {
        let at = now + tick * SECOND / 10;
        if let Rejected::Wait { start: true, .. } = schedule.rejected(at, 1) {
            runs += 1;
            schedule.start();
            schedule.succeeded(at, token("a"), None, Lasting::ForEver);
        }
    }
    assert_eq!(runs, 12);
}

#[test]
fn the_same_answer_again_is_no_change() {
    let now = Instant::now();
    let mut schedule = held(now, "a", Lasting::ForEver);
    schedule.start();
    let changed = schedule.succeeded(now, token("a"), None, Lasting::ForEver);
    assert_eq!((changed.material.generation, changed.is_other_certificate), (1, false));
    schedule.start();
    let changed = schedule.succeeded(now, token("b"), None, Lasting::ForEver);
    assert_eq!(
        (changed.material.generation, changed.material.certificate, changed.is_other_certificate),
        (2, 0, false)
    );
}
