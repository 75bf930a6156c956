//! Why a peer acts as whom it does: the chain from its grants to the headers, as a value to print. Pure.

use std::collections::BTreeMap;

use hyper::header::HeaderMap;
use serde::Serialize;

use super::access::{Owner, Peer, impersonation};
use super::grants::{CAPABILITY, LEGACY, Rule};
use super::policy::{Events, OnFailure, policy};

/// Everything that is known about a peer's way to Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// FQDN without its final dot.
    pub node: String,
    /// The node's stable id.
    pub stable_id: String,
    /// The login, for a node without tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// The tags, for a tagged node.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// What the grants hold, in the order that counts.
    pub rules: Vec<ExplainedRule>,
    /// As whom a request is made, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_whom: Option<AsWhom>,
    /// What recording demands, if that is certain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recording: Option<Recording>,
    /// Why requests are refused, whatever they ask for.
    pub problems: Vec<String>,
}

/// One rule and what it is used for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedRule {
    /// The name it stands under.
    pub capability: &'static str,
    /// Counted from 1 under that name.
    pub number: usize,
    /// Groups to act as.
    pub groups: Vec<String>,
    /// Groups to ask for; absent when the rule gives no leave to ask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<String>>,
    /// Recorders' tags, as written.
    pub recorder: Vec<String>,
    /// Recorders' addresses.
    pub recorder_addrs: Vec<String>,
    /// Whether it enforces recording.
    pub enforce_recorder: bool,
    /// Whether it asks for events.
    pub enable_events: bool,
    /// Whether its groups count: those of the old name do only when the new one has no rule.
    pub groups_count: bool,
    /// Whether what it says about recording counts: under the old name it never does.
    pub recording_counts: bool,
}

/// As whom requests are made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AsWhom {
    /// The user.
    pub user: String,
    /// The groups in the order they are sent, each with where it came from.
    pub groups: Vec<GroupFrom>,
    /// The headers as they are sent, one line each.
    pub headers: Vec<String>,
    /// Whether the client may ask for groups with `Impersonate-Group`.
    pub may_ask: bool,
}

/// A group and where it came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupFrom {
    /// The group.
    pub group: String,
    /// `rule 2`, `tag` or `asked for`.
    pub from: String,
}

/// What recording demands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Recording {
    /// Whether what cannot be recorded is refused.
    pub enforced: bool,
    /// Recorders' addresses.
    pub recorders: Vec<String>,
    /// Whether requests are recorded as events.
    pub events: bool,
}

/// Explains a peer; `asked` are headers its client would send.
pub fn explain(peer: &Peer, asked: &HeaderMap) -> Explanation {
    let (login, tags) = match &peer.owner {
        Owner::User { login } => (Some(login.clone()), Vec::new()),
        Owner::Tags(tags) => (None, tags.clone()),
    };
    let counting = peer.rules.for_impersonation().map(|(capability, _)| capability);
    let modern = peer.rules.modern.iter().flatten().map(|rule| (CAPABILITY, rule));
    let legacy = peer.rules.legacy.iter().flatten().map(|rule| (LEGACY, rule));
    let rules = modern.chain(legacy).map(|(capability, rule)| ExplainedRule {
        capability,
        number: rule.number,
        groups: rule.groups.clone(),
        allow: rule.allow.clone(),
        recorder: rule.recorder.clone(),
        recorder_addrs: rule.recorder_addrs.iter().map(ToString::to_string).collect(),
        enforce_recorder: rule.enforce_recorder,
        enable_events: rule.enable_events,
        groups_count: counting == Ok(capability),
        recording_counts: capability == CAPABILITY,
    });
    let rules = rules.collect();
    let mut problems = Vec::new();
    let as_whom = as_whom(peer, asked).map_err(|problem| problems.push(problem)).ok();
    let recording = policy(peer).map_err(|refusal| problems.push(refusal.message)).ok().map(|policy| Recording {
        enforced: policy.on_failure == OnFailure::Closed,
        recorders: policy.recorders.iter().map(ToString::to_string).collect(),
        events: policy.events == Events::On,
    });
    problems.dedup();
    Explanation {
        node: peer.node.clone(),
        stable_id: peer.stable_id.clone(),
        login,
        tags,
        rules,
        as_whom,
        recording,
        problems,
    }
}

