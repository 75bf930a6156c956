//! The node of automatic mode: identity, login, and what follows from them. Pure.
//!
//! Whatever happens (a start, a key, a wish of control's), the same function decides which state the node is in
//! and which messages the bus carries to get there. Identity is written under the keys of tailscaled's own state
//! store (`ipn/store.go`, `ipn/ipnlocal/profiles.go`), so it survives restarts wherever the store is.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::release::Version;
use super::tailnet::{Answer, Registration, Standing, Tailnet};
use super::view::View;
use crate::digest::sha256_hex;
use crate::secret::Secret;

/// A state store's content.
pub(crate) type State = BTreeMap<String, Vec<u8>>;

const NEEDS_LOGIN: i64 = 2;
const NEEDS_MACHINE_AUTH: i64 = 3;
const STOPPED: i64 = 4;
const STARTING: i64 = 5;
const RUNNING: i64 = 6;

/// What a tailscaled config file says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Config {
    pub(crate) auth_key: Option<Secret<String>>,
    prefs: Map<String, Value>,
}

impl Config {
    /// Takes what it knows from a decoded file.
    pub(crate) fn from_file(file: &Value) -> Self {
        let mut prefs = Map::new();
        for (from, to) in [
            ("Hostname", "Hostname"),
            ("AcceptDNS", "CorpDNS"),
            ("AcceptRoutes", "RouteAll"),
            ("AdvertiseRoutes", "AdvertiseRoutes"),
            ("AdvertiseServices", "AdvertiseServices"),
            ("ServerURL", "ControlURL"),
            ("ShieldsUp", "ShieldsUp"),
        ] {
            if let Some(value) = member(file, from).filter(|value| !value.is_null()) {
                prefs.insert(to.to_owned(), value.clone());
            }
        }
        let enabled = member(file, "Enabled") != Some(&Value::Bool(false));
        prefs.insert("WantRunning".to_owned(), enabled.into());
        let auth_key = member(file, "AuthKey").and_then(Value::as_str).filter(|key| !key.is_empty());
        Self { auth_key: auth_key.map(|key| Secret::new(key.to_owned())), prefs }
    }
}

/// A member of a config file, found as Go finds it: by name, whatever the case.
pub(crate) fn member<'a>(file: &'a Value, name: &str) -> Option<&'a Value> {
    let mut members = file.as_object()?.iter();
    members.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

#[derive(Clone, Debug)]
struct Identity {
    profile: String,
    node_key: String,
    stable_id: String,
}

/// The automatic node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    machine_key: Option<String>,
    identity: Option<Identity>,
    auth_key: Option<Secret<String>>,
    login_error: Option<String>,
    login_url: Option<String>,
    disconnected: bool,
}

/// The world a decision is made in.
pub(crate) struct World<'a> {
    pub(crate) tailnet: &'a mut Tailnet,
    pub(crate) view: &'a mut View,
    pub(crate) version: &'a Version,
    pub(crate) now: Timestamp,
}

impl Node {
    /// A daemon starts with what its store and config file hold.
    pub(crate) fn start(state: &State, config: Option<&Config>, world: &mut World<'_>) -> (Self, Vec<Value>) {
        let text = |key: &str| state.get(key).map(|value| String::from_utf8_lossy(value).into_owned());
        let prefs = text("_current-profile").and_then(|profile| {
            let prefs: Map<String, Value> = serde_json::from_slice(state.get(&profile)?).ok()?;
            Some((profile, prefs))
        });
        let mut node = Self { machine_key: text("_machinekey"), ..Self::default() };
        world.view.restart();
        if let Some((profile, prefs)) = prefs {
            let persisted = &prefs["Config"];
            node.identity = persisted["PrivateNodeKey"].as_str().map(|key| Identity {
                profile,
                node_key: key.to_owned(),
                stable_id: persisted["NodeID"].as_str().unwrap_or_default().to_owned(),
            });
            world.view.prefs = prefs;
            world.view.prefs.insert("Config".to_owned(), node.shown_config());
        }
        if let Some(config) = config {
            world.view.prefs.extend(config.prefs.clone());
            node.auth_key.clone_from(&config.auth_key);
        }
        let messages = node.settle(world);
        (node, messages)
    }

