//! What the watch loop has to say, merged as far as its reader is slow. The merging is pure.
//!
//! Never blocks the writer and never grows: a reader that comes late gets every state the node went through, in
//! order, up to a bound, and everything else merged into the latest value. So the daemon's queue is always drained,
//! whatever the consumer waits for.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::Error;
use super::model::{Model, Update};
use crate::lock::lock;

/// One thing that happened on the bus.
#[derive(Debug)]
pub enum BusEvent {
    /// A stream is open; its first [`Change`] replaces what was known.
    Opened,
    /// The node changed.
    Changed(Change),
    /// There is no stream any more, or none could be opened; the last model is stale until the next `Changed`.
    Lost(Lost),
    /// Something to log; nothing else follows from it.
    Trouble(String),
}

/// What changed, and how the node looks now.
#[derive(Debug)]
pub struct Change {
    /// What is different.
    pub update: Update,
    /// The whole model after it.
    pub model: Arc<Model>,
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// The daemon ended it.
    #[error("EOF")]
    Ended,
    /// The daemon gave up on us as too slow.
    #[error("the bus fell behind")]
    FellBehind,
    /// The daemon accepts connections and does not answer.
    #[error("tailscaled does not answer")]
    Unresponsive(#[source] Box<Error>),
    /// Any other error.
    #[error(transparent)]
    Failed(Box<Error>),
}

/// Most events that wait; a node goes through six states, so this is several restarts of the daemon.
const MOST: usize = 32;

/// The events that wait. Pure.
#[derive(Debug, Default)]
pub(super) struct Queue(VecDeque<BusEvent>);

impl Queue {
    /// Adds an event, merged into the last one where that loses nothing.
    pub(super) fn push(&mut self, event: BusEvent) {
        let full = self.0.len() >= MOST;
        match (self.0.back_mut(), event) {
            (Some(BusEvent::Changed(last)), BusEvent::Changed(next)) if full || last.may_take(&next) => {
                last.update.merge(next.update);
                last.model = next.model;
            }
            (Some(BusEvent::Lost(last)), BusEvent::Lost(next)) => *last = next,
            (Some(BusEvent::Trouble(last)), BusEvent::Trouble(next)) if full || *last == next => *last = next,
            (_, event) => {
                if full {
                    self.make_room();
                }
                self.0.push_back(event);
            }
        }
    }

    /// Forgets the oldest coming or going of a stream, or else merges the two oldest changes.
    fn make_room(&mut self) {
        if let Some(at) = self.0.iter().position(|event| !matches!(event, BusEvent::Changed(_))) {
            self.0.remove(at);
        } else if let Some(BusEvent::Changed(oldest)) = self.0.pop_front()
            && let Some(BusEvent::Changed(next)) = self.0.front_mut()
        {
            let later = std::mem::replace(&mut next.update, oldest.update);
            next.update.merge(later);
        }
    }

    /// The oldest event.
    pub(super) fn pop(&mut self) -> Option<BusEvent> {
        self.0.pop_front()
    }
}

impl Change {
    /// Whether a reader who sees only the sum of both misses nothing: neither a state nor an error text gets lost.
    fn may_take(&self, next: &Self) -> bool {
        let states = next.update.state.is_none() || self.update.state == next.update.state;
        states && (self.update.err_message.is_none() || next.update.err_message.is_none())
    }
}

/// A new mailbox.
pub(super) fn mailbox() -> (Sender, Bus) {
    let shared = Arc::new(Shared::default());
    (Sender(Arc::clone(&shared)), Bus(shared))
}

#[derive(Debug, Default)]
struct Shared {
    /// The queue, and whether the writer is gone.
    queue: Mutex<(Queue, bool)>,
    changed: tokio::sync::Notify,
}

impl Shared {
    fn with<T>(&self, act: impl FnOnce(&mut (Queue, bool)) -> T) -> T {
        act(&mut lock(&self.queue))
    }
}

/// The loop's end.
#[derive(Debug)]
pub(super) struct Sender(Arc<Shared>);

impl Sender {
    pub(super) fn send(&self, event: BusEvent) {
        self.0.with(|(queue, _)| queue.push(event));
        self.0.changed.notify_one();
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.with(|(_, closed)| *closed = true);
        self.0.changed.notify_one();
    }
}

/// The reader's end of the watch loop.
#[derive(Debug)]
pub struct Bus(Arc<Shared>);

impl Bus {
    /// The next event; `None` once the loop has ended. Cancel safe.
    pub async fn next(&mut self) -> Option<BusEvent> {
        loop {
            // One permit is stored, so a send between the look and the wait is not missed.
            let (event, closed) = self.0.with(|(queue, closed)| (queue.pop(), *closed));
            if event.is_some() || closed {
                return event;
            }
            self.0.changed.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::types::State;
    use super::*;

    fn changed(update: Update) -> BusEvent {
        BusEvent::Changed(Change { update, model: Arc::default() })
    }

    fn state(state: State) -> BusEvent {
        changed(Update { state: Some(state), ..Update::default() })
    }

    fn states(queue: &mut Queue) -> Vec<Option<State>> {
        std::iter::from_fn(|| queue.pop())
            .map(|event| match event {
                BusEvent::Changed(change) => change.update.state,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_slow_reader_sees_each_state_and_the_latest_of_everything_else() {
        let mut queue = Queue::default();
        queue.push(state(State::NeedsLogin));
        queue.push(changed(Update { self_changed: true, ..Update::default() }));
        queue.push(state(State::Running));
        for _ in 0..1000 {
            queue.push(changed(Update { self_changed: true, ..Update::default() }));
        }
        assert_eq!(states(&mut queue), [Some(State::NeedsLogin), Some(State::Running)]);
    }

    #[test]
    fn never_more_than_the_bound_and_the_latest_state_wins() {
        let mut queue = Queue::default();
        for round in 0..1000 {
            queue.push(state(if round % 2 == 0 { State::Starting } else { State::Running }));
            queue.push(BusEvent::Opened);
            queue.push(BusEvent::Trouble(round.to_string()));
        }
        assert!(queue.0.len() <= MOST);
        let last = std::iter::from_fn(|| queue.pop())
            .filter_map(|event| match event {
                BusEvent::Changed(change) => change.update.state,
                _ => None,
            })
            .last();
        assert_eq!(last, Some(State::Running));
    }

    #[test]
    fn lost_is_said_once_with_the_latest_reason() {
        let mut queue = Queue::default();
        queue.push(BusEvent::Lost(Lost::Ended));
        queue.push(BusEvent::Lost(Lost::FellBehind));
        queue.push(BusEvent::Opened);
        assert!(matches!(queue.pop(), Some(BusEvent::Lost(Lost::FellBehind))));
        assert!(matches!(queue.pop(), Some(BusEvent::Opened)));
        assert!(queue.pop().is_none());
    }

    #[tokio::test]
    async fn the_reader_wakes_and_ends() {
        let (sender, mut bus) = mailbox();
        let reader = async { (bus.next().await, bus.next().await) };
        let writer = async {
            tokio::task::yield_now().await;
            sender.send(BusEvent::Opened);
            tokio::task::yield_now().await;
            drop(sender);
        };
        let ((first, second), ()) = tokio::join!(reader, writer);
        assert!(matches!(first, Some(BusEvent::Opened)) && second.is_none());
    }
}
