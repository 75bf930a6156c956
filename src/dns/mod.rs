//! DNS names to addresses and how long they hold: the system's resolver configuration, asked directly.
//!
//! The resolver of the C library does not tell lifetimes, so this is a small one of our own, which reads what it reads,
//! `/etc/hosts` and `/etc/resolv.conf`, afresh for each lookup and treats both as musl does. Follows RFC 1035 as far as
//! a stub has to: queries for A and AAAA, over UDP and, where the answer does not fit, TCP.

pub mod config;
pub mod message;

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use self::config::Config;
use self::message::{Code, Kind, Query, Reply};

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// At least one.
    pub addresses: BTreeSet<IpAddr>,
    /// How long they hold, where DNS says so.
    pub ttl: Option<Duration>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum LookUpError {
    /// Nobody has the name, or it has no address.
    #[error("lookup {0}: no such host")]
    NoSuchHost(String),
    /// The text cannot be a name.
    #[error("lookup {0}: not a domain name")]
    NotAName(String),
    /// No server answered as it should.
    #[error("lookup {name} on {server}")]
    Server {
        /// The name that was asked for.
        name: String,
        /// The server that was asked last.
        server: SocketAddr,
        /// What became of it.
        source: io::Error,
    },
}

/// Looks names up. Cheap; keeps nothing.
#[derive(Clone, Debug)]
pub struct Resolver {
    hosts: PathBuf,
    config: PathBuf,
}

/// What servers say of one name and kind of address.
enum Found {
    Addresses(Vec<IpAddr>, Option<Duration>),
    /// There is such a name, without addresses of this kind.
    Nothing,
    NoSuchName,
}

impl Resolver {
    /// With the files below `root`, where there are such.
    pub fn new(root: &Path) -> Self {
        let file = |name: &str| {
            let below = root.join("etc").join(name);
            if below.exists() { below } else { Path::new("/etc").join(name) }
        };
        Self { hosts: file("hosts"), config: file("resolv.conf") }
    }

    /// The addresses of a name, of both families.
    ///
    /// # Errors
    /// There are none, or that cannot be found out.
    pub async fn look_up(&self, name: &str) -> Result<Answer, LookUpError> {
        if let Ok(ip) = name.parse() {
            return Ok(Answer { addresses: [ip].into(), ttl: None });
        }
        let hosts = tokio::fs::read_to_string(&self.hosts).await.unwrap_or_default();
        let addresses = config::host(&hosts, name);
        if !addresses.is_empty() {
            return Ok(Answer { addresses, ttl: None });
        }
        let config = Config::parse(&tokio::fs::read_to_string(&self.config).await.unwrap_or_default());
        for candidate in config.candidates(name) {
            let (v4, v6) = tokio::join!(
                ask(&config, &candidate, Kind::A),
                // Most names have none of these; a server that fails on them shall not hide the others.
                ask(&config, &candidate, Kind::Aaaa)
            );
            let (v4, v6) = (v4?, v6?);
            let mut addresses = BTreeSet::new();
            let mut ttl: Option<Duration> = None;
            let unknown = matches!((&v4, &v6), (Found::NoSuchName, Found::NoSuchName));
            for found in [v4, v6] {
                if let Found::Addresses(list, holds) = found {
                    addresses.extend(list);
                    ttl = ttl.into_iter().chain(holds).min();
                }
            }
            if !addresses.is_empty() {
                return Ok(Answer { addresses, ttl });
            }
            // As musl: a name that exists ends the search.
            if !unknown {
                break;
            }
        }
        Err(LookUpError::NoSuchHost(name.to_owned()))
    }
}

/// Asks the servers, one after the other, as often as the configuration says.
async fn ask(config: &Config, name: &str, kind: Kind) -> Result<Found, LookUpError> {
    let mut last = None;
    for _ in 0..config.attempts {
        for server in &config.servers {
            let query = Query::new(id(), name, kind).ok_or_else(|| LookUpError::NotAName(name.to_owned()))?;
            let error = match timeout(config.timeout, exchange(*server, &query)).await {
                Ok(Ok(Reply { code: Code::NoError, addresses, ttl })) if !addresses.is_empty() => {
                    return Ok(Found::Addresses(addresses, ttl));
                }
                Ok(Ok(Reply { code: Code::NoError, .. })) => return Ok(Found::Nothing),
                Ok(Ok(Reply { code: Code::NoSuchName, .. })) => return Ok(Found::NoSuchName),
                Ok(Ok(Reply { code: Code::Failure(code), .. })) => {
                    io::Error::other(format!("server misbehaving (code {code})"))
                }
                Ok(Err(error)) => error,
                Err(_) => io::Error::new(io::ErrorKind::TimedOut, "no answer in time"),
            };
            last = Some((*server, error));
        }
    }
    Err(match last {
        Some((server, source)) => LookUpError::Server { name: name.to_owned(), server, source },
        None => LookUpError::NoSuchHost(name.to_owned()),
    })
}

/// One question and its answer.
async fn exchange(server: SocketAddr, query: &Query) -> io::Result<Reply> {
    let any: SocketAddr = if server.is_ipv4() { ([0_u8; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(query.bytes()).await?;
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        match query.read(&buffer[..length]) {
            Ok(Some(reply)) => return Ok(reply),
            Ok(None) => return exchange_whole(server, query).await,
            // Not the answer to this question: somebody else's, or a late one.
            Err(_) => {}
        }
    }
}

/// The same over TCP.
async fn exchange_whole(server: SocketAddr, query: &Query) -> io::Result<Reply> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.bytes().len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(query.bytes()).await?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).await?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message).await?;
    match query.read(&message) {
        Ok(Some(reply)) => Ok(reply),
        Ok(None) => Err(io::Error::new(io::ErrorKind::InvalidData, "a truncated answer over TCP")),
        Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
    }
}

/// A number that nobody can guess, beside the port that nobody can guess either.
fn id() -> u16 {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    #[expect(clippy::cast_possible_truncation, reason = "16 bits of it are wanted")]
    let id = RandomState::new().build_hasher().finish() as u16;
    id
}

#[cfg(test)]
mod tests;
