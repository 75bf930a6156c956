//! What must be recorded, what may pass, and what is refused. Pure.
//!
//! A decision has two halves. [`plan`] says what a request needs before it may be forwarded, from the caller's rules and
//! the route alone. What recorders then answered goes into [`Plan::conclude`], which says whether it is forwarded. Every
//! row of api-proxy.md 6.2, 6.3, 6.4 and 17.2 is a test.

use std::net::SocketAddr;

use super::UnrecordedStreams;
use super::access::Peer;
use super::grants::{self, Rule};
use super::hop::Upgrade;
use super::refusal::{Reason, Refusal};
use super::route::{Kind, Query, Route, Session};
use crate::short;

/// What the caller's grants demand of recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What happens to what cannot be recorded.
    pub on_failure: OnFailure,
    /// Where recorders are, in the order of the rules, each once.
    pub recorders: Vec<SocketAddr>,
    /// Whether requests are recorded as events.
    pub events: Events,
    /// The rules that asked for it.
    asked_by: Vec<Demand>,
    /// How many rules the caller has.
    total: usize,
}

/// What happens to what cannot be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// It passes, with a warning.
    Open,
    /// It is refused (`enforceRecorder`).
    Closed,
}

/// Whether requests are recorded as events (`enableEvents`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Events {
    /// No.
    Off,
    /// Each request, before it is forwarded.
    On,
}

/// What one rule asks of recording.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Demand {
    number: usize,
    recorder: Vec<String>,
    enforces: bool,
    has_recorders: bool,
}

/// What a request needs before it may be forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// An event has to be sent first.
    pub event: Option<EventKind>,
    /// And then.
    pub then: Then,
    on_failure: OnFailure,
    rules: String,
}

/// How much an event can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// All of it.
    Full,
    /// Without what the path does not tell.
    Minimal,
}

/// What happens once the event, if one was needed, is settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Then {
    /// The request is forwarded.
    Forward(Vec<Warning>),
    /// A recorder is connected to first; then the request is forwarded, and the stream recorded.
    Record(Session),
    /// It is not forwarded, whatever became of the event.
    Refuse(Refusal),
}

/// What became of an event, over all recorders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventOutcome {
    /// One took it.
    Accepted,
    /// None did; why not.
    Failed(String),
    /// None of them knows events.
    Unsupported,
    /// Some do not know events, the others failed; why.
    Mixed(String),
    /// The request's body could not be read.
    Unreadable(String),
}

/// What became of connecting to a recorder for a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionOutcome {
    /// One waits for the stream.
    Connected,
    /// None does.
    Unreachable,
}

/// Something passes that the policy would rather have had recorded; counted in
/// `tailpod_proxy_unrecorded_sessions_total{reason}` and logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Warning {
    /// An event was not recorded.
    Event,
    /// No recorder for a session could be reached.
    Session,
    /// A session was asked for without a protocol to switch to; kube-apiserver will refuse it.
    NoUpgrade,
    /// A command runs on a node.
    NodeCommand,
}

impl Warning {
    /// Every warning, for counters that start at zero.
    pub const ALL: [Self; 4] = [Self::Event, Self::Session, Self::NoUpgrade, Self::NodeCommand];

    /// The value of the `reason` label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Session => "session",
            Self::NoUpgrade => "no-upgrade",
            Self::NodeCommand => "node-command",
        }
    }
}

/// How a request ends up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// An event was attempted (`k8s_auth_proxy_api_request_event_recording_attempted`).
    pub event: Attempt,
    /// A session recording was attempted (`k8s_auth_proxy_session_recordings_attempted`).
    pub session: Attempt,
    /// Whether it is forwarded, and what is worth a warning then.
    pub verdict: Result<Vec<Warning>, Refusal>,
}

/// Whether a recording was attempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It was.
    Made,
    /// There was no need.
    None,
}

impl Policy {
    /// Whether the grants say anything about recording.
    pub fn is_empty(&self) -> bool {
        self.on_failure == OnFailure::Open && self.recorders.is_empty()
    }

