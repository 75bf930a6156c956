//! Connections that switch protocols: every byte, both ends, and never back to HTTP.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use std::time::Duration;

use super::interim::narrow;
use super::upstream::Step;
use super::world::World;

const PATH: &str = "/api/v1/namespaces/n/pods/p/portforward";

fn say(text: &str) -> Step {
    Step::Say(text.as_bytes().to_vec())
}

pub(super) fn switching(token: &str) -> Step {
    say(&format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {token}\r\nX-Stream-Protocol-Version: v5\r\n\r\n"
    ))
}

pub(super) fn ask(method: &str, token: &str) -> String {
    format!(
        "{method} {PATH} HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: {token}\r\nContent-Length: 0\r\n\r\n"
    )
}

#[tokio::test]
async fn both_protocols_are_switched_to_and_pipelined_bytes_arrive() {
    let world = World::start(&[]).await;
    for (method, asked, sent) in [("POST", "spdy/3.1", "SPDY/3.1"), ("GET", "WebSocket", "websocket")] {
        world.upstream.script([switching(asked), Step::Echo]);
        let number = world.upstream.seen().len();
        let mut client = world.client().await;
        // A request that stands behind the switch is not one.
        let behind = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";
        client.send([ask(method, asked).as_str(), behind].concat()).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
        assert!(head.contains("x-stream-protocol-version: v5\r\n"), "{head}");
        assert_eq!(client.exactly(behind.len()).await, behind.as_bytes());
        client.send("more").await;
        assert_eq!(client.exactly(4).await, b"more");
        client.stream.shutdown().await.unwrap();
        assert_eq!(client.rest().await, b"");
        let seen = world.upstream.request(number).await;
        assert_eq!((seen.all("upgrade"), seen.all("connection")), (vec![sent], vec!["Upgrade"]));
        assert_eq!(seen.body, [behind.as_bytes(), b"more"].concat());
    }
    assert_eq!(world.upstream.seen().len(), 2);
}

#[tokio::test]
async fn either_side_may_end_alone() {
    let world = World::start(&[]).await;
    // The server ends first, and still reads.
    world.upstream.script([switching("SPDY/3.1"), say("bye"), Step::HalfClose, Step::Drain]);
    let mut client = world.client().await;
    client.send(ask("POST", "SPDY/3.1")).await;
    client.head().await;
    assert_eq!(client.rest().await, b"bye");
    client.send("last words").await;
    client.stream.shutdown().await.unwrap();
    world.upstream.wait("last words", |seen| seen[0].body == b"last words" && seen[0].is_gone).await;
}

/// As kubectl does, which pings while it still reads what a command has printed.
#[tokio::test]
async fn what_a_server_said_before_it_closed_arrives_whatever_the_client_says_then() {
    // The kernel at the proxy's end takes it: what is still at the server's goes down with the server's connection.
    const LENGTH: usize = 1 << 20;
    let world = World::start(&[]).await;
    world.upstream.script([switching("SPDY/3.1"), Step::Say(vec![b'x'; LENGTH]), Step::HalfClose, Step::Close]);
    let mut client = narrow(&world).await;
    client.send(ask("POST", "SPDY/3.1")).await;
    client.head().await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        client.send("ping").await;
    }
    assert_eq!(client.rest().await.len(), LENGTH);
    drop(client);
    let ended = world.stops().await;
    assert!(!ended.mentions("broke off"), "{}", ended.text());
}

#[tokio::test]
async fn a_session_that_breaks_on_one_side_ends_on_the_other() {
    let world = World::start(&[]).await;
    world.upstream.script([switching("websocket"), Step::Drain]);
    let mut client = world.client().await;
    client.send(ask("GET", "websocket")).await;
    client.head().await;
    client.stream.set_zero_linger().unwrap();
    drop(client);
    world.upstream.wait("end", |seen| seen[0].is_gone).await;
}

/// Or the client would take what it has got for all there is.
#[tokio::test]
async fn a_session_that_the_server_breaks_off_is_a_reset_to_the_client() {
    let world = World::start(&[]).await;
    // The second one dies without a farewell, as a process does that is killed.
    for end in [Step::Reset, Step::Close] {
        world.upstream.script([switching("SPDY/3.1"), say("half"), Step::Await, end]);
        let mut client = world.client().await;
        client.send(ask("POST", "SPDY/3.1")).await;
        client.head().await;
        assert_eq!(client.exactly(4).await, b"half");
        world.upstream.go_on();
        let end = client.stream.read(&mut [0; 16]).await;
        assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    }
}

