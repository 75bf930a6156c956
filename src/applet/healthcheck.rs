//! `tailpod boot healthcheck`: an exec probe for images without a shell.
//!
//! It asks the boot that runs beside it, at the address that boot took from the same environment, and ends with 0 or
//! 1. It never waits longer than its timeout.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::anyhow;
use serde_json::json;

use crate::boot::healthcheck::{Probe, Verdict, check};
use crate::cli::exit::ExitStatus;
use crate::cli::output::Output;
use crate::cli::report::Advise;
use crate::settings::{self, Local, Persona, ProcessEnv, parse};

/// What to ask, and where.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Ask the boot in this container whether it is healthy.\n\n\
        An exec probe for images without a shell: ends with 0 when healthy and 1 when not, and prints the reason. The \
        address comes from the environment, which must be the one that boot was started with.",
    after_long_help = "\
Examples:
  tailpod boot healthcheck                        Healthy as /healthz says
  tailpod boot healthcheck --ready                As a readiness probe
  tailpod boot healthcheck --live --timeout 5s    As a liveness probe
  tailpod boot healthcheck --addr 127.0.0.1:9002  At a given address"
)]
pub struct Args {
    /// Where boot listens, if not where the environment says
    #[arg(long, value_name = "IP:PORT", value_parser = parse::addr_port)]
    addr: Option<SocketAddr>,

    /// Ask /readyz: can the node carry traffic?
    #[arg(long, conflicts_with = "live")]
    ready: bool,

    /// Ask /livez: does boot make progress?
    #[arg(long)]
    live: bool,

    /// How long to wait for the answer; Kubernetes itself gives an exec probe one second
    #[arg(long, value_name = "DURATION", default_value = "900ms", value_parser = limit)]
    timeout: Duration,
}

/// Asks.
pub async fn run(args: &Args, out: &Output) -> anyhow::Result<ExitStatus> {
    let addr = match args.addr {
        Some(addr) => addr,
        None => configured(args)?,
    };
    let probe = match args {
        Args { ready: true, .. } => Probe::Readyz,
        Args { live: true, .. } => Probe::Livez,
        _ => Probe::Healthz,
    };
    let verdict = check(addr, probe, args.timeout).await?;
    let (healthy, reason) = match verdict {
        Verdict::Healthy => (true, "ok".to_owned()),
        Verdict::Unhealthy(reason) => (false, reason),
    };
    if out.is_json() {
        out.json(&json!({ "healthy": healthy, "reason": reason }))?;
    } else if healthy {
        out.data(reason)?;
    } else {
        return Err(anyhow!("not healthy: {reason}"));
    }
    Ok(if healthy { ExitStatus::Done } else { ExitStatus::Failed })
}

/// Where the same environment makes boot listen.
fn configured(args: &Args) -> anyhow::Result<SocketAddr> {
    let Local { main, deprecated_health, .. } = settings::read(&ProcessEnv::capture(), Persona::Tailpod)?.local;
    let main = main.filter(|main| main.health).map(|main| main.addr.addr);
    // The deprecated listener knows /healthz only.
    let deprecated = deprecated_health.filter(|_| !args.ready && !args.live).map(|listener| listener.addr);
    main.or(deprecated).ok_or_else(|| {
        let error = anyhow!("this environment makes boot serve no such health check");
        error.hint("set TS_ENABLE_HEALTH_CHECK=true for the container, or give `--addr`").exit_with(ExitStatus::Usage)
    })
}

/// A Go duration above zero.
pub(super) fn limit(text: &str) -> Result<Duration, String> {
    let duration = parse::duration(text).map_err(|error| error.to_string())?.deadline();
    if duration.is_zero() { Err("must be more than nothing".to_owned()) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_go_durations_above_zero() {
        assert_eq!(limit("1.5s"), Ok(Duration::from_millis(1500)));
        for bad in ["0", "-1s", "5", "soon"] {
            assert!(limit(bad).is_err(), "{bad}");
        }
    }
}
