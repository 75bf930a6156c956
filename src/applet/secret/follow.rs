//! `tailpod secret watch`.

use jiff::Timestamp;

use super::Which;
use crate::cli::cluster::{ClusterArgs, Target, advised};
use crate::cli::exit::ExitStatus;
use crate::cli::output::Output;
use crate::k8s::{Resource, RoleRule, Verb};
use crate::settings::Vars;
use crate::statesecret::Glimpse;
use crate::statesecret::diff::{Event, Happening, events};

/// Which Secret.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Follow the state Secret: one line for each change, until interrupted.\n\n\
        Watches that end are opened again; where watching is not allowed, the Secret is read every few seconds. Exit \
        code 130 after Ctrl-C.",
    after_long_help = "\
Examples:
  tailpod secret watch                       The Secret of this Pod
  tailpod secret watch -n tailscale ts-0     Another one
  tailpod secret watch --json | jq .key      One object for each change"
)]
pub(super) struct Args {
    #[command(flatten)]
    which: Which,
}

/// Runs it; ends only with an error or by being dropped.
pub(super) async fn run(
    args: &Args,
    cluster: &ClusterArgs,
    vars: &dyn Vars,
    out: &Output,
) -> anyhow::Result<ExitStatus> {
    let target = args.which.target(cluster, vars).await?;
    let mut watch = target.cluster.watch_secret(&target.name);
    let mut last = None;
    loop {
        let seen = watch.next().await.map_err(|error| advised(error).context(format!("cannot follow {target}")))?;
        if last.is_none() && watch.is_polling() {
            let rule = RoleRule::new(Resource::Secrets, Some(&target.name), [Verb::List, Verb::Watch]);
            out.note(format!(
                "note: watching is not allowed, so the Secret is read every few seconds; the Role lacks:\n{rule}"
            ));
        }
        let now = Timestamp::now();
        let now = now.round(jiff::Unit::Second).unwrap_or(now).to_string();
        for event in events(last.as_ref(), &seen, &now) {
            if out.is_json() {
                out.json_line(&event)?;
            } else {
                tell(&event, &target, out)?;
            }
        }
        last = Some(seen);
    }
}

fn tell(event: &Event, target: &Target, out: &Output) -> anyhow::Result<()> {
    let version = event.resource_version.as_deref().unwrap_or("unknown");
    let key = event.key.as_deref().unwrap_or_default();
    let value = |glimpse: &Option<Glimpse>| glimpse.as_ref().map(Glimpse::phrase).unwrap_or_default();
    let text = match event.event {
        Happening::Present => {
            out.note(format!("following {target} from version {version}"));
            return Ok(());
        }
        Happening::Absent => {
            out.note(format!("{target} does not exist yet; waiting for it"));
            return Ok(());
        }
        Happening::Created => format!("created   {target}"),
        Happening::Deleted => format!("deleted   {target}"),
        Happening::Touched => format!("touched   {target}: no key of its data"),
        Happening::Added => format!("added     {key}  {}", value(&event.after)),
        Happening::Removed => format!("removed   {key}  (was {})", value(&event.before)),
        Happening::Changed => format!("changed   {key}  {}  (was {})", value(&event.after), value(&event.before)),
    };
    let by = event.writer.as_ref().map(|writer| format!("  by {}", writer.manager)).unwrap_or_default();
    let line = format!("{}  {text}{by}", event.time);
    out.data(line.replace('\n', "\\n"))
}
