//! One health check through the cluster: who answers?

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hyper::Uri;
use hyper::header::HeaderMap;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::causes::chain;
use crate::health::get;
use crate::netfilter::ruleset::Family;

/// From the name to the whole answer.
const LIMIT: Duration = Duration::from_secs(3);

/// Where `/healthz` of some replica is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    host: String,
    port: u16,
    target: String,
}

/// Whom to look for, and in which family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// This Pod's address.
    pub ours: IpAddr,
    /// The only family to ask in; `None` where the Pod has but one address and the cluster decides.
    pub within: Option<Family>,
}

/// Who answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// This Pod: clients may still be led here.
    Ours,
    /// Another one.
    Other,
    /// There is nobody to answer.
    Nobody,
    /// No telling.
    Unknown(String),
}

impl Endpoint {
    /// `None` when no request could be made of it.
    pub fn parse(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        if uri.scheme_str() != Some("http") {
            return None;
        }
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
        let target = uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
        Some(Self { host, port: uri.port_u16().unwrap_or(80), target })
    }

    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// Asks once, over a connection of its own: the cluster chooses a replica for each connection.
pub async fn ask(endpoint: &Endpoint, look: Look) -> Heard {
    match timeout(LIMIT, exchange(endpoint, look)).await {
        Ok(heard) => heard,
        Err(_) => Heard::Unknown(format!("no answer within {LIMIT:?}")),
    }
}

async fn exchange(endpoint: &Endpoint, look: Look) -> Heard {
    let addresses = match lookup_host((endpoint.host.as_str(), endpoint.port)).await {
        Ok(addresses) => addresses.filter(|addr| look.within.is_none_or(|family| Family::of(addr.ip()) == family)),
        Err(error) => return Heard::Unknown(format!("{} cannot be looked up: {error}", endpoint.host)),
    };
    let stream = match connect(addresses).await {
        Ok(Some(stream)) => stream,
        Ok(None) => return Heard::Nobody,
        Err(error) => return Heard::Unknown(format!("{} cannot be connected to: {error}", endpoint.host)),
    };
    match get(stream, &endpoint.authority(), &endpoint.target).await {
        Ok(answer) if is_from(answer.headers(), look.ours) => Heard::Ours,
        Ok(_) => Heard::Other,
        Err(error) => Heard::Unknown(chain(&*error)),
    }
}

/// The first that takes a connection; `None` when nobody listens at any of them.
async fn connect(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<Option<TcpStream>> {
    let mut unclear = None;
    for addr in addresses {
        match TcpStream::connect(addr).await {
            Ok(stream) => return Ok(Some(stream)),
            Err(error) => match error.kind() {
                // What kube-proxy makes of a Service without endpoints, and routers of an address that nobody has.
                ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {}
                _ => unclear = Some(error),
            },
        }
    }
    unclear.map_or(Ok(None), Err)
}

/// Whether `/healthz` says that it is of this Pod.
fn is_from(headers: &HeaderMap, ours: IpAddr) -> bool {
    let name = if ours.is_ipv4() { "pod-ipv4" } else { "pod-ipv6" };
    let told = headers.get(name).and_then(|value| value.to_str().ok());
    told.is_some_and(|told| told.trim().parse() == Ok(ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_plain_url() {
        let parsed = |url| Endpoint::parse(url).map(|endpoint| (endpoint.authority(), endpoint.target));
        let ours = |authority: &str, target: &str| Some((authority.to_owned(), target.to_owned()));
        assert_eq!(
            parsed("http://ts-web.tailscale.svc.cluster.local:9002/healthz"),
            ours("ts-web.tailscale.svc.cluster.local:9002", "/healthz")
        );
        assert_eq!(parsed("http://[fd42::7]:9002/healthz?a=b"), ours("[fd42::7]:9002", "/healthz?a=b"));
        assert_eq!(parsed("http://svc"), ours("svc:80", "/"));
        for bad in ["", "svc:9002/healthz", "https://svc/healthz", "http://", "http://a b/", "/healthz"] {
            assert_eq!(parsed(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_pod_is_told_by_its_address_however_it_is_written() {
        let headers = |name: &'static str, value: &'static str| {
            HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
        };
        let (v4, v6): (IpAddr, IpAddr) = ("10.42.0.7".parse().unwrap(), "fd42::7".parse().unwrap());
        assert!(is_from(&headers("pod-ipv4", "10.42.0.7"), v4));
        assert!(is_from(&headers("pod-ipv6", "FD42:0::7"), v6));
        assert!(!is_from(&headers("pod-ipv4", "10.42.0.70"), v4));
        assert!(!is_from(&headers("pod-ipv6", "fd42::7"), v4));
        assert!(!is_from(&HeaderMap::new(), v4));
    }
}
