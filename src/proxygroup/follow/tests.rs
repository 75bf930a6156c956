//! What takes seconds or minutes, on a paused clock; the rest is in tests/integration/ha.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::*;
use crate::k8s::error::{Cause, Error};
use crate::k8s::publisher::{Target, publisher};
use crate::k8s::state::KeyPatch;
use crate::netfilter::firewall::Firewall;
use crate::netfilter::ruleset::Interface;
use crate::proxygroup::egress::Egress;
use crate::proxygroup::ingress::{Ingress, LINGER};
use crate::proxygroup::plan::PodIps;

/// The state Secret's writer's end: what was written when, and until when nothing can be.
#[derive(Clone)]
struct Secret {
    written: watch::Sender<Vec<(Instant, Value)>>,
    broken_until: watch::Sender<Instant>,
}

impl Target for Secret {
    async fn merge(&self, patch: &KeyPatch) -> Result<(), Error> {
        if Instant::now() < *self.broken_until.borrow() {
            let cause = Cause::Connect("refused".to_owned());
            return Err(Error::Unreachable { server: "https://x".to_owned(), cause });
        }
        let value = patch.changes().next().and_then(|(_, value)| value).expect("a value");
        let value = serde_json::from_slice(value).expect("JSON");
        self.written.send_modify(|written| written.push((Instant::now(), value)));
        Ok(())
    }
}

/// A group and the world around it.
struct Scene {
    dir: tempfile::TempDir,
    secret: Secret,
    node: watch::Sender<Arc<Model>>,
    firewall: Firewall,
    standing: watch::Receiver<Standing>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    _draining: watch::Sender<bool>,
}

impl Scene {
    /// Follows `config` below a directory of its own.
    fn start<P: Plan>(plan: P, file: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let secret = Secret { written: watch::Sender::default(), broken_until: watch::Sender::new(Instant::now()) };
        let (publisher, writer, mut outcomes) = publisher(secret.clone());
        tasks.spawn({
            let stop = stop.clone();
            async move { writer.run(stop).await.unwrap() }
        });
        tasks.spawn(async move { while outcomes.recv().await.is_some() {} });
        let firewall = Firewall::fake(dir.path(), true);
        let (rules, keeper) = keeper::keeper(firewall.clone(), P::KIND.table());
        tasks.spawn(keeper.run(stop.clone()));
        let (node, draining) = (watch::Sender::new(Arc::default()), watch::Sender::new(false));
        let standing = watch::Sender::default();
        let told = standing.subscribe();
        let follower = Follower {
            plan,
            file: dir.path().join(file),
            node: node.subscribe(),
            draining: draining.subscribe(),
            ipv6: true,
            rules,
            publisher: Some(publisher),
            patience: Duration::from_secs(60),
            standing,
        };
        let stopped = stop.clone();
        tasks.spawn(async move { follower.run(stopped).await.unwrap() });
        Self { dir, secret, node, firewall, standing: told, stop, tasks, _draining: draining }
    }

    /// An egress group with this Service, which leads to `web.ts.net`.
    fn egress() -> Self {
        let scene = Self::start(Egress::new(Interface::default(), POD), "egress-services");
        scene.write("egress-services", &service("web.ts.net", 10345));
        scene
    }

    fn write(&self, file: &str, content: &Value) {
        write(&self.dir.path().join(file), content);
    }

    /// Shows the node with these peers.
    fn see(&self, peers: &[(&str, &str)]) {
        let peer = |(nth, (name, ip)): (usize, &(&str, &str))| {
            let status =
                json!({ "NodeID": nth + 2, "DNSName": name, "TailscaleIPs": [ip], "AllowedIPs": [format!("{ip}/32")] });
            (format!("key{nth}"), status)
        };
        let peers: serde_json::Map<_, _> = peers.iter().enumerate().map(peer).collect();
        let notify = json!({ "InitialStatus": {
            "BackendState": "Running", "Peer": peers,
            "Self": { "ID": "n", "NodeID": 1, "DNSName": "n.ts.net.", "TailscaleIPs": ["100.64.0.1"] },
        }});
        let mut model = Model::default();
        model.apply(serde_json::from_value(notify).unwrap());
        self.node.send_replace(Arc::new(model));
    }

