//! What the pretend daemon does when it is asked to change something, in both modes.
//!
//! In scripted mode a request is recorded and answered, prefs and serve config are kept, nothing else happens. In
//! automatic mode the [`Node`] decides, the bus carries what it says, and its identity goes to the store that the
//! process's arguments name.

use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::Cluster;
use super::daemon::Daemon;
use super::inner::Inner;
use super::node::{Config, Node, State, World, is_identity_key, member};
use super::statestore::{self, StateStore};
use super::tailnet::Tailnet;
use super::view::complete;
use crate::secret::Secret;

impl Daemon {
    /// Changes something at control, and lets the node hear of it.
    pub fn tailnet<T>(&self, change: impl FnOnce(&mut Tailnet) -> T) -> T {
        self.change(|inner| {
            let result = change(&mut inner.tailnet);
            inner.act(Node::hear);
            result
        })
    }

    /// `PATCH prefs`; yields the new prefs.
    pub(crate) fn patch_prefs(&self, masked: &Map<String, Value>) -> Result<Value, String> {
        self.change(|inner| {
            if inner.is_locked() {
                return Err("can't reconfigure tailscaled when using a config file; config file is locked".to_owned());
            }
            inner.view.patch_prefs(masked)?;
            inner.act(|node, world| {
                let mut messages = vec![json!({"Prefs": world.view.prefs})];
                messages.extend(node.sync(world));
                messages
            });
            Ok(Value::Object(inner.view.prefs.clone()))
        })
    }

    /// `POST start`.
    pub(crate) fn start_backend(&self, options: &Map<String, Value>) {
        let key = options.get("AuthKey").and_then(Value::as_str).filter(|key| !key.is_empty());
        let key = key.map(|key| Secret::new(key.to_owned()));
        self.change(|inner| {
            if let Some(prefs) = options.get("UpdatePrefs").and_then(Value::as_object) {
                let identity = inner.view.prefs.get("Config").cloned().unwrap_or_default();
                inner.view.prefs.clone_from(prefs);
                inner.view.prefs.insert("Config".to_owned(), identity);
            }
            inner.act(|node, world| {
                let mut messages = vec![json!({"Prefs": world.view.prefs})];
                messages.extend(node.restart(key, world));
                messages
            });
        });
    }

    /// `POST login-interactive`.
    pub(crate) fn login_interactive(&self) {
        self.change(|inner| inner.act(Node::login_interactive));
    }

    /// `POST logout` and `reset-auth`.
    pub(crate) fn logout(&self) {
        self.change(|inner| inner.act(Node::logout));
    }

    /// `POST disconnect-control`.
    pub(crate) fn disconnect_control(&self) {
        self.change(|inner| {
            inner.act(|node, _| {
                node.disconnect();
                Vec::new()
            });
        });
    }

    /// `POST reload-config`; `None` when it failed, which the real daemon says only in its log.
    pub(crate) fn reload_config(&self) -> Option<Value> {
        self.change(|inner| match inner.config_file() {
            None => Some(json!({"Reloaded": false, "Err": ""})),
            Some(file) => {
                let config = Config::from_file(&read_json(&file)?);
                inner.act(|node, world| node.reload(&config, world));
                Some(json!({"Reloaded": true, "Err": ""}))
            }
        })
    }

    /// `POST serve-config`.
    pub(crate) fn set_serve_config(&self, config: Value) -> Result<(), String> {
        self.change(|inner| {
            if inner.automatic && inner.view.self_node.is_none() {
                return Err("netMap is nil".to_owned());
            }
            if let Some(conflict) = conflict(&inner.view.serve_config, &config) {
                return Err(conflict);
            }
            inner.view.serve_config = config;
            Ok(())
        })
    }
}

