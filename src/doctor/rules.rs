//! The packet rules that are there, against those that follow from the settings, the configs of groups, the tailnet and
//! DNS as they are at this moment.
//!
//! Reads and changes nothing. What differs is looked at twice: the boot that keeps the rules may be at it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::Subject;
use super::environment::LOOK_AT_THE_SETTINGS;
use super::finding::{Finding, HOST_RULES};
use crate::boot::forward::wanted::{self, Known, Plan, Unable};
use crate::causes::chain;
use crate::dns::Resolver;
use crate::localapi::model::Model;
use crate::localapi::types::Notify;
use crate::localapi::{LocalApi, Peers};
use crate::netfilter::drift::Drift;
use crate::netfilter::firewall::Firewall;
use crate::netfilter::ruleset::{Ruleset, Table};
use crate::node::resolve::resolve_written;
use crate::proxygroup::once::{self, ConfigFile};
use crate::proxygroup::plan::{Kind, View};
use crate::settings::{FirewallMode, Ingress, Settings};

/// For all of it.
pub(super) const LIMIT: Duration = Duration::from_secs(5);
/// For one answer of tailscaled or of DNS.
const STEP_LIMIT: Duration = Duration::from_millis(1500);
/// Before the second look: boot makes what is wanted of the newest news within a second.
const SETTLE: Duration = Duration::from_millis(1200);
/// How many lines of a difference a sentence has.
const SHOWN: usize = 6;
/// How many lines of a script anybody would paste.
const PASTED: usize = 60;

/// What a table should hold.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wish {
    /// The settings ask for no such table.
    Nothing,
    /// This; and what of the config cannot be served.
    Rules(Arc<Ruleset>, Vec<String>),
    /// Nobody can say, and why.
    Unknown(String),
    /// What says it is broken; what was in force stays.
    Broken(String),
}

/// What is known of the world.
struct World {
    /// The node and its peers, or why nothing is known of them.
    node: Result<Model, String>,
    /// What the DNS name of the ingress target stands for, if one is asked for.
    backends: Option<Result<BTreeSet<IpAddr>, String>>,
    configs: Vec<ConfigFile>,
}

/// Looks at all of our tables through a firewall that works.
pub(super) async fn check(subject: &Subject, firewall: Option<&Firewall>) -> Vec<Finding> {
    let Ok(settings) = &subject.settings else { return vec![HOST_RULES.skipped("the settings cannot be read")] };
    if matches!(settings.forward.firewall, FirewallMode::Fake { .. }) {
        return vec![HOST_RULES.skipped("TS_TEST_FAKE_NETFILTER: rules are in the memory of boot alone")];
    }
    let Some(firewall) = firewall else {
        return vec![HOST_RULES.skipped("the kernel's rules cannot be read from here")];
    };
    match timeout(LIMIT, compare(subject, settings, firewall)).await {
        Ok(found) if found.is_empty() => {
            vec![HOST_RULES.ok("no packet rules are asked for, and none of ours are there")]
        }
        Ok(found) => found,
        Err(_) => vec![HOST_RULES.skipped("the kernel's rules could not be read in time")],
    }
}

async fn compare(subject: &Subject, settings: &Settings, firewall: &Firewall) -> Vec<Finding> {
    let plan = match Plan::of(settings) {
        Ok(plan) => plan,
        Err(problem) => return vec![HOST_RULES.failure(problem, LOOK_AT_THE_SETTINGS)],
    };
    let (mut world, mut settled) = (learn(subject, settings).await, false);
    let mut found = Vec::new();
    for table in Table::ALL {
        let (mut findings, differs) = look(&plan, &world, table, firewall).await;
        if differs && !settled {
            settled = true;
            sleep(SETTLE).await;
            world = learn(subject, settings).await;
            findings = look(&plan, &world, table, firewall).await.0;
        }
        found.extend(findings);
    }
    found
}

/// What is found of one table, and whether it differs from what it should hold.
async fn look(plan: &Plan, world: &World, table: Table, firewall: &Firewall) -> (Vec<Finding>, bool) {
    let wish = world.wish(plan, table, firewall.ipv6());
    let desired = if let Wish::Rules(ruleset, _) = &wish { Some(&**ruleset) } else { None };
    let drift = match firewall.compare(table, desired).await {
        Ok(drift) => drift,
        Err(error) => return (vec![HOST_RULES.skipped(format!("{table} cannot be read: {error}"))], false),
    };
    match &wish {
        Wish::Unknown(_) | Wish::Broken(_) => (judge_unknown(table, &wish, &drift.holds()), false),
        Wish::Nothing | Wish::Rules(..) => (judge(table, &wish, &drift), !drift.is_none()),
    }
}

