//! The IPN bus as events of a state machine.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{BusUpdate, Device, LoginHealth, News};
use crate::causes::chain;
use crate::localapi::follow::{self, Wants};
use crate::localapi::mask::Phase;
use crate::localapi::model::Model;
use crate::localapi::types::LOGIN_STATE;
use crate::localapi::{BusEvent, Change, LocalApi, Peers, Support};

/// The newest model, peers included: for whoever looks names of the tailnet up.
pub type Newest = watch::Sender<Arc<Model>>;

/// Follows the bus until stopped. A slow loop loses nothing: what waits is merged by the mailbox.
///
/// With `newest` the daemon is asked for peers as well, and the model is there before the event that tells of it.
pub async fn follow<E: From<News>>(
    api: LocalApi,
    newest: Option<Newest>,
    events: mpsc::Sender<E>,
    stop: CancellationToken,
) {
    // The same mask for the whole life: what the login phase needs besides costs one message.
    let peers = if newest.is_some() { Peers::Include } else { Peers::Omit };
    let wants = Wants { peers, phase: Phase::Login };
    let (mut bus, reading) = follow::follow(api.clone(), wants, stop.clone());
    let mut told = false;
    let forwarding = async {
        while let Some(event) = bus.next().await {
            let news = match event {
                BusEvent::Opened => {
                    if !std::mem::replace(&mut told, true) {
                        tell_version(&api);
                    }
                    News::Opened
                }
                BusEvent::Changed(change) => {
                    if let Some(newest) = &newest {
                        newest.send_replace(Arc::clone(&change.model));
                    }
                    News::Update(update(change))
                }
                BusEvent::Lost(reason) => News::Lost(chain(&reason)),
                BusEvent::Trouble(text) => {
                    tracing::warn!("{text}");
                    continue;
                }
            };
            if events.send(news.into()).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = reading => {}
        () = forwarding => {}
        () = stop.cancelled() => {}
    }
}

/// A daemon from outside the tested range is worth a line; it is never a reason to stop (localapi.md 2.1).
fn tell_version(api: &LocalApi) {
    match api.versions().support() {
        Support::Tested | Support::Unknown => {}
        Support::TooOld(version) => {
            tracing::warn!("tailscaled {version} is older than what this version was tested with");
        }
        Support::Untested(version) => {
            tracing::info!("tailscaled {version} is newer than what this version was tested with");
        }
    }
}

/// What of a change decides something. Pure.
fn update(change: Change) -> BusUpdate {
    let Change { update, model } = change;
    if let Some(state) = &update.unknown_state {
        tracing::warn!("tailscaled is in a state this version does not know ({state}), waiting");
    }
    BusUpdate {
        state: update.state,
        netmap: update.netmap_relevant,
        browse_url: update.browse_url,
        error: update.err_message,
        login_health: update.health.map(|mut health| match health.warnings.remove(LOGIN_STATE) {
            Some(warning) => LoginHealth::Failing(warning),
            None => LoginHealth::Fine,
        }),
        device: model.self_device.as_ref().map(|device| Device {
            id: device.stable_id.clone(),
            fqdn: device.name.clone(),
            addresses: device.addresses.clone(),
            key_expired: device.expired || device.key_expiry.as_deref().is_some_and(has_passed),
        }),
        cert_domains: model.cert_domains.clone(),
    }
}

/// Whether a node key's expiry lies behind us. Go's zero time means that there is none.
fn has_passed(expiry: &str) -> bool {
    let expiry: Option<Timestamp> = expiry.parse().ok();
    expiry.is_some_and(|expiry| expiry > Timestamp::UNIX_EPOCH && expiry <= Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_of_the_past_has_passed_and_none_never_does() {
        assert!(has_passed("2024-05-01T12:00:00.5Z"));
        for later in ["2999-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "", "soon"] {
            assert!(!has_passed(later), "{later}");
        }
    }
}
