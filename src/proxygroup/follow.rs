//! Keeps the rules and the report of a group as its config file and the tailnet say.
//!
//! Every input is only a reason to look: the desired state is rendered whole, at most once a second, the keeper of the
//! table applies it, and what is in force is reported. Errors are states, not exits: a config that is none leaves the
//! last good one, refused rules leave those before (ha-services.md 8).

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::plan::{Desired, Kind, Plan, View};
use crate::causes::chain;
use crate::digest::sha256_hex;
use crate::filewatch::FileWatch;
use crate::k8s::publisher::{Publisher, Slot};
use crate::k8s::state;
use crate::localapi::model::Model;
use crate::maybe::at;
use crate::netfilter::keeper;
use crate::node::resolve::resolve_written;

/// How long what may be half an edit is left alone.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// Between looks at the file that nothing asked for.
const TICK: Duration = Duration::from_secs(300);
/// The same without inotify.
const POLL: Duration = Duration::from_secs(5);
/// Between two renderings, however often the netmap changes.
const PAUSE: Duration = Duration::from_secs(1);
/// How many lines one change may take in the log.
const LINES: usize = 20;

/// The task and what it works with.
pub struct Follower<P> {
    /// The group.
    pub plan: P,
    /// Its config.
    pub file: PathBuf,
    /// The node and its peers.
    pub node: watch::Receiver<Arc<Model>>,
    /// Whether the Pod is being drained.
    pub draining: watch::Receiver<bool>,
    /// Whether IPv6 can be translated.
    pub ipv6: bool,
    /// Who brings the table to what is desired.
    pub rules: keeper::Handle,
    /// Who writes the report, where it may be written.
    pub publisher: Option<Publisher>,
    /// How long the first rules may be refused.
    pub patience: Duration,
    /// How it goes.
    pub standing: watch::Sender<Standing>,
}

/// How a group stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Why the present config is not in force.
    pub config: Option<String>,
    /// Why the desired rules are not.
    pub rules: Option<String>,
    /// What of the config cannot be served.
    pub problems: Arc<[String]>,
    /// How many Services there are.
    pub services: usize,
    /// How many of them lead nowhere.
    pub unresolved: usize,
    /// How many ports or addresses are translated.
    pub mappings: usize,
    /// When rules were last applied.
    pub applied: Option<Timestamp>,
    /// How many transactions went through.
    pub applications: u64,
    /// How many did not.
    pub refusals: u64,
    /// How often the table was found changed by others.
    pub repairs: u64,
}

/// What a look at the file found.
enum Found {
    /// What it held before.
    Same,
    /// Something else; nothing where there is no file.
    Other(Vec<u8>),
    /// It cannot be read.
    Unreadable(std::io::Error),
}

/// The rules were refused from the beginning, for too long; the kernel's words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

/// The task while it runs.
struct Running<P: Plan> {
    given: Follower<P>,
    /// The digest of what the file held at the last look.
    content: Option<String>,
    /// Whether there has been a good config.
    configured: bool,
    desired: Option<Desired<P::Status>>,
    /// The report of what was last seen in force.
    reported: Option<Arc<P::Status>>,
    said: BTreeSet<String>,
    /// When to render next.
    next: Option<Instant>,
    rendered: Option<Instant>,
    /// When refusal from the beginning has lasted too long.
    give_up: Option<Instant>,
}

impl<P: Plan> Follower<P> {
    /// Follows until stopped. The rules stay as they are then.
    ///
    /// # Errors
    /// No rules could be applied for as long as [`Self::patience`].
    pub async fn run(self, stop: CancellationToken) -> Result<(), Refused> {
        let mut running = Running {
            given: self,
            content: None,
            configured: false,
            desired: None,
            reported: None,
            said: BTreeSet::new(),
            next: None,
            rendered: None,
            give_up: None,
        };
        stop.run_until_cancelled(running.follow()).await.map_or(Ok(()), Err)
    }
}