async fn learn(subject: &Subject, settings: &Settings) -> World {
    let api = LocalApi::with_capability_version(&subject.socket, subject.capver);
    let peers = if settings.forward.needs_peers() { Peers::Include } else { Peers::Omit };
    let node = async {
        let status = timeout(STEP_LIMIT, api.status(peers)).await;
        let status = status.map_err(|_| "tailscaled does not answer".to_owned())?.map_err(|error| chain(&error))?;
        let mut model = Model::default();
        model.apply(Notify { initial_status: Some(status), ..Notify::default() });
        Ok(model)
    };
    let backends = async {
        let Some(Ingress::Dns(name)) = &settings.forward.ingress else { return None };
        let resolver = Resolver::new(&settings.root);
        let answer = timeout(STEP_LIMIT, resolver.look_up(name)).await;
        Some(match answer {
            Ok(Ok(answer)) => Ok(answer.addresses),
            Ok(Err(error)) => Err(chain(&error)),
            Err(_) => Err(format!("lookup {name}: no answer in time")),
        })
    };
    let (node, backends) = tokio::join!(node, backends);
    World { node, backends, configs: once::read(&settings.forward) }
}

impl World {
    /// What a table should hold as the world is.
    fn wish(&self, plan: &Plan, table: Table, ipv6: bool) -> Wish {
        let kind = match table {
            Table::L3 if !plan.forward.has_own_rules() => return Wish::Nothing,
            Table::L3 => None,
            Table::Egress => Some(Kind::Egress),
            Table::Ingress => Some(Kind::Ingress),
        };
        let config = self.configs.iter().find(|config| Some(config.kind) == kind);
        if kind.is_some() && config.is_none() {
            return Wish::Nothing;
        }
        let node = match &self.node {
            Ok(node) => node,
            Err(why) => return Wish::Unknown(format!("nobody tells the node's addresses: {why}")),
        };
        let own = node.self_device.as_ref().map(|device| device.addresses.as_slice()).unwrap_or_default();
        if own.is_empty() {
            return Wish::Unknown("the node has no tailnet address".to_owned());
        }
        match config {
            None => self.own_rules(plan, node, own, ipv6),
            Some(config) => group(plan, config, node, own, ipv6),
        }
    }

    fn own_rules(&self, plan: &Plan, node: &Model, own: &[IpAddr], ipv6: bool) -> Wish {
        let backends = match &self.backends {
            Some(Err(why)) => return Wish::Unknown(why.clone()),
            Some(Ok(backends)) => Some(backends),
            None => None,
        };
        match wanted::desired(plan, &Known { own, target: plan.target(node), backends, ipv6 }) {
            Ok(desired) => Wish::Rules(Arc::new(desired.ruleset), Vec::new()),
            Err(Unable::Yet(why) | Unable::Ever(why)) => Wish::Unknown(why),
        }
    }
}

fn group(plan: &Plan, config: &ConfigFile, node: &Model, own: &[IpAddr], ipv6: bool) -> Wish {
    let view = View { own, ipv6, draining: false, resolve: &|name| resolve_written(node, name) };
    let path = config.path.display();
    let content = match &config.content {
        Ok(content) => content,
        Err(error) => return Wish::Broken(format!("`{path}` cannot be read: {error}")),
    };
    match once::ask(config.kind, content, &plan.tun, &view) {
        Ok(Some(asked)) => Wish::Rules(asked.ruleset, asked.problems),
        Ok(None) => Wish::Unknown("the node has no tailnet address".to_owned()),
        Err(error) => Wish::Broken(format!("`{path}` is no config: {}", chain(&error))),
    }
}

/// Judges a table that cannot be compared with anything.
fn judge_unknown(table: Table, wish: &Wish, holds: &str) -> Vec<Finding> {
    match wish {
        Wish::Unknown(why) => {
            vec![HOST_RULES.skipped(format!("what {table} should hold is not known: {why}; it holds {holds}"))]
        }
        Wish::Broken(why) => {
            let sentence = format!("{table}: {why}; what was in force stays: {holds}");
            vec![HOST_RULES.failure(sentence, LOOK_AT_THE_SETTINGS)]
        }
        Wish::Nothing | Wish::Rules(..) => Vec::new(),
    }
}

