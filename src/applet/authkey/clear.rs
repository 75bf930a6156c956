//! `tailpod authkey clear`, and `wait --clear`.

use anyhow::anyhow;

use super::event::{self, Event};
use super::{COMPONENT, Writer};
use crate::authkey::{self, ClearError, Cleared, Scope};
use crate::cli::ask;
use crate::cli::cluster::{ClusterArgs, Target, advised};
use crate::cli::exit::ExitStatus;
use crate::cli::output::Output;
use crate::cli::report::Advise;
use crate::cli::table::{Column, Table};
use crate::k8s::Error;
use crate::k8s::state::{self, StateSecret};
use crate::settings::{Vars, vars};

/// What goes.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Remove the request and what was registered under the old key.\n\n\
        Takes `reissue_authkey`, the device keys, tailscaled's machine key and profiles out of the state Secret, so \
        that the next start registers a new node. Shows what will go and asks; nothing is removed when the Secret was \
        changed in between, and what was removed is looked for once more. tailscaled must not run any more: it would \
        write its identity back.",
    after_long_help = "\
Examples:
  tailpod authkey clear                  Show what will go, ask, remove it
  tailpod authkey clear --dry-run        Print the patch, send nothing
  tailpod authkey clear --yes            For scripts
  tailpod authkey clear --marker-only    Withdraw the request, keep the identity"
)]
pub(super) struct Args {
    /// Remove only the request for a new key
    #[arg(long)]
    marker_only: bool,

    /// Remove without asking
    #[arg(short, long)]
    yes: bool,

    /// Print the patch and send nothing
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,

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
    let target = cluster.target(vars, COMPONENT).await?;
    let scope = if args.marker_only { Scope::Marker } else { Scope::Identity };
    let Some(found) = look(&target, scope, out).await? else { return Ok(ExitStatus::Done) };
    out.note(found.table(&target));
    warn_of_live_pod(&target, scope, &found.secret, vars, out).await;
    let manager = args.writer.field_manager.as_str();
    if args.dry_run {
        let patch = scope.patch(&found.secret, manager).only_if(found.secret.resource_version.clone());
        let patch = target.cluster.merge_body(&target.name, &patch);
        if !out.is_json() {
            out.json(&patch)?;
        }
        let (namespace, secret) = event::names(&target);
        event::say(out, &Event::WouldClear { namespace, secret, keys: &found.keys, patch })?;
        return Ok(ExitStatus::Done);
    }
    if !args.yes && !ask::confirm(out, &format!("Remove them from {target}?")).await? {
        return Err(anyhow!("not confirmed: nothing was removed"));
    }
    remove(&target, scope, &found, manager, out).await
}

/// Shows what goes, and removes it.
pub(super) async fn without_asking(
    target: &Target,
    scope: Scope,
    manager: &str,
    vars: &dyn Vars,
    out: &Output,
) -> anyhow::Result<ExitStatus> {
    let Some(found) = look(target, scope, out).await? else { return Ok(ExitStatus::Done) };
    warn_of_live_pod(target, scope, &found.secret, vars, out).await;
    remove(target, scope, &found, manager, out).await
}

/// What there is to remove, and the Secret it was seen in.
struct Found {
    secret: StateSecret,
    keys: Vec<String>,
}

impl Found {
    /// Names and sizes, never values.
    fn table(&self, target: &Target) -> String {
        let mut table = Table::new(&[Column::Text("key"), Column::Number("bytes"), Column::Text("what it is")]);
        for key in &self.keys {
            let bytes = self.secret.data.get(key).map_or(0, Vec::len);
            table.row([key.as_str(), &bytes.to_string(), meaning(key)]);
        }
        format!("{target} will lose\n{}", table.render())
    }
}

fn meaning(key: &str) -> &'static str {
    match key {
        state::REISSUE_AUTHKEY => "the request for a new auth key",
        state::DEVICE_ID | state::DEVICE_FQDN | state::DEVICE_IPS => "the device, as the operator knows it",
        state::MACHINE_KEY => "tailscaled's machine key",
        state::CURRENT_PROFILE => "which profile is the current one",
        state::KNOWN_PROFILES => "tailscaled's list of profiles",
        _ => "the current profile with the node key",
    }
}

/// `None`, said, when there is nothing to remove.
async fn look(target: &Target, scope: Scope, out: &Output) -> anyhow::Result<Option<Found>> {
    let secret = target.cluster.secret(&target.name).await.map_err(advised)?.unwrap_or_default();
    let keys = scope.left(&secret);
    if !keys.is_empty() {
        return Ok(Some(Found { secret, keys }));
    }
    if !out.is_json() {
        out.data(format!("{target}: there is nothing to remove"))?;
    }
    let (namespace, secret) = event::names(target);
    event::say(out, &Event::NothingToClear { namespace, secret })?;
    Ok(None)
}

/// Says who would write the identity back, as far as that can be known.
async fn warn_of_live_pod(target: &Target, scope: Scope, secret: &StateSecret, vars: &dyn Vars, out: &Output) {
    let Some(uid) = secret.text(state::POD_UID).filter(|uid| scope == Scope::Identity && !uid.is_empty()) else {
        return;
    };
    let writes_back = "tailscaled in it may write its identity back; stop it first";
    if vars.get(vars::POD_UID.name).is_ok_and(|ours| ours.as_deref() == Some(uid)) {
        return out.warning(format!("this Pod holds the Secret: {writes_back}"));
    }
    match target.cluster.pods().await {
        Ok(pods) => {
            if let Some(pod) = pods.iter().find(|pod| pod.uid == uid && pod.is_live()) {
                out.warning(format!("Pod `{}` holds the Secret and lives: {writes_back}", pod.name));
            }
        }
        Err(Error::Denied { .. }) => {
            out.note(format!("whether the Pod with UID {uid} still lives is not known: listing Pods is not allowed"));
        }
        Err(error) => out.note(format!("whether the Pod with UID {uid} still lives is not known: {error}")),
    }
}

/// Removes what was found from the Secret it was found in, and from no later one.
async fn remove(
    target: &Target,
    scope: Scope,
    found: &Found,
    manager: &str,
    out: &Output,
) -> anyhow::Result<ExitStatus> {
    let version = found.secret.resource_version.as_deref();
    match authkey::clear(&target.cluster, &target.name, scope, version, manager).await {
        // What it names is a part of what was found: the rest went with a try whose answer was lost.
        Ok(Cleared { .. }) => {}
        Err(ClearError::Cluster(error)) => return Err(advised(error).context("cannot clear the state Secret")),
        Err(error @ ClearError::Changed) => {
            return Err(anyhow::Error::new(error).hint("look again: run the same command once more"));
        }
        Err(error @ ClearError::WrittenBack { .. }) => {
            let hint = "stop the Pod that uses the Secret (`kubectl scale --replicas=0`), then repeat";
            return Err(anyhow::Error::new(error).hint(hint));
        }
    }
    if !out.is_json() {
        out.data(format!("{target}: removed {}", found.keys.join(", ")))?;
    }
    let (namespace, secret) = event::names(target);
    event::say(out, &Event::Cleared { namespace, secret, keys: &found.keys })?;
    Ok(ExitStatus::Done)
}
