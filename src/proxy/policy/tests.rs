//! The tables of api-proxy.md 6.1 to 6.4 and 17.2, row by row.

use hyper::Method;
use serde_json::{Value, json};

use super::*;
use crate::localapi::types::WhoIs;
use crate::proxy::route::classify;

const PODS: &str = "/api/v1/pods";
const EXEC: &str = "/api/v1/namespaces/n/pods/p/exec?command=secret";
const ATTACH: &str = "/api/v1/namespaces/n/pods/p/attach";
const NODE_EXEC: &str = "/api/v1/nodes/n/proxy/exec/ns/p/c";
const R: &str = "100.64.0.5:80";

fn peer(rules: &Value) -> Peer {
    let document = json!({"Node": {"Name": "l.ts.net."}, "UserProfile": {"LoginName": "ann"},
                          "CapMap": {grants::CAPABILITY: rules}});
    let whois: WhoIs = serde_json::from_value(document).unwrap();
    Peer::new(&whois, None)
}

fn policy_of(rules: &Value) -> Policy {
    policy(&peer(rules)).unwrap()
}

/// One rule that says so.
fn rules(enforce: bool, addrs: &[&str], events: bool) -> Policy {
    policy_of(&json!([{"enforceRecorder": enforce, "recorderAddrs": addrs, "enableEvents": events}]))
}

fn route(target: &str) -> Route {
    classify(&Method::GET, target.as_bytes()).unwrap()
}

fn plan_for(policy: &Policy, target: &str, upgrade: &Upgrade) -> Result<Plan, Refusal> {
    plan(policy, &route(target), upgrade, UnrecordedStreams::Forward)
}

/// The code, or what it is forwarded with.
fn decided(policy: &Policy, target: &str, upgrade: &Upgrade) -> Result<Vec<Warning>, (u16, Reason)> {
    let decision = decide(policy, &route(target), upgrade, UnrecordedStreams::Forward);
    decision.verdict.map_err(|refusal| (refusal.status().as_u16(), refusal.reason))
}

#[test]
fn a_policy_is_what_all_rules_say_together() {
    let got = policy_of(&json!([
        {"recorderAddrs": ["100.64.0.5:80", "100.64.0.6:80"]},
        {"enforceRecorder": true},
        {"enableEvents": true, "recorderAddrs": ["100.64.0.5:80", "[fd7a::7]:80"]},
    ]));
    let recorders: Vec<_> = got.recorders.iter().map(ToString::to_string).collect();
    assert_eq!(recorders, ["100.64.0.5:80", "100.64.0.6:80", "[fd7a::7]:80"]);
    assert_eq!((got.on_failure, got.events), (OnFailure::Closed, Events::On));
    assert!(!got.is_empty());
}

#[test]
fn no_rules_no_policy() {
    for rules in
        [json!(null), json!([]), json!([{}]), json!([{"impersonate": {"groups": ["g"]}, "recorder": ["tag:r"]}])]
    {
        let got = policy_of(&rules);
        assert!(got.is_empty() && got.events == Events::Off);
    }
    // Events that nobody takes are no reason for anything.
    assert!(policy_of(&json!([{"enableEvents": true}])).is_empty());
}

#[test]
fn unreadable_rules_are_a_500_and_the_legacy_name_is_not_asked() {
    let refusal = policy(&peer(&json!([{"enforceRecorder": "yes"}]))).unwrap_err();
    assert_eq!((refusal.status().as_u16(), refusal.reason), (500, Reason::Grants));
    let document = json!({"CapMap": {grants::LEGACY: [{"enforceRecorder": true, "recorderAddrs": [R]}, "bad"]}});
    let whois: WhoIs = serde_json::from_value(document).unwrap();
    assert!(policy(&Peer::new(&whois, None)).unwrap().is_empty());
}

/// 6.2: fail_open, addrs, events, then what is done.
#[test]
fn the_default_route() {
    let forwards = |event| (event, Then::Forward(Vec::new()));
    for (enforce, addrs, events, expected) in [
        (false, &[][..], false, Ok(forwards(None))),
        (false, &[], true, Ok(forwards(None))),
        (true, &[], false, Err(403)),
        (true, &[], true, Err(403)),
        (false, &[R], false, Ok(forwards(None))),
        (true, &[R], false, Ok(forwards(None))),
        (false, &[R], true, Ok(forwards(Some(EventKind::Full)))),
        (true, &[R], true, Ok(forwards(Some(EventKind::Full)))),
    ] {
        let policy = rules(enforce, addrs, events);
        for target in [PODS, "/healthz", "/api/v1/namespaces/n/pods/p/log"] {
            let got = plan_for(&policy, target, &Upgrade::No);
            let got = got.map(|plan| (plan.event, plan.then)).map_err(|refusal| refusal.status().as_u16());
            assert_eq!(got, expected, "{enforce} {addrs:?} {events} {target}");
        }
    }
}

