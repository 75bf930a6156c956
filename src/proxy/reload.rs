//! The config in force: followed, changes told, bad ones counted and passed over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::level_filters::LevelFilter;

use super::config::{Config, Flags, LogLevel, changes};
use super::config_source::{ConfigSource, LoadError, Loaded};
use crate::causes::chain;
use crate::telemetry;

/// How long to leave a source alone whose Secret may not be read any more.
const AFTER_DENIAL: std::time::Duration = std::time::Duration::from_secs(5);

/// How often a config could not be reloaded.
#[derive(Debug, Default)]
pub(super) struct ReloadErrors(AtomicU64);

impl ReloadErrors {
    /// As Prometheus text.
    pub(super) fn render(&self) -> String {
        let count = self.0.load(Ordering::Relaxed);
        format!(
            "# HELP tailpod_proxy_config_reload_errors_total Configs that could not be used; the last good one stayed.\n\
             # TYPE tailpod_proxy_config_reload_errors_total counter\n\
             tailpod_proxy_config_reload_errors_total {count}\n"
        )
    }
}

/// Says what is odd about a config.
pub(super) fn warn(warnings: &[String]) {
    for warning in warnings {
        tracing::warn!("config: {warning}");
    }
}

/// Has the process log as much as the config says, if it does.
pub(super) fn set_level(config: &Config) {
    let Some(level) = config.log_level else { return };
    telemetry::set_level(match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    });
}

/// Keeps `current` at the last good config, with `flags` over it, until stopped.
pub(super) async fn follow(
    mut source: ConfigSource,
    flags: Flags,
    current: watch::Sender<Arc<Config>>,
    errors: Arc<ReloadErrors>,
    stop: CancellationToken,
) {
    let mut complaint = String::new();
    loop {
        let next = tokio::select! {
            () = stop.cancelled() => return,
            next = source.next() => next,
        };
        match next {
            Ok(Loaded { config, warnings }) => {
                complaint.clear();
                warn(&warnings);
                take(&current, flags.over(config));
            }
            Err(error) => {
                errors.0.fetch_add(1, Ordering::Relaxed);
                let text = chain(&error);
                if complaint != text {
                    tracing::error!("the config was not reloaded, the last good one stays in force: {text}");
                    complaint = text;
                }
                if let LoadError::Cluster(_) = error {
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(AFTER_DENIAL) => {}
                    }
                }
            }
        }
    }
}

/// Puts a config in force.
fn take(current: &watch::Sender<Arc<Config>>, config: Arc<Config>) {
    let changes = changes(&current.borrow(), &config);
    for field in &changes.restart {
        tracing::warn!("config field {field} has changed; that takes effect with a restart");
    }
    if changes.live || changes.auth_key {
        tracing::info!("config reloaded");
    }
    current.send_if_modified(|current| {
        let differs = *current != config;
        *current = config;
        differs
    });
}
