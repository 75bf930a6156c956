//! The part of tailscaled behind LocalAPI, played in this process.
//!
//! [`Daemon`] is the handle of a test or of the tour: it decides what the next `tailscaled` process does
//! ([`DaemonScript`]), what the `tailscale` CLI answers ([`CliScript`]), what goes over the IPN bus
//! ([`Daemon::notify`]), which call fails ([`Fault`]), and it lists what happened. Every wait is for an event
//! and bounded. In [`Mode::Scripted`](super::Mode) nothing happens but what was asked for, and each new watcher
//! first gets the last message again; in `Mode::Automatic` the node logs in at the pretend tailnet by itself.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;
use tokio::sync::watch;

use super::inner::{Inner, RAW};
use super::link::{DaemonScript, ToChild};
use super::record::{Call, Command, Timeout};
use super::release::Version;
use super::view::complete;
use super::{Cluster, Mode};
use crate::lock::lock;

/// How a LocalAPI call fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An answer with this status and body.
    Status(u16, String),
    /// 429, with so many seconds as `Retry-After`.
    RateLimited(u64),
    /// Accepted, never answered.
    Hang,
    /// Answered once [`Daemon::heal`] has ended all faults, as without one.
    Hold,
    /// The connection is closed without an answer.
    Close,
    /// 200, this much of a body, then a broken connection.
    CutOff(String),
    /// 200 and a JSON string of so many bytes.
    Huge(usize),
}

/// What the `tailscale` CLI stand-in does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CliScript {
    /// Text for stdout.
    pub stdout: String,
    /// Text for stderr.
    pub stderr: String,
    /// Exit code.
    pub exit: u8,
    /// Never end: the login waits for a human.
    pub block: bool,
}

/// Handle of the pretend tailscaled; clones are the same daemon.
#[derive(Clone, Debug)]
pub struct Daemon(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
    /// Held by a lookup, as the real daemon's lock is.
    lookups: tokio::sync::Mutex<()>,
}

impl Daemon {
    pub(crate) fn new(mode: Mode, cluster: Cluster) -> Self {
        let inner = Inner { automatic: mode == Mode::Automatic, cluster: Some(cluster), ..Inner::default() };
        Self::of(inner)
    }

    /// Without a cluster; for unit tests.
    #[cfg(test)]
    pub(crate) fn alone() -> Self {
        Self::of(Inner::default())
    }

    fn of(inner: Inner) -> Self {
        Self(Arc::new(Shared {
            inner: Mutex::new(inner),
            changed: watch::Sender::new(0),
            lookups: tokio::sync::Mutex::default(),
        }))
    }
}

// === The handle of tests ===

impl Daemon {
    /// Sends a message over the IPN bus and keeps it for watchers to come. Members that upstream always sends
    /// are added. `status`, `prefs` and `dns-config` follow what the message says.
    #[expect(clippy::needless_pass_by_value, reason = "callers write the message in place, with `json!`")]
    pub fn notify(&self, message: Value) {
        self.change(|inner| {
            let message = complete(&message, inner.version());
            inner.view.apply(&message);
            inner.broadcast(&message);
            inner.last_message = Some(message);
        });
    }

    /// Sends a line over the IPN bus of every watcher as it is, valid JSON or not, and keeps nothing.
    pub fn notify_raw(&self, line: &str) {
        self.change(|inner| inner.broadcast(&Value::String(format!("{RAW}{line}"))));
    }

    /// Forgets the last message, so that a new watcher gets none.
    pub fn forget_last_message(&self) {
        self.change(|inner| inner.last_message = None);
    }

    /// Ends every open watch, as a daemon that drops its session does.
    pub fn close_watches(&self) {
        self.change(|inner| inner.watchers.clear());
    }

    /// Sets what `dns-config` answers, for example before a `SelfChange`.
    pub fn set_dns(&self, cert_domains: Value, extra_records: Value) {
        self.change(|inner| inner.view.set_dns(cert_domains, extra_records));
    }

