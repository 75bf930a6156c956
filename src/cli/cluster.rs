//! The flags that lead to a cluster and to the state Secret, as kubectl has them.
//!
//! [`ClusterArgs`] is flattened into every applet that talks to a cluster. In a Pod none of its flags is needed: the
//! service account leads to the API server and the environment names the Secret. Elsewhere kubectl's rules find the
//! kubeconfig.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, anyhow};
use clap::ValueHint;

use super::exit::ExitStatus;
use super::report::Advise;
use crate::k8s::{Cluster, Error};
use crate::settings::{KubeAccess, Vars, by_address, in_cluster, vars};

/// How to reach the cluster, and which Secret it is about. Accepted before and after the subcommand of an applet.
///
/// Flatten it last: its heading would apply to the flags that follow.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Cluster options")]
pub struct ClusterArgs {
    /// Kubeconfig that leads to the cluster; without it the Pod's service account, then kubectl's rules
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub kubeconfig: Option<PathBuf>,

    /// Context of the kubeconfig, if not the current one
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,

    /// Namespace, if not that of the Pod or of the context
    #[arg(short, long, global = true, value_name = "NAME", value_parser = namespace)]
    pub namespace: Option<String>,

    /// The state Secret; by default the one that TS_KUBE_SECRET names, else the one named as POD_NAME
    #[arg(long, global = true, value_name = "[NS/]NAME")]
    pub secret: Option<SecretRef>,
}

/// A Secret as the command line names it: `NAME` or `NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretRef {
    /// The namespace, when it was given.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
}

/// One Secret of a cluster. Displays as ``Secret `namespace/name` ``.
#[derive(Clone, Debug)]
pub struct Target {
    /// The cluster, seen from the Secret's namespace.
    pub cluster: Cluster,
    /// The Secret's name.
    pub name: String,
}

// === impl ClusterArgs ===

impl ClusterArgs {
    /// The cluster, seen from the namespace that was asked for. Nothing is sent yet.
    ///
    /// # Errors
    /// Exit code 2 when no way leads to a cluster, or `--namespace` and `--secret` name two namespaces; 1 when what is
    /// there cannot be used.
    pub async fn connect(&self, vars: &dyn Vars, component: &'static str) -> anyhow::Result<Cluster> {
        self.connect_for(self.secret.as_ref(), vars, component).await
    }

    /// The cluster and the state Secret in it. Nothing is sent yet.
    ///
    /// # Errors
    /// As [`Self::connect`]; also exit code 2 when nothing names the Secret.
    pub async fn target(&self, vars: &dyn Vars, component: &'static str) -> anyhow::Result<Target> {
        self.target_of(self.secret_ref(vars)?, vars, component).await
    }

