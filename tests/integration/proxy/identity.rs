//! Who asks, and as whom it reaches the API server.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tailpod::sandbox::Fault;

use super::watch::{WATCH, watch};
use super::world::{ANN, CAPABILITY, TOKEN, World, get, tagged, user};

const LEGACY: &str = "https://tailscale.com/cap/kubernetes";

#[tokio::test]
async fn row_1_a_user_gets_the_granted_groups_once_each_and_the_proxys_token() {
    let world = World::start(&[]).await;
    world.grant(&json!([{"impersonate": {"groups": ["g1", "g2", "g1"]}}]));
    let answer = world.get("/api/v1/pods?limit=5").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"kind":"Pretend"}"#));
    let seen = world.upstream.request(0).await;
    assert_eq!(seen.line(), "GET /api/v1/pods?limit=5 HTTP/1.1");
    assert_eq!(seen.all("impersonate-user"), ["ann@example.com"]);
    assert_eq!(seen.all("impersonate-group"), ["g1", "g2"]);
    assert_eq!(seen.all("authorization"), [format!("Bearer {TOKEN}")]);
    assert_eq!((seen.all("host"), seen.all("user-agent").len()), (vec!["proxy.ts.net"], 0));
    let ended = world.stops().await;
    assert!(ended.mentions("ann@example.com") && !ended.mentions(TOKEN) && !ended.mentions("limit=5"), "{ended:?}");
}

#[tokio::test]
async fn row_2_a_tagged_node_without_rules_acts_as_itself_in_its_tags() {
    let world = World::start(&[]).await;
    world.daemon().set_whois(ANN, tagged("ci.ts.net.", &["tag:a", "tag:b"], &json!({})));
    world.get("/api").await;
    let seen = world.upstream.request(0).await;
    assert_eq!(seen.all("impersonate-user"), ["ci.ts.net"]);
    assert_eq!(seen.all("impersonate-group"), ["tag:a", "tag:b"]);
}

#[tokio::test]
async fn row_3_nothing_that_a_client_says_of_itself_arrives() {
    let world = World::start(&[]).await;
    let request = "GET /api HTTP/1.1\r\nHost: h\r\nimpersonate-GROUP: system:masters\r\nIMPERSONATE-USER: root\r\n\
                   Impersonate-Extra-Scopes: x\r\nImpersonate_User: root\r\nX-Remote-User: root\r\n\
                   X-Forwarded-For: 100.64.0.1\r\nAuthorization: Bearer evil\r\nKubectl-Command: kubectl get\r\n\r\n";
    assert_eq!(world.ask(request).await.status, 200);
    let seen = world.upstream.request(0).await;
    assert_eq!(seen.all("impersonate-user"), ["ann@example.com"]);
    assert_eq!(seen.all("authorization"), [format!("Bearer {TOKEN}")]);
    assert_eq!(seen.all("kubectl-command"), ["kubectl get"]);
    for word in ["root", "system:masters", "extra", "evil", "x-remote", "forwarded"] {
        assert!(!seen.head.to_lowercase().contains(word), "{}", seen.head);
    }
}

#[tokio::test]
async fn row_4_connection_cannot_take_the_impersonation_away() {
    let world = World::start(&[]).await;
    world.grant(&json!([{"impersonate": {"groups": ["g1"]}}]));
    let request =
        "GET /api HTTP/1.1\r\nHost: h\r\nConnection: Impersonate-User, Impersonate-Group, Authorization\r\n\r\n";
    assert_eq!(world.ask(request).await.status, 200);
    let seen = world.upstream.request(0).await;
    assert_eq!(seen.all("impersonate-user"), ["ann@example.com"]);
    assert_eq!(seen.all("impersonate-group"), ["g1"]);
    assert_eq!(seen.all("authorization").len(), 1);
}

#[tokio::test]
async fn row_5_the_legacy_capability_grants_groups_and_demands_no_recording() {
    let world = World::start(&[]).await;
    let rules = json!({ LEGACY: [{"impersonate": {"groups": ["old"]}, "enforceRecorder": true}] });
    world.daemon().set_whois(ANN, user("ann@example.com", &rules));
    assert_eq!(world.get("/api/v1/pods").await.status, 200);
    assert_eq!(world.upstream.request(0).await.all("impersonate-group"), ["old"]);
}

