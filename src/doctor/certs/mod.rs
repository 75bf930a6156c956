//! What keeps certificates from being issued, stored or renewed: facts to findings. Pure.
//!
//! `certs check` and `doctor` show the same findings. Each has a code that stays, and no failure comes without what to
//! do.

pub mod gather;
mod sharing;

use std::collections::{BTreeMap, BTreeSet};

pub use self::sharing::{Right, SecretFacts, Sharing};
use super::finding::{
    CERTS_ACCOUNT, CERTS_ALLOWED, CERTS_BUDGET, CERTS_DAEMON, CERTS_HTTPS, CERTS_LOCKED, CERTS_NAMES, CERTS_STATUS,
    Finding,
};
use crate::certs::budget::Left;
use crate::certs::listing::{Row, Source};
use crate::certs::names::{Name, Wanted, nearest};
use crate::certs::status::Status;
use crate::localapi::mask::Version;

/// Everything that is judged.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// What the serve config wants.
    pub wanted: Wanted,
    /// Why the serve config cannot be used, if it cannot, and what to do.
    pub config: Option<(String, String)>,
    /// What the tailnet allows; nothing when it could not be asked.
    pub allowed: Option<BTreeSet<String>>,
    /// The share mode.
    pub sharing: Sharing,
    /// Of tailscaled.
    pub version: Option<Version>,
    /// Whether the daemon's config file is locked; nothing without one.
    pub locked: Option<bool>,
    /// The TLS Secrets of shared names; `None` for one that does not exist. Nothing where they could not be read.
    pub secrets: Option<BTreeMap<Name, Option<SecretFacts>>>,
    /// Rights on them.
    pub rights: Vec<Right>,
    /// Rights on Leases.
    pub lease: Vec<Right>,
    /// The certificates.
    pub rows: Vec<Row>,
    /// What is left of the limits.
    pub left: Vec<Left>,
    /// What could not be read, each as a sentence.
    pub troubles: Vec<String>,
}

/// The first release that answers 429 and has a lock for each name.
const SIDE_BY_SIDE: (u32, u32) = (1, 102);
/// The first release that renews what it serves by itself.
const REFRESHES: (u32, u32) = (1, 100);
const ENABLE_HTTPS: &str = "enable MagicDNS and HTTPS certificates on the DNS page of the admin console: https://login.tailscale.com/admin/dns";

/// Judges all of it, in the order of the codes.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut found = names(facts);
    found.push(https(facts));
    found.extend(allowed(facts));
    found.push(sharing::mode(&facts.sharing, facts.version));
    found.extend(sharing::secrets(facts));
    found.push(sharing::rights(facts));
    found.push(sharing::lease(facts));
    found.extend(account(&facts.rows));
    found.push(locked(facts.locked));
    found.push(daemon(facts.version));
    found.extend(status(facts));
    found.push(budget(&facts.left));
    found
}

fn names(facts: &Facts) -> Vec<Finding> {
    if let Some((why, remedy)) = &facts.config {
        return vec![CERTS_NAMES.failure(why, remedy)];
    }
    let mut found: Vec<_> = facts
        .wanted
        .warnings
        .iter()
        .map(|warning| {
            if warning.is_loss {
                let remedy =
                    "write the key as `name:443`, an IPv6 address in brackets; its name is not managed until then";
                CERTS_NAMES.failure(warning.to_string(), remedy)
            } else {
                CERTS_NAMES.warning(warning.to_string())
            }
        })
        .collect();
    if found.is_empty() {
        found.push(match facts.wanted.names.len() {
            0 => CERTS_NAMES.skipped("nothing that is served needs a certificate"),
            count => CERTS_NAMES.ok(format!("{count} names need a certificate")),
        });
    }
    found
}

fn https(facts: &Facts) -> Finding {
    match &facts.allowed {
        None => CERTS_HTTPS.skipped("tailscaled could not be asked"),
        Some(allowed) if !allowed.is_empty() => CERTS_HTTPS.ok("HTTPS is enabled for the tailnet"),
        Some(_) if facts.wanted.names.is_empty() => CERTS_HTTPS.skipped("it is not enabled, and nothing needs it"),
        Some(_) => CERTS_HTTPS.failure("HTTPS is not enabled for the tailnet, or not for this node", ENABLE_HTTPS),
    }
}