    /// The cluster and `secret` in it: for Secrets that are named by an argument of their own.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn target_of(
        &self,
        secret: SecretRef,
        vars: &dyn Vars,
        component: &'static str,
    ) -> anyhow::Result<Target> {
        let cluster = self.connect_for(Some(&secret), vars, component).await?;
        Ok(Target { cluster, name: secret.name })
    }

    /// The state Secret: the one that was asked for, else the one that the environment names.
    ///
    /// # Errors
    /// Exit code 2 when nothing names one.
    pub fn secret_ref(&self, vars: &dyn Vars) -> anyhow::Result<SecretRef> {
        if let Some(secret) = &self.secret {
            return Ok(secret.clone());
        }
        for var in [vars::TS_KUBE_SECRET, vars::POD_NAME] {
            if let Some(text) = value(vars, var.name) {
                let name = object_name(&text).map_err(|error| {
                    anyhow!("{}={text:?} does not name a Secret: {error}", var.name).exit_with(ExitStatus::Usage)
                })?;
                return Ok(SecretRef { namespace: None, name });
            }
        }
        let error = anyhow!("nothing names the state Secret: TS_KUBE_SECRET and POD_NAME are not set");
        Err(error.hint("name it: `--secret [NAMESPACE/]NAME`").exit_with(ExitStatus::Usage))
    }

    /// How the API server is reached: the flags, then `TAILPOD_KUBECONFIG`, then the service account, then kubectl's
    /// rules.
    ///
    /// # Errors
    /// Exit code 2 when there is no way.
    pub fn access(&self, vars: &dyn Vars) -> anyhow::Result<KubeAccess> {
        self.access_with(vars, &|path| path.exists())
    }

    /// The same for a program that serves the cluster to others, in a Pod by the API server's address and without the
    /// cluster's DNS. A Pod without a token is an error, unless a kubeconfig was named for us: one that happens to be
    /// there may lead to another cluster, as somebody else (api-proxy.md 8; client-go's `rest.InClusterConfig`).
    ///
    /// # Errors
    /// As [`Self::access`]; 1 for a Pod without a token.
    pub fn access_by_address(&self, vars: &dyn Vars) -> anyhow::Result<KubeAccess> {
        self.access_by_address_with(vars, &|path| path.exists())
    }

    fn access_by_address_with(&self, vars: &dyn Vars, exists: &dyn Fn(&Path) -> bool) -> anyhow::Result<KubeAccess> {
        let is_set = |var: &vars::Var| value(vars, var.name).is_some();
        let is_named = self.kubeconfig.is_some() || self.context.is_some() || is_set(vars::TAILPOD_KUBECONFIG);
        if !is_named && is_set(vars::KUBERNETES_SERVICE_HOST) && is_set(vars::KUBERNETES_SERVICE_PORT) {
            let pod = in_cluster(vars);
            if let KubeAccess::InCluster { service_account, .. } = &pod
                && !exists(&service_account.join("token"))
            {
                let token = service_account.join("token");
                let error = anyhow!("this is a Pod without a service account: there is no {}", token.display());
                let hint = "`automountServiceAccountToken: true`; or name another way: `--kubeconfig FILE` or \
                            TAILPOD_KUBECONFIG";
                return Err(error.hint(hint));
            }
            return Ok(by_address(pod, vars));
        }
        self.access_with(vars, exists).map(|access| by_address(access, vars))
    }

    fn access_with(&self, vars: &dyn Vars, exists: &dyn Fn(&Path) -> bool) -> anyhow::Result<KubeAccess> {
        let ours = value(vars, vars::TAILPOD_KUBECONFIG.name).map(PathBuf::from);
        if let Some(path) = self.kubeconfig.clone().or(ours) {
            let context = self.context.clone().or_else(|| {
                // The variable goes with the other variable, not with another file.
                value(vars, vars::TAILPOD_CONTEXT.name).filter(|_| self.kubeconfig.is_none())
            });
            return Ok(KubeAccess::Kubeconfig { path, context });
        }
        let pod = in_cluster(vars);
        // A Pod is one only with its token, as to kubectl (`inClusterClientConfig.Possible` in client-go's
        // `tools/clientcmd/client_config.go`): a workspace in a cluster often has none, and a kubeconfig for its tools.
        // A context is in a kubeconfig: who names one does not mean the service account.
        let is_pod = self.context.is_none()
            && matches!(&pod, KubeAccess::InCluster { service_account, .. } if exists(&service_account.join("token")));
        if is_pod && value(vars, vars::KUBERNETES_SERVICE_HOST.name).is_some() {
            return Ok(pod);
        }
        let listed = value(vars, "KUBECONFIG").map(PathBuf::from);
        let home = value(vars, "HOME").map(|home| Path::new(&home).join(".kube/config"));
        if let Some(path) = listed.or_else(|| home.filter(|path| exists(path))) {
            return Ok(KubeAccess::Kubeconfig { path, context: self.context.clone() });
        }
        if is_pod {
            // A Pod after all, whose environment somebody has emptied.
            return Ok(pod);
        }
        let error = anyhow!("no way leads to a cluster: there is no service account and no kubeconfig");
        let hint = "in a Pod, `automountServiceAccountToken: true`; elsewhere `--kubeconfig FILE` or KUBECONFIG";
        Err(error.hint(hint).exit_with(ExitStatus::Usage))
    }

    async fn connect_for(
        &self,
        secret: Option<&SecretRef>,
        vars: &dyn Vars,
        component: &'static str,
    ) -> anyhow::Result<Cluster> {
        let namespace = self.namespace_for(secret)?;
        let access = self.access(vars)?;
        let cluster = Cluster::connect(&access, component).await.map_err(advised).context("cannot use the cluster")?;
        Ok(match namespace {
            Some(namespace) => cluster.in_namespace(namespace),
            None => cluster,
        })
    }

    fn namespace_for<'a>(&'a self, secret: Option<&'a SecretRef>) -> anyhow::Result<Option<&'a str>> {
        let (flag, part) = (self.namespace.as_deref(), secret.and_then(|secret| secret.namespace.as_deref()));
        match (flag, part) {
            (Some(flag), Some(part)) if flag != part => {
                let error = anyhow!("two namespaces: `{flag}` from `--namespace`, `{part}` from the Secret's name");
                Err(error.exit_with(ExitStatus::Usage))
            }
            (flag, part) => Ok(part.or(flag)),
        }
    }
}

// === impl SecretRef ===

