//! What the config says about a node that is up: preferences, serve config, advertised Services (api-proxy.md 9.8).
//!
//! A daemon of our own shall be exactly as the config says. Of somebody else's, only what the config names is changed.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::config::{Config, ServiceName};
use super::serve_config::{Ownership, Serving, desired, is_same, needs_clearing};
use crate::boot::prefs::{Change, masked};
use crate::causes::chain;
use crate::localapi::types::Prefs;
use crate::localapi::{Error, ErrorKind, LocalApi};

/// Tries against somebody else's changes, and against a daemon whose netmap is on its way.
const TRIES: u32 = 5;

/// Between tries.
const PAUSE: Duration = Duration::from_millis(500);

/// What is to be brought about.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    /// The config.
    pub(super) config: &'a Config,
    /// The tailnet's MagicDNS suffix.
    pub(super) suffix: Option<&'a str>,
    /// Where the proxy listens.
    pub(super) backend: SocketAddr,
    /// Whose the daemon is.
    pub(super) ownership: Ownership<'a>,
}

impl Wanted<'_> {
    /// The Service and where it leads, when one is served.
    pub(super) fn serving(&self) -> Result<Option<Serving<'_>>, String> {
        let Some(service) = self.config.served() else { return Ok(None) };
        let suffix = self.suffix.ok_or("the node's name has no MagicDNS suffix, so the Service has no name")?;
        Ok(Some(Serving { service, suffix, backend: self.backend }))
    }
}

/// Changes what differs, in the order in which peers shall see it: settings, what is served, what is advertised.
pub(super) async fn apply(api: &LocalApi, wanted: &Wanted<'_>) -> Result<(), String> {
    patch(api, |prefs| settings(prefs, wanted.config, wanted.ownership)).await.map_err(|error| chain(&error))?;
    let serving = wanted.serving()?;
    serve(api, serving.as_ref(), wanted.ownership)
        .await
        .map_err(|error| format!("cannot install the serve config: {}", chain(&error)))?;
    patch(api, |prefs| services(prefs, wanted.config, wanted.ownership)).await.map_err(|error| chain(&error))
}

/// Withdraws our Services. Whether there were any.
pub(super) async fn withdraw(api: &LocalApi, ownership: Ownership<'_>) -> Result<bool, Error> {
    let prefs = api.prefs().await?;
    let advertised = advertised(&prefs);
    let others = others(&advertised, ownership);
    if others == advertised {
        return Ok(false);
    }
    tracing::info!("unadvertising services: {:?}", advertised.difference(&others).collect::<Vec<_>>());
    let change = change(&prefs, "AdvertiseServices", json!(others));
    api.patch_prefs(&masked(&[change])).await?;
    Ok(true)
}

/// Takes what leads to us out of the serve config of a daemon that stays.
pub(super) async fn clear(api: &LocalApi, ownership: Ownership<'_>) -> Result<(), Error> {
    serve(api, None, ownership).await
}

async fn patch(api: &LocalApi, differing: impl Fn(&Prefs) -> Vec<Change>) -> Result<(), Error> {
    let changes = differing(&api.prefs().await?);
    if changes.is_empty() {
        return Ok(());
    }
    for change in &changes {
        tracing::info!("{change}");
    }
    api.patch_prefs(&masked(&changes)).await.map(drop)
}

fn settings(prefs: &Prefs, config: &Config, ownership: Ownership<'_>) -> Vec<Change> {
    let hostname = match ownership {
        Ownership::Whole => Some(config.hostname.as_deref().unwrap_or_default()),
        Ownership::Services(_) => config.hostname.as_deref(),
    };
    let hostname = hostname.map(|name| change(prefs, "Hostname", json!(name)));
    let routes = config.accept_routes.map(|accept| change(prefs, "RouteAll", json!(accept)));
    hostname.into_iter().chain(routes).filter(|change| change.old != change.new).collect()
}

fn services(prefs: &Prefs, config: &Config, ownership: Ownership<'_>) -> Vec<Change> {
    let advertised = advertised(prefs);
    let mut wanted = others(&advertised, ownership);
    wanted.extend(config.advertise_services.iter().map(ServiceName::as_str));
    if advertised == wanted {
        return Vec::new();
    }
    vec![change(prefs, "AdvertiseServices", json!(wanted))]
}

/// The Services among them that somebody else advertises.
fn others<'s>(advertised: &BTreeSet<&'s str>, ownership: Ownership<'_>) -> BTreeSet<&'s str> {
    match ownership {
        Ownership::Whole => BTreeSet::new(),
        Ownership::Services(ours) => {
            advertised.iter().copied().filter(|name| ours.iter().all(|ours| ours.as_str() != *name)).collect()
        }
    }
}

