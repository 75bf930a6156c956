//! What a new config changes, and which of it only a restart brings about (api-proxy.md 9.8). Pure.

use super::Config;

/// The difference between two configs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Whether something differs that is brought about while running: the Services, the host name, accepted routes.
    pub live: bool,
    /// Whether the auth key differs. It is read when a login needs one.
    pub auth_key: bool,
    /// Fields that differ and need a restart, by their documented names.
    pub restart: Vec<&'static str>,
}

/// Compares.
pub fn changes(old: &Config, new: &Config) -> Changes {
    let live = old.hostname != new.hostname
        || old.accept_routes != new.accept_routes
        || old.advertise_services != new.advertise_services
        || old.served() != new.served();
    let fixed = [
        ("State", old.state != new.state),
        ("LogLevel", old.log_level != new.log_level),
        ("App", old.app != new.app),
        ("ServerURL", old.server_url != new.server_url),
        ("LocalAddr", old.local_addr != new.local_addr),
        ("LocalPort", old.local_port != new.local_port),
        ("MetricsEnabled", old.metrics != new.metrics),
        ("HealthCheckEnabled", old.health != new.health),
        ("APIServerProxy.Mode", old.api_server.mode != new.api_server.mode),
        ("APIServerProxy.IssueCerts", old.api_server.issue_certs != new.api_server.issue_certs),
        ("StaticEndpoints", old.static_endpoints != new.static_endpoints),
    ];
    let restart = fixed.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect();
    Changes { live, auth_key: old.auth_key != new.auth_key, restart }
}
