//! Manifests for the API server proxy, in both arrangements of its listener (api-proxy.md 2). Pure.
//!
//! With [`Listener::Tls`] a node of its own stands in each Pod: `tailpod boot` as a native sidecar, `tailpod proxy`
//! beside it with certificates from the tailnet. With [`Listener::Serve`] the Pods are replicas of one Tailscale
//! Service: `k8s-proxy` starts tailscaled itself, which terminates TLS and hands connections over with a PROXY header.

use std::net::{Ipv6Addr, SocketAddr};

use super::permissions::{Needs, Rule};
use super::pod::{
    self, KEY_PLACEHOLDER, empty, entries, field, given, labels, metadata, mount, nobodys_context, security_context,
};
use super::rbac::{self, Account};
use super::yaml::{Yaml, map, stream, words};
use super::{boot, policy};
use crate::digest;
use crate::k8s::error::{Resource, Verb};

/// 20 s until peers have found another replica, 10 s for requests under way, and what tailscaled needs.
const GRACE_SECONDS: u32 = 45;
/// Health and metrics of a process that has the Pod to itself.
const LOCAL_PORT: u16 = 9002;
/// The same beside boot, which has that port.
const LOCAL_PORT_BESIDE_BOOT: u16 = 9003;
/// Boot's default for the LocalAPI, in the volume that both containers share.
const SOCKET: &str = "/tmp/tailscaled.sock";
/// The longest value of a label.
const LABEL: usize = 63;

/// What shall be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Who terminates TLS.
    pub listener: Listener,
    /// Whether callers become Kubernetes users here.
    pub mode: Mode,
    /// The groups that grants may name; the proxy can act as a member of no other.
    pub groups: Vec<String>,
    /// The namespace. A binding to a ClusterRole has to name it.
    pub namespace: String,
    /// The name of everything.
    pub name: String,
    /// The image with `tailpod`, its links, and `tailscaled`.
    pub image: String,
    /// How many.
    pub replicas: u32,
    /// The tag of the nodes, as the policy file spells it.
    pub tag: String,
    /// Who may use the proxy, as the policy file spells it.
    pub src: Vec<String>,
}

/// Who terminates TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listener {
    /// The proxy, for the name of each node.
    Tls,
    /// tailscaled, for the name of a Tailscale Service.
    Serve {
        /// `svc:NAME`
        service: String,
        /// The tailnet's DNS name: `tail1234.ts.net`.
        tailnet: String,
    },
}

/// Whose credentials the API server sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The proxy's, acting as the caller.
    Auth,
    /// The caller's own.
    Noauth,
}

/// The documents as one YAML stream, behind a comment with what belongs into the tailnet policy file.
pub fn render(options: &Options) -> String {
    let mut documents = vec![pod::service_account(&options.name, Some(&options.namespace))];
    documents.extend(options.role());
    if options.mode == Mode::Auth {
        let name = format!("{}-{}", options.namespace, options.name);
        documents.extend(rbac::impersonation(&name, &options.namespace, &options.name, &options.groups));
    }
    documents.extend(options.secrets());
    documents.push(options.service());
    documents.push(options.workload());
    format!("{}{}", options.comment(), stream(&documents))
}

// === impl Options ===

impl Options {
    /// What the tailnet policy file needs, to be pasted there.
    pub fn policy(&self) -> String {
        policy::render(self)
    }

    fn comment(&self) -> String {
        let mut comment =
            String::from("# kubectl apply --server-side -f - leaves alone what the Pods have written since.\n#\n");
        if self.domain().is_some() && self.mode == Mode::Auth {
            comment.push_str(
                "# Add no container to these Pods that you would not trust with every caller's identity: whatever runs\n\
                 # in their network namespace can tell the proxy who calls.\n#\n",
            );
        }
        comment.push_str("# For the tailnet policy file, not for kubectl:\n#\n");
        for line in self.policy().lines() {
            comment.push_str("#   ");
            comment.push_str(line);
            comment.push('\n');
        }
        comment
    }

    /// What the state of each Pod is called. Several have names that stay; one alone is replaced by another of any name.
    fn pods(&self) -> Vec<String> {
        if self.is_alone() {
            return vec![self.name.clone()];
        }
        (0..self.replicas).map(|ordinal| format!("{}-{ordinal}", self.name)).collect()
    }

    fn is_alone(&self) -> bool {
        self.replicas == 1
    }

