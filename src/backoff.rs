//! A sequence of delays: exponential, capped, jittered, reset on success. Pure.

use std::time::Duration;

/// Delays that grow from a first one to a cap.
///
/// Pure: the random part is handed in, so a test sees exact delays and a caller needs no global generator.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    /// Delays from `first`, doubling up to `cap`.
    ///
    /// # Panics
    /// When `first` is zero or above `cap`: such a sequence would be a busy loop or shrink, a bug in the caller.
    pub const fn new(first: Duration, cap: Duration) -> Self {
        assert!(!first.is_zero() && first.as_nanos() <= cap.as_nanos(), "a backoff needs 0 < first <= cap");
        Self { first, cap, failures: 0 }
    }

    /// The delay before the next try. `jitter` in `0.0..1.0` takes up to a quarter off, so that many Pods
    /// that failed together do not come back together.
    pub fn next(&mut self, jitter: f64) -> Duration {
        let factor = 1_u32.checked_shl(self.failures.min(31)).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        let full = self.first.saturating_mul(factor).min(self.cap);
        full.mul_f64(1.0 - 0.25 * jitter.clamp(0.0, 1.0))
    }

    /// How many delays have been handed out since the last [`reset`](Self::reset).
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A number in `0.0..1.0` that differs between Pods and moments; good enough to spread retries, nothing else.
pub fn jitter() -> f64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let bits = RandomState::new().build_hasher().finish() >> 11;
    // 53 bits fit a double's mantissa exactly.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact in an f64")]
    let unit = bits as f64 / (1_u64 << 53) as f64;
    unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_the_cap_and_starts_over() {
        let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(10));
        let delays: Vec<_> = (0..8).map(|_| backoff.next(0.0).as_millis()).collect();
        assert_eq!(delays, [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        backoff.reset();
        assert_eq!(backoff.next(0.0).as_millis(), 250);
    }

    #[test]
    fn never_overflows_into_a_busy_loop() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(600));
        let last = (0..10_000).map(|_| backoff.next(1.0)).last();
        assert_eq!(last, Some(Duration::from_secs(450)));
    }

    #[test]
    fn jitter_is_a_unit_fraction() {
        assert!((0..100).map(|_| jitter()).all(|j| (0.0..1.0).contains(&j)));
    }
}
