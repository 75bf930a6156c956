//! What belongs to one connection stays there, both ways; everything else passes as it was sent.

use super::upstream::Step;
use super::world::{Answer, CAPABILITY, World, get, user};

const SWITCH: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n";

/// A `GET` with these lines more.
fn asking(lines: &[u8]) -> Vec<u8> {
    [b"GET /api HTTP/1.1\r\nHost: h\r\nAccept: application/json\r\n", lines, b"\r\n\r\n"].concat()
}

async fn ask(world: &World, lines: &[u8]) -> Answer {
    let mut client = world.client().await;
    client.send(asking(lines)).await;
    client.answer().await
}

/// Which of these names an answer has.
fn named<'n>(head: &str, names: &[&'n str]) -> Vec<&'n str> {
    let head = head.to_lowercase();
    names.iter().copied().filter(|name| head.contains(&format!("\n{}: ", name.to_lowercase()))).collect()
}

#[tokio::test]
async fn an_answer_keeps_what_is_about_the_way_to_the_api_server() {
    let world = World::start(&[]).await;
    world.upstream.say(
        "HTTP/1.1 200 OK\r\nX-Other: 1\r\nConnection: keep-alive, X-Mine\r\nX-MINE: 1\r\nconnection: x-Yours ,\r\n\
         X-Mine: 2\r\nX-Yours: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nProxy-Connection: close\r\n\
         Proxy-Authorization: Basic x\r\nTE: trailers\r\nTrailer: X\r\nWarning: 299 a\r\nX-Other: 2\r\nWarning: 299 b\r\n\
         Content-Length: 2\r\n\r\nok",
    );
    let answer = world.get("/api").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    let gone = ["Connection", "X-Mine", "X-Yours", "Keep-Alive", "Proxy-Authenticate", "Proxy-Connection"];
    assert!(named(&answer.head, &gone).is_empty(), "{}", answer.head);
    assert!(named(&answer.head, &["Proxy-Authorization", "TE", "Trailer"]).is_empty(), "{}", answer.head);
    // The rest is there as often as it was, in order within a name.
    let all = |name: &str| answer.head.lines().filter(|line| line.starts_with(name)).collect::<Vec<_>>();
    assert_eq!(all("x-other"), ["x-other: 1", "x-other: 2"]);
    assert_eq!(all("warning"), ["warning: 299 a", "warning: 299 b"]);
}

/// As Apache does with HTTP/2 switched on.
#[tokio::test]
async fn an_answer_may_offer_other_protocols() {
    let world = World::start(&[]).await;
    for offer in ["Upgrade: h2,h2c\r\n", "Upgrade: h2\r\nUpgrade: websocket\r\n", "Upgrade: h2c\r\n"] {
        world.upstream.script([
            Step::Say(format!("HTTP/1.1 103 Early Hints\r\nConnection: Upgrade\r\n{offer}A: b\r\n\r\n").into()),
            Step::Say(format!("HTTP/1.1 200 OK\r\n{offer}Connection: Upgrade\r\nContent-Length: 2\r\n\r\nok").into()),
        ]);
        let mut client = world.client().await;
        client.send(get("/api")).await;
        let interim = client.head().await;
        assert_eq!(interim, "HTTP/1.1 103 Early Hints\r\na: b\r\n\r\n", "{offer}");
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "{offer}");
        assert!(named(&answer.head, &["Upgrade", "Connection"]).is_empty(), "{}", answer.head);
    }
}

#[tokio::test]
async fn a_connection_has_no_more_options_than_anybody_reads() {
    let world = World::start(&[]).await;
    let named = |count: usize| format!("A: 1\r\nConnection: {}a", "b,".repeat(count - 1));
    let split = |count: usize| vec![format!("Connection: {}b", "b,".repeat(count / 2 - 1)); 2].join("\r\n");
    for (lines, status) in [
        (named(100), 200),
        (split(100), 200),
        (named(101), 400),
        (split(102), 400),
        (named(500_000), 400),
        (format!("Connection: {}", ",".repeat(1_000_000)), 400),
        (format!("Upgrade: {}", "a,".repeat(500_000)), 400),
    ] {
        let before = world.upstream.seen().len();
        let answer = ask(&world, lines.as_bytes()).await;
        assert_eq!(answer.status, status, "{lines:.60}: {answer:?}");
        assert_eq!(world.upstream.seen().len() - before, usize::from(status == 200), "{lines:.60}");
        if status == 400 {
            answer.is_status(400, "");
        }
    }
    assert!(world.upstream.seen().iter().all(|seen| seen.all("a").is_empty()));
}