/// A caller about whom whois answers this gets a 500 that says so, and nothing is forwarded.
async fn is_refused(whois: Value, message: &str) {
    let world = World::start(&[]).await;
    world.daemon().set_whois(ANN, whois);
    world.get("/api/v1/pods").await.is_status(500, message);
    let exec = "POST /api/v1/namespaces/n/pods/p/exec?command=id HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\n\
                Upgrade: SPDY/3.1\r\nContent-Length: 0\r\n\r\n";
    world.ask(exec).await.is_status(500, message);
    world.nothing_upstream();
    let ended = world.stops().await;
    assert!(ended.mentions("refused: "), "{}", ended.text());
}

#[tokio::test]
async fn row_6_a_legacy_rule_that_is_none() {
    is_refused(user("ann@example.com", &json!({ LEGACY: [[]] })), "cannot use the caller's grants").await;
}

#[tokio::test]
async fn row_7_a_rule_that_is_none() {
    is_refused(user("ann@example.com", &json!({ CAPABILITY: ["x"] })), "cannot use the caller's grants").await;
}

#[tokio::test]
async fn row_8_a_person_without_a_name() {
    is_refused(user("", &json!({})), "cannot impersonate the caller").await;
}

#[tokio::test]
async fn nobody_who_could_be_taken_for_somebody_else_is_impersonated() {
    let world = World::start(&[]).await;
    let granted =
        |groups: Value| user("ann@example.com", &json!({ CAPABILITY: [{"impersonate": {"groups": groups}}] }));
    for answer in [
        tagged("", &["tag:a"], &json!({})),
        user("ann\r\nImpersonate-Group: system:masters", &json!({})),
        user("ann\0", &json!({})),
        user("system:serviceaccount:kube-system:admin", &json!({})),
        granted(json!(["good", "g\nImpersonate-User: root"])),
    ] {
        world.daemon().set_whois(ANN, answer.clone());
        let refused = world.get("/api").await;
        assert_eq!(refused.status, 500, "{answer}");
        refused.is_status(500, "");
    }
    world.nothing_upstream();
    // Passed as they are: groups of the cluster, and letters of any language. An empty group is none.
    world.daemon().set_whois(ANN, granted(json!(["system:masters", "", "Gr\u{fc}ppe"])));
    assert_eq!(world.get("/api").await.status, 200);
    assert!(
        world
            .upstream
            .request(0)
            .await
            .head
            .contains("impersonate-group: system:masters\r\nimpersonate-group: Gr\u{fc}ppe\r\n")
    );
}

#[tokio::test]
async fn a_caller_may_ask_for_some_of_the_groups_it_was_granted() {
    let world = World::start(&[]).await;
    world.grant(&json!([{"impersonate": {"groups": ["dev"], "allow": ["admin"]}}]));
    let asking = |groups: &[&str]| {
        let groups: Vec<_> = groups.iter().map(|group| format!("Impersonate-Group: {group}\r\n")).collect();
        let groups = groups.concat();
        format!("GET /api HTTP/1.1\r\nHost: h\r\nImpersonate-User: root\r\nAccept: application/json\r\n{groups}\r\n")
    };
    assert_eq!(world.ask(&asking(&["admin"])).await.status, 200);
    assert_eq!(world.ask(&asking(&[])).await.status, 200);
    let refused = world.ask(&asking(&["admin", "system:masters"])).await;
    refused.is_status(403, "");
    assert!(refused.text().contains("system:masters"), "{}", refused.text());
    let seen = world.upstream.seen();
    let groups: Vec<_> = seen.iter().map(|seen| seen.all("impersonate-group")).collect();
    assert_eq!(groups, [["admin"], ["dev"]]);
    assert!(seen.iter().all(|seen| seen.all("impersonate-user") == ["ann@example.com"]));
}

#[tokio::test]
async fn row_9_without_authentication_everything_is_the_clients_own() {
    let world = World::start(&["--mode", "noauth"]).await;
    let request = "GET /api HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer mine\r\nImpersonate-User: other\r\n\r\n";
    assert_eq!(world.ask(request).await.status, 200);
    let seen = world.upstream.request(0).await;
    assert_eq!((seen.all("authorization"), seen.all("impersonate-user")), (vec!["Bearer mine"], vec!["other"]));
    assert_eq!(world.ask("GET /api HTTP/1.1\r\nHost: h\r\n\r\n").await.status, 200);
    assert_eq!(world.upstream.request(1).await.all("authorization").len(), 0);
}

