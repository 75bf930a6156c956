//! What a peer of `tailpod proxy` sees of its credentials: the scenarios that are about requests once more, through the
//! front door, and what section 8 of api-proxy.md adds.

use std::time::{Duration, Instant};

use tailpod::sandbox::Sandbox;
use tokio::process::Command;

use super::door::{Door, USER, asked_at_once, refused, sandbox};
use super::runs::GATED;
use super::*;
use crate::support::{Answer, Boot};

/// Behind which the plugin's own words are found in the log.
const NO_CREDENTIALS: &str = "cannot obtain credentials for the Kubernetes API";

/// A `Status` with this code that tells the peer this and nothing about plugins.
fn is_status(answer: &Answer, code: u16, message: &str) {
    let status: Value = serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{answer:?}"));
    assert_eq!(
        (answer.status, &status["code"], &status["kind"], status["message"].as_str()),
        (code, &json!(code), &json!("Status"), Some(message))
    );
}

#[tokio::test]
async fn scenario_02_and_06_a_plugin_gets_its_environment_and_nothing_else() {
    let scene = Scene::new().await;
    scene.answer(&json!({"token": "t"}));
    scene.script(
        "readlink /proc/$$/fd/0 > \"$dir/stdin\"; ls -l /proc/$$/fd > \"$dir/open\"\n\
         echo \"open this page\" >&2; printf '%s|%s' \"$KEPT\" \"${HIDDEN-gone}\" > \"$dir/env\"; cat \"$dir/answer\"",
    );
    let mut exec = scene.exec();
    exec["env"] = json!([{"name": "KUBERNETES_EXEC_INFO", "value": "x"}]);
    let path = scene.kubeconfig(&scene.cluster(), &json!({"exec": exec}));
    let env = [("KEPT", "own"), ("HIDDEN", "h"), ("TAILPOD_EXEC_WITHHOLD", "HIDDEN")];
    let door = Door::open_with(&path, &[], &env).await;
    assert!(scene.runs().is_empty(), "nobody has asked for anything");
    assert_eq!(door.get().await, 200);
    door.proxy.mentioned("open this page").await;
    let read = |name: &str| std::fs::read_to_string(scene.path(name)).unwrap();
    assert_eq!(scene.runs(), [json!({"kind": "ExecCredential", "apiVersion": V1, "spec": {"interactive": false}})]);
    assert_eq!((read("stdin").trim(), read("env").as_str()), ("/dev/null", "own|gone"));
    let open = read("open");
    assert!(!["socket:", "anon_inode:"].iter().any(|ours| open.contains(ours)), "ours is open in it: {open}");
    let said = door.proxy.stops().await.text();
    assert!(!said.contains("Bearer"), "{said}");
}

