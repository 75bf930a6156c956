//! The way to the API server, step by step, and what we may do there.
//!
//! Each step has a deadline, and the first that fails ends the way: what lies behind it cannot be known.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use hyper::Uri;
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, timeout};

use super::finding::{
    API_ACCESS, API_IDENTITY, API_NAME, API_TCP, API_TLS, API_TOKEN, CLOCK_SKEW, Finding, RBAC_DRY_RUN,
};
use super::rbac::{Reviewed, Who, judge, judge_dry_run};
use super::token::{self, SET_THE_CLOCK};
use super::{Subject, dns};
use crate::causes::chain;
use crate::k8s::diagnose::Identity;
use crate::k8s::state::{CAPVER, KeyPatch};
use crate::k8s::{Cluster, Error, Resource, Verb};
use crate::manifests::permissions::{Needs, Object, required_permissions};
use crate::settings::KubeAccess;

/// A credential plugin of a kubeconfig may run.
const ACCESS_LIMIT: Duration = Duration::from_secs(4);
/// One lookup, one connection, one handshake with its first answer.
const STEP_LIMIT: Duration = Duration::from_secs(3);
/// All questions together; they are asked at once.
const QUESTIONS_LIMIT: Duration = Duration::from_secs(4);
/// Tokens and certificates are valid from a minute before they were made.
const SKEW_FAILS: SignedDuration = SignedDuration::from_secs(60);
/// More than a slow answer can explain.
const SKEW_WARNS: SignedDuration = SignedDuration::from_secs(10);

/// Goes the way as far as it leads.
pub(super) async fn check(subject: &Subject) -> Vec<Finding> {
    let mut found = Vec::new();
    let Some(access) = &subject.access else { return found };
    let connecting = async {
        let cluster = Cluster::connect(access, "tailpod-doctor").await?;
        cluster.ready().await?;
        Ok(cluster)
    };
    let cluster = match timeout(ACCESS_LIMIT, connecting).await {
        Ok(Ok(cluster)) => cluster,
        Ok(Err(error)) => {
            found.push(judge_access(&error, access));
            return found;
        }
        Err(_) => {
            let sentence = "the credential plugin of the kubeconfig did not end in time";
            found.push(API_ACCESS.failure(sentence, try_with_kubectl(access)));
            return found;
        }
    };
    let cluster = match &subject.namespace {
        Some(namespace) => cluster.in_namespace(namespace),
        None => cluster,
    };
    let kind = match access {
        KubeAccess::InCluster { .. } => "the service account",
        KubeAccess::Kubeconfig { .. } => "the kubeconfig",
    };
    found.push(API_ACCESS.ok(format!("{kind} leads to {}, namespace `{}`", cluster.server(), cluster.namespace())));
    // The token can be judged whatever else fails.
    let (token, audience) = judge_token(access, subject).await;
    found.push(token);
    if connect(&cluster, access, &mut found).await {
        ask(&cluster, subject, audience.as_deref(), &mut found).await;
    }
    found
}

fn judge_access(error: &Error, access: &KubeAccess) -> Finding {
    match error {
        Error::NoServiceAccount { .. } => {
            API_ACCESS.failure(chain(error), "spec:\n  automountServiceAccountToken: true")
        }
        _ => API_ACCESS.failure(chain(error), try_with_kubectl(access)),
    }
}

/// Whoever wrote the credentials can see with kubectl what is wrong with them.
fn try_with_kubectl(access: &KubeAccess) -> String {
    match access {
        KubeAccess::InCluster { service_account, .. } => {
            format!(
                "ls -l {}/  # boot needs token, ca.crt and namespace, readable for this user",
                service_account.display()
            )
        }
        KubeAccess::Kubeconfig { path, context } => {
            let context = context.as_ref().map(|name| format!(" --context {name}")).unwrap_or_default();
            // A list of files is what kubectl takes from its variable only.
            format!("KUBECONFIG={} kubectl{context} auth whoami  # must work as the same user, too", path.display())
        }
    }
}

/// Judges the token, and says for whom it is.
async fn judge_token(access: &KubeAccess, subject: &Subject) -> (Finding, Option<String>) {
    let KubeAccess::InCluster { service_account, .. } = access else {
        return (API_TOKEN.skipped("the kubeconfig decides about credentials"), None);
    };
    match tokio::fs::read_to_string(service_account.join("token")).await {
        Ok(text) => (token::judge(&text, Timestamp::now(), subject.pod_uid.as_deref()), token::audience(&text)),
        Err(error) => {
            let remedy = "spec:\n  automountServiceAccountToken: true\n  securityContext:\n    fsGroup: 65532  # may read \
                          what is mounted";
            (API_TOKEN.failure(format!("the token cannot be read: {error}"), remedy), None)
        }
    }
}

