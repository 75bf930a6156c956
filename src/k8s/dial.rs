//! A new connection to the API server: name, TCP, a proxy if there is one, TLS.
//!
//! Each phase has its own time limit; that of the first is the caller's. The socket is on its generation's list before
//! the handshake, so a rotation in the middle of it is not missed.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::base::Base;
use super::connections::Connections;
use super::egress::{Kind, ProxyUrl};
use super::exec::CredentialError;
use super::race::first_of;
use super::tracked::{Socket, Tracked, Wire};
use crate::keepalive::keep_alive;

/// A proxy's answer; the TLS handshake (api-proxy.md 7.1).
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// The head of a proxy's answer to `CONNECT`.
const HEAD_LIMIT: usize = 8 << 10;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// There is no client certificate to present, because the credentials cannot be had.
    #[error("getting credentials")]
    Credentials(#[source] CredentialError),
    /// The name of the server, or of the proxy, does not resolve.
    #[error("{0}")]
    Resolve(String),
    /// No TCP connection.
    #[error("{0}")]
    Connect(String),
    /// The proxy does not let us through.
    #[error("the proxy at {proxy} does not connect us: {why}")]
    Proxy {
        /// Without its password.
        proxy: String,
        /// What it said, or what was wrong with that.
        why: String,
    },
    /// No trust, or no agreement, in the TLS handshake.
    #[error("{0}")]
    Tls(String),
    /// A phase took longer than its limit.
    #[error("no answer within {}", crate::goduration::format(*.0))]
    TimedOut(Duration),
}

/// Everything about connecting that does not change with the credentials.
#[derive(Debug)]
pub(super) struct Dialer {
    pub(super) base: Base,
    pub(super) server_name: Option<ServerName<'static>>,
    pub(super) proxy: Option<ProxyUrl>,
    /// Towards a proxy that is reached by TLS: its certificate is a matter of the system's authorities.
    pub(super) proxy_tls: Option<Arc<ClientConfig>>,
}

impl Dialer {
    /// Connects, presenting what `tls` presents (`None` for plain text), as one of `generation`. Name and TCP take no
    /// longer than `limit`.
    pub(super) async fn dial(
        &self,
        limit: Duration,
        tls: Option<Arc<ClientConfig>>,
        connections: &Connections,
        generation: u64,
    ) -> Result<Tracked, DialError> {
        let wire = match &self.proxy {
            None => {
                let stream = tcp(self.base.host(), self.base.port(), limit).await?;
                Wire::Socket(Socket::new(stream, connections, generation))
            }
            Some(proxy) => {
                let stream = tcp(&proxy.host, proxy.port, limit).await?;
                self.through(proxy, Socket::new(stream, connections, generation)).await?
            }
        };
        let (Some(tls), Some(name)) = (tls, &self.server_name) else { return Ok(Tracked::plain(wire)) };
        let handshake = TlsConnector::from(tls).connect(name.clone(), wire);
        let stream = limited(HANDSHAKE_LIMIT, handshake).await?.map_err(|error| tls_error(&error))?;
        Ok(Tracked::tls(stream))
    }

    async fn through(&self, proxy: &ProxyUrl, socket: Socket) -> Result<Wire, DialError> {
        let mut wire = match (proxy.kind, &self.proxy_tls) {
            (Kind::Https, Some(tls)) => {
                let name =
                    ServerName::try_from(proxy.host.clone()).map_err(|error| DialError::Tls(error.to_string()))?;
                let handshake = TlsConnector::from(Arc::clone(tls)).connect(name, socket);
                let stream = limited(HANDSHAKE_LIMIT, handshake).await?.map_err(|error| tls_error(&error))?;
                Wire::Tunnel(Box::new(stream))
            }
            _ => Wire::Socket(socket),
        };
        let opened = match proxy.kind {
            Kind::Http | Kind::Https => limited(HANDSHAKE_LIMIT, http_connect(&mut wire, proxy, &self.base)).await?,
            Kind::Socks5 => limited(HANDSHAKE_LIMIT, socks5(&mut wire, proxy, &self.base)).await?,
        };
        opened.map_err(|error| DialError::Proxy { proxy: proxy.to_string(), why: error.to_string() })?;
        Ok(wire)
    }
}

async fn limited<T>(limit: Duration, phase: impl Future<Output = T>) -> Result<T, DialError> {
    timeout(limit, phase).await.map_err(|_| DialError::TimedOut(limit))
}

