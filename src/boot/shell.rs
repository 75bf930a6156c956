//! The shell around the state machine: performs its actions, feeds their outcomes back as events.
//!
//! One loop owns the state; nothing in it blocks. Whatever takes time runs as a task that ends with one [`Event`].
//! Every task hangs below a [`CancellationToken`]: those of one daemon incarnation below `incarnation`, the
//! others below `root`, so a restart of tailscaled leaves nothing behind that still talks about the old one.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::certs::{Certs, Links};
use super::context::Context;
use super::forward::Packets;
use super::groups::{Groups, World};
use super::machine::{Action, Announcement, Boot, Death, Event, Level, LoginError, LoginSource, Outcome};
use super::serving::Serving;
use super::{announce, apply, argv, chain, host, http, login, publish, reissue, reload, stop};
use crate::daemon::kept::Kept;
use crate::daemon::program::Program;
use crate::daemon::reaper;
use crate::daemon::socket;
use crate::daemon::tailscaled::Tailscaled;
use crate::health::{HealthHandle, Weight};
use crate::k8s::publisher::{self, Publisher, SecretTarget};
use crate::maybe::{at, receive};
use crate::node;
use crate::node::bus::Newest;
use crate::node::metrics::OwnMetrics;
use crate::settings::{CertShare, Persona, vars};
use crate::shutdown::{Errands, Signals, Tasks};

/// Limit of one state-writing call to the API server or the daemon after the boot deadline's part (W31).
pub(super) const OPERATION_LIMIT: Duration = Duration::from_secs(60);

/// The loop's own deadline ends the wait for the socket; this one only bounds the task.
const SOCKET_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// When what was only needed to start may be put away, at some cost.
const STARTUP_IS_OVER: Duration = Duration::from_secs(5);

/// How much later than the broken connection a daemon's death may be seen.
const DEATH_SHOWS: Duration = Duration::from_millis(250);

/// How often a loop without events shows that it lives; below a third of [`crate::health::STALLED`].
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The running boot.
pub(super) struct Shell {
    pub(super) context: Arc<Context>,
    pub(super) boot: Boot,
    events: mpsc::Sender<Event>,
    inbox: mpsc::Receiver<Event>,
    /// The open bus: a channel of its own, so that dropping it drops what an older stream said.
    bus: Option<mpsc::Receiver<Event>>,
    bus_stop: CancellationToken,
    /// The node with its peers, where names of the tailnet are looked up.
    newest: Newest,
    /// What runs for as long as the boot, or one daemon, does.
    pub(super) tasks: Tasks,
    /// What ends with one event.
    pub(super) errands: Errands,
    pub(super) announcements: Errands,
    pub(super) root: CancellationToken,
    incarnation: CancellationToken,
    pub(super) daemon: Kept,
    health: HealthHandle,
    /// Closed last: probes are answered until tailscaled is gone.
    pub(super) http: Tasks,
    publisher: Option<Publisher>,
    pub(super) serving: Serving,
    pub(super) certs: Certs,
    groups: Groups,
    pub(super) packets: Packets,
}

impl Shell {
    pub(super) fn new(context: Context, boot: Boot) -> Self {
        // Bounded: a stuck loop shows as a stalled bus, not as memory.
        let (events, inbox) = mpsc::channel(256);
        let root = CancellationToken::new();
        let serves_health = context.settings.local.main.as_ref().is_some_and(|main| main.health)
            || context.settings.local.deprecated_health.is_some();
        let groups = Groups::new(&context.settings);
        let health = if serves_health { HealthHandle::new() } else { HealthHandle::silent() };
        Self {
            context: Arc::new(context),
            boot,
            events,
            inbox,
            bus: None,
            bus_stop: root.child_token(),
            newest: watch::channel(Arc::default()).0,
            tasks: Tasks::new(root.clone()),
            errands: Errands::default(),
            announcements: Errands::default(),
            incarnation: root.child_token(),
            root,
            daemon: Kept::default(),
            health,
            http: Tasks::new(CancellationToken::new()),
            publisher: None,
            serving: Serving::new(),
            certs: Certs::new(),
            groups,
            packets: Packets::default(),
        }
    }

