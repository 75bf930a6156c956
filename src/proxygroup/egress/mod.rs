//! An egress group: ports of the Pod lead to targets on the tailnet (ha-services.md 2 and 3, netfilter.md 5.6). Pure.

pub mod config;
pub mod status;
pub mod targets;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Instant;

use self::config::{Config, PortMap, Ports, Service, Wanted};
use self::status::{Served, Status};
use self::targets::{Found, Targets};
use super::plan::{Desired, Invalid, Kind, Plan, PodIps, View};
use crate::netfilter::label::Label;
use crate::netfilter::ruleset::{Interface, Port, PortTarget, Ruleset};

/// How many ports a log line names.
const NAMED: usize = 8;

/// The group as this replica knows it.
#[derive(Debug)]
pub struct Egress {
    tun: Interface,
    pod: PodIps,
    config: Config,
    /// What left the config while the Pod is being drained: clients may still be led here.
    leaving: BTreeMap<String, Service>,
    targets: Targets,
}

/// The two maps that are filled, and who has which port.
#[derive(Default)]
struct Maps {
    v4: BTreeMap<Port, PortTarget<Ipv4Addr>>,
    v6: BTreeMap<Port, PortTarget<Ipv6Addr>>,
    owners: BTreeMap<Port, String>,
}

/// The addresses of one target that rules can lead to: at most one of each family.
#[derive(Clone, Copy, Default)]
struct Chosen {
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
}

impl Egress {
    /// A group without a config yet, behind this device and in this Pod.
    pub fn new(tun: Interface, pod: PodIps) -> Self {
        let (config, leaving) = (Config::default(), BTreeMap::new());
        Self { tun, pod, config, leaving, targets: Targets::default() }
    }

    /// Where a target leads now; what is wrong with it goes to `problems`, when that changes by itself to `again`.
    fn choose(
        &mut self,
        name: &str,
        wanted: &Wanted,
        view: &View<'_>,
        now: Instant,
        (problems, again): (&mut Vec<String>, &mut Option<Instant>),
    ) -> Chosen {
        let mut problem = |text: String| problems.push(format!("egress service {name:?}: {text}"));
        let addresses = match wanted {
            Wanted::Ip(ip) => vec![*ip],
            Wanted::Fqdn(fqdn) => match self.targets.look(fqdn, (view.resolve)(fqdn), now) {
                Found::Here(addresses) => addresses,
                Found::Away(addresses, until, why) => {
                    problem(format!("its target is not there, and its last addresses are used for a while: {why}"));
                    *again = Some(again.map_or(until, |other| other.min(until)));
                    addresses
                }
                Found::Nowhere(why) => {
                    problem(format!("its target is not there: {why}"));
                    return Chosen::default();
                }
            },
        };
        // Sorted, so that the order in which a netmap names them changes nothing.
        let (v4, v6) = (addresses.iter().filter_map(v4).min(), addresses.iter().filter_map(v6).min());
        let own = |v4: bool| view.own.iter().any(|own| own.is_ipv4() == v4);
        let chosen = Chosen { v4: v4.filter(|_| own(true)), v6: v6.filter(|_| view.ipv6 && own(false)) };
        match (chosen, v6) {
            (Chosen { v4: None, v6: None }, Some(ip)) if !view.ipv6 && v4.is_none() => {
                problem(format!("{ip} is IPv6, which this host cannot translate"));
            }
            (Chosen { v4: None, v6: None }, _) => {
                problem(format!("it leads to {addresses:?}, and this node has only {:?}", view.own));
            }
            _ => {}
        }
        chosen
    }
}

impl Maps {
    /// Leads the ports of a Service to its target; the ports that are its own.
    fn add(&mut self, name: &str, ports: &[PortMap], to: Chosen, problems: &mut Vec<String>) -> Ports {
        let mut served = Vec::new();
        for map in ports {
            let Some(port) = map.port() else { continue };
            if let Some(owner) = self.owners.get(&port) {
                problems.push(format!("egress service {name:?}: {} {} belongs to {owner:?}", map.protocol, port.port));
                continue;
            }
            self.owners.insert(port, name.to_owned());
            let proto = map.protocol.to_uppercase();
            let label = Label::new(&format!("{name}:{proto}:{} -> {proto}:{}", map.match_port, map.target_port));
            if let Some(addr) = to.v4 {
                self.v4.insert(port, PortTarget { addr, port: map.target_port, label: label.clone() });
            }
            if let Some(addr) = to.v6 {
                self.v6.insert(port, PortTarget { addr, port: map.target_port, label });
            }
            served.push(map.clone());
        }
        served.into()
    }
}