    /// Takes over a re-read config file.
    pub(crate) fn reload(&mut self, config: &Config, world: &mut World<'_>) -> Vec<Value> {
        world.view.prefs.extend(config.prefs.clone());
        self.auth_key.clone_from(&config.auth_key);
        let mut messages = vec![json!({"Prefs": world.view.prefs})];
        messages.extend(self.sync(world));
        messages
    }

    /// `start`: takes over a key. Like the real daemon, a node that has been somebody before uses it at once if it
    /// must, one that has not waits for [`Node::login_interactive`].
    pub(crate) fn restart(&mut self, key: Option<Secret<String>>, world: &mut World<'_>) -> Vec<Value> {
        self.auth_key = key.or_else(|| self.auth_key.take());
        self.disconnected = false;
        if self.identity.is_some() { self.settle(world) } else { self.sync(world) }
    }

    /// Asks control for a login if one is needed; without a key that yields a URL.
    pub(crate) fn login_interactive(&mut self, world: &mut World<'_>) -> Vec<Value> {
        let mut messages = if self.needs_login(world) { self.register(world) } else { Vec::new() };
        messages.extend(self.sync(world));
        messages
    }

    /// Something changed at control.
    pub(crate) fn hear(&mut self, world: &mut World<'_>) -> Vec<Value> {
        let visited = self.login_url.as_deref().is_some_and(|url| world.tailnet.was_visited(url));
        if visited && !self.disconnected { self.login_interactive(world) } else { self.sync(world) }
    }

    /// Gives the identity up.
    pub(crate) fn logout(&mut self, world: &mut World<'_>) -> Vec<Value> {
        if let Some(identity) = self.identity.take() {
            world.tailnet.delete(&identity.stable_id);
        }
        self.auth_key = None;
        world.view.prefs.insert("LoggedOut".to_owned(), true.into());
        world.view.prefs.insert("Config".to_owned(), Value::Null);
        self.sync(world)
    }

    /// Leaves control alone until the next login or start.
    pub(crate) fn disconnect(&mut self) {
        self.disconnected = true;
    }

    /// Why the last login failed.
    pub(crate) fn login_error(&self) -> Option<&str> {
        self.login_error.as_deref()
    }

    /// Where somebody has to go for this node.
    pub(crate) fn login_url(&self) -> Option<&str> {
        self.login_url.as_deref()
    }

    /// Logs in if that is needed and a key is at hand, then says what changed.
    fn settle(&mut self, world: &mut World<'_>) -> Vec<Value> {
        let usable = self.needs_login(world) && self.auth_key.is_some();
        let mut messages = if usable { self.register(world) } else { Vec::new() };
        messages.extend(self.sync(world));
        messages
    }

    fn needs_login(&self, world: &World<'_>) -> bool {
        matches!(self.standing(world), Standing::Unknown | Standing::Expired(_))
    }

