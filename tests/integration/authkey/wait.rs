//! Waiting for a new key.

use std::fs;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};
use tokio::time::timeout;

use super::{DEAD, NEW, allow_all, command, finish, is_golden, run, run_with_input, scene};
use crate::support::{NAMESPACE, SECRET, SOON, Scene};

#[tokio::test]
async fn a_new_key_in_the_secret_ends_the_wait_with_its_id() {
    let scene = scene(&[("authkey", DEAD)]).await;
    let child = command(&scene, &["wait"]).spawn().unwrap();
    scene.api().wait_request(|request| request.method == "GET", SOON).await.unwrap();
    scene.put_keys(&[("authkey", "")]);
    scene.put_keys(&[("authkey", NEW)]);
    let ran = finish(child).await.ends(0);
    assert!(ran.stdout.starts_with("new auth key tskey-auth-kNEW after "), "{}", ran.stdout);
    ran.says("Waiting for operator to provide new auth key (max wait: 10m0s)");
}

#[tokio::test]
async fn the_old_key_is_the_given_one_then_the_marked_one_then_the_present_one() {
    let scene = scene(&[("authkey", NEW), ("reissue_authkey", DEAD)]).await;
    let key = scene.sandbox.pod().write("key", NEW).unwrap().to_string_lossy().into_owned();
    run(&scene, &["wait", "--timeout", "10s"]).await.ends(0);
    run(&scene, &["wait", "--timeout", "100ms", "--key-file", &key]).await.ends(3);
    run_with_input(&scene, &["wait", "--timeout", "10s", "--key-file", "-"], DEAD).await.ends(0);
    // Another key of the Secret, where nothing is yet.
    run(&scene, &["wait", "--timeout", "100ms", "--secret-key", "next"]).await.ends(3);
    scene.api().set_key(NAMESPACE, SECRET, "reissue_authkey", None);
    let ran = run(&scene, &["wait", "--timeout", "100ms"]).await.ends(3);
    ran.says("error: timeout waiting for auth key reissue after 100ms\nhint: ");
    assert_eq!(ran.stdout, "");
}

#[tokio::test]
async fn a_watch_that_ends_again_and_again_is_taken_up_again() {
    let scene = scene(&[("authkey", DEAD)]).await;
    allow_all(&scene);
    let child = command(&scene, &["wait"]).spawn().unwrap();
    for watches in 1..=4 {
        let is_watch = |request: &tailpod::sandbox::apiserver::Recorded| {
            request.query.iter().any(|(key, value)| key == "watch" && value == "1")
        };
        let seen = || scene.api().requests().iter().filter(|request| is_watch(request)).count() >= watches;
        // What is asked is recorded when it begins; breaking it off is what ends it.
        while !seen() {
            let asked = scene.api().requests().last().map_or(0, |request| request.number);
            scene.api().wait_request(|request| request.number > asked, SOON).await.unwrap();
        }
        scene.api().break_watches();
    }
    scene.put_keys(&[("authkey", NEW)]);
    finish(child).await.ends(0);
}

