//! A connection to a node of the tailnet, made by tailscaled: `POST dial` (localapi.md 7.18).
//!
//! In userspace mode it is the only way there for a program beside tailscaled; with a TUN device the kernel knows the way.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use reqwest::{Method, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::error::{ErrorKind, Right, from_answer};
use super::{Error, LocalApi};

/// What tailscaled calls the protocol.
const PROTOCOL: &str = "ts-dial";

/// A byte stream in both directions. tailscaled ends both when one ends.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl LocalApi {
    /// Connects to `to`, which tailscaled reaches over the tailnet. What it says is none of the tailnet's is connected
    /// to directly.
    ///
    /// # Errors
    /// [`ErrorKind::Status`] with 502 when nobody is there; the daemon's text says why.
    pub async fn dial(&self, to: SocketAddr, limit: Duration) -> Result<Box<dyn Stream>, Error> {
        let dialing = async {
            let headers = HeaderMap::from_iter([
                (CONNECTION, HeaderValue::from_static("upgrade")),
                (UPGRADE, HeaderValue::from_static(PROTOCOL)),
                (HeaderName::from_static("dial-network"), HeaderValue::from_static("tcp")),
                (HeaderName::from_static("dial-host"), text(&to.ip())),
                (HeaderName::from_static("dial-port"), text(&to.port())),
            ]);
            let answer = self.transport.pass("dial", Method::POST, "dial", headers).await?;
            let direct = || answer.headers().get("Dial-Addr")?.to_str().ok()?.parse::<SocketAddr>().ok();
            if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                let stream = answer.upgrade().await;
                let source = |error: reqwest::Error| ErrorKind::Disconnected { source: Some(error.into()) };
                return Ok(Box::new(stream.map_err(|error| self.transport.error("dial", source(error)))?) as Box<_>);
            }
            if let (StatusCode::OK, Some(address)) = (answer.status(), direct()) {
                let stream = TcpStream::connect(address).await;
                let source = |error: std::io::Error| ErrorKind::Disconnected { source: Some(error.into()) };
                return Ok(Box::new(stream.map_err(|error| self.transport.error("dial", source(error)))?) as Box<_>);
            }
            let code = answer.status().as_u16();
            let body = super::client::read_start(answer).await;
            Err(self.transport.error("dial", from_answer(code, None, &body, Right::Read)))
        };
        let timeout = || self.transport.error("dial", ErrorKind::Timeout(limit));
        tokio::time::timeout(limit, dialing).await.unwrap_or_else(|_| Err(timeout()))
    }
}

/// Numbers and addresses have no character that a header may not have.
fn text(value: &impl ToString) -> HeaderValue {
    HeaderValue::from_str(&value.to_string()).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, UnixListener};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    /// A daemon that answers one request so and keeps what it was asked.
    fn answering(socket: &Path, answer: String) -> tokio::task::JoinHandle<String> {
        let listener = UnixListener::bind(socket).unwrap();
        let serve = async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 4096];
            let length = stream.read(&mut asked).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&asked[..length]).to_lowercase()
        };
        #[expect(clippy::disallowed_methods, reason = "a server beside a test")]
        tokio::spawn(serve)
    }

    #[tokio::test]
    async fn the_stream_begins_behind_the_head() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: ts-dial\r\n\r\nhello";
        let server = answering(&socket, head.to_owned());
        let mut stream = LocalApi::new(&socket).dial("[fd7a::1]:443".parse().unwrap(), LIMIT).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");
        let asked = server.await.unwrap();
        for part in ["post /localapi/v0/dial ", "dial-host: fd7a::1\r\n", "dial-port: 443\r\n", "upgrade: ts-dial\r\n"]
        {
            assert!(asked.contains(part), "{part}: {asked}");
        }
    }

    #[tokio::test]
    async fn what_is_not_of_the_tailnet_is_connected_to_directly() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = target.local_addr().unwrap();
        let head = format!("HTTP/1.1 200 OK\r\nDial-Self: true\r\nDial-Addr: {address}\r\nContent-Length: 0\r\n\r\n");
        let _server = answering(&socket, head);
        let api = LocalApi::new(&socket);
        let (stream, accepted) = tokio::join!(api.dial(address, LIMIT), target.accept());
        drop((stream.unwrap(), accepted.unwrap()));
    }

    #[tokio::test]
    async fn a_refusal_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let head = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 21\r\n\r\ndial failure: refused";
        let _server = answering(&socket, head.to_owned());
        let refused = LocalApi::new(&socket).dial("100.64.0.1:443".parse().unwrap(), LIMIT).await;
        let error = refused.err().expect("refused").to_string();
        assert!(error.contains("dial failure: refused"), "{error}");
    }
}
