//! The credentials of one plugin configuration, for everybody in this process.
//!
//! A run belongs to the authenticator, not to who asked first: a caller that gives up does not spoil it for the
//! others. When the certificate changes, every connection that was made with the old one is closed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use super::super::connections::{Connections, Depth};
use super::answer::{self, Answer};
use super::config::Config;
use super::error::CredentialError;
use super::run::{self, Run};
use super::schedule::{Lasting, Look, Material, Rejected, Schedule};
use super::{Settings, metrics};
use crate::lock::lock;
use crate::shutdown::Errands;

/// How often a hint is worth repeating: so many times in this long.
const HINTS: usize = 10;
const HINTS_WITHIN: Duration = Duration::from_secs(3600);

/// One for each configuration, as long as somebody uses it.
static ALL: Mutex<Vec<Weak<Authenticator>>> = Mutex::new(Vec::new());

/// The credentials of one configuration. See the module.
pub(in crate::k8s) struct Authenticator {
    me: Weak<Self>,
    config: Config,
    settings: Settings,
    schedule: Mutex<Schedule>,
    /// The number of the last run that has ended.
    ended: watch::Sender<u64>,
    errands: Mutex<Errands>,
    connections: Connections,
    hinted: Mutex<VecDeque<Instant>>,
}

impl Authenticator {
    /// The one for this configuration.
    pub(in crate::k8s) fn shared(config: Config, settings: Settings) -> Arc<Self> {
        let mut all = lock(&ALL);
        all.retain(|one| one.strong_count() > 0);
        let same = |one: &Arc<Self>| one.config == config && one.settings == settings;
        if let Some(found) = all.iter().filter_map(Weak::upgrade).find(same) {
            return found;
        }
        let made = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            config,
            settings,
            schedule: Mutex::new(Schedule::new()),
            ended: watch::channel(0).0,
            errands: Mutex::default(),
            connections: Connections::default(),
            hinted: Mutex::new(VecDeque::new()),
        });
        all.push(Arc::downgrade(&made));
        made
    }

    /// The connections that are closed when the certificate changes.
    pub(in crate::k8s) fn connections(&self) -> &Connections {
        &self.connections
    }

    /// The credentials, from a run if need be. Cancel-safe: the run goes on.
    pub(in crate::k8s) async fn get(&self) -> Result<Arc<Material>, CredentialError> {
        let mut waited = None;
        loop {
            match self.look(waited) {
                Look::Have { material, .. } => return Ok(material),
                Look::Failed(error) => return Err(error),
                Look::Later(at) => tokio::time::sleep_until(at.into()).await,
                Look::Wait { run, .. } => {
                    self.wait(run).await;
                    waited = Some(run);
                }
            }
        }
    }

    /// After a 401 to a request that was made with `generation`. True when there are other credentials now.
    pub(in crate::k8s) async fn rejected(&self, generation: u64) -> bool {
        let (decision, run) = {
            let mut schedule = lock(&self.schedule);
            let now = Instant::now().into_std();
            let decision = schedule.rejected(now, generation);
            match decision {
                Rejected::Wait { start: true, .. } => (decision, Some(self.start(&mut schedule, now))),
                Rejected::Wait { run, .. } => (decision, Some(run)),
                Rejected::Newer | Rejected::TooSoon => (decision, None),
            }
        };
        let Some(run) = run else { return decision == Rejected::Newer };
        self.wait(run).await;
        lock(&self.schedule).rejected(Instant::now().into_std(), generation) == Rejected::Newer
    }

    /// Looks, and starts the run that the look asks for.
    fn look(&self, waited: Option<u64>) -> Look {
        let mut schedule = lock(&self.schedule);
        let now = Instant::now().into_std();
        let look = schedule.look(now, waited);
        if let Look::Wait { start: true, .. } | Look::Have { refresh: true, .. } = look {
            self.start(&mut schedule, now);
        }
        look
    }

    async fn wait(&self, run: u64) {
        // The sender lives in `self`: waiting cannot fail.
        let _ = self.ended.subscribe().wait_for(|ended| *ended >= run).await;
    }

    /// Starts a run, whose number it returns.
    fn start(&self, schedule: &mut Schedule, now: std::time::Instant) -> u64 {
        let run = schedule.start(now);
        let me = self.me.clone();
        let (config, settings) = (self.config.clone(), self.settings.clone());
        self.spawn(async move {
            let answer = obtain(&config, &settings).await;
            metrics::called(answer.as_ref().map(|_| ()));
            if let Some(me) = me.upgrade() {
                me.finish(answer);
                me.ended.send_replace(run);
            }
        });
        run
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut errands = lock(&self.errands);
        errands.forget_ended();
        errands.spawn(task);
    }

    fn finish(&self, answer: Result<Answer, CredentialError>) {
        let command = &self.config.command;
        let mut schedule = lock(&self.schedule);
        let now = Instant::now().into_std();
        match answer {
            Ok(answer) => {
                let lasting = lasting(answer.expires, Timestamp::now());
                let changed = schedule.succeeded(now, answer.token, answer.identity, lasting);
                if changed.recovered {
                    tracing::info!(command, "the credential plugin works again");
                }
                if changed.is_other_certificate {
                    if let Some(before) = changed.before {
                        let age = Timestamp::now().as_second() - before.validity().not_before;
                        metrics::rotated(u64::try_from(age).unwrap_or(0));
                    }
                    self.close_old(changed.material.certificate);
                }
            }
            Err(error) => {
                let error = self.with_hint(error);
                let hint = error.hint().map(tracing::field::display);
                if schedule.failed(now, error.clone()) {
                    tracing::warn!(command, %error, hint, "getting credentials");
                } else {
                    tracing::debug!(command, %error, hint, "getting credentials");
                }
            }
        }
        if let Some((at, run)) = schedule.next_refresh() {
            let me = self.me.clone();
            self.spawn(async move {
                tokio::time::sleep_until(at.into()).await;
                if let Some(me) = me.upgrade() {
                    let mut schedule = lock(&me.schedule);
                    let now = Instant::now().into_std();
                    if schedule.is_due(now, run) {
                        me.start(&mut schedule, now);
                    }
                }
            });
        }
    }

    /// Closes what was made with older certificates: all at once, or the busy ones after the grace.
    fn close_old(&self, certificate: u64) {
        let grace = self.settings.rotation_grace;
        let depth = if grace.is_zero() { Depth::All } else { Depth::Idle };
        let closed = self.connections.retire(certificate, depth);
        tracing::info!(
            command = self.config.command,
            closed,
            "the client certificate changed, closing its connections"
        );
        if depth == Depth::Idle {
            let connections = self.connections.clone();
            self.spawn(async move {
                tokio::time::sleep(grace).await;
                connections.retire(certificate, Depth::All);
            });
        }
    }

    /// The hint belongs to the first few of these errors in an hour.
    fn with_hint(&self, error: CredentialError) -> CredentialError {
        let CredentialError::NotFound { command, .. } = error else { return error };
        let mut hinted = lock(&self.hinted);
        let now = Instant::now();
        while hinted.front().is_some_and(|at| *at + HINTS_WITHIN <= now) {
            hinted.pop_front();
        }
        let hint = (hinted.len() < HINTS).then(|| {
            hinted.push_back(now);
            hint(&self.config.install_hint)
        });
        CredentialError::NotFound { command, hint }
    }
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authenticator").field("command", &self.config.command).finish_non_exhaustive()
    }
}

