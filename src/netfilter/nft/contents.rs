//! What a table holds, as the kernel sees it: rules as lists of expressions, elements as keys and values. Pure.
//!
//! [`Contents::of`] says it of a ruleset; read back from the kernel, it is [`Installed`]. The two compare.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::expr::{Base, Expr, FIRST, FIRST_PLUS_4, Is, Meta, Nat, SECOND};
use crate::netfilter::label::Label;
use crate::netfilter::ruleset::{
    Address, Family, Interface, Port, PortTarget, Postrouting, Prerouting, Protocol, Rules, ServiceTarget,
};
use crate::netfilter::script;

/// `IPS_DST_NAT`, in the machine's byte order like all of `ct status`.
pub const DESTINATION_TRANSLATED: u32 = 1 << 5;
/// TCP's flag of a segment that opens a connection.
pub const SYN: u8 = 0x02;
/// TCP's flag of one that refuses or ends it.
pub const RST: u8 = 0x04;

/// A chain of each of our tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    /// New flows.
    Pre,
    /// Sources.
    Post,
    /// The MSS clamp.
    Forward,
}

/// A map of each of our tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Map {
    /// Ports.
    Ports,
    /// Services.
    Services,
}

/// A rule: expressions, and the comment that lists show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it does.
    pub exprs: Vec<Expr>,
    /// What it says.
    pub label: Option<Label>,
}

/// One family's part of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents<'r, A: Clone> {
    /// By [`Chain::ALL`].
    pub rules: [Vec<Rule>; 3],
    /// [`Map::Ports`]
    pub ports: Cow<'r, BTreeMap<Port, PortTarget<A>>>,
    /// [`Map::Services`]
    pub services: Cow<'r, BTreeMap<A, ServiceTarget<A>>>,
}

/// What the kernel has under a table's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Installed<'r, A: Clone> {
    /// Nothing.
    Missing,
    /// Something that cannot be brought to what is wanted but by making it anew: other chains, other maps.
    Foreign,
    /// A table of ours.
    Ours(Contents<'r, A>),
}

/// A key or a value of a map.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Octets {
    length: usize,
    // An IPv6 address and a port in its four bytes.
    bytes: [u8; 20],
}

/// An element of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element<'r> {
    /// What is looked up.
    pub key: Octets,
    /// What it leads to.
    pub value: Octets,
    /// What it says.
    pub label: &'r Label,
}

impl Chain {
    /// All, in the order of [`Contents::rules`].
    pub const ALL: [Self; 3] = [Self::Pre, Self::Post, Self::Forward];

    /// Its name and its priority.
    pub fn name(self) -> (&'static str, i32) {
        script::CHAINS[self as usize].2
    }

    /// Its type and the number of its hook.
    pub fn hook(self) -> (&'static str, u32) {
        let number = match self {
            Self::Pre => 0,
            Self::Post => 4,
            Self::Forward => 2,
        };
        (script::CHAINS[self as usize].0, number)
    }
}

impl Map {
    /// All.
    pub const ALL: [Self; 2] = [Self::Ports, Self::Services];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ports => script::PORTS,
            Self::Services => script::SERVICES,
        }
    }

    /// The types of key and value, as nft numbers them, and their lengths. A port in company takes four bytes.
    pub fn types(self, family: Family) -> [(u32, u32); 2] {
        const PROTOCOL: u32 = 12;
        const SERVICE: u32 = 13;
        let (addr, length) = match family {
            Family::V4 => (7, 4),
            Family::V6 => (8, 16),
        };
        let and = |first: u32, second: u32| first << 6 | second;
        match self {
            Self::Ports => [(and(PROTOCOL, SERVICE), 8), (and(addr, SERVICE), length + 4)],
            Self::Services => [(addr, length), (addr, length)],
        }
    }
}

impl Octets {
    const NONE: Self = Self { length: 0, bytes: [0; 20] };

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn and(mut self, more: &[u8]) -> Self {
        for byte in more {
            if let Some(place) = self.bytes.get_mut(self.length) {
                *place = *byte;
                self.length += 1;
            }
        }
        self
    }

    /// A port has four bytes to itself.
    fn and_port(self, port: u16) -> Self {
        self.and(&port.to_be_bytes()).and(&[0, 0])
    }
}

