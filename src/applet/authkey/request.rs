//! `tailpod authkey request`.

use anyhow::anyhow;

use super::event::{self, Event};
use super::source::{self, Files};
use super::{COMPONENT, Writer, wait};
use crate::authkey;
use crate::cli::cluster::{ClusterArgs, Target, advised};
use crate::cli::exit::ExitStatus;
use crate::cli::output::Output;
use crate::cli::report::Advise;
use crate::k8s::state::{self, StateSecret};
use crate::secret::Secret;
use crate::settings::Vars;

/// Which key failed.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Ask for a new auth key in place of one that failed.\n\n\
        Writes the key that failed into the state Secret as `reissue_authkey`, which is what the operator answers to. \
        The key is the one in `--key-file`, in `--config`, on standard input if something is piped in, or else the \
        Secret's own `authkey`. Nothing is written when there is no such key, or when it has been asked for already.",
    after_long_help = "\
Examples:
  tailpod authkey request                                In place of the key in the state Secret
  tailpod authkey request --config /etc/tsconfig/ts-0    In place of the one in the node's config
  tailpod authkey request --wait --timeout 30m           Return when the new one is there
  pass show tailscale/key | tailpod authkey request --secret tailscale/ts-0"
)]
pub(super) struct Args {
    #[command(flatten)]
    files: Files,

    /// Ask even without a key that failed, or once more
    #[arg(long)]
    force: bool,

    /// Go on as `wait` does, and return when the new key is there
    #[arg(long)]
    wait: bool,

    #[command(flatten)]
    waiting: wait::Waiting,

    #[command(flatten)]
    writer: Writer,
}

/// Runs it.
pub(super) async fn run(
    args: &Args,
    cluster: &ClusterArgs,
    vars: &dyn Vars,
    out: &Output,
) -> anyhow::Result<ExitStatus> {
    if !args.wait {
        if args.files.key_file.is_some() && args.files.config.is_some() {
            let error = anyhow!("the key that failed is in `--key-file` or in `--config`, not in both");
            return Err(error.hint("with `--wait`, the new one appears in `--config`").exit_with(ExitStatus::Usage));
        }
        if let Some(flag) = args.waiting.given() {
            return Err(anyhow!("`{flag}` is about waiting").hint("add `--wait`").exit_with(ExitStatus::Usage));
        }
    }
    let config = args.files.config_file(vars).await?;
    let given = match (args.files.key().await?, &config) {
        (Some(key), _) => Some((key, "the key file")),
        (None, Some(path)) => Some((source::key_in_config(path)?, "the config")),
        (None, None) => source::piped_key(out).await?.map(|key| (key, "standard input")),
    };
    let target = cluster.target(vars, COMPONENT).await?;
    let secret = existing(&target).await?;
    let (failed, place) =
        given.unwrap_or_else(|| (secret.auth_key(state::AUTHKEY).unwrap_or_default(), "the Secret's `authkey`"));
    send(args, &target, &secret, &failed, place, out).await?;
    if !args.wait {
        return Ok(ExitStatus::Done);
    }
    let source = args.waiting.source(config, Some(&target))?;
    args.waiting.wait(&source, &failed, Some(&target), &args.writer.field_manager, vars, out).await
}

async fn send(
    args: &Args,
    target: &Target,
    secret: &StateSecret,
    failed: &Secret<String>,
    place: &str,
    out: &Output,
) -> anyhow::Result<()> {
    let (namespace, name) = event::names(target);
    let failed_key = event::id(failed);
    if failed_key.is_none() && !args.force {
        let error = anyhow!("there is nothing to request: {place} holds no auth key");
        return Err(error.hint("`--force` asks for a key even though none has failed"));
    }
    if secret.is_requested(failed) && !args.force {
        if !out.is_json() {
            out.data(format!("{target}: already requested a new auth key in place of {}", event::named(failed)))?;
        }
        return event::say(out, &Event::AlreadyRequested { namespace, secret: name, failed_key });
    }
    let manager = &args.writer.field_manager;
    authkey::request(&target.cluster, name, failed, manager).await.map_err(advised)?;
    if !out.is_json() {
        out.data(format!("{target}: requested a new auth key in place of {}", event::named(failed)))?;
    }
    event::say(out, &Event::Requested { namespace, secret: name, failed_key, field_manager: manager })
}

async fn existing(target: &Target) -> anyhow::Result<StateSecret> {
    let secret = target.cluster.secret(&target.name).await.map_err(advised)?;
    secret.ok_or_else(|| {
        anyhow!("{target} does not exist").hint("boot makes it at its first start; `--secret` names another")
    })
}
