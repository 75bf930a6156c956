//! `tailpod secret inspect`.

use anyhow::anyhow;
use serde::Serialize;
use serde_json::json;

use super::{Which, found, full_name, known, show};
use crate::cli::ask;
use crate::cli::cluster::{ClusterArgs, Target};
use crate::cli::exit::ExitStatus;
use crate::cli::output::Output;
use crate::cli::report::Advise;
use crate::k8s::state::StateSecret;
use crate::settings::Vars;
use crate::statesecret::findings::has_errors;
use crate::statesecret::{Finding, Inspection, findings, inspect};

/// Which Secret, and how much of it.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Show what the state Secret says about the node, and what is wrong with it.\n\n\
        Every finding has a code that stays the same, a sentence, and the command that mends it. Exit code 3 when the \
        Secret does not exist or a finding is of severity error. Whether Pods live is known only where they may be \
        listed; the rest works with `get` on the Secret alone.",
    after_long_help = "\
Examples:
  tailpod secret inspect                             The Secret of this Pod
  tailpod secret inspect -n tailscale ts-0 --json    One document for scripts
  tailpod secret inspect ts-0 --reveal authkey --yes > key
                                                     One value, as it is"
)]
pub(super) struct Args {
    #[command(flatten)]
    which: Which,

    /// Judge the capability version by this tailscaled instead of the one at hand
    #[arg(long, value_name = "VERSION")]
    daemon_version: Option<String>,

    /// Write the value of one key, and nothing else
    #[arg(long, value_name = "KEY", conflicts_with = "daemon_version")]
    reveal: Option<String>,

    /// Reveal without asking, also into a pipe or a file
    #[arg(short, long, requires = "reveal")]
    yes: bool,
}

/// The `--json` contract; golden files hold it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    #[serde(flatten)]
    inspection: &'a Inspection,
    findings: &'a [Finding],
    notes: &'a [String],
}

/// Runs it.
pub(super) async fn run(
    args: &Args,
    cluster: &ClusterArgs,
    vars: &dyn Vars,
    out: &Output,
) -> anyhow::Result<ExitStatus> {
    let target = args.which.target(cluster, vars).await?;
    if let Some(key) = &args.reveal {
        return reveal(&target, key, args.yes, out).await;
    }
    let secret = found(&target, target.cluster.secret(&target.name).await)?;
    let (known, notes) = known(&target, &secret, args.daemon_version.as_deref(), cluster, vars).await;
    let seen = inspect(&full_name(&target), &secret, &known);
    let findings = findings(&seen, &secret);
    if out.is_json() {
        out.json(&Document { inspection: &seen, findings: &findings, notes: &notes })?;
    } else {
        out.data(show::inspection(&seen, known.now))?;
        show::findings(&findings, out)?;
        for note in &notes {
            out.note(format!("note: {note}"));
        }
    }
    Ok(if has_errors(&findings) { ExitStatus::No } else { ExitStatus::Done })
}

/// Writes one value to stdout. Nothing is read before it is clear that this is wanted.
async fn reveal(target: &Target, key: &str, yes: bool, out: &Output) -> anyhow::Result<ExitStatus> {
    if !yes {
        if !out.is_terminal() {
            let error = anyhow!("`--reveal` does not write a secret into a pipe or a file unless told to");
            return Err(error.hint("`--yes` tells it to").exit_with(ExitStatus::Usage));
        }
        if !ask::confirm(out, &format!("Show the value of `{key}` in {target}?")).await? {
            return Err(anyhow!("not confirmed: nothing was shown"));
        }
    }
    let secret = found(target, target.cluster.secret(&target.name).await)?;
    let Some(value) = secret.data.get(key) else { return Err(no_such_key(target, key, &secret)) };
    if out.is_json() {
        let document = match std::str::from_utf8(value) {
            Ok(text) => json!({"key": key, "value": text}),
            Err(_) => json!({"key": key, "valueBase64": base64_of(value)}),
        };
        out.json(&document)?;
    } else if out.is_terminal() {
        out.data(String::from_utf8_lossy(value))?;
    } else {
        out.bytes(value)?;
    }
    Ok(ExitStatus::Done)
}

fn no_such_key(target: &Target, key: &str, secret: &StateSecret) -> anyhow::Error {
    let keys: Vec<_> = secret.data.keys().map(String::as_str).collect();
    let error = anyhow!("{target} has no key `{key}`");
    error.hint(format!("it has {}", keys.join(", "))).exit_with(ExitStatus::No)
}

fn base64_of(value: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(value)
}
