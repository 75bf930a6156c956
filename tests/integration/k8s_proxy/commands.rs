//! `proxy check`, `proxy explain` and `proxy kubeconfig`.

use serde_json::{Value, json};

use crate::support::{Ended, Scene, running};

async fn tailpod(scene: &Scene, args: &[&str]) -> Ended {
    scene.start("tailpod", &[&["proxy"], args].concat(), &[]).end().await
}

#[tokio::test]
async fn check_says_where_a_config_is_wrong() {
    let scene = Scene::new().await;
    let pod = scene.sandbox.pod();
    let good = pod.write("good.hujson", r#"{"version": "v1alpha1", "hostnme": "x", /* fine */}"#).unwrap();
    let good = good.to_str().unwrap();
    let bad = pod.write("bad.hujson", "{\n  \"version\": \"v1alpha1\",\n  \"localPort\": 70000\n}").unwrap();
    let bad = bad.to_str().unwrap();

    let ended = tailpod(&scene, &["check", good]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.text());
    assert!(ended.mentions(&format!("{good} is a config for k8s-proxy")), "{}", ended.text());
    assert!(ended.mentions("line 1, column 25: nothing reads `hostnme`; is `Hostname` meant?"), "{}", ended.text());

    let ended = tailpod(&scene, &["check", bad]).await;
    assert_eq!(ended.code, Some(2));
    let line = format!("error: {bad}:3:16: `LocalPort` must be a number from 0 to 65535");
    assert_eq!(ended.lines, [line]);

    let ended = tailpod(&scene, &["check", "--json", bad]).await;
    assert_eq!(ended.code, Some(2));
    let document: Value = serde_json::from_str(&ended.text()).unwrap();
    let expected = json!({
        "file": bad, "valid": false, "line": 3, "column": 16,
        "error": "`LocalPort` must be a number from 0 to 65535", "warnings": [],
    });
    assert_eq!(document, expected);
    assert_eq!(tailpod(&scene, &["check", "/nowhere.hujson"]).await.code, Some(2));
}

fn whois() -> Value {
    json!({
        "Node": {"ID": 2, "StableID": "n2", "Name": "laptop.test.ts.net."},
        "UserProfile": {"ID": 7, "LoginName": "ann@example.com"},
        "CapMap": {"tailscale.com/cap/kubernetes": [
            {"impersonate": {"groups": ["readers", "writers"]}},
            {"impersonate": {"groups": ["readers"]}, "recorderAddrs": ["100.64.0.5:80"], "enforceRecorder": true},
        ]},
    })
}

const EXPLAINED: &str = "\
Peer: laptop.test.ts.net (n2), user ann@example.com

Rules, in the order that counts:
RULE  CAPABILITY                    GROUPS            MAY ASK FOR  RECORDERS      ENFORCED  EVENTS
1     tailscale.com/cap/kubernetes  readers, writers  -            -              -         -
2     tailscale.com/cap/kubernetes  readers           -            100.64.0.5:80  yes       -

Headers of a request:
  Impersonate-User: ann@example.com
  Impersonate-Group: readers
  Impersonate-Group: writers

Recorders: 100.64.0.5:80; without one: refuse; API requests: not recorded";

#[tokio::test]
async fn explain_shows_rules_and_headers_from_a_file() {
    let scene = Scene::new().await;
    let file = scene.sandbox.pod().write("whois.json", whois().to_string()).unwrap();
    let ended = tailpod(&scene, &["explain", "--whois", file.to_str().unwrap()]).await;
    assert_eq!((ended.code, ended.text().as_str()), (Some(0), EXPLAINED));
    let ended = tailpod(&scene, &["explain", "--json", "--whois", file.to_str().unwrap()]).await;
    let document: Value = serde_json::from_str(&ended.text()).unwrap();
    let headers = ["Impersonate-User: ann@example.com", "Impersonate-Group: readers", "Impersonate-Group: writers"];
    assert_eq!(document["asWhom"]["headers"], json!(headers));
    let mut malformed = whois();
    malformed["CapMap"]["tailscale.com/cap/kubernetes"] = json!(["x"]);
    let file = scene.sandbox.pod().write("bad.json", malformed.to_string()).unwrap();
    let ended = tailpod(&scene, &["explain", "--whois", file.to_str().unwrap()]).await;
    assert_eq!(ended.code, Some(3), "{}", ended.text());
    assert!(ended.mentions("Every request is refused"), "{}", ended.text());
}

#[tokio::test]
async fn explain_asks_the_daemon_and_knows_strangers() {
    let scene = Scene::kube([]).await;
    let proxy = scene.boot();
    scene.notify(running()).await;
    proxy.ready().await;
    scene.daemon().set_whois("100.64.0.9:0", whois());
    let ended = tailpod(&scene, &["explain", "--peer", "100.64.0.9"]).await;
    assert_eq!((ended.code, ended.text().as_str()), (Some(0), EXPLAINED));
    let ended = tailpod(&scene, &["explain", "--peer", "100.64.0.10:4711"]).await;
    assert_eq!(ended.code, Some(3));
    assert_eq!(ended.lines, ["error: tailscaled knows no peer at 100.64.0.10:4711; its requests are refused"]);
    assert_eq!(tailpod(&scene, &["explain"]).await.code, Some(2));

    let of_service = ["explain", "--peer", "100.64.0.9", "--service", "svc:prod-api"];
    assert_eq!(tailpod(&scene, &of_service).await.code, Some(0));
    // An older daemon would answer with the node's grants as if they were the Service's.
    scene.daemon().set_version("1.98.2-t0123abcd");
    let ended = tailpod(&scene, &of_service).await;
    let line = "error: tailscaled is 1.98.2-t0123abcd: grants of a Service needs 1.100.0 or newer";
    assert_eq!((ended.code, ended.text().as_str()), (Some(1), line));
    assert_eq!(tailpod(&scene, &["explain", "--peer", "100.64.0.9"]).await.code, Some(0));

    let ended = tailpod(&scene, &["kubeconfig"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.text());
    assert_eq!(ended.text().replace("test-node.test.ts.net", "NODE"), KUBECONFIG);
    let ended = tailpod(&scene, &["kubeconfig", "--service", "svc:prod-api", "--name", "prod"]).await;
    assert!(ended.mentions("server: \"https://prod-api.test.ts.net\""), "{}", ended.text());
    assert!(ended.mentions("current-context: prod"), "{}", ended.text());
    proxy.stops().await;
}

const KUBECONFIG: &str = "\
apiVersion: v1
kind: Config
clusters:
  - name: NODE
    cluster:
      server: \"https://NODE\"
contexts:
  - name: NODE
    context:
      cluster: NODE
      user: tailscale-auth
current-context: NODE
users:
  - name: tailscale-auth
    user:
      token: unused";

#[tokio::test]
async fn kubeconfig_takes_an_address_without_a_daemon() {
    let scene = Scene::new().await;
    let args = ["kubeconfig", "--json", "--server", "https://api.test.ts.net:8443/", "--no-user"];
    let ended = tailpod(&scene, &args).await;
    let document: Value = serde_json::from_str(&ended.text()).unwrap();
    assert_eq!(document["clusters"][0]["cluster"]["server"], "https://api.test.ts.net:8443");
    assert_eq!((&document["current-context"], &document["users"]), (&json!("api.test.ts.net"), &json!([])));
    assert_eq!(tailpod(&scene, &["kubeconfig", "--server", "http://x"]).await.code, Some(2));
    let ended = tailpod(&scene, &["kubeconfig"]).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.mentions("hint: name the address"), "{}", ended.text());
}
