//! `tailpod authkey wait`, and `request --wait`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::anyhow;
use tokio_util::sync::CancellationToken;

use super::clear;
use super::event::{self, Event, Place};
use super::source::{self, Files};
use super::{COMPONENT, Writer};
use crate::applet::healthcheck::limit;
use crate::authkey::{self, KeySource, Progress, Scope, WaitError};
use crate::cli::cluster::{ClusterArgs, Target, advised};
use crate::cli::exit::ExitStatus;
use crate::cli::output::Output;
use crate::cli::progress;
use crate::cli::report::Advise;
use crate::k8s::state;
use crate::secret::Secret;
use crate::settings::Vars;

/// Upstream's limit, and boot's.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Which key is old, and where the new one appears.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Return when an auth key appears that is not the old one.\n\n\
        Looks in the node's config, or without `--config` in the state Secret. The old key is the one in `--key-file`, \
        else the one that a request in the Secret names, else whatever is there at the start. Changes are noticed as \
        they happen, and by looking every 5 seconds where that is not possible. Ends with 0 when there is a new key, 3 \
        when the time is over, 130 when interrupted. The new key is not printed; its id is.",
    after_long_help = "\
Examples:
  tailpod authkey wait                                 In the Secret's `authkey`
  tailpod authkey wait --config /etc/tsconfig/ts-0     In the config that the operator mounts
  tailpod authkey wait --timeout 1h --clear            Then remove the old identity
  tailpod authkey wait --json                          One object for each change of state"
)]
pub(super) struct Args {
    #[command(flatten)]
    files: Files,

    #[command(flatten)]
    waiting: Waiting,

    #[command(flatten)]
    writer: Writer,
}

/// How to wait.
#[derive(Debug, clap::Args)]
pub(super) struct Waiting {
    /// Longest wait, as a Go duration [default: 10m]
    #[arg(long, value_name = "DURATION", value_parser = limit)]
    timeout: Option<Duration>,

    /// Then remove the request and what was registered under the old key, as `clear --yes` does
    #[arg(long)]
    clear: bool,

    /// Key of the Secret in which the new key appears [default: authkey]
    #[arg(long, value_name = "KEY", value_parser = data_key, conflicts_with = "config")]
    secret_key: Option<String>,
}

/// Runs it.
pub(super) async fn run(
    args: &Args,
    cluster: &ClusterArgs,
    vars: &dyn Vars,
    out: &Output,
) -> anyhow::Result<ExitStatus> {
    let config = args.files.config_file(vars).await?;
    let given = args.files.key().await?;
    let target =
        if config.is_none() || args.waiting.clear { Some(cluster.target(vars, COMPONENT).await?) } else { None };
    let source = args.waiting.source(config.clone(), target.as_ref())?;
    let old = match (given, &config, &target) {
        (Some(key), ..) => key,
        (None, Some(path), _) => {
            let marked = match target.clone() {
                Some(target) => marker(&target).await?,
                None => marker_if_any(cluster, vars, out).await,
            };
            marked.unwrap_or_else(|| present(source::key_in_config(path), out))
        }
        (None, None, Some(target)) => {
            let secret = target.cluster.secret(&target.name).await.map_err(advised)?.unwrap_or_default();
            let present = || secret.auth_key(args.waiting.secret_key());
            secret.reissue_marker().or_else(present).unwrap_or_default()
        }
        (None, None, None) => Secret::default(),
    };
    args.waiting.wait(&source, &old, target.as_ref(), &args.writer.field_manager, vars, out).await
}

/// The key that a request in the Secret names.
async fn marker(target: &Target) -> anyhow::Result<Option<Secret<String>>> {
    let secret = target.cluster.secret(&target.name).await.map_err(advised)?;
    Ok(secret.and_then(|secret| secret.reissue_marker()))
}

/// The same for somebody who waits for a file and may have no cluster at all.
async fn marker_if_any(cluster: &ClusterArgs, vars: &dyn Vars, out: &Output) -> Option<Secret<String>> {
    cluster.secret_ref(vars).ok()?;
    cluster.access(vars).ok()?;
    let marked = async { marker(&cluster.target(vars, COMPONENT).await?).await };
    match marked.await {
        Ok(marked) => marked,
        Err(error) => {
            out.warning(format!("whether a key is marked as failed is not known: {error:#}"));
            None
        }
    }
}

