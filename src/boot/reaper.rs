//! Collecting orphans as PID 1, without touching the children somebody waits for.
//!
//! Processes whose parent died become children of PID 1 and stay zombies until it collects them. Upstream once
//! collected every child and raced with its own helpers, then stopped collecting any. Here [`Children`] knows the
//! processes that were started on purpose, and registers them before they can possibly be collected; the reaper
//! takes only others, and those only after they have been left alone for a while, so that even a child started
//! behind [`Children`]'s back keeps its status.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::prctl::get_child_subreaper;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, getpid};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long an unknown zombie is left to whoever may be about to wait for it. A waiter needs milliseconds; a
/// process throttled by its CPU quota needs a few of the kernel's 100 ms periods.
const GRACE: Duration = Duration::from_secs(1);

/// The children that somebody waits for.
#[derive(Clone, Debug, Default)]
pub struct Children {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    awaited: Mutex<BTreeSet<i32>>,
    forgotten: Notify,
}

/// Keeps one child registered; dropped when its status has been collected.
#[derive(Debug)]
pub struct Registered {
    children: Children,
    pid: i32,
}

impl Children {
    /// An empty registry. One per process: the reaper and everybody who starts children share it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts `command` and registers the child in one step. Keep the registration until its status is collected.
    pub fn spawn(&self, command: &mut Command) -> io::Result<(Child, Registered)> {
        // Held across fork and registration, so that a sweep never sees the one without the other.
        let mut awaited = self.awaited();
        let child = command.spawn()?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok());
        let pid = pid.ok_or_else(|| io::Error::other("a child without a process id"))?;
        awaited.insert(pid);
        Ok((child, Registered { children: self.clone(), pid }))
    }

    fn awaited(&self) -> MutexGuard<'_, BTreeSet<i32>> {
        self.inner.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registered {
    /// The child's process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.children.awaited().remove(&self.pid);
        // The number may by now belong to an orphan that was passed over.
        self.children.inner.forgotten.notify_one();
    }
}

/// Whether orphans become our children: as PID 1, or as a sub-reaper (a supervisor that asked for it).
pub fn is_needed() -> bool {
    getpid() == Pid::from_raw(1) || get_child_subreaper().unwrap_or(false)
}

/// Collects orphans until `stop`.
pub async fn run(children: Children, stop: CancellationToken) -> io::Result<()> {
    run_with_grace(children, GRACE, stop).await
}

async fn run_with_grace(children: Children, grace: Duration, stop: CancellationToken) -> io::Result<()> {
    let mut child_changed = signal(SignalKind::child())?;
    let mut reaper = Reaper { children: children.clone(), grace, seen: HashMap::new() };
    loop {
        let next = reaper.sweep(Instant::now());
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(()) = child_changed.recv() => {}
            () = children.inner.forgotten.notified() => {}
            () = sleep_until(next) => {}
        }
    }
}

async fn sleep_until(next: Option<Instant>) {
    match next {
        Some(next) => tokio::time::sleep_until(next).await,
        None => std::future::pending().await,
    }
}

struct Reaper {
    children: Children,
    grace: Duration,
    /// Unknown zombies, and since when.
    seen: HashMap<i32, Instant>,
}

impl Reaper {
    /// Collects the unknown zombies that are old enough; returns when to look again, if there is a younger one.
    fn sweep(&mut self, now: Instant) -> Option<Instant> {
        let awaited = self.children.awaited();
        let unknown: BTreeSet<i32> = zombies().into_iter().filter(|pid| !awaited.contains(pid)).collect();
        self.seen.retain(|pid, _| unknown.contains(pid));
        let mut next: Option<Instant> = None;
        for pid in unknown {
            let due = *self.seen.entry(pid).or_insert(now) + self.grace;
            if due <= now {
                collect(pid);
                self.seen.remove(&pid);
            } else {
                next = Some(next.map_or(due, |next| next.min(due)));
            }
        }
        next
    }
}

/// Takes the zombie's status away. An error means that it is gone, or that nix has no name for the signal that
/// killed it, in which case it has been collected all the same.
fn collect(pid: i32) {
    match waitid(Id::Pid(Pid::from_raw(pid)), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG) {
        Ok(status) => tracing::debug!(pid, ?status, "collected an orphan"),
        Err(error) => tracing::debug!(pid, %error, "an orphan is gone"),
    }
}

