//! Keep-alive probes: how a peer that vanished without a word is noticed on a connection that may be silent for hours.

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::TcpStream;

/// Seconds of silence before the first probe, and between probes; Go's dialers and listeners are no more patient.
const SILENCE: u32 = 30;

/// Turns the probes on. A peer that answers none of them, by the kernel's count, breaks the connection.
pub fn keep_alive(stream: &TcpStream) -> nix::Result<()> {
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &SILENCE)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &SILENCE)
}
