//! `tailpod proxy`: the Kubernetes API for tailnet peers, beside a tailscaled that runs already; and `k8s-proxy`.

mod check;
mod classify;
mod explain;
mod kubeconfig;
mod persona;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::{ValueEnum, ValueHint};

use crate::applet::socket;
use crate::cli::cluster::ClusterArgs;
use crate::cli::exit::ExitStatus;
use crate::cli::later::Later;
use crate::cli::output::Output;
use crate::cli::program::Invocation;
use crate::cli::report::Advise;
use crate::localapi::LocalApi;
use crate::proxy::beside::{self, Beside};
use crate::proxy::config::{Flags, ServiceName};
use crate::proxy::{At, Client, Listen, Mode, ServerTiming, Tls, UnrecordedStreams};
use crate::settings::{ProcessEnv, proxy};
use crate::shutdown::{self, Signals};

/// Where tailscaled hands over what arrives for the API.
const TAILNET_PORT: u16 = 443;
/// Where tailscaled's serve config sends what it has decrypted (api-proxy.md 2).
const BEHIND_SERVE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 80);

/// How to proxy.
#[derive(Debug, Default, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    subcommand_value_name = "COMMAND",
    long_about = "Proxy the Kubernetes API over the tailnet.\n\n\
        Asks tailscaled who each caller is and passes the request on to the API server, as that user (`--mode auth`) or \
        untouched (`--mode noauth`). Runs beside a tailscaled that is up already, in TUN or in userspace mode. With \
        `--service` it has tailscaled serve and advertise that Service, and takes that back when it stops.\n\n\
        Called as `k8s-proxy`, or with TS_K8S_PROXY_CONFIG, it starts and keeps a tailscaled of its own, and the config \
        says what to do.",
    after_long_help = "\
Examples:
  tailpod proxy                                   Serve tailnet peers on port 443, with certificates of the tailnet
  tailpod proxy --mode noauth                     A network path only: callers bring their own credentials
  tailpod proxy --proxy-protocol                  Behind `tailscale serve` with a PROXY header, on 127.0.0.1:80
  tailpod proxy --service svc:prod-api            The same, and have tailscaled serve that Service
  tailpod proxy --config /etc/proxy.hujson        What the config of k8s-proxy says, beside this tailscaled
  tailpod proxy --kubeconfig ~/.kube/config       Serve the cluster of a kubeconfig
  TS_K8S_PROXY_CONFIG=config.hujson k8s-proxy     With a tailscaled of its own, as the operator runs it
  tailpod proxy check config.hujson               Whether that config can be used
  tailpod proxy explain --peer 100.64.0.9         As whom a peer's requests are made, and why
  tailpod proxy kubeconfig > proxy.yaml           What a client needs"
)]
pub struct Args {
    /// Config file, or `kube:NAMESPACE/NAME` for a Secret, in the format of k8s-proxy; followed, and flags win over it
    #[arg(long, value_name = "SOURCE")]
    config: Option<String>,

    /// Whether callers become Kubernetes users here; `auth` unless the config says otherwise
    #[arg(long, value_enum)]
    mode: Option<ModeArg>,

    /// Address to listen on; by default port 443 wherever tailnet peers arrive
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,

    /// Expect a PROXY protocol header (v2) from tailscaled on every connection; listens on 127.0.0.1:80 by default.
    /// Implied by `--service`, and by `--config` unless `--tls` names certificates. Every process in the same network
    /// namespace can write such a header, so each is trusted to say who calls
    #[arg(long)]
    proxy_protocol: bool,

    /// Where certificates come from; `off` is the default with `--proxy-protocol`
    #[arg(long, value_name = "SOURCE", value_enum)]
    tls: Option<TlsArg>,

    /// Certificate chain for `--tls files`, PEM; read again when it changes
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    tls_cert: Option<PathBuf>,

    /// Private key for `--tls files`, PEM
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    tls_key: Option<PathBuf>,

    /// Kubeconfig that leads to the cluster; without it the Pod's service account, then kubectl's rules
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    kubeconfig: Option<PathBuf>,

    /// Context of the kubeconfig, if not the current one
    #[arg(long, value_name = "NAME")]
    context: Option<String>,

    /// tailscaled's socket; by default TS_SOCKET
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    socket: Option<PathBuf>,

    /// Tailscale Service that tailscaled shall serve, with us behind it, and advertise
    #[arg(long, value_name = "svc:NAME")]
    service: Option<ServiceName>,

    /// Also count grants whose destination is the Service, after those of the node
    #[arg(long)]
    service_grants: bool,

    /// Serve health and metrics there
    #[arg(long, value_name = "ADDR")]
    local_addr: Option<SocketAddr>,

    /// While recording is enforced, refuse every stream that cannot be recorded, port-forward included
    #[arg(long)]
    deny_unrecorded_streams: bool,

    /// Tell in each answer how long identity and upstream took
    #[arg(long)]
    server_timing: bool,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show as whom a peer's requests are made, and by which rules
    Explain(Later<explain::Args>),
    /// Print a kubeconfig for this proxy
    Kubeconfig(Later<kubeconfig::Args>),
    /// Check a config file of k8s-proxy
    Check(Later<check::Args>),
    /// Say what requests are about, as kube-apiserver sees them
    Classify(Later<classify::Args>),
}

/// Values of `--mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ModeArg {
    /// The peer's identity becomes impersonation headers, sent with our own credentials
    Auth,
    /// Callers bring their own credentials; none are added
    Noauth,
}

