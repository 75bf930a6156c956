//! The certificate manager with real sockets: tailscaled's certificate endpoint, TLS Secrets, boot.
//!
//! Scenarios are those of certs.md 13 (`c…`) and weaknesses those of 12 (`w…`), under their own numbers. Those about
//! schedules run under a paused clock, beside the loops (`src/certs/loops/tests.rs`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tailpod::certs::allowed::{Told, keep_told};
use tailpod::certs::cluster::{ClusterWorld, Finished};
use tailpod::certs::keep::Start;
use tailpod::certs::loops::{CONCURRENT, Loops, Options};
use tailpod::certs::manager::{self, Names};
use tailpod::certs::names::{Name, Node};
use tailpod::certs::record::Record;
use tailpod::certs::schedule::Growth;
use tailpod::certs::standing::{Phase, Standing};
use tailpod::certs::world::{Allowed, Role, World as _};
use tailpod::k8s::Cluster;
use tailpod::localapi::LocalApi;
use tailpod::sandbox::Fault;
use tailpod::sandbox::apiserver::access::{Access, Rule, Subject};
use tailpod::settings::Persona;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::support::{Boot, NAMESPACE, SECRET, SOON, Scene, free_port, get, running};

const SHOP: &str = "shop.tail1.ts.net";
const CALL: &str = "GET cert/shop.tail1.ts.net";
const CLAIM: &str = "tailpod.dev/cert-issuing";
const CAA: &str = "400 urn:ietf:params:acme:error:caa: no";

/// A config with a Service on 443 for each name.
fn services(names: &[&str]) -> Value {
    let entry = |name: &&str| {
        let label = name.split('.').next().unwrap();
        (
            format!("svc:{label}"),
            json!({"TCP": {"443": {"HTTPS": true}}, "Web": {format!("{name}:443"): {"Handlers": {}}}}),
        )
    };
    json!({"Services": names.iter().map(entry).collect::<serde_json::Map<_, _>>()})
}

fn name() -> Name {
    Name::parse(SHOP).unwrap()
}

/// A replica in a cluster, with or without the TLS Secret that the operator makes.
async fn replica() -> Scene {
    let scene = Scene::kube([("authkey", "k")]).await;
    grant(&scene, &["get", "list", "patch"]);
    let node = json!({"ID": 1, "StableID": "n1", "Name": "ts-0.tail1.ts.net.", "Addresses": ["100.64.0.1/32"]});
    scene.daemon().notify(json!({"State": 6, "SelfChange": node}));
    scene.daemon().set_dns(json!([SHOP]), json!([]));
    scene
}

fn grant(scene: &Scene, verbs: &[&str]) {
    let access = Access::of_boot(NAMESPACE, SECRET).and(Rule::new("", &["secrets"], verbs)).and(Rule::new(
        "",
        &["events"],
        &["get", "create", "patch"],
    ));
    scene.api().grant(Subject::from(scene.sandbox.user()), access);
}

fn put_tls(scene: &Scene, annotations: &Value) {
    let labels = json!({
        "tailscale.com/managed": "true", "tailscale.com/secret-type": "certs", "tailscale.com/proxy-group": "ingress",
    });
    let metadata = json!({"name": SHOP, "labels": labels, "annotations": annotations});
    let data = json!({"tls.crt": "", "tls.key": ""});
    scene.api().put("secrets", NAMESPACE, json!({"metadata": metadata, "type": "kubernetes.io/tls", "data": data}));
}

fn annotation(scene: &Scene, name: &str) -> Option<String> {
    scene.api().secret(NAMESPACE, SHOP)?["metadata"]["annotations"][name].as_str().map(str::to_owned)
}

async fn world(scene: &Scene, claimant: Option<&str>) -> ClusterWorld {
    let access = scene.settings(Persona::Tailpod).kube.access;
    ClusterWorld {
        api: LocalApi::new(&scene.sandbox.pod().backend()),
        cluster: Cluster::connect(&access, "test").await.unwrap().in_namespace(NAMESPACE),
        group: Some("ingress".to_owned()),
        claimant: claimant.map(str::to_owned),
        finished: Finished::default(),
    }
}

/// Loops in the cluster, which ask at once.
async fn loops(scene: &Scene, claimant: Option<&str>) -> Arc<Loops<ClusterWorld>> {
    let (allowed, role) = (watch::Sender::new(Allowed::Unusable), watch::Sender::new(Role::Writer));
    let options = Options { growth: Growth::Steps, start: Start::Now, concurrent: CONCURRENT, node: Node::Leave };
    let world = world(scene, claimant).await;
    let loops = Loops::new(world, options, allowed.subscribe(), role.subscribe(), CancellationToken::new()).await;
    // Nobody changes them; dropped, they stay as they are.
    loops.ensure(&services(&[SHOP])).await.unwrap();
    Arc::new(loops)
}