impl<P: Plan> Running<P> {
    async fn follow(&mut self) -> Refused {
        let mut watch = FileWatch::new(&self.given.file);
        if let Some(unavailable) = watch.unavailable() {
            tracing::info!("{} services: changes are looked for every {POLL:?}: {}", kind::<P>(), chain(unavailable));
        }
        let mut standing = self.given.rules.standing();
        self.take().await;
        self.ask();
        let mut looked = Instant::now();
        loop {
            let poll = looked + if watch.unavailable().is_some() { POLL } else { TICK };
            let (next, give_up) = (self.next, self.give_up);
            tokio::select! {
                () = watch.changed(poll.saturating_duration_since(Instant::now())) => {
                    // Watched anew before it is read: a mount may have been replaced as a whole (H10).
                    watch = FileWatch::new(&self.given.file);
                    let due = Instant::now() >= poll;
                    looked = Instant::now();
                    if self.take().await {
                        self.next = Some(looked);
                    } else if due {
                        self.ask();
                    }
                }
                Ok(()) = self.given.node.changed() => self.ask(),
                Ok(()) = self.given.draining.changed() => self.ask(),
                Ok(()) = standing.changed() => {
                    standing.mark_unchanged();
                    self.settle();
                }
                () = at(next) => self.render(),
                () = at(give_up) => {
                    self.give_up = None;
                    let rules = self.given.rules.standing().borrow().clone();
                    if let (None, Some(problem)) = (rules.applied, rules.problem) {
                        return Refused(problem);
                    }
                }
            }
        }
    }

    /// Looks at the file; whether there is another config than before.
    ///
    /// A config is taken as soon as it is there. What is none, or nothing at all, may be half of an edit in place: it is
    /// looked at again before it counts.
    async fn take(&mut self) -> bool {
        match self.read().await {
            Found::Same => return false,
            Found::Other(content) if !content.is_empty() && self.given.plan.configure(&content).is_ok() => {
                return self.configured_by(&content, Ok(()));
            }
            Found::Other(_) | Found::Unreadable(_) => sleep(DEBOUNCE).await,
        }
        match self.read().await {
            Found::Same => false,
            Found::Other(content) => {
                let parsed = self.given.plan.configure(&content).map_err(|error| chain(&error));
                self.configured_by(&content, parsed)
            }
            Found::Unreadable(why) => {
                self.content = None;
                self.invalid(Some(format!("it cannot be read: {why}")));
                false
            }
        }
    }

