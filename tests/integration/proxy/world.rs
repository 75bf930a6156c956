//! A proxy between a pretend tailnet and a pretend API server, and clients of it.

use std::net::SocketAddr;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tailpod::sandbox::{Daemon, Sandbox, SandboxOptions};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

use super::upstream::Upstream;
use crate::support::{Boot, Ended, SOON, running};

/// The capability that grants Kubernetes rights.
pub(crate) const CAPABILITY: &str = "tailscale.com/cap/kubernetes";

/// The token with which the proxy comes.
pub(crate) const TOKEN: &str = "proxys-own-token";

/// The address of the usual peer.
pub(crate) const ANN: &str = "100.64.0.9:51000";

/// Everything.
pub(crate) struct World {
    pub(crate) sandbox: Sandbox,
    pub(crate) upstream: Upstream,
    pub(crate) proxy: Boot,
    pub(crate) addr: SocketAddr,
}

impl World {
    /// A proxy behind `serve`, with these flags more. `ann@example.com` calls from [`ANN`], without grants.
    pub(crate) async fn start(flags: &[&str]) -> Self {
        Self::start_at("", flags).await
    }

    /// The same, whose API server has a path in its URL.
    pub(crate) async fn start_at(path: &str, flags: &[&str]) -> Self {
        let (sandbox, upstream) = Self::parts().await;
        let kubeconfig = upstream.kubeconfig(path, TOKEN);
        Self::with(sandbox, upstream, &kubeconfig, &[&["--proxy-protocol"], flags].concat()).await
    }

    /// What a proxy needs around it.
    pub(crate) async fn parts() -> (Sandbox, Upstream) {
        let sandbox = Sandbox::start(SandboxOptions::new(env!("CARGO_BIN_EXE_tailpod"))).await.expect("a sandbox");
        sandbox.daemon().notify(running());
        sandbox.daemon().set_whois(ANN, user("ann@example.com", &json!({})));
        (sandbox, Upstream::start().await)
    }

    /// A proxy with these flags, for the cluster of this kubeconfig.
    pub(crate) async fn with(sandbox: Sandbox, upstream: Upstream, kubeconfig: &str, flags: &[&str]) -> Self {
        let path = sandbox.pod().write("etc/upstream", kubeconfig).expect("a file");
        let to_it = ["--kubeconfig", path.to_str().expect("text")];
        let command = Self::command(&sandbox, &[&to_it, &["--listen", "127.0.0.1:0"], flags].concat());
        Self::run(sandbox, upstream, command).await
    }

    /// `tailpod proxy` with these flags, not started yet.
    pub(crate) fn command(sandbox: &Sandbox, flags: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tailpod"));
        command.args(["proxy", "-v", "--socket"]).arg(sandbox.pod().backend()).args(flags);
        command.env_clear().envs(sandbox.env()).kill_on_drop(true);
        command
    }

    /// Starts a proxy and waits until it serves.
    pub(crate) async fn run(sandbox: Sandbox, upstream: Upstream, command: Command) -> Self {
        let proxy = Boot::spawn(command);
        let line = proxy.mentioned("is listening on ").await;
        let (_, addr) = line.split_once("is listening on ").expect("an address");
        // In JSON more follows.
        let addr = addr.split('"').next().and_then(|addr| addr.parse().ok()).expect("an address");
        Self { sandbox, upstream, proxy, addr }
    }

    /// The pretend tailscaled.
    pub(crate) fn daemon(&self) -> &Daemon {
        self.sandbox.daemon()
    }

    /// What the peer at [`ANN`] is granted from now on.
    pub(crate) fn grant(&self, rules: &Value) {
        self.daemon().set_whois(ANN, user("ann@example.com", &json!({ CAPABILITY: rules })));
    }

    /// A connection of the usual peer.
    pub(crate) async fn client(&self) -> Client<TcpStream> {
        self.client_from(ANN).await
    }

    /// A connection of the peer at this address.
    pub(crate) async fn client_from(&self, addr: &str) -> Client<TcpStream> {
        let mut stream = TcpStream::connect(self.addr).await.expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        stream.write_all(&proxy_header(addr)).await.expect("sent");
        Client::new(stream)
    }

    /// The answer to one request on a connection of its own.
    pub(crate) async fn ask(&self, request: &str) -> Answer {
        let mut client = self.client().await;
        client.send(request).await;
        client.answer().await
    }

    /// `GET`
    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.ask(&get(target)).await
    }

    /// Asserts that nothing was forwarded.
    pub(crate) fn nothing_upstream(&self) {
        let seen = self.upstream.seen();
        assert!(seen.is_empty(), "{seen:?}");
    }

    /// Ends the proxy in order.
    pub(crate) async fn stops(mut self) -> Ended {
        self.proxy.lives();
        self.proxy.signal(Signal::SIGTERM);
        self.proxy.ends(0).await
    }
}

