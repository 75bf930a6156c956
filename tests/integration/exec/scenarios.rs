//! Scenarios 1 to 7, 22, 24, 25 and 27: configuration, what a plugin is told, its answers, who may run.

use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tailpod::k8s::exec;
use tailpod::k8s::exec::policy::Policy;
use tokio::process::Command;

use super::*;

/// `tailpod secret inspect` with the scene's kubeconfig: exit code and standard error.
pub(super) async fn inspect(scene: &Scene, env: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tailpod"))
        .args(["secret", "inspect", "--secret", "ns/s", "--kubeconfig"])
        .arg(scene.path("kubeconfig"))
        .env_remove("KUBERNETES_EXEC_INFO")
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn scenario_01_v1_needs_an_interactive_mode() {
    let scene = Scene::new().await;
    let exec = json!({"apiVersion": V1, "command": "x"});
    scene.kubeconfig(&scene.cluster(), &json!({"exec": exec}));
    let (code, said) = inspect(&scene, &[]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("interactiveMode must be specified for u to use exec authentication plugin"), "{said}");
}

#[tokio::test]
async fn scenario_02_v1beta1_without_a_mode_runs_without_a_terminal() {
    let scene = Scene::new().await;
    let version = "client.authentication.k8s.io/v1beta1";
    let answer = json!({"kind": "ExecCredential", "apiVersion": version, "status": {"token": "t"}});
    scene.write("answer", &answer.to_string());
    let exec = json!({"apiVersion": version, "command": "/bin/sh", "args": [scene.path("plugin.sh")]});
    scene.kubeconfig(&scene.cluster(), &json!({"exec": exec}));
    inspect(&scene, &[]).await;
    let expected = json!({"kind": "ExecCredential", "apiVersion": version, "spec": {"interactive": false}});
    assert_eq!(scene.runs(), [expected]);
    assert!(scene.server.heads()[0].contains("authorization: Bearer t\r\n"), "{:?}", scene.server.heads());
}

#[tokio::test]
async fn scenario_03_a_daemon_refuses_a_plugin_that_needs_a_person_at_once() {
    let scene = Scene::new().await;
    let mut exec = scene.exec();
    exec["interactiveMode"] = json!("Always");
    let path = scene.kubeconfig(&scene.cluster(), &json!({"exec": exec}));
    let daemon = surroundings().unattended();
    let error = open(&path, &daemon).await.unwrap_err();
    assert!(
        error.ends_with("exec plugin cannot support interactive mode: standard input is not a terminal"),
        "{error}"
    );
    // Anybody else is told on each attempt to run it.
    let upstream = open(&path, &surroundings()).await.unwrap();
    let error = token(&upstream).await.unwrap_err();
    assert_eq!(error, "exec plugin cannot support interactive mode: standard input is not a terminal");
    assert!(scene.runs().is_empty());
}

#[tokio::test]
async fn scenario_04_v1alpha1_is_refused() {
    let scene = Scene::new().await;
    let mut exec = scene.exec();
    exec["apiVersion"] = json!("client.authentication.k8s.io/v1alpha1");
    let error = scene.open(&scene.cluster(), &json!({"exec": exec})).await.unwrap_err();
    assert!(error.ends_with("exec plugin: invalid apiVersion \"client.authentication.k8s.io/v1alpha1\""), "{error}");
}

#[tokio::test]
async fn scenario_05_the_plugin_is_told_about_the_cluster() {
    let scene = Scene::new().await;
    scene.answer(&json!({"token": "t"}));
    scene.write("ca.pem", &scene.server.authority.pem);
    let mut exec = scene.exec();
    exec["provideClusterInfo"] = json!(true);
    let cluster = json!({
        "server": format!("https://localhost:{}/prefix", scene.server.addr.port()),
        "certificate-authority": "ca.pem",
        "tls-server-name": "127.0.0.1",
        "disable-compression": true,
        "extensions": [{"name": "other", "extension": 1},
                       {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "a", "n": [1, null]}}],
    });
    let upstream = scene.open(&cluster, &json!({"exec": exec})).await.unwrap();
    token(&upstream).await.unwrap();
    let told = json!({
        "server": cluster["server"],
        "tls-server-name": "127.0.0.1",
        "certificate-authority-data": BASE64.encode(&scene.server.authority.pem),
        "disable-compression": true,
        "config": {"audience": "a", "n": [1, null]},
    });
    let expected = json!({"kind": "ExecCredential", "apiVersion": V1, "spec": {"cluster": told, "interactive": false}});
    inspect(&scene, &[]).await;
    assert_eq!(scene.runs(), [expected.clone(), expected], "and the built binary says the same");
    let heads = scene.server.heads();
    assert!(heads[0].starts_with("GET /prefix/api/v1/namespaces/ns/secrets/s "), "{heads:?}");
    assert_eq!(status(&upstream, "/api").await, Ok(200), "tls-server-name is what is verified");

    exec["args"] = json!([scene.path("plugin.sh"), "another"]);
    let upstream = scene.open(&scene.cluster(), &json!({"exec": exec})).await.unwrap();
    token(&upstream).await.unwrap();
    assert_eq!(scene.runs()[2]["spec"]["cluster"]["config"], Value::Null);
    assert!(scene.runs()[2]["spec"]["cluster"].as_object().unwrap().contains_key("config"));
}

