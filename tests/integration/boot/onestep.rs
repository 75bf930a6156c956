//! A config file configures the node: which one, what stops it, what reloads it.

use serde_json::json;
use tailpod::sandbox::Volume;

use crate::support::{Boot, CAP, SOON, Scene, needs_login, running};

const MEMORY: &str = "--state=mem: --statedir=/tmp --tun=userspace-networking";

/// A config with this auth key.
pub(super) fn config(key: &str) -> String {
    json!({"version": "alpha0", "AuthKey": key}).to_string()
}

async fn one_step() -> (Scene, Volume) {
    let config = config("key");
    Scene::new().await.with_config(&[("cap-95.hujson", &config), ("cap-9999.hujson", &config)])
}

fn config_flag(scene: &Scene) -> String {
    format!("--config={}", scene.root().join("etc/tailscaled/cap-95.hujson").display())
}

#[tokio::test]
async fn s34_one_step() {
    let (scene, _config) = one_step().await;
    let boot = scene.boot();
    let path = scene.root().join("etc/tailscaled/cap-95.hujson");
    boot.said(&format!(
        "Using tailscaled config file \"{}\" to match current capability version {CAP}",
        path.display()
    ))
    .await;
    scene.notify(running()).await;
    boot.ready().await;
    scene.ran(&[scene.d(&format!("{MEMORY} {}", config_flag(&scene)))]).await;
    boot.stops().await;
    assert_eq!(scene.daemon().commands().len(), 1, "no CLI command");
}

/// One-step takes precedence over auth-once.
#[tokio::test]
async fn s34_one_step_comes_before_auth_once() {
    let (scene, _config) = one_step().await;
    let boot = scene.boot_with(&[("TS_AUTH_ONCE", "true")]);
    scene.notify(running()).await;
    boot.ready().await;
    boot.stops().await;
    assert_eq!(scene.daemon().commands().len(), 1, "no CLI command");
}

#[tokio::test]
async fn s35_one_step_conflicts() {
    let (scene, _config) = one_step().await;
    for (name, value) in [
        ("TS_ACCEPT_DNS", "false"),
        ("TS_AUTHKEY", "k"),
        ("TS_ROUTES", ""),
        ("TS_EXTRA_ARGS", "--ssh"),
        ("TS_EXTRA_ARGS", "--accept-dns"),
        ("TS_HOSTNAME", "h"),
        ("TS_CLIENT_ID", "i"),
        ("TS_CLIENT_SECRET", "s"),
        ("TS_ID_TOKEN", "t"),
        ("TS_AUDIENCE", "a"),
    ] {
        let ended = scene.boot_with(&[(name, value)]).ends(1).await;
        let first = ended.messages().into_iter().find(|message| message.starts_with("invalid configuration: "));
        assert_eq!(
            first,
            Some(
                "invalid configuration: invalid configuration: TS_EXPERIMENTAL_VERSIONED_CONFIG_DIR cannot be set in \
                 combination with TS_HOSTNAME, TS_EXTRA_ARGS, TS_AUTHKEY, TS_ROUTES, TS_ACCEPT_DNS, TS_CLIENT_ID, \
                 TS_CLIENT_SECRET, TS_ID_TOKEN, TS_AUDIENCE."
            ),
            "{name}={value}"
        );
    }
    assert_eq!(scene.daemon().commands().len(), 0);
    // What changes nothing is no conflict (boot.md 2.4).
    let boot = scene.boot_with(&[("TS_EXTRA_ARGS", "--accept-dns=false")]);
    scene.notify(running()).await;
    boot.ready().await;
    boot.stops().await;
}

#[tokio::test]
async fn s36_bad_config_file() {
    for (content, part) in [
        (r#"{"AuthKey": "key"}"#, "version"),
        (r#"{"version": "alpha1", "AuthKey": "key"}"#, "alpha0"),
        (r#"{"version": "alpha0", "Surprise": 1}"#, "Surprise"),
        (r#"{"version": "alpha0", "AuthKey": "ke"#, ""),
        (r#"{"version": "alpha0"} {}"#, ""),
        (r#"{"version": "alpha0", "acceptDNS": "true"}"#, "acceptDNS"),
    ] {
        let (scene, _config) = Scene::new().await.with_config(&[("cap-95.hujson", content)]);
        let ended = scene.boot().ends(1).await;
        let families =
            "invalid configuration: invalid configuration: error validating tailscaled configfile contents: ";
        let line = ended.messages().into_iter().find(|message| message.starts_with(families));
        let line = line.unwrap_or_else(|| panic!("{content}: {}", ended.text()));
        assert!(line.contains(part), "{content}: {line}");
        assert!(!ended.text().contains("\"key\""), "the key is not shown");
        assert_eq!(scene.daemon().commands().len(), 0);
    }
}

#[tokio::test]
async fn s36_no_config_for_this_version() {
    let (scene, _config) = Scene::new().await.with_config(&[("cap-9999.hujson", &config("key"))]);
    let ended = scene.boot().ends(1).await;
    let dir = scene.root().join("etc/tailscaled");
    assert!(
        ended.mentions(&format!(
            "no tailscaled config file found in \"{}\" for current capability version {CAP}",
            dir.display()
        )),
        "{}",
        ended.text()
    );
    std::fs::remove_dir_all(&dir).expect("removed");
    let ended = scene.boot().ends(1).await;
    assert!(ended.last().contains("error reading tailscaled config directory"), "{}", ended.text());
    assert_eq!(scene.daemon().commands().len(), 0);
}

#[tokio::test]
async fn s37_one_step_not_logged_in() {
    let (scene, _config) = one_step().await;
    let mut boot = scene.boot();
    scene.notify(needs_login()).await;
    let ended = boot.ends(1).await;
    assert_eq!(
        ended.last(),
        "invalid state: tailscaled daemon started with a config file, but tailscale is not logged in: ensure you pass \
         a valid auth key in the config file"
    );
    scene.daemon().await_stopped(SOON).await.expect("stopped");
    assert_eq!(scene.daemon().commands().len(), 1);
}

/// Lets the watcher see a broken file: its complaint is the sign that it has seen all that happened before.
async fn complained(boot: &Boot, config: &Volume, mark: &str) {
    config.set(&[("cap-95.hujson", format!(r#"{{"version": "{mark}"}}"#))]).expect("a file");
    boot.mentioned(mark).await;
}

#[tokio::test]
async fn s42_config_reload() {
    let (scene, files) = one_step().await;
    let old = config("key");
    let boot = scene.boot();
    scene.notify(running()).await;
    boot.ready().await;
    files.set(&[("cap-95.hujson", old.as_str()), ("unrelated", "1")]).expect("files");
    complained(&boot, &files, "first").await;
    files.set(&[("cap-95.hujson", &old)]).expect("files");
    complained(&boot, &files, "second").await;
    assert_eq!(scene.daemon().count("POST reload-config"), 0);
    files.set(&[("cap-95.hujson", config("new"))]).expect("files");
    boot.said("tailscaled config watch: ensuring that config is up to date").await;
    boot.said("tailscaled config watch: config was reloaded").await;
    complained(&boot, &files, "third").await;
    assert_eq!(scene.daemon().count("POST reload-config"), 1);
    boot.stops().await;
}
