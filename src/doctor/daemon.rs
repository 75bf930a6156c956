//! tailscaled as its LocalAPI shows it: rights, version, state, health, prefs, routes, serve config.
//!
//! Asks and changes nothing: the right to change things is tried with `check-prefs`, which only answers.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::time::timeout;

use super::Subject;
use super::finding::{
    DAEMON_EXPIRY, DAEMON_HEALTH, DAEMON_PREFS, DAEMON_ROUTES, DAEMON_SOCKET, DAEMON_STATE, DAEMON_VERSION, Finding,
    SERVE_CERTIFICATE, SERVE_CONFIG,
};
use crate::localapi::types::{Prefs, State, Status};
use crate::localapi::{Error, ErrorKind, LocalApi, Peers, Support, Versions};
use crate::settings::{Mode, Routes, Settings};

/// One connection, one answer.
const STEP_LIMIT: Duration = Duration::from_secs(3);
/// Long enough for somebody to act on it.
const EXPIRES_SOON: SignedDuration = SignedDuration::from_hours(7 * 24);

/// What was learned, for the checks that depend on it.
#[derive(Debug, Default)]
pub(super) struct Learned {
    /// Whether tailscaled answers.
    pub(super) runs: bool,
    /// The control server of its prefs.
    pub(super) control: Option<String>,
}

/// Asks everything.
pub(super) async fn check(subject: &Subject) -> (Vec<Finding>, Learned) {
    let api = LocalApi::with_capability_version(&subject.socket, subject.capver);
    let mut found = Vec::new();
    if let Err(error) = api.probe(STEP_LIMIT).await {
        found.push(failed_socket(&error));
        return (found, Learned::default());
    }
    let status = timeout(STEP_LIMIT, api.status(Peers::Omit)).await;
    let status = match status {
        Ok(Ok(status)) => status,
        Ok(Err(error)) => {
            found.push(failed_socket(&error));
            return (found, Learned { runs: error.is_answer(), control: None });
        }
        Err(_) => {
            let remedy =
                "kubectl logs \"$POD_NAME\" --all-containers --tail=50  # what it waits for, often its state store";
            found.push(DAEMON_SOCKET.failure("tailscaled accepts connections and does not answer", remedy));
            return (found, Learned::default());
        }
    };
    let (prefs, serve) = tokio::join!(timeout(STEP_LIMIT, api.prefs()), timeout(STEP_LIMIT, api.serve_config()));
    let prefs = prefs.ok().and_then(Result::ok);
    let may_write = match &prefs {
        None => None,
        Some(prefs) => match timeout(STEP_LIMIT, api.check_prefs(prefs)).await {
            Ok(Ok(_)) => Some(true),
            Ok(Err(Error { kind: ErrorKind::AccessDenied { .. }, .. })) => Some(false),
            Ok(Err(_)) | Err(_) => None,
        },
    };
    let uid = nix::unistd::geteuid().as_raw();
    let settings = subject.settings.as_ref().ok();
    found.push(judge_rights(may_write, uid, &subject.socket.display().to_string()));
    found.push(judge_version(&api.versions(), subject.capver));
    found.push(judge_state(&status));
    found.push(judge_expiry(&status, Timestamp::now()));
    found.extend(judge_health(&status.health));
    match &prefs {
        Some(prefs) => {
            found.push(judge_prefs(prefs, settings));
            found.push(judge_routes(prefs, &status));
        }
        None => found.push(DAEMON_PREFS.skipped("tailscaled does not show its prefs")),
    }
    match serve {
        Ok(Ok(serve)) => found.push(judge_serve(&serve.document, &status.cert_domains)),
        Ok(Err(error)) => found.push(SERVE_CONFIG.warning(format!("the serve config cannot be read: {error}"))),
        Err(_) => found.push(SERVE_CONFIG.warning("tailscaled did not show its serve config in time")),
    }
    found.push(judge_certificates(may_write, &status.cert_domains, uid));
    let control = prefs.as_ref().and_then(|prefs| text(prefs, "ControlURL")).filter(|url| !url.is_empty());
    (found, Learned { runs: true, control: control.map(str::to_owned) })
}

