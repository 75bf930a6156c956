//! Brings a node up and keeps it up: the container's entry point.
//!
//! [`machine`] decides (pure), the shell acts. The phases are those of boot.md 1.2: host preparation, the state
//! Secret, tailscaled and its socket, local HTTP, login, what follows a login, the steady state, the way out.
//! Follows upstream's `cmd/containerboot`.

mod announce;
mod apply;
pub mod argv;
mod certs;
mod context;
pub mod files;
pub mod flags;
pub mod forward;
mod groups;
pub mod healthcheck;
pub mod host;
mod http;
pub mod keyfile;
mod login;
pub mod login_failure;
pub mod machine;
pub mod plan;
pub mod policy;
pub mod prefs;
pub mod prepare;
mod publish;
mod reader;
mod reissue;
mod reload;
mod serving;
mod shell;
mod stop;
pub mod tailscale_cli;
pub mod termination;
mod writer;

use std::time::Instant;

pub use machine::Outcome;

use crate::causes::chain;
use crate::daemon::program::{self, Environment};
use crate::daemon::reaper;
use crate::localapi::LocalApi;
use crate::settings::{Persona, Settings, Tun, vars};
use crate::shutdown::Signals;

/// Runs a boot from host preparation to the last line. Returns how it ended; the caller turns that into an exit code.
pub async fn run(settings: Settings, inherited: &Environment, signals: &mut Signals) -> Outcome {
    let plan = match forward::wanted::Plan::of(&settings) {
        Ok(plan) => plan,
        Err(text) => return Outcome::Failed(text),
    };
    if settings.daemon.tun == Tun::Kernel
        && let Err(error) = host::prepare(&settings)
    {
        let mut lines = error.lines();
        let last = lines.pop().unwrap_or_else(|| error.to_string());
        for line in lines {
            tracing::error!("{line}");
        }
        return Outcome::Failed(last);
    }
    let deadline = Instant::now() + settings.boot_timeout;
    let prepared = tokio::select! {
        biased;
        _ = signals.next() => return Outcome::Requested,
        prepared = prepare::prepare(&settings, deadline.into()) => prepared,
    };
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            if let Some(hint) = error.hint() {
                tracing::warn!("{hint}");
            }
            return Outcome::Failed(chain(&error));
        }
    };
    let policy = policy::policy(&settings, prepared.store());
    // What bounds the login alone does not count the wait for the API server.
    let deadline = deadline.min(Instant::now() + policy.boot_timeout);
    let boot = machine::Boot::new(policy, deadline);
    let api = LocalApi::new(&settings.daemon.socket);
    let baseline = reload::Baseline::read(context::config_path(&settings));
    let environment = children_environment(&settings, inherited);
    let children = reaper::Children::new();
    let context = context::Context { settings, plan, environment, children, prepared, api, baseline };
    shell::Shell::new(context, boot).run(signals).await
}

/// What children see of our environment. Names we do not know are never removed; as `tailpod boot` those that
/// hold secrets are (boot.md E.2).
fn children_environment(settings: &Settings, inherited: &Environment) -> Environment {
    let dropped: Vec<_> = match settings.persona {
        Persona::Containerboot => Vec::new(),
        Persona::Tailpod => vars::secret_names().collect(),
    };
    let mode = settings.cert_share.map(|share| (vars::TS_CERT_SHARE_MODE.name, share.mode()));
    program::child_environment(inherited, &dropped, mode.as_slice())
}
