//! What a table holds in nft's words, what differs from what it should hold, and the script that mends it. Pure.
//!
//! For people: the kernel is spoken with by messages. A rule that is not ours is shown as far as its expressions are
//! known here; the others appear by their names in square brackets.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use super::contents::{
    Chain, Contents, DESTINATION_TRANSLATED, Element, Installed, Map, Octets, RST, Rule, SYN, read_port, read_port_key,
    read_service,
};
use super::diff::{Step, diff};
use super::expr::{Base, Expr, Is, Meta, Nat};
use crate::netfilter::drift::Drift;
use crate::netfilter::ruleset::{Address, Protocol};
use crate::netfilter::script;

/// How a table in one family differs from what is wanted of it; `None` when nothing is.
pub fn compare<A: Address>(table: &str, held: &Installed<'_, A>, wanted: Option<&Contents<'_, A>>) -> Drift {
    let (family, mut drift) = (A::FAMILY, Drift { held: held.glance().into_iter().collect(), ..Drift::default() });
    let whole = format!("table {family} {table}");
    let Some(wanted) = wanted else {
        if *held != Installed::Missing {
            drift.mend = format!("delete {whole}\n");
            drift.unwanted.push(whole);
        }
        return drift;
    };
    drift.mend = mend::<A>(table, &diff(held, wanted));
    let nothing = Contents::default();
    let held = match held {
        Installed::Ours(held) => held,
        Installed::Missing => {
            drift.missing.push(whole);
            &nothing
        }
        Installed::Foreign => {
            drift.unwanted.push(format!("{whole}, with other chains, maps or flags than boot gives it"));
            &nothing
        }
    };
    for ((chain, held), wanted) in Chain::ALL.into_iter().zip(&held.rules).zip(&wanted.rules) {
        let lines = |rules: &[Rule]| rules.iter().map(rule).collect::<Vec<_>>();
        drift.note(&format!("{family} {table} {}", chain.name().0), &lines(held), &lines(wanted));
    }
    let at = |map: Map, element: &str| format!("{family} {table} {} {{ {element} }}", map.name());
    differ(&mut drift, &held.ports, &wanted.ports, |port, to| at(Map::Ports, &script::port_element(port, to)));
    differ(&mut drift, &held.services, &wanted.services, |addr, to| {
        at(Map::Services, &script::service_element(addr, to))
    });
    drift
}

fn differ<K: Ord + Copy, V: PartialEq>(
    drift: &mut Drift,
    held: &BTreeMap<K, V>,
    wanted: &BTreeMap<K, V>,
    words: impl Fn(K, &V) -> String,
) {
    let only = |here: &BTreeMap<K, V>, there: &BTreeMap<K, V>| -> Vec<String> {
        here.iter()
            .filter(|(key, value)| there.get(key) != Some(value))
            .map(|(key, value)| words(*key, value))
            .collect()
    };
    drift.unwanted.extend(only(held, wanted));
    drift.missing.extend(only(wanted, held));
}

