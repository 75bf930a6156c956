//! An API server that is down, rude or forgetful: a clear answer, and never half of one that looks whole.

use std::net::SocketAddr;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::upstream::Step;
use super::world::{TOKEN, World, get};
use crate::support::{self, free_port};

fn say(text: &str) -> Step {
    Step::Say(text.as_bytes().to_vec())
}

#[tokio::test]
async fn an_api_server_that_is_down_is_a_502_and_comes_back_by_itself() {
    let (sandbox, upstream) = World::parts().await;
    let target = upstream.addr();
    // A port on which nobody listens yet.
    let away = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let kubeconfig = upstream.kubeconfig("", TOKEN).replace(&target.to_string(), &away.to_string());
    let port = free_port();
    let flags = ["--proxy-protocol", "--local-addr", &format!("127.0.0.1:{port}")];
    let world = World::with(sandbox, upstream, &kubeconfig, &flags).await;
    let mut client = world.client().await;
    for _ in 0..2 {
        client.send(get("/api")).await;
        client.answer().await.is_status(502, "cannot reach the API server");
    }
    let metrics = support::get(port, "/metrics").await.body;
    for line in ["tailpod_proxy_upstream_errors_total 2", "tailpod_proxy_refused_total{reason=\"upstream\"} 2"] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    let listener = TcpListener::bind(away).await.unwrap();
    let mut relaying = JoinSet::new();
    relaying.spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = TcpStream::connect(target).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    });
    client.send(get("/api")).await;
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test]
async fn garbage_is_a_502() {
    let world = World::start(&[]).await;
    for garbage in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 abc\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Le",
    ] {
        world.upstream.script([say(garbage), Step::Close]);
        world.get("/api").await.is_status(502, "the API server");
    }
    assert_eq!(world.get("/api").await.status, 200);
}

#[tokio::test]
async fn an_answer_that_breaks_off_never_looks_whole() {
    let world = World::start(&[]).await;
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        world.upstream.script([say(answer), Step::Close]);
        let mut client = world.client().await;
        client.send(get("/api")).await;
        let text = String::from_utf8(client.rest().await).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains("half"), "{text}");
        assert!(!text.contains("0\r\n\r\n") || text.contains("content-length: 10\r\n"), "{text}");
    }
    // Broken before any of it was passed on: the client can still be told.
    let broken = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n";
    world.upstream.script([say(broken), Step::Close]);
    world.get("/api").await.is_status(502, "the API server's answer broke off");
    // Broken later: it ends without an end.
    let begun = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    world.upstream.script([say(begun), Step::Await, say("zz\r\n"), Step::Drain]);
    let mut client = world.client().await;
    client.send(get("/api")).await;
    client.until(b"4\r\nhalf\r\n").await;
    world.upstream.go_on();
    assert_eq!(client.rest().await, b"");
}

/// To a client of HTTP/1.0 the end of the connection is the end of the body, so it must not look like an end.
#[tokio::test]
async fn an_answer_that_breaks_off_is_a_reset_to_an_old_client() {
    let world = World::start(&[]).await;
    let begun = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    world.upstream.script([say(begun), Step::Await, Step::Close]);
    let mut client = world.client().await;
    client.send("GET /api HTTP/1.0\r\n\r\n").await;
    client.until(b"half").await;
    world.upstream.go_on();
    let end = client.stream.read(&mut [0; 16]).await;
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_request_meets_a_dead_connection_once_at_most() {
    let world = World::start(&[]).await;
    let closing = [say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), Step::Read(1), Step::Close];
    // The server waits for the next request and closes in its face.
    world.upstream.script(closing.clone());
    let mut client = world.client().await;
    client.send(get("/api/1")).await;
    client.answer().await;
    client.send(get("/api/2")).await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!((world.upstream.connections(), world.upstream.seen().len()), (2, 2));
    // What might be carried out twice is not sent twice.
    world.upstream.script(closing);
    client.send(get("/api/3")).await;
    client.answer().await;
    client.send("POST /api/4 HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n").await;
    client.answer().await.is_status(502, "the API server closed the connection without an answer");
    assert_eq!(world.upstream.seen().len(), 3);
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_still_sends() {
    let world = World::start(&[]).await;
    world
        .upstream
        .script([say("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"), Step::Drain]);
    let mut client = world.client().await;
    client.send("POST /api HTTP/1.1\r\nHost: h\r\nContent-Length: 10000000\r\n\r\n").await;
    client.send(vec![b'x'; 100_000]).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (413, Some("close")));
}

#[tokio::test]
async fn a_401_about_our_own_credentials_never_reaches_the_caller() {
    let world = World::start(&[]).await;
    world.upstream.say("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
    let answer = world.get("/api/v1/pods").await;
    answer.is_status(503, "the API server does not accept the credentials of the proxy");
    assert_eq!(answer.header("retry-after"), Some("1"));
    // What a Service says of itself is not about us.
    world.upstream.say("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n");
    let answer = world.get("/api/v1/namespaces/n/services/s/proxy/").await;
    assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Basic")));
}

#[tokio::test]
async fn row_19_a_rotated_token_is_used_without_a_failed_request() {
    let (sandbox, upstream) = World::parts().await;
    let token = sandbox.pod().write("etc/token", "first").unwrap();
    let kubeconfig = upstream.kubeconfig("", "x").replace("{token: x}", &format!("{{tokenFile: {}}}", token.display()));
    let world = World::with(sandbox, upstream, &kubeconfig, &["--proxy-protocol"]).await;
    let mut client = world.client().await;
    client.send(get("/api")).await;
    client.answer().await;
    world.sandbox.pod().write("etc/token", "second").unwrap();
    // A server that no longer takes the first one: the request is repeated, its body too.
    let post = "POST /api/v1/pods HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody";
    let refused = || [Step::Read(4), say("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")];
    world.upstream.script(refused());
    client.send(post).await;
    assert_eq!(client.answer().await.status, 200);
    let seen = world.upstream.seen();
    let tokens: Vec<_> = seen.iter().map(|seen| seen.all("authorization")[0]).collect();
    assert_eq!(tokens, ["Bearer first", "Bearer first", "Bearer second"]);
    assert_eq!(seen[2].body, b"body");
}
