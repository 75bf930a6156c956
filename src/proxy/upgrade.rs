//! A connection that is no longer HTTP: bytes both ways, until both sides have ended.
//!
//! What was read behind the two heads goes first. Either side may end alone; nothing here is ever read as HTTP again,
//! and nothing bounds how long it idles. Once the API server takes nothing more, its last words still go their way.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Sleep, sleep, timeout};

use super::access_log::{Entry, Outcome};
use super::buffers::{BLOCK, Inbox};
use super::connection::Connection;
use super::lane::{Lane, LaneError};
use super::lookout::Lookout;
use super::pool::Link;

/// After the API server broke off: for what it said before to reach the client, which a reset would overtake.
const LAST_WORDS: Duration = Duration::from_secs(2);

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
    /// The other side has ended without waiting for the rest. It is read all the same, to be dropped: bytes that nobody
    /// has read make closing a reset, and a reset overtakes what the sender has not read yet.
    Refused,
    Ended,
}

/// Passes bytes on until both directions have ended, or one failed.
pub(super) async fn tunnel(connection: &mut Connection, mut link: Link, mut entry: Entry) {
    let shared = std::sync::Arc::clone(&connection.shared);
    let _open = shared.metrics.session();
    let stuck = shared.options.limits.stuck;
    let (mut up, mut down) = (Half::of(Lane::tunnel()), Half::of(Lane::tunnel().give_up_after(stuck)));
    let mut parting: Option<Pin<Box<Sleep>>> = None;
    let mut lookout = Lookout::default();
    let mut server_broke = false;
    let ended = poll_fn(|cx| {
        let Link { stream, inbox, .. } = &mut link;
        let Connection { client, inbox: client_in, .. } = &mut *connection;
        let mut upwards = up.poll(client_in, client, stream, cx);
        if matches!(&upwards, Poll::Ready(Err(LaneError::Write(error))) if stream.shows_breaks() || !is_reset(error)) {
            up.state = State::Refused;
            upwards = up.poll(client_in, client, stream, cx);
        }
        let polled = (upwards, down.poll(inbox, stream, client, cx));
        entry.moved(up.lane.moved(), down.lane.moved());
        server_broke =
            matches!(&polled, (Poll::Ready(Err(LaneError::Write(_))), _) | (_, Poll::Ready(Err(LaneError::Read(_)))));
        match polled {
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
            // It has all there is to read, and only its own end is waited for.
            (Poll::Pending, Poll::Ready(Ok(()))) if up.state == State::Refused => {
                parting.get_or_insert_with(|| Box::pin(sleep(stuck))).as_mut().poll(cx).map(Ok)
            }
            _ if up.is_reading() => Poll::Pending,
            // That the client has ended its side is in order, whether or not everything before its end has been read.
            _ => {
                let broken = lookout.poll(|| client.is_broken(), cx);
                broken.map(|()| Err(LaneError::Read(io::ErrorKind::ConnectionReset.into())))
            }
        }
    })
    .await;
    if let Err(error) = &ended {
        entry.failed(error);
        // What was closed here, because its credentials are no longer ours, ends at once.
        if server_broke && !link.stream.is_cancelled() {
            let client_broke = poll_fn(|cx| lookout.poll(|| connection.client.is_broken(), cx));
            let _ = timeout(LAST_WORDS, client_broke).await;
        }
        // What breaks on one side does not end in good order on the other. Over TLS its missing farewell says so too.
        connection.client.forget();
        if up.lane.is_blocked() {
            link.stream.forget();
        }
    }
    entry.end(&shared.metrics, if ended.is_ok() { Outcome::Answered } else { Outcome::Aborted });
}

/// Writing has shown that the connection broke. Reading would then show an end that looks in order.
fn is_reset(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionReset
}

impl Half {
    fn of(lane: Lane) -> Self {
        Self { lane, state: State::Open }
    }

    /// Whether its sender is read from, and so is known to be there.
    fn is_reading(&self) -> bool {
        match self.state {
            State::Open => !self.lane.is_blocked(),
            State::Refused => true,
            State::Ending | State::Ended => false,
        }
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
                State::Refused => {
                    inbox.consume(inbox.len());
                    if ready!(inbox.poll_fill(from, BLOCK, cx)).map_err(LaneError::Read)? == 0 {
                        self.state = State::Ended;
                    }
                }
                State::Ended => return Poll::Ready(Ok(())),
            }
        }
    }
}
