//! The connections that were made with one set of credentials, so that all of them can be closed.
//!
//! Each connection belongs to the certificate generation that was current when it was dialled. [`Connections::retire`]
//! ends a generation: idle connections are shut down at once, busy ones too or after a grace, upgraded ones included.
//! Closing is `shutdown(2)` on the socket, so it wakes whoever reads or writes and needs nobody to poll. A connection
//! that is dropped takes itself off the list first, so a file descriptor is never touched after it was closed.

use std::collections::HashMap;
use std::fmt;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use nix::sys::socket::{Shutdown, shutdown};

use crate::lock::lock;

/// All connections of one identity towards the API server.
#[derive(Clone, Default)]
pub(super) struct Connections {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    generation: AtomicU64,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next: u64,
    all: HashMap<u64, Entry>,
}

struct Entry {
    fd: RawFd,
    generation: u64,
    state: Arc<State>,
}

/// What a connection and the list know of each other.
#[derive(Debug, Default)]
struct State {
    phase: AtomicU8,
    idle: AtomicBool,
}

const LIVE: u8 = 0;
/// Of an old generation: to be used up, not to be used again.
const RETIRED: u8 = 1;
const CANCELLED: u8 = 2;

/// Keeps one connection on the list.
pub(super) struct Registration {
    shared: Arc<Shared>,
    id: u64,
    generation: u64,
    state: Arc<State>,
}

/// Which connections an ended generation takes down now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// Those that nobody uses.
    Idle,
    /// All.
    All,
}

impl Connections {
    /// The generation that new connections belong to.
    pub(super) fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// Puts a socket on the list, as one of `generation`; cancelled already when that has ended.
    pub(super) fn register(&self, fd: RawFd, generation: u64) -> Registration {
        let state = Arc::new(State::default());
        let mut open = self.shared.open();
        // Under the lock: either `retire` sees the entry, or this sees the new generation.
        if self.generation() != generation {
            state.phase.store(CANCELLED, Ordering::Release);
        }
        let id = open.next;
        open.next += 1;
        open.all.insert(id, Entry { fd, generation, state: Arc::clone(&state) });
        drop(open);
        Registration { shared: Arc::clone(&self.shared), id, generation, state }
    }

    /// Begins generation `next`; what is older is closed as deep as `depth` says. How many were closed.
    pub(super) fn retire(&self, next: u64, depth: Depth) -> usize {
        let open = self.shared.open();
        self.shared.generation.fetch_max(next, Ordering::AcqRel);
        let mut closed = 0;
        for entry in open.all.values().filter(|entry| entry.generation < next) {
            if entry.state.phase.load(Ordering::Acquire) == CANCELLED {
                continue;
            }
            entry.state.phase.store(RETIRED, Ordering::Release);
            if depth == Depth::All || entry.state.idle.load(Ordering::Acquire) {
                entry.cancel();
                closed += 1;
            }
        }
        closed
    }

    /// How many are on the list.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.shared.open().all.len()
    }
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, Open> {
        lock(&self.open)
    }
}

impl Entry {
    fn cancel(&self) {
        self.state.phase.store(CANCELLED, Ordering::Release);
        // Fails only when the peer was faster.
        let _ = shutdown(self.fd, Shutdown::Both);
    }
}

impl Registration {
    /// The generation it was registered for.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether it was closed because its generation has ended.
    pub(super) fn is_cancelled(&self) -> bool {
        self.state.phase.load(Ordering::Relaxed) == CANCELLED
    }

    /// Whether its generation has ended: it must not be used for another request.
    pub(super) fn is_retired(&self) -> bool {
        self.state.phase.load(Ordering::Relaxed) != LIVE
    }

    /// Says whether a request is under way. False when it became idle too late to be kept.
    pub(super) fn set_idle(&self, idle: bool) -> bool {
        self.state.idle.store(idle, Ordering::SeqCst);
        !(idle && self.is_retired())
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.shared.open().all.remove(&self.id);
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("generation", &self.generation)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections")
            .field("generation", &self.generation())
            .field("open", &self.shared.open().all.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _};
    use std::os::fd::AsRawFd as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair(connections: &Connections, generation: u64) -> (UnixStream, UnixStream, Registration) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let registration = connections.register(ours.as_raw_fd(), generation);
        (ours, theirs, registration)
    }

    fn is_closed(theirs: &mut UnixStream) -> bool {
        match theirs.read(&mut [0; 1]) {
            Ok(0) => true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_new_generation_closes_the_old_one_and_no_other() {
        let connections = Connections::default();
        let (_a, mut a_peer, a) = pair(&connections, 0);
        assert_eq!(connections.retire(1, Depth::All), 1);
        assert!(a.is_cancelled() && is_closed(&mut a_peer));
        let (_b, mut b_peer, b) = pair(&connections, 1);
        assert!(!b.is_cancelled() && !is_closed(&mut b_peer));
        assert_eq!(connections.retire(1, Depth::All), 0);
        assert!(!b.is_cancelled());
        drop((a, b));
        assert_eq!(connections.len(), 0);
    }

    #[test]
    fn one_that_was_dialled_for_an_ended_generation_is_born_cancelled() {
        let connections = Connections::default();
        connections.retire(1, Depth::All);
        assert!(pair(&connections, 0).2.is_cancelled());
    }

    #[test]
    fn with_a_grace_the_idle_go_first_and_the_busy_are_not_used_again() {
        let connections = Connections::default();
        let (_a, mut idle_peer, idle) = pair(&connections, 0);
        let (_b, mut busy_peer, busy) = pair(&connections, 0);
        assert!(idle.set_idle(true));
        assert_eq!(connections.retire(1, Depth::Idle), 1);
        assert!(idle.is_cancelled() && is_closed(&mut idle_peer));
        assert!(busy.is_retired() && !busy.is_cancelled() && !is_closed(&mut busy_peer));
        assert!(!busy.set_idle(true), "its answer has ended: it is not kept");
        assert_eq!(connections.retire(1, Depth::All), 1);
        assert!(busy.is_cancelled() && is_closed(&mut busy_peer));
    }
}
