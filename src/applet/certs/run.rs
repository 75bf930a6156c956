//! `tailpod certs run`: the manager, for a node that something else brought up.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use jiff::Timestamp;
use serde::Serialize;
use tokio::signal::unix::{self, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::document::Format;
use super::place::{Place, Storage};
use super::{Common, Judging};
use crate::applet::healthcheck::limit;
use crate::certs::allowed::{Told, keep_told};
use crate::certs::keep::Start;
use crate::certs::loops::{Loops, Options, concurrency};
use crate::certs::manager::{self, Names};
use crate::certs::metrics;
use crate::certs::names::{Name, Node};
use crate::certs::office::Office;
use crate::certs::renewed::Renewed;
use crate::certs::schedule::Growth;
use crate::certs::standing::Standing;
use crate::certs::status::{Known, Status};
use crate::certs::world::{Role, World};
use crate::cli::cluster::ClusterArgs;
use crate::cli::exit::ExitStatus;
use crate::cli::output::Output;
use crate::cli::report::Advise;
use crate::cli::table::{Column, Table};
use crate::health::{MetricsRoutes, MetricsSource, Routes, Server};
use crate::localapi::LocalApi;
use crate::node::metrics::of_daemon_and;
use crate::serve::document::NodeFacts;
use crate::serve::follow::{Delivery, Follower, Source};
use crate::settings::Vars;
use crate::shutdown::{Signals, Tasks};

/// For a name that the tailnet may allow any moment.
const WAIT_ALLOWED: Duration = Duration::from_secs(120);
/// For whatever is under way when it is stopped.
const GRACE: Duration = Duration::from_secs(5);

/// For how long, and which names.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Ask tailscaled for the certificates of every name that is served, as `boot` does where they are \
        shared.\n\n\
        With --once each name is asked for once, except those that failed before and whose time has not come, and a \
        table says how they stand; the exit code is 0 only when every certificate is valid. With --forever they are kept \
        fresh until the process is stopped: renewals are verified instead of believed, the authority's limits are \
        respected, and what has to be known after a restart is kept in annotations of the TLS Secrets, or in \
        `tailpod-certs.json` in TS_STATE_DIR. SIGHUP looks at all names at once.\n\n\
        Where TAILPOD_CERT_WRITER is `lease`, one replica of the group asks at a time: whoever holds the Lease \
        `tailpod-certs-<group>`. It needs get, create and update on Leases; without them ordinal 0 asks.\n\n\
        After a renewal it shakes hands with every replica that tailscaled knows, as `certs verify` does. One that serves \
        another certificate is reported: in the log, as an Event on the TLS Secret, in the metrics, and with --once as \
        exit code 3 where every certificate is valid.",
    after_long_help = "\
Examples:
  tailpod certs run                                   Each name that tailscaled serves, once
  tailpod certs run --domain shop.tail1.ts.net        One name, once
  tailpod certs run --forever                         As a sidecar of a tailscaled without `boot`
  tailpod certs run --forever --serve-config FILE     The names of a file, followed as it changes"
)]
pub(super) struct Args {
    /// Ask for each name once and say how it stands; the default
    #[arg(long, conflicts_with = "forever")]
    once: bool,

    /// Keep them fresh until stopped
    #[arg(long)]
    forever: bool,

    /// A name to ask for, in place of those that are served; may be repeated
    #[arg(long = "domain", value_name = "NAME", value_parser = super::name, conflicts_with = "serve_config")]
    domains: Vec<Name>,

    /// How long --once waits for a name that the tailnet does not allow, as a Go duration [default: 2m]
    #[arg(long, value_name = "DURATION", value_parser = limit)]
    wait_allowed: Option<Duration>,

    /// How delays grow with failures
    #[arg(long, value_enum, default_value_t)]
    backoff: Backoff,

    /// Names of the node itself too; always beside tailscaled before 1.100, which does not renew them
    #[arg(long)]
    include_node: bool,

    /// How long a replica that died is respected as the writer, where TAILPOD_CERT_WRITER is `lease`; a Go duration
    #[arg(long, value_name = "DURATION", value_parser = lease_duration, default_value = "60s")]
    lease_duration: Duration,

    /// Ask even if another replica holds the Lease
    #[arg(long)]
    no_lease: bool,

    /// Serve metrics there, as `/metrics`, with --forever
    #[arg(long, value_name = "IP:PORT", requires = "forever")]
    metrics_addr: Option<SocketAddr>,

    #[command(flatten)]
    judging: Judging,
}

/// How delays grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Backoff {
    /// 1 minute, 10, 100, then daily
    #[default]
    Steps,
    /// 1 minute, doubling up to a day
    Exponential,
}

/// What `--once` says of a name: a `--json` contract.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    domain: Name,
    status: Status,
    serial: Option<String>,
    not_after: Option<Timestamp>,
    failures: u32,
    last_error: Option<String>,
    state: String,
    /// Whether no replica serves another certificate; only of what was ordered just now.
    #[serde(skip_serializing_if = "Option::is_none")]
    is_served: Option<bool>,
}

