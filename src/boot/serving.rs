//! What a node that is up serves and advertises: the tasks behind it, and what is known of them (boot.md 7.2, 7.4).

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::certs::Certs;
use super::chain;
use super::context::Context;
use super::machine::Event;
use super::policy::clears_serve_config;
use super::shell::OPERATION_LIMIT;
use crate::certs::allowed::set;
use crate::certs::hold_back::{self, HeldBack, HoldBack, News, Sight};
use crate::certs::metrics;
use crate::certs::world::Allowed;
use crate::health::{HealthHandle, Weight};
use crate::k8s::publisher::{Publisher, Slot};
use crate::k8s::state;
use crate::localapi::LocalApi;
use crate::node::BusUpdate;
use crate::node::metrics::OwnMetrics;
use crate::serve::advertise::{Ownership, restore};
use crate::serve::advertiser::{Advertiser, Claim, Names};
use crate::serve::apply;
use crate::serve::document::{NodeFacts, service_names};
use crate::serve::follow::{Delivery, Follower, Leftovers, Problem, Source, Standing};
use crate::serve::withdraw::fail_over;
use crate::settings::{Mode, Settings, StateStore};
use crate::shutdown::{Signals, Tasks};

/// The longest wait for peers to fail over, upstream's: 15 s until control has elected another primary, and 5 s more.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// How long putting back what others advertise may take.
const RESTORE_LIMIT: Duration = Duration::from_secs(2);

/// What the tasks share with the shell.
#[derive(Debug)]
pub(super) struct Serving {
    node: watch::Sender<NodeFacts>,
    /// How often tailscaled was started.
    daemon: watch::Sender<u64>,
    /// How many messages there were about the netmap.
    netmaps: watch::Sender<u64>,
    standing: watch::Sender<Standing>,
    unadvertised: watch::Sender<Option<String>>,
    /// Every Service that is or was ours to advertise.
    ours: watch::Sender<BTreeSet<String>>,
    /// Whether they are withdrawn for now.
    hold: watch::Sender<bool>,
    /// The names that the node may have certificates for.
    allowed: watch::Sender<Allowed>,
    /// Services that wait for a certificate.
    held_back: watch::Sender<HeldBack>,
}

impl Serving {
    pub(super) fn new() -> Self {
        Self {
            node: watch::channel(NodeFacts::default()).0,
            daemon: watch::channel(0).0,
            netmaps: watch::channel(0).0,
            standing: watch::channel(Standing::default()).0,
            unadvertised: watch::channel(None).0,
            ours: watch::channel(BTreeSet::new()).0,
            hold: watch::channel(false).0,
            allowed: watch::channel(Allowed::Unknown).0,
            held_back: watch::channel(HeldBack::new()).0,
        }
    }

    /// Another tailscaled is being started: what is known of the node has to come from it.
    pub(super) fn daemon_starts(&self) {
        self.daemon.send_modify(|daemon| *daemon += 1);
        self.node.send_modify(|node| node.known = false);
    }

    /// Takes what a bus message says.
    pub(super) fn note(&self, update: &BusUpdate) {
        if let Some(device) = &update.device {
            let now = NodeFacts {
                known: true,
                cert_domain: update.cert_domains.first().cloned(),
                suffix: device.magic_dns_suffix().map(str::to_owned),
            };
            set(&self.node, now);
            set(&self.allowed, Allowed::of(&update.cert_domains));
        }
        if update.netmap {
            self.netmaps.send_modify(|netmaps| *netmaps += 1);
        }
    }

    /// What takes away what a former run served.
    pub(super) fn clearing(&self, context: &Context) -> Clearing {
        Clearing { api: context.api.clone(), ours: self.ours.clone() }
    }

    /// Starts following and advertising.
    pub(super) fn start(
        &self,
        context: &Arc<Context>,
        tasks: &mut Tasks,
        publisher: Option<Publisher>,
        health: HealthHandle,
        events: mpsc::Sender<Event>,
        certs: &Certs,
    ) {
        let settings = &context.settings;
        if let Some(config) = &settings.serve_config {
            let follower = Follower {
                api: context.api.clone(),
                source: Source::parse(config),
                delivery: Delivery::Apply,
                // What was cleared is not there to be set again.
                leftovers: if clears_serve_config(settings) { Leftovers::Compare } else { Leftovers::SetAgain },
                facts: self.node.subscribe(),
                daemon: self.daemon.subscribe(),
                standing: self.standing.clone(),
            };
            tasks.keep("serve config", |stop| follower.run(stop));
            let (standing, strict) = (self.standing.subscribe(), settings.strict);
            let (health, told) = (health.clone(), Told { publisher, events, strict });
            tasks.keep("serve config report", |stop| async move {
                stop.run_until_cancelled(report(standing, health, told)).await;
            });
        }
        if settings.advertising.is_automatic {
            let advertiser = Advertiser {
                api: context.api.clone(),
                names: match settings.serve_config {
                    Some(_) => Names::Followed(self.standing.subscribe()),
                    None => Names::Daemon(self.netmaps.subscribe()),
                },
                node: self.node.subscribe(),
                daemon: self.daemon.subscribe(),
                ours: self.ours.clone(),
                hold: self.hold.subscribe(),
                gate: None,
                claim: if settings.advertising.owns_all { Claim::All } else { Claim::Own },
                problem: self.unadvertised.clone(),
            };
            let (context, certs, allowed) = (Arc::clone(context), certs.clone(), self.allowed.subscribe());
            let held_back = self.held_back.clone();
            tasks.keep("services", |stop| async move {
                let gate = gate(&context, allowed, held_back, &certs).await;
                Advertiser { gate, ..advertiser }.run(stop).await;
            });
            let (mut problem, mut held_back) = (self.unadvertised.subscribe(), self.held_back.subscribe());
            tasks.keep("services report", |stop| async move {
                let report = async {
                    loop {
                        tokio::select! {
                            Ok(()) = problem.changed() => {
                                health.report("services", Weight::Degrading, problem.borrow_and_update().clone());
                            }
                            Ok(()) = held_back.changed() => {
                                let waiting = hold_back::shown(&held_back.borrow_and_update());
                                health.report("services-held-back", Weight::Notable, waiting);
                            }
                            else => return,
                        }
                    }
                };
                stop.run_until_cancelled(report).await;
            });
        }
    }

