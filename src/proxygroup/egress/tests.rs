use std::time::Duration;

use super::*;
use crate::netfilter::ruleset::Protocol;

const POD: PodIps = PodIps { ipv4: Some(IpAddr::V4(Ipv4Addr::new(10, 42, 0, 7))), ipv6: None };

/// A world in which some names resolve.
#[derive(Clone, Default)]
struct World {
    own: Vec<IpAddr>,
    names: BTreeMap<String, Vec<IpAddr>>,
    without_ipv6: bool,
    draining: bool,
}

fn ips(list: &str) -> Vec<IpAddr> {
    list.split_whitespace().map(|ip| ip.parse().unwrap()).collect()
}

fn world(own: &str, names: &[(&str, &str)]) -> World {
    let names = names.iter().map(|(name, list)| ((*name).to_owned(), ips(list))).collect();
    World { own: ips(own), names, ..World::default() }
}

impl World {
    fn render(&self, group: &mut Egress, now: Instant) -> Option<Desired<Status>> {
        let resolve = |name: &str| self.names.get(name).cloned().ok_or_else(|| "no such peer".to_owned());
        let view = View { own: &self.own, ipv6: !self.without_ipv6, draining: self.draining, resolve: &resolve };
        group.render(&view, now)
    }

    fn desired(&self, group: &mut Egress) -> Desired<Status> {
        self.render(group, Instant::now()).unwrap()
    }
}

fn group(config: &str) -> Egress {
    let mut group = Egress::new(Interface::default(), POD);
    group.configure(config.as_bytes()).unwrap();
    group
}

