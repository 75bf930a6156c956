//! The certificate manager of a replica that gets certificates for all (boot.md 7.3), or does while it holds the Lease.
//!
//! It follows the node by itself, so a restart of tailscaled is a failed call to it and no more. Upstream runs it from
//! the watcher of the serve config; here it asks tailscaled what it serves, whenever that may have changed.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::OptionFuture;
use tokio::sync::{Mutex, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::machine::Event;
use super::reader::Reader;
use super::writer::Writer;
use crate::certs::allowed::{Told, keep_told, set};
use crate::certs::cluster::{ClusterWorld, Finished};
use crate::certs::keep::Start;
use crate::certs::local::{self, LocalWorld};
use crate::certs::loops::{Loops, Options, concurrency};
use crate::certs::manager::{self, Names};
use crate::certs::metrics;
use crate::certs::names::{self, Node};
use crate::certs::office::{Fenced, Office};
use crate::certs::promotion::{Mode, Others, Promotion, Stay};
use crate::certs::schedule::Growth;
use crate::certs::world::{Allowed, Role};
use crate::certs::writer::{Choice, Member};
use crate::k8s::Cluster;
use crate::node::metrics::OwnMetrics;
use crate::serve::follow::Standing;
use crate::settings::{CertShare, StateStore, group_of};
use crate::shutdown::Tasks;

/// For the Lease to be given back.
const RELEASE: Duration = Duration::from_secs(3);
/// Longest time between looks for something to order.
const LOOK: Duration = Duration::from_secs(60);

/// The manager, once it runs.
#[derive(Clone, Debug)]
pub(super) struct Certs {
    running: Arc<OnceLock<Running>>,
    /// What asks for the certificates of Services that are held back.
    asked: Arc<OnceLock<Arc<Loops<LocalWorld>>>>,
    /// How tailscaled is started next, where a Lease decides.
    mode: watch::Sender<Mode>,
    /// How the one was started that is up.
    daemon: watch::Sender<Option<Mode>>,
    /// How the present one was started.
    started: watch::Sender<Mode>,
    /// The election: it outlasts what works under it, and tailscaled.
    elections: Arc<Mutex<Tasks>>,
}

#[derive(Debug)]
struct Running {
    loops: Arc<Loops<Fenced<ClusterWorld>>>,
    office: Office,
}

/// What it is connected to.
#[derive(Debug)]
pub(super) struct Links {
    /// How the serve config stands.
    pub(super) served: watch::Receiver<Standing>,
    /// What withdraws our Services for a while.
    pub(super) hold: watch::Sender<bool>,
    /// The machine.
    pub(super) events: mpsc::Sender<Event>,
}

impl Certs {
    pub(super) fn new() -> Self {
        Self {
            running: Arc::default(),
            asked: Arc::default(),
            mode: watch::channel(Mode::Reads).0,
            daemon: watch::channel(None).0,
            started: watch::channel(Mode::Reads).0,
            elections: Arc::new(Mutex::new(Tasks::new(CancellationToken::new()))),
        }
    }

    /// tailscaled is being started: in which `TS_CERT_SHARE_MODE`.
    pub(super) fn daemon_starts(&self) -> &'static str {
        let mode = *self.mode.borrow();
        self.started.send_replace(mode);
        self.daemon.send_replace(None);
        match mode {
            Mode::Reads => "ro",
            Mode::Orders => "rw",
        }
    }

    /// Whether the present tailscaled has a node that is up.
    pub(super) fn daemon_is_up(&self, is_up: bool) {
        let now = is_up.then(|| *self.started.borrow());
        set(&self.daemon, now);
    }

    /// Starts what has old certificates read anew, once.
    pub(super) fn start_reader(&self, context: &Arc<Context>, links: Links, tasks: &mut Tasks) {
        let (Some(secret), Some(pod)) = (context.secret(), context.settings.pod.name.clone()) else { return };
        let reader = Reader {
            world: world(context, &secret.cluster, None),
            pod,
            running: self.daemon.subscribe(),
            hold: links.hold,
            events: links.events,
            patience: context.settings.withdraw_wait,
        };
        tasks.spawn("certificate reader", |stop| async move {
            stop.run_until_cancelled(reader.run()).await;
            Ok::<(), Infallible>(())
        });
    }

    /// Starts it, once.
    pub(super) fn start(&self, context: &Arc<Context>, links: Links, tasks: &mut Tasks) {
        let (context, certs) = (Arc::clone(context), self.clone());
        tasks.spawn("certificates", |stop| async move {
            Box::pin(certs.run(&context, links, &stop)).await;
            Ok::<(), Infallible>(())
        });
    }

    async fn run(&self, context: &Context, links: Links, stop: &CancellationToken) {
        let Some(secret) = context.secret() else {
            tracing::warn!("certificates cannot be shared without a state Secret, so none is asked for");
            return stop.cancelled().await;
        };
        let Links { mut served, hold, events } = links;
        let member = member(context);
        let office = match self.office(context, member.as_ref(), &secret.cluster).await {
            Ok(office) => office,
            Err(text) => {
                // The receiver lives as long as the boot.
                let _ = events.send(Event::SideFailed(text)).await;
                return stop.cancelled().await;
            }
        };
        // Without a Lease, ordinals are claim enough.
        let world = world(context, &secret.cluster, member.as_ref().map(|member| member.identity.clone()));
        let options = options(context, Start::Spread);
        let told = Told::default();
        // Whoever is elected asks when its tailscaled can order, and not before.
        let open = watch::Sender::new(if member.is_some() { Role::Reader } else { Role::Writer });
        let (allowed, mut facts) = (told.allowed.subscribe(), told.facts.subscribe());
        let world = office.fence(world);
        // They outlast the rest: an order that is about to end may.
        let loops = Loops::new(world, options, allowed.clone(), open.subscribe(), CancellationToken::new()).await;
        let loops = Arc::new(loops);
        let running = Running { loops: Arc::clone(&loops), office: office.clone() };
        // It is started once.
        let _ = self.running.set(running);
        let (changed, changes) = watch::channel(0);
        let losses = refuse_losses(served.clone(), events.clone());
        let news = async {
            loop {
                tokio::select! {
                    Ok(()) = served.changed() => {}
                    Ok(()) = facts.changed() => {}
                    else => std::future::pending().await,
                }
                changed.send_modify(|count| *count += 1);
            }
        };
        let settings = &context.settings;
        let losses = async { if settings.strict { losses.await } else { std::future::pending().await } };
        let stay = if settings.sticky_writer || office.seat().is_none() { Stay::Sticky } else { Stay::Lazy };
        let writer = member.is_some().then(|| Writer {
            promotion: Promotion::new(stay, Others::Serve),
            office,
            loops: Arc::clone(&loops),
            allowed,
            // The loops' own end of it outlasts the writer's.
            open: open.clone(),
            mode: self.mode.clone(),
            running: self.daemon.subscribe(),
            hold,
            events,
            patience: settings.withdraw_wait,
            look: settings.cert_lease.min(LOOK),
        });
        let writing = async {
            match writer {
                Some(writer) => drop(stop.run_until_cancelled(writer.run()).await),
                None => stop.cancelled().await,
            }
        };
        tokio::join!(
            keep_told(context.api.clone(), told, stop.clone()),
            manager::manage(&loops, &context.api, Names::Served(changes), stop),
            stop.run_until_cancelled(news),
            stop.run_until_cancelled(losses),
            writing,
        );
    }

    async fn office(&self, context: &Context, member: Option<&Member>, cluster: &Cluster) -> Result<Office, String> {
        if member.is_none() {
            return Ok(Office::fixed(Role::Writer));
        }
        let duration = context.settings.cert_lease;
        let taking = Office::take(Choice::Lease, member, cluster, duration, &mut *self.elections.lock().await).await;
        taking.map_err(|error| error.to_string())
    }

    /// Loops for what nobody else asks for, once: those of a tailscaled that keeps its certificates itself.
    pub(super) async fn ask(&self, context: &Context, allowed: watch::Receiver<Allowed>) -> Arc<Loops<LocalWorld>> {
        let memory = match &context.settings.daemon.state {
            StateStore::Dir(dir) => Some(dir.join(local::FILE)),
            StateStore::Secret { .. } | StateStore::Memory => None,
        };
        let world = LocalWorld::new(context.api.clone(), memory);
        let options = options(context, Start::Now);
        let role = Office::fixed(Role::Writer).role();
        let loops = Arc::new(Loops::new(world, options, allowed, role, CancellationToken::new()).await);
        let _ = self.asked.set(Arc::clone(&loops));
        loops
    }

    /// Begins no order any more.
    pub(super) fn close(&self) {
        self.asked.get().iter().for_each(|loops| loops.close());
        self.running.get().iter().for_each(|running| running.loops.close());
    }

    /// Lets the orders that are under way end, for a moment.
    pub(super) async fn finish(&self) {
        let asked = OptionFuture::from(self.asked.get().map(|loops| loops.finish()));
        let kept = OptionFuture::from(self.running.get().map(|running| running.loops.finish()));
        tokio::join!(asked, kept);
    }

    /// Breaks off those that are, and gives up what was claimed for them.
    pub(super) async fn stop(&self) {
        let asked = OptionFuture::from(self.asked.get().map(|loops| loops.stop()));
        let kept = OptionFuture::from(self.running.get().map(|running| running.loops.stop()));
        tokio::join!(asked, kept);
    }

    /// Ends the election: what it has is given back.
    pub(super) async fn give_back(&self) {
        for unclean in self.elections.lock().await.stop(RELEASE).await {
            tracing::debug!("{unclean}");
        }
    }

    /// Its numbers; nothing before it runs.
    pub(super) fn metrics(&self) -> OwnMetrics {
        let running = Arc::clone(&self.running);
        Arc::new(move || {
            let Some(running) = running.get() else { return String::new() };
            let standings = running.loops.glance().map(|all| metrics::text(&all, running.office.is_writer()));
            standings.unwrap_or_default() + &running.office.metrics()
        })
    }
}

