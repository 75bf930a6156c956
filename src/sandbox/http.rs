//! A small HTTP/1.1 server for the sandbox's fakes, over TCP, TLS and Unix sockets.
//!
//! Every request arrives with its body already read (bounded by [`Limits::body`]) and its sender in the
//! extensions as [`Peer`]. A handler answers with a complete or a streamed body, or breaks the connection on
//! purpose with a [`Hangup`]. A [`Server`] owns every connection: [`Server::stop`] lets running answers finish
//! for a grace period, dropping the server cuts them off at once. Upgrades
//! (`hyper::upgrade::on`) work; an upgraded stream then belongs to whoever took it.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use hyper::{Response, StatusCode};
//! use tailpod::sandbox::http::{Limits, Listener, Reply, Server, full};
//!
//! let listener = Listener::unix("/tmp/example.sock")?;
//! let server = Server::start(listener, Limits::default(), |request| async move {
//!     Ok(Response::new(full(format!("you asked for {}\n", request.uri().path()))))
//! });
//! server.stop(std::time::Duration::from_secs(1)).await;
//! # Ok(())
//! # }
//! ```

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

/// Longest wait for a client to finish its TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Pause after a failed `accept`; the usual cause, no free file descriptor, does not go away at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Frames a streamed body holds before its writer has to wait for the reader.
const STREAM_DEPTH: usize = 64;

/// The body of an answer: complete ([`full`], [`empty`]) or streamed ([`stream`]).
pub type Reply = UnsyncBoxBody<Bytes, io::Error>;

/// What a handler returns: an answer, or a connection broken on purpose.
pub type Outcome = Result<Response<Reply>, Hangup>;

/// How to break a connection instead of answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hangup {
    /// Close it in order (FIN): the client sees the end of the stream.
    Close,
    /// Reset it (RST over TCP; a Unix socket has none and is closed).
    Reset,
}

/// Who is at the other end of a connection; in the extensions of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TCP client.
    Tcp(SocketAddr),
    /// A process on this machine, as the kernel reports it.
    Unix {
        /// Effective user id.
        uid: u32,
        /// Process id, if the kernel knows it.
        pid: Option<i32>,
    },
}

/// Bounds on what a client may send.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest request body in bytes; a larger one is answered with 413.
    pub body: usize,
}

impl Default for Limits {
    /// 3 MiB, kube-apiserver's own limit on a request body.
    fn default() -> Self {
        Self { body: 3 << 20 }
    }
}

/// What a request is answered with whose body is too large.
pub type Refusal = fn() -> Response<Reply>;

fn plain_refusal() -> Response<Reply> {
    let mut answer = Response::new(full("request body too large\n"));
    *answer.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
    answer
}

// === Bodies ===

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

// === Listener ===

/// Where a [`Server`] accepts connections.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    tls: Option<Arc<rustls::ServerConfig>>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        #[expect(dead_code, reason = "held for its drop, which removes the file")]
        file: UnixFile,
    },
}

impl Listener {
    /// Plain HTTP on a bound TCP listener.
    pub fn tcp(listener: TcpListener) -> Self {
        Self { socket: Socket::Tcp(listener), tls: None }
    }

    /// HTTPS on a bound TCP listener.
    pub fn tls(listener: TcpListener, config: Arc<rustls::ServerConfig>) -> Self {
        Self { socket: Socket::Tcp(listener), tls: Some(config) }
    }

    /// Plain HTTP on a new Unix socket at `path`; a stale file there is replaced. The file is removed with the
    /// server, unless somebody has put another one in its place.
    pub fn unix(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        Ok(Self { socket: Socket::Unix { listener, file: UnixFile::of(path)? }, tls: None })
    }

    /// The bound TCP address; `None` for a Unix socket.
    pub fn addr(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix { .. } => None,
        }
    }

    async fn accept(&self) -> io::Result<(Transport, Peer)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, addr) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Transport::Tcp(stream), Peer::Tcp(addr)))
            }
            Socket::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                let credentials = stream.peer_cred()?;
                Ok((Transport::Unix(stream), Peer::Unix { uid: credentials.uid(), pid: credentials.pid() }))
            }
        }
    }
}

/// A socket file that is removed on drop, if it still is the one that was created.
#[derive(Debug)]
struct UnixFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl UnixFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), inode: inode(path)? })
    }
}

impl Drop for UnixFile {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            // A file that cannot be removed is replaced by the next bind.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::symlink_metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

// === Server ===

/// A running server. Dropping it closes the listener and cuts off every connection.
#[derive(Debug)]
pub struct Server {
    addr: Option<SocketAddr>,
    stop: CancellationToken,
    accepting: JoinSet<()>,
}

impl Server {
    /// Serves `listener` with `handler` until stopped. Must be called inside a tokio runtime.
    pub fn start<H, F>(listener: Listener, limits: Limits, handler: H) -> Self
    where
        H: Fn(Request<Bytes>) -> F + Clone + Send + 'static,
        F: Future<Output = Outcome> + Send + 'static,
    {
        Self::start_refusing(listener, limits, plain_refusal, handler)
    }

