//! Kubeconfigs of every other kind: tokens, files, passwords, trust, proxies, several files, and what is refused.

use std::time::Duration;

use tailpod::k8s::Cluster;
use tailpod::k8s::egress::EnvProxies;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::*;

/// What the server saw of one request with this user.
async fn authorization(scene: &Scene, user: &Value) -> Option<String> {
    let upstream = scene.open(&scene.cluster(), user).await.unwrap();
    assert_eq!(status(&upstream, "/api").await, Ok(200));
    let head = scene.server.heads().pop().unwrap();
    head.lines().find_map(|line| line.strip_prefix("Authorization: ")).map(str::to_owned)
}

#[tokio::test]
async fn tokens_files_and_passwords() {
    let scene = Scene::new().await;
    scene.write("token", "from-file\n");
    for (user, expected) in [
        (json!({"token": "fixed"}), Some("Bearer fixed")),
        (json!({"tokenFile": "token"}), Some("Bearer from-file")),
        (json!({"tokenFile": "token", "token": "fixed"}), Some("Bearer from-file")),
        (json!({"tokenFile": "gone", "token": "fixed"}), Some("Bearer fixed")),
        (json!({"username": "u", "password": "p"}), Some("Basic dTpw")),
        (json!({}), None),
    ] {
        assert_eq!(authorization(&scene, &user).await.as_deref(), expected, "{user}");
    }
    assert_eq!(scene.server.seen()[0].alpn.as_deref(), Some(&b"http/1.1"[..]));
}

