//! The state Secret's keys: what they are called, what they mean, and the patches that change them. Pure.
//!
//! Boot, the proxy and the toolbox share this one place, so a key is written the same way by all of them. Names and
//! forms follow upstream's `kube/kubetypes/types.go`, `cmd/containerboot/kube.go` and `ipn/store.go`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use crate::secret::Secret;

/// The auth key, as an operator or a person puts it there.
pub const AUTHKEY: &str = "authkey";
/// Decimal capability version of the node.
pub const CAPVER: &str = "tailscale_capver";
/// UID of the Pod that wrote the other keys.
pub const POD_UID: &str = "pod_uid";
/// Certificate domain, or [`NO_HTTPS`].
pub const HTTPS_ENDPOINT: &str = "https_endpoint";
/// Value of [`HTTPS_ENDPOINT`] when the tailnet has no HTTPS.
pub const NO_HTTPS: &str = "no-https";
/// JSON status of the egress proxy.
pub const EGRESS_SERVICES: &str = "egress-services";
/// JSON status of the ingress proxy.
pub const INGRESS_CONFIG: &str = "ingress-config.json";
/// Stable node id.
pub const DEVICE_ID: &str = "device_id";
/// MagicDNS name with trailing dot.
pub const DEVICE_FQDN: &str = "device_fqdn";
/// JSON array of address texts.
pub const DEVICE_IPS: &str = "device_ips";
/// The auth key that failed: the request for a new one.
pub const REISSUE_AUTHKEY: &str = "reissue_authkey";
/// tailscaled's machine key.
pub const MACHINE_KEY: &str = "_machinekey";
/// Name of the key that holds the current profile.
pub const CURRENT_PROFILE: &str = "_current-profile";
/// tailscaled's list of profiles.
pub const KNOWN_PROFILES: &str = "_profiles";
/// What the keys of profiles start with.
pub const PROFILE_PREFIX: &str = "profile-";

/// The field manager of everything that boot writes (contract with the operator).
pub const FIELD_MANAGER: &str = "tailscale-container";

/// The state Secret as it was read at one moment. `Debug` shows keys and sizes, never values.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StateSecret {
    /// Its name.
    pub name: Option<String>,
    /// Decoded values.
    pub data: BTreeMap<String, Vec<u8>>,
    /// The version to name as a precondition.
    pub resource_version: Option<String>,
    /// UID of the Secret itself.
    pub uid: Option<String>,
    /// RFC 3339 time of creation.
    pub created: Option<String>,
    /// `type`
    pub kind: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Whether it is being deleted.
    pub is_stopping: bool,
    /// Objects that own the Secret.
    pub owners: Vec<Owner>,
    /// Who wrote which key.
    pub writers: Vec<Writer>,
}

/// An object that owns the Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// One entry of `metadata.managedFields`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    /// The field manager.
    pub manager: String,
    /// `Apply` or `Update`.
    pub operation: String,
    /// RFC 3339 time of its last write.
    pub time: Option<String>,
    /// The data keys it owns; `*` alone when it owns `data` as a whole.
    pub keys: Vec<String>,
}

/// A merge patch of the Secret's data: only the keys that change. `Debug` shows no values.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyPatch {
    changes: BTreeMap<String, Option<Vec<u8>>>,
    resource_version: Option<String>,
    manager: Cow<'static, str>,
    form: Form,
}

/// In which words a patch goes out; the effect is the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Form {
    /// A strategic merge patch.
    #[default]
    Merge,
    /// A JSON patch that adds each key, whether it is there or not: what upstream's side proxies mean by `replace`.
    Add,
}

// === impl StateSecret ===

impl StateSecret {
    /// The value of `key` as text; `None` when absent or not UTF-8.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.data.get(key).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The auth key stored under `key`, verbatim; `None` when absent, empty or not text.
    pub fn auth_key(&self, key: &str) -> Option<Secret<String>> {
        self.text(key).filter(|text| !text.is_empty()).map(|text| Secret::new(text.to_owned()))
    }

    /// The key that failed, when a new one has been asked for. An empty text means that there was none.
    pub fn reissue_marker(&self) -> Option<Secret<String>> {
        let value = self.data.get(REISSUE_AUTHKEY)?;
        Some(Secret::new(String::from_utf8_lossy(value).into_owned()))
    }

    /// Whether a new key has already been asked for in place of `failed`.
    pub fn is_requested(&self, failed: &Secret<String>) -> bool {
        self.reissue_marker().as_ref() == Some(failed)
    }

