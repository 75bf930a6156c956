//! Bad input: each is one clear line and the documented exit code, and nothing that is stored already is lost.
//!
//! A clock that jumps changes no course: deadlines, back-off and the pace of polls are monotonic throughout
//! (`std::time::Instant`, tokio's clock). What boot reads wall time for is held by `architecture::WALL_CLOCK`: log
//! lines, timestamps of Events, and whether the expiry of a node key has passed where the daemon does not say
//! `Expired` itself; that only names the reason of a login that is needed anyway
//! ([`a_clock_that_is_wrong_ends_no_key`]).

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use serde_json::json;
use tailpod::boot::Outcome;
use tailpod::sandbox::apiserver::{Fault, Recorded, Scope, Times};
use tailpod::sandbox::{self, DaemonScript};
use tailpod::settings::Persona;
use tailpod::shutdown::Signals;
use tokio::process::Command;

use crate::support::{Boot, Ended, READY, SOON, Scene, needs_login, node, running};

/// The fatal line: there is exactly one that starts like this.
fn fatal<'e>(ended: &'e Ended, start: &str) -> &'e str {
    let lines: Vec<_> = ended.messages().into_iter().filter(|message| message.starts_with(start)).collect();
    assert_eq!(lines.len(), 1, "{start:?} in\n{}", ended.text());
    lines[0]
}

// === The config file ===

#[tokio::test]
async fn config_files_that_are_none() {
    let start = "invalid configuration: invalid configuration: error validating tailscaled configfile contents: ";
    for (what, part) in [
        ("empty", "it is empty"),
        ("truncated", "unexpected end"),
        ("a gigabyte", "too large"),
        ("a directory", "directory"),
        ("not UTF-8", "UTF-8"),
    ] {
        let scene = Scene::kube([("foo", "bar")]).await;
        let path = scene.sandbox.pod().write("etc/tailscaled/cap-95.hujson", "").expect("a file");
        match what {
            "truncated" => std::fs::write(&path, r#"{"version": "alpha0", "#).expect("a file"),
            // Sparse: it takes no room.
            "a gigabyte" => File::create(&path).and_then(|file| file.set_len(1 << 30)).expect("a file"),
            "a directory" => {
                // Directories in there are skipped; what a link leads to is not looked at before it is read.
                std::fs::remove_file(&path).expect("removed");
                let elsewhere = scene.root().join("etc/elsewhere");
                std::fs::create_dir(&elsewhere).expect("a directory");
                std::os::unix::fs::symlink(elsewhere, &path).expect("a link");
            }
            "not UTF-8" => std::fs::write(&path, b"{\"version\": \"alpha0\", \"Hostname\": \"\xff\"}").expect("a file"),
            _ => {}
        }
        let scene = scene.with("TS_EXPERIMENTAL_VERSIONED_CONFIG_DIR", path.parent().expect("a directory"));
        let began = Instant::now();
        let ended = scene.boot().ends(1).await;
        assert!(fatal(&ended, start).contains(part), "{what}: {}", ended.text());
        assert!(began.elapsed() < Duration::from_secs(10), "{what} took {:?}", began.elapsed());
        assert_eq!(scene.daemon().commands().len(), 0);
        assert_eq!(scene.data().len(), 1, "nothing was written");
    }
}

// === The Secret ===

#[tokio::test]
async fn secret_keys_that_are_missing_empty_or_binary() {
    for value in [None, Some(&b""[..]), Some(b"\xff\xfe\x00key")] {
        let scene = Scene::kube([("foo", "bar")]).await;
        for key in ["authkey", "device_id", "device_ips", "tailscale_capver", "_serve_x", "https_endpoint"] {
            if let Some(value) = value {
                scene.api().set_key(crate::support::NAMESPACE, crate::support::SECRET, key, Some(value));
            }
        }
        let boot = scene.boot();
        boot.mentioned("No authkey found in state Secret").await;
        scene.notify(running()).await;
        boot.ready().await;
        assert!(scene.daemon().command_lines()[1].ends_with(" up --accept-dns=false"), "no key that is none");
        let ended = boot.stops().await;
        let stored = scene.api().bytes(crate::support::NAMESPACE, crate::support::SECRET);
        assert_eq!(stored["device_id"], b"myID");
        assert_eq!(stored["foo"], b"bar");
        assert_eq!(stored.get("_serve_x").map(Vec::as_slice), value, "what is not ours stays as it is");
        assert!(ended.says(READY));
    }
}

// === LocalAPI ===

/// The most memory a process has had, in MiB.
fn peak_mib(boot: &Boot) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", boot.pid())).expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") / 1024
}