/// Recording and being somebody on the tailnet are asked of everybody, in the same words.
#[tokio::test]
async fn row_9_without_authentication_the_same_are_refused() {
    let mut told = Vec::new();
    for mode in ["auth", "noauth"] {
        let world = World::start(&["--mode", mode]).await;
        let mine = "Host: h\r\nAuthorization: Bearer mine\r\nAccept: application/json\r\n";
        let list = format!("GET /api/v1/pods HTTP/1.1\r\n{mine}\r\n");
        let exec =
            "POST /api/v1/namespaces/n/pods/p/exec?command=id HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n";
        let exec = format!("{exec}{mine}\r\n");
        let mut nobody = world.client_from("100.64.0.77:1").await;
        nobody.send(&list).await;
        let unknown = nobody.answer().await;
        unknown.is_status(500, "failed to authenticate caller");
        world.grant(&json!(["x"]));
        let unreadable = world.ask(&list).await;
        unreadable.is_status(500, "cannot use the caller's grants");
        world.grant(&json!([{"enforceRecorder": true}]));
        let (unrecorded, session) = (world.ask(&list).await, world.ask(&exec).await);
        unrecorded.is_status(403, "forbidden: api request");
        session.is_status(403, "forbidden: 'kubectl exec' session");
        world.nothing_upstream();
        told.push([unknown, unreadable, unrecorded, session].map(|answer| answer.text()));
    }
    assert_eq!(told[0], told[1]);
}

#[tokio::test]
async fn row_16_no_header_supplies_an_identity() {
    let world = World::start(&[]).await;
    let mut client = world.client_from("100.64.0.77:1").await;
    client.send(format!("GET /api HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: {ANN}\r\n\r\n")).await;
    client.answer().await.is_status(500, "failed to authenticate caller");
    // The connection is good for another try.
    client.send(get("/api")).await;
    client.answer().await.is_status(500, "failed to authenticate caller");
    world.nothing_upstream();
}

/// Ports of loopback are used again within milliseconds, and so may be a peer's.
#[tokio::test]
async fn who_comes_from_the_same_address_is_not_the_same() {
    let world = World::start(&[]).await;
    let mut first = world.client().await;
    first.send(get("/api")).await;
    first.answer().await;
    world.daemon().set_whois(ANN, user("bob@example.com", &json!({})));
    let mut second = world.client().await;
    second.send(get("/api")).await;
    second.answer().await;
    assert_eq!(world.upstream.request(1).await.all("impersonate-user"), ["bob@example.com"]);
    let asked = world.daemon().calls().into_iter().filter(|call| call.endpoint == "whois");
    for call in asked {
        assert!(call.query.contains("proto=tcp") && call.query.contains("100.64.0.9"), "{}", call.query);
    }
}

/// The other way round: a port that is used again must not make who had it before somebody else.
#[tokio::test]
async fn a_connection_never_becomes_another_nodes() {
    let world = World::start(&[]).await;
    world.daemon().await_watchers(1, crate::support::SOON).await.unwrap();
    let mut client = world.client().await;
    client.send(get("/api")).await;
    assert_eq!(client.answer().await.status, 200);
    let admin = json!({ CAPABILITY: [{"impersonate": {"groups": ["system:masters"]}}] });
    world.daemon().set_whois(ANN, tagged("admin.ts.net.", &["tag:admin"], &admin));
    world.daemon().notify(json!({"PeersChanged": [{"ID": 9}]}));
    let begun = std::time::Instant::now();
    loop {
        client.send(get("/api")).await;
        let answer = client.answer().await;
        if answer.status == 500 {
            answer.is_status(500, "failed to authenticate caller");
            break;
        }
        assert!(begun.elapsed() < crate::support::SOON, "it goes on");
    }
    for request in world.upstream.seen() {
        assert_eq!(request.all("impersonate-user"), ["ann@example.com"]);
    }
    // Who has the address now is served on a connection of its own.
    assert_eq!(world.get("/api").await.status, 200);
}

