//! A private mount namespace in which the service account is where every program looks for it.
//!
//! Programs that do not know a test root read `/var/run/secrets/kubernetes.io/serviceaccount`. [`enter`] gives the
//! calling process its own view of the file system with the pretend one there, and with pretend sysctl files, so
//! that nothing it starts can change the machine's forwarding. Nothing outside the process and its children sees
//! any of it. Must be called while the process has one thread: user namespaces are refused to others.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid};

use super::pod::{SERVICE_ACCOUNT, SYSCTLS};

/// Entries of `/var/run` that the Pod has of its own.
const OWN: [&str; 2] = ["secrets", "tailscale"];

/// Why there is no namespace.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The kernel, or whoever configured it, does not allow it.
    #[error("private mount namespaces are forbidden here")]
    Forbidden(#[source] Errno),
    /// It is allowed, but something in it is not.
    #[error("cannot {what}")]
    Step {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

/// Moves this process into a namespace of its own, laid out after the Pod at `root`.
pub fn enter(root: &Path) -> Result<(), Refused> {
    let privileged = unshare(CloneFlags::CLONE_NEWNS).is_ok();
    if !privileged {
        unshare_as_user()?;
    }
    change("make mounts private", || attach(None, Path::new("/"), MsFlags::MS_REC | MsFlags::MS_PRIVATE))?;

    let run = change("find /var/run", || fs::canonicalize("/var/run"))?;
    change("replace /var/run", || replace_run(&run))?;
    let account = run.join(SERVICE_ACCOUNT.trim_start_matches("var/run/"));
    change("make the service account's directory", || fs::create_dir_all(&account))?;
    change("put the service account in its place", || bind(&root.join(SERVICE_ACCOUNT), &account))?;

    for sysctl in SYSCTLS {
        let real = Path::new("/").join(sysctl);
        let covered = if real.exists() { bind(&root.join(sysctl), &real) } else { Ok(()) };
        // Without privileges the real file cannot be written either.
        if privileged {
            change(&format!("cover {}", real.display()), || covered)?;
        }
    }
    Ok(())
}

/// The way of a user who is not root: a user namespace in which they are.
fn unshare_as_user() -> Result<(), Refused> {
    let (uid, gid) = (Uid::effective(), Gid::effective());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).map_err(Refused::Forbidden)?;
    change("map the user", || {
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
        fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
    })
}

/// Puts a tmpfs over `run` that shows everything that was there, but for what a Pod has of its own.
fn replace_run(run: &Path) -> io::Result<()> {
    let old = File::open(run)?;
    let old = PathBuf::from(format!("/proc/self/fd/{}", old.as_raw_fd()));
    let entries: Vec<_> = fs::read_dir(&old)?.collect::<io::Result<_>>()?;
    let links: Vec<_> = entries.iter().map(|entry| fs::read_link(entry.path()).ok()).collect();
    mount(Some("tmpfs"), run, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=755"))?;
    for (entry, link) in entries.iter().zip(links) {
        let target = run.join(entry.file_name());
        if OWN.iter().any(|own| entry.file_name() == *own) {
            continue;
        }
        let shown = match link {
            Some(link) => symlink(link, &target),
            None if entry.file_type()?.is_dir() => fs::create_dir(&target).and_then(|()| bind(&entry.path(), &target)),
            None => File::create(&target).and_then(|_| bind(&entry.path(), &target)),
        };
        if let Err(error) = shown {
            // A part of the machine's /run that is not there is no loss to a Pod.
            tracing::debug!(%error, path = %target.display(), "not shown in the Pod");
        }
    }
    Ok(())
}

fn bind(from: &Path, to: &Path) -> io::Result<()> {
    attach(Some(from), to, MsFlags::MS_BIND | MsFlags::MS_REC)
}

fn attach(from: Option<&Path>, to: &Path, flags: MsFlags) -> io::Result<()> {
    Ok(mount(from, to, None::<&str>, flags, None::<&str>)?)
}

fn change<T>(what: &str, step: impl FnOnce() -> io::Result<T>) -> Result<T, Refused> {
    step().map_err(|source| Refused::Step { what: what.to_owned(), source })
}