impl Plan for Egress {
    type Status = Status;

    const KIND: Kind = Kind::Egress;

    fn configure(&mut self, text: &[u8]) -> Result<(), Invalid> {
        let config = Config::parse(text)?.unwrap_or_default();
        let before = std::mem::replace(&mut self.config, config);
        self.leaving.extend(before.services);
        self.leaving.retain(|name, _| !self.config.services.contains_key(name));
        Ok(())
    }

    fn render(&mut self, view: &View<'_>, now: Instant) -> Option<Desired<Status>> {
        if view.own.is_empty() {
            return None;
        }
        if !view.draining {
            self.leaving.clear();
        }
        let (mut problems, mut again) = (self.config.problems.clone(), None);
        let (mut maps, mut reported, mut unresolved) = (Maps::default(), BTreeMap::new(), 0);
        let services = std::mem::take(&mut self.config.services);
        for (name, service) in &services {
            let chosen = self.choose(name, &service.wanted, view, now, (&mut problems, &mut again));
            let addresses: Vec<IpAddr> =
                chosen.v4.map(Into::into).into_iter().chain(chosen.v6.map(Into::into)).collect();
            unresolved += usize::from(addresses.is_empty());
            let served = Served {
                ports: maps.add(name, &service.ports, chosen, &mut problems),
                // A target that is not there is reported all the same: a rollout waits for every Service of the group.
                addresses: (!addresses.is_empty()).then_some(addresses),
                target: service.target.clone(),
            };
            reported.insert(name.clone(), served);
        }
        let leaving = std::mem::take(&mut self.leaving);
        for (name, service) in &leaving {
            let mut quiet = Vec::new();
            let chosen = self.choose(name, &service.wanted, view, now, (&mut quiet, &mut again));
            maps.add(name, &service.ports, chosen, &mut quiet);
        }
        (self.config.services, self.leaving) = (services, leaving);
        let wanted: BTreeSet<&str> =
            self.config.services.values().chain(self.leaving.values()).filter_map(fqdn).collect();
        self.targets.keep(|name| wanted.contains(name));

        let mut ruleset = Ruleset::empty(Self::KIND.table(), self.tun.clone());
        if let Some(own) = view.own.iter().find_map(v4) {
            ruleset.v4_mut().map_ports(own, maps.v4);
        }
        if let Some(own) = view.own.iter().find_map(v6) {
            ruleset.v6_mut().map_ports(own, maps.v6);
        }
        let services = reported.len();
        let (ruleset, status) = (Arc::new(ruleset), Arc::new(Status::new(self.pod, reported)));
        Some(Desired { ruleset, status, problems, services, unresolved, again })
    }

    fn is_empty(status: &Status) -> bool {
        status.services().next().is_none()
    }

    fn changes(before: Option<&Status>, after: &Status) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, served) in after.services() {
            let old = before.and_then(|before| before.service(name));
            if old == Some(served) {
                continue;
            }
            let (from, to) = (addresses(old), addresses(Some(served)));
            let way = if from == to { to } else { format!("{from} -> {to}") };
            lines.push(format!("egress service {name:?}: {way}, {}", ports(&served.ports)));
        }
        for (name, _) in before.into_iter().flat_map(Status::services) {
            if after.service(name).is_none() {
                lines.push(format!("egress service {name:?}: gone"));
            }
        }
        lines
    }
}

fn v4(ip: &IpAddr) -> Option<Ipv4Addr> {
    if let IpAddr::V4(ip) = ip { Some(*ip) } else { None }
}

fn v6(ip: &IpAddr) -> Option<Ipv6Addr> {
    if let IpAddr::V6(ip) = ip { Some(*ip) } else { None }
}

fn fqdn(service: &Service) -> Option<&str> {
    if let Wanted::Fqdn(fqdn) = &service.wanted { Some(fqdn) } else { None }
}

fn addresses(served: Option<&Served>) -> String {
    let addresses = served.and_then(|served| served.addresses.as_deref()).unwrap_or_default();
    if addresses.is_empty() {
        return "nowhere".to_owned();
    }
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn ports(ports: &[PortMap]) -> String {
    let named =
        ports.iter().take(NAMED).map(|map| format!("{} {} to {}", map.protocol, map.match_port, map.target_port));
    let mut named: Vec<_> = named.collect();
    if ports.len() > NAMED {
        named.push(format!("{} more", ports.len() - NAMED));
    }
    if named.is_empty() { "no ports".to_owned() } else { named.join(", ") }
}

#[cfg(test)]
mod tests;