#[tokio::test]
async fn where_only_get_is_allowed_it_looks_every_few_seconds() {
    let scene = scene(&[("authkey", DEAD)]).await.denied(&["update", "patch", "list", "watch", "create"]);
    let mut child = command(&scene, &["wait", "--json"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut stream = String::new();
    for event in ["watching", "polling"] {
        assert_eq!(next_event(&mut lines, &mut stream).await["event"], event);
    }
    scene.put_keys(&[("authkey", NEW)]);
    next_event(&mut lines, &mut stream).await;
    finish(child).await.ends(0);
    is_golden("wait-polling", &stream, &scene);
}

async fn next_event(lines: &mut Lines<BufReader<ChildStdout>>, stream: &mut String) -> Value {
    let line = timeout(SOON, lines.next_line()).await.expect("an event in time").unwrap().expect("an event");
    assert!(!line.contains("hush"), "{line}");
    *stream += &line;
    stream.push('\n');
    serde_json::from_str(&line).unwrap()
}

fn config(key: &str) -> String {
    format!("// by the operator\n{{\"Version\": \"alpha0\", \"AuthKey\": \"{key}\", \"Unheard\": [1],}}\n")
}

#[tokio::test]
async fn a_config_that_is_rewritten_truncated_or_swapped_is_noticed() {
    // In place, with a half-written file in between; by renaming; by the kubelet's link.
    let rewrite: fn(&Path) = |path| {
        let whole = config(NEW);
        fs::write(path, &whole[..whole.len() / 2]).unwrap();
        fs::write(path, "").unwrap();
        fs::write(path, whole).unwrap();
    };
    let rename: fn(&Path) = |path| {
        let aside = path.with_file_name(".aside");
        fs::write(&aside, config(NEW)).unwrap();
        fs::rename(aside, path).unwrap();
    };
    for (how, change) in [("rewritten", rewrite), ("renamed", rename)] {
        let scene = scene(&[]).await;
        let path = scene.sandbox.pod().write("etc/ts/node.hujson", config(DEAD)).unwrap();
        let (mut child, mut lines, mut stream) = watching(&scene, path.to_str().unwrap()).await;
        change(&path);
        assert_eq!(next_event(&mut lines, &mut stream).await["key"], "tskey-auth-kNEW", "{how}");
        timeout(SOON, child.wait()).await.unwrap().unwrap();
    }
    let (scene, volume) = scene(&[]).await.with_config(&[("cap-95.hujson", config(DEAD).as_str())]);
    let (child, mut lines, mut stream) = watching(&scene, volume.path().to_str().unwrap()).await;
    volume.set(&[("cap-95.hujson", config(NEW))]).unwrap();
    next_event(&mut lines, &mut stream).await;
    finish(child).await.ends(0);
    is_golden("wait-config", &stream, &scene);
}

/// A wait for a config, after it said that it watches.
async fn watching(scene: &Scene, config: &str) -> (Child, Lines<BufReader<ChildStdout>>, String) {
    let mut child = command(scene, &["wait", "--json", "--config", config]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut stream = String::new();
    assert_eq!(next_event(&mut lines, &mut stream).await["event"], "watching");
    (child, lines, stream)
}

#[tokio::test]
async fn a_wait_for_a_config_needs_no_cluster_but_the_marker_counts_where_there_is_one() {
    let scene = scene(&[("reissue_authkey", DEAD)]).await;
    let path = scene.sandbox.pod().write("node.hujson", config(NEW)).unwrap();
    let args = ["wait", "--timeout", "100ms", "--config", path.to_str().unwrap()];
    // The marker says that the key in the config is a new one.
    run(&scene, &args).await.ends(0);
    // Without rights on the Secret the key in the config is the old one, and that is said.
    scene.deny(&["get"]);
    run(&scene, &args)
        .await
        .ends(3)
        .says("warning: whether a key is marked as failed is not known: not allowed to get");
    // Without a cluster there is nothing to say.
    let mut bare = command(&scene, &args);
    bare.env_clear();
    let ran = finish(bare.spawn().unwrap()).await.ends(3);
    assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
    fs::write(&path, "{").unwrap();
    let ran = run(&scene, &args).await.ends(3);
    ran.says("no auth key yet: error parsing config file");
}

#[tokio::test]
async fn the_time_is_over() {
    let scene = scene(&[("authkey", DEAD)]).await;
    let ran = run(&scene, &["wait", "--json", "--timeout", "150ms"]).await.ends(3);
    is_golden("wait-timed-out", &ran.stdout, &scene);
    for bad in ["0", "-1s", "ten"] {
        run(&scene, &["wait", &format!("--timeout={bad}")]).await.ends(2);
    }
}

#[tokio::test]
async fn a_signal_ends_the_wait() {
    let scene = scene(&[("authkey", DEAD)]).await;
    for (signal, code, said) in [(Signal::SIGINT, 130, ""), (Signal::SIGTERM, 1, "error: stopped by SIGTERM")] {
        let mut child = command(&scene, &["wait", "--json"]).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut stream = String::new();
        next_event(&mut lines, &mut stream).await;
        kill(Pid::from_raw(child.id().unwrap().cast_signed()), signal).unwrap();
        next_event(&mut lines, &mut stream).await;
        finish(child).await.ends(code).says(said);
        if signal == Signal::SIGINT {
            is_golden("wait-interrupted", &stream, &scene);
        }
    }
}

#[tokio::test]
async fn a_request_that_waits_is_answered_and_cleared() {
    let scene = scene(&[("authkey", DEAD), ("_machinekey", "privkey:hush"), ("foreign", "kept")]).await;
    let child = command(&scene, &["request", "--wait", "--clear", "--json"]).spawn().unwrap();
    scene.stored(|data| data.contains_key("reissue_authkey")).await;
    scene.put_keys(&[("authkey", NEW)]);
    let ran = finish(child).await.ends(0);
    let events: Vec<_> = ran.events().iter().map(|event| event["event"].as_str().unwrap().to_owned()).collect();
    assert_eq!(events, ["requested", "watching", "newKey", "cleared"]);
    is_golden("request-wait-clear", &ran.stdout, &scene);
    let kept: Vec<_> = scene.data().into_keys().collect();
    assert_eq!(kept, ["authkey", "foreign"]);
}

#[tokio::test]
async fn a_request_that_was_made_before_is_waited_for_as_well() {
    let (scene, volume) = scene(&[("reissue_authkey", DEAD)]).await.with_config(&[("cap-1.hujson", &config(DEAD))]);
    let dir = volume.path().to_str().unwrap().to_owned();
    let mut child = command(&scene, &["request", "--config", &dir, "--wait", "--json"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut stream = String::new();
    for event in ["alreadyRequested", "watching"] {
        assert_eq!(next_event(&mut lines, &mut stream).await["event"], event);
    }
    volume.set(&[("cap-1.hujson", config(NEW))]).unwrap();
    next_event(&mut lines, &mut stream).await;
    finish(child).await.ends(0);
    is_golden("request-again", &stream, &scene);
}