/// Steps as the script that `nft -f` takes.
fn mend<A: Address>(table: &str, steps: &[Step<'_>]) -> String {
    let (family, mut text) = (A::FAMILY, String::new());
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    for step in steps {
        match step {
            Step::AddTable => line(format!("add table {family} {table}")),
            Step::DeleteTable => line(format!("delete table {family} {table}")),
            Step::AddChain(chain) => line(script::add_chain(family, table, script::CHAINS[*chain as usize])),
            Step::AddMap(map) => line(script::add_map(family, table, map.name())),
            Step::DeleteElements(map, keys) => {
                let keys = keys.iter().filter_map(|octets| key::<A>(*map, octets));
                keys.for_each(|key| line(format!("delete element {family} {table} {} {{ {key} }}", map.name())));
            }
            Step::AddElements(map, elements) => {
                let elements = elements.iter().filter_map(|at| element::<A>(*map, at));
                elements.for_each(|at| line(format!("add element {family} {table} {} {{ {at} }}", map.name())));
            }
            Step::EmptyChain(chain) => line(format!("flush chain {family} {table} {}", chain.name().0)),
            Step::AddRule(chain, words) => {
                line(format!("add rule {family} {table} {} {}", chain.name().0, rule(words)));
            }
        }
    }
    text
}

fn key<A: Address>(map: Map, octets: &Octets) -> Option<String> {
    match map {
        Map::Ports => read_port_key(octets.as_slice()).map(script::port_key),
        Map::Services => A::from_bytes(octets.as_slice()).map(|addr| addr.to_string()),
    }
}

fn element<A: Address>(map: Map, Element { key, value, label }: &Element<'_>) -> Option<String> {
    let (key, value, label) = (key.as_slice(), value.as_slice(), (*label).clone());
    match map {
        Map::Ports => read_port::<A>(key, value, label).map(|(port, target)| script::port_element(port, &target)),
        Map::Services => read_service::<A>(key, value, label).map(|(addr, to)| script::service_element(addr, &to)),
    }
}

/// A rule as it stands in a script behind its chain.
pub fn rule(rule: &Rule) -> String {
    let (mut words, mut exprs) = (Vec::new(), rule.exprs.as_slice());
    while !exprs.is_empty() {
        let (word, rest) = word(exprs);
        words.push(word);
        exprs = rest;
    }
    let mut text = words.join(" ");
    if let Some(label) = &rule.label {
        // Writing to a String cannot fail.
        let _ = write!(text, " comment \"{label}\"");
    }
    text
}

/// What the first expressions mean together, and those that are left.
fn word(exprs: &[Expr]) -> (String, &[Expr]) {
    use Expr::{Compare, Constant, Lookup, Mask, Payload, Translate};
    let in_ports = |base, offset, length| (base, offset, length) == (Base::Transport, 2, 2);
    match exprs {
        [Expr::Meta(side @ (Meta::InputName | Meta::OutputName)), Compare(is, name), rest @ ..] => {
            let side = if *side == Meta::InputName { "iifname" } else { "oifname" };
            let name = String::from_utf8_lossy(name);
            (format!("{side} {}\"{}\"", is_not(*is), name.trim_end_matches('\0')), rest)
        }
        [
            Expr::Meta(Meta::L4Protocol),
            Payload { base, offset, length, .. },
            Lookup(map),
            Translate { nat, family, port: Some(_) },
            rest @ ..,
        ] if in_ports(*base, *offset, *length) => {
            (format!("{} {family} to meta l4proto . th dport map @{map}", verb(*nat)), rest)
        }
        [Expr::Meta(Meta::L4Protocol), Compare(Is::Equal, number), rest @ ..] => transport(number, rest),
        [Payload { base: Base::Network, offset, length, .. }, rest @ ..] => network(*offset, *length, rest),
        [Expr::Turn(every), Compare(Is::Equal, _), rest @ ..] => (format!("numgen inc mod {every} 0"), rest),
        [Constant(addr), Translate { nat, port: None, .. }, rest @ ..] => {
            (format!("{} to {}", verb(*nat), address(addr)), rest)
        }
        [Expr::ConnectionStatus, Mask(bits), Compare(Is::Unequal, _), rest @ ..]
            if *bits == DESTINATION_TRANSLATED.to_ne_bytes() =>
        {
            ("ct status dnat".to_owned(), rest)
        }
        [Expr::RouteMss, Expr::ToNetworkOrder, Expr::WriteMss, rest @ ..] => {
            ("tcp option maxseg size set rt mtu".to_owned(), rest)
        }
        [Expr::Accept, rest @ ..] => ("accept".to_owned(), rest),
        [other, rest @ ..] => (format!("[{}]", other.name()), rest),
        [] => (String::new(), exprs),
    }
}

/// What is done with an address of IP's header.
fn network(offset: u32, length: u32, exprs: &[Expr]) -> (String, &[Expr]) {
    let field = match (offset, length) {
        (12, 4) => "ip saddr",
        (16, 4) => "ip daddr",
        (8, 16) => "ip6 saddr",
        (24, 16) => "ip6 daddr",
        _ => return (format!("[payload {offset} {length}]"), exprs),
    };
    match exprs {
        [Expr::Compare(is, addr), rest @ ..] => (format!("{field} {}{}", is_not(*is), address(addr)), rest),
        [Expr::Lookup(map), Expr::Translate { nat, port: None, .. }, rest @ ..] => {
            (format!("{} to {field} map @{map}", verb(*nat)), rest)
        }
        _ => (format!("[{field}]"), exprs),
    }
}

/// What is asked of the header behind IP's, once its protocol is known.
fn transport<'e>(number: &[u8], exprs: &'e [Expr]) -> (String, &'e [Expr]) {
    use Expr::{Compare, Mask, Payload};
    let known = [Protocol::Tcp, Protocol::Udp].into_iter().find(|known| [known.number()] == *number);
    let protocol = known.map_or_else(|| format!("{number:?}"), |known| known.to_string());
    match exprs {
        [Payload { base: Base::Transport, offset: 2, length: 2, .. }, Compare(is, port), rest @ ..] => {
            let port = port.iter().fold(0, |port, byte| port << 8 | u32::from(*byte));
            (format!("{protocol} dport {}{port}", is_not(*is)), rest)
        }
        [
            Payload { base: Base::Transport, offset: 13, length: 1, .. },
            Mask(mask),
            Compare(Is::Equal, flags),
            rest @ ..,
        ] if *mask == [SYN | RST] && *flags == [SYN] => (format!("{protocol} flags & (syn | rst) == syn"), rest),
        _ => (format!("meta l4proto {protocol}"), exprs),
    }
}

