//! Replicas of HA groups through the front door: the acceptance scenarios of ha-services.md 10 under their own numbers.
//!
//! The firewall is the one in memory, whose scripts are files. What takes seconds or minutes runs on a paused clock,
//! beside the code: drains in `src/proxygroup/drain`, grace, linger, polling and outages in `src/proxygroup/follow`.

mod check;
mod drain;
mod egress;
mod ingress;
mod trouble;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tailpod::filewatch::FileWatch;
use tailpod::sandbox::Volume;
use tokio::time::timeout;

use crate::support::{Boot, SOON, Scene, free_port};

/// What the operator sets on every replica.
const VARS: [(&str, &str); 6] = [
    ("POD_IPS", "10.42.0.7,fd42::7"),
    ("POD_NAME", "group-0"),
    ("POD_UID", "uid-of-pod"),
    ("TS_ENABLE_HEALTH_CHECK", "true"),
    ("TS_EXPERIMENTAL_SERVICE_AUTO_ADVERTISEMENT", "false"),
    ("TS_TEST_FAKE_NETFILTER", "true"),
];

/// Where the operator mounts the config.
const PROXIES: &str = "etc/proxies";

/// A replica, not started yet.
struct Replica {
    scene: Scene,
    files: Volume,
    port: u16,
    table: &'static str,
    key: &'static str,
}

impl Replica {
    /// Of an egress group with this config.
    async fn egress(config: &Value) -> Self {
        let group = Self::new("TS_EGRESS_PROXIES_CONFIG_PATH", "", "tailpod_egress", "egress-services").await;
        group.configure(config);
        group
    }

    /// Of an ingress group with this config.
    async fn ingress(config: &Value) -> Self {
        let (file, key) = ("ingress-config.json", "ingress-config.json");
        let group = Self::new("TS_INGRESS_PROXIES_CONFIG_PATH", file, "tailpod_ingress", key).await;
        group.configure(config);
        group
    }

    async fn new(var: &str, file: &str, table: &'static str, key: &'static str) -> Self {
        let scene = Scene::kube([("authkey", "k")]).await;
        let files = scene.sandbox.pod().volume(PROXIES);
        fs::create_dir_all(files.path()).unwrap();
        fs::create_dir(scene.root().join("netfilter")).unwrap();
        let port = free_port();
        let path = if file.is_empty() { files.path().to_owned() } else { files.path().join(file) };
        let scene = scene.with_all(&VARS).with(var, path).with("TS_LOCAL_ADDR_PORT", format!("[::]:{port}"));
        Self { scene, files, port, table, key }
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.scene = self.scene.with(name, value);
        self
    }

    /// Publishes another config, as the kubelet does.
    fn configure(&self, config: &Value) {
        self.publish(&[(self.key, &config.to_string())]);
    }

    /// Publishes these files.
    fn publish(&self, files: &[(&str, &str)]) {
        self.files.set(files).unwrap();
    }

    /// Starts it as `containerboot`, and lets it see this tailnet.
    async fn up(&self, netmap: Value) -> Boot {
        self.run(self.scene.boot(), netmap).await
    }

    async fn run(&self, boot: Boot, netmap: Value) -> Boot {
        self.scene.notify(netmap).await;
        boot.ready().await;
        boot
    }

    /// What the operator reads.
    fn status(&self) -> Option<String> {
        self.scene.data().get(self.key).cloned()
    }

    /// Waits until the operator reads something that satisfies `wanted`.
    async fn reports(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let read = |text: &String| serde_json::from_str::<Value>(text).unwrap();
        let data = self.scene.stored(|data| data.get(self.key).is_some_and(|text| wanted(&read(text)))).await;
        read(&data[self.key])
    }

    /// How often the report was written.
    fn writes(&self) -> usize {
        let path = format!("/data/{}", self.key);
        let names = |body: &Value| body.as_array().is_some_and(|ops| ops.iter().any(|op| op["path"] == path.as_str()));
        self.scene.requests("PATCH").iter().filter(|request| names(&request.body)).count()
    }

    /// The scripts that were applied to the group's table, in order.
    fn scripts(&self) -> Vec<String> {
        let mut scripts = Vec::new();
        while let Ok(script) = fs::read_to_string(self.script(scripts.len() + 1)) {
            scripts.push(script);
        }
        scripts
    }

    fn script(&self, nth: usize) -> PathBuf {
        self.scene.root().join("netfilter").join(format!("{}.{nth}", self.table))
    }

