//! Names: the control server's, and who answers for them.

use std::time::Duration;

use hyper::Uri;

use super::finding::{DNS_CONTROL, DNS_RESOLVER, Finding};

/// Where nodes log in when nothing else is said.
pub(super) const CONTROL: &str = "https://controlplane.tailscale.com";
/// tailscaled's own resolver.
const MAGIC_DNS: &str = "100.100.100.100";

/// Resolves the control server's name and looks at `resolv.conf`.
pub(super) async fn check(control: &str, daemon_runs: bool, limit: Duration) -> Vec<Finding> {
    let config = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let uri: Option<Uri> = control.parse().ok();
    let host = uri.as_ref().and_then(Uri::host).map(|host| host.trim_matches(['[', ']']).to_owned());
    let outcome = match host {
        None => Err(format!("`{control}` is not the URL of a control server")),
        Some(host) => resolve(&host, limit).await.map(|addresses| (host, addresses)),
    };
    vec![judge_control(&outcome, &config), judge_resolver(&config, daemon_runs)]
}

/// The addresses of a name, as text.
pub(super) async fn resolve(host: &str, limit: Duration) -> Result<Vec<String>, String> {
    let looked_up = tokio::time::timeout(limit, tokio::net::lookup_host((host, 443))).await;
    match looked_up {
        Err(_) => Err(format!("`{host}` does not resolve: no answer within {}", crate::goduration::format(limit))),
        Ok(Err(error)) => Err(format!("`{host}` does not resolve: {error}")),
        Ok(Ok(addresses)) => {
            let mut texts: Vec<_> = addresses.map(|address| address.ip().to_string()).collect();
            texts.dedup();
            Ok(texts)
        }
    }
}

/// Judges the lookup of the control server.
pub(super) fn judge_control(outcome: &Result<(String, Vec<String>), String>, resolv_conf: &str) -> Finding {
    match outcome {
        Ok((host, addresses)) => DNS_CONTROL.ok(format!("`{host}` is {}", addresses.join(", "))),
        Err(why) => {
            let servers = nameservers(resolv_conf).join(", ");
            let servers = if servers.is_empty() { "nobody".to_owned() } else { servers };
            DNS_CONTROL.failure(
                format!("{why} (resolv.conf asks {servers})"),
                "kubectl -n kube-system get pods -l k8s-app=kube-dns\n# and, where policies restrict egress, allow \
                 it:\negress:\n  - ports: [{ port: 53, protocol: UDP }, { port: 53, protocol: TCP }]\n  - ports: [{ \
                 port: 443, protocol: TCP }]",
            )
        }
    }
}

/// Judges who answers for names.
pub(super) fn judge_resolver(resolv_conf: &str, daemon_runs: bool) -> Finding {
    let servers = nameservers(resolv_conf);
    if !servers.contains(&MAGIC_DNS) {
        return DNS_RESOLVER.ok("resolv.conf is the cluster's");
    }
    if daemon_runs {
        return DNS_RESOLVER.ok("resolv.conf asks tailscaled, which runs");
    }
    DNS_RESOLVER.failure(
        format!("resolv.conf asks tailscaled at {MAGIC_DNS}, which does not run: no name resolves"),
        "kubectl delete pod \"$POD_NAME\"  # the kubelet writes resolv.conf anew\n# and keep it:\nenv:\n  - name: TS_ACCEPT_DNS\n    value: \"false\"",
    )
}

fn nameservers(resolv_conf: &str) -> Vec<&str> {
    resolv_conf
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .map(str::trim)
        .filter(|server| !server.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Level;

    #[test]
    fn a_resolver_that_is_not_there_is_a_failure() {
        for (config, runs, level) in [
            ("nameserver 10.96.0.10\nsearch x\n", false, Level::Ok),
            ("nameserver 100.100.100.100\n", true, Level::Ok),
            ("search x\nnameserver\t100.100.100.100\n", false, Level::Failure),
            ("# nameserver 100.100.100.100\n", false, Level::Ok),
            ("", false, Level::Ok),
        ] {
            assert_eq!(judge_resolver(config, runs).level, level, "{config:?}");
        }
    }

    #[test]
    fn a_failed_lookup_says_who_was_asked() {
        let finding = judge_control(&Err("`x` does not resolve: no".to_owned()), "nameserver 10.96.0.10\n");
        assert_eq!(finding.sentence, "`x` does not resolve: no (resolv.conf asks 10.96.0.10)");
        assert_eq!(finding.level, Level::Failure);
    }
}
