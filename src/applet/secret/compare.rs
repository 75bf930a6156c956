//! `tailpod secret diff`.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use serde::Serialize;

use super::{COMPONENT, found};
use crate::cli::cluster::{ClusterArgs, SecretRef};
use crate::cli::exit::ExitStatus;
use crate::cli::output::Output;
use crate::cli::report::Advise;
use crate::cli::table::{Column, Table};
use crate::k8s::state::StateSecret;
use crate::settings::Vars;
use crate::statesecret::diff::{Change, Difference, diff};
use crate::statesecret::{Glimpse, document};

/// A Secret is a MiB at most; base64, managed fields and YAML make it no more than a few.
const FILE_LIMIT: u64 = 8 << 20;

/// What to compare.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Compare a state Secret with another one, or with a saved one.\n\n\
        Each side is the name of a Secret or a file: JSON or YAML as `secret repair` and kubectl write it. A file is \
        what ends in .json, .yaml or .yml, or begins with `/` or `.`. Exit code 0 when all keys are the same, 3 when \
        some differ.",
    after_long_help = "\
Examples:
  tailpod secret diff ts-0 ts-1                        Two Secrets
  tailpod secret diff tailscale/ts-0 backup/ts-0       In two namespaces
  tailpod secret diff tailscale-ts-0-1234.json ts-0    What has changed since a repair"
)]
pub(super) struct Args {
    /// The first Secret, or a file
    #[arg(value_name = "[NS/]NAME|FILE")]
    a: Side,

    /// The second one; by default the one that --secret or the environment names
    #[arg(value_name = "[NS/]NAME|FILE")]
    b: Option<Side>,
}

/// One side of the comparison.
#[derive(Clone, Debug)]
enum Side {
    File(PathBuf),
    Secret(SecretRef),
}

/// The `--json` contract.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    a: Label,
    b: Label,
    differences: Vec<Difference>,
}

/// Which Secret a side is.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Label {
    name: String,
    resource_version: Option<String>,
}

/// Runs it.
pub(super) async fn run(
    args: &Args,
    cluster: &ClusterArgs,
    vars: &dyn Vars,
    out: &Output,
) -> anyhow::Result<ExitStatus> {
    let b = match &args.b {
        Some(side) => side.clone(),
        None => Side::Secret(cluster.secret_ref(vars)?),
    };
    let (a_name, a) = args.a.read(cluster, vars).await?;
    let (b_name, b) = b.read(cluster, vars).await?;
    let differences = diff(&a, &b);
    let status = if differences.is_empty() { ExitStatus::Done } else { ExitStatus::No };
    if out.is_json() {
        let label = |name, secret: StateSecret| Label { name, resource_version: secret.resource_version };
        out.json(&Document { a: label(a_name, a), b: label(b_name, b), differences })?;
        return Ok(status);
    }
    if differences.is_empty() {
        out.note(format!("{a_name} and {b_name} hold the same {} keys", a.data.len()));
        return Ok(status);
    }
    let mut table =
        Table::new(&[Column::Text("key"), Column::Text("change"), Column::Text("before"), Column::Text("after")]);
    for difference in &differences {
        let change = match difference.change {
            Change::Added => "added",
            Change::Removed => "removed",
            Change::Changed => "changed",
        };
        table.row([
            difference.key.as_str(),
            change,
            &cell(difference.before.as_ref()),
            &cell(difference.after.as_ref()),
        ]);
    }
    out.note(format!("from {a_name} to {b_name}:"));
    out.data(table.render())?;
    Ok(status)
}

fn cell(glimpse: Option<&Glimpse>) -> String {
    glimpse.map_or_else(|| "-".to_owned(), Glimpse::phrase)
}

// === impl Side ===

impl Side {
    async fn read(&self, cluster: &ClusterArgs, vars: &dyn Vars) -> anyhow::Result<(String, StateSecret)> {
        match self {
            Self::File(path) => {
                let secret = read_file(path).with_context(|| format!("cannot compare `{}`", path.display()))?;
                Ok((path.display().to_string(), secret))
            }
            Self::Secret(secret) => {
                let target = cluster.target_of(secret.clone(), vars, COMPONENT).await?;
                let secret = found(&target, target.cluster.secret(&target.name).await)?;
                Ok((super::full_name(&target).to_string(), secret))
            }
        }
    }
}

impl std::str::FromStr for Side {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_file = text.starts_with(['/', '.'])
            || Path::new(text)
                .extension()
                .is_some_and(|extension| ["json", "yaml", "yml"].iter().any(|e| extension == *e));
        if is_file { Ok(Self::File(text.into())) } else { text.parse().map(Self::Secret) }
    }
}

fn read_file(path: &Path) -> anyhow::Result<StateSecret> {
    let mut content = Vec::new();
    std::fs::File::open(path)?.take(FILE_LIMIT + 1).read_to_end(&mut content)?;
    if content.len() as u64 > FILE_LIMIT {
        return Err(anyhow!("it is larger than {} MiB", FILE_LIMIT >> 20));
    }
    document::read(&content).map_err(|error| anyhow::Error::new(error).exit_with(ExitStatus::Usage))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_from_secrets_by_their_names() {
        for (text, is_file) in [
            ("ts-0", false),
            ("ns/ts-0", false),
            ("ts.example", false),
            ("ns-ts-0-12.json", true),
            ("backup/ts-0.yaml", true),
            ("x.yml", true),
            ("./ts-0", true),
            ("../ts-0", true),
            ("/tmp/ts-0", true),
        ] {
            assert_eq!(matches!(text.parse::<Side>().unwrap(), Side::File(_)), is_file, "{text}");
        }
        assert!("No Name".parse::<Side>().is_err());
    }
}
