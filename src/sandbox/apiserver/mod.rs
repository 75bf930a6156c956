//! A Kubernetes API server on loopback, as far as tailpod needs one, with a control for tests and demonstrations.
//!
//! It speaks HTTPS, knows users by their tokens, and keeps Secrets, Events, Leases and a few other kinds with
//! resourceVersions, conflicts, the four patch types and watches ([`store`]). Clients see kube-apiserver's documents,
//! codes and texts; `kubectl` works against it. [`ApiServer`] is also the control: it changes objects and users,
//! tells what was asked, waits for something to be asked, and makes trouble ([`Fault`]).
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! use tailpod::sandbox::apiserver::{ApiServer, access::{Access, User}};
//!
//! let api = ApiServer::start().await?;
//! api.put_secret("tailscale", "state", [("authkey", "tskey-auth-k")]);
//! let pod = User::service_account("tailscale", "proxy");
//! let token = api.issue_token(&pod, Access::of_boot("tailscale", "state"));
//! // A client that trusts `api.ca_pem()` and sends `token` to `api.url()` now sees the Secret.
//! assert_eq!(api.data("tailscale", "state")["authkey"], "tskey-auth-k");
//! # Ok(())
//! # }
//! ```

pub mod access;
mod answer;
mod control;
mod fault;
pub mod fields;
mod journal;
mod naming;
pub mod patch;
pub mod resources;
mod route;
pub mod select;
pub mod status;
pub mod store;
pub mod validate;
mod watch;
mod words;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::crypto::SecureRandom;
use serde_json::json;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch as channel;

use self::access::{User, Users};
use self::fault::Faults;
use self::fields::Writer;
use self::journal::Journal;
use self::status::Status;
use self::store::{Capacity, Keep, Store, Write};
use super::http::{Limits, Listener, Server};
use super::tls::{Identity, Style};
use crate::lock::lock;

pub use self::control::TimedOut;
pub use self::fault::{Fault, Scope, Times};
pub use self::journal::Recorded;
pub use self::route::Query;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// How an [`ApiServer`] is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// How the certificate is rooted.
    pub style: Style,
    /// How much a watch may resume from.
    pub history: Capacity,
    /// Time between the bookmarks of a watch.
    pub bookmarks: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { style: Style::default(), history: Capacity::default(), bookmarks: Duration::from_secs(60) }
    }
}

/// A running API server and its control. Clones share it; it stops with the last of them.
#[derive(Clone)]
pub struct ApiServer {
    core: Arc<Core>,
    identity: Identity,
    addr: SocketAddr,
    admin: Arc<str>,
    // Apart from `core`, which the server's connections hold: a cycle would keep it running.
    socket: Arc<Mutex<Socket>>,
}

impl fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiServer").field("addr", &self.addr).finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum Socket {
    Serving(Server),
    /// Bound but not listening: clients are refused, and nobody else gets the port.
    Reserved(TcpSocket),
    Lost,
}

/// What requests see.
struct Core {
    state: Mutex<State>,
    /// The store's version, after every write.
    version: channel::Sender<u64>,
    /// Counts recorded requests.
    asked: channel::Sender<u64>,
    stalled: channel::Sender<bool>,
    /// Counts calls of [`ApiServer::break_watches`].
    breaks: channel::Sender<u64>,
    bookmarks: Duration,
    address: String,
    random: &'static dyn SecureRandom,
}

struct State {
    store: Store,
    users: Users,
    journal: Journal,
    faults: Faults,
}

impl Core {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Completes when the server is not stalled.
    async fn running(&self) {
        // The sender lives in `self`: waiting cannot fail.
        let _ = self.stalled.subscribe().wait_for(|stalled| !stalled).await;
    }

    fn record(&self, request: Recorded, bytes: usize) {
        tracing::debug!(%request, "API request");
        self.state().journal.push(request, bytes);
        self.asked.send_modify(|count| *count += 1);
    }

    /// Changes the store and tells everybody who waits for that.
    fn change<T>(&self, change: impl FnOnce(&mut Store) -> Result<T, Status>) -> Result<T, Status> {
        let (result, version) = {
            let store = &mut self.state().store;
            (change(store), store.version())
        };
        self.version.send_if_modified(|known| std::mem::replace(known, version.max(*known)) < version);
        result
    }

    fn random(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        // Loopback and tests: without entropy the names are guessable, and nothing else.
        let _ = self.random.fill(&mut bytes);
        bytes
    }

    fn write(&self, manager: String, keep: Keep) -> Write {
        let now = jiff::Timestamp::now().as_second();
        let now = jiff::Timestamp::from_second(now).unwrap_or_default().to_string();
        Write { writer: Writer { manager, now }, random: self.random(), keep }
    }
}

// === Life ===

impl ApiServer {
    /// Starts one on a free port of 127.0.0.1. Must be called inside a tokio runtime.
    pub async fn start() -> io::Result<Self> {
        Self::start_with(Options::default()).await
    }

