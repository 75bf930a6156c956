//! Many clients, slow ones, dead ones: others are served meanwhile, and memory stays where it was.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::upstream::{Step, json};
use super::watch::{WATCH, watch};
use super::world::{ANN, Client, World, get, proxy_header};
use crate::support::{self, SOON};

fn say(text: &str) -> Step {
    Step::Say(text.as_bytes().to_vec())
}

/// Resident memory of the proxy, KiB.
pub(super) fn resident(world: &World) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.proxy.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Open descriptors of the proxy.
fn descriptors(world: &World) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", world.proxy.pid())).expect("it runs").count()
}

/// What the proxy keeps for the next client: connections to the API server and to tailscaled.
const KEPT: usize = 32 + 8;

/// Waits until the proxy has no more descriptors than this.
async fn lets_go(world: &World, most: usize) {
    let begun = Instant::now();
    while descriptors(world) > most {
        assert!(begun.elapsed() < SOON, "{} descriptors are open", descriptors(world));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn row_23_slow_heads_disturb_nobody_and_are_closed_after_ten_seconds() {
    tailpod::shutdown::raise_open_files_limit().unwrap();
    let port = support::free_port();
    let world = World::start(&["--local-addr", &format!("127.0.0.1:{port}")]).await;
    let begun = Instant::now();
    let mut slow = Vec::new();
    for _ in 0..1_000 {
        let mut client = world.client().await;
        client.send("GET /api HTTP/1.1\r\nHost: h\r\nA: ").await;
        slow.push(client);
    }
    let opened = begun.elapsed();
    assert_eq!(world.get("/api").await.status, 200);
    for client in &mut slow {
        assert_eq!(client.rest().await, b"");
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(9) && took < Duration::from_secs(15) + opened, "{took:?}");
    assert_eq!(world.get("/api").await.status, 200);
    let metrics = support::get(port, "/metrics").await.body;
    let line = "tailpod_proxy_refused_total{reason=\"request\"} 1000";
    assert!(metrics.lines().any(|found| found == line), "{metrics}");
    let ended = world.stops().await;
    let told = ended.lines.iter().filter(|line| line.contains("its head was not complete in time")).count();
    assert_eq!(told, 1_000, "one line for each");
}

#[tokio::test]
async fn connections_without_end_leave_nothing_behind() {
    let world = World::start(&[]).await;
    world.upstream.always([Step::Say(json("{}"))]);
    let round = async |count: usize| {
        let mut tries = JoinSet::new();
        for number in 0..count {
            let addr = world.addr;
            tries.spawn(async move {
                let mut client = Client::new(TcpStream::connect(addr).await.unwrap());
                match number % 5 {
                    // Gone at once; in the middle of a header; not tailscaled at all.
                    0 => {}
                    1 => client.send(&proxy_header(ANN)[..20]).await,
                    2 => client.send(get("/api")).await,
                    // In the middle of a head; after a request.
                    3 => client.send([&proxy_header(ANN)[..], b"GET /api HTTP/1.1\r\nHo"].concat()).await,
                    _ => {
                        client.send([&proxy_header(ANN)[..], get("/api").as_bytes()].concat()).await;
                        assert_eq!(client.answer().await.status, 200);
                    }
                }
            });
            if tries.len() >= 100 {
                tries.join_next().await.unwrap().unwrap();
            }
        }
        while let Some(done) = tries.join_next().await {
            done.unwrap();
        }
    };
    // With everything there that is there for good.
    world.daemon().await_watchers(1, SOON).await.unwrap();
    assert_eq!(world.get("/api").await.status, 200);
    let idle = descriptors(&world);
    round(1_000).await;
    lets_go(&world, idle + KEPT).await;
    let before = resident(&world);
    round(5_000).await;
    lets_go(&world, idle + KEPT).await;
    let after = resident(&world);
    assert!(after < before + 4_096, "{before} KiB before, {after} KiB after");
    assert_eq!(world.get("/api").await.status, 200);
}

#[tokio::test]
async fn more_clients_than_descriptors_wait_and_requests_still_reach_the_api_server() {
    let (sandbox, upstream) = World::parts().await;
    let path = sandbox.pod().write("etc/upstream", upstream.kubeconfig("", "t")).unwrap();
    let inner = World::command(
        &sandbox,
        &["--kubeconfig", path.to_str().unwrap(), "--listen", "127.0.0.1:0", "--proxy-protocol"],
    );
    let inner = inner.as_std();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "ulimit -n 200; exec \"$0\" \"$@\""]).arg(inner.get_program()).args(inner.get_args());
    command.env_clear().envs(sandbox.env()).kill_on_drop(true);
    // All of them are one peer's.
    command.env("TAILPOD_PEER_CONNECTIONS", "1000");
    let world = World::run(sandbox, upstream, command).await;
    let mut served = world.client().await;
    served.send(get("/api")).await;
    assert_eq!(served.answer().await.status, 200);
    let mut crowd = Vec::new();
    // Fewer than wait in the kernel's queue, so that all of them connect at once.
    for _ in 0..120 {
        crowd.push(world.client().await);
    }
    world.proxy.mentioned("no more connections than these").await;
    // Whoever is in already is not disturbed, not even when a connection to the API server has to be opened for it.
    world.upstream.script([Step::Await]);
    served.send(get("/api/1")).await;
    world.upstream.request(1).await;
    let mut second = crowd.remove(0);
    second.send(get("/api/2")).await;
    assert_eq!(second.answer().await.status, 200);
    drop(served);
    drop(crowd);
    assert_eq!(world.get("/api").await.status, 200);
}

