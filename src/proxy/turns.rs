//! In which order tailscaled is asked who somebody is, so that strangers hold up no peer.
//!
//! tailscaled searches a third of a second for a loopback port that it did not dial from, under a lock that every other
//! question waits for (upstream's `net/proxymap` below `LocalBackend.WhoIs`). A tailnet address it looks up at once,
//! known or not. So only connections over loopback are asked about one at a time, and those that tailscaled did not make not
//! at all for a while after one that was nobody's. Refusing needs no question; letting in always does.

use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::dialler::Dialler;
use crate::lock::lock;

/// Questions about peers at the same time. A burst of connections shall take neither all our descriptors nor all of
/// tailscaled.
const ABREAST: usize = 64;
/// Connections that wait for theirs because they may be strangers'.
const QUEUE: usize = 1_024;
/// For the time that a question about a stranger took, so many times as long none is asked: peers meet one in fewer
/// than a hundred of theirs.
const REST: u32 = 100;
/// However long it took.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// The turns.
#[derive(Debug)]
pub(super) struct Turns {
    peers: Semaphore,
    doubtful: Semaphore,
    queue: Semaphore,
    /// Until then no stranger is asked about.
    rest: Mutex<Option<Instant>>,
}

/// A turn; the next one comes when it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    dialler: Dialler,
    since: Instant,
    _places: (Option<SemaphorePermit<'a>>, Option<SemaphorePermit<'a>>),
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            peers: Semaphore::new(ABREAST),
            doubtful: Semaphore::new(1),
            queue: Semaphore::new(QUEUE),
            rest: Mutex::default(),
        }
    }
}

impl Turns {
    /// Waits for a turn; `None` when there is none for such a connection.
    pub(super) async fn wait(&self, dialler: Dialler) -> Option<Turn<'_>> {
        let places = match dialler {
            Dialler::Tailscaled => (self.peers.acquire().await.ok(), None),
            Dialler::Unclear | Dialler::Another => {
                let place = self.queue.try_acquire().ok()?;
                if self.rests(dialler) {
                    return None;
                }
                (self.doubtful.acquire().await.ok(), Some(place))
            }
        };
        // The one in front may have been a stranger.
        let rests = self.rests(dialler);
        (!rests).then(|| Turn { turns: self, dialler, since: Instant::now(), _places: places })
    }

    fn rests(&self, dialler: Dialler) -> bool {
        let rest = *lock(&self.rest);
        dialler == Dialler::Another && rest.is_some_and(|until| Instant::now() < until)
    }
}

impl Turn<'_> {
    /// It was about nobody.
    pub(super) fn was_for_nobody(&self) {
        if self.dialler == Dialler::Another {
            let rest = self.since.elapsed().saturating_mul(REST).min(LONGEST_REST);
            *lock(&self.turns.rest) = Some(Instant::now() + rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};

    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);
    const SEARCH: Duration = Duration::from_millis(380);

    #[tokio::test(start_paused = true)]
    async fn a_stranger_keeps_further_ones_out_and_nobody_else() {
        let turns = Turns::default();
        let first = turns.wait(Dialler::Another).await.unwrap();
        let waiting = turns.wait(Dialler::Another);
        let mut waiting = std::pin::pin!(waiting);
        assert!(timeout(MOMENT, &mut waiting).await.is_err(), "one at a time");
        let known: Vec<_> = futures_util::future::join_all((0..ABREAST).map(|_| turns.wait(Dialler::Tailscaled))).await;
        assert!(known.iter().all(Option::is_some), "peers do not wait behind it");
        advance(SEARCH).await;
        first.was_for_nobody();
        drop(first);
        assert!(waiting.await.is_none());
        assert!(turns.wait(Dialler::Another).await.is_none());
        assert!(turns.wait(Dialler::Unclear).await.is_some());
        advance((SEARCH + MOMENT) * REST).await;
        let second = turns.wait(Dialler::Another).await.unwrap();
        // A peer after all, of a daemon that cannot be told by its process.
        drop(second);
        assert!(turns.wait(Dialler::Another).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_may_be_a_stranger_waits_in_a_queue_with_an_end() {
        let turns = Turns::default();
        let first = turns.wait(Dialler::Unclear).await.unwrap();
        let mut waiting: Vec<_> = (1..QUEUE).map(|_| Box::pin(turns.wait(Dialler::Unclear))).collect();
        for turn in &mut waiting {
            assert!(timeout(Duration::ZERO, turn).await.is_err());
        }
        assert!(turns.wait(Dialler::Unclear).await.is_none());
        first.was_for_nobody();
        drop(first);
        assert!(waiting.remove(0).await.is_some(), "it may have been a peer's");
        assert!(timeout(MOMENT, turns.wait(Dialler::Unclear)).await.is_err(), "there is room again");
    }
}
