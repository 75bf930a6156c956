//! Keeps the daemon's serve config as a file says it: applied when the file or the node changes.
//!
//! A file that cannot be read or is no config leaves the last good one in place and is reported; a config that the
//! daemon does not take is tried again with back-off. A config that the tailnet does not allow yet is held back with the
//! reason, and applied when it does.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::apply::{Applied, apply, clear};
use super::change::{carried_over, is_same};
use super::document::{Document, DocumentError, Held, LARGEST, NodeFacts, service_names};
use crate::backoff::{Backoff, jitter};
use crate::causes;
use crate::filewatch::FileWatch;
use crate::localapi::{Error, LocalApi};

/// Events of one edit come together within this.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// The safety net for lost events.
const REREAD: Duration = Duration::from_secs(60);
/// Without inotify.
const POLL: Duration = Duration::from_secs(5);
/// Between tries of what the daemon did not take.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// For the netmap, within one try.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the config stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In a file, which may come and go.
    File(PathBuf),
    /// In the variable itself.
    Inline(String),
}

impl Source {
    /// What `TS_SERVE_CONFIG` says: a value that begins with `{` is the config itself.
    pub fn parse(text: &str) -> Self {
        if text.trim_start().starts_with('{') { Self::Inline(text.to_owned()) } else { Self::File(text.into()) }
    }
}

/// How it stands.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// The last config that was applied, or would have been where nothing is to be.
    pub good: Option<Good>,
    /// Services of it that are not to be advertised.
    pub unadvertised: Arc<[String]>,
    /// Services of configs that were replaced.
    pub replaced: Arc<BTreeSet<String>>,
    /// What keeps the present file from being applied.
    pub problem: Option<Arc<Problem>>,
    /// Changes that the daemon took.
    pub applied: u64,
    /// Those that failed, the same failure counted once.
    pub failed: u64,
}

/// A config that is in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Good {
    /// The config.
    pub config: Arc<Value>,
    /// The node's certificate domain at the time.
    pub cert_domain: Option<String>,
}

