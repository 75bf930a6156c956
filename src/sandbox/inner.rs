//! What the pretend daemon knows, and what its processes, callers and watchers do to it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Cluster;
use super::certs::Certificates;
use super::daemon::{CliScript, Daemon, Fault};
use super::link::{Child, DaemonScript, SecretFile, ToChild};
use super::node::{Node, State};
use super::record::{Call, Command, Program};
use super::release::{Version, bit};
use super::statestore::StateStore;
use super::tailnet::Tailnet;
use super::view::View;

/// Messages a watcher may be behind before it is dropped (`ipn/ipnlocal/bus.go`).
const WATCH_QUEUE: usize = 128;

/// What a dropped watcher is told last.
pub(crate) const FELL_BEHIND: &str = "IPN bus consumer fell behind; closing watch";

/// Everything there is to know about the daemon.
#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) commands: Vec<Command>,
    pub(super) calls: Vec<Call>,
    pub(super) signals: Vec<String>,
    pub(super) orphans: Vec<u32>,
    pub(super) clis: Vec<u32>,
    pub(super) process: Option<Process>,
    pub(super) starts: usize,
    pub(super) next_scripts: VecDeque<DaemonScript>,
    pub(super) script: DaemonScript,
    pub(super) next_cli: Vec<(String, CliScript)>,
    pub(super) cli: Vec<(String, CliScript)>,
    pub(super) next_faults: Vec<(String, Fault)>,
    pub(super) faults: Vec<(String, Fault)>,
    pub(super) watchers: Vec<Watcher>,
    pub(super) last_message: Option<Value>,
    pub(super) whois: Vec<(String, Value)>,
    pub(super) search: Duration,
    pub(super) version: Option<Version>,
    pub(super) view: View,
    pub(super) certificates: Certificates,
    pub(super) automatic: bool,
    pub(super) cluster: Option<Cluster>,
    pub(super) tailnet: Tailnet,
    pub(super) node: Node,
    pub(super) store: StateStore,
    /// What the store was last known to hold.
    pub(super) saved: State,
}

impl Inner {
    /// Who is known at an address, written as it was said with [`Daemon::set_whois`]. A node has all ports of its addresses.
    pub(super) fn who(&self, addr: &str) -> Option<Value> {
        let exact = self.whois.iter().find(|(known, _)| known == addr);
        let found = exact.or_else(|| self.whois.iter().find(|(known, _)| is_same_node(known, addr)));
        found.map(|(_, answer)| answer.clone())
    }
}

fn is_same_node(known: &str, asked: &str) -> bool {
    let parts = |text: &str| {
        let (addr, service) = text.split_once(' ').unwrap_or((text, ""));
        let ip = addr.parse::<SocketAddr>().map(|addr| addr.ip()).or_else(|_| addr.parse()).ok()?;
        Some((ip, service.to_owned()))
    };
    parts(known).is_some_and(|(ip, service)| !ip.is_loopback() && parts(asked) == Some((ip, service)))
}

/// A running `tailscaled` process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) serial: usize,
    pub(super) args: Vec<String>,
    pub(super) listening: bool,
    pub(super) orders: mpsc::UnboundedSender<ToChild>,
}

/// The sending end of a watch.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) mask: u64,
    pub(super) queue: mpsc::Sender<Value>,
    pub(super) lagged: Arc<AtomicBool>,
}

/// The receiving end of a watch.
#[derive(Debug)]
pub(super) struct Watching {
    pub(super) queue: mpsc::Receiver<Value>,
    pub(super) lagged: Arc<AtomicBool>,
}

/// Marks a bus line that is sent without its JSON quotes.
pub(super) const RAW: &str = "\u{0}raw:";

/// A bus message as the bytes of its line.
pub(super) fn line_of(message: &Value) -> Vec<u8> {
    let mut line = match message.as_str().and_then(|text| text.strip_prefix(RAW)) {
        Some(raw) => raw.as_bytes().to_vec(),
        None => message.to_string().into_bytes(),
    };
    line.push(b'\n');
    line
}

impl Daemon {
    /// A `tailscaled` process has started; yields its serial number and what to tell it first.
    pub(super) fn started(&self, child: Child, orders: &mpsc::UnboundedSender<ToChild>) -> usize {
        self.change(|inner| {
            let command = Command::new(Program::Tailscaled, child, Vec::new());
            let first = if command.args.iter().any(|arg| arg.trim_start_matches('-') == "version") {
                let version = inner.version();
                let text = format!("{}\n  long version: {}\n", version.short(), version.long);
                vec![ToChild::Stdout(text), ToChild::Exit(0)]
            } else {
                let script = inner.next_scripts.pop_front().unwrap_or_else(|| inner.script.clone());
                inner.starts += 1;
                if let Some(Some(mode)) = command.env.get("TS_CERT_SHARE_MODE") {
                    inner.certificates.read_only = mode == "ro";
                }
                inner.view.tun = command.flag("tun") != Some("userspace-networking");
                inner.process = Some(Process {
                    pid: command.pid,
                    serial: inner.starts,
                    args: command.args.clone(),
                    listening: false,
                    orders: orders.clone(),
                });
                if inner.automatic {
                    inner.boot_node();
                }
                vec![ToChild::Script(script)]
            };
            inner.commands.push(command);
            for order in first {
                // A process that is gone already is noticed by whoever reads from it.
                let _ = orders.send(order);
            }
            inner.starts
        })
    }

