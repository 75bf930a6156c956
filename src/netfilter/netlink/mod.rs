//! The kernel's side door for netfilter: sockets of family `AF_NETLINK`.
//!
//! The kernel does what a message says while it is being sent, so whoever sends waits for the work itself. Everything
//! here blocks and belongs off the threads that others wait on; nothing waits longer than [`LIMIT`] for an answer.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::sockopt::SetBool;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;

use self::wire::{Answer, Message, Refusal, Request, flag, messages};

pub mod wire;

/// For one answer.
pub const LIMIT: Duration = Duration::from_secs(10);

/// What one answer to an acknowledged request takes of the receive buffer, an error with its words included.
const ANSWER: usize = 2048;

/// What the kernel puts into one answer of a list, at most.
const RECEIVED: usize = 64 * 1024;

/// The kernel adds its words to an error.
#[derive(Clone)]
struct ExtendedErrors;
nix::setsockopt_impl!(ExtendedErrors, libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, bool, SetBool);

/// The kernel does not repeat the request in an error.
#[derive(Clone)]
struct CappedErrors;
nix::setsockopt_impl!(CappedErrors, libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, bool, SetBool);

/// A socket to netfilter.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

/// Why there is no answer, or not the one that was wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetlinkError {
    /// A request was refused.
    #[error("{}", describe(.refusal))]
    Refused {
        /// Which of the requests in a batch; `None` when it is the batch.
        request: Option<usize>,
        /// Why.
        refusal: Refusal,
    },
    /// The kernel had more to say than the buffer takes, so it is not known what it did.
    #[error("the kernel's answers were lost")]
    Lost,
    /// The socket failed.
    #[error("netlink: {0}")]
    Socket(Errno),
    /// Something else than the protocol says.
    #[error("the kernel's answer cannot be read")]
    Malformed,
}

impl NetlinkError {
    /// The error number, of whatever kind.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { refusal, .. } => Some(Errno::from_raw(refusal.errno)),
            Self::Socket(errno) => Some(*errno),
            Self::Lost | Self::Malformed => None,
        }
    }
}

fn describe(refusal: &Refusal) -> String {
    let errno = Errno::from_raw(refusal.errno).desc();
    match &refusal.words {
        Some(words) => format!("{errno} ({words})"),
        None => errno.to_owned(),
    }
}