/// 6.3: fail_open, addrs, Upgrade, then what is done.
#[test]
fn sessions() {
    let h2c = Upgrade::Other("h2c".to_owned());
    let pass = || Ok(Then::Forward(Vec::new()));
    let record = |session| Ok(Then::Record(session));
    for (target, session) in [(EXEC, Session::Exec), (ATTACH, Session::Attach)] {
        for (enforce, addrs, upgrade, expected) in [
            (false, &[][..], &Upgrade::Spdy, pass()),
            (false, &[], &Upgrade::No, pass()),
            (false, &[], &h2c, pass()),
            (true, &[], &Upgrade::Spdy, Err((403, Reason::NoRecorder))),
            (true, &[], &Upgrade::No, Err((403, Reason::NoRecorder))),
            (false, &[R], &Upgrade::No, Ok(Then::Forward(vec![Warning::NoUpgrade]))),
            (true, &[R], &Upgrade::No, Err((403, Reason::Upgrade))),
            (false, &[R], &h2c, Err((403, Reason::Upgrade))),
            (true, &[R], &h2c, Err((403, Reason::Upgrade))),
            (false, &[R], &Upgrade::Spdy, record(session)),
            (false, &[R], &Upgrade::WebSocket, record(session)),
            (true, &[R], &Upgrade::Spdy, record(session)),
            (true, &[R], &Upgrade::WebSocket, record(session)),
        ] {
            // The method decides nothing, and neither do events about the session itself.
            for (method, events) in [("GET", false), ("POST", false), ("GET", true), ("POST", true)] {
                let policy = rules(enforce, addrs, events);
                let route = classify(&method.parse().unwrap(), target.as_bytes()).unwrap();
                let got = plan(&policy, &route, upgrade, UnrecordedStreams::Forward);
                if let Ok(plan) = &got {
                    assert_eq!(plan.event.is_some(), events && !addrs.is_empty());
                }
                let got = match got {
                    Ok(Plan { then: Then::Refuse(refusal), .. }) | Err(refusal) => {
                        Err((refusal.status().as_u16(), refusal.reason))
                    }
                    Ok(plan) => Ok(plan.then),
                };
                assert_eq!(got, expected, "{method} {target} {enforce} {addrs:?} {upgrade:?}");
            }
        }
    }
}

/// 6.4
#[test]
fn what_an_event_comes_to() {
    let failed = || EventOutcome::Failed("down".to_owned());
    let mixed = || EventOutcome::Mixed("down".to_owned());
    let warned = Ok(vec![Warning::Event]);
    for (outcome, enforce, expected) in [
        (EventOutcome::Accepted, false, Ok(vec![])),
        (EventOutcome::Accepted, true, Ok(vec![])),
        (failed(), false, warned.clone()),
        (failed(), true, Err(502)),
        (EventOutcome::Unsupported, false, warned.clone()),
        (EventOutcome::Unsupported, true, Err(502)),
        (mixed(), true, Err(502)),
        (mixed(), false, warned.clone()),
        (EventOutcome::Unreadable("cut off".to_owned()), false, Err(400)),
        (EventOutcome::Unreadable("cut off".to_owned()), true, Err(400)),
    ] {
        let plan = plan_for(&rules(enforce, &[R], true), PODS, &Upgrade::No).unwrap();
        let got = plan.conclude(&outcome, &SessionOutcome::Unreachable);
        assert_eq!((got.event, got.session), (Attempt::Made, Attempt::None));
        assert_eq!(got.verdict.map_err(|refusal| refusal.status().as_u16()), expected, "{outcome:?} {enforce}");
    }
}

/// 6.4, a path of which no event can be made.
#[test]
fn a_path_that_names_no_resource() {
    let path = "/api/v1/watch";
    let open = plan_for(&rules(false, &[R], true), path, &Upgrade::No).unwrap();
    assert_eq!(open.event, Some(EventKind::Minimal));
    let closed = plan_for(&rules(true, &[R], true), path, &Upgrade::No).unwrap_err();
    assert_eq!((closed.status().as_u16(), closed.reason), (502, Reason::Unrecorded));
    assert_eq!(plan_for(&rules(true, &[R], false), path, &Upgrade::No).unwrap().event, None);
}

