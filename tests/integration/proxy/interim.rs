//! Interim answers that come to nothing: the client never hears one twice, and nothing else lands in the middle of one.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use super::limits::resident;
use super::upstream::{Step, json};
use super::world::{ANN, Client, World, get, proxy_header};

/// More of them than the kernel takes for a client that does not read.
const MANY: usize = 30;
const LARGE: usize = 900_000;

fn say(text: &str) -> Step {
    Step::Say(text.as_bytes().to_vec())
}

fn large_hint() -> Step {
    say(&format!("HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n", "x".repeat(LARGE)))
}

/// A connection whose end at the client takes little before it is read from.
pub(super) async fn narrow(world: &World) -> Client<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 << 10).unwrap();
    let mut stream = socket.connect(world.addr).await.unwrap();
    stream.write_all(&proxy_header(ANN)).await.unwrap();
    Client::new(stream)
}

#[tokio::test]
async fn no_more_of_them_is_read_than_the_client_takes() {
    let world = World::start(&[]).await;
    world.get("/api").await;
    let before = resident(&world);
    world.upstream.script(std::iter::repeat_n(large_hint(), MANY).chain([Step::Close]));
    let mut lazy = narrow(&world).await;
    lazy.send("POST /api HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await;
    world.upstream.request(1).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let after = resident(&world);
    assert!(after < before + 8_192, "{before} KiB before, {after} KiB after");
    // Each arrives whole, and only then what the proxy has to say itself.
    let text = String::from_utf8(lazy.rest().await).unwrap();
    let heads: Vec<_> = text.split_inclusive("\r\n\r\n").collect();
    assert!(heads[..MANY].iter().all(|head| head.starts_with("HTTP/1.1 103 ") && !head.contains("502")));
    assert!(heads[MANY].starts_with("HTTP/1.1 502 "), "{}", heads[MANY]);
}

#[tokio::test]
async fn no_answer_of_ours_lands_in_the_middle_of_one() {
    let world = World::start(&[]).await;
    world.upstream.script(std::iter::repeat_n(large_hint(), MANY).chain([Step::Drain]));
    let mut lazy = narrow(&world).await;
    lazy.send("POST /api HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
    world.upstream.request(0).await;
    // Until the connection is full.
    tokio::time::sleep(Duration::from_millis(500)).await;
    lazy.send("no chunk\r\n").await;
    world.proxy.mentioned("malformed request body").await;
    let text = String::from_utf8(lazy.rest().await).unwrap();
    assert!(text.starts_with("HTTP/1.1 103 ") && !text.contains("HTTP/1.1 400"));
    assert!(!text.ends_with("\r\n\r\n"), "one is cut in the middle, or this shows nothing");
}

#[tokio::test]
async fn what_a_client_has_heard_a_part_of_is_not_begun_anew() {
    let world = World::start(&[]).await;
    // A connection that has carried a request dies behind an interim answer.
    let hint = say("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    world.upstream.script([Step::Say(json("{}")), Step::Read(1), hint, Step::Close]);
    let mut client = world.client().await;
    client.send(get("/api/1")).await;
    assert_eq!(client.answer().await.status, 200);
    client.send(get("/api/2")).await;
    assert!(client.head().await.starts_with("HTTP/1.1 103 "));
    client.answer().await.is_status(502, "the API server closed the connection without an answer");
    assert_eq!(world.upstream.connections(), 1);
}

#[tokio::test]
async fn a_body_that_was_asked_for_is_not_asked_for_again_with_newer_credentials() {
    let (sandbox, upstream) = World::parts().await;
    let token = sandbox.pod().write("etc/token", "first").unwrap();
    let kubeconfig = upstream.kubeconfig("", "x").replace("{token: x}", &format!("{{tokenFile: {}}}", token.display()));
    let world = World::with(sandbox, upstream, &kubeconfig, &["--proxy-protocol"]).await;
    assert_eq!(world.get("/api").await.status, 200);
    world.sandbox.pod().write("etc/token", "second").unwrap();
    let refused = say("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
    world.upstream.script([say("HTTP/1.1 100 Continue\r\n\r\n"), Step::Read(4), refused]);
    let mut client = world.client().await;
    let post = "POST /api HTTP/1.1\r\nHost: h\r\nAccept: */*\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    client.send(post).await;
    assert!(client.head().await.starts_with("HTTP/1.1 100 "));
    client.send("body").await;
    let answer = client.answer().await;
    answer.is_status(503, "the API server does not accept the credentials of the proxy");
    assert_eq!((answer.header("retry-after"), world.upstream.seen().len()), (Some("1"), 2));
    // Whoever asks again does so with the newer ones.
    assert_eq!(world.get("/api").await.status, 200);
    assert_eq!(world.upstream.request(2).await.all("authorization"), ["Bearer second"]);
}
