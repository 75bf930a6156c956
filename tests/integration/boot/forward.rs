//! Packets between cluster and tailnet (boot.md 12, netfilter.md 14), through the front door with the firewall of
//! `TS_TEST_FAKE_NETFILTER`: which rules there are when, and what waits for them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tailpod::sandbox::apiserver::{Fault, Scope};

use crate::support::{READY, SOON, Scene, free_port, get, node, running, running_as};

/// What the pretend firewall was told.
struct Rules(PathBuf);

impl Rules {
    fn of(scene: &Scene) -> Self {
        let dir = scene.root().join("netfilter");
        fs::create_dir_all(&dir).expect("a directory");
        Self(dir)
    }

    fn path(&self, nth: usize) -> PathBuf {
        self.0.join(format!("tailpod_l3.{nth}"))
    }

    /// How many transactions there were.
    fn count(&self) -> usize {
        (1..100).take_while(|nth| self.path(*nth).exists()).count()
    }

    /// The translations of the nth transaction, once there is one. Each transaction replaces the whole.
    async fn nth(&self, nth: usize) -> Vec<String> {
        let path = self.path(nth);
        until(|| path.exists()).await;
        let script = fs::read_to_string(path).expect("a script");
        let rules = script.lines().filter_map(|line| line.strip_prefix("add rule "));
        rules.filter(|rule| !rule.contains("maxseg")).map(|rule| rule.replacen(" tailpod_l3 ", " ", 1)).collect()
    }

    /// The kernel refuses everything from now on.
    fn refuse(&self, words: &str) {
        fs::write(self.0.join("refuse"), words).expect("a file");
    }

    fn accept(&self) {
        fs::remove_file(self.0.join("refuse")).expect("a file");
    }
}

/// Between two looks at a file or a probe.
const PAUSE: Duration = Duration::from_millis(10);

async fn until(is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(SOON, waiting).await.expect("it does not come about");
}

const KERNEL: (&str, &str) = ("TS_USERSPACE", "false");
const TARGET: &str = "TS_TAILNET_TARGET_FQDN";

/// `RUN` with peers: name, address, and what else is routed to each.
fn running_with(peers: &[(&str, &str, &[&str])]) -> Value {
    let mut message = running();
    message["InitialStatus"]["Peer"] = peers
        .iter()
        .zip(2..)
        .map(|((name, ip, routes), id)| {
            let bits = if ip.contains(':') { 128 } else { 32 };
            let mut allowed = vec![format!("{ip}/{bits}")];
            allowed.extend(routes.iter().map(|route| (*route).to_owned()));
            let peer = json!({"ID": format!("n{id}"), "NodeID": id, "DNSName": name, "TailscaleIPs": [ip],
                              "AllowedIPs": allowed});
            (format!("nodekey:{id}"), peer)
        })
        .collect::<serde_json::Map<_, _>>()
        .into();
    message
}

/// A peer's change.
fn peer(id: u64, name: &str, ip: &str) -> Value {
    json!({"PeersChanged": [{"ID": id, "StableID": format!("n{id}"), "Name": name,
                             "Addresses": [format!("{ip}/32")], "AllowedIPs": [format!("{ip}/32")]}]})
}

fn egress(target: &str, own: &str) -> [String; 2] {
    [
        format!("ip tp_pre iifname != \"tailscale0\" dnat to {target} comment \"egress\""),
        format!("ip tp_post ip daddr {target} snat to {own} comment \"egress\""),
    ]
}

/// Also netfilter.md 14 number 1 as far as rules go, and 18: nothing of ours is left by a stop.
#[tokio::test]
async fn s09_ingress_ip() {
    let scene = Scene::new().await.with_all(&[KERNEL, ("TS_AUTHKEY", "k"), ("TS_DEST_IP", "1.2.3.4")]);
    let rules = Rules::of(&scene);
    let boot = scene.boot();
    scene.notify(running()).await;
    boot.ready().await;
    assert_eq!(scene.sysctls(), ["1", "0"]);
    boot.said("Installing proxy rules").await;
    let once = ["ip tp_pre ip daddr 100.64.0.1 dnat to 1.2.3.4 comment \"ingress-ip\""];
    assert_eq!(rules.nth(1).await, once);
    let script = fs::read_to_string(rules.path(1)).expect("a script");
    for side in ["iifname", "oifname"] {
        let clamp =
            format!("tp_fwd {side} \"tailscale0\" tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu");
        assert_eq!(script.matches(&clamp).count(), 1, "{script}");
    }
    assert_eq!(rules.count(), 1);
    boot.stops().await;
    assert_eq!((rules.count(), fs::read_to_string(rules.path(2)).expect("a removal").as_str()), (2, ""));
}