#[tokio::test]
async fn scenario_06_the_configured_environment_wins_but_for_the_request() {
    let scene = Scene::new().await;
    scene.answer(&json!({"token": "t"}));
    scene.script("printf '%s|%s|%s' \"$PATH\" \"$KEPT\" \"${HIDDEN-gone}\" > \"$dir/env\"\n/bin/cat \"$dir/answer\"");
    let mut exec = scene.exec();
    exec["env"] = json!([{"name": "KUBERNETES_EXEC_INFO", "value": "x"}, {"name": "PATH", "value": "/nowhere"}]);
    scene.kubeconfig(&scene.cluster(), &json!({"exec": exec}));
    inspect(&scene, &[("KEPT", "own"), ("HIDDEN", "h"), ("TAILPOD_EXEC_WITHHOLD", "HIDDEN, OTHER")]).await;
    assert_eq!(scene.runs()[0]["spec"], json!({"interactive": false}));
    assert_eq!(std::fs::read_to_string(scene.path("env")).unwrap(), "/nowhere|own|gone");
}

#[tokio::test]
async fn scenario_07_answers_are_checked() {
    let scene = Scene::new().await;
    let ours = scene.server.authority.sign("a", None);
    let other = scene.server.authority.sign("b", None);
    let head = format!("apiVersion: {V1}\nkind: ExecCredential\n");
    let with = |status: Value| json!({"kind": "ExecCredential", "apiVersion": V1, "status": status}).to_string();
    let beta = with(json!({"token": "t"})).replace("/v1", "/v1beta1");
    for (index, (answer, expected)) in [
        (format!("{head}status:\n  token: from-yaml\n"), Ok("Bearer from-yaml")),
        (
            beta,
            Err("exec plugin is configured to use API version client.authentication.k8s.io/v1, \
                 plugin returned version client.authentication.k8s.io/v1beta1"),
        ),
        (head.clone(), Err("exec plugin didn't return a status field")),
        (with(json!({})), Err("exec plugin didn't return a token or cert/key pair")),
        (
            with(json!({"clientCertificateData": ours.chain})),
            Err("exec plugin returned only certificate or key, not both"),
        ),
        (
            with(json!({"clientCertificateData": ours.chain, "clientKeyData": other.key})),
            Err("failed parsing client key/certificate: tls: private key does not match public key"),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        scene.write("answer", &answer);
        // A configuration of its own each time, since failures are shared.
        let mut exec = scene.exec();
        exec["env"] = json!([{"name": "CASE", "value": index.to_string()}]);
        let upstream = scene.open(&scene.cluster(), &json!({"exec": exec})).await.unwrap();
        assert_eq!(token(&upstream).await.as_deref(), expected.map_err(str::to_owned).as_ref().map(|text| *text));
        let before = scene.server.heads().len();
        let (_, said) = inspect(&scene, &[]).await;
        match expected {
            Ok(_) => assert!(scene.server.heads()[before].contains("authorization: Bearer from-yaml\r\n")),
            Err(error) => {
                assert!(said.contains(&format!("getting credentials: {error}\n")), "{said}");
                assert_eq!(scene.server.heads().len(), before, "nothing is sent");
            }
        }
    }
}

#[tokio::test]
async fn scenario_22_static_credentials_leave_the_plugin_alone() {
    let scene = Scene::new().await;
    scene.answer(&json!({"token": "from-plugin"}));
    let pair = scene.server.authority.sign("me", None);
    let (chain, key) = (BASE64.encode(&pair.chain), BASE64.encode(&pair.key));
    let user = json!({"client-certificate-data": chain, "client-key-data": key, "exec": scene.exec()});
    let upstream = scene.open(&scene.cluster(), &user).await.unwrap();
    assert_eq!(status(&upstream, "/api").await, Ok(200));
    assert_eq!(scene.server.seen()[0].client, Some(pair.der));
    assert!(!scene.server.heads()[0].contains("Authorization"));
    for user in [
        json!({"token": "static", "exec": scene.exec()}),
        json!({"username": "u", "password": "p", "exec": scene.exec()}),
    ] {
        let upstream = scene.open(&scene.cluster(), &user).await.unwrap();
        assert_eq!(status(&upstream, "/api").await, Ok(200));
    }
    assert!(scene.runs().is_empty());
}

#[tokio::test(start_paused = true)]
async fn scenario_24_a_missing_program_is_explained_ten_times_an_hour() {
    let scene = Scene::new().await;
    let exec = json!({"apiVersion": V1, "command": "no-such-plugin", "interactiveMode": "Never",
                      "installHint": "get it \u{1b}[1mthere"});
    let upstream = scene.open(&scene.cluster(), &json!({"exec": exec})).await.unwrap();
    let mut hints = 0;
    for _ in 0..12 {
        let error = upstream.credentials().await.unwrap_err();
        assert_eq!(error.to_string(), "exec: executable no-such-plugin not found");
        if let Some(hint) = error.hint() {
            assert!(hint.ends_with("\nget it there"), "{hint}");
            hints += 1;
        }
        tokio::time::advance(Duration::from_secs(31)).await;
    }
    assert_eq!(hints, 10);
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert!(upstream.credentials().await.unwrap_err().hint().is_some());

    let (code, said) = inspect(&scene, &[]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("getting credentials: exec: executable no-such-plugin not found"), "{said}");
    assert!(said.contains("hint: it is a Kubernetes credential plugin that is not installed"), "{said}");
}

#[tokio::test]
async fn scenario_25_what_the_policy_has_judged_is_what_runs() {
    let scene = Scene::new().await;
    scene.answer(&json!({"token": "t"}));
    let program = |directory: &str| {
        let directory = scene.path(directory);
        std::fs::create_dir_all(&directory).unwrap();
        std::os::unix::fs::symlink("/bin/sh", directory.join("plugin")).unwrap();
        directory
    };
    let (first, second) = (program("first"), program("second"));
    // What was executed is the first word of the shell's own command line.
    let dir = scene.dir.path().display();
    let script = format!("tr '\\0' ' ' < /proc/$$/cmdline > {dir}/ran; cat {dir}/answer");
    let exec = json!({"apiVersion": V1, "command": "plugin", "args": ["-c", script], "interactiveMode": "Never"});
    let path = scene.kubeconfig(&scene.cluster(), &json!({"exec": exec}));
    let run = async |policy: Policy, search: &[&Path]| {
        let mut surroundings = surroundings();
        surroundings.exec.policy = policy;
        surroundings.exec.path = std::env::join_paths(search).unwrap();
        let upstream = open(&path, &surroundings).await.unwrap();
        token(&upstream).await?;
        Ok::<_, String>(std::fs::read_to_string(scene.path("ran")).unwrap().split(' ').next().unwrap().to_owned())
    };
    let text = |directory: &Path| directory.join("plugin").to_str().unwrap().to_owned();
    let list = |entry: &str| Policy::Allowlist(vec![entry.to_owned()]);
    assert_eq!(run(list("plugin"), &[&first, &second]).await, Ok(text(&first)));
    assert_eq!(run(list(&text(&second)), &[&second, &first]).await, Ok(text(&second)));
    let error = run(list(&text(&second)), &[&first, &second]).await.unwrap_err();
    assert_eq!(error, format!("plugin path {:?} is not permitted by the credential plugin allowlist", text(&first)));
    let error = run(Policy::DenyAll, &[&first]).await.unwrap_err();
    assert_eq!(error, "plugin \"plugin\" not allowed: policy set to \"DenyAll\"");

    let (code, said) = inspect(&scene, &[("TAILPOD_EXEC_POLICY", "DenyAll")]).await;
    assert!(code == Some(1) && said.contains("policy set to \"DenyAll\""), "{said}");
    let (code, said) = inspect(&scene, &[("TAILPOD_EXEC_POLICY", "Allowlist")]).await;
    assert!(code == Some(1) && said.contains("TAILPOD_EXEC_POLICY: the policy Allowlist needs a list"), "{said}");
    assert!(exec::metrics::snapshot().denied >= 2);
}

#[tokio::test]
async fn scenario_27_a_token_that_no_header_can_carry_is_never_sent() {
    let scene = Scene::new().await;
    for (index, bad) in ["a\nb", "a\n", "tökèn", "a\r\nImpersonate-User: root"].into_iter().enumerate() {
        scene.answer(&json!({"token": bad}));
        let mut exec = scene.exec();
        exec["env"] = json!([{"name": "CASE", "value": index.to_string()}]);
        let upstream = scene.open(&scene.cluster(), &json!({"exec": exec})).await.unwrap();
        let error = send(&upstream, "/api").await.unwrap_err();
        assert_eq!(error, "exec plugin returned a token that cannot be used: it holds characters that no token has");
        assert!(upstream.dial(SOON).await.is_err());
    }
    assert!(scene.server.seen().is_empty());
}