/// A Lease counts in whole seconds, and less than three leave no time to renew it.
fn lease_duration(text: &str) -> Result<Duration, String> {
    let duration = limit(text)?;
    if duration < Duration::from_secs(3) || duration.subsec_nanos() != 0 {
        return Err("at least 3s, in whole seconds".to_owned());
    }
    Ok(duration)
}

/// Runs it.
pub(super) async fn run(
    args: &Args,
    common: &Common,
    cluster: &ClusterArgs,
    vars: &dyn Vars,
    signals: &mut Signals,
    out: &Output,
) -> anyhow::Result<ExitStatus> {
    let place = Place::find(common, cluster, vars).await?;
    let mut elections = Tasks::new(CancellationToken::new());
    let lease = Some(args.lease_duration).filter(|_| !args.no_lease);
    let office = place.office(lease, &mut elections).await?;
    if !args.forever {
        wait_for_lease(&office, common.limit()).await?;
    }
    let ended = match place.storage {
        Storage::Shared(world) => {
            let world = office.fence(world);
            with(args, common, place.api, &office, world, signals, out).await
        }
        Storage::Own(world) => with(args, common, place.api, &office, world, signals, out).await,
    };
    // The Lease is given back when nothing is under way under it any more.
    for unclean in elections.stop(GRACE).await {
        tracing::warn!("{unclean}");
    }
    ended
}

/// Waits until this replica holds the Lease that decides, if one does.
async fn wait_for_lease(office: &Office, limit: Duration) -> anyhow::Result<()> {
    let mut role = office.role();
    if office.seat().is_none()
        || timeout(limit, role.wait_for(|role| *role == Role::Writer)).await.is_ok_and(|held| held.is_ok())
    {
        return Ok(());
    }
    Err(anyhow!("another replica holds the Lease of certificates").hint("run it there, or here with --no-lease"))
}

async fn with<W: World>(
    args: &Args,
    common: &Common,
    api: LocalApi,
    office: &Office,
    world: W,
    signals: &mut Signals,
    out: &Output,
) -> anyhow::Result<ExitStatus> {
    if *office.role().borrow() == Role::Reader && !args.forever {
        let error = anyhow!("this replica only reads certificates, by POD_NAME and TAILPOD_CERT_WRITER");
        return Err(error.hint("run it in the Pod with ordinal 0"));
    }
    // Before anything takes time: without a handler the signal ends the process.
    let hangup = signal(SignalKind::hangup()).context("cannot watch for SIGHUP")?;
    let stop = CancellationToken::new();
    let told = Told::default();
    let (allowed, news) = (told.allowed.subscribe(), (told.facts.subscribe(), told.opened.subscribe()));
    // A look at the daemon before the loops: how many calls at the same time it works on depends on what it is.
    let first = timeout(common.limit(), api.cert_domains()).await;
    if !args.forever {
        first.context("tailscaled does not answer")?.context("cannot ask tailscaled for the names it may have")?;
    }
    let options = Options {
        growth: if args.backoff == Backoff::Exponential { Growth::Exponential } else { Growth::Steps },
        start: if args.forever { Start::Spread } else { Start::Now },
        concurrent: concurrency(api.versions().version.as_deref()),
        node: Node::beside(api.versions().version.as_deref(), args.include_node),
    };
    // They outlast the rest: an order that is about to end may.
    let loops = Arc::new(Loops::new(world, options, allowed, office.role(), CancellationToken::new()).await);
    let mut tasks = JoinSet::new();
    tasks.spawn(keep_told(api.clone(), told, stop.clone()));
    let renewed = Arc::new(Renewed::new(api.clone()));
    let status = if args.forever {
        if let Some(addr) = args.metrics_addr {
            let source = metrics(api.clone(), Arc::clone(&loops), office.clone(), Arc::clone(&renewed));
            let routes = Routes::new(None, Some(MetricsRoutes { source, debug: None }));
            let server = Server::bind(&addr.to_string(), addr, routes)?;
            let stop = stop.clone();
            tasks.spawn(async move {
                let Ok(()) = server.serve(stop).await;
            });
        }
        let (watched, stopped) = (Arc::clone(&loops), stop.clone());
        tasks.spawn(async move {
            let orders = watched.orders();
            stopped.run_until_cancelled(renewed.watch(watched.world(), orders)).await;
        });
        let names = names(args, common, &api, news, &mut tasks, &stop);
        forever(&loops, &api, names, &stop, signals, hangup).await;
        Ok(ExitStatus::Done)
    } else {
        let signal = async { Err(anyhow!("stopped by {} before it was done", signals.next().await)) };
        tokio::select! {
            biased;
            stopped = signal => stopped,
            status = once(args, common, &loops, &api, &renewed, out) => status,
        }
    };
    loops.finish().await;
    stop.cancel();
    let end = async {
        loops.stop().await;
        while tasks.join_next().await.is_some() {}
    };
    if timeout(GRACE, end).await.is_err() {
        tracing::warn!("some tasks did not end in time");
    }
    status
}

