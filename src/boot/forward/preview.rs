//! The rules that a boot would install, as far as they are known before it has begun. Pure.
//!
//! What only the tailnet or DNS can say stands in them as words in angle brackets.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::wanted::{Known, Plan, desired};
use crate::causes::chain;
use crate::fqdn::Fqdn;
use crate::netfilter::ruleset::{Family, Ruleset};
use crate::netfilter::script;
use crate::proxygroup::once::{self, ConfigFile};
use crate::proxygroup::plan::View;
use crate::settings::{Egress, Ingress};

/// What would be installed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preview {
    /// The scripts, a family of a table for each that has anything in it; `None` when nothing is asked for.
    pub rules: Option<String>,
    /// What of the groups' configs would not be served.
    pub warnings: Vec<String>,
    /// Which of them are none.
    pub problems: Vec<String>,
}

/// What these settings and the configs of their groups come to.
pub fn preview(plan: &Plan, configs: &[ConfigFile]) -> Preview {
    let (words, mut preview) = (Words::default(), Preview::default());
    if !plan.forward.has_own_rules() && configs.is_empty() {
        return preview;
    }
    let own = words.stand_for("the node");
    let mut text = own_rules(plan, &words, &own).map(|ruleset| render(&ruleset)).unwrap_or_default();
    let resolve = |name: &str| -> Result<Vec<IpAddr>, String> {
        let name: Fqdn = name.parse().map_err(|error| chain(&error))?;
        Ok(words.stand_for(name.without_dot()))
    };
    let view = View { own: &own, ipv6: true, draining: false, resolve: &resolve };
    for ConfigFile { kind, path, content } in configs {
        let (kind, named, path) = (*kind, kind.as_str(), path.display());
        let content = match content {
            Ok(content) => content,
            Err(error) => {
                preview.problems.push(format!("{named} services: `{path}` cannot be read: {error}"));
                continue;
            }
        };
        match once::ask(kind, content, &plan.tun, &view) {
            Ok(Some(asked)) => {
                if asked.services == 0 {
                    preview.warnings.push(format!("{named} services: there are none in `{path}` yet"));
                }
                preview.warnings.extend(asked.problems);
                text.push_str(&render(&asked.ruleset));
            }
            Ok(None) => {}
            Err(error) => {
                preview.problems.push(format!("{named} services: `{path}` is no config: {}", chain(&error)));
            }
        }
    }
    preview.rules = (!text.is_empty()).then(|| words.spell(&text));
    preview
}

fn own_rules(plan: &Plan, words: &Words, own: &[IpAddr]) -> Option<Ruleset> {
    if !plan.forward.has_own_rules() {
        return None;
    }
    let target = match &plan.forward.egress {
        Some(Egress::Fqdn(name)) => Some(Ok(words.stand_for(name.without_dot()))),
        _ => None,
    };
    let backends = match &plan.forward.ingress {
        Some(Ingress::Dns(name)) => Some(words.stand_for(name).into_iter().collect()),
        _ => None,
    };
    let known = Known { own, target, backends: backends.as_ref(), ipv6: true };
    Some(desired(plan, &known).ok()?.ruleset)
}

fn render(ruleset: &Ruleset) -> String {
    let mut text = String::new();
    if ruleset.uses(Family::V4) {
        text.push_str(&script::render_family(ruleset, ruleset.v4()));
    }
    if ruleset.uses(Family::V6) {
        text.push_str(&script::render_family(ruleset, ruleset.v6()));
    }
    text
}

/// Names, each with addresses that nobody can have (RFC 1112's class E, RFC 3849) until it is put in their place.
#[derive(Default)]
struct Words(RefCell<Names>);

#[derive(Default)]
struct Names {
    numbers: BTreeMap<String, u32>,
    /// By number.
    names: Vec<String>,
}

const FIRST_V4: u32 = 0xf000_0000;
const FIRST_V6: u128 = 0x2001_0db8_ffff_ffff_ffff_ffff << 32;

impl Words {
    fn stand_for(&self, name: &str) -> Vec<IpAddr> {
        let Names { numbers, names } = &mut *self.0.borrow_mut();
        let number = *numbers.entry(name.to_owned()).or_insert_with(|| {
            names.push(name.to_owned());
            u32::try_from(names.len() - 1).unwrap_or_default()
        });
        let (v4, v6) = (FIRST_V4 | number, FIRST_V6 | u128::from(number));
        vec![Ipv4Addr::from(v4).into(), Ipv6Addr::from(v6).into()]
    }

    fn spell(&self, text: &str) -> String {
        let names = &self.0.borrow().names;
        let spelled = text.split_inclusive([' ', '\n']).map(|piece| {
            let word = piece.trim_end();
            match word.parse().ok().and_then(|ip| name_of(names, ip)) {
                Some(named) => format!("{named}{}", &piece[word.len()..]),
                None => piece.to_owned(),
            }
        });
        spelled.collect()
    }
}

