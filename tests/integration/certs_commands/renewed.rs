//! `certs run` looks by itself whether every replica serves what it has ordered: a line, an Event, a number, an exit code.

use nix::sys::signal::Signal;
use serde_json::json;
use tailpod::sandbox::apiserver::access::Rule;
use tailpod::sandbox::tls::Pair;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use super::verify::{NAME, Replicas, local};
use super::{DAY, grant, made, node, put_tls, serve};
use crate::support::{Boot, NAMESPACE, SOON, Scene, free_port, get};

/// Two replicas: one serves what tailscaled gives, which it has just got, and one `other`.
async fn renewed(replicas: &mut Replicas, new: &Pair, other: &Pair) -> Scene {
    let port = replicas.serve(local(1, 0), new).await.port();
    replicas.serve(local(2, port), other).await;
    let config =
        json!({"Services": {"svc:shop": {"TCP": {port.to_string(): {"TCPForward": "x:1", "TerminateTLS": NAME}}}}});
    let scene = node(&config, &[NAME]).await;
    serve(&scene, &config).await;
    let records = json!([{"Name": format!("{NAME}."), "Value": "127.0.0.1"}, {"Name": NAME, "Value": "127.0.0.2"}]);
    scene.daemon().set_dns(json!([NAME]), records);
    scene.daemon().set_certificate(NAME, &format!("{}{}", new.key_pem, new.chain_pem));
    scene
}

fn run(scene: &Scene, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tailpod"));
    command.args(["certs", "run"]).args(args).env_clear().envs(scene.env()).kill_on_drop(true);
    command
}

async fn ended(scene: &Scene) -> (Option<i32>, String) {
    let output = timeout(SOON, run(scene, &["--once", "--json"]).output()).await.expect("an end").unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

#[tokio::test]
async fn what_was_ordered_is_looked_for_at_every_replica() {
    let (new, old) = (made(&[NAME], 0, 90 * DAY), made(&[NAME], 80 * DAY, 10 * DAY));
    let mut replicas = Replicas::default();
    let scene = renewed(&mut replicas, &new, &old).await;
    let (code, text) = ended(&scene).await;
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("\"isServed\":false") && text.contains("127.0.0.2:"), "{text}");
    assert!(text.contains("not every replica serves the new certificate"), "{text}");

    let mut replicas = Replicas::default();
    let scene = renewed(&mut replicas, &new, &new).await;
    let (code, text) = ended(&scene).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("\"isServed\":true"), "{text}");
}

#[tokio::test]
async fn a_replica_that_serves_the_old_one_is_an_event_and_a_number() {
    let (new, old) = (made(&[NAME], 0, 90 * DAY), made(&[NAME], 80 * DAY, 10 * DAY));
    let mut replicas = Replicas::default();
    let scene = renewed(&mut replicas, &new, &old).await;
    grant(
        &scene,
        [
            Rule::new("", &["secrets"], &["get", "list", "patch"]),
            Rule::new("", &["events"], &["get", "create", "patch"]),
        ],
    );
    put_tls(&scene, NAME, NAME, None, &json!({}));
    let scene = scene.with_all(&[("TS_EXPERIMENTAL_CERT_SHARE", "true"), ("POD_NAME", "ts-0")]);
    let port = free_port();
    let mut boot = Boot::spawn(run(&scene, &["--forever", "--metrics-addr", &format!("127.0.0.1:{port}")]));
    boot.mentioned("Running metrics endpoint").await;
    // Names begin within half a minute of each other; a hurry is a signal.
    boot.signal(Signal::SIGHUP);
    boot.mentioned("as SIGHUP asks").await;
    let line = async {
        loop {
            boot.signal(Signal::SIGHUP);
            if boot.text().contains("not every replica serves the new certificate") {
                return;
            }
            sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    timeout(SOON, line).await.unwrap_or_else(|_| panic!("no line:\n{}", boot.text()));
    let metrics = get(port, "/metrics").await.body;
    for line in [
        "tailpod_cert_mismatches{domain=\"shop.t.ts.net\"} 1\n",
        "tailpod_cert_attempts_total{domain=\"shop.t.ts.net\",result=\"ok\"} 1\n",
        "tailpod_cert_loops 1\n",
        "tailpod_cert_is_writer 1\n",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    let told = async {
        loop {
            let events = scene.api().objects("events", NAMESPACE);
            if let Some(event) = events.into_iter().find(|event| event["reason"] == "CertMismatch") {
                return event;
            }
            sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let event = timeout(SOON, told).await.expect("an Event");
    assert_eq!((&event["involvedObject"]["name"], &event["type"]), (&json!(NAME), &json!("Warning")));
    boot.signal(Signal::SIGTERM);
    let ended = boot.end_within(std::time::Duration::from_secs(5)).await;
    assert_eq!(ended.code, Some(0), "{}", ended.text());
}
