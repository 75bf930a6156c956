//! The shell around the life of the node: performs its actions, feeds their outcomes back as events.
//!
//! One loop owns the state and never blocks. What takes time runs as an errand that ends with one [`Event`]; those
//! about one run of tailscaled hang below its `incarnation`, so that nothing is told of one that is gone.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::daemon::{PrivateDir, arguments};
use super::store::StateStore;
use super::{Extras, FIELD_MANAGER, api, certs, login, reissue, stop, words};
use crate::causes::chain;
use crate::daemon::kept::Kept;
use crate::daemon::program::{Environment, Program};
use crate::daemon::reaper::{self, Children};
use crate::daemon::socket;
use crate::daemon::tailscaled::Tailscaled;
use crate::health::{HealthHandle, Weight};
use crate::k8s::publisher::{self, Publisher, SecretTarget, Slot};
use crate::k8s::state;
use crate::localapi::LocalApi;
use crate::maybe::{at, receive};
use crate::node::{self, Device};
use crate::proxy::Metrics;
use crate::proxy::apply::{self, Wanted};
use crate::proxy::config::{Config, Flags};
use crate::proxy::config_source::ConfigSource;
use crate::proxy::life::{Action, Event, Level, Life, Outcome, Policy};
use crate::proxy::local;
use crate::proxy::reload::{self, ReloadErrors};
use crate::secret::Secret;
use crate::serve::advertise::Ownership;
use crate::settings::proxy::ProxySettings;
use crate::shutdown::{Errands, Signals, Tasks};

/// The loop's own deadline ends the wait for the socket; this one only bounds the task.
const SOCKET_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// How much later than a broken connection the daemon's death may be seen.
const DEATH_SHOWS: Duration = Duration::from_millis(250);

/// How long what a dead tailscaled has said is waited for; whatever outlives it may hold on to the pipe.
pub(super) const LAST_WORDS: Duration = Duration::from_millis(200);

/// How often a loop without events shows that it lives; below a third of [`crate::health::STALLED`].
const HEARTBEAT: Duration = Duration::from_secs(15);

/// What everything shares.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) settings: ProxySettings,
    pub(super) extras: Extras,
    /// tailscaled's environment.
    pub(super) environment: Environment,
    pub(super) store: Option<StateStore>,
    pub(super) private: PrivateDir,
}

/// The running node.
pub(super) struct Shell {
    pub(super) context: Arc<Context>,
    pub(super) life: Life,
    pub(super) api: LocalApi,
    first: Arc<Config>,
    config: watch::Receiver<Arc<Config>>,
    set_config: Option<watch::Sender<Arc<Config>>>,
    keys: watch::Sender<Option<Secret<String>>>,
    /// The key of the config with which the last login was begun: the one that failed, if one did.
    tried: Option<Secret<String>>,
    reloads: Arc<ReloadErrors>,
    metrics: Arc<Metrics>,
    children: Children,
    events: mpsc::Sender<Event>,
    inbox: mpsc::Receiver<Event>,
    bus: Option<mpsc::Receiver<Event>>,
    bus_stop: CancellationToken,
    device: Option<Device>,
    names: watch::Sender<Vec<String>>,
    /// The certificate loop under way: its name and its end.
    cert: Option<(String, CancellationToken)>,
    tasks: Tasks,
    pub(super) errands: Errands,
    pub(super) root: CancellationToken,
    incarnation: CancellationToken,
    pub(super) daemon: Kept,
    /// Reads what it says, to its end.
    pub(super) words: Errands,
    /// Its end is expected.
    leaving: CancellationToken,
    health: HealthHandle,
    /// Stopped after the Services were withdrawn.
    pub(super) proxy: Tasks,
    /// Stopped last.
    pub(super) http: Tasks,
    publisher: Option<Publisher>,
}

