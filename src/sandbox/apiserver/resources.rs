//! The resources the API server knows, and the discovery documents that list them. Pure.
//!
//! To serve another kind, add a line to [`RESOURCES`]; only kinds with rules of their own need more
//! ([`super::validate`]).

use serde_json::{Value, json};

/// One kind of object.
#[derive(Debug, PartialEq, Eq)]
pub struct Resource {
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// The version in that group.
    pub version: &'static str,
    /// The name in paths.
    pub plural: &'static str,
    /// The kind in documents.
    pub kind: &'static str,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Whether a PUT may come without a resourceVersion (`AllowUnconditionalUpdate` upstream).
    pub unconditional: bool,
    /// Whether a PUT creates what is not there (`AllowCreateOnUpdate` upstream).
    pub creates_on_put: bool,
    /// What `kubectl` also calls it.
    pub short: &'static [&'static str],
    /// What a `fieldSelector` may name, beside `metadata.name` and `metadata.namespace`.
    pub selectable: &'static [&'static str],
}

const EVENT_FIELDS: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];

const fn core(plural: &'static str, kind: &'static str, short: &'static [&'static str]) -> Resource {
    Resource {
        group: "",
        version: "v1",
        plural,
        kind,
        namespaced: true,
        unconditional: true,
        creates_on_put: false,
        short,
        selectable: &[],
    }
}

const SECRETS: Resource = Resource { selectable: &["type"], ..core("secrets", "Secret", &[]) };

/// Every resource.
pub static RESOURCES: &[Resource] = &[
    core("configmaps", "ConfigMap", &["cm"]),
    core("endpoints", "Endpoints", &["ep"]),
    Resource { selectable: EVENT_FIELDS, creates_on_put: true, ..core("events", "Event", &["ev"]) },
    Resource { namespaced: false, selectable: &["status.phase"], ..core("namespaces", "Namespace", &["ns"]) },
    Resource {
        selectable: &["spec.nodeName", "spec.serviceAccountName", "status.phase", "status.podIP"],
        ..core("pods", "Pod", &["po"])
    },
    SECRETS,
    core("serviceaccounts", "ServiceAccount", &["sa"]),
    core("services", "Service", &["svc"]),
    Resource { group: "apps", ..core("statefulsets", "StatefulSet", &["sts"]) },
    Resource {
        group: "coordination.k8s.io",
        unconditional: false,
        creates_on_put: true,
        ..core("leases", "Lease", &[])
    },
    Resource { group: "discovery.k8s.io", ..core("endpointslices", "EndpointSlice", &[]) },
    Resource { group: "networking.k8s.io", ..core("ingresses", "Ingress", &["ing"]) },
];

/// Groups that only hold reviews: `(group, [(plural, kind)])`.
pub const REVIEWS: &[(&str, &[(&str, &str)])] = &[
    ("authentication.k8s.io", &[("selfsubjectreviews", "SelfSubjectReview"), ("tokenreviews", "TokenReview")]),
    (
        "authorization.k8s.io",
        &[
            ("selfsubjectaccessreviews", "SelfSubjectAccessReview"),
            ("selfsubjectrulesreviews", "SelfSubjectRulesReview"),
            ("subjectaccessreviews", "SubjectAccessReview"),
        ],
    ),
];

const VERBS: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];

impl Resource {
    /// `v1` or `coordination.k8s.io/v1`.
    pub fn api_version(&self) -> String {
        group_version(self.group, self.version)
    }

    /// The resource of that name.
    pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Self> {
        RESOURCES.iter().find(|r| (r.group, r.version, r.plural) == (group, version, plural))
    }

    /// The Secrets of the core group.
    pub fn secrets() -> &'static Self {
        &SECRETS
    }
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// Whether there is such a group and version.
pub fn exists(group: &str, version: &str) -> bool {
    RESOURCES.iter().any(|r| (r.group, r.version) == (group, version))
        || (version == "v1" && REVIEWS.iter().any(|(name, _)| *name == group))
}

/// `GET /version`.
pub fn version() -> Value {
    json!({
        "major": "1", "minor": "33", "gitVersion": "v1.33.0+tailpod-sandbox", "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "2025-04-23T13:00:00Z", "goVersion": "", "compiler": "rustc",
        "platform": "linux/amd64",
    })
}

