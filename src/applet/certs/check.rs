//! `tailpod certs check`: the checks of `doctor` that certificates depend on, and those about certificates themselves.

use super::Common;
use super::around::findings;
use super::document::Format;
use crate::applet::doctor::{report, subject};
use crate::cli::cluster::ClusterArgs;
use crate::cli::exit::ExitStatus;
use crate::cli::output::Output;
use crate::doctor::finding::{CLOCK_SKEW, DAEMON_SOCKET, DAEMON_STATE, Group};
use crate::doctor::{Only, examine};
use crate::settings::Vars;

/// Nothing to choose.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Find out what keeps certificates from being issued, stored, renewed or shared.\n\n\
        Looks at tailscaled, at the names, at the share mode with its Secrets and rights, at clocks and at the \
        certificates themselves, and changes nothing. `tailpod doctor` has the same checks under the same codes. Exit \
        code 3 when there are failures.",
    after_long_help = "\
Examples:
  tailpod certs check                             In a Pod, or beside a tailscaled
  tailpod certs check --serve-config serve.json   Before it is applied
  tailpod certs check --json                      For machines"
)]
pub(super) struct Args {}

/// Runs it.
pub(super) async fn run(
    _: &Args,
    common: &Common,
    cluster: &ClusterArgs,
    vars: &dyn Vars,
    out: &Output,
) -> anyhow::Result<ExitStatus> {
    let format = Format::of(common, out)?;
    let mut subject = subject(cluster, vars);
    if let Some(socket) = &common.socket {
        subject.socket.clone_from(socket);
    }
    let only = [
        Only::Code(CLOCK_SKEW.code),
        Only::Code(DAEMON_SOCKET.code),
        Only::Code(DAEMON_STATE.code),
        Only::Group(Group::Serve),
        Only::Group(Group::Certs),
    ];
    let found = examine(&subject, &only, Box::pin(findings(common, cluster, vars))).await;
    report(&found, |document| format.write(document, out), out)
}
