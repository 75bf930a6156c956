//! The resolver against servers on loopback.

use std::fs;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;

/// What a server answers to a question of this kind, as flags and records.
type Say = fn(name: &str, kind: u16) -> (u16, Vec<Vec<u8>>);

/// A server on a port of its own, over UDP and TCP. UDP holds two records.
async fn server(say: Say) -> (SocketAddr, JoinSet<()>) {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = tcp.local_addr().unwrap();
    let udp = UdpSocket::bind(addr).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut buffer = [0; 512];
        loop {
            let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
            let mut reply = reply(&buffer[..length], say);
            if reply[7] > 2 {
                reply = buffer[..length].to_vec();
                reply[2] |= 0x82;
            }
            // Somebody else's answer first: it must be passed over.
            let mut foreign = reply.clone();
            foreign[0] ^= 1;
            udp.send_to(&foreign, from).await.unwrap();
            udp.send_to(&reply, from).await.unwrap();
        }
    });
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let mut length = [0; 2];
            stream.read_exact(&mut length).await.unwrap();
            let mut query = vec![0; u16::from_be_bytes(length).into()];
            stream.read_exact(&mut query).await.unwrap();
            let reply = reply(&query, say);
            stream.write_all(&u16::try_from(reply.len()).unwrap().to_be_bytes()).await.unwrap();
            stream.write_all(&reply).await.unwrap();
        }
    });
    (addr, tasks)
}

fn reply(query: &[u8], say: Say) -> Vec<u8> {
    let (mut name, mut at) = (Vec::new(), 12);
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        name.push(String::from_utf8(query[at + 1..end].to_vec()).unwrap());
        at = end;
    }
    let (code, records) = say(&name.join("."), u16::from_be_bytes([query[at + 1], query[at + 2]]));
    let mut reply = query.to_vec();
    reply[2] |= 0x80;
    reply[3] = code.to_be_bytes()[1];
    reply[7] = u8::try_from(records.len()).unwrap();
    for record in records {
        reply.extend_from_slice(&[0xc0, 12, 0, if record.len() == 4 { 1 } else { 28 }, 0, 1, 0, 0, 0, 30]);
        reply.extend_from_slice(&u16::try_from(record.len()).unwrap().to_be_bytes());
        reply.extend_from_slice(&record);
    }
    reply
}

fn resolver(config: &str) -> (tempfile::TempDir, Resolver) {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    fs::write(root.path().join("etc/resolv.conf"), config).unwrap();
    fs::write(root.path().join("etc/hosts"), "10.9.9.9 static.example\n").unwrap();
    let resolver = Resolver::new(root.path());
    (root, resolver)
}

fn shown(answer: &Answer) -> String {
    answer.addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn both_families_with_their_lifetime_through_the_search_list() {
    let (addr, _tasks) = server(|name, kind| match (name, kind) {
        ("db.prod.cluster", 1) => (0, vec![vec![10, 0, 0, 1]]),
        ("db.prod.cluster", _) => (0, vec![[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1].to_vec()]),
        ("four.cluster", 1) => (0, (1..=4).map(|last| vec![10, 0, 0, last]).collect()),
        ("four.cluster" | "empty.cluster", _) => (0, Vec::new()),
        _ => (3, Vec::new()),
    })
    .await;
    let config = format!("nameserver [127.0.0.1]:{}\nsearch other cluster\noptions ndots:2\n", addr.port());
    let (_root, resolver) = resolver(&config);
    let answer = resolver.look_up("db.prod").await.unwrap();
    assert_eq!((shown(&answer).as_str(), answer.ttl), ("10.0.0.1 fd00::1", Some(Duration::from_secs(30))));
    let whole = resolver.look_up("four").await.unwrap();
    assert_eq!(shown(&whole), "10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4", "over TCP");
    for name in ["empty", "nobody"] {
        let error = resolver.look_up(name).await.unwrap_err().to_string();
        assert_eq!(error, format!("lookup {name}: no such host"));
    }
}

#[tokio::test]
async fn files_and_literals_need_no_server() {
    let (_root, resolver) = resolver("nameserver [127.0.0.1]:1\n");
    for (name, found) in [("static.example", "10.9.9.9"), ("10.0.0.7", "10.0.0.7"), ("fd00::7", "fd00::7")] {
        let answer = resolver.look_up(name).await.unwrap();
        assert_eq!((shown(&answer).as_str(), answer.ttl), (found, None));
    }
}

#[tokio::test]
async fn a_server_that_fails_is_passed_over() {
    let (bad, _bad) = server(|_, _| (2, Vec::new())).await;
    let (good, _good) = server(|_, kind| (0, if kind == 1 { vec![vec![10, 0, 0, 1]] } else { Vec::new() })).await;
    let line = |addr: SocketAddr| format!("nameserver [127.0.0.1]:{}\n", addr.port());
    let (_root, both) = resolver(&(line(bad) + &line(good)));
    assert_eq!(shown(&both.look_up("h").await.unwrap()), "10.0.0.1");
    let (_root, alone) = resolver(&line(bad));
    let error = alone.look_up("h").await.unwrap_err();
    assert_eq!(crate::causes::chain(&error), format!("lookup h on {bad}: server misbehaving (code 2)"));
}