async fn settled(loops: &Loops<ClusterWorld>) -> Standing {
    let settled = timeout(SOON, manager::settled(loops, SOON)).await.expect("an end of all attempts");
    settled.into_iter().map(|(_, standing)| standing).next().unwrap()
}

#[tokio::test]
async fn a_certificate_is_ordered_and_what_has_to_be_known_of_it_is_noted() {
    let scene = replica().await;
    put_tls(&scene, &json!({}));
    let loops = loops(&scene, None).await;
    let standing = settled(&loops).await;
    assert!(matches!(standing.phase, Phase::Waiting(_)) && standing.certificate.is_some(), "{standing:?}");
    let due: Timestamp = annotation(&scene, "tailpod.dev/cert-next-attempt").unwrap().parse().unwrap();
    assert!(due > Timestamp::now() + SignedDuration::from_hours(20));
    let ledger: Value = serde_json::from_str(&annotation(&scene, "tailpod.dev/cert-ledger").unwrap()).unwrap();
    assert_eq!((ledger[0]["name"].as_str(), ledger[0]["kind"].as_str()), (Some(SHOP), Some("issued")));
    let event = scene.api().objects("events", NAMESPACE).into_iter().find(|event| event["reason"] == "CertIssued");
    assert_eq!(event.expect("an Event")["involvedObject"]["name"], SHOP);
    assert_eq!(scene.daemon().count(CALL), 1);
    // The next process knows the orders of this one.
    assert_eq!(world(&scene, None).await.load_ledger().await.entries().len(), 1);
}

#[tokio::test]
async fn c16_w07_without_a_place_for_it_nothing_is_ordered() {
    let scene = replica().await;
    let loops = loops(&scene, None).await;
    let Phase::Blocked(reason) = settled(&loops).await.phase else { panic!("not blocked") };
    assert!(reason.contains("Secret `shop.tail1.ts.net` does not exist"), "{reason}");
    // A Secret that may not be written is none.
    put_tls(&scene, &json!({}));
    grant(&scene, &["get", "list"]);
    loops.wake_all().await;
    let mut standing = loops.standing(&name()).await.unwrap();
    let denied =
        |standing: &Standing| matches!(&standing.phase, Phase::Blocked(why) if why.contains("not allow to patch"));
    timeout(SOON, standing.wait_for(denied)).await.expect("in time").unwrap();
    assert_eq!(scene.daemon().count(CALL), 0);
    grant(&scene, &["get", "list", "patch"]);
    loops.wake_all().await;
    timeout(SOON, standing.wait_for(|standing| standing.certificate.is_some())).await.expect("in time").unwrap();
    assert_eq!(scene.daemon().count(CALL), 1);
}

#[tokio::test]
async fn c15_w03_the_next_process_goes_on_where_the_last_one_stopped() {
    let scene = replica().await;
    put_tls(&scene, &json!({}));
    scene.daemon().fail(&format!("cert/{SHOP}"), Fault::Status(500, CAA.to_owned()));
    let first = loops(&scene, None).await;
    assert_eq!(settled(&first).await.record.failures, 1);
    first.stop().await;
    scene.daemon().heal();
    let second = loops(&scene, None).await;
    let standing = settled(&second).await;
    assert_eq!((standing.record.failures, standing.attempts), (1, 0), "{standing:?}");
    assert!(standing.record.last_error.unwrap().contains("caa"));
    assert_eq!(scene.daemon().count(CALL), 1);
    second.wake_all().await;
    let mut standing = second.standing(&name()).await.unwrap();
    timeout(SOON, standing.wait_for(|standing| standing.certificate.is_some())).await.expect("in time").unwrap();
    assert_eq!(annotation(&scene, "tailpod.dev/cert-failures"), None);
}

