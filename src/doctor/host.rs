//! The kernel around us: TUN device, forwarding, capabilities, firewall backend, packet rules.
//!
//! Looks and changes nothing: the firewall is tried as boot would, by a dry run. Only the kernel's network stack needs
//! any of it; with userspace networking every check says so and nothing else.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;

use super::finding::{Finding, HOST_CAPABILITIES, HOST_FIREWALL, HOST_FORWARDING, HOST_RULES, HOST_TUN};
use super::{Subject, rules};
use crate::manifests::yaml::{Yaml, document, map};
use crate::manifests::{security_context, sysctl_container, tun_volume};
use crate::netfilter::firewall::Firewall;
use crate::netfilter::probe::{self, Mode};

/// For trying the firewall: a few milliseconds, unless somebody holds the lock of iptables.
const FIREWALL_LIMIT: Duration = Duration::from_secs(12);

/// Bits of `CapEff`, from the kernel's list of capabilities.
const NET_ADMIN: u32 = 12;
const NET_RAW: u32 = 13;

/// What is wanted of the host; `None` in userspace mode.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The TUN device.
    pub tun: PathBuf,
    /// The forwarding switches of the families in use.
    pub sysctls: Vec<PathBuf>,
    /// `TS_DEBUG_FIREWALL_MODE`
    pub firewall: Option<String>,
    /// `PATH`
    pub search_path: Option<String>,
    /// `TS_TEST_ONLY_ROOT`
    pub root: PathBuf,
}

/// How a forwarding switch stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Switch {
    /// It contains `1`.
    On,
    /// It is off, and can be switched on from here.
    Settable,
    /// It is off, and cannot, with the reason.
    Stuck(String),
}

/// What can be seen of firewalls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Firewalls {
    /// The kernel has nftables.
    pub kernel_nftables: bool,
    /// The kernel has iptables, and there is the program.
    pub iptables: bool,
}

/// Looks at all of it.
pub async fn check(subject: &Subject) -> Vec<Finding> {
    let Some(wanted) = &subject.host else {
        let why = "userspace networking needs none of it";
        let all = [HOST_TUN, HOST_FORWARDING, HOST_FIREWALL, HOST_CAPABILITIES, HOST_RULES];
        return all.map(|code| code.skipped(why)).into();
    };
    let tun = std::fs::OpenOptions::new().read(true).write(true).open(&wanted.tun).map(drop);
    let switches: Vec<_> = wanted.sysctls.iter().map(|path| (path.clone(), switch(path))).collect();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let (verdict, firewall) = firewall(wanted).await;
    let mut found = vec![
        judge_tun(&wanted.tun, tun.as_ref().err()),
        judge_forwarding(&switches),
        verdict,
        judge_capabilities(&status),
    ];
    found.extend(rules::check(subject, firewall.as_ref()).await);
    found
}

/// Tries what boot would do, and goes by what can be seen where this process may not.
async fn firewall(wanted: &Wanted) -> (Finding, Option<Firewall>) {
    let asked = wanted.firewall.as_deref();
    let mode = asked.and_then(Mode::parse).unwrap_or(Mode::Auto);
    match timeout(FIREWALL_LIMIT, probe::choose(mode, &wanted.root)).await {
        Ok(Ok(found)) => (HOST_FIREWALL.ok(found.to_string()), Some(Firewall::found(found))),
        Ok(Err(error)) if !error.denied => {
            let remedy = "on the node: modprobe -a nf_tables nft_chain_nat nft_ct nft_numgen";
            (HOST_FIREWALL.failure(error.to_string(), remedy), None)
        }
        Ok(Err(_)) | Err(_) => (judge_firewall(asked, firewalls(wanted.search_path.as_deref())), None),
    }
}

fn switch(path: &Path) -> Switch {
    match std::fs::read(path) {
        Ok(content) if content.trim_ascii() == b"1" => Switch::On,
        // Opening for writing changes nothing yet.
        Ok(_) => match std::fs::OpenOptions::new().write(true).open(path) {
            Ok(_) => Switch::Settable,
            Err(error) => Switch::Stuck(error.to_string()),
        },
        Err(error) => Switch::Stuck(error.to_string()),
    }
}

