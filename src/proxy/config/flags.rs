//! What the command line says of a config's matters: it wins over the config. Pure.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{Config, Mode, ServiceName};

/// What was said on the command line. Nothing said changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Whether callers become Kubernetes users.
    pub mode: Option<Mode>,
    /// The Service to serve, and to advertise.
    pub service: Option<ServiceName>,
    /// Where health and metrics are served, both.
    pub local_addr: Option<SocketAddr>,
}

impl Flags {
    /// `config` with what was said in it.
    pub fn over(&self, config: Arc<Config>) -> Arc<Config> {
        if *self == Self::default() {
            return config;
        }
        let mut config = Arc::unwrap_or_clone(config);
        if let Some(mode) = self.mode {
            config.api_server.mode = mode;
        }
        if let Some(service) = &self.service {
            config.api_server.enabled = true;
            config.api_server.service = Some(service.clone());
            if !config.advertise_services.contains(service) {
                config.advertise_services.push(service.clone());
            }
        }
        if let Some(addr) = self.local_addr {
            (config.local_addr, config.local_port) = (Some(addr.ip()), addr.port());
            (config.health, config.metrics) = (true, true);
        }
        Arc::new(config)
    }
}
