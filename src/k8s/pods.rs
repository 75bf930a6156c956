//! The Pods of the namespace, as far as a state Secret is concerned: who they are, whether they live, which one each uses.
//!
//! What a Pod uses is read off its specification the way containerboot reads its environment; what only the running
//! container knows (`envFrom`, wrappers) is not seen. Needs `list` on Pods, which `boot` does not: a caller takes a denial for "not known".

use serde::Deserialize;

use super::error::{Error, Resource, Verb};
use super::request::{Call, Replay};
use super::{Cluster, encoded, wire};

/// Pods per request: with everything that is in a Pod's document, far below the limit of an answer.
const PAGE: u32 = 100;
/// Upstream's `TS_KUBE_SECRET` when it is not set.
const DEFAULT_SECRET: &str = "tailscale";

/// What is said of a Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSummary {
    /// Its name.
    pub name: String,
    /// Its UID, which is what a state Secret names.
    pub uid: String,
    /// `Pending`, `Running`, `Succeeded`, `Failed`, `Unknown`; empty when the kubelet has said nothing yet.
    pub phase: String,
    /// Whether it has been told to stop.
    pub is_stopping: bool,
    /// The Secrets that its containers keep a node's state in.
    pub state_secrets: Vec<String>,
}

impl PodSummary {
    /// Whether its containers run, or will: a Pod that is being stopped still does.
    pub fn is_live(&self) -> bool {
        !matches!(self.phase.as_str(), "Succeeded" | "Failed")
    }

