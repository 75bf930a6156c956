//! Steps as messages to the kernel's nftables, and its messages as contents. Pure.
//!
//! The numbers are those of `linux/netfilter/nf_tables.h`; the tests of the real parts hold them against what nft
//! itself lists.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::contents::{Chain, Contents, Element, Installed, Map, Octets, Rule, read_port, read_service};
use super::diff::Step;
use super::expr::Expr;
use crate::netfilter::label::Label;
use crate::netfilter::netlink::Marks;
use crate::netfilter::netlink::wire::{Attributes, Request, attributes, find, flag, number, text};
use crate::netfilter::ruleset::{Address, Family, Port, PortTarget, ServiceTarget, Table};

/// `NFNL_SUBSYS_NFTABLES`
const SUBSYSTEM: u16 = 10;
/// A list of elements has to fit an attribute, and so has each element after the last that was looked at.
const LIST_LIMIT: usize = 60_000;

/// `NFT_MSG_*`
mod verb {
    pub(super) const NEW_TABLE: u16 = 0;
    pub(super) const GET_TABLE: u16 = 1;
    pub(super) const DELETE_TABLE: u16 = 2;
    pub(super) const NEW_CHAIN: u16 = 3;
    pub(super) const GET_CHAIN: u16 = 4;
    pub(super) const NEW_RULE: u16 = 6;
    pub(super) const GET_RULE: u16 = 7;
    pub(super) const DELETE_RULE: u16 = 8;
    pub(super) const NEW_SET: u16 = 9;
    pub(super) const GET_SET: u16 = 10;
    pub(super) const NEW_ELEMENT: u16 = 12;
    pub(super) const GET_ELEMENT: u16 = 13;
    pub(super) const DELETE_ELEMENT: u16 = 14;
    pub(super) const GET_GENERATION: u16 = 16;
}

/// `NFTA_*`: every object names its table first, and what it is in or called second.
mod id {
    pub(super) const TABLE: u16 = 1;
    pub(super) const TABLE_FLAGS: u16 = 2;
    pub(super) const TABLE_USE: u16 = 3;
    pub(super) const CHAIN_NAME: u16 = 3;
    pub(super) const CHAIN_HOOK: u16 = 4;
    pub(super) const CHAIN_POLICY: u16 = 5;
    pub(super) const CHAIN_TYPE: u16 = 7;
    pub(super) const HOOK_NUMBER: u16 = 1;
    pub(super) const HOOK_PRIORITY: u16 = 2;
    pub(super) const RULE_CHAIN: u16 = 2;
    pub(super) const RULE_EXPRESSIONS: u16 = 4;
    pub(super) const RULE_USER: u16 = 7;
    pub(super) const SET: u16 = 2;
    pub(super) const SET_FLAGS: u16 = 3;
    pub(super) const SET_KEY_TYPE: u16 = 4;
    pub(super) const SET_KEY_LENGTH: u16 = 5;
    pub(super) const SET_VALUE_TYPE: u16 = 6;
    pub(super) const SET_VALUE_LENGTH: u16 = 7;
    pub(super) const SET_ID: u16 = 10;
    pub(super) const SET_USER: u16 = 13;
    pub(super) const ELEMENTS: u16 = 3;
    pub(super) const ITEM: u16 = 1;
    pub(super) const ELEMENT_KEY: u16 = 1;
    pub(super) const ELEMENT_VALUE: u16 = 2;
    pub(super) const ELEMENT_FLAGS: u16 = 3;
    pub(super) const ELEMENT_TIMEOUT: u16 = 4;
    pub(super) const ELEMENT_USER: u16 = 6;
    pub(super) const VALUE: u16 = 1;
    pub(super) const GENERATION: u16 = 1;
}

/// `NF_ACCEPT`, as a chain's policy.
const ACCEPT: u32 = 1;
/// `NFT_SET_MAP`
const IS_MAP: u32 = 8;

fn request(verb: u16, flags: u16, family: u8, attributes: Attributes) -> Request {
    Request { kind: SUBSYSTEM << 8 | verb, flags, family, resource: 0, attributes }
}

