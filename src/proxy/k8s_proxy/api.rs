//! The API server proxy as `k8s-proxy` has it: behind tailscaled's serve config, which says who calls.

use std::sync::Arc;

use tokio::sync::watch;

use super::shell::Context;
use crate::causes::chain;
use crate::k8s::upstream::Upstream;
use crate::localapi::LocalApi;
use crate::proxy::config::Config;
use crate::proxy::{At, Client, Grants, Limits, Listen, Metrics, Mode, Options, Proxy, Surroundings, Tls, Workers};
use crate::settings::KubeAccess;

/// What it is to do.
pub(super) fn options(context: &Context, mode: Mode, in_force: &watch::Receiver<Arc<Config>>) -> Options {
    let extras = &context.extras;
    Options {
        mode,
        listen: Listen { at: At::Address(extras.listen), client: Client::ProxyHeader, tls: Tls::Off },
        grants: if extras.service_grants { Grants::NodeThenService(in_force.clone()) } else { Grants::Node },
        unrecorded_streams: extras.unrecorded_streams,
        server_timing: extras.server_timing,
        limits: Limits { peer_connections: context.settings.peer_connections, ..Limits::default() },
    }
}

/// Binds it. An error says why it cannot serve.
pub(super) async fn bind(
    options: Options,
    access: KubeAccess,
    localapi: LocalApi,
    metrics: Arc<Metrics>,
) -> Result<Proxy, String> {
    let upstream = Upstream::open(&access, options.mode.whose()).await.map_err(|error| chain(&error))?;
    let workers = Workers::start().map_err(|error| chain(&error))?;
    let surroundings = Surroundings { localapi, upstream, metrics, workers };
    Proxy::bind(options, surroundings).await.map_err(|error| chain(&error))
}
