//! What the process tells its caller: the one place with exit codes.
//!
//! Every status has a documented number, one line of meaning, and a place in README.md and the man pages; tests hold
//! the three together. Where upstream's contract fixes a code, upstream wins: `boot` ends with 1 on bad settings.

use std::process::{ExitCode, ExitStatus as ChildStatus};

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// Done, or stopped because asked.
    Done,
    /// The operation failed.
    Failed,
    /// Wrong usage or settings: retrying without a change is useless.
    Usage,
    /// A query applet answered "no".
    No,
    /// `tailpod boot`: control does not know the auth key.
    KeyUnknown,
    /// `tailpod boot`: the auth key is expired or was already used.
    KeyExpired,
    /// `tailpod boot`: the tailnet policy does not let the key have the requested tags.
    TagsNotPermitted,
    /// `tailpod boot`: the node's own key has expired.
    NodeKeyExpired,
    /// `tailpod boot`: nobody approved the device before the deadline.
    ApprovalPending,
    /// `tailpod boot`: nobody logged in before the deadline.
    LoginNeeded,
    /// `tailpod boot`: the control server cannot be reached.
    ControlUnreachable,
    /// Interrupted at the terminal.
    Interrupted,
    /// The status of the child whose run was the whole point.
    Child(u8),
}

impl ExitStatus {
    /// Every status with a number of its own, by number.
    pub const DOCUMENTED: [Self; 12] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::No,
        Self::KeyUnknown,
        Self::KeyExpired,
        Self::TagsNotPermitted,
        Self::NodeKeyExpired,
        Self::ApprovalPending,
        Self::LoginNeeded,
        Self::ControlUnreachable,
        Self::Interrupted,
    ];

    /// The number the caller sees.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::No => 3,
            // The login classes of boot, one each, so that a Job or an alert can branch on them.
            Self::KeyUnknown => 10,
            Self::KeyExpired => 11,
            Self::TagsNotPermitted => 12,
            Self::NodeKeyExpired => 13,
            Self::ApprovalPending => 14,
            Self::LoginNeeded => 15,
            Self::ControlUnreachable => 16,
            // 128 + SIGINT, as shells count.
            Self::Interrupted => 130,
            Self::Child(code) => code,
        }
    }

    /// One line for the README and the man pages.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done, or stopped because asked",
            Self::Failed => "the operation failed (`boot`: also bad settings, as upstream)",
            Self::Usage => "wrong usage or settings: retrying without a change is useless",
            Self::No => "a query answered \"no\" (not ready, not found)",
            Self::KeyUnknown => "`boot`: the auth key is unknown or revoked; make a new one",
            Self::KeyExpired => "`boot`: the auth key is expired or already used; make a reusable one or use OAuth",
            Self::TagsNotPermitted => "`boot`: the requested tags are not permitted; add them to `tagOwners`",
            Self::NodeKeyExpired => "`boot`: the node key has expired; log in again, or disable expiry for the node",
            Self::ApprovalPending => "`boot`: the device was not approved in time; approve it in the admin console",
            Self::LoginNeeded => "`boot`: nobody opened the login URL in time; log in, or provide an auth key",
            Self::ControlUnreachable => "`boot`: the control server cannot be reached; check network, proxy and DNS",
            Self::Interrupted => "interrupted at the terminal",
            Self::Child(_) => "the status of the command that was run; 128 + the signal's number when one ended it",
        }
    }

    /// Whether it is one of the ways in which `tailpod boot` fails to log in.
    pub const fn is_login_failure(self) -> bool {
        matches!(
            self,
            Self::KeyUnknown
                | Self::KeyExpired
                | Self::TagsNotPermitted
                | Self::NodeKeyExpired
                | Self::ApprovalPending
                | Self::LoginNeeded
                | Self::ControlUnreachable
        )
    }

    /// The status of a child whose run was the whole point: its code, or 128 plus the signal that ended it.
    pub fn from_child(status: ChildStatus) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let signalled = || status.signal().map(|signal| signal.saturating_add(128));
        let code = status.code().or_else(signalled).and_then(|code| u8::try_from(code).ok());
        code.map_or(Self::Failed, Self::Child)
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status.code())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn documented_codes_ascend_so_no_two_are_the_same() {
        let codes = ExitStatus::DOCUMENTED.map(ExitStatus::code);
        assert!(codes.windows(2).all(|pair| pair[0] < pair[1]), "{codes:?}");
    }

    #[test]
    fn codes_are_the_published_ones() {
        assert_eq!(ExitStatus::DOCUMENTED.map(ExitStatus::code), [0, 1, 2, 3, 10, 11, 12, 13, 14, 15, 16, 130]);
    }

    #[test]
    fn a_child_speaks_for_itself() {
        // Raw wait statuses: exit code in the second byte, signal in the low seven bits.
        let child = |raw| ExitStatus::from_child(ChildStatus::from_raw(raw)).code();
        assert_eq!([child(0), child(7 << 8), child(255 << 8), child(15), child(9)], [0, 7, 255, 143, 137]);
    }
}
