//! A pretend Pod on loopback: what `tailpod sandbox` runs and what every hermetic test talks to.
//!
//! A [`Sandbox`] is a directory laid out as a Pod ([`Pod`]), stand-ins for `tailscaled` and `tailscale` on its
//! `PATH` whose decisions are made here ([`Daemon`]), and a pretend Kubernetes API server. Programs under test
//! are real processes with [`Sandbox::env`] as their environment; nothing outside the directory is touched.
//! Dropping the sandbox ends its servers, its stand-in processes and the directory.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use tailpod::sandbox::{Sandbox, SandboxOptions};
//!
//! let sandbox = Sandbox::start(SandboxOptions::new("target/debug/tailpod")).await?;
//! let mut boot = tokio::process::Command::new("target/debug/tailpod");
//! boot.arg0("containerboot").env_clear().envs(sandbox.env()).env("TS_AUTHKEY", "k").kill_on_drop(true);
//! let _child = boot.spawn()?;
//! let daemon = sandbox.daemon();
//! daemon.await_commands(2, Duration::from_secs(10)).await?;
//! daemon.notify(serde_json::json!({"State": 6}));
//! # Ok(())
//! # }
//! ```

pub mod apiserver;
mod attend;
mod backend;
mod certs;
mod cli;
pub mod control;
mod daemon;
mod endpoints;
pub mod http;
mod inner;
mod link;
pub mod mountns;
mod node;
mod pod;
mod record;
mod release;
pub mod standin;
mod statestore;
mod tailnet;
pub mod tls;
pub mod tour;
mod view;

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;
use tokio::task::JoinSet;

pub use daemon::{CliScript, Daemon, Fault};
pub use link::{DaemonScript, SecretFile};
pub use pod::{Pod, Volume};
pub use record::{Call, Command, Program, Timeout};
pub use tailnet::{Device, KeyOptions, Tailnet};

use apiserver::ApiServer;
use apiserver::access::{Access, User};
use http::{Limits, Listener, Server};

/// Largest LocalAPI request body in bytes.
const LARGEST_REQUEST: usize = 16 << 20;

/// How the pretend node lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Nothing happens but what [`Daemon`]'s methods ask for.
    #[default]
    Scripted,
    /// The node logs in at the pretend tailnet by itself and keeps its identity where it is told to.
    Automatic,
}

/// Which `tailscaled` and `tailscale` the Pod has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Daemons {
    /// The stand-ins, first on `PATH`.
    #[default]
    StandIns,
    /// Whatever `PATH` has.
    Real,
}

/// How a program is made to believe itself in the Pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It is our own binary; the test root is enough.
    Ours,
    /// It is not: the Pod's files have to be where every program looks for them.
    Namespace,
}

/// What a sandbox is made of.
#[derive(Clone, Debug)]
pub struct SandboxOptions {
    /// The tailpod binary whose hidden sub-commands are the stand-ins.
    pub binary: PathBuf,
    /// How the pretend node lives.
    pub mode: Mode,
    /// `PATH` after the Pod's own directories.
    pub path: OsString,
    /// Which daemons are in the Pod.
    pub daemons: Daemons,
    /// The namespace.
    pub namespace: String,
    /// The state Secret that the Pod's Role names; it is not created.
    pub secret: String,
}

impl SandboxOptions {
    /// A scripted sandbox with the usual `PATH`, in namespace `default`, with rights on Secret `tailscale`.
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        Self {
            binary: binary.into(),
            mode: Mode::Scripted,
            path: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
            daemons: Daemons::StandIns,
            namespace: "default".to_owned(),
            secret: "tailscale".to_owned(),
        }
    }
}

/// A running sandbox; dropping it ends everything in it.
#[derive(Debug)]
pub struct Sandbox {
    daemon: Daemon,
    options: SandboxOptions,
    user: User,
    // Order of drop: no new stand-ins, no more answers, then no directory.
    _links: JoinSet<()>,
    _localapi: Server,
    api: ApiServer,
    pod: Pod,
}

impl Sandbox {
    /// Makes the Pod and starts its servers. The Pod's service account may do what boot's Role allows.
    ///
    /// # Errors
    /// When the directory cannot be made, a socket not bound, or the binary is not there.
    pub async fn start(options: SandboxOptions) -> io::Result<Self> {
        let options = SandboxOptions { binary: options.binary.canonicalize()?, ..options };
        let pod = Pod::create(&options.binary)?;
        let api = ApiServer::start().await?;
        let user = User::service_account(&options.namespace, "sandbox");
        let token = api.issue_token(&user, Access::of_boot(&options.namespace, &options.secret));
        api.write_service_account(&pod.service_account(), &options.namespace, &token)?;
        pod.write("etc/kubeconfig", api.kubeconfig(api.admin_token(), &options.namespace))?;
        let cluster = Cluster { api: api.clone(), namespace: options.namespace.clone() };
        let daemon = Daemon::new(options.mode, cluster);
        let handler = {
            let daemon = daemon.clone();
            move |request| endpoints::answer(daemon.clone(), request)
        };
        let limits = Limits { body: LARGEST_REQUEST };
        let localapi = Server::start(Listener::unix(pod.backend())?, limits, handler);
        let mut links = JoinSet::new();
        links.spawn(attend::accept_links(UnixListener::bind(pod.link())?, daemon.clone()));
        Ok(Self { daemon, options, user, _links: links, _localapi: localapi, api, pod })
    }

