//! One direction of a request: body bytes from one connection to the other, piece by piece, each sent at once.
//!
//! A piece is what one read brought. It is written from where it was read, in one call with the head before it and the
//! framing around it; nothing more is read until it has left. So a slow reader slows the sender down, and no body of
//! any size takes more than one buffer.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::header::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep};

use super::buffers::{BLOCK, Inbox};
use crate::goduration::format;
use crate::http1::{ChunkError, Chunks, Extensions, Framing, Step, chunk_head, write_trailers};

/// How a body arrives.
#[derive(Debug)]
pub(super) enum Source {
    /// So many bytes more.
    Length(u64),
    /// In chunks.
    Chunked(Box<Chunks>),
    /// Until the connection ends.
    UntilClose,
    /// All of it has been read, or there was none.
    Done,
}

/// How a body leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sink {
    /// As it is; the head says how long it is, or the end of the connection will.
    Plain,
    /// In chunks.
    Chunked,
}

/// What went wrong in a lane, by whose fault it is.
#[derive(Debug, thiserror::Error)]
pub(super) enum LaneError {
    /// Reading from the sender failed.
    #[error("reading failed")]
    Read(#[source] io::Error),
    /// The sender ended before its body did.
    #[error("the connection ended before the body did")]
    Truncated,
    /// The sender's chunks are malformed.
    #[error("malformed chunked body")]
    Chunks(#[from] ChunkError),
    /// Writing to the receiver failed.
    #[error("writing failed")]
    Write(#[source] io::Error),
    /// The receiver takes nothing any more.
    #[error("nothing of it was read for {}", format(*.0))]
    Stuck(Duration),
}

/// One direction.
#[derive(Debug)]
pub(super) struct Lane {
    source: Source,
    sink: Sink,
    /// Which trailers pass.
    passes: fn(&str) -> bool,
    /// Bytes before those of the inbox: heads, chunk heads.
    before: Vec<u8>,
    /// How many of them have left.
    gone: usize,
    /// So many of the inbox.
    piece: usize,
    /// Bytes after them: the end of the chunk, of the body.
    after: Vec<u8>,
    /// Body bytes that have left.
    moved: u64,
    unflushed: bool,
    has_begun: bool,
    /// A copy of the body, for as long as it may have to be sent again.
    copy: Option<Vec<u8>>,
    patience: Option<Patience>,
}

/// How long a receiver may take nothing while there is something for it. One to whom there is nothing to say is not
/// waited for.
#[derive(Debug)]
struct Patience {
    limit: Duration,
    /// Runs while the receiver is waited for, and until the lane idles.
    timer: Option<Pin<Box<Sleep>>>,
    /// Something has left since it was started.
    has_moved: bool,
}

impl Source {
    /// A body with this framing of which nothing has been read.
    pub(super) fn new(framing: Framing, extensions: Extensions) -> Self {
        match framing {
            Framing::None => Self::Done,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Box::new(Chunks::new(extensions))),
            Framing::UntilClose => Self::UntilClose,
        }
    }
}

impl Lane {
    /// A lane that first writes `head`. `passes` says which trailers do.
    pub(super) fn new(head: Vec<u8>, source: Source, sink: Sink, passes: fn(&str) -> bool) -> Self {
        Self {
            source,
            sink,
            passes,
            before: head,
            gone: 0,
            piece: 0,
            after: Vec::new(),
            moved: 0,
            unflushed: false,
            has_begun: false,
            copy: None,
            patience: None,
        }
    }

    /// Gives up once the receiver has taken nothing for this long; twice that may pass.
    pub(super) fn give_up_after(mut self, limit: Duration) -> Self {
        self.patience = Some(Patience { limit, timer: None, has_moved: false });
        self
    }

    /// Bytes that only have to be passed on, for ever.
    pub(super) fn tunnel() -> Self {
        Self::new(Vec::new(), Source::UntilClose, Sink::Plain, |_| true)
    }

    /// Writes `bytes` next. Nothing else may be on its way.
    pub(super) fn push(&mut self, bytes: Vec<u8>) {
        debug_assert!(self.is_idle(), "something else is on its way");
        (self.gone, self.has_begun) = (0, false);
        self.before = bytes;
    }

    /// Begins another body behind what was pushed.
    pub(super) fn begin(&mut self, source: Source, sink: Sink) {
        (self.source, self.sink) = (source, sink);
    }

    /// Keeps a copy of the body from now on.
    pub(super) fn keep_copy(&mut self) {
        self.copy = Some(Vec::new());
    }

    /// The copy of the whole body; `None` when none was kept, or the body has not been read to its end.
    pub(super) fn take_copy(&mut self) -> Option<Vec<u8>> {
        let copy = self.copy.take();
        copy.filter(|_| self.is_read())
    }

    /// Whether any byte has left since something was pushed last.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Whether the whole body has been read.
    pub(super) fn is_read(&self) -> bool {
        matches!(self.source, Source::Done)
    }

    /// Whether everything has left.
    pub(super) fn is_done(&self) -> bool {
        self.is_read() && self.is_idle() && !self.unflushed
    }

    /// Body bytes that have left.
    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    /// Whether nothing that was loaded waits to leave.
    pub(super) fn is_idle(&self) -> bool {
        self.gone == self.before.len() && self.piece == 0 && self.after.is_empty()
    }

    /// Whether something waits until the receiver takes it; the sender is not read from meanwhile.
    pub(super) fn is_blocked(&self) -> bool {
        !self.is_idle() || self.unflushed
    }

    /// Moves what can be moved. Ready when everything has left, or on an error.
    pub(super) fn poll<R, W>(
        &mut self,
        inbox: &mut Inbox,
        from: &mut R,
        to: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), LaneError>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            if self.piece == 0 && self.after.is_empty() && !self.is_read() {
                self.load(inbox)?;
            }
            if !self.is_idle() {
                match self.poll_write(inbox, to, cx) {
                    Poll::Ready(written) => written.map_err(LaneError::Write)?,
                    Poll::Pending => return self.poll_patience(cx),
                }
                continue;
            }
            if self.unflushed {
                match Pin::new(&mut *to).poll_flush(cx) {
                    Poll::Ready(flushed) => flushed.map_err(LaneError::Write)?,
                    Poll::Pending => return self.poll_patience(cx),
                }
                self.unflushed = false;
            }
            if self.is_read() {
                return Poll::Ready(Ok(()));
            }
            // Only framing can be left over here, and little of it.
            match inbox.poll_fill(from, BLOCK, cx) {
                Poll::Ready(Ok(0)) => self.end()?,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(LaneError::Read(error))),
                Poll::Pending => {
                    if let Some(patience) = &mut self.patience {
                        patience.timer = None;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// The receiver is waited for.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LaneError>> {
        let Some(patience) = &mut self.patience else { return Poll::Pending };
        let limit = patience.limit;
        let timer = patience.timer.get_or_insert_with(|| {
            patience.has_moved = false;
            Box::pin(sleep(limit))
        });
        while timer.as_mut().poll(cx).is_ready() {
            if !std::mem::take(&mut patience.has_moved) {
                return Poll::Ready(Err(LaneError::Stuck(limit)));
            }
            timer.as_mut().reset(Instant::now() + limit);
        }
        Poll::Pending
    }

    /// Makes the next piece out of what was read.
    fn load(&mut self, inbox: &mut Inbox) -> Result<(), LaneError> {
        if inbox.is_empty() {
            return Ok(());
        }
        match &mut self.source {
            Source::Done => return Ok(()),
            Source::UntilClose => self.piece = inbox.len(),
            Source::Length(left) => {
                let here = inbox.len();
                self.piece = usize::try_from(*left).map_or(here, |left| left.min(here));
                *left -= self.piece as u64;
                if *left == 0 {
                    self.source = Source::Done;
                }
            }
            Source::Chunked(chunks) => {
                let mut data = 0;
                let mut at = 0;
                let trailers = loop {
                    match chunks.next(&inbox.bytes()[at..])? {
                        Step::Data { skip, length } => {
                            if at + skip > data {
                                inbox.close_gap(at + skip, length, data);
                            }
                            data += length;
                            at += skip + length;
                        }
                        Step::More => {
                            at = inbox.len();
                            break None;
                        }
                        Step::End { skip, trailers } => {
                            at += skip;
                            break Some(trailers);
                        }
                    }
                };
                inbox.cut(data, at);
                self.piece = data;
                if let Some(trailers) = trailers {
                    self.finish(trailers);
                }
            }
        }
        if let Some(copy) = &mut self.copy {
            copy.extend_from_slice(&inbox.bytes()[..self.piece]);
        }
        if self.sink == Sink::Chunked && self.piece > 0 {
            let (head, begin) = chunk_head(self.piece);
            if self.is_gone() {
                self.before.clear();
                self.gone = 0;
            }
            self.before.extend_from_slice(&head[begin..]);
            self.after.splice(..0, *b"\r\n");
        }
        Ok(())
    }

    fn is_gone(&self) -> bool {
        self.gone == self.before.len()
    }

    /// The body has ended, with these trailers.
    fn finish(&mut self, mut trailers: HeaderMap) {
        self.source = Source::Done;
        if self.sink == Sink::Chunked {
            let refused: Vec<_> = trailers.keys().filter(|name| !(self.passes)(name.as_str())).cloned().collect();
            for name in refused {
                trailers.remove(name);
            }
            write_trailers(&mut self.after, &trailers);
        }
    }

    /// The connection has ended.
    fn end(&mut self) -> Result<(), LaneError> {
        match self.source {
            Source::UntilClose => {
                self.finish(HeaderMap::new());
                Ok(())
            }
            _ => Err(LaneError::Truncated),
        }
    }

    fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        inbox: &mut Inbox,
        to: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, piece) = (&self.before[self.gone..], &inbox.bytes()[..self.piece]);
        let slices = [IoSlice::new(before), IoSlice::new(piece), IoSlice::new(&self.after)];
        // A stream that takes one slice only would be given an empty one.
        let first = slices.iter().position(|slice| !slice.is_empty()).unwrap_or_default();
        let mut count = ready!(Pin::new(to).poll_write_vectored(cx, &slices[first..]))?;
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let from_before = count.min(before.len());
        self.gone += from_before;
        count -= from_before;
        let from_piece = count.min(self.piece);
        inbox.consume(from_piece);
        self.piece -= from_piece;
        self.moved += from_piece as u64;
        self.after.drain(..count - from_piece);
        (self.unflushed, self.has_begun) = (true, true);
        if let Some(patience) = &mut self.patience {
            patience.has_moved = true;
        }
        if self.is_gone() && self.before.capacity() > 0 && self.piece == 0 && self.after.is_empty() {
            // A watch idles without it.
            (self.before, self.gone, self.after) = (Vec::new(), 0, Vec::new());
        }
        Poll::Ready(Ok(()))
    }
}