/// Our zombie children. A peek answers the usual case, none, without reading /proc; it shows one zombie at most,
/// which may hide others, so any answer but "none" leads to the full list.
fn zombies() -> Vec<i32> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    let first = match waitid(Id::All, flags) {
        Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Vec::new(),
        Ok(status) => status.pid().map(Pid::as_raw),
        Err(_) => None,
    };
    list_zombies().unwrap_or_else(|error| {
        tracing::debug!(%error, "cannot list processes; collecting one orphan at a time");
        first.into_iter().collect()
    })
}

fn list_zombies() -> io::Result<Vec<i32>> {
    let own = getpid().as_raw();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process may be gone by the time it is read.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        if parse_stat(&stat) == Some(('Z', own)) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// State and parent of `/proc/<pid>/stat`. The command name before them may hold spaces and parentheses.
fn parse_stat(stat: &str) -> Option<(char, i32)> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use nix::sys::prctl::set_child_subreaper;

    use super::*;
    use crate::shutdown::tests::in_own_process;

    #[test]
    fn stat_is_read_behind_any_command_name() {
        assert_eq!(parse_stat("17 (sh) Z 1 17 17 0 -1"), Some(('Z', 1)));
        assert_eq!(parse_stat("17 (a) S 9 (b) ) R 4 17"), Some(('R', 4)));
        assert_eq!(parse_stat("17 (sh"), None);
        assert_eq!(parse_stat("17 (sh) Z"), None);
    }

    #[test]
    fn orphans_are_collected_and_awaited_children_are_not() {
        in_own_process(module_path!(), "alone_as_sub_reaper");
    }

    #[tokio::test]
    #[ignore = "run in a process of its own by orphans_are_collected_and_awaited_children_are_not"]
    async fn alone_as_sub_reaper() {
        assert!(!is_needed());
        set_child_subreaper(true).unwrap();
        assert!(is_needed());
        let children = Children::new();

        // A registered zombie in front, which nobody waits for yet.
        let (mut awaited, registered) = children.spawn(Command::new("/bin/sh").args(["-c", "exit 7"])).unwrap();
        until(|| list_zombies().unwrap() == [registered.pid()]).await;

        // Behind it: three orphans, one of them killed by a signal that nix has no name for.
        let script = "(exit 3) & (kill -40 $(exec sh -c 'echo $PPID')) & (sleep 0.05) & exec true";
        let (mut parent, parent_registered) =
            children.spawn(Command::new("/bin/sh").args(["-c", script]).stdout(Stdio::null())).unwrap();
        assert!(parent.wait().await.unwrap().success());
        drop(parent_registered);
        until(|| list_zombies().unwrap().len() == 4).await;

        // And a child behind the registry's back, waited for within the grace period.
        let mut unregistered = Command::new("/bin/sh").args(["-c", "exit 9"]).spawn().unwrap();

        until(|| list_zombies().unwrap().len() == 5).await;
        let mut reaper = Reaper { children: children.clone(), grace: GRACE, seen: HashMap::new() };
        let begin = Instant::now();
        assert_eq!(reaper.sweep(begin), Some(begin + GRACE));
        assert_eq!(reaper.sweep(begin + GRACE / 2), Some(begin + GRACE));
        assert_eq!(list_zombies().unwrap().len(), 5, "collected before the grace period was over");
        assert_eq!(unregistered.wait().await.unwrap().code(), Some(9));
        assert_eq!(reaper.sweep(begin + GRACE), None);
        assert_eq!(list_zombies().unwrap(), [registered.pid()]);
        assert_eq!(reaper.sweep(begin + GRACE * 9), None);
        assert_eq!(awaited.wait().await.unwrap().code(), Some(7), "the status was stolen");
        drop(registered);
        assert!(children.awaited().is_empty());

        // An orphan that comes later is noticed by its signal alone.
        let stop = CancellationToken::new();
        let mut set = tokio::task::JoinSet::new();
        set.spawn(run_with_grace(children.clone(), Duration::from_millis(20), stop.clone()));
        let (mut parent, _registered) =
            children.spawn(Command::new("/bin/sh").args(["-c", "(exit 1) & exec true"])).unwrap();
        parent.wait().await.unwrap();
        until(|| list_zombies().unwrap().is_empty()).await;
        stop.cancel();
        assert!(set.join_next().await.unwrap().unwrap().is_ok());
    }

    async fn until(mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !condition() {
            assert!(Instant::now() < deadline, "nothing happened; zombies: {:?}", list_zombies());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}
