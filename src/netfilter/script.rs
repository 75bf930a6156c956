//! A ruleset as the script that `nft -f` takes: what people read, and what the netlink batch is held against. Pure.
//!
//! The form is netfilter.md 10: chains and maps are added where they are missing, rules and elements replaced, all in
//! one transaction. What a table shall not hold any more goes with the flush.

use std::fmt::{self, Write as _};

use super::ruleset::{Address, Family, Port, PortTarget, Postrouting, Prerouting, Rules, Ruleset, ServiceTarget};

/// Chain of new flows: NAT, hook prerouting, before the conventional -100.
pub const PRE: (&str, i32) = ("tp_pre", -105);
/// Chain of source translation: NAT, hook postrouting, before the conventional 100.
pub const POST: (&str, i32) = ("tp_post", 95);
/// Chain of the MSS clamp: filter, hook forward, before tailscaled's accepts end the evaluation.
pub const FORWARD: (&str, i32) = ("tp_fwd", -150);
/// All of them, each with its type and its hook before it.
pub const CHAINS: [(&str, &str, (&str, i32)); 3] =
    [("nat", "prerouting", PRE), ("nat", "postrouting", POST), ("filter", "forward", FORWARD)];
/// Map of ports.
pub const PORTS: &str = "ports";
/// Map of Services.
pub const SERVICES: &str = "services";

/// The whole script. A family that nothing is asked for in has its table emptied, not removed; the reader leaves out
/// one that the kernel does not have.
pub fn render(ruleset: &Ruleset) -> String {
    let mut script = Script { text: String::new(), table: ruleset.table().name(), tun: ruleset.tun().as_str() };
    // Writing to a String cannot fail.
    let _ = script.family(ruleset.v4());
    let _ = script.family(ruleset.v6());
    script.text
}

/// One family's part of [`render`].
pub fn render_family<A: Address>(ruleset: &Ruleset, rules: &Rules<A>) -> String {
    let mut script = Script { text: String::new(), table: ruleset.table().name(), tun: ruleset.tun().as_str() };
    let _ = script.family(rules);
    script.text
}

/// Makes a chain, one of [`CHAINS`].
pub fn add_chain(family: Family, table: &str, (kind, hook, (chain, priority)): (&str, &str, (&str, i32))) -> String {
    format!("add chain {family} {table} {chain} {{ type {kind} hook {hook} priority {priority}; policy accept; }}")
}

/// Makes a map, [`PORTS`] or [`SERVICES`].
pub fn add_map(family: Family, table: &str, map: &str) -> String {
    let addr = match family {
        Family::V4 => "ipv4_addr",
        Family::V6 => "ipv6_addr",
    };
    let types = match map {
        PORTS => format!("inet_proto . inet_service : {addr} . inet_service"),
        _ => format!("{addr} : {addr}"),
    };
    format!("add map {family} {table} {map} {{ type {types}; }}")
}

/// The key of a port.
pub fn port_key(port: Port) -> String {
    format!("{} . {}", port.protocol, port.port)
}

/// The element of a port.
pub fn port_element<A: Address>(port: Port, target: &PortTarget<A>) -> String {
    format!("{} comment \"{}\" : {} . {}", port_key(port), target.label, target.addr, target.port)
}

/// The element of a Service.
pub fn service_element<A: Address>(to: A, target: &ServiceTarget<A>) -> String {
    format!("{to} comment \"{}\" : {}", target.label, target.addr)
}

struct Script<'a> {
    text: String,
    table: &'a str,
    tun: &'a str,
}

