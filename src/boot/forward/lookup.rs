//! Keeps looking a DNS name up, and says what it stands for (boot.md 5.6).
//!
//! Upstream looks every ten minutes, whatever the answer's lifetime; here the answer says when it has to be asked for
//! again. What failed is tried again after 1 s, 2 s, 4 s and so on, with a limit that holds (W17). The last good answer
//! stays until there is another.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::dns::Answer;
use crate::goduration;

/// The longest pause, after answers and after failures alike.
const LONGEST: Duration = Duration::from_secs(600);
/// The shortest lifetime that is believed: what cluster DNS gives its own names.
const SHORTEST: Duration = Duration::from_secs(5);

/// What a name stands for; `None` before the first answer.
pub(super) type Backends = Option<BTreeSet<IpAddr>>;

/// Looks `name` up for as long as it is polled.
pub(super) async fn keep_looking<F>(name: &str, mut look: impl FnMut() -> F, found: watch::Sender<Backends>)
where
    F: Future<Output = Result<Answer, String>>,
{
    let mut failures = 0;
    let mut told = None;
    loop {
        let pause = match look().await {
            Ok(answer) => {
                failures = 0;
                found.send_if_modified(|backends| {
                    let differs = backends.as_ref() != Some(&answer.addresses);
                    *backends = Some(answer.addresses);
                    differs
                });
                let pause = answer.ttl.unwrap_or(LONGEST).clamp(SHORTEST, LONGEST);
                // A short lifetime would say the same every few seconds.
                if told.replace(pause) != Some(pause) {
                    let shown = goduration::format(pause);
                    tracing::info!("reconfigureTimer: next DNS resolution attempt in {shown}");
                }
                pause
            }
            Err(error) => {
                told = None;
                let pause = retry(failures);
                failures += 1;
                tracing::warn!("[unexpected] error resolving DNS name {name}: {error}");
                let shown = goduration::format(pause);
                tracing::info!(
                    "reconfigureTimer: last DNS resolution attempt failed, next DNS resolution attempt in {shown}"
                );
                pause
            }
        };
        sleep(pause).await;
    }
}

/// The pause after so many failures before this one.
fn retry(failures: u32) -> Duration {
    let seconds = 1_u64.checked_shl(failures.min(32)).unwrap_or(u64::MAX);
    Duration::from_secs(seconds).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use tokio::task::JoinSet;
    use tokio::time::Instant;

    use super::*;

    type Script = VecDeque<Result<(&'static str, Option<u64>), &'static str>>;

    /// When each lookup of this script came, in seconds, and what was found in the end.
    async fn looked(script: &[Result<(&'static str, Option<u64>), &'static str>]) -> (Vec<u64>, Backends, usize) {
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(script.iter().copied().collect()));
        let (started, times) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
        let (found, mut backends) = watch::channel(None);
        let changes = Arc::new(Mutex::new(0));
        let mut task = JoinSet::new();
        let look = {
            let (script, times) = (Arc::clone(&script), Arc::clone(&times));
            move || {
                let next = script.lock().unwrap().pop_front();
                if next.is_some() {
                    times.lock().unwrap().push(started.elapsed().as_secs());
                }
                async move {
                    match next {
                        Some(Ok((ips, ttl))) => Ok(Answer {
                            addresses: ips.split(' ').map(|ip| ip.parse().unwrap()).collect(),
                            ttl: ttl.map(Duration::from_secs),
                        }),
                        Some(Err(error)) => Err(error.to_owned()),
                        None => std::future::pending().await,
                    }
                }
            }
        };
        let counted = Arc::clone(&changes);
        task.spawn(async move { keep_looking("h", look, found).await });
        let mut seen = backends.clone();
        task.spawn(async move {
            while seen.changed().await.is_ok() {
                seen.borrow_and_update();
                *counted.lock().unwrap() += 1;
            }
        });
        while !script.lock().unwrap().is_empty() {
            sleep(Duration::from_millis(100)).await;
        }
        sleep(Duration::from_millis(100)).await;
        let found = backends.borrow_and_update().clone();
        let times = times.lock().unwrap().clone();
        let changes = *changes.lock().unwrap();
        (times, found, changes)
    }

    fn set(ips: &[&str]) -> BTreeSet<IpAddr> {
        ips.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    /// boot.md scenario 59, netfilter.md 14 number 8.
    #[tokio::test(start_paused = true)]
    async fn failures_are_tried_again_after_1_2_and_4_seconds() {
        let none = Err("no such host");
        let (times, found, _) = looked(&[none, none, none, Ok(("10.0.0.1", None)), Ok(("10.0.0.2", None))]).await;
        assert_eq!(times, [0, 1, 3, 7, 607]);
        assert_eq!(found, Some(set(&["10.0.0.2"])));
    }

    /// W17: upstream's pause overflows after some four hours and becomes none at all.
    #[tokio::test(start_paused = true)]
    async fn w17_a_name_that_stays_away_never_becomes_a_busy_loop() {
        let (times, found, _) = looked(&[Err("no such host"); 80]).await;
        let pauses: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(pauses[..11], [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600]);
        assert!(pauses[10..].iter().all(|pause| *pause == 600), "{pauses:?}");
        assert_eq!(found, None);
    }

    /// W17: an answer that lives for half a minute is asked for again after half a minute.
    #[tokio::test(start_paused = true)]
    async fn w17_the_lifetime_of_an_answer_is_respected() {
        let answers = [("10.0.0.1", Some(30)), ("10.0.0.1", Some(0)), ("10.0.0.1", Some(86_400)), ("10.0.0.1", None)];
        let (times, _, _) = looked(&answers.map(Ok)).await;
        assert_eq!(times, [0, 30, 35, 635]);
    }

    /// netfilter.md 14 number 5, and 8: what was known stays while the resolver fails.
    #[tokio::test(start_paused = true)]
    async fn neither_another_order_nor_a_failure_is_news() {
        let shuffled = [Ok(("10.0.0.1 fd00::1", None)), Ok(("fd00::1 10.0.0.1", None)), Err("refused")];
        let (_, found, changes) = looked(&shuffled).await;
        assert_eq!((found, changes), (Some(set(&["10.0.0.1", "fd00::1"])), 1));
    }
}
