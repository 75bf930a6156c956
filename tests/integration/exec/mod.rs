//! Credentials for the Kubernetes API: exec plugins (scenarios 1 to 27 of exec-credential.md 7), every other kind of
//! kubeconfig, and the connections that are made with them. Real plugins, real TLS servers on loopback.

mod applets;
mod door;
mod kubeconfigs;
mod proxy;
mod rotation;
mod runs;
mod scenarios;
mod server;
mod sessions;
mod unauthorized;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use tailpod::k8s::upstream::{Surroundings, Tracked, Upstream, Whose};
use tailpod::settings::KubeAccess;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use server::{Pair, Server};

use crate::support::SOON;

const V1: &str = "client.authentication.k8s.io/v1";

/// A directory with a plugin that writes down each run and answers with a file, and a kubeconfig beside it.
struct Scene {
    dir: tempfile::TempDir,
    server: Server,
}

impl Scene {
    async fn new() -> Self {
        let scene = Self { dir: tempfile::tempdir().unwrap(), server: Server::start().await };
        scene.script("cat \"$dir/answer\"");
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        // In one step, for whoever reads it meanwhile.
        let (path, fresh) = (self.path(name), self.path(".new"));
        std::fs::write(&fresh, text).unwrap();
        std::fs::rename(&fresh, &path).unwrap();
        path
    }

    /// What the plugin does after it has written down its request. `sh` reads it, so that no file is executed that a
    /// sibling of this test may still hold open.
    fn script(&self, then: &str) {
        let text =
            format!("dir={}\necho \"$KUBERNETES_EXEC_INFO\" >> \"$dir/runs\"\n{then}\n", self.dir.path().display());
        self.write("plugin.sh", &text);
    }

    fn answer(&self, status: &Value) {
        self.write("answer", &json!({"kind": "ExecCredential", "apiVersion": V1, "status": status}).to_string());
    }

    fn answer_pair(&self, pair: &Pair) {
        self.answer(&json!({"clientCertificateData": pair.chain, "clientKeyData": pair.key}));
    }

    /// The requests that the plugin got.
    fn runs(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path("runs")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The block of the plugin.
    fn exec(&self) -> Value {
        let script = self.path("plugin.sh");
        json!({"apiVersion": V1, "command": "/bin/sh", "args": [script], "interactiveMode": "Never"})
    }

    fn cluster(&self) -> Value {
        let ca = BASE64.encode(&self.server.authority.pem);
        json!({"server": format!("https://{}", self.server.addr), "certificate-authority-data": ca})
    }

    fn kubeconfig(&self, cluster: &Value, user: &Value) -> PathBuf {
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "ns"}}],
        });
        self.write("kubeconfig", &text.to_string())
    }

    async fn open(&self, cluster: &Value, user: &Value) -> Result<Upstream, String> {
        open(&self.kubeconfig(cluster, user), &surroundings()).await
    }

    /// With the plugin and nothing else.
    async fn upstream(&self) -> Upstream {
        self.open(&self.cluster(), &json!({"exec": self.exec()})).await.unwrap()
    }
}

fn surroundings() -> Surroundings {
    let mut surroundings = Surroundings::default();
    surroundings.exec.path = OsString::from("/usr/bin:/bin");
    surroundings
}

async fn open(kubeconfig: &Path, surroundings: &Surroundings) -> Result<Upstream, String> {
    let access = KubeAccess::Kubeconfig { path: kubeconfig.to_owned(), context: None };
    Upstream::open_in(&access, Whose::Ours, surroundings).await.map_err(|error| chain(&error))
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line = format!("{line}: {cause}");
        source = cause.source();
    }
    line
}

/// Sends a GET; the connection, and what came first.
async fn send(upstream: &Upstream, path: &str) -> Result<(Tracked, String), String> {
    let credentials = upstream.credentials().await.map_err(|error| chain(&error))?;
    let mut connection = upstream.dial(SOON).await.map_err(|error| chain(&error))?;
    let authorization = match credentials.authorization() {
        Some(value) => format!("Authorization: {}\r\n", value.to_str().unwrap()),
        None => String::new(),
    };
    let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\n{authorization}\r\n");
    connection.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
    connection.flush().await.map_err(|error| error.to_string())?;
    let mut answer = vec![0; 1024];
    let count = connection.read(&mut answer).await.map_err(|error| error.to_string())?;
    answer.truncate(count);
    Ok((connection, String::from_utf8(answer).unwrap()))
}

/// The status of the answer to a GET.
async fn status(upstream: &Upstream, path: &str) -> Result<u16, String> {
    let (_, answer) = send(upstream, path).await?;
    Ok(answer.split(' ').nth(1).unwrap().parse().unwrap())
}

/// The value of `Authorization`, or the error.
async fn token(upstream: &Upstream) -> Result<String, String> {
    let credentials = upstream.credentials().await.map_err(|error| chain(&error))?;
    Ok(credentials.authorization().map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default())
}

/// Whether the other side, or we, have closed it.
async fn is_closed(connection: &mut Tracked) -> bool {
    let read = tokio::time::timeout(Duration::from_millis(200), connection.read(&mut [0; 1024])).await;
    !matches!(read, Err(_) | Ok(Ok(1..)))
}
