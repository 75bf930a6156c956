//! What the config says about a node that is up: preferences, serve config, advertised Services (api-proxy.md 9.8).
//!
//! A daemon of our own shall be exactly as the config says. Of somebody else's, only what the config names is changed.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::config::Config;
use super::serve_config::{Serving, desired};
use crate::causes::chain;
use crate::localapi::prefs::{Change, masked};
use crate::localapi::types::Prefs;
use crate::localapi::{Error, LocalApi};
use crate::serve::advertise::{Ownership, advertise};
use crate::serve::apply::{self as serve, Applied};

/// With a daemon whose netmap is on its way.
const PATIENCE: Duration = Duration::from_secs(3);

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
    /// Whether the daemon has just come up: it assigns the addresses of a Service that it knew before its start only for
    /// a serve config that is set again, equal or not (upstream clears it once, too).
    pub(super) anew: bool,
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
    set(api, wanted.config, wanted.ownership).await.map_err(|error| chain(&error))?;
    let serving = wanted.serving()?;
    serve(api, serving.as_ref(), wanted)
        .await
        .map_err(|error| format!("cannot install the serve config: {}", chain(&error)))?;
    let services = wanted.config.advertise_services.iter().map(ToString::to_string).collect();
    advertise(api, &services, wanted.ownership).await.map(drop).map_err(|error| chain(&error))
}

/// Takes what leads to us out of the serve config of a daemon that stays.
pub(super) async fn clear(api: &LocalApi, ownership: Ownership<'_>) -> Result<(), Error> {
    install(api, None, ownership).await.map(drop)
}

/// Changes the settings that differ.
async fn set(api: &LocalApi, config: &Config, ownership: Ownership<'_>) -> Result<(), Error> {
    let changes = settings(&api.prefs().await?, config, ownership);
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

fn change(prefs: &Prefs, member: &str, new: Value) -> Change {
    Change { member: member.to_owned(), old: prefs.0.get(member).cloned().unwrap_or(Value::Null), new }
}

/// Installs the serve config if another one is installed; after a start of the daemon, whatever is installed.
async fn serve(api: &LocalApi, serving: Option<&Serving<'_>>, wanted: &Wanted<'_>) -> Result<(), Error> {
    if wanted.anew {
        clear(api, wanted.ownership).await?;
    }
    match (install(api, serving, wanted.ownership).await?, serving) {
        (Applied::Unchanged, _) => {}
        (Applied::Changed, Some(serving)) => tracing::info!("serving {} as {}", serving.service, serving.domain()),
        (Applied::Changed, None) => tracing::info!("serving no Service"),
    }
    Ok(())
}

async fn install(api: &LocalApi, serving: Option<&Serving<'_>>, ownership: Ownership<'_>) -> Result<Applied, Error> {
    serve::apply(api, |installed| desired(installed, serving, ownership), PATIENCE).await
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
    }

    #[test]
    fn what_others_have_set_stays() {
        let ours = ["svc:a", "svc:b"].map(str::to_owned).into();
        let beside = Ownership::Services(&ours);
        let current = prefs(json!({"Hostname": "theirs", "RouteAll": true, "AdvertiseServices": ["svc:a", "svc:x"]}));
        assert!(settings(&current, &config(""), beside).is_empty());
        assert_eq!(told(&settings(&current, &config(r#","hostname":"b""#), beside)), ["Hostname: \"theirs\" -> \"b\""]);
    }

    #[test]
    fn a_service_needs_a_suffix() {
        let config = config(r#","apiServerProxy":{"enabled":true,"serviceName":"svc:a"}"#);
        let backend = "127.0.0.1:80".parse().unwrap();
        let wanted = Wanted { config: &config, suffix: None, backend, ownership: WHOLE, anew: false };
        assert!(wanted.serving().is_err());
        let wanted = Wanted { suffix: Some("t.ts.net"), ..wanted };
        assert_eq!(wanted.serving().unwrap().unwrap().domain(), "a.t.ts.net");
    }
}
