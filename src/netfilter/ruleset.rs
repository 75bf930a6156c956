//! The desired packet rules of one table, as a value. Pure.
//!
//! Each mode of netfilter.md adds what it wants through a method of [`Ruleset`]; backends render the whole. The families
//! are separate types below, so a rule that leads from one into the other cannot be written down. What is many and
//! changes alone, the Services of HA groups, are elements of maps, so that one change costs one element; the few rules
//! around them stay as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use super::label::Label;
pub use super::terms::{Address, Family, Interface, Port, Protocol, Table};

/// Everything that one table shall hold, in both families. Equal values mean equal packets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ruleset {
    table: Table,
    tun: Interface,
    v4: Rules<Ipv4Addr>,
    v6: Rules<Ipv6Addr>,
}

/// One family's part of a table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rules<A> {
    /// The chain of new flows, in order: the first translation wins.
    pub prerouting: Vec<Prerouting<A>>,
    /// The chain of source translation, in order.
    pub postrouting: Vec<Postrouting<A>>,
    /// Whether the MSS of TCP through the node is clamped, both ways (netfilter.md 5.8).
    pub clamp: bool,
    /// The map behind [`Prerouting::Ports`].
    pub ports: BTreeMap<Port, PortTarget<A>>,
    /// The map behind [`Prerouting::Services`].
    pub services: BTreeMap<A, ServiceTarget<A>>,
}

/// A rule for the first packet of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Prerouting<A> {
    /// From the cluster side to one of our own ports: left alone.
    Exempt {
        /// The port.
        port: Port,
        /// Whose it is.
        label: Label,
    },
    /// To this address: translated to that one, port kept.
    Redirect {
        /// Where the packet goes.
        to: A,
        /// With one rule for each of n addresses, this one takes every k-th of the flows that reach it; the last rule
        /// takes the rest. `None`, or 2 and more.
        every: Option<u32>,
        /// Where it shall go.
        target: A,
        /// What for.
        label: Label,
    },
    /// From the cluster side, whatever it is: translated to this address, port kept.
    Everything {
        /// Where it shall go.
        target: A,
        /// What for.
        label: Label,
    },
    /// From the cluster side to a port in [`Rules::ports`]: translated.
    Ports,
    /// To an address in [`Rules::services`]: translated.
    Services,
}

/// A rule for the source of a flow that leaves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Postrouting<A> {
    /// To this address: from that one.
    Towards {
        /// Where the packet goes.
        to: A,
        /// Where it shall seem to come from.
        source: A,
        /// What for.
        label: Label,
    },
    /// To the tailnet, if the destination was translated: from this address.
    Translated {
        /// Where it shall seem to come from.
        source: A,
    },
}

/// Where a port leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PortTarget<A> {
    /// The tailnet address.
    pub addr: A,
    /// The port there.
    pub port: u16,
    /// Whose it is.
    pub label: Label,
}

/// Where a Service's address leads, port kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceTarget<A> {
    /// The address in the cluster.
    pub addr: A,
    /// Whose it is.
    pub label: Label,
}

impl<A> Default for Rules<A> {
    fn default() -> Self {
        Self {
            prerouting: Vec::new(),
            postrouting: Vec::new(),
            clamp: false,
            ports: BTreeMap::new(),
            services: BTreeMap::new(),
        }
    }
}

impl<A: Address> Rules<A> {
    /// Whether nothing is asked for. Its chains stay, and match nothing.
    pub fn is_empty(&self) -> bool {
        self.prerouting.is_empty() && self.postrouting.is_empty() && !self.clamp
    }

    /// M1 and M2: every flow to `own` goes to one of `backends` in turn, port kept. Sorted, so that the order in which
    /// DNS answers changes nothing.
    pub fn ingress(&mut self, own: A, backends: &BTreeSet<A>, name: &str) {
        let count = backends.len();
        for (nth, backend) in backends.iter().enumerate() {
            let left = count - nth;
            let label = if count == 1 { name.to_owned() } else { format!("{name} {}/{count}", nth + 1) };
            self.prerouting.push(Prerouting::Redirect {
                to: own,
                every: u32::try_from(left).ok().filter(|left| *left > 1),
                target: *backend,
                label: Label::new(&label),
            });
            self.clamp = true;
        }
    }

    /// M5: every flow to the Pod's address goes to the node's own, where tailscaled serves. It ends here, so there is
    /// nothing to clamp.
    pub fn local(&mut self, pod: A, own: A, name: &str) {
        self.prerouting.push(Prerouting::Redirect { to: pod, every: None, target: own, label: Label::new(name) });
    }

