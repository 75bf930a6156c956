//! TLS of the proxy itself: the right certificate for everybody who may have one.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tailpod::sandbox::Daemon;
use tailpod::sandbox::tls::{Pair, issue};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::world::{Client, TOKEN, World, get, user};

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
