//! The certificate manager of a replica that gets certificates for all (boot.md 7.3).
//!
//! It follows the node by itself, so a restart of tailscaled is a failed call to it and no more. Upstream runs it from
//! the watcher of the serve config; here it asks tailscaled what it serves, whenever that may have changed.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use crate::certs::allowed::{Told, keep_told};
use crate::certs::cluster::{ClusterWorld, Finished};
use crate::certs::keep::Start;
use crate::certs::loops::{Loops, Options, concurrency};
use crate::certs::manager::{self, Names};
use crate::certs::metrics;
use crate::certs::names::Node;
use crate::certs::schedule::Growth;
use crate::certs::world::Role;
use crate::node::metrics::OwnMetrics;
use crate::serve::follow::Standing;
use crate::settings::group_of;
use crate::shutdown::Tasks;

/// The manager, once it runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Certs {
    loops: Arc<OnceLock<Arc<Loops<ClusterWorld>>>>,
}

impl Certs {
    /// Starts it, once. `served` is how the serve config stands.
    pub(super) fn start(&self, context: &Arc<Context>, served: watch::Receiver<Standing>, tasks: &mut Tasks) {
        let (context, certs) = (Arc::clone(context), self.clone());
        tasks.spawn("certificates", |stop| async move {
            Box::pin(certs.run(&context, served, &stop)).await;
            Ok::<(), Infallible>(())
        });
    }

    async fn run(&self, context: &Context, mut served: watch::Receiver<Standing>, stop: &CancellationToken) {
        let Some(secret) = context.secret() else {
            tracing::warn!("certificates cannot be shared without a state Secret, so none is asked for");
            return stop.cancelled().await;
        };
        let world = ClusterWorld {
            api: context.api.clone(),
            cluster: secret.cluster.clone(),
            group: context.settings.pod.name.as_deref().and_then(group_of).map(str::to_owned),
            // Ordinals are claim enough.
            claimant: None,
            finished: Finished::default(),
        };
        let versions = context.api.versions();
        let options = Options {
            growth: Growth::Steps,
            start: Start::Spread,
            concurrent: concurrency(versions.version.as_deref()),
            node: Node::Leave,
        };
        let told = Told::default();
        let role = watch::Sender::new(Role::Writer);
        let (allowed, mut facts) = (told.allowed.subscribe(), told.facts.subscribe());
        let loops = Loops::new(world, options, allowed, role.subscribe(), stop.child_token()).await;
        let loops = Arc::clone(self.loops.get_or_init(|| Arc::new(loops)));
        let (changed, changes) = watch::channel(0);
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
        tokio::join!(
            keep_told(context.api.clone(), told, stop.clone()),
            manager::manage(&loops, &context.api, Names::Served(changes), stop),
            stop.run_until_cancelled(news),
        );
    }

    /// Its numbers; nothing before it runs.
    pub(super) fn metrics(&self) -> OwnMetrics {
        let loops = Arc::clone(&self.loops);
        Arc::new(move || {
            let standings = loops.get().and_then(|loops| loops.glance());
            standings.map(|standings| metrics::text(&standings, true)).unwrap_or_default()
        })
    }
}
