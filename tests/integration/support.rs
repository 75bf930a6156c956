//! A boot in a sandbox: started, watched line by line, signalled, waited for.
//!
//! Every wait is for an event. One that takes longer than [`SOON`], or that can no longer happen because the process
//! has ended, fails with everything the process said.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tailpod::sandbox::apiserver::access::{Access, Rule, Subject};
use tailpod::sandbox::apiserver::{ApiServer, Recorded};
use tailpod::sandbox::{Daemon, Sandbox, SandboxOptions, Volume};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Longest wait for something that takes milliseconds on an idle machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The line everybody waits for.
pub(crate) const READY: &str = "Startup complete, waiting for shutdown signal";

/// The Pod's namespace.
pub(crate) const NAMESPACE: &str = "default";

/// The state Secret.
pub(crate) const SECRET: &str = "tailscale";

/// What boot writes as `tailscale_capver`.
pub(crate) const CAP: u32 = tailpod::settings::CAPVER;

/// The data of a Secret as text.
pub(crate) type Data = BTreeMap<String, String>;

// === Bus messages ===

/// `RUN` of boot.md 12: Running, with a self node and the same as an initial status.
pub(crate) fn running() -> Value {
    running_as("myID", "test-node.test.ts.net.", &["100.64.0.1"])
}

/// `RUN` of another node.
pub(crate) fn running_as(id: &str, name: &str, addresses: &[&str]) -> Value {
    json!({
        "State": 6,
        "SelfChange": node(id, name, addresses),
        "InitialStatus": {
            "BackendState": "Running",
            "Self": {"ID": id, "NodeID": 1, "DNSName": name, "TailscaleIPs": addresses},
        },
    })
}

/// A node as `SelfChange` shows it.
pub(crate) fn node(id: &str, name: &str, addresses: &[&str]) -> Value {
    let prefixes: Vec<String> =
        addresses.iter().map(|ip| format!("{ip}/{}", if ip.contains(':') { 128 } else { 32 })).collect();
    json!({"ID": 1, "StableID": id, "Name": name, "Addresses": prefixes})
}

/// A message with this state and nothing else.
pub(crate) fn state(number: u8) -> Value {
    json!({"State": number})
}

/// `NL` of boot.md 12.
pub(crate) fn needs_login() -> Value {
    state(2)
}

/// A `login-state` warning; the reason is left out when empty.
pub(crate) fn login_warning(error: &str) -> Value {
    let args = if error.is_empty() { Value::Null } else { json!({"error": error}) };
    json!({"Health": {"Warnings": {"login-state": {
        "WarnableCode": "login-state", "Severity": "medium", "Title": "Logged out", "Text": "not logged in", "Args": args,
    }}}})
}

/// Health without warnings.
pub(crate) fn healthy() -> Value {
    json!({"Health": {"Warnings": null}})
}

// === The scene ===

/// A sandbox, a cluster beside it, and the environment of the boots that will run in it.
pub(crate) struct Scene {
    pub(crate) sandbox: Sandbox,
    env: BTreeMap<OsString, OsString>,
}

impl Scene {
    /// A Pod that is not told about Kubernetes.
    pub(crate) async fn new() -> Self {
        let sandbox = Sandbox::start(SandboxOptions::new(env!("CARGO_BIN_EXE_tailpod"))).await.expect("a sandbox");
        let env = sandbox.env().into_iter().collect();
        let scene = Self { sandbox, env };
        // Last words belong to the Pod, not to the machine. The kubelet makes the file.
        let last_words = scene.sandbox.pod().write("run/termination-log", "").expect("a file");
        scene.with("TAILPOD_TERMINATION_LOG", last_words)
    }