    /// Whether one of its containers keeps its state in the Secret `name`.
    pub fn uses(&self, name: &str) -> bool {
        self.state_secrets.iter().any(|secret| secret == name)
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ListDoc {
    #[serde(deserialize_with = "wire::null_default")]
    metadata: ListMeta,
    #[serde(deserialize_with = "wire::null_default")]
    items: Vec<PodDoc>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ListMeta {
    r#continue: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PodDoc {
    #[serde(deserialize_with = "wire::null_default")]
    metadata: PodMeta,
    #[serde(deserialize_with = "wire::null_default")]
    spec: Spec,
    #[serde(deserialize_with = "wire::null_default")]
    status: PodStatus,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct PodMeta {
    name: Option<String>,
    uid: Option<String>,
    deletion_timestamp: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PodStatus {
    phase: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    #[serde(deserialize_with = "wire::null_default")]
    containers: Vec<Container>,
    #[serde(deserialize_with = "wire::null_default")]
    init_containers: Vec<Container>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Container {
    image: String,
    #[serde(deserialize_with = "wire::null_default")]
    command: Vec<String>,
    #[serde(deserialize_with = "wire::null_default")]
    args: Vec<String>,
    #[serde(deserialize_with = "wire::null_default")]
    env: Vec<Variable>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Variable {
    name: String,
    value: Option<String>,
    #[serde(deserialize_with = "wire::null_default")]
    value_from: ValueFrom,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ValueFrom {
    #[serde(deserialize_with = "wire::null_default")]
    field_ref: FieldRef,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct FieldRef {
    field_path: String,
}

impl Cluster {
    /// All Pods of the namespace, in the order of the server.
    ///
    /// # Errors
    /// [`Error::Denied`] for `list` on Pods where the Role does not allow it.
    pub async fn pods(&self) -> Result<Vec<PodSummary>, Error> {
        let mut pods = Vec::new();
        let mut from = String::new();
        loop {
            let list = Call {
                verb: Verb::List,
                resource: Resource::Pods,
                name: None,
                target: format!("/api/v1/namespaces/{}/pods?limit={PAGE}{from}", encoded(self.namespace())),
                body: None,
                replay: Replay::Safe,
            };
            let body = self.call(&list).await?;
            let (page, next) = page(&body).map_err(|reason| list.malformed(reason))?;
            pods.extend(page);
            match next {
                Some(next) => from = format!("&continue={}", encoded(&next)),
                None => return Ok(pods),
            }
        }
    }
}

/// The Pods of one answer, and where the next one begins.
fn page(body: &[u8]) -> Result<(Vec<PodSummary>, Option<String>), String> {
    let doc: ListDoc = wire::decode(body)?;
    let pods = doc.items.into_iter().map(PodDoc::into_summary);
    Ok((pods.collect(), doc.metadata.r#continue.filter(|next| !next.is_empty())))
}

impl PodDoc {
    fn into_summary(self) -> PodSummary {
        let Self { metadata, spec, status } = self;
        let containers = spec.containers.iter().chain(&spec.init_containers);
        let mut state_secrets: Vec<_> = containers.filter_map(|one| one.state_secret(&metadata)).collect();
        state_secrets.sort();
        state_secrets.dedup();
        PodSummary {
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            phase: status.phase.unwrap_or_default(),
            is_stopping: metadata.deletion_timestamp.is_some(),
            state_secrets,
        }
    }
}

impl Container {
    /// `--state=kube:NAME` of a bare tailscaled, else `TS_KUBE_SECRET`, else its default where containerboot runs.
    fn state_secret(&self, pod: &PodMeta) -> Option<String> {
        let words = || self.command.iter().chain(&self.args);
        let state = words().find_map(|word| word.trim_start_matches('-').strip_prefix("state=kube:"));
        let named = match state {
            Some(name) => Some(name.to_owned()),
            None => self.variable("TS_KUBE_SECRET", pod, 0),
        };
        named.or_else(|| self.runs_containerboot().then(|| DEFAULT_SECRET.to_owned())).filter(|name| !name.is_empty())
    }

    /// The value of a variable as the kubelet makes it. `depth` ends references that go round in circles.
    fn variable(&self, name: &str, pod: &PodMeta, depth: u8) -> Option<String> {
        let variable = self.env.iter().rev().find(|variable| variable.name == name)?;
        let Some(value) = &variable.value else {
            return match variable.value_from.field_ref.field_path.as_str() {
                "metadata.name" => pod.name.clone(),
                "metadata.uid" => pod.uid.clone(),
                // Set, but not for us to see. Not the default, so no Secret we know of.
                _ => Some(String::new()),
            };
        };
        let mut text = value.clone();
        for other in self.env.iter().filter(|other| depth < 3 && other.name != name) {
            let reference = format!("$({})", other.name);
            if text.contains(&reference) {
                text = text.replace(&reference, &self.variable(&other.name, pod, depth + 1).unwrap_or_default());
            }
        }
        Some(text)
    }

    fn runs_containerboot(&self) -> bool {
        let file = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        if let Some(command) = self.command.first() {
            return match file(command).as_str() {
                "containerboot" | "run.sh" => true,
                "tailpod" => self.command.iter().chain(&self.args).nth(1).is_some_and(|applet| applet == "boot"),
                _ => false,
            };
        }
        let image = file(&self.image);
        let name = image.split([':', '@']).next().unwrap_or_default();
        matches!(name, "tailscale" | "tailpod")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn secrets(container: &Value) -> Vec<String> {
        let list = json!({"metadata": {}, "items": [
            {"metadata": {"name": "ts-0", "uid": "u"}, "spec": {"containers": [container]}, "status": {"phase": "Running"}},
        ]});
        let (page, _) = page(list.to_string().as_bytes()).unwrap();
        page.into_iter().next().unwrap().state_secrets
    }

    #[test]
    fn a_container_names_its_secret_in_all_the_ways_there_are() {
        let env = |variables: Value| json!({"image": "x", "env": variables});
        let name_field = json!({"fieldRef": {"fieldPath": "metadata.name"}});
        for (container, expected) in [
            (env(json!([{"name": "TS_KUBE_SECRET", "value": "state"}])), Some("state")),
            (env(json!([{"name": "TS_KUBE_SECRET", "valueFrom": name_field}])), Some("ts-0")),
            (
                env(
                    json!([{"name": "POD_NAME", "valueFrom": name_field}, {"name": "TS_KUBE_SECRET", "value": "$(POD_NAME)-x"}]),
                ),
                Some("ts-0-x"),
            ),
            (env(json!([{"name": "TS_KUBE_SECRET", "value": ""}])), None),
            (env(json!([{"name": "TS_KUBE_SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}])), None),
            (
                env(
                    json!([{"name": "A", "value": "$(B)"}, {"name": "B", "value": "$(A)"}, {"name": "TS_KUBE_SECRET", "value": "x"}]),
                ),
                Some("x"),
            ),
            (json!({"image": "nginx"}), None),
            (json!({"image": "ghcr.io/tailscale/tailscale:v1.98.2"}), Some("tailscale")),
            (json!({"image": "tailscale/k8s-operator:v1"}), None),
            (json!({"image": "x", "command": ["/usr/local/bin/containerboot"]}), Some("tailscale")),
            (json!({"image": "tailpod", "command": ["tailpod", "boot"]}), Some("tailscale")),
            (json!({"image": "tailpod", "command": ["tailpod"], "args": ["secret", "inspect"]}), None),
            (json!({"image": "x", "command": ["tailscaled", "--state=kube:mine"], "env": null}), Some("mine")),
        ] {
            assert_eq!(secrets(&container), expected.into_iter().collect::<Vec<_>>(), "{container}");
        }
    }

    #[test]
    fn pods_are_read_with_whatever_is_missing() {
        let body = br#"{"metadata":{"continue":"c=="},"items":[
            {"metadata":{"name":"a","uid":"1","deletionTimestamp":"2026-01-01T00:00:00Z"},"status":{"phase":"Running"}},
            {"metadata":{"name":"b","uid":"2"},"status":{"phase":"Succeeded"}},
            {"metadata":{"name":"c"}}]}"#;
        let (pods, next) = page(body).unwrap();
        assert_eq!(next.as_deref(), Some("c=="));
        let shown: Vec<_> = pods.iter().map(|pod| (pod.name.as_str(), pod.is_live(), pod.is_stopping)).collect();
        assert_eq!(shown, [("a", true, true), ("b", false, false), ("c", true, false)]);
        assert_eq!(page(br#"{"metadata":{"continue":""},"items":null}"#), Ok((Vec::new(), None)));
    }
}
