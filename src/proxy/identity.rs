//! Who is at the other end of a connection, from whois alone (api-proxy.md 4).
//!
//! An answer belongs to the accepted connection. It is used for at most [`Limits::identity`](super::Limits::identity), not
//! once the netmap may have changed, and never found again by address: loopback ports are used again within
//! milliseconds. A failure is never kept, and never answered from what was known before.
//!
//! tailscaled knows tailnet addresses whatever the port, and the ports of loopback that it dialled from. So only where peers
//! come over loopback is a port asked about: a search for one holds up every other question ([`super::turns`]).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::access::Peer;
use super::dialler::{Dialler, Diallers};
use super::netmap::Netmap;
use super::shares::{Share, Shares};
use super::turns::Turns;
use super::{Client, Grants, Options};
use crate::localapi::types::WhoIs;
use crate::localapi::{LocalApi, Scope};
use crate::short;

/// For one lookup.
const LIMIT: Duration = Duration::from_secs(5);
/// In userspace mode tailscaled knows a connection just after it has dialled. Whoever is not known by then is nobody; the
/// second question of api-proxy.md 4 is only asked where the answer to the first came sooner, because a tailscaled that
/// searches longer before it says so, as releases do, has waited already and would hold everybody up twice.
const REGISTERED: Duration = Duration::from_millis(250);

/// Why nobody is known to be there.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unknown {
    /// tailscaled does not know the address: not a tailnet peer.
    #[error("{0} is nobody on the tailnet")]
    Nobody(SocketAddr),
    /// Not asked about: tailscaled did not make the connection, or too many wait already.
    #[error("{0} is most likely nobody on the tailnet; tailscaled is not asked for so many")]
    Stranger(SocketAddr),
    /// The node has as many connections as it may have.
    #[error("{node} has {most} connections, as many as one peer may have")]
    TooMany {
        /// Its name.
        node: String,
        /// How many that is.
        most: usize,
        /// Whether there are so many more that nobody is told any more.
        is_crowd: bool,
    },
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
    client: Client,
    diallers: Diallers,
    turns: Turns,
    shares: Arc<Shares>,
}

/// The peer of one accepted connection.
#[derive(Debug)]
pub(super) struct Caller {
    addr: SocketAddr,
    dialler: Dialler,
    /// The share of the node that connected: whoever the address belongs to later, the connection stays its own.
    met: Option<Share>,
    known: Option<Known>,
}

#[derive(Debug)]
struct Known {
    peer: Arc<Peer>,
    at: Instant,
    generation: u64,
}

impl Identities {
    /// For a proxy with so many places for connections.
    pub(super) fn new(localapi: LocalApi, netmap: Netmap, options: &Options, places: usize) -> Self {
        Self {
            diallers: Diallers::new(localapi.clone()),
            localapi,
            netmap,
            grants: options.grants.clone(),
            keep: options.limits.identity,
            client: options.listen.client,
            turns: Turns::default(),
            shares: Shares::of(places, options.limits.peer_connections),
        }
    }

    /// Whether a connection from there is one that tailscaled may have made for a peer.
    fn is_dialled(&self, addr: SocketAddr) -> bool {
        self.client == Client::Peer && addr.ip().is_loopback()
    }

    /// Who is at `addr`.
    async fn ask(&self, addr: SocketAddr, dialler: Dialler) -> Result<Peer, Unknown> {
        let service = async {
            match &self.grants {
                Grants::Node => Ok(None),
                Grants::NodeThenService(config) => {
                    let service = config.borrow().api_server.service.clone();
                    match service {
                        Some(name) => self.whois(addr, dialler, Scope::Service(name.as_str())).await.map(Some),
                        None => Ok(None),
                    }
                }
            }
        };
        let (node, service) = tokio::try_join!(self.whois(addr, dialler, Scope::Node), service)?;
        if service.as_ref().is_some_and(|service| service.node.stable_id != node.node.stable_id) {
            return Err(Unknown::Another(addr));
        }
        Ok(Peer::new(&node, service.as_ref()))
    }

    async fn whois(&self, addr: SocketAddr, dialler: Dialler, scope: Scope<'_>) -> Result<WhoIs, Unknown> {
        let asked = if self.is_dialled(addr) { addr } else { SocketAddr::new(addr.ip(), 0) };
        let lookup = async {
            let turn = self.turns.wait(dialler).await.ok_or(Unknown::Stranger(addr))?;
            match self.localapi.whois(asked, scope).await {
                Ok(Some(answer)) => Ok(answer),
                Ok(None) => {
                    turn.was_for_nobody();
                    Err(Unknown::Nobody(addr))
                }
                Err(error) => Err(Unknown::Unasked(addr, error)),
            }
        };
        timeout(LIMIT, lookup).await.unwrap_or(Err(Unknown::Late(addr)))
    }
}

impl Caller {
    /// The client at `addr`, about whom nothing is known yet.
    pub(super) fn new(addr: SocketAddr) -> Self {
        Self { addr, dialler: Dialler::Tailscaled, met: None, known: None }
    }

    /// Its address.
    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Looks it up when its connection has just been accepted, at `ours`.
    pub(super) async fn meet(&mut self, identities: &Identities, ours: SocketAddr) -> Result<(), Unknown> {
        let is_dialled = identities.is_dialled(self.addr);
        if is_dialled {
            self.dialler = identities.diallers.of(self.addr, ours).await;
        }
        let accepted = Instant::now();
        let mut met = self.peer(identities).await;
        if is_dialled && matches!(met, Err(Unknown::Nobody(_))) && accepted.elapsed() < REGISTERED {
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
        // Once it was known it waits for no stranger.
        let dialler = if self.met.is_some() { Dialler::Tailscaled } else { self.dialler };
        let peer = Arc::new(identities.ask(self.addr, dialler).await?);
        let too_many = |is_crowd| {
            let (node, most) = (short::name(&peer.node).into_owned(), identities.shares.most());
            Unknown::TooMany { node, most, is_crowd }
        };
        let share = match &mut self.met {
            Some(share) if *share.node() != peer.stable_id => return Err(Unknown::Another(self.addr)),
            Some(share) => share,
            met => met.insert(identities.shares.take(&peer.stable_id).ok_or_else(|| too_many(true))?),
        };
        if !share.is_within() {
            return Err(too_many(false));
        }
        self.known = Some(Known { peer: Arc::clone(&peer), at, generation });
        Ok(peer)
    }
}
