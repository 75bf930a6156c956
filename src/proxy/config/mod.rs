//! The config of `k8s-proxy`: its format, and what it means (api-proxy.md 9.2). Pure.
//!
//! HuJSON whose keys match in any letter case; unknown keys are passed over, a later duplicate wins. [`parse`] yields
//! a [`Config`] in which every value has its type, or one error with its line and column. No error and no `Debug`
//! shows an auth key. Follows upstream's `kube/k8s-proxy/conf/conf.go`.

mod changes;
mod flags;
mod read;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

pub use changes::{Changes, changes};
pub use flags::Flags;

pub use super::Mode;
use crate::located::Place;
use crate::secret::Secret;

/// The format version that this build reads.
pub const VERSION: &str = "v1alpha1";

/// The port of health and metrics when the config names none.
pub const DEFAULT_LOCAL_PORT: u16 = 9002;

/// What the config says. `None` is "not said".
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `AuthKey`, when not empty.
    pub auth_key: Option<Secret<String>>,
    /// `State`: where tailscaled keeps its identity, as its `--state` takes it.
    pub state: Option<String>,
    /// `LogLevel`; unset is info (upstream's documentation says so, its code debug).
    pub log_level: Option<LogLevel>,
    /// `App`
    pub app: Option<String>,
    /// `ServerURL`
    pub server_url: Option<String>,
    /// `LocalAddr`; `None` is every address.
    pub local_addr: Option<IpAddr>,
    /// `LocalPort`
    pub local_port: u16,
    /// `MetricsEnabled`
    pub metrics: bool,
    /// `HealthCheckEnabled`
    pub health: bool,
    /// `Hostname`
    pub hostname: Option<String>,
    /// `AcceptRoutes`
    pub accept_routes: Option<bool>,
    /// `AdvertiseServices`, without repetitions; none said is none.
    pub advertise_services: Vec<ServiceName>,
    /// `APIServerProxy`
    pub api_server: ApiServer,
    /// `StaticEndpoints`
    pub static_endpoints: Vec<SocketAddr>,
}

/// `APIServerProxy`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiServer {
    /// `Enabled`: whether a serve config is installed. The listener runs regardless.
    pub enabled: bool,
    /// `Mode`
    pub mode: Mode,
    /// `ServiceName`
    pub service: Option<ServiceName>,
    /// `IssueCerts`: this replica asks for the certificates.
    pub issue_certs: bool,
}

/// `LogLevel`: zap's names, as far as we tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// `debug`
    Debug,
    /// `info`
    Info,
    /// `warn`
    Warn,
    /// `error`, `dpanic`, `panic`, `fatal`
    Error,
}

/// The name of a Tailscale Service: `svc:` and one DNS label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(String);

/// A text is not the name of a Tailscale Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a Tailscale Service is named `svc:` and a DNS label, such as `svc:prod-api`")]
pub struct NotAServiceName;

/// A config that can be used, and what is odd about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// The config.
    pub config: Config,
    /// Keys that nobody reads and that look like mistyped ones, one line each.
    pub warnings: Vec<String>,
}

/// Why a text is not a config. Says nothing of secret values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct ConfigError {
    /// Where.
    pub place: Place,
    /// What is wrong there.
    pub reason: String,
}

/// Reads a config.
///
/// # Errors
/// The first thing that is wrong, with its place.
///
/// ```
/// use tailpod::proxy::config::{Mode, parse};
///
/// let text = r#"{
///   "version": "v1alpha1",
///   "apiServerProxy": {"enabled": true, "mode": "noauth", "serviceName": "svc:prod-api"}, // a comment
/// }"#;
/// let config = parse(text).unwrap().config;
/// assert_eq!(config.api_server.mode, Mode::NoAuth);
///
/// let error = parse(r#"{"version": "v1alpha1", "acceptRoutes": "true"}"#).unwrap_err();
/// assert_eq!(error.to_string(), "line 1, column 41: `AcceptRoutes` must be true, false or null, not a string");
/// ```
pub fn parse(text: &str) -> Result<Parsed, ConfigError> {
    read::read(text)
}

impl Default for Config {
    /// What a config without any field says.
    fn default() -> Self {
        Self {
            auth_key: None,
            state: None,
            log_level: None,
            app: None,
            server_url: None,
            local_addr: None,
            local_port: DEFAULT_LOCAL_PORT,
            metrics: false,
            health: false,
            hostname: None,
            accept_routes: None,
            advertise_services: Vec::new(),
            api_server: ApiServer::default(),
            static_endpoints: Vec::new(),
        }
    }
}

impl Config {
    /// The Service whose serve config shall be installed.
    pub fn served(&self) -> Option<&ServiceName> {
        self.api_server.service.as_ref().filter(|_| self.api_server.enabled)
    }

    /// The state Secret of tailscaled, when its state is in one.
    pub fn state_secret(&self) -> Option<&str> {
        self.state.as_deref()?.strip_prefix("kube:").filter(|name| !name.is_empty())
    }
}

impl Mode {
    /// As the config has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::NoAuth => "noauth",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl ServiceName {
    /// With its `svc:`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Without it: the first label of the Service's DNS name.
    pub fn label(&self) -> &str {
        self.0.trim_start_matches("svc:")
    }
}

impl FromStr for ServiceName {
    type Err = NotAServiceName;

    fn from_str(text: &str) -> Result<Self, NotAServiceName> {
        let label = text.strip_prefix("svc:").ok_or(NotAServiceName)?;
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let fits = (1..=63).contains(&label.len())
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-');
        if fits { Ok(Self(text.to_owned())) } else { Err(NotAServiceName) }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests;
