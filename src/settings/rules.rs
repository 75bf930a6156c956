//! Upstream's validation rules, in upstream's order, with upstream's texts (boot.md 2.5).
//!
//! [`check`] goes through all of them whatever it finds, and yields the values that the rules parse on the way.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::conffile::{self, UnknownKeys};
use super::login::LoginParts;
use super::problem::Problem;
use super::reader::{Reader, Reported};
use super::vars;
use super::{ConfigFile, ListenAddr, Login, NoteLevel, Persona, parse};

/// What the rules look at, as given. Empty texts are `None`.
pub(super) struct Given {
    /// The chosen config file.
    pub(super) config: Option<PathBuf>,
    pub(super) capver: u32,
    pub(super) userspace: bool,
    pub(super) dest_ip: Option<String>,
    pub(super) dest_dns_name: Option<String>,
    pub(super) tailnet_target_ip: Option<String>,
    pub(super) tailnet_target_fqdn: Option<String>,
    /// Whether any of accept-dns, routes, extra arguments (after the merge) and host name is set.
    pub(super) configures_node: bool,
    pub(super) login: LoginParts,
    pub(super) cluster_via_ingress: bool,
    pub(super) serve_config: bool,
    pub(super) pod_ip: bool,
    pub(super) gro_forwarding: bool,
    pub(super) health_addr: Option<String>,
    /// After bracket repair.
    pub(super) local_addr: String,
    pub(super) metrics: bool,
    pub(super) health: bool,
    pub(super) debug_addr: Option<String>,
    pub(super) egress: bool,
    pub(super) ingress: bool,
    /// In Kubernetes, with a state Secret.
    pub(super) kube_state: bool,
}

/// What the rules parsed.
pub(super) struct Checked {
    pub(super) config: Result<Option<ConfigFile>, Reported>,
    pub(super) login: Result<Login, Reported>,
    pub(super) health_addr: Result<Option<ListenAddr>, Reported>,
    /// `None` when nothing is served there.
    pub(super) local_addr: Result<Option<ListenAddr>, Reported>,
    pub(super) debug_addr: Result<Option<ListenAddr>, Reported>,
    pub(super) boot_timeout: Result<Duration, Reported>,
}

/// Rules 1 to 27.
pub(super) fn check(read: &mut Reader<'_>, given: Given) -> Checked {
    let config = given.config.as_deref().map(|path| config_file(read, path, given.capver)).transpose(); // 1 to 3
    targets(read, &given); // 4 to 9
    if given.config.is_some() && (given.configures_node || !given.login.is_empty()) {
        // 10
        read.report(
            Problem::rule(
                "TS_EXPERIMENTAL_VERSIONED_CONFIG_DIR cannot be set in combination with TS_HOSTNAME, TS_EXTRA_ARGS, \
                 TS_AUTHKEY, TS_ROUTES, TS_ACCEPT_DNS, TS_CLIENT_ID, TS_CLIENT_SECRET, TS_ID_TOKEN, TS_AUDIENCE.",
            )
            .hint("put these settings into the config file"),
        );
    }
    let login = given.login.login().map_err(|conflicts| {
        // 11 to 16; there is at least one.
        let reported = conflicts.into_iter().map(|text| read.report(Problem::rule(text))).last();
        reported.unwrap_or_else(|| read.report(Problem::rule("the credentials contradict each other")))
    });
    if given.cluster_via_ingress {
        cluster_via_ingress(read, given.userspace, given.serve_config, given.pod_ip); // 17 to 19
    }
    if given.gro_forwarding && given.userspace {
        // 20
        read.report(
            Problem::rule("TS_EXPERIMENTAL_ENABLE_FORWARDING_OPTIMIZATIONS is not supported in userspace mode")
                .hint(KERNEL),
        );
    }
    let health_addr = given.health_addr.as_deref().map(|text| {
        // 21
        read.note(
            NoteLevel::Warning,
            "TS_HEALTHCHECK_ADDR_PORT is deprecated and will be removed in 1.82.0. Please use \
             TS_ENABLE_HEALTH_CHECK and optionally TS_LOCAL_ADDR_PORT instead.",
        );
        listen_addr(read, vars::TS_HEALTHCHECK_ADDR_PORT.name, text)
    });
    let serves = given.metrics || given.health || given.egress;
    let local_addr = serves.then(|| listen_addr(read, vars::TS_LOCAL_ADDR_PORT.name, &given.local_addr)); // 22
    let debug_addr = given.debug_addr.as_deref().map(|text| listen_addr(read, vars::TS_DEBUG_ADDR_PORT.name, text)); // 23
    if given.health && given.health_addr.is_some() {
        // 24
        read.report(Problem::rule(
            "TS_HEALTHCHECK_ADDR_PORT is deprecated and will be removed in 1.82.0, use TS_ENABLE_HEALTH_CHECK and \
             optionally TS_LOCAL_ADDR_PORT",
        ));
    }
    for (used, var) in [
        (given.egress, vars::TS_EGRESS_PROXIES_CONFIG_PATH),   // 25
        (given.ingress, vars::TS_INGRESS_PROXIES_CONFIG_PATH), // 26
    ] {
        if used && !given.kube_state {
            let text = format!("{} is only supported for Tailscale running on Kubernetes", var.name);
            read.report(Problem::rule(text));
        }
    }
    let boot_timeout = read.duration(vars::TS_BOOT_TIMEOUT, |text, error| {
        // 27
        Problem::rule(format!("error parsing TS_BOOT_TIMEOUT value {text:?}: {error}")).hint(DURATION)
    });
    Checked {
        config,
        login,
        health_addr: health_addr.transpose(),
        local_addr: local_addr.transpose(),
        debug_addr: debug_addr.transpose(),
        boot_timeout,
    }
}

