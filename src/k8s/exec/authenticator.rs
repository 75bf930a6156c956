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
    /// The refresh ahead, one at a time.
    refresh: Mutex<Errands>,
    connections: Connections,
    hinted: Mutex<VecDeque<Instant>>,
}

/// A run, which ends in any case: whoever waits for it gets an error at least.
struct Begun {
    of: Weak<Authenticator>,
    run: u64,
    is_finished: bool,
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
            refresh: Mutex::default(),
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
                Look::Wait { run, .. } => {
                    self.wait(run).await;
                    waited = Some(run);
                }
            }
        }
    }

    /// After a 401 to a request that was made with `generation`. True when there are other credentials now.
    pub(in crate::k8s) async fn rejected(&self, generation: u64) -> bool {
        match self.suspected(generation) {
            Rejected::Newer => true,
            Rejected::TooSoon => false,
            Rejected::Wait { run, .. } => {
                self.wait(run).await;
                lock(&self.schedule).is_newer(generation)
            }
        }
    }

    /// The same for whoever waits for nothing.
    pub(in crate::k8s) fn suspected(&self, generation: u64) -> Rejected {
        let mut schedule = lock(&self.schedule);
        let decision = schedule.rejected(Instant::now().into_std(), generation);
        if let Rejected::Wait { start: true, .. } = decision {
            self.start(&mut schedule);
        }
        decision
    }

    /// Looks, and starts the run that the look asks for.
    fn look(&self, waited: Option<u64>) -> Look {
        let mut schedule = lock(&self.schedule);
        let look = schedule.look(Instant::now().into_std(), waited);
        if let Look::Wait { start: true, .. } | Look::Have { refresh: true, .. } = look {
            self.start(&mut schedule);
        }
        look
    }

    async fn wait(&self, run: u64) {
        // The sender lives in `self`: waiting cannot fail.
        let _ = self.ended.subscribe().wait_for(|ended| *ended >= run).await;
    }

    fn start(&self, schedule: &mut Schedule) {
        let (config, settings) = (self.config.clone(), self.settings.clone());
        self.begin(schedule, async move { obtain(&config, &settings).await });
    }

    /// Starts a run that is this work, whose number it returns.
    fn begin(
        &self,
        schedule: &mut Schedule,
        work: impl Future<Output = Result<Answer, CredentialError>> + Send + 'static,
    ) -> u64 {
        let run = schedule.start();
        let mut begun = Begun { of: self.me.clone(), run, is_finished: false };
        self.spawn(async move {
            let answer = work.await;
            begun.finish(answer);
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
        self.refresh_at(schedule.next_refresh());
    }

    /// Starts a run at that time if the credentials of this run are still held then, instead of what was meant before.
    fn refresh_at(&self, next: Option<(std::time::Instant, u64)>) {
        let mut refresh = lock(&self.refresh);
        *refresh = Errands::default();
        let Some((at, run)) = next else { return };
        let me = self.me.clone();
        refresh.spawn(async move {
            tokio::time::sleep_until(at.into()).await;
            if let Some(me) = me.upgrade() {
                let mut schedule = lock(&me.schedule);
                if schedule.is_due(Instant::now().into_std(), run) {
                    me.start(&mut schedule);
                }
            }
        });
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

impl Begun {
    fn finish(&mut self, answer: Result<Answer, CredentialError>) {
        if let Some(of) = self.of.upgrade() {
            of.finish(answer);
            self.is_finished = true;
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let Some(of) = self.of.upgrade() else { return };
        if !self.is_finished {
            let error = CredentialError::Start("the run broke off".to_owned());
            lock(&of.schedule).failed(Instant::now().into_std(), error);
        }
        of.ended.send_replace(self.run);
    }
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authenticator").field("command", &self.config.command).finish_non_exhaustive()
    }
}

/// Runs the plugin, if it may run, and reads what it says.
async fn obtain(config: &Config, settings: &Settings) -> Result<Answer, CredentialError> {
    let interactive = config.is_interactive(&settings.stdin)?;
    let program = settings.policy.program(&config.command, &settings.path, &run::is_program);
    metrics::judged(!matches!(program, Err(CredentialError::Denied(_))));
    let stdout = match program {
        Err(denied @ CredentialError::Denied(_)) => return Err(denied),
        Err(error) => Err(error),
        Ok(program) => {
            let (time_limit, withheld) = (settings.time_limit, &settings.withheld);
            Run { config, program, interactive, time_limit, withheld }.stdout().await
        }
    };
    metrics::called(stdout.as_ref().map(drop));
    answer::decode(&stdout?, &config.api_version)
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::time::timeout;

    use super::super::super::token::Authorization;
    use super::super::config::{Mode, Written};
    use super::*;

    /// One for itself, of a plugin that does not exist.
    fn authenticator(command: &str) -> Arc<Authenticator> {
        let written = Written {
            api_version: "client.authentication.k8s.io/v1".to_owned(),
            command: command.to_owned(),
            mode: Some(Mode::Never),
            ..Written::default()
        };
        Authenticator::shared(Config::new(written, Path::new("/"), None).unwrap(), Settings::default())
    }

    async fn ended(of: &Authenticator, run: u64) {
        timeout(Duration::from_secs(10), of.wait(run)).await.expect("it ends");
    }

    #[tokio::test]
    async fn a_run_that_panics_is_one_that_failed() {
        let one = authenticator("panics");
        let run = one.begin(&mut lock(&one.schedule), async {
            assert!(std::hint::black_box(false), "index {}", 7);
            Err(CredentialError::Start(String::new()))
        });
        ended(&one, run).await;
        assert_eq!(one.get().await.unwrap_err().to_string(), "exec: the run broke off");
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(matches!(one.get().await.unwrap_err(), CredentialError::NotFound { .. }), "the next one");
    }

    #[tokio::test]
    async fn only_the_last_refresh_ahead_waits() {
        let one = authenticator("refreshes");
        for run in 1..=20 {
            let answer = Answer {
                token: Authorization::bearer(&run.to_string()).ok(),
                identity: None,
                expires: Some(Timestamp::now() + Duration::from_secs(3600)),
            };
            assert_eq!(one.begin(&mut lock(&one.schedule), async { Ok(answer) }), run);
            ended(&one, run).await;
        }
        let begun = Instant::now();
        let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        while alive() > 1 {
            assert!(begun.elapsed() < Duration::from_secs(10), "{} tasks", alive());
            tokio::task::yield_now().await;
        }
    }
}
