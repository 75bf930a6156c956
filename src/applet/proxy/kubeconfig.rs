//! `tailpod proxy kubeconfig`: what a client needs to use this proxy.

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::ValueHint;

use crate::cli::exit::ExitStatus;
use crate::cli::output::Output;
use crate::cli::report::Advise;
use crate::localapi::{LocalApi, Peers};
use crate::manifests::yaml::{Yaml, document, map};
use crate::node::Device;
use crate::proxy::config::ServiceName;
use crate::settings::ProcessEnv;

/// The user that the proxy makes of the caller: no credential of its own is ever needed.
const USER: &str = "tailscale-auth";

/// For which address.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Print a kubeconfig for this proxy.\n\n\
        The address is asked from tailscaled: the Service's when one is named, else the node's own. Nothing is merged \
        and nothing is written.",
    after_long_help = "\
Examples:
  tailpod proxy kubeconfig > proxy.yaml                        For the proxy on this node
  tailpod proxy kubeconfig --service svc:prod-api              For a Tailscale Service
  tailpod proxy kubeconfig --server https://api.t.ts.net       Without asking tailscaled
  KUBECONFIG=~/.kube/config:proxy.yaml kubectl config view --flatten    Merge it with yours"
)]
pub(super) struct Args {
    /// Tailscale Service that leads to the proxy
    #[arg(long, value_name = "svc:NAME", conflicts_with = "server")]
    service: Option<ServiceName>,

    /// Address of the proxy, instead of asking tailscaled
    #[arg(long, value_name = "URL")]
    server: Option<String>,

    /// Name of cluster and context; by default the host name of the address
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// For a proxy in noauth mode: leave the user out, since everybody brings their own credentials
    #[arg(long)]
    no_user: bool,

    /// tailscaled's socket; by default TS_SOCKET
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    socket: Option<PathBuf>,
}

/// Prints it.
pub(super) async fn run(args: Args, out: &Output) -> anyhow::Result<ExitStatus> {
    let server = match &args.server {
        Some(server) => checked(server)?,
        None => format!("https://{}", host(&args).await?),
    };
    let host = server.trim_start_matches("https://").split(['/', ':']).next().unwrap_or_default().to_owned();
    let name = args.name.unwrap_or(host);
    if out.is_json() {
        out.json(&as_json(&name, &server, args.no_user))?;
    } else {
        out.raw(&document(&kubeconfig(&name, &server, args.no_user)))?;
    }
    Ok(ExitStatus::Done)
}

/// The name that peers call.
async fn host(args: &Args) -> anyhow::Result<String> {
    let api = LocalApi::new(&args.socket.clone().unwrap_or_else(|| super::socket(&ProcessEnv::capture())));
    let asked = api.status(Peers::Omit).await.context("cannot ask tailscaled for this node's name");
    let status = asked.map_err(|error| error.hint("name the address: `--server https://NAME.TAILNET.ts.net`"))?;
    let fqdn = status.self_.map(|node| node.dns_name).filter(|name| !name.is_empty());
    let fqdn = fqdn.ok_or_else(|| anyhow!("this node has no name yet; it is {}", status.backend_state))?;
    match &args.service {
        None => Ok(fqdn.trim_end_matches('.').to_owned()),
        Some(service) => {
            let device = Device { id: String::new(), fqdn, addresses: Vec::new(), key_expired: false };
            let suffix = device.magic_dns_suffix().ok_or_else(|| anyhow!("the tailnet has no MagicDNS suffix"))?;
            Ok(format!("{}.{suffix}", service.label()))
        }
    }
}

fn checked(server: &str) -> anyhow::Result<String> {
    let rest = server.strip_prefix("https://").filter(|rest| !rest.is_empty() && !rest.contains(char::is_whitespace));
    match rest {
        Some(_) => Ok(server.trim_end_matches('/').to_owned()),
        None => Err(anyhow!("`{server}` is not an https:// address").exit_with(ExitStatus::Usage)),
    }
}

fn kubeconfig(name: &str, server: &str, no_user: bool) -> Yaml {
    let cluster = map([("name", name.into()), ("cluster", map([("server", server.into())]))]);
    let mut context = vec![("cluster".to_owned(), Yaml::from(name))];
    let mut users = Vec::new();
    if !no_user {
        context.push(("user".to_owned(), USER.into()));
        // kubectl asks for a password when it has nothing to send; the proxy drops what it gets.
        users.push(map([("name", USER.into()), ("user", map([("token", "unused".into())]))]));
    }
    map([
        ("apiVersion", "v1".into()),
        ("kind", "Config".into()),
        ("clusters", Yaml::List(vec![cluster])),
        ("contexts", Yaml::List(vec![map([("name", name.into()), ("context", Yaml::Map(context))])])),
        ("current-context", name.into()),
        ("users", Yaml::List(users)),
    ])
}

fn as_json(name: &str, server: &str, no_user: bool) -> serde_json::Value {
    use serde_json::json;
    let (context, users) = if no_user {
        (json!({"cluster": name}), json!([]))
    } else {
        (json!({"cluster": name, "user": USER}), json!([{"name": USER, "user": {"token": "unused"}}]))
    };
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": server}}],
        "contexts": [{"name": name, "context": context}],
        "users": users,
    })
}
