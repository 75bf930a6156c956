//! tailscaled's login profiles, as its state store holds them. Pure.
//!
//! `_profiles` is a map from profile id to upstream's `ipn.LoginProfile`; the key that such a profile names holds its
//! `ipn.Prefs`, with the node's keys in `Config` (upstream's `types/persist.Persist`). Of the latter only what is no
//! secret is taken over.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::k8s::state::{self, StateSecret};

/// One login profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// The data key that holds it.
    pub key: String,
    /// Its id.
    pub id: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Who logged in.
    pub login: Option<String>,
    /// The control server.
    pub control_url: Option<String>,
    /// The node's stable id.
    pub node_id: Option<String>,
    /// The tailnet's name.
    pub tailnet: Option<String>,
    /// RFC 3339 time of its making.
    pub created: Option<String>,
    /// RFC 3339, or `never`; only the daemon knows it.
    pub key_expiry: Option<String>,
    /// Whether `_current-profile` names it.
    pub current: bool,
    /// Whether `_profiles` lists it.
    pub listed: bool,
    /// Whether the data key is there.
    pub stored: bool,
    /// Whether it holds a key that only one machine's TPM can use.
    pub attestation_key: bool,
}

/// The profiles, and the keys whose values are not what tailscaled writes.
pub(super) fn profiles(secret: &StateSecret) -> (Vec<Profile>, Vec<String>) {
    let mut unreadable = Vec::new();
    let mut profiles: BTreeMap<String, Profile> = BTreeMap::new();
    match secret.data.get(state::KNOWN_PROFILES).map(|value| object(value)) {
        None => {}
        Some(None) => unreadable.push(state::KNOWN_PROFILES.to_owned()),
        Some(Some(known)) => {
            for (id, document) in known {
                let profile = listed(&id, &document);
                profiles.insert(profile.key.clone(), profile);
            }
        }
    }
    let named = secret.current_profile().filter(|name| secret.data.contains_key(*name));
    for key in secret.profiles().chain(named).collect::<BTreeSet<_>>() {
        let profile =
            profiles.entry(key.to_owned()).or_insert_with(|| Profile { key: key.to_owned(), ..Profile::default() });
        profile.stored = true;
        match secret.data.get(key).and_then(|value| object(value)).filter(|prefs| !prefs.is_empty()) {
            Some(prefs) => profile.complete_from(&prefs),
            None => unreadable.push(key.to_owned()),
        }
    }
    for profile in profiles.values_mut() {
        profile.current = secret.current_profile() == Some(profile.key.as_str());
    }
    (profiles.into_values().collect(), unreadable)
}

/// The stored profile `prefs` without its attestation keys; `None` when there is none in it.
pub(super) fn without_attestation_key(prefs: &[u8]) -> Option<Vec<u8>> {
    let mut prefs = object(prefs)?;
    let mut found = false;
    for part in PERSISTED {
        if let Some(config) = prefs.get_mut(part).and_then(Value::as_object_mut) {
            found |= config.remove(ATTESTATION_KEY).is_some_and(|key| is_set(&key));
        }
    }
    found.then(|| Value::Object(prefs).to_string().into_bytes())
}

/// Where Prefs keep the node's keys; the second name is that of daemons before 1.50.
const PERSISTED: [&str; 2] = ["Config", "Persist"];
const ATTESTATION_KEY: &str = "AttestationKey";

impl Profile {
    fn complete_from(&mut self, prefs: &Map<String, Value>) {
        self.control_url = self.control_url.take().or_else(|| text(prefs.get("ControlURL")));
        for config in PERSISTED.iter().filter_map(|part| prefs.get(*part)) {
            let profile = config.get("UserProfile");
            self.login = self
                .login
                .take()
                .or_else(|| text(profile.and_then(|p| p.get("LoginName"))))
                .or_else(|| text(config.get("LoginName")));
            self.node_id = self.node_id.take().or_else(|| text(config.get("NodeID")));
            self.attestation_key |= config.get(ATTESTATION_KEY).is_some_and(is_set);
        }
    }
}

