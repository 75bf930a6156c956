//! When to ask tailscaled for a certificate again (api-proxy.md 9.5). Pure.
//!
//! Follows upstream's `kube/certs`: daily while all is well, and after a refusal of the CA so rarely that its limits on
//! failed attempts are never reached.

use std::time::Duration;

/// Between attempts while all is well.
pub const DAILY: Duration = Duration::from_secs(24 * 3600);

/// After the first, second, third refusal in a row; then [`DAILY`].
const AFTER_REFUSALS: [Duration; 3] = [Duration::from_secs(60), Duration::from_secs(600), Duration::from_secs(6000)];

/// After a failure that never reached the CA.
const AFTER_TROUBLE: Duration = Duration::from_secs(60);

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// There is a certificate.
    Issued,
    /// The CA said when to come back.
    RateLimited {
        /// As long as it said, if it did.
        retry_after: Option<Duration>,
    },
    /// It never reached the CA: no daemon, no netmap, a time limit.
    Trouble,
    /// The CA, or control, refused.
    Refused,
}

/// The attempts for one name.
#[derive(Clone, Debug, Default)]
pub struct Schedule {
    refusals: usize,
}

impl Schedule {
    /// How long to wait after an attempt.
    pub fn after(&mut self, attempt: Attempt) -> Duration {
        let (refusals, hint) = match attempt {
            Attempt::Issued => {
                self.refusals = 0;
                return DAILY;
            }
            Attempt::Trouble => return AFTER_TROUBLE,
            Attempt::Refused => (self.refusals, None),
            Attempt::RateLimited { retry_after } => (self.refusals, retry_after),
        };
        self.refusals = refusals.saturating_add(1);
        hint.unwrap_or_else(|| AFTER_REFUSALS.get(refusals).copied().unwrap_or(DAILY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_answered_by_ever_longer_waits_until_a_success() {
        let mut schedule = Schedule::default();
        let minutes: Vec<_> = (0..5).map(|_| schedule.after(Attempt::Refused).as_secs() / 60).collect();
        assert_eq!(minutes, [1, 10, 100, 1440, 1440]);
        assert_eq!(schedule.after(Attempt::Issued), DAILY);
        assert_eq!(schedule.after(Attempt::Refused).as_secs(), 60);
    }

    #[test]
    fn trouble_on_the_way_changes_nothing() {
        let mut schedule = Schedule::default();
        schedule.after(Attempt::Refused);
        for _ in 0..10 {
            assert_eq!(schedule.after(Attempt::Trouble).as_secs(), 60);
        }
        assert_eq!(schedule.after(Attempt::Refused).as_secs(), 600);
    }

    #[test]
    fn the_cas_own_time_replaces_ours() {
        let mut schedule = Schedule::default();
        let hint = Duration::from_secs(1020);
        assert_eq!(schedule.after(Attempt::RateLimited { retry_after: Some(hint) }), hint);
        assert_eq!(schedule.after(Attempt::RateLimited { retry_after: None }).as_secs(), 600, "it counted");
    }
}
