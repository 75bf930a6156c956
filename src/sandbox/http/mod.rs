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

mod body;
mod listener;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

pub use self::body::{Reply, Writer, cut_off, empty, from_stream, full, stream};
pub use self::listener::{Listener, Peer};
use self::listener::{Resettable, Transport};

/// Longest wait for a client to finish its TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Pause after a failed `accept`; the usual cause, no free file descriptor, does not go away at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

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
    let tls = listener.tls_config().map(TlsAcceptor::from);
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
    let io = TokioIo::new(Resettable::new(stream, Arc::clone(&reset)));
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream, UnixStream};
    use tokio::sync::mpsc;

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