    /// Sets some prefs without telling anybody.
    pub fn set_prefs(&self, members: Value) {
        self.change(|inner| {
            if let Value::Object(members) = members {
                inner.view.prefs.extend(members);
            }
        });
    }

    /// The node's prefs.
    pub fn prefs(&self) -> Value {
        Value::Object(self.lock().view.prefs.clone())
    }

    /// What is served; `null` when nothing ever was.
    pub fn serve_config(&self) -> Value {
        self.lock().view.serve_config.clone()
    }

    /// Sets what is served, without telling anybody.
    pub fn put_serve_config(&self, config: Value) {
        self.change(|inner| inner.view.serve_config = config);
    }

    /// The backend state's name.
    pub fn state(&self) -> &'static str {
        self.lock().view.state_name()
    }

    /// Makes `whois` know an address (`127.0.0.1:4321`, `100.64.0.9`).
    pub fn set_whois(&self, addr: &str, answer: Value) {
        self.change(|inner| {
            inner.whois.retain(|(known, _)| known != addr);
            inner.whois.push((addr.to_owned(), answer));
        });
    }

    /// Makes `whois` about an address answer something else when it is asked for the grants of this Service.
    pub fn set_whois_of(&self, service: &str, addr: &str, answer: Value) {
        self.set_whois(&format!("{addr} {service}"), answer);
    }

    /// How long `whois` searches for a port that it does not know; nobody else is answered meanwhile.
    pub fn set_search(&self, time: Duration) {
        self.change(|inner| inner.search = time);
    }

    /// Whether the node has a network interface of its own; without it, as in userspace mode, it has none.
    pub fn set_tun(&self, tun: bool) {
        self.change(|inner| inner.view.tun = tun);
    }

    /// Plays this release (`1.98.2-t0123abcd`): its version headers, the masks it takes, the endpoints it has
    /// and, in automatic mode, the messages it sends. Without it, 1.102.5.
    pub fn set_version(&self, long: &str) {
        self.change(|inner| inner.version = Some(Version::new(long)));
    }

    /// How `tailscaled` behaves from its next start on.
    pub fn script(&self, script: DaemonScript) {
        self.change(|inner| inner.script = script);
    }

    /// How the next start of `tailscaled` behaves, and only that; calls add up.
    pub fn script_next(&self, script: DaemonScript) {
        self.change(|inner| inner.next_scripts.push_back(script));
    }

    /// How every `tailscale <verb>` ends from now on.
    pub fn cli(&self, verb: &str, script: CliScript) {
        self.change(|inner| {
            inner.cli.retain(|(known, _)| known != verb);
            inner.cli.push((verb.to_owned(), script));
        });
    }

    /// How the next `tailscale <verb>` ends; calls add up.
    pub fn cli_next(&self, verb: &str, script: CliScript) {
        self.change(|inner| inner.next_cli.push((verb.to_owned(), script)));
    }

    /// Makes the next call of an endpoint (`status`, `watch-ipn-bus`, …), or of one method of it (`POST prefs`), fail;
    /// calls add up.
    pub fn fail_next(&self, endpoint: &str, fault: Fault) {
        self.change(|inner| inner.next_faults.push((endpoint.to_owned(), fault)));
    }

    /// Makes every call of an endpoint fail (`*`: of all), until [`Daemon::heal`].
    pub fn fail(&self, endpoint: &str, fault: Fault) {
        self.change(|inner| inner.faults.push((endpoint.to_owned(), fault)));
    }

    /// Ends all faults.
    pub fn heal(&self) {
        self.change(|inner| {
            inner.faults.clear();
            inner.next_faults.clear();
        });
    }

    /// Waits until no lasting fault is left.
    pub(crate) async fn healed(&self) {
        let healed = |inner: &Inner| inner.faults.is_empty().then_some(());
        // Without a limit it cannot be late.
        let _ = self.wait("end of all faults", Duration::MAX, healed).await;
    }

    /// Every process started so far, in order.
    pub fn commands(&self) -> Vec<Command> {
        self.lock().commands.clone()
    }

    /// The command lines of [`Daemon::commands`].
    pub fn command_lines(&self) -> Vec<String> {
        self.lock().commands.iter().map(Command::line).collect()
    }

    /// Every LocalAPI call so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    /// How many calls there were of a method and endpoint such as `POST reload-config`.
    pub fn count(&self, what: &str) -> usize {
        self.lock().calls.iter().filter(|call| call.what() == what).count()
    }

    /// Signals the `tailscaled` processes reported, in order (`SIGTERM`, `SIGINT`).
    pub fn signals(&self) -> Vec<String> {
        self.lock().signals.clone()
    }

    /// Grandchildren left behind by [`DaemonScript::orphans`].
    pub fn orphans(&self) -> Vec<u32> {
        self.lock().orphans.clone()
    }

    /// Whether a `tailscaled` process runs and accepts connections.
    pub fn running(&self) -> bool {
        self.lock().process.as_ref().is_some_and(|process| process.listening)
    }

    /// The `tailscaled` process's id, from its start to its end.
    pub fn pid(&self) -> Option<u32> {
        self.lock().process.as_ref().map(|process| process.pid)
    }

    /// How often `tailscaled` was started.
    pub fn starts(&self) -> usize {
        self.lock().starts
    }

    /// Open watches of the IPN bus.
    pub fn watchers(&self) -> usize {
        self.lock().watchers.iter().filter(|watcher| !watcher.queue.is_closed()).count()
    }

    /// Sends a signal to the `tailscaled` process; `false` when there is none.
    pub fn kill(&self, signal: Signal) -> bool {
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok());
        pid.is_some_and(|pid| nix::sys::signal::kill(Pid::from_raw(pid), signal).is_ok())
    }

    /// Makes the running `tailscaled` process end with this code; `false` when there is none.
    pub fn exit(&self, code: u8) -> bool {
        let inner = self.lock();
        inner.process.as_ref().is_some_and(|process| process.orders.send(ToChild::Exit(code)).is_ok())
    }

    /// Waits until a started process satisfies `is`.
    pub async fn await_command(
        &self,
        limit: Duration,
        is: impl Fn(&Command) -> bool + Send,
    ) -> Result<Command, Timeout> {
        self.wait("such command", limit, |inner| inner.commands.iter().find(|command| is(command)).cloned()).await
    }

    /// Waits until at least `count` processes were started, and yields all command lines.
    pub async fn await_commands(&self, count: usize, limit: Duration) -> Result<Vec<String>, Timeout> {
        let lines = |inner: &Inner| inner.commands.iter().map(Command::line).collect();
        self.wait(&format!("{count} commands"), limit, |inner| (inner.commands.len() >= count).then(|| lines(inner)))
            .await
    }

    /// Waits for the first call that satisfies `is`.
    pub async fn await_call(&self, limit: Duration, is: impl Fn(&Call) -> bool + Send) -> Result<Call, Timeout> {
        self.wait("such call", limit, |inner| inner.calls.iter().find(|call| is(call)).cloned()).await
    }

    /// Waits until there were at least `count` calls of a method and endpoint such as `POST reload-config`.
    pub async fn await_count(&self, what: &str, count: usize, limit: Duration) -> Result<(), Timeout> {
        let enough = |inner: &Inner| inner.calls.iter().filter(|call| call.what() == what).count() >= count;
        self.wait(&format!("{count} calls of {what}"), limit, |inner| enough(inner).then_some(())).await
    }

    /// Waits until `tailscaled` accepts connections and was started at least `starts` times.
    pub async fn await_running(&self, starts: usize, limit: Duration) -> Result<u32, Timeout> {
        self.wait("running tailscaled", limit, |inner| {
            let process = inner.process.as_ref().filter(|process| process.listening && inner.starts >= starts);
            process.map(|process| process.pid)
        })
        .await
    }

    /// Waits until no `tailscaled` process is left.
    pub async fn await_stopped(&self, limit: Duration) -> Result<(), Timeout> {
        self.wait("end of tailscaled", limit, |inner| inner.process.is_none().then_some(())).await
    }

    /// Waits until no `tailscale` process is left.
    pub async fn await_cli_ended(&self, limit: Duration) -> Result<(), Timeout> {
        self.wait("end of tailscale", limit, |inner| inner.clis.is_empty().then_some(())).await
    }

    /// Waits until `tailscaled` processes reported at least `count` signals.
    pub async fn await_signals(&self, count: usize, limit: Duration) -> Result<(), Timeout> {
        self.wait(&format!("{count} signals"), limit, |inner| (inner.signals.len() >= count).then_some(())).await
    }

    /// Waits until at least `count` watches of the IPN bus are open.
    pub async fn await_watchers(&self, count: usize, limit: Duration) -> Result<(), Timeout> {
        self.wait(&format!("{count} watchers"), limit, |inner| {
            let open = inner.watchers.iter().filter(|watcher| !watcher.queue.is_closed()).count();
            (open >= count).then_some(())
        })
        .await
    }

    /// Waits until the node is up or the daemon gone; what `tailscale up` does.
    pub(crate) async fn up(&self) -> bool {
        let up = |inner: &Inner| inner.process.is_none().then_some(false).or((inner.view.state == 6).then_some(true));
        self.wait("node", Duration::MAX, up).await.unwrap_or(false)
    }

    /// Waits until the backend is in the named state.
    pub async fn await_state(&self, name: &str, limit: Duration) -> Result<(), Timeout> {
        self.wait(&format!("state {name}"), limit, |inner| (inner.view.state_name() == name).then_some(())).await
    }

    async fn wait<T>(
        &self,
        what: &str,
        limit: Duration,
        mut check: impl FnMut(&Inner) -> Option<T>,
    ) -> Result<T, Timeout> {
        let mut changes = self.0.changed.subscribe();
        let found = async {
            loop {
                changes.borrow_and_update();
                if let Some(found) = check(&self.lock()) {
                    return found;
                }
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(limit, found).await.map_err(|_| self.timeout(what, limit))
    }

    /// Who is at an address, as seen by a Service if one is named. Ports count on loopback alone.
    pub(super) async fn look_up(&self, addr: &str, service: Option<&str>) -> Option<Value> {
        let _lookup = self.0.lookups.lock().await;
        let scoped = service.map(|service| format!("{addr} {service}"));
        let known = scoped.and_then(|scoped| self.lock().who(&scoped)).or_else(|| self.lock().who(addr));
        let search = self.lock().search;
        if known.is_none() && addr.parse::<SocketAddr>().is_ok_and(|addr| addr.port() != 0) {
            tokio::time::sleep(search).await;
        }
        known
    }

    fn timeout(&self, what: &str, limit: Duration) -> Timeout {
        let inner = self.lock();
        let mut seen = String::new();
        for command in &inner.commands {
            // Writing to a String cannot fail.
            let _ = writeln!(seen, "  {command:?}");
        }
        for call in &inner.calls {
            let _ = writeln!(seen, "  {call:?}");
        }
        let _ = writeln!(seen, "  signals {:?}, state {}", inner.signals, inner.view.state_name());
        Timeout { what: what.to_owned(), limit, seen }
    }
}

impl Daemon {
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere leaves records that are still worth reading.
        lock(&self.0.inner)
    }

    /// Changes something and wakes everybody who waits.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let result = change(&mut self.lock());
        self.0.changed.send_modify(|version| *version += 1);
        result
    }
}
