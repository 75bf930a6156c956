//! The tailscaled process: started in a group of its own, watched from its first moment, stopped by name.
//!
//! Its streams are ours unless its words are asked for, its stdin is empty, its environment is exactly what it is given.
//! Whoever holds a [`Tailscaled`] is told of its death at once ([`exited`](Tailscaled::exited)); dropping a living one
//! sends it SIGTERM, so that no path through the program leaves it unsignalled.

use std::future::Future;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

use super::exit::{Exit, Usage};
use super::program::{Program, SpawnError};
use super::reaper::{Children, Registered};

/// How long the kernel may take to end a killed process before we go on without its status.
const KILL_SETTLES: Duration = Duration::from_secs(1);

/// A running, or ended, tailscaled.
#[derive(Debug)]
pub struct Tailscaled {
    child: Child,
    pid: Pid,
    before: Usage,
    /// Until the status has been collected, the pid cannot be reused.
    registered: Option<Registered>,
    exit: Option<Exit>,
}

impl Tailscaled {
    /// Starts it as the leader of a new process group, so that a Ctrl-C at the terminal reaches it only through us.
    pub fn spawn(children: &Children, program: &Program) -> Result<Self, SpawnError> {
        Self::start(children, program, program.command()?)
    }

    /// The same, with its standard error for the caller, who has to read it to its end: tailscaled waits for room in a
    /// full pipe, and dies of one that nobody reads.
    pub fn spawn_heard(children: &Children, program: &Program) -> Result<(Self, ChildStderr), SpawnError> {
        let mut command = program.command()?;
        command.stderr(Stdio::piped());
        let mut daemon = Self::start(children, program, command)?;
        let stderr = daemon.child.stderr.take().ok_or_else(|| io::Error::other("no pipe for its stderr"));
        stderr.map(|stderr| (daemon, stderr)).map_err(|source| program.refused(source))
    }

    fn start(children: &Children, program: &Program, mut command: Command) -> Result<Self, SpawnError> {
        command.process_group(0);
        let before = Usage::now();
        let (child, registered) = children.spawn(&mut command).map_err(|source| program.refused(source))?;
        let pid = Pid::from_raw(registered.pid());
        Ok(Self { child, pid, before, registered: Some(registered), exit: None })
    }

    /// Its process id, which is also its group's.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Waits for it to end, and collects its status. Cancel safe; gives the same answer when asked again.
    pub async fn exited(&mut self) -> Exit {
        if let Some(exit) = &self.exit {
            return exit.clone();
        }
        let exit = match self.child.wait().await {
            Ok(status) => Exit::new(status, &self.before),
            Err(error) => {
                tracing::warn!(%error, "tailscaled's exit status was lost");
                Exit::lost()
            }
        };
        self.registered = None;
        self.exit.insert(exit).clone()
    }

    /// Sends SIGTERM to the process itself, not to its group. Fine when it has ended already.
    pub fn terminate(&self) -> io::Result<()> {
        if self.exit.is_some() {
            return Ok(());
        }
        ignore_gone(kill(self.pid, Signal::SIGTERM))
    }

    /// Ends it: SIGTERM, and when `grace` is over SIGKILL to its group. `None` when the kernel does not let go even of
    /// a killed process (one that hangs in a system call).
    ///
    /// The grace is a future, so that a second stop signal can shorten it.
    ///
    /// # Errors
    /// Only when a signal cannot be sent.
    pub async fn stop(&mut self, grace: impl Future<Output = ()>) -> io::Result<Option<Exit>> {
        self.terminate()?;
        tokio::select! {
            biased;
            exit = self.exited() => return Ok(Some(exit)),
            () = grace => {}
        }
        self.kill_group()?;
        Ok(timeout(KILL_SETTLES, self.exited()).await.ok())
    }

    /// Sends SIGKILL to what is left of its process group, itself included. Fine when nothing is left.
    pub fn kill_group(&self) -> io::Result<()> {
        ignore_gone(killpg(self.pid, Signal::SIGKILL))
    }
}

impl Drop for Tailscaled {
    fn drop(&mut self) {
        if let Err(error) = self.terminate() {
            tracing::warn!(%error, "tailscaled could not be told to stop");
        }
    }
}