/// What stands around a transaction.
pub fn marks() -> Marks {
    // NFNL_MSG_BATCH_BEGIN and _END.
    let mark = |kind| Request { kind, flags: 0, family: 0, resource: SUBSYSTEM, attributes: Attributes::new() };
    Marks { begin: mark(16), end: mark(17) }
}

/// The messages of some steps, for one family's table.
pub fn write(table: &str, family: Family, steps: &[Step<'_>]) -> Vec<Request> {
    let mut requests = Vec::new();
    let writer = Writer { table, family };
    for step in steps {
        match step {
            Step::AddTable => requests.push(writer.request(verb::NEW_TABLE, flag::CREATE, |table| {
                table.number(id::TABLE_FLAGS, 0);
            })),
            Step::DeleteTable => requests.push(writer.request(verb::DELETE_TABLE, 0, |_| {})),
            Step::AddChain(chain) => requests.push(writer.chain(*chain)),
            Step::AddMap(map) => requests.push(writer.map(*map)),
            Step::EmptyChain(chain) => requests.push(writer.request(verb::DELETE_RULE, 0, |rules| {
                rules.text(id::RULE_CHAIN, chain.name().0);
            })),
            Step::AddRule(chain, rule) => requests.push(writer.rule(*chain, rule)),
            Step::DeleteElements(map, keys) => {
                writer.elements(&mut requests, verb::DELETE_ELEMENT, *map, keys.iter(), |key, item| {
                    value(item, id::ELEMENT_KEY, key);
                });
            }
            Step::AddElements(map, elements) => {
                writer.elements(&mut requests, verb::NEW_ELEMENT, *map, elements.iter(), |element, item| {
                    let Element { key, value: leads_to, label } = element;
                    value(item, id::ELEMENT_KEY, key);
                    value(item, id::ELEMENT_VALUE, leads_to);
                    comment(item, id::ELEMENT_USER, label);
                });
            }
        }
    }
    requests
}

struct Writer<'a> {
    table: &'a str,
    family: Family,
}

impl Writer<'_> {
    fn request(&self, verb: u16, flags: u16, fill: impl FnOnce(&mut Attributes)) -> Request {
        let mut attributes = Attributes::new();
        attributes.text(id::TABLE, self.table);
        fill(&mut attributes);
        request(verb, flags | flag::ACK, self.family.number(), attributes)
    }

    fn chain(&self, chain: Chain) -> Request {
        let (name, priority) = chain.name();
        let (kind, hook) = chain.hook();
        self.request(verb::NEW_CHAIN, flag::CREATE, |attributes| {
            attributes.text(id::CHAIN_NAME, name).nested(id::CHAIN_HOOK, |at| {
                at.number(id::HOOK_NUMBER, hook).bytes(id::HOOK_PRIORITY, &priority.to_be_bytes());
            });
            attributes.number(id::CHAIN_POLICY, ACCEPT).text(id::CHAIN_TYPE, kind);
        })
    }

    fn map(&self, map: Map) -> Request {
        let [key, leads_to] = map.types(self.family);
        // Unique within the transaction, which is all the kernel asks for.
        let number = u32::from(self.family.number()) << 8 | map as u32;
        self.request(verb::NEW_SET, flag::CREATE, |attributes| {
            attributes.text(id::SET, map.name()).number(id::SET_FLAGS, IS_MAP);
            attributes.number(id::SET_KEY_TYPE, key.0).number(id::SET_KEY_LENGTH, key.1);
            attributes.number(id::SET_VALUE_TYPE, leads_to.0).number(id::SET_VALUE_LENGTH, leads_to.1);
            attributes.number(id::SET_ID, number).bytes(id::SET_USER, &byte_orders(map));
        })
    }

    fn rule(&self, chain: Chain, rule: &Rule) -> Request {
        self.request(verb::NEW_RULE, flag::CREATE | flag::APPEND, |attributes| {
            attributes.text(id::RULE_CHAIN, chain.name().0).nested(id::RULE_EXPRESSIONS, |list| {
                for expr in &rule.exprs {
                    expr.write(list);
                }
            });
            if let Some(label) = &rule.label {
                comment(attributes, id::RULE_USER, label);
            }
        })
    }

    /// As many messages as it takes: no list of elements is longer than an attribute may be.
    fn elements<T>(
        &self,
        requests: &mut Vec<Request>,
        verb: u16,
        map: Map,
        elements: impl Iterator<Item = T>,
        write: impl Fn(T, &mut Attributes),
    ) {
        let flags = if verb == verb::NEW_ELEMENT { flag::CREATE } else { 0 };
        let mut elements = elements.peekable();
        while elements.peek().is_some() {
            requests.push(self.request(verb, flags, |attributes| {
                attributes.text(id::SET, map.name()).nested(id::ELEMENTS, |list| {
                    while list.as_slice().len() < LIST_LIMIT
                        && let Some(element) = elements.next()
                    {
                        list.nested(id::ITEM, |item| write(element, item));
                    }
                });
            }));
        }
    }
}