    /// The same in a container's variable.
    fn pod(&self) -> &str {
        if self.is_alone() { &self.name } else { "$(POD_NAME)" }
    }

    /// What the service account may do in its namespace (api-proxy.md 9.10), each Secret by its name.
    fn role(&self) -> [Yaml; 2] {
        let namespace = Some(self.namespace.as_str());
        let Some(domain) = self.domain() else {
            let needs = Needs { secrets: self.pods(), one_step: false, pod: true };
            return Account { namespace, service_account: &self.name, needs }.role(&self.name);
        };
        let rule = |resource, names, verbs: &[Verb]| Rule { resource, names, verbs: verbs.to_vec() };
        let configs = self.pods().iter().map(|pod| config_name(pod)).collect();
        let rules = vec![
            rule(Resource::Secrets, configs, &[Verb::Get, Verb::List, Verb::Watch]),
            rule(Resource::Secrets, self.pods(), &[Verb::Get, Verb::Update, Verb::Patch]),
            rule(Resource::Secrets, vec![domain], &[Verb::Get, Verb::List, Verb::Update, Verb::Patch]),
            rule(Resource::Events, Vec::new(), &[Verb::Get, Verb::Create, Verb::Patch]),
        ];
        rbac::role(&self.name, namespace, &self.name, rules)
    }

    /// The name that the Service is reached by, which is also that of the Secret with its certificate.
    fn domain(&self) -> Option<String> {
        match &self.listener {
            Listener::Tls => None,
            Listener::Serve { service, tailnet } => Some(format!("{}.{tailnet}", service.trim_start_matches("svc:"))),
        }
    }

    fn secrets(&self) -> Vec<Yaml> {
        let (Listener::Serve { service, .. }, Some(domain)) = (&self.listener, self.domain()) else {
            return vec![self.node().credentials()];
        };
        let secret = |name: &str, more: Vec<(&str, Yaml)>| {
            let mut secret = vec![
                ("apiVersion", "v1".into()),
                ("kind", "Secret".into()),
                ("metadata", metadata(name, Some(&self.namespace))),
            ];
            secret.extend(more);
            entries(secret)
        };
        let mut secrets = Vec::new();
        for (ordinal, pod) in self.pods().iter().enumerate() {
            // One replica asks for the certificate, the others read it.
            let config = self.config(service, pod, ordinal == 0);
            secrets.push(secret(&config_name(pod), vec![("stringData", map([("config.hujson", config.into())]))]));
            // So that nobody needs the right to make Secrets of any name.
            secrets.push(secret(pod, Vec::new()));
        }
        let value = || Yaml::from("");
        secrets.push(map([
            ("apiVersion", "v1".into()),
            ("kind", "Secret".into()),
            ("metadata", self.certificate_metadata(&domain)),
            ("type", "kubernetes.io/tls".into()),
            ("data", map([("tls.crt", value()), ("tls.key", value())])),
        ]));
        secrets
    }

    /// The labels by which tailscaled finds the certificates of its group (certs.md 6.2).
    fn certificate_metadata(&self, domain: &str) -> Yaml {
        let label = if domain.len() > LABEL {
            let hash: String = digest::sha256_hex(domain.as_bytes()).chars().take(8).collect();
            format!("{}-{hash}", domain.get(..54).unwrap_or(domain))
        } else {
            domain.to_owned()
        };
        map([
            ("name", domain.into()),
            ("namespace", self.namespace.as_str().into()),
            (
                "labels",
                map([
                    ("tailscale.com/managed", "true".into()),
                    ("tailscale.com/secret-type", "certs".into()),
                    ("tailscale.com/proxy-group", self.name.as_str().into()),
                    ("tailscale.com/domain", label.into()),
                ]),
            ),
        ])
    }

    /// The config of one replica (api-proxy.md 9.2).
    fn config(&self, service: &str, pod: &str, issues: bool) -> String {
        let mode = self.mode.as_str();
        format!(
            "{{\n  \"version\": \"v1alpha1\",\n  \"authKey\": \"{KEY_PLACEHOLDER}\",\n  \"hostname\": \"{pod}\",\n  \
             \"state\": \"kube:{pod}\",\n  \"advertiseServices\": [\"{service}\"],\n  \"apiServerProxy\": {{\n    \
             \"enabled\": true,\n    \"mode\": \"{mode}\",\n    \"serviceName\": \"{service}\",\n    \"issueCerts\": \
             {issues}\n  }},\n  \"healthCheckEnabled\": true,\n  \"metricsEnabled\": true\n}}\n"
        )
    }