    /// Waits for the script with this number.
    async fn applied(&self, nth: usize) -> String {
        let path = self.script(nth);
        let mut watch = FileWatch::new(&path);
        let seen = timeout(SOON, async {
            loop {
                if let Ok(script) = fs::read_to_string(&path) {
                    return script;
                }
                watch.changed(Duration::from_secs(1)).await;
            }
        });
        seen.await.unwrap_or_else(|_| panic!("no {} within {SOON:?}", path.display()))
    }

    /// What the newest script translates.
    fn rules(&self) -> Vec<String> {
        self.scripts().last().map(|script| elements(script)).unwrap_or_default()
    }

    /// Makes the kernel refuse everything, in these words; nothing ends that.
    fn refuse(&self, words: &str) {
        let file = self.scene.root().join("netfilter/refuse");
        match words {
            "" => fs::remove_file(file).unwrap(),
            words => fs::write(file, words).unwrap(),
        }
    }
}

/// The elements of a script's maps, without comments: `tcp . 10345 : 100.64.0.2 . 80`, `100.100.1.1 : 10.43.7.9`.
fn elements(script: &str) -> Vec<String> {
    let element = |line: &str| {
        let inner = line.strip_prefix("add element ")?.split_once("{ ")?.1.strip_suffix(" }")?;
        let (key, rest) = inner.split_once(" comment ")?;
        Some(format!("{key} : {}", rest.rsplit_once("\" : ")?.1))
    };
    script.lines().filter_map(element).collect()
}

/// The sources of translated flows in a script.
fn sources(script: &str) -> Vec<&str> {
    script.lines().filter_map(|line| Some(line.split_once(" snat to ")?.1)).collect()
}

// === What the operator writes ===

/// An egress Service without a health check endpoint.
fn service(target: &str, ports: &[(&str, u16, u16)]) -> Value {
    let ports: Vec<_> = ports
        .iter()
        .map(|(protocol, from, to)| json!({ "protocol": protocol, "matchPort": from, "targetPort": to }))
        .collect();
    let is_ip = target.parse::<std::net::IpAddr>().is_ok();
    let (ip, fqdn) = if is_ip { (target, "") } else { ("", target) };
    json!({ "healthCheckEndpoint": "", "tailnetTarget": { "ip": ip, "fqdn": fqdn }, "ports": ports })
}

/// The same with an endpoint.
fn checked(url: &str, service: &Value) -> Value {
    let mut service = service.clone();
    service["healthCheckEndpoint"] = url.into();
    service
}

/// An ingress Service with these mappings; an empty pair is none.
fn mappings(v4: (&str, &str), v6: (&str, &str)) -> Value {
    let mut service = Map::new();
    for (name, (from, to)) in [("IPv4Mapping", v4), ("IPv6Mapping", v6)] {
        if (from, to) != ("", "") {
            service.insert(name.to_owned(), json!({ "TailscaleServiceIP": from, "ClusterIP": to }));
        }
    }
    service.into()
}

// === What the tailnet shows ===

/// `RUN` with these own addresses and peers, each with a name, its addresses and the other prefixes it is routed.
fn netmap(own: &[&str], peers: &[(&str, &[&str], &[&str])]) -> Value {
    let host = |ip: &&str| format!("{ip}/{}", if ip.contains(':') { 128 } else { 32 });
    let peer = |(nth, (name, addresses, routed)): (usize, &(&str, &[&str], &[&str]))| {
        let allowed: Vec<_> =
            addresses.iter().map(host).chain(routed.iter().map(|prefix| (*prefix).to_owned())).collect();
        let id = nth + 2;
        let status = json!({
            "ID": format!("peer{id}"), "NodeID": id, "DNSName": name, "TailscaleIPs": addresses, "AllowedIPs": allowed,
        });
        (format!("nodekey:{id}"), status)
    };
    let peers: BTreeMap<String, Value> = peers.iter().enumerate().map(peer).collect();
    json!({
        "State": 6,
        "InitialStatus": {
            "BackendState": "Running",
            "Self": { "ID": "myID", "NodeID": 1, "DNSName": "group-0.test.ts.net.", "TailscaleIPs": own },
            "Peer": peers,
        },
    })
}

/// `RUN` with a node that has an address of each family, and one peer.
fn with_peer(name: &str, addresses: &[&str]) -> Value {
    netmap(&["100.64.0.1", "fd7a:115c:a1e0::1"], &[(name, addresses, &[])])
}

/// A peer with other addresses than before.
fn moved(id: u64, name: &str, addresses: &[&str]) -> Value {
    let prefixes: Vec<_> =
        addresses.iter().map(|ip| format!("{ip}/{}", if ip.contains(':') { 128 } else { 32 })).collect();
    json!({ "PeersChanged": [{ "ID": id, "Name": name, "Addresses": prefixes, "AllowedIPs": prefixes }] })
}
