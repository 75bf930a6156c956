//! Where `certs run` and `certs issue` work: which tailscaled, and where certificates are kept.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::anyhow;

use super::Common;
use super::around::{is_shared, value};
use crate::applet::socket;
use crate::certs::cluster::{ClusterWorld, Finished};
use crate::certs::local::{self, LocalWorld};
use crate::certs::office::Office;
use crate::certs::world::Role;
use crate::certs::writer::{Choice, Member};
use crate::cli::cluster::ClusterArgs;
use crate::cli::exit::ExitStatus;
use crate::cli::report::Advise;
use crate::localapi::LocalApi;
use crate::settings::{CertShare, Vars, group_of, vars};
use crate::shutdown::Tasks;

/// As whom we introduce ourselves to the API server.
const COMPONENT: &str = "certs";

/// What is there.
pub(super) struct Place {
    pub(super) api: LocalApi,
    pub(super) storage: Storage,
    /// What the environment makes of this replica; where a Lease decides, what a person makes of it.
    pub(super) role: Role,
    /// Who it is where a Lease decides.
    member: Option<Member>,
}

/// Where certificates are kept.
pub(super) enum Storage {
    /// In Secrets that replicas share.
    Shared(ClusterWorld),
    /// Where tailscaled keeps its state.
    Own(LocalWorld),
}

impl Place {
    /// Finds it by flags and environment. Certificates are shared where TS_EXPERIMENTAL_CERT_SHARE says so, or where a
    /// group is named.
    ///
    /// # Errors
    /// Exit code 2 when it cannot be known whether this replica may ask.
    pub(super) async fn find(common: &Common, cluster: &ClusterArgs, vars: &dyn Vars) -> anyhow::Result<Self> {
        let value = |name: &str| value(vars, name);
        let api = LocalApi::new(&common.socket.clone().unwrap_or_else(|| socket(vars)));
        let shares = is_shared(vars);
        if !shares && common.proxy_group.is_none() {
            let memory = value(vars::TS_STATE_DIR.name).map(|dir| PathBuf::from(dir).join(local::FILE));
            let storage = Storage::Own(LocalWorld::new(api.clone(), memory));
            return Ok(Self { api, storage, role: Role::Writer, member: None });
        }
        let pod = value(vars::POD_NAME.name);
        let writer = value(vars::TAILPOD_CERT_WRITER.name);
        let Some(writer) = Choice::of(writer.as_deref()) else {
            let writer = writer.unwrap_or_default();
            let error = anyhow!("TAILPOD_CERT_WRITER={writer:?}: one of {}", Choice::ALL.join(", "));
            return Err(error.exit_with(ExitStatus::Usage));
        };
        let member = pod.as_deref().filter(|_| writer == Choice::Lease).map(|pod| {
            let uid = value(vars::POD_UID.name);
            Member::new(pod, uid.as_deref(), common.proxy_group.as_deref(), &std::process::id().to_string())
        });
        let role = match CertShare::of(pod.as_deref(), writer) {
            // Who names a group from outside of a Pod is the one that asks.
            Err(_) if !shares && pod.is_none() => Role::Writer,
            Ok(CertShare::Writes | CertShare::Elected) => Role::Writer,
            Ok(CertShare::Reads) => Role::Reader,
            Err(error) => return Err(anyhow!(error).exit_with(ExitStatus::Usage)),
        };
        let group = common.proxy_group.clone().or_else(|| group_of(pod.as_deref()?).map(str::to_owned));
        let cluster = cluster.connect(vars, COMPONENT).await?;
        // Where any replica may be the writer, names are claimed.
        let claimant = member.as_ref().map(|member| member.identity.clone());
        let storage =
            Storage::Shared(ClusterWorld { api: api.clone(), cluster, group, claimant, finished: Finished::default() });
        Ok(Self { api, storage, role, member })
    }

    /// Whether this replica asks, now and later. Without a `lease` duration no Lease is asked.
    ///
    /// # Errors
    /// Exit code 2 when it cannot be known.
    pub(super) async fn office(&self, lease: Option<Duration>, tasks: &mut Tasks) -> anyhow::Result<Office> {
        match (&self.storage, &self.member, lease) {
            (Storage::Shared(world), Some(member), Some(duration)) => {
                let office = Office::take(Choice::Lease, Some(member), &world.cluster, duration, tasks).await;
                office.map_err(|error| anyhow!(error).exit_with(ExitStatus::Usage))
            }
            _ => Ok(Office::fixed(self.role)),
        }
    }
}
