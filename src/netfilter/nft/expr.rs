//! The expressions that a rule consists of, to bytes and back. Pure.
//!
//! A rule is a small program over registers: load something, compare it, act (`linux/netfilter/nf_tables.h`; nft shows
//! it with `--debug=netlink`). Only what our rules need is known here. Reading is lenient where kernels differ, since
//! newer ones say more about an expression than was asked for, and strict where the meaning would differ: whatever is
//! not ours becomes [`Expr::Other`].

use crate::netfilter::netlink::wire::{Attributes, attributes, find, number, text};
use crate::netfilter::ruleset::Family;

/// The register that everything here goes through: 16 bytes, and the next ones if need be.
pub const FIRST: u32 = 1;
/// The second 4 bytes of [`FIRST`].
pub const FIRST_PLUS_4: u32 = 9;
/// The 16 bytes after [`FIRST`].
pub const SECOND: u32 = 2;

/// What is known of a packet besides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Meta {
    /// The device it came in by.
    InputName = 6,
    /// The device it leaves by.
    OutputName = 7,
    /// The transport protocol.
    L4Protocol = 16,
}

/// Where offsets in a packet count from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Base {
    /// The IP header.
    Network = 1,
    /// The header after it.
    Transport = 2,
}

/// A comparison that ends the rule unless it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Is {
    /// `==`
    Equal = 0,
    /// `!=`
    Unequal = 1,
}

/// Which end of a flow is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Nat {
    /// Where it comes from.
    Source = 0,
    /// Where it goes.
    Destination = 1,
}

/// One expression. Unless a register is named, it is [`FIRST`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// Loads a fact.
    Meta(Meta),
    /// Loads the state of the flow's translation and the like (`ct status`).
    ConnectionStatus,
    /// Loads bytes of the packet.
    Payload {
        /// Where offsets count from.
        base: Base,
        /// The first byte.
        offset: u32,
        /// How many.
        length: u32,
        /// Where to.
        register: u32,
    },
    /// Compares.
    Compare(Is, Vec<u8>),
    /// Keeps some bits.
    Mask(Vec<u8>),
    /// Loads 0, 1, …, n - 1, 0, … with each packet that comes by.
    Turn(u32),
    /// Loads a constant.
    Constant(Vec<u8>),
    /// Replaces the register by what a map has for it, or ends the rule.
    Lookup(String),
    /// Translates to the address in the register.
    Translate {
        /// Which end.
        nat: Nat,
        /// The family.
        family: Family,
        /// Where the port is, if it is translated.
        port: Option<u32>,
    },
    /// Lets the packet pass.
    Accept,
    /// Loads the largest segment that the route takes.
    RouteMss,
    /// Brings two bytes into network order.
    ToNetworkOrder,
    /// Writes two bytes into the TCP option of the largest segment, if it is there and more.
    WriteMss,
    /// Something that is not ours.
    Other(String),
}

/// `NFTA_*`: the numbers of an expression's attributes, by the expression they are of.
mod id {
    pub(super) const NAME: u16 = 1;
    pub(super) const DATA: u16 = 2;
    pub(super) const ITEM: u16 = 1;
    pub(super) const VALUE: u16 = 1;
    pub(super) const VERDICT: u16 = 2;
    pub(super) const CODE: u16 = 1;
}

/// `NF_ACCEPT`
const ACCEPT: u32 = 1;
/// `NFT_CT_STATUS`
const CT_STATUS: u32 = 2;
/// `NFT_RT_TCPMSS`
const RT_TCP_MSS: u32 = 3;
/// `NFT_EXTHDR_OP_TCPOPT`
const TCP_OPTION: u32 = 1;
/// `TCPOPT_MAXSEG`; the value stands after kind and length, in two bytes.
const MAX_SEGMENT: u8 = 2;

impl Expr {
    /// Appends it to a rule's list.
    pub fn write(&self, list: &mut Attributes) {
        list.nested(id::ITEM, |item| {
            item.text(id::NAME, self.name()).nested(id::DATA, |data| self.write_data(data));
        });
    }

    /// What the kernel calls it.
    pub fn name(&self) -> &str {
        match self {
            Self::Meta(_) => "meta",
            Self::ConnectionStatus => "ct",
            Self::Payload { .. } => "payload",
            Self::Compare(..) => "cmp",
            Self::Mask(_) => "bitwise",
            Self::Turn(_) => "numgen",
            Self::Constant(_) | Self::Accept => "immediate",
            Self::Lookup(_) => "lookup",
            Self::Translate { .. } => "nat",
            Self::RouteMss => "rt",
            Self::ToNetworkOrder => "byteorder",
            Self::WriteMss => "exthdr",
            Self::Other(name) => name,
        }
    }