fn value(item: &mut Attributes, number: u16, octets: &Octets) {
    item.nested(number, |data| {
        data.bytes(id::VALUE, octets.as_slice());
    });
}

/// What nft shows as `comment`: kind, length, text, terminator.
fn comment(attributes: &mut Attributes, number: u16, label: &Label) {
    const COMMENT: u8 = 0;
    let text = label.as_str();
    if let Ok(length) = u8::try_from(text.len() + 1) {
        let user = [&[COMMENT, length], text.as_bytes(), &[0]].concat();
        attributes.bytes(number, &user);
    }
}

fn read_comment(user: &[u8]) -> Option<Label> {
    let mut rest = user;
    while let [kind, length, more @ ..] = rest {
        let (value, after) = more.split_at_checked(usize::from(*length))?;
        if *kind == 0 {
            return Some(Label::new(&String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value))));
        }
        rest = after;
    }
    None
}

/// In which byte order nft shall read keys and values: kind, length, number. What consists of several says so by its
/// type.
fn byte_orders(map: Map) -> Vec<u8> {
    const KEY: u8 = 0;
    const VALUE: u8 = 1;
    const BIG_ENDIAN: u32 = 2;
    let order = match map {
        Map::Ports => 0,
        Map::Services => BIG_ENDIAN,
    };
    [KEY, VALUE].into_iter().flat_map(|kind| [&[kind, 4], order.to_ne_bytes().as_slice()].concat()).collect()
}

/// What a message asked for, in words; `offset` leads to the element that the kernel did not like.
pub fn describe(request: &Request, offset: Option<usize>) -> String {
    let bytes = request.attributes.as_slice();
    let name = |number| text(bytes, number).unwrap_or_default();
    let family = if request.family == Family::V6.number() { Family::V6 } else { Family::V4 };
    let mut words = match request.kind & 0xff {
        verb::NEW_TABLE => "making the table".to_owned(),
        verb::DELETE_TABLE => "removing the table".to_owned(),
        verb::NEW_CHAIN => format!("making chain {}", name(id::CHAIN_NAME)),
        verb::NEW_SET => format!("making map {}", name(id::SET)),
        verb::DELETE_RULE => format!("emptying chain {}", name(id::RULE_CHAIN)),
        verb::NEW_RULE => match find(bytes, id::RULE_USER).and_then(read_comment) {
            Some(label) => format!("adding rule \"{label}\" to chain {}", name(id::RULE_CHAIN)),
            None => format!("adding a rule to chain {}", name(id::RULE_CHAIN)),
        },
        verb::NEW_ELEMENT => {
            let element = offset.and_then(|offset| element_at(request, offset));
            match element.and_then(|element| find(element, id::ELEMENT_USER)).and_then(read_comment) {
                Some(label) => format!("adding element \"{label}\" to map {}", name(id::SET)),
                None => format!("adding elements to map {}", name(id::SET)),
            }
        }
        verb::DELETE_ELEMENT => format!("taking elements out of map {}", name(id::SET)),
        other => format!("message {other}"),
    };
    // Writing to a String cannot fail.
    let _ = write!(words, " in table {family} {}", name(id::TABLE));
    words
}

