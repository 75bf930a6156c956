//! How the API server is reached: the names, proxies and trust of a kubeconfig, and what a bad one is told at the start.

use serde_json::json;
use tailpod::sandbox::tls::{Style, issue};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::upstream::Upstream;
use super::world::{Client, TOKEN, World, get};
use crate::support::{self, Boot, SOON};

#[tokio::test]
async fn row_24_the_path_of_the_configured_url_goes_in_front() {
    let world = World::start_at("/k8s/clusters/c-1", &[]).await;
    assert_eq!(world.get("/api/v1/pods?watch=0").await.status, 200);
    assert_eq!(world.upstream.request(0).await.line(), "GET /k8s/clusters/c-1/api/v1/pods?watch=0 HTTP/1.1");
}

#[tokio::test]
async fn row_24_the_proxy_of_the_kubeconfig_is_used() {
    let (sandbox, upstream) = World::parts().await;
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", proxy.local_addr().unwrap());
    let kubeconfig = upstream.kubeconfig("", TOKEN).replace("server: ", &format!("proxy-url: \"{url}\", server: "));
    let target = upstream.addr();
    let mut relaying = JoinSet::new();
    relaying.spawn(async move {
        let (near, _) = proxy.accept().await.unwrap();
        let mut near = Client::new(near);
        let head = near.head().await;
        assert!(head.starts_with(&format!("CONNECT {target} HTTP/1.1\r\n")), "{head}");
        near.send("HTTP/1.1 200 OK\r\n\r\n").await;
        let mut far = TcpStream::connect(target).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut near.stream, &mut far).await;
    });
    let world = World::with(sandbox, upstream, &kubeconfig, &["--proxy-protocol"]).await;
    assert_eq!(world.get("/api").await.status, 200);
    assert_eq!(relaying.len(), 1);
}