fn ignore_gone(result: nix::Result<()>) -> io::Result<()> {
    match result {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use nix::unistd::getpgrp;

    use super::*;
    use crate::daemon::exit::Cause;
    use crate::daemon::program::Environment;

    fn shell(script: &str, env: &[(&str, &str)]) -> Program {
        let env: Environment = env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Program::new("/bin/sh", env).args(["-c", script])
    }

    async fn contents(path: &Path) -> String {
        for _ in 0..1000 {
            match fs::read_to_string(path) {
                Ok(text) if text.ends_with('\n') => return text,
                _ => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
        panic!("{} was never written", path.display());
    }

    #[tokio::test]
    async fn an_exit_status_is_told_again_and_again() {
        let children = Children::new();
        let mut daemon = Tailscaled::spawn(&children, &shell("exit 3", &[])).unwrap();
        assert_eq!(daemon.exited().await.cause, Cause::Code(3));
        assert_eq!(daemon.exited().await.to_string(), "exit status 3");
        daemon.terminate().unwrap();
        daemon.kill_group().unwrap();
    }

    #[tokio::test]
    async fn it_leads_a_group_reads_nothing_and_sees_only_its_environment() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let script =
            r#"read x; { echo "$(cut -d' ' -f5 /proc/$$/stat) $$ read=$x"; env; echo; } >$OUT.tmp; mv $OUT.tmp $OUT"#;
        let program = shell(script, &[("OUT", out.to_str().unwrap()), ("PATH", "/usr/bin:/bin"), ("ONLY", "this")]);
        let mut daemon = Tailscaled::spawn(&Children::new(), &program).unwrap();
        assert!(daemon.exited().await.success());
        let text = contents(&out).await;
        let first = text.lines().next().unwrap();
        assert_eq!(first, format!("{0} {0} read=", daemon.pid()));
        assert_ne!(daemon.pid(), getpgrp().as_raw());
        let names: Vec<_> = text.lines().skip(1).filter_map(|line| line.split('=').next()).collect();
        assert!(
            names.contains(&"ONLY") && !names.contains(&"CARGO_MANIFEST_DIR") && !names.contains(&"HOME"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn terminate_reaches_the_process_alone_and_kill_its_group() {
        let dir = tempfile::tempdir().unwrap();
        let (ready, helper) = (dir.path().join("ready"), dir.path().join("helper"));
        let script = "sleep 60 & trap 'exit 5' TERM; echo $! >$HELPER; echo >$READY; wait; wait";
        let env = [("HELPER", helper.to_str().unwrap()), ("READY", ready.to_str().unwrap()), ("PATH", "/usr/bin:/bin")];
        let mut daemon = Tailscaled::spawn(&Children::new(), &shell(script, &env)).unwrap();
        contents(&ready).await;
        daemon.terminate().unwrap();
        assert_eq!(daemon.exited().await.cause, Cause::Code(5));
        let helper: i32 = contents(&helper).await.trim().parse().unwrap();
        assert!(Path::new(&format!("/proc/{helper}")).exists(), "SIGTERM went to the group");
        daemon.kill_group().unwrap();
        for _ in 0..1000 {
            let stat = fs::read_to_string(format!("/proc/{helper}/stat"));
            if stat.map_or(true, |stat| stat.contains(") Z ")) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("the helper survived");
    }

    #[tokio::test]
    async fn stopping_asks_first_and_insists_when_the_grace_is_over() {
        let mut willing =
            Tailscaled::spawn(&Children::new(), &shell("exec sleep 60", &[("PATH", "/usr/bin:/bin")])).unwrap();
        let exit = willing.stop(std::future::pending()).await.unwrap().unwrap();
        assert_eq!(exit.cause, Cause::Signal(15));
        assert_eq!(willing.stop(std::future::pending()).await.unwrap().unwrap().cause, Cause::Signal(15));

        let dir = tempfile::tempdir().unwrap();
        let ready = dir.path().join("ready");
        let env = [("READY", ready.to_str().unwrap()), ("PATH", "/usr/bin:/bin")];
        let script = "trap '' TERM; echo >$READY; exec sleep 60";
        let mut deaf = Tailscaled::spawn(&Children::new(), &shell(script, &env)).unwrap();
        contents(&ready).await;
        let exit = deaf.stop(tokio::time::sleep(Duration::from_millis(20))).await.unwrap().unwrap();
        assert_eq!(exit.cause, Cause::Signal(9));
    }

    #[tokio::test]
    async fn a_death_by_signal_tells_the_peak_memory() {
        let mut daemon = Tailscaled::spawn(&Children::new(), &shell("kill -9 $$", &[])).unwrap();
        let exit = daemon.exited().await;
        assert_eq!(exit.cause, Cause::Signal(9));
        assert!(exit.peak.is_some() && !exit.oom_kill);
        assert!(exit.to_string().starts_with("signal: killed (SIGKILL; peak memory "), "{exit}");
    }

    #[tokio::test]
    async fn waiting_can_be_cancelled_without_losing_the_status() {
        let mut daemon =
            Tailscaled::spawn(&Children::new(), &shell("sleep 0.05; exit 4", &[("PATH", "/bin:/usr/bin")])).unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(5), daemon.exited()).await.is_err());
        assert_eq!(daemon.exited().await.cause, Cause::Code(4));
    }

    #[tokio::test]
    async fn dropping_a_living_one_tells_it_to_stop() {
        let dir = tempfile::tempdir().unwrap();
        let (ready, told) = (dir.path().join("ready"), dir.path().join("told"));
        let script = "trap 'echo >$TOLD; exit' TERM; echo >$READY; while :; do sleep 0.01; done";
        let env = [("TOLD", told.to_str().unwrap()), ("READY", ready.to_str().unwrap()), ("PATH", "/usr/bin:/bin")];
        let daemon = Tailscaled::spawn(&Children::new(), &shell(script, &env)).unwrap();
        contents(&ready).await;
        drop(daemon);
        contents(&told).await;
    }

    #[test]
    fn what_cannot_be_started_is_named() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _guard = runtime.enter();
        let error = Tailscaled::spawn(&Children::new(), &Program::new("/nowhere/tailscaled", Environment::new()));
        assert!(error.unwrap_err().to_string().starts_with("`/nowhere/tailscaled` not found"));
        let dir = tempfile::tempdir().unwrap();
        let broken = dir.path().join("tailscaled");
        fs::write(&broken, "\u{7f}ELF but not really").unwrap();
        fs::set_permissions(&broken, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let error = Tailscaled::spawn(&Children::new(), &Program::new(&broken, Environment::new())).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot start `{}`", broken.display()));
        assert!(std::error::Error::source(&error).is_some());
    }
}
