//! What the node serves ([`config`]) and advertises ([`services`], [`hold_back`]).
//!
//! Scenarios are those of boot.md (`s…`), certs.md (`c…`) and localapi.md (`l…`), weaknesses those of boot.md 11 (`w…`) and
//! certs.md 12 (`cw…`), under their own numbers.

mod config;
mod hold_back;
mod services;

use serde_json::{Value, json};
use tailpod::sandbox::Call;

use crate::support::{Boot, SOON, Scene, running};

const POST: &str = "POST serve-config";
const FLAG: &str = "TS_EXPERIMENTAL_SERVICE_AUTO_ADVERTISEMENT";

/// What a port with plain HTTP looks like.
pub(super) fn http(port: u16) -> Value {
    json!({"TCP": {port.to_string(): {"HTTP": true}}})
}

/// A config with these Services, forwarding.
pub(super) fn services(names: &[&str]) -> Value {
    let entry = |name: &&str| ((*name).to_owned(), json!({"TCP": {"80": {"TCPForward": "localhost:1"}}}));
    json!({"Services": names.iter().map(entry).collect::<serde_json::Map<_, _>>()})
}

/// `RUN` with certificate domains.
pub(super) fn running_with(cert_domains: &[&str]) -> Value {
    let mut message = running();
    message["InitialStatus"]["CertDomains"] = json!(cert_domains);
    message
}

/// A Pod with a serve config in a file that is there, or not.
pub(super) struct Stage {
    pub(super) scene: Scene,
}

impl Stage {
    pub(super) fn new(scene: Scene, config: Option<&str>) -> Self {
        let file = scene.root().join("etc/serve/config.json");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        let stage = Self { scene: scene.with("TS_SERVE_CONFIG", file) };
        if let Some(text) = config {
            stage.write(text);
        }
        stage
    }

    pub(super) async fn alone(config: &Value) -> Self {
        Self::new(Scene::new().await, Some(&config.to_string()))
    }

    pub(super) fn write(&self, text: &str) {
        std::fs::write(self.scene.root().join("etc/serve/config.json"), text).unwrap();
    }

    pub(super) async fn posts(&self, count: usize, boot: &Boot) {
        let posted = self.scene.daemon().await_count(POST, count, SOON).await;
        posted.unwrap_or_else(|error| panic!("{error}\n{}", boot.text()));
    }

    pub(super) fn posted(&self) -> Vec<Value> {
        let calls = self.scene.daemon().calls().into_iter().filter(|call| call.what() == POST);
        calls.map(|call| call.json.unwrap_or_default()).collect()
    }

    pub(super) async fn ready(&self, boot: &Boot) {
        self.scene.notify(running()).await;
        boot.ready().await;
    }
}

/// The lists of advertised Services that were asked for, in order.
pub(super) fn lists(scene: &Scene) -> Vec<Value> {
    let calls =
        scene.daemon().calls().into_iter().filter_map(|call: Call| call.json.filter(|_| call.endpoint == "prefs"));
    calls.filter_map(|json| json.get("AdvertiseServices").cloned()).collect()
}

/// Waits until the node advertises exactly these.
pub(super) async fn advertised(scene: &Scene, names: &[&str]) {
    let wanted = json!(names);
    let list = |call: &Call| call.json.as_ref().is_some_and(|json| json["AdvertiseServices"] == wanted);
    scene.daemon().await_call(SOON, list).await.unwrap_or_else(|error| panic!("{names:?}: {error}"));
}