    /// What withdraws our Services for a while.
    pub(super) fn hold(&self) -> watch::Sender<bool> {
        self.hold.clone()
    }

    /// How the serve config stands.
    pub(super) fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// What our own metrics say.
    pub(super) fn metrics(&self) -> OwnMetrics {
        let (standing, held_back) = (self.standing.subscribe(), self.held_back.subscribe());
        Arc::new(move || {
            let standing = standing.borrow();
            let mut text = "# TYPE tailpod_serve_config_apply_total counter\n".to_owned();
            for (result, count) in [("applied", standing.applied), ("failed", standing.failed)] {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "tailpod_serve_config_apply_total{{result=\"{result}\"}} {count}");
            }
            text + &metrics::held_back(held_back.borrow().len())
        })
    }

    /// The first step of the way out. All Services are withdrawn, since the node will serve none of them; what is not
    /// ours is put back when nobody hears of it any more, so that the next run advertises it again (W30). Whether a
    /// signal cut it short.
    pub(super) async fn withdraw(&self, context: &Context, signals: &mut Signals) -> bool {
        let wait = context.settings.withdraw_wait.min(LONGEST_WAIT);
        let over = fail_over(&context.api, Ownership::Whole, wait, signals).await;
        let ours = self.ours.borrow().clone();
        let others: BTreeSet<_> = over.advertised.difference(&ours).cloned().collect();
        if keeps_prefs(&context.settings) && !context.settings.advertising.owns_all && !others.is_empty() {
            let why = match timeout(RESTORE_LIMIT, restore(&context.api, &others)).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(chain(&error)),
                Err(_) => Some("no answer in time".to_owned()),
            };
            match why {
                None => tracing::info!("the next start advertises again what is not ours: {others:?}"),
                Some(why) => tracing::warn!("what is not ours stays withdrawn, {others:?}: {why}"),
            }
        }
        over.interrupted
    }
}

/// Takes away what a former run served.
pub(super) struct Clearing {
    api: LocalApi,
    ours: watch::Sender<BTreeSet<String>>,
}

impl Clearing {
    /// Its Services are ours to withdraw.
    pub(super) async fn run(self) -> Event {
        Event::ServeConfigCleared(match timeout(OPERATION_LIMIT, apply::clear(&self.api)).await {
            Ok(Ok(was)) => {
                self.ours.send_modify(|ours| ours.extend(service_names(&was)));
                Ok(())
            }
            Ok(Err(error)) => Err(chain(&error)),
            Err(_) => Err("context deadline exceeded".to_owned()),
        })
    }
}

/// What holds Services back that have no certificate yet. Where replicas share them, somebody else orders it; else
/// tailscaled would when the first client comes, and is asked for it before.
async fn gate(
    context: &Context,
    allowed: watch::Receiver<Allowed>,
    held_back: watch::Sender<HeldBack>,
    certs: &Certs,
) -> Option<HoldBack> {
    let settings = &context.settings;
    if settings.advertising.without_certificate {
        return None;
    }
    let sight = if settings.cert_share.is_some() {
        Sight::Secrets(context.secret()?.cluster.clone())
    } else {
        Sight::Asked(certs.ask(context, allowed).await)
    };
    Some(HoldBack::new(sight, held_back, |news| match news {
        News::HeldBack { .. } => tracing::info!("{news}; TAILPOD_ADVERTISE_WITHOUT_CERT=true does not wait for it"),
        News::LetGo { .. } => tracing::info!("{news}"),
    }))
}

/// Whether the next run finds the prefs of this one, and no file that says what they are.
fn keeps_prefs(settings: &Settings) -> bool {
    let in_file = matches!(&settings.mode, Mode::OneStep(file) if file.advertises_services);
    !in_file && !matches!(settings.daemon.state, StateStore::Memory)
}

/// Whom a report goes to.
struct Told {
    publisher: Option<Publisher>,
    events: mpsc::Sender<Event>,
    strict: bool,
}

/// Reports how the serve config stands, whenever that changes.
async fn report(mut standing: watch::Receiver<Standing>, health: HealthHandle, told: Told) {
    loop {
        let now = standing.borrow_and_update().clone();
        health.report("serve-config", Weight::Degrading, now.problem.as_deref().map(|problem| chain(problem)));
        if let (Some(publisher), Some(good)) = (&told.publisher, &now.good) {
            let endpoint = good.cert_domain.as_deref().unwrap_or(state::NO_HTTPS);
            publisher.set(Slot::HttpsEndpoint, state::KeyPatch::new().set(state::HTTPS_ENDPOINT, endpoint));
        }
        match now.problem.as_deref() {
            Some(problem @ (Problem::Unreadable(_) | Problem::Invalid(_) | Problem::Refused(_))) if told.strict => {
                let _ = told.events.send(Event::SideFailed(format!("serve proxy: {}", chain(problem)))).await;
            }
            _ => {}
        }
        if standing.changed().await.is_err() {
            return;
        }
    }
}
