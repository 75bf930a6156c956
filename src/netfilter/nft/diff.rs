//! From what a table holds to what it shall hold, in the fewest steps. Pure.
//!
//! Steps go into one transaction, in this order. A rule is an interpreter's program and has no identity, so a chain
//! whose rules differ is emptied and filled again, which the kernel does by swapping one array (netfilter.md 8, rule 4);
//! a chain whose rules are the same is not touched. Elements of maps come and go one by one; one that leads elsewhere
//! goes and comes.

use std::collections::BTreeMap;

use super::contents::{
    Chain, Contents, Element, Installed, Map, Octets, Rule, port_element, port_key, service_element, service_key,
};
use crate::netfilter::ruleset::Address;

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<'r> {
    /// Makes the table; one that is there stays.
    AddTable,
    /// Removes the table with all that is in it.
    DeleteTable,
    /// Makes a chain.
    AddChain(Chain),
    /// Makes a map.
    AddMap(Map),
    /// Takes elements out of a map.
    DeleteElements(Map, Vec<Octets>),
    /// Puts elements into a map.
    AddElements(Map, Vec<Element<'r>>),
    /// Takes all rules out of a chain.
    EmptyChain(Chain),
    /// Puts a rule behind the others of a chain.
    AddRule(Chain, &'r Rule),
}

/// The way from one to the other. None when there is nothing to do.
pub fn diff<'c, A: Address>(from: &Installed<'_, A>, to: &'c Contents<'_, A>) -> Vec<Step<'c>> {
    let mut steps = Vec::new();
    let nothing = Contents::default();
    let from = match from {
        Installed::Ours(contents) => contents,
        Installed::Missing | Installed::Foreign => {
            steps.push(Step::AddTable);
            if *from == Installed::Foreign {
                steps.extend([Step::DeleteTable, Step::AddTable]);
            }
            steps.extend(Chain::ALL.map(Step::AddChain));
            steps.extend(Map::ALL.map(Step::AddMap));
            &nothing
        }
    };
    elements(&mut steps, Map::Ports, (&from.ports, &to.ports), port_key, port_element);
    elements(&mut steps, Map::Services, (&from.services, &to.services), service_key, service_element);
    for (chain, (before, after)) in Chain::ALL.into_iter().zip(from.rules.iter().zip(&to.rules)) {
        if before != after {
            if !before.is_empty() {
                steps.push(Step::EmptyChain(chain));
            }
            steps.extend(after.iter().map(|rule| Step::AddRule(chain, rule)));
        }
    }
    steps
}

fn elements<'c, K: Ord + Copy, V: PartialEq>(
    steps: &mut Vec<Step<'c>>,
    map: Map,
    (from, to): (&BTreeMap<K, V>, &'c BTreeMap<K, V>),
    key: fn(K) -> Octets,
    element: fn(K, &'c V) -> Element<'c>,
) {
    let gone: Vec<_> = from.iter().filter(|(at, before)| to.get(at) != Some(before)).map(|(at, _)| key(*at)).collect();
    let new: Vec<_> =
        to.iter().filter(|(at, after)| from.get(at) != Some(after)).map(|(at, after)| element(*at, after)).collect();
    if !gone.is_empty() {
        steps.push(Step::DeleteElements(map, gone));
    }
    if !new.is_empty() {
        steps.push(Step::AddElements(map, new));
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::netfilter::label::Label;
    use crate::netfilter::ruleset::{Interface, Port, PortTarget, Protocol, Rules};

    const OWN: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);

    fn contents<A: Address>(rules: &Rules<A>) -> Contents<'_, A> {
        Contents::of(rules, &Interface::default())
    }

    fn port(port: u16) -> Port {
        Port { protocol: Protocol::Tcp, port }
    }

    fn mapped(ports: &[(u16, u16)]) -> Rules<Ipv4Addr> {
        let addr = Ipv4Addr::new(100, 64, 0, 9);
        let target = |to: u16| PortTarget { addr, port: to, label: Label::new("web") };
        let mut rules = Rules::default();
        rules.map_ports(OWN, ports.iter().map(|(from, to)| (port(*from), target(*to))).collect());
        rules
    }

    #[test]
    fn the_same_costs_nothing() {
        let rules = mapped(&[(1, 80), (2, 443)]);
        let same = contents(&rules);
        assert_eq!(diff(&Installed::Ours(same.clone()), &same), []);
        let nothing = Rules::<Ipv6Addr>::default();
        assert_eq!(diff(&Installed::Ours(Contents::default()), &contents(&nothing)), []);
    }

    #[test]
    fn one_port_among_many_costs_its_element() {
        let (before, after) = (mapped(&[(1, 80), (2, 443), (3, 53)]), mapped(&[(1, 80), (2, 8443), (4, 25)]));
        let (before, after) = (contents(&before), contents(&after));
        let changed: Vec<_> = [2, 4].map(|at| port_element(port(at), &after.ports[&port(at)])).into_iter().collect();
        assert_eq!(
            diff(&Installed::Ours(before), &after),
            [
                Step::DeleteElements(Map::Ports, vec![port_key(port(2)), port_key(port(3))]),
                Step::AddElements(Map::Ports, changed),
            ]
        );
    }

    #[test]
    fn a_chain_whose_rules_are_the_same_is_not_touched() {
        let to = |last| {
            let mut rules = Rules::default();
            rules.ingress(OWN, &[Ipv4Addr::new(10, 0, 0, last)].into(), "ingress-ip");
            rules
        };
        let (before, after) = (to(1), to(2));
        let (before, after) = (contents(&before), contents(&after));
        assert_eq!(
            diff(&Installed::Ours(before), &after),
            [Step::EmptyChain(Chain::Pre), Step::AddRule(Chain::Pre, &after.rules[0][0])]
        );
    }

    #[test]
    fn what_cannot_be_mended_is_made_anew_in_the_same_transaction() {
        let rules = Rules::<Ipv4Addr>::default();
        let desired = contents(&rules);
        let made: Vec<_> = Chain::ALL.map(Step::AddChain).into_iter().chain(Map::ALL.map(Step::AddMap)).collect();
        assert_eq!(diff(&Installed::Missing, &desired), [vec![Step::AddTable], made.clone()].concat());
        let anew = vec![Step::AddTable, Step::DeleteTable, Step::AddTable];
        assert_eq!(diff(&Installed::Foreign, &desired), [anew, made].concat());
    }
}