fn is_not(is: Is) -> &'static str {
    match is {
        Is::Equal => "",
        Is::Unequal => "!= ",
    }
}

fn verb(nat: Nat) -> &'static str {
    match nat {
        Nat::Source => "snat",
        Nat::Destination => "dnat",
    }
}

fn address(bytes: &[u8]) -> String {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let ip = v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
    ip.map_or_else(|_| format!("{bytes:?}"), |ip| ip.to_string())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::netfilter::label::Label;
    use crate::netfilter::probe::specimen;
    use crate::netfilter::ruleset::{Port, PortTarget, Rules, Ruleset};

    fn contents<'r, A: Address>(ruleset: &'r Ruleset, rules: &'r Rules<A>) -> Contents<'r, A> {
        Contents::of(rules, ruleset.tun())
    }

    fn lines<A: Address>(ruleset: &Ruleset, rules: &Rules<A>) -> Vec<String> {
        let contents = contents(ruleset, rules);
        let chains = Chain::ALL.into_iter().zip(&contents.rules);
        let line = |chain: Chain, words: &Rule| {
            format!("add rule {} tailpod_l3 {} {}", A::FAMILY, chain.name().0, rule(words))
        };
        chains.flat_map(|(chain, rules)| rules.iter().map(move |words| line(chain, words))).collect()
    }

    #[test]
    fn what_is_read_back_has_the_words_of_the_script() {
        for backends in [1, 3] {
            let ruleset = specimen(backends);
            let script = script::render(&ruleset);
            let wanted: Vec<_> = script.lines().filter(|line| line.starts_with("add rule")).collect();
            let shown = [lines(&ruleset, ruleset.v4()), lines(&ruleset, ruleset.v6())].concat();
            assert_eq!(shown, wanted);
        }
    }

    #[test]
    fn a_table_that_is_missing_is_made_by_the_script() {
        let ruleset = specimen(1);
        let drift = compare("tailpod_l3", &Installed::Missing, Some(&contents(&ruleset, ruleset.v4())));
        assert_eq!(drift.missing[0], "table ip tailpod_l3");
        assert_eq!(drift.unwanted, Vec::<String>::new());
        // The whole script, but that it replaces what is there.
        let all = script::render_family(&ruleset, ruleset.v4());
        let made: Vec<_> = all.lines().filter(|line| !line.starts_with("flush")).collect();
        assert_eq!(drift.mend.lines().collect::<Vec<_>>(), made);
    }

    #[test]
    fn drift_is_named_and_mended_by_the_fewest_lines() {
        let wanted = specimen(1);
        let mut held = wanted.clone();
        let port = |port| Port { protocol: Protocol::Udp, port };
        let (addr, label) = (Ipv4Addr::new(100, 64, 0, 9), Label::new("by hand"));
        held.v4_mut().ports.insert(port(7), PortTarget { addr, port: 8, label });
        held.v4_mut().services.clear();
        held.v4_mut().clamp = false;
        let held = Installed::Ours(contents(&held, held.v4()));
        let drift = compare("t", &held, Some(&contents(&wanted, wanted.v4())));
        assert_eq!(drift.unwanted, ["ip t ports { udp . 7 comment \"by hand\" : 100.64.0.9 . 8 }"]);
        let clamp = "tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu";
        let sides = ["oifname", "iifname"].map(|side| format!("ip t tp_fwd {side} \"tailscale0\" {clamp}"));
        let service = "ip t services { 192.0.2.3 comment \"probe\" : 192.0.2.4 }";
        assert_eq!(drift.missing, [&sides[0], &sides[1], service]);
        let expected = format!(
            "delete element ip t ports {{ udp . 7 }}\nadd element {service}\nadd rule {}\nadd rule {}\n",
            sides[0], sides[1]
        );
        assert_eq!(drift.mend, expected);
        assert!(compare("t", &held, None::<&Contents<'_, Ipv4Addr>>).mend == "delete table ip t\n");
    }

    #[test]
    fn rules_of_others_are_shown_as_far_as_they_are_known() {
        let exprs = vec![
            Expr::Payload { base: Base::Network, offset: 12, length: 4, register: 1 },
            Expr::Compare(Is::Unequal, vec![10, 0, 0, 1]),
            Expr::Meta(Meta::L4Protocol),
            Expr::Compare(Is::Equal, vec![1]),
            Expr::Other("counter".to_owned()),
            Expr::Other("immediate".to_owned()),
        ];
        assert_eq!(rule(&Rule { exprs, label: None }), "ip saddr != 10.0.0.1 meta l4proto [1] [counter] [immediate]");
    }
}