/// The names, and what follows them.
fn names(
    args: &Args,
    common: &Common,
    api: &LocalApi,
    (mut facts, opened): (watch::Receiver<NodeFacts>, watch::Receiver<u64>),
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> Names {
    if !args.domains.is_empty() {
        return Names::These(args.domains.iter().cloned().collect());
    }
    if let Some(file) = &common.serve_config {
        let source = Source::File(file.clone());
        let (follower, standing) = Follower::beside(api.clone(), source, Delivery::Watch, facts, opened);
        tasks.spawn(follower.run(stop.clone()));
        return Names::Followed(standing);
    }
    let (changed, changes) = watch::channel(0);
    tasks.spawn(async move {
        while facts.changed().await.is_ok() {
            changed.send_modify(|count| *count += 1);
        }
    });
    Names::Served(changes)
}

/// Ours after those of tailscaled.
fn metrics<W: World>(api: LocalApi, loops: Arc<Loops<W>>, office: Office, renewed: Arc<Renewed>) -> MetricsSource {
    let own = move || {
        let standings = loops.glance().unwrap_or_default();
        format!("{}{}{}", metrics::text(&standings, office.is_writer()), office.metrics(), renewed.metrics())
    };
    of_daemon_and(api, Arc::new(own))
}

async fn forever<W: World>(
    loops: &Arc<Loops<W>>,
    api: &LocalApi,
    names: Names,
    stop: &CancellationToken,
    signals: &mut Signals,
    mut hangup: unix::Signal,
) {
    let work = manager::manage(loops, api, names, stop);
    let asked = async {
        loop {
            tokio::select! {
                stopped = signals.next() => return stopped,
                Some(()) = hangup.recv() => {
                    tracing::info!("looking at all names, as SIGHUP asks");
                    loops.wake_all().await;
                }
            }
        }
    };
    tokio::select! {
        biased;
        stopped = asked => tracing::info!("stopping after {stopped}"),
        () = work => {}
    }
}

async fn once<W: World>(
    args: &Args,
    common: &Common,
    loops: &Loops<W>,
    api: &LocalApi,
    renewed: &Renewed,
    out: &Output,
) -> anyhow::Result<ExitStatus> {
    let mut orders = loops.orders();
    if args.domains.is_empty() {
        let config = match &common.serve_config {
            Some(file) => super::around::config_of(file, api, common).await?,
            None => api.serve_config().await.context("cannot read what tailscaled serves")?.document,
        };
        for warning in loops.ensure(&config).await.context("the serve config cannot be used")? {
            out.warning(warning);
        }
    } else {
        loops.keep(args.domains.iter().cloned().collect::<BTreeSet<_>>()).await;
    }
    let settled = manager::settled(loops, args.wait_allowed.unwrap_or(WAIT_ALLOWED)).await;
    let now = Timestamp::now();
    let mut rows: Vec<_> = settled.into_iter().map(|(name, standing)| row(name, standing, args, now)).collect();
    while let Ok((name, certificate)) = orders.try_recv() {
        let is_served = renewed.check(loops.world(), &name, &certificate).await;
        rows.iter_mut().filter(|row| row.domain == name).for_each(|row| row.is_served = Some(is_served));
    }
    let status = match () {
        () if !rows.iter().all(|row| row.status.is_valid()) => ExitStatus::Failed,
        () if rows.iter().any(|row| row.is_served == Some(false)) => ExitStatus::No,
        () => ExitStatus::Done,
    };
    if !Format::of(common, out)?.write(&rows, out)? {
        let mut table = Table::new(&[
            Column::Text("domain"),
            Column::Text("status"),
            Column::Text("not-after"),
            Column::Text("state"),
            Column::Text("last error"),
        ]);
        for row in &rows {
            let not_after = row.not_after.map(|at| format!("{at:.0}")).unwrap_or_default();
            let error = row.last_error.clone().unwrap_or_default();
            table.row([row.domain.to_string(), row.status.as_str().to_owned(), not_after, row.state.clone(), error]);
        }
        if table.is_empty() {
            out.note("nothing that is served needs a certificate");
        } else {
            out.data(table.render())?;
        }
    }
    Ok(status)
}

fn row(name: Name, standing: Standing, args: &Args, now: Timestamp) -> Row {
    let certificate = standing.certificate.map(Ok);
    let known = Known { certificate: certificate.as_ref(), key_matches: None, allowed: None };
    let status = Status::of(&name, &known, args.judging.critical(), now);
    let certificate = certificate.and_then(Result::ok);
    Row {
        status,
        serial: certificate.as_ref().map(|certificate| certificate.serial.clone()),
        not_after: certificate.as_ref().map(|certificate| certificate.period.not_after),
        failures: standing.record.failures,
        last_error: standing.record.last_error,
        state: standing.phase.shown(),
        is_served: None,
        domain: name,
    }
}