#[tokio::test]
async fn s10_egress_ip() {
    let scene = Scene::new().await.with_all(&[KERNEL, ("TS_TAILNET_TARGET_IP", "100.99.99.99")]);
    let rules = Rules::of(&scene);
    let boot = scene.boot();
    boot.mentioned("Waiting for tailscaled socket").await;
    assert_eq!(scene.sysctls(), ["1", "0"], "before anything runs");
    scene.notify(running()).await;
    boot.ready().await;
    assert_eq!(rules.nth(1).await, egress("100.99.99.99", "100.64.0.1"));
    boot.stops().await;
}

/// And netfilter.md 14 number 12.
#[tokio::test]
async fn s11_egress_fqdn_v6_on_a_v4_only_host() {
    let scene = Scene::new().await.with_all(&[
        KERNEL,
        (TARGET, "ipv6-node.test.ts.net."),
        ("TS_TEST_FAKE_NETFILTER_6", "false"),
    ]);
    let rules = Rules::of(&scene);
    let mut boot = scene.boot();
    scene.notify(running_with(&[("ipv6-node.test.ts.net.", "::1", &[])])).await;
    let ended = boot.ends(1).await;
    assert_eq!(ended.last(), "no forwarding rules for egress addresses [::1/128], host supports IPv6: false");
    assert_eq!(rules.count(), 0);
}

/// W1, and netfilter.md 14 numbers 11 and 13: a target that is not there, comes, moves, goes and comes back.
#[tokio::test]
async fn s12_egress_fqdn_appears_late() {
    for program in ["containerboot", "tailpod"] {
        let port = free_port();
        let scene = Scene::kube([("authkey", "k")]).await.with_all(&[
            KERNEL,
            (TARGET, "db.test.ts.net"),
            ("TS_ENABLE_HEALTH_CHECK", "true"),
            ("TS_LOCAL_ADDR_PORT", &format!("127.0.0.1:{port}")),
            ("TAILPOD_EGRESS_EXEMPTIONS", "none"),
        ]);
        let rules = Rules::of(&scene);
        let mut boot = scene.start(program, if program == "tailpod" { &["boot"] } else { &[] }, &[]);
        scene.notify(running()).await;
        boot.mentioned("could not find Tailscale node, service or 4via6 address \"db.test.ts.net\"").await;
        scene.stored(|data| data.contains_key("device_id")).await;
        boot.lives();
        assert_eq!((boot.count(READY), rules.count()), (0, 0));
        assert!(!scene.data().contains_key("device_fqdn"), "nobody is sent here yet");
        let probe = get(port, "/readyz?verbose").await;
        assert!(probe.status == 503 && probe.body.contains("could not find"), "{}", probe.body);

        scene.notify(peer(2, "db.test.ts.net.", "100.64.0.9")).await;
        boot.said("Installing forwarding rules for destination 100.64.0.9").await;
        boot.ready().await;
        assert_eq!(rules.nth(1).await, egress("100.64.0.9", "100.64.0.1"));
        scene.stored(|data| data.contains_key("device_fqdn")).await;
        while get(port, "/readyz").await.status != 200 {
            tokio::time::sleep(PAUSE).await;
        }

        // Another address: one rule of each kind, for it alone.
        scene.notify(peer(2, "db.test.ts.net.", "100.64.0.10")).await;
        assert_eq!(rules.nth(2).await, egress("100.64.0.10", "100.64.0.1"));

        scene.notify(json!({"PeersRemoved": [2]})).await;
        boot.said_times("could not find Tailscale node, service or 4via6 address \"db.test.ts.net\"; it either does not exist, or not reachable because of ACLs", 2).await;
        boot.lives();
        assert_eq!(rules.count(), 2, "what was in force stays");
        scene.notify(peer(7, "db.test.ts.net.", "100.64.0.11")).await;
        assert_eq!(rules.nth(3).await, egress("100.64.0.11", "100.64.0.1"));
        boot.stops().await;
    }
}

