//! An ingress group: addresses of Tailscale Services lead to addresses in the cluster (ha-services.md 6, netfilter.md
//! 5.7). Pure.

pub mod config;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use self::config::{Config, Mapping, Service};
use super::plan::{Desired, Invalid, Kind, Plan, PodIps, View};
use crate::netfilter::label::Label;
use crate::netfilter::ruleset::{Interface, Ruleset, ServiceTarget};

/// How long an address that left the config is still served: the tailnet routes clients here for some seconds more.
pub const LINGER: Duration = Duration::from_secs(15);

/// The group as this replica knows it.
#[derive(Debug)]
pub struct Ingress {
    tun: Interface,
    pod: PodIps,
    config: Config,
    linger: Duration,
    /// What rules led where at the last look.
    led: BTreeMap<IpAddr, Way>,
    /// What left the config, and when it goes.
    lingering: BTreeMap<IpAddr, (Way, Instant)>,
}

/// Where an address leads, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Way {
    name: String,
    to: IpAddr,
}

/// What the operator reads: Secret key `ingress-config.json` (ha-services.md 6.2). It compares the configs with its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    configs: BTreeMap<String, Service>,
    #[serde(rename = "podIPv4", skip_serializing_if = "Option::is_none")]
    pod_ipv4: Option<IpAddr>,
    #[serde(rename = "podIPv6", skip_serializing_if = "Option::is_none")]
    pod_ipv6: Option<IpAddr>,
}

impl Ingress {
    /// A group without a config yet, behind this device and in this Pod. What leaves a config later is served for
    /// `linger` more.
    pub fn new(tun: Interface, pod: PodIps, linger: Duration) -> Self {
        let (led, lingering) = (BTreeMap::new(), BTreeMap::new());
        Self { tun, pod, config: Config::default(), linger, led, lingering }
    }

    /// Where every address of the config leads, and what may be reported.
    fn ways(&self, ipv6: bool, problems: &mut Vec<String>) -> (BTreeMap<IpAddr, Way>, BTreeMap<String, Service>) {
        let (mut ways, mut configs) = (BTreeMap::<IpAddr, Way>::new(), BTreeMap::new());
        for (name, service) in &self.config.services {
            let mut problem = |text: String| problems.push(format!("ingress service {name:?}: {text}"));
            let (mut own, mut taken) = (0, false);
            for mapping in service.mappings() {
                let (from, to) = match usable(mapping, ipv6) {
                    Ok(way) => way,
                    Err(why) => {
                        problem(why);
                        continue;
                    }
                };
                if let Some(owner) = ways.get(&from) {
                    problem(format!("{from} belongs to {:?}", owner.name));
                    taken = true;
                } else {
                    ways.insert(from, Way { name: name.clone(), to });
                    own += 1;
                }
            }
            // The operator wants its own words back, those included that nobody can serve; but what leads elsewhere, or
            // nowhere at all, must not be advertised from here.
            if own > 0 && !taken {
                configs.insert(name.clone(), service.clone());
            } else if !taken {
                problem("it has no address that can be served, so it is not reported".to_owned());
            }
        }
        (ways, configs)
    }
}

/// The two addresses of a mapping; why there can be no rule for it.
fn usable(mapping: Mapping, ipv6: bool) -> Result<(IpAddr, IpAddr), String> {
    let (Some(from), Some(to)) = (mapping.service, mapping.cluster) else {
        let text = |ip: Option<IpAddr>| ip.map_or_else(|| "nothing".to_owned(), |ip| ip.to_string());
        return Err(format!("{} to {} cannot be served", text(mapping.service), text(mapping.cluster)));
    };
    if from.is_ipv4() != to.is_ipv4() {
        return Err(format!("{from} to {to} would lead from one address family into the other"));
    }
    if from.is_ipv6() && !ipv6 {
        return Err(format!("{from} is IPv6, which this host cannot translate"));
    }
    Ok((from, to))
}

impl Plan for Ingress {
    type Status = Status;

    const KIND: Kind = Kind::Ingress;

    fn configure(&mut self, text: &[u8]) -> Result<(), Invalid> {
        self.config = Config::parse(text)?.unwrap_or_default();
        Ok(())
    }