impl Shell {
    pub(super) fn new(context: Arc<Context>, config: Arc<Config>, now: StdInstant) -> Self {
        let (events, inbox) = mpsc::channel(256);
        let root = CancellationToken::new();
        let publishes = context.store.as_ref().is_some_and(|store| store.publishes);
        let life = Life::new(Policy { state_secret: context.store.is_some(), publishes }, now);
        let api = LocalApi::new(&context.private.socket());
        let health = if config.health { HealthHandle::new() } else { HealthHandle::silent() };
        let (set_config, receiver) = watch::channel(Arc::clone(&config));
        Self {
            keys: watch::channel(config.auth_key.clone()).0,
            tried: None,
            context,
            life,
            api,
            first: config,
            config: receiver,
            set_config: Some(set_config),
            reloads: Arc::default(),
            metrics: Arc::new(Metrics::default()),
            children: Children::new(),
            events,
            inbox,
            bus: None,
            bus_stop: root.child_token(),
            device: None,
            names: watch::channel(Vec::new()).0,
            cert: None,
            tasks: Tasks::new(root.clone()),
            errands: Errands::default(),
            incarnation: root.child_token(),
            leaving: root.child_token(),
            root,
            daemon: Kept::default(),
            words: Errands::default(),
            health,
            proxy: Tasks::new(CancellationToken::new()),
            http: Tasks::new(CancellationToken::new()),
            publisher: None,
        }
    }

    /// Runs to the end and shuts down in order.
    pub(super) async fn run(mut self, source: ConfigSource, signals: &mut Signals) -> Outcome {
        if reaper::is_needed() {
            let children = self.children.clone();
            self.tasks.spawn("reaper", move |stop| reaper::run(children, stop));
        }
        self.follow_config(source);
        self.spawn_daemon();
        let outcome = loop {
            let event = self.next_event(signals).await;
            self.note(&event);
            let actions = self.life.step(event, StdInstant::now());
            self.report_health();
            let mut outcome = None;
            for action in actions {
                if let Action::Stop(how) = action {
                    outcome = Some(how);
                } else {
                    self.perform(action);
                }
            }
            if let Some(outcome) = outcome {
                break outcome;
            }
        };
        self.report_health();
        stop::shut_down(self, signals).await;
        outcome
    }

    async fn next_event(&mut self, signals: &mut Signals) -> Event {
        loop {
            let tick = self.life.deadline().map(Instant::from_std);
            tokio::select! {
                biased;
                _ = signals.next() => return Event::Signal,
                exit = self.daemon.exited() => {
                    self.bus = None;
                    self.incarnation.cancel();
                    let _ = timeout(LAST_WORDS, self.words.next_ended()).await;
                    return Event::DaemonExited(exit.to_string());
                }
                () = at(tick) => return Event::Tick,
                Some(event) = self.inbox.recv() => return event,
                Some(event) = receive(self.bus.as_mut()) => return event,
                Some(ended) = self.errands.next_ended() => {
                    if let Err(error) = ended && error.is_panic() {
                        return Event::SideFailed(format!("a task of k8s-proxy panicked: {error}"));
                    }
                }
                ended = self.tasks.next_ended() => return Event::SideFailed(ended.to_string()),
                ended = self.proxy.next_ended() => return Event::SideFailed(ended.to_string()),
                ended = self.http.next_ended() => return Event::SideFailed(ended.to_string()),
                () = tokio::time::sleep(HEARTBEAT) => self.health.beat(),
            }
        }
    }

    /// What the shell itself needs to know of an event.
    fn note(&mut self, event: &Event) {
        if let Event::Bus(update) = event {
            if update.device.is_some() {
                self.device.clone_from(&update.device);
            }
            self.names.send_if_modified(|names| {
                let differs = *names != update.cert_domains;
                if differs {
                    names.clone_from(&update.cert_domains);
                }
                differs
            });
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Log(Level::Info, line) => tracing::info!("{line}"),
            Action::Log(Level::Warn, line) => tracing::warn!("{line}"),
            Action::SpawnDaemon => self.spawn_daemon(),
            Action::WatchBus => {
                self.bus_stop.cancel();
                self.bus_stop = self.incarnation.child_token();
                let (events, bus) = mpsc::channel(16);
                self.bus = Some(bus);
                self.errands.spawn(node::bus::follow(self.api.clone(), None, events, self.bus_stop.clone()));
            }
            Action::Login { renew } => {
                let (context, api, config) = (Arc::clone(&self.context), self.api.clone(), self.current());
                let key = config.auth_key.clone().or_else(|| context.settings.auth_key.clone());
                self.tried.clone_from(&key);
                self.daemon_errand(async move {
                    Event::LoginSubmitted(login::login(&context, &api, &config, key, renew).await)
                });
            }
            Action::ServeHttp => self.serve_http(),
            Action::Apply { anew } => self.apply(anew),
            Action::ServeApi => self.serve_api(),
            Action::Publish(device) => self.publish(&device),
            Action::RequestReissue => self.request_reissue(),
            Action::StopDaemon => self.stop_daemon(),
            Action::ClearIdentity => {
                let context = Arc::clone(&self.context);
                self.errand(async move {
                    let Some(store) = &context.store else { return Event::IdentityCleared(Ok(())) };
                    Event::IdentityCleared(reissue::clear(store).await)
                });
            }
            Action::Stop(_) => {}
        }
    }