#[test]
fn a_session_is_forwarded_once_its_recorder_waits() {
    for (enforce, outcome, expected) in [
        (true, SessionOutcome::Connected, Ok(vec![])),
        (false, SessionOutcome::Connected, Ok(vec![])),
        (true, SessionOutcome::Unreachable, Err((403, Reason::NoRecorder))),
        (false, SessionOutcome::Unreachable, Ok(vec![Warning::Session])),
    ] {
        let plan = plan_for(&rules(enforce, &[R], false), EXEC, &Upgrade::WebSocket).unwrap();
        let got = plan.conclude(&EventOutcome::Accepted, &outcome);
        assert_eq!((got.event, got.session), (Attempt::None, Attempt::Made));
        assert_eq!(got.verdict.map_err(|refusal| (refusal.status().as_u16(), refusal.reason)), expected);
    }
}

/// The event comes first in time, so its failure is what the client hears of.
#[test]
fn a_failed_event_outranks_what_would_have_followed() {
    for upgrade in [Upgrade::Spdy, Upgrade::Other("h2c".to_owned()), Upgrade::No] {
        let got = decided(&rules(true, &[R], true), EXEC, &upgrade);
        assert_eq!(got, Err((502, Reason::Unrecorded)), "{upgrade:?}");
    }
}

/// 17.2: until recording exists, some recorder counts as all failed.
#[test]
fn without_a_way_to_record() {
    let events = |enforce| rules(enforce, &[R], true);
    let streams = |enforce| rules(enforce, &[R], false);
    for (policy, target, upgrade, expected) in [
        (streams(true), PODS, Upgrade::No, Ok(vec![])),
        (events(true), PODS, Upgrade::No, Err((502, Reason::Unrecorded))),
        (events(false), PODS, Upgrade::No, Ok(vec![Warning::Event])),
        (streams(true), EXEC, Upgrade::WebSocket, Err((403, Reason::NoRecorder))),
        (streams(false), EXEC, Upgrade::Spdy, Ok(vec![Warning::Session])),
        (events(false), EXEC, Upgrade::Spdy, Ok(vec![Warning::Event, Warning::Session])),
        (events(false), EXEC, Upgrade::No, Ok(vec![Warning::Event, Warning::NoUpgrade])),
        (events(false), EXEC, Upgrade::Other("h2c".into()), Err((403, Reason::Upgrade))),
    ] {
        assert_eq!(decided(&policy, target, &upgrade), expected, "{target} {upgrade:?}");
    }
}

/// 10.3.4 and 17.2: commands on a node.
#[test]
fn node_commands() {
    let refused = Err((403, Reason::NodeCommand));
    for (policy, expected) in [
        (rules(false, &[], false), Ok(vec![])),
        (rules(true, &[], false), refused.clone()),
        (rules(true, &[R], false), refused.clone()),
        (rules(true, &[R], true), refused),
        (rules(false, &[R], false), Ok(vec![Warning::NodeCommand])),
        (rules(false, &[R], true), Ok(vec![Warning::Event, Warning::NodeCommand])),
    ] {
        assert_eq!(decided(&policy, NODE_EXEC, &Upgrade::WebSocket), expected);
        assert_eq!(decided(&policy, "/api/v1/nodes/n/proxy/RUN/ns/p/c?cmd=id", &Upgrade::No), expected);
    }
}

/// 17.2: streams that nothing records are refused on request, and only under enforcement.
#[test]
fn unrecordable_streams() {
    for target in [
        "/api/v1/namespaces/n/pods/p/portforward",
        "/api/v1/namespaces/n/pods/p/proxy/x",
        "/api/v1/namespaces/n/services/s/proxy/x",
        "/api/v1/namespaces/n/pods/p/ephemeralcontainers",
    ] {
        for (enforce, addrs, streams, expected) in [
            (true, &[R][..], UnrecordedStreams::Deny, Err((403, Reason::Stream))),
            (true, &[R], UnrecordedStreams::Forward, Ok(())),
            (false, &[R], UnrecordedStreams::Deny, Ok(())),
            (false, &[], UnrecordedStreams::Deny, Ok(())),
            (true, &[], UnrecordedStreams::Forward, Err((403, Reason::NoRecorder))),
        ] {
            let decision = decide(&rules(enforce, addrs, false), &route(target), &Upgrade::Spdy, streams);
            let got = decision.verdict.map(drop).map_err(|refusal| (refusal.status().as_u16(), refusal.reason));
            assert_eq!(got, expected, "{target} {enforce} {addrs:?}");
        }
        // With an event when events are on, whoever enforces what.
        for enforce in [false, true] {
            let plan = plan_for(&rules(enforce, &[R], true), target, &Upgrade::Spdy).unwrap();
            assert_eq!(
                (plan.event, plan.then),
                (Some(EventKind::Full), Then::Forward(Vec::new())),
                "{target} {enforce}"
            );
        }
    }
}