fn listed(id: &str, document: &Value) -> Profile {
    let network = document.get("NetworkProfile");
    let tailnet = |member: &str| text(network.and_then(|network| network.get(member)));
    Profile {
        key: text(document.get("Key")).unwrap_or_else(|| format!("{}{id}", state::PROFILE_PREFIX)),
        id: Some(id.to_owned()),
        name: text(document.get("Name")),
        login: text(document.get("UserProfile").and_then(|profile| profile.get("LoginName"))),
        control_url: text(document.get("ControlURL")),
        node_id: text(document.get("NodeID")),
        tailnet: tailnet("DisplayName").or_else(|| tailnet("MagicDNSName")).or_else(|| tailnet("DomainName")),
        created: text(document.get("Created")),
        listed: true,
        ..Profile::default()
    }
}

/// An object, or `null` for none.
fn object(value: &[u8]) -> Option<Map<String, Value>> {
    match serde_json::from_slice(value) {
        Ok(Value::Object(object)) => Some(object),
        Ok(Value::Null) => Some(Map::new()),
        _ => None,
    }
}

fn text(value: Option<&Value>) -> Option<String> {
    value.and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
}

fn is_set(key: &Value) -> bool {
    match key {
        Value::Null => false,
        Value::Object(members) => !members.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{PREFS, PROFILES, secret};
    use super::*;

    #[test]
    fn a_real_daemons_profile_is_understood() {
        let secret = secret(&[("_current-profile", "profile-d0e7"), ("_profiles", PROFILES), ("profile-d0e7", PREFS)]);
        let (profiles, unreadable) = profiles(&secret);
        assert!(unreadable.is_empty());
        assert_eq!(
            profiles,
            [Profile {
                key: "profile-d0e7".to_owned(),
                id: Some("d0e7".to_owned()),
                name: Some("user-1@example.net".to_owned()),
                login: Some("user-1@example.net".to_owned()),
                control_url: Some("https://control.example.net".to_owned()),
                node_id: Some("nTEST1".to_owned()),
                tailnet: Some("lab.ts.net".to_owned()),
                created: Some("2026-11-21T10:12:30.287678733Z".to_owned()),
                key_expiry: None,
                current: true,
                listed: true,
                stored: true,
                attestation_key: false,
            }]
        );
    }

    #[test]
    fn what_the_list_does_not_say_comes_from_the_profile_itself() {
        let secret = secret(&[("profile-d0e7", PREFS)]);
        let (profiles, _) = profiles(&secret);
        let [profile] = &profiles[..] else { panic!("{profiles:?}") };
        assert_eq!(profile.login.as_deref(), Some("user-1@example.net"));
        assert_eq!(profile.node_id.as_deref(), Some("nTEST1"));
        assert!(profile.stored && !profile.listed && !profile.current);
        assert!(!format!("{profile:?}").contains("privkey"));
    }

    #[test]
    fn values_that_tailscaled_never_wrote_are_named() {
        for (data, unreadable) in [
            (&[("_profiles", "{"), ("profile-a", "{\"ControlURL\":\"x\"}")][..], &["_profiles"][..]),
            (&[("_profiles", "null"), ("profile-a", "")], &["profile-a"]),
            (
                &[("_profiles", "[]"), ("profile-a", "[]"), ("profile-b", "{}")],
                &["_profiles", "profile-a", "profile-b"],
            ),
            (&[("_current-profile", "foo"), ("foo", "x")], &["foo"]),
            (&[("_profiles", "{}")], &[]),
        ] {
            assert_eq!(profiles(&secret(data)).1, unreadable, "{data:?}");
        }
    }

    #[test]
    fn an_attestation_key_is_seen_and_taken_out() {
        let with = PREFS.replace("\"Config\": {", "\"Config\": {\"AttestationKey\": {\"tpmPrivate\": \"x\"},");
        let (profiles, _) = profiles(&secret(&[("profile-d0e7", &with)]));
        assert!(profiles[0].attestation_key);
        let without = without_attestation_key(with.as_bytes()).expect("a change");
        let (before, after): (Value, Value) =
            (serde_json::from_str(PREFS).unwrap(), serde_json::from_slice(&without).unwrap());
        assert_eq!(before, after, "nothing else changes");
        for unset in ["null", "\"\"", "{}"] {
            let unset = PREFS.replace("\"Config\": {", &format!("\"Config\": {{\"AttestationKey\": {unset},"));
            assert_eq!(without_attestation_key(unset.as_bytes()), None, "{unset}");
        }
        assert_eq!(without_attestation_key(b"no JSON"), None);
    }
}
