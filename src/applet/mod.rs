//! One file per applet: an `Args` struct and `run`. Wiring, no logic.
//!
//! An applet is where features meet: it reads settings, builds the adapters, hands them to the features, and turns
//! their errors into a message, hints and an exit status. To add one, write its file, name it in
//! [`cli::Applet`](crate::cli::Applet) and give it a line in the dispatch below that.

pub mod authkey;
pub mod boot;
pub mod certs;
pub mod complete;
pub mod doctor;
pub mod generate;
pub mod healthcheck;
pub mod install_links;
pub mod proxy;
#[cfg(feature = "sandbox")]
pub mod sandbox;
pub mod secret;

use std::path::PathBuf;

use crate::settings::{Vars, vars};

/// tailscaled's socket, where no flag says it: `TS_SOCKET`.
fn socket(vars: &dyn Vars) -> PathBuf {
    let set = vars.get(vars::TS_SOCKET.name).ok().flatten().filter(|path| !path.is_empty());
    PathBuf::from(set.unwrap_or_else(|| vars::TS_SOCKET.default.to_owned()))
}
