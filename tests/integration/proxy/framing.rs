//! What two parsers could read differently is refused, and how a connection has to begin.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::world::{ANN, Client, World, get, proxy_header};

#[tokio::test]
async fn row_17_ambiguous_requests_are_refused_and_the_connection_is_closed() {
    let world = World::start(&[]).await;
    let many = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "A: b\r\n".repeat(101));
    let fields = (0..1_001).map(|number| format!("A{number}: b\r\n")).collect::<Vec<_>>().concat();
    let fields = format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
    let large = format!("GET / HTTP/1.1\r\nHost: h\r\nA: {}\r\n\r\n", "x".repeat(1 << 20));
    for (request, status) in [
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
        ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n c\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: h\n\n", 400),
        ("GET / HTTP/1.1\r\nHost : h\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\nA: b\rc\r\n\r\n", 400),
        ("GET http://other/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n", 400),
        ("GET / HTTP/3.0\r\nHost: h\r\n\r\n", 400),
        (&many, 431),
        (&fields, 431),
        (&large, 431),
    ] {
        let mut client = world.client().await;
        // The server may answer and close before it has read all of a large head.
        let _ = client.stream.write_all(request.as_bytes()).await;
        let answer = String::from_utf8(client.rest().await).unwrap();
        let shown: String = request.chars().take(80).collect();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{shown:?}: {answer}");
        assert!(answer.to_lowercase().contains("\r\nconnection: close\r\n"), "{shown:?}: {answer}");
    }
    for silent in ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut client = world.client().await;
        client.send(silent).await;
        assert_eq!(client.rest().await, b"");
    }
    world.nothing_upstream();
    let h2c = "GET /api HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n";
    assert_eq!(world.ask(h2c).await.status, 200);
    let seen = world.upstream.request(0).await;
    for name in ["upgrade", "connection", "http2-settings"] {
        assert_eq!(seen.all(name).len(), 0, "{}", seen.head);
    }
}

/// One byte, one field or one line less than the most passes, and the most itself; one more does not.
#[tokio::test]
async fn limits_are_where_they_are_said_to_be() {
    const LARGEST: usize = 1 << 20;
    let sized = |before: &str, after: &str, size: usize| {
        format!("{before}{}{after}", "x".repeat(size - before.len() - after.len()))
    };
    let in_field = |size| sized("GET / HTTP/1.1\r\nHost: h\r\nA: ", "\r\n\r\n", size);
    let in_target = |size| sized("GET /", " HTTP/1.1\r\nHost: h\r\n\r\n", size);
    // `Host` is one of them.
    let fields = |count: usize| {
        let fields = (1..count).map(|number| format!("A{number}: b\r\n")).collect::<Vec<_>>().concat();
        format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n")
    };
    let of_a_name = |count| format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "A: b\r\n".repeat(count));
    let segments = |count: usize| {
        format!("GET /api/v1/namespaces/n/services/s/proxy{} HTTP/1.1\r\nHost: h\r\n\r\n", "/a".repeat(count - 7))
    };
    let world = World::start(&[]).await;
    for (what, request, status) in [
        ("bytes of a field", in_field(LARGEST - 1), 200),
        ("bytes of a field", in_field(LARGEST), 200),
        ("bytes of a field", in_field(LARGEST + 1), 431),
        ("bytes of a target", in_target(LARGEST - 1), 200),
        ("bytes of a target", in_target(LARGEST), 200),
        ("bytes of a target", in_target(LARGEST + 1), 431),
        ("fields", fields(999), 200),
        ("fields", fields(1_000), 200),
        ("fields", fields(1_001), 431),
        ("fields of a name", of_a_name(99), 200),
        ("fields of a name", of_a_name(100), 200),
        ("fields of a name", of_a_name(101), 431),
        ("segments", segments(999), 200),
        ("segments", segments(1_000), 200),
        ("segments", segments(1_001), 400),
    ] {
        let before = world.upstream.seen().len();
        let mut client = world.client().await;
        // The server may answer and close before it has read all of a large head.
        let _ = client.stream.write_all(request.as_bytes()).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, status, "{what}, {} bytes: {answer:?}", request.len());
        assert_eq!(world.upstream.seen().len() - before, usize::from(status == 200), "{what}");
    }
}

#[tokio::test]
async fn a_chunk_extension_or_a_bad_chunk_never_becomes_a_request_of_its_own() {
    let world = World::start(&[]).await;
    let post = "POST /api HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in ["3;a=b\r\nabc\r\n0\r\n\r\n", "3\r\nabcX\r\n0\r\n\r\n", "-1\r\n\r\n", "3\nabc\r\n0\r\n\r\n"] {
        let mut client = world.client().await;
        client.send([post, body].concat()).await;
        let answer = String::from_utf8(client.rest().await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{body:?}: {answer}");
    }
    for seen in world.upstream.seen() {
        assert!(seen.line().starts_with("POST /api ") && !seen.body.ends_with(b"0\r\n\r\n"), "{seen:?}");
    }
}

#[tokio::test]
async fn row_15_a_connection_begins_with_a_proxy_header_or_ends_without_an_answer() {
    let world = World::start(&[]).await;
    let mut local = proxy_header(ANN);
    local[12] = 0x20;
    let request = get("/api").into_bytes();
    for begin in [&b""[..], b"PROXY TCP4 100.64.0.9 100.64.0.2 51000 80\r\n", &local] {
        let stream = TcpStream::connect(world.addr).await.unwrap();
        let mut client = Client::new(stream);
        client.send([begin, &request[..]].concat()).await;
        assert_eq!(client.rest().await, b"", "{begin:?}");
    }
    let mut trickled = Client::new(TcpStream::connect(world.addr).await.unwrap());
    let begun = Instant::now();
    for byte in &proxy_header(ANN)[..11] {
        // Whoever closes early shows it in the time below.
        let _ = trickled.stream.write_all(&[*byte]).await;
        tokio::time::sleep(Duration::from_millis(900)).await;
    }
    assert_eq!(trickled.rest().await, b"");
    assert!((9..14).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    world.nothing_upstream();
}

#[tokio::test]
async fn a_header_over_ipv6_tells_the_peer_too() {
    let world = World::start(&[]).await;
    let addr = "[fd7a:115c:a1e0::9]:51000";
    world.daemon().set_whois(addr, super::world::user("six@example.com", &serde_json::json!({})));
    let mut client = world.client_from(addr).await;
    client.send(get("/api")).await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(world.upstream.request(0).await.all("impersonate-user"), ["six@example.com"]);
}
