//! `k8s-proxy`: a node of its own that serves the Kubernetes API (api-proxy.md 9 and 17.1).
//!
//! [`run`] waits for the config, prepares the state Secret and a private directory, and hands over to the shell, which
//! performs what [`super::life`] decides: tailscaled as a child, login through its LocalAPI, serve config, health, the
//! proxy, certificates, a new auth key, and the way out. Upstream (`cmd/k8s-proxy`) embeds the node instead.

mod api;
mod certs;
mod daemon;
mod login;
mod reissue;
mod shell;
mod stop;
mod store;
mod words;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::config::{Config, Mode};
use super::config_source::{ConfigSource, Source};
use super::reload;
use super::{ServerTiming, UnrecordedStreams};
use crate::causes::chain;
use crate::daemon::program::Environment;
use crate::k8s::Cluster;
use crate::settings::KubeAccess;
use crate::settings::proxy::ProxySettings;
use crate::shutdown::Signals;

pub use super::life::Outcome;

/// The field manager of what is written to the state Secret (contract with the operator).
pub const FIELD_MANAGER: &str = "tailscale-k8s-proxy";

/// How the program names itself to the API server.
const COMPONENT: &str = "k8s-proxy";

/// What the command line adds.
#[derive(Clone, Debug)]
pub struct Extras {
    /// Where tailscaled's serve config leads; upstream's `localhost:80` by default.
    pub listen: SocketAddr,
    /// Whether grants whose destination is the config's Service count too.
    pub service_grants: bool,
    /// Streams that nothing can record, while recording is enforced.
    pub unrecorded_streams: UnrecordedStreams,
    /// Whether answers tell how long identity and upstream took.
    pub server_timing: ServerTiming,
    /// The way to the API server.
    pub access: KubeAccess,
}

/// Runs until it is over. The caller turns the outcome into an exit code.
pub async fn run(settings: ProxySettings, extras: Extras, inherited: &Environment, signals: &mut Signals) -> Outcome {
    let source: Source = match settings.config.parse() {
        Ok(source) => source,
        Err(error) => return Outcome::Failed(format!("TS_K8S_PROXY_CONFIG: {error}")),
    };
    let cluster = match Cluster::connect_unattended(&extras.access, COMPONENT).await {
        Ok(cluster) => cluster,
        Err(error) => return Outcome::Failed(format!("cannot use the cluster: {}", chain(&error))),
    };
    let mut source = ConfigSource::open(source, &cluster);
    let first = tokio::select! {
        biased;
        _ = signals.next() => return Outcome::Requested,
        first = source.first() => first,
    };
    let config = match first {
        Ok(loaded) => {
            reload::warn(&loaded.warnings);
            loaded.config
        }
        Err(error) => return Outcome::Failed(chain(&error)),
    };
    if extras.service_grants && config.api_server.service.is_none() {
        let text = "--service-grants needs a Service: name one in the config, as APIServerProxy.ServiceName";
        return Outcome::Failed(text.to_owned());
    }
    begin(&config);
    let stored = tokio::select! {
        biased;
        _ = signals.next() => return Outcome::Requested,
        stored = store::prepare(&settings, &config, &cluster) => stored,
    };
    let store = match stored {
        Ok(store) => store,
        Err(text) => return Outcome::Failed(text),
    };
    let private = match daemon::PrivateDir::make(&settings.scratch) {
        Ok(private) => private,
        Err(error) => {
            let scratch = settings.scratch.display();
            return Outcome::Failed(format!("cannot make a private directory in `{scratch}`: {error}"));
        }
    };
    let environment = daemon::environment(inherited, &config);
    let context = shell::Context { settings, extras, environment, store, private };
    shell::Shell::new(Arc::new(context), config, Instant::now()).run(source, signals).await
}

/// What the first config decides for the whole run.
fn begin(config: &Config) {
    reload::set_level(config);
    if let Some(app) = &config.app {
        tracing::info!("App \"{app}\" is not passed on: tailscaled takes only names that it knows");
    }
    if config.state.is_none() {
        tracing::warn!("No state Secret provided; using in-memory store, which will lose state on restart");
    }
    if config.api_server.mode == Mode::NoAuth {
        tracing::debug!("callers bring their own credentials");
    }
}
