//! The environment, read once into one typed value.
//!
//! [`read()`] takes every variable through a [`Vars`] source, reports every problem of the same run, and yields
//! [`Settings`], in which mutually exclusive variables are one enum. After it, no code asks whether a combination
//! is allowed. Follows upstream's `cmd/containerboot/settings.go` and `util/def`.
//!
//! | Module | What |
//! |---|---|
//! | [`vars`] | every variable, once |
//! | [`source`] | where values come from |
//! | [`reader`], [`problem`] | problems collected and put into words |
//! | [`parse`] | `&str` to value |
//! | `read`, `rules`, `merge`, `serving`, [`login`], [`forward`] | the pass over the environment |
//! | [`conffile`], [`capver`] | the versioned config file |
//! | [`access`] | the way to the cluster |
//! | `print` | the redacted truth as JSON |
//! | [`proxy`] | the few variables of `k8s-proxy` |

pub mod access;
pub mod capver;
pub mod conffile;
mod duration;
pub mod forward;
pub mod login;
mod merge;
pub mod parse;
mod print;
pub mod problem;
pub mod proxy;
mod read;
pub mod reader;
mod rules;
mod serving;
mod share;
pub mod source;
#[cfg(test)]
mod tests;
pub mod vars;

pub use access::KubeAccess;
pub use capver::CAPVER;
pub use forward::{Egress, Exemptions, FirewallMode, Forward, Ingress};
pub use print::redact_args;
pub(crate) use print::secret_flag;
pub use problem::{Problem, Problems};
pub use read::{by_address, depends_on_the_daemon, in_cluster, is_one_step, read, read_with};
pub use serving::Advertising;
pub use share::{CertShare, CertWriter, NoShare, group_of, replica_of};
pub use source::{NotUnicode, ProcessEnv, Vars};

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::prefix::Prefix;
use crate::secret::Secret;

/// What the program was called as; decides between upstream's contract and our better behaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persona {
    /// `containerboot` or `run.sh`: environment, argv of children, log text and exit codes are contract.
    Containerboot,
    /// `tailpod boot`: the same variables, better outcomes.
    Tailpod,
}

/// Everything `boot` needs to know, with no combination that is not allowed.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which contract applies.
    pub persona: Persona,
    /// What configures the node.
    pub mode: Mode,
    /// How the node proves who it is.
    pub login: Login,
    /// What the node shall be like: the options of `tailscale up` and `set`.
    pub node: Node,
    /// How tailscaled is started.
    pub daemon: Daemon,
    /// The cluster around us.
    pub kube: Kube,
    /// The Pod we are.
    pub pod: Pod,
    /// Local HTTP listeners.
    pub local: Local,
    /// Deadline for everything from the end of host preparation to `Running` (`TS_BOOT_TIMEOUT`).
    /// `None` never comes from the environment: zero and negative durations are an expired deadline, `ZERO`.
    pub boot_timeout: Duration,
    /// How long a human may take to log in or approve (`TAILPOD_LOGIN_TIMEOUT`, 10 min; tailpod persona).
    pub login_timeout: Duration,
    /// How long to wait for a reissued auth key (`TAILPOD_REISSUE_TIMEOUT`, 10 min).
    pub reissue_timeout: Duration,
    /// The capability version written to `tailscale_capver` and used to choose the config file
    /// (`TAILPOD_CAPVER`, else the build's).
    pub capver: u32,
    /// Whether the operator set `TAILPOD_CAPVER`; if not, the tailpod persona may ask the daemon.
    pub capver_is_explicit: bool,
    /// Prefix for `dev/net/tun`, sysctl files and the service-account directory (`TS_TEST_ONLY_ROOT`, `/`).
    pub root: PathBuf,
    /// `TS_EXPERIMENTAL_ENABLE_FORWARDING_OPTIMIZATIONS`.
    pub gro_forwarding: bool,
    /// `TAILPOD_RESTART_DAEMON`: whether an uninvited death of tailscaled is answered by a restart in place.
    pub restart_daemon: RestartDaemon,
    /// `TAILPOD_DELETE_AUTHKEY`: delete the Secret's `authkey` after the first success in every mode (W21).
    pub delete_authkey: bool,
    /// What is forwarded between cluster and tailnet.
    pub forward: Forward,
    /// `TS_SERVE_CONFIG`: a file, or the config itself when it begins with `{`.
    pub serve_config: Option<String>,
    /// `TAILPOD_KEEP_SERVE_CONFIG`, containerboot persona: what a former run served is not taken away first.
    pub keep_serve_config: bool,
    /// Which Services are advertised, and whose they are.
    pub advertising: Advertising,
    /// `TS_EXPERIMENTAL_CERT_SHARE` and `TAILPOD_CERT_WRITER`: this replica's part, when certificates are shared.
    pub cert_share: Option<CertShare>,
    /// `TAILPOD_CERT_LEASE_DURATION`: how long a writer that died is respected, where a Lease says which it is.
    pub cert_lease: Duration,
    /// `TAILPOD_STICKY_WRITER`: whether the Lease's holder orders for as long as it holds it.
    pub sticky_writer: bool,
    /// `TAILPOD_CERT_RELOAD`
    pub cert_reload: bool,
    /// `TAILPOD_WITHDRAW_WAIT`: how long peers are given to fail over after Services were withdrawn.
    pub withdraw_wait: Duration,
    /// `TAILPOD_STRICT`, tailpod persona: end where otherwise the last good serve config stays.
    pub strict: bool,
    /// `TAILPOD_TERMINATION_LOG`: where Kubernetes reads a container's last words; `None` when set to nothing.
    pub termination_log: Option<PathBuf>,
    /// Lines to log once logging is set up: notes (merge results), warnings (W24), in order.
    pub notes: Vec<Note>,
}

