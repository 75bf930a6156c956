//! What is started, with which arguments, and what the host is prepared for.

use tailpod::sandbox::apiserver::Recorded;

use crate::support::{READY, Scene, running};

/// Boots with these variables to READY and compares the commands with `tailscaled <d>` and `tailscale up <u>`.
async fn commands(vars: &[(&str, &str)], d: &str, u: &str) -> Scene {
    let scene = Scene::new().await.with_all(vars);
    let boot = scene.boot();
    scene.notify(running()).await;
    boot.ready().await;
    scene.ran(&[scene.d(d), scene.u(u)]).await;
    boot.stops().await;
    assert_eq!(scene.daemon().commands().len(), 2);
    scene
}

const MEMORY: &str = "--state=mem: --statedir=/tmp --tun=userspace-networking";

#[tokio::test]
async fn s01_defaults() {
    let scene = Scene::new().await;
    let boot = scene.boot();
    boot.said("Starting tailscaled").await;
    let socket = scene.sandbox.pod().socket();
    boot.said(&format!("Waiting for tailscaled socket at {}", socket.display())).await;
    scene.ran(&[scene.d(MEMORY), scene.u("--accept-dns=false")]).await;
    boot.said("Running 'tailscale up'").await;
    scene.notify(running()).await;
    boot.ready().await;
    assert_eq!(boot.listening_ports(), [0; 0]);
    boot.stops().await;
    assert_eq!(scene.daemon().commands().len(), 2);
}

#[tokio::test]
async fn s02_auth_key() {
    commands(&[("TS_AUTHKEY", "k")], MEMORY, "--accept-dns=false --authkey=k").await;
}

#[tokio::test]
async fn s03_alias_key() {
    commands(&[("TS_AUTHKEY", ""), ("TS_AUTH_KEY", "k")], MEMORY, "--accept-dns=false --authkey=k").await;
}

#[tokio::test]
async fn s04_disk_state() {
    let vars = [("TS_AUTHKEY", "k"), ("TS_STATE_DIR", "/x")];
    commands(&vars, "--statedir=/x --tun=userspace-networking", "--accept-dns=false --authkey=k").await;
}

#[tokio::test]
async fn s05_routes_in_userspace() {
    let scene = commands(
        &[("TS_ROUTES", "1.2.3.0/24,10.20.30.0/24")],
        MEMORY,
        "--accept-dns=false --advertise-routes=1.2.3.0/24,10.20.30.0/24",
    )
    .await;
    assert_eq!(scene.sysctls(), ["0", "0"]);
}

#[tokio::test]
async fn s06_routes_withdrawn() {
    commands(&[("TS_ROUTES", "")], MEMORY, "--accept-dns=false --advertise-routes=").await;
}

#[tokio::test]
async fn s07_routes_in_the_kernel() {
    for (routes, sysctls) in
        [("1.2.3.0/24,10.20.30.0/24", ["1", "0"]), ("::/64,1::/64", ["0", "1"]), ("::/64,1.2.3.0/24", ["1", "1"])]
    {
        let scene = commands(
            &[("TS_USERSPACE", "false"), ("TS_ROUTES", routes)],
            "--state=mem: --statedir=/tmp",
            &format!("--accept-dns=false --advertise-routes={routes}"),
        )
        .await;
        assert_eq!(scene.sysctls(), sysctls, "{routes}");
    }
}

#[tokio::test]
async fn s08_bad_route() {
    let scene = Scene::new().await.with_all(&[("TS_USERSPACE", "false"), ("TS_ROUTES", "nonsense")]);
    let ended = scene.boot().ends(1).await;
    assert!(ended.mentions("Failed to enable IP forwarding: invalid subnet route"), "{}", ended.text());
    assert!(ended.says("To run tailscale as a proxy or router container, IP forwarding must be enabled."));
    assert_eq!(scene.daemon().commands().len(), 0);
    assert_eq!(scene.sysctls(), ["0", "0"]);
}

#[tokio::test]
async fn s18_accept_dns_merge() {
    let scene =
        Scene::new().await.with_all(&[("TS_ACCEPT_DNS", "true"), ("TS_EXTRA_ARGS", "--accept-dns=false --widget=a")]);
    let boot = scene.boot();
    boot.said("TS_EXTRA_ARGS contains --accept-dns=false, which overrides TS_ACCEPT_DNS=true").await;
    scene.notify(running()).await;
    boot.ready().await;
    scene.ran(&[scene.d(MEMORY), scene.u("--accept-dns=false --widget=a")]).await;
    boot.stops().await;
}