    /// One registration at control.
    fn register(&mut self, world: &mut World<'_>) -> Vec<Value> {
        let machine_key = match &self.machine_key {
            Some(key) => key.clone(),
            None => format!("privkey:{}", world.tailnet.fresh("machine")),
        };
        self.machine_key = Some(machine_key.clone());
        let node_key = format!("privkey:{}", world.tailnet.fresh("node"));
        let text = |name: &str| world.view.prefs.get(name).and_then(Value::as_str).unwrap_or_default();
        let hostname = match text("Hostname") {
            "" => "sandbox".to_owned(),
            name => name.to_owned(),
        };
        let tags = world.view.prefs.get("AdvertiseTags").and_then(Value::as_array);
        let tags: Vec<String> = tags.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        let asked = Registration {
            machine_key: &public("mkey", &machine_key),
            node_key: &public("nodekey", &node_key),
            hostname: &hostname,
            auth_key: self.auth_key.as_ref().map(|key| key.expose().as_str()),
            tags: &tags,
            visited: self.login_url.as_deref(),
        };
        let messages = match world.tailnet.register(&asked, world.now) {
            Ok(Answer::In(device)) => {
                let profile = self.identity.take().map(|identity| identity.profile);
                let profile = profile.unwrap_or_else(|| format!("profile-{}", &sha256_hex(node_key.as_bytes())[..4]));
                self.identity = Some(Identity { profile, node_key, stable_id: device.stable_id });
                (self.login_error, self.login_url) = (None, None);
                let prefs = &mut world.view.prefs;
                prefs.insert("LoggedOut".to_owned(), false.into());
                prefs.insert("WantRunning".to_owned(), true.into());
                prefs.insert("Config".to_owned(), self.shown_config());
                vec![json!({"LoginFinished": {}, "Prefs": prefs, "Health": {"Warnings": null}})]
            }
            Ok(Answer::Visit(url)) => {
                self.login_url = Some(url.clone());
                vec![json!({"State": NEEDS_LOGIN}), json!({"BrowseToURL": url})]
            }
            Err(error) => {
                let warning = json!({
                    "WarnableCode": "login-state",
                    "Severity": "medium",
                    "Title": "Logged out",
                    "Text": format!("You are logged out. The last login error was: {error}"),
                    "BrokenSince": world.now.to_string(),
                    "Args": {"error": error},
                });
                self.login_error = Some(error.clone());
                let warnings = json!({"Warnings": {"login-state": warning}});
                vec![json!({"State": NEEDS_LOGIN}), json!({"ErrMessage": error, "Health": warnings})]
            }
        };
        for message in &messages {
            world.view.apply(message);
        }
        messages
    }

    fn standing(&self, world: &World<'_>) -> Standing {
        self.identity.as_ref().map_or(Standing::Unknown, |identity| {
            world.tailnet.standing(&public("nodekey", &identity.node_key), world.now)
        })
    }

    /// The messages from what the bus last said to what is true now.
    pub(crate) fn sync(&mut self, world: &mut World<'_>) -> Vec<Value> {
        if self.disconnected {
            return Vec::new();
        }
        let wants = world.view.prefs.get("WantRunning") == Some(&Value::Bool(true));
        let (state, device) = match self.standing(world) {
            Standing::Unknown => (NEEDS_LOGIN, None),
            Standing::Expired(device) => (NEEDS_LOGIN, Some(device)),
            Standing::Pending(device) => (NEEDS_MACHINE_AUTH, Some(device)),
            Standing::Good(device) if wants => (RUNNING, Some(device)),
            Standing::Good(device) => (STOPPED, Some(device)),
        };
        world.view.have_node_key = self.identity.is_some();
        let mut messages = Vec::new();
        if state == RUNNING && world.view.state != RUNNING {
            messages.push(json!({"State": STARTING}));
        }
        match device {
            Some(device) => {
                let node = device.node(world.now);
                world.view.set_dns(json!(world.tailnet.cert_domains(&device)), Value::Null);
                let peers = self.peer_changes(world);
                if world.view.self_node.as_ref() != Some(&node) {
                    messages.push(json!({"SelfChange": node}));
                }
                messages.extend(peers);
            }
            None => world.view.forget_node(),
        }
        if world.view.state != state {
            messages.push(json!({"State": state}));
        }
        for message in &mut messages {
            world.view.apply(message);
            let is_change = ["SelfChange", "PeersChanged", "PeersRemoved"].iter().any(|name| !message[name].is_null());
            // Older daemons send the whole netmap for every change; who did not ask for it does not get it.
            if is_change && !world.version.has_initial_status() {
                message["NetMap"] = world.view.netmap();
            }
        }
        messages
    }

    fn peer_changes(&self, world: &World<'_>) -> Option<Value> {
        let me = self.identity.as_ref().map(|identity| identity.stable_id.as_str()).unwrap_or_default();
        let wanted: BTreeMap<String, Value> = world
            .tailnet
            .devices()
            .iter()
            .filter(|device| device.stable_id != me && device.approved)
            .map(|device| (device.id.to_string(), device.node(world.now)))
            .collect();
        let known = world.view.peers();
        let changed: Vec<&Value> =
            wanted.iter().filter(|(id, node)| known.get(*id) != Some(*node)).map(|(_, node)| node).collect();
        let gone = known.keys().filter(|id| !wanted.contains_key(*id)).filter_map(|id| id.parse().ok());
        let gone: Vec<i64> = gone.collect();
        let mut message = Map::new();
        if !changed.is_empty() {
            message.insert("PeersChanged".to_owned(), json!(changed));
        }
        if !gone.is_empty() {
            message.insert("PeersRemoved".to_owned(), json!(gone));
        }
        (!message.is_empty()).then(|| message.into())
    }

