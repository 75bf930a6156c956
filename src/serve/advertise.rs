//! Which Services a node advertises: changed only where it differs, and what others have put there stays.
//!
//! Upstream's `kube/services/services.go` replaces the list each time it is called (weakness W3).

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::localapi::prefs::{Change, masked};
use crate::localapi::types::Prefs;
use crate::localapi::{Error, LocalApi};

/// The member of prefs that has the list.
const MEMBER: &str = "AdvertiseServices";

/// Whose the node's serve config and its list of advertised Services are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership<'a> {
    /// Ours alone: the daemon is our child.
    Whole,
    /// Only the entries of these Services in it: others have a say too.
    Services(&'a BTreeSet<String>),
}

/// Makes the node advertise `wanted`, and what is not ours as before. Whether that was a change.
pub async fn advertise(api: &LocalApi, wanted: &BTreeSet<String>, ownership: Ownership<'_>) -> Result<bool, Error> {
    if wanted.is_empty() && matches!(ownership, Ownership::Services(ours) if ours.is_empty()) {
        // Most nodes serve nothing, and are looked at with each netmap.
        return Ok(false);
    }
    let prefs = api.prefs().await?;
    let Some(change) = change(&prefs, wanted, ownership) else { return Ok(false) };
    tracing::info!("{change}");
    api.patch_prefs(&masked(&[change])).await?;
    Ok(true)
}

/// Withdraws what is ours. The Services that were advertised until now, when any of them were ours.
pub async fn withdraw(api: &LocalApi, ownership: Ownership<'_>) -> Result<Option<BTreeSet<String>>, Error> {
    let prefs = api.prefs().await?;
    let Some(change) = change(&prefs, &BTreeSet::new(), ownership) else { return Ok(None) };
    let was = advertised(&prefs);
    let stays = others(&was, ownership);
    tracing::info!("unadvertising services: {:?}", was.difference(&stays).collect::<Vec<_>>());
    api.patch_prefs(&masked(&[change])).await?;
    Ok(Some(was.into_iter().map(str::to_owned).collect()))
}

/// Puts `services` back into the list of a node that is about to end, without anybody else hearing of it: the daemon is
/// disconnected from control, and only remembers them.
pub async fn restore(api: &LocalApi, services: &BTreeSet<String>) -> Result<(), Error> {
    api.disconnect_control().await?;
    let change = Change { member: MEMBER.to_owned(), old: Value::Null, new: json!(services) };
    api.patch_prefs(&masked(&[change])).await.map(drop)
}

/// The change that leads to `wanted`, if there has to be one.
fn change(prefs: &Prefs, wanted: &BTreeSet<String>, ownership: Ownership<'_>) -> Option<Change> {
    let is = advertised(prefs);
    let mut shall_be = others(&is, ownership);
    shall_be.extend(wanted.iter().map(String::as_str));
    let old = prefs.0.get(MEMBER).cloned().unwrap_or(Value::Null);
    (is != shall_be).then(|| Change { member: MEMBER.to_owned(), old, new: json!(shall_be) })
}

/// What is advertised.
fn advertised(prefs: &Prefs) -> BTreeSet<&str> {
    let list = prefs.0.get(MEMBER).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The Services among them that somebody else advertises.
fn others<'s>(advertised: &BTreeSet<&'s str>, ownership: Ownership<'_>) -> BTreeSet<&'s str> {
    match ownership {
        Ownership::Whole => BTreeSet::new(),
        Ownership::Services(ours) => advertised.iter().copied().filter(|name| !ours.contains(*name)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefs(list: &Value) -> Prefs {
        serde_json::from_value(json!({ "Hostname": "a", MEMBER: list })).unwrap()
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn told(list: &Value, wanted: &[&str], ownership: Ownership<'_>) -> Option<String> {
        change(&prefs(list), &set(wanted), ownership).map(|change| change.to_string())
    }

    #[test]
    fn only_what_differs_is_changed() {
        let list = json!(["svc:b", "svc:a"]);
        assert_eq!(told(&list, &["svc:a", "svc:b"], Ownership::Whole), None);
        let gone = "AdvertiseServices: [\"svc:b\",\"svc:a\"] -> []";
        assert_eq!(told(&list, &[], Ownership::Whole).as_deref(), Some(gone));
        assert_eq!(told(&Value::Null, &[], Ownership::Whole), None);
    }

    #[tokio::test]
    async fn nothing_of_ours_is_no_call() {
        let nobody = LocalApi::new(std::path::Path::new("/nonexistent/socket"));
        let none = BTreeSet::new();
        assert!(!advertise(&nobody, &none, Ownership::Services(&none)).await.unwrap());
        advertise(&nobody, &none, Ownership::Whole).await.expect_err("the whole list is looked at");
        advertise(&nobody, &none, Ownership::Services(&set(&["svc:a"]))).await.expect_err("something was ours");
    }

    #[test]
    fn what_others_advertise_stays() {
        let ours = set(&["svc:a", "svc:b"]);
        let told = |wanted: &[&str]| told(&json!(["svc:a", "svc:x"]), wanted, Ownership::Services(&ours));
        assert_eq!(told(&["svc:a"]), None);
        let moved = "AdvertiseServices: [\"svc:a\",\"svc:x\"] -> [\"svc:b\",\"svc:x\"]";
        assert_eq!(told(&["svc:b"]).as_deref(), Some(moved));
        assert_eq!(told(&[]).as_deref(), Some("AdvertiseServices: [\"svc:a\",\"svc:x\"] -> [\"svc:x\"]"));
    }
}
