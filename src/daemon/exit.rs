//! How a child ended, in words an operator can act on.
//!
//! Exit statuses read as Go prints them (`exit status 3`), since that text is contract; a death by signal adds what
//! the kernel knows: the signal's name, the peak memory and whether the out-of-memory killer was active.

use std::fmt;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::Signal;

/// How a child ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Its status.
    pub cause: Cause,
    /// Whether the kernel wrote a core file.
    pub core: bool,
    /// The most memory it held; asked for only when a signal killed it.
    pub peak: Option<Peak>,
    /// Whether the kernel's out-of-memory killer killed something in our cgroup while the child lived.
    pub oom_kill: bool,
}

/// Why a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It exited with this status.
    Code(i32),
    /// It was killed by this signal.
    Signal(i32),
    /// Somebody else collected its status.
    Lost,
}

/// Peak resident memory in bytes. The kernel keeps one number for all children together, so it is exact only for
/// a child that raised it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peak {
    /// The child's own peak.
    Exactly(u64),
    /// An earlier child's, which this one did not exceed.
    AtMost(u64),
}

impl Exit {
    /// Whether the child exited with status 0.
    pub fn success(&self) -> bool {
        self.cause == Cause::Code(0)
    }

    /// A number for our own exit code: the child's, or 128 plus the signal as shells have it.
    pub fn code(&self) -> u8 {
        let number = match self.cause {
            Cause::Code(code) => code,
            Cause::Signal(signal) => 128 + signal,
            Cause::Lost => 1,
        };
        u8::try_from(number).unwrap_or(1)
    }

    pub(crate) fn new(status: ExitStatus, before: &Usage) -> Self {
        let cause = match (status.code(), status.signal()) {
            (Some(code), _) => Cause::Code(code),
            (None, Some(signal)) => Cause::Signal(signal),
            (None, None) => Cause::Lost,
        };
        // Only a death by signal is told with more than its status.
        let Cause::Signal(_) = cause else { return Self { cause, core: false, peak: None, oom_kill: false } };
        let after = Usage::now();
        let peak = match after.peak_of_children {
            0 => None,
            peak if peak > before.peak_of_children => Some(Peak::Exactly(peak)),
            peak => Some(Peak::AtMost(peak)),
        };
        let oom_kill = matches!((before.oom_kills, after.oom_kills), (Some(before), Some(after)) if after > before);
        Self { cause, core: status.core_dumped(), peak, oom_kill }
    }

    pub(crate) fn lost() -> Self {
        Self { cause: Cause::Lost, core: false, peak: None, oom_kill: false }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signal = match self.cause {
            Cause::Code(code) => return write!(f, "exit status {code}"),
            Cause::Lost => return f.write_str("exited, status unknown"),
            Cause::Signal(signal) => signal,
        };
        match Signal::try_from(signal) {
            Ok(signal) => write!(f, "signal: {} ({}", describe(signal), signal.as_str())?,
            Err(_) => write!(f, "signal: signal {signal} ({signal}")?,
        }
        if self.core {
            f.write_str("; core dumped")?;
        }
        match self.peak {
            Some(Peak::Exactly(bytes)) => write!(f, "; peak memory {} MiB", mebibytes(bytes))?,
            Some(Peak::AtMost(bytes)) => write!(f, "; peak memory at most {} MiB", mebibytes(bytes))?,
            None => {}
        }
        if self.oom_kill {
            f.write_str("; the kernel's out-of-memory killer was active")?;
        }
        f.write_str(")")
    }
}

fn mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// The words that Go and the C library use.
fn describe(signal: Signal) -> &'static str {
    match signal {
        Signal::SIGHUP => "hangup",
        Signal::SIGINT => "interrupt",
        Signal::SIGQUIT => "quit",
        Signal::SIGILL => "illegal instruction",
        Signal::SIGTRAP => "trace/breakpoint trap",
        Signal::SIGABRT => "aborted",
        Signal::SIGBUS => "bus error",
        Signal::SIGFPE => "floating point exception",
        Signal::SIGKILL => "killed",
        Signal::SIGUSR1 => "user defined signal 1",
        Signal::SIGUSR2 => "user defined signal 2",
        Signal::SIGSEGV => "segmentation fault",
        Signal::SIGPIPE => "broken pipe",
        Signal::SIGALRM => "alarm clock",
        Signal::SIGTERM => "terminated",
        Signal::SIGSYS => "bad system call",
        Signal::SIGXCPU => "CPU time limit exceeded",
        Signal::SIGXFSZ => "file size limit exceeded",
        other => other.as_str(),
    }
}

