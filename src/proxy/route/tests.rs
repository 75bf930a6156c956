//! Tables of requests, and what holds for any bytes.

use std::fmt::Write as _;

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

fn route(method: &str, target: &str) -> Route {
    classify(&method.parse().unwrap(), target.as_bytes()).unwrap()
}

/// Verb, group/version, namespace, resource/subresource, name.
fn said(method: &str, target: &str) -> String {
    let RequestInfo {
        is_resource_request, verb, api_group, api_version, namespace, resource, subresource, name, ..
    } = Arc::unwrap_or_clone(route(method, target).info);
    if !is_resource_request {
        return verb;
    }
    format!("{verb} {api_group}/{api_version} [{namespace}] {resource}/{subresource} [{name}]")
}

/// The table of recording.md 9, and what requestinfo.go says about the rest.
#[test]
fn request_info() {
    for (request, expected) in [
        ("GET /api/v1/namespaces", "list /v1 [] namespaces/ []"),
        ("GET /api/v1/namespaces/x", "get /v1 [x] namespaces/ [x]"),
        ("PUT /api/v1/namespaces/x/finalize", "update /v1 [x] namespaces/finalize [x]"),
        ("PUT /api/v1/namespaces/x/status", "update /v1 [x] namespaces/status [x]"),
        ("GET /api/v1/namespaces/x/pods?watch=1", "watch /v1 [x] pods/ []"),
        ("GET /api/v1/pods?watch=", "watch /v1 [] pods/ []"),
        ("GET /api/v1/pods?watch=false", "list /v1 [] pods/ []"),
        ("GET /api/v1/watch/namespaces/x/pods", "watch /v1 [x] pods/ []"),
        ("GET /api/v1/watch/namespaces/x/pods/p", "watch /v1 [x] pods/ [p]"),
        ("HEAD /api/v1/pods", "list /v1 [] pods/ []"),
        ("DELETE /apis/batch/v1/namespaces/x/jobs", "deletecollection batch/v1 [x] jobs/ []"),
        ("DELETE /apis/batch/v1/namespaces/x/jobs/j", "delete batch/v1 [x] jobs/ [j]"),
        ("POST /api/v1/namespaces/x/pods/p/exec", "create /v1 [x] pods/exec [p]"),
        ("GET /api/v1/namespaces/x/services/s:80/proxy/a/b", "get /v1 [x] services/proxy [s:80]"),
        ("GET /apis/g/v1/r?fieldSelector=metadata.name=n", "list g/v1 [] r/ [n]"),
        ("PATCH /api/v1/nodes/n/status", "patch /v1 [] nodes/status [n]"),
        ("OPTIONS /api/v1/pods", " /v1 [] pods/ []"),
        ("get /api/v1/pods", " /v1 [] pods/ []"),
        ("GET /apis/g/v1", "get"),
        ("GET /healthz", "get"),
        ("GET /api/v1", "get"),
        ("GET /", "get"),
        ("Options /apis", "options"),
        ("GET /api/v1/proxy/nodes/n/exec", "proxy /v1 [] nodes/ [n]"),
        ("GET //api/v1/pods/", "list /v1 [] pods/ []"),
        ("GET /api//v1/pods", "get / [] v1/ [pods]"),
        ("GET /api%2Fv1%2Fnamespaces%2Fx%2Fpods%2Fp%2Fexec", "get /v1 [x] pods/exec [p]"),
        ("GET /API/v1/pods", "get"),
    ] {
        let (method, target) = request.split_once(' ').unwrap();
        assert_eq!(said(method, target), expected, "{request}");
    }
}

#[test]
fn a_path_that_ends_too_early_names_no_resource() {
    for target in ["/api/v1/watch", "/api/v1/proxy/", "/apis/g/v1/watch"] {
        let route = route("GET", target);
        assert_eq!(route.derived, Err(NoResource), "{target}");
        assert_eq!((route.info.verb.as_str(), route.info.resource.as_str()), ("get", ""));
    }
}

