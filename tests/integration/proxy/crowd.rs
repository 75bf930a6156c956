//! Many at the door, strangers or one peer's: others are served as if they were not there.

use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::tls::known;
use super::upstream::Step;
use super::watch::{WATCH, watch};
use super::world::{ANN, Client, TOKEN, World, get, proxy_header, tagged};

/// As long tailscaled looks for a port that it does not know; the real one 380 ms, which a busy machine takes too.
const SEARCH: Duration = Duration::from_secs(2);
const STRANGERS: usize = 1_000;
const TIMES: usize = 200;

/// Asks on a new connection each time, and says how long the slowest took but for one in a hundred.
async fn p99(mut connect: impl AsyncFnMut() -> Client<TcpStream>) -> Duration {
    let mut took = Vec::new();
    for _ in 0..TIMES {
        let begun = Instant::now();
        let mut client = connect().await;
        client.send(get("/api")).await;
        assert_eq!(client.answer().await.status, 200);
        took.push(begun.elapsed());
    }
    took.sort();
    took[TIMES - 1 - TIMES / 100]
}

#[tokio::test]
async fn behind_serve_addresses_that_no_node_has_delay_no_peer() {
    let world = World::start(&[]).await;
    world.daemon().set_search(SEARCH);
    let addr = world.addr;
    let mut crowd = JoinSet::new();
    for lane in 0..10 {
        crowd.spawn(async move {
            for number in 0..STRANGERS / 10 {
                let mut stream = TcpStream::connect(addr).await.unwrap();
                // Loopback is nobody's in a PROXY header.
                let source = if number % 10 == 0 { "127.0.0.1" } else { "100.96.7.7" };
                let source = format!("{source}:{}", 1_000 + 100 * lane + number);
                stream.write_all(&proxy_header(&source)).await.unwrap();
                let mut stranger = Client::new(stream);
                stranger.send(get("/api")).await;
                stranger.answer().await.is_status(500, "failed to authenticate caller");
            }
        });
    }
    let slowest = p99(async || world.client_from(ANN).await).await;
    assert!(slowest < SEARCH / 2, "{slowest:?}");
    while let Some(done) = crowd.join_next().await {
        done.unwrap();
    }
    let served = world.upstream.seen();
    assert!(served.len() == TIMES && served.iter().all(|seen| seen.all("impersonate-user") == ["ann@example.com"]));
}

/// In userspace mode peers and local processes come from the same address. Who made a connection tells them apart; whois
/// still says who it is.
#[tokio::test]
async fn over_loopback_other_processes_delay_no_peer() {
    let (sandbox, upstream) = World::parts().await;
    sandbox.daemon().set_tun(false);
    sandbox.daemon().set_search(SEARCH);
    let kubeconfig = upstream.kubeconfig("", TOKEN);
    let world = World::with(sandbox, upstream, &kubeconfig, &["--tls", "off"]).await;
    let knock =
        "ulimit -n 2000; for _ in $(seq \"$1\"); do exec {fd}<>\"/dev/tcp/127.0.0.1/$0\" || exit 1; done; cat <&$fd";
    let mut crowd = Command::new("bash");
    crowd.args(["-c", knock, &world.addr.port().to_string(), &STRANGERS.to_string()]).stdin(Stdio::null());
    let mut crowd = crowd.kill_on_drop(true).spawn().unwrap();
    let slowest = p99(async || Client::new(known(world.daemon(), world.addr).await)).await;
    assert!(slowest < SEARCH / 2, "{slowest:?}");
    // The last one reads to the end, which comes without an answer.
    let ended = tokio::time::timeout(crate::support::SOON, crowd.wait()).await.expect("nobody is held").unwrap();
    assert!(ended.success(), "{ended}");
    // A peer is asked about when it comes and when it asks.
    let asked = world.daemon().count("GET whois");
    assert!(asked < 2 * TIMES + 10, "{asked} questions");
    assert_eq!(world.upstream.seen().len(), TIMES);
    let ended = world.stops().await;
    let refused = ended.lines.iter().filter(|line| line.contains("refused a connection")).count();
    assert_eq!(refused, STRANGERS);
}

#[tokio::test]
async fn a_peer_has_its_share_of_connections_and_no_more() {
    const MOST: usize = 20;
    const OTHER: &str = "100.64.0.10:1";
    let (sandbox, upstream) = World::parts().await;
    sandbox.daemon().set_whois(OTHER, tagged("ci.ts.net.", &["tag:ci"], &json!({})));
    let path = sandbox.pod().write("etc/upstream", upstream.kubeconfig("", TOKEN)).unwrap();
    let to_it = ["--kubeconfig", path.to_str().unwrap(), "--listen", "127.0.0.1:0", "--proxy-protocol"];
    let mut command = World::command(&sandbox, &to_it);
    command.env("TAILPOD_PEER_CONNECTIONS", MOST.to_string());
    let world = World::run(sandbox, upstream, command).await;
    let mut mine = Vec::new();
    world.upstream.script(watch(1));
    for number in 0..MOST {
        // From another port each, as the same node does.
        let mut client = world.client_from(&format!("100.64.0.9:{}", 40_000 + number)).await;
        client.send(get(if number == 0 { WATCH } else { "/api" })).await;
        client.head().await;
        mine.push(client);
    }
    let answer = world.get("/api").await;
    answer.is_status(429, "laptop.ts.net has 20 connections, as many as one peer may have");
    assert_eq!((answer.header("retry-after"), answer.header("connection")), (Some("1"), Some("close")));
    // Those who can be told are a few, and whoever comes then is not even told.
    let _told = [world.client().await, world.client().await];
    let begun = Instant::now();
    while !world.client().await.rest().await.is_empty() {
        assert!(begun.elapsed() < crate::support::SOON);
    }
    world.upstream.script([Step::Say(super::upstream::json("{}"))]);
    let mut other = world.client_from(OTHER).await;
    other.send(get("/api/of-another")).await;
    assert_eq!(other.answer().await.status, 200);
    let seen = world.upstream.seen();
    assert_eq!(seen.len(), MOST + 1, "nothing of the others was forwarded");
    // What is within the share goes on.
    world.upstream.go_on();
    mine[0].until(b"event\n\r\n").await;
    drop(mine.split_off(10));
    while world.get("/api").await.status != 200 {
        assert!(begun.elapsed() < crate::support::SOON, "a place is free again");
    }
    let ended = world.stops().await;
    assert!(ended.mentions("refused a connection: laptop.ts.net has 20 connections"), "{}", ended.text());
}
