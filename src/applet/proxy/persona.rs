//! The persona `k8s-proxy`: from the environment and the few flags that go with it to the running node.

use std::path::Path;

use anyhow::Context;

use super::{Args, BEHIND_SERVE};
use crate::boot::termination;
use crate::cli::cluster::ClusterArgs;
use crate::cli::exit::ExitStatus;
use crate::cli::program::Invocation;
use crate::proxy::k8s_proxy::{self, Extras, Outcome};
use crate::settings::{Note, NoteLevel, ProcessEnv, Vars, proxy};
use crate::shutdown::{self, Signals};

/// Whether this run is the persona: it was called by its name, or the environment names its config and nothing asks
/// for a run beside a tailscaled that is there.
pub(super) fn is_meant(args: &Args, invocation: &Invocation, vars: &dyn Vars) -> bool {
    args.command.is_none()
        && (invocation.link == Some("k8s-proxy")
            || (args.config.is_none() && args.socket.is_none() && proxy::is_asked_for(vars)))
}

/// Runs it. As upstream, whatever goes wrong ends with 1.
pub(super) async fn run(args: Args, vars: ProcessEnv) -> anyhow::Result<ExitStatus> {
    let mut signals = Signals::install().context("cannot watch for signals")?;
    let settings = match proxy::read(&vars, args.config.as_deref()) {
        Ok(settings) => settings,
        Err(problems) => {
            problems.lines().iter().for_each(|line| tracing::error!("{line}"));
            problems.hints().iter().for_each(|hint| tracing::info!("hint: {hint}"));
            return Ok(ExitStatus::Failed);
        }
    };
    if let Some(flag) = args.set_by_config() {
        tracing::warn!("{flag} has no effect here: the config says it");
    }
    for Note { level, text } in &settings.notes {
        match level {
            NoteLevel::Info => tracing::info!("{text}"),
            NoteLevel::Warning => tracing::warn!("{text}"),
        }
    }
    let (service_grants, unrecorded_streams) = (args.service_grants, args.unrecorded_streams());
    let server_timing = args.server_timing();
    let cluster = ClusterArgs { kubeconfig: args.kubeconfig, context: args.context, ..ClusterArgs::default() };
    let access = match cluster.access_by_address(&vars) {
        Ok(access) => access,
        Err(error) => {
            tracing::error!("{error:#}");
            return Ok(ExitStatus::Failed);
        }
    };
    let listen = args.listen.unwrap_or(BEHIND_SERVE);
    let extras = Extras { listen, service_grants, unrecorded_streams, server_timing, access };
    // A connection takes two descriptors.
    if let Err(error) = shutdown::raise_open_files_limit() {
        tracing::warn!("cannot raise the limit on open files: {error}");
    }
    let last_words = settings.termination_log.clone();
    let outcome = k8s_proxy::run(settings, extras, &vars.into_variables(), &mut signals).await;
    Ok(conclude(&outcome, last_words.as_deref()))
}

fn conclude(outcome: &Outcome, last_words: Option<&Path>) -> ExitStatus {
    let Outcome::Failed(message) = outcome else { return ExitStatus::Done };
    tracing::error!("{message}");
    if let Some(path) = last_words
        && let Err(error) = termination::write(path, message)
    {
        tracing::debug!("the termination message was not written: {error}");
    }
    ExitStatus::Failed
}