/// The rows of api-proxy.md 10.3 and 17.2, and their relatives: target, kind, whether it is canonical.
#[test]
fn kinds() {
    const EXEC: Kind = Kind::Session(Session::Exec);
    const ATTACH: Kind = Kind::Session(Session::Attach);
    const POD: &str = "/api/v1/namespaces/n/pods/p";
    const NODE: &str = "/api/v1/nodes/n/proxy";
    for (target, kind, is_canonical) in [
        (format!("{POD}/exec"), EXEC, true),
        (format!("{POD}/exec?command=sh"), EXEC, true),
        (format!("{POD}/exec/"), EXEC, false),
        (format!("{POD}/exec/x"), EXEC, true),
        (format!("{POD}/exec/x/"), EXEC, false),
        (format!("{POD}%2Fexec"), EXEC, false),
        (format!("{POD}%2fexec"), EXEC, false),
        (format!("{POD}/%65xec"), EXEC, false),
        (format!("{POD}/exec%2F"), EXEC, false),
        (format!("/{POD}/exec"), EXEC, false),
        (format!("/%2Fapi{}/attach", &POD[4..]), ATTACH, false),
        (format!("{POD}/attach"), ATTACH, true),
        ("/api/v2beta1/namespaces/n/pods/p/exec".into(), EXEC, true),
        ("/api/v1/pods/p/exec".into(), EXEC, true),
        ("/api/v1/watch/namespaces/n/pods/p/exec".into(), EXEC, true),
        ("/apis//v1/namespaces/n/pods/p/exec".into(), EXEC, false),
        // What kube-apiserver does not take for exec is not exec.
        (format!("{POD}/%2e/exec"), Kind::Other, false),
        (format!("{POD}//exec"), Kind::Other, false),
        (format!("{POD}/x/../exec"), Kind::Other, false),
        (format!("{POD}/Exec"), Kind::Other, true),
        (format!("{POD}/%2565xec"), Kind::Other, true),
        (format!("{POD}/exec%20"), Kind::Other, true),
        ("/apis/apps/v1/namespaces/n/pods/p/exec".into(), Kind::Other, true),
        ("/api/v1/proxy/namespaces/n/pods/p/exec".into(), Kind::Unrecordable("proxy to a Pod"), true),
        // Commands on a node.
        (format!("{NODE}/exec/ns/p/c"), Kind::NodeCommand, true),
        (format!("{NODE}/EXEC/ns/p/c"), Kind::NodeCommand, true),
        (format!("{NODE}/attach/ns/p/c"), Kind::NodeCommand, true),
        (format!("{NODE}/run/ns/p/c"), Kind::NodeCommand, true),
        (format!("{NODE}/cri/exec/token"), Kind::NodeCommand, true),
        (format!("{NODE}/portForward/ns/p"), Kind::NodeCommand, true),
        (format!("{NODE}/portforward/ns/p"), Kind::NodeCommand, true),
        (format!("{NODE}%2Fexec/ns/p/c"), Kind::NodeCommand, false),
        (format!("{NODE}//exec/ns/p/c"), Kind::NodeCommand, false),
        (format!("{NODE}/./exec/ns/p/c"), Kind::NodeCommand, false),
        (format!("{NODE}/metrics/../exec/ns/p/c"), Kind::NodeCommand, false),
        (format!("{NODE}/%2e%2e/%65xec/ns/p/c"), Kind::NodeCommand, false),
        ("/api/v1/nodes/n:10250/proxy/run/ns/p/c".into(), Kind::NodeCommand, true),
        ("/api/v1/nodes/https:n:10250/proxy/run/ns/p/c".into(), Kind::NodeCommand, true),
        ("/api/v1/proxy/nodes/n/exec/ns/p/c".into(), Kind::NodeCommand, true),
        (format!("{NODE}/metrics"), Kind::Other, true),
        (format!("{NODE}/logs/"), Kind::Other, true),
        (format!("{NODE}/executable"), Kind::Other, true),
        (NODE.to_owned(), Kind::Other, true),
        // Streams that cannot be recorded.
        (format!("{POD}/portforward"), Kind::Unrecordable("port-forward"), true),
        (format!("{POD}/portforward/"), Kind::Unrecordable("port-forward"), false),
        (format!("{POD}/proxy"), Kind::Unrecordable("proxy to a Pod"), true),
        (format!("{POD}/proxy/"), Kind::Unrecordable("proxy to a Pod"), true),
        (format!("{POD}/proxy//a/../b%2Fc/"), Kind::Unrecordable("proxy to a Pod"), true),
        (format!("{POD}/proxy%2Fa"), Kind::Unrecordable("proxy to a Pod"), false),
        (format!("{POD}/proxy/../exec"), Kind::Unrecordable("proxy to a Pod"), false),
        (format!("{POD}/proxy/a/%2e%2e/..%2Fexec"), Kind::Unrecordable("proxy to a Pod"), false),
        ("/api/v1/proxy/namespaces/n/services/s/../../pods/p".into(), Kind::Unrecordable("proxy to a Service"), false),
        ("/api/v1/proxy/namespaces/n/services/s/a/../b".into(), Kind::Unrecordable("proxy to a Service"), true),
        ("/api/v1/namespaces/n/services/https:s:443/proxy/x".into(), Kind::Unrecordable("proxy to a Service"), true),
        ("/api/v1/namespaces/n/services/https%3As%3A443/proxy/".into(), Kind::Unrecordable("proxy to a Service"), true),
        (format!("{POD}/ephemeralcontainers"), Kind::Unrecordable("ephemeral container"), true),
        // The rest.
        (format!("{POD}/log?follow=true"), Kind::Other, true),
        (format!("{POD}/"), Kind::Other, false),
        ("/".into(), Kind::Other, true),
        ("/apis/apps/v1/".into(), Kind::Other, true),
        ("/version/".into(), Kind::Other, true),
        ("//version".into(), Kind::Other, false),
        ("/api/v1/../../healthz".into(), Kind::Other, false),
        ("/api/v1/watch".into(), Kind::Other, true),
    ] {
        let got = route("GET", &target);
        assert_eq!((got.kind, got.is_canonical()), (kind, is_canonical), "{target}");
        assert_eq!(kind_of(target.as_bytes()), Ok(kind), "{target}");
    }
}