fn advertised(prefs: &Prefs) -> BTreeSet<&str> {
    let list = prefs.0.get("AdvertiseServices").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

fn change(prefs: &Prefs, member: &str, new: Value) -> Change {
    Change { member: member.to_owned(), old: prefs.0.get(member).cloned().unwrap_or(Value::Null), new }
}

/// Installs the serve config if another one is installed; tries again when somebody was quicker.
async fn serve(api: &LocalApi, serving: Option<&Serving<'_>>, ownership: Ownership<'_>) -> Result<(), Error> {
    let mut tries = 0;
    loop {
        tries += 1;
        match serve_once(api, serving, ownership).await {
            Err(error) if tries < TRIES && is_passing(&error) => tokio::time::sleep(PAUSE).await,
            served => return served,
        }
    }
}

async fn serve_once(api: &LocalApi, serving: Option<&Serving<'_>>, ownership: Ownership<'_>) -> Result<(), Error> {
    let installed = api.serve_config().await?;
    let wanted = desired(&installed.document, serving, ownership);
    if is_same(&installed.document, &wanted) {
        return Ok(());
    }
    if needs_clearing(&installed.document, &wanted) {
        let empty = desired(&installed.document, None, ownership);
        api.post_serve_config(&empty, installed.etag.as_deref()).await?;
        let cleared = api.serve_config().await?;
        api.post_serve_config(&wanted, cleared.etag.as_deref()).await?;
    } else {
        api.post_serve_config(&wanted, installed.etag.as_deref()).await?;
    }
    if let Some(serving) = serving {
        tracing::info!("serving {} as {}", serving.service, serving.domain());
    } else {
        tracing::info!("serving no Service");
    }
    Ok(())
}

fn is_passing(error: &Error) -> bool {
    matches!(error.kind, ErrorKind::NoNetmapYet | ErrorKind::EtagMismatch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::config::parse;

    const WHOLE: Ownership<'static> = Ownership::Whole;

    fn config(members: &str) -> Config {
        parse(&format!("{{\"version\":\"v1alpha1\"{members}}}")).unwrap().config
    }

    fn prefs(document: Value) -> Prefs {
        serde_json::from_value(document).unwrap()
    }

    fn told(changes: &[Change]) -> Vec<String> {
        changes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_what_differs_is_changed() {
        let current = prefs(json!({"Hostname": "a", "RouteAll": false, "AdvertiseServices": ["svc:b", "svc:a"]}));
        assert!(settings(&current, &config(r#","hostname":"a""#), WHOLE).is_empty());
        assert_eq!(
            told(&settings(&current, &config(r#","hostname":"b","acceptRoutes":true"#), WHOLE)),
            ["Hostname: \"a\" -> \"b\"", "RouteAll: false -> true"]
        );
        assert!(services(&current, &config(r#","advertiseServices":["svc:a","svc:b"]"#), WHOLE).is_empty());
        assert_eq!(told(&services(&current, &config(""), WHOLE)), ["AdvertiseServices: [\"svc:b\",\"svc:a\"] -> []"]);
        assert!(services(&prefs(json!({"AdvertiseServices": null})), &config(""), WHOLE).is_empty());
    }

    #[test]
    fn what_others_have_set_stays() {
        let ours: BTreeSet<ServiceName> = ["svc:a", "svc:b"].map(|name| name.parse().unwrap()).into();
        let beside = Ownership::Services(&ours);
        let current = prefs(json!({"Hostname": "theirs", "RouteAll": true, "AdvertiseServices": ["svc:a", "svc:x"]}));
        assert!(settings(&current, &config(""), beside).is_empty());
        assert_eq!(told(&settings(&current, &config(r#","hostname":"b""#), beside)), ["Hostname: \"theirs\" -> \"b\""]);
        let services = |members: &str| told(&services(&current, &config(members), beside));
        assert!(services(r#","advertiseServices":["svc:a"]"#).is_empty());
        let moved = ["AdvertiseServices: [\"svc:a\",\"svc:x\"] -> [\"svc:b\",\"svc:x\"]"];
        assert_eq!(services(r#","advertiseServices":["svc:b"]"#), moved);
        assert_eq!(services(""), ["AdvertiseServices: [\"svc:a\",\"svc:x\"] -> [\"svc:x\"]"]);
    }

    #[test]
    fn a_service_needs_a_suffix() {
        let config = config(r#","apiServerProxy":{"enabled":true,"serviceName":"svc:a"}"#);
        let wanted =
            Wanted { config: &config, suffix: None, backend: "127.0.0.1:80".parse().unwrap(), ownership: WHOLE };
        assert!(wanted.serving().is_err());
        let wanted = Wanted { suffix: Some("t.ts.net"), ..wanted };
        assert_eq!(wanted.serving().unwrap().unwrap().domain(), "a.t.ts.net");
    }
}
