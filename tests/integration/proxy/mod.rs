//! `tailpod proxy`: the built binary between a pretend tailscaled and a pretend API server.
//!
//! Tests that stand for a row of api-proxy.md 14 begin with its number.

mod arrangements;
mod bodies;
mod clock;
mod crowd;
mod faults;
mod framing;
mod hop;
mod hostile;
mod identity;
mod inside;
mod interim;
mod leaving;
mod limits;
mod log;
mod operation;
mod pool;
mod reaching;
mod recording;
mod tls;
mod upgrade;
mod upstream;
mod watch;
pub(crate) mod world;
