//! Which way the packet filter of this namespace can be programmed, found out without changing it.
//!
//! What a firewall needs to do for us is asked of the kernel as a whole and then not done, so neither the presence of a
//! program nor a version number stands for the ability (netfilter.md 9.1 and 9.2, weaknesses N13 and N14). IPv6 is
//! judged apart: without it IPv4 works on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use super::label::Label;
use super::nft::contents::Features;
use super::nft::{Families, Nft};
use super::ruleset::{Address, Interface, Port, PortTarget, Protocol, Rules, Ruleset, ServiceTarget, Table};

/// What `TS_DEBUG_FIREWALL_MODE` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Whatever works, nftables first.
    Auto,
    /// `nftables`
    Nftables,
    /// `iptables`
    Iptables,
}

impl Mode {
    /// Reads the variable; `None` for a word that means nothing.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "auto" => Some(Self::Auto),
            "nftables" => Some(Self::Nftables),
            "iptables" => Some(Self::Iptables),
            _ => None,
        }
    }
}

/// Why no packet filter can be programmed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no packet filter can be programmed: {}{}", reasons.join("; "), remedy(*.denied))]
pub struct OpenError {
    /// What each backend that was asked for said.
    pub reasons: Vec<String>,
    /// Whether a capability is missing.
    pub denied: bool,
}

fn remedy(denied: bool) -> &'static str {
    if denied {
        "; the container lacks the capability CAP_NET_ADMIN: give it \
         `securityContext: {capabilities: {add: [NET_ADMIN, NET_RAW]}}`"
    } else {
        ""
    }
}

/// Whether there is IPv6 to be translated, with the reason if not (netfilter.md 2.3, steps 1 and 2).
pub(super) fn kernel_has_ipv6(root: &Path) -> Result<(), String> {
    let dir = root.join("proc/sys/net/ipv6");
    if !dir.exists() {
        return Err("the kernel has none".to_owned());
    }
    let switch = "conf/all/disable_ipv6";
    match fs::read_to_string(dir.join(switch)).map(|text| text.trim().to_owned()) {
        Ok(text) if text == "0" => Ok(()),
        Ok(text) => Err(format!("net/ipv6/{switch} is {text}")),
        Err(error) => Err(format!("net/ipv6/{switch} cannot be read: {error}")),
    }
}

/// A ruleset with one of everything, in addresses that are nobody's. `backends` is how many share the flows.
pub(super) fn specimen(backends: u8) -> Ruleset {
    let mut ruleset = Ruleset::empty(Table::L3, Interface::default());
    let v4 = |last| Ipv4Addr::new(192, 0, 2, last);
    fill(ruleset.v4_mut(), v4, backends);
    let v6 = |last: u8| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into());
    fill(ruleset.v6_mut(), v6, backends);
    ruleset
}

fn fill<A: Address>(rules: &mut Rules<A>, addr: impl Fn(u8) -> A, backends: u8) {
    let (port, label) = (Port { protocol: Protocol::Tcp, port: 1 }, Label::new("probe"));
    rules.ingress(addr(9), &(10..10 + backends).map(&addr).collect::<BTreeSet<_>>(), "probe");
    rules.egress(addr(1), addr(2), &BTreeMap::from([(port, "probe")]), "probe");
    rules.map_ports(addr(1), [(port, PortTarget { addr: addr(2), port: 1, label: label.clone() })].into());
    rules.map_services([(addr(3), ServiceTarget { addr: addr(4), label })].into());
}

/// A backend that works, and what is to be said about it.
#[derive(Debug)]
pub(super) struct Found<B> {
    pub(super) backend: B,
    /// The program's version, or the kernel's.
    pub(super) version: String,
    /// IPv6, or why not.
    pub(super) ipv6: Result<(), String>,
}

/// Why a backend does not work.
#[derive(Debug)]
pub(super) struct Unfit {
    pub(super) reason: String,
    /// Whether for want of a capability.
    pub(super) denied: bool,
}

/// Asks nftables.
pub(super) async fn nft(root: &Path) -> Result<Found<Nft>, Unfit> {
    let (plain, shared) = (specimen(1), specimen(2));
    let mut ipv6 = kernel_has_ipv6(root);
    let mut turns = true;
    // Mostly all of it works; what does not is looked for only then.
    if ipv6.is_err() || Nft::dry_run(Families::Both, &shared).await.is_err() {
        Nft::dry_run(Families::V4, &plain).await?;
        if ipv6.is_ok() {
            ipv6 = Nft::dry_run(Families::Both, &plain).await.map_err(|unfit| unfit.reason);
        }
        turns = Nft::dry_run(Families::V4, &shared).await.is_ok();
    }
    let families = if ipv6.is_ok() { Families::Both } else { Families::V4 };
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let version = format!("kernel {}", release.trim());
    Ok(Found { backend: Nft::new(families, Features { turns }), version, ipv6 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_words_choose() {
        assert_eq!(Mode::parse("nftables"), Some(Mode::Nftables));
        assert_eq!(Mode::parse("iptables"), Some(Mode::Iptables));
        assert_eq!((Mode::parse(""), Mode::parse("auto")), (Some(Mode::Auto), Some(Mode::Auto)));
        assert_eq!((Mode::parse("nft"), Mode::parse("IPTABLES")), (None, None));
    }

    #[test]
    fn ipv6_is_there_only_if_it_is_not_switched_off() {
        let root = tempfile::tempdir().unwrap();
        let verdict = || kernel_has_ipv6(root.path());
        assert_eq!(verdict(), Err("the kernel has none".to_owned()));
        let all = root.path().join("proc/sys/net/ipv6/conf/all");
        fs::create_dir_all(&all).unwrap();
        assert!(verdict().unwrap_err().starts_with("net/ipv6/conf/all/disable_ipv6 cannot be read"));
        fs::write(all.join("disable_ipv6"), "1\n").unwrap();
        assert_eq!(verdict(), Err("net/ipv6/conf/all/disable_ipv6 is 1".to_owned()));
        fs::write(all.join("disable_ipv6"), "0\n").unwrap();
        assert_eq!(verdict(), Ok(()));
    }

    #[test]
    fn the_error_names_the_capability_and_where_it_is_given() {
        let reasons = vec!["nftables: Operation not permitted".to_owned(), "iptables: no such program".to_owned()];
        let text = OpenError { reasons, denied: true }.to_string();
        for part in ["nftables: Operation", "iptables: no", "CAP_NET_ADMIN", "securityContext", "NET_ADMIN, NET_RAW"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let other = OpenError { reasons: vec!["nftables: Not supported".to_owned()], denied: false };
        assert_eq!(other.to_string(), "no packet filter can be programmed: nftables: Not supported");
    }
}