impl FromStr for SecretRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            None => Ok(Self { namespace: None, name: object_name(text)? }),
            Some((in_namespace, name)) => {
                Ok(Self { namespace: Some(namespace(in_namespace)?), name: object_name(name)? })
            }
        }
    }
}

// === impl Target ===

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret `{}/{}`", self.cluster.namespace(), self.name)
    }
}

/// An error of the cluster with what to do about it: the rule that the Role lacks, to paste; the plugin to install.
pub fn advised(error: Error) -> anyhow::Error {
    let rule = error.missing_rule().map(|rule| format!("the Role lacks:\n{rule}"));
    let hint = rule.or_else(|| error.credential_hint().map(str::to_owned));
    let error = anyhow::Error::new(error);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

fn value(vars: &dyn Vars, name: &str) -> Option<String> {
    vars.get(name).ok().flatten().filter(|text| !text.is_empty())
}

/// A DNS label, as the API server wants it.
pub fn namespace(text: &str) -> Result<String, String> {
    if text.len() > 63 || text.contains('.') {
        return Err("a namespace has at most 63 characters and no dot".to_owned());
    }
    object_name(text)
}

/// A DNS name, as the API server wants it: what it would refuse never becomes a part of a path.
pub fn object_name(text: &str) -> Result<String, String> {
    let edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let inner = |byte: u8| edge(byte) || byte == b'-' || byte == b'.';
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (None, _) | (_, None) => Err("a name is missing".to_owned()),
        (Some(&first), Some(&last)) if edge(first) && edge(last) && bytes.iter().copied().all(inner) => {
            if bytes.len() > 253 { Err("a name has at most 253 characters".to_owned()) } else { Ok(text.to_owned()) }
        }
        _ => {
            Err("a name has lower-case letters, digits, `-` and `.`, and begins and ends with none of the latter"
                .into())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    type Env<'a> = BTreeMap<&'a str, &'a str>;

    fn way(args: &ClusterArgs, env: &[(&str, &str)], files: &[&str]) -> String {
        let vars: Env<'_> = env.iter().copied().collect();
        shown(args.access_with(&vars, &|path| files.iter().any(|file| Path::new(file) == path)))
    }

    fn shown(way: anyhow::Result<KubeAccess>) -> String {
        match way {
            Ok(KubeAccess::InCluster { url, .. }) => url,
            Ok(KubeAccess::Kubeconfig { path, context }) => {
                format!("{} {}", path.display(), context.as_deref().unwrap_or("-"))
            }
            Err(error) => error.to_string(),
        }
    }

    const TOKEN: &str = "/r/var/run/secrets/kubernetes.io/serviceaccount/token";

    #[test]
    fn flags_then_our_variable_then_the_pod_then_kubectls_rules() {
        let flags = |kubeconfig: Option<&str>, context: Option<&str>| ClusterArgs {
            kubeconfig: kubeconfig.map(PathBuf::from),
            context: context.map(str::to_owned),
            ..ClusterArgs::default()
        };
        let pod = [
            ("TS_TEST_ONLY_ROOT", "/r"),
            ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
            ("KUBERNETES_SERVICE_PORT_HTTPS", "6443"),
            ("KUBECONFIG", "/k1:/k2"),
            ("HOME", "/h"),
        ];
        let ours = [&pod[..], &[("TAILPOD_KUBECONFIG", "/ours"), ("TAILPOD_CONTEXT", "c")]].concat();
        let home = [("HOME", "/h")];
        let bare = [("TS_TEST_ONLY_ROOT", "/r")];
        for (args, env, files, expected) in [
            (flags(None, None), &pod[..], &[TOKEN][..], "https://10.0.0.1:6443"),
            (flags(Some("/f"), None), &ours, &[TOKEN], "/f -"),
            (flags(Some("/f"), Some("x")), &ours, &[TOKEN], "/f x"),
            (flags(None, None), &ours, &[TOKEN], "/ours c"),
            (flags(None, Some("x")), &ours, &[TOKEN], "/ours x"),
            (flags(None, Some("x")), &pod, &[TOKEN], "/k1:/k2 x"),
            (flags(None, None), &pod, &[], "/k1:/k2 -"),
            (flags(None, None), &home, &["/h/.kube/config"], "/h/.kube/config -"),
            (flags(None, None), &bare, &[TOKEN], "https://kubernetes.default.svc"),
            (
                flags(None, None),
                &pod[..1],
                &[],
                "no way leads to a cluster: there is no service account and no kubeconfig",
            ),
            (
                flags(None, Some("x")),
                &bare,
                &[TOKEN],
                "no way leads to a cluster: there is no service account and no kubeconfig",
            ),
            (flags(None, None), &home, &[], "no way leads to a cluster: there is no service account and no kubeconfig"),
        ] {
            assert_eq!(way(&args, env, files), expected, "{args:?}");
        }
    }

    #[test]
    fn who_serves_a_cluster_takes_no_other_for_it() {
        let pod = [
            ("TS_TEST_ONLY_ROOT", "/r"),
            ("KUBERNETES_SERVICE_HOST", "fd00::1"),
            ("KUBERNETES_SERVICE_PORT", "6443"),
            ("KUBECONFIG", "/k"),
        ];
        let named = [&pod[..], &[("TAILPOD_KUBECONFIG", "/ours")]].concat();
        let without = format!("this is a Pod without a service account: there is no {TOKEN}");
        let plain = ClusterArgs::default();
        let flag = ClusterArgs { kubeconfig: Some("/f".into()), ..ClusterArgs::default() };
        let context = ClusterArgs { context: Some("x".to_owned()), ..ClusterArgs::default() };
        for (args, env, files, expected) in [
            (&plain, &pod[..], &[TOKEN][..], "https://[fd00::1]:6443"),
            (&plain, &pod, &[], &without),
            (&plain, &named, &[], "/ours -"),
            (&flag, &pod, &[], "/f -"),
            (&context, &pod, &[], "/k x"),
            // Half of what a Pod has is no Pod.
            (&plain, &pod[..2], &[], "no way leads to a cluster: there is no service account and no kubeconfig"),
            (&plain, &pod[3..], &[], "/k -"),
        ] {
            let vars: Env<'_> = env.iter().copied().collect();
            let way = args.access_by_address_with(&vars, &|path| files.iter().any(|file| Path::new(file) == path));
            assert_eq!(shown(way), expected, "{args:?} {env:?}");
        }
    }

    #[test]
    fn the_secret_is_the_one_asked_for_or_named_by_the_environment() {
        let asked = |secret: Option<&str>, env: &[(&str, &str)]| {
            let vars: Env<'_> = env.iter().copied().collect();
            let secret = secret.map(|text| text.parse().unwrap());
            let found = ClusterArgs { secret, ..ClusterArgs::default() }.secret_ref(&vars);
            found.map(|secret| secret.name).map_err(|error| error.to_string())
        };
        let both = [("TS_KUBE_SECRET", "state"), ("POD_NAME", "pod-0")];
        assert_eq!(asked(Some("ns/mine"), &both).as_deref(), Ok("mine"));
        assert_eq!(asked(None, &both).as_deref(), Ok("state"));
        assert_eq!(asked(None, &[("TS_KUBE_SECRET", ""), ("POD_NAME", "pod-0")]).as_deref(), Ok("pod-0"));
        assert!(asked(None, &[("POD_NAME", "")]).unwrap_err().starts_with("nothing names the state Secret"));
        assert!(asked(None, &[("TS_KUBE_SECRET", "a/b")]).unwrap_err().starts_with("TS_KUBE_SECRET=\"a/b\""));
    }

    #[test]
    fn names_are_what_the_api_server_accepts() {
        let parsed = |text: &str| text.parse::<SecretRef>().map(|secret| (secret.namespace, secret.name));
        assert_eq!(parsed("ts-0.a"), Ok((None, "ts-0.a".to_owned())));
        assert_eq!(parsed("tailscale/ts-0"), Ok((Some("tailscale".to_owned()), "ts-0".to_owned())));
        for bad in ["", "/", "a/", "/b", "a/b/c", "A", "a_b", "-a", "a.", "a b", "a.b/c", "tskey-auth-kX-y\n"] {
            assert!(parsed(bad).is_err(), "{bad:?}");
        }
        assert!(parsed(&"a".repeat(254)).is_err() && parsed(&"a".repeat(253)).is_ok());
    }

    #[test]
    fn two_namespaces_are_refused_unless_they_are_the_same() {
        let args = ClusterArgs { namespace: Some("a".to_owned()), ..ClusterArgs::default() };
        let secret = |text: &str| text.parse::<SecretRef>().unwrap();
        assert_eq!(args.namespace_for(Some(&secret("s"))).unwrap(), Some("a"));
        assert_eq!(args.namespace_for(Some(&secret("a/s"))).unwrap(), Some("a"));
        assert!(args.namespace_for(Some(&secret("b/s"))).is_err());
        let plain = ClusterArgs::default();
        assert_eq!(plain.namespace_for(Some(&secret("b/s"))).unwrap(), Some("b"));
        assert_eq!(plain.namespace_for(None).unwrap(), None);
    }
}
