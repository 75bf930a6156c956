//! Steps as messages to the kernel's nftables. Pure.
//!
//! The numbers are those of `linux/netfilter/nf_tables.h`; the tests of the real parts hold them against what nft
//! itself lists.

use std::fmt::Write as _;

use super::contents::{Chain, Element, Map, Octets, Rule};
use super::diff::Step;
use crate::netfilter::label::Label;
use crate::netfilter::netlink::Marks;
use crate::netfilter::netlink::wire::{Attributes, Request, attributes, find, flag, number, text};
use crate::netfilter::ruleset::Family;

/// `NFNL_SUBSYS_NFTABLES`
const SUBSYSTEM: u16 = 10;
/// A list of elements has to fit an attribute, and so has each element after the last that was looked at.
const LIST_LIMIT: usize = 60_000;

/// `NFT_MSG_*`
pub(super) mod verb {
    pub(in super::super) const NEW_TABLE: u16 = 0;
    pub(in super::super) const GET_TABLE: u16 = 1;
    pub(in super::super) const DELETE_TABLE: u16 = 2;
    pub(in super::super) const NEW_CHAIN: u16 = 3;
    pub(in super::super) const GET_CHAIN: u16 = 4;
    pub(in super::super) const NEW_RULE: u16 = 6;
    pub(in super::super) const GET_RULE: u16 = 7;
    pub(in super::super) const DELETE_RULE: u16 = 8;
    pub(in super::super) const NEW_SET: u16 = 9;
    pub(in super::super) const GET_SET: u16 = 10;
    pub(in super::super) const NEW_ELEMENT: u16 = 12;
    pub(in super::super) const GET_ELEMENT: u16 = 13;
    pub(in super::super) const DELETE_ELEMENT: u16 = 14;
    pub(in super::super) const GET_GENERATION: u16 = 16;
}

/// `NFTA_*`: every object names its table first, and what it is in or called second.
pub(super) mod id {
    pub(in super::super) const TABLE: u16 = 1;
    pub(in super::super) const TABLE_FLAGS: u16 = 2;
    pub(in super::super) const TABLE_USE: u16 = 3;
    pub(in super::super) const CHAIN_NAME: u16 = 3;
    pub(in super::super) const CHAIN_HOOK: u16 = 4;
    pub(in super::super) const CHAIN_POLICY: u16 = 5;
    pub(in super::super) const CHAIN_TYPE: u16 = 7;
    pub(in super::super) const HOOK_NUMBER: u16 = 1;
    pub(in super::super) const HOOK_PRIORITY: u16 = 2;
    pub(in super::super) const RULE_CHAIN: u16 = 2;
    pub(in super::super) const RULE_EXPRESSIONS: u16 = 4;
    pub(in super::super) const RULE_USER: u16 = 7;
    pub(in super::super) const SET: u16 = 2;
    pub(in super::super) const SET_FLAGS: u16 = 3;
    pub(in super::super) const SET_KEY_TYPE: u16 = 4;
    pub(in super::super) const SET_KEY_LENGTH: u16 = 5;
    pub(in super::super) const SET_VALUE_TYPE: u16 = 6;
    pub(in super::super) const SET_VALUE_LENGTH: u16 = 7;
    pub(in super::super) const SET_ID: u16 = 10;
    pub(in super::super) const SET_USER: u16 = 13;
    pub(in super::super) const ELEMENTS: u16 = 3;
    pub(in super::super) const ITEM: u16 = 1;
    pub(in super::super) const ELEMENT_KEY: u16 = 1;
    pub(in super::super) const ELEMENT_VALUE: u16 = 2;
    pub(in super::super) const ELEMENT_FLAGS: u16 = 3;
    pub(in super::super) const ELEMENT_TIMEOUT: u16 = 4;
    pub(in super::super) const ELEMENT_USER: u16 = 6;
    pub(in super::super) const VALUE: u16 = 1;
    pub(in super::super) const GENERATION: u16 = 1;
}

/// `NF_ACCEPT`, as a chain's policy.
pub(super) const ACCEPT: u32 = 1;
/// `NFT_SET_MAP`
pub(super) const IS_MAP: u32 = 8;

pub(super) fn request(verb: u16, flags: u16, family: u8, attributes: Attributes) -> Request {
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

/// Reads it back.
pub(super) fn read_comment(user: &[u8]) -> Option<Label> {
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

/// Asks for the number of the rules' generation, which every change of whatever table counts up.
pub fn generation() -> Request {
    request(verb::GET_GENERATION, 0, 0, Attributes::new())
}

/// The number in the answer.
pub fn read_generation(answer: &[u8]) -> Option<u32> {
    number(answer, id::GENERATION)
}

#[cfg(test)]
mod tests;
