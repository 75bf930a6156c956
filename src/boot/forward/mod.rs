//! Packets between cluster and tailnet: the task that brings the node's own rules to what is asked for (M1 to M5 of
//! netfilter.md).
//!
//! It is level-triggered: whenever the node's addresses, its peers, the answers of DNS or the kernel's change, the whole
//! desired table is made anew by [`wanted`] (pure), the [keeper](crate::netfilter::keeper) brings the kernel to it, and
//! the state machine hears how that stands. What was in force stays while something is missing.

mod firewall;
mod lookup;
mod metrics;
pub mod preview;
pub mod wanted;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::lookup::Backends;
use self::wanted::{Desired, Known, Plan, Unable};
use super::chain;
use super::context::Context;
use super::host::{Forwarding as Sysctls, HostError};
use super::machine::{Event, Forwarding};
use super::shell::OPERATION_LIMIT;
use crate::dns::Resolver;
use crate::localapi::model::Model;
use crate::netfilter::firewall::Firewall;
use crate::netfilter::keeper::{Handle, keeper};
use crate::netfilter::ruleset::{Ruleset, Table};
use crate::node::metrics::OwnMetrics;
use crate::settings::{Egress, Ingress, Settings};
use crate::shutdown::Tasks;

/// One lookup, with all the servers and names that are tried for it.
const LOOKUP_LIMIT: Duration = Duration::from_secs(60);

/// What the shell keeps of it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Packets {
    firewall: Arc<OnceLock<Firewall>>,
    forwarder: Arc<OnceLock<Forwarder>>,
}

impl Packets {
    /// Finds out how packets can be filtered.
    pub(super) async fn open(self, context: Arc<Context>) -> Event {
        let found = timeout(OPERATION_LIMIT, firewall::open(&context.settings)).await;
        let found = found.unwrap_or_else(|_| Err("context deadline exceeded".to_owned()));
        Event::FirewallOpened(found.map(|firewall| drop(self.firewall.set(firewall))))
    }

    /// What was found.
    pub(super) fn firewall(&self) -> Option<&Firewall> {
        self.firewall.get()
    }

    /// The node has these addresses; `newest` is it with its peers. The first time it all starts.
    pub(super) fn forward(
        &self,
        own: Vec<IpAddr>,
        newest: watch::Receiver<Arc<Model>>,
        context: &Context,
        events: &mpsc::Sender<Event>,
        tasks: &mut Tasks,
    ) {
        if let Some(forwarder) = self.forwarder.get() {
            return forwarder.own(own);
        }
        // Nothing is forwarded before a firewall was found: that is what the step before the steady state is for.
        let Some(firewall) = self.firewall.get().cloned() else { return };
        let means = Means {
            plan: context.plan.clone(),
            firewall,
            root: context.settings.root.clone(),
            in_kubernetes: context.settings.kube.in_kubernetes,
            newest,
            events: events.clone(),
        };
        let _first = self.forwarder.set(Forwarder::start(means, own, tasks));
    }

    /// What our own metrics say.
    pub(super) fn metrics(&self) -> OwnMetrics {
        let forwarder = Arc::clone(&self.forwarder);
        let standing = move || forwarder.get().map(|forwarder| forwarder.rules.standing().borrow().clone());
        Arc::new(move || metrics::text(&[(Table::L3, standing().unwrap_or_default())]))
    }

    /// Leaves nothing of ours behind.
    pub(super) async fn remove(&self, settings: &Settings) {
        if let Some(firewall) = self.firewall.get() {
            firewall::remove(firewall, &firewall::tables(settings)).await;
        }
    }
}

/// What the task works with.
struct Means {
    plan: Plan,
    firewall: Firewall,
    /// `TS_TEST_ONLY_ROOT`
    root: PathBuf,
    in_kubernetes: bool,
    /// The node with its peers.
    newest: watch::Receiver<Arc<Model>>,
    events: mpsc::Sender<Event>,
}

/// The task's other end.
#[derive(Debug)]
struct Forwarder {
    own: watch::Sender<Vec<IpAddr>>,
    rules: Handle,
}

impl Forwarder {
    /// Starts the task, the keeper and, for a DNS name, what looks it up.
    fn start(means: Means, own: Vec<IpAddr>, tasks: &mut Tasks) -> Self {
        let (rules, kept) = keeper(means.firewall.clone(), Table::L3);
        tasks.keep("packet rules", |stop| kept.run(stop));
        let (found, backends) = watch::channel(None);
        if let Some(Ingress::Dns(name)) = means.plan.forward.ingress.clone() {
            let resolver = Resolver::new(&means.root);
            tasks.keep("DNS target", |stop| async move {
                let look = || look(&resolver, &name);
                stop.run_until_cancelled(Box::pin(lookup::keep_looking(&name, look, found))).await;
            });
        }
        let (sender, own) = watch::channel(own);
        let task = Task { means, own, backends, rules: rules.clone(), wish: None, told: None };
        tasks.keep("forwarding", |stop| task.run(stop));
        Self { own: sender, rules }
    }

    /// The node has these addresses now.
    fn own(&self, own: Vec<IpAddr>) {
        self.own.send_if_modified(|known| {
            let differs = *known != own;
            *known = own;
            differs
        });
    }
}