/// Something worth saying about the environment that is not an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Whether it is only information or a warning.
    pub level: NoteLevel,
    /// The line, without any prefix.
    pub text: String,
}

impl Note {
    /// The line as the persona logs it: `containerboot` marks warnings as upstream does.
    pub fn line(&self, persona: Persona) -> String {
        match (persona, self.level) {
            (Persona::Containerboot, NoteLevel::Warning) => format!("[warning] {}", self.text),
            _ => self.text.clone(),
        }
    }
}

/// How loud a [`Note`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteLevel {
    /// A fact that upstream logs too.
    Info,
    /// Something the operator should mend.
    Warning,
}

/// Which of the three ways configures the node (boot.md 1.1).
#[derive(Clone, Debug)]
pub enum Mode {
    /// `tailscaled --config=<file>`; `tailscale up` and `set` never run.
    OneStep(ConfigFile),
    /// Log in only when the daemon says `NeedsLogin`; set prefs after every start.
    AuthOnce,
    /// Log in on every start.
    AlwaysAuth,
}

/// The versioned tailscaled config file that was chosen (boot.md 2.3).
#[derive(Clone, Debug)]
pub struct ConfigFile {
    /// `<dir>/cap-<N>.hujson`, or the legacy `<dir>/tailscaled`.
    pub path: PathBuf,
    /// The auth key in it when it was read, if any.
    pub auth_key: Option<Secret<String>>,
    /// Whether the daemon will refuse changes to prefs (`Locked` not explicitly false).
    pub locked: bool,
    /// Whether it says which Services are advertised.
    pub advertises_services: bool,
}

/// How the node logs in. One variant per valid combination of boot.md 2.5, rows 11 to 16.
#[derive(Clone, Debug)]
pub enum Login {
    /// No credential: a human opens the URL, or the Secret holds a key.
    Interactive,
    /// `TS_AUTHKEY` (a literal key, `file:…`, `tskey-client-…` or `arn:…`).
    AuthKey(Secret<String>),
    /// Credentials only the CLI can turn into a login.
    Credentials(Credentials),
}

/// OAuth client or workload identity federation.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// `TS_CLIENT_ID` alone: the CLI finds an ID token in known cloud environments.
    Ambient {
        /// `TS_CLIENT_ID`
        id: String,
    },
    /// `TS_CLIENT_SECRET`, with or without an id.
    OAuth {
        /// `TS_CLIENT_ID`
        id: Option<String>,
        /// `TS_CLIENT_SECRET`
        secret: Secret<String>,
    },
    /// `TS_CLIENT_ID` and `TS_ID_TOKEN`.
    IdToken {
        /// `TS_CLIENT_ID`
        id: String,
        /// `TS_ID_TOKEN`
        token: Secret<String>,
    },
    /// `TS_CLIENT_ID` and `TS_AUDIENCE`.
    Audience {
        /// `TS_CLIENT_ID`
        id: String,
        /// `TS_AUDIENCE`
        audience: String,
    },
}

/// The options that `tailscale up` and `set` take.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// `TS_HOSTNAME`, when non-empty.
    pub hostname: Option<String>,
    /// `TS_ROUTES`.
    pub routes: Routes,
    /// The merged value of `TS_ACCEPT_DNS` and `--accept-dns` in `TS_EXTRA_ARGS`.
    pub accept_dns: bool,
    /// `TS_EXTRA_ARGS` after the merge, split into words.
    pub extra_args: Vec<String>,
}