    /// The pretend tailscaled.
    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// The pretend cluster.
    pub fn api(&self) -> &ApiServer {
        &self.api
    }

    /// The Pod's service account, for other grants.
    pub fn user(&self) -> &User {
        &self.user
    }

    /// The pretend Pod's directory.
    pub fn pod(&self) -> &Pod {
        &self.pod
    }

    /// The Pod's namespace.
    pub fn namespace(&self) -> &str {
        &self.options.namespace
    }

    /// The name of the state Secret that the Pod's Role names.
    pub fn secret(&self) -> &str {
        &self.options.secret
    }

    /// The tailpod binary that the stand-ins run.
    pub fn binary(&self) -> &Path {
        &self.options.binary
    }

    /// The environment of a program in the Pod that is not told about Kubernetes: the test root, `PATH` with the
    /// stand-ins first, the socket, a firewall that is not the machine's, `HOME` and `TMPDIR` in the Pod.
    pub fn env(&self) -> Vec<(OsString, OsString)> {
        let mut env = self.common_env();
        env.push(pair("TS_TEST_ONLY_ROOT", self.pod.root()));
        env.push(pair("TS_TEST_FAKE_NETFILTER", "true"));
        env.push(pair("HOME", self.pod.root()));
        env.push(pair("TMPDIR", self.pod.root().join("tmp")));
        env
    }

    /// What makes a program see the cluster, beside the service account's files.
    pub fn kube_env(&self) -> Vec<(OsString, OsString)> {
        let addr = self.api.addr();
        vec![
            pair("KUBERNETES_SERVICE_HOST", addr.ip().to_string()),
            pair("KUBERNETES_SERVICE_PORT", addr.port().to_string()),
            pair("KUBERNETES_SERVICE_PORT_HTTPS", addr.port().to_string()),
        ]
    }

    /// What a Pod's manifest usually sets through the downward API.
    pub fn pod_env(&self) -> Vec<(OsString, OsString)> {
        vec![
            pair("POD_NAME", "sandbox-0"),
            pair("POD_NAMESPACE", &self.options.namespace),
            pair("POD_UID", "9d2f1c46-0b7e-4c52-8d7a-3f1e5a6b7c80"),
            pair("POD_IP", "127.0.0.1"),
            pair("POD_IPS", "127.0.0.1"),
        ]
    }

    /// The environment of a command that a person runs in the Pod.
    pub fn env_for(&self, manner: Manner) -> Vec<(OsString, OsString)> {
        let mut env = match manner {
            Manner::Ours => self.env(),
            Manner::Namespace => {
                let mut env = self.common_env();
                env.push(pair("TS_KUBERNETES_READ_API_SERVER_ADDRESS_FROM_ENV", "true"));
                // Pretend Pods send no logs to anybody.
                env.push(pair("TS_NO_LOGS_NO_SUPPORT", "true"));
                env
            }
        };
        env.extend(self.kube_env());
        env.push(pair("KUBECONFIG", self.pod.root().join("etc/kubeconfig")));
        env.push(pair(control::LINK_VARIABLE, self.pod.link()));
        env
    }

    /// How to run a program of this name or path.
    pub fn manner(&self, program: &OsStr) -> Manner {
        let path = Path::new(program);
        let bare = path.components().count() == 1 && !program.as_encoded_bytes().contains(&b'/');
        let ours = if bare {
            pod::OUR_NAMES.iter().any(|name| program == *name)
        } else {
            path.canonicalize().is_ok_and(|path| path == self.options.binary)
        };
        if ours && self.options.daemons == Daemons::StandIns { Manner::Ours } else { Manner::Namespace }
    }

    fn common_env(&self) -> Vec<(OsString, OsString)> {
        let dir = match self.options.daemons {
            Daemons::StandIns => self.pod.bin(),
            Daemons::Real => self.pod.links(),
        };
        let mut path = dir.into_os_string();
        path.push(":");
        path.push(&self.options.path);
        vec![pair("PATH", path), pair("TS_SOCKET", self.pod.socket())]
    }
}

/// The cluster as the automatic node's `kube:` store sees it.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) api: ApiServer,
    pub(crate) namespace: String,
}

fn pair(name: &str, value: impl AsRef<OsStr>) -> (OsString, OsString) {
    (OsString::from(name), value.as_ref().to_owned())
}
