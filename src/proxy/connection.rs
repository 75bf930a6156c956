//! One client's connection: how it begins, and one request after the other until it ends.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::access_log::Entry;
use super::buffers::{BLOCK, Inbox};
use super::identity::{Caller, Unknown};
use super::lookout::Lookout;
use super::pool::Link;
use super::proxy_protocol;
use super::refusal::{Reason, Refusal};
use super::reply::{self, After};
use super::serve::Shared;
use super::status::Form;
use super::stream::ClientStream;
use super::tls::Certificates;
use super::{Client, request, upgrade};
use crate::http1::{BadHead, LARGEST_HEAD, RequestHead, Scanner};
use crate::keepalive::keep_alive;

/// How long a client that still sends is listened to, so that it reads the answer before the connection breaks.
const LINGER: Duration = Duration::from_secs(1);
/// How much of it.
const LINGER_BYTES: usize = 1 << 20;

/// The part of a PROXY header that tells how long the rest is.
const FIXED_LEN: usize = 16;

/// Why a request has no head.
#[derive(Debug, thiserror::Error)]
enum NoHead {
    #[error(transparent)]
    Bad(#[from] BadHead),
    /// It is large, and there is no memory for it.
    #[error("the memory for large heads is taken, by those of other requests")]
    Crowded,
}

/// A client's connection.
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) client: ClientStream,
    pub(super) inbox: Inbox,
    pub(super) caller: Caller,
    /// What a large head takes of the memory that there is for all of them, by the block, until it is forgotten. Parsed, it
    /// takes as much as before.
    pub(super) head_blocks: Vec<OwnedSemaphorePermit>,
    stopping: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// What becomes of the connection after a request.
pub(super) enum Next {
    /// It carries the next one.
    KeepAlive,
    /// It is closed once the client has read everything.
    Close,
    /// It is closed at once, so that the client sees that something is missing.
    Abort,
    /// It is no longer HTTP. The request's line in the log is still to be written.
    Tunnel(Box<(Link, Entry)>),
}

/// Serves one accepted connection to its end.
pub(super) async fn serve(shared: Arc<Shared>, tcp: TcpStream, addr: SocketAddr, stop: CancellationToken) {
    // Who has not asked for anything yet is let go at once.
    let Some(Some((client, caller))) = stop.run_until_cancelled(begin(&shared, tcp, addr)).await else { return };
    let stopping = Box::pin(stop.cancelled_owned());
    let (inbox, head_blocks) = (Inbox::default(), Vec::new());
    let mut connection = Connection { shared, client, inbox, caller, head_blocks, stopping };
    connection.run().await;
}

/// Everything before the first request: who is there, and TLS.
async fn begin(shared: &Shared, mut tcp: TcpStream, addr: SocketAddr) -> Option<(ClientStream, Caller)> {
    // Failing leaves it a little slower, or open a little longer.
    let _ = tcp.set_nodelay(true);
    let _ = keep_alive(&tcp);
    let addr = match shared.options.listen.client {
        Client::Peer => addr,
        Client::ProxyHeader => {
            let Ok(told) = timeout(shared.options.limits.proxy_header, proxy_header(&mut tcp)).await else {
                tracing::debug!("a connection without a PROXY header in time was closed");
                return None;
            };
            told?
        }
    };
    let mut caller = Caller::new(SocketAddr::new(addr.ip().to_canonical(), addr.port()));
    let ours = tcp.local_addr().ok()?;
    match caller.meet(&shared.identities, ours).await {
        Err(error @ (Unknown::Nobody(_) | Unknown::Stranger(_))) if shared.options.listen.client == Client::Peer => {
            shared.metrics.refused(Reason::Identity);
            tracing::info!("refused a connection: {error}");
            return None;
        }
        Err(error @ Unknown::TooMany { is_crowd: true, .. }) => {
            shared.metrics.refused(Reason::TooMany);
            tracing::info!(client = %caller.addr(), "refused a connection: {error}");
            return None;
        }
        // Requests ask again, and are answered.
        Ok(()) | Err(_) => {}
    }
    let client = match &shared.certificates {
        Certificates::Off => ClientStream::Plain(tcp),
        certificates => match timeout(shared.options.limits.handshake, certificates.accept(tcp)).await {
            Ok(Ok(tls)) => ClientStream::Tls(Box::new(tls)),
            Ok(Err(error)) => {
                tracing::debug!(client = %caller.addr(), "TLS handshake failed: {error}");
                return None;
            }
            Err(_) => {
                tracing::debug!(client = %caller.addr(), "TLS handshake took too long");
                return None;
            }
        },
    };
    Some((client, caller))
}

/// The client's address, of the header that must come first. Takes no byte beyond it: a handshake may follow.
async fn proxy_header(tcp: &mut TcpStream) -> Option<SocketAddr> {
    let mut bytes = Vec::with_capacity(64);
    // Fixed part first; it tells how long the rest is.
    let mut wanted = FIXED_LEN;
    loop {
        match proxy_protocol::parse(&bytes) {
            Ok(Some((header, _))) => return Some(header.source),
            Ok(None) if bytes.len() == FIXED_LEN => {
                wanted = FIXED_LEN + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
            }
            Ok(None) => {}
            Err(error) => {
                tracing::info!("refused a connection: {error}");
                return None;
            }
        }
        let mut rest = (&mut *tcp).take((wanted - bytes.len()) as u64);
        if rest.read_buf(&mut bytes).await.unwrap_or_default() == 0 {
            return None;
        }
    }
}

