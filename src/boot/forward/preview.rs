//! The rules that a boot would install, as far as they are known before it has begun. Pure.
//!
//! What only the tailnet or DNS can say stands in them as a word in angle brackets.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::wanted::{Known, Plan, desired};
use crate::netfilter::ruleset::Family;
use crate::netfilter::script;
use crate::settings::{Egress, Ingress};

/// Addresses that nobody has (RFC 5737, RFC 3849), to be replaced by words.
const fn stand_in(nth: u8) -> [IpAddr; 2] {
    [
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, 200 + nth)),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 200 + nth as u16)),
    ]
}

const OWN: [IpAddr; 2] = stand_in(1);
const TARGET: [IpAddr; 2] = stand_in(2);
const BACKEND: [IpAddr; 2] = stand_in(3);

/// The script, a family for each that has anything in it; `None` when the node has no rules of its own.
pub fn preview(plan: &Plan) -> Option<String> {
    if !plan.forward.has_own_rules() {
        return None;
    }
    let backends: BTreeSet<IpAddr> = BACKEND.into();
    let known = Known { own: &OWN, target: Some(Ok(TARGET.into())), backends: Some(&backends), ipv6: true };
    let ruleset = desired(plan, &known).ok()?.ruleset;
    let mut text = String::new();
    if ruleset.uses(Family::V4) {
        text.push_str(&script::render_family(&ruleset, ruleset.v4()));
    }
    if ruleset.uses(Family::V6) {
        text.push_str(&script::render_family(&ruleset, ruleset.v6()));
    }
    let target = match &plan.forward.egress {
        Some(Egress::Fqdn(name)) => name.without_dot(),
        _ => "",
    };
    let backend = match &plan.forward.ingress {
        Some(Ingress::Dns(name)) => name.as_str(),
        _ => "",
    };
    for (stand_ins, of) in [(OWN, "the node"), (TARGET, target), (BACKEND, backend)] {
        for ip in stand_ins {
            text = text.replace(&ip.to_string(), &format!("<{} of {of}>", Family::of(ip).title()));
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::settings::{self, Persona};

    #[test]
    fn what_is_not_known_yet_is_a_word() {
        let rules = |pairs: &[(&str, &str)]| {
            let vars: BTreeMap<&str, &str> = pairs.iter().copied().chain([("TS_USERSPACE", "false")]).collect();
            let plan = Plan::of(&settings::read(&vars, Persona::Tailpod).unwrap()).unwrap();
            preview(&plan).map(|text| {
                let nat = text.lines().filter(|line| line.starts_with("add rule") && !line.contains("maxseg"));
                nat.map(str::to_owned).collect::<Vec<_>>()
            })
        };
        assert_eq!(rules(&[]), None);
        assert_eq!(
            rules(&[("TS_DEST_IP", "10.0.0.5")]).unwrap(),
            ["add rule ip tailpod_l3 tp_pre ip daddr <IPv4 of the node> dnat to 10.0.0.5 comment \"ingress-ip\""]
        );
        assert_eq!(
            rules(&[("TS_EXPERIMENTAL_DEST_DNS_NAME", "db.prod"), ("TS_TAILNET_TARGET_FQDN", "a.ts.net")]).unwrap(),
            [
                "add rule ip tailpod_l3 tp_pre ip daddr <IPv4 of the node> dnat to <IPv4 of db.prod> comment \"ingress-dns\"",
                "add rule ip tailpod_l3 tp_pre iifname != \"tailscale0\" dnat to <IPv4 of a.ts.net> comment \"egress\"",
                "add rule ip tailpod_l3 tp_post ip daddr <IPv4 of a.ts.net> snat to <IPv4 of the node> comment \"egress\"",
                "add rule ip6 tailpod_l3 tp_pre ip6 daddr <IPv6 of the node> dnat to <IPv6 of db.prod> comment \"ingress-dns\"",
                "add rule ip6 tailpod_l3 tp_pre iifname != \"tailscale0\" dnat to <IPv6 of a.ts.net> comment \"egress\"",
                "add rule ip6 tailpod_l3 tp_post ip6 daddr <IPv6 of a.ts.net> snat to <IPv6 of the node> comment \"egress\"",
            ]
        );
    }
}
