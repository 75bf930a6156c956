//! The environment becomes [`Settings`], or all of its problems.
//!
//! One pass in upstream's order: choose the config file, rule 0, rules 1 to 27, then what only we check. Besides
//! the config file and the existence of service-account files nothing outside the environment is read.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::capver::CAPVER;
use super::login::LoginParts;
use super::problem::{Problem, Problems};
use super::reader::{Reader, Reported};
use super::rules::{self, Given};
use super::serving;
use super::source::Vars;
use super::{
    Advertising, CertShare, CertWriter, Daemon, Forward, Kube, KubeAccess, Local, LocalListener, Login, Mode, Node,
    NoteLevel, Persona, Pod, RestartDaemon, Routes, Settings, StateStore, Tun, conffile, merge, parse, vars,
};
use crate::prefix::Prefix;
use crate::secret::Secret;

/// Where Kubernetes mounts the service account, below the root.
const SERVICE_ACCOUNT: &str = "var/run/secrets/kubernetes.io/serviceaccount";

/// Reads and validates everything.
///
/// # Errors
/// Every problem of this environment, in upstream's order.
pub fn read(vars: &dyn Vars, persona: Persona) -> Result<Settings, Problems> {
    read_with(vars, persona, None)
}

/// As [`read`], for a daemon whose capability version was asked for (W28). `TAILPOD_CAPVER` still wins.
///
/// # Errors
/// As [`read`].
pub fn read_with(vars: &dyn Vars, persona: Persona, daemon_capver: Option<u32>) -> Result<Settings, Problems> {
    let mut read = Reader::new(vars, persona);
    let explicit = read.number(vars::TAILPOD_CAPVER).unwrap_or(None);
    let capver = explicit.or(daemon_capver).unwrap_or(CAPVER);

    let config = choose_config(&mut read, capver);
    let pod = pod(&mut read);
    let quoting = read.one_of(vars::TAILPOD_ARGS_QUOTING).unwrap_or("words");
    let routes = read.text_or_unset(vars::TS_ROUTES).map_or(Routes::Keep, Routes::Set);
    let hostname = read.text(vars::TS_HOSTNAME);
    let extra_args = words(&mut read, vars::TS_EXTRA_ARGS, quoting);
    let dns = merge::accept_dns(read.boolean_or_unset(vars::TS_ACCEPT_DNS), extra_args.words);
    if let Some(note) = dns.note {
        read.note(NoteLevel::Info, note);
    }
    // White space alone is something to upstream's rule 10.
    let has_extra_args = !dns.words.is_empty() || extra_args.only_space;

    let login = LoginParts {
        auth_key: read.text(vars::TS_AUTHKEY).or_else(|| read.text(vars::TS_AUTH_KEY)).map(Secret::new),
        client_id: read.text(vars::TS_CLIENT_ID),
        client_secret: read.text(vars::TS_CLIENT_SECRET).map(Secret::new),
        id_token: read.text(vars::TS_ID_TOKEN).map(Secret::new),
        audience: read.text(vars::TS_AUDIENCE),
    };
    let in_kubernetes = read.text(vars::KUBERNETES_SERVICE_HOST).is_some();
    let secret = match read.text_or_unset(vars::TS_KUBE_SECRET) {
        Some(name) => Some(name).filter(|name| !name.is_empty()),
        None => in_kubernetes.then(|| vars::TS_KUBE_SECRET.default.to_owned()),
    };
    let local_addr = read.text_or_default(vars::TS_LOCAL_ADDR_PORT);
    let (metrics, health) = (read.boolean(vars::TS_ENABLE_METRICS), read.boolean(vars::TS_ENABLE_HEALTH_CHECK));
    let userspace = read.boolean(vars::TS_USERSPACE);
    let gro_forwarding = read.boolean(vars::TS_EXPERIMENTAL_ENABLE_FORWARDING_OPTIMIZATIONS);
    let debug_addr = read.text(vars::TS_DEBUG_ADDR_PORT);

    let serve_config = read.text(vars::TS_SERVE_CONFIG);
    let dest_ip = read.text(vars::TS_DEST_IP);

    let given = Given {
        config: config.as_ref().ok().cloned().flatten(),
        capver,
        userspace,
        dest_ip: dest_ip.clone(),
        dest_dns_name: read.text(vars::TS_EXPERIMENTAL_DEST_DNS_NAME),
        tailnet_target_ip: read.text(vars::TS_TAILNET_TARGET_IP),
        tailnet_target_fqdn: read.text(vars::TS_TAILNET_TARGET_FQDN),
        configures_node: dns.is_set || routes != Routes::Keep || has_extra_args || hostname.is_some(),
        login,
        cluster_via_ingress: read.boolean(vars::EXPERIMENTAL_ALLOW_PROXYING_CLUSTER_TRAFFIC_VIA_INGRESS),
        serve_config: serve_config.is_some(),
        pod_ip: read.text(vars::POD_IP).is_some(),
        gro_forwarding,
        health_addr: read.text(vars::TS_HEALTHCHECK_ADDR_PORT),
        local_addr: merge::repair_brackets(&local_addr, pod.as_ref().ok().and_then(|pod| pod.ipv6)),
        metrics,
        health,
        debug_addr: debug_addr.clone(),
        egress: read.text(vars::TS_EGRESS_PROXIES_CONFIG_PATH).is_some(),
        ingress: read.text(vars::TS_INGRESS_PROXIES_CONFIG_PATH).is_some(),
        kube_state: in_kubernetes && secret.is_some(),
    };
    let checked = rules::check(&mut read, given);
    if serve_config.is_some() {
        serving::check(&mut read, &checked, dest_ip.is_some());
    }

    if persona == Persona::Tailpod {
        addresses(&mut read, &routes);
    }
    let root = PathBuf::from(read.text_or_default(vars::TS_TEST_ONLY_ROOT));
    let access = access(&mut read, &root, in_kubernetes, secret.is_some());
    let state = state(&mut read, secret.as_deref(), &access);
    let daemon_args = words(&mut read, vars::TS_TAILSCALED_EXTRA_ARGS, quoting);
    let forward = Forward::read(&mut read, pod.as_ref().ok(), &daemon_args.words);
    let egress = forward.egress_config.is_some();
    let login_timeout = our_duration(&mut read, vars::TAILPOD_LOGIN_TIMEOUT);
    let reissue_timeout = our_duration(&mut read, vars::TAILPOD_REISSUE_TIMEOUT);
    let restart_daemon = match (persona, read.one_of(vars::TAILPOD_RESTART_DAEMON)) {
        (Persona::Tailpod, Ok("backoff")) => RestartDaemon::WithBackoff,
        _ => RestartDaemon::Never,
    };
    let daemon = Daemon {
        socket: read.text_or_default(vars::TS_SOCKET).into(),
        state,
        tun: if userspace { Tun::Userspace } else { Tun::Kernel },
        socks5_server: read.text(vars::TS_SOCKS5_SERVER),
        outbound_http_proxy_listen: read.text(vars::TS_OUTBOUND_HTTP_PROXY_LISTEN),
        debug_addr,
        extra_args_text: daemon_args.text,
        extra_args: daemon_args.words,
    };
    let auth_once = read.boolean(vars::TS_AUTH_ONCE);
    let delete_authkey = read.boolean(vars::TAILPOD_DELETE_AUTHKEY);
    let advertising = Advertising::read(&mut read, checked.config.as_ref().ok().and_then(Option::as_ref));
    let keep_serve_config = read.boolean(vars::TAILPOD_KEEP_SERVE_CONFIG);
    let withdraw_wait = our_duration(&mut read, vars::TAILPOD_WITHDRAW_WAIT);
    let strict = read.boolean(vars::TAILPOD_STRICT) && persona == Persona::Tailpod;
    let termination_log = match read.text_or_unset(vars::TAILPOD_TERMINATION_LOG) {
        Some(path) => Some(path).filter(|path| !path.is_empty()),
        None => Some(vars::TAILPOD_TERMINATION_LOG.default.to_owned()),
    };
    let cert_share = cert_share(&mut read, pod.as_ref().ok());
    let cert_lease = cert_lease(&mut read);
    let sticky_writer = read.boolean(vars::TAILPOD_STICKY_WRITER);
    let cert_reload = read.boolean(vars::TAILPOD_CERT_RELOAD);
    read.doubts();

    read.finish(|notes| {
        let mode = match checked.config? {
            Some(file) => Mode::OneStep(file),
            None if auth_once => Mode::AuthOnce,
            None => Mode::AlwaysAuth,
        };
        config?;
        Ok(Settings {
            persona,
            login: if matches!(mode, Mode::OneStep(_)) { Login::Interactive } else { checked.login? },
            mode,
            node: Node { hostname, routes, accept_dns: dns.value, extra_args: dns.words },
            daemon,
            kube: Kube { in_kubernetes, secret, access },
            pod: pod?,
            local: Local {
                main: checked.local_addr?.map(|addr| LocalListener { addr, metrics, health, egress }),
                deprecated_health: checked.health_addr?,
                debug: checked.debug_addr?,
            },
            boot_timeout: checked.boot_timeout?,
            login_timeout: login_timeout?,
            reissue_timeout: reissue_timeout?,
            capver,
            capver_is_explicit: explicit.is_some(),
            root,
            gro_forwarding,
            restart_daemon,
            delete_authkey,
            forward,
            serve_config,
            keep_serve_config,
            advertising,
            cert_share,
            cert_lease: cert_lease?,
            sticky_writer,
            cert_reload,
            withdraw_wait: withdraw_wait?,
            strict,
            termination_log: termination_log.map(PathBuf::from),
            notes,
        })
    })
}

