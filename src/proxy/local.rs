//! Health and metrics (api-proxy.md 9.7).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::Metrics;
use super::config::Config;
use super::reload::ReloadErrors;
use crate::health::{BindError, HealthHandle, HealthRoutes, MetricsRoutes, Routes, Server};
use crate::localapi::LocalApi;
use crate::node;

/// Binds the listener that the config asks for. `pod_ip` wins over the config's address.
pub(super) fn bind(
    config: &Config,
    pod_ip: Option<IpAddr>,
    health: &HealthHandle,
    api: &LocalApi,
    metrics: Arc<Metrics>,
    reloads: Arc<ReloadErrors>,
) -> Result<Option<Server>, BindError> {
    if !config.health && !config.metrics {
        return Ok(None);
    }
    let addr = address(config, pod_ip);
    let health = config.health.then(|| HealthRoutes {
        snapshot: health.subscribe(),
        pod_ipv4: None,
        pod_ipv6: None,
        probes: true,
    });
    let metrics = config.metrics.then(|| {
        let own = Arc::new(move || metrics.render() + &reloads.render());
        MetricsRoutes { source: node::metrics::of_daemon_and(api.clone(), own), debug: None }
    });
    Server::bind(&addr.to_string(), addr, Routes::new(health, metrics)).map(Some)
}

fn address(config: &Config, pod_ip: Option<IpAddr>) -> SocketAddr {
    let ip = pod_ip.or(config.local_addr).unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    SocketAddr::new(ip, config.local_port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::config::parse;

    #[test]
    fn the_pods_address_wins_and_none_means_all() {
        let address = |members: &str, pod_ip: Option<&str>| {
            let config = parse(&format!("{{\"version\":\"v1alpha1\"{members}}}")).unwrap().config;
            address(&config, pod_ip.map(|ip| ip.parse().unwrap())).to_string()
        };
        assert_eq!(address("", None), "[::]:9002");
        assert_eq!(address(r#","localAddr":"127.0.0.1","localPort":1"#, None), "127.0.0.1:1");
        assert_eq!(address(r#","localAddr":"127.0.0.1""#, Some("fd00::1")), "[fd00::1]:9002");
    }
}