#[tokio::test]
async fn localapi_answers_that_are_cut_off_unknown_or_100_mb() {
    let scene = Scene::kube([("authkey", "k")]).await;
    let boot = scene.boot();
    scene.notify(running()).await;
    boot.ready().await;
    let faults = [
        sandbox::Fault::CutOff(r#"{"CertDomains":["#.to_owned()),
        sandbox::Fault::Status(200, "<html>".to_owned()),
        sandbox::Fault::Status(200, r#"{"Surprise": 1}"#.to_owned()),
        sandbox::Fault::Status(418, "teapot\n".to_owned()),
        sandbox::Fault::Close,
        sandbox::Fault::Huge(100 << 20),
    ];
    for (at, fault) in faults.into_iter().enumerate() {
        let asked = scene.daemon().count("GET dns-config");
        scene.daemon().fail_next("dns-config", fault);
        let id = format!("id{at}");
        scene.notify(json!({"SelfChange": node(&id, "test-node.test.ts.net.", &["100.64.0.1"])})).await;
        scene.stored(|data| data["device_id"] == id).await;
        scene.daemon().await_count("GET dns-config", asked + 1, SOON).await.expect("it was asked");
    }
    boot.mentioned("error refreshing DNS config from tailscaled: ").await;
    assert!(peak_mib(&boot) < 64, "{} MiB", peak_mib(&boot));
    boot.stops().await;
}

#[tokio::test]
async fn bus_messages_that_are_none() {
    let scene = Scene::kube([("authkey", "k")]).await;
    let boot = scene.boot();
    scene.notify(running()).await;
    boot.ready().await;
    for (at, line) in ["<html>", r#"{"State": "six"}"#, "[1, 2", "\u{0}\u{1}"].into_iter().enumerate() {
        let opened = scene.daemon().count("GET watch-ipn-bus");
        scene.daemon().notify_raw(line);
        // Nothing ends a broken message but the next one.
        scene.daemon().notify_raw("]}\"}");
        scene.daemon().await_count("GET watch-ipn-bus", opened + 1, SOON).await.expect("the bus is opened again");
        let id = format!("id{at}");
        scene.notify(json!({"SelfChange": node(&id, "test-node.test.ts.net.", &["100.64.0.1"])})).await;
        scene.stored(|data| data["device_id"] == id).await;
    }
    boot.stops().await;
}

/// tailpod compares prefs; what cannot be used for that is one line and exit 1.
#[tokio::test]
async fn prefs_that_are_none() {
    for fault in [
        sandbox::Fault::CutOff("{".to_owned()),
        sandbox::Fault::Huge(100 << 20),
        sandbox::Fault::Status(500, "broken\n".to_owned()),
    ] {
        let scene = Scene::new().await;
        scene.daemon().fail("prefs", fault);
        let mut boot = scene.tailpod();
        scene.notify(running()).await;
        let ended = boot.ends(1).await;
        fatal(&ended, "applying the settings: prefs: ");
        assert_eq!(ended.last(), scene.last_words());
    }
}

// === The API server ===

/// Everything that an API server does instead of behaving.
fn troubles() -> Vec<(&'static str, Fault)> {
    vec![
        ("hangs", Fault::Hang),
        ("resets", Fault::Reset),
        ("closes", Fault::Close),
        ("HTML", Fault::html(502)),
        ("200 HTML", Fault::html(200)),
        ("409", Fault::status(409, "Conflict", "the object has been modified")),
        ("422", Fault::status(422, "Invalid", "it is not valid")),
        ("429", Fault::too_many_requests(1)),
        ("500", Fault::status(500, "InternalError", "etcd is away")),
        ("truncated", Fault::Truncate),
        ("cut off", Fault::CutOff),
    ]
}

#[tokio::test]
async fn an_api_server_in_trouble_at_the_start_is_one_clear_line() {
    for (what, fault) in troubles() {
        let scene = Scene::kube([("authkey", "k"), ("foo", "bar")]).await.with("TS_BOOT_TIMEOUT", "1500ms");
        let before = scene.data();
        scene.api().fail_times(Scope::method(hyper::Method::GET).path("secrets"), fault, Times::Always);
        let ended = scene.boot().ends(1).await;
        let start = "error setting up for running on Kubernetes: getting Tailscale state Secret tailscale: ";
        let line = ended.last().strip_prefix(start).unwrap_or_else(|| panic!("{what}: {}", ended.text()));
        assert!(!line.is_empty() && !line.contains("trying on"), "{what}: {line}");
        assert_eq!(scene.daemon().commands().len(), 0, "{what}");
        assert_eq!(scene.data(), before, "{what}: nothing is lost");
    }
}

#[tokio::test]
async fn an_api_server_in_trouble_for_a_moment_does_not_matter() {
    for (what, fault) in troubles() {
        // Takes as long as one request may: `an_api_server_that_hangs_for_a_moment_does_not_matter`.
        if what == "hangs" {
            continue;
        }
        let scene = Scene::kube([("authkey", "k")]).await;
        // At the start a verdict, or an answer that is none, is one line and the next start (see above).
        if !["422", "200 HTML", "truncated"].contains(&what) {
            scene.api().fail(Scope::method(hyper::Method::GET).path("secrets"), fault.clone());
        }
        let boot = scene.boot();
        scene.daemon().await_commands(2, SOON).await.unwrap_or_else(|error| panic!("{what}: {error}\n{}", boot.text()));
        scene.api().fail(Scope::method(hyper::Method::PATCH).path("secrets"), fault);
        scene.notify(running()).await;
        let stored = scene.stored(|data| data.contains_key("device_fqdn")).await;
        assert_eq!(stored["device_id"], "myID", "{what}");
        boot.ready().await;
        boot.stops().await;
    }
}

/// In this process, so that the time of a request passes at once.
#[tokio::test]
async fn an_api_server_that_hangs_for_a_moment_does_not_matter() {
    let scene = Scene::kube([("authkey", "k")]).await;
    let secrets = |method| Scope::method(method).path("secrets");
    let hung = async |method: &str| {
        let asked = |request: &Recorded| {
            request.method == method && request.path.contains("/secrets/") && request.status.is_none()
        };
        scene.api().wait_request(asked, SOON).await.expect("a request that hangs");
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(16)).await;
        tokio::time::resume();
    };
    let course = async {
        hung("GET").await;
        scene.daemon().await_commands(2, SOON).await.expect("tailscaled and `up`");
        scene.api().fail(secrets(hyper::Method::PATCH), Fault::Hang);
        scene.notify(running()).await;
        hung("PATCH").await;
        let stored = scene.stored(|data| data.contains_key("device_fqdn")).await;
        assert_eq!(stored["device_id"], "myID");
        scene.daemon().exit(3);
    };
    scene.api().fail(secrets(hyper::Method::GET), Fault::Hang);
    let mut signals = Signals::install().expect("signals");
    let boot = tailpod::boot::run(scene.settings(Persona::Containerboot), scene.env(), &mut signals);
    let (outcome, ()) = tokio::join!(boot, course);
    assert_eq!(outcome, Outcome::Failed("tailscaled exited: exit status 3".to_owned()));
}

// === The clock ===

/// A clock far ahead makes every expiry one of the past: nothing follows from it while the daemon says Running, and
/// the name of the failure when it needs a login.
#[tokio::test]
async fn a_clock_that_is_wrong_ends_no_key() {
    for (expiry, code) in [("2020-01-01T00:00:00Z", 13), ("2999-01-01T00:00:00Z", 15)] {
        let vars = [("TS_BOOT_TIMEOUT", "1s"), ("TAILPOD_LOGIN_TIMEOUT", "1s")];
        let scene = Scene::kube([("foo", "bar")]).await.with_all(&vars);
        let mut boot = scene.tailpod();
        let mut own = node("myID", "test-node.test.ts.net.", &["100.64.0.1"]);
        own["KeyExpiry"] = json!(expiry);
        scene.notify(json!({"State": 6, "SelfChange": own})).await;
        boot.ready().await;
        boot.lives();
        scene.notify(json!({"State": 2, "BrowseToURL": "https://login.example/a/1"})).await;
        boot.ends(code).await;
        assert_eq!(scene.daemon().count("POST start"), 1, "a login, and no other key");
    }
}

// === Paths ===

#[tokio::test]
async fn a_socket_path_that_is_too_long() {
    let scene = Scene::new().await;
    let path = scene.root().join("x".repeat(120));
    let ended = scene.boot_with(&[("TS_SOCKET", path.to_str().expect("text"))]).ends(1).await;
    let line = fatal(&ended, "failed to bring up tailscale: starting tailscaled failed: socket path ");
    assert!(line.ends_with("; the kernel allows 107"), "{line}");
    assert_eq!(scene.daemon().commands().len(), 0);
}

#[tokio::test]
async fn a_socket_path_that_is_something_else_or_in_use() {
    let scene = Scene::new().await;
    let path = scene.sandbox.pod().write("tmp/precious", "do not touch").expect("a file");
    let ended = scene.boot_with(&[("TS_SOCKET", path.to_str().expect("text"))]).ends(1).await;
    let line = fatal(&ended, "failed to bring up tailscale: starting tailscaled failed: ");
    assert!(line.ends_with("exists and is a regular file, not a socket"), "{line}");
    assert_eq!(std::fs::read_to_string(&path).expect("the file"), "do not touch");

    let used = scene.root().join("tmp/used.sock");
    let _listener = UnixListener::bind(&used).expect("a listener");
    let ended = scene.boot_with(&[("TS_SOCKET", used.to_str().expect("text"))]).ends(1).await;
    let line = fatal(&ended, "failed to bring up tailscale: starting tailscaled failed: ");
    assert!(line.ends_with("is a tailscaled already running?"), "{line}");
    assert_eq!(scene.daemon().commands().len(), 0);
}

/// In a directory like /tmp, where others' files cannot be removed.
#[tokio::test]
async fn a_socket_of_another_user() {
    if !nix::unistd::getuid().is_root() {
        crate::support::skipped("only root can start a boot as another user");
        return;
    }
    let scene = Scene::new().await;
    let sticky = scene.root().join("sticky");
    std::fs::create_dir(&sticky).expect("a directory");
    for (dir, mode) in [(scene.root(), 0o755), (&sticky, 0o1777)] {
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode)).expect("a mode");
    }
    let socket = sticky.join("tailscaled.sock");
    drop(UnixListener::bind(&socket).expect("a listener"));
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600)).expect("a mode");
    // The binary itself may lie where the other user cannot go.
    let binary = scene.root().join("containerboot");
    std::fs::copy(scene.sandbox.binary(), &binary).expect("a copy");
    let mut command = Command::new(&binary);
    command.env_clear().envs(scene.env()).env("TS_SOCKET", &socket).uid(54_321).gid(54_321).kill_on_drop(true);
    let ended = Boot::spawn(command).ends(1).await;
    let line = fatal(&ended, "failed to bring up tailscale: starting tailscaled failed: ");
    assert!(line.contains("belongs to user 0, and we are user 54321"), "{line}");
    assert!(socket.exists());
    assert_eq!(scene.daemon().commands().len(), 0);
}

