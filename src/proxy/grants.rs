//! The rules that a peer's grants hold: parsed whole or not at all. Pure.
//!
//! The policy file grants `tailscale.com/cap/kubernetes`; control resolves it to an array of rules. One value that
//! cannot be read makes the whole capability unusable: guessing at what somebody meant to forbid is not an option.
//! Follows upstream's `kube/kubetypes/grants.go`; api-proxy.md 5.1.

use std::net::SocketAddr;

use serde_json::{Map, Value};

use crate::localapi::types::WhoIs;
use crate::short;

/// The capability that counts.
pub const CAPABILITY: &str = "tailscale.com/cap/kubernetes";

/// Its old name; consulted for groups alone, when the new one has nothing.
pub const LEGACY: &str = "https://tailscale.com/cap/kubernetes";

/// One rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Counted from 1 among the values of its capability.
    pub number: usize,
    /// `impersonate.groups`: the groups to act as.
    pub groups: Vec<String>,
    /// `impersonate.allow`: the groups the client may ask for itself.
    pub allow: Option<Vec<String>>,
    /// `recorder`: tags as the admin wrote them; informational.
    pub recorder: Vec<String>,
    /// `recorderAddrs`: recorders, filled in by control.
    pub recorder_addrs: Vec<SocketAddr>,
    /// `enforceRecorder`: fail closed.
    pub enforce_recorder: bool,
    /// `enableEvents`: record requests as events.
    pub enable_events: bool,
}

/// A value of a capability that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rule {number} of the grant for {capability} cannot be read: {problem}")]
pub struct BadRule {
    /// Which capability.
    pub capability: &'static str,
    /// Counted from 1.
    pub number: usize,
    /// What is wrong with it.
    pub problem: String,
}

/// All rules that a peer's grants hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Under [`CAPABILITY`]
    pub modern: Result<Vec<Rule>, BadRule>,
    /// Under [`LEGACY`]
    pub legacy: Result<Vec<Rule>, BadRule>,
}

impl Rules {
    /// From the answers of whois: those for the node, then those for the Service, if they count too.
    pub fn read(answers: &[&WhoIs]) -> Self {
        Self { modern: read(answers, CAPABILITY), legacy: read(answers, LEGACY) }
    }

    /// The rules that say which groups to act as, and the name they stand under.
    pub fn for_impersonation(&self) -> Result<(&'static str, &[Rule]), &BadRule> {
        match &self.modern {
            Ok(rules) if rules.is_empty() => match &self.legacy {
                Ok(rules) if rules.is_empty() => Ok((CAPABILITY, &[])),
                Ok(rules) => Ok((LEGACY, rules)),
                Err(bad) => Err(bad),
            },
            Ok(rules) => Ok((CAPABILITY, rules)),
            Err(bad) => Err(bad),
        }
    }
}

fn read(answers: &[&WhoIs], capability: &'static str) -> Result<Vec<Rule>, BadRule> {
    let values = answers.iter().filter_map(|answer| answer.cap_map.get(capability)).flatten();
    let numbered = values
        .zip(1..)
        .map(|(value, number)| rule(value, number).map_err(|problem| BadRule { capability, number, problem }));
    numbered.collect()
}

/// One rule. `null` is a rule that says nothing, as to Go.
fn rule(value: &Value, number: usize) -> Result<Rule, String> {
    let Some(object) = object(value, "the rule")? else { return Ok(Rule { number, ..Rule::default() }) };
    let impersonate = match member(object, "impersonate")? {
        Some(value) => self::object(value, "`impersonate`")?,
        None => None,
    };
    let of = |key: &'static str| impersonate.map_or(Ok(None), |object| member(object, key));
    let recorder_addrs = strings(member(object, "recorderAddrs")?, "recorderAddrs")?.unwrap_or_default();
    Ok(Rule {
        number,
        groups: strings(of("groups")?, "impersonate.groups")?.unwrap_or_default(),
        allow: strings(of("allow")?, "impersonate.allow")?,
        recorder: strings(member(object, "recorder")?, "recorder")?.unwrap_or_default(),
        recorder_addrs: recorder_addrs.iter().map(|text| addr(text)).collect::<Result<_, _>>()?,
        enforce_recorder: boolean(member(object, "enforceRecorder")?, "enforceRecorder")?,
        enable_events: boolean(member(object, "enableEvents")?, "enableEvents")?,
    })
}

