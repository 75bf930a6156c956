//! What a plugin is told: `KUBERNETES_EXEC_INFO`. Pure.

use serde::Serialize;

use super::config::{ClusterInfo, Config};

/// The variable that carries the request.
pub(super) const VARIABLE: &str = "KUBERNETES_EXEC_INFO";

#[derive(Serialize)]
struct Request<'a> {
    kind: &'static str,
    #[serde(rename = "apiVersion")]
    api_version: &'a str,
    spec: Spec<'a>,
}

#[derive(Serialize)]
struct Spec<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<&'a ClusterInfo>,
    interactive: bool,
}

/// The request as JSON, in client-go's order of fields.
pub(super) fn request(config: &Config, interactive: bool) -> String {
    let spec = Spec { cluster: config.cluster.as_ref(), interactive };
    let request = Request { kind: "ExecCredential", api_version: &config.api_version, spec };
    // Strings, booleans and JSON values: there is nothing that could fail.
    serde_json::to_string(&request).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::super::config::{Mode, Written};
    use super::*;

    fn config(cluster: Option<ClusterInfo>) -> Config {
        let written = Written {
            api_version: "client.authentication.k8s.io/v1".to_owned(),
            command: "plugin".to_owned(),
            mode: Some(Mode::Never),
            ..Written::default()
        };
        Config::new(written, Path::new("/"), cluster).unwrap()
    }

    #[test]
    fn the_least_and_the_most_that_is_told() {
        assert_eq!(
            request(&config(None), false),
            r#"{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","spec":{"interactive":false}}"#
        );
        let bare = ClusterInfo { server: "https://h".to_owned(), ..ClusterInfo::default() };
        assert!(
            request(&config(Some(bare)), true)
                .ends_with(r#""spec":{"cluster":{"server":"https://h","config":null},"interactive":true}}"#)
        );
        let all = ClusterInfo {
            server: "https://h".to_owned(),
            tls_server_name: "n".to_owned(),
            insecure_skip_tls_verify: true,
            certificate_authority_data: "Y2E=".to_owned(),
            proxy_url: "http://p".to_owned(),
            disable_compression: true,
            config: json!({"audience": "x"}),
        };
        assert!(request(&config(Some(all)), false).contains(
            r#"{"server":"https://h","tls-server-name":"n","insecure-skip-tls-verify":true,"certificate-authority-data":"Y2E=","proxy-url":"http://p","disable-compression":true,"config":{"audience":"x"}}"#
        ));
    }
}