    fn render(&mut self, view: &View<'_>, now: Instant) -> Option<Desired<Status>> {
        let mut problems = self.config.problems.clone();
        let (ways, configs) = self.ways(view.ipv6, &mut problems);
        for (from, way) in std::mem::replace(&mut self.led, ways.clone()) {
            self.lingering.insert(from, (way, now + self.linger));
        }
        self.lingering.retain(|from, (_, until)| !ways.contains_key(from) && now < *until);
        // What leaves now is seen once; what has left before keeps its time.
        let lingering = self.lingering.iter().map(|(from, (way, _))| (*from, way.clone()));
        let (mut v4, mut v6) = (BTreeMap::new(), BTreeMap::new());
        for (from, Way { name, to }) in ways.into_iter().chain(lingering) {
            let label = Label::new(&format!("{name} {from} -> {to}"));
            match (from, to) {
                (IpAddr::V4(from), IpAddr::V4(addr)) => {
                    v4.insert(from, ServiceTarget { addr, label });
                }
                (IpAddr::V6(from), IpAddr::V6(addr)) => {
                    v6.insert(from, ServiceTarget { addr, label });
                }
                _ => {}
            }
        }
        let mut ruleset = Ruleset::empty(Self::KIND.table(), self.tun.clone());
        ruleset.v4_mut().map_services(v4);
        ruleset.v6_mut().map_services(v6);
        let (services, unresolved) = (self.config.services.len(), self.config.services.len() - configs.len());
        let status = Status { configs, pod_ipv4: self.pod.ipv4, pod_ipv6: self.pod.ipv6 };
        let again = self.lingering.values().map(|(_, until)| *until).min();
        let (ruleset, status) = (Arc::new(ruleset), Arc::new(status));
        Some(Desired { ruleset, status, problems, services, unresolved, again })
    }

    fn is_empty(status: &Status) -> bool {
        status.configs.is_empty()
    }

    fn changes(before: Option<&Status>, after: &Status) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, service) in &after.configs {
            let old = before.and_then(|before| before.configs.get(name));
            if old == Some(service) {
                continue;
            }
            let from = old.map_or_else(|| "nowhere".to_owned(), shown);
            lines.push(format!("ingress service {name:?}: {from} -> {}", shown(service)));
        }
        let gone = before.into_iter().flat_map(|before| before.configs.keys());
        let gone = gone.filter(|name| !after.configs.contains_key(*name));
        lines.extend(gone.map(|name| format!("ingress service {name:?}: gone")));
        lines
    }
}

