//! `certs verify`: real handshakes with replicas that serve what they should, what they should not, and nothing.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tailpod::sandbox::apiserver::access::Rule;
use tailpod::sandbox::tls::Pair;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::{DAY, certs, fresh, grant, made, node, serve, services};
use crate::support::{NAMESPACE, Scene};

pub(super) const NAME: &str = "shop.t.ts.net";

/// Replicas; dropping it ends them.
#[derive(Default)]
pub(super) struct Replicas(JoinSet<()>);

impl Replicas {
    /// One that serves `pair` at an address.
    pub(super) async fn serve(&mut self, at: SocketAddr, pair: &Pair) -> SocketAddr {
        let chain = CertificateDer::pem_slice_iter(pair.chain_pem.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(at).await.unwrap();
        let at = listener.local_addr().unwrap();
        self.0.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let _ = acceptor.accept(stream).await;
            }
        });
        at
    }
}

pub(super) fn local(last: u8, port: u16) -> SocketAddr {
    (Ipv4Addr::new(127, 0, 0, last), port).into()
}

/// A node that serves the name, whose certificate is in the state Secret.
async fn keeping(pair: &Pair) -> Scene {
    let scene = node(&services(&[NAME]), &[NAME]).await;
    scene.put_keys(&[("shop.t.ts.net.crt", &pair.chain_pem), ("shop.t.ts.net.key", &pair.key_pem)]);
    scene
}

#[tokio::test]
async fn replicas_that_serve_something_else_are_told_apart() {
    let kept = fresh(NAME);
    let scene = keeping(&kept).await;
    let mut replicas = Replicas::default();
    let same = replicas.serve(local(1, 0), &kept).await;
    let old = replicas.serve(local(1, 0), &made(&[NAME], 80 * DAY, 10 * DAY)).await;
    let other = replicas.serve(local(1, 0), &made(&[NAME], DAY, 89 * DAY)).await;
    let wrong = replicas.serve(local(1, 0), &fresh("blog.t.ts.net")).await;
    let expired = replicas.serve(local(1, 0), &made(&[NAME], 90 * DAY, -60)).await;
    let nobody = TcpListener::bind(local(1, 0)).await.unwrap().local_addr().unwrap();

    let one = certs(&scene, &["verify", NAME, "--address", &same.to_string()]).await.ends(0);
    assert_eq!(one.row(NAME).last().unwrap(), "same");
    let all = [same, old, other, wrong, expired, nobody].map(|address| address.to_string());
    let mut args = vec!["verify", NAME, "--json"];
    args.extend(all.iter().flat_map(|address| ["--address", address]));
    let ran = certs(&scene, &args).await.ends(3);
    let verdict = ran.json()["domains"][0].clone();
    let outcomes: Vec<_> = verdict["replicas"].as_array().unwrap().iter().map(|one| one["outcome"].clone()).collect();
    assert_eq!(outcomes, ["same", "old", "other", "wrong-name", "expired", "unreachable"]);
    assert_eq!(verdict["expectedSerial"], verdict["replicas"][0]["serial"]);
    ran.says("hint: a replica that only reads looks for a new certificate once a day");
    ran.says(&format!("warning: {nobody}: no connection"));

    // A gap alone is a failure, and no mismatch.
    let gap = certs(&scene, &["verify", NAME, "--address", &all[0], "--address", &all[5]]).await.ends(1);
    gap.shows("unreachable");
    // The serial number may be told, as openssl prints it.
    let serial = verdict["replicas"][1]["serial"].as_str().unwrap().to_uppercase();
    certs(&scene, &["verify", NAME, "--address", &all[1], "--serial", &format!("00{serial}")]).await.ends(0);
    certs(&scene, &["verify", NAME, "--address", &all[0], "--serial", &serial]).await.ends(3);
}

#[tokio::test]
async fn replicas_are_those_that_tailscaled_knows() {
    let kept = fresh(NAME);
    let scene = keeping(&kept).await;
    let mut replicas = Replicas::default();
    let port = replicas.serve(local(1, 0), &kept).await.port();
    replicas.serve(local(2, port), &made(&[NAME], 80 * DAY, 10 * DAY)).await;
    let config =
        json!({"Services": {"svc:shop": {"TCP": {port.to_string(): {"TCPForward": "x:1", "TerminateTLS": NAME}}}}});
    serve(&scene, &config).await;
    let records = json!([{"Name": format!("{NAME}."), "Value": "127.0.0.1"}, {"Name": NAME, "Value": "127.0.0.2"}]);
    scene.daemon().set_dns(json!([NAME]), records);
    let ran = certs(&scene, &["verify"]).await.ends(3);
    assert_eq!(ran.row(NAME)[1], format!("127.0.0.1:{port}"));
    ran.shows("same\n").shows("old\n");

    // Nobody knows where it is: the way out is named.
    scene.daemon().set_dns(json!([NAME]), json!([]));
    certs(&scene, &["verify"]).await.ends(1).says("hint: name the replicas: `--address IP[:PORT]` for each");
}

#[tokio::test]
async fn replicas_are_the_endpoints_of_a_service() {
    let (kept, other) = (fresh(NAME), made(&[NAME], DAY, 89 * DAY));
    let scene = node(&services(&[NAME]), &[NAME]).await;
    let mut replicas = Replicas::default();
    let port = replicas.serve(local(1, 0), &kept).await.port();
    replicas.serve(local(2, port), &other).await;
    let refused = certs(&scene, &["verify", NAME, "--service", "shop"]).await.ends(1);
    refused.says("cannot find the endpoints of Service `shop`").says("resources: [\"endpointslices\"]");
    grant(&scene, [Rule::new("discovery.k8s.io", &["endpointslices"], &["list"])]);
    certs(&scene, &["verify", NAME, "--service", "shop"]).await.ends(1).says("the Service has no endpoints");
    scene.api().put(
        "endpointslices",
        NAMESPACE,
        json!({
            "metadata": {"name": "shop-1", "labels": {"kubernetes.io/service-name": "shop"}}, "addressType": "IPv4",
            "ports": [{"name": "https", "port": port}],
            "endpoints": [
                {"addresses": ["127.0.0.1"], "targetRef": {"kind": "Pod", "name": "shop-0"}},
                {"addresses": ["127.0.0.2"], "targetRef": {"kind": "Pod", "name": "shop-1"}},
            ],
        }),
    );
    // Without one that is kept, the newest is what ought to be served.
    let ran = certs(&scene, &["verify", NAME, "--service", "shop", "--json"]).await.ends(3);
    let verdict = ran.json()["domains"][0].clone();
    let shown: Vec<_> = verdict["replicas"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| format!("{} {}", one["replica"].as_str().unwrap(), one["outcome"].as_str().unwrap()))
        .collect();
    assert_eq!((shown, &verdict["isKnown"]), (vec!["shop-0 old".to_owned(), "shop-1 same".to_owned()], &json!(false)));
}
