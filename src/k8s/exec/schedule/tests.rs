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
    assert_eq!(schedule.start(now), 1);
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
    schedule.start(now);
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
    schedule.start(now);
    assert!(schedule.failed(now, error()));
    assert_eq!(schedule.look(now + SECOND / 2, None), Look::Failed(error()));
    let late = now + 10 * SECOND;
    assert_eq!(schedule.look(late, Some(1)), Look::Failed(error()), "who waited for it gets it however late");
    assert_eq!(schedule.look(late, None), Look::Wait { run: 2, start: true });
    schedule.start(late);
    assert!(!schedule.failed(late, error()));
    assert_eq!(schedule.look(late + SECOND * 3 / 2, None), Look::Failed(error()));
    assert_eq!(schedule.look(late + 2 * SECOND, None), Look::Wait { run: 3, start: true });
    for _ in 0..9 {
        schedule.start(late);
        schedule.failed(late, error());
    }
    assert_eq!(schedule.look(late + 29 * SECOND, None), Look::Failed(error()));
    assert!(matches!(schedule.look(late + 30 * SECOND, None), Look::Wait { start: true, .. }));
    schedule.start(late);
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
    schedule.start(due);
    assert!(has(&schedule.look(due, None), 1, false), "one is under way");
    schedule.failed(due, error());
    assert!(has(&schedule.look(due, None), 1, false), "backing off");
    assert!(has(&schedule.look(due + SECOND, None), 1, true));
    assert!(has(&schedule.look(now + 600 * SECOND, None), 1, true), "expiry is strict");
    assert_eq!(schedule.look(now + 601 * SECOND, None), Look::Wait { run: 3, start: true });
}

#[test]
fn nobody_refreshes_what_nobody_used() {
    let now = Instant::now();
    let schedule = held(now, "a", Lasting::For(600 * SECOND));
    assert!(!schedule.is_due(now + 540 * SECOND, 1));
    assert_eq!(schedule.next_refresh(), Some((now + 540 * SECOND, 1)));
}

#[test]
fn what_is_expired_on_arrival_serves_those_who_waited_and_nobody_else() {
    let now = Instant::now();
    let mut schedule = held(now, "a", Lasting::Over);
    assert!(has(&schedule.look(now, Some(1)), 1, false));
    assert_eq!(schedule.look(now, None), Look::Later(now + SECOND));
    assert_eq!(schedule.look(now + SECOND, None), Look::Wait { run: 2, start: true });
    assert_eq!(schedule.next_refresh(), None);
}

#[test]
fn many_401s_are_one_run_and_a_flood_one_in_five_seconds() {
    let now = Instant::now();
    let mut schedule = held(now, "a", Lasting::ForEver);
    assert_eq!(schedule.rejected(now, 1), Rejected::Wait { run: 2, start: true });
    schedule.start(now);
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
            schedule.start(at);
            schedule.succeeded(at, token("a"), None, Lasting::ForEver);
        }
    }
    assert_eq!(runs, 12);
}

#[test]
fn the_same_answer_again_is_no_change() {
    let now = Instant::now();
    let mut schedule = held(now, "a", Lasting::ForEver);
    schedule.start(now);
    let changed = schedule.succeeded(now, token("a"), None, Lasting::ForEver);
    assert_eq!((changed.material.generation, changed.is_other_certificate), (1, false));
    schedule.start(now);
    let changed = schedule.succeeded(now, token("b"), None, Lasting::ForEver);
    assert_eq!(
        (changed.material.generation, changed.material.certificate, changed.is_other_certificate),
        (2, 0, false)
    );
}