#[tokio::test]
async fn an_upgrade_that_is_never_answered_ends_with_its_client() {
    let world = World::start(&["--local-addr", &format!("127.0.0.1:{}", support::free_port())]).await;
    let idle = descriptors(&world);
    let mut waiting = Vec::new();
    for number in 0..50 {
        // Half of them get a head that never ends.
        let begun = say("HTTP/1.1 101 Switching Protocols\r\nUpgrade: webso");
        world.upstream.script(if number % 2 == 0 { vec![Step::Drain] } else { vec![begun, Step::Drain] });
        let mut client = world.client().await;
        client.send("GET /api HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nahead").await;
        waiting.push(client);
    }
    let seen = world.upstream.wait("50 upgrades", |seen| seen.len() == 50).await;
    assert!(seen.iter().all(|seen| !seen.is_gone && seen.body.is_empty()), "nothing is sent before the switch");
    assert_eq!(world.get("/api").await.status, 200);
    drop(waiting);
    world.upstream.wait("ends", |seen| seen[..50].iter().all(|seen| seen.is_gone)).await;
    lets_go(&world, idle + KEPT).await;
}

#[tokio::test]
async fn whoever_does_not_read_costs_no_memory() {
    const LENGTH: usize = 64 << 20;
    let world = World::start(&[]).await;
    world.get("/api").await;
    let before = resident(&world);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
    world.upstream.script([Step::Say([head.as_bytes(), &vec![b'x'; LENGTH]].concat()), Step::Drain]);
    let mut lazy = world.client().await;
    lazy.send(get("/api/large")).await;
    lazy.head().await;
    // And one that is not read from: the API server takes its time.
    world.upstream.script([Step::Await, Step::Say(json("{}"))]);
    let mut pushing = world.client().await;
    pushing.send(format!("PUT /api/x HTTP/1.1\r\nHost: h\r\nContent-Length: {LENGTH}\r\n\r\n")).await;
    let pushed = tokio::time::timeout(Duration::from_secs(1), pushing.stream.write_all(&vec![b'y'; LENGTH])).await;
    let after = resident(&world);
    assert!(after < before + 8_192, "{before} KiB before, {after} KiB after");
    drop(pushed);
    assert_eq!(world.get("/api").await.status, 200);
}

