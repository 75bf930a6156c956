//! What LocalAPI can say about the pretend node at one moment. Pure.
//!
//! A [`View`] is fed with the messages of the IPN bus and answers `status`, `prefs`, `dns-config` and the first
//! message of a new watch from them, so the documents agree with each other. Follows upstream's
//! `ipn/backend.go`, `ipn/ipnstate/ipnstate.go` and `ipn/ipnlocal/bus.go`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::release::{Version, bit};

/// Names of the backend states, by number.
const STATES: [&str; 7] =
    ["NoState", "InUseOtherUser", "NeedsLogin", "NeedsMachineAuth", "Stopped", "Starting", "Running"];

/// The node as LocalAPI shows it.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) state: i64,
    pub(crate) self_node: Option<Value>,
    peers: BTreeMap<String, Value>,
    cert_domains: Value,
    extra_records: Value,
    warnings: Map<String, Value>,
    pub(crate) browse_to_url: Option<String>,
    pub(crate) prefs: Map<String, Value>,
    pub(crate) serve_config: Value,
    pub(crate) tun: bool,
    pub(crate) have_node_key: bool,
}

impl Default for View {
    fn default() -> Self {
        Self {
            state: 0,
            self_node: None,
            peers: BTreeMap::new(),
            cert_domains: Value::Null,
            extra_records: Value::Null,
            warnings: Map::new(),
            browse_to_url: None,
            prefs: default_prefs(),
            serve_config: Value::Null,
            tun: false,
            have_node_key: false,
        }
    }
}

impl View {
    /// Takes over what a bus message says.
    pub(crate) fn apply(&mut self, message: &Value) {
        if let Some(status) = message.get("InitialStatus").filter(|status| status.is_object()) {
            self.apply_status(status);
        }
        if let Some(netmap) = message.get("NetMap").filter(|netmap| netmap.is_object()) {
            self.set_self(netmap.get("SelfNode"));
            self.peers.clear();
            self.upsert_peers(netmap.get("Peers"));
            self.cert_domains = netmap["DNS"]["CertDomains"].clone();
            self.extra_records = netmap["DNS"]["ExtraRecords"].clone();
        }
        self.set_self(message.get("SelfChange"));
        self.upsert_peers(message.get("PeersChanged"));
        for id in array(message.get("PeersRemoved")) {
            self.peers.remove(&id.to_string());
        }
        if let Some(state) = message.get("State").and_then(Value::as_i64) {
            self.state = state;
            if state != 2 {
                self.browse_to_url = None;
            }
        }
        if let Some(url) = message.get("BrowseToURL").and_then(Value::as_str) {
            self.browse_to_url = Some(url.to_owned());
        }
        if let Some(prefs) = message.get("Prefs").and_then(Value::as_object) {
            self.prefs.clone_from(prefs);
        }
        if let Some(health) = message.get("Health").and_then(Value::as_object) {
            self.warnings = health.get("Warnings").and_then(Value::as_object).cloned().unwrap_or_default();
        }
    }

    fn apply_status(&mut self, status: &Value) {
        if let Some(state) = STATES.iter().position(|name| status["BackendState"] == **name) {
            self.state = i64::try_from(state).unwrap_or_default();
        }
        if let Some(peer) = status.get("Self").filter(|peer| peer["ID"].as_str().is_some_and(|id| !id.is_empty())) {
            self.set_self(Some(&node_of(peer)));
        }
        if let Some(peers) = status.get("Peer").and_then(Value::as_object) {
            self.peers.clear();
            let nodes: Vec<Value> = peers.values().map(node_of).collect();
            self.upsert_peers(Some(&Value::Array(nodes)));
        }
        self.cert_domains = status["CertDomains"].clone();
        self.extra_records = status["ExtraRecords"].clone();
    }

    fn set_self(&mut self, node: Option<&Value>) {
        if let Some(node) = node.filter(|node| node.is_object()) {
            self.self_node = Some(node.clone());
            self.have_node_key = true;
        }
    }

    fn upsert_peers(&mut self, nodes: Option<&Value>) {
        for node in array(nodes) {
            let key = match node["ID"].as_i64() {
                Some(id) if id != 0 => id.to_string(),
                _ => node["Name"].as_str().unwrap_or_default().to_owned(),
            };
            self.peers.insert(key, node.clone());
        }
    }

    /// Sets what `dns-config` answers.
    pub(crate) fn set_dns(&mut self, cert_domains: Value, extra_records: Value) {
        self.cert_domains = cert_domains;
        self.extra_records = extra_records;
    }

    /// What a new process knows: nothing but how it was started and what it serves.
    pub(crate) fn restart(&mut self) {
        let serve_config = std::mem::take(&mut self.serve_config);
        *self = Self { tun: self.tun, serve_config, ..Self::default() };
    }

