//! The way to the API server, as the environment names it. Pure.
//!
//! A file of its own because the Kubernetes client takes it as its input, and adapters share nothing but pure types.

use std::path::PathBuf;

/// How the API server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KubeAccess {
    /// The Pod's service account.
    InCluster {
        /// `<root>/var/run/secrets/kubernetes.io/serviceaccount`
        service_account: PathBuf,
        /// `https://kubernetes.default.svc`, or host and port from the environment (IPv6 bracketed).
        url: String,
    },
    /// `TAILPOD_KUBECONFIG`: from outside (boot.md E.5). Daemon state is in a directory and mirrored.
    Kubeconfig {
        /// The file; or several, separated as in `KUBECONFIG`: for each setting the first that has it wins.
        path: PathBuf,
        /// The context, else the current one.
        context: Option<String>,
    },
}