fn allowed(facts: &Facts) -> Vec<Finding> {
    let wanted = &facts.wanted.names;
    let Some(allowed) = facts.allowed.as_ref().filter(|allowed| !allowed.is_empty()) else {
        return vec![CERTS_ALLOWED.skipped("the tailnet names none")];
    };
    let list: Vec<String> = allowed.iter().cloned().collect();
    let denied: Vec<_> = wanted
        .iter()
        .filter(|(name, _)| !allowed.contains(name.as_str()))
        .map(|(name, services)| {
            let users = services.iter().cloned().collect::<Vec<_>>().join(", ");
            let remedy = match nearest(name.as_str(), &list) {
                Some(other) => format!("is it `{other}`?"),
                None if users.is_empty() => format!("the tailnet allows {}", list.join(", ")),
                None => format!("approve {users} for this node: https://login.tailscale.com/admin/services"),
            };
            CERTS_ALLOWED.failure(format!("the tailnet does not allow a certificate for {name}"), remedy)
        })
        .collect();
    match (denied.is_empty(), wanted.len()) {
        (true, 0) => vec![CERTS_ALLOWED.skipped("no name is wanted")],
        (true, _) => vec![CERTS_ALLOWED.ok("the tailnet allows every name that is wanted")],
        (false, _) => denied,
    }
}

fn account(rows: &[Row]) -> Vec<Finding> {
    let known: Vec<_> = rows.iter().filter_map(|row| Some((&row.domain, row.account_matches?))).collect();
    let others: Vec<_> = known.iter().filter(|(_, matches)| !matches).map(|(name, _)| name.to_string()).collect();
    if known.is_empty() {
        vec![CERTS_ACCOUNT.skipped("no certificate says to which account it was issued")]
    } else if others.is_empty() {
        vec![CERTS_ACCOUNT.ok("certificates were issued to the present ACME account")]
    } else {
        let sentence = format!("issued to another ACME account than the present one: {}", others.join(", "));
        let remedy =
            "their renewals count as new certificates at the authority; restore the account's key, or let them be";
        vec![CERTS_ACCOUNT.warning(sentence).remedy(remedy)]
    }
}

fn locked(locked: Option<bool>) -> Finding {
    match locked {
        None => CERTS_LOCKED.ok("no config file locks tailscaled"),
        Some(false) => CERTS_LOCKED.ok("tailscaled's config file is not locked"),
        Some(true) => CERTS_LOCKED
            .warning("tailscaled's config file is locked: a serve config cannot be changed, only served as it is")
            .remedy("\"Locked\": false  # in the config file"),
    }
}

fn daemon(version: Option<Version>) -> Finding {
    let Some(version) = version else { return CERTS_DAEMON.skipped("tailscaled did not say its version") };
    let release = (version.major, version.minor);
    if release >= SIDE_BY_SIDE {
        return CERTS_DAEMON.ok(format!(
            "tailscaled {version} says when a rate limit ends and orders names side by side; it also renews hourly by \
             itself, whatever the schedule here says"
        ));
    }
    let refresh = if release >= REFRESHES {
        "it renews hourly by itself, whatever the schedule here says"
    } else {
        "it renews nothing by itself"
    };
    CERTS_DAEMON
        .warning(format!("tailscaled {version} orders one name at a time and hides when a rate limit ends; {refresh}"))
        .remedy("FROM tailscale/tailscale:stable  # 1.102 and newer")
}

fn status(facts: &Facts) -> Vec<Finding> {
    // Allowed and unused is nobody's concern.
    let used: Vec<_> = facts
        .rows
        .iter()
        .filter(|row| row.source != Source::None || facts.wanted.names.contains_key(&row.domain))
        .collect();
    if used.is_empty() {
        return vec![CERTS_STATUS.skipped("there are no certificates, and none are wanted")];
    }
    let mut found: Vec<_> = facts.troubles.iter().map(|trouble| CERTS_STATUS.warning(trouble)).collect();
    for row in used.iter().filter(|row| !row.status.is_fine()) {
        let name = &row.domain;
        let error = row.last_error.as_ref().map(|error| format!("; the last attempt: {error}")).unwrap_or_default();
        let sentence = match row.status {
            Status::Missing => format!("{name} has no certificate{error}"),
            Status::Invalid => {
                format!("{name}: the certificate is of no use: {}", row.problem.as_deref().unwrap_or("invalid"))
            }
            Status::Expired => format!("{name}: the certificate is over{error}"),
            Status::NotYetValid => format!("{name}: the certificate has not begun"),
            Status::Critical => {
                format!("{name}: the certificate has {} days left{error}", row.days.unwrap_or_default())
            }
            Status::NotAllowed => format!("{name}: the certificate is good, and cannot be renewed: it is not allowed"),
            Status::RenewalDue | Status::Ok => continue,
        };
        found.push(if row.status.is_valid() || row.status == Status::NotYetValid {
            CERTS_STATUS.warning(sentence).remedy(format!("tailpod certs show {name}"))
        } else {
            CERTS_STATUS.failure(sentence, format!("tailpod certs show {name}"))
        });
    }
    if found.is_empty() {
        found.push(CERTS_STATUS.ok(format!("all {} certificates are good", used.len())));
    }
    found
}