/// 17.2: each way in which the kubelet runs a command, while recording is enforced.
#[test]
fn each_node_command() {
    for words in ["exec/ns/p/c", "attach/ns/p/c", "run/ns/p/c", "cri/exec/token", "portForward/ns/p"] {
        for policy in [rules(true, &[], false), rules(true, &[R], false), rules(true, &[R], true)] {
            let target = format!("/api/v1/nodes/n/proxy/{words}");
            assert_eq!(decided(&policy, &target, &Upgrade::Spdy), Err((403, Reason::NodeCommand)), "{target}");
        }
    }
}

/// 10.3.5: an odd path is refused while anything is recorded or enforced, and passes otherwise.
#[test]
fn odd_paths() {
    for target in [
        "/api/v1/namespaces/n/pods/p/exec/",
        "/api/v1/namespaces/n/pods/p%2Fexec",
        "//api/v1/pods",
        "/api/v1/./pods",
        "/api/v1/pods/",
        "/api/v1/nodes/n/proxy//exec/ns/p/c",
    ] {
        for (policy, expected) in [
            (rules(false, &[], false), Ok(())),
            (rules(true, &[], false), Err((400, Reason::Path))),
            (rules(false, &[R], false), Err((400, Reason::Path))),
            (rules(true, &[R], true), Err((400, Reason::Path))),
        ] {
            assert_eq!(decided(&policy, target, &Upgrade::Spdy).map(drop), expected, "{target}");
        }
    }
    let service = "/api/v1/namespaces/n/services/s/proxy//a/../b%2Fc/";
    assert_eq!(decided(&rules(true, &[R], false), service, &Upgrade::No), Ok(vec![]));
}

/// 7.1: what a session asks for must be certain, whatever the policy.
#[test]
fn a_broken_query() {
    for policy in [rules(false, &[], false), rules(true, &[R], false)] {
        for query in ["command=sh;x", "command=%", "a=%zz"] {
            let target = format!("/api/v1/namespaces/n/pods/p/exec?{query}");
            assert_eq!(decided(&policy, &target, &Upgrade::Spdy), Err((400, Reason::Query)));
            assert_eq!(decided(&policy, &format!("{PODS}?{query}"), &Upgrade::No), Ok(vec![]));
        }
    }
}

/// The client learns which of its rules it was, and never gets its own query back.
#[test]
fn the_answer_names_the_rule() {
    let policy = policy_of(&json!([
        {"impersonate": {"groups": ["g"]}},
        {"recorder": ["tag:rec", "tag:rec2"], "enforceRecorder": true},
        {"enforceRecorder": true},
    ]));
    let says = |target: &str, upgrade: &Upgrade| {
        let decision = decide(&policy, &route(target), upgrade, UnrecordedStreams::Forward);
        decision.verdict.unwrap_err().message
    };
    let rules = "Asked for by rule 2 of 3 (recorder tag:rec, tag:rec2) and rule 3 of 3 of your grants for \
                 tailscale.com/cap/kubernetes.";
    assert_eq!(
        says("/api/v1/secrets?labelSelector=x", &Upgrade::No),
        format!("forbidden: api request \"/api/v1/secrets\" must be recorded, but no recorders are available. {rules}")
    );
    assert_eq!(
        says(EXEC, &Upgrade::Spdy),
        format!("forbidden: 'kubectl exec' session must be recorded, but no recorders are available. {rules}")
    );
    assert!(says(ATTACH, &Upgrade::Spdy).starts_with("forbidden: 'kubectl attach' session must be recorded, but no"));
    assert!(says(NODE_EXEC, &Upgrade::No).ends_with(rules));
    assert!(says("//api/v1/pods", &Upgrade::No).ends_with(rules));

    let policy = policy_of(
        &json!([{}, {"recorder": ["tag:rec"], "recorderAddrs": [R], "enforceRecorder": true, "enableEvents": true}]),
    );
    let event = decide(&policy, &route(PODS), &Upgrade::No, UnrecordedStreams::Forward).verdict.unwrap_err().message;
    assert_eq!(
        event,
        "error recording Kubernetes API request: this proxy has no recorder yet. Asked for by rule 2 of 2 (recorder \
         tag:rec) of your grants for tailscale.com/cap/kubernetes."
    );
    let policy = policy_of(&json!([{"recorderAddrs": [R]}]));
    let upgrade = decide(&policy, &route(EXEC), &Upgrade::Other("h2c\"".into()), UnrecordedStreams::Forward);
    assert_eq!(
        upgrade.verdict.unwrap_err().message,
        "forbidden: 'kubectl exec' session must be recorded, but its `Upgrade` header is \"h2c\\\"\"; expected \"SPDY/3.1\" \
         or \"websocket\". Asked for by rule 1 of 1 of your grants for tailscale.com/cap/kubernetes."
    );
}