/// This replica's part, where certificates are shared.
fn cert_share(read: &mut Reader<'_>, pod: Option<&Pod>) -> Option<CertShare> {
    let writer = read.one_of(vars::TAILPOD_CERT_WRITER).ok().and_then(CertWriter::parse)?;
    if !read.boolean(vars::TS_EXPERIMENTAL_CERT_SHARE) {
        return None;
    }
    match CertShare::of(pod?.name.as_deref(), writer) {
        Ok(share) => Some(share),
        Err(error) => {
            read.report_late(Problem::once(error.to_string()));
            None
        }
    }
}

/// A Lease counts in whole seconds, and less than three leave no time to renew it.
fn cert_lease(read: &mut Reader<'_>) -> Result<Duration, Reported> {
    let duration = our_duration(read, vars::TAILPOD_CERT_LEASE_DURATION)?;
    if duration < Duration::from_secs(3) || duration.subsec_nanos() != 0 {
        let text = format!("TAILPOD_CERT_LEASE_DURATION={duration:?}: at least 3s, in whole seconds");
        return Err(read.report_late(Problem::once(text)));
    }
    Ok(duration)
}

/// Whether a config file will configure the node.
pub fn is_one_step(vars: &dyn Vars) -> bool {
    vars.get(vars::TS_EXPERIMENTAL_VERSIONED_CONFIG_DIR.name).is_ok_and(|dir| dir.is_some_and(|dir| !dir.is_empty()))
}

