//! The rules of the node's own table, from what is asked for and what is known (netfilter.md 5.1 to 5.5). Pure.
//!
//! Modes stack: what is for the Pod's or the node's own addresses comes before what takes everything. Follows upstream's
//! `cmd/containerboot/forwarding.go`, with one rule for each translation and none for what is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::localapi::model::Model;
use crate::netfilter::ruleset::{Family, Interface, Port, Protocol, Ruleset, Table};
use crate::node::resolve::resolve;
use crate::prefix::Prefix;
use crate::settings::{Egress, Exemptions, Forward, Ingress, Settings};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The modes.
    pub forward: Forward,
    /// The device behind which the tailnet is.
    pub tun: Interface,
    /// Our own ports, which egress leaves alone.
    pub exempt: BTreeMap<Port, &'static str>,
}

/// What is known.
#[derive(Clone, Debug, Default)]
pub struct Known<'k> {
    /// The node's addresses.
    pub own: &'k [IpAddr],
    /// What [`Plan::target`] says.
    pub target: Option<Result<Vec<IpAddr>, String>>,
    /// What the DNS name of the ingress target stands for; `None` before the first answer.
    pub backends: Option<&'k BTreeSet<IpAddr>>,
    /// Whether IPv6 can be translated here.
    pub ipv6: bool,
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// The table.
    pub ruleset: Ruleset,
    /// Every address that packets are forwarded to.
    pub targets: BTreeSet<IpAddr>,
    /// What is being done, in upstream's words.
    pub story: Vec<String>,
}

/// Why there are no rules for this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unable {
    /// What is missing may come with the next news.
    Yet(String),
    /// It is not for this node; upstream's words.
    Ever(String),
}

impl Plan {
    /// What these settings ask for.
    ///
    /// # Errors
    /// The TUN device cannot be named in a rule.
    pub fn of(settings: &Settings) -> Result<Self, String> {
        let tun = match &settings.forward.tun {
            None => Interface::default(),
            Some(name) => Interface::new(name).ok_or_else(|| {
                format!("TS_TAILSCALED_EXTRA_ARGS: --tun={name:?} is not a device that packets can be told apart by")
            })?,
        };
        Ok(Self { forward: settings.forward.clone(), tun, exempt: exempt(settings) })
    }

    /// What the name of the egress target stands for at present, or why for nothing; `None` without one.
    pub fn target(&self, node: &Model) -> Option<Result<Vec<IpAddr>, String>> {
        let Some(Egress::Fqdn(name)) = &self.forward.egress else { return None };
        Some(resolve(node, name).map_err(|error| error.to_string()))
    }

    /// A refusal, said as upstream says which rules it was about.
    pub fn refused(&self, text: &str) -> String {
        match (&self.forward.ingress, &self.forward.egress) {
            (_, Some(Egress::Fqdn(name))) => {
                format!("installing egress proxy rules for destination {}: {text}", name.without_dot())
            }
            (Some(Ingress::Ip(_)), _) => format!("installing ingress proxy rules: {text}"),
            (Some(Ingress::Dns(name)), _) => format!("installing ingress proxy rules for DNS target {name}: {text}"),
            (None, Some(Egress::Ip(_))) => format!("installing egress proxy rules: {text}"),
            (None, None) => format!("installing rules to forward traffic to node's tailnet IP: {text}"),
        }
    }
}

/// What this node itself listens on (N7).
fn exempt(settings: &Settings) -> BTreeMap<Port, &'static str> {
    if settings.forward.exemptions == Exemptions::Nothing {
        return BTreeMap::new();
    }
    let local = &settings.local;
    let http = local.main.iter().map(|main| &main.addr).chain(&local.deprecated_health);
    let http = http.map(|addr| (Protocol::Tcp, addr.addr.port(), "exempt local http"));
    let debug = local.debug.iter().map(|addr| (Protocol::Tcp, addr.addr.port(), "exempt debug"));
    let wireguard = settings.forward.wireguard_port.map(|port| (Protocol::Udp, port, "exempt wireguard"));
    let all = debug.chain(http).chain(wireguard).filter(|(_, port, _)| *port != 0);
    all.map(|(protocol, port, whose)| (Port { protocol, port }, whose)).collect()
}

/// The rules for what is known.
///
/// # Errors
/// Something is missing, or cannot be.
pub fn desired(plan: &Plan, known: &Known<'_>) -> Result<Desired, Unable> {
    if known.own.is_empty() {
        return Err(Unable::Yet("the node has no tailnet address".to_owned()));
    }
    let mut desired =
        Desired { ruleset: Ruleset::empty(Table::L3, plan.tun.clone()), targets: BTreeSet::new(), story: Vec::new() };
    desired.via_ingress(plan, known)?;
    match &plan.forward.ingress {
        Some(Ingress::Ip(ip)) => desired.ingress(*ip, known)?,
        Some(Ingress::Dns(name)) => desired.backends(name, known)?,
        None => {}
    }
    match &plan.forward.egress {
        Some(Egress::Ip(ip)) => {
            let own =
                known.own_for(*ip).map_err(|why| Unable::Ever(format!("installing egress proxy rules: {why}")))?;
            desired.towards(own, *ip, plan);
        }
        Some(Egress::Fqdn(_)) => desired.named(plan, known)?,
        None => {}
    }
    Ok(desired)
}

impl Known<'_> {
    /// The node's address of the family of `ip`, or why there is none to use.
    fn own_for(&self, ip: IpAddr) -> Result<IpAddr, String> {
        let family = Family::of(ip);
        if family == Family::V6 && !self.ipv6 {
            return Err(format!("{ip} is an IPv6 address, and this host supports no IPv6 NAT"));
        }
        self.own.iter().copied().find(|own| Family::of(*own) == family).ok_or_else(|| {
            format!(
                "no tailscale IP matching family of {ip} found in {}: the node has no {} address",
                prefixes(self.own),
                family.title()
            )
        })
    }
}