    /// Waits for a report that satisfies `wanted`, and says when it was written.
    async fn reported(&self, wanted: impl Fn(&Value) -> bool) -> Instant {
        let mut written = self.secret.written.subscribe();
        let written = written.wait_for(|all| all.last().is_some_and(|(_, value)| wanted(value))).await.unwrap();
        written.last().unwrap().0
    }

    fn reports(&self) -> usize {
        self.secret.written.borrow().len()
    }

    /// Waits for so many translations in force.
    async fn mappings(&self, count: usize) -> Instant {
        self.standing.clone().wait_for(|now| now.applied.is_some() && now.mappings == count).await.unwrap();
        Instant::now()
    }

    async fn end(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }
}

const POD: PodIps = PodIps { ipv4: Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 42, 0, 7))), ipv6: None };

fn write(path: &Path, content: &Value) {
    let new = path.with_file_name(".new");
    fs::write(&new, content.to_string()).unwrap();
    fs::rename(new, path).unwrap();
}

fn service(fqdn: &str, port: u16) -> Value {
    let ports = json!([{ "protocol": "TCP", "matchPort": port, "targetPort": 80 }]);
    json!({ "web": { "tailnetTarget": { "ip": "", "fqdn": fqdn }, "ports": ports } })
}

fn leads(to: Value) -> impl Fn(&Value) -> bool {
    move |status| status["services"]["web"]["tailnetTargetIPs"] == to
}

fn seconds(from: Instant, to: Instant) -> f64 {
    (to - from).as_secs_f64()
}

/// Scenario 3, with its minute, and the minute that a target may be away (8.4).
#[tokio::test(start_paused = true)]
async fn ha_03_a_target_comes_and_goes() {
    let scene = Scene::egress();
    scene.see(&[]);
    scene.reported(leads(Value::Null)).await;
    sleep(Duration::from_secs(60)).await;
    let came = Instant::now();
    scene.see(&[("web.ts.net.", "100.64.0.2")]);
    let noticed = scene.reported(leads(json!(["100.64.0.2"]))).await;
    assert!(seconds(came, noticed) <= 1.0, "{}", seconds(came, noticed));

    sleep(Duration::from_secs(10)).await;
    let went = Instant::now();
    scene.see(&[]);
    sleep(Duration::from_secs(50)).await;
    assert_eq!((scene.reports(), scene.standing.borrow().mappings), (2, 1), "it may be back in a moment");
    assert!(scene.standing.borrow().problems[0].contains("its last addresses are used for a while"));
    let given_up = scene.reported(leads(Value::Null)).await;
    assert!((60.0..=61.1).contains(&seconds(went, given_up)), "{}", seconds(went, given_up));
    assert_eq!((scene.standing.borrow().mappings, scene.standing.borrow().unresolved), (0, 1));
    scene.end().await;
}

/// W2, 8.2: twenty changes a second are one rendering a second, and whoever tells of them never waits.
#[tokio::test(start_paused = true)]
async fn changes_of_the_netmap_are_rendered_once_a_second() {
    let scene = Scene::egress();
    scene.see(&[("web.ts.net.", "100.64.0.2")]);
    scene.mappings(1).await;
    let before = scene.standing.borrow().applications;
    for change in 0..1200 {
        scene.see(&[("web.ts.net.", &format!("100.64.1.{}", change % 250))]);
        sleep(Duration::from_millis(50)).await;
    }
    scene.reported(leads(json!(["100.64.1.199"]))).await;
    let applications = scene.standing.borrow().applications - before;
    assert!((55..=62).contains(&applications), "{applications} in a minute");
    scene.end().await;
}

/// Scenario 12, with its half minute.
#[tokio::test(start_paused = true)]
async fn ha_12_an_outage_of_half_a_minute_delays_the_report_alone() {
    let scene = Scene::egress();
    scene.see(&[("web.ts.net.", "100.64.0.2")]);
    scene.reported(leads(json!(["100.64.0.2"]))).await;
    sleep(Duration::from_secs(5)).await;
    let broken = Instant::now();
    scene.secret.broken_until.send_replace(broken + Duration::from_secs(30));
    scene.see(&[("web.ts.net.", "100.64.0.3")]);
    scene.standing.clone().wait_for(|now| now.applications == 2).await.unwrap();
    assert!(broken.elapsed() < Duration::from_secs(1));
    let written = scene.reported(leads(json!(["100.64.0.3"]))).await;
    assert!((30.0..=62.0).contains(&seconds(broken, written)), "{}", seconds(broken, written));
    scene.end().await;
}

