//! Where the proxy listens: only where it can tell who is at the other end (api-proxy.md 2).

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use nix::errno::Errno;
use tokio::net::TcpListener;

use super::netmap::Netmap;
use super::tls::{BadCertificate, Certificates};
use super::{At, Client, Grants, Options};
use crate::causes::chain;
use crate::localapi::mask::Version;
use crate::localapi::types::{State, Status};
use crate::localapi::{self, LocalApi, Peers};

/// The first release whose serve handlers write a PROXY header.
const PROXY_HEADER: Version = Version { major: 1, minor: 92, patch: 0 };
/// The first release that does not ignore `svc_name` in `whois`.
const SERVICE_GRANTS: Version = Version { major: 1, minor: 100, patch: 0 };

/// Between questions to a daemon that does not answer.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Why the proxy cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// tailscaled does not answer.
    #[error("cannot ask tailscaled about this node")]
    Daemon(#[source] localapi::Error),
    /// The node is not up.
    #[error("this node has no tailnet IP to listen on")]
    NoAddresses,
    /// There is no certificate to serve with.
    #[error("cannot serve TLS")]
    Certificate(#[from] BadCertificate),
    /// An address could not be listened on.
    #[error("cannot listen on {addr}")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// There is nobody to serve connections.
    #[error("cannot start the threads that serve connections")]
    Workers(#[source] io::Error),
    /// The daemon is older than what was asked for needs.
    #[error("tailscaled is {found}: {what} needs {needed} or newer")]
    TooOld {
        /// Its version.
        found: String,
        /// What was asked for.
        what: &'static str,
        /// The first version that has it.
        needed: Version,
    },
    /// The node has other addresses than when it was bound to them.
    #[error("this node's tailnet addresses are other ones now ({now}): only a restart listens there")]
    Moved {
        /// Where it would have to listen.
        now: String,
    },
    /// A task that has to run for ever ended.
    #[error("{0}")]
    Ended(String),
    /// Clients could not be told apart there.
    #[error("will not listen on {addr}: {why}")]
    Unsafe {
        /// The address.
        addr: SocketAddr,
        /// What would go wrong.
        why: &'static str,
    },
}

/// What is listened on.
pub(super) struct Bound {
    pub(super) listeners: Vec<TcpListener>,
    pub(super) certificates: Certificates,
    /// What was to be listened on.
    pub(super) addresses: BTreeSet<SocketAddr>,
}

/// Binds the listeners that `options` ask for, on the node that `localapi` knows.
pub(super) async fn bind(options: &Options, localapi: &LocalApi) -> Result<Bound, StartError> {
    let status = localapi.status(Peers::Omit).await.map_err(StartError::Daemon)?;
    let version = localapi.versions().version.unwrap_or_default();
    check_version(options, &version)?;
    let certificates = Certificates::open(&options.listen.tls, localapi, &status)?;
    let addresses = addresses(options, &status)?;
    let listeners = listeners(&addresses).await?;
    Ok(Bound { listeners, certificates, addresses: addresses.into_iter().collect() })
}

/// Waits until a node that is up would have to be listened for elsewhere than at `bound`, and says so: whoever restarts
/// us has everything checked anew. Listening on would leave it unreachable, and an address that is not the tailnet's
/// any more proves nothing.
pub(super) async fn moved(
    options: &Options,
    localapi: &LocalApi,
    netmap: &Netmap,
    bound: &BTreeSet<SocketAddr>,
) -> StartError {
    if options.listen.client == Client::ProxyHeader {
        // Loopback stays where it is.
        return std::future::pending().await;
    }
    loop {
        netmap.node_changed().await;
        let status = loop {
            match localapi.status(Peers::Omit).await {
                Ok(status) => break status,
                Err(_) => tokio::time::sleep(ASK_AGAIN).await,
            }
        };
        if State::from_name(&status.backend_state) != Some(State::Running) {
            continue;
        }
        match addresses(options, &status) {
            // It has none yet.
            Err(StartError::NoAddresses) => {}
            Err(error) => return error,
            Ok(now) if now.iter().all(|addr| bound.contains(addr)) && now.len() == bound.len() => {}
            Ok(now) => {
                let now: Vec<_> = now.iter().map(ToString::to_string).collect();
                return StartError::Moved { now: now.join(", ") };
            }
        }
    }
}

/// One listener for each address, except for those of IPv6 that the kernel does not have: tailscaled lists one even
/// where its interface could not be given it.
async fn listeners(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, StartError> {
    let (mut listeners, mut absent) = (Vec::new(), Vec::new());
    for &addr in addresses {
        match TcpListener::bind(addr).await {
            Ok(listener) => listeners.push(listener),
            Err(source) if addr.is_ipv6() && has_no_ipv6(&source) => absent.push(StartError::Bind { addr, source }),
            Err(source) => return Err(StartError::Bind { addr, source }),
        }
    }
    match absent.pop() {
        Some(error) if listeners.is_empty() => Err(error),
        Some(error) => {
            tracing::warn!("serving without IPv6, which this machine does not have for the tailnet: {}", chain(&error));
            Ok(listeners)
        }
        None => Ok(listeners),
    }
}

fn has_no_ipv6(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EADDRNOTAVAIL | Errno::EAFNOSUPPORT))
}

/// An older daemon would serve without telling who calls, or with grants of somebody else.
fn check_version(options: &Options, version: &str) -> Result<(), StartError> {
    if options.listen.client == Client::ProxyHeader {
        is_at_least(PROXY_HEADER, "the PROXY protocol", version)?;
    }
    match options.grants {
        Grants::Node => Ok(()),
        Grants::NodeThenService(_) => tells_service_grants(version),
    }
}

/// Whether a daemon of this `version` tells the grants of a Service: an older one answers with those of the node.
///
/// # Errors
/// [`StartError::TooOld`]
pub fn tells_service_grants(version: &str) -> Result<(), StartError> {
    is_at_least(SERVICE_GRANTS, "grants of a Service", version)
}

fn is_at_least(needed: Version, what: &'static str, version: &str) -> Result<(), StartError> {
    if Version::parse(version).is_some_and(|version| version >= needed) {
        return Ok(());
    }
    let found = if version.is_empty() { "of an unknown version" } else { version };
    Err(StartError::TooOld { found: found.to_owned(), what, needed })
}

fn addresses(options: &Options, status: &Status) -> Result<Vec<SocketAddr>, StartError> {
    let ours = status.self_.as_ref().map(|node| &node.tailscale_ips[..]).unwrap_or_default();
    let addr = match options.listen.at {
        At::Tailnet { port } if status.tun => {
            let addresses: Vec<_> = ours.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
            return if addresses.is_empty() { Err(StartError::NoAddresses) } else { Ok(addresses) };
        }
        // tailscaled dials it for whoever connects over the tailnet.
        At::Tailnet { port } => return Ok(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))]),
        At::Address(addr) => addr,
    };
    let refused = |why| Err(StartError::Unsafe { addr, why });
    match (options.listen.client, addr.ip().is_loopback()) {
        (_, true) => Ok(vec![addr]),
        (Client::ProxyHeader, false) => refused("whoever reaches it could claim to be anybody in a PROXY header"),
        (Client::Peer, false) if !status.tun => {
            refused("without a TUN device tailnet peers arrive on 127.0.0.1 and nowhere else")
        }
        (Client::Peer, false) if !is_ours(addr.ip(), ours) => {
            refused("a tailnet source address proves nothing on an interface that is not the tailnet's")
        }
        (Client::Peer, false) => Ok(vec![addr]),
    }
}