fn object<'a>(value: &'a Value, what: &str) -> Result<Option<&'a Map<String, Value>>, String> {
    match value {
        Value::Null => Ok(None),
        Value::Object(object) => Ok(Some(object)),
        other => Err(format!("{what} is {}; expected an object", kind(other))),
    }
}

/// A member by name, in any letter case as Go matches it. Two spellings of one name are refused: which of them came
/// last, and would count, is not known here.
fn member<'a>(object: &'a Map<String, Value>, key: &str) -> Result<Option<&'a Value>, String> {
    let mut found = object.iter().filter(|(name, _)| folded(name) == key.to_ascii_lowercase());
    let first = found.next();
    if let (Some((first, _)), Some((second, _))) = (first, found.next()) {
        return Err(format!(
            "`{}` and `{}` are the same key",
            short::name(first).escape_debug(),
            short::name(second).escape_debug()
        ));
    }
    Ok(first.map(|(_, value)| value))
}

/// `encoding/json`'s folding: ASCII, and the two other letters that fold to ASCII ones.
fn folded(name: &str) -> String {
    name.replace('\u{17f}', "s").replace('\u{212a}', "k").to_ascii_lowercase()
}

/// An array of strings; `null` elements are empty strings, as to Go.
fn strings(value: Option<&Value>, key: &str) -> Result<Option<Vec<String>>, String> {
    let array = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(array)) => array,
        Some(other) => return Err(format!("`{key}` is {}; expected an array of strings", kind(other))),
    };
    let strings = array.iter().map(|element| match element {
        Value::String(text) => Ok(text.clone()),
        Value::Null => Ok(String::new()),
        other => Err(format!("`{key}` holds {}; expected strings", kind(other))),
    });
    strings.collect::<Result<_, _>>().map(Some)
}

fn boolean(value: Option<&Value>, key: &str) -> Result<bool, String> {
    match value {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(bool)) => Ok(*bool),
        Some(other) => Err(format!("`{key}` is {}; expected true or false", kind(other))),
    }
}

