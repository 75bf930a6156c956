//! A pretend API server that says exactly the bytes it is told to, and remembers exactly the bytes it got.
//!
//! The sandbox's API server is a real one to its clients and so cannot misbehave on the wire; this one can do nothing
//! else. TLS with a certificate of its own, one script for each request, in order.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tailpod::sandbox::tls::{Identity, Style};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::support::SOON;

/// A step of the answer to one request.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// These bytes, flushed.
    Say(Vec<u8>),
    /// Reads until so many bytes of the body have come.
    Read(usize),
    /// Reads the whole body, as it is framed.
    Body,
    /// Waits until told to go on, once.
    Await,
    /// Echoes whatever comes until the client ends, then ends too.
    Echo,
    /// Reads to the end of the connection.
    Drain,
    /// Waits like that without reading; learns of a reset only.
    Stall,
    /// Sends the end of the stream, and goes on reading.
    HalfClose,
    /// Closes at once.
    Close,
    /// Breaks the connection.
    Reset,
}

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Everything to the empty line.
    pub(crate) head: String,
    /// What was read of the body, framing included, and of whatever followed an upgrade.
    pub(crate) body: Vec<u8>,
    /// The number of its connection.
    pub(crate) connection: usize,
    /// The name that was asked for in the TLS handshake, if any was.
    pub(crate) server_name: Option<String>,
    /// The connection has ended, from the other side.
    pub(crate) is_gone: bool,
}

impl Seen {
    /// The first line.
    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// The values of a header, in order.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }
}