async fn look(resolver: &Resolver, name: &str) -> Result<crate::dns::Answer, String> {
    match timeout(LOOKUP_LIMIT, resolver.look_up(name)).await {
        Ok(answer) => answer.map_err(|error| chain(&error)),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

struct Task {
    means: Means,
    own: watch::Receiver<Vec<IpAddr>>,
    backends: watch::Receiver<Backends>,
    rules: Handle,
    /// What the keeper was last asked for, and for which addresses of the node.
    wish: Option<(Arc<Ruleset>, Vec<IpAddr>)>,
    told: Option<Forwarding>,
}

impl Task {
    async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(self.forward()).await;
    }

    async fn forward(&mut self) {
        let mut standing = self.rules.standing();
        loop {
            if let Some(news) = self.look()
                && self.told.as_ref() != Some(&news)
            {
                if let Forwarding::Waiting(why) = &news {
                    tracing::warn!("{why}");
                }
                self.told = Some(news.clone());
                if self.means.events.send(Event::Forwarding(news)).await.is_err() {
                    return;
                }
            }
            // The other ends live as long as the boot; a task whose ends are gone has nobody to work for.
            let changed = tokio::select! {
                changed = self.own.changed() => changed,
                changed = self.backends.changed(), if self.looks_up() => changed,
                changed = self.means.newest.changed(), if self.finds_peers() => changed,
                changed = standing.changed() => changed,
            };
            if changed.is_err() {
                return std::future::pending().await;
            }
        }
    }

    fn looks_up(&self) -> bool {
        matches!(self.means.plan.forward.ingress, Some(Ingress::Dns(_)))
    }

    fn finds_peers(&self) -> bool {
        matches!(self.means.plan.forward.egress, Some(Egress::Fqdn(_)))
    }

    /// Makes the rules for what is known now, asks for them, and says how they stand. `None` while that is not known.
    fn look(&mut self) -> Option<Forwarding> {
        let own = self.own.borrow_and_update().clone();
        let model = Arc::clone(&self.means.newest.borrow_and_update());
        let backends = self.backends.borrow_and_update().clone();
        let plan = &self.means.plan;
        let (target, ipv6) = (plan.target(&model), self.means.firewall.ipv6());
        let known = Known { own: &own, target, backends: backends.as_ref(), ipv6 };
        match wanted::desired(plan, &known) {
            Ok(desired) => {
                self.want(desired, own);
                self.standing()
            }
            Err(Unable::Ever(why)) if self.wish.is_none() => Some(Forwarding::Impossible(why)),
            // With a target that is away, what was in force stays (W1); so it does with one that it cannot be.
            Err(Unable::Yet(why) | Unable::Ever(why)) => Some(Forwarding::Waiting(why)),
        }
    }

    fn want(&mut self, desired: Desired, own: Vec<IpAddr>) {
        let ruleset = Arc::new(desired.ruleset);
        if self.wish.as_ref().is_some_and(|(wish, _)| *wish == ruleset) {
            self.wish = Some((ruleset, own));
            return;
        }
        let same_node = self.wish.as_ref().is_some_and(|(_, before)| *before == own);
        for line in desired.story {
            match line.strip_prefix("installing ingress proxy rules for backends ") {
                Some(backends) if same_node => {
                    tracing::info!("Backend address change detected, installing proxy rules for backends {backends}");
                }
                _ => tracing::info!("{line}"),
            }
        }
        self.tell_of_families(&own);
        // What the settings name was seen to before anything was started; what a name stands for is known only now.
        if self.looks_up() || self.finds_peers() {
            self.enable(desired.targets);
        }
        self.rules.want(Arc::clone(&ruleset));
        self.wish = Some((ruleset, own));
    }

    /// Kernels forward nothing unless they are told to. Without it the rules are as good as none, but it may have been
    /// arranged for in a way that cannot be seen here: told, not refused, as upstream.
    fn enable(&self, targets: impl IntoIterator<Item = IpAddr>) {
        if let Err(source) = Sysctls::of(targets).enable(&self.means.root) {
            let error = HostError::Forwarding { source, in_kubernetes: self.means.in_kubernetes };
            for line in error.lines() {
                tracing::warn!("{line}");
            }
        }
    }

    /// Peers prefer a node's IPv4 address, and an IPv6 destination cannot be reached through it.
    fn tell_of_families(&self, own: &[IpAddr]) {
        if let Some(Ingress::Ip(ip @ IpAddr::V6(_))) = self.means.plan.forward.ingress
            && self.wish.is_none()
            && own.iter().any(IpAddr::is_ipv4)
        {
            tracing::warn!(
                "the node has an IPv4 address, over which {ip} cannot be reached; it may be necessary to disable IPv4 \
                 for this node, see https://github.com/tailscale/tailscale/issues/12156"
            );
        }
    }

    fn standing(&self) -> Option<Forwarding> {
        let (wish, own) = self.wish.as_ref()?;
        let standing = self.rules.standing();
        let standing = standing.borrow();
        if standing.applied.as_ref() == Some(wish) && standing.problem.is_none() {
            return Some(Forwarding::InForce(own.clone()));
        }
        let problem = standing.problem.as_ref()?;
        Some(Forwarding::Refused(self.means.plan.refused(problem)))
    }
}
