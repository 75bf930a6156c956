//! Every environment variable, once, with its documentation.
//!
//! The reader takes names, spellings and defaults from here; README's table and the search for mistyped names are
//! made from the same list. Upstream's names are contract; names that start with `TAILPOD_` are ours.

use std::fmt::Write as _;

use crate::spelling::distance;

/// One environment variable.
#[derive(Debug)]
pub struct Var {
    /// The exact name.
    pub name: &'static str,
    /// How its value is read.
    pub rule: Rule,
    /// What an unset (or, where the rule says so, empty) variable means; empty for "nothing".
    pub default: &'static str,
    /// Whether the value is never shown.
    pub secret: bool,
    /// Which part of the documentation it belongs to.
    pub group: Group,
    /// One line for the reader of the README.
    pub doc: &'static str,
}

/// How the value of a variable is read (boot.md 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// As is; unset is the same as empty.
    Text,
    /// As is; unset and empty differ.
    TextOrUnset,
    /// One of [`super::parse::BOOLEANS`]; anything else is the default.
    Bool,
    /// The same; anything else is "not set".
    BoolOrUnset,
    /// A Go duration such as `90s` or `1h30m`; empty is the default.
    Duration,
    /// An IP literal and a port, `1.2.3.4:80` or `[::]:9002`.
    AddrPort,
    /// Words between white space, or shell words with `TAILPOD_ARGS_QUOTING=shell`.
    Words,
    /// A whole number.
    Number,
    /// One of these texts; empty is the default.
    OneOf(&'static [&'static str]),
    /// Only this text counts, anything else is as if unset.
    Exactly(&'static str),
}

/// The chapter of the documentation a variable belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Logging in.
    Login,
    /// What the node is like.
    Node,
    /// The daemon.
    Daemon,
    /// Kubernetes and the Pod.
    Kubernetes,
    /// Proxying and serving.
    Proxy,
    /// Local HTTP.
    Local,
    /// Life of the process.
    Process,
    /// For tests.
    Test,
    /// Read by tailscaled or by others, not by `boot`; known so that they are not taken for mistakes.
    Foreign,
}

