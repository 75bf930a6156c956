//! The front door: the built binary as a proxy for a peer, with a kubeconfig that leads to the scene's server.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use tailpod::sandbox::{Sandbox, SandboxOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Scene;
use crate::proxy::world::{ANN, World, proxy_header, user};
use crate::support::{Answer, Boot, SOON, exchange, running};

/// Whom the API server has to see.
pub(super) const USER: &str = "ann@example.com";
/// A session of the peer that the API server upgrades.
pub(super) const EXEC: &str = "/api/v1/namespaces/ns/pods/p/exec?command=sh";
/// A watch.
pub(super) const WATCH: &str = "/api/v1/namespaces/ns/pods?watch=true";

/// A proxy that serves.
pub(super) struct Door {
    pub(super) proxy: Boot,
    _sandbox: Sandbox,
    addr: SocketAddr,
}

/// What is around a proxy.
pub(super) async fn sandbox() -> Sandbox {
    let sandbox = Sandbox::start(SandboxOptions::new(env!("CARGO_BIN_EXE_tailpod"))).await.unwrap();
    sandbox.daemon().notify(running());
    sandbox.daemon().set_whois(ANN, user(USER, &json!({})));
    sandbox
}

/// Starts a proxy.
pub(super) fn spawn(sandbox: &Sandbox, flags: &[&str], env: &[(&str, &str)]) -> Boot {
    let mut command = World::command(sandbox, &[&["--proxy-protocol", "--listen", "127.0.0.1:0"], flags].concat());
    command.envs(env.iter().copied());
    Boot::spawn(command)
}

/// The flag for a kubeconfig.
fn flag(kubeconfig: &Path) -> String {
    format!("--kubeconfig={}", kubeconfig.display())
}

/// What a proxy says that does not even start.
pub(super) async fn refused(sandbox: &Sandbox, kubeconfig: &Path, flags: &[&str], env: &[(&str, &str)]) -> String {
    let flag = flag(kubeconfig);
    let ended = spawn(sandbox, &[&[flag.as_str()], flags].concat(), env).ends(1).await;
    assert!(!ended.mentions("is listening on"), "{}", ended.text());
    ended.text()
}

impl Door {
    /// In front of the scene's server, as this user.
    pub(super) async fn open(scene: &Scene, user: &Value) -> Self {
        Self::open_with(&scene.kubeconfig(&scene.cluster(), user), &[], &[]).await
    }

    /// With the plugin and nothing else.
    pub(super) async fn with_plugin(scene: &Scene) -> Self {
        Self::open(scene, &json!({"exec": scene.exec()})).await
    }

    pub(super) async fn open_with(kubeconfig: &Path, flags: &[&str], env: &[(&str, &str)]) -> Self {
        let flag = flag(kubeconfig);
        Self::at(sandbox().await, &[&[flag.as_str()], flags].concat(), env).await
    }

    /// In that sandbox.
    pub(super) async fn at(sandbox: Sandbox, flags: &[&str], env: &[(&str, &str)]) -> Self {
        let proxy = spawn(&sandbox, flags, env);
        let line = proxy.mentioned("is listening on").await;
        let addr = line.rsplit(' ').next().unwrap().parse().unwrap();
        Self { proxy, _sandbox: sandbox, addr }
    }

    /// The answer to a request of the peer. `more` is headers with their line ends, and a body behind an empty line.
    pub(super) async fn ask(&self, request: &str, more: &str) -> Answer {
        let (headers, body) = more.split_once("\r\n\r\n").unwrap_or((more.trim_end(), ""));
        let headers = if headers.is_empty() { String::new() } else { format!("{headers}\r\n") };
        let text = format!("{request} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{headers}\r\n{body}");
        exchange(self.addr, &[proxy_header(ANN), text.into_bytes()].concat()).await
    }

    /// The status of a GET.
    pub(super) async fn get(&self) -> u16 {
        self.ask("GET /api", "").await.status
    }

    /// A request whose connection stays.
    pub(super) async fn begin(&self, path: &str) -> TcpStream {
        let upgrade = if path == EXEC { "Connection: Upgrade\r\nUpgrade: websocket\r\n" } else { "" };
        let text = format!("GET {path} HTTP/1.1\r\nHost: h\r\n{upgrade}\r\n");
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        stream.write_all(&[proxy_header(ANN), text.into_bytes()].concat()).await.unwrap();
        stream
    }

    /// The same, and what came first.
    pub(super) async fn start(&self, path: &str) -> (TcpStream, String) {
        let mut stream = self.begin(path).await;
        let mut first = vec![0; 4096];
        let count = tokio::time::timeout(SOON, stream.read(&mut first)).await.unwrap().unwrap();
        first.truncate(count);
        (stream, String::from_utf8(first).unwrap())
    }
}

/// The status of each answer to so many requests at once.
pub(super) async fn asked_at_once(door: Door, count: usize, request: &'static str) -> (Door, Vec<u16>) {
    let door = Arc::new(door);
    let mut asking = JoinSet::new();
    for _ in 0..count {
        let door = Arc::clone(&door);
        asking.spawn(async move { door.ask(request, "").await.status });
    }
    let statuses = asking.join_all().await;
    (Arc::into_inner(door).unwrap(), statuses)
}