#[tokio::test]
async fn a_change_of_the_netmap_is_seen_on_the_same_connection_at_once() {
    let world = World::start(&[]).await;
    let groups = |client: Value| json!([{"impersonate": {"groups": client}}]);
    world.grant(&groups(json!(["before"])));
    world.daemon().await_watchers(1, crate::support::SOON).await.unwrap();
    let mut client = world.client().await;
    let begun = Instant::now();
    client.send(get("/api")).await;
    client.answer().await;
    let asked = whois_calls(&world);
    for _ in 0..5 {
        client.send(get("/api")).await;
        client.answer().await;
    }
    assert!(whois_calls(&world) <= asked + 1, "the answer belongs to the connection for a while");
    world.grant(&groups(json!(["after"])));
    world.daemon().notify(json!({"PeersChanged": [{"ID": 9}]}));
    let mut number = 6;
    loop {
        client.send(get("/api")).await;
        assert_eq!(client.answer().await.status, 200, "a change between judgement and sending is judged again");
        // The message needs a moment; five seconds would be the cache's own age.
        if world.upstream.request(number).await.all("impersonate-group") == ["after"] {
            break;
        }
        number += 1;
        assert!(begun.elapsed() < Duration::from_secs(4), "the change was not noticed before the answer was too old");
    }
}

/// tailscaled tells of a user's new name without a word about the peers.
#[tokio::test]
async fn a_login_that_was_renamed_is_seen_on_the_same_connection_at_once() {
    let world = World::start(&[]).await;
    world.daemon().await_watchers(1, crate::support::SOON).await.unwrap();
    let mut client = world.client().await;
    let begun = Instant::now();
    client.send(get("/api")).await;
    client.answer().await;
    world.daemon().set_whois(ANN, user("anna@example.com", &json!({})));
    world.daemon().notify(json!({"UserProfiles": {"7": {"ID": 7, "LoginName": "anna@example.com"}}}));
    let mut number = 1;
    loop {
        client.send(get("/api")).await;
        client.answer().await;
        if world.upstream.request(number).await.all("impersonate-user") == ["anna@example.com"] {
            break;
        }
        number += 1;
        assert!(begun.elapsed() < Duration::from_secs(4), "the name was not noticed before the answer was too old");
    }
}

#[tokio::test]
async fn tailscaled_gone_means_no_and_comes_back_by_itself() {
    let world = World::start(&[]).await;
    world.upstream.script(watch(1));
    let mut watching = world.client().await;
    watching.send(get(WATCH)).await;
    watching.head().await;
    world.grant(&json!([{"impersonate": {"groups": ["before"]}}]));
    let mut client = world.client().await;
    client.send(get("/api")).await;
    assert_eq!(client.answer().await.status, 200);
    world.daemon().fail("*", Fault::Close);
    world.daemon().close_watches();
    loop {
        client.send(get("/api")).await;
        let answer = client.answer().await;
        if answer.status == 500 {
            answer.is_status(500, "failed to authenticate caller");
            break;
        }
    }
    // From now on nothing passes, on old connections and on new ones; what has begun goes on.
    let before = world.upstream.seen().len();
    for _ in 0..3 {
        client.send("POST /api HTTP/1.1\r\nHost: h\r\nAccept: application/json\r\nContent-Length: 0\r\n\r\n").await;
        client.answer().await.is_status(500, "failed to authenticate caller");
        world.get("/api").await.is_status(500, "failed to authenticate caller");
    }
    assert_eq!(world.upstream.seen().len(), before);
    world.upstream.go_on();
    watching.until(b"event\n\r\n").await;
    // Back, it is asked: what it said before it went is forgotten.
    world.grant(&json!([{"impersonate": {"groups": ["after"]}}]));
    world.daemon().heal();
    client.send(get("/api")).await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(world.upstream.request(before).await.all("impersonate-group"), ["after"]);
    let ended = world.stops().await;
    assert!(ended.mentions("cannot ask tailscaled who"), "{}", ended.text());
}

#[tokio::test]
async fn grants_of_a_service_count_when_asked_for() {
    let world = World::start(&["--service", "svc:api", "--service-grants"]).await;
    let granted = user("ann@example.com", &json!({ CAPABILITY: [{"impersonate": {"groups": ["of-it"]}}] }));
    world.daemon().set_whois_of("svc:api", ANN, granted);
    assert_eq!(world.get("/api").await.status, 200);
    assert_eq!(world.upstream.request(0).await.all("impersonate-group"), ["of-it"]);
    world.daemon().set_whois_of(
        "svc:api",
        ANN,
        user("ann@example.com", &json!({ CAPABILITY: [{"enforceRecorder": true}] })),
    );
    world.get("/api").await.is_status(403, "forbidden: api request");
    assert_eq!(world.upstream.seen().len(), 1);
}

fn whois_calls(world: &World) -> usize {
    world.daemon().calls().iter().filter(|call| call.endpoint == "whois").count()
}