/// The element in which an offset from the start of the message lies.
fn element_at(request: &Request, offset: usize) -> Option<&[u8]> {
    let bytes = request.attributes.as_slice();
    let list = find(bytes, id::ELEMENTS)?;
    let start = list.as_ptr() as usize - bytes.as_ptr() as usize;
    let within = offset.checked_sub(Request::HEADERS)?.checked_sub(start)?;
    attributes(list)
        .map(|(_, item)| item)
        .find(|item| (item.as_ptr() as usize - list.as_ptr() as usize) + item.len() > within)
}

// === reading ===

/// Asks for the number of the rules' generation, which every change of whatever table counts up.
pub fn generation() -> Request {
    request(verb::GET_GENERATION, 0, 0, Attributes::new())
}

/// The number in the answer.
pub fn read_generation(answer: &[u8]) -> Option<u32> {
    number(answer, id::GENERATION)
}

/// What has to be asked to know what a table holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// The table itself. The others come after it, if it is there.
    Table,
    /// A chain.
    Chain(Chain),
    /// A map.
    Map(Map),
    /// All rules.
    Rules,
    /// All elements of a map.
    Elements(Map),
}

impl Question {
    /// All but the first.
    pub const REST: [Self; 8] = [
        Self::Chain(Chain::Pre),
        Self::Chain(Chain::Post),
        Self::Chain(Chain::Forward),
        Self::Map(Map::Ports),
        Self::Map(Map::Services),
        Self::Rules,
        Self::Elements(Map::Ports),
        Self::Elements(Map::Services),
    ];

    /// As a message.
    pub fn request(self, table: Table, family: Family) -> Request {
        let mut attributes = Attributes::new();
        attributes.text(id::TABLE, table.name());
        let (verb, flags) = match self {
            Self::Table => (verb::GET_TABLE, 0),
            Self::Chain(chain) => {
                attributes.text(id::CHAIN_NAME, chain.name().0);
                (verb::GET_CHAIN, 0)
            }
            Self::Map(map) => {
                attributes.text(id::SET, map.name());
                (verb::GET_SET, 0)
            }
            Self::Rules => (verb::GET_RULE, flag::DUMP),
            Self::Elements(map) => {
                attributes.text(id::SET, map.name());
                (verb::GET_ELEMENT, flag::DUMP)
            }
        };
        request(verb, flags, family.number(), attributes)
    }
}

/// A table as it is being read.
#[derive(Debug)]
pub struct Reading<A> {
    rules: [Vec<Rule>; 3],
    ports: BTreeMap<Port, PortTarget<A>>,
    services: BTreeMap<A, ServiceTarget<A>>,
    foreign: bool,
}

impl<A: Address> Default for Reading<A> {
    fn default() -> Self {
        Self { rules: Default::default(), ports: BTreeMap::new(), services: BTreeMap::new(), foreign: false }
    }
}

impl<A: Address> Reading<A> {
    /// Takes in an object of the answer to a question.
    pub fn take(&mut self, question: Question, answer: &[u8]) {
        let is_ours = match question {
            Question::Table => Self::is_our_table(answer),
            Question::Chain(chain) => is_our_chain(chain, answer),
            Question::Map(map) => Self::is_our_map(map, answer),
            Question::Rules => self.rule(answer),
            Question::Elements(map) => {
                let list = find(answer, id::ELEMENTS).unwrap_or_default();
                attributes(list).all(|(_, item)| self.element(map, item).is_some())
            }
        };
        self.foreign |= !is_ours;
    }

    /// Notes that something is not there.
    pub fn lacks(&mut self) {
        self.foreign = true;
    }