#[test]
fn sessions_are_sent_canonically_and_others_as_they_came() {
    for (target, expected) in [
        ("/api/v1/namespaces/n/pods/p%2F%65xec/?command=a%20b", "/api/v1/namespaces/n/pods/p/exec?command=a%20b"),
        ("//api/v1/namespaces/n/pods/p%3a1/attach?", "/api/v1/namespaces/n/pods/p:1/attach?"),
        ("/api/v1/namespaces/n/pods/%C3%BC/exec", "/api/v1/namespaces/n/pods/%C3%BC/exec"),
        ("//api/v1//%70ods/?watch=1", "//api/v1//%70ods/?watch=1"),
        ("/api/v1/pods?b=1&a=%zz", "/api/v1/pods?b=1"),
        ("/api/v1/pods?b=1;a=2&a=3", "/api/v1/pods?a=3"),
        ("/api/v1/pods?", "/api/v1/pods?"),
    ] {
        assert_eq!(String::from_utf8_lossy(route("GET", target).target()), expected, "{target}");
    }
}

#[test]
fn a_broken_query_is_noticed() {
    assert_eq!(route("GET", "/api/v1/pods?a=1;b").query, Query::Broken);
    assert_eq!(route("GET", "/api/v1/pods?a=%4").query, Query::Broken);
    assert_eq!(route("GET", "/api/v1/pods?a=%41").query, Query::Sound);
    assert_eq!(route("GET", "/api/v1/pods").query, Query::Sound);
}

#[test]
fn what_no_path_may_hold() {
    for target in ["*", "host:443", "https://h/api", "", "/%", "/%0", "/%0g", "/%00", "/a%0A", "/a\\b", "/%5c", "/#x"] {
        assert!(classify(&Method::GET, target.as_bytes()).is_err(), "{target}");
        assert!(kind_of(target.as_bytes()).is_err(), "{target}");
    }
}

/// Every line of the table is reachable, and none hides another.
#[test]
fn each_line_of_the_table_is_reached() {
    for line in ROUTES {
        let word = line.words.first().copied().unwrap_or_default();
        let target = format!("/api/v1/{}/x/{}/{word}", line.resource, line.subresource);
        assert_eq!(kind_of(target.as_bytes()), Ok(line.kind), "{target}");
    }
}

/// Paths that are likely to mean something.
fn paths() -> impl Strategy<Value = String> {
    let token = prop_oneof![
        Just("api"),
        Just("apis"),
        Just("v1"),
        Just("namespaces"),
        Just("n"),
        Just("pods"),
        Just("p"),
        Just("exec"),
        Just("attach"),
        Just("proxy"),
        Just("watch"),
        Just("nodes"),
        Just("run"),
        Just("status"),
        Just("%65xec"),
        Just(".."),
        Just("."),
        Just(""),
        Just("%2e"),
        Just("a%2Fb"),
        Just("%2F"),
    ];
    let separator = prop_oneof![8 => Just("/"), 1 => Just("//"), 1 => Just("%2F"), 1 => Just("%2f")];
    let part = (separator, token).prop_map(|(separator, token)| [separator, token].concat());
    proptest::collection::vec(part, 0..10).prop_map(|parts| ["/", &parts.concat()].concat())
}

proptest! {
    /// What is sent means what was decided about: the same tokens, the same kind.
    #[test]
    fn what_is_sent_is_what_was_judged(path in paths()) {
        let judged = route("GET", &path);
        let again = classify(&Method::GET, judged.target()).unwrap();
        prop_assert_eq!(kind_of(judged.target()), Ok(judged.kind));
        prop_assert_eq!(&again.info.parts, &judged.info.parts);
        prop_assert_eq!((&again.info.resource, &again.info.subresource, &again.info.name, &again.info.namespace),
                        (&judged.info.resource, &judged.info.subresource, &judged.info.name, &judged.info.namespace));
        prop_assert_eq!(again.target(), judged.target());
    }

    /// Escaping, doubling and trailing slashes never turn a session into something else.
    #[test]
    fn no_spelling_hides_a_session(escapes in proptest::collection::vec(any::<bool>(), 40), lead in 1..4_usize, trail in 0..3_usize) {
        let plain = "api/v1/namespaces/n/pods/p/exec";
        let mut path = "/".repeat(lead);
        for (byte, escape) in plain.bytes().zip(escapes) {
            if escape { write!(path, "%{byte:02x}").unwrap() } else { path.push(char::from(byte)) }
        }
        path.push_str(&"/".repeat(trail));
        let got = route("POST", &path);
        prop_assert_eq!(got.kind, Kind::Session(Session::Exec));
        prop_assert_eq!(got.target(), &b"/api/v1/namespaces/n/pods/p/exec"[..]);
        prop_assert_eq!(got.is_canonical(), path[1..] == *plain);
    }

    #[test]
    fn anything_at_all(target in proptest::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(route) = classify(&Method::GET, &target) {
            prop_assert!(route.target().len() <= 3 * target.len());
            prop_assert_eq!(kind_of(route.target()), Ok(route.kind));
        }
    }
}
