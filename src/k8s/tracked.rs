//! A connection to the API server that can be closed from outside, whatever it has become by then.

use std::io;
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::connections::{Connections, Registration};

/// A connection to the API server, on the list of its generation until it is dropped; so an upgraded stream, which is
/// this very value, can be closed as well. Once cancelled, reading and writing fail.
#[derive(Debug)]
pub struct Tracked(Secured);

#[derive(Debug)]
enum Secured {
    Plain(Wire),
    Tls(Box<TlsStream<Wire>>),
}

/// What carries the bytes: the socket, or TLS to a proxy that is itself reached by TLS.
#[derive(Debug)]
pub(super) enum Wire {
    Socket(Socket),
    Tunnel(Box<TlsStream<Socket>>),
}

/// A socket on the list.
#[derive(Debug)]
pub(super) struct Socket {
    // Before the socket, so that it is off the list before the descriptor is closed.
    registration: Registration,
    tcp: TcpStream,
}

impl Tracked {
    pub(super) fn plain(wire: Wire) -> Self {
        Self(Secured::Plain(wire))
    }

    pub(super) fn tls(stream: TlsStream<Wire>) -> Self {
        Self(Secured::Tls(Box::new(stream)))
    }

    /// Whether it was closed because the credentials it was opened with are no longer in use.
    pub fn is_cancelled(&self) -> bool {
        self.registration().is_cancelled()
    }

    /// Whether its credentials have been replaced: it must not carry another request.
    pub fn is_retired(&self) -> bool {
        self.registration().is_retired()
    }

    /// Says that no request is under way (true) or that one begins (false). Where rotation leaves busy connections a
    /// grace, idle ones are closed at once. False when it has to be dropped instead of being kept.
    pub fn set_idle(&self, idle: bool) -> bool {
        self.registration().set_idle(idle)
    }

    /// The certificate generation it was dialled for.
    pub fn generation(&self) -> u64 {
        self.registration().generation()
    }

    /// Whether reading tells an end in order from a break, even when writing was the first to notice it: TLS ends with a
    /// farewell.
    pub fn shows_breaks(&self) -> bool {
        matches!(self.0, Secured::Tls(_))
    }

    /// Has the kernel drop what has not left yet, for closing to reset the connection: behind bytes that nobody takes no
    /// end would arrive.
    pub fn forget(&self) {
        // Failing leaves it open a little longer.
        let _ = self.socket().tcp.set_zero_linger();
    }

    fn registration(&self) -> &Registration {
        &self.socket().registration
    }

    fn socket(&self) -> &Socket {
        let wire = match &self.0 {
            Secured::Plain(wire) => wire,
            Secured::Tls(tls) => tls.get_ref().0,
        };
        match wire {
            Wire::Socket(socket) => socket,
            Wire::Tunnel(tls) => tls.get_ref().0,
        }
    }
}

impl Socket {
    pub(super) fn new(tcp: TcpStream, connections: &Connections, generation: u64) -> Self {
        Self { registration: connections.register(tcp.as_raw_fd(), generation), tcp }
    }

    fn check(&self) -> io::Result<()> {
        if self.registration.is_cancelled() {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the connection was closed: the client certificate was replaced",
            ));
        }
        Ok(())
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        let before = buf.filled().len();
        let read = Pin::new(&mut self.tcp).poll_read(cx, buf);
        if matches!(read, Poll::Ready(Ok(()))) && buf.filled().len() == before && buf.capacity() > before {
            // An end of our own making is not the peer's.
            self.check()?;
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }
}

/// Each layer passes everything on to the stream that it holds.
macro_rules! passes_on {
    ($type:ty, $($variant:path),+) => {
        impl AsyncRead for $type {
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $($variant(stream) => Pin::new(stream).poll_read(cx, buf)),+ }
            }
        }

        impl AsyncWrite for $type {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                match self.get_mut() { $($variant(stream) => Pin::new(stream).poll_write(cx, buf)),+ }
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $($variant(stream) => Pin::new(stream).poll_flush(cx)),+ }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $($variant(stream) => Pin::new(stream).poll_shutdown(cx)),+ }
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() { $($variant(stream) => Pin::new(stream).poll_write_vectored(cx, bufs)),+ }
            }

            fn is_write_vectored(&self) -> bool {
                match self { $($variant(stream) => stream.is_write_vectored()),+ }
            }
        }
    };
}

passes_on!(Wire, Self::Socket, Self::Tunnel);
passes_on!(Secured, Self::Plain, Self::Tls);
passes_on!(Tracked, Self);