impl std::fmt::Debug for Octets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_slice().fmt(f)
    }
}

/// The key of a port.
pub fn port_key(port: Port) -> Octets {
    Octets::NONE.and(&[port.protocol.number(), 0, 0, 0]).and_port(port.port)
}

/// The element of a port.
pub fn port_element<A: Address>(port: Port, target: &PortTarget<A>) -> Element<'_> {
    let value = Octets::NONE.and(&target.addr.bytes()).and_port(target.port);
    Element { key: port_key(port), value, label: &target.label }
}

/// The key of a Service.
pub fn service_key<A: Address>(addr: A) -> Octets {
    Octets::NONE.and(&addr.bytes())
}

/// The element of a Service.
pub fn service_element<A: Address>(addr: A, target: &ServiceTarget<A>) -> Element<'_> {
    Element { key: service_key(addr), value: service_key(target.addr), label: &target.label }
}

/// Reads the key of a port; `None` when it is none.
pub fn read_port_key(key: &[u8]) -> Option<Port> {
    let [protocol, 0, 0, 0, high, low, 0, 0] = *key else { return None };
    let protocol = [Protocol::Tcp, Protocol::Udp].into_iter().find(|known| known.number() == protocol)?;
    Some(Port { protocol, port: u16::from_be_bytes([high, low]) })
}

/// Reads an element of [`Map::Ports`]; `None` when it is not ours.
pub fn read_port<A: Address>(key: &[u8], value: &[u8], label: Label) -> Option<(Port, PortTarget<A>)> {
    let port = read_port_key(key)?;
    let (addr, target) = value.split_at_checked(value.len().checked_sub(4)?)?;
    let [high, low, 0, 0] = *target else { return None };
    Some((port, PortTarget { addr: A::from_bytes(addr)?, port: u16::from_be_bytes([high, low]), label }))
}

/// Reads an element of [`Map::Services`]; `None` when it is not ours.
pub fn read_service<A: Address>(key: &[u8], value: &[u8], label: Label) -> Option<(A, ServiceTarget<A>)> {
    Some((A::from_bytes(key)?, ServiceTarget { addr: A::from_bytes(value)?, label }))
}

impl<A: Clone> Default for Contents<'_, A> {
    /// Chains without rules, maps without elements.
    fn default() -> Self {
        Self { rules: Default::default(), ports: Cow::Owned(BTreeMap::new()), services: Cow::Owned(BTreeMap::new()) }
    }
}

impl<'r, A: Address> Contents<'r, A> {
    /// What the kernel shall have for these rules.
    pub fn of(rules: &'r Rules<A>, tun: &Interface) -> Self {
        let write = Writer { tun };
        let pre = rules.prerouting.iter().map(|rule| write.prerouting(rule)).collect();
        let post = rules.postrouting.iter().map(|rule| write.postrouting(rule)).collect();
        let forward = if rules.clamp {
            [Meta::OutputName, Meta::InputName].map(|side| write.clamp(side)).into()
        } else {
            Vec::new()
        };
        Self {
            rules: [pre, post, forward],
            ports: Cow::Borrowed(&rules.ports),
            services: Cow::Borrowed(&rules.services),
        }
    }
}

impl<A: Address> Installed<'_, A> {
    /// What is there, in a few words; `None` when nothing is.
    pub fn glance(&self) -> Option<String> {
        let family = A::FAMILY;
        match self {
            Self::Missing => None,
            Self::Foreign => Some(format!("{family}: not as boot makes it")),
            Self::Ours(contents) => {
                let rules: usize = contents.rules.iter().map(Vec::len).sum();
                let (ports, services) = (contents.ports.len(), contents.services.len());
                Some(format!("{family}: {rules} rules, {ports} ports, {services} Services"))
            }
        }
    }
}

struct Writer<'a> {
    tun: &'a Interface,
}