    /// What was read.
    pub fn installed(self) -> Installed<'static, A> {
        if self.foreign {
            return Installed::Foreign;
        }
        Installed::Ours(Contents {
            rules: self.rules,
            ports: Cow::Owned(self.ports),
            services: Cow::Owned(self.services),
        })
    }

    /// Not put to sleep, and with as many things in it as we make; that it is these is asked next.
    fn is_our_table(answer: &[u8]) -> bool {
        let things = u32::try_from(Chain::ALL.len() + Map::ALL.len()).ok();
        number(answer, id::TABLE_FLAGS).unwrap_or_default() == 0 && number(answer, id::TABLE_USE) == things
    }

    fn is_our_map(map: Map, answer: &[u8]) -> bool {
        let [key, leads_to] = map.types(A::FAMILY);
        let is = |id: u16, wanted: u32| number(answer, id) == Some(wanted);
        is(id::SET_FLAGS, IS_MAP)
            && is(id::SET_KEY_TYPE, key.0)
            && is(id::SET_KEY_LENGTH, key.1)
            && is(id::SET_VALUE_TYPE, leads_to.0)
            && is(id::SET_VALUE_LENGTH, leads_to.1)
    }

    fn rule(&mut self, answer: &[u8]) -> bool {
        let name = text(answer, id::RULE_CHAIN).unwrap_or_default();
        let Some(nth) = Chain::ALL.iter().position(|chain| chain.name().0 == name) else { return false };
        let exprs = Expr::read_all(find(answer, id::RULE_EXPRESSIONS).unwrap_or_default());
        let label = find(answer, id::RULE_USER).and_then(read_comment);
        self.rules[nth].push(Rule { exprs, label });
        true
    }

    fn element(&mut self, map: Map, item: &[u8]) -> Option<()> {
        let octets = |number| find(find(item, number)?, id::VALUE);
        let plain = [id::ELEMENT_FLAGS, id::ELEMENT_TIMEOUT].iter().all(|number| find(item, *number).is_none());
        let label = find(item, id::ELEMENT_USER).and_then(read_comment).unwrap_or_else(|| Label::new(""));
        let (key, value) = (octets(id::ELEMENT_KEY)?, octets(id::ELEMENT_VALUE)?);
        match map {
            Map::Ports => {
                let (port, target) = read_port(key, value, label)?;
                self.ports.insert(port, target);
            }
            Map::Services => {
                let (addr, target) = read_service(key, value, label)?;
                self.services.insert(addr, target);
            }
        }
        plain.then_some(())
    }
}