    /// Runs to the end and shuts down in order. Returns how it ended.
    pub(super) async fn run(mut self, signals: &mut Signals) -> Outcome {
        if reaper::is_needed() {
            let children = self.context.children.clone();
            self.tasks.spawn("reaper", move |stop| reaper::run(children, stop));
        }
        self.spawn_daemon();
        let outcome = loop {
            let event = self.next_event(signals).await;
            if let Event::Bus(update) = &event {
                self.serving.note(update);
            }
            let actions = self.boot.step(event, std::time::Instant::now());
            // Upstream flips its health flag before it says that the startup is complete.
            self.report_health();
            self.certs.daemon_is_up(self.boot.readiness().state.is_none());
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
        stop::shut_down(self, signals, outcome == Outcome::Requested).await;
        outcome
    }

    async fn next_event(&mut self, signals: &mut Signals) -> Event {
        loop {
            let tick = self.boot.deadline().map(Instant::from_std);
            tokio::select! {
                biased;
                _ = signals.next() => return Event::Signal,
                exit = self.daemon.exited() => {
                    self.bus = None;
                    self.incarnation.cancel();
                    return Event::DaemonExited(Death(exit.to_string()));
                }
                () = at(tick) => return Event::Tick,
                Some(event) = self.inbox.recv() => return event,
                Some(event) = receive(self.bus.as_mut()) => return event,
                Some(ended) = self.errands.next_ended() => {
                    if let Err(error) = ended && error.is_panic() {
                        return Event::SideFailed(format!("a task of boot panicked: {error}"));
                    }
                }
                ended = self.tasks.next_ended() => return Event::SideFailed(ended.to_string()),
                ended = self.http.next_ended() => return Event::SideFailed(ended.to_string()),
                () = tokio::time::sleep(HEARTBEAT) => self.health.beat(),
            }
        }
    }

    fn perform(&mut self, action: Action) {
        let context = Arc::clone(&self.context);
        match action {
            Action::Log(Level::Info, line) => tracing::info!("{line}"),
            Action::Log(Level::Warn, line) => tracing::warn!("{line}"),
            Action::ServeHttp => self.serve_http(),
            Action::TuneGro => self.detached(async move { host::tune_gro(&context.api).await }),
            Action::LinkSocket => {
                let daemon = &context.settings.daemon;
                if let Err(error) = socket::link_default_socket(&context.settings.root, &daemon.socket) {
                    tracing::warn!("{}", error.warning());
                }
            }
            Action::WatchBus => {
                // The end of the old stream, and of all that it still had to say.
                self.bus_stop.cancel();
                self.bus_stop = self.incarnation.child_token();
                let (events, bus) = mpsc::channel(16);
                self.bus = Some(bus);
                let newest = context.settings.forward.needs_peers().then(|| self.newest.clone());
                self.errands.spawn(node::bus::follow(context.api.clone(), newest, events, self.bus_stop.clone()));
            }
            Action::RunUp => {
                let stop = self.incarnation.clone();
                self.daemon_task(async move {
                    let command = argv::up(&context.settings, context.prepared.adopted_key.as_ref()).expose();
                    Event::UpFinished(login::run_tailscale(&context, command, &stop).await.map_err(|e| e.to_string()))
                });
            }
            Action::RunSet => {
                let stop = self.incarnation.clone();
                self.daemon_task(async move {
                    let command = argv::set(&context.settings);
                    let set = async { login::run_tailscale(&context, command, &stop).await.map_err(|e| e.to_string()) };
                    Event::SetFinished(limited(set).await)
                });
            }
            Action::Login(source) => self.login(source),
            Action::ApplyPrefs => {
                let stop = self.incarnation.clone();
                self.daemon_task(async move { Event::PrefsApplied(limited(apply::apply(&context, &stop)).await) });
            }
            Action::ClearServeConfig => self.daemon_task(self.serving.clearing(&context).run()),
            Action::DeleteAuthKey => {
                self.task(async move { Event::AuthKeyDeleted(publish::delete_auth_key(&context).await) });
            }
            Action::OpenFirewall => self.task(self.packets.clone().open(context)),
            Action::PublishId(id) => {
                if let Some(publisher) = self.publisher() {
                    publisher.device_id(&id);
                }
            }
            Action::Forward(own) => {
                let newest = self.newest.subscribe();
                self.packets.forward(own, newest, &context, &self.events, &mut self.tasks);
            }
            Action::Publish(device) => self.publish(&device),
            Action::WatchConfig => {
                self.tasks.spawn("config watch", |stop| async move {
                    reload::keep_reloaded(&context, &stop).await;
                    Ok::<(), Infallible>(())
                });
            }
            Action::Serve => {
                let publisher = self.publisher();
                let (health, events) = (self.health.clone(), self.events.clone());
                self.serving.start(&context, &mut self.tasks, publisher, health, events, &self.certs);
                let links = || Links {
                    served: self.serving.standing(),
                    hold: self.serving.hold(),
                    events: self.events.clone(),
                };
                let share = context.settings.cert_share;
                if share.is_some_and(CertShare::may_write) {
                    self.certs.start(&context, links(), &mut self.tasks);
                }
                if context.settings.cert_reload && share.is_some_and(CertShare::may_read) {
                    self.certs.start_reader(&context, links(), &mut self.tasks);
                }
            }
            Action::ServeGroup => self.serve_group(),
            Action::RequestReissue => {
                let stop = self.root.clone();
                self.task(async move { Event::NewKey(reissue::request_and_wait(&context, &stop).await) });
            }
            Action::StopDaemon => self.stop_daemon(),
            Action::ClearIdentity => self.task(async move { Event::IdentityCleared(reissue::clear(&context).await) }),
            Action::SpawnDaemon => self.spawn_daemon(),
            Action::Announce(announcement) => self.announce(announcement),
            Action::Stop(_) => {}
        }
    }

    /// A task whose outcome is an event; dropped when its incarnation or the boot ends.
    #[inline(never)]
    fn task(&mut self, work: impl Future<Output = Event> + Send + 'static) {
        let events = self.events.clone();
        self.errands.spawn(async move {
            // The receiver lives as long as the loop; after it nobody needs the event.
            let _ = events.send(work.await).await;
        });
    }

    /// A task about the daemon that runs now. Nothing is told of one that is gone: it took the answers with it, and its
    /// death is the news.
    #[inline(never)]
    fn daemon_task(&mut self, work: impl Future<Output = Event> + Send + 'static) {
        let stop = self.incarnation.clone();
        self.task(async move {
            let event = work.await;
            if is_failure(&event) && timeout(DEATH_SHOWS, stop.cancelled()).await.is_ok() {
                std::future::pending::<()>().await;
            }
            event
        });
    }

    fn detached(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.errands.spawn(work);
    }

    fn spawn_daemon(&mut self) {
        self.incarnation = self.root.child_token();
        self.serving.daemon_starts();
        let path = self.context.settings.daemon.socket.clone();
        let stop = self.incarnation.clone();
        if let Err(text) = self.start_daemon() {
            return self.task(async move { Event::NotStarted(format!("starting tailscaled failed: {text}")) });
        }
        tracing::info!("Waiting for tailscaled socket at {}", path.display());
        let events = self.events.clone();
        self.detached(async move {
            // The loop itself watches the child and the deadline.
            let ready = socket::ready(&path, std::future::pending(), Instant::now() + SOCKET_LIMIT);
            let (event, watched) = match stop.run_until_cancelled(ready).await {
                None => return,
                Some(Ok(watched)) => (Event::Listening, Some(watched)),
                Some(Err(error)) => (Event::NotStarted(chain(&error)), None),
            };
            let _ = events.send(event).await;
            tokio::time::sleep(STARTUP_IS_OVER).await;
            drop(watched);
        });
    }

    fn start_daemon(&mut self) -> Result<(), String> {
        let context = &self.context;
        let args = argv::tailscaled(&context.settings);
        socket::prepare(&context.settings.daemon.socket).map_err(|error| chain(&error))?;
        let mut environment = context.environment.clone();
        if context.settings.cert_share == Some(CertShare::Elected) {
            environment.insert(vars::TS_CERT_SHARE_MODE.name.into(), self.certs.daemon_starts().into());
        }
        let program = Program::new("tailscaled", environment).args(args);
        tracing::info!("Starting tailscaled");
        let daemon = Tailscaled::spawn(&context.children, &program).map_err(|error| chain(&error))?;
        self.daemon.keep(daemon);
        Ok(())
    }

    fn stop_daemon(&mut self) {
        if !self.daemon.stop() {
            self.task(async { Event::DaemonExited(Death("it was not running".to_owned())) });
        }
    }

    fn login(&mut self, source: LoginSource) {
        let context = Arc::clone(&self.context);
        let stop = self.incarnation.clone();
        self.daemon_task(async move { Event::LoginSubmitted(login::login(&context, source, &stop).await) });
    }

    /// What we say beside tailscaled's metrics: nothing as containerboot, which passes those on.
    fn own_metrics(&self) -> Option<OwnMetrics> {
        let settings = &self.context.settings;
        if settings.persona == Persona::Containerboot {
            return None;
        }
        let serving = settings.serve_config.is_some().then(|| self.serving.metrics());
        let certs = settings.cert_share.is_some_and(CertShare::may_write).then(|| self.certs.metrics());
        let rules = settings.forward.has_own_rules().then(|| self.packets.metrics());
        let parts: Vec<_> = serving.into_iter().chain(certs).chain(rules).chain(self.groups.metrics()).collect();
        (!parts.is_empty()).then(|| -> OwnMetrics { Arc::new(move || parts.iter().map(|part| part()).collect()) })
    }

    fn serve_group(&mut self) {
        let Some(firewall) = self.packets.firewall().cloned() else { return };
        let world = World {
            firewall,
            tun: self.context.plan.tun.clone(),
            context: Arc::clone(&self.context),
            node: self.newest.subscribe(),
            publisher: self.publisher(),
            health: self.health.clone(),
            events: self.events.clone(),
        };
        self.groups.start(&mut self.tasks, &world);
    }

    fn serve_http(&mut self) {
        match http::bind(&self.context, &self.health, self.own_metrics().as_ref(), self.groups.hook()) {
            Ok(servers) => {
                for server in servers {
                    self.http.spawn("HTTP server", |stop| server.serve(stop));
                }
            }
            Err(error) => {
                let text = chain(&error);
                self.task(async move { Event::SideFailed(text) });
            }
        }
    }

    fn publish(&mut self, device: &super::machine::Device) {
        let Some(publisher) = self.publisher() else { return };
        publisher.device_id(&device.id);
        publisher.device_endpoints(&device.fqdn, &device.addresses);
    }

    /// Who writes the state Secret, where that may be written.
    fn publisher(&mut self) -> Option<Publisher> {
        let secret = self.context.secret().filter(|secret| secret.writable)?;
        let publisher = self.publisher.get_or_insert_with(|| {
            let target = SecretTarget { cluster: secret.cluster.clone(), secret: secret.name.clone() };
            let (publisher, writer, outcomes) = publisher::publisher(target);
            self.errands.spawn(publish::keep_published(writer, outcomes, self.events.clone(), self.root.clone()));
            publisher
        });
        Some(publisher.clone())
    }

    fn announce(&mut self, announcement: Announcement) {
        let Persona::Tailpod = self.context.settings.persona else { return };
        let context = Arc::clone(&self.context);
        self.announcements.spawn(announce::announce(context, announcement));
    }

    fn report_health(&self) {
        let readiness = self.boot.readiness();
        self.health.set(|snapshot| {
            snapshot.addresses = readiness.addresses;
            snapshot.report("tailscaled", Weight::Vital, readiness.state);
            snapshot.report("bus", Weight::Vital, readiness.bus);
            snapshot.report("startup", Weight::Degrading, readiness.startup);
            if self.boot.forwards() {
                snapshot.report("packet-rules", Weight::Degrading, readiness.rules);
            }
        });
    }
}

/// Whether something that was asked of the daemon failed.
fn is_failure(event: &Event) -> bool {
    match event {
        Event::UpFinished(outcome) | Event::SetFinished(outcome) | Event::PrefsApplied(outcome) => outcome.is_err(),
        Event::LoginSubmitted(outcome) => matches!(outcome, Err(LoginError::Refused(_))),
        _ => false,
    }
}

/// An operation after the login: nothing else would end one that hangs (W31).
async fn limited(operation: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    timeout(OPERATION_LIMIT, operation).await.unwrap_or_else(|_| Err("context deadline exceeded".to_owned()))
}
