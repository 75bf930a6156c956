//! Certificates for the name that is served, asked for by the replica that issues them (api-proxy.md 9.5).
//!
//! The pair itself is of no interest: asking makes tailscaled get it and share it.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::causes::chain;
use crate::certs::schedule::{Attempt, Schedule};
use crate::localapi::{Error, ErrorKind, LocalApi};

/// An order at the CA may take that long.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// How long a name is waited for that the node does not have yet; then it is asked for all the same.
const NAME_LIMIT: Duration = Duration::from_secs(60);

/// Keeps the certificate for `domain` until stopped. `names` are those the node may have certificates for.
pub(super) async fn keep(
    api: LocalApi,
    domain: String,
    mut names: watch::Receiver<Vec<String>>,
    stop: CancellationToken,
) {
    tracing::info!("keeping the certificate for {domain}");
    let run = async {
        let known = names.wait_for(|names| names.contains(&domain));
        if tokio::time::timeout(NAME_LIMIT, known).await.is_err() {
            tracing::warn!("{domain} is not among the node's certificate domains; asking for its certificate anyway");
        }
        let mut schedule = Schedule::default();
        loop {
            let attempt = attempt(&api, &domain).await;
            tokio::time::sleep(schedule.after(attempt)).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = run => {}
    }
}

async fn attempt(api: &LocalApi, domain: &str) -> Attempt {
    match api.certificate(domain, Duration::ZERO, LIMIT).await {
        Ok(_) => {
            tracing::info!("there is a certificate for {domain}");
            Attempt::Issued
        }
        Err(error) => {
            let attempt = judge(&error);
            tracing::warn!("no certificate for {domain}: {}", chain(&error));
            attempt
        }
    }
}

/// Whether the CA was reached.
fn judge(error: &Error) -> Attempt {
    match &error.kind {
        ErrorKind::RateLimited { retry_after, .. } => Attempt::RateLimited { retry_after: *retry_after },
        ErrorKind::Status { message, .. } if message.to_lowercase().contains(":ratelimited") => {
            Attempt::RateLimited { retry_after: None }
        }
        ErrorKind::DaemonNotRunning { .. }
        | ErrorKind::Disconnected { .. }
        | ErrorKind::Timeout(_)
        | ErrorKind::NoNetmapYet => Attempt::Trouble,
        ErrorKind::Status { message, .. } if message.contains("no netmap") || message.contains("no backend") => {
            Attempt::Trouble
        }
        _ => Attempt::Refused,
    }
}
