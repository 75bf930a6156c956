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
use std::sync::{Arc, Mutex, MutexGuard};
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

use crate::lock::lock;
use crate::maybe::at;

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
        lock(&self.inner.awaited)
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
    let mut child_changed = signal(SignalKind::child())?;
    let mut reaper = Reaper { children: children.clone(), seen: HashMap::new() };
    loop {
        let next = reaper.sweep(Instant::now());
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(()) = child_changed.recv() => {}
            () = children.inner.forgotten.notified() => {}
            () = at(next) => {}
        }
    }
}

struct Reaper {
    children: Children,
    /// Unknown zombies, and since when.
    seen: HashMap<i32, Instant>,
}

impl Reaper {
    /// Collects the unknown zombies that are old enough; returns when to look again, if there is a younger one.
    fn sweep(&mut self, now: Instant) -> Option<Instant> {
        // Held until the end, so that no child is started, and ends, between the look and the collection.
        let children = self.children.clone();
        let awaited = children.awaited();
        let (due, next) = self.due(zombies(), &awaited, now);
        due.into_iter().for_each(collect);
        next
    }

    /// Which of these zombies nobody waits for and are old enough, and when the next one will be.
    fn due(&mut self, zombies: Vec<i32>, awaited: &BTreeSet<i32>, now: Instant) -> (Vec<i32>, Option<Instant>) {
        let unknown: BTreeSet<i32> = zombies.into_iter().filter(|pid| !awaited.contains(pid)).collect();
        self.seen.retain(|pid, _| unknown.contains(pid));
        let (mut old, mut next) = (Vec::new(), None);
        for pid in unknown {
            let due = *self.seen.entry(pid).or_insert(now) + GRACE;
            if due <= now {
                self.seen.remove(&pid);
                old.push(pid);
            } else {
                next = Some(next.map_or(due, |next: Instant| next.min(due)));
            }
        }
        (old, next)
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
    use super::*;

    #[test]
    fn stat_is_read_behind_any_command_name() {
        assert_eq!(parse_stat("17 (sh) Z 1 17 17 0 -1"), Some(('Z', 1)));
        assert_eq!(parse_stat("17 (a) S 9 (b) ) R 4 17"), Some(('R', 4)));
        assert_eq!(parse_stat("17 (sh"), None);
        assert_eq!(parse_stat("17 (sh) Z"), None);
    }

    #[test]
    fn only_what_nobody_waits_for_is_collected_and_only_in_time() {
        let begin = Instant::now();
        let mut reaper = Reaper { children: Children::new(), seen: HashMap::new() };
        let awaited = BTreeSet::from([7]);
        let mut due = |zombies: &[i32], after| reaper.due(zombies.to_vec(), &awaited, begin + after);
        assert_eq!(due(&[7, 8], Duration::ZERO), (vec![], Some(begin + GRACE)));
        // 9 was started behind the registry's back, and its waiter comes in time.
        assert_eq!(due(&[7, 8, 9], GRACE / 2), (vec![], Some(begin + GRACE)));
        assert_eq!(due(&[7, 8], GRACE), (vec![8], None));
        assert_eq!(due(&[7], GRACE * 9), (vec![], None));
        // The number is used again, and what it once stood for is forgotten.
        assert_eq!(due(&[7, 9], GRACE * 9), (vec![], Some(begin + GRACE * 10)));
    }

    #[tokio::test]
    async fn a_child_is_awaited_until_its_status_is_collected() {
        let children = Children::new();
        let (mut child, registered) = children.spawn(Command::new("/bin/sh").args(["-c", "exit 7"])).unwrap();
        assert_eq!(*children.awaited(), BTreeSet::from([registered.pid()]));
        assert_eq!(child.wait().await.unwrap().code(), Some(7));
        drop(registered);
        assert!(children.awaited().is_empty());
    }

    // nix has no name for real-time signals.
    #[test]
    fn zombies_are_found_and_collected_whatever_ended_them() {
        let spawn = |script| std::process::Command::new("/bin/sh").args(["-c", script]).spawn().unwrap();
        let children = ["exit 3", "kill -40 $$"].map(spawn);
        let pids = children.each_ref().map(|child| i32::try_from(child.id()).unwrap());
        let theirs = || zombies().into_iter().filter(|pid| pids.contains(pid)).count();
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while theirs() < pids.len() {
            assert!(std::time::Instant::now() < deadline, "no zombies");
            std::thread::sleep(Duration::from_millis(1));
        }
        pids.into_iter().for_each(collect);
        assert_eq!(theirs(), 0);
    }
}