impl Desired {
    /// M5. Of the Pod's addresses those are left out that the node has no counterpart of.
    fn via_ingress(&mut self, plan: &Plan, known: &Known<'_>) -> Result<(), Unable> {
        let mut missing = None;
        for pod in &plan.forward.via_ingress {
            match known.own_for(*pod) {
                Ok(own) => {
                    self.story.push(format!("installing rules to forward traffic for {pod} to node's tailnet IP"));
                    match (*pod, own) {
                        (IpAddr::V4(pod), IpAddr::V4(own)) => {
                            self.ruleset.v4_mut().local(pod, own, "cluster-via-ingress");
                        }
                        (IpAddr::V6(pod), IpAddr::V6(own)) => {
                            self.ruleset.v6_mut().local(pod, own, "cluster-via-ingress");
                        }
                        _ => {}
                    }
                }
                Err(why) => missing = missing.or(Some(why)),
            }
        }
        match missing {
            Some(why) if self.story.is_empty() => {
                Err(Unable::Ever(format!("installing rules to forward traffic to node's tailnet IP: {why}")))
            }
            _ => Ok(()),
        }
    }

    /// M1.
    fn ingress(&mut self, ip: IpAddr, known: &Known<'_>) -> Result<(), Unable> {
        let own = known.own_for(ip).map_err(|why| Unable::Ever(format!("installing ingress proxy rules: {why}")))?;
        self.story.push("Installing proxy rules".to_owned());
        self.balance(own, &[ip].into(), "ingress-ip");
        Ok(())
    }

    /// M2, in both families (N8).
    fn backends(&mut self, name: &str, known: &Known<'_>) -> Result<(), Unable> {
        let Some(backends) = known.backends else {
            return Err(Unable::Yet(format!("no address is known yet for {name}")));
        };
        let mut usable = BTreeSet::new();
        for family in Family::ALL {
            let mine: BTreeSet<IpAddr> = backends.iter().copied().filter(|ip| Family::of(*ip) == family).collect();
            if let Some(own) = mine.first().and_then(|ip| known.own_for(*ip).ok()) {
                self.balance(own, &mine, "ingress-dns");
                usable.extend(mine);
            }
        }
        if usable.is_empty() {
            let all: Vec<_> = backends.iter().copied().collect();
            let text = format!("{name} has no address of a family that this node can forward: {}", list(&all));
            return Err(Unable::Yet(text));
        }
        let all: Vec<_> = usable.into_iter().collect();
        self.story.push(format!("installing ingress proxy rules for backends {}", list(&all)));
        Ok(())
    }

    fn balance(&mut self, own: IpAddr, backends: &BTreeSet<IpAddr>, name: &str) {
        self.targets.extend(backends);
        match own {
            IpAddr::V4(own) => {
                let mine = backends.iter().filter_map(|ip| if let IpAddr::V4(ip) = ip { Some(*ip) } else { None });
                self.ruleset.v4_mut().ingress(own, &mine.collect(), name);
            }
            IpAddr::V6(own) => {
                let mine = backends.iter().filter_map(|ip| if let IpAddr::V6(ip) = ip { Some(*ip) } else { None });
                self.ruleset.v6_mut().ingress(own, &mine.collect(), name);
            }
        }
    }

    /// M4: of several addresses of one family the last counts, as upstream.
    fn named(&mut self, plan: &Plan, known: &Known<'_>) -> Result<(), Unable> {
        let addresses = match &known.target {
            Some(Ok(addresses)) => addresses.as_slice(),
            Some(Err(why)) => return Err(Unable::Yet(why.clone())),
            None => &[],
        };
        let installable: Vec<_> = addresses.iter().copied().filter(|ip| ip.is_ipv4() || known.ipv6).collect();
        if installable.is_empty() {
            return Err(Unable::Ever(format!(
                "no forwarding rules for egress addresses {}, host supports IPv6: {}",
                prefixes(addresses),
                known.ipv6
            )));
        }
        let mut missing = None;
        for family in Family::ALL {
            let Some(ip) = installable.iter().rev().find(|ip| Family::of(**ip) == family) else { continue };
            match known.own_for(*ip) {
                Ok(own) => {
                    self.story.push(format!("Installing forwarding rules for destination {ip}"));
                    self.towards(own, *ip, plan);
                }
                Err(why) => missing = Some(format!("installing egress proxy rules for destination {ip}: {why}")),
            }
        }
        let any = addresses.iter().any(|ip| self.targets.contains(ip));
        missing.filter(|_| !any).map_or(Ok(()), |why| Err(Unable::Ever(why)))
    }

    fn towards(&mut self, own: IpAddr, target: IpAddr, plan: &Plan) {
        self.targets.insert(target);
        match (own, target) {
            (IpAddr::V4(own), IpAddr::V4(target)) => {
                self.ruleset.v4_mut().egress(own, target, &plan.exempt, "egress");
            }
            (IpAddr::V6(own), IpAddr::V6(target)) => {
                self.ruleset.v6_mut().egress(own, target, &plan.exempt, "egress");
            }
            _ => {}
        }
    }
}

/// As Go prints a list of addresses.
pub fn list(addresses: &[IpAddr]) -> String {
    format!("[{}]", addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" "))
}

/// As Go prints a list of host prefixes.
fn prefixes(addresses: &[IpAddr]) -> String {
    format!("[{}]", addresses.iter().map(|ip| Prefix::host(*ip).to_string()).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests;
