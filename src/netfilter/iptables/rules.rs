//! A ruleset in iptables' words, and iptables' listings read back. Pure.
//!
//! Chains of our own, filled by `iptables-restore --noflush`, to which the chains of the kernel jump (netfilter.md 11).
//! Declaring a chain empties it within the commit, so each of the two tables is swapped as a whole. There are no maps:
//! each element is a rule. Rules are spelled the way both flavours of `iptables-save` spell them, so that a listing can
//! be compared with what was wanted, but for quotes, which iptables puts where it needs them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::netfilter::drift::Drift;
use crate::netfilter::label::Label;
use crate::netfilter::ruleset::{Address, Family, Port, Postrouting, Prerouting, Rules, Ruleset};

/// A place where packets come by: iptables' table, its chain, and the end of ours' name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// The MSS clamp.
    Clamp,
    /// New flows.
    Pre,
    /// Sources.
    Post,
}

impl Hook {
    /// All, the clamp first: no connection shall begin without.
    pub const ALL: [Self; 3] = [Self::Clamp, Self::Pre, Self::Post];

    /// The table.
    pub fn table(self) -> &'static str {
        match self {
            Self::Clamp => "mangle",
            Self::Pre | Self::Post => "nat",
        }
    }

    /// The chain that jumps to ours.
    pub fn chain(self) -> &'static str {
        match self {
            Self::Clamp => "FORWARD",
            Self::Pre => "PREROUTING",
            Self::Post => "POSTROUTING",
        }
    }

    /// Our chain's name. iptables takes 28 bytes.
    pub fn ours(self, short: &str) -> String {
        let end = match self {
            Self::Clamp => "MSS",
            Self::Pre => "PRE",
            Self::Post => "POST",
        };
        format!("TAILPOD-{short}-{end}")
    }
}

/// iptables' tables, in the order in which they are filled.
pub const TABLES: [&str; 2] = ["mangle", "nat"];

/// What our chains hold, by [`Hook::ALL`], each rule without the `-A CHAIN` before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chains([Vec<String>; 3]);

impl Chains {
    /// What they shall hold for a ruleset in one family.
    pub fn of(ruleset: &Ruleset, family: Family) -> Self {
        let tun = ruleset.tun().as_str();
        match family {
            Family::V4 => Self::render(ruleset.v4(), tun),
            Family::V6 => Self::render(ruleset.v6(), tun),
        }
    }

    fn render<A: Address>(rules: &Rules<A>, tun: &str) -> Self {
        let clamp = if rules.clamp { ["-o", "-i"].map(|side| clamp(side, tun)).into() } else { Vec::new() };
        let pre = rules.prerouting.iter().flat_map(|rule| prerouting(rules, rule, tun)).collect();
        Self([clamp, pre, rules.postrouting.iter().map(|rule| postrouting(rule, tun)).collect()])
    }