/// Judges a table by how it differs.
fn judge(table: Table, wish: &Wish, drift: &Drift) -> Vec<Finding> {
    let mut found = Vec::new();
    let problems = match wish {
        Wish::Rules(_, problems) => problems.as_slice(),
        _ => &[],
    };
    if let [first, rest @ ..] = problems {
        let more = if rest.is_empty() { String::new() } else { format!("; and {} more", rest.len()) };
        found.push(HOST_RULES.warning(format!("{first}{more}")));
    }
    match (wish, drift.is_none()) {
        (Wish::Nothing, true) => {}
        (_, true) => found.push(HOST_RULES.ok(format!("{table} is as it should be ({})", drift.holds()))),
        (Wish::Nothing, false) => {
            let sentence = format!("{table} is there, and these settings ask for none: {}", drift.holds());
            found.push(HOST_RULES.failure(sentence, mend(drift, "what is running here does not look at it")));
        }
        (_, false) => {
            let sentence = format!("{table} is not as it should be: {}", said(drift));
            let note = match table {
                Table::L3 => "`tailpod boot` does the same once a minute; what comes back is somebody else's doing",
                Table::Egress => {
                    "`tailpod boot` does the same once a minute; a target that is away keeps its rules for 60 s, and a \
                     replica that is drained keeps them until the end"
                }
                Table::Ingress => {
                    "`tailpod boot` does the same once a minute; what has left the config is served for 15 s more"
                }
            };
            found.push(HOST_RULES.failure(sentence, mend(drift, note)));
        }
    }
    found
}

/// `2 missing: …; …; 1 not asked for: …`
fn said(drift: &Drift) -> String {
    let part = |lines: &[String], what: &str| {
        let shown: Vec<_> = lines.iter().take(SHOWN).map(|line| format!("`{line}`")).collect();
        let more = if lines.len() > SHOWN { ", …" } else { "" };
        (!lines.is_empty()).then(|| format!("{} {what}: {}{more}", lines.len(), shown.join(", ")))
    };
    let parts = [part(&drift.missing, "missing"), part(&drift.unwanted, "not asked for")];
    let said: Vec<_> = parts.into_iter().flatten().collect();
    // Rules can differ in what has no word here.
    if said.is_empty() { "`nft list ruleset` shows how".to_owned() } else { said.join("; ") }
}