/// Whether the daemon's capability version decides which config file configures the node; asked before it is known.
pub fn depends_on_the_daemon(vars: &dyn Vars) -> bool {
    let explicit = vars.get(vars::TAILPOD_CAPVER.name).is_ok_and(|capver| capver.is_some_and(|text| !text.is_empty()));
    let dir = vars.get(vars::TS_EXPERIMENTAL_VERSIONED_CONFIG_DIR.name).unwrap_or_default();
    !explicit && dir.is_some_and(|dir| !dir.is_empty() && conffile::depends_on_the_daemon(Path::new(&dir)))
}

/// The config file for this capability version (boot.md 2.3).
fn choose_config(read: &mut Reader<'_>, capver: u32) -> Result<Option<PathBuf>, Reported> {
    let Some(dir) = read.text(vars::TS_EXPERIMENTAL_VERSIONED_CONFIG_DIR) else { return Ok(None) };
    match conffile::choose(Path::new(&dir), capver) {
        Ok(path) => {
            let text = path.display().to_string();
            read.note(
                NoteLevel::Info,
                format!("Using tailscaled config file {text:?} to match current capability version {capver}"),
            );
            Ok(Some(path))
        }
        Err(error) => Err(read.report(Problem::bare(error.to_string()))),
    }
}

/// The Pod's identity; rule 0.
fn pod(read: &mut Reader<'_>) -> Result<Pod, Reported> {
    let mut pod = Pod { name: read.text(vars::POD_NAME), uid: read.text(vars::POD_UID), ..Pod::default() };
    // Set to nothing is one address, which is none.
    let Some(text) = read.text_or_unset(vars::POD_IPS) else { return Ok(pod) };
    let list: Vec<&str> = text.split(',').collect();
    if list.len() > 2 {
        let text = format!("POD_IPs can contain at most 2 IPs, got {} ([{}])", list.len(), list.join(" "));
        return Err(read.report(Problem::once(text)));
    }
    let mut outcome = Ok(());
    for ip in list {
        match parse::ip(ip) {
            Ok(ip) if ip.is_ipv4() => pod.ipv4 = Some(ip),
            Ok(ip) => pod.ipv6 = Some(ip),
            Err(error) => outcome = Err(read.report(Problem::once(format!("error parsing IP address {ip}: {error}")))),
        }
    }
    outcome.map(|()| pod)
}