/// What counts is what a peer may do when its request is sent, not when it came.
#[tokio::test]
async fn grants_that_change_while_the_api_server_is_being_reached_count() {
    // Asked for by a request that is refused in any case, so that it says which grants are known.
    let probe = "GET /api/v1/pods HTTP/1.1\r\nHost: h\r\nAccept: application/json\r\nImpersonate-Group: root\r\n\r\n";
    let before = json!({"impersonate": {"groups": ["dev"], "allow": ["ops"]}, "recorderAddrs": ["100.64.0.3:80"]});
    let added = json!([before, {"impersonate": {"groups": ["added"]}}]);
    // Something that nobody records, which is told once, however often it is judged.
    let command = "/api/v1/nodes/n/proxy/exec/ns/p/c";
    for (after, said, status, warnings) in
        [(json!([{"enforceRecorder": true}]), "must be recorded", 403, 0), (added, "2 rules", 200, 1)]
    {
        let (sandbox, upstream) = World::parts().await;
        let gate = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", gate.local_addr().unwrap());
        let kubeconfig = upstream.kubeconfig("", TOKEN).replace("server: ", &format!("proxy-url: \"{url}\", server: "));
        let target = upstream.addr();
        let port = support::free_port();
        let flags = ["--proxy-protocol", "--local-addr", &format!("127.0.0.1:{port}")];
        let world = World::with(sandbox, upstream, &kubeconfig, &flags).await;
        world.grant(&json!([before]));
        world.daemon().await_watchers(1, SOON).await.unwrap();
        let mut asking = world.client().await;
        asking.send(get(command)).await;
        // It was judged, and waits for a connection.
        let mut near = Client::new(gate.accept().await.unwrap().0);
        near.head().await;
        world.grant(&after);
        world.daemon().notify(json!({"PeersChanged": [{"ID": 9}]}));
        let mut probing = world.client().await;
        let begun = Instant::now();
        loop {
            probing.send(probe).await;
            let answer = probing.answer().await;
            answer.is_status(403, "forbidden: ");
            if answer.text().contains(said) {
                break;
            }
            assert!(begun.elapsed() < SOON, "{}", answer.text());
        }
        near.send("HTTP/1.1 200 OK\r\n\r\n").await;
        let mut relaying = JoinSet::new();
        relaying.spawn(async move {
            let mut far = TcpStream::connect(target).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut near.stream, &mut far).await;
        });
        let answer = asking.answer().await;
        if status == 200 {
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(world.upstream.request(0).await.all("impersonate-group"), ["dev", "added"]);
        } else {
            answer.is_status(status, "forbidden: commands run through nodes/proxy cannot be recorded");
            world.nothing_upstream();
        }
        let metrics = support::get(port, "/metrics").await.body;
        let line = format!("tailpod_proxy_unrecorded_sessions_total{{reason=\"node-command\"}} {warnings}");
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn the_name_of_the_kubeconfig_is_asked_for_and_checked() {
    for (name, status) in [("kubernetes.default.svc", 200), ("other.example.com", 502)] {
        let (sandbox, upstream) = World::parts().await;
        let named = format!("tls-server-name: {name}, server: ");
        let kubeconfig = upstream.kubeconfig("", TOKEN).replace("server: ", &named);
        let world = World::with(sandbox, upstream, &kubeconfig, &["--proxy-protocol"]).await;
        let answer = world.get("/api").await;
        assert_eq!(answer.status, status, "{answer:?}");
        if status == 200 {
            let seen = world.upstream.request(0).await;
            assert_eq!(seen.server_name.as_deref(), Some(name));
            assert_eq!(seen.all("host"), ["proxy.ts.net"], "the client's own");
        } else {
            answer.is_status(502, "cannot reach the API server");
            world.nothing_upstream();
        }
    }
}

#[tokio::test]
async fn an_expired_certificate_is_told_and_nothing_is_sent() {
    let (sandbox, _) = World::parts().await;
    let upstream = Upstream::start_as(Style::Expired).await;
    let kubeconfig = upstream.kubeconfig("", TOKEN);
    let world = World::with(sandbox, upstream, &kubeconfig, &["--proxy-protocol"]).await;
    let answer = world.get("/api").await;
    answer.is_status(502, "cannot reach the API server");
    assert!(answer.text().to_lowercase().contains("expired"), "{}", answer.text());
    world.nothing_upstream();
    let ended = world.stops().await;
    assert!(ended.text().to_lowercase().contains("expired"), "{}", ended.text());
}

#[tokio::test]
async fn row_9_the_authority_is_checked_without_authentication_too() {
    for mode in ["auth", "noauth"] {
        let (sandbox, upstream) = World::parts().await;
        let other = Upstream::start().await;
        let kubeconfig = other.kubeconfig("", TOKEN).replace(&other.addr().to_string(), &upstream.addr().to_string());
        let world = World::with(sandbox, upstream, &kubeconfig, &["--proxy-protocol", "--mode", mode]).await;
        world.get("/api").await.is_status(502, "cannot reach the API server");
        world.nothing_upstream();
    }
}

#[tokio::test]
async fn in_a_pod_the_service_account_leads_there() {
    let (sandbox, upstream) = World::parts().await;
    let dir = "var/run/secrets/kubernetes.io/serviceaccount";
    sandbox.pod().write(&format!("{dir}/ca.crt"), upstream.ca_pem()).unwrap();
    sandbox.pod().write(&format!("{dir}/token"), "of-the-pod\n").unwrap();
    let mut command = World::command(&sandbox, &["--listen", "127.0.0.1:0", "--proxy-protocol"]);
    command.env("KUBERNETES_SERVICE_HOST", "127.0.0.1");
    command.env("KUBERNETES_SERVICE_PORT", upstream.addr().port().to_string());
    let world = World::run(sandbox, upstream, command).await;
    assert_eq!(world.get("/api").await.status, 200);
    assert_eq!(world.upstream.request(0).await.all("authorization"), ["Bearer of-the-pod"]);
}

#[tokio::test]
async fn a_kubeconfig_that_cannot_be_used_is_refused_at_the_start() {
    let (sandbox, upstream) = World::parts().await;
    let good = upstream.kubeconfig("", TOKEN);
    let (one, other) = (issue(&["a"]).unwrap(), issue(&["b"]).unwrap());
    let chain = sandbox.pod().write("etc/client.crt", &one.chain_pem).unwrap();
    let key = sandbox.pod().write("etc/client.key", &other.key_pem).unwrap();
    let pair = format!("client-certificate: {}, client-key: {}", chain.display(), key.display());
    for (kubeconfig, context, said) in [
        (good.clone(), "nowhere", "nowhere"),
        (good.replace(&format!("token: {TOKEN}"), "tokenFile: /no/such/token"), "c", "/no/such/token"),
        (good.replace("certificate-authority-data", "certificate-authority: /no/such/ca, x"), "c", "/no/such/ca"),
        (good.replace(&format!("token: {TOKEN}"), &pair), "c", "private key does not match"),
        ("apiVersion: v1\nkind: Config\nclusters: [\n".to_owned(), "c", "etc/upstream"),
    ] {
        let path = sandbox.pod().write("etc/upstream", &kubeconfig).unwrap();
        let to_it = ["--kubeconfig", path.to_str().unwrap(), "--context", context];
        let flags = [&to_it[..], &["--listen", "127.0.0.1:0", "--proxy-protocol"]].concat();
        let ended = Boot::spawn(World::command(&sandbox, &flags)).end().await;
        assert!(matches!(ended.code, Some(1 | 2)), "{kubeconfig}: {ended:?}");
        assert!(ended.mentions("error: ") && ended.mentions(said), "{kubeconfig}: {}", ended.text());
        assert!(!ended.mentions(TOKEN) && !ended.mentions("PRIVATE KEY"), "{}", ended.text());
    }
    let mut command = World::command(&sandbox, &["--kubeconfig", "/no/such/config", "--proxy-protocol"]);
    command.args(["--listen", "127.0.0.1:0"]);
    let ended = Boot::spawn(command).end().await;
    assert!(ended.code != Some(0) && ended.mentions("/no/such/config"), "{}", ended.text());
}
