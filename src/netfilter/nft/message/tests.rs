use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::netfilter::label::Label;
use crate::netfilter::netlink::wire::{Answer, messages};
use crate::netfilter::nft::contents::{Contents, Installed, port_key};
use crate::netfilter::nft::diff::diff;
use crate::netfilter::nft::reading::{Question, Reading};
use crate::netfilter::probe::specimen;
use crate::netfilter::ruleset::{Address, Interface, Port, PortTarget, Protocol, Rules};

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
    let target = |port| PortTarget { addr: Ipv4Addr::new(100, 64, 0, 9), port, label: Label::new(&"x".repeat(128)) };
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