fn name_of(names: &[String], ip: IpAddr) -> Option<String> {
    let number = match ip {
        IpAddr::V4(v4) => u32::from(v4).checked_sub(FIRST_V4)?.into(),
        IpAddr::V6(v6) => u128::from(v6).checked_sub(FIRST_V6)?,
    };
    let name = names.get(usize::try_from(number).ok()?)?;
    Some(format!("<{} of {name}>", Family::of(ip).title()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::proxygroup::plan::Kind;
    use crate::settings::{self, Persona};

    #[test]
    fn groups_are_shown_from_their_configs_as_they_are() {
        let shown = |kind, content: &[u8]| {
            let var = match kind {
                Kind::Egress => "TS_EGRESS_PROXIES_CONFIG_PATH",
                Kind::Ingress => "TS_INGRESS_PROXIES_CONFIG_PATH",
            };
            let vars = BTreeMap::from([("KUBERNETES_SERVICE_HOST", "h"), ("TS_USERSPACE", "false"), (var, "/c")]);
            let settings = settings::read(&vars, Persona::Tailpod).unwrap();
            let file = ConfigFile { kind, path: "/c/x".into(), content: Ok(content.to_vec()) };
            let preview = preview(&Plan::of(&settings).unwrap(), &[file]);
            let nat = |text: &String| {
                let ours = text.lines().filter(|line| !line.contains("maxseg") && !line.contains(" { type "));
                ours.filter_map(|line| Some(line.strip_prefix("add ")?.to_owned())).collect::<Vec<_>>()
            };
            (preview.rules.as_ref().map(nat).unwrap_or_default(), preview.warnings, preview.problems)
        };
        let egress = br#"{"db": {"tailnetTarget": {"fqdn": "db.x.ts.net."}, "ports": [
              {"protocol": "TCP", "matchPort": 10001, "targetPort": 5432}]},
            "odd": {"tailnetTarget": {}}}"#;
        let (rules, warnings, problems) = shown(Kind::Egress, egress);
        let family = |ip: &str, named: &str| {
            [
                format!("table {ip} tailpod_egress"),
                format!(
                    "element {ip} tailpod_egress ports {{ tcp . 10001 comment \"db:TCP:10001 -> TCP:5432\" : <{named} of \
                     db.x.ts.net> . 5432 }}"
                ),
                format!(
                    "rule {ip} tailpod_egress tp_pre iifname != \"tailscale0\" dnat {ip} to meta l4proto . th dport map \
                     @ports"
                ),
                format!(
                    "rule {ip} tailpod_egress tp_post oifname \"tailscale0\" ct status dnat snat to <{named} of the node>"
                ),
            ]
        };
        assert_eq!(rules, [family("ip", "IPv4"), family("ip6", "IPv6")].concat());
        let left_out = "egress service \"odd\" is left out: neither tailnetTarget.ip nor tailnetTarget.fqdn is set";
        assert_eq!((warnings, problems), (vec![left_out.to_owned()], Vec::new()));

        let ingress = br#"{"svc:a": {"IPv4Mapping": {"TailscaleServiceIP": "100.100.1.1", "ClusterIP": "10.43.7.9"}}}"#;
        let (rules, ..) = shown(Kind::Ingress, ingress);
        let leads = "element ip tailpod_ingress services { 100.100.1.1 comment \"svc:a 100.100.1.1 -> 10.43.7.9\" : 10.43.7.9 }";
        assert_eq!(rules[1], leads);
        let (rules, warnings, problems) = shown(Kind::Ingress, b"");
        assert_eq!((rules, problems), (Vec::new(), Vec::new()));
        assert_eq!(warnings, ["ingress services: there are none in `/c/x` yet"]);
        let (rules, warnings, problems) = shown(Kind::Ingress, b"{");
        assert_eq!((rules, warnings), (Vec::new(), Vec::new()));
        assert!(
            problems[0].starts_with("ingress services: `/c/x` is no config: it is not a JSON object"),
            "{problems:?}"
        );
    }

    #[test]
    fn every_name_has_words_of_its_own() {
        let words = Words::default();
        let ips: Vec<_> = (0..70_000).flat_map(|nth| words.stand_for(&format!("n{nth}"))).collect();
        let text = format!("to {}\n", [ips[3], ips[20], ips[21], ips[139_999]].map(|ip| ip.to_string()).join(" "));
        assert_eq!(words.spell(&text), "to <IPv6 of n1> <IPv4 of n10> <IPv6 of n10> <IPv6 of n69999>\n");
        assert_eq!(words.spell("255.0.0.1 2001:db8::1"), "255.0.0.1 2001:db8::1");
    }

    #[test]
    fn what_is_not_known_yet_is_a_word() {
        let rules = |pairs: &[(&str, &str)]| {
            let vars: BTreeMap<&str, &str> = pairs.iter().copied().chain([("TS_USERSPACE", "false")]).collect();
            let plan = Plan::of(&settings::read(&vars, Persona::Tailpod).unwrap()).unwrap();
            preview(&plan, &[]).rules.map(|text| {
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
