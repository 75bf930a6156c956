//! Each mode, and what cannot be.

use std::collections::BTreeMap;

use super::*;
use crate::netfilter::script;
use crate::settings::{self, Persona};

fn ips(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|ip| ip.parse().unwrap()).collect()
}

fn plan(pairs: &[(&str, &str)]) -> Plan {
    let base = [("TS_USERSPACE", "false"), ("TAILPOD_EGRESS_EXEMPTIONS", "none")];
    let vars: BTreeMap<&str, &str> = base.iter().chain(pairs).copied().collect();
    Plan::of(&settings::read(&vars, Persona::Tailpod).unwrap_or_else(|problems| panic!("{problems}"))).unwrap()
}

const OWN: [&str; 2] = ["100.64.0.1", "fd7a:115c:a1e0::1"];

/// The NAT rules, without what every line has.
fn rules(desired: &Desired) -> Vec<String> {
    let script = script::render(&desired.ruleset);
    let rules = script.lines().filter_map(|line| line.strip_prefix("add rule ")?.split_once(" tailpod_l3 "));
    rules.filter(|(_, rule)| !rule.contains("maxseg")).map(|(_, rule)| rule.to_owned()).collect()
}

fn of(plan: &Plan, own: &[&str], backends: Option<&[&str]>, target: Option<&[&str]>) -> Result<Desired, Unable> {
    let backends = backends.map(|list| ips(list).into_iter().collect());
    let target = target.map(|list| Ok(ips(list)));
    desired(plan, &Known { own: &ips(own), target, backends: backends.as_ref(), ipv6: true })
}

/// Variables, backends, what the target stands for, and the rules.
type Case<'a> = (&'a [(&'a str, &'a str)], Option<&'a [&'a str]>, Option<&'a [&'a str]>, &'a [&'a str]);

#[test]
fn each_mode_translates_what_it_is_for() {
    let via = ("EXPERIMENTAL_ALLOW_PROXYING_CLUSTER_TRAFFIC_VIA_INGRESS", "true");
    let cases: &[Case<'_>] = &[
        (
            &[("TS_DEST_IP", "10.0.0.5")],
            None,
            None,
            &["tp_pre ip daddr 100.64.0.1 dnat to 10.0.0.5 comment \"ingress-ip\""],
        ),
        (
            &[("TS_DEST_IP", "fd00::5")],
            None,
            None,
            &["tp_pre ip6 daddr fd7a:115c:a1e0::1 dnat to fd00::5 comment \"ingress-ip\""],
        ),
        (
            &[("TS_EXPERIMENTAL_DEST_DNS_NAME", "h")],
            Some(&["10.0.0.2", "fd00::2", "10.0.0.1"]),
            None,
            &[
                "tp_pre ip daddr 100.64.0.1 numgen inc mod 2 0 dnat to 10.0.0.1 comment \"ingress-dns 1/2\"",
                "tp_pre ip daddr 100.64.0.1 dnat to 10.0.0.2 comment \"ingress-dns 2/2\"",
                "tp_pre ip6 daddr fd7a:115c:a1e0::1 dnat to fd00::2 comment \"ingress-dns\"",
            ],
        ),
        (
            &[("TS_TAILNET_TARGET_IP", "100.64.0.9")],
            None,
            None,
            &[
                "tp_pre iifname != \"tailscale0\" dnat to 100.64.0.9 comment \"egress\"",
                "tp_post ip daddr 100.64.0.9 snat to 100.64.0.1 comment \"egress\"",
            ],
        ),
        (
            &[("TS_TAILNET_TARGET_FQDN", "a.ts.net")],
            None,
            Some(&["100.64.0.8", "100.64.0.9"]),
            &[
                "tp_pre iifname != \"tailscale0\" dnat to 100.64.0.9 comment \"egress\"",
                "tp_post ip daddr 100.64.0.9 snat to 100.64.0.1 comment \"egress\"",
            ],
        ),
        (
            // The Pod's own addresses come before what takes everything.
            &[
                via,
                ("POD_IP", "10.0.0.7"),
                ("TS_SERVE_CONFIG", "/x"),
                ("TS_TAILNET_TARGET_IP", "100.64.0.9"),
                ("TS_TAILSCALED_EXTRA_ARGS", "--tun=tun7"),
            ],
            None,
            None,
            &[
                "tp_pre ip daddr 10.0.0.7 dnat to 100.64.0.1 comment \"cluster-via-ingress\"",
                "tp_pre iifname != \"tun7\" dnat to 100.64.0.9 comment \"egress\"",
                "tp_post ip daddr 100.64.0.9 snat to 100.64.0.1 comment \"egress\"",
            ],
        ),
    ];
    for (pairs, backends, target, expected) in cases {
        let desired = of(&plan(pairs), &OWN, *backends, *target).unwrap();
        assert_eq!(rules(&desired), *expected, "{pairs:?}");
    }
}