/// Values of `--tls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TlsArg {
    /// Certificates that tailscaled gets for the node's names
    Tailscale,
    /// The files `--tls-cert` and `--tls-key`
    Files,
    /// None: tailscaled or WireGuard has encrypted already
    Off,
}

impl Args {
    /// Whether this is the run of `k8s-proxy`, with its log format.
    pub fn is_the_persona(&self, invocation: &Invocation) -> bool {
        persona::is_meant(self, invocation, &ProcessEnv::capture())
    }

    /// A flag for what the config of `k8s-proxy` says.
    fn set_by_config(&self) -> Option<&'static str> {
        let flags = [
            ("--proxy-protocol", self.proxy_protocol),
            ("--tls", self.tls.is_some() || self.tls_cert.is_some() || self.tls_key.is_some()),
            ("--socket", self.socket.is_some()),
            ("--service", self.service.is_some()),
            ("--local-addr", self.local_addr.is_some()),
            ("--mode", self.mode.is_some()),
        ];
        flags.into_iter().find(|(_, set)| *set).map(|(flag, _)| flag)
    }

    /// Where clients come from, as the flags say together.
    ///
    /// # Errors
    /// Exit code 2 for flags that exclude each other.
    fn listen(&self) -> anyhow::Result<Listen> {
        let own_tls = self.tls_cert.is_some() || !matches!(self.tls, None | Some(TlsArg::Off));
        if self.service.is_some() && own_tls {
            return Err(usage("`--service` goes with `--tls off`: tailscaled ends the TLS of a Service"));
        }
        let behind_serve = self.proxy_protocol || self.service.is_some() || (self.config.is_some() && !own_tls);
        let tls = match (self.tls, &self.tls_cert, &self.tls_key) {
            (Some(TlsArg::Files) | None, Some(certificate), Some(key)) => {
                Tls::Files { certificate: certificate.clone(), key: key.clone() }
            }
            (Some(TlsArg::Files), ..) => return Err(usage("`--tls files` needs `--tls-cert` and `--tls-key`")),
            (_, Some(_), _) | (_, _, Some(_)) => {
                return Err(usage("`--tls-cert` and `--tls-key` go with `--tls files`"));
            }
            (Some(TlsArg::Off), ..) => Tls::Off,
            (Some(TlsArg::Tailscale), ..) => Tls::Tailscale,
            (None, ..) if behind_serve => Tls::Off,
            (None, ..) => Tls::Tailscale,
        };
        let at = match self.listen {
            Some(addr) => At::Address(addr),
            None if behind_serve => At::Address(BEHIND_SERVE),
            None => At::Tailnet { port: TAILNET_PORT },
        };
        Ok(Listen { at, client: if behind_serve { Client::ProxyHeader } else { Client::Peer }, tls })
    }

    fn unrecorded_streams(&self) -> UnrecordedStreams {
        if self.deny_unrecorded_streams { UnrecordedStreams::Deny } else { UnrecordedStreams::Forward }
    }

    fn server_timing(&self) -> ServerTiming {
        if self.server_timing { ServerTiming::Show } else { ServerTiming::Hide }
    }
}

/// Serves until a signal; or runs what was asked for instead.
pub async fn run(mut args: Args, invocation: &Invocation, out: &Output) -> anyhow::Result<ExitStatus> {
    let vars = ProcessEnv::capture();
    match args.command.take() {
        Some(Command::Explain(Later(args))) => explain::run(args, out).await,
        Some(Command::Kubeconfig(Later(args))) => kubeconfig::run(args, out).await,
        Some(Command::Check(Later(args))) => check::run(&args, out),
        Some(Command::Classify(Later(args))) => classify::run(&args, out),
        None if persona::is_meant(&args, invocation, &vars) => persona::run(args, vars).await,
        None => run_beside(args, &vars).await,
    }
}

/// Serves beside a tailscaled that somebody else keeps, until a signal.
async fn run_beside(args: Args, vars: &ProcessEnv) -> anyhow::Result<ExitStatus> {
    let listen = args.listen()?;
    let source = args.config.as_deref().map(str::parse).transpose().map_err(|error| usage(&format!("{error}")))?;
    let settings = proxy::read_beside(vars).map_err(|problems| anyhow!(problems).exit_with(ExitStatus::Usage))?;
    let cluster =
        ClusterArgs { kubeconfig: args.kubeconfig.clone(), context: args.context.clone(), ..ClusterArgs::default() };
    let beside = Beside {
        source,
        flags: Flags { mode: args.mode.map(Mode::from), service: args.service.clone(), local_addr: args.local_addr },
        listen,
        service_grants: args.service_grants,
        unrecorded_streams: args.unrecorded_streams(),
        server_timing: args.server_timing(),
        access: cluster.access_by_address(vars)?,
        localapi: LocalApi::new(&args.socket.unwrap_or_else(|| socket(vars))),
        pod_ip: settings.pod_ip,
        withdraw_wait: settings.withdraw_wait,
        peer_connections: settings.peer_connections,
    };
    let mut signals = Signals::install().context("cannot watch for signals")?;
    // A connection takes two descriptors.
    shutdown::raise_open_files_limit().context("cannot raise the limit on open files")?;
    beside::run(beside, &mut signals).await.map_err(|error| {
        let status = if error.is_usage() { ExitStatus::Usage } else { ExitStatus::Failed };
        anyhow::Error::from(error).exit_with(status)
    })?;
    Ok(ExitStatus::Done)
}

impl From<ModeArg> for Mode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Auth => Self::Auth,
            ModeArg::Noauth => Self::NoAuth,
        }
    }
}

fn usage(what: &str) -> anyhow::Error {
    anyhow!("{what}").exit_with(ExitStatus::Usage)
}
