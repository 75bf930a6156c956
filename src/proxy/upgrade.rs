//! A connection that is no longer HTTP: bytes both ways, until both sides have ended.
//!
//! What was read behind the two heads goes first. Either side may end alone; nothing here is ever read as HTTP again,
//! and nothing bounds how long it idles.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite};

use super::access_log::{Entry, Outcome};
use super::buffers::Inbox;
use super::connection::Connection;
use super::lane::{Lane, LaneError};
use super::pool::Link;

/// One direction, whose end is passed on.
struct Half {
    lane: Lane,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// All bytes have left; the other side has to be told.
    Ending,
    Ended,
}

/// Passes bytes on until both directions have ended, or one failed.
pub(super) async fn tunnel(connection: &mut Connection, mut link: Link, mut entry: Entry) {
    let shared = std::sync::Arc::clone(&connection.shared);
    let _open = shared.metrics.session();
    let stuck = shared.options.limits.stuck;
    let (mut up, mut down) = (Half::of(Lane::tunnel()), Half::of(Lane::tunnel().give_up_after(stuck)));
    let ended = poll_fn(|cx| {
        let Link { stream, inbox, .. } = &mut link;
        let Connection { client, inbox: client_in, .. } = &mut *connection;
        let polled = (up.poll(client_in, client, stream, cx), down.poll(inbox, stream, client, cx));
        entry.moved(up.lane.moved(), down.lane.moved());
        match polled {
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    })
    .await;
    if let Err(error) = &ended {
        entry.failed(error);
        // What breaks on one side does not end in good order on the other. Over TLS its missing farewell says so too.
        connection.client.forget();
    }
    entry.end(&shared.metrics, if ended.is_ok() { Outcome::Answered } else { Outcome::Aborted });
}

impl Half {
    fn of(lane: Lane) -> Self {
        Self { lane, state: State::Open }
    }

    fn poll<R, W>(
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
            match self.state {
                State::Open => {
                    ready!(self.lane.poll(inbox, from, to, cx))?;
                    self.state = State::Ending;
                }
                State::Ending => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(LaneError::Write)?;
                    self.state = State::Ended;
                }
                State::Ended => return Poll::Ready(Ok(())),
            }
        }
    }
}