/// A reset overtakes what is still on its way.
#[tokio::test]
async fn what_a_server_said_before_it_died_arrives_all_the_same() {
    const LENGTH: usize = 1 << 20;
    let world = World::start(&[]).await;
    world.upstream.script([switching("SPDY/3.1"), Step::Say(vec![b'x'; LENGTH]), Step::Close]);
    let mut client = world.client().await;
    client.send(ask("POST", "SPDY/3.1")).await;
    client.head().await;
    // It has other things to do first.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(client.exactly(LENGTH).await.len(), LENGTH);
    let end = client.stream.read(&mut [0; 16]).await;
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn another_protocol_than_the_one_asked_for_is_an_error() {
    let world = World::start(&[]).await;
    world.upstream.script([switching("h2c"), Step::Drain]);
    world.ask(&ask("GET", "websocket")).await.is_status(502, "the API server switched protocols");
    world.upstream.script([switching("websocket"), Step::Drain]);
    world.get("/api").await.is_status(502, "the API server switched protocols");
    let both = ask("GET", "websocket, SPDY/3.1");
    assert_eq!(world.ask(&both).await.status, 400);
    let with_body =
        "POST /api HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\nabc";
    assert_eq!(world.ask(with_body).await.status, 400);
}

#[tokio::test]
async fn what_follows_a_refused_upgrade_is_no_request() {
    let world = World::start(&[]).await;
    world.upstream.say("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    let mut client = world.client().await;
    // Who does not wait for the 101 may be passing on what a third party said.
    client.send(format!("{}{}", ask("GET", "websocket"), super::world::get("/api/v1/secrets"))).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (403, "no"));
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(client.rest().await, b"");
    assert_eq!(world.upstream.seen().len(), 1);
}

#[tokio::test]
async fn a_megabyte_each_way_at_once_arrives_whole() {
    let world = World::start(&[]).await;
    let mut sessions = tokio::task::JoinSet::new();
    for number in 0..20_u8 {
        world.upstream.script([switching("SPDY/3.1"), Step::Echo]);
        let mut client = world.client().await;
        client.send(ask("POST", "SPDY/3.1")).await;
        client.head().await;
        sessions.spawn(async move {
            let sent = vec![number; 1 << 20];
            let (mut from, mut to) = client.stream.into_split();
            let writing = async {
                to.write_all(&sent).await.unwrap();
                to.shutdown().await.unwrap();
            };
            let mut got = Vec::new();
            let reading = from.read_to_end(&mut got);
            let ((), read) = tokio::join!(writing, reading);
            read.unwrap();
            assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
        });
    }
    while let Some(done) = sessions.join_next().await {
        done.unwrap();
    }
}

/// What a browser does that can set no `Authorization`. Whose token it is, only noauth leaves to the API server.
#[tokio::test]
async fn a_token_among_the_subprotocols_is_the_clients_word_about_itself() {
    const TOKEN: &str = "base64url.bearer.authorization.k8s.io.ZXZpbA";
    let offer = |line: &str| {
        format!("GET {PATH} HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{line}\r\n")
    };
    let one = format!("Sec-WebSocket-Protocol: v5.channel.k8s.io, {TOKEN},v4.channel.k8s.io\r\n");
    let several =
        format!("Sec-WebSocket-Protocol: b, a\r\nSec-WebSocket-Protocol: {TOKEN}\r\nSec-WebSocket-Protocol: c\r\n");
    let alone = format!("Sec-WebSocket-Protocol: {TOKEN}\r\n");
    let world = World::start(&[]).await;
    for (number, (line, kept)) in
        [(&one, &["v5.channel.k8s.io, v4.channel.k8s.io"][..]), (&several, &["b, a", "c"]), (&alone, &[])]
            .iter()
            .enumerate()
    {
        assert_eq!(world.ask(&offer(line)).await.status, 200);
        let seen = world.upstream.request(number).await;
        assert_eq!(seen.all("sec-websocket-protocol"), *kept, "{}", seen.head);
        assert_eq!((seen.all("upgrade"), seen.all("impersonate-user").len()), (vec!["websocket"], 1));
    }
    let world = World::start(&["--mode", "noauth"]).await;
    assert_eq!(world.ask(&offer(&one)).await.status, 200);
    let offered = format!("v5.channel.k8s.io, {TOKEN},v4.channel.k8s.io");
    assert_eq!(world.upstream.request(0).await.all("sec-websocket-protocol"), [offered.as_str()]);
}