/// What keeps a config from being applied.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The file cannot be read.
    #[error("the serve config cannot be read")]
    Unreadable(#[source] std::io::Error),
    /// The file is no serve config.
    #[error("the serve config is not valid")]
    Invalid(#[source] DocumentError),
    /// The tailnet does not allow it yet.
    #[error("the serve config is held back")]
    Held(#[source] Held),
    /// The daemon did not take it.
    #[error("tailscaled did not take the serve config")]
    Refused(#[source] Error),
}

/// Whether the daemon gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It does.
    Apply,
    /// Only whoever listens does.
    Watch,
}

/// What to do about Services that a daemon has from before its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftovers {
    /// Leave them where they are as they should be.
    Compare,
    /// Take them away and set them again: it assigns their addresses only to a config that is set.
    SetAgain,
}

/// The loop and what it works with.
#[derive(Debug)]
pub struct Follower {
    /// The daemon.
    pub api: LocalApi,
    /// Where the config stands.
    pub source: Source,
    /// Whether the daemon gets it.
    pub delivery: Delivery,
    /// What to do about Services of a daemon that has just started.
    pub leftovers: Leftovers,
    /// What of the node the config depends on.
    pub facts: watch::Receiver<NodeFacts>,
    /// Which run of the daemon it is: another one may have forgotten what the last one was told.
    pub daemon: watch::Receiver<u64>,
    /// Who listens.
    pub standing: watch::Sender<Standing>,
}

/// What a look at the file found.
enum Look {
    Nothing,
    Same,
    Text(String),
}

/// What a follower remembers between two looks.
#[derive(Default)]
struct Known {
    text: Option<String>,
    /// What the text says, when it says something.
    document: Option<Document>,
    /// The run of the daemon that has the good config.
    delivered_to: Option<u64>,
}

impl Follower {
    /// For a daemon that somebody else keeps, whose runs are counted by `daemon`; and how the config stands.
    pub fn beside(
        api: LocalApi,
        source: Source,
        delivery: Delivery,
        facts: watch::Receiver<NodeFacts>,
        daemon: watch::Receiver<u64>,
    ) -> (Self, watch::Receiver<Standing>) {
        let (standing, seen) = watch::channel(Standing::default());
        (Self { api, source, delivery, leftovers: Leftovers::Compare, facts, daemon, standing }, seen)
    }

    /// Follows until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(self.follow()).await;
    }

    async fn follow(&mut self) {
        let mut files = match &self.source {
            Source::File(path) => Some(FileWatch::new(path)),
            Source::Inline(_) => None,
        };
        if let Some(reason) = files.as_ref().and_then(FileWatch::unavailable) {
            tracing::info!(
                "serve proxy: failed to create fsnotify watcher, timer-only mode: {}",
                causes::chain(reason)
            );
        }
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let mut known = Known::default();
        let mut quiet = false;
        loop {
            let again = if self.once(&mut known, quiet).await {
                backoff.reset();
                None
            } else {
                Some(Instant::now() + backoff.next(jitter()))
            };
            quiet = true;
            tokio::select! {
                changed = files_changed(&mut files) => {
                    // A watch whose directory was replaced sees nothing any more; a new one does.
                    if let (true, Source::File(path)) = (changed, &self.source) {
                        files = Some(FileWatch::new(path));
                    } else {
                        quiet = false;
                    }
                }
                Ok(()) = self.facts.changed() => {}
                Ok(()) = self.daemon.changed() => {}
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {}
            }
        }
    }

    /// Looks at the file and brings what it says to the daemon. Whether nothing has to be tried again soon.
    async fn once(&mut self, known: &mut Known, quiet: bool) -> bool {
        match self.look(known.text.as_deref(), quiet).await {
            Ok(Look::Same) => {}
            Ok(Look::Nothing) => {
                (known.text, known.document) = (None, None);
                self.no_trouble();
            }
            Ok(Look::Text(text)) => {
                match Document::parse(&text) {
                    Ok(document) => {
                        for warning in &document.warnings {
                            tracing::warn!("serve proxy: {warning}");
                        }
                        known.document = Some(document);
                    }
                    Err(error) => {
                        known.document = None;
                        self.trouble(Problem::Invalid(error));
                    }
                }
                known.text = Some(text);
            }
            Err(error) => {
                self.trouble(Problem::Unreadable(error));
                return false;
            }
        }
        match known.document.take() {
            Some(document) => {
                let settled = self.bring(&document, &mut known.delivered_to).await;
                known.document = Some(document);
                settled
            }
            None => true,
        }
    }

    /// Reads the file, unless there is nothing new in it. `quiet` leaves out the lines about nothing.
    async fn look(&self, known: Option<&str>, quiet: bool) -> std::io::Result<Look> {
        let path = match &self.source {
            Source::Inline(text) => {
                return Ok(if known.is_some() { Look::Same } else { Look::Text(text.clone()) });
            }
            Source::File(path) => path,
        };
        let text = match read(path).await {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if !quiet {
                    tracing::info!("serve proxy: no serve config at {path:?}, skipping");
                }
                return Ok(Look::Nothing);
            }
            Err(error) => return Err(error),
        };
        if text.is_empty() {
            if !quiet {
                tracing::info!("serve proxy: serve config file is empty, skipping");
                tracing::info!("serve proxy: no serve config at {path:?}, skipping");
            }
            return Ok(Look::Nothing);
        }
        Ok(if known == Some(text.as_str()) { Look::Same } else { Look::Text(text) })
    }

    /// Brings the document to the daemon, of which `delivered_to` has the run that has it. Whether that is done.
    async fn bring(&mut self, document: &Document, delivered_to: &mut Option<u64>) -> bool {
        let facts = self.facts.borrow_and_update().clone();
        let daemon = *self.daemon.borrow_and_update();
        let config = match document.resolve(&facts) {
            Ok(config) => config,
            Err(held) => {
                self.trouble(Problem::Held(held));
                return true;
            }
        };
        let is_known = self.standing.borrow().good.as_ref().is_some_and(|good| is_same(&good.config, &config));
        let mut replaced = BTreeSet::new();
        if self.delivery == Delivery::Apply && !(is_known && *delivered_to == Some(daemon)) {
            if !is_known {
                tracing::info!("serve proxy: applying serve config");
            }
            let has_started = *delivered_to != Some(daemon);
            match self.deliver(&config, has_started, &mut replaced).await {
                Ok(Applied::Changed) => self.standing.send_modify(|standing| standing.applied += 1),
                Ok(Applied::Unchanged) => {}
                Err(error) => {
                    self.trouble(Problem::Refused(error));
                    return false;
                }
            }
            *delivered_to = Some(daemon);
        }
        let good = Good { config: Arc::new(config), cert_domain: facts.cert_domain };
        let unadvertised: Arc<[String]> = document.unadvertised().into_iter().map(str::to_owned).collect();
        self.standing.send_if_modified(|standing| {
            let is_news = standing.good.as_ref() != Some(&good)
                || standing.problem.is_some()
                || standing.unadvertised != unadvertised
                || !replaced.is_subset(&standing.replaced);
            standing.good = Some(good);
            standing.problem = None;
            standing.unadvertised = unadvertised;
            replaced.extend(standing.replaced.iter().cloned());
            standing.replaced = Arc::new(replaced);
            is_news
        });
        true
    }

    async fn deliver(
        &self,
        config: &Value,
        has_started: bool,
        replaced: &mut BTreeSet<String>,
    ) -> Result<Applied, Error> {
        let has_services = !service_names(config).is_empty();
        if has_started && has_services && self.leftovers == Leftovers::SetAgain {
            let installed = self.api.serve_config().await?.document;
            if !service_names(&installed).is_empty() {
                tracing::info!("serve proxy: setting Services of a former run again");
                replaced.extend(service_names(&clear(&self.api).await?));
            }
        }
        let desired = |installed: &Value| {
            replaced.extend(service_names(installed));
            carried_over(installed, config)
        };
        apply(&self.api, desired, PATIENCE).await
    }

    fn no_trouble(&self) {
        self.standing.send_if_modified(|standing| standing.problem.take().is_some());
    }

    /// Reports a problem, and logs it when it is another than before.
    fn trouble(&self, problem: Problem) {
        let said = causes::chain(&problem);
        let known = self.standing.borrow().problem.as_deref().map(|known| causes::chain(known));
        if known.as_deref() == Some(&said) {
            return;
        }
        match &problem {
            // Nothing to mend: it is on its way.
            Problem::Held(Held::NoNetmap) => tracing::debug!("serve proxy: {said}"),
            Problem::Held(held) => {
                let hint = held.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
                tracing::warn!("serve proxy: {said}{hint}");
            }
            _ => tracing::warn!("serve proxy: {said}; the last good config stays"),
        }
        self.standing.send_modify(|standing| {
            standing.failed += u64::from(!matches!(problem, Problem::Held(_)));
            standing.problem = Some(Arc::new(problem));
        });
    }
}

/// Waits for an event, debounced, or for the safety net; whether that was it. Never returns without files.
async fn files_changed(files: &mut Option<FileWatch>) -> bool {
    let Some(files) = files else { return std::future::pending().await };
    let net = if files.unavailable().is_some() { POLL } else { REREAD };
    if timeout(net, files.changed(REREAD * 2)).await.is_err() {
        return true;
    }
    // Until nothing has happened for a moment; an endless stream of events must not hold it off.
    let end = Instant::now() + DEBOUNCE * 5;
    while Instant::now() < end && timeout(DEBOUNCE, files.changed(REREAD)).await.is_ok() {}
    false
}

async fn read(path: &std::path::Path) -> std::io::Result<String> {
    use tokio::io::AsyncReadExt as _;
    let mut text = Vec::new();
    // One byte more than may be: then the document says that it is too large.
    let limit = u64::try_from(LARGEST).unwrap_or(u64::MAX) + 1;
    tokio::fs::File::open(path).await?.take(limit).read_to_end(&mut text).await?;
    String::from_utf8(text).map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error.utf8_error()))
}
