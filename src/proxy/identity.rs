//! Who is at the other end of a connection, from whois alone (api-proxy.md 4).
//!
//! An answer belongs to the accepted connection. It is used for at most [`Limits::identity`](super::Limits::identity), not
//! once the netmap may have changed, and never found again by address: loopback ports are used again within
//! milliseconds. A failure is never kept, and never answered from what was known before.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use super::access::Peer;
use super::netmap::Netmap;
use super::{Grants, Options};
use crate::localapi::types::WhoIs;
use crate::localapi::{LocalApi, Scope};

/// For one lookup.
const LIMIT: Duration = Duration::from_secs(5);
/// In userspace mode tailscaled knows a connection just after it has dialled.
const REGISTERED: Duration = Duration::from_millis(250);
/// Lookups at the same time. A burst of connections shall take neither all our descriptors nor all of tailscaled.
const ABREAST: usize = 64;

/// Why nobody is known to be there.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unknown {
    /// tailscaled does not know the address: not a tailnet peer.
    #[error("{0} is nobody on the tailnet")]
    Nobody(SocketAddr),
    /// tailscaled could not be asked.
    #[error("cannot ask tailscaled who {0} is")]
    Unasked(SocketAddr, #[source] crate::localapi::Error),
    /// The address is another node's by now. In userspace mode that is a loopback port, and ports are used again.
    #[error("{0} is another node than the one that connected")]
    Another(SocketAddr),
    /// tailscaled did not answer in time.
    #[error("tailscaled did not say in time who {0} is")]
    Late(SocketAddr),
}

/// How peers are looked up.
#[derive(Debug)]
pub(super) struct Identities {
    localapi: LocalApi,
    netmap: Netmap,
    grants: Grants,
    keep: Duration,
    lookups: Semaphore,
}

/// The peer of one accepted connection.
#[derive(Debug)]
pub(super) struct Caller {
    addr: SocketAddr,
    /// The node that connected, by its stable id: whoever the address belongs to later, the connection stays its own.
    met: Option<String>,
    known: Option<Known>,
}

#[derive(Debug)]
struct Known {
    peer: Arc<Peer>,
    at: Instant,
    generation: u64,
}

impl Identities {
    pub(super) fn new(localapi: LocalApi, netmap: Netmap, options: &Options) -> Self {
        Self {
            localapi,
            netmap,
            grants: options.grants.clone(),
            keep: options.limits.identity,
            lookups: Semaphore::new(ABREAST),
        }
    }

    /// Who is at `addr`.
    async fn ask(&self, addr: SocketAddr) -> Result<Peer, Unknown> {
        let service = async {
            match &self.grants {
                Grants::Node => Ok(None),
                Grants::NodeThenService(config) => {
                    let service = config.borrow().api_server.service.clone();
                    match service {
                        Some(name) => self.whois(addr, Scope::Service(name.as_str())).await.map(Some),
                        None => Ok(None),
                    }
                }
            }
        };
        let (node, service) = tokio::try_join!(self.whois(addr, Scope::Node), service)?;
        if service.as_ref().is_some_and(|service| service.node.stable_id != node.node.stable_id) {
            return Err(Unknown::Another(addr));
        }
        Ok(Peer::new(&node, service.as_ref()))
    }

    async fn whois(&self, addr: SocketAddr, scope: Scope<'_>) -> Result<WhoIs, Unknown> {
        let lookup = async {
            // It is never closed; without a turn the lookup would be late anyway.
            let _turn = self.lookups.acquire().await;
            self.localapi.whois(addr, scope).await
        };
        match timeout(LIMIT, lookup).await {
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(Ok(None)) => Err(Unknown::Nobody(addr)),
            Ok(Err(error)) => Err(Unknown::Unasked(addr, error)),
            Err(_) => Err(Unknown::Late(addr)),
        }
    }
}

impl Caller {
    /// The client at `addr`, about whom nothing is known yet.
    pub(super) fn new(addr: SocketAddr) -> Self {
        Self { addr, met: None, known: None }
    }

    /// Its address.
    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Looks it up when its connection has just been accepted.
    pub(super) async fn meet(&mut self, identities: &Identities) -> Result<(), Unknown> {
        let mut met = self.peer(identities).await;
        if matches!(met, Err(Unknown::Nobody(addr)) if addr.ip().is_loopback()) {
            sleep(REGISTERED).await;
            met = self.peer(identities).await;
        }
        if self.addr.ip().is_loopback() {
            // It may have been the port's last user. The first request asks again, and has to hear the same.
            self.known = None;
        }
        met.map(drop)
    }

    /// Who it is now.
    pub(super) async fn peer(&mut self, identities: &Identities) -> Result<Arc<Peer>, Unknown> {
        // Read before the question: a change during it makes the answer old at once.
        let generation = identities.netmap.generation();
        if let Some(known) = &self.known
            && known.generation == generation
            && known.at.elapsed() < identities.keep
        {
            return Ok(Arc::clone(&known.peer));
        }
        self.known = None;
        let at = Instant::now();
        let peer = Arc::new(identities.ask(self.addr).await?);
        if *self.met.get_or_insert_with(|| peer.stable_id.clone()) != peer.stable_id {
            return Err(Unknown::Another(self.addr));
        }
        self.known = Some(Known { peer: Arc::clone(&peer), at, generation });
        Ok(peer)
    }
}
