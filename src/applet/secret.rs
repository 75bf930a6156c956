//! `tailpod secret`: look at the state Secret, compare it, follow it, mend it.

mod compare;
mod follow;
mod look;
mod mend;
mod show;

use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, anyhow};
use jiff::Timestamp;
use tokio::time::timeout;

use super::boot::daemon_version;
use crate::cli::cluster::{ClusterArgs, SecretRef, Target, advised};
use crate::cli::exit::ExitStatus;
use crate::cli::later::Later;
use crate::cli::output::Output;
use crate::cli::report::Advise;
use crate::k8s::state::{self, StateSecret};
use crate::k8s::{Error, Resource, RoleRule, Verb};
use crate::localapi::{LocalApi, Peers};
use crate::settings::{KubeAccess, ProcessEnv, Vars, vars};
use crate::shutdown::{Signal, Signals};
use crate::statesecret::inspect::LocalNode;
use crate::statesecret::{FullName, Known};

/// Names us to the API server.
const COMPONENT: &str = "secret";
/// The daemon answers about itself in milliseconds.
const DAEMON_LIMIT: Duration = Duration::from_secs(2);

/// What to do with it.
#[derive(Debug, clap::Args)]
#[command(
    disable_help_subcommand = true,
    long_about = "Look at the state Secret and mend it.\n\n\
        The state Secret holds what a node is: tailscaled's keys and profiles, the device as it is published, requests \
        for auth keys. Values that are secrets are shown as their length and a fingerprint.",
    after_long_help = "\
Examples:
  tailpod secret inspect                    What the Secret of this Pod says, and what is wrong with it
  tailpod secret inspect tailscale/ts-0     The same for another one
  tailpod secret diff ts-0 ts-1             Which keys differ
  tailpod secret watch                      One line for each change
  tailpod secret repair --yes               Mend what can be mended, keep a copy of what was"
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show what it says about the node, and what is wrong with it
    Inspect(Later<look::Args>),
    /// Compare it with another one, or with a saved one
    Diff(Later<compare::Args>),
    /// Follow it: one line for each change
    Watch(Later<follow::Args>),
    /// Mend what can be mended
    Repair(Later<mend::Args>),
}

/// The Secret of a command that takes one.
#[derive(Debug, clap::Args)]
struct Which {
    /// The state Secret; by default the one that --secret or the environment names
    #[arg(value_name = "[NS/]NAME")]
    name: Option<SecretRef>,
}

/// Runs it until it is done or interrupted.
pub async fn run(args: Args, out: &Output) -> anyhow::Result<ExitStatus> {
    let vars = ProcessEnv::capture();
    let mut signals = Signals::install().context("cannot watch for signals")?;
    let Args { command, cluster } = &args;
    let work = async {
        match command {
            Command::Inspect(Later(args)) => look::run(args, cluster, &vars, out).await,
            Command::Diff(Later(args)) => compare::run(args, cluster, &vars, out).await,
            Command::Watch(Later(args)) => follow::run(args, cluster, &vars, out).await,
            Command::Repair(Later(args)) => mend::run(args, cluster, &vars, out).await,
        }
    };
    let mut work = pin!(work);
    tokio::select! {
        biased;
        result = work.as_mut() => result,
        signal = signals.next() => match (signal, command) {
            // A watch has no other end.
            (Signal::Terminate, Command::Watch(_)) => Ok(ExitStatus::Done),
            _ => super::interrupted(signal),
        }
    }
}

// === The Secret ===

impl Which {
    async fn target(&self, cluster: &ClusterArgs, vars: &dyn Vars) -> anyhow::Result<Target> {
        match (&self.name, &cluster.secret) {
            (Some(name), Some(flag)) if name != flag => {
                let error = anyhow!("two Secrets: one as an argument, another one from `--secret`");
                Err(error.exit_with(ExitStatus::Usage))
            }
            (Some(name), _) => cluster.target_of(name.clone(), vars, COMPONENT).await,
            (None, _) => cluster.target(vars, COMPONENT).await,
        }
    }
}

fn full_name(target: &Target) -> FullName {
    FullName { namespace: target.cluster.namespace().to_owned(), name: target.name.clone() }
}

/// What a read of the Secret came to.
fn found<T>(target: &Target, read: Result<Option<T>, Error>) -> anyhow::Result<T> {
    match read {
        Ok(Some(secret)) => Ok(secret),
        Ok(None) => {
            let hint = format!("kubectl -n {} get secrets", target.cluster.namespace());
            Err(anyhow!("{target} does not exist").hint(format!("what there is: {hint}")).exit_with(ExitStatus::No))
        }
        Err(error) => Err(advised(error).context(format!("cannot read {target}"))),
    }
}

// === What is known beside it ===

/// Gathers it, as far as each part can be had; notes say what could not.
async fn known(
    target: &Target,
    secret: &StateSecret,
    named_version: Option<&str>,
    cluster: &ClusterArgs,
    vars: &dyn Vars,
) -> (Known, Vec<String>) {
    let mut notes = Vec::new();
    let (pods, daemon, on_path) = tokio::join!(target.cluster.pods(), running_daemon(vars), daemon_version());
    let pods = match pods {
        Ok(pods) => Some(pods),
        Err(error) => {
            notes.push(format!("which Pods live is not known: {}", without_pods(&error)));
            None
        }
    };
    let daemon = daemon.filter(|(node, _)| is_of(secret, &node.id));
    // From outside, the tailscaled at hand is not the node's.
    let in_pod = matches!(cluster.access(vars), Ok(KubeAccess::InCluster { .. }));
    let at_hand = daemon.as_ref().map(|(_, version)| version.clone()).or(on_path.filter(|_| in_pod));
    let known = Known {
        now: Timestamp::now(),
        pods,
        daemon_version: named_version.map(str::to_owned).or(at_hand),
        node: daemon.map(|(node, _)| node),
    };
    (known, notes)
}

fn without_pods(error: &Error) -> String {
    match error {
        Error::Denied { .. } => {
            let rule = RoleRule::new(Resource::Pods, None, [Verb::List]);
            format!("{error}; the Role lacks:\n{rule}")
        }
        _ => error.to_string(),
    }
}

/// The node of the tailscaled that runs here, and its version.
async fn running_daemon(vars: &dyn Vars) -> Option<(LocalNode, String)> {
    let socket = vars.get(vars::TS_SOCKET.name).ok().flatten().filter(|path| !path.is_empty());
    let socket = socket.unwrap_or_else(|| vars::TS_SOCKET.default.to_owned());
    let api = LocalApi::new(socket.as_ref());
    if !std::path::Path::new(&socket).exists() {
        return None;
    }
    let status = timeout(DAEMON_LIMIT, api.status(Peers::Omit)).await.ok()?.ok()?;
    let node = status.self_.filter(|node| !node.id.is_empty())?;
    Some((LocalNode { id: node.id, key_expiry: node.key_expiry }, status.version))
}

/// Whether the node `id` is the Secret's.
fn is_of(secret: &StateSecret, id: &str) -> bool {
    let quoted = format!("\"{id}\"");
    secret.text(state::DEVICE_ID) == Some(id)
        || secret.text(state::KNOWN_PROFILES).is_some_and(|profiles| profiles.contains(&quoted))
}