    /// The process accepts connections.
    pub(super) fn listening(&self, serial: usize) {
        self.change(|inner| {
            if let Some(process) = inner.process.as_mut().filter(|process| process.serial == serial) {
                process.listening = true;
            }
        });
    }

    /// A signal arrived at the process.
    pub(super) fn signalled(&self, name: String) {
        self.change(|inner| inner.signals.push(name));
    }

    /// The process left a grandchild behind.
    pub(super) fn orphaned(&self, pid: u32) {
        self.change(|inner| inner.orphans.push(pid));
    }

    /// The process has ended: so have its watches.
    pub(super) fn ended(&self, serial: usize) {
        self.change(|inner| {
            if inner.process.as_ref().is_some_and(|process| process.serial == serial) {
                inner.process = None;
                inner.watchers.clear();
            }
        });
    }

    /// Records a `tailscale` command and yields what it does; `None` when nothing was scripted.
    pub(super) fn cli_started(&self, child: Child, files: Vec<SecretFile>) -> (Command, Option<CliScript>) {
        self.change(|inner| {
            let command = Command::new(Program::Tailscale, child, files);
            inner.commands.push(command.clone());
            inner.clis.push(command.pid);
            let verb = command.verb().unwrap_or_default();
            let next = inner.next_cli.iter().position(|(known, _)| known == verb);
            let script = match next {
                Some(index) => Some(inner.next_cli.remove(index).1),
                None => inner.cli.iter().find(|(known, _)| known == verb).map(|(_, script)| script.clone()),
            };
            (command, script)
        })
    }

    /// A `tailscale` process has ended.
    pub(super) fn cli_ended(&self, pid: u32) {
        self.change(|inner| inner.clis.retain(|known| *known != pid));
    }

    /// Records a call and yields the fault it shall meet.
    pub(super) fn called(&self, call: Call) -> Option<Fault> {
        self.change(|inner| {
            let meant = |what: &str| what == "*" || what == call.endpoint || what == call.what();
            let fault = match inner.next_faults.iter().position(|(endpoint, _)| meant(endpoint)) {
                Some(index) => Some(inner.next_faults.remove(index).1),
                None => inner.faults.iter().find(|(endpoint, _)| meant(endpoint)).map(|(_, fault)| fault.clone()),
            };
            inner.calls.push(call);
            fault
        })
    }

    /// Opens a watch; its first message, if it gets one, is in the queue already.
    pub(super) fn open_watch(&self, mask: u64) -> Watching {
        let (sender, queue) = mpsc::channel(WATCH_QUEUE);
        let lagged = Arc::new(AtomicBool::new(false));
        let watcher = Watcher { mask, queue: sender, lagged: Arc::clone(&lagged) };
        self.change(|inner| {
            let first = if inner.automatic {
                let session = format!("{:016x}", inner.calls.len());
                inner.view.first_message(mask, inner.version(), &session)
            } else {
                inner.last_message.clone()
            };
            if let Some(first) = first {
                watcher.queue.try_send(first).expect("a new queue has room");
            }
            inner.watchers.retain(|watcher| !watcher.queue.is_closed());
            inner.watchers.push(watcher);
        });
        Watching { queue, lagged }
    }
}

impl Inner {
    /// The version that is played.
    pub(super) fn version(&self) -> &Version {
        static DEFAULT: std::sync::LazyLock<Version> =
            std::sync::LazyLock::new(|| Version::new("1.102.5-t5a4d0e0a1-g0123456789"));
        self.version.as_ref().unwrap_or(&DEFAULT)
    }

    /// The arguments of the running process.
    pub(super) fn args(&self) -> &[String] {
        self.process.as_ref().map(|process| process.args.as_slice()).unwrap_or_default()
    }

    /// Puts a message into every watcher's queue. One that is too far behind is dropped with a last word, or
    /// silently misses the message before 1.102.
    pub(super) fn broadcast(&mut self, message: &Value) {
        let (automatic, minor) = (self.automatic, self.version().minor);
        self.watchers.retain(|watcher| {
            let message = if automatic { for_mask(message, watcher.mask) } else { Some(message.clone()) };
            let Some(message) = message else { return true };
            match watcher.queue.try_send(message) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Closed(_)) => false,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    watcher.lagged.store(minor >= 102, Ordering::Release);
                    minor < 102
                }
            }
        });
    }

    /// Answers a mask's question about the state, as JSON for `status`.
    pub(super) fn status(&self, with_peers: bool) -> Value {
        self.view.status(self.version(), with_peers)
    }
}

/// A message without what the mask did not ask for; `None` when nothing is left.
fn for_mask(message: &Value, mask: u64) -> Option<Value> {
    let mut message = message.clone();
    let members = message.as_object_mut()?;
    if mask & bit::PEER_CHANGES == 0 {
        for member in ["PeersChanged", "PeersRemoved", "UserProfiles"] {
            members.remove(member);
        }
    }
    if mask & bit::INITIAL_NETMAP == 0 {
        members.insert("NetMap".to_owned(), json!(null));
    }
    let says_something = members.iter().any(|(name, value)| name != "Version" && !value.is_null());
    says_something.then_some(message)
}