fn failed_socket(error: &Error) -> Finding {
    let remedy = match &error.kind {
        ErrorKind::DaemonNotRunning { .. } => "kubectl logs \"$POD_NAME\" --all-containers --previous --tail=50  # why it \
                                               ended\n# or it listens elsewhere:\nenv:\n  - name: TS_SOCKET\n    value: \
                                               /path/of/its/--socket"
            .to_owned(),
        ErrorKind::SocketPermission(denied) => {
            let owner = denied.blocked_by.as_ref().map(|(_, owner)| *owner).or(denied.file);
            format!(
                "securityContext:\n  runAsUser: {}  # who runs tailscaled; we are {}",
                owner.map_or(0, |owner| owner.uid),
                denied.uid
            )
        }
        _ => format!(
            "kubectl logs \"$POD_NAME\" --all-containers --tail=50{}",
            error.hint().map(|hint| format!("  # {hint}")).unwrap_or_default()
        ),
    };
    DAEMON_SOCKET.failure(error.kind.to_string(), remedy)
}

/// Judges whether we may change things.
fn judge_rights(may_write: Option<bool>, uid: u32, socket: &str) -> Finding {
    match may_write {
        Some(true) => DAEMON_SOCKET.ok(format!("{socket} can be opened, with the right to change things")),
        Some(false) => DAEMON_SOCKET
            .warning(format!("{socket} can be opened, but as uid {uid} only to look"))
            .remedy(format!("securityContext:\n  runAsUser: 0  # or the uid that runs tailscaled\n# or, once, as root: tailscale set --operator={uid}")),
        None => DAEMON_SOCKET.ok(format!("{socket} can be opened; whether we may change things is not known")),
    }
}

/// Judges the daemon's version, and ours for it.
fn judge_version(versions: &Versions, capver: u32) -> Finding {
    let shown = versions.version.as_deref().unwrap_or("of unknown version").to_owned();
    match versions.support() {
        Support::TooOld(_) => {
            return DAEMON_VERSION.failure(
                format!("tailscaled {shown} is older than tailpod supports"),
                "FROM tailscale/tailscale:stable",
            );
        }
        Support::Untested(_) => {
            return DAEMON_VERSION
                .warning(format!("tailscaled {shown} is newer than tailpod was tested with"))
                .remedy("look for a newer tailpod");
        }
        Support::Tested | Support::Unknown => {}
    }
    match versions.capability {
        Some(theirs) if theirs < capver => DAEMON_VERSION
            .warning(format!(
                "tailscaled {shown} has capability version {theirs}, and these settings promise the operator {capver}"
            ))
            .remedy(format!("env:\n  - name: TAILPOD_CAPVER\n    value: \"{theirs}\"")),
        Some(theirs) => DAEMON_VERSION.ok(format!("tailscaled {shown}, capability version {theirs}")),
        None => DAEMON_VERSION.ok(format!("tailscaled {shown}")),
    }
}

/// Judges the backend's state.
fn judge_state(status: &Status) -> Finding {
    let state = State::from_name(&status.backend_state);
    match state {
        Some(State::Running) => {
            let name = status.self_.as_ref().map_or("", |node| node.dns_name.trim_end_matches('.'));
            let online = status.self_.as_ref().is_some_and(|node| node.online);
            let more = if online { "" } else { ", but not in touch with the control server" };
            let sentence = format!("the node runs as `{name}`{more}");
            if online { DAEMON_STATE.ok(sentence) } else { DAEMON_STATE.warning(sentence) }
        }
        Some(State::NeedsLogin) if !status.auth_url.is_empty() => DAEMON_STATE
            .failure("the node waits for a human to log in", format!("open {}", status.auth_url)),
        Some(State::NeedsLogin) => DAEMON_STATE
            .failure("the node is not logged in, and has no key that works", "tailpod authkey request --wait\n# or put a new key where the Pod gets it from:\nkubectl create secret generic tailpod-auth --from-literal=TS_AUTHKEY=tskey-auth-... --dry-run=client -o yaml | kubectl apply -f -"),
        Some(State::NeedsMachineAuth) => DAEMON_STATE
            .failure("the node waits for somebody to approve the device", "approve it at https://login.tailscale.com/admin/machines, or use a pre-approved auth key"),
        Some(State::Stopped) => {
            DAEMON_STATE.failure("the node was stopped: WantRunning is false", "tailscale up")
        }
        Some(State::InUseOtherUser) => DAEMON_STATE
            .failure("another user of this machine owns tailscaled", "tailscale status  # as the user who logged in; or end that session: tailscale logout"),
        Some(State::Starting) => DAEMON_STATE.warning("the node is logged in and starting; its data plane is not up yet"),
        Some(State::NoState) | None => DAEMON_STATE
            .warning("tailscaled has not decided yet whether it can log in; its state store may not answer"),
        Some(State::Unknown) => DAEMON_STATE.warning(format!("the state `{}` is not known here", status.backend_state)),
    }
}

