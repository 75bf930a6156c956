//! Manifests for `tailpod boot`: a node of its own, or one beside an application. Pure.

use super::permissions::Needs;
use super::pod::{
    self, KEY_PLACEHOLDER, empty, entries, field, given, metadata, mount, security_context, sysctl_container,
    tun_volume,
};
use super::rbac::Account;
use super::yaml::{Yaml, map, stream, words};
use crate::prefix::Prefix;

/// The file of a config directory; every daemon since capability version 95 reads it.
const CONFIG_FILE: &str = "cap-95.hujson";
/// Where the config directory is mounted.
const CONFIG_DIR: &str = "/etc/tailscaled";
/// Boot needs 25 s at most to stop in order.
const GRACE_SECONDS: u32 = 30;

/// What shall be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How the node is configured.
    pub mode: Mode,
    /// Routes to advertise.
    pub routes: Vec<Prefix>,
    /// The kernel's TUN device instead of userspace networking.
    pub kernel: bool,
    /// Beside an application's container instead of on its own.
    pub sidecar: bool,
    /// The namespace; left out of the documents when it is not given.
    pub namespace: Option<String>,
    /// The name of everything.
    pub name: String,
    /// The image with `tailpod` and `tailscaled`.
    pub image: String,
    /// How many nodes.
    pub replicas: u32,
    /// The state Secret, if not one for each Pod, named as the Pod.
    pub secret: Option<String>,
    /// The node's name, if not that of the Pod.
    pub hostname: Option<String>,
}

/// How a node is configured (boot.md 1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// By a config file alone.
    OneStep,
    /// Log in only when the node is not logged in yet.
    AuthOnce,
    /// Log in on every start.
    AlwaysAuth,
}

/// Why these options make no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Two nodes with one identity take the connection from each other.
    #[error("{replicas} Pods cannot share the state Secret `{secret}`")]
    SharedSecret {
        /// How many.
        replicas: u32,
        /// Which.
        secret: String,
    },
    /// A sidecar is multiplied by the workload it belongs to.
    #[error("a sidecar has no replicas of its own")]
    SidecarReplicas,
}

/// The documents for boot, as one YAML stream.
///
/// # Errors
/// See [`Refused`].
pub fn render(options: &Options) -> Result<String, Refused> {
    if options.sidecar && options.replicas != 1 {
        return Err(Refused::SidecarReplicas);
    }
    if let (Some(secret), 2..) = (&options.secret, options.replicas) {
        return Err(Refused::SharedSecret { replicas: options.replicas, secret: secret.clone() });
    }
    let account = Account {
        namespace: options.namespace.as_deref(),
        service_account: &options.name,
        needs: Needs { secrets: options.state_secrets(), one_step: options.mode == Mode::OneStep, pod: true },
    };
    let mut documents = vec![pod::service_account(&options.name, options.namespace.as_deref())];
    documents.extend(account.role(&options.name));
    documents.push(options.credentials());
    documents.push(if options.sidecar { options.pod() } else { options.stateful_set() });
    Ok(stream(&documents))
}

// === impl Options ===

impl Options {
    /// The state Secrets of all Pods. A Role has to name each: the API server matches no patterns.
    fn state_secrets(&self) -> Vec<String> {
        match &self.secret {
            Some(secret) => vec![secret.clone()],
            None if self.sidecar => vec![self.name.clone()],
            None => (0..self.replicas).map(|ordinal| format!("{}-{ordinal}", self.name)).collect(),
        }
    }

    /// The Secret that a person fills in: an auth key, or the whole config file with one.
    pub(super) fn credentials(&self) -> Yaml {
        let (key, value) = if self.mode == Mode::OneStep {
            (CONFIG_FILE, self.config_file())
        } else {
            ("TS_AUTHKEY", KEY_PLACEHOLDER.to_owned())
        };
        map([
            ("apiVersion", "v1".into()),
            ("kind", "Secret".into()),
            ("metadata", metadata(&self.credentials_name(), self.namespace.as_deref())),
            ("stringData", map([(key, value.into())])),
        ])
    }

    fn credentials_name(&self) -> String {
        let what = if self.mode == Mode::OneStep { "config" } else { "auth" };
        format!("{}-{what}", self.name)
    }