/// `100.100.1.1 to 10.43.7.9 and …`
fn shown(service: &Service) -> String {
    let ways = service.mappings().filter_map(|mapping| {
        let (from, to) = (mapping.service?, mapping.cluster?);
        Some(format!("{from} to {to}"))
    });
    ways.collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: PodIps = PodIps { ipv4: None, ipv6: None };

    fn group(config: &str) -> Ingress {
        let mut group = Ingress::new(Interface::default(), POD, LINGER);
        group.configure(config.as_bytes()).unwrap();
        group
    }

    fn render(group: &mut Ingress, ipv6: bool, now: Instant) -> Desired<Status> {
        let resolve = |_: &str| unreachable!("both addresses are literal");
        group.render(&View { own: &[], ipv6, draining: false, resolve: &resolve }, now).unwrap()
    }

    fn rules(desired: &Desired<Status>) -> Vec<String> {
        let v4 = desired.ruleset.v4().services.iter().map(|(from, to)| format!("{from} -> {}", to.addr));
        let v6 = desired.ruleset.v6().services.iter().map(|(from, to)| format!("{from} -> {}", to.addr));
        v4.chain(v6).collect()
    }

    const WEB: &str = concat!(
        r#""svc:web":{"IPv4Mapping":{"TailscaleServiceIP":"100.100.1.1","ClusterIP":"10.43.7.9"},"#,
        r#""IPv6Mapping":{"TailscaleServiceIP":"fd7a::1","ClusterIP":"fd43::79"}}"#,
    );
    const DB: &str = r#""svc:db":{"IPv4Mapping":{"TailscaleServiceIP":"100.100.1.2","ClusterIP":"10.43.7.8"}}"#;

    #[test]
    fn each_mapping_is_a_way_and_the_config_is_the_report() {
        let config = format!("{{{DB},{WEB}}}");
        let desired = render(&mut group(&config), true, Instant::now());
        assert_eq!(rules(&desired), ["100.100.1.1 -> 10.43.7.9", "100.100.1.2 -> 10.43.7.8", "fd7a::1 -> fd43::79"]);
        assert_eq!(serde_json::to_string(&*desired.status).unwrap(), format!(r#"{{"configs":{config}}}"#));
        assert_eq!((desired.services, desired.mappings(), desired.again), (2, 3, None));
    }

    #[test]
    fn the_report_names_the_pod() {
        let mut group = group(&format!("{{{DB}}}"));
        group.pod = PodIps { ipv4: Some("10.42.0.7".parse().unwrap()), ipv6: Some("fd42::7".parse().unwrap()) };
        let pod = r#""podIPv4":"10.42.0.7","podIPv6":"fd42::7"}"#;
        let json = |desired: Desired<Status>| serde_json::to_string(&*desired.status).unwrap();
        assert_eq!(json(render(&mut group, true, Instant::now())), format!(r#"{{"configs":{{{DB}}},{pod}"#));
        group.configure(b"{}").unwrap();
        assert_eq!(json(render(&mut group, true, Instant::now())), format!("{{{pod}"));
    }

    #[test]
    fn what_cannot_be_served_is_told_and_reported_as_long_as_something_can() {
        let half = r#"{"svc:a":{"IPv4Mapping":{"TailscaleServiceIP":"100.100.1.1","ClusterIP":"10.43.7.9"},"IPv6Mapping":{"TailscaleServiceIP":"","ClusterIP":"fd43::79"}}}"#;
        let desired = render(&mut group(half), true, Instant::now());
        assert_eq!(rules(&desired), ["100.100.1.1 -> 10.43.7.9"]);
        assert_eq!(serde_json::to_string(&*desired.status).unwrap(), format!(r#"{{"configs":{half}}}"#));
        assert_eq!(desired.problems, [r#"ingress service "svc:a": nothing to fd43::79 cannot be served"#]);

        let without = render(&mut group(&format!("{{{WEB}}}")), false, Instant::now());
        assert_eq!(rules(&without), ["100.100.1.1 -> 10.43.7.9"]);
        assert_eq!(serde_json::to_string(&*without.status).unwrap(), format!(r#"{{"configs":{{{WEB}}}}}"#));
        assert_eq!(without.problems.len(), 1);

        let mixed = r#"{"svc:a":{"IPv4Mapping":{"TailscaleServiceIP":"100.100.1.1","ClusterIP":"fd43::79"}}}"#;
        let none = render(&mut group(mixed), true, Instant::now());
        assert_eq!((rules(&none), Ingress::is_empty(&none.status), none.unresolved), (Vec::new(), true, 1));
        assert_eq!(none.problems.len(), 2, "{:?}", none.problems);
    }

    #[test]
    fn an_address_that_two_claim_belongs_to_the_first_by_name() {
        let other = DB.replace("svc:db", "svc:z").replace("10.43.7.8", "10.43.9.9");
        let desired = render(&mut group(&format!("{{{other},{DB}}}")), true, Instant::now());
        assert_eq!(rules(&desired), ["100.100.1.2 -> 10.43.7.8"]);
        assert_eq!(desired.status.configs.keys().collect::<Vec<_>>(), ["svc:db"]);
        assert_eq!(desired.problems, [r#"ingress service "svc:z": 100.100.1.2 belongs to "svc:db""#]);
    }

    #[test]
    fn what_is_removed_is_served_a_little_longer_and_unreported_at_once() {
        let (mut group, start) = (group(&format!("{{{DB},{WEB}}}")), Instant::now());
        render(&mut group, true, start);
        group.configure(format!("{{{DB}}}").as_bytes()).unwrap();
        let removed = render(&mut group, true, start + Duration::from_secs(1));
        assert_eq!(rules(&removed).len(), 3);
        assert_eq!(removed.status.configs.keys().collect::<Vec<_>>(), ["svc:db"]);
        assert_eq!(removed.again, Some(start + Duration::from_secs(16)));
        let during = render(&mut group, true, start + Duration::from_secs(15));
        assert_eq!((rules(&during).len(), during.again), (3, removed.again), "its time began when it left");
        let after = render(&mut group, true, start + Duration::from_secs(16));
        assert_eq!((rules(&after), after.again), (vec!["100.100.1.2 -> 10.43.7.8".to_owned()], None));
    }

    #[test]
    fn an_address_that_comes_back_or_leads_elsewhere_does_not_linger() {
        let (mut group, start) = (group(&format!("{{{DB}}}")), Instant::now());
        render(&mut group, true, start);
        group.configure(DB.replace("svc:db", "svc:new").replace("10.43.7.8", "10.43.9.9").as_bytes()).unwrap_err();
        let moved = format!("{{{}}}", DB.replace("10.43.7.8", "10.43.9.9"));
        group.configure(moved.as_bytes()).unwrap();
        let desired = render(&mut group, true, start);
        assert_eq!((rules(&desired), desired.again), (vec!["100.100.1.2 -> 10.43.9.9".to_owned()], None));
    }

    #[test]
    fn each_service_that_differs_is_one_line() {
        let (mut group, now) = (group(&format!("{{{DB},{WEB}}}")), Instant::now());
        let first = render(&mut group, true, now).status;
        group.configure(format!("{{{}}}", DB.replace("10.43.7.8", "10.43.9.9")).as_bytes()).unwrap();
        let second = render(&mut group, true, now).status;
        assert_eq!(
            Ingress::changes(Some(&first), &second),
            [
                r#"ingress service "svc:db": 100.100.1.2 to 10.43.7.8 -> 100.100.1.2 to 10.43.9.9"#,
                r#"ingress service "svc:web": gone"#,
            ]
        );
        assert_eq!(Ingress::changes(Some(&second), &second), Vec::<String>::new());
    }
}
