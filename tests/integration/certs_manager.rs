//! The certificate manager with real sockets: tailscaled's certificate endpoint, TLS Secrets, boot.
//!
//! Scenarios are those of certs.md 13 (`c…`) and weaknesses those of 12 (`w…`), under their own numbers. Those about
//! schedules run under a paused clock, beside the loops (`src/certs/loops/tests.rs`).

mod by_hand;
mod in_boot;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tailpod::certs::allowed::{Told, keep_told};
use tailpod::certs::budget::Kind;
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
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::support::{NAMESPACE, SECRET, SOON, Scene, running};

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
    let ledger = world(&scene, None).await.load_ledger().await;
    let kinds: Vec<_> = ledger.entries().iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, [Kind::BrokenOff, Kind::BrokenOff, Kind::Issued], "that of the one that was killed, and ours");
    let ago = Timestamp::now().duration_since(ledger.entries()[0].at);
    assert_eq!(ago.as_mins(), 36, "when that one began");
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
    assert_eq!(loops.live().await, 1, "whoever stops decides how long they go on");
    loops.stop().await;
    assert_eq!(loops.live().await, 0);
}