async fn tcp(host: &str, port: u16, limit: Duration) -> Result<TcpStream, DialError> {
    let until = Instant::now() + limit;
    let found = timeout_at(until, tokio::net::lookup_host((host, port))).await;
    let found =
        found.map_err(|_| DialError::TimedOut(limit))?.map_err(|error| DialError::Resolve(error.to_string()))?;
    let reached = first_of(found.collect(), until).await;
    let stream = reached.map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => DialError::TimedOut(limit),
        io::ErrorKind::NotFound => DialError::Connect(format!("{host} has no address")),
        _ => DialError::Connect(error.to_string()),
    })?;
    let failed = |error: io::Error| DialError::Connect(error.to_string());
    stream.set_nodelay(true).map_err(failed)?;
    keep_alive(&stream).map_err(|error| failed(error.into()))?;
    Ok(stream)
}

/// The innermost reason: rustls wraps its errors in `io::Error`.
fn tls_error(error: &io::Error) -> DialError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(error) => DialError::Tls(error.to_string()),
        None => DialError::Connect(error.to_string()),
    }
}

/// `CONNECT` (RFC 9110, 9.3.6). Reads not a byte beyond the head: what follows is the server's.
async fn http_connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    proxy: &ProxyUrl,
    to: &Base,
) -> io::Result<()> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let host = if to.host().contains(':') { format!("[{}]", to.host()) } else { to.host().to_owned() };
    let target = format!("{host}:{}", to.port());
    let basic = proxy.basic();
    let basic = basic.as_ref().map_or(&b""[..], |basic| basic.header().as_bytes());
    // Room for all of it at once: growing would leave copies behind.
    let mut request = Zeroizing::new(Vec::with_capacity(2 * target.len() + basic.len() + 64));
    request.extend_from_slice(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").as_bytes());
    if !basic.is_empty() {
        for part in [&b"Proxy-Authorization: "[..], basic, b"\r\n"] {
            request.extend_from_slice(part);
        }
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request).await?;
    stream.flush().await?;
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= HEAD_LIMIT {
            return Err(invalid("its answer has no end".to_owned()));
        }
        // One byte at a time: a few hundred reads, once for each connection.
        head.push(stream.read_u8().await?);
    }
    let line = String::from_utf8_lossy(&head);
    let line = line.lines().next().unwrap_or_default();
    let mut words = line.splitn(3, ' ');
    match (words.next(), words.next()) {
        (Some(version), Some(status)) if version.starts_with("HTTP/1.") => {
            if status.len() == 3 && status.starts_with('2') {
                Ok(())
            } else {
                Err(invalid(line.escape_debug().to_string()))
            }
        }
        _ => Err(invalid("its answer is not HTTP".to_owned())),
    }
}

/// SOCKS5 with the name left to the proxy (RFC 1928, RFC 1929).
async fn socks5<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, proxy: &ProxyUrl, to: &Base) -> io::Result<()> {
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let short = |text: &str| u8::try_from(text.len()).map_err(|_| invalid("a name or password is too long for it"));
    let method = u8::from(proxy.user.is_some()) * 2;
    stream.write_all(&[5, 1, method]).await?;
    let mut chosen = [0; 2];
    stream.read_exact(&mut chosen).await?;
    if chosen != [5, method] {
        return Err(invalid("it wants another kind of authentication"));
    }
    if let Some((name, password)) = &proxy.user {
        let password = password.expose();
        let mut login = Zeroizing::new(Vec::with_capacity(name.len() + password.len() + 3));
        login.extend([1, short(name)?]);
        login.extend_from_slice(name.as_bytes());
        login.push(short(password)?);
        login.extend_from_slice(password.as_bytes());
        stream.write_all(&login).await?;
        let mut answer = [0; 2];
        stream.read_exact(&mut answer).await?;
        if answer[1] != 0 {
            return Err(invalid("it does not accept the name and password"));
        }
    }
    let mut request = vec![5, 1, 0];
    match to.host().parse() {
        Ok(std::net::IpAddr::V4(ip)) => {
            request.push(1);
            request.extend(ip.octets());
        }
        Ok(std::net::IpAddr::V6(ip)) => {
            request.push(4);
            request.extend(ip.octets());
        }
        Err(_) => {
            request.extend([3, short(to.host())?]);
            request.extend_from_slice(to.host().as_bytes());
        }
    }
    request.extend(to.port().to_be_bytes());
    stream.write_all(&request).await?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await?;
    if answer[..2] != [5, 0] {
        return Err(invalid(&format!("code {}", answer[1])));
    }
    let rest = match answer[3] {
        1 => 4,
        4 => 16,
        3 => usize::from(stream.read_u8().await?),
        _ => return Err(invalid("its answer names an address of an unknown kind")),
    };
    // The address it connected from, and the port.
    let mut bound = vec![0; rest + 2];
    stream.read_exact(&mut bound).await?;
    Ok(())
}
