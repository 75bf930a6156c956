//! The node as the IPN bus tells it: one model for all generations of daemons. Pure.
//!
//! [`Model::apply`] feeds one message in and says what it changed. A status snapshot replaces everything; a legacy
//! netmap replaces self, peers and DNS; deltas change what they name. Follows upstream's `kube/ipnstate` handling in
//! `cmd/containerboot/main.go`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::types::{DnsConfig, DnsRecord, Health, Node, Notify, PeerStatus, State, Status};
use crate::prefix::Prefix;

/// What is known of the node. Cheap to clone: peers are shared.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    /// Backend state; `None` before the first message that names one.
    pub state: Option<State>,
    /// This node; `None` while there is no netmap.
    pub self_device: Option<Device>,
    /// Names certificates can be had for, in control's order.
    pub cert_domains: Vec<String>,
    /// Extra DNS records: how Tailscale Services appear.
    pub extra_records: Vec<DnsRecord>,
    /// The last complete health state.
    pub health: Option<Health>,
    /// The pending interactive login URL; gone once the node is past `NeedsLogin`.
    pub browse_url: Option<String>,
    /// Peers, as far as the watcher asked for them.
    pub peers: Arc<Peers>,
    /// Daemon's long version, once a message had it.
    pub version: String,
    warned_unknown: bool,
}

/// This node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Stable id, such as `nXYZ123CNTRL`.
    pub stable_id: String,
    /// FQDN with trailing dot.
    pub name: String,
    /// Own tailnet addresses, in the daemon's order.
    pub addresses: Vec<IpAddr>,
    /// The node key has expired.
    pub expired: bool,
    /// RFC 3339; `None` means never.
    pub key_expiry: Option<String>,
}

/// All peers, by numeric id; those without one by name. Each is shared too: of thousands, a message changes one, while
/// somebody still reads the others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Peers {
    by_id: BTreeMap<i64, Arc<Peer>>,
    /// From old daemons' snapshots, until a full node with that name arrives.
    by_name: BTreeMap<String, Arc<Peer>>,
}

/// One peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// FQDN with trailing dot.
    pub name: String,
    /// Own addresses.
    pub addresses: Vec<IpAddr>,
    /// Prefixes routed to it.
    pub allowed_ips: Vec<Prefix>,
}

/// What one message, or several merged, changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Update {
    /// The state that the message names, changed or not.
    pub state: Option<State>,
    /// The message belongs to those after which upstream makes a pass: it has a snapshot, self or peer members.
    pub netmap_relevant: bool,
    /// The self device is another than before.
    pub self_changed: bool,
    /// Cert domains or extra records are others than before.
    pub dns_changed: bool,
    /// A peer is another than before, or may be.
    pub peers_changed: bool,
    /// The message carries a self change and no netmap, so DNS may have changed too: read `dns-config`.
    pub wants_dns_refresh: bool,
    /// The first message of a stream: what was known before is replaced.
    pub resynced: bool,
    /// A login URL to show.
    pub browse_url: Option<String>,
    /// The daemon's error text.
    pub err_message: Option<String>,
    /// The complete health state, when the message has one.
    pub health: Option<Health>,
    /// A state that this build does not know, once: to be logged as a warning.
    pub unknown_state: Option<String>,
}

impl Update {
    /// Whether anyone needs to hear of it.
    pub fn is_news(&self) -> bool {
        self.state.is_some()
            || self.self_changed
            || self.dns_changed
            || self.peers_changed
            || self.resynced
            || self.browse_url.is_some()
            || self.err_message.is_some()
            || self.health.is_some()
            || self.unknown_state.is_some()
    }

