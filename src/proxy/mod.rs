//! The Kubernetes API for tailnet peers: who asks, as whom, and on to the API server.
//!
//! [`Proxy::bind`] opens the listeners of [`Options`], [`Proxy::serve`] answers until it is told to stop. Each connection
//! is one task; a request on it is parsed strictly ([`crate::http1`]), judged by pure functions, sent with headers that
//! were written afresh, and relayed piece by piece. Whenever identity, policy or a required recording is unclear,
//! the answer is no and nothing is forwarded.

pub mod access;
mod access_log;
mod answer;
mod apply;
pub mod beside;
mod buffers;
pub mod config;
pub mod config_source;
mod connection;
mod dialler;
mod ended;
mod exchange;
pub mod explain;
mod forward;
pub mod grants;
pub mod headers;
pub mod hop;
mod identity;
pub mod k8s_proxy;
mod lane;
pub mod life;
mod listen;
mod local;
mod lookout;
pub mod metrics;
mod names;
mod netmap;
pub mod outgoing;
pub mod policy;
mod pool;
pub mod proxy_protocol;
mod reach;
pub mod refusal;
mod reload;
mod reply;
mod request;
pub mod route;
mod serve;
pub mod serve_config;
mod shares;
pub mod status;
mod stream;
pub mod subprotocol;
mod tls;
mod turns;
mod upgrade;
mod workers;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use self::config::Config;
use crate::k8s::upstream::{Upstream, Whose};
use crate::localapi::LocalApi;

pub use self::listen::{StartError, tells_service_grants};
pub use self::metrics::Metrics;
pub use self::serve::Proxy;
pub use self::tls::BadCertificate;
pub use self::workers::Workers;

/// Whether callers become Kubernetes users here (api-proxy.md 1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The peer's identity becomes impersonation headers, sent with our own credentials.
    #[default]
    Auth,
    /// A network path only: the client brings its own credentials, we add none.
    NoAuth,
}

impl Mode {
    /// Whose credentials requests go on with.
    pub fn whose(self) -> Whose {
        match self {
            Self::Auth => Whose::Ours,
            Self::NoAuth => Whose::Nobodys,
        }
    }
}

/// What the proxy is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether callers become Kubernetes users here.
    pub mode: Mode,
    /// Where clients come from.
    pub listen: Listen,
    /// Which grants count.
    pub grants: Grants,
    /// Streams that nothing can record, while recording is enforced.
    pub unrecorded_streams: UnrecordedStreams,
    /// Whether answers tell how long identity and upstream took.
    pub server_timing: ServerTiming,
    /// Time limits.
    pub limits: Limits,
}

/// Where clients come from, and how their connections begin.
#[derive(Clone, Debug)]
pub struct Listen {
    /// The addresses.
    pub at: At,
    /// Who is at the other end.
    pub client: Client,
    /// TLS of the proxy itself.
    pub tls: Tls,
}

/// Which addresses are listened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Where tailnet peers arrive: every tailnet address of the node, or `127.0.0.1` when the daemon has no interface.
    Tailnet {
        /// The port, the same on each.
        port: u16,
    },
    /// This one.
    Address(SocketAddr),
}

/// How the client's address is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// It is the peer of the TCP connection.
    Peer,
    /// tailscaled says it in a PROXY protocol header, which every connection must begin with.
    ProxyHeader,
}

/// TLS of the proxy itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Certificates that tailscaled gets for the names of the node, chosen by SNI.
    Tailscale,
    /// One certificate, read again when its files change.
    Files {
        /// PEM: the leaf and its chain.
        certificate: PathBuf,
        /// PEM.
        key: PathBuf,
    },
    /// None: tailscaled or WireGuard has encrypted already.
    Off,
}

/// Which grants count.
#[derive(Clone, Debug)]
pub enum Grants {
    /// Those whose destination is the node, as upstream does.
    Node,
    /// Those of the node, then those of the Tailscale Service that the config in force names. Needs tailscaled 1.100.
    NodeThenService(watch::Receiver<Arc<Config>>),
}

/// What happens with streams that nothing can record while recording is enforced (api-proxy.md 17.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnrecordedStreams {
    /// Port-forward, `pods|services/proxy` and ephemeral containers pass, as upstream does.
    #[default]
    Forward,
    /// They are refused too.
    Deny,
}

/// Whether answers carry `Server-Timing`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerTiming {
    /// No.
    #[default]
    Hide,
    /// Yes.
    Show,
}

/// Limits, most of time, those of api-proxy.md 2.3 by default. None of them bounds an answer or an upgraded stream, as long as
/// its client takes it.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For the PROXY protocol header, from accept.
    pub proxy_header: Duration,
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For the head of the first request on a connection.
    pub first_head: Duration,
    /// For the head of each further request, from its first byte.
    pub next_head: Duration,
    /// Between requests.
    pub idle: Duration,
    /// For a client to read anything while there is something for it. One who has stopped a pager or a terminal comes back
    /// to it sooner.
    pub stuck: Duration,
    /// For requests in flight when the proxy stops.
    pub drain: Duration,
    /// How old a peer's identity may be.
    pub identity: Duration,
    /// Connections that one peer may have at the same time; half of all without it.
    pub peer_connections: Option<usize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            proxy_header: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            first_head: Duration::from_secs(10),
            next_head: Duration::from_secs(60),
            idle: Duration::from_secs(120),
            stuck: Duration::from_secs(15 * 60),
            drain: Duration::from_secs(10),
            identity: Duration::from_secs(5),
            peer_connections: None,
        }
    }
}

/// What the proxy works with.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The daemon that knows the peers.
    pub localapi: LocalApi,
    /// The API server.
    pub upstream: Upstream,
    /// Counters, shared with whoever serves them.
    pub metrics: Arc<Metrics>,
    /// Who serves connections.
    pub workers: Workers,
}