#[test]
fn the_order_of_answers_changes_nothing() {
    let plan = plan(&[("TS_EXPERIMENTAL_DEST_DNS_NAME", "h")]);
    let one = of(&plan, &OWN, Some(&["10.0.0.1", "10.0.0.2"]), None).unwrap();
    assert_eq!(of(&plan, &OWN, Some(&["10.0.0.2", "10.0.0.1"]), None).unwrap(), one);
    assert_eq!(one.story, ["installing ingress proxy rules for backends [10.0.0.1 10.0.0.2]"]);
    assert_ne!(of(&plan, &["100.64.0.2"], Some(&["10.0.0.1", "10.0.0.2"]), None).unwrap().ruleset, one.ruleset);
}

#[test]
fn every_address_of_the_pod_is_led_to_its_counterpart() {
    let via = ("EXPERIMENTAL_ALLOW_PROXYING_CLUSTER_TRAFFIC_VIA_INGRESS", "true");
    let plan = plan(&[via, ("TS_SERVE_CONFIG", "/x"), ("POD_IP", "10.0.0.7"), ("POD_IPS", "10.0.0.7,fd00::7")]);
    let both = of(&plan, &OWN, None, None).unwrap();
    assert_eq!(
        rules(&both),
        [
            "tp_pre ip daddr 10.0.0.7 dnat to 100.64.0.1 comment \"cluster-via-ingress\"",
            "tp_pre ip6 daddr fd00::7 dnat to fd7a:115c:a1e0::1 comment \"cluster-via-ingress\"",
        ]
    );
    assert_eq!(of(&plan, &OWN[..1], None, None).unwrap().story.len(), 1, "one family is better than none");
}

#[test]
fn our_own_ports_stay_ours() {
    let vars = BTreeMap::from([
        ("TS_USERSPACE", "false"),
        ("TS_TAILNET_TARGET_IP", "100.64.0.9"),
        ("TS_ENABLE_HEALTH_CHECK", "true"),
        ("TS_DEBUG_ADDR_PORT", "127.0.0.1:9001"),
        ("PORT", "41641"),
    ]);
    let plan = Plan::of(&settings::read(&vars, Persona::Tailpod).unwrap()).unwrap();
    assert_eq!(
        rules(&of(&plan, &OWN, None, None).unwrap())[..4],
        [
            "tp_pre iifname != \"tailscale0\" tcp dport 9001 accept comment \"exempt debug\"",
            "tp_pre iifname != \"tailscale0\" tcp dport 9002 accept comment \"exempt local http\"",
            "tp_pre iifname != \"tailscale0\" udp dport 41641 accept comment \"exempt wireguard\"",
            "tp_pre iifname != \"tailscale0\" dnat to 100.64.0.9 comment \"egress\"",
        ]
    );
}

#[test]
fn what_cannot_be_is_said_in_upstreams_words() {
    let unable = |pairs: &[(&str, &str)], own: &[&str], target: Option<&[&str]>, ipv6| {
        let target = target.map(|list| Ok(ips(list)));
        desired(&plan(pairs), &Known { own: &ips(own), target, backends: None, ipv6 }).unwrap_err()
    };
    let none = "no tailscale IP matching family of fd00::5 found in [100.64.0.1/32]: the node has no IPv6 address";
    let fqdn = ("TS_TAILNET_TARGET_FQDN", "a.ts.net");
    for (pair, target, ipv6, expected) in [
        (("TS_DEST_IP", "fd00::5"), None, true, format!("installing ingress proxy rules: {none}")),
        (("TS_TAILNET_TARGET_IP", "fd00::5"), None, true, format!("installing egress proxy rules: {none}")),
        (
            ("TS_DEST_IP", "fd00::5"),
            None,
            false,
            "installing ingress proxy rules: fd00::5 is an IPv6 address, and this host supports no IPv6 NAT".to_owned(),
        ),
        (
            fqdn,
            Some(&["::1"][..]),
            false,
            "no forwarding rules for egress addresses [::1/128], host supports IPv6: false".to_owned(),
        ),
        (fqdn, Some(&["fd00::5"]), true, format!("installing egress proxy rules for destination fd00::5: {none}")),
    ] {
        assert_eq!(unable(&[pair], &OWN[..1], target, ipv6), Unable::Ever(expected), "{pair:?}");
    }
    let yet = unable(&[("TS_EXPERIMENTAL_DEST_DNS_NAME", "h")], &OWN, None, true);
    assert_eq!(yet, Unable::Yet("no address is known yet for h".to_owned()));
    assert!(matches!(unable(&[("TS_DEST_IP", "10.0.0.5")], &[], None, true), Unable::Yet(_)));
}

#[test]
fn a_target_with_a_family_that_the_node_lacks_uses_the_other() {
    let plan = plan(&[("TS_TAILNET_TARGET_FQDN", "a.ts.net")]);
    let desired = of(&plan, &OWN[..1], None, Some(&["100.64.0.9", "fd7a::9"])).unwrap();
    assert_eq!(desired.story, ["Installing forwarding rules for destination 100.64.0.9"]);
    assert!(!desired.ruleset.uses(Family::V6));
}
