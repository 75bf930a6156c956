//! Whether an uninvited death of tailscaled is worth another try (boot.md E.4). Pure.

use std::time::{Duration, Instant};

use crate::backoff::Backoff;

/// Delays between restarts.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(10));

/// So many deaths...
const DEATHS: usize = 5;

/// ...within this time end it.
pub const WINDOW: Duration = Duration::from_secs(300);

/// The deaths that still count.
#[derive(Clone, Debug, Default)]
pub struct Deaths(Vec<Instant>);

/// What a death leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Start it again after this time.
    RestartIn(Duration),
    /// It has died so often within [`WINDOW`] that no restart will mend it.
    GiveUp {
        /// How often, this death included.
        deaths: usize,
    },
}

impl Deaths {
    /// Whether it has not died lately; older deaths than [`WINDOW`] go when the next one is recorded.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Counts a death at `now`.
    pub fn record(&mut self, now: Instant) -> Verdict {
        self.0.retain(|at| now.duration_since(*at) < WINDOW);
        self.0.push(now);
        let deaths = self.0.len();
        if deaths >= DEATHS {
            return Verdict::GiveUp { deaths };
        }
        let mut backoff = BACKOFF;
        Verdict::RestartIn((0..deaths).map(|_| backoff.next(0.0)).last().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_until_it_has_died_too_often() {
        let start = Instant::now();
        let mut deaths = Deaths::default();
        assert!(deaths.is_empty());
        let verdicts: Vec<_> = (0..5).map(|n| deaths.record(start + Duration::from_secs(n))).collect();
        let delays: Vec<_> = verdicts[..4]
            .iter()
            .map(|verdict| match verdict {
                Verdict::RestartIn(delay) => *delay,
                Verdict::GiveUp { .. } => panic!("{verdicts:?}"),
            })
            .collect();
        assert!(delays.is_sorted() && delays[0] < delays[3], "{delays:?}");
        assert_eq!(verdicts[4], Verdict::GiveUp { deaths: 5 });
    }

    #[test]
    fn a_death_long_ago_does_not_count() {
        let start = Instant::now();
        let mut deaths = Deaths::default();
        let first = deaths.record(start);
        assert_eq!(deaths.record(start + WINDOW), first);
    }
}
