//! `tailpod secret repair`.
//!
//! In this order: show the patch, save the Secret as it is, patch that version of it and no other, read back. A failure
//! leaves the Secret as it was or says that nobody knows.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use serde::Serialize;

use super::{Which, found, full_name, known, show};
use crate::cli::cluster::{ClusterArgs, Target, advised};
use crate::cli::exit::ExitStatus;
use crate::cli::output::Output;
use crate::cli::report::Advise;
use crate::k8s::Error;
use crate::k8s::state::{KeyPatch, StateSecret};
use crate::secret::Secret;
use crate::settings::Vars;
use crate::statesecret::findings::has_errors;
use crate::statesecret::repair::{Repair, holds, plan};
use crate::statesecret::{Finding, Inspection, findings, inspect};

/// What to mend, and whether to.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Mend what can be mended in the state Secret.\n\n\
        Shows the patch for each finding of `secret inspect` that a patch can mend. With --yes the Secret is saved to \
        a new file first, then that version of it is patched and no other, and read back. Exit code 3 when findings of \
        severity error are left. Stop the Pod first: a running tailscaled may write over it.",
    after_long_help = "\
Examples:
  tailpod secret repair                              Show what would be done
  tailpod secret repair --yes                        Do it
  tailpod secret repair --profile profile-d0e7 --yes
                                                     Choose the profile to go on with
  tailpod secret repair --yes --save /dev/shm/before.json
                                                     Where the root file system is read-only"
)]
pub(super) struct Args {
    #[command(flatten)]
    which: Which,

    /// Apply the patch
    #[arg(short, long)]
    yes: bool,

    /// The profile to make current, where several could be
    #[arg(long, value_name = "KEY")]
    profile: Option<String>,

    /// Where to save the Secret first; by default NAMESPACE-NAME-VERSION.json here
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, requires = "yes")]
    save: Option<PathBuf>,

    /// Judge the capability version by this tailscaled instead of the one at hand
    #[arg(long, value_name = "VERSION")]
    daemon_version: Option<String>,
}

/// The `--json` contract; golden files hold it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    namespace: &'a str,
    name: &'a str,
    /// The version after what was done.
    resource_version: Option<&'a str>,
    repairs: &'a [Repair],
    applied: bool,
    saved_to: Option<&'a Path>,
    /// What is wrong with it now.
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
    let (secret, document) = found(&target, target.cluster.secret_document(&target.name).await)?;
    let (known, notes) = known(&target, &secret, args.daemon_version.as_deref(), cluster, vars).await;
    let seen = inspect(&full_name(&target), &secret, &known);
    let before = findings(&seen, &secret);
    let plan = plan(&before, &secret, args.profile.as_deref());
    if let Some(profile) = &args.profile
        && !plan.patch.changes().any(|(_, value)| value == Some(profile.as_bytes()))
    {
        let error = anyhow!("`{profile}` is not a profile that {target} needs to be told of");
        return Err(error.hint("`tailpod secret inspect` shows profiles and findings").exit_with(ExitStatus::Usage));
    }
    let mut report = Document {
        namespace: target.cluster.namespace(),
        name: &target.name,
        resource_version: secret.resource_version.as_deref(),
        repairs: &plan.repairs,
        applied: false,
        saved_to: None,
        findings: &before,
        notes: &notes,
    };
    if plan.patch.is_empty() || !args.yes {
        show_plan(&report, out)?;
        return Ok(status(&before));
    }
    if !out.is_json() {
        out.data(show::repairs(&plan.repairs))?;
    }
    warn_of_users(&seen, out);
    let file = args.save.clone().unwrap_or_else(|| default_file(&target, &secret));
    save(&file, &document)?;
    out.note(format!("saved {target} to `{}`", file.display()));
    let now = apply(&target, &plan.patch, &secret, &file).await?;
    let after = findings(&inspect(&full_name(&target), &now, &known), &now);
    report.resource_version = now.resource_version.as_deref();
    report.applied = true;
    report.saved_to = Some(&file);
    report.findings = &after;
    if out.is_json() {
        out.json(&report)?;
    } else {
        out.done(format!("repaired {target}"));
        if !after.is_empty() {
            show::findings(&after, out)?;
        }
    }
    Ok(status(&after))
}