    /// Adds a later update to this one: later values win, flags add up.
    pub fn merge(&mut self, later: Self) {
        self.state = later.state.or(self.state);
        self.netmap_relevant |= later.netmap_relevant;
        self.self_changed |= later.self_changed;
        self.dns_changed |= later.dns_changed;
        self.peers_changed |= later.peers_changed;
        self.wants_dns_refresh |= later.wants_dns_refresh;
        self.resynced |= later.resynced;
        self.browse_url = later.browse_url.or(self.browse_url.take());
        self.err_message = later.err_message.or(self.err_message.take());
        self.health = later.health.or(self.health.take());
        self.unknown_state = self.unknown_state.take().or(later.unknown_state);
    }
}

impl Model {
    /// Applies one bus message.
    pub fn apply(&mut self, notify: Notify) -> Update {
        let mut update = Update {
            netmap_relevant: notify.initial_status.is_some()
                || notify.net_map.is_some()
                || notify.self_change.is_some()
                || !notify.peers_changed.is_empty()
                || !notify.peers_removed.is_empty()
                || notify.peer_changed_patch.is_some(),
            wants_dns_refresh: notify.self_change.is_some() && notify.net_map.is_none(),
            resynced: notify.initial_status.is_some(),
            err_message: notify.err_message,
            ..Update::default()
        };
        if !notify.version.is_empty() {
            self.version = notify.version;
        }
        let mut state = notify.state.map(|number| (State::from_number(number), number.to_string()));
        if let Some(status) = notify.initial_status {
            if state.is_none() {
                state = State::from_name(&status.backend_state).map(|state| (state, status.backend_state.clone()));
            }
            self.snapshot(status, &mut update);
        }
        if let Some(map) = notify.net_map {
            self.set_self(map.self_node.map(Device::from), &mut update);
            self.set_dns(map.dns, &mut update);
            self.set_peers(map.peers.into_iter().map(|node| (node.id, Peer::from(node))).collect(), &mut update);
        }
        if let Some(node) = notify.self_change {
            self.set_self(Some(node.into()), &mut update);
        }
        for node in notify.peers_changed {
            update.peers_changed |= upsert(&mut self.peers, node.id, node.into());
        }
        let removed: BTreeSet<i64> = notify.peers_removed.into_iter().collect();
        if removed.iter().any(|id| self.peers.by_id.contains_key(id)) {
            Arc::make_mut(&mut self.peers).by_id.retain(|id, _| !removed.contains(id));
            update.peers_changed = true;
        }
        update.peers_changed |= notify.peer_changed_patch.is_some() || notify.peer_changes.is_some();
        if let Some((state, text)) = state {
            self.set_state(state, text, &mut update);
        }
        if let Some(url) = notify.browse_to_url.filter(|url| !url.is_empty()) {
            self.browse_url = Some(url.clone());
            update.browse_url = Some(url);
        }
        if let Some(health) = notify.health {
            self.health = Some(health.clone());
            update.health = Some(health);
        }
        update
    }

    /// Applies a `status?peers=false` answer: the slow reconciliation. What it does not know stays as it is, the
    /// peers too. The update holds a state only if it is another than before.
    pub fn apply_status(&mut self, status: Status) -> Update {
        let mut update = Update::default();
        let before = self.state;
        // A daemon, or a stand-in, that answers without a self node says nothing about DNS either.
        if let Some(node) = status.self_ {
            self.set_self(Device::from_status(node), &mut update);
            let dns = DnsConfig { cert_domains: status.cert_domains, extra_records: status.extra_records };
            self.set_dns(dns, &mut update);
        }
        if let Some(state) = State::from_name(&status.backend_state)
            && before != Some(state)
        {
            self.set_state(state, status.backend_state, &mut update);
        }
        update.netmap_relevant = update.self_changed || update.dns_changed;
        update
    }

    /// Applies a `dns-config` answer.
    pub fn apply_dns(&mut self, dns: DnsConfig) -> Update {
        let mut update = Update::default();
        self.set_dns(dns, &mut update);
        update.netmap_relevant = update.dns_changed;
        update
    }

