//! From a finding to the patch that mends it. Pure.
//!
//! A patch names only keys of tailscaled's and boot's, and changes as little as possible: nothing is deleted that the
//! node could still come up with.

use serde::Serialize;

use super::code::Code;
use super::findings::{Finding, Problem};
use super::glimpse::Glimpse;
use super::profiles;
use crate::k8s::state::{self, KeyPatch, StateSecret};

/// What a repair would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// One for each finding that can be mended.
    pub repairs: Vec<Repair>,
    /// All of them as one patch, without a precondition.
    pub patch: KeyPatch,
}

/// The repair of one finding; the contract of `--json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Repair {
    /// What is mended.
    pub code: Code,
    /// What was wrong.
    pub sentence: String,
    /// What changes.
    pub changes: Vec<Change>,
}

/// One key of a patch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// The key.
    pub key: String,
    /// `set` or `delete`.
    pub action: Action,
    /// What may be shown of the new value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Glimpse>,
}

/// What happens to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It gets a value.
    Set,
    /// It goes.
    Delete,
}

/// The repair of those findings that can be mended. `choice` is the profile to make current where several could be.
pub fn plan(findings: &[Finding], secret: &StateSecret, choice: Option<&str>) -> Plan {
    let mut repairs = Vec::new();
    let mut patches = Vec::new();
    for finding in findings {
        let Some(patch) = changes(&finding.problem, secret, choice) else { continue };
        repairs.push(Repair {
            code: finding.code,
            sentence: finding.sentence.clone(),
            changes: patch.changes().map(|(key, value)| change(key, value)).collect(),
        });
        patches.push(patch);
    }
    // A key that one repair deletes is not worth another one's change.
    let all = || patches.iter().flat_map(KeyPatch::changes);
    let mut patch = KeyPatch::new();
    for (key, value) in all() {
        patch = value.map_or(patch.clone(), |value| patch.clone().set(key, value));
    }
    for (key, _) in all().filter(|(_, value)| value.is_none()) {
        patch = patch.delete(key);
    }
    Plan { repairs, patch }
}

fn change(key: &str, value: Option<&[u8]>) -> Change {
    let action = if value.is_some() { Action::Set } else { Action::Delete };
    Change { key: key.to_owned(), action, to: value.map(|value| Glimpse::of(key, value)) }
}

/// The patch that mends `problem`; `None` when no patch of the Secret does.
pub fn changes(problem: &Problem, secret: &StateSecret, choice: Option<&str>) -> Option<KeyPatch> {
    match problem {
        Problem::NoCurrentProfile { candidates } | Problem::ProfileGone { candidates, .. } => {
            let profile = match (choice, &candidates[..]) {
                (Some(choice), _) => candidates.iter().find(|key| *key == choice)?,
                (None, [only]) => only,
                (None, _) => return None,
            };
            Some(KeyPatch::new().set(state::CURRENT_PROFILE, profile))
        }
        Problem::MachineKeyAlone { in_use: false } => {
            delete([state::MACHINE_KEY, state::CURRENT_PROFILE, state::KNOWN_PROFILES].map(str::to_owned), secret)
        }
        Problem::SeveralProfiles { unlisted, .. } => delete(unlisted.clone(), secret),
        Problem::AttestationKey { profiles } => {
            let mut patch = KeyPatch::new();
            for key in profiles {
                patch = patch.set(key, profiles::without_attestation_key(secret.data.get(key)?)?);
            }
            Some(patch)
        }
        Problem::CapabilityAhead { daemon, .. } => Some(KeyPatch::new().set(state::CAPVER, daemon.to_string())),
        Problem::MarkerLeft { .. } => delete([state::REISSUE_AUTHKEY.to_owned()], secret),
        Problem::MachineKeyAlone { in_use: true }
        | Problem::TwoPods { .. }
        | Problem::ForeignOwner { .. }
        | Problem::Unreadable { .. }
        | Problem::NearlyFull { .. } => None,
    }
}

/// Whether `secret` is as `patch` leaves it.
pub fn holds(patch: &KeyPatch, secret: &StateSecret) -> bool {
    patch.changes().all(|(key, value)| secret.data.get(key).map(Vec::as_slice) == value)
}

fn delete(keys: impl IntoIterator<Item = String>, secret: &StateSecret) -> Option<KeyPatch> {
    let there = keys.into_iter().filter(|key| secret.data.contains_key(key));
    let patch = there.fold(KeyPatch::new(), |patch, key| patch.delete(&key));
    (!patch.is_empty()).then_some(patch)
}