/// `GET /api`. `address` is where clients reach the server.
pub fn core_versions(address: &str) -> Value {
    json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

/// `GET /apis`.
pub fn groups() -> Value {
    let mut names: Vec<&str> = RESOURCES.iter().map(|r| r.group).filter(|group| !group.is_empty()).collect();
    names.extend(REVIEWS.iter().map(|(name, _)| *name));
    names.sort_unstable();
    names.dedup();
    let groups: Vec<Value> = names.into_iter().map(group).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `GET /apis/<group>`, without the check that the group exists.
pub fn group(name: &str) -> Value {
    let version = json!({"groupVersion": group_version(name, "v1"), "version": "v1"});
    json!({"kind": "APIGroup", "apiVersion": "v1", "name": name, "versions": [version], "preferredVersion": version})
}

/// `GET /api/v1` and `GET /apis/<group>/<version>`.
pub fn list(group: &str, version: &str) -> Value {
    let objects = RESOURCES.iter().filter(|r| (r.group, r.version) == (group, version)).map(|r| {
        json!({
            "name": r.plural, "singularName": r.kind.to_lowercase(), "namespaced": r.namespaced, "kind": r.kind,
            "verbs": VERBS, "shortNames": r.short,
        })
    });
    let reviews = REVIEWS.iter().filter(|(name, _)| *name == group).flat_map(|(_, kinds)| *kinds).map(|(plural, kind)| {
        json!({
            "name": plural, "singularName": kind.to_lowercase(), "namespaced": false, "kind": kind, "verbs": ["create"],
        })
    });
    let resources: Vec<Value> = objects.chain(reviews).collect();
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version(group, version),
        "resources": resources,
    })
}

/// `GET /openapi/v3`: which groups have a description.
pub fn openapi_index() -> Value {
    let mut paths = serde_json::Map::new();
    for resource in RESOURCES {
        let path = openapi_path(resource);
        paths.insert(path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}")}));
    }
    json!({ "paths": paths })
}

/// `GET /openapi/v3/<path>`: no schemas, only that the server validates fields itself, which is what `kubectl apply`
/// asks before it sends anything. `None` for an unknown group.
pub fn openapi(path: &str) -> Option<Value> {
    let mut paths = serde_json::Map::new();
    for resource in RESOURCES.iter().filter(|resource| openapi_path(resource) == path) {
        let namespace = if resource.namespaced { "namespaces/{namespace}/" } else { "" };
        let patch = json!({
            "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}],
            "responses": {"200": {"description": "OK"}},
            "x-kubernetes-action": "patch",
            "x-kubernetes-group-version-kind":
                {"group": resource.group, "version": resource.version, "kind": resource.kind},
        });
        paths.insert(format!("/{path}/{namespace}{}/{{name}}", resource.plural), json!({ "patch": patch }));
    }
    let title = json!({"title": "Kubernetes", "version": "v1.33.0"});
    (!paths.is_empty())
        .then(|| json!({"openapi": "3.0.0", "info": title, "paths": paths, "components": {"schemas": {}}}))
}

fn openapi_path(resource: &Resource) -> String {
    let prefix = if resource.group.is_empty() { "api" } else { "apis" };
    format!("{prefix}/{}", resource.api_version())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_resource_is_discovered_where_it_is_served() {
        for resource in RESOURCES {
            assert!(exists(resource.group, resource.version), "{resource:?}");
            let listed = list(resource.group, resource.version);
            assert_eq!(listed["groupVersion"], resource.api_version());
            assert!(
                listed["resources"].as_array().unwrap().iter().any(|r| r["name"] == resource.plural),
                "{resource:?}"
            );
            assert!(openapi(&openapi_path(resource)).is_some(), "{resource:?}");
        }
        for (name, kinds) in REVIEWS {
            assert!(exists(name, "v1"));
            assert_eq!(list(name, "v1")["resources"].as_array().unwrap().len(), kinds.len());
        }
        assert!(!exists("", "v2") && !exists("authorization.k8s.io", "v1beta1"));
        assert_eq!(openapi("apis/nobody/v1"), None);
    }
}
