//! `tailpod complete`: words for completion scripts, asked for while somebody presses Tab.
//!
//! It answers within the time a person does not notice, or not at all: no word, no complaint, exit code 0.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::cli::cluster::ClusterArgs;
use crate::cli::exit::ExitStatus;
use crate::cli::output::Output;
use crate::settings::ProcessEnv;

/// Longer than this feels stuck.
const PATIENCE: Duration = Duration::from_millis(300);

/// What to list.
#[derive(Debug, clap::Args)]
#[command(
    disable_help_subcommand = true,
    after_long_help = "Examples:\n  tailpod complete secrets    The names of the namespace's Secrets"
)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// The names of the namespace's Secrets
    #[command(after_long_help = "Examples:\n  tailpod complete secrets -n tailscale")]
    Secrets(ClusterArgs),
}

/// Lists.
pub async fn run(args: &Args, out: &Output) -> anyhow::Result<ExitStatus> {
    let What::Secrets(cluster) = &args.what;
    let names = async {
        let deadline = Instant::now() + PATIENCE;
        let cluster = cluster.connect(&ProcessEnv::capture(), "tailpod-complete").await.ok()?;
        cluster.until(deadline).secret_names().await.ok()
    };
    super::interruptible(async {
        for name in timeout(PATIENCE, names).await.ok().flatten().unwrap_or_default() {
            out.data(name)?;
        }
        Ok(ExitStatus::Done)
    })
    .await
}
