//! Buffers that are borrowed while bytes move and given back while a connection idles.
//!
//! A thousand idle watches hold none: reading needs a buffer only at the moment when there is something to read.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// Bytes of a buffer. TLS records are a quarter of it; larger ones were measured to be no faster.
pub(super) const BLOCK: usize = 64 << 10;
/// Buffers that a thread keeps for the next borrower.
const KEPT: usize = 16;
/// Fewer bytes than this are moved out of a block while more are waited for.
const SMALL: usize = 4 << 10;

thread_local! {
    /// Per thread, so that borrowing costs no lock.
    static FREE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

fn borrow() -> Vec<u8> {
    FREE.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; BLOCK])
}

fn give_back(block: Vec<u8>) {
    // Blocks that had to grow for a large head are not kept.
    if block.len() == BLOCK {
        FREE.with_borrow_mut(|free| {
            if free.len() < KEPT {
                free.push(block);
            }
        });
    }
}

/// What has been read from a connection and is not used up yet.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// Initialised storage; empty while nothing is held.
    block: Vec<u8>,
    start: usize,
    end: usize,
}

impl Inbox {
    /// The bytes, oldest first.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.block[self.start..self.end]
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Forgets the oldest `count` bytes.
    pub(super) fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end, "more was used than there was");
        if self.is_empty() {
            self.clear();
        } else if self.block.len() > BLOCK && self.len() <= BLOCK {
            // What follows a large head may be used up much later.
            self.move_to_a_block();
        }
    }

    /// Moves the `length` bytes that begin at `from` to `to`, which is before it; both count from the oldest byte.
    pub(super) fn close_gap(&mut self, from: usize, length: usize, to: usize) {
        let from = self.start + from;
        self.block.copy_within(from..from + length, self.start + to);
    }

    /// Forgets the bytes from the `from`th on that were moved away by [`close_gap`](Self::close_gap): what was at `until`
    /// now follows `from`.
    pub(super) fn cut(&mut self, from: usize, until: usize) {
        let rest = self.len() - until;
        self.close_gap(until, rest, from);
        self.end = self.start + from + rest;
        if self.is_empty() {
            self.clear();
        }
    }

    /// Reads once from `stream`, into at most `limit` held bytes. Zero is the end of the stream.
    ///
    /// The caller sees to it that fewer than `limit` bytes are held.
    pub(super) fn poll_fill<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        limit: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.make_room(limit);
        let mut room = ReadBuf::new(&mut self.block[self.end..]);
        let read = Pin::new(stream).poll_read(cx, &mut room);
        let count = room.filled().len();
        if read.is_pending() {
            self.settle();
        }
        ready!(read)?;
        self.end += count;
        if count == 0 {
            self.settle();
        }
        Poll::Ready(Ok(count))
    }

    fn make_room(&mut self, limit: usize) {
        if self.block.len() < BLOCK {
            self.move_to_a_block();
        } else if self.end == self.block.len() {
            if self.start > 0 {
                self.block.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.len());
            } else {
                // No further than it is read at once, so that what has come behind a head fits one block.
                let grown = (self.block.len() + BLOCK).min(limit).max(self.end + 1);
                self.block.reserve_exact(grown - self.block.len());
                self.block.resize(grown, 0);
            }
        }
    }

    /// For no more than fit one.
    fn move_to_a_block(&mut self) {
        let mut block = borrow();
        let held = self.len();
        block[..held].copy_from_slice(self.bytes());
        (self.block, self.start, self.end) = (block, 0, held);
    }

    /// More is waited for: keeps no more storage than the bytes need.
    fn settle(&mut self) {
        if self.is_empty() {
            self.clear();
        } else if self.len() <= SMALL && self.block.len() >= BLOCK {
            self.shrink();
        }
    }

    fn shrink(&mut self) {
        let held = self.bytes().to_vec();
        self.clear();
        self.end = held.len();
        self.block = held;
    }

    fn clear(&mut self) {
        give_back(std::mem::take(&mut self.block));
        (self.start, self.end) = (0, 0);
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn fill(inbox: &mut Inbox, stream: &mut (impl AsyncRead + Unpin)) -> usize {
        poll_fn(|cx| inbox.poll_fill(stream, 1 << 20, cx)).await.unwrap()
    }

    #[tokio::test]
    async fn nothing_is_held_while_nothing_comes() {
        let (mut near, mut far) = tokio::io::duplex(1 << 20);
        let mut inbox = Inbox::default();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(inbox.poll_fill(&mut near, BLOCK, &mut cx).is_pending());
        assert_eq!(inbox.block.capacity(), 0);
        far.write_all(b"GET / HTTP").await.unwrap();
        assert_eq!(fill(&mut inbox, &mut near).await, 10);
        assert!(inbox.poll_fill(&mut near, BLOCK, &mut cx).is_pending());
        assert!(inbox.block.capacity() <= SMALL && inbox.bytes() == b"GET / HTTP");
        far.write_all(b"/1.1").await.unwrap();
        fill(&mut inbox, &mut near).await;
        assert_eq!(inbox.bytes(), b"GET / HTTP/1.1");
        inbox.consume(14);
        assert_eq!(inbox.block.capacity(), 0);
    }

    #[tokio::test]
    async fn it_grows_to_the_limit_and_gaps_are_closed() {
        let (mut near, mut far) = tokio::io::duplex(1 << 20);
        far.write_all(&vec![b'x'; 200_000]).await.unwrap();
        far.write_all(b"abcdefgh").await.unwrap();
        let mut inbox = Inbox::default();
        while inbox.len() < 200_008 {
            fill(&mut inbox, &mut near).await;
        }
        inbox.consume(100);
        assert!(inbox.block.len() > 3 * BLOCK && inbox.block.capacity() == 4 * BLOCK);
        inbox.consume(199_900);
        assert_eq!(inbox.bytes(), b"abcdefgh");
        assert_eq!(inbox.block.len(), BLOCK);
        inbox.close_gap(3, 2, 1);
        assert_eq!(inbox.bytes(), b"adedefgh");
        inbox.cut(3, 6);
        assert_eq!(inbox.bytes(), b"adegh");
    }
}