/// Name, TCP, TLS, clock. False when the API server does not answer.
async fn connect(cluster: &Cluster, access: &KubeAccess, found: &mut Vec<Finding>) -> bool {
    let uri: Option<Uri> = cluster.server().parse().ok();
    let Some((host, port)) = uri.as_ref().and_then(|uri| {
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
        Some((uri.host()?.trim_matches(['[', ']']).to_owned(), port))
    }) else {
        let sentence = format!("`{}` is not the URL of an API server", cluster.server());
        found.push(API_NAME.failure(sentence, try_with_kubectl(access)));
        return false;
    };
    let addresses = match dns::resolve(&host, STEP_LIMIT).await {
        Ok(addresses) => addresses,
        Err(why) => {
            found.push(API_NAME.failure(
                why,
                "env:\n  - name: TS_KUBERNETES_READ_API_SERVER_ADDRESS_FROM_ENV  # without the cluster's DNS\n    value: \"true\"",
            ));
            return false;
        }
    };
    let is_address = addresses.contains(&host);
    found.push(API_NAME.ok(if is_address {
        format!("`{host}` is an address")
    } else {
        format!("`{host}` is {}", addresses.join(", "))
    }));
    let connecting = timeout(STEP_LIMIT, tokio::net::TcpStream::connect((host.as_str(), port))).await;
    let failed = match connecting {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("no answer within {}", crate::goduration::format(STEP_LIMIT))),
    };
    if let Some(why) = failed {
        let first = addresses.first().cloned().unwrap_or(host);
        let width = if first.contains(':') { 128 } else { 32 };
        let remedy = format!(
            "egress:  # of the NetworkPolicy that selects this Pod\n  - to: [{{ ipBlock: {{ cidr: {first}/{width} }} }}]\n    ports: [{{ port: {port}, protocol: TCP }}]\n# an accepted subnet route may also cover the cluster's addresses: TS_EXTRA_ARGS=--accept-routes=false"
        );
        found.push(API_TCP.failure(format!("no connection to {first} port {port}: {why}"), remedy));
        return false;
    }
    found.push(API_TCP.ok(format!("port {port} accepts connections")));
    let before = Timestamp::now();
    match cluster.greet(STEP_LIMIT).await {
        Ok(greeting) => {
            found.push(
                API_TLS.ok(format!("the certificate is trusted, and the API server answers ({})", greeting.status)),
            );
            let middle = before
                + before
                    .until(Timestamp::now())
                    .map_or(SignedDuration::ZERO, |span| SignedDuration::try_from(span).unwrap_or_default() / 2);
            found.push(judge_clock(greeting.date.as_deref(), middle));
            true
        }
        Err(error) => {
            found.push(API_TLS.failure(chain(&error), compare_certificates(&host, port, access)));
            false
        }
    }
}

/// What the server shows beside what is trusted here.
fn compare_certificates(host: &str, port: u16, access: &KubeAccess) -> String {
    let at = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let trusted = match access {
        KubeAccess::InCluster { service_account, .. } => {
            format!("openssl x509 -noout -subject -in {}", service_account.join("ca.crt").display())
        }
        KubeAccess::Kubeconfig { path, .. } => format!(
            "KUBECONFIG={} kubectl config view --raw --minify -o jsonpath='{{.clusters[0].cluster}}'",
            path.display()
        ),
    };
    format!(
        "openssl s_client -connect {at} -showcerts </dev/null  # what the server shows\n{trusted}  # what is trusted here"
    )
}

/// Judges the server's `Date` against our clock.
fn judge_clock(date: Option<&str>, now: Timestamp) -> Finding {
    let Some(there) = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok()) else {
        return CLOCK_SKEW.skipped("the API server does not say what time it has");
    };
    // Half a second, on average, is lost in the header.
    let skew = there.timestamp().duration_since(now);
    let seconds = skew.as_secs().unsigned_abs();
    let direction = if skew.is_negative() { "ahead of" } else { "behind" };
    if skew.abs() >= SKEW_FAILS {
        let sentence = format!("our clock is {seconds} s {direction} the API server's: tokens and certificates fail");
        CLOCK_SKEW.failure(sentence, SET_THE_CLOCK)
    } else if skew.abs() >= SKEW_WARNS {
        CLOCK_SKEW.warning(format!("our clock is {seconds} s {direction} the API server's")).remedy(SET_THE_CLOCK)
    } else {
        CLOCK_SKEW.ok("our clock and the API server's agree")
    }
}

