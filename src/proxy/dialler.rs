//! Which process made a connection over loopback: tailscaled, or another one of this machine.
//!
//! It decides about the order of questions alone ([`super::turns`]). Who a peer is comes from whois, whoever dialled.

use std::ffi::OsStr;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Mutex;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use crate::localapi::{Listener, LocalApi};
use crate::lock::lock;

/// Who made a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialler {
    /// tailscaled, for a peer.
    Tailscaled,
    /// It may have been tailscaled: its descriptors cannot be seen from here.
    Unclear,
    /// Another process; or nobody holds that end any more.
    Another,
}

/// How connections are traced to tailscaled.
#[derive(Debug)]
pub(super) struct Diallers {
    localapi: LocalApi,
    daemon: Mutex<Option<Listener>>,
}

/// The far end of a connection, as the kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    uid: u32,
    /// Zero when no process holds it any more.
    inode: u32,
}

impl Diallers {
    pub(super) fn new(localapi: LocalApi) -> Self {
        Self { localapi, daemon: Mutex::default() }
    }

    /// Who made the connection from `theirs` to `ours`.
    pub(super) async fn of(&self, theirs: SocketAddr, ours: SocketAddr) -> Dialler {
        let end = match find(theirs, ours) {
            Ok(Some(end)) if end.inode != 0 => end,
            Ok(Some(_)) => return Dialler::Another,
            // The kernel says the same when it cannot tell at all; but our own end is there.
            Ok(None) if matches!(find(ours, theirs), Ok(Some(_))) => return Dialler::Another,
            Ok(None) | Err(_) => return Dialler::Unclear,
        };
        let known = *lock(&self.daemon);
        if let Some(daemon) = known
            && let Some(dialler) = compare(daemon, end).await
        {
            return dialler;
        }
        // Not asked yet, or it has been started anew.
        let Ok(daemon) = self.localapi.listener().await else { return Dialler::Unclear };
        *lock(&self.daemon) = Some(daemon);
        compare(daemon, end).await.unwrap_or(Dialler::Unclear)
    }
}

/// Whether this daemon holds that end; `None` when the daemon is no more.
async fn compare(daemon: Listener, end: End) -> Option<Dialler> {
    if daemon.uid != end.uid {
        return Some(Dialler::Another);
    }
    let Some(pid) = daemon.pid else { return Some(Dialler::Unclear) };
    // It may have thousands.
    let held = tokio::task::spawn_blocking(move || holds(pid, end.inode)).await;
    match held.unwrap_or_else(|_| Err(io::ErrorKind::Other.into())) {
        Ok(true) => Some(Dialler::Tailscaled),
        Ok(false) => Some(Dialler::Another),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(_) => Some(Dialler::Unclear),
    }
}

/// Whether a process has that socket open.
fn holds(pid: i32, inode: u32) -> io::Result<bool> {
    let socket = format!("socket:[{inode}]");
    let paths: Vec<_> = std::fs::read_dir(format!("/proc/{pid}/fd"))?.flatten().map(|entry| entry.path()).collect();
    // New ones are at the end more often than not.
    Ok(paths.iter().rev().any(|path| std::fs::read_link(path).is_ok_and(|to| to.as_os_str() == OsStr::new(&socket))))
}

// === sock_diag(7) ===

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
/// `nlmsghdr`
const HEADER: usize = 16;
/// `inet_diag_req_v2`
const REQUEST: usize = 56;
const LENGTH: u32 = 72;
/// Where a reply has the user's id and the inode, one behind the other.
const UID: usize = HEADER + 64;

/// The socket of this machine at `local` that is connected to `remote`.
fn find(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<End>> {
    let protocol = SockProtocol::NetlinkSockDiag;
    let diag = socket(AddressFamily::Netlink, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)?;
    send(diag.as_raw_fd(), &question(local, remote), MsgFlags::empty())?;
    let mut reply = [0; 512];
    // It is there as soon as the question was sent.
    let length = recv(diag.as_raw_fd(), &mut reply, MsgFlags::MSG_DONTWAIT)?;
    Ok(answer(&reply[..length]))
}

fn question(local: SocketAddr, remote: SocketAddr) -> [u8; HEADER + REQUEST] {
    let mut bytes = [0; HEADER + REQUEST];
    let mut put = |at: usize, what: &[u8]| bytes[at..at + what.len()].copy_from_slice(what);
    put(0, &LENGTH.to_ne_bytes());
    put(4, &SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    put(6, &NLM_F_REQUEST.to_ne_bytes());
    put(HEADER, &[if local.is_ipv4() { AF_INET } else { AF_INET6 }, IPPROTO_TCP]);
    // Every state.
    put(HEADER + 4, &u32::MAX.to_ne_bytes());
    put(HEADER + 8, &local.port().to_be_bytes());
    put(HEADER + 10, &remote.port().to_be_bytes());
    for (at, ip) in [(HEADER + 12, local.ip()), (HEADER + 28, remote.ip())] {
        match ip {
            IpAddr::V4(ip) => put(at, &ip.octets()),
            IpAddr::V6(ip) => put(at, &ip.octets()),
        }
    }
    // No cookie.
    put(HEADER + 48, &[0xff; 8]);
    bytes
}

fn answer(reply: &[u8]) -> Option<End> {
    let number = |at: usize| Some(u32::from_ne_bytes(*reply.get(at..)?.first_chunk()?));
    let kind = u16::from_ne_bytes(*reply.get(4..)?.first_chunk()?);
    if kind != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    Some(End { uid: number(UID)?, inode: number(UID + 4)? })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_far_end_is_found_until_it_is_closed() {
        assert_eq!(LENGTH as usize, HEADER + REQUEST);
        for at in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(at) else { continue };
            let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (near, theirs) = listener.accept().unwrap();
            let ours = near.local_addr().unwrap();
            let end = find(theirs, ours).unwrap().unwrap();
            assert_eq!(end.uid, nix::unistd::getuid().as_raw());
            let pid = i32::try_from(std::process::id()).unwrap();
            assert!(holds(pid, end.inode).unwrap());
            assert!(!holds(pid, end.inode.wrapping_add(1 << 30)).unwrap());
            drop(far);
            assert!(find(theirs, ours).unwrap().is_none_or(|end| end.inode == 0));
            assert!(find(ours, theirs).unwrap().is_some_and(|end| end.inode != 0));
        }
        assert_eq!(holds(i32::MAX, 1).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