    fn write_data(&self, data: &mut Attributes) {
        match self {
            Self::Meta(key) => data.number(2, *key as u32).number(1, FIRST),
            Self::ConnectionStatus => data.number(1, FIRST).number(2, CT_STATUS),
            Self::Payload { base, offset, length, register } => {
                data.number(1, *register).number(2, *base as u32).number(3, *offset).number(4, *length)
            }
            Self::Compare(is, value) => data.number(1, FIRST).number(2, *is as u32).nested(3, |data| {
                data.bytes(id::VALUE, value);
            }),
            Self::Mask(mask) => {
                let zero = vec![0; mask.len()];
                data.number(1, FIRST).number(2, FIRST).number(3, u32::try_from(mask.len()).unwrap_or_default());
                data.nested(4, |data| {
                    data.bytes(id::VALUE, mask);
                });
                data.nested(5, |data| {
                    data.bytes(id::VALUE, &zero);
                })
            }
            Self::Turn(modulus) => data.number(1, FIRST).number(2, *modulus).number(3, 0).number(4, 0),
            Self::Constant(value) => data.number(1, FIRST).nested(2, |data| {
                data.bytes(id::VALUE, value);
            }),
            Self::Accept => data.number(1, 0).nested(2, |data| {
                data.nested(id::VERDICT, |verdict| {
                    verdict.number(id::CODE, ACCEPT);
                });
            }),
            Self::Lookup(map) => data.text(1, map).number(2, FIRST).number(3, FIRST),
            Self::Translate { nat, family, port } => {
                data.number(1, *nat as u32).number(2, family.number().into()).number(3, FIRST);
                match port {
                    Some(port) => data.number(5, *port),
                    None => data,
                }
            }
            Self::RouteMss => data.number(1, FIRST).number(2, RT_TCP_MSS),
            Self::ToNetworkOrder => data.number(1, FIRST).number(2, FIRST).number(3, 1).number(4, 2).number(5, 2),
            Self::WriteMss => {
                data.number(7, FIRST).bytes(2, &[MAX_SEGMENT]).number(3, 2).number(4, 2).number(6, TCP_OPTION)
            }
            // Only what was read can be this, and that is not written.
            Self::Other(_) => data,
        };
    }

    /// Reads a rule's list.
    pub fn read_all(list: &[u8]) -> Vec<Self> {
        let items = attributes(list).filter(|(number, _)| *number == id::ITEM);
        items
            .map(|(_, item)| {
                let name = text(item, id::NAME).unwrap_or_default();
                let data = find(item, id::DATA).unwrap_or_default();
                Self::read(&name, data).unwrap_or(Self::Other(name))
            })
            .collect()
    }

    fn read(name: &str, data: &[u8]) -> Option<Self> {
        let is = |id: u16, wanted: u32| number(data, id).unwrap_or_default() == wanted;
        let value = |id: u16| find(find(data, id)?, id::VALUE).map(<[u8]>::to_vec);
        let through_first = |ids: &[u16]| ids.iter().all(|id| is(*id, FIRST));
        let expr = match name {
            "meta" => {
                let keys = [Meta::InputName, Meta::OutputName, Meta::L4Protocol];
                let key = keys.into_iter().find(|key| is(2, *key as u32))?;
                through_first(&[1]).then_some(Self::Meta(key))?
            }
            "ct" => (through_first(&[1]) && is(2, CT_STATUS)).then_some(Self::ConnectionStatus)?,
            "payload" => Self::Payload {
                base: [Base::Network, Base::Transport].into_iter().find(|base| is(2, *base as u32))?,
                offset: number(data, 3)?,
                length: number(data, 4)?,
                register: number(data, 1)?,
            },
            "cmp" => {
                let is = [Is::Equal, Is::Unequal].into_iter().find(|op| is(2, *op as u32))?;
                through_first(&[1]).then_some(Self::Compare(is, value(3)?))?
            }
            "bitwise" => {
                let mask = value(4)?;
                let plain = value(5)?.iter().all(|byte| *byte == 0) && is(6, 0);
                (through_first(&[1, 2]) && plain).then_some(Self::Mask(mask))?
            }
            "numgen" => (through_first(&[1]) && is(3, 0) && is(4, 0)).then_some(Self::Turn(number(data, 2)?))?,
            "immediate" if is(1, 0) => {
                let verdict = find(find(data, 2)?, id::VERDICT)?;
                (number(verdict, id::CODE)? == ACCEPT).then_some(Self::Accept)?
            }
            "immediate" => through_first(&[1]).then_some(Self::Constant(value(2)?))?,
            "lookup" => (through_first(&[2, 3]) && is(5, 0)).then_some(Self::Lookup(text(data, 1)?))?,
            "nat" => Self::read_nat(data)?,
            "rt" => (through_first(&[1]) && is(2, RT_TCP_MSS)).then_some(Self::RouteMss)?,
            "byteorder" => {
                let plain = is(3, 1) && is(4, 2) && is(5, 2);
                (through_first(&[1, 2]) && plain).then_some(Self::ToNetworkOrder)?
            }
            "exthdr" => {
                let plain = find(data, 2)? == [MAX_SEGMENT] && is(3, 2) && is(4, 2) && is(6, TCP_OPTION);
                (through_first(&[7]) && plain).then_some(Self::WriteMss)?
            }
            _ => return None,
        };
        Some(expr)
    }

    fn read_nat(data: &[u8]) -> Option<Self> {
        // NF_NAT_RANGE_MAP_IPS and _PROTO_SPECIFIED: what the kernel says of itself to any translation.
        const PLAIN: u32 = 3;
        let is = |id: u16, wanted: u32| number(data, id).unwrap_or_default() == wanted;
        let nat = [Nat::Source, Nat::Destination].into_iter().find(|nat| is(1, *nat as u32))?;
        let family = Family::ALL.into_iter().find(|family| is(2, family.number().into()))?;
        let one_address = is(3, FIRST) && number(data, 4).is_none_or(|end| end == FIRST);
        let port = number(data, 5);
        let one_port = number(data, 6).is_none_or(|end| Some(end) == port);
        let plain = number(data, 7).unwrap_or_default() & !PLAIN == 0;
        (one_address && one_port && plain).then_some(Self::Translate { nat, family, port })
    }
}