    /// Starts one on a free port of 127.0.0.1, as `options` say.
    #[expect(clippy::unused_async, reason = "as `stop`")]
    pub async fn start_with(options: Options) -> io::Result<Self> {
        let identity = Identity::new(options.style)?;
        let listener = bound((Ipv4Addr::LOCALHOST, 0).into())?.listen(BACKLOG)?;
        let addr = listener.local_addr()?;
        let store = Store::new(options.history);
        let (version, _) = channel::channel(store.version());
        let state = State { store, users: Users::default(), journal: Journal::default(), faults: Faults::default() };
        let core = Arc::new(Core {
            state: Mutex::new(state),
            version,
            asked: channel::channel(0).0,
            stalled: channel::channel(false).0,
            breaks: channel::channel(0).0,
            bookmarks: options.bookmarks,
            address: addr.to_string(),
            random: rustls::crypto::ring::default_provider().secure_random,
        });
        let server = serve(&core, &identity, listener);
        let admin: Arc<str> = format!("{:032x}", u128::from_be_bytes(core.random())).into();
        core.state().users.accept(&admin, User::admin());
        Ok(Self { core, identity, addr, admin, socket: Arc::new(Mutex::new(Socket::Serving(server))) })
    }

    /// Where it listens; the same after an outage.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `https://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("https://{}", self.addr)
    }

    /// The certificate to trust.
    pub fn ca_pem(&self) -> &str {
        self.identity.ca_pem()
    }

    /// A token that may do everything.
    pub fn admin_token(&self) -> &str {
        &self.admin
    }

    /// A kubeconfig for `token` with `namespace` as the default, as JSON (which is YAML).
    pub fn kubeconfig(&self, token: &str, namespace: &str) -> String {
        let ca = BASE64.encode(self.ca_pem());
        let cluster = json!({"server": self.url(), "certificate-authority-data": ca});
        let context = json!({"cluster": "sandbox", "user": "sandbox", "namespace": namespace});
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "sandbox",
            "clusters": [{"name": "sandbox", "cluster": cluster}],
            "users": [{"name": "sandbox", "user": {"token": token}}],
            "contexts": [{"name": "sandbox", "context": context}],
        })
        .to_string()
    }

    /// Writes what a Pod finds in its service account directory: `namespace`, `ca.crt`, `token`.
    pub fn write_service_account(&self, dir: &Path, namespace: &str, token: &str) -> io::Result<()> {
        std::fs::create_dir_all(dir)?;
        for (file, content) in [("namespace", namespace), ("ca.crt", self.ca_pem()), ("token", token)] {
            std::fs::write(dir.join(file), content)?;
        }
        Ok(())
    }

    /// An outage: cuts off every connection and refuses new ones. Objects, users and the port are kept.
    pub async fn stop(&self) -> io::Result<()> {
        let Some(server) = self.take_server() else { return Ok(()) };
        // While the listener still has the port: in between, any outgoing connection could get it.
        let reserved = bound(self.addr)?;
        server.stop(Duration::ZERO).await;
        *self.socket() = Socket::Reserved(reserved);
        Ok(())
    }

    /// Ends an outage, on the same port.
    #[expect(clippy::unused_async, reason = "as `stop`")]
    pub async fn start_again(&self) -> io::Result<()> {
        let reserved = {
            let mut socket = self.socket();
            match std::mem::replace(&mut *socket, Socket::Lost) {
                Socket::Serving(server) => {
                    *socket = Socket::Serving(server);
                    return Ok(());
                }
                Socket::Reserved(reserved) => Some(reserved),
                Socket::Lost => None,
            }
        };
        let listener = match reserved {
            Some(reserved) => reserved.listen(BACKLOG)?,
            None => bound(self.addr)?.listen(BACKLOG)?,
        };
        let server = serve(&self.core, &self.identity, listener);
        *self.socket() = Socket::Serving(server);
        Ok(())
    }

    /// Stops answering: connections are accepted, requests and watches wait until [`Self::resume`].
    pub fn stall(&self) {
        self.core.stalled.send_replace(true);
    }

    /// Answers again.
    pub fn resume(&self) {
        self.core.stalled.send_replace(false);
    }

    fn socket(&self) -> MutexGuard<'_, Socket> {
        lock(&self.socket)
    }

    fn take_server(&self) -> Option<Server> {
        let mut socket = self.socket();
        match std::mem::replace(&mut *socket, Socket::Lost) {
            Socket::Serving(server) => Some(server),
            other => {
                *socket = other;
                None
            }
        }
    }
}

/// A socket with `addr`, which two of ours may have at once.
fn bound(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(addr)?;
    Ok(socket)
}

fn serve(core: &Arc<Core>, identity: &Identity, listener: TcpListener) -> Server {
    let core = Arc::clone(core);
    let listener = Listener::tls(listener, identity.config());
    Server::start_refusing(listener, Limits::default(), answer::too_large, move |request| {
        answer::serve(Arc::clone(&core), request)
    })
}
