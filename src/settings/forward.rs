//! What the node forwards between cluster and tailnet, as the settings say it (netfilter.md 1, boot.md 2.2).
//!
//! The variables that exclude each other are one enum, and every address is one.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use super::problem::Problem;
use super::reader::Reader;
use super::vars::{self, Var};
use super::{NoteLevel, Persona, Pod, parse};
use crate::fqdn::Fqdn;

/// Everything that is forwarded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forward {
    /// Where traffic from the tailnet goes.
    pub ingress: Option<Ingress>,
    /// Where traffic from the cluster goes.
    pub egress: Option<Egress>,
    /// The Pod's addresses whose traffic goes to the node itself; empty unless
    /// `EXPERIMENTAL_ALLOW_PROXYING_CLUSTER_TRAFFIC_VIA_INGRESS` asks for it.
    pub via_ingress: BTreeSet<IpAddr>,
    /// `TS_EGRESS_PROXIES_CONFIG_PATH`: the directory with the egress Services' config.
    pub egress_config: Option<PathBuf>,
    /// `TS_INGRESS_PROXIES_CONFIG_PATH`: the file with the ingress Services' config.
    pub ingress_config: Option<PathBuf>,
    /// Which ports stay ours where everything from the cluster side is forwarded.
    pub exemptions: Exemptions,
    /// The port of tailscaled's WireGuard socket, where it is given (`PORT`, `--port`).
    pub wireguard_port: Option<u16>,
    /// The TUN device's name, where it is given (`--tun`).
    pub tun: Option<String>,
    /// How the packet filter is programmed.
    pub firewall: FirewallMode,
}

/// Where traffic from the tailnet goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ingress {
    /// `TS_DEST_IP`
    Ip(IpAddr),
    /// `TS_EXPERIMENTAL_DEST_DNS_NAME`: the addresses behind this name, in turn.
    Dns(String),
}

/// Where traffic from the cluster goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Egress {
    /// `TS_TAILNET_TARGET_IP`
    Ip(IpAddr),
    /// `TS_TAILNET_TARGET_FQDN`
    Fqdn(Fqdn),
}

/// `TAILPOD_EGRESS_EXEMPTIONS`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Exemptions {
    /// What this node itself listens on: probes, metrics, WireGuard (N7).
    #[default]
    Own,
    /// Nothing, as upstream.
    Nothing,
}

/// `TS_DEBUG_FIREWALL_MODE`, or the one in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FirewallMode {
    /// Whatever works, nftables first.
    #[default]
    Auto,
    /// nftables or nothing.
    Nftables,
    /// iptables or nothing.
    Iptables,
    /// `TS_TEST_FAKE_NETFILTER`
    Fake {
        /// `TS_TEST_FAKE_NETFILTER_6`
        ipv6: bool,
    },
}

impl FirewallMode {
    /// The spelling that `--print-settings` shows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
            Self::Fake { .. } => "fake",
        }
    }
}

impl Forward {
    /// Whether the node's own rules are asked for (M1 to M5).
    pub fn has_own_rules(&self) -> bool {
        self.ingress.is_some() || self.egress.is_some() || !self.via_ingress.is_empty()
    }

    /// Whether any rules are: the "L3 proxy" of boot.md 1.2.
    pub fn is_l3(&self) -> bool {
        self.has_own_rules() || self.egress_config.is_some() || self.ingress_config.is_some()
    }

    /// Whether names of the tailnet have to be looked up, for which the node's peers must be known.
    pub fn needs_peers(&self) -> bool {
        matches!(self.egress, Some(Egress::Fqdn(_))) || self.egress_config.is_some()
    }

    /// Reads all of it. Rules 4 to 9, 17 to 19, 25 and 26 are checked elsewhere, in upstream's order; where one of them
    /// is broken, what comes out here is of no use to anybody.
    pub(super) fn read(read: &mut Reader<'_>, pod: Option<&Pod>, daemon_args: &[String]) -> Self {
        let dest_ip = address(read, vars::TS_DEST_IP, "invalid cluster destination IP");
        let target_ip = address(read, vars::TS_TAILNET_TARGET_IP, "invalid tailnet destination IP");
        let dest_name = read.text(vars::TS_EXPERIMENTAL_DEST_DNS_NAME);
        let target_fqdn = read.text(vars::TS_TAILNET_TARGET_FQDN).and_then(|text| match text.parse() {
            Ok(name) => Some(name),
            Err(error) => {
                read.report_late(Problem::once(format!("TS_TAILNET_TARGET_FQDN: {error}")));
                None
            }
        });
        let egress = target_ip.map(Egress::Ip).or_else(|| target_fqdn.map(Egress::Fqdn));
        let egress_config = read.text(vars::TS_EGRESS_PROXIES_CONFIG_PATH).map(PathBuf::from);
        let pod_ips: BTreeSet<IpAddr> = pod.into_iter().flat_map(|pod| pod.ipv4.into_iter().chain(pod.ipv6)).collect();
        let via_ingress = via_ingress(read, &pod_ips);
        if egress.is_some() || egress_config.is_some() {
            shared_addresses(read, &pod_ips);
        }
        let exemptions = match read.one_of(vars::TAILPOD_EGRESS_EXEMPTIONS) {
            Ok("none") => Exemptions::Nothing,
            _ => Exemptions::Own,
        };
        let wireguard_port = flag(daemon_args, "port").or_else(|| read.text(vars::PORT));
        Self {
            ingress: dest_ip.map(Ingress::Ip).or_else(|| dest_name.map(Ingress::Dns)),
            egress,
            via_ingress,
            egress_config,
            ingress_config: read.text(vars::TS_INGRESS_PROXIES_CONFIG_PATH).map(PathBuf::from),
            exemptions,
            // tailscaled itself says what is wrong with a port; 0 is one that it chooses.
            wireguard_port: wireguard_port.and_then(|text| text.parse().ok()).filter(|port| *port != 0),
            tun: flag(daemon_args, "tun"),
            firewall: firewall(read),
        }
    }
}