#[tokio::test]
async fn s20_accept_dns_malformed() {
    let scene = Scene::new().await.with("TS_EXTRA_ARGS", "--accept-dns=maybe");
    let boot = scene.boot();
    boot.mentioned("ignoring it").await;
    scene.notify(running()).await;
    boot.ready().await;
    scene.ran(&[scene.d(MEMORY), scene.u("--accept-dns=false --accept-dns=maybe")]).await;
    boot.stops().await;
}

#[tokio::test]
async fn s21_proxies_and_extra_daemon_args() {
    let d = format!(
        "{MEMORY} --socks5-server=localhost:1080 --outbound-http-proxy-listen=localhost:8080 --debug=127.0.0.1:9001 \
         --experiments=w"
    );
    let vars = [
        ("TS_SOCKS5_SERVER", "localhost:1080"),
        ("TS_OUTBOUND_HTTP_PROXY_LISTEN", "localhost:8080"),
        ("TS_TAILSCALED_EXTRA_ARGS", "--experiments=w"),
        ("TS_DEBUG_ADDR_PORT", "127.0.0.1:9001"),
    ];
    commands(&vars, &d, "--accept-dns=false").await;
}

#[tokio::test]
async fn s22_oauth_and_workload_identity() {
    let cases: [(&[(&str, &str)], &str); 5] = [
        (&[("TS_CLIENT_SECRET", "s")], "--client-secret=s"),
        (&[("TS_CLIENT_ID", "i")], "--client-id=i"),
        (&[("TS_CLIENT_ID", "i"), ("TS_CLIENT_SECRET", "s")], "--client-id=i --client-secret=s"),
        (&[("TS_CLIENT_ID", "i"), ("TS_ID_TOKEN", "t")], "--client-id=i --id-token=t"),
        (&[("TS_CLIENT_ID", "i"), ("TS_AUDIENCE", "a")], "--client-id=i --audience=a"),
    ];
    for (vars, flags) in cases {
        let mut vars = vars.to_vec();
        vars.extend([("TS_HOSTNAME", "h"), ("TS_ROUTES", ""), ("TS_EXTRA_ARGS", "--x  --y")]);
        let u = format!("--accept-dns=false {flags} --advertise-routes= --hostname=h --x --y");
        commands(&vars, MEMORY, &u).await;
    }
}

#[tokio::test]
async fn s29_kube_opt_out() {
    let scene = Scene::kube([("authkey", "from-the-secret")]).await.with_all(&[
        ("TS_KUBE_SECRET", ""),
        ("TS_STATE_DIR", "/x"),
        ("TS_AUTHKEY", "k"),
    ]);
    let boot = scene.boot();
    scene.notify(running()).await;
    boot.ready().await;
    scene.ran(&[scene.d("--statedir=/x --tun=userspace-networking"), scene.u("--accept-dns=false --authkey=k")]).await;
    boot.stops().await;
    let requests: Vec<String> =
        scene.api().requests().iter().map(|request: &std::sync::Arc<Recorded>| request.to_string()).collect();
    assert_eq!(requests, [""; 0]);
}

#[tokio::test]
async fn s64_socket_link() {
    let scene = Scene::new().await;
    let link = scene.root().join("var/run/tailscale/tailscaled.sock");
    let boot = scene.boot();
    scene.notify(running()).await;
    boot.ready().await;
    assert_eq!(std::fs::read_link(&link).expect("a link"), scene.sandbox.pod().socket());
    // The next start in the same container finds the link as it should be.
    let ended = boot.stops().await;
    assert!(!ended.mentions("[warning]"), "{}", ended.text());
    let boot = scene.boot();
    scene.daemon().await_commands(4, crate::support::SOON).await.expect("both commands again");
    boot.ready().await;
    let ended = boot.stops().await;
    assert!(!ended.mentions("[warning]"), "{}", ended.text());

    // Something else is in the way: a warning with the way out, and boot goes on.
    std::fs::remove_file(&link).expect("removed");
    std::fs::write(&link, "precious").expect("a file");
    let boot = scene.boot();
    boot.mentioned("[warning] failed to symlink socket: ").await;
    boot.mentioned("tailscale --socket=").await;
    boot.said(READY).await;
    boot.stops().await;
    assert_eq!(std::fs::read_to_string(&link).expect("the file"), "precious");
    std::fs::remove_file(&link).expect("removed");

    // At the default place there is nothing to link.
    let scene = scene.with("TS_SOCKET", &link);
    let boot = scene.boot();
    boot.ready().await;
    assert!(!std::fs::symlink_metadata(&link).expect("a socket").is_symlink());
    let ended = boot.stops().await;
    assert!(!ended.mentions("[warning]"), "{}", ended.text());
}