#[tokio::test]
async fn s13_a_service_and_a_4via6_name() {
    let router = ("router.tailnet.ts.net.", "100.64.0.8", &["100.99.10.20/32", "fd7a:115c:a1e0:b1a:0:7:a01:0/112"][..]);
    let both = ["100.64.0.1", "fd7a::1"];
    for (name, expected) in [
        ("svc.tailnet.ts.net", egress("100.99.10.20", "100.64.0.1").to_vec()),
        (
            "10-1-0-5-via-7.tailnet.ts.net",
            vec![
                "ip6 tp_pre iifname != \"tailscale0\" dnat to fd7a:115c:a1e0:b1a:0:7:a01:5 comment \"egress\""
                    .to_owned(),
                "ip6 tp_post ip6 daddr fd7a:115c:a1e0:b1a:0:7:a01:5 snat to fd7a::1 comment \"egress\"".to_owned(),
            ],
        ),
    ] {
        let scene = Scene::new().await.with_all(&[KERNEL, (TARGET, name)]);
        let rules = Rules::of(&scene);
        let boot = scene.boot();
        let mut message = running_with(&[router]);
        message["InitialStatus"]["Self"]["TailscaleIPs"] = json!(both);
        message["SelfChange"] = node("myID", "test-node.test.ts.net.", &both);
        message["InitialStatus"]["ExtraRecords"] = json!([{"Name": "svc.tailnet.ts.net.", "Value": "100.99.10.20"}]);
        scene.daemon().set_dns(json!([]), message["InitialStatus"]["ExtraRecords"].clone());
        scene.notify(message).await;
        boot.ready().await;
        assert_eq!(rules.nth(1).await, expected, "{name}");
        boot.stops().await;
    }
}

#[tokio::test]
async fn s14_a_service_created_after_boot() {
    let scene = Scene::new().await.with_all(&[KERNEL, (TARGET, "svc.tailnet.ts.net")]);
    let rules = Rules::of(&scene);
    let mut boot = scene.boot();
    scene.notify(running_with(&[("router.tailnet.ts.net.", "100.64.0.8", &["100.99.10.20/32"])])).await;
    boot.mentioned("could not find").await;
    boot.lives();
    let asked = scene.daemon().count("GET dns-config");
    scene.daemon().set_dns(json!([]), json!([{"Name": "svc.tailnet.ts.net.", "Value": "100.99.10.20"}]));
    scene.notify(json!({"SelfChange": node("myID", "test-node.test.ts.net.", &["100.64.0.1"])})).await;
    boot.ready().await;
    assert!(scene.daemon().count("GET dns-config") > asked);
    assert_eq!(rules.nth(1).await, egress("100.99.10.20", "100.64.0.1"));
    boot.stops().await;
}

/// The id, then rules, then the endpoints, then the milestone.
#[tokio::test]
async fn s32_write_order_with_rules() {
    let scene = Scene::kube([("authkey", "k")]).await.with_all(&[KERNEL, ("TS_DEST_IP", "1.2.3.4")]);
    let rules = Rules::of(&scene);
    rules.refuse("not now");
    let boot = scene.boot();
    scene.stored(|data| data.contains_key("tailscale_capver")).await;
    let patches = Scope::method(hyper::Method::PATCH).path("secrets");
    scene.api().fail(patches, Fault::Delay(Duration::from_millis(200)));
    scene.notify(running()).await;
    scene.stored(|data| data.contains_key("device_id")).await;
    boot.mentioned("the kernel refused the rules: not now").await;
    assert_eq!(rules.count(), 0);
    assert!(!scene.data().contains_key("device_fqdn") && boot.count(READY) == 0);
    rules.accept();
    boot.ready().await;
    assert_eq!(rules.count(), 1);
    assert!(scene.data().contains_key("device_fqdn"));
    boot.stops().await;
}

#[tokio::test]
async fn s32_rules_that_stay_refused() {
    let scene =
        Scene::kube([("authkey", "k")]).await.with_all(&[KERNEL, ("TS_DEST_IP", "1.2.3.4"), ("TS_BOOT_TIMEOUT", "2s")]);
    let rules = Rules::of(&scene);
    rules.refuse("Operation not permitted");
    let mut boot = scene.boot();
    scene.notify(running()).await;
    let ended = boot.ends(1).await;
    assert_eq!(ended.last(), "installing ingress proxy rules: the kernel refused the rules: Operation not permitted");
    let data = scene.data();
    assert!(data.contains_key("device_id") && !data.contains_key("device_fqdn") && !data.contains_key("device_ips"));
}