/// The last value of a flag of tailscaled: `--f=v`, `-f=v`, `--f v`, `-f v`.
fn flag(args: &[String], name: &str) -> Option<String> {
    let mut value = None;
    let mut args = args.iter().peekable();
    while let Some(arg) = args.next() {
        let Some(flag) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else { continue };
        match flag.split_once('=') {
            Some((flag, given)) if flag == name => value = Some(given.to_owned()),
            None if flag == name => value = args.peek().map(|next| (*next).clone()),
            _ => {}
        }
    }
    value
}

/// An address; what upstream finds out while it prepares the host (W18). `what` is its word for it.
fn address(read: &mut Reader<'_>, var: &Var, what: &str) -> Option<IpAddr> {
    let text = read.text(var)?;
    parse::ip(&text)
        .map_err(|error| match read.persona() {
            Persona::Containerboot => {
                read.report(Problem::bare(format!("Failed to enable IP forwarding: {what}: {error}")))
            }
            Persona::Tailpod => read.report(Problem::once(format!("{}={text:?}: not an IP address", var.name))),
        })
        .ok()
}

/// All addresses of the Pod, not only the one of its first family (N17).
fn via_ingress(read: &mut Reader<'_>, pod_ips: &BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
    if !read.boolean(vars::EXPERIMENTAL_ALLOW_PROXYING_CLUSTER_TRAFFIC_VIA_INGRESS) {
        return BTreeSet::new();
    }
    let Some(text) = read.text(vars::POD_IP) else { return BTreeSet::new() };
    let Ok(ip) = parse::ip(&text) else {
        read.report_late(Problem::once(format!("POD_IP={text:?}: not an IP address")));
        return BTreeSet::new();
    };
    pod_ips.iter().copied().chain([ip]).collect()
}

/// N18: a cluster whose addresses are those of tailnets.
fn shared_addresses(read: &mut Reader<'_>, pod_ips: &BTreeSet<IpAddr>) {
    let pod_ip = read.text(vars::POD_IP).and_then(|text| parse::ip(&text).ok());
    if let Some(ip) = pod_ips.iter().copied().chain(pod_ip).find(is_shared) {
        read.note(
            NoteLevel::Warning,
            format!(
                "the Pod's address {ip} is in 100.64.0.0/10: tailscaled drops what clients with such addresses send to \
                 the tailnet, so egress from them will time out"
            ),
        );
    }
}

/// Whether an address is in 100.64.0.0/10: what tailnets use, and some clusters too.
fn is_shared(ip: &IpAddr) -> bool {
    matches!(ip, IpAddr::V4(v4) if v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64)
}

/// N19: what upstream takes for iptables without a word.
fn firewall(read: &mut Reader<'_>) -> FirewallMode {
    if read.boolean(vars::TS_TEST_FAKE_NETFILTER) {
        return FirewallMode::Fake { ipv6: read.boolean(vars::TS_TEST_FAKE_NETFILTER_6) };
    }
    match read.text(vars::TS_DEBUG_FIREWALL_MODE).as_deref() {
        None | Some("auto") => FirewallMode::Auto,
        Some("nftables") => FirewallMode::Nftables,
        Some("iptables") => FirewallMode::Iptables,
        Some(other) => {
            let text = format!("TS_DEBUG_FIREWALL_MODE={other:?} is not known and counts as auto");
            read.note(NoteLevel::Warning, format!("{text}; known are nftables, iptables and auto"));
            FirewallMode::Auto
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_flag_counts_in_every_spelling() {
        let args = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for (text, tun) in [
            ("--tun=tun7", Some("tun7")),
            ("-tun tun7 --verbose=1", Some("tun7")),
            ("--tun=a --tun b", Some("b")),
            ("--tunnel=a --verbose", None),
            ("--tun", None),
        ] {
            assert_eq!(flag(&args(text), "tun").as_deref(), tun, "{text}");
        }
    }
}