/// Who we are, what we may do, whether a change would pass.
async fn ask(cluster: &Cluster, subject: &Subject, audience: Option<&str>, found: &mut Vec<Finding>) {
    let cluster = cluster.until(Instant::now() + QUESTIONS_LIMIT);
    let needs = &subject.needs;
    let asked: Vec<_> = {
        let mut seen = BTreeSet::new();
        let all = required_permissions(needs).into_iter();
        all.filter(|permission| seen.insert(permission.code)).collect()
    };
    let secret = needs.secrets.first().map(String::as_str);
    let reviews = join_all(asked.iter().map(|permission| {
        let name = secret.filter(|_| permission.object == Object::State);
        review(&cluster, permission.verb, permission.resource, name)
    }));
    let dry_run = async {
        match secret {
            Some(name) => Some(rehearse(&cluster, name, subject.capver).await),
            None => None,
        }
    };
    let (who, reviews, dry_run) = tokio::join!(cluster.whoami(), reviews, dry_run);
    let refused = matches!(who, Err(Error::Unauthorized { .. }));
    found.push(judge_identity(&who, audience));
    if refused {
        return;
    }
    let identity = who.unwrap_or_default();
    let who = Who { namespace: cluster.namespace(), service_account: identity.service_account(), needs };
    let (exists, dry_run) = match dry_run {
        None => (None, None),
        Some(Dry::Accepted) => (Some(true), Some(Ok(true))),
        Some(Dry::Absent) => (Some(false), Some(Ok(false))),
        Some(Dry::Refused { reason, exists }) => (exists, Some(Err(reason))),
    };
    found.extend(asked.iter().zip(&reviews).map(|(permission, reviewed)| judge(permission, reviewed, exists, &who)));
    match dry_run {
        Some(outcome) => found.push(judge_dry_run(&outcome, &who)),
        None => found.push(RBAC_DRY_RUN.skipped("these settings use no Secret")),
    }
}

/// What became of the dry run.
enum Dry {
    /// It would be done.
    Accepted,
    /// There is no Secret.
    Absent,
    /// It would not be done; whether the Secret exists, as far as that is known.
    Refused { reason: String, exists: Option<bool> },
}

async fn rehearse(cluster: &Cluster, name: &str, capver: u32) -> Dry {
    // What boot writes first.
    let patch = KeyPatch::new().set(CAPVER, capver.to_string());
    match cluster.rehearse_merge(name, &patch).await {
        Ok(()) => Dry::Accepted,
        Err(Error::NotFound { .. }) => Dry::Absent,
        Err(error) => {
            // Access is checked before existence, so a refusal says nothing about the latter.
            let exists = cluster.secret(name).await.ok().map(|secret| secret.is_some());
            Dry::Refused { reason: chain(&error), exists }
        }
    }
}

async fn review(cluster: &Cluster, verb: Verb, resource: Resource, name: Option<&str>) -> Reviewed {
    match cluster.may(verb, resource, name).await {
        Ok(true) => Reviewed::Allowed,
        Ok(false) => Reviewed::Denied,
        Err(error) => Reviewed::Unknown(chain(&error)),
    }
}

fn judge_identity(who: &Result<Identity, Error>, audience: Option<&str>) -> Finding {
    match who {
        Ok(identity) => API_IDENTITY.ok(format!("the API server takes us for `{}`", identity.username)),
        Err(error @ Error::Unauthorized { .. }) => {
            let audience =
                audience.map(|audience| format!(", or for others than this API server: its audience is {audience}"));
            API_IDENTITY.failure(
                chain(error),
                format!(
                    "# the token is expired, of another cluster, of a service account that was deleted{}\nkubectl \
                     delete pod \"$POD_NAME\"  # a new Pod gets a new token",
                    audience.unwrap_or_default()
                ),
            )
        }
        Err(Error::NotFound { .. }) => API_IDENTITY.skipped("this API server cannot be asked who we are"),
        Err(error) => API_IDENTITY.warning(format!("it is not known who we are: {}", chain(error))),
    }
}

/// What cannot be asked when no Secret is used.
pub(super) fn without_secret(needs: &Needs) -> Option<&'static str> {
    needs.is_empty().then_some("these settings use no Secret; `--secret NAME` asks about one")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Level;

    #[test]
    fn clocks_are_compared() {
        let now: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        for (date, level, part) in [
            (Some("Sat, 21 Nov 2026 10:00:03 GMT"), Level::Ok, "agree"),
            (Some("Sat, 21 Nov 2026 10:00:30 GMT"), Level::Warning, "30 s behind"),
            (Some("Sat, 21 Nov 2026 09:58:00 GMT"), Level::Failure, "120 s ahead of"),
            (Some("yesterday"), Level::Skipped, "does not say"),
            (None, Level::Skipped, "does not say"),
        ] {
            let finding = judge_clock(date, now);
            assert!(finding.level == level && finding.sentence.contains(part), "{date:?}: {finding:?}");
        }
    }
}