impl Connection {
    async fn run(&mut self) {
        let limits = self.shared.options.limits;
        let mut limit = (limits.first_head, limits.first_head);
        loop {
            let head = match self.head(limit.0, limit.1).await {
                Ok(Some(head)) => head,
                Ok(None) => return self.close().await,
                Err(error) => return self.refuse_head(error).await,
            };
            match request::serve(self, head).await {
                Next::KeepAlive => {}
                Next::Close => return self.close().await,
                Next::Abort => return,
                Next::Tunnel(switched) => return upgrade::tunnel(self, switched.0, switched.1).await,
            }
            limit = (limits.idle, limits.next_head);
        }
    }

    /// The next request's head; `None` when there will be none. It has to begin within `idle`, and to be complete within
    /// `whole` from its first byte, or from now where both are the same.
    async fn head(&mut self, idle: Duration, whole: Duration) -> Result<Option<RequestHead>, NoHead> {
        let mut scanner = Scanner::default();
        self.head_blocks.clear();
        let mut begun = !self.inbox.is_empty();
        let mut deadline = Instant::now() + if begun { whole } else { idle };
        loop {
            if let Some(length) = scanner.end(self.inbox.bytes())? {
                let bytes = Bytes::copy_from_slice(&self.inbox.bytes()[..length]);
                self.inbox.consume(length);
                return Ok(Some(RequestHead::parse(&bytes)?));
            }
            // What is read next needs another one.
            if self.inbox.len() / BLOCK > self.head_blocks.len() {
                let block = Arc::clone(&self.shared.head_blocks).try_acquire_owned();
                self.head_blocks.push(block.map_err(|_| NoHead::Crowded)?);
            }
            match timeout_at(deadline, self.fill(begun)).await {
                Ok(true) if !begun => {
                    begun = true;
                    deadline = if idle == whole { deadline } else { Instant::now() + whole };
                }
                Ok(true) => {}
                Err(_) if begun => {
                    self.shared.metrics.refused(Reason::Request);
                    tracing::info!(client = %self.caller.addr(), "refused a request: its head was not complete in time");
                    return Ok(None);
                }
                Ok(false) | Err(_) => return Ok(None),
            }
        }
    }

    /// Reads once. False when the client is gone, or when the proxy stops while no request has begun.
    async fn fill(&mut self, begun: bool) -> bool {
        let Self { inbox, client, stopping, .. } = self;
        poll_fn(|cx| {
            match inbox.poll_fill(client, LARGEST_HEAD, cx) {
                Poll::Ready(Ok(count)) => return Poll::Ready(count > 0),
                Poll::Ready(Err(_)) => return Poll::Ready(false),
                Poll::Pending => {}
            }
            if begun { Poll::Pending } else { stopping.as_mut().poll(cx).map(|()| false) }
        })
        .await
    }

    /// Answers a request that is none.
    async fn refuse_head(&mut self, error: NoHead) {
        self.inbox.consume(self.inbox.len());
        self.head_blocks.clear();
        let (reason, is_answered) = match &error {
            NoHead::Crowded | NoHead::Bad(BadHead::TooLarge | BadHead::TooManyFields) => (Reason::TooLarge, true),
            NoHead::Bad(error) => (Reason::Request, error.is_answered()),
        };
        self.shared.metrics.refused(reason);
        tracing::info!(client = %self.caller.addr(), "refused a request: {error}");
        if !is_answered {
            return;
        }
        let refusal = Refusal::new(reason, error.to_string());
        let bytes = reply::refusal(&refusal, &Method::GET, Form::Status, After::Close);
        if self.write(&bytes).await {
            self.close().await;
        }
    }

    /// Writes an answer of our own. False when the client is gone.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> bool {
        let written = async {
            self.client.write_all(bytes).await?;
            self.client.flush().await
        };
        matches!(timeout(self.shared.options.limits.next_head, written).await, Ok(Ok(())))
    }

    /// Ends the connection so that the client can read everything that was sent.
    async fn close(&mut self) {
        let mut left = LINGER_BYTES;
        let parting = async {
            self.client.shutdown().await?;
            // A reset would overtake the answer if bytes of the client were still unread.
            while left > 0 {
                self.inbox.consume(self.inbox.len());
                let count = poll_fn(|cx| self.inbox.poll_fill(&mut self.client, BLOCK, cx)).await?;
                if count == 0 {
                    break;
                }
                left = left.saturating_sub(count);
            }
            std::io::Result::Ok(())
        };
        // Whoever does not read may lose the end.
        let _ = timeout(LINGER, parting).await;
    }

    /// Waits for `work` while the client stays; `None` when it goes away.
    pub(super) async fn unless_gone<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        let mut lookout = Lookout::default();
        let Self { inbox, client, .. } = self;
        poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            while inbox.len() < BLOCK {
                match inbox.poll_fill(client, BLOCK, cx) {
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(None),
                    Poll::Pending => return Poll::Pending,
                }
            }
            lookout.poll(|| client.has_ended(), cx).map(|()| None)
        })
        .await
    }
}