/// W17, and netfilter.md 14 numbers 6 and 7: the first failure holds the node up, the retry finishes what it held up,
/// without a word from the bus.
#[tokio::test]
async fn s59_dns_target() {
    let scene = Scene::kube([("authkey", "k")]).await.with_all(&[KERNEL, ("TS_EXPERIMENTAL_DEST_DNS_NAME", "db.prod")]);
    let rules = Rules::of(&scene);
    let hosts = scene.sandbox.pod().write("etc/hosts", "127.0.0.1 localhost\n").expect("a file");
    // Nobody listens there.
    scene.sandbox.pod().write("etc/resolv.conf", "nameserver [127.0.0.1]:1\n").expect("a file");
    let mut boot = scene.boot();
    scene.notify(running()).await;
    boot.mentioned("[unexpected] error resolving DNS name db.prod: ").await;
    boot.said("reconfigureTimer: last DNS resolution attempt failed, next DNS resolution attempt in 1s").await;
    boot.lives();
    assert_eq!(scene.sysctls(), ["0", "0"], "what it will be is not known");
    assert!(!scene.data().contains_key("device_fqdn") && boot.count(READY) == 0);

    fs::write(&hosts, "10.0.0.2 db.prod\n10.0.0.1 db.prod\nfd00::1 db.prod\n").expect("a file");
    boot.said("installing ingress proxy rules for backends [10.0.0.1 10.0.0.2]").await;
    boot.said("reconfigureTimer: next DNS resolution attempt in 10m0s").await;
    boot.ready().await;
    let balanced = |own: &str| {
        vec![
            format!("ip tp_pre ip daddr {own} numgen inc mod 2 0 dnat to 10.0.0.1 comment \"ingress-dns 1/2\""),
            format!("ip tp_pre ip daddr {own} dnat to 10.0.0.2 comment \"ingress-dns 2/2\""),
        ]
    };
    assert_eq!(rules.nth(1).await, balanced("100.64.0.1"));
    assert_eq!(scene.sysctls(), ["1", "0"]);
    assert!(scene.data().contains_key("device_fqdn"));

    // The same backends under other addresses of the node, and then with IPv6.
    scene.notify(json!({"SelfChange": node("myID", "test-node.test.ts.net.", &["100.64.0.2"])})).await;
    assert_eq!(rules.nth(2).await, balanced("100.64.0.2"));
    scene.notify(json!({"SelfChange": node("myID", "test-node.test.ts.net.", &["100.64.0.2", "fd7a::2"])})).await;
    let mut both = balanced("100.64.0.2");
    both.push("ip6 tp_pre ip6 daddr fd7a::2 dnat to fd00::1 comment \"ingress-dns\"".to_owned());
    assert_eq!(rules.nth(3).await, both);
    assert_eq!(scene.sysctls(), ["1", "1"]);
    boot.stops().await;
}

