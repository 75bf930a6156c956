//! The sandbox's end of the stand-ins' lines.

use std::io;

use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::cli::{self, Progress};
use super::control;
use super::daemon::{CliScript, Daemon};
use super::link::{FromChild, Hello, Link, LinkReceiver, LinkSender, ToChild};
use super::record::Command;

/// Accepts the stand-ins' lines.
pub(super) async fn accept_links(listener: UnixListener, daemon: Daemon) {
    let mut lines = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let daemon = daemon.clone();
                    lines.spawn(async move {
                        if let Err(error) = attend(Link::new(stream), daemon).await {
                            tracing::debug!(%error, "lost a stand-in");
                        }
                    });
                }
                Err(error) => tracing::debug!(%error, "cannot accept a stand-in"),
            },
            Some(_) = lines.join_next() => {}
        }
    }
}

/// Plays the other end of one stand-in's line.
async fn attend(link: Link, daemon: Daemon) -> io::Result<()> {
    let Link { mut receiver, mut sender } = link;
    match receiver.next().await? {
        Some(Hello::Tailscaled(child)) => {
            let (orders, mut queue) = mpsc::unbounded_channel();
            let serial = daemon.started(child, &orders);
            let ended = attend_daemon(&mut receiver, &mut queue, &mut sender, &daemon, serial).await;
            daemon.ended(serial);
            ended
        }
        Some(Hello::Tailscale(child, files)) => {
            let (command, script) = daemon.cli_started(child, files);
            let ended = attend_cli(&mut receiver, &mut sender, &daemon, &command, script).await;
            daemon.cli_ended(command.pid);
            ended
        }
        Some(Hello::Control(words)) => {
            let script = control::fulfil(&daemon, &words);
            play(&mut receiver, &mut sender, script).await
        }
        None => Ok(()),
    }
}

async fn attend_cli(
    receiver: &mut LinkReceiver,
    sender: &mut LinkSender,
    daemon: &Daemon,
    command: &Command,
    script: Option<CliScript>,
) -> io::Result<()> {
    let automatic = daemon.lock().automatic;
    let progress = match script {
        Some(script) => Progress::Done(script),
        None if automatic => cli::run(daemon, command),
        None => Progress::Done(CliScript::default()),
    };
    let script = match progress {
        Progress::Done(script) => script,
        Progress::Waits(text) => {
            sender.send(&ToChild::Stderr(text)).await?;
            let up = tokio::select! {
                up = daemon.up() => up,
                _ = receiver.next::<FromChild>() => return Ok(()),
            };
            CliScript { exit: u8::from(!up), ..CliScript::default() }
        }
    };
    play(receiver, sender, script).await?;
    // The process ends its line when it ends.
    receiver.next::<FromChild>().await.map(drop)
}

async fn play(receiver: &mut LinkReceiver, sender: &mut LinkSender, script: CliScript) -> io::Result<()> {
    sender.send(&ToChild::Stdout(script.stdout)).await?;
    sender.send(&ToChild::Stderr(script.stderr)).await?;
    if script.block {
        // The line ends with the process.
        return receiver.next::<FromChild>().await.map(drop);
    }
    sender.send(&ToChild::Exit(script.exit)).await
}

async fn attend_daemon(
    receiver: &mut LinkReceiver,
    orders: &mut mpsc::UnboundedReceiver<ToChild>,
    sender: &mut LinkSender,
    daemon: &Daemon,
    serial: usize,
) -> io::Result<()> {
    loop {
        tokio::select! {
            said = receiver.next() => match said? {
                Some(FromChild::Listening) => daemon.listening(serial),
                Some(FromChild::Signal(name)) => daemon.signalled(name),
                Some(FromChild::Orphan(pid)) => daemon.orphaned(pid),
                None => return Ok(()),
            },
            Some(order) = orders.recv() => sender.send(&order).await?,
        }
    }
}