/// What the kernel counts about our children, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Largest peak resident memory of all children waited for, in bytes; 0 is unknown.
    peak_of_children: u64,
    /// Kills by the out-of-memory killer in our cgroup, when that can be read.
    oom_kills: Option<u64>,
}

impl Usage {
    pub(crate) fn now() -> Self {
        let kibibytes = getrusage(UsageWho::RUSAGE_CHILDREN).map_or(0, |usage| usage.max_rss());
        Self { peak_of_children: u64::try_from(kibibytes).unwrap_or(0) * 1024, oom_kills: oom_kills() }
    }
}

fn oom_kills() -> Option<u64> {
    let membership = fs::read_to_string("/proc/self/cgroup").ok()?;
    counter_files(&membership).iter().find_map(|path| oom_counter(&fs::read_to_string(path).ok()?))
}

/// Where our cgroup's counters may be: below the mount as the kernel names the group, or at the mount itself, which
/// is what a container without a cgroup namespace sees.
fn counter_files(membership: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let (mount, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.events"),
            v1 if v1.split(',').any(|name| name == "memory") => ("/sys/fs/cgroup/memory", "memory.oom_control"),
            _ => continue,
        };
        let mount = Path::new(mount);
        files.push(mount.join(group.trim_start_matches('/')).join(file));
        files.push(mount.join(file));
    }
    files
}

fn oom_counter(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(cause: Cause) -> Exit {
        Exit { cause, core: false, peak: None, oom_kill: false }
    }

    #[test]
    fn reads_like_go_and_adds_what_the_kernel_knows() {
        let killed = Exit { peak: Some(Peak::Exactly(37 << 20)), oom_kill: true, ..exit(Cause::Signal(9)) };
        let crashed = Exit { core: true, peak: Some(Peak::AtMost((36 << 20) + 1)), ..exit(Cause::Signal(11)) };
        let cases = [
            (Exit { peak: Some(Peak::Exactly(1)), ..exit(Cause::Code(3)) }, "exit status 3"),
            (killed, "signal: killed (SIGKILL; peak memory 37 MiB; the kernel's out-of-memory killer was active)"),
            (crashed, "signal: segmentation fault (SIGSEGV; core dumped; peak memory at most 37 MiB)"),
            (exit(Cause::Signal(15)), "signal: terminated (SIGTERM)"),
            (exit(Cause::Signal(40)), "signal: signal 40 (40)"),
            (exit(Cause::Lost), "exited, status unknown"),
        ];
        for (exit, text) in cases {
            assert_eq!(exit.to_string(), text);
        }
    }

    #[test]
    fn our_own_code_follows_the_child() {
        let cases = [(Cause::Code(0), 0), (Cause::Code(3), 3), (Cause::Signal(9), 137), (Cause::Lost, 1)];
        for (cause, code) in cases {
            assert_eq!(exit(cause).code(), code);
        }
        assert!(exit(Cause::Code(0)).success() && !exit(Cause::Signal(15)).success());
    }

    #[test]
    fn counters_are_found_for_both_cgroup_versions() {
        let cases = [
            ("0::/kubepods/pod1\n", vec!["/sys/fs/cgroup/kubepods/pod1/memory.events", "/sys/fs/cgroup/memory.events"]),
            (
                "9:cpu,memory:/docker/x:y\n8:pids:/\n",
                vec!["/sys/fs/cgroup/memory/docker/x:y/memory.oom_control", "/sys/fs/cgroup/memory/memory.oom_control"],
            ),
            ("nonsense\n", vec![]),
        ];
        for (membership, files) in cases {
            assert_eq!(counter_files(membership), files.into_iter().map(PathBuf::from).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_counter_is_read_among_its_neighbours() {
        assert_eq!(oom_counter("low 0\noom 3\noom_kill 2\noom_group_kill 0\n"), Some(2));
        assert_eq!(oom_counter("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"), Some(5));
        assert_eq!(oom_counter("oom 3\n"), None);
    }
}