    fn snapshot(&mut self, status: Status, update: &mut Update) {
        if let Some(node) = status.self_ {
            self.set_self(Device::from_status(node), update);
        }
        let dns = DnsConfig { cert_domains: status.cert_domains, extra_records: status.extra_records };
        self.set_dns(dns, update);
        self.set_peers(status.peer.into_values().map(|peer| (peer.node_id, peer.into())).collect(), update);
        if !status.auth_url.is_empty() {
            self.browse_url = Some(status.auth_url.clone());
            update.browse_url = Some(status.auth_url);
        }
    }

    fn set_state(&mut self, state: State, text: String, update: &mut Update) {
        if state == State::Unknown && !self.warned_unknown {
            self.warned_unknown = true;
            update.unknown_state = Some(text);
        }
        if !matches!(state, State::NeedsLogin | State::NoState | State::Unknown) {
            self.browse_url = None;
        }
        self.state = Some(state);
        update.state = Some(state);
    }

    fn set_self(&mut self, device: Option<Device>, update: &mut Update) {
        if self.self_device != device {
            self.self_device = device;
            update.self_changed = true;
        }
    }

    fn set_dns(&mut self, dns: DnsConfig, update: &mut Update) {
        if self.cert_domains != dns.cert_domains || self.extra_records != dns.extra_records {
            self.cert_domains = dns.cert_domains;
            self.extra_records = dns.extra_records;
            update.dns_changed = true;
        }
    }

    fn set_peers(&mut self, peers: Vec<(i64, Peer)>, update: &mut Update) {
        let mut all = Arc::default();
        for (id, peer) in peers {
            upsert(&mut all, id, peer);
        }
        if self.peers != all {
            self.peers = all;
            update.peers_changed = true;
        }
    }
}

/// Adds or replaces a peer; says whether that changed anything.
fn upsert(peers: &mut Arc<Peers>, id: i64, peer: Peer) -> bool {
    if id == 0 {
        if peer.name.is_empty() || peers.by_name.get(&peer.name).is_some_and(|known| **known == peer) {
            return false;
        }
        Arc::make_mut(peers).by_name.insert(peer.name.clone(), Arc::new(peer));
        return true;
    }
    if peers.by_id.get(&id).is_some_and(|known| **known == peer) && !peers.by_name.contains_key(&peer.name) {
        return false;
    }
    let peers = Arc::make_mut(peers);
    peers.by_name.remove(&peer.name);
    peers.by_id.insert(id, Arc::new(peer));
    true
}

// === impl Peers, Peer, Device ===

impl Peers {
    /// All peers, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.by_id.values().chain(self.by_name.values()).map(|peer| &**peer)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len() + self.by_name.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<Node> for Peer {
    fn from(node: Node) -> Self {
        let allowed_ips = node.allowed_ips.unwrap_or_else(|| node.addresses.clone());
        Self { name: node.name, addresses: node.addresses.iter().map(Prefix::addr).collect(), allowed_ips }
    }
}

impl From<PeerStatus> for Peer {
    fn from(peer: PeerStatus) -> Self {
        Self { name: peer.dns_name, addresses: peer.tailscale_ips, allowed_ips: peer.allowed_ips }
    }
}

impl From<Node> for Device {
    fn from(node: Node) -> Self {
        Self {
            stable_id: node.stable_id,
            name: node.name,
            addresses: node.addresses.iter().map(Prefix::addr).collect(),
            expired: node.expired,
            key_expiry: node.key_expiry,
        }
    }
}

impl Device {
    /// `None` for the self of a daemon that has no netmap yet.
    fn from_status(peer: PeerStatus) -> Option<Self> {
        (!peer.id.is_empty()).then_some(Self {
            stable_id: peer.id,
            name: peer.dns_name,
            addresses: peer.tailscale_ips,
            expired: peer.expired,
            key_expiry: peer.key_expiry,
        })
    }
}

#[cfg(test)]
mod tests;
