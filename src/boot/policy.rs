//! From settings to the few facts that decide the course of a boot. Pure.

use std::path::PathBuf;

use serde_json::Value;

use super::flags::{self, FlagsOutcome};
use super::machine::{LoginSource, Mode, Policy, Store};
use crate::settings::{self, CertShare, Login, Persona, Settings};

/// Where the bare `tailscale` CLI looks for the daemon.
pub const DEFAULT_SOCKET: &str = "/var/run/tailscale/tailscaled.sock";

/// The policy for these settings once it is known what may be done with the state Secret.
pub fn policy(settings: &Settings, store: Store) -> Policy {
    let desired = match (settings.persona, flags::desired_prefs(settings)) {
        (Persona::Tailpod, Ok(FlagsOutcome::Prefs(desired))) => Some(desired),
        // The CLI decides, or says what is wrong when it is needed.
        _ => None,
    };
    // `--timeout` is the login's deadline, a human's included (boot.md E.3).
    let limit = desired.as_ref().and_then(|desired| desired.timeout);
    let given = |member| desired.as_ref().and_then(|desired| desired.given.get(member));
    Policy {
        persona: settings.persona,
        mode: match settings.mode {
            settings::Mode::OneStep(_) => Mode::OneStep,
            settings::Mode::AuthOnce => Mode::AuthOnce,
            settings::Mode::AlwaysAuth => Mode::AlwaysAuth,
        },
        store,
        login_sources: match settings.persona {
            Persona::Containerboot => Vec::new(),
            Persona::Tailpod => login_sources(settings, store),
        },
        force_login: desired.as_ref().is_some_and(|desired| desired.force_reauth),
        control_url: given("ControlURL").and_then(Value::as_str).map(ToOwned::to_owned),
        tags: given("AdvertiseTags")
            .and_then(Value::as_array)
            .map(|tags| tags.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect())
            .unwrap_or_default(),
        boot_timeout: limit.map_or(settings.boot_timeout, |limit| limit.min(settings.boot_timeout)),
        login_timeout: limit.unwrap_or(settings.login_timeout),
        restart: settings.restart_daemon,
        delete_authkey: settings.delete_authkey,
        // tailpod changes only what differs, so nothing that goes on being served is ever cut (W26).
        clear_serve_config: clears_serve_config(settings),
        serve: settings.serve_config.is_some()
            || settings.advertising.is_automatic
            || settings.cert_share.is_some_and(CertShare::may_write),
        group: settings.forward.egress_config.is_some() || settings.forward.ingress_config.is_some(),
        firewall: settings.forward.is_l3(),
        forwards: settings.forward.has_own_rules(),
        tune_gro: settings.gro_forwarding,
        link_socket: settings.daemon.socket.as_os_str() != DEFAULT_SOCKET,
    }
}

/// Whether what a former run served is taken away before anything is served.
pub(super) fn clears_serve_config(settings: &Settings) -> bool {
    settings.persona == Persona::Containerboot && settings.serve_config.is_some() && !settings.keep_serve_config
}

/// The order of boot.md E.1 and issue text: file re-read, environment, Secret.
fn login_sources(settings: &Settings, store: Store) -> Vec<LoginSource> {
    if matches!(settings.mode, settings::Mode::OneStep(_)) {
        return Vec::new();
    }
    let mut sources = Vec::new();
    match &settings.login {
        Login::AuthKey(key) => sources.push(match key.expose().strip_prefix("file:") {
            Some(path) => LoginSource::File(PathBuf::from(path)),
            None => LoginSource::Environment,
        }),
        Login::Credentials(_) => sources.push(LoginSource::Credentials),
        Login::Interactive => {}
    }
    if store != Store::None {
        sources.push(LoginSource::Secret);
    }
    sources
}