macro_rules! variables {
    ($($(#[$secret:ident])? $name:ident, $group:ident, $rule:expr, $default:literal, $doc:literal;)*) => {
        $(
            #[doc = $doc]
            pub const $name: &Var = &Var {
                name: stringify!($name),
                rule: $rule,
                default: $default,
                secret: variables!(@secret $($secret)?),
                group: Group::$group,
                doc: $doc,
            };
        )*

        /// Every variable, in the order of the documentation.
        pub static VARS: &[&Var] = &[$($name),*];
    };
    (@secret) => { false };
    (@secret secret) => { true };
}

variables! {
    #[secret] TS_AUTHKEY, Login, Rule::Text, "", "Auth key, `file:<path>`, OAuth client secret `tskey-client-…` or `arn:aws:ssm:…`.";
    #[secret] TS_AUTH_KEY, Login, Rule::Text, "", "Used when `TS_AUTHKEY` is unset or empty.";
    TS_CLIENT_ID, Login, Rule::Text, "", "OAuth or workload identity client id.";
    #[secret] TS_CLIENT_SECRET, Login, Rule::Text, "", "OAuth client secret, or `file:<path>`.";
    #[secret] TS_ID_TOKEN, Login, Rule::Text, "", "ID token for workload identity, or `file:<path>`.";
    TS_AUDIENCE, Login, Rule::Text, "", "Audience of the ID token to ask the cloud for.";
    TS_CONTROL_URL, Login, Rule::Text, "", "`k8s-proxy`: the control server, when the config names none.";
    TS_AUTH_ONCE, Login, Rule::Bool, "false", "Log in only when the node is not logged in yet.";

    TS_HOSTNAME, Node, Rule::Text, "", "Host name of the node.";
    TS_ROUTES, Node, Rule::TextOrUnset, "", "Routes to advertise, comma-separated; set to nothing withdraws them, unset leaves them.";
    TS_ACCEPT_DNS, Node, Rule::BoolOrUnset, "false", "Whether to accept DNS configuration from the tailnet.";
    TS_EXTRA_ARGS, Node, Rule::Words, "", "More flags of `tailscale up`.";
    TAILPOD_ARGS_QUOTING, Node, Rule::OneOf(&["words", "shell"]), "words", "How extra arguments are split: at white space, or like a shell does.";

    TS_USERSPACE, Daemon, Rule::Bool, "true", "Userspace networking; false uses the kernel's TUN device.";
    TS_STATE_DIR, Daemon, Rule::Text, "", "Directory for the daemon's state.";
    TS_SOCKET, Daemon, Rule::Text, "/tmp/tailscaled.sock", "Path of the LocalAPI socket.";
    TS_SOCKS5_SERVER, Daemon, Rule::Text, "", "Listen address of a SOCKS5 proxy into the tailnet.";
    TS_OUTBOUND_HTTP_PROXY_LISTEN, Daemon, Rule::Text, "", "Listen address of an HTTP proxy into the tailnet.";
    TS_TAILSCALED_EXTRA_ARGS, Daemon, Rule::Words, "", "More flags of `tailscaled`.";
    TS_DEBUG_ADDR_PORT, Daemon, Rule::AddrPort, "", "The daemon's debug listener, and where `/debug/` is forwarded to.";
    TS_EXPERIMENTAL_VERSIONED_CONFIG_DIR, Daemon, Rule::Text, "", "Directory with `cap-<N>.hujson` files; the node is configured by the best of them alone.";
    TAILPOD_CAPVER, Daemon, Rule::Number, "148", "Capability version of the daemon, for choosing the config file and for the Secret.";
    TAILPOD_RESTART_DAEMON, Daemon, Rule::OneOf(&["backoff", "never"]), "backoff", "What `tailpod boot` does when tailscaled dies: restart it in place, or exit.";

    TS_KUBE_SECRET, Kubernetes, Rule::TextOrUnset, "tailscale", "State Secret; empty for none. The default applies in Kubernetes only.";
    TS_KUBERNETES_READ_API_SERVER_ADDRESS_FROM_ENV, Kubernetes, Rule::Exactly("true"), "", "Take the API server's address from the environment; only the text `true` counts.";
    KUBERNETES_SERVICE_HOST, Kubernetes, Rule::Text, "", "Set by the kubelet: we are in Kubernetes.";
    KUBERNETES_SERVICE_PORT, Kubernetes, Rule::Text, "", "Set by the kubelet: with it the proxy goes there without cluster DNS, as client-go does.";
    KUBERNETES_SERVICE_PORT_HTTPS, Kubernetes, Rule::Text, "", "Set by the kubelet: the API server's port.";
    TAILPOD_KUBECONFIG, Kubernetes, Rule::Text, "", "Kubeconfig for reaching a cluster from outside; needs `TS_STATE_DIR`.";
    TAILPOD_CONTEXT, Kubernetes, Rule::Text, "", "Context in that kubeconfig, if not the current one.";
    TAILPOD_EXEC_POLICY, Kubernetes, Rule::OneOf(&["AllowAll", "DenyAll", "Allowlist"]), "AllowAll", "Which credential plugins of a kubeconfig may run.";
    TAILPOD_EXEC_ALLOWLIST, Kubernetes, Rule::Text, "", "With `TAILPOD_EXEC_POLICY=Allowlist`: the plugins, comma-separated, as names or paths.";
    TAILPOD_EXEC_TIMEOUT, Kubernetes, Rule::Duration, "60s", "How long a credential plugin may run that nobody talks to.";
    TAILPOD_EXEC_WITHHOLD, Kubernetes, Rule::Text, "", "Names of variables that credential plugins do not get, comma-separated.";
    TAILPOD_EXEC_ROTATION_GRACE, Kubernetes, Rule::Duration, "0s", "How long busy connections live on after a plugin has replaced their client certificate.";
    TAILPOD_DELETE_AUTHKEY, Kubernetes, Rule::Bool, "false", "Delete the Secret's `authkey` after the first success in every mode.";
    POD_IP, Kubernetes, Rule::Text, "", "The Pod's address (legacy, single stack).";
    POD_IPS, Kubernetes, Rule::TextOrUnset, "", "The Pod's addresses, at most two, comma-separated.";
    POD_NAME, Kubernetes, Rule::Text, "", "The Pod's name; needed for Events.";
    POD_UID, Kubernetes, Rule::Text, "", "The Pod's UID; written to the Secret, needed for Events.";

    TS_K8S_PROXY_CONFIG, Proxy, Rule::Text, "", "`k8s-proxy`: where its config is, a file or `kube:<namespace>/<name>` for key `config.hujson` of a Secret.";
    TS_SERVE_CONFIG, Proxy, Rule::Text, "", "Serve config: a file, watched, or the config itself when it begins with `{`.";
    TS_DEST_IP, Proxy, Rule::Text, "", "Forward all tailnet traffic to this address.";
    TS_EXPERIMENTAL_DEST_DNS_NAME, Proxy, Rule::Text, "", "Forward all tailnet traffic to this name's addresses.";
    TS_TAILNET_TARGET_IP, Proxy, Rule::Text, "", "Forward other traffic to this tailnet address.";
    TS_TAILNET_TARGET_FQDN, Proxy, Rule::Text, "", "Forward other traffic to this tailnet name.";
    EXPERIMENTAL_ALLOW_PROXYING_CLUSTER_TRAFFIC_VIA_INGRESS, Proxy, Rule::Bool, "false", "Also forward the cluster's traffic for the Pod's address.";
    TS_EGRESS_PROXIES_CONFIG_PATH, Proxy, Rule::Text, "", "Directory with the egress services' config.";
    TS_INGRESS_PROXIES_CONFIG_PATH, Proxy, Rule::Text, "", "File with the ingress services' config.";
    TS_EXPERIMENTAL_CERT_SHARE, Proxy, Rule::Bool, "false", "Share certificates between replicas.";
    TAILPOD_CERT_WRITER, Proxy, Rule::OneOf(&["ordinal", "lease", "off"]), "ordinal", "Which replica gets shared certificates: the first one, the one that holds a Lease, or none of these.";
    TAILPOD_CERT_LEASE_DURATION, Proxy, Rule::Duration, "60s", "How long a replica that died is respected as the one that gets certificates, where a Lease says which.";
    TAILPOD_STICKY_WRITER, Proxy, Rule::Bool, "false", "Where a Lease says which replica gets certificates: its tailscaled orders for as long as it has the Lease, and not only while there is something to order.";
    TAILPOD_CERT_RELOAD, Proxy, Rule::Bool, "false", "Where certificates are shared, start a tailscaled anew that only reads them when it serves one that ends within a day and there is a newer one; one replica at a time.";
    TS_EXPERIMENTAL_SERVICE_AUTO_ADVERTISEMENT, Proxy, Rule::Bool, "true", "Advertise the Services in the serve config; unset, not if the config file says which.";
    TAILPOD_ADVERTISE_WITHOUT_CERT, Proxy, Rule::Bool, "false", "Advertise a Service that listens on 443 only even while there is no certificate for it.";
    TAILPOD_OWN_ALL_SERVICES, Proxy, Rule::Bool, "false", "Withdraw every advertised Service that is not in the serve config, whoever advertised it.";
    TAILPOD_KEEP_SERVE_CONFIG, Proxy, Rule::Bool, "false", "As `containerboot`: change only what differs from what a former run served, as `tailpod boot` does, instead of taking all of it away first.";
    TS_EXPERIMENTAL_ENABLE_FORWARDING_OPTIMIZATIONS, Proxy, Rule::Bool, "false", "Enable UDP GRO forwarding.";
    TS_DEBUG_FIREWALL_MODE, Proxy, Rule::Text, "", "`nftables`, `iptables` or `auto`.";
    TAILPOD_EGRESS_EXEMPTIONS, Proxy, Rule::OneOf(&["own", "none"]), "own", "What forwarding to a tailnet target leaves alone: our own ports (probes, metrics, WireGuard), or nothing, as upstream.";

    TS_LOCAL_ADDR_PORT, Local, Rule::AddrPort, "[::]:9002", "Listen address of metrics and health checks.";
    TS_ENABLE_METRICS, Local, Rule::Bool, "false", "Serve `/metrics` and `/debug/`.";
    TS_ENABLE_HEALTH_CHECK, Local, Rule::Bool, "false", "Serve `/healthz`, `/livez` and `/readyz`.";
    TS_HEALTHCHECK_ADDR_PORT, Local, Rule::AddrPort, "", "Deprecated: a listener with `/healthz` only.";

    TS_BOOT_TIMEOUT, Process, Rule::Duration, "60s", "Deadline for reaching `Running`.";
    TAILPOD_LOGIN_TIMEOUT, Process, Rule::Duration, "10m", "How long `tailpod boot` waits for a human to log in or approve.";
    TAILPOD_REISSUE_TIMEOUT, Process, Rule::Duration, "10m", "How long to wait for a reissued auth key.";
    TAILPOD_WITHDRAW_WAIT, Process, Rule::Duration, "20s", "How long to go on serving after Services were withdrawn, so that peers fail over; keep it 5 s below the Pod's grace period. In `boot` at most 20 s.";
    TAILPOD_PEER_CONNECTIONS, Process, Rule::Number, "", "`proxy`: connections that one peer may have at the same time; by default half of all.";
    TAILPOD_STRICT, Process, Rule::Bool, "false", "`tailpod boot` refuses to start on what is otherwise only warned about, and ends when the serve config goes bad.";
    TAILPOD_TERMINATION_LOG, Process, Rule::TextOrUnset, "/dev/termination-log", "File for the last words that Kubernetes shows; empty for none.";

    TS_TEST_ONLY_ROOT, Test, Rule::Text, "/", "Prefix for device, sysctl and service-account paths.";
    TS_TEST_FAKE_NETFILTER, Test, Rule::Bool, "false", "Use a firewall in memory.";
    TS_TEST_FAKE_NETFILTER_6, Test, Rule::Bool, "true", "Whether that firewall knows IPv6 NAT.";

    PORT, Foreign, Rule::Text, "", "For tailscaled: the port of its WireGuard socket.";
    TS_EXPERIMENTAL_KUBE_API_EVENTS, Foreign, Rule::Text, "", "For tailscaled, set by the operator.";
    TS_CERT_SHARE_MODE, Foreign, Rule::Text, "", "For tailscaled; set by `boot`.";
    TS_PERMIT_CERT_UID, Foreign, Rule::Text, "", "For tailscaled.";
    TS_ACME_ACCOUNT_SECRET_NAME, Foreign, Rule::Text, "", "For tailscaled.";
    TS_ACME_ACCOUNT_FIELD, Foreign, Rule::Text, "", "For tailscaled.";
    TS_LOGS_DIR, Foreign, Rule::Text, "", "For tailscaled.";
    TS_STATE, Foreign, Rule::Text, "", "For tailscaled, set by the operator.";
    TS_EGRESS_SERVICES_CONFIG_PATH, Foreign, Rule::Text, "", "An old name that nothing reads.";
}

/// The names whose values are secret: removed from the environment of children (boot.md E.2).
pub fn secret_names() -> impl Iterator<Item = &'static str> {
    VARS.iter().filter(|var| var.secret).map(|var| var.name)
}

/// A name that looks like a mistyped one of ours: the nearest known name, at most two edits away.
///
/// Known names, names without our prefixes, Kubernetes service links and tailscaled's own families are never
/// taken for mistakes (boot.md E.1).
pub fn meant(name: &str) -> Option<&'static str> {
    if !(name.starts_with("TS_") || name.starts_with("TAILPOD_")) || VARS.iter().any(|var| var.name == name) {
        return None;
    }
    if ["TS_DEBUG_", "TS_INTERNAL_", "TS_NO_LOGS"].iter().any(|family| name.starts_with(family)) || is_link(name) {
        return None;
    }
    let nearest = VARS.iter().map(|var| (distance(name, var.name), var.name)).min()?;
    (nearest.0 <= 2).then_some(nearest.1)
}