/// The real daemon's objection to a port whose handler becomes one of another kind.
fn conflict(old: &Value, new: &Value) -> Option<String> {
    let kind = |handler: &Value| match handler {
        _ if handler["HTTPS"] == true => "https",
        _ if handler["HTTP"] == true => "http",
        _ => "tcp",
    };
    let of = |old: &Value, new: &Value| {
        old["TCP"].as_object()?.iter().find_map(|(port, handler)| {
            let (is, wanted) = (kind(handler), kind(new["TCP"].get(port)?));
            let text = format!("want to serve {wanted:?}, but port {port} is already serving {is:?}");
            (is != wanted).then_some(text)
        })
    };
    of(old, new)
        .or_else(|| old["Services"].as_object()?.iter().find_map(|(name, service)| of(service, &new["Services"][name])))
}

impl Inner {
    /// A process has started: the automatic node starts with what its store and config file hold.
    pub(crate) fn boot_node(&mut self) {
        self.store = StateStore::of(self.args());
        let config = self.config_file().and_then(|file| read_json(&file)).map(|file| Config::from_file(&file));
        let state = self.load();
        self.saved.clone_from(&state);
        self.act(|node, world| {
            let (started, messages) = Node::start(&state, config.as_ref(), world);
            *node = started;
            messages
        });
    }

    /// Lets the automatic node do something, sends what it says and keeps what it is. Nothing in scripted mode, or
    /// while no daemon runs.
    pub(crate) fn act(&mut self, does: impl FnOnce(&mut Node, &mut World<'_>) -> Vec<Value>) {
        if !self.automatic || self.args().is_empty() {
            return;
        }
        let version = self.version().clone();
        let mut node = std::mem::take(&mut self.node);
        let mut world =
            World { tailnet: &mut self.tailnet, view: &mut self.view, version: &version, now: Timestamp::now() };
        let messages = does(&mut node, &mut world);
        self.node = node;
        for message in messages {
            self.broadcast(&complete(&message, &version));
        }
        let state = self.node.state(&self.view.prefs);
        if state != self.saved {
            self.save(&state);
            self.saved = state;
        }
    }

    fn load(&self) -> State {
        match &self.store {
            StateStore::Memory => State::new(),
            StateStore::File(path) => std::fs::read(path).map(|file| statestore::decode(&file)).unwrap_or_default(),
            StateStore::Secret(name) => self.cluster.as_ref().map_or_else(State::new, |Cluster { api, namespace }| {
                api.bytes(namespace, name).into_iter().filter(|(key, _)| is_identity_key(key)).collect()
            }),
        }
    }

    fn save(&self, state: &State) {
        match &self.store {
            StateStore::Memory => {}
            StateStore::File(path) => {
                if let Err(error) = statestore::write(path, state) {
                    tracing::warn!(%error, path = %path.display(), "cannot write the pretend state");
                }
            }
            StateStore::Secret(name) => {
                let Some(Cluster { api, namespace }) = &self.cluster else { return };
                if api.secret(namespace, name).is_none() {
                    return api.put_secret(namespace, name, state.clone());
                }
                for (key, value) in state.iter().filter(|(key, value)| self.saved.get(*key) != Some(*value)) {
                    api.set_key(namespace, name, key, Some(value));
                }
                for key in self.saved.keys().filter(|key| !state.contains_key(*key)) {
                    api.set_key(namespace, name, key, None);
                }
            }
        }
    }

    /// The file of `--config`.
    pub(crate) fn config_file(&self) -> Option<PathBuf> {
        let value = self.args().iter().find_map(|arg| arg.trim_start_matches('-').strip_prefix("config="));
        value.map(PathBuf::from)
    }

    /// Whether the config file forbids changes: it does unless it says otherwise.
    fn is_locked(&self) -> bool {
        self.config_file()
            .and_then(|file| read_json(&file))
            .is_some_and(|config| member(&config, "Locked") != Some(&Value::Bool(false)))
    }
}

fn read_json(file: &std::path::Path) -> Option<Value> {
    let text = std::fs::read_to_string(file).ok()?;
    serde_json::from_str(&crate::hujson::standardize(&text).ok()?).ok()
}