/// A `GET` of the usual client.
pub(crate) fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: proxy.ts.net\r\nAccept: application/json\r\n\r\n")
}

/// whois' answer about a person's node.
pub(crate) fn user(login: &str, capabilities: &Value) -> Value {
    json!({
        "Node": {"ID": 9, "StableID": "n9", "Name": "laptop.ts.net.", "User": 7},
        "UserProfile": {"ID": 7, "LoginName": login},
        "CapMap": capabilities,
    })
}

/// whois' answer about a tagged node.
pub(crate) fn tagged(name: &str, tags: &[&str], capabilities: &Value) -> Value {
    json!({
        "Node": {"ID": 8, "StableID": "n8", "Name": name, "Tags": tags},
        "UserProfile": {"ID": 1, "LoginName": "tagged-devices"},
        "CapMap": capabilities,
    })
}

/// A PROXY header, version 2, as tailscaled writes it.
pub(crate) fn proxy_header(source: &str) -> Vec<u8> {
    let source: SocketAddr = source.parse().expect("an address");
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
    match source.ip() {
        std::net::IpAddr::V4(ip) => {
            header.extend_from_slice(&[0x11, 0, 12]);
            header.extend_from_slice(&ip.octets());
            header.extend_from_slice(&[100, 64, 0, 2]);
        }
        std::net::IpAddr::V6(ip) => {
            header.extend_from_slice(&[0x21, 0, 36]);
            header.extend_from_slice(&ip.octets());
            header.extend_from_slice(&std::net::Ipv6Addr::LOCALHOST.octets());
        }
    }
    header.extend_from_slice(&source.port().to_be_bytes());
    header.extend_from_slice(&[0, 80]);
    header
}

/// A client's end of a connection.
pub(crate) struct Client<S> {
    pub(crate) stream: S,
    pub(crate) unread: Vec<u8>,
}

/// An answer: its head as it came, and its body without framing.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// What followed the last chunk.
    pub(crate) trailers: String,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    /// The body is a `Status` with this code and these leading words.
    pub(crate) fn is_status(&self, code: u16, message: &str) {
        let status: Value = serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{self:?}"));
        assert_eq!((self.status, &status["code"], &status["kind"]), (code, &json!(code), &json!("Status")), "{status}");
        let said = status["message"].as_str().unwrap_or_default();
        assert!(said.starts_with(message), "{said}");
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, unread: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("sent");
        self.stream.flush().await.expect("sent");
    }

    /// Reads once; zero is the end.
    async fn fill(&mut self) -> usize {
        let mut bytes = vec![0; 16 << 10];
        let read = timeout(SOON, self.stream.read(&mut bytes)).await;
        let read = read.unwrap_or_else(|_| panic!("nothing more after {:?}", String::from_utf8_lossy(&self.unread)));
        // A reset is an end too.
        let count = read.unwrap_or_default();
        self.unread.extend_from_slice(&bytes[..count]);
        count
    }

    /// Reads until `end` has come, and returns everything up to there.
    pub(crate) async fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|window| window == end) {
                return self.unread.drain(..at + end.len()).collect();
            }
            let ended = self.fill().await == 0;
            assert!(!ended, "the end came before {end:?}, after {:?}", String::from_utf8_lossy(&self.unread));
        }
    }

    /// So many bytes.
    pub(crate) async fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count {
            let ended = self.fill().await == 0;
            assert!(!ended, "the end came after {} of {count} bytes", self.unread.len());
        }
        self.unread.drain(..count).collect()
    }

    /// The head of an answer.
    pub(crate) async fn head(&mut self) -> String {
        String::from_utf8(self.until(b"\r\n\r\n").await).expect("text")
    }

    /// A whole answer, final or not.
    pub(crate) async fn answer(&mut self) -> Answer {
        let head = self.head().await;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let mut answer = Answer { status, head, body: Vec::new(), trailers: String::new() };
        if answer.header("transfer-encoding").is_some() {
            loop {
                let size = String::from_utf8(self.until(b"\r\n").await).expect("text");
                let size = usize::from_str_radix(size.trim_end(), 16).expect("a size");
                if size == 0 {
                    loop {
                        let line = String::from_utf8(self.until(b"\r\n").await).expect("text");
                        if line == "\r\n" {
                            return answer;
                        }
                        answer.trailers.push_str(&line);
                    }
                }
                answer.body.extend(self.exactly(size).await);
                assert_eq!(self.exactly(2).await, b"\r\n");
            }
        }
        let length = answer.header("content-length").and_then(|length| length.parse().ok()).unwrap_or_default();
        answer.body = self.exactly(length).await;
        answer
    }

    /// Everything to the end of the connection.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await > 0 {}
        std::mem::take(&mut self.unread)
    }
}