/// `TS_ROUTES`: unset, empty and set are three cases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Routes {
    /// Unset: the flag is omitted.
    #[default]
    Keep,
    /// Set, maybe to nothing (which withdraws every route). The text goes to the CLI as it is.
    Set(String),
}

impl Routes {
    /// The prefixes named, split on `,` without trimming, as upstream does. Empty text names none.
    pub fn prefixes(&self) -> Result<Vec<Prefix>, (String, crate::prefix::PrefixError)> {
        match self {
            Self::Keep => Ok(Vec::new()),
            Self::Set(text) if text.is_empty() => Ok(Vec::new()),
            Self::Set(text) => {
                text.split(',').map(|part| part.parse().map_err(|error| (part.to_owned(), error))).collect()
            }
        }
    }
}

/// How tailscaled is started.
#[derive(Clone, Debug)]
pub struct Daemon {
    /// `TS_SOCKET`
    pub socket: PathBuf,
    /// Where it keeps its identity.
    pub state: StateStore,
    /// `TS_USERSPACE`
    pub tun: Tun,
    /// `TS_SOCKS5_SERVER`
    pub socks5_server: Option<String>,
    /// `TS_OUTBOUND_HTTP_PROXY_LISTEN`
    pub outbound_http_proxy_listen: Option<String>,
    /// `TS_DEBUG_ADDR_PORT`
    pub debug_addr: Option<String>,
    /// `TS_TAILSCALED_EXTRA_ARGS` as written (for the substring rule of argument 7).
    pub extra_args_text: String,
    /// The same, split into words.
    pub extra_args: Vec<String>,
}

/// How packets enter the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tun {
    /// `--tun=userspace-networking`
    Userspace,
    /// The kernel's TUN device; host preparation (P1) runs.
    Kernel,
}

/// Where tailscaled keeps its identity (boot.md 3.1, rows 2 to 2″).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateStore {
    /// `--state=kube:<secret> --statedir=<dir>`
    Secret {
        /// The state Secret's name.
        name: String,
        /// `TS_STATE_DIR`, else `/tmp`.
        dir: PathBuf,
    },
    /// `--statedir=<dir>`
    Dir(PathBuf),
    /// `--state=mem: --statedir=/tmp`: a new identity on every start.
    Memory,
}

/// The cluster around us.
#[derive(Clone, Debug)]
pub struct Kube {
    /// Whether `KUBERNETES_SERVICE_HOST` is set.
    pub in_kubernetes: bool,
    /// The state Secret, when there is one.
    pub secret: Option<String>,
    /// How to reach the API server when there is a Secret.
    pub access: KubeAccess,
}

/// The Pod we are.
#[derive(Clone, Debug, Default)]
pub struct Pod {
    /// `POD_NAME`, when non-empty.
    pub name: Option<String>,
    /// `POD_UID`, when non-empty.
    pub uid: Option<String>,
    /// First IPv4 of `POD_IPS`.
    pub ipv4: Option<IpAddr>,
    /// The other family of `POD_IPS`.
    pub ipv6: Option<IpAddr>,
}

/// Local HTTP listeners (boot.md 8).
#[derive(Clone, Debug, Default)]
pub struct Local {
    /// The listener of `TS_LOCAL_ADDR_PORT`, when something is served there.
    pub main: Option<LocalListener>,
    /// The deprecated listener of `TS_HEALTHCHECK_ADDR_PORT`.
    pub deprecated_health: Option<ListenAddr>,
    /// Where `/debug/` goes, when `TS_DEBUG_ADDR_PORT` is set.
    pub debug: Option<ListenAddr>,
}

/// What the main local listener serves.
#[derive(Clone, Debug)]
pub struct LocalListener {
    /// Where.
    pub addr: ListenAddr,
    /// `TS_ENABLE_METRICS`: `/metrics` and `/debug/`.
    pub metrics: bool,
    /// `TS_ENABLE_HEALTH_CHECK`: `/healthz`, `/livez`, `/readyz`.
    pub health: bool,
    /// `TS_EGRESS_PROXIES_CONFIG_PATH`: the pre-shutdown hook of egress Services.
    pub egress: bool,
}

/// A listen address: the text is contract in log lines, the parsed form is what is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddr {
    /// After bracket repair.
    pub text: String,
    /// What to bind.
    pub addr: SocketAddr,
}

/// `TAILPOD_RESTART_DAEMON`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartDaemon {
    /// Restart in place with back-off, up to a limit (tailpod persona's default).
    WithBackoff,
    /// An uninvited death ends the process, non-zero (containerboot persona, or `never`).
    Never,
}
