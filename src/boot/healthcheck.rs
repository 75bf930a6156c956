//! The client of the local health endpoints: what `tailpod boot healthcheck` asks.
//!
//! An exec probe for images without a shell or a HTTP client. It asks the listener on this host and reports the
//! answer with its reason; not being able to ask is an error, which is not the same as "no".

use std::net::SocketAddr;
use std::time::Duration;

use hyper::StatusCode;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::health::{get, reachable};

/// Which question to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Upstream's: has the node a tailnet IP?
    Healthz,
    /// Does the boot loop move?
    Livez,
    /// Is everything as it shall be?
    Readyz,
}

impl Probe {
    fn path(self) -> &'static str {
        match self {
            Self::Healthz => "/healthz",
            Self::Livez => "/livez",
            Self::Readyz => "/readyz?verbose",
        }
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Healthy,
    /// No, and why; one line per failed check.
    Unhealthy(String),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Nothing listens there.
    #[error("nothing answers at {addr}; is the health endpoint enabled (TS_ENABLE_HEALTH_CHECK)?")]
    Connect {
        /// The address that was asked.
        addr: SocketAddr,
        /// What happened.
        source: std::io::Error,
    },
    /// Something listens, and does not speak HTTP.
    #[error("no HTTP answer from {addr}")]
    Http {
        /// The address that was asked.
        addr: SocketAddr,
        /// What happened.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The listener does not serve this question.
    #[error("{addr} does not serve {path}: {status}")]
    Unexpected {
        /// The address that was asked.
        addr: SocketAddr,
        /// The path that was asked for.
        path: &'static str,
        /// The answer's status.
        status: StatusCode,
    },
    /// It took too long.
    #[error("no answer from {addr} within {limit:?}")]
    TimedOut {
        /// The address that was asked.
        addr: SocketAddr,
        /// The time it had.
        limit: Duration,
    },
}

/// Asks the listener at `addr` (an unspecified address means this host) within `limit`.
pub async fn check(addr: SocketAddr, probe: Probe, limit: Duration) -> Result<Verdict, ProbeError> {
    let addr = reachable(addr);
    timeout(limit, ask(addr, probe)).await.unwrap_or(Err(ProbeError::TimedOut { addr, limit }))
}

async fn ask(addr: SocketAddr, probe: Probe) -> Result<Verdict, ProbeError> {
    let stream = TcpStream::connect(addr).await.map_err(|source| ProbeError::Connect { addr, source })?;
    let host = addr.to_string();
    let answer = get(stream, &host, probe.path()).await.map_err(|source| ProbeError::Http { addr, source })?;
    match answer.status() {
        StatusCode::OK => Ok(Verdict::Healthy),
        StatusCode::SERVICE_UNAVAILABLE => Ok(Verdict::Unhealthy(reasons(&String::from_utf8_lossy(answer.body())))),
        status => Err(ProbeError::Unexpected { addr, path: probe.path(), status }),
    }
}

/// The failed checks of a verbose answer; any other answer as it is.
fn reasons(text: &str) -> String {
    let failed: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("[-]")).collect();
    if failed.is_empty() { text.trim().to_owned() } else { failed.join("\n") }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpSocket};
    use tokio::task::JoinSet;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::health::{HealthHandle, HealthRoutes, Routes, Server, Weight};

    const LIMIT: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn asks_the_listener_of_this_host() {
        let handle = HealthHandle::silent();
        let health = HealthRoutes { snapshot: handle.subscribe(), pod_ipv4: None, pod_ipv6: None, probes: true };
        let server = Server::bind("test", "0.0.0.0:0".parse().unwrap(), Routes::new(Some(health), None)).unwrap();
        let addr = SocketAddr::from((Ipv4Addr::UNSPECIFIED, server.local_addr().unwrap().port()));
        let mut serving = JoinSet::new();
        serving.spawn(server.serve(CancellationToken::new()));

        let no = Verdict::Unhealthy("node currently has no tailscale IPs".to_owned());
        assert_eq!(check(addr, Probe::Healthz, LIMIT).await.unwrap(), no);
        assert_eq!(check(addr, Probe::Livez, LIMIT).await.unwrap(), Verdict::Healthy);
        handle.report("bus", Weight::Vital, Some("lost".to_owned()));
        let no = "tailnet-ip failed: node currently has no tailscale IPs\nbus failed: lost";
        assert_eq!(check(addr, Probe::Readyz, LIMIT).await.unwrap(), Verdict::Unhealthy(no.to_owned()));
        handle.set(|snapshot| snapshot.addresses = true);
        handle.report("bus", Weight::Vital, None);
        for probe in [Probe::Healthz, Probe::Readyz] {
            assert_eq!(check(addr, probe, LIMIT).await.unwrap(), Verdict::Healthy);
        }
    }

    #[tokio::test]
    async fn not_being_able_to_ask_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let error = check(addr, Probe::Healthz, Duration::from_millis(20)).await.unwrap_err();
        assert_eq!(error.to_string(), format!("no answer from {addr} within 20ms"));

        for (answer, expected) in [
            ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "does not serve /healthz: 404 Not Found"),
            ("SSH-2.0-OpenSSH_9.2\r\n", "no HTTP answer from"),
        ] {
            let serve = async {
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let mut request = [0; 1024];
                    let _ = stream.read(&mut request).await;
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            };
            let error = tokio::select! {
                asked = check(addr, Probe::Healthz, LIMIT) => asked.unwrap_err(),
                () = serve => unreachable!(),
            };
            assert!(error.to_string().contains(expected), "{error}");
        }

        // Bound and not listening: refused for certain, and nobody else can take the port.
        let deaf = TcpSocket::new_v4().unwrap();
        deaf.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let error = check(deaf.local_addr().unwrap(), Probe::Healthz, LIMIT).await.unwrap_err();
        assert!(error.to_string().contains("TS_ENABLE_HEALTH_CHECK"), "{error}");
    }
}