fn service(target: &str, ports: &[(&str, u16, u16)]) -> String {
    let ports = ports
        .iter()
        .map(|(protocol, from, to)| format!(r#"{{"protocol":"{protocol}","matchPort":{from},"targetPort":{to}}}"#));
    let (ip, fqdn) = if target.parse::<IpAddr>().is_ok() { (target, "") } else { ("", target) };
    let ports = ports.collect::<Vec<_>>().join(",");
    format!(r#"{{"tailnetTarget":{{"ip":"{ip}","fqdn":"{fqdn}"}},"ports":[{ports}]}}"#)
}

fn config(services: &[(&str, String)]) -> String {
    let services: Vec<_> = services.iter().map(|(name, service)| format!("\"{name}\":{service}")).collect();
    format!("{{{}}}", services.join(","))
}

/// `tcp 10345 -> 100.64.0.2:80`
fn rules(desired: &Desired<Status>) -> Vec<String> {
    let v4 = desired.ruleset.v4().ports.iter();
    let v4 = v4.map(|(port, to)| format!("{} {} -> {}:{}", port.protocol, port.port, to.addr, to.port));
    let v6 = desired.ruleset.v6().ports.iter();
    let v6 = v6.map(|(port, to)| format!("{} {} -> [{}]:{}", port.protocol, port.port, to.addr, to.port));
    v4.chain(v6).collect()
}

fn reported(desired: &Desired<Status>, name: &str) -> String {
    let served = desired.status.service(name).unwrap();
    format!("{} / {}", addresses(Some(served)), ports(&served.ports))
}

#[test]
fn a_name_leads_to_the_first_address_of_each_family() {
    let mut group = group(&config(&[("web", service("web.ts.net", &[("TCP", 10345, 80), ("udp", 10345, 53)]))]));
    let names = [("web.ts.net", "fd7a::3 100.64.0.9 fd7a::2 100.64.0.2")];
    let desired = world("100.64.0.1 fd7a::1", &names).desired(&mut group);
    let wanted = [
        "tcp 10345 -> 100.64.0.2:80",
        "udp 10345 -> 100.64.0.2:53",
        "tcp 10345 -> [fd7a::2]:80",
        "udp 10345 -> [fd7a::2]:53",
    ];
    assert_eq!(rules(&desired), wanted);
    assert_eq!(reported(&desired, "web"), "100.64.0.2 fd7a::2 / TCP 10345 to 80, udp 10345 to 53");
    assert_eq!((desired.services, desired.unresolved, desired.mappings()), (1, 0, 4));
    assert_eq!(desired.problems, Vec::<String>::new());
    let shuffled = [("web.ts.net", "100.64.0.2 100.64.0.9 fd7a::2 fd7a::3")];
    assert_eq!(world("100.64.0.1 fd7a::1", &shuffled).desired(&mut group), desired, "order means nothing");
}

#[test]
fn nothing_is_said_while_the_node_has_no_addresses() {
    let mut group = group(&config(&[("web", service("100.64.0.9", &[("TCP", 10345, 80)]))]));
    assert_eq!(world("", &[]).render(&mut group, Instant::now()), None);
}

#[test]
fn own_addresses_are_the_source() {
    let mut group = group(&config(&[("web", service("100.64.0.9", &[("TCP", 10345, 80)]))]));
    let first = world("100.64.0.1", &[]).desired(&mut group);
    let second = world("100.64.0.7", &[]).desired(&mut group);
    assert_ne!(first.ruleset, second.ruleset);
    assert_eq!(first.status, second.status, "nothing that the operator could see");
    let sources: Vec<_> = second.ruleset.v4().postrouting.iter().map(|rule| format!("{rule:?}")).collect();
    assert_eq!(sources, ["Translated { source: 100.64.0.7 }"], "exactly one");
}

#[test]
fn a_target_that_is_nowhere_is_reported_without_addresses() {
    let mut group = group(&config(&[
        ("dead", service("dead.ts.net", &[("TCP", 10001, 1)])),
        ("web", service("100.64.0.9", &[("TCP", 10345, 80)])),
    ]));
    let desired = world("100.64.0.1", &[]).desired(&mut group);
    assert_eq!(rules(&desired), ["tcp 10345 -> 100.64.0.9:80"]);
    assert_eq!(reported(&desired, "dead"), "nowhere / TCP 10001 to 1");
    assert_eq!(desired.unresolved, 1);
    assert_eq!(desired.problems, [r#"egress service "dead": its target is not there: no such peer"#]);
}

#[test]
fn a_target_that_vanishes_keeps_its_rules_for_a_minute() {
    let mut group = group(&config(&[("web", service("web.ts.net", &[("TCP", 10345, 80)]))]));
    let (here, gone, start) =
        (world("100.64.0.1", &[("web.ts.net", "100.64.0.2")]), world("100.64.0.1", &[]), Instant::now());
    let first = here.render(&mut group, start).unwrap();
    let away = gone.render(&mut group, start).unwrap();
    assert_eq!((&away.ruleset, &away.status), (&first.ruleset, &first.status));
    assert_eq!(away.again, Some(start + targets::GRACE));
    assert_eq!((away.unresolved, away.problems.len()), (0, 1));
    let late = gone.render(&mut group, start + Duration::from_secs(60)).unwrap();
    assert_eq!((rules(&late), late.unresolved, late.again), (Vec::new(), 1, None));
    assert!(late.ruleset.is_empty());
}

#[test]
fn ipv6_needs_a_host_that_can_translate_it_and_an_address_of_ones_own() {
    let services = [
        ("six", service("fd7a::9", &[("TCP", 10001, 1)])),
        ("both", service("both.ts.net", &[("TCP", 10002, 2)])),
        ("four", service("100.64.0.9", &[("TCP", 10003, 3)])),
    ];
    let names = [("both.ts.net", "100.64.0.2 fd7a::2")];
    let mut group = group(&config(&services));
    let without = World { without_ipv6: true, ..world("100.64.0.1 fd7a::1", &names) }.desired(&mut group);
    assert_eq!(rules(&without), ["tcp 10002 -> 100.64.0.2:2", "tcp 10003 -> 100.64.0.9:3"]);
    assert_eq!(reported(&without, "six"), "nowhere / TCP 10001 to 1");
    assert_eq!(without.problems, [r#"egress service "six": fd7a::9 is IPv6, which this host cannot translate"#]);
    let no_own = world("100.64.0.1", &names).desired(&mut group);
    assert_eq!(rules(&no_own), rules(&without));
    assert_eq!(
        no_own.problems,
        [r#"egress service "six": it leads to [fd7a::9], and this node has only [100.64.0.1]"#]
    );
    let only_six = world("fd7a::1", &names).desired(&mut group);
    assert_eq!(rules(&only_six), ["tcp 10001 -> [fd7a::9]:1", "tcp 10002 -> [fd7a::2]:2"]);
    assert_eq!(only_six.unresolved, 1);
    assert_eq!(
        only_six.problems,
        [r#"egress service "four": it leads to [100.64.0.9], and this node has only [fd7a::1]"#]
    );
}

#[test]
fn a_port_that_two_claim_belongs_to_the_first_by_name() {
    let mut group = group(&config(&[
        ("b", service("100.64.0.9", &[("tcp", 10001, 9), ("UDP", 10001, 9)])),
        ("a", service("100.64.0.8", &[("TCP", 10001, 8)])),
        ("c", service("100.64.0.7", &[("TCP", 10007, 1), ("TCP", 10007, 2)])),
    ]));
    let desired = world("100.64.0.1", &[]).desired(&mut group);
    let wanted = ["tcp 10001 -> 100.64.0.8:8", "tcp 10007 -> 100.64.0.7:1", "udp 10001 -> 100.64.0.9:9"];
    assert_eq!(rules(&desired), wanted);
    // Reported in full, the operator would send clients of the one to the other.
    assert_eq!(reported(&desired, "b"), "100.64.0.9 / UDP 10001 to 9");
    assert_eq!(
        desired.problems,
        [r#"egress service "b": tcp 10001 belongs to "a""#, r#"egress service "c": TCP 10007 belongs to "c""#]
    );
}

#[test]
fn what_is_removed_during_a_drain_serves_until_its_end() {
    let both = config(&[
        ("a", service("100.64.0.8", &[("TCP", 10001, 8)])),
        ("b", service("b.ts.net", &[("TCP", 10002, 9), ("TCP", 10003, 9)])),
    ]);
    let mut group = group(&both);
    let calm = world("100.64.0.1", &[("b.ts.net", "100.64.0.9")]);
    let drained = World { draining: true, ..calm.clone() };
    calm.desired(&mut group);
    // Its second port goes to another at once.
    let without = config(&[("a", service("100.64.0.8", &[("TCP", 10001, 8), ("TCP", 10003, 7)]))]);
    group.configure(without.as_bytes()).unwrap();
    let during = drained.desired(&mut group);
    let wanted = ["tcp 10001 -> 100.64.0.8:8", "tcp 10002 -> 100.64.0.9:9", "tcp 10003 -> 100.64.0.8:7"];
    assert_eq!(rules(&during), wanted);
    assert_eq!(during.status.service("b"), None, "the report is of what is wanted");
    assert_eq!((during.services, during.problems.len()), (1, 0));
    assert_eq!(rules(&drained.desired(&mut group)), wanted, "for as long as it takes");
    assert_eq!(rules(&calm.desired(&mut group)), ["tcp 10001 -> 100.64.0.8:8", "tcp 10003 -> 100.64.0.8:7"]);
    assert_eq!(rules(&drained.desired(&mut group)).len(), 2, "gone is gone");
}

#[test]
fn no_config_and_an_empty_one_ask_for_nothing() {
    let mut group = group(&config(&[("a", service("100.64.0.8", &[("TCP", 10001, 8)]))]));
    for nothing in ["", "{}"] {
        group.configure(nothing.as_bytes()).unwrap();
        let desired = world("100.64.0.1", &[]).desired(&mut group);
        assert!(desired.ruleset.is_empty());
        assert!(Egress::is_empty(&desired.status));
        assert_eq!(serde_json::to_string(&*desired.status).unwrap(), r#"{"podIPv4":"10.42.0.7","services":null}"#);
    }
    assert!(group.configure(b"{").is_err());
}

#[test]
fn odd_names_reach_the_kernel_in_plain_letters() {
    let name = format!("a.b_c-ü\\u0022{}", "x".repeat(118));
    let mut group = group(&config(&[(&name, service("100.64.0.8", &[("TCP", 10001, 8)]))]));
    let desired = world("100.64.0.1", &[]).desired(&mut group);
    let port = Port { protocol: Protocol::Tcp, port: 10001 };
    let label = desired.ruleset.v4().ports[&port].label.as_str().to_owned();
    assert!(label.starts_with("a.b_c-__xxx") && label.len() == 128, "{label}");
    assert_eq!(desired.status.services().next().unwrap().0.chars().count(), 126, "reported as it is");
}

#[test]
fn each_service_that_differs_is_one_line() {
    let names = |ip| [("web.ts.net", ip)];
    let mut group = group(&config(&[
        ("web", service("web.ts.net", &[("TCP", 10345, 80)])),
        ("dns", service("100.64.0.9", &[("UDP", 10053, 53)])),
    ]));
    let first = world("100.64.0.1", &names("100.64.0.2")).desired(&mut group).status;
    assert_eq!(
        Egress::changes(None, &first),
        [
            r#"egress service "dns": nowhere -> 100.64.0.9, UDP 10053 to 53"#,
            r#"egress service "web": nowhere -> 100.64.0.2, TCP 10345 to 80"#,
        ]
    );
    let second = world("100.64.0.1", &names("100.64.0.3")).desired(&mut group).status;
    assert_eq!(
        Egress::changes(Some(&first), &second),
        [r#"egress service "web": 100.64.0.2 -> 100.64.0.3, TCP 10345 to 80"#]
    );
    group.configure(config(&[("web", service("web.ts.net", &[]))]).as_bytes()).unwrap();
    let third = world("100.64.0.1", &names("100.64.0.3")).desired(&mut group).status;
    assert_eq!(
        Egress::changes(Some(&second), &third),
        [r#"egress service "web": 100.64.0.3, no ports"#, r#"egress service "dns": gone"#]
    );
}

/// 1,000 port maps over 50 Services (scenario 27), and a hundred times that: rendering is no part of what takes time.
#[test]
fn a_thousand_ports_render_at_once() {
    let services: Vec<(String, String)> = (0..50_u16)
        .map(|nth| {
            let ports: Vec<_> = (0..20).map(|port| ("TCP", 10_000 + nth * 20 + port, 80)).collect();
            (format!("s{nth}"), service(&format!("p{nth}.ts.net"), &ports))
        })
        .collect();
    let services: Vec<_> = services.iter().map(|(name, service)| (name.as_str(), service.clone())).collect();
    let names: Vec<(String, String)> =
        (0..50).map(|nth| (format!("p{nth}.ts.net"), format!("100.64.1.{nth}"))).collect();
    let names: Vec<_> = names.iter().map(|(name, ip)| (name.as_str(), ip.as_str())).collect();
    let desired = world("100.64.0.1", &names).desired(&mut group(&config(&services)));
    assert_eq!((desired.services, desired.mappings(), desired.problems.len()), (50, 1000, 0));
}
