//! The first of several addresses that is reached (RFC 8305, "Happy Eyeballs").
//!
//! A name often has an IPv6 address that leads nowhere, and an API server with several may have one that is down. Go's
//! dialler, with which kubectl and upstream get there, does not wait for these either.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// Before the next address is tried beside those that have not answered (RFC 8305 section 5).
const STAGGER: Duration = Duration::from_millis(250);

/// Tries them in their order, the next one when one has failed or has kept us waiting.
///
/// # Errors
/// Why the last one failed; [`io::ErrorKind::TimedOut`] when none was reached by `until`, [`io::ErrorKind::NotFound`]
/// when there is none.
pub(super) async fn first_of(addresses: Vec<SocketAddr>, until: Instant) -> io::Result<TcpStream> {
    let mut left = addresses.into_iter();
    let mut tries = JoinSet::new();
    let mut last = io::ErrorKind::NotFound.into();
    loop {
        if let Some(address) = left.next() {
            tries.spawn(TcpStream::connect(address));
        }
        let pause = if left.len() == 0 { until } else { until.min(Instant::now() + STAGGER) };
        match timeout_at(pause, tries.join_next()).await {
            Ok(Some(Ok(Ok(stream)))) => return Ok(stream),
            Ok(Some(Ok(Err(error)))) => last = error,
            Ok(Some(Err(error))) => last = error.into(),
            Ok(None) => return Err(last),
            Err(_) if pause == until => return Err(io::ErrorKind::TimedOut.into()),
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    /// An address that answers no SYN, for as long as the rest is held: one connection is all that waits there.
    async fn swallowing() -> (SocketAddr, TcpListener, TcpStream) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let first = TcpStream::connect(address).await.unwrap();
        (address, listener, first)
    }

    /// An address where nobody listens.
    async fn refusing() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_swallows_packets_costs_a_moment() {
        let (dead, _listener, _first) = swallowing().await;
        let live = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let live = (live.local_addr().unwrap(), live);
        let refused = refusing().await;
        for (limit, addresses, waited) in [
            (30, vec![dead, live.0], 250),
            (30, vec![dead, dead, live.0], 500),
            (30, vec![live.0, dead], 0),
            (30, vec![refused, live.0], 0),
            (30, vec![dead, refused, live.0], 250),
        ] {
            let begun = Instant::now();
            let reached = first_of(addresses, begun + Duration::from_secs(limit)).await.unwrap();
            assert_eq!(reached.peer_addr().unwrap(), live.0);
            assert_eq!(begun.elapsed().as_millis(), waited);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn none_that_is_reached_is_an_error_in_time() {
        let (dead, _listener, _first) = swallowing().await;
        let refused = refusing().await;
        for (addresses, kind, waited) in [
            (vec![dead, dead], io::ErrorKind::TimedOut, 5),
            (vec![dead, refused], io::ErrorKind::TimedOut, 5),
            (vec![refused, refused], io::ErrorKind::ConnectionRefused, 0),
            (vec![], io::ErrorKind::NotFound, 0),
        ] {
            let begun = Instant::now();
            let error = first_of(addresses, begun + Duration::from_secs(5)).await.unwrap_err();
            assert_eq!((error.kind(), begun.elapsed().as_secs()), (kind, waited));
        }
    }
}
