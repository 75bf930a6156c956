//! What no variant may lack, and none may have.

use super::*;

fn options(listener: Listener, mode: Mode) -> Options {
    Options {
        listener,
        mode,
        groups: vec!["readers".to_owned(), "tag:ci".to_owned()],
        namespace: "ns".to_owned(),
        name: "proxy".to_owned(),
        image: "example.com/tailpod".to_owned(),
        replicas: 2,
        tag: "tag:k8s-proxy".to_owned(),
        src: vec!["group:eng".to_owned()],
    }
}

fn serve() -> Listener {
    Listener::Serve { service: "svc:api".to_owned(), tailnet: "tail1234.ts.net".to_owned() }
}

#[test]
fn impersonation_is_limited_to_the_groups_and_absent_without_auth() {
    for listener in [Listener::Tls, serve()] {
        let auth = render(&options(listener.clone(), Mode::Auth));
        assert!(auth.contains("resources: [\"groups\"]\n    resourceNames: [\"readers\", \"tag:ci\"]"), "{auth}");
        assert_eq!(auth.matches("impersonate\"]").count(), 2, "{auth}");
        let none = render(&Options { groups: Vec::new(), ..options(listener.clone(), Mode::Auth) });
        assert!(!none.contains("resources: [\"groups\"]"), "no names must not mean all of them: {none}");
        let noauth = render(&options(listener, Mode::Noauth));
        assert!(!noauth.contains("mpersonat") && !noauth.contains("ClusterRole"), "{noauth}");
    }
}

/// A second container could write a PROXY header as well as tailscaled.
#[test]
fn whoever_adds_a_container_is_told_what_it_could_do() {
    for (listener, mode, told) in
        [(serve(), Mode::Auth, true), (serve(), Mode::Noauth, false), (Listener::Tls, Mode::Auth, false)]
    {
        let text = render(&options(listener, mode));
        assert_eq!(text.contains("\n# Add no container to these Pods that you would not trust"), told, "{text}");
    }
}

#[test]
fn nothing_has_privilege_and_no_secret_can_be_read_but_by_name() {
    for (listener, mode) in [(Listener::Tls, Mode::Auth), (serve(), Mode::Noauth)] {
        let text = render(&options(listener, mode));
        for word in ["privileged:", "NET_ADMIN", "hostPath", "runAsUser: 0", "\"*\""] {
            assert!(!text.contains(word), "{word} in\n{text}");
        }
        let containers = text.matches("image: ").count();
        assert_eq!(text.matches("runAsNonRoot: true").count(), containers, "{text}");
        assert_eq!(text.matches("readOnlyRootFilesystem: true").count(), containers, "{text}");
        for rule in text.split("  - apiGroups").skip(1).filter(|rule| rule.contains("[\"secrets\"]")) {
            assert!(rule.contains("resourceNames") || rule.contains("verbs: [\"create\"]\n"), "{rule}");
        }
    }
}

#[test]
fn one_is_a_deployment_and_several_have_names_that_stay() {
    for listener in [Listener::Tls, serve()] {
        let several = render(&options(listener.clone(), Mode::Auth));
        assert!(several.contains("kind: StatefulSet") && several.contains("$(POD_NAME)"), "{several}");
        let one = render(&Options { replicas: 1, ..options(listener, Mode::Auth) });
        assert!(one.contains("kind: Deployment") && one.contains("type: Recreate"), "{one}");
        // Its name is another each time: neither the state nor the node's name may hang on it.
        assert!(!one.contains("$(POD_NAME)") && !one.contains("proxy-0"), "{one}");
        assert!(one.contains("value: proxy\n") || one.contains("\"hostname\": \"proxy\""), "{one}");
    }
}

#[test]
fn one_replica_asks_for_the_certificate_and_each_has_its_own_state() {
    let text = render(&options(serve(), Mode::Auth));
    assert_eq!((text.matches("\"issueCerts\": true").count(), text.matches("\"issueCerts\": false").count()), (1, 1));
    for name in ["name: proxy-0\n", "name: proxy-1\n", "name: proxy-0-config\n", "name: api.tail1234.ts.net\n"] {
        assert!(text.contains(name), "{name}: {text}");
    }
    assert!(text.contains("value: \"kube:ns/$(POD_NAME)-config\""), "{text}");
    let long = Listener::Serve { service: format!("svc:{}", "a".repeat(60)), tailnet: "tail1234.ts.net".to_owned() };
    let text = render(&options(long, Mode::Auth));
    let label = text.lines().find_map(|line| line.trim().strip_prefix("tailscale.com/domain: ")).unwrap().to_owned();
    assert!(label.len() == 63 && label.starts_with(&"a".repeat(54)), "{label}");
}