    /// Like [`Self::start`], with an answer of its own to bodies over the limit.
    pub fn start_refusing<H, F>(listener: Listener, limits: Limits, refusal: Refusal, handler: H) -> Self
    where
        H: Fn(Request<Bytes>) -> F + Clone + Send + 'static,
        F: Future<Output = Outcome> + Send + 'static,
    {
        let addr = listener.addr();
        let stop = CancellationToken::new();
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, (limits, refusal), handler, stop.clone()));
        Self { addr, stop, accepting }
    }

    /// The bound TCP address; `None` for a Unix socket.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.addr
    }

    /// Stops accepting, lets running answers finish for `grace`, then cuts off the rest.
    pub async fn stop(mut self, grace: Duration) {
        self.stop.cancel();
        if timeout(grace, self.accepting.join_next()).await.is_err() {
            self.accepting.shutdown().await;
        }
    }
}

async fn accept<H, F>(listener: Listener, limits: (Limits, Refusal), handler: H, stop: CancellationToken)
where
    H: Fn(Request<Bytes>) -> F + Clone + Send + 'static,
    F: Future<Output = Outcome> + Send + 'static,
{
    let tls = listener.tls.clone().map(TlsAcceptor::from);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(connection(stream, peer, tls.clone(), limits, handler.clone(), stop.clone()));
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection<H, F>(
    stream: Transport,
    peer: Peer,
    tls: Option<TlsAcceptor>,
    limits: (Limits, Refusal),
    handler: H,
    stop: CancellationToken,
) where
    H: Fn(Request<Bytes>) -> F + Clone + Send + 'static,
    F: Future<Output = Outcome> + Send + 'static,
{
    let stream = match (tls, stream) {
        (Some(tls), Transport::Tcp(stream)) => match timeout(HANDSHAKE, tls.accept(stream)).await {
            Ok(Ok(stream)) => Transport::Tls(Box::new(stream)),
            Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
            Err(_) => return tracing::debug!("TLS handshake took too long"),
        },
        (_, stream) => stream,
    };
    let reset = Arc::new(AtomicBool::new(false));
    let io = TokioIo::new(Resettable { stream, reset: Arc::clone(&reset) });
    let service = service_fn(move |request: Request<Incoming>| {
        let (handler, reset) = (handler.clone(), Arc::clone(&reset));
        async move {
            let outcome = match collect(request, limits, peer).await {
                Ok(request) => handler(request).await,
                Err(refusal) => refusal,
            };
            outcome.map_err(|hangup| {
                reset.store(hangup == Hangup::Reset, Ordering::Relaxed);
                // hyper drops a connection whose service fails without writing anything.
                io::Error::from(io::ErrorKind::ConnectionReset)
            })
        }
    });
    let mut serving = pin!(hyper::server::conn::http1::Builder::new().serve_connection(io, service).with_upgrades());
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended early");
    }
}

/// Reads the body; `Err` is what to answer when it cannot be read.
async fn collect(
    request: Request<Incoming>,
    (limits, refusal): (Limits, Refusal),
    peer: Peer,
) -> Result<Request<Bytes>, Outcome> {
    let (mut head, body) = request.into_parts();
    match Limited::new(body, limits.body).collect().await {
        Ok(body) => {
            head.extensions.insert(peer);
            Ok(Request::from_parts(head, body.to_bytes()))
        }
        Err(error) if error.is::<LengthLimitError>() => Err(Ok(refusal())),
        Err(_) => Err(Err(Hangup::Close)),
    }
}

// === Transport ===

#[derive(Debug)]
enum Transport {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

/// A stream that can be told to end in a reset: the last word of [`Hangup::Reset`].
#[derive(Debug)]
struct Resettable {
    stream: Transport,
    reset: Arc<AtomicBool>,
}

impl Drop for Resettable {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed) {
            // Without linger the kernel answers the close with RST. Failing leaves an ordinary close.
            let _ = match &self.stream {
                Transport::Tcp(stream) => stream.set_zero_linger(),
                Transport::Tls(stream) => stream.get_ref().0.set_zero_linger(),
                Transport::Unix(_) => Ok(()),
            };
        }
    }
}

