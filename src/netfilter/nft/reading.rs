//! The kernel's messages about a table, put together to what the table holds. Pure.
//!
//! Whatever is in the table that we would not have made makes it foreign: it is not mended but made anew.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::contents::{Chain, Contents, Installed, Map, Rule, read_port, read_service};
use super::expr::Expr;
use super::message::{ACCEPT, IS_MAP, id, read_comment, request, verb};
use crate::netfilter::label::Label;
use crate::netfilter::netlink::wire::{Attributes, Request, attributes, find, flag, number, text};
use crate::netfilter::ruleset::{Address, Family, Port, PortTarget, ServiceTarget, Table};

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
mod tests;
