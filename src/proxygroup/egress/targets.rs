//! The addresses of tailnet names, remembered over a short absence. Pure.
//!
//! Peers flap while they get new keys; rules that went with them would cost every client its connection
//! (ha-services.md 8.4).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long the last addresses of a target that is gone stay in use.
pub const GRACE: Duration = Duration::from_secs(60);

/// What was last known of each name.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    known: BTreeMap<String, Known>,
}

#[derive(Clone, Debug)]
struct Known {
    addresses: Vec<IpAddr>,
    /// Since when it does not resolve.
    gone: Option<Instant>,
}

/// What a name means now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// These addresses.
    Here(Vec<IpAddr>),
    /// The last ones, until then; why it does not resolve.
    Away(Vec<IpAddr>, Instant, String),
    /// None, and why.
    Nowhere(String),
}

impl Targets {
    /// Takes the newest resolution of a name.
    pub fn look(&mut self, name: &str, resolved: Result<Vec<IpAddr>, String>, now: Instant) -> Found {
        let why = match resolved {
            Ok(addresses) if !addresses.is_empty() => {
                self.known.insert(name.to_owned(), Known { addresses: addresses.clone(), gone: None });
                return Found::Here(addresses);
            }
            Ok(_) => "it has no address".to_owned(),
            Err(why) => why,
        };
        let Some(known) = self.known.get_mut(name) else { return Found::Nowhere(why) };
        let until = *known.gone.get_or_insert(now) + GRACE;
        if now < until {
            return Found::Away(known.addresses.clone(), until, why);
        }
        self.known.remove(name);
        Found::Nowhere(why)
    }

    /// Forgets what nobody asks for any more.
    pub fn keep(&mut self, wanted: impl Fn(&str) -> bool) {
        self.known.retain(|name, _| wanted(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_flaps_keeps_its_addresses_for_a_minute() {
        let (mut targets, start) = (Targets::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let here = || Ok(vec!["100.64.0.2".parse().unwrap()]);
        let gone = || Err("no peer".to_owned());
        assert_eq!(targets.look("a", gone(), at(0)), Found::Nowhere("no peer".to_owned()));
        assert_eq!(targets.look("a", here(), at(1)), Found::Here(here().unwrap()));
        let away = Found::Away(here().unwrap(), at(70), "no peer".to_owned());
        assert_eq!(targets.look("a", gone(), at(10)), away);
        assert_eq!(targets.look("a", gone(), at(69)), away, "the minute began when it went");
        assert_eq!(targets.look("a", here(), at(69)), Found::Here(here().unwrap()));
        assert!(matches!(targets.look("a", gone(), at(75)), Found::Away(..)), "a minute of its own");
        assert_eq!(targets.look("a", gone(), at(135)), Found::Nowhere("no peer".to_owned()));
        assert_eq!(targets.look("b", Ok(Vec::new()), at(135)), Found::Nowhere("it has no address".to_owned()));
    }

    #[test]
    fn what_nobody_wants_is_forgotten() {
        let (mut targets, now) = (Targets::default(), Instant::now());
        targets.look("a", Ok(vec!["100.64.0.2".parse().unwrap()]), now);
        targets.keep(|name| name != "a");
        assert!(matches!(targets.look("a", Err(String::new()), now), Found::Nowhere(_)));
    }
}
