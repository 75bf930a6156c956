//! Whether a login has failed for good, and what follows: the next key, a new one, or the end (localapi.md 9,
//! 9.1). Pure.

use std::time::{Duration, Instant};

use super::super::login_failure::{self, Decision};
use super::auth::Suspect;
use super::{Action, Boot, Level, Login, LoginSource, Mode, Persona, Phase, Store};
use crate::localapi::types::State;
use crate::secret::redact_keys;

/// After a second key was handed over, a message about the first one may still be on its way...
const IN_FLIGHT: Duration = Duration::from_millis(300);

/// ...and a warning that says the same of both is not repeated; if it still stands by then it is about the second. So
/// is one that came while the key was being handed over.
pub(super) const STALE_WARNING: Duration = Duration::from_secs(5);

impl Boot {
    /// Every key was tried and refused.
    pub(super) fn out_of_keys(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let Phase::Authenticating(auth) = &mut self.phase else { return };
        let from_secret = auth.tried == Some(LoginSource::Secret);
        if from_secret && self.policy.store == Store::Writable {
            return self.reissue(
                "the auth key in the state Secret was refused, asking for a new one there".to_owned(),
                now,
                actions,
            );
        }
        let text = self.node.last_login_error.clone().unwrap_or_default();
        let class = login_failure::classify(&text);
        self.login_failed(class, &text, actions);
    }

    /// Decides whether the login has failed for good. `said` is what the daemon said just now.
    pub(super) fn weigh(&mut self, said: Option<&str>, now: Instant, actions: &mut Vec<Action>) {
        match (self.policy.mode, self.policy.persona) {
            (Mode::OneStep, _) => self.weigh_reissue(now, actions),
            (_, Persona::Tailpod) => self.weigh_key(said, now, actions),
            (_, Persona::Containerboot) => {}
        }
    }

    /// One-step: has the key of the config file failed?
    fn weigh_reissue(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let state = self.node.state;
        let Phase::Authenticating(auth) = &mut self.phase else { return };
        let since = auth.suspect.map_or(now, |suspect| suspect.since);
        let warning = auth.warning.as_ref();
        let decision = login_failure::reissue_decision(self.policy.persona, state, warning, since, now);
        auth.suspect = match decision {
            Decision::Withdrawn => None,
            Decision::Wait(more) => Some(Suspect { since, look_again: Some(now + more) }),
            // The boot deadline ends the wait.
            Decision::NotTheKey => Some(Suspect { since, look_again: None }),
            Decision::Reissue => return self.one_step_login_lost(state == Some(State::NeedsLogin), now, actions),
        };
    }

    /// tailpod with keys: the daemon's answer to the key it was handed.
    fn weigh_key(&mut self, said: Option<&str>, now: Instant, actions: &mut Vec<Action>) {
        let Phase::Authenticating(auth) = &self.phase else { return };
        let Login::Submitted(source, since) = &auth.login else { return };
        let stands = auth.warning.as_ref().and_then(|warning| warning.args.get("error"));
        let text = match said {
            Some(text) if auth.attempts <= 1 || now >= *since + IN_FLIGHT => text.to_owned(),
            None if now < *since + STALE_WARNING => return,
            None => stands.cloned().unwrap_or_default(),
            Some(_in_flight) => return,
        };
        let class = login_failure::classify(&text);
        let source = source.clone();
        if class.needs_new_key() {
            self.refused(&source, &text, now, actions);
        }
    }

    pub(super) fn refused(&mut self, source: &LoginSource, text: &str, now: Instant, actions: &mut Vec<Action>) {
        self.node.last_login_error = Some(text.to_owned());
        let class = login_failure::classify(text);
        let line = format!("{source} was refused: {}", redact_keys(text));
        actions.push(Action::Log(Level::Warn, line));
        if class.needs_new_key() {
            self.try_next_source(now, actions);
        } else {
            self.login_failed(class, text, actions);
        }
    }

    fn one_step_login_lost(&mut self, needs_login: bool, now: Instant, actions: &mut Vec<Action>) {
        if self.policy.store != Store::Writable {
            // Upstream acts on the warning only in kube-store mode.
            if !needs_login {
                return;
            }
            let text = "invalid state: tailscaled daemon started with a config file, but tailscale is not logged in: \
                        ensure you pass a valid auth key in the config file";
            if self.policy.is_tailpod()
                && let Some(why) = self.node.last_login_error.clone()
            {
                return self.login_failed(login_failure::classify(&why), &why, actions);
            }
            return self.fail(text.to_owned(), actions);
        }
        let line = if needs_login {
            "Auth key missing or invalid (NeedsLogin state), disconnecting from control and requesting new key from \
             operator"
        } else {
            "Auth key failed to authenticate (may be expired or single-use), disconnecting from control and \
             requesting new key from operator"
        };
        self.reissue(line.to_owned(), now, actions);
    }
}