#[tokio::test]
async fn every_problem_of_a_context_is_reported() {
    let scene = Scene::new().await;
    let cluster = json!({
        "server": "https://127.0.0.1:1", "insecure-skip-tls-verify": true, "certificate-authority": "gone.pem",
        "proxy-url": "ftp://x",
    });
    let user = json!({
        "token": "t", "username": "u", "client-certificate": "gone.crt",
        "auth-provider": {"name": "old"},
        "exec": {"apiVersion": V1, "env": [{"name": "", "value": "x"}]},
    });
    let error = scene.open(&cluster, &user).await.unwrap_err();
    for expected in [
        "specifying a root certificates file with the insecure flag is not allowed",
        "unable to read certificate-authority",
        "invalid 'proxy-url' for cluster \"c\"",
        "more than one authentication method found for u; found [token basicAuth], only one is allowed",
        "unable to read client-cert",
        "authProvider cannot be provided in combination with an exec plugin for u",
        "command must be specified for u to use exec authentication plugin",
        "env variable name must be specified for u to use exec authentication plugin",
        "interactiveMode must be specified for u to use exec authentication plugin",
    ] {
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let refused = async |cluster: Value, user: Value| scene.open(&cluster, &user).await.unwrap_err();
    let no_key = refused(scene.cluster(), json!({"client-certificate-data": "eA=="})).await;
    assert!(no_key.contains("clientKeyData or clientKey must be specified for u"), "{no_key}");
    let (x, y) = (scene.server.authority.sign("x", None), scene.server.authority.sign("y", None));
    let pair = json!({"client-certificate-data": BASE64.encode(&x.chain), "client-key-data": BASE64.encode(&y.key)});
    assert!(refused(scene.cluster(), pair).await.contains("private key does not match public key"));
    let provider = refused(scene.cluster(), json!({"auth-provider": {"name": "gcp"}})).await;
    assert!(provider.contains("the auth-provider of u is not supported"), "{provider}");
    for (server, expected) in [
        (json!(""), "no server found for cluster \"c\""),
        (json!("localhost:6443"), "it must begin with https:// or http://"),
    ] {
        let error = refused(json!({"server": server}), json!({})).await;
        assert!(error.contains(expected), "{error}");
    }
    std::fs::write(scene.path("kubeconfig"), "users: [{name: u, user: {token: [hush]}}]\n").unwrap();
    let error = open(&scene.path("kubeconfig"), &surroundings()).await.unwrap_err();
    assert!(error.contains("is not a kubeconfig") && !error.contains("hush"), "{error}");
}

/// As for clientcmd: it is a problem of whoever uses that user, among all the others.
#[tokio::test]
async fn an_interactive_mode_that_does_not_exist_is_a_problem_of_its_user() {
    let scene = Scene::new().await;
    let mut exec = scene.exec();
    exec["interactiveMode"] = json!("Sometimes");
    exec["command"] = json!("");
    let path = scene.kubeconfig(&scene.cluster(), &json!({"exec": exec}));
    let error = open(&path, &surroundings()).await.unwrap_err();
    for expected in ["unknown interactiveMode: \"Sometimes\" for u", "command must be specified for u to use exec"] {
        assert!(error.contains(expected), "{expected}: {error}");
    }
    assert!(!error.contains("interactiveMode must be specified"), "{error}");

    let mut text: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    text["users"].as_array_mut().unwrap().push(json!({"name": "other", "user": {"token": "t"}}));
    text["contexts"][0]["context"]["user"] = json!("other");
    let upstream = open(&scene.write("kubeconfig", &text.to_string()), &surroundings()).await.unwrap();
    assert_eq!(token(&upstream).await.as_deref(), Ok("Bearer t"), "nobody uses that plugin");
}

#[tokio::test]
async fn of_several_files_the_first_that_says_something_wins() {
    let scene = Scene::new().await;
    let context = |user: &str| json!({"name": "x", "context": {"cluster": "c", "user": user}});
    let first = json!({"current-context": "", "contexts": [context("second")]});
    let second = json!({
        "current-context": "x", "contexts": [context("first")], "clusters": [{"name": "c", "cluster": scene.cluster()}],
        "users": [{"name": "second", "user": {"tokenFile": "sub/token"}}],
    });
    let third = json!({"current-context": "y", "users": [{"name": "second", "user": {"token": "late"}}]});
    std::fs::create_dir(scene.path("sub")).unwrap();
    scene.write("sub/token", "found");
    let list = [
        scene.write("1", &first.to_string()),
        scene.path("missing"),
        scene.write("2", &second.to_string()),
        scene.write("3", &third.to_string()),
    ];
    let upstream = open(Path::new(&std::env::join_paths(list).unwrap()), &surroundings()).await.unwrap();
    assert_eq!(token(&upstream).await.as_deref(), Ok("Bearer found"));
}

#[tokio::test]
async fn client_certificate_files_are_read_again_and_close_the_old_connections() {
    let scene = Scene::new().await;
    let (x, y) = (scene.server.authority.sign("x", None), scene.server.authority.sign("y", None));
    let write = |pair: &Pair| (scene.write("key", &pair.key), scene.write("crt", &pair.chain));
    write(&x);
    let user = json!({"client-certificate": "crt", "client-key": "key"});
    let upstream = scene.open(&scene.cluster(), &user).await.unwrap();
    let (mut watch, _) = send(&upstream, "/watch").await.unwrap();
    write(&y);
    // Nobody dials, nobody reads: the files alone tell.
    scene.server.until("the watch closed", |seen| seen[0].is_closed).await;
    assert!(watch.read(&mut [0; 8]).await.is_err());
    scene.write("crt", "half written");
    assert_eq!(status(&upstream, "/api").await, Ok(200), "the last pair that fits");
    let clients: Vec<_> = scene.server.seen().into_iter().map(|seen| seen.client.unwrap()).collect();
    assert_eq!(clients, [x.der, y.der]);
}

#[tokio::test]
async fn trust_is_what_the_cluster_says() {
    let scene = Scene::new().await;
    let url = format!("https://{}", scene.server.addr);
    let ask = async |cluster: Value| {
        let upstream = scene.open(&cluster, &json!({"token": "t"})).await?;
        status(&upstream, "/api").await
    };
    assert_eq!(ask(json!({"server": url, "insecure-skip-tls-verify": true})).await, Ok(200));
    scene.write("ca.pem", &scene.server.authority.pem);
    assert_eq!(ask(json!({"server": url, "certificate-authority": "ca.pem"})).await, Ok(200));
    let wrong_name = json!({"server": url, "certificate-authority": "ca.pem", "tls-server-name": "other"});
    assert!(ask(wrong_name).await.unwrap_err().contains("not valid for name"));
    let path = scene.kubeconfig(&json!({"server": url}), &json!({"token": "t"}));
    let mut surroundings = surroundings();
    surroundings.ca_bundle = Some(scene.path("ca.pem"));
    let upstream = open(&path, &surroundings).await.unwrap();
    assert_eq!(status(&upstream, "/api").await, Ok(200), "the machine's authorities");
    scene.write("ca.pem", &server::Authority::new().pem);
    let error = status(&upstream, "/api").await.unwrap_err();
    assert!(error.contains("invalid peer certificate"), "read again, and no session is resumed: {error}");
}

#[tokio::test]
async fn nothing_secret_leaves_over_plain_text_or_for_nobody() {
    let scene = Scene::new().await;
    scene.answer(&json!({"token": "t"}));
    let plain = scene.open(&json!({"server": "http://127.0.0.1:1"}), &json!({"exec": scene.exec()})).await.unwrap();
    assert_eq!(token(&plain).await.as_deref(), Ok(""));
    let pair = scene.server.authority.sign("x", None);
    let user = json!({"token": "t", "client-certificate-data": BASE64.encode(&pair.chain), "client-key-data": BASE64.encode(&pair.key)});
    let path = scene.kubeconfig(&scene.cluster(), &user);
    let access = KubeAccess::Kubeconfig { path, context: None };
    let nobody = Upstream::open_in(&access, Whose::Nobodys, &surroundings()).await.unwrap();
    assert_eq!(status(&nobody, "/api").await, Ok(200));
    assert!(!scene.server.heads()[0].contains("Authorization") && scene.server.seen()[0].client.is_none());
    assert!(scene.runs().is_empty());
}

#[tokio::test]
async fn our_own_requests_impersonate_as_the_kubeconfig_says() {
    let scene = Scene::new().await;
    let user =
        json!({"token": "t", "as": "jane", "as-groups": ["a", "b"], "as-uid": "7", "as-user-extra": {"Scopes": ["v"]}});
    let path = scene.kubeconfig(&scene.cluster(), &user);
    let cluster = Cluster::connect(&KubeAccess::Kubeconfig { path, context: None }, "test").await.unwrap();
    cluster.secret("s").await.unwrap();
    let head = scene.server.heads().remove(0);
    for line in ["user: jane", "group: a", "group: b", "uid: 7", "extra-scopes: v"] {
        assert!(head.contains(&format!("impersonate-{line}\r\n")), "{line}: {head}");
    }
    assert!(head.starts_with("GET /api/v1/namespaces/ns/secrets/s "), "{head}");
    let error = scene.open(&scene.cluster(), &json!({"as-groups": ["a"]})).await.unwrap_err();
    assert!(error.contains("without impersonating a user"), "{error}");
}

// === Proxies ===

/// A proxy that takes one protocol, writes down what it was asked for, and connects to `to` whatever that was.
pub(super) async fn proxy(
    socks: bool,
    to: std::net::SocketAddr,
) -> (String, tokio::sync::watch::Receiver<Vec<String>>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let scheme = if socks { "socks5" } else { "http" };
    let url = format!("{scheme}://user:pass@{}", listener.local_addr().unwrap());
    let (asked, asks) = tokio::sync::watch::channel(Vec::new());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut open = JoinSet::new();
        while let Ok((mut client, _)) = listener.accept().await {
            let ask = if socks { socks_ask(&mut client).await } else { connect_ask(&mut client).await };
            asked.send_modify(|all| all.push(ask));
            let mut server = TcpStream::connect(to).await.unwrap();
            open.spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
        }
    });
    (url, asks, tasks)
}

