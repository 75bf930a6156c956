//! One HTTP exchange on loopback, byte for byte.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::SOON;

/// A TCP port nobody uses: outside the range the kernel hands out by itself.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test processes that run side by side begin at different places.
    let begin = 12_000 + u16::try_from(std::process::id() % 1000).expect("below 1000") * 20;
    loop {
        let port = begin + NEXT.fetch_add(1, Ordering::Relaxed) % 20_000;
        let port = if port >= 32_000 { port - 20_000 } else { port };
        if std::net::TcpListener::bind(("::", port)).is_ok() {
            return port;
        }
    }
}

/// An HTTP answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Status line and headers, in lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let name = name.to_lowercase();
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(header, _)| *header == name)
            .map(|(_, value)| value)
    }
}

/// Sends one request and reads the answer to its end.
pub(crate) async fn http(port: u16, method: &str, path: &str, headers: &str) -> Answer {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
    exchange(SocketAddr::from(([127, 0, 0, 1], port)), request.as_bytes()).await
}

/// Sends these bytes, whose request asks for the connection to be closed, and reads the answer to its end.
pub(crate) async fn exchange(addr: SocketAddr, bytes: &[u8]) -> Answer {
    let exchange = async {
        let mut stream = TcpStream::connect(addr).await?;
        stream.write_all(bytes).await?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await?;
        std::io::Result::Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = timeout(SOON, exchange).await.expect("an answer in time").expect("an exchange");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    let head = head.to_lowercase().replace('\r', "");
    let body = if head.contains("transfer-encoding: chunked") { unchunk(body) } else { body.to_owned() };
    Answer { status, head, body }
}

/// `GET`.
pub(crate) async fn get(port: u16, path: &str) -> Answer {
    http(port, "GET", path, "").await
}

fn unchunk(mut body: &str) -> String {
    let mut text = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or_default();
        if size == 0 || rest.len() < size {
            break;
        }
        text.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
    }
    text
}
