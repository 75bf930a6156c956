//! Limits of seconds to hours, and what has none.

use std::time::Duration;

use serde_json::json;
use tailpod::proxy::{Client as ClientAddress, Tls};
use tailpod::sandbox::Fault;
use tailpod::sandbox::tls::{issue, issue_for};
use tailpod::settings::KubeAccess;
use tokio::io::AsyncWriteExt;

use super::inside::{Inside, pass};
use super::tls::{NODE, known, trusts, trusts_at};
use super::upstream::Step;
use super::watch::{WATCH, watch};
use super::world::{ANN, CAPABILITY, Client, World, get, user};
use crate::support::SOON;

const SECOND: Duration = Duration::from_secs(1);

fn say(text: &str) -> Step {
    Step::Say(text.as_bytes().to_vec())
}

/// Ten minutes, and then some: a limit of any length would show itself.
#[tokio::test]
async fn row_18_nothing_bounds_a_watch_or_a_session() {
    let proxy = Inside::start().await;
    proxy.upstream.script(watch(1));
    let mut watching = proxy.client().await;
    watching.send(get(WATCH)).await;
    watching.head().await;
    proxy.upstream.script([
        say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
        Step::Echo,
    ]);
    let mut session = proxy.client().await;
    let exec =
        "GET /api/v1/namespaces/n/pods/p/exec HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    session.send(exec).await;
    session.head().await;
    for _ in 0..24 {
        pass(600 * SECOND).await;
    }
    proxy.upstream.go_on();
    assert_eq!(watching.until(b"event\n\r\n").await, b"6\r\nevent\n\r\n");
    session.send("still there").await;
    assert_eq!(session.exactly(11).await, b"still there");
    drop((watching, session));
    proxy.stop().await;
}

/// Whoever reads now and then may take all day; whoever has stopped holds a connection to the API server for nothing.
#[tokio::test]
async fn a_client_that_has_stopped_reading_is_given_up_and_a_slow_one_is_not() {
    const LENGTH: usize = 32 << 20;
    let proxy = Inside::start().await;
    let plain = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
    let switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let attach = "GET /api/v1/namespaces/n/pods/p/attach HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    for (head, request) in [(plain.as_str(), get("/api/large")), (switching, attach.to_owned())] {
        let mut clients = Vec::new();
        for _ in 0..2 {
            let all = Step::Say([head.as_bytes(), &vec![b'x'; LENGTH]].concat());
            // Without its farewell the end would be a break, which may overtake what was said before.
            proxy.upstream.script([all, Step::HalfClose, Step::Close]);
            let mut client = proxy.client().await;
            client.send(&request).await;
            client.head().await;
            clients.push(client);
        }
        let [mut slow, mut stuck] = clients.try_into().ok().unwrap();
        let mut read = 0;
        for _ in 0..5 {
            // Until nothing moves any more.
            tokio::time::sleep(Duration::from_millis(200)).await;
            pass(600 * SECOND).await;
            read += slow.exactly(4 << 20).await.len();
        }
        // The whole of it.
        slow.exactly(LENGTH - read).await;
        let read = stuck.rest().await.len();
        assert!(read < LENGTH, "{request}: it got everything");
    }
    proxy.stop().await;
}

