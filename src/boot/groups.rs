//! A replica of an HA group: its tasks, its hook, and what others are told of it (boot.md 5.7).

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::{mpsc, watch};

use super::announce::announce;
use super::context::Context;
use super::machine::{Announcement, Event};
use crate::health::{self, HealthHandle, Weight};
use crate::k8s::publisher::Publisher;
use crate::localapi::model::Model;
use crate::netfilter::firewall::Firewall;
use crate::netfilter::keeper;
use crate::netfilter::ruleset::Interface;
use crate::node::metrics::OwnMetrics;
use crate::proxygroup::drain::Hook;
use crate::proxygroup::egress::Egress;
use crate::proxygroup::egress::config::SERVICES_FILE;
use crate::proxygroup::follow::{Follower, Standing};
use crate::proxygroup::ingress::{Ingress, LINGER};
use crate::proxygroup::metrics;
use crate::proxygroup::plan::{Kind, Plan, PodIps};
use crate::settings::{Persona, Settings};
use crate::shutdown::Tasks;

/// What the shell keeps of groups, asked for or not.
#[derive(Debug)]
pub(super) struct Groups {
    egress: Option<(PathBuf, Arc<Hook>)>,
    ingress: Option<PathBuf>,
    standing: [(Kind, watch::Sender<Standing>); 2],
}

/// What the tasks of a group work with.
#[derive(Clone)]
pub(super) struct World {
    pub(super) context: Arc<Context>,
    pub(super) firewall: Firewall,
    pub(super) tun: Interface,
    pub(super) node: watch::Receiver<Arc<Model>>,
    pub(super) publisher: Option<Publisher>,
    pub(super) health: HealthHandle,
    pub(super) events: mpsc::Sender<Event>,
}

impl Groups {
    pub(super) fn new(settings: &Settings) -> Self {
        let forward = &settings.forward;
        let hook = |dir: &PathBuf| (dir.clone(), Hook::new(dir.clone(), pod_ips(settings)));
        Self {
            egress: forward.egress_config.as_ref().map(hook),
            ingress: forward.ingress_config.clone(),
            standing: [Kind::Egress, Kind::Ingress].map(|kind| (kind, watch::Sender::default())),
        }
    }

    /// What the kubelet calls before it ends the container.
    pub(super) fn hook(&self) -> Option<health::Hook> {
        let (_, hook) = self.egress.as_ref()?;
        let hook = Arc::clone(hook);
        Some(Arc::new(move || Arc::clone(&hook).answer().boxed()))
    }

    /// Starts what is asked for.
    pub(super) fn start(&self, tasks: &mut Tasks, world: &World) {
        let settings = &world.context.settings;
        if world.publisher.is_none() {
            tracing::warn!(
                "the state Secret may not be patched: the operator will not see what this Pod serves, and lead nobody here"
            );
        }
        if let Some((dir, hook)) = &self.egress {
            tracing::info!("configuring egress proxy using configuration file at {}", dir.display());
            let plan = Egress::new(world.tun.clone(), pod_ips(settings));
            let (hook, draining) = (Arc::clone(hook), hook.draining());
            let begin = async move { hook.start().await };
            self.follow(plan, dir.join(SERVICES_FILE), draining, begin, tasks, world);
        }
        if let Some(file) = &self.ingress {
            tracing::info!("configuring ingress proxy using configuration file at {}", file.display());
            let plan = Ingress::new(world.tun.clone(), pod_ips(settings), LINGER);
            self.follow(plan, file.clone(), watch::channel(false).1, std::future::ready(()), tasks, world);
        }
    }

    fn follow<P: Plan>(
        &self,
        plan: P,
        file: PathBuf,
        draining: watch::Receiver<bool>,
        begin: impl Future<Output = ()> + Send + 'static,
        tasks: &mut Tasks,
        world: &World,
    ) {
        let kind = P::KIND;
        let (rules, keeper) = keeper::keeper(world.firewall.clone(), kind.table());
        let standing = self.standing(kind).clone();
        let told = standing.subscribe();
        let follower = Follower {
            plan,
            file,
            node: world.node.clone(),
            draining,
            ipv6: world.firewall.ipv6(),
            rules,
            publisher: world.publisher.clone(),
            patience: world.context.settings.boot_timeout,
            standing,
        };
        let name = kind.as_str();
        tasks.keep(format!("{name} rules"), |stop| keeper.run(stop));
        let events = world.events.clone();
        tasks.keep(format!("{name} proxy"), |stop| async move {
            begin.await;
            if let Err(error) = follower.run(stop.clone()).await {
                let _ = events.send(Event::SideFailed(format!("{name} proxy failed: {error}"))).await;
                stop.cancelled().await;
            }
        });
        let (health, context) = (world.health.clone(), Arc::clone(&world.context));
        tasks.keep(format!("{name} report"), |stop| async move {
            stop.run_until_cancelled(report(kind, told, health, context)).await;
        });
    }

    fn standing(&self, kind: Kind) -> &watch::Sender<Standing> {
        let [(_, egress), (_, ingress)] = &self.standing;
        match kind {
            Kind::Egress => egress,
            Kind::Ingress => ingress,
        }
    }

    /// What our own metrics say of them; `None` where there is no group.
    pub(super) fn metrics(&self) -> Option<OwnMetrics> {
        let asked = [(Kind::Egress, self.egress.is_some()), (Kind::Ingress, self.ingress.is_some())];
        let groups: Vec<_> = asked
            .into_iter()
            .filter(|(_, asked)| *asked)
            .map(|(kind, _)| (kind, self.standing(kind).subscribe()))
            .collect();
        let draining = self.egress.as_ref().map(|(_, hook)| hook.draining());
        (!groups.is_empty()).then(|| -> OwnMetrics {
            Arc::new(move || {
                let standings: Vec<_> =
                    groups.iter().map(|(kind, standing)| (*kind, standing.borrow().clone())).collect();
                metrics::text(&standings, draining.as_ref().map(|draining| *draining.borrow()))
            })
        })
    }
}

/// Tells probes and the cluster how a group stands, whenever that changes.
async fn report(kind: Kind, mut standing: watch::Receiver<Standing>, health: HealthHandle, context: Arc<Context>) {
    let (check, reasons) = match kind {
        Kind::Egress => ("egress-services", ["EgressConfigInvalid", "EgressRulesRefused", "EgressServiceNotServed"]),
        Kind::Ingress => {
            ("ingress-services", ["IngressConfigInvalid", "IngressRulesRefused", "IngressServiceNotServed"])
        }
    };
    let mut before = [None, None, None];
    loop {
        let now = standing.borrow_and_update().clone();
        health.report(check, Weight::Degrading, now.config.clone().or_else(|| now.rules.clone()));
        let problems = match &*now.problems {
            [] => None,
            [one] => Some(one.clone()),
            [first, rest @ ..] => Some(format!("{first}; and {} more", rest.len())),
        };
        let after = [now.config, now.rules, problems];
        for ((reason, before), after) in reasons.into_iter().zip(&mut before).zip(after) {
            if let Some(message) = after.clone().filter(|_| after != *before)
                && context.settings.persona == Persona::Tailpod
            {
                announce(Arc::clone(&context), Announcement { reason, message }).await;
            }
            *before = after;
        }
        if standing.changed().await.is_err() {
            return;
        }
    }
}

fn pod_ips(settings: &Settings) -> PodIps {
    let [ipv4, ipv6]: [Option<IpAddr>; 2] = [settings.pod.ipv4, settings.pod.ipv6];
    PodIps { ipv4, ipv6 }
}
