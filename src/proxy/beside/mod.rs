//! `tailpod proxy`: the proxy beside a tailscaled that somebody else keeps.
//!
//! It does what `k8s-proxy` does, with what flags and a config say, except what belongs to whoever started the daemon:
//! its login, its state and its end. Of the daemon's settings only what is named is changed, and what was put there
//! for us is taken away again.

mod node;
mod upkeep;

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::upkeep::Upkeep;
use super::config::{Config, Flags};
use super::config_source::{ConfigSource, LoadError, Source};
use super::reload::{self, ReloadErrors};
use super::{
    Client, Grants, Limits, Listen, Metrics, Options, Proxy, ServerTiming, StartError, Surroundings, UnrecordedStreams,
    Workers, apply, local,
};
use crate::causes::chain;
use crate::health::{BindError, HealthHandle};
use crate::k8s::upstream::Upstream;
use crate::k8s::{self, Cluster};
use crate::localapi::LocalApi;
use crate::serve::advertise::Ownership;
use crate::serve::withdraw::fail_over;
use crate::settings::KubeAccess;
use crate::shutdown::{Signals, Tasks};

/// How the program names itself to the API server when it reads its config there.
const COMPONENT: &str = "tailpod-proxy";

/// For everything beside the proxy itself to stop.
const SETTLE: Duration = Duration::from_secs(3);

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Beside {
    /// Where the config is, if there is one.
    pub source: Option<Source>,
    /// What the command line says; it wins over the config.
    pub flags: Flags,
    /// Where clients come from.
    pub listen: Listen,
    /// Whether the grants of the Service count too.
    pub service_grants: bool,
    /// Streams that nothing can record, while recording is enforced.
    pub unrecorded_streams: UnrecordedStreams,
    /// Whether answers tell how long identity and upstream took.
    pub server_timing: ServerTiming,
    /// The way to the API server.
    pub access: KubeAccess,
    /// The daemon.
    pub localapi: LocalApi,
    /// Where health and metrics are served unless a flag says otherwise; wins over the config.
    pub pod_ip: Option<IpAddr>,
    /// How long to serve on after the Services were withdrawn.
    pub withdraw_wait: Duration,
    /// Connections that one peer may have; half of all without it.
    pub peer_connections: Option<usize>,
}

