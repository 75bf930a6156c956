//! How many connections one peer may have, so that none shuts the others out.
//!
//! A connection carries one request or stream at a time, so this bounds streams too. A peer is a node, by its stable id:
//! a user has a share for each. Whoever is beyond it is told so, but for a crowd of its own, which is shut out at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::lock::lock;

/// Of all places a peer may have one in so many.
const SHARE: usize = 2;
/// Beyond its share, so many more in a hundred of it are told that there are too many.
const TOLD_PERCENT: usize = 10;

/// The shares of all peers that are connected.
#[derive(Debug)]
pub(super) struct Shares {
    most: usize,
    /// Connections by stable id; none is zero.
    held: Mutex<HashMap<String, usize>>,
}

/// A connection of a peer; given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    shares: Arc<Shares>,
    node: String,
    is_within: bool,
}

impl Shares {
    /// Of so many places a peer has this many, or its usual share.
    pub(super) fn of(places: usize, most: Option<usize>) -> Arc<Self> {
        Arc::new(Self { most: most.unwrap_or(places / SHARE).max(1), held: Mutex::default() })
    }

    /// Connections that a peer may have.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// One more for this node; `None` when it is not even to be told that there are too many.
    pub(super) fn take(self: &Arc<Self>, node: &str) -> Option<Share> {
        let mut held = self.held();
        let count = held.get(node).copied().unwrap_or_default();
        if count >= self.most + (self.most * TOLD_PERCENT / 100).max(1) {
            return None;
        }
        held.insert(node.to_owned(), count + 1);
        Some(Share { shares: Arc::clone(self), node: node.to_owned(), is_within: count < self.most })
    }

    fn held(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        lock(&self.held)
    }
}

impl Share {
    /// The node's stable id.
    pub(super) fn node(&self) -> &str {
        &self.node
    }

    /// Whether its connection may be used.
    pub(super) fn is_within(&self) -> bool {
        self.is_within
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.shares.held();
        match held.get_mut(&self.node) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(held.remove(&self.node)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_its_share_and_others_have_theirs() {
        let shares = Shares::of(41, None);
        assert_eq!(shares.most(), 20);
        assert_eq!(Shares::of(41, Some(30)).most(), 30);
        let mut mine: Vec<_> = (0..22).map(|_| shares.take("a").unwrap()).collect();
        assert_eq!(mine.iter().filter(|share| share.is_within()).count(), 20);
        assert!(shares.take("a").is_none());
        assert!(shares.take("b").unwrap().is_within());
        mine.truncate(19);
        assert!(shares.take("a").unwrap().is_within());
        drop(mine);
        assert!(shares.held().is_empty(), "nothing is kept of who has gone");
    }
}
