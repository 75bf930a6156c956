//! Which local HTTP listeners there are and what they serve (boot.md 8).

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use hyper::{Request, Response};

use super::shell::Context;
use crate::health::{BindError, HealthHandle, HealthRoutes, MetricsRoutes, Routes, Server, metrics_source};
use crate::shutdown::TaskError;

/// The daemon's client metrics are some tens of KiB.
const LARGEST_METRICS: usize = 16 << 20;

/// Binds every listener that the settings ask for. Nothing is served yet, so a failure leaves nothing behind.
pub(super) fn bind(context: &Context, health: &HealthHandle) -> Result<Vec<Server>, BindError> {
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
        let metrics = main.metrics.then(|| metrics(context, local.debug.as_ref().map(|addr| addr.addr)));
        let routes = Routes::new(main.health.then(|| health(true)), metrics);
        servers.push(Server::bind(&main.addr.text, main.addr.addr, routes)?);
    }
    Ok(servers)
}

fn metrics(context: &Context, debug: Option<SocketAddr>) -> MetricsRoutes {
    let api = context.api.clone();
    let source = metrics_source(move |request: Request<Bytes>| {
        let api = api.clone();
        async move {
            let mut passed = api.pass("usermetrics", request.method().clone(), request.headers()).await?;
            let mut body = BytesMut::new();
            while let Some(chunk) = passed.chunk().await? {
                if body.len() + chunk.len() > LARGEST_METRICS {
                    return Err(TaskError::from("tailscaled's metrics are too large"));
                }
                body.extend_from_slice(&chunk);
            }
            let mut answer = Response::new(body.freeze());
            *answer.status_mut() = passed.status;
            *answer.headers_mut() = passed.headers;
            Ok(answer)
        }
    });
    MetricsRoutes { source, debug }
}