    /// A Pod in Kubernetes whose state Secret holds `data`.
    pub(crate) async fn kube<'d>(data: impl IntoIterator<Item = (&'d str, &'d str)>) -> Self {
        let scene = Self::kube_without_secret().await;
        scene.api().put_secret(NAMESPACE, SECRET, data);
        scene
    }

    /// A Pod in Kubernetes without a state Secret.
    pub(crate) async fn kube_without_secret() -> Self {
        let mut scene = Self::new().await;
        scene.env.extend(scene.sandbox.kube_env());
        scene
    }

    /// Sets a variable.
    pub(crate) fn with(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.insert(name.into(), value.as_ref().to_owned());
        self
    }

    /// Sets variables.
    pub(crate) fn with_all(mut self, vars: &[(&str, &str)]) -> Self {
        self.env.extend(vars.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))));
        self
    }

    /// Takes rights away from the Pod's service account.
    pub(crate) fn denied(self, verbs: &[&str]) -> Self {
        self.deny(verbs);
        self
    }

    /// Takes rights away from the Pod's service account.
    pub(crate) fn deny(&self, verbs: &[&str]) {
        let access = Access::of_boot(NAMESPACE, SECRET).except(Rule::new("", &["secrets"], verbs));
        self.api().grant(Subject::from(self.sandbox.user()), access);
    }

    /// A versioned config directory with these files, and the variable that names it.
    pub(crate) fn with_config(self, files: &[(&str, &str)]) -> (Self, Volume) {
        let volume = self.sandbox.pod().volume("etc/tailscaled");
        volume.set(files).expect("config files");
        let path = volume.path().to_owned();
        (self.with("TS_EXPERIMENTAL_VERSIONED_CONFIG_DIR", path), volume)
    }

    /// The pretend cluster.
    pub(crate) fn api(&self) -> &ApiServer {
        self.sandbox.api()
    }

    /// The pretend tailscaled.
    pub(crate) fn daemon(&self) -> &Daemon {
        self.sandbox.daemon()
    }

    /// The Pod's directory.
    pub(crate) fn root(&self) -> &Path {
        self.sandbox.pod().root()
    }

    /// The last words.
    pub(crate) fn last_words(&self) -> String {
        self.sandbox.pod().read("run/termination-log").expect("last words")
    }

    /// The environment so far.
    pub(crate) fn env(&self) -> &BTreeMap<OsString, OsString> {
        &self.env
    }

    /// Both sysctls of IP forwarding: IPv4, IPv6.
    pub(crate) fn sysctls(&self) -> [String; 2] {
        ["proc/sys/net/ipv4/ip_forward", "proc/sys/net/ipv6/conf/all/forwarding"]
            .map(|file| self.sandbox.pod().read(file).expect("a sysctl"))
    }

    /// Starts `containerboot`.
    pub(crate) fn boot(&self) -> Boot {
        self.boot_with(&[])
    }

    /// Starts `containerboot` with more variables.
    pub(crate) fn boot_with(&self, vars: &[(&str, &str)]) -> Boot {
        self.start("containerboot", &[], vars)
    }

    /// Starts `tailpod boot`.
    pub(crate) fn tailpod(&self) -> Boot {
        self.tailpod_with(&[])
    }

    /// Starts `tailpod boot` with more variables.
    pub(crate) fn tailpod_with(&self, vars: &[(&str, &str)]) -> Boot {
        self.start("tailpod", &["boot"], vars)
    }

    /// Starts our binary under a name.
    pub(crate) fn start(&self, name: &str, args: &[&str], vars: &[(&str, &str)]) -> Boot {
        let mut command = Command::new(self.sandbox.pod().links().join(name));
        command.args(args).env_clear().envs(&self.env).envs(vars.iter().copied()).kill_on_drop(true);
        Boot::spawn(command)
    }

    // === Commands ===

    /// `tailscaled --socket=S <rest>`
    pub(crate) fn d(&self, rest: &str) -> String {
        self.line("tailscaled", rest)
    }

    /// `tailscale --socket=S up <rest>`
    pub(crate) fn u(&self, rest: &str) -> String {
        self.line("tailscale", &format!("up {rest}"))
    }

    /// `tailscale --socket=S set <rest>`
    pub(crate) fn t(&self, rest: &str) -> String {
        self.line("tailscale", &format!("set {rest}"))
    }

    fn line(&self, program: &str, rest: &str) -> String {
        let socket = self.env.get(OsStr::new("TS_SOCKET")).expect("a socket").to_string_lossy().into_owned();
        format!("{program} --socket={socket} {rest}").trim_end().to_owned()
    }

    /// Waits until these are the command lines so far.
    pub(crate) async fn ran(&self, lines: &[String]) {
        let seen = self.daemon().await_commands(lines.len(), SOON).await;
        let seen = seen.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(seen, lines);
    }

    /// Waits until boot watches the IPN bus, then sends a message over it.
    pub(crate) async fn notify(&self, message: Value) {
        self.daemon().await_watchers(1, SOON).await.unwrap_or_else(|error| panic!("{error}"));
        self.daemon().notify(message);
    }

    // === The Secret ===

    /// What the Secret holds.
    pub(crate) fn data(&self) -> Data {
        self.api().data(NAMESPACE, SECRET)
    }

    /// Waits until the Secret's data satisfies `wanted`.
    pub(crate) async fn stored(&self, wanted: impl Fn(&Data) -> bool) -> Data {
        self.api().wait_secret(NAMESPACE, SECRET, wanted, SOON).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// The API requests so far with this method.
    pub(crate) fn requests(&self, method: &str) -> Vec<std::sync::Arc<Recorded>> {
        self.api().requests().into_iter().filter(|request| request.method == method).collect()
    }

    /// Sets keys of the Secret as somebody else would.
    pub(crate) fn put_keys(&self, keys: &[(&str, &str)]) {
        for (key, value) in keys {
            self.api().set_key(NAMESPACE, SECRET, key, Some(value.as_bytes()));
        }
    }
}