/// Judges the node key.
fn judge_expiry(status: &Status, now: Timestamp) -> Finding {
    let remedy = "disable key expiry at https://login.tailscale.com/admin/machines, or use a tagged auth key: tagged nodes do not expire";
    let Some(node) = status.self_.as_ref().filter(|node| !node.id.is_empty()) else {
        return DAEMON_EXPIRY.skipped("the node has no key yet");
    };
    if node.expired {
        return DAEMON_EXPIRY.failure("the node key has expired", remedy);
    }
    match node.key_expiry.as_deref().and_then(|text| text.parse::<Timestamp>().ok()) {
        None => DAEMON_EXPIRY.ok("the node key does not expire"),
        Some(end) if end <= now => DAEMON_EXPIRY.failure(format!("the node key expired at {end}"), remedy),
        Some(end) if end.duration_since(now) < EXPIRES_SOON => {
            DAEMON_EXPIRY.warning(format!("the node key expires at {end}")).remedy(remedy)
        }
        Some(end) => DAEMON_EXPIRY.ok(format!("the node key expires at {end}")),
    }
}

fn judge_health(texts: &[String]) -> Vec<Finding> {
    if texts.is_empty() {
        return vec![DAEMON_HEALTH.ok("tailscaled reports no trouble")];
    }
    texts.iter().map(|text| DAEMON_HEALTH.warning(text.trim())).collect()
}

/// Judges the prefs against the settings.
fn judge_prefs(prefs: &Prefs, settings: Option<&Settings>) -> Finding {
    if !flag(prefs, "WantRunning") {
        return DAEMON_PREFS.failure("the prefs say that the node shall not run", "tailscale up");
    }
    let Some(settings) = settings else { return DAEMON_PREFS.skipped("there are no settings to compare with") };
    if matches!(settings.mode, Mode::OneStep(_)) {
        return DAEMON_PREFS.ok("the config file decides about the prefs");
    }
    let mut different = Vec::new();
    let mut compare = |what: &str, is: String, wanted: String| {
        if is != wanted {
            different.push(format!("{what} is {is} and should be {wanted}"));
        }
    };
    compare("CorpDNS", flag(prefs, "CorpDNS").to_string(), settings.node.accept_dns.to_string());
    if let Some(hostname) = &settings.node.hostname {
        compare("Hostname", format!("`{}`", text(prefs, "Hostname").unwrap_or_default()), format!("`{hostname}`"));
    }
    if let (Routes::Set(_), Ok(mut wanted)) = (&settings.node.routes, settings.node.routes.prefixes()) {
        wanted.sort_by_key(ToString::to_string);
        let wanted: Vec<_> = wanted.iter().map(ToString::to_string).collect();
        compare("AdvertiseRoutes", format!("[{}]", routes(prefs).join(", ")), format!("[{}]", wanted.join(", ")));
    }
    if different.is_empty() {
        return DAEMON_PREFS.ok("the prefs are what the settings say");
    }
    DAEMON_PREFS
        .warning(format!("the prefs differ from the settings: {}", different.join("; ")))
        .remedy("kubectl delete pod \"$POD_NAME\"  # `tailpod boot` applies the settings at every start")
}

/// Judges whether what is advertised is approved.
fn judge_routes(prefs: &Prefs, status: &Status) -> Finding {
    let advertised = routes(prefs);
    if advertised.is_empty() {
        return DAEMON_ROUTES.skipped("no routes are advertised");
    }
    let approved: Vec<_> = status.self_.iter().flat_map(|node| &node.allowed_ips).map(ToString::to_string).collect();
    let waiting: Vec<_> = advertised.iter().filter(|route| !approved.contains(route)).collect();
    if waiting.is_empty() {
        return DAEMON_ROUTES.ok(format!("all {} advertised routes are approved", advertised.len()));
    }
    let names = waiting.iter().map(|route| route.as_str()).collect::<Vec<_>>().join(", ");
    let tags = prefs.0.get("AdvertiseTags").and_then(Value::as_array).cloned().unwrap_or_default();
    let approver = tags.first().and_then(Value::as_str).unwrap_or("tag:k8s");
    let grants: Vec<_> = waiting.iter().map(|route| format!("    \"{route}\": [\"{approver}\"]")).collect();
    DAEMON_ROUTES.warning(format!("routes that nobody approved: {names}")).remedy(format!(
        "// in the tailnet policy file\n\"autoApprovers\": {{\n  \"routes\": {{\n{}\n  }}\n}}",
        grants.join(",\n")
    ))
}

