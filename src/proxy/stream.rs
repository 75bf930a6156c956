//! The client's end of a connection: TCP, or TLS over it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// A connection from a client.
#[derive(Debug)]
pub(super) enum ClientStream {
    /// Nothing around it.
    Plain(TcpStream),
    /// TLS that ends here.
    Tls(Box<TlsStream<TcpStream>>),
}

impl ClientStream {
    /// Has the kernel drop what was not read, instead of keeping it for somebody who may never read it. Closing then
    /// resets the connection.
    pub(super) fn forget(&self) {
        // Failing leaves it open a little longer.
        let _ = self.tcp().set_zero_linger();
    }

    /// Whether the client has said its last, or the connection broke, as far as the runtime has been told. There may be
    /// bytes before the end that nobody has read.
    pub(super) fn has_ended(&self) -> bool {
        // The end of reading counts as this too; of urgent bytes, which it is for, sockets are not told.
        self.is_told(Interest::PRIORITY)
    }

    /// Whether the connection broke, as far as the runtime has been told.
    pub(super) fn is_broken(&self) -> bool {
        self.is_told(Interest::ERROR)
    }

    fn is_told(&self, what: Interest) -> bool {
        self.tcp().try_io(what, || Ok(())).is_ok()
    }

    /// The TCP connection below.
    pub(super) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }
}

/// Passes a call on to whichever stream it is.
macro_rules! each {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Self::Plain($stream) => $call,
            Self::Tls($stream) => $call,
        }
    };
}

impl AsyncRead for ClientStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