/// Why it ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no config to start with.
    #[error(transparent)]
    Config(#[from] LoadError),
    /// The cluster cannot be used.
    #[error("cannot use the cluster")]
    Cluster(#[from] k8s::Error),
    /// The proxy cannot serve.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Health and metrics cannot be served.
    #[error(transparent)]
    Local(#[from] BindError),
    /// A Service leads here without saying who calls.
    #[error("the config has {0} served, which needs --proxy-protocol: tailscaled ends its TLS and tells who calls")]
    NeedsProxyHeader(String),
    /// The grants of no Service.
    #[error("--service-grants needs a Service: name one with --service or in the config")]
    NoService,
    /// What the flags or the config say could not be brought about.
    #[error("cannot set the node up: {0}")]
    Setup(String),
    /// Something that has to run for ever ended.
    #[error("{0}")]
    Ended(String),
}

impl Error {
    /// Whether another try is useless before flags or config are changed.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Config(LoadError::Bad { .. }) | Self::NeedsProxyHeader(_) | Self::NoService)
    }
}

/// Serves until a signal.
///
/// # Errors
/// It cannot serve as it was told to, or something broke for good.
pub async fn run(beside: Beside, signals: &mut Signals) -> Result<(), Error> {
    let mut source = match &beside.source {
        Some(source) => {
            let cluster = Cluster::connect_unattended(&beside.access, COMPONENT).await?;
            Some(ConfigSource::open(source.clone(), &cluster))
        }
        None => None,
    };
    let mut config = Arc::new(Config::default());
    if let Some(source) = &mut source {
        let first = tokio::select! {
            biased;
            _ = signals.next() => return Ok(()),
            first = source.first() => first?,
        };
        reload::warn(&first.warnings);
        reload::set_level(&first.config);
        warn_of_the_nodes_own(&first.config);
        config = first.config;
    }
    let config = beside.flags.over(config);
    let (set_config, config_in_force) = watch::channel(Arc::clone(&config));
    let options = options(&beside, &config_in_force)?;

    let upstream = Upstream::open(&beside.access, options.mode.whose()).await?;
    let metrics = Arc::new(Metrics::default());
    let reloads = Arc::new(ReloadErrors::default());
    let (localapi, drain) = (beside.localapi.clone(), options.limits.drain);
    let workers = Workers::start()?;
    let surroundings = Surroundings { localapi: localapi.clone(), upstream, metrics: Arc::clone(&metrics), workers };
    let proxy = Proxy::bind(options, surroundings).await?;
    let health = if config.health { HealthHandle::new() } else { HealthHandle::silent() };
    let pod_ip = beside.pod_ip.filter(|_| beside.flags.local_addr.is_none());
    let server = local::bind(&config, pod_ip, &health, &localapi, metrics, Arc::clone(&reloads))?;
    let backend = proxy.addresses().first().copied();

    // In the order of their need: what is stopped last comes first.
    let mut http = Tasks::new(CancellationToken::new());
    if let Some(server) = server {
        http.spawn("health", |stop| server.serve(stop));
    }
    let mut tasks = Tasks::new(CancellationToken::new());
    let node = node::Node::first(&localapi, &health).await;
    let (node, health_of_node) = (watch::channel(node), health.clone());
    let (set_node, node) = node;
    {
        let localapi = localapi.clone();
        tasks.spawn("node", |stop| node::follow(localapi, health_of_node, set_node, stop));
    }
    let keeps = source.is_some() || beside.flags.service.is_some();
    if let Some(source) = source {
        let flags = beside.flags.clone();
        tasks.spawn("config watch", |stop| async move {
            reload::follow(source, flags, set_config, reloads, stop).await;
            Ok::<(), Infallible>(())
        });
    }
    let mut serving = Tasks::new(CancellationToken::new());
    serving.spawn("proxy", |stop| proxy.serve(stop));

    let client = beside.listen.client;
    let mut upkeep = keeps.then(|| Upkeep::new(localapi.clone(), backend, client, config_in_force, node, health));
    let keep = async {
        match &mut upkeep {
            Some(upkeep) => upkeep.keep().await,
            None => std::future::pending().await,
        }
    };
    let outcome = tokio::select! {
        biased;
        signal = signals.next() => {
            tracing::info!("{signal}: stopping");
            Ok(())
        }
        ended = serving.next_ended() => Err(Error::Ended(ended.to_string())),
        ended = tasks.next_ended() => Err(Error::Ended(ended.to_string())),
        ended = http.next_ended() => Err(Error::Ended(ended.to_string())),
        text = keep => Err(Error::Setup(text)),
    };

    if let Some(upkeep) = &upkeep {
        fail_over(&localapi, Ownership::Services(upkeep.ours()), beside.withdraw_wait, signals).await;
    }
    tokio::select! {
        unclean = serving.stop(drain + SETTLE) => for task in unclean {
            tracing::warn!("{task}");
        },
        // Whoever asks again means it.
        signal = signals.next() => tracing::info!("{signal}: stopping at once"),
    }
    if let Some(upkeep) = &upkeep
        && !upkeep.ours().is_empty()
        && let Err(error) = apply::clear(&localapi, Ownership::Services(upkeep.ours())).await
    {
        tracing::warn!("cannot take the Service out of tailscaled's serve config: {}", chain(&error));
    }
    tasks.stop(SETTLE).await;
    http.stop(SETTLE).await;
    outcome
}

fn options(beside: &Beside, in_force: &watch::Receiver<Arc<Config>>) -> Result<Options, Error> {
    let (client, config) = (beside.listen.client, Arc::clone(&in_force.borrow()));
    if let Some(service) = config.served().filter(|_| client != Client::ProxyHeader) {
        return Err(Error::NeedsProxyHeader(service.to_string()));
    }
    let grants = match (beside.service_grants, &config.api_server.service) {
        (false, _) => Grants::Node,
        (true, Some(_)) => Grants::NodeThenService(in_force.clone()),
        (true, None) => return Err(Error::NoService),
    };
    Ok(Options {
        mode: config.api_server.mode,
        listen: beside.listen.clone(),
        grants,
        unrecorded_streams: beside.unrecorded_streams,
        server_timing: beside.server_timing,
        limits: Limits { peer_connections: beside.peer_connections, ..Limits::default() },
    })
}

/// Names what only whoever starts tailscaled can bring about.
fn warn_of_the_nodes_own(config: &Config) {
    let fields = [
        ("AuthKey", config.auth_key.is_some()),
        ("State", config.state.is_some()),
        ("App", config.app.is_some()),
        ("ServerURL", config.server_url.is_some()),
        ("StaticEndpoints", !config.static_endpoints.is_empty()),
        ("APIServerProxy.IssueCerts", config.api_server.issue_certs),
    ];
    for (field, _) in fields.iter().filter(|(_, said)| *said) {
        tracing::info!("config field {field} has no effect beside a tailscaled that runs already");
    }
}