/// Where it is to be strict, a serve config with a name that is not managed is the end, as upstream has it.
async fn refuse_losses(mut served: watch::Receiver<Standing>, events: mpsc::Sender<Event>) {
    loop {
        let good = served.borrow_and_update().good.clone();
        let wanted = good.and_then(|good| names::wanted(&good.config, Node::Leave).ok());
        if let Some(loss) = wanted.iter().flat_map(|wanted| &wanted.warnings).find(|warning| warning.is_loss) {
            // The receiver lives as long as the boot.
            let _ = events.send(Event::SideFailed(format!("serve config: {loss}"))).await;
        }
        if served.changed().await.is_err() {
            return;
        }
    }
}

fn options(context: &Context, start: Start) -> Options {
    let concurrent = concurrency(context.api.versions().version.as_deref());
    Options { growth: Growth::Steps, start, concurrent, node: Node::Leave }
}

/// The Secrets that the group shares.
fn world(context: &Context, cluster: &Cluster, claimant: Option<String>) -> ClusterWorld {
    ClusterWorld {
        api: context.api.clone(),
        cluster: cluster.clone(),
        group: context.settings.pod.name.as_deref().and_then(group_of).map(str::to_owned),
        claimant,
        finished: Finished::default(),
    }
}

/// Who this replica is in the election, where there is one.
fn member(context: &Context) -> Option<Member> {
    let pod = &context.settings.pod;
    let name = pod.name.as_deref().filter(|_| context.settings.cert_share == Some(CertShare::Elected))?;
    Some(Member::new(name, pod.uid.as_deref(), None, &std::process::id().to_string()))
}