#[tokio::test]
async fn a_name_is_claimed_before_it_is_ordered_and_free_afterwards() {
    let scene = replica().await;
    let at = |ago: i64| format!("ingress-1_u@{:.0}", Timestamp::now() - SignedDuration::from_mins(ago));
    put_tls(&scene, &json!({ CLAIM: at(5) }));
    let waiting = loops(&scene, Some("ingress-0_u")).await;
    assert!(matches!(settled(&waiting).await.phase, Phase::Taken(_)));
    assert_eq!(scene.daemon().count(CALL), 0);
    waiting.stop().await;
    put_tls(&scene, &json!({ CLAIM: at(36) }));
    scene.daemon().fail(&format!("cert/{SHOP}"), Fault::Hang);
    let asking = loops(&scene, Some("ingress-0_u")).await;
    scene.daemon().await_count(CALL, 1, SOON).await.unwrap();
    assert!(annotation(&scene, CLAIM).unwrap().starts_with("ingress-0_u@"), "while it is being ordered");
    asking.stop().await;
    assert_eq!(annotation(&scene, CLAIM), None, "given up");
    scene.daemon().heal();
    let asking = loops(&scene, Some("ingress-0_u")).await;
    assert!(settled(&asking).await.certificate.is_some());
    assert_eq!(annotation(&scene, CLAIM), None);
}

