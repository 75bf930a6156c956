//! Which flows are stuck on a translation that is no longer wanted. Pure.
//!
//! A flow keeps what its first packet got. TCP connections to a target that still lives shall drain; a UDP client with
//! one socket would be stuck for as long as it sends (netfilter.md 9.4, weakness N15). A flow is stale when the rules
//! that it falls under changed and it has not what they say now.

use std::collections::BTreeSet;

use crate::netfilter::ruleset::{Address, Port, Postrouting, Prerouting, Protocol, Rules};

/// A UDP flow: the first packet's addresses, and those of its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow<A> {
    /// Who began it.
    pub source: A,
    /// Where it went.
    pub destination: A,
    /// To which port.
    pub port: u16,
    /// Who answers.
    pub answerer: A,
    /// From which port.
    pub answering_port: u16,
    /// To whom.
    pub answered: A,
}

/// This network namespace's own addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local<A> {
    /// Those of the cluster side.
    pub cluster: BTreeSet<A>,
    /// Those of the tailnet's device, and of the loopback.
    pub other: BTreeSet<A>,
}

impl<A> Local<A> {
    /// Without any.
    pub fn none() -> Self {
        Self { cluster: BTreeSet::new(), other: BTreeSet::new() }
    }
}

/// What rules make of a flow.
#[derive(Debug, PartialEq, Eq)]
enum Fate<A> {
    /// Left alone on purpose.
    Exempt,
    /// Nothing.
    Nothing,
    /// One of these, with the port if that is translated too.
    Translated(Vec<(A, Option<u16>)>),
}

/// Whether the difference between rules can concern UDP at all.
pub fn concerns_udp<A: Address>(before: Option<&Rules<A>>, after: &Rules<A>) -> bool {
    fn udp<A>(rules: &Rules<A>) -> impl Iterator<Item = (&Port, (&A, u16))>
    where
        A: Address,
    {
        let udp = rules.ports.iter().filter(|(port, _)| port.protocol == Protocol::Udp);
        udp.map(|(port, target)| (port, (&target.addr, target.port)))
    }
    let Some(before) = before else { return !after.is_empty() };
    let services = |rules: &Rules<A>| rules.services.iter().map(|(to, target)| (*to, target.addr)).collect::<Vec<_>>();
    before.prerouting != after.prerouting
        || before.postrouting != after.postrouting
        || !udp(before).eq(udp(after))
        || services(before) != services(after)
}

/// Whether a flow is stuck. Without `before`, nothing was mapped.
pub fn is_stale<A: Address>(before: Option<&Rules<A>>, after: &Rules<A>, local: &Local<A>, flow: &Flow<A>) -> bool {
    // What begins here does not come by the chain of new flows.
    if local.cluster.contains(&flow.source) || local.other.contains(&flow.source) {
        return false;
    }
    let was = |cluster| before.map_or(Fate::Nothing, |rules| fate(rules, flow, cluster));
    let is_local = local.cluster.contains(&flow.destination) || local.other.contains(&flow.destination);
    // Conntrack does not say by which device a flow came. Of one that passes through, what it got tells.
    let cluster =
        local.cluster.contains(&flow.destination) || (!is_local && is_translated(flow) && has(&was(true), flow));
    let (was, is) = (was(cluster), fate(after, flow, cluster));
    if is == Fate::Exempt {
        return false;
    }
    if before.is_none() || was != is {
        return !has(&is, flow);
    }
    let (was, is) = (before.and_then(|rules| source(rules, flow)), source(after, flow));
    was != is && is.is_some_and(|source| source != flow.answered)
}

fn is_translated<A: Address>(flow: &Flow<A>) -> bool {
    (flow.answerer, flow.answering_port) != (flow.destination, flow.port)
}

fn has<A: Address>(fate: &Fate<A>, flow: &Flow<A>) -> bool {
    match fate {
        Fate::Exempt | Fate::Nothing => !is_translated(flow),
        Fate::Translated(targets) => targets
            .iter()
            .any(|(addr, port)| *addr == flow.answerer && port.unwrap_or(flow.port) == flow.answering_port),
    }
}

