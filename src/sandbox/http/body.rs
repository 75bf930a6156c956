//! The bodies of the sandbox's answers: complete, streamed, or cut off.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;

/// Frames a streamed body holds before its writer has to wait for the reader.
const STREAM_DEPTH: usize = 64;

/// The body of an answer: complete ([`full`], [`empty`]) or streamed ([`stream`]).
pub type Reply = UnsyncBoxBody<Bytes, io::Error>;

/// A complete body.
pub fn full(bytes: impl Into<Bytes>) -> Reply {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// A body without bytes.
pub fn empty() -> Reply {
    full(Bytes::new())
}

/// A streamed body and its writer: each [`Writer::send`] is one flushed chunk. Dropping the writer ends the body.
pub fn stream() -> (Writer, Reply) {
    let (sender, mut receiver) = mpsc::channel(STREAM_DEPTH);
    (Writer(sender), from_stream(futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx))))
}

/// A streamed body that is polled only while somebody reads it: each item is one flushed chunk, an error cuts it off.
pub fn from_stream(stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Reply {
    Streamed { stream: Box::pin(stream), failed: None }.boxed_unsync()
}

/// A body made of `bytes` that is then cut off, without the terminator a complete body has.
pub fn cut_off(bytes: impl Into<Bytes>) -> Reply {
    let aborted = Err(io::Error::from(io::ErrorKind::ConnectionAborted));
    from_stream(futures_util::stream::iter([Ok(bytes.into()), aborted]))
}

/// The writing end of a streamed body.
#[derive(Clone, Debug)]
pub struct Writer(mpsc::Sender<io::Result<Bytes>>);

impl Writer {
    /// Sends one chunk, waiting while the reader is behind. `false` when the client is gone.
    pub async fn send(&self, chunk: impl Into<Bytes>) -> bool {
        self.0.send(Ok(chunk.into())).await.is_ok()
    }

    /// Cuts the body off: the client sees a broken connection, not an end.
    pub async fn abort(self) {
        // Gone already is as aborted as it gets.
        let _ = self.0.send(Err(io::Error::from(io::ErrorKind::ConnectionAborted))).await;
    }

    /// Completes when the client is gone.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

struct Streamed {
    stream: Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>,
    failed: Option<io::Error>,
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match std::task::ready!(self.stream.as_mut().poll_next(cx)) {
            Some(Err(error)) => {
                // hyper forgets what it has buffered when a body fails; one idle turn lets it flush first.
                self.failed = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            item => Poll::Ready(item.map(|item| item.map(Frame::data))),
        }
    }
}