#[tokio::test]
async fn an_order_that_was_broken_off_counts_for_its_own_replica_too() {
    let scene = replica().await;
    put_tls(&scene, &json!({}));
    let first = world(&scene, Some("ingress-0_u")).await;
    first.claim(&name()).await.unwrap();
    let taken = first.claim(&name()).await.expect_err("nobody has said that the order ended");
    assert_eq!(taken.holder, "ingress-0_u");
    world(&scene, Some("ingress-0_u")).await.claim(&name()).await.expect_err("nor may the next process know it");
    // What cannot be kept has ended all the same.
    grant(&scene, &["get", "list"]);
    first.save(&name(), &Record::default()).await;
    assert!(annotation(&scene, CLAIM).is_some());
    grant(&scene, &["get", "list", "patch"]);
    first.claim(&name()).await.unwrap();
    first.give_up(&name()).await;
    world(&scene, Some("ingress-1_u")).await.claim(&name()).await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_was_taken_away_is_seen() {
    let scene = replica().await;
    put_tls(&scene, &json!({}));
    let world = world(&scene, None).await;
    let names = BTreeSet::from([name()]);
    assert_eq!(world.emptied(&names).await, [name()]);
    scene.api().set_key(NAMESPACE, SHOP, "tls.crt", Some(b"chain"));
    assert!(world.emptied(&names).await.is_empty());
    scene.api().delete_secret(NAMESPACE, SHOP);
    assert_eq!(world.emptied(&names).await, [name()]);
}

/// Follows a node until `stop`.
struct Following {
    allowed: watch::Receiver<Allowed>,
    _task: JoinSet<()>,
}

impl Following {
    fn of(scene: &Scene) -> Self {
        let told = Told::default();
        let allowed = told.allowed.subscribe();
        let mut task = JoinSet::new();
        task.spawn(keep_told(LocalApi::new(&scene.sandbox.pod().backend()), told, CancellationToken::new()));
        Self { allowed, _task: task }
    }

    async fn lets(&mut self, lets: bool) {
        let name = name();
        let is = |allowed: &Allowed| *allowed != Allowed::Unknown && allowed.lets(&name) == lets;
        timeout(SOON, self.allowed.wait_for(is)).await.expect("in time").unwrap();
    }
}

#[tokio::test]
async fn c07_c08_w10_every_daemon_says_which_names_are_allowed() {
    for version in ["1.104.1", "1.98.2", "1.92.0"] {
        let scene = Scene::new().await;
        scene.daemon().set_version(version);
        scene.daemon().set_dns(json!([]), json!([]));
        let _boot = scene.boot();
        scene.notify(running()).await;
        let mut following = Following::of(&scene);
        following.lets(false).await;
        scene.daemon().set_dns(json!([SHOP]), json!([]));
        let mut message = running();
        message["InitialStatus"]["CertDomains"] = json!([SHOP]);
        scene.notify(message).await;
        following.lets(true).await;
    }
}

#[tokio::test]
async fn loops_are_those_of_what_the_daemon_serves() {
    let scene = replica().await;
    put_tls(&scene, &json!({}));
    let loops = loops(&scene, None).await;
    loops.ensure(&json!({})).await.unwrap();
    assert_eq!(loops.live().await, 0);
    let (changed, changes) = watch::channel(0);
    let (api, stop) = (LocalApi::new(&scene.sandbox.pod().backend()), CancellationToken::new());
    let mut tasks = JoinSet::new();
    let (managed, until) = (Arc::clone(&loops), stop.clone());
    tasks.spawn(async move { manager::manage(&managed, &api, Names::Served(changes), &until).await });
    scene.daemon().put_serve_config(services(&[SHOP, "b.tail1.ts.net"]));
    let count = async |wanted: usize| {
        while loops.live().await != wanted {
            changed.send_modify(|count| *count += 1);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, count(2)).await.expect("two loops");
    scene.daemon().put_serve_config(services(&[SHOP]));
    timeout(SOON, count(1)).await.expect("one loop");
    stop.cancel();
    timeout(SOON, tasks.join_next()).await.expect("an end").unwrap().unwrap();
    assert_eq!(loops.live().await, 0);
}

// === By hand ===

/// A node whose tailscaled keeps certificates by itself, and what `tailpod certs …` does there.
struct Alone {
    scene: Scene,
}

struct Ran {
    code: Option<i32>,
    text: String,
}

impl Alone {
    async fn new(allowed: &[&str]) -> Self {
        let scene = Scene::new().await;
        let socket = scene.sandbox.pod().backend();
        let api = LocalApi::new(&socket);
        api.post_serve_config(&services(&[SHOP]), None).await.unwrap();
        scene.daemon().notify(json!({"State": 6, "SelfChange": {
            "ID": 1, "StableID": "n1", "Name": "ts-0.tail1.ts.net.", "Addresses": ["100.64.0.1/32"]}}));
        scene.daemon().set_dns(json!(allowed), Value::Null);
        let state = scene.root().join("kept");
        std::fs::create_dir_all(&state).unwrap();
        Self { scene: scene.with("TS_SOCKET", socket).with("TS_STATE_DIR", state) }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tailpod"));
        command.arg("certs").args(args).env_clear().envs(self.scene.env()).kill_on_drop(true);
        command
    }

    async fn run(&self, args: &[&str]) -> Ran {
        let output = timeout(SOON, self.command(args).output()).await.unwrap_or_else(|_| panic!("{args:?}: no end"));
        let output = output.unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!text.contains("PRIVATE KEY"), "{text}");
        Ran { code: output.status.code(), text }
    }

    fn asked(&self) -> usize {
        self.scene.daemon().count(CALL)
    }
}

impl Ran {
    #[track_caller]
    fn ends(self, code: i32, part: &str) -> Self {
        assert!(self.code == Some(code) && self.text.contains(part), "{:?} and {part:?}:\n{}", self.code, self.text);
        self
    }
}

#[tokio::test]
async fn run_once_asks_for_what_is_served_and_says_how_it_stands() {
    let alone = Alone::new(&[SHOP]).await;
    alone.run(&["run"]).await.ends(0, "shop.tail1.ts.net  ok");
    assert_eq!(alone.asked(), 1);
    // A name that failed waits in the next run too; one that did not is looked at again.
    alone.scene.daemon().fail(&format!("cert/{SHOP}"), Fault::Status(500, CAA.to_owned()));
    alone.run(&["run", "--once"]).await.ends(1, "caa");
    alone.scene.daemon().heal();
    alone.run(&["run", "--once"]).await.ends(1, "asked again at");
    assert_eq!(alone.asked(), 2);
    let limits = alone.run(&["budget"]).await.ends(0, "");
    assert!(limits.text.contains("shop.tail1.ts.net") || limits.text.contains("tail1.ts.net"), "{}", limits.text);
}

#[tokio::test]
async fn run_once_waits_for_the_tailnet_only_so_long() {
    let alone = Alone::new(&["other.tail1.ts.net"]).await;
    alone.run(&["run", "--wait-allowed", "1s"]).await.ends(1, "the tailnet does not allow the name");
    assert_eq!(alone.asked(), 0);
}

#[tokio::test]
async fn run_forever_ends_in_order_when_it_is_stopped() {
    let alone = Alone::new(&[SHOP]).await;
    let mut boot = Boot::spawn(alone.command(&["run", "--forever", "--domain", SHOP]));
    alone.scene.daemon().await_call(SOON, |call| call.endpoint == "cert-domains").await.unwrap();
    boot.signal(Signal::SIGHUP);
    boot.mentioned("as SIGHUP asks").await;
    boot.signal(Signal::SIGTERM);
    let ended = boot.end_within(Duration::from_secs(5)).await;
    assert_eq!(ended.code, Some(0), "{}", ended.text());
}

#[tokio::test]
async fn c15_c22_issue_checks_before_it_orders() {
    let alone = Alone::new(&[SHOP]).await;
    let refused = alone.run(&["issue", SHOP, "--min-validity", "2160h"]).await;
    refused.ends(2, "every call would renew");
    alone.run(&["issue", "shpo.tail1.ts.net"]).await.ends(1, "is it `shop.tail1.ts.net`?");
    alone.run(&["issue", "no dots"]).await.ends(2, "");
    alone.run(&["issue", SHOP, "--dry-run"]).await.ends(0, "nothing speaks against an order");
    assert_eq!(alone.asked(), 0);
    alone.scene.daemon().fail(&format!("cert/{SHOP}"), Fault::Status(500, CAA.to_owned()));
    alone.run(&["run"]).await.ends(1, "caa");
    alone.scene.daemon().heal();
    alone.run(&["issue", SHOP]).await.ends(1, "`--force` asks all the same");
    assert_eq!(alone.asked(), 1);
    alone.run(&["issue", SHOP, "--force"]).await.ends(0, "issued");
    assert_eq!(alone.asked(), 2);
}

#[tokio::test]
async fn c23_c24_issue_on_a_reader_is_refused_and_keys_go_to_their_file_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let alone = Alone::new(&[SHOP]).await;
    alone.scene.daemon().set_certificates_read_only(true);
    alone.run(&["issue", SHOP]).await.ends(1, "not the writer");
    alone.scene.daemon().set_certificates_read_only(false);
    let (key, cert) = (alone.scene.root().join("key.pem"), alone.scene.root().join("cert.pem"));
    let files = ["--write-key", key.to_str().unwrap(), "--write-cert", cert.to_str().unwrap()];
    alone.run(&[&["issue", SHOP][..], &files].concat()).await.ends(0, "issued");
    let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap();
    assert!(read(&key).contains("PRIVATE KEY") && !read(&key).contains("CERTIFICATE"));
    assert!(read(&cert).contains("CERTIFICATE") && !read(&cert).contains("PRIVATE KEY"));
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
}

