//! One request on its way there and its answer on the way back, in one task and without a buffer while nothing moves.
//!
//! Both directions run at once: an answer may begin before the request has ended. Meanwhile the client is listened to,
//! so that its going away ends the request upstream at once.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::CONTENT_LENGTH;

use super::buffers::{BLOCK, Inbox};
use super::headers::is_trailer;
use super::hop::drop_hop;
use super::lane::{Lane, LaneError, Sink, Source};
use super::lookout::Lookout;
use super::pool::Link;
use super::stream::ClientStream;
use crate::http1::{BadHead, LARGEST_HEAD, ResponseHead, Scanner, Version, write_response};

/// Interim answers before the final one that are believed.
const MOST_INTERIM: usize = 32;

/// How an exchange failed, by whose fault it is.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The client went away.
    #[error("the client went away")]
    ClientGone,
    /// The client has stopped reading.
    #[error("the client does not read the answer")]
    ClientStuck(#[source] LaneError),
    /// The client's body is malformed.
    #[error("malformed request body")]
    BadBody(#[source] LaneError),
    /// The connection to the API server ended before a byte of an answer.
    #[error("the API server closed the connection without an answer")]
    NoAnswer(#[source] Option<io::Error>),
    /// What the API server sent is no answer.
    #[error("the API server's answer is not HTTP/1.1")]
    BadAnswer(#[source] Option<BadHead>),
    /// The answer broke off.
    #[error("the API server's answer broke off")]
    Truncated(#[source] LaneError),
}

/// One request and its answer.
#[derive(Debug)]
pub(super) struct Exchange<'a> {
    client: &'a mut ClientStream,
    client_in: &'a mut Inbox,
    link: &'a mut Link,
    /// The request.
    up: Lane,
    /// The answer.
    down: Lane,
    /// The API server takes no more of the request; an answer may still come.
    is_refused: bool,
    /// For as long as the client is not read from.
    lookout: Lookout,
    scanner: Scanner,
    interim: usize,
    /// An interim answer is with the client, or on its way there.
    has_passed: bool,
    /// The answer's own head is with the client, or on its way there.
    has_head: bool,
    client_version: Version,
}

impl<'a> Exchange<'a> {
    /// The request that `up` sends, for a client that speaks this version and reads something within `patience`.
    pub(super) fn new(
        client: &'a mut ClientStream,
        client_in: &'a mut Inbox,
        link: &'a mut Link,
        up: Lane,
        client_version: Version,
        patience: Duration,
    ) -> Self {
        let down = Lane::new(Vec::new(), Source::Done, Sink::Plain, is_trailer).give_up_after(patience);
        let scanner = Scanner::default();
        Self {
            client,
            client_in,
            link,
            up,
            down,
            is_refused: false,
            lookout: Lookout::default(),
            scanner,
            interim: 0,
            has_passed: false,
            has_head: false,
            client_version,
        }
    }

    /// The head of the final answer, or of a 101. Interim answers are passed on.
    pub(super) async fn head(&mut self) -> Result<ResponseHead, Failure> {
        poll_fn(|cx| self.poll_head(cx)).await
    }

    /// Passes `head` on to the client and then the body, until all of it has left. `note` is told how many bytes of the
    /// request's body and of the answer's have been passed on, whenever that may have changed.
    pub(super) async fn answer(
        &mut self,
        head: Vec<u8>,
        source: Source,
        sink: Sink,
        mut note: impl FnMut(u64, u64),
    ) -> Result<(), Failure> {
        self.down.push(head);
        self.has_head = true;
        self.down.begin(source, sink);
        poll_fn(|cx| {
            let polled = self.poll_body(cx);
            note(self.up.moved(), self.down.moved());
            polled
        })
        .await
    }

    /// Whether the whole request has been sent.
    pub(super) fn is_sent(&self) -> bool {
        self.up.is_done()
    }

    /// Whether the client has heard nothing yet, so that everything may begin anew without its notice. What an interim
    /// answer says it would hear twice.
    pub(super) fn is_unheard(&self) -> bool {
        !self.has_passed && !self.has_head
    }

    /// Whether an answer of ours would be read as one: not within what has begun to leave. Whole interim answers may
    /// stand before it.
    pub(super) fn takes_answer(&self) -> bool {
        !self.down.has_begun() || (!self.has_head && self.down.is_idle())
    }

    /// The body, if it was copied and has been read completely.
    pub(super) fn take_copy(&mut self) -> Option<Vec<u8>> {
        self.up.take_copy()
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, Failure>> {
        self.poll_request(cx)?;
        loop {
            // What the API server says next is read once the client has what it said before: interim answers are no way
            // to fill our memory.
            match ready!(self.poll_down(cx)) {
                Ok(()) => {}
                Err(error @ LaneError::Stuck(_)) => return Poll::Ready(Err(Failure::ClientStuck(error))),
                Err(_) => return Poll::Ready(Err(self.client_gone())),
            }
            match self.scanner.end(self.link.inbox.bytes()) {
                Err(error) => return Poll::Ready(Err(Failure::BadAnswer(Some(error)))),
                Ok(Some(length)) => {
                    self.scanner = Scanner::default();
                    let bytes = Bytes::copy_from_slice(&self.link.inbox.bytes()[..length]);
                    self.link.inbox.consume(length);
                    let head = ResponseHead::parse(&bytes).map_err(|error| Failure::BadAnswer(Some(error)))?;
                    if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
                        return Poll::Ready(Ok(head));
                    }
                    self.pass_interim(head)?;
                }
                Ok(None) => match ready!(self.link.inbox.poll_fill(&mut self.link.stream, LARGEST_HEAD, cx)) {
                    Ok(0) if self.link.inbox.is_empty() => return Poll::Ready(Err(Failure::NoAnswer(None))),
                    Ok(0) => return Poll::Ready(Err(Failure::BadAnswer(None))),
                    Ok(_) => {}
                    Err(error) if self.link.inbox.is_empty() => {
                        return Poll::Ready(Err(Failure::NoAnswer(Some(error))));
                    }
                    Err(_) => return Poll::Ready(Err(Failure::BadAnswer(None))),
                },
            }
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.poll_request(cx)?;
        match ready!(self.poll_down(cx)) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(LaneError::Write(_)) => Poll::Ready(Err(self.client_gone())),
            Err(error @ LaneError::Stuck(_)) => Poll::Ready(Err(Failure::ClientStuck(error))),
            Err(error) => Poll::Ready(Err(Failure::Truncated(error))),
        }
    }

    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LaneError>> {
        let Link { stream, inbox, .. } = &mut *self.link;
        self.down.poll(inbox, stream, self.client, cx)
    }

    /// Sends what there is to send; once that is all, or no more is taken, watches whether the client is still there.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        if !self.is_refused && !self.up.is_done() {
            match self.up.poll(self.client_in, self.client, &mut self.link.stream, cx) {
                Poll::Ready(Ok(())) | Poll::Pending => {}
                // It may have answered already, and closed then.
                Poll::Ready(Err(LaneError::Write(_) | LaneError::Stuck(_))) => self.is_refused = true,
                Poll::Ready(Err(LaneError::Chunks(error))) => return Err(Failure::BadBody(error.into())),
                Poll::Ready(Err(LaneError::Read(_) | LaneError::Truncated)) => return Err(self.client_gone()),
            }
        }
        let mut is_heard = !self.is_refused && !self.up.is_blocked();
        if self.up.is_done() {
            // More than a buffer of requests nobody sends ahead.
            while self.client_in.len() < BLOCK {
                match self.client_in.poll_fill(self.client, BLOCK, cx) {
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(Ok(0) | Err(_)) => return Err(self.client_gone()),
                    Poll::Pending => break,
                }
            }
            is_heard = self.client_in.len() < BLOCK;
        }
        if !is_heard && self.lookout.poll(|| self.client.has_ended(), cx).is_ready() {
            return Err(self.client_gone());
        }
        Ok(())
    }

    /// The API server shall know at once, even when it takes nothing.
    fn client_gone(&self) -> Failure {
        if self.up.is_blocked() {
            self.link.stream.forget();
        }
        Failure::ClientGone
    }

    fn pass_interim(&mut self, mut head: ResponseHead) -> Result<(), Failure> {
        self.interim += 1;
        if self.interim > MOST_INTERIM {
            return Err(Failure::BadAnswer(None));
        }
        drop_hop(&mut head.headers);
        head.headers.remove(CONTENT_LENGTH);
        // HTTP/1.0 has none.
        if self.client_version == Version::Http11 {
            let mut bytes = Vec::with_capacity(256);
            write_response(&mut bytes, head.status, &head.reason, &head.headers);
            self.down.push(bytes);
            self.has_passed = true;
        }
        Ok(())
    }
}