    /// How many rules they hold.
    pub fn count(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    fn at(&self, hook: Hook) -> &[String] {
        &self.0[hook as usize]
    }
}

fn clamp(side: &str, tun: &str) -> String {
    format!("{side} {tun} -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu")
}

fn prerouting<A: Address>(rules: &Rules<A>, rule: &Prerouting<A>, tun: &str) -> Vec<String> {
    match rule {
        Prerouting::Exempt { port, label } => {
            vec![format!("! -i {tun} {}{} -j ACCEPT", destination_port(*port), comment(label))]
        }
        Prerouting::Redirect { to, every, target, label } => {
            let turn = every.map(|every| format!(" -m statistic --mode nth --every {every} --packet 0"));
            let turn = turn.unwrap_or_default();
            vec![format!("-d {}{turn}{} -j DNAT --to-destination {target}", host(*to), comment(label))]
        }
        Prerouting::Everything { target, label } => {
            vec![format!("! -i {tun}{} -j DNAT --to-destination {target}", comment(label))]
        }
        Prerouting::Ports => {
            let ports = rules.ports.iter().map(|(port, target)| {
                let (to, comment) = (with_port(target.addr, target.port), comment(&target.label));
                format!("! -i {tun} {}{comment} -j DNAT --to-destination {to}", destination_port(*port))
            });
            ports.collect()
        }
        Prerouting::Services => {
            let services = rules.services.iter().map(|(to, target)| {
                format!("-d {}{} -j DNAT --to-destination {}", host(*to), comment(&target.label), target.addr)
            });
            services.collect()
        }
    }
}

fn postrouting<A: Address>(rule: &Postrouting<A>, tun: &str) -> String {
    match rule {
        Postrouting::Towards { to, source, label } => {
            format!("-d {}{} -j SNAT --to-source {source}", host(*to), comment(label))
        }
        Postrouting::Translated { source } => {
            format!("-o {tun} -m conntrack --ctstate DNAT -j SNAT --to-source {source}")
        }
    }
}

fn destination_port(Port { protocol, port }: Port) -> String {
    format!("-p {protocol} -m {protocol} --dport {port}")
}

fn host<A: Address>(addr: A) -> String {
    format!("{addr}/{}", addr.bytes().len() * 8)
}

fn with_port<A: Address>(addr: A, port: u16) -> String {
    match A::FAMILY {
        Family::V4 => format!("{addr}:{port}"),
        Family::V6 => format!("[{addr}]:{port}"),
    }
}

/// A label has no character that means anything between quotes.
fn comment(label: &Label) -> String {
    if label.as_str().is_empty() { String::new() } else { format!(" -m comment --comment \"{label}\"") }
}

/// What `iptables-save` lists of our chains, and of the ways to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Rules, by table and chain. A chain that is there has an entry.
    chains: BTreeMap<(String, String), Vec<String>>,
}

impl Saved {
    /// Reads a listing of one or more tables.
    pub fn read(listing: &str) -> Self {
        let mut saved = Self::default();
        let mut table = String::new();
        for line in listing.lines() {
            if let Some(name) = line.strip_prefix('*') {
                name.clone_into(&mut table);
            } else if let Some((chain, _)) = line.strip_prefix(':').and_then(|chain| chain.split_once(' ')) {
                saved.chains.entry((table.clone(), chain.to_owned())).or_default();
            } else if let Some((chain, rule)) = line.strip_prefix("-A ").and_then(|rule| rule.split_once(' ')) {
                saved.chains.entry((table.clone(), chain.to_owned())).or_default().push(rule.to_owned());
            }
        }
        saved
    }

    fn chain(&self, table: &str, chain: &str) -> Option<&[String]> {
        self.chains.get(&(table.to_owned(), chain.to_owned())).map(Vec::as_slice)
    }

    fn jumps(&self, hook: Hook, short: &str) -> usize {
        let jump = format!("-j {}", hook.ours(short));
        self.chain(hook.table(), hook.chain()).unwrap_or_default().iter().filter(|rule| **rule == jump).count()
    }

    /// Whether packets come to our chain before they come to what could translate them otherwise. Our own chains do not
    /// get in each other's way, nor do tailscaled's.
    fn is_first(&self, hook: Hook, short: &str) -> bool {
        let jump = format!("-j {}", hook.ours(short));
        let rules = self.chain(hook.table(), hook.chain()).unwrap_or_default();
        let before = rules.iter().take_while(|rule| **rule != jump);
        before.clone().count() < rules.len()
            && before.clone().all(|rule| rule.contains("-j TAILPOD-") || rule.contains("-j ts-"))
    }

    /// What our chains hold; for those that are not there, nothing.
    pub fn ours(&self, short: &str) -> Chains {
        Chains(Hook::ALL.map(|hook| self.chain(hook.table(), &hook.ours(short)).unwrap_or_default().to_vec()))
    }

    /// Whether our chains hold just this, and packets come to them.
    pub fn holds(&self, short: &str, wanted: &Chains) -> bool {
        Hook::ALL.into_iter().all(|hook| self.holds_at(hook, short, wanted))
    }

