//! Where clients come in: with a network interface, without one, behind `serve`.

use serde_json::json;
use tailpod::sandbox::tls::issue;
use tailpod::sandbox::{Fault, Sandbox};
use tokio::net::TcpStream;

use super::tls::{NODE, trusts};
use super::upstream::Upstream;
use super::world::{Client, TOKEN, World, get, user};
use crate::support::{Boot, SOON, node as self_node, running_as, skipped};

/// The parts, on a node that has these addresses.
async fn node(tun: bool, addresses: &[&str]) -> (Sandbox, Upstream, String) {
    let (sandbox, upstream) = World::parts().await;
    sandbox.daemon().set_tun(tun);
    sandbox.daemon().notify(running_as("myID", "node.tail.ts.net.", addresses));
    let path = sandbox.pod().write("etc/upstream", upstream.kubeconfig("", TOKEN)).unwrap();
    (sandbox, upstream, path.to_str().unwrap().to_owned())
}

/// An address of this process alone, in place of a tailnet's.
fn of_this_process(last: u8) -> String {
    let pid = std::process::id();
    format!("127.{}.{}.{last}", 64 + pid / 256 % 64, pid % 256)
}

/// With an interface the peer's own address is the other end's, on each of the node's addresses and on no other.
#[tokio::test]
async fn with_an_interface_every_address_of_the_node_serves() {
    let ours = [2, 3].map(of_this_process);
    if let Err(error) = std::net::TcpListener::bind((ours[0].as_str(), 443)) {
        return skipped(&format!("cannot listen on port 443: {error}"));
    }
    let (sandbox, upstream, kubeconfig) = node(true, &[&ours[0], &ours[1]]).await;
    let command = World::command(&sandbox, &["--kubeconfig", &kubeconfig, "--tls", "off"]);
    let world = World::run(sandbox, upstream, command).await;
    for addr in &ours {
        world.proxy.mentioned(&format!("is listening on {addr}:443")).await;
        let stream = TcpStream::connect((addr.as_str(), 443)).await.unwrap();
        drop(stream);
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(format!("{addr}:0").parse().unwrap()).unwrap();
        let peer = socket.local_addr().unwrap();
        world.daemon().set_whois(&peer.to_string(), user("ann@example.com", &json!({})));
        let mut client = Client::new(socket.connect(format!("{addr}:443").parse().unwrap()).await.unwrap());
        client.send(get("/api")).await;
        assert_eq!(client.answer().await.status, 200);
    }
    let mut ports = world.proxy.listening_ports();
    ports.retain(|port| *port == 443);
    assert_eq!(ports.len(), 2);
    assert!(TcpStream::connect((of_this_process(9).as_str(), 443)).await.is_err(), "never the wildcard");
    let seen = world.upstream.seen();
    assert!(seen.iter().all(|seen| seen.all("impersonate-user") == ["ann@example.com"]) && seen.len() == 2);
}

/// tailscaled lists its IPv6 address where the kernel has none, too.
#[tokio::test]
async fn an_ipv6_address_that_the_machine_does_not_have_is_no_reason_not_to_serve() {
    let there = of_this_process(4);
    if let Err(error) = std::net::TcpListener::bind((there.as_str(), 443)) {
        return skipped(&format!("cannot listen on port 443: {error}"));
    }
    let absent = "fd7a:115c:a1e0::4";
    let (sandbox, upstream, kubeconfig) = node(true, &[absent, &there]).await;
    let command = World::command(&sandbox, &["--kubeconfig", &kubeconfig, "--tls", "off"]);
    let world = World::run(sandbox, upstream, command).await;
    assert_eq!(world.addr.to_string(), format!("{there}:443"));
    let ended = world.stops().await;
    let warnings: Vec<_> = ended.lines.iter().filter(|line| line.contains("serving without IPv6")).collect();
    assert_eq!(warnings.len(), 1, "{}", ended.text());
    assert!(warnings[0].contains(&format!("cannot listen on [{absent}]:443: ")), "{}", warnings[0]);
    // With no other address nothing would be served.
    let (sandbox, _upstream, kubeconfig) = node(true, &[absent]).await;
    let command = World::command(&sandbox, &["--kubeconfig", &kubeconfig, "--tls", "off"]);
    let ended = Boot::spawn(command).ends(1).await;
    assert!(ended.mentions(&format!("cannot listen on [{absent}]:443")), "{}", ended.text());
}