// === The boot ===

/// A running, or ended, boot.
pub(crate) struct Boot {
    child: Child,
    pid: u32,
    log: watch::Receiver<Log>,
    _readers: JoinSet<()>,
}

/// What the process and its children said, in the order of arrival.
#[derive(Debug, Default)]
struct Log {
    lines: Vec<String>,
    /// Streams that may say more.
    open: usize,
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

/// How a process ended, and all it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) lines: Vec<String>,
}

impl Ended {
    /// The messages of boot, without their prefix.
    pub(crate) fn messages(&self) -> Vec<&str> {
        self.lines.iter().filter_map(|line| message(line)).collect()
    }

    /// The last message of boot.
    pub(crate) fn last(&self) -> &str {
        self.messages().last().copied().unwrap_or_default()
    }

    /// Whether some line contains this.
    pub(crate) fn mentions(&self, part: &str) -> bool {
        self.lines.iter().any(|line| line.contains(part))
    }

    /// Whether a message is exactly this.
    pub(crate) fn says(&self, text: &str) -> bool {
        self.messages().contains(&text)
    }

    /// All of it as one text.
    pub(crate) fn text(&self) -> String {
        self.lines.join("\n")
    }
}

/// The message of a line of boot, `boot: YYYY/MM/DD HH:MM:SS <message>`.
pub(crate) fn message(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("boot: ")?;
    let (stamp, message) = rest.split_at_checked(20)?;
    let shape = |(at, byte): (usize, u8)| match at {
        4 | 7 => byte == b'/',
        10 | 19 => byte == b' ',
        13 | 16 => byte == b':',
        _ => byte.is_ascii_digit(),
    };
    stamp.bytes().enumerate().all(shape).then_some(message)
}

impl Boot {
    /// Starts a command and listens to it.
    pub(crate) fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("a process");
        let (log, receiver) = watch::channel(Log { lines: Vec::new(), open: 2 });
        let mut readers = JoinSet::new();
        readers.spawn(collect(child.stdout.take().expect("a pipe"), log.clone()));
        readers.spawn(collect(child.stderr.take().expect("a pipe"), log));
        let pid = child.id().expect("a process id");
        Self { child, pid, log: receiver, _readers: readers }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// The messages so far.
    pub(crate) fn messages(&self) -> Vec<String> {
        self.log.borrow().lines.iter().filter_map(|line| message(line)).map(str::to_owned).collect()
    }