fn is_our_chain(chain: Chain, answer: &[u8]) -> bool {
    let ((_, priority), (kind, hook)) = (chain.name(), chain.hook());
    let at = find(answer, id::CHAIN_HOOK).unwrap_or_default();
    number(at, id::HOOK_NUMBER) == Some(hook)
        && find(at, id::HOOK_PRIORITY) == Some(&priority.to_be_bytes())
        && number(answer, id::CHAIN_POLICY) == Some(ACCEPT)
        && text(answer, id::CHAIN_TYPE).as_deref() == Some(kind)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::netfilter::netlink::wire::{Answer, messages};
    use crate::netfilter::nft::contents::port_key;
    use crate::netfilter::nft::diff::diff;
    use crate::netfilter::probe::specimen;
    use crate::netfilter::ruleset::{Interface, Protocol, Rules};

    /// What the kernel would hold after a batch, told by reading the batch as if the kernel had sent it.
    fn held<A: Address>(batch: &[Request]) -> Installed<'static, A> {
        let mut bytes = Vec::new();
        for request in batch {
            request.append(&mut bytes, 1);
        }
        let mut reading = Reading::default();
        for message in messages(&bytes) {
            let Some(Answer::Object(family, body)) = message.answer() else { panic!("{message:?}") };
            assert_eq!(family, A::FAMILY.number());
            let map = || if text(body, id::SET).as_deref() == Some("ports") { Map::Ports } else { Map::Services };
            let chain = || {
                let name = text(body, id::CHAIN_NAME);
                Chain::ALL.into_iter().find(|chain| Some(chain.name().0) == name.as_deref()).unwrap()
            };
            match message.kind & 0xff {
                verb::NEW_TABLE => {}
                verb::NEW_CHAIN => reading.take(Question::Chain(chain()), body),
                verb::NEW_SET => reading.take(Question::Map(map()), body),
                verb::NEW_RULE => reading.take(Question::Rules, body),
                verb::NEW_ELEMENT => reading.take(Question::Elements(map()), body),
                other => panic!("{other}"),
            }
        }
        reading.installed()
    }

    #[test]
    fn what_is_written_is_read_as_the_same() {
        let ruleset = specimen(3);
        let v4 = Contents::of(ruleset.v4(), ruleset.tun());
        let v6 = Contents::of(ruleset.v6(), ruleset.tun());
        let wrote = write("tailpod_l3", Family::V4, &diff(&Installed::Missing, &v4));
        assert_eq!(held::<Ipv4Addr>(&wrote), Installed::Ours(v4));
        let wrote = write("tailpod_l3", Family::V6, &diff(&Installed::Missing, &v6));
        assert_eq!(held::<Ipv6Addr>(&wrote), Installed::Ours(v6));
    }

    fn many(count: u16) -> Rules<Ipv4Addr> {
        let mut rules = Rules::default();
        let target =
            |port| PortTarget { addr: Ipv4Addr::new(100, 64, 0, 9), port, label: Label::new(&"x".repeat(128)) };
        let port = |port| Port { protocol: Protocol::Udp, port };
        rules.map_ports(Ipv4Addr::LOCALHOST, (0..count).map(|nth| (port(nth), target(nth))).collect());
        rules
    }

    #[test]
    fn more_elements_than_a_list_takes_are_several_lists() {
        let rules = many(60_000);
        let contents = Contents::of(&rules, &Interface::default());
        let wrote = write("t", Family::V4, &diff(&Installed::Missing, &contents));
        let lists = wrote.iter().filter(|request| request.kind & 0xff == verb::NEW_ELEMENT).count();
        assert!((100..400).contains(&lists), "{lists}");
        assert_eq!(held::<Ipv4Addr>(&wrote), Installed::Ours(contents));
    }

    #[test]
    fn the_element_that_was_refused_is_named() {
        let mut rules = many(300);
        let port = Port { protocol: Protocol::Udp, port: 299 };
        rules.ports.get_mut(&port).unwrap().label = Label::new("default-dns:UDP:299 -> UDP:53");
        let contents = Contents::of(&rules, &Interface::default());
        let wrote = write("tailpod_egress", Family::V4, &diff(&Installed::Ours(Contents::default()), &contents));
        let list = &wrote[0];
        let bytes = list.attributes.as_slice();
        let key = port_key(port);
        let at = bytes.windows(8).position(|window| window == key.as_slice()).unwrap();
        assert_eq!(
            describe(list, Some(Request::HEADERS + at)),
            "adding element \"default-dns:UDP:299 -> UDP:53\" to map ports in table ip tailpod_egress"
        );
        assert_eq!(describe(list, None), "adding elements to map ports in table ip tailpod_egress");
        assert_eq!(describe(list, Some(1 << 20)), "adding elements to map ports in table ip tailpod_egress");
    }

    #[test]
    fn a_table_with_anything_strange_in_it_is_foreign() {
        let ruleset = specimen(1);
        let contents = Contents::of(ruleset.v4(), ruleset.tun());
        let wrote = write("t", Family::V4, &diff(&Installed::Missing, &contents));
        let rule = wrote.iter().position(|request| request.kind & 0xff == verb::NEW_RULE).unwrap();
        let mut elsewhere = wrote.clone();
        let mut other = Attributes::new();
        other.text(id::TABLE, "t").text(id::RULE_CHAIN, "other");
        elsewhere[rule].attributes = other;
        assert_eq!(held::<Ipv4Addr>(&elsewhere), Installed::Foreign);
        let mut moved = wrote.clone();
        let chain = moved.iter_mut().find(|request| request.kind & 0xff == verb::NEW_CHAIN).unwrap();
        let mut other = Attributes::new();
        other.text(id::TABLE, "t").text(id::CHAIN_NAME, "tp_pre").text(id::CHAIN_TYPE, "nat");
        chain.attributes = other;
        assert_eq!(held::<Ipv4Addr>(&moved), Installed::Foreign);
    }
}