impl Writer<'_> {
    fn prerouting<A: Address>(&self, rule: &Prerouting<A>) -> Rule {
        match rule {
            Prerouting::Exempt { port, label } => {
                let mut exprs = self.device(Meta::InputName, Is::Unequal);
                exprs.extend([Expr::Meta(Meta::L4Protocol), Expr::Compare(Is::Equal, vec![port.protocol.number()])]);
                exprs.extend([
                    destination_port(FIRST),
                    Expr::Compare(Is::Equal, port.port.to_be_bytes().into()),
                    Expr::Accept,
                ]);
                Rule { exprs, label: Some(label.clone()) }
            }
            Prerouting::Redirect { to, every, target, label } => {
                let mut exprs = destination(*to);
                if let Some(every) = every {
                    exprs.extend([Expr::Turn(*every), Expr::Compare(Is::Equal, vec![0; 4])]);
                }
                exprs.extend(translate(Nat::Destination, *target));
                Rule { exprs, label: Some(label.clone()) }
            }
            Prerouting::Everything { target, label } => {
                let mut exprs = self.device(Meta::InputName, Is::Unequal);
                exprs.extend(translate(Nat::Destination, *target));
                Rule { exprs, label: Some(label.clone()) }
            }
            Prerouting::Ports => {
                let second = match A::FAMILY {
                    Family::V4 => FIRST_PLUS_4,
                    Family::V6 => SECOND,
                };
                let mut exprs = self.device(Meta::InputName, Is::Unequal);
                exprs.extend([
                    Expr::Meta(Meta::L4Protocol),
                    destination_port(FIRST_PLUS_4),
                    Expr::Lookup(Map::Ports.name().to_owned()),
                    Expr::Translate { nat: Nat::Destination, family: A::FAMILY, port: Some(second) },
                ]);
                Rule { exprs, label: None }
            }
            Prerouting::Services => {
                let exprs = vec![
                    load_destination::<A>(),
                    Expr::Lookup(Map::Services.name().to_owned()),
                    Expr::Translate { nat: Nat::Destination, family: A::FAMILY, port: None },
                ];
                Rule { exprs, label: None }
            }
        }
    }

    fn postrouting<A: Address>(&self, rule: &Postrouting<A>) -> Rule {
        match rule {
            Postrouting::Towards { to, source, label } => {
                let mut exprs = destination(*to);
                exprs.extend(translate(Nat::Source, *source));
                Rule { exprs, label: Some(label.clone()) }
            }
            Postrouting::Translated { source } => {
                let mut exprs = self.device(Meta::OutputName, Is::Equal);
                exprs.extend([
                    Expr::ConnectionStatus,
                    Expr::Mask(DESTINATION_TRANSLATED.to_ne_bytes().into()),
                    Expr::Compare(Is::Unequal, vec![0; 4]),
                ]);
                exprs.extend(translate(Nat::Source, *source));
                Rule { exprs, label: None }
            }
        }
    }

    fn clamp(&self, side: Meta) -> Rule {
        let mut exprs = self.device(side, Is::Equal);
        exprs.extend([
            Expr::Meta(Meta::L4Protocol),
            Expr::Compare(Is::Equal, vec![Protocol::Tcp.number()]),
            Expr::Payload { base: Base::Transport, offset: 13, length: 1, register: FIRST },
            Expr::Mask(vec![SYN | RST]),
            Expr::Compare(Is::Equal, vec![SYN]),
            Expr::RouteMss,
            Expr::ToNetworkOrder,
            Expr::WriteMss,
        ]);
        Rule { exprs, label: None }
    }

    fn device(&self, side: Meta, is: Is) -> Vec<Expr> {
        // Whole names fill the register with zeros; without them it would be a prefix.
        let mut name = self.tun.as_str().as_bytes().to_vec();
        name.resize(16, 0);
        vec![Expr::Meta(side), Expr::Compare(is, name)]
    }
}

fn load_destination<A: Address>() -> Expr {
    let (offset, length) = match A::FAMILY {
        Family::V4 => (16, 4),
        Family::V6 => (24, 16),
    };
    Expr::Payload { base: Base::Network, offset, length, register: FIRST }
}

fn destination<A: Address>(addr: A) -> Vec<Expr> {
    vec![load_destination::<A>(), Expr::Compare(Is::Equal, addr.bytes())]
}

fn destination_port(register: u32) -> Expr {
    Expr::Payload { base: Base::Transport, offset: 2, length: 2, register }
}

fn translate<A: Address>(nat: Nat, to: A) -> [Expr; 2] {
    [Expr::Constant(to.bytes()), Expr::Translate { nat, family: A::FAMILY, port: None }]
}