    async fn read(&mut self) -> Found {
        match tokio::fs::read(&self.given.file).await {
            Ok(content) if self.content.as_ref() == Some(&sha256_hex(&content)) => Found::Same,
            Ok(content) => Found::Other(content),
            Err(error) if error.kind() == ErrorKind::NotFound && self.content.as_ref() == Some(&sha256_hex(b"")) => {
                Found::Same
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Found::Other(Vec::new()),
            Err(error) => Found::Unreadable(error),
        }
    }

    /// Whether what was found is a config.
    fn configured_by(&mut self, content: &[u8], parsed: Result<(), String>) -> bool {
        self.content = Some(sha256_hex(content));
        let good = parsed.is_ok();
        self.configured |= good;
        self.invalid(parsed.err());
        good
    }

    /// Says what is wrong with the file, or that nothing is any more.
    fn invalid(&self, problem: Option<String>) {
        let (kind, file) = (kind::<P>(), self.given.file.display());
        self.given.standing.send_if_modified(|standing| {
            if standing.config == problem {
                return false;
            }
            if let Some(problem) = &problem {
                tracing::error!("{kind} services: `{file}` is no config, what was in force stays: {problem}");
            } else {
                tracing::info!("{kind} services: `{file}` is a config again");
            }
            standing.config = problem;
            true
        });
    }

    /// Wants a rendering, as soon as may be.
    fn ask(&mut self) {
        let now = Instant::now();
        let earliest = self.rendered.map_or(now, |rendered| now.max(rendered + PAUSE));
        self.next = Some(self.next.map_or(earliest, |next| next.min(earliest)));
    }

    fn render(&mut self) {
        let now = Instant::now();
        (self.next, self.rendered) = (None, Some(now));
        if !self.configured {
            return;
        }
        let model = Arc::clone(&self.given.node.borrow_and_update());
        let view = View {
            own: model.self_device.as_ref().map(|device| device.addresses.as_slice()).unwrap_or_default(),
            ipv6: self.given.ipv6,
            draining: *self.given.draining.borrow_and_update(),
            resolve: &|name| resolve_written(&model, name),
        };
        let Some(desired) = self.given.plan.render(&view, now.into_std()) else { return };
        self.next = desired.again.map(Instant::from_std);
        self.tell_problems(&desired.problems);
        if self.desired.is_none() {
            self.give_up = Some(now + self.given.patience);
        }
        if self.desired.as_ref() == Some(&desired) {
            return;
        }
        self.given.rules.want(Arc::clone(&desired.ruleset));
        self.given.standing.send_modify(|standing| {
            standing.problems = desired.problems.clone().into();
            standing.services = desired.services;
            standing.unresolved = desired.unresolved;
        });
        self.desired = Some(desired);
        self.settle();
    }

    /// What cannot be served is said once, and again only after it could.
    fn tell_problems(&mut self, problems: &[String]) {
        let news: Vec<_> = problems.iter().filter(|problem| !self.said.contains(*problem)).collect();
        for problem in news.iter().take(LINES) {
            tracing::warn!("{problem}");
        }
        if news.len() > LINES {
            tracing::warn!("{} services: {} problems more", kind::<P>(), news.len() - LINES);
        }
        self.said = problems.iter().cloned().collect();
    }

    /// Compares what is in force with what is desired, and reports what has come into force.
    fn settle(&mut self) {
        let Some(desired) = &self.desired else { return };
        let rules = self.given.rules.standing().borrow().clone();
        let in_force = rules.applied.as_ref() == Some(&desired.ruleset);
        self.given.standing.send_if_modified(|standing| {
            let before = standing.clone();
            standing.rules = rules.problem.filter(|_| !in_force);
            if rules.applications != standing.applications {
                standing.applied = Some(Timestamp::now());
            }
            (standing.applications, standing.refusals) = (rules.applications, rules.refusals);
            standing.repairs = rules.repairs;
            if in_force {
                standing.mappings = desired.mappings();
            }
            *standing != before
        });
        if !in_force {
            return;
        }
        self.give_up = None;
        if self.reported.as_ref() == Some(&desired.status) {
            return;
        }
        let changes = P::changes(self.reported.as_deref(), &desired.status);
        for line in changes.iter().take(LINES) {
            tracing::info!("{line}");
        }
        if changes.len() > LINES {
            tracing::info!("{} services: {} changes more", kind::<P>(), changes.len() - LINES);
        }
        let first = self.reported.replace(Arc::clone(&desired.status)).is_none();
        // The key was removed before the start: to say nothing is to say that there is none.
        if first && P::is_empty(&desired.status) {
            return;
        }
        match serde_json::to_string(&*desired.status) {
            Ok(text) => {
                if let Some(publisher) = &self.given.publisher {
                    let (slot, key) = match P::KIND {
                        Kind::Egress => (Slot::EgressServices, state::EGRESS_SERVICES),
                        Kind::Ingress => (Slot::IngressConfig, state::INGRESS_CONFIG),
                    };
                    publisher.set(slot, state::group_status_patch(key, &text));
                }
            }
            Err(error) => tracing::error!("{} services: the status cannot be written: {error}", kind::<P>()),
        }
    }
}

fn kind<P: Plan>() -> &'static str {
    P::KIND.as_str()
}

#[cfg(test)]
mod tests;