#[tokio::test]
async fn scenario_03_04_and_others_stop_a_proxy_before_it_listens() {
    let scene = Scene::new().await;
    let (x, y) = (scene.server.authority.sign("x", None), scene.server.authority.sign("y", None));
    let exec = |name: &str, value: Value| {
        let mut exec = scene.exec();
        exec[name] = value;
        json!({ "exec": exec })
    };
    let pair = json!({"client-certificate-data": BASE64.encode(&x.chain), "client-key-data": BASE64.encode(&y.key)});
    let url = format!("https://{}", scene.server.addr);
    let sandbox = sandbox().await;
    for (cluster, user, flags, env, expected) in [
        (None, exec("interactiveMode", json!("Always")), &[][..], &[][..], "standard input is not a terminal"),
        (None, exec("interactiveMode", Value::Null), &[], &[], "interactiveMode must be specified for u"),
        (None, exec("apiVersion", json!("client.authentication.k8s.io/v1alpha1")), &[], &[], "invalid apiVersion"),
        (None, exec("command", json!("")), &[], &[], "command must be specified for u"),
        (None, json!({}), &["--context", "nope"], &[], "context was not found for specified context: nope"),
        (None, json!({"tokenFile": "gone"}), &[], &[], "cannot use the token in"),
        (None, json!({"client-certificate": "gone", "client-key": "gone"}), &[], &[], "unable to read client-cert"),
        (None, pair, &[], &[], "tls: private key does not match public key"),
        (Some(json!({"server": url, "certificate-authority": "gone"})), json!({}), &[], &[], "certificate-authority"),
        (Some(json!({"server": "kubernetes"})), json!({}), &[], &[], "it must begin with https:// or http://"),
        (None, json!({"exec": scene.exec(), "auth-provider": {"name": "x"}}), &[], &[], "in combination with an exec"),
        (None, json!({}), &[], &[("TAILPOD_EXEC_POLICY", "Sometimes")], "TAILPOD_EXEC_POLICY: a plugin policy is one"),
        (None, json!({}), &[], &[("TAILPOD_EXEC_TIMEOUT", "soon")], "TAILPOD_EXEC_TIMEOUT: "),
        (None, json!({}), &[], &[("TAILPOD_EXEC_TIMEOUT", "0s")], "TAILPOD_EXEC_TIMEOUT: it must be more than nothing"),
        (None, json!({}), &[], &[("TAILPOD_EXEC_TIMEOUT", "-1s")], "TAILPOD_EXEC_TIMEOUT: it must be more than"),
    ] {
        let path = scene.kubeconfig(&cluster.unwrap_or_else(|| scene.cluster()), &user);
        let said = refused(&sandbox, &path, flags, env).await;
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let said = refused(&sandbox, &scene.path("no-such-file"), &[], &[]).await;
    assert!(said.contains("no-such-file"), "{said}");
    assert!(scene.runs().is_empty() && scene.server.seen().is_empty());
}

#[tokio::test]
async fn scenario_03_the_other_daemons_refuse_a_plugin_that_needs_a_person_too() {
    let scene = Scene::new().await;
    let mut exec = scene.exec();
    exec["interactiveMode"] = json!("Always");
    let kubeconfig = scene.kubeconfig(&scene.cluster(), &json!({ "exec": exec }));
    let inside = sandbox().await;
    let config = inside.pod().write("etc/proxy.hujson", r#"{"version": "v1alpha1"}"#).unwrap();
    let state = inside.pod().root().join("state");
    for (name, args, vars) in [
        ("tailpod", &["boot"][..], [("TS_STATE_DIR", &state), ("TAILPOD_KUBECONFIG", &kubeconfig)]),
        ("k8s-proxy", &[], [("TS_K8S_PROXY_CONFIG", &config), ("TAILPOD_KUBECONFIG", &kubeconfig)]),
    ] {
        let mut command = Command::new(inside.pod().links().join(name));
        command.args(args).env_clear().envs(inside.env()).env("TS_KUBE_SECRET", "ts").envs(vars).kill_on_drop(true);
        let ended = Boot::spawn(command).end().await;
        assert_ne!(ended.code, Some(0));
        assert!(ended.mentions("standard input is not a terminal"), "{name}: {}", ended.text());
    }
    assert_eq!((inside.daemon().starts(), scene.runs().len()), (0, 0), "nothing was started");
}

#[tokio::test]
async fn scenario_07_the_peer_does_not_learn_what_is_wrong_with_an_answer() {
    let scene = Scene::new().await;
    scene.answer(&json!({"clientCertificateData": "hush"}));
    let door = Door::with_plugin(&scene).await;
    is_status(&door.ask("GET /api", "").await, 502, NO_CREDENTIALS);
    door.proxy.mentioned("exec plugin returned only certificate or key, not both").await;
    assert!(scene.server.seen().is_empty() && !door.proxy.text().contains("hush"));
}

#[tokio::test]
async fn scenario_08_five_hundred_first_requests_of_peers_are_one_run() {
    let scene = Scene::new().await;
    scene.answer(&json!({"token": "t"}));
    scene.script("sleep 0.3\ncat \"$dir/answer\"");
    let (_door, statuses) = asked_at_once(Door::with_plugin(&scene).await, 500, "GET /api").await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert_eq!(scene.runs().len(), 1);
    assert!(scene.server.heads().iter().all(|head| head.to_lowercase().contains("authorization: bearer t\r\n")));
}

#[tokio::test]
async fn scenario_09_and_20_a_failing_or_hanging_plugin_is_run_seldom_and_told_of_once() {
    let scene = Scene::new().await;
    scene.answer(&json!({"token": "t"}));
    scene.script("[ -e \"$dir/works\" ] || exec sleep 1000\ncat \"$dir/answer\"");
    let path = scene.kubeconfig(&scene.cluster(), &json!({"exec": scene.exec()}));
    let door = Door::open_with(&path, &[], &[("TAILPOD_EXEC_TIMEOUT", "200ms")]).await;
    let begun = Instant::now();
    is_status(&door.ask("GET /api", "").await, 502, NO_CREDENTIALS);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let (door, statuses) = asked_at_once(door, 100, "GET /api").await;
    assert!(statuses.iter().all(|status| *status == 502), "{statuses:?}");
    assert!(scene.runs().len() <= 2, "{}", scene.runs().len());
    std::fs::write(scene.path("works"), "").unwrap();
    while door.get().await != 200 {
        assert!(begun.elapsed() < Duration::from_secs(15), "it never recovers");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(scene.runs().len() <= 4, "{}", scene.runs().len());
    door.proxy.mentioned("exec: executable /bin/sh did not finish within 200ms").await;
    door.proxy.mentioned("the credential plugin works again").await;
}

#[tokio::test]
async fn scenario_10_and_19_no_peer_waits_for_a_refresh_and_a_broken_one_is_not_used() {
    let scene = Scene::new().await;
    let (ours, other) = (scene.server.authority.sign("a", None), scene.server.authority.sign("b", None));
    scene.answer(&json!({"token": "never", "clientCertificateData": ours.chain, "clientKeyData": other.key}));
    scene.script(&format!("[ -e \"$dir/broken\" ] && exec cat \"$dir/answer\"\n{GATED}"));
    let door = Door::with_plugin(&scene).await;
    let begun = Instant::now();
    while scene.runs().len() < 2 {
        assert_eq!(door.get().await, 200);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for _ in 0..20 {
        assert_eq!(door.get().await, 200, "the refresh has not ended");
    }
    for word in ["broken", "gate"] {
        std::fs::write(scene.path(word), "").unwrap();
    }
    let ended = loop {
        let answer = door.ask("GET /api", "").await;
        if answer.status != 200 {
            break answer;
        }
        assert!(begun.elapsed() < Duration::from_secs(12), "the old credentials have been revived");
    };
    is_status(&ended, 502, NO_CREDENTIALS);
    door.proxy.mentioned("failed parsing client key/certificate: tls: private key does not match public key").await;
    assert!(!scene.server.heads().iter().any(|head| head.contains("never")));
}

/// A proxy that nobody has used for an hour.
#[tokio::test]
async fn what_nobody_asks_for_is_refreshed_too() {
    let scene = Scene::new().await;
    scene.script(&format!("life=2\n: > \"$dir/gate\"\n{GATED}"));
    let door = Door::with_plugin(&scene).await;
    assert_eq!(door.get().await, 200);
    let begun = Instant::now();
    while scene.runs().len() < 3 {
        assert!(begun.elapsed() < Duration::from_secs(8), "{} runs", scene.runs().len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(door.get().await, 200);
}

#[tokio::test]
async fn what_is_expired_on_arrival_serves_the_whole_of_a_request() {
    let scene = Scene::new().await;
    scene.answer(&json!({"token": "t", "expirationTimestamp": "2001-01-01T00:00:00Z"}));
    let door = Door::with_plugin(&scene).await;
    assert_eq!((door.get().await, scene.runs().len()), (200, 1));
    drop(door);
    super::scenarios::inspect(&scene, &[]).await;
    // On a very busy machine its requests may be more than a second apart.
    assert!((2..=3).contains(&scene.runs().len()), "{}", scene.runs().len());
}

#[tokio::test]
async fn scenario_21_a_plugin_that_never_stops_talking_costs_no_memory() {
    let scene = Scene::new().await;
    scene.script("head -c 104857600 /dev/zero && : > \"$dir/finished\"");
    let door = Door::with_plugin(&scene).await;
    let peak = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", door.proxy.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let before = peak();
    is_status(&door.ask("GET /api", "").await, 502, NO_CREDENTIALS);
    door.proxy.mentioned("exec: executable /bin/sh printed more than 1048576 bytes").await;
    assert!(!scene.path("finished").exists());
    assert!(peak() < before + 16_384, "{before} kB before, {} kB after", peak());
}

#[tokio::test]
async fn scenario_22_and_23_whose_credentials_a_peers_request_carries() {
    let scene = Scene::new().await;
    scene.answer(&json!({"token": "from-plugin"}));
    let own = "Authorization: Bearer peers-own\r\nImpersonate-User: root\r\n";
    let user = json!({"exec": scene.exec(), "as": "jane", "as-groups": ["x"]});
    let path = scene.kubeconfig(&scene.cluster(), &user);
    let head = async |door: &Door| {
        assert_eq!(door.ask("GET /api", own).await.status, 200);
        scene.server.heads().pop().unwrap().to_lowercase()
    };
    // In auth mode: ours, and the peer's name; the kubeconfig's own impersonation is for our own requests.
    let door = Door::open_with(&path, &[], &[]).await;
    let sent = head(&door).await;
    assert!(sent.contains("authorization: bearer from-plugin\r\n"), "{sent}");
    assert!(sent.contains(&format!("impersonate-user: {USER}\r\n")), "{sent}");
    assert!(!["peers-own", "root", "jane", "impersonate-group: x"].iter().any(|part| sent.contains(part)), "{sent}");
    // In noauth mode: the peer's, and nobody runs a plugin, whatever the answer is.
    let door = Door::open_with(&path, &["--mode", "noauth"], &[]).await;
    let sent = head(&door).await;
    assert!(sent.contains("authorization: bearer peers-own\r\n") && !sent.contains("from-plugin"), "{sent}");
    scene.server.accept(&["other"]);
    assert_eq!(door.ask("GET /api", own).await.status, 401);
    assert_eq!(scene.runs().len(), 1);
    // With a static token, the plugin is nobody's affair either.
    scene.server.accept(&["static"]);
    let door = Door::open(&scene, &json!({"token": "static", "exec": scene.exec()})).await;
    assert_eq!((door.get().await, scene.runs().len()), (200, 1));
}

#[tokio::test]
async fn scenario_25_the_policy_is_the_proxys_own() {
    let scene = Scene::new().await;
    scene.answer(&json!({"token": "t"}));
    let path = scene.kubeconfig(&scene.cluster(), &json!({"exec": scene.exec()}));
    let door = Door::open_with(&path, &[], &[("TAILPOD_EXEC_POLICY", "DenyAll")]).await;
    is_status(&door.ask("GET /api", "").await, 502, NO_CREDENTIALS);
    door.proxy.mentioned("plugin \"/bin/sh\" not allowed: policy set to \"DenyAll\"").await;
    assert!(scene.runs().is_empty() && scene.server.seen().is_empty());
    let listed = [("TAILPOD_EXEC_POLICY", "Allowlist"), ("TAILPOD_EXEC_ALLOWLIST", "/bin/other, /bin/sh")];
    assert_eq!(Door::open_with(&path, &[], &listed).await.get().await, 200);
}

#[tokio::test]
async fn scenario_27_a_token_that_no_header_can_carry_is_not_sent_for_a_peer() {
    let scene = Scene::new().await;
    scene.answer(&json!({"token": "t\r\nImpersonate-User: root"}));
    let door = Door::with_plugin(&scene).await;
    is_status(&door.ask("GET /api", "").await, 502, NO_CREDENTIALS);
    assert!(scene.server.seen().is_empty());
}

/// The Pod's service account: the files of the token, "one", and of the CA.
fn account(inside: &Sandbox, scene: &Scene) -> [PathBuf; 2] {
    [("token", "one\n"), ("ca.crt", &scene.server.authority.pem)].map(|(name, text)| {
        let path = format!("var/run/secrets/kubernetes.io/serviceaccount/{name}");
        inside.pod().write(&path, text).unwrap()
    })
}

#[tokio::test]
async fn in_a_pod_the_service_account_is_used_and_its_token_read_again() {
    let scene = Scene::new().await;
    let inside = sandbox().await;
    let [token, ca] = account(&inside, &scene);
    let (host, port) = (scene.server.addr.ip().to_string(), scene.server.addr.port().to_string());
    // Loopback is no proxy's affair.
    let env = [
        ("KUBERNETES_SERVICE_HOST", host.as_str()),
        ("KUBERNETES_SERVICE_PORT", &port),
        ("KUBERNETES_SERVICE_PORT_HTTPS", &port),
        ("HTTPS_PROXY", "http://127.0.0.1:1"),
    ];
    for (path, good) in [(&token, "one\n"), (&ca, scene.server.authority.pem.as_str())] {
        std::fs::write(path, "").unwrap();
        let said = door::spawn(&inside, &[], &env).ends(1).await.text();
        assert!(said.contains(path.to_str().unwrap()), "{said}");
        std::fs::write(path, good).unwrap();
    }
    let door = Door::at(inside, &[], &env).await;
    scene.server.accept(&["one"]);
    assert_eq!(door.get().await, 200);
    std::fs::write(&token, "two").unwrap();
    scene.server.accept(&["two"]);
    assert_eq!(door.get().await, 200);
    std::fs::write(&token, "").unwrap();
    assert_eq!(door.get().await, 200, "the last one that could be read");
    drop(door);
}

#[tokio::test]
async fn a_path_a_server_name_and_a_proxy_lead_there() {
    let scene = Scene::new().await;
    let (through, asks, _tasks) = super::kubeconfigs::proxy(false, scene.server.addr).await;
    let mut cluster = scene.cluster();
    cluster["server"] = json!("https://api.invalid:6443/k8s/clusters/c-1/");
    cluster["tls-server-name"] = json!("127.0.0.1");
    cluster["proxy-url"] = json!(through);
    let path = scene.kubeconfig(&cluster, &json!({"token": "t"}));
    let door = Door::open_with(&path, &[], &[]).await;
    assert_eq!(door.ask("GET /api/v1/pods?limit=1", "").await.status, 200);
    super::scenarios::inspect(&scene, &[]).await;
    let heads = scene.server.heads();
    assert!(heads[0].starts_with("GET /k8s/clusters/c-1/api/v1/pods?limit=1 HTTP/1.1\r\n"), "{heads:?}");
    assert!(heads[1].starts_with("GET /k8s/clusters/c-1/api/v1/namespaces/ns/secrets/s "), "{heads:?}");
    assert!(asks.borrow().iter().all(|ask| ask.starts_with("CONNECT api.invalid:6443 ")), "{:?}", asks.borrow());
    assert_eq!(asks.borrow().len(), 2);
}

/// As for Go's clients, `rest.InClusterConfig` included.
#[tokio::test]
async fn the_environments_proxy_leads_there_for_a_kubeconfig_and_in_a_pod() {
    let mut scene = Scene::new().await;
    let authority = server::Authority::new();
    let leaf = authority.sign("api.invalid", None);
    scene.server = Server::start_as(authority, &leaf).await;
    let (through, asks, _tasks) = super::kubeconfigs::proxy(false, scene.server.addr).await;
    let mut cluster = scene.cluster();
    cluster["server"] = json!("https://api.invalid:6443");
    let path = scene.kubeconfig(&cluster, &json!({"token": "one"}));
    let inside = sandbox().await;
    account(&inside, &scene);
    scene.server.accept(&["one"]);

    let via = ("HTTPS_PROXY", through.as_str());
    assert_eq!(Door::open_with(&path, &[], &[via]).await.get().await, 200);
    let pod = [("KUBERNETES_SERVICE_HOST", "api.invalid"), ("KUBERNETES_SERVICE_PORT", "6443"), via];
    assert_eq!(Door::at(inside, &[], &pod).await.get().await, 200);
    let asked = asks.borrow().clone();
    assert!(asked.len() == 2 && asked.iter().all(|ask| ask.starts_with("CONNECT api.invalid:6443 ")), "{asked:?}");

    // Nobody resolves that name.
    let door = Door::open_with(&path, &[], &[via, ("NO_PROXY", "example.com,.invalid")]).await;
    assert_eq!((door.get().await, asks.borrow().len()), (502, 2));
}