fn firewalls(search_path: Option<&str>) -> Firewalls {
    let program =
        |name: &str| search_path.unwrap_or_default().split(':').any(|dir| Path::new(dir).join(name).is_file());
    let modules = std::fs::read_to_string("/proc/modules").unwrap_or_default();
    let has = |module: &str| {
        Path::new("/sys/module").join(module).exists()
            || modules.lines().any(|line| line.split(' ').next() == Some(module))
    };
    let legacy = has("ip_tables") || Path::new("/proc/net/ip_tables_names").exists();
    // iptables-nft needs the program, and nftables in the kernel.
    Firewalls { kernel_nftables: has("nf_tables"), iptables: program("iptables") && (legacy || has("nf_tables")) }
}

/// The container's `securityContext`, to paste.
fn context(kernel: bool) -> String {
    document(&map([("securityContext", security_context(kernel))])).trim_end().to_owned()
}

/// Judges what opening the device said.
pub fn judge_tun(path: &Path, error: Option<&io::Error>) -> Finding {
    let volume = || {
        let mount = map([("name", "tun".into()), ("mountPath", "/dev/net/tun".into())]);
        document(&map([("volumeMounts", Yaml::List(vec![mount])), ("volumes", Yaml::List(vec![tun_volume()]))]))
            .trim_end()
            .to_owned()
    };
    match error {
        None => HOST_TUN.ok(format!("{} can be opened", path.display())),
        Some(error) if error.kind() == io::ErrorKind::NotFound => {
            HOST_TUN.failure(format!("{} is not there; boot makes it only if it may", path.display()), volume())
        }
        Some(error) => {
            let remedy = format!("{}\n{}", context(true), volume());
            HOST_TUN.failure(format!("{} cannot be opened: {error}", path.display()), remedy)
        }
    }
}

/// Judges the switches.
pub fn judge_forwarding(switches: &[(PathBuf, Switch)]) -> Finding {
    let named = |wanted: fn(&Switch) -> bool| {
        let paths = switches.iter().filter(|(_, switch)| wanted(switch)).map(|(path, _)| path.display().to_string());
        paths.collect::<Vec<_>>().join(", ")
    };
    if switches.is_empty() {
        return HOST_FORWARDING.skipped("no routes are advertised, so nothing is forwarded");
    }
    let stuck: Vec<_> = switches
        .iter()
        .filter_map(|(path, switch)| match switch {
            Switch::Stuck(why) => Some(format!("{} ({why})", path.display())),
            Switch::On | Switch::Settable => None,
        })
        .collect();
    if !stuck.is_empty() {
        let ipv6 = |path: &Path| path.components().any(|part| part.as_os_str() == "ipv6");
        let off = |v6: bool| switches.iter().any(|(path, switch)| *switch != Switch::On && ipv6(path) == v6);
        let remedy = sysctl_container("busybox", off(false), off(true))
            .map(|container| document(&map([("initContainers", Yaml::List(vec![container]))])))
            .unwrap_or_default();
        let sentence = format!("IP forwarding is off and cannot be switched on here: {}", stuck.join(", "));
        return HOST_FORWARDING.failure(sentence, remedy.trim_end());
    }
    let off = named(|switch| *switch == Switch::Settable);
    if off.is_empty() {
        HOST_FORWARDING.ok(format!("IP forwarding is on: {}", named(|switch| *switch == Switch::On)))
    } else {
        HOST_FORWARDING.ok(format!("IP forwarding is off, and boot can switch it on: {off}"))
    }
}

/// Judges the `CapEff` line of `/proc/<pid>/status`.
pub fn judge_capabilities(status: &str) -> Finding {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(bits) = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()) else {
        return HOST_CAPABILITIES.skipped("the kernel does not say which capabilities we have");
    };
    let missing: Vec<_> = [(NET_ADMIN, "NET_ADMIN"), (NET_RAW, "NET_RAW")]
        .into_iter()
        .filter(|(bit, _)| bits >> bit & 1 == 0)
        .map(|(_, name)| name)
        .collect();
    if missing.is_empty() {
        return HOST_CAPABILITIES.ok("this process has NET_ADMIN and NET_RAW");
    }
    HOST_CAPABILITIES.failure(
        format!("this process lacks {}: tailscaled cannot set up its interface", missing.join(" and ")),
        format!(
            "{}\n# or, without the kernel's network stack:\nenv:\n  - name: TS_USERSPACE\n    value: \"true\"",
            context(true)
        ),
    )
}

