//! `tailpod certs run --forever` as three replicas, of which a Lease chooses the writer: scenarios 17 and 19 of certs.md
//! 13 through the built binary, with a Lease of seconds.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tailpod::localapi::LocalApi;
use tailpod::sandbox::Fault;
use tailpod::sandbox::apiserver::access::{Access, Rule, Subject};
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::support::{Boot, NAMESPACE, SECRET, SOON, Scene};

const SHOP: &str = "shop.tail1.ts.net";

struct Group {
    scene: Scene,
    replicas: BTreeMap<u32, Boot>,
}

impl Group {
    /// Three replicas beside a tailscaled that orders, whose tailnet does not allow the name yet.
    async fn new(lease_verbs: &[&str]) -> Self {
        let scene = Scene::kube([("authkey", "k")]).await;
        let access = Access::of_boot(NAMESPACE, SECRET)
            .and(Rule::new("", &["secrets"], &["get", "list", "patch"]))
            .and(Rule::new("", &["events"], &["get", "create", "patch"]))
            .and(Rule::new("coordination.k8s.io", &["leases"], lease_verbs));
        scene.api().grant(Subject::from(scene.sandbox.user()), access);
        let labels = json!({
            "tailscale.com/managed": "true", "tailscale.com/secret-type": "certs", "tailscale.com/proxy-group": "pg",
        });
        let data = json!({"tls.crt": "", "tls.key": ""});
        let secret = json!({"metadata": {"name": SHOP, "labels": labels}, "type": "kubernetes.io/tls", "data": data});
        scene.api().put("secrets", NAMESPACE, secret);
        let served = json!({"Services": {"svc:shop": {
            "TCP": {"443": {"HTTPS": true}}, "Web": {format!("{SHOP}:443"): {"Handlers": {}}}}}});
        let socket = scene.sandbox.pod().backend();
        LocalApi::new(&socket).post_serve_config(&served, None).await.unwrap();
        let node = json!({"ID": 1, "StableID": "n1", "Name": "ts-0.tail1.ts.net.", "Addresses": ["100.64.0.1/32"]});
        scene.daemon().notify(json!({"State": 6, "SelfChange": node}));
        scene.daemon().set_dns(json!([]), Value::Null);
        let scene = scene
            .with("TS_SOCKET", socket)
            .with_all(&[("TS_EXPERIMENTAL_CERT_SHARE", "true"), ("TAILPOD_CERT_WRITER", "lease")]);
        let replicas = (0..3).map(|ordinal| (ordinal, start(&scene, ordinal))).collect();
        Self { scene, replicas }
    }

    fn allow(&self) {
        self.scene.daemon().set_dns(json!([SHOP]), Value::Null);
        let node = json!({"ID": 1, "StableID": "n1", "Name": "ts-0.tail1.ts.net.", "Addresses": ["100.64.0.1/32"]});
        self.scene.daemon().notify(json!({"SelfChange": node}));
    }

    /// Whom the Lease names.
    fn holder(&self) -> String {
        let leases = self.scene.api().objects("leases", NAMESPACE);
        leases.first().and_then(|lease| lease["spec"]["holderIdentity"].as_str()).unwrap_or_default().to_owned()
    }

    async fn other_holder(&self, than: &str) -> String {
        let found = async {
            while self.holder() == than || self.holder().is_empty() {
                sleep(Duration::from_millis(20)).await;
            }
            self.holder()
        };
        timeout(SOON, found).await.expect("another holder")
    }

    fn orders(&self) -> usize {
        self.scene.daemon().certificates_issued()
    }
}

fn start(scene: &Scene, ordinal: u32) -> Boot {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tailpod"));
    command.args(["certs", "run", "--forever", "--lease-duration", "3s"]).env_clear().envs(scene.env());
    command.env("POD_NAME", format!("pg-{ordinal}")).env("POD_UID", format!("u{ordinal}")).kill_on_drop(true);
    Boot::spawn(command)
}

#[tokio::test]
async fn c17_a_killed_writer_is_replaced_and_the_name_is_ordered_once() {
    let mut group = Group::new(&["get", "create", "update"]).await;
    assert_eq!(group.other_holder("").await, "pg-0_u0", "the lowest ordinal goes first");
    group.replicas[&0].mentioned("this replica holds the Lease").await;
    assert_eq!(group.orders(), 0);
    group.replicas[&0].signal(Signal::SIGKILL);
    let second = group.other_holder("pg-0_u0").await;
    group.allow();
    group.scene.daemon().await_call(SOON, |call| call.endpoint.starts_with("cert/")).await.unwrap();

    // Stopped in order, it hands over at once, and what it has ordered is not ordered again.
    let ordinal = if second == "pg-1_u1" { 1 } else { 2 };
    let mut stopped = group.replicas.remove(&ordinal).unwrap();
    stopped.signal(Signal::SIGTERM);
    let ended = stopped.end_within(Duration::from_secs(5)).await;
    assert_eq!(ended.code, Some(0), "{}", ended.text());
    let third = group.other_holder(&second).await;
    assert!(third != "pg-0_u0" && third != second, "{third}");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(group.orders(), 1, "exactly one order");
    let secret = group.scene.api().secret(NAMESPACE, SHOP).unwrap();
    assert!(secret["metadata"]["annotations"]["tailpod.dev/cert-issuing"].is_null(), "{secret}");
}

#[tokio::test]
async fn a_writer_that_is_stopped_lets_its_order_end_and_its_successor_has_nothing_to_order() {
    let mut group = Group::new(&["get", "create", "update"]).await;
    assert_eq!(group.other_holder("").await, "pg-0_u0");
    group.scene.daemon().fail(&format!("cert/{SHOP}"), Fault::Hold);
    group.allow();
    let mut stopped = group.replicas.remove(&0).unwrap();
    let asked = async {
        while group.scene.daemon().count(&format!("GET cert/{SHOP}")) == 0 {
            stopped.signal(Signal::SIGHUP);
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(SOON, asked).await.expect("an order");
    stopped.signal(Signal::SIGTERM);
    stopped.mentioned("stopping after").await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!(group.holder(), "pg-0_u0", "while it orders");
    group.scene.daemon().heal();
    let ended = stopped.end_within(Duration::from_secs(5)).await;
    assert_eq!(ended.code, Some(0), "{}", ended.text());
    assert!(ended.mentions("there is a certificate"), "{}", ended.text());
    let annotations = group.scene.api().secret(NAMESPACE, SHOP).unwrap()["metadata"]["annotations"].clone();
    assert!(annotations["tailpod.dev/cert-next-attempt"].is_string(), "{annotations}");
    assert!(annotations["tailpod.dev/cert-issuing"].is_null(), "{annotations}");
    group.other_holder("pg-0_u0").await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(group.orders(), 1, "exactly one order");
}

#[tokio::test]
async fn c19_without_rights_for_leases_ordinal_0_orders_and_the_log_has_the_rules() {
    let group = Group::new(&["get"]).await;
    for replica in group.replicas.values() {
        replica.mentioned("not allowed to use a Lease").await;
        replica.mentioned("verbs: [\"create\"]").await;
    }
    assert!(group.scene.api().objects("leases", NAMESPACE).is_empty());
}
