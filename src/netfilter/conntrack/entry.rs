//! The kernel's table of flows, as messages. Pure.
//!
//! `linux/netfilter/nfnetlink_conntrack.h`; netfilter.md 9.4 has the numbers.

use super::stale::Flow;
use crate::netfilter::netlink::wire::{Attributes, Request, find, flag};
use crate::netfilter::ruleset::{Address, Family, Protocol};

/// `NFNL_SUBSYS_CTNETLINK`
const SUBSYSTEM: u16 = 1;
/// `IPCTNL_MSG_CT_GET`, `IPCTNL_MSG_CT_DELETE`
const GET: u16 = 1;
const DELETE: u16 = 2;

/// `CTA_*`
mod id {
    pub(super) const ORIGINAL: u16 = 1;
    pub(super) const REPLY: u16 = 2;
    pub(super) const ADDRESSES: u16 = 1;
    pub(super) const PORTS: u16 = 2;
    pub(super) const PROTOCOL: u16 = 1;
    pub(super) const SOURCE_PORT: u16 = 2;
    pub(super) const DESTINATION_PORT: u16 = 3;
}

/// Asks for all flows of a family.
pub fn list(family: Family) -> Request {
    request(GET, flag::DUMP, family, Attributes::new())
}

/// Has the kernel forget a flow, by the original tuple as it was listed.
pub fn forget(family: Family, original: &[u8]) -> Request {
    let mut attributes = Attributes::new();
    attributes.nested(id::ORIGINAL, |tuple| {
        tuple.copied(original);
    });
    request(DELETE, flag::ACK, family, attributes)
}

fn request(verb: u16, flags: u16, family: Family, attributes: Attributes) -> Request {
    Request { kind: SUBSYSTEM << 8 | verb, flags, family: family.number(), resource: 0, attributes }
}

/// Reads a listed flow, if it is one of UDP; the original tuple comes with it.
pub fn read_udp<A: Address>(listed: &[u8]) -> Option<(Flow<A>, &[u8])> {
    let original = find(listed, id::ORIGINAL)?;
    let protocol = find(find(original, id::PORTS)?, id::PROTOCOL)?;
    if *protocol != [Protocol::Udp.number()] {
        return None;
    }
    let reply = find(listed, id::REPLY)?;
    let flow = Flow {
        source: address(original, End::Source)?,
        destination: address(original, End::Destination)?,
        port: port(original, id::DESTINATION_PORT)?,
        answerer: address(reply, End::Source)?,
        answering_port: port(reply, id::SOURCE_PORT)?,
        answered: address(reply, End::Destination)?,
    };
    Some((flow, original))
}

#[derive(Clone, Copy)]
enum End {
    Source,
    Destination,
}

fn address<A: Address>(tuple: &[u8], end: End) -> Option<A> {
    let number = match (A::FAMILY, end) {
        (Family::V4, End::Source) => 1,
        (Family::V4, End::Destination) => 2,
        (Family::V6, End::Source) => 3,
        (Family::V6, End::Destination) => 4,
    };
    A::from_bytes(find(find(tuple, id::ADDRESSES)?, number)?)
}

fn port(tuple: &[u8], number: u16) -> Option<u16> {
    find(find(tuple, id::PORTS)?, number)?.try_into().ok().map(u16::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn tuple(attributes: &mut Attributes, number: u16, protocol: u8, ends: [([u8; 4], u16); 2]) {
        attributes.nested(number, |tuple| {
            tuple.nested(id::ADDRESSES, |addrs| {
                addrs.bytes(1, &ends[0].0).bytes(2, &ends[1].0);
            });
            tuple.nested(id::PORTS, |ports| {
                ports.bytes(id::PROTOCOL, &[protocol]);
                ports.bytes(id::SOURCE_PORT, &ends[0].1.to_be_bytes());
                ports.bytes(id::DESTINATION_PORT, &ends[1].1.to_be_bytes());
            });
        });
    }

    fn listed(protocol: u8) -> Attributes {
        let mut listed = Attributes::new();
        tuple(&mut listed, id::ORIGINAL, protocol, [([10, 42, 0, 7], 5000), ([10, 42, 0, 2], 10003)]);
        tuple(&mut listed, id::REPLY, protocol, [([100, 64, 0, 9], 53), ([100, 64, 0, 1], 5000)]);
        listed
    }

    #[test]
    fn a_flow_is_read_and_forgotten_by_its_first_packet() {
        let listing = listed(17);
        let (flow, original) = read_udp::<Ipv4Addr>(listing.as_slice()).unwrap();
        let expected = Flow {
            source: [10, 42, 0, 7].into(),
            destination: [10, 42, 0, 2].into(),
            port: 10003,
            answerer: [100, 64, 0, 9].into(),
            answering_port: 53,
            answered: [100, 64, 0, 1].into(),
        };
        assert_eq!(flow, expected);
        let request = forget(Family::V4, original);
        let half = listing.as_slice().len() / 2;
        assert_eq!(request.attributes.as_slice(), &listing.as_slice()[..half], "nested, and unchanged");
        assert_eq!((request.kind, request.flags), (0x102, flag::ACK));
    }

    #[test]
    fn tcp_is_none_of_it() {
        assert_eq!(read_udp::<Ipv4Addr>(listed(6).as_slice()), None);
        assert_eq!(read_udp::<Ipv4Addr>(&[]), None);
    }
}