#[cfg(test)]
mod tests {
    use super::super::findings::findings;
    use super::super::inspect::{Known, inspect};
    use super::super::testing::{PREFS, PROFILES, at, healthy, known, secret};
    use super::*;

    fn planned(secret: &StateSecret, known: &Known, choice: Option<&str>) -> Plan {
        plan(&findings(&inspect(&at(), secret, known), secret), secret, choice)
    }

    fn shown(patch: &KeyPatch) -> Vec<String> {
        let shown = patch.changes().map(|(key, value)| match value {
            Some(value) if value.len() < 40 => format!("{key}={}", String::from_utf8_lossy(value)),
            Some(_) => format!("{key}=…"),
            None => format!("{key}-"),
        });
        shown.collect()
    }

    fn applied(secret: &StateSecret, patch: &KeyPatch) -> StateSecret {
        let mut secret = secret.clone();
        for (key, value) in patch.changes() {
            match value {
                Some(value) => drop(secret.data.insert(key.to_owned(), value.to_vec())),
                None => drop(secret.data.remove(key)),
            }
        }
        secret
    }

    #[test]
    fn each_repair_is_small_and_mends_what_it_is_for() {
        let bound = PREFS.replace("\"Config\": {", "\"Config\": {\"AttestationKey\": {\"tpmPrivate\": \"x\"},");
        let gone = Known { pods: Some(Vec::new()), ..known() };
        let old = Known { daemon_version: Some("1.98.2".to_owned()), ..known() };
        for (data, known, expected) in [
            (healthy(&[("_current-profile", "")]), known(), &["_current-profile=profile-d0e7"][..]),
            (healthy(&[("_current-profile", "profile-gone")]), known(), &["_current-profile=profile-d0e7"]),
            (
                secret(&[("_machinekey", "privkey:b0fe"), ("_profiles", "{}"), ("device_id", "n")]),
                gone,
                &["_machinekey-", "_profiles-"],
            ),
            (healthy(&[("profile-aaaa", PREFS)]), known(), &["profile-aaaa-"]),
            (healthy(&[("profile-d0e7", &bound)]), known(), &["profile-d0e7=…"]),
            (
                healthy(&[("profile-d0e7", &bound), ("profile-aaaa", &bound)]),
                known(),
                &["profile-aaaa-", "profile-d0e7=…"],
            ),
            (healthy(&[("tailscale_capver", "148")]), old, &["tailscale_capver=138"]),
            (
                healthy(&[("reissue_authkey", "tskey-auth-kA-x"), ("authkey", "tskey-auth-kB-x")]),
                known(),
                &["reissue_authkey-"],
            ),
            (healthy(&[]), known(), &[]),
        ] {
            let plan = planned(&data, &known, None);
            assert_eq!(shown(&plan.patch), expected);
            let after = applied(&data, &plan.patch);
            assert!(holds(&plan.patch, &after) && (plan.patch.is_empty() || !holds(&plan.patch, &data)));
            assert!(findings(&inspect(&at(), &after, &known), &after).is_empty(), "{expected:?}");
        }
    }

    #[test]
    fn of_several_profiles_only_a_person_can_choose() {
        let two = secret(&[("_machinekey", "privkey:b0fe"), ("profile-aaaa", PREFS), ("profile-bbbb", PREFS)]);
        assert!(planned(&two, &known(), None).patch.is_empty());
        assert_eq!(shown(&planned(&two, &known(), Some("profile-bbbb")).patch), ["_current-profile=profile-bbbb"]);
        assert!(planned(&two, &known(), Some("profile-cccc")).patch.is_empty());
    }

    #[test]
    fn a_plan_says_what_changes_without_the_values() {
        let bound = PREFS.replace("\"Config\": {", "\"Config\": {\"AttestationKey\": {\"tpmPrivate\": \"hush\"},");
        let secret = secret(&[("_machinekey", "privkey:b0fe"), ("_profiles", PROFILES), ("profile-d0e7", &bound)]);
        let plan = planned(&secret, &known(), None);
        let json = serde_json::to_value(&plan.repairs).unwrap();
        assert_eq!(json[0]["code"], "TP-SECRET-001");
        assert_eq!(
            json[0]["changes"][0],
            serde_json::json!({"key": "_current-profile", "action": "set", "to": {"bytes": 12, "fingerprint": "20b6aa23", "value": "profile-d0e7"}})
        );
        assert!(!format!("{plan:?}{json}").contains("hush") && !json.to_string().contains("privkey"));
    }
}