    fn current(&self) -> Arc<Config> {
        Arc::clone(&self.config.borrow())
    }

    /// Work whose outcome is an event; dropped when the process ends.
    #[inline(never)]
    fn errand(&mut self, work: impl Future<Output = Event> + Send + 'static) {
        let events = self.events.clone();
        self.errands.spawn(async move {
            let _ = events.send(work.await).await;
        });
    }

    /// Work about the daemon that runs now.
    #[inline(never)]
    fn daemon_errand(&mut self, work: impl Future<Output = Event> + Send + 'static) {
        let stop = self.incarnation.clone();
        self.errand(async move {
            let event = tokio::select! {
                event = work => event,
                () = stop.cancelled() => std::future::pending().await,
            };
            let failed = matches!(&event, Event::LoginSubmitted(Err(_)) | Event::Applied(Err(_)));
            // A daemon that died took the answer with it, and its death is the news.
            if failed && timeout(DEATH_SHOWS, stop.cancelled()).await.is_ok() {
                std::future::pending::<()>().await;
            }
            event
        });
    }

    fn follow_config(&mut self, source: ConfigSource) {
        let Some(current) = self.set_config.take() else { return };
        let errors = Arc::clone(&self.reloads);
        self.tasks.spawn("config watch", |stop| async move {
            reload::follow(source, Flags::default(), current, errors, stop).await;
            Ok::<(), Infallible>(())
        });
        // The key of the config in force is for whoever waits for another one.
        let (mut config, keys, events) = (self.config.clone(), self.keys.clone(), self.events.clone());
        self.errands.spawn(async move {
            while config.changed().await.is_ok() {
                let key = config.borrow_and_update().auth_key.clone();
                keys.send_replace(key);
                if events.send(Event::ConfigChanged).await.is_err() {
                    return;
                }
            }
        });
    }

    // === tailscaled ===

    fn spawn_daemon(&mut self) {
        self.incarnation = self.root.child_token();
        let path = self.context.private.socket();
        let stop = self.incarnation.clone();
        if let Err(text) = self.start_daemon() {
            return self.errand(async move { Event::NotStarted(text) });
        }
        self.errand(async move {
            tokio::select! {
                () = stop.cancelled() => std::future::pending().await,
                ready = socket::ready(&path, std::future::pending(), Instant::now() + SOCKET_LIMIT) => match ready {
                    Ok(_watched) => Event::Listening,
                    Err(error) => Event::NotStarted(chain(&error)),
                }
            }
        });
    }

    fn start_daemon(&mut self) -> Result<(), String> {
        let context = &self.context;
        socket::prepare(&context.private.socket()).map_err(|error| chain(&error))?;
        // What needs a restart of ours does not change with a restart of the child's.
        let program =
            Program::new("tailscaled", context.environment.clone()).args(arguments(&context.private, &self.first));
        tracing::info!("Starting tailscaled");
        let (daemon, stderr) = Tailscaled::spawn_heard(&self.children, &program).map_err(|error| {
            format!(
                "starting tailscaled failed: {}; the image needs tailscaled beside this program, for example \
                 `FROM tailscale/tailscale` with this binary copied into it",
                chain(&error)
            )
        })?;
        self.words.spawn(words::relay(stderr, self.leaving.clone()));
        self.daemon.keep(daemon);
        if let Err(error) = socket::link_default_socket(&context.settings.root, &context.private.socket()) {
            tracing::debug!("{}", error.warning());
        }
        Ok(())
    }

    fn stop_daemon(&mut self) {
        self.leaving.cancel();
        if !self.daemon.stop() {
            self.errand(async { Event::DaemonExited("it was not running".to_owned()) });
        }
    }

    // === What a node that is up does ===