    /// The data key that `_current-profile` names; whether it exists is another question.
    pub fn current_profile(&self) -> Option<&str> {
        self.text(CURRENT_PROFILE).filter(|name| is_data_key(name))
    }

    /// The data keys that are profiles by name.
    pub fn profiles(&self) -> impl Iterator<Item = &str> {
        self.data.keys().map(String::as_str).filter(|key| key.starts_with(PROFILE_PREFIX))
    }

    /// Whether tailscaled could come up from this Secret without an auth key: machine key and current profile are
    /// there. Whether control still accepts them is another question.
    pub fn has_identity(&self) -> bool {
        let filled = |key: &str| self.data.get(key).is_some_and(|value| !value.is_empty());
        filled(MACHINE_KEY) && self.current_profile().is_some_and(filled)
    }
}

impl fmt::Debug for StateSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes: BTreeMap<_, _> = self.data.iter().map(|(key, value)| (key, value.len())).collect();
        f.debug_struct("StateSecret")
            .field("bytes", &sizes)
            .field("resource_version", &self.resource_version)
            .field("uid", &self.uid)
            .finish_non_exhaustive()
    }
}

/// Whether the API server accepts `name` as a key of a Secret's data.
pub fn is_data_key(name: &str) -> bool {
    (1..=253).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

/// Whether tailscaled has finished writing its identity: all of it is there, or none.
///
/// Upstream wants exactly one `profile-*` key; the key that `_current-profile` names counts as well, so that nodes
/// with two profiles, or with one of another name, do not wait in vain at every stop.
pub fn is_consistent(secret: &StateSecret) -> bool {
    let base = [CURRENT_PROFILE, KNOWN_PROFILES, MACHINE_KEY].map(|key| secret.data.contains_key(key));
    let named = secret.current_profile().is_some_and(|name| secret.data.contains_key(name));
    let profiles = secret.profiles().count();
    let all = base == [true; 3] && (named || profiles == 1);
    let none = base == [false; 3] && profiles == 0;
    all || none
}

/// The keys that go once a new auth key is there, so that the next start registers a new node: the marker, the
/// device keys and tailscaled's identity with the current profile's key.
pub fn identity_keys_to_clear(secret: &StateSecret) -> Vec<String> {
    let mut keys: Vec<String> =
        [REISSUE_AUTHKEY, DEVICE_ID, DEVICE_FQDN, DEVICE_IPS, MACHINE_KEY, CURRENT_PROFILE, KNOWN_PROFILES]
            .map(str::to_owned)
            .to_vec();
    keys.extend(secret.current_profile().map(str::to_owned).filter(|name| !keys.contains(name)));
    keys
}

/// What a start writes before tailscaled runs: the capability version and the Pod's UID go in, what a previous run
/// published about routing goes out, and a request for a new key goes out once the config has another key.
pub fn reset_patch(
    capver: u32,
    pod_uid: Option<&str>,
    secret: &StateSecret,
    config_key: Option<&Secret<String>>,
) -> KeyPatch {
    let mut patch = KeyPatch::new().set(CAPVER, capver.to_string());
    for key in [HTTPS_ENDPOINT, EGRESS_SERVICES, INGRESS_CONFIG] {
        patch = patch.delete(key);
    }
    if let Some(uid) = pod_uid.filter(|uid| !uid.is_empty()) {
        patch = patch.set(POD_UID, uid);
    }
    without_answered_request(patch, secret, config_key)
}

/// The patch, which also removes a request for a new key that the config has answered. The same key, or none, means
/// that the operator has not acted yet.
pub fn without_answered_request(
    patch: KeyPatch,
    secret: &StateSecret,
    config_key: Option<&Secret<String>>,
) -> KeyPatch {
    let answered = config_key.is_some_and(|key| !key.expose().is_empty() && !secret.is_requested(key));
    if answered && secret.data.contains_key(REISSUE_AUTHKEY) { patch.delete(REISSUE_AUTHKEY) } else { patch }
}

/// Publishes who the node is. Goes out before any routing, so that the operator can clean up after a node whose
/// routing never works.
pub fn device_id_patch(stable_id: &str) -> KeyPatch {
    KeyPatch::new().set(DEVICE_ID, stable_id)
}

/// Publishes where the node is. Goes out after routing works, so that nobody is sent to a broken proxy. Addresses
/// keep their order; none at all is `null`, as Go's nil slice is.
pub fn device_endpoints_patch(fqdn: &str, ips: &[IpAddr]) -> KeyPatch {
    let ips = if ips.is_empty() {
        "null".to_owned()
    } else {
        let quoted: Vec<_> = ips.iter().map(|ip| format!("\"{ip}\"")).collect();
        format!("[{}]", quoted.join(","))
    };
    KeyPatch::new().set(DEVICE_FQDN, fqdn).set(DEVICE_IPS, ips)
}

/// Reports what a replica of an HA group serves, under [`EGRESS_SERVICES`] or [`INGRESS_CONFIG`].
pub fn group_status_patch(key: &str, status: &str) -> KeyPatch {
    KeyPatch { form: Form::Add, ..KeyPatch::new() }.set(key, status)
}

/// Asks for a new auth key in place of `failed`, which may be empty.
pub fn reissue_patch(failed: &Secret<String>) -> KeyPatch {
    KeyPatch::new().set(REISSUE_AUTHKEY, failed.expose().as_bytes())
}

// === impl KeyPatch ===

impl KeyPatch {
    /// A patch without changes, written by [`FIELD_MANAGER`].
    pub fn new() -> Self {
        Self {
            changes: BTreeMap::new(),
            resource_version: None,
            manager: Cow::Borrowed(FIELD_MANAGER),
            form: Form::Merge,
        }
    }

    /// Sets `key`; an empty value is stored as such.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        self.changes.insert(key.to_owned(), Some(value.as_ref().to_vec()));
        self
    }

    /// Deletes `key`; one that is absent stays absent.
    #[must_use]
    pub fn delete(mut self, key: &str) -> Self {
        self.changes.insert(key.to_owned(), None);
        self
    }

    /// Applies only if the Secret still has this version; `None` is unconditional.
    #[must_use]
    pub fn only_if(mut self, resource_version: Option<String>) -> Self {
        self.resource_version = resource_version;
        self
    }

    /// Writes as another field manager.
    #[must_use]
    pub fn managed_by(mut self, manager: impl Into<Cow<'static, str>>) -> Self {
        self.manager = manager.into();
        self
    }

    /// The changes in key order; `None` deletes.
    pub fn changes(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.changes.iter().map(|(key, value)| (key.as_str(), value.as_deref()))
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The version that the Secret must still have.
    pub fn resource_version(&self) -> Option<&str> {
        self.resource_version.as_deref()
    }

    /// In which words it goes out.
    pub(super) fn form(&self) -> Form {
        self.form
    }

    /// Who writes.
    pub fn manager(&self) -> &str {
        &self.manager
    }
}

impl Default for KeyPatch {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for KeyPatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let changes: BTreeMap<_, _> =
            self.changes.iter().map(|(key, value)| (key, value.as_ref().map(Vec::len))).collect();
        f.debug_struct("KeyPatch")
            .field("bytes", &changes)
            .field("resource_version", &self.resource_version)
            .field("manager", &self.manager)
            .field("form", &self.form)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(pairs: &[(&str, &str)]) -> StateSecret {
        let data = pairs.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect();
        StateSecret { data, ..StateSecret::default() }
    }

    /// `key=value`, `key-` for a deletion.
    fn shown(patch: &KeyPatch) -> Vec<String> {
        patch
            .changes()
            .map(|(key, value)| match value {
                Some(value) => format!("{key}={}", String::from_utf8_lossy(value)),
                None => format!("{key}-"),
            })
            .collect()
    }

    #[test]
    fn the_reset_touches_exactly_the_keys_of_the_contract() {
        let old = secret(&[("reissue_authkey", "old"), ("device_id", "x"), ("foo", "bar"), ("https_endpoint", "y")]);
        let key = |text: &str| Secret::new(text.to_owned());
        let gone = ["egress-services-", "https_endpoint-", "ingress-config.json-"];
        let table = [
            (
                Some("uid"),
                Some(key("new")),
                [&gone[..], &["pod_uid=uid", "reissue_authkey-", "tailscale_capver=148"]].concat(),
            ),
            (Some("uid"), Some(key("old")), [&gone[..], &["pod_uid=uid", "tailscale_capver=148"]].concat()),
            (Some("uid"), None, [&gone[..], &["pod_uid=uid", "tailscale_capver=148"]].concat()),
            (None, Some(key("")), [&gone[..], &["tailscale_capver=148"]].concat()),
            (Some(""), Some(key("new")), [&gone[..], &["reissue_authkey-", "tailscale_capver=148"]].concat()),
        ];
        for (uid, config_key, wanted) in table {
            assert_eq!(shown(&reset_patch(148, uid, &old, config_key.as_ref())), wanted);
        }
        let clean = reset_patch(148, None, &secret(&[]), Some(&key("new")));
        assert!(!shown(&clean).contains(&"reissue_authkey-".to_owned()), "no marker, nothing to clear");
    }

    #[test]
    fn device_keys_have_upstreams_form() {
        let ips: Vec<IpAddr> = ["100.64.0.1", "fd7a:115c:a1e0::1"].iter().map(|ip| ip.parse().unwrap()).collect();
        assert_eq!(shown(&device_id_patch("myID")), ["device_id=myID"]);
        assert_eq!(
            shown(&device_endpoints_patch("test-node.test.ts.net.", &ips)),
            ["device_fqdn=test-node.test.ts.net.", "device_ips=[\"100.64.0.1\",\"fd7a:115c:a1e0::1\"]"]
        );
        assert_eq!(shown(&device_endpoints_patch("n.", &[])), ["device_fqdn=n.", "device_ips=null"]);
    }

    #[test]
    fn clearing_takes_the_current_profile_along() {
        let fixed = "reissue_authkey device_id device_fqdn device_ips _machinekey _current-profile _profiles";
        let fixed: Vec<_> = fixed.split(' ').collect();
        let with = |value: &str| identity_keys_to_clear(&secret(&[("_current-profile", value), ("foo", "bar")]));
        assert_eq!(with("profile-abc1"), [&fixed[..], &["profile-abc1"]].concat());
        for odd in ["", "../etc", "a key", "_machinekey"] {
            assert_eq!(with(odd), fixed, "{odd:?}");
        }
        assert_eq!(identity_keys_to_clear(&secret(&[])), fixed);
    }

    #[test]
    fn consistent_is_all_or_nothing() {
        let base = [("_current-profile", "profile-a"), ("_profiles", "{}"), ("_machinekey", "k")];
        let with = |more: &[(&str, &str)]| is_consistent(&secret(&[&base[..], more].concat()));
        assert!(is_consistent(&secret(&[])));
        assert!(is_consistent(&secret(&[("authkey", "k"), ("device_id", "x")])));
        assert!(with(&[("profile-a", "p")]));
        assert!(with(&[("profile-b", "p")]), "exactly one profile, whatever its name");
        assert!(with(&[("profile-a", "p"), ("profile-b", "p")]), "the current one of two (W27)");
        assert!(!with(&[]), "the profile is missing");
        assert!(!with(&[("profile-b", "p"), ("profile-c", "p")]), "two, neither of them current");
        assert!(!is_consistent(&secret(&[("profile-a", "p")])));
        assert!(!is_consistent(&secret(&[("_machinekey", "k"), ("_profiles", "{}"), ("profile-x", "p")])));
        let upstream = secret(&[("_current-profile", "foo"), ("_profiles", "{}"), ("_machinekey", "k"), ("foo", "p")]);
        assert!(is_consistent(&upstream), "the named key need not start with profile-");
    }

    #[test]
    fn an_identity_needs_machine_key_and_a_current_profile_that_exists() {
        let whole = [("_machinekey", "k"), ("_current-profile", "profile-a"), ("profile-a", "p")];
        assert!(secret(&whole).has_identity());
        for missing in 0..whole.len() {
            let rest: Vec<_> =
                whole.iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, pair)| *pair).collect();
            assert!(!secret(&rest).has_identity(), "without {}", whole[missing].0);
        }
    }

    #[test]
    fn markers_and_keys_are_read_as_they_are() {
        let empty = secret(&[("reissue_authkey", ""), ("authkey", "")]);
        assert!(empty.is_requested(&Secret::new(String::new())));
        assert!(empty.auth_key(AUTHKEY).is_none());
        assert!(!secret(&[]).is_requested(&Secret::new(String::new())));
        let mut binary = secret(&[]);
        binary.data.insert("authkey".to_owned(), vec![0xff, 0xfe]);
        assert!(binary.auth_key(AUTHKEY).is_none());
    }

    #[test]
    fn debug_shows_no_values() {
        let secret = secret(&[("authkey", "tskey-auth-x-hush")]);
        let patch = reissue_patch(&Secret::new("tskey-auth-x-hush".to_owned()));
        assert!(!format!("{secret:?}{patch:?}").contains("hush"));
    }
}