fn is_ours(ip: IpAddr, ours: &[IpAddr]) -> bool {
    ours.contains(&ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::super::{Limits, Listen, Mode, ServerTiming, Tls, UnrecordedStreams};
    use super::*;

    fn options(at: At, client: Client) -> Options {
        Options {
            mode: Mode::Auth,
            listen: Listen { at, client, tls: Tls::Off },
            grants: Grants::Node,
            unrecorded_streams: UnrecordedStreams::Forward,
            server_timing: ServerTiming::Hide,
            limits: Limits::default(),
        }
    }

    fn found(tun: bool, at: At, client: Client) -> String {
        let ips = ["100.64.0.2", "fd7a:115c:a1e0::2"];
        let status = json!({"TUN": tun, "BackendState": "Running", "Self": {"ID": "n", "TailscaleIPs": ips}});
        match addresses(&options(at, client), &serde_json::from_value(status).unwrap()) {
            Ok(addresses) => addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            Err(error) => format!("{:.20}", error.to_string()),
        }
    }

    #[test]
    fn only_where_the_caller_can_be_known() {
        let at = |addr: &str| At::Address(addr.parse().unwrap());
        for (tun, at, client, expected) in [
            (true, At::Tailnet { port: 443 }, Client::Peer, "100.64.0.2:443 [fd7a:115c:a1e0::2]:443"),
            (false, At::Tailnet { port: 443 }, Client::Peer, "127.0.0.1:443"),
            (true, at("100.64.0.2:8443"), Client::Peer, "100.64.0.2:8443"),
            (true, at("0.0.0.0:443"), Client::Peer, "will not listen on 0"),
            (true, at("10.0.0.1:443"), Client::Peer, "will not listen on 1"),
            (false, at("100.64.0.2:443"), Client::Peer, "will not listen on 1"),
            (false, at("127.0.0.1:0"), Client::Peer, "127.0.0.1:0"),
            (true, at("127.0.0.1:80"), Client::ProxyHeader, "127.0.0.1:80"),
            (true, at("[::1]:80"), Client::ProxyHeader, "[::1]:80"),
            (true, at("100.64.0.2:80"), Client::ProxyHeader, "will not listen on 1"),
        ] {
            assert_eq!(found(tun, at, client), expected, "{tun} {at:?} {client:?}");
        }
    }

    #[test]
    fn an_old_daemon_is_refused_for_what_it_lacks() {
        let proxied = options(At::Tailnet { port: 1 }, Client::ProxyHeader);
        let plain = options(At::Tailnet { port: 1 }, Client::Peer);
        let (_config, of_service) = tokio::sync::watch::channel(Arc::default());
        let service = Options { grants: Grants::NodeThenService(of_service), ..plain.clone() };
        for (options, version, good) in [
            (&proxied, "1.92.0-tabc", true),
            (&proxied, "1.90.9", false),
            (&proxied, "mine", false),
            (&plain, "1.76.0", true),
            (&plain, "", true),
            (&service, "1.99.3", false),
            (&service, "1.100.0", true),
        ] {
            assert_eq!(check_version(options, version).is_ok(), good, "{version}");
        }
        let said = check_version(&proxied, "1.90.9").unwrap_err().to_string();
        assert_eq!(said, "tailscaled is 1.90.9: the PROXY protocol needs 1.92.0 or newer");
    }
}