    /// How many messages so far are exactly this.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.messages().iter().filter(|message| *message == text).count()
    }

    /// All lines so far as one text, those of children included.
    pub(crate) fn text(&self) -> String {
        self.log.borrow().lines.join("\n")
    }

    /// Waits for a message that is exactly this.
    pub(crate) async fn said(&self, text: &str) {
        self.wait_line(&format!("message {text:?}"), |line| message(line) == Some(text)).await;
    }

    /// Waits until a message that is exactly this was said so many times.
    pub(crate) async fn said_times(&self, text: &str, times: usize) {
        let count = |log: &Log| log.lines.iter().filter(|line| message(line) == Some(text)).count();
        self.wait(&format!("message {text:?} {times} times"), |log| (count(log) >= times).then_some(())).await;
    }

    /// Waits for a line that contains this.
    pub(crate) async fn mentioned(&self, part: &str) -> String {
        self.wait_line(&format!("line with {part:?}"), |line| line.contains(part)).await
    }

    /// Waits for the startup-complete line.
    pub(crate) async fn ready(&self) {
        self.said(READY).await;
    }

    async fn wait_line(&self, what: &str, is: impl Fn(&str) -> bool) -> String {
        self.wait(what, |log| log.lines.iter().find(|line| is(line)).cloned()).await
    }

    async fn wait<T>(&self, what: &str, check: impl Fn(&Log) -> Option<T>) -> T {
        let mut log = self.log.clone();
        let seen = timeout(SOON, log.wait_for(|log| log.open == 0 || check(log).is_some())).await;
        let in_time = seen.is_ok();
        drop(seen);
        let log = &*self.log.borrow();
        match check(log) {
            Some(found) => found,
            None if in_time => panic!("it ended without {what}; it said\n{log}"),
            None => panic!("no {what} within {SOON:?}; it said\n{log}"),
        }
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid).expect("a pid"));
        kill(pid, signal).unwrap_or_else(|error| panic!("{signal}: {error}; it said\n{}", &*self.log.borrow()));
    }

    /// Waits for its end.
    pub(crate) async fn end(&mut self) -> Ended {
        self.end_within(SOON).await
    }

    /// Waits for its end, no longer than this.
    pub(crate) async fn end_within(&mut self, limit: Duration) -> Ended {
        let Ok(status) = timeout(limit, self.child.wait()).await else {
            panic!("no end within {limit:?}; it said\n{}", &*self.log.borrow());
        };
        // A child that outlives it keeps the streams open; what boot itself said has been read by then.
        let mut log = self.log.clone();
        let _ = timeout(Duration::from_secs(5), log.wait_for(|log| log.open == 0)).await;
        let lines = self.log.borrow().lines.clone();
        Ended { code: status.expect("a status").code(), lines }
    }

    /// Waits for its end and asserts the exit code.
    pub(crate) async fn ends(&mut self, code: i32) -> Ended {
        let ended = self.end().await;
        assert_eq!(ended.code, Some(code), "it said\n{}", ended.text());
        ended
    }

    /// Asserts that it still runs.
    pub(crate) fn lives(&mut self) {
        let status = self.child.try_wait().expect("a status");
        assert_eq!(status, None, "it said\n{}", &*self.log.borrow());
    }

    /// The end of every scenario that does not end by itself: it is alive, and a SIGTERM ends it with 0.
    pub(crate) async fn stops(mut self) -> Ended {
        self.lives();
        self.signal(Signal::SIGTERM);
        self.ends(0).await
    }

    /// The TCP ports that the process itself listens on.
    pub(crate) fn listening_ports(&self) -> Vec<u16> {
        let proc = PathBuf::from(format!("/proc/{}", self.pid));
        let links = std::fs::read_dir(proc.join("fd")).expect("open files");
        let sockets: Vec<String> = links
            .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
            .collect();
        let mut ports = Vec::new();
        for table in ["net/tcp", "net/tcp6"] {
            let table = std::fs::read_to_string(proc.join(table)).unwrap_or_default();
            for line in table.lines().skip(1) {
                let fields: Vec<&str> = line.split_whitespace().collect();
                // local address, state (0A is LISTEN), inode
                if let (Some(local), Some(&"0A"), Some(inode)) = (fields.get(1), fields.get(3), fields.get(9))
                    && sockets.iter().any(|socket| socket == inode)
                {
                    let port = local.rsplit(':').next().and_then(|hex| u16::from_str_radix(hex, 16).ok());
                    ports.push(port.expect("a port"));
                }
            }
        }
        ports
    }
}

async fn collect(stream: impl AsyncRead + Unpin, log: watch::Sender<Log>) {
    let mut lines = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        match lines.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {
                let line = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
                log.send_modify(|log| log.lines.push(line));
            }
        }
    }
    log.send_modify(|log| log.open -= 1);
}

/// Whether a process runs; one that has ended and only waits to be collected does not.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| !rest.starts_with('Z')))
}

// === HTTP ===

/// A TCP port nobody uses: outside the range the kernel hands out by itself.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test processes that run side by side begin at different places.
    let begin = 12_000 + u16::try_from(std::process::id() % 1000).expect("below 1000") * 20;
    loop {
        let port = begin + NEXT.fetch_add(1, Ordering::Relaxed) % 20_000;
        let port = if port >= 32_000 { port - 20_000 } else { port };
        if std::net::TcpListener::bind(("::", port)).is_ok() {
            return port;
        }
    }
}

/// An HTTP answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Status line and headers, in lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let name = name.to_lowercase();
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(header, _)| *header == name)
            .map(|(_, value)| value)
    }
}

/// Sends one request and reads the answer to its end.
pub(crate) async fn http(port: u16, method: &str, path: &str, headers: &str) -> Answer {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
    let exchange = async {
        let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await?;
        std::io::Result::Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = timeout(SOON, exchange).await.expect("an answer in time").expect("an exchange");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    let head = head.to_lowercase().replace('\r', "");
    let body = if head.contains("transfer-encoding: chunked") { unchunk(body) } else { body.to_owned() };
    Answer { status, head, body }
}

/// `GET`.
pub(crate) async fn get(port: u16, path: &str) -> Answer {
    http(port, "GET", path, "").await
}

fn unchunk(mut body: &str) -> String {
    let mut text = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or_default();
        if size == 0 || rest.len() < size {
            break;
        }
        text.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
    }
    text
}

/// Where the machine forbids what a test needs, it says so; the real-parts run proves the same as root.
#[expect(clippy::print_stderr, reason = "a skipped test is never silent")]
pub(crate) fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}
