//! TLS of the proxy itself: the right certificate for everybody who may have one.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tailpod::sandbox::Daemon;
use tailpod::sandbox::tls::{Pair, issue};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::upstream::Step;
use super::world::{Client, TOKEN, World, get, user};
use crate::support::SOON;

pub(super) const NODE: &str = "node.tail.ts.net";

/// How a client shakes hands.
struct Hello<'a> {
    trust: &'a Pair,
    name: &'a str,
    /// Whether it says the name.
    sni: bool,
    alpn: &'a [&'a str],
}

/// A connection from a loopback port that tailscaled knows, as in userspace mode.
pub(super) async fn known(daemon: &Daemon, proxy: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = socket.local_addr().unwrap();
    daemon.set_whois(&addr.to_string(), user("ann@example.com", &json!({})));
    socket.connect(proxy).await.unwrap()
}

async fn shake(tcp: TcpStream, hello: &Hello<'_>) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(hello.trust.ca_pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.enable_sni = hello.sni;
    config.alpn_protocols = hello.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(hello.name.to_owned()).unwrap(), tcp).await
}

/// Whether a client that trusts this pair's authority, and only that, gets through the handshake.
pub(super) async fn trusts(daemon: &Daemon, proxy: SocketAddr, pair: &Pair) -> bool {
    trusts_at(NODE, daemon, proxy, pair).await
}

/// The same for another name.
pub(super) async fn trusts_at(name: &str, daemon: &Daemon, proxy: SocketAddr, pair: &Pair) -> bool {
    let hello = Hello { trust: pair, name, sni: true, alpn: &[] };
    shake(known(daemon, proxy).await, &hello).await.is_ok()
}

#[tokio::test]
async fn the_certificate_is_chosen_by_name_among_the_nodes_own() {
    let (sandbox, upstream) = World::parts().await;
    // The short name is in it only so that a client that says it can check it.
    let (first, second) = (issue(&[NODE, "node"]).unwrap(), issue(&["other.tail.ts.net"]).unwrap());
    sandbox.daemon().set_dns(json!([NODE, "other.tail.ts.net"]), json!(null));
    sandbox.daemon().set_certificate(NODE, &first.pem);
    sandbox.daemon().set_certificate("other.tail.ts.net", &second.pem);
    let kubeconfig = upstream.kubeconfig("", TOKEN);
    let world = World::with(sandbox, upstream, &kubeconfig, &["--tls", "tailscale"]).await;
    let good = |trust, name, sni, alpn| Hello { trust, name, sni, alpn };
    for hello in [
        good(&first, NODE, true, &["h2", "http/1.1"][..]),
        good(&first, NODE, true, &[]),
        good(&first, NODE, false, &[]),
        good(&first, "node", true, &[]),
        good(&second, "other.tail.ts.net", true, &["http/1.1"]),
    ] {
        let stream = shake(known(world.daemon(), world.addr).await, &hello).await.unwrap();
        let alpn = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        assert_eq!(alpn.is_some(), !hello.alpn.is_empty());
        assert!(alpn.is_none_or(|alpn| alpn == b"http/1.1"));
        let mut client = Client::new(stream);
        for _ in 0..2 {
            client.send(get("/api")).await;
            assert_eq!(client.answer().await.status, 200);
        }
    }
    for hello in [
        good(&first, NODE, true, &["h2"][..]),
        good(&first, "evil.tail.ts.net", true, &[]),
        good(&first, "localhost", true, &[]),
    ] {
        assert!(shake(known(world.daemon(), world.addr).await, &hello).await.is_err(), "{}", hello.name);
    }
    let asked: Vec<_> = world.daemon().calls().into_iter().filter(|call| call.endpoint.starts_with("cert/")).collect();
    assert_eq!(asked.len(), 2, "once for each name, however many handshakes: {asked:?}");
    assert!(asked.iter().all(|call| call.query == "type=pair&min_validity=0s"));
}

#[tokio::test]
async fn a_local_process_is_nobody() {
    let (sandbox, upstream) = World::parts().await;
    sandbox.daemon().set_dns(json!([NODE]), json!(null));
    let pair = issue(&[NODE]).unwrap();
    sandbox.daemon().set_certificate(NODE, &pair.pem);
    let kubeconfig = upstream.kubeconfig("", TOKEN);
    let world = World::with(sandbox, upstream, &kubeconfig, &["--tls", "tailscale"]).await;
    let unknown = TcpStream::connect(world.addr).await.unwrap();
    let hello = Hello { trust: &pair, name: NODE, sni: true, alpn: &[] };
    assert!(shake(unknown, &hello).await.is_err());
    world.nothing_upstream();
}

