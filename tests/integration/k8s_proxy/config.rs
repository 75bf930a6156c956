//! The config: bad at the start, bad on reload, replaced in every way a file or a Secret can be.

use std::time::Duration;

use serde_json::{Value, json};
use tailpod::sandbox::apiserver::{Fault, Scope, Times};

use super::{KEY, Stage, messages, service};
use crate::support::{Boot, NAMESPACE, SOON, Scene, get};

async fn reload_errors(stage: &Stage, count: u32) {
    let wanted = format!("\ntailpod_proxy_config_reload_errors_total {count}\n");
    let begin = std::time::Instant::now();
    loop {
        let metrics = get(stage.health, "/metrics").await.body;
        if metrics.contains(&wanted) {
            return;
        }
        assert!(begin.elapsed() < SOON, "{metrics}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn an_unset_variable_is_told_in_upstreams_words() {
    let scene = Scene::kube([]).await;
    let ended = scene.start("k8s-proxy", &[], &[]).ends(1).await;
    assert!(ended.mentions("TS_K8S_PROXY_CONFIG unset"), "{}", ended.text());
}

#[tokio::test]
async fn a_bad_config_at_the_start_is_refused_with_its_place() {
    let stage = Stage::new([]).await;
    let file = stage.file().display().to_string();
    for (text, expected) in [
        (
            format!("{{\n  \"version\": \"v1alpha1\",\n  \"authKey\": \"{KEY}\",\n  \"acceptRoutes\": \"true\"\n}}"),
            format!(
                "error parsing config file `{file}`: line 4, column 19: `AcceptRoutes` must be true, false or null, not a string"
            ),
        ),
        (
            format!("{{\"version\": \"v1alpha1\", \"authKey\": {KEY}}}"),
            format!("error parsing config file `{file}`: line 1, column 36: \"tskey-au…\" is not a value"),
        ),
        (
            "{}".to_owned(),
            format!("error parsing config file `{file}`: line 1, column 1: no \"version\" field provided"),
        ),
    ] {
        stage.write(&text);
        let ended = stage.start().ends(1).await;
        assert_eq!(messages(&ended.text()).last(), Some(&expected));
        assert!(!ended.mentions("hush"));
        assert_eq!(stage.scene.last_words(), expected);
    }
    assert_eq!(stage.scene.daemon().starts(), 0, "nothing was started");
}

#[tokio::test]
async fn a_missing_file_is_fatal_and_an_empty_one_is_waited_for() {
    let stage = Stage::new([]).await;
    let missing = stage.volume.path().join("missing").display().to_string();
    let ended = stage.start_with(&[("TS_K8S_PROXY_CONFIG", &missing)]).ends(1).await;
    assert!(ended.mentions("cannot read config file"), "{}", ended.text());
    stage.write("");
    let proxy = stage.start();
    proxy.mentioned("is empty; waiting for its content").await;
    stage.configure(&json!({}));
    stage.come_up().await;
    proxy.mentioned("Setting healthy true").await;
    proxy.stops().await;
}

/// Bad content keeps the last good config; what comes after it counts again.
async fn survives_a_bad_config(stage: &Stage, proxy: Boot, write: impl Fn(&str)) {
    write("{ \"version\": \"v1alpha1\", oops");
    proxy.mentioned("the config was not reloaded, the last good one stays in force").await;
    reload_errors(stage, 1).await;
    assert_eq!(get(stage.health, "/healthz").await.status, 200);
    write(&stage.config(&json!({"hostname": "apis-1"})));
    stage.prefs(|prefs| prefs["Hostname"] == "apis-1").await;
    reload_errors(stage, 1).await;
    proxy.stops().await;
}

#[tokio::test]
async fn s20_a_config_file_that_turns_bad_is_passed_over() {
    let stage = Stage::new([]).await;
    let proxy = stage.up().await;
    survives_a_bad_config(&stage, proxy, |text| stage.write(text)).await;
}

#[tokio::test]
async fn s20_a_config_secret_that_turns_bad_is_passed_over() {
    let stage = Stage::new([]).await;
    stage.may_read_configs();
    let put = |text: &str| {
        stage.scene.api().put_secret(NAMESPACE, "apis-0-config", [("config.hujson", text)]);
    };
    put(&stage.config(&json!({})));
    let proxy = stage.start_with(&[("TS_K8S_PROXY_CONFIG", "kube:default/apis-0-config")]);
    stage.come_up().await;
    proxy.mentioned("Setting healthy true").await;
    survives_a_bad_config(&stage, proxy, put).await;
}

#[tokio::test]
async fn a_config_secret_is_followed_through_every_trouble() {
    let stage = Stage::new([]).await;
    stage.may_read_configs();
    let api = stage.scene.api();
    let put = |hostname: &str| {
        let text = stage.config(&json!({"hostname": hostname}));
        api.put_secret(NAMESPACE, "apis-0-config", [("config.hujson", text)]);
    };
    put("a");
    let proxy = stage.start_with(&[("TS_K8S_PROXY_CONFIG", "kube:default/apis-0-config")]);
    stage.come_up().await;
    proxy.mentioned("Setting healthy true").await;
    stage.prefs(|prefs| prefs["Hostname"] == "a").await;
    put("b");
    stage.prefs(|prefs| prefs["Hostname"] == "b").await;
    // The watch breaks, its version is gone, and the change lands in between.
    api.fail_times(Scope::any().path("secrets?"), Fault::status(500, "InternalError", "x"), Times::Only(2));
    api.break_watches();
    put("c");
    api.compact();
    stage.prefs(|prefs| prefs["Hostname"] == "c").await;
    api.delete_secret(NAMESPACE, "apis-0-config");
    proxy.mentioned("was deleted; its last content stays in force").await;
    put("d");
    stage.prefs(|prefs| prefs["Hostname"] == "d").await;
    reload_errors(&stage, 0).await;
    proxy.stops().await;
}

#[tokio::test]
async fn a_config_secret_that_is_not_there_is_fatal() {
    let stage = Stage::new([]).await;
    stage.may_read_configs();
    let vars = [("TS_K8S_PROXY_CONFIG", "kube:default/nobody")];
    let ended = stage.start_with(&vars).ends(1).await;
    assert!(ended.mentions("config Secret default/nobody does not exist"), "{}", ended.text());
    stage.scene.api().put_secret(NAMESPACE, "nobody", [("other", "x")]);
    let ended = stage.start_with(&vars).ends(1).await;
    assert!(ended.mentions("has no text under key `config.hujson`"), "{}", ended.text());
    let ended = stage.start_with(&[("TS_K8S_PROXY_CONFIG", "kube:nobody")]).ends(1).await;
    assert!(ended.mentions("the form is `kube:<namespace>/<name>`"), "{}", ended.text());
}

#[tokio::test]
async fn every_way_of_replacing_a_file_is_noticed() {
    let stage = Stage::new([]).await;
    let dir = stage.scene.root().join("plain");
    std::fs::create_dir(&dir).unwrap();
    let file = dir.join("config.hujson");
    let text = |hostname: &str| stage.config(&json!({"hostname": hostname}));
    std::fs::write(&file, text("a")).unwrap();
    let source = format!("file:{}", file.display());
    let proxy = stage.start_with(&[("TS_K8S_PROXY_CONFIG", &source)]);
    stage.come_up().await;
    proxy.mentioned("Setting healthy true").await;
    let begin = std::time::Instant::now();
    // In place, which truncates first.
    std::fs::write(&file, "").unwrap();
    std::fs::write(&file, text("b")).unwrap();
    stage.prefs(|prefs| prefs["Hostname"] == "b").await;
    // A rename over it.
    std::fs::write(dir.join("new"), text("c")).unwrap();
    std::fs::rename(dir.join("new"), &file).unwrap();
    stage.prefs(|prefs| prefs["Hostname"] == "c").await;
    // A link swapped for it.
    std::fs::create_dir(dir.join("v2")).unwrap();
    std::fs::write(dir.join("v2/config.hujson"), text("d")).unwrap();
    std::os::unix::fs::symlink("v2/config.hujson", dir.join("link")).unwrap();
    std::fs::rename(dir.join("link"), &file).unwrap();
    stage.prefs(|prefs| prefs["Hostname"] == "d").await;
    assert!(begin.elapsed() < Duration::from_secs(5), "it was the poll that noticed");
    reload_errors(&stage, 0).await;
    proxy.stops().await;
}

#[tokio::test]
async fn a_reload_changes_what_it_can_and_names_what_needs_a_restart() {
    let stage = Stage::new([]).await;
    let proxy = stage.up().await;
    stage.served(|config| *config == service("svc:prod-api", stage.api)).await;
    stage.configure(&json!({
        "acceptRoutes": true, "advertiseServices": ["svc:b", "svc:a"], "logLevel": "debug", "hostnam": "x",
        "apiServerProxy": {"enabled": true, "mode": "noauth", "serviceName": "svc:b"},
    }));
    stage.served(|config| *config == service("svc:b", stage.api)).await;
    let prefs = stage.prefs(|prefs| prefs["AdvertiseServices"] == json!(["svc:a", "svc:b"])).await;
    assert_eq!(prefs["RouteAll"], true);
    stage.configure(&json!({"advertiseServices": [], "apiServerProxy": {"enabled": false}}));
    stage.served(|config| config.get("Services").is_none()).await;
    stage.prefs(|prefs| prefs["AdvertiseServices"].as_array().is_none_or(Vec::is_empty)).await;
    let said = messages(&proxy.stops().await.text());
    for line in [
        "config field LogLevel has changed; that takes effect with a restart",
        "config field APIServerProxy.Mode has changed; that takes effect with a restart",
    ] {
        assert!(said.iter().any(|said| said == line), "{line} is missing in {said:#?}");
    }
    assert!(said.iter().any(|said| said.contains("nothing reads `hostnam`; is `Hostname` meant?")), "{said:#?}");
}

#[tokio::test]
async fn the_level_of_the_config_is_the_logs() {
    let stage = Stage::new([]).await;
    stage.configure(&json!({"logLevel": "error"}));
    let proxy = stage.start();
    stage.come_up().await;
    stage.served(|config| *config == service("svc:prod-api", stage.api)).await;
    let said = messages(&proxy.stops().await.text());
    // What came before the config was known.
    assert!(said.iter().all(|line| line.starts_with("Watching directory")), "{said:#?}");
}

/// Whatever else uses that port on this machine meanwhile: it is tried for, or served on.
#[tokio::test]
async fn health_and_metrics_are_at_every_address_unless_something_names_one() {
    let stage = Stage::new([]).await;
    let proxy = stage.start_with(&[("POD_IP", "")]);
    stage.come_up().await;
    for at in ["Running metrics endpoint at [::]", "Running healthcheck endpoint at [::]"] {
        proxy.mentioned(&format!("{at}:{}/", stage.health)).await;
    }
    proxy.mentioned("Setting healthy true").await;
    assert_eq!(get(stage.health, "/healthz").await.status, 200, "IPv4 too");
    proxy.stops().await;
    let mut config: Value = serde_json::from_str(&stage.config(&json!({}))).unwrap();
    config.as_object_mut().unwrap().remove("localPort");
    stage.write(&config.to_string());
    let proxy = stage.start_with(&[("POD_IP", "")]);
    stage.scene.daemon().await_running(2, SOON).await.unwrap();
    stage.come_up().await;
    proxy.mentioned("[::]:9002").await;
}
