//! `tailpod proxy explain`: as whom a peer's requests would be made, and why.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::ValueHint;
use hyper::header::HeaderMap;

use crate::cli::exit::ExitStatus;
use crate::cli::output::Output;
use crate::cli::report::Advise;
use crate::cli::table::{Column, Table};
use crate::localapi::types::WhoIs;
use crate::localapi::{LocalApi, Scope};
use crate::proxy::access::Peer;
use crate::proxy::config::ServiceName;
use crate::proxy::explain::{ExplainedRule, Explanation, explain};
use crate::proxy::tells_service_grants;
use crate::settings::ProcessEnv;

/// Whom to explain.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  tailpod proxy explain --peer 100.64.0.9     As whom that peer's requests are made, and by which rules
  tailscale whois --json 100.64.0.9 | tailpod proxy explain --whois -
                                              The same from an answer of whois
  tailpod proxy explain --peer 100.64.0.9 --service svc:prod-api
                                              With the grants of the Service, as `--service-grants` counts them")]
#[command(group = clap::ArgGroup::new("whom").required(true).args(["peer", "whois"]))]
pub(super) struct Args {
    /// Tailnet address of the peer, with or without a port
    #[arg(long, value_name = "ADDR", value_parser = peer)]
    peer: Option<SocketAddr>,

    /// File with whois' answer as JSON, or `-` for standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    whois: Option<PathBuf>,

    /// Also count the grants whose destination is this Service, as `--service-grants` does
    #[arg(long, value_name = "svc:NAME", requires = "peer")]
    service: Option<ServiceName>,

    /// tailscaled's socket; by default TS_SOCKET
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    socket: Option<PathBuf>,
}

/// Explains it.
pub(super) async fn run(args: Args, out: &Output) -> anyhow::Result<ExitStatus> {
    let (node, service) = match (&args.peer, &args.whois) {
        (Some(peer), _) => {
            let api = LocalApi::new(&args.socket.clone().unwrap_or_else(|| super::socket(&ProcessEnv::capture())));
            let Some(node) = ask(&api, *peer, Scope::Node).await? else {
                out.error(format!("tailscaled knows no peer at {peer}; its requests are refused"));
                return Ok(ExitStatus::No);
            };
            let service = match &args.service {
                Some(service) => {
                    tells_service_grants(&api.versions().version.unwrap_or_default())?;
                    ask(&api, *peer, Scope::Service(service.as_str())).await?
                }
                None => None,
            };
            (node, service)
        }
        (None, Some(file)) => (read(file)?, None),
        (None, None) => return Err(anyhow!("nobody is named").exit_with(ExitStatus::Usage)),
    };
    let peer = Peer::new(&node, service.as_ref());
    let explanation = explain(&peer, &HeaderMap::new());
    if out.is_json() {
        out.json(&explanation)?;
    } else {
        out.data(text(&explanation))?;
    }
    Ok(if explanation.problems.is_empty() { ExitStatus::Done } else { ExitStatus::No })
}

async fn ask(api: &LocalApi, peer: SocketAddr, scope: Scope<'_>) -> anyhow::Result<Option<WhoIs>> {
    api.whois(peer, scope).await.context("cannot ask tailscaled who that is")
}

fn read(file: &std::path::Path) -> anyhow::Result<WhoIs> {
    let bytes = if file.as_os_str() == "-" {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin(), &mut bytes).context("cannot read standard input")?;
        bytes
    } else {
        std::fs::read(file).with_context(|| format!("cannot read `{}`", file.display()))?
    };
    let whois = serde_json::from_slice(&bytes).context("this is not an answer of whois as JSON");
    whois.map_err(|error| error.exit_with(ExitStatus::Usage))
}

fn text(explanation: &Explanation) -> String {
    let whose = match &explanation.login {
        Some(login) => format!("user {login}"),
        None => explanation.tags.join(", "),
    };
    let mut text = format!("Peer: {} ({}), {whose}\n", explanation.node, explanation.stable_id);
    text.push_str("\nRules, in the order that counts:\n");
    if explanation.rules.is_empty() {
        text.push_str("  none: no grant gives this peer tailscale.com/cap/kubernetes towards this node\n");
    } else {
        let columns = ["rule", "capability", "groups", "may ask for", "recorders", "enforced", "events"];
        let mut table = Table::new(&columns.map(Column::Text));
        for rule in &explanation.rules {
            table.row(cells(rule));
        }
        text.push_str(&table.render());
    }
    if let Some(whom) = &explanation.as_whom {
        text.push_str("\nHeaders of a request:\n");
        for header in &whom.headers {
            text.extend(["  ", header, "\n"]);
        }
    }
    for problem in &explanation.problems {
        text.extend(["\nEvery request is refused: ", problem, "\n"]);
    }
    if let Some(recording) = &explanation.recording {
        let recorders = if recording.recorders.is_empty() { "none".to_owned() } else { recording.recorders.join(", ") };
        let events = if recording.events { "recorded" } else { "not recorded" };
        let without = if recording.enforced { "refuse" } else { "forward" };
        text.extend(["\nRecorders: ", &recorders, "; without one: ", without, "; API requests: ", events, "\n"]);
    }
    text
}

fn cells(rule: &ExplainedRule) -> [String; 7] {
    let list = |list: &[String]| if list.is_empty() { "-".to_owned() } else { list.join(", ") };
    let yes = |yes: bool| if yes { "yes" } else { "-" }.to_owned();
    let capability =
        if rule.groups_count { rule.capability.to_owned() } else { format!("{} (not used)", rule.capability) };
    [
        rule.number.to_string(),
        capability,
        list(&rule.groups),
        rule.allow.as_deref().map_or_else(|| "-".to_owned(), list),
        list(&rule.recorder_addrs),
        yes(rule.enforce_recorder),
        yes(rule.enable_events),
    ]
}

/// An address with or without a port.
fn peer(text: &str) -> Result<SocketAddr, String> {
    let bare: Result<IpAddr, _> = text.parse();
    bare.map(|ip| SocketAddr::new(ip, 0)).or_else(|_| text.parse()).map_err(|_| "it is not an IP address".to_owned())
}
