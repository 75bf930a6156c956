//! Serving and stopping.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::buffers::BLOCK;
use super::identity::Identities;
use super::listen::Bound;
use super::netmap::Netmap;
use super::pool::Pool;
use super::tls::Certificates;
use super::workers::{Load, Workers, adopt};
use super::{Metrics, Options, StartError, Surroundings, connection, listen};
use crate::localapi::LocalApi;
use crate::shutdown::{Tasks, open_files_limit};

/// How long to leave a listener alone when connections cannot be accepted (usually: no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Descriptors that clients are never given: for tailscaled, for files, for logs and the like.
const SPARE: u64 = 128;
/// Connections that are served at the least, however few descriptors there are.
const FEWEST: usize = 16;
/// Blocks that heads may take beyond the first of each, all together: 32 MiB. Anybody on the tailnet may send heads.
const HEAD_BLOCKS: usize = (32 << 20) / BLOCK;
/// How long the tasks beside the connections may take to stop.
const SETTLE: Duration = Duration::from_secs(1);

/// A proxy whose listeners are bound.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    localapi: LocalApi,
    netmap: Netmap,
    listeners: Vec<TcpListener>,
    /// What was to be listened on.
    bound: BTreeSet<SocketAddr>,
    workers: Workers,
}

/// What every connection uses.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) identities: Identities,
    pub(super) certificates: Certificates,
    pub(super) pool: Pool,
    pub(super) metrics: Arc<Metrics>,
    /// No more requests shall begin.
    pub(super) stop: CancellationToken,
    /// Blocks for large heads.
    pub(super) head_blocks: Arc<Semaphore>,
    /// A place for each connection: whoever got in also gets to the API server.
    places: Arc<Semaphore>,
}

impl Proxy {
    /// Binds the listeners. Nothing is accepted before [`Proxy::serve`].
    ///
    /// # Errors
    /// What was asked for cannot be served safely, or not at all.
    pub async fn bind(options: Options, surroundings: Surroundings) -> Result<Self, StartError> {
        let Surroundings { localapi, upstream, metrics, workers } = surroundings;
        let Bound { listeners, certificates, addresses } = listen::bind(&options, &localapi).await?;
        let netmap = Netmap::default();
        let places = places();
        let identities = Identities::new(localapi.clone(), netmap.clone(), &options, places);
        let pool = Pool::new(upstream);
        let (stop, places) = (CancellationToken::new(), Arc::new(Semaphore::new(places)));
        let head_blocks = Arc::new(Semaphore::new(HEAD_BLOCKS));
        let shared = Shared { options, identities, certificates, pool, metrics, stop, head_blocks, places };
        Ok(Self { shared: Arc::new(shared), localapi, netmap, listeners, bound: addresses, workers })
    }

    /// The addresses that are listened on.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Serves until `stop`; then lets requests in flight finish for [`Limits::drain`](super::Limits::drain) and closes
    /// whatever is left, watches and upgraded streams too.
    ///
    /// # Errors
    /// A listener broke for good, or is not where peers arrive any more.
    pub async fn serve(self, stop: CancellationToken) -> Result<(), StartError> {
        let Self { shared, localapi, netmap, listeners, bound, workers } = self;
        let mut tasks = Tasks::new(CancellationToken::new());
        {
            let (netmap, localapi) = (netmap.clone(), localapi.clone());
            tasks.spawn("netmap", |stop| netmap.follow(localapi, stop));
        }
        {
            let shared = Arc::clone(&shared);
            tasks.spawn("pool", |stop| async move { shared.pool.keep_clean(stop).await });
        }
        {
            let shared = Arc::clone(&shared);
            tasks.spawn("certificates", |stop| async move { shared.certificates.keep_fresh(stop).await });
        }
        let mode = shared.options.mode;
        for listener in listeners {
            if let Ok(addr) = listener.local_addr() {
                tracing::info!("API server proxy in {mode} mode is listening on {addr}");
            }
            let (shared, workers) = (Arc::clone(&shared), workers.clone());
            tasks.spawn("listener", |stop| accept(listener, shared, workers, stop));
        }
        let ended = tokio::select! {
            () = stop.cancelled() => None,
            ended = tasks.next_ended() => Some(StartError::Ended(ended.to_string())),
            error = listen::moved(&shared.options, &localapi, &netmap, &bound) => Some(error),
        };
        shared.stop.cancel();
        for unclean in tasks.stop(shared.options.limits.drain + SETTLE).await {
            tracing::warn!("{unclean}");
        }
        ended.map_or(Ok(()), Err)
    }
}

/// Accepts connections until `stop`; then waits for them within the limit.
async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    workers: Workers,
    stop: CancellationToken,
) -> Result<(), std::convert::Infallible> {
    let mut connections = JoinSet::new();
    let (mut failing, mut full) = (false, false);
    loop {
        if shared.places.available_permits() == 0 && !std::mem::replace(&mut full, true) {
            tracing::warn!(open = connections.len(), "no more connections than these; further clients wait");
        }
        let arrival = async {
            // The places are never closed.
            let place = Arc::clone(&shared.places).acquire_owned().await.ok();
            listener.accept().await.map(|(tcp, addr)| (tcp, addr, place))
        };
        let accepted = tokio::select! {
            () = shared.stop.cancelled() => break,
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => {
                note_panic(ended);
                continue;
            }
            accepted = arrival => accepted,
        };
        match accepted {
            Ok((tcp, addr, place)) => {
                failing = false;
                full &= shared.places.available_permits() == 0;
                let (runtime, load) = workers.place();
                connections.spawn_on(serve_one(Arc::clone(&shared), tcp, addr, (place, load)), &runtime);
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "cannot accept connections");
                }
                let _ = stop.run_until_cancelled(tokio::time::sleep(ACCEPT_PAUSE)).await;
            }
        }
    }
    drop(listener);
    let drained = timeout(shared.options.limits.drain, async {
        while let Some(ended) = connections.join_next().await {
            note_panic(ended);
        }
    })
    .await;
    if drained.is_err() {
        tracing::info!(open = connections.len(), "closing watches and sessions that are still open");
        connections.shutdown().await;
    }
    Ok(())
}

/// How many connections can be served, each with one of its own to the API server.
fn places() -> usize {
    let files = open_files_limit().unwrap_or(u64::MAX);
    let places = usize::try_from(files.saturating_sub(SPARE) / 2).unwrap_or(usize::MAX);
    places.clamp(FEWEST, Semaphore::MAX_PERMITS)
}

/// Holds what the connection takes as long as it is there.
async fn serve_one(
    shared: Arc<Shared>,
    accepted: TcpStream,
    addr: SocketAddr,
    _taken: (Option<OwnedSemaphorePermit>, Load),
) {
    let tcp = match adopt(accepted) {
        Ok(tcp) => tcp,
        Err(error) => {
            tracing::warn!(%error, "cannot serve a connection");
            return;
        }
    };
    let metrics = Arc::clone(&shared.metrics);
    let _open = metrics.connection();
    let stop = shared.stop.clone();
    connection::serve(shared, tcp, addr, stop).await;
}

fn note_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!("a connection's task panicked: {error}");
    }
}