/// A variable that holds arguments.
struct Arguments {
    text: String,
    words: Vec<String>,
    /// Neither empty nor any words.
    only_space: bool,
}

/// Splits arguments as `TAILPOD_ARGS_QUOTING` says (W25).
fn words(read: &mut Reader<'_>, var: &vars::Var, quoting: &str) -> Arguments {
    let text = read.text(var).unwrap_or_default();
    let words = match quoting {
        "shell" => parse::shell_words(&text).unwrap_or_else(|error| {
            read.report_late(Problem::once(format!("{}: {error}", var.name)));
            Vec::new()
        }),
        _ => parse::words(&text),
    };
    Arguments { only_space: !text.is_empty() && words.is_empty(), text, words }
}

/// W18: what upstream finds out while it prepares the host, or leaves to the CLI.
fn addresses(read: &mut Reader<'_>, routes: &Routes) {
    if let Routes::Set(text) = routes
        && !text.is_empty()
    {
        for part in text.split(',') {
            if let Err(error) = part.parse::<Prefix>() {
                read.report(Problem::once(format!("TS_ROUTES={part:?}: {error}")));
            }
        }
    }
}

/// How the API server is reached (boot.md 4.1, E.5); W29.
fn access(read: &mut Reader<'_>, root: &Path, in_kubernetes: bool, has_secret: bool) -> KubeAccess {
    if let Some(path) = read.text(vars::TAILPOD_KUBECONFIG) {
        if !has_secret {
            read.note(NoteLevel::Warning, "TAILPOD_KUBECONFIG has no effect without TS_KUBE_SECRET");
        }
        return KubeAccess::Kubeconfig { path: path.into(), context: read.text(vars::TAILPOD_CONTEXT) };
    }
    let service_account = root.join(SERVICE_ACCOUNT);
    if has_secret
        && !in_kubernetes
        && !["namespace", "ca.crt", "token"].iter().all(|f| service_account.join(f).exists())
    {
        read.report(
            Problem::once(format!(
                "TS_KUBE_SECRET is set, but this is not a Pod: KUBERNETES_SERVICE_HOST is not set and there is no \
                 service account in {}",
                service_account.display()
            ))
            .hint(
                "unset TS_KUBE_SECRET and keep state in TS_STATE_DIR, or set TAILPOD_KUBECONFIG to reach a cluster \
                 from outside",
            ),
        );
    }
    in_cluster_at(read, root)
}