#[tokio::test]
async fn s60_cluster_traffic_via_ingress() {
    const VIA: &str = "EXPERIMENTAL_ALLOW_PROXYING_CLUSTER_TRAFFIC_VIA_INGRESS";
    let scene = Scene::kube([("authkey", "k")]).await;
    let config = scene.sandbox.pod().write("etc/serve.json", r#"{"TCP":{"80":{"HTTP":true}}}"#).expect("a file");
    let scene = scene.with("TS_SERVE_CONFIG", config).with_all(&[
        KERNEL,
        (VIA, "true"),
        ("POD_IP", "10.0.0.9"),
        ("POD_IPS", "10.0.0.9,fd00::9"),
    ]);
    let rules = Rules::of(&scene);
    let boot = scene.boot();
    scene.notify(running_as("myID", "test-node.test.ts.net.", &["100.64.0.1", "fd7a::1"])).await;
    boot.ready().await;
    boot.said("installing rules to forward traffic for 10.0.0.9 to node's tailnet IP").await;
    assert_eq!(
        rules.nth(1).await,
        [
            "ip tp_pre ip daddr 10.0.0.9 dnat to 100.64.0.1 comment \"cluster-via-ingress\"",
            "ip6 tp_pre ip6 daddr fd00::9 dnat to fd7a::1 comment \"cluster-via-ingress\"",
        ]
    );
    boot.stops().await;
}

#[tokio::test]
async fn n02_only_the_current_address_is_translated() {
    let scene = Scene::kube([("authkey", "k")]).await.with_all(&[KERNEL, ("TS_DEST_IP", "1.2.3.4")]);
    let rules = Rules::of(&scene);
    let boot = scene.boot();
    scene.notify(running()).await;
    boot.ready().await;
    for (nth, own) in [(2, "100.64.0.2"), (3, "100.64.0.1")] {
        scene.notify(json!({"SelfChange": node("myID", "test-node.test.ts.net.", &[own])})).await;
        let once = [format!("ip tp_pre ip daddr {own} dnat to 1.2.3.4 comment \"ingress-ip\"")];
        assert_eq!(rules.nth(nth).await, once);
        scene.stored(|data| data["device_ips"] == format!("[\"{own}\"]")).await;
    }
    assert_eq!(rules.count(), 3);
    boot.stops().await;
}

#[tokio::test]
async fn n03_a_family_that_the_node_lacks() {
    let scene = Scene::new().await.with_all(&[KERNEL, ("TS_DEST_IP", "fd00::5")]);
    let rules = Rules::of(&scene);
    let mut boot = scene.boot();
    scene.notify(running()).await;
    let ended = boot.ends(1).await;
    assert_eq!(
        ended.last(),
        "installing ingress proxy rules: no tailscale IP matching family of fd00::5 found in [100.64.0.1/32]: the \
         node has no IPv6 address"
    );
    assert_eq!(rules.count(), 0);
}

/// And what our own metrics say.
#[tokio::test]
async fn n10_our_own_ports_stay_ours_unless_told_otherwise() {
    for (exemptions, expected) in [("own", 2), ("none", 0)] {
        let port = free_port();
        let scene = Scene::new().await.with_all(&[
            KERNEL,
            ("TS_TAILNET_TARGET_IP", "100.64.0.9"),
            ("TS_ENABLE_HEALTH_CHECK", "true"),
            ("TS_ENABLE_METRICS", "true"),
            ("TS_LOCAL_ADDR_PORT", &format!("127.0.0.1:{port}")),
            ("TS_TAILSCALED_EXTRA_ARGS", "--port=41641"),
            ("TAILPOD_EGRESS_EXEMPTIONS", exemptions),
        ]);
        let rules = Rules::of(&scene);
        let boot = scene.tailpod();
        scene.notify(running()).await;
        boot.ready().await;
        let exempt = [
            format!("ip tp_pre iifname != \"tailscale0\" tcp dport {port} accept comment \"exempt local http\""),
            "ip tp_pre iifname != \"tailscale0\" udp dport 41641 accept comment \"exempt wireguard\"".to_owned(),
        ];
        let mut wanted = exempt[..expected].to_vec();
        wanted.extend(egress("100.64.0.9", "100.64.0.1"));
        assert_eq!(rules.nth(1).await, wanted);
        let metrics = get(port, "/metrics").await.body;
        assert!(metrics.contains("tailpod_netfilter_applications_total{table=\"tailpod_l3\"} 1\n"), "{metrics}");
        boot.stops().await;
    }
}

/// What an init container has prepared is enough, and what cannot be written says who could.
#[tokio::test]
async fn n25_forwarding_that_is_on_already() {
    let sysctl = |scene: &Scene| scene.root().join("proc/sys/net/ipv4/ip_forward");
    let scene = Scene::new().await.with_all(&[KERNEL, ("TS_DEST_IP", "1.2.3.4")]);
    let read_only = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o444)).expect("permissions");
    fs::write(sysctl(&scene), "1\n").expect("a file");
    read_only(&sysctl(&scene));
    let boot = scene.boot();
    scene.notify(running()).await;
    boot.ready().await;
    assert_eq!(fs::read_to_string(sysctl(&scene)).expect("a file"), "1\n", "a write would have left no newline");
    boot.stops().await;

    // Even root cannot write this one.
    let scene = Scene::kube([("authkey", "k")]).await.with_all(&[KERNEL, ("TS_DEST_IP", "1.2.3.4")]);
    fs::remove_file(sysctl(&scene)).expect("a file");
    std::os::unix::fs::symlink("/proc/version", sysctl(&scene)).expect("a link");
    let ended = scene.boot().ends(1).await;
    assert!(ended.mentions("Failed to enable IP forwarding: enabling "), "{}", ended.text());
    assert!(
        ended.last().starts_with("you can either set the sysctls as a privileged initContainer"),
        "{}",
        ended.text()
    );
    assert_eq!(scene.daemon().commands().len(), 0);
}

#[tokio::test]
async fn a_device_that_rules_cannot_name_starts_nothing() {
    let scene = Scene::new().await.with_all(&[
        KERNEL,
        ("TS_DEST_IP", "1.2.3.4"),
        ("TS_TAILSCALED_EXTRA_ARGS", "--tun=userspace-networking"),
    ]);
    let ended = scene.boot().ends(1).await;
    assert!(ended.last().contains("--tun=\"userspace-networking\" is not a device"), "{}", ended.text());
    assert_eq!(scene.daemon().commands().len(), 0);
    let checked = scene.start("tailpod", &["boot", "--check"], &[("TS_TAILSCALED_EXTRA_ARGS", "--tun=tun7")]);
    let text = { checked }.ends(0).await.text();
    for line in [
        "add rule ip tailpod_l3 tp_pre ip daddr <IPv4 of the node> dnat to 1.2.3.4 comment \"ingress-ip\"",
        "add rule ip tailpod_l3 tp_fwd oifname \"tun7\" tcp flags",
    ] {
        assert!(text.contains(line), "{text}");
    }
}