    fn config_file(&self) -> String {
        let routes: Vec<_> = self.routes.iter().map(|route| format!("\"{route}\"")).collect();
        let routes = match routes.as_slice() {
            [] => String::new(),
            routes => format!("  \"AdvertiseRoutes\": [{}],\n", routes.join(", ")),
        };
        format!(
            "{{\n  \"Version\": \"alpha0\",\n  \"AuthKey\": \"{KEY_PLACEHOLDER}\",\n{routes}  \"acceptDNS\": false\n}}\n"
        )
    }

    fn stateful_set(&self) -> Yaml {
        let mut spec = self.pod_spec();
        spec.push(("containers", Yaml::List(vec![self.container()])));
        pod::stateful_set(&self.name, self.namespace.as_deref(), self.replicas, self.ordered(spec))
    }

    /// The application's Pod with tailpod as a native sidecar: it is up before the application starts, and stops
    /// after it.
    fn pod(&self) -> Yaml {
        let mut spec = self.pod_spec();
        let application = map([("name", "app".into()), ("image", "example.com/your-application".into())]);
        spec.push(("containers", Yaml::List(vec![application])));
        map([
            ("apiVersion", "v1".into()),
            ("kind", "Pod".into()),
            ("metadata", metadata(&self.name, self.namespace.as_deref())),
            ("spec", self.ordered(spec)),
        ])
    }

    fn pod_spec(&self) -> Vec<(&'static str, Yaml)> {
        let mut spec = vec![
            ("serviceAccountName", self.name.as_str().into()),
            ("terminationGracePeriodSeconds", GRACE_SECONDS.into()),
        ];
        if !self.kernel {
            spec.push(("securityContext", entries(pod::nobodys_context())));
        }
        spec
    }