impl Socket {
    /// Opens one.
    pub fn open() -> Result<Self, NetlinkError> {
        let (kind, protocol) = (SockType::Raw, SockProtocol::NetlinkNetFilter);
        let fd =
            socket(AddressFamily::Netlink, kind, SockFlag::SOCK_CLOEXEC, protocol).map_err(NetlinkError::Socket)?;
        let limit = TimeVal::new(i64::try_from(LIMIT.as_secs()).unwrap_or(i64::MAX), 0);
        setsockopt(&fd, sockopt::ReceiveTimeout, &limit).map_err(NetlinkError::Socket)?;
        // Kernels before 4.12 answer without words; that is no reason to go without a firewall.
        let _ = setsockopt(&fd, ExtendedErrors, &true);
        let _ = setsockopt(&fd, CappedErrors, &true);
        connect(fd.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(NetlinkError::Socket)?;
        Ok(Self { fd, sequence: 1 })
    }

    /// Sends requests between the marks of a transaction and waits until each is acknowledged. Without `commit` the
    /// kernel judges all of them and then does none.
    ///
    /// # Errors
    ///
    /// The first refusal. Then nothing of the batch took effect.
    pub fn transact(&mut self, batch: &[Request], marks: &Marks, commit: Commit) -> Result<(), NetlinkError> {
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        marks.begin.append(&mut bytes, self.sequence);
        for (request, sequence) in batch.iter().zip(first..) {
            request.append(&mut bytes, sequence);
        }
        let last = first.wrapping_add(u32::try_from(batch.len()).unwrap_or(u32::MAX));
        if commit == Commit::Yes {
            marks.end.append(&mut bytes, last);
        }
        self.sequence = last.wrapping_add(1);
        self.make_room(bytes.len(), batch.len());
        let sent = send(self.fd.as_raw_fd(), &bytes, MsgFlags::empty());
        drop(bytes);
        sent.map_err(NetlinkError::Socket)?;
        self.acknowledgements(batch.len(), first)
    }

    fn acknowledgements(&self, count: usize, first: u32) -> Result<(), NetlinkError> {
        let mut buffer = vec![0; RECEIVED];
        let mut refused = None;
        let mut acknowledged = 0;
        let mut lost = false;
        while acknowledged < count {
            // What the kernel has to say is there when it has taken the batch; after a refusal, some never comes.
            let flags = if refused.is_some() || lost { MsgFlags::MSG_DONTWAIT } else { MsgFlags::empty() };
            let received = match recv(self.fd.as_raw_fd(), &mut buffer, flags) {
                Ok(received) => &buffer[..received],
                Err(Errno::EINTR) => continue,
                Err(Errno::ENOBUFS) => {
                    lost = true;
                    continue;
                }
                Err(Errno::EAGAIN) if refused.is_some() => break,
                Err(Errno::EAGAIN) if lost => return Err(NetlinkError::Lost),
                Err(errno) => return Err(NetlinkError::Socket(errno)),
            };
            for message in messages(received) {
                let request = usize::try_from(message.sequence.wrapping_sub(first)).ok().filter(|nth| *nth < count);
                match message.answer().ok_or(NetlinkError::Malformed)? {
                    Answer::Refused(refusal) => {
                        refused.get_or_insert(NetlinkError::Refused { request, refusal });
                    }
                    // Newer kernels acknowledge the marks as well.
                    Answer::Acknowledged => acknowledged += usize::from(request.is_some()),
                    Answer::Object(..) | Answer::Done => {}
                }
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// Asks, and hands each object of the answer to `each`, with its family and attributes.
    ///
    /// # Errors
    ///
    /// The kernel refused; for what is not there, with `ENOENT`. A list that somebody changed meanwhile: `EINTR`.
    pub fn ask(&mut self, request: &Request, mut each: impl FnMut(u8, &[u8])) -> Result<(), NetlinkError> {
        let is_list = request.flags & flag::DUMP == flag::DUMP;
        let mut bytes = Vec::new();
        request.append(&mut bytes, self.sequence);
        let asked = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        send(self.fd.as_raw_fd(), &bytes, MsgFlags::empty()).map_err(NetlinkError::Socket)?;
        let mut buffer = vec![0; RECEIVED];
        let mut changed = false;
        loop {
            let received = match recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(received) => received,
                Err(Errno::EINTR) => continue,
                Err(Errno::ENOBUFS) => return Err(NetlinkError::Lost),
                Err(errno) => return Err(NetlinkError::Socket(errno)),
            };
            for message in messages(&buffer[..received]).filter(|message| message.sequence == asked) {
                changed |= message.flags & flag::DUMP_INTERRUPTED != 0;
                let done = hand_over(&message, &mut each)?;
                if done || !is_list {
                    return if changed { Err(NetlinkError::Socket(Errno::EINTR)) } else { Ok(()) };
                }
            }
        }
    }

    /// A batch has to be in the kernel's hands whole, and so have the answers. Who may program the firewall may exceed
    /// the limits for others; who may not, in a user namespace, gets what those allow.
    fn make_room(&self, bytes: usize, requests: usize) {
        let send = bytes + bytes / 4 + RECEIVED;
        if setsockopt(&self.fd, sockopt::SndBufForce, &send).is_err() {
            let _ = setsockopt(&self.fd, sockopt::SndBuf, &send);
        }
        let receive = requests * ANSWER + RECEIVED;
        if setsockopt(&self.fd, sockopt::RcvBufForce, &receive).is_err() {
            let _ = setsockopt(&self.fd, sockopt::RcvBuf, &receive);
        }
    }
}

/// Whether the list ends here.
fn hand_over(message: &Message<'_>, each: &mut impl FnMut(u8, &[u8])) -> Result<bool, NetlinkError> {
    match message.answer().ok_or(NetlinkError::Malformed)? {
        Answer::Object(family, attributes) => {
            each(family, attributes);
            Ok(false)
        }
        Answer::Done | Answer::Acknowledged => Ok(true),
        Answer::Refused(refusal) => Err(NetlinkError::Refused { request: None, refusal }),
    }
}

/// The messages around a transaction.
#[derive(Clone, Debug)]
pub struct Marks {
    /// It begins.
    pub begin: Request,
    /// It ends, and takes effect.
    pub end: Request,
}

/// Whether a batch takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// It does.
    Yes,
    /// It is judged only.
    No,
}
