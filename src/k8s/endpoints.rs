//! Where the Pods behind a Service listen.

use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;

use super::error::{Error, Resource, Verb};
use super::request::{Call, Replay};
use super::{Cluster, encoded, wire};

/// The label by which slices belong to a Service.
const OF_SERVICE: &str = "kubernetes.io/service-name";

/// One address behind a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Address and port.
    pub address: SocketAddr,
    /// The Pod, when it is one.
    pub pod: Option<String>,
    /// Whether it takes traffic.
    pub is_ready: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ListDoc {
    #[serde(deserialize_with = "wire::null_default")]
    items: Vec<SliceDoc>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SliceDoc {
    #[serde(deserialize_with = "wire::null_default")]
    endpoints: Vec<EndpointDoc>,
    #[serde(deserialize_with = "wire::null_default")]
    ports: Vec<PortDoc>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct EndpointDoc {
    #[serde(deserialize_with = "wire::null_default")]
    addresses: Vec<String>,
    #[serde(deserialize_with = "wire::null_default")]
    conditions: Conditions,
    #[serde(deserialize_with = "wire::null_default")]
    target_ref: Target,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Target {
    kind: Option<String>,
    name: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PortDoc {
    name: Option<String>,
    port: Option<u16>,
}

impl Cluster {
    /// The addresses behind Service `service`, on its only port or the one that is called `https`.
    ///
    /// # Errors
    /// [`Error::Denied`] for `list` on EndpointSlices where the Role does not allow it.
    pub async fn endpoints(&self, service: &str) -> Result<Vec<Endpoint>, Error> {
        let selector = encoded(&format!("{OF_SERVICE}={service}"));
        let list = Call {
            verb: Verb::List,
            resource: Resource::EndpointSlices,
            name: None,
            target: format!(
                "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices?labelSelector={selector}",
                encoded(self.namespace())
            ),
            body: None,
            replay: Replay::Safe,
        };
        let body = self.call(&list).await?;
        endpoints(&body).map_err(|reason| list.malformed(reason))
    }
}

fn endpoints(body: &[u8]) -> Result<Vec<Endpoint>, String> {
    let doc: ListDoc = wire::decode(body)?;
    let mut found = Vec::new();
    for SliceDoc { endpoints, ports } in doc.items {
        let named = ports.iter().find(|port| port.name.as_deref() == Some("https"));
        let Some(port) = named.or(ports.first()).and_then(|port| port.port) else { continue };
        for EndpointDoc { addresses, conditions, target_ref } in endpoints {
            let pod = target_ref.name.filter(|_| target_ref.kind.as_deref() == Some("Pod"));
            // Without a word it counts as ready, says the API.
            let is_ready = conditions.ready.unwrap_or(true);
            let ips = addresses.iter().filter_map(|address| address.parse::<IpAddr>().ok());
            found.extend(ips.map(|ip| Endpoint { address: SocketAddr::new(ip, port), pod: pod.clone(), is_ready }));
        }
    }
    found.sort_by_key(|endpoint| endpoint.address);
    found.dedup_by_key(|endpoint| endpoint.address);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_become_addresses_on_the_port_for_https() {
        let body = br#"{"items":[
            {"ports":[{"name":"http","port":80},{"name":"https","port":8443}],"endpoints":[
                {"addresses":["10.0.0.2"],"conditions":{"ready":false},"targetRef":{"kind":"Pod","name":"ts-1"}},
                {"addresses":["10.0.0.1"],"targetRef":{"kind":"Node","name":"n"}},
                {"addresses":["name.example"],"conditions":null}]},
            {"ports":[{"name":"","port":443}],"endpoints":[{"addresses":["fd00::1"]},{"addresses":["fd00::1"]}]},
            {"ports":null,"endpoints":[{"addresses":["10.0.0.9"]}]}]}"#;
        let shown: Vec<_> = endpoints(body)
            .unwrap()
            .into_iter()
            .map(|one| format!("{} {} {}", one.address, one.pod.unwrap_or_default(), one.is_ready))
            .collect();
        assert_eq!(shown, ["10.0.0.1:8443  true", "10.0.0.2:8443 ts-1 false", "[fd00::1]:443  true"]);
        assert_eq!(endpoints(br#"{"items":null}"#), Ok(Vec::new()));
    }
}
