//! Which way the packet filter of this namespace can be programmed, found out without changing it.
//!
//! What a firewall needs to do for us is asked of the kernel as a whole and then not done, so neither the presence of a
//! program nor a version number stands for the ability (netfilter.md 9.1 and 9.2, weaknesses N13 and N14). IPv6 is
//! judged apart: without it IPv4 works on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use super::firewall::Backend;
use super::iptables::{self, Iptables};
use super::label::Label;
use super::nft::{Families, Nft};
use super::ruleset::{Address, Family, Interface, Port, PortTarget, Protocol, Rules, Ruleset, ServiceTarget, Table};

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
#[derive(Clone, Debug)]
pub struct Found {
    pub(super) backend: Backend,
    /// The name that `TS_DEBUG_FIREWALL_MODE` knows it by.
    pub name: &'static str,
    /// The program's version, or the kernel's.
    pub version: String,
    /// IPv6, or why not.
    pub ipv6: Result<(), String>,
    /// Whether flows can be dealt out in turn.
    pub turns: bool,
    /// Why this one.
    pub reason: String,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}), ", self.name, self.version)?;
        match &self.ipv6 {
            Ok(()) => f.write_str("with IPv6: ")?,
            Err(why) => write!(f, "without IPv6 ({why}): ")?,
        }
        f.write_str(&self.reason)
    }
}

/// Why a backend does not work.
#[derive(Debug)]
pub(super) struct Unfit {
    pub(super) reason: String,
    /// Whether for want of a capability.
    pub(super) denied: bool,
}

/// Looks for one that works and changes nothing by it. `root` is what `TS_TEST_ONLY_ROOT` says.
///
/// # Errors
///
/// None works, or not the one that was asked for.
pub async fn choose(mode: Mode, root: &Path) -> Result<Found, OpenError> {
    let mut unfit = Vec::new();
    let mut without_turns = None;
    if mode != Mode::Iptables {
        match nft(root).await {
            Ok(mut found) if found.turns || mode == Mode::Nftables => {
                found.reason = reason(mode, "a dry run passed");
                return Ok(found);
            }
            Ok(found) => without_turns = Some(found),
            Err(why) => unfit.push(why),
        }
    }
    if mode != Mode::Nftables {
        match iptables(root).await {
            Ok(mut found) if found.turns || without_turns.is_none() => {
                let why = unfit.first().map_or("nftables: cannot deal flows out in turn", |why| &why.reason);
                found.reason = reason(mode, why);
                return Ok(found);
            }
            Ok(_) => {}
            Err(why) => unfit.push(why),
        }
    }
    if let Some(mut found) = without_turns {
        found.reason = reason(mode, "a dry run passed, but for dealing flows out in turn");
        return Ok(found);
    }
    let denied = unfit.iter().any(|why| why.denied) || lacks_net_admin();
    Err(OpenError { reasons: unfit.into_iter().map(|why| why.reason).collect(), denied })
}

fn reason(mode: Mode, why: &str) -> String {
    match mode {
        Mode::Auto => why.to_owned(),
        Mode::Nftables | Mode::Iptables => "TS_DEBUG_FIREWALL_MODE asks for it".to_owned(),
    }
}

async fn nft(root: &Path) -> Result<Found, Unfit> {
    let (plain, shared) = (specimen(1), specimen(2));
    let mut ipv6 = kernel_has_ipv6(root);
    let mut turns = true;
    // Mostly all of it works; what does not is looked for only then.
    if ipv6.is_err() || Nft::dry_run(Families::Both, &shared).await.is_err() {
        Nft::dry_run(Families::V4, &plain)
            .await
            .map_err(|why| Unfit { reason: format!("nftables: {}", why.reason), ..why })?;
        if ipv6.is_ok() {
            ipv6 = Nft::dry_run(Families::Both, &plain).await.map_err(|why| why.reason);
        }
        turns = Nft::dry_run(Families::V4, &shared).await.is_ok();
    }
    let families = if ipv6.is_ok() { Families::Both } else { Families::V4 };
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let version = format!("kernel {}", release.trim());
    let backend = Backend::Nft(Nft::new(families));
    Ok(Found { backend, name: "nftables", version, ipv6, turns, reason: String::new() })
}

async fn iptables(root: &Path) -> Result<Found, Unfit> {
    let (plain, shared) = (specimen(1), specimen(2));
    let mut first = None;
    for flavour in iptables::FLAVOURS {
        let v4 = Iptables::new(flavour, &[Family::V4]);
        if let Err(error) = v4.dry_run(&plain).await {
            first.get_or_insert(error);
            continue;
        }
        let both = Iptables::new(flavour, &Family::ALL);
        let mut ipv6 = kernel_has_ipv6(root);
        if ipv6.is_ok() {
            ipv6 = both.dry_run(&plain).await.map_err(|error| error.to_string());
        }
        let turns = v4.dry_run(&shared).await.is_ok();
        let version = v4.version().await.unwrap_or_else(|error| error.to_string());
        let backend = Backend::Iptables(if ipv6.is_ok() { both } else { v4 });
        return Ok(Found { backend, name: "iptables", version, ipv6, turns, reason: String::new() });
    }
    let reason = first.map(|error| error.to_string()).unwrap_or_default();
    Err(Unfit { reason: format!("iptables: {reason}"), denied: false })
}

/// Programs say it in words, so the kernel is asked: bit 12 of our effective capabilities.
fn lacks_net_admin() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_some_and(|bits| bits >> 12 & 1 == 0)
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
    fn one_line_says_which_and_why() {
        let found = |ipv6| Found {
            backend: Backend::Nft(Nft::new(Families::V4)),
            name: "nftables",
            version: "kernel 6.18".to_owned(),
            ipv6,
            turns: true,
            reason: reason(Mode::Auto, "a dry run passed"),
        };
        assert_eq!(found(Ok(())).to_string(), "nftables (kernel 6.18), with IPv6: a dry run passed");
        let without = found(Err("the kernel has none".to_owned())).to_string();
        assert_eq!(without, "nftables (kernel 6.18), without IPv6 (the kernel has none): a dry run passed");
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
