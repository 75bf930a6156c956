//! The steps of an auth key reissue: ask, wait, stop tailscaled, remove the identity. Pure.
//!
//! Boot (boot.md 6) and the proxy (api-proxy.md 9.6) go the same way. tailscaled is stopped before its identity is
//! removed, so that it cannot write it back (W13).

/// Logged when a reissue ends well, before the process leaves to be started again.
pub const LEAVING: &str = "Successfully received new auth key, restarting to apply configuration";

/// How far a reissue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reissue {
    /// The marker is being set, then the new key awaited.
    Awaiting,
    /// The key is there; tailscaled is being stopped.
    Stopping,
    /// The identity is being removed.
    Clearing,
}

/// What happened during a reissue.
#[derive(Debug)]
pub enum Happened<'a> {
    /// The marker is set and a new key arrived, or not.
    NewKey(Result<(), String>),
    /// tailscaled ended, so.
    DaemonExited(&'a str),
    /// The identity is gone, or not.
    IdentityCleared(Result<(), String>),
}

/// What that asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing.
    Nothing,
    /// Say this, and go on waiting.
    Warn(String),
    /// Stop tailscaled.
    StopDaemon,
    /// Remove the identity.
    ClearIdentity,
    /// There is no new key, for this reason.
    Fail(String),
    /// There is one. The old identity is gone, or could not be removed.
    Leave(Result<(), String>),
}

impl Reissue {
    /// Goes on. Before the key is there the end of tailscaled changes nothing: it was disconnected from control, and only
    /// the key is awaited.
    pub fn step(&mut self, happened: Happened<'_>) -> Next {
        match (*self, happened) {
            (Self::Awaiting, Happened::NewKey(Ok(()))) => {
                *self = Self::Stopping;
                Next::StopDaemon
            }
            (Self::Awaiting, Happened::NewKey(Err(text))) => {
                Next::Fail(format!("failed to get a reissued authkey: {text}"))
            }
            (Self::Awaiting, Happened::DaemonExited(how)) => {
                Next::Warn(format!("tailscaled exited while waiting for a new auth key: {how}"))
            }
            (Self::Stopping, Happened::DaemonExited(_)) => {
                *self = Self::Clearing;
                Next::ClearIdentity
            }
            (Self::Clearing, Happened::IdentityCleared(outcome)) => Next::Leave(outcome),
            _ => Next::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_waits_for_its_own_event() {
        let mut reissue = Reissue::Awaiting;
        let dead = "tailscaled exited while waiting for a new auth key: killed";
        assert_eq!(reissue.step(Happened::DaemonExited("killed")), Next::Warn(dead.to_owned()));
        assert_eq!(reissue.step(Happened::IdentityCleared(Ok(()))), Next::Nothing);
        assert_eq!(reissue.step(Happened::NewKey(Ok(()))), Next::StopDaemon);
        assert_eq!(reissue.step(Happened::NewKey(Ok(()))), Next::Nothing);
        assert_eq!(reissue.step(Happened::DaemonExited("exit status 0")), Next::ClearIdentity);
        assert_eq!(reissue.step(Happened::DaemonExited("again")), Next::Nothing);
        assert_eq!(reissue.step(Happened::IdentityCleared(Err("no".to_owned()))), Next::Leave(Err("no".to_owned())));
    }

    #[test]
    fn without_a_key_it_fails() {
        let failed = Next::Fail("failed to get a reissued authkey: timed out".to_owned());
        assert_eq!(Reissue::Awaiting.step(Happened::NewKey(Err("timed out".to_owned()))), failed);
    }
}