/// One that is no name hides none of the others.
#[tokio::test]
async fn bytes_beside_a_name_do_not_keep_it() {
    let world = World::start(&[]).await;
    for (number, odd) in [&b"\xe9"[..], "\u{e9}".as_bytes(), b"\"", b"a b", b"\t"].into_iter().enumerate() {
        let connection = [b"Connection: ", odd, b", X-Mine,upgrade,", odd].concat();
        world.upstream.say([b"HTTP/1.1 200 OK\r\n", &connection[..], b"\r\nX-Mine: 1\r\nA: b\r\n\r\n"].concat());
        let request = [&connection[..], b"\r\nX-Mine: 1\r\nUpgrade: websocket\r\nTE: ", odd, b", trailers"].concat();
        let mut client = world.client().await;
        client.send(asking(&request)).await;
        let head = client.head().await;
        assert_eq!(named(&head, &["X-Mine", "A"]), ["A"], "{head}");
        let seen = world.upstream.request(number).await;
        assert!(seen.all("x-mine").is_empty(), "{}", seen.head);
        assert_eq!((seen.all("upgrade"), seen.all("te")), (vec!["websocket"], vec!["trailers"]), "{}", seen.head);
    }
}

/// RFC 9110 8.6.
#[tokio::test]
async fn no_length_is_told_where_no_body_can_be() {
    let world = World::start(&[]).await;
    let interim = "HTTP/1.1 103 Early Hints\r\nContent-Length: 3\r\nA: b\r\n\r\n";
    let switching = format!("HTTP/1.1 101 Switching Protocols\r\nContent-Length: 3\r\nA: b\r\n{SWITCH}\r\nahead");
    world.upstream.say([interim, &switching].concat());
    let mut client = world.client().await;
    client.send(asking(SWITCH.trim_end().as_bytes())).await;
    assert_eq!(client.head().await, "HTTP/1.1 103 Early Hints\r\na: b\r\n\r\n");
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("\na: b\r\n"), "{head}");
    assert!(named(&head, &["Content-Length"]).is_empty(), "{head}");
    assert_eq!(client.exactly(5).await, b"ahead");
}

#[tokio::test]
async fn what_is_compressed_is_between_the_client_and_the_api_server() {
    let world = World::start(&[]).await;
    world.get("/api").await;
    assert!(world.upstream.request(0).await.all("accept-encoding").is_empty());
    let packed = b"\x1f\x8b not really";
    let head = format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", packed.len());
    world.upstream.say([head.as_bytes(), packed].concat());
    let answer = ask(&world, b"Accept-Encoding: br;q=0.5, gzip\r\nAccept-Encoding: identity").await;
    assert_eq!((answer.header("content-encoding"), &answer.body[..]), (Some("gzip"), &packed[..]));
    let seen = world.upstream.request(1).await;
    assert_eq!(seen.all("accept-encoding"), ["br;q=0.5, gzip", "identity"]);
}

#[tokio::test]
async fn nobody_shall_guess_what_a_refusal_is() {
    let world = World::start(&[]).await;
    world.upstream.say("what is this?\r\n\r\n");
    let upstream = world.get("/api").await;
    let path = world.get("/api/%zz").await;
    let head = world.ask("GET /api HTTP/1.1\r\nHost : h\r\n\r\n").await;
    let text = world.ask("GET /%zz HTTP/1.1\r\nHost: h\r\nAccept: text/plain\r\n\r\n").await;
    world.daemon().set_whois(super::world::ANN, user("ann", &serde_json::json!({ CAPABILITY: ["x"] })));
    let grants = world.get("/api").await;
    world.grant(&serde_json::json!([{"enforceRecorder": true}]));
    let recorder = world.get("/api").await;
    for (answer, status) in [(upstream, 502), (path, 400), (head, 400), (text, 400), (grants, 500), (recorder, 403)] {
        assert_eq!((answer.status, answer.header("x-content-type-options")), (status, Some("nosniff")), "{answer:?}");
    }
}