/// Judges the serve config against the names that certificates can be had for.
fn judge_serve(document: &Value, cert_domains: &[String]) -> Finding {
    let members = ["TCP", "Web", "Services"].map(|member| document.get(member).and_then(Value::as_object));
    let count: usize = members.iter().flatten().map(|member| member.len()).sum();
    if count == 0 {
        return SERVE_CONFIG.ok("nothing is served");
    }
    let is_https = |handler: &Value| handler.get("HTTPS").and_then(Value::as_bool) == Some(true);
    let https = members[0].is_some_and(|tcp| tcp.values().any(is_https));
    if https && cert_domains.is_empty() {
        return SERVE_CONFIG.failure(
            "HTTPS is served, and the tailnet issues no certificates",
            "enable MagicDNS and HTTPS at https://login.tailscale.com/admin/dns",
        );
    }
    SERVE_CONFIG.ok(format!("{count} handlers are served"))
}

/// Judges whether certificates may be fetched.
fn judge_certificates(may_write: Option<bool>, cert_domains: &[String], uid: u32) -> Finding {
    if cert_domains.is_empty() {
        return SERVE_CERTIFICATE.skipped("the tailnet issues no certificates for this node");
    }
    let names = cert_domains.join(", ");
    match may_write {
        Some(true) => SERVE_CERTIFICATE.ok(format!("certificates can be fetched for {names}")),
        None => SERVE_CERTIFICATE.skipped("whether certificates may be fetched is not known"),
        Some(false) => SERVE_CERTIFICATE
            .warning(format!("uid {uid} may fetch certificates for {names} only if TS_PERMIT_CERT_UID names it"))
            .remedy(format!(
                "env:  # of the container that runs tailscaled\n  - name: TS_PERMIT_CERT_UID\n    value: \"{uid}\""
            )),
    }
}

fn flag(prefs: &Prefs, member: &str) -> bool {
    prefs.0.get(member).and_then(Value::as_bool).unwrap_or_default()
}

fn text<'p>(prefs: &'p Prefs, member: &str) -> Option<&'p str> {
    prefs.0.get(member).and_then(Value::as_str)
}

