//! Which local HTTP listeners there are and what they serve (boot.md 8).

use std::net::SocketAddr;

use super::context::Context;
use crate::health::{BindError, HealthHandle, HealthRoutes, Hook, MetricsRoutes, Routes, Server};
use crate::node::{self, metrics::OwnMetrics};

/// Binds every listener that the settings ask for. Nothing is served yet, so a failure leaves nothing behind.
pub(super) fn bind(
    context: &Context,
    health: &HealthHandle,
    own: Option<&OwnMetrics>,
    preshutdown: Option<Hook>,
) -> Result<Vec<Server>, BindError> {
    let local = &context.settings.local;
    let health = |probes| HealthRoutes {
        snapshot: health.subscribe(),
        pod_ipv4: context.settings.pod.ipv4,
        pod_ipv6: context.settings.pod.ipv6,
        probes,
    };
    let mut servers = Vec::new();
    if let Some(addr) = &local.deprecated_health {
        servers.push(Server::bind(&addr.text, addr.addr, Routes::new(Some(health(false)), None))?);
    }
    if let Some(main) = &local.main {
        let metrics = main.metrics.then(|| metrics(context, own, local.debug.as_ref().map(|addr| addr.addr)));
        let mut routes = Routes::new(main.health.then(|| health(true)), metrics);
        if let Some(hook) = preshutdown.filter(|_| main.egress) {
            routes = routes.with_preshutdown(hook);
        }
        servers.push(Server::bind(&main.addr.text, main.addr.addr, routes)?);
    }
    Ok(servers)
}

fn metrics(context: &Context, own: Option<&OwnMetrics>, debug: Option<SocketAddr>) -> MetricsRoutes {
    let api = context.api.clone();
    let source = match own {
        Some(own) => node::metrics::of_daemon_and(api, own.clone()),
        None => node::metrics::of_daemon(api),
    };
    MetricsRoutes { source, debug }
}
