//! Frees UDP flows that are stuck on a translation which the rules do not know any more.
//!
//! The kernel forgets such a flow, and its next packet is a first one (netfilter.md 9.4; upstream has nothing like it).
//! Only what changed between two rulesets is a reason to look, so an application that moves nothing costs nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

use self::stale::{Local, concerns_udp, is_stale};
use super::netlink::{NetlinkError, Socket};
use super::ruleset::{Address, Interface, Rules, Ruleset};

pub mod entry;
pub mod stale;

/// Frees what is stuck after the step from one ruleset to the other; how many flows that were. Blocks.
///
/// # Errors
///
/// The kernel's table of flows cannot be read or changed.
pub fn repair(before: Option<&Ruleset>, after: &Ruleset) -> Result<usize, NetlinkError> {
    let (v4, v6) = local(after.tun());
    let freed = repair_family::<Ipv4Addr>(before.map(Ruleset::v4), after.v4(), &v4)?;
    Ok(freed + repair_family::<Ipv6Addr>(before.map(Ruleset::v6), after.v6(), &v6)?)
}

/// Whether there is a reason to look.
pub fn is_due(before: Option<&Ruleset>, after: &Ruleset) -> bool {
    concerns_udp(before.map(Ruleset::v4), after.v4()) || concerns_udp(before.map(Ruleset::v6), after.v6())
}

fn repair_family<A: Address>(
    before: Option<&Rules<A>>,
    after: &Rules<A>,
    local: &Local<A>,
) -> Result<usize, NetlinkError> {
    if !concerns_udp(before, after) {
        return Ok(0);
    }
    let mut socket = Socket::open()?;
    let mut stuck = Vec::new();
    let listed = socket.ask(&entry::list(A::FAMILY), |_, listed| {
        if let Some((flow, original)) = entry::read_udp(listed)
            && is_stale(before, after, local, &flow)
        {
            stuck.push(original.to_vec());
        }
    });
    // Flows come and go all the time; one that is missed here began under the new rules.
    match listed {
        Ok(()) | Err(NetlinkError::Socket(Errno::EINTR)) => {}
        Err(error) => return Err(error),
    }
    let mut freed = 0;
    for original in &stuck {
        match socket.ask(&entry::forget(A::FAMILY, original), |_, _| {}) {
            Ok(()) => freed += 1,
            Err(error) if error.errno() == Some(Errno::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(freed)
}

/// The addresses of this namespace. None when they cannot be listed: then fewer flows are known to be stuck.
fn local(tun: &Interface) -> (Local<Ipv4Addr>, Local<Ipv6Addr>) {
    let (mut v4, mut v6) = (Local::none(), Local::none());
    for interface in getifaddrs().into_iter().flatten() {
        let Some(addr) = interface.address.as_ref().and_then(ip) else { continue };
        let is_other = interface.interface_name == tun.as_str() || addr.is_loopback();
        match addr {
            IpAddr::V4(addr) => {
                if is_other {
                    v4.other.insert(addr)
                } else {
                    v4.cluster.insert(addr)
                }
            }
            IpAddr::V6(addr) => {
                if is_other {
                    v6.other.insert(addr)
                } else {
                    v6.cluster.insert(addr)
                }
            }
        };
    }
    (v4, v6)
}

fn ip(addr: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = addr.as_sockaddr_in().map(|addr| addr.ip().into());
    v4.or_else(|| addr.as_sockaddr_in6().map(|addr| addr.ip().into()))
}