/// The state directory is tailscaled's business; that it could not be used is passed on with its status.
#[tokio::test]
async fn an_unwritable_state_directory() {
    let scene = Scene::new().await;
    // Below a file there are no directories, whoever asks.
    let dir = scene.sandbox.pod().write("etc/file", "").expect("a file").join("state");
    let scene = scene.with("TS_STATE_DIR", &dir);
    let complaint = format!("mkdir {}: not a directory", dir.display());
    scene.daemon().script(DaemonScript {
        exit_before_listening: Some(1),
        stderr: vec![complaint.clone()],
        ..DaemonScript::default()
    });
    let ended = scene.boot().ends(1).await;
    let line = fatal(&ended, "failed to bring up tailscale: ");
    assert!(line.ends_with("exit status 1"), "{line}");
    assert!(ended.mentions(&complaint));
    // The check beforehand says it without starting anything.
    let ended = scene.start("tailpod", &["boot", "--check"], &[]).ends(1).await;
    assert!(ended.mentions("Not a directory"), "{}", ended.text());
    assert_eq!(scene.daemon().starts(), 1);
}

#[tokio::test]
async fn programs_that_are_not_there() {
    let scene = Scene::new().await.with("PATH", "/nowhere");
    let ended = scene.boot().ends(1).await;
    let line = fatal(&ended, "failed to bring up tailscale: starting tailscaled failed: ");
    assert!(line.contains("tailscaled"), "{line}");

    let scene = Scene::new().await;
    std::fs::remove_file(scene.sandbox.pod().bin().join("tailscale")).expect("removed");
    let scene = scene.with("TS_AUTH_ONCE", "true");
    let only = scene.sandbox.pod().bin();
    let mut boot = scene.boot_with(&[("PATH", &format!("{}:/usr/bin:/bin", only.display()))]);
    scene.notify(needs_login()).await;
    let ended = boot.ends(1).await;
    let line = fatal(&ended, "failed to auth tailscale: ");
    assert!(line.contains("tailscale"), "{line}");
}