fn addr(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("`recorderAddrs` holds {:?}; expected `<ip>:<port>`", short::name(text)))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "a literal document reads better without a borrow")]
    fn one(value: Value) -> Result<Rule, String> {
        rule(&value, 1)
    }

    #[test]
    fn everything_a_rule_may_say() {
        let got = one(json!({
            "impersonate": {"groups": ["g1", null], "allow": ["g2"], "new": 1},
            "recorder": ["tag:rec"], "recorderAddrs": ["100.64.0.5:80", "[fd7a::5]:80"],
            "enforceRecorder": true, "enableEvents": true, "unknown": {},
        }));
        let expected = Rule {
            number: 1,
            groups: vec!["g1".into(), String::new()],
            allow: Some(vec!["g2".into()]),
            recorder: vec!["tag:rec".into()],
            recorder_addrs: vec!["100.64.0.5:80".parse().unwrap(), "[fd7a::5]:80".parse().unwrap()],
            enforce_recorder: true,
            enable_events: true,
        };
        assert_eq!(got, Ok(expected));
    }

    #[test]
    fn nothing_is_a_rule_too() {
        let nothing = Ok(Rule { number: 1, ..Rule::default() });
        for value in [
            json!(null),
            json!({}),
            json!({"impersonate": null, "recorder": null, "recorderAddrs": null, "enforceRecorder": null}),
            json!({"impersonate": {"groups": null, "allow": null}}),
        ] {
            assert_eq!(one(value), nothing);
        }
        assert_eq!(one(json!({"impersonate": {"allow": []}})).unwrap().allow, Some(Vec::new()));
    }

    #[test]
    fn keys_are_matched_in_any_letter_case() {
        let got =
            one(json!({"IMPERSONATE": {"Groups": ["g"]}, "enforcerecorder": true, "RecorderAddrs": ["1.2.3.4:5"]}));
        let got = got.unwrap();
        assert!(got.enforce_recorder && got.groups == ["g"] && got.recorder_addrs.len() == 1);
        assert_eq!(one(json!({"imper\u{17f}onate": {"groups": ["g"]}})).unwrap().groups, ["g"]);
        let twice = one(json!({"enforceRecorder": true, "EnforceRecorder": false})).unwrap_err();
        assert_eq!(twice, "`EnforceRecorder` and `enforceRecorder` are the same key");
    }

    #[test]
    fn what_cannot_be_read_says_where() {
        for (value, expected) in [
            (json!([]), "the rule is an array; expected an object"),
            (json!("x"), "the rule is a string; expected an object"),
            (json!(true), "the rule is a boolean; expected an object"),
            (json!({"impersonate": []}), "`impersonate` is an array; expected an object"),
            (json!({"impersonate": {"groups": "g"}}), "`impersonate.groups` is a string; expected an array of strings"),
            (json!({"impersonate": {"groups": [1]}}), "`impersonate.groups` holds a number; expected strings"),
            (json!({"impersonate": {"allow": {}}}), "`impersonate.allow` is an object; expected an array of strings"),
            (json!({"recorder": "tag:r"}), "`recorder` is a string; expected an array of strings"),
            (json!({"recorderAddrs": ["h:80"]}), "`recorderAddrs` holds \"h:80\"; expected `<ip>:<port>`"),
            (json!({"recorderAddrs": [""]}), "`recorderAddrs` holds \"\"; expected `<ip>:<port>`"),
            (json!({"enforceRecorder": "true"}), "`enforceRecorder` is a string; expected true or false"),
            (json!({"enableEvents": 1}), "`enableEvents` is a number; expected true or false"),
        ] {
            assert_eq!(one(value), Err(expected.to_owned()));
        }
    }

    #[test]
    fn one_bad_value_makes_the_capability_unusable() {
        let whois = |document: Value| serde_json::from_value::<WhoIs>(document).unwrap();
        let node = whois(json!({"CapMap": {CAPABILITY: [{}, "x"], LEGACY: [{"impersonate": {"groups": ["old"]}}]}}));
        let rules = Rules::read(&[&node]);
        assert_eq!(
            rules.modern.as_ref().unwrap_err().to_string(),
            "rule 2 of the grant for tailscale.com/cap/kubernetes cannot be read: the rule is a string; expected an object"
        );
        assert!(rules.for_impersonation().is_err(), "the legacy name is no way around it");
    }

    #[test]
    fn the_legacy_name_counts_when_the_new_one_has_nothing() {
        let whois = |document: Value| serde_json::from_value::<WhoIs>(document).unwrap();
        let old = json!([{"impersonate": {"groups": ["old"]}}]);
        for (document, expected) in [
            (json!({}), (CAPABILITY, 0)),
            (json!({LEGACY: old}), (LEGACY, 1)),
            (json!({CAPABILITY: null, LEGACY: old}), (LEGACY, 1)),
            (json!({CAPABILITY: [{}, {}], LEGACY: old}), (CAPABILITY, 2)),
            (json!({CAPABILITY: [{}], LEGACY: ["bad"]}), (CAPABILITY, 1)),
        ] {
            let answer = whois(json!({"CapMap": document}));
            let rules = Rules::read(&[&answer]);
            let (name, found) = rules.for_impersonation().unwrap();
            assert_eq!((name, found.len()), expected);
        }
    }

    #[test]
    fn rules_of_the_service_follow_those_of_the_node() {
        let whois = |groups: &str| -> WhoIs {
            serde_json::from_value(json!({"CapMap": {CAPABILITY: [{"impersonate": {"groups": [groups]}}]}})).unwrap()
        };
        let rules = Rules::read(&[&whois("node"), &whois("service")]).modern.unwrap();
        let got: Vec<_> = rules.iter().map(|rule| (rule.number, rule.groups[0].as_str())).collect();
        assert_eq!(got, [(1, "node"), (2, "service")]);
    }
}