    /// Adds what stands around the containers, in the order people expect.
    fn ordered(&self, spec: Vec<(&'static str, Yaml)>) -> Yaml {
        let mut init: Vec<Yaml> = self.forwarding().into_iter().collect();
        if self.sidecar {
            init.push(self.container());
        }
        let mut entries: Vec<(String, Yaml)> = Vec::new();
        for (key, value) in spec {
            if key == "containers" && !init.is_empty() {
                entries.push(("initContainers".to_owned(), Yaml::List(std::mem::take(&mut init))));
            }
            entries.push((key.to_owned(), value));
        }
        entries.push(("volumes".to_owned(), self.volumes()));
        Yaml::Map(entries)
    }

    /// The kernel's switches for the families in use.
    fn forwarding(&self) -> Option<Yaml> {
        if !self.kernel {
            return None;
        }
        let (v4, v6): (Vec<&Prefix>, Vec<_>) = self.routes.iter().partition(|route| route.addr().is_ipv4());
        sysctl_container(&self.image, !v4.is_empty(), !v6.is_empty())
    }

    pub(super) fn container(&self) -> Yaml {
        let mut container = vec![("name", Yaml::from("tailscale")), ("image", self.image.as_str().into())];
        if self.sidecar {
            container.push(("restartPolicy", "Always".into()));
        }
        container.push(("command", words(["tailpod", "boot"])));
        container.push(("env", Yaml::List(self.variables())));
        let probe = |question: &str, more: &[(&str, u32)]| {
            let command = words(["tailpod", "boot", "healthcheck", question]);
            let mut probe = vec![("exec".to_owned(), map([("command", command)]))];
            probe.extend(more.iter().map(|(key, number)| ((*key).to_owned(), (*number).into())));
            Yaml::Map(probe)
        };
        if self.sidecar {
            // The application waits for this one; a login may take a while.
            container.push(("startupProbe", probe("--ready", &[("periodSeconds", 2), ("failureThreshold", 300)])));
        }
        container.push(("readinessProbe", probe("--ready", &[])));
        container.push(("livenessProbe", probe("--live", &[("initialDelaySeconds", 10)])));
        container.push(("securityContext", security_context(self.kernel)));
        container.push(("volumeMounts", self.mounts()));
        entries(container)
    }

    fn variables(&self) -> Vec<Yaml> {
        let mut variables = vec![field("POD_NAME", "metadata.name"), field("POD_UID", "metadata.uid")];
        let secret = match &self.secret {
            Some(secret) => secret.as_str(),
            None if self.sidecar => &self.name,
            None => "$(POD_NAME)",
        };
        variables.push(given("TS_KUBE_SECRET", secret));
        variables.push(given("TS_USERSPACE", if self.kernel { "false" } else { "true" }));
        if self.mode == Mode::OneStep {
            variables.push(given("TS_EXPERIMENTAL_VERSIONED_CONFIG_DIR", CONFIG_DIR));
        } else {
            variables.push(given("TS_AUTH_ONCE", if self.mode == Mode::AuthOnce { "true" } else { "false" }));
            let key = map([("name", self.credentials_name().into()), ("key", "TS_AUTHKEY".into())]);
            variables.push(map([("name", "TS_AUTHKEY".into()), ("valueFrom", map([("secretKeyRef", key)]))]));
            if !self.routes.is_empty() {
                let routes: Vec<_> = self.routes.iter().map(ToString::to_string).collect();
                variables.push(given("TS_ROUTES", &routes.join(",")));
            }
        }
        if let Some(hostname) = &self.hostname {
            variables.push(given("TS_HOSTNAME", hostname));
        }
        variables.push(given("TS_ENABLE_HEALTH_CHECK", "true"));
        variables
    }

    fn mounts(&self) -> Yaml {
        let mut mounts = vec![mount("tmp", "/tmp"), mount("run", "/var/run/tailscale")];
        if self.mode == Mode::OneStep {
            let entries = [("name", "config".into()), ("mountPath", CONFIG_DIR.into()), ("readOnly", true.into())];
            mounts.push(map(entries));
        }
        if self.kernel {
            mounts.push(mount("tun", "/dev/net/tun"));
        }
        Yaml::List(mounts)
    }

    pub(super) fn volumes(&self) -> Yaml {
        let mut volumes = vec![empty("tmp"), empty("run")];
        if self.mode == Mode::OneStep {
            let secret = map([("secretName", self.credentials_name().into())]);
            volumes.push(map([("name", "config".into()), ("secret", secret)]));
        }
        if self.kernel {
            volumes.push(tun_volume());
        }
        Yaml::List(volumes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options {
            mode: Mode::AuthOnce,
            routes: Vec::new(),
            kernel: false,
            sidecar: false,
            namespace: None,
            name: "tailpod".to_owned(),
            image: "example.com/tailpod".to_owned(),
            replicas: 1,
            secret: None,
            hostname: None,
        }
    }

    #[test]
    fn userspace_mode_has_no_privilege() {
        for mode in [Mode::OneStep, Mode::AuthOnce, Mode::AlwaysAuth] {
            for sidecar in [false, true] {
                let text = render(&Options { mode, sidecar, ..options() }).unwrap();
                for word in ["privileged", "NET_ADMIN", "hostPath", "runAsUser: 0", "watch\"]\n  - apiGroups: [\"*"] {
                    assert!(!text.contains(word), "{word} in\n{text}");
                }
                assert!(text.contains("runAsNonRoot: true") && text.contains("readOnlyRootFilesystem: true"), "{text}");
            }
        }
    }

    #[test]
    fn each_pod_has_a_secret_of_its_own_that_the_role_names() {
        let text = render(&Options { replicas: 3, ..options() }).unwrap();
        assert!(text.contains("resourceNames: [\"tailpod-0\", \"tailpod-1\", \"tailpod-2\"]"), "{text}");
        let shared = Options { replicas: 2, secret: Some("state".to_owned()), ..options() };
        let refused = Refused::SharedSecret { replicas: 2, secret: "state".to_owned() };
        assert_eq!(render(&shared).unwrap_err(), refused);
        assert_eq!(render(&Options { sidecar: true, replicas: 2, ..options() }).unwrap_err(), Refused::SidecarReplicas);
    }

    #[test]
    fn forwarding_is_switched_on_for_the_families_in_use() {
        let script = |routes: &[&str], kernel| {
            let routes = routes.iter().map(|route| route.parse().unwrap()).collect();
            let text = render(&Options { routes, kernel, ..options() }).unwrap();
            (text.contains("ipv4/ip_forward"), text.contains("ipv6/conf/all/forwarding"))
        };
        assert_eq!(script(&["10.0.0.0/8"], true), (true, false));
        assert_eq!(script(&["10.0.0.0/8", "fd00::/8"], true), (true, true));
        assert_eq!(script(&[], true), (false, false));
        assert_eq!(script(&["10.0.0.0/8"], false), (false, false));
    }
}
