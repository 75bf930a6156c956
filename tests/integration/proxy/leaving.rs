//! Clients that go away while they are not read from: what they asked for ends within a second all the same.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

use super::upgrade::{ask, switching};
use super::upstream::Step;
use super::watch::{WATCH, watch};
use super::world::{Client, TOKEN, World, get};

const LIMIT: Duration = Duration::from_secs(1);

/// Sends until nobody takes any more, and says how much that was.
async fn fill(client: &mut Client<TcpStream>) -> usize {
    let (block, mut sent) = (vec![0; 64 << 10], 0);
    while let Ok(written) = timeout(LIMIT / 2, client.stream.write(&block)).await {
        sent += written.unwrap();
    }
    sent
}

/// The API server learns of it in time.
async fn ends(world: &World, since: Instant) {
    world.upstream.wait("end", |seen| seen[0].is_gone).await;
    assert!(since.elapsed() < LIMIT, "{:?}", since.elapsed());
}

/// Sends what nobody takes any more, and dies with a reset, as what is killed does that has not read everything.
async fn dies_unheard(world: &World, mut client: Client<TcpStream>) {
    fill(&mut client).await;
    assert!(!world.upstream.request(0).await.is_gone);
    client.stream.set_zero_linger().unwrap();
    drop(client);
    ends(world, Instant::now()).await;
}

/// So much of the next requests that no more is read ahead.
fn ahead() -> String {
    get("/api").repeat(1_000)
}

#[tokio::test]
async fn an_upload_that_nobody_takes_ends_with_its_client() {
    let world = World::start(&[]).await;
    world.upstream.script([Step::Stall]);
    let mut client = world.client().await;
    client.send(format!("PUT /api/x HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", 1_u64 << 40)).await;
    dies_unheard(&world, client).await;
}

/// As `kubectl exec -i` into a command that does not read.
#[tokio::test]
async fn a_session_whose_server_takes_nothing_ends_with_its_client() {
    let world = World::start(&[]).await;
    world.upstream.script([switching("SPDY/3.1"), Step::Stall]);
    let mut client = world.client().await;
    client.send(ask("POST", "SPDY/3.1")).await;
    client.head().await;
    dies_unheard(&world, client).await;
}

/// In a session either side may end alone, and everything that it said before still arrives.
#[tokio::test]
async fn a_client_that_has_said_its_last_word_is_not_gone() {
    let world = World::start(&[]).await;
    let bye = Step::Say(b"bye".to_vec());
    world.upstream.script([switching("SPDY/3.1"), Step::Stall, bye.clone(), Step::Drain]);
    world.upstream.script([switching("SPDY/3.1"), Step::Stall, bye, Step::Drain]);
    for (number, is_full) in [true, false].into_iter().enumerate() {
        let mut client = world.client().await;
        client.send(ask("POST", "SPDY/3.1")).await;
        client.head().await;
        let sent = if is_full { fill(&mut client).await } else { 0 };
        client.stream.shutdown().await.unwrap();
        tokio::time::sleep(LIMIT / 2).await;
        world.upstream.go_on();
        assert_eq!(client.rest().await, b"bye");
        let seen = world.upstream.wait("end", |seen| seen[number].is_gone).await;
        assert_eq!(seen[number].body.len(), sent);
    }
}

#[tokio::test]
async fn a_watch_ends_with_a_client_that_has_sent_ahead() {
    let world = World::start(&[]).await;
    world.upstream.script(watch(0));
    let mut client = world.client().await;
    client.send(get(WATCH) + &ahead()).await;
    client.head().await;
    assert!(!world.upstream.request(0).await.is_gone);
    drop(client);
    ends(&world, Instant::now()).await;
}

#[tokio::test]
async fn nor_is_the_api_server_dialled_for_one_that_has_sent_ahead_and_left() {
    // It accepts connections and says nothing at all.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (sandbox, upstream) = World::parts().await;
    let (ours, its) = (upstream.addr().to_string(), silent.local_addr().unwrap().to_string());
    let kubeconfig = upstream.kubeconfig("", TOKEN).replace(&ours, &its);
    let world = World::with(sandbox, upstream, &kubeconfig, &["--proxy-protocol"]).await;
    let mut client = world.client().await;
    client.send(get("/api") + &ahead()).await;
    let (mut dialled, _) = silent.accept().await.unwrap();
    dialled.readable().await.unwrap();
    drop(client);
    let mut hello = Vec::new();
    timeout(LIMIT, dialled.read_to_end(&mut hello)).await.expect("it is given up").unwrap();
}