/// Scenario 23, with its linger.
#[tokio::test(start_paused = true)]
async fn ha_23_a_removed_service_is_served_for_fifteen_seconds_more() {
    let scene = Scene::start(Ingress::new(Interface::default(), POD, LINGER), "ingress-config.json");
    let service = |from: &str, to: &str| json!({ "IPv4Mapping": { "TailscaleServiceIP": from, "ClusterIP": to } });
    let (web, db) = (service("100.100.1.1", "10.43.7.9"), service("100.100.1.2", "10.43.7.8"));
    scene.write("ingress-config.json", &json!({ "svc:web": web, "svc:db": db }));
    scene.reported(|status| status["configs"].as_object().is_some_and(|all| all.len() == 2)).await;
    sleep(Duration::from_secs(5)).await;
    scene.write("ingress-config.json", &json!({ "svc:web": web }));
    let unreported = scene.reported(|status| status["configs"].as_object().is_some_and(|all| all.len() == 1)).await;
    assert_eq!(scene.standing.borrow().mappings, 2);
    let gone = scene.mappings(1).await;
    assert!((14.9..=16.1).contains(&seconds(unreported, gone)), "{}", seconds(unreported, gone));
    assert_eq!(scene.reports(), 2, "once each");
    scene.end().await;
}

/// Scenario 25: a directory that cannot be watched is looked into every five seconds.
#[tokio::test(start_paused = true)]
async fn ha_25_without_inotify_changes_are_found_within_five_seconds() {
    let scene = Scene::start(Egress::new(Interface::default(), POD), "later/egress-services");
    scene.see(&[("web.ts.net.", "100.64.0.2")]);
    scene.mappings(0).await;
    sleep(Duration::from_secs(12)).await;
    let made = Instant::now();
    fs::create_dir(scene.dir.path().join("later")).unwrap();
    scene.write("later/egress-services", &service("web.ts.net", 10345));
    let found = scene.reported(leads(json!(["100.64.0.2"]))).await;
    assert!(seconds(made, found) <= 5.3, "{}", seconds(made, found));
    scene.end().await;
}

/// H10: a mount that is replaced as a whole says nothing to whoever watches the old one.
#[tokio::test(start_paused = true)]
async fn another_directory_in_the_same_place_is_found_by_the_tick() {
    let scene = Scene::start(Egress::new(Interface::default(), POD), "mount/egress-services");
    let mount = scene.dir.path().join("mount");
    fs::create_dir(&mount).unwrap();
    scene.write("mount/egress-services", &service("web.ts.net", 10345));
    scene.see(&[("web.ts.net.", "100.64.0.2")]);
    scene.mappings(1).await;
    sleep(Duration::from_secs(1)).await;
    fs::rename(&mount, scene.dir.path().join("old")).unwrap();
    fs::create_dir(&mount).unwrap();
    scene.write("mount/egress-services", &service("web.ts.net", 20000));
    let replaced = Instant::now();
    let with = |port: u16| move |status: &Value| status["services"]["web"]["ports"][0]["matchPort"] == port;
    let found = scene.reported(with(20000)).await;
    assert!(seconds(replaced, found) <= 301.0, "{}", seconds(replaced, found));
    // And watched from then on.
    sleep(Duration::from_secs(30)).await;
    scene.write("mount/egress-services", &service("web.ts.net", 20001));
    let written = Instant::now();
    let noticed = scene.reported(with(20001)).await;
    assert!(seconds(written, noticed) <= 2.0, "{}", seconds(written, noticed));
    scene.end().await;
}

/// Quiet minutes write nothing; what others flush comes back, and nothing is reported anew.
#[tokio::test(start_paused = true)]
async fn repairs_are_counted_and_not_reported() {
    let scene = Scene::egress();
    scene.see(&[("web.ts.net.", "100.64.0.2")]);
    scene.mappings(1).await;
    sleep(Duration::from_secs(600)).await;
    assert_eq!((scene.standing.borrow().applications, scene.reports()), (1, 1));
    scene.firewall.remove(Kind::Egress.table()).await.unwrap();
    scene.standing.clone().wait_for(|now| now.repairs == 1).await.unwrap();
    sleep(Duration::from_secs(600)).await;
    assert_eq!((scene.standing.borrow().applications, scene.reports()), (2, 1));
    scene.end().await;
}
