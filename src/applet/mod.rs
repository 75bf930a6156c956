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
use std::pin::pin;

use anyhow::{Context as _, anyhow};

use crate::cli::exit::ExitStatus;
use crate::settings::{Vars, vars};
use crate::shutdown::{Signal, Signals};

/// tailscaled's socket, where no flag says it: `TS_SOCKET`.
fn socket(vars: &dyn Vars) -> PathBuf {
    let set = vars.get(vars::TS_SOCKET.name).ok().flatten().filter(|path| !path.is_empty());
    PathBuf::from(set.unwrap_or_else(|| vars::TS_SOCKET.default.to_owned()))
}

/// Works until that is done or a signal comes. The work is dropped then, and with it the processes that it has started:
/// a credential plugin has its own process group, which the terminal's SIGINT does not reach.
async fn interruptible(work: impl Future<Output = anyhow::Result<ExitStatus>>) -> anyhow::Result<ExitStatus> {
    let mut signals = Signals::install().context("cannot watch for signals")?;
    let mut work = pin!(work);
    tokio::select! {
        biased;
        result = work.as_mut() => result,
        signal = signals.next() => interrupted(signal),
    }
}

/// What a signal makes of work that was not done.
fn interrupted(signal: Signal) -> anyhow::Result<ExitStatus> {
    match signal {
        Signal::Interrupt => Ok(ExitStatus::Interrupted),
        Signal::Terminate => Err(anyhow!("stopped by {signal} before it was done")),
    }
}