    /// `Prefs.Config` as LocalAPI shows it: private keys zeroed.
    fn shown_config(&self) -> Value {
        self.identity.as_ref().map_or(Value::Null, |identity| {
            json!({
                "PrivateNodeKey": format!("privkey:{}", "0".repeat(64)),
                "NodeID": identity.stable_id,
                "UserProfile": user_profile(),
            })
        })
    }

    /// What the store shall hold; keys it does not name are to be removed.
    pub(crate) fn state(&self, prefs: &Map<String, Value>) -> State {
        let mut state = State::new();
        if let Some(key) = &self.machine_key {
            state.insert("_machinekey".to_owned(), key.clone().into_bytes());
        }
        let Some(identity) = &self.identity else { return state };
        let mut persisted = prefs.clone();
        persisted.insert(
            "Config".to_owned(),
            json!({
                "PrivateNodeKey": identity.node_key,
                "NodeID": identity.stable_id,
                "UserProfile": user_profile(),
            }),
        );
        let id = identity.profile.trim_start_matches("profile-");
        let profiles = json!({id: {
            "ID": id, "Name": "sandbox", "Key": identity.profile, "NodeID": identity.stable_id,
            "UserProfile": user_profile(), "ControlURL": prefs.get("ControlURL"),
        }});
        state.insert(identity.profile.clone(), Value::Object(persisted).to_string().into_bytes());
        state.insert("_profiles".to_owned(), profiles.to_string().into_bytes());
        state.insert("_current-profile".to_owned(), identity.profile.clone().into_bytes());
        state
    }
}

/// Whether a key of a state store is one that [`Node::state`] manages.
pub(crate) fn is_identity_key(key: &str) -> bool {
    ["_machinekey", "_current-profile", "_profiles"].contains(&key) || key.starts_with("profile-")
}

/// The pretend public half of a pretend private key.
fn public(kind: &str, private: &str) -> String {
    format!("{kind}:{}", sha256_hex(private.as_bytes()))
}

fn user_profile() -> Value {
    json!({"ID": 1, "LoginName": "operator@sandbox", "DisplayName": "Operator"})
}

#[cfg(test)]
mod tests {
    use super::super::tailnet::KeyOptions;
    use super::*;

    /// A daemon with its tailnet, driven by hand.
    struct Lab {
        tailnet: Tailnet,
        view: View,
        node: Node,
        version: Version,
        now: Timestamp,
        state: State,
    }

    impl Lab {
        fn new(version: &str) -> Self {
            Self {
                tailnet: Tailnet::default(),
                view: View::default(),
                node: Node::default(),
                version: Version::new(version),
                now: Timestamp::from_second(1_800_000_000).expect("a time"),
                state: State::new(),
            }
        }

        fn key(&mut self) -> Secret<String> {
            self.tailnet.issue(KeyOptions::default())
        }

        fn does(&mut self, act: impl FnOnce(&mut Node, &mut World<'_>) -> Vec<Value>) -> Vec<Value> {
            let mut world =
                World { tailnet: &mut self.tailnet, view: &mut self.view, version: &self.version, now: self.now };
            let messages = act(&mut self.node, &mut world);
            self.state = self.node.state(&self.view.prefs);
            messages
        }

        /// The process ends and starts again with a config file that has this key.
        fn starts(&mut self, key: Option<&Secret<String>>) -> Vec<Value> {
            let config = key.map(|key| Config::from_file(&json!({"AuthKey": key.expose(), "Hostname": "web"})));
            let state = self.state.clone();
            self.does(|node, world| {
                let (started, messages) = Node::start(&state, config.as_ref(), world);
                *node = started;
                messages
            })
        }
    }

    fn states(messages: &[Value]) -> Vec<i64> {
        messages.iter().filter_map(|message| message["State"].as_i64()).collect()
    }