#[tokio::test]
async fn files_are_read_again_when_they_change() {
    let (sandbox, upstream) = World::parts().await;
    let (first, second) = (issue(&[NODE]).unwrap(), issue(&[NODE]).unwrap());
    let certificate = sandbox.pod().write("etc/tls.crt", &first.chain_pem).unwrap();
    let key = sandbox.pod().write("etc/tls.key", &first.key_pem).unwrap();
    let kubeconfig = upstream.kubeconfig("", TOKEN);
    let flags = ["--tls", "files", "--tls-cert", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let world = World::with(sandbox, upstream, &kubeconfig, &flags).await;
    let trusts = async |pair: &Pair| trusts(world.daemon(), world.addr, pair).await;
    assert!(trusts(&first).await && !trusts(&second).await);
    // Half of a change is none.
    world.sandbox.pod().write("etc/tls.crt", &second.chain_pem).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    assert!(trusts(&first).await);
    world.sandbox.pod().write("etc/tls.key", &second.key_pem).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    assert!(trusts(&second).await && !trusts(&first).await);
}

/// A proxy with certificates of tailscaled's, and what its clients have to trust.
async fn with_certificate() -> (World, Pair) {
    let (sandbox, upstream) = World::parts().await;
    let pair = issue(&[NODE]).unwrap();
    sandbox.daemon().set_dns(json!([NODE]), json!(null));
    sandbox.daemon().set_certificate(NODE, &pair.pem);
    let kubeconfig = upstream.kubeconfig("", TOKEN);
    (World::with(sandbox, upstream, &kubeconfig, &["--tls", "tailscale"]).await, pair)
}

/// A hello that offers this version at most, with what a server of TLS 1.2 needs to go on.
fn hello(version: u16) -> Vec<u8> {
    fn sized(width: usize, bytes: &[u8]) -> Vec<u8> {
        [&bytes.len().to_be_bytes()[8 - width..], bytes].concat()
    }
    let extension = |kind: u16, body: &[u8]| [&kind.to_be_bytes()[..], &sized(2, body)].concat();
    let name = sized(2, &[&[0][..], &sized(2, NODE.as_bytes())].concat());
    let extensions = [
        extension(0, &name),
        extension(10, &sized(2, &[0, 23, 0, 29])),
        extension(11, &sized(1, &[0])),
        extension(13, &sized(2, &[4, 3, 8, 4, 4, 1])),
        extension(23, &[]),
    ];
    let body = [
        &version.to_be_bytes()[..],
        &[7; 32],
        &sized(1, &[]),
        // ECDHE with ECDSA and with RSA: those of TLS 1.2, then those of TLS 1.0.
        &sized(2, &[0xc0, 0x2b, 0xc0, 0x2f, 0xc0, 0x09, 0xc0, 0x13]),
        &sized(1, &[0]),
        &sized(2, &extensions.concat()),
    ];
    let message = [&[1][..], &sized(3, &body.concat())].concat();
    [&[22, 3, 1][..], &sized(2, &message)].concat()
}

#[tokio::test]
async fn nothing_older_than_tls_1_2_is_spoken() {
    let (world, _) = with_certificate().await;
    for (version, is_spoken) in [(0x0300, false), (0x0301, false), (0x0302, false), (0x0303, true)] {
        let mut client = Client::new(known(world.daemon(), world.addr).await);
        client.send(hello(version)).await;
        let answer = client.exactly(7).await;
        // A handshake record with a server's hello, or else a fatal alert: protocol_version.
        let is_hello = (answer[0], answer[5]) == (22, 2);
        assert_eq!(is_hello, is_spoken, "{version:#06x}: {answer:?}");
        assert!(is_spoken || answer[0] == 21 && answer[5..] == [2, 70], "{version:#06x}: {answer:?}");
        if !is_spoken {
            assert_eq!(client.rest().await, b"");
        }
    }
    world.nothing_upstream();
}

/// An end without the farewell of TLS is none: whoever reads knows that something is missing.
#[tokio::test]
async fn what_breaks_off_upstream_ends_without_the_farewell_of_tls() {
    let (world, pair) = with_certificate().await;
    let say = |text: &str| Step::Say(text.as_bytes().to_vec());
    let switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhalf";
    let session = "GET /api HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let plain = get("/api").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let of_length = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    for (request, answer, ends, is_good) in [
        (session, switching, vec![Step::Reset], false),
        (session, switching, vec![Step::Close], false),
        (session, switching, vec![Step::HalfClose, Step::Drain], true),
        (&plain, of_length, vec![Step::Reset], false),
        (&plain, chunked, vec![Step::Close], false),
        (&plain, chunked, vec![say("0\r\n\r\n")], true),
    ] {
        let what = format!("{request} {answer} {ends:?}");
        world.upstream.script([say(answer), Step::Await].into_iter().chain(ends));
        let hello = Hello { trust: &pair, name: NODE, sni: true, alpn: &[] };
        let mut client = Client::new(shake(known(world.daemon(), world.addr).await, &hello).await.unwrap());
        client.send(request).await;
        client.until(b"half").await;
        world.upstream.go_on();
        let mut rest = Vec::new();
        let end = tokio::time::timeout(SOON, client.stream.read_to_end(&mut rest)).await.expect("an end");
        assert_eq!(end.is_ok(), is_good, "{what}: {end:?}");
    }
}
