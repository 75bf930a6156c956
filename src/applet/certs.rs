//! `tailpod certs`: TLS certificates by hand. Each command is one step of what replicas do by themselves.

mod watch;

use crate::cli::exit::ExitStatus;
use crate::cli::output::Output;

/// What to do about certificates.
#[derive(Debug, clap::Args)]
#[command(
    arg_required_else_help = true,
    disable_help_subcommand = true,
    subcommand_value_name = "COMMAND",
    long_about = "Keep TLS certificates fresh and share them between replicas.\n\n\
        tailscaled is the client of the certificate authority; this decides for which names it is asked, and when. Names \
        come from the Services of a serve config.",
    after_long_help = "\
Examples:
  tailpod certs watch --serve-config /etc/serve/config.json
                         Keep the certificates of its Services fresh
  tailpod certs watch --serve-config /etc/serve/config.json --apply
                         Have tailscaled serve it, too"
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Follow a serve config file: keep its certificates fresh, and have it served if asked to
    Watch(watch::Args),
}

/// Runs it.
pub async fn run(args: Args, out: &Output) -> anyhow::Result<ExitStatus> {
    match args.command {
        Command::Watch(args) => watch::run(args, out).await,
    }
}