fn routes(prefs: &Prefs) -> Vec<String> {
    let list = prefs.0.get("AdvertiseRoutes").and_then(Value::as_array);
    let mut routes: Vec<_> = list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    routes.sort();
    routes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::doctor::finding::Level;
    use crate::settings::{Persona, read};

    fn status(value: Value) -> Status {
        serde_json::from_value(value).unwrap()
    }

    fn prefs(value: &Value) -> Prefs {
        serde_json::from_value(value.clone()).unwrap()
    }

    #[test]
    fn states_say_what_to_do() {
        for (value, level, remedy) in [
            (
                json!({"BackendState": "Running", "Self": {"ID": "n", "DNSName": "a.ts.net.", "Online": true}}),
                Level::Ok,
                None,
            ),
            (json!({"BackendState": "Running", "Self": {"ID": "n", "DNSName": "a.ts.net."}}), Level::Warning, None),
            (json!({"BackendState": "NeedsLogin", "AuthURL": "https://x/a"}), Level::Failure, Some("open https://x/a")),
            (json!({"BackendState": "NeedsLogin"}), Level::Failure, Some("tailpod authkey request --wait")),
            (json!({"BackendState": "NeedsMachineAuth"}), Level::Failure, Some("approve it")),
            (json!({"BackendState": "Stopped"}), Level::Failure, Some("tailscale up")),
            (json!({"BackendState": "Starting"}), Level::Warning, None),
            (json!({"BackendState": "NoState"}), Level::Warning, None),
            (json!({"BackendState": "Hibernating"}), Level::Warning, None),
        ] {
            let finding = judge_state(&status(value.clone()));
            assert_eq!(finding.level, level, "{value}: {finding:?}");
            let got = finding.remedy.unwrap_or_default();
            assert!(
                got.starts_with(remedy.unwrap_or_default()) && got.is_empty() == remedy.is_none(),
                "{value}: {got}"
            );
        }
    }

    #[test]
    fn versions_are_compared() {
        let versions = |version: &str, capability| Versions { version: Some(version.to_owned()), capability };
        for (versions, level) in [
            (versions("1.104.5-tabc", Some(148)), Level::Ok),
            (versions("1.98.2-tabc", Some(138)), Level::Warning),
            (versions("1.70.0-tabc", Some(100)), Level::Failure),
            (versions("1.200.0-tabc", Some(200)), Level::Warning),
            (versions("mine", None), Level::Ok),
            (Versions::default(), Level::Ok),
        ] {
            assert_eq!(judge_version(&versions, 148).level, level, "{versions:?}");
        }
        let remedy = judge_version(&versions("1.98.2", Some(138)), 148).remedy.unwrap();
        assert!(remedy.contains("TAILPOD_CAPVER\n    value: \"138\""), "{remedy}");
    }

    #[test]
    fn keys_expire() {
        let now: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        for (node, level) in [
            (json!({"ID": "n"}), Level::Ok),
            (json!({"ID": ""}), Level::Skipped),
            (json!({"ID": "n", "Expired": true}), Level::Failure),
            (json!({"ID": "n", "KeyExpiry": "2026-11-21T09:00:00Z"}), Level::Failure),
            (json!({"ID": "n", "KeyExpiry": "2026-11-25T09:00:00Z"}), Level::Warning),
            (json!({"ID": "n", "KeyExpiry": "2027-05-01T09:00:00Z"}), Level::Ok),
        ] {
            assert_eq!(judge_expiry(&status(json!({"Self": node})), now).level, level, "{node}");
        }
    }

    #[test]
    fn prefs_are_compared_with_the_settings() {
        let vars = BTreeMap::from([
            ("TS_HOSTNAME", "web"),
            ("TS_ROUTES", "10.1.0.0/16,10.0.0.0/16"),
            ("TS_AUTH_ONCE", "true"),
        ]);
        let settings = read(&vars, Persona::Tailpod).unwrap();
        let good = json!({"WantRunning": true, "CorpDNS": false, "Hostname": "web", "AdvertiseRoutes": ["10.0.0.0/16", "10.1.0.0/16"]});
        assert_eq!(judge_prefs(&prefs(&good), Some(&settings)).level, Level::Ok);
        for (member, value, part) in [
            ("Hostname", json!("db"), "Hostname is `db` and should be `web`"),
            ("CorpDNS", json!(true), "CorpDNS is true and should be false"),
            ("AdvertiseRoutes", Value::Null, "AdvertiseRoutes is [] and should be [10.0.0.0/16, 10.1.0.0/16]"),
        ] {
            let mut changed = good.clone();
            changed[member] = value;
            let finding = judge_prefs(&prefs(&changed), Some(&settings));
            assert!(finding.level == Level::Warning && finding.sentence.ends_with(part), "{finding:?}");
        }
        assert_eq!(judge_prefs(&prefs(&json!({"WantRunning": false})), Some(&settings)).level, Level::Failure);
    }

    #[test]
    fn routes_that_wait_for_approval_come_with_the_grant() {
        let advertised =
            prefs(&json!({"AdvertiseRoutes": ["10.0.0.0/8", "fd00::/8"], "AdvertiseTags": ["tag:router"]}));
        let some = status(json!({"Self": {"ID": "n", "AllowedIPs": ["100.64.0.1/32", "10.0.0.0/8"]}}));
        let finding = judge_routes(&advertised, &some);
        assert_eq!(finding.level, Level::Warning);
        assert!(finding.remedy.unwrap().contains("    \"fd00::/8\": [\"tag:router\"]\n"));
        let all = status(json!({"Self": {"ID": "n", "AllowedIPs": ["10.0.0.0/8", "fd00::/8"]}}));
        assert_eq!(judge_routes(&advertised, &all).level, Level::Ok);
        assert_eq!(judge_routes(&prefs(&json!({"AdvertiseRoutes": null})), &all).level, Level::Skipped);
    }

    #[test]
    fn certificates_need_a_tailnet_that_issues_them_and_a_right() {
        let https = json!({"TCP": {"443": {"HTTPS": true}}, "Web": {"a:443": {}}});
        let domains = ["a.ts.net".to_owned()];
        assert_eq!(judge_serve(&json!({}), &[]).level, Level::Ok);
        assert_eq!(judge_serve(&https, &[]).level, Level::Failure);
        assert_eq!(judge_serve(&https, &domains).level, Level::Ok);
        assert_eq!(judge_serve(&json!({"TCP": {"80": {"HTTP": true}}}), &[]).level, Level::Ok);
        assert_eq!(judge_certificates(Some(true), &[], 7).level, Level::Skipped);
        assert_eq!(judge_certificates(Some(true), &domains, 7).level, Level::Ok);
        let finding = judge_certificates(Some(false), &domains, 7);
        assert!(finding.level == Level::Warning && finding.remedy.unwrap().contains("value: \"7\""));
    }
}