    /// The rules behind a refusal, for the person who gets it.
    fn rules(&self) -> String {
        let of = |which: fn(&Demand) -> bool| -> Vec<&Demand> {
            self.asked_by.iter().filter(|demand| which(demand)).collect()
        };
        let enforcing = of(|demand| demand.enforces);
        let demands = if enforcing.is_empty() { of(|demand| demand.has_recorders) } else { enforcing };
        let named: Vec<String> = demands
            .iter()
            .map(|demand| {
                let number = demand.number;
                let total = self.total;
                match demand.recorder.as_slice() {
                    [] => format!("rule {number} of {total}"),
                    tags => format!("rule {number} of {total} (recorder {})", tags.join(", ")),
                }
            })
            .collect();
        format!("Asked for by {} of your grants for {}.", named.join(" and "), grants::CAPABILITY)
    }
}

/// What the grants of a peer demand. The legacy capability has no say in it.
pub fn policy(peer: &Peer) -> Result<Policy, Refusal> {
    let rules = peer
        .rules
        .modern
        .as_ref()
        .map_err(|bad| Refusal::new(Reason::Grants, format!("cannot use the caller's grants: {bad}")))?;
    Ok(of_rules(rules))
}

fn of_rules(rules: &[Rule]) -> Policy {
    let mut recorders: Vec<SocketAddr> = Vec::new();
    for addr in rules.iter().flat_map(|rule| &rule.recorder_addrs) {
        if !recorders.contains(addr) {
            recorders.push(*addr);
        }
    }
    let demands = rules.iter().filter(|rule| rule.enforce_recorder || !rule.recorder_addrs.is_empty());
    let on = |condition| if condition { Events::On } else { Events::Off };
    Policy {
        on_failure: if rules.iter().any(|rule| rule.enforce_recorder) { OnFailure::Closed } else { OnFailure::Open },
        recorders,
        events: on(rules.iter().any(|rule| rule.enable_events)),
        asked_by: demands
            .map(|rule| Demand {
                number: rule.number,
                recorder: rule.recorder.clone(),
                enforces: rule.enforce_recorder,
                has_recorders: !rule.recorder_addrs.is_empty(),
            })
            .collect(),
        total: rules.len(),
    }
}

/// What a request needs before it may be forwarded.
pub fn plan(policy: &Policy, route: &Route, upgrade: &Upgrade, streams: UnrecordedStreams) -> Result<Plan, Refusal> {
    if matches!(route.kind, Kind::Session(_)) && route.query == Query::Broken {
        let message = "the query has a `;` or a broken percent escape, so what it asks for is not certain";
        return Err(Refusal::new(Reason::Query, message));
    }
    if policy.is_empty() {
        return Ok(Plan {
            event: None,
            then: Then::Forward(Vec::new()),
            on_failure: OnFailure::Open,
            rules: String::new(),
        });
    }
    let rules = policy.rules();
    if !route.is_canonical() {
        let message = format!(
            "the path can be read in more than one way: no empty or dot segment, escaped slash or letter, or \
             trailing slash may be in it while requests are recorded. {rules}"
        );
        return Err(Refusal::new(Reason::Path, message));
    }
    let is_closed = policy.on_failure == OnFailure::Closed;
    if let (Kind::NodeCommand, true) = (route.kind, is_closed) {
        let message = format!(
            "forbidden: commands run through nodes/proxy cannot be recorded, and recording is enforced. Use `kubectl exec`. {rules}"
        );
        return Err(Refusal::new(Reason::NodeCommand, message));
    }
    if policy.recorders.is_empty() {
        return Err(no_recorder(route, &rules));
    }
    if let (Kind::Unrecordable(what), UnrecordedStreams::Deny, true) = (route.kind, streams, is_closed) {
        let message = format!(
            "forbidden: this request ({what}) cannot be recorded, recording is enforced, and this proxy denies such \
             streams. {rules}"
        );
        return Err(Refusal::new(Reason::Stream, message));
    }
    let event = match (policy.events, route.derived) {
        (Events::Off, _) => None,
        (Events::On, Ok(())) => Some(EventKind::Full),
        (Events::On, Err(no_resource)) if is_closed => {
            return Err(Refusal::new(Reason::Unrecorded, format!("{EVENT_FAILED} {no_resource}. {rules}")));
        }
        (Events::On, Err(_)) => Some(EventKind::Minimal),
    };
    let then = match route.kind {
        Kind::Session(session) => session_needs(session, upgrade, policy.on_failure, &rules),
        Kind::NodeCommand => Then::Forward(vec![Warning::NodeCommand]),
        Kind::Unrecordable(_) | Kind::Other => Then::Forward(Vec::new()),
    };
    Ok(Plan { event, then, on_failure: policy.on_failure, rules })
}