async fn connect_ask(client: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    client.write_all(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n").await.unwrap();
    String::from_utf8(head).unwrap()
}

async fn socks_ask(client: &mut TcpStream) -> String {
    let mut greeting = [0; 3];
    client.read_exact(&mut greeting).await.unwrap();
    assert_eq!(greeting, [5, 1, 2]);
    client.write_all(&[5, 2]).await.unwrap();
    let mut login = [0; 11];
    client.read_exact(&mut login).await.unwrap();
    assert_eq!(&login, b"\x01\x04user\x04pass");
    client.write_all(&[1, 0]).await.unwrap();
    let mut head = [0; 5];
    client.read_exact(&mut head).await.unwrap();
    assert_eq!(head[..4], [5, 1, 0, 3], "the name is left to the proxy");
    let mut rest = vec![0; usize::from(head[4]) + 2];
    client.read_exact(&mut rest).await.unwrap();
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
    String::from_utf8(rest[..rest.len() - 2].to_vec()).unwrap()
}

#[tokio::test]
async fn the_clusters_proxy_leads_there_and_the_names_are_its_affair() {
    let scene = Scene::new().await;
    for socks in [false, true] {
        let (url, asks, _tasks) = proxy(socks, scene.server.addr).await;
        let mut cluster = scene.cluster();
        cluster["server"] = json!("https://api.invalid:6443");
        cluster["tls-server-name"] = json!("127.0.0.1");
        cluster["proxy-url"] = json!(url);
        let upstream = scene.open(&cluster, &json!({"token": "t"})).await.unwrap();
        assert_eq!(status(&upstream, "/api").await, Ok(200));
        let ask = asks.borrow()[0].clone();
        if socks {
            assert_eq!(ask, "api.invalid");
        } else {
            assert!(ask.starts_with("CONNECT api.invalid:6443 HTTP/1.1\r\nHost: api.invalid:6443\r\n"), "{ask}");
            assert!(ask.contains("Proxy-Authorization: Basic dXNlcjpwYXNz\r\n") && !ask.contains("Bearer"), "{ask}");
        }
    }
}

#[tokio::test]
async fn a_proxy_may_be_reached_by_tls_and_is_then_a_matter_of_the_machines_authorities() {
    let scene = Scene::new().await;
    let machine = server::Authority::new();
    let acceptor = machine.acceptor(&machine.sign("127.0.0.1", None));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut cluster = scene.cluster();
    cluster["proxy-url"] = json!(format!("https://user:pass@{}", listener.local_addr().unwrap()));
    let path = scene.kubeconfig(&cluster, &json!({"token": "t"}));
    let mut surroundings = surroundings();
    surroundings.ca_bundle = Some(scene.write("machine.pem", &machine.pem));
    let upstream = open(&path, &surroundings).await.unwrap();
    let relay = async {
        let mut client = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
        let ask = connect_ask(&mut client).await;
        let mut server = TcpStream::connect(scene.server.addr).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        ask
    };
    let (status, ask) = tokio::join!(status(&upstream, "/api"), relay);
    assert_eq!(status, Ok(200));
    assert!(ask.starts_with(&format!("CONNECT {} HTTP/1.1\r\n", scene.server.addr)), "{ask}");
    assert!(!ask.contains("Bearer"), "{ask}");
}

#[tokio::test]
async fn the_environments_proxy_leads_there_unless_it_is_excepted() {
    let scene = Scene::new().await;
    let (url, asks, _tasks) = proxy(false, scene.server.addr).await;
    let mut cluster = scene.cluster();
    cluster["server"] = json!("https://api.invalid:6443");
    cluster["tls-server-name"] = json!("127.0.0.1");
    let path = scene.kubeconfig(&cluster, &json!({"token": "t"}));
    let with = |no_proxy: &'static str| {
        let mut surroundings = surroundings();
        let url = url.clone();
        surroundings.proxies = EnvProxies::from_vars(&move |name| match name {
            "HTTPS_PROXY" => Some(url.clone()),
            "NO_PROXY" => Some(no_proxy.to_owned()),
            _ => None,
        })
        .unwrap();
        surroundings
    };
    let upstream = open(&path, &with("")).await.unwrap();
    assert_eq!(status(&upstream, "/api").await, Ok(200));
    let upstream = open(&path, &with(".invalid")).await.unwrap();
    assert!(status(&upstream, "/api").await.is_err(), "nobody resolves that name");
    assert_eq!(asks.borrow().len(), 1);
}

#[tokio::test]
async fn a_proxy_that_refuses_says_so() {
    let scene = Scene::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut cluster = scene.cluster();
    cluster["proxy-url"] = json!(format!("http://u:hush@{}", listener.local_addr().unwrap()));
    let upstream = scene.open(&cluster, &json!({"token": "t"})).await.unwrap();
    let refuse = async {
        let (mut client, _) = listener.accept().await.unwrap();
        client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await.unwrap();
        // Held open until the refusal was read.
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let (error, ()) = tokio::join!(status(&upstream, "/api"), refuse);
    let error = error.unwrap_err();
    assert!(error.contains("407 Proxy Authentication Required") && !error.contains("hush"), "{error}");
}