/// What it says goes nowhere, and it is not told so.
#[tokio::test]
async fn a_client_that_talks_on_to_a_server_that_has_gone_is_heard_out_but_not_for_ever() {
    let proxy = Inside::start().await;
    let switching = say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nbye");
    proxy.upstream.script([switching, Step::HalfClose, Step::Close]);
    let mut client = proxy.client().await;
    client.send("GET /api HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    client.head().await;
    assert_eq!(client.rest().await, b"bye");
    for _ in 0..5 {
        client.send("ping").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    pass(600 * SECOND).await;
    client.send("ping").await;
    pass(600 * SECOND).await;
    until(async || client.stream.write_all(b"ping").await.is_err()).await;
    proxy.stop().await;
}

#[tokio::test]
async fn row_19_a_rotated_token_is_used_within_a_minute_and_no_request_fails() {
    let (sandbox, upstream) = World::parts().await;
    let dir = "var/run/secrets/kubernetes.io/serviceaccount";
    sandbox.pod().write(&format!("{dir}/ca.crt"), upstream.ca_pem()).unwrap();
    let token = sandbox.pod().write(&format!("{dir}/token"), "first\n").unwrap();
    let service_account = token.parent().unwrap().to_owned();
    let access = KubeAccess::InCluster { service_account, url: format!("https://{}", upstream.addr()) };
    let proxy = Inside::with(sandbox, upstream, &access, ClientAddress::ProxyHeader, Tls::Off).await;
    let mut client = proxy.client().await;
    let mut used = Vec::new();
    for number in 0..7 {
        client.send(get("/api")).await;
        assert_eq!(client.answer().await.status, 200);
        used.push(proxy.upstream.request(number).await.all("authorization")[0].to_owned());
        if number == 0 {
            proxy.sandbox.pod().write(&format!("{dir}/token"), "second\n").unwrap();
        }
        pass(10 * SECOND).await;
    }
    assert_eq!((used[1].as_str(), used[6].as_str()), ("Bearer first", "Bearer second"));
    // Empty, it is passed over.
    proxy.sandbox.pod().write(&format!("{dir}/token"), "").unwrap();
    pass(60 * SECOND).await;
    client.send(get("/api")).await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(proxy.upstream.request(7).await.all("authorization"), ["Bearer second"]);
    proxy.stop().await;
}

#[tokio::test]
async fn an_identity_is_five_seconds_old_at_most() {
    let proxy = Inside::start().await;
    let grant = |group: &str| {
        let rules = json!({ CAPABILITY: [{"impersonate": {"groups": [group]}}] });
        proxy.daemon().set_whois(ANN, user("ann@example.com", &rules));
    };
    grant("before");
    proxy.daemon().await_watchers(1, SOON).await.unwrap();
    let mut client = proxy.client().await;
    client.send(get("/api")).await;
    client.answer().await;
    // Nobody says that anything changed.
    grant("after");
    // What the test itself takes counts too.
    pass(Duration::from_millis(4_500)).await;
    client.send(get("/api")).await;
    client.answer().await;
    assert_eq!(proxy.upstream.request(1).await.all("impersonate-group"), ["before"]);
    pass(Duration::from_millis(500)).await;
    client.send(get("/api")).await;
    client.answer().await;
    assert_eq!(proxy.upstream.request(2).await.all("impersonate-group"), ["after"]);
    proxy.stop().await;
}

#[tokio::test]
async fn a_daemon_that_does_not_say_who_calls_is_not_waited_for() {
    let proxy = Inside::start().await;
    let mut client = proxy.client().await;
    client.send(get("/api")).await;
    assert_eq!(client.answer().await.status, 200);
    proxy.daemon().fail("whois", Fault::Hang);
    pass(5 * SECOND).await;
    let asked = proxy.daemon().count("GET whois");
    client.send(get("/api")).await;
    proxy.daemon().await_count("GET whois", asked + 1, SOON).await.unwrap();
    pass(5 * SECOND).await;
    client.answer().await.is_status(500, "failed to authenticate caller");
    assert_eq!(proxy.upstream.seen().len(), 1);
    proxy.daemon().heal();
    client.send(get("/api")).await;
    assert_eq!(client.answer().await.status, 200);
    proxy.stop().await;
}

#[tokio::test]
async fn a_connection_idles_two_minutes_and_its_next_head_takes_one_at_most() {
    let proxy = Inside::start().await;
    let mut idle = proxy.client().await;
    for _ in 0..2 {
        idle.send(get("/api")).await;
        assert_eq!(idle.answer().await.status, 200);
        pass(119 * SECOND).await;
    }
    let mut slow = proxy.client().await;
    slow.send(get("/api")).await;
    slow.answer().await;
    slow.send("GET /api HTTP/1.1\r\nHost: h\r\n").await;
    // Seen by the proxy, so that the minute has begun.
    tokio::time::sleep(Duration::from_millis(50)).await;
    pass(2 * SECOND).await;
    assert_eq!(idle.rest().await, b"");
    pass(57 * SECOND).await;
    slow.send("\r\n").await;
    assert_eq!(slow.answer().await.status, 200);
    slow.send("GET /api HTTP/1.1\r\nHost: h\r\n").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    pass(61 * SECOND).await;
    assert_eq!(slow.rest().await, b"");
    proxy.stop().await;
}

#[tokio::test]
async fn a_slow_answer_is_waited_for_and_a_slow_handshake_is_not() {
    let proxy = Inside::start().await;
    proxy.upstream.script([Step::Await, Step::Say(super::upstream::json("{}"))]);
    let mut client = proxy.client().await;
    client.send(get("/api")).await;
    proxy.upstream.request(0).await;
    pass(3600 * SECOND).await;
    proxy.upstream.go_on();
    assert_eq!(client.answer().await.status, 200);
    proxy.stop().await;

    // It accepts connections and says nothing at all.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (sandbox, upstream) = World::parts().await;
    let kubeconfig = upstream.kubeconfig("", "t").replace(&upstream.addr().to_string(), &addr_of(&silent));
    let path = sandbox.pod().write("etc/upstream", kubeconfig).unwrap();
    let access = KubeAccess::Kubeconfig { path, context: None };
    let proxy = Inside::with(sandbox, upstream, &access, ClientAddress::ProxyHeader, Tls::Off).await;
    let mut client = proxy.client().await;
    client.send(get("/api")).await;
    let (dialled, _) = silent.accept().await.unwrap();
    // The handshake has begun.
    dialled.readable().await.unwrap();
    pass(10 * SECOND).await;
    client.answer().await.is_status(502, "cannot reach the API server: no answer within 10s");
    proxy.stop().await;
}

fn addr_of(listener: &tokio::net::TcpListener) -> String {
    listener.local_addr().unwrap().to_string()
}

/// A proxy with a certificate of tailscaled's.
async fn with_certificate(pem: &str) -> Inside {
    with_certificates(&[(NODE, pem)]).await
}

/// One whose node has these names, with these certificates.
async fn with_certificates(pairs: &[(&str, &str)]) -> Inside {
    let (sandbox, upstream) = World::parts().await;
    let names: Vec<_> = pairs.iter().map(|(name, _)| *name).collect();
    sandbox.daemon().set_dns(json!(names), json!(null));
    for (name, pem) in pairs {
        sandbox.daemon().set_certificate(name, pem);
    }
    let path = sandbox.pod().write("etc/upstream", upstream.kubeconfig("", "t")).unwrap();
    let access = KubeAccess::Kubeconfig { path, context: None };
    Inside::with(sandbox, upstream, &access, ClientAddress::Peer, Tls::Tailscale).await
}

#[tokio::test]
async fn a_handshake_takes_ten_seconds_at_most() {
    let proxy = with_certificate(&issue(&[NODE]).unwrap().pem).await;
    let mut silent = Client::new(known(proxy.daemon(), proxy.addr).await);
    proxy.daemon().await_count("GET whois", 1, SOON).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    pass(9 * SECOND).await;
    // Not a whole hello.
    silent.send([22, 3, 1]).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    pass(2 * SECOND).await;
    assert_eq!(silent.rest().await, b"");
    proxy.stop().await;
}

/// tailscaled gives an order at a certificate authority up when whoever asked for it goes away.
#[tokio::test]
async fn a_certificate_may_take_longer_than_a_handshake() {
    const OTHER: &str = "other.tail.ts.net";
    let (pair, second) = (issue(&[NODE]).unwrap(), issue(&[OTHER]).unwrap());
    let proxy = with_certificates(&[(NODE, &pair.pem), (OTHER, &second.pem)]).await;
    assert!(trusts(proxy.daemon(), proxy.addr, &pair).await);
    proxy.daemon().fail(&format!("cert/{OTHER}"), Fault::Hold);
    let what = format!("GET cert/{OTHER}");
    let mut tries = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let (daemon, addr, second) = (proxy.daemon().clone(), proxy.addr, second.clone());
        tries.spawn(async move { trusts_at(OTHER, &daemon, addr, &second).await });
    }
    proxy.daemon().await_count(&what, 1, SOON).await.unwrap();
    // All three wait for it.
    tokio::time::sleep(Duration::from_millis(100)).await;
    pass(11 * SECOND).await;
    while let Some(trusted) = tries.join_next().await {
        assert!(!trusted.unwrap(), "a handshake takes ten seconds at most");
    }
    assert!(trusts(proxy.daemon(), proxy.addr, &pair).await, "others are not held up");
    proxy.daemon().heal();
    assert!(trusts_at(OTHER, proxy.daemon(), proxy.addr, &second).await);
    assert_eq!(proxy.daemon().count(&what), 1, "what was asked for is not given up, nor asked for twice");
    proxy.stop().await;
}

/// The LocalAPI client gives other calls up after a minute at the most.
#[tokio::test]
async fn an_order_may_take_many_minutes() {
    const OTHER: &str = "other.tail.ts.net";
    let (pair, second) = (issue(&[NODE]).unwrap(), issue(&[OTHER]).unwrap());
    let proxy = with_certificates(&[(NODE, &pair.pem), (OTHER, &second.pem)]).await;
    assert!(trusts(proxy.daemon(), proxy.addr, &pair).await);
    proxy.daemon().fail(&format!("cert/{OTHER}"), Fault::Hold);
    let what = format!("GET cert/{OTHER}");
    let attempt = || {
        let (daemon, addr, second) = (proxy.daemon().clone(), proxy.addr, second.clone());
        async move { trusts_at(OTHER, &daemon, addr, &second).await }
    };
    let mut tries = tokio::task::JoinSet::new();
    tries.spawn(attempt());
    proxy.daemon().await_count(&what, 1, SOON).await.unwrap();
    for _ in 0..29 {
        pass(60 * SECOND).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(tries.join_next().await.map(Result::unwrap), Some(false), "a handshake takes ten seconds at most");
    tries.spawn(attempt());
    tokio::time::sleep(Duration::from_millis(100)).await;
    proxy.daemon().heal();
    assert_eq!(tries.join_next().await.map(Result::unwrap), Some(true), "whoever comes when it is done");
    assert_eq!(proxy.daemon().count(&what), 1, "one order, which was never given up");
    proxy.stop().await;
}

#[tokio::test]
async fn the_first_certificate_is_asked_for_until_it_is_there() {
    let pair = issue(&[NODE]).unwrap();
    let proxy = with_certificates(&[(NODE, "")]).await;
    let what = format!("GET cert/{NODE}");
    proxy.daemon().await_count(&what, 1, SOON).await.unwrap();
    // Until the answer is there too.
    tokio::time::sleep(Duration::from_millis(50)).await;
    proxy.daemon().set_certificate(NODE, &pair.pem);
    pass(61 * SECOND).await;
    proxy.daemon().await_count(&what, 2, SOON).await.unwrap();
    assert!(trusts(proxy.daemon(), proxy.addr, &pair).await);
    assert_eq!(proxy.daemon().count(&what), 2, "no client had to ask");
    proxy.stop().await;
}

#[tokio::test]
async fn a_certificate_is_asked_for_again_every_hour() {
    let (first, second) = (issue(&[NODE]).unwrap(), issue(&[NODE]).unwrap());
    let proxy = with_certificate(&first.pem).await;
    let what = format!("GET cert/{NODE}");
    assert!(trusts(proxy.daemon(), proxy.addr, &first).await);
    assert_eq!(proxy.daemon().count(&what), 1);
    proxy.daemon().set_certificate(NODE, &second.pem);
    pass(3500 * SECOND).await;
    assert!(trusts(proxy.daemon(), proxy.addr, &first).await, "kept in memory");
    // tailscaled is busy: the one that is held stays.
    proxy.daemon().fail_next(&format!("cert/{NODE}"), Fault::Status(500, "not now".to_owned()));
    pass(200 * SECOND).await;
    proxy.daemon().await_count(&what, 2, SOON).await.unwrap();
    assert!(trusts(proxy.daemon(), proxy.addr, &first).await);
    pass(61 * SECOND).await;
    proxy.daemon().await_count(&what, 3, SOON).await.unwrap();
    until(async || trusts(proxy.daemon(), proxy.addr, &second).await).await;
    assert!(!trusts(proxy.daemon(), proxy.addr, &first).await);
    assert_eq!(proxy.daemon().count(&what), 3, "no handshake asks");
    proxy.stop().await;
}

#[tokio::test]
async fn a_certificate_in_its_last_third_is_asked_for_again_at_once() {
    const DAY: Duration = Duration::from_secs(86_400);
    let old = issue_for(&[NODE], 61 * DAY, 29 * DAY).unwrap();
    let fresh = issue_for(&[NODE], DAY, 89 * DAY).unwrap();
    let proxy = with_certificate(&old.pem).await;
    let what = format!("GET cert/{NODE}");
    assert!(trusts(proxy.daemon(), proxy.addr, &old).await);
    proxy.daemon().set_certificate(NODE, &fresh.pem);
    pass(61 * SECOND).await;
    proxy.daemon().await_count(&what, 2, SOON).await.unwrap();
    until(async || trusts(proxy.daemon(), proxy.addr, &fresh).await).await;
    pass(61 * SECOND).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(proxy.daemon().count(&what), 2, "a fresh one is left alone");
    proxy.stop().await;
}

/// Waits until it is so.
async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, waiting).await.expect("it never was");
}