// === boot ===

fn mode_of(scene: &Scene) -> Option<String> {
    scene.daemon().commands().first()?.env.get("TS_CERT_SHARE_MODE").cloned().flatten()
}

#[tokio::test]
async fn the_first_replica_gets_certificates_and_says_so_in_numbers() {
    let port = free_port();
    let scene = replica().await;
    put_tls(&scene, &json!({}));
    let scene = scene.with_all(&[
        ("TS_EXPERIMENTAL_CERT_SHARE", "true"),
        ("POD_NAME", "ingress-0"),
        ("TS_SERVE_CONFIG", &services(&[SHOP]).to_string()),
        ("TS_LOCAL_ADDR_PORT", &format!("127.0.0.1:{port}")),
        ("TS_ENABLE_METRICS", "true"),
        ("TAILPOD_WITHDRAW_WAIT", "100ms"),
    ]);
    let boot = scene.tailpod();
    let mut message = running();
    message["InitialStatus"]["CertDomains"] = json!([SHOP]);
    scene.notify(message).await;
    boot.ready().await;
    assert_eq!(mode_of(&scene).as_deref(), Some("rw"));
    // Names of one process begin within half a minute of each other.
    scene
        .daemon()
        .await_count(CALL, 1, Duration::from_secs(45))
        .await
        .unwrap_or_else(|e| panic!("{e}\n{}", boot.text()));
    boot.mentioned("there is a certificate").await;
    let counted = async {
        loop {
            let metrics = get(port, "/metrics").await.body;
            if metrics.contains("result=\"ok\"") {
                return metrics;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let metrics = timeout(SOON, counted).await.expect("the attempt is counted");
    assert!(metrics.contains("tailpod_cert_loops 1\n") && metrics.contains("tailpod_cert_is_writer 1\n"), "{metrics}");
    assert!(metrics.contains("tailpod_cert_attempts_total{domain=\"shop.tail1.ts.net\",result=\"ok\"} 1"), "{metrics}");
    boot.stops().await;
}

#[tokio::test]
async fn other_replicas_only_read_and_a_replica_without_a_name_is_refused() {
    for (pod, writer) in [("ingress-1", "ordinal"), ("ingress-0", "off")] {
        let scene =
            replica().await.with_all(&[("TS_EXPERIMENTAL_CERT_SHARE", "true"), ("TAILPOD_CERT_WRITER", writer)]);
        let boot = scene.boot_with(&[("POD_NAME", pod)]);
        scene.notify(running()).await;
        boot.ready().await;
        assert_eq!(mode_of(&scene).as_deref(), Some("ro"), "{pod} {writer}");
        boot.stops().await;
    }
    // w01: upstream's replicas are all readers then, and nobody gets certificates.
    for pod in ["", "ingress"] {
        let scene = replica().await.with_all(&[("TS_EXPERIMENTAL_CERT_SHARE", "true"), ("POD_NAME", pod)]);
        let ended = scene.boot().ends(1).await;
        assert!(ended.mentions("no replica would get certificates"), "{}", ended.text());
    }
}