/// The key that a config holds now; a file that cannot be read may become one that can.
fn present(key: anyhow::Result<Secret<String>>, out: &Output) -> Secret<String> {
    key.unwrap_or_else(|error| {
        out.note(format!("no auth key yet: {error:#}"));
        Secret::default()
    })
}

impl Waiting {
    /// The first flag that makes sense only for a wait.
    pub(super) fn given(&self) -> Option<&'static str> {
        let given = [
            (self.timeout.is_some(), "--timeout"),
            (self.clear, "--clear"),
            (self.secret_key.is_some(), "--secret-key"),
        ];
        given.into_iter().find_map(|(given, flag)| given.then_some(flag))
    }

    fn secret_key(&self) -> &str {
        self.secret_key.as_deref().unwrap_or(state::AUTHKEY)
    }

    /// Where the new key appears: in the config, else in the Secret.
    pub(super) fn source(&self, config: Option<PathBuf>, target: Option<&Target>) -> anyhow::Result<KeySource> {
        match (config, target) {
            (Some(path), _) => Ok(KeySource::config(path)),
            (None, Some(Target { cluster, name })) => Ok(KeySource::Secret {
                cluster: cluster.clone(),
                name: name.clone(),
                key: self.secret_key().to_owned(),
            }),
            (None, None) => Err(anyhow!("there is neither a config nor a Secret to look in")),
        }
    }

    /// Waits, and clears if that is wanted.
    pub(super) async fn wait(
        &self,
        source: &KeySource,
        old: &Secret<String>,
        target: Option<&Target>,
        manager: &str,
        vars: &dyn Vars,
        out: &Output,
    ) -> anyhow::Result<ExitStatus> {
        let limit = self.timeout.unwrap_or(TIMEOUT);
        let place = place(source);
        // Cancelled when nobody reads our events any more.
        let stop = CancellationToken::new();
        let mut said = Ok(());
        let mut observer = |progress| {
            let (place, old_key, timeout_seconds) = (&place, event::id(old), seconds(limit));
            let event = match progress {
                Progress::Watching => Event::Watching { place, old_key, timeout_seconds },
                Progress::Polling => Event::Polling { place, old_key, timeout_seconds },
                Progress::StillNone { .. } => return,
            };
            if let Err(error) = event::say(out, &event) {
                said = Err(error);
                stop.cancel();
            }
        };
        let what = format!("a new auth key in {}", shown(&place));
        let waiting = authkey::wait(source, old, limit, &stop, &mut observer);
        let waited = progress::wait_at_most(out, &what, limit, waiting).await;
        said?;
        let new = match waited {
            Ok(new) => new,
            Err(error @ WaitError::Timeout { .. }) => {
                event::say(out, &Event::TimedOut { after_seconds: seconds(limit) })?;
                let hint = "the operator's log says why it did not answer; a person can put a new key there as well";
                return Err(anyhow::Error::new(error).hint(hint).exit_with(ExitStatus::No));
            }
            Err(WaitError::Denied(error)) => return Err(advised(error).context("cannot look for a new auth key")),
            Err(error @ WaitError::Stopped) => return Err(error.into()),
        };
        let key = event::named(&new.key);
        if !out.is_json() {
            out.data(format!("new auth key {key} after {}", crate::goduration::format_seconds(new.after)))?;
        }
        event::say(out, &Event::NewKey { key, after_seconds: seconds(new.after) })?;
        match target.filter(|_| self.clear) {
            Some(target) => clear::without_asking(target, Scope::Identity, manager, vars, out).await,
            None => Ok(ExitStatus::Done),
        }
    }
}

fn place(source: &KeySource) -> Place {
    match source {
        KeySource::File { path, .. } => Place::Config { path: path.display().to_string() },
        KeySource::Secret { cluster, name, key } => {
            Place::Secret { namespace: cluster.namespace().to_owned(), name: name.clone(), key: key.clone() }
        }
        // Only programs that follow a config themselves wait this way.
        KeySource::Told(_) => Place::Config { path: String::new() },
    }
}

fn shown(place: &Place) -> String {
    match place {
        Place::Config { path } => format!("`{path}`"),
        Place::Secret { namespace, name, key } => format!("`{key}` of Secret `{namespace}/{name}`"),
    }
}

/// With milliseconds.
fn seconds(duration: Duration) -> f64 {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)).as_secs_f64()
}

fn data_key(text: &str) -> Result<String, String> {
    if state::is_data_key(text) {
        Ok(text.to_owned())
    } else {
        Err("a key of a Secret has letters, digits, `-`, `_` and `.`".to_owned())
    }
}
