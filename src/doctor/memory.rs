//! The container's memory limit against what tailscaled uses.
//!
//! Reads the cgroup's files as a container sees them, version 2 before version 1, and tailscaled's resident memory.

use std::path::Path;

use super::finding::{Finding, MEMORY_KILLS, MEMORY_LIMIT};

/// A limit at or above this is version 1's way to say that there is none.
const NO_LIMIT: u64 = 1 << 60;

/// Looks at all of it.
pub(super) fn check() -> Vec<Finding> {
    let cgroup = Path::new("/sys/fs/cgroup");
    let first = |files: &[&str]| files.iter().find_map(|file| std::fs::read_to_string(cgroup.join(file)).ok());
    let limit = first(&["memory.max", "memory/memory.limit_in_bytes"]);
    let events = first(&["memory.events", "memory/memory.oom_control"]);
    vec![judge_limit(limit.as_deref(), resident()), judge_kills(events.as_deref())]
}

/// Resident bytes of the processes called `tailscaled`; `None` when there is none that we see.
fn resident() -> Option<u64> {
    let statuses = std::fs::read_dir("/proc").ok()?.filter_map(|entry| {
        let path = entry.ok()?.path();
        let comm = std::fs::read_to_string(path.join("comm")).ok()?;
        (comm.trim_end() == "tailscaled").then(|| std::fs::read_to_string(path.join("status")).ok())?
    });
    statuses.filter_map(|status| rss_of(&status)).max()
}

/// `VmRSS` of a process's status, in bytes.
fn rss_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

/// Judges the limit as its file has it against the resident bytes of tailscaled.
pub(super) fn judge_limit(limit: Option<&str>, resident: Option<u64>) -> Finding {
    let limit = limit.and_then(|text| text.trim().parse::<u64>().ok()).filter(|limit| *limit < NO_LIMIT && *limit > 0);
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    match (limit, resident) {
        (None, None) => MEMORY_LIMIT.ok("the container has no memory limit"),
        (None, Some(resident)) => {
            MEMORY_LIMIT.ok(format!("tailscaled uses {}, and the container has no memory limit", mib(resident)))
        }
        (Some(limit), None) => {
            MEMORY_LIMIT.skipped(format!("no tailscaled is seen from here; the container's limit is {}", mib(limit)))
        }
        (Some(limit), Some(resident)) => {
            let sentence = format!("tailscaled uses {} of the container's limit of {}", mib(resident), mib(limit));
            let percent = resident.saturating_mul(100) / limit;
            if percent < 75 {
                return MEMORY_LIMIT.ok(sentence);
            }
            let more = (resident.saturating_mul(2) >> 20).max(128);
            let remedy = format!("resources:\n  limits:\n    memory: {more}Mi");
            if percent >= 90 {
                MEMORY_LIMIT.failure(sentence, remedy)
            } else {
                MEMORY_LIMIT.warning(sentence).remedy(remedy)
            }
        }
    }
}

/// Judges the cgroup's count of kills.
pub(super) fn judge_kills(events: Option<&str>) -> Finding {
    let count = events.and_then(|text| {
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|count| count.trim().parse::<u64>().ok())
    });
    match count {
        None => MEMORY_KILLS.skipped("the cgroup's counters cannot be read"),
        Some(0) => MEMORY_KILLS.ok("nothing in this container was killed for want of memory"),
        Some(count) => MEMORY_KILLS
            .warning(format!("{count} processes of this container were killed for want of memory"))
            .remedy("resources:\n  limits:\n    memory: 256Mi  # at least twice of what it uses at rest"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Level;

    #[test]
    fn the_limit_is_judged_by_what_is_used() {
        let mib = |n: u64| Some(n << 20);
        for (limit, resident, level) in [
            (Some("max\n"), mib(500), Level::Ok),
            (Some("9223372036854771712\n"), mib(500), Level::Ok),
            (None, None, Level::Ok),
            (Some("134217728\n"), None, Level::Skipped),
            (Some("134217728\n"), mib(40), Level::Ok),
            (Some("134217728\n"), mib(100), Level::Warning),
            (Some("134217728\n"), mib(120), Level::Failure),
            (Some("134217728\n"), mib(400), Level::Failure),
        ] {
            let finding = judge_limit(limit, resident);
            assert_eq!(finding.level, level, "{limit:?} {resident:?}: {finding:?}");
            assert_eq!(finding.remedy.is_some(), level >= Level::Warning);
        }
        assert!(judge_limit(Some("134217728"), mib(120)).remedy.unwrap().contains("memory: 240Mi"));
    }

    #[test]
    fn kills_are_counted() {
        assert_eq!(judge_kills(Some("low 0\noom 2\noom_kill 2\n")).level, Level::Warning);
        assert_eq!(judge_kills(Some("oom_kill 0\n")).level, Level::Ok);
        assert_eq!(judge_kills(Some("what")).level, Level::Skipped);
        assert_eq!(judge_kills(None).level, Level::Skipped);
        assert_eq!(rss_of("Name:\tx\nVmRSS:\t  2048 kB\n"), Some(2 << 20));
        assert_eq!(rss_of("Name:\tx\n"), None);
    }
}