    /// Forgets the node and its network.
    pub(crate) fn forget_node(&mut self) {
        self.self_node = None;
        self.peers.clear();
        self.set_dns(Value::Null, Value::Null);
    }

    /// Known peers, by id.
    pub(crate) fn peers(&self) -> &BTreeMap<String, Value> {
        &self.peers
    }

    /// The name of the current state.
    pub(crate) fn state_name(&self) -> &'static str {
        usize::try_from(self.state).ok().and_then(|state| STATES.get(state)).copied().unwrap_or("NoState")
    }

    /// `GET status`.
    pub(crate) fn status(&self, version: &Version, with_peers: bool) -> Value {
        let hostname = self.prefs.get("Hostname").cloned().unwrap_or_default();
        let me = match &self.self_node {
            Some(node) => peer_of(node, &hostname),
            None => json!({"ID": "", "NodeID": 0, "HostName": hostname, "DNSName": "", "TailscaleIPs": null}),
        };
        let suffix = me["DNSName"].as_str().and_then(|name| name.split_once('.')).map_or("", |(_, rest)| rest);
        let suffix = suffix.trim_end_matches('.');
        let tailnet =
            self.self_node.as_ref().map(|_| json!({"Name": suffix, "MagicDNSSuffix": suffix, "MagicDNSEnabled": true}));
        let peers: Map<String, Value> = self
            .peers
            .values()
            .map(|node| {
                (node["Key"].as_str().map_or_else(|| node_key(node), str::to_owned), peer_of(node, &Value::Null))
            })
            .collect();
        let health: Vec<&Value> = self.warnings.values().map(|warning| &warning["Text"]).collect();
        json!({
            "Version": version.long,
            "TUN": self.tun,
            "BackendState": self.state_name(),
            "HaveNodeKey": self.have_node_key,
            "AuthURL": self.browse_to_url.as_deref().unwrap_or_default(),
            "TailscaleIPs": me["TailscaleIPs"],
            "Self": me,
            "Health": if health.is_empty() { Value::Null } else { json!(health) },
            "MagicDNSSuffix": suffix,
            "CurrentTailnet": tailnet,
            "CertDomains": self.cert_domains,
            "ExtraRecords": self.extra_records,
            "Peer": if with_peers && !peers.is_empty() { Value::Object(peers) } else { Value::Null },
            "User": null,
            "ClientVersion": null,
        })
    }

    /// `GET dns-config`; `None` before the first netmap.
    pub(crate) fn dns_config(&self) -> Option<Value> {
        self.self_node.as_ref()?;
        let mut dns = Map::new();
        dns.insert("Proxied".to_owned(), true.into());
        for (name, value) in [("CertDomains", &self.cert_domains), ("ExtraRecords", &self.extra_records)] {
            if !value.is_null() {
                dns.insert(name.to_owned(), value.clone());
            }
        }
        Some(dns.into())
    }

    /// The first message of a new watch, if its mask asks for one.
    pub(crate) fn first_message(&self, mask: u64, version: &Version, session: &str) -> Option<Value> {
        let asks = bit::INITIAL_STATE | bit::INITIAL_PREFS | bit::INITIAL_NETMAP;
        let with_status = version.has_initial_status() && mask & bit::INITIAL_STATUS != 0;
        if mask & asks == 0 && !with_status {
            return None;
        }
        let mut message = empty_message(version);
        if mask & bit::INITIAL_STATE != 0 {
            message["SessionID"] = session.into();
            message["State"] = self.state.into();
            if self.state == 2 {
                message["BrowseToURL"] = json!(self.browse_to_url);
            }
        }
        if mask & bit::INITIAL_PREFS != 0 {
            message["Prefs"] = Value::Object(self.prefs.clone());
        }
        if mask & bit::INITIAL_NETMAP != 0 {
            message["NetMap"] = self.netmap();
            if let Some(node) = self.self_node.as_ref().filter(|_| version.has_initial_status()) {
                message["SelfChange"] = node.clone();
            }
        }
        if mask & bit::INITIAL_HEALTH != 0 && version.minor >= 70 {
            message["Health"] = self.health();
        }
        if with_status {
            let with_peers = version.minor < 104 || mask & (bit::PEER_CHANGES | bit::PEER_PATCHES) != 0;
            message["InitialStatus"] = self.status(version, with_peers);
        }
        Some(message)
    }

    /// `Notify.NetMap`; null before the first one.
    pub(crate) fn netmap(&self) -> Value {
        self.self_node.as_ref().map_or(Value::Null, |node| {
            json!({
                "SelfNode": node,
                "Peers": self.peers.values().collect::<Vec<_>>(),
                "DNS": self.dns_config(),
                "UserProfiles": {},
            })
        })
    }

    /// `Notify.Health`.
    pub(crate) fn health(&self) -> Value {
        json!({"Warnings": if self.warnings.is_empty() { Value::Null } else { Value::Object(self.warnings.clone()) }})
    }

    /// `PATCH prefs`: takes over each member whose `…Set` flag is true.
    pub(crate) fn patch_prefs(&mut self, masked: &Map<String, Value>) -> Result<(), String> {
        if masked.get("InternalExitNodePriorSet") == Some(&Value::Bool(true)) {
            return Err("can't set InternalExitNodePrior".to_owned());
        }
        for (name, flag) in masked {
            let Some(field) = name.strip_suffix("Set") else { continue };
            match flag {
                Value::Bool(true) => {
                    let value = masked.get(field).cloned();
                    let value = value.unwrap_or_else(|| zero_like(self.prefs.get(field).unwrap_or(&Value::Null)));
                    self.prefs.insert(field.to_owned(), value);
                }
                Value::Object(flags) => {
                    let current = self.prefs.entry(field).or_insert_with(|| json!({}));
                    for inner in flags.iter().filter(|(_, flag)| **flag == true).map(|(name, _)| name) {
                        let inner = inner.trim_end_matches("Set");
                        current[inner] = masked.get(field).map_or(Value::Null, |value| value[inner].clone());
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// A `Notify` that says nothing: the members that are always there.
pub(crate) fn empty_message(version: &Version) -> Value {
    json!({
        "Version": version.long, "ErrMessage": null, "LoginFinished": null, "State": null, "Prefs": null,
        "NetMap": null, "Engine": null, "BrowseToURL": null, "DriveShares": null,
    })
}

/// Completes a message with the members that are always there.
pub(crate) fn complete(message: &Value, version: &Version) -> Value {
    let mut whole = empty_message(version);
    if let (Some(whole), Some(message)) = (whole.as_object_mut(), message.as_object()) {
        whole.extend(message.clone());
    }
    whole
}

fn array(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn zero_like(value: &Value) -> Value {
    match value {
        Value::Bool(_) => false.into(),
        Value::Number(_) => 0.into(),
        Value::String(_) => "".into(),
        _ => Value::Null,
    }
}

fn node_key(node: &Value) -> String {
    let id = node["ID"].as_u64().unwrap_or_default();
    format!("nodekey:{id:064x}")
}

/// `tailcfg.Node` of an `ipnstate.PeerStatus`.
fn node_of(peer: &Value) -> Value {
    let ips = array(peer.get("TailscaleIPs")).iter().filter_map(Value::as_str);
    let addresses: Vec<String> =
        ips.map(|ip| if ip.contains(':') { format!("{ip}/128") } else { format!("{ip}/32") }).collect();
    let mut node = json!({
        "ID": peer["NodeID"].as_i64().unwrap_or_default(),
        "StableID": peer["ID"],
        "Name": peer["DNSName"],
        "Addresses": addresses,
    });
    for (to, from) in
        [("AllowedIPs", "AllowedIPs"), ("KeyExpiry", "KeyExpiry"), ("Expired", "Expired"), ("Key", "PublicKey")]
    {
        if let Some(value) = peer.get(from).filter(|value| !value.is_null()) {
            node[to] = value.clone();
        }
    }
    node
}

/// `ipnstate.PeerStatus` of a `tailcfg.Node`.
fn peer_of(node: &Value, hostname: &Value) -> Value {
    let name = node["Name"].as_str().unwrap_or_default();
    let ips: Vec<&str> = array(node.get("Addresses"))
        .iter()
        .filter_map(Value::as_str)
        .map(|prefix| prefix.split('/').next().unwrap_or_default())
        .collect();
    let first_label = name.split('.').next().unwrap_or_default();
    let mut peer = json!({
        "ID": node["StableID"],
        "NodeID": node["ID"],
        "PublicKey": node["Key"].as_str().map_or_else(|| node_key(node), str::to_owned),
        "HostName": hostname.as_str().filter(|name| !name.is_empty()).unwrap_or(first_label),
        "DNSName": name,
        "OS": "linux",
        "UserID": node["User"].as_i64().unwrap_or_default(),
        "TailscaleIPs": ips,
        "AllowedIPs": node.get("AllowedIPs").unwrap_or(&node["Addresses"]),
        "Relay": "",
        "CurAddr": "",
        "Online": true,
    });
    for name in ["KeyExpiry", "Expired", "Tags", "PrimaryRoutes", "CapMap"] {
        if let Some(value) = node.get(name).filter(|value| !value.is_null()) {
            peer[name] = value.clone();
        }
    }
    peer
}

/// The prefs of a daemon that has never been configured.
fn default_prefs() -> Map<String, Value> {
    let prefs = json!({
        "ControlURL": "https://controlplane.tailscale.com", "RouteAll": false, "ExitNodeID": "", "ExitNodeIP": "",
        "InternalExitNodePrior": "", "ExitNodeAllowLANAccess": false, "CorpDNS": true, "RunSSH": false,
        "RunWebClient": false, "WantRunning": false, "LoggedOut": false, "ShieldsUp": false, "AdvertiseTags": null,
        "Hostname": "", "NotepadURLs": false, "AdvertiseRoutes": null, "AdvertiseServices": null, "Sync": null,
        "NoSNAT": false, "NoStatefulFiltering": true, "NetfilterMode": 2, "AutoUpdate": {"Check": true, "Apply": null},
        "AppConnector": {"Advertise": false}, "PostureChecking": false, "NetfilterKind": "", "RemoteConfig": false,
        "DriveShares": null, "Config": null,
    });
    prefs.as_object().cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running() -> Value {
        json!({
            "State": 6,
            "SelfChange": {"ID": 1, "StableID": "myID", "Name": "test-node.test.ts.net.", "Addresses": ["100.64.0.1/32"]},
            "InitialStatus": {
                "BackendState": "Running", "CertDomains": ["test-node.test.ts.net"],
                "Self": {"ID": "myID", "NodeID": 1, "DNSName": "test-node.test.ts.net.", "TailscaleIPs": ["100.64.0.1"]},
                "Peer": {"nodekey:0": {"ID": "p", "NodeID": 2, "DNSName": "foo.test.ts.net.", "TailscaleIPs": ["fd7a::2"]}},
            },
        })
    }

    #[test]
    fn status_agrees_with_the_bus() {
        let (mut view, version) = (View::default(), Version::new("1.102.5"));
        assert_eq!(view.status(&version, true)["Self"]["ID"], "");
        assert!(view.dns_config().is_none(), "no netmap yet");
        view.apply(&running());
        let status = view.status(&version, true);
        assert_eq!(status["BackendState"], "Running");
        assert_eq!(status["Self"]["TailscaleIPs"], json!(["100.64.0.1"]));
        assert_eq!(status["MagicDNSSuffix"], "test.ts.net");
        let peer = status["Peer"].as_object().and_then(|peers| peers.values().next()).cloned();
        assert_eq!(peer.expect("one peer")["TailscaleIPs"], json!(["fd7a::2"]));
        assert!(view.status(&version, false)["Peer"].is_null());
        assert_eq!(view.dns_config().expect("a netmap")["CertDomains"], json!(["test-node.test.ts.net"]));
        view.apply(&json!({"PeersRemoved": [2]}));
        assert!(view.status(&version, true)["Peer"].is_null());
    }

    #[test]
    fn the_first_message_has_what_the_mask_asks_for() {
        let mut view = View::default();
        view.apply(&running());
        let (old, new) = (Version::new("1.96.1"), Version::new("1.102.5-tabc"));
        assert!(view.first_message(bit::INITIAL_HEALTH, &new, "s").is_none(), "health alone causes no message");
        assert!(view.first_message(bit::INITIAL_STATUS, &old, "s").is_none());
        let first = view.first_message(28804, &new, "s").expect("a message");
        assert_eq!(first["InitialStatus"]["BackendState"], "Running");
        assert!(first["State"].is_null() && first["Prefs"].is_object() && first["Health"].is_object());
        let first = view.first_message(26, &old, "s").expect("a message");
        assert_eq!(first["NetMap"]["SelfNode"]["StableID"], "myID");
        assert_eq!(first["State"], 6);
        assert!(first.get("SelfChange").is_none());
    }

    #[test]
    fn a_patch_changes_only_what_its_mask_names() {
        let mut view = View::default();
        let masked = json!({
            "Hostname": "a", "HostnameSet": true, "CorpDNS": false, "RunSSH": true, "RunSSHSet": false,
            "AdvertiseServices": null, "AdvertiseServicesSet": true,
            "AutoUpdate": {"Check": false}, "AutoUpdateSet": {"CheckSet": true},
        });
        view.patch_prefs(masked.as_object().expect("an object")).expect("accepted");
        assert_eq!(
            (&view.prefs["Hostname"], &view.prefs["CorpDNS"], &view.prefs["RunSSH"]),
            (&json!("a"), &json!(true), &json!(false))
        );
        assert_eq!(view.prefs["AutoUpdate"], json!({"Check": false, "Apply": null}));
        let refused = json!({"InternalExitNodePriorSet": true});
        assert!(view.patch_prefs(refused.as_object().expect("an object")).is_err());
    }
}