    /// M3 and M4: everything from the cluster side goes to `target`, seemingly from `own`, but for our own ports.
    pub fn egress(&mut self, own: A, target: A, exempt: &BTreeMap<Port, &'static str>, name: &str) {
        self.prerouting
            .extend(exempt.iter().map(|(port, whose)| Prerouting::Exempt { port: *port, label: Label::new(whose) }));
        self.prerouting.push(Prerouting::Everything { target, label: Label::new(name) });
        self.postrouting.push(Postrouting::Towards { to: target, source: own, label: Label::new(name) });
        self.clamp = true;
    }

    /// M6: ports of the Pod lead to ports on the tailnet, seemingly from `own`.
    pub fn map_ports(&mut self, own: A, ports: BTreeMap<Port, PortTarget<A>>) {
        if ports.is_empty() {
            return;
        }
        self.prerouting.push(Prerouting::Ports);
        self.postrouting.push(Postrouting::Translated { source: own });
        self.clamp = true;
        self.ports = ports;
    }

    /// M7: addresses of Tailscale Services lead to addresses in the cluster, port kept.
    pub fn map_services(&mut self, services: BTreeMap<A, ServiceTarget<A>>) {
        if services.is_empty() {
            return;
        }
        self.prerouting.push(Prerouting::Services);
        self.clamp = true;
        self.services = services;
    }
}

impl Ruleset {
    /// The table with nothing in it.
    pub fn empty(table: Table, tun: Interface) -> Self {
        Self { table, tun, v4: Rules::default(), v6: Rules::default() }
    }

    /// Which table.
    pub fn table(&self) -> Table {
        self.table
    }

    /// The device behind which the tailnet is.
    pub fn tun(&self) -> &Interface {
        &self.tun
    }

    /// The IPv4 part.
    pub fn v4(&self) -> &Rules<Ipv4Addr> {
        &self.v4
    }

    /// The IPv6 part.
    pub fn v6(&self) -> &Rules<Ipv6Addr> {
        &self.v6
    }

    /// The IPv4 part, to be filled.
    pub fn v4_mut(&mut self) -> &mut Rules<Ipv4Addr> {
        &mut self.v4
    }

    /// The IPv6 part, to be filled.
    pub fn v6_mut(&mut self) -> &mut Rules<Ipv6Addr> {
        &mut self.v6
    }

    /// The same without dealing flows out in turn, for a kernel that cannot: of several backends, the last takes all.
    #[must_use]
    pub fn without_turns(&self) -> Self {
        fn all<A: Clone>(rules: &Rules<A>) -> Rules<A> {
            let mut rules = rules.clone();
            rules.prerouting.retain(|rule| !matches!(rule, Prerouting::Redirect { every: Some(_), .. }));
            rules
        }
        Self { table: self.table, tun: self.tun.clone(), v4: all(&self.v4), v6: all(&self.v6) }
    }

    /// Whether a family has anything in it.
    pub fn uses(&self, family: Family) -> bool {
        match family {
            Family::V4 => !self.v4.is_empty(),
            Family::V6 => !self.v6.is_empty(),
        }
    }

    /// Whether nothing is asked for in either family.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    #[test]
    fn each_of_n_backends_takes_its_turn() {
        let mut rules = Rules::default();
        rules.ingress(v4("100.64.0.1"), &["10.0.0.3", "10.0.0.1", "10.0.0.2"].map(v4).into(), "ingress-dns");
        let turns: Vec<_> = rules
            .prerouting
            .iter()
            .map(|rule| match rule {
                Prerouting::Redirect { every, target, label, .. } => (*every, target.to_string(), label.to_string()),
                other => panic!("{other:?}"),
            })
            .collect();
        let turn = |every, target: &str, label: &str| (every, target.to_owned(), label.to_owned());
        assert_eq!(
            turns,
            [
                turn(Some(3), "10.0.0.1", "ingress-dns 1/3"),
                turn(Some(2), "10.0.0.2", "ingress-dns 2/3"),
                turn(None, "10.0.0.3", "ingress-dns 3/3"),
            ]
        );
    }

    #[test]
    fn without_turns_the_last_backend_takes_all() {
        let mut ruleset = Ruleset::empty(Table::L3, Interface::default());
        let rules = ruleset.v4_mut();
        rules.ingress(v4("100.64.0.1"), &["10.0.0.3", "10.0.0.1"].map(v4).into(), "ingress-dns");
        rules.local(v4("10.42.0.2"), v4("100.64.0.1"), "cluster-via-ingress");
        let left = ruleset.without_turns();
        assert_eq!(left.v4().prerouting, ruleset.v4().prerouting[1..]);
        assert_eq!(left.without_turns(), left);
    }

    #[test]
    fn nothing_to_map_asks_for_nothing() {
        let mut rules = Rules::default();
        rules.ingress(v4("100.64.0.1"), &BTreeSet::new(), "ingress-dns");
        rules.map_ports(v4("100.64.0.1"), BTreeMap::new());
        rules.map_services(BTreeMap::new());
        assert!(rules.is_empty(), "{rules:?}");
    }
}
