//! Bodies, trailers, interim answers: everything arrives as it was sent, and as soon as it was.

use super::upstream::Step;
use super::world::{World, get};

fn say(text: &str) -> Step {
    Step::Say(text.as_bytes().to_vec())
}

#[tokio::test]
async fn several_requests_share_both_connections() {
    let world = World::start(&[]).await;
    let mut client = world.client().await;
    // Sent ahead of the answers, all three.
    client.send([get("/api/1"), get("/api/2"), get("/api/3")].concat()).await;
    for _ in 0..3 {
        assert_eq!(client.answer().await.status, 200);
    }
    let lines: Vec<_> = world.upstream.seen().iter().map(|seen| seen.line().to_owned()).collect();
    assert_eq!(lines, ["GET /api/1 HTTP/1.1", "GET /api/2 HTTP/1.1", "GET /api/3 HTTP/1.1"]);
    assert_eq!(world.upstream.connections(), 1);
}

#[tokio::test]
async fn a_body_of_known_length_is_streamed_byte_for_byte() {
    let world = World::start(&[]).await;
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let answer = format!("HTTP/1.1 201 Created\r\nContent-Length: {}\r\n\r\n", body.len());
    world.upstream.script([Step::Read(body.len()), Step::Say([answer.as_bytes(), &body].concat())]);
    let mut client = world.client().await;
    client.send(format!("PUT /api/x HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len())).await;
    client.send(&body).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.body == body), (201, true));
    assert!(world.upstream.request(0).await.body == body);
}

/// Neither side waits for the other to be done: what is said is heard, piece by piece.
#[tokio::test]
async fn both_directions_flow_at_once() {
    let world = World::start(&[]).await;
    world.upstream.script([say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), Step::Echo]);
    let mut client = world.client().await;
    client.send("POST /api HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.head().await;
    for number in 0..5 {
        let chunk = format!("7\r\nround {number}\r\n");
        client.send(&chunk).await;
        assert_eq!(client.exactly(chunk.len()).await, chunk.as_bytes());
    }
    // Its end is the answer's end too, as this server goes.
    client.send("0\r\n\r\n").await;
    assert_eq!(client.exactly(5).await, b"0\r\n\r\n");
}

#[tokio::test]
async fn a_length_known_beforehand_is_no_reason_to_wait() {
    let world = World::start(&[]).await;
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n";
    let parts = ["abc", "def", "ghi"];
    world.upstream.script(
        [say(answer)].into_iter().chain(parts.iter().flat_map(|part| [Step::Read(3), say(&part.to_uppercase())])),
    );
    let mut client = world.client().await;
    client.send("PUT /api HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n").await;
    client.head().await;
    // Each part is answered, and what follows is not sent before.
    for part in parts {
        client.send(part).await;
        assert_eq!(client.exactly(3).await, part.to_uppercase().as_bytes());
    }
}

#[tokio::test]
async fn a_body_nobody_wants_is_not_asked_for() {
    let world = World::start(&[]).await;
    world.upstream.say("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno");
    let mut client = world.client().await;
    client.send("PUT /api HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (417, Some("close")));
    assert!(client.rest().await.is_empty());
}

#[tokio::test]
async fn chunks_and_trailers_pass_both_ways() {
    let world = World::start(&[]).await;
    let request = "3\r\nabc\r\n1A\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nX-Sum: 1\r\nImpersonate-User: root\r\n\r\n";
    let sent = "1d\r\nabcabcdefghijklmnopqrstuvwxyz\r\n0\r\nx-sum: 1\r\n\r\n";
    world.upstream.script([
        Step::Body,
        say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Done\r\n\r\n5;ext=1\r\nhello\r\n"),
        say("6\r\n world\r\n0\r\nX-Done: yes\r\n\r\n"),
    ]);
    let mut client = world.client().await;
    client
        .send(["POST /api HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n", request].concat())
        .await;
    let answer = client.answer().await;
    assert_eq!((answer.text().as_str(), answer.trailers.as_str()), ("hello world", "x-done: yes\r\n"));
    let seen = world.upstream.request(0).await;
    assert_eq!((String::from_utf8_lossy(&seen.body).as_ref(), seen.all("te")), (sent, vec!["trailers"]));
}

#[tokio::test]
async fn interim_answers_and_expect_pass() {
    let world = World::start(&[]).await;
    world.upstream.script([
        say("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
        say("HTTP/1.1 100 Continue\r\n\r\n"),
        Step::Read(4),
        say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    ]);
    let mut client = world.client().await;
    client.send("POST /api HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n"));
    assert!(client.head().await.starts_with("HTTP/1.1 100 Continue\r\n"));
    client.send("data").await;
    assert_eq!(client.answer().await.text(), "ok");
    let seen = world.upstream.request(0).await;
    assert_eq!((seen.all("expect"), &seen.body[..]), (vec!["100-continue"], &b"data"[..]));
}

#[tokio::test]
async fn answers_without_a_body_end_where_they_end() {
    let world = World::start(&[]).await;
    let mut client = world.client().await;
    for (method, answer, expected) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 77\r\n\r\n", "content-length: 77"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", "etag: x"),
        ("DELETE", "HTTP/1.1 204 No Content\r\nA: b\r\nA: c\r\n\r\n", "a: b\r\na: c"),
        ("GET", "HTTP/1.1 299 What Ever\r\nContent-Length: 0\r\n\r\n", "299 What Ever"),
    ] {
        world.upstream.say(answer);
        client.send(format!("{method} /api HTTP/1.1\r\nHost: h\r\n\r\n")).await;
        let head = client.head().await;
        assert!(head.contains(expected), "{method}: {head}");
    }
    client.send(get("/api")).await;
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test]
async fn an_answer_that_ends_with_its_connection_is_passed_on_whole() {
    let world = World::start(&[]).await;
    world.upstream.script([say("HTTP/1.0 200 OK\r\n\r\nall of it"), Step::HalfClose]);
    let answer = world.get("/api").await;
    assert_eq!((answer.text().as_str(), answer.header("transfer-encoding")), ("all of it", Some("chunked")));
    world.upstream.script([say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")]);
    let mut old = world.client().await;
    old.send("GET /api HTTP/1.0\r\n\r\n").await;
    let text = String::from_utf8(old.rest().await).unwrap();
    assert!(text.ends_with("\r\n\r\nok") && !text.contains("chunked"), "{text}");
    assert_eq!(world.upstream.request(1).await.all("host"), [world.upstream.addr().to_string()]);
}

#[tokio::test]
async fn a_large_head_passes_both_ways() {
    let world = World::start(&[]).await;
    let value = "v".repeat(100_000);
    world.upstream.say(format!("HTTP/1.1 200 OK\r\nLarge: {value}\r\nContent-Length: 0\r\n\r\n"));
    let answer = world.ask(&format!("GET /api HTTP/1.1\r\nHost: h\r\nLarge: {value}\r\n\r\n")).await;
    assert_eq!((answer.status, answer.header("large")), (200, Some(value.as_str())));
    assert_eq!(world.upstream.request(0).await.all("large"), [value]);
}
