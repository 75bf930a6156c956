//! `tailpod generate manifests`: flags to options, options to text.

use anyhow::anyhow;

use crate::cli::cluster::{namespace, object_name};
use crate::cli::exit::ExitStatus;
use crate::cli::report::Advise;
use crate::manifests::{boot, proxy};
use crate::prefix::Prefix;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Manifests {
    /// A node: service account, Role, Secret to fill in, and a StatefulSet or a sidecar
    #[command(after_long_help = "\
Examples:
  tailpod generate manifests boot                                      A node in userspace mode
  tailpod generate manifests boot --kernel --routes 10.0.0.0/8         A subnet router
  tailpod generate manifests boot --replicas 3 --namespace tailscale   Three nodes, each with its own Secret
  tailpod generate manifests boot --sidecar --mode one-step            Beside an application, by a config file")]
    Boot(Node),
    /// The API server proxy: service account, RBAC, Secrets to fill in, Service, Deployment, and the grant
    #[command(after_long_help = "\
Examples:
  tailpod generate manifests proxy --groups k8s-readers | kubectl apply --server-side -f -
                                                      A proxy with a name and a certificate of its own
  tailpod generate manifests proxy --listener serve --tailnet tail1234.ts.net --replicas 2
                                                      Replicas of one Tailscale Service
  tailpod generate manifests proxy --mode noauth      A network path only: callers bring their own credentials
  tailpod generate manifests proxy --policy           Only what belongs into the tailnet policy file")]
    Proxy(Proxy),
}

/// The node to make manifests for.
#[derive(Debug, clap::Args)]
pub(super) struct Node {
    /// What configures the node
    #[arg(long, value_enum, default_value_t)]
    mode: NodeMode,

    /// Routes to advertise, comma-separated
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    routes: Vec<Prefix>,

    /// Use the kernel's network stack; needs the TUN device and NET_ADMIN
    #[arg(long)]
    kernel: bool,

    /// A native sidecar in an application's Pod instead of a StatefulSet
    #[arg(long, conflicts_with = "replicas")]
    sidecar: bool,

    /// Namespace of everything; without it the one that kubectl uses
    #[arg(long, short, value_name = "NAME", value_parser = object_name)]
    namespace: Option<String>,

    /// Name of everything
    #[arg(long, value_name = "NAME", default_value = "tailpod", value_parser = label)]
    name: String,

    /// Image with tailpod and tailscaled
    #[arg(long, value_name = "IMAGE", default_value = "example.com/tailpod")]
    image: String,

    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    replicas: u32,

    /// The state Secret, if not one for each Pod, named as the Pod
    #[arg(long, value_name = "NAME", value_parser = object_name)]
    secret: Option<String>,
}

/// What configures the node.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum NodeMode {
    /// A tailscaled config file alone, in a Secret
    OneStep,
    /// Log in only when the node is not logged in yet
    #[default]
    AuthOnce,
    /// Log in on every start
    AlwaysAuth,
}

impl Node {
    fn options(&self) -> boot::Options {
        boot::Options {
            mode: match self.mode {
                NodeMode::OneStep => boot::Mode::OneStep,
                NodeMode::AuthOnce => boot::Mode::AuthOnce,
                NodeMode::AlwaysAuth => boot::Mode::AlwaysAuth,
            },
            routes: self.routes.clone(),
            kernel: self.kernel,
            sidecar: self.sidecar,
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            image: self.image.clone(),
            replicas: self.replicas,
            secret: self.secret.clone(),
            hostname: None,
        }
    }
}

/// The proxy to make manifests for.
#[derive(Debug, clap::Args)]
pub(super) struct Proxy {
    /// Who terminates TLS
    #[arg(long, value_enum, default_value_t)]
    listener: ProxyListener,

    /// Whether callers become Kubernetes users in the proxy
    #[arg(long, value_enum, default_value_t)]
    mode: ProxyMode,

    /// Groups that grants may name, comma-separated; the proxy can act as a member of no other
    #[arg(long, value_name = "GROUP", value_delimiter = ',', default_value = "tailnet-readers", value_parser = group)]
    groups: Vec<String>,

    /// Tailscale Service that `--listener serve` serves [default: svc:NAME]
    #[arg(long, value_name = "svc:NAME", value_parser = service)]
    service: Option<String>,

