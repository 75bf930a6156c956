//! Which packet filter there is, and what is left of ours when the node is gone.

use std::time::Duration;

use tokio::time::timeout;

use crate::netfilter::firewall::Firewall;
use crate::netfilter::ruleset::Table;
use crate::settings::{FirewallMode, Settings};

/// A kernel that takes longer to forget is left alone: the container's time is running out.
const REMOVAL_LIMIT: Duration = Duration::from_secs(1);

/// Finds out how packets can be filtered.
///
/// # Errors
/// They cannot, and why not.
pub(super) async fn open(settings: &Settings) -> Result<Firewall, String> {
    match settings.forward.firewall {
        FirewallMode::Fake { ipv6 } => Ok(Firewall::fake(&settings.root, ipv6)),
        mode @ (FirewallMode::Auto | FirewallMode::Nftables | FirewallMode::Iptables) => {
            Firewall::open(mode.as_str(), &settings.root).await.map_err(|error| error.to_string())
        }
    }
}

/// The tables that these settings make ours.
pub(super) fn tables(settings: &Settings) -> Vec<Table> {
    let forward = &settings.forward;
    [
        (forward.has_own_rules(), Table::L3),
        (forward.egress_config.is_some(), Table::Egress),
        (forward.ingress_config.is_some(), Table::Ingress),
    ]
    .into_iter()
    .filter_map(|(is_ours, table)| is_ours.then_some(table))
    .collect()
}

/// Removes them, as far as that can be done in a moment (netfilter.md 8, rule 10). Where the network namespace is
/// somebody else's, what stayed would go on catching its connections.
pub(super) async fn remove(firewall: &Firewall, tables: &[Table]) {
    let removal = async {
        for table in tables {
            if let Err(error) = firewall.remove(*table).await {
                tracing::warn!("{table}: the rules stay: {error}");
            }
        }
    };
    if timeout(REMOVAL_LIMIT, removal).await.is_err() {
        tracing::warn!("the packet rules could not be removed in time");
    }
}