/// Whether the name has the form of a Kubernetes service link, `TS_<service>_SERVICE_HOST` and the like.
fn is_link(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("TS_") else { return false };
    rest.ends_with("_SERVICE_HOST") || rest.contains("_SERVICE_PORT") || rest.contains("_PORT")
}

/// README's table of variables, as Markdown.
///
/// # Panics
/// Never: writing to a `String` does not fail.
pub fn markdown_table() -> String {
    let mut text = String::from("| Variable | Default | Meaning |\n|---|---|---|\n");
    for var in VARS.iter().filter(|var| var.group != Group::Foreign) {
        let default = if var.default.is_empty() { "–".to_owned() } else { format!("`{}`", var.default) };
        writeln!(text, "| `{}` | {default} | {} |", var.name, var.doc).expect("writing to a String");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_documented() {
        let mut names: Vec<_> = VARS.iter().map(|var| var.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(VARS.iter().all(|var| var.doc.ends_with('.')), "every variable has a sentence");
        assert_eq!(
            secret_names().collect::<Vec<_>>(),
            ["TS_AUTHKEY", "TS_AUTH_KEY", "TS_CLIENT_SECRET", "TS_ID_TOKEN"]
        );
    }

    #[test]
    fn near_misses_are_recognised_and_nothing_else() {
        for (name, wanted) in [
            ("TS_USERSPCE", Some("TS_USERSPACE")),
            ("TS_AUTHKEYS", Some("TS_AUTHKEY")),
            ("TAILPOD_STRICKT", Some("TAILPOD_STRICT")),
            ("TS_ROUTE", Some("TS_ROUTES")),
            ("TS_AUTHKEY", None),
            ("TS_SOMETHING_ELSE", None),
            ("TSUSERSPACE", None),
            // An operator Service called `ts-socke` is a service link, not a typo.
            ("TS_SOCKE_SERVICE_HOST", None),
            ("TS_SOCKE_SERVICE_PORT_HTTPS", None),
            ("TS_LOCL_ADDR_PORT", None),
            ("TS_DEBUG_ADDR_PRT", None),
            ("TS_INTERNAL_AP", None),
            ("TS_NO_LOGS_NO_SUPPORT", None),
        ] {
            assert_eq!(meant(name), wanted, "{name}");
        }
    }

    #[test]
    fn defaults_of_the_table_are_readable() {
        for var in VARS {
            match var.rule {
                Rule::Bool => assert!(super::super::parse::boolean(var.default).is_some(), "{}", var.name),
                Rule::Duration => assert!(super::super::parse::duration(var.default).is_ok(), "{}", var.name),
                Rule::OneOf(texts) => assert!(texts.contains(&var.default), "{}", var.name),
                _ => {}
            }
        }
    }
}