/// Runs the plugin, if it may run, and reads what it says.
async fn obtain(config: &Config, settings: &Settings) -> Result<Answer, CredentialError> {
    let program = settings.policy.program(&config.command, &settings.path, &run::is_program);
    metrics::judged(!matches!(program, Err(CredentialError::Denied(_))));
    let run = Run {
        config,
        program: program?,
        interactive: config.is_interactive(&settings.stdin)?,
        time_limit: settings.time_limit,
        withheld: &settings.withheld,
    };
    let stdout = run.stdout().await?;
    answer::decode(&stdout, &config.api_version)
}

/// How long something lasts that ends at `at`.
fn lasting(at: Option<Timestamp>, now: Timestamp) -> Lasting {
    match at.map(|at| Duration::try_from(at.duration_since(now))) {
        None => Lasting::ForEver,
        Some(Ok(left)) if !left.is_zero() => Lasting::For(left),
        Some(_) => Lasting::Over,
    }
}

/// client-go's words for a program that is missing, and the kubeconfig's own.
fn hint(install: &str) -> String {
    let general = "it is a Kubernetes credential plugin that is not installed; see \
                   https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins";
    if install.is_empty() { general.to_owned() } else { format!("{general}\n{install}") }
}

/// When the first client certificate from a plugin expires.
pub(super) fn earliest_expiry() -> Option<i64> {
    let all: Vec<_> = lock(&ALL).iter().filter_map(Weak::upgrade).collect();
    all.iter().filter_map(|one| lock(&one.schedule).not_after()).min()
}
