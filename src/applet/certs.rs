//! `tailpod certs`: what is known of TLS certificates, what is wrong with them, what is left of the authority's limits; and
//! each step of keeping them fresh by hand.
//!
//! All but `issue`, `run` and `watch` only look: they never ask tailscaled's certificate endpoint, which could order a
//! certificate. None shows a private key.

mod around;
mod budget;
mod check;
mod document;
mod issue;
mod list;
mod place;
mod run;
mod show;
mod verify;
mod watch;

use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use anyhow::Context;
use clap::ValueHint;

pub(super) use self::around::doctor_findings;
use self::document::Format;
use super::healthcheck::limit;
use super::interrupted;
use crate::certs::names::Name;
use crate::cli::cluster::ClusterArgs;
use crate::cli::exit::ExitStatus;
use crate::cli::later::Later;
use crate::cli::output::Output;
use crate::settings::ProcessEnv;
use crate::shutdown::Signals;

/// What to look at.
#[derive(Debug, clap::Args)]
#[command(
    arg_required_else_help = true,
    disable_help_subcommand = true,
    subcommand_value_name = "COMMAND",
    long_about = "TLS certificates: what there is, how it stands, what keeps it from being better.\n\n\
        Certificates are looked for in TLS Secrets, in the state Secret and in tailscaled's directory; names come from \
        there, from the serve config and from what the tailnet allows. Only `issue`, `run` and `watch` have certificates \
        ordered; nothing shows a private key, and what cannot be read is named while the rest is shown.",
    after_long_help = "\
Examples:
  tailpod certs list                      Every name, its certificate and when it ends
  tailpod certs show shop.tail1.ts.net    Everything about one
  tailpod certs check                     What keeps certificates from being issued, and what to do
  tailpod certs run --forever             Keep all of them fresh, beside a tailscaled without `boot`
  tailpod certs budget                    What is left of the authority's limits
  tailpod certs verify                    Whether every replica serves what it ought to
  tailpod certs watch --serve-config /etc/serve/config.json --apply
                                          Have a serve config served, and keep its certificates fresh"
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    common: Common,

    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List names and their certificates
    List(Later<list::Args>),
    /// Show everything about one
    Show(Later<show::Args>),
    /// Show what is left of the authority's limits
    Budget(Later<budget::Args>),
    /// Compare what replicas serve with what is kept
    Verify(Later<verify::Args>),
    /// Have tailscaled get or renew one certificate
    Issue(Later<issue::Args>),
    /// Have tailscaled get every certificate that is needed, once or for as long as this runs
    Run(Later<run::Args>),
    /// Find out what keeps certificates from being issued
    Check(Later<check::Args>),
    /// Follow a serve config file: keep its certificates fresh, and have it served if asked to
    Watch(Later<watch::Args>),
}

/// Where to look, and how to say it.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Certificate options")]
struct Common {
    /// tailscaled's socket, if not the one that TS_SOCKET names
    #[arg(long, global = true, value_name = "PATH", value_hint = ValueHint::FilePath)]
    socket: Option<PathBuf>,

    /// Only TLS Secrets of this proxy group; where certificates are shared, that of POD_NAME
    #[arg(long, global = true, value_name = "NAME")]
    proxy_group: Option<String>,

    /// tailscaled's directory of certificates, if not `certs` in TS_STATE_DIR
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    cert_dir: Option<PathBuf>,

    /// A serve config to take names from, in place of tailscaled's
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    serve_config: Option<PathBuf>,

    /// How results look; `--json` is short for `--output json`
    #[arg(short, long, global = true, value_name = "FORMAT", value_enum)]
    output: Option<Format>,

    /// Longest wait for tailscaled and the API server, or for one handshake, as a Go duration [default: 10s]
    #[arg(long, global = true, value_name = "DURATION", value_parser = limit)]
    timeout: Option<Duration>,
}

/// When a certificate is critical, and whether the exit code says so.
#[derive(Debug, clap::Args)]
struct Judging {
    /// Days before the end from which on a certificate is critical
    #[arg(long, value_name = "DAYS", default_value_t = 7)]
    crit_days: u32,
}

// === impl Common, Judging ===

impl Common {
    fn limit(&self) -> Duration {
        const DEFAULT: Duration = Duration::from_secs(10);
        self.timeout.unwrap_or(DEFAULT)
    }
}

impl Judging {
    fn critical(&self) -> Duration {
        Duration::from_secs(u64::from(self.crit_days) * 86_400)
    }
}

/// Runs it until it is done or interrupted.
pub async fn run(args: Args, out: &Output) -> anyhow::Result<ExitStatus> {
    let vars = ProcessEnv::capture();
    let mut signals = Signals::install().context("cannot watch for signals")?;
    let Args { command, common, cluster } = &args;
    match command {
        Command::Watch(Later(args)) => return watch::run(args, common, &vars, &mut signals, out).await,
        Command::Run(Later(args)) => return run::run(args, common, cluster, &vars, &mut signals, out).await,
        Command::Issue(Later(args)) => return issue::run(args, common, cluster, &vars, &mut signals, out).await,
        _ => {}
    }
    let work = async {
        match command {
            Command::List(Later(args)) => list::run(args, common, cluster, &vars, out).await,
            Command::Show(Later(args)) => show::run(args, common, cluster, &vars, out).await,
            Command::Budget(Later(args)) => budget::run(args, common, cluster, &vars, out).await,
            Command::Verify(Later(args)) => verify::run(args, common, cluster, &vars, out).await,
            Command::Check(Later(args)) => Box::pin(check::run(args, common, cluster, &vars, out)).await,
            // They stop in order, see above.
            Command::Issue(_) | Command::Run(_) | Command::Watch(_) => std::future::pending().await,
        }
    };
    let mut work = pin!(work);
    tokio::select! {
        biased;
        result = work.as_mut() => result,
        signal = signals.next() => interrupted(signal),
    }
}

/// A name as an argument: what is none is refused before anybody is asked about it.
fn name(text: &str) -> Result<Name, String> {
    Name::parse(text).map_err(|error| error.reason.to_owned())
}