/// What a duration looks like.
pub(super) const DURATION: &str = "durations have units, for example 90s or 1h30m";

/// The remedy for what needs the kernel's network stack.
const KERNEL: &str = "set TS_USERSPACE=false to use the kernel's TUN device";

/// Rules 1 to 3.
pub(super) fn config_file(read: &mut Reader<'_>, path: &Path, capver: u32) -> Result<ConfigFile, Reported> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    if let Err(error) = std::fs::metadata(dir) {
        return Err(read.report(Problem::rule(format!(
            "error validating whether directory with tailscaled config file {}/ exists: {error}",
            dir.display()
        ))));
    }
    if let Err(error) = std::fs::metadata(path) {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        return Err(read.report(
            Problem::rule(format!(
                "error validating whether tailscaled config directory {:?} contains tailscaled config for current \
                 capability version {file:?}: {error}. If this is a Tailscale Kubernetes operator proxy, please \
                 ensure that the version of the operator is not older than the version of the proxy",
                format!("{}/", dir.display()),
            ))
            .hint(format!("this build's capability version is {capver}; TAILPOD_CAPVER overrides it")),
        ));
    }
    let unknown = match read.persona() {
        Persona::Containerboot => UnknownKeys::Reject,
        Persona::Tailpod => UnknownKeys::List,
    };
    let document = conffile::load(path, unknown).map_err(|error| {
        read.report(Problem::rule(format!("error validating tailscaled configfile contents: {error}")))
    })?;
    for stranger in &document.unknown {
        let text = format!("{}: unknown field {stranger:?}; tailscaled may refuse the file", path.display());
        read.note(NoteLevel::Warning, text);
    }
    let conffile::Document { auth_key, locked, advertises_services, .. } = document;
    Ok(ConfigFile { path: path.to_owned(), auth_key, locked, advertises_services })
}

/// Rules 4 to 9.
fn targets(read: &mut Reader<'_>, given: &Given) {
    let needs_kernel = |read: &mut Reader<'_>, used: bool, name: &str| {
        if used && given.userspace {
            read.report(Problem::rule(format!("{name} is not supported with TS_USERSPACE")).hint(KERNEL));
        }
    };
    needs_kernel(read, given.dest_ip.is_some(), vars::TS_DEST_IP.name);
    needs_kernel(read, given.dest_dns_name.is_some(), vars::TS_EXPERIMENTAL_DEST_DNS_NAME.name);
    if given.dest_dns_name.is_some() && given.dest_ip.is_some() {
        read.report(
            Problem::rule("TS_EXPERIMENTAL_DEST_DNS_NAME and TS_DEST_IP cannot both be set")
                .hint("keep TS_DEST_IP if the address is fixed, the DNS name if it may change"),
        );
    }
    needs_kernel(read, given.tailnet_target_ip.is_some(), vars::TS_TAILNET_TARGET_IP.name);
    needs_kernel(read, given.tailnet_target_fqdn.is_some(), vars::TS_TAILNET_TARGET_FQDN.name);
    if given.tailnet_target_fqdn.is_some() && given.tailnet_target_ip.is_some() {
        // Upstream's text names a variable that does not exist.
        read.report(
            Problem::rule("Both TS_TAILNET_TARGET_IP and TS_TAILNET_FQDN cannot be set")
                .precisely("TS_TAILNET_TARGET_IP and TS_TAILNET_TARGET_FQDN cannot both be set"),
        );
    }
}

/// Rules 17 to 19.
fn cluster_via_ingress(read: &mut Reader<'_>, userspace: bool, serve_config: bool, pod_ip: bool) {
    let name = vars::EXPERIMENTAL_ALLOW_PROXYING_CLUSTER_TRAFFIC_VIA_INGRESS.name;
    if userspace {
        read.report(Problem::rule(format!("{name} is not supported in userspace mode")).hint(KERNEL));
    }
    if !serve_config {
        read.report(
            Problem::rule(format!("{name} is set but this is not a cluster ingress proxy")).hint("set TS_SERVE_CONFIG"),
        );
    }
    if !pod_ip {
        read.report(Problem::rule(format!("{name} is set but POD_IP is not set")));
    }
}

/// An address to listen on or to talk to.
fn listen_addr(read: &mut Reader<'_>, name: &str, text: &str) -> Result<ListenAddr, Reported> {
    match parse::addr_port(text) {
        Ok(addr) => Ok(ListenAddr { text: text.to_owned(), addr }),
        Err(error) => Err(read.report(
            Problem::rule(format!("error parsing {name} value {text:?}: {error}"))
                .hint(format!("{name} is an IP address and a port, for example 127.0.0.1:9002 or [::]:9002")),
        )),
    }
}