/// The leading words of a failed event.
const EVENT_FAILED: &str = "error recording Kubernetes API request:";

/// Recording is enforced and the rules name no recorder.
fn no_recorder(route: &Route, rules: &str) -> Refusal {
    let what = match route.kind {
        Kind::Session(session) => format!("'kubectl {}' session", session.name()),
        // The path alone: a query may hold what is nobody's business.
        _ => format!("api request {:?}", short::name(&route.info.path)),
    };
    let message = format!("forbidden: {what} must be recorded, but no recorders are available. {rules}");
    Refusal::new(Reason::NoRecorder, message)
}

/// What a session needs when there are recorders.
fn session_needs(session: Session, upgrade: &Upgrade, on_failure: OnFailure, rules: &str) -> Then {
    let refused = |received: &str| {
        let message = format!(
            "forbidden: 'kubectl {}' session must be recorded, but its `Upgrade` header is {received}; expected \"SPDY/3.1\" \
             or \"websocket\". {rules}",
            session.name()
        );
        Then::Refuse(Refusal::new(Reason::Upgrade, message))
    };
    match (upgrade, on_failure) {
        (Upgrade::Spdy | Upgrade::WebSocket, _) => Then::Record(session),
        (Upgrade::No, OnFailure::Open) => Then::Forward(vec![Warning::NoUpgrade]),
        (Upgrade::No, OnFailure::Closed) => refused("missing"),
        // The client picks the token, so one that cannot be recorded is no way out of recording.
        (Upgrade::Other(token), _) => refused(&format!("{:?}", short::name(token))),
    }
}

impl Plan {
    /// What is decided once the recorders have answered. Outcomes of what was not needed are not looked at.
    pub fn conclude(&self, event: &EventOutcome, session: &SessionOutcome) -> Decision {
        let mut warnings = Vec::new();
        let attempt = |condition| if condition { Attempt::Made } else { Attempt::None };
        let attempted = attempt(self.event.is_some());
        if self.event.is_some() {
            match self.after_event(event) {
                Ok(warning) => warnings.extend(warning),
                Err(refusal) => {
                    return Decision { event: attempted, session: Attempt::None, verdict: Err(refusal) };
                }
            }
        }
        let verdict = match &self.then {
            Then::Refuse(refusal) => Err(refusal.clone()),
            Then::Forward(more) => {
                warnings.extend(more);
                Ok(warnings)
            }
            Then::Record(_) if *session == SessionOutcome::Connected => Ok(warnings),
            Then::Record(_) if self.on_failure == OnFailure::Open => {
                warnings.push(Warning::Session);
                Ok(warnings)
            }
            Then::Record(session) => {
                let name = session.name();
                let message = format!(
                    "forbidden: 'kubectl {name}' session must be recorded, but no recorder could be reached. {}",
                    self.rules
                );
                Err(Refusal::new(Reason::NoRecorder, message))
            }
        };
        Decision { event: attempted, session: attempt(matches!(self.then, Then::Record(_))), verdict }
    }

    /// What an event's outcome means for the request.
    fn after_event(&self, outcome: &EventOutcome) -> Result<Option<Warning>, Refusal> {
        let cause = match outcome {
            EventOutcome::Accepted => return Ok(None),
            EventOutcome::Unreadable(why) => {
                return Err(Refusal::new(Reason::Request, format!("cannot read the request's body: {why}")));
            }
            EventOutcome::Failed(why) | EventOutcome::Mixed(why) => why.as_str(),
            EventOutcome::Unsupported => "no recorder knows events",
        };
        match self.on_failure {
            OnFailure::Open => Ok(Some(Warning::Event)),
            OnFailure::Closed => {
                Err(Refusal::new(Reason::Unrecorded, format!("{EVENT_FAILED} {cause}. {}", self.rules)))
            }
        }
    }
}

/// The decision of a proxy that cannot record: some recorder counts as all of them having failed.
pub fn decide(policy: &Policy, route: &Route, upgrade: &Upgrade, streams: UnrecordedStreams) -> Decision {
    match plan(policy, route, upgrade, streams) {
        Err(refusal) => Decision { event: Attempt::None, session: Attempt::None, verdict: Err(refusal) },
        Ok(plan) => {
            let event = EventOutcome::Failed("this proxy has no recorder yet".to_owned());
            plan.conclude(&event, &SessionOutcome::Unreachable)
        }
    }
}

#[cfg(test)]
mod tests;