/// Judges what firewalls there are for `TS_DEBUG_FIREWALL_MODE`.
pub fn judge_firewall(mode: Option<&str>, there: Firewalls) -> Finding {
    let set = |mode: &str| format!("env:\n  - name: TS_DEBUG_FIREWALL_MODE\n    value: {mode}");
    let Firewalls { kernel_nftables, iptables } = there;
    match (mode, kernel_nftables, iptables) {
        (Some("nftables"), true, _) => HOST_FIREWALL.ok("nftables, as TS_DEBUG_FIREWALL_MODE asks for"),
        (Some("nftables"), false, true) => HOST_FIREWALL
            .warning("TS_DEBUG_FIREWALL_MODE asks for nftables, and the kernel shows no sign of it; iptables is there")
            .remedy(set("iptables")),
        (Some("iptables"), _, true) => HOST_FIREWALL.ok("iptables, as TS_DEBUG_FIREWALL_MODE asks for"),
        (Some("iptables"), true, false) => HOST_FIREWALL
            .failure("TS_DEBUG_FIREWALL_MODE asks for iptables, which is not there; nftables is", set("nftables")),
        (_, true, _) => HOST_FIREWALL.ok("the kernel has nftables, which needs no program"),
        (_, false, true) => HOST_FIREWALL.ok("iptables is there; the kernel shows no sign of nftables"),
        (_, false, false) => HOST_FIREWALL
            .warning("neither nftables in the kernel nor a usable iptables is seen from here")
            .remedy("on the node: modprobe nf_tables"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Level;

    #[test]
    fn capabilities_are_read_from_their_bits() {
        for (status, level, part) in [
            ("Name:\tx\nCapEff:\t00000000a80425fb\n", Level::Failure, "lacks NET_ADMIN:"),
            ("CapEff:\t0000000000003000\n", Level::Ok, "has"),
            ("CapEff:\t0000000000000000\n", Level::Failure, "lacks NET_ADMIN and NET_RAW"),
            ("CapEff:\tzzz\n", Level::Skipped, "does not say"),
            ("", Level::Skipped, "does not say"),
        ] {
            let finding = judge_capabilities(status);
            assert!(finding.level == level && finding.sentence.contains(part), "{status:?}: {finding:?}");
            assert_eq!(finding.remedy.is_some(), level == Level::Failure);
        }
    }

    #[test]
    fn forwarding_names_the_switch_that_is_stuck_and_mends_only_that() {
        let v4 = PathBuf::from("/proc/sys/net/ipv4/ip_forward");
        let v6 = PathBuf::from("/proc/sys/net/ipv6/conf/all/forwarding");
        let stuck = || Switch::Stuck("Read-only file system".to_owned());
        let judged = |switches: &[(&PathBuf, Switch)]| {
            judge_forwarding(
                &switches.iter().map(|(path, switch)| ((*path).clone(), switch.clone())).collect::<Vec<_>>(),
            )
        };
        assert_eq!(judged(&[]).level, Level::Skipped);
        assert_eq!(judged(&[(&v4, Switch::On)]).level, Level::Ok);
        assert!(judged(&[(&v4, Switch::On), (&v6, Switch::Settable)]).sentence.contains("boot can switch it on"));
        let finding = judged(&[(&v4, Switch::On), (&v6, stuck())]);
        let remedy = finding.remedy.unwrap();
        assert_eq!(finding.level, Level::Failure);
        assert!(remedy.contains("ipv6/conf/all/forwarding") && !remedy.contains("ipv4"), "{remedy}");
    }

    #[test]
    fn a_missing_device_and_a_forbidden_one_differ() {
        let path = Path::new("/dev/net/tun");
        assert_eq!(judge_tun(path, None).level, Level::Ok);
        let missing = judge_tun(path, Some(&io::ErrorKind::NotFound.into())).remedy.unwrap();
        assert!(missing.contains("hostPath") && !missing.contains("NET_ADMIN"), "{missing}");
        let forbidden = judge_tun(path, Some(&io::ErrorKind::PermissionDenied.into())).remedy.unwrap();
        assert!(forbidden.contains("hostPath") && forbidden.contains("NET_ADMIN"), "{forbidden}");
    }

    #[test]
    fn the_firewall_is_what_is_asked_for_or_what_is_there() {
        let there = |kernel_nftables, iptables| Firewalls { kernel_nftables, iptables };
        for (mode, there, level) in [
            (None, there(true, false), Level::Ok),
            (None, there(false, true), Level::Ok),
            (None, there(false, false), Level::Warning),
            (Some("auto"), there(true, true), Level::Ok),
            (Some("iptables"), there(true, false), Level::Failure),
            (Some("iptables"), there(true, true), Level::Ok),
            (Some("nftables"), there(false, true), Level::Warning),
            (Some("nftables"), there(true, true), Level::Ok),
        ] {
            assert_eq!(judge_firewall(mode, there).level, level, "{mode:?} {there:?}");
        }
    }
}
