//! `tailpod authkey`: what boot does about a dead auth key, done by hand.
//!
//! `request` asks for a new key, `wait` sees it come, `clear` removes what belonged to the old one. Each is one
//! function of [`crate::authkey`] with flags around it. No key is ever shown, only its id.

mod clear;
mod event;
mod request;
mod source;
mod wait;

use std::pin::pin;

use anyhow::Context;

use self::event::Event;
use crate::cli::cluster::ClusterArgs;
use crate::cli::exit::ExitStatus;
use crate::cli::later::Later;
use crate::cli::output::Output;
use crate::k8s::state;
use crate::settings::ProcessEnv;
use crate::shutdown::Signals;

/// How we introduce ourselves to the API server.
const COMPONENT: &str = "authkey";

/// What to do about a key.
#[derive(Debug, clap::Args)]
#[command(
    arg_required_else_help = true,
    disable_help_subcommand = true,
    subcommand_value_name = "COMMAND",
    long_about = "Request, wait for and clear auth keys.\n\n\
        What boot does by itself when its auth key is refused, for a shell in the Pod or a script: the key that failed \
        goes into the state Secret as a request for another, an operator or a person answers with a new key in the \
        node's config or in the Secret, and what was registered under the old key is removed. Keys are read from \
        files, from the Secret or from standard input, never from an argument, and only their id is ever shown.",
    after_long_help = "\
Examples:
  tailpod authkey request                        In place of the key in the state Secret
  tailpod authkey request --config /etc/tsconfig --wait
                                                 In place of the one in the node's config; return when it changes
  tailpod authkey wait --timeout 30m && tailpod authkey clear --yes
  tailpod authkey clear --secret tailscale/ts-0  Show what would go, ask, remove it"
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Ask for a new auth key in place of one that failed
    Request(Later<request::Args>),
    /// Return when an auth key appears that is not the old one
    Wait(Later<wait::Args>),
    /// Remove the request and what was registered under the old key
    Clear(Later<clear::Args>),
}

/// Who writes.
#[derive(Debug, clap::Args)]
struct Writer {
    /// The field manager of what is written
    #[arg(long, value_name = "NAME", default_value = state::FIELD_MANAGER, value_parser = field_manager)]
    field_manager: String,
}

/// Runs it until it is done or interrupted.
pub async fn run(args: Args, out: &Output) -> anyhow::Result<ExitStatus> {
    let vars = ProcessEnv::capture();
    let mut signals = Signals::install().context("cannot watch for signals")?;
    let signal = {
        let work = async {
            match &args.command {
                Command::Request(Later(request)) => request::run(request, &args.cluster, &vars, out).await,
                Command::Wait(Later(wait)) => wait::run(wait, &args.cluster, &vars, out).await,
                Command::Clear(Later(clear)) => clear::run(clear, &args.cluster, &vars, out).await,
            }
        };
        let mut work = pin!(work);
        tokio::select! {
            biased;
            result = work.as_mut() => return result,
            signal = signals.next() => signal,
        }
    };
    event::say(out, &Event::Interrupted { by: &signal.to_string() })?;
    super::interrupted(signal)
}

/// What the API server accepts: at most 128 printable characters.
fn field_manager(text: &str) -> Result<String, String> {
    match text.chars().count() {
        1..=128 if !text.chars().any(char::is_control) => Ok(text.to_owned()),
        _ => Err("a field manager has 1 to 128 printable characters".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_managers_are_what_the_api_server_accepts() {
        assert!(field_manager("tailscale-container").is_ok() && field_manager(&"a".repeat(128)).is_ok());
        for bad in ["", "a\nb", &"a".repeat(129)] {
            assert!(field_manager(bad).is_err(), "{bad:?}");
        }
    }
}