/// The way to the API server for a program in a Pod. Whether this is one is not looked at.
pub fn in_cluster(vars: &dyn Vars) -> KubeAccess {
    // For the tools, a value that is not UTF-8 is as good as none.
    let mut read = Reader::new(vars, Persona::Tailpod);
    let root = PathBuf::from(read.text_or_default(vars::TS_TEST_ONLY_ROOT));
    in_cluster_at(&mut read, &root)
}

/// The same way, but in a Pod by the address that every container finds in its environment: what client-go does, and
/// it needs no cluster DNS (api-proxy.md 8).
pub fn by_address(access: KubeAccess, vars: &dyn Vars) -> KubeAccess {
    let KubeAccess::InCluster { service_account, url } = access else { return access };
    let mut read = Reader::new(vars, Persona::Tailpod);
    let host = read.text(vars::KUBERNETES_SERVICE_HOST).filter(|host| !host.is_empty());
    let url = match (host, read.text(vars::KUBERNETES_SERVICE_PORT)) {
        (Some(host), port @ Some(_)) => https(&host, port.as_deref()),
        _ => url,
    };
    KubeAccess::InCluster { service_account, url }
}

fn https(host: &str, port: Option<&str>) -> String {
    let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
    format!("https://{host}:{}", port.unwrap_or("443"))
}

fn in_cluster_at(read: &mut Reader<'_>, root: &Path) -> KubeAccess {
    let service_account = root.join(SERVICE_ACCOUNT);
    let literal = read.text(vars::TS_KUBERNETES_READ_API_SERVER_ADDRESS_FROM_ENV).as_deref() == Some("true");
    let host = read.text(vars::KUBERNETES_SERVICE_HOST);
    let url = match host {
        Some(host) if literal || root != Path::new("/") => {
            https(&host, read.text(vars::KUBERNETES_SERVICE_PORT_HTTPS).as_deref())
        }
        _ => "https://kubernetes.default.svc".to_owned(),
    };
    KubeAccess::InCluster { service_account, url }
}

/// Where the daemon keeps its identity (boot.md 3.1, rows 2 to 2″; E.5).
fn state(read: &mut Reader<'_>, secret: Option<&str>, access: &KubeAccess) -> StateStore {
    let dir = read.text(vars::TS_STATE_DIR).map(PathBuf::from);
    match (secret, access, dir) {
        (Some(_), KubeAccess::Kubeconfig { .. }, None) => {
            read.report(
                Problem::once(
                    "TAILPOD_KUBECONFIG needs TS_STATE_DIR: tailscaled cannot reach the cluster from outside",
                )
                .hint("set TS_STATE_DIR to a directory that survives restarts"),
            );
            StateStore::Memory
        }
        (Some(name), KubeAccess::InCluster { .. }, dir) => {
            StateStore::Secret { name: name.to_owned(), dir: dir.unwrap_or_else(|| "/tmp".into()) }
        }
        (_, _, Some(dir)) => StateStore::Dir(dir),
        (None, _, None) => StateStore::Memory,
    }
}

/// A duration in a variable of ours.
pub(super) fn our_duration(read: &mut Reader<'_>, var: &vars::Var) -> Result<std::time::Duration, Reported> {
    read.duration(var, |text, error| Problem::once(format!("{}={text:?}: {error}", var.name)).hint(rules::DURATION))
}
