//! What the node's own packet rules have to do with the steady pass: the device's id before them, its addresses only
//! after them (boot.md 5.4). Pure.
//!
//! The rules themselves are made elsewhere, from the addresses that [`Action::Forward`] hands over and what names stand
//! for; what comes back says how they stand. A target that cannot be found is waited for, never a reason to leave (W1,
//! W17).

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{Action, Boot, Device, Phase, Store};

/// What the first rules are given where the boot deadline passed before the node was up, because a human logged it in.
const FIRST_RULES: Duration = Duration::from_secs(2);

/// How the node's own packet rules stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forwarding {
    /// They are in force for these addresses of the node.
    InForce(Vec<IpAddr>),
    /// Something is missing that may come; what was in force stays.
    Waiting(String),
    /// They were refused, and are being tried again.
    Refused(String),
    /// They cannot be for this node.
    Impossible(String),
}

/// What is known of them.
#[derive(Debug, Default)]
pub(super) struct Rules {
    /// The id that is or is being written.
    id: Option<String>,
    id_settled: bool,
    /// The addresses that rules were last asked for, and since when any were.
    asked: Option<Vec<IpAddr>>,
    since: Option<Instant>,
    in_force: Option<Vec<IpAddr>>,
    pub(super) answered: bool,
    pub(super) problem: Option<String>,
    /// Why the first ones are not in force.
    refused: Option<String>,
}

impl Boot {
    /// Whether the pass has to wait for rules.
    pub fn forwards(&self) -> bool {
        self.policy.forwards
    }

    /// One pass of boot.md 5.4 where packets are forwarded.
    pub(super) fn forwarding_pass(&mut self, device: Device, now: Instant, actions: &mut Vec<Action>) {
        let writable = self.policy.store == Store::Writable;
        let rules = &mut self.node.rules;
        if writable && rules.id.as_ref() != Some(&device.id) {
            rules.id = Some(device.id.clone());
            rules.id_settled = false;
            actions.push(Action::PublishId(device.id.clone()));
        }
        if writable && !rules.id_settled {
            return;
        }
        if rules.asked.as_ref() != Some(&device.addresses) {
            rules.asked = Some(device.addresses.clone());
            rules.since.get_or_insert(now);
            actions.push(Action::Forward(device.addresses.clone()));
        }
        if !rules.answered {
            return;
        }
        let routed = rules.in_force.as_ref() == Some(&device.addresses) && rules.problem.is_none();
        if routed {
            self.publish(device, actions);
        }
        self.serve(actions);
        if routed {
            self.settle(actions);
        }
    }

    /// The device's id is in the Secret, or on its way there for a while.
    pub(super) fn id_settled(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.node.rules.id_settled = true;
        self.pass_again(now, actions);
    }

    /// News of the rules.
    pub(super) fn forwarding(&mut self, news: Forwarding, now: Instant, actions: &mut Vec<Action>) {
        let rules = &mut self.node.rules;
        match news {
            Forwarding::InForce(own) => {
                rules.in_force = Some(own);
                rules.answered = true;
                rules.problem = None;
                rules.refused = None;
            }
            Forwarding::Waiting(why) => {
                rules.answered = true;
                rules.problem = Some(why);
                rules.refused = None;
            }
            Forwarding::Refused(why) => {
                rules.refused = rules.in_force.is_none().then(|| why.clone());
                rules.problem = Some(why);
            }
            Forwarding::Impossible(why) => return self.fail(why, actions),
        }
        self.pass_again(now, actions);
    }

    fn pass_again(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Steady(_)) && self.forwards() {
            self.pass(now, actions);
        }
    }

    /// When the first rules must have been accepted, while they are refused.
    pub(super) fn rules_deadline(&self) -> Option<Instant> {
        let rules = &self.node.rules;
        rules.refused.as_ref()?;
        let steady = matches!(self.phase, Phase::Steady(_));
        steady.then(|| rules.since.map_or(self.deadline, |since| self.deadline.max(since + FIRST_RULES)))
    }

    /// A proxy whose first rules are not accepted in time is none (netfilter.md 8, rule 9).
    pub(super) fn rules_tick(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.rules_deadline().is_some_and(|deadline| now >= deadline)
            && let Some(why) = self.node.rules.refused.clone()
        {
            self.fail(why, actions);
        }
    }
}