/// A watch or a session lasts for days; a head is a megabyte.
#[tokio::test]
async fn what_was_asked_is_forgotten_once_it_is_answered() {
    let world = World::start(&[]).await;
    assert_eq!(world.get("/api").await.status, 200);
    let before = resident(&world);
    let large = "x".repeat(500_000);
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let switching = || vec![say(switch), Step::Drain];
    let to_websocket = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    // Each part of a head that something could be left of, and what was sent ahead with it.
    let requests = [
        (format!("{WATCH} HTTP/1.1\r\nHost: h\r\nAccept: */*\r\nA: {large}\r\n\r\n"), watch(0)),
        (format!("{WATCH} HTTP/1.1\r\nHost: h\r\nAccept: {large}\r\n\r\n"), watch(0)),
        (format!("{WATCH} HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: {large}\r\n\r\n"), watch(0)),
        (format!("{WATCH}&fieldSelector={large} HTTP/1.1\r\nHost: h\r\n\r\n"), watch(0)),
        (format!("{WATCH} HTTP/1.1\r\nHost: h\r\nA: {large}\r\n\r\n{}", get(&large[..5_000])), watch(0)),
        (format!("/{large} HTTP/1.1\r\nHost: h\r\n{to_websocket}A: {large}\r\n\r\n"), switching()),
        (format!("/api/v1/{large}/{large} HTTP/1.1\r\nHost: h\r\n{to_websocket}\r\n"), switching()),
    ];
    let mut open = Vec::new();
    for (request, steps) in requests.iter().cycle().take(105) {
        world.upstream.script(steps.clone());
        let mut client = world.client().await;
        client.send(["GET ", request].concat()).await;
        client.head().await;
        open.push(client);
    }
    let after = resident(&world);
    // Kept, they would be 100 MB.
    assert!(after < before + 20_000, "{before} KiB before, {after} KiB after");
}

/// Anybody may begin a head, and it is held before anything is known of whoever sends it.
#[tokio::test]
async fn large_heads_that_never_end_have_one_bound_together() {
    // 1 MB each.
    const PARKED: usize = 150;
    let port = support::free_port();
    let world = World::start(&["--local-addr", &format!("127.0.0.1:{port}")]).await;
    let begun = format!("GET /api HTTP/1.1\r\nHost: h\r\nA: {}\r\n", "x".repeat(1_000_000));
    let whole = format!("{begun}\r\n");
    assert_eq!(world.get("/api").await.status, 200);
    let before = resident(&world);
    let mut parked = Vec::new();
    let crowded = loop {
        let mut client = world.client().await;
        // Whoever is refused need not be heard out.
        let _ = client.stream.write_all(begun.as_bytes()).await;
        parked.push(client);
        if parked.len() < PARKED {
            continue;
        }
        let answer = world.ask(&whole).await;
        let after = resident(&world);
        assert!(after < before + 64 * 1_024, "{before} KiB before, {after} KiB after");
        if answer.status != 200 {
            break answer;
        }
    };
    crowded.is_status(431, "the memory for large heads is taken");
    // Ordinary requests need none of it.
    assert_eq!(world.get("/api").await.status, 200);
    drop(parked);
    let since = Instant::now();
    while world.ask(&whole).await.status != 200 {
        assert!(since.elapsed() < SOON, "it is given back");
    }
    let metrics = support::get(port, "/metrics").await.body;
    let counted =
        metrics.lines().find_map(|line| line.strip_prefix("tailpod_proxy_refused_total{reason=\"too-large\"} "));
    assert!(counted.is_some_and(|count| count.parse::<usize>().is_ok_and(|count| count > 50)), "{metrics}");
    let ended = world.stops().await;
    assert!(ended.mentions("refused a request: the memory for large heads is taken"), "{}", ended.text());
}

/// A peer that lost its network says nothing: the kernel has to ask.
#[tokio::test]
async fn a_client_that_is_silent_is_probed() {
    let world = World::start(&[]).await;
    world.upstream.script([say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), Step::Drain]);
    let mut watching = world.client().await;
    watching.send(get("/api/v1/pods?watch=1")).await;
    watching.head().await;
    let port = |addr: std::net::SocketAddr| format!(":{:04X}", addr.port());
    let (ours, theirs) = (port(world.addr), port(watching.stream.local_addr().unwrap()));
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut timers = fields
        .filter(|fields| fields.get(1).is_some_and(|addr| addr.ends_with(&ours)))
        .filter(|fields| fields.get(2).is_some_and(|addr| addr.ends_with(&theirs)))
        .filter_map(|fields| fields.get(5).map(|timer| (*timer).to_owned()));
    let timer = timers.next().expect("the proxy's end");
    // Kind and time left, in hundredths of a second: 02 is keep-alive.
    let left = timer.strip_prefix("02:").and_then(|left| u64::from_str_radix(left, 16).ok());
    assert!(left.is_some_and(|left| left <= 3_000), "{timer}");
}