impl Script<'_> {
    fn family<A: Address>(&mut self, rules: &Rules<A>) -> fmt::Result {
        let (family, table) = (A::FAMILY, self.table);
        let text = &mut self.text;
        writeln!(text, "add table {family} {table}")?;
        for chain in CHAINS {
            writeln!(text, "{}", add_chain(family, table, chain))?;
        }
        for map in [PORTS, SERVICES] {
            writeln!(text, "{}", add_map(family, table, map))?;
        }
        writeln!(text, "flush table {family} {table}")?;
        for map in [PORTS, SERVICES] {
            writeln!(text, "flush map {family} {table} {map}")?;
        }
        for (port, target) in &rules.ports {
            writeln!(text, "add element {family} {table} {PORTS} {{ {} }}", port_element(*port, target))?;
        }
        for (to, target) in &rules.services {
            writeln!(text, "add element {family} {table} {SERVICES} {{ {} }}", service_element(*to, target))?;
        }
        for rule in &rules.prerouting {
            self.prerouting(rule)?;
        }
        for rule in &rules.postrouting {
            self.postrouting(rule)?;
        }
        if rules.clamp {
            for side in ["oifname", "iifname"] {
                self.rule::<A>(
                    FORWARD.0,
                    &format!(
                        "{side} \"{}\" tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu",
                        self.tun
                    ),
                )?;
            }
        }
        Ok(())
    }

    fn prerouting<A: Address>(&mut self, rule: &Prerouting<A>) -> fmt::Result {
        let (family, tun) = (A::FAMILY, self.tun);
        let text = match rule {
            Prerouting::Exempt { port, label } => {
                format!("iifname != \"{tun}\" {} dport {} accept comment \"{label}\"", port.protocol, port.port)
            }
            Prerouting::Redirect { to, every: Some(every), target, label } => {
                format!("{family} daddr {to} numgen inc mod {every} 0 dnat to {target} comment \"{label}\"")
            }
            Prerouting::Redirect { to, every: None, target, label } => {
                format!("{family} daddr {to} dnat to {target} comment \"{label}\"")
            }
            Prerouting::Everything { target, label } => {
                format!("iifname != \"{tun}\" dnat to {target} comment \"{label}\"")
            }
            Prerouting::Ports => {
                format!("iifname != \"{tun}\" dnat {family} to meta l4proto . th dport map @{PORTS}")
            }
            Prerouting::Services => format!("dnat to {family} daddr map @{SERVICES}"),
        };
        self.rule::<A>(PRE.0, &text)
    }

    fn postrouting<A: Address>(&mut self, rule: &Postrouting<A>) -> fmt::Result {
        let family = A::FAMILY;
        let text = match rule {
            Postrouting::Towards { to, source, label } => {
                format!("{family} daddr {to} snat to {source} comment \"{label}\"")
            }
            Postrouting::Translated { source } => {
                format!("oifname \"{}\" ct status dnat snat to {source}", self.tun)
            }
        };
        self.rule::<A>(POST.0, &text)
    }

    fn rule<A: Address>(&mut self, chain: &str, rule: &str) -> fmt::Result {
        writeln!(self.text, "add rule {} {} {chain} {rule}", A::FAMILY, self.table)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;

    use super::*;
    use crate::netfilter::label::Label;
    use crate::netfilter::ruleset::{Interface, Port, PortTarget, Protocol, ServiceTarget, Table};

    fn rules(script: &str) -> Vec<&str> {
        let ours = |line: &&str| line.starts_with("add rule ip ") || line.starts_with("add element ip ");
        script.lines().filter(ours).map(|line| line.split_once(" tailpod_").unwrap().1).collect()
    }

    #[test]
    fn each_mode_in_nfts_words() {
        let (own, target) = (Ipv4Addr::new(100, 64, 0, 1), Ipv4Addr::new(100, 64, 0, 9));
        let clamp = |table: &str| {
            ["oifname", "iifname"].map(|side| {
                format!(
                    "{table} tp_fwd {side} \"tailscale0\" tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu"
                )
            })
        };

        let mut l3 = Ruleset::empty(Table::L3, Interface::default());
        let exempt = [(Port { protocol: Protocol::Tcp, port: 9002 }, "exempt local http")].into();
        l3.v4_mut().egress(own, target, &exempt, "egress");
        l3.v4_mut().local(Ipv4Addr::new(10, 42, 0, 2), own, "cluster-via-ingress");
        assert_eq!(
            rules(&render(&l3)),
            [
                "l3 tp_pre iifname != \"tailscale0\" tcp dport 9002 accept comment \"exempt local http\"",
                "l3 tp_pre iifname != \"tailscale0\" dnat to 100.64.0.9 comment \"egress\"",
                "l3 tp_pre ip daddr 10.42.0.2 dnat to 100.64.0.1 comment \"cluster-via-ingress\"",
                "l3 tp_post ip daddr 100.64.0.9 snat to 100.64.0.1 comment \"egress\"",
                &clamp("l3")[0],
                &clamp("l3")[1],
            ]
        );

        let mut egress = Ruleset::empty(Table::Egress, Interface::default());
        let label = Label::new("default-web:TCP:10001 -> TCP:80");
        let ports = [(Port { protocol: Protocol::Tcp, port: 10001 }, PortTarget { addr: target, port: 80, label })];
        egress.v4_mut().map_ports(own, ports.into());
        assert_eq!(
            rules(&render(&egress)),
            [
                "egress ports { tcp . 10001 comment \"default-web:TCP:10001 -> TCP:80\" : 100.64.0.9 . 80 }",
                "egress tp_pre iifname != \"tailscale0\" dnat ip to meta l4proto . th dport map @ports",
                "egress tp_post oifname \"tailscale0\" ct status dnat snat to 100.64.0.1",
                &clamp("egress")[0],
                &clamp("egress")[1],
            ]
        );

        let mut ingress = Ruleset::empty(Table::Ingress, Interface::default());
        let services = BTreeMap::from([(
            Ipv4Addr::new(100, 100, 1, 1),
            ServiceTarget { addr: Ipv4Addr::new(10, 42, 0, 11), label: Label::new("svc:web") },
        )]);
        ingress.v4_mut().map_services(services);
        assert_eq!(
            rules(&render(&ingress))[..2],
            [
                "ingress services { 100.100.1.1 comment \"svc:web\" : 10.42.0.11 }",
                "ingress tp_pre dnat to ip daddr map @services",
            ]
        );
    }
}