fn mend(drift: &Drift, note: &str) -> String {
    let lines = drift.mend.lines().count();
    if lines > PASTED {
        return format!("kubectl delete pod \"$POD_NAME\"  # {lines} lines would mend it; {note}");
    }
    format!("{}\n# {note}", drift.mend)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::doctor::finding::Level;
    use crate::netfilter::ruleset::Interface;
    use crate::netfilter::script;
    use crate::settings::{Persona, read};

    fn plan(pairs: &[(&str, &str)]) -> Plan {
        let vars: BTreeMap<&str, &str> = pairs.iter().copied().chain([("TS_USERSPACE", "false")]).collect();
        Plan::of(&read(&vars, Persona::Tailpod).unwrap_or_else(|problems| panic!("{problems}"))).unwrap()
    }

    fn world(node: Option<&[&str]>, configs: &[(Kind, &str)]) -> World {
        let status = json!({
            "BackendState": "Running",
            "Self": {"ID": "n", "DNSName": "pod.ts.net.", "TailscaleIPs": node},
            "Peer": {"k": {"ID": "p", "NodeID": 2, "DNSName": "web.ts.net.", "TailscaleIPs": ["100.64.0.9"]}},
        });
        let mut model = Model::default();
        model.apply(serde_json::from_value(json!({ "InitialStatus": status })).unwrap());
        let config = |(kind, text): &(Kind, &str)| ConfigFile {
            kind: *kind,
            path: "/c".into(),
            content: Ok(text.as_bytes().to_vec()),
        };
        World {
            node: node.map(|_| model).ok_or_else(|| "nobody listens".to_owned()),
            backends: None,
            configs: configs.iter().map(config).collect(),
        }
    }

    fn elements(wish: &Wish) -> Vec<String> {
        let Wish::Rules(ruleset, _) = wish else { panic!("{wish:?}") };
        let script = script::render(ruleset);
        let nat = script.lines().filter(|line| line.contains("dnat to") || line.starts_with("add element"));
        nat.filter_map(|line| line.split_once(" tailpod_")).map(|(_, rest)| rest.to_owned()).collect()
    }

    #[test]
    fn what_should_be_follows_from_the_node_and_the_configs() {
        let own = Some(&["100.64.0.1"][..]);
        let plan = plan(&[
            ("TS_TAILNET_TARGET_FQDN", "web.ts.net"),
            ("TAILPOD_EGRESS_EXEMPTIONS", "none"),
            ("KUBERNETES_SERVICE_HOST", "h"),
            ("TS_EGRESS_PROXIES_CONFIG_PATH", "/c"),
        ]);
        let config = r#"{"a": {"tailnetTarget": {"fqdn": "web.ts.net"}, "ports": [
            {"protocol": "TCP", "matchPort": 1, "targetPort": 2}]}, "b": 7}"#;
        let here = world(own, &[(Kind::Egress, config)]);
        assert_eq!(
            elements(&here.wish(&plan, Table::L3, true)),
            ["l3 tp_pre iifname != \"tailscale0\" dnat to 100.64.0.9 comment \"egress\""]
        );
        let egress = here.wish(&plan, Table::Egress, true);
        assert_eq!(elements(&egress)[0], "egress ports { tcp . 1 comment \"a:TCP:1 -> TCP:2\" : 100.64.0.9 . 2 }");
        assert_eq!(here.wish(&plan, Table::Ingress, true), Wish::Nothing);
        // What cannot be served is told beside it.
        let found = judge(Table::Egress, &egress, &Drift::default());
        let levels: Vec<_> = found.iter().map(|finding| finding.level).collect();
        assert_eq!(levels, [Level::Warning, Level::Ok]);
        assert!(found[0].sentence.contains("\"b\" is left out"), "{found:?}");

        let broken = world(own, &[(Kind::Egress, "{")]).wish(&plan, Table::Egress, true);
        let found = judge_unknown(Table::Egress, &broken, "ip: 5 rules");
        assert_eq!(found[0].level, Level::Failure);
        assert!(found[0].sentence.starts_with("tailpod_egress: `/c` is no config: "), "{found:?}");
        assert!(found[0].sentence.ends_with("what was in force stays: ip: 5 rules"), "{found:?}");

        // Without a daemon, or a peer, nobody knows.
        for (world, why) in [
            (world(None, &[]), "nobody tells the node's addresses: nobody listens; it holds nothing"),
            (world(Some(&[]), &[]), "the node has no tailnet address; it holds nothing"),
        ] {
            let wish = world.wish(&plan, Table::L3, true);
            let found = judge_unknown(Table::L3, &wish, "nothing");
            assert_eq!(found[0].level, Level::Skipped);
            assert!(found[0].sentence.ends_with(why), "{found:?}");
        }
    }

    #[test]
    fn drift_comes_with_what_mends_it() {
        let wish = Wish::Rules(Arc::new(Ruleset::empty(Table::Egress, Interface::default())), Vec::new());
        let drift = |missing: usize, unwanted: &[&str], mend: &str| Drift {
            held: vec!["ip: 1 rules".to_owned()],
            missing: (0..missing).map(|nth| format!("m{nth}")).collect(),
            unwanted: unwanted.iter().map(|line| (*line).to_owned()).collect(),
            mend: mend.to_owned(),
        };
        let one = |wish: &Wish, drift: &Drift| judge(Table::Egress, wish, drift).remove(0);
        let finding = one(&wish, &drift(1, &["u"], "nft -f x"));
        assert_eq!(finding.level, Level::Failure);
        assert_eq!(finding.sentence, "tailpod_egress is not as it should be: 1 missing: `m0`; 1 not asked for: `u`");
        assert!(finding.remedy.unwrap().starts_with("nft -f x\n# `tailpod boot` does the same once a minute"));
        let many = one(&wish, &drift(200, &[], &"l\n".repeat(200)));
        assert!(many.sentence.contains("200 missing: `m0`, ") && many.sentence.ends_with("`m5`, …"), "{many:?}");
        assert!(many.remedy.unwrap().starts_with("kubectl delete pod \"$POD_NAME\"  # 200 lines would mend it"));
        let leftover = one(&Wish::Nothing, &drift(0, &["table ip tailpod_egress"], "nft -f x"));
        assert!(
            leftover.sentence.starts_with("tailpod_egress is there, and these settings ask for none"),
            "{leftover:?}"
        );
        assert_eq!(judge(Table::Egress, &Wish::Nothing, &Drift::default()), []);
    }
}
