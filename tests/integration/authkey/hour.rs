//! An hour of waiting, all of it: what it asks, how often it wakes, what that costs.
//!
//! The clock is paused and jumps from timer to timer, so that everything an hour of waiting does is done, over real
//! sockets and files, in the time that the work itself takes. That time is what is measured.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use serde_json::json;
use tailpod::authkey::{self, KeySource, Progress, WaitError};
use tailpod::secret::Secret;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::DEAD;
use crate::k8s::scripted::{Answer, ApiServer, secret};

const HOUR: Duration = Duration::from_secs(3600);
/// A look every five seconds.
const LOOKS: usize = 720;

/// How the hour went.
struct Waited {
    /// How often the wait was woken.
    wakes: usize,
    /// CPU time of this thread, on which the wait, its connection and the pretend server run.
    cpu: Duration,
}

async fn wait_an_hour(source: &KeySource) -> Waited {
    wait(source, HOUR).await
}

async fn wait(source: &KeySource, limit: Duration) -> Waited {
    let (start, cpu) = (Instant::now(), cpu());
    let (stop, old) = (CancellationToken::new(), Secret::new(DEAD.to_owned()));
    let mut told = 0;
    let mut observer = |progress| told += usize::from(matches!(progress, Progress::StillNone { .. }));
    let mut wakes = 0;
    let ended = {
        let mut wait = pin!(authkey::wait(source, &old, limit, &stop, &mut observer));
        std::future::poll_fn(|context| {
            wakes += 1;
            match wait.as_mut().poll(context) {
                Poll::Ready(ended) => Poll::Ready(ended),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    };
    assert!(matches!(ended, Err(WaitError::Timeout { after }) if after == limit), "{ended:?}");
    assert!(start.elapsed() >= limit);
    let looks = limit.as_secs().div_ceil(5).try_into().unwrap_or(LOOKS);
    assert!((looks - 2..=looks + 2).contains(&told), "told {told} times that there is none yet");
    Waited { wakes, cpu: self::cpu().saturating_sub(cpu) }
}

/// CPU time of this thread so far.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

/// A thousandth of one core, of a build that nobody has optimised.
#[track_caller]
fn costs_nothing_to_speak_of(waited: &Waited) {
    assert!(waited.cpu < HOUR / 1000, "{:?} of CPU time and {} wake-ups in an hour", waited.cpu, waited.wakes);
}

#[tokio::test(start_paused = true)]
async fn for_a_file_it_looks_every_five_seconds_and_does_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cap-95.hujson");
    std::fs::write(&path, format!("{{\"Version\": \"alpha0\", \"AuthKey\": \"{DEAD}\"}}")).unwrap();
    let waited = wait_an_hour(&KeySource::config(&path)).await;
    assert!(waited.wakes <= LOOKS + 5, "woken {} times", waited.wakes);
    costs_nothing_to_speak_of(&waited);
}

#[tokio::test(start_paused = true)]
async fn for_a_secret_it_keeps_one_watch_and_checks_it_every_five_seconds() {
    let server = ApiServer::start([]).await;
    let present = || secret("1", &[("authkey", DEAD)]);
    server.usually(move |line| match line {
        line if line.contains("watch=1") => Answer::Silence(HOUR),
        line if line.contains("fieldSelector") => {
            Answer::json(&json!({"metadata": {"resourceVersion": "1"}, "items": [present()]}))
        }
        _ => Answer::json(&present()),
    });
    let source = KeySource::Secret { cluster: server.cluster().await, name: "s".to_owned(), key: "authkey".to_owned() };
    let waited = wait_an_hour(&source).await;
    let lines = server.lines();
    let watches = lines.iter().filter(|line| line.contains("watch=1")).count();
    let lists = lines.iter().filter(|line| line.contains("fieldSelector")).count() - watches;
    let checks = lines.len() - watches - lists;
    // A watch that the server never ends is opened anew after four and a half minutes.
    assert!((12..=15).contains(&watches) && (12..=15).contains(&lists), "{lists} lists, {watches} watches");
    assert!((LOOKS - 20..=LOOKS + 2).contains(&checks), "{checks} checks");
    costs_nothing_to_speak_of(&waited);
}

#[tokio::test(start_paused = true)]
async fn for_a_secret_that_may_only_be_read_it_reads_every_five_seconds() {
    let server = ApiServer::start([]).await;
    server.usually(|line| match line {
        line if line.contains("fieldSelector") => Answer::status(403),
        _ => Answer::json(&secret("1", &[("authkey", DEAD)])),
    });
    let source = KeySource::Secret { cluster: server.cluster().await, name: "s".to_owned(), key: "authkey".to_owned() };
    let waited = wait_an_hour(&source).await;
    let lines = server.lines();
    let refused = lines.iter().filter(|line| line.contains("fieldSelector")).count();
    assert_eq!(refused, 1, "asked once, and believed");
    assert!((LOOKS - 2..=LOOKS + 3).contains(&(lines.len() - refused)), "{} reads", lines.len() - refused);
    costs_nothing_to_speak_of(&waited);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_every_second_is_neither_a_busy_loop_nor_missed() {
    let server = ApiServer::start([]).await;
    server.usually(|line| match line {
        line if line.contains("watch=1") => Answer::Silence(Duration::from_secs(1)),
        line if line.contains("fieldSelector") => {
            Answer::json(&json!({"metadata": {"resourceVersion": "1"}, "items": [secret("1", &[("authkey", DEAD)])]}))
        }
        _ => Answer::json(&secret("1", &[("authkey", DEAD)])),
    });
    let source = KeySource::Secret { cluster: server.cluster().await, name: "s".to_owned(), key: "authkey".to_owned() };
    wait(&source, Duration::from_secs(300)).await;
    let watches = server.lines().iter().filter(|line| line.contains("watch=1")).count();
    // It lasted long enough to count as one that works: the next follows at once.
    assert!((150..=300).contains(&watches), "{watches} watches in five minutes");
}