fn budget(left: &[Left]) -> Finding {
    let used_up: Vec<_> = left.iter().filter(|limit| limit.left == 0).collect();
    let Some(worst) = used_up.iter().max_by_key(|limit| limit.next_at) else {
        return CERTS_BUDGET.ok("the authority's limits leave room, as far as is known here");
    };
    let subject = worst.subject.as_deref().unwrap_or("the account");
    let until = worst.next_at.map(|at| format!(" until {at:.0}")).unwrap_or_default();
    CERTS_BUDGET
        .warning(format!("used up: {} of {subject}{until}", worst.limit))
        .remedy("tailpod certs budget  # what is left, and when there is more")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::finding::Level;
    use super::*;
    use crate::certs::listing::Found;
    use crate::certs::names::{Node, wanted};

    fn facts(config: &serde_json::Value, allowed: &[&str]) -> Facts {
        Facts {
            wanted: wanted(config, Node::Include).unwrap(),
            allowed: Some(allowed.iter().map(|&name| name.to_owned()).collect()),
            version: Some(Version { major: 1, minor: 102, patch: 0 }),
            ..Facts::default()
        }
    }

    fn of<'f>(found: &'f [Finding], code: &str) -> Vec<&'f Finding> {
        found.iter().filter(|finding| finding.code == code).collect()
    }

    #[test]
    fn nothing_wanted_is_nothing_wrong() {
        let found = judge(&Facts::default());
        assert!(found.iter().all(|finding| finding.level <= Level::Skipped), "{found:?}");
        let codes: BTreeSet<_> = found.iter().map(|finding| finding.code).collect();
        assert_eq!(codes.len(), 12, "every check says something");
    }

    #[test]
    fn a_name_that_is_not_allowed_says_which_is_nearest_or_what_to_approve() {
        let config = json!({"Services": {"svc:a": {"Web": {"shpo.t.ts.net:443": null}},
            "svc:b": {"Web": {"www.elsewhere.example:443": null, "foo": null}}}});
        let found = judge(&facts(&config, &["shop.t.ts.net"]));
        let denied: Vec<_> = of(&found, "TP-CERTS-003").iter().map(|one| one.remedy.clone().unwrap()).collect();
        assert_eq!(
            denied,
            ["is it `shop.t.ts.net`?", "approve svc:b for this node: https://login.tailscale.com/admin/services",]
        );
        let names = of(&found, "TP-CERTS-001");
        assert_eq!((names.len(), names[0].level), (1, Level::Failure));
        assert!(names[0].sentence.contains("svc:b: Web key `foo`: the port is missing"), "{}", names[0].sentence);
        assert_eq!(of(&judge(&facts(&config, &[])), "TP-CERTS-002")[0].level, Level::Failure);
    }

    #[test]
    fn w18_versions_are_told_what_they_lack_and_whether_they_renew_by_themselves() {
        let level = |minor| daemon(Some(Version { major: 1, minor, patch: 0 })).level;
        assert_eq!([level(98), level(100), level(102)], [Level::Warning, Level::Warning, Level::Ok]);
        for minor in [100, 102] {
            assert!(daemon(Some(Version { major: 1, minor, patch: 0 })).sentence.contains("renews hourly"), "{minor}");
        }
        assert!(daemon(Some(Version { major: 1, minor: 98, patch: 0 })).sentence.contains("nothing by itself"));
        assert_eq!([locked(None).level, locked(Some(true)).level], [Level::Ok, Level::Warning]);
    }

    #[test]
    fn a_certificate_that_is_wanted_and_missing_is_a_failure() {
        let config = json!({"Services": {"svc:a": {"Web": {"a.t.ts.net:443": null}}}});
        let mut facts = facts(&config, &["a.t.ts.net", "node.t.ts.net"]);
        let found = Found { wanted: facts.wanted.clone(), allowed: facts.allowed.clone(), ..Found::default() };
        facts.rows = found.rows(std::time::Duration::ZERO, jiff::Timestamp::UNIX_EPOCH);
        let found = judge(&facts);
        let status = of(&found, "TP-CERTS-011");
        assert_eq!(status.len(), 1, "the node's own name is not used");
        assert_eq!((status[0].level, status[0].sentence.as_str()), (Level::Failure, "a.t.ts.net has no certificate"));
    }
}
