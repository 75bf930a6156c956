//! Applies changed settings to a node that is already logged in (boot.md E.3), instead of the CLI's refusal.

use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::flags::{self, FlagsOutcome};
use super::prefs::{self, Identity};
use super::{argv, chain, login};
use crate::secret::redact;

/// Compares and patches. Each change is logged as `old -> new`; nothing is sent when nothing differs.
pub(super) async fn apply(context: &Context, stop: &CancellationToken) -> Result<(), String> {
    let desired = match flags::desired_prefs(&context.settings).map_err(|error| error.to_string())? {
        FlagsOutcome::Prefs(desired) => desired,
        FlagsOutcome::NeedsCli { flag } => {
            tracing::info!("TS_EXTRA_ARGS has {flag}, which only the tailscale command knows; using it");
            // The identity is good: no key is handed over.
            let command = argv::up(&context.settings, None).without_secrets();
            return login::run_tailscale(context, command, stop).await.map_err(|error| error.to_string());
        }
    };
    let current = context.api.prefs().await.map_err(|error| chain(&error))?;
    let changes = prefs::drift(&current, &desired, Identity::Known);
    if changes.is_empty() {
        return Ok(());
    }
    for note in &desired.notes {
        tracing::info!("{note}");
    }
    for change in &changes {
        tracing::info!("{}", redact(&format!("changing {change}")));
    }
    if prefs::needs_login(&changes) {
        tracing::warn!(
            "tags and control server take effect with a new login: add --force-reauth to TS_EXTRA_ARGS once"
        );
    }
    context.api.patch_prefs(&prefs::masked(&changes)).await.map(|_new| ()).map_err(|error| chain(&error))
}