    /// DNS name of the tailnet, for `--listener serve`: tail1234.ts.net
    #[arg(long, value_name = "DOMAIN", value_parser = object_name, required_if_eq("listener", "serve"))]
    tailnet: Option<String>,

    /// Tag of the nodes, which the auth key must have
    #[arg(long, value_name = "tag:NAME", default_value = "tag:k8s-proxy", value_parser = tag)]
    tag: String,

    /// Who may use the proxy, comma-separated, as the policy file names them
    #[arg(long, value_name = "WHO", value_delimiter = ',', default_value = "autogroup:admin", value_parser = group)]
    src: Vec<String>,

    /// Print only what belongs into the tailnet policy file
    #[arg(long)]
    policy: bool,

    /// Namespace of everything
    #[arg(long, short, value_name = "NAME", default_value = "tailscale", value_parser = namespace)]
    namespace: String,

    /// Name of everything
    #[arg(long, value_name = "NAME", default_value = "tailpod-proxy", value_parser = label)]
    name: String,

    /// Image with tailpod, its links, and tailscaled
    #[arg(long, value_name = "IMAGE", default_value = "example.com/tailpod")]
    image: String,

    /// How many: one is a Deployment, more are a StatefulSet
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    replicas: u32,
}

/// Who terminates TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum ProxyListener {
    /// The proxy, with the certificate of each node's name
    #[default]
    Tls,
    /// tailscaled, with that of a Tailscale Service, which all replicas serve
    Serve,
}

/// Whose credentials the API server sees.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum ProxyMode {
    /// The proxy's, acting as the caller
    #[default]
    Auth,
    /// The caller's own
    Noauth,
}

impl Manifests {
    /// What is printed.
    pub(super) fn text(&self) -> anyhow::Result<String> {
        match self {
            Self::Boot(node) => {
                boot::render(&node.options()).map_err(|refused| anyhow!(refused).exit_with(ExitStatus::Usage))
            }
            Self::Proxy(args) => {
                let options = args.options()?;
                Ok(if args.policy { options.policy() } else { proxy::render(&options) })
            }
        }
    }
}

impl Proxy {
    fn options(&self) -> anyhow::Result<proxy::Options> {
        let listener = match (self.listener, &self.tailnet) {
            (ProxyListener::Serve, Some(tailnet)) => proxy::Listener::Serve {
                service: self.service.clone().unwrap_or_else(|| format!("svc:{}", self.name)),
                tailnet: tailnet.clone(),
            },
            (ProxyListener::Tls, None) if self.service.is_none() => proxy::Listener::Tls,
            (ProxyListener::Tls | ProxyListener::Serve, _) => {
                let error = anyhow!("`--service` and `--tailnet` are about a Tailscale Service");
                return Err(error.hint("add `--listener serve`").exit_with(ExitStatus::Usage));
            }
        };
        Ok(proxy::Options {
            listener,
            mode: match self.mode {
                ProxyMode::Auth => proxy::Mode::Auth,
                ProxyMode::Noauth => proxy::Mode::Noauth,
            },
            groups: self.groups.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            image: self.image.clone(),
            replicas: self.replicas,
            tag: self.tag.clone(),
            src: self.src.clone(),
        })
    }
}

/// A word of the policy file, or a group's name: anything that can be seen.
fn group(text: &str) -> Result<String, String> {
    if text.is_empty() || text.chars().any(|char| char.is_control() || char.is_whitespace()) {
        return Err("it has no spaces and is not empty".to_owned());
    }
    Ok(text.to_owned())
}

fn service(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("svc:").ok_or("it begins with `svc:`")?;
    namespace(name).map(|name| format!("svc:{name}")).map_err(|_| "a Service's name is a DNS label".to_owned())
}

fn tag(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("tag:").ok_or("it begins with `tag:`")?;
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if !name.starts_with(|char: char| char.is_ascii_alphabetic()) || !name.bytes().all(inner) {
        return Err("a tag has letters, digits and `-`, and begins with a letter".to_owned());
    }
    Ok(text.to_owned())
}

/// What can be the name of a Pod's label value, a service and a StatefulSet.
fn label(text: &str) -> Result<String, String> {
    // Room for `-999` and `-config`.
    if text.contains('.') || text.len() > 52 {
        return Err("it has at most 52 characters and no dot".to_owned());
    }
    object_name(text)
}