fn status(findings: &[Finding]) -> ExitStatus {
    if has_errors(findings) { ExitStatus::No } else { ExitStatus::Done }
}

/// Shows what would be done, and what would be left.
fn show_plan(report: &Document<'_>, out: &Output) -> anyhow::Result<()> {
    if out.is_json() {
        return out.json(report);
    }
    if report.repairs.is_empty() {
        if report.findings.is_empty() {
            out.note("nothing is wrong with it");
            return Ok(());
        }
        out.note("nothing that a patch could mend:");
        return show::findings(report.findings, out);
    }
    for repair in report.repairs {
        out.note(format!("{}: {}", repair.code.as_str(), repair.sentence));
    }
    out.data(show::repairs(report.repairs))?;
    out.hint("`--yes` does it");
    Ok(())
}

fn warn_of_users(seen: &Inspection, out: &Output) {
    for user in seen.users.iter().flatten() {
        out.warning(format!("Pod `{}` lives: tailscaled in it may write over the repair; stop it first", user.name));
    }
}

// === The copy ===

fn default_file(target: &Target, secret: &StateSecret) -> PathBuf {
    let version = secret.resource_version.as_deref().unwrap_or("0");
    let version: String = version.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("{}-{}-{version}.json", target.cluster.namespace(), target.name).into()
}

/// Writes a new file that only its owner can read. It holds private keys.
fn save(file: &Path, document: &Secret<Vec<u8>>) -> anyhow::Result<()> {
    let written = (|| {
        let mut copy = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
        copy.write_all(document.expose())?;
        copy.sync_all()
    })();
    written.with_context(|| format!("cannot save the Secret to `{}`; nothing was changed", file.display())).map_err(
        |error| {
            let exists = file.symlink_metadata().is_ok();
            error.hint(if exists {
                "name another file: `--save FILE`"
            } else {
                "name a place that can be written to: `--save /dev/shm/before.json`"
            })
        },
    )
}

// === The patch ===

/// Patches the version that was looked at, and reads back. The Secret as it is then.
async fn apply(target: &Target, patch: &KeyPatch, seen: &StateSecret, file: &Path) -> anyhow::Result<StateSecret> {
    let Some(version) = seen.resource_version.clone() else {
        return Err(anyhow!("the API server names no version of {target}: a change could overwrite somebody else's"));
    };
    let written = target.cluster.merge(&target.name, &patch.clone().only_if(Some(version))).await;
    // Nothing was written: a copy would only be in the way of the next try.
    let discard = || drop(std::fs::remove_file(file));
    match written {
        Err(error @ (Error::Conflict { .. } | Error::NotFound { .. })) => {
            discard();
            let error = advised(error).context("nothing was repaired");
            return Err(error.hint("look again: run the same command once more"));
        }
        Err(error @ (Error::Denied { .. } | Error::Invalid { .. } | Error::Unauthorized { .. })) => {
            discard();
            return Err(advised(error).context("nothing was repaired"));
        }
        // With or without an answer, what the Secret holds now is what counts.
        Ok(()) | Err(_) => {}
    }
    let read = target.cluster.secret(&target.name).await;
    match (read, written) {
        (Ok(Some(now)), _) if holds(patch, &now) => Ok(now),
        (Ok(Some(_)), Ok(())) => {
            let error = anyhow!("{target} was repaired, and somebody has changed it back");
            Err(error.hint("stop the Pod that uses it (`kubectl scale --replicas=0`), then repeat"))
        }
        (Ok(None), _) => Err(anyhow!("{target} was deleted in the meantime").hint(restore(file))),
        (Ok(Some(_)), Err(error)) => Err(advised(error).context(format!("{target} was not repaired"))),
        (Err(_), Err(error)) => Err(advised(error).context(format!("whether {target} was repaired is not known"))),
        (Err(error), Ok(())) => Err(advised(error).context(format!("{target} was patched, but cannot be read back"))),
    }
}

fn restore(file: &Path) -> String {
    format!("what it held is in `{}`", file.display())
}
