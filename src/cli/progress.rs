//! What a person sees while something takes its time.
//!
//! On a terminal: a spinner on stderr, only after a second, gone at the end. In a Pod the same wait is a log line at
//! the start, a reminder every 15 seconds, and the outcome with the elapsed time: a silent wait looks like a hang.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::output::Output;
use crate::goduration::format_seconds;

/// Shorter waits show nothing: a spinner that flashes up is noise.
const QUIET_FOR: Duration = Duration::from_secs(1);
/// How often a log repeats that we still wait; linkerd's interval, long enough not to fill a log.
const REMIND_EVERY: Duration = Duration::from_secs(15);
/// Fast enough to look alive.
const SPIN_EVERY: Duration = Duration::from_millis(100);
/// In a wait whose end is known there is a clock to look at.
const CLOCK_MOVES_EVERY: Duration = Duration::from_secs(1);

/// Awaits `work` and says so as `out` allows. `what` is what we wait for: `the node to come up`.
///
/// Cancelling this future cancels `work` and clears the spinner.
pub async fn wait_for<T, E>(out: &Output, what: &str, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    if out.shows_progress() { spin(what, work).await } else { remind(what, work).await }
}

async fn spin<T>(what: &str, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    if let Ok(result) = tokio::time::timeout(QUIET_FOR, work.as_mut()).await {
        return result;
    }
    let spinner = Spinner::start(what);
    let mut beat = interval_at(Instant::now(), SPIN_EVERY);
    loop {
        tokio::select! {
            result = work.as_mut() => return result,
            _ = beat.tick() => spinner.0.tick(),
        }
    }
}

/// Awaits `work`, which takes no longer than `limit`, and shows how much of that is left. How it begins and ends is
/// the caller's to say.
///
/// Cancelling this future cancels `work` and clears the spinner.
pub async fn wait_at_most<T>(out: &Output, what: &str, limit: Duration, work: impl Future<Output = T>) -> T {
    let start = Instant::now();
    let mut work = pin!(work);
    let quiet_for = if out.shows_progress() { QUIET_FOR } else { REMIND_EVERY };
    if let Ok(result) = tokio::time::timeout(quiet_for, work.as_mut()).await {
        return result;
    }
    let spinner = out.shows_progress().then(|| Spinner::start(what));
    // A whole second is what the clock in it shows; the rest of an hour is not worth a wake-up.
    let pace = if spinner.is_some() { CLOCK_MOVES_EVERY } else { REMIND_EVERY };
    let mut beat = interval_at(start + quiet_for, pace);
    // On the beat of the wait itself, so that both are woken at once.
    beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            result = work.as_mut() => return result,
            _ = beat.tick() => {
                let elapsed = start.elapsed();
                let left = format_seconds(limit.saturating_sub(elapsed));
                if let Some(spinner) = &spinner {
                    spinner.tick_with(&left);
                } else {
                    tracing::info!("still waiting for {what} ({}, {left} left)", format_seconds(elapsed));
                }
            }
        }
    }
}

/// Clears itself, also when the wait is cancelled.
struct Spinner(ProgressBar);

impl Spinner {
    fn start(what: &str) -> Self {
        let style = ProgressStyle::with_template("{spinner} waiting for {msg} ({elapsed}{prefix})")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
            .with_style(style)
            .with_message(what.to_owned())
            .with_elapsed(QUIET_FOR);
        Self(bar)
    }

    fn tick_with(&self, left: &str) {
        self.0.set_prefix(format!(", {left} left"));
        self.0.tick();
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

async fn remind<T, E>(what: &str, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let start = Instant::now();
    let mut work = pin!(work);
    tracing::info!("waiting for {what}");
    let mut beat = interval_at(start + REMIND_EVERY, REMIND_EVERY);
    // On the beat of the wait itself, so that both are woken at once.
    beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let result = loop {
        tokio::select! {
            result = work.as_mut() => break result,
            _ = beat.tick() => tracing::info!("still waiting for {what} ({} s)", start.elapsed().as_secs()),
        }
    };
    let outcome = if result.is_ok() { "waited" } else { "gave up waiting" };
    tracing::info!("{outcome} for {what} ({:.1} s)", start.elapsed().as_secs_f64());
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::{Color, Style, Surroundings, Talk};
    use crate::telemetry::testing::captured;

    #[tokio::test(start_paused = true)]
    async fn a_pod_log_tells_start_reminders_and_outcome() {
        let (lines, guard) = captured();
        let work = async {
            tokio::time::sleep(Duration::from_secs(40)).await;
            Ok::<_, ()>(7)
        };
        assert_eq!(remind("the node", work).await, Ok(7));
        drop(guard);
        assert_eq!(
            lines.take(),
            [
                "waiting for the node",
                "still waiting for the node (15 s)",
                "still waiting for the node (30 s)",
                "waited for the node (40.0 s)",
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_with_an_end_tells_what_is_left_of_it() {
        let out = Output::new(Color::Never, Style::Text, Talk::Normal, Surroundings::default());
        let (lines, guard) = captured();
        let limit = Duration::from_secs(600);
        wait_at_most(&out, "a key", limit, tokio::time::sleep(Duration::from_secs(14))).await;
        assert!(lines.take().is_empty(), "short enough for silence");
        wait_at_most(&out, "a key", limit, tokio::time::sleep(Duration::from_secs(40))).await;
        drop(guard);
        let expected = ["still waiting for a key (15s, 9m45s left)", "still waiting for a key (30s, 9m30s left)"];
        assert_eq!(lines.take(), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_wait_says_so() {
        let (lines, guard) = captured();
        assert_eq!(remind("a key", async { Err::<(), _>(1) }).await, Err(1));
        drop(guard);
        assert_eq!(lines.take(), ["waiting for a key", "gave up waiting for a key (0.0 s)"]);
    }
}