/// The server. Dropping it closes everything.
#[derive(Debug)]
pub(crate) struct Upstream {
    addr: SocketAddr,
    ca_pem: String,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    scripts: Mutex<VecDeque<Vec<Step>>>,
    always: Mutex<Option<Vec<Step>>>,
    seen: watch::Sender<Vec<Seen>>,
    go_on: watch::Sender<usize>,
    connections: Mutex<usize>,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        Self::start_as(Style::Authority).await
    }

    pub(crate) async fn start_as(style: Style) -> Self {
        let identity = Identity::new(style).expect("a certificate");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let shared = Arc::new(Shared {
            scripts: Mutex::default(),
            always: Mutex::default(),
            seen: watch::Sender::default(),
            go_on: watch::Sender::new(0),
            connections: Mutex::default(),
        });
        let (addr, acceptor) = (listener.local_addr().expect("an address"), TlsAcceptor::from(identity.config()));
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, acceptor, Arc::clone(&shared)));
        Self { addr, ca_pem: identity.ca_pem().to_owned(), shared, _serving: serving }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What to trust.
    pub(crate) fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// A kubeconfig whose one user has this token.
    pub(crate) fn kubeconfig(&self, path: &str, token: &str) -> String {
        use base64::Engine as _;
        let ca = base64::engine::general_purpose::STANDARD.encode(&self.ca_pem);
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
             clusters: [{{name: c, cluster: {{server: \"https://{}{path}\", certificate-authority-data: {ca}}}}}]\n\
             users: [{{name: u, user: {{token: {token}}}}}]\n",
            self.addr
        )
    }

    /// How the next request without a script is answered; calls add up.
    pub(crate) fn script(&self, steps: impl IntoIterator<Item = Step>) {
        self.shared.scripts.lock().expect("unpoisoned").push_back(steps.into_iter().collect());
    }

    /// How every request without a script is answered from now on.
    pub(crate) fn always(&self, steps: impl IntoIterator<Item = Step>) {
        *self.shared.always.lock().expect("unpoisoned") = Some(steps.into_iter().collect());
    }

    /// The next request gets this.
    pub(crate) fn say(&self, bytes: impl AsRef<[u8]>) {
        self.script([Step::Say(bytes.as_ref().to_vec())]);
    }

    /// Ends the oldest [`Step::Await`] that nobody has ended.
    pub(crate) fn go_on(&self) {
        self.shared.go_on.send_modify(|count| *count += 1);
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.borrow().clone()
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        *self.shared.connections.lock().expect("unpoisoned")
    }

    /// Waits until the requests satisfy `wanted`.
    pub(crate) async fn wait(&self, what: &str, wanted: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
        let mut seen = self.shared.seen.subscribe();
        match timeout(SOON, seen.wait_for(|seen| wanted(seen))).await {
            Ok(Ok(seen)) => seen.clone(),
            _ => panic!("no {what}; seen: {:?}", self.seen()),
        }
    }

    /// Waits for the `number`th request, from zero.
    pub(crate) async fn request(&self, number: usize) -> Seen {
        self.wait("request", |seen| seen.len() > number).await[number].clone()
    }
}

impl Shared {
    /// Once it is told to go on.
    async fn told(&self) {
        let mut go_on = self.go_on.subscribe();
        if go_on.wait_for(|count| *count > 0).await.is_ok() {
            self.go_on.send_modify(|count| *count -= 1);
        }
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let Ok((tcp, _)) = accepted else { continue };
                let number = {
                    let mut connections = shared.connections.lock().expect("unpoisoned");
                    *connections += 1;
                    *connections
                };
                let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
                connections.spawn(async move {
                    if let Ok(stream) = acceptor.accept(tcp).await {
                        let mut server = Server { stream, shared, number, unread: Vec::new(), request: 0 };
                        // A client that breaks off is part of the tests.
                        let _ = server.run().await;
                    }
                });
            }
        }
    }
}

/// One connection.
struct Server {
    stream: TlsStream<TcpStream>,
    shared: Arc<Shared>,
    number: usize,
    unread: Vec<u8>,
    request: usize,
}

impl Server {
    async fn run(&mut self) -> io::Result<()> {
        while let Some(head) = self.head().await? {
            let length = head
                .to_lowercase()
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ").and_then(|n| n.parse::<usize>().ok()))
                .unwrap_or_default();
            self.shared.seen.send_modify(|seen| {
                self.request = seen.len();
                let server_name = self.stream.get_ref().1.server_name().map(str::to_owned);
                seen.push(Seen { head, connection: self.number, server_name, ..Seen::default() });
            });
            let script = self.shared.scripts.lock().expect("unpoisoned").pop_front();
            let script = script.or_else(|| self.shared.always.lock().expect("unpoisoned").clone());
            let default = || vec![Step::Read(length), Step::Say(json(r#"{"kind":"Pretend"}"#))];
            for step in script.unwrap_or_else(default) {
                if !self.perform(step).await? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// False when the connection has to be closed.
    async fn perform(&mut self, step: Step) -> io::Result<bool> {
        match step {
            Step::Say(bytes) => {
                self.stream.write_all(&bytes).await?;
                self.stream.flush().await?;
            }
            Step::Read(count) => {
                while self.unread.len() < count {
                    if self.fill().await? == 0 {
                        return Ok(false);
                    }
                }
                let body: Vec<u8> = self.unread.drain(..count).collect();
                self.got(&body);
            }
            Step::Body => {
                let seen = self.shared.seen.borrow()[self.request].clone();
                if !seen.all("transfer-encoding").is_empty() {
                    // Heads of chunks are not looked for in their data: nothing that is sent here looks like an end.
                    while !(self.unread.starts_with(b"0\r\n") || contains(&self.unread, b"\r\n0\r\n"))
                        || !self.unread.ends_with(b"\r\n\r\n")
                    {
                        if self.fill().await? == 0 {
                            let rest = std::mem::take(&mut self.unread);
                            self.got(&rest);
                            return Ok(false);
                        }
                    }
                    let body = std::mem::take(&mut self.unread);
                    self.got(&body);
                } else if let Some(length) = seen.all("content-length").first().and_then(|n| n.parse().ok()) {
                    return Box::pin(self.perform(Step::Read(length))).await;
                }
            }
            Step::Await => {
                let shared = Arc::clone(&self.shared);
                // The one who waits sees the client leave.
                loop {
                    tokio::select! {
                        () = shared.told() => return Ok(true),
                        count = self.fill() => if count? == 0 {
                            return Ok(false);
                        },
                    }
                }
            }
            Step::Echo => loop {
                let bytes = std::mem::take(&mut self.unread);
                self.got(&bytes);
                self.stream.write_all(&bytes).await?;
                self.stream.flush().await?;
                if self.fill().await? == 0 {
                    self.stream.shutdown().await?;
                    return Ok(false);
                }
            },
            Step::Drain => loop {
                let bytes = std::mem::take(&mut self.unread);
                self.got(&bytes);
                if self.fill().await? == 0 {
                    return Ok(false);
                }
            },
            Step::Stall => {
                tokio::select! {
                    () = self.shared.told() => {}
                    _ = self.stream.get_ref().0.ready(Interest::ERROR) => {
                        self.has_gone();
                        return Ok(false);
                    }
                }
            }
            Step::HalfClose => self.stream.shutdown().await?,
            Step::Close => return Ok(false),
            Step::Reset => {
                self.stream.get_ref().0.set_zero_linger()?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn got(&self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.shared.seen.send_modify(|seen| seen[self.request].body.extend_from_slice(bytes));
        }
    }

    async fn head(&mut self) -> io::Result<Option<String>> {
        let mut looked = 0_usize;
        loop {
            let from = looked.saturating_sub(3);
            if let Some(end) = self.unread[from..].windows(4).position(|window| window == b"\r\n\r\n") {
                let head: Vec<u8> = self.unread.drain(..from + end + 4).collect();
                return Ok(Some(String::from_utf8_lossy(&head).into_owned()));
            }
            looked = self.unread.len();
            if self.fill().await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Reads once. The end is noted.
    async fn fill(&mut self) -> io::Result<usize> {
        let mut bytes = vec![0; 16 << 10];
        let read = self.stream.read(&mut bytes).await;
        match &read {
            Ok(count @ 1..) => self.unread.extend_from_slice(&bytes[..*count]),
            Ok(0) | Err(_) => self.has_gone(),
        }
        read
    }

    fn has_gone(&self) {
        self.shared.seen.send_modify(|seen| {
            if let Some(seen) = seen.get_mut(self.request) {
                seen.is_gone |= seen.connection == self.number;
            }
        });
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// A 200 with a JSON body.
pub(crate) fn json(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into()
}
