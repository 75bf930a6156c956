//! A TLS server that knows client certificates, remembers every handshake and request, and holds connections open.
//!
//! A path with `watch` in it is a stream that never ends, one with `exec` upgrades and echoes, `/slow` takes a moment,
//! everything else is a Secret. Requests without an accepted token are answered with 401, unless nobody said which are
//! accepted.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::HandshakeKind;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// Longest wait for something that takes milliseconds.
const SOON: Duration = Duration::from_secs(10);

/// An authority that signs for servers and clients.
pub(super) struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pub(super) pem: String,
    der: CertificateDer<'static>,
}

/// A certificate chain and its key.
#[derive(Clone)]
pub(super) struct Pair {
    pub(super) chain: String,
    pub(super) key: String,
    pub(super) der: CertificateDer<'static>,
}

impl Authority {
    pub(super) fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let made = params.self_signed(&key).unwrap();
        let (pem, der) = (made.pem(), made.der().clone());
        Self { issuer: rcgen::Issuer::new(params, key), pem, der }
    }

    /// A certificate for `name` until `not_after` (seconds since 1970; far away when `None`).
    pub(super) fn sign(&self, name: &str, not_after: Option<u64>) -> Pair {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        if let Some(seconds) = not_after {
            params.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
        }
        let made = params.signed_by(&key, &self.issuer).unwrap();
        Pair { chain: made.pem(), key: key.serialize_pem(), der: made.der().clone() }
    }

    /// For a server that is this leaf, to clients with or without a certificate of ours.
    pub(super) fn acceptor(&self, leaf: &Pair) -> TlsAcceptor {
        use rustls::pki_types::pem::PemObject as _;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients.allow_unauthenticated().build().unwrap())
            .with_single_cert(vec![leaf.der.clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

/// What one connection has been.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// The client's leaf, once the handshake is done.
    pub(super) client: Option<CertificateDer<'static>>,
    pub(super) kind: Option<HandshakeKind>,
    pub(super) alpn: Option<Vec<u8>>,
    /// Request heads, each with its body behind it.
    pub(super) heads: Vec<String>,
    pub(super) is_closed: bool,
}

pub(super) struct Server {
    pub(super) addr: SocketAddr,
    pub(super) authority: Authority,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

struct State {
    seen: watch::Sender<Vec<Seen>>,
    accepted: Mutex<Option<BTreeSet<String>>>,
    /// Whether handshakes wait.
    held: watch::Sender<bool>,
}

impl Server {
    pub(super) async fn start() -> Self {
        let authority = Authority::new();
        let name = authority.sign("127.0.0.1", None);
        Self::start_as(authority, &name).await
    }

    pub(super) async fn start_as(authority: Authority, leaf: &Pair) -> Self {
        let acceptor = authority.acceptor(leaf);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(State {
            seen: watch::channel(Vec::new()).0,
            accepted: Mutex::new(None),
            held: watch::channel(false).0,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, acceptor, Arc::clone(&state)));
        Self { addr, authority, state, _tasks: tasks }
    }

    /// From now on only these tokens are accepted.
    pub(super) fn accept(&self, tokens: &[&str]) {
        *self.state.accepted.lock().unwrap() = Some(tokens.iter().map(|token| format!("Bearer {token}")).collect());
    }

    /// Holds handshakes back, or lets them go on.
    pub(super) fn hold(&self, held: bool) {
        self.state.held.send_replace(held);
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.state.seen.borrow().clone()
    }

    /// Every request head, in the order of connections.
    pub(super) fn heads(&self) -> Vec<String> {
        self.seen().into_iter().flat_map(|seen| seen.heads).collect()
    }

    /// Waits until the connections are as wanted.
    pub(super) async fn until(&self, what: &str, wanted: impl Fn(&[Seen]) -> bool) {
        let mut seen = self.state.seen.subscribe();
        let waited = tokio::time::timeout(SOON, seen.wait_for(|seen| wanted(seen))).await;
        assert!(waited.is_ok(), "not seen: {what}: {:#?}", self.seen());
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        let index = state.seen.borrow().len();
        let seen = Seen { client: None, kind: None, alpn: None, heads: Vec::new(), is_closed: false };
        state.seen.send_modify(|all| all.push(seen));
        let (acceptor, state) = (acceptor.clone(), Arc::clone(&state));
        connections.spawn(async move {
            let _ = serve(tcp, acceptor, &state, index).await;
            state.seen.send_modify(|all| all[index].is_closed = true);
        });
    }
}

async fn serve(tcp: TcpStream, acceptor: TlsAcceptor, state: &State, index: usize) -> std::io::Result<()> {
    let _ = state.held.subscribe().wait_for(|held| !held).await;
    let mut tls = acceptor.accept(tcp).await?;
    let session = tls.get_ref().1;
    let client = session.peer_certificates().map(|chain| chain[0].clone().into_owned());
    let kind = session.handshake_kind();
    let alpn = session.alpn_protocol().map(<[u8]>::to_vec);
    state.seen.send_modify(|all| all[index] = Seen { client, kind, alpn, ..all[index].clone() });
    let mut buffer = Vec::new();
    loop {
        let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
            if tls.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let head = String::from_utf8(buffer.drain(..end + 4).collect()).unwrap();
        let field = |wanted: &str| {
            head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case(wanted).then(|| value.trim().to_owned())
            })
        };
        let length: usize = field("content-length").map_or(0, |length| length.parse().unwrap());
        while buffer.len() < length {
            if tls.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        let body = String::from_utf8(buffer.drain(..length).collect()).unwrap();
        let (authorization, upgrade) = (field("authorization"), field("upgrade").unwrap_or("echo".to_owned()));
        let accepted = state.accepted.lock().unwrap().clone();
        let is_accepted = accepted.is_none_or(|tokens| authorization.is_some_and(|token| tokens.contains(&token)));
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        state.seen.send_modify(|all| all[index].heads.push(head.clone() + &body));
        let is_stream = path.contains("exec") && is_accepted;
        if path == "/slow" {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let answer = match path.as_str() {
            _ if !is_accepted => "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n".to_owned(),
            _ if is_stream => {
                format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n\r\n")
            }
            path if path.contains("watch") => {
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n".to_owned()
            }
            _ => "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}".to_owned(),
        };
        tls.write_all(answer.as_bytes()).await?;
        tls.flush().await?;
        if is_stream {
            let mut chunk = [0; 1024];
            loop {
                let count = tls.read(&mut chunk).await?;
                if count == 0 {
                    return Ok(());
                }
                tls.write_all(&chunk[..count]).await?;
                tls.flush().await?;
            }
        }
    }
}