impl AsyncRead for Resettable {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Transport::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Resettable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Transport::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Transport::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Transport::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Transport::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn tcp_server<H, F>(limits: Limits, handler: H) -> (Server, TcpStream)
    where
        H: Fn(Request<Bytes>) -> F + Clone + Send + 'static,
        F: Future<Output = Outcome> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server::start(Listener::tcp(listener), limits, handler);
        let client = TcpStream::connect(server.addr().unwrap()).await.unwrap();
        (server, client)
    }

    async fn everything(client: &mut (impl AsyncRead + Unpin)) -> String {
        let mut text = Vec::new();
        client.read_to_end(&mut text).await.unwrap();
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn several_requests_share_a_connection() {
        let (_server, mut client) = tcp_server(Limits::default(), |request| async move {
            assert!(matches!(request.extensions().get::<Peer>(), Some(Peer::Tcp(_))));
            Ok(Response::new(full(request.into_body())))
        })
        .await;
        client.write_all(b"POST /a HTTP/1.1\r\ncontent-length: 2\r\n\r\nabPOST /b HTTP/1.1\r\n").await.unwrap();
        client.write_all(b"content-length: 2\r\nconnection: close\r\n\r\ncd").await.unwrap();
        let text = everything(&mut client).await;
        assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 2, "{text}");
        assert!(text.contains("ab") && text.ends_with("cd"), "{text}");
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused() {
        let (_server, mut client) =
            tcp_server(Limits { body: 3 }, |_| async { Ok(Response::new(full("handled"))) }).await;
        client.write_all(b"POST / HTTP/1.1\r\ncontent-length: 4\r\nconnection: close\r\n\r\nabcd").await.unwrap();
        let text = everything(&mut client).await;
        assert!(text.starts_with("HTTP/1.1 413 ") && !text.contains("handled"), "{text}");
    }

    #[tokio::test]
    async fn hangups_end_the_connection_without_an_answer() {
        for (hangup, expected) in [(Hangup::Close, None), (Hangup::Reset, Some(io::ErrorKind::ConnectionReset))] {
            let (_server, mut client) = tcp_server(Limits::default(), move |_| async move { Err(hangup) }).await;
            client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            let mut text = Vec::new();
            let ended = client.read_to_end(&mut text).await;
            assert_eq!(ended.err().map(|error| error.kind()), expected, "{hangup:?}");
            assert_eq!(text, b"", "{hangup:?}");
        }
    }

    #[tokio::test]
    async fn a_cut_off_body_has_no_terminator() {
        let (_server, mut client) =
            tcp_server(Limits::default(), |_| async { Ok(Response::new(cut_off("half"))) }).await;
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let text = everything(&mut client).await;
        assert!(text.contains("transfer-encoding: chunked") && text.contains("4\r\nhalf\r\n"), "{text}");
        assert!(!text.contains("\r\n0\r\n"), "{text}");
    }

    #[tokio::test]
    async fn a_stream_is_flushed_chunk_by_chunk_and_notices_the_client_leaving() {
        let (writers, mut streams) = mpsc::channel(1);
        let (_server, mut client) = tcp_server(Limits::default(), move |_| {
            let writers = writers.clone();
            async move {
                let (writer, body) = stream();
                writers.send(writer).await.unwrap();
                Ok(Response::new(body))
            }
        })
        .await;
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let writer = streams.recv().await.unwrap();
        let mut seen = String::new();
        for chunk in ["one", "two"] {
            assert!(writer.send(chunk).await);
            while !seen.ends_with(&format!("{chunk}\r\n")) {
                let mut buf = [0; 256];
                let n = client.read(&mut buf).await.unwrap();
                seen.push_str(std::str::from_utf8(&buf[..n]).unwrap());
            }
        }
        drop(client);
        timeout(Duration::from_secs(10), writer.closed()).await.unwrap();
    }

    #[tokio::test]
    async fn stopping_lets_a_running_answer_finish_and_refuses_new_clients() {
        let (started, mut starts) = mpsc::channel::<()>(1);
        let go_on = CancellationToken::new();
        let gate = go_on.clone();
        let (server, mut client) = tcp_server(Limits::default(), move |_| {
            let (started, gate) = (started.clone(), gate.clone());
            async move {
                started.send(()).await.unwrap();
                gate.cancelled().await;
                Ok(Response::new(full("finished")))
            }
        })
        .await;
        let addr = server.addr().unwrap();
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        starts.recv().await.unwrap();
        let (text, ()) = tokio::join!(everything(&mut client), async {
            go_on.cancel();
            server.stop(Duration::from_secs(10)).await;
        });
        assert!(text.ends_with("finished"), "{text}");
        assert!(TcpStream::connect(addr).await.is_err());
    }

    #[tokio::test]
    async fn stopping_cuts_off_what_outlasts_the_grace_period() {
        let (server, mut client) = tcp_server(Limits::default(), |_| std::future::pending::<Outcome>()).await;
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        server.stop(Duration::from_millis(1)).await;
        assert_eq!(client.read(&mut [0; 16]).await.unwrap_or(0), 0);
    }

    #[tokio::test]
    async fn a_unix_socket_tells_its_peer_and_replaces_and_removes_only_its_own_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        std::fs::write(&path, "stale").unwrap();
        let server = Server::start(Listener::unix(&path).unwrap(), Limits::default(), |request| async move {
            Ok(Response::new(full(format!("{:?}", request.extensions().get::<Peer>().unwrap()))))
        });
        let mut client = UnixStream::connect(&path).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n").await.unwrap();
        let text = everything(&mut client).await;
        assert!(text.contains(&format!("pid: Some({})", std::process::id())), "{text}");
        server.stop(Duration::from_secs(10)).await;
        assert!(!path.exists());

        let server = Server::start(Listener::unix(&path).unwrap(), Limits::default(), |_| async { Err(Hangup::Close) });
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "somebody else's").unwrap();
        server.stop(Duration::from_secs(10)).await;
        assert!(path.exists());
    }
}