    fn holds_at(&self, hook: Hook, short: &str, wanted: &Chains) -> bool {
        let Some(rules) = self.chain(hook.table(), &hook.ours(short)) else { return false };
        let plain = |rule: &String| rule.replace('"', "");
        rules.iter().map(plain).eq(wanted.at(hook).iter().map(plain))
            && self.jumps(hook, short) == 1
            && self.is_first(hook, short)
    }
}

/// Notes how our chains differ from what is wanted of them, nothing when that is `None`; what [`fill`] or [`clear`] does
/// about it. `program` is the one that shows them.
pub fn compare(drift: &mut Drift, program: &str, short: &str, saved: &Saved, wanted: Option<&Chains>) -> String {
    for hook in Hook::ALL {
        let (ours, place) = (hook.ours(short), format!("{program} -t {}", hook.table()));
        let jump = format!("-A {} -j {ours}", hook.chain());
        let plain =
            |rules: &[String]| rules.iter().map(|rule| format!("-A {ours} {}", rule.replace('"', ""))).collect();
        let mut held: Vec<String> = saved.chain(hook.table(), &ours).map(plain).unwrap_or_default();
        let mut expected: Vec<String> = wanted.map(|wanted| plain(wanted.at(hook))).unwrap_or_default();
        held.extend((0..saved.jumps(hook, short)).map(|_| jump.clone()));
        expected.extend(wanted.map(|_| jump.clone()));
        drift.note(&place, &held, &expected);
        if saved.jumps(hook, short) > 0 && wanted.is_some() && !saved.is_first(hook, short) {
            drift.unwanted.push(format!("{place} has rules of others before `{jump}`"));
        }
    }
    match wanted {
        Some(wanted) => fill(short, saved, wanted),
        None => clear(short, saved),
    }
}

/// What `iptables-restore --noflush` has to read to bring our chains from what was listed to what is wanted. Empty when
/// they are there.
pub fn fill(short: &str, saved: &Saved, wanted: &Chains) -> String {
    let mut text = String::new();
    for table in TABLES {
        let hooks = || Hook::ALL.into_iter().filter(|hook| hook.table() == table);
        if hooks().all(|hook| saved.holds_at(hook, short, wanted)) {
            continue;
        }
        // Writing to a String cannot fail.
        let _ = writeln!(text, "*{table}");
        for hook in hooks() {
            let _ = writeln!(text, ":{} - [0:0]", hook.ours(short));
        }
        for hook in hooks() {
            let ours = hook.ours(short);
            for rule in wanted.at(hook) {
                let _ = writeln!(text, "-A {ours} {rule}");
            }
            let jumps = saved.jumps(hook, short);
            if jumps != 1 || !saved.is_first(hook, short) {
                for _ in 0..jumps {
                    let _ = writeln!(text, "-D {} -j {ours}", hook.chain());
                }
                let _ = writeln!(text, "-I {} 1 -j {ours}", hook.chain());
            }
        }
        let _ = writeln!(text, "COMMIT");
    }
    text
}

/// What it has to read to remove them. Only what was listed: one that is missing would fail all.
pub fn clear(short: &str, saved: &Saved) -> String {
    let mut text = String::new();
    for table in TABLES {
        let mut lines = String::new();
        let there = |hook: &Hook| hook.table() == table && saved.chain(table, &hook.ours(short)).is_some();
        let hooks: Vec<_> = Hook::ALL.into_iter().filter(there).collect();
        for hook in &hooks {
            for _ in 0..saved.jumps(*hook, short) {
                let _ = writeln!(lines, "-D {} -j {}", hook.chain(), hook.ours(short));
            }
        }
        for verb in ["-F", "-X"] {
            for hook in &hooks {
                let _ = writeln!(lines, "{verb} {}", hook.ours(short));
            }
        }
        if !lines.is_empty() {
            let _ = writeln!(text, "*{table}\n{lines}COMMIT");
        }
    }
    text
}

#[cfg(test)]
mod tests;