fn as_whom(peer: &Peer, asked: &HeaderMap) -> Result<AsWhom, String> {
    let whom = impersonation(peer, asked).map_err(|refusal| refusal.message)?;
    let granted = impersonation(peer, &HeaderMap::new()).map_err(|refusal| refusal.message)?;
    let rules: &[Rule] = peer.rules.for_impersonation().map_or(&[], |(_, rules)| rules);
    // The first rule that names a group decides where it stands.
    let mut first = BTreeMap::new();
    for rule in rules.iter().rev() {
        first.extend(rule.groups.iter().map(|group| (group.as_str(), format!("rule {}", rule.number))));
    }
    let from = |group: &str| match first.get(group) {
        Some(rule) => rule.clone(),
        None if granted.groups().any(|known| known == group) => "tag".to_owned(),
        None => "asked for".to_owned(),
    };
    let groups = whom.groups().map(|group| GroupFrom { group: group.to_owned(), from: from(group) }).collect();
    let user = std::iter::once(format!("Impersonate-User: {}", whom.user()));
    let headers = user.chain(whom.groups().map(|group| format!("Impersonate-Group: {group}"))).collect();
    let modern = peer.rules.modern.as_deref().unwrap_or_default();
    Ok(AsWhom {
        user: whom.user().to_owned(),
        groups,
        headers,
        may_ask: modern.iter().any(|rule| rule.allow.is_some()),
    })
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;
    use serde_json::{Value, json};

    use super::*;
    use crate::proxy::access::IMPERSONATE_GROUP;

    fn explained(document: Value, asked: &[&'static str]) -> Value {
        let whois = serde_json::from_value(document).unwrap();
        let asked = asked.iter().map(|group| (IMPERSONATE_GROUP, HeaderValue::from_static(group))).collect();
        serde_json::to_value(explain(&Peer::new(&whois, None), &asked)).unwrap()
    }

    #[test]
    fn the_whole_chain() {
        let got = explained(
            json!({"Node": {"Name": "l.ts.net.", "StableID": "n1"}, "UserProfile": {"LoginName": "ann"}, "CapMap": {
                CAPABILITY: [
                    {"impersonate": {"groups": ["a", "b"]}},
                    {"impersonate": {"groups": ["b", "c"], "allow": ["d"]}, "recorder": ["tag:r"],
                     "recorderAddrs": ["100.64.0.5:80"], "enforceRecorder": true},
                ],
                LEGACY: [{"impersonate": {"groups": ["old"]}}],
            }}),
            &[],
        );
        assert_eq!(got["login"], "ann");
        assert_eq!(
            got["asWhom"],
            json!({
                "user": "ann",
                "groups": [{"group": "a", "from": "rule 1"}, {"group": "b", "from": "rule 1"}, {"group": "c", "from": "rule 2"}],
                "headers": ["Impersonate-User: ann", "Impersonate-Group: a", "Impersonate-Group: b", "Impersonate-Group: c"],
                "mayAsk": true,
            })
        );
        assert_eq!(got["recording"], json!({"enforced": true, "recorders": ["100.64.0.5:80"], "events": false}));
        let counts: Vec<_> = got["rules"].as_array().unwrap().iter().map(|rule| rule["groupsCount"].clone()).collect();
        assert_eq!(counts, [true, true, false]);
        assert_eq!(got["problems"], json!([]));
    }

    #[test]
    fn tags_and_what_was_asked_for() {
        let tagged = json!({"Node": {"Name": "n.ts.net.", "Tags": ["tag:ci"]}});
        assert_eq!(explained(tagged, &[])["asWhom"]["groups"], json!([{"group": "tag:ci", "from": "tag"}]));
        let may = json!({"Node": {"Name": "n.ts.net.", "Tags": ["tag:ci"]},
                         "CapMap": {CAPABILITY: [{"impersonate": {"groups": ["a"], "allow": ["b"]}}]}});
        let got = explained(may, &["b", "a"]);
        let expected = json!([{"group": "b", "from": "asked for"}, {"group": "a", "from": "rule 1"}]);
        assert_eq!(got["asWhom"]["groups"], expected);
    }

    #[test]
    fn problems_are_said_once() {
        let got = explained(json!({"UserProfile": {"LoginName": "ann"}, "CapMap": {CAPABILITY: ["x"]}}), &[]);
        assert_eq!(got["problems"].as_array().unwrap().len(), 1);
        assert!(got.get("asWhom").is_none() && got.get("recording").is_none());
    }
}
