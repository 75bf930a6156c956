//! Which names the tailnet allows, followed on the IPN bus and asked for besides.
//!
//! The bus tells of changes at once, except those that carry no self change; `cert-domains` is asked every half minute.
//! When neither can be had for a minute, [`Allowed::Unusable`] lets the loops ask for certificates all the same.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::world::Allowed;
use crate::localapi::follow::{Wants, follow};
use crate::localapi::model::Model;
use crate::localapi::{BusEvent, LocalApi};
use crate::serve::document::NodeFacts;

/// Between questions.
const POLL: Duration = Duration::from_secs(30);
/// Without any news.
const GIVE_UP: Duration = Duration::from_secs(60);

/// What follows from the node's state.
#[derive(Debug, Default)]
pub struct Told {
    /// For the certificate loops.
    pub allowed: watch::Sender<Allowed>,
    /// For the serve config.
    pub facts: watch::Sender<NodeFacts>,
    /// How often the bus was opened: each time, it may be another daemon that has forgotten what it was told.
    pub opened: watch::Sender<u64>,
}

impl Told {
    /// Takes over what the node is like now; whether it has to be asked if there are no names any more.
    ///
    /// The bus tells of the node before anybody knows its names: that there are none is believed of an answer only. A
    /// name that seems to go and to come back would be asked for again.
    #[must_use]
    pub fn tell(&self, model: &Model) -> bool {
        set(&self.facts, facts(model));
        if model.self_device.is_none() {
            return false;
        }
        if model.cert_domains.is_empty() {
            return *self.allowed.borrow() != Allowed::of(&[]);
        }
        set(&self.allowed, Allowed::of(&model.cert_domains));
        false
    }
}

/// What a serve config may depend on.
pub fn facts(model: &Model) -> NodeFacts {
    let name = model.self_device.as_ref().map(|device| device.name.trim_end_matches('.'));
    NodeFacts {
        known: model.self_device.is_some(),
        cert_domain: model.cert_domains.first().cloned(),
        suffix: name.and_then(|name| name.split_once('.')).map(|(_, suffix)| suffix.to_owned()),
    }
}

/// Follows until `stop`.
pub async fn keep_told(api: LocalApi, told: Told, stop: CancellationToken) {
    let (mut bus, run) = follow(api.clone(), Wants::default(), stop.clone());
    let read = async {
        let mut poll = Instant::now();
        let mut last_news = Instant::now();
        loop {
            tokio::select! {
                event = bus.next() => match event {
                    Some(BusEvent::Changed(change)) => {
                        last_news = Instant::now();
                        if told.tell(&change.model) {
                            poll = last_news;
                        }
                    }
                    Some(BusEvent::Opened) => {
                        poll = Instant::now();
                        told.opened.send_modify(|opened| *opened += 1);
                    }
                    Some(BusEvent::Lost(_) | BusEvent::Trouble(_)) => {}
                    None => return,
                },
                () = sleep_until(poll) => {
                    poll = Instant::now() + POLL;
                    match api.cert_domains().await {
                        Ok(domains) => {
                            last_news = Instant::now();
                            set(&told.allowed, Allowed::of(&domains));
                        }
                        Err(error) => tracing::debug!(%error, "the names for certificates are not known"),
                    }
                    if last_news.elapsed() >= GIVE_UP {
                        set(&told.allowed, Allowed::Unusable);
                    }
                }
            }
        }
    };
    tokio::join!(run, read);
}

/// Replaces what is known, which is news only if it differs.
pub fn set<T: PartialEq>(sender: &watch::Sender<T>, value: T) {
    sender.send_if_modified(|known| {
        let differs = *known != value;
        *known = value;
        differs
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_whose_names_are_not_known_yet_loses_none() {
        let (told, mut model) = (Told::default(), Model::default());
        assert!(!told.tell(&model), "there is no node yet");
        let names = Allowed::of(&["a.ts.net".to_owned()]);
        set(&told.allowed, names.clone());
        let node =
            json!({"SelfChange": {"ID": 1, "StableID": "n1", "Name": "a.ts.net.", "Addresses": ["100.64.0.1/32"]}});
        model.apply(serde_json::from_value(node).unwrap());
        assert!(told.tell(&model), "to be asked");
        assert_eq!(*told.allowed.borrow(), names);
        set(&told.allowed, Allowed::of(&[]));
        assert!(!told.tell(&model), "it was asked");
        model.cert_domains = vec!["b.ts.net".to_owned()];
        assert!(!told.tell(&model));
        assert_eq!(*told.allowed.borrow(), Allowed::of(&["b.ts.net".to_owned()]));
    }
}