    fn serve_http(&mut self) {
        let (config, pod_ip) = (&self.first, self.context.settings.pod_ip);
        let (metrics, reloads) = (Arc::clone(&self.metrics), Arc::clone(&self.reloads));
        match local::bind(config, pod_ip, &self.health, &self.api, metrics, reloads) {
            Ok(Some(server)) => self.http.spawn("HTTP server", |stop| server.serve(stop)),
            Ok(None) => {}
            Err(error) => {
                let text = chain(&error);
                self.errand(async move { Event::SideFailed(text) });
            }
        }
    }

    fn apply(&mut self, anew: bool) {
        let (api, config) = (self.api.clone(), self.current());
        let suffix = self.device.as_ref().and_then(Device::magic_dns_suffix).map(str::to_owned);
        let backend = self.context.extras.listen;
        let ownership = Ownership::Whole;
        let wanted = Wanted { config: &config, suffix: suffix.as_deref(), backend, ownership, anew };
        // Before the name is served somebody sees to its certificate.
        let domain = wanted.serving().ok().flatten().map(|serving| serving.domain());
        self.keep_certificate(domain.filter(|_| self.first.api_server.issue_certs));
        self.daemon_errand(async move {
            let wanted = Wanted { config: &config, suffix: suffix.as_deref(), backend, ownership, anew };
            Event::Applied(apply::apply(&api, &wanted).await)
        });
    }

    fn keep_certificate(&mut self, domain: Option<String>) {
        if self.cert.as_ref().map(|(name, _)| name) == domain.as_ref() {
            return;
        }
        if let Some((name, stop)) = self.cert.take() {
            tracing::info!("no longer keeping the certificate for {name}");
            stop.cancel();
        }
        if let Some(domain) = domain {
            let stop = self.root.child_token();
            self.errands.spawn(certs::keep(self.api.clone(), domain.clone(), self.names.subscribe(), stop.clone()));
            self.cert = Some((domain, stop));
        }
    }

    fn serve_api(&mut self) {
        let options = api::options(&self.context, self.first.api_server.mode, &self.config);
        let bound = api::bind(options, self.context.extras.access.clone(), self.api.clone(), Arc::clone(&self.metrics));
        let events = self.events.clone();
        self.proxy.spawn("API proxy", |stop| async move {
            match bound.await {
                Ok(proxy) => {
                    let _ = events.send(Event::Serving(Ok(()))).await;
                    proxy.serve(stop).await.map_err(crate::shutdown::TaskError::from)
                }
                Err(error) => {
                    let _ = events.send(Event::Serving(Err(error))).await;
                    stop.cancelled().await;
                    Ok(())
                }
            }
        });
    }

    fn publish(&mut self, device: &Device) {
        let Some(store) = &self.context.store else { return };
        let publisher = self.publisher.get_or_insert_with(|| {
            let target = SecretTarget { cluster: store.cluster.clone(), secret: store.name.clone() };
            let (publisher, writer, mut outcomes) = publisher::publisher(target);
            self.tasks.spawn("device keys", |stop| writer.run(stop));
            // Delays are logged by the writer, and a denial is its end.
            self.errands.spawn(async move { while outcomes.recv().await.is_some() {} });
            publisher
        });
        let id = store.untold.clone().set(state::DEVICE_ID, &device.id);
        publisher.set(Slot::DeviceId, id.managed_by(FIELD_MANAGER));
        let endpoints = state::device_endpoints_patch(&device.fqdn, &device.addresses);
        publisher.set(Slot::DeviceEndpoints, endpoints.managed_by(FIELD_MANAGER));
    }

    fn request_reissue(&mut self) {
        let (context, api) = (Arc::clone(&self.context), self.api.clone());
        let failed = self.tried.clone();
        let (keys, stop) = (self.keys.subscribe(), self.root.clone());
        self.errand(async move {
            let Some(store) = &context.store else { return Event::NewKey(Err("there is no state Secret".to_owned())) };
            Event::NewKey(reissue::request_and_wait(&context, store, &api, failed, keys, &stop).await)
        });
    }

    fn report_health(&self) {
        let readiness = self.life.readiness();
        self.health.set(|snapshot| {
            snapshot.addresses = !readiness.addresses.is_empty();
            snapshot.told = readiness.addresses;
            snapshot.report("tailscaled", Weight::Vital, readiness.state);
            snapshot.report("bus", Weight::Vital, readiness.bus);
            snapshot.report("api-listener", Weight::Vital, readiness.listener);
            snapshot.report("config", Weight::Degrading, readiness.config);
        });
    }
}
