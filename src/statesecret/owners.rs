//! Who owns the data of a state Secret, read off `managedFields`. Pure.
//!
//! Field managers are names that clients choose. Those that belong to Tailscale and to people at a terminal are
//! expected; those of software that keeps objects equal to a source of its own are not: what tailscaled writes is
//! overwritten or removed by them sooner or later.

use crate::k8s::state::{self, StateSecret, Writer};

/// How the names of managers begin that write state Secrets by design, and of people's tools.
const EXPECTED: &[&str] = &[
    "tailscale",
    "tailscaled",
    "tailpod",
    "containerboot",
    "k8s-proxy",
    "operator",
    "k8s-operator",
    // Clients of upstream that name no manager: json patches of containerboot among them.
    "Go-http-client",
    "kubectl",
];

/// How the names of managers begin that keep objects equal to a source, and what people call these.
const SYNCERS: &[(&str, &str)] = &[
    ("external-secrets", "External Secrets"),
    ("externalsecrets.external-secrets.io", "External Secrets"),
    ("argocd", "Argo CD"),
    ("kustomize-controller", "Flux"),
    ("helm-controller", "Flux"),
    ("flux", "Flux"),
    ("Helm", "Helm"),
    ("helm", "Helm"),
    ("vault-secrets-operator", "the Vault Secrets Operator"),
    ("sealed-secrets", "Sealed Secrets"),
    ("secrets-store", "the Secrets Store CSI driver"),
    ("kubernetes-replicator", "the Kubernetes Replicator"),
    ("reflector", "Reflector"),
    ("HashiCorp", "Terraform"),
    ("Terraform", "Terraform"),
    ("terraform", "Terraform"),
    ("pulumi", "Pulumi"),
    ("fleet", "Fleet"),
    ("rancher", "Rancher"),
    ("carvel", "kapp"),
    ("kapp", "kapp"),
];

/// The one who wrote `key` last.
pub(super) fn last_writer<'s>(secret: &'s StateSecret, key: &str) -> Option<&'s Writer> {
    // Times are all UTC and of one form: the texts sort as the moments do.
    secret.writers.iter().filter(|writer| owns(writer, key)).max_by(|a, b| a.time.cmp(&b.time))
}

fn owns(writer: &Writer, key: &str) -> bool {
    writer.keys.iter().any(|owned| owned == key || owned == "*")
}

/// A manager that does not belong there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Foreign {
    /// Its name.
    pub(super) manager: String,
    /// What people call it, if it is a known one.
    pub(super) called: Option<&'static str>,
    /// The keys of tailscaled's and of boot's that it owns; `*` for all.
    pub(super) keys: Vec<String>,
    /// Whether these include the node's identity.
    pub(super) identity: bool,
}

/// The managers that own data they should not: of unknown ones only what is the node's own.
pub(super) fn foreign(secret: &StateSecret) -> Vec<Foreign> {
    let mut found: Vec<Foreign> = Vec::new();
    for writer in secret.writers.iter().filter(|writer| !writer.keys.is_empty()) {
        let begins = |with: &str| writer.manager.starts_with(with);
        let called = SYNCERS.iter().find(|(start, _)| begins(start)).map(|(_, called)| *called);
        if called.is_none() && EXPECTED.iter().any(|start| begins(start)) {
            continue;
        }
        let keeps = called.is_some() || writer.operation == "Apply";
        let keys = writer
            .keys
            .iter()
            .filter(|key| if keeps { is_states(key) || **key == state::AUTHKEY } else { is_identity(key) });
        let keys: Vec<String> = keys.cloned().collect();
        if keys.is_empty() {
            continue;
        }
        let identity = keys.iter().any(|key| is_identity(key));
        match found.iter_mut().find(|known| known.manager == writer.manager) {
            Some(known) => {
                known.keys.extend(keys);
                known.keys.sort();
                known.keys.dedup();
                known.identity |= identity;
            }
            None => found.push(Foreign { manager: writer.manager.clone(), called, keys, identity }),
        }
    }
    found
}

/// Whether the node is lost with this key.
fn is_identity(key: &str) -> bool {
    matches!(key, "*" | state::MACHINE_KEY | state::CURRENT_PROFILE | state::KNOWN_PROFILES)
        || key.starts_with(state::PROFILE_PREFIX)
}

fn is_states(key: &str) -> bool {
    is_identity(key)
        || matches!(
            key,
            state::DEVICE_ID
                | state::DEVICE_FQDN
                | state::DEVICE_IPS
                | state::POD_UID
                | state::CAPVER
                | state::REISSUE_AUTHKEY
                | state::HTTPS_ENDPOINT
                | state::EGRESS_SERVICES
                | state::INGRESS_CONFIG
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(manager: &str, operation: &str, time: &str, keys: &[&str]) -> Writer {
        Writer {
            manager: manager.to_owned(),
            operation: operation.to_owned(),
            time: Some(time.to_owned()),
            keys: keys.iter().map(|&key| key.to_owned()).collect(),
        }
    }

    fn owned_by(writers: &[Writer]) -> StateSecret {
        StateSecret { writers: writers.to_vec(), ..StateSecret::default() }
    }

    #[test]
    fn the_last_writer_of_a_key_is_the_latest_of_its_owners() {
        let secret = owned_by(&[
            writer("argocd-controller", "Apply", "2026-01-02T00:00:00Z", &["*"]),
            writer("tailscale-container", "Update", "2026-01-03T00:00:00Z", &["device_id"]),
            writer("kubectl-edit", "Update", "2026-01-01T00:00:00Z", &["authkey"]),
        ]);
        let last = |key: &str| last_writer(&secret, key).map(|writer| writer.manager.as_str());
        assert_eq!(last("device_id"), Some("tailscale-container"));
        assert_eq!(last("authkey"), Some("argocd-controller"));
        assert_eq!(last_writer(&owned_by(&[]), "x"), None);
    }

    #[test]
    fn only_those_who_put_things_back_are_foreign() {
        for (manager, operation, keys, expected) in [
            ("tailscale-container", "Update", &["_machinekey", "device_id"][..], None),
            ("tailpod-sandbox", "Update", &["_machinekey"], None),
            ("kubectl-create", "Update", &["_machinekey"], None),
            ("Go-http-client", "Update", &["authkey"], None),
            ("external-secrets", "Update", &["authkey"], Some((Some("External Secrets"), false))),
            ("externalsecrets.external-secrets.io/ts", "Apply", &["*"], Some((Some("External Secrets"), true))),
            ("argocd-controller", "Apply", &["_machinekey"], Some((Some("Argo CD"), true))),
            ("argocd-controller", "Apply", &["unrelated"], None),
            ("backup-tool", "Update", &["device_id"], None),
            ("backup-tool", "Update", &["profile-a"], Some((None, true))),
            ("my-gitops", "Apply", &["device_id"], Some((None, false))),
            ("labels-only", "Update", &[], None),
        ] {
            let found = foreign(&owned_by(&[writer(manager, operation, "t", keys)]));
            let found = found.first().map(|foreign| (foreign.called, foreign.identity));
            assert_eq!(found, expected, "{manager} {operation} {keys:?}");
        }
    }

    #[test]
    fn one_manager_is_reported_once() {
        let secret = owned_by(&[
            writer("argocd-controller", "Apply", "t", &["device_id"]),
            writer("argocd-controller", "Update", "t", &["_machinekey", "device_id"]),
        ]);
        let found = foreign(&secret);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].keys, ["_machinekey", "device_id"]);
        assert!(found[0].identity);
    }
}