    #[test]
    fn a_config_file_with_a_good_key_brings_the_node_up_and_it_stays_itself() {
        let mut lab = Lab::new("1.102.5");
        let key = lab.key();
        let messages = lab.starts(Some(&key));
        assert_eq!(states(&messages), [5, 6]);
        let id = lab.view.self_node.clone().expect("a node")["StableID"].clone();
        let keys: Vec<&str> = lab.state.keys().map(String::as_str).collect();
        assert!(
            matches!(keys[..], ["_current-profile", "_machinekey", "_profiles", profile] if profile.starts_with("profile-"))
        );
        assert!(!lab.view.prefs["Config"].to_string().contains("privkey:1"), "LocalAPI shows no private key");

        // The key is used up; the identity is not.
        assert_eq!(states(&lab.starts(Some(&key))), [5, 6]);
        assert_eq!(lab.view.self_node.as_ref().expect("a node")["StableID"], id);
    }

    #[test]
    fn a_dead_identity_and_a_dead_key_are_reported_as_a_failed_login() {
        let mut lab = Lab::new("1.102.5");
        let key = lab.key();
        lab.starts(Some(&key));
        let now = lab.now;
        assert!(lab.tailnet.expire_device("web", now) && lab.tailnet.revoke(key.expose()));
        let messages = lab.does(Node::hear);
        assert_eq!(states(&messages), [2]);
        assert_eq!(messages[0]["SelfChange"]["Expired"], true);

        let messages = lab.starts(Some(&key));
        let error =
            messages.iter().find_map(|message| message["Health"]["Warnings"]["login-state"]["Args"]["error"].as_str());
        assert!(error.expect("a login-state warning").contains("not valid"));
        assert_eq!(lab.view.state, 2);

        let new = lab.key();
        assert_eq!(states(&lab.starts(Some(&new))), [5, 6]);
    }

    #[test]
    fn a_fresh_node_uses_its_key_only_when_the_login_is_asked_for() {
        let mut lab = Lab::new("1.102.5");
        let key = lab.key();
        assert_eq!(states(&lab.starts(None)), [2]);
        assert!(states(&lab.does(|node, world| node.restart(Some(key), world))).is_empty());
        assert_eq!(states(&lab.does(Node::login_interactive)), [5, 6]);
        assert!(lab.does(Node::login_interactive).is_empty(), "nobody logs in twice");
    }

    #[test]
    fn a_person_lets_the_node_in_and_an_administrator_approves_it() {
        let mut lab = Lab::new("1.102.5");
        lab.tailnet.require_approval(true);
        lab.starts(None);
        let messages = lab.does(Node::login_interactive);
        let url = messages.iter().find_map(|message| message["BrowseToURL"].as_str()).expect("a URL").to_owned();
        assert!(lab.tailnet.visit(&url));
        assert_eq!(states(&lab.does(Node::hear)), [3]);
        assert!(lab.tailnet.approve("sandbox"));
        assert_eq!(states(&lab.does(Node::hear)), [5, 6]);
    }

    #[test]
    fn peers_come_and_go_as_deltas_or_as_netmaps() {
        for (version, legacy) in [("1.102.5", false), ("1.98.2", true)] {
            let mut lab = Lab::new(version);
            let key = lab.key();
            lab.starts(Some(&key));
            lab.tailnet.add_peer("db");
            let messages = lab.does(Node::hear);
            assert_eq!(messages[0]["PeersChanged"][0]["Name"], "db.sandbox.ts.net.");
            assert_eq!(messages[0]["NetMap"]["Peers"].is_array(), legacy, "{version}");
            lab.tailnet.delete("db");
            assert!(lab.does(Node::hear)[0]["PeersRemoved"].is_array());
            lab.node.disconnect();
            lab.tailnet.add_peer("db");
            assert!(lab.does(Node::hear).is_empty(), "nothing is heard without control");
        }
    }

    #[test]
    fn logging_out_gives_the_identity_up() {
        let mut lab = Lab::new("1.102.5");
        let key = lab.key();
        lab.starts(Some(&key));
        assert_eq!(states(&lab.does(Node::logout)), [2]);
        assert!(lab.tailnet.devices().is_empty());
        assert_eq!(lab.state.keys().collect::<Vec<_>>(), ["_machinekey"]);
    }
}
