//! What the log says about requests, and what it never says.

use serde_json::{Value, json};

use super::upstream::Step;
use super::world::{ANN, CAPABILITY, TOKEN, World, get, user};

/// The log of a proxy that ended, line by line.
async fn log(world: World) -> Vec<Value> {
    let ended = world.stops().await;
    let parse = |line: &String| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line:?} is not JSON"));
    ended.lines.iter().map(parse).collect()
}

#[tokio::test]
async fn each_request_is_one_line_of_json_that_says_who_as_whom_what_and_how_it_ended() {
    let world = World::start(&["--log-format", "json"]).await;
    world.grant(&json!([{"impersonate": {"groups": ["g1", "g2"]}}]));
    world.upstream.say("HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\nhello");
    let post = "POST /apis/apps/v1/namespaces/web/deployments/shop/scale?dryRun=All HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody";
    assert_eq!(world.ask(post).await.status, 201);
    let lines = log(world).await;
    let requests: Vec<_> = lines.iter().filter(|line| line["message"] == "request").collect();
    assert_eq!(requests.len(), 1, "{lines:?}");
    let line = requests[0];
    for (name, value) in [
        ("level", json!("debug")),
        ("client", json!("100.64.0.9:51000")),
        ("node", json!("laptop.ts.net")),
        ("who", json!("ann@example.com")),
        ("as_whom", json!("ann@example.com [g1 g2]")),
        ("method", json!("POST")),
        ("verb", json!("create")),
        ("resource", json!("deployments/scale")),
        ("namespace", json!("web")),
        ("name", json!("shop")),
        ("status", json!(201)),
        ("sent", json!(5)),
        ("received", json!(4)),
    ] {
        assert_eq!(line[name], value, "{name} of {line}");
    }
    assert!(line["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{line}");
    assert!(line["time"].is_string(), "{line}");
}

#[tokio::test]
async fn a_refusal_says_who_was_refused_what_and_why() {
    let world = World::start(&["--log-format", "json"]).await;
    world.grant(&json!([{"enforceRecorder": true}]));
    world.get("/api/v1/namespaces/web/secrets/key").await.is_status(403, "forbidden");
    let lines = log(world).await;
    let line = lines.iter().find(|line| line["reason"] == "no-recorder").unwrap_or_else(|| panic!("{lines:?}"));
    for (name, value) in [
        ("level", json!("info")),
        ("client", json!("100.64.0.9:51000")),
        ("node", json!("laptop.ts.net")),
        ("who", json!("ann@example.com")),
        ("verb", json!("get")),
        ("resource", json!("secrets")),
        ("namespace", json!("web")),
        ("name", json!("key")),
        ("status", json!(403)),
    ] {
        assert_eq!(line[name], value, "{name} of {line}");
    }
    assert!(line["message"].as_str().is_some_and(|message| message.starts_with("refused: forbidden")), "{line}");
}

#[tokio::test]
async fn a_session_has_its_line_when_it_ends_and_so_has_what_the_proxy_cut_off() {
    let world = World::start(&["--log-format", "json"]).await;
    let switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    world.upstream.script([Step::Say(switching.into()), Step::Echo]);
    let mut session = world.client().await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello";
    session.send(format!("GET /api/v1/namespaces/n/pods/p/portforward HTTP/1.1\r\nHost: h\r\n{upgrade}")).await;
    session.head().await;
    session.exactly(5).await;
    drop(session);
    world.proxy.mentioned("pods/portforward").await;
    world.upstream.script([
        Step::Say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nevent\n\r\n".to_vec()),
        Step::Drain,
    ]);
    let mut watching = world.client().await;
    watching.send(get("/api/v1/pods?watch=1")).await;
    watching.until(b"event\n\r\n").await;
    let lines = log(world).await;
    let requests: Vec<_> = lines.iter().filter(|line| line["message"] == "request").collect();
    let said: Vec<_> =
        requests.iter().map(|line| json!([line["verb"], line["status"], line["received"], line["sent"]])).collect();
    assert_eq!(said, [json!(["get", 101, 5, 5]), json!(["watch", 200, 0, 6])], "{lines:?}");
}

#[tokio::test]
async fn secrets_of_a_request_are_in_no_line_whatever_becomes_of_it() {
    let world = World::start(&["-v"]).await;
    let exec = "/api/v1/namespaces/n/pods/p/exec?command=hunter2&token=s3cret";
    let with = |line: &str| format!("{line}\r\nHost: h\r\nAuthorization: Bearer clients-own\r\nCookie: s3cret\r\n\r\n");
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket";
    // Answered, refused, cut off, malformed, and a protocol that is not switched to.
    assert_eq!(world.ask(&with(&format!("GET {exec} HTTP/1.1"))).await.status, 200);
    assert_eq!(world.ask(&with("GET /a%zz?command=hunter2 HTTP/1.1")).await.status, 400);
    assert_eq!(world.ask(&with("GET /api?command=hunter2 HTTP/1.1\r\nBad : clients-own")).await.status, 400);
    world.upstream.script([Step::Close]);
    assert_eq!(world.ask(&with(&format!("POST {exec} HTTP/1.1\r\nContent-Length: 0"))).await.status, 502);
    world.upstream.say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: s3cret\r\n\r\n");
    assert_eq!(world.ask(&with(&format!("GET {exec} HTTP/1.1\r\n{upgrade}"))).await.status, 502);
    world.grant(&json!([{"enforceRecorder": true}]));
    for _ in 0..2 {
        // The new grant may take a moment; either answer is logged.
        world.ask(&with(&format!("GET {exec} HTTP/1.1\r\n{upgrade}"))).await;
        world.ask(&get("/api/v1/pods?token=s3cret")).await;
    }
    world.daemon().set_whois(super::world::ANN, json!({"Node": 1}));
    world.ask(&with(&format!("GET {exec} HTTP/1.1"))).await;
    let ended = world.stops().await;
    assert!(ended.mentions("pods/exec"), "{}", ended.text());
    for secret in ["hunter2", "s3cret", "clients-own", TOKEN, "Bearer"] {
        assert!(!ended.mentions(secret), "{secret} is in\n{}", ended.text());
    }
}

/// A head has room for a megabyte. A line and an answer have not.
#[tokio::test]
async fn huge_names_are_cut_in_every_line_and_answer() {
    let world = World::start(&["--log-format", "json"]).await;
    let huge = "n".repeat(300_000);
    let login = format!("{}@example.com", "u".repeat(100_000));
    let recorder = json!([{"recorderAddrs": ["192.0.2.1:80"]}]);
    let path = format!("GET /api/v1/namespaces/{huge}/pods/{huge} HTTP/1.1");
    let upgrade = "GET /api/v1/namespaces/n/pods/p/exec HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: ";
    for (rules, lines, status) in [
        (json!([]), path.clone(), 200),
        (json!([{"enforceRecorder": true}]), path, 403),
        (json!([{"enforceRecorder": true}]), format!("GET /{huge} HTTP/1.1"), 403),
        (json!([{"impersonate": {"allow": ["g"]}}]), format!("GET /api HTTP/1.1\r\nImpersonate-Group: {huge}"), 403),
        (json!([{"impersonate": {"groups": [format!("{huge}\n")]}}]), "GET /api HTTP/1.1".to_owned(), 500),
        (json!([{"recorderAddrs": [huge]}]), "GET /api HTTP/1.1".to_owned(), 500),
        (recorder.clone(), format!("{upgrade}{huge}"), 403),
        (recorder, format!("{upgrade}{huge}, {huge}"), 400),
    ] {
        world.daemon().set_whois(ANN, user(&login, &json!({ CAPABILITY: rules })));
        let line = lines.lines().last().unwrap_or_default().get(..40).unwrap_or_default().to_owned();
        let answer = world.ask(&format!("{lines}\r\nHost: h\r\nAccept: application/json\r\n\r\n")).await;
        assert_eq!(answer.status, status, "{line}: {}", answer.text());
        assert!(answer.body.len() < 2_000, "{line}: {} bytes", answer.body.len());
        if status != 200 {
            answer.is_status(status, "");
            assert!(answer.text().contains('…'), "{line}: {}", answer.text());
        }
    }
    let lines = log(world).await;
    let told: Vec<_> = lines.iter().filter(|line| line["client"].is_string()).collect();
    assert!(told.len() >= 8, "{lines:?}");
    for line in told {
        assert!(line["who"].as_str().is_some_and(|who| who.ends_with('…') && who.chars().count() == 257), "{line}");
        assert!(line.to_string().len() < 4_000, "{line}");
    }
}
