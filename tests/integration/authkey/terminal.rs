//! At a terminal: what a person is shown and asked.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Child;
use tokio::time::timeout;

use super::{DEAD, NEW, USED, command, finish, patches, scene};
use crate::support::{SOON, Scene};

/// A run whose standard input and error are a terminal, and the other end of that.
struct Terminal {
    child: Child,
    end: fs::File,
}

fn at_terminal(scene: &Scene, args: &[&str]) -> Terminal {
    let nix::pty::OpenptyResult { master, slave } = nix::pty::openpty(None, None).unwrap();
    let ours = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
    let child = command(scene, args).env("TERM", "xterm").stdin(ours(&slave)).stderr(ours(&slave)).spawn().unwrap();
    Terminal { child, end: fs::File::from(master) }
}

impl Terminal {
    /// What is shown until `part` is, or, without one, until the run ends.
    async fn shows(&mut self, part: &'static str) -> String {
        let mut end = self.end.try_clone().unwrap();
        let read = tokio::task::spawn_blocking(move || {
            let mut shown = String::new();
            let mut bytes = [0; 4096];
            while part.is_empty() || !shown.contains(part) {
                match end.read(&mut bytes) {
                    // EIO: nobody has the other end open any more.
                    Ok(0) | Err(_) => break,
                    Ok(read) => shown += &String::from_utf8_lossy(&bytes[..read]),
                }
            }
            shown
        });
        let shown = timeout(SOON, read).await.unwrap_or_else(|_| panic!("no {part:?} in time")).unwrap();
        assert!(!shown.contains("hush") && shown.contains(part), "{part:?}: {shown}");
        shown
    }

    async fn ends(mut self, code: i32) -> (String, String) {
        let shown = self.shows("").await;
        let ran = finish(self.child).await;
        assert_eq!(ran.code, Some(code), "{shown}{}", ran.stdout);
        (ran.stdout, shown)
    }
}

#[tokio::test]
async fn a_person_is_shown_what_goes_and_asked() {
    let scene = scene(&USED).await;
    let mut terminal = at_terminal(&scene, &["clear"]);
    let shown = terminal.shows("Remove them from Secret `default/tailscale`? [y/N] ").await;
    assert!(shown.contains("profile-a") && shown.contains("the current profile with the node key"), "{shown}");
    terminal.end.write_all(b"n\n").unwrap();
    let (_, shown) = terminal.ends(1).await;
    assert!(shown.contains("not confirmed: nothing was removed"), "{shown}");
    assert_eq!(patches(&scene), 0);

    // What was shown is what is decided about: a change in between is somebody else's word.
    let mut terminal = at_terminal(&scene, &["clear"]);
    terminal.shows("[y/N] ").await;
    scene.put_keys(&[("_current-profile", "profile-b")]);
    terminal.end.write_all(b"y\n").unwrap();
    let (_, shown) = terminal.ends(1).await;
    assert!(shown.contains("was changed by someone else"), "{shown}");
    assert_eq!(scene.data().len(), USED.len());

    let mut terminal = at_terminal(&scene, &["clear"]);
    terminal.shows("[y/N] ").await;
    kill(Pid::from_raw(terminal.child.id().unwrap().cast_signed()), Signal::SIGINT).unwrap();
    terminal.ends(130).await;

    let mut terminal = at_terminal(&scene, &["clear"]);
    terminal.shows("[y/N] ").await;
    terminal.end.write_all(b"yes\n").unwrap();
    let (stdout, _) = terminal.ends(0).await;
    assert!(stdout.contains("removed reissue_authkey"), "{stdout}");
}

#[tokio::test]
async fn a_person_sees_the_clock_and_a_script_does_not() {
    let scene = scene(&[("authkey", DEAD)]).await;
    let mut terminal = at_terminal(&scene, &["wait", "--timeout", "90s"]);
    let shown = terminal.shows("m2").await;
    assert!(shown.contains("waiting for a new auth key in `authkey` of Secret `default/tailscale` ("), "{shown}");
    assert!(!shown.contains("max wait"), "log lines do not get in its way: {shown}");
    scene.put_keys(&[("authkey", NEW)]);
    let (stdout, _) = terminal.ends(0).await;
    assert!(stdout.starts_with("new auth key tskey-auth-kNEW after "), "{stdout}");
}