/// Nobody reaches it where the node was, so it does not pretend to be well.
#[tokio::test]
async fn a_node_with_other_addresses_is_left_for_a_restart() {
    let (old, new) = (of_this_process(5), of_this_process(6));
    if let Err(error) = std::net::TcpListener::bind((old.as_str(), 443)) {
        return skipped(&format!("cannot listen on port 443: {error}"));
    }
    let (sandbox, upstream, kubeconfig) = node(true, &[&old]).await;
    let command = World::command(&sandbox, &["--kubeconfig", &kubeconfig, "--tls", "off"]);
    let mut world = World::run(sandbox, upstream, command).await;
    let daemon = world.sandbox.daemon();
    daemon.await_watchers(2, SOON).await.unwrap();
    let moved = |state: i64, addr: &str| {
        daemon.notify(json!({"State": state}));
        daemon.notify(json!({"SelfChange": self_node("myID", "node.tail.ts.net.", &[addr])}));
    };
    // The same node again, and one that is not up: nothing that a restart would better.
    for (state, addr) in [(6, &old), (4, &new)] {
        let asked = daemon.count("GET status");
        moved(state, addr);
        daemon.await_count("GET status", asked + 1, SOON).await.unwrap();
    }
    world.proxy.lives();
    moved(6, &new);
    let ended = world.proxy.ends(1).await;
    let line = format!("this node's tailnet addresses are other ones now ({new}:443): only a restart listens there");
    assert!(ended.mentions(&line), "{}", ended.text());
}

/// Where tailscaled dials for whoever connects to the node's port 443.
#[tokio::test]
async fn without_an_interface_port_443_of_loopback_serves() {
    if let Err(error) = std::net::TcpListener::bind(("127.0.0.1", 443)) {
        return skipped(&format!("cannot listen on port 443: {error}"));
    }
    let (sandbox, upstream, kubeconfig) = node(false, &["100.64.0.1", "fd7a:115c:a1e0::1"]).await;
    let command = World::command(&sandbox, &["--kubeconfig", &kubeconfig, "--tls", "off"]);
    let world = World::run(sandbox, upstream, command).await;
    assert_eq!(world.addr.to_string(), "127.0.0.1:443");
    assert_eq!(world.proxy.listening_ports(), [443]);
    world.stops().await;
}

/// Without one tailscaled dials loopback, just before it knows the connection.
#[tokio::test]
async fn without_an_interface_a_connection_may_be_known_a_moment_later() {
    let (sandbox, upstream, kubeconfig) = node(false, &["100.64.0.1"]).await;
    let flags = ["--kubeconfig", &kubeconfig, "--tls", "off", "--listen", "127.0.0.1:0"];
    let command = World::command(&sandbox, &flags);
    let world = World::run(sandbox, upstream, command).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let peer = socket.local_addr().unwrap();
    let mut client = Client::new(socket.connect(world.addr).await.unwrap());
    client.send(get("/api")).await;
    let first = format!("127.0.0.1%3A{}", peer.port());
    let is_first = |query: &str| query.contains(&first) || query.contains(&peer.to_string());
    world.daemon().await_call(crate::support::SOON, |call| is_first(&call.query)).await.unwrap();
    world.daemon().set_whois(&peer.to_string(), user("ann@example.com", &json!({})));
    assert_eq!(client.answer().await.status, 200);
    // A process of this machine is nobody, however long one waits: no answer at all.
    let mut stranger = Client::new(TcpStream::connect(world.addr).await.unwrap());
    stranger.send(get("/api")).await;
    assert_eq!(stranger.rest().await, b"");
    assert_eq!(world.upstream.seen().len(), 1);
}

#[tokio::test]
async fn where_peers_do_not_arrive_nothing_is_served() {
    for (tun, flags, said) in [
        (
            false,
            &["--tls", "off", "--listen", "100.64.0.1:443"][..],
            "tailnet peers arrive on 127.0.0.1 and nowhere else",
        ),
        (
            true,
            &["--tls", "off", "--listen", "0.0.0.0:443"],
            "proves nothing on an interface that is not the tailnet's",
        ),
        (true, &["--listen", "127.0.0.1:0", "--tls", "tailscale"], "HTTPS has to be enabled for the tailnet"),
    ] {
        let (sandbox, _upstream, kubeconfig) = node(tun, &["100.64.0.1"]).await;
        let command = World::command(&sandbox, &[&["--kubeconfig", kubeconfig.as_str()], flags].concat());
        let ended = Boot::spawn(command).ends(1).await;
        assert!(ended.mentions(said), "{}", ended.text());
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_there_yet_fails_a_handshake_and_no_more() {
    let (sandbox, upstream, kubeconfig) = node(false, &["100.64.0.1"]).await;
    let pair = issue(&[NODE]).unwrap();
    sandbox.daemon().set_dns(json!([NODE]), json!(null));
    sandbox.daemon().set_certificate(NODE, &pair.pem);
    sandbox.daemon().fail(&format!("cert/{NODE}"), Fault::Status(500, "rate limited".to_owned()));
    let flags = ["--kubeconfig", &kubeconfig, "--listen", "127.0.0.1:0"];
    let command = World::command(&sandbox, &flags);
    let world = World::run(sandbox, upstream, command).await;
    assert!(!trusts(world.daemon(), world.addr, &pair).await);
    world.daemon().heal();
    assert!(trusts(world.daemon(), world.addr, &pair).await);
    let ended = world.stops().await;
    assert!(ended.mentions("tailscaled gives no certificate for node.tail.ts.net"), "{}", ended.text());
    assert!(!ended.mentions("PRIVATE KEY"), "{}", ended.text());
}