/// Goes through the rules as the kernel does; `cluster` is whether the flow came in from the cluster side.
fn fate<A: Address>(rules: &Rules<A>, flow: &Flow<A>, cluster: bool) -> Fate<A> {
    let port = Port { protocol: Protocol::Udp, port: flow.port };
    let mut shared = Vec::new();
    for rule in &rules.prerouting {
        match rule {
            Prerouting::Exempt { port: exempt, .. } if cluster && *exempt == port => return Fate::Exempt,
            Prerouting::Redirect { to, every, target, .. } if *to == flow.destination => {
                shared.push((*target, None));
                if every.is_none() {
                    return Fate::Translated(shared);
                }
            }
            Prerouting::Everything { target, .. } if cluster => return Fate::Translated(vec![(*target, None)]),
            Prerouting::Ports if cluster => {
                if let Some(target) = rules.ports.get(&port) {
                    return Fate::Translated(vec![(target.addr, Some(target.port))]);
                }
            }
            Prerouting::Services => {
                if let Some(target) = rules.services.get(&flow.destination) {
                    return Fate::Translated(vec![(target.addr, None)]);
                }
            }
            _ => {}
        }
    }
    Fate::Nothing
}

/// Where the flow shall seem to come from.
fn source<A: Address>(rules: &Rules<A>, flow: &Flow<A>) -> Option<A> {
    rules.postrouting.iter().find_map(|rule| match rule {
        Postrouting::Towards { to, source, .. } => (*to == flow.answerer).then_some(*source),
        Postrouting::Translated { source } => is_translated(flow).then_some(*source),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;

    use super::*;
    use crate::netfilter::label::Label;
    use crate::netfilter::ruleset::{PortTarget, ServiceTarget};

    fn v4(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    fn local() -> Local<Ipv4Addr> {
        Local { cluster: [v4("10.42.0.2")].into(), other: [v4("100.64.0.1"), v4("127.0.0.1")].into() }
    }

    /// From, to, answered by; answers go to the second address of the last pair.
    fn flow(source: &str, to: (&str, u16), by: (&str, u16), answered: &str) -> Flow<Ipv4Addr> {
        Flow {
            source: v4(source),
            destination: v4(to.0),
            port: to.1,
            answerer: v4(by.0),
            answering_port: by.1,
            answered: v4(answered),
        }
    }

    fn stale(before: Option<&Rules<Ipv4Addr>>, after: &Rules<Ipv4Addr>, flow: &Flow<Ipv4Addr>) -> bool {
        is_stale(before, after, &local(), flow)
    }

    fn egress(own: &str, target: &str) -> Rules<Ipv4Addr> {
        let mut rules = Rules::default();
        let exempt = BTreeMap::from([(Port { protocol: Protocol::Udp, port: 41641 }, "exempt wireguard")]);
        rules.egress(v4(own), v4(target), &exempt, "egress");
        rules
    }

    #[test]
    fn a_blanket_rule_takes_what_came_before_it_but_no_local_port() {
        let after = egress("100.64.0.1", "100.64.0.9");
        let plain = flow("10.42.0.7", ("10.42.0.2", 53), ("10.42.0.2", 53), "10.42.0.7");
        assert!(stale(None, &after, &plain));
        let wireguard = flow("10.9.9.9", ("10.42.0.2", 41641), ("10.42.0.2", 41641), "10.9.9.9");
        assert!(!stale(None, &after, &wireguard));
        let ours = flow("10.42.0.2", ("10.96.0.10", 53), ("10.96.0.10", 53), "10.42.0.2");
        assert!(!stale(None, &after, &ours), "what this Pod asks itself");
        let tailnet = flow("100.64.0.9", ("100.64.0.1", 53), ("100.64.0.1", 53), "100.64.0.9");
        assert!(!stale(None, &after, &tailnet), "what comes from the tailnet");
        let good = flow("10.42.0.7", ("10.42.0.2", 53), ("100.64.0.9", 53), "100.64.0.1");
        assert!(!stale(None, &after, &good), "what a container before this one translated");
    }

    #[test]
    fn another_target_or_another_own_address_frees_the_flow() {
        let before = egress("100.64.0.1", "100.64.0.9");
        let old = flow("10.42.0.7", ("10.42.0.2", 53), ("100.64.0.9", 53), "100.64.0.1");
        assert!(stale(Some(&before), &egress("100.64.0.1", "100.64.0.8"), &old));
        assert!(stale(Some(&before), &egress("100.64.0.3", "100.64.0.9"), &old));
        assert!(!stale(Some(&before), &before, &old));
        let through = flow("10.42.0.7", ("10.50.0.1", 53), ("100.64.0.9", 53), "100.64.0.1");
        assert!(stale(Some(&before), &egress("100.64.0.1", "100.64.0.8"), &through));
        let strange = flow("10.42.0.7", ("10.50.0.1", 53), ("10.50.0.1", 53), "10.42.0.7");
        assert!(!stale(Some(&before), &egress("100.64.0.1", "100.64.0.8"), &strange));
    }

    #[test]
    fn of_several_backends_only_the_one_that_went_lets_go() {
        let of = |backends: &[&str]| {
            let mut rules = Rules::default();
            rules.ingress(v4("100.64.0.1"), &backends.iter().map(|addr| v4(addr)).collect(), "ingress-dns");
            rules
        };
        let on = |backend: &str| flow("100.64.0.7", ("100.64.0.1", 53), (backend, 53), "100.64.0.7");
        let (before, after) = (of(&["10.0.0.1", "10.0.0.2"]), of(&["10.0.0.1", "10.0.0.3"]));
        assert!(!stale(Some(&before), &after, &on("10.0.0.1")));
        assert!(stale(Some(&before), &after, &on("10.0.0.2")));
        assert!(stale(Some(&before), &Rules::default(), &on("10.0.0.1")), "nothing is mapped any more");
        assert!(stale(None, &after, &on("100.64.0.1")));
    }

    #[test]
    fn a_mapped_port_or_service_concerns_its_own_flows() {
        let ports = |port: u16, to: u16| {
            let target = PortTarget { addr: v4("100.64.0.9"), port: to, label: Label::new("dns") };
            let mut rules = Rules::default();
            rules.map_ports(v4("100.64.0.1"), [(Port { protocol: Protocol::Udp, port }, target)].into());
            rules
        };
        let dns = flow("10.42.0.7", ("10.42.0.2", 10003), ("100.64.0.9", 53), "100.64.0.1");
        assert!(stale(Some(&ports(10003, 53)), &ports(10003, 5353), &dns));
        assert!(stale(Some(&ports(10003, 53)), &ports(10004, 53), &dns));
        assert!(!stale(Some(&ports(10004, 53)), &ports(10005, 53), &dns));
        let services = |to: &str| {
            let target = ServiceTarget { addr: v4(to), label: Label::new("svc:web") };
            let mut rules = Rules::default();
            rules.map_services([(v4("100.100.1.1"), target)].into());
            rules
        };
        let quic = flow("100.64.0.7", ("100.100.1.1", 443), ("10.42.0.11", 443), "100.64.0.7");
        assert!(stale(Some(&services("10.42.0.11")), &services("10.42.0.12"), &quic));
        assert!(!stale(Some(&services("10.42.0.11")), &services("10.42.0.11"), &quic));
    }

    #[test]
    fn tcp_alone_is_no_reason_to_look() {
        let with = |protocol| {
            let target = PortTarget { addr: v4("100.64.0.9"), port: 1, label: Label::new("x") };
            let mut rules = egress("100.64.0.1", "100.64.0.9");
            rules.map_ports(v4("100.64.0.1"), [(Port { protocol: Protocol::Tcp, port: 1 }, target.clone())].into());
            rules.ports.insert(Port { protocol, port: 2 }, target);
            rules
        };
        let one = {
            let mut rules = with(Protocol::Tcp);
            rules.ports.remove(&Port { protocol: Protocol::Tcp, port: 2 });
            rules
        };
        assert!(!concerns_udp(Some(&one), &with(Protocol::Tcp)));
        assert!(concerns_udp(Some(&one), &with(Protocol::Udp)));
        assert!(concerns_udp(None, &one));
        assert!(!concerns_udp(None, &Rules::<Ipv4Addr>::default()));
    }
}
