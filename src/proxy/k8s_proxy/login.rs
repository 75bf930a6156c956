//! The login: settings as prefs and the auth key, through LocalAPI and nowhere else.

use serde_json::{Value, json};

use super::shell::Context;
use crate::boot::prefs::{Change, applied};
use crate::causes::chain;
use crate::localapi::types::{Prefs, StartOptions, State, Status};
use crate::localapi::{Error, LocalApi, Peers};
use crate::proxy::config::Config;
use crate::proxy::life::NotSubmitted;
use crate::secret::Secret;

/// Hands the settings to the daemon, and `key` when it has no identity or when `renew`. Whether it had to log in.
pub(super) async fn login(
    context: &Context,
    api: &LocalApi,
    config: &Config,
    key: Option<Secret<String>>,
    renew: bool,
) -> Result<bool, NotSubmitted> {
    let status = api.status(Peers::Omit).await.map_err(|error| judge(&error))?;
    let current = api.prefs().await.map_err(|error| judge(&error))?;
    let update_prefs = Some(starting_prefs(&current, config, context.settings.control_url.as_deref()));
    let needs_login = renew || needs_login(&status);
    let key = key.filter(|_| needs_login);
    if let Some(key) = &key {
        usable(key).map_err(NotSubmitted::Key)?;
    }
    tracing::info!(
        "{}",
        match (&key, needs_login) {
            (Some(_), _) => "logging in with an auth key",
            (None, true) => "logging in; there is no auth key",
            (None, false) => "starting with the identity that is there",
        }
    );
    api.start(&StartOptions { update_prefs, auth_key: key }).await.map_err(|error| judge(&error))?;
    if needs_login {
        api.login_interactive().await.map_err(|error| judge(&error))?;
    }
    Ok(needs_login)
}

fn judge(error: &Error) -> NotSubmitted {
    let text = chain(error);
    if error.is_answer() { NotSubmitted::Refused(text) } else { NotSubmitted::Silent(text) }
}

fn needs_login(status: &Status) -> bool {
    !status.have_node_key || State::from_name(&status.backend_state) == Some(State::NeedsLogin)
}

/// What the daemon can make nothing of, told before it says something obscure.
fn usable(key: &Secret<String>) -> Result<(), String> {
    let key = key.expose();
    if key.starts_with("tskey-client-") || key.starts_with("arn:") {
        return Err("the auth key is an OAuth client secret or a name of one, which only the tailscale command can \
                    turn into a login; put an auth key into the config"
            .to_owned());
    }
    Ok(())
}

/// The prefs of a node that comes up: the config's, and no Service of an earlier run.
fn starting_prefs(current: &Prefs, config: &Config, control_url: Option<&str>) -> Prefs {
    let mut changes = vec![
        change("WantRunning", json!(true)),
        change("LoggedOut", json!(false)),
        change("Hostname", json!(config.hostname.as_deref().unwrap_or_default())),
        change("AdvertiseServices", Value::Null),
    ];
    if let Some(url) = config.server_url.as_deref().or(control_url) {
        changes.push(change("ControlURL", json!(url)));
    }
    if let Some(accept) = config.accept_routes {
        changes.push(change("RouteAll", json!(accept)));
    }
    applied(current, &changes)
}

fn change(member: &str, new: Value) -> Change {
    Change { member: member.to_owned(), old: Value::Null, new }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::config::parse;

    #[test]
    fn the_config_becomes_prefs_and_the_rest_stays() {
        let current: Prefs = serde_json::from_value(json!({
            "ControlURL": "https://old", "Hostname": "old", "AdvertiseServices": ["svc:old"], "CorpDNS": true, "New": 1,
        }))
        .unwrap();
        let prefs = |members: &str, url: Option<&str>| {
            let config = parse(&format!("{{\"version\":\"v1alpha1\"{members}}}")).unwrap().config;
            Value::Object(starting_prefs(&current, &config, url).0)
        };
        let all = prefs(r#","hostname":"h","acceptRoutes":true,"serverURL":"https://s""#, Some("https://env"));
        assert_eq!(
            all,
            json!({
                "ControlURL": "https://s", "Hostname": "h", "AdvertiseServices": null, "CorpDNS": true, "New": 1,
                "RouteAll": true, "WantRunning": true, "LoggedOut": false,
            })
        );
        let bare = prefs("", Some("https://env"));
        assert_eq!((&bare["ControlURL"], &bare["Hostname"]), (&json!("https://env"), &json!("")));
        assert!(bare.get("RouteAll").is_none());
        assert_eq!(prefs("", None)["ControlURL"], "https://old");
    }

    #[test]
    fn keys_for_the_command_are_refused_in_words() {
        assert!(usable(&Secret::new("tskey-client-kX-y".to_owned())).is_err());
        assert!(usable(&Secret::new("tskey-auth-kX-y".to_owned())).is_ok());
    }
}