    /// Names the Pods; what collects metrics finds them by it. Callers come over the tailnet.
    fn service(&self) -> Yaml {
        let port = map([("name", "metrics".into()), ("port", u32::from(self.local_port()).into())]);
        map([
            ("apiVersion", "v1".into()),
            ("kind", "Service".into()),
            ("metadata", metadata(&self.name, Some(&self.namespace))),
            (
                "spec",
                map([
                    ("clusterIP", "None".into()),
                    ("selector", labels(&self.name)),
                    ("ports", Yaml::List(vec![port])),
                ]),
            ),
        ])
    }

    fn local_port(&self) -> u16 {
        if self.listener == Listener::Tls { LOCAL_PORT_BESIDE_BOOT } else { LOCAL_PORT }
    }

    fn workload(&self) -> Yaml {
        // The listener's port is below 1024; this sysctl is one that needs no permission.
        let port = map([("name", "net.ipv4.ip_unprivileged_port_start".into()), ("value", "0".into())]);
        let mut context = nobodys_context();
        context.push(("sysctls", Yaml::List(vec![port])));
        let mut spec = vec![
            ("serviceAccountName", self.name.as_str().into()),
            ("terminationGracePeriodSeconds", GRACE_SECONDS.into()),
            ("securityContext", entries(context)),
        ];
        let volumes = if self.listener == Listener::Tls {
            spec.push(("initContainers", Yaml::List(vec![self.node().container()])));
            self.node().volumes()
        } else {
            Yaml::List(vec![empty("tmp")])
        };
        spec.push(("containers", Yaml::List(vec![self.container()])));
        spec.push(("volumes", volumes));
        if self.is_alone() {
            pod::deployment(&self.name, Some(&self.namespace), entries(spec))
        } else {
            pod::stateful_set(&self.name, Some(&self.namespace), self.replicas, entries(spec))
        }
    }

    fn container(&self) -> Yaml {
        let mut container = vec![("name", Yaml::from("proxy")), ("image", self.image.as_str().into())];
        match &self.listener {
            Listener::Tls => {
                let health = SocketAddr::from((Ipv6Addr::UNSPECIFIED, LOCAL_PORT_BESIDE_BOOT)).to_string();
                let flags = ["--mode", self.mode.as_str(), "--tls", "tailscale", "--socket", SOCKET, "--local-addr"];
                let command = ["tailpod", "proxy"].into_iter().chain(flags).chain([health.as_str()]);
                container.push(("command", words(command)));
            }
            Listener::Serve { .. } => {
                container.push(("command", words(["k8s-proxy"])));
                let config = format!("kube:{}/{}", self.namespace, config_name(self.pod()));
                let variables = vec![
                    field("POD_NAME", "metadata.name"),
                    field("POD_UID", "metadata.uid"),
                    field("POD_IP", "status.podIP"),
                    given("TS_K8S_PROXY_CONFIG", &config),
                ];
                container.push(("env", Yaml::List(variables)));
            }
        }
        let port = map([("name", "metrics".into()), ("containerPort", u32::from(self.local_port()).into())]);
        container.push(("ports", Yaml::List(vec![port])));
        let probe = |path: &str| vec![("httpGet", map([("path", path.into()), ("port", "metrics".into())]))];
        let mut live = probe("/livez");
        live.push(("initialDelaySeconds", 10.into()));
        container.push(("readinessProbe", entries(probe("/readyz"))));
        container.push(("livenessProbe", entries(live)));
        container.push(("securityContext", security_context(false)));
        container.push(("volumeMounts", Yaml::List(vec![mount("tmp", "/tmp")])));
        entries(container)
    }

    /// The node that stands beside the proxy.
    fn node(&self) -> boot::Options {
        boot::Options {
            mode: boot::Mode::AuthOnce,
            routes: Vec::new(),
            kernel: false,
            sidecar: true,
            namespace: Some(self.namespace.clone()),
            name: self.name.clone(),
            image: self.image.clone(),
            replicas: 1,
            secret: Some(self.pod().to_owned()),
            hostname: self.is_alone().then(|| self.name.clone()),
        }
    }
}

impl Mode {
    /// As flags and config files spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Noauth => "noauth",
        }
    }
}

fn config_name(pod: &str) -> String {
    format!("{pod}-config")
}

#[cfg(test)]
mod tests;
